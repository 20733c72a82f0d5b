//! The lens: what every residual state would say next.
//!
//! All L + 1 states of the tokens at hand go through final norm and head in one pass over the vocabulary, which reduces
//! each row of logits to the metrics of a cell on the way. The last row is the model's own: the sampler reads the very
//! same numbers.

pub mod attention;
mod batched;
mod beside;
pub mod check;
mod distribution;
mod fused;
mod pass;
pub mod reference;
pub mod sparsity;

use crate::error::Result;
use crate::model::Decoder;
use crate::model::backend::Backend;
use crate::model::crew;
use crate::model::decoder::Traced;
use crate::model::head_tiles::HeadTiles;
use crate::model::ops::with_slice;
use crate::trace::{Candidate, Cells, Schema};
use batched::Batched;
use candle_core::Tensor;
use distribution::Plan;
use fused::Source;
use pass::HeadPass as _;
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

/// Which tokens of a forward pass are read, by their indices among those of all its rows; a range reads these.
#[derive(Clone, Debug)]
pub struct Which {
    tokens: Vec<usize>,
    /// So many at a time belong together; 1 is each for itself.
    group: usize,
}

impl From<Range<usize>> for Which {
    fn from(span: Range<usize>) -> Self {
        Self::these(span.collect())
    }
}

impl Which {
    /// These, in this order.
    #[must_use]
    pub fn these(tokens: Vec<usize>) -> Self {
        Self { tokens, group: 1 }
    }

    /// These places of `rows` rows of `stride` tokens each: the first place of all rows, the second of all rows and so on.
    /// The cells of all but the first row know how far they are from those of the first ([`Cells::divergence`]); all else
    /// is as if they were read alone.
    #[must_use]
    pub fn beside(places: impl IntoIterator<Item = usize>, rows: usize, stride: usize) -> Self {
        let of_all = |place| (0..rows).map(move |row| row * stride + place);
        Self {
            tokens: places.into_iter().flat_map(of_all).collect(),
            group: rows.max(1),
        }
    }
}

/// Some tokens whose states have been read, but not what came after them.
#[derive(Debug)]
pub struct Opened {
    /// Tokens in this tile.
    tokens: usize,
    /// States a token, L + 1.
    states: usize,
    /// How many at a time belong together.
    group: usize,
    kept: Kept,
    /// `[tokens][states][d]`: what the sparsity columns read.
    vectors: Vec<f32>,
}

/// What is kept for the ranks of the tokens to come, which need all logits once more. Where the next tokens are known
/// already, [`Lens::cells`] does without.
#[derive(Debug)]
enum Kept {
    /// The logits in main memory, `4 · (L + 1) · V` bytes a token, and what they were reduced to.
    Logits {
        /// `[tokens][states]`.
        rows: Vec<distribution::Row>,
        /// `[tokens][states][V]`.
        logits: Vec<f32>,
    },
    /// What they are computed from, on a device; only the final rows' are kept.
    Inputs {
        head: Arc<HeadTiles>,
        /// `[tokens · states, width]`.
        inputs: Tensor,
        /// `[tokens, V]`.
        last: Tensor,
        /// The same in main memory.
        logits: Vec<f32>,
    },
}

impl Opened {
    /// The model's own logits after one of the tokens: what the sampler draws from.
    #[must_use]
    pub fn final_logits(&self, token: usize) -> &[f32] {
        let (logits, rows) = match &self.kept {
            Kept::Logits { logits, .. } => (logits, self.states),
            Kept::Inputs { logits, .. } => (logits, 1),
        };
        let vocab = logits.len() / (self.tokens * rows).max(1);
        let row = token * rows + rows - 1;
        &logits[row * vocab..(row + 1) * vocab]
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

    /// Read the states of some tokens before it is known what comes next.
    ///
    /// # Errors
    /// If a tensor operation fails, a token is not there, or the forward did not tap its states.
    pub fn open(
        &self,
        decoder: &Decoder,
        traced: &Traced,
        which: impl Into<Which>,
    ) -> Result<Opened> {
        let which = which.into();
        crew::with(|| self.open_all(decoder, traced, &which))
    }

    fn open_all(&self, decoder: &Decoder, traced: &Traced, which: &Which) -> Result<Opened> {
        let group = which.group;
        let gathered = self.gather(decoder, traced, which)?;
        let (tokens, states) = (gathered.tokens, gathered.states);
        let head = decoder.parts();
        if let Some(tiles) = head.tiles() {
            let last = tiles.all(&batched::final_rows(&gathered.inputs, states)?)?;
            return Ok(Opened {
                tokens,
                states,
                group,
                kept: Kept::Inputs {
                    head: tiles.clone(),
                    inputs: gathered.inputs,
                    logits: last.flatten_all()?.to_vec1()?,
                    last,
                },
                vectors: gathered.vectors,
            });
        }
        if !head.is_plain(&gathered.inputs) {
            let logits = head.rest(&gathered.inputs)?.flatten_all()?.to_vec1()?;
            return Ok(self.reduced(tokens, states, group, logits, gathered.vectors));
        }
        let (rows, logits) = head.with_last(|last| {
            with_slice(&gathered.inputs, |x| {
                let mut logits = match self.spare.lock() {
                    Ok(mut spare) => std::mem::take(&mut *spare),
                    Err(_) => Vec::new(),
                };
                logits.resize(tokens * states * last.vocab, 0.0);
                let source = Source::Head(last, x);
                let plan = Plan::new(&self.settings).grouped(group);
                let rows = fused::read(&source, tokens, states, &[], &plan, &mut logits);
                (rows, logits)
            })
        })??;
        Ok(Opened {
            tokens,
            states,
            group,
            kept: Kept::Logits {
                rows: rows.into_iter().map(|(row, _)| row).collect(),
                logits,
            },
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
        self.reduced(tokens, states, 1, logits, vectors)
    }

    fn reduced(
        &self,
        tokens: usize,
        states: usize,
        group: usize,
        logits: Vec<f32>,
        vectors: Vec<f32>,
    ) -> Opened {
        let vocab = logits.len() / (tokens * states).max(1);
        let source = Source::Logits(&logits, vocab);
        let plan = Plan::new(&self.settings).grouped(group);
        let rows = fused::read(&source, tokens, states, &[], &plan, &mut []);
        Opened {
            tokens,
            states,
            group,
            kept: Kept::Logits {
                rows: rows.into_iter().map(|(row, _)| row).collect(),
                logits,
            },
            vectors,
        }
    }

    /// Take back the room of a tile that is done with.
    pub fn close(&self, opened: Opened) {
        if let (Kept::Logits { logits, .. }, Ok(mut spare)) = (opened.kept, self.spare.lock()) {
            *spare = logits;
        }
    }

    /// Read every cell of an opened tile. `targets` names the token that came after each, where one did.
    ///
    /// # Errors
    /// If a tensor operation fails on the device that holds the tile; never for one in main memory.
    pub fn read(&self, opened: &Opened, targets: &[Option<u32>]) -> Result<Vec<Cells>> {
        let (states, vectors) = (opened.states, &opened.vectors);
        match &opened.kept {
            Kept::Logits { rows, logits } => {
                let vocab = logits.len() / rows.len().max(1);
                let target = |row: usize| {
                    let id = targets.get(row / states).copied().flatten()?;
                    let z = &logits[row * vocab..(row + 1) * vocab];
                    let target = *z.get(id as usize)?;
                    let above = z.iter().map(|z| u32::from(*z > target)).sum();
                    Some((target, Some(above)))
                };
                let group = opened.group;
                Ok(crew::with(|| {
                    self.fill(rows, states, group, vocab, vectors, target)
                }))
            }
            Kept::Inputs {
                head, inputs, last, ..
            } => {
                let pass = Batched {
                    tiles: head,
                    last: Some(last),
                };
                let plan = Plan::new(&self.settings).grouped(opened.group);
                let rows = pass.read(inputs, states, targets, &plan)?;
                Ok(self.passed(rows, states, opened.group, head.vocab, vectors))
            }
        }
    }

    /// The cells of some tokens, each with the token that came after it, where one did. No logits are kept: what is needed beyond the cells is some hundred bytes a state and block of the
    /// vocabulary for a few tokens at a time, on devices also the logits of a few tokens' final rows.
    ///
    /// # Errors
    /// If a tensor operation fails, a token is not there, or the forward did not tap its states.
    pub fn cells(
        &self,
        decoder: &Decoder,
        traced: &Traced,
        which: impl Into<Which>,
        targets: &[Option<u32>],
    ) -> Result<Vec<Cells>> {
        let which = which.into();
        crew::with(|| self.all_cells(decoder, traced, &which, targets))
    }

    fn all_cells(
        &self,
        decoder: &Decoder,
        traced: &Traced,
        which: &Which,
        targets: &[Option<u32>],
    ) -> Result<Vec<Cells>> {
        let head = decoder.parts();
        let (states, group) = (traced.states.len(), which.group);
        let at_once = pass::at_once(head, which.tokens.len(), states.max(1), group);
        let mut cells = Vec::with_capacity(which.tokens.len());
        for (i, tokens) in which.tokens.chunks(at_once).enumerate() {
            let targets = targets.get(i * at_once..).unwrap_or_default();
            let some = Which {
                tokens: tokens.to_vec(),
                group,
            };
            let gathered = self.gather(decoder, traced, &some)?;
            cells.extend(match pass::of(head, &gathered.inputs) {
                Some(pass) => {
                    let plan = Plan::new(&self.settings).grouped(group);
                    let rows = pass.read(&gathered.inputs, states, targets, &plan)?;
                    self.passed(rows, states, group, head.vocab(), &gathered.vectors)
                }
                None => self.read(&self.open_all(decoder, traced, &some)?, targets)?,
            });
        }
        Ok(cells)
    }

    /// The cells of what one pass over a head gave.
    fn passed(
        &self,
        rows: Vec<(distribution::Row, Option<f32>)>,
        states: usize,
        group: usize,
        vocab: usize,
        vectors: &[f32],
    ) -> Vec<Cells> {
        let (rows, wanted): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let target = |row: usize| wanted[row].map(|z| (z, None));
        self.fill(&rows, states, group, vocab, vectors, target)
    }

    /// Final norm of all states of some tokens, token by token, as the head reads it.
    fn gather(&self, decoder: &Decoder, traced: &Traced, which: &Which) -> Result<Gathered> {
        let d = decoder.config().d_model;
        let (tokens, states) = (which.tokens.len(), traced.states.len());
        let there = traced.last.dim(0)?;
        if states == 0 {
            let problem = "states are to be read of a forward pass that kept none";
            return Err(candle_core::Error::Msg(problem.into()).into());
        }
        if let Some(token) = which.tokens.iter().find(|token| **token >= there) {
            let problem = format!("token {token} of {there} is to be read");
            return Err(candle_core::Error::Msg(problem).into());
        }
        let place = decoder.placement().last();
        let rows = match place.backend {
            Backend::Kernels => {
                let mut vectors = vec![0.0; tokens * states * d];
                for (layer, h) in traced.states.iter().enumerate() {
                    with_slice(h, |h| {
                        for (i, token) in which.tokens.iter().enumerate() {
                            let row = i * states + layer;
                            let h = &h[token * d..(token + 1) * d];
                            vectors[row * d..(row + 1) * d].copy_from_slice(h);
                        }
                    })?;
                }
                Tensor::from_vec(vectors, (tokens * states, d), &place.device)?
            }
            Backend::Tensors => {
                let ids: Vec<u32> = which.tokens.iter().map(|token| *token as u32).collect();
                let near = |h: &Tensor| {
                    let ids = Tensor::from_slice(&ids, tokens, h.device())?;
                    place.bring(&h.index_select(&ids, 0)?)
                };
                let states: Vec<Tensor> =
                    traced.states.iter().map(near).collect::<Result<_, _>>()?;
                Tensor::stack(&states, 1)?.flatten_to(1)?
            }
        };
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
            // Small beside the logits: sparsity is computed in main memory for every device.
            vectors: vectors.flatten_all()?.to_vec1()?,
        })
    }

    /// Cells of reduced rows `[tokens][states]` and their vectors `[tokens][states][d]`; `target` gives a row's target and
    /// how many logits are above it.
    fn fill(
        &self,
        rows: &[distribution::Row],
        states: usize,
        group: usize,
        vocab: usize,
        vectors: &[f32],
        target: impl Fn(usize) -> Option<(f32, Option<u32>)> + Sync,
    ) -> Vec<Cells> {
        let d = vectors.len() / rows.len().max(1);
        let metrics = self.schema.len();
        let filled: Vec<(Vec<f32>, Vec<Candidate>)> = crew::map(rows.len(), |row| {
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
        });
        let divergence = |first: usize| {
            let of = |row: usize| {
                let twin = distribution::twin(row, states, group).and_then(|twin| rows.get(twin));
                distribution::divergence(&rows[row], twin)
            };
            (first..first + states).map(of).collect::<Option<_>>()
        };
        filled
            .chunks(states)
            .enumerate()
            .map(|(token, rows)| Cells {
                divergence: divergence(token * states),
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
