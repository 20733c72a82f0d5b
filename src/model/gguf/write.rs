//! Writing GGUF files that llama.cpp loads, and that bring their own `tokenizer.json` along.

use super::config::llama3_factors;
use super::names::{self, Arch, Change};
use super::numbers::{self, size, unusable};
use super::vocab::{LLAMA3_SPLIT, QWEN2_SPLIT};
use crate::error::{Error, Result};
use crate::model::Tokenizer;
use crate::model::raw::write_whole;
use crate::text::scrub;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{D, DType, Device, Tensor};
use serde_json::Value;
use std::io::Write;
use std::path::Path;

const ALIGNMENT: usize = 32;

/// How the matrices of a written file are stored. Vectors (norms, biases), convolutions and learned positions are always
/// f32; rows that no block divides are f16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    non_camel_case_types,
    reason = "the names of the formats, as everyone writes them"
)]
pub enum GgufType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 16-bit brain floats.
    BF16,
    /// Blocks of 32 bytes with one f16 scale: 8.5 bits a weight.
    Q8_0,
    /// Blocks of 32 half bytes with one f16 scale: 4.5 bits a weight.
    Q4_0,
    /// Blocks of 256, 4.5 bits a weight. Rows that they do not divide are stored in Q5_0.
    Q4_K,
    /// Blocks of 256, 5.5 bits a weight. Rows that they do not divide are stored in Q5_1.
    Q5_K,
    /// Blocks of 256, 6.6 bits a weight. Rows that they do not divide are stored in Q8_0.
    Q6_K,
}

impl GgufType {
    fn dtype(self) -> GgmlDType {
        match self {
            Self::F32 => GgmlDType::F32,
            Self::F16 => GgmlDType::F16,
            Self::BF16 => GgmlDType::BF16,
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q4_0 => GgmlDType::Q4_0,
            Self::Q4_K => GgmlDType::Q4K,
            Self::Q5_K => GgmlDType::Q5K,
            Self::Q6_K => GgmlDType::Q6K,
        }
    }

    /// What rows of `row` numbers are stored in: this, or what llama.cpp takes instead where the blocks do not divide.
    fn for_rows(self, row: usize) -> GgmlDType {
        let second = match self {
            Self::Q4_K => GgmlDType::Q5_0,
            Self::Q5_K => GgmlDType::Q5_1,
            _ => GgmlDType::Q8_0,
        };
        [self.dtype(), second]
            .into_iter()
            .find(|dtype| row.is_multiple_of(dtype.block_size()))
            .unwrap_or(GgmlDType::F16)
    }

    /// `general.file_type` (`llama_ftype`).
    fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Q4_K => 14,
            Self::Q5_K => 16,
            Self::Q6_K => 18,
            Self::BF16 => 32,
        }
    }
}

/// Write a model, complete or not at all.
///
/// `config` is its `config.json` and `tensors` go by their Hugging Face names. `tokenizer_json` is stored whole under
/// `tokenizer.huggingface.json`, and, if it is byte-level BPE, also the way llama.cpp wants it. `metadata` are further
/// text entries, such as `general.name` or `tokenizer.chat_template`.
///
/// # Errors
/// If the architecture or a tensor has no place in GGUF, a number is missing from `config`, or the file cannot be
/// written.
pub fn write_gguf(
    path: &Path,
    config: &Value,
    tensors: &[(String, Tensor)],
    quant: GgufType,
    tokenizer_json: Option<&str>,
    metadata: &[(String, String)],
) -> Result<()> {
    let kind = config["model_type"].as_str().unwrap_or_default();
    let arch = Arch::of_model_type(kind).ok_or_else(|| {
        Error::Usage(format!(
            "a model of type \"{}\" cannot be written as GGUF, only {} can",
            scrub(kind),
            names::known()
        ))
    })?;
    let mut entries = Entries::default();
    let has_name = metadata.iter().any(|(key, _)| key == "general.name");
    entries.text("general.architecture", arch.name());
    if !has_name {
        // Not the architecture's: llama.cpp takes files named after Phi 3 to have that family's tokens.
        entries.text("general.name", "unnamed");
    }
    entries.u32("general.file_type", quant.file_type());
    entries.u32("general.quantization_version", 2);
    for (key, value) in metadata {
        entries.text(key, value);
    }
    numbers::write(arch, config, &mut entries)?;
    for name in ["bos", "eos", "pad"] {
        if let Some(id) = token_id(config, name) {
            entries.u32(&format!("tokenizer.ggml.{name}_token_id"), id);
        }
    }
    if let Some(json) = tokenizer_json {
        vocabulary(config, json, &mut entries)?;
    }
    let tensors = prepare(arch, config, tensors, quant)?;
    write_whole(path, |file| {
        write(file, &entries, &tensors).map_err(|e| match e {
            Failure::Disk(e) => Error::write(path, &e),
            Failure::Tensor(e) => e.into(),
        })
    })
}

/// Metadata in the order of writing.
#[derive(Default)]
pub(super) struct Entries {
    bytes: Vec<u8>,
    count: u64,
}

impl Entries {
    fn entry(&mut self, key: &str, kind: u32) -> &mut Vec<u8> {
        self.count += 1;
        put_text(&mut self.bytes, key);
        self.bytes.extend_from_slice(&kind.to_le_bytes());
        &mut self.bytes
    }

    pub(super) fn u32(&mut self, key: &str, value: u32) {
        let bytes = self.entry(key, 4);
        bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn f32(&mut self, key: &str, value: f64) {
        let bytes = self.entry(key, 6);
        bytes.extend_from_slice(&(value as f32).to_le_bytes());
    }

    pub(super) fn flag(&mut self, key: &str, value: bool) {
        self.entry(key, 7).push(value.into());
    }

    pub(super) fn text(&mut self, key: &str, value: &str) {
        put_text(self.entry(key, 8), value);
    }

    fn texts<'a>(&mut self, key: &str, values: impl ExactSizeIterator<Item = &'a str>) {
        let bytes = self.entry(key, 9);
        bytes.extend_from_slice(&8u32.to_le_bytes());
        bytes.extend_from_slice(&(values.len() as u64).to_le_bytes());
        values.for_each(|value| put_text(bytes, value));
    }

    pub(super) fn flags(&mut self, key: &str, values: &[bool]) {
        let bytes = self.entry(key, 9);
        bytes.extend_from_slice(&7u32.to_le_bytes());
        bytes.extend_from_slice(&(values.len() as u64).to_le_bytes());
        bytes.extend(values.iter().map(|v| u8::from(*v)));
    }

    pub(super) fn i32s(&mut self, key: &str, values: &[i32]) {
        let bytes = self.entry(key, 9);
        bytes.extend_from_slice(&5u32.to_le_bytes());
        bytes.extend_from_slice(&(values.len() as u64).to_le_bytes());
        for value in values {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

/// The tokenizer, whole and in llama.cpp's own form.
fn vocabulary(config: &Value, json: &str, entries: &mut Entries) -> Result<()> {
    let tokenizer = Tokenizer::from_bytes(json.as_bytes(), "the tokenizer to be written")?;
    entries.text("tokenizer.huggingface.json", json);
    let parsed: Value = serde_json::from_str(json).map_err(|e| unusable(&e.to_string()))?;
    let token = |name: &str| token_id(config, name);
    let model = &parsed["model"];
    let (Some(vocab), Some(merges)) = (model["vocab"].as_object(), model["merges"].as_array())
    else {
        return Ok(());
    };
    let byte_level = parsed["decoder"].to_string().contains("\"ByteLevel\"");
    if !byte_level {
        return Ok(());
    }
    let empty = tokenizer.encode("", true)?;
    let adds = |id: Option<u32>| id.is_some_and(|id| empty.contains(&id));
    let first = |id: Option<u32>| id.is_some() && empty.first().copied() == id;
    entries.flag("tokenizer.ggml.add_bos_token", first(token("bos")));
    let eos_too = adds(token("eos")) && (empty.len() > 1 || !first(token("bos")));
    entries.flag("tokenizer.ggml.add_eos_token", eos_too);
    entries.text("tokenizer.ggml.model", "gpt2");
    entries.text("tokenizer.ggml.pre", splitting(&parsed["pre_tokenizer"]));
    let size = size(config, "vocab_size")? as usize;
    let (tokens, kinds) = listed(vocab, &parsed["added_tokens"], size);
    entries.texts("tokenizer.ggml.tokens", tokens.iter().map(String::as_str));
    entries.i32s("tokenizer.ggml.token_type", &kinds);
    let merges: Vec<String> = merges
        .iter()
        .filter_map(|merge| match merge.as_array().map(Vec::as_slice) {
            Some([a, b]) => Some(format!("{} {}", a.as_str()?, b.as_str()?)),
            _ => merge.as_str().map(str::to_owned),
        })
        .collect();
    entries.texts("tokenizer.ggml.merges", merges.iter().map(String::as_str));
    Ok(())
}

/// A special token of the configuration; the first of several.
fn token_id(config: &Value, name: &str) -> Option<u32> {
    let id = &config[format!("{name}_token_id")];
    let id = id.as_array().and_then(|ids| ids.first()).unwrap_or(id);
    id.as_u64().and_then(|id| u32::try_from(id).ok())
}

/// llama.cpp's name for a way of cutting texts; `default` makes it warn, where nothing fits.
fn splitting(pre_tokenizer: &Value) -> &'static str {
    let text = pre_tokenizer.to_string();
    let has = |regex: &str| text.contains(&Value::from(regex).to_string());
    if has(LLAMA3_SPLIT) {
        "llama-bpe"
    } else if has(QWEN2_SPLIT) {
        "qwen2"
    } else if pre_tokenizer["type"] == "ByteLevel" && pre_tokenizer["use_regex"] != false {
        "gpt-2"
    } else {
        "default"
    }
}

/// Tokens by id and their kinds: 1 normal, 3 control, 4 user-defined, 5 for rows of the embedding without a token.
fn listed(
    vocab: &serde_json::Map<String, Value>,
    added: &Value,
    size: usize,
) -> (Vec<String>, Vec<i32>) {
    let mut tokens: Vec<String> = (0..size).map(|id| format!("[PAD{id}]")).collect();
    let mut kinds = vec![5; size];
    let mut put = |id: Option<u64>, token: &str, kind: i32| {
        let id = id.and_then(|id| usize::try_from(id).ok());
        if let Some(id) = id.filter(|id| *id < size) {
            token.clone_into(&mut tokens[id]);
            kinds[id] = kind;
        }
    };
    for (token, id) in vocab {
        put(id.as_u64(), token, 1);
    }
    for token in added.as_array().into_iter().flatten() {
        let kind = if token["special"] == true { 3 } else { 4 };
        put(
            token["id"].as_u64(),
            token["content"].as_str().unwrap_or_default(),
            kind,
        );
    }
    (tokens, kinds)
}

/// A tensor as it is written.
pub(super) struct Ready {
    pub(super) name: String,
    pub(super) tensor: Tensor,
    pub(super) dtype: GgmlDType,
}

impl Ready {
    fn size(&self) -> usize {
        self.tensor.elem_count() / self.dtype.block_size() * self.dtype.type_size()
    }
}

fn prepare(
    arch: Arch,
    config: &Value,
    tensors: &[(String, Tensor)],
    quant: GgufType,
) -> Result<Vec<Ready>> {
    let usually_tied = matches!(
        arch,
        Arch::Gpt2
            | Arch::Gemma
            | Arch::Gemma2
            | Arch::Gemma3
            | Arch::Bloom
            | Arch::Mamba
            | Arch::Lfm2
    );
    let tied = config["tie_word_embeddings"]
        .as_bool()
        .unwrap_or(usually_tied);
    let mut ready = Vec::with_capacity(tensors.len() + 2);
    for (hf, tensor) in tensors {
        if arch.is_buffer(hf) {
            continue;
        }
        let Some((name, change)) = arch.to_gguf(hf) else {
            return Err(unusable(&format!(
                "its tensor {} has no name in GGUF",
                scrub(hf)
            )));
        };
        if tied && name == "output.weight" {
            continue;
        }
        let tensor = changed(change, &name, tensor, config)?;
        let dtype = match tensor.dims() {
            [_, row] if !always_f32(&name) => quant.for_rows(*row),
            _ => GgmlDType::F32,
        };
        ready.push(Ready {
            name,
            tensor,
            dtype,
        });
    }
    let mut extra = |name: &str, factors: Vec<f32>| -> Result<()> {
        let len = factors.len();
        ready.push(Ready {
            name: name.into(),
            tensor: Tensor::from_vec(factors, len, &Device::Cpu)?,
            dtype: GgmlDType::F32,
        });
        Ok(())
    };
    let scaling = numbers::scaling(config);
    match numbers::rope_type(scaling) {
        Some("llama3") => {
            let head_dim = numbers::head_dim(config)? as usize;
            let Some(factors) = llama3_factors(scaling, numbers::theta(config), head_dim) else {
                return Err(unusable("its llama3 rotary scaling lacks a number"));
            };
            extra("rope_freqs.weight", factors)?;
        }
        Some("longrope" | "su") => {
            let pairs = numbers::rotated(config, numbers::head_dim(config)?)? / 2;
            for (name, field) in [
                ("rope_factors_long.weight", "long_factor"),
                ("rope_factors_short.weight", "short_factor"),
            ] {
                let listed = scaling[field].as_array().into_iter().flatten();
                let factors: Vec<f32> =
                    listed.filter_map(Value::as_f64).map(|f| f as f32).collect();
                if factors.len() != pairs as usize {
                    return Err(unusable(&format!(
                        "{field} of its rotary scaling is not one number for each of {pairs} pairs"
                    )));
                }
                extra(name, factors)?;
            }
        }
        _ => {}
    }
    Ok(ready)
}

/// Matrices that llama.cpp reads as f32 only.
fn always_f32(name: &str) -> bool {
    !name.ends_with(".weight")
        || name.ends_with("_norm.weight")
        || name.ends_with("ssm_conv1d.weight")
        || name.ends_with("shortconv.conv.weight")
        || name == "position_embd.weight"
}

/// A tensor as the converter changes it.
fn changed(change: Change, name: &str, tensor: &Tensor, config: &Value) -> Result<Tensor> {
    let wide = || tensor.to_dtype(DType::F32);
    let column = |t: Tensor| -> Result<Tensor> { Ok(t.flatten_all()?.unsqueeze(1)?) };
    Ok(match change {
        Change::None => tensor.clone(),
        Change::Transpose if tensor.rank() == 2 => tensor.transpose(D::Minus2, D::Minus1)?,
        Change::Transpose => tensor.clone(),
        Change::PermuteQueries | Change::PermuteKeys => {
            let head_dim = numbers::head_dim(config)? as usize;
            let heads = tensor.dim(0)?.checked_div(head_dim).unwrap_or(0);
            reordered(change, tensor, heads, 2)?
        }
        Change::QkvOfHeads => {
            let heads = numbers::heads(config)? as usize;
            reordered(change, tensor, heads, 3)?
        }
        Change::PlusOne => (wide()? + 1.0)?,
        Change::Negative => wide()?.exp()?.neg()?,
        Change::NegativeFlat => column(wide()?.exp()?.neg()?)?,
        Change::Flat if name.ends_with("ssm_norm.weight") => {
            let groups = numbers::size(config, "n_groups")? as usize;
            let width = tensor.elem_count();
            if groups == 0 || !width.is_multiple_of(groups) {
                return Err(unusable(&format!(
                    "{width} numbers of {} do not divide into {groups} groups",
                    scrub(name)
                )));
            }
            tensor.reshape((groups, width / groups))?
        }
        Change::Flat => column(tensor.clone())?,
        Change::Convolution if tensor.rank() == 3 => {
            let (channels, one, kernel) = tensor.dims3()?;
            tensor.reshape((channels, one * kernel))?
        }
        Change::Convolution => tensor.clone(),
    })
}

/// Rows in the order of the file, of `heads` heads in `each` equal parts.
fn reordered(change: Change, tensor: &Tensor, heads: usize, each: usize) -> Result<Tensor> {
    let rows = tensor.dim(0)?;
    if heads == 0 || !rows.is_multiple_of(each * heads) {
        return Err(unusable(&format!(
            "{rows} rows of queries or keys do not divide into {heads} heads of {each} equal parts"
        )));
    }
    let mut order = vec![0u32; rows];
    for row in 0..rows {
        order[change.stored_row(row, rows, heads)] = u32::try_from(row).unwrap_or(u32::MAX);
    }
    Ok(tensor.index_select(&Tensor::new(order, tensor.device())?, 0)?)
}

pub(super) enum Failure {
    Disk(std::io::Error),
    Tensor(candle_core::Error),
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        Self::Disk(e)
    }
}

impl From<candle_core::Error> for Failure {
    fn from(e: candle_core::Error) -> Self {
        Self::Tensor(e)
    }
}

pub(super) fn write(
    file: &mut impl Write,
    entries: &Entries,
    tensors: &[Ready],
) -> Result<(), Failure> {
    let mut header = b"GGUF".to_vec();
    header.extend_from_slice(&3u32.to_le_bytes());
    header.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    header.extend_from_slice(&entries.count.to_le_bytes());
    header.extend_from_slice(&entries.bytes);
    let mut offset = 0;
    for ready in tensors {
        put_text(&mut header, &ready.name);
        let dims = ready.tensor.dims();
        header.extend_from_slice(&(dims.len() as u32).to_le_bytes());
        for dim in dims.iter().rev() {
            header.extend_from_slice(&(*dim as u64).to_le_bytes());
        }
        header.extend_from_slice(&code(ready.dtype).to_le_bytes());
        header.extend_from_slice(&(offset as u64).to_le_bytes());
        offset += ready.size().next_multiple_of(ALIGNMENT);
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT), 0);
    file.write_all(&header)?;
    for ready in tensors {
        let tensor = ready.tensor.to_dtype(DType::F32)?.contiguous()?;
        let bytes = QTensor::quantize(&tensor.to_device(&Device::Cpu)?, ready.dtype)?;
        let mut bytes = bytes.data()?.into_owned();
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        file.write_all(&bytes)?;
    }
    Ok(())
}

/// ggml's number of a type that is written.
fn code(dtype: GgmlDType) -> u32 {
    (0..64)
        .find(|code| super::header::dtype(*code) == Some(dtype))
        .unwrap_or_default()
}
