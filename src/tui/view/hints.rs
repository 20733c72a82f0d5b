//! The last line: a message when there is one, else the keys that matter now.
//!
//! ```text
//! Enter run  Alt-Enter new line  Esc rooms  Ctrl-P palette  F1 help
//! ✗ demo.gguf: is damaged. Fetch it again.                     E whole message
//! / osk▏   2 matches
//! ```

use super::put;
use super::steering::tail;
use crate::tui::action::Action;
use crate::tui::keymap::Context;
use crate::tui::layout::Mode;
use crate::tui::show;
use crate::tui::state::{Level, Overlay, Phase, State};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// Paint the line.
pub fn paint(buf: &mut Buffer, area: Rect, state: &State) {
    if let Some(Overlay::Search(line)) = &state.overlay {
        let x = put(buf, area, 0, 0, " / ", state.theme.accent);
        let x = put(
            buf,
            area,
            x,
            0,
            &show::visible(&line.query),
            state.theme.base,
        );
        let x = put(buf, area, x, 0, "▏ ", state.theme.accent);
        let found = match state.derived.matches.len() {
            _ if line.query.is_empty() => "search in the tokens ".to_owned(),
            1 => "1 match ".to_owned(),
            n => format!("{n} matches "),
        };
        put(buf, area, x + 1, 0, &found, state.theme.muted);
        return;
    }
    if let Some(Overlay::OtherModel(typed)) = &state.overlay {
        let x = put(buf, area, 0, 0, " second model ", state.theme.accent);
        let help = "▏ a folder, a .gguf file, a hub id, or demo ";
        let room = usize::from(area.width.saturating_sub(x)).saturating_sub(2);
        let shown = tail(&show::visible(typed), room);
        let x = put(buf, area, x, 0, &shown, state.theme.base);
        put(buf, area, x, 0, help, state.theme.muted);
        return;
    }
    match &state.notice {
        Some(_) => notice(buf, area, state),
        None => keys(buf, area, state),
    }
}

fn notice(buf: &mut Buffer, area: Rect, state: &State) {
    let Some(notice) = &state.notice else { return };
    let theme = &state.theme;
    let (mark, style) = match notice.level {
        Level::Info => ("✓", theme.good),
        Level::Warn => ("!", theme.warn),
        Level::Error => ("✗", theme.error),
    };
    let mut lines = notice.text.lines();
    let first = lines.next().unwrap_or_default();
    let room = usize::from(area.width).saturating_sub(3);
    let cut = show::columns(first) >= room || lines.next().is_some();
    let context = if state.writing {
        Context::Prompt
    } else {
        Context::Rooms
    };
    let more = match state.keymap.hint(Action::ShowError, context) {
        Some(key) if cut => format!(" {key} whole message "),
        _ => String::new(),
    };
    let room = room.saturating_sub(show::columns(&more));
    put(
        buf,
        area,
        0,
        0,
        &format!(" {mark} {} ", show::cut(first, room.saturating_sub(1))),
        style,
    );
    let x = area.width.saturating_sub(show::columns(&more) as u16);
    put(buf, area, x, 0, &more, theme.accent);
}

/// The actions worth a hint, most useful first.
fn useful(state: &State) -> Vec<Action> {
    use Action as A;
    match (state.context(), &state.phase) {
        (Context::Prompt, _) => vec![
            A::Run,
            A::NewLine,
            A::HistoryPrevious,
            A::LeavePrompt,
            A::Samples,
            A::Palette,
            A::Help,
        ],
        (Context::List, _) => vec![A::Accept, A::ListUp, A::ListDown, A::Back],
        (Context::Panel, _) => vec![A::ListUp, A::ListDown, A::Less, A::More, A::Back],
        (Context::Page, _) => vec![A::ListUp, A::ListDown, A::ListPageDown, A::Back],
        (_, phase) if state.sets.is_some() => {
            let control = match phase.is_running() {
                true => &[A::PauseResume, A::Stop][..],
                false => &[A::EditPrompt],
            };
            let rest = [
                A::MoveUp,
                A::MoveDown,
                A::Metrics,
                A::TurnLower,
                A::Steer,
                A::CompareSets,
                A::Export,
                A::CompareOff,
                A::Compare,
                A::Palette,
                A::Help,
                A::Quit,
            ];
            [control, &rest].concat()
        }
        (_, Phase::Reading) if state.only_reads() => vec![A::Stop, A::Palette, A::Help],
        (_, phase) if state.model_names().is_some() => {
            let control = match phase.is_running() {
                true => &[A::PauseResume, A::Step, A::Stop][..],
                false => &[A::EditPrompt, A::Run],
            };
            let gap = match state.why_no_difference() {
                Some(_) => &[A::TurnLower][..],
                None => &[A::TurnLower, A::TurnGap],
            };
            let (turn, next) = match state.pair() {
                Some(_) => (A::Steer, A::ComparePrompts),
                None => (A::TurnPairing, A::CompareModels),
            };
            let rest = [
                A::Metrics,
                turn,
                A::Export,
                A::CompareOff,
                next,
                A::Compare,
                A::Palette,
                A::Help,
                A::Quit,
            ];
            [control, gap, &rest].concat()
        }
        (_, Phase::Reading | Phase::Streaming | Phase::Paused) if state.beside.is_some() => vec![
            A::PauseResume,
            A::Step,
            A::Stop,
            A::Steer,
            A::Stronger,
            A::TurnGap,
            A::TurnLower,
            A::Metrics,
            A::Follow,
            A::Replay,
            A::Palette,
            A::Help,
        ],
        (_, Phase::Reading | Phase::Streaming | Phase::Paused) => vec![
            A::PauseResume,
            A::Step,
            A::Stop,
            A::Metrics,
            A::Follow,
            A::ZoomIn,
            A::Sampling,
            A::Themes,
            A::Palette,
            A::Help,
        ],
        _ if state.run.is_none() => vec![
            A::EditPrompt,
            A::SampleFirst,
            A::SampleSecond,
            A::SampleThird,
            A::Samples,
            A::Sampling,
            A::Themes,
            A::Palette,
            A::Help,
            A::Quit,
        ],
        _ if state.beside.is_some() => vec![
            A::EditPrompt,
            A::Steer,
            A::Stronger,
            A::TurnPairing,
            A::TurnGap,
            A::Replay,
            A::Metrics,
            A::TurnLower,
            A::Export,
            A::Compare,
            A::Palette,
            A::Help,
            A::Quit,
        ],
        _ if state.masked() => vec![
            A::EditPrompt,
            A::Run,
            A::NextMask,
            A::Metrics,
            A::ZoomIn,
            A::NextUncertain,
            A::Search,
            A::Export,
            A::Themes,
            A::Palette,
            A::Help,
            A::Quit,
        ],
        _ => vec![
            A::EditPrompt,
            A::Run,
            A::Continue,
            A::Metrics,
            A::ZoomIn,
            A::NextUncertain,
            A::Compare,
            A::Steer,
            A::Export,
            A::Sampling,
            A::Search,
            A::Themes,
            A::Palette,
            A::Help,
            A::Quit,
        ],
    }
}

/// Whether a comparison has all its rooms.
fn all_there(state: &State) -> bool {
    state.sets.is_none() && state.derived.plan.mode == Mode::Full
}

fn keys(buf: &mut Buffer, area: Rect, state: &State) {
    let mut x = 0;
    let help = usize::from(area.width);
    let samples = [
        Action::SampleFirst,
        Action::SampleSecond,
        Action::SampleThird,
    ];
    let nothing = |action: Action| {
        let set = samples.iter().position(|sample| *sample == action);
        set.is_some_and(|set| set >= state.samples.len())
            || (action == Action::Sampling && state.only_reads())
            || (action == Action::TurnLower && state.beside.is_some() && all_there(state))
    };
    for action in useful(state).into_iter().filter(|a| !nothing(*a)) {
        let Some(key) = state.keymap.hint(action, state.context()) else {
            continue;
        };
        let label = match (action, &state.phase) {
            (Action::PauseResume, Phase::Paused) => "go on",
            (Action::MoveUp, _) if state.sets.is_some() => "layer up",
            (Action::CompareModels, _) => "another",
            (Action::CompareSets, _) if state.sets.is_some() => "again",
            (Action::Run, _) if state.context() == Context::Rooms => "again",
            _ => action.label(),
        };
        let needed = show::columns(&key) + show::columns(label) + 3;
        if usize::from(x) + needed > help {
            break;
        }
        x = put(buf, area, x, 0, &format!(" {key} "), state.theme.accent);
        x = put(buf, area, x, 0, &format!("{label} "), state.theme.muted);
    }
}
