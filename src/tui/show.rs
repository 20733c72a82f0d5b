//! Text for the screen: token bytes made visible, cut to columns, and numbers of fixed width with their units.

use crate::trace::Unit;
use unicode_segmentation::UnicodeSegmentation as _;
use unicode_width::UnicodeWidthStr as _;

/// Characters of a token label; longer tokens end in `…`.
pub const LABEL: usize = 24;

/// Columns of a text that has been through [`visible`] or [`label`].
#[must_use]
pub fn columns(text: &str) -> usize {
    text.width()
}

/// Outside text as it may stand on the screen: every character takes the columns that every terminal gives it.
///
/// Control, bidirectional and other invisible characters become escapes. Sequences whose width terminals disagree
/// on (joined emoji, skin tones, flags, piled-up accents) are taken apart and their invisible parts escaped; plain
/// accents stay on their letter. Newlines become `⏎`, tabs `⇥`.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for cluster in text.graphemes(true) {
        let mut chars = cluster.chars();
        let (Some(first), rest) = (chars.next(), chars.as_str()) else {
            continue;
        };
        push_visible(&mut out, first, true);
        let accents = rest.chars().filter(|c| is_accent(*c)).count();
        for c in rest.chars() {
            match c {
                // Asks for the emoji or the text form; without it the base character has one width everywhere.
                '\u{FE00}'..='\u{FE0F}' => {}
                c if is_accent(c) && accents <= 2 => out.push(c),
                c => push_visible(&mut out, c, false),
            }
        }
    }
    out
}

/// Combining marks of the Latin, Greek, Cyrillic, Hebrew, Arabic and Indic ranges that sit on a letter.
fn is_accent(c: char) -> bool {
    unicode_width::UnicodeWidthChar::width(c) == Some(0)
        && matches!(c, '\u{300}'..='\u{36F}' | '\u{483}'..='\u{487}' | '\u{591}'..='\u{5C7}'
            | '\u{610}'..='\u{61A}' | '\u{64B}'..='\u{65F}' | '\u{900}'..='\u{1CFF}')
}

fn push_visible(out: &mut String, c: char, leads: bool) {
    match c {
        '\n' => out.push('⏎'),
        '\t' => out.push('⇥'),
        '\r' => out.push('␍'),
        // Terminals disagree about these: halves of flags and skin tones join with a neighbour or do not.
        '\u{1F1E6}'..='\u{1F1FF}' | '\u{1F3FB}'..='\u{1F3FF}' => escape(out, c),
        // Characters that look like nothing but take a column, or that some terminals take for a line's end.
        '\u{AD}' | '\u{115F}' | '\u{180E}' | '\u{2028}' | '\u{2029}' | '\u{3164}' | '\u{FFA0}' => {
            escape(out, c);
        }
        c if c.is_control() => escape(out, c),
        c if unicode_width::UnicodeWidthChar::width(c).unwrap_or(0) == 0 => escape(out, c),
        // Hangul vowels and finals, prepended marks: they join with the character before.
        c if !leads && !is_plain(c) => escape(out, c),
        c => {
            let one = crate::text::scrub(c.encode_utf8(&mut [0; 4]));
            out.push_str(&one);
        }
    }
}

/// Whether a character inside a cluster is one that also stands alone (the second emoji of a joined pair).
fn is_plain(c: char) -> bool {
    !matches!(c, '\u{1160}'..='\u{11FF}')
}

fn escape(out: &mut String, c: char) {
    let code = u32::from(c);
    if code < 0x100 {
        out.push_str(&format!("\\x{code:02X}"));
    } else {
        out.push_str(&format!("\\u{{{code:X}}}"));
    }
}

/// The text of token bytes, where bytes that are no UTF-8 (or only a part of a character) show as `\xE2`.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&visible(chunk.valid()));
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02X}"));
        }
    }
    out
}

/// A token on one short line: spaces at its edges as `·`, at most [`LABEL`] columns.
#[must_use]
pub fn label(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "∅".to_owned();
    }
    // A huge token is cut before it is looked at closely; no label needs more.
    let shown = text(&bytes[..bytes.len().min(4 * LABEL)]);
    let start = shown.len() - shown.trim_start_matches(' ').len();
    let end = shown.trim_end_matches(' ').len().max(start);
    let edged: String = shown
        .char_indices()
        .map(|(i, c)| {
            if c == ' ' && (i < start || i >= end) {
                '·'
            } else {
                c
            }
        })
        .collect();
    cut(&edged, LABEL)
}

/// At most `width` columns of `text`, with `…` where something is missing.
#[must_use]
pub fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for cluster in text.graphemes(true) {
        let w = columns(cluster);
        if used + w + 1 > width {
            break;
        }
        out.push_str(cluster);
        used += w;
    }
    if width > 0 {
        out.push('…');
    }
    out
}

/// Exactly `width` columns: cut or padded on the right.
#[must_use]
pub fn pad(text: &str, width: usize) -> String {
    let mut out = cut(text, width);
    let missing = width.saturating_sub(columns(&out));
    out.extend(std::iter::repeat_n(' ', missing));
    out
}

/// A number in at most six columns, or `n/a`: two decimals for information, three for shares, none for counts.
#[must_use]
pub fn number(value: Option<f32>, unit: Unit) -> String {
    let Some(v) = value.filter(|v| !v.is_nan()) else {
        return "n/a".to_owned();
    };
    if v.is_infinite() {
        return if v > 0.0 { "∞" } else { "−∞" }.to_owned();
    }
    let (size, decimals) = (v.abs(), matches!(unit, Unit::Count));
    let text = match unit {
        _ if size >= 1e6 => format!("{v:.1e}"),
        Unit::Share => format!("{v:.3}"),
        _ if decimals || size >= 10_000.0 => format!("{v:.0}"),
        _ if size >= 1000.0 => format!("{v:.1}"),
        _ => format!("{v:.2}"),
    };
    // A tiny negative number must not read "-0.00".
    match text.strip_prefix('-') {
        Some(rest) if rest.chars().all(|c| matches!(c, '0' | '.')) => rest.to_owned(),
        _ => text,
    }
}

/// [`number`] with its unit behind it.
#[must_use]
pub fn with_unit(value: Option<f32>, unit: Unit) -> String {
    let number = number(value, unit);
    match unit {
        Unit::Share | Unit::None | Unit::Count => number,
        _ if number == "n/a" => number,
        _ => format!("{number} {}", unit.label()),
    }
}

/// A probability as a percentage in six columns.
#[must_use]
pub fn percent(share: f32) -> String {
    match share {
        s if s.is_nan() => "   n/a".to_owned(),
        s if s > 0.0 && s < 0.000_5 => " <.1 %".to_owned(),
        s if s >= 0.999_5 => " 100 %".to_owned(),
        s => format!("{:>4.1} %", s * 100.0),
    }
}

/// Bytes in words: `12.3 MB`.
#[must_use]
pub fn bytes(n: u64) -> String {
    let n = n as f64;
    match n {
        n if n >= 1e9 => format!("{:.1} GB", n / 1e9),
        n if n >= 1e6 => format!("{:.1} MB", n / 1e6),
        n if n >= 1e3 => format!("{:.0} kB", n / 1e3),
        n => format!("{n:.0} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_visible_and_keeps_its_columns() {
        for (raw, shown) in [
            ("\x1b[31mred", "\\x1B[31mred"),
            ("a\0b", "a\\x00b"),
            ("\u{202E}abc", "\\u{202E}abc"),
            ("zero\u{200B}width", "zero\\u{200B}width"),
            ("line\nnext\tcell", "line⏎next⇥cell"),
            ("e\u{301}", "e\u{301}"),
            ("👩\u{200D}💻", "👩\\u{200D}💻"),
            ("👍🏽", "👍\\u{1F3FD}"),
            ("❤\u{FE0F}", "❤"),
            ("שלום", "שלום"),
            ("日本", "日本"),
            ("\u{9b}2J", "\\x9B2J"),
            ("a\u{2028}b\u{AD}c", "a\\u{2028}b\\xADc"),
        ] {
            let got = visible(raw);
            assert_eq!(got, shown);
            assert!(!got.chars().any(char::is_control));
            // Every cluster is as wide as its first character: nothing for terminals to disagree on.
            for cluster in got.graphemes(true) {
                let first: String = cluster.chars().take(1).collect();
                assert_eq!(columns(cluster), columns(&first), "{cluster:?}");
            }
        }
    }

    #[test]
    fn parts_of_characters_and_huge_tokens_have_short_labels() {
        assert_eq!(label(b"\xE2\x82"), "\\xE2\\x82");
        assert_eq!(label(" the ".as_bytes()), "·the·");
        assert_eq!(label(b"  "), "··");
        assert_eq!(label(b""), "∅");
        let huge = label("x".repeat(1_000_000).as_bytes());
        assert_eq!(columns(&huge), LABEL);
        assert!(huge.ends_with('…'));
    }

    #[test]
    fn cutting_never_splits_a_wide_character() {
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(pad("日本語", 4), "日… ");
        assert_eq!(cut("abc", 0), "");
        assert_eq!(columns(&pad("ab", 5)), 5);
    }

    #[test]
    fn unknown_numbers_are_never_zero() {
        assert_eq!(number(None, Unit::Nats), "n/a");
        assert_eq!(number(Some(f32::NAN), Unit::Count), "n/a");
        assert_eq!(number(Some(-0.001), Unit::Nats), "0.00");
        assert_eq!(number(Some(0.5), Unit::Share), "0.500");
        assert_eq!(number(Some(31_999.0), Unit::Count), "31999");
        assert_eq!(number(Some(f32::INFINITY), Unit::Nats), "∞");
        assert_eq!(with_unit(Some(1.5), Unit::NatsSquared), "1.50 nats²");
        assert_eq!(with_unit(None, Unit::Nats), "n/a");
        for share in [0.0, 0.0001, 0.05, 0.912, 0.9999, 1.0, f32::NAN] {
            assert_eq!(columns(&percent(share)), 6, "{share}");
        }
    }
}
