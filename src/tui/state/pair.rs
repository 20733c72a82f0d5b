//! Two prompts side by side: one that the model should know beside one that it should not, pair after pair of two sets.

use super::{Level, State};
use crate::session::Prompt;
use crate::trace::Pairing;
use crate::tui::effect::Effect;

/// The pair at hand.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The other branch's prompt.
    pub beside: Prompt,
    /// Which pair it is, from 1.
    pub number: usize,
    /// Pairs in all.
    pub of: usize,
    /// What both sets are called.
    pub names: [&'static str; 2],
}

impl State {
    /// The next pair: prompts of the longer set pass by prompts of the shorter one again.
    pub(super) fn compare_prompts(&mut self) -> Vec<Effect> {
        let sets = match self.prompt_sets() {
            Ok(sets) => sets,
            Err(why) => {
                self.note(Level::Warn, why);
                return Vec::new();
            }
        };
        let [known, unknown] = &sets.prompts;
        let of = known.len().max(unknown.len());
        let next = match &self.pair {
            Some(pair) if self.compare == Some(Pairing::Prompts) => pair.number % of.max(1),
            _ => 0,
        };
        let at = |prompts: &[Prompt]| prompts.get(next % prompts.len().max(1)).cloned();
        let (Some(first), Some(beside)) = (at(known), at(unknown)) else {
            return Vec::new();
        };
        if let Prompt::Text(text) | Prompt::Chat(text) = &first {
            self.prompt.set(text);
        }
        self.pair = Some(Pair {
            beside,
            number: next + 1,
            of,
            names: sets.names,
        });
        self.second.leave();
        self.compare = Some(Pairing::Prompts);
        self.overlay = None;
        self.submit()
    }

    /// The pair that is compared, while pairs are.
    #[must_use]
    pub fn pair(&self) -> Option<&Pair> {
        let compared = self.compare == Some(Pairing::Prompts) && !self.second.on;
        self.pair.as_ref().filter(|_| compared)
    }
}
