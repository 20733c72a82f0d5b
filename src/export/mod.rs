//! Files: what a run leaves behind for pandas, DuckDB or a spreadsheet.
//!
//! A run folder holds `cells.csv`, `tokens.csv`, `attention.csv` and `attention_layers.csv` (only where attention was
//! recorded) and `manifest.json`, which says what the columns are and how they came about. Every file is written beside
//! its place and renamed, the manifest last, so that a folder with a manifest is a whole one.

pub mod atomic;
mod csv;
mod manifest;

pub use csv::{attention_csv, attention_layers_csv, cells_csv, number, tokens_csv};
pub use manifest::{Manifest, manifest, rfc3339};

use crate::error::{Error, Result};
use crate::model::Tokenizer;
use crate::trace::Record;
use std::io;
use std::path::{Path, PathBuf};

/// Every name that [`write_record`] may write, the manifest last.
pub const RECORD_FILES: [&str; 5] = [
    "cells.csv",
    "tokens.csv",
    "attention.csv",
    "attention_layers.csv",
    "manifest.json",
];

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
    let files: Vec<&str> = RECORD_FILES
        .into_iter()
        .filter(|name| attention || !name.starts_with("attention"))
        .collect();
    let folder = atomic::Folder::stage(dir, &RECORD_FILES, force)?;
    for name in &files {
        folder.write(name, |out| match *name {
            "cells.csv" => cells_csv(out, record, &text_of),
            "tokens.csv" => tokens_csv(out, record),
            "attention.csv" => attention_csv(out, record),
            "attention_layers.csv" => attention_layers_csv(out, record),
            _ => {
                let manifest = manifest(record, &files);
                serde_json::to_writer_pretty(&mut *out, &manifest).map_err(io::Error::from)?;
                out.write_all(b"\n")
            }
        })?;
    }
    folder.commit(&files)
}

/// Refuse early what [`write_record`] would refuse at the end of a long run.
///
/// # Errors
/// If `dir` is not a folder, cannot be written, or holds something and `force` is not given.
pub fn check_target(dir: &Path, force: bool) -> Result<()> {
    refuse_occupied(dir, force)?;
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
