//! Weight matrices as the kernels read them: in panels of 32 rows, a panel column by column.
//!
//! The products of a panel are 32 sums in the lanes of a few registers, whatever the number of input rows: every input is
//! read once, no sums across lanes are needed, and a panel is one stream through memory. Every output is summed in one
//! order, so that company, threads and instruction sets make no difference to a single bit: columns in ascending order,
//! [`sums::TOGETHER`] of them in a sum of their own that is then added to those before.

pub(super) mod sums;

use super::blocks::BlockFormat;
use candle_core::{DType, Result, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;
use std::sync::Arc;

/// Rows of a panel.
pub(crate) const WIDTH: usize = 32;
/// Columns of a panel that are laid out together.
const COLUMNS: usize = 16;
/// Columns with scales of their own in panels of [`Numbers::Q8`], as in a block of Q8_0.
const SCALED: usize = 32;
/// Bytes of such columns of a panel: a scale a row, then a whole number a row for each column.
const SCALED_BYTES: usize = WIDTH * (2 + SCALED);

/// A matrix `[rows, columns]` in panels; rows beyond the last are zeros.
#[derive(Clone, Debug)]
pub struct Panels {
    numbers: Numbers,
    rows: usize,
    columns: usize,
}

/// What a panel is made of.
#[derive(Clone, Debug)]
enum Numbers {
    /// `[panel][column][row]`.
    F32(Arc<Vec<f32>>),
    F16(Arc<Vec<f16>>),
    BF16(Arc<Vec<bf16>>),
    /// Q8_0: `[panel][block of columns]`, each `[row]` f16 and `[column][row]` i8.
    Q8(Arc<Vec<u8>>),
}

impl Panels {
    /// A matrix of floats, in their type.
    ///
    /// # Errors
    /// If it is not two-dimensional, of another type or not in main memory.
    pub(crate) fn of_floats(matrix: &Tensor) -> Result<Self> {
        let (rows, columns) = matrix.dims2()?;
        let matrix = matrix.contiguous()?;
        let (storage, layout) = matrix.storage_and_layout();
        let (candle_core::Storage::Cpu(cpu), Some((from, to))) =
            (&*storage, layout.contiguous_offsets())
        else {
            candle_core::bail!("weights are not in main memory");
        };
        let numbers = match matrix.dtype() {
            DType::F32 => Numbers::F32(laid_out(&cpu.as_slice()?[from..to], columns)),
            DType::F16 => Numbers::F16(laid_out(&cpu.as_slice()?[from..to], columns)),
            DType::BF16 => Numbers::BF16(laid_out(&cpu.as_slice()?[from..to], columns)),
            other => candle_core::bail!("there are no panels of {other:?}"),
        };
        Ok(Self {
            numbers,
            rows,
            columns,
        })
    }

    /// A matrix of Q8_0 blocks, row by row.
    ///
    /// # Errors
    /// If the bytes are not those of such a matrix.
    pub(crate) fn of_q8_0(bytes: &[u8], rows: usize, columns: usize) -> Result<Self> {
        let row = columns / SCALED * BlockFormat::Q8_0.bytes();
        if !columns.is_multiple_of(SCALED) || bytes.len() != rows * row {
            candle_core::bail!("{} bytes are not {rows} rows of Q8_0", bytes.len());
        }
        let mut panels = vec![0; rows.div_ceil(WIDTH) * columns / SCALED * SCALED_BYTES];
        let panel = columns / SCALED * SCALED_BYTES;
        panels
            .par_chunks_mut(panel.max(1))
            .zip(bytes.par_chunks((WIDTH * row).max(1)))
            .for_each(|(panel, rows)| {
                for (at, blocks) in rows.chunks_exact(row).enumerate() {
                    let blocks = blocks.chunks_exact(BlockFormat::Q8_0.bytes());
                    for (group, block) in panel.chunks_exact_mut(SCALED_BYTES).zip(blocks) {
                        let (scales, numbers) = group.split_at_mut(2 * WIDTH);
                        scales[2 * at..2 * at + 2].copy_from_slice(&block[..2]);
                        for (column, number) in numbers.chunks_exact_mut(WIDTH).zip(&block[2..]) {
                            column[at] = *number;
                        }
                    }
                }
            });
        Ok(Self {
            numbers: Numbers::Q8(Arc::new(panels)),
            rows,
            columns,
        })
    }

    /// Rows and columns.
    pub(crate) fn shape(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// The type its numbers came in; none for blocks.
    pub(crate) fn floats(&self) -> Option<DType> {
        match self.numbers {
            Numbers::F32(_) => Some(DType::F32),
            Numbers::F16(_) => Some(DType::F16),
            Numbers::BF16(_) => Some(DType::BF16),
            Numbers::Q8(_) => None,
        }
    }

    /// Bytes that the matrix takes, without the rows that fill up the last panel.
    pub(crate) fn bytes(&self) -> u64 {
        let numbers = (self.rows * self.columns) as u64;
        match self.floats() {
            Some(dtype) => numbers * dtype.size_in_bytes() as u64,
            None => numbers / SCALED as u64 * BlockFormat::Q8_0.bytes() as u64,
        }
    }

    /// Its first rows, which share its memory.
    ///
    /// # Errors
    /// If it has fewer.
    pub(crate) fn first(&self, rows: usize) -> Result<Self> {
        if rows > self.rows {
            candle_core::bail!("a matrix of {} rows has no first {rows}", self.rows);
        }
        Ok(Self {
            rows,
            ..self.clone()
        })
    }

    /// Whether both lie in the same memory.
    #[cfg(test)]
    pub(crate) fn same_memory(&self, other: &Self) -> bool {
        match (&self.numbers, &other.numbers) {
            (Numbers::F32(a), Numbers::F32(b)) => Arc::ptr_eq(a, b),
            (Numbers::F16(a), Numbers::F16(b)) => Arc::ptr_eq(a, b),
            (Numbers::BF16(a), Numbers::BF16(b)) => Arc::ptr_eq(a, b),
            (Numbers::Q8(a), Numbers::Q8(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// Row `row` in f32.
    ///
    /// # Panics
    /// If there is no such row, or `out` is not as long as a row.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.columns);
        let (panel, at) = (row / WIDTH, row % WIDTH);
        let from = panel * self.columns * WIDTH + at;
        match &self.numbers {
            Numbers::F32(w) => gather(&w[from..], out, |v| v),
            Numbers::F16(w) => gather(&w[from..], out, f16::to_f32),
            Numbers::BF16(w) => gather(&w[from..], out, bf16::to_f32),
            Numbers::Q8(w) => {
                let panel = w
                    .chunks_exact(self.columns / SCALED * SCALED_BYTES)
                    .nth(panel);
                let groups = panel.unwrap_or_default().chunks_exact(SCALED_BYTES);
                for (group, out) in groups.zip(out.chunks_exact_mut(SCALED)) {
                    let (scales, numbers) = group.split_at(2 * WIDTH);
                    let scale = f16::from_le_bytes([scales[2 * at], scales[2 * at + 1]]).to_f32();
                    gather(&numbers[at..], out, |q| scale * f32::from(q as i8));
                }
            }
        }
    }

    /// All rows in f32, row by row.
    pub(crate) fn table(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * self.columns];
        out.par_chunks_mut(self.columns.max(1))
            .enumerate()
            .for_each(|(row, out)| self.row(row, out));
        out
    }
}

/// Every [`WIDTH`]th number from the first on.
fn gather<T: Copy>(from: &[T], out: &mut [f32], widen: impl Fn(T) -> f32) {
    for (out, v) in out.iter_mut().zip(from.iter().step_by(WIDTH)) {
        *out = widen(*v);
    }
}

/// Rows of `columns` numbers in panels.
fn laid_out<T: Copy + Default + Send + Sync>(rows: &[T], columns: usize) -> Arc<Vec<T>> {
    let count = rows.len() / columns.max(1);
    let mut panels = vec![T::default(); count.div_ceil(WIDTH) * columns * WIDTH];
    panels
        .par_chunks_mut((columns * WIDTH).max(1))
        .zip(rows.par_chunks((columns * WIDTH).max(1)))
        .for_each(|(panel, rows)| turn(rows, columns, WIDTH, panel));
    Arc::new(panels)
}

/// Rows of `columns` numbers as `[column][width]`, of which they take the first places.
pub(super) fn turn<T: Copy>(rows: &[T], columns: usize, width: usize, out: &mut [T]) {
    // A few columns at a time, so that what is written stays in the nearest cache.
    for (i, out) in out.chunks_mut(COLUMNS * width).enumerate() {
        for (at, row) in rows.chunks_exact(columns).enumerate() {
            let row = &row[i * COLUMNS..columns.min((i + 1) * COLUMNS)];
            for (out, v) in out[at..].iter_mut().step_by(width).zip(row) {
                *out = *v;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use candle_core::quantized::{GgmlDType, QTensor};

    #[test]
    fn rows_come_back_as_they_were() {
        for (rows, columns) in [(1, 32), (33, 64), (32, 96), (70, 32)] {
            let matrix = Tensor::randn(0f32, 1.0, (rows, columns), &Device::Cpu).unwrap();
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                let matrix = matrix.to_dtype(dtype).unwrap();
                let panels = Panels::of_floats(&matrix).unwrap();
                let wide = matrix.to_dtype(DType::F32).unwrap();
                let expected: Vec<f32> = wide.flatten_all().unwrap().to_vec1().unwrap();
                assert_eq!(panels.table(), expected);
                assert_eq!(panels.shape(), (rows, columns));
                assert_eq!(
                    panels.bytes(),
                    (rows * columns * dtype.size_in_bytes()) as u64
                );
                let first = panels.first(1).unwrap();
                assert_eq!(first.table(), expected[..columns]);
                assert!(panels.first(rows + 1).is_err());
            }
            let blocks = QTensor::quantize(&matrix, GgmlDType::Q8_0).unwrap();
            let panels = Panels::of_q8_0(&blocks.data().unwrap(), rows, columns).unwrap();
            let wide = blocks.dequantize(&Device::Cpu).unwrap();
            let expected: Vec<f32> = wide.flatten_all().unwrap().to_vec1().unwrap();
            assert_eq!(panels.table(), expected);
            assert_eq!(panels.bytes(), (rows * columns / 32 * 34) as u64);
        }
        assert!(Panels::of_q8_0(&[0; 34], 1, 64).is_err());
    }
}
