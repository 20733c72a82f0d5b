//! The traced forward pass: one for inference, training and tests, configured by [`DecoderConfig`].
//!
//! ```text
//! tokens ─ embed (+ positions) ─ state 0 ─ block 1 ─ state 1 ─ … ─ block L ─ state L ─ final norm ─ head ─ logits
//! ```
//! The residual states are what the lens reads. A set of [`Taps`] says what to keep; with none set nothing extra runs.
//! BERT, an encoder, goes the same way: its blocks see in both directions and its states are normed already.

use super::backend::Backend;
use super::cache::State;
use super::config::DecoderConfig;
use super::crew;
use super::device::Placement;
use super::families::bert;
use super::head::Head;
use super::intervention::{self, Intervention};
use super::layers::{Block, NormLayer, Pass, Span};
use super::linear::{Embedding, Linear};
use super::ops::{Angles, Sight};
use super::weights::{Loader, Loading, TensorSource};
use crate::error::Result;
use crate::pages;
use candle_core::{Device, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// Tokens read at once when a branch's memory must be filled again.
const REREAD: usize = 256;

/// One branch's part of a forward pass: tokens to read after what its state has read before.
pub struct Row<'a> {
    /// The tokens to read.
    pub tokens: &'a [u32],
    /// The branch's memory, which grows by these tokens; `None` reads them from position 0 and keeps nothing.
    pub state: Option<&'a mut State>,
    /// What to change in the states of this row.
    pub interventions: &'a [Intervention],
}

impl<'a> Row<'a> {
    /// Tokens to read, nothing changed.
    pub fn new(tokens: &'a [u32], state: Option<&'a mut State>) -> Self {
        Self {
            tokens,
            state,
            interventions: &[],
        }
    }

    /// The same with interventions.
    #[must_use]
    pub fn steered(mut self, interventions: &'a [Intervention]) -> Self {
        self.interventions = interventions;
        self
    }
}

/// What to keep of a forward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taps {
    /// The L + 1 residual states of every token.
    pub states: bool,
    /// The attention probabilities of every block that has them.
    pub attention: bool,
}

/// What a forward pass leaves.
#[derive(Debug)]
pub struct Traced {
    /// State L of every token, `[tokens of all rows, d_model]`.
    pub last: Tensor,
    /// All L + 1 states, each `[tokens of all rows, d_model]` where it was computed; empty unless tapped.
    pub states: Vec<Tensor>,
    /// Per block its attention, `None` for blocks without; empty unless tapped.
    pub attention: Vec<Option<BlockAttention>>,
}

/// The attention probabilities of one block.
#[derive(Debug)]
pub struct BlockAttention {
    /// For each row `[heads, tokens, keys]` in main memory; keys that a token does not see have exactly 0.
    pub rows: Vec<Tensor>,
    /// Which keys a token sees.
    pub sight: Sight,
}

/// A language model with its weights.
#[derive(Debug)]
pub struct Decoder {
    config: DecoderConfig,
    placement: Placement,
    embedding: Embedding,
    projection: Option<Linear>,
    positions: Option<Tensor>,
    embedding_norm: Option<NormLayer>,
    blocks: Vec<Box<dyn Block>>,
    final_norm: Option<NormLayer>,
    head: Head,
    parameters: u64,
    bytes: u64,
    unread: Vec<String>,
}

impl Decoder {
    /// Build the decoder from a checkpoint on one device, checking every tensor's shape against the configuration.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape than the configuration says or holds no finite numbers, or if there
    /// are tensors of blocks that the configuration does not have; the sentence names it.
    pub fn load(config: DecoderConfig, source: &dyn TensorSource, device: &Device) -> Result<Self> {
        Self::load_as(config, source, &Placement::on(device), &Loading::default())
    }

    /// [`Decoder::load`], every part where `placement` has it, telling `loading` how far it is.
    ///
    /// # Errors
    /// As [`Decoder::load`], or [`crate::Error::Interrupted`] if `loading` says so.
    pub fn load_as(
        config: DecoderConfig,
        source: &dyn TensorSource,
        placement: &Placement,
        loading: &Loading<'_>,
    ) -> Result<Self> {
        let c = &config;
        let names = c.family.names();
        let loader = Loader::new(source, placement, names, loading)?;
        let outer = |name: &str| format!("{}{name}", loader.prefix());
        let width = c.embedding_width.unwrap_or(c.d_model);
        let embed = format!("{}.weight", outer(names.embedding));
        let embedding = loader.stored(&embed, &[c.embedded, width])?;
        let mut embedding = Embedding::new(embedding)?.on(loader.place())?;
        let kernels = |loader: &Loader<'_>| loader.place().backend == Backend::Kernels;
        if c.tied && kernels(&loader) && kernels(&loader.of_end()) {
            let before = embedding.bytes();
            embedding = embedding.in_panels()?;
            loader.holds(&embed, before, embedding.bytes());
        }
        let projection = c
            .embedding_width
            .map(|width| loader.linear(&outer("project_in"), c.d_model, width, false))
            .transpose()?;
        let positions = match c.positions {
            None => None,
            Some(learned) => {
                let name = format!("{}.weight", outer(names.positions));
                let table = loader.tensor(&name, &[learned.rows, c.d_model])?;
                Some(match c.causal {
                    true => table,
                    false => bert::with_token_type(&loader, c, &table)?,
                })
            }
        };
        let norm = |loader: &Loader<'_>, norm: Option<_>, name: &str| {
            norm.map(|norm| NormLayer::load(loader, &outer(name), c.d_model, norm))
                .transpose()
        };
        let embedding_norm = norm(&loader, c.embedding_norm, names.embedding_norm)?;
        let blocks = c.body.load(c, &loader)?;
        let end = loader.of_end();
        let final_norm = norm(&end, c.final_norm, names.final_norm)?;
        let head = Head::load(&end, c, &embedding)?;
        let unread = loader.finish(c)?;
        let (parameters, bytes) = loader.size();
        pages::give_back();
        Ok(Self {
            embedding,
            placement: placement.clone(),
            projection,
            positions,
            embedding_norm,
            blocks,
            final_norm,
            head,
            parameters,
            bytes,
            unread,
            config,
        })
    }

    /// What the decoder was built from.
    #[must_use]
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Where text enters.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.placement.first().device
    }

    /// Where its parts are.
    #[must_use]
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Number of weights (a tied head counted once) and the bytes they take in memory.
    #[must_use]
    pub fn size(&self) -> (u64, u64) {
        (self.parameters, self.bytes)
    }

    /// Bytes of them that are the table of the tokens' vectors.
    #[must_use]
    pub fn embedding_bytes(&self) -> u64 {
        self.embedding.bytes()
    }

    /// Tensors of the checkpoint that are no part of the language model, such as an image tower.
    #[must_use]
    pub fn unread(&self) -> &[String] {
        &self.unread
    }

    /// A fresh memory for one branch.
    #[must_use]
    pub fn state(&self) -> State {
        State::new(self.config.blocks())
    }

    /// Read the tokens of all rows. The weights are read once for all of them, and a row's result depends on its own
    /// tokens, state and interventions alone.
    ///
    /// # Errors
    /// If a row is empty, a token id is outside the embedding, a position has no learned vector, or a model that sees
    /// in both directions is asked to remember.
    pub fn forward(&self, rows: &mut [Row<'_>], taps: Taps) -> candle_core::Result<Traced> {
        for row in rows.iter_mut() {
            if let Some(state) = row.state.as_deref_mut() {
                self.catch_up(state, row.tokens.len())?;
            }
        }
        // On a thread of the pool, so that a product is not handed over and waited for, several times a block.
        let traced = crew::with(|| self.read(rows, taps));
        if traced.is_err() {
            for row in rows.iter_mut() {
                if let Some(state) = row.state.as_deref_mut() {
                    // Some blocks may have read what others have not.
                    state.forget();
                }
            }
        }
        traced
    }

    /// Read again what a memory has let go of, under the interventions that were in force then.
    fn catch_up(&self, state: &mut State, new: usize) -> candle_core::Result<()> {
        let long = self.config.is_long(state.horizon(new));
        if state.long != long {
            state.forget();
            state.long = long;
        }
        while let Some((tokens, interventions)) = state.owed(REREAD) {
            let row = Row::new(&tokens, Some(&mut *state)).steered(&interventions);
            if let Err(error) = crew::with(|| self.read(&mut [row], Taps::default())) {
                state.forget();
                return Err(error);
            }
        }
        Ok(())
    }

    fn read(&self, rows: &mut [Row<'_>], taps: Taps) -> candle_core::Result<Traced> {
        let c = &self.config;
        let spans: Vec<Span> = spans(rows);
        for (row, span) in rows.iter().zip(&spans) {
            if let Some(id) = row.tokens.iter().find(|id| **id as usize >= c.embedded) {
                candle_core::bail!("token id {id} is outside the vocabulary of {}", c.vocab);
            }
            for one in row.interventions {
                one.check(c.blocks(), c.d_model)?;
            }
            if row.tokens.is_empty() {
                candle_core::bail!("a row has no tokens to read");
            }
            if row.state.is_some() && !c.causal {
                candle_core::bail!("a model that sees in both directions reads whole texts");
            }
            if let Some(learned) = c.positions
                && span.past + span.len + learned.offset > learned.rows
            {
                candle_core::bail!(
                    "position {} has no learned vector",
                    span.past + span.len - 1
                );
            }
        }
        let h = self.embed(rows, &spans)?;
        let mut h = intervention::apply(h, None, 0, rows, &spans)?;
        let mut embedded = h.clone();
        let long: Vec<bool> = rows
            .iter()
            .zip(&spans)
            .map(|(row, span)| match &row.state {
                Some(state) => state.long,
                None => c.is_long(span.len),
            })
            .collect();
        let mut angles: Vec<Vec<Angles>> = c
            .rotaries()
            .iter()
            .map(|rotary| {
                let rows = spans.iter().zip(&long);
                rows.map(|(s, long)| {
                    Angles::new(
                        rotary.frequencies_for(*long),
                        rotary.magnitude,
                        s.past..s.past + s.len,
                    )
                })
                .collect()
            })
            .collect();
        let mut states = Vec::new();
        let mut attention = Vec::new();
        let mut here = None;
        for (i, block) in self.blocks.iter().enumerate() {
            if taps.states {
                states.push(h.clone());
            }
            let place = self.placement.of_block(i, c.blocks());
            if here != Some(place) {
                here = Some(place);
                let place = self.placement.place(place);
                h = place.bring(&h)?;
                embedded = place.bring(&embedded)?;
                if place.backend == Backend::Tensors {
                    for angles in angles.iter_mut().flatten() {
                        *angles = angles.on(&place.device)?;
                    }
                }
            }
            let mut pass = Pass {
                rows: &mut *rows,
                spans: &spans,
                block: i,
                angles: &angles,
                embedded: &embedded,
                taps,
                attention: Vec::new(),
            };
            let out = block.forward(&h, &mut pass)?;
            if taps.attention {
                let kept = pass.attention.iter().map(|p| p.to_device(&Device::Cpu));
                let kept = kept.collect::<candle_core::Result<_>>()?;
                let kind = c.layers[i];
                attention.push(kind.attends().then(|| BlockAttention {
                    rows: kept,
                    sight: Sight {
                        window: kind.window(),
                        causal: c.causal,
                    },
                }));
            }
            h = intervention::apply(out, Some(&h), i + 1, rows, &spans)?;
        }
        if taps.states {
            states.push(h.clone());
        }
        for row in rows.iter_mut() {
            if let Some(state) = &mut row.state {
                state.advance(row.tokens, row.interventions);
            }
        }
        Ok(Traced {
            last: h,
            states,
            attention,
        })
    }

    /// The final norm of states `[rows, d_model]` from any place, computed afresh for each row; the states themselves
    /// where the model has none.
    ///
    /// # Errors
    /// If the shape does not fit.
    pub fn final_norm(&self, states: &Tensor) -> candle_core::Result<Tensor> {
        let states = self.placement.last().bring(states)?;
        match &self.final_norm {
            Some(norm) => norm.forward(&states),
            None => Ok(states),
        }
    }

    /// The head on normed states `[rows, d_model]`, giving logits `[rows, V]`, capped where the model caps its own.
    ///
    /// # Errors
    /// If the shape does not fit.
    pub fn head(&self, normed: &Tensor) -> candle_core::Result<Tensor> {
        crew::with(|| self.head.forward(normed))
    }

    /// The head in its parts.
    pub(crate) fn parts(&self) -> &Head {
        &self.head
    }

    fn embed(&self, rows: &[Row<'_>], spans: &[Span]) -> candle_core::Result<Tensor> {
        let ids: Vec<u32> = rows.iter().flat_map(|r| r.tokens.iter().copied()).collect();
        let mut h = self.embedding.rows(&ids)?;
        if let Some(scale) = self.config.embedding_scale {
            h = (h * scale)?;
        }
        if let Some(projection) = &self.projection {
            h = projection.forward(&h)?;
        }
        if let (Some(table), Some(learned)) = (&self.positions, self.config.positions) {
            let at: Vec<u32> = spans
                .iter()
                .flat_map(|s| (s.past..s.past + s.len).map(|p| (p + learned.offset) as u32))
                .collect();
            h = (h + table.index_select(&Tensor::new(at, self.device())?, 0)?)?;
        }
        match &self.embedding_norm {
            Some(norm) => norm.forward(&h),
            None => Ok(h),
        }
    }
}

fn spans(rows: &[Row<'_>]) -> Vec<Span> {
    let mut first = 0;
    rows.iter()
        .map(|row| {
            let span = Span {
                first,
                len: row.tokens.len(),
                past: row.state.as_ref().map_or(0, |s| s.held()),
            };
            first += span.len;
            span
        })
        .collect()
}

impl Angles {
    /// Cosines and sines of `positions`, times `magnitude`.
    fn new(frequencies: &[f64], magnitude: f64, positions: Range<usize>) -> Self {
        let pairs = frequencies.len();
        let mut cos = Vec::with_capacity(positions.len() * pairs);
        let mut sin = Vec::with_capacity(positions.len() * pairs);
        for position in positions {
            for frequency in frequencies {
                let angle = position as f64 * frequency;
                cos.push((angle.cos() * magnitude) as f32);
                sin.push((angle.sin() * magnitude) as f32);
            }
        }
        Self {
            cos: Arc::new(cos),
            sin: Arc::new(sin),
            pairs,
            tensors: None,
        }
    }
}
