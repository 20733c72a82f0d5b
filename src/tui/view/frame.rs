//! The lines between rooms and the titles in them. Neighbours share a line; the room with the keys has a brighter one.
//!
//! ```text
//! ╭ Stream ──── 27 + 21 tokens ┬ Cell · layer 9 · token 31 ─╮
//! ├ Entropy (nats) · 13 states × 48 tokens · … ─── f follow ┤
//! ```

use super::{has_keys, put_line};
use crate::tui::action::Action;
use crate::tui::keymap::Context;
use crate::tui::layout::{Mode, Room};
use crate::tui::show;
use crate::tui::state::{Phase, Scale, State};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::symbols::merge::MergeStrategy;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Widget};

/// Paint all lines and titles.
pub fn paint(buf: &mut Buffer, state: &State) {
    let plan = &state.derived.plan;
    if plan.mode == Mode::Tabs {
        return;
    }
    let boxes = [
        (plan.stream, has_keys(state, Room::Stream)),
        (plan.map, has_keys(state, Room::Map)),
        (plan.cell, has_keys(state, Room::Cell)),
        (plan.profile, false),
        (plan.attention, false),
        (plan.prompt, state.writing),
    ];
    // The brighter line goes over its neighbours' lines, and titles over all lines.
    for focused in [false, true] {
        for (area, _) in boxes.iter().filter(|(a, f)| *f == focused && !a.is_empty()) {
            let style = if focused {
                state.theme.focus
            } else {
                state.theme.border
            };
            Block::bordered()
                .merge_borders(MergeStrategy::Exact)
                .border_style(style)
                .render(*area, buf);
        }
    }
    round_corners(buf, plan.stream.union(plan.prompt));
    for (area, left, right) in [
        (plan.stream, stream_title(state), stream_note(state)),
        (plan.map, map_title(state), map_note(state)),
        (plan.cell, cell_title(state), Line::default()),
        (plan.profile, profile_title(state), Line::default()),
        (plan.attention, attention_title(state), Line::default()),
        (plan.prompt, prompt_title(state), Line::default()),
    ] {
        titles(buf, area, &left, &right);
    }
}

fn titles(buf: &mut Buffer, area: Rect, left: &Line<'_>, right: &Line<'_>) {
    if area.width < 8 {
        return;
    }
    let inside = Rect {
        x: area.x + 1,
        width: area.width - 2,
        height: 1,
        ..area
    };
    put_line(buf, inside, 1, 0, left);
    let (l, r) = (left.width() as u16, right.width() as u16);
    if r > 0 && l + r + 2 <= inside.width {
        put_line(buf, inside, inside.width - r - 1, 0, right);
    }
}

fn round_corners(buf: &mut Buffer, area: Rect) {
    let (right, bottom) = (area.right() - 1, area.bottom() - 1);
    for (x, y, plain, round) in [
        (area.x, area.y, "┌", "╭"),
        (right, area.y, "┐", "╮"),
        (area.x, bottom, "└", "╰"),
        (right, bottom, "┘", "╯"),
    ] {
        if let Some(cell) = buf.cell_mut((x, y)).filter(|c| c.symbol() == plain) {
            cell.set_symbol(round);
        }
    }
}

/// A title of parts: the first stands out.
fn title(state: &State, focused: bool, first: &str, rest: &str) -> Line<'static> {
    let head = if focused {
        state.theme.focus.patch(
            state
                .theme
                .title
                .fg(state.theme.focus.fg.unwrap_or_default()),
        )
    } else {
        state.theme.title
    };
    let mut spans = vec![Span::styled(format!(" {first} "), head)];
    if !rest.is_empty() {
        spans.push(Span::styled(format!("{rest} "), state.theme.muted));
    }
    Line::from(spans)
}

fn stream_title(state: &State) -> Line<'static> {
    title(state, has_keys(state, Room::Stream), "Stream", "")
}

fn stream_note(state: &State) -> Line<'static> {
    let Some(run) = &state.run else {
        return Line::default();
    };
    if state.masked() {
        let gaps = state.masks().len();
        let text = format!(" {} tokens · {gaps} {} ", run.grid.len(), state.mask_text());
        return Line::styled(text, state.theme.muted);
    }
    let shown = run.prompt_tokens.min(run.grid.len());
    let text = format!(" {shown} prompt + {} drawn tokens ", run.drawn());
    Line::styled(text, state.theme.muted)
}

fn map_title(state: &State) -> Line<'static> {
    let focused = has_keys(state, Room::Map);
    let (first, rest) = map_words(state);
    title(state, focused, &first, &rest)
}

/// What the map shows, in words: metric and unit, size, range.
pub fn map_words(state: &State) -> (String, String) {
    let spec = state.columns().spec(state.metric);
    let unit = match spec.unit.label() {
        "" => String::new(),
        unit => format!(" ({unit})"),
    };
    let first = format!("{}{unit}", show::visible(&spec.label));
    let Some(run) = &state.run else {
        return (first, "by layer and token".to_owned());
    };
    let log = match state.derived.ranges.scale {
        Scale::Log => " · log",
        Scale::Linear => "",
    };
    let rest = format!(
        "· {} states × {} tokens · {}{log}",
        run.grid.states(),
        run.grid.len(),
        state.map.range.label()
    );
    (first, rest)
}

/// How to follow again, once the cursor has left the newest token.
fn map_note(state: &State) -> Line<'static> {
    if state.run.is_none() || state.masked() {
        return Line::default();
    }
    let key = state.keymap.hint(Action::Follow, Context::Rooms);
    match (state.cursor.follow, &state.phase) {
        (true, Phase::Reading | Phase::Streaming) => {
            Line::styled(" ● following ", state.theme.good)
        }
        (false, Phase::Reading | Phase::Streaming | Phase::Paused) => Line::from(vec![
            Span::styled(format!(" {}", key.unwrap_or_default()), state.theme.accent),
            Span::styled(" follow ", state.theme.muted),
        ]),
        _ => Line::default(),
    }
}

fn cell_title(state: &State) -> Line<'static> {
    let focused = has_keys(state, Room::Cell);
    title(state, focused, "Cell", &cell_words(state))
}

/// Which cell is looked at, in words.
pub fn cell_words(state: &State) -> String {
    let Some(token) = state
        .grid()
        .and_then(|g| g.tokens().get(state.cursor.position))
    else {
        return String::new();
    };
    if state.is_mask(state.cursor.position) {
        return format!(
            "· predictions at {} {} · layer {}",
            state.mask_text(),
            state.cursor.position,
            state.cursor.layer
        );
    }
    format!(
        "· layer {} · token {} {}",
        state.cursor.layer,
        state.cursor.position,
        show::cut(&show::label(&token.bytes), 16)
    )
}

fn profile_title(state: &State) -> Line<'static> {
    let spec = state.columns().spec(state.metric);
    let unit = match spec.unit.label() {
        "" => String::new(),
        unit => format!("· {unit}"),
    };
    let first = format!("{} by layer", show::visible(&spec.label));
    title(state, false, &first, &unit)
}

fn attention_title(state: &State) -> Line<'static> {
    let rest = if state.run.is_some() {
        format!("· layer {}", state.cursor.layer)
    } else {
        String::new()
    };
    title(state, false, "Attention", &rest)
}

fn prompt_title(state: &State) -> Line<'static> {
    let chat = state.settings.chat && state.model.as_ref().is_some_and(|m| m.card.chat_template);
    title(
        state,
        state.writing,
        "Prompt",
        if chat { "· as a chat turn" } else { "" },
    )
}

/// The style of a room's name where rooms are tabs.
pub fn tab_style(state: &State, room: Room) -> Style {
    if state.room == room {
        state.theme.cursor
    } else {
        state.theme.muted
    }
}
