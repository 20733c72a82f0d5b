//! Two models by relative depth: the mean over the summarised positions of each with one standard deviation on either side,
//! from the embeddings at the left to the last layers at the right, and the numbers of the two layers at the cursor.
//!
//! ```text
//!   5.31 ⡇⢄                  depth 0.75   layer 9 ‖ 3
//!        ⡇ ⠑⠢⢄⡀              base       2.31 ± 0.80 nats · 24
//!   0.02 ⠧⠤⠤⠤⠬⠭⠶⠶⠤           tuned      2.05 ± 0.71 nats · 31
//!        0    depth     1    difference −0.26 nats
//! ```

use super::put;
use super::summary::{Axis, NUMBERS, TABLE, plot, spread_text};
use crate::trace::Unit;
use crate::tui::layout::Mode;
use crate::tui::show;
use crate::tui::state::{ModelLayers, State, wrap};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// Paint curves and numbers.
pub fn paint(buf: &mut Buffer, area: Rect, state: &State, models: &ModelLayers) {
    let theme = &state.theme;
    let Some(names) = state.model_names() else {
        return;
    };
    let names = names.each_ref().map(|name| show::visible(name));
    if models.layers.iter().flatten().all(Option::is_none) && state.phase.is_running() {
        let text = "Both models by depth, once something has been read.";
        put(buf, area, 1, 0, text, theme.muted);
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
    numbers(buf, table, state, models, &names);
    if curves.width > NUMBERS + 8 && curves.height >= 3 {
        let layer = state.cursor.layer;
        let [a, b] = models.layers.each_ref().map(Vec::len);
        let axis = Axis {
            name: "depth",
            last: "1".to_owned(),
            mark: match a < b {
                true => models.depths.of_b(layer),
                false => layer,
            },
            names: names.map(|name| show::cut(&name, 14)),
        };
        plot(buf, curves, state, &models.layers, &axis);
    }
}

/// The numbers of the layers at the cursor, each over its own n positions, and why there are no more.
fn numbers(buf: &mut Buffer, area: Rect, state: &State, models: &ModelLayers, names: &[String; 2]) {
    let theme = &state.theme;
    let unit = state.columns().spec(state.metric).unit;
    let layer = state.cursor.layer;
    let beside = models.depths.of_b(layer);
    let at = |side: usize, layer: usize| models.layers[side].get(layer).copied().flatten();
    let both = [at(0, layer), at(1, beside)];
    let place = format!("layer {layer} ‖ {beside}");
    let x = put(buf, area, 0, 0, &place, theme.accent);
    let depth = format!("depth {:.2} · n", models.depths.depth(layer));
    put(buf, area, x + 2, 0, &depth, theme.muted);
    let sides = names.iter().zip(both).zip([theme.mean, theme.curve]);
    for (y, ((name, spread), style)) in (1u16..).zip(sides) {
        put(buf, area, 0, y, &show::cut(name, 10), style);
        let text = spread_text(spread, unit, false);
        put(buf, area, 11, y, &text, theme.base);
    }
    let [a, b] = both;
    let apart = match a.zip(b).map(|(a, b)| b.mean - a.mean) {
        Some(apart) => {
            let size = show::with_unit(Some(apart.abs() as f32), unit);
            let sign = match apart {
                apart if apart < 0.0 => "−",
                apart if apart > 0.0 => "+",
                _ => "",
            };
            format!("{sign}{}", size.trim())
        }
        None => "n/a".to_owned(),
    };
    put(buf, area, 0, 3, "difference", theme.muted);
    put(buf, area, 11, 3, &apart, theme.base);
    let mut y = 4;
    if !models.divergence.is_empty() {
        let kl = models.divergence.get(layer).copied().flatten();
        put(buf, area, 0, y, "KL A‖B", theme.muted);
        put(
            buf,
            area,
            11,
            y,
            &spread_text(kl, Unit::Nats, false),
            theme.base,
        );
        y += 1;
    }
    // The same word for both is said once.
    let [a, b] = &models.which;
    let positions = match a == b {
        true => format!("n: {a} positions of each"),
        false => format!("n: {a} ‖ {b} positions"),
    };
    put(buf, area, 0, y, &positions, theme.muted);
    y += 1;
    // Where there are few lines, the room's title says it.
    let why = state.why_no_difference();
    if let Some(why) = why.filter(|_| state.derived.plan.mode != Mode::Folded) {
        let lines = wrap(why, usize::from(area.width).saturating_sub(1));
        for (y, line) in (y..).zip(lines) {
            put(buf, area, 0, y, &line, theme.muted);
        }
    }
}
