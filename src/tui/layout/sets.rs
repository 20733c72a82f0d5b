//! Where the panes of two sets of prompts lie.
//!
//! ```text
//! Full                            Folded                       Tabs
//! ┌ Profiles ────┬ Quadrants ──┐  ┌ Profiles ─┬ Quadrants ──┐  Profiles │ Quadrants │ AUROC │ …
//! ├ AUROC ───────┼ Statement ──┤  ├ AUROC, or statement ────┤  (one pane)
//! └──────────────┴─────────────┘  └─────────────────────────┘
//! ```

use super::{Mode, Plan, Wants};
use ratatui::layout::Rect;

/// A pane of two sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetPane {
    /// The chosen metric by layer.
    #[default]
    Profiles,
    /// Entropy against varentropy, sample by sample.
    Quadrant,
    /// How well each layer tells the sets apart.
    Separation,
    /// What that shows, in words.
    Statement,
}

impl SetPane {
    /// All of them, in the order of the tabs.
    pub const ALL: [Self; 4] = [
        Self::Profiles,
        Self::Quadrant,
        Self::Separation,
        Self::Statement,
    ];

    /// What its tab is called.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Profiles => "Profiles",
            Self::Quadrant => "Quadrants",
            Self::Separation => "AUROC",
            Self::Statement => "Statement",
        }
    }
}

/// The areas of the panes; one that is not shown has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetRooms {
    /// Of [`SetPane::Profiles`].
    pub profiles: Rect,
    /// Of [`SetPane::Quadrant`].
    pub quadrant: Rect,
    /// Of [`SetPane::Separation`].
    pub separation: Rect,
    /// Of [`SetPane::Statement`].
    pub statement: Rect,
}

impl SetRooms {
    /// The area of a pane.
    #[must_use]
    pub fn of(&self, pane: SetPane) -> Rect {
        match pane {
            SetPane::Profiles => self.profiles,
            SetPane::Quadrant => self.quadrant,
            SetPane::Separation => self.separation,
            SetPane::Statement => self.statement,
        }
    }

    fn of_mut(&mut self, pane: SetPane) -> &mut Rect {
        match pane {
            SetPane::Profiles => &mut self.profiles,
            SetPane::Quadrant => &mut self.quadrant,
            SetPane::Separation => &mut self.separation,
            SetPane::Statement => &mut self.statement,
        }
    }

    /// Whether a point of the screen is in one of them.
    #[must_use]
    pub fn contain(&self, point: (u16, u16)) -> bool {
        let rooms = SetPane::ALL.map(|pane| self.of(pane));
        rooms.into_iter().any(|room| room.contains(point.into()))
    }
}

impl Plan {
    /// The pane whose name in the line of tabs is at a column.
    #[must_use]
    pub fn set_tab(&self, column: u16) -> SetPane {
        let quarter = (self.tabs.width / 4).max(1);
        let at = usize::from(column.saturating_sub(self.tabs.x) / quarter);
        SetPane::ALL[at.min(SetPane::ALL.len() - 1)]
    }

    /// The one pane shown.
    pub(super) fn set_tabs(area: Rect, wants: Wants, pane: SetPane) -> Self {
        let mut plan = Self::tabs(area, wants);
        let rooms = [&mut plan.stream, &mut plan.map, &mut plan.cell];
        let taken = rooms.map(std::mem::take);
        let body = taken.into_iter().find(|room| !room.is_empty());
        *plan.sets.of_mut(pane) = body.unwrap_or_default();
        plan
    }

    /// All panes, or three of them.
    pub(super) fn set_rooms(area: Rect, wants: Wants, pane: SetPane, folded: bool) -> Self {
        let (title, prompt, hints, body) = Self::outer(area, wants);
        let (bottom, edge) = (body.bottom() - 1, body.right() - 1);
        // Below are numbers as well as curves.
        let middle = body.y + (bottom - body.y) * 47 / 100;
        let split = body.x + body.width * if folded { 50 } else { 55 } / 100;
        let part = |x: u16, y: u16, right: u16, to: u16| Rect {
            x,
            y,
            width: right - x + 1,
            height: to - y + 1,
        };
        let mut plan = Self {
            mode: if folded { Mode::Folded } else { Mode::Full },
            title,
            prompt,
            hints,
            ..Self::default()
        };
        let rooms = &mut plan.sets;
        rooms.profiles = part(body.x, body.y, split, middle);
        rooms.quadrant = part(split, body.y, edge, middle);
        match (folded, pane) {
            (false, _) => {
                rooms.separation = part(body.x, middle, split, bottom);
                rooms.statement = part(split, middle, edge, bottom);
            }
            (true, SetPane::Statement) => rooms.statement = part(body.x, middle, edge, bottom),
            (true, _) => rooms.separation = part(body.x, middle, edge, bottom),
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panes_stay_inside_and_share_only_borders_at_every_size() {
        for w in (60..=220).step_by(5) {
            for h in 16..=70 {
                for pane in SetPane::ALL {
                    let area = Rect::new(0, 0, w, h);
                    let wants = Wants {
                        states: 13,
                        prompt_lines: 1 + h % 6,
                        sets: Some(pane),
                        ..Wants::default()
                    };
                    let plan = Plan::new(area, wants);
                    let panes = SetPane::ALL.map(|pane| plan.sets.of(pane));
                    let shown = panes.iter().filter(|room| !room.is_empty()).count();
                    let expected = match plan.mode {
                        Mode::Full => 4,
                        Mode::Folded => 3,
                        Mode::Tabs | Mode::TooSmall => 1,
                    };
                    assert_eq!(shown, expected, "{w}x{h}");
                    if plan.mode != Mode::Full && plan.mode != Mode::Folded {
                        assert!(!plan.sets.of(pane).is_empty(), "{w}x{h}");
                    }
                    let rooms = [panes.as_slice(), &[plan.prompt]].concat();
                    for (i, a) in rooms.iter().enumerate() {
                        assert_eq!(a.intersection(area), *a, "{w}x{h}");
                        for b in &rooms[i + 1..] {
                            let shared = plan.inner(*a).intersection(plan.inner(*b));
                            assert!(shared.is_empty(), "{w}x{h}: {a:?} {b:?}");
                        }
                    }
                    for room in panes.iter().filter(|room| !room.is_empty()) {
                        let inner = plan.inner(*room);
                        assert!(inner.width >= 36 && inner.height >= 5, "{w}x{h} {inner:?}");
                    }
                    let others = [plan.stream, plan.map, plan.cell, plan.summary];
                    assert!(others.iter().all(|room| room.is_empty()), "{w}x{h}");
                }
            }
        }
    }

    #[test]
    fn tabs_are_hit_in_quarters() {
        let wants = Wants {
            sets: Some(SetPane::Profiles),
            ..Wants::default()
        };
        let plan = Plan::new(Rect::new(0, 0, 60, 16), wants);
        let hit = [0, 14, 15, 31, 59].map(|column| plan.set_tab(column));
        let [profiles, quadrant, separation, statement] = SetPane::ALL;
        assert_eq!(hit, [profiles, profiles, quadrant, separation, statement]);
    }
}
