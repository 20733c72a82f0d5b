//! The folder that llm_entropy writes, with this program's numbers:
//! `run_{timestamp}_{id}/{standard,control,comparative}/{data,plots,predictions}` and a `manifest.json`.
//!
//! `standard` is the baseline, `control` the steered model, `comparative` both, their difference and percent change. A row of
//! a data file is one sentence, its `values` a JSON list over the layers 0 … L, with `null` where a number cannot be given.
//! What the numbers are, and where they differ from that system's, the manifest says in [`NOTES`].

mod figures;
mod tables;

use super::{Manifest, atomic, manifest, rfc3339};
use crate::error::Result;
use crate::model::Tokenizer;
use crate::trace::{Measure, Paired, Record};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// One of the six metrics of the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// How its files are called, after the model.
    pub file: &'static str,
    /// The metric of ours that it is, by column name.
    pub metric: &'static str,
    /// What plots call it.
    pub title: &'static str,
}

/// The six, in that system's order.
pub const COLUMNS: [Column; 6] = [
    column("layer_entropies", "entropy", "Entropy"),
    column("layer_perplexities", "perplexity", "Perplexity"),
    column("layer_margins", "logit_margin", "Logit margin"),
    column("layer_kl_divs", "kl_uniform", "KL from uniform"),
    column(
        "layer_attn_entropies",
        "attn_entropy_mean",
        "Attention entropy",
    ),
    column("layer_surprisals", "surprisal", "Surprisal"),
];

const fn column(file: &'static str, metric: &'static str, title: &'static str) -> Column {
    Column {
        file,
        metric,
        title,
    }
}

/// What the manifest says about the numbers, a sentence or two each.
pub const NOTES: [&str; 10] = [
    "File names and columns are llm_entropy's; the numbers are not. They are this program's own definitions (preset \
     `standard`), the same as in its other files.",
    "Every layer is read through the model's final norm and head (for a masked model with the head's transform). llm_entropy \
     leaves the norm out below the last layer, and the transform everywhere.",
    "The control vector is added inside the forward pass, so that every later layer sees it. llm_entropy shifts copies of the \
     states afterwards, layer by layer, and nothing propagates.",
    "A sentence is read at one position: at its last token, whose cell says what comes next, or at the first gap of a masked \
     model.",
    "Lists run over the layers 0 (embedding) to L (the model's own answer).",
    "layer_margins is the margin of the two largest logits, layer_kl_divs is KL from the uniform distribution; everything is \
     in nats but logits and perplexity, which is exp(entropy) of the distribution.",
    "layer_surprisals is the surprisal of the next token, the one that each model drew: null where none was drawn, and for \
     masked models. llm_entropy takes the token at the same position, which the model has already read.",
    "layer_attn_entropies is the mean over the heads of block l at layer l; the embedding attends to nothing and has null. \
     llm_entropy puts block l beside the state before it and has nothing at the end.",
    "null stands where a number cannot be given. percent_change is 100 · difference / standard, and 0 where standard is 0: in \
     this layout only, as in llm_entropy.",
    "Predictions are the best candidates of the last layer; where tokens are sampled (temperature above 0), the one that was \
     drawn, with its probability there.",
];

/// What one model said about all sentences.
#[derive(Clone, Debug)]
pub struct ModelRun {
    /// How its files begin.
    pub label: String,
    /// The comparison of the first sentence: it says how all were read, and is drawn as a map.
    pub first: Record,
    /// All sentences.
    pub paired: Paired,
    /// For the texts of candidates.
    pub tokenizer: Arc<Tokenizer>,
    /// When the last sentence had been read.
    pub ended: SystemTime,
}

impl ModelRun {
    /// The columns with what they measure.
    fn columns(&self) -> impl Iterator<Item = (Column, Option<Measure>)> + '_ {
        COLUMNS
            .into_iter()
            .map(|column| (column, self.paired.measure(column.metric)))
    }

    /// The unit of a column: `nats`, `logits`, or nothing.
    fn unit(&self, measure: Option<Measure>) -> &'static str {
        match measure {
            Some(Measure::Cell(metric)) => self.paired.schema().spec(metric).unit.label(),
            Some(Measure::AttentionEntropy) => "nats",
            None => "",
        }
    }
}

/// Which of the two models a folder is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Standard,
    Control,
}

impl Part {
    const BOTH: [Self; 2] = [Self::Standard, Self::Control];

    fn label(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Control => "control",
        }
    }
}

/// Write all of it into a new folder `run_{timestamp}_{id}` of `dir`; `sentences` says where the sentences come from. The
/// folder appears as a whole or not at all. Returns its path and those of the files, the manifest last.
///
/// # Errors
/// If the folder cannot be made or written.
pub fn write(dir: &Path, runs: &[ModelRun], sentences: &str) -> Result<(PathBuf, Vec<PathBuf>)> {
    let started = runs
        .first()
        .map_or_else(SystemTime::now, |run| run.first.started);
    let run_dir = dir.join(format!(
        "run_{}_{:08x}",
        stamp(started),
        rand::random::<u32>()
    ));
    let folder = atomic::Folder::stage(&run_dir, &[], false)?;
    let mut of_runs: Vec<Vec<String>> = Vec::new();
    for run in runs {
        let mut files = Vec::new();
        for table in tables::all(run) {
            folder.write(&table.name, |out| table.write(out, run))?;
            files.push(table.name);
        }
        for (name, bytes) in figures::all(run)? {
            folder.write(&name, |out| out.write_all(&bytes))?;
            files.push(name);
        }
        of_runs.push(files);
    }
    let said = describe(runs, &of_runs, sentences, started);
    folder.write("manifest.json", |out| {
        serde_json::to_writer_pretty(&mut *out, &said)?;
        out.write_all(b"\n")
    })?;
    let names = of_runs.iter().flatten().map(String::as_str);
    let names: Vec<&str> = names.chain(["manifest.json"]).collect();
    let written = folder.commit(&names)?;
    Ok((run_dir, written))
}

/// The manifest.
fn describe(
    runs: &[ModelRun],
    files: &[Vec<String>],
    sentences: &str,
    started: SystemTime,
) -> Value {
    let of_run = |(run, files): (&ModelRun, &Vec<String>)| {
        let names: Vec<&str> = files.iter().map(String::as_str).collect();
        let metrics = COLUMNS.map(|column| column.metric);
        let said: Manifest = manifest(&run.first, &names).of_paired(&run.paired, &metrics);
        json!({"label": run.label, "run": said})
    };
    let columns = runs.first().map(|run| {
        let each = run.columns().map(|(column, measure)| {
            json!({"file": column.file, "metric": column.metric, "unit": run.unit(measure)})
        });
        each.collect::<Vec<_>>()
    });
    let models: Vec<Value> = runs.iter().zip(files).map(of_run).collect();
    json!({
        "program": env!("CARGO_PKG_NAME"),
        "version": env!("CARGO_PKG_VERSION"),
        "layout": "llm-entropy",
        "preset": "standard",
        "notes": NOTES,
        "n": runs.first().map_or(0, |run| run.paired.samples().len()),
        "sentences": sentences,
        "aggregation": "summary tables and plots: mean over sentences, population standard deviation (ddof = 0), n",
        "columns": columns,
        "models": models,
        "started": rfc3339(started),
        "ended": runs.last().map(|run| rfc3339(run.ended)),
    })
}

/// `20260131_235959`, in UTC.
fn stamp(moment: SystemTime) -> String {
    let at = time::OffsetDateTime::from(moment);
    format!(
        "{:04}{:02}{:02}_{:02}{:02}{:02}",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

/// A model's name as the beginning of file names: letters, digits, `.`, `-` and `_`, and nothing hidden.
#[must_use]
pub fn file_label(name: &str) -> String {
    let safe = |c: char| match c.is_alphanumeric() || matches!(c, '.' | '-' | '_') {
        true => c,
        false => '_',
    };
    let label: String = name.chars().take(64).map(safe).collect();
    match label.trim_start_matches(['.', '-']) {
        "" => "model".into(),
        label => label.to_owned(),
    }
}

#[cfg(test)]
mod tests;
