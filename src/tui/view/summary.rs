//! Both branches of a comparison by layer: the mean over the summarised positions with one standard deviation on either
//! side, and the numbers of the cursor's layer.
//!
//! ```text
//!   5.31 ⡇⢄                  layer 9   predicting positions · n
//!        ⡇ ⠑⠢⢄⡀              baseline   2.31 ± 0.80 nats · 24
//!   0.02 ⠧⠤⠤⠤⠬⠭⠶⠶⠤           steered    2.05 ± 0.71 nats · 24
//!        0    layer    12    difference −0.26 ± 0.31 nats · 24
//! ```

use super::{depths, put};
use crate::trace::{Spread, Unit};
use crate::tui::show;
use crate::tui::state::{State, Summary};
use crate::tui::widgets::{Curve, Series};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::Widget;

/// Columns of the numbers at the left of the curves.
pub(super) const NUMBERS: u16 = 8;
/// Columns of the numbers of one layer.
pub(super) const TABLE: u16 = 34;

/// Paint curves and numbers.
pub fn paint(buf: &mut Buffer, area: Rect, state: &State) {
    if let Some(models) = &state.derived.models {
        return depths::paint(buf, area, state, models);
    }
    let (layers, n, which) = &state.derived.summaries;
    if layers.is_empty() || *n == 0 {
        let text = "Both branches by layer, once something has been read.";
        put(buf, area, 1, 0, text, state.theme.muted);
        return;
    }
    let table = Rect {
        x: area.x + area.width.saturating_sub(TABLE),
        width: TABLE.min(area.width),
        ..area
    };
    let curves = Rect {
        width: area.width.saturating_sub(TABLE + 1),
        ..area
    };
    let head = format!("{which} positions · n");
    numbers(buf, table, state, layers, &head);
    if curves.width > NUMBERS + 8 && curves.height >= 3 {
        let of = |of: fn(&Summary) -> Option<Spread>| layers.iter().map(of).collect();
        let curves_of = [of(|layer| layer.baseline), of(|layer| layer.steered)];
        let axis = Axis {
            name: "layer",
            last: (layers.len() - 1).to_string(),
            mark: state.cursor.layer,
            names: ["baseline", "steered"].map(str::to_owned),
        };
        plot(buf, curves, state, &curves_of, &axis);
    }
}

/// What the curves stand over, and what they are called.
pub(super) struct Axis {
    /// What runs rightward.
    pub name: &'static str,
    /// Its end; it begins at 0.
    pub last: String,
    /// The index of the longer curve at which the cursor stands.
    pub mark: usize,
    /// What both curves are called.
    pub names: [String; 2],
}

/// Mean and the ends of the band of one branch, layer by layer.
fn series(layers: &[Option<Spread>]) -> [Vec<Option<f32>>; 3] {
    [0.0, -1.0, 1.0].map(|side: f64| {
        let end = |spread: Spread| (spread.mean + side * spread.std) as f32;
        layers.iter().map(|layer| layer.map(end)).collect()
    })
}

/// Two curves with their bands, each stretched from end to end.
pub(super) fn plot(
    buf: &mut Buffer,
    area: Rect,
    state: &State,
    layers: &[Vec<Option<Spread>>; 2],
    axis: &Axis,
) {
    let theme = &state.theme;
    let unit = state.columns().spec(state.metric).unit;
    let [baseline, steered] = layers.each_ref().map(|layers| series(layers));
    let known = baseline.iter().chain(&steered).flatten().flatten();
    let (low, high) = known.fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), v| {
        (l.min(*v), h.max(*v))
    });
    if low > high {
        put(buf, area, 1, 0, "n/a", theme.muted);
        return;
    }
    let plot = Rect {
        x: area.x + NUMBERS,
        width: area.width - NUMBERS - 1,
        height: area.height - 1,
        ..area
    };
    for (y, value) in [(0, high), (plot.height - 1, low)] {
        let text = show::number(Some(value), unit).replace('-', "−");
        let text = format!("{text:>7}");
        put(buf, area, 0, y, &text, theme.muted);
    }
    let mut lines = Vec::new();
    for ([mean, below, above], style) in [(&baseline, theme.mean), (&steered, theme.curve)] {
        for (values, dotted) in [(below, true), (above, true), (mean, false)] {
            lines.push(Series {
                values,
                style,
                dotted,
            });
        }
    }
    // Means go over both bands.
    lines.sort_by_key(|series| !series.dotted);
    Curve {
        series: lines,
        range: (low, high.max(low + 1e-6)),
        mark: Some((axis.mark, theme.faint)),
    }
    .render(plot, buf);
    let row = Rect {
        y: plot.bottom(),
        height: 1,
        ..plot
    };
    let last = &axis.last;
    let end = row.width.saturating_sub(last.len() as u16);
    put(buf, row, 0, 0, "0", theme.muted);
    put(buf, row, end, 0, last, theme.muted);
    let mut x = put(buf, row, 3, 0, axis.name, theme.muted);
    for (mark, style, name) in [
        ("⠤⠤", theme.mean, axis.names[0].as_str()),
        ("⠤⠤", theme.curve, axis.names[1].as_str()),
        ("⠄⠄", theme.muted, "± std"),
    ] {
        if x + 6 + show::columns(name) as u16 <= end {
            x = put(buf, row, x + 2, 0, mark, style);
            x = put(buf, row, x + 1, 0, name, theme.muted);
        }
    }
}

/// The numbers of the cursor's layer, and what n they have.
fn numbers(buf: &mut Buffer, area: Rect, state: &State, layers: &[Summary], head: &str) {
    let theme = &state.theme;
    let Some(layer) = layers.get(state.cursor.layer) else {
        return;
    };
    let unit = state.columns().spec(state.metric).unit;
    let title = format!("layer {:<3}", state.cursor.layer);
    let x = put(buf, area, 0, 0, &title, theme.accent);
    put(buf, area, x + 1, 0, head, theme.muted);
    let rows = [
        ("baseline", layer.baseline, unit, theme.mean),
        ("steered", layer.steered, unit, theme.curve),
        ("difference", layer.difference, unit, theme.muted),
        ("KL b‖s", layer.divergence, Unit::Nats, theme.muted),
    ];
    for (y, (name, spread, unit, style)) in (1u16..).zip(rows) {
        put(buf, area, 0, y, name, style);
        let signed = name == "difference";
        put(
            buf,
            area,
            11,
            y,
            &spread_text(spread, unit, signed),
            theme.base,
        );
    }
    let percent = layer.baseline.zip(layer.difference);
    let percent = percent.filter(|(baseline, _)| baseline.mean != 0.0);
    if let Some((baseline, difference)) = percent {
        let text = format!(
            "{:+.1} % of the mean",
            100.0 * difference.mean / baseline.mean
        );
        put(buf, area, 11, 5, &text.replace('-', "−"), theme.muted);
    }
}

/// Mean ± standard deviation, in the form of the metric.
pub fn spread_text(spread: Option<Spread>, unit: Unit, signed: bool) -> String {
    let Some(spread) = spread else {
        return "n/a".to_owned();
    };
    let number = |value: f64| show::number(Some(value as f32), unit).trim().to_owned();
    let sign = match spread.mean {
        mean if mean < 0.0 => "−",
        mean if signed && mean > 0.0 => "+",
        _ => "",
    };
    let unit = match unit.label() {
        "" => String::new(),
        label => format!(" {label}"),
    };
    format!(
        "{sign}{} ± {}{unit} · {}",
        number(spread.mean.abs()),
        number(spread.std),
        spread.n
    )
}
