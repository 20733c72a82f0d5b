//! Checkpoints of the Hugging Face layout: `model.safetensors`, or shards with an index.
//!
//! The format is a little-endian length, a JSON header with each tensor's type, shape and place, then the numbers. The
//! header is checked by the `safetensors` crate (no gaps, no overlaps, sizes that match the shapes); this file adds the
//! shards, and the sentences for users. Numbers of 16 bits stay so; others become f32.

use super::raw::{Bytes, missing, widen, write_whole};
use super::weights::{Stored, TensorSource};
use crate::error::{Error, Result};
use crate::text::scrub;
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata};
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
/// Largest header that is read; the format itself sets this limit.
const MAX_HEADER: u64 = 100_000_000;
/// Largest shard index that is read.
const MAX_INDEX: u64 = 64 << 20;
const MAX_SHARDS: usize = 4096;

/// The tensors of one `safetensors` checkpoint. See [`TensorSource`].
pub struct Safetensors {
    origin: PathBuf,
    shards: Vec<Bytes>,
    tensors: BTreeMap<String, Entry>,
}

struct Entry {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

impl Safetensors {
    /// Open the weights in a model folder, one file or shards.
    ///
    /// # Errors
    /// If there are none, a shard is missing, or a header is damaged; the sentence names the file.
    pub fn open_folder(folder: &Path) -> Result<Self> {
        let single = folder.join(SINGLE);
        if single.is_file() {
            return Self::open_file(&single);
        }
        let index = folder.join(INDEX);
        if index.is_file() {
            return Self::open_shards(folder, &index);
        }
        let remedy = if folder.join("pytorch_model.bin").exists() {
            "It only has pytorch_model.bin, which is not read: convert it with \
             `model.save_pretrained(folder, safe_serialization=True)`."
        } else {
            "Give a folder that a model was saved or downloaded to."
        };
        Err(Error::file(
            folder,
            format!("has no {SINGLE} and no {INDEX}"),
            remedy,
        ))
    }

    /// Open a single `.safetensors` file.
    ///
    /// # Errors
    /// If it cannot be read or its header is damaged.
    pub fn open_file(path: &Path) -> Result<Self> {
        Self::from_shards(path, vec![Bytes::open(path)?])
    }

    /// From the bytes of a single file; `name` stands for it in messages.
    ///
    /// # Errors
    /// If the header is damaged.
    pub fn from_bytes(bytes: Vec<u8>, name: &str) -> Result<Self> {
        let name = PathBuf::from(name);
        Self::from_shards(&name.clone(), vec![Bytes::Owned { bytes, name }])
    }

    fn open_shards(folder: &Path, index: &Path) -> Result<Self> {
        let map = weight_map(index)?;
        let mut files: Vec<&str> = map.values().map(String::as_str).collect();
        files.sort_unstable();
        files.dedup();
        if files.len() > MAX_SHARDS {
            return Err(Error::file(
                index,
                format!("names {} shards, more than {MAX_SHARDS}", files.len()),
                "Fetch the model again.",
            ));
        }
        let mut shards = Vec::with_capacity(files.len());
        for file in &files {
            if !is_plain_name(file) {
                return Err(Error::file(
                    index,
                    format!(
                        "names the shard {}, which is not a plain file name",
                        scrub(file)
                    ),
                    "Do not trust this model; fetch it from its publisher.",
                ));
            }
            let path = folder.join(file);
            if !path.is_file() {
                return Err(Error::file(
                    &path,
                    format!("is missing: it is one of {} shards", files.len()),
                    "Fetch the model again.",
                ));
            }
            shards.push(Bytes::open(&path)?);
        }
        let source = Self::from_shards(folder, shards)?;
        for (name, file) in &map {
            if !source.tensors.contains_key(name) {
                return Err(Error::file(
                    folder.join(file),
                    format!("has no tensor {}, which the index promises", scrub(name)),
                    "The shards belong to different versions: fetch the model again.",
                ));
            }
        }
        Ok(source)
    }

    fn from_shards(origin: &Path, shards: Vec<Bytes>) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for (shard, bytes) in shards.iter().enumerate() {
            let (start, header) = read_header(bytes)?;
            for (name, info) in header.tensors() {
                let (from, to) = info.data_offsets;
                let entry = Entry {
                    shard,
                    dtype: info.dtype,
                    shape: info.shape.clone(),
                    range: start + from..start + to,
                };
                if tensors.insert(name.clone(), entry).is_some() {
                    return Err(Error::file(
                        bytes.path(),
                        format!("repeats tensor {} of another shard", scrub(&name)),
                        "Fetch the model again.",
                    ));
                }
            }
        }
        Ok(Self {
            origin: origin.to_path_buf(),
            shards,
            tensors,
        })
    }

    /// The files, in the order of their names.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.shards.iter().map(|s| s.path().to_path_buf()).collect()
    }

    /// Bytes of all tensors as stored.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tensors.values().map(|t| t.range.len() as u64).sum()
    }

    /// The type that holds most of the weights: `f32`, `bf16`, …
    #[must_use]
    pub fn dtype(&self) -> String {
        let mut bytes: BTreeMap<String, usize> = BTreeMap::new();
        for tensor in self.tensors.values() {
            *bytes.entry(dtype_name(tensor.dtype)).or_default() += tensor.range.len();
        }
        bytes
            .into_iter()
            .max_by_key(|(_, bytes)| *bytes)
            .map_or_else(|| "f32".to_owned(), |(name, _)| name)
    }
}

impl TensorSource for Safetensors {
    /// Names of the tensors of real numbers; integer buffers such as masks are left out, but [`Self::load`] reads them.
    fn names(&self) -> Vec<String> {
        self.tensors
            .iter()
            .filter(|(_, t)| is_float(t.dtype))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|t| t.shape.clone())
    }

    fn bytes_of(&self, name: &str) -> Option<u64> {
        let entry = self.tensors.get(name)?;
        let numbers: usize = entry.shape.iter().product();
        let each = match entry.dtype {
            Dtype::F16 | Dtype::BF16 => 2,
            _ => 4,
        };
        Some((numbers * each) as u64)
    }

    fn load(&self, name: &str) -> Result<Stored> {
        let Some(entry) = self.tensors.get(name) else {
            let names = self.tensors.keys().map(String::as_str);
            return Err(missing(&self.origin, name, names));
        };
        let file = &self.shards[entry.shard];
        let bytes = file.get(entry.range.clone(), name)?;
        let shape = entry.shape.as_slice();
        let half = |t: candle_core::Result<Tensor>| Ok(Stored::Float(t?));
        let numbers = match entry.dtype {
            Dtype::F16 => {
                let numbers = widen(bytes, f16::from_le_bytes);
                return half(Tensor::from_vec(numbers, shape, &Device::Cpu));
            }
            Dtype::BF16 => {
                let numbers = widen(bytes, bf16::from_le_bytes);
                return half(Tensor::from_vec(numbers, shape, &Device::Cpu));
            }
            Dtype::F32 => widen(bytes, f32::from_le_bytes),
            Dtype::F64 => widen(bytes, |b| f64::from_le_bytes(b) as f32),
            Dtype::U8 | Dtype::BOOL => widen(bytes, |[b]| f32::from(b)),
            Dtype::I32 => widen(bytes, |b| i32::from_le_bytes(b) as f32),
            Dtype::I64 => widen(bytes, |b| i64::from_le_bytes(b) as f32),
            other => {
                return Err(Error::file(
                    file.path(),
                    format!(
                        "tensor {} holds {} numbers, which are not supported",
                        scrub(name),
                        dtype_name(other)
                    ),
                    "Use a version of the model in f32, f16 or bf16, or a GGUF file.",
                ));
            }
        };
        Ok(Stored::Float(Tensor::from_vec(
            numbers,
            shape,
            &Device::Cpu,
        )?))
    }

    fn origin(&self) -> String {
        crate::text::path(&self.origin)
    }
}

/// Write tensors into one `safetensors` file, complete or not at all.
///
/// # Errors
/// If the folder cannot be written, or a tensor's type has no place in the format.
pub fn write_safetensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let sorted: BTreeMap<&str, &Tensor> = tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let bytes = safetensors::serialize(sorted, None).map_err(|e| {
        Error::file(
            path,
            format!("cannot be written: {e}"),
            "Report this as a bug.",
        )
    })?;
    write_whole(path, |file| {
        file.write_all(&bytes).map_err(|e| Error::write(path, &e))
    })
}

/// Where the numbers start, and the checked header.
fn read_header(bytes: &Bytes) -> Result<(usize, Metadata)> {
    let all = bytes.all();
    let damaged = |problem: String| {
        Error::file(
            bytes.path(),
            problem,
            "The file is truncated or damaged: fetch it again.",
        )
    };
    let Some((length, rest)) = all.split_first_chunk::<8>() else {
        return Err(damaged(format!(
            "has {} bytes, too few for a safetensors file",
            all.len()
        )));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER {
        return Err(damaged(format!(
            "is no safetensors file: its header would take {length} bytes, more than {MAX_HEADER}"
        )));
    }
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let Some(header) = rest.get(..length) else {
        return Err(damaged(format!(
            "is too short: its header alone takes {length} bytes, but the file has {}",
            all.len()
        )));
    };
    let metadata: Metadata = serde_json::from_slice(header)
        .map_err(|e| damaged(format!("its header is damaged: {}", scrub(&e.to_string()))))?;
    // `Metadata` is only ever built from offsets without gaps, whose sizes match shape and type.
    let expected = metadata.data_len();
    let found = rest.len() - length;
    if expected != found {
        return Err(damaged(format!(
            "its header promises {expected} bytes of numbers, but {found} follow"
        )));
    }
    Ok((8 + length, metadata))
}

/// The index's map from tensor to shard.
fn weight_map(index: &Path) -> Result<HashMap<String, String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let text = read_capped(index, MAX_INDEX)?;
    let parsed: Index = serde_json::from_slice(&text).map_err(|e| {
        Error::file(
            index,
            format!("is no shard index: {}", scrub(&e.to_string())),
            "Fetch the model again.",
        )
    })?;
    Ok(parsed.weight_map)
}

/// Read a small file, refusing one that is larger than `cap` bytes.
pub(super) fn read_capped(path: &Path, cap: u64) -> Result<Vec<u8>> {
    let failed = |e| Error::read(path, &e);
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(cap + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > cap {
        return Err(Error::file(
            path,
            format!("is larger than {} MB", cap >> 20),
            "This cannot be the right file: fetch the model again.",
        ));
    }
    Ok(bytes)
}

/// Whether a name stays inside its folder: one ordinary component.
pub(super) fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
        && !name.contains(['/', '\\', ':', '\0'])
}

fn is_float(dtype: Dtype) -> bool {
    matches!(
        dtype,
        Dtype::F32
            | Dtype::F16
            | Dtype::BF16
            | Dtype::F64
            | Dtype::F8_E4M3
            | Dtype::F8_E5M2
            | Dtype::F8_E8M0
            | Dtype::F8_E4M3FNUZ
            | Dtype::F8_E5M2FNUZ
            | Dtype::F4
            | Dtype::F6_E2M3
            | Dtype::F6_E3M2
    )
}

fn dtype_name(dtype: Dtype) -> String {
    format!("{dtype:?}").to_lowercase()
}

#[cfg(test)]
mod tests;
