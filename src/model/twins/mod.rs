//! The twins of the processor's kernels: the same mathematics in batched tensor operations, for any candle device.
//!
//! Everything is f32, the only type of numbers that all devices compute well. Nothing is copied to main memory.

pub(crate) mod scan;

use super::ops::{Angles, Attended, Scores};
use candle_core::{D, DType, Device, Result, Tensor};

/// Scores of attention held at once, in numbers.
const SCORES: usize = 1 << 26;

/// RMSNorm over the last dimension: `x / sqrt(mean(x²) + eps) · w`.
pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let square = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(square + eps)?.sqrt()?)?
        .broadcast_mul(weight)
}

/// LayerNorm over the last dimension, the variance around the mean.
pub(super) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    rms_norm(&x, weight, eps)?.broadcast_add(bias)
}

/// Rotary position embedding, half-split pairs of the first `2 · pairs` dimensions.
pub(super) fn rope(x: &Tensor, angles: &Angles) -> Result<Tensor> {
    let angles = angles.on(x.device())?;
    let Some((cos, sin)) = &angles.tensors else {
        candle_core::bail!("there are no angles to turn by");
    };
    let (pairs, width) = (angles.pairs, x.dim(D::Minus1)?);
    let a = x.narrow(D::Minus1, 0, pairs)?;
    let b = x.narrow(D::Minus1, pairs, pairs)?;
    let mut parts = vec![
        (a.broadcast_mul(cos)? - b.broadcast_mul(sin)?)?,
        (b.broadcast_mul(cos)? + a.broadcast_mul(sin)?)?,
    ];
    if width > 2 * pairs {
        parts.push(x.narrow(D::Minus1, 2 * pairs, width - 2 * pairs)?);
    }
    Tensor::cat(&parts, D::Minus1)
}

/// Softmax over the visible keys of products `[batch, heads, queries, keys]`, the first of which belongs to key `first`;
/// query i stands at position `past + i`. The rest get exactly 0.
pub(super) fn attention_softmax(
    products: &Tensor,
    scores: &Scores,
    past: usize,
    first: usize,
) -> Result<Tensor> {
    let (_, _, queries, keys) = products.dims4()?;
    let mut z = (products * scores.scale)?;
    if let Some(cap) = scores.cap {
        z = ((z / cap)?.tanh()? * cap)?;
    }
    if let Some(added) = added(scores, queries, keys, past, first, products.device())? {
        z = z.broadcast_add(&added)?;
    }
    candle_nn::ops::softmax(&z, D::Minus1)
}

/// What is added to scores, `[1, heads or 1, queries, keys]`: −∞ for keys out of sight and what distance takes. `None`
/// where every query sees every key as it is.
fn added(
    scores: &Scores,
    queries: usize,
    keys: usize,
    past: usize,
    first: usize,
    device: &Device,
) -> Result<Option<Tensor>> {
    let sight = scores.sight;
    let hides = (past..past + queries).any(|position| {
        let seen = sight.visible(position, first + keys);
        seen.start > first || seen.end < first + keys
    });
    if !hides && scores.slopes.is_none() {
        return Ok(None);
    }
    let run =
        |from: usize, count: usize| Tensor::arange(from as f32, (from + count) as f32, device);
    let away = run(past, queries)?
        .reshape((1, 1, queries, 1))?
        .broadcast_sub(&run(first, keys)?.reshape((1, 1, 1, keys))?)?;
    let mut sum = match &scores.slopes {
        Some(slopes) => {
            let slopes = Tensor::new(&slopes[..], device)?.neg()?;
            away.broadcast_mul(&slopes.reshape((1, slopes.elem_count(), 1, 1))?)?
        }
        None => away.zeros_like()?,
    };
    if hides {
        let mut hidden = away.zeros_like()?.to_dtype(DType::U8)?;
        if sight.causal {
            hidden = away.lt(0f32)?;
        }
        if let Some(window) = sight.window {
            hidden = (hidden + away.ge(window as f32)?)?;
        }
        let shape = sum.shape().clone();
        let nothing = Tensor::full(f32::NEG_INFINITY, &shape, device)?;
        sum = hidden
            .gt(0u8)?
            .broadcast_as(&shape)?
            .contiguous()?
            .where_cond(&nothing, &sum)?;
    }
    Ok(Some(sum))
}

/// Attention of one branch; shapes as [`super::ops::attention`] has them.
pub(super) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scores: &Scores,
    past: usize,
    keep: bool,
) -> Result<Attended> {
    let (_, heads, queries, _) = q.dims4()?;
    let keys = k.dim(2)?;
    // Keys that no query of this call sees are left alone: a window costs its width, whatever came before.
    let first = scores.sight.visible(past, keys).start;
    let near = keys - first;
    let (k, v) = (k.narrow(2, first, near)?, v.narrow(2, first, near)?);
    let at_once = (SCORES / (heads * near)).clamp(1, queries);
    let (mut mixed, mut kept) = (Vec::new(), Vec::new());
    for from in (0..queries).step_by(at_once) {
        let count = at_once.min(queries - from);
        let (out, p) = some(
            &q.narrow(2, from, count)?,
            &k,
            &v,
            scores,
            past + from,
            first,
        )?;
        mixed.push(out);
        if keep {
            kept.push(p);
        }
    }
    let kept = match keep {
        true => Some(Tensor::cat(&kept, 1)?.pad_with_zeros(2, first, 0)?),
        false => None,
    };
    Ok((Tensor::cat(&mixed, 0)?, kept))
}

/// The same for some queries `[1, heads, queries, head_dim]` and the keys from `first` on: mixed values and the
/// probabilities of those keys.
fn some(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scores: &Scores,
    past: usize,
    first: usize,
) -> Result<(Tensor, Tensor)> {
    let (_, heads, queries, head_dim) = q.dims4()?;
    let (_, kv_heads, keys, _) = k.dims4()?;
    // Query heads that share a key head are stacked as further rows of one product.
    let stacked = heads / kv_heads * queries;
    let q = q.contiguous()?.reshape((1, kv_heads, stacked, head_dim))?;
    let z = q.matmul(&k.transpose(2, 3)?)?;
    let p = attention_softmax(&z.reshape((1, heads, queries, keys))?, scores, past, first)?;
    let mixed = p
        .reshape((1, kv_heads, stacked, keys))?
        .matmul(v)?
        .reshape((heads, queries, head_dim))?
        .transpose(0, 1)?
        .reshape((queries, heads * head_dim))?;
    Ok((mixed, p.squeeze(0)?))
}

#[cfg(test)]
mod tests {
    use super::super::ops::{self, Sight};
    use super::*;
    use rand::{Rng, SeedableRng};

    pub(super) fn random(seed: u64, dims: &[usize]) -> Tensor {
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        let numbers: Vec<f32> = (0..dims.iter().product())
            .map(|_| rng.random_range(-2.0..2.0))
            .collect();
        Tensor::from_vec(numbers, dims, &Device::Cpu).unwrap()
    }

    fn same(a: &Tensor, b: &Tensor) {
        assert_eq!(a.dims(), b.dims());
        let numbers = |t: &Tensor| -> Vec<f32> { t.flatten_all().unwrap().to_vec1().unwrap() };
        for (a, b) in numbers(a).iter().zip(numbers(b)) {
            assert!((a - b).abs() < 5e-6 * b.abs().max(1.0), "{a} {b}");
        }
    }

    /// Windows, caps, slopes, shared heads, with a past and without: values and probabilities, zeros exactly.
    #[test]
    fn attention_is_what_the_kernel_gives() {
        for (causal, window, cap, alibi) in [
            (true, None, None, false),
            (true, Some(3), None, false),
            (true, Some(3), Some(5.0), false),
            (true, None, None, true),
            (false, None, None, false),
        ] {
            for (past, queries) in [(0, 7), (9, 1), (4, 5)] {
                if !causal && past > 0 {
                    continue;
                }
                let scores = Scores {
                    scale: 0.4,
                    cap,
                    slopes: alibi.then(|| ops::alibi_slopes(4)),
                    sight: Sight { window, causal },
                };
                let keys = past + queries;
                let q = random(1, &[1, 4, queries, 8]);
                let (k, v) = (random(2, &[1, 2, keys, 8]), random(3, &[1, 2, keys, 8]));
                let (out, p) = attention(&q, &k, &v, &scores, past, true).unwrap();
                let (expected, of_kernel) =
                    ops::attention(&q, &k, &v, &scores, past, true).unwrap();
                same(&out, &expected);
                let (p, of_kernel) = (p.unwrap(), of_kernel.unwrap());
                same(&p, &of_kernel);
                let zeros = |t: &Tensor| -> Vec<bool> {
                    let t: Vec<f32> = t.flatten_all().unwrap().to_vec1().unwrap();
                    t.iter().map(|p| *p == 0.0).collect()
                };
                assert_eq!(zeros(&p), zeros(&of_kernel));
            }
        }
    }

    #[test]
    fn norms_and_rotations_are_what_the_kernels_give() {
        let (x, w, b) = (random(4, &[5, 48]), random(5, &[48]), random(6, &[48]));
        same(
            &rms_norm(&x, &w, 1e-5).unwrap(),
            &ops::rms_norm(&x, &w, 1e-5).unwrap(),
        );
        // Far from 0, where a sum of squares would have lost the spread; rounding of the mean is what remains.
        let far = (x * 1e-2).unwrap().affine(1.0, 50.0).unwrap();
        let found = layer_norm(&far, &w, &b, 1e-12).unwrap();
        let expected = ops::layer_norm(&far, &w, &b, 1e-12).unwrap();
        let off = (found - expected)
            .unwrap()
            .abs()
            .unwrap()
            .max_all()
            .unwrap();
        let off = off.to_scalar::<f32>().unwrap();
        assert!(off < 1e-2, "{off}");
        let x = random(7, &[1, 3, 4, 10]);
        for pairs in [5, 3] {
            let turns: Vec<f32> = (0..4 * pairs).map(|i| i as f32 * 0.3).collect();
            let angles = Angles {
                cos: turns.iter().map(|t| t.cos()).collect::<Vec<_>>().into(),
                sin: turns.iter().map(|t| t.sin()).collect::<Vec<_>>().into(),
                pairs,
                tensors: None,
            };
            same(
                &rope(&x, &angles).unwrap(),
                &ops::rope(&x, &angles).unwrap(),
            );
        }
    }
}
