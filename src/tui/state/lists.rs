//! What stands in the lists: actions with their keys, metrics, sample prompts, themes.

use super::overlay::{Choice, Item};
use super::{FAVOURITES, State};
use crate::trace::{Group, Metric};
use crate::tui::action::{self, Action};
use crate::tui::keymap::Context;
use crate::tui::show;

/// Every action that stands on its own, with its keys in `context` first.
#[must_use]
pub fn palette(state: &State, context: Context) -> Vec<Item> {
    Action::ALL
        .iter()
        .filter(|a| a.group() != action::Group::Lists && **a != Action::Palette)
        .map(|action| Item {
            label: action.help().to_owned(),
            detail: action.name().to_owned(),
            mark: state.keymap.keys(*action, context).join("  "),
            choice: Choice::Do(*action),
        })
        .collect()
}

/// Every column of the grid, with the digit of the favourites.
#[must_use]
pub fn metrics(state: &State) -> Vec<Item> {
    let specs = state.columns().metrics().iter().enumerate();
    specs
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
