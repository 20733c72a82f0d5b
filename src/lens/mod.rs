//! The lens: what every residual state would say next.
//!
//! All L + 1 states of the tokens at hand go through final norm and head in one product, and each row of logits is
//! reduced to the metrics of a cell. The last row is the model's own: the sampler reads the very same numbers.

pub mod attention;
pub mod check;
mod distribution;
pub mod reference;
pub mod sparsity;

use crate::error::Result;
use crate::model::Decoder;
use crate::model::decoder::Traced;
use crate::model::ops::with_slice;
use crate::trace::{Candidate, Cells, Schema};
use candle_core::Tensor;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Logits held at once while reading prompts, in bytes: what bounds the memory of a long prompt.
const TILE_BYTES: usize = 32 << 20;

/// What the lens computes for each cell.
#[derive(Clone, Debug, PartialEq)]
pub struct LensSettings {
    /// Logits are divided by this before the softmax; 1 leaves them alone.
    pub temperature: f64,
    /// Rényi orders, each a column. 1 is Shannon, infinity is min-entropy.
    pub renyi: Vec<f64>,
    /// Shares q of the dimensions for `topk_energy` and `topk_mass`, each two columns.
    pub topk_shares: Vec<f64>,
    /// |h| above this counts in `l0`.
    pub l0_threshold: f64,
    /// How many candidates to keep a cell.
    pub top: usize,
    /// Which vector the sparsity columns read.
    pub states: StateKind,
}

impl Default for LensSettings {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            renyi: vec![0.5, 2.0, 5.0],
            topk_shares: vec![0.1],
            l0_threshold: 1e-3,
            top: 5,
            states: StateKind::Residual,
        }
    }
}

/// Which vector the sparsity columns read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StateKind {
    /// The residual stream as the block left it.
    #[default]
    Residual,
    /// The same after the final norm.
    Normed,
}

/// A lens with its settings and the columns they make.
#[derive(Clone, Debug)]
pub struct Lens {
    settings: LensSettings,
    schema: Arc<Schema>,
}

/// States of some tokens and the logits of each, waiting to be read.
#[derive(Debug)]
pub struct Opened {
    /// Tokens in this tile.
    tokens: usize,
    /// States a token, L + 1.
    states: usize,
    /// `[tokens][states][V]`.
    logits: Vec<f32>,
    /// `[tokens][states][d]`: what the sparsity columns read.
    vectors: Vec<f32>,
}

impl Opened {
    /// A tile of logits `[tokens][states][V]` and state vectors `[tokens][states][d]` from elsewhere, such as a file or
    /// a test.
    #[must_use]
    pub fn from_parts(tokens: usize, states: usize, logits: Vec<f32>, vectors: Vec<f32>) -> Self {
        Self {
            tokens,
            states,
            logits,
            vectors,
        }
    }

    /// The model's own logits after one of the tokens: what the sampler draws from.
    #[must_use]
    pub fn final_logits(&self, token: usize) -> &[f32] {
        let vocab = self.logits.len() / (self.tokens * self.states).max(1);
        let row = token * self.states + self.states - 1;
        &self.logits[row * vocab..(row + 1) * vocab]
    }

    /// Number of tokens in the tile.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

impl Lens {
    /// A lens with these settings.
    #[must_use]
    pub fn new(settings: LensSettings) -> Self {
        let schema = Arc::new(Schema::new(&settings));
        Self { settings, schema }
    }

    /// What it computes.
    #[must_use]
    pub fn settings(&self) -> &LensSettings {
        &self.settings
    }

    /// The columns of its cells.
    #[must_use]
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// How many tokens to open at once, so that their logits stay within a fixed size.
    #[must_use]
    pub fn tile(decoder: &Decoder) -> usize {
        let c = decoder.config();
        (TILE_BYTES / (4 * c.vocab * (c.blocks() + 1))).max(1)
    }

    /// Norm and head of all states of the tokens in `span` (indices into the forward's tokens), in one product.
    ///
    /// # Errors
    /// If a tensor operation fails, or the forward did not tap its states.
    pub fn open(&self, decoder: &Decoder, traced: &Traced, span: Range<usize>) -> Result<Opened> {
        let d = decoder.config().d_model;
        let (tokens, states) = (span.len(), traced.states.len());
        let mut vectors = vec![0.0; tokens * states * d];
        for (layer, h) in traced.states.iter().enumerate() {
            with_slice(&h.narrow(0, span.start, tokens)?, |h| {
                for (token, h) in h.chunks_exact(d).enumerate() {
                    let row = token * states + layer;
                    vectors[row * d..(row + 1) * d].copy_from_slice(h);
                }
            })?;
        }
        let rows = Tensor::from_vec(vectors, (tokens * states, d), decoder.device())?;
        let normed = decoder.final_norm(&rows)?;
        let logits = decoder.head(&normed)?.flatten_all()?.to_vec1()?;
        let vectors = match self.settings.states {
            StateKind::Residual => rows,
            StateKind::Normed => normed,
        };
        Ok(Opened {
            tokens,
            states,
            logits,
            vectors: vectors.flatten_all()?.to_vec1()?,
        })
    }

    /// Read every cell of an opened tile. `targets` names the token that came after each, where one did.
    #[must_use]
    pub fn read(&self, opened: &Opened, targets: &[Option<u32>]) -> Vec<Cells> {
        let states = opened.states;
        let vocab = opened.logits.len() / (opened.tokens * states).max(1);
        let d = opened.vectors.len() / (opened.tokens * states).max(1);
        let metrics = self.schema.len();
        let finals: Vec<distribution::Final> = (0..opened.tokens)
            .into_par_iter()
            .map(|t| distribution::Final::new(opened.final_logits(t), self.settings.temperature))
            .collect();
        let rows: Vec<(Vec<f32>, Vec<Candidate>)> = (0..opened.tokens * states)
            .into_par_iter()
            .map(|row| {
                let token = row / states;
                let mut values = Vec::with_capacity(metrics);
                let top = distribution::read(
                    &opened.logits[row * vocab..(row + 1) * vocab],
                    &finals[token],
                    row % states + 1 == states,
                    targets.get(token).copied().flatten(),
                    &self.settings,
                    &mut values,
                );
                sparsity::read(
                    &opened.vectors[row * d..(row + 1) * d],
                    &self.settings,
                    &mut values,
                );
                (values, top)
            })
            .collect();
        rows.chunks(states)
            .map(|rows| Cells {
                values: rows.iter().flat_map(|r| r.0.iter().copied()).collect(),
                top: rows.iter().flat_map(|r| r.1.iter().copied()).collect(),
                decided_layer: decided_layer(rows),
                attention: None,
                plan: 0,
            })
            .collect()
    }
}

/// The lowest layer from which on the best candidate is the final one.
fn decided_layer(rows: &[(Vec<f32>, Vec<Candidate>)]) -> Option<u32> {
    let best =
        |row: &(Vec<f32>, Vec<Candidate>)| row.1.first().filter(|c| !c.prob.is_nan()).map(|c| c.id);
    let last = rows.last().and_then(best)?;
    let agreeing = rows
        .iter()
        .rev()
        .take_while(|r| best(r) == Some(last))
        .count();
    Some((rows.len() - agreeing) as u32)
}
