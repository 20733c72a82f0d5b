//! AdamW with moments that can be saved (candle-nn's keeps them to itself, and a resumed run needs them).

use crate::model::ops::with_slice;
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use rayon::prelude::*;

/// One parameter with its moments.
#[derive(Debug)]
pub struct Parameter {
    /// Hugging Face name.
    pub name: String,
    /// The weights.
    pub var: Var,
    /// First moment, as long as the weights.
    pub first: Vec<f32>,
    /// Second moment, as long as the weights.
    pub second: Vec<f32>,
    /// Whether weight decay applies.
    pub decays: bool,
}

/// Adam's constants (Kingma & Ba 2015; decoupled decay of Loshchilov & Hutter 2019).
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Weight decay, times the learning rate.
    pub decay: f32,
    /// Gradients are scaled down to this norm.
    pub clip: f32,
}

impl Default for AdamW {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-8,
            decay: 0.1,
            clip: 1.0,
        }
    }
}

impl AdamW {
    /// One step with the mean of several gradients (one per worker); `step` counts from 1. Returns the gradient's norm
    /// before clipping.
    ///
    /// # Errors
    /// If a tensor operation fails or a gradient is missing (which would mean that a part of the model does not learn).
    pub fn step(
        &self,
        parameters: &mut [Parameter],
        grads: &[GradStore],
        step: usize,
        rate: f32,
    ) -> Result<f32> {
        let mut sums: Vec<Vec<f32>> = Vec::with_capacity(parameters.len());
        for p in parameters.iter() {
            let mut sum = vec![0.0f32; p.first.len()];
            for grad in grads {
                let Some(g) = grad.get(&p.var) else {
                    candle_core::bail!("no gradient reached {}", p.name);
                };
                with_slice(g, |g| sum.iter_mut().zip(g).for_each(|(s, g)| *s += g))?;
            }
            sums.push(sum);
        }
        let share = 1.0 / grads.len() as f32;
        let square: f64 = sums
            .par_iter()
            .map(|s| s.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>())
            .sum();
        let norm = square.sqrt() as f32 * share;
        if !norm.is_finite() {
            candle_core::bail!(
                "the gradient of step {step} is not finite; lower the learning rate"
            );
        }
        let scale = share * (self.clip / norm.max(self.clip));
        let correct1 = 1.0 - self.beta1.powi(step as i32);
        let correct2 = 1.0 - self.beta2.powi(step as i32);
        let updated: Vec<Result<Vec<f32>>> = parameters
            .par_iter_mut()
            .zip(sums)
            .map(|(p, mut g)| {
                let decay = if p.decays { rate * self.decay } else { 0.0 };
                let (first, second) = (&mut p.first, &mut p.second);
                with_slice(p.var.as_tensor(), |w| {
                    for i in 0..w.len() {
                        let d = g[i] * scale;
                        first[i] += (1.0 - self.beta1) * (d - first[i]);
                        second[i] += (1.0 - self.beta2) * (d * d - second[i]);
                        let move_by =
                            first[i] / correct1 / ((second[i] / correct2).sqrt() + self.eps);
                        g[i] = w[i] - decay * w[i] - rate * move_by;
                    }
                })?;
                Ok(g)
            })
            .collect();
        for (p, w) in parameters.iter().zip(updated) {
            p.var
                .set(&Tensor::from_vec(w?, p.var.shape(), p.var.device())?)?;
        }
        Ok(norm)
    }
}
