//! Where the rooms lie at a given terminal size. Drawing and the mouse both read it.
//!
//! ```text
//! Full, from 104×28         Folded, from 80×24      Tabs, from 60×16
//! title                     title                   title
//! ┌ Stream ────┬ Cell ──┐   ┌ Stream ──────────┐    Stream │ Map │ Cell
//! ├ Map ───────┤        │   ├ Map ─────────────┤    (one room)
//! │            ├ Profile┤   ├ Cell, 3 lines ───┤
//! │            ├ Att. ──┤   ├ Prompt ──────────┤    > prompt
//! ├ Prompt ────┴────────┤   └ hints ───────────┘    hints
//! └ hints ──────────────┘
//! ```
//! A comparison has its own plan:
//!
//! ```text
//! Full                      Folded                  Tabs
//! ┌ Baseline ─┬ Steered ─┐  ┌ Baseline ┬ Steered ┐   one room: both texts, both maps (or
//! ├ Map ──────┼ Map ─────┤  ├ Map ─────┼ Map ────┤   the map of differences), or the
//! ├ Differences ─────────┤  ├ Layers, or cell ───┤   layers (or the cell)
//! ├ Layers ───┴ Cell ────┤  └────────────────────┘
//! └──────────────────────┘  (or differences in place of both maps and what is below)
//! ```
//! Two models whose cells do not compare have no map of differences: what is below takes its place.
//! Two sets of prompts have theirs in `layout/sets.rs`.

mod sets;
#[cfg(test)]
mod tests;

pub use sets::{SetPane, SetRooms};

use super::state::Lower;
use ratatui::layout::Rect;

/// The least terminal that is drawn at all.
pub const LEAST: (u16, u16) = (60, 16);

/// How much of the screen is shown at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Not even one room fits.
    #[default]
    TooSmall,
    /// One room at a time.
    Tabs,
    /// Stream and map, with the cell in a few lines below.
    Folded,
    /// Everything.
    Full,
}

/// The areas of the rooms. Boxed rooms include their border and share it with their neighbours; a room that is not
/// shown has no area.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What fits.
    pub mode: Mode,
    /// The line at the top.
    pub title: Rect,
    /// The line of room names, with one room at a time.
    pub tabs: Rect,
    /// The text.
    pub stream: Rect,
    /// The map.
    pub map: Rect,
    /// The cell under the cursor.
    pub cell: Rect,
    /// Its layer profile.
    pub profile: Rect,
    /// Its attention.
    pub attention: Rect,
    /// The text of a comparison's other branch.
    pub beside_stream: Rect,
    /// Its map.
    pub beside_map: Rect,
    /// The map of differences.
    pub difference: Rect,
    /// Both branches by layer.
    pub summary: Rect,
    /// The panes of two sets of prompts.
    pub sets: SetRooms,
    /// The prompt editor.
    pub prompt: Rect,
    /// The line of hints and messages.
    pub hints: Rect,
}

/// A room of the screen that can have the keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Room {
    /// The text.
    Stream,
    /// The map.
    #[default]
    Map,
    /// The cell under the cursor.
    Cell,
}

/// What the layout depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// States of the model, L + 1.
    pub states: u16,
    /// Rows of a state's cells; 0 for two states a row.
    pub cell_height: u16,
    /// Lines of the prompt.
    pub prompt_lines: u16,
    /// Lines of the top-k list.
    pub candidates: u16,
    /// The room shown with one room at a time.
    pub room: Room,
    /// Whether two branches are compared, and what their lower room shows where there is but one.
    pub comparing: Option<Lower>,
    /// Whether the cells of the two compare one to one, so that there is a map of differences.
    pub one_to_one: bool,
    /// Whether two sets of prompts are shown, and what of them where there is no room for all.
    pub sets: Option<SetPane>,
}

impl Plan {
    /// Lay the rooms out.
    #[must_use]
    pub fn new(area: Rect, wants: Wants) -> Self {
        let (w, h) = (area.width, area.height);
        if w < LEAST.0 || h < LEAST.1 {
            return Self {
                title: Rect {
                    height: 1.min(h),
                    ..area
                },
                ..Self::default()
            };
        }
        let tabs = w < 80 || h < 24;
        let folded = w < 104 || h < 28;
        if let Some(pane) = wants.sets {
            return match tabs {
                true => Self::set_tabs(area, wants, pane),
                false => Self::set_rooms(area, wants, pane, folded),
            };
        }
        let comparing = match wants.comparing {
            // What has no map shows what else there is.
            Some(Lower::Difference) if !wants.one_to_one => Some(Lower::Layers),
            comparing => comparing,
        };
        match comparing {
            None if tabs => Self::tabs(area, wants),
            None if folded => Self::folded(area, wants),
            None => Self::full(area, wants),
            Some(lower) if tabs => Self::tabs(area, wants).beside_tabs(wants, lower),
            Some(lower) => Self::beside(area, wants, lower, folded),
        }
    }

    /// The one room shown of a comparison: names of branches take a line above what is theirs.
    fn beside_tabs(mut self, wants: Wants, lower: Lower) -> Self {
        match wants.room {
            Room::Stream => {
                let body = std::mem::take(&mut self.stream);
                let half = body.height / 2;
                self.stream = lines(body, 1, half.saturating_sub(1));
                self.beside_stream = lines(body, half + 1, body.height.saturating_sub(half + 1));
            }
            Room::Map if lower == Lower::Difference => {
                self.difference = lines(std::mem::take(&mut self.map), 1, u16::MAX);
            }
            Room::Map => {
                let body = lines(std::mem::take(&mut self.map), 1, u16::MAX);
                (self.map, self.beside_map) = halves(body, 0);
            }
            Room::Cell if lower == Lower::Layers => self.summary = std::mem::take(&mut self.cell),
            Room::Cell => {}
        }
        self
    }

    fn beside(area: Rect, wants: Wants, lower: Lower, folded: bool) -> Self {
        let (title, prompt, hints, body) = Self::outer(area, wants);
        let bottom = body.bottom() - 1;
        let available = bottom - body.y;
        let part = |y: u16, to: u16| Rect {
            y,
            height: to - y + 1,
            ..body
        };
        // A map is a border, its cells, token labels and the colour bar.
        let maps = if folded || !wants.one_to_one { 1 } else { 2 };
        let least = if folded { 9 } else { 12 };
        let rows = match wants.cell_height {
            0 => wants.states.div_ceil(2),
            _ => wants.states,
        };
        let most = (available.saturating_sub(least) / maps)
            .saturating_sub(3)
            .max(3);
        let map = rows.max(2).min(most) + 3;
        let rest = available.saturating_sub(maps * map);
        let below = (rest * 55 / 100).clamp(5, 16).min(rest.saturating_sub(3));
        let map_y = body.y + (rest - below);
        let mut plan = Self {
            mode: if folded { Mode::Folded } else { Mode::Full },
            title,
            prompt,
            hints,
            ..Self::default()
        };
        (plan.stream, plan.beside_stream) = halves(part(body.y, map_y), 1);
        let lower_y = map_y + maps * map;
        if folded && lower == Lower::Difference {
            plan.difference = part(map_y, bottom);
            return plan;
        }
        (plan.map, plan.beside_map) = halves(part(map_y, map_y + map), 1);
        let low = part(lower_y, bottom);
        if folded {
            match lower {
                Lower::Cell => plan.cell = low,
                Lower::Layers | Lower::Difference => plan.summary = low,
            }
        } else {
            if wants.one_to_one {
                plan.difference = part(map_y + map, lower_y);
            }
            (plan.summary, plan.cell) = halves(low, 1);
        }
        plan
    }

    /// What is inside a room's border (all of it where rooms have none).
    #[must_use]
    pub fn inner(&self, room: Rect) -> Rect {
        match self.mode {
            Mode::Full | Mode::Folded => Rect {
                x: room.x + 1,
                y: room.y + 1,
                width: room.width.saturating_sub(2),
                height: room.height.saturating_sub(2),
            },
            Mode::Tabs | Mode::TooSmall => room,
        }
    }

    fn tabs(area: Rect, wants: Wants) -> Self {
        let line = |y: u16, height: u16| Rect {
            y: area.y + y,
            height,
            ..area
        };
        let prompt = wants.prompt_lines.clamp(1, 2);
        let body = line(2, area.height - 3 - prompt);
        let mut plan = Self {
            mode: Mode::Tabs,
            title: line(0, 1),
            tabs: line(1, 1),
            prompt: line(area.height - 1 - prompt, prompt),
            hints: line(area.height - 1, 1),
            ..Self::default()
        };
        match wants.room {
            Room::Stream => plan.stream = body,
            Room::Map => plan.map = body,
            Room::Cell => plan.cell = body,
        }
        plan
    }

    fn folded(area: Rect, wants: Wants) -> Self {
        let (title, prompt, hints, body) = Self::outer(area, wants);
        // Three lines are what the reading of a cell needs; a tall window has room for all of it.
        let cell_lines = if area.height >= 40 { 12 } else { 3 };
        let cell_y = body.bottom() - 1 - cell_lines - 1;
        let above = cell_y - body.y;
        let map = map_height(wants, above, 6);
        let map_y = cell_y - map;
        let part = |y: u16, to: u16| Rect {
            y,
            height: to - y + 1,
            ..body
        };
        Self {
            mode: Mode::Folded,
            title,
            prompt,
            hints,
            stream: part(body.y, map_y),
            map: part(map_y, cell_y),
            cell: part(cell_y, body.bottom() - 1),
            ..Self::default()
        }
    }

    fn full(area: Rect, wants: Wants) -> Self {
        let (title, prompt, hints, body) = Self::outer(area, wants);
        let right = (body.width * 37 / 100).clamp(46, 76);
        let split = body.right() - right;
        let bottom = body.bottom() - 1;
        let map = map_height(wants, bottom - body.y, 8);
        let map_y = bottom - map;
        // 11 lines of readings under the candidates; what is left goes to the curve and the heads.
        let cell_y = body.y + (wants.candidates.clamp(3, 12) + 12).min(body.height * 57 / 100);
        let left = bottom - cell_y;
        let attention_y = bottom - (left * 45 / 100).clamp(4, 14);
        let part = |x: u16, y: u16, right: u16, to: u16| Rect {
            x,
            y,
            width: right - x + 1,
            height: to - y + 1,
        };
        let edge = body.right() - 1;
        Self {
            mode: Mode::Full,
            title,
            prompt,
            hints,
            stream: part(body.x, body.y, split, map_y),
            map: part(body.x, map_y, split, bottom),
            cell: part(split, body.y, edge, cell_y),
            profile: part(split, cell_y, edge, attention_y),
            attention: part(split, attention_y, edge, bottom),
            ..Self::default()
        }
    }

    /// Title, prompt, hints, and the body between them, whose last row is the prompt's upper border.
    fn outer(area: Rect, wants: Wants) -> (Rect, Rect, Rect, Rect) {
        let lines = wants.prompt_lines.clamp(1, 4);
        let title = Rect { height: 1, ..area };
        let prompt = Rect {
            y: area.bottom() - lines - 2,
            height: lines + 2,
            ..area
        };
        // The hints stand in the prompt's lower border.
        let hints = Rect {
            x: area.x + 2,
            y: area.bottom() - 1,
            width: area.width.saturating_sub(4),
            height: 1,
        };
        let body = Rect {
            y: area.y + 1,
            height: prompt.y - area.y,
            ..area
        };
        (title, prompt, hints, body)
    }
}

/// Some lines of an area, from `y` on.
fn lines(area: Rect, y: u16, height: u16) -> Rect {
    let y = y.min(area.height);
    Rect {
        y: area.y + y,
        height: height.min(area.height - y),
        ..area
    }
}

/// The left and the right half of an area, of equal width, which share `shared` columns.
fn halves(area: Rect, shared: u16) -> (Rect, Rect) {
    let width = (area.width + shared).div_ceil(2);
    let left = Rect { width, ..area };
    let x = left.right() - shared;
    let right = Rect {
        x,
        width: area.right() - x,
        ..area
    };
    (left, right)
}

/// A box in the middle of the screen, as large as asked and as fits.
#[must_use]
pub fn popup(area: Rect, width: u16, height: u16) -> Rect {
    let width = width.min(area.width.saturating_sub(4));
    let height = height.min(area.height.saturating_sub(2));
    Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    }
}

/// The box of a list whose lines take `width` columns and `lines` rows, with the filter above them.
#[must_use]
pub fn popup_list(area: Rect, (width, lines): (u16, u16)) -> Rect {
    let height = lines.saturating_add(4).clamp(8, 30);
    popup(area, width.clamp(40, 96), height.min(area.height * 3 / 4))
}

/// The lines inside the box of a list: below the border, the filter and a rule.
#[must_use]
pub fn popup_lines(popup: Rect) -> Rect {
    Rect {
        x: popup.x + 1,
        y: popup.y + 3,
        width: popup.width.saturating_sub(2),
        height: popup.height.saturating_sub(4),
    }
}

/// The text inside the box of a page.
#[must_use]
pub fn popup_page(area: Rect) -> Rect {
    let outer = popup(area, 92, area.height * 7 / 8);
    Rect {
        x: outer.x + 2,
        y: outer.y + 1,
        width: outer.width.saturating_sub(4),
        height: outer.height.saturating_sub(2),
    }
}

/// Rows of the map with one border, out of `available`, leaving `stream` rows for the text.
fn map_height(wants: Wants, available: u16, stream: u16) -> u16 {
    // Below the cells: token labels and the colour bar; above them a strip of what the last layer says.
    let cells = match wants.cell_height {
        0 => wants.states.div_ceil(2),
        height => wants.states * height,
    };
    let most = available.saturating_sub(stream).max(6);
    let strip = if available >= 20 { 5 } else { 0 };
    (cells + 4 + strip).clamp(6, most).max(available / 3)
}
