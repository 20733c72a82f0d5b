//! The text: the prompt plain, every drawn token shaded by the metric of the cell that predicted it. A masked model draws
//! none: all of its text is shaded, each token by its own cell, and the gaps stand out.
//!
//! ```text
//!  The capital of Velmora is Tarsin. It lies on the river Osk, where the
//!  weavers hang their blue cloth every spring.⏎
//!  A child named Ilo …
//! ```

use super::{empty, put};
use crate::trace::{Aim, Kind, Side};
use crate::tui::colour::Depth;
use crate::tui::state::{Run, State};
use crate::tui::widgets::Flow;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

/// Paint the text from the scrolled line on.
pub fn paint(buf: &mut Buffer, area: Rect, state: &State) {
    match state.run.as_ref().filter(|r| !r.grid.is_empty()) {
        Some(run) => {
            let flow = &state.derived.flow;
            text(buf, area, state, run, flow, state.stream_top, Side::A);
        }
        None => empty::stream(buf, area, state),
    }
}

/// Paint the text of a comparison's other branch.
pub fn paint_beside(buf: &mut Buffer, area: Rect, state: &State) {
    if let Some(beside) = &state.beside {
        let derived = &state.derived;
        let (flow, top) = (&derived.beside_flow, derived.beside_top);
        text(buf, area, state, &beside.run, flow, top, Side::B);
    }
}

fn text(
    buf: &mut Buffer,
    area: Rect,
    state: &State,
    run: &Run,
    flow: &Flow,
    top: usize,
    side: Side,
) {
    let lines = &flow.lines;
    let cursor = state.cursor_of(side).position;
    // Found are tokens of the first text; those of another model are other tokens.
    let matches = match side == Side::B && state.model_names().is_some() {
        true => &[][..],
        false => &state.derived.matches,
    };
    for (y, line) in lines
        .iter()
        .skip(top)
        .take(usize::from(area.height))
        .enumerate()
    {
        let mut x = 1;
        for piece in line {
            let mut style = token_style(state, run, piece.last);
            let found = |m: &std::ops::RangeInclusive<usize>| m.contains(&piece.last);
            if matches.iter().any(found) {
                style = style.add_modifier(Modifier::UNDERLINED | Modifier::BOLD);
            }
            // Where the texts of a comparison part.
            let parts = |at: usize| (piece.first..=piece.last).contains(&at);
            if state.derived.diverged.is_some_and(parts) {
                style = theme_mark(state, style);
            }
            if (piece.first..=piece.last).contains(&cursor) {
                style = state.theme.cursor;
            }
            x = put(buf, area, x, y as u16, &piece.text, style);
        }
    }
    scroll_marks(buf, area, state, top, lines.len());
}

/// How a token looks by what it is and how unsure the model was of it.
fn token_style(state: &State, run: &Run, token: usize) -> Style {
    let (theme, grid) = (&state.theme, &run.grid);
    let given = grid
        .tokens()
        .get(token)
        .is_none_or(|t| t.kind == Kind::Prompt);
    if given && grid.aim() == Aim::Next {
        return theme.prompt;
    }
    let gap = match theme.depth {
        _ if !run.is_mask(token) => Modifier::empty(),
        Depth::Mono => Modifier::BOLD,
        // The shade as ink on black or white: as readable, and unlike all the rest.
        _ => Modifier::BOLD | Modifier::REVERSED,
    };
    let Some(value) = grid.predicted_by(token, state.metric) else {
        return theme.base.add_modifier(gap);
    };
    let layer = grid.states().saturating_sub(1);
    let step = state.shade(run, layer, value);
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

/// The first different token: underlined and bold, in the colour of warnings where there is no shade to read on.
fn theme_mark(state: &State, style: Style) -> Style {
    let mark = Modifier::UNDERLINED | Modifier::BOLD;
    match (style.bg, state.theme.warn.fg) {
        (None, Some(fg)) => style.fg(fg).add_modifier(mark),
        _ => style.add_modifier(mark),
    }
}

/// Small arrows at the right edge where there is more text.
fn scroll_marks(buf: &mut Buffer, area: Rect, state: &State, top: usize, lines: usize) {
    if area.height == 0 {
        return;
    }
    let edge = area.width.saturating_sub(1);
    if top > 0 {
        put(buf, area, edge, 0, "↑", state.theme.muted);
    }
    if top + usize::from(area.height) < lines {
        put(buf, area, edge, area.height - 1, "↓", state.theme.muted);
    }
}
