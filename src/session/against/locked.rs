//! B reads the text that A draws, so that their cells compare one to one.

use super::super::compare::token;
use super::super::generation::{chunk, nothing_to_draw};
use super::super::protocol::{Event, Finish, Job};
use super::same_text;
use crate::error::Result;
use crate::lens::{Lens, Opened, attention};
use crate::model::cache::State;
use crate::model::decoder::{Row, Taps, Traced};
use crate::model::{Model, Sampler, Sampling};
use crate::trace::{Attention, Cells, Kind, Side};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Logits of both models that are held at once while a prompt is read, in bytes; those of one token always are.
const LOGITS: usize = 32 << 20;

/// Two models that read one text.
pub(super) struct Locked {
    job: Job,
    /// One each, as the room that a lens keeps is of its model's size.
    lenses: [Lens; 2],
    states: [State; 2],
    sampler: Sampler,
    tokens: Vec<u32>,
    prompt: usize,
    limit: usize,
    /// Whether anything is drawn; masked models only read.
    generates: bool,
    /// The last token, read by both, whose cells still miss what came next.
    pending: Option<Pending>,
    /// Why it ends once the last token has been read.
    closing: Option<Finish>,
    ended: Option<Finish>,
    started: Instant,
}

struct Pending {
    opened: [Opened; 2],
    attention: [Option<Attention>; 2],
}

impl Locked {
    pub(super) fn start(
        a: &Model,
        b: &Model,
        job: Job,
        emit: &mut dyn FnMut(Side, Event),
    ) -> Result<Self> {
        job.sampling.validate()?;
        let tokens = same_text(a, b, &job.prompt)?;
        let lenses = [(), ()].map(|()| Lens::new(job.lens.clone()));
        let limit = if a.card().causal {
            job.max_new_tokens
        } else {
            0
        };
        for (side, model) in [(Side::A, a), (Side::B, b)] {
            emit(
                side,
                Event::Started {
                    schema: Arc::clone(lenses[side as usize].schema()),
                    prompt_tokens: tokens.len(),
                    max_new_tokens: limit,
                },
            );
            for id in &tokens {
                emit(side, Event::Token(token(model, *id, Kind::Prompt, 0.0)));
            }
        }
        let states = [a, b].map(|model| {
            let mut state = model.decoder().state();
            // Read in chunks as if at once.
            state.announce(tokens.len());
            state
        });
        Ok(Self {
            sampler: Sampler::new(job.sampling.clone()),
            prompt: tokens.len(),
            closing: (limit == 0).then_some(Finish::Length),
            job,
            lenses,
            states,
            tokens,
            limit,
            generates: a.card().causal,
            pending: None,
            ended: None,
            started: Instant::now(),
        })
    }

    pub(super) fn advance(
        &mut self,
        models: [&Model; 2],
        emit: &mut dyn FnMut(Side, Event),
    ) -> Result<Option<[Finish; 2]>> {
        if self.ended.is_none() {
            match self.pending.take() {
                Some(pending) => self.draw(models, pending, emit)?,
                None => self.read(models, emit)?,
            }
        }
        Ok(self.ended.map(|why| [why; 2]))
    }

    pub(super) fn extend(&mut self, more: usize) {
        // A text that has been read to its end has nothing pending to draw from: it stays ended.
        let open = self.pending.is_some() || self.states[0].len() < self.tokens.len();
        if self.generates && open {
            self.limit = (self.tokens.len() - self.prompt).saturating_add(more);
            self.closing = (more == 0).then_some(Finish::Length);
            self.ended = None;
        }
    }

    pub(super) fn set_sampling(&mut self, sampling: &Sampling) {
        self.job.sampling = sampling.clone();
        self.sampler.set(sampling.clone());
    }

    pub(super) fn stop(&mut self, emit: &mut dyn FnMut(Side, Event)) -> [Finish; 2] {
        self.pending = None;
        let why = self.ended.unwrap_or(Finish::Stopped);
        if self.ended.is_none() {
            self.end(why, emit);
        }
        [why; 2]
    }

    fn end(&mut self, why: Finish, emit: &mut dyn FnMut(Side, Event)) {
        self.ended = Some(why);
        for side in Side::BOTH {
            emit(side, Event::Finished(why));
        }
    }

    /// Let both read what they have not read.
    fn read(&mut self, models: [&Model; 2], emit: &mut dyn FnMut(Side, Event)) -> Result<()> {
        let causal = models[0].card().causal;
        let (from, len) = (self.states[0].len(), self.tokens.len());
        let most = models.map(|model| chunk(model, 1, self.job.attention, from));
        let to = match causal {
            true => len.min(from + most[0].min(most[1])),
            false => len,
        };
        let taps = Taps {
            states: true,
            attention: self.job.attention,
        };
        let mut traced = Vec::with_capacity(2);
        for (model, state) in models.iter().zip(&mut self.states) {
            let mut rows = [Row::new(&self.tokens[from..to], causal.then_some(state))];
            traced.push(model.decoder().forward(&mut rows, taps)?);
        }
        // The last token of a text waits for what comes next; all others are of the prompt and know it.
        let complete = match causal {
            true => to.min(len - 1) - from,
            false => to,
        };
        let logits = models.map(|model| 4 * (model.card().blocks + 1) * model.card().vocab);
        let at_once = (LOGITS / (logits[0] + logits[1]).max(1)).max(1);
        for first in (0..complete).step_by(at_once) {
            let span = first..complete.min(first + at_once);
            let opened = self.open(models, &traced, span.clone())?;
            let next = |i: usize| self.tokens.get(from + i + 1).copied().filter(|_| causal);
            let targets: Vec<Option<u32>> = span.clone().map(next).collect();
            let cells = self.cells(&opened, &targets)?;
            for (side, cells) in Side::BOTH.into_iter().zip(cells) {
                for (at, mut cells) in span.clone().zip(cells) {
                    cells.attention = self.attention(&traced[side as usize], at, from + at)?;
                    emit_cells(side, from + at, cells, emit);
                }
            }
            self.close(opened);
        }
        if !causal {
            self.end(Finish::Read, emit);
        } else if to == len {
            let last = to - from - 1;
            let attention = |side: Side| self.attention(&traced[side as usize], last, len - 1);
            self.pending = Some(Pending {
                attention: [attention(Side::A)?, attention(Side::B)?],
                opened: self.open(models, &traced, last..last + 1)?,
            });
        }
        Ok(())
    }

    /// The tokens `span` of a chunk, opened by both lenses.
    fn open(
        &self,
        models: [&Model; 2],
        traced: &[Traced],
        span: Range<usize>,
    ) -> Result<[Opened; 2]> {
        let one = |side: Side| {
            let (model, traced) = (models[side as usize], &traced[side as usize]);
            let lens = &self.lenses[side as usize];
            lens.open(model.decoder(), traced, span.clone())
        };
        Ok([one(Side::A)?, one(Side::B)?])
    }

    fn attention(&self, traced: &Traced, at: usize, position: usize) -> Result<Option<Attention>> {
        match self.job.attention {
            true => {
                let keep = self.job.attention_rows;
                Ok(attention::read(traced, 0, at, position, keep)?)
            }
            false => Ok(None),
        }
    }

    /// The cells of both models; those of B know how far they are from those of A, where there are equally many.
    fn cells(&self, [a, b]: &[Opened; 2], next: &[Option<u32>]) -> Result<[Vec<Cells>; 2]> {
        let of_a = self.lenses[0].read(a, next)?;
        let mut of_b = self.lenses[1].read(b, next)?;
        let divergences = self.lenses[0].divergences(a, b)?;
        for (cells, divergence) in of_b.iter_mut().zip(divergences.into_iter().flatten()) {
            cells.divergence = Some(divergence);
        }
        Ok([of_a, of_b])
    }

    fn close(&self, opened: [Opened; 2]) {
        for (lens, opened) in self.lenses.iter().zip(opened) {
            lens.close(opened);
        }
    }

    /// Draw the next token from A's own logits.
    fn draw(
        &mut self,
        models: [&Model; 2],
        pending: Pending,
        emit: &mut dyn FnMut(Side, Event),
    ) -> Result<()> {
        let position = self.tokens.len() - 1;
        let next = match self.closing {
            Some(_) => None,
            None => {
                let logits = pending.opened[0].final_logits(0);
                self.sampler.draw(logits, &self.tokens)
            }
        };
        let cells = self.cells(&pending.opened, &[next])?;
        for ((side, cells), attention) in Side::BOTH.into_iter().zip(cells).zip(pending.attention) {
            for mut cells in cells {
                cells.attention.clone_from(&attention);
                emit_cells(side, position, cells, emit);
            }
        }
        self.close(pending.opened);
        let id = match (self.closing, next) {
            (Some(why), _) => {
                self.end(why, emit);
                return Ok(());
            }
            (None, Some(id)) => id,
            (None, None) => return Err(nothing_to_draw(position)),
        };
        self.tokens.push(id);
        let seconds = self.started.elapsed().as_secs_f64();
        for (side, model) in Side::BOTH.into_iter().zip(models) {
            let token = token(model, id, Kind::Generated, seconds);
            emit(side, Event::Token(token));
        }
        let len = self.tokens.len();
        let limits = models.map(|model| model.card().limit());
        let fits = limits.into_iter().flatten().all(|limit| len <= limit);
        let why = if models[0].eos().contains(&id) && !self.job.ignore_eos {
            Finish::EndOfText
        } else if len - self.prompt >= self.limit {
            Finish::Length
        } else if !fits {
            Finish::ContextFull
        } else {
            return Ok(());
        };
        match self.job.read_last && fits {
            true => self.closing = Some(why),
            false => self.end(why, emit),
        }
        Ok(())
    }
}

fn emit_cells(side: Side, position: usize, cells: Cells, emit: &mut dyn FnMut(Side, Event)) {
    let cells = Arc::new(cells);
    emit(side, Event::Cells { position, cells });
}
