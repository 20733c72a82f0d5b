//! What the separation shows and what it does not, beside what the number of prompt tokens alone would do.
//!
//! ```text
//!  Length alone AUROC 0.512 [0.450, 0.573]
//!  n = 140 known and 220 unknown prompts. The entropy of the last layer …
//!
//!  known: a known fact   near-OOD: a name it never met
//! ```

use super::separation::auroc_text;
use super::{style, teach};
use crate::trace::Set;
use crate::tui::action::Action;
use crate::tui::keymap::Context;
use crate::tui::layout::Mode;
use crate::tui::show;
use crate::tui::state::{SetsView, State, wrap};
use crate::tui::view::{put, put_line};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

/// Paint it.
pub fn paint(buf: &mut Buffer, area: Rect, state: &State, sets: &SetsView) {
    let theme = &state.theme;
    let readings = &state.derived.sets;
    if sets.samples.count() == 0 {
        let text = "In words: what the samples show, and what they do not. Prompts of different length are told apart by \
                    that alone, so it stands beside.";
        return teach(buf, area, state, text);
    }
    let length = readings.length;
    let text = auroc_text(length.map(|s| s.auroc), length.and_then(|s| s.interval));
    let x = put(buf, area, 1, 0, "Length alone ", theme.muted);
    let x = put(buf, area, x, 0, "AUROC ", theme.muted);
    put(buf, area, x, 0, &text, theme.base);
    let lines = wrap(
        &readings.statement,
        usize::from(area.width.saturating_sub(2)),
    );
    let room = usize::from(area.height.saturating_sub(1));
    for (line, y) in lines.iter().take(room).zip(1..) {
        put(buf, area, 1, y, line, theme.base);
    }
    if lines.len() > room {
        return more(buf, area, state);
    }
    let half = usize::from(area.width / 2).saturating_sub(4);
    let spans = Set::BOTH.into_iter().flat_map(|set| {
        let (name, origin) = (sets.names[set as usize], &sets.origins[set as usize]);
        [
            Span::styled(format!("{name}: "), style(theme, set)),
            Span::styled(format!("{}   ", show::cut(origin, half)), theme.muted),
        ]
    });
    let y = lines.len() as u16 + 2;
    put_line(buf, area, 1, y, &Line::from_iter(spans));
    if !sets.label.is_empty() {
        let text = format!("both steered by {}", sets.label);
        put(buf, area, 1, y + 1, &text, theme.muted);
    }
}

/// The key to the rest, over the end of the last line.
fn more(buf: &mut Buffer, area: Rect, state: &State) {
    let key = state.keymap.hint(Action::TurnLower, Context::Rooms);
    let Some(key) = key.filter(|_| state.derived.plan.mode == Mode::Full) else {
        return;
    };
    let text = format!(" … {key} all of it ");
    let width = Line::from(text.as_str()).width() as u16;
    let row = area.height.saturating_sub(1);
    let x = area.width.saturating_sub(width);
    put(buf, area, x, row, &text, state.theme.accent);
}
