//! Steered | baseline: one prompt read by the plain model and by the same under a steering plan, side by side.
//!
//! Both are rows of one forward pass, each with its own memory and interventions, and one lens reads both, so a step reads
//! the weights once. Neither sees the other: its cells are those of a run alone, to the bit.

use super::generation::{chunk, nothing_to_draw, tokenize};
use super::protocol::{Event, Finish, Job};
use crate::error::Result;
use crate::lens::{Lens, Opened, Which, attention};
use crate::model::cache::State;
use crate::model::decoder::{Row, Taps, Traced};
use crate::model::{Intervention, Model, Sampler};
use crate::trace::{Attention, Cells, Kind, Pairing, Side, Token};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

/// A comparison in progress.
pub struct Comparison {
    job: Job,
    pairing: Pairing,
    lens: Lens,
    branches: [Branch; 2],
    prompt: usize,
    limit: usize,
    /// Whether the model predicts what comes next.
    generates: bool,
    /// The last tokens read, whose cells still miss what came next.
    pending: Option<Pending>,
    started: Instant,
}

struct Branch {
    state: State,
    interventions: Vec<Intervention>,
    sampler: Sampler,
    tokens: Vec<u32>,
    status: Status,
}

/// How far a branch is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    /// More is to be drawn.
    Drawing,
    /// It ends when its last token has been read.
    Closing(Finish),
    Ended(Finish),
}

/// The last token of each branch that goes on, in the order of the sides.
struct Pending {
    sides: Vec<Side>,
    opened: Opened,
    attention: Vec<Option<Attention>>,
}

impl Branch {
    fn goes_on(&self) -> bool {
        !matches!(self.status, Status::Ended(_))
    }

    /// What cells are labelled with: whether the states were pushed.
    fn plan(&self) -> u32 {
        u32::from(!self.interventions.is_empty())
    }
}

impl Comparison {
    /// Tokenize the prompt and announce both branches. `job.steering` is what the steered one is under; all else holds for
    /// both.
    ///
    /// # Errors
    /// If the prompt is empty or longer than the context, or the settings make no sense.
    pub fn start(
        model: &Model,
        job: Job,
        pairing: Pairing,
        emit: &mut dyn FnMut(Side, Event),
    ) -> Result<Self> {
        job.sampling.validate()?;
        let tokens = tokenize(model, &job.prompt)?;
        let generates = model.card().causal;
        let limit = if generates { job.max_new_tokens } else { 0 };
        let lens = Lens::new(job.lens.clone());
        let branches = Side::BOTH.map(|side| {
            let mut state = model.decoder().state();
            // Read in chunks as if at once.
            state.announce(tokens.len());
            Branch {
                state,
                interventions: match side {
                    Side::A => Vec::new(),
                    Side::B => job.steering.interventions(tokens.len()),
                },
                sampler: Sampler::new(job.sampling.clone()),
                tokens: tokens.clone(),
                status: match limit {
                    0 => Status::Closing(Finish::Length),
                    _ => Status::Drawing,
                },
            }
        });
        for side in Side::BOTH {
            emit(
                side,
                Event::Started {
                    schema: lens.schema().clone(),
                    prompt_tokens: tokens.len(),
                    max_new_tokens: limit,
                },
            );
            for id in &tokens {
                emit(side, Event::Token(token(model, *id, Kind::Prompt, 0.0)));
            }
        }
        Ok(Self {
            prompt: tokens.len(),
            job,
            pairing,
            lens,
            branches,
            limit,
            generates,
            pending: None,
            started: Instant::now(),
        })
    }

    /// Read one chunk of the prompt or the last tokens of both branches, or draw one token of each. `Some` once both have
    /// ended: why the baseline did, and the steered one.
    ///
    /// # Errors
    /// If a tensor operation fails; the comparison cannot go on then.
    pub fn advance(
        &mut self,
        model: &Model,
        emit: &mut dyn FnMut(Side, Event),
    ) -> Result<Option<[Finish; 2]>> {
        match self.pending.take() {
            Some(pending) => self.draw(model, pending, emit)?,
            None => self.read(model, emit)?,
        }
        Ok(match [self.branches[0].status, self.branches[1].status] {
            [Status::Ended(baseline), Status::Ended(steered)] => Some([baseline, steered]),
            _ => None,
        })
    }

    /// End both branches where they are.
    pub fn stop(&mut self, emit: &mut dyn FnMut(Side, Event)) -> [Finish; 2] {
        self.pending = None;
        Side::BOTH.map(|side| match self.branches[side as usize].status {
            Status::Ended(why) => why,
            _ => {
                self.end(side, Finish::Stopped, emit);
                Finish::Stopped
            }
        })
    }

    fn end(&mut self, side: Side, why: Finish, emit: &mut dyn FnMut(Side, Event)) {
        self.branches[side as usize].status = Status::Ended(why);
        emit(side, Event::Finished(why));
    }

    /// Read what the branches that go on have not read; all of these have read equally much.
    fn read(&mut self, model: &Model, emit: &mut dyn FnMut(Side, Event)) -> Result<()> {
        let sides: Vec<Side> = Side::BOTH
            .into_iter()
            .filter(|side| self.branches[*side as usize].goes_on())
            .collect();
        let Some(first) = sides.first() else {
            return Ok(());
        };
        let (from, len) = {
            let branch = &self.branches[*first as usize];
            (branch.state.len(), branch.tokens.len())
        };
        let to = match self.generates {
            true => len.min(from + chunk(model, sides.len(), self.job.attention, from)),
            false => len,
        };
        let taps = Taps {
            states: true,
            attention: self.job.attention,
        };
        let causal = self.generates;
        let going_on = self.branches.iter_mut().filter(|b| b.goes_on());
        let mut rows: Vec<Row<'_>> = going_on
            .map(|branch| {
                let memory = causal.then_some(&mut branch.state);
                Row::new(&branch.tokens[from..to], memory).steered(&branch.interventions)
            })
            .collect();
        let traced = model.decoder().forward(&mut rows, taps)?;
        drop(rows);
        // The last token of a text waits for what comes next; all others are of the prompt and know it.
        let complete = match causal {
            true => to.min(len - 1) - from,
            false => to,
        };
        let count = to - from;
        if complete > 0 {
            let tokens = &self.branches[0].tokens;
            let targets: Vec<Option<u32>> = (from..from + complete)
                .map(|i| tokens.get(i + 1).copied().filter(|_| causal))
                .flat_map(|next| [next, next])
                .collect();
            let which = Which::beside(0..complete, 2, count);
            let cells = self.lens.cells(model.decoder(), &traced, which, &targets)?;
            for (i, mut cells) in cells.into_iter().enumerate() {
                let (at, side) = (i / 2, Side::BOTH[i % 2]);
                cells.attention = self.attention(&traced, i % 2, at, from + at)?;
                self.emit_cells(side, from + at, cells, emit);
            }
        }
        if causal && to == len {
            let last = count - 1;
            let which = match self.agree() {
                true => Which::beside(last..count, 2, count),
                false => Which::these((0..sides.len()).map(|row| row * count + last).collect()),
            };
            let attention = (0..sides.len())
                .map(|row| self.attention(&traced, row, last, len - 1))
                .collect::<Result<_>>()?;
            self.pending = Some(Pending {
                opened: self.lens.open(model.decoder(), &traced, which)?,
                attention,
                sides,
            });
        }
        if !causal {
            for side in Side::BOTH {
                self.end(side, Finish::Read, emit);
            }
        }
        Ok(())
    }

    /// Whether both go on and have the same text.
    fn agree(&self) -> bool {
        let [a, b] = &self.branches;
        a.goes_on() && b.goes_on() && a.tokens == b.tokens
    }

    /// The attention of the token at `at` of a row, which stands at `position`, where that is asked for.
    fn attention(
        &self,
        traced: &Traced,
        row: usize,
        at: usize,
        position: usize,
    ) -> Result<Option<Attention>> {
        match self.job.attention {
            true => {
                let keep = self.job.attention_rows;
                Ok(attention::read(traced, row, at, position, keep)?)
            }
            false => Ok(None),
        }
    }

    fn emit_cells(
        &self,
        side: Side,
        position: usize,
        mut cells: Cells,
        emit: &mut dyn FnMut(Side, Event),
    ) {
        cells.plan = self.branches[side as usize].plan();
        let cells = Arc::new(cells);
        emit(side, Event::Cells { position, cells });
    }

    /// Draw the next token of every branch that goes on from its own logits; a locked one takes the baseline's.
    fn draw(
        &mut self,
        model: &Model,
        pending: Pending,
        emit: &mut dyn FnMut(Side, Event),
    ) -> Result<()> {
        let mut next: Vec<Option<u32>> = Vec::with_capacity(pending.sides.len());
        for (at, side) in pending.sides.iter().enumerate() {
            let branch = &mut self.branches[*side as usize];
            next.push(match (branch.status, self.pairing, side) {
                (Status::Drawing, Pairing::Locked, Side::B) => next.first().copied().flatten(),
                (Status::Drawing, ..) => {
                    let logits = pending.opened.final_logits(at);
                    branch.sampler.draw(logits, &branch.tokens)
                }
                _ => None,
            });
        }
        let cells = self.lens.read(&pending.opened, &next)?;
        for ((side, mut cells), attention) in pending.sides.iter().zip(cells).zip(pending.attention)
        {
            let position = self.branches[*side as usize].tokens.len() - 1;
            cells.attention = attention;
            self.emit_cells(*side, position, cells, emit);
        }
        self.lens.close(pending.opened);
        for (side, next) in pending.sides.into_iter().zip(next) {
            let branch = &mut self.branches[side as usize];
            let id = match (branch.status, next) {
                (Status::Closing(why), _) => {
                    self.end(side, why, emit);
                    continue;
                }
                (_, Some(id)) => id,
                (_, None) => return Err(nothing_to_draw(branch.tokens.len() - 1)),
            };
            branch.tokens.push(id);
            let seconds = self.started.elapsed().as_secs_f64();
            emit(
                side,
                Event::Token(token(model, id, Kind::Generated, seconds)),
            );
            let len = branch.tokens.len();
            let fits = model.card().limit().is_none_or(|limit| len <= limit);
            let why = if model.eos().contains(&id) && !self.job.ignore_eos {
                Finish::EndOfText
            } else if len - self.prompt >= self.limit {
                Finish::Length
            } else if !fits {
                Finish::ContextFull
            } else {
                continue;
            };
            match self.job.read_last && fits {
                true => branch.status = Status::Closing(why),
                false => self.end(side, why, emit),
            }
        }
        Ok(())
    }
}

pub(super) fn token(model: &Model, id: u32, kind: Kind, seconds: f64) -> Token {
    Token {
        id,
        bytes: model.tokenizer().bytes(id),
        kind,
        seconds,
    }
}

/// Run a comparison to its end on the calling thread. `on_event` may break it off after any event.
///
/// # Errors
/// As [`Comparison::start`] and [`Comparison::advance`]; [`Finish::Stopped`] for what was broken off.
pub fn compare(
    model: &Model,
    job: &Job,
    pairing: Pairing,
    on_event: &mut dyn FnMut(Side, Event) -> ControlFlow<()>,
) -> Result<[Finish; 2]> {
    let mut stop = false;
    let mut emit = |side: Side, event: Event| stop |= on_event(side, event).is_break();
    let mut comparison = Comparison::start(model, job.clone(), pairing, &mut emit)?;
    loop {
        if stop {
            return Ok(comparison.stop(&mut |side, event| {
                // Nothing is left to break off.
                let _ = on_event(side, event);
            }));
        }
        let mut emit = |side: Side, event: Event| stop |= on_event(side, event).is_break();
        if let Some(ended) = comparison.advance(model, &mut emit)? {
            return Ok(ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LoadOptions;
    use crate::model::linear::READ;
    use crate::session::{Generation, Prompt};

    /// On one thread, so that all it reads is counted there.
    #[test]
    fn a_step_of_both_branches_reads_each_matrix_once() {
        let model = Model::load("demo", &LoadOptions::default(), &mut |_, _, _| {}).unwrap();
        let prompt = Prompt::Text("Once upon a time there was".into());
        let job = Job {
            ignore_eos: true,
            ..Job::new(prompt, 6)
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        pool.unwrap().install(|| {
            let counted = |step: &mut dyn FnMut()| {
                READ.set(0);
                step();
                READ.get()
            };
            let mut alone = Generation::start(&model, job.clone(), &mut |_| {}).unwrap();
            let mut go_on = || assert!(alone.advance(&model, &mut |_| {}).unwrap().is_none());
            let first = counted(&mut go_on);
            let step = counted(&mut go_on);
            assert!(step > model.card().blocks, "{step}");
            for pairing in [Pairing::Free, Pairing::Locked] {
                let mut both =
                    Comparison::start(&model, job.clone(), pairing, &mut |_, _| {}).unwrap();
                // Reading and drawing are two steps here.
                let mut go_on = || {
                    for _ in 0..2 {
                        assert!(both.advance(&model, &mut |_, _| {}).unwrap().is_none());
                    }
                };
                assert_eq!(counted(&mut go_on), first);
                assert_eq!(counted(&mut go_on), step);
            }
        });
    }
}
