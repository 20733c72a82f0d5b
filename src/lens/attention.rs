//! Attention probabilities of one query position → its statistics per layer and head.

use crate::model::decoder::Traced;
use crate::model::ops::with_slice;
use crate::trace::Attention;

/// Statistics of the query at `token` (index into the forward's tokens of its row `row`), which sees `visible` keys.
/// Entropies in nats; `attn_entropy_norm` is NaN where only one key is visible. `keep` keeps the rows themselves.
///
/// # Errors
/// If the forward did not tap attention.
pub fn read(
    traced: &Traced,
    row: usize,
    token: usize,
    visible: usize,
    keep: bool,
) -> candle_core::Result<Attention> {
    let layers = traced.attention.len();
    let mut heads = 0;
    let (mut entropy, mut varentropy, mut norm) = (Vec::new(), Vec::new(), Vec::new());
    let (mut mean, mut head_var, mut disagreement) = (Vec::new(), Vec::new(), Vec::new());
    let mut rows = keep.then(Vec::new);
    for block in &traced.attention {
        let p = block[row].narrow(1, token, 1)?;
        heads = p.dim(0)?;
        let keys = p.dim(2)?;
        with_slice(&p, |p| {
            let first = entropy.len();
            for a in p.chunks_exact(keys) {
                let (h, v) = spread(&a[..visible]);
                entropy.push(h as f32);
                varentropy.push(v as f32);
                norm.push(if visible > 1 {
                    (h / (visible as f64).ln()) as f32
                } else {
                    f32::NAN
                });
                if let Some(rows) = &mut rows {
                    rows.extend_from_slice(&a[..visible]);
                }
            }
            let h = &entropy[first..];
            let n = h.len() as f64;
            let average = h.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
            mean.push(average as f32);
            head_var.push(
                (h.iter()
                    .map(|v| (f64::from(*v) - average).powi(2))
                    .sum::<f64>()
                    / n) as f32,
            );
            let mut apart = 0.0f64;
            for k in 0..visible {
                let at = |head: usize| f64::from(p[head * keys + k]);
                let average = (0..heads).map(at).sum::<f64>() / n;
                apart += (0..heads).map(|i| (at(i) - average).abs()).sum::<f64>();
            }
            disagreement.push((apart / (n * visible as f64)) as f32);
        })?;
    }
    debug_assert_eq!(mean.len(), layers);
    Ok(Attention {
        heads,
        entropy: entropy.into(),
        varentropy: varentropy.into(),
        entropy_norm: norm.into(),
        mean: mean.into(),
        head_var: head_var.into(),
        disagreement: disagreement.into(),
        rows: rows.map(Into::into),
    })
}

/// H = −Σ a ln a and Σ a (ln a + H)² of one row of probabilities.
fn spread(a: &[f32]) -> (f64, f64) {
    let log = |a: f32| f64::from(a).ln();
    let seen = || a.iter().copied().filter(|a| *a > 0.0);
    let h: f64 = seen().map(|a| -f64::from(a) * log(a)).sum();
    let v = seen().map(|a| f64::from(a) * (log(a) + h).powi(2)).sum();
    (h.max(0.0), v)
}
