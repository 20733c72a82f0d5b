//! Text from outside made safe: token text, prompts, file names, model metadata and dataset rows pass through here once
//! and can never move the cursor, colour the screen, reorder a line or hide in one.
//!
//! Screens take [`scrub`], [`one_line`], [`visible`] and [`truncate_width`]; text that comes in
//! pieces takes [`Scrubber`]; tables take [`csv_token`] and [`guard_formula`].

use std::fmt::Write as _;
use std::path::Path;
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Combining marks that one base character may carry; more than any script stacks, fewer than it takes to smear over
/// neighbouring rows.
const MARKS_PER_BASE: usize = 8;

/// What a mark without a base is put on, so that it cannot attach to whatever is drawn before it.
const DOTTED_CIRCLE: char = '\u{25CC}';

/// Makes text harmless piece by piece; a combining mark at the start of a piece may belong to the piece before.
#[derive(Clone, Debug, Default)]
pub struct Scrubber {
    keep_lines: bool,
    has_base: bool,
    marks: usize,
}

impl Scrubber {
    /// Everything that acts is escaped, line breaks and tabs included.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Line feeds and tabs stay; the rest as in [`Scrubber::new`].
    #[must_use]
    pub fn keeping_lines() -> Self {
        Self {
            keep_lines: true,
            ..Self::default()
        }
    }

    /// Append the harmless form of `text` to `out`.
    pub fn push(&mut self, text: &str, out: &mut String) {
        for c in text.chars() {
            self.push_char(c, out);
        }
    }

    fn push_char(&mut self, c: char, out: &mut String) {
        if self.keep_lines && matches!(c, '\n' | '\t') {
            self.has_base = false;
            out.push(c);
        } else if acts(c) {
            self.has_base = false;
            escape(c, out);
        } else if c.width() == Some(0) {
            if !self.has_base {
                out.push(DOTTED_CIRCLE);
                self.has_base = true;
                self.marks = 0;
            }
            self.marks += 1;
            if self.marks > MARKS_PER_BASE {
                self.has_base = false;
                escape(c, out);
            } else {
                out.push(c);
            }
        } else {
            self.has_base = true;
            self.marks = 0;
            out.push(c);
        }
    }
}

/// Whether a character does something else than being seen: controls, bidirectional overrides and isolates, zero-width
/// and other invisible formatting, line separators, tags, and code points without an agreed meaning.
fn acts(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    match c {
        // Fillers and selectors that count as letters or marks and still show nothing.
        '\u{034F}'
        | '\u{115F}'
        | '\u{1160}'
        | '\u{17B4}'
        | '\u{17B5}'
        | '\u{180B}'..='\u{180F}'
        | '\u{3164}'
        | '\u{FFA0}'
        | '\u{E0100}'..='\u{E01EF}' => true,
        '\u{2028}' | '\u{2029}' => true,
        // The other spaces only take room.
        _ if c.is_whitespace() && !c.is_control() => false,
        _ => !printable(c),
    }
}

/// Whether the standard library would print `c` as itself: neither control, format, private use nor unassigned.
fn printable(c: char) -> bool {
    // `str::escape_debug` leaves combining marks alone except at the start; hence the letter before.
    let mut buffer = [b'a'; 5];
    let end = 1 + c.encode_utf8(&mut buffer[1..]).len();
    std::str::from_utf8(&buffer[..end]).is_ok_and(|pair| pair.escape_debug().nth(1) == Some(c))
}

fn escape(c: char, out: &mut String) {
    // Writing to a `String` cannot fail.
    let _ = if c.is_ascii() {
        write!(out, "\\x{:02X}", u32::from(c))
    } else {
        write!(out, "\\u{{{:X}}}", u32::from(c))
    };
}

/// Replace every character that acts by a visible escape such as `\x1B` or `\u{202E}`; line breaks and tabs too.
///
/// Ordinary text, combining marks and emoji stay; a mark without a base gets a dotted circle.
#[must_use]
pub fn scrub(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    Scrubber::new().push(text, &mut out);
    out
}

/// [`scrub`] that keeps line feeds and tabs, for messages and text of several lines.
#[must_use]
pub fn scrub_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    Scrubber::keeping_lines().push(text, &mut out);
    out
}

/// The text scrubbed and on one line: every run of white space is one space, none at the ends.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&scrub(word));
    }
    out
}

/// A token or a piece of text for a cell of a screen: newline `⏎`, carriage return `␍`, tab `⇥`, leading spaces `·`,
/// the rest scrubbed.
#[must_use]
pub fn visible(text: &str) -> String {
    let body = text.trim_start_matches(' ');
    let mut out = "·".repeat(text.len() - body.len());
    let mut scrubber = Scrubber::new();
    for c in body.chars() {
        let shown = match c {
            '\n' => '⏎',
            '\r' => '␍',
            '\t' => '⇥',
            other => other,
        };
        scrubber.push_char(shown, &mut out);
    }
    out
}

/// [`visible`] for the bytes of a token: those that are no UTF-8 become `\xNN`.
#[must_use]
pub fn visible_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&visible(chunk.valid()));
        for byte in chunk.invalid() {
            byte_escape(*byte, &mut out);
        }
    }
    out
}

/// The longest beginning of scrubbed `text` that fits into `cols` columns, ended by `…` where something was cut. Never
/// cuts through a grapheme.
#[must_use]
pub fn truncate_width(text: &str, cols: usize) -> String {
    if text.width() <= cols {
        return text.to_owned();
    }
    if cols == 0 {
        return String::new();
    }
    let mut out = String::new();
    for grapheme in text.graphemes(true) {
        // Widths of neighbours are not additive (emoji sequences), so measure the whole.
        let before = out.len();
        out.push_str(grapheme);
        if out.width() + 1 > cols {
            out.truncate(before);
            break;
        }
    }
    out.push('…');
    out
}

/// A path for display.
#[must_use]
pub fn path(path: &Path) -> String {
    scrub(&path.to_string_lossy())
}

/// A token's own text for a file: control characters and bytes that are no UTF-8 become `\xNN`, byte by byte. What it
/// was exactly is in `bytes_hex`.
#[must_use]
pub fn csv_token(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                let mut buffer = [0; 4];
                for byte in c.encode_utf8(&mut buffer).bytes() {
                    byte_escape(byte, &mut out);
                }
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            byte_escape(*byte, &mut out);
        }
    }
    out
}

fn byte_escape(byte: u8, out: &mut String) {
    let _ = write!(out, "\\x{byte:02X}");
}

/// A text cell that no spreadsheet runs: one that begins with `=`, `+`, `-`, `@` (or their full-width forms), a tab or
/// a line break gets an apostrophe before it.
#[must_use]
pub fn guard_formula(cell: &str) -> String {
    let runs = cell.starts_with([
        '=', '+', '-', '@', '\t', '\r', '\n', '\u{FF1D}', '\u{FF0B}', '\u{FF0D}', '\u{FF20}',
    ]);
    if runs {
        format!("'{cell}")
    } else {
        cell.to_owned()
    }
}

/// Bytes as lower-case hexadecimal without separators.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// The entry of `known` that is closest to what was typed, if any is close enough to be meant.
#[must_use]
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (typed.chars().count() / 3).max(2);
    known
        .into_iter()
        .map(|candidate| (edit_distance(typed, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scrub_shows_what_acts() {
        for (given, shown) in [
            ("plain text, ünïcödé", "plain text, ünïcödé"),
            ("\x1b[31mred\x07", "\\x1B[31mred\\x07"),
            ("a\nb\tc\r", "a\\x0Ab\\x09c\\x0D"),
            ("\u{9b}2J", "\\u{9B}2J"),
            ("\u{202e}abc\u{2066}", "\\u{202E}abc\\u{2066}"),
            ("zero\u{200b}width\u{feff}", "zero\\u{200B}width\\u{FEFF}"),
            ("\u{2028}", "\\u{2028}"),
            ("\u{e0041}tag", "\\u{E0041}tag"),
            ("\u{e000}private", "\\u{E000}private"),
            ("soft\u{ad}hyphen", "soft\\u{AD}hyphen"),
            ("\u{fdd0}", "\\u{FDD0}"),
            ("日本語 한국어 हिन्दी ไทย", "日本語 한국어 हिन्दी ไทย"),
            ("e\u{301}", "e\u{301}"),
            ("\u{301}x", "\u{25cc}\u{301}x"),
            ("👍🏽 ❤\u{fe0f} 🇪🇺", "👍🏽 ❤\u{fe0f} 🇪🇺"),
            ("a\u{a0}b\u{3000}c", "a\u{a0}b\u{3000}c"),
            ("\\x1B", "\\x1B"),
        ] {
            assert_eq!(scrub(given), shown, "{given:?}");
        }
    }

    #[test]
    fn marks_do_not_pile_up() {
        let piled = format!("a{}", "\u{301}".repeat(40));
        let mut run = 0;
        for c in scrub(&piled).chars() {
            run = if c == '\u{301}' { run + 1 } else { 0 };
            assert!(run <= MARKS_PER_BASE);
        }
    }

    #[test]
    fn lines_survive_only_where_asked() {
        assert_eq!(scrub_lines("a\n\tb\x1b"), "a\n\tb\\x1B");
        assert_eq!(one_line("  a\r\n\t b\u{85}c\x1b "), "a b c\\x1B");
    }

    #[test]
    fn visible_white_space() {
        assert_eq!(visible("  the"), "··the");
        assert_eq!(visible("a\n\n"), "a⏎⏎");
        assert_eq!(visible("\t\r"), "⇥␍");
        assert_eq!(visible("a b"), "a b");
        assert_eq!(visible(" \x1b"), "·\\x1B");
        assert_eq!(visible(""), "");
        assert_eq!(visible_bytes(b" \xe2\x82\n"), "·\\xE2\\x82⏎");
    }

    #[test]
    fn truncation_counts_columns() {
        assert_eq!(truncate_width("abc", 3), "abc");
        assert_eq!(truncate_width("abcd", 3), "ab…");
        assert_eq!(truncate_width("日本語", 4), "日…");
        assert_eq!(truncate_width("日本語", 1), "…");
        assert_eq!(truncate_width("日本語", 0), "");
        assert_eq!(truncate_width("e\u{301}e\u{301}e", 2), "e\u{301}…");
    }

    #[test]
    fn tokens_in_files() {
        assert_eq!(csv_token(b" the"), " the");
        assert_eq!(csv_token(b"a\n\0\x7f"), "a\\x0A\\x00\\x7F");
        assert_eq!(csv_token(b"\xf0\x9f\x98"), "\\xF0\\x9F\\x98");
        assert_eq!(csv_token("\u{9b}é".as_bytes()), "\\xC2\\x9Bé");
        assert_eq!(hex(b"\x00\xffA"), "00ff41");
    }

    #[test]
    fn formulas_are_guarded() {
        for cell in ["=cmd()", "+1", "-1", "@x", "\t=1", "\r", "＝1"] {
            assert_eq!(guard_formula(cell), format!("'{cell}"));
        }
        for cell in ["", "a=b", " =1", "'=1", "1-2"] {
            assert_eq!(guard_formula(cell), cell);
        }
    }

    #[test]
    fn near_misses_are_recognised() {
        let known = ["sampling.temperature", "sampling.top_k", "theme"];
        assert_eq!(nearest("sampling.temprature", known), Some(known[0]));
        assert_eq!(nearest("teme", known), Some("theme"));
        assert_eq!(nearest("colour", known), None);
    }

    proptest! {
        #[test]
        fn scrubbed_text_never_acts(text in any::<String>()) {
            let safe = scrub(&text);
            prop_assert!(!safe.chars().any(acts));
            prop_assert_eq!(scrub(&safe), safe.clone());
            prop_assert!(safe.chars().next().is_none_or(|c| c.width() != Some(0)));
            let shown = visible(&text);
            prop_assert!(!shown.chars().any(acts));
        }

        #[test]
        fn pieces_scrub_like_the_whole(text in any::<String>(), cut in 0usize..64) {
            let at = text.char_indices().nth(cut).map_or(text.len(), |(i, _)| i);
            let (mut scrubber, mut out) = (Scrubber::new(), String::new());
            scrubber.push(&text[..at], &mut out);
            scrubber.push(&text[at..], &mut out);
            prop_assert_eq!(out, scrub(&text));
        }

        #[test]
        fn truncated_text_fits(text in any::<String>(), cols in 0usize..40) {
            let safe = scrub(&text);
            let cut = truncate_width(&safe, cols);
            prop_assert!(cut.width() <= cols);
            prop_assert!(safe.starts_with(cut.trim_end_matches('…')));
        }

        #[test]
        fn file_text_has_no_control(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(!csv_token(&bytes).chars().any(char::is_control));
        }
    }
}
