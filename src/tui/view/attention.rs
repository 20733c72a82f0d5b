//! Where the heads of the cursor's layer look: one small row a head, with its entropy.
//!
//! ```text
//! h0  1.21 ▁▁▇▂▁▁▁▃   h1  2.08 ▃▃▃▃▃▃▃▃
//! h2  0.10 ▁▁▁▁▁▁▁█   h3  0.31 █▁▁▁▁▁▁▁
//! mean 0.92 nats · between heads 0.41 nats² · disagreement 0.031
//! ```

use super::{empty, put};
use crate::trace::{Attention, Unit};
use crate::tui::show;
use crate::tui::state::State;
use crate::tui::widgets::{bar, bins, columns_strip};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// Paint the heads of the cursor's layer.
pub fn paint(buf: &mut Buffer, area: Rect, state: &State) {
    let Some(run) = state.run.as_ref().filter(|r| !r.grid.is_empty()) else {
        return empty::attention(buf, area, state);
    };
    let cells = run.grid.cells(state.cursor.position);
    let attention = cells.and_then(|c| c.attention.as_ref());
    let model = state.model.as_ref();
    let Some(block) = state.cursor.layer.checked_sub(1) else {
        let none = model.filter(|m| !m.card.attends());
        let why = none.and_then(|m| m.card.no_attention(0));
        let why = why.unwrap_or_else(|| "layer 0 is the embedding".to_owned());
        return say(buf, area, state, &format!("n/a: {why}"));
    };
    if let Some(why) = model.and_then(|m| m.card.no_attention(block)) {
        return say(buf, area, state, &format!("n/a: {why}"));
    }
    let Some(attention) = attention else {
        let text = if cells.is_some() {
            "n/a: not kept in this run"
        } else {
            "not read yet"
        };
        return say(buf, area, state, text);
    };
    if attention.mean.get(block).is_none_or(|m| m.is_nan()) {
        return say(buf, area, state, "n/a: these rows hold no numbers");
    }
    let hidden = heads(buf, area, state, attention, block);
    let of = |values: &[f32]| values.get(block).copied();
    let mut text = format!("mean {}", show::with_unit(of(&attention.mean), Unit::Nats));
    let mut end = usize::from(area.width);
    let more = format!("+{hidden} heads ");
    if hidden > 0 && show::columns(&text) + show::columns(&more) + 2 <= end {
        end -= show::columns(&more);
        let last = area.height.saturating_sub(1);
        put(buf, area, end as u16, last, &more, state.theme.muted);
    }
    for part in [
        format!(
            " · over heads {}",
            show::with_unit(of(&attention.head_var), Unit::NatsSquared)
        ),
        format!(
            " · disagreement {}",
            show::number(of(&attention.disagreement), Unit::Share)
        ),
    ] {
        if show::columns(&text) + show::columns(&part) + 2 <= end {
            text.push_str(&part);
        }
    }
    put(
        buf,
        area,
        1,
        area.height.saturating_sub(1),
        &text,
        state.theme.muted,
    );
}

fn say(buf: &mut Buffer, area: Rect, state: &State, text: &str) {
    put(buf, area, 1, 0, text, state.theme.muted);
}

/// As many heads as there is room for above the last line; returns how many there is none for.
fn heads(
    buf: &mut Buffer,
    area: Rect,
    state: &State,
    attention: &Attention,
    block: usize,
) -> usize {
    let count = attention.heads;
    let rows = usize::from(area.height.saturating_sub(1)).max(1);
    // As few columns of heads as hold all of them, but none narrower than a readable row; rows to spare make taller.
    let most = (usize::from(area.width) / 20).max(1);
    let columns = count.div_ceil(rows).clamp(1, most);
    let width = area.width.saturating_sub(1) / columns as u16;
    let height = (rows / count.div_ceil(columns).max(1)).clamp(1, 3) as u16;
    let shown = (rows * columns).min(count);
    let all = attention.entropy.len().max(1);
    let keys = attention.rows.as_ref().map_or(0, |r| r.len() / all);
    for head in 0..shown {
        let index = block * count + head;
        let place = Rect {
            x: area.x + 1 + (head % columns) as u16 * width,
            y: area.y + (head / columns) as u16 * height,
            width,
            height,
        };
        let base = height - 1;
        let x = put(
            buf,
            place,
            0,
            base,
            &format!("h{head:<3}"),
            state.theme.muted,
        );
        let entropy = show::number(attention.entropy.get(index).copied(), Unit::Nats);
        let x = put(
            buf,
            place,
            x,
            base,
            &format!("{entropy:>4} "),
            state.theme.base,
        );
        let picture = Rect {
            x: place.x + x,
            width: place.width.saturating_sub(x + 2),
            ..place
        };
        match attention
            .rows
            .as_ref()
            .and_then(|r| r.get(index * keys..(index + 1) * keys))
        {
            Some(row) => attended(buf, picture, state, row),
            None => {
                let share = attention
                    .entropy_norm
                    .get(index)
                    .copied()
                    .unwrap_or(f32::NAN);
                let text = bar(share, usize::from(picture.width));
                put(buf, picture, 0, base, &text, state.theme.bar);
            }
        }
    }
    count - shown
}

/// The probabilities over the keys, from the first token at the left to this one (or the last one that it sees) at the
/// right.
fn attended(buf: &mut Buffer, area: Rect, state: &State, row: &[f32]) {
    let bins = bins(row, usize::from(area.width));
    let high = bins.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    for (x, value) in (area.x..).zip(bins) {
        if !value.is_nan() {
            columns_strip(buf, area, x, 1, value / high, state.theme.bar);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::colour::Depth;
    use crate::tui::fixture;

    #[test]
    fn heads_without_room_are_counted_beside_the_last_line() {
        let mut counted = 0;
        let state = fixture::state(120, 36, Depth::True, 48).unwrap();
        for (width, height) in (10..70).flat_map(|w| (2..6).map(move |h| (w, h))) {
            let area = Rect::new(0, 0, width, height);
            let mut buf = Buffer::empty(area);
            paint(&mut buf, area, &state);
            let line = (0..width).map(|x| buf[(x, height - 1)].symbol());
            let line = line.collect::<String>();
            let line = line.trim();
            if let Some((text, more)) = line.split_once('+') {
                assert!(text.ends_with(' ') && more.ends_with(" heads"), "{line}");
                let text = text.trim_end();
                let ends = ["nats", "nats²"].iter().any(|unit| text.ends_with(unit));
                assert!(ends || text.contains("disagreement"), "{line}");
                counted += 1;
            }
        }
        assert!(counted > 20, "{counted}");
    }
}
