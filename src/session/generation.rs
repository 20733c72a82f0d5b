//! One run, step by step: read the prompt in chunks, then draw, emit and read token after token.
//!
//! After every step each token but the last drawn one has been read and its cells are complete (they know what came
//! next) or owed ([`Fill::Between`]), so a run can pause, stop or end anywhere.

use super::pace::Pace;
use super::protocol::{Event, Fill, Finish, Job, Prompt, Speed};
use super::work::Turn;
use crate::error::{Error, Result};
use crate::lens::{Lens, Opened, attention};
use crate::model::cache::State;
use crate::model::config::LayerKind;
use crate::model::decoder::{Row, Taps, Traced};
use crate::model::{Intervention, Model, Sampler, Sampling};
use crate::steer::Plan;
use crate::trace::{Attention, Cells, Kind, Token};
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

/// A run in progress.
pub struct Generation {
    job: Job,
    lens: Lens,
    sampler: Sampler,
    state: State,
    /// What is done to the states from now on; `job.steering` is the plan behind it.
    steered: Arc<Steered>,
    /// How many plans there have been, the plain model not counted.
    plans: u32,
    tokens: Vec<u32>,
    prompt: usize,
    limit: usize,
    /// Whether the model predicts what comes next.
    generates: bool,
    /// The last token read, whose cells still miss what came next.
    pending: Option<Pending>,
    /// Chunks of the prompt that were read without their cells, in order, and how they were read.
    owed: Vec<(Range<usize>, Arc<Steered>)>,
    /// While the text is read once more: how much of it.
    again: Option<usize>,
    /// What is on the screen.
    look: Range<usize>,
    /// Tokens drawn since a chunk of owed cells was read.
    since: usize,
    /// Why the run ends, once all cells are there.
    ended: Option<Finish>,
    pace: Pace,
    speed: Speed,
}

/// What is done to the states of some tokens.
struct Steered {
    interventions: Vec<Intervention>,
    /// What their cells are labelled with; 0 is the plain model.
    number: u32,
}

struct Pending {
    opened: Opened,
    attention: Option<Attention>,
    plan: u32,
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
        let interventions = job.steering.interventions(tokens.len());
        let plans = u32::from(!interventions.is_empty());
        let generation = Self {
            sampler: Sampler::new(job.sampling.clone()),
            state,
            steered: Arc::new(Steered {
                interventions,
                number: plans,
            }),
            plans,
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
            again: None,
            look: 0..0,
            since: 0,
            ended: None,
            pace: Pace::start(),
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
        if self.generates {
            self.limit = self.drawn().saturating_add(more);
            self.ended = None;
        }
    }

    /// Push the states of all tokens still to be read as `plan` says. What was read keeps its cells, and what the model
    /// remembers of it. `None` where all is read at once, which only a replay pushes then.
    pub fn steer(&mut self, plan: &Plan) -> Option<Turn> {
        if *plan != self.job.steering {
            self.job.steering = plan.clone();
            let interventions = plan.interventions(self.prompt);
            self.plans += u32::from(!interventions.is_empty());
            let number = match interventions.is_empty() {
                true => 0,
                false => self.plans,
            };
            self.steered = Arc::new(Steered {
                interventions,
                number,
            });
        }
        self.generates.then(|| Turn {
            number: self.steered.number,
            from: self.state.len(),
        })
    }

    /// Read the text so far once more, all of it under the plan in force: its cells are owed then ([`Self::fill`]), and the
    /// next token is drawn from what they say. `false` if nothing has been read.
    pub fn replay(&mut self, model: &Model) -> bool {
        // Asked for once more on the way, it is about all that was read before.
        let read = match self.generates {
            true => self.state.len().max(self.again.unwrap_or(0)),
            false => self.tokens.len(),
        };
        if read > 0 {
            self.state = model.decoder().state();
            self.state.announce(self.tokens.len());
            self.owed.clear();
            self.pending = None;
            self.again = Some(read);
        }
        read > 0
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
        let seen = |(owed, _): &(Range<usize>, _)| overlap(owed, &self.look);
        if self.again.is_some() || (self.since >= BETWEEN && self.owed.iter().any(seen)) {
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

    /// Whether cells of tokens that are there are still to be read.
    #[must_use]
    pub fn owes(&self) -> bool {
        self.again.is_some() || !self.owed.is_empty()
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
        let causal = self.generates;
        // What is read once more ends where it ended.
        let end = self.again.filter(|_| causal).unwrap_or(self.tokens.len());
        let to = match causal {
            true => end.min(from + chunk(model, 1, self.job.attention, from)),
            false => end,
        };
        let between = self.job.fill == Fill::Between && self.again.is_none();
        let late = between && to < self.tokens.len() && rewinds(model);
        let taps = match late {
            true => Taps::default(),
            false => self.taps(),
        };
        let memory = causal.then_some(&mut self.state);
        let row = Row::new(&self.tokens[from..to], memory);
        let mut rows = [row.steered(&self.steered.interventions)];
        let traced = model.decoder().forward(&mut rows, taps)?;
        if late {
            self.owed.push((from..to, Arc::clone(&self.steered)));
            return Ok(());
        }
        let began = Instant::now();
        // The last token of the text waits for what comes next; all others know it.
        let complete = match causal {
            true => to.min(self.tokens.len() - 1),
            false => to,
        };
        self.emit_read(model, &traced, from..complete, self.steered.number, emit)?;
        if causal && to == self.tokens.len() {
            let last = to - from - 1;
            self.pending = Some(Pending {
                opened: self.lens.open(model.decoder(), &traced, last..last + 1)?,
                attention: self.attention_of(&traced, from, to - 1)?,
                plan: self.steered.number,
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
        if let Some(read) = self.again {
            return self.read_again(model, read, emit);
        }
        let seen = |(owed, _): &(Range<usize>, _)| overlap(owed, &self.look);
        let newest = self.owed.len().checked_sub(1);
        let Some(owed) = self.owed.iter().rposition(seen).or(newest) else {
            return Ok(());
        };
        let (Range { start, end }, steered) = self.owed[owed].clone();
        let mut before = self.state.fork()?;
        before.truncate(start);
        before.announce(self.prompt);
        let row = Row::new(&self.tokens[start..end], Some(&mut before));
        let mut rows = [row.steered(&steered.interventions)];
        let traced = model.decoder().forward(&mut rows, self.taps())?;
        self.emit_read(model, &traced, start..end, steered.number, emit)?;
        self.owed.remove(owed);
        self.since = 0;
        Ok(())
    }

    /// A chunk of a text of which `read` tokens are read once more.
    fn read_again(
        &mut self,
        model: &Model,
        read: usize,
        emit: &mut dyn FnMut(Event),
    ) -> Result<()> {
        self.read(model, emit)?;
        if !self.generates || self.state.len() >= read {
            self.again = None;
            // The last token may be all that is shown; what comes next is told once it is drawn.
            if let Some(pending) = self.pending.take() {
                self.emit_cells(&pending, self.tokens.len() - 1, None, emit)?;
                self.pending = Some(pending);
            }
        }
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

    /// The cells of the positions `read`, at the first of which the forward began.
    fn emit_read(
        &self,
        model: &Model,
        traced: &Traced,
        read: Range<usize>,
        plan: u32,
        emit: &mut dyn FnMut(Event),
    ) -> Result<()> {
        if read.is_empty() {
            return Ok(());
        }
        let (from, count) = (read.start, read.len());
        let targets: Vec<Option<u32>> = read
            .map(|i| self.tokens.get(i + 1).copied().filter(|_| self.generates))
            .collect();
        let cells = self
            .lens
            .cells(model.decoder(), traced, 0..count, &targets)?;
        for (position, mut cells) in (from..).zip(cells) {
            cells.attention = self.attention_of(traced, from, position)?;
            cells.plan = plan;
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
            seconds: self.pace.seconds(),
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
            cells.plan = pending.plan;
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
        (self.speed.tokens_per_second, self.speed.first_token_seconds) = self.pace.drew();
        emit(Event::Speed(self.speed));
    }

    /// Forget how long ago the last token was drawn (after a pause, which is not slowness).
    pub fn restart_clock(&mut self) {
        self.pace.restart();
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
