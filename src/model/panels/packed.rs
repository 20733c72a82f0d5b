//! Panels of f32 and bf16 whose highest bytes are packed, without loss.
//!
//! Decoding waits for memory, and of the highest byte of a number, its sign and the upper seven bits of its exponent,
//! neighbouring weights have a few values only: four bits say which. (DFloat11 packs the exponents of bf16 for graphics
//! processors, by Huffman's code.) An f32 takes 28 bits, a bf16 12.
//!
//! A panel is made of pieces of [`TOGETHER`] columns, the last of which may have fewer. A piece begins with [`HEADER`]
//! bytes: sixteen numbers whose highest bytes are those of the piece, the rest of them zero. Groups of [`GROUP`] columns
//! follow, the last filled up with zeros: of each column the lower bytes of its rows, then of each column [`CODES`] bytes,
//! which of the sixteen row j has in the lower half of byte j and row j + 16 in the upper. A group is a whole number of cache
//! lines, and so everything a step needs lies together. Where there are more than sixteen, the very first bit is set and the
//! numbers follow as they are.

use super::sums::TOGETHER;
use super::{WIDTH, turn_with};
use rayon::prelude::*;
use std::sync::Arc;

/// Bytes at the beginning of a piece.
pub(super) const HEADER: usize = 64;
/// Columns whose codes follow their lower bytes.
pub(super) const GROUP: usize = 4;
/// Bytes of a column's codes.
pub(super) const CODES: usize = WIDTH / 2;
/// Highest bytes that have a code.
const MOST: usize = 16;

/// Bytes of a group of columns of which `low` bytes a number are as they are.
pub(super) const fn group(low: usize) -> usize {
    GROUP * (WIDTH * low + CODES)
}

/// Bytes of a piece of so many columns.
pub(super) const fn piece(columns: usize, low: usize, packed: bool) -> usize {
    HEADER
        + match packed {
            true => columns.div_ceil(GROUP) * group(low),
            false => columns * WIDTH * (low + 1),
        }
}

/// The panels of a matrix.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    bytes: Arc<Vec<u8>>,
    /// Where each panel starts, at a cache line, and where the last one ends.
    starts: Arc<Vec<usize>>,
    /// Bytes of a number below its highest: 3 of an f32, 1 of a bf16.
    low: usize,
}

impl Packed {
    /// Rows of `columns` numbers, `bits` telling each as those of an f32, of which all below the `low` bytes after the
    /// highest are zero; none if they took more than `most` bytes.
    pub(super) fn of<T: Copy + Sync>(
        rows: &[T],
        columns: usize,
        low: usize,
        most: usize,
        bits: impl Fn(T) -> u32 + Copy + Sync,
    ) -> Option<Self> {
        if most == 0 {
            return None;
        }
        let pieces = columns.div_ceil(TOGETHER).max(1);
        let panel = (WIDTH * columns).max(1);
        let mut all = vec![Highs::default(); rows.len().div_ceil(panel) * pieces];
        all.par_chunks_mut(pieces)
            .zip(rows.par_chunks(panel))
            .for_each_init(
                || vec![[0; 256]; pieces],
                |seen, (highs, rows)| {
                    seen.as_flattened_mut().fill(0);
                    for row in rows.chunks_exact(columns) {
                        for (numbers, seen) in row.chunks(TOGETHER).zip(seen.iter_mut()) {
                            for v in numbers {
                                seen[(bits(*v) >> 24) as usize] = 1;
                            }
                        }
                    }
                    for (highs, seen) in highs.iter_mut().zip(seen) {
                        *highs = Highs::of(seen);
                    }
                },
            );
        let sizes = all.chunks(pieces).map(|panel| {
            let pieces = panel.iter().enumerate();
            let sizes = pieces.map(|(i, highs)| {
                let columns = TOGETHER.min(columns - i * TOGETHER);
                piece(columns, low, highs.packed())
            });
            sizes.sum::<usize>()
        });
        let sizes: Vec<usize> = sizes.collect();
        let sum: usize = sizes.iter().sum();
        if sum > most {
            return None;
        }
        let mut bytes = vec![0; sum + HEADER];
        let first = bytes.as_ptr().align_offset(HEADER).min(HEADER);
        let mut starts = vec![first];
        let mut rest = &mut bytes[first..];
        let mut parts = Vec::with_capacity(sizes.len());
        for size in sizes {
            let (part, after) = rest.split_at_mut(size);
            starts.push(starts.last().copied().unwrap_or_default() + size);
            parts.push(part);
            rest = after;
        }
        parts
            .into_par_iter()
            .zip(rows.par_chunks(panel))
            .zip(all.par_chunks(pieces))
            .for_each_init(
                || vec![0; panel],
                |panel, ((out, rows), highs)| {
                    turn_with(rows, columns, WIDTH, panel, bits);
                    let count = rows.len() / columns;
                    match low {
                        3 => write::<3>(panel, count, highs, out),
                        _ => write::<1>(panel, count, highs, out),
                    }
                },
            );
        Some(Self {
            bytes: Arc::new(bytes),
            starts: Arc::new(starts),
            low,
        })
    }

    /// Bytes of a number below its highest.
    pub(super) fn low(&self) -> usize {
        self.low
    }

    /// How many panels there are.
    pub(super) fn panels(&self) -> usize {
        self.starts.len() - 1
    }

    /// The bytes of some panels; those beyond the last have none.
    pub(super) fn bytes(&self, panels: std::ops::Range<usize>) -> &[u8] {
        let last = self.panels();
        &self.bytes[self.starts[panels.start.min(last)]..self.starts[panels.end.min(last)]]
    }

    /// Whether both lie in the same memory.
    #[cfg(test)]
    pub(super) fn same_memory(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.bytes, &other.bytes)
    }

    /// Row `row`, which must be one of the matrix, in f32.
    pub(super) fn row(&self, row: usize, out: &mut [f32]) {
        let (panel, at) = (row / WIDTH, row % WIDTH);
        let mut panel = self.bytes(panel..panel + 1);
        let low = self.low;
        for out in out.chunks_mut(TOGETHER) {
            let packed = panel[0] & 1 == 0;
            let (this, rest) = panel.split_at(piece(out.len(), low, packed));
            let (header, numbers) = this.split_at(HEADER);
            for (column, out) in out.iter_mut().enumerate() {
                let mut bytes = [0; 4];
                if packed {
                    let group = &numbers[column / GROUP * group(low)..];
                    let (lows, codes) = group.split_at(GROUP * WIDTH * low);
                    let column = column % GROUP;
                    let code = codes[column * CODES + at % CODES] >> (4 * (at / CODES)) & 15;
                    bytes[3 - low..3].copy_from_slice(&lows[(column * WIDTH + at) * low..][..low]);
                    bytes[3] = header[4 * usize::from(code) + 3];
                } else {
                    let from = (column * WIDTH + at) * (low + 1);
                    bytes[3 - low..].copy_from_slice(&numbers[from..=from + low]);
                }
                *out = f32::from_le_bytes(bytes);
            }
            panel = rest;
        }
    }
}

/// The highest bytes that there are in a piece, a bit for each.
#[derive(Clone, Copy, Default)]
struct Highs([u64; 4]);

impl Highs {
    /// Those that were marked.
    fn of(seen: &[u8; 256]) -> Self {
        let mut highs = Self::default();
        for (bits, seen) in highs.0.iter_mut().zip(seen.chunks(64)) {
            for (i, seen) in seen.iter().enumerate() {
                *bits |= u64::from(*seen) << i;
            }
        }
        highs
    }

    /// Whether there are few enough.
    fn packed(self) -> bool {
        self.0.iter().map(|bits| bits.count_ones()).sum::<u32>() <= MOST as u32
    }

    /// Each of them, in order.
    fn each(self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(move |high| self.0[usize::from(high / 64)] >> (high % 64) & 1 == 1)
    }
}

/// A panel `[column][row]` of bits of f32, of which the first `count` rows are of the matrix.
fn write<const LOW: usize>(panel: &mut [u32], count: usize, highs: &[Highs], mut out: &mut [u8]) {
    for (columns, highs) in panel.chunks_mut(TOGETHER * WIDTH).zip(highs) {
        let size = piece(columns.len() / WIDTH, LOW, highs.packed());
        let (this, rest) = out.split_at_mut(size);
        out = rest;
        let (header, numbers) = this.split_at_mut(HEADER);
        if !highs.packed() {
            header[0] = 1;
            for (out, v) in numbers.chunks_exact_mut(LOW + 1).zip(&*columns) {
                out.copy_from_slice(&v.to_le_bytes()[3 - LOW..]);
            }
            continue;
        }
        let mut codes = [0; 256];
        for (code, high) in highs.each().enumerate() {
            header[4 * code + 3] = high;
            codes[usize::from(high)] = code as u8;
        }
        // Nobody asks for the sums of rows beyond the last: any number that has a code will do.
        let fill = u32::from(header[3]) << 24;
        for column in columns.chunks_exact_mut(WIDTH) {
            column[count..].fill(fill);
        }
        let groups = numbers.chunks_exact_mut(group(LOW));
        for (out, columns) in groups.zip(columns.chunks(GROUP * WIDTH)) {
            let (lows, places) = out.split_at_mut(GROUP * WIDTH * LOW);
            let (lows, _) = lows.as_chunks_mut::<LOW>();
            for (out, v) in lows.iter_mut().zip(columns) {
                out.copy_from_slice(&v.to_le_bytes()[3 - LOW..3]);
            }
            for (out, column) in places
                .chunks_exact_mut(CODES)
                .zip(columns.chunks_exact(WIDTH))
            {
                let (low, high) = column.split_at(CODES);
                for ((out, a), b) in out.iter_mut().zip(low).zip(high) {
                    *out = codes[(a >> 24) as usize] | codes[(b >> 24) as usize] << 4;
                }
            }
        }
    }
}
