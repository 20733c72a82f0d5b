//! One run, step by step: read the prompt in chunks, then draw, emit and read token after token.
//!
//! After every step each token but the last drawn one has been read and its cells are complete (they know what came
//! next) or owed ([`Fill::Between`]), so a run can pause, stop or end anywhere.

use super::protocol::{Event, Fill, Finish, Job, Prompt, Speed};
use crate::error::{Error, Result};
use crate::lens::{Lens, Opened, attention};
use crate::model::cache::State;
use crate::model::config::LayerKind;
use crate::model::decoder::{Row, Taps, Traced};
use crate::model::{Intervention, Model, Sampler, Sampling};
use crate::trace::{Attention, Cells, Kind, Token};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Most prompt tokens that are read at once.
pub(super) const CHUNK: usize = 128;
/// Multiplications and additions of a chunk: a stop takes effect after about a second at most, and a chunk of a model that
/// takes longer still has a few rows for every weight that is read.
const WORK: usize = 150_000_000_000;
/// While cells on the screen are owed, so many tokens are drawn between two chunks of them.
const BETWEEN: usize = 4;
/// Attention probabilities held at once, in bytes.
const ATTENTION_BYTES: usize = 128 << 20;
/// Tokens over which the rate is measured.
const WINDOW: usize = 32;

/// A run in progress.
pub struct Generation {
    job: Job,
    lens: Lens,
    sampler: Sampler,
    state: State,
    interventions: Vec<Intervention>,
    tokens: Vec<u32>,
    prompt: usize,
    limit: usize,
    /// Whether the model predicts what comes next.
    generates: bool,
    /// The last token read, whose cells still miss what came next.
    pending: Option<Pending>,
    /// Chunks of the prompt that were read without their cells, in order.
    owed: Vec<Range<usize>>,
    /// What is on the screen.
    look: Range<usize>,
    /// Tokens drawn since a chunk of owed cells was read.
    since: usize,
    /// Why the run ends, once all cells are there.
    ended: Option<Finish>,
    started: Instant,
    drawn: VecDeque<Instant>,
    speed: Speed,
}

struct Pending {
    opened: Opened,
    attention: Option<Attention>,
}

impl Generation {
    /// Tokenize the prompt and announce the run.
    ///
    /// # Errors
    /// If the prompt is empty or longer than the context, the settings make no sense, or the model cannot generate.
    pub fn start(model: &Model, job: Job, emit: &mut dyn FnMut(Event)) -> Result<Self> {
        job.sampling.validate()?;
        let tokens = tokenize(model, &job.prompt)?;
        let lens = Lens::new(job.lens.clone());
        let mut state = model.decoder().state();
        // Read in chunks as if at once.
        state.announce(tokens.len());
        let generation = Self {
            sampler: Sampler::new(job.sampling.clone()),
            state,
            interventions: job.steering.interventions(tokens.len()),
            prompt: tokens.len(),
            // A masked language model says what stands at each place, not what comes next.
            limit: if model.card().causal {
                job.max_new_tokens
            } else {
                0
            },
            generates: model.card().causal,
            pending: None,
            owed: Vec::new(),
            look: 0..0,
            since: 0,
            ended: None,
            started: Instant::now(),
            drawn: VecDeque::new(),
            speed: Speed::default(),
            tokens,
            lens,
            job,
        };
        emit(Event::Started {
            schema: generation.lens.schema().clone(),
            prompt_tokens: generation.prompt,
            max_new_tokens: generation.limit,
        });
        for id in &generation.tokens {
            emit(Event::Token(Token {
                id: *id,
                bytes: model.tokenizer().bytes(*id),
                kind: Kind::Prompt,
                seconds: 0.0,
            }));
        }
        Ok(generation)
    }

    /// Allow this many more tokens, if the model generates.
    pub fn extend(&mut self, more: usize) {
        if !self.generates {
            return;
        }
        self.limit = (self.tokens.len() - self.prompt).saturating_add(more);
        self.ended = None;
    }

    /// Read the cells of these positions first, where some are still owed.
    pub fn look(&mut self, positions: Range<usize>) {
        self.look = positions;
    }

    /// Draw differently from the next token on.
    pub fn set_sampling(&mut self, sampling: Sampling) {
        self.job.sampling = sampling.clone();
        self.sampler.set(sampling);
    }

    /// Tokens drawn so far.
    #[must_use]
    pub fn drawn(&self) -> usize {
        self.tokens.len() - self.prompt
    }

    /// Read one chunk of the prompt, or draw one token. `Some` once the run has ended.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn advance(
        &mut self,
        model: &Model,
        emit: &mut dyn FnMut(Event),
    ) -> Result<Option<Finish>> {
        if self.since >= BETWEEN && self.owed.iter().any(|owed| overlap(owed, &self.look)) {
            self.fill(model, emit)?;
            return Ok(None);
        }
        if self.ended.is_none() {
            self.ended = self.go_on(model, emit)?;
        }
        if self.ended.is_some() && self.owes() {
            self.fill(model, emit)?;
            return Ok(None);
        }
        Ok(self.ended.take())
    }

    /// Whether cells of the prompt are still to be read.
    #[must_use]
    pub fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    fn go_on(&mut self, model: &Model, emit: &mut dyn FnMut(Event)) -> Result<Option<Finish>> {
        if !self.generates {
            self.read(model, emit)?;
            return Ok(Some(Finish::Read));
        }
        if self.drawn() >= self.limit && self.limit > 0 {
            return self.finish(model, Finish::Length, emit).map(Some);
        }
        if self.pending.is_none() {
            if !self.fits(model) {
                return Ok(Some(Finish::ContextFull));
            }
            self.read(model, emit)?;
            if self.pending.is_none() {
                return Ok(None);
            }
        }
        if self.limit == 0 {
            // Kept for a later continuation, which will know what came next.
            let pending = self.pending.take();
            if let Some(pending) = &pending {
                self.emit_cells(pending, self.tokens.len() - 1, None, emit)?;
            }
            self.pending = pending;
            return Ok(Some(Finish::Length));
        }
        self.draw(model, emit)
    }

    /// What cells are labelled with: whether the states were pushed.
    fn plan(&self) -> u32 {
        u32::from(!self.interventions.is_empty())
    }

    /// Whether the model can read the text so far.
    fn fits(&self, model: &Model) -> bool {
        let limit = model.card().limit();
        limit.is_none_or(|limit| self.tokens.len() <= limit)
    }

    /// Read what has not been read: a chunk of the prompt, or the token drawn last.
    fn read(&mut self, model: &Model, emit: &mut dyn FnMut(Event)) -> Result<()> {
        if self.state.len() == self.tokens.len() {
            // An error came between reading the last token and drawing: read it again.
            self.state.truncate(self.tokens.len() - 1);
        }
        let from = self.state.len();
        let read = self.read_chunk(model, from, emit);
        if read.is_err() && self.generates {
            // The memory may be ahead of the cells.
            self.state.truncate(from);
            self.state.announce(self.tokens.len());
        }
        read
    }

    fn read_chunk(
        &mut self,
        model: &Model,
        from: usize,
        emit: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let to = match self.generates {
            true => self
                .tokens
                .len()
                .min(from + chunk(model, 1, self.job.attention, from)),
            false => self.tokens.len(),
        };
        let causal = self.generates;
        let late = self.job.fill == Fill::Between && to < self.tokens.len() && rewinds(model);
        let taps = match late {
            true => Taps::default(),
            false => self.taps(),
        };
        let memory = causal.then_some(&mut self.state);
        let row = Row::new(&self.tokens[from..to], memory);
        let mut rows = [row.steered(&self.interventions)];
        let traced = model.decoder().forward(&mut rows, taps)?;
        if late {
            self.owed.push(from..to);
            return Ok(());
        }
        let began = Instant::now();
        // The last token of the text waits for what comes next; all others know it.
        let complete = match causal {
            true => to.min(self.tokens.len() - 1),
            false => to,
        };
        self.emit_read(model, &traced, from, complete, emit)?;
        if causal && to == self.tokens.len() {
            let last = to - from - 1;
            self.pending = Some(Pending {
                opened: self.lens.open(model.decoder(), &traced, last..last + 1)?,
                attention: self.attention_of(&traced, from, to - 1)?,
            });
        }
        if to - from == 1 {
            self.speed.lens_ms = began.elapsed().as_secs_f64() * 1e3;
        }
        Ok(())
    }

    fn taps(&self) -> Taps {
        Taps {
            states: true,
            attention: self.job.attention,
        }
    }

    /// Read a chunk once more for its cells, one on the screen if there is any, else the newest: from a memory as it was
    /// before, so that they are what they would have been.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn fill(&mut self, model: &Model, emit: &mut dyn FnMut(Event)) -> Result<()> {
        let seen = |owed: &Range<usize>| overlap(owed, &self.look);
        let newest = self.owed.len().checked_sub(1);
        let Some(owed) = self.owed.iter().rposition(seen).or(newest) else {
            return Ok(());
        };
        let Range { start, end } = self.owed[owed].clone();
        let mut before = self.state.fork()?;
        before.truncate(start);
        before.announce(self.prompt);
        let row = Row::new(&self.tokens[start..end], Some(&mut before));
        let mut rows = [row.steered(&self.interventions)];
        let traced = model.decoder().forward(&mut rows, self.taps())?;
        self.emit_read(model, &traced, start, end, emit)?;
        self.owed.remove(owed);
        self.since = 0;
        Ok(())
    }

    /// The attention statistics at `position` of a forward that began at `from`, where they were asked for.
    fn attention_of(
        &self,
        traced: &Traced,
        from: usize,
        position: usize,
    ) -> Result<Option<Attention>> {
        if !self.job.attention {
            return Ok(None);
        }
        let keep = self.job.attention_rows;
        Ok(attention::read(traced, 0, position - from, position, keep)?)
    }

    /// The cells of the positions `from..to`, at the first of which the forward began.
    fn emit_read(
        &self,
        model: &Model,
        traced: &Traced,
        from: usize,
        to: usize,
        emit: &mut dyn FnMut(Event),
    ) -> Result<()> {
        if to == from {
            return Ok(());
        }
        let targets: Vec<Option<u32>> = (from..to)
            .map(|i| self.tokens.get(i + 1).copied().filter(|_| self.generates))
            .collect();
        let cells = self
            .lens
            .cells(model.decoder(), traced, 0..to - from, &targets)?;
        for (position, mut cells) in (from..).zip(cells) {
            cells.attention = self.attention_of(traced, from, position)?;
            cells.plan = self.plan();
            emit(Event::Cells {
                position,
                cells: Arc::new(cells),
            });
        }
        Ok(())
    }

    /// Draw the next token from the pending one's own logits.
    fn draw(&mut self, model: &Model, emit: &mut dyn FnMut(Event)) -> Result<Option<Finish>> {
        let Some(pending) = self.pending.take() else {
            return Ok(None);
        };
        let drawn = self
            .sampler
            .draw(pending.opened.final_logits(0), &self.tokens);
        let position = self.tokens.len() - 1;
        let began = Instant::now();
        self.emit_cells(&pending, position, drawn, emit)?;
        self.speed.lens_ms += began.elapsed().as_secs_f64() * 1e3;
        let Some(id) = drawn else {
            self.pending = Some(pending);
            return Err(nothing_to_draw(position));
        };
        self.lens.close(pending.opened);
        self.tokens.push(id);
        self.since += 1;
        emit(Event::Token(Token {
            id,
            bytes: model.tokenizer().bytes(id),
            kind: Kind::Generated,
            seconds: self.started.elapsed().as_secs_f64(),
        }));
        self.measure(emit);
        if model.eos().contains(&id) && !self.job.ignore_eos {
            return self.finish(model, Finish::EndOfText, emit).map(Some);
        }
        if self.drawn() >= self.limit {
            return self.finish(model, Finish::Length, emit).map(Some);
        }
        Ok(None)
    }

    fn emit_cells(
        &self,
        pending: &Pending,
        position: usize,
        next: Option<u32>,
        emit: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let cells: Vec<Cells> = self.lens.read(&pending.opened, &[next])?;
        for mut cells in cells {
            cells.attention.clone_from(&pending.attention);
            cells.plan = self.plan();
            emit(Event::Cells {
                position,
                cells: Arc::new(cells),
            });
        }
        Ok(())
    }

    /// The run ends; the last token is read too where that was asked for.
    fn finish(
        &mut self,
        model: &Model,
        why: Finish,
        emit: &mut dyn FnMut(Event),
    ) -> Result<Finish> {
        if self.job.read_last && self.pending.is_none() && self.fits(model) {
            self.read(model, emit)?;
            if let Some(pending) = self.pending.take() {
                self.emit_cells(&pending, self.tokens.len() - 1, None, emit)?;
                self.pending = Some(pending);
            }
        }
        Ok(why)
    }

    fn measure(&mut self, emit: &mut dyn FnMut(Event)) {
        let now = Instant::now();
        if self.drawn() == 1 {
            self.speed.first_token_seconds = (now - self.started).as_secs_f64();
        }
        self.drawn.push_back(now);
        if self.drawn.len() > WINDOW {
            self.drawn.pop_front();
        }
        if let (Some(first), true) = (self.drawn.front(), self.drawn.len() > 1) {
            let seconds = (now - *first).as_secs_f64().max(1e-9);
            self.speed.tokens_per_second = (self.drawn.len() - 1) as f64 / seconds;
        }
        emit(Event::Speed(self.speed));
    }

    /// Forget how long ago the last token was drawn (after a pause, which is not slowness).
    pub fn restart_clock(&mut self) {
        self.drawn.clear();
    }
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

/// Whether a model's memory can go back to what it was after fewer tokens without reading them again.
fn rewinds(model: &Model) -> bool {
    let attention = |kind: &LayerKind| kind.attends() && *kind != LayerKind::Hybrid;
    !by_length(model) && model.decoder().config().layers.iter().all(attention)
}

/// Whether a model reads the tokens of a text differently once it is long.
pub(super) fn by_length(model: &Model) -> bool {
    let rotaries = model.decoder().config().rotaries();
    rotaries.iter().any(|rotary| rotary.long.is_some())
}

/// How many tokens of each of `branches` to read at once from a position on. With `attention` the rows of all blocks are held
/// meanwhile, so long texts are read in shorter chunks then.
pub(super) fn chunk(model: &Model, branches: usize, attention: bool, from: usize) -> usize {
    let c = model.decoder().config();
    let head = c.d_model * c.vocab;
    let work = 2 * branches * (model.decoder().size().0 as usize + head * c.blocks());
    let most = (WORK / work.max(1)).clamp(24, CHUNK);
    if !attention {
        return most;
    }
    let row = 4 * branches * c.blocks() * c.heads.max(1) * (from + most);
    (ATTENTION_BYTES / row).clamp(1, most)
}

/// Why a run cannot go on.
pub(super) fn nothing_to_draw(position: usize) -> Error {
    Error::failed(
        format!("the model's logits at position {position} hold no number to draw from"),
        "Its weights are damaged: fetch the model again and run `entroscope doctor --model` on it.",
    )
}

/// The prompt's token ids, checked against the model.
///
/// # Errors
/// If there are none, too many for the model, or such as it does not have.
pub(super) fn tokenize(model: &Model, prompt: &Prompt) -> Result<Vec<u32>> {
    let empty = || {
        Error::Usage(
            "The prompt is empty. Type some text, or pass a prompt on the command line".into(),
        )
    };
    let tokens = match prompt {
        Prompt::Text(text) if text.trim().is_empty() => return Err(empty()),
        Prompt::Text(text) => model.tokenizer().encode(text, true)?,
        Prompt::Chat(text) if text.trim().is_empty() => return Err(empty()),
        Prompt::Chat(text) => model.chat_prompt(text)?,
        Prompt::Ids(ids) => ids.clone(),
    };
    if tokens.is_empty() {
        return Err(empty());
    }
    let vocab = model.card().vocab;
    match tokens.iter().find(|id| **id as usize >= vocab) {
        Some(id) => Err(Error::Usage(format!(
            "Token id {id} is outside the model's vocabulary of {vocab}"
        ))),
        None => match model.card().limit() {
            Some(limit) if tokens.len() > limit => Err(Error::Usage(format!(
                "The prompt has {} tokens, but {} reads at most {limit}. Shorten it",
                tokens.len(),
                model.card().name
            ))),
            _ => Ok(tokens),
        },
    }
}
