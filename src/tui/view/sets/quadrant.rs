//! Every prompt as a mark: its entropy rightward, its varentropy upward, at the cursor's layer; lines at the medians of
//! all prompts make four quadrants, and what each holds is counted in its corner.
//!
//! ```text
//!  nats²   o 12  x 40   │       o 3  x 71
//!   9.10        x  x    │   x xX
//!        ─────o──*──────┼────x──────────
//!   0.02  oOOo  o  x    │
//!          o 98  x 9    │      o 27  x 100
//!         0.11       median 2.31      6.80 nats
//! ```

use super::{legend, style, teach};
use crate::trace::{Set, Unit};
use crate::tui::colour::Depth;
use crate::tui::show;
use crate::tui::state::{SetsView, State};
use crate::tui::view::{put, put_line};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

/// Columns of the numbers at the left.
const LEFT: u16 = 8;
/// How many prompts of a set make its mark a large one.
const MANY: u32 = 3;

/// Paint marks, lines, counts and axes.
pub fn paint(buf: &mut Buffer, area: Rect, state: &State, sets: &SetsView) {
    let theme = &state.theme;
    let points = &state.derived.sets.points;
    let Some(medians) = state.derived.sets.medians else {
        let text = match sets.samples.count() {
            0 => {
                "Each prompt a mark: its entropy rightward, its varentropy upward, lines at the medians of all. What the \
                 model knows should gather at the left."
            }
            _ => "n/a: no prompt has both numbers",
        };
        return teach(buf, area, state, text);
    };
    if area.height < 5 || area.width < LEFT + 20 {
        return;
    }
    let counts = area.height >= 9;
    let plot = Rect {
        x: area.x + LEFT,
        y: area.y + u16::from(counts),
        width: area.width - LEFT - 1,
        height: area.height - 2 - 2 * u16::from(counts),
    };
    let axes = [0, 1].map(|axis| {
        let values = points.iter().flatten().map(|p| p[axis]);
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| {
            (l.min(v), h.max(v))
        });
        // All prompts alike still have a place: the middle.
        match high > low {
            true => (low, high),
            false => (low - 0.5, high + 0.5),
        }
    });
    let place = |point: [f64; 2]| -> (u16, u16) {
        let share = |axis: usize| (point[axis] - axes[axis].0) / (axes[axis].1 - axes[axis].0);
        let at = |share: f64, cells: u16| (share * f64::from(cells - 1)).round() as u16;
        let y = plot.height - 1 - at(share(1), plot.height);
        (plot.x + at(share(0), plot.width), plot.y + y)
    };
    let crossing = place(medians);
    lines(buf, plot, crossing, state);
    marks(buf, plot, points, &place, state);
    if counts {
        count(buf, plot, crossing, medians, state);
    }
    numbers(buf, area, plot, axes, medians, crossing, state);
    let mut line = legend(state, sets, ["o", "x"], area.width >= 60);
    line.push_span(Span::styled("* both  OX 3+", theme.muted));
    put_line(buf, area, 1, area.height - 1, &line);
}

fn lines(buf: &mut Buffer, plot: Rect, (column, row): (u16, u16), state: &State) {
    let mono = state.theme.depth == Depth::Mono;
    let [across, down, both] = if mono {
        ['-', '|', '+']
    } else {
        ['─', '│', '┼']
    };
    let mut draw = |x: u16, y: u16, symbol: char| {
        if let Some(cell) = buf.cell_mut((x, y)) {
            cell.set_char(symbol).set_style(state.theme.faint);
        }
    };
    (plot.left()..plot.right()).for_each(|x| draw(x, row, across));
    (plot.top()..plot.bottom()).for_each(|y| draw(column, y, down));
    draw(column, row, both);
}

/// The prompts of both sets, those that share a place in one mark.
fn marks(
    buf: &mut Buffer,
    plot: Rect,
    points: &[Vec<[f64; 2]>; 2],
    place: &impl Fn([f64; 2]) -> (u16, u16),
    state: &State,
) {
    let theme = &state.theme;
    let width = usize::from(plot.width);
    let mut counts = vec![[0u32; 2]; width * usize::from(plot.height)];
    for (set, points) in points.iter().enumerate() {
        for point in points {
            let (x, y) = place(*point);
            let at = usize::from(y - plot.y) * width + usize::from(x - plot.x);
            if let Some(counts) = counts.get_mut(at) {
                counts[set] += 1;
            }
        }
    }
    for (i, [known, unknown]) in counts.into_iter().enumerate() {
        let (symbol, style) = match (known, unknown) {
            (0, 0) => continue,
            (n, 0) => (if n < MANY { 'o' } else { 'O' }, style(theme, Set::Known)),
            (0, n) => (if n < MANY { 'x' } else { 'X' }, style(theme, Set::Unknown)),
            _ => ('*', theme.title),
        };
        let (x, y) = (plot.x + (i % width) as u16, plot.y + (i / width) as u16);
        if let Some(cell) = buf.cell_mut((x, y)) {
            cell.set_char(symbol).set_style(style);
        }
    }
}

/// How many prompts of each set are in each quadrant, in a line above and one below the marks. What lies on a line counts
/// to the smaller side.
fn count(buf: &mut Buffer, plot: Rect, (column, _): (u16, u16), medians: [f64; 2], state: &State) {
    let theme = &state.theme;
    for (upper, y) in [(true, plot.y - 1), (false, plot.bottom())] {
        for right in [false, true] {
            let here = |point: &&[f64; 2]| {
                (point[0] > medians[0]) == right && (point[1] > medians[1]) == upper
            };
            let n = |set: Set| {
                let points = &state.derived.sets.points[set as usize];
                points.iter().filter(here).count()
            };
            let line = Line::from(vec![
                Span::styled(format!("o {} ", n(Set::Known)), style(theme, Set::Known)),
                Span::styled(
                    format!(" x {}", n(Set::Unknown)),
                    style(theme, Set::Unknown),
                ),
            ]);
            let row = Rect {
                y,
                height: 1,
                ..plot
            };
            let width = line.width() as u16;
            let (from, to) = match right {
                false => (0, column - plot.x),
                true => (column - plot.x, plot.width),
            };
            // Each within its quadrant where that is wide enough, at its edge of the plot otherwise.
            let x = match (to - from > width + 1, right) {
                (true, _) => from + (to - from - width) / 2,
                (false, false) => 0,
                (false, true) => plot.width.saturating_sub(width),
            };
            put_line(buf, row, x, 0, &line);
        }
    }
}

/// What the axes span, in their units, and where the medians are.
fn numbers(
    buf: &mut Buffer,
    area: Rect,
    plot: Rect,
    axes: [(f64, f64); 2],
    medians: [f64; 2],
    crossing: (u16, u16),
    state: &State,
) {
    let theme = &state.theme;
    let number = |value: f64, unit: Unit| show::number(Some(value as f32), unit).trim().to_owned();
    let mut at_left = |y: u16, text: &str, style| {
        let row = Rect {
            y,
            height: 1,
            ..area
        };
        put(buf, row, 0, 0, &format!("{text:>7}"), style);
    };
    let up = |value: f64| number(value, Unit::NatsSquared);
    if plot.y > area.y {
        at_left(plot.y - 1, "nats²", theme.muted);
    }
    at_left(plot.y, &up(axes[1].1), theme.muted);
    at_left(plot.bottom() - 1, &up(axes[1].0), theme.muted);
    if crossing.1 > plot.y && crossing.1 < plot.bottom() - 1 {
        at_left(crossing.1, &up(medians[1]), theme.base);
    }
    let row = Rect {
        y: area.bottom() - 2,
        height: 1,
        ..plot
    };
    let across = |value: f64| number(value, Unit::Nats);
    let low = across(axes[0].0);
    let high = format!("{} nats", across(axes[0].1));
    let end = row.width.saturating_sub(high.len() as u16);
    let from = put(buf, row, 0, 0, &low, theme.muted) + 1;
    put(buf, row, end, 0, &high, theme.muted);
    let middle = format!("median {}", across(medians[0]));
    let width = middle.len() as u16;
    let x = (crossing.0 - plot.x).saturating_sub(width / 2).max(from);
    let x = x.min(end.saturating_sub(width + 1));
    if x >= from {
        put(buf, row, x, 0, &middle, theme.base);
    }
}
