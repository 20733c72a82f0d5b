//! Files: what a run leaves behind for pandas, DuckDB or a spreadsheet.
//!
//! A run folder holds `cells.csv`, `tokens.csv`, `attention.csv` and `attention_layers.csv` (only where attention was
//! recorded), `compare.csv` (only for a comparison) and `manifest.json`; one of two sets of prompts `profiles.csv`,
//! `separation.csv` and `manifest.json`; one of a sweep `sweep.csv` and `manifest.json`; one of two models `models.csv` beside
//! the tables of a run. The manifest says what the columns are and how they came about. Every file is written beside its place
//! and renamed, the manifest last, so that a folder with a manifest is a whole one. [`llm_entropy`] is the folder of another
//! system, for a comparison over many prompts.

pub mod atomic;
mod compare;
mod csv;
pub mod llm_entropy;
mod manifest;
mod models;
pub mod plot;
mod sweep;

pub use compare::{compare_csv, profiles_csv, separation_csv};
pub use csv::{attention_csv, attention_layers_csv, cells_csv, number, tokens_csv};
pub use manifest::{Manifest, manifest, rfc3339};
pub use models::{models_csv, write_models};
pub use sweep::{sweep_csv, write_sweep};

use crate::error::{Error, Result};
use crate::model::Tokenizer;
use crate::trace::{Record, Samples};
use std::io;
use std::path::{Path, PathBuf};

/// Every name that a folder of ours may hold, the manifest last.
pub const RECORD_FILES: [&str; 10] = [
    "cells.csv",
    "tokens.csv",
    "attention.csv",
    "attention_layers.csv",
    "compare.csv",
    "profiles.csv",
    "separation.csv",
    "sweep.csv",
    "models.csv",
    "manifest.json",
];

/// Those of two sets of prompts.
const SAMPLE_FILES: [&str; 3] = ["profiles.csv", "separation.csv", "manifest.json"];

/// Write the tables and the manifest of `record` into the folder `dir`, which is made if it is missing.
///
/// A folder that already holds something is refused unless `force`; then only the files of [`RECORD_FILES`] are
/// replaced (and those that this record does not have removed, because they would contradict the new manifest).
/// Returns the written paths in the order of [`RECORD_FILES`].
///
/// # Errors
/// If the folder is in use, cannot be made or written; nothing half-written is left under its final name.
pub fn write_record(
    dir: &Path,
    record: &Record,
    tokenizer: &Tokenizer,
    force: bool,
) -> Result<Vec<PathBuf>> {
    let text_of = |id: u32| tokenizer.bytes(id);
    let attention = has_attention(record);
    let difference = record.difference();
    let files: Vec<&str> = RECORD_FILES
        .into_iter()
        .filter(|name| match *name {
            "attention.csv" | "attention_layers.csv" => attention,
            "compare.csv" => difference.is_some(),
            "profiles.csv" | "separation.csv" | "sweep.csv" | "models.csv" => false,
            _ => true,
        })
        .collect();
    let folder = atomic::Folder::stage(dir, &RECORD_FILES, force)?;
    for name in &files {
        folder.write(name, |out| match *name {
            "cells.csv" => cells_csv(out, record, &text_of),
            "tokens.csv" => tokens_csv(out, record),
            "attention.csv" => attention_csv(out, record),
            "attention_layers.csv" => attention_layers_csv(out, record),
            "compare.csv" => match &difference {
                Some(difference) => compare_csv(out, difference, &record.schema),
                None => Ok(()),
            },
            _ => write_manifest(out, &manifest(record, &files)),
        })?;
    }
    folder.commit(&files)
}

/// Write the profiles, the separation and the manifest of two sets of prompts into the folder `dir`, as [`write_record`]
/// does; `record` says how they were read.
///
/// # Errors
/// As [`write_record`].
pub fn write_samples(
    dir: &Path,
    record: &Record,
    samples: &Samples,
    force: bool,
) -> Result<Vec<PathBuf>> {
    let folder = atomic::Folder::stage(dir, &RECORD_FILES, force)?;
    folder.write("profiles.csv", |out| profiles_csv(out, samples))?;
    folder.write("separation.csv", |out| separation_csv(out, samples))?;
    folder.write("manifest.json", |out| {
        write_manifest(out, &manifest(record, &SAMPLE_FILES).of_samples(samples))
    })?;
    folder.commit(&SAMPLE_FILES)
}

fn write_manifest(out: &mut dyn io::Write, manifest: &Manifest) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, manifest).map_err(io::Error::from)?;
    out.write_all(b"\n")
}

/// Refuse early what [`write_record`] would refuse at the end of a long run.
///
/// # Errors
/// If `dir` is not a folder, cannot be written, or holds something and `force` is not given.
pub fn check_target(dir: &Path, force: bool) -> Result<()> {
    refuse_occupied(dir, force)?;
    atomic::writable(dir)
}

/// The same for a layout that makes a new folder in `dir`, which may hold others.
///
/// # Errors
/// If `dir` is not a folder or cannot be written.
pub fn check_parent(dir: &Path) -> Result<()> {
    atomic::occupied(dir)?;
    atomic::writable(dir)
}

fn refuse_occupied(dir: &Path, force: bool) -> Result<()> {
    match atomic::occupied(dir)? {
        true if !force => Err(Error::file(
            dir,
            "already holds files",
            "Choose another folder, or add --force to replace the tables of an earlier run in it.",
        )),
        _ => Ok(()),
    }
}

fn has_attention(record: &Record) -> bool {
    record.branches.iter().any(|(_, grid)| {
        (0..grid.len()).any(|p| grid.cells(p).is_some_and(|c| c.attention.is_some()))
    })
}

#[cfg(test)]
mod tests;
