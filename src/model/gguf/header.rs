//! The header of a GGUF file: metadata and the list of tensors, every number checked against the file's own length.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little-endian. Nothing is
//! reserved by a count from the file; the lists grow by what is really there.

use candle_core::quantized::GgmlDType;
use std::collections::BTreeMap;
use std::ops::Range;

/// Most tensors, and most metadata entries, that are read.
const MAX_ENTRIES: u64 = 1 << 17;
/// Longest metadata array that is kept (a vocabulary, its scores, its merges).
const MAX_ELEMENTS: u64 = 1 << 22;
const MAX_DIMS: u32 = 4;
const MAX_NESTING: usize = 4;
const DEFAULT_ALIGNMENT: u64 = 32;

/// A metadata value. Integers of all widths are one, and so are reals.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Int(i128),
    Real(f64),
    Flag(bool),
    Text(String),
    Ints(Vec<i64>),
    Reals(Vec<f32>),
    Texts(Vec<String>),
    Flags(Vec<bool>),
    /// An array of arrays: walked over, not kept.
    Skipped,
}

/// One tensor of the list.
#[derive(Clone, Debug)]
pub(super) struct Info {
    /// Outermost dimension first, as in Hugging Face's files (GGUF has them the other way round).
    pub shape: Vec<usize>,
    /// The numeric code of the type, for messages.
    pub code: u32,
    /// The type and place in the file; `None` for types that are not read.
    pub data: Option<(GgmlDType, Range<usize>)>,
}

/// A checked header.
#[derive(Debug)]
pub(super) struct Header {
    pub metadata: BTreeMap<String, Value>,
    pub tensors: BTreeMap<String, Info>,
}

impl Header {
    /// Read and check the header of a whole file.
    ///
    /// # Errors
    /// A problem in words, without a full stop.
    pub(super) fn read(file: &[u8]) -> Result<Self, String> {
        let mut cursor = Cursor {
            file,
            at: 0,
            reading: "the first bytes".to_owned(),
        };
        if cursor.take(4)? != b"GGUF" {
            return Err("is no GGUF file: its first bytes are not \"GGUF\"".into());
        }
        match cursor.u32()? {
            2 | 3 => {}
            v if v.swap_bytes() <= 3 => {
                return Err("is a big-endian GGUF file, which is not read".into());
            }
            v => return Err(format!("is of GGUF version {v}, and only 2 and 3 are read")),
        }
        let tensor_count = cursor.count("tensors", 24)?;
        let entry_count = cursor.count("metadata entries", 13)?;
        let mut metadata = BTreeMap::new();
        for _ in 0..entry_count {
            cursor.reading = "the name of a metadata entry".into();
            let key = cursor.text()?;
            cursor.reading = format!("metadata {key}");
            let kind = cursor.u32()?;
            let value = cursor.value(kind, 0)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(format!("has metadata {key} twice"));
            }
        }
        let mut listed = Vec::new();
        for _ in 0..tensor_count {
            listed.push(cursor.tensor()?);
        }
        let data = data_start(&metadata, cursor.at as u64)?;
        let mut tensors = BTreeMap::new();
        for (name, shape, code, offset) in listed {
            let info = Info {
                data: place(&name, &shape, code, data, offset, file.len() as u64)?,
                shape,
                code,
            };
            if tensors.insert(name.clone(), info).is_some() {
                return Err(format!("has tensor {name} twice"));
            }
        }
        Ok(Self { metadata, tensors })
    }
}

/// Where the tensors' data begins: the next multiple of the alignment.
fn data_start(metadata: &BTreeMap<String, Value>, header_end: u64) -> Result<u64, String> {
    let alignment = match metadata.get("general.alignment") {
        None => DEFAULT_ALIGNMENT,
        Some(Value::Int(n)) => u64::try_from(*n)
            .ok()
            .filter(|n| n.is_power_of_two() && *n <= 1 << 20)
            .ok_or_else(|| format!("has an alignment of {n}, which is no small power of two"))?,
        Some(_) => return Err("has an alignment that is no number".into()),
    };
    Ok(header_end.div_ceil(alignment) * alignment)
}

/// Type and place of a tensor, if its type is one that is read.
fn place(
    name: &str,
    shape: &[usize],
    code: u32,
    data: u64,
    offset: u64,
    file: u64,
) -> Result<Option<(GgmlDType, Range<usize>)>, String> {
    let Some(dtype) = dtype(code) else {
        return Ok(None);
    };
    let block = dtype.block_size();
    let row = shape.last().copied().unwrap_or(1);
    if row % block != 0 {
        return Err(format!(
            "tensor {name} has rows of {row} numbers, which blocks of {block} do not divide"
        ));
    }
    let absurd = || format!("tensor {name} has an impossible shape {shape:?}");
    let elements = shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .ok_or_else(absurd)?;
    let size = (elements / block)
        .checked_mul(dtype.type_size())
        .ok_or_else(absurd)? as u64;
    let start = data
        .checked_add(offset)
        .ok_or_else(|| format!("tensor {name} begins at an impossible place"))?;
    let end = start.checked_add(size).ok_or_else(absurd)?;
    if end > file {
        return Err(format!(
            "tensor {name} ends at byte {end}, but the file has {file}"
        ));
    }
    match (usize::try_from(start), usize::try_from(end)) {
        (Ok(start), Ok(end)) => Ok(Some((dtype, start..end))),
        _ => Err(absurd()),
    }
}

/// The types that candle reads, by ggml's numbers.
pub(super) fn dtype(code: u32) -> Option<GgmlDType> {
    Some(match code {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        9 => GgmlDType::Q8_1,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        15 => GgmlDType::Q8K,
        30 => GgmlDType::BF16,
        _ => return None,
    })
}

/// Reads forward through the file, never beyond its end.
struct Cursor<'a> {
    file: &'a [u8],
    at: usize,
    /// What is being read, for messages.
    reading: String,
}

impl<'a> Cursor<'a> {
    fn left(&self) -> u64 {
        (self.file.len() - self.at) as u64
    }

    fn take(&mut self, n: u64) -> Result<&'a [u8], String> {
        let bytes = usize::try_from(n)
            .ok()
            .and_then(|n| self.file[self.at..].get(..n))
            .ok_or_else(|| {
                format!(
                    "ends within {}: {n} bytes are due at byte {}, and {} are left",
                    self.reading,
                    self.at,
                    self.left()
                )
            })?;
        self.at += bytes.len();
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.take(N as u64)?;
        bytes
            .first_chunk::<N>()
            .copied()
            .ok_or_else(|| format!("ends within {}", self.reading))
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<String, String> {
        let len = self.u64()?;
        Ok(String::from_utf8_lossy(self.take(len)?).into_owned())
    }

    /// A number of things of at least `least` bytes each.
    fn count(&mut self, what: &str, least: u64) -> Result<u64, String> {
        let count = self.u64()?;
        if count > MAX_ENTRIES || count.saturating_mul(least) > self.left() {
            return Err(format!(
                "claims to have {count} {what}, more than its {} bytes can hold",
                self.file.len()
            ));
        }
        Ok(count)
    }

    fn tensor(&mut self) -> Result<(String, Vec<usize>, u32, u64), String> {
        self.reading = "the name of a tensor".into();
        let name = self.text()?;
        self.reading = format!("tensor {name}");
        let dims = self.u32()?;
        if dims > MAX_DIMS {
            return Err(format!(
                "tensor {name} has {dims} dimensions, more than {MAX_DIMS}"
            ));
        }
        let mut shape = Vec::new();
        for _ in 0..dims {
            let dim = self.u64()?;
            shape.push(
                usize::try_from(dim)
                    .map_err(|_| format!("tensor {name} has a dimension of {dim}"))?,
            );
        }
        shape.reverse();
        let code = self.u32()?;
        Ok((name, shape, code, self.u64()?))
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value, String> {
        Ok(match kind {
            6 => Value::Real(widen(f32::from_le_bytes(self.array()?))),
            7 => Value::Flag(self.array::<1>()? != [0]),
            8 => Value::Text(self.text()?),
            9 => {
                let kind = self.u32()?;
                let count = self.u64()?;
                self.elements(kind, count, depth)?
            }
            12 => Value::Real(f64::from_le_bytes(self.array()?)),
            _ => Value::Int(self.int(kind)?),
        })
    }

    fn int(&mut self, kind: u32) -> Result<i128, String> {
        Ok(match kind {
            0 => u8::from_le_bytes(self.array()?).into(),
            1 => i8::from_le_bytes(self.array()?).into(),
            2 => u16::from_le_bytes(self.array()?).into(),
            3 => i16::from_le_bytes(self.array()?).into(),
            4 => u32::from_le_bytes(self.array()?).into(),
            5 => i32::from_le_bytes(self.array()?).into(),
            10 => u64::from_le_bytes(self.array()?).into(),
            11 => i64::from_le_bytes(self.array()?).into(),
            _ => return Err(format!("{} has the unknown type {kind}", self.reading)),
        })
    }

    fn elements(&mut self, kind: u32, count: u64, depth: usize) -> Result<Value, String> {
        let least = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 12,
            _ => {
                return Err(format!(
                    "{} is an array of the unknown type {kind}",
                    self.reading
                ));
            }
        };
        if count > MAX_ELEMENTS || count.saturating_mul(least) > self.left() {
            return Err(format!(
                "{} claims {count} elements, more than the file can hold",
                self.reading
            ));
        }
        let mut texts = Vec::new();
        let mut reals = Vec::new();
        let mut ints = Vec::new();
        let mut flags = Vec::new();
        for _ in 0..count {
            match kind {
                6 => reals.push(f32::from_le_bytes(self.array()?)),
                7 => flags.push(self.array::<1>()? != [0]),
                8 => texts.push(self.text()?),
                9 if depth < MAX_NESTING => {
                    let kind = self.u32()?;
                    let count = self.u64()?;
                    self.elements(kind, count, depth + 1)?;
                }
                9 => return Err(format!("{} is nested too deeply", self.reading)),
                12 => reals.push(f64::from_le_bytes(self.array()?) as f32),
                _ => ints.push(i64::try_from(self.int(kind)?).unwrap_or(i64::MAX)),
            }
        }
        Ok(match kind {
            6 | 12 => Value::Reals(reals),
            8 => Value::Texts(texts),
            7 => Value::Flags(flags),
            9 => Value::Skipped,
            _ => Value::Ints(ints),
        })
    }
}

/// The f64 with the same shortest decimal: an epsilon stored as f32 1e-5 is 1e-5 again, as in `config.json`.
pub(super) fn widen(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| value.into())
}
