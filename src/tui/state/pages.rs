//! Pages of text: the help page, made from the key map, and the whole of a message.

use super::{Page, State};
use crate::tui::action::{Action, Group};
use crate::tui::keymap::Context;
use crate::tui::show;

/// One line of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageLine {
    /// A chapter.
    Heading(&'static str),
    /// Keys and what they do.
    Entry(String, String),
    /// Running text.
    Text(String),
}

/// The lines of a page in `width` columns.
#[must_use]
pub fn page_lines(state: &State, page: &Page, width: usize) -> Vec<PageLine> {
    match &page.text {
        Some(text) => text
            .lines()
            .flat_map(|line| wrap(line, width))
            .map(PageLine::Text)
            .collect(),
        None => help(state),
    }
}

fn help(state: &State) -> Vec<PageLine> {
    let mut lines = Vec::new();
    for group in Group::ALL {
        if !lines.is_empty() {
            lines.push(PageLine::Text(String::new()));
        }
        lines.push(PageLine::Heading(group.label()));
        for action in Action::ALL.iter().filter(|a| a.group() == group) {
            let keys = state.keymap.keys(*action, Context::Rooms).join("  ");
            lines.push(PageLine::Entry(keys, action.help().to_owned()));
        }
    }
    lines
}

/// Wrap at spaces; longer words are cut.
#[must_use]
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(8);
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut rest = word.to_owned();
        loop {
            let last = lines.len() - 1;
            let line = &mut lines[last];
            let gap = usize::from(!line.is_empty());
            if show::columns(line) + gap + show::columns(&rest) <= width {
                if gap == 1 {
                    line.push(' ');
                }
                line.push_str(&rest);
                break;
            }
            if line.is_empty() {
                let mut end = 0;
                for (i, c) in rest.char_indices() {
                    if show::columns(&rest[..i + c.len_utf8()]) > width {
                        break;
                    }
                    end = i + c.len_utf8();
                }
                line.push_str(&rest[..end]);
                rest = rest[end..].to_owned();
            }
            lines.push(String::new());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_wraps_at_words_and_cuts_long_ones() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("abcdefghijkl m", 8), ["abcdefgh", "ijkl m"]);
        assert_eq!(wrap("", 8), [""]);
    }
}
