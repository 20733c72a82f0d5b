//! Known | near-OOD: two sets of prompts, read several at a time, each sample a mean over the positions that predict.

use super::generation::{nothing_to_draw, tokenize};
use super::protocol::{Job, Prompt};
use super::recorder::Recorder;
use crate::error::{Error, Result};
use crate::lens::{Lens, Which};
use crate::model::cache::State;
use crate::model::decoder::{Row, Taps};
use crate::model::{Intervention, Model, ModelCard, Sampler};
use crate::trace::{Cells, Record, Sample, Samples, Set};
use std::collections::VecDeque;
use std::sync::Arc;

/// Prompts read at once.
const BATCH: usize = 16;
/// Their tokens in all, unless a single prompt has more.
const TOKENS: usize = 512;

/// Two sets to compare.
#[derive(Clone, Debug)]
pub struct SetJob {
    /// What the model should know.
    pub known: Vec<Prompt>,
    /// What it should not.
    pub unknown: Vec<Prompt>,
    /// How each prompt is read and gone on from; its own prompt, and what it says of attention and last tokens, are not
    /// looked at. Where it draws nothing, the last position of the prompt is read.
    pub each: Job,
}

/// Two sets being read.
pub struct Sets {
    job: Job,
    lens: Lens,
    waiting: VecDeque<Reading>,
    /// The prompts that are read together.
    batch: Vec<Reading>,
    samples: Samples,
    total: usize,
    limit: usize,
    record: Record,
}

/// One prompt on its way.
struct Reading {
    set: Set,
    tokens: Vec<u32>,
    prompt: usize,
    state: State,
    interventions: Vec<Intervention>,
    sampler: Sampler,
    /// `[L + 1][metrics]`: sum and number of what is defined.
    sums: Vec<(f64, u32)>,
    done: bool,
}

impl Reading {
    fn take(&mut self, cells: &Cells) {
        for ((sum, n), value) in self.sums.iter_mut().zip(&cells.values) {
            if value.is_finite() {
                *sum += f64::from(*value);
                *n += 1;
            }
        }
    }

    fn sample(&self) -> Sample {
        let mean = |(sum, n): &(f64, u32)| sum / f64::from(*n);
        Sample {
            prompt_tokens: self.prompt,
            values: self.sums.iter().map(mean).collect(),
        }
    }
}

impl Sets {
    /// Tokenize all prompts. The sets take turns, so that both grow while they are read.
    ///
    /// # Errors
    /// If a set is empty, a prompt is empty or longer than the context, or the settings make no sense.
    pub fn start(model: &Model, job: SetJob) -> Result<Self> {
        let SetJob {
            known,
            unknown,
            each,
        } = job;
        each.sampling.validate()?;
        let states = model.card().blocks + 1;
        let lens = Lens::new(each.lens.clone());
        let mut waiting = Vec::with_capacity(known.len() + unknown.len());
        for (set, prompts) in [(Set::Known, &known), (Set::Unknown, &unknown)] {
            if prompts.is_empty() {
                return Err(Error::Usage(format!(
                    "there are no {} prompts: give some",
                    set.label()
                )));
            }
            for (i, prompt) in prompts.iter().enumerate() {
                let tokens = tokenize(model, prompt).map_err(|e| match e {
                    Error::Usage(problem) => {
                        Error::Usage(format!("{} prompt {}: {problem}", set.label(), i + 1))
                    }
                    other => other,
                })?;
                let turn = (i as f64 + 0.5) / prompts.len() as f64;
                let reading = Reading {
                    set,
                    prompt: tokens.len(),
                    state: model.decoder().state(),
                    interventions: each.steering.interventions(tokens.len()),
                    sampler: Sampler::new(each.sampling.clone()),
                    sums: vec![(0.0, 0); states * lens.schema().len()],
                    done: false,
                    tokens,
                };
                waiting.push((turn, reading));
            }
        }
        waiting.sort_by(|a, b| a.0.total_cmp(&b.0));
        let record = Self::record(Arc::clone(model.card()), &each);
        Ok(Self {
            samples: Samples::new(Arc::clone(lens.schema()), states, each.sampling.seed),
            total: waiting.len(),
            limit: if model.card().causal {
                each.max_new_tokens
            } else {
                0
            },
            waiting: waiting.into_iter().map(|(_, reading)| reading).collect(),
            batch: Vec::new(),
            job: each,
            lens,
            record,
        })
    }

    /// A record without branches that says how sets are read by `each` on the model of `card`.
    #[must_use]
    pub fn record(card: Arc<ModelCard>, each: &Job) -> Record {
        let mut record = Recorder::new(card, each).into_record();
        record.branches.clear();
        record
    }

    /// What has come so far.
    #[must_use]
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// Prompts in all.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }

    /// All samples, and a record without branches that says how they came about.
    #[must_use]
    pub fn finish(mut self) -> (Samples, Record) {
        self.record.ended = Some(std::time::SystemTime::now());
        (self.samples, self.record)
    }

    /// Read some prompts, or one more token of each of those at hand; `emit` hears of every sample that is complete. `false`
    /// once there is nothing left.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn advance(
        &mut self,
        model: &Model,
        emit: &mut dyn FnMut(Set, &Arc<Sample>),
    ) -> Result<bool> {
        if self.batch.is_empty() {
            self.fill();
        }
        if self.batch.is_empty() {
            return Ok(false);
        }
        match model.card().causal {
            true => self.step(model)?,
            false => self.read_whole(model)?,
        }
        let (done, on): (Vec<Reading>, Vec<Reading>) =
            self.batch.drain(..).partition(|reading| reading.done);
        self.batch = on;
        for reading in done {
            let sample = Arc::new(reading.sample());
            emit(reading.set, &sample);
            self.samples.push(reading.set, sample);
        }
        Ok(true)
    }

    fn fill(&mut self) {
        let mut tokens = 0;
        while let Some(next) = self.waiting.front() {
            tokens += next.tokens.len();
            if !self.batch.is_empty() && (tokens > TOKENS || self.batch.len() == BATCH) {
                return;
            }
            self.batch.extend(self.waiting.pop_front());
        }
    }

    /// Read what is unread of each text and draw what comes next.
    fn step(&mut self, model: &Model) -> Result<()> {
        let taps = Taps {
            states: true,
            attention: false,
        };
        let mut last = Vec::with_capacity(self.batch.len());
        let mut at = 0;
        let mut rows: Vec<Row<'_>> = Vec::with_capacity(self.batch.len());
        for reading in &mut self.batch {
            let unread = &reading.tokens[reading.state.len()..];
            at += unread.len();
            last.push(at - 1);
            let row = Row::new(unread, Some(&mut reading.state));
            rows.push(row.steered(&reading.interventions));
        }
        let traced = model.decoder().forward(&mut rows, taps)?;
        drop(rows);
        let opened = self
            .lens
            .open(model.decoder(), &traced, Which::these(last))?;
        let draws = self.limit > 0;
        let next = self.batch.iter_mut().enumerate().map(|(i, reading)| {
            if !draws {
                return Ok(None);
            }
            let logits = opened.final_logits(i);
            let drawn = reading.sampler.draw(logits, &reading.tokens);
            let failed = || nothing_to_draw(reading.tokens.len() - 1);
            drawn.ok_or_else(failed).map(Some)
        });
        let next: Vec<Option<u32>> = next.collect::<Result<_>>()?;
        let cells = self.lens.read(&opened, &next)?;
        self.lens.close(opened);
        for ((reading, cells), next) in self.batch.iter_mut().zip(&cells).zip(next) {
            reading.take(cells);
            let Some(id) = next else {
                reading.done = true;
                continue;
            };
            reading.tokens.push(id);
            let len = reading.tokens.len();
            let fits = model.card().limit().is_none_or(|limit| len <= limit);
            let ended = model.eos().contains(&id) && !self.job.ignore_eos;
            reading.done = ended || len - reading.prompt >= self.limit || !fits;
        }
        Ok(())
    }

    /// Read texts of a masked model: the gaps of each, or all of one without gaps.
    fn read_whole(&mut self, model: &Model) -> Result<()> {
        let taps = Taps {
            states: true,
            attention: false,
        };
        let mut rows: Vec<Row<'_>> = self
            .batch
            .iter()
            .map(|reading| Row::new(&reading.tokens, None).steered(&reading.interventions))
            .collect();
        let traced = model.decoder().forward(&mut rows, taps)?;
        drop(rows);
        let mut first = 0;
        for reading in &mut self.batch {
            let tokens = &reading.tokens;
            let gaps = (0..tokens.len()).filter(|at| model.card().is_mask(tokens[*at]));
            let mut read: Vec<usize> = gaps.map(|at| first + at).collect();
            if read.is_empty() {
                read = (first..first + tokens.len()).collect();
            }
            first += tokens.len();
            let targets = vec![None; read.len()];
            let which = Which::these(read);
            let cells = self.lens.cells(model.decoder(), &traced, which, &targets)?;
            cells.iter().for_each(|cells| reading.take(cells));
            reading.done = true;
        }
        Ok(())
    }
}
