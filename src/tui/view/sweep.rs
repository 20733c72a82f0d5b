//! A sweep: what each strength does to each layer, in colours around the plain model, and the cursor's layer as a curve.
//!
//! ```text
//! ╭ Sweep · mood layers 4–12 · Entropy (nats) ─────────────────── 7/9 ─╮
//! │  12  −0.41 −0.22 −0.10 −0.03  0.00 +0.08 +0.31 ····· ·····         │
//! │   ⋮                                                                │
//! │       −0.60 −0.45 −0.30 −0.15  0.00 +0.15 +0.30 +0.45 +0.60        │
//! │  5.31 ⠤⠤⠒⠒⠉⠉                    strength −0.30 · layer 12          │
//! ╰────────────────────────────────────────────────────────────────────╯
//! ```

use super::popup::window;
use super::{put, summary};
use crate::trace::Unit;
use crate::tui::colour::gap_step;
use crate::tui::layout::popup;
use crate::tui::show;
use crate::tui::state::{State, SweepView};
use crate::tui::widgets::{Curve, Datum, Geometry, HeatMap, Series};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::Widget;

/// Columns of the layer numbers.
const LABELS: u16 = 4;
/// Lines below the map: strengths, and the curve with its numbers.
const BELOW: u16 = 8;
/// Columns of the numbers beside the curve.
const TABLE: u16 = 36;

/// Paint the sweep over the rooms.
pub fn paint(buf: &mut Buffer, state: &State) {
    let spec = state.columns().spec(state.metric);
    let unit = match spec.unit.label() {
        "" => String::new(),
        unit => format!(" ({unit})"),
    };
    let states = u16::try_from(state.states()).unwrap_or(u16::MAX);
    let height = states.saturating_add(BELOW + 4);
    let area = popup(state.area, 104, height);
    let Some(sweep) = &state.sweep else {
        let inner = window(buf, area, state, "Sweep");
        put(
            buf,
            inner,
            2,
            1,
            "Waiting for the run at hand …",
            state.theme.muted,
        );
        return;
    };
    let (done, all) = sweep.progress();
    let progress = match (sweep.curve.baseline().is_some(), sweep.record.is_some()) {
        (_, true) => format!("{done} of {all} strengths"),
        (false, false) => "the plain model goes on from the prompt".to_owned(),
        (true, false) => format!("reading {done}/{all}"),
    };
    let title = format!(
        "Sweep · {} · {}{unit} · {progress}",
        sweep.label,
        show::visible(&spec.label)
    );
    let width = usize::from(area.width.saturating_sub(4));
    let inner = window(buf, area, state, &show::cut(&title, width));
    if inner.height < BELOW + 3 || inner.width < 50 {
        put(buf, inner, 1, 0, "too small to show", state.theme.muted);
        return;
    }
    let map = Rect {
        height: inner.height - BELOW - 1,
        ..inner
    };
    let geometry = geometry(map, sweep, state);
    cells(buf, state, sweep, &geometry);
    labels(buf, inner, state, sweep, &geometry);
    let low = Rect {
        y: inner.bottom() - BELOW + 1,
        height: BELOW - 1,
        ..inner
    };
    let table = Rect {
        x: low.right() - TABLE.min(low.width),
        width: TABLE.min(low.width),
        ..low
    };
    numbers(buf, table, state, sweep);
    let plot = Rect {
        width: low.width.saturating_sub(TABLE + 1),
        ..low
    };
    curve(buf, plot, state, sweep);
}

/// All strengths side by side; the last layer on top, and as many others around the cursor's as fit.
fn geometry(area: Rect, sweep: &SweepView, state: &State) -> Geometry {
    let count = sweep.curve.strengths().len().max(1);
    let width = (usize::from(area.width - LABELS) / count).clamp(7, 11) as u16;
    let columns = usize::from((area.width - LABELS) / width).min(count);
    let fit = usize::from(area.height).max(2);
    let last = sweep.curve.states().saturating_sub(1);
    let layers = if last < fit {
        (0..=last).rev().collect()
    } else {
        let window = fit - 1;
        let bottom = state.cursor.layer.min(last - 1).saturating_sub(window / 2);
        let bottom = bottom.min(last - window);
        std::iter::once(last)
            .chain((bottom..bottom + window).rev())
            .collect()
    };
    Geometry {
        area: Rect {
            x: area.x + LABELS,
            width: columns as u16 * width,
            ..area
        },
        width,
        height: 1,
        halves: false,
        left: (sweep.chosen + 1).saturating_sub(columns),
        columns,
        layers,
    }
}

fn cells(buf: &mut Buffer, state: &State, sweep: &SweepView, geometry: &Geometry) {
    let most = sweep.most(state.metric).unwrap_or(0.0) as f32;
    let unit = state.columns().spec(state.metric).unit;
    let shown = geometry.left..geometry.left + geometry.columns;
    let (data, words): (Vec<Datum>, Vec<(String, String)>) = geometry
        .layers
        .iter()
        .flat_map(|layer| shown.clone().map(|strength| (*layer, strength)))
        .map(|(layer, strength)| {
            let difference = sweep.cell(layer, state.metric, strength).difference();
            let datum = match (difference, sweep.curve.point(strength)) {
                (_, None) => Datum::Unread,
                (None, _) => Datum::Absent,
                (Some(d), _) => Datum::Step(gap_step(d as f32, most)),
            };
            (datum, (signed(difference, unit), String::new()))
        })
        .unzip();
    HeatMap {
        geometry,
        data: &data,
        tokens: geometry.columns,
        words: &words,
        decided: &[],
        cursor: Some((state.cursor.layer, sweep.chosen)),
        ramp: &state.theme.gaps,
        theme: &state.theme,
    }
    .render(geometry.area, buf);
}

/// A difference with its sign.
fn signed(difference: Option<f64>, unit: Unit) -> String {
    let Some(d) = difference else {
        return "n/a".to_owned();
    };
    let size = show::number(Some(d.abs() as f32), unit).trim().to_owned();
    match d {
        d if d > 0.0 => format!("+{size}"),
        d if d < 0.0 => format!("−{size}"),
        _ => size,
    }
}

/// A strength with its sign.
fn amount(strength: f64) -> String {
    match strength {
        0.0 => "0".to_owned(),
        strength => format!("{strength:+.2}").replace('-', "−"),
    }
}

/// Layer numbers, the strengths under their columns, and what the colours mean.
fn labels(buf: &mut Buffer, inner: Rect, state: &State, sweep: &SweepView, geometry: &Geometry) {
    let theme = &state.theme;
    for (y, layer) in (0u16..).zip(&geometry.layers) {
        let style = match *layer == state.cursor.layer {
            true => theme.accent,
            false => theme.muted,
        };
        put(buf, inner, 0, y, &format!("{layer:>3}"), style);
    }
    let y = geometry.layers.len() as u16;
    for (column, strength) in (0u16..).zip(sweep.curve.strengths().iter().skip(geometry.left)) {
        if usize::from(column) >= geometry.columns {
            break;
        }
        let here = usize::from(column) + geometry.left == sweep.chosen;
        let style = if here { theme.accent } else { theme.muted };
        let text = amount(*strength);
        let x = LABELS + column * geometry.width;
        let room = usize::from(geometry.width.saturating_sub(1));
        put(buf, inner, x + 1, y, &show::cut(&text, room), style);
    }
    let what = match sweep.vector.is_some() {
        true => "strength; colour and number: mean steered − mean baseline",
        false => "times all that is in force; colour and number: mean steered − mean baseline",
    };
    put(buf, inner, LABELS + 1, y + 1, what, theme.muted);
}

/// The cursor's layer over all strengths: mean and one standard deviation on either side, and the plain model.
fn curve(buf: &mut Buffer, area: Rect, state: &State, sweep: &SweepView) {
    let theme = &state.theme;
    let (layer, metric) = (state.cursor.layer, state.metric);
    let count = sweep.curve.strengths().len();
    let of = |side: f64| -> Vec<Option<f32>> {
        let cells = (0..count).map(|strength| sweep.cell(layer, metric, strength).pushed);
        cells
            .map(|spread| spread.map(|s| (s.mean + side * s.std) as f32))
            .collect()
    };
    let [mean, below, above] = [0.0, -1.0, 1.0].map(of);
    let plain = sweep.cell(layer, metric, 0).plain;
    let plain = vec![plain.map(|spread| spread.mean as f32); count];
    let known = mean.iter().chain(&below).chain(&above).chain(&plain);
    let range = known.flatten().fold(None, |range: Option<(f32, f32)>, v| {
        Some(range.map_or((*v, *v), |(low, high)| (low.min(*v), high.max(*v))))
    });
    let (Some((low, high)), true) = (range, area.height > 2 && area.width > 24) else {
        return;
    };
    let unit = state.columns().spec(metric).unit;
    let plot = Rect {
        x: area.x + 8,
        width: area.width - 9,
        height: area.height - 1,
        ..area
    };
    for (y, value) in [(0, high), (plot.height - 1, low)] {
        let text = show::number(Some(value), unit).replace('-', "−");
        put(buf, area, 0, y, &format!("{text:>7}"), theme.muted);
    }
    Curve {
        series: [
            (&plain, theme.mean, true),
            (&below, theme.curve, true),
            (&above, theme.curve, true),
            (&mean, theme.curve, false),
        ]
        .into_iter()
        .map(|(values, style, dotted)| Series {
            values,
            style,
            dotted,
        })
        .collect(),
        range: (low, high.max(low + 1e-6)),
        mark: Some((sweep.chosen, theme.faint)),
    }
    .render(plot, buf);
    let y = area.height - 1;
    let x = put(buf, area, 8, y, "⠤⠤", theme.curve);
    let x = put(buf, area, x + 1, y, "mean ± std", theme.muted);
    let x = put(buf, area, x + 2, y, "⠄⠄", theme.mean);
    put(buf, area, x + 1, y, "baseline", theme.muted);
}

/// The numbers of the cursor's layer under the chosen strength.
fn numbers(buf: &mut Buffer, area: Rect, state: &State, sweep: &SweepView) {
    let theme = &state.theme;
    let Some(strength) = sweep.curve.strengths().get(sweep.chosen) else {
        return;
    };
    let unit = state.columns().spec(state.metric).unit;
    let cell = sweep.cell(state.cursor.layer, state.metric, sweep.chosen);
    let head = format!(
        "strength {} · layer {}",
        amount(*strength),
        state.cursor.layer
    );
    put(buf, area, 0, 0, &head, theme.accent);
    let difference = signed(cell.difference(), unit);
    for (y, name, text) in [
        (1, "baseline", summary::spread_text(cell.plain, unit, false)),
        (2, "steered", summary::spread_text(cell.pushed, unit, false)),
        (3, "difference", difference),
        (
            4,
            "KL b‖s",
            summary::spread_text(cell.divergence, Unit::Nats, false),
        ),
    ] {
        put(buf, area, 0, y, name, theme.muted);
        put(buf, area, 11, y, &text, theme.base);
    }
    let keys = match sweep.vector.is_some() {
        true => "Enter steers by this strength",
        false => "Esc closes",
    };
    put(buf, area, 0, 6, keys, theme.muted);
}
