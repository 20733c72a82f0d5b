//! Walking: the cursor by keys and mouse, jumps, rooms.

use super::{Level, Overlay, State};
use crate::trace::Side;
use crate::tui::action::Action;
use crate::tui::effect::Effect;
use crate::tui::layout::{Mode, Room};
use ratatui::crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Rect;

/// How many of the most uncertain tokens are walked through.
const UNCERTAIN: usize = 16;
/// Tokens or lines a turn of the wheel.
const WHEEL: usize = 3;

impl State {
    /// Move the cursor to a position and stay there.
    pub(super) fn go_to(&mut self, position: usize) {
        let last = self.tokens().saturating_sub(1);
        self.cursor.position = position.min(last);
        self.cursor.follow = false;
        self.stream_loose = false;
    }

    fn go_by(&mut self, tokens: isize) {
        self.go_to(self.cursor.position.saturating_add_signed(tokens));
    }

    /// Move the cursor up or down: layers in the map and the cell, lines in the stream.
    fn climb(&mut self, up: bool) {
        if self.room == Room::Stream {
            return self.go_line(if up { -1 } else { 1 });
        }
        let last = self.states() - 1;
        self.cursor.layer = if up {
            (self.cursor.layer + 1).min(last)
        } else {
            self.cursor.layer.saturating_sub(1)
        };
    }

    fn go_line(&mut self, by: isize) {
        let flow = &self.derived.flow;
        let line = flow.line_of(self.cursor.position);
        let column = flow.column_of(self.cursor.position);
        let to = line
            .saturating_add_signed(by)
            .min(flow.lines.len().saturating_sub(1));
        if let Some(token) = flow.token_at(to, column).filter(|_| to != line) {
            self.go_to(token);
        }
    }

    fn page(&mut self, on: bool) {
        let sign = if on { 1 } else { -1 };
        if self.room == Room::Stream {
            let room = self.derived.plan.inner(self.derived.plan.stream);
            self.go_line(sign * (room.height.max(2) - 1) as isize);
        } else {
            let columns = self.on_screen().len().max(2) / 2;
            self.go_by(sign * columns as isize);
        }
    }

    /// One of the moving actions.
    pub(super) fn travel(&mut self, action: Action) {
        if self.grid().is_none_or(|g| g.is_empty()) {
            return;
        }
        match action {
            Action::MoveLeft => self.go_by(-1),
            Action::MoveRight => self.go_by(1),
            Action::MoveUp => self.climb(true),
            Action::MoveDown => self.climb(false),
            Action::PageBack => self.page(false),
            Action::PageOn => self.page(true),
            Action::First => self.go_to(0),
            Action::Last => self.go_to(usize::MAX),
            Action::TopLayer => self.cursor.layer = self.states() - 1,
            Action::Decided => self.go_decided(),
            Action::Follow if self.draws_nothing(action) => {}
            Action::Follow => {
                self.cursor.follow = !self.cursor.follow;
                self.stream_loose = false;
            }
            Action::SearchNext => self.go_match(true),
            Action::SearchPrevious => self.go_match(false),
            Action::NextUncertain => self.go_uncertain(true),
            Action::PreviousUncertain => self.go_uncertain(false),
            Action::NextMask => self.go_mask(true),
            Action::PreviousMask => self.go_mask(false),
            _ => {}
        }
    }

    /// Walk over the gaps, around the end, to what the last layer would put there.
    fn go_mask(&mut self, on: bool) {
        let masks = match self.masks() {
            // A second model may be the one that fills gaps.
            none if none.is_empty() => self.beside.as_ref().map_or(none, |b| b.run.masks()),
            masks => masks,
        };
        if !self.masked() && masks.is_empty() {
            return self.note(
                Level::Warn,
                "This model goes on from a text and fills no gaps.",
            );
        }
        let here = self.cursor.position;
        let next = if on {
            masks.iter().position(|p| *p > here).or(Some(0))
        } else {
            masks.iter().rposition(|p| *p < here)
        };
        let Some(last) = masks.len().checked_sub(1) else {
            let text = format!("The text has no {}.", self.mask_text());
            return self.note(Level::Warn, text);
        };
        let next = next.unwrap_or(last);
        self.go_to(masks[next]);
        self.cursor.layer = self.states() - 1;
        let gap = match self.masked() {
            true => self.mask_text(),
            false => "gap",
        };
        let text = format!("{gap} {} of {}", next + 1, masks.len());
        self.note(Level::Info, text);
    }

    fn go_decided(&mut self) {
        let position = self.cursor_of(Side::A).position;
        let decided = self.grid().and_then(|g| g.cells(position)?.decided_layer);
        match decided {
            Some(layer) => self.cursor.layer = layer as usize,
            None => self.note(Level::Warn, "This position has not been read."),
        }
    }

    /// Walk over the matches, around the end.
    fn go_match(&mut self, on: bool) {
        let matches = self.matches();
        let here = self.cursor.position;
        let next = if on {
            matches
                .iter()
                .find(|m| *m.start() > here)
                .or(matches.first())
        } else {
            matches
                .iter()
                .rev()
                .find(|m| *m.start() < here)
                .or(matches.last())
        };
        match next.map(|m| *m.start()) {
            Some(position) => {
                self.go_to(position);
                let at = matches.iter().position(|m| *m.start() == position);
                let at = at.unwrap_or(0) + 1;
                self.note(
                    Level::Info,
                    format!("match {at} of {} · {}", matches.len(), self.search),
                );
            }
            None if self.search.is_empty() => self.note(Level::Warn, "Nothing is searched for."),
            None => {
                let text = format!("`{}` is not in the text.", self.search);
                self.note(Level::Warn, text);
            }
        }
    }

    /// From the most uncertain token to the less uncertain ones, and back.
    fn go_uncertain(&mut self, on: bool) {
        let list = self.uncertain(UNCERTAIN);
        let Some(last) = list.len().checked_sub(1) else {
            return self.note(Level::Warn, "Nothing has been read yet.");
        };
        let at = list.iter().position(|p| *p == self.cursor.position);
        let next = match (at, on) {
            (None, _) => 0,
            (Some(at), true) => (at + 1) % list.len(),
            (Some(0), false) => last,
            (Some(at), false) => at - 1,
        };
        self.go_to(list[next]);
        self.cursor.layer = self.states() - 1;
        self.note(
            Level::Info,
            format!(
                "{} of the {} most uncertain positions",
                next + 1,
                list.len()
            ),
        );
    }

    /// The next room, the prompt among them.
    pub(super) fn turn_room(&mut self, on: bool) {
        let rooms = [Room::Stream, Room::Map, Room::Cell];
        let at = rooms.iter().position(|r| *r == self.room).unwrap_or(0);
        match (at, on) {
            (2, true) | (0, false) => {
                self.writing = true;
                self.room = if on { rooms[0] } else { rooms[2] };
            }
            (at, true) => self.room = rooms[at + 1],
            (at, false) => self.room = rooms[at - 1],
        }
    }

    /// The mouse, against what was last drawn.
    pub(super) fn mouse(&mut self, event: MouseEvent) -> Vec<Effect> {
        let point = (event.column, event.row);
        let wheel = match event.kind {
            MouseEventKind::ScrollDown | MouseEventKind::ScrollRight => Some(1),
            MouseEventKind::ScrollUp | MouseEventKind::ScrollLeft => Some(-1),
            _ => None,
        };
        if self.overlay.is_some() {
            return match (wheel, event.kind) {
                (Some(by), _) => self.act(if by > 0 {
                    Action::ListDown
                } else {
                    Action::ListUp
                }),
                (None, MouseEventKind::Down(MouseButton::Left)) => self.click_overlay(point),
                _ => Vec::new(),
            };
        }
        match event.kind {
            _ if wheel.is_some() => self.wheel(point, wheel.unwrap_or(0)),
            MouseEventKind::Down(MouseButton::Left) | MouseEventKind::Drag(MouseButton::Left) => {
                self.click(point);
            }
            _ => {}
        }
        Vec::new()
    }

    fn wheel(&mut self, point: (u16, u16), by: isize) {
        let plan = self.derived.plan;
        let within = |room: Rect| room.contains(point.into());
        if self.sets.is_some() {
            if plan.sets.contain(point) {
                self.climb_sets(-by);
            }
            return;
        }
        let maps = [plan.map, plan.beside_map, plan.difference];
        let layers = [plan.cell, plan.profile, plan.summary];
        if within(plan.stream) || within(plan.beside_stream) {
            let by = by * WHEEL as isize;
            self.stream_top = self.stream_top.saturating_add_signed(by);
            let top = &mut self.derived.beside_top;
            *top = top.saturating_add_signed(by);
            self.stream_loose = true;
        } else if maps.into_iter().any(within) && self.grid().is_some() {
            self.go_by(by * WHEEL as isize);
        } else if layers.into_iter().any(within) && self.grid().is_some() {
            let last = self.states() - 1;
            self.cursor.layer = self.cursor.layer.saturating_add_signed(-by).min(last);
        }
    }

    fn click(&mut self, point: (u16, u16)) {
        let plan = self.derived.plan;
        let within = |room: Rect| plan.inner(room).contains(point.into());
        if plan.prompt.contains(point.into()) {
            self.writing = true;
            return;
        }
        if self.sets.is_some() {
            if plan.tabs.contains(point.into()) {
                self.pane = plan.set_tab(point.0);
            }
            self.writing &= !plan.sets.contain(point) && !plan.tabs.contains(point.into());
            return;
        }
        if plan.mode == Mode::Tabs && plan.tabs.contains(point.into()) {
            // Equal thirds: Stream, Map, Cell.
            let third = (plan.tabs.width / 3).max(1);
            self.room = match (point.0 - plan.tabs.x) / third {
                0 => Room::Stream,
                1 => Room::Map,
                _ => Room::Cell,
            };
            self.writing = false;
            return;
        }
        let maps = [
            (plan.map, &self.derived.geometry),
            (plan.beside_map, &self.derived.beside_geometry),
            (plan.difference, &self.derived.gap_geometry),
        ];
        let map = maps.into_iter().find(|(map, _)| within(*map));
        let hit = map.map(|(_, geometry)| geometry.at(point.0, point.1));
        if let Some(hit) = hit {
            self.room = Room::Map;
            self.writing = false;
            let tokens = self.tokens();
            if let Some((layer, position)) = hit.filter(|(_, p)| *p < tokens) {
                self.go_to(position);
                self.cursor.layer = match &self.beside {
                    Some(beside) if within(plan.beside_map) => {
                        self.layer_of_first(&beside.run, layer)
                    }
                    _ => layer,
                };
            }
        } else if within(plan.stream) {
            self.room = Room::Stream;
            self.writing = false;
            let room = plan.inner(plan.stream);
            let line = self.stream_top + usize::from(point.1 - room.y);
            let column = usize::from((point.0 - room.x).saturating_sub(1));
            if let Some(token) = self.derived.flow.token_at(line, column) {
                self.go_to(token);
            }
        } else if within(plan.beside_stream) {
            self.room = Room::Stream;
            self.writing = false;
            let room = plan.inner(plan.beside_stream);
            let line = self.derived.beside_top + usize::from(point.1 - room.y);
            let column = usize::from((point.0 - room.x).saturating_sub(1));
            if let Some(token) = self.derived.beside_flow.token_at(line, column) {
                self.go_to(token);
            }
        } else if [plan.cell, plan.profile, plan.attention, plan.summary]
            .into_iter()
            .any(within)
        {
            self.room = Room::Cell;
            self.writing = false;
        }
    }

    fn click_overlay(&mut self, point: (u16, u16)) -> Vec<Effect> {
        let Some(Overlay::List(list)) = &mut self.overlay else {
            return Vec::new();
        };
        let area = crate::tui::layout::popup_list(self.area, list.size());
        let lines = crate::tui::layout::popup_lines(area);
        if !area.contains(point.into()) {
            return self.act(Action::Back);
        }
        let count = list.matches().len();
        if lines.contains(point.into()) {
            let top = list.top(usize::from(lines.height));
            let index = top + usize::from(point.1 - lines.y);
            if index < count {
                list.selected = index;
                return self.act(Action::Accept);
            }
        }
        Vec::new()
    }
}
