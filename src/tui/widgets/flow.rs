//! Tokens as running text: wrapped at words, every column knowing which token it belongs to.

use crate::tui::show;
use unicode_segmentation::UnicodeSegmentation as _;

/// Bytes of a token that are shown; a crafted token of megabytes must not stall the screen.
const MOST: usize = 2048;

/// A part of one token on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The first token whose bytes are in it. Differs from `last` where a character is split over tokens.
    pub first: usize,
    /// The token it belongs to.
    pub last: usize,
    /// Safe to display.
    pub text: String,
    /// Columns.
    pub width: usize,
}

/// Wrapped tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Pieces line by line.
    pub lines: Vec<Vec<Piece>>,
}

impl Flow {
    /// Lay `tokens` out in `width` columns (at least 4, so that the widest escape's parts fit).
    #[must_use]
    pub fn new<'a>(tokens: impl Iterator<Item = &'a [u8]>, width: usize) -> Self {
        let mut wrap = Wrap {
            width: width.max(4),
            ..Wrap::default()
        };
        // Bytes of a character whose other bytes are in the tokens to come.
        let mut carry: Vec<u8> = Vec::new();
        let mut first = 0;
        let mut last = 0;
        for (token, bytes) in tokens.enumerate() {
            last = token;
            if carry.is_empty() {
                first = token;
            }
            let cut = &bytes[..bytes.len().min(MOST)];
            let joined: Vec<u8> = carry.drain(..).chain(cut.iter().copied()).collect();
            let whole = joined.len() - unfinished(&joined);
            wrap.bytes(&joined[..whole], first, token);
            carry.extend_from_slice(&joined[whole..]);
            if whole > 0 {
                first = token;
            }
        }
        wrap.bytes_as_escapes(&carry, first, last);
        wrap.word_end();
        let mut lines = wrap.lines;
        lines.push(wrap.line);
        Self { lines }
    }

    /// The line that shows `token` (where it ends, when it is on several), or the one where it would be.
    #[must_use]
    pub fn line_of(&self, token: usize) -> usize {
        let end = self.lines.len().saturating_sub(1);
        let first = self
            .lines
            .iter()
            .position(|line| line.last().is_some_and(|piece| piece.last >= token))
            .unwrap_or(end);
        let goes_on = |line: &Vec<Piece>| line.first().is_some_and(|piece| piece.last == token);
        let more = self.lines[self.lines.len().min(first + 1)..]
            .iter()
            .take_while(|line| goes_on(line))
            .count();
        first + more
    }

    /// The column at which `token` begins on its line.
    #[must_use]
    pub fn column_of(&self, token: usize) -> usize {
        self.lines.get(self.line_of(token)).map_or(0, |line| {
            line.iter()
                .take_while(|piece| piece.last < token)
                .map(|piece| piece.width)
                .sum()
        })
    }

    /// The token at a column of a line; past its end the last one of the line.
    #[must_use]
    pub fn token_at(&self, line: usize, column: usize) -> Option<usize> {
        let mut x = 0;
        let pieces = self.lines.get(line)?;
        for piece in pieces {
            x += piece.width;
            if column < x {
                return Some(piece.last);
            }
        }
        pieces.last().map(|piece| piece.last)
    }
}

/// How many bytes at the end are the start of a character that is not complete.
fn unfinished(bytes: &[u8]) -> usize {
    match std::str::from_utf8(&bytes[bytes.len().saturating_sub(3)..]) {
        Ok(_) => 0,
        Err(_) => (1..=bytes.len().min(3))
            .find(|&n| {
                let tail = &bytes[bytes.len() - n..];
                matches!(std::str::from_utf8(tail), Err(e) if e.valid_up_to() == 0 && e.error_len().is_none())
            })
            .unwrap_or(0),
    }
}

#[derive(Default)]
struct Wrap {
    width: usize,
    lines: Vec<Vec<Piece>>,
    line: Vec<Piece>,
    used: usize,
    /// The word being gathered, its leading spaces first.
    word: Vec<Piece>,
    word_width: usize,
    /// Whether the word has anything but spaces.
    solid: bool,
}

impl Wrap {
    fn bytes(&mut self, bytes: &[u8], first: usize, last: usize) {
        let mut first = first;
        for chunk in bytes.utf8_chunks() {
            for (i, part) in chunk.valid().split('\n').enumerate() {
                if i > 0 {
                    self.cluster("⏎", first, last);
                    self.word_end();
                    self.break_line();
                }
                let shown = show::visible(part);
                for cluster in shown.graphemes(true) {
                    self.cluster(cluster, first, last);
                    // Only the first character can have begun in an earlier token.
                    first = last;
                }
            }
            self.bytes_as_escapes(chunk.invalid(), first, last);
        }
    }

    fn bytes_as_escapes(&mut self, bytes: &[u8], first: usize, last: usize) {
        for byte in bytes {
            self.cluster(&format!("\\x{byte:02X}"), first, last);
        }
    }

    fn cluster(&mut self, text: &str, first: usize, last: usize) {
        let width = show::columns(text);
        let space = text == " ";
        if space && self.solid {
            self.word_end();
        }
        self.solid |= !space;
        self.word_width += width;
        match self.word.last_mut() {
            Some(piece) if piece.last == last && piece.first == first => {
                piece.text.push_str(text);
                piece.width += width;
            }
            _ => self.word.push(Piece {
                first,
                last,
                text: text.to_owned(),
                width,
            }),
        }
    }

    /// Put the gathered word on this line, or on the next when it does not fit.
    fn word_end(&mut self) {
        let word = std::mem::take(&mut self.word);
        let width = std::mem::take(&mut self.word_width);
        self.solid = false;
        if self.used + width <= self.width {
            for piece in word {
                self.put(piece);
            }
            return;
        }
        let begins_line = self.used == 0;
        let mut leading = !begins_line;
        for piece in word {
            let spaces = piece.text.len() - piece.text.trim_start_matches(' ').len();
            if leading && spaces > 0 {
                // The space at the break stays on the old line if it can and is dropped otherwise.
                if self.used < self.width {
                    self.put(Piece {
                        text: " ".to_owned(),
                        width: 1,
                        ..piece
                    });
                }
                let rest = piece.text[spaces..].to_owned();
                if rest.is_empty() {
                    continue;
                }
                self.break_line();
                leading = false;
                self.put_split(Piece {
                    width: show::columns(&rest),
                    text: rest,
                    ..piece
                });
                continue;
            }
            if leading {
                self.break_line();
                leading = false;
            }
            self.put_split(piece);
        }
    }

    /// Put a piece that may be wider than what is left, cut between characters.
    fn put_split(&mut self, piece: Piece) {
        if self.used + piece.width <= self.width {
            return self.put(piece);
        }
        for cluster in piece.text.graphemes(true) {
            let width = show::columns(cluster);
            if self.used + width > self.width {
                self.break_line();
            }
            self.put(Piece {
                first: piece.first,
                last: piece.last,
                text: cluster.to_owned(),
                width,
            });
        }
    }

    fn put(&mut self, piece: Piece) {
        self.used += piece.width;
        match self.line.last_mut() {
            Some(end) if end.last == piece.last && end.first == piece.first => {
                end.text.push_str(&piece.text);
                end.width += piece.width;
            }
            _ => self.line.push(piece),
        }
    }

    fn break_line(&mut self) {
        self.lines.push(std::mem::take(&mut self.line));
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flow(tokens: &[&[u8]], width: usize) -> Flow {
        Flow::new(tokens.iter().copied(), width)
    }

    fn text(flow: &Flow) -> Vec<String> {
        flow.lines
            .iter()
            .map(|line| line.iter().map(|p| p.text.as_str()).collect())
            .collect()
    }

    #[test]
    fn words_wrap_as_wholes_though_tokens_are_parts() {
        let tokens: [&[u8]; 6] = [b"The", b" cap", b"ital", b" of", b" Vel", b"mora"];
        let flow = flow(&tokens, 12);
        assert_eq!(text(&flow), ["The capital ", "of Velmora"]);
        assert_eq!(flow.line_of(2), 0);
        assert_eq!(flow.line_of(3), 1, "its space stays behind");
        assert_eq!(flow.line_of(4), 1);
        assert_eq!(flow.column_of(4), 2);
        assert_eq!(flow.token_at(0, 9), Some(2));
        assert_eq!(flow.token_at(1, 4), Some(4));
        assert_eq!(flow.token_at(1, 99), Some(5));
        assert_eq!(flow.token_at(2, 0), None);
    }

    #[test]
    fn newlines_are_seen_and_break() {
        assert_eq!(text(&flow(&[b"a\n\nb"], 10)), ["a⏎", "⏎", "b"]);
        assert_eq!(text(&flow(&[b"a\n", b"  b"], 10)), ["a⏎", "  b"]);
    }

    #[test]
    fn a_character_over_several_tokens_appears_with_its_last_byte() {
        let flow = flow(&[b"\xE2", b"\x82", b"\xAC!"], 10);
        assert_eq!(text(&flow), ["€!"]);
        assert_eq!((flow.lines[0][0].first, flow.lines[0][0].last), (0, 2));
        assert_eq!((flow.lines[0][1].first, flow.lines[0][1].last), (2, 2));
        assert_eq!(
            text(&super::Flow::new([b"a\xE2".as_slice()].into_iter(), 10)),
            ["a\\xE2"]
        );
        let broken = super::Flow::new([b"\xE2".as_slice(), b"x"].into_iter(), 10);
        assert_eq!(text(&broken), ["\\xE2x"]);
    }

    #[test]
    fn long_words_are_cut_and_wide_characters_stay_whole() {
        assert_eq!(text(&flow(&[b"abcdefghij"], 4)), ["abcd", "efgh", "ij"]);
        assert_eq!(text(&flow(&["日本語".as_bytes()], 5)), ["日本", "語"]);
    }

    proptest! {
        #[test]
        fn no_line_is_too_wide_and_tokens_stay_in_order(
            tokens in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..40),
            width in 4usize..40,
        ) {
            let flow = Flow::new(tokens.iter().map(Vec::as_slice), width);
            let mut last = 0;
            for line in &flow.lines {
                let wide: usize = line.iter().map(|p| p.width).sum();
                prop_assert!(wide <= width.max(10), "{line:?}");
                for piece in line {
                    prop_assert!(!piece.text.chars().any(char::is_control));
                    prop_assert!(piece.first <= piece.last && last <= piece.last);
                    last = piece.last;
                }
            }
        }
    }
}
