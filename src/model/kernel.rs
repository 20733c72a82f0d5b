//! Dense products on the CPU whose every output number is summed in one fixed order.
//!
//! `y[n][m] = Σ_k x[n][k] · w[m][k]`: sixteen lanes over k, then a fixed tree. How many rows are computed together, on
//! how many threads and in which tiles makes no difference to a single bit, so cached decoding equals recomputing,
//! chunked prefill equals one-shot, and a branch does not see its neighbours. Weights are read once for all rows.

use super::blocks::BlockFormat;
#[cfg(target_arch = "x86_64")]
use super::blocks::q4_0_as_bytes;
use super::input::Input;
use super::lanes::{self, Lanes};
use super::panels::{self, Line};
use super::{q8, tiles};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;
use std::cell::Cell;
use std::ops::Range;

/// Weight rows decoded together.
const TILE: usize = 24;

thread_local! {
    /// Room for widened weights and for panels of them: fresh memory would be cleared for each product.
    static ROOM: Cell<(Vec<f32>, Vec<Line>)> = const { Cell::new((Vec::new(), Vec::new())) };
}
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

impl Matrix<'_> {
    /// How many numbers it has.
    fn len(&self) -> usize {
        match self {
            Self::F32(w) => w.len(),
            Self::F16(w) => w.len(),
            Self::BF16(w) => w.len(),
            Self::Blocks(format, w) => w.len() / format.bytes() * format.numbers(),
        }
    }
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
    let input = Input::new(x, rows, columns);
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
            .for_each(|t| strip(&input, t.w, t.first, &mut t.out));
    } else {
        tasks
            .par_iter_mut()
            .with_max_len(1)
            .for_each(|t| strip(&input, t.w, t.first, &mut t.out));
    }
}

/// The outputs `first..` of one matrix, a piece of each row.
struct Task<'a> {
    w: Matrix<'a>,
    first: usize,
    out: Vec<&'a mut [f32]>,
}

/// The instructions that products are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Set {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(not(target_arch = "aarch64"))]
    Plain,
}

impl Set {
    /// The best that this processor has.
    pub(super) fn found() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return match is_x86_feature_detected!("avx512f") {
                true => Self::Avx512,
                false => Self::Avx2,
            };
        }
        #[cfg(target_arch = "aarch64")]
        return Self::Neon;
        #[cfg(not(target_arch = "aarch64"))]
        Self::Plain
    }

    /// Input rows of a group.
    pub(super) fn many(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => lanes::x86::Avx512::MANY,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => lanes::x86::Avx2::MANY,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => lanes::arm::Neon::MANY,
            #[cfg(not(target_arch = "aarch64"))]
            Self::Plain => lanes::Plain::MANY,
        }
    }
}

/// The products of weight rows `first..` with the rows of the input on this thread, `out[input row][weight row]`: as many
/// weight rows as each row of `out` is long.
pub(crate) fn strip(input: &Input<'_>, w: Matrix<'_>, first: usize, out: &mut [&mut [f32]]) {
    strip_of(Set::found(), input, w, first, out);
}

/// The same with the instructions of `set`, for which the input was made.
fn strip_of(set: Set, input: &Input<'_>, w: Matrix<'_>, first: usize, out: &mut [&mut [f32]]) {
    match set {
        // SAFETY: a set is only named where its instructions were found, as below.
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        Set::Avx512 => unsafe { strip_avx512(input, w, first, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        Set::Avx2 => unsafe { strip_avx2(input, w, first, out) },
        #[cfg(target_arch = "aarch64")]
        Set::Neon => strip_with::<lanes::arm::Neon, false>(input, w, first, out),
        #[cfg(not(target_arch = "aarch64"))]
        Set::Plain => strip_with::<lanes::Plain, false>(input, w, first, out),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
fn strip_avx512(input: &Input<'_>, w: Matrix<'_>, first: usize, out: &mut [&mut [f32]]) {
    strip_with::<lanes::x86::Avx512, true>(input, w, first, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn strip_avx2(input: &Input<'_>, w: Matrix<'_>, first: usize, out: &mut [&mut [f32]]) {
    strip_with::<lanes::x86::Avx2, true>(input, w, first, out);
}

#[inline(always)]
fn strip_with<L: Lanes, const FMA: bool>(
    input: &Input<'_>,
    w: Matrix<'_>,
    first: usize,
    out: &mut [&mut [f32]],
) {
    let columns = input.columns;
    let count = out.first().map_or(0, |out| out.len());
    let packed = input.packed();
    if let (None, Matrix::Blocks(BlockFormat::Q8_0, w)) = (packed, w) {
        let row = columns / BlockFormat::Q8_0.numbers() * BlockFormat::Q8_0.bytes();
        // SAFETY: as below.
        #[allow(unsafe_code)]
        unsafe {
            q8::products::<L>(
                input.x,
                &w[first * row..(first + count) * row],
                columns,
                out,
            );
        }
        return;
    }
    let most = match (packed, w) {
        (None, _) => TILE,
        (Some(_), Matrix::F32(_)) => panels::tile::<L>(columns),
        // What is widened first needs room of its own.
        (Some(_), _) => panels::width::<L>(),
    };
    let (mut wide, mut panels) = ROOM.take();
    if !matches!(w, Matrix::F32(_)) && wide.len() < most.min(count) * columns {
        wide.resize(most.min(count) * columns, 0.0);
    }
    let mut done = 0;
    while done < count {
        let take = most.min(count - done);
        let span = (first + done) * columns..(first + done + take) * columns;
        let tile = match w {
            Matrix::F32(w) => &w[span.clone()],
            _ => {
                widened::<FMA>(w, span.clone(), &mut wide[..take * columns]);
                &wide[..take * columns]
            }
        };
        // Beyond the strip too: whoever reads on begins there.
        let ahead = most.min(w.len() / columns - span.end / columns) * columns;
        let next = bytes(w, span.end, ahead);
        let mut part: Vec<&mut [f32]> = out
            .iter_mut()
            .map(|out| &mut out[done..done + take])
            .collect();
        // SAFETY: `L` is only something else than what every processor has below `strip_avx2` and `strip_avx512`, where
        // the features were found on this one.
        #[allow(unsafe_code)]
        unsafe {
            match packed {
                None => tiles::products::<L>(input.x, tile, columns, &mut part, next),
                Some(x) => {
                    panels::products::<L>(x, tile, columns, &mut part, &mut panels, next);
                }
            }
        }
        done += take;
    }
    ROOM.set((wide, panels));
}

/// The numbers of a stretch of a matrix as f32.
#[inline(always)]
fn widened<const FMA: bool>(w: Matrix<'_>, span: Range<usize>, out: &mut [f32]) {
    match w {
        Matrix::F32(w) => out.copy_from_slice(&w[span]),
        Matrix::F16(w) => w[span].convert_to_f32_slice(out),
        Matrix::BF16(w) => {
            for (o, v) in out.iter_mut().zip(&w[span]) {
                // A bf16 is the upper half of its f32.
                *o = f32::from_bits(u32::from(v.to_bits()) << 16);
            }
        }
        Matrix::Blocks(format, w) => {
            let (numbers, bytes) = (format.numbers(), format.bytes());
            widen::<FMA>(
                format,
                &w[span.start / numbers * bytes..span.end / numbers * bytes],
                out,
            );
        }
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
    use proptest::prelude::*;
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

    /// What this processor has.
    fn sets() -> Vec<Set> {
        #[cfg(target_arch = "x86_64")]
        return match Set::found() {
            Set::Avx512 => vec![Set::Avx512, Set::Avx2, Set::Plain],
            Set::Avx2 => vec![Set::Avx2, Set::Plain],
            Set::Plain => vec![Set::Plain],
        };
        #[cfg(not(target_arch = "x86_64"))]
        vec![Set::found()]
    }

    fn with(set: Set, x: &[f32], w: &[f32], rows: usize, outputs: usize) -> Vec<f32> {
        let columns = x.len() / rows;
        let mut y = vec![0.0; rows * outputs];
        let mut parts: Vec<&mut [f32]> = y.chunks_mut(outputs).collect();
        let input = Input::of(set, x, rows, columns);
        strip_of(set, &input, Matrix::F32(w), 0, &mut parts);
        y
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        /// Every instruction set on every shape of tile and panel: near the reference in float64, the same for a row alone,
        /// and the same for all sets that fuse.
        #[test]
        fn all_instruction_sets_agree(
            rows in 1usize..40,
            columns in 1usize..400,
            outputs in 1usize..80,
            seed in any::<u64>(),
        ) {
            let (x, w) = (random(rows * columns, seed), random(outputs * columns, !seed));
            let mut fused: Option<Vec<f32>> = None;
            for set in sets() {
                let found = with(set, &x, &w, rows, outputs);
                for n in 0..rows {
                    let x = &x[n * columns..(n + 1) * columns];
                    let alone = with(set, x, &w, 1, outputs);
                    prop_assert_eq!(&found[n * outputs..(n + 1) * outputs], alone, "{:?}", set);
                    for m in 0..outputs {
                        let exact: f64 = (0..columns)
                            .map(|k| f64::from(x[k]) * f64::from(w[m * columns + k]))
                            .sum();
                        prop_assert!((f64::from(found[n * outputs + m]) - exact).abs() < 2e-5);
                    }
                }
                if cfg!(target_arch = "x86_64") && set != Set::Plain {
                    let first = fused.get_or_insert_with(|| found.clone());
                    prop_assert_eq!(&found, first, "{:?}", set);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Blocks of 8 bits, read as they lie by few rows and widened for many, are the numbers that they stand for.
        #[test]
        fn products_of_q8_0_are_those_of_the_widened_matrix(
            rows in 1usize..20,
            blocks in 1usize..9,
            outputs in 1usize..40,
            seed in any::<u64>(),
        ) {
            let columns = 32 * blocks;
            let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
            let mut bytes = Vec::new();
            for _ in 0..outputs * blocks {
                let scale = f16::from_f32(rng.random_range(-0.1..0.1));
                bytes.extend_from_slice(&scale.to_le_bytes());
                bytes.extend((0..32).map(|_| rng.random::<u8>()));
            }
            let mut wide = vec![0.0; outputs * columns];
            BlockFormat::Q8_0.widen(&bytes, &mut wide);
            let x = random(rows * columns, seed);
            for set in sets() {
                let mut y = vec![0.0; rows * outputs];
                let mut parts: Vec<&mut [f32]> = y.chunks_mut(outputs).collect();
                let input = Input::of(set, &x, rows, columns);
                strip_of(set, &input, Matrix::Blocks(BlockFormat::Q8_0, &bytes), 0, &mut parts);
                prop_assert_eq!(&y, &with(set, &x, &wide, rows, outputs), "{:?}", set);
            }
        }
    }

    #[test]
    fn long_rows_are_summed_alike_in_tiles_and_panels() {
        let (rows, columns, outputs) = (27, 3077, 90);
        let (x, w) = (random(rows * columns, 3), random(outputs * columns, 4));
        for set in sets() {
            let found = with(set, &x, &w, rows, outputs);
            for n in [0, 13, 26] {
                let alone = with(set, &x[n * columns..(n + 1) * columns], &w, 1, outputs);
                assert_eq!(found[n * outputs..(n + 1) * outputs], alone, "{set:?}");
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
}
