//! Dense products on the CPU whose every output number is summed in one fixed order.
//!
//! `y[n][m] = Σ_k x[n][k] · w[m][k]`: sixteen lanes over k, then a fixed tree. How many rows are computed together, on
//! how many threads and in which tiles makes no difference to a single bit, so cached decoding equals recomputing,
//! chunked prefill equals one-shot, and a branch does not see its neighbours. Weights are read once for all rows.

use super::blocks::{BlockFormat, q4_0_as_bytes};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

/// Lanes of a partial sum.
const LANES: usize = 16;
/// Weight rows decoded together.
const TILE: usize = 24;
/// Products smaller than this many multiplications stay on one core.
const SERIAL: usize = 1 << 17;

/// A weight matrix `[rows, columns]`, row-major, in main memory.
#[derive(Clone, Copy, Debug)]
pub enum Matrix<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// 16-bit IEEE floats.
    F16(&'a [f16]),
    /// 16-bit brain floats.
    BF16(&'a [bf16]),
    /// Blocks as GGUF has them; a row is a whole number of them.
    Blocks(BlockFormat, &'a [u8]),
}

/// e^x for x ≤ 88: range reduction by ln 2 and a degree-6 polynomial, within 2 units in the last place; 0 below −87.
#[inline(always)]
#[must_use]
pub fn exp(x: f32) -> f32 {
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.0, 88.0);
    let n = (clamped * std::f32::consts::LOG2_E + 12_582_912.0) - 12_582_912.0;
    let r = (clamped - n * LN2_HI) - n * LN2_LO;
    let mut p = 1.987_569_2e-4f32;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    let scale = f32::from_bits((((n as i32) + 127) << 23) as u32);
    // NaN fails the comparison and stays NaN.
    if x < -87.0 { 0.0 } else { p * scale }
}

/// `y[n][m] += …` for `rows` rows of `x` (each `columns` long) against all rows of `w`; `y` is `[rows, m]`.
pub fn product(x: &[f32], w: Matrix<'_>, rows: usize, columns: usize, y: &mut [f32]) {
    if rows == 0 || columns == 0 || y.is_empty() {
        y.fill(0.0);
        return;
    }
    let outputs = y.len() / rows;
    let work = rows * outputs * columns;
    let threads = rayon::current_num_threads();
    if work < SERIAL || threads == 1 {
        if rows == 1 {
            strip(x, w, rows, columns, 0, y);
        } else {
            let mut part = vec![0.0; rows * outputs];
            strip(x, w, rows, columns, 0, &mut part);
            scatter(&part, rows, outputs, 0, y);
        }
        return;
    }
    // One long sequential stream a task; a few tasks a thread even out the load.
    let span = outputs.div_ceil(threads * 4).next_multiple_of(TILE);
    if rows == 1 {
        y.par_chunks_mut(span)
            .enumerate()
            .for_each(|(i, part)| strip(x, w, 1, columns, i * span, part));
        return;
    }
    let parts: Vec<(usize, Vec<f32>)> = (0..outputs.div_ceil(span))
        .into_par_iter()
        .map(|i| {
            let first = i * span;
            let mut part = vec![0.0; rows * span.min(outputs - first)];
            strip(x, w, rows, columns, first, &mut part);
            (first, part)
        })
        .collect();
    for (first, part) in parts {
        scatter(&part, rows, outputs, first, y);
    }
}

/// Copy a strip `[outputs of the strip][rows]` into its place in `y` `[rows, outputs]`.
fn scatter(part: &[f32], rows: usize, outputs: usize, first: usize, y: &mut [f32]) {
    for (j, column) in part.chunks(rows).enumerate() {
        for (n, v) in column.iter().enumerate() {
            y[n * outputs + first + j] = *v;
        }
    }
}

/// The products of weight rows `first..` with all rows of `x`, written as `[weight row][x row]`.
fn strip(x: &[f32], w: Matrix<'_>, rows: usize, columns: usize, first: usize, part: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the features that the function was compiled for were found on this processor just above.
        #[allow(unsafe_code)]
        unsafe {
            return strip_avx2(x, w, rows, columns, first, part);
        }
    }
    strip_portable(x, w, rows, columns, first, part);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn strip_avx2(
    x: &[f32],
    w: Matrix<'_>,
    rows: usize,
    columns: usize,
    first: usize,
    part: &mut [f32],
) {
    strip_with::<true>(x, w, rows, columns, first, part);
}

fn strip_portable(
    x: &[f32],
    w: Matrix<'_>,
    rows: usize,
    columns: usize,
    first: usize,
    part: &mut [f32],
) {
    strip_with::<false>(x, w, rows, columns, first, part);
}

#[inline(always)]
fn strip_with<const FMA: bool>(
    x: &[f32],
    w: Matrix<'_>,
    rows: usize,
    columns: usize,
    first: usize,
    part: &mut [f32],
) {
    let count = part.len() / rows;
    let mut scratch = Vec::new();
    let mut done = 0;
    while done < count {
        let take = TILE.min(count - done);
        let at = (first + done) * columns;
        let tile: &[f32] = match w {
            Matrix::F32(w) => &w[at..at + take * columns],
            Matrix::F16(w) => {
                scratch.resize(take * columns, 0.0);
                w[at..at + take * columns].convert_to_f32_slice(&mut scratch);
                &scratch
            }
            Matrix::BF16(w) => {
                scratch.resize(take * columns, 0.0);
                for (o, v) in scratch.iter_mut().zip(&w[at..at + take * columns]) {
                    // A bf16 is the upper half of its f32.
                    *o = f32::from_bits(u32::from(v.to_bits()) << 16);
                }
                &scratch
            }
            Matrix::Blocks(format, w) => {
                scratch.resize(take * columns, 0.0);
                let (numbers, bytes) = (format.numbers(), format.bytes());
                let blocks = &w[at / numbers * bytes..(at + take * columns) / numbers * bytes];
                widen::<FMA>(format, blocks, &mut scratch);
                &scratch
            }
        };
        products::<FMA>(
            x,
            tile,
            rows,
            columns,
            &mut part[done * rows..(done + take) * rows],
        );
        done += take;
    }
}

/// All products of the rows of `tile` with the rows of `x`, in register tiles of 3 × 2.
#[inline(always)]
fn products<const FMA: bool>(
    x: &[f32],
    tile: &[f32],
    rows: usize,
    columns: usize,
    out: &mut [f32],
) {
    let weights = tile.len() / columns;
    let w = |i: usize| &tile[i * columns..(i + 1) * columns];
    let x = |i: usize| &x[i * columns..(i + 1) * columns];
    let mut m = 0;
    while m + 3 <= weights {
        let mut n = 0;
        while n + 2 <= rows {
            let y = dots::<3, 2, FMA>([w(m), w(m + 1), w(m + 2)], [x(n), x(n + 1)]);
            for (i, y) in y.iter().enumerate() {
                out[(m + i) * rows + n] = y[0];
                out[(m + i) * rows + n + 1] = y[1];
            }
            n += 2;
        }
        if n < rows {
            let y = dots::<3, 1, FMA>([w(m), w(m + 1), w(m + 2)], [x(n)]);
            for (i, y) in y.iter().enumerate() {
                out[(m + i) * rows + n] = y[0];
            }
        }
        m += 3;
    }
    while m < weights {
        for n in 0..rows {
            out[m * rows + n] = dots::<1, 1, FMA>([w(m)], [x(n)])[0][0];
        }
        m += 1;
    }
}

/// `R × C` dot products at once, each in sixteen lanes and summed by the same tree.
#[inline(always)]
fn dots<const R: usize, const C: usize, const FMA: bool>(
    w: [&[f32]; R],
    x: [&[f32]; C],
) -> [[f32; C]; R] {
    let columns = x[0].len();
    let whole = columns / LANES * LANES;
    let mut acc = partial::<R, C, FMA>(w, x, whole);
    let mut out = [[0.0; C]; R];
    for r in 0..R {
        for c in 0..C {
            for (l, k) in (whole..columns).enumerate() {
                acc[r][c][l] = step::<FMA>(w[r][k], x[c][k], acc[r][c][l]);
            }
            out[r][c] = tree(&acc[r][c]);
        }
    }
    out
}

/// The sixteen lanes of `R × C` dot products over the first `whole` columns.
#[inline(always)]
fn partial<const R: usize, const C: usize, const FMA: bool>(
    w: [&[f32]; R],
    x: [&[f32]; C],
    whole: usize,
) -> [[[f32; LANES]; C]; R] {
    #[cfg(target_arch = "x86_64")]
    if FMA {
        // SAFETY: `FMA` is only set below `strip_avx2`, where the features were found on this processor.
        #[allow(unsafe_code)]
        return unsafe { partial_avx2(w, x, whole) };
    }
    let mut acc = [[[0.0f32; LANES]; C]; R];
    for k in (0..whole).step_by(LANES) {
        for r in 0..R {
            for c in 0..C {
                let (w, x) = (&w[r][k..k + LANES], &x[c][k..k + LANES]);
                for ((acc, w), x) in acc[r][c].iter_mut().zip(w).zip(x) {
                    *acc = step::<FMA>(*w, *x, *acc);
                }
            }
        }
    }
    acc
}

/// [`partial`] in two registers of eight lanes for each product. The compiler does not find these by itself.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline]
#[allow(unsafe_code)]
fn partial_avx2<const R: usize, const C: usize>(
    w: [&[f32]; R],
    x: [&[f32]; C],
    whole: usize,
) -> [[[f32; LANES]; C]; R] {
    use std::arch::x86_64::{
        __m256, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps, _mm256_storeu_ps,
    };
    assert!(w.iter().chain(&x).all(|v| v.len() >= whole));
    let mut acc = [[[_mm256_setzero_ps(); 2]; C]; R];
    let mut k = 0;
    while k + LANES <= whole {
        // SAFETY: k + 16 ≤ whole, and every slice is at least `whole` long.
        let load = |v: &[f32], half: usize| -> __m256 {
            unsafe { _mm256_loadu_ps(v.as_ptr().add(k + 8 * half)) }
        };
        let mut xs = [[_mm256_setzero_ps(); 2]; C];
        for c in 0..C {
            xs[c] = [load(x[c], 0), load(x[c], 1)];
        }
        for r in 0..R {
            let (low, high) = (load(w[r], 0), load(w[r], 1));
            for c in 0..C {
                acc[r][c][0] = _mm256_fmadd_ps(low, xs[c][0], acc[r][c][0]);
                acc[r][c][1] = _mm256_fmadd_ps(high, xs[c][1], acc[r][c][1]);
            }
        }
        k += LANES;
    }
    let mut out = [[[0.0; LANES]; C]; R];
    for r in 0..R {
        for c in 0..C {
            // SAFETY: sixteen lanes hold two times eight.
            unsafe {
                _mm256_storeu_ps(out[r][c].as_mut_ptr(), acc[r][c][0]);
                _mm256_storeu_ps(out[r][c].as_mut_ptr().add(8), acc[r][c][1]);
            }
        }
    }
    out
}

/// Blocks as f32, with the processor's own instructions where the portable loop is known to be slower.
#[inline(always)]
fn widen<const FMA: bool>(format: BlockFormat, blocks: &[u8], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if FMA && format == BlockFormat::Q8_0 {
        let (blocks, _) = blocks.as_chunks::<34>();
        let (outs, _) = out.as_chunks_mut::<32>();
        for (out, block) in outs.iter_mut().zip(blocks) {
            let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
            if let Some(quants) = block[2..].first_chunk() {
                // SAFETY: as in `partial`.
                #[allow(unsafe_code)]
                unsafe {
                    widen_avx2(scale, quants, out);
                }
            }
        }
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if FMA && format == BlockFormat::Q4_0 {
        let (blocks, _) = blocks.as_chunks::<18>();
        let (outs, _) = out.as_chunks_mut::<32>();
        for (out, block) in outs.iter_mut().zip(blocks) {
            let (scale, quants) = q4_0_as_bytes(block);
            // SAFETY: as in `partial`.
            #[allow(unsafe_code)]
            unsafe {
                widen_avx2(scale, &quants, out);
            }
        }
        return;
    }
    format.widen(blocks, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
#[allow(unsafe_code)]
fn widen_avx2(scale: f32, quants: &[u8; 32], out: &mut [f32; 32]) {
    use std::arch::x86_64::{
        _mm_loadl_epi64, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps, _mm256_mul_ps, _mm256_set1_ps,
        _mm256_storeu_ps,
    };
    let scale = _mm256_set1_ps(scale);
    for part in 0..4 {
        // SAFETY: 8 · part + 8 ≤ 32, the length of both arrays; loads and stores need no alignment.
        unsafe {
            let bytes = _mm_loadl_epi64(quants.as_ptr().add(8 * part).cast());
            let wide = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
            _mm256_storeu_ps(out.as_mut_ptr().add(8 * part), _mm256_mul_ps(scale, wide));
        }
    }
}

#[inline(always)]
fn step<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn tree(acc: &[f32; LANES]) -> f32 {
    let mut v = *acc;
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            v[i] += v[i + half];
        }
        half /= 2;
    }
    v[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    fn random(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    #[test]
    fn products_equal_the_float64_reference_and_do_not_depend_on_company() {
        for (rows, columns, outputs) in [
            (1, 16, 5),
            (2, 33, 7),
            (13, 192, 3072),
            (5, 7, 1),
            (96, 64, 400),
        ] {
            let (x, w) = (random(rows * columns, 1), random(outputs * columns, 2));
            let mut y = vec![0.0; rows * outputs];
            product(&x, Matrix::F32(&w), rows, columns, &mut y);
            for n in 0..rows {
                let mut alone = vec![0.0; outputs];
                product(
                    &x[n * columns..(n + 1) * columns],
                    Matrix::F32(&w),
                    1,
                    columns,
                    &mut alone,
                );
                for m in 0..outputs {
                    let exact: f64 = (0..columns)
                        .map(|k| f64::from(x[n * columns + k]) * f64::from(w[m * columns + k]))
                        .sum();
                    assert!((f64::from(y[n * outputs + m]) - exact).abs() < 1e-5);
                    assert_eq!(y[n * outputs + m].to_bits(), alone[m].to_bits());
                }
            }
        }
    }

    #[test]
    fn the_portable_path_agrees_with_the_detected_one() {
        let (x, w) = (random(3 * 100, 3), random(11 * 100, 4));
        let (mut a, mut b) = (vec![0.0; 33], vec![0.0; 33]);
        strip(&x, Matrix::F32(&w), 3, 100, 0, &mut a);
        strip_portable(&x, Matrix::F32(&w), 3, 100, 0, &mut b);
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() < 1e-5);
        }
    }

    #[test]
    fn q8_blocks_and_half_floats_are_decoded() {
        let w = random(6 * 64, 5);
        let x = random(2 * 64, 6);
        let mut blocks = Vec::new();
        let mut plain = Vec::new();
        for chunk in w.chunks(32) {
            let scale = f16::from_f32(chunk.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 127.0);
            blocks.extend_from_slice(&scale.to_le_bytes());
            for v in chunk {
                let q = (v / scale.to_f32()).round() as i8;
                blocks.push(q as u8);
                plain.push(scale.to_f32() * f32::from(q));
            }
        }
        let halves: Vec<f16> = plain.iter().map(|v| f16::from_f32(*v)).collect();
        let brains: Vec<bf16> = plain.iter().map(|v| bf16::from_f32(*v)).collect();
        let (mut a, mut b) = (vec![0.0; 12], vec![0.0; 12]);
        product(
            &x,
            Matrix::Blocks(BlockFormat::Q8_0, &blocks),
            2,
            64,
            &mut a,
        );
        product(&x, Matrix::F32(&plain), 2, 64, &mut b);
        assert_eq!(a, b);
        product(&x, Matrix::F16(&halves), 2, 64, &mut b);
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-2));
        product(&x, Matrix::BF16(&brains), 2, 64, &mut b);
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-1));
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for i in -86_000..88_000 {
            let x = i as f32 / 1000.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 2.5e-7, "{x}");
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(0.0), 1.0);
    }
}
