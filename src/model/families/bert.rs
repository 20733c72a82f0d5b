//! BERT as a masked language model: it sees in both directions, norms after every sum, and has a head of three steps.
//!
//! ```text
//! state 0 = norm(word + position + token type 0)
//! block: h ← norm(h + attention(h)), then h ← norm(h + mlp(h))
//! head:  decoder · norm(gelu(dense h)) + bias, where the decoder is the word embedding
//! ```

use super::Family;
use super::transformer::Plain;
use crate::error::Result;
use crate::model::config::{Activation, DecoderConfig, Fields, Learned, Norm};
use crate::model::layers::{NormLayer, activate};
use crate::model::linear::Linear;
use crate::model::weights::Loader;
use candle_core::Tensor;

pub(super) fn config(f: &Fields<'_>) -> Result<DecoderConfig> {
    f.refuse("is_decoder")?;
    f.refuse("add_cross_attention")?;
    if let Some(kind) = f.text("position_embedding_type")?
        && kind != "absolute"
    {
        return Err(f.bad("position_embedding_type", "is not absolute"));
    }
    let heads = f.size("num_attention_heads")?;
    let context = f.optional_size("max_position_embeddings")?.unwrap_or(512);
    let eps = f.real("layer_norm_eps")?.unwrap_or(1e-12);
    let mut draft = Plain {
        family: Family::Bert,
        d_model: f.size("hidden_size")?,
        heads,
        kv_heads: heads,
        blocks: f.blocks("num_hidden_layers")?,
        d_mlp: f.size("intermediate_size")?,
        context,
        eps,
        activation: Activation::read(f, "hidden_act", "gelu")?,
        tied: true,
        f,
    }
    .draft()?;
    let model = &mut draft.model;
    model.causal = false;
    model.positions = Some(Learned {
        rows: context,
        offset: 0,
    });
    model.embedding_norm = Some(Norm::Layer(eps));
    model.final_norm = None;
    Ok(draft.finish())
}

/// The table of positions `[context, d_model]` with the vector of token type 0 on every row: all that a text without a
/// second sentence needs.
pub(crate) fn with_token_type(
    loader: &Loader<'_>,
    c: &DecoderConfig,
    positions: &Tensor,
) -> Result<Tensor> {
    let name = format!("{}embeddings.token_type_embeddings.weight", loader.prefix());
    let types = loader.table(&name, c.d_model)?;
    Ok(positions.broadcast_add(&types.narrow(0, 0, 1)?)?)
}

/// What stands between BERT's last state and its decoder.
#[derive(Debug)]
pub(crate) struct Transform {
    dense: Linear,
    norm: NormLayer,
    activation: Activation,
}

impl Transform {
    pub(crate) fn load(loader: &Loader<'_>, c: &DecoderConfig) -> Result<Self> {
        let super::Body::Transformer(body) = &c.body else {
            return Err(loader.nothing("cls.predictions.transform"));
        };
        let (name, d) = ("cls.predictions.transform", c.d_model);
        Ok(Self {
            dense: loader.linear(&format!("{name}.dense"), d, d, true)?,
            norm: NormLayer::load(loader, &format!("{name}.LayerNorm"), d, body.norm)?,
            activation: body.activation,
        })
    }

    /// `[rows, d_model]` → the same shape.
    pub(crate) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let backend = self.dense.backend();
        let x = activate(&self.dense.forward(x)?, self.activation, backend)?;
        self.norm.forward(&x)
    }
}
