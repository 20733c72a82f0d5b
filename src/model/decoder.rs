//! The traced decoder: one forward pass for inference, training and tests, configured by [`DecoderConfig`].
//!
//! ```text
//! tokens ─ embed (+ positions) ─ state 0 ─ block 1 ─ state 1 ─ … ─ block L ─ state L ─ final norm ─ head ─ logits
//! block: h + attention(norm h), then h + mlp(norm h)
//! ```
//! The residual states are what the lens reads. A set of [`Taps`] says what to keep; with none set nothing extra runs.

use super::cache::State;
use super::config::{Activation, DecoderConfig, Family, Norm, Positions, Rotary};
use super::linear::{Linear, split_rows, transposed};
use super::ops::{self, Angles};
use super::weights::{Loader, TensorSource};
use crate::error::Result;
use candle_core::{Device, Tensor};
use std::sync::Arc;

/// One branch's part of a forward pass: tokens to read after what its state has read before.
pub struct Row<'a> {
    /// The tokens to read.
    pub tokens: &'a [u32],
    /// The branch's memory, which grows by these tokens; `None` reads them from position 0 and keeps nothing.
    pub state: Option<&'a mut State>,
}

/// What to keep of a forward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taps {
    /// The L + 1 residual states of every token.
    pub states: bool,
    /// The attention probabilities of every block.
    pub attention: bool,
}

/// What a forward pass leaves.
#[derive(Debug)]
pub struct Traced {
    /// State L of every token, `[tokens of all rows, d_model]`.
    pub last: Tensor,
    /// All L + 1 states, each `[tokens of all rows, d_model]`; empty unless tapped.
    pub states: Vec<Tensor>,
    /// Per block and row the attention probabilities `[heads, tokens, keys]`; empty unless tapped.
    pub attention: Vec<Vec<Tensor>>,
}

/// A decoder-only transformer with its weights.
#[derive(Debug)]
pub struct Decoder {
    config: DecoderConfig,
    device: Device,
    embedding: Tensor,
    positions: Option<Tensor>,
    blocks: Vec<Block>,
    final_norm: NormLayer,
    head: Linear,
}

#[derive(Debug)]
struct Block {
    attention_norm: NormLayer,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    mlp_norm: NormLayer,
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
}

#[derive(Debug)]
struct NormLayer {
    kind: Norm,
    weight: Tensor,
    bias: Option<Tensor>,
}

impl NormLayer {
    fn load(loader: &Loader<'_>, name: &str, config: &DecoderConfig) -> Result<Self> {
        let weight = loader.vector(&format!("{name}.weight"), config.d_model)?;
        let bias = match config.norm {
            Norm::Rms(_) => None,
            Norm::Layer(_) => Some(loader.vector(&format!("{name}.bias"), config.d_model)?),
        };
        Ok(Self {
            kind: config.norm,
            weight,
            bias,
        })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match (self.kind, &self.bias) {
            (Norm::Layer(eps), Some(bias)) => ops::layer_norm(x, &self.weight, bias, eps),
            (Norm::Rms(eps) | Norm::Layer(eps), _) => ops::rms_norm(x, &self.weight, eps),
        }
    }

    fn parameters(&self) -> usize {
        self.weight.elem_count() + self.bias.as_ref().map_or(0, Tensor::elem_count)
    }
}

impl Block {
    fn load(loader: &Loader<'_>, i: usize, c: &DecoderConfig) -> Result<Self> {
        let (d, q, kv) = (c.d_model, c.heads * c.head_dim, c.kv_heads * c.head_dim);
        match c.family {
            Family::Llama => {
                let p = format!("{}layers.{i}", loader.prefix());
                let linear = |name: &str, outputs, inputs| {
                    loader.linear(&format!("{p}.{name}"), outputs, inputs)
                };
                Ok(Self {
                    attention_norm: NormLayer::load(loader, &format!("{p}.input_layernorm"), c)?,
                    query: linear("self_attn.q_proj", q, d)?,
                    key: linear("self_attn.k_proj", kv, d)?,
                    value: linear("self_attn.v_proj", kv, d)?,
                    output: linear("self_attn.o_proj", d, q)?,
                    mlp_norm: NormLayer::load(loader, &format!("{p}.post_attention_layernorm"), c)?,
                    gate: Some(linear("mlp.gate_proj", c.d_mlp, d)?),
                    up: linear("mlp.up_proj", c.d_mlp, d)?,
                    down: linear("mlp.down_proj", d, c.d_mlp)?,
                })
            }
            Family::Gpt2 => {
                let p = format!("{}h.{i}", loader.prefix());
                // Conv1D: [inputs, outputs], and queries, keys and values side by side.
                let conv = |name: &str, outputs: usize, inputs: usize| {
                    let name = format!("{p}.{name}");
                    let weight = loader.stored(&format!("{name}.weight"), &[inputs, outputs])?;
                    let bias = loader.vector(&format!("{name}.bias"), outputs)?;
                    Ok::<_, crate::Error>((transposed(&weight)?, bias))
                };
                let (qkv, bias) = conv("attn.c_attn", 3 * d, d)?;
                let mut parts = split_rows(&qkv, &[d, d, d])?.into_iter().enumerate();
                let mut part = || match parts.next() {
                    Some((i, w)) => Ok(Linear::new(w, Some(bias.narrow(0, i * d, d)?))?),
                    None => candle_core::bail!("three parts were split off"),
                };
                let (query, key, value) = (part()?, part()?, part()?);
                let linear = |name: &str, outputs, inputs| {
                    let (weight, bias) = conv(name, outputs, inputs)?;
                    Ok::<_, crate::Error>(Linear::new(weight, Some(bias))?)
                };
                Ok(Self {
                    attention_norm: NormLayer::load(loader, &format!("{p}.ln_1"), c)?,
                    query,
                    key,
                    value,
                    output: linear("attn.c_proj", d, d)?,
                    mlp_norm: NormLayer::load(loader, &format!("{p}.ln_2"), c)?,
                    gate: None,
                    up: linear("mlp.c_fc", c.d_mlp, d)?,
                    down: linear("mlp.c_proj", d, c.d_mlp)?,
                })
            }
        }
    }

    fn mlp(&self, x: &Tensor, activation: Activation) -> candle_core::Result<Tensor> {
        let up = self.up.forward(x)?;
        let inner = match (activation, &self.gate) {
            (Activation::SwiGlu, Some(gate)) => ops::swiglu(&gate.forward(x)?, &up)?,
            (Activation::GeluTanh | Activation::SwiGlu, _) => up.gelu()?,
        };
        self.down.forward(&inner)
    }

    fn linears(&self) -> impl Iterator<Item = &Linear> {
        [
            &self.query,
            &self.key,
            &self.value,
            &self.output,
            &self.up,
            &self.down,
        ]
        .into_iter()
        .chain(self.gate.as_ref())
    }

    fn norms(&self) -> [&NormLayer; 2] {
        [&self.attention_norm, &self.mlp_norm]
    }
}

impl Decoder {
    /// Build the decoder from a checkpoint, checking every tensor's shape against the configuration.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape than the configuration says; the sentence names it.
    pub fn load(config: DecoderConfig, source: &dyn TensorSource, device: &Device) -> Result<Self> {
        let (prefix, embed, last, head) = match config.family {
            Family::Llama => ("model.", "embed_tokens.weight", "norm", "lm_head"),
            Family::Gpt2 => ("transformer.", "wte.weight", "ln_f", "lm_head"),
        };
        // Some published files leave the prefix out.
        let prefix = match source.shape(&format!("{prefix}{embed}")) {
            Some(_) => prefix,
            None => "",
        };
        let loader = Loader::new(source, device, prefix);
        let embed = format!("{prefix}{embed}");
        let embedding = loader.stored(&embed, &[config.vocab, config.d_model])?;
        let head = if config.tied {
            Linear::new(embedding.clone(), None)?
        } else {
            loader.linear(head, config.vocab, config.d_model)?
        };
        let positions = match config.positions {
            Positions::Learned => {
                let shape = [config.context, config.d_model];
                Some(Linear::table(
                    &loader.stored(&format!("{prefix}wpe.weight"), &shape)?,
                )?)
            }
            Positions::Rotary(_) => None,
        };
        let blocks = (0..config.blocks)
            .map(|i| Block::load(&loader, i, &config))
            .collect::<Result<Vec<_>>>()?;
        let final_norm = NormLayer::load(&loader, &format!("{prefix}{last}"), &config)?;
        Ok(Self {
            embedding: Linear::table(&embedding)?,
            device: device.clone(),
            positions,
            blocks,
            final_norm,
            head,
            config,
        })
    }

    /// What the decoder was built from.
    #[must_use]
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Where its weights are.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Number of weights (a tied head counted once) and the bytes they take in memory.
    #[must_use]
    pub fn size(&self) -> (u64, u64) {
        let norms: usize = self
            .blocks
            .iter()
            .flat_map(Block::norms)
            .chain([&self.final_norm])
            .map(NormLayer::parameters)
            .sum();
        let tables = self.positions.as_ref().map_or(0, Tensor::elem_count);
        let linears = || self.blocks.iter().flat_map(Block::linears);
        let embedding = self.embedding.elem_count() as u64;
        let untied = if self.config.tied {
            0
        } else {
            self.head.parameters()
        };
        let parameters = embedding
            + untied
            + (norms + tables) as u64
            + linears().map(Linear::parameters).sum::<u64>();
        // A tied head of floats is the embedding itself; a quantised one is kept beside the widened embedding.
        let head = match self.config.tied && self.head.bytes() == embedding * 4 {
            true => 0,
            false => self.head.bytes(),
        };
        let bytes = (embedding + (norms + tables) as u64) * 4
            + linears().map(Linear::bytes).sum::<u64>()
            + head;
        (parameters, bytes)
    }

    /// A fresh memory for one branch.
    #[must_use]
    pub fn state(&self) -> State {
        State::new(self.config.blocks)
    }

    /// Read the tokens of all rows. The weights are read once for all of them, and a row's result depends on its own
    /// tokens and state alone.
    ///
    /// # Errors
    /// If a row is empty, a token id is outside the vocabulary, or a position has no learned vector.
    pub fn forward(&self, rows: &mut [Row<'_>], taps: Taps) -> candle_core::Result<Traced> {
        let c = &self.config;
        let spans: Vec<Span> = spans(rows);
        for (row, span) in rows.iter().zip(&spans) {
            if let Some(id) = row.tokens.iter().find(|id| **id as usize >= c.vocab) {
                candle_core::bail!("token id {id} is outside the vocabulary of {}", c.vocab);
            }
            if row.tokens.is_empty() {
                candle_core::bail!("a row has no tokens to read");
            }
            if span.past + span.len > c.context && matches!(c.positions, Positions::Learned) {
                candle_core::bail!(
                    "position {} has no learned vector",
                    span.past + span.len - 1
                );
            }
        }
        let mut h = self.embed(rows, &spans)?;
        let angles = match &c.positions {
            Positions::Rotary(rotary) => spans.iter().map(|s| Some(angles(rotary, s))).collect(),
            Positions::Learned => vec![None; spans.len()],
        };
        let mut traced = Traced {
            last: h.clone(),
            states: Vec::new(),
            attention: Vec::new(),
        };
        for (i, block) in self.blocks.iter().enumerate() {
            if taps.states {
                traced.states.push(h.clone());
            }
            let x = block.attention_norm.forward(&h)?;
            let (mixed, probabilities) = self.attend(i, block, &x, rows, &spans, &angles, taps)?;
            h = (h + block.output.forward(&mixed)?)?;
            let x = block.mlp_norm.forward(&h)?;
            h = (&h + block.mlp(&x, c.activation)?)?;
            if taps.attention {
                traced.attention.push(probabilities);
            }
        }
        if taps.states {
            traced.states.push(h.clone());
        }
        for (row, span) in rows.iter_mut().zip(&spans) {
            if let Some(state) = &mut row.state {
                state.advance(span.len);
            }
        }
        traced.last = h;
        Ok(traced)
    }

    /// The final norm of states `[rows, d_model]`, computed afresh for each row.
    ///
    /// # Errors
    /// If the shape does not fit.
    pub fn final_norm(&self, states: &Tensor) -> candle_core::Result<Tensor> {
        self.final_norm.forward(states)
    }

    /// The head on normed states `[rows, d_model]`, giving logits `[rows, V]`.
    ///
    /// # Errors
    /// If the shape does not fit.
    pub fn head(&self, normed: &Tensor) -> candle_core::Result<Tensor> {
        self.head.forward(normed)
    }

    fn embed(&self, rows: &[Row<'_>], spans: &[Span]) -> candle_core::Result<Tensor> {
        let ids: Vec<u32> = rows.iter().flat_map(|r| r.tokens.iter().copied()).collect();
        let ids = Tensor::new(ids, &self.device)?;
        let h = self.embedding.index_select(&ids, 0)?;
        match &self.positions {
            None => Ok(h),
            Some(table) => {
                let at: Vec<u32> = spans
                    .iter()
                    .flat_map(|s| (s.past..s.past + s.len).map(|p| p as u32))
                    .collect();
                h + table.index_select(&Tensor::new(at, &self.device)?, 0)?
            }
        }
    }

    /// Queries, keys and values of all rows in one product each, then attention row by row (each has its own memory).
    /// Rows of equal length without memory, as training has them, go as one batch.
    #[allow(clippy::too_many_arguments)]
    fn attend(
        &self,
        index: usize,
        block: &Block,
        x: &Tensor,
        rows: &mut [Row<'_>],
        spans: &[Span],
        angles: &[Option<Angles>],
        taps: Taps,
    ) -> candle_core::Result<(Tensor, Vec<Tensor>)> {
        let c = &self.config;
        let (q, k, v) = (
            block.query.forward(x)?,
            block.key.forward(x)?,
            block.value.forward(x)?,
        );
        // Only with gradients: row by row, a result does not depend on its neighbours.
        let batch = q.track_op()
            && !taps.attention
            && rows.len() > 1
            && rows.iter().all(|r| r.state.is_none())
            && spans.iter().all(|s| s.len == spans[0].len);
        let groups: Vec<(usize, usize, usize)> = if batch {
            vec![(0, rows.len(), spans[0].len)]
        } else {
            spans.iter().map(|s| (s.first, 1, s.len)).collect()
        };
        let mut mixed = Vec::with_capacity(groups.len());
        let mut kept = Vec::new();
        for (g, &(first, count, len)) in groups.iter().enumerate() {
            let heads = |t: &Tensor, heads: usize| {
                t.narrow(0, first, count * len)?
                    .reshape((count, len, heads, c.head_dim))?
                    .transpose(1, 2)?
                    .contiguous()
            };
            let (mut q, mut k, v) = (
                heads(&q, c.heads)?,
                heads(&k, c.kv_heads)?,
                heads(&v, c.kv_heads)?,
            );
            if let Some(angles) = &angles[g] {
                q = ops::rope(&q, angles)?;
                k = ops::rope(&k, angles)?;
            }
            let (k, v) = match &mut rows[g].state {
                Some(state) => state.layer(index).append(&k, &v)?,
                None => (k, v),
            };
            let scale = (c.head_dim as f64).powf(-0.5);
            if q.device().is_cpu() && !q.track_op() && count == 1 {
                let past = spans[g].past;
                let (out, p) = ops::attention(&q, &k, &v, scale, past, taps.attention)?;
                mixed.push(out);
                kept.extend(p);
                continue;
            }
            let keys = k.dim(2)?;
            let shared = c.heads / c.kv_heads;
            // Query heads that share a key head are stacked as further rows of one product.
            let q = q.reshape((count, c.kv_heads, shared * len, c.head_dim))?;
            let scores = q.matmul(&k.transpose(2, 3)?)?;
            let scores = scores.reshape((count, c.heads, len, keys))?;
            let p = ops::causal_softmax(&scores, scale, spans[g].past)?;
            if taps.attention {
                kept.push(p.squeeze(0)?);
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
        Ok((mixed, kept))
    }
}

/// Where a row's tokens stand among all tokens of the forward, and in its own text.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: usize,
    len: usize,
    past: usize,
}

fn spans(rows: &[Row<'_>]) -> Vec<Span> {
    let mut first = 0;
    rows.iter()
        .map(|row| {
            let span = Span {
                first,
                len: row.tokens.len(),
                past: row.state.as_ref().map_or(0, |s| s.len()),
            };
            first += span.len;
            span
        })
        .collect()
}

fn angles(rotary: &Rotary, span: &Span) -> Angles {
    let pairs = rotary.frequencies.len();
    let mut cos = Vec::with_capacity(span.len * pairs);
    let mut sin = Vec::with_capacity(span.len * pairs);
    for position in span.past..span.past + span.len {
        for frequency in &rotary.frequencies {
            let angle = position as f64 * frequency;
            cos.push(angle.cos() as f32);
            sin.push(angle.sin() as f32);
        }
    }
    Angles {
        cos: Arc::new(cos),
        sin: Arc::new(sin),
        pairs,
    }
}
