//! Statistics over samples: means, spreads and separation of two sets.

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

    #[test]
    fn means_and_medians_of_nothing_are_unknown() {
        assert_eq!(mean(&[]), None);
        assert_eq!(median(&[]), None);
        assert_eq!(mean(&[1.0, 2.0]), Some(1.5));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
