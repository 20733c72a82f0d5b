//! Linear layers and embeddings whose weights stay as they are stored: f32, f16, bf16 or GGUF blocks.

use super::backend::Backend;
use super::blocks::BlockFormat;
use super::device::Place;
use super::kernel::{self, Matrix};
use super::ops::{for_rows, with_slice};
use super::panels::Panels;
use super::weights::Stored;
use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{D, DType, Device, Module, Result, Tensor};
use std::borrow::Cow;
use std::sync::Arc;

/// A matrix as it came, or as the processor's kernels read it.
#[derive(Clone, Debug)]
enum Weights {
    Stored(Stored),
    Panels(Panels),
}

impl Weights {
    /// As the kernels read it, if it is in main memory, no gradient is wanted and there are panels of its type.
    fn in_panels(self) -> Result<Self> {
        Ok(match self {
            Self::Stored(Stored::Float(t)) if t.device().is_cpu() && !t.track_op() && kept(&t) => {
                Self::Panels(Panels::of_floats(&t)?)
            }
            Self::Stored(Stored::Quantised(q)) if q.device().is_cpu() => {
                match BlockFormat::of(q.dtype()) {
                    Some(format) => {
                        let (rows, columns) = q.shape().dims2()?;
                        Self::Panels(Panels::of_blocks(format, &q.data()?, rows, columns)?)
                    }
                    None => Self::Stored(Stored::Quantised(q)),
                }
            }
            other => other,
        })
    }

    /// For tensor operations.
    fn stored(&self) -> Result<Stored> {
        Ok(match self {
            Self::Stored(stored) => stored.clone(),
            Self::Panels(_) => Stored::Float(self.table()?),
        })
    }

    /// All of it in f32, where it lies.
    fn table(&self) -> Result<Tensor> {
        match self {
            Self::Stored(stored) => Linear::table(stored),
            Self::Panels(panels) => Tensor::from_vec(panels.table(), panels.shape(), &Device::Cpu),
        }
    }

    /// Rows in f32, where they lie.
    fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        let at = |device: &Device| Tensor::new(ids, device);
        match self {
            Self::Stored(Stored::Float(t)) => {
                t.index_select(&at(t.device())?, 0)?.to_dtype(DType::F32)
            }
            Self::Stored(Stored::Quantised(q)) => q.embedding(&at(&q.device())?),
            Self::Panels(panels) => {
                let width = panels.shape().1;
                let mut rows = vec![0.0; ids.len() * width];
                for (id, row) in ids.iter().zip(rows.chunks_exact_mut(width.max(1))) {
                    panels.row(*id as usize, row);
                }
                Tensor::from_vec(rows, (ids.len(), width), &Device::Cpu)
            }
        }
    }

    fn shape(&self) -> Result<(usize, usize)> {
        match self {
            Self::Stored(Stored::Float(t)) => t.dims2(),
            Self::Stored(Stored::Quantised(q)) => q.shape().dims2(),
            Self::Panels(panels) => Ok(panels.shape()),
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Stored(stored) => stored.bytes(),
            Self::Panels(panels) => panels.bytes(),
        }
    }
}

/// `y = x · Wᵀ + b` with W `[outputs, inputs]`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Weights,
    bias: Option<Tensor>,
    outputs: usize,
    inputs: usize,
    backend: Backend,
}

#[cfg(test)]
thread_local! {
    /// How many weight matrices this thread has handed to a kernel.
    pub(crate) static READ: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl Linear {
    /// From a stored matrix `[outputs, inputs]` and an optional bias `[outputs]`, by tensor operations until it is put in
    /// its place ([`Self::on`]).
    ///
    /// # Errors
    /// If the matrix is not two-dimensional.
    pub fn new(weight: Stored, bias: Option<Tensor>) -> Result<Self> {
        let weight = match weight {
            // These have no kernel: widening once beats widening at every call.
            Stored::Quantised(q) if BlockFormat::of(q.dtype()).is_none() => {
                Stored::Float(q.dequantize(&q.device())?)
            }
            Stored::Float(t) if !kept(&t) => Stored::Float(t.to_dtype(DType::F32)?),
            weight => weight,
        };
        let backend = Backend::of(&weight.device());
        Self::of(Weights::Stored(weight), bias, backend)
    }

    fn of(weight: Weights, bias: Option<Tensor>, backend: Backend) -> Result<Self> {
        let (outputs, inputs) = weight.shape()?;
        Ok(Self {
            weight,
            bias,
            outputs,
            inputs,
            backend,
        })
    }

    /// The same on `place`, as it is read there. Nothing is copied where it is so already.
    ///
    /// # Errors
    /// If the device is out of memory.
    pub(crate) fn on(self, place: &Place) -> Result<Self> {
        let weight = match (place.backend, self.weight) {
            (Backend::Kernels, Weights::Stored(stored)) => {
                Weights::Stored(stored.on(place)?).in_panels()?
            }
            (Backend::Kernels, panels) => panels,
            (Backend::Tensors, weight) => Weights::Stored(weight.stored()?.on(place)?),
        };
        Ok(Self {
            weight,
            bias: self.bias.map(|bias| place.bring(&bias)).transpose()?,
            backend: place.backend,
            ..self
        })
    }

    /// Parts of its outputs, one after the other; `sizes` are their numbers of outputs.
    pub(crate) fn split(&self, sizes: &[usize]) -> Result<Vec<Self>> {
        let mut first = 0;
        split_rows(&self.weight.stored()?, sizes)?
            .into_iter()
            .zip(sizes)
            .map(|(weight, &size)| {
                let bias = self.bias.as_ref().map(|bias| bias.narrow(0, first, size));
                first += size;
                Self::new(weight, bias.transpose()?)
            })
            .collect()
    }

    /// The weights `[1, inputs]` of one output in f32, and its bias `[1]`.
    pub(crate) fn row(&self, output: usize) -> Result<(Tensor, Option<Tensor>)> {
        let weight = self.weight.rows(&[output as u32])?;
        let bias = self.bias.as_ref().map(|bias| bias.narrow(0, output, 1));
        Ok((weight, bias.transpose()?))
    }

    /// Whether the weights are quantised.
    pub(crate) fn is_blocks(&self) -> bool {
        matches!(self.weight, Weights::Stored(Stored::Quantised(_)))
    }

    /// Which code computes it.
    pub(crate) fn backend(&self) -> Backend {
        self.backend
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
        self.weight.bytes() + bias as u64
    }

    /// Number of weights, the bias included.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let bias = self.bias.as_ref().map_or(0, Tensor::elem_count);
        (self.outputs * self.inputs + bias) as u64
    }

    /// Apply to `x` `[rows, inputs]`, giving `[rows, outputs]` in f32. A row's result does not depend on the other rows.
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
                        for_rows(&mut y, bias.len(), |_, y| {
                            y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
                        });
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
            // Candle's product of blocks. The processor's rounds its inputs to 8 bits.
            Weights::Stored(Stored::Quantised(q)) if !x.device().is_cpu() && !x.track_op() => {
                QMatMul::from_arc(q.clone())?.forward(&x.contiguous()?)?
            }
            // In f32, wherever the numbers are: halves are widened for this product alone.
            weight => {
                let w = weight.table()?.to_device(x.device())?;
                x.matmul(&w.t()?)?
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
        #[cfg(test)]
        READ.with(|read| read.set(read.get() + 1));
        match &self.weight {
            Weights::Panels(panels) => Ok(f(Matrix::Panels(panels))),
            Weights::Stored(_) => candle_core::bail!("weights are not laid out for the kernels"),
        }
    }

    /// Whether the product of `x` runs on the kernels here, or must leave a trace for gradients or run elsewhere.
    pub(crate) fn is_plain(&self, x: &Tensor) -> bool {
        // Weights that were left as they came are learned, or were never put in their place.
        let apart = matches!(&self.weight, Weights::Stored(_))
            || self.bias.as_ref().is_some_and(Tensor::track_op);
        self.backend == Backend::Kernels && !apart && !x.track_op() && x.device().is_cpu()
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

    /// The whole of a stored tensor as f32.
    pub(crate) fn table(weight: &Stored) -> Result<Tensor> {
        match weight {
            Stored::Float(t) => t.to_dtype(DType::F32),
            Stored::Quantised(q) => q.dequantize(&q.device()),
        }
    }
}

/// A table of vectors by token or position, `[rows, width]`, of which only the rows asked for are widened.
#[derive(Clone, Debug)]
pub struct Embedding {
    table: Weights,
    rows: usize,
    width: usize,
    /// Where vectors go.
    device: Device,
}

impl Embedding {
    /// From a stored table `[rows, width]`.
    ///
    /// # Errors
    /// If it is not two-dimensional.
    pub fn new(table: Stored) -> Result<Self> {
        let device = table.device();
        let table = Weights::Stored(table);
        let (rows, width) = table.shape()?;
        Ok(Self {
            table,
            rows,
            width,
            device,
        })
    }

    /// The same for vectors on `place`. Blocks stay in main memory: a few rows of them are needed at a time, and a head
    /// that shares them has tiles of its own.
    ///
    /// # Errors
    /// If the device is out of memory.
    pub(crate) fn on(self, place: &Place) -> Result<Self> {
        Ok(Self {
            table: match self.table {
                Weights::Stored(floats @ Stored::Float(_)) => Weights::Stored(floats.on(place)?),
                other => other,
            },
            device: place.device.clone(),
            ..self
        })
    }

    /// The same as the kernels of a head read it that will share it.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub(crate) fn in_panels(self) -> Result<Self> {
        Ok(Self {
            table: self.table.in_panels()?,
            ..self
        })
    }

    /// A layer of the first `outputs` rows, which shares the table.
    ///
    /// # Errors
    /// If there are fewer.
    pub(crate) fn shared(&self, outputs: usize, bias: Option<Tensor>) -> Result<Linear> {
        match &self.table {
            Weights::Panels(panels) => {
                let panels = Weights::Panels(panels.first(outputs)?);
                Linear::of(panels, bias, Backend::Kernels)
            }
            Weights::Stored(stored) if outputs == self.rows => Linear::new(stored.clone(), bias),
            Weights::Stored(stored) => {
                let more = self.rows.saturating_sub(outputs);
                Linear::new(split_rows(stored, &[outputs, more])?.swap_remove(0), bias)
            }
        }
    }

    /// The vectors of `ids` in f32, `[ids, width]`. Gradients reach a table of f32.
    ///
    /// # Errors
    /// If an id has no row.
    pub fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.rows) {
            candle_core::bail!("{id} is not among the {} rows of a table", self.rows);
        }
        if ids.is_empty() {
            return Tensor::zeros((0, self.width), DType::F32, &self.device);
        }
        self.table.rows(ids)?.to_device(&self.device)
    }

    /// Bytes that the table takes in memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.table.bytes()
    }

    /// Number of weights.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        (self.rows * self.width) as u64
    }
}

/// Whether products read this type of floats as it is.
fn kept(t: &Tensor) -> bool {
    match t.dtype() {
        DType::F32 => true,
        DType::F16 | DType::BF16 => !t.track_op(),
        _ => false,
    }
}

/// A tensor of blocks from their bytes, which are copied.
///
/// # Errors
/// If the last dimension of `shape` is no multiple of the block, or the bytes are not those of `shape`.
pub(crate) fn blocks(bytes: &[u8], dtype: GgmlDType, shape: &[usize]) -> Result<QTensor> {
    // candle looks at the bytes as blocks, which must lie aligned: those of a file or of the program may not.
    const ALIGN: usize = 16;
    let numbers: usize = shape.iter().product();
    if bytes.len() / dtype.type_size() * dtype.block_size() != numbers {
        candle_core::bail!("{} bytes are not those of {shape:?}", bytes.len());
    }
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
    QTensor::new(
        QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, dtype)?,
        shape,
    )
}

/// Several matrices stacked along their outputs, apart again: rows of blocks stay the blocks they are.
pub(crate) fn split_rows(weight: &Stored, sizes: &[usize]) -> Result<Vec<Stored>> {
    let mut first = 0;
    sizes
        .iter()
        .map(|&size| {
            let part = match weight {
                Stored::Float(t) => Stored::Float(t.narrow(0, first, size)?.contiguous()?),
                Stored::Quantised(q) => {
                    let (rows, columns) = q.shape().dims2()?;
                    let data = q.data()?;
                    let row = data.len() / rows.max(1);
                    let Some(part) = data.get(first * row..(first + size) * row) else {
                        candle_core::bail!("{rows} rows cannot be split into {sizes:?}");
                    };
                    Stored::Quantised(Arc::new(blocks(part, q.dtype(), &[size, columns])?))
                }
            };
            first += size;
            Ok(part)
        })
        .collect()
}

/// Rows of a matrix in another order; rows of blocks stay the blocks they are.
pub(crate) fn select_rows(weight: &Stored, rows: &[u32]) -> Result<Stored> {
    match weight {
        Stored::Float(t) => {
            let rows = Tensor::new(rows, t.device())?;
            Ok(Stored::Float(t.index_select(&rows, 0)?))
        }
        Stored::Quantised(q) => {
            let (count, columns) = q.shape().dims2()?;
            let data = q.data()?;
            let width = data.len() / count.max(1);
            let mut out = Vec::with_capacity(rows.len() * width);
            for &row in rows {
                let at = row as usize * width;
                let Some(row) = data.get(at..at + width) else {
                    candle_core::bail!("a matrix of {count} rows has no row {row}");
                };
                out.extend_from_slice(row);
            }
            let q = blocks(&out, q.dtype(), &[rows.len(), columns])?;
            Ok(Stored::Quantised(Arc::new(q)))
        }
    }
}

/// The transpose of a matrix stored as `[inputs, outputs]` (GPT-2's Conv1D). Blocks run along the rows, so a transposed
/// matrix of them is widened.
pub(crate) fn transposed(weight: &Stored) -> Result<Stored> {
    let t = match weight {
        Stored::Float(t) => t.clone(),
        Stored::Quantised(_) => Linear::table(weight)?,
    };
    Ok(Stored::Float(
        t.transpose(D::Minus2, D::Minus1)?.contiguous()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    fn random(rows: usize, columns: usize) -> Tensor {
        Tensor::randn(0f32, 1.0, (rows, columns), &Device::Cpu).unwrap()
    }

    fn numbers(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// In its place, as every layer of a loaded model.
    fn linear(weight: Stored, bias: Option<Tensor>) -> Linear {
        let linear = Linear::new(weight, bias).unwrap();
        linear.on(&Place::cpu()).unwrap()
    }

    fn quantised(t: &Tensor, format: BlockFormat) -> Stored {
        Stored::Quantised(Arc::new(QTensor::quantize(t, format.dtype()).unwrap()))
    }

    /// Every way to store a matrix, with the bytes it takes.
    fn stored(t: &Tensor) -> Vec<(Stored, u64)> {
        let count = t.elem_count() as u64;
        let mut all: Vec<(Stored, u64)> = BlockFormat::ALL
            .into_iter()
            .map(|f| {
                let blocks = count / f.numbers() as u64;
                (quantised(t, f), blocks * f.bytes() as u64)
            })
            .collect();
        for (dtype, size) in [(DType::F32, 4), (DType::F16, 2), (DType::BF16, 2)] {
            all.push((Stored::Float(t.to_dtype(dtype).unwrap()), count * size));
        }
        all
    }

    #[test]
    fn products_are_those_of_the_widened_matrix_to_the_last_bit() {
        let (w, x) = (random(31, 512), random(3, 512));
        for (stored, bytes) in stored(&w) {
            let wide = linear(Stored::Float(Linear::table(&stored).unwrap()), None);
            let linear = linear(stored, None);
            assert!(linear.is_plain(&x));
            assert_eq!(linear.bytes(), bytes);
            assert_eq!(linear.parameters(), 31 * 512);
            let (a, b) = (linear.forward(&x).unwrap(), wide.forward(&x).unwrap());
            assert_eq!(numbers(&a), numbers(&b), "{:?}", linear.weight);
        }
    }

    #[test]
    fn embeddings_widen_the_rows_asked_for() {
        let w = random(9, 256);
        for (stored, bytes) in stored(&w) {
            let wide = numbers(&Linear::table(&stored).unwrap());
            let as_stored = Embedding::new(stored).unwrap();
            for table in [as_stored.clone(), as_stored.in_panels().unwrap()] {
                assert_eq!((table.bytes(), table.parameters()), (bytes, 9 * 256));
                let rows = table.rows(&[8, 0, 8]).unwrap();
                assert_eq!(rows.dims(), [3, 256]);
                let expected: Vec<f32> = [8, 0, 8]
                    .into_iter()
                    .flat_map(|row| wide[row * 256..(row + 1) * 256].to_vec())
                    .collect();
                assert_eq!(numbers(&rows), expected);
                assert_eq!(table.rows(&[]).unwrap().dims(), [0, 256]);
                let error = table.rows(&[9]).unwrap_err().to_string();
                assert!(error.contains("among the 9 rows"), "{error}");
            }
        }
    }

    #[test]
    fn a_head_shares_the_table_of_its_embedding() {
        let (w, x) = (random(40, 256), random(2, 256));
        for (stored, _) in stored(&w) {
            let expected = linear(stored.clone(), None).forward(&x).unwrap();
            let embedding = Embedding::new(stored).unwrap().in_panels().unwrap();
            let head = embedding.shared(33, None).unwrap();
            let head = head.on(&Place::cpu()).unwrap();
            let expected = expected.narrow(1, 0, 33).unwrap();
            assert_eq!(numbers(&head.forward(&x).unwrap()), numbers(&expected));
            let same = match (&embedding.table, &head.weight) {
                (Weights::Panels(a), Weights::Panels(b)) => a.same_memory(b),
                _ => false,
            };
            assert!(same);
        }
    }

    #[test]
    fn gradients_reach_an_embedding_and_pass_through_blocks() {
        let table = Var::from_tensor(&random(5, 256)).unwrap();
        let embedding = Embedding::new(Stored::Float(table.as_tensor().clone())).unwrap();
        let rows = embedding.rows(&[3]).unwrap();
        let q = quantised(&random(2, 256), BlockFormat::Q4_K);
        let y = Linear::new(q.clone(), None)
            .unwrap()
            .forward(&rows)
            .unwrap();
        let gradients = y.sum_all().unwrap().backward().unwrap();
        let gradient = gradients.get(table.as_tensor()).unwrap();
        let expected = Linear::table(&q).unwrap().sum(0).unwrap();
        assert_eq!(
            numbers(&gradient.narrow(0, 3, 1).unwrap()),
            numbers(&expected)
        );
    }

    #[test]
    fn rows_of_blocks_are_split_as_they_are() {
        let w = random(12, 256);
        for (stored, _) in stored(&w) {
            let parts = split_rows(&stored, &[5, 3, 4]).unwrap();
            let whole = numbers(&Linear::table(&stored).unwrap());
            let joined: Vec<f32> = parts
                .iter()
                .flat_map(|part| numbers(&Linear::table(part).unwrap()))
                .collect();
            assert_eq!(joined, whole);
            let kept = matches!(stored, Stored::Quantised(_));
            for part in &parts {
                assert_eq!(matches!(part, Stored::Quantised(_)), kept);
            }
            assert!(split_rows(&stored, &[5, 3, 5]).is_err());
        }
    }

    #[test]
    fn formats_without_a_kernel_are_widened_once() {
        let q = QTensor::quantize(&random(3, 256), GgmlDType::Q3K).unwrap();
        let linear = Linear::new(Stored::Quantised(Arc::new(q)), None).unwrap();
        assert_eq!(linear.bytes(), 3 * 256 * 4);
        assert!(linear.forward(&random(1, 256)).is_ok());
        assert!(blocks(&[0; 33], GgmlDType::Q8_0, &[32]).is_err());
    }

    #[test]
    fn half_floats_stay_half_when_transposed() {
        let half = Stored::Float(random(3, 5).to_dtype(DType::F16).unwrap());
        let Stored::Float(t) = transposed(&half).unwrap() else {
            panic!("floats stay floats")
        };
        assert_eq!((t.dims(), t.dtype()), ([5, 3].as_slice(), DType::F16));
    }

    #[test]
    fn layers_together_give_what_each_gives_alone() {
        let x = random(3, 70);
        let bias = random(1, 900).flatten_all().unwrap();
        let a = linear(Stored::Float(random(900, 70)), Some(bias));
        let b = linear(Stored::Float(random(31, 70)), None);
        let [ya, yb] = Linear::forward_all([&a, &b], &x).unwrap();
        assert_eq!(
            (ya.dims(), yb.dims()),
            ([3, 900].as_slice(), [3, 31].as_slice())
        );
        assert_eq!(numbers(&ya), numbers(&a.forward(&x).unwrap()));
        assert_eq!(numbers(&yb), numbers(&b.forward(&x).unwrap()));
        let narrow = linear(Stored::Float(random(4, 71)), None);
        assert!(Linear::forward_all([&a, &narrow], &x).is_err());
    }

    #[test]
    fn gradients_reach_a_bias_beside_weights_that_stay() {
        let bias = Var::from_tensor(&random(1, 5).flatten_all().unwrap()).unwrap();
        let linear = linear(Stored::Float(random(5, 8)), Some(bias.as_tensor().clone()));
        let y = linear.forward(&random(2, 8)).unwrap();
        let gradients = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(numbers(gradients.get(bias.as_tensor()).unwrap()), [2.0; 5]);
    }
}
