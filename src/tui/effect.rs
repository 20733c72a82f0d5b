//! What [`update`](super::state::update) asks of the world: the engine, the disk, the clipboard, the terminal.

use crate::error::Result;
use crate::model::Tokenizer;
use crate::session::Request;
use crate::trace::{Curve, Pairing, Record, Samples};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One wish; the app loop carries it out.
#[derive(Debug)]
pub enum Effect {
    /// Send to the engine thread.
    Engine(Request),
    /// Write tables into a new folder.
    Export(Export),
    /// Put text into the terminal's clipboard.
    Copy(String),
    /// Paint everything again.
    Redraw,
    /// Give the terminal back to the shell until it is resumed.
    Suspend,
    /// Leave.
    Quit,
}

/// What is taken away.
#[derive(Debug)]
pub enum Export {
    /// A run, or both of a comparison.
    Run(Box<Record>, Arc<Tokenizer>),
    /// The runs of two models on one prompt, with their tokenizers.
    Models(Box<[Record; 2]>, [Arc<Tokenizer>; 2], Pairing),
    /// Two sets of prompts, and how they were read.
    Sets(Box<Record>, Box<Samples>),
    /// A sweep, and how it came about.
    Sweep(Box<Record>, Box<Curve>),
}

/// Writes the files of an export into a folder; supplied by the caller so that this face does not choose the tables'
/// layout.
pub type Exporter = Box<dyn FnMut(&Path, &Export) -> Result<Vec<PathBuf>> + Send>;

/// The first of `base/run-001`, `base/run-002`, … that does not exist: every export of a session keeps its own.
#[must_use]
pub fn fresh_folder(base: &Path) -> PathBuf {
    (1u32..)
        .map(|n| base.join(format!("run-{n:03}")))
        .find(|path| !path.exists())
        .unwrap_or_else(|| base.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_never_share_a_folder() {
        let base = tempfile::tempdir().unwrap();
        assert!(fresh_folder(base.path()).ends_with("run-001"));
        std::fs::create_dir(base.path().join("run-001")).unwrap();
        assert!(fresh_folder(base.path()).ends_with("run-002"));
    }
}
