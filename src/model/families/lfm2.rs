//! LFM2: gated short convolutions between blocks of attention.
//!
//! ```text
//! block: h + mix(norm h), then h + mlp(norm h)
//! mix is attention, or  B, C, x = in_proj(h);  out_proj(C · conv(B · x))
//! ```

use super::mamba::numbers;
use super::{Body, Family};
use crate::error::Result;
use crate::model::backend::Backend;
use crate::model::config::{Activation, DecoderConfig, Fields, LayerKind, Norm, Rotary, divide};
use crate::model::layers::{
    Block, BlockConfig, CausalConv, Mlp, NormLayer, Pass, QkNorm, TransformerBlock,
};
use crate::model::linear::Linear;
use crate::model::weights::Loader;
use candle_core::Tensor;

/// What LFM2's blocks are.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The blocks with attention, and all MLPs.
    pub(super) block: BlockConfig,
    /// Tokens that a convolution sees.
    width: usize,
    /// Whether convolutions and their projections have biases.
    bias: bool,
}

impl Config {
    /// Numbers that a block with a convolution remembers.
    pub(super) fn remembered(&self, d_model: usize) -> u64 {
        (d_model as u64).saturating_mul(self.width as u64 - 1)
    }
}

pub(super) fn config(f: &Fields<'_>) -> Result<DecoderConfig> {
    let d_model = f.size("hidden_size")?;
    let heads = f.size("num_attention_heads")?;
    let head_dim = divide(d_model, heads)?;
    let blocks = f.blocks("num_hidden_layers")?;
    let layers = match (f.words("layer_types", blocks)?, f.list("full_attn_idxs")?) {
        (Some(words), _) => words
            .iter()
            .map(|word| match *word {
                "conv" => Ok(LayerKind::Convolution),
                "full_attention" => Ok(LayerKind::Attention),
                _ => Err(f.bad(
                    "layer_types",
                    "names something else than conv and full_attention",
                )),
            })
            .collect::<Result<Vec<_>>>()?,
        (None, Some(full)) => {
            let mut layers = vec![LayerKind::Convolution; blocks];
            for block in full {
                match layers.get_mut(block as usize) {
                    Some(kind) => *kind = LayerKind::Attention,
                    None => return Err(f.bad("full_attn_idxs", "names a layer that there is not")),
                }
            }
            layers
        }
        (None, None) => return Err(f.bad("layer_types", "is missing")),
    };
    let eps = f.real("norm_eps")?.unwrap_or(1e-5);
    let vocab = f.size("vocab_size")?;
    let tied = match f.flag("tie_word_embeddings")? {
        Some(tied) => tied,
        None => f.flag("tie_embedding")?.unwrap_or(true),
    };
    Ok(DecoderConfig {
        family: Family::Lfm2,
        vocab,
        embedded: vocab,
        d_model,
        heads,
        kv_heads: f.optional_size("num_key_value_heads")?.unwrap_or(heads),
        head_dim,
        d_mlp: inner(f)?,
        context: f
            .optional_size("max_position_embeddings")?
            .unwrap_or(128_000),
        causal: true,
        layers,
        embedding_scale: None,
        embedding_width: None,
        positions: None,
        embedding_norm: None,
        final_norm: Some(Norm::Rms(eps)),
        tied,
        head_bias: false,
        logit_cap: None,
        body: Body::Lfm2(Config {
            block: BlockConfig {
                norm: Norm::Rms(eps),
                scale: (head_dim as f64).powf(-0.5),
                qk_norm: Some(QkNorm::Head),
                rotaries: vec![Rotary::read(f, head_dim, 1_000_000.0, 1.0)?],
                rotary: vec![Some(0); blocks],
                activation: Activation::Silu,
                ..BlockConfig::default()
            },
            width: f.optional_size("conv_L_cache")?.unwrap_or(3),
            bias: f.flag("conv_bias")?.unwrap_or(false),
        }),
    })
}

/// Inner width of the MLP: two thirds of what the file says, rounded up, unless it says otherwise.
fn inner(f: &Fields<'_>) -> Result<usize> {
    let said = f.size_of(&["block_ff_dim", "intermediate_size"])?;
    if f.flag("block_auto_adjust_ff_dim")? == Some(false) {
        return Ok(said);
    }
    let factor = f.positive("block_ffn_dim_multiplier")?.unwrap_or(1.0);
    let multiple = f.optional_size("block_multiple_of")?.unwrap_or(256);
    let wanted = (factor * (2 * said / 3) as f64) as usize;
    match wanted.div_ceil(multiple) * multiple {
        inner if (1..1 << 24).contains(&inner) => Ok(inner),
        _ => Err(f.bad(
            "block_ffn_dim_multiplier",
            "makes an MLP of no sensible width",
        )),
    }
}

pub(super) fn load(
    c: &DecoderConfig,
    body: &Config,
    loader: &Loader<'_>,
) -> Result<Vec<Box<dyn Block>>> {
    let names = c.family.names();
    c.layers
        .iter()
        .enumerate()
        .map(|(i, kind)| {
            let loader = &loader.of_block(i, c.blocks());
            if *kind == LayerKind::Attention {
                let block = TransformerBlock::load(loader, i, c, &body.block)?;
                return Ok(Box::new(block) as Box<dyn Block>);
            }
            let p = loader.block(names, i);
            let norm = |name: Option<&str>| {
                let name = format!("{p}.{}", name.unwrap_or_default());
                NormLayer::load(loader, &name, c.d_model, body.block.norm)
            };
            let (d, bias) = (c.d_model, body.bias);
            Ok(Box::new(ShortConv {
                norm: norm(names.attention.before)?,
                in_proj: loader.linear(&format!("{p}.conv.in_proj"), 3 * d, d, bias)?,
                conv: CausalConv::load(loader, &format!("{p}.conv.conv"), d, body.width, bias)?,
                out_proj: loader.linear(&format!("{p}.conv.out_proj"), d, d, bias)?,
                mlp_norm: norm(names.mlp.before)?,
                mlp: Mlp::load(loader, &p, names, d, c.d_mlp, false, body.block.activation)?,
            }) as Box<dyn Block>)
        })
        .collect()
}

#[derive(Debug)]
struct ShortConv {
    norm: NormLayer,
    in_proj: Linear,
    conv: CausalConv,
    out_proj: Linear,
    mlp_norm: NormLayer,
    mlp: Mlp,
}

impl Block for ShortConv {
    fn forward(&self, h: &Tensor, pass: &mut Pass<'_, '_>) -> candle_core::Result<Tensor> {
        let d = h.dim(1)?;
        let bcx = self.in_proj.forward(&self.norm.forward(h)?)?;
        let part = |i: usize| bcx.narrow(1, i * d, d);
        if self.in_proj.backend() == Backend::Tensors {
            let gated = (part(0)? * part(2)?)?;
            let mut mixed = Vec::with_capacity(pass.spans.len());
            for (row, span) in pass.spans.iter().enumerate() {
                let mut fresh = Default::default();
                let memory = pass.memory(row).unwrap_or(&mut fresh);
                let x = gated.narrow(0, span.first, span.len)?;
                mixed.push(self.conv.tensors(&x, &mut memory.convolution)?);
            }
            let mixed = (Tensor::cat(&mixed, 0)? * part(1)?)?;
            return self.finish(h, &mixed);
        }
        let gated = numbers(&(part(0)? * part(2)?)?)?;
        let gate = numbers(&part(1)?)?;
        let mut mixed = Vec::with_capacity(gate.len());
        for (row, span) in pass.spans.iter().enumerate() {
            let of_row = span.first * d..(span.first + span.len) * d;
            let mut fresh = Default::default();
            let memory = pass.memory(row).unwrap_or(&mut fresh);
            let y = self
                .conv
                .forward(&gated[of_row.clone()], &mut memory.convolution)?;
            mixed.extend(y.iter().zip(&gate[of_row]).map(|(y, c)| y * c));
        }
        self.finish(h, &Tensor::from_vec(mixed, h.shape(), h.device())?)
    }
}

impl ShortConv {
    /// What follows the mixing.
    fn finish(&self, h: &Tensor, mixed: &Tensor) -> candle_core::Result<Tensor> {
        let h = (h + self.out_proj.forward(mixed)?)?;
        &h + self.mlp.forward(&self.mlp_norm.forward(&h)?)?
    }
}
