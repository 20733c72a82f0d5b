//! GGUF files, read and written as what they are made from: tensors under their Hugging Face names, a `config.json`, a
//! tokenizer, a chat template.
//!
//! The converter of llama.cpp changes some tensors on the way (see [`names::Change`]); reading changes them back, on
//! quantised blocks too where only whole rows move. Matrices stay in memory as they are stored.
//!
//! `header` checks the file, `tables` and `names` say what its tensors are called, `tensors` reads them, `config` its
//! numbers and `vocab` its tokenizer; `write` and `numbers` go the other way.

mod config;
mod header;
mod names;
mod numbers;
mod plain;
mod tables;
mod tensors;
mod vocab;
mod write;

pub use plain::Plain;
pub use write::{GgufType, write_gguf};

use super::Tokenizer;
use super::chat::ChatTemplate;
use super::raw::Bytes;
use super::weights::{Stored, TensorSource};
use crate::error::{Error, Result};
use crate::text::scrub;
use candle_core::quantized::GgmlDType;
use header::{Header, Value};
use names::{Arch, Change};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// An open GGUF file. See [`TensorSource`] for its tensors.
pub struct Gguf {
    bytes: Bytes,
    header: Header,
    arch: Arch,
    /// Hugging Face name → name in the file and how it was changed.
    tensors: BTreeMap<String, (String, Change)>,
}

impl Gguf {
    /// Open a file on disk.
    ///
    /// # Errors
    /// If it is damaged, or holds an architecture that is not read.
    pub fn open(path: &Path) -> Result<Self> {
        Self::read(Bytes::open(path)?)
    }

    /// From bytes in memory; `name` stands for them in messages.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn from_bytes(bytes: Vec<u8>, name: &str) -> Result<Self> {
        Self::read(Bytes::Owned {
            bytes,
            name: PathBuf::from(name),
        })
    }

    /// From bytes inside the program.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn from_static(bytes: &'static [u8], name: &'static str) -> Result<Self> {
        Self::read(Bytes::Static { bytes, name })
    }

    fn read(bytes: Bytes) -> Result<Self> {
        let header = Header::read(bytes.all()).map_err(|problem| {
            Error::file(
                bytes.path(),
                scrub(&problem),
                "The file is truncated or damaged: fetch it again.",
            )
        })?;
        let refuse = |problem: String, remedy: &str| Error::file(bytes.path(), problem, remedy);
        if integer(&header, "split.count").is_some_and(|n| n > 1) {
            return Err(refuse(
                "is one of several parts".into(),
                "Put them together with `llama-gguf-split --merge`.",
            ));
        }
        let name = text(&header, "general.architecture").unwrap_or_default();
        let Some(arch) = Arch::of(name) else {
            let near = match names::nearest(name) {
                near if near.is_empty() => String::new(),
                near => format!(" (nearest: {near})"),
            };
            return Err(refuse(
                format!(
                    "holds a model of the architecture \"{}\", which is not read from GGUF{near}",
                    scrub(name)
                ),
                &format!(
                    "Read are {}; a new one is added in src/model/gguf/tables.rs. For others use the safetensors of \
                     the model.",
                    names::known()
                ),
            ));
        };
        if integer(&header, &format!("{name}.expert_count")).is_some_and(|n| n > 0) {
            return Err(refuse(
                "holds a mixture of experts, which is not supported".into(),
                "Use a model without experts.",
            ));
        }
        let blocks = integer(&header, &format!("{name}.block_count"));
        let mut tensors: BTreeMap<String, (String, Change)> = BTreeMap::new();
        for gguf in header.tensors.keys() {
            if let (Some(block), Some(blocks)) = (names::block_of(gguf), blocks)
                && u64::from(block) >= blocks
            {
                return Err(refuse(
                    format!("has a tensor {}, but only {blocks} blocks", scrub(gguf)),
                    "The file is damaged: fetch it again.",
                ));
            }
            match arch.to_hf(gguf) {
                Some((hf, change)) => {
                    if let Some((other, _)) = tensors.insert(hf, (gguf.clone(), change)) {
                        return Err(refuse(
                            format!(
                                "has two tensors for the same weights, {} and {}",
                                scrub(&other),
                                scrub(gguf)
                            ),
                            "The file is damaged: fetch it again.",
                        ));
                    }
                }
                None if arch.is_buffer(gguf) => {}
                // Leaving a tensor out would give wrong numbers without a word.
                None => {
                    return Err(refuse(
                        format!("has a tensor {}, which a {name} does not have", scrub(gguf)),
                        "This variant of the architecture is not supported; use the safetensors of the model.",
                    ));
                }
            }
        }
        Ok(Self {
            bytes,
            header,
            arch,
            tensors,
        })
    }

    /// The equivalent of the model's `config.json`.
    ///
    /// # Errors
    /// If a number that the architecture needs is missing or makes no sense.
    pub fn config(&self) -> Result<serde_json::Value> {
        config::from_metadata(self)
    }

    /// The tokenizer: the whole `tokenizer.json` if the file carries it, or one built from the vocabulary.
    ///
    /// # Errors
    /// If there is none or it is of a kind that is not read.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let origin = self.bytes.path().to_string_lossy();
        match self.text("tokenizer.huggingface.json") {
            Some(json) => Tokenizer::from_bytes(json.as_bytes(), &origin),
            None => vocab::tokenizer(self, &origin),
        }
    }

    /// The chat template, if the file carries one.
    #[must_use]
    pub fn chat_template(&self) -> Option<ChatTemplate> {
        let template = self.text("tokenizer.chat_template")?;
        let token = |id: Option<u32>| {
            let tokens = self.texts("tokenizer.ggml.tokens")?;
            tokens.get(id? as usize).cloned()
        };
        Some(ChatTemplate::new(
            template,
            token(self.bos()),
            token(self.eos().first().copied()),
        ))
    }

    /// The tokens that end a text or a turn.
    #[must_use]
    pub fn eos(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = ["eos", "eot", "eom"]
            .into_iter()
            .filter_map(|name| self.token_id(name))
            .collect();
        let mut seen = Vec::new();
        ids.retain(|id| {
            !seen.contains(id) && {
                seen.push(*id);
                true
            }
        });
        ids
    }

    /// The token that begins a text.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.token_id("bos")
    }

    /// The type that holds most of the weights: `q8_0`, `f16`, …
    #[must_use]
    pub fn dtype(&self) -> String {
        let mut bytes: BTreeMap<String, usize> = BTreeMap::new();
        for info in self.header.tensors.values() {
            if let Some((dtype, range)) = &info.data {
                *bytes.entry(dtype_name(*dtype)).or_default() += range.len();
            }
        }
        bytes
            .into_iter()
            .max_by_key(|(_, bytes)| *bytes)
            .map_or_else(|| "f32".to_owned(), |(name, _)| name)
    }

    /// Bytes of all tensors as stored.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let sizes = self.header.tensors.values().filter_map(|t| t.data.as_ref());
        sizes.map(|(_, range)| range.len() as u64).sum()
    }

    /// The file on disk, if it is one.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        match &self.bytes {
            Bytes::Mapped { path, .. } => vec![path.clone()],
            Bytes::Owned { .. } | Bytes::Static { .. } => Vec::new(),
        }
    }

    fn path(&self) -> &Path {
        self.bytes.path()
    }

    fn token_id(&self, name: &str) -> Option<u32> {
        let id = self.integer(&format!("tokenizer.ggml.{name}_token_id"))?;
        u32::try_from(id).ok().filter(|id| *id != u32::MAX)
    }

    fn integer(&self, key: &str) -> Option<u64> {
        integer(&self.header, key)
    }

    fn text(&self, key: &str) -> Option<&str> {
        text(&self.header, key)
    }

    fn texts(&self, key: &str) -> Option<&Vec<String>> {
        match self.header.metadata.get(key)? {
            Value::Texts(texts) => Some(texts),
            _ => None,
        }
    }

    /// One flag for each layer.
    fn flags(&self, key: &str) -> Option<&Vec<bool>> {
        match self.header.metadata.get(key)? {
            Value::Flags(flags) => Some(flags),
            _ => None,
        }
    }

    /// One whole number for each layer.
    fn integers(&self, key: &str) -> Option<&Vec<i64>> {
        match self.header.metadata.get(key)? {
            Value::Ints(ints) => Some(ints),
            _ => None,
        }
    }

    fn flag(&self, key: &str) -> Option<bool> {
        match self.header.metadata.get(key)? {
            Value::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    fn real(&self, key: &str) -> Option<f64> {
        match self.header.metadata.get(key)? {
            Value::Real(real) => Some(*real),
            Value::Int(int) => Some(*int as f64),
            _ => None,
        }
    }
}

fn integer(header: &Header, key: &str) -> Option<u64> {
    match header.metadata.get(key)? {
        Value::Int(n) => u64::try_from(*n).ok(),
        // One number for each layer: a number only if they are all the same.
        Value::Ints(list) => {
            let first = list.first()?;
            let same = list.iter().all(|n| n == first);
            same.then(|| u64::try_from(*first).ok()).flatten()
        }
        _ => None,
    }
}

fn text<'a>(header: &'a Header, key: &str) -> Option<&'a str> {
    match header.metadata.get(key)? {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

fn dtype_name(dtype: GgmlDType) -> String {
    match dtype {
        GgmlDType::Q2K => "q2_k".into(),
        GgmlDType::Q3K => "q3_k".into(),
        GgmlDType::Q4K => "q4_k".into(),
        GgmlDType::Q5K => "q5_k".into(),
        GgmlDType::Q6K => "q6_k".into(),
        GgmlDType::Q8K => "q8_k".into(),
        other => format!("{other:?}").to_lowercase(),
    }
}

#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod tests;
