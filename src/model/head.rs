//! From normed states to logits: what the model, and so the lens, does after the last block.

use super::config::DecoderConfig;
use super::families::Family;
use super::families::bert::Transform;
use super::linear::Linear;
use super::weights::{Loader, Stored};
use crate::error::Result;
use candle_core::Tensor;

/// The head of a language model.
#[derive(Debug)]
pub(crate) struct Head {
    /// BERT's dense layer, gelu and norm.
    transform: Option<Transform>,
    /// OPT's way back to the width of the embedding.
    projection: Option<Linear>,
    linear: Linear,
    cap: Option<f64>,
}

impl Head {
    /// The head of a checkpoint; `embedding` is shared where the model ties the two.
    pub(crate) fn load(loader: &Loader<'_>, c: &DecoderConfig, embedding: &Stored) -> Result<Self> {
        let width = c.embedding_width.unwrap_or(c.d_model);
        let masked = c.family == Family::Bert;
        let linear = if c.tied {
            let bias = match masked {
                true => Some(loader.vector("cls.predictions.bias", c.vocab)?),
                false => None,
            };
            Linear::new(embedding.clone(), bias)?
        } else {
            let names = c.family.names().heads;
            let exists = |name: &&&str| loader.has(&format!("{name}.weight"));
            // One that is missing is called as its neighbours are.
            let wrapped = |name: &str| name.starts_with("language_model.");
            let alike = |name: &&&str| wrapped(name) == wrapped(loader.prefix());
            let name = names.iter().find(exists);
            let name = name.or_else(|| names.iter().find(alike));
            let name = name.copied().unwrap_or("lm_head");
            loader.linear(name, c.vocab, width, c.head_bias || masked)?
        };
        let projection = match c.embedding_width {
            Some(width) => {
                let name = format!("{}project_out", loader.prefix());
                Some(loader.linear(&name, width, c.d_model, false)?)
            }
            None => None,
        };
        Ok(Self {
            transform: match masked {
                true => Some(Transform::load(loader, c)?),
                false => None,
            },
            projection,
            linear,
            cap: c.logit_cap,
        })
    }

    /// Logits `[rows, V]` of normed states `[rows, d_model]`.
    pub(crate) fn forward(&self, normed: &Tensor) -> candle_core::Result<Tensor> {
        let mut x = normed.clone();
        if let Some(transform) = &self.transform {
            x = transform.forward(&x)?;
        }
        if let Some(projection) = &self.projection {
            x = projection.forward(&x)?;
        }
        let logits = self.linear.forward(&x)?;
        match self.cap {
            Some(cap) => (logits / cap)?.tanh()? * cap,
            None => Ok(logits),
        }
    }
}
