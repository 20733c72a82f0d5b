//! Which code computes the parts of a block: the kernels of this program, or candle's tensor operations.
//!
//! Everything that has a kernel for the processor has a twin of batched tensor operations for all other devices. The
//! choice is made here and nowhere else; a kernel for another device would be a further case.

use super::ops::{self, Angles, Attended, Scores};
use super::twins;
use candle_core::{Device, Result, Tensor};

/// Which code computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// The fused kernels in main memory. Every number is summed in one fixed order.
    #[default]
    Kernels,
    /// Batched tensor operations, on any device. Orders of summing are the device's.
    Tensors,
}

impl Backend {
    /// What is best on `device`.
    #[must_use]
    pub fn of(device: &Device) -> Self {
        match device {
            Device::Cpu => Self::Kernels,
            Device::Cuda(_) | Device::Metal(_) => Self::Tensors,
        }
    }

    /// RMSNorm over the last dimension of `x` `[…, d]` with weight `[d]`.
    pub(crate) fn rms_norm(self, x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
        match self {
            Self::Kernels => ops::rms_norm(x, weight, eps),
            Self::Tensors => twins::rms_norm(x, weight, eps),
        }
    }

    /// LayerNorm over the last dimension of `x` `[…, d]` with weight and bias `[d]`.
    pub(crate) fn layer_norm(
        self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        eps: f64,
    ) -> Result<Tensor> {
        match self {
            Self::Kernels => ops::layer_norm(x, weight, bias, eps),
            Self::Tensors => twins::layer_norm(x, weight, bias, eps),
        }
    }

    /// Rotary position embedding of `x` `[…, positions, head_dim]`.
    pub(crate) fn rope(self, x: &Tensor, angles: &Angles) -> Result<Tensor> {
        match self {
            Self::Kernels => ops::rope(x, angles),
            Self::Tensors => twins::rope(x, angles),
        }
    }

    /// Gelu with its tanh approximation.
    pub(crate) fn gelu_tanh(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Kernels => ops::gelu_tanh(x),
            Self::Tensors => x.gelu(),
        }
    }

    /// `silu(gate) · up`.
    pub(crate) fn swiglu(self, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
        match self {
            Self::Kernels => ops::swiglu(gate, up),
            Self::Tensors => gate.silu()? * up,
        }
    }

    /// Attention of one branch without gradient; shapes as [`ops::attention`] has them.
    pub(crate) fn attention(
        self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        scores: &Scores,
        past: usize,
        keep: bool,
    ) -> Result<Attended> {
        match self {
            Self::Kernels => ops::attention(q, k, v, scores, past, keep),
            Self::Tensors => twins::attention(q, k, v, scores, past, keep),
        }
    }

    /// Softmax over the visible keys of products `[batch, heads, queries, keys]`.
    pub(crate) fn attention_softmax(
        self,
        products: &Tensor,
        scores: &Scores,
        past: usize,
    ) -> Result<Tensor> {
        match self {
            Self::Kernels => ops::attention_softmax(products, scores, past),
            Self::Tensors => twins::attention_softmax(products, scores, past, 0),
        }
    }
}
