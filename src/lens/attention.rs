//! Attention probabilities of one query position → its statistics per layer and head.

use crate::model::decoder::Traced;
use crate::model::ops::with_slice;
use crate::trace::Attention;
use std::ops::Range;

/// Statistics of the query at `token` (index into the forward's tokens of its row `row`), which stands at `position` of
/// its text. Entropies in nats; `attn_entropy_norm` is NaN where only one key is visible, and everything is NaN for blocks
/// without attention. `keep` keeps the rows themselves. `None` for a model without any.
///
/// # Errors
/// If the forward did not tap attention.
pub fn read(
    traced: &Traced,
    row: usize,
    token: usize,
    position: usize,
    keep: bool,
) -> candle_core::Result<Option<Attention>> {
    let Some(first) = traced.attention.iter().flatten().next() else {
        return Ok(None);
    };
    let (heads, _, keys) = first.rows[row].dims3()?;
    // A reader of texts sees what was there; one that sees in both directions, all of it.
    let shown = if first.sight.causal {
        (position + 1).min(keys)
    } else {
        keys
    };
    let mut all = Statistics::default();
    let mut rows = keep.then(Vec::new);
    for block in &traced.attention {
        let Some(block) = block else {
            all.nothing(heads);
            if let Some(rows) = &mut rows {
                rows.resize(rows.len() + heads * shown, f32::NAN);
            }
            continue;
        };
        let p = block.rows[row].narrow(1, token, 1)?;
        let keys = p.dim(2)?;
        with_slice(&p, |p| {
            all.block(p, keys, block.sight.visible(position, keys));
            if let Some(rows) = &mut rows {
                for a in p.chunks_exact(keys) {
                    rows.extend_from_slice(&a[..shown]);
                }
            }
        })?;
    }
    Ok(Some(Attention {
        heads,
        entropy: all.entropy.into(),
        varentropy: all.varentropy.into(),
        entropy_norm: all.norm.into(),
        mean: all.mean.into(),
        head_var: all.head_var.into(),
        disagreement: all.disagreement.into(),
        rows: rows.map(Into::into),
    }))
}

/// The columns, block after block.
#[derive(Default)]
struct Statistics {
    entropy: Vec<f32>,
    varentropy: Vec<f32>,
    norm: Vec<f32>,
    mean: Vec<f32>,
    head_var: Vec<f32>,
    disagreement: Vec<f32>,
}

impl Statistics {
    /// A block without attention.
    fn nothing(&mut self, heads: usize) {
        for column in [&mut self.entropy, &mut self.varentropy, &mut self.norm] {
            column.resize(column.len() + heads, f32::NAN);
        }
        for column in [&mut self.mean, &mut self.head_var, &mut self.disagreement] {
            column.push(f32::NAN);
        }
    }

    /// One query's rows of a block, `[heads, keys]`, of which the keys in `seen` are visible.
    fn block(&mut self, p: &[f32], keys: usize, seen: Range<usize>) {
        let first = self.entropy.len();
        let visible = seen.len();
        for a in p.chunks_exact(keys) {
            let (h, v) = spread(&a[seen.clone()]);
            self.entropy.push(h as f32);
            self.varentropy.push(v as f32);
            self.norm.push(if visible > 1 {
                (h / (visible as f64).ln()) as f32
            } else {
                f32::NAN
            });
        }
        let h = &self.entropy[first..];
        let n = h.len() as f64;
        let average = h.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        self.mean.push(average as f32);
        let squares = h.iter().map(|v| (f64::from(*v) - average).powi(2));
        self.head_var.push((squares.sum::<f64>() / n) as f32);
        let mut apart = 0.0f64;
        for k in seen {
            let column = || p.chunks_exact(keys).map(|a| f64::from(a[k]));
            let average = column().sum::<f64>() / n;
            apart += column().map(|a| (a - average).abs()).sum::<f64>();
        }
        self.disagreement
            .push((apart / (n * visible as f64)) as f32);
    }
}

/// H = −Σ a ln a and Σ a (ln a + H)² of one row of probabilities.
fn spread(a: &[f32]) -> (f64, f64) {
    let log = |a: f32| f64::from(a).ln();
    let seen = || a.iter().copied().filter(|a| *a > 0.0);
    let h: f64 = seen().map(|a| -f64::from(a) * log(a)).sum();
    let v = seen().map(|a| f64::from(a) * (log(a) + h).powi(2)).sum();
    (h.max(0.0), v)
}
