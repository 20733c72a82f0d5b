//! Blocked products of rows with rows, in register tiles.
//!
//! Blocking changes what is computed next to what, never the order in which one output number is summed: see
//! [`super::lanes`].
#![allow(unsafe_code)]

use super::lanes::Lanes;

/// Weight rows that stay in the nearest cache while all input rows pass by.
const TILE: usize = 48;

/// All products of the rows of `w` with the `rows` rows of `x` (both `columns` long), `out[row][weight row]`.
///
/// # Safety
/// The processor must have the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn products<L: Lanes>(
    x: &[f32],
    w: &[f32],
    columns: usize,
    out: &mut [&mut [f32]],
) {
    let (rows, weights) = (out.len(), w.len() / columns);
    assert!(x.len() >= rows * columns && w.len() == weights * columns);
    assert!(out.iter().all(|out| out.len() >= weights));
    // Rows in groups of about the same size, none larger than a register tile.
    let groups = rows.div_ceil(L::COLUMNS);
    let job = Job {
        x: x.as_ptr(),
        w: w.as_ptr(),
        columns,
    };
    for first in (0..weights).step_by(TILE) {
        let end = weights.min(first + TILE);
        for i in 0..groups {
            let (from, to) = (i * rows / groups, (i + 1) * rows / groups);
            let mut m = first;
            while m < end {
                let take = if end - m >= L::ROWS { L::ROWS } else { 1 };
                // SAFETY: the processor is the caller's; all indices of rows are below `rows` and `weights`.
                unsafe { job.group::<L>(m, take, from, to - from, out) }
                m += take;
            }
        }
    }
}

struct Job {
    x: *const f32,
    w: *const f32,
    columns: usize,
}

impl Job {
    /// Weight rows `m..m + take` with input rows `n..n + count`, where `take` is 1 or all of a register tile.
    #[inline(always)]
    unsafe fn group<L: Lanes>(
        &self,
        m: usize,
        take: usize,
        n: usize,
        count: usize,
        out: &mut [&mut [f32]],
    ) {
        // SAFETY: the caller's.
        unsafe {
            match (take, count) {
                (1, 1) => self.tile::<L, 1, 1>(m, n, out),
                (1, 2) => self.tile::<L, 1, 2>(m, n, out),
                (1, 3) => self.tile::<L, 1, 3>(m, n, out),
                (1, 4) => self.tile::<L, 1, 4>(m, n, out),
                (1, 5) => self.tile::<L, 1, 5>(m, n, out),
                (1, _) => self.tile::<L, 1, 6>(m, n, out),
                (_, 1) if L::ROWS == 3 => self.tile::<L, 3, 1>(m, n, out),
                (_, _) if L::ROWS == 3 => self.tile::<L, 3, 2>(m, n, out),
                (_, 1) => self.tile::<L, 4, 1>(m, n, out),
                (_, 2) => self.tile::<L, 4, 2>(m, n, out),
                (_, 3) => self.tile::<L, 4, 3>(m, n, out),
                (_, 4) => self.tile::<L, 4, 4>(m, n, out),
                (_, 5) => self.tile::<L, 4, 5>(m, n, out),
                (_, _) => self.tile::<L, 4, 6>(m, n, out),
            }
        }
    }

    #[inline(always)]
    unsafe fn tile<L: Lanes, const R: usize, const C: usize>(
        &self,
        m: usize,
        n: usize,
        out: &mut [&mut [f32]],
    ) {
        // SAFETY: the caller's; the last of the R and C rows still lies within `w` and `x`.
        unsafe {
            let mut w = [self.w; R];
            for (r, w) in w.iter_mut().enumerate() {
                *w = w.add((m + r) * self.columns);
            }
            let mut x = [self.x; C];
            for (c, x) in x.iter_mut().enumerate() {
                *x = x.add((n + c) * self.columns);
            }
            let sums = L::tile::<R, C>(w, x, self.columns);
            for (c, sums) in sums.iter().enumerate() {
                out[n + c][m..m + R].copy_from_slice(sums);
            }
        }
    }
}

/// `R × C` dot products of `columns` numbers each, `[x row][weight row]`.
///
/// # Safety
/// The processor must have the instructions of `L`, and every pointer be followed by `columns` numbers.
#[inline(always)]
pub(super) unsafe fn sums<L: Lanes, const R: usize, const C: usize>(
    w: [*const f32; R],
    x: [*const f32; C],
    columns: usize,
) -> [[f32; R]; C] {
    // SAFETY: the caller's.
    unsafe {
        let acc = dots::<L, R, C>(w, x, columns);
        reduced::<L, R, C>(&acc)
    }
}

/// The sums of lanes `[weight row][x row]`, `[x row][weight row]`.
///
/// # Safety
/// The processor must have the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn reduced<L: Lanes, const R: usize, const C: usize>(
    acc: &[[L; C]; R],
) -> [[f32; R]; C] {
    // SAFETY: the caller's.
    unsafe {
        let mut out = [[0.0; R]; C];
        let mut c = 0;
        while c < C {
            if R > 1 && C - c >= 3 {
                // Sixteen at once; what is missing repeats what is there.
                let mut all = [[L::zero(); 4]; 4];
                for r in 0..4 {
                    for i in 0..4 {
                        all[r][i] = acc[r.min(R - 1)][(c + i).min(C - 1)];
                    }
                }
                let sums = L::transposed_sums(all);
                for i in 0..4.min(C - c) {
                    out[c + i].copy_from_slice(&sums[i][..R]);
                }
                c += 4;
            } else {
                let mut four = [L::zero(); 4];
                for r in 0..4 {
                    four[r] = acc[r.min(R - 1)][c];
                }
                out[c].copy_from_slice(&L::sums(four)[..R]);
                c += 1;
            }
        }
        out
    }
}

/// The lanes of `R × C` dot products of `columns` numbers each.
#[inline(always)]
unsafe fn dots<L: Lanes, const R: usize, const C: usize>(
    w: [*const f32; R],
    x: [*const f32; C],
    columns: usize,
) -> [[L; C]; R] {
    let whole = columns / 16 * 16;
    // SAFETY: every pointer is followed by `columns` numbers, as the caller promises.
    unsafe {
        let mut acc = [[L::zero(); C]; R];
        let mut k = 0;
        while k < whole {
            step::<L, R, C>(&mut acc, &w, &x, k);
            k += 16;
        }
        if whole < columns {
            // What is beyond the end adds products of zeros.
            let mut ws = [[0.0f32; 16]; R];
            let mut xs = [[0.0f32; 16]; C];
            let (mut w_ends, mut x_ends) = (w, x);
            for r in 0..R {
                ws[r][..columns - whole].copy_from_slice(rest(w[r], whole, columns));
                w_ends[r] = ws[r].as_ptr();
            }
            for c in 0..C {
                xs[c][..columns - whole].copy_from_slice(rest(x[c], whole, columns));
                x_ends[c] = xs[c].as_ptr();
            }
            step::<L, R, C>(&mut acc, &w_ends, &x_ends, 0);
        }
        acc
    }
}

/// Numbers `from..to` of a row.
#[inline(always)]
unsafe fn rest<'a>(row: *const f32, from: usize, to: usize) -> &'a [f32] {
    // SAFETY: the row has `to` numbers, as the caller promises.
    unsafe { std::slice::from_raw_parts(row.add(from), to - from) }
}

#[inline(always)]
unsafe fn step<L: Lanes, const R: usize, const C: usize>(
    acc: &mut [[L; C]; R],
    w: &[*const f32; R],
    x: &[*const f32; C],
    k: usize,
) {
    // SAFETY: every pointer is followed by k + 16 numbers, as the caller promises.
    unsafe {
        let mut xs = [L::zero(); C];
        for c in 0..C {
            xs[c] = L::load(x[c].add(k));
        }
        for r in 0..R {
            let row = L::load(w[r].add(k));
            for c in 0..C {
                acc[r][c] = acc[r][c].add_product(row, xs[c]);
            }
        }
    }
}
