//! Strength × metric: the plain model goes on from a prompt, then the steered one reads that very text under every strength
//! of a range.
//!
//! Several strengths are rows of one forward pass, each with its own memory and interventions, beside the plain model; one
//! lens reads them all, so a step reads the weights once for the batch. No row sees another: its cells are those of a locked
//! [`super::Comparison`] under that strength alone, to the bit. A strength that changes nothing, such as 0, is not computed:
//! it is the plain model.

use super::generation::{CHUNK, Generation, by_length, chunk};
use super::protocol::{Event, Fill, Finish, Job};
use super::recorder::Recorder;
use crate::error::Result;
use crate::lens::{Lens, Which};
use crate::model::cache::State;
use crate::model::decoder::{Row, Taps};
use crate::model::{Intervention, Model};
use crate::steer::{Plan, Strengths};
use crate::trace::{Cells, Curve, Metric, Point, Record, Schema, summarised};
use std::collections::VecDeque;
use std::sync::Arc;

/// Rows of a forward at most, the plain model's included.
const ROWS: usize = 16;
/// What the rows of a forward hold at once at most, in bytes: memories, states and cells. One strength is always read.
const BYTES: u64 = 1 << 30;

/// What a sweep reports.
#[derive(Debug)]
pub enum Swept {
    /// Of the plain model's own run, whose text is read under all strengths.
    Baseline(Event),
    /// A summarised position was read under the strength of this index.
    Cells {
        /// Index among the strengths.
        strength: usize,
        /// Which position.
        position: usize,
        /// What was read there.
        cells: Arc<Cells>,
    },
    /// All positions were read under the strength of this index.
    Point {
        /// Index among the strengths.
        strength: usize,
        /// What came out.
        point: Arc<Point>,
    },
}

/// A sweep in progress.
pub struct Sweep {
    lens: Lens,
    /// The plain model's run, while it goes on.
    baseline: Option<Generation>,
    recorder: Recorder,
    /// Why the plain model's run ended.
    ended: Option<Finish>,
    plans: Vec<Plan>,
    curve: Curve,
    /// The text, and the positions that are summarised.
    tokens: Vec<u32>,
    prompt: usize,
    positions: Vec<usize>,
    /// Strengths to be read.
    waiting: VecDeque<usize>,
    batch: Option<Batch>,
}

/// The plain model and some strengths that are read together.
struct Batch {
    plain: State,
    branches: Vec<Branch>,
    /// Tokens read so far.
    read: usize,
}

struct Branch {
    strength: usize,
    state: State,
    interventions: Vec<Intervention>,
    /// Of the summarised positions so far.
    cells: Vec<Arc<Cells>>,
}

impl Sweep {
    /// Tokenize the prompt and announce the plain model's run. Every strength multiplies `job.steering` ([`Plan::scaled`]).
    /// All else in the job is the plain model's; what it says of attention and of the last token is not looked at.
    ///
    /// # Errors
    /// If the prompt is empty or longer than the context, the settings make no sense, or a strength is too large.
    pub fn start(
        model: &Model,
        job: Job,
        strengths: &Strengths,
        emit: &mut dyn FnMut(Swept),
    ) -> Result<Self> {
        let all = strengths.all();
        let plans = all.iter().map(|strength| job.steering.scaled(*strength));
        let plans: Vec<Plan> = plans.collect::<Result<_>>()?;
        let mut recorder = Recorder::of_branch(Arc::clone(model.card()), &job, "baseline");
        let lens = Lens::new(job.lens.clone());
        let plain = Job {
            steering: Plan::default(),
            attention: false,
            attention_rows: false,
            read_last: false,
            fill: Fill::Before,
            ..job
        };
        let baseline = Generation::start(model, plain, &mut |event| {
            recorder.apply(&event);
            emit(Swept::Baseline(event));
        })?;
        let schema = Arc::clone(lens.schema());
        Ok(Self {
            curve: Curve::new(schema, model.card().blocks + 1, Arc::clone(all)),
            lens,
            baseline: Some(baseline),
            recorder,
            ended: None,
            plans,
            tokens: Vec::new(),
            prompt: 0,
            positions: Vec::new(),
            waiting: VecDeque::new(),
            batch: None,
        })
    }

    /// What has come so far.
    #[must_use]
    pub fn curve(&self) -> &Curve {
        &self.curve
    }

    /// The positions that are read under each strength; none before the plain model's run has ended.
    #[must_use]
    pub fn positions(&self) -> &[usize] {
        &self.positions
    }

    /// The curve, and a record of the plain model's run that says how it came about.
    #[must_use]
    pub fn finish(self) -> (Curve, Record) {
        let mut record = self.recorder.into_record();
        record.ended = Some(std::time::SystemTime::now());
        (self.curve, record)
    }

    /// Go on by one step of the plain model's run, or read one chunk of its text under some strengths. `Some` once there is
    /// nothing left: why the plain model's run ended.
    ///
    /// # Errors
    /// If a tensor operation fails; the sweep cannot go on then.
    pub fn advance(
        &mut self,
        model: &Model,
        emit: &mut dyn FnMut(Swept),
    ) -> Result<Option<Finish>> {
        if let Some(baseline) = &mut self.baseline {
            let recorder = &mut self.recorder;
            let mut heard = |event| {
                recorder.apply(&event);
                emit(Swept::Baseline(event));
            };
            let Some(why) = baseline.advance(model, &mut heard)? else {
                return Ok(None);
            };
            heard(Event::Finished(why));
            self.baseline = None;
            self.ended = Some(why);
            self.plain(model, emit);
        } else {
            let batch = match self.batch.take() {
                Some(batch) => Some(batch),
                None => self.next_batch(model),
            };
            if let Some(batch) = batch {
                self.step(model, batch, emit)?;
            }
        }
        let done = self.batch.is_none() && self.waiting.is_empty();
        Ok(self.ended.filter(|_| done))
    }

    /// End it where it is; the strengths that are complete stay.
    pub fn stop(&mut self, emit: &mut dyn FnMut(Swept)) -> Finish {
        if self.baseline.take().is_some() {
            let stopped = Event::Finished(Finish::Stopped);
            self.recorder.apply(&stopped);
            emit(Swept::Baseline(stopped));
            self.ended = Some(Finish::Stopped);
        }
        let unread = self.batch.take().is_some() || !self.waiting.is_empty();
        self.waiting.clear();
        match self.ended {
            Some(why) if !unread => why,
            _ => Finish::Stopped,
        }
    }

    /// The plain model's run has ended: its point, and those of the strengths that change nothing.
    fn plain(&mut self, model: &Model, emit: &mut dyn FnMut(Swept)) {
        let Some(grid) = self.recorder.grid() else {
            return;
        };
        self.tokens = grid.tokens().iter().map(|token| token.id).collect();
        self.prompt = grid.prompt_len();
        let (positions, _) = summarised([grid], model.card());
        let read = positions.iter().filter_map(|at| grid.cells(*at).cloned());
        let cells: Vec<Arc<Cells>> = read.collect();
        self.positions = positions;
        let (states, schema) = (self.curve.states(), Arc::clone(self.lens.schema()));
        let point = Arc::new(Point::of(&cells, states, schema.len()));
        self.curve.set_baseline(point);
        for strength in 0..self.plans.len() {
            if !self.plans[strength].interventions(self.prompt).is_empty() {
                self.waiting.push_back(strength);
                continue;
            }
            let same = cells.iter().map(|cells| beside_itself(cells, &schema));
            let same: Vec<Arc<Cells>> = same.map(Arc::new).collect();
            for (position, cells) in self.positions.iter().zip(&same) {
                emit(Swept::Cells {
                    strength,
                    position: *position,
                    cells: Arc::clone(cells),
                });
            }
            self.complete(strength, &same, emit);
        }
    }

    fn complete(&mut self, strength: usize, cells: &[Arc<Cells>], emit: &mut dyn FnMut(Swept)) {
        let metrics = self.lens.schema().len();
        let point = Arc::new(Point::of(cells, self.curve.states(), metrics));
        self.curve.set(strength, Arc::clone(&point));
        emit(Swept::Point { strength, point });
    }

    /// As many of the waiting strengths as may be read together.
    fn next_batch(&mut self, model: &Model) -> Option<Batch> {
        let memory = model.plan();
        let at_once = match model.card().causal {
            true => CHUNK.min(self.tokens.len()),
            false => self.tokens.len(),
        };
        let schema = self.lens.schema();
        let cell = self.positions.len() * (schema.len() + 2 * schema.top() + 1);
        // The states as they were tapped, and as the lens gathers them.
        let numbers = self.curve.states() * (cell + 2 * at_once * model.card().d_model);
        let row = memory
            .per_token
            .saturating_mul(self.tokens.len() as u64)
            .saturating_add(memory.per_branch)
            .saturating_add(4 * numbers as u64);
        let rows = (BYTES / row.max(1)).min(ROWS as u64) as usize;
        let count = rows.saturating_sub(1).clamp(1, self.waiting.len().max(1));
        let memory = || {
            let mut state = model.decoder().state();
            // As the plain model's run began.
            state.announce(self.prompt);
            state
        };
        let strengths = self.waiting.drain(..count.min(self.waiting.len()));
        let branches = strengths.map(|strength| Branch {
            strength,
            state: memory(),
            interventions: self.plans[strength].interventions(self.prompt),
            cells: Vec::with_capacity(self.positions.len()),
        });
        let branches: Vec<Branch> = branches.collect();
        (!branches.is_empty()).then(|| Batch {
            plain: memory(),
            branches,
            read: 0,
        })
    }

    /// Where the next chunk of the text ends.
    fn chunk_end(&self, model: &Model, rows: usize, from: usize) -> usize {
        if !model.card().causal {
            return self.tokens.len();
        }
        let until = self.positions.last().map_or(0, |last| last + 1);
        let to = until.min(from + chunk(model, rows, false, from));
        match by_length(model) {
            // Token by token, as it was drawn: each must find the text as long as it was then.
            true if from >= self.prompt => until.min(from + 1),
            true => to.min(self.prompt),
            false => to,
        }
    }

    /// Read one chunk of the text under the strengths of a batch.
    fn step(&mut self, model: &Model, mut batch: Batch, emit: &mut dyn FnMut(Swept)) -> Result<()> {
        let causal = model.card().causal;
        let rows = batch.branches.len() + 1;
        let from = batch.read;
        let to = self.chunk_end(model, rows, from);
        let within = self.positions.iter().filter(|at| (from..to).contains(at));
        let within: Vec<usize> = within.copied().collect();
        let taps = Taps {
            states: !within.is_empty(),
            attention: false,
        };
        let text = &self.tokens[from..to];
        let plain = Row::new(text, causal.then_some(&mut batch.plain));
        let steered = batch.branches.iter_mut().map(|branch| {
            let row = Row::new(text, causal.then_some(&mut branch.state));
            row.steered(&branch.interventions)
        });
        let mut all: Vec<Row<'_>> = std::iter::once(plain).chain(steered).collect();
        let traced = model.decoder().forward(&mut all, taps)?;
        drop(all);
        if !within.is_empty() {
            let which = Which::beside(within.iter().map(|at| at - from), rows, to - from);
            let next = |at: &usize| self.tokens.get(at + 1).copied().filter(|_| causal);
            let targets: Vec<Option<u32>> = within
                .iter()
                .flat_map(|at| std::iter::repeat_n(next(at), rows))
                .collect();
            let cells = self.lens.cells(model.decoder(), &traced, which, &targets)?;
            for (i, mut cells) in cells.into_iter().enumerate() {
                // The plain model's have been there from the first.
                let Some(branch) = (i % rows).checked_sub(1) else {
                    continue;
                };
                cells.plan = 1;
                let branch = &mut batch.branches[branch];
                let cells = Arc::new(cells);
                branch.cells.push(Arc::clone(&cells));
                emit(Swept::Cells {
                    strength: branch.strength,
                    position: within[i / rows],
                    cells,
                });
            }
        }
        batch.read = to;
        if self.positions.last().is_some_and(|last| to <= *last) {
            self.batch = Some(batch);
            return Ok(());
        }
        for branch in batch.branches {
            self.complete(branch.strength, &branch.cells, emit);
        }
        Ok(())
    }
}

/// The cells of a model that is compared with itself: as far as a distribution is known it is at no distance.
fn beside_itself(cells: &Cells, schema: &Schema) -> Cells {
    let Metric(entropy) = schema.find("entropy").unwrap_or(Metric(0));
    let rows = cells.values.chunks(schema.len().max(1));
    let apart = |row: &[f32]| match row.get(entropy) {
        Some(entropy) if !entropy.is_nan() => 0.0,
        _ => f32::NAN,
    };
    Cells {
        divergence: Some(rows.map(apart).collect()),
        ..cells.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LoadOptions;
    use crate::model::linear::READ;
    use crate::session::Prompt;
    use crate::steer::Spec;

    /// On one thread, so that all it reads is counted there.
    #[test]
    fn a_chunk_under_many_strengths_reads_each_layer_once() {
        let model = Model::load("demo", &LoadOptions::default(), &mut |_, _, _| {}).unwrap();
        let spec: Spec = "scale=0.5,layers=3..5".parse().unwrap();
        let (plan, _) = Plan::load(&[spec], model.card()).unwrap();
        let job = Job {
            steering: plan,
            ..Job::new(Prompt::Text("Once upon a time there was".into()), 0)
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let pool = pool.unwrap();
        let counted = |strengths: &str| {
            pool.install(|| {
                let strengths: Strengths = strengths.parse().unwrap();
                let job = job.clone();
                let mut sweep = Sweep::start(&model, job, &strengths, &mut |_| {}).unwrap();
                // The prompt by the plain model.
                assert_eq!(sweep.advance(&model, &mut |_| {}).unwrap(), None);
                READ.set(0);
                let done = sweep.advance(&model, &mut |_| {}).unwrap();
                assert_eq!(done, Some(Finish::Length));
                assert_eq!(sweep.curve().done(), strengths.all().len());
                READ.get()
            })
        };
        let two = counted("1..2/2");
        assert!(two > model.card().blocks, "{two}");
        assert_eq!(counted("1..2/3"), two);
        // Of more strengths the lens puts the states through the head in several turns: a matrix a turn.
        let many = counted("1..2/15");
        assert!((two + 1..two + 5).contains(&many), "{many}");
    }
}
