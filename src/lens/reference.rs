//! The slow float64 definitions of every metric, written out one by one as the table of metrics states them.
//!
//! Nothing fast reads these: tests and `doctor` compare the lens with them.

use super::LensSettings;

/// The distribution columns of logits `z` against the final row `z_last`, by name, in f64 and one loop each.
#[must_use]
pub fn distribution(
    z: &[f64],
    z_last: &[f64],
    target: Option<u32>,
    settings: &LensSettings,
) -> Vec<(String, f64)> {
    let (log_p, log_q) = (
        log_softmax(z, settings.temperature),
        log_softmax(z_last, settings.temperature),
    );
    let p: Vec<f64> = log_p.iter().map(|l| l.exp()).collect();
    let h = entropy(&p);
    let mut order: Vec<usize> = (0..z.len()).filter(|i| z[*i] > f64::NEG_INFINITY).collect();
    order.sort_by(|a, b| z[*b].total_cmp(&z[*a]).then(a.cmp(b)));
    let second = order.get(1).copied();
    let first = order.first().copied().unwrap_or(0);
    // Of logarithms: a probability too small for f64 is still a finite divergence.
    let kl = |a: &[f64], b: &[f64]| -> f64 {
        a.iter()
            .zip(b)
            .filter(|(a, _)| a.exp() > 0.0)
            .map(|(a, b)| a.exp() * (a - b))
            .sum()
    };
    let mut out = vec![
        ("entropy".to_owned(), h),
        (
            "varentropy".to_owned(),
            p.iter()
                .filter(|p| **p > 0.0)
                .map(|p| p * (p.ln() + h).powi(2))
                .sum(),
        ),
        (
            "prob_margin".to_owned(),
            second.map_or(f64::NAN, |s| p[first] - p[s]),
        ),
        (
            "logit_margin".to_owned(),
            second.map_or(f64::NAN, |s| (z[first] - z[s]) / settings.temperature),
        ),
        ("max_prob".to_owned(), p[first]),
        ("perplexity".to_owned(), h.exp()),
        ("kl_uniform".to_owned(), (z.len() as f64).ln() - h),
        ("kl_final".to_owned(), kl(&log_q, &log_p)),
        ("kl_from_final".to_owned(), kl(&log_p, &log_q)),
        (
            "surprisal".to_owned(),
            target.map_or(f64::NAN, |t| -log_p[t as usize]),
        ),
        (
            "next_rank".to_owned(),
            target.map_or(f64::NAN, |t| {
                (1 + z.iter().filter(|v| **v > z[t as usize]).count()) as f64
            }),
        ),
    ];
    for a in &settings.renyi {
        let value = if *a == 1.0 {
            h
        } else if a.is_infinite() {
            -p[first].ln()
        } else {
            let sum: f64 = p.iter().filter(|p| **p > 0.0).map(|p| p.powf(*a)).sum();
            sum.ln() / (1.0 - a)
        };
        out.push((format!("renyi_{a}"), value));
    }
    out
}

/// Softmax of z / T; −∞ gets 0.
#[must_use]
pub fn softmax(z: &[f64], temperature: f64) -> Vec<f64> {
    let logs = log_softmax(z, temperature);
    logs.into_iter().map(f64::exp).collect()
}

/// ln softmax of z / T.
fn log_softmax(z: &[f64], temperature: f64) -> Vec<f64> {
    let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let x: Vec<f64> = z.iter().map(|z| (z - max) / temperature).collect();
    let log_sum = x.iter().map(|x| x.exp()).sum::<f64>().ln();
    x.into_iter().map(|x| x - log_sum).collect()
}

/// −Σ p ln p in nats.
#[must_use]
pub fn entropy(p: &[f64]) -> f64 {
    p.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum()
}
