//! One row of logits → the distribution columns of a cell, in the order of [`crate::trace::Schema`].
//!
//! With m the largest logit, x = (z − m)/T and S = Σeˣ: ln p = x − ln S, H = ln S − Σxeˣ/S. Sums run in f64; the
//! variance is taken around the mean in a pass of its own, since E\[x²\] − E\[x\]² cancels on peaked rows. Logits of −∞
//! carry no weight and never meet 0 · ∞. A row with NaN or without a finite logit is invalid: all its columns are NaN.

use super::LensSettings;
use crate::model::kernel::exp;
use crate::trace::Candidate;

/// Distribution columns before the Rényi ones.
pub(super) const COLUMNS: usize = 11;

/// What the other rows of a token need to know of its final row.
pub(super) struct Final {
    /// (z − m)/T; −∞ stays.
    x: Vec<f32>,
    /// eˣ.
    e: Vec<f32>,
    /// Σeˣ, 0 when the row is invalid.
    sum: f64,
    entropy: f64,
}

impl Final {
    pub(super) fn new(z: &[f32], temperature: f64) -> Self {
        let Some(max) = largest(z) else {
            return Self {
                x: Vec::new(),
                e: Vec::new(),
                sum: 0.0,
                entropy: f64::NAN,
            };
        };
        let inverse = (1.0 / temperature) as f32;
        let x: Vec<f32> = z.iter().map(|z| (z - max) * inverse).collect();
        let e: Vec<f32> = x.iter().map(|x| exp(*x)).collect();
        let (mut sum, mut weighted) = (0.0, 0.0);
        for (x, e) in x.iter().zip(&e) {
            if *e > 0.0 {
                sum += f64::from(*e);
                weighted += f64::from(*e) * f64::from(*x);
            }
        }
        Self {
            x,
            e,
            sum,
            entropy: sum.ln() - weighted / sum,
        }
    }
}

/// The largest logit, `None` for an invalid row (NaN, +∞ or nothing finite).
fn largest(z: &[f32]) -> Option<f32> {
    let mut max = f32::NEG_INFINITY;
    for z in z {
        if z.is_nan() {
            return None;
        }
        max = max.max(*z);
    }
    max.is_finite().then_some(max)
}

/// Append the row's distribution columns to `out` and return its `top` best candidates (filled up with NaN).
pub(super) fn read(
    z: &[f32],
    last: &Final,
    is_last: bool,
    target: Option<u32>,
    settings: &LensSettings,
    out: &mut Vec<f32>,
) -> Vec<Candidate> {
    let nothing = Candidate {
        id: 0,
        prob: f32::NAN,
    };
    let Some(max) = largest(z) else {
        out.extend(std::iter::repeat_n(
            f32::NAN,
            COLUMNS + settings.renyi.len(),
        ));
        return vec![nothing; settings.top];
    };
    let inverse = (1.0 / settings.temperature) as f32;
    let best = best(z, settings.top.max(2));
    let powers: Vec<f64> = settings
        .renyi
        .iter()
        .copied()
        .filter(|a| a.is_finite() && *a != 1.0)
        .collect();
    let mut power_sums = vec![0.0f64; powers.len()];
    let (mut sum, mut weighted) = (0.0f64, 0.0f64);
    // Σ p̂_l·x_F and Σ p̂_F·x_l, for the two directions of KL against the final row.
    let (mut cross, mut back) = (0.0f64, 0.0f64);
    let compare = last.sum > 0.0;
    // Loops of one operation each, so that the compiler can use vectors for the exponentials.
    let x: Vec<f32> = z.iter().map(|z| (z - max) * inverse).collect();
    let e: Vec<f32> = x.iter().map(|x| exp(*x)).collect();
    for (x, e) in x.iter().zip(&e).filter(|(_, e)| **e > 0.0) {
        sum += f64::from(*e);
        weighted += f64::from(*e) * f64::from(*x);
    }
    if compare {
        for (x, e) in last.x.iter().zip(&e).filter(|(_, e)| **e > 0.0) {
            cross += f64::from(*e) * f64::from(*x);
        }
        for (x, e) in x.iter().zip(&last.e).filter(|(_, e)| **e > 0.0) {
            back += f64::from(*e) * f64::from(*x);
        }
    }
    let mut raised = vec![0.0f32; if powers.is_empty() { 0 } else { x.len() }];
    for (power, total) in powers.iter().zip(&mut power_sums) {
        if (power - 1.0).abs() < 0.05 {
            // What is small here is divided by 1 − α later: it needs every digit.
            let wide = |a: f64| x.iter().map(|x| (f64::from(*x) * a).exp()).sum::<f64>();
            *total = wide(*power) * (power * (sum.ln() - wide(1.0).ln())).exp();
            continue;
        }
        let power = *power as f32;
        for (r, x) in raised.iter_mut().zip(&x) {
            *r = exp(x * power);
        }
        let allowed = raised
            .iter()
            .zip(&x)
            .filter(|(_, x)| **x > f32::NEG_INFINITY);
        *total = allowed.map(|(r, _)| f64::from(*r)).sum();
    }
    let mean = weighted / sum;
    let spread: f64 = x
        .iter()
        .zip(&e)
        .filter(|(_, e)| **e > 0.0)
        .map(|(x, e)| {
            let off = f64::from(*x) - mean;
            f64::from(*e) * off * off
        })
        .sum();
    let log_sum = sum.ln();
    let entropy = (log_sum - mean).max(0.0);
    let prob = |z: f32| f64::from((z - max) * inverse).exp() / sum;
    let second = best.get(1).map(|c| c.1);
    let target = target.and_then(|t| z.get(t as usize).copied());
    out.push(entropy as f32);
    out.push((spread / sum) as f32);
    out.push(second.map_or(f32::NAN, |s| (1.0 / sum - prob(s)) as f32));
    out.push(second.map_or(f32::NAN, |s| (max - s) * inverse));
    out.push((1.0 / sum) as f32);
    out.push(entropy.exp() as f32);
    out.push(((z.len() as f64).ln() - entropy).max(0.0) as f32);
    if is_last {
        out.extend([0.0, 0.0]);
    } else if compare {
        // KL(final‖layer) and KL(layer‖final); infinite where one side rules out what the other allows.
        let kl_final = -last.entropy - back / last.sum + log_sum;
        let kl_from_final = -entropy - cross / sum + last.sum.ln();
        out.extend([kl_final.max(0.0) as f32, kl_from_final.max(0.0) as f32]);
    } else {
        out.extend([f32::NAN, f32::NAN]);
    }
    out.push(target.map_or(f32::NAN, |t| {
        (log_sum - f64::from((t - max) * inverse)) as f32
    }));
    out.push(target.map_or(f32::NAN, |t| {
        (1 + z.iter().filter(|z| **z > t).count()) as f32
    }));
    let mut sums = power_sums.into_iter();
    for order in &settings.renyi {
        out.push(if *order == 1.0 {
            entropy as f32
        } else if order.is_infinite() {
            log_sum as f32
        } else {
            let total = sums.next().unwrap_or(f64::NAN);
            ((total.ln() - order * log_sum) / (1.0 - order)).max(0.0) as f32
        });
    }
    let mut top: Vec<Candidate> = best
        .iter()
        .take(settings.top)
        .map(|(id, z)| Candidate {
            id: *id,
            prob: prob(*z) as f32,
        })
        .collect();
    top.resize(settings.top, nothing);
    top
}

/// The `k` largest finite logits, best first, ties to the lower id.
fn best(z: &[f32], k: usize) -> Vec<(u32, f32)> {
    let mut best: Vec<(u32, f32)> = Vec::with_capacity(k + 1);
    let mut bar = f32::NEG_INFINITY;
    for (id, z) in z.iter().enumerate() {
        if *z > bar {
            let at = best.partition_point(|b| b.1 >= *z);
            best.insert(at, (id as u32, *z));
            best.truncate(k);
            if best.len() == k {
                bar = best[k - 1].1;
            }
        }
    }
    best
}
