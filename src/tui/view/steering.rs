//! The panel of control vectors.
//!
//! ```text
//! ╭ Control vectors ─────────────────────────────╮
//! │ [x] mood ×−0.30 layers 4–12                  │
//! │       Strength        ◂ −0.30 ───●──┼───── ▸ │
//! │       Layers            4..12                │
//! │ Add …                                        │
//! ╰──────────────────────────────────────────────╯
//! ```

use super::popup::window;
use super::put;
use crate::tui::layout::popup;
use crate::tui::show;
use crate::tui::state::{Row, State, SteerPanel};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};

/// Columns of the slider.
const SLIDER: usize = 21;

/// Paint the panel; where the text cursor is, if a value is typed.
pub fn paint(buf: &mut Buffer, state: &State, panel: &SteerPanel) -> Option<Position> {
    let theme = &state.theme;
    let rows = state.steering.rows();
    let area = popup(state.area, 76, rows.len() as u16 + 5);
    let inner = window(buf, area, state, "Control vectors");
    let room = usize::from(inner.height.saturating_sub(3));
    let chosen = panel.row.min(rows.len() - 1);
    let top = (chosen + 2)
        .saturating_sub(room)
        .min(rows.len().saturating_sub(room));
    let mut typing = None;
    for (y, (i, row)) in (0u16..).zip(rows.iter().enumerate().skip(top).take(room)) {
        let here = i == chosen;
        if here {
            let line = Rect {
                y: inner.y + y,
                height: 1,
                ..inner
            };
            buf.set_style(line, theme.selection);
        }
        let value = match &panel.typed {
            Some(typed) if here => format!("{}▏", show::visible(typed)),
            _ => state.steering.value(*row),
        };
        let x = match row {
            Row::Part(_) => 2,
            Row::Add => put(buf, inner, 2, y, row.label(), theme.accent_on(here)) + 2,
            _ => {
                put(buf, inner, 6, y, row.label(), theme.muted_on(here));
                24
            }
        };
        // What is typed scrolls so that its end stays in view.
        let width = usize::from(inner.width.saturating_sub(x + 2));
        let shown = match show::columns(&value) > width && panel.typed.is_some() && here {
            true => tail(&value, width),
            false => show::cut(&value, width),
        };
        let end = put(buf, inner, x, y, &shown, theme.base_on(here));
        if here && panel.typed.is_some() {
            typing = Some(Position::new(inner.x + end.saturating_sub(1), inner.y + y));
        }
        if *row == Row::Amount && panel.typed.is_none() {
            slider(buf, inner, y, state, here);
        }
    }
    let y = inner.height.saturating_sub(2);
    put(buf, inner, 2, y, rows[chosen].help(), theme.muted);
    let in_force = match state.steering.label.as_str() {
        "" => "in force: the plain model".to_owned(),
        label => format!("in force: {label}"),
    };
    let width = usize::from(inner.width.saturating_sub(3));
    put(
        buf,
        inner,
        2,
        y + 1,
        &show::cut(&in_force, width),
        theme.muted,
    );
    typing
}

/// The last columns of a text.
pub(super) fn tail(text: &str, width: usize) -> String {
    let mut start = text.len();
    for (at, _) in text.char_indices().rev() {
        if show::columns(&text[at..]) > width {
            break;
        }
        start = at;
    }
    text[start..].to_owned()
}

/// The chosen part's strength on a line from −2 to 2, wider where it lies beyond.
fn slider(buf: &mut Buffer, inner: Rect, y: u16, state: &State, chosen: bool) {
    if let Some(part) = state.steering.parts.get(state.steering.chosen) {
        let x = put(buf, inner, 33, y, "◂ ", state.theme.accent_on(chosen));
        let x = put(
            buf,
            inner,
            x,
            y,
            &line(part.amount(), SLIDER),
            state.theme.base_on(chosen),
        );
        put(buf, inner, x, y, " ▸", state.theme.accent_on(chosen));
    }
}

/// A strength as a place on a line whose middle is 0.
pub fn line(amount: f64, columns: usize) -> String {
    let reach = if amount.abs() <= 2.0 { 2.0 } else { 20.0 };
    let middle = columns / 2;
    let share = (amount / reach).clamp(-1.0, 1.0);
    let at = (middle as f64 + share * middle as f64).round() as usize;
    (0..columns)
        .map(|i| match i {
            i if i == at => '●',
            i if i == middle => '┼',
            _ => '─',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_the_middle_and_more_lies_to_the_right() {
        assert_eq!(line(0.0, 9), "────●────");
        assert_eq!(line(1.0, 9), "────┼─●──");
        assert_eq!(line(-2.0, 9), "●───┼────");
        assert_eq!(line(20.0, 9), "────┼───●");
    }

    #[test]
    fn the_end_of_a_long_text_is_kept() {
        assert_eq!(tail("/a/long/path.gguf", 9), "path.gguf");
        assert_eq!(tail("短い", 2), "い");
    }
}
