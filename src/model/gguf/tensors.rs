//! Tensors out of the file, with what the converter changed changed back.

use super::header::Info;
use super::names::Change;
use super::{Gguf, Stored, TensorSource};
use crate::error::{Error, Result};
use crate::model::blocks::BlockFormat;
use crate::model::linear::{Linear, blocks, transposed};
use crate::model::raw::{missing, widen};
use crate::text::scrub;
use candle_core::quantized::GgmlDType;
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use std::borrow::Cow;
use std::sync::Arc;

impl TensorSource for Gguf {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let (gguf, change) = self.tensors.get(name)?;
        Some(change.shape(&self.header.tensors.get(gguf)?.shape))
    }

    fn bytes_of(&self, name: &str) -> Option<u64> {
        let (gguf, _) = self.tensors.get(name)?;
        let info = self.header.tensors.get(gguf)?;
        let (dtype, range) = info.data.clone()?;
        let kept = BlockFormat::of(dtype).is_some() || dtype.block_size() == 1;
        let numbers: usize = info.shape.iter().product();
        // Formats without a kernel are widened.
        Some(if kept { range.len() } else { 4 * numbers } as u64)
    }

    fn load(&self, name: &str) -> Result<Stored> {
        let (info, change) = self.find(name)?;
        let stored = self.stored(name, info, change)?;
        let values = match change {
            Change::Transpose if info.shape.len() == 2 => return Ok(transposed(&stored)?),
            Change::PlusOne => (Linear::table(&stored)? - 1.0)?,
            Change::Negative | Change::NegativeFlat => {
                self.logarithm(name, &Linear::table(&stored)?)?
            }
            Change::Convolution | Change::Flat => Linear::table(&stored)?,
            _ => return Ok(stored),
        };
        let shape = change.shape(&info.shape);
        Ok(Stored::Float(values.reshape(shape)?))
    }

    fn load_transposed(&self, name: &str) -> Result<Stored> {
        let (info, change) = self.find(name)?;
        match change {
            // The converter had it transposed already.
            Change::Transpose => self.stored(name, info, change),
            _ => Ok(transposed(&self.load(name)?)?),
        }
    }

    fn origin(&self) -> String {
        crate::text::path(self.path())
    }
}

impl Gguf {
    fn find(&self, name: &str) -> Result<(&Info, Change)> {
        let found = self.tensors.get(name);
        found
            .and_then(|(gguf, change)| Some((self.header.tensors.get(gguf)?, *change)))
            .ok_or_else(|| {
                let names = self.tensors.keys().map(String::as_str);
                missing(self.path(), name, names)
            })
    }

    /// The tensor as it is in the file, but for rows that were moved.
    fn stored(&self, name: &str, info: &Info, change: Change) -> Result<Stored> {
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
        let bytes = if change.moves_rows() {
            Cow::Owned(self.in_order(name, bytes, info, dtype, change)?)
        } else {
            Cow::Borrowed(bytes)
        };
        Ok(match floats(&bytes, dtype, &info.shape)? {
            Some(tensor) => Stored::Float(tensor),
            None => Stored::Quantised(Arc::new(blocks(&bytes, dtype, &info.shape)?)),
        })
    }

    /// Whole rows, quantised or not, in Hugging Face's order.
    fn in_order(
        &self,
        name: &str,
        bytes: &[u8],
        info: &Info,
        dtype: GgmlDType,
        change: Change,
    ) -> Result<Vec<u8>> {
        let damaged = |problem: String| {
            let remedy = "The file is damaged: fetch it again.";
            Error::file(self.path(), problem, remedy)
        };
        // Rows are moved whole, so there must be whole rows.
        let rows = match info.shape.as_slice() {
            [rows, _] => *rows,
            [rows] if dtype.block_size() == 1 => *rows,
            _ => 0,
        };
        if rows == 0 || !bytes.len().is_multiple_of(rows) {
            return Err(damaged(format!("tensor {} has no whole rows", scrub(name))));
        }
        let integer = |key: &str| self.integer(&format!("{}.{key}", self.arch.name()));
        let queries = integer("attention.head_count");
        let (heads, each) = match change {
            Change::PermuteKeys => (integer("attention.head_count_kv").or(queries), 2),
            Change::QkvOfHeads => (queries, 3),
            _ => (queries, 2),
        };
        let heads = heads.and_then(|heads| usize::try_from(heads).ok());
        let fits = |heads: &usize| {
            let least = heads.checked_mul(each);
            least.is_some_and(|least| least > 0 && rows.is_multiple_of(least))
        };
        let Some(heads) = heads.filter(fits) else {
            return Err(damaged(format!(
                "tensor {} has {rows} rows, which do not divide into {} heads of {each} equal parts",
                scrub(name),
                heads.unwrap_or(0)
            )));
        };
        let row = bytes.len() / rows;
        let mut out = Vec::with_capacity(bytes.len());
        for to in 0..rows {
            let from = change.stored_row(to, rows, heads) * row;
            out.extend_from_slice(&bytes[from..from + row]);
        }
        Ok(out)
    }

    /// `A_log` of A = −e^A_log.
    fn logarithm(&self, name: &str, a: &Tensor) -> Result<Tensor> {
        let a: Vec<f32> = a.flatten_all()?.to_vec1()?;
        if a.iter().any(|a| !(a.is_finite() && *a < 0.0)) {
            return Err(Error::file(
                self.path(),
                format!(
                    "tensor {} is the logarithm of numbers that are not all negative",
                    scrub(name)
                ),
                "The file is damaged: fetch it again.",
            ));
        }
        let logs: Vec<f32> = a.iter().map(|a| (-f64::from(*a)).ln() as f32).collect();
        let len = logs.len();
        Ok(Tensor::from_vec(logs, len, &Device::Cpu)?)
    }
}

/// Tensors of plain numbers, in the type they are stored in.
pub(super) fn floats(bytes: &[u8], dtype: GgmlDType, shape: &[usize]) -> Result<Option<Tensor>> {
    let cpu = &Device::Cpu;
    Ok(Some(match dtype {
        GgmlDType::F32 => Tensor::from_vec(widen(bytes, f32::from_le_bytes), shape, cpu)?,
        GgmlDType::F16 => Tensor::from_vec(widen(bytes, f16::from_le_bytes), shape, cpu)?,
        GgmlDType::BF16 => Tensor::from_vec(widen(bytes, bf16::from_le_bytes), shape, cpu)?,
        _ => return Ok(None),
    }))
}
