//! How a vocabulary spells bytes: what each kind of decoder makes of one token.

use serde_json::Value;

/// The decoders whose single tokens are understood here; anything else goes through the crate.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// GPT-2's alphabet: one printable character for each byte.
    ByteLevel,
    /// SentencePiece: `▁` for a space, `<0xNN>` for a single byte.
    Pieces {
        /// What stands for what, in order.
        replace: Vec<(String, String)>,
        /// Whether `<0xNN>` is a byte.
        byte_fallback: bool,
        /// What happens at the very start of a text.
        start: Start,
    },
    /// BERT: `##` continues a word, everything else begins one.
    WordPiece {
        /// `##`.
        prefix: String,
    },
    /// No decoder: words, joined by spaces.
    Words,
    /// Any other decoder.
    Other,
}

/// What a SentencePiece decoder does at the very start of a text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Start {
    /// Nothing.
    Keep,
    /// Take away up to so many of this character.
    Strip(char, usize),
    /// Take every one of this character out of the first token.
    DropFromFirst(char),
}

impl Kind {
    /// The kind of a decoder, given as it stands in a `tokenizer.json`.
    pub(super) fn of(decoder: Option<&Value>) -> Self {
        let Some(decoder) = decoder.filter(|d| !d.is_null()) else {
            return Self::Words;
        };
        match decoder["type"].as_str() {
            Some("ByteLevel") => Self::ByteLevel,
            Some("WordPiece") => match decoder["prefix"].as_str() {
                Some(prefix) => Self::WordPiece {
                    prefix: prefix.to_owned(),
                },
                None => Self::Other,
            },
            Some("Metaspace") => metaspace(decoder).unwrap_or(Self::Other),
            Some("Sequence") => match decoder["decoders"].as_array().map(Vec::as_slice) {
                Some([only]) => Self::of(Some(only)),
                Some(steps) => pieces(steps).unwrap_or(Self::Other),
                None => Self::Other,
            },
            _ => Self::Other,
        }
    }

    /// The bytes of one token of the model's vocabulary; `None` where only the crate can tell.
    pub(super) fn bytes(&self, token: &str) -> Option<Vec<u8>> {
        match self {
            Self::ByteLevel => Some(byte_level(token)),
            Self::Pieces { .. } => Some(match self.piece(token) {
                Piece::Byte(byte) => vec![byte],
                Piece::Text(text) => text.into_bytes(),
            }),
            Self::WordPiece { prefix } => Some(
                token
                    .strip_prefix(prefix)
                    .unwrap_or(token)
                    .as_bytes()
                    .to_vec(),
            ),
            Self::Words => Some(token.as_bytes().to_vec()),
            Self::Other => None,
        }
    }

    /// One SentencePiece token.
    pub(super) fn piece(&self, token: &str) -> Piece {
        let Self::Pieces {
            replace,
            byte_fallback,
            ..
        } = self
        else {
            return Piece::Text(token.to_owned());
        };
        let mut text = token.to_owned();
        for (from, to) in replace {
            text = text.replace(from, to);
        }
        match byte_token(&text) {
            Some(byte) if *byte_fallback => Piece::Byte(byte),
            _ => Piece::Text(text),
        }
    }
}

/// What a SentencePiece token stands for.
pub(super) enum Piece {
    /// One byte, perhaps of a longer character.
    Byte(u8),
    /// Whole characters.
    Text(String),
}

/// `<0xE2>` → 0xE2.
pub(super) fn byte_token(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (hex.len() == 2)
        .then(|| u8::from_str_radix(hex, 16).ok())
        .flatten()
}

fn metaspace(decoder: &Value) -> Option<Kind> {
    let mark = decoder["replacement"].as_str()?.chars().next()?;
    Some(Kind::Pieces {
        replace: vec![(mark.to_string(), " ".to_owned())],
        byte_fallback: false,
        start: match decoder["prepend_scheme"].as_str() {
            Some("never") => Start::Keep,
            _ => Start::DropFromFirst(mark),
        },
    })
}

/// `Replace`s, then perhaps `ByteFallback`, `Fuse` and a `Strip` of the start, in this order: Llama, Gemma and their kin.
fn pieces(steps: &[Value]) -> Option<Kind> {
    let mut replace = Vec::new();
    let mut byte_fallback = false;
    let mut fused = false;
    let mut start = Start::Keep;
    for step in steps {
        match step["type"].as_str()? {
            "Replace" if !byte_fallback && !fused => {
                let from = step["pattern"]["String"].as_str()?;
                if from.is_empty() {
                    return None;
                }
                replace.push((from.to_owned(), step["content"].as_str()?.to_owned()));
            }
            "ByteFallback" if !fused => byte_fallback = true,
            "Fuse" => fused = true,
            "Strip" if fused && step["stop"].as_u64() == Some(0) => {
                let content = step["content"].as_str()?.chars().next()?;
                start = Start::Strip(content, usize::try_from(step["start"].as_u64()?).ok()?);
            }
            _ => return None,
        }
    }
    Some(Kind::Pieces {
        replace,
        byte_fallback,
        start,
    })
}

/// A token in GPT-2's alphabet; one with any other character stands for itself, as in the crate's decoder.
fn byte_level(token: &str) -> Vec<u8> {
    token
        .chars()
        .map(byte_of)
        .collect::<Option<Vec<u8>>>()
        .unwrap_or_else(|| token.as_bytes().to_vec())
}

/// GPT-2's `bytes_to_unicode`, backwards: printable Latin-1 is itself, the other 68 bytes follow from U+0100 on.
fn byte_of(c: char) -> Option<u8> {
    let code = u32::from(c);
    let byte = match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => code,
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 0x7f,
        0x143 => 0xad,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::HashSet;

    #[test]
    fn the_byte_alphabet_has_every_byte_once() {
        let bytes: Vec<u8> = ('\0'..='\u{200}').filter_map(byte_of).collect();
        assert_eq!(bytes.len(), 256);
        assert_eq!(bytes.iter().collect::<HashSet<_>>().len(), 256);
        assert_eq!(byte_level("Ġthe"), b" the");
        assert_eq!(byte_level("Ċ"), b"\n");
        assert_eq!(byte_level("<｜x▁y｜>"), "<｜x▁y｜>".as_bytes());
    }

    #[test]
    fn decoders_are_told_apart() {
        let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
        let replace = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
        let of = |value: Value| Kind::of(Some(&value));
        assert_eq!(Kind::of(None), Kind::Words);
        assert_eq!(of(json!({"type": "ByteLevel"})), Kind::ByteLevel);
        assert_eq!(of(json!({"type": "CTC"})), Kind::Other);
        assert_eq!(
            of(json!({"type": "Sequence", "decoders": [{"type": "ByteLevel"}]})),
            Kind::ByteLevel
        );
        // Without `Fuse`, the strip works on every token: not understood here.
        assert_eq!(
            of(json!({"type": "Sequence", "decoders": [replace, strip]})),
            Kind::Other
        );
        let llama = of(json!({"type": "Sequence", "decoders":
            [replace, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]}));
        assert!(matches!(
            llama,
            Kind::Pieces {
                byte_fallback: true,
                start: Start::Strip(' ', 1),
                ..
            }
        ));
        assert_eq!(llama.bytes("▁a▁b"), Some(b" a b".to_vec()));
        assert_eq!(llama.bytes("<0x0a>"), Some(b"\n".to_vec()));
        assert_eq!(llama.bytes("<0x0>"), Some(b"<0x0>".to_vec()));
    }
}
