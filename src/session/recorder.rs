//! Collects a run's events into a [`Record`].

use super::protocol::{Event, Job};
use crate::model::ModelCard;
use crate::trace::{Aim, Grid, Pairing, Record, Schema, Side};
use std::sync::Arc;
use std::time::SystemTime;

/// A record that grows with the events of one run.
#[derive(Clone, Debug)]
pub struct Recorder {
    record: Record,
}

impl Recorder {
    /// An empty record of `job` on the model of `card`.
    #[must_use]
    pub fn new(card: Arc<ModelCard>, job: &Job) -> Self {
        Self::of(card, job, &["main"], None)
    }

    /// An empty record of a comparison: the steering of `job` against the plain model.
    #[must_use]
    pub fn of_comparison(card: Arc<ModelCard>, job: &Job, pairing: Pairing) -> Self {
        Self::of(card, job, &Side::BOTH.map(Side::label), Some(pairing))
    }

    /// An empty record of `job` with one branch of this name.
    #[must_use]
    pub fn of_branch(card: Arc<ModelCard>, job: &Job, name: &str) -> Self {
        Self::of(card, job, &[name], None)
    }

    fn of(card: Arc<ModelCard>, job: &Job, branches: &[&str], comparison: Option<Pairing>) -> Self {
        let schema = Arc::new(Schema::new(&job.lens));
        let grid = Grid::new(card.blocks, schema.len(), schema.top()).aimed(Aim::of(card.causal));
        let max_new_tokens = if card.causal { job.max_new_tokens } else { 0 };
        Self {
            record: Record {
                model: card,
                schema,
                sampling: job.sampling.clone(),
                sampling_changes: Vec::new(),
                lens: job.lens.clone(),
                steering: job.steering.description(),
                steering_changes: Vec::new(),
                comparison,
                max_new_tokens,
                branches: branches
                    .iter()
                    .map(|name| ((*name).to_owned(), grid.clone()))
                    .collect(),
                started: SystemTime::now(),
                ended: None,
            },
        }
    }

    /// Take in one event of a run or, as the engine tells it, of a comparison.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Side(side, event) => self.apply_side(*side, event),
            Event::Steered {
                plan,
                turn: Some(turn),
                ..
            } if turn.from > 0 => {
                let change = (turn.from, plan.description());
                self.record.steering_changes.push(change);
            }
            event => self.apply_to(0, event),
        }
    }

    /// Take in one event of one side of a comparison.
    pub fn apply_side(&mut self, side: Side, event: &Event) {
        self.apply_to(side as usize, event);
    }

    fn apply_to(&mut self, branch: usize, event: &Event) {
        let Some((_, grid)) = self.record.branches.get_mut(branch) else {
            return;
        };
        match event {
            Event::Started { schema, .. } => self.record.schema = schema.clone(),
            Event::Token(token) => grid.push_token(token.clone()),
            Event::Cells { position, cells } => {
                grid.set_cells(*position, cells.clone());
            }
            Event::Finished(_) => self.record.ended = Some(SystemTime::now()),
            Event::Resumed => self.record.ended = None,
            Event::Loading { .. }
            | Event::Loaded { .. }
            | Event::LoadingOther { .. }
            | Event::OtherLoaded { .. }
            | Event::Speed(_)
            | Event::Side(..)
            | Event::Separating { .. }
            | Event::Sample(..)
            | Event::Steered { .. }
            | Event::NotSteered(_)
            | Event::Replaying
            | Event::Sweeping(_)
            | Event::Swept { .. }
            | Event::SweepEnded(_)
            | Event::Paused
            | Event::Failed(_) => {}
        }
    }

    /// The record so far.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The grid so far.
    #[must_use]
    pub fn grid(&self) -> Option<&Grid> {
        self.record.branches.first().map(|(_, grid)| grid)
    }

    /// The finished record.
    #[must_use]
    pub fn into_record(self) -> Record {
        self.record
    }
}
