//! Products of a few rows with rows of Q8_0 blocks as they lie in memory: 34 bytes for 32 numbers.
//!
//! Every weight becomes the f32 that it stands for in a register, in the order in which [`super::tiles`] reads f32, so the
//! results are those of the widened matrix to the last bit.
#![allow(unsafe_code)]

use super::lanes::Lanes;
use super::tiles::{Ahead, reduced};
use half::f16;

/// Numbers and bytes of a block.
const NUMBERS: usize = 32;
const BYTES: usize = 34;

/// All products of weight rows in Q8_0 (`weights` of them, `columns` long) with the rows of `x`, `out[row][weight row]`.
///
/// # Safety
/// The processor must have the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn products<L: Lanes>(
    x: &[f32],
    blocks: &[u8],
    columns: usize,
    out: &mut [&mut [f32]],
) {
    let (rows, row_bytes) = (out.len(), columns / NUMBERS * BYTES);
    assert!(columns.is_multiple_of(NUMBERS) && row_bytes > 0 && x.len() >= rows * columns);
    let weights = blocks.len() / row_bytes;
    assert!(out.iter().all(|out| out.len() >= weights));
    let groups = rows.div_ceil(L::COLUMNS);
    let mut m = 0;
    while m < weights {
        let take = if weights - m >= L::ROWS { L::ROWS } else { 1 };
        // The next few weight rows are asked for on the way.
        let next = &blocks[(m + take) * row_bytes..blocks.len().min((m + 2 * take) * row_bytes)];
        let mut ahead = Ahead::over(next, groups * columns / NUMBERS);
        for group in 0..groups {
            let (from, to) = (group * rows / groups, (group + 1) * rows / groups);
            let job = Job {
                x: &x[from * columns..to * columns],
                w: &blocks[m * row_bytes..(m + take) * row_bytes],
                columns,
                row_bytes,
            };
            let out = &mut out[from..to];
            // SAFETY: the processor is the caller's.
            unsafe {
                match (take, to - from) {
                    (1, 1) => job.tile::<L, 1, 1>(m, out, &mut ahead),
                    (1, 2) => job.tile::<L, 1, 2>(m, out, &mut ahead),
                    (1, 3) => job.tile::<L, 1, 3>(m, out, &mut ahead),
                    (1, 4) => job.tile::<L, 1, 4>(m, out, &mut ahead),
                    (1, 5) => job.tile::<L, 1, 5>(m, out, &mut ahead),
                    (1, _) => job.tile::<L, 1, 6>(m, out, &mut ahead),
                    (_, 1) if L::ROWS == 3 => job.tile::<L, 3, 1>(m, out, &mut ahead),
                    (_, _) if L::ROWS == 3 => job.tile::<L, 3, 2>(m, out, &mut ahead),
                    (_, 1) => job.tile::<L, 4, 1>(m, out, &mut ahead),
                    (_, 2) => job.tile::<L, 4, 2>(m, out, &mut ahead),
                    (_, 3) => job.tile::<L, 4, 3>(m, out, &mut ahead),
                    (_, 4) => job.tile::<L, 4, 4>(m, out, &mut ahead),
                    (_, 5) => job.tile::<L, 4, 5>(m, out, &mut ahead),
                    (_, _) => job.tile::<L, 4, 6>(m, out, &mut ahead),
                }
            }
        }
        m += take;
    }
}

/// Some weight rows and some input rows.
struct Job<'a> {
    x: &'a [f32],
    w: &'a [u8],
    columns: usize,
    row_bytes: usize,
}

impl Job<'_> {
    #[inline(always)]
    unsafe fn tile<L: Lanes, const R: usize, const C: usize>(
        &self,
        m: usize,
        out: &mut [&mut [f32]],
        ahead: &mut Ahead,
    ) {
        assert!(self.w.len() == R * self.row_bytes && self.x.len() == C * self.columns);
        // SAFETY: the processor is the caller's; the rows are as long as asserted.
        unsafe {
            let sums = L::q8_tile::<R, C>(
                std::array::from_fn(|r| self.w.as_ptr().add(r * self.row_bytes)),
                std::array::from_fn(|c| self.x.as_ptr().add(c * self.columns)),
                self.columns / NUMBERS,
                ahead,
            );
            for (out, sums) in out.iter_mut().zip(&sums) {
                out[m..m + R].copy_from_slice(sums);
            }
        }
    }
}

/// `R × C` dot products of `blocks` blocks each, `[x row][weight row]`.
///
/// # Safety
/// The processor must have the instructions of `L`, and every pointer be followed by so many blocks or their numbers.
#[inline(always)]
pub(super) unsafe fn sums<L: Lanes, const R: usize, const C: usize>(
    mut w: [*const u8; R],
    mut x: [*const f32; C],
    blocks: usize,
    ahead: &mut Ahead,
) -> [[f32; R]; C] {
    // SAFETY: the caller's.
    unsafe {
        let mut acc = [[L::zero(); C]; R];
        for _ in 0..blocks {
            let mut scales = [0.0f32; R];
            for r in 0..R {
                scales[r] = f16::from_le_bytes([*w[r], *w[r].add(1)]).to_f32_const();
            }
            for half in 0..2 {
                let mut xs = [L::zero(); C];
                for c in 0..C {
                    xs[c] = L::load(x[c].add(16 * half));
                }
                for r in 0..R {
                    let row = L::scaled(w[r].add(2 + 16 * half).cast(), scales[r]);
                    for c in 0..C {
                        acc[r][c] = acc[r][c].add_product(row, xs[c]);
                    }
                }
            }
            for w in &mut w {
                *w = w.add(BYTES);
            }
            for x in &mut x {
                *x = x.add(NUMBERS);
            }
            ahead.step::<L>();
        }
        reduced::<L, R, C>(&acc)
    }
}
