//! The cell under the cursor: what this layer would say, what came, and every reading of it.
//!
//! ```text
//! would say  ·Tarsin      91.2 % ████████████
//!            ,             4.1 % ▌
//! then came  ·Tarsin      91.2 % rank 1      (a masked model: what stands here)
//!   Decided at layer     7 of 12
//! ■ Entropy           0.41 nats
//!   Hoyer            0.310 chance 0.217
//! ```

use super::{cell_pair, empty, put};
use crate::trace::{Aim, Group, Metric};
use crate::tui::show;
use crate::tui::state::{Run, State};
use crate::tui::widgets::{Datum, bar};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

/// Readings in the order of their worth; what follows in a tall room is the rest of the columns.
const FIRST: [&str; 9] = [
    "entropy",
    "varentropy",
    "prob_margin",
    "kl_final",
    "surprisal",
    "perplexity",
    "hoyer",
    "effective_rank_sq",
    "topk_energy_10",
];

/// Paint the readings, as many lines as there are.
pub fn paint(buf: &mut Buffer, area: Rect, state: &State) {
    let Some(run) = state.run.as_ref().filter(|r| !r.grid.is_empty()) else {
        return empty::cell(buf, area, state);
    };
    if let Some(beside) = &state.beside {
        return cell_pair::paint(buf, area, state, [run, &beside.run]);
    }
    let position = state.cursor.position;
    if run.grid.cells(position).is_none() {
        let text = format!("Token {position} has not been read yet.");
        put(buf, area, 1, 0, &text, state.theme.muted);
        return;
    }
    if area.height <= 4 {
        return folded(buf, area, state, run);
    }
    // The chief readings stay; the candidates take what is left above them.
    let most = area
        .height
        .saturating_sub(FIRST.len() as u16 + 2)
        .clamp(3, 12);
    let mut y = candidates(buf, area, state, run, most);
    y = then_came(buf, area, y, state, run);
    if area.height > y + FIRST.len() as u16 + 1 {
        y += 1;
    }
    metrics(buf, area, y, state, run);
}

fn candidates(buf: &mut Buffer, area: Rect, state: &State, run: &Run, most: u16) -> u16 {
    let top = run.grid.top(state.cursor.layer, state.cursor.position);
    put(buf, area, 1, 0, "would say", state.theme.muted);
    if top.is_empty() {
        put(buf, area, 12, 0, "n/a", state.theme.muted);
        return 1;
    }
    let word_width = (usize::from(area.width) / 3).clamp(10, show::LABEL);
    let spoken_of = run.grid.aim().target(state.cursor.position);
    let actual = run.grid.tokens().get(spoken_of).map(|t| t.id);
    for (y, candidate) in top.iter().take(usize::from(most)).enumerate() {
        let y = y as u16;
        let came = actual == Some(candidate.id);
        let style = match (came, y) {
            (true, _) => state.theme.good,
            (false, 0) => state.theme.title,
            (false, _) => state.theme.base,
        };
        let word = show::pad(&run.word(candidate.id), word_width);
        let x = put(buf, area, 12, y, &word, style);
        let x = put(
            buf,
            area,
            x + 1,
            y,
            &show::percent(candidate.prob),
            state.theme.base,
        );
        let room = usize::from(area.width).saturating_sub(usize::from(x) + 2);
        put(
            buf,
            area,
            x + 1,
            y,
            &bar(candidate.prob, room),
            state.theme.bar,
        );
    }
    top.len().min(usize::from(most)) as u16
}

/// The token that the cell speaks of, by this layer's own distribution: the one that came next, or for a masked model the
/// one that stands here.
fn then_came(buf: &mut Buffer, area: Rect, y: u16, state: &State, run: &Run) -> u16 {
    let position = state.cursor.position;
    if run.grid.aim() == Aim::Itself {
        return stands_here(buf, area, y, state, run);
    }
    put(buf, area, 1, y, "then came", state.theme.muted);
    let Some(next) = run.grid.tokens().get(position + 1) else {
        let text = if state.phase.is_running() {
            "not drawn yet"
        } else {
            "nothing: the text ends here"
        };
        put(buf, area, 12, y, text, state.theme.muted);
        return y + 1;
    };
    let value = |name: &str| {
        let metric = state.columns().find(name)?;
        run.grid.value(state.cursor.layer, position, metric)
    };
    let word_width = (usize::from(area.width) / 3).clamp(10, show::LABEL);
    let word = show::pad(&show::label(&next.bytes), word_width);
    let x = put(buf, area, 12, y, &word, state.theme.good);
    // Its probability under this layer, as for the candidates above.
    let share = value("surprisal").map_or(f32::NAN, |s| (-s).exp());
    let x = put(buf, area, x + 1, y, &show::percent(share), state.theme.base);
    let rank = value("next_rank").map_or("n/a".to_owned(), |r| format!("{r:.0}"));
    put(
        buf,
        area,
        x + 1,
        y,
        &format!("rank {rank}"),
        state.theme.muted,
    );
    y + 1
}

/// The token at the cursor; its probability and rank are known where it is among the candidates.
fn stands_here(buf: &mut Buffer, area: Rect, y: u16, state: &State, run: &Run) -> u16 {
    let position = state.cursor.position;
    put(buf, area, 1, y, "here is", state.theme.muted);
    let Some(token) = run.grid.tokens().get(position) else {
        return y + 1;
    };
    let word_width = (usize::from(area.width) / 3).clamp(10, show::LABEL);
    let word = show::pad(&show::label(&token.bytes), word_width);
    let x = put(buf, area, 12, y, &word, state.theme.good);
    if state.is_mask(position) {
        put(buf, area, x + 1, y, "a gap to fill", state.theme.muted);
        return y + 1;
    }
    let top = run.grid.top(state.cursor.layer, position);
    match top.iter().position(|c| c.id == token.id) {
        Some(rank) => {
            let share = show::percent(top[rank].prob);
            let x = put(buf, area, x + 1, y, &share, state.theme.base);
            let rank = format!("rank {}", rank + 1);
            put(buf, area, x + 1, y, &rank, state.theme.muted);
        }
        None => {
            let text = format!("not in the top {}", top.len());
            put(buf, area, x + 1, y, &text, state.theme.muted);
        }
    }
    y + 1
}

/// One reading: swatch of the chosen metric, name, number, unit, and what chance would give.
fn reading(buf: &mut Buffer, area: Rect, x: u16, y: u16, state: &State, run: &Run, metric: Metric) {
    let spec = state.columns().spec(metric);
    let (layer, position) = (state.cursor.layer, state.cursor.position);
    let chosen = metric == state.metric;
    let mut name_style = state.theme.muted;
    if chosen {
        name_style = state.theme.accent;
        let swatch = match state.datum(run, layer, position) {
            Datum::Step(step) => Style::new().fg(state.theme.ramp.shade(step).bg),
            Datum::Unread | Datum::Absent => state.theme.faint,
        };
        put(buf, area, x, y, "■", swatch);
    }
    let label = show::visible(&spec.label);
    let x = put(buf, area, x + 2, y, &show::pad(&label, 15), name_style);
    let value = run.grid.value(layer, position, metric);
    let number = show::number(value, spec.unit);
    let x = put(buf, area, x, y, &format!("{number:>6}"), state.theme.base);
    match state.null_of(metric) {
        // A share is told by its chance line better than by the word.
        Some(null) => {
            let text = format!("chance {}", show::number(Some(null), spec.unit));
            put(buf, area, x + 1, y, &text, state.theme.null);
        }
        // What there is not has no unit.
        None if value.is_none() => {}
        None => {
            put(buf, area, x + 1, y, spec.unit.label(), state.theme.muted);
        }
    }
}

fn metrics(buf: &mut Buffer, area: Rect, from: u16, state: &State, run: &Run) {
    let columns = state.columns();
    let first = FIRST.iter().filter_map(|name| columns.find(name));
    let rest = (0..columns.len())
        .map(Metric)
        .filter(|m| !FIRST.contains(&columns.spec(*m).name.as_str()));
    let all: Vec<Metric> = first
        .chain(rest)
        .filter(|metric| state.applies(*metric))
        .collect();
    let group = |g: Group| {
        all.iter()
            .copied()
            .filter(move |m| columns.spec(*m).group == g)
    };
    // Distribution at the left, sparsity (with its chance line) at the right: one glance each.
    // The right one needs more columns, for what chance would give.
    let half = (area.width / 2).min(35);
    let bottom = area.height;
    if area.width >= 70 {
        for (metric, y) in group(Group::Distribution).zip(from..bottom) {
            reading(buf, area, 1, y, state, run, metric);
        }
        let right = Rect {
            x: area.x + half,
            width: area.width - half,
            ..area
        };
        decided(buf, right, from, state, run);
        for (metric, y) in group(Group::Sparsity).zip(from + 1..bottom) {
            reading(buf, right, 1, y, state, run, metric);
        }
        return;
    }
    decided(buf, area, from, state, run);
    for (metric, y) in all.iter().zip(from + 1..bottom) {
        reading(buf, area, 1, y, state, run, *metric);
    }
}

/// The layer from which on the top word is the final one.
fn decided(buf: &mut Buffer, area: Rect, y: u16, state: &State, run: &Run) {
    let decided = run
        .grid
        .cells(state.cursor.position)
        .and_then(|c| c.decided_layer);
    let last = run.grid.states() - 1;
    let x = put(
        buf,
        area,
        3,
        y,
        &show::pad("Decided at layer", 16),
        state.theme.muted,
    );
    match decided {
        Some(layer) => {
            let x = put(buf, area, x, y, &format!("{layer:>5}"), state.theme.base);
            let text = format!("of {last}");
            put(buf, area, x + 1, y, &text, state.theme.muted);
        }
        None => {
            put(buf, area, x, y, "  n/a", state.theme.base);
        }
    }
}

/// Three lines for small terminals: candidates, what came, the chief readings.
fn folded(buf: &mut Buffer, area: Rect, state: &State, run: &Run) {
    let (layer, position) = (state.cursor.layer, state.cursor.position);
    let mut x = put(buf, area, 1, 0, "would say ", state.theme.muted);
    for (i, candidate) in run.grid.top(layer, position).iter().enumerate() {
        let style = if i == 0 {
            state.theme.title
        } else {
            state.theme.base
        };
        let word = show::cut(&run.word(candidate.id), 14);
        let text = format!(" {}", show::percent(candidate.prob).trim());
        let needed = show::columns(&word) + show::columns(&text) + 2;
        if usize::from(x) + needed > usize::from(area.width) {
            break;
        }
        x = put(buf, area, x + 1, 0, &word, style);
        x = put(buf, area, x, 0, &text, state.theme.muted);
        x += 1;
    }
    if area.height < 3 {
        return;
    }
    then_came(buf, area, 1, state, run);
    let mut x = 1;
    let shown = std::iter::once(state.metric).chain(
        FIRST
            .iter()
            .filter_map(|name| state.columns().find(name))
            .filter(|m| *m != state.metric && state.applies(*m)),
    );
    for metric in shown {
        let spec = state.columns().spec(metric);
        let label = show::visible(&spec.label);
        let value = show::with_unit(run.grid.value(layer, position, metric), spec.unit);
        let needed = show::columns(&label) + show::columns(&value) + 4;
        if usize::from(x) + needed > usize::from(area.width) {
            break;
        }
        let style = if metric == state.metric {
            state.theme.accent
        } else {
            state.theme.muted
        };
        x = put(buf, area, x, 2, &label, style);
        x = put(buf, area, x + 1, 2, &value, state.theme.base) + 3;
    }
}
