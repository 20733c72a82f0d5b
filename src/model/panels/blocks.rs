//! GGUF blocks in panels: every number and scale as the file has it, in as many bytes.
//!
//! A panel is made of blocks of columns, as many as a block has numbers. Of each of its 32 rows there are, one part after the
//! other:
//!
//! ```text
//! halves    [scale, minimum][row]      f16
//! factors   [byte][row]                of the K formats, the bytes in the order of the file
//! codes     [column][row]              of eight bits; else the low four: row j's in the low half of byte j, row j + 16's in the high
//! more      [column][row]              the fifth bit, a bit each
//!           [two columns][row]         or the fifth and sixth: as codes, those of the first column below those of the second
//! ```

use super::super::blocks::{BlockFormat, six_bits};
use super::{WIDTH, turn};
use half::f16;
use rayon::prelude::*;
use std::sync::Arc;

/// Bytes of the codes of a column, of which two rows share one.
pub(super) const CODES: usize = WIDTH / 2;
/// Bytes of the fifth bits of a column.
pub(super) const FIFTHS: usize = WIDTH / 8;
/// Bytes of an f16.
pub(super) const HALF: usize = 2;
/// Most numbers that a block has.
const MOST: usize = 256;

/// Where the parts of a block of columns begin, and its size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    pub(super) factors: usize,
    pub(super) codes: usize,
    pub(super) more: usize,
    pub(super) bytes: usize,
}

impl Parts {
    pub(super) const fn of(format: BlockFormat) -> Self {
        let (halves, factors) = (format.halves(), format.factors());
        let before = WIDTH * (halves.end - halves.start);
        let codes = before + WIDTH * (factors.end - factors.start);
        let column = match format.bits() {
            8 => WIDTH,
            _ => CODES,
        };
        Self {
            factors: before,
            codes,
            more: codes + format.numbers() * column,
            bytes: WIDTH * format.bytes(),
        }
    }
}

/// The panels of a matrix.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    pub(super) format: BlockFormat,
    pub(super) bytes: Arc<Vec<u8>>,
}

impl Blocks {
    /// The rows of a matrix, block after block; none if these are not so many rows.
    pub(super) fn of(
        format: BlockFormat,
        bytes: &[u8],
        rows: usize,
        columns: usize,
    ) -> Option<Self> {
        let row = columns / format.numbers() * format.bytes();
        if !columns.is_multiple_of(format.numbers()) || bytes.len() != rows * row {
            return None;
        }
        let mut panels = vec![0; rows.div_ceil(WIDTH) * WIDTH * row];
        let panel = (WIDTH * row).max(1);
        panels
            .par_chunks_mut(panel)
            .zip(bytes.par_chunks(panel))
            .for_each_init(Room::default, |room, (panel, rows)| {
                let panel = panel.chunks_exact_mut(WIDTH * format.bytes());
                for (i, out) in panel.enumerate() {
                    let blocks = rows.chunks_exact(row);
                    let blocks = blocks.map(|row| &row[i * format.bytes()..][..format.bytes()]);
                    place(format, blocks, room, out);
                }
            });
        Some(Self {
            format,
            bytes: Arc::new(panels),
        })
    }

    /// Row `row` of a matrix of so many columns, in f32: in the order of operations of the reference implementation.
    pub(super) fn row(&self, row: usize, out: &mut [f32]) {
        let (format, parts) = (self.format, Parts::of(self.format));
        let (panel, row) = (row / WIDTH, row % WIDTH);
        let bytes = out.len() / format.numbers() * parts.bytes;
        let blocks = self.bytes[panel * bytes..][..bytes].chunks_exact(parts.bytes);
        for (block, out) in blocks.zip(out.chunks_exact_mut(format.numbers())) {
            let mut stored = [0.0; MOST];
            let stored = &mut stored[..format.numbers()];
            numbers(format, parts, block, row, stored);
            let groups = out.chunks_exact_mut(format.group());
            for (group, (out, q)) in groups.zip(stored.chunks_exact(format.group())).enumerate() {
                let (scale, minimum) = scales(format, block, row, group);
                for (out, q) in out.iter_mut().zip(q) {
                    *out = q * scale;
                    if let Some(minimum) = minimum {
                        *out += minimum;
                    }
                }
            }
        }
    }
}

/// Room for the numbers of a block of columns.
struct Room {
    /// `[row][column]`.
    rows: [u8; WIDTH * MOST],
    /// `[column][row]`.
    columns: [u8; WIDTH * MOST],
}

impl Default for Room {
    fn default() -> Self {
        Self {
            rows: [0; WIDTH * MOST],
            columns: [0; WIDTH * MOST],
        }
    }
}

/// Put the same block of all rows of a panel, of which there may be fewer than a panel has, in its place.
fn place<'a>(
    format: BlockFormat,
    blocks: impl Iterator<Item = &'a [u8]>,
    room: &mut Room,
    out: &mut [u8],
) {
    let (parts, numbers) = (Parts::of(format), format.numbers());
    // What rows beyond the last hold is nobody's concern.
    for ((row, block), stored) in blocks.enumerate().zip(room.rows.chunks_exact_mut(numbers)) {
        for (i, half) in block[format.halves()].chunks_exact(HALF).enumerate() {
            out[(i * WIDTH + row) * HALF..][..HALF].copy_from_slice(half);
        }
        for (i, factor) in block[format.factors()].iter().enumerate() {
            out[parts.factors + i * WIDTH + row] = *factor;
        }
        format.stored(block, stored);
    }
    let columns = &mut room.columns[..WIDTH * numbers];
    turn(&room.rows[..WIDTH * numbers], numbers, WIDTH, columns);
    let (codes, more) = out[parts.codes..].split_at_mut(parts.more - parts.codes);
    if format.bits() == 8 {
        codes.copy_from_slice(columns);
        return;
    }
    let (columns, _) = columns.as_chunks::<WIDTH>();
    let (codes, _) = codes.as_chunks_mut::<CODES>();
    for (codes, column) in codes.iter_mut().zip(columns) {
        *codes = halved(&column.map(|q| q & 15));
    }
    match format.bits() {
        5 => {
            let (more, _) = more.as_chunks_mut::<FIFTHS>();
            for (fifths, column) in more.iter_mut().zip(columns) {
                let bits = column.iter().enumerate();
                let bits = bits.fold(0, |bits, (row, q)| bits | u32::from(q >> 4) << row);
                *fifths = bits.to_le_bytes();
            }
        }
        6 => {
            let (more, _) = more.as_chunks_mut::<CODES>();
            let (pairs, _) = columns.as_chunks::<2>();
            for (codes, [first, second]) in more.iter_mut().zip(pairs) {
                let mut both = first.map(|q| q >> 4);
                both.iter_mut()
                    .zip(second)
                    .for_each(|(a, b)| *a |= b >> 4 << 2);
                *codes = halved(&both);
            }
        }
        _ => {}
    }
}

/// Four bits each: the first sixteen in the lower halves of the bytes, the others in the upper.
fn halved(codes: &[u8; WIDTH]) -> [u8; CODES] {
    let (low, high) = codes.split_at(CODES);
    let mut out = [0; CODES];
    for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
        *out = low | high << 4;
    }
    out
}

/// The scale of a group of a row and what is added to its numbers, if anything is.
fn scales(format: BlockFormat, block: &[u8], row: usize, group: usize) -> (f32, Option<f32>) {
    let parts = Parts::of(format);
    let half = |i: usize| {
        let at = (i * WIDTH + row) * HALF;
        f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
    };
    let factor = |i: usize| block[parts.factors + i * WIDTH + row];
    match format {
        BlockFormat::Q4_0 | BlockFormat::Q5_0 | BlockFormat::Q8_0 => (half(0), None),
        BlockFormat::Q4_1 | BlockFormat::Q5_1 => (half(0), Some(half(1))),
        BlockFormat::Q4_K | BlockFormat::Q5_K => {
            let (scale, least) = six_bits(factor, group);
            (
                half(0) * f32::from(scale),
                Some(-(half(1) * f32::from(least))),
            )
        }
        BlockFormat::Q6_K => (half(0) * f32::from(factor(group) as i8), None),
    }
}

/// The numbers of a row, less the centre.
fn numbers(format: BlockFormat, parts: Parts, block: &[u8], row: usize, out: &mut [f32]) {
    let (codes, more) = (&block[parts.codes..], &block[parts.more..]);
    let code = |part: &[u8], at: usize| part[at * CODES + row % CODES] >> (4 * (row / CODES)) & 15;
    let less = |low: u8, high: u8| f32::from((low | high << 4) as i8 - format.centre());
    let out = out.iter_mut().enumerate();
    match format.bits() {
        8 => out.for_each(|(at, out)| *out = f32::from(codes[at * WIDTH + row] as i8)),
        5 => out.for_each(|(at, out)| {
            let fifth = more[at * FIFTHS + row / 8] >> (row % 8) & 1;
            *out = less(code(codes, at), fifth);
        }),
        6 => out.for_each(|(at, out)| {
            let two = code(more, at / 2) >> (2 * (at % 2)) & 3;
            *out = less(code(codes, at), two);
        }),
        _ => out.for_each(|(at, out)| *out = less(code(codes, at), 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::{QStorage, QTensor};
    use candle_core::{Device, Tensor};
    use rand::{Rng, SeedableRng};
    use std::borrow::Cow;

    #[test]
    fn every_format_is_candles_to_the_last_bit() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(7);
        let (rows, columns) = (70, 512);
        for format in BlockFormat::ALL {
            let parts = Parts::of(format);
            let more = match format.bits() {
                5 => format.numbers() * FIFTHS,
                6 => format.numbers() / 2 * CODES,
                _ => 0,
            };
            assert_eq!(parts.more + more, parts.bytes, "{format:?}");
            // Quantised numbers, and any bytes whose halves are finite.
            let real: Vec<f32> = (0..rows / 2 * columns)
                .map(|_| rng.random_range(-3.0..3.0))
                .collect();
            let real = Tensor::from_vec(real, (rows / 2, columns), &Device::Cpu).unwrap();
            let quantised = QTensor::quantize(&real, format.dtype()).unwrap();
            let mut bytes = quantised.data().unwrap().into_owned();
            for _ in 0..rows / 2 * columns / format.numbers() {
                let mut block: Vec<u8> = (0..format.bytes()).map(|_| rng.random()).collect();
                for half in block[format.halves()].chunks_exact_mut(HALF) {
                    // An infinity's exponent is all ones.
                    half[1] &= 0xbf;
                }
                bytes.extend(block);
            }
            let storage = QStorage::from_data(Cow::Borrowed(&bytes), &Device::Cpu, format.dtype());
            let reference = QTensor::new(storage.unwrap(), (rows, columns)).unwrap();
            let reference = reference.dequantize(&Device::Cpu).unwrap();
            let reference: Vec<Vec<f32>> = reference.to_vec2().unwrap();
            let blocks = Blocks::of(format, &bytes, rows, columns).unwrap();
            for (i, reference) in reference.iter().enumerate() {
                let mut row = vec![f32::NAN; columns];
                blocks.row(i, &mut row);
                let bits = |row: &[f32]| row.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&row), bits(reference), "{format:?} row {i}");
            }
        }
    }

    #[test]
    fn what_is_no_such_matrix_is_refused() {
        assert!(Blocks::of(BlockFormat::Q8_0, &[0; 34], 1, 64).is_none());
        assert!(Blocks::of(BlockFormat::Q4_K, &[0; 144], 1, 32).is_none());
        assert!(Blocks::of(BlockFormat::Q4_K, &[0; 144], 1, 256).is_some());
        assert!(Blocks::of(BlockFormat::Q4_K, &[], 0, 256).is_some());
    }
}
