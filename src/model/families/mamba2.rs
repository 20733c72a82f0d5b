//! Mamba 2 (Dao & Gu 2024): a scan whose decay is one number per head, and the mixer that Zamba 2 shares.
//!
//! ```text
//! z | x | B | C | Δ = in_proj(norm h);  x, B, C = silu(conv(x, B, C));  Δ = clamp(softplus(Δ + bias))
//! s ← exp(Δ A) s + Δ x ⊗ B   per head, A = −exp(A_log); B and C are shared by the heads of a group
//! y = groupnorm((s C + D x) · silu(z));   h ← h + out_proj(y)
//! ```

use super::mamba::{decays, numbers, recurrent, silu, softplus};
use super::{Body, Family};
use crate::error::Result;
use crate::model::backend::Backend;
use crate::model::config::{DecoderConfig, Fields, Norm};
use crate::model::crew;
use crate::model::layers::{Block, CausalConv, NormLayer, Pass};
use crate::model::linear::Linear;
use crate::model::twins::scan::{self, Dual};
use crate::model::vectors::exp;
use crate::model::weights::Loader;
use candle_core::{Device, Tensor};

/// Sizes of a Mamba 2 mixer.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Heads.
    pub(super) heads: usize,
    /// Channels of a head.
    pub(super) head_dim: usize,
    /// Heads that share B and C, and channels that share a norm, form so many groups.
    pub(super) groups: usize,
    /// Numbers a channel remembers.
    pub(super) state: usize,
    /// Width of the convolution.
    pub(super) conv: usize,
    /// Whether the projections have biases.
    pub(super) bias: bool,
    /// Whether the convolution has one.
    pub(super) conv_bias: bool,
    /// Least and largest step Δ.
    pub(super) step: (f64, f64),
    /// Of the gated norm.
    pub(super) eps: f64,
}

impl Config {
    fn inner(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Channels of the convolution: x, B and C.
    fn convolved(&self) -> usize {
        self.inner() + 2 * self.groups * self.state
    }

    /// Numbers that a block remembers.
    pub(super) fn remembered(&self) -> u64 {
        let times = |a: usize, b: usize| (a as u64).saturating_mul(b as u64);
        times(self.inner(), self.state).saturating_add(times(self.convolved(), self.conv - 1))
    }

    pub(super) fn check(&self, f: &Fields<'_>, width: usize, name: &str) -> Result<()> {
        if self.inner() != width {
            return Err(f.bad(
                name,
                &format!(
                    "gives {} heads of {} where {width} channels are needed",
                    self.heads, self.head_dim
                ),
            ));
        }
        if !self.heads.is_multiple_of(self.groups) {
            return Err(f.bad(
                name,
                &format!("does not divide into {} groups", self.groups),
            ));
        }
        Ok(())
    }
}

pub(super) fn config(f: &Fields<'_>) -> Result<DecoderConfig> {
    let d_model = f.size("hidden_size")?;
    if f.text("hidden_act")?.unwrap_or("silu") != "silu" {
        return Err(f.bad("hidden_act", "is not silu"));
    }
    let eps = f.real("layer_norm_epsilon")?.unwrap_or(1e-5);
    // The upper limit is often infinite, which JSON has no word for.
    let limit = f.0.get("time_step_limit").and_then(|v| v.as_array());
    let limit = |i: usize| limit.and_then(|l| l.get(i)).and_then(|v| v.as_f64());
    let body = Config {
        heads: f.optional_size("num_heads")?.unwrap_or(128),
        head_dim: f.optional_size("head_dim")?.unwrap_or(64),
        groups: f.optional_size("n_groups")?.unwrap_or(8),
        state: f.optional_size("state_size")?.unwrap_or(128),
        conv: f.optional_size("conv_kernel")?.unwrap_or(4),
        bias: f.flag("use_bias")?.unwrap_or(false),
        conv_bias: f.flag("use_conv_bias")?.unwrap_or(true),
        step: (limit(0).unwrap_or(0.0), limit(1).unwrap_or(f64::INFINITY)),
        eps,
    };
    let expand = f.optional_size("expand")?.unwrap_or(2);
    body.check(f, expand * d_model, "num_heads")?;
    let blocks = f.blocks("num_hidden_layers")?;
    let body = Body::Mamba2(body);
    recurrent(f, Family::Mamba2, d_model, blocks, false, eps, body)
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
            Ok(Box::new(Mamba2 {
                norm: NormLayer::load(
                    loader,
                    &format!("{p}.norm"),
                    c.d_model,
                    Norm::Rms(body.eps),
                )?,
                mixer: Mixer::load(loader, &format!("{p}.mixer"), c.d_model, body)?,
            }) as Box<dyn Block>)
        })
        .collect()
}

#[derive(Debug)]
struct Mamba2 {
    norm: NormLayer,
    mixer: Mixer,
}

impl Block for Mamba2 {
    fn forward(&self, h: &Tensor, pass: &mut Pass<'_, '_>) -> candle_core::Result<Tensor> {
        h + self.mixer.forward(&self.norm.forward(h)?, pass)?
    }
}

/// The mixer of a Mamba 2 block.
#[derive(Debug)]
pub(super) struct Mixer {
    in_proj: Linear,
    conv: CausalConv,
    dt_bias: Vec<f32>,
    /// `[heads]`, −exp(A_log).
    a: Vec<f32>,
    d: Vec<f32>,
    norm: Vec<f32>,
    out_proj: Linear,
    twin: Option<Twin>,
    config: Config,
}

/// What tensor operations read of a mixer, on its device.
#[derive(Debug)]
struct Twin {
    dt_bias: Tensor,
    norm: Tensor,
    dual: Dual,
}

impl Mixer {
    pub(super) fn load(
        loader: &Loader<'_>,
        prefix: &str,
        d_model: usize,
        c: &Config,
    ) -> Result<Self> {
        let named = |name: &str| format!("{prefix}.{name}");
        let vector =
            |name: &str, len| Ok::<_, crate::Error>(loader.vector(&named(name), len)?.to_vec1()?);
        let projected = c.inner() + c.convolved() + c.heads;
        let tensor = |name: &str, len| loader.vector(&named(name), len);
        let twin = match loader.place().backend {
            Backend::Kernels => None,
            Backend::Tensors => Some(Twin {
                dt_bias: tensor("dt_bias", c.heads)?,
                norm: tensor("norm.weight", c.inner())?,
                dual: Dual {
                    a: decays(&tensor("A_log", c.heads)?)?,
                    d: tensor("D", c.heads)?,
                },
            }),
        };
        Ok(Self {
            twin,
            in_proj: loader.linear(&named("in_proj"), projected, d_model, c.bias)?,
            conv: CausalConv::load(loader, &named("conv1d"), c.convolved(), c.conv, c.conv_bias)?,
            dt_bias: vector("dt_bias", c.heads)?,
            a: vector("A_log", c.heads)?
                .iter()
                .map(|a: &f32| -a.exp())
                .collect(),
            d: vector("D", c.heads)?,
            norm: vector("norm.weight", c.inner())?,
            out_proj: loader.linear(&named("out_proj"), d_model, c.inner(), c.bias)?,
            config: c.clone(),
        })
    }

    /// `x` `[tokens of all rows, d_model]` → the same shape.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        pass: &mut Pass<'_, '_>,
    ) -> candle_core::Result<Tensor> {
        let c = &self.config;
        let (inner, convolved) = (c.inner(), c.convolved());
        let projected = self.in_proj.forward(x)?;
        if let Some(twin) = &self.twin {
            return self.tensors(twin, &projected, pass);
        }
        let gate = numbers(&projected.narrow(1, 0, inner)?)?;
        let xbc = numbers(&projected.narrow(1, inner, convolved)?)?;
        let dt = numbers(&projected.narrow(1, inner + convolved, c.heads)?)?;
        let mut mixed = vec![0.0; gate.len()];
        for (row, span) in pass.spans.iter().enumerate() {
            let part = |width: usize| span.first * width..(span.first + span.len) * width;
            let mut fresh = Default::default();
            let memory = pass.memory(row).unwrap_or(&mut fresh);
            let mut seen = self
                .conv
                .forward(&xbc[part(convolved)], &mut memory.convolution)?;
            seen.iter_mut().for_each(|v| *v = silu(*v));
            let mut state = match &memory.scan {
                Some(state) => numbers(state)?,
                None => vec![0.0; inner * c.state],
            };
            let heads = self.scan(&seen, &dt[part(c.heads)], &mut state);
            memory.scan = Some(Tensor::from_vec(
                state,
                (c.heads, c.head_dim, c.state),
                &Device::Cpu,
            )?);
            let mixed = &mut mixed[part(inner)];
            for (h, y) in heads.iter().enumerate() {
                for (t, y) in y.chunks_exact(c.head_dim).enumerate() {
                    let at = t * inner + h * c.head_dim;
                    mixed[at..at + c.head_dim].copy_from_slice(y);
                }
            }
        }
        self.gated_norm(&mut mixed, &gate);
        let mixed = Tensor::from_vec(mixed, (x.dim(0)?, inner), &Device::Cpu)?;
        self.out_proj.forward(&mixed)
    }

    /// [`Self::forward`] from the projection on, by tensor operations.
    fn tensors(
        &self,
        twin: &Twin,
        projected: &Tensor,
        pass: &mut Pass<'_, '_>,
    ) -> candle_core::Result<Tensor> {
        let c = &self.config;
        let (inner, convolved, shared) = (c.inner(), c.convolved(), c.groups * c.state);
        let mut mixed = Vec::with_capacity(pass.spans.len());
        for (row, span) in pass.spans.iter().enumerate() {
            let mut fresh = Default::default();
            let memory = pass.memory(row).unwrap_or(&mut fresh);
            let of_row = projected.narrow(0, span.first, span.len)?;
            let xbc = of_row.narrow(1, inner, convolved)?.contiguous()?;
            let seen = self.conv.tensors(&xbc, &mut memory.convolution)?.silu()?;
            let dt = of_row.narrow(1, inner + convolved, c.heads)?.contiguous()?;
            let mut step = scan::softplus(&dt.broadcast_add(&twin.dt_bias)?)?.maximum(c.step.0)?;
            if c.step.1.is_finite() {
                step = step.minimum(c.step.1)?;
            }
            let part = |from: usize, heads: usize, width: usize| {
                seen.narrow(1, from, heads * width)?
                    .contiguous()?
                    .reshape((span.len, heads, width))
            };
            let x = part(0, c.heads, c.head_dim)?;
            let (b, c) = (
                part(inner, c.groups, c.state)?,
                part(inner + shared, c.groups, c.state)?,
            );
            let y = twin.dual.scan(&x, &step, &b, &c, &mut memory.scan)?;
            mixed.push(y.reshape((span.len, inner))?);
        }
        let gate = projected.narrow(1, 0, inner)?.contiguous()?;
        let mixed = Tensor::cat(&mixed, 0)?;
        let mixed = scan::gated_norm(&mixed, &gate, &twin.norm, c.groups, c.eps)?;
        self.out_proj.forward(&mixed)
    }

    /// Run through a text: `seen` `[tokens, x | B | C]`, `dt` `[tokens, heads]`, `state` `[heads, head_dim, state]`. Gives
    /// `[heads][tokens, head_dim]`; each head goes by itself.
    fn scan(&self, seen: &[f32], dt: &[f32], state: &mut [f32]) -> Vec<Vec<f32>> {
        let c = &self.config;
        let (inner, convolved, n, p) = (c.inner(), c.convolved(), c.state, c.head_dim);
        let (least, most) = (c.step.0 as f32, c.step.1 as f32);
        let mut heads: Vec<(&mut [f32], Vec<f32>)> = state
            .chunks_exact_mut(p * n)
            .map(|state| (state, Vec::with_capacity(dt.len() / c.heads * p)))
            .collect();
        crew::each(&mut heads, |h, (state, out)| {
            let group = h / (c.heads / c.groups);
            for (token, dt) in seen.chunks_exact(convolved).zip(dt.chunks_exact(c.heads)) {
                let x = &token[h * p..(h + 1) * p];
                let b = &token[inner + group * n..inner + (group + 1) * n];
                let from = inner + (c.groups + group) * n;
                let of_c = &token[from..from + n];
                let step = softplus(dt[h] + self.dt_bias[h]).max(least).min(most);
                let decay = exp(step * self.a[h]);
                for (x, state) in x.iter().zip(state.chunks_exact_mut(n)) {
                    let enters = step * x;
                    let mut y = 0.0f32;
                    for ((s, b), c) in state.iter_mut().zip(b).zip(of_c) {
                        *s = *s * decay + enters * b;
                        y += *s * c;
                    }
                    out.push(y + self.d[h] * x);
                }
            }
        });
        heads.into_iter().map(|(_, out)| out).collect()
    }

    /// y ← norm(y · silu(gate)), group by group.
    fn gated_norm(&self, y: &mut [f32], gate: &[f32]) {
        let width = self.config.inner() / self.config.groups;
        let groups = y.chunks_exact_mut(width).zip(gate.chunks_exact(width));
        for (i, (y, gate)) in groups.enumerate() {
            let mut square = 0.0f64;
            for (y, z) in y.iter_mut().zip(gate) {
                *y *= silu(*z);
                square += f64::from(*y) * f64::from(*y);
            }
            let scale = (1.0 / (square / width as f64 + self.config.eps).sqrt()) as f32;
            let at = i % self.config.groups * width;
            for (y, w) in y.iter_mut().zip(&self.norm[at..at + width]) {
                *y *= scale * w;
            }
        }
    }
}
