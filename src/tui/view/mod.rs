//! Drawing: one file a room, each taking the settled [`State`] and painting its area.
//!
//! ```text
//!  title
//! ╭ stream ───────┬ cell ──────╮      frame.rs draws the lines and the titles in them
//! ├ map ──────────┼ profile ───┤
//! │               ├ attention ─┤
//! ├ prompt ───────┴────────────┤
//! ╰ hints ─────────────────────╯      popup.rs, steering.rs lie over all of it
//! ```
//! A comparison shows two of stream and map, `difference`, `summary` (`depths` of two models) and `cell_pair`; two sets of prompts have `sets/`.

mod attention;
mod cell;
mod cell_pair;
mod depths;
mod difference;
mod empty;
mod frame;
mod hints;
mod map;
mod popup;
mod profile;
mod prompt;
mod sets;
mod steering;
mod stream;
mod summary;
mod sweep;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_compare;
#[cfg(test)]
mod tests_models;
mod title;

use super::layout::{LEAST, Mode, Room};
use super::state::State;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use ratatui::text::Line;

/// Draw the whole screen. The state must have been settled since it last changed.
pub fn render(frame: &mut Frame<'_>, state: &State) {
    let cursor = paint(frame.buffer_mut(), state);
    if let Some(position) = cursor {
        frame.set_cursor_position(position);
    }
}

/// Paint the whole screen into a buffer of the state's size; the place of the text cursor, when text is written.
pub fn paint(buf: &mut Buffer, state: &State) -> Option<Position> {
    let plan = &state.derived.plan;
    buf.set_style(buf.area, state.theme.base);
    if plan.mode == Mode::TooSmall {
        let (w, h) = LEAST;
        let text = format!(
            "entroscope needs {w}×{h}, this is {}×{}",
            state.area.width, state.area.height
        );
        put(buf, buf.area, 0, 0, &text, state.theme.base);
        return None;
    }
    title::paint(buf, plan.title, state);
    frame::paint(buf, state);
    if !plan.stream.is_empty() {
        stream::paint(buf, plan.inner(plan.stream), state);
    }
    if !plan.map.is_empty() {
        map::paint(buf, plan.inner(plan.map), state);
    }
    stream::paint_beside(buf, plan.inner(plan.beside_stream), state);
    map::paint_beside(buf, plan.inner(plan.beside_map), state);
    if !plan.difference.is_empty() {
        difference::paint(buf, plan.inner(plan.difference), state);
    }
    if !plan.summary.is_empty() {
        summary::paint(buf, plan.inner(plan.summary), state);
    }
    if !plan.cell.is_empty() {
        cell::paint(buf, plan.inner(plan.cell), state);
    }
    if !plan.profile.is_empty() {
        profile::paint(buf, plan.inner(plan.profile), state);
    }
    if !plan.attention.is_empty() {
        attention::paint(buf, plan.inner(plan.attention), state);
    }
    sets::paint(buf, state);
    let editing = prompt::paint(buf, plan.inner(plan.prompt), state);
    hints::paint(buf, plan.hints, state);
    let popup = popup::paint(buf, state);
    match &state.overlay {
        Some(_) => popup,
        None => editing,
    }
}

/// Write at a place inside `area`, cut at its right edge; returns the column behind the text, relative to the area.
fn put(buf: &mut Buffer, area: Rect, x: u16, y: u16, text: &str, style: Style) -> u16 {
    if x >= area.width || y >= area.height {
        return x;
    }
    let room = usize::from(area.width - x);
    let (end, _) = buf.set_stringn(area.x + x, area.y + y, text, room, style);
    end - area.x
}

/// Write styled text at a place inside `area`, cut at its right edge.
fn put_line(buf: &mut Buffer, area: Rect, x: u16, y: u16, line: &Line<'_>) {
    if x < area.width && y < area.height {
        buf.set_line(area.x + x, area.y + y, line, area.width - x);
    }
}

/// Whether a room has the keys.
fn has_keys(state: &State, room: Room) -> bool {
    !state.writing && state.room == room
}
