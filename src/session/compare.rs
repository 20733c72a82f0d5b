//! Steered | baseline: one prompt read by the plain model and by the same under a steering plan, side by side; or two prompts
//! read by one model.
//!
//! Both are rows of one forward pass, each with its own memory and interventions, and one lens reads both, so a step reads
//! the weights once. Neither sees the other: its cells are those of a run alone, to the bit.

use super::generation::{chunk, nothing_to_draw, tokenize};
use super::pace::Pace;
use super::protocol::{Event, Finish, Job, Speed};
use super::work::Turn;
use crate::error::{Error, Result};
use crate::lens::{Lens, Opened, Which, attention};
use crate::model::cache::State;
use crate::model::decoder::{Row, Taps, Traced};
use crate::model::{Intervention, Model, Sampler, Sampling, crew};
use crate::steer::Plan;
use crate::trace::{Attention, Cells, Kind, Pairing, Side, Token};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// A comparison in progress.
pub struct Comparison {
    job: Job,
    pairing: Pairing,
    lens: Lens,
    branches: [Branch; 2],
    limit: usize,
    /// Whether the model predicts what comes next.
    generates: bool,
    /// How many plans there have been, the plain model not counted.
    plans: u32,
    /// The last tokens read, whose cells still miss what came next; both in one where they were read together.
    pending: Vec<Pending>,
    pace: Pace,
}

struct Branch {
    state: State,
    interventions: Vec<Intervention>,
    /// What cells are labelled with; 0 is the plain model.
    plan: u32,
    sampler: Sampler,
    tokens: Vec<u32>,
    /// Tokens of its prompt.
    prompt: usize,
    status: Status,
    /// While the text is read once more: how much of it.
    again: Option<usize>,
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

/// The last tokens of branches that go on, in the order of the sides.
struct Pending {
    sides: Vec<Side>,
    plans: Vec<u32>,
    opened: Opened,
    attention: Vec<Option<Attention>>,
}

/// What a branch reads in one step.
struct Due {
    side: Side,
    read: Range<usize>,
    /// Of these the ones whose cells are complete: they know what comes next, or nothing does.
    complete: Range<usize>,
}

impl Branch {
    fn goes_on(&self) -> bool {
        !matches!(self.status, Status::Ended(_))
    }
}

impl Comparison {
    /// Tokenize the prompt and announce both branches. `job.steering` is what the steered one is under; all else holds for
    /// both. Where the job has a prompt for the other branch, that reads it, both are under the steering, and each goes on
    /// with its own text ([`Pairing::Prompts`]).
    ///
    /// # Errors
    /// If a prompt is empty or longer than the context, the settings make no sense, or texts of two prompts are to be one.
    pub fn start(
        model: &Model,
        job: Job,
        pairing: Pairing,
        emit: &mut dyn FnMut(Side, Event),
    ) -> Result<Self> {
        job.sampling.validate()?;
        let tokens = tokenize(model, &job.prompt)?;
        let (pairing, texts) = match (&job.beside, pairing) {
            (Some(_), Pairing::Locked) => {
                return Err(Error::Usage(
                    "two prompts have two texts: they cannot be locked to one".into(),
                ));
            }
            (Some(other), _) => (Pairing::Prompts, [tokens, tokenize(model, other)?]),
            (None, pairing) => (pairing, [tokens.clone(), tokens]),
        };
        let generates = model.card().causal;
        let limit = if generates { job.max_new_tokens } else { 0 };
        let lens = Lens::new(job.lens.clone());
        let mut plans = 0;
        let mut sides = Side::BOTH.into_iter();
        let branches = texts.map(|tokens| {
            let mut state = model.decoder().state();
            // Read in chunks as if at once.
            state.announce(tokens.len());
            let interventions = match (sides.next(), pairing) {
                (Some(Side::A), Pairing::Free | Pairing::Locked) => Vec::new(),
                _ => job.steering.interventions(tokens.len()),
            };
            let plan = u32::from(!interventions.is_empty());
            plans = plans.max(plan);
            Branch {
                state,
                interventions,
                plan,
                sampler: Sampler::new(job.sampling.clone()),
                prompt: tokens.len(),
                tokens,
                status: match limit {
                    0 => Status::Closing(Finish::Length),
                    _ => Status::Drawing,
                },
                again: None,
            }
        });
        for (side, branch) in Side::BOTH.into_iter().zip(&branches) {
            emit(
                side,
                Event::Started {
                    schema: lens.schema().clone(),
                    prompt_tokens: branch.prompt,
                    max_new_tokens: limit,
                },
            );
            for id in &branch.tokens {
                emit(side, Event::Token(token(model, *id, Kind::Prompt, 0.0)));
            }
        }
        Ok(Self {
            job,
            pairing,
            lens,
            branches,
            limit,
            generates,
            plans,
            pending: Vec::new(),
            pace: Pace::start(),
        })
    }

    /// Tokens drawn so far by the branch that has more.
    #[must_use]
    pub fn drawn(&self) -> usize {
        let drawn = self.branches.iter().map(|b| b.tokens.len() - b.prompt);
        drawn.max().unwrap_or(0)
    }

    /// Allow both this many more tokens than the longer one has, if the model generates.
    pub fn extend(&mut self, more: usize) {
        if !self.generates {
            return;
        }
        self.limit = self.drawn().saturating_add(more);
        for side in Side::BOTH {
            let waits = self.pending.iter().any(|p| p.sides.contains(&side));
            let branch = &mut self.branches[side as usize];
            branch.status = Status::Drawing;
            if branch.state.len() == branch.tokens.len() && !waits {
                // What the last token says was let go: read it again.
                branch.state.truncate(branch.tokens.len() - 1);
            }
        }
    }

    /// Draw differently from the next token on.
    pub fn set_sampling(&mut self, sampling: &Sampling) {
        self.job.sampling = sampling.clone();
        for branch in &mut self.branches {
            branch.sampler.set(sampling.clone());
        }
    }

    /// Push the states of all tokens that the steered branch has still to read as `plan` says. What was read keeps its cells,
    /// and what the model remembers of it. `None` of two prompts, which stay under what they began under, and where
    /// all is read at once.
    pub fn steer(&mut self, plan: &Plan) -> Option<Turn> {
        if self.pairing == Pairing::Prompts {
            return None;
        }
        let steered = &mut self.branches[Side::B as usize];
        if *plan != self.job.steering {
            self.job.steering = plan.clone();
            steered.interventions = plan.interventions(steered.prompt);
            self.plans += u32::from(!steered.interventions.is_empty());
            steered.plan = match steered.interventions.is_empty() {
                true => 0,
                false => self.plans,
            };
        }
        self.generates.then(|| Turn {
            number: steered.plan,
            from: steered.state.len(),
        })
    }

    /// Read both texts so far once more, the steered one's all under the plan in force: their cells are owed then
    /// ([`Self::fill`]). `false` if nothing has been read.
    pub fn replay(&mut self, model: &Model) -> bool {
        let mut any = false;
        for branch in &mut self.branches {
            let read = match self.generates {
                true => branch.state.len().max(branch.again.unwrap_or(0)),
                false => branch.tokens.len(),
            };
            if read > 0 {
                any = true;
                branch.state = model.decoder().state();
                branch.state.announce(branch.tokens.len());
                branch.again = Some(read);
            }
        }
        if any {
            self.pending.clear();
        }
        any
    }

    /// Whether cells of tokens that are there are still to be read.
    #[must_use]
    pub fn owes(&self) -> bool {
        self.branches.iter().any(|branch| branch.again.is_some())
    }

    /// Read a chunk of what is owed.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn fill(&mut self, model: &Model, emit: &mut dyn FnMut(Side, Event)) -> Result<()> {
        match self.owes() {
            true => self.read(model, &self.due(model), emit),
            false => Ok(()),
        }
    }

    /// Forget how long ago the last token was drawn (after a pause, which is not slowness).
    pub fn restart_clock(&mut self) {
        self.pace.restart();
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
        let due = self.due(model);
        match due.is_empty() {
            true => self.draw(model, emit)?,
            false => self.read(model, &due, emit)?,
        }
        Ok(match [self.branches[0].status, self.branches[1].status] {
            [Status::Ended(baseline), Status::Ended(steered)] if !self.owes() => {
                Some([baseline, steered])
            }
            _ => None,
        })
    }

    /// End both branches where they are.
    pub fn stop(&mut self, emit: &mut dyn FnMut(Side, Event)) -> [Finish; 2] {
        self.pending.clear();
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

    /// What is to be read next: of a branch that goes on what it has not read, of any other what is read once more.
    fn due(&self, model: &Model) -> Vec<Due> {
        let unread = |branch: &Branch| match (branch.again, self.generates) {
            (Some(_), false) => true,
            (Some(read), true) if !branch.goes_on() => branch.state.len() < read,
            (_, false) => branch.goes_on(),
            (_, true) => branch.goes_on() && branch.state.len() < branch.tokens.len(),
        };
        let reading: Vec<Side> = Side::BOTH
            .into_iter()
            .filter(|side| unread(&self.branches[*side as usize]))
            .collect();
        let due = |side: &Side| {
            let branch = &self.branches[*side as usize];
            let from = branch.state.len();
            let (to, complete) = match (self.generates, branch.goes_on()) {
                (false, _) => (branch.tokens.len(), branch.tokens.len()),
                (true, on) => {
                    let step = chunk(model, reading.len(), self.job.attention, from);
                    let end = match on {
                        true => branch.tokens.len(),
                        false => branch.again.unwrap_or_default(),
                    };
                    let to = end.min(from + step);
                    // The last token of a text that goes on waits for what comes next; all others know it.
                    (to, to.min(end - usize::from(on)))
                }
            };
            Due {
                side: *side,
                read: from..to,
                complete: from..complete.max(from),
            }
        };
        reading.iter().map(due).collect()
    }

    fn read(
        &mut self,
        model: &Model,
        due: &[Due],
        emit: &mut dyn FnMut(Side, Event),
    ) -> Result<()> {
        let taps = Taps {
            states: true,
            attention: self.job.attention,
        };
        let causal = self.generates;
        let mut rows: Vec<Row<'_>> = Vec::with_capacity(due.len());
        for (side, branch) in Side::BOTH.into_iter().zip(&mut self.branches) {
            if let Some(due) = due.iter().find(|due| due.side == side) {
                let memory = causal.then_some(&mut branch.state);
                let row = Row::new(&branch.tokens[due.read.clone()], memory);
                rows.push(row.steered(&branch.interventions));
            }
        }
        let traced = model.decoder().forward(&mut rows, taps)?;
        drop(rows);
        self.emit_read(model, due, &traced, emit)?;
        if causal {
            self.open(model, due, &traced)?;
        }
        for due in due {
            let branch = &mut self.branches[due.side as usize];
            if branch.again.is_some_and(|read| due.read.end >= read) {
                branch.again = None;
            }
            if !causal && branch.goes_on() {
                self.end(due.side, Finish::Read, emit);
            }
        }
        Ok(())
    }

    /// How many tokens from the first on both have in common; a masked model reads all or nothing in common. Two prompts are
    /// two texts however they begin.
    fn common(&self) -> usize {
        if self.pairing == Pairing::Prompts {
            return 0;
        }
        let [a, b] = &self.branches;
        let same = a.tokens.iter().zip(&b.tokens).take_while(|(a, b)| a == b);
        let same = same.count();
        match self.generates || a.tokens == b.tokens {
            true => same,
            false => 0,
        }
    }

    /// The cells of what was just read and is complete: two by two where both have read the same text.
    fn emit_read(
        &self,
        model: &Model,
        due: &[Due],
        traced: &Traced,
        emit: &mut dyn FnMut(Side, Event),
    ) -> Result<()> {
        let paired = match due {
            [a, b] if a.read.start == b.read.start => {
                let end = a.complete.end.min(b.complete.end).min(self.common());
                a.read.start..end.max(a.read.start)
            }
            _ => 0..0,
        };
        let target = |side: Side, position: usize| {
            let next = self.branches[side as usize].tokens.get(position + 1);
            next.copied().filter(|_| self.generates)
        };
        if let ([a, b], false) = (due, paired.is_empty()) {
            let count = paired.len();
            let second = a.read.len();
            let which = Which::beside(0..count, 2, second);
            let targets: Vec<Option<u32>> = paired
                .clone()
                .flat_map(|at| [target(a.side, at), target(b.side, at)])
                .collect();
            let cells = self.lens.cells(model.decoder(), traced, which, &targets)?;
            for (i, mut cells) in cells.into_iter().enumerate() {
                let (position, row) = (paired.start + i / 2, i % 2);
                cells.attention = self.attention(traced, row, i / 2, position)?;
                self.emit_cells(due[row].side, position, cells, emit);
            }
        }
        let mut first = 0;
        for (row, due) in due.iter().enumerate() {
            let from = due.complete.start.max(paired.end);
            let alone = from..due.complete.end;
            if !alone.is_empty() {
                let offset = from - due.read.start;
                let which = Which::from(first + offset..first + offset + alone.len());
                let targets: Vec<Option<u32>> =
                    alone.clone().map(|at| target(due.side, at)).collect();
                let cells = self.lens.cells(model.decoder(), traced, which, &targets)?;
                for (position, mut cells) in alone.zip(cells) {
                    let at = position - due.read.start;
                    cells.attention = self.attention(traced, row, at, position)?;
                    self.emit_cells(due.side, position, cells, emit);
                }
            }
            first += due.read.len();
        }
        Ok(())
    }

    /// Keep what the last tokens of the texts that go on say, until it is known what comes next.
    fn open(&mut self, model: &Model, due: &[Due], traced: &Traced) -> Result<()> {
        let mut which = Vec::with_capacity(due.len());
        let (mut sides, mut plans, mut attention) = (Vec::new(), Vec::new(), Vec::new());
        let mut first = 0;
        for (row, due) in due.iter().enumerate() {
            let branch = &self.branches[due.side as usize];
            let last = due.read.len() - 1;
            if branch.goes_on() && due.read.end == branch.tokens.len() {
                which.push(first + last);
                sides.push(due.side);
                plans.push(branch.plan);
                attention.push(self.attention(traced, row, last, due.read.end - 1)?);
            }
            first += due.read.len();
        }
        let [a, b] = &self.branches;
        let which = match which[..] {
            [] => return Ok(()),
            [one, two] if self.common() > 0 && a.tokens == b.tokens => {
                Which::beside([one], 2, two - one)
            }
            _ => Which::these(which),
        };
        let opened = self.lens.open(model.decoder(), traced, which)?;
        self.pending.push(Pending {
            sides,
            plans,
            opened,
            attention,
        });
        Ok(())
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
        cells.plan = self.branches[side as usize].plan;
        let cells = Arc::new(cells);
        emit(side, Event::Cells { position, cells });
    }

    /// Draw the next token of every branch that goes on from its own logits; a locked one takes the baseline's.
    fn draw(&mut self, model: &Model, emit: &mut dyn FnMut(Side, Event)) -> Result<()> {
        let mut next: [Option<u32>; 2] = [None; 2];
        for side in Side::BOTH {
            let holds = |pending: &Pending| pending.sides.iter().position(|s| *s == side);
            let waiting = self.pending.iter().find_map(|p| Some((p, holds(p)?)));
            let Some((pending, at)) = waiting else {
                continue;
            };
            let branch = &mut self.branches[side as usize];
            next[side as usize] = match (branch.status, self.pairing, side) {
                (Status::Drawing, Pairing::Locked, Side::B) => next[0],
                (Status::Drawing, ..) => {
                    let logits = pending.opened.final_logits(at);
                    branch.sampler.draw(logits, &branch.tokens)
                }
                _ => None,
            };
        }
        let mut drawing = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            let targets: Vec<Option<u32>> = pending
                .sides
                .iter()
                .map(|side| next[*side as usize])
                .collect();
            let cells = self.lens.read(&pending.opened, &targets)?;
            let labels = pending.plans.into_iter().zip(pending.attention);
            for ((side, mut cells), (plan, attention)) in
                pending.sides.iter().zip(cells).zip(labels)
            {
                let position = self.branches[*side as usize].tokens.len() - 1;
                cells.attention = attention;
                cells.plan = plan;
                let cells = Arc::new(cells);
                emit(*side, Event::Cells { position, cells });
            }
            self.lens.close(pending.opened);
            drawing.extend(pending.sides);
        }
        for side in drawing {
            self.append(model, side, next[side as usize], emit)?;
        }
        if next.iter().any(Option::is_some) {
            let (tokens_per_second, first_token_seconds) = self.pace.drew();
            let speed = Speed {
                tokens_per_second,
                first_token_seconds,
                lens_ms: 0.0,
            };
            emit(Side::A, Event::Speed(speed));
        }
        Ok(())
    }

    /// Append what was drawn, and see whether that is the end.
    fn append(
        &mut self,
        model: &Model,
        side: Side,
        next: Option<u32>,
        emit: &mut dyn FnMut(Side, Event),
    ) -> Result<()> {
        let branch = &mut self.branches[side as usize];
        let id = match (branch.status, next) {
            (Status::Closing(why), _) => {
                self.end(side, why, emit);
                return Ok(());
            }
            (_, Some(id)) => id,
            (_, None) => return Err(nothing_to_draw(branch.tokens.len() - 1)),
        };
        branch.tokens.push(id);
        let seconds = self.pace.seconds();
        emit(
            side,
            Event::Token(token(model, id, Kind::Generated, seconds)),
        );
        let len = branch.tokens.len();
        let fits = model.card().limit().is_none_or(|limit| len <= limit);
        let why = if model.eos().contains(&id) && !self.job.ignore_eos {
            Finish::EndOfText
        } else if len - branch.prompt >= self.limit {
            Finish::Length
        } else if !fits {
            Finish::ContextFull
        } else {
            return Ok(());
        };
        match self.job.read_last && fits {
            true => branch.status = Status::Closing(why),
            false => self.end(side, why, emit),
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
        if let Some(ended) = crew::with(|| comparison.advance(model, &mut emit))? {
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
