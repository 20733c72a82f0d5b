//! The layer × token map with its strip, labels and scale.
//!
//! ```text
//! last  ▂▁▁▅█▁▂▁▁▃▁▁▁   what the last layer says, where rows are to spare
//!  12   ██████▐▌██       cells
//!   ⋮
//!   0   ██████████
//!       The cap ital of ▲Tarsin
//!       0.02 ████████████████ 8.31 nats  ·· unread  ╱╱ n/a  ▁▁ decided
//! ```

use super::{empty, put, put_line};
use crate::trace::Side;
use crate::tui::colour::Depth;
use crate::tui::show;
use crate::tui::state::{Cursor, RangeMode, Run, State};
use crate::tui::widgets::{Datum, Geometry, HeatMap, Zoom, colour_bar, columns_strip};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

/// Paint the map's room.
pub fn paint(buf: &mut Buffer, area: Rect, state: &State) {
    let Some(run) = state.run.as_ref().filter(|r| !r.grid.is_empty()) else {
        return empty::map(buf, area, state);
    };
    let geometry = &state.derived.geometry;
    let cursor = state.cursor_of(Side::A);
    cells(buf, state, run, geometry, cursor);
    layer_labels(buf, area, state, geometry, cursor);
    strip(buf, area, state, run);
    token_labels(buf, area, state, run, geometry, cursor);
    scale(buf, area, state);
}

/// Paint the map of a comparison's other branch, on the scale of the first.
pub fn paint_beside(buf: &mut Buffer, area: Rect, state: &State) {
    if let Some(beside) = &state.beside {
        let geometry = &state.derived.beside_geometry;
        let cursor = state.cursor_of(Side::B);
        cells(buf, state, &beside.run, geometry, cursor);
        layer_labels(buf, area, state, geometry, cursor);
        token_labels(buf, area, state, &beside.run, geometry, cursor);
        scale(buf, area, state);
    }
}

fn cells(buf: &mut Buffer, state: &State, run: &Run, geometry: &Geometry, cursor: Cursor) {
    let tokens = run
        .grid
        .len()
        .saturating_sub(geometry.left)
        .min(geometry.columns);
    let positions = geometry.left..geometry.left + tokens;
    let data: Vec<Datum> = geometry
        .layers
        .iter()
        .flat_map(|layer| positions.clone().map(|p| state.datum(run, *layer, p)))
        .collect();
    let words: Vec<(String, String)> = if state.map.zoom == Zoom::Words {
        geometry
            .layers
            .iter()
            .flat_map(|layer| {
                positions.clone().map(|p| {
                    let best = run.grid.top(*layer, p).first();
                    best.map_or_else(Default::default, |c| {
                        let share = show::percent(c.prob);
                        (run.word(c.id), share.trim_start().to_owned())
                    })
                })
            })
            .collect()
    } else {
        Vec::new()
    };
    let decided: Vec<Option<usize>> = if state.map.hide_decided {
        Vec::new()
    } else {
        positions
            .map(|p| run.grid.cells(p)?.decided_layer.map(|l| l as usize))
            .collect()
    };
    HeatMap {
        geometry,
        data: &data,
        tokens,
        words: &words,
        decided: &decided,
        cursor: Some((cursor.layer, cursor.position)),
        ramp: &state.theme.ramp,
        theme: &state.theme,
    }
    .render(geometry.area, buf);
}

/// Layer numbers at the left; the cursor's stands out, a gap between layers is marked.
pub(super) fn layer_labels(
    buf: &mut Buffer,
    area: Rect,
    state: &State,
    geometry: &Geometry,
    cursor: Cursor,
) {
    let mut above: Option<usize> = None;
    for (i, layer) in geometry.layers.iter().enumerate() {
        let Some(rect) = geometry.cell(*layer, geometry.left) else {
            continue;
        };
        let here = *layer == cursor.layer;
        let second = geometry.halves && i % 2 == 1;
        // Two layers share a row: its number is the upper one's, unless the cursor is on the lower.
        if !second || here {
            let style = if here {
                state.theme.accent
            } else {
                state.theme.muted
            };
            let y = rect.y - area.y + (rect.height - 1) / 2;
            put(buf, area, 0, y, &format!("{layer:>3}"), style);
            if above.is_some_and(|a| a > layer + 1) && !second {
                put(buf, area, 0, y, "⋮", state.theme.muted);
            }
        }
        above = Some(*layer);
    }
}

/// The last layer's values as columns above the map, on the map's own scale.
fn strip(buf: &mut Buffer, area: Rect, state: &State, run: &Run) {
    let (strip, geometry) = (state.derived.strip, &state.derived.geometry);
    if strip.is_empty() {
        return;
    }
    put(
        buf,
        area,
        0,
        strip.bottom() - 1 - area.y,
        "out",
        state.theme.muted,
    );
    let last = run.grid.states() - 1;
    let tokens = run.grid.len().min(geometry.left + geometry.columns);
    for position in geometry.left..tokens {
        let Datum::Step(step) = state.datum(run, last, position) else {
            continue;
        };
        let colour = match state.theme.depth {
            Depth::Mono => state.theme.base,
            _ => Style::new().fg(state.theme.ramp.shade(step).bg),
        };
        let x = strip.x + (position - geometry.left) as u16 * geometry.width;
        // One column stays free between wide bars, so that they read as bars.
        let width = if geometry.width > 2 {
            geometry.width - 1
        } else {
            geometry.width
        };
        let share = f32::from(step + 1) / 16.0;
        columns_strip(buf, strip, x, width, share, colour);
    }
}

/// Tokens under their columns where they fit; the cursor's always, in full. A line stands before the first token that was
/// read under another plan than those before it, `≠` before the first that differs from the other branch's.
pub(super) fn token_labels(
    buf: &mut Buffer,
    area: Rect,
    state: &State,
    run: &Run,
    geometry: &Geometry,
    cursor: Cursor,
) {
    let row = Rect {
        x: geometry.area.x,
        y: geometry.area.bottom(),
        width: area.right().saturating_sub(geometry.area.x),
        height: 1,
    };
    let text = |position: usize| {
        let token = run.grid.tokens().get(position);
        token.map_or(String::new(), |t| show::label(&t.bytes))
    };
    let column = |position: usize| (position - geometry.left) * usize::from(geometry.width);
    let visible = geometry.left..run.grid.len().min(geometry.left + geometry.columns);
    let cursor = cursor.position;
    let mut taken = (usize::MAX, usize::MAX);
    if visible.contains(&cursor) {
        let label = format!("▲{}{}", mark(state, run, cursor), text(cursor));
        let width = show::columns(&label);
        let start = column(cursor).min(usize::from(row.width).saturating_sub(width));
        put(buf, row, start as u16, 0, &label, state.theme.accent);
        taken = (start, start + width + 1);
    }
    let mut free = 0;
    for position in visible.filter(|p| *p != cursor) {
        let start = column(position);
        let mark = mark(state, run, position);
        let label = format!("{mark}{}", text(position));
        let end = start + show::columns(&label) + 1;
        let clear = end <= taken.0 || start >= taken.1;
        if clear && !mark.is_empty() && start < usize::from(row.width) {
            // A mark matters more than the end of a label before it.
            let x = put(buf, row, start as u16, 0, mark, state.theme.warn);
            let room = usize::from(row.width - x).min(taken.0.saturating_sub(usize::from(x)));
            put(
                buf,
                row,
                x,
                0,
                &show::cut(&text(position), room),
                state.theme.muted,
            );
            free = end;
        } else if start >= free && clear && end <= usize::from(row.width) + 1 {
            put(buf, row, start as u16, 0, &label, state.theme.muted);
            free = end;
        }
    }
}

/// What stands before a token's label.
fn mark(state: &State, run: &Run, position: usize) -> &'static str {
    match (
        state.derived.diverged == Some(position),
        run.turns_at(position),
    ) {
        (true, _) => "≠",
        (false, true) => "│",
        (false, false) => "",
    }
}

/// The colour bar with its numbers, and what the marks mean.
fn scale(buf: &mut Buffer, area: Rect, state: &State) {
    let theme = &state.theme;
    let spec = state.columns().spec(state.metric);
    let rows = &state.derived.ranges.rows;
    let (low, high) = match state.map.range {
        // Each row has its own scale: the numbers are those of the cursor's layer.
        RangeMode::Row => rows.get(state.cursor.layer).copied(),
        RangeMode::Map | RangeMode::Fixed => None,
    }
    .unwrap_or(state.derived.ranges.map);
    let wide = area.width >= 90;
    let mut spans = vec![Span::styled(
        format!("{} ", show::number(Some(low), spec.unit)),
        theme.base,
    )];
    let mono = theme.depth == Depth::Mono;
    spans.extend(mono.then(|| Span::styled("[", theme.muted)));
    spans.extend(colour_bar(theme, if wide { 2 } else { 1 }));
    spans.extend(mono.then(|| Span::styled("]", theme.muted)));
    spans.push(Span::styled(
        format!(" {}", show::with_unit(Some(high), spec.unit)),
        theme.base,
    ));
    if state.map.range == RangeMode::Row {
        let text = format!(" on layer {}", state.cursor.layer);
        spans.push(Span::styled(text, theme.muted));
    }
    let (unread, absent) = match theme.depth {
        Depth::Mono => ("__", "//"),
        _ => ("··", "╱╱"),
    };
    let mut legend = vec![(unread, "unread"), (absent, "n/a")];
    if !state.map.hide_decided && state.map.zoom != Zoom::Halves {
        legend.push(("▁▁", "decided"));
    }
    let mut line = Line::from(spans);
    for (mark, text) in legend {
        let part = format!("  {mark} {text}");
        if line.width() + show::columns(&part) + 5 > usize::from(area.width) {
            break;
        }
        line.push_span(Span::styled(part, theme.muted));
    }
    put_line(buf, area, 4, area.height.saturating_sub(1), &line);
}
