//! The tokenizer: text to ids, ids to bytes, and a stream that never splits a character.

use crate::error::{Error, Result};

/// A Hugging Face tokenizer behind checks; cheap to share between threads in an `Arc`.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

impl Tokenizer {
    /// From the bytes of a `tokenizer.json`; `origin` names the source in errors.
    pub fn from_bytes(bytes: &[u8], origin: &str) -> Result<Self> {
        let inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| {
            Error::failed(
                format!("{origin}: the tokenizer cannot be read: {e}"),
                "Fetch it again.",
            )
        })?;
        Ok(Self { inner })
    }

    /// Ids of `text`; `special` lets the post-processor add BOS and the like.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding = self
            .inner
            .encode(text, special)
            .map_err(|e| Error::failed(format!("the text cannot be tokenized: {e}"), ""))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The bytes that token `id` stands for; empty for ids that the tokenizer does not know.
    #[must_use]
    pub fn bytes(&self, id: u32) -> Vec<u8> {
        self.inner
            .id_to_token(id)
            .map(String::into_bytes)
            .unwrap_or_default()
    }

    /// The token as it is shown in one cell: printable, spaces and newlines visible.
    #[must_use]
    pub fn display(&self, id: u32) -> String {
        crate::text::scrub(&String::from_utf8_lossy(&self.bytes(id)))
    }

    /// Number of tokens known.
    #[must_use]
    pub fn size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}
