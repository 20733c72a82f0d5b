//! Which positions of a text a number over all of it is read at.

use super::{Aim, Grid};
use crate::model::ModelCard;

/// What the summarised positions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summarised {
    /// Those that predicted what was drawn.
    Predicting,
    /// The gaps that a masked model fills.
    Gaps,
    /// All of a text that was read from both sides and has no gap.
    Text,
    /// All of a prompt after which nothing was drawn.
    Prompt,
}

impl Grid {
    /// The positions that means over a text are taken over, and what they are: the predicting ones, the gaps of a text that
    /// the masked model of `card` read, or all of a text that was only read.
    #[must_use]
    pub fn summarised(&self, card: &ModelCard) -> (Vec<usize>, Summarised) {
        let all = || (0..self.len()).collect();
        if self.aim() == Aim::Itself {
            let gaps = card.mask.iter().flat_map(|mask| self.positions_of(mask.id));
            let gaps: Vec<usize> = gaps.collect();
            return match gaps.is_empty() {
                false => (gaps, Summarised::Gaps),
                true => (all(), Summarised::Text),
            };
        }
        let predicting = self.predicting_positions();
        match predicting.is_empty() {
            false => (predicting.collect(), Summarised::Predicting),
            true => (all(), Summarised::Prompt),
        }
    }
}
