//! A norm with its weights.

use crate::error::Result;
use crate::model::backend::Backend;
use crate::model::config::Norm;
use crate::model::weights::Loader;
use candle_core::Tensor;

/// A norm over the last dimension.
#[derive(Debug)]
pub(crate) struct NormLayer {
    kind: Norm,
    weight: Tensor,
    bias: Option<Tensor>,
    backend: Backend,
}

impl NormLayer {
    /// `name.weight`, and `name.bias` where the norm has one; old files call them gamma and beta.
    pub(crate) fn load(loader: &Loader<'_>, name: &str, width: usize, norm: Norm) -> Result<Self> {
        let (weight, bias) = match norm {
            Norm::Rms(_) => (loader.vector(&format!("{name}.weight"), width)?, None),
            Norm::RmsPlusOne(_) => {
                let weight = loader.vector(&format!("{name}.weight"), width)?;
                ((weight + 1.0)?, None)
            }
            Norm::Layer(_) => {
                let has = |part: &str| loader.has(&format!("{name}.{part}"));
                let old = !has("weight") && (has("gamma") || has("beta"));
                let (weight, bias) = if old {
                    ("gamma", "beta")
                } else {
                    ("weight", "bias")
                };
                let part = |part: &str| loader.vector(&format!("{name}.{part}"), width);
                (part(weight)?, Some(part(bias)?))
            }
        };
        Ok(Self {
            kind: norm,
            weight,
            bias,
            backend: loader.place().backend,
        })
    }

    /// Of each row by itself.
    pub(crate) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match (self.kind, &self.bias) {
            (Norm::Layer(eps), Some(bias)) => self.backend.layer_norm(x, &self.weight, bias, eps),
            (Norm::Rms(eps) | Norm::RmsPlusOne(eps) | Norm::Layer(eps), _) => {
                self.backend.rms_norm(x, &self.weight, eps)
            }
        }
    }
}
