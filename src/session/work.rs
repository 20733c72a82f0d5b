//! What the engine thread does step by step: a run, a comparison, two sets of prompts. Between two steps it listens.

use super::compare::Comparison;
use super::generation::Generation;
use super::protocol::{Event, Finish};
use super::sets::Sets;
use crate::error::Result;
use crate::model::{Model, Sampling};
use crate::steer::Plan;
use std::ops::Range;

/// From where on a plan is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// What [`Cells::plan`](crate::trace::Cells::plan) of the cells under it is; 0 is the plain model.
    pub number: u32,
    /// The first position that is read under it.
    pub from: usize,
}

/// One piece of work. What makes no sense for a kind of work does nothing.
pub(super) trait Work {
    /// Do one step. `Some` once there is nothing left to do.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn advance(&mut self, model: &Model, emit: &mut dyn FnMut(Event)) -> Result<Option<Finish>>;

    /// Tokens drawn so far; a step by hand is over when there are more.
    fn drawn(&self) -> usize {
        0
    }

    /// Allow this many more tokens.
    fn extend(&mut self, _more: usize) {}

    /// Whether cells of tokens that are there already are to be read.
    fn owes(&self) -> bool {
        false
    }

    /// Read some of these.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn fill(&mut self, _model: &Model, _emit: &mut dyn FnMut(Event)) -> Result<()> {
        Ok(())
    }

    /// What is on the screen.
    fn look(&mut self, _positions: Range<usize>) {}

    /// Draw differently from the next token on.
    fn set_sampling(&mut self, _sampling: Sampling) {}

    /// Push the states of all tokens that have not been read otherwise. `None` where it comes too late for any.
    fn steer(&mut self, _plan: &Plan) -> Option<Turn> {
        None
    }

    /// Read the text so far once more, all of it under the plan in force; the cells are owed then.
    fn replay(&mut self, _model: &Model) -> bool {
        false
    }

    /// Forget how long ago the last token was drawn.
    fn restart_clock(&mut self) {}
}

impl Work for Generation {
    fn advance(&mut self, model: &Model, emit: &mut dyn FnMut(Event)) -> Result<Option<Finish>> {
        Self::advance(self, model, emit)
    }

    fn drawn(&self) -> usize {
        Self::drawn(self)
    }

    fn extend(&mut self, more: usize) {
        Self::extend(self, more);
    }

    fn owes(&self) -> bool {
        Self::owes(self)
    }

    fn fill(&mut self, model: &Model, emit: &mut dyn FnMut(Event)) -> Result<()> {
        Self::fill(self, model, emit)
    }

    fn look(&mut self, positions: Range<usize>) {
        Self::look(self, positions);
    }

    fn set_sampling(&mut self, sampling: Sampling) {
        Self::set_sampling(self, sampling);
    }

    fn steer(&mut self, plan: &Plan) -> Option<Turn> {
        Self::steer(self, plan)
    }

    fn replay(&mut self, model: &Model) -> bool {
        Self::replay(self, model)
    }

    fn restart_clock(&mut self) {
        Self::restart_clock(self);
    }
}

impl Work for Comparison {
    fn advance(&mut self, model: &Model, emit: &mut dyn FnMut(Event)) -> Result<Option<Finish>> {
        let ended = Self::advance(self, model, &mut |side, event| {
            emit(Event::Side(side, Box::new(event)));
        })?;
        Ok(ended.map(|[baseline, _]| baseline))
    }

    fn drawn(&self) -> usize {
        Self::drawn(self)
    }

    fn extend(&mut self, more: usize) {
        Self::extend(self, more);
    }

    fn owes(&self) -> bool {
        Self::owes(self)
    }

    fn fill(&mut self, model: &Model, emit: &mut dyn FnMut(Event)) -> Result<()> {
        Self::fill(self, model, &mut |side, event| {
            emit(Event::Side(side, Box::new(event)));
        })
    }

    fn set_sampling(&mut self, sampling: Sampling) {
        Self::set_sampling(self, &sampling);
    }

    fn steer(&mut self, plan: &Plan) -> Option<Turn> {
        Self::steer(self, plan)
    }

    fn replay(&mut self, model: &Model) -> bool {
        Self::replay(self, model)
    }

    fn restart_clock(&mut self) {
        Self::restart_clock(self);
    }
}

impl Work for Sets {
    fn advance(&mut self, model: &Model, emit: &mut dyn FnMut(Event)) -> Result<Option<Finish>> {
        let more = Self::advance(self, model, &mut |set, sample| {
            emit(Event::Sample(set, sample.clone()));
        })?;
        Ok((!more).then_some(Finish::Read))
    }
}
