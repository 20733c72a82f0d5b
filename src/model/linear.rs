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
        let [y] = Self::forward_all([self], x)?;
        Ok(y)
    }

    /// Apply several layers to the same `x` `[rows, inputs]`, in one go where that can be.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward_all<const N: usize>(layers: [&Self; N], x: &Tensor) -> Result<[Tensor; N]> {
        let mut out = layers.map(|_| None);
        if layers.iter().all(|layer| layer.is_plain(x)) {
            let (rows, inputs) = x.dims2()?;
            if let Some(other) = layers.iter().find(|layer| layer.inputs != inputs) {
                candle_core::bail!(
                    "{rows} rows of {inputs} numbers do not fit a matrix of {} by {}",
                    other.outputs,
                    other.inputs
                );
            }
            let mut ys = layers.map(|layer| vec![0.0; rows * layer.outputs]);
            with_slice(x, |x| {
                Self::with_matrices(&layers, &[], &mut |all| {
                    let all = all.iter().zip(&mut ys);
                    let all = all.map(|(w, y)| (*w, y.as_mut_slice())).collect();
                    kernel::products_of(x, rows, inputs, all);
                })
            })??;
            for ((layer, mut y), out) in layers.iter().zip(ys).zip(&mut out) {
                if let Some(bias) = &layer.bias {
                    with_slice(bias, |bias| {
                        for y in y.chunks_exact_mut(bias.len().max(1)) {
                            y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
                        }
                    })?;
                }
                *out = Some(Tensor::from_vec(y, (rows, layer.outputs), x.device())?);
            }
        } else {
            for (layer, out) in layers.iter().zip(&mut out) {
                *out = Some(layer.apply(x)?);
            }
        }
        let missing = || candle_core::Error::Msg("a layer gave nothing".into());
        let all: Vec<Tensor> = out.into_iter().flatten().collect();
        <[Tensor; N]>::try_from(all).map_err(|_| missing())
    }

    /// By candle's own operations, which know their gradients and other devices.
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let y = match &self.weight {
            Stored::Float(w) if !self.is_plain(x) => x.matmul(&w.t()?)?,
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

    /// Run `f` on the weights of all `layers`, those of the first ones being `found`.
    fn with_matrices(
        layers: &[&Self],
        found: &[Matrix<'_>],
        f: &mut dyn FnMut(&[Matrix<'_>]),
    ) -> Result<()> {
        let Some((first, rest)) = layers.split_first() else {
            f(found);
            return Ok(());
        };
        first.with_matrix(|w| {
            let found: Vec<Matrix<'_>> = found.iter().copied().chain([w]).collect();
            Self::with_matrices(rest, &found, f)
        })?
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
        self.with_matrix(|w| kernel::product(x, w, rows, self.inputs, y))
    }

    /// Run `f` on the weights as they lie in main memory.
    pub(crate) fn with_matrix<R>(&self, f: impl FnOnce(Matrix<'_>) -> R) -> Result<R> {
        match &self.weight {
            Stored::Float(w) => {
                let (storage, layout) = w.storage_and_layout();
                let (Storage::Cpu(cpu), Some((from, to))) =
                    (&*storage, layout.contiguous_offsets())
                else {
                    candle_core::bail!("weights are not in main memory");
                };
                Ok(f(Matrix::F32(&cpu.as_slice::<f32>()?[from..to])))
            }
            Stored::Quantised(q) => Ok(f(Matrix::Q8_0(&q.data()?))),
        }
    }

    /// Whether the product of `x` runs on the kernels here, or must leave a trace for gradients or run elsewhere.
    pub(crate) fn is_plain(&self, x: &Tensor) -> bool {
        let learns = matches!(&self.weight, Stored::Float(w) if w.track_op())
            || self.bias.as_ref().is_some_and(Tensor::track_op);
        !learns && !x.track_op() && x.device().is_cpu()
    }

    /// Number of inputs.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
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

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    fn random(rows: usize, columns: usize) -> Tensor {
        Tensor::randn(0f32, 1.0, (rows, columns), &Device::Cpu).unwrap()
    }

    fn numbers(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn layers_together_give_what_each_gives_alone() {
        let x = random(3, 70);
        let bias = random(1, 900).flatten_all().unwrap();
        let a = Linear::new(Stored::Float(random(900, 70)), Some(bias)).unwrap();
        let b = Linear::new(Stored::Float(random(31, 70)), None).unwrap();
        let [ya, yb] = Linear::forward_all([&a, &b], &x).unwrap();
        assert_eq!(
            (ya.dims(), yb.dims()),
            ([3, 900].as_slice(), [3, 31].as_slice())
        );
        assert_eq!(numbers(&ya), numbers(&a.forward(&x).unwrap()));
        assert_eq!(numbers(&yb), numbers(&b.forward(&x).unwrap()));
        let narrow = Linear::new(Stored::Float(random(4, 71)), None).unwrap();
        assert!(Linear::forward_all([&a, &narrow], &x).is_err());
    }

    #[test]
    fn gradients_reach_a_bias_beside_weights_that_stay() {
        let bias = Var::from_tensor(&random(1, 5).flatten_all().unwrap()).unwrap();
        let linear =
            Linear::new(Stored::Float(random(5, 8)), Some(bias.as_tensor().clone())).unwrap();
        let y = linear.forward(&random(2, 8)).unwrap();
        let gradients = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(numbers(gradients.get(bias.as_tensor()).unwrap()), [2.0; 5]);
    }
}
