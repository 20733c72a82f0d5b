//! Strength × metric on the screen: a range of strengths read in the background over one and the same text.

use super::{Level, Overlay, State};
use crate::session::Request;
use crate::steer::{self, Spec, Strengths};
use crate::trace::{Curve, Metric, Point, Record, Spread};
use crate::tui::action::Action;
use crate::tui::effect::{Effect, Export};
use std::sync::Arc;

/// Strengths of a sweep, the ends and the plain model in the middle included.
const COUNT: usize = 9;
/// How far a sweep reaches, in the strength at hand.
const REACH: f64 = 2.0;
/// How far where that is none.
const LEAST: f64 = 1.0;

/// A sweep that was asked for.
#[derive(Clone, Debug)]
pub struct SweepView {
    /// What has come.
    pub curve: Curve,
    /// What the strengths are those of, in words.
    pub label: String,
    /// The vector whose own they are; otherwise they multiply all that is in force.
    pub vector: Option<steer::Effect>,
    /// Index of the strength that is looked at.
    pub chosen: usize,
    /// How it came about, once it has ended.
    pub record: Option<Record>,
}

/// One layer under one strength, and what the plain model says there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SweepCell {
    /// The plain model.
    pub plain: Option<Spread>,
    /// Under this strength.
    pub pushed: Option<Spread>,
    /// KL(baseline‖pushed), nats.
    pub divergence: Option<Spread>,
}

impl SweepCell {
    /// Mean of the pushed less mean of the plain model, in the metric's unit.
    #[must_use]
    pub fn difference(&self) -> Option<f64> {
        Some(self.pushed?.mean - self.plain?.mean)
    }
}

impl SweepView {
    /// One layer under the strength of this index.
    #[must_use]
    pub fn cell(&self, layer: usize, metric: Metric, strength: usize) -> SweepCell {
        let point = self.curve.point(strength);
        let plain = self.curve.baseline();
        SweepCell {
            plain: plain.and_then(|point| point.spread(layer, metric)),
            pushed: point.and_then(|point| point.spread(layer, metric)),
            divergence: point.and_then(|point| point.divergence(layer)),
        }
    }

    /// The largest difference of any layer and strength so far, by size; `None` where there is none yet.
    #[must_use]
    pub fn most(&self, metric: Metric) -> Option<f64> {
        let layers = 0..self.curve.states();
        let cells = layers.flat_map(|layer| {
            let strengths = 0..self.curve.strengths().len();
            strengths.map(move |strength| self.cell(layer, metric, strength))
        });
        let sizes = cells.filter_map(|cell| cell.difference()).map(f64::abs);
        sizes.reduce(f64::max)
    }

    /// How many strengths have come, of how many.
    #[must_use]
    pub fn progress(&self) -> (usize, usize) {
        (self.curve.done(), self.curve.strengths().len())
    }
}

impl State {
    /// Open the sweep, or begin one where there is none (or `again`).
    pub(super) fn open_sweep(&mut self, again: bool) -> Vec<Effect> {
        if self.sweep.is_some() && !again {
            self.overlay = Some(Overlay::Sweep);
            return Vec::new();
        }
        if self.steering.asked().is_empty() {
            self.note(
                Level::Warn,
                "Choose a control vector whose strengths shall be tried.",
            );
            self.open_steering();
            return Vec::new();
        }
        let text = self.prompt.text();
        if text.trim().is_empty() {
            self.writing = true;
            self.overlay = None;
            self.note(Level::Warn, "Write a prompt first, or choose a sample.");
            return Vec::new();
        }
        let Some(job) = self.job_of(text) else {
            self.note(Level::Warn, "There is no model to run.");
            return Vec::new();
        };
        let (specs, strengths, vector) = self.range();
        match strengths {
            Ok(strengths) => {
                self.overlay = Some(Overlay::Sweep);
                self.sweep_asked = (self.steering.words(), vector);
                vec![Effect::Engine(Request::Sweep(
                    Box::new(job),
                    specs,
                    strengths,
                ))]
            }
            Err(problem) => {
                self.note(Level::Warn, problem);
                Vec::new()
            }
        }
    }

    /// What a sweep multiplies, by what, and the vector whose own strengths these are.
    fn range(&self) -> (Vec<Spec>, Result<Strengths, String>, Option<steer::Effect>) {
        let mut specs = self.steering.asked();
        let reach = |own: f64| Strengths::new(-own, own, COUNT);
        match specs.as_mut_slice() {
            [one] if matches!(one.effect, steer::Effect::Vector(_)) => {
                let most = match one.strength.abs() * REACH {
                    0.0 => LEAST,
                    most => most,
                };
                one.strength = 1.0;
                let vector = one.effect.clone();
                (specs, reach(most), Some(vector))
            }
            _ => (specs, reach(REACH), None),
        }
    }

    pub(super) fn sweeping(&mut self, curve: Curve) {
        let (label, vector) = self.sweep_asked.clone();
        self.sweep = Some(SweepView {
            chosen: curve.strengths().len() / 2,
            curve,
            label,
            vector,
            record: None,
        });
    }

    pub(super) fn swept(&mut self, strength: Option<usize>, point: Arc<Point>) {
        if let Some(sweep) = &mut self.sweep {
            match strength {
                Some(index) => sweep.curve.set(index, point),
                None => sweep.curve.set_baseline(point),
            }
        }
    }

    pub(super) fn sweep_ended(&mut self, record: Record) {
        let Some(sweep) = &mut self.sweep else {
            return;
        };
        sweep.record = Some(record);
        let (done, all) = sweep.progress();
        if self.overlay.is_none() {
            let text = format!("The sweep has {done} of {all} strengths.");
            self.note(Level::Info, text);
        }
    }

    /// An action over the open sweep; `None` where it means nothing there.
    pub(super) fn act_in_sweep(&mut self, action: Action) -> Option<Vec<Effect>> {
        if !matches!(self.overlay, Some(Overlay::Sweep)) {
            return None;
        }
        let last = self.states() - 1;
        match action {
            Action::ListUp => self.cursor.layer = (self.cursor.layer + 1).min(last),
            Action::ListDown => self.cursor.layer = self.cursor.layer.saturating_sub(1),
            Action::Sweep => return Some(self.open_sweep(true)),
            Action::Stop => return Some(vec![Effect::Engine(Request::StopSweep)]),
            _ => {}
        }
        let sweep = self.sweep.as_mut()?;
        let end = sweep.curve.strengths().len().saturating_sub(1);
        match action {
            Action::Less => sweep.chosen = sweep.chosen.saturating_sub(1),
            Action::More => sweep.chosen = (sweep.chosen + 1).min(end),
            Action::Accept => return Some(self.take_strength()),
            Action::Export => {
                let Some(record) = sweep.record.clone() else {
                    self.note(Level::Warn, "The sweep has not ended: stop it, or wait.");
                    return Some(Vec::new());
                };
                let export = Export::Sweep(Box::new(record), Box::new(sweep.curve.clone()));
                self.note(Level::Info, "Writing …");
                return Some(vec![Effect::Export(export)]);
            }
            Action::ListUp | Action::ListDown => {}
            _ => return None,
        }
        Some(Vec::new())
    }

    /// Whether one is under way.
    pub(super) fn sweeps(&self) -> bool {
        self.sweep
            .as_ref()
            .is_some_and(|sweep| sweep.record.is_none())
    }

    /// Steer by the strength that is looked at.
    fn take_strength(&mut self) -> Vec<Effect> {
        let Some(sweep) = &self.sweep else {
            return Vec::new();
        };
        let strength = sweep.curve.strengths().get(sweep.chosen).copied();
        let why = match (strength, &sweep.vector) {
            (Some(strength), Some(vector)) if self.steering.take(vector, strength) => {
                self.overlay = None;
                return self.steer();
            }
            (_, Some(_)) => "Another vector was swept than is in force: choose that one first.",
            (_, None) => "These strengths multiply all that is in force: set each by hand.",
        };
        self.overlay = None;
        self.note(Level::Warn, why);
        Vec::new()
    }
}
