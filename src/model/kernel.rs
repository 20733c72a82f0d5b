//! Dense products on the CPU whose every output number is summed in one fixed order.
//!
//! `y[n][m] = Σ_k x[n][k] · w[m][k]`: sixteen lanes over k, then a fixed tree. How many rows are computed together, on
//! how many threads and in which tiles makes no difference to a single bit, so cached decoding equals recomputing,
//! chunked prefill equals one-shot, and a branch does not see its neighbours. Weights are read once for all rows.

use super::blocks::BlockFormat;
#[cfg(target_arch = "x86_64")]
use super::blocks::q4_0_as_bytes;
use super::lanes::{self, Lanes};
use super::tiles::products;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

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
    // So large a sum has no digits left below one, and its last bits are the whole number.
    let shifted = clamped * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = shifted - 12_582_912.0;
    let r = (clamped - n * LN2_HI) - n * LN2_LO;
    let mut p = 1.987_569_2e-4f32;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    // NaN fails the comparison and stays NaN.
    if x < -87.0 { 0.0 } else { p * scale }
}

/// tanh x within 2⁻²² of its size.
#[inline(always)]
#[must_use]
pub fn tanh(x: f32) -> f32 {
    let e = exp(-2.0 * x.abs());
    let far = ((1.0 - e) / (1.0 + e)).copysign(x);
    // Near 0 that would be a small difference of ones.
    let s = x * x;
    let mut p = -5.704_988_7e-3f32;
    p = p * s + 2.063_909e-2;
    p = p * s - 5.373_971_6e-2;
    p = p * s + 1.333_144_2e-1;
    p = p * s - 3.333_328e-1;
    let near = p * s * x + x;
    if x.abs() < 0.625 { near } else { far }
}

/// `y[n][m] = …` for `rows` rows of `x` (each `columns` long) against all rows of `w`; `y` is `[rows, m]`.
pub fn product(x: &[f32], w: Matrix<'_>, rows: usize, columns: usize, y: &mut [f32]) {
    products_of(x, rows, columns, vec![(w, y)]);
}

/// [`product`] of the same rows with several matrices, in one go: `y` of each is `[rows, m]`.
pub fn products_of(x: &[f32], rows: usize, columns: usize, mut all: Vec<(Matrix<'_>, &mut [f32])>) {
    if rows == 0 || columns == 0 {
        all.iter_mut().for_each(|(_, y)| y.fill(0.0));
        return;
    }
    let outputs: usize = all.iter().map(|(_, y)| y.len() / rows).sum();
    let threads = match rows * outputs * columns < SERIAL {
        true => 1,
        false => rayon::current_num_threads(),
    };
    // One long sequential stream a task; a few tasks a thread even out the load.
    let span = match threads {
        1 => usize::MAX,
        _ => outputs.div_ceil(threads * 4).next_multiple_of(TILE),
    };
    let mut tasks: Vec<Task<'_>> = Vec::with_capacity(threads * 4 + all.len());
    for (w, y) in all {
        let outputs = y.len() / rows;
        if outputs == 0 {
            continue;
        }
        let first = tasks.len();
        let span = span.min(outputs);
        tasks.extend((0..outputs).step_by(span).map(|at| Task {
            w,
            first: at,
            out: Vec::with_capacity(rows),
        }));
        for row in y.chunks_exact_mut(outputs) {
            for (task, part) in tasks[first..].iter_mut().zip(row.chunks_mut(span)) {
                task.out.push(part);
            }
        }
    }
    if tasks.len() < 2 || threads == 1 {
        tasks
            .iter_mut()
            .for_each(|t| strip(x, t.w, columns, t.first, &mut t.out));
    } else {
        tasks
            .par_iter_mut()
            .with_max_len(1)
            .for_each(|t| strip(x, t.w, columns, t.first, &mut t.out));
    }
}

/// The outputs `first..` of one matrix, a piece of each row.
struct Task<'a> {
    w: Matrix<'a>,
    first: usize,
    out: Vec<&'a mut [f32]>,
}

/// The products of weight rows `first..` with the rows of `x` on this thread, `out[x row][weight row]`: as many weight
/// rows as each row of `out` is long.
pub(crate) fn strip(
    x: &[f32],
    w: Matrix<'_>,
    columns: usize,
    first: usize,
    out: &mut [&mut [f32]],
) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the features that the functions were compiled for were found on this processor.
        #[allow(unsafe_code)]
        unsafe {
            if is_x86_feature_detected!("avx512f") {
                return strip_avx512(x, w, columns, first, out);
            }
            return strip_avx2(x, w, columns, first, out);
        }
    }
    #[cfg(target_arch = "aarch64")]
    strip_with::<lanes::arm::Neon, false>(x, w, columns, first, out);
    #[cfg(not(target_arch = "aarch64"))]
    strip_with::<lanes::Plain, false>(x, w, columns, first, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
fn strip_avx512(x: &[f32], w: Matrix<'_>, columns: usize, first: usize, out: &mut [&mut [f32]]) {
    strip_with::<lanes::x86::Avx512, true>(x, w, columns, first, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn strip_avx2(x: &[f32], w: Matrix<'_>, columns: usize, first: usize, out: &mut [&mut [f32]]) {
    strip_with::<lanes::x86::Avx2, true>(x, w, columns, first, out);
}

#[inline(always)]
fn strip_with<L: Lanes, const FMA: bool>(
    x: &[f32],
    w: Matrix<'_>,
    columns: usize,
    first: usize,
    out: &mut [&mut [f32]],
) {
    let count = out.first().map_or(0, |out| out.len());
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
        let ahead = TILE.min(count - done - take) * columns;
        let next = bytes(w, at + take * columns, ahead);
        let mut part: Vec<&mut [f32]> = out
            .iter_mut()
            .map(|out| &mut out[done..done + take])
            .collect();
        // SAFETY: `L` is only something else than what every processor has below `strip_avx2` and `strip_avx512`, where
        // the features were found on this one.
        #[allow(unsafe_code)]
        unsafe {
            products::<L>(x, tile, columns, &mut part, next);
        }
        done += take;
    }
}

/// Where `count` numbers of a matrix from `first` on lie.
fn bytes(w: Matrix<'_>, first: usize, count: usize) -> &[u8] {
    let end = first + count;
    match w {
        Matrix::F32(w) => plain(&w[first..end]),
        Matrix::F16(w) => plain(&w[first..end]),
        Matrix::BF16(w) => plain(&w[first..end]),
        Matrix::Blocks(format, w) => {
            let (numbers, bytes) = (format.numbers(), format.bytes());
            &w[first / numbers * bytes..end / numbers * bytes]
        }
    }
}

/// The bytes of plain numbers.
fn plain<T: Copy>(numbers: &[T]) -> &[u8] {
    // SAFETY: `T` is one of the floats above, which are bytes without gaps.
    #[allow(unsafe_code)]
    unsafe {
        std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers))
    }
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
                // SAFETY: `FMA` is only set below `strip_avx2` and `strip_avx512`, where the features were found.
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
            // SAFETY: `FMA` is only set below `strip_avx2` and `strip_avx512`, where the features were found.
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

    /// Every instruction set this processor has, on every shape of tile: the ones that fuse agree to the last bit.
    #[test]
    fn all_instruction_sets_agree() {
        for (rows, columns, outputs) in [
            (1, 16, 1),
            (1, 100, 11),
            (2, 100, 11),
            (3, 5, 4),
            (4, 33, 9),
            (5, 64, 24),
            (6, 768, 25),
            (13, 100, 31),
            (20, 3072, 27),
        ] {
            let (x, w) = (random(rows * columns, 3), random(outputs * columns, 4));
            let run = |strip: &dyn Fn(&mut [&mut [f32]])| {
                let mut y = vec![0.0; rows * outputs];
                strip(&mut y.chunks_mut(outputs).collect::<Vec<_>>());
                y
            };
            let w = Matrix::F32(&w);
            let plain = run(&|out| strip_with::<lanes::Plain, false>(&x, w, columns, 0, out));
            let found = run(&|out| strip(&x, w, columns, 0, out));
            for (a, b) in plain.iter().zip(&found) {
                assert!((a - b).abs() < 1e-4, "{a} {b}");
            }
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: the features were found just above.
                #[allow(unsafe_code)]
                let narrow = run(&|out| unsafe { strip_avx2(&x, w, columns, 0, out) });
                assert_eq!(found, narrow, "{rows} rows of {columns}");
            }
        }
    }

    #[test]
    fn several_matrices_at_once_are_what_each_is_alone() {
        let (rows, columns) = (3, 257);
        let x = random(rows * columns, 8);
        let sizes = [700, 1, 0, 313];
        let ws: Vec<Vec<f32>> = sizes.iter().map(|m| random(m * columns, 9)).collect();
        let mut together: Vec<Vec<f32>> = sizes.iter().map(|m| vec![7.0; rows * m]).collect();
        let all = ws.iter().zip(&mut together);
        let all = all.map(|(w, y)| (Matrix::F32(w), y.as_mut_slice()));
        products_of(&x, rows, columns, all.collect());
        for (w, y) in ws.iter().zip(&together) {
            let mut alone = vec![0.0; y.len()];
            product(&x, Matrix::F32(w), rows, columns, &mut alone);
            assert_eq!(y, &alone);
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
    fn tanh_is_close_relative_to_its_size() {
        for i in -200_000i32..200_000 {
            let x = i as f32 / 10_000.0;
            let exact = f64::from(x).tanh();
            let off = (f64::from(tanh(x)) - exact).abs();
            assert!(off <= 2.5e-7 * exact.abs(), "{x}");
        }
        assert_eq!(tanh(f32::INFINITY), 1.0);
        assert_eq!(tanh(f32::NEG_INFINITY), -1.0);
        assert!(tanh(f32::NAN).is_nan());
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
