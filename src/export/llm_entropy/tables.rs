//! The tables of the layout.

use super::{Column, ModelRun, Part};
use crate::export::csv::{Table, cell};
use crate::export::number;
use crate::trace::{Compared, Measure, PairedSample, Spread};
use std::io::{self, Write};

/// One file.
pub(super) struct File {
    /// Its place in the run folder.
    pub(super) name: String,
    holds: Holds,
}

/// What a file holds.
enum Holds {
    /// A metric of one model.
    Values(Part, Option<Measure>),
    /// Of both, their difference and percent change.
    Comparative(Option<Measure>),
    /// What the last layer would say.
    Predictions(&'static [Part]),
    /// Means over the sentences.
    Summary,
}

/// The tables of a model, in the order of their folders.
pub(super) fn all(run: &ModelRun) -> Vec<File> {
    let label = &run.label;
    let mut files = Vec::new();
    let mut add = |name: String, holds| files.push(File { name, holds });
    for part in Part::BOTH {
        let folder = part.label();
        for (Column { file, .. }, measure) in run.columns() {
            let name = format!("{folder}/data/{label}_{file}.csv");
            add(name, Holds::Values(part, measure));
        }
        let name = format!("{folder}/predictions/{label}_predictions.csv");
        let only: &[Part] = match part {
            Part::Standard => &[Part::Standard],
            Part::Control => &[Part::Control],
        };
        add(name, Holds::Predictions(only));
    }
    for (Column { file, .. }, measure) in run.columns() {
        let name = format!("comparative/data/{label}_{file}_comparative.csv");
        add(name, Holds::Comparative(measure));
    }
    let name = format!("comparative/data/{label}_summary.csv");
    add(name, Holds::Summary);
    let name = format!("comparative/predictions/{label}_comparative_predictions.csv");
    add(name, Holds::Predictions(&Part::BOTH));
    files
}

impl File {
    /// Fill it.
    pub(super) fn write(&self, out: &mut dyn Write, run: &ModelRun) -> io::Result<()> {
        match self.holds {
            Holds::Values(part, measure) => values(out, run, part, measure),
            Holds::Comparative(measure) => comparative(out, run, measure),
            Holds::Predictions(parts) => predictions(out, run, parts),
            Holds::Summary => summary(out, run),
        }
    }
}

/// 100 · (b − a)/a; where a is 0, as only this layout has it, 0.
pub(super) fn percent_change(cell: Compared) -> Option<f32> {
    match (cell.a, cell.b) {
        (Some(0.0), Some(_)) => Some(0.0),
        _ => cell.percent_change,
    }
}

/// A JSON list, `null` where there is no number.
pub(super) fn list(values: impl Iterator<Item = Option<f32>>) -> String {
    let mut out = String::from("[");
    for (i, value) in values.enumerate() {
        if i > 0 {
            out.push(',');
        }
        match value.filter(|v| v.is_finite()) {
            Some(value) => number(value, &mut out),
            None => out.push_str("null"),
        }
    }
    out.push(']');
    out
}

fn profile(run: &ModelRun, sample: &PairedSample, measure: Option<Measure>) -> Vec<Compared> {
    match measure {
        Some(measure) => run.paired.profile(sample, measure),
        None => vec![Compared::default(); run.paired.states()],
    }
}

/// `sentence,values`.
fn values(
    out: &mut dyn Write,
    run: &ModelRun,
    part: Part,
    measure: Option<Measure>,
) -> io::Result<()> {
    let mut table = Table::new(out, &["sentence", "values"])?;
    for sample in run.paired.samples() {
        let profile = profile(run, sample, measure);
        let of_part = |cell: &Compared| match part {
            Part::Standard => cell.a,
            Part::Control => cell.b,
        };
        table.text(&cell(sample.text.as_bytes()))?;
        table.text(&list(profile.iter().map(of_part)))?;
        table.end_row()?;
    }
    table.finish()
}

/// `sentence,values`, four rows for each sentence.
fn comparative(out: &mut dyn Write, run: &ModelRun, measure: Option<Measure>) -> io::Result<()> {
    type Of = fn(Compared) -> Option<f32>;
    let rows: [(&str, Of); 4] = [
        ("standard", |c| c.a),
        ("control", |c| c.b),
        ("difference", |c| c.difference),
        ("percent_change", percent_change),
    ];
    let mut table = Table::new(out, &["sentence", "values"])?;
    for sample in run.paired.samples() {
        let profile = profile(run, sample, measure);
        for (name, of) in rows {
            let sentence = format!("{} ({name})", sample.text);
            table.text(&cell(sentence.as_bytes()))?;
            table.text(&list(profile.iter().map(|cell| of(*cell))))?;
            table.end_row()?;
        }
    }
    table.finish()
}

/// `Sentence,Token,Probability,Analysis`.
fn predictions(out: &mut dyn Write, run: &ModelRun, parts: &[Part]) -> io::Result<()> {
    let header = ["Sentence", "Token", "Probability", "Analysis"];
    let mut table = Table::new(out, &header)?;
    for sample in run.paired.samples() {
        for part in parts {
            for (id, probability) in predicted(run, sample, *part) {
                table.text(&cell(sample.text.as_bytes()))?;
                table.text(&cell(&run.tokenizer.bytes(id)))?;
                table.number(Some(probability))?;
                table.text(part.label())?;
                table.end_row()?;
            }
        }
    }
    table.finish()
}

/// The best candidates of the last layer, or what was sampled from it.
fn predicted(run: &ModelRun, sample: &PairedSample, part: Part) -> Vec<(u32, f32)> {
    let (paired, side) = (&run.paired, part as usize);
    let last = paired.states().saturating_sub(1);
    let cells = &sample.cells[side];
    if let (Some(id), true) = (sample.drawn[side], run.first.sampling.temperature > 0.0) {
        let surprisal = paired.measure("surprisal");
        let surprisal = surprisal.map(|measure| paired.cell(sample, last, measure));
        let of_part = surprisal.and_then(|cell| match part {
            Part::Standard => cell.a,
            Part::Control => cell.b,
        });
        return of_part.map(|s| (id, (-s).exp())).into_iter().collect();
    }
    let top = paired.schema().top();
    let best = cells.top.get(last * top..).unwrap_or_default();
    let filled = best.iter().filter(|candidate| candidate.prob.is_finite());
    filled.map(|c| (c.id, c.prob)).collect()
}

/// Means over the sentences: one row a metric and layer.
fn summary(out: &mut dyn Write, run: &ModelRun) -> io::Result<()> {
    let header = [
        "metric",
        "layer",
        "standard_mean",
        "standard_std",
        "standard_n",
        "control_mean",
        "control_std",
        "control_n",
        "difference_mean",
        "difference_std",
        "difference_n",
    ];
    let mut table = Table::new(out, &header)?;
    for (column, measure) in run.columns() {
        for layer in 0..run.paired.states() {
            let spreads = measure.map(|measure| run.paired.spread(layer, measure));
            table.text(column.file)?;
            table.shown(layer)?;
            for spread in spreads.unwrap_or_default() {
                let of = |value: fn(Spread) -> f64| spread.map(|s| value(s) as f32);
                table.number(of(|s| s.mean))?;
                table.number(of(|s| s.std))?;
                table.shown(spread.map_or(0, |s| s.n))?;
            }
            table.end_row()?;
        }
    }
    table.finish()
}
