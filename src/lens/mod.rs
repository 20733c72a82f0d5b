//! The lens: what every residual state would say next.
//!
//! All L + 1 states of the tokens at hand go through final norm and head in one pass over the vocabulary, which reduces
//! each row of logits to the metrics of a cell on the way. The last row is the model's own: the sampler reads the very
//! same numbers.

pub mod attention;
pub mod check;
mod distribution;
mod fused;
pub mod reference;
pub mod sparsity;

use crate::error::Result;
use crate::model::Decoder;
use crate::model::decoder::Traced;
use crate::model::ops::with_slice;
use crate::trace::{Candidate, Cells, Schema};
use candle_core::Tensor;
use distribution::Plan;
use fused::Source;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Arc, Mutex};

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
    /// Room for the logits of opened tokens: fresh memory would be cleared for each.
    spare: Arc<Mutex<Vec<f32>>>,
}

/// Some tokens whose states have been read, but not what came after them.
///
/// Ranking that needs all logits once more, so they are kept: `4 · (L + 1) · V` bytes a token. Where the next tokens are
/// known already, [`Lens::cells`] does without.
#[derive(Debug)]
pub struct Opened {
    /// Tokens in this tile.
    tokens: usize,
    /// States a token, L + 1.
    states: usize,
    /// `[tokens][states]`.
    rows: Vec<distribution::Row>,
    /// `[tokens][states][V]`.
    logits: Vec<f32>,
    /// `[tokens][states][d]`: what the sparsity columns read.
    vectors: Vec<f32>,
}

impl Opened {
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

/// States gathered token by token.
struct Gathered {
    tokens: usize,
    states: usize,
    /// `[tokens · states, width]`, what the head's big matrix reads.
    inputs: Tensor,
    /// `[tokens][states][d]`: what the sparsity columns read.
    vectors: Vec<f32>,
}

impl Lens {
    /// A lens with these settings.
    #[must_use]
    pub fn new(settings: LensSettings) -> Self {
        let schema = Arc::new(Schema::new(&settings));
        Self {
            settings,
            schema,
            spare: Arc::default(),
        }
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

    /// Read the states of the tokens in `span` (indices into the forward's tokens) before it is known what comes next.
    ///
    /// # Errors
    /// If a tensor operation fails, or the forward did not tap its states.
    pub fn open(&self, decoder: &Decoder, traced: &Traced, span: Range<usize>) -> Result<Opened> {
        let gathered = self.gather(decoder, traced, span)?;
        let (tokens, states) = (gathered.tokens, gathered.states);
        let head = decoder.parts();
        if !head.is_plain(&gathered.inputs) {
            let logits = head.rest(&gathered.inputs)?.flatten_all()?.to_vec1()?;
            return Ok(self.opened(tokens, states, logits, gathered.vectors));
        }
        let (rows, logits) = head.with_last(|last| {
            with_slice(&gathered.inputs, |x| {
                let mut logits = match self.spare.lock() {
                    Ok(mut spare) => std::mem::take(&mut *spare),
                    Err(_) => Vec::new(),
                };
                logits.resize(tokens * states * last.vocab, 0.0);
                let source = Source::Head(last, x);
                let plan = Plan::new(&self.settings);
                let rows = fused::read(&source, tokens, states, &[], &plan, &mut logits);
                (rows, logits)
            })
        })??;
        Ok(Opened {
            tokens,
            states,
            rows: rows.into_iter().map(|(row, _)| row).collect(),
            logits,
            vectors: gathered.vectors,
        })
    }

    /// A tile of logits `[tokens][states][V]` and state vectors `[tokens][states][d]` from elsewhere, such as a file or a
    /// test.
    #[must_use]
    pub fn opened(
        &self,
        tokens: usize,
        states: usize,
        logits: Vec<f32>,
        vectors: Vec<f32>,
    ) -> Opened {
        let vocab = logits.len() / (tokens * states).max(1);
        let source = Source::Logits(&logits, vocab);
        let plan = Plan::new(&self.settings);
        let rows = fused::read(&source, tokens, states, &[], &plan, &mut []);
        Opened {
            tokens,
            states,
            rows: rows.into_iter().map(|(row, _)| row).collect(),
            logits,
            vectors,
        }
    }

    /// Take back the room of a tile that is done with.
    pub fn close(&self, opened: Opened) {
        if let Ok(mut spare) = self.spare.lock() {
            *spare = opened.logits;
        }
    }

    /// Read every cell of an opened tile. `targets` names the token that came after each, where one did.
    #[must_use]
    pub fn read(&self, opened: &Opened, targets: &[Option<u32>]) -> Vec<Cells> {
        let vocab = opened.logits.len() / opened.rows.len().max(1);
        let target = |row: usize| {
            let id = targets.get(row / opened.states).copied().flatten()?;
            let z = &opened.logits[row * vocab..(row + 1) * vocab];
            let target = *z.get(id as usize)?;
            let above = z.iter().map(|z| u32::from(*z > target)).sum();
            Some((target, Some(above)))
        };
        self.fill(&opened.rows, opened.states, vocab, &opened.vectors, target)
    }

    /// The cells of the tokens in `span` (indices into the forward's tokens), each with the token that came after it, where
    /// one did. No logits are kept: what is needed beyond the cells is some hundred bytes a state and block of the
    /// vocabulary for a few tokens at a time.
    ///
    /// # Errors
    /// If a tensor operation fails, or the forward did not tap its states.
    pub fn cells(
        &self,
        decoder: &Decoder,
        traced: &Traced,
        span: Range<usize>,
        targets: &[Option<u32>],
    ) -> Result<Vec<Cells>> {
        let head = decoder.parts();
        let gathered = self.gather(decoder, traced, span.clone())?;
        if !head.is_plain(&gathered.inputs) {
            return Ok(self.read(&self.open(decoder, traced, span)?, targets));
        }
        let (tokens, states) = (gathered.tokens, gathered.states);
        let (rows, vocab) = head.with_last(|last| {
            with_slice(&gathered.inputs, |x| {
                let source = Source::Head(last, x);
                let plan = Plan::new(&self.settings);
                let rows = fused::read(&source, tokens, states, targets, &plan, &mut []);
                (rows, last.vocab)
            })
        })??;
        let (rows, wanted): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let target = |row: usize| wanted[row].map(|z| (z, None));
        Ok(self.fill(&rows, states, vocab, &gathered.vectors, target))
    }

    /// Final norm of all states of the tokens in `span`, token by token, as the head reads it.
    fn gather(&self, decoder: &Decoder, traced: &Traced, span: Range<usize>) -> Result<Gathered> {
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
        let inputs = decoder.parts().prepare(&normed)?;
        let vectors = match self.settings.states {
            StateKind::Residual => rows,
            StateKind::Normed => normed,
        };
        Ok(Gathered {
            tokens,
            states,
            inputs,
            vectors: vectors.flatten_all()?.to_vec1()?,
        })
    }

    /// Cells of reduced rows `[tokens][states]` and their vectors `[tokens][states][d]`; `target` gives a row's target and
    /// how many logits are above it.
    fn fill(
        &self,
        rows: &[distribution::Row],
        states: usize,
        vocab: usize,
        vectors: &[f32],
        target: impl Fn(usize) -> Option<(f32, Option<u32>)> + Sync,
    ) -> Vec<Cells> {
        let d = vectors.len() / rows.len().max(1);
        let metrics = self.schema.len();
        let filled: Vec<(Vec<f32>, Vec<Candidate>)> = (0..rows.len())
            .into_par_iter()
            .map(|row| {
                let last = row / states * states + states - 1;
                let mut values = Vec::with_capacity(metrics);
                let top = distribution::columns(
                    &rows[row],
                    &rows[last],
                    row == last,
                    vocab,
                    target(row),
                    &self.settings,
                    &mut values,
                );
                sparsity::read(
                    &vectors[row * d..(row + 1) * d],
                    &self.settings,
                    &mut values,
                );
                (values, top)
            })
            .collect();
        filled
            .chunks(states)
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
