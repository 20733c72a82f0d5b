//! The prompt editor: text, cursor, history, and how it is laid out in columns.

use crate::tui::show;
use ratatui::crossterm::event::KeyEvent;
use ratatui_textarea::{CursorMove, TextArea};
use unicode_segmentation::UnicodeSegmentation as _;

/// Prompts kept in the history.
const KEPT: usize = 200;
/// Bytes of one paste; more would only stall the editor.
const PASTE_LIMIT: usize = 1 << 20;

/// A multi-line editor with a history.
#[derive(Clone, Debug)]
pub struct Editor {
    area: TextArea<'static>,
    history: Vec<String>,
    /// Where in the history the shown text is from, and what was being written before.
    walking: Option<(usize, String)>,
}

impl Default for Editor {
    fn default() -> Self {
        Self::new("")
    }
}

/// Lines as they are drawn, with the row and column of the cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EditorRows {
    /// Safe to display, none wider than asked.
    pub rows: Vec<String>,
    /// Row and column of the cursor; the column may be one past the last.
    pub cursor: (usize, usize),
}

impl Editor {
    /// An editor holding `text`, the cursor at its end.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut editor = Self {
            area: TextArea::default(),
            history: Vec::new(),
            walking: None,
        };
        editor.set(text);
        editor
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> String {
        self.area.lines().join("\n")
    }

    /// Whether nothing is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.area.is_empty()
    }

    /// Replace the text.
    pub fn set(&mut self, text: &str) {
        self.area = TextArea::from(clean(text).split('\n'));
        self.area.move_cursor(CursorMove::Bottom);
        self.area.move_cursor(CursorMove::End);
    }

    /// Insert pasted text; false when it was cut at the limit.
    pub fn paste(&mut self, text: &str) -> bool {
        let mut end = text.len().min(PASTE_LIMIT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.area.insert_str(clean(&text[..end]));
        end == text.len()
    }

    /// Handle a key that is not bound to an action.
    pub fn key(&mut self, key: KeyEvent) {
        self.area.input(key);
    }

    /// Break the line.
    pub fn new_line(&mut self) {
        self.area.insert_newline();
    }

    /// Empty the editor, so that undo brings the text back.
    pub fn clear(&mut self) {
        self.area.select_all();
        self.area.cut();
    }

    /// Remember the text as run.
    pub fn remember(&mut self) {
        let text = self.text();
        self.walking = None;
        if text.trim().is_empty() || self.history.last() == Some(&text) {
            return;
        }
        self.history.push(text);
        if self.history.len() > KEPT {
            self.history.remove(0);
        }
    }

    /// A line up, or the earlier prompt from the first line.
    pub fn previous(&mut self) {
        if self.area.cursor().0 > 0 {
            self.area.move_cursor(CursorMove::Up);
            return;
        }
        let (at, draft) = match self.walking.take() {
            Some((0, draft)) => (0, draft),
            Some((at, draft)) => (at - 1, draft),
            None if self.history.is_empty() => return,
            None => (self.history.len() - 1, self.text()),
        };
        self.set(&self.history[at].clone());
        self.walking = Some((at, draft));
    }

    /// A line down, or the later prompt from the last line; past the newest comes back what was being written.
    pub fn next(&mut self) {
        if self.area.cursor().0 + 1 < self.area.lines().len() {
            self.area.move_cursor(CursorMove::Down);
            return;
        }
        if let Some((at, draft)) = self.walking.take() {
            match self.history.get(at + 1).cloned() {
                Some(later) => {
                    self.set(&later);
                    self.walking = Some((at + 1, draft));
                }
                None => self.set(&draft),
            }
        }
    }

    /// The text in rows of at most `width` columns.
    #[must_use]
    pub fn rows(&self, width: usize) -> EditorRows {
        let width = width.max(2);
        let (line_at, char_at) = {
            let cursor = self.area.cursor();
            (cursor.0, cursor.1)
        };
        let mut out = EditorRows::default();
        for (i, line) in self.area.lines().iter().enumerate() {
            let prefix: String = line.chars().take(char_at).collect();
            let cursor_column = show::columns(&show::visible(&prefix));
            let mut row = String::new();
            let (mut used, mut passed) = (0, 0);
            let mut cursor = None;
            for cluster in show::visible(line).graphemes(true) {
                let w = show::columns(cluster);
                if used + w > width {
                    out.rows.push(std::mem::take(&mut row));
                    used = 0;
                }
                if i == line_at && passed >= cursor_column && cursor.is_none() {
                    cursor = Some((out.rows.len(), used));
                }
                row.push_str(cluster);
                used += w;
                passed += w;
            }
            if i == line_at {
                // At the end of a full row the cursor stands on a row of its own.
                if cursor.is_none() && used >= width {
                    out.rows.push(std::mem::take(&mut row));
                    used = 0;
                }
                out.cursor = cursor.unwrap_or((out.rows.len(), used));
            }
            out.rows.push(row);
        }
        out
    }
}

/// Line ends made equal; control characters, which no one means to write, dropped.
fn clean(text: &str) -> String {
    text.replace("\r\n", "\n")
        .replace('\r', "\n")
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_walks_at_the_edges_and_gives_the_draft_back() {
        let mut editor = Editor::new("one");
        editor.remember();
        editor.set("two\nlines");
        editor.remember();
        editor.set("draft");
        editor.previous();
        assert_eq!(editor.text(), "two\nlines");
        editor.previous();
        assert_eq!(editor.text(), "two\nlines", "first to the upper line");
        editor.previous();
        assert_eq!(editor.text(), "one");
        editor.previous();
        assert_eq!(editor.text(), "one");
        editor.next();
        assert_eq!(editor.text(), "two\nlines");
        editor.next();
        assert_eq!(editor.text(), "draft");
        editor.next();
        assert_eq!(editor.text(), "draft");
    }

    #[test]
    fn pastes_lose_control_characters_and_keep_lines() {
        let mut editor = Editor::default();
        assert!(editor.paste("a\r\nb\x1b[31m\0c\td"));
        assert_eq!(editor.text(), "a\nb[31mc\td");
        assert!(!editor.paste(&"é".repeat(PASTE_LIMIT)));
    }

    #[test]
    fn rows_wrap_and_carry_the_cursor() {
        let editor = Editor::new("abcdef");
        assert_eq!(
            editor.rows(4),
            EditorRows {
                rows: vec!["abcd".into(), "ef".into()],
                cursor: (1, 2)
            }
        );
        assert_eq!(Editor::new("abcd").rows(4).cursor, (1, 0));
        assert_eq!(Editor::new("").rows(4).rows, [""]);
        let wide = Editor::new("日本語").rows(5);
        assert_eq!(wide.rows, ["日本", "語"]);
        assert_eq!(Editor::new("a\u{202E}b").rows(20).rows, ["a\\u{202E}b"]);
    }

    #[test]
    fn clearing_can_be_undone() {
        let mut editor = Editor::new("precious");
        editor.clear();
        assert!(editor.is_empty());
        editor.area.undo();
        assert_eq!(editor.text(), "precious");
    }
}
