//! One residual state → the sparsity columns of a cell, in the order of [`crate::trace::Schema`].
//!
//! Definitions (Hoyer 2004; Gini after Hurley & Rickard 2009; effective rank after Roy & Vetterli 2007) are those of
//! the project's metric table. Ratios of a zero vector or of a single dimension are undefined: NaN.

use super::LensSettings;
use rand::{Rng, SeedableRng};

/// The first columns grow with the scale of the vector.
const SCALED: usize = 3;

/// Append the sparsity columns of `h` `[d]` to `out`.
pub fn read(h: &[f32], settings: &LensSettings, out: &mut Vec<f32>) {
    let d = h.len();
    let count = 10 + 2 * settings.topk_shares.len();
    if d == 0 || h.iter().any(|v| !v.is_finite()) {
        out.extend(std::iter::repeat_n(f32::NAN, count));
        return;
    }
    // The bits of numbers that are not negative are in their order, and sort faster.
    let mut bits: Vec<u32> = h.iter().map(|v| v.abs().to_bits()).collect();
    bits.sort_unstable();
    let a: Vec<f64> = bits.iter().map(|b| f64::from(f32::from_bits(*b))).collect();
    let n = d as f64;
    let l1: f64 = a.iter().sum();
    let energy: f64 = a.iter().map(|v| v * v).sum();
    let l2 = energy.sqrt();
    let defined = |ok: bool, v: f64| if ok { v as f32 } else { f32::NAN };
    let alive = l2 > 0.0;
    let mean = l1 / n;
    let (mut m2, mut m4) = (0.0, 0.0);
    for v in &a {
        let off = (v - mean) * (v - mean);
        m2 += off;
        m4 += off * off;
    }
    out.push(l1 as f32);
    out.push(l2 as f32);
    out.push(a.iter().filter(|v| **v > settings.l0_threshold).count() as f32);
    let bar = mean + (m2 / (n - 1.0)).sqrt();
    let outliers = a.iter().filter(|v| **v > bar).count() as f64;
    out.push(defined(d > 1, outliers / n));
    let largest = |share: f64| {
        // 0.07 · 1600 is a little more than 112 in floating point, and must not become 113.
        let k = ((share * n * (1.0 - 4.0 * f64::EPSILON)).ceil() as usize).clamp(1, d);
        &a[d - k..]
    };
    for share in &settings.topk_shares {
        let held: f64 = largest(*share).iter().map(|v| v * v).sum();
        out.push(defined(alive, held / energy));
    }
    for share in &settings.topk_shares {
        out.push(defined(alive, largest(*share).iter().sum::<f64>() / l1));
    }
    // With q = v/Σv: −Σq ln q = ln Σv − Σv ln v / Σv, and the same of the squares, whose logarithm is twice as large.
    let (mut of_mass, mut of_energy) = (0.0, 0.0);
    for v in a.iter().filter(|v| **v > 0.0) {
        let weighted = v * v.ln();
        of_mass += weighted;
        of_energy += v * weighted;
    }
    let rank = |entropy: f64| entropy.exp() / n;
    out.push(defined(alive, rank(energy.ln() - 2.0 * of_energy / energy)));
    out.push(defined(alive, rank(l1.ln() - of_mass / l1)));
    out.push(defined(
        alive && d > 1,
        (n.sqrt() - l1 / l2) / (n.sqrt() - 1.0),
    ));
    let ranked: f64 = a.iter().enumerate().map(|(i, v)| (i + 1) as f64 * v).sum();
    out.push(defined(alive, 2.0 * ranked / (n * l1) - (n + 1.0) / n));
    // A constant |h| has no spread beyond rounding, and no kurtosis.
    let spread = m2 / n > (mean * 1e-12).powi(2);
    out.push(defined(spread, n * m4 / (m2 * m2) - 3.0));
    let fourth: f64 = a.iter().map(|v| (v * v) * (v * v)).sum();
    out.push(defined(alive, energy * energy / (n * fourth)));
}

/// The null line: what a Gaussian vector of `d` dimensions gives, the mean of seeded draws. One number for each metric of
/// the schema; NaN for the distribution's and for those that grow with the vector's scale (`l1`, `l2`, `l0`). Many published sparsity values sit on it, so it belongs beside every sparsity curve.
#[must_use]
pub fn null_line(d: usize, settings: &LensSettings) -> Vec<f32> {
    // Wide vectors spread less from draw to draw.
    let draws = ((1 << 18) / d.max(1)).clamp(16, 1024);
    let mut rng = rand::rngs::StdRng::seed_from_u64(0x9a55);
    let mut sums: Vec<f64> = Vec::new();
    for _ in 0..draws {
        let h: Vec<f32> = (0..d)
            .map(|_| {
                let (u, v): (f64, f64) = (rng.random_range(f64::MIN_POSITIVE..1.0), rng.random());
                ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
            })
            .collect();
        let mut row = Vec::new();
        read(&h, settings, &mut row);
        sums.resize(row.len(), 0.0);
        sums.iter_mut()
            .zip(row)
            .for_each(|(s, v)| *s += f64::from(v));
    }
    let distribution = super::distribution::COLUMNS + settings.renyi.len();
    std::iter::repeat_n(f32::NAN, distribution + SCALED)
        .chain(sums[SCALED..].iter().map(|s| (s / draws as f64) as f32))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published values of a Gaussian vector of large d.
    #[test]
    fn the_null_line_is_the_gaussian_one() {
        let settings = LensSettings {
            topk_shares: vec![0.05, 0.1],
            ..LensSettings::default()
        };
        let line = null_line(16_384, &settings);
        assert!(line[..14].iter().all(|v| v.is_nan()));
        let line = &line[14..];
        let known = [
            (3, 0.161, "l0_outlier"),
            (4, 0.278, "top-5 energy"),
            (5, 0.439, "top-10 energy"),
            (7, 0.258, "top-10 mass"),
            (8, 0.482, "effective_rank_sq"),
            (9, 0.753, "effective_rank_abs"),
            (10, 0.206, "hoyer"),
            (11, 0.414, "gini"),
            (12, 0.87, "kurtosis"),
            (13, 0.334, "participation_ratio"),
        ];
        for (i, value, name) in known {
            // A fourth moment is noisier than the rest.
            let tolerance = if name == "kurtosis" { 0.04 } else { 0.006 };
            let off = (line[i] - value).abs();
            assert!(off < tolerance, "{name}: {} {value}", line[i]);
        }
        let hoyer = |d| null_line(d, &LensSettings::default())[14 + 8];
        assert!((hoyer(16) - 0.253).abs() < 0.02, "{}", hoyer(16));
        assert!((hoyer(192) - 0.217).abs() < 0.005, "{}", hoyer(192));
    }

    /// A vector that tells ddof 0 from 1 and biased from unbiased kurtosis; values worked out by hand.
    #[test]
    fn a_small_vector_has_the_values_of_the_definitions() {
        let mut out = Vec::new();
        read(&[0.0, -1.0, 0.0, 1.02], &LensSettings::default(), &mut out);
        let expected = [
            (0, 2.02),
            (2, 2.0),
            (3, 0.0),
            (4, 0.509_9),
            (5, 0.504_950_5),
            (8, 0.585_855_7),
            (9, 0.502_475_2),
            (10, -1.999_216),
            (11, 0.499_804_1),
        ];
        for (i, value) in expected {
            assert!((out[i] - value).abs() < 2e-6, "{i}: {} {value}", out[i]);
        }
    }

    #[test]
    fn a_share_of_the_dimensions_is_not_rounded_up_by_accident() {
        let settings = LensSettings {
            topk_shares: vec![0.07],
            ..LensSettings::default()
        };
        let mut out = Vec::new();
        read(&vec![1.0; 1600], &settings, &mut out);
        assert_eq!(out[4], 112.0 / 1600.0);
    }

    #[test]
    fn degenerate_vectors_have_no_ratios() {
        let settings = LensSettings::default();
        for (h, defined) in [(vec![0.0; 8], 4), (vec![2.0], 3)] {
            let mut out = Vec::new();
            read(&h, &settings, &mut out);
            assert_eq!(out.len(), 12);
            assert!(out[..3].iter().all(|v| v.is_finite()));
            assert!(out[8].is_nan(), "hoyer of {h:?}");
            assert_eq!(out[..4].iter().filter(|v| v.is_finite()).count(), defined);
        }
        let mut out = Vec::new();
        read(&[1.0, f32::NAN], &settings, &mut out);
        assert!(out.iter().all(|v| v.is_nan()));
    }
}
