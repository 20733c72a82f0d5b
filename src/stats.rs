//! Statistics over samples: means, spreads, separation of two sets and the direction of the largest spread.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// AUROC = P(unknown > known) + ½ P(equal), by ranks with ties averaged. `None` when a set is empty or holds a number
/// that is not comparable. Below .5 the sign is reversed.
#[must_use]
pub fn auroc(known: &[f64], unknown: &[f64]) -> Option<f64> {
    if known.is_empty() || unknown.is_empty() {
        return None;
    }
    let mut all: Vec<(f64, bool)> = known
        .iter()
        .map(|v| (*v, false))
        .chain(unknown.iter().map(|v| (*v, true)))
        .collect();
    if all.iter().any(|(v, _)| v.is_nan()) {
        return None;
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut rank_sum = 0.0;
    let mut at = 0;
    while at < all.len() {
        let ties = all[at..].iter().take_while(|v| v.0 == all[at].0).count();
        let rank = at as f64 + (ties as f64 + 1.0) / 2.0;
        rank_sum += rank * all[at..at + ties].iter().filter(|v| v.1).count() as f64;
        at += ties;
    }
    let (k, u) = (known.len() as f64, unknown.len() as f64);
    Some((rank_sum - u * (u + 1.0) / 2.0) / (k * u))
}

/// A percentile bootstrap interval of [`auroc`]: both sets are drawn anew with replacement, sample by sample and each to
/// its own size, `draws` times; `level` of the draws lie between the two numbers (0.95 is usual). The same seed gives the
/// same interval. `None` where there is no AUROC, or nothing is drawn.
///
/// Efron & Tibshirani 1993, *An Introduction to the Bootstrap*, chapter 13.
#[must_use]
pub fn auroc_interval(
    known: &[f64],
    unknown: &[f64],
    draws: usize,
    level: f64,
    seed: u64,
) -> Option<(f64, f64)> {
    auroc(known, unknown)?;
    // The place of every sample among the distinct values: a draw is then counted in one pass, never sorted.
    let mut distinct: Vec<f64> = known.iter().chain(unknown).copied().collect();
    distinct.sort_by(f64::total_cmp);
    distinct.dedup();
    let place = |value: &f64| distinct.partition_point(|other| other < value);
    let places = [known, unknown].map(|set| set.iter().map(place).collect::<Vec<_>>());
    let pairs = known.len() as f64 * unknown.len() as f64;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut counts = vec![[0u64; 2]; distinct.len()];
    let mut draw = || {
        counts.fill([0; 2]);
        for (set, places) in places.iter().enumerate() {
            for _ in places {
                counts[places[rng.random_range(0..places.len())]][set] += 1;
            }
        }
        // In halves: a pair of equal values is worth one, a larger unknown value two.
        let (mut below, mut halves) = (0, 0);
        for [known, unknown] in &counts {
            halves += unknown * (2 * below + known);
            below += known;
        }
        halves as f64 / 2.0 / pairs
    };
    let mut values: Vec<f64> = (0..draws).map(|_| draw()).collect();
    values.sort_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    Some((quantile(&values, tail)?, quantile(&values, 1.0 - tail)?))
}

/// The quantile `q` of sorted numbers, interpolated between neighbours (type 7 of Hyndman & Fan 1996, NumPy's default);
/// `None` of nothing.
#[must_use]
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = q.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (at.floor() as usize, at.ceil() as usize);
    let (below_value, above_value) = (sorted[below], sorted[above.min(last)]);
    Some(below_value + (at - below as f64) * (above_value - below_value))
}

/// The mean and population standard deviation (ddof = 0) of the numbers that are there (NaN is none), and how many there
/// are; `None` if there are none.
#[must_use]
pub fn mean_and_deviation(values: &[f64]) -> Option<(f64, f64, usize)> {
    let there: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
    let mean = mean(&there)?;
    let squares = there.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>();
    let n = there.len();
    Some((mean, (squares / n as f64).sqrt(), n))
}

/// Steps of [`first_component`] at most.
const POWER_STEPS: usize = 2000;

/// The direction u, |u| = 1, along which the rows (each `[d]`) spread most *around zero*: the first eigenvector of Σ x xᵀ.
/// Take the mean away first for the usual principal component. Its sign is arbitrary. `None` where all rows are zero, or
/// there are none, or they differ in length.
///
/// Power iteration u ← Xᵀ(Xu) in float64, which needs neither `[d, d]` nor `[n, n]`; from a fixed random start, because a
/// data row may be orthogonal to the answer. It ends when u moves by less than 1e-12; two spreads that are nearly equal may
/// be left mixed after 2000 steps.
#[must_use]
pub fn first_component(rows: &[Vec<f64>]) -> Option<Vec<f64>> {
    let d = rows.first()?.len();
    if rows.iter().any(|row| row.len() != d) {
        return None;
    }
    let mut rng = StdRng::seed_from_u64(0);
    let start = (0..d).map(|_| rng.random_range(-1.0..1.0)).collect();
    let mut u: Vec<f64> = unit(start)?;
    for _ in 0..POWER_STEPS {
        let mut next = vec![0.0; d];
        for row in rows {
            let along = dot(row, &u);
            next.iter_mut().zip(row).for_each(|(n, x)| *n += along * x);
        }
        let next = unit(next)?;
        let moved: f64 = next.iter().zip(&u).map(|(a, b)| (a - b) * (a - b)).sum();
        u = next;
        if moved < 1e-24 {
            break;
        }
    }
    Some(u)
}

/// Σ a b.
#[must_use]
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The vector of length 1 in the same direction; `None` where there is none.
#[must_use]
pub fn unit(mut v: Vec<f64>) -> Option<Vec<f64>> {
    let norm = dot(&v, &v).sqrt();
    if !(norm > 0.0 && norm.is_finite()) {
        return None;
    }
    v.iter_mut().for_each(|x| *x /= norm);
    Some(v)
}

/// Arithmetic mean; `None` of nothing.
#[must_use]
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Median; `None` of nothing.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auroc_equals_counting_pairs() {
        let known = [1.0, 2.0, 2.0, 5.0];
        let unknown = [2.0, 3.0, 0.5];
        let mut pairs = 0.0;
        for k in known {
            for u in unknown {
                pairs += if u > k {
                    1.0
                } else if u == k {
                    0.5
                } else {
                    0.0
                };
            }
        }
        assert!((auroc(&known, &unknown).unwrap() - pairs / 12.0).abs() < 1e-12);
        assert_eq!(auroc(&[1.0], &[2.0]), Some(1.0));
        assert_eq!(auroc(&[1.0], &[1.0]), Some(0.5));
        assert_eq!(auroc(&[], &[1.0]), None);
        assert_eq!(auroc(&[f64::NAN], &[1.0]), None);
    }

    /// P(unknown > known) + ½ P(equal), counted.
    fn counted(known: &[f64], unknown: &[f64]) -> f64 {
        let pairs = known
            .iter()
            .flat_map(|k| unknown.iter().map(move |u| (k, u)));
        let wins: f64 = pairs
            .map(|(k, u)| f64::from(u8::from(u > k)) + 0.5 * f64::from(u8::from(u == k)))
            .sum();
        wins / (known.len() * unknown.len()) as f64
    }

    proptest::proptest! {
        #[test]
        fn auroc_equals_counting_pairs_with_many_ties(
            known in proptest::collection::vec(-4i8..4, 1..30),
            unknown in proptest::collection::vec(-4i8..4, 1..30),
        ) {
            let real = |v: &[i8]| v.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
            let (known, unknown) = (real(&known), real(&unknown));
            let found = auroc(&known, &unknown).unwrap();
            proptest::prop_assert!((found - counted(&known, &unknown)).abs() < 1e-12);
            let turned = auroc(&unknown, &known).unwrap();
            proptest::prop_assert!((found + turned - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn zeros_of_both_signs_are_equal() {
        assert_eq!(auroc(&[-0.0], &[0.0]), Some(0.5));
        assert_eq!(auroc(&[0.0, -0.0], &[-0.0, 1.0]), Some(0.75));
    }

    #[test]
    fn bootstrap_intervals_are_seeded_and_as_wide_as_theory_says() {
        let known: Vec<f64> = (0..60).map(f64::from).collect();
        let unknown: Vec<f64> = (0..60).map(|i| f64::from(i) + 15.5).collect();
        let a = auroc(&known, &unknown).unwrap();
        let (low, high) = auroc_interval(&known, &unknown, 2000, 0.95, 7).unwrap();
        assert_eq!(
            auroc_interval(&known, &unknown, 2000, 0.95, 7),
            Some((low, high))
        );
        assert_ne!(
            auroc_interval(&known, &unknown, 2000, 0.95, 8),
            Some((low, high))
        );
        assert!(low < a && a < high);
        // The exact variance of A (Bamber 1975; DeLong's, with the placements counted).
        let place = |x: &f64, set: &[f64], above: bool| {
            let n = set
                .iter()
                .filter(|y| if above { *y > x } else { *y < x })
                .count();
            n as f64 / set.len() as f64
        };
        let v10: Vec<f64> = known.iter().map(|k| place(k, &unknown, true)).collect();
        let v01: Vec<f64> = unknown.iter().map(|u| place(u, &known, false)).collect();
        let spread = |v: &[f64]| {
            mean_and_deviation(v)
                .map(|(_, s, n)| s * s / n as f64)
                .unwrap()
        };
        let expected = 2.0 * 1.96 * (spread(&v10) + spread(&v01)).sqrt();
        assert!(
            ((high - low) / expected - 1.0).abs() < 0.12,
            "{low} {high} {expected}"
        );
        // Two sets without overlap leave no doubt, and nothing gives nothing.
        assert_eq!(
            auroc_interval(&[1.0, 2.0], &[3.0], 50, 0.95, 1),
            Some((1.0, 1.0))
        );
        assert_eq!(auroc_interval(&[], &[3.0], 50, 0.95, 1), None);
        assert_eq!(auroc_interval(&[1.0], &[3.0], 0, 0.95, 1), None);
    }

    #[test]
    fn intervals_are_those_of_resampled_sets() {
        let known: Vec<f64> = (0..23).map(|i| f64::from(i * 7 % 11) - 3.0).collect();
        let unknown: Vec<f64> = (0..31).map(|i| f64::from(i * 5 % 13) - 2.0).collect();
        let mut rng = StdRng::seed_from_u64(3);
        let mut again = |set: &[f64]| -> Vec<f64> {
            let drawn = set.iter().map(|_| set[rng.random_range(0..set.len())]);
            drawn.collect()
        };
        let mut values: Vec<f64> = (0..200)
            .map(|_| (again(&known), again(&unknown)))
            .map(|(known, unknown)| auroc(&known, &unknown).unwrap())
            .collect();
        values.sort_by(f64::total_cmp);
        let tail = (1.0 - 0.95) / 2.0;
        let tails = [tail, 1.0 - tail].map(|q| quantile(&values, q).unwrap());
        let found = auroc_interval(&known, &unknown, 200, 0.95, 3);
        assert_eq!(found, Some((tails[0], tails[1])));
    }

    #[test]
    fn quantiles_are_numpys() {
        let v = [1.0, 2.0, 4.0, 8.0];
        let found = [0.0, 0.25, 0.5, 0.9, 1.0].map(|q| quantile(&v, q).unwrap());
        for (found, expected) in found.into_iter().zip([1.0, 1.75, 3.0, 6.8, 8.0]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn deviations_are_of_the_population_and_of_what_is_there() {
        let (mean, deviation, n) = mean_and_deviation(&[1.0, f64::NAN, 3.0, 5.0]).unwrap();
        assert_eq!((mean, n), (3.0, 3));
        assert!((deviation - (8.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(mean_and_deviation(&[f64::NAN]), None);
    }

    #[test]
    fn the_first_component_is_the_first_eigenvector() {
        // By hand: Σ x xᵀ = [[10, 6], [6, 10]] has eigenvalues 16 and 4 along (1, 1) and (1, −1).
        let rows = [vec![3.0, 1.0], vec![1.0, 3.0]];
        let u = first_component(&rows).unwrap();
        assert!((u[0].abs() - 0.5f64.sqrt()).abs() < 1e-9 && (u[0] - u[1]).abs() < 1e-9);
        // The longest row is not it: a hundred short ones along y weigh more, and it is an eigenvector itself.
        let mut rows = vec![vec![0.0, 1.0]; 100];
        rows.push(vec![3.0, 0.0]);
        let u = first_component(&rows).unwrap();
        assert!(u[0].abs() < 1e-9 && (u[1].abs() - 1.0).abs() < 1e-9);
        assert_eq!(first_component(&[vec![0.0; 3]]), None);
        assert_eq!(first_component(&[vec![1.0], vec![1.0, 2.0]]), None);
        assert_eq!(first_component(&[]), None);
        // Against brute force: no direction on a fine half circle has more spread.
        let rows = [vec![1.0, 0.2], vec![-0.4, 2.0], vec![0.3, -0.7]];
        let spread = |u: &[f64]| rows.iter().map(|r| dot(r, u).powi(2)).sum::<f64>();
        let best = (0..10_000)
            .map(|i| f64::from(i) * std::f64::consts::PI / 10_000.0)
            .map(|angle| spread(&[angle.cos(), angle.sin()]))
            .fold(0.0, f64::max);
        let found = spread(&first_component(&rows).unwrap());
        assert!(
            found >= best - 1e-12 && found - best < 1e-5,
            "{found} {best}"
        );
    }

    #[test]
    fn means_and_medians_of_nothing_are_unknown() {
        assert_eq!(mean(&[]), None);
        assert_eq!(median(&[]), None);
        assert_eq!(mean(&[1.0, 2.0]), Some(1.5));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
