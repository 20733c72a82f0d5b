//! What can lie over the rooms: filtered lists, the sampling panel, pages of text, the search line, a question.

use super::sampling::Panel;
use super::steering::SteerPanel;
use crate::trace::Metric;
use crate::tui::action::Action;
use crate::tui::keymap::Context;
use crate::tui::show;

/// What lies over the rooms.
#[derive(Clone, Debug)]
pub enum Overlay {
    /// Palette, metrics, samples or themes.
    List(List),
    /// The sampling panel.
    Sampling(Panel),
    /// A sweep over the strengths of what steers.
    Sweep,
    /// The panel of control vectors.
    Steering(SteerPanel),
    /// Help or the whole of a message.
    Page(Page),
    /// The search line.
    Search(SearchLine),
    /// The line in which a second model is named.
    OtherModel(String),
    /// Leave although a generation runs?
    ConfirmQuit,
}

impl Overlay {
    /// Which keys hold in it.
    #[must_use]
    pub fn context(&self) -> Context {
        match self {
            Self::List(_) => Context::List,
            Self::Steering(panel) if panel.typed.is_some() => Context::Field,
            Self::Sampling(_) | Self::Steering(_) | Self::Sweep => Context::Panel,
            Self::Page(_) | Self::ConfirmQuit => Context::Page,
            Self::OtherModel(_) => Context::Field,
            Self::Search(_) => Context::SearchLine,
        }
    }
}

/// What choosing an item does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Perform an action.
    Do(Action),
    /// Show a metric.
    Metric(Metric),
    /// Run a sample: set and index.
    Sample(usize, usize),
    /// Wear a theme.
    Theme(usize),
}

/// One line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is; safe to display.
    pub label: String,
    /// More about it.
    pub detail: String,
    /// Keys or a short mark at the right edge.
    pub mark: String,
    /// What it does.
    pub choice: Choice,
}

/// A list with a filter.
#[derive(Clone, Debug)]
pub struct List {
    /// Its heading.
    pub title: &'static str,
    /// All lines.
    pub items: Vec<Item>,
    /// What has been typed.
    pub query: String,
    /// Index into [`Self::matches`].
    pub selected: usize,
    /// The theme to go back to when a theme list is left.
    pub theme_before: Option<usize>,
}

impl List {
    /// A list with the cursor on the line that `chosen` picks out.
    #[must_use]
    pub fn new(title: &'static str, items: Vec<Item>, chosen: impl Fn(Choice) -> bool) -> Self {
        let selected = items.iter().position(|i| chosen(i.choice)).unwrap_or(0);
        Self {
            title,
            items,
            query: String::new(),
            selected,
            theme_before: None,
        }
    }

    /// Indices of the items that hold every typed word, those whose label begins with it first.
    #[must_use]
    pub fn matches(&self) -> Vec<usize> {
        let query = self.query.to_lowercase();
        let words: Vec<&str> = query.split_whitespace().collect();
        let mut hits: Vec<(bool, usize)> = self
            .items
            .iter()
            .enumerate()
            .filter_map(|(i, item)| {
                let label = item.label.to_lowercase();
                let all = format!("{label} {}", item.detail.to_lowercase());
                words
                    .iter()
                    .all(|w| all.contains(w))
                    .then(|| (!label.starts_with(query.trim()), i))
            })
            .collect();
        hits.sort_by_key(|(late, _)| *late);
        hits.into_iter().map(|(_, i)| i).collect()
    }

    /// The chosen item.
    #[must_use]
    pub fn chosen(&self) -> Option<&Item> {
        let matches = self.matches();
        matches
            .get(self.selected.min(matches.len().saturating_sub(1)))
            .map(|i| &self.items[*i])
    }

    /// Columns and rows of all its lines.
    #[must_use]
    pub fn size(&self) -> (u16, u16) {
        let widest = |f: fn(&Item) -> &str| {
            let widths = self.items.iter().map(|i| show::columns(f(i)));
            widths.max().unwrap_or(0)
        };
        let width = widest(|i| &i.label) + widest(|i| &i.detail) + widest(|i| &i.mark) + 10;
        let cut = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        (cut(width), cut(self.items.len()))
    }

    /// The first line shown of `height`, so that the choice is in view with a line around it.
    #[must_use]
    pub fn top(&self, height: usize) -> usize {
        let count = self.matches().len();
        (self.selected + 2)
            .saturating_sub(height)
            .min(count.saturating_sub(height))
    }

    /// Move the choice; it stops at the ends.
    pub fn step(&mut self, by: isize) {
        let last = self.matches().len().saturating_sub(1);
        self.selected = self.selected.min(last).saturating_add_signed(by).min(last);
    }

    /// Type a character, or take one back.
    pub fn type_char(&mut self, c: Option<char>) {
        match c {
            Some(c) => self.query.push(c),
            None => {
                self.query.pop();
            }
        }
        self.selected = 0;
    }
}

/// A page of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Its heading.
    pub title: String,
    /// Paragraphs; empty for the help page, which is made from the key map when drawn.
    pub text: Option<String>,
    /// First line shown.
    pub top: usize,
}

/// The search line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchLine {
    /// What has been typed.
    pub query: String,
    /// Where the cursor was, to go back to.
    pub from: usize,
    /// Whether the map followed the stream.
    pub followed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> List {
        let item = |label: &str, detail: &str| Item {
            label: label.to_owned(),
            detail: detail.to_owned(),
            mark: String::new(),
            choice: Choice::Do(Action::Help),
        };
        let items = vec![
            item("Logit margin", "logits"),
            item("Entropy", "nats"),
            item("Margin", "share"),
        ];
        List::new("Metrics", items, |_| false)
    }

    #[test]
    fn typing_filters_and_prefers_beginnings() {
        let mut list = list();
        for c in "mar".chars() {
            list.type_char(Some(c));
        }
        assert_eq!(list.matches(), [2, 0]);
        assert_eq!(list.chosen().unwrap().label, "Margin");
        list.step(5);
        assert_eq!(list.chosen().unwrap().label, "Logit margin");
        list.type_char(Some('z'));
        assert!(list.chosen().is_none());
        list.step(1);
        list.type_char(None);
        assert_eq!(list.chosen().unwrap().label, "Margin");
    }

    #[test]
    fn details_are_searched_too() {
        let mut list = list();
        for c in "nats".chars() {
            list.type_char(Some(c));
        }
        assert_eq!(list.chosen().unwrap().label, "Entropy");
    }
}
