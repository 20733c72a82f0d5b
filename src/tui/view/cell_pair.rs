//! The cell under the cursor in both branches of a comparison: what each would say, and every reading with its change.
//!
//! ```text
//!  baseline            steered
//!  ·happy     41.2 %   ·sad       38.0 %
//!  ·big        9.1 %   ·big       10.4 %
//!  Entropy       2.31     2.05    −0.26
//! ```

use super::put;
use crate::trace::{Difference, Metric};
use crate::tui::show;
use crate::tui::state::{FAVOURITES, Run, State};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// Lines of candidates where there is room.
const CANDIDATES: u16 = 3;

/// Paint the readings of both, as many lines as there are.
pub fn paint(buf: &mut Buffer, area: Rect, state: &State, runs: [&Run; 2]) {
    let theme = &state.theme;
    let (layer, position) = (state.cursor.layer, state.cursor.position);
    let half = area.width / 2;
    let most = match area.height {
        ..6 => 1,
        6..9 => 2,
        _ => CANDIDATES,
    };
    for (run, x) in runs.into_iter().zip([1, half]) {
        if run.grid.cells(position).is_none() {
            put(buf, area, x, 0, "not read", theme.muted);
            continue;
        }
        let token = run.grid.tokens().get(run.grid.aim().target(position));
        let came = token.map(|token| token.id);
        let width = usize::from(half).saturating_sub(11).clamp(4, show::LABEL);
        let top = run.grid.top(layer, position).iter();
        for (y, candidate) in (0u16..).zip(top.take(usize::from(most))) {
            let style = match came == Some(candidate.id) {
                true => theme.good,
                false => theme.base,
            };
            let word = show::pad(&state.word(candidate.id), width);
            let x = put(buf, area, x, y, &word, style);
            put(
                buf,
                area,
                x + 1,
                y,
                &show::percent(candidate.prob),
                theme.muted,
            );
        }
    }
    let difference = Difference::new(&runs[0].grid, &runs[1].grid);
    let others = FAVOURITES
        .iter()
        .filter_map(|name| state.columns().find(name));
    let others = others.filter(|metric| *metric != state.metric && state.applies(*metric));
    let metrics: Vec<Metric> = std::iter::once(state.metric).chain(others).collect();
    let kl = difference.divergence(layer, position);
    let mut y = most;
    if y < area.height {
        let kl = show::with_unit(kl, crate::trace::Unit::Nats);
        let x = put(buf, area, 1, y, "KL(b‖s) ", theme.muted);
        put(buf, area, x, y, &kl, theme.base);
        if let Some(words) = runs[1].plan_at(position) {
            let room = usize::from(area.width.saturating_sub(half + 1));
            put(buf, area, half, y, &show::cut(words, room), theme.muted);
        }
        y += 1;
    }
    for metric in metrics {
        if y >= area.height {
            break;
        }
        let spec = state.columns().spec(metric);
        let cell = difference.cell(layer, position, metric);
        let style = match metric == state.metric {
            true => theme.accent,
            false => theme.muted,
        };
        let name = show::pad(&show::visible(&spec.label), 14);
        let mut x = put(buf, area, 1, y, &name, style);
        let change = match cell.difference {
            Some(d) if d < 0.0 => format!("−{}", show::number(Some(-d), spec.unit).trim()),
            Some(d) if d > 0.0 => format!("+{}", show::number(Some(d), spec.unit).trim()),
            Some(d) => show::number(Some(d), spec.unit),
            None => "n/a".to_owned(),
        };
        for text in [
            show::number(cell.a, spec.unit),
            show::number(cell.b, spec.unit),
            change,
        ] {
            x = put(buf, area, x + 1, y, &format!("{text:>8}"), theme.base);
        }
        put(buf, area, x + 1, y, spec.unit.label(), theme.muted);
        y += 1;
    }
}
