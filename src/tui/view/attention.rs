//! Where the heads of the cursor's layer look: one small row a head, with its entropy.
//!
//! ```text
//! h0 ▁▁▇▂▁▁▁▃ 1.21   h1 ▃▃▃▃▃▃▃▃ 2.08
//! h2 ▁▁▁▁▁▁▁█ 0.10   h3 █▁▁▁▁▁▁▁ 0.31
//! mean 0.92 nats · between heads 0.41 nats² · disagreement 0.031
//! ```

use super::{empty, put};
use crate::trace::{Attention, Unit};
use crate::tui::show;
use crate::tui::state::State;
use crate::tui::widgets::{bar, spark};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// Paint the heads of the cursor's layer.
pub fn paint(buf: &mut Buffer, area: Rect, state: &State) {
    let Some(run) = state.run.as_ref().filter(|r| !r.grid.is_empty()) else {
        return empty::attention(buf, area, state);
    };
    let cells = run.grid.cells(state.cursor.position);
    let attention = cells.and_then(|c| c.attention.as_ref());
    let Some(block) = state.cursor.layer.checked_sub(1) else {
        return say(buf, area, state, "n/a: layer 0 is the embedding");
    };
    let Some(attention) = attention else {
        let text = if cells.is_some() {
            "n/a: not kept in this run"
        } else {
            "not read yet"
        };
        return say(buf, area, state, text);
    };
    if attention.mean.get(block).is_none_or(|m| m.is_nan()) {
        return say(buf, area, state, "n/a: this block has no attention");
    }
    heads(buf, area, state, attention, block);
    let of = |values: &[f32]| values.get(block).copied();
    let mut text = format!("mean {}", show::with_unit(of(&attention.mean), Unit::Nats));
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
        if show::columns(&text) + show::columns(&part) + 2 <= usize::from(area.width) {
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

fn heads(buf: &mut Buffer, area: Rect, state: &State, attention: &Attention, block: usize) {
    let count = attention.heads;
    let rows = usize::from(area.height.saturating_sub(1)).max(1);
    // As few columns of heads as hold all of them, but none narrower than a readable row.
    let most = (usize::from(area.width) / 18).max(1);
    let columns = count.div_ceil(rows).clamp(1, most);
    let width = usize::from(area.width.saturating_sub(1)) / columns;
    let shown = (rows * columns).min(count);
    let keys = attention
        .rows
        .as_ref()
        .map_or(0, |r| r.len() / (attention.entropy.len().max(1)));
    for head in 0..shown {
        let (x, y) = (1 + head % columns * width, head / columns);
        let index = block * count + head;
        let cell = Rect {
            x: area.x + x as u16,
            y: area.y + y as u16,
            width: (width as u16).min(area.width - x as u16),
            height: 1,
        };
        let x = put(buf, cell, 0, 0, &format!("h{head:<2} "), state.theme.muted);
        let room = width.saturating_sub(usize::from(x) + 7);
        let picture = match &attention.rows {
            Some(all) => {
                let row = &all[index * keys..(index + 1) * keys];
                let high = row.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
                spark(row, room, high)
            }
            None => bar(attention.entropy_norm[index], room),
        };
        put(buf, cell, x, 0, &show::pad(&picture, room), state.theme.bar);
        let entropy = show::number(Some(attention.entropy[index]), Unit::Nats);
        put(
            buf,
            cell,
            x + room as u16 + 1,
            0,
            &format!("{entropy:>4}"),
            state.theme.base,
        );
    }
    if shown < count {
        let text = format!("+{}", count - shown);
        put(
            buf,
            area,
            area.width.saturating_sub(5),
            area.height - 1,
            &text,
            state.theme.muted,
        );
    }
}
