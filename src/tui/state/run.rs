//! One run as the screen keeps it.

use super::Model;
use crate::lens::LensSettings;
use crate::model::{Sampling, TokenStream};
use crate::session::{Finish, Speed};
use crate::steer::Plan;
use crate::trace::{Aim, Cells, Grid, Schema, Token};
use crate::tui::show;
use std::sync::Arc;
use std::time::SystemTime;

/// The run on the screen.
#[derive(Clone, Debug)]
pub struct Run {
    /// Counts the runs of this program, so that cached readings of an earlier one are never shown.
    pub number: usize,
    /// The model that reads it.
    pub model: Option<Model>,
    /// What the cells' values are.
    pub schema: Arc<Schema>,
    /// Tokens and cells.
    pub grid: Grid,
    /// Cells that have been replaced, by a replay.
    pub(super) replaced: usize,
    /// Tokens as they stand in running text, where the vocabulary spells no spaces; empty where it does.
    pub(super) spelled: Vec<Vec<u8>>,
    /// Puts the spaces in.
    pub(super) speller: Option<TokenStream>,
    /// Tokens in the prompt.
    pub prompt_tokens: usize,
    /// Most tokens to be drawn.
    pub max_new_tokens: usize,
    /// How tokens are drawn, from the first on.
    pub sampling: Sampling,
    /// Changes on the way, each with the position of the first token drawn by it.
    pub sampling_changes: Vec<(usize, Sampling)>,
    /// What the lens computes.
    pub lens: LensSettings,
    /// What pushes the states, from the first token on.
    pub steering: Plan,
    /// Changes on the way, each with the first position read under it.
    pub steering_changes: Vec<(usize, Plan)>,
    /// What each label of the cells ([`Cells::plan`](crate::trace::Cells::plan)) stands for, in words; 0 is the plain model.
    pub plans: Vec<(u32, String)>,
    /// Why this branch ended, when it has ended before the run.
    pub finish: Option<Finish>,
    /// Measured speed.
    pub speed: Speed,
    /// Wall-clock start.
    pub started: SystemTime,
    /// Wall-clock end.
    pub ended: Option<SystemTime>,
}

impl Run {
    /// The bytes of the token at `position` as they stand in running text.
    #[must_use]
    pub fn text_of(&self, position: usize) -> &[u8] {
        let own = self.grid.tokens().get(position).map(|t| &t.bytes[..]);
        let spelled = self.spelled.get(position).map(|t| &t[..]);
        spelled.or(own).unwrap_or_default()
    }

    /// Take in a token.
    pub(super) fn push(&mut self, token: Token) {
        if let Some(speller) = &mut self.speller {
            let piece = speller.push(token.id).into_bytes();
            // Only a space may be added: what the token itself says stays.
            let fits = piece.ends_with(&token.bytes) && piece.len() <= token.bytes.len() + 1;
            self.spelled
                .push(if fits { piece } else { token.bytes.clone() });
        }
        self.grid.push_token(token);
    }

    /// Whether its model fills gaps instead of going on from a text.
    #[must_use]
    pub fn masked(&self) -> bool {
        self.grid.aim() == Aim::Itself
    }

    /// Whether the token at a position is a gap to fill.
    #[must_use]
    pub fn is_mask(&self, position: usize) -> bool {
        let token = self.grid.tokens().get(position);
        let both = token.zip(self.model.as_ref());
        both.is_some_and(|(token, model)| model.card.is_mask(token.id))
    }

    /// Positions of the gaps, in order.
    #[must_use]
    pub fn masks(&self) -> Vec<usize> {
        let card = self.model.as_ref().map(|model| &model.card);
        card.map_or(Vec::new(), |card| self.grid.masks(card))
    }

    /// A candidate of its model as it is shown.
    #[must_use]
    pub fn word(&self, id: u32) -> String {
        self.model.as_ref().map_or_else(
            || format!("#{id}"),
            |model| show::cut(&show::visible(&model.tokenizer.display(id)), show::LABEL),
        )
    }

    /// How the next token is drawn.
    #[must_use]
    pub fn sampling_now(&self) -> &Sampling {
        self.sampling_changes
            .last()
            .map_or(&self.sampling, |(_, sampling)| sampling)
    }

    /// Take in what was read at a position.
    pub(super) fn set_cells(&mut self, position: usize, cells: Arc<Cells>) {
        self.replaced += usize::from(self.grid.cells(position).is_some());
        self.grid.set_cells(position, cells);
    }

    /// Grows with every cell that is new or another one than before.
    pub(super) fn version(&self) -> usize {
        self.grid.read() + self.replaced
    }

    /// What the last position that was read was read under, in words; what is in force (`label`) while nothing has been.
    #[must_use]
    pub fn plan_last<'a>(&'a self, label: &'a str) -> &'a str {
        let last = self.newest_read().and_then(|at| self.plan_at(at));
        match last {
            Some("plain") => "",
            Some(words) => words,
            None => label,
        }
    }

    /// What the cells of a position were read under, in words; `None` where they have not been read.
    #[must_use]
    pub fn plan_at(&self, position: usize) -> Option<&str> {
        let number = self.grid.cells(position)?.plan;
        let known = self.plans.iter().find(|(known, _)| *known == number);
        Some(known.map_or("plain", |(_, words)| words))
    }

    /// The plan in force for what is read next.
    #[must_use]
    pub fn plan_now(&self) -> &Plan {
        let changed = self.steering_changes.last();
        changed.map_or(&self.steering, |(_, plan)| plan)
    }

    /// Whether the cells of a position were read under another plan than those before it.
    #[must_use]
    pub fn turns_at(&self, position: usize) -> bool {
        let plan = |position: usize| self.grid.cells(position).map(|cells| cells.plan);
        let before = position.checked_sub(1).and_then(plan);
        matches!((before, plan(position)), (Some(a), Some(b)) if a != b)
    }

    /// Whether cells of different plans stand side by side.
    #[must_use]
    pub fn mixed(&self) -> bool {
        (1..self.grid.len()).any(|position| self.turns_at(position))
    }

    /// The last position that has been read.
    #[must_use]
    pub fn newest_read(&self) -> Option<usize> {
        (0..self.grid.len())
            .rev()
            .find(|p| self.grid.cells(*p).is_some())
    }

    /// How many tokens have been drawn.
    #[must_use]
    pub fn drawn(&self) -> usize {
        self.grid.len().saturating_sub(self.prompt_tokens)
    }
}
