//! The tables of comparisons: two runs of one prompt, and two sets of prompts.

use super::csv::Table;
use crate::trace::{Compared, Difference, Metric, Samples, Schema, Set};
use std::io::{self, Write};

/// `compare.csv`: one row per metric, layer and position that both sides have read; the metric `kl_ab`, KL(a‖b) in nats,
/// stands in `difference` and comes last.
///
/// # Errors
/// Whatever `out` reports.
pub fn compare_csv(
    out: impl Write,
    difference: &Difference<'_>,
    schema: &Schema,
) -> io::Result<()> {
    let mut table = Table::new(
        out,
        &[
            "metric",
            "layer",
            "position",
            "a",
            "b",
            "difference",
            "percent_change",
            "diverged",
        ],
    )?;
    let mut row = |metric: &str, layer: usize, position: usize, cell: Compared| {
        table.text(metric)?;
        table.shown(layer)?;
        table.shown(position)?;
        table.number(cell.a)?;
        table.number(cell.b)?;
        table.number(cell.difference)?;
        table.number(cell.percent_change)?;
        table.shown(difference.is_diverged(position))?;
        table.end_row()
    };
    for (metric, spec) in schema.metrics().iter().enumerate() {
        for layer in 0..difference.states() {
            for position in difference.positions() {
                let cell = difference.cell(layer, position, Metric(metric));
                row(&spec.name, layer, position, cell)?;
            }
        }
    }
    for layer in 0..difference.states() {
        for position in difference.positions() {
            let cell = Compared {
                difference: difference.divergence(layer, position),
                ..Compared::default()
            };
            row("kl_ab", layer, position, cell)?;
        }
    }
    table.finish()
}

/// `profiles.csv`: one row per set, metric and layer.
///
/// # Errors
/// Whatever `out` reports.
pub fn profiles_csv(out: impl Write, samples: &Samples) -> io::Result<()> {
    let header = ["set", "metric", "layer", "mean", "std", "n"];
    let mut table = Table::new(out, &header)?;
    for set in Set::BOTH {
        for (metric, spec) in samples.schema().metrics().iter().enumerate() {
            for layer in 0..samples.states() {
                let profile = samples.profile(set, layer, Metric(metric));
                table.text(set.label())?;
                table.text(&spec.name)?;
                table.shown(layer)?;
                table.number(profile.map(|p| p.mean as f32))?;
                table.number(profile.map(|p| p.std as f32))?;
                table.shown(profile.map_or(0, |p| p.n))?;
                table.end_row()?;
            }
        }
    }
    table.finish()
}

/// `separation.csv`: one row per metric and layer; the last, `prompt_tokens`, is the number of prompt tokens alone and has no
/// layer.
///
/// # Errors
/// Whatever `out` reports.
pub fn separation_csv(out: impl Write, samples: &Samples) -> io::Result<()> {
    let header = [
        "metric",
        "layer",
        "auroc",
        "low",
        "high",
        "n_known",
        "n_unknown",
    ];
    let mut table = Table::new(out, &header)?;
    let metrics = samples.schema().metrics().iter().enumerate();
    let cells = metrics.flat_map(|(metric, spec)| {
        (0..samples.states()).map(move |layer| {
            let separation = samples.separation(layer, Metric(metric));
            (spec.name.as_str(), Some(layer), separation)
        })
    });
    let length = ("prompt_tokens", None, samples.separation_by_length());
    for (name, layer, separation) in cells.chain(std::iter::once(length)) {
        let interval = separation.and_then(|s| s.interval);
        table.text(name)?;
        match layer {
            Some(layer) => table.shown(layer)?,
            None => table.text("")?,
        }
        table.number(separation.map(|s| s.auroc as f32))?;
        table.number(interval.map(|(low, _)| low as f32))?;
        table.number(interval.map(|(_, high)| high as f32))?;
        table.shown(separation.map_or(0, |s| s.n_known))?;
        table.shown(separation.map_or(0, |s| s.n_unknown))?;
        table.end_row()?;
    }
    table.finish()
}
