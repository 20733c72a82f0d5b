//! Known | near-OOD: two sets of prompts on the screen in place of the run, and what keys mean there.

use super::{Level, Phase, State};
use crate::model::demo::EMBEDDED;
use crate::session::{Finish, Job, Prompt, Request, SetJob, Sets};
use crate::steer::Plan;
use crate::trace::{Metric, Record, Sample, Samples, Schema, Set};
use crate::tui::action::Action;
use crate::tui::effect::{Effect, Export};
use crate::tui::layout::{Mode, SetPane};
use crate::tui::show;
use crate::tui::{Options, PromptSets};
use std::sync::Arc;

/// Two sets on the screen.
#[derive(Clone, Debug)]
pub struct SetsView {
    /// Counts what the screen has shown, so that cached readings of an earlier one are never shown.
    pub number: usize,
    /// What has come.
    pub samples: Samples,
    /// Prompts in all.
    pub total: usize,
    /// What the sets are called.
    pub names: [&'static str; 2],
    /// Where their prompts come from; safe to display.
    pub origins: [String; 2],
    /// What both were read under, in words; empty for the plain model.
    pub label: String,
    /// The same as a plan.
    plan: Plan,
    /// How they were read.
    record: Record,
    /// What was going on before, to go back to.
    before: Phase,
}

/// What was asked of the engine, until it begins.
#[derive(Clone, Debug)]
struct Asked {
    each: Job,
    names: [&'static str; 2],
    origins: [String; 2],
}

/// What two sets leave behind where they are not on the screen.
#[derive(Clone, Debug, Default)]
pub struct SetsAside {
    /// The user's own sets.
    given: Option<PromptSets>,
    /// What was asked for last.
    asked: Option<Asked>,
    /// Whether the sets were left before their end was heard: it is no run's end.
    owes_end: bool,
    /// Whether the engine has read sets since the run on the screen, and cannot go on with that one.
    pub run_is_past: bool,
}

impl SetsAside {
    /// Before anything was read.
    #[must_use]
    pub fn of(options: &Options) -> Self {
        Self {
            given: options.sets.clone(),
            ..Self::default()
        }
    }

    /// Whether the end that has just been heard is that of sets which are no longer shown.
    pub(super) fn takes_end(&mut self) -> bool {
        std::mem::take(&mut self.owes_end)
    }
}

impl State {
    /// The prompts that can be held against each other, or why there are none.
    pub(super) fn prompt_sets(&self) -> Result<PromptSets, &'static str> {
        if let Some(given) = &self.sets_aside.given {
            return Ok(given.clone());
        }
        let inside = self
            .model
            .as_ref()
            .is_some_and(|m| m.card.source == EMBEDDED);
        if !inside {
            return Err(
                "The sets inside are about the model inside. For this one start with --known F --unknown F.",
            );
        }
        let of = |set: Set| self.samples.iter().find(|s| s.role == Some(set));
        let (Some(known), Some(unknown)) = (of(Set::Known), of(Set::Unknown)) else {
            return Err("There are no sets of prompts: start with --known F --unknown F.");
        };
        Ok(PromptSets {
            prompts: [known, unknown].map(|set| {
                let prompts = set.samples.iter().map(|s| Prompt::Text(s.prompt.clone()));
                prompts.collect()
            }),
            names: ["known", "near-OOD"],
            origins: [known, unknown].map(|set| set.name.clone()),
        })
    }

    /// Say how the user's own sets are read.
    pub(super) fn offer_sets(&mut self) {
        if let Some(given) = &self.sets_aside.given {
            let [known, unknown] = &given.origins;
            let text = format!(
                "{} reads both sets of prompts: {known}, {unknown}",
                self.key_of(Action::CompareSets)
            );
            self.note(Level::Info, text);
        }
    }

    /// Read two sets of prompts, all of each.
    pub(super) fn compare_sets(&mut self) -> Vec<Effect> {
        if self.model.is_none() {
            self.note(Level::Warn, "There is no model to read prompts yet.");
            return Vec::new();
        }
        let PromptSets {
            prompts: [known, unknown],
            names,
            origins,
        } = match self.prompt_sets() {
            Ok(sets) => sets,
            Err(why) => {
                self.note(Level::Warn, why);
                return Vec::new();
            }
        };
        // One cell a prompt: later ones would speak about the model's own words.
        let each = Job {
            sampling: self.settings.sampling.clone(),
            lens: self.job.lens.clone(),
            ..Job::new(Prompt::Text(String::new()), 1)
        };
        self.sets_aside.asked = Some(Asked {
            each: each.clone(),
            names,
            origins: origins.map(|origin| show::visible(&origin)),
        });
        self.writing = false;
        self.overlay = None;
        self.notice = None;
        let phase = std::mem::replace(&mut self.phase, Phase::Reading);
        self.before_submit.get_or_insert(phase);
        vec![Effect::Engine(Request::Separate(Box::new(SetJob {
            known,
            unknown,
            each,
        })))]
    }

    /// The engine has begun to read two sets.
    pub(super) fn separating(&mut self, schema: Arc<Schema>, states: usize, total: usize) {
        let (Some(asked), Some(model)) = (self.sets_aside.asked.take(), &self.model) else {
            return;
        };
        let card = Arc::clone(&model.card);
        self.keep_metric(&schema);
        let phase = self.before_submit.take().unwrap_or(self.phase.clone());
        let before = match (self.sets.take(), &mut self.run) {
            (Some(old), _) => old.before,
            (None, Some(run)) if phase.is_running() => {
                run.ended = Some(self.clock.wall);
                Phase::Done(Finish::Stopped)
            }
            (None, None) if phase.is_running() => Phase::Ready,
            (None, _) => phase,
        };
        let plan = self.steering.plan.clone();
        let each = Job {
            steering: plan.clone(),
            ..asked.each
        };
        let mut record = Sets::record(card, &each);
        record.started = self.clock.wall;
        self.runs += 1;
        self.sets = Some(SetsView {
            number: self.runs,
            samples: Samples::new(schema, states, each.sampling.seed),
            total,
            names: asked.names,
            origins: asked.origins,
            label: match plan.is_empty() {
                true => String::new(),
                false => self.steering.label.clone(),
            },
            plan,
            record,
            before,
        });
        self.phase = Phase::Reading;
        self.sets_aside.owes_end = false;
        self.sets_aside.run_is_past = self.run.is_some();
    }

    /// One more prompt has been read.
    pub(super) fn sampled(&mut self, set: Set, sample: Arc<Sample>) {
        if let Some(sets) = &mut self.sets {
            sets.samples.push(set, sample);
        }
    }

    /// What is on the screen has ended: note when.
    pub(super) fn note_end(&mut self) {
        let now = Some(self.clock.wall);
        match (&mut self.sets, &mut self.run) {
            (Some(sets), _) => sets.record.ended = now,
            (None, Some(run)) => run.ended = now,
            (None, None) => {}
        }
    }

    /// What begins takes the place of the sets.
    pub(super) fn drop_sets(&mut self) {
        self.sets = None;
        self.sets_aside.owes_end = false;
        self.sets_aside.run_is_past = false;
    }

    /// Back to the run, or to where there was none.
    fn leave_sets(&mut self) -> Vec<Effect> {
        let schema = self.run.as_ref().map_or(&self.schema, |run| &run.schema);
        self.keep_metric(&Arc::clone(schema));
        let Some(sets) = self.sets.take() else {
            return Vec::new();
        };
        let submitted = self.before_submit.is_some();
        let phase = self.before_submit.as_mut().unwrap_or(&mut self.phase);
        let running = std::mem::replace(phase, sets.before).is_running();
        self.sets_aside.owes_end = running;
        // What has been submitted ends them anyway, and must not be stopped instead.
        match running && !submitted {
            true => vec![Effect::Engine(Request::Stop)],
            false => Vec::new(),
        }
    }

    /// Say that going on is for the run that the engine has at hand; whether it is not.
    pub(super) fn run_is_past(&mut self) -> bool {
        if self.sets_aside.run_is_past {
            let key = self.key_of(Action::Run);
            self.note(
                Level::Warn,
                format!("Other prompts have been read since: {key} runs this one again."),
            );
        }
        self.sets_aside.run_is_past
    }

    /// Other plans are in force than those the sets were read under.
    pub(super) fn sets_read_otherwise(&mut self) {
        let otherwise = |sets: &SetsView| sets.plan != self.steering.plan;
        if self.sets.as_ref().is_some_and(otherwise) {
            let key = self.key_of(Action::CompareSets);
            self.note(
                Level::Info,
                format!("{key} reads both sets again under what is in force now."),
            );
        }
    }

    /// Actions that mean something else while sets are on the screen; `None` when this one does not.
    pub(super) fn act_on_sets(&mut self, action: Action) -> Option<Vec<Effect>> {
        use Action as A;
        self.sets.as_ref()?;
        match action {
            A::PauseResume | A::Step | A::Stop | A::Continue | A::Interrupt => {
                return Some(self.control_sets(action));
            }
            A::MoveUp => self.climb_sets(1),
            A::MoveDown => self.climb_sets(-1),
            A::First => self.cursor.layer = 0,
            A::Last | A::TopLayer => self.cursor.layer = self.states() - 1,
            A::NextRoom => self.turn_pane(true),
            A::PreviousRoom => self.turn_pane(false),
            A::TurnLower => self.turn_shown(),
            A::Back if self.notice.take().is_some() => {}
            A::Back | A::CompareOff => return Some(self.leave_sets()),
            A::Export => return Some(self.export_sets()),
            A::CopyText => return Some(self.copy_statement()),
            A::CopyCell => return Some(self.copy_layer()),
            A::MoveLeft
            | A::MoveRight
            | A::PageBack
            | A::PageOn
            | A::Inspect
            | A::Follow
            | A::Replay
            | A::TurnPairing
            | A::TurnGap
            | A::Search
            | A::SearchNext
            | A::SearchPrevious
            | A::NextUncertain
            | A::PreviousUncertain
            | A::NextMask
            | A::PreviousMask
            | A::Decided
            | A::ZoomIn
            | A::ZoomOut
            | A::RangeNext
            | A::RangePrevious
            | A::DecidedLine => {
                let key = self.key_of(A::CompareOff);
                let text = format!("That is about the tokens of one run: {key} goes back to it.");
                self.note(Level::Info, text);
            }
            _ => return None,
        }
        Some(Vec::new())
    }

    /// Move the cursor by layers.
    pub(super) fn climb_sets(&mut self, by: isize) {
        let layer = self.cursor.layer.saturating_add_signed(by);
        self.cursor.layer = layer.min(self.states() - 1);
    }

    fn control_sets(&mut self, action: Action) -> Vec<Effect> {
        use Action as A;
        let request = match (action, &self.phase) {
            (A::PauseResume, Phase::Reading | Phase::Streaming) => Request::Pause,
            (A::PauseResume | A::Continue, Phase::Paused) => Request::Resume,
            (A::Stop | A::Interrupt, phase) if phase.is_running() => Request::Stop,
            (A::Interrupt, _) => return vec![Effect::Quit],
            (A::PauseResume | A::Continue, Phase::Done(Finish::Stopped)) => Request::Continue(0),
            (A::Step, _) => {
                self.note(Level::Info, "Prompts of sets are read many at a time.");
                return Vec::new();
            }
            _ => {
                let key = self.key_of(A::CompareSets);
                self.note(
                    Level::Info,
                    format!("Nothing is read now: {key} reads both sets again."),
                );
                return Vec::new();
            }
        };
        vec![Effect::Engine(request)]
    }

    /// The next pane where they are tabs, the prompt after the last; where they are not, the prompt.
    fn turn_pane(&mut self, on: bool) {
        let last = SetPane::ALL.len() - 1;
        let at = SetPane::ALL
            .iter()
            .position(|p| *p == self.pane)
            .unwrap_or(0);
        let tabs = self.derived.plan.mode == Mode::Tabs;
        let next = match on {
            true => (at < last).then_some(at + 1),
            false => at.checked_sub(1),
        };
        match next.filter(|_| tabs) {
            Some(next) => self.pane = SetPane::ALL[next],
            None => {
                self.writing = true;
                self.pane = SetPane::ALL[if on { 0 } else { last }];
            }
        }
    }

    /// Show something else where there is no room for all of it; where there is, the whole statement on a page.
    fn turn_shown(&mut self) {
        use SetPane as P;
        self.pane = match (self.derived.plan.mode, self.pane) {
            (Mode::Full, _) => {
                let text = self.derived.sets.statement.clone();
                self.overlay = Some(super::Overlay::Page(super::Page {
                    title: "What this shows".to_owned(),
                    text: Some(text),
                    top: 0,
                }));
                return;
            }
            (Mode::Tabs, P::Profiles) => P::Quadrant,
            (Mode::Tabs, P::Quadrant) => P::Separation,
            (Mode::Tabs, P::Statement) => P::Profiles,
            (_, P::Statement) => P::Separation,
            (_, P::Profiles | P::Quadrant | P::Separation) => P::Statement,
        };
    }

    /// The first key of an action in the rooms.
    fn key_of(&self, action: Action) -> String {
        let keys = self.keymap.keys(action, crate::tui::keymap::Context::Rooms);
        keys.into_iter().next().unwrap_or_default()
    }

    fn export_sets(&mut self) -> Vec<Effect> {
        let Some(sets) = self.sets.as_ref().filter(|sets| sets.samples.count() > 0) else {
            self.note(Level::Warn, "There is nothing to export yet.");
            return Vec::new();
        };
        let record = Box::new(sets.record.clone());
        let samples = Box::new(sets.samples.clone());
        self.note(Level::Info, "Writing …");
        vec![Effect::Export(Export::Sets(record, samples))]
    }

    fn copy_statement(&mut self) -> Vec<Effect> {
        self.note(Level::Info, "Copied what this shows.");
        vec![Effect::Copy(self.derived.sets.statement.clone())]
    }

    fn copy_layer(&mut self) -> Vec<Effect> {
        let Some(sets) = &self.sets else {
            return Vec::new();
        };
        let layer = self.cursor.layer;
        let mut text = format!(
            "layer {layer}\nmetric unit known_mean known_std n unknown_mean unknown_std n auroc\n"
        );
        for (i, spec) in sets.samples.schema().metrics().iter().enumerate() {
            text.push_str(&format!("{} {}", spec.name, spec.unit.label()));
            for set in Set::BOTH {
                text.push_str(&match sets.samples.profile(set, layer, Metric(i)) {
                    Some(spread) => format!(" {} {} {}", spread.mean, spread.std, spread.n),
                    None => " n/a n/a 0".to_owned(),
                });
            }
            let auroc = sets.samples.auroc(layer, Metric(i));
            text.push_str(&auroc.map_or(" n/a\n".to_owned(), |auroc| format!(" {auroc}\n")));
        }
        self.note(
            Level::Info,
            format!("Copied the readings of layer {layer}."),
        );
        vec![Effect::Copy(text)]
    }
}
