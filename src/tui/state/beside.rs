//! A comparison on the screen: the other branch, what the room of differences shows, and the summary by layer.

use super::models::own_layers;
use super::{Level, Overlay, Phase, Run, State};
use crate::session::Request;
use crate::trace::{Difference, Metric, Pairing, Side, Spread, summarised};
use crate::tui::action::Action;
use crate::tui::effect::Effect;
use crate::tui::layout::{Mode, Plan};
use crate::tui::widgets::Geometry;

/// The second branch of a comparison.
#[derive(Clone, Debug)]
pub struct Beside {
    /// Its tokens and cells.
    pub run: Run,
    /// What both read after the prompt.
    pub pairing: Pairing,
    /// What both models are called, where it is another one that reads.
    pub(super) names: Option<[String; 2]>,
}

/// What the map of differences shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gap {
    /// Steered − baseline, in the metric's unit.
    #[default]
    Difference,
    /// The same in percent of the baseline.
    Percent,
    /// KL(baseline‖steered) of the two lens distributions, nats.
    Divergence,
}

impl Gap {
    /// The next one in turn.
    #[must_use]
    pub fn turned(self) -> Self {
        match self {
            Self::Difference => Self::Percent,
            Self::Percent => Self::Divergence,
            Self::Divergence => Self::Difference,
        }
    }

    /// Whether values lie on both sides of zero.
    #[must_use]
    pub fn diverges(self) -> bool {
        self != Self::Divergence
    }

    /// The value of one cell; `None` where it is undefined or one side has not read it.
    #[must_use]
    pub fn of(
        self,
        difference: &Difference<'_>,
        layer: usize,
        position: usize,
        metric: Metric,
    ) -> Option<f32> {
        match self {
            Self::Difference => difference.cell(layer, position, metric).difference,
            Self::Percent => difference.cell(layer, position, metric).percent_change,
            Self::Divergence => difference.divergence(layer, position),
        }
    }
}

/// What the lower room of a comparison shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lower {
    /// Curves by layer.
    #[default]
    Layers,
    /// The cell under the cursor, of both.
    Cell,
    /// The map of differences, where it has no room of its own.
    Difference,
}

/// One layer of both branches over the summarised positions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// Of the baseline.
    pub baseline: Option<Spread>,
    /// Of the other.
    pub steered: Option<Spread>,
    /// Of what the other has more.
    pub difference: Option<Spread>,
    /// KL(baseline‖steered), nats.
    pub divergence: Option<Spread>,
}

impl State {
    /// The two branches, cell by cell; `None` while no comparison is on the screen, or one of two models whose cells do not
    /// compare.
    #[must_use]
    pub fn difference(&self) -> Option<Difference<'_>> {
        if self.why_no_difference().is_some() {
            return None;
        }
        let (run, beside) = (self.run.as_ref()?, self.beside.as_ref()?);
        Some(Difference::new(&run.grid, &beside.run.grid))
    }

    /// Both branches of a comparison, or the run alone.
    pub fn branches(&self) -> impl Iterator<Item = &Run> {
        let beside = self.beside.as_ref().map(|beside| &beside.run);
        self.run.iter().chain(beside)
    }

    /// How many tokens the longer branch has.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.branches().map(|run| run.grid.len()).max().unwrap_or(0)
    }

    /// Every layer over the positions that a table of this comparison would average; and how these are called.
    #[must_use]
    pub fn summaries(&self) -> (Vec<Summary>, usize, String) {
        let (Some(difference), Some(model)) = (self.difference(), &self.model) else {
            return Default::default();
        };
        let grids = self.branches().map(|run| &run.grid);
        let (positions, which) = summarised(grids, &model.card);
        let of_layer = |layer: usize| {
            let at = positions.iter().copied();
            let [baseline, steered, apart] = difference.spread(layer, self.metric, at.clone());
            Summary {
                baseline,
                steered,
                difference: apart,
                divergence: difference.divergence_spread(layer, at),
            }
        };
        let layers = (0..difference.states()).map(of_layer).collect();
        (layers, positions.len(), which)
    }

    /// The cells of the other maps of a comparison, column by column those of the first: twice as wide in the map of
    /// differences, which has the width of both.
    pub(super) fn settle_beside(&mut self, plan: &Plan) {
        // A second model has layers of its own.
        let other = self.beside.as_ref().filter(|b| b.names().is_some());
        let other = other.map(|b| (b.run.grid.states(), self.cursor_of(Side::B).layer));
        let derived = &mut self.derived;
        let own = plan.inner(plan.map);
        derived.beside_geometry = match plan.beside_map.is_empty() {
            true => Geometry::default(),
            false => {
                let mut geometry = derived.geometry.clone();
                geometry.area.x = geometry.area.x + plan.inner(plan.beside_map).x - own.x;
                if let Some((states, layer)) = other {
                    own_layers(&mut geometry, own, states, layer);
                }
                geometry
            }
        };
        derived.gap_geometry = match (plan.difference.is_empty(), plan.map.is_empty()) {
            (true, _) => Geometry::default(),
            (false, true) => std::mem::take(&mut derived.geometry),
            (false, false) => {
                let mut geometry = derived.geometry.clone();
                let room = plan.inner(plan.difference);
                geometry.area.x = geometry.area.x + room.x - own.x;
                geometry.area.y = geometry.area.y + room.y - own.y;
                geometry.width *= 2;
                geometry.area.width *= 2;
                geometry
            }
        };
    }

    /// Start comparing: at once where there is a prompt.
    pub(super) fn compare(&mut self, pairing: Pairing) -> Vec<Effect> {
        self.compare = Some(pairing);
        self.second.leave();
        let effects = self.ensure_vector();
        if self.steering.asked().is_empty() {
            self.note(
                Level::Warn,
                "Choose a control vector to hold against the plain model.",
            );
            self.open_steering();
            return effects;
        }
        self.begin_again(effects)
    }

    /// Runs stand alone again.
    pub(super) fn stop_comparing(&mut self) -> Vec<Effect> {
        self.second.leave();
        if self.compare.take().is_none() && self.beside.is_none() {
            self.note(Level::Info, "Nothing is compared.");
            return Vec::new();
        }
        self.begin_again(Vec::new())
    }

    /// Free or locked, the other way round.
    pub(super) fn turn_pairing(&mut self) -> Vec<Effect> {
        match self.compare {
            Some(_) if self.second.on => self.turn_models(),
            Some(Pairing::Free) => self.compare(Pairing::Locked),
            Some(Pairing::Locked) => self.compare(Pairing::Free),
            Some(Pairing::Prompts) => {
                self.note(Level::Info, "Two prompts have two texts.");
                Vec::new()
            }
            None => {
                self.note(Level::Warn, "Nothing is compared yet.");
                Vec::new()
            }
        }
    }

    /// Run the prompt, if there is one.
    pub(super) fn begin_again(&mut self, mut effects: Vec<Effect>) -> Vec<Effect> {
        if self.prompt.text().trim().is_empty() {
            self.writing = true;
        } else {
            effects.extend(self.submit());
        }
        effects
    }

    /// Where no vector is in force, the chosen one is.
    fn ensure_vector(&mut self) -> Vec<Effect> {
        if !self.steering.asked().is_empty() {
            return Vec::new();
        }
        match self.steering.parts.get_mut(self.steering.chosen) {
            Some(part) => part.on = true,
            None => return Vec::new(),
        }
        self.steer()
    }

    /// Read the text once more under what is in force.
    pub(super) fn replay(&mut self) -> Vec<Effect> {
        if self.run_is_past() {
            return Vec::new();
        }
        if let Some(Beside { pairing, .. }) = self.beside.as_ref().filter(|b| b.names.is_some()) {
            let text = match pairing {
                Pairing::Prompts => "Run the pair again to read both under what is in force.",
                Pairing::Free | Pairing::Locked => {
                    "Two models are read plain: nothing pushes either."
                }
            };
            self.note(Level::Info, text);
            return Vec::new();
        }
        let read = self.run.as_ref().is_some_and(|run| run.grid.read() > 0);
        match read && self.phase != Phase::Failed {
            true => vec![Effect::Engine(Request::Replay)],
            false => {
                self.note(Level::Warn, "There is no text to read again: run a prompt.");
                Vec::new()
            }
        }
    }

    /// The engine reads the text anew: one plan for all of it.
    pub(super) fn replaying(&mut self) {
        let run = match &mut self.beside {
            Some(beside) => Some(&mut beside.run),
            None => self.run.as_mut(),
        };
        if let Some(run) = run {
            run.steering = run.plan_now().clone();
            run.steering_changes.clear();
        }
    }

    /// Show something else in the lower room.
    pub(super) fn turn_lower(&mut self) {
        if self.beside.is_none() {
            return self.note(Level::Warn, "That is a room of comparisons.");
        }
        if self.derived.plan.mode == Mode::Full {
            return self.note(Level::Info, "All of it is on the screen at this size.");
        }
        // Where differences have a room of their own, two are left.
        let own = self.why_no_difference().is_some()
            || !self.derived.plan.difference.is_empty() && self.lower != Lower::Difference;
        self.lower = match self.lower {
            Lower::Layers => Lower::Cell,
            Lower::Cell if !own => Lower::Difference,
            Lower::Cell | Lower::Difference => Lower::Layers,
        };
    }

    /// Show something else in the map of differences.
    pub(super) fn turn_gap(&mut self) {
        match (&self.beside, self.why_no_difference()) {
            (Some(_), Some(why)) => self.note_no_difference(why),
            (Some(_), None) => self.gap = self.gap.turned(),
            (None, _) => self.note(Level::Warn, "That is a room of comparisons."),
        }
    }

    /// What can be compared, in a list.
    pub(super) fn open_compare(&mut self) {
        let actions = [
            Action::CompareFree,
            Action::CompareLocked,
            Action::CompareModels,
            Action::ComparePrompts,
            Action::CompareSets,
            Action::CompareOff,
        ];
        let items = super::lists::actions(self, &actions);
        self.overlay = Some(Overlay::List(super::List::new("Compare", items, |_| false)));
    }
}
