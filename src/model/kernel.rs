//! Dense products on the CPU whose every output number is summed in one fixed order.
//!
//! `y[n][m] = Σ_k x[n][k] · w[m][k]`. How many rows are computed together, on how many threads and in which tiles makes no
//! difference to a single bit, so cached decoding equals recomputing, chunked prefill equals one-shot, and a branch does not
//! see its neighbours. Weights are read once for all rows and lie in panels ([`super::panels`]); numbers that come and go, such
//! as an attention's keys, are read row by row ([`super::tiles`]).

use super::crew;
use super::input::Input;
use super::lanes::{self, Lanes};
use super::panels::{self, After, Panels, WIDTH};
use super::tiles;
use std::cell::Cell;
use std::sync::Arc;

/// Products smaller than this many multiplications stay on one core.
const SERIAL: usize = 1 << 17;

/// A matrix `[rows, columns]` in main memory.
#[derive(Clone, Copy, Debug)]
pub enum Matrix<'a> {
    /// Row by row.
    Rows(&'a [f32]),
    /// Panels of weights.
    Panels(&'a Panels),
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
    let laid_out = all.iter().any(|(w, _)| !matches!(w, Matrix::Rows(_)));
    let input = match laid_out {
        true => Input::new(x, rows, columns),
        false => Input::as_is(x, rows, columns),
    };
    let outputs: usize = all.iter().map(|(_, y)| y.len() / rows).sum();
    let (ws, mut ys): (Vec<Matrix<'_>>, Vec<&mut [f32]>) = all.into_iter().unzip();
    if rows * outputs * columns < SERIAL {
        for (w, y) in ws.iter().zip(ys).filter(|(_, y)| !y.is_empty()) {
            let mut parts: Vec<&mut [f32]> = y.chunks_mut(y.len() / rows).collect();
            strip(&input, *w, 0, &mut parts);
        }
        return;
    }
    foresee(&ws);
    crew::strips(&mut ys, rows, WIDTH, |i, first, out| {
        strip(&input, ws[i], first, out);
    });
}

/// Tell the crew what was read last time after what is about to be: steps read the same weights in the same order.
pub(crate) fn foresee(now: &[Matrix<'_>]) {
    thread_local! {
        /// What came before.
        static BEFORE: Cell<Option<Arc<After>>> = const { Cell::new(None) };
    }
    let panels = || {
        now.iter().filter_map(|w| match w {
            Matrix::Panels(panels) => Some(*panels),
            _ => None,
        })
    };
    let Some(first) = panels().next() else {
        return;
    };
    if let Some(before) = BEFORE.replace(Some(first.after().clone())) {
        before.is(panels().map(Panels::memory));
    }
    crew::foresee(first.after().memory());
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
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
        {
            let wide = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
            return match wide {
                true => Self::Avx512,
                false => Self::Avx2,
            };
        }
        #[cfg(target_arch = "aarch64")]
        return Self::Neon;
        #[cfg(not(target_arch = "aarch64"))]
        Self::Plain
    }

    /// Whether packed numbers are unpacked faster than memory brings them.
    pub(super) fn unpacks(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self != Self::Plain;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Groups of so many input rows.
    pub(super) fn groups(self, rows: usize) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => groups::<lanes::x86::Avx512>(rows),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => groups::<lanes::x86::Avx2>(rows),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => groups::<lanes::arm::Neon>(rows),
            #[cfg(not(target_arch = "aarch64"))]
            Self::Plain => groups::<lanes::Plain>(rows),
        }
    }
}

fn groups<L: Lanes>(rows: usize) -> usize {
    match rows <= L::MOST {
        true => rows.min(1),
        false => rows.div_ceil(L::MANY),
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
        Set::Neon => strip_with::<lanes::arm::Neon>(input, w, first, out),
        #[cfg(not(target_arch = "aarch64"))]
        Set::Plain => strip_with::<lanes::Plain>(input, w, first, out),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx2,fma,f16c")]
fn strip_avx512(input: &Input<'_>, w: Matrix<'_>, first: usize, out: &mut [&mut [f32]]) {
    strip_with::<lanes::x86::Avx512>(input, w, first, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn strip_avx2(input: &Input<'_>, w: Matrix<'_>, first: usize, out: &mut [&mut [f32]]) {
    strip_with::<lanes::x86::Avx2>(input, w, first, out);
}

#[inline(always)]
fn strip_with<L: Lanes>(input: &Input<'_>, w: Matrix<'_>, first: usize, out: &mut [&mut [f32]]) {
    let columns = input.columns;
    let count = out.first().map_or(0, |out| out.len());
    // SAFETY: `L` is only something else than what every processor has below `strip_avx2` and `strip_avx512`, where the
    // features were found on this one.
    #[allow(unsafe_code)]
    unsafe {
        match w {
            Matrix::Rows(w) => {
                let w = &w[first * columns..(first + count) * columns];
                tiles::products::<L>(input.x, w, columns, out);
            }
            Matrix::Panels(panels) => panels::sums::products::<L>(panels, input, first, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::blocks::BlockFormat;
    use candle_core::quantized::QTensor;
    use candle_core::{DType, Device, Tensor};
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};

    fn random(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    fn tensor(w: &[f32], columns: usize) -> Tensor {
        Tensor::from_slice(w, (w.len() / columns, columns), &Device::Cpu).unwrap()
    }

    fn panels(w: &[f32], columns: usize) -> Panels {
        Panels::of_floats(&tensor(w, columns)).unwrap()
    }

    fn numbers(t: &Tensor) -> Vec<f32> {
        let wide = t.to_dtype(DType::F32).unwrap();
        wide.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn exact(x: &[f32], w: &[f32]) -> f64 {
        let products = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
        products.sum()
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
            let panels = panels(&w, columns);
            for matrix in [Matrix::Rows(&w), Matrix::Panels(&panels)] {
                let mut y = vec![0.0; rows * outputs];
                product(&x, matrix, rows, columns, &mut y);
                for (x, y) in x.chunks(columns).zip(y.chunks(outputs)) {
                    let mut alone = vec![0.0; outputs];
                    product(x, matrix, 1, columns, &mut alone);
                    assert_eq!(y, alone);
                    for (w, y) in w.chunks(columns).zip(y) {
                        assert!((f64::from(*y) - exact(x, w)).abs() < 1e-5);
                    }
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

    /// The products of the rows `first..first + outputs` of a matrix by the instructions of `set`.
    fn with(
        set: Set,
        x: &[f32],
        w: Matrix<'_>,
        rows: usize,
        first: usize,
        outputs: usize,
    ) -> Vec<f32> {
        let columns = x.len() / rows;
        let mut y = vec![7.0; rows * outputs];
        let mut parts: Vec<&mut [f32]> = y.chunks_mut(outputs).collect();
        let input = Input::of(set, x, rows, columns);
        strip_of(set, &input, w, first, &mut parts);
        y
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        /// Every instruction set on every size of group and part of a panel: near the reference in float64, the same for a
        /// row alone, and the same for all sets that fuse.
        #[test]
        fn all_instruction_sets_agree(
            rows in 1usize..40,
            columns in 1usize..400,
            all in 1usize..110,
            part in 0.0f64..1.0,
            seed in any::<u64>(),
        ) {
            let (x, w) = (random(rows * columns, seed), random(all * columns, !seed));
            let panels = panels(&w, columns);
            let first = (part * all as f64) as usize;
            let outputs = all - first;
            for matrix in [Matrix::Rows(&w), Matrix::Panels(&panels)] {
                let mut fused: Option<Vec<f32>> = None;
                for set in sets() {
                    let found = with(set, &x, matrix, rows, first, outputs);
                    for (x, found) in x.chunks(columns).zip(found.chunks(outputs)) {
                        let alone = with(set, x, matrix, 1, first, outputs);
                        prop_assert_eq!(found, alone, "{:?}", set);
                        for (w, found) in w.chunks(columns).skip(first).zip(found) {
                            prop_assert!((f64::from(*found) - exact(x, w)).abs() < 2e-5);
                        }
                    }
                    if cfg!(target_arch = "x86_64") && set != Set::Plain {
                        let first = fused.get_or_insert_with(|| found.clone());
                        prop_assert_eq!(&found, first, "{:?}", set);
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// However a matrix is stored, its products are those of the numbers that it stands for, to the last bit.
        #[test]
        fn every_type_is_read_as_the_numbers_it_stands_for(
            rows in prop_oneof![1usize..5, 1usize..40],
            blocks in 1usize..12,
            all in 1usize..110,
            part in 0.0f64..1.0,
            seed in any::<u64>(),
        ) {
            let first = (part * all as f64) as usize;
            let outputs = all - first;
            let w = tensor(&random(all * 768, seed), 768);
            let x = random(rows * 768, !seed);
            for set in sets() {
                let products = |w: &Panels| {
                    let x = &x[..rows * w.shape().1];
                    with(set, x, Matrix::Panels(w), rows, first, outputs)
                };
                // A row that is no bf16 keeps the others in f32.
                let wide = |w: Vec<f32>, columns: usize| {
                    products(&panels(&[w, vec![0.1; columns]].concat(), columns))
                };
                for dtype in [DType::F16, DType::BF16] {
                    let halves = w.narrow(1, 0, 32 * blocks).unwrap().to_dtype(dtype).unwrap();
                    let found = products(&Panels::of_floats(&halves).unwrap());
                    let expected = wide(numbers(&halves), 32 * blocks);
                    prop_assert_eq!(found, expected, "{:?} {:?}", set, dtype);
                }
                for format in BlockFormat::ALL {
                    // Whole blocks, but not always two whole pieces.
                    let columns = format.numbers() * match format.numbers() {
                        32 => blocks,
                        _ => blocks.div_ceil(4),
                    };
                    let w = w.narrow(1, 0, columns).unwrap().contiguous().unwrap();
                    let q = QTensor::quantize(&w, format.dtype()).unwrap();
                    let mut bytes = q.data().unwrap().into_owned();
                    let of = |bytes: &[u8]| {
                        Panels::of_blocks(format, bytes, all, columns).unwrap()
                    };
                    let expected = wide(numbers(&q.dequantize(&Device::Cpu).unwrap()), columns);
                    prop_assert_eq!(products(&of(&bytes)), expected, "{:?} {:?}", set, format);
                    // And any bytes whose scales are finite.
                    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
                    for block in bytes.chunks_exact_mut(format.bytes()) {
                        rng.fill(block);
                        let halves = block[format.halves()].chunks_exact_mut(2);
                        halves.for_each(|half| half[1] &= 0xbf);
                    }
                    let any = of(&bytes);
                    let expected = wide(any.table(), columns);
                    prop_assert_eq!(products(&any), expected, "{:?} {:?}", set, format);
                }
            }
        }
    }

    /// Numbers whose pieces of panels have few or many exponents, or next to none; all of them bf16, if `short`.
    fn mixed(rows: usize, columns: usize, short: bool, seed: u64) -> Vec<f32> {
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        let pieces = columns.div_ceil(64);
        let kinds: Vec<u8> = (0..rows.div_ceil(WIDTH) * pieces)
            .map(|_| rng.random_range(0..4))
            .collect();
        let at = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        let number = at.map(|(row, column)| {
            let bits: u32 = rng.random();
            let v = match kinds[row / WIDTH * pieces + column / 64] {
                0 | 1 => rng.random_range(-0.1..0.1),
                2 => f32::from_bits(bits & 0x807f_ffff | (80 + bits % 64) << 23),
                // Zeros of both signs and numbers too small for an exponent.
                _ => f32::from_bits(bits & 0x8000_0000 | (bits & 0x0300_0000) >> 4),
            };
            match short {
                true => f32::from_bits(v.to_bits() & 0xffff_0000),
                false => v,
            }
        });
        number.collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Packed panels give the sums of plain ones to the last bit, whatever part of them is asked for.
        #[test]
        fn packed_panels_are_read_as_plain_ones(
            rows in 1usize..40,
            columns in 1usize..400,
            all in 1usize..110,
            part in 0.0f64..1.0,
            seed in any::<u64>(),
        ) {
            let x = random(rows * columns, seed);
            let first = (part * all as f64) as usize;
            let outputs = all - first;
            let (long, short) = (
                tensor(&mixed(all, columns, false, !seed), columns),
                tensor(&mixed(all, columns, true, !seed), columns),
            );
            for matrix in [&long, &short, &short.to_dtype(DType::BF16).unwrap()] {
                let plain = Panels::forced(matrix, false).unwrap();
                let packed = Panels::forced(matrix, true).unwrap();
                prop_assert!(!plain.is_packed() && packed.is_packed());
                for set in sets() {
                    let bits = |w: &Panels| -> Vec<u32> {
                        let y = with(set, &x, Matrix::Panels(w), rows, first, outputs);
                        y.into_iter().map(f32::to_bits).collect()
                    };
                    prop_assert_eq!(bits(&packed), bits(&plain), "{:?}", set);
                }
            }
        }
    }

    #[test]
    fn long_rows_are_summed_alike_in_any_company() {
        let (rows, columns, outputs) = (27, 3077, 90);
        let (x, w) = (random(rows * columns, 3), random(outputs * columns, 4));
        let panels = panels(&w, columns);
        for matrix in [Matrix::Rows(&w), Matrix::Panels(&panels)] {
            for set in sets() {
                let found = with(set, &x, matrix, rows, 0, outputs);
                for n in [0, 13, 26] {
                    let x = &x[n * columns..(n + 1) * columns];
                    let alone = with(set, x, matrix, 1, 0, outputs);
                    assert_eq!(found[n * outputs..(n + 1) * outputs], alone, "{set:?}");
                }
            }
        }
    }

    #[test]
    fn several_matrices_at_once_are_what_each_is_alone() {
        let (rows, columns) = (3, 257);
        let x = random(rows * columns, 8);
        let sizes = [700, 1, 313];
        let ws = sizes.map(|m| panels(&random(m * columns, 9), columns));
        let mut together = sizes.map(|m| vec![7.0; rows * m]);
        let all = ws.iter().zip(&mut together);
        let all = all.map(|(w, y)| (Matrix::Panels(w), y.as_mut_slice()));
        products_of(&x, rows, columns, all.collect());
        for (w, y) in ws.iter().zip(&together) {
            let mut alone = vec![0.0; y.len()];
            product(&x, Matrix::Panels(w), rows, columns, &mut alone);
            assert_eq!(y, &alone);
        }
    }
}
