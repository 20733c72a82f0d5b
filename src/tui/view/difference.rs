//! The map of differences of a comparison: steered − baseline in colours around zero, the same in percent, or the KL
//! divergence of both lens distributions.
//!
//! ```text
//!  12   ██▒▒░░  ░░▒▒      blue: less than the baseline, orange: more
//!   ⋮
//!   0   ··········
//!       The cap ital of ≠Tarsin
//!       −0.84 ████░░  ░░████ +0.84 nats  ·· unread  ╱╱ n/a
//! ```

use super::{map, put, put_line};
use crate::trace::Unit;
use crate::tui::colour::{Depth, GAPS, Ramp};
use crate::tui::show;
use crate::tui::state::{Gap, State};
use crate::tui::widgets::{Datum, HeatMap, Zoom};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

/// Paint the map's room.
pub fn paint(buf: &mut Buffer, area: Rect, state: &State) {
    let (Some(difference), Some(run)) = (state.difference(), &state.run) else {
        return;
    };
    let geometry = &state.derived.gap_geometry;
    let tokens = state
        .tokens()
        .saturating_sub(geometry.left)
        .min(geometry.columns);
    let positions = geometry.left..geometry.left + tokens;
    let cells = || {
        let layers = geometry.layers.iter();
        layers.flat_map(|layer| positions.clone().map(|position| (*layer, position)))
    };
    let data: Vec<Datum> = cells()
        .map(|(layer, position)| state.gap_datum(&difference, layer, position))
        .collect();
    let words: Vec<(String, String)> = match state.map.zoom {
        Zoom::Words => cells()
            .map(|(layer, position)| {
                let value = state.gap.of(&difference, layer, position, state.metric);
                (signed(state, value), String::new())
            })
            .collect(),
        Zoom::Cells | Zoom::Halves => Vec::new(),
    };
    HeatMap {
        geometry,
        data: &data,
        tokens,
        words: &words,
        decided: &[],
        cursor: Some((state.cursor.layer, state.cursor.position)),
        ramp: ramp(state),
        theme: &state.theme,
    }
    .render(geometry.area, buf);
    map::layer_labels(buf, area, state, geometry, state.cursor);
    map::token_labels(buf, area, state, run, geometry, state.cursor);
    scale(buf, area, state);
}

fn ramp(state: &State) -> &Ramp {
    match state.gap.diverges() {
        true => &state.theme.gaps,
        false => &state.theme.ramp,
    }
}

/// The unit of what the map shows.
pub fn unit(state: &State) -> Unit {
    match state.gap {
        Gap::Difference => state.columns().spec(state.metric).unit,
        Gap::Percent => Unit::None,
        Gap::Divergence => Unit::Nats,
    }
}

/// A difference with its sign.
pub fn signed(state: &State, value: Option<f32>) -> String {
    let Some(value) = value.filter(|v| v.is_finite()) else {
        return "n/a".to_owned();
    };
    let size = match state.gap {
        Gap::Percent => format!("{:.0} %", value.abs()),
        Gap::Difference | Gap::Divergence => show::number(Some(value.abs()), unit(state))
            .trim()
            .to_owned(),
    };
    match (value, state.gap.diverges()) {
        (v, true) if v > 0.0 => format!("+{size}"),
        (v, true) if v < 0.0 => format!("−{size}"),
        _ => size,
    }
}

/// The bar of this map's own colours.
fn scale(buf: &mut Buffer, area: Rect, state: &State) {
    let theme = &state.theme;
    let most = state.derived.gap_most;
    let low = match state.gap.diverges() {
        true => signed(state, Some(-most)),
        false => "0".to_owned(),
    };
    let mut spans = vec![Span::styled(format!("{low} "), theme.base)];
    let steps = if state.gap.diverges() { GAPS } else { 16 };
    let mono = theme.depth == Depth::Mono;
    spans.extend(mono.then(|| Span::styled("[", theme.muted)));
    for step in 0..steps {
        let shade = ramp(state).shade(step as u8);
        let style = Style::new().bg(shade.bg).fg(shade.glyph_ink);
        spans.push(Span::styled(String::from(shade.glyph).repeat(2), style));
    }
    spans.extend(mono.then(|| Span::styled("]", theme.muted)));
    let end = format!(" {} {}", signed(state, Some(most)), unit(state).label());
    spans.push(Span::styled(end, theme.base));
    let (unread, absent) = match theme.depth {
        Depth::Mono => ("__", "//"),
        _ => ("··", "╱╱"),
    };
    let mut line = Line::from(spans);
    for part in [
        format!("  {unread} unread"),
        format!("  {absent} n/a"),
        "  ≠ texts part".to_owned(),
    ] {
        if line.width() + show::columns(&part) + 5 <= usize::from(area.width) {
            line.push_span(Span::styled(part, theme.muted));
        }
    }
    put_line(buf, area, 4, area.height.saturating_sub(1), &line);
}

/// A line above a branch's part of a room, where rooms have no borders.
pub fn header(buf: &mut Buffer, area: Rect, text: &str, state: &State) {
    if area.y > 0 && !area.is_empty() {
        let above = Rect {
            y: area.y - 1,
            height: 1,
            ..area
        };
        put(buf, above, 1, 0, text, state.theme.title);
    }
}
