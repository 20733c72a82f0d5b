//! Many prompts under one steering: what it changes on the average, printed, and written in llm_entropy's layout.

use super::super::args::prompt_of;
use super::super::output::Output;
use super::super::progress::{Counted, Progress};
use super::super::run::{check_job, load_model, load_plan};
use super::super::{Context, table};
use super::{Args, COMPARED, interrupted};
use crate::error::{Error, Result};
use crate::export::{self, llm_entropy, llm_entropy::ModelRun};
use crate::model::Model;
use crate::session::sentences::{self, Kind};
use crate::session::{self, Prompt, Recorder};
use crate::text;
use crate::trace::{Measure, Paired, PairedSample, Pairing, Record, Spread};
use clap::ValueEnum;
use serde::Serialize;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Sentences where a configuration does not say how many, as in llm_entropy.
const SENTENCES: usize = 10;

/// How files are named and laid out.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// This program's: cells.csv, tokens.csv, compare.csv of one prompt.
    Standard,
    /// run_{timestamp}_{id}/{standard,control,comparative}/{data,plots,predictions}, of one prompt or many.
    LlmEntropy,
}

impl Args {
    /// Whether it is about many prompts, or laid out as if.
    pub(super) fn is_several(&self) -> bool {
        let asked = self.layout == Some(Layout::LlmEntropy);
        self.known.is_none() && (asked || self.sentences.is_some() || self.analysis.is_some())
    }

    pub(super) fn pairing(&self) -> Pairing {
        match self.locked {
            true => Pairing::Locked,
            false => Pairing::Free,
        }
    }

    /// Where files are written: a flag, or the configuration.
    pub(super) fn folder(&self) -> Option<&Path> {
        let configured = self.analysis.as_ref().and_then(|a| a.out.as_deref());
        self.out.as_deref().or(configured)
    }
}

/// What every comparison needs, said where the parser cannot: a configuration may bring it.
pub(super) fn require(args: &Args) -> Result<()> {
    let sets = args.known.is_some();
    let prompted = args.prompt.is_given() || args.sentences.is_some() || sets;
    let problem = match &args.analysis {
        Some(_) if sets => {
            "a configuration of llm_entropy says nothing of two sets: leave out --config, or --known and --unknown"
        }
        None if !prompted => {
            "a prompt is required: give TEXT, --prompt-file F, --prompt-ids or --sentences N, or two sets with --known and \
             --unknown"
        }
        None if args.steer.is_empty()
            && !sets
            && args.against.is_none()
            && args.beside.is_none() =>
        {
            "a comparison needs --steer: say how one of the two runs is pushed"
        }
        _ => return Ok(()),
    };
    Err(Error::Usage(problem.into()))
}

/// Read all prompts with every model, print and write what came out.
pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let models: Vec<(Option<&str>, &str)> = match &args.analysis {
        Some(analysis) if !analysis.models.is_empty() => {
            let each = analysis.models.iter();
            each.map(|(label, model)| (Some(label.as_str()), model.as_str()))
                .collect()
        }
        _ => vec![(None, context.settings.model.as_str())],
    };
    let mut runs: Vec<ModelRun> = Vec::new();
    let mut source = String::new();
    for (label, reference) in models {
        let (run, from) = read(args, label, reference, context)?;
        // Names that differ in signs only must not share files.
        let taken = |label: &str| runs.iter().any(|run| run.label == label);
        let mut label = run.label.clone();
        for i in 2.. {
            if !taken(&label) {
                break;
            }
            label = format!("{}_{i}", run.label);
        }
        runs.push(ModelRun { label, ..run });
        source = from;
    }
    let mut output = Output::new();
    if args.json {
        let reports: Vec<Report<'_>> = runs.iter().map(report).collect();
        output.json(&reports)?;
    } else {
        for run in &runs {
            output.write(&describe(run))?;
        }
    }
    output.flush()?;
    if let Some(dir) = args.folder() {
        let (folder, files) = llm_entropy::write(dir, &runs, &source)?;
        context.notes.say(&format!(
            "wrote {} files to {}",
            files.len(),
            text::path(&folder)
        ));
    }
    Ok(())
}

/// The prompts for a model, and in words where they come from.
fn prompts(args: &Args, model: &Model, context: &Context) -> Result<(Vec<Prompt>, String)> {
    let chat = args.reading.chat;
    if args.prompt.is_given() {
        return Ok((vec![args.prompt.read(chat)?], "given".into()));
    }
    let analysis = args.analysis.as_ref();
    let given = analysis.filter(|a| args.sentences.is_none() && !a.prompts.is_empty());
    if let Some(analysis) = given {
        let each = analysis.prompts.iter().cloned();
        let all = each.map(|text| prompt_of(text, chat));
        return Ok((all.collect::<Result<_>>()?, "given".into()));
    }
    let asked = args.sentences.or(analysis.and_then(|a| a.sentences));
    let count = asked.unwrap_or(SENTENCES);
    let given = args.reading.sampling.seed;
    let seed = given.unwrap_or(context.settings.sampling.seed);
    let kind = match &model.card().mask {
        Some(mask) if !model.card().causal => Kind::Masked(&mask.text),
        _ => Kind::Open,
    };
    let made = sentences::sentences(count, seed, kind)?.into_iter();
    let all = made.map(|text| prompt_of(text, chat));
    let source = format!("{count} made from this program's own templates with seed {seed}");
    Ok((all.collect::<Result<_>>()?, source))
}

/// Read all prompts with one model.
fn read(
    args: &Args,
    label: Option<&str>,
    reference: &str,
    context: &Context,
) -> Result<(ModelRun, String)> {
    let model = load_model(reference, context)?;
    let card = Arc::clone(model.card());
    let (prompts, source) = prompts(args, &model, context)?;
    let steer = match (&args.steer[..], &args.analysis) {
        ([], Some(analysis)) => analysis.steer(&card).into_iter().collect(),
        (given, _) => given.to_vec(),
    };
    let plan = load_plan(&steer, &model, context)?;
    let reading = &args.reading;
    let pairing = args.pairing();
    // From here on an interruption is looked for; before, it ends the program.
    let _heed = context.interrupt.heed();
    let mut first: Option<(Record, Paired)> = None;
    let total = prompts.len();
    let mut progress = Progress::new(&context.notes, Counted::Items);
    for (i, prompt) in prompts.into_iter().enumerate() {
        check_job(reading, &prompt, &model)?;
        // One token, so that the answering cell knows what came.
        let mut job = reading.job(prompt, &context.settings, 1);
        job.max_new_tokens = match card.causal {
            true => reading.max_new_tokens.unwrap_or(1),
            false => 0,
        };
        job.attention = true;
        job.steering = plan.clone();
        let mut recorder = Recorder::of_comparison(Arc::clone(&card), &job, pairing);
        session::compare(&model, &job, pairing, &mut |side, event| {
            recorder.apply_side(side, &event);
            match context.interrupt.raised() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })
        .map_err(|e| match e {
            Error::Usage(problem) if total > 1 => {
                Error::Usage(format!("prompt {}: {problem}", i + 1))
            }
            other => other,
        })?;
        if context.interrupt.raised() {
            return Err(interrupted(args, context));
        }
        let record = recorder.into_record();
        let shown = prompt_text(&job.prompt, &record);
        let sample = PairedSample::of(&record, shown).ok_or_else(|| no_answer(i, &model))?;
        let (_, paired) = first.get_or_insert_with(|| {
            let paired = Paired::new(Arc::clone(&record.schema), card.blocks + 1);
            (record, paired)
        });
        paired.push(sample);
        let done = paired.samples().len() as u64;
        progress.update("reading prompts", done, Some(total as u64));
    }
    let Some((first, paired)) = first else {
        return Err(Error::Usage("there are no prompts: give some".into()));
    };
    let run = ModelRun {
        label: llm_entropy::file_label(label.unwrap_or(&card.name)),
        first,
        paired,
        tokenizer: Arc::clone(model.tokenizer()),
        ended: std::time::SystemTime::now(),
    };
    Ok((run, source))
}

fn no_answer(i: usize, model: &Model) -> Error {
    let card = model.card();
    Error::Usage(match card.causal {
        true => format!("prompt {} could not be read to its end", i + 1),
        false => format!(
            "prompt {} has no {}: {} is read where a word is missing, so write one there",
            i + 1,
            card.mask_text(),
            card.name
        ),
    })
}

/// What the rows of a prompt are called.
fn prompt_text(prompt: &Prompt, record: &Record) -> String {
    match (prompt, record.branches.first()) {
        (Prompt::Text(text) | Prompt::Chat(text), _) => text.clone(),
        (Prompt::Ids(_), Some((_, grid))) => {
            let tokens = grid.tokens().iter().take(grid.prompt_len());
            let bytes: Vec<u8> = tokens.flat_map(|t| t.bytes.iter().copied()).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        (Prompt::Ids(_), None) => String::new(),
    }
}

/// Layers downward, for people.
fn describe(run: &ModelRun) -> String {
    let paired = &run.paired;
    let n = paired.samples().len();
    let place = match run.first.model.causal {
        true => "last token",
        false => "gap",
    };
    let what = match n {
        1 => format!("at the {place} of the prompt"),
        _ => format!("mean over the {place}s of {n} prompts; difference ± standard deviation"),
    };
    let mut out = format!(
        "{}: baseline → steered, {what};\nlayer 0 is the embedding\n\n",
        run.first.model.name
    );
    let measures: Vec<(&str, Measure)> = COMPARED
        .iter()
        .chain(&["attn_entropy_mean"])
        .filter_map(|name| Some((*name, paired.measure(name)?)))
        .filter(|(_, measure)| paired.has(*measure))
        .collect();
    let header = measures.iter().flat_map(|(name, _)| [*name, "difference"]);
    let header = std::iter::once("layer").chain(header);
    let mut rows = vec![header.map(str::to_owned).collect::<Vec<_>>()];
    for layer in 0..paired.states() {
        let mut row = vec![layer.to_string()];
        for (_, measure) in &measures {
            let [a, b, apart] = paired.spread(layer, *measure);
            row.push(match (a, b) {
                (Some(a), Some(b)) => format!("{:.3} → {:.3}", a.mean, b.mean),
                _ => "–".into(),
            });
            row.push(match apart {
                Some(d) if n > 1 => format!("{:+.3} ± {:.3}", d.mean, d.std),
                Some(d) => format!("{:+.3}", d.mean),
                None => "–".into(),
            });
        }
        rows.push(row);
    }
    // Writing into a String cannot fail.
    let _ = writeln!(out, "{}", table::aligned(&rows, &[]));
    out
}

/// What `--json` prints of each model.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: &'a str,
    mode: &'static str,
    steering: &'a Option<serde_json::Value>,
    n: usize,
    prompts: Vec<&'a str>,
    layers: Vec<LayerReport>,
}

#[derive(Debug, Serialize)]
struct LayerReport {
    layer: usize,
    metric: &'static str,
    baseline: Option<Spread>,
    steered: Option<Spread>,
    difference: Option<Spread>,
}

fn report(run: &ModelRun) -> Report<'_> {
    let paired = &run.paired;
    let measures = llm_entropy::COLUMNS
        .into_iter()
        .filter_map(|column| Some((column.metric, paired.measure(column.metric)?)));
    let layers = measures.flat_map(|(metric, measure)| {
        (0..paired.states()).map(move |layer| {
            let [baseline, steered, difference] = paired.spread(layer, measure);
            LayerReport {
                layer,
                metric,
                baseline,
                steered,
                difference,
            }
        })
    });
    Report {
        model: &run.first.model.name,
        mode: run.first.comparison.map_or("free", Pairing::label),
        steering: &run.first.steering,
        n: paired.samples().len(),
        prompts: paired.samples().iter().map(|s| s.text.as_str()).collect(),
        layers: layers.collect(),
    }
}

/// What can be refused before a model is loaded.
pub(super) fn check(args: &Args) -> Result<()> {
    if args.layout == Some(Layout::Standard) {
        return Err(Error::Usage(
            "the standard layout holds one prompt: leave out --layout, or give one prompt and --steer without a \
             configuration"
                .into(),
        ));
    }
    if args.against.is_some() || args.beside.is_some() || args.sweep.sweep.is_some() {
        return Err(Error::Usage(
            "--against, --beside and --sweep read no more than their prompts: leave out --sentences, --config and --layout llm-entropy"
                .into(),
        ));
    }
    let steers = args.analysis.as_ref().is_some_and(|a| a.control.is_some());
    if args.steer.is_empty() && !steers {
        let file = args
            .analysis
            .as_ref()
            .map_or(Path::new("--config"), |a| &a.file);
        return Err(Error::file(
            file,
            "steers by nothing: analysis.control is not enabled",
            "Set analysis.control.enabled to true and give control_vectors.positive, or add --steer.",
        ));
    }
    match args.folder() {
        Some(dir) => export::check_parent(dir),
        None if args.layout.is_some() => Err(Error::Usage(
            "--layout llm-entropy writes a folder: say where with --out DIR".into(),
        )),
        None => Ok(()),
    }
}
