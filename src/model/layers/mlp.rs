//! The MLP of a transformer block, gated or plain.

use crate::error::Result;
use crate::model::backend::Backend;
use crate::model::config::Activation;
use crate::model::families::names::{Names, Up};
use crate::model::linear::Linear;
use crate::model::weights::Loader;
use candle_core::Tensor;

/// `down(act(up x))`, or `down(act(gate x) · up x)`.
#[derive(Debug)]
pub(crate) struct Mlp {
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
    activation: Activation,
}

impl Mlp {
    pub(crate) fn load(
        loader: &Loader<'_>,
        prefix: &str,
        names: &Names,
        d_model: usize,
        inner: usize,
        bias: bool,
        activation: Activation,
    ) -> Result<Self> {
        let named = |name: &str| format!("{prefix}.{name}");
        let (gate, up) = match names.up {
            Up::Plain(up) => (None, loader.linear(&named(up), inner, d_model, bias)?),
            Up::Transposed(up) => {
                let parts = loader.conv1d(&named(up), &[inner], d_model)?;
                let down = loader.conv1d(&named(names.down), &[d_model], inner)?;
                let (Some(up), Some(down)) = (parts.into_iter().next(), down.into_iter().next())
                else {
                    return Err(loader.nothing(&named(up)));
                };
                return Ok(Self {
                    gate: None,
                    up,
                    down,
                    activation,
                });
            }
            Up::Gated(gate, up) => (
                Some(loader.linear(&named(gate), inner, d_model, bias)?),
                loader.linear(&named(up), inner, d_model, bias)?,
            ),
            Up::FusedGate(fused) => {
                let mut parts = loader
                    .linears(&named(fused), &[inner, inner], d_model, bias)?
                    .into_iter();
                match (parts.next(), parts.next()) {
                    (Some(gate), Some(up)) => (Some(gate), up),
                    _ => return Err(loader.nothing(&named(fused))),
                }
            }
        };
        let down = loader.linear(&named(names.down), d_model, inner, bias)?;
        Ok(Self {
            gate,
            up,
            down,
            activation,
        })
    }

    /// `x` `[tokens, d_model]` → the same shape.
    pub(crate) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let backend = self.up.backend();
        let inner = match &self.gate {
            Some(gate) => {
                let [gate, up] = Linear::forward_all([gate, &self.up], x)?;
                match self.activation {
                    Activation::Silu => backend.swiglu(&gate, &up)?,
                    other => (activate(&gate, other, backend)? * up)?,
                }
            }
            None => activate(&self.up.forward(x)?, self.activation, backend)?,
        };
        self.down.forward(&inner)
    }
}

/// The non-linearity, number by number.
pub(crate) fn activate(
    x: &Tensor,
    activation: Activation,
    backend: Backend,
) -> candle_core::Result<Tensor> {
    match activation {
        Activation::Silu => x.silu(),
        Activation::GeluTanh => backend.gelu_tanh(x),
        Activation::GeluErf => x.gelu_erf(),
        Activation::Relu => x.relu(),
    }
}
