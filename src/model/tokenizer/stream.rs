//! Token by token to text, without ever splitting a character.

use super::Tokenizer;
use super::kind::{Kind, Piece, Start};
use crate::model::guard::contained;
use std::sync::Arc;
use tokenizers::Decoder;

/// Longest run of tokens an unknown decoder may hold back before what it says is taken as it is.
const MAX_HELD: usize = 16;

/// A streaming detokeniser: what [`TokenStream::push`] and [`TokenStream::finish`] return, put together, is the
/// tokenizer's own decoding of the whole sequence.
///
/// The one difference: a run of `<0xNN>` tokens that begins with whole characters and ends in a broken one keeps the
/// whole ones, where the crate gives up on the run. A clone continues on its own: fork and rewind a branch by cloning.
#[derive(Clone, Debug)]
pub struct TokenStream {
    tokenizer: Arc<Tokenizer>,
    skip_special: bool,
    first: bool,
    /// Characters still to be stripped from the start of the text.
    strip: usize,
    /// Bytes of a character that is not complete yet.
    bytes: Vec<u8>,
    /// For decoders only the crate knows: tokens since the last certain text, those before `shown` already returned.
    held: Vec<u32>,
    shown: usize,
}

impl TokenStream {
    /// A stream at the start of a text; `skip_special` leaves control tokens out.
    #[must_use]
    pub fn new(tokenizer: Arc<Tokenizer>, skip_special: bool) -> Self {
        let strip = match &tokenizer.kind {
            Kind::Pieces {
                start: Start::Strip(_, n),
                ..
            } => *n,
            _ => 0,
        };
        Self {
            tokenizer,
            skip_special,
            first: true,
            strip,
            bytes: Vec::new(),
            held: Vec::new(),
            shown: 0,
        }
    }

    /// The text that became certain with this token: whole characters only, often one word, sometimes nothing. Bytes
    /// that can no longer become a character are U+FFFD.
    pub fn push(&mut self, id: u32) -> String {
        if self.skip_special && self.tokenizer.is_special(id) {
            return String::new();
        }
        let tokenizer = Arc::clone(&self.tokenizer);
        let Some(token) = tokenizer.inner.id_to_token(id) else {
            return String::new();
        };
        let first = std::mem::take(&mut self.first);
        match &tokenizer.kind {
            Kind::ByteLevel => {
                self.bytes.extend_from_slice(&tokenizer.bytes(id));
                take_complete(&mut self.bytes, Broken::Once)
            }
            Kind::Pieces { start, .. } => self.push_piece(&tokenizer.kind, start, &token, first),
            Kind::WordPiece { .. } => word_piece(&tokenizer, token, first),
            Kind::Words if first => token,
            Kind::Words => format!(" {token}"),
            Kind::Other => self.push_other(id),
        }
    }

    /// What is left at the end of the text: U+FFFD for a character that never became complete, mostly nothing.
    pub fn finish(&mut self) -> String {
        let bytes = std::mem::take(&mut self.bytes);
        match &self.tokenizer.kind {
            Kind::Other => self.rest_of_held(),
            Kind::Pieces { .. } => "\u{fffd}".repeat(bytes.len()),
            _ => String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    fn push_piece(&mut self, kind: &Kind, start: &Start, token: &str, first: bool) -> String {
        let dropped: String;
        let token = match start {
            Start::DropFromFirst(mark) if first => {
                dropped = token.chars().filter(|c| c != mark).collect();
                &dropped
            }
            _ => token,
        };
        let mut text = match kind.piece(token) {
            Piece::Byte(byte) => {
                self.bytes.push(byte);
                take_complete(&mut self.bytes, Broken::EachByte)
            }
            Piece::Text(text) => {
                let broken = std::mem::take(&mut self.bytes);
                "\u{fffd}".repeat(broken.len()) + &text
            }
        };
        if let Start::Strip(content, _) = start {
            while self.strip > 0 && !text.is_empty() {
                if text.starts_with(*content) {
                    text.remove(0);
                    self.strip -= 1;
                } else {
                    self.strip = 0;
                }
            }
        }
        text
    }

    /// Decode the held tokens with the crate and return what is new; what it says before `shown` is context.
    fn push_other(&mut self, id: u32) -> String {
        self.held.push(id);
        let waits = self.held.len() - self.shown < MAX_HELD;
        let Ok(all) = self.tokenizer.decode(&self.held, false) else {
            return String::new();
        };
        if waits && all.ends_with('\u{fffd}') {
            return String::new();
        }
        let text = self.rest_of_held();
        // The next token is decoded in the context of those whose text has just been returned.
        self.held.drain(..self.shown);
        self.shown = self.held.len();
        text
    }

    fn rest_of_held(&self) -> String {
        let before = self.tokenizer.decode(&self.held[..self.shown], false);
        let all = self.tokenizer.decode(&self.held, false);
        match (before, all) {
            (Ok(before), Ok(all)) => all.strip_prefix(&before).unwrap_or_default().to_owned(),
            _ => String::new(),
        }
    }
}

/// WordPiece's spacing depends only on whether a token is the first: let the crate decode it as the first or second.
fn word_piece(tokenizer: &Tokenizer, token: String, first: bool) -> String {
    let Some(decoder) = tokenizer.inner.get_decoder() else {
        return token;
    };
    let tokens = if first {
        vec![token.clone()]
    } else {
        vec![String::new(), token.clone()]
    };
    match contained(|| decoder.decode_chain(tokens)) {
        Ok(Ok(mut texts)) => texts.pop().unwrap_or(token),
        _ => token,
    }
}

/// How bytes that are no character are told.
#[derive(Clone, Copy, PartialEq)]
enum Broken {
    /// One U+FFFD for a truncated character, as `String::from_utf8_lossy` (and the byte-level decoder) has it.
    Once,
    /// One U+FFFD for each byte, as the byte-fallback decoder has it.
    EachByte,
}

/// Take everything from `bytes` but a last character that may still become complete.
fn take_complete(bytes: &mut Vec<u8>, broken: Broken) -> String {
    let mut text = String::new();
    let mut start = 0;
    loop {
        match std::str::from_utf8(&bytes[start..]) {
            Ok(valid) => {
                text.push_str(valid);
                start = bytes.len();
                break;
            }
            Err(error) => {
                let end = start + error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&bytes[start..end]));
                start = end;
                let Some(len) = error.error_len() else {
                    break;
                };
                text.push_str(&"\u{fffd}".repeat(if broken == Broken::Once { 1 } else { len }));
                start += len;
            }
        }
    }
    bytes.drain(..start);
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::llama_like;
    use super::*;
    use proptest::prelude::*;
    use std::path::PathBuf;

    fn stream(tokenizer: &Arc<Tokenizer>, ids: &[u32], skip_special: bool) -> String {
        let mut stream = TokenStream::new(Arc::clone(tokenizer), skip_special);
        let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
        text.push_str(&stream.finish());
        text
    }

    fn read(path: &str) -> Option<Arc<Tokenizer>> {
        let bytes = std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)).ok()?;
        Some(Arc::new(Tokenizer::from_bytes(&bytes, path).unwrap()))
    }

    fn with_decoder(decoder: serde_json::Value) -> Arc<Tokenizer> {
        let json = serde_json::json!({"version": "1.0", "added_tokens": [], "decoder": decoder,
            "model": {"type": "WordLevel", "unk_token": "a</w>", "vocab":
                {"a</w>": 0, "b": 1, "▁c": 2, "▁": 3, "d▁e": 4, "é": 5}}});
        Arc::new(Tokenizer::from_bytes(json.to_string().as_bytes(), "x").unwrap())
    }

    #[test]
    fn a_character_waits_for_its_last_byte() {
        let tokenizer = Arc::new(llama_like());
        let byte = |b: u8| tokenizer.id(&format!("<0x{b:02X}>")).unwrap();
        let mut stream = TokenStream::new(Arc::clone(&tokenizer), false);
        assert_eq!(stream.push(byte(0xf0)), "");
        assert_eq!(stream.push(byte(0x9f)), "");
        assert_eq!(stream.push(byte(0xa6)), "");
        assert_eq!(stream.push(byte(0x99)), "🦙");
        assert_eq!(stream.push(byte(0xe2)), "");
        let mut fork = stream.clone();
        assert_eq!(stream.push(tokenizer.id("h").unwrap()), "\u{fffd}h");
        assert_eq!(fork.finish(), "\u{fffd}");
        assert_eq!(fork.finish(), "");
    }

    #[test]
    fn special_tokens_can_be_left_out() {
        let tokenizer = Arc::new(llama_like());
        let hi = tokenizer.id("▁hi").unwrap();
        assert_eq!(stream(&tokenizer, &[1, hi, hi], true), "hi hi");
        assert_eq!(
            stream(&tokenizer, &[1, hi], false),
            tokenizer.decode(&[1, hi], false).unwrap()
        );
    }

    #[test]
    fn unusual_decoders_agree_with_the_crate() {
        for decoder in [
            serde_json::Value::Null,
            serde_json::json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}),
            serde_json::json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": true}),
            serde_json::json!({"type": "Fuse"}),
        ] {
            let tokenizer = with_decoder(decoder);
            for ids in [
                vec![0, 1, 2, 3, 4, 5],
                vec![2, 4, 0],
                vec![3, 3, 2],
                vec![99, 1],
            ] {
                assert_eq!(
                    stream(&tokenizer, &ids, false),
                    tokenizer.decode(&ids, false).unwrap()
                );
            }
        }
    }

    #[test]
    fn wordpiece_agrees_with_the_crate() {
        let Some(bert) = read("../shared/data/tokenizers/bert-base-uncased/tokenizer.json") else {
            return;
        };
        let ids = bert
            .encode("It wasn't unbelievably hard, was it? (no!)", true)
            .unwrap();
        for skip in [true, false] {
            assert_eq!(stream(&bert, &ids, skip), bert.decode(&ids, skip).unwrap());
        }
    }

    proptest! {
        #[test]
        fn byte_level_streams_equal_the_whole_decoding(ids in prop::collection::vec(0u32..420, 0..60), skip: bool) {
            let tokenizer = read("tests/fixtures/gpt2/tokenizer.json").unwrap();
            prop_assert_eq!(stream(&tokenizer, &ids, skip), tokenizer.decode(&ids, skip).unwrap());
        }

        #[test]
        fn texts_come_back_through_both_kinds(text in "\\PC{0,40}", spaced in "[ hié\n]{0,20}") {
            let gpt2 = read("tests/fixtures/llama/tokenizer.json").unwrap();
            let llama = Arc::new(llama_like());
            for text in [&text, &spaced] {
                let ids = gpt2.encode(text, false).unwrap();
                prop_assert_eq!(&stream(&gpt2, &ids, true), text);
                let ids = llama.encode(text, false).unwrap();
                prop_assert_eq!(stream(&llama, &ids, false), llama.decode(&ids, false).unwrap());
                prop_assert_eq!(&stream(&llama, &ids, false), text);
            }
        }

        #[test]
        fn nothing_is_taken_back(ids in prop::collection::vec(0u32..300, 0..40)) {
            // Whatever the ids, a longer sequence only ever adds text, and no text holds a split character.
            let tokenizer = Arc::new(llama_like());
            let mut stream = TokenStream::new(Arc::clone(&tokenizer), false);
            for id in ids {
                let text = stream.push(id);
                prop_assert!(stream.bytes.len() < 4);
                prop_assert!(text.chars().count() <= 8);
            }
        }
    }
}
