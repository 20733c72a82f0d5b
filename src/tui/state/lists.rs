//! The lists: actions with their keys, metrics, sample prompts, themes; what opens them and what choosing does.

use super::overlay::{Choice, Item, List, Overlay};
use super::{FAVOURITES, Level, State};
use crate::trace::{Group, Metric};
use crate::tui::action::{self, Action};
use crate::tui::effect::Effect;
use crate::tui::keymap::Context;
use crate::tui::show;

impl State {
    pub(super) fn choose(&mut self, choice: Choice) -> Vec<Effect> {
        match choice {
            Choice::Do(action) => return self.act(action),
            Choice::Metric(metric) => self.metric = metric,
            Choice::Sample(set, index) => return self.run_sample(set, index),
            Choice::Theme(index) => self.wear(index),
        }
        Vec::new()
    }

    /// Show a theme while it is only pointed at.
    pub(super) fn preview(&mut self) {
        if let Some(Overlay::List(list)) = &self.overlay
            && let Some(Choice::Theme(index)) = list.chosen().map(|item| item.choice)
        {
            self.wear(index);
        }
    }

    pub(super) fn open_list(&mut self, list: List) {
        self.overlay = Some(Overlay::List(list));
    }

    pub(super) fn open_palette(&mut self) {
        let context = if self.writing {
            Context::Prompt
        } else {
            Context::Rooms
        };
        self.close_overlay();
        let items = palette(self, context);
        self.open_list(List::new("Actions", items, |_| false));
    }

    pub(super) fn open_metrics(&mut self) {
        let metric = self.metric;
        let items = metrics(self);
        self.open_list(List::new("Metrics", items, |c| c == Choice::Metric(metric)));
    }

    pub(super) fn open_samples(&mut self) {
        let items = samples(self);
        if items.is_empty() {
            return self.note(Level::Warn, "There are no sample prompts.");
        }
        self.open_list(List::new("Sample prompts", items, |_| false));
    }

    pub(super) fn open_themes(&mut self) {
        let worn = self.theme_index;
        let items = themes(self);
        let mut list = List::new("Themes", items, |c| c == Choice::Theme(worn));
        list.theme_before = Some(worn);
        self.open_list(list);
    }
}

/// Every action that stands on its own, with its keys in `context` first.
#[must_use]
pub fn palette(state: &State, context: Context) -> Vec<Item> {
    let alone = Action::ALL
        .iter()
        .filter(|a| a.group() != action::Group::Lists && **a != Action::Palette);
    alone.map(|action| item(state, *action, context)).collect()
}

/// These actions, as they are called from the rooms.
#[must_use]
pub fn actions(state: &State, actions: &[Action]) -> Vec<Item> {
    let actions = actions.iter();
    actions
        .map(|action| item(state, *action, Context::Rooms))
        .collect()
}

fn item(state: &State, action: Action, context: Context) -> Item {
    Item {
        label: action.help().to_owned(),
        detail: action.name().to_owned(),
        mark: state.keymap.keys(action, context).join("  "),
        choice: Choice::Do(action),
    }
}

/// Every column of the grid that the model can fill, with the digit of the favourites.
#[must_use]
pub fn metrics(state: &State) -> Vec<Item> {
    let specs = state.columns().metrics().iter().enumerate();
    specs
        .filter(|(i, _)| state.applies(Metric(*i)))
        .map(|(i, spec)| {
            let digit = FAVOURITES.iter().position(|f| *f == spec.name);
            let what = match spec.group {
                Group::Distribution => "what the layer would say",
                Group::Sparsity => "how the state is spread",
            };
            let unit = match spec.unit.label() {
                "" => "no unit",
                unit => unit,
            };
            Item {
                label: spec.label.clone(),
                detail: format!("{unit} · {what} · {}", spec.name),
                mark: digit.map_or(String::new(), |d| (d + 1).to_string()),
                choice: Choice::Metric(Metric(i)),
            }
        })
        .collect()
}

/// Every sample prompt, set by set.
#[must_use]
pub fn samples(state: &State) -> Vec<Item> {
    let sets = state.samples.iter().enumerate();
    sets.flat_map(|(s, set)| {
        let samples = set.samples.iter().enumerate();
        samples.map(move |(i, sample)| Item {
            label: show::visible(&sample.prompt),
            detail: sample.answer.as_ref().map_or(String::new(), |answer| {
                format!("→ {}", show::visible(answer))
            }),
            mark: set.name.clone(),
            choice: Choice::Sample(s, i),
        })
    })
    .collect()
}

/// Every theme.
#[must_use]
pub fn themes(state: &State) -> Vec<Item> {
    let themes = state.themes.iter().enumerate();
    themes
        .map(|(i, theme)| Item {
            label: show::visible(&theme.label),
            detail: show::visible(&theme.name),
            mark: String::new(),
            choice: Choice::Theme(i),
        })
        .collect()
}
