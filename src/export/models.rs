//! The tables of two models that read one prompt.

use super::csv::{Table, cells_of};
use super::{
    RECORD_FILES, atomic, attention_csv, attention_layers_csv, compare_csv, has_attention,
    manifest, tokens_csv, write_manifest,
};
use crate::error::Result;
use crate::model::Tokenizer;
use crate::trace::{Difference, Metric, Pairing, Record, Spread, TwoModels};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// `models.csv`: one row per layer of A, with the layer of B that lies equally deep, and metric; means over the summarised
/// positions of each.
///
/// # Errors
/// Whatever `out` reports.
pub fn models_csv(out: impl Write, models: &TwoModels<'_>) -> io::Result<()> {
    let header = [
        "layer_a",
        "layer_b",
        "depth",
        "metric",
        "unit",
        "mean_a",
        "std_a",
        "n_a",
        "mean_b",
        "std_b",
        "n_b",
        "difference",
    ];
    let mut table = Table::new(out, &header)?;
    let [a, _] = models.records();
    for (layer_a, layer_b) in models.depths().layers() {
        for (i, spec) in a.schema.metrics().iter().enumerate() {
            let both = models.at(layer_a, Metric(i));
            table.shown(layer_a)?;
            table.shown(layer_b)?;
            table.number(Some(models.depths().depth(layer_a) as f32))?;
            table.text(&spec.name)?;
            table.text(spec.unit.label())?;
            for spread in [both.a, both.b] {
                let number = |of: fn(Spread) -> f64| spread.map(|s| of(s) as f32);
                table.number(number(|s| s.mean))?;
                table.number(number(|s| s.std))?;
                table.shown(spread.map_or(0, |s| s.n))?;
            }
            table.number(both.difference.map(|d| d as f32))?;
            table.end_row()?;
        }
    }
    table.finish()
}

/// Write the tables and the manifest of the runs of two models into the folder `dir`, as [`super::write_record`] does. Where
/// B has read the text of A layer by layer there is a `compare.csv` too.
///
/// # Errors
/// As [`super::write_record`].
pub fn write_models(
    dir: &Path,
    models: &TwoModels<'_>,
    tokenizers: [&Tokenizer; 2],
    pairing: Pairing,
    force: bool,
) -> Result<Vec<PathBuf>> {
    let [a, b] = models.records();
    let mut both: Record = a.clone();
    both.branches.extend(b.branches.iter().cloned());
    both.comparison = Some(pairing);
    both.ended = a.ended.max(b.ended);
    let one_to_one = pairing == Pairing::Locked && a.model.blocks == b.model.blocks;
    let difference = match both.branches.as_slice() {
        [(_, a), (_, b)] if one_to_one => Some(Difference::new(a, b)),
        _ => None,
    };
    let attention = has_attention(&both);
    let mut files = vec!["cells.csv", "tokens.csv"];
    if attention {
        files.extend(["attention.csv", "attention_layers.csv"]);
    }
    files.extend(difference.map(|_| "compare.csv"));
    files.extend(["models.csv", "manifest.json"]);
    let text_of = |branch: usize, id: u32| match tokenizers.get(branch) {
        Some(tokenizer) => tokenizer.bytes(id),
        None => Vec::new(),
    };
    let folder = atomic::Folder::stage(dir, &RECORD_FILES, force)?;
    for name in &files {
        folder.write(name, |out| match (*name, &difference) {
            ("cells.csv", _) => cells_of(out, &both, &text_of),
            ("tokens.csv", _) => tokens_csv(out, &both),
            ("attention.csv", _) => attention_csv(out, &both),
            ("attention_layers.csv", _) => attention_layers_csv(out, &both),
            ("compare.csv", Some(difference)) => compare_csv(out, difference, &both.schema),
            ("models.csv", _) => models_csv(out, models),
            _ if pairing == Pairing::Prompts => write_manifest(out, &manifest(&both, &files)),
            _ => write_manifest(out, &manifest(&both, &files).against(&b.model)),
        })?;
    }
    folder.commit(&files)
}
