//! Errors in a user's words: what failed, where, and what to do.
//!
//! Every message is one or two sentences that a user can act on; outside text inside them has been through
//! [`crate::text::scrub`]. The variant decides the exit code, see [`Error::exit_code`].

use std::path::{Path, PathBuf};

/// The library's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, worded for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request itself makes no sense (exit code 2).
    #[error("{0}")]
    Usage(String),

    /// A file or folder is missing, damaged or not what was expected.
    #[error("{}: {problem}. {remedy}", crate::text::path(.path))]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it, without a full stop.
        problem: String,
        /// What to do about it, a sentence.
        remedy: String,
    },

    /// Something failed that no single file is to blame for.
    #[error("{problem}. {remedy}")]
    Failed {
        /// What went wrong, without a full stop.
        problem: String,
        /// What to do about it, a sentence.
        remedy: String,
    },

    /// Arithmetic on tensors failed: always a bug or an exhausted device.
    #[error("a tensor operation failed: {0}. Run with -v and look into the log file for details")]
    Tensor(#[from] candle_core::Error),

    /// The user pressed Ctrl-C or asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// A problem with one file or folder.
    pub fn file(
        path: impl AsRef<Path>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::File {
            path: path.as_ref().to_path_buf(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// A problem that is not one file's.
    pub fn failed(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Failed {
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// Reading `path` failed in the operating system.
    pub fn read(path: impl AsRef<Path>, source: &std::io::Error) -> Self {
        let remedy = match source.kind() {
            std::io::ErrorKind::NotFound => "Check the path",
            std::io::ErrorKind::PermissionDenied => "Check the permissions",
            _ => "Check the file and the disk",
        };
        Self::file(
            path,
            format!("cannot be read: {source}"),
            format!("{remedy}."),
        )
    }

    /// Writing `path` failed in the operating system.
    pub fn write(path: impl AsRef<Path>, source: &std::io::Error) -> Self {
        Self::file(
            path,
            format!("cannot be written: {source}"),
            "Choose another folder with --out, or make room and check the permissions.",
        )
    }

    /// The process exit code that belongs to this error: 1 failed, 2 wrong usage, 130 interrupted.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Interrupted => 130,
            Self::File { .. } | Self::Failed { .. } | Self::Tensor(_) => 1,
        }
    }
}
