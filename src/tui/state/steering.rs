//! Control vectors on the screen: which there are, which are in force, and the panel that changes them.
//!
//! What is asked for lives here as [`Part`]s; what is in force is what the engine has confirmed ([`Steering::plan`]).

use super::{Level, Overlay, State};
use crate::error::Error;
use crate::model::ModelCard;
use crate::model::demo::EMBEDDED;
use crate::session::{Request, Turn};
use crate::steer::{self, BUILT_IN, Plan, Spec, Tokens};
use crate::tui::action::Action;
use crate::tui::effect::Effect;
use crate::tui::show;
use std::path::PathBuf;

/// The step of a slider.
const STEP: f64 = 0.1;
/// Strengths and factors stay within this of zero; a typed one may be larger.
const MOST: f64 = 20.0;

/// One control vector or block factor on offer.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What it does.
    pub spec: Spec,
    /// Whether it is asked for.
    pub on: bool,
}

impl Part {
    /// A word or two: the file's name, or what is scaled.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.spec.effect {
            steer::Effect::Vector(path) => {
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                show::cut(&show::visible(&name), 24)
            }
            steer::Effect::Scale(_) => "blocks".to_owned(),
        }
    }

    /// Its name and what is done with it: `mood ×−0.30 layers 4–12`.
    #[must_use]
    pub fn words(&self) -> String {
        let layers = match &self.spec.layers {
            Some(range) if range.start() == range.end() => format!(" layer {}", range.start()),
            Some(range) => format!(" layers {}–{}", range.start(), range.end()),
            None => String::new(),
        };
        format!("{} ×{}{layers}", self.name(), number(self.amount()))
    }

    /// Its strength, or what blocks are multiplied by.
    #[must_use]
    pub fn amount(&self) -> f64 {
        match self.spec.effect {
            steer::Effect::Vector(_) => self.spec.strength,
            steer::Effect::Scale(factor) => factor,
        }
    }

    fn set_amount(&mut self, amount: f64) {
        match &mut self.spec.effect {
            steer::Effect::Vector(_) => self.spec.strength = amount,
            steer::Effect::Scale(factor) => *factor = amount,
        }
    }
}

/// A strength with its sign, in a fixed form.
#[must_use]
pub fn number(amount: f64) -> String {
    format!("{amount:.2}").replace('-', "−")
}

/// All control vectors on offer.
#[derive(Clone, Debug, Default)]
pub struct Steering {
    /// What is on offer.
    pub parts: Vec<Part>,
    /// The one that the slider moves.
    pub chosen: usize,
    /// What is in force.
    pub plan: Plan,
    /// The same in words; empty for the plain model.
    pub label: String,
}

impl Steering {
    /// These, all in force once a model is there.
    #[must_use]
    pub fn new(specs: &[Spec]) -> Self {
        let part = |spec: &Spec| Part {
            spec: spec.clone(),
            on: true,
        };
        Self {
            parts: specs.iter().map(part).collect(),
            ..Self::default()
        }
    }

    /// What comes with the program for the model inside, switched off, unless something is on offer already. The layers and
    /// the sign are those whose effect is written down in `sample_prompts/contrast/README.md`.
    fn offer(&mut self, card: &ModelCard) {
        if card.source == EMBEDDED && self.parts.is_empty() {
            let part = |(name, _): &(&str, &[u8])| Part {
                spec: Spec {
                    strength: -0.3,
                    layers: Some(4..=card.blocks),
                    ..Spec::new(steer::Effect::Vector(PathBuf::from(name)))
                },
                on: false,
            };
            self.parts.extend(BUILT_IN.iter().map(part));
        }
    }

    /// What is asked for.
    #[must_use]
    pub fn asked(&self) -> Vec<Spec> {
        let on = self.parts.iter().filter(|part| part.on);
        on.map(|part| part.spec.clone()).collect()
    }

    /// What is asked for, in words; empty for the plain model.
    #[must_use]
    pub fn words(&self) -> String {
        let on = self.parts.iter().filter(|part| part.on);
        on.map(Part::words).collect::<Vec<_>>().join(" + ")
    }

    /// The part that the slider moves: the chosen one if it is on, else the first that is.
    #[must_use]
    pub fn slider(&self) -> Option<&Part> {
        self.parts.get(self.slider_at()?)
    }

    fn slider_at(&self) -> Option<usize> {
        let on = |at: &usize| self.parts.get(*at).is_some_and(|part| part.on);
        let first = self.parts.iter().position(|part| part.on);
        Some(self.chosen).filter(on).or(first)
    }
}

/// One line of the panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// A part, on or off.
    Part(usize),
    /// The chosen part's strength or factor.
    Amount,
    /// Its layers.
    Layers,
    /// Its layer weights.
    LayerWeights,
    /// Its positions.
    Tokens,
    /// Its weights along the prompt.
    TokenWeights,
    /// Whether states keep their length.
    KeepNorm,
    /// Add a part.
    Add,
}

impl Row {
    /// What the line is called.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Part(_) => "",
            Self::Amount => "Strength",
            Self::Layers => "Layers",
            Self::LayerWeights => "Layer weights",
            Self::Tokens => "Tokens",
            Self::TokenWeights => "Token weights",
            Self::KeepNorm => "Keep norm",
            Self::Add => "Add …",
        }
    }

    /// A line of help.
    #[must_use]
    pub fn help(self) -> &'static str {
        match self {
            Self::Part(_) => "Enter switches it on or off, Delete takes it away",
            Self::Amount => "factor on the vector (or on what blocks add); 0 changes nothing",
            Self::Layers => "state indices such as 4..9, or all that have a direction",
            Self::LayerWeights => "a factor for each of the layers, such as 1/1.5/2, or none",
            Self::Tokens => "all, prompt, generated, or from:N",
            Self::TokenWeights => "factors stretched over the prompt, such as 1/3, or none",
            Self::KeepNorm => "give the states their old length after the push",
            Self::Add => "a vector's file, or scale=0.5,layers=4..9; written as after --steer",
        }
    }
}

/// The open panel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SteerPanel {
    /// Index into [`Steering::rows`].
    pub row: usize,
    /// A value being typed.
    pub typed: Option<String>,
}

impl Steering {
    /// The lines of the panel: every part, the chosen one with all about it.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (at, part) in self.parts.iter().enumerate() {
            rows.push(Row::Part(at));
            if at == self.chosen {
                rows.extend([Row::Amount, Row::Layers]);
                if matches!(part.spec.effect, steer::Effect::Vector(_)) {
                    rows.extend([Row::LayerWeights, Row::TokenWeights, Row::KeepNorm]);
                }
                rows.push(Row::Tokens);
            }
        }
        rows.push(Row::Add);
        rows
    }

    /// The value of a line as it is shown, and as it is typed.
    #[must_use]
    pub fn value(&self, row: Row) -> String {
        let weights = |weights: &[f64]| match weights {
            [] => "none".to_owned(),
            some => {
                let some: Vec<String> = some.iter().map(f64::to_string).collect();
                some.join("/")
            }
        };
        let Some(part) = self.parts.get(self.chosen) else {
            return String::new();
        };
        let spec = &part.spec;
        match row {
            Row::Part(at) => match self.parts.get(at) {
                Some(part) => format!("[{}] {}", if part.on { "x" } else { " " }, part.words()),
                None => String::new(),
            },
            Row::Amount => format!("{:.2}", part.amount()),
            Row::Layers => match &spec.layers {
                Some(range) => format!("{}..{}", range.start(), range.end()),
                None => "all".to_owned(),
            },
            Row::LayerWeights => weights(&spec.layer_weights),
            Row::Tokens => spec.tokens.label(),
            Row::TokenWeights => weights(&spec.token_weights),
            Row::KeepNorm => if spec.keep_norm { "yes" } else { "no" }.to_owned(),
            Row::Add => String::new(),
        }
    }

    /// Take a typed value; the problem in words when it makes no sense.
    fn set(&mut self, row: Row, typed: &str) -> Result<(), String> {
        let typed = typed.trim();
        let Some(part) = self.parts.get_mut(self.chosen) else {
            return Ok(());
        };
        // The same words as on the command line, read by the same code.
        let read = |key: &str| format!("_,{key}={typed}").parse::<Spec>();
        let none = matches!(typed, "" | "none" | "all");
        match row {
            Row::Amount => part.set_amount(read("strength")?.strength),
            Row::Layers if none => part.spec.layers = None,
            Row::Layers => part.spec.layers = read("layers")?.layers,
            Row::LayerWeights if none => part.spec.layer_weights.clear(),
            Row::LayerWeights => part.spec.layer_weights = read("layer-weights")?.layer_weights,
            Row::Tokens => part.spec.tokens = read("tokens")?.tokens,
            Row::TokenWeights if none => part.spec.token_weights.clear(),
            Row::TokenWeights => part.spec.token_weights = read("token-weights")?.token_weights,
            Row::Part(_) | Row::KeepNorm | Row::Add => {}
        }
        Ok(())
    }

    /// Give the one vector that is asked for this strength. `false` where it is not this one.
    pub(super) fn take(&mut self, vector: &steer::Effect, strength: f64) -> bool {
        let mut on = self.parts.iter_mut().filter(|part| part.on);
        match (on.next(), on.next()) {
            (Some(part), None) if part.spec.effect == *vector => {
                part.spec.strength = strength;
                true
            }
            _ => false,
        }
    }

    fn nudge(&mut self, at: usize, up: bool) {
        if let Some(part) = self.parts.get_mut(at) {
            let step = if up { STEP } else { -STEP };
            // Steps stay on their grid: 0.1 + 0.2 must show and be 0.3.
            let amount = ((part.amount() + step) * 100.0).round() / 100.0;
            let most = MOST.max(part.amount().abs());
            part.set_amount(amount.clamp(-most, most) + 0.0);
        }
    }
}

impl State {
    /// Offer the vectors that come with the model at hand.
    pub(super) fn offer_vectors(&mut self) {
        if let Some(model) = &self.model {
            self.steering.offer(&model.card);
        }
    }

    /// Ask the engine for what is switched on.
    pub(super) fn steer(&mut self) -> Vec<Effect> {
        match self.model {
            Some(_) => vec![Effect::Engine(Request::Steer(self.steering.asked()))],
            None => Vec::new(),
        }
    }

    pub(super) fn open_steering(&mut self) {
        let row = self.steering.chosen.min(self.steering.parts.len());
        self.overlay = Some(Overlay::Steering(SteerPanel { row, typed: None }));
    }

    /// The slider, wherever the keys are.
    pub(super) fn slide(&mut self, up: bool) -> Vec<Effect> {
        let Some(at) = self.steering.slider_at() else {
            self.note(
                Level::Warn,
                "No control vector is in force: choose one first.",
            );
            return Vec::new();
        };
        self.steering.nudge(at, up);
        self.steer()
    }

    /// The engine has taken plans over.
    pub(super) fn steered(&mut self, plan: Plan, turn: Option<Turn>, remarks: &[String]) {
        self.steering.label = self.steering.words();
        if let Some(turn) = turn {
            let label = self.steering.label.clone();
            let run = match &mut self.beside {
                Some(beside) => Some(&mut beside.run),
                None => self.run.as_mut(),
            };
            if let Some(run) = run.filter(|run| *run.plan_now() != plan) {
                if turn.number > 0 {
                    run.plans.push((turn.number, label));
                }
                match turn.from {
                    0 => run.steering = plan.clone(),
                    from => {
                        // Nothing has been read under what was asked for at the same position before.
                        run.steering_changes.retain(|(at, _)| *at != from);
                        run.steering_changes.push((from, plan.clone()));
                    }
                }
            }
        }
        self.steering.plan = plan;
        self.sets_read_otherwise();
        if let Some(first) = remarks.first() {
            self.note(Level::Warn, first.clone());
        }
    }

    /// What was asked for cannot be: what is in force stays, and what is asked for goes back to it where that is known.
    pub(super) fn not_steered(&mut self, error: &Error) {
        if self.steering.plan.is_empty() {
            self.steering
                .parts
                .iter_mut()
                .for_each(|part| part.on = false);
        }
        if self.sweep.is_none() && matches!(self.overlay, Some(Overlay::Sweep)) {
            // The sweep that was asked for will not come.
            self.overlay = None;
        }
        self.note(Level::Error, error.to_string());
    }

    /// An action in the panel; `None` where it means nothing there.
    pub(super) fn act_in_steering(&mut self, action: Action, by: isize) -> Option<Vec<Effect>> {
        let Some(Overlay::Steering(panel)) = &mut self.overlay else {
            return None;
        };
        let rows = self.steering.rows();
        let row = rows[panel.row.min(rows.len() - 1)];
        if let Some(typed) = &panel.typed {
            return match action {
                Action::Accept => {
                    let typed = typed.clone();
                    panel.typed = None;
                    Some(self.type_steering(row, &typed))
                }
                _ => None,
            };
        }
        match (action, row) {
            _ if by != 0 => {
                let to = (panel.row as isize + by).rem_euclid(rows.len() as isize) as usize;
                // Another part unfolds under the choice: the lines before it may fold up.
                let target = rows[to];
                if let Row::Part(at) = target {
                    self.steering.chosen = at;
                }
                let rows = self.steering.rows();
                let at = rows.iter().position(|row| *row == target);
                panel.row = at.unwrap_or(0);
            }
            (Action::Less | Action::More, Row::Amount) => {
                self.steering
                    .nudge(self.steering.chosen, action == Action::More);
                return Some(self.steer());
            }
            (Action::Less | Action::More, Row::Tokens) => {
                if let Some(part) = self.steering.parts.get_mut(self.steering.chosen) {
                    let here = Tokens::From(self.cursor.position);
                    part.spec.tokens = match (part.spec.tokens, action) {
                        (Tokens::All, Action::More) | (Tokens::Generated, Action::Less) => {
                            Tokens::Prompt
                        }
                        (Tokens::Prompt, Action::More) | (Tokens::From(_), Action::Less) => {
                            Tokens::Generated
                        }
                        (Tokens::Generated, _) | (Tokens::All, _) => here,
                        (Tokens::From(_) | Tokens::Prompt, _) => Tokens::All,
                    };
                }
                return Some(self.steer());
            }
            (Action::Less | Action::More | Action::Accept, Row::KeepNorm) => {
                if let Some(part) = self.steering.parts.get_mut(self.steering.chosen) {
                    part.spec.keep_norm = !part.spec.keep_norm;
                }
                return Some(self.steer());
            }
            (Action::Less | Action::More | Action::Accept, Row::Part(at)) => {
                self.steering.chosen = at;
                if let Some(part) = self.steering.parts.get_mut(at) {
                    part.on = !part.on;
                }
                return Some(self.steer());
            }
            (Action::Remove, Row::Part(at)) => {
                let was_on = self.steering.parts[at].on;
                self.steering.parts.remove(at);
                self.steering.chosen = at.min(self.steering.parts.len().saturating_sub(1));
                let rows = self.steering.rows();
                panel.row = rows
                    .iter()
                    .position(|row| *row == Row::Part(self.steering.chosen))
                    .unwrap_or(rows.len() - 1);
                return Some(if was_on { self.steer() } else { Vec::new() });
            }
            (Action::Accept, row) => panel.typed = Some(self.steering.value(row)),
            _ => return None,
        }
        Some(Vec::new())
    }

    /// Take what was typed on a line of the panel.
    fn type_steering(&mut self, row: Row, typed: &str) -> Vec<Effect> {
        let taken = match row {
            Row::Add if typed.trim().is_empty() => return Vec::new(),
            Row::Add => typed.trim().parse::<Spec>().map(|spec| {
                self.steering.parts.push(Part { spec, on: true });
                self.steering.chosen = self.steering.parts.len() - 1;
                let chosen = Row::Part(self.steering.chosen);
                let rows = self.steering.rows();
                if let Some(Overlay::Steering(panel)) = &mut self.overlay {
                    panel.row = rows.iter().position(|row| *row == chosen).unwrap_or(0);
                }
            }),
            row => self.steering.set(row, typed),
        };
        match taken {
            Ok(()) => self.steer(),
            Err(problem) => {
                self.note(Level::Warn, problem);
                Vec::new()
            }
        }
    }
}
