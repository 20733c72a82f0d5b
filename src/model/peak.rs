//! What this machine's memory and arithmetic can do, measured: what the speed of a model is held against.

use super::vectors::compiled;
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Instant;

/// Bytes that each thread reads, far beyond any cache.
const BYTES: usize = 256 << 20;
/// Runs, of which the best counts: anything else on the machine only slows them down.
const RUNS: usize = 8;

/// Main memory read by all threads at once, each a stream of its own, in GB/s (10⁹ bytes).
#[must_use]
pub fn bandwidth() -> f64 {
    let threads = rayon::current_num_threads();
    let mut parts: Vec<Vec<u64>> = (0..threads).map(|_| vec![1u64; BYTES / 8]).collect();
    // Written once, so that the pages are there.
    parts
        .par_iter_mut()
        .for_each(|part| part.fill(black_box(1)));
    let mut best = 0.0f64;
    for _ in 0..RUNS {
        let began = Instant::now();
        let sum: u64 = parts
            .par_iter()
            .map(|part| sum(part))
            .fold(|| 0, u64::wrapping_add)
            .sum();
        black_box(sum);
        let read = (threads * BYTES) as f64;
        best = best.max(read / began.elapsed().as_secs_f64() / 1e9);
    }
    best
}

compiled! {
    /// The sum of all numbers.
    fn sum(part: &[u64]) -> u64 = in_lanes;
}

#[inline(always)]
fn in_lanes(part: &[u64]) -> u64 {
    let mut lanes = [0u64; 32];
    for chunk in part.as_chunks::<32>().0 {
        ahead(chunk);
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane = lane.wrapping_add(*v);
        }
    }
    lanes.iter().fold(0, |a: u64, b| a.wrapping_add(*b))
}

/// Ask for memory as the kernels do, without which a core waits for every few cache lines.
#[inline(always)]
fn ahead(chunk: &[u64; 32]) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..4 {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        let at: *const i8 = chunk.as_ptr().cast();
        // SAFETY: any address may be asked for.
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add((1 << 16) + 64 * line));
            _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add((1 << 11) + 64 * line));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = chunk;
}

/// Multiplications and additions of f32 on all threads, in GFLOP/s (a fused multiply-add is two).
#[must_use]
pub fn arithmetic() -> f64 {
    const ROUNDS: usize = 2_000_000;
    let threads = rayon::current_num_threads();
    let mut best = 0.0f64;
    for _ in 0..RUNS {
        let began = Instant::now();
        let done: f64 = (0..threads).into_par_iter().map(|_| rounds(ROUNDS)).sum();
        best = best.max(done / began.elapsed().as_secs_f64() / 1e9);
    }
    best
}

/// Go through so many rounds of independent multiply-adds; returns the operations done.
fn rounds(count: usize) -> f64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the features that the functions were compiled for were found on this processor just above.
        #[allow(unsafe_code)]
        unsafe {
            return match is_x86_feature_detected!("avx512f") {
                true => rounds_avx512(count),
                false => rounds_avx2(count),
            };
        }
    }
    rounds_portable(count)
}

/// Enough independent sums to hide the latency of a multiply-add.
const SUMS: usize = 12;

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn rounds_avx2(count: usize) -> f64 {
    use std::arch::x86_64::{__m256, _mm256_fmadd_ps, _mm256_set1_ps};
    let (a, b) = (
        _mm256_set1_ps(black_box(0.999)),
        _mm256_set1_ps(black_box(1e-3)),
    );
    let mut sums: [__m256; SUMS] = [_mm256_set1_ps(0.5); SUMS];
    for _ in 0..count {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, a, b);
        }
    }
    black_box(sums);
    (2 * 8 * SUMS * count) as f64
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn rounds_avx512(count: usize) -> f64 {
    use std::arch::x86_64::{__m512, _mm512_fmadd_ps, _mm512_set1_ps};
    let (a, b) = (
        _mm512_set1_ps(black_box(0.999)),
        _mm512_set1_ps(black_box(1e-3)),
    );
    let mut sums: [__m512; SUMS] = [_mm512_set1_ps(0.5); SUMS];
    for _ in 0..count {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, a, b);
        }
    }
    black_box(sums);
    (2 * 16 * SUMS * count) as f64
}

fn rounds_portable(count: usize) -> f64 {
    let (a, b) = (black_box(0.999f32), black_box(1e-3f32));
    let mut sums = [[0.5f32; 4]; SUMS];
    for _ in 0..count {
        for sum in sums.iter_mut().flatten() {
            *sum = *sum * a + b;
        }
    }
    black_box(sums);
    (2 * 4 * SUMS * count) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted() {
        assert_eq!(rounds_portable(10), 960.0);
        assert!(rounds(1000) >= rounds_portable(1000));
    }
}
