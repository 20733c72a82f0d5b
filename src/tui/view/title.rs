//! The top line: what is loaded, and what is going on, in words.
//!
//! ```text
//!  entroscope  demo · llama · 12 blocks · d 192 · q8_0 · cpu×2      ▶ streaming  212 tok/s  lens +0.4 ms  48/128
//!   Stream   Map   Cell                                                                    (with one room at a time)
//! ```

use super::frame::{cell_words, map_words, tab_style};
use super::{put, put_line, sets};
use crate::model::ModelCard;
use crate::tui::layout::{Mode, Room};
use crate::tui::show;
use crate::tui::state::{Phase, State};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use std::sync::Arc;

/// Paint the title, and the tabs below it in the smallest layout.
pub fn paint(buf: &mut Buffer, area: Rect, state: &State) {
    let theme = &state.theme;
    let mut status = status(state);
    // The lens' cost, then the speed, go before they push the model's name away; the count stays.
    while status.width() + 34 > usize::from(area.width) && status.spans.len() > 2 {
        status.spans.remove(status.spans.len() - 2);
    }
    let room = usize::from(area.width).saturating_sub(status.width() + 3);
    let x = put(
        buf,
        area,
        1,
        0,
        "entroscope",
        theme
            .accent
            .patch(theme.title.fg(theme.accent.fg.unwrap_or_default())),
    );
    let model = model(state, room.saturating_sub(usize::from(x) + 2));
    put(buf, area, x + 2, 0, &model, theme.muted);
    let width = status.width() as u16;
    put_line(buf, area, area.width.saturating_sub(width + 1), 0, &status);
    if state.derived.plan.mode == Mode::Tabs {
        tabs(buf, state.derived.plan.tabs, state);
    }
}

/// The model's description, as many parts as fit.
fn model(state: &State, room: usize) -> String {
    let Some(model) = &state.model else {
        return show::cut(&state.asked, room);
    };
    let card = &model.card;
    // Two models side by side, part by part.
    let other = state.beside.as_ref().filter(|b| b.names().is_some());
    let other = other.filter(|_| state.sets.is_none());
    let other = other.and_then(|b| b.run.model.as_ref());
    let other = other.filter(|other| !Arc::ptr_eq(&other.card, card));
    let both = |of: fn(&ModelCard) -> String| match other.map(|other| of(&other.card)) {
        Some(b) if b != of(card) => format!("{} ‖ {b}", of(card)),
        _ => of(card),
    };
    let parts = [
        match other {
            Some(other) => format!("{} ‖ {}", card.name, other.card.name),
            None => card.name.clone(),
        },
        both(|card| card.family.clone()),
        format!("{} blocks", both(|card| card.blocks.to_string())),
        format!("d {}", both(|card| card.d_model.to_string())),
        both(|card| card.dtype.clone()),
        card.device.clone(),
    ];
    let mut out = show::cut(&show::visible(&parts[0]), room);
    for part in &parts[1..] {
        let next = format!("{out} · {}", show::visible(part));
        if show::columns(&next) > room {
            break;
        }
        out = next;
    }
    out
}

/// What is going on.
fn status(state: &State) -> Line<'static> {
    let theme = &state.theme;
    let word = |text: &str, style: Style| Span::styled(text.to_owned(), style);
    if let Some((what, done, total)) = &state.second.loading {
        let what = format!("second model: {what}");
        return loading(state, &what, *done, *total);
    }
    let sets = state
        .sets
        .as_ref()
        .filter(|_| !matches!(state.phase, Phase::Loading { .. }));
    if let Some(sets) = sets {
        return sets::status(state, sets);
    }
    let mut spans = match &state.phase {
        Phase::Loading { what, done, total } => return loading(state, what, *done, *total),
        Phase::NoModel => return Line::from(word("✗ no model", theme.error)),
        Phase::Ready => {
            let mut spans = vec![word("○ ready", theme.good)];
            if state.masked() {
                spans.push(fills(state));
            }
            return Line::from(spans);
        }
        Phase::Reading if state.only_reads() => vec![word("▶ reading the text", theme.good)],
        Phase::Reading => {
            let read = state.grid().map_or(0, |g| g.read());
            let of = state.run.as_ref().map_or(0, |r| r.prompt_tokens);
            vec![word(
                &format!("▶ reading the prompt {read:>3}/{of}"),
                theme.good,
            )]
        }
        Phase::Streaming => match (state.derived.diverged, &state.run) {
            (Some(at), Some(run)) => {
                let drawn = (at + 1).saturating_sub(run.prompt_tokens.min(at));
                vec![word(
                    &format!("▶ diverged at drawn token {drawn}"),
                    theme.good,
                )]
            }
            _ => vec![word("▶ streaming", theme.good)],
        },
        Phase::Paused => vec![word("⏸ paused", theme.warn)],
        Phase::Done(finish) => vec![word(&format!("■ {}", finish.label()), theme.muted)],
        Phase::Failed => vec![word("✗ failed", theme.error)],
    };
    // Of two models the one that draws tells how fast.
    let draws = state.branches().find(|run| !run.masked());
    if state.only_reads() {
        spans.push(fills(state));
    } else if let Some(run) = draws {
        let speed = &run.speed;
        if speed.tokens_per_second > 0.0 {
            let text = format!("  {:>5.0} tok/s", speed.tokens_per_second);
            spans.push(word(&text, theme.muted));
        }
        if speed.lens_ms > 0.0 {
            spans.push(word(
                &format!("  lens +{:.1} ms", speed.lens_ms),
                theme.muted,
            ));
        }
        let count = format!("  {:>3}/{}", run.drawn(), run.max_new_tokens);
        spans.push(Span::styled(count, theme.base));
    }
    Line::from(spans)
}

/// What a masked model does, in place of a speed.
fn fills(state: &State) -> Span<'static> {
    let text = format!("  masked · fills {}", state.mask_text());
    Span::styled(text, state.theme.muted)
}

fn loading(state: &State, what: &str, done: u64, total: Option<u64>) -> Line<'static> {
    let theme = &state.theme;
    let mut spans = vec![Span::styled(format!("◌ {what}"), theme.warn)];
    if done > 0 {
        let of = total.map_or(String::new(), |t| format!(" of {}", show::bytes(t)));
        spans.push(Span::styled(
            format!("  {}{of}", show::bytes(done)),
            theme.base,
        ));
        let seconds = state
            .clock
            .elapsed
            .saturating_sub(state.loading_since)
            .as_secs_f64();
        if seconds >= 0.5 {
            let rate = show::bytes((done as f64 / seconds) as u64);
            spans.push(Span::styled(format!("  {rate}/s"), theme.muted));
        }
    }
    Line::from(spans)
}

/// Room names in equal thirds; the shown one says what it shows.
fn tabs(buf: &mut Buffer, area: Rect, state: &State) {
    if state.sets.is_some() {
        return sets::tabs(buf, area, state);
    }
    let third = area.width / 3;
    let names = [
        (Room::Stream, "Stream".to_owned()),
        (Room::Map, map_words(state).0),
        (Room::Cell, format!("Cell {}", cell_words(state))),
    ];
    for (i, (room, name)) in names.iter().enumerate() {
        let text = format!(
            " {} ",
            show::cut(name, usize::from(third).saturating_sub(3))
        );
        put(
            buf,
            area,
            i as u16 * third,
            0,
            &text,
            tab_style(state, *room),
        );
    }
}
