//! GGUF files, read and written as what they are made from: tensors under their Hugging Face names, a `config.json`, a
//! tokenizer, a chat template.
//!
//! The converter of llama.cpp changes some tensors on the way (see [`names::Change`]); reading changes them back, on
//! quantised blocks too where only whole rows move. Quantised matrices stay quantised in memory.

mod config;
mod header;
mod names;
mod vocab;
mod write;

pub use write::{GgufType, write_gguf};

use super::Tokenizer;
use super::chat::ChatTemplate;
use super::raw::{Bytes, missing, widen};
use super::weights::{Stored, TensorSource};
use crate::error::{Error, Result};
use crate::text::scrub;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{D, Device, Tensor};
use half::{bf16, f16};
use header::{Header, Value};
use names::{Arch, Change, interleaved};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
            return Err(refuse(
                format!(
                    "holds a model of the architecture \"{}\", which is not read from GGUF",
                    scrub(name)
                ),
                "Read are llama and gpt2; for others use the safetensors of the model.",
            ));
        };
        if integer(&header, &format!("{name}.expert_count")).is_some_and(|n| n > 0) {
            return Err(refuse(
                "holds a mixture of experts, which is not supported".into(),
                "Use a model without experts.",
            ));
        }
        let mut tensors = BTreeMap::new();
        for gguf in header.tensors.keys() {
            match arch.to_hf(gguf) {
                Some((hf, change)) => {
                    tensors.insert(hf, (gguf.clone(), change));
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

    /// Width of a query or key head, for putting rows back in order.
    fn head_dim(&self, rows: usize, change: Change) -> Result<usize> {
        let prefix = self.arch.name();
        let heads = self.integer(&format!("{prefix}.attention.head_count"));
        let heads = match change {
            Change::PermuteKeys => self
                .integer(&format!("{prefix}.attention.head_count_kv"))
                .or(heads),
            _ => heads,
        };
        match heads.and_then(|h| usize::try_from(h).ok()) {
            Some(heads) if heads > 0 && rows.is_multiple_of(2 * heads) => Ok(rows / heads),
            _ => Err(Error::file(
                self.path(),
                format!(
                    "has {rows} rows of queries or keys, which do not divide into {} heads of even width",
                    heads.unwrap_or(0)
                ),
                "The file is damaged: fetch it again.",
            )),
        }
    }
}

impl TensorSource for Gguf {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let (gguf, change) = self.tensors.get(name)?;
        let mut shape = self.header.tensors.get(gguf)?.shape.clone();
        if *change == Change::Transpose && shape.len() == 2 {
            shape.reverse();
        }
        Some(shape)
    }

    fn load(&self, name: &str) -> Result<Stored> {
        let found = self.tensors.get(name);
        let Some((info, change)) =
            found.and_then(|(gguf, change)| Some((self.header.tensors.get(gguf)?, *change)))
        else {
            let names = self.tensors.keys().map(String::as_str);
            return Err(missing(self.path(), name, names));
        };
        let Some((dtype, range)) = info.data.clone() else {
            return Err(Error::file(
                self.path(),
                format!(
                    "tensor {} is of the ggml type {}, which is not read",
                    scrub(name),
                    info.code
                ),
                "Use a file in Q8_0, Q6_K, Q5_K, Q4_K, Q4_0, F16, BF16 or F32.",
            ));
        };
        let bytes = self.bytes.get(range, name)?;
        let permuted = matches!(change, Change::PermuteQueries | Change::PermuteKeys);
        // Rows are moved whole, so there must be whole rows.
        let whole = match info.shape.as_slice() {
            [rows, _] => *rows > 0 && bytes.len().is_multiple_of(*rows),
            [rows] => dtype.block_size() == 1 && *rows > 0 && bytes.len().is_multiple_of(*rows),
            _ => false,
        };
        if permuted && !whole {
            return Err(Error::file(
                self.path(),
                format!("tensor {} has no whole rows", scrub(name)),
                "The file is damaged: fetch it again.",
            ));
        }
        let bytes = match info.shape.first() {
            Some(&rows) if permuted && rows > 0 => {
                let head_dim = self.head_dim(rows, change)?;
                Cow::Owned(unpermuted(bytes, rows, head_dim))
            }
            _ => Cow::Borrowed(bytes),
        };
        let stored = match floats(&bytes, dtype) {
            Some(numbers) => Stored::Float(Tensor::from_vec(
                numbers,
                info.shape.as_slice(),
                &Device::Cpu,
            )?),
            None => Stored::Quantised(Arc::new(quantised(&bytes, dtype, &info.shape)?)),
        };
        if change != Change::Transpose || info.shape.len() != 2 {
            return Ok(stored);
        }
        // Blocks run along the rows, so a transposed matrix cannot stay quantised.
        let matrix = match stored {
            Stored::Float(matrix) => matrix,
            Stored::Quantised(matrix) => matrix.dequantize(&Device::Cpu)?,
        };
        let matrix = matrix.transpose(D::Minus2, D::Minus1)?.contiguous()?;
        Ok(Stored::Float(matrix))
    }

    fn origin(&self) -> String {
        crate::text::path(self.path())
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

/// Rows back in half-split order; works on the bytes of whole rows, quantised or not.
fn unpermuted(bytes: &[u8], rows: usize, head_dim: usize) -> Vec<u8> {
    let row = bytes.len() / rows;
    let mut out = Vec::with_capacity(bytes.len());
    for to in 0..rows {
        let from = interleaved(to, head_dim) * row;
        out.extend_from_slice(&bytes[from..from + row]);
    }
    out
}

/// The numbers of types that are plain numbers.
fn floats(bytes: &[u8], dtype: GgmlDType) -> Option<Vec<f32>> {
    match dtype {
        GgmlDType::F32 => Some(widen(bytes, f32::from_le_bytes)),
        GgmlDType::F16 => Some(widen(bytes, |b| f16::from_le_bytes(b).to_f32())),
        GgmlDType::BF16 => Some(widen(bytes, |b| bf16::from_le_bytes(b).to_f32())),
        _ => None,
    }
}

fn quantised(bytes: &[u8], dtype: GgmlDType, shape: &[usize]) -> Result<QTensor> {
    // candle looks at the bytes as blocks, which must lie aligned: those of a file or of the program may not.
    const ALIGN: usize = 16;
    let aligned: Vec<u8>;
    let bytes = if bytes.as_ptr().align_offset(ALIGN) == 0 {
        bytes
    } else {
        let mut copy = vec![0u8; bytes.len() + ALIGN];
        let pad = copy.as_ptr().align_offset(ALIGN).min(ALIGN);
        copy[pad..pad + bytes.len()].copy_from_slice(bytes);
        aligned = copy;
        let pad = aligned.as_ptr().align_offset(ALIGN).min(ALIGN);
        &aligned[pad..pad + bytes.len()]
    };
    let storage = QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, dtype)?;
    Ok(QTensor::new(storage, shape)?)
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
mod tests;
