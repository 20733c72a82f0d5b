//! `entroscope compare`: a steered run beside the plain one, at one strength or at many, of one prompt or of many; two
//! models; or two sets of prompts.

mod against;
pub mod analysis;
mod several;
mod sweep;

pub use several::Layout;

use super::args::{PromptArgs, ReadingArgs, read_prompts};
use super::output::Output;
use super::progress::{Counted, Progress};
use super::run::{MAX_NEW_TOKENS, check_job, load_model, load_plan, say_written};
use super::{Context, table};
use crate::error::{Error, Result};
use crate::export;
use crate::model::Model;
use crate::session::{self, Event, Finish, Job, Recorder, SetJob, Sets};
use crate::steer::Spec;
use crate::text;
use crate::trace::{self, Difference, Grid, Metric, Record, Samples, Separation, Set, Spread};
use analysis::Analysis;
use clap::Args as ClapArgs;
use serde::Serialize;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The metrics of the table of two runs, by column name.
const COMPARED: [&str; 2] = ["entropy", "surprisal"];
/// Those of the tables of two sets.
const SHOWN: [&str; 4] = ["entropy", "varentropy", "prob_margin", "surprisal"];

/// Arguments of `compare`.
#[derive(ClapArgs, Clone, Debug, Default)]
#[command(mut_group("PromptArgs", |group| group.required(false)))]
pub struct Args {
    /// Where the prompt comes from.
    #[command(flatten)]
    pub prompt: PromptArgs,
    /// How it is read and gone on from.
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// Push the states of one of two runs, as in `run`; repeated ones add up
    #[arg(
        long,
        value_name = "S",
        help_heading = "Steering",
        required_unless_present_any = ["known", "against", "config", "beside"]
    )]
    pub steer: Vec<Spec>,
    /// Let B read A's text, so that cells compare one to one: the steered model the plain one's, or --against's that of --model
    #[arg(long, help_heading = "Two runs", conflicts_with_all = ["free", "known"])]
    pub locked: bool,
    /// Let each go on with its own text (the default)
    #[arg(long, help_heading = "Two runs", conflicts_with = "known")]
    pub free: bool,
    /// Another model to read the prompt, which --model is held against
    #[arg(long, value_name = "M", help_heading = "Two runs", conflicts_with_all = ["steer", "known"])]
    pub against: Option<String>,
    /// Another prompt, which the first is held against; --steer then pushes both
    #[arg(long, value_name = "TEXT", help_heading = "Two runs", conflicts_with_all = ["known", "against", "locked", "sweep"])]
    pub beside: Option<String>,
    /// Many strengths instead of one.
    #[command(flatten)]
    pub sweep: sweep::SweepArgs,
    /// Make N prompts from the program's own templates instead, by --seed, and compare over them all
    #[arg(long, value_name = "N", group = "PromptArgs")]
    pub sentences: Option<usize>,
    /// Prompts the model should know: JSON lines with a prompt each, or one prompt a line
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "Two sets of prompts",
        group = "PromptArgs",
        requires = "unknown",
        conflicts_with_all = ["attention", "read_last", "sweep"]
    )]
    pub known: Option<PathBuf>,
    /// Prompts it should not know
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "Two sets of prompts",
        requires = "known"
    )]
    pub unknown: Option<PathBuf>,
    /// Print all layers and metrics as JSON
    #[arg(long)]
    pub json: bool,
    /// Write the tables and manifest.json into this folder
    #[arg(long, short, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// How --out is laid out; llm-entropy makes a new folder in it, and draws one token unless -n says otherwise
    #[arg(long, value_name = "L", conflicts_with = "known")]
    pub layout: Option<Layout>,
    /// Replace the tables of an earlier run in --out
    #[arg(long, requires = "out")]
    pub force: bool,
    /// llm_entropy's configuration, where --config names one.
    #[arg(skip)]
    pub analysis: Option<Analysis>,
}

/// Do it.
///
/// # Errors
/// If a prompt, the model or the folder are not usable, reading fails, or the user interrupts it.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    // Everything that can be refused is refused before a model is loaded.
    several::require(args)?;
    if args.is_several() {
        several::check(args)?;
        return several::run(args, context);
    }
    if let Some(dir) = &args.out {
        export::check_target(dir, args.force)?;
    }
    if let (Some(known), Some(unknown)) = (&args.known, &args.unknown) {
        return sets(args, known, unknown, context);
    }
    match (&args.sweep.sweep, &args.against, &args.beside) {
        (Some(strengths), ..) => sweep::run(args, strengths, context),
        (None, Some(model), _) => against::run(args, model, context),
        (None, None, Some(other)) => against::prompts(args, other, context),
        (None, None, None) => steered(args, context),
    }
}

/// Interrupted: say what that leaves.
fn interrupted(args: &Args, context: &Context) -> Error {
    if let Some(dir) = args.folder() {
        let dir = text::path(dir);
        context.notes.say(&format!("nothing was written to {dir}"));
    }
    Error::Interrupted
}

fn steered(args: &Args, context: &Context) -> Result<()> {
    let reading = &args.reading;
    let prompt = args.prompt.read(reading.chat)?;
    let model = load_model(&context.settings.model, context)?;
    let mut job = reading.job(prompt, &context.settings, MAX_NEW_TOKENS);
    job.steering = load_plan(&args.steer, &model, context)?;
    check_job(reading, &job.prompt, &model)?;
    if !model.card().causal {
        job.max_new_tokens = 0;
    }
    let pairing = args.pairing();
    let mut recorder = Recorder::of_comparison(Arc::clone(model.card()), &job, pairing);
    let _heed = context.interrupt.heed();
    let finish = {
        let mut progress = Progress::new(&context.notes, Counted::Items);
        let (mut done, total) = (0, 2 * job.max_new_tokens as u64);
        session::compare(&model, &job, pairing, &mut |side, event| {
            recorder.apply_side(side, &event);
            if let Event::Cells { .. } = event {
                done += 1;
                progress.update("reading both", done, Some(total.max(done)));
            }
            match context.interrupt.raised() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?
    };
    if context.interrupt.raised() {
        return Err(interrupted(args, context));
    }
    let record = recorder.into_record();
    let mut output = Output::new();
    if args.json {
        output.json(&comparison(&record, finish, &model))?;
    } else {
        output.write(&describe(&record, finish, &output))?;
    }
    output.flush()?;
    if let Some(dir) = &args.out {
        let written = export::write_record(dir, &record, model.tokenizer(), args.force)?;
        say_written(&written, dir, context);
    }
    Ok(())
}

/// The positions that are summarised: those of the longer text, and what they are called.
fn summarised(record: &Record) -> (Vec<usize>, String) {
    let grids = record.branches.iter().map(|(_, grid)| grid);
    trace::summarised(grids, &record.model)
}

/// The text after the prompt.
fn drawn(grid: &Grid) -> String {
    let tokens = grid.tokens().iter().skip(grid.prompt_len());
    let bytes: Vec<u8> = tokens.flat_map(|t| t.bytes.iter().copied()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A comparison for people: both texts, where they part, and layers downward.
fn describe(record: &Record, finish: [Finish; 2], output: &Output) -> String {
    let mut out = String::new();
    let Some(difference) = record.difference() else {
        return out;
    };
    // Writing into a String cannot fail.
    for ((name, grid), finish) in record.branches.iter().zip(finish) {
        let text = drawn(grid);
        let text = match output.is_terminal() {
            true => text::scrub_lines(&text),
            false => text,
        };
        let _ = writeln!(out, "{name} ({}):{text}\n", finish.label());
    }
    let prompt = record.branches.first().map_or(0, |(_, g)| g.prompt_len());
    let _ = match difference.diverged() {
        Some(at) => writeln!(
            out,
            "the texts part at position {at}, drawn token {}",
            at + 1 - prompt.min(at)
        ),
        None => writeln!(out, "the texts agree"),
    };
    let (at, which) = summarised(record);
    let _ = writeln!(
        out,
        "baseline → steered, mean over {} {which} positions; difference ± standard deviation;\n\
         KL(baseline‖steered) where the texts agree; layer 0 is the embedding\n",
        at.len()
    );
    let metrics: Vec<(&str, Metric)> = COMPARED
        .iter()
        .filter_map(|name| Some((*name, record.schema.find(name)?)))
        .collect();
    let header = metrics.iter().flat_map(|(name, _)| [*name, "difference"]);
    let mut rows = vec![
        std::iter::once("layer")
            .chain(header)
            .chain(["kl_ab"])
            .map(str::to_owned)
            .collect::<Vec<_>>(),
    ];
    for layer in 0..difference.states() {
        let mut row = vec![layer.to_string()];
        for (_, metric) in &metrics {
            let [a, b, apart] = difference.spread(layer, *metric, at.iter().copied());
            row.push(match (a, b) {
                (Some(a), Some(b)) => format!("{:.3} → {:.3}", a.mean, b.mean),
                _ => "–".into(),
            });
            row.push(apart.map_or("–".into(), |d| format!("{:+.3} ± {:.3}", d.mean, d.std)));
        }
        let kl = difference.divergence_spread(layer, at.iter().copied());
        row.push(kl.map_or("–".into(), |kl| format!("{:.4}", kl.mean)));
        rows.push(row);
    }
    out.push_str(&table::aligned(&rows, &[]));
    out
}

/// What `compare --steer --json` prints.
#[derive(Debug, Serialize)]
struct Comparison<'a> {
    model: &'a str,
    mode: &'static str,
    steering: &'a Option<serde_json::Value>,
    prompt_tokens: usize,
    branches: Vec<BranchReport<'a>>,
    /// The first position whose tokens differ.
    diverged: Option<usize>,
    /// The positions behind the layers' numbers.
    positions: Vec<usize>,
    layers: Vec<LayerReport<'a>>,
}

#[derive(Debug, Serialize)]
struct BranchReport<'a> {
    name: &'a str,
    text: String,
    token_ids: Vec<u32>,
    finish: &'static str,
}

#[derive(Debug, Serialize)]
struct LayerReport<'a> {
    layer: usize,
    metric: &'a str,
    baseline: Option<Spread>,
    steered: Option<Spread>,
    difference: Option<Spread>,
}

fn comparison<'a>(record: &'a Record, finish: [Finish; 2], model: &'a Model) -> Comparison<'a> {
    let difference = record.difference();
    let (at, _) = summarised(record);
    Comparison {
        model: &model.card().name,
        mode: record.comparison.unwrap_or_default().label(),
        steering: &record.steering,
        prompt_tokens: record.branches.first().map_or(0, |(_, g)| g.prompt_len()),
        branches: record
            .branches
            .iter()
            .zip(finish)
            .map(|((name, grid), finish)| BranchReport {
                name,
                text: text::scrub_lines(&drawn(grid)),
                token_ids: grid.tokens().iter().map(|t| t.id).collect(),
                finish: finish.label(),
            })
            .collect(),
        diverged: difference.and_then(|d| d.diverged()),
        layers: difference.map_or(Vec::new(), |d| layers(record, &d, &at)),
        positions: at,
    }
}

fn layers<'a>(
    record: &'a Record,
    difference: &Difference<'_>,
    at: &[usize],
) -> Vec<LayerReport<'a>> {
    let of_metric = |(i, name): (usize, &'a str)| {
        (0..difference.states()).map(move |layer| {
            let [baseline, steered, apart] =
                difference.spread(layer, Metric(i), at.iter().copied());
            LayerReport {
                layer,
                metric: name,
                baseline,
                steered,
                difference: apart,
            }
        })
    };
    let names = record.schema.metrics().iter().map(|m| m.name.as_str());
    let kl = (0..difference.states()).map(|layer| LayerReport {
        layer,
        metric: "kl_ab",
        baseline: None,
        steered: None,
        difference: difference.divergence_spread(layer, at.iter().copied()),
    });
    names.enumerate().flat_map(of_metric).chain(kl).collect()
}

fn sets(args: &Args, known: &Path, unknown: &Path, context: &Context) -> Result<()> {
    let reading = &args.reading;
    let known = read_prompts(known, reading.chat)?;
    let unknown = read_prompts(unknown, reading.chat)?;
    let model = load_model(&context.settings.model, context)?;
    let Some(any) = known.first() else {
        return Err(Error::Usage("there are no known prompts: give some".into()));
    };
    check_job(reading, any, &model)?;
    let mut each: Job = reading.job(any.clone(), &context.settings, 1);
    // One cell a prompt, unless more are asked for here: later ones speak about the model's own words.
    each.max_new_tokens = reading.max_new_tokens.unwrap_or(1);
    each.steering = load_plan(&args.steer, &model, context)?;
    let job = SetJob {
        known,
        unknown,
        each,
    };
    let _heed = context.interrupt.heed();
    let mut sets = Sets::start(&model, job)?;
    {
        let mut progress = Progress::new(&context.notes, Counted::Items);
        let total = sets.total() as u64;
        let mut done = 0;
        while sets.advance(&model, &mut |_, _| done += 1)? {
            if context.interrupt.raised() {
                return Err(interrupted(args, context));
            }
            progress.update(&so_far(sets.samples()), done, Some(total));
        }
    }
    let (samples, record) = sets.finish();
    let mut output = Output::new();
    if args.json {
        output.json(&separated(&samples, &model))?;
    } else {
        output.write(&describe_sets(&samples))?;
    }
    output.flush()?;
    if let Some(dir) = &args.out {
        let written = export::write_samples(dir, &record, &samples, args.force)?;
        say_written(&written, dir, context);
    }
    Ok(())
}

/// What is being done, with the separation so far.
fn so_far(samples: &Samples) -> String {
    let entropy = samples.schema().find("entropy");
    let last = samples.states().saturating_sub(1);
    match entropy.and_then(|metric| samples.auroc(last, metric)) {
        Some(auroc) => format!("reading prompts, AUROC of the last layer's entropy {auroc:.3}"),
        None => "reading prompts".into(),
    }
}

/// Two sets for people: layers downward, then what it shows.
fn describe_sets(samples: &Samples) -> String {
    let mut out = String::new();
    for name in SHOWN {
        let Some(metric) = samples.schema().find(name) else {
            continue;
        };
        let header = [
            "layer",
            "known",
            "unknown",
            "difference",
            "AUROC",
            "95 % interval",
            "n",
        ];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        for layer in 0..samples.states() {
            let [known, unknown] = Set::BOTH.map(|set| {
                let profile = samples.profile(set, layer, metric);
                profile.map_or("–".into(), |p| format!("{:.3} ± {:.3}", p.mean, p.std))
            });
            let difference = samples.difference(layer, metric);
            let mut row = vec![layer.to_string(), known, unknown];
            row.push(difference.map_or("–".into(), |d| format!("{d:+.3}")));
            row.extend(separation_cells(samples.separation(layer, metric)));
            rows.push(row);
        }
        // Writing into a String cannot fail.
        let _ = writeln!(out, "{name}\n{}", table::aligned(&rows, &[]));
    }
    let [auroc, interval, n] = separation_cells(samples.separation_by_length());
    let _ = writeln!(
        out,
        "number of prompt tokens alone: AUROC {auroc} ({interval}), n {n}\n\n{}",
        samples.statement()
    );
    out
}

fn separation_cells(separation: Option<Separation>) -> [String; 3] {
    let Some(separation) = separation else {
        return ["–".into(), "–".into(), "0".into()];
    };
    let interval = separation.interval;
    [
        format!("{:.3}", separation.auroc),
        interval.map_or("–".into(), |(low, high)| format!("{low:.3} – {high:.3}")),
        format!("{} + {}", separation.n_known, separation.n_unknown),
    ]
}

/// What `compare --known --unknown --json` prints.
#[derive(Debug, Serialize)]
struct Separated<'a> {
    model: &'a str,
    n_known: usize,
    n_unknown: usize,
    layers: Vec<SeparatedLayer<'a>>,
    /// The number of prompt tokens alone.
    prompt_tokens: Option<Separation>,
    statement: String,
}

#[derive(Debug, Serialize)]
struct SeparatedLayer<'a> {
    layer: usize,
    metric: &'a str,
    known: Option<Spread>,
    unknown: Option<Spread>,
    difference: Option<f64>,
    separation: Option<Separation>,
}

fn separated<'a>(samples: &'a Samples, model: &'a Model) -> Separated<'a> {
    let of_metric = |(i, name): (usize, &'a str)| {
        (0..samples.states()).map(move |layer| SeparatedLayer {
            layer,
            metric: name,
            known: samples.profile(Set::Known, layer, Metric(i)),
            unknown: samples.profile(Set::Unknown, layer, Metric(i)),
            difference: samples.difference(layer, Metric(i)),
            separation: samples.separation(layer, Metric(i)),
        })
    };
    let names = samples.schema().metrics().iter().map(|m| m.name.as_str());
    Separated {
        model: &model.card().name,
        n_known: samples.of(Set::Known).len(),
        n_unknown: samples.of(Set::Unknown).len(),
        layers: names.enumerate().flat_map(of_metric).collect(),
        prompt_tokens: samples.separation_by_length(),
        statement: samples.statement(),
    }
}
