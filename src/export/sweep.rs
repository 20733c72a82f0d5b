//! The table of a sweep: one text read under several strengths.

use super::csv::Table;
use super::{RECORD_FILES, atomic, manifest, write_manifest};
use crate::error::Result;
use crate::trace::{Curve, Metric, Record, Spread, Unit};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const FILES: [&str; 2] = ["sweep.csv", "manifest.json"];

/// `sweep.csv`: one row per strength (none for the plain model, which comes first), layer and metric over the summarised positions; the metric `kl_ab`, KL(baseline‖steered)
/// in nats, comes last in each layer.
///
/// # Errors
/// Whatever `out` reports.
pub fn sweep_csv(out: impl Write, curve: &Curve) -> io::Result<()> {
    let header = ["strength", "layer", "metric", "unit", "mean", "std", "n"];
    let mut table = Table::new(out, &header)?;
    let strengths = curve.strengths().iter().enumerate();
    let points = strengths.map(|(i, strength)| (Some(strength), curve.point(i)));
    for (strength, point) in std::iter::once((None, curve.baseline())).chain(points) {
        for layer in 0..curve.states() {
            let mut row = |metric: &str, unit: Unit, spread: Option<Spread>| {
                match strength {
                    Some(strength) => table.shown(strength)?,
                    None => table.text("")?,
                }
                table.shown(layer)?;
                table.text(metric)?;
                table.text(unit.label())?;
                table.number(spread.map(|s| s.mean as f32))?;
                table.number(spread.map(|s| s.std as f32))?;
                table.shown(spread.map_or(0, |s| s.n))?;
                table.end_row()
            };
            for (metric, spec) in curve.schema().metrics().iter().enumerate() {
                let spread = point.and_then(|point| point.spread(layer, Metric(metric)));
                row(&spec.name, spec.unit, spread)?;
            }
            let divergence = point.and_then(|point| point.divergence(layer));
            row("kl_ab", Unit::Nats, divergence)?;
        }
    }
    table.finish()
}

/// Write the table of a sweep and its manifest into the folder `dir`, as [`super::write_record`] does; `record` is the plain
/// model's run.
///
/// # Errors
/// As [`super::write_record`].
pub fn write_sweep(
    dir: &Path,
    record: &Record,
    curve: &Curve,
    force: bool,
) -> Result<Vec<PathBuf>> {
    let folder = atomic::Folder::stage(dir, &RECORD_FILES, force)?;
    folder.write("sweep.csv", |out| sweep_csv(out, curve))?;
    folder.write("manifest.json", |out| {
        write_manifest(out, &manifest(record, &FILES).of_sweep(curve))
    })?;
    folder.commit(&FILES)
}
