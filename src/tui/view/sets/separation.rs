//! How well each layer tells the sets apart by the chosen metric: AUROC with its interval, the difference of the means,
//! and the numbers of the cursor's layer.
//!
//! ```text
//!    1.0 ⡇   ⢀⡠⠤⠤      layer 9     mean ± std · n
//!        ⡇⠤⠒⠉  ⠄⠄      known       2.31 ± 0.80 nats · 140
//!    0.4 ⠧⠤⠤⠤⠤⠤⠤⠤      near-OOD    3.05 ± 0.71 nats · 220
//!  layer 0   9   12    difference  +0.74 nats
//!   diff ▒▒░░██████    AUROC       0.912 [0.880, 0.941]
//! ```

use super::{NUMBERS, bands, series, style, teach};
use crate::trace::Set;
use crate::tui::colour::{Depth, GAPS, gap_step};
use crate::tui::show;
use crate::tui::state::{SetLayer, SetsView, State};
use crate::tui::view::summary::spread_text;
use crate::tui::view::{profile, put, put_line};
use crate::tui::widgets::Curve;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

/// Columns and rows of the numbers of one layer.
const TABLE: (u16, u16) = (39, 5);
/// Rows of a curve that leaves room for the differences below it.
const ROOMY: u16 = 9;

/// Paint curve, differences and numbers.
pub fn paint(buf: &mut Buffer, area: Rect, state: &State, sets: &SetsView) {
    if sets.samples.count() == 0 {
        let text = "AUROC: how often a prompt of the second set has the larger number when one of each is drawn. 0.5 is \
                    chance, 1 and 0 tell the sets apart without fail.";
        return teach(buf, area, state, text);
    }
    let (width, height) = TABLE;
    // Beside the curve where it stays wide, below it where it stays high.
    let beside = area.width >= width + 36 || area.height < height + 6;
    let (curve, table) = match beside {
        true => {
            let left = area.width.saturating_sub(width);
            let table = Rect {
                x: area.x + left,
                width: area.width - left,
                ..area
            };
            (
                Rect {
                    width: left,
                    ..area
                },
                table,
            )
        }
        false => {
            // A free row keeps them apart where there is one to spare.
            let free = u16::from(area.height >= height + 1 + ROOMY);
            let above = area.height - height - free;
            let table = Rect {
                x: area.x + 1,
                y: area.y + above + free,
                width: area.width - 1,
                height,
            };
            (
                Rect {
                    height: above,
                    ..area
                },
                table,
            )
        }
    };
    numbers(buf, table, state, sets);
    key(buf, table, state, beside);
    plot(buf, curve, state, sets);
}

/// The curve between the interval's ends, the line of chance, and the differences below.
fn plot(buf: &mut Buffer, area: Rect, state: &State, sets: &SetsView) {
    let theme = &state.theme;
    let layers = &state.derived.sets.layers;
    if area.height < 4 || area.width < NUMBERS + 8 {
        return;
    }
    let roomy = area.height >= ROOMY;
    let plot = Rect {
        x: area.x + NUMBERS,
        width: area.width - NUMBERS - 1,
        height: area.height - if roomy { 3 } else { 1 },
        ..area
    };
    let of = |value: fn(&SetLayer) -> Option<f64>| -> Vec<Option<f32>> {
        let values = layers.iter().map(|layer| value(layer).map(|v| v as f32));
        values.collect()
    };
    let auroc = of(|layer| layer.auroc);
    let low = of(|layer| layer.interval.map(|(low, _)| low));
    let high = of(|layer| layer.interval.map(|(_, high)| high));
    let chance = vec![Some(0.5); layers.len()];
    if auroc.iter().all(Option::is_none) {
        let text = "n/a until both sets have a number";
        put(buf, area, 1, 0, text, theme.muted);
        return;
    }
    let all = [&auroc, &low, &high, &chance];
    let known = all.into_iter().flatten().flatten();
    let (least, most) = known.fold((1.0f32, 0.0f32), |(l, h), v| (l.min(*v), h.max(*v)));
    // To the next tenth, so that the axis rests while numbers move.
    let range = ((least * 10.0).floor() / 10.0, (most * 10.0).ceil() / 10.0);
    let (least, most) = range;
    for (y, value) in [(0, most), (plot.height - 1, least)] {
        put(buf, area, 0, y, &format!("{value:>7.1}"), theme.muted);
    }
    let middle = (most - 0.5) / (most - least) * f32::from(plot.height - 1);
    let middle = middle.round() as u16;
    if middle > 0 && middle < plot.height - 1 {
        put(buf, area, 0, middle, "    0.5", theme.muted);
    }
    let mut curves = vec![series(&chance, theme.faint, true)];
    if bands(theme) {
        curves.extend([&low, &high].map(|edge| series(edge, theme.muted, true)));
    }
    curves.push(series(&auroc, theme.title, false));
    Curve {
        series: curves,
        range,
        mark: Some((state.cursor.layer, theme.faint)),
    }
    .render(plot, buf);
    profile::axis(buf, area, plot, state, layers.len());
    if roomy {
        differences(buf, area, plot, state, sets);
    }
}

/// The difference of the means in colours around zero, each layer under its point of the curve, and the bar of these
/// colours.
fn differences(buf: &mut Buffer, area: Rect, plot: Rect, state: &State, sets: &SetsView) {
    let theme = &state.theme;
    let layers = &state.derived.sets.layers;
    let most = layers.iter().filter_map(|layer| layer.difference);
    let most = most.fold(0.0f64, |most, gap| most.max(gap.abs())) as f32;
    let row = plot.bottom() + 1;
    let line = Rect {
        y: row,
        height: 1,
        ..area
    };
    put(buf, line, 3, 0, "diff", theme.muted);
    let last = layers.len().saturating_sub(1).max(1);
    for x in 0..plot.width {
        let columns = usize::from(plot.width.saturating_sub(1)).max(1);
        let layer = (usize::from(x) * last + columns / 2) / columns;
        let gap = layers.get(layer).and_then(|layer| layer.difference);
        let Some(cell) = buf.cell_mut((plot.x + x, row)) else {
            continue;
        };
        match gap {
            Some(gap) => {
                let shade = theme.gaps.shade(gap_step(gap as f32, most));
                let style = Style::new().bg(shade.bg).fg(shade.glyph_ink);
                cell.set_char(shade.glyph).set_style(style);
            }
            None => {
                let mark = if theme.depth == Depth::Mono {
                    '/'
                } else {
                    '╱'
                };
                cell.set_char(mark).set_style(theme.faint);
            }
        }
    }
    let unit = state.columns().spec(state.metric).unit;
    let text = show::number(Some(most), unit).trim().to_owned();
    let mut spans = vec![Span::styled(format!("−{text} "), theme.base)];
    for step in 0..GAPS {
        let shade = theme.gaps.shade(step as u8);
        let style = Style::new().bg(shade.bg).fg(shade.glyph_ink);
        spans.push(Span::styled(String::from(shade.glyph), style));
    }
    let end = format!(" +{text} {}", unit.label()).trim_end().to_owned();
    spans.push(Span::styled(end, theme.base));
    let bar = Rect {
        y: row + 1,
        height: 1,
        ..area
    };
    let mut line = Line::from(spans);
    let what = format!(" {} − {}", sets.names[1], sets.names[0]);
    if NUMBERS + line.width() as u16 + show::columns(&what) as u16 <= bar.width {
        line.push_span(Span::styled(what, theme.muted));
    }
    let x = NUMBERS.min(bar.width.saturating_sub(line.width() as u16));
    put_line(buf, bar, x, 0, &line);
}

/// The numbers of the cursor's layer.
fn numbers(buf: &mut Buffer, area: Rect, state: &State, sets: &SetsView) {
    let theme = &state.theme;
    let Some(layer) = state.derived.sets.layers.get(state.cursor.layer) else {
        return;
    };
    let unit = state.columns().spec(state.metric).unit;
    let title = format!("layer {:<4}", state.cursor.layer);
    put(buf, area, 0, 0, &title, theme.accent);
    put(buf, area, 12, 0, "mean ± std · n", theme.muted);
    for (set, y) in Set::BOTH.into_iter().zip(1..) {
        let name = sets.names[set as usize];
        put(buf, area, 0, y, name, style(theme, set));
        let text = spread_text(layer.profiles[set as usize], unit, false);
        put(buf, area, 12, y, &text, theme.base);
    }
    put(buf, area, 0, 3, "difference", theme.muted);
    let difference = layer.difference.map(|gap| {
        let size = show::number(Some(gap.abs() as f32), unit);
        let sign = if gap < 0.0 { "−" } else { "+" };
        format!("{sign}{} {}", size.trim(), unit.label())
    });
    let difference = difference.unwrap_or_else(|| "n/a".to_owned());
    put(buf, area, 12, 3, &difference, theme.base);
    put(buf, area, 0, 4, "AUROC", theme.title);
    let auroc = auroc_text(layer.auroc, layer.interval);
    put(buf, area, 12, 4, &auroc, theme.title);
}

/// An AUROC with its interval.
pub fn auroc_text(auroc: Option<f64>, interval: Option<(f64, f64)>) -> String {
    match (auroc, interval) {
        (None, _) => "n/a".to_owned(),
        (Some(auroc), None) => format!("{auroc:.3}"),
        (Some(auroc), Some((low, high))) => format!("{auroc:.3} [{low:.3}, {high:.3}]"),
    }
}

/// What the lines of the plot are: right of the numbers, or below them.
fn key(buf: &mut Buffer, table: Rect, state: &State, beside: bool) {
    let theme = &state.theme;
    let (x, y) = match beside {
        true => (0, TABLE.1 + 1),
        false => (TABLE.0, 1),
    };
    if table.height < y + 3 && beside {
        return;
    }
    let lines = [
        ("⠤⠤", theme.title, "AUROC"),
        ("⠄⠄", theme.muted, "95 % interval"),
        ("⠄⠄", theme.faint, "0.5: chance"),
    ];
    let lines = lines
        .into_iter()
        .filter(|line| bands(theme) || line.2 != "95 % interval");
    for ((mark, style, text), y) in lines.zip(y..) {
        let x = put(buf, table, x, y, mark, style);
        put(buf, table, x + 1, y, text, theme.muted);
    }
}
