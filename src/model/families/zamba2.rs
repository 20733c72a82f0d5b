//! Zamba 2: Mamba 2 blocks, some of which first look through one of a few shared attention blocks.
//!
//! ```text
//! plain:   h ← h + mamba(norm h)
//! hybrid:  s = norm([h, state 0]);  s = mlp(norm(attention(s)));  h ← h + mamba(norm(h + linear s))
//! ```
//! The n-th hybrid block uses shared block n mod `num_mem_blocks`, with small adapters of its own.

use super::mamba2::{self, Mixer};
use super::{Body, Family};
use crate::error::Result;
use crate::model::config::{Activation, DecoderConfig, Fields, LayerKind, Norm, Rotary, divide};
use crate::model::layers::{AttentionConfig, Block, Heads, NormLayer, Pass, activate};
use crate::model::linear::Linear;
use crate::model::weights::Loader;
use candle_core::Tensor;
use std::sync::Arc;

/// Zamba's norm of gated states has an epsilon of its own, whatever the file says.
const GATED_EPS: f64 = 1e-5;

/// What Zamba 2's blocks are.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub(super) mamba: mamba2::Config,
    /// One, or none without `use_mem_rope`.
    pub(super) rotaries: Vec<Rotary>,
    shared: usize,
    rank: usize,
    attention_adapters: bool,
    bias: bool,
    activation: Activation,
    eps: f64,
}

pub(super) fn config(f: &Fields<'_>) -> Result<DecoderConfig> {
    f.refuse("use_long_context")?;
    let d_model = f.size("hidden_size")?;
    let heads = f.size("num_attention_heads")?;
    let head_dim = match f.optional_size("attention_head_dim")? {
        Some(n) => n,
        None => divide(2 * d_model, heads)?,
    };
    let blocks = f.blocks("num_hidden_layers")?;
    let Some(words) = f.words("layers_block_type", blocks)? else {
        return Err(f.bad("layers_block_type", "is missing"));
    };
    let layers = words
        .iter()
        .map(|word| match *word {
            "mamba" | "linear_attention" => Ok(LayerKind::StateSpace),
            "hybrid" => Ok(LayerKind::Hybrid),
            _ => Err(f.bad(
                "layers_block_type",
                "names something else than mamba and hybrid",
            )),
        })
        .collect::<Result<Vec<_>>>()?;
    let bias = f.flag("add_bias_linear")?.unwrap_or(false);
    let mamba = mamba2::Config {
        heads: f.optional_size("n_mamba_heads")?.unwrap_or(8),
        head_dim: match f.optional_size("mamba_headdim")? {
            Some(n) => n,
            None => {
                let expand = f.optional_size("mamba_expand")?.unwrap_or(2);
                divide(
                    expand * d_model,
                    f.optional_size("n_mamba_heads")?.unwrap_or(8),
                )?
            }
        },
        groups: f.optional_size("mamba_ngroups")?.unwrap_or(1),
        state: f.optional_size("mamba_d_state")?.unwrap_or(64),
        conv: f.optional_size("mamba_d_conv")?.unwrap_or(4),
        bias,
        conv_bias: f.flag("use_conv_bias")?.unwrap_or(true),
        // Reading token by token the reference clamps the step, reading whole texts it does not always: clamp always.
        step: (f.real("time_step_min")?.unwrap_or(0.001), f64::INFINITY),
        eps: GATED_EPS,
    };
    let expand = f.optional_size("mamba_expand")?.unwrap_or(2);
    mamba.check(f, expand * d_model, "n_mamba_heads")?;
    let eps = f.real("rms_norm_eps")?.unwrap_or(1e-5);
    let rotaries = match f.flag("use_mem_rope")?.unwrap_or(false) {
        true => vec![Rotary::read(f, head_dim, 10_000.0, 1.0)?],
        false => Vec::new(),
    };
    let vocab = f.size("vocab_size")?;
    Ok(DecoderConfig {
        family: Family::Zamba2,
        vocab,
        embedded: vocab,
        d_model,
        heads,
        kv_heads: f.optional_size("num_key_value_heads")?.unwrap_or(heads),
        head_dim,
        d_mlp: f.optional_size("intermediate_size")?.unwrap_or(4 * d_model),
        context: f.optional_size("max_position_embeddings")?.unwrap_or(4096),
        causal: true,
        layers,
        embedding_scale: None,
        embedding_width: None,
        positions: None,
        embedding_norm: None,
        final_norm: Some(Norm::Rms(eps)),
        tied: f.flag("tie_word_embeddings")?.unwrap_or(true),
        head_bias: false,
        logit_cap: None,
        body: Body::Zamba2(Box::new(Config {
            mamba,
            rotaries,
            shared: f.optional_size("num_mem_blocks")?.unwrap_or(1),
            rank: f.optional_size("adapter_rank")?.unwrap_or(128),
            attention_adapters: f.flag("use_shared_attention_adapter")?.unwrap_or(false),
            bias,
            activation: Activation::read(f, "hidden_act", "gelu")?,
            eps,
        })),
    })
}

pub(super) fn load(
    c: &DecoderConfig,
    body: &Config,
    loader: &Loader<'_>,
) -> Result<Vec<Box<dyn Block>>> {
    let names = c.family.names();
    let mut shared: Vec<Reused> = Vec::new();
    let mut hybrids = 0;
    let mut blocks: Vec<Box<dyn Block>> = Vec::new();
    for (i, kind) in c.layers.iter().enumerate() {
        let loader = &loader.of_block(i, c.blocks());
        let p = loader.block(names, i);
        if *kind == LayerKind::StateSpace {
            blocks.push(Box::new(Plain::load(loader, &p, c, body)?));
            continue;
        }
        // A shared block lies in the file where it is first used.
        let own = format!("{p}.shared_transformer");
        if hybrids < body.shared {
            shared.push(Reused {
                name: own,
                copies: Vec::new(),
            });
        } else {
            loader.ignore(own);
        }
        let Reused { name, copies } = &mut shared[hybrids % body.shared];
        let block = match copies.iter().find(|(place, _)| *place == loader.here()) {
            Some((_, block)) => block.clone(),
            None => {
                let block = Arc::new(Shared::load(loader, name, c, body)?);
                copies.push((loader.here(), block.clone()));
                block
            }
        };
        blocks.push(Box::new(Hybrid {
            adapters: Adapters::load(loader, name, hybrids, c, body)?,
            shared: block,
            linear: loader.linear(&format!("{p}.linear"), c.d_model, c.d_model, false)?,
            mamba: Plain::load(loader, &format!("{p}.mamba_decoder"), c, body)?,
        }));
        hybrids += 1;
    }
    Ok(blocks)
}

/// A shared block on its way to the blocks that use it.
struct Reused {
    /// What stands before its tensors' names.
    name: String,
    /// One for each place that uses it.
    copies: Vec<(usize, Arc<Shared>)>,
}

#[derive(Debug)]
struct Plain {
    norm: NormLayer,
    mixer: Mixer,
}

impl Plain {
    fn load(loader: &Loader<'_>, prefix: &str, c: &DecoderConfig, body: &Config) -> Result<Self> {
        let norm = format!("{prefix}.input_layernorm");
        Ok(Self {
            norm: NormLayer::load(loader, &norm, c.d_model, Norm::Rms(body.eps))?,
            mixer: Mixer::load(loader, &format!("{prefix}.mamba"), c.d_model, &body.mamba)?,
        })
    }
}

impl Block for Plain {
    fn forward(&self, h: &Tensor, pass: &mut Pass<'_, '_>) -> candle_core::Result<Tensor> {
        h + self.mixer.forward(&self.norm.forward(h)?, pass)?
    }
}

/// A block of attention and MLP that several hybrid blocks use.
#[derive(Debug)]
struct Shared {
    norm: NormLayer,
    projections: [Linear; 3],
    heads: Heads,
    mlp_norm: NormLayer,
    gate: Linear,
    up: Linear,
    down: Linear,
    activation: Activation,
}

impl Shared {
    fn load(loader: &Loader<'_>, p: &str, c: &DecoderConfig, body: &Config) -> Result<Self> {
        let (d, wide) = (c.d_model, 2 * c.d_model);
        let (q, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let linear = |name: &str, outputs, inputs| {
            loader.linear(&format!("{p}.{name}"), outputs, inputs, body.bias)
        };
        let qkv = |name: &str, outputs| {
            loader.linear(&format!("{p}.self_attn.{name}"), outputs, wide, false)
        };
        let projections = [qkv("q_proj", q)?, qkv("k_proj", kv)?, qkv("v_proj", kv)?];
        let attention = AttentionConfig {
            heads: c.heads,
            kv_heads: c.kv_heads,
            head_dim: c.head_dim,
            input: wide,
            output: d,
            scale: (c.head_dim as f64 / 2.0).powf(-0.5),
            cap: None,
            alibi: false,
            causal: true,
            window: None,
            rotary: (!body.rotaries.is_empty()).then_some(0),
            qk_norm: None,
            qkv_bias: false,
            output_bias: false,
        };
        let output = loader.linear(&format!("{p}.self_attn.o_proj"), d, q, false)?;
        let fused = format!("{p}.feed_forward.gate_up_proj");
        let halves = loader.linears(&fused, &[c.d_mlp, c.d_mlp], d, body.bias)?;
        let [gate, up] = <[Linear; 2]>::try_from(halves).map_err(|_| loader.nothing(&fused))?;
        Ok(Self {
            norm: NormLayer::load(
                loader,
                &format!("{p}.input_layernorm"),
                wide,
                Norm::Rms(body.eps),
            )?,
            heads: Heads::new(output, None, attention),
            projections,
            mlp_norm: NormLayer::load(
                loader,
                &format!("{p}.pre_ff_layernorm"),
                d,
                Norm::Rms(body.eps),
            )?,
            gate,
            up,
            down: linear("feed_forward.down_proj", d, c.d_mlp)?,
            activation: body.activation,
        })
    }
}

/// What one hybrid block adds to the shared block's projections.
#[derive(Debug)]
struct Adapters {
    /// Of queries, keys and values.
    attention: Option<[Adapter; 3]>,
    gate: Adapter,
    up: Adapter,
}

/// Two narrow layers, one after the other. Those of gate and up share the first.
#[derive(Clone, Debug)]
struct Adapter {
    down: Linear,
    up: Linear,
}

impl Adapter {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.up.forward(&self.down.forward(x)?)
    }
}

impl Adapters {
    fn load(
        loader: &Loader<'_>,
        shared: &str,
        n: usize,
        c: &DecoderConfig,
        body: &Config,
    ) -> Result<Self> {
        let (d, wide, rank) = (c.d_model, 2 * c.d_model, body.rank);
        let attention = |name: &str, outputs: usize| {
            let p = format!("{shared}.self_attn.linear_{name}_adapter_list.{n}");
            Ok::<_, crate::Error>(Adapter {
                down: loader.linear(&format!("{p}.0"), rank, wide, false)?,
                up: loader.linear(&format!("{p}.1"), outputs, rank, false)?,
            })
        };
        let p = format!("{shared}.feed_forward.gate_up_proj_adapter_list.{n}");
        let down = loader.linear(&format!("{p}.0"), rank, d, false)?;
        let fused = format!("{p}.1");
        let halves = loader.linears(&fused, &[c.d_mlp, c.d_mlp], rank, false)?;
        let [gate, up] = <[Linear; 2]>::try_from(halves).map_err(|_| loader.nothing(&fused))?;
        let (q, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        Ok(Self {
            attention: match body.attention_adapters {
                true => Some([attention("q", q)?, attention("k", kv)?, attention("v", kv)?]),
                false => None,
            },
            gate: Adapter {
                down: down.clone(),
                up: gate,
            },
            up: Adapter { down, up },
        })
    }
}

#[derive(Debug)]
struct Hybrid {
    shared: Arc<Shared>,
    adapters: Adapters,
    linear: Linear,
    mamba: Plain,
}

impl Block for Hybrid {
    fn forward(&self, h: &Tensor, pass: &mut Pass<'_, '_>) -> candle_core::Result<Tensor> {
        let shared = &self.shared;
        let x = shared.norm.forward(&Tensor::cat(&[h, pass.embedded], 1)?)?;
        let project = |i: usize| {
            let y = shared.projections[i].forward(&x)?;
            match &self.adapters.attention {
                Some(adapters) => y + adapters[i].forward(&x)?,
                None => Ok(y),
            }
        };
        let (q, k, v) = (project(0)?, project(1)?, project(2)?);
        let mixed = shared.heads.attend(q, k, v, pass)?;
        let x = shared.mlp_norm.forward(&mixed)?;
        let gate = (shared.gate.forward(&x)? + self.adapters.gate.forward(&x)?)?;
        let up = (shared.up.forward(&x)? + self.adapters.up.forward(&x)?)?;
        let inner = (activate(&gate, shared.activation, shared.gate.backend())? * up)?;
        let out = self.linear.forward(&shared.down.forward(&inner)?)?;
        // What the shared block says reaches the mixer alone, not the residual stream.
        let x = self.mamba.norm.forward(&(h + out)?)?;
        h + self.mamba.mixer.forward(&x, pass)?
    }
}
