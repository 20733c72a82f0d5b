//! Control vectors in PyTorch's files (`torch.save`): a zip with a pickle and the tensors' numbers. Nothing in it is run.
//!
//! Read are a tensor `[d_model]` (for all layers) or `[blocks, d_model]`, a list of tensors or of lists (layer 1, 2, …), and
//! a dictionary of them by block: 3, "3" or "direction.3", from 0. A plain list that is named twice is refused: save a copy.

use super::file::{MAX_BYTES, Numbers, Opened, assemble, refuse};
use super::pickle::{self, Kind, Value};
use super::vector::{MAX_LAYERS, MAX_WIDTH};
use crate::error::{Error, Result};
use half::{bf16, f16};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use zip::ZipArchive;

/// Largest pickle; one of a thousand tensors takes 200 kB, lists of numbers 9 bytes each.
const MAX_PICKLE: u64 = 16 << 20;
/// Most files in the zip.
const MAX_ENTRIES: usize = 4 * MAX_LAYERS;

/// Read a file.
pub(super) fn open(path: &Path) -> Result<Opened> {
    let file = File::open(path).map_err(|e| Error::read(path, &e))?;
    let damaged = |e: zip::result::ZipError| {
        refuse(
            path,
            format!(
                "is no file of PyTorch 1.6 or later: {}",
                crate::text::one_line(&e.to_string())
            ),
        )
    };
    let mut zip = ZipArchive::new(BufReader::new(file)).map_err(damaged)?;
    if zip.len() > MAX_ENTRIES {
        return Err(refuse(path, format!("has {} parts", zip.len())));
    }
    let name = zip
        .file_names()
        .filter_map(|name| name.ok())
        .find(|name| *name == "data.pkl" || name.ends_with("/data.pkl"))
        .map(|name| name.into_owned())
        .ok_or_else(|| refuse(path, "has no data.pkl"))?;
    let folder = name.strip_suffix(".pkl").unwrap_or_default().to_owned();
    let pickle = entry(&mut zip, &name, 0, MAX_PICKLE, true).map_err(|p| refuse(path, p))?;
    let value = pickle::read(&pickle).map_err(|p| refuse(path, format!("its pickle {p}")))?;
    let mut reader = Reader {
        zip,
        folder,
        left: MAX_BYTES,
    };
    let named = reader.named(&value).map_err(|p| refuse(path, p))?;
    assemble(path, named)
}

/// `len` bytes from `skip` on of a part of the zip, or, where it may be `shorter`, what there is.
fn entry(
    zip: &mut ZipArchive<BufReader<File>>,
    name: &str,
    skip: u64,
    len: u64,
    shorter: bool,
) -> Result<Vec<u8>, String> {
    let shown = crate::text::one_line(name);
    let mut part = zip.by_name(name).map_err(|e| {
        format!(
            "its part {shown} cannot be read: {}",
            crate::text::one_line(&e.to_string())
        )
    })?;
    let failed = |e: std::io::Error| format!("its part {shown} cannot be read: {e}");
    std::io::copy(&mut part.by_ref().take(skip), &mut std::io::sink()).map_err(failed)?;
    let mut bytes = Vec::new();
    let most = if shorter { len + 1 } else { len };
    part.take(most).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 {
        n if n > len => Err(format!("its part {shown} is larger than {} MB", len >> 20)),
        n if n < len && !shorter => Err(format!("its part {shown} is too short")),
        _ => Ok(bytes),
    }
}

struct Reader {
    zip: ZipArchive<BufReader<File>>,
    /// Where the numbers lie, without the last `/`.
    folder: String,
    /// Bytes that may still be read.
    left: usize,
}

impl Reader {
    /// Directions by the names that [`assemble`] knows.
    fn named(&mut self, value: &Value) -> Result<Vec<(String, Numbers)>, String> {
        let block = |block: usize| format!("direction.{block}");
        if let Some(entries) = value.items(Kind::Dict) {
            let mut named = Vec::new();
            for pair in entries.chunks_exact(2) {
                let name = match (pair[0].int(), pair[0].text()) {
                    (Some(n), _) => format!("direction.{n}"),
                    (None, Some(text)) if text.parse::<usize>().is_ok() => {
                        format!("direction.{text}")
                    }
                    (None, Some(text)) => text.to_owned(),
                    _ => return Err("has an entry that is no block and no name".into()),
                };
                let row = self.row(&pair[1])?;
                let row = row.ok_or_else(|| {
                    format!("its entry {} is no tensor", crate::text::one_line(&name))
                })?;
                named.push((name, row));
            }
            return Ok(named);
        }
        if let Some((shape, numbers)) = self.row(value)? {
            let &[rows, width] = shape.as_slice() else {
                return Ok(vec![("direction".into(), (shape, numbers))]);
            };
            if rows > MAX_LAYERS || width == 0 {
                return Err(format!("has a tensor of the shape {shape:?}"));
            }
            let rows = numbers.chunks_exact(width).enumerate();
            return Ok(rows
                .map(|(i, row)| (block(i), (vec![width], row.to_vec())))
                .collect());
        }
        let Some(items) = value.items(Kind::List) else {
            return Err("holds no tensor, no list and no dictionary of them".into());
        };
        if items.len() > MAX_LAYERS {
            return Err(format!("has {} entries", items.len()));
        }
        let row = |(i, item)| {
            let row = self.row(item)?;
            Ok((block(i), row.ok_or("has an entry that is no tensor")?))
        };
        items.iter().enumerate().map(row).collect()
    }

    /// A tensor or a list of numbers; `None` if it is neither.
    fn row(&mut self, value: &Value) -> Result<Option<Numbers>, String> {
        if let Some(call) = value.items(Kind::Call) {
            let [callee, arguments] = call else {
                return Ok(None);
            };
            let arguments = arguments.items(Kind::List).unwrap_or_default();
            return match callee.class() {
                Some("torch._utils._rebuild_tensor_v2") => self.tensor(arguments).map(Some),
                Some("torch._utils._rebuild_parameter") => match arguments.first() {
                    // A parameter is a tensor; one of a parameter does not exist.
                    Some(tensor) if !is_parameter(tensor) => self.row(tensor),
                    _ => Ok(None),
                },
                _ => Ok(None),
            };
        }
        let Some(list) = value.items(Kind::List) else {
            return Ok(None);
        };
        let number = |value: &Value| match value {
            Value::Int(n) => Some(*n as f32),
            Value::Real(x) => Some(*x as f32),
            _ => None,
        };
        let numbers: Option<Vec<f32>> = list.iter().map(number).collect();
        Ok(numbers
            .filter(|n| !n.is_empty())
            .map(|n| (vec![n.len()], n)))
    }

    /// `_rebuild_tensor_v2(storage, offset, size, stride, …)`.
    fn tensor(&mut self, arguments: &[Value]) -> Result<Numbers, String> {
        let odd = || "has a tensor that is not described as PyTorch does".to_owned();
        let [storage, offset, size, stride, ..] = arguments else {
            return Err(odd());
        };
        let whole = |value: &Value| value.int().and_then(|n| usize::try_from(n).ok());
        let list = |value: &Value| -> Option<Vec<usize>> {
            value.items(Kind::List)?.iter().map(whole).collect()
        };
        let (Some(offset), Some(shape), Some(stride)) = (whole(offset), list(size), list(stride))
        else {
            return Err(odd());
        };
        let described = storage
            .items(Kind::Stored)
            .and_then(|s| s.first()?.items(Kind::List));
        let Some([_, class, key, ..]) = described else {
            return Err(odd());
        };
        let (Some(class), Some(key)) = (class.class(), key.text()) else {
            return Err(odd());
        };
        // Both fit in memory: the shape is checked before a byte is read.
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let count = count.filter(|n| *n <= MAX_WIDTH * MAX_LAYERS);
        let count = count.ok_or_else(|| format!("has a tensor of the shape {shape:?}"))?;
        let mut expected = 1usize;
        for (size, stride) in shape.iter().zip(&stride).rev() {
            if *size != 1 && *stride != expected {
                return Err(
                    "has a tensor whose numbers do not lie in a row; save it with .contiguous()"
                        .into(),
                );
            }
            expected = expected.saturating_mul(*size);
        }
        let (each, read): (usize, fn(&[u8]) -> f32) = match class {
            "torch.FloatStorage" => (4, |b| b.try_into().map_or(f32::NAN, f32::from_le_bytes)),
            "torch.DoubleStorage" => (8, |b| {
                b.try_into()
                    .map_or(f32::NAN, |b| f64::from_le_bytes(b) as f32)
            }),
            "torch.HalfStorage" => (2, |b| {
                b.try_into()
                    .map_or(f32::NAN, |b| f16::from_le_bytes(b).to_f32())
            }),
            "torch.BFloat16Storage" => (2, |b| {
                b.try_into()
                    .map_or(f32::NAN, |b| bf16::from_le_bytes(b).to_f32())
            }),
            other => {
                return Err(format!(
                    "has numbers of the kind {}",
                    crate::text::one_line(other)
                ));
            }
        };
        let bytes = count * each;
        self.left = self
            .left
            .checked_sub(bytes)
            .ok_or("holds more than a control vector can")?;
        let skip = (offset as u64).checked_mul(each as u64).ok_or_else(odd)?;
        let name = format!("{}/{key}", self.folder);
        let bytes = entry(&mut self.zip, &name, skip, bytes as u64, false)?;
        Ok((shape, bytes.chunks_exact(each).map(read).collect()))
    }
}

fn is_parameter(value: &Value) -> bool {
    let callee = value.items(Kind::Call).and_then(<[Value]>::first);
    callee.and_then(Value::class) == Some("torch._utils._rebuild_parameter")
}
