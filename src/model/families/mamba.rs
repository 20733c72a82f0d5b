//! Mamba 1 (Gu & Dao 2023): a selective scan with one state of `state` numbers per channel.
//!
//! ```text
//! x, z = in_proj(norm h);  x = silu(conv x);  Δ, B, C = x_proj(x);  Δ = softplus(dt_proj Δ)
//! s ← exp(Δ A) s + Δ B x   per channel, A = −exp(A_log)
//! y = (C · s + D x) · silu(z);   h ← h + out_proj(y)
//! ```

use super::{Body, Family};
use crate::error::Result;
use crate::model::backend::Backend;
use crate::model::config::{DecoderConfig, Fields, LayerKind, Norm};
use crate::model::crew;
use crate::model::layers::{Block, CausalConv, NormLayer, Pass};
use crate::model::linear::Linear;
use crate::model::ops::with_slice;
use crate::model::twins::scan;
use crate::model::vectors::exp;
use crate::model::weights::Loader;
use candle_core::{Device, Tensor};

/// Channels that a thread takes at a time.
const TOGETHER: usize = 16;

/// A state space forgets, it does not end: what stands for "no limit" where a number is needed.
pub(super) const NO_LIMIT: usize = 1 << 24;

/// Sizes of a Mamba 1 block.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    inner: usize,
    state: usize,
    conv: usize,
    rank: usize,
    bias: bool,
    conv_bias: bool,
    eps: f64,
}

impl Config {
    /// Numbers that a block remembers.
    pub(super) fn remembered(&self) -> u64 {
        (self.inner as u64).saturating_mul((self.state + self.conv - 1) as u64)
    }
}

pub(super) fn config(f: &Fields<'_>) -> Result<DecoderConfig> {
    let d_model = f.size("hidden_size")?;
    let expand = f.optional_size("expand")?.unwrap_or(2);
    if f.text("hidden_act")?.unwrap_or("silu") != "silu" {
        return Err(f.bad("hidden_act", "is not silu"));
    }
    let eps = f.real("layer_norm_epsilon")?.unwrap_or(1e-5);
    let body = Config {
        inner: f
            .optional_size("intermediate_size")?
            .unwrap_or(expand * d_model),
        state: f.optional_size("state_size")?.unwrap_or(16),
        conv: f.optional_size("conv_kernel")?.unwrap_or(4),
        // A number, or the word for this one.
        rank: match f.0.get("time_step_rank").and_then(|rank| rank.as_str()) {
            Some("auto") => d_model.div_ceil(16),
            _ => f
                .optional_size("time_step_rank")?
                .unwrap_or(d_model.div_ceil(16)),
        },
        bias: f.flag("use_bias")?.unwrap_or(false),
        conv_bias: f.flag("use_conv_bias")?.unwrap_or(true),
        eps,
    };
    let blocks = f.blocks("num_hidden_layers")?;
    let body = Body::Mamba(body);
    recurrent(f, Family::Mamba, d_model, blocks, true, eps, body)
}

/// What the pure state-space models share around their blocks.
pub(super) fn recurrent(
    f: &Fields<'_>,
    family: Family,
    d_model: usize,
    blocks: usize,
    tied: bool,
    eps: f64,
    body: Body,
) -> Result<DecoderConfig> {
    let vocab = f.size("vocab_size")?;
    Ok(DecoderConfig {
        family,
        vocab,
        embedded: vocab,
        d_model,
        heads: 0,
        kv_heads: 0,
        head_dim: 0,
        d_mlp: 0,
        context: NO_LIMIT,
        causal: true,
        layers: vec![LayerKind::StateSpace; blocks],
        embedding_scale: None,
        embedding_width: None,
        positions: None,
        embedding_norm: None,
        final_norm: Some(Norm::Rms(eps)),
        tied: f.flag("tie_word_embeddings")?.unwrap_or(tied),
        head_bias: false,
        logit_cap: None,
        body,
    })
}

pub(super) fn load(
    c: &DecoderConfig,
    body: &Config,
    loader: &Loader<'_>,
) -> Result<Vec<Box<dyn Block>>> {
    (0..c.blocks())
        .map(|i| {
            let loader = &loader.of_block(i, c.blocks());
            let p = loader.block(c.family.names(), i);
            let named = |name: &str| format!("{p}.mixer.{name}");
            let (d, inner, rank, state) = (c.d_model, body.inner, body.rank, body.state);
            let a_log = loader.tensor(&named("A_log"), &[inner, state])?;
            Ok(Box::new(Mamba {
                norm: NormLayer::load(loader, &format!("{p}.norm"), d, Norm::Rms(body.eps))?,
                in_proj: loader.linear(&named("in_proj"), 2 * inner, d, body.bias)?,
                conv: CausalConv::load(loader, &named("conv1d"), inner, body.conv, body.conv_bias)?,
                x_proj: loader.linear(&named("x_proj"), rank + 2 * state, inner, false)?,
                dt_proj: loader.linear(&named("dt_proj"), inner, rank, true)?,
                a: decays(&a_log)?,
                d: loader.vector(&named("D"), inner)?,
                out_proj: loader.linear(&named("out_proj"), d, inner, body.bias)?,
                config: body.clone(),
            }) as Box<dyn Block>)
        })
        .collect()
}

#[derive(Debug)]
struct Mamba {
    norm: NormLayer,
    in_proj: Linear,
    conv: CausalConv,
    x_proj: Linear,
    dt_proj: Linear,
    /// `[inner, state]`, −exp(A_log).
    a: Tensor,
    /// `[inner]`.
    d: Tensor,
    out_proj: Linear,
    config: Config,
}

/// −exp of logarithms, in their shape and place.
pub(super) fn decays(logs: &Tensor) -> candle_core::Result<Tensor> {
    let decays = with_slice(logs, |logs| {
        logs.iter().map(|a| -a.exp()).collect::<Vec<f32>>()
    })?;
    Tensor::from_vec(decays, logs.shape(), logs.device())
}

/// ln(1 + e^x), exact where that is x.
pub(super) fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}

pub(super) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// The numbers of a tensor `[tokens, width]`; a scan has no gradient.
pub(super) fn numbers(t: &Tensor) -> candle_core::Result<Vec<f32>> {
    if t.track_op() {
        candle_core::bail!("state-space layers cannot be trained");
    }
    t.flatten_all()?.to_vec1()
}

impl Block for Mamba {
    fn forward(&self, h: &Tensor, pass: &mut Pass<'_, '_>) -> candle_core::Result<Tensor> {
        let (inner, n) = (self.config.inner, self.config.state);
        let xz = self.in_proj.forward(&self.norm.forward(h)?)?;
        if self.in_proj.backend() == Backend::Tensors {
            return h + self.tensors(&xz, pass)?;
        }
        let x = numbers(&xz.narrow(1, 0, inner)?)?;
        let gate = numbers(&xz.narrow(1, inner, inner)?)?;
        let mut mixed = Vec::with_capacity(x.len());
        for (row, span) in pass.spans.iter().enumerate() {
            let of_row = span.first * inner..(span.first + span.len) * inner;
            let mut fresh = Default::default();
            let memory = pass.memory(row).unwrap_or(&mut fresh);
            let mut x = self.conv.forward(&x[of_row], &mut memory.convolution)?;
            x.iter_mut().for_each(|v| *v = silu(*v));
            let seen = Tensor::from_slice(&x, (span.len, inner), &Device::Cpu)?;
            let selected = self.x_proj.forward(&seen)?;
            let dt = self
                .dt_proj
                .forward(&selected.narrow(1, 0, self.config.rank)?.contiguous()?)?;
            let dt = numbers(&dt)?;
            let b = numbers(&selected.narrow(1, self.config.rank, n)?)?;
            let c = numbers(&selected.narrow(1, self.config.rank + n, n)?)?;
            let mut state = match &memory.scan {
                Some(state) => numbers(state)?,
                None => vec![0.0; inner * n],
            };
            let columns = self.scan(&x, &dt, &b, &c, &mut state)?;
            memory.scan = Some(Tensor::from_vec(state, (inner, n), &Device::Cpu)?);
            for t in 0..span.len {
                let gate = &gate[(span.first + t) * inner..(span.first + t + 1) * inner];
                mixed.extend(columns.iter().zip(gate).map(|(y, z)| y[t] * silu(*z)));
            }
        }
        let mixed = Tensor::from_vec(mixed, (h.dim(0)?, inner), &Device::Cpu)?;
        h + self.out_proj.forward(&mixed)?
    }
}

impl Mamba {
    /// Run through a text: `x` and `dt` `[tokens, inner]`, `b` and `c` `[tokens, state]`, `state` `[inner, state]`. Gives
    /// `[inner][tokens]`; each channel runs through the text by itself.
    fn scan(
        &self,
        x: &[f32],
        dt: &[f32],
        b: &[f32],
        c: &[f32],
        state: &mut [f32],
    ) -> candle_core::Result<Vec<Vec<f32>>> {
        let (inner, n) = (self.config.inner, self.config.state);
        with_slice(&self.a, |a| {
            with_slice(&self.d, |d| {
                let run = |channel: usize, state: &mut [f32]| {
                    let a = &a[channel * n..(channel + 1) * n];
                    let tokens = 0..x.len() / inner;
                    tokens
                        .map(|t| {
                            let at = t * inner + channel;
                            let (x, step) = (x[at], softplus(dt[at]));
                            let mut y = 0.0f32;
                            for i in 0..n {
                                state[i] = exp(step * a[i]) * state[i] + step * b[t * n + i] * x;
                                y += state[i] * c[t * n + i];
                            }
                            y + d[channel] * x
                        })
                        .collect()
                };
                let mut all: Vec<(&mut [f32], Vec<f32>)> = state
                    .chunks_exact_mut(n)
                    .map(|state| (state, Vec::new()))
                    .collect();
                let mut some: Vec<_> = all.chunks_mut(TOGETHER).collect();
                crew::each(&mut some, |first, channels| {
                    for (i, (state, out)) in channels.iter_mut().enumerate() {
                        *out = run(first * TOGETHER + i, state);
                    }
                });
                all.into_iter().map(|(_, out)| out).collect()
            })
        })?
    }

    /// The rest of the block by tensor operations: `xz` `[tokens of all rows, 2 · inner]` to what is added to the states.
    fn tensors(&self, xz: &Tensor, pass: &mut Pass<'_, '_>) -> candle_core::Result<Tensor> {
        let (inner, n, rank) = (self.config.inner, self.config.state, self.config.rank);
        let x = xz.narrow(1, 0, inner)?;
        let mut mixed = Vec::with_capacity(pass.spans.len());
        for (row, span) in pass.spans.iter().enumerate() {
            let mut fresh = Default::default();
            let memory = pass.memory(row).unwrap_or(&mut fresh);
            let x = x.narrow(0, span.first, span.len)?.contiguous()?;
            let x = self.conv.tensors(&x, &mut memory.convolution)?.silu()?;
            let selected = self.x_proj.forward(&x)?;
            let part = |from: usize, width: usize| selected.narrow(1, from, width)?.contiguous();
            let step = scan::softplus(&self.dt_proj.forward(&part(0, rank)?)?)?;
            let (b, c) = (part(rank, n)?, part(rank + n, n)?);
            let (a, d) = (&self.a, &self.d);
            mixed.push(scan::selective(
                &x,
                &step,
                (&b, &c),
                (a, d),
                &mut memory.scan,
            )?);
        }
        let gate = xz.narrow(1, inner, inner)?.silu()?;
        self.out_proj.forward(&(Tensor::cat(&mixed, 0)? * gate)?)
    }
}
