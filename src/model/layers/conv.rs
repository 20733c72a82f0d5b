//! The short causal convolution of state-space and convolutional blocks.

use crate::error::Result;
use crate::model::ops::with_slice;
use crate::model::twins::scan;
use crate::model::weights::Loader;
use candle_core::{Device, Tensor};

/// A depthwise convolution over the last `width` tokens: `y[t][c] = b[c] + Σ_k w[c][k] · x[t − width + 1 + k][c]`, with
/// nothing before the text.
#[derive(Debug)]
pub(crate) struct CausalConv {
    /// `[width, channels]`: tap by tap, so that channels are contiguous.
    taps: Tensor,
    bias: Option<Tensor>,
    channels: usize,
    width: usize,
}

impl CausalConv {
    /// `name.weight` `[channels, 1, width]` and `name.bias` `[channels]`.
    pub(crate) fn load(
        loader: &Loader<'_>,
        name: &str,
        channels: usize,
        width: usize,
        bias: bool,
    ) -> Result<Self> {
        let weight = loader.tensor(&format!("{name}.weight"), &[channels, 1, width])?;
        let taps = weight.reshape((channels, width))?.t()?.contiguous()?;
        let bias = match bias {
            true => Some(loader.vector(&format!("{name}.bias"), channels)?),
            false => None,
        };
        Ok(Self {
            taps,
            bias,
            channels,
            width,
        })
    }

    /// [`Self::forward`] by tensor operations, on the device of `x`.
    pub(crate) fn tensors(
        &self,
        x: &Tensor,
        memory: &mut Option<Tensor>,
    ) -> candle_core::Result<Tensor> {
        scan::convolve(x, &self.taps, self.bias.as_ref(), memory)
    }

    /// Convolve `x` `[tokens, channels]`, the text that follows what `memory` holds: the last `width − 1` inputs, oldest
    /// first, or nothing at the beginning of a text. Leaves the new memory there and returns `[tokens, channels]`.
    pub(crate) fn forward(
        &self,
        x: &[f32],
        memory: &mut Option<Tensor>,
    ) -> candle_core::Result<Vec<f32>> {
        let (c, before) = (self.channels, self.width - 1);
        let tokens = x.len() / c;
        let mut seen = match memory {
            Some(memory) => memory.flatten_all()?.to_vec1::<f32>()?,
            None => vec![0.0; before * c],
        };
        seen.extend_from_slice(x);
        let mut out = vec![0.0; tokens * c];
        if let Some(bias) = &self.bias {
            with_slice(bias, |bias| {
                out.chunks_exact_mut(c)
                    .for_each(|out| out.copy_from_slice(bias));
            })?;
        }
        with_slice(&self.taps, |taps| {
            for (t, out) in out.chunks_exact_mut(c).enumerate() {
                for (k, taps) in taps.chunks_exact(c).enumerate() {
                    let x = &seen[(t + k) * c..(t + k + 1) * c];
                    for ((o, x), w) in out.iter_mut().zip(x).zip(taps) {
                        *o += w * x;
                    }
                }
            }
        })?;
        let kept = seen.split_off(tokens * c);
        *memory = Some(Tensor::from_vec(kept, (before, c), &Device::Cpu)?);
        Ok(out)
    }
}
