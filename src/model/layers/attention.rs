//! Multi-head attention of all rows of a forward pass: one product for queries, keys and values, then row by row.

use super::{NormLayer, Pass, QkNorm};
use crate::error::Result;
use crate::model::config::Norm;
use crate::model::families::names::{Names, Qkv};
use crate::model::linear::Linear;
use crate::model::ops::{self, Scores, Sight};
use crate::model::weights::Loader;
use candle_core::Tensor;

/// Sizes and rules of one attention.
#[derive(Clone, Debug)]
pub(crate) struct AttentionConfig {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// Width of what it reads.
    pub(crate) input: usize,
    /// Width of what it gives.
    pub(crate) output: usize,
    pub(crate) scale: f64,
    pub(crate) cap: Option<f64>,
    pub(crate) alibi: bool,
    pub(crate) causal: bool,
    pub(crate) window: Option<usize>,
    /// Index of its rotary embedding.
    pub(crate) rotary: Option<usize>,
    pub(crate) qk_norm: Option<(QkNorm, Norm)>,
    pub(crate) qkv_bias: bool,
    pub(crate) output_bias: bool,
}

/// Attention with its weights.
#[derive(Debug)]
pub(crate) struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    heads: Heads,
}

/// What follows once there are queries, keys and values.
#[derive(Debug)]
pub(crate) struct Heads {
    output: Linear,
    norms: Option<(QkNorm, NormLayer, NormLayer)>,
    scores: Scores,
    config: AttentionConfig,
}

impl Attention {
    pub(crate) fn load(
        loader: &Loader<'_>,
        prefix: &str,
        names: &Names,
        c: AttentionConfig,
    ) -> Result<Self> {
        let named = |name: &str| format!("{prefix}.{name}");
        let (q, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let sizes = [q, kv, kv];
        let parts = match names.qkv {
            // As some GGUF files have it.
            Qkv::Split([query, ..])
                if !loader.has(&named(&format!("{query}.weight")))
                    && loader.has(&named("self_attn.qkv_proj.weight")) =>
            {
                let name = named("self_attn.qkv_proj");
                loader.linears(&name, &sizes, c.input, c.qkv_bias)?
            }
            Qkv::Split(names) => names
                .iter()
                .zip(sizes)
                .map(|(name, size)| loader.linear(&named(name), size, c.input, c.qkv_bias))
                .collect::<Result<Vec<_>>>()?,
            Qkv::Fused(name) => loader.linears(&named(name), &sizes, c.input, c.qkv_bias)?,
            Qkv::Transposed(name) => loader.conv1d(&named(name), &sizes, c.input)?,
            Qkv::Interleaved(name) => {
                loader.interleaved(&named(name), c.heads, c.head_dim, c.input, c.qkv_bias)?
            }
        };
        let output = match names.qkv {
            Qkv::Transposed(_) => loader
                .conv1d(&named(names.output), &[c.output], q)?
                .into_iter()
                .next()
                .ok_or_else(|| loader.nothing(&named(names.output)))?,
            _ => loader.linear(&named(names.output), c.output, q, c.output_bias)?,
        };
        let norms = match c.qk_norm {
            None => None,
            Some((kind, norm)) => {
                let (q, k) = match kind {
                    QkNorm::Head => (c.head_dim, c.head_dim),
                    QkNorm::Whole => (q, kv),
                };
                let one = |name: &str, width| NormLayer::load(loader, &named(name), width, norm);
                Some((kind, one(names.qk_norm.0, q)?, one(names.qk_norm.1, k)?))
            }
        };
        let [query, key, value] =
            <[Linear; 3]>::try_from(parts).map_err(|_| loader.nothing(prefix))?;
        Ok(Self {
            query,
            key,
            value,
            heads: Heads::new(output, norms, c),
        })
    }

    /// `x` `[tokens of all rows, input]` → `[tokens of all rows, output]`.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        pass: &mut Pass<'_, '_>,
    ) -> candle_core::Result<Tensor> {
        let [q, k, v] = Linear::forward_all([&self.query, &self.key, &self.value], x)?;
        self.heads.attend(q, k, v, pass)
    }
}

impl Heads {
    /// From the matrix that mixes the heads, and the norms of queries and keys.
    pub(crate) fn new(
        output: Linear,
        norms: Option<(QkNorm, NormLayer, NormLayer)>,
        config: AttentionConfig,
    ) -> Self {
        Self {
            output,
            norms,
            scores: Scores {
                scale: config.scale,
                cap: config.cap,
                slopes: config.alibi.then(|| ops::alibi_slopes(config.heads)),
                sight: Sight {
                    window: config.window,
                    causal: config.causal,
                },
            },
            config,
        }
    }

    /// Queries `[tokens of all rows, heads · head_dim]`, keys and values `[…, kv_heads · head_dim]` of all rows → mixed,
    /// `[tokens of all rows, output]`.
    pub(crate) fn attend(
        &self,
        mut q: Tensor,
        mut k: Tensor,
        v: Tensor,
        pass: &mut Pass<'_, '_>,
    ) -> candle_core::Result<Tensor> {
        let (c, backend) = (&self.config, self.output.backend());
        if let Some((QkNorm::Whole, of_q, of_k)) = &self.norms {
            q = of_q.forward(&q)?;
            k = of_k.forward(&k)?;
        }
        let spans = pass.spans;
        // Only with gradients: row by row, a result does not depend on its neighbours.
        let batch = q.track_op()
            && !pass.taps.attention
            && spans.len() > 1
            && pass.rows.iter().all(|r| r.state.is_none())
            && spans.iter().all(|s| s.len == spans[0].len);
        let groups: Vec<(usize, usize, usize)> = if batch {
            vec![(0, spans.len(), spans[0].len)]
        } else {
            spans.iter().map(|s| (s.first, 1, s.len)).collect()
        };
        let mut mixed = Vec::with_capacity(groups.len());
        for (g, &(first, count, len)) in groups.iter().enumerate() {
            let heads = |t: &Tensor, heads: usize, norm: Option<&NormLayer>| {
                let t = t
                    .narrow(0, first, count * len)?
                    .reshape((count, len, heads, c.head_dim))?;
                let t = match norm {
                    Some(norm) => norm.forward(&t)?,
                    None => t,
                };
                t.transpose(1, 2)?.contiguous()
            };
            let (of_q, of_k) = match &self.norms {
                Some((QkNorm::Head, q, k)) => (Some(q), Some(k)),
                _ => (None, None),
            };
            let mut q = heads(&q, c.heads, of_q)?;
            let mut k = heads(&k, c.kv_heads, of_k)?;
            let v = heads(&v, c.kv_heads, None)?;
            if let Some(rotary) = c.rotary {
                let angles = &pass.angles[rotary][g];
                q = backend.rope(&q, angles)?;
                k = backend.rope(&k, angles)?;
            }
            let (k, v) = match pass.memory(g) {
                Some(memory) => memory.keys_values.append(&k, &v)?,
                None => (k, v),
            };
            let past = spans[g].past;
            if !q.track_op() && count == 1 {
                let keep = pass.taps.attention;
                let (out, p) = backend.attention(&q, &k, &v, &self.scores, past, keep)?;
                mixed.push(out);
                pass.attention.extend(p);
                continue;
            }
            let keys = k.dim(2)?;
            let shared = c.heads / c.kv_heads;
            // Query heads that share a key head are stacked as further rows of one product.
            let q = q.reshape((count, c.kv_heads, shared * len, c.head_dim))?;
            let scores = q.matmul(&k.transpose(2, 3)?)?;
            let scores = scores.reshape((count, c.heads, len, keys))?;
            let p = backend.attention_softmax(&scores, &self.scores, past)?;
            if pass.taps.attention {
                pass.attention.push(p.squeeze(0)?);
            }
            let p = p.reshape((count, c.kv_heads, shared * len, keys))?;
            let out = p
                .matmul(&v)?
                .reshape((count, c.heads, len, c.head_dim))?
                .transpose(1, 2)?
                .reshape((count * len, c.heads * c.head_dim))?;
            mixed.push(out);
        }
        let mixed = match mixed.len() {
            1 => mixed.swap_remove(0),
            _ => Tensor::cat(&mixed, 0)?,
        };
        self.output.forward(&mixed)
    }
}
