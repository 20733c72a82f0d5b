//! Two models as work of the engine thread, which owns the first; the second is kept for the next prompt too.

use super::super::protocol::{Event, Fill, Finish, Job};
use super::super::work::Work;
use super::Against;
use crate::error::Result;
use crate::model::{Model, Sampling};
use crate::trace::{Kind, Pairing, Side};
use std::rc::Rc;

/// A comparison with the second model.
pub(in crate::session) struct Beside {
    against: Against,
    b: Rc<Model>,
    counts: Counts,
}

/// What the branches have said of themselves.
#[derive(Default)]
struct Counts {
    drawn: [usize; 2],
    ended: [Option<Finish>; 2],
}

impl Counts {
    /// Take note of an event and pass it on.
    fn pass(&mut self, side: Side, event: Event, emit: &mut dyn FnMut(Event)) {
        match &event {
            Event::Token(token) if token.kind == Kind::Generated => self.drawn[side as usize] += 1,
            Event::Finished(why) => self.ended[side as usize] = Some(*why),
            _ => {}
        }
        emit(Event::Side(side, Box::new(event)));
    }
}

impl Beside {
    /// As [`Against::start`].
    pub(in crate::session) fn start(
        a: &Model,
        b: Rc<Model>,
        job: Job,
        pairing: Pairing,
        emit: &mut dyn FnMut(Event),
    ) -> Result<Self> {
        // The models take turns, and only their own turns read what is owed.
        let job = Job {
            fill: Fill::Before,
            ..job
        };
        let mut counts = Counts::default();
        let against = Against::start(a, &b, job, pairing, &mut |side, event| {
            counts.pass(side, event, emit);
        })?;
        Ok(Self { against, b, counts })
    }
}

impl Work for Beside {
    fn advance(&mut self, model: &Model, emit: &mut dyn FnMut(Event)) -> Result<Option<Finish>> {
        let Self { against, b, counts } = self;
        let ended = against.advance(model, b, &mut |side, event| counts.pass(side, event, emit))?;
        Ok(ended.map(|ended| match model.card().causal {
            true => ended[0],
            // How the one that draws ended says more than that the other has read.
            false => ended[1],
        }))
    }

    /// What the one that is behind has drawn, so that a step by hand draws a token of each.
    fn drawn(&self) -> usize {
        let Counts { drawn, ended } = &self.counts;
        let going = drawn.iter().zip(ended).filter(|(_, ended)| ended.is_none());
        let behind = going.map(|(drawn, _)| *drawn).min();
        behind.unwrap_or_else(|| drawn[0].max(drawn[1]))
    }

    fn extend(&mut self, more: usize) {
        self.against.extend(more);
        for ended in &mut self.counts.ended {
            *ended = ended.filter(|why| *why == Finish::Read);
        }
    }

    fn set_sampling(&mut self, sampling: Sampling) {
        self.against.set_sampling(&sampling);
    }

    fn restart_clock(&mut self) {
        self.against.restart_clock();
    }
}
