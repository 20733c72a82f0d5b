//! The chosen metric by layer: the mean over the prompts of each set, with one standard deviation on either side.
//!
//! ```text
//!   5.31 ⡇⢄
//!        ⡇ ⠑⠢⢄⡀⠤⠤⠤
//!   0.02 ⠧⠤⠤⠤⠬⠭⠶⠶⠤
//!  layer 0      9    12
//!  ⠤⠤ known · n 140   ⠤⠤ near-OOD · n 220   ⠄⠄ ± std
//! ```

use super::{NUMBERS, bands, legend, series, style, teach};
use crate::trace::{Set, Spread};
use crate::tui::show;
use crate::tui::state::{SetLayer, SetsView, State};
use crate::tui::view::{profile, put, put_line};
use crate::tui::widgets::Curve;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Span;
use ratatui::widgets::Widget;

/// Paint curves, axes and legend.
pub fn paint(buf: &mut Buffer, area: Rect, state: &State, sets: &SetsView) {
    let layers = &state.derived.sets.layers;
    let theme = &state.theme;
    if sets.samples.count() == 0 {
        let text = "Each set's mean through all layers, with one standard deviation on either side. Where the two part, \
                    the layers know of the difference.";
        return teach(buf, area, state, text);
    }
    if area.height < 4 || area.width < NUMBERS + 12 {
        return;
    }
    let of = Set::BOTH.map(|set| lines(layers, set));
    let shown = of.iter().flat_map(|lines| match bands(theme) {
        true => &lines[..],
        false => &lines[..1],
    });
    let known = shown.flatten().flatten().filter(|v| v.is_finite());
    let (low, high) = known.fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), v| {
        (l.min(*v), h.max(*v))
    });
    let plot = Rect {
        x: area.x + NUMBERS,
        width: area.width - NUMBERS - 1,
        height: area.height - 2,
        ..area
    };
    if low > high {
        let text = "n/a: no prompt has a number for this metric";
        put(buf, area, 1, 0, text, theme.muted);
        return;
    }
    let unit = state.columns().spec(state.metric).unit;
    for (y, value) in [(0, high), (plot.height - 1, low)] {
        let text = show::number(Some(value), unit).replace('-', "−");
        put(buf, area, 0, y, &format!("{text:>7}"), theme.muted);
    }
    let mut curves = Vec::new();
    for (set, [mean, below, above]) in Set::BOTH.into_iter().zip(&of) {
        let colour = style(theme, set);
        if bands(theme) {
            curves.extend([below, above].map(|edge| series(edge, colour, true)));
        }
        let dashed = !bands(theme) && set == Set::Unknown;
        curves.push(series(mean, colour, dashed));
    }
    // Means go over both bands.
    curves.sort_by_key(|curve| !curve.dotted);
    Curve {
        series: curves,
        range: (low, high.max(low + 1e-6)),
        mark: Some((state.cursor.layer, theme.faint)),
    }
    .render(plot, buf);
    profile::axis(buf, area, plot, state, layers.len());
    let marks = if bands(theme) { "⠤⠤" } else { "⠄⠄" };
    let mut line = legend(state, sets, ["⠤⠤", marks], true);
    let std = match bands(theme) {
        true if line.width() + 9 <= usize::from(area.width) => "⠄⠄ ± std",
        _ => "",
    };
    line.push_span(Span::styled(std, theme.muted));
    put_line(buf, area, 1, area.height - 1, &line);
}

/// Mean and the ends of the band of a set.
fn lines(layers: &[SetLayer], set: Set) -> [Vec<Option<f32>>; 3] {
    [0.0, -1.0, 1.0].map(|side: f64| {
        let value = |spread: Spread| (spread.mean + side * spread.std) as f32;
        let spreads = layers.iter().map(|layer| layer.profiles[set as usize]);
        spreads.map(|spread| spread.map(value)).collect()
    })
}
