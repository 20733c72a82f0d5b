//! e^x and tanh, and loops over numbers in memory that are compiled once for every processor.
//!
//! The compiler finds the vectors; [`compiled!`] gives it the instructions to find them in. All of them round alike, since
//! products are only fused where a kernel says so, and those that do are told whether the processor can.

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// ln 2 in two parts, the first of few digits.
pub(super) const LN2_HI: f32 = 0.693_359_4;
pub(super) const LN2_LO: f32 = -2.121_944_4e-4;
/// So large a sum has no digits left below one, and its last bits are the whole number.
pub(super) const ROUNDED: f32 = 12_582_912.0;
/// Of the polynomial for (e^r − 1 − r)/r² with |r| ≤ ln 2/2, the highest power first (Cephes' expf).
pub(super) const EXP: [f32; 6] = [
    1.987_569_2e-4,
    1.398_199_9e-3,
    8.333_452e-3,
    4.166_579_6e-2,
    1.666_666_5e-1,
    0.5,
];

/// e^x for x ≤ 88: range reduction by ln 2 and a degree-6 polynomial, within 2 units in the last place; 0 below −87.
#[inline(always)]
#[must_use]
pub fn exp(x: f32) -> f32 {
    let clamped = x.clamp(-87.0, 88.0);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUNDED;
    let n = shifted - ROUNDED;
    let r = (clamped - n * LN2_HI) - n * LN2_LO;
    let mut p = EXP[0];
    for c in &EXP[1..] {
        p = p * r + c;
    }
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

/// A function whose body, another function marked `#[inline(always)]`, is compiled for AVX-512, for AVX2 and for what every
/// processor has; which one runs is decided when it is called. A body that ends in `::<_>` is told whether the processor
/// multiplies and adds in one go.
macro_rules! compiled {
    (@ $body:ident $fused:expr; $($arg:ident),*) => { $body($($arg),*) };
    (@ $body:ident $fused:expr; $($arg:ident),*; _) => { $body::<{ $fused }>($($arg),*) };
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $of:ty),* $(,)?) $(-> $out:ty)? = $body:ident $(::<$told:tt>)?;) => {
        $(#[$meta])*
        $vis fn $name($($arg: $of),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx2,fma")]
                fn avx512($($arg: $of),*) $(-> $out)? {
                    compiled!(@ $body true; $($arg),* $(; $told)?)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $of),*) $(-> $out)? {
                    compiled!(@ $body true; $($arg),* $(; $told)?)
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: the features that the functions were compiled for were found on this processor.
                    #[allow(unsafe_code)]
                    return unsafe {
                        match is_x86_feature_detected!("avx512f") {
                            true => avx512($($arg),*),
                            false => avx2($($arg),*),
                        }
                    };
                }
            }
            compiled!(@ $body cfg!(target_arch = "aarch64"); $($arg),* $(; $told)?)
        }
    };
}
pub(super) use compiled;

compiled! {
    /// Gelu with its tanh approximation, `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))`, in place.
    pub(super) fn gelu_tanh(x: &mut [f32]) = each_gelu_tanh;
}

#[inline(always)]
fn each_gelu_tanh(x: &mut [f32]) {
    for x in x {
        let inner = FRAC_2_SQRT_PI * FRAC_1_SQRT_2 * *x * (1.0 + 0.044_715 * *x * *x);
        *x = 0.5 * *x * (1.0 + tanh(inner));
    }
}

/// 1 / (1 + e^−x).
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

compiled! {
    /// `out = gate · sigmoid(gate) · up`, number by number.
    pub(super) fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) = each_swiglu;
}

#[inline(always)]
fn each_swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
        *o = g * sigmoid(*g) * u;
    }
}

compiled! {
    /// Softmax of `scale · z` in place.
    pub(super) fn softmax(z: &mut [f32], scale: f32) = row_softmax;
}

#[inline(always)]
fn row_softmax(z: &mut [f32], scale: f32) {
    let max = largest(z);
    for z in z.iter_mut() {
        *z = exp((*z - max) * scale);
    }
    let inverse = 1.0 / sum(z);
    z.iter_mut().for_each(|p| *p *= inverse);
}

/// The largest, or NaN where all are.
#[inline(always)]
fn largest(z: &[f32]) -> f32 {
    let (chunks, rest) = z.as_chunks::<16>();
    let mut max = [f32::NEG_INFINITY; 16];
    for chunk in chunks {
        for i in 0..16 {
            max[i] = if chunk[i] > max[i] { chunk[i] } else { max[i] };
        }
    }
    let rest = rest.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    max.into_iter().fold(rest, f32::max)
}

/// The sum in sixteen lanes.
#[inline(always)]
fn sum(z: &[f32]) -> f32 {
    let (chunks, rest) = z.as_chunks::<16>();
    let mut lanes = [0.0f32; 16];
    for chunk in chunks {
        for i in 0..16 {
            lanes[i] += chunk[i];
        }
    }
    lanes.iter().chain(rest).sum()
}

compiled! {
    /// Σ (x − off)², in f64: states far from 0, and wide ones, keep the last digits of their spread.
    pub(super) fn squares(x: &[f32], off: f64) -> f64 = sum_of_squares;
}

#[inline(always)]
fn sum_of_squares(x: &[f32], off: f64) -> f64 {
    in_lanes(x, |x| (x - off) * (x - off))
}

compiled! {
    /// Σ x in f64.
    pub(super) fn wide_sum(x: &[f32]) -> f64 = sum_in_lanes;
}

#[inline(always)]
fn sum_in_lanes(x: &[f32]) -> f64 {
    in_lanes(x, |x| x)
}

/// Σ f(x), in sums none of which waits for the others.
#[inline(always)]
fn in_lanes(x: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    const WIDE: usize = 32;
    let mut lanes = [0.0; WIDE];
    let (chunks, rest) = x.as_chunks::<WIDE>();
    for chunk in chunks {
        for i in 0..WIDE {
            lanes[i] += f(f64::from(chunk[i]));
        }
    }
    let rest: f64 = rest.iter().map(|x| f(f64::from(*x))).sum();
    lanes.iter().sum::<f64>() + rest
}

compiled! {
    /// `out += Σ weight · row` over rows as long as `out`.
    pub(super) fn mix(weights: &[f32], rows: &[f32], out: &mut [f32]) = rows_mixed;
}

#[inline(always)]
fn rows_mixed(weights: &[f32], rows: &[f32], out: &mut [f32]) {
    // So many numbers stay in registers while all rows pass by.
    const WIDTH: usize = 64;
    let width = out.len();
    for (part, out) in out.chunks_mut(WIDTH).enumerate() {
        let at = part * WIDTH;
        match <&mut [f32; WIDTH]>::try_from(&mut *out) {
            Ok(out) => {
                let mut sums = *out;
                for (weight, row) in weights.iter().zip(rows.chunks_exact(width)) {
                    if let Some(row) = row[at..].first_chunk::<WIDTH>() {
                        for i in 0..WIDTH {
                            sums[i] += weight * row[i];
                        }
                    }
                }
                *out = sums;
            }
            Err(_) => {
                for (weight, row) in weights.iter().zip(rows.chunks_exact(width)) {
                    for (o, v) in out.iter_mut().zip(&row[at..]) {
                        *o += weight * v;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The plain loops and those for this processor give the same bits.
    #[test]
    fn loops_are_the_same_however_they_were_compiled() {
        let numbers = |seed: u32, n: usize| -> Vec<f32> {
            let at = |i: usize| (i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed);
            (0..n).map(|i| (at(i) >> 8) as f32 / 2e6 - 4.0).collect()
        };
        for n in [1, 15, 64, 77, 200] {
            let (a, b) = (numbers(1, n), numbers(2, n));
            let (mut x, mut y) = (a.clone(), a.clone());
            gelu_tanh(&mut x);
            each_gelu_tanh(&mut y);
            assert_eq!(x, y);
            swiglu(&a, &b, &mut x);
            each_swiglu(&a, &b, &mut y);
            assert_eq!(x, y);
            (x, y) = (a.clone(), a.clone());
            softmax(&mut x, 0.3);
            row_softmax(&mut y, 0.3);
            assert_eq!(x, y);
            assert!((x.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            assert_eq!(squares(&a, 0.25), sum_of_squares(&a, 0.25));
            let exact: f64 = a.iter().map(|x| (f64::from(*x) - 0.25).powi(2)).sum();
            assert!((squares(&a, 0.25) / exact - 1.0).abs() < 1e-12);
            assert_eq!(wide_sum(&a), sum_in_lanes(&a));
            let exact: f64 = a.iter().map(|x| f64::from(*x)).sum();
            assert!((wide_sum(&a) - exact).abs() < 1e-9);
            let rows = numbers(3, 5 * n);
            (x, y) = (b.clone(), b.clone());
            mix(&a[..5.min(n)], &rows, &mut x);
            for (weight, row) in a[..5.min(n)].iter().zip(rows.chunks(n)) {
                for (y, v) in y.iter_mut().zip(row) {
                    *y += weight * v;
                }
            }
            assert_eq!(x, y);
        }
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
