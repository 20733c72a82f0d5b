//! The text: the prompt plain, every drawn token shaded by the metric of the cell that predicted it. A masked model draws
//! none: all of its text is shaded, each token by its own cell, and the gaps stand out.
//!
//! ```text
//!  The capital of Velmora is Tarsin. It lies on the river Osk, where the
//!  weavers hang their blue cloth every spring.⏎
//!  A child named Ilo …
//! ```

use super::{empty, put};
use crate::trace::{Aim, Kind};
use crate::tui::colour::Depth;
use crate::tui::state::State;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

/// Paint the text from the scrolled line on.
pub fn paint(buf: &mut Buffer, area: Rect, state: &State) {
    let Some(run) = state.run.as_ref().filter(|r| !r.grid.is_empty()) else {
        return empty::stream(buf, area, state);
    };
    let lines = &state.derived.flow.lines;
    let cursor = state.cursor.position;
    for (y, line) in lines
        .iter()
        .skip(state.stream_top)
        .take(usize::from(area.height))
        .enumerate()
    {
        let mut x = 1;
        for piece in line {
            let mut style = token_style(state, &run.grid, piece.last);
            let found = |m: &std::ops::RangeInclusive<usize>| m.contains(&piece.last);
            if state.derived.matches.iter().any(found) {
                style = style.add_modifier(Modifier::UNDERLINED | Modifier::BOLD);
            }
            if (piece.first..=piece.last).contains(&cursor) {
                style = state.theme.cursor;
            }
            x = put(buf, area, x, y as u16, &piece.text, style);
        }
    }
    scroll_marks(buf, area, state, lines.len());
}

/// How a token looks by what it is and how unsure the model was of it.
fn token_style(state: &State, grid: &crate::trace::Grid, token: usize) -> Style {
    let theme = &state.theme;
    let given = grid
        .tokens()
        .get(token)
        .is_none_or(|t| t.kind == Kind::Prompt);
    if given && grid.aim() == Aim::Next {
        return theme.prompt;
    }
    let gap = match theme.depth {
        _ if !state.is_mask(token) => Modifier::empty(),
        Depth::Mono => Modifier::BOLD,
        // The shade as ink on black or white: as readable, and unlike all the rest.
        _ => Modifier::BOLD | Modifier::REVERSED,
    };
    let Some(value) = grid.predicted_by(token, state.metric) else {
        return theme.base.add_modifier(gap);
    };
    let layer = grid.states().saturating_sub(1);
    let step = state.derived.ranges.step(layer, value);
    let style = match theme.depth {
        // Without colour: plain, underlined, underlined and bold.
        Depth::Mono if step >= 12 => theme
            .base
            .add_modifier(Modifier::UNDERLINED | Modifier::BOLD),
        Depth::Mono if step >= 8 => theme.base.add_modifier(Modifier::UNDERLINED),
        Depth::Mono => theme.base,
        _ => {
            let shade = theme.ramp.shade(step);
            Style::new().bg(shade.bg).fg(shade.ink)
        }
    };
    style.add_modifier(gap)
}

/// Small arrows at the right edge where there is more text.
fn scroll_marks(buf: &mut Buffer, area: Rect, state: &State, lines: usize) {
    if area.height == 0 {
        return;
    }
    let edge = area.width.saturating_sub(1);
    if state.stream_top > 0 {
        put(buf, area, edge, 0, "↑", state.theme.muted);
    }
    if state.stream_top + usize::from(area.height) < lines {
        put(buf, area, edge, area.height - 1, "↓", state.theme.muted);
    }
}
