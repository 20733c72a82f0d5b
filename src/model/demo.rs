//! The model inside the program.

use super::source::Checkpoint;
use crate::error::{Error, Result};

/// Open the embedded model.
///
/// # Errors
/// If this build carries none.
pub fn open() -> Result<Checkpoint> {
    Err(Error::failed(
        "this build has no embedded model",
        "Give a model with --model: a folder, a .gguf file or a hub id such as org/name.",
    ))
}
