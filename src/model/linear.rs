//! A linear layer whose weights stay as they are stored: f32, or GGUF blocks.

use super::kernel::{self, Matrix};
use super::ops::with_slice;
use super::weights::Stored;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{D, Result, Storage, Tensor};
use std::sync::Arc;

/// `y = x · Wᵀ + b` with W `[outputs, inputs]`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Stored,
    bias: Option<Tensor>,
    outputs: usize,
    inputs: usize,
}

impl Linear {
    /// From a stored matrix `[outputs, inputs]` and an optional bias `[outputs]`.
    ///
    /// # Errors
    /// If the matrix is not two-dimensional.
    pub fn new(weight: Stored, bias: Option<Tensor>) -> Result<Self> {
        // Products of other block formats than Q8_0 have no kernel: widening once beats widening at every call.
        let weight = match weight {
            Stored::Quantised(q) if q.dtype() != GgmlDType::Q8_0 => {
                Stored::Float(q.dequantize(&q.device())?)
            }
            weight => weight,
        };
        let (outputs, inputs) = match &weight {
            Stored::Float(t) => t.dims2()?,
            Stored::Quantised(q) => q.shape().dims2()?,
        };
        Ok(Self {
            weight,
            bias,
            outputs,
            inputs,
        })
    }

    /// Number of outputs.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes that the weights take in memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let bias = self.bias.as_ref().map_or(0, |b| b.elem_count() * 4);
        let weight = match &self.weight {
            Stored::Float(t) => t.elem_count() * 4,
            Stored::Quantised(q) => q.storage_size_in_bytes(),
        };
        (weight + bias) as u64
    }

    /// Number of weights, the bias included.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let bias = self.bias.as_ref().map_or(0, Tensor::elem_count);
        (self.outputs * self.inputs + bias) as u64
    }

    /// Apply to `x` `[rows, inputs]`, giving `[rows, outputs]`. A row's result does not depend on the other rows.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = match &self.weight {
            Stored::Float(w) if w.track_op() || x.track_op() || !x.device().is_cpu() => {
                x.matmul(&w.t()?)?
            }
            _ => {
                let rows = x.dim(0)?;
                let mut y = vec![0.0; rows * self.outputs];
                with_slice(x, |x| self.product(x, rows, &mut y))??;
                Tensor::from_vec(y, (rows, self.outputs), x.device())?
            }
        };
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    /// The product alone, without bias, on plain slices: `x` `[rows, inputs]`, `y` `[rows, outputs]`.
    pub(crate) fn product(&self, x: &[f32], rows: usize, y: &mut [f32]) -> Result<()> {
        if x.len() != rows * self.inputs || y.len() != rows * self.outputs {
            candle_core::bail!(
                "{rows} rows of {} numbers do not fit a matrix of {} by {}",
                x.len() / rows.max(1),
                self.outputs,
                self.inputs
            );
        }
        match &self.weight {
            Stored::Float(w) => {
                let (storage, layout) = w.storage_and_layout();
                let (Storage::Cpu(cpu), Some((from, to))) =
                    (&*storage, layout.contiguous_offsets())
                else {
                    candle_core::bail!("weights are not in main memory");
                };
                let w = Matrix::F32(&cpu.as_slice::<f32>()?[from..to]);
                kernel::product(x, w, rows, self.inputs, y);
            }
            Stored::Quantised(q) => {
                kernel::product(x, Matrix::Q8_0(&q.data()?), rows, self.inputs, y);
            }
        }
        Ok(())
    }

    /// The bias, if there is one.
    #[must_use]
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// The whole matrix as f32, for looking up embeddings.
    pub(crate) fn table(weight: &Stored) -> Result<Tensor> {
        match weight {
            Stored::Float(t) => Ok(t.clone()),
            Stored::Quantised(q) => q.dequantize(&q.device()),
        }
    }
}

/// Several matrices stacked along their outputs.
pub(crate) fn split_rows(weight: &Stored, sizes: &[usize]) -> Result<Vec<Stored>> {
    let mut first = 0;
    sizes
        .iter()
        .map(|&size| {
            let part = match weight {
                Stored::Float(t) => Stored::Float(t.narrow(0, first, size)?.contiguous()?),
                Stored::Quantised(q) => {
                    let t = q.dequantize(&q.device())?.narrow(0, first, size)?;
                    Stored::Quantised(Arc::new(QTensor::quantize(&t, q.dtype())?))
                }
            };
            first += size;
            Ok(part)
        })
        .collect()
}

/// Rows of a matrix in another order.
pub(crate) fn select_rows(weight: &Stored, rows: &[u32]) -> Result<Stored> {
    let t = Linear::table(weight)?;
    let rows = Tensor::new(rows, t.device())?;
    Ok(Stored::Float(t.index_select(&rows, 0)?))
}

/// The transpose of a matrix stored as `[inputs, outputs]` (GPT-2's Conv1D).
pub(crate) fn transposed(weight: &Stored) -> Result<Stored> {
    let t = Linear::table(weight)?;
    Ok(Stored::Float(
        t.transpose(D::Minus2, D::Minus1)?.contiguous()?,
    ))
}
