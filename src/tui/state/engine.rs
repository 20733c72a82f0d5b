//! What the engine reports, taken into the state.

use super::{Beside, Level, Model, Phase, Run, State};
use crate::error::Error;
use crate::lens::sparsity;
use crate::model::TokenStream;
use crate::session::{Event, Speed, branch_names};
use crate::steer::Plan;
use crate::trace::{Aim, Grid, Metric, Schema, Side};
use crate::tui::effect::Effect;
use std::sync::Arc;

impl State {
    /// Take one event. Cheap: nothing is computed here that drawing may not need.
    pub(super) fn hear(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Loading { what, done, total } => {
                if !matches!(self.phase, Phase::Loading { .. }) {
                    self.loading_since = self.clock.elapsed;
                }
                self.phase = Phase::Loading {
                    what: crate::tui::show::visible(&what),
                    done,
                    total,
                };
            }
            Event::Loaded { card, tokenizer } => {
                self.cursor.layer = card.blocks;
                self.null_line = Some(sparsity::null_line(card.d_model, &self.job.lens));
                self.model = Some(Model { card, tokenizer });
                self.run = None;
                self.beside = None;
                self.sweep = None;
                self.second.announced = None;
                self.drop_sets();
                self.offer_samples();
                self.offer_vectors();
                self.phase = Phase::Ready;
                self.offer_sets();
                let mut effects = Vec::new();
                if !self.steering.asked().is_empty() {
                    effects = self.steer();
                }
                if std::mem::take(&mut self.run_when_loaded) {
                    effects.extend(self.submit());
                }
                return effects;
            }
            Event::LoadingOther { what, done, total } => self.loading_other(&what, done, total),
            Event::OtherLoaded { card, tokenizer } => {
                self.second.loading = None;
                self.second.announced = Some(Model { card, tokenizer });
            }
            Event::Started {
                schema,
                prompt_tokens,
                max_new_tokens,
            } => {
                self.begin(&schema);
                let model = self.model.clone();
                let run = self.fresh_run(model, schema, prompt_tokens, max_new_tokens, true);
                self.run = Some(run);
            }
            Event::Side(side, event) => return self.hear_side(side, *event),
            Event::Token(token) => {
                let model = self.model.as_ref();
                let gap = model.is_some_and(|m| m.card.is_mask(token.id));
                let first_gap = gap && self.masks().is_empty();
                if let Some(run) = &mut self.run {
                    if first_gap {
                        self.cursor.position = run.grid.len();
                    }
                    run.push(token);
                    run.finish = None;
                    if self.phase == Phase::Reading && run.drawn() > 0 {
                        self.phase = Phase::Streaming;
                    }
                }
            }
            Event::Cells { position, cells } => {
                if let Some(run) = &mut self.run {
                    run.set_cells(position, cells);
                }
            }
            Event::Speed(speed) => {
                if let Some(run) = &mut self.run {
                    run.speed = speed;
                }
            }
            Event::Steered {
                plan,
                turn,
                remarks,
            } => self.steered(plan, turn, &remarks),
            Event::NotSteered(error) => self.not_steered(&error),
            Event::Sweeping(curve) => self.sweeping(curve),
            Event::Swept { strength, point } => self.swept(strength, point),
            Event::SweepEnded(record) => self.sweep_ended(*record),
            Event::Replaying => self.replaying(),
            Event::Separating {
                schema,
                states,
                total,
            } => self.separating(schema, states, total),
            Event::Sample(set, sample) => self.sampled(set, sample),
            Event::Paused => self.phase = Phase::Paused,
            Event::Resumed => {
                let draws = self.branches().any(|run| run.drawn() > 0);
                self.phase = if draws && self.sets.is_none() {
                    Phase::Streaming
                } else {
                    Phase::Reading
                };
            }
            Event::Finished(_) if self.sets_aside.takes_end() => {}
            Event::Finished(finish) => {
                self.phase = Phase::Done(finish);
                // What has been submitted may yet be refused.
                if let Some(before) = &mut self.before_submit {
                    *before = self.phase.clone();
                }
                self.note_end();
            }
            Event::Failed(error) => self.fail(&error),
        }
        Vec::new()
    }

    /// One event of a comparison. What the baseline says is heard as if it ran alone.
    fn hear_side(&mut self, side: Side, event: Event) -> Vec<Effect> {
        match (side, event) {
            (
                Side::A,
                Event::Started {
                    schema,
                    prompt_tokens,
                    max_new_tokens,
                },
            ) => {
                self.begin(&schema);
                let model = self.model.clone();
                // What is in force pushes one side of a comparison, but both of two prompts.
                let pushed = self.pair().is_some();
                let run = self.fresh_run(model, schema, prompt_tokens, max_new_tokens, pushed);
                self.run = Some(run);
            }
            (
                Side::B,
                Event::Started {
                    schema,
                    prompt_tokens,
                    max_new_tokens,
                },
            ) => {
                let other = self.second.announced.take();
                let names = match (&self.model, &other) {
                    (Some(a), Some(b)) => Some(branch_names(&a.card, &b.card)),
                    _ => self.pair().map(|pair| pair.names.map(str::to_owned)),
                };
                // No vector pushes two models.
                let pushed = other.is_none();
                let model = other.or_else(|| self.model.clone());
                self.beside = Some(Beside {
                    run: self.fresh_run(model, schema, prompt_tokens, max_new_tokens, pushed),
                    pairing: self.compare.unwrap_or_default(),
                    names,
                });
            }
            (Side::A, Event::Finished(finish)) => {
                if let Some(run) = &mut self.run {
                    run.finish = Some(finish);
                }
            }
            (Side::A, event) => return self.hear(event),
            (Side::B, event) => {
                let Some(Beside { run, .. }) = &mut self.beside else {
                    return Vec::new();
                };
                match event {
                    Event::Token(token) => {
                        run.push(token);
                        run.finish = None;
                        // Of two models the second may be the one that draws.
                        if self.phase == Phase::Reading && run.drawn() > 0 {
                            self.phase = Phase::Streaming;
                        }
                    }
                    Event::Cells { position, cells } => {
                        run.set_cells(position, cells);
                    }
                    Event::Finished(finish) => run.finish = Some(finish),
                    _ => {}
                }
            }
        }
        Vec::new()
    }

    /// Make room for a run of these columns.
    fn begin(&mut self, schema: &Schema) {
        self.before_submit = None;
        self.compared_as_asked();
        self.keep_metric(schema);
        self.drop_sets();
        self.runs += 1;
        self.beside = None;
        self.phase = Phase::Reading;
        let masked = self.masked();
        let blocks = self.model.as_ref().map_or(0, |m| m.card.blocks);
        // A masked model reads everything at once: there is nothing to follow, but a gap to stand on.
        self.cursor.follow = !masked;
        self.cursor.position = 0;
        self.cursor.layer = match masked {
            true => blocks,
            false => self.cursor.layer.min(blocks),
        };
        self.map.left = 0;
        self.stream_top = 0;
        self.stream_loose = false;
    }

    /// A run that has just begun, under what is in force if it is `pushed`.
    fn fresh_run(
        &self,
        model: Option<Model>,
        schema: Arc<Schema>,
        prompt_tokens: usize,
        max_new_tokens: usize,
        pushed: bool,
    ) -> Run {
        let blocks = model.as_ref().map_or(0, |m| m.card.blocks);
        let masked = model.as_ref().is_some_and(|m| !m.card.causal);
        // Word pieces have no spaces of their own; the vocabularies of models that go on from a text do.
        let speller = model.as_ref().filter(|_| masked);
        let speller = speller.map(|m| TokenStream::new(Arc::clone(&m.tokenizer), false));
        let steering = match pushed {
            true => self.steering.plan.clone(),
            false => Plan::default(),
        };
        Run {
            number: self.runs,
            grid: Grid::new(blocks, schema.len(), schema.top()).aimed(Aim::of(!masked)),
            replaced: 0,
            spelled: Vec::new(),
            speller,
            model,
            schema,
            prompt_tokens,
            max_new_tokens,
            sampling: self.settings.sampling.clone(),
            sampling_changes: Vec::new(),
            lens: self.job.lens.clone(),
            plans: match pushed && !steering.is_empty() {
                true => vec![(1, self.steering.label.clone())],
                false => Vec::new(),
            },
            steering,
            steering_changes: Vec::new(),
            finish: None,
            speed: Speed::default(),
            started: self.clock.wall,
            ended: None,
        }
    }

    /// The engine thread is gone; nothing can be run any more, but everything can still be read and exported.
    pub(super) fn engine_gone(&mut self, why: Option<&str>) {
        if self.phase.is_running() || matches!(self.phase, Phase::Loading { .. }) {
            self.phase = Phase::Failed;
        }
        let why = why.map_or(String::new(), |w| format!(": {w}"));
        self.note(
            Level::Error,
            format!("The engine thread has ended{why}. Export what you need and start again."),
        );
    }

    fn fail(&mut self, error: &Error) {
        self.compared_as_before();
        if matches!(self.phase, Phase::Loading { .. }) {
            self.phase = match self.model {
                Some(_) => Phase::Ready,
                None => Phase::NoModel,
            };
        } else if let Some(before) = self.before_submit.take() {
            // The prompt was refused before it began: the run on the screen is what it was.
            self.phase = before;
        } else if self.phase.is_running() {
            self.phase = Phase::Failed;
            self.note_end();
        } else {
            self.sets_aside.takes_end();
        }
        self.note(Level::Error, error.to_string());
    }

    /// Stay with the chosen metric when the columns change.
    pub(super) fn keep_metric(&mut self, new: &crate::trace::Schema) {
        let name = self
            .columns()
            .metrics()
            .get(self.metric.0)
            .map(|m| m.name.clone());
        let name = name.filter(|_| self.applies(self.metric));
        self.metric = name
            .and_then(|name| new.find(&name))
            .or_else(|| new.find(super::FAVOURITES[0]))
            .unwrap_or(Metric(0));
    }
}
