//! The model inside the program: trained by `entroscope pretrain --preset demo` on the synthetic world and on stories.
//! `demo/README.md` beside this file is its model card.

use super::digest::sha256_hex;
use super::gguf::Gguf;
use super::source::Checkpoint;
use crate::error::Result;

/// The weights, tokenizer included.
const MODEL: &[u8] = include_bytes!("demo/model.gguf");

/// Where the card of this model says that it comes from.
pub const EMBEDDED: &str = "embedded";

/// Open the embedded model.
///
/// # Errors
/// If the bytes are damaged.
pub fn open() -> Result<Checkpoint> {
    let mut checkpoint = Checkpoint::from_gguf(Gguf::from_static(MODEL, "demo")?, "demo")?;
    checkpoint.source = EMBEDDED.into();
    Ok(checkpoint)
}

/// SHA-256 (hex) of the embedded weights.
#[must_use]
pub fn sha256() -> Option<String> {
    Some(sha256_hex(MODEL))
}
