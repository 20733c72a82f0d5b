//! What blocks are built of: norms, attention, MLPs, causal convolutions; and the transformer block itself.

mod attention;
mod conv;
mod mlp;
mod norm;

use super::cache::LayerState;
use super::config::{Activation, DecoderConfig, LayerKind, Norm, Rotary};
use super::decoder::{Row, Taps};
use super::families::names::{Names, Norms, OPT_POST};
use super::ops::{self, Angles};
use super::weights::Loader;
use crate::error::Result;
pub(crate) use attention::{Attention, AttentionConfig, Heads};
use candle_core::Tensor;
pub(crate) use conv::CausalConv;
pub(crate) use mlp::{Mlp, activate};
pub(crate) use norm::NormLayer;

/// Everything about a family's transformer blocks that is no size: [`DecoderConfig`] has those.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockConfig {
    /// The norms' kind.
    pub norm: Norm,
    /// Whether attention and MLP read the same state and are added together.
    pub parallel: bool,
    /// Whether norms come after the sum (OPT-350M).
    pub sums: bool,
    /// Norm of queries and keys before rotation.
    pub qk_norm: Option<QkNorm>,
    /// Factor on the scores.
    pub scale: f64,
    /// Scores s become `cap · tanh(s / cap)`.
    pub cap: Option<f64>,
    /// Whether distance lowers scores (ALiBi).
    pub alibi: bool,
    /// The rotary embeddings in use.
    pub rotaries: Vec<Rotary>,
    /// For each block the one it uses, if any.
    pub rotary: Vec<Option<usize>>,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether what mixes the heads has one.
    pub output_bias: bool,
    /// Whether the MLP has them.
    pub mlp_bias: bool,
    /// The MLP's non-linearity.
    pub activation: Activation,
}

impl Default for BlockConfig {
    fn default() -> Self {
        Self {
            norm: Norm::Rms(1e-6),
            parallel: false,
            sums: false,
            qk_norm: None,
            scale: 1.0,
            cap: None,
            alibi: false,
            rotaries: Vec::new(),
            rotary: Vec::new(),
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            activation: Activation::Silu,
        }
    }
}

/// What the norm of queries and keys runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// Each head by itself.
    Head,
    /// All heads together.
    Whole,
}

/// Where a row's tokens stand among all tokens of the forward, and in its own text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Index of the first among the tokens of all rows.
    pub(crate) first: usize,
    /// How many.
    pub(crate) len: usize,
    /// Position of the first in its own text.
    pub(crate) past: usize,
}

/// What a block sees of the forward pass it is part of.
pub(crate) struct Pass<'p, 'r> {
    /// The rows, with their memories.
    pub(crate) rows: &'p mut [Row<'r>],
    /// Where each row's tokens are.
    pub(crate) spans: &'p [Span],
    /// Index of the block.
    pub(crate) block: usize,
    /// `[rotary embedding][row]`.
    pub(crate) angles: &'p [Vec<Angles>],
    /// State 0.
    pub(crate) embedded: &'p Tensor,
    /// What to keep.
    pub(crate) taps: Taps,
    /// The attention probabilities of this block, `[heads, tokens, keys]` for each row; empty unless tapped.
    pub(crate) attention: Vec<Tensor>,
}

impl Pass<'_, '_> {
    /// What the branch of row `row` remembers in this block.
    pub(crate) fn memory(&mut self, row: usize) -> Option<&mut LayerState> {
        let block = self.block;
        let state = self.rows[row].state.as_deref_mut()?;
        Some(state.layer(block))
    }
}

/// One block of a model: state l − 1 to state l, both `[tokens of all rows, d_model]`.
///
/// A row's result must depend on its own tokens and memory alone, to the last bit, and reading in pieces must give what
/// reading at once gives.
pub(crate) trait Block: std::fmt::Debug + Send + Sync {
    /// Compute the block and advance the rows' memories.
    fn forward(&self, h: &Tensor, pass: &mut Pass<'_, '_>) -> candle_core::Result<Tensor>;
}

/// A block that text passes unchanged.
#[derive(Debug)]
pub(crate) struct Skip;

impl Block for Skip {
    fn forward(&self, h: &Tensor, _: &mut Pass<'_, '_>) -> candle_core::Result<Tensor> {
        Ok(h.clone())
    }
}

/// The norms around one half of a block.
#[derive(Debug)]
struct Around {
    before: Option<NormLayer>,
    after: Option<NormLayer>,
    sum: Option<NormLayer>,
}

impl Around {
    fn load(
        loader: &Loader<'_>,
        prefix: &str,
        names: &Norms,
        width: usize,
        norm: Norm,
    ) -> Result<Self> {
        let one = |name: Option<&str>| {
            name.map(|name| NormLayer::load(loader, &format!("{prefix}.{name}"), width, norm))
                .transpose()
        };
        Ok(Self {
            before: one(names.before)?,
            after: one(names.after)?,
            sum: one(names.sum)?,
        })
    }

    fn enter(&self, h: &Tensor) -> candle_core::Result<Tensor> {
        apply(self.before.as_ref(), h)
    }

    /// Add what the half computed to the residual stream.
    fn leave(&self, h: &Tensor, out: &Tensor) -> candle_core::Result<Tensor> {
        let sum = ops::sum(h, &apply(self.after.as_ref(), out)?)?;
        apply(self.sum.as_ref(), &sum)
    }
}

fn apply(norm: Option<&NormLayer>, x: &Tensor) -> candle_core::Result<Tensor> {
    match norm {
        Some(norm) => norm.forward(x),
        None => Ok(x.clone()),
    }
}

/// Attention and an MLP, with norms where the family has them.
#[derive(Debug)]
pub(crate) struct TransformerBlock {
    around_attention: Around,
    attention: Attention,
    around_mlp: Around,
    mlp: Mlp,
    parallel: bool,
}

impl TransformerBlock {
    pub(crate) fn load(
        loader: &Loader<'_>,
        index: usize,
        c: &DecoderConfig,
        b: &BlockConfig,
    ) -> Result<Self> {
        let names: &Names = if b.sums { &OPT_POST } else { c.family.names() };
        let prefix = loader.block(names, index);
        let around = |norms: &Norms| Around::load(loader, &prefix, norms, c.d_model, b.norm);
        let attention = AttentionConfig {
            heads: c.heads,
            kv_heads: c.kv_heads,
            head_dim: c.head_dim,
            input: c.d_model,
            output: c.d_model,
            scale: b.scale,
            cap: b.cap,
            alibi: b.alibi,
            causal: c.causal,
            window: match c.layers[index] {
                LayerKind::Window(width) => Some(width),
                _ => None,
            },
            rotary: b.rotary.get(index).copied().flatten(),
            qk_norm: b.qk_norm.map(|kind| (kind, b.norm)),
            qkv_bias: b.qkv_bias,
            output_bias: b.output_bias,
        };
        Ok(Self {
            around_attention: around(&names.attention)?,
            attention: Attention::load(loader, &prefix, names, attention)?,
            around_mlp: around(&names.mlp)?,
            mlp: Mlp::load(
                loader,
                &prefix,
                names,
                c.d_model,
                c.d_mlp,
                b.mlp_bias,
                b.activation,
            )?,
            parallel: b.parallel,
        })
    }
}

impl Block for TransformerBlock {
    fn forward(&self, h: &Tensor, pass: &mut Pass<'_, '_>) -> candle_core::Result<Tensor> {
        let x = self.around_attention.enter(h)?;
        let mixed = self.attention.forward(&x, pass)?;
        if self.parallel {
            // A family with one norm gives it to both halves.
            let x = match &self.around_mlp.before {
                Some(norm) => norm.forward(h)?,
                None => x,
            };
            let added = ops::sum(h, &mixed)?;
            return ops::sum(&added, &self.mlp.forward(&x)?);
        }
        let h = self.around_attention.leave(h, &mixed)?;
        let x = self.around_mlp.enter(&h)?;
        self.around_mlp.leave(&h, &self.mlp.forward(&x)?)
    }
}
