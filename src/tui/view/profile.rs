//! The chosen metric of the cursor's token over the layers, the mean of all tokens behind it.
//!
//! ```text
//!   8.31 ⡇⢄                   solid: this token, dotted: the mean, its own colour: what chance would give
//!        ⡇ ⠑⠢⢄⡀
//!   0.02 ⠧⠤⠤⠤⠤⠬⠭⠶⠶⠤
//!        0     layer     12
//! ```

use super::{empty, put, put_line};
use crate::tui::show;
use crate::tui::state::State;
use crate::tui::widgets::{Curve, Series};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

/// Columns of the numbers at the left.
const NUMBERS: u16 = 8;

/// Paint the curve with its axes.
pub fn paint(buf: &mut Buffer, area: Rect, state: &State) {
    let Some(run) = state.run.as_ref().filter(|r| !r.grid.is_empty()) else {
        return empty::profile(buf, area, state);
    };
    if area.height < 3 || area.width < NUMBERS + 8 {
        return;
    }
    let theme = &state.theme;
    let unit = state.columns().spec(state.metric).unit;
    let values = run.grid.profile(state.cursor.position, state.metric);
    let means = &state.derived.means;
    let null = state.null_of(state.metric);
    let nulls = vec![null; values.len()];
    let known = values
        .iter()
        .chain(means)
        .chain(std::iter::once(&null))
        .flatten()
        .copied()
        .filter(|v| v.is_finite());
    let (low, high) = known.fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), v| {
        (l.min(v), h.max(v))
    });
    let plot = Rect {
        x: area.x + NUMBERS,
        y: area.y,
        width: area.width - NUMBERS - 1,
        height: area.height - 2,
    };
    if low > high {
        put(buf, area, 1, 0, "n/a", theme.muted);
        return;
    }
    for (y, value) in [(0, high), (plot.height - 1, low)] {
        let text = format!("{:>7}", show::number(Some(value), unit));
        put(buf, area, 0, y, &text, theme.muted);
    }
    let series = [
        (&nulls, theme.null, true),
        (means, theme.mean, true),
        (&values, theme.curve, false),
    ];
    Curve {
        series: series
            .into_iter()
            .map(|(values, style, dotted)| Series {
                values,
                style,
                dotted,
            })
            .collect(),
        range: (low, high.max(low + 1e-6)),
        mark: Some((state.cursor.layer, theme.faint)),
    }
    .render(plot, buf);
    axis(buf, area, plot, state, run.grid.states());
    legend(buf, area, state, null.is_some());
}

/// Layer numbers under the curve; the cursor's where it is.
pub fn axis(buf: &mut Buffer, area: Rect, plot: Rect, state: &State, states: usize) {
    let row = Rect {
        y: plot.bottom(),
        height: 1,
        ..plot
    };
    let last = states - 1;
    let end = last.to_string();
    put(buf, row, 0, 0, "0", state.theme.muted);
    put(
        buf,
        row,
        row.width - end.len() as u16,
        0,
        &end,
        state.theme.muted,
    );
    let here = state.cursor.layer.to_string();
    let x = state.cursor.layer * usize::from(row.width - 1) / last.max(1);
    let x = (x as u16).saturating_sub(here.len() as u16 / 2);
    let x = x.min(row.width - here.len() as u16);
    put(buf, row, x, 0, &here, state.theme.accent);
    put(
        buf,
        Rect {
            y: row.y,
            height: 1,
            ..area
        },
        2,
        0,
        "layer",
        state.theme.muted,
    );
}

fn legend(buf: &mut Buffer, area: Rect, state: &State, null: bool) {
    let theme = &state.theme;
    let mut spans = vec![
        Span::styled("⠤⠤ ", theme.curve),
        Span::styled("this token  ", theme.muted),
        Span::styled("⠄⠄ ", theme.mean),
        Span::styled("mean of all  ", theme.muted),
    ];
    if null {
        spans.push(Span::styled("⠄⠄ ", theme.null));
        spans.push(Span::styled("chance", theme.muted));
    }
    put_line(buf, area, 1, area.height - 1, &Line::from(spans));
}
