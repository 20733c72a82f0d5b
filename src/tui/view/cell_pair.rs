//! The cell under the cursor in both branches of a comparison: what each would say, and every reading with its change.
//!
//! ```text
//!  baseline            steered
//!  ·happy     41.2 %   ·sad       38.0 %
//!  ·big        9.1 %   ·big       10.4 %
//!  Entropy       2.31     2.05    −0.26
//! ```

use super::put;
use crate::trace::{Compared, Metric, Side};
use crate::tui::show;
use crate::tui::state::{Cursor, FAVOURITES, Run, State};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// Lines of candidates where there is room.
const CANDIDATES: u16 = 3;

/// Paint the readings of both, as many lines as there are.
pub fn paint(buf: &mut Buffer, area: Rect, state: &State, runs: [&Run; 2]) {
    let theme = &state.theme;
    let cursors = Side::BOTH.map(|side| state.cursor_of(side));
    let names = state.model_names();
    let half = area.width / 2;
    let whole = area;
    // Two models each say where they are: another layer, and perhaps another token.
    let area = match names {
        Some(names) => {
            let sides = names.iter().zip(runs).zip(cursors).zip([1, half]);
            for (((name, run), cursor), x) in sides {
                heading(buf, area, x, state, name, run, cursor);
            }
            Rect {
                y: whole.y + 1,
                height: whole.height.saturating_sub(1),
                ..whole
            }
        }
        None if whole.height >= 5 => {
            for (name, x) in ["baseline", "steered"].into_iter().zip([1, half]) {
                put(buf, whole, x, 0, name, theme.muted);
            }
            Rect {
                y: whole.y + 1,
                height: whole.height - 1,
                ..whole
            }
        }
        None => whole,
    };
    let most = match area.height {
        ..6 => 1,
        6..9 => 2,
        _ => CANDIDATES,
    };
    for ((run, cursor), x) in runs.into_iter().zip(cursors).zip([1, half]) {
        let (layer, position) = (cursor.layer, cursor.position);
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
            let word = show::pad(&run.word(candidate.id), width);
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
    let others = FAVOURITES
        .iter()
        .filter_map(|name| state.columns().find(name));
    let others = others.filter(|metric| *metric != state.metric && state.applies(*metric));
    let metrics: Vec<Metric> = std::iter::once(state.metric).chain(others).collect();
    let difference = state.difference();
    let mut y = most;
    // Where cells do not compare, there is no divergence to speak of.
    if let Some(difference) = difference.filter(|_| y < area.height) {
        let kl = difference.divergence(cursors[0].layer, cursors[0].position);
        let kl = show::with_unit(kl, crate::trace::Unit::Nats);
        let name = if names.is_some() {
            "KL(A‖B) "
        } else {
            "KL(b‖s) "
        };
        let x = put(buf, area, 1, y, name, theme.muted);
        put(buf, area, x, y, &kl, theme.base);
        if names.is_some() {
            // Nothing pushes either.
        } else if let Some(words) = runs[1].plan_at(cursors[1].position) {
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
        let [a, b] = [0, 1].map(|side: usize| {
            let (run, cursor) = (runs[side], cursors[side]);
            run.grid.value(cursor.layer, cursor.position, metric)
        });
        let cell = Compared::new(a, b);
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

/// Whose cell it is: the model, its layer, and the token that stands there.
fn heading(
    buf: &mut Buffer,
    area: Rect,
    x: u16,
    state: &State,
    name: &str,
    run: &Run,
    cursor: Cursor,
) {
    let token = run.grid.tokens().get(cursor.position);
    let token = token.map_or(String::new(), |token| show::label(&token.bytes));
    let place = format!("layer {} · {} {token}", cursor.layer, cursor.position);
    let room = usize::from(area.width / 2).saturating_sub(2);
    let name = show::visible(name);
    let name = show::cut(&name, room.saturating_sub(show::columns(&place) + 1).max(4));
    let x = put(buf, area, x, 0, &name, state.theme.title);
    let room = room.saturating_sub(show::columns(&name) + 1);
    put(
        buf,
        area,
        x + 1,
        0,
        &show::cut(&place, room),
        state.theme.accent,
    );
}
