//! The prompt editor.
//!
//! ```text
//! ❯ The capital of Velmora is▏
//! ```

use super::put;
use crate::tui::state::State;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};

/// Paint the prompt; where the text cursor is while it is written.
pub fn paint(buf: &mut Buffer, area: Rect, state: &State) -> Option<Position> {
    let theme = &state.theme;
    let mark = if state.writing {
        theme.accent
    } else {
        theme.faint
    };
    put(buf, area, 1, 0, "❯", mark);
    let text = Rect {
        x: area.x + 3,
        width: area.width.saturating_sub(4),
        ..area
    };
    let editor = &state.derived.editor;
    let height = usize::from(area.height.max(1));
    let top = (editor.cursor.0 + 1).saturating_sub(height);
    if state.prompt.is_empty() {
        let hint = hint(state).unwrap_or_default();
        put(buf, text, 0, 0, &hint, theme.faint.patch(theme.muted));
    }
    let style = if state.writing {
        theme.base
    } else {
        theme.prompt
    };
    for (y, row) in editor.rows.iter().skip(top).take(height).enumerate() {
        put(buf, text, 0, y as u16, row, style);
    }
    state.writing.then(|| {
        let (row, column) = (editor.cursor.0 - top, editor.cursor.1 as u16);
        Position::new(
            text.x + column.min(text.width.saturating_sub(1)),
            text.y + row as u16,
        )
    })
}

/// The hint with the keys that are really bound.
fn hint(state: &State) -> Option<String> {
    use crate::tui::action::Action;
    let key = |action| state.keymap.hint(action, state.context());
    if !state.writing {
        return Some(format!(
            "Press {} to write a prompt",
            key(Action::EditPrompt)?
        ));
    }
    let what = match state.masked() {
        true => format!("Write a text with {}", state.mask_text()),
        false => "Write a prompt".to_owned(),
    };
    let hint = format!("{what}; {} runs it", key(Action::Run)?);
    let samples = [
        Action::SampleFirst,
        Action::SampleSecond,
        Action::SampleThird,
    ];
    let keys: Vec<String> = samples
        .into_iter()
        .take(state.samples.len())
        .filter_map(key)
        .collect();
    Some(match keys.len() {
        0 => hint,
        1 => format!("{hint}. {} runs a sample", keys[0]),
        _ => format!("{hint}. {} run samples", keys.join(" ")),
    })
}
