//! What the rooms say before there is anything to show: what they will show, and how to begin.
//!
//! ```text
//!    12  ████████████   A column is a token, a row a layer, from the embedding (0) up.
//!     ⋮  ████████████   The colour is how unsure that layer is of the next token.
//!     0  ████████████
//!
//!     F2  a known fact        The capital of Velmora is
//!     F3  close to one        The capital of Velmira is
//!     F4  a story             Once, by the river Osk,
//! ```

use super::put;
use crate::tui::action::Action;
use crate::tui::keymap::Context;
use crate::tui::show;
use crate::tui::state::{State, wrap};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

/// The map's room: a small picture of a map, its reading, three samples.
pub fn map(buf: &mut Buffer, area: Rect, state: &State) {
    let theme = &state.theme;
    let last = state.states() - 1;
    let rows = 5.min(area.height.saturating_sub(1));
    for row in 0..rows {
        let label = match row {
            0 => format!("{last:>3}"),
            r if r + 1 == rows => "  0".to_owned(),
            _ => "  ·".to_owned(),
        };
        put(buf, area, 2, 1 + row, &label, theme.muted);
        for column in 0..10u16 {
            // Sure at the top, unsure below, with one token that stays open: the shape that real maps have.
            let depth = f32::from(row) / 4.0;
            let open = if column == 6 { 0.55 } else { 0.0 };
            let wave = 0.16 * (f32::from(column) * 1.7).sin();
            let value = (depth * 0.9 + open * (1.0 - depth) + wave).clamp(0.0, 0.999);
            let shade = theme.ramp.shade((value * 16.0) as u8);
            let text: String = std::iter::repeat_n(shade.glyph, 2).collect();
            let style = Style::new().bg(shade.bg).fg(shade.glyph_ink);
            put(buf, area, 6 + 2 * column, 1 + row, &text, style);
        }
    }
    let what = match state.masked() {
        true => "what stands at that place",
        false => "the next token",
    };
    let text = format!(
        "Each column is a token, each row a layer: the embedding at the bottom, the answer on top. The colour is how \
         unsure that layer would be of {what} if it had to speak now."
    );
    let lines = wrap(&text, usize::from(area.width.saturating_sub(31)).min(60));
    for (line, y) in lines.iter().zip(1..=rows) {
        put(buf, area, 29, y, line, theme.base);
    }
    let mut y = rows + 2;
    for (set, action) in state.samples.iter().zip([
        Action::SampleFirst,
        Action::SampleSecond,
        Action::SampleThird,
    ]) {
        let key = state.keymap.hint(action, state.context());
        let next = state
            .next_sample
            .get(usize::from(y - rows - 2))
            .copied()
            .unwrap_or(0);
        let sample = set.samples.get(next % set.samples.len().max(1));
        let prompt = sample.map_or(String::new(), |s| show::visible(&s.prompt));
        let key = show::pad(&key.unwrap_or_default(), 5);
        let x = put(buf, area, 3, y, &key, theme.accent);
        let name = show::pad(&show::visible(&set.name), 20);
        let x = put(buf, area, x, y, &name, theme.base);
        let room = usize::from(area.width).saturating_sub(usize::from(x) + 2);
        put(buf, area, x + 1, y, &show::cut(&prompt, room), theme.muted);
        y += 1;
    }
    let write = match state.writing {
        true => "type your own prompt below".to_owned(),
        false => {
            let key = state.keymap.hint(Action::EditPrompt, Context::Rooms);
            format!("{:<5}write your own", key.unwrap_or_default())
        }
    };
    if y < area.height {
        let x = if state.writing { 8 } else { 3 };
        put(buf, area, x, y, &write, theme.muted);
    }
}

/// The stream's room.
pub fn stream(buf: &mut Buffer, area: Rect, state: &State) {
    let text = match state.masked() {
        true => format!(
            "The text appears here, each token shaded by how unsure the model is of that place. {} is a gap to fill.",
            state.mask_text()
        ),
        false => {
            "The text appears here, each new token shaded by how unsure the model was when it wrote it."
                .to_owned()
        }
    };
    say(buf, area, state, &text);
}

/// The cell's room.
pub fn cell(buf: &mut Buffer, area: Rect, state: &State) {
    let (says, came) = match state.masked() {
        true => ("say at this place", "stands there"),
        false => ("say next", "really came"),
    };
    let text = format!(
        "What the layer under the cursor would {says}, with probabilities, and what {came}. Below: entropy, margin, \
         distance to the final layer, and how the state spreads over its dimensions."
    );
    say(buf, area, state, &text);
}

/// The profile's room.
pub fn profile(buf: &mut Buffer, area: Rect, state: &State) {
    let text =
        "One token through all layers, as a curve: where it drops, the model makes up its mind.";
    say(buf, area, state, text);
}

/// The attention's room.
pub fn attention(buf: &mut Buffer, area: Rect, state: &State) {
    let none = state.model.as_ref().filter(|m| !m.card.attends());
    let text = match none {
        Some(_) => "This model has no attention.",
        None => "Where each head of the layer looks.",
    };
    say(buf, area, state, text);
}

fn say(buf: &mut Buffer, area: Rect, state: &State, text: &str) {
    let from = u16::from(area.height > 4);
    let lines = wrap(text, usize::from(area.width.saturating_sub(4)));
    for (line, y) in lines.iter().zip(from..) {
        put(buf, area, 2, y, line, state.theme.muted);
    }
}
