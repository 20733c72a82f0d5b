//! Weight matrices as the kernels read them: in panels of 32 rows, a panel column by column.
//!
//! The products of a panel are 32 sums in the lanes of a few registers, whatever the number of input rows: every input is
//! read once, no sums across lanes are needed, and a panel is one stream through memory. Every output is summed in one
//! order, so that company, threads and instruction sets make no difference to a single bit: columns in ascending order,
//! [`sums::TOGETHER`] of them in a sum of their own that is then added to those before.

mod blocks;
mod packed;
pub(super) mod sums;
mod unblock;
mod unpack;
mod widen;

use super::blocks::BlockFormat;
use super::kernel::Set;
use blocks::Blocks;
use candle_core::{DType, Result, Tensor};
use half::{bf16, f16};
use packed::Packed;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Rows of a panel.
pub(crate) const WIDTH: usize = 32;
/// Columns of a panel that are laid out together.
const COLUMNS: usize = 16;

/// Matrices of fewer bytes stay in a cache, where there is nothing to be gained by packing.
const SMALL: usize = 1 << 20;

/// A matrix `[rows, columns]` in panels. What rows beyond the last hold is nobody's concern.
#[derive(Clone, Debug)]
pub struct Panels {
    numbers: Numbers,
    rows: usize,
    columns: usize,
    after: Arc<After>,
}

/// The memory that was read after a matrix the last time. It may be gone by now: it can be asked for, not read.
#[derive(Debug, Default)]
pub(crate) struct After(Mutex<Arc<[Range<usize>]>>);

impl After {
    /// It is this.
    pub(crate) fn is(&self, memory: impl Iterator<Item = Range<usize>> + Clone) {
        if let Ok(mut last) = self.0.lock()
            && !last.iter().cloned().eq(memory.clone())
        {
            *last = memory.collect();
        }
    }

    /// What it is, addresses of pieces one after the other.
    pub(crate) fn memory(&self) -> Arc<[Range<usize>]> {
        match self.0.lock() {
            Ok(last) => last.clone(),
            Err(_) => Arc::default(),
        }
    }
}

/// What a panel is made of.
#[derive(Clone, Debug)]
enum Numbers {
    /// `[panel][column][row]`.
    F32(Arc<Vec<f32>>),
    F16(Arc<Vec<f16>>),
    BF16(Arc<Vec<bf16>>),
    /// Blocks of GGUF.
    Blocks(Blocks),
    /// f32 or bf16 in fewer bits.
    Packed(Packed),
}

impl Panels {
    /// A matrix of floats, in their type or in whatever takes fewer bytes for the very same numbers: f32 that all are bf16
    /// are held as such, and both are packed where that saves enough and the processor unpacks them in time.
    ///
    /// # Errors
    /// If it is not two-dimensional, of another type or not in main memory.
    pub(crate) fn of_floats(matrix: &Tensor) -> Result<Self> {
        Self::held(matrix, |plain| match plain {
            // At least a twentieth less.
            SMALL.. if Set::found().unpacks() => plain - plain / 20,
            _ => 0,
        })
    }

    /// The same, packed if that takes no more bytes than `most` says, given those of plain panels.
    fn held(matrix: &Tensor, most: impl Fn(usize) -> usize) -> Result<Self> {
        let (rows, columns) = matrix.dims2()?;
        let matrix = matrix.contiguous()?;
        let (storage, layout) = matrix.storage_and_layout();
        let (candle_core::Storage::Cpu(cpu), Some((from, to))) =
            (&*storage, layout.contiguous_offsets())
        else {
            candle_core::bail!("weights are not in main memory");
        };
        let most = |bytes: usize| most(rows.next_multiple_of(WIDTH) * columns * bytes);
        let numbers = match matrix.dtype() {
            DType::F32 => {
                let w = &cpu.as_slice::<f32>()?[from..to];
                match w.par_iter().all(|v| v.to_bits() << 16 == 0) {
                    true => in_bf16(w, columns, most(2), f32::to_bits),
                    false => Packed::of(w, columns, 3, most(4), f32::to_bits).map_or_else(
                        || Numbers::F32(laid_out(w, columns, |v| v)),
                        Numbers::Packed,
                    ),
                }
            }
            DType::F16 => Numbers::F16(laid_out(&cpu.as_slice()?[from..to], columns, |v| v)),
            DType::BF16 => {
                let w = &cpu.as_slice::<bf16>()?[from..to];
                in_bf16(w, columns, most(2), |v| u32::from(v.to_bits()) << 16)
            }
            other => candle_core::bail!("there are no panels of {other:?}"),
        };
        Ok(Self {
            numbers,
            rows,
            columns,
            after: Arc::default(),
        })
    }

    /// [`Self::of_floats`] packed, or certainly not.
    #[cfg(test)]
    pub(super) fn forced(matrix: &Tensor, packed: bool) -> Result<Self> {
        Self::held(matrix, |_| if packed { usize::MAX } else { 0 })
    }

    /// A matrix of GGUF blocks, row by row.
    ///
    /// # Errors
    /// If the bytes are not those of such a matrix.
    pub(crate) fn of_blocks(
        format: BlockFormat,
        bytes: &[u8],
        rows: usize,
        columns: usize,
    ) -> Result<Self> {
        let Some(blocks) = Blocks::of(format, bytes, rows, columns) else {
            candle_core::bail!(
                "{} bytes are not {rows} rows of {columns} numbers in {format:?}",
                bytes.len()
            );
        };
        Ok(Self {
            numbers: Numbers::Blocks(blocks),
            rows,
            columns,
            after: Arc::default(),
        })
    }

    /// Rows and columns.
    pub(crate) fn shape(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// What was read after it.
    pub(crate) fn after(&self) -> &Arc<After> {
        &self.after
    }

    /// The addresses where it lies.
    pub(crate) fn memory(&self) -> Range<usize> {
        fn of<T>(numbers: &[T]) -> Range<usize> {
            let memory = numbers.as_ptr_range();
            memory.start.addr()..memory.end.addr()
        }
        match &self.numbers {
            Numbers::F32(w) => of(w),
            Numbers::F16(w) => of(w),
            Numbers::BF16(w) => of(w),
            Numbers::Blocks(w) => of(&w.bytes),
            Numbers::Packed(w) => of(w.bytes(0..w.panels())),
        }
    }

    /// The type its numbers are held in; none for blocks.
    pub(crate) fn floats(&self) -> Option<DType> {
        match &self.numbers {
            Numbers::F32(_) => Some(DType::F32),
            Numbers::F16(_) => Some(DType::F16),
            Numbers::BF16(_) => Some(DType::BF16),
            Numbers::Blocks(_) => None,
            Numbers::Packed(w) if w.low() == 3 => Some(DType::F32),
            Numbers::Packed(_) => Some(DType::BF16),
        }
    }

    /// Bytes that the matrix takes, without the rows that fill up the last panel: of packed ones, its share of all rows.
    pub(crate) fn bytes(&self) -> u64 {
        let numbers = (self.rows * self.columns) as u64;
        if let Numbers::Packed(w) = &self.numbers {
            let panels = self.rows.div_ceil(WIDTH);
            let share = self.rows as f64 / (panels * WIDTH).max(1) as f64;
            return (w.bytes(0..panels).len() as f64 * share) as u64;
        }
        match &self.numbers {
            Numbers::Blocks(w) => numbers / w.format.numbers() as u64 * w.format.bytes() as u64,
            _ => numbers * self.floats().map_or(0, |dtype| dtype.size_in_bytes()) as u64,
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

    /// Whether its numbers are packed.
    #[cfg(test)]
    pub(super) fn is_packed(&self) -> bool {
        matches!(self.numbers, Numbers::Packed(_))
    }

    /// Whether both lie in the same memory.
    #[cfg(test)]
    pub(crate) fn same_memory(&self, other: &Self) -> bool {
        match (&self.numbers, &other.numbers) {
            (Numbers::F32(a), Numbers::F32(b)) => Arc::ptr_eq(a, b),
            (Numbers::F16(a), Numbers::F16(b)) => Arc::ptr_eq(a, b),
            (Numbers::BF16(a), Numbers::BF16(b)) => Arc::ptr_eq(a, b),
            (Numbers::Blocks(a), Numbers::Blocks(b)) => Arc::ptr_eq(&a.bytes, &b.bytes),
            (Numbers::Packed(a), Numbers::Packed(b)) => a.same_memory(b),
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
            // The upper half of an f32, to the last bit.
            Numbers::BF16(w) => gather(&w[from..], out, |v| {
                f32::from_bits(u32::from(v.to_bits()) << 16)
            }),
            Numbers::Packed(w) => w.row(row, out),
            Numbers::Blocks(w) => w.row(row, out),
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

/// Rows of `columns` numbers that are bf16, whose bits as those of an f32 `bits` tells.
fn in_bf16<T: Copy + Sync>(
    rows: &[T],
    columns: usize,
    most: usize,
    bits: impl Fn(T) -> u32 + Copy + Sync,
) -> Numbers {
    let upper = |v| bf16::from_bits((bits(v) >> 16) as u16);
    Packed::of(rows, columns, 1, most, bits).map_or_else(
        || Numbers::BF16(laid_out(rows, columns, upper)),
        Numbers::Packed,
    )
}

/// Rows of `columns` numbers in panels, as `held`.
fn laid_out<S: Copy + Sync, T: Copy + Default + Send + Sync>(
    rows: &[S],
    columns: usize,
    held: impl Fn(S) -> T + Copy + Sync,
) -> Arc<Vec<T>> {
    let count = rows.len() / columns.max(1);
    let mut panels = vec![T::default(); count.div_ceil(WIDTH) * columns * WIDTH];
    panels
        .par_chunks_mut((columns * WIDTH).max(1))
        .zip(rows.par_chunks((columns * WIDTH).max(1)))
        .for_each(|(panel, rows)| turn_with(rows, columns, WIDTH, panel, held));
    Arc::new(panels)
}

/// Rows of `columns` numbers as `[column][width]`, of which they take the first places.
pub(super) fn turn<T: Copy>(rows: &[T], columns: usize, width: usize, out: &mut [T]) {
    turn_with(rows, columns, width, out, |v| v);
}

/// The same of what `held` makes of the numbers.
fn turn_with<S: Copy, T>(
    rows: &[S],
    columns: usize,
    width: usize,
    out: &mut [T],
    held: impl Fn(S) -> T,
) {
    // A few columns at a time, so that what is written stays in the nearest cache.
    for (i, out) in out.chunks_mut(COLUMNS * width).enumerate() {
        for (at, row) in rows.chunks_exact(columns).enumerate() {
            let row = &row[i * COLUMNS..columns.min((i + 1) * COLUMNS)];
            for (out, v) in out[at..].iter_mut().step_by(width).zip(row) {
                *out = held(*v);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use candle_core::quantized::QTensor;
    use rand::{Rng, SeedableRng};

    #[test]
    fn rows_come_back_as_they_were() {
        for (rows, columns) in [(1, 32), (33, 256), (32, 96), (70, 32)] {
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
            for format in BlockFormat::ALL {
                if columns % format.numbers() > 0 {
                    continue;
                }
                let blocks = QTensor::quantize(&matrix, format.dtype()).unwrap();
                let bytes = blocks.data().unwrap();
                let panels = Panels::of_blocks(format, &bytes, rows, columns).unwrap();
                let wide = blocks.dequantize(&Device::Cpu).unwrap();
                let expected: Vec<f32> = wide.flatten_all().unwrap().to_vec1().unwrap();
                assert_eq!(panels.table(), expected);
                assert_eq!(panels.bytes(), bytes.len() as u64);
            }
        }
        let error = Panels::of_blocks(BlockFormat::Q8_0, &[0; 34], 1, 64);
        assert!(error.unwrap_err().to_string().contains("Q8_0"));
    }

    fn bits(panels: &Panels) -> Vec<u32> {
        panels.table().into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn packed_rows_come_back_to_the_last_bit() {
        let odd = [f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-40, -1e-45];
        for (rows, columns) in [(1, 1), (33, 64), (32, 97), (70, 130)] {
            let mut rng = rand::rngs::StdRng::seed_from_u64(columns as u64);
            for wild in [0, 1, 64, columns] {
                let mut number = |i: usize| match i % columns {
                    at if at < wild => rng.random(),
                    at if at < columns / 2 => odd[i % odd.len()].to_bits(),
                    _ => rng.random_range(0.001f32..0.02).to_bits(),
                };
                let long: Vec<u32> = (0..rows * columns).map(&mut number).collect();
                let short: Vec<u32> = long.iter().map(|v| v & 0xffff_0000).collect();
                for numbers in [long, short] {
                    let floats: Vec<f32> = numbers.iter().map(|v| f32::from_bits(*v)).collect();
                    let matrix = Tensor::from_vec(floats, (rows, columns), &Device::Cpu).unwrap();
                    for packed in [true, false] {
                        let panels = Panels::forced(&matrix, packed).unwrap();
                        assert!(panels.is_packed() == packed && bits(&panels) == numbers);
                        let first = panels.first(rows / 2).unwrap();
                        assert_eq!(bits(&first), numbers[..rows / 2 * columns]);
                        assert!(first.same_memory(&panels));
                    }
                }
            }
        }
    }

    #[test]
    fn weights_take_what_they_should() {
        let matrix = Tensor::randn(0f32, 0.02, (1000, 500), &Device::Cpu).unwrap();
        let plain = Panels::forced(&matrix, false).unwrap();
        let packed = Panels::forced(&matrix, true).unwrap();
        assert_eq!(packed.floats(), Some(DType::F32));
        assert!(packed.bytes() * 100 < plain.bytes() * 92);
        assert!(packed.first(500).unwrap().bytes() * 100 < plain.bytes() * 46);
        let halves = matrix.to_dtype(DType::BF16).unwrap();
        let plain = Panels::forced(&halves, false).unwrap();
        let packed = Panels::forced(&halves, true).unwrap();
        assert_eq!(packed.floats(), Some(DType::BF16));
        assert!(packed.bytes() * 100 < plain.bytes() * 85);
        // Numbers of bf16 take no more in f32.
        let wide = halves.to_dtype(DType::F32).unwrap();
        for (like, packed) in [(&plain, false), (&packed, true)] {
            let held = Panels::forced(&wide, packed).unwrap();
            assert_eq!(held.floats(), Some(DType::BF16));
            assert_eq!(held.bytes(), like.bytes());
            assert_eq!(bits(&held), bits(like));
        }
        // What saves nothing, is small or would be unpacked slowly stays as it is.
        let packs = |t: &Tensor| Panels::of_floats(t).unwrap().is_packed();
        assert_eq!(packs(&matrix), Set::found().unpacks());
        assert!(!packs(&matrix.narrow(0, 0, 100).unwrap()));
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let wild: Vec<f32> = (0..500_000).map(|_| f32::from_bits(rng.random())).collect();
        assert!(!packs(
            &Tensor::from_vec(wild, (1000, 500), &Device::Cpu).unwrap()
        ));
    }
}
