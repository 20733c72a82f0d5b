//! `compare --against`: one prompt read by two models; and `compare --beside`: two prompts read by one.

use super::super::args::{ReadingArgs, prompt_of};
use super::super::output::Output;
use super::super::progress::{Counted, Progress};
use super::super::run::{
    MAX_NEW_TOKENS, check_job, load_model, load_options, load_plan, say_written,
};
use super::super::{Context, table};
use super::{Args, drawn, interrupted};
use crate::error::Result;
use crate::export;
use crate::model::{Model, Tokenizer};
use crate::session::{Against, Event, Finish, Recorder, branch_names, compare, open_beside};
use crate::text;
use crate::trace::{Metric, Pairing, Record, Side, Spread, TwoModels, summarised};
use serde::Serialize;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::sync::Arc;

/// The metrics of the table, by column name.
const SHOWN: [&str; 3] = ["entropy", "varentropy", "prob_margin"];

/// Do it.
pub(super) fn run(args: &Args, reference: &str, context: &Context) -> Result<()> {
    let reading = &args.reading;
    let prompt = args.prompt.read(reading.chat)?;
    let a = load_model(&context.settings.model, context)?;
    let b = {
        let mut progress = Progress::new(&context.notes, Counted::Bytes);
        let mut heard = |what: &str, done, total| progress.update(what, done, total);
        open_beside(reference, &load_options(context), &a, &mut heard)?
    };
    let job = reading.job(prompt, &context.settings, MAX_NEW_TOKENS);
    // How much is drawn is for the one that draws.
    let draws = a.card().causal || b.card().causal;
    for model in [&a, &b] {
        let reading = ReadingArgs {
            max_new_tokens: reading.max_new_tokens.filter(|_| !draws),
            ..reading.clone()
        };
        check_job(&reading, &job.prompt, model)?;
    }
    let pairing = args.pairing();
    let names = branch_names(a.card(), b.card());
    let recorder = |model: &Model, name: &str| {
        let mut job = job.clone();
        if !model.card().causal {
            job.max_new_tokens = 0;
        }
        Recorder::of_branch(Arc::clone(model.card()), &job, name)
    };
    let mut recorders = [recorder(&a, &names[0]), recorder(&b, &names[1])];
    let _heed = context.interrupt.heed();
    let finish = {
        let mut progress = Progress::new(&context.notes, Counted::Items);
        let (mut done, total) = (0u64, 2 * job.max_new_tokens as u64);
        let mut heard = |side: Side, event: Event| {
            recorders[side as usize].apply(&event);
            done += u64::from(matches!(event, Event::Cells { .. }));
            progress.update("reading with both", done, Some(total.max(done)));
        };
        let mut against = Against::start(&a, &b, job, pairing, &mut heard)?;
        loop {
            if let Some(finish) = against.advance(&a, &b, &mut heard)? {
                break finish;
            }
            if context.interrupt.raised() {
                return Err(interrupted(args, context));
            }
        }
    };
    let tokenizers = [a.tokenizer().as_ref(), b.tokenizer().as_ref()];
    finished(args, recorders, finish, pairing, tokenizers, context)
}

/// Two prompts read by one model, as rows of one forward pass.
pub(super) fn prompts(args: &Args, other: &str, context: &Context) -> Result<()> {
    let reading = &args.reading;
    let prompt = args.prompt.read(reading.chat)?;
    let model = load_model(&context.settings.model, context)?;
    let mut job = reading.job(prompt, &context.settings, MAX_NEW_TOKENS);
    job.steering = load_plan(&args.steer, &model, context)?;
    let other = prompt_of(other.to_owned(), reading.chat)?;
    for prompt in [&job.prompt, &other] {
        check_job(reading, prompt, &model)?;
    }
    job.beside = Some(other);
    if !model.card().causal {
        job.max_new_tokens = 0;
    }
    let branch = |name| Recorder::of_branch(Arc::clone(model.card()), &job, name);
    let mut recorders = ["A", "B"].map(branch);
    let _heed = context.interrupt.heed();
    let finish = {
        let mut progress = Progress::new(&context.notes, Counted::Items);
        let (mut done, total) = (0u64, 2 * job.max_new_tokens as u64);
        compare(&model, &job, Pairing::Prompts, &mut |side, event| {
            recorders[side as usize].apply(&event);
            done += u64::from(matches!(event, Event::Cells { .. }));
            progress.update("reading both", done, Some(total.max(done)));
            match context.interrupt.raised() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?
    };
    if context.interrupt.raised() {
        return Err(interrupted(args, context));
    }
    let tokenizers = [model.tokenizer().as_ref(); 2];
    finished(
        args,
        recorders,
        finish,
        Pairing::Prompts,
        tokenizers,
        context,
    )
}

/// Print and write what both have read.
fn finished(
    args: &Args,
    recorders: [Recorder; 2],
    finish: [Finish; 2],
    pairing: Pairing,
    tokenizers: [&Tokenizer; 2],
    context: &Context,
) -> Result<()> {
    let [of_a, of_b] = recorders.map(Recorder::into_record);
    let models = TwoModels::new(&of_a, &of_b);
    let mut output = Output::new();
    if args.json {
        output.json(&report(&models, finish, pairing))?;
    } else {
        output.write(&describe(&models, finish, pairing, &output))?;
    }
    output.flush()?;
    if let Some(dir) = &args.out {
        let written = export::write_models(dir, &models, tokenizers, pairing, args.force)?;
        say_written(&written, dir, context);
    }
    Ok(())
}

/// Why there is no KL(A‖B).
fn no_divergence(models: &TwoModels<'_>, pairing: Pairing) -> Option<&'static str> {
    let [a, b] = models.records();
    match pairing {
        Pairing::Free => Some("each model reads its own text"),
        Pairing::Locked if a.model.blocks != b.model.blocks => {
            Some("the models do not have equally many layers")
        }
        Pairing::Locked => None,
        Pairing::Prompts => Some("each has a prompt of its own"),
    }
}

/// What both models read, for people: both texts, then layers of A downward.
fn describe(
    models: &TwoModels<'_>,
    finish: [Finish; 2],
    pairing: Pairing,
    output: &Output,
) -> String {
    let mut out = String::new();
    let sides = models.records().into_iter().zip(["A", "B"]).zip(finish);
    // Writing into a String cannot fail.
    for ((record, side), finish) in sides {
        let Some((name, grid)) = record.branches.first() else {
            return out;
        };
        let text = drawn(grid);
        let text = match output.is_terminal() {
            true => text::scrub_lines(&text),
            false => text,
        };
        let card = &record.model;
        let (at, which) = summarised([grid], card);
        let _ = writeln!(
            out,
            "{side} = {name}, {} of {} blocks ({}):{text}\n{} {which} positions\n",
            card.family,
            card.blocks,
            finish.label(),
            at.len()
        );
    }
    let why = no_divergence(models, pairing);
    let divergence = match why {
        Some(why) => format!("no KL(A‖B), as {why}"),
        None => "kl_ab is KL(A‖B)".to_owned(),
    };
    let _ = writeln!(
        out,
        "mean ± standard deviation over these positions of A and of B, difference of the means;\n\
         layers of B by relative depth, layer 0 is the embedding; {divergence}\n"
    );
    let [record, _] = models.records();
    let shown = |spread: Option<Spread>| match spread {
        Some(s) => format!("{:.3} ± {:.3}", s.mean, s.std),
        None => "–".to_owned(),
    };
    for name in SHOWN {
        let Some(metric) = record.schema.find(name) else {
            continue;
        };
        let header = ["layer A", "layer B", "A", "B", "difference"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        for (layer_a, layer_b) in models.depths().layers() {
            let both = models.at(layer_a, metric);
            let difference = both.difference.map_or("–".into(), |d| format!("{d:+.3}"));
            let layers = [layer_a, layer_b].map(|layer| layer.to_string());
            let numbers = [shown(both.a), shown(both.b), difference];
            rows.push(layers.into_iter().chain(numbers).collect());
        }
        let _ = writeln!(out, "{name}\n{}", table::aligned(&rows, &[]));
    }
    if why.is_none() {
        let mut rows = vec![["layer", "KL(A‖B)", "n"].map(str::to_owned).to_vec()];
        for (layer, _) in models.depths().layers() {
            let divergence = models.divergence(layer);
            let n = divergence.map_or(0, |spread| spread.n);
            rows.push(vec![layer.to_string(), shown(divergence), n.to_string()]);
        }
        let _ = writeln!(out, "kl_ab\n{}", table::aligned(&rows, &[]));
    }
    out
}

/// What `compare --against --json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    mode: &'static str,
    /// A and B.
    models: Vec<ModelReport<'a>>,
    /// Why there is no `kl_ab`.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_kl_ab: Option<&'static str>,
    layers: Vec<LayerReport<'a>>,
}

#[derive(Debug, Serialize)]
struct ModelReport<'a> {
    model: &'a str,
    /// The branch's name.
    name: &'a str,
    family: &'a str,
    blocks: usize,
    prompt_tokens: usize,
    text: String,
    token_ids: Vec<u32>,
    finish: &'static str,
    /// The positions behind its numbers.
    positions: &'a [usize],
}

#[derive(Debug, Serialize)]
struct LayerReport<'a> {
    layer_a: usize,
    layer_b: usize,
    depth: f64,
    metric: &'a str,
    unit: &'static str,
    a: Option<Spread>,
    b: Option<Spread>,
    difference: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kl_ab: Option<Spread>,
}

fn report<'a>(models: &'a TwoModels<'a>, finish: [Finish; 2], pairing: Pairing) -> Report<'a> {
    let sides = models.records().into_iter().zip(models.positions());
    let of_side = |((record, positions), finish): ((&'a Record, &'a Vec<usize>), Finish)| {
        let (name, grid) = record.branches.first()?;
        Some(ModelReport {
            model: &record.model.name,
            name,
            family: &record.model.family,
            blocks: record.model.blocks,
            prompt_tokens: grid.prompt_len(),
            text: text::scrub_lines(&drawn(grid)),
            token_ids: grid.tokens().iter().map(|t| t.id).collect(),
            finish: finish.label(),
            positions,
        })
    };
    let [a, _] = models.records();
    let mut layers = Vec::new();
    for (layer_a, layer_b) in models.depths().layers() {
        let layer = |metric: &'a str, unit: &'static str| LayerReport {
            layer_a,
            layer_b,
            depth: models.depths().depth(layer_a),
            metric,
            unit,
            a: None,
            b: None,
            difference: None,
            kl_ab: None,
        };
        for (i, spec) in a.schema.metrics().iter().enumerate() {
            let both = models.at(layer_a, Metric(i));
            layers.push(LayerReport {
                a: both.a,
                b: both.b,
                difference: both.difference,
                ..layer(&spec.name, spec.unit.label())
            });
        }
        if let Some(divergence) = models.divergence(layer_a) {
            layers.push(LayerReport {
                kl_ab: Some(divergence),
                ..layer("kl_ab", "nats")
            });
        }
    }
    Report {
        mode: pairing.label(),
        models: sides.zip(finish).filter_map(of_side).collect(),
        no_kl_ab: no_divergence(models, pairing),
        layers,
    }
}
