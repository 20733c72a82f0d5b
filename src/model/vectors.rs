//! Loops over numbers in memory, compiled once for every processor.
//!
//! The compiler finds the vectors; [`compiled!`] gives it the instructions to find them in. All of them round alike, since
//! products are only fused where a kernel says so.

use super::kernel::{exp, tanh};
use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// A function whose body, another function marked `#[inline(always)]`, is compiled for AVX-512, for AVX2 and for what every
/// processor has; which one runs is decided when it is called.
macro_rules! compiled {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $of:ty),* $(,)?) $(-> $out:ty)? = $body:path;) => {
        $(#[$meta])*
        $vis fn $name($($arg: $of),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx2,fma")]
                fn avx512($($arg: $of),*) $(-> $out)? {
                    $body($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $of),*) $(-> $out)? {
                    $body($($arg),*)
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
            $body($($arg),*)
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
}
