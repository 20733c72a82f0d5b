//! The tokenizer: text to ids, ids to bytes, and a stream that never splits a character.
//!
//! Encoding is the `tokenizers` crate's; it may panic on a crafted file, so every call into it is contained. The bytes a
//! token stands for are worked out here, because the crate only decodes whole sequences to valid text.

mod kind;
mod stream;

pub use stream::TokenStream;

use super::guard::contained;
use crate::error::{Error, Result};
use crate::text::scrub;
use kind::Kind;
use std::borrow::Cow;
use std::collections::HashMap;

/// No published `tokenizer.json` comes near this size (the largest take some 35 MB).
const MAX_BYTES: usize = 128 << 20;

/// A Hugging Face tokenizer behind checks; cheap to share between threads in an `Arc`.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    kind: Kind,
    /// Tokens added beside the model's vocabulary, and whether they are special.
    added: HashMap<u32, bool>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("size", &self.size())
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// From the bytes of a `tokenizer.json`; `origin` names the source in errors.
    ///
    /// # Errors
    /// If the file is too large, is not a tokenizer, or is one that its reader cannot bear.
    pub fn from_bytes(bytes: &[u8], origin: &str) -> Result<Self> {
        let origin = scrub(origin);
        if bytes.len() > MAX_BYTES {
            return Err(Error::failed(
                format!(
                    "{origin}: the tokenizer has {} MB, more than the {} MB that are read",
                    bytes.len() >> 20,
                    MAX_BYTES >> 20
                ),
                "Fetch the model again.",
            ));
        }
        let inner = contained(|| tokenizers::Tokenizer::from_bytes(bytes))
            .map_err(|panic| unreadable(&origin, &panic))?
            .map_err(|e| unreadable(&origin, &e.to_string()))?;
        Self::from_inner(inner, &origin)
    }

    /// From a tokenizer that was put together by a loader.
    pub(super) fn from_inner(mut inner: tokenizers::Tokenizer, origin: &str) -> Result<Self> {
        let (kind, added) = contained(|| {
            // A prompt is read as it is: a file must not cut or pad it (nor ask for gigabytes of padding).
            inner.with_padding(None);
            if inner.with_truncation(None).is_err() {
                return None;
            }
            let decoder = inner.get_decoder().map(serde_json::to_value).transpose();
            let added = inner
                .get_added_tokens_decoder()
                .into_iter()
                .map(|(id, token)| (id, token.special))
                .collect();
            Some((Kind::of(decoder.ok()?.as_ref()), added))
        })
        .map_err(|panic| unreadable(origin, &panic))?
        .ok_or_else(|| unreadable(origin, "its decoder makes no sense"))?;
        let tokenizer = Self { inner, kind, added };
        if tokenizer.size() == 0 {
            return Err(unreadable(origin, "it has no tokens"));
        }
        Ok(tokenizer)
    }

    /// The `tokenizer.json` text of this tokenizer, as stored inside the GGUF files written here.
    ///
    /// # Errors
    /// If its crate cannot write what it read.
    pub fn to_json(&self) -> Result<String> {
        contained(|| self.inner.to_string(false))
            .unwrap_or_else(|panic| Err(panic.into()))
            .map_err(|e| {
                Error::failed(
                    format!("the tokenizer cannot be written: {}", scrub(&e.to_string())),
                    "Fetch its tokenizer.json again.",
                )
            })
    }

    /// Ids of `text`; `special` lets the post-processor add BOS and the like.
    ///
    /// # Errors
    /// If the tokenizer's own rules fail on this text.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        contained(|| self.inner.encode_fast(text, special))
            .unwrap_or_else(|panic| Err(panic.into()))
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|e| {
                Error::failed(
                    format!("the text cannot be tokenized: {}", scrub(&e.to_string())),
                    "Give another text, or fetch the model's tokenizer.json again.",
                )
            })
    }

    /// The text of a whole sequence, as the tokenizer's own decoder has it; incomplete characters become U+FFFD.
    ///
    /// # Errors
    /// If the tokenizer's own rules fail on these ids.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        contained(|| self.inner.decode(ids, skip_special))
            .unwrap_or_else(|panic| Err(panic.into()))
            .map_err(|e| {
                Error::failed(
                    format!("the tokens cannot be decoded: {}", scrub(&e.to_string())),
                    "Fetch the model's tokenizer.json again.",
                )
            })
    }

    /// The id of the token spelled `token` in the vocabulary, such as `<|endoftext|>`.
    #[must_use]
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The bytes that token `id` stands for; empty for ids that the tokenizer does not know.
    ///
    /// A leading space belongs to them where the vocabulary has it (byte-level BPE, SentencePiece). WordPiece spells no
    /// spaces: `##ing` is `ing`, and the space before a whole word is [`TokenStream`]'s business.
    #[must_use]
    pub fn bytes(&self, id: u32) -> Vec<u8> {
        let Some(token) = self.inner.id_to_token(id) else {
            return Vec::new();
        };
        match self.added.get(&id) {
            Some(true) => token.into_bytes(),
            Some(false) if self.kind == Kind::ByteLevel => token.into_bytes(),
            _ => self
                .kind
                .bytes(&token)
                .unwrap_or_else(|| self.decode(&[id], false).unwrap_or(token).into_bytes()),
        }
    }

    /// The token as it is shown in one cell: leading spaces as `·`, newlines `⏎`, tabs `⇥`, bytes that are no whole
    /// character `\xE2`, WordPiece's `##` as it is spelled; `#id` for an id that the tokenizer does not know.
    #[must_use]
    pub fn display(&self, id: u32) -> String {
        let Some(token) = self.inner.id_to_token(id) else {
            return format!("#{id}");
        };
        let bytes = match &self.kind {
            Kind::WordPiece { .. } => Cow::Owned(token.into_bytes()),
            _ => Cow::Owned(self.bytes(id)),
        };
        display_bytes(&bytes)
    }

    /// Whether `id` is a control token (BOS, end of turn, …) and no text.
    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        self.added.get(&id) == Some(&true)
    }

    /// Number of tokens known.
    #[must_use]
    pub fn size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}

fn unreadable(origin: &str, problem: &str) -> Error {
    Error::failed(
        format!("{origin}: the tokenizer cannot be read: {}", scrub(problem)),
        "Fetch the model again.",
    )
}

fn display_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    let mut leading = true;
    for chunk in bytes.utf8_chunks() {
        let mut plain = String::new();
        for c in chunk.valid().chars() {
            leading &= c == ' ';
            let shown = match c {
                ' ' if leading => '·',
                '\n' => '⏎',
                '\t' => '⇥',
                c => {
                    plain.push(c);
                    continue;
                }
            };
            out.push_str(&scrub(&plain));
            plain.clear();
            out.push(shown);
        }
        out.push_str(&scrub(&plain));
        for byte in chunk.invalid() {
            leading = false;
            out.push_str(&format!("\\x{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn read(path: &str) -> Option<Tokenizer> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(root.join(path)).ok()?;
        Some(Tokenizer::from_bytes(&bytes, path).unwrap())
    }

    fn fixture(family: &str) -> Tokenizer {
        read(&format!("tests/fixtures/{family}/tokenizer.json")).unwrap()
    }

    /// A SentencePiece-like tokenizer with byte fallback.
    pub(super) fn llama_like() -> Tokenizer {
        let mut vocab = serde_json::Map::new();
        for token in ["<unk>", "<s>", "</s>"] {
            vocab.insert(token.into(), vocab.len().into());
        }
        for byte in 0..=255u8 {
            vocab.insert(format!("<0x{byte:02X}>"), vocab.len().into());
        }
        for token in ["▁", "h", "i", "e", "▁h", "▁hi", "é", "\n"] {
            vocab.insert(token.into(), vocab.len().into());
        }
        let json = serde_json::json!({
            "version": "1.0",
            "added_tokens": [
                {"id": 1, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                 "normalized": false, "special": true}
            ],
            "padding": {"strategy": {"Fixed": 4_000_000_000u64}, "direction": "Right", "pad_to_multiple_of": null,
                        "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"},
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
                      "vocab": vocab, "merges": [["▁", "h"], ["▁h", "i"]]},
        });
        Tokenizer::from_bytes(json.to_string().as_bytes(), "llama-like").unwrap()
    }

    #[test]
    fn byte_level_tokens_are_their_bytes() {
        let tokenizer = fixture("gpt2");
        for text in ["Hello  world\n\t", "naïve 🦙", "\u{0}\u{7f}\u{a0}\u{ad}"] {
            let ids = tokenizer.encode(text, false).unwrap();
            let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.bytes(id)).collect();
            assert_eq!(bytes, text.as_bytes());
        }
        assert!(tokenizer.is_special(0));
        assert_eq!(tokenizer.bytes(0), b"<|bos|>");
        assert!(!tokenizer.is_special(10));
        assert_eq!(tokenizer.id("<|eos|>"), Some(1));
    }

    #[test]
    fn special_adds_what_the_post_processor_says() {
        let tokenizer = fixture("llama");
        assert_eq!(tokenizer.encode("a", true).unwrap()[0], 0);
        assert_eq!(
            tokenizer.encode("a", true).unwrap()[1..],
            tokenizer.encode("a", false).unwrap()
        );
    }

    #[test]
    fn sentencepiece_tokens_are_their_bytes() {
        let tokenizer = llama_like();
        let id = |token: &str| tokenizer.id(token).unwrap();
        assert_eq!(tokenizer.bytes(id("▁hi")), b" hi");
        assert_eq!(tokenizer.bytes(id("<0xE2>")), [0xe2]);
        assert_eq!(tokenizer.bytes(id("<s>")), b"<s>");
        assert_eq!(tokenizer.display(id("▁hi")), "·hi");
        assert_eq!(tokenizer.display(id("<0xE2>")), "\\xE2");
        assert_eq!(tokenizer.display(id("\n")), "⏎");
        assert_eq!(tokenizer.display(id("<0x09>")), "⇥");
        assert!(!tokenizer.display(id("<0x1B>")).contains('\u{1b}'));
    }

    #[test]
    fn padding_asked_for_by_the_file_is_refused() {
        assert_eq!(llama_like().encode("hi", false).unwrap().len(), 1);
    }

    #[test]
    fn ids_beyond_the_vocabulary_are_empty() {
        let tokenizer = fixture("gpt2");
        assert_eq!(tokenizer.bytes(u32::MAX), b"");
        assert_eq!(tokenizer.display(70_000), "#70000");
        assert_eq!(tokenizer.size(), 400);
    }

    #[test]
    fn wordpiece_drops_its_prefix_from_the_bytes_only() {
        let Some(bert) = read("../shared/data/tokenizers/bert-base-uncased/tokenizer.json") else {
            return;
        };
        let id = bert.id("##ing").unwrap();
        assert_eq!(bert.bytes(id), b"ing");
        assert_eq!(bert.display(id), "##ing");
        assert!(bert.is_special(bert.id("[MASK]").unwrap()));
    }

    #[test]
    fn display_shows_what_cannot_be_seen() {
        assert_eq!(display_bytes(b"  a b"), "··a b");
        assert_eq!(display_bytes(b"\n\n"), "⏎⏎");
        assert_eq!(display_bytes("é\u{fffd}".as_bytes()), "é\u{fffd}");
        assert_eq!(display_bytes(&[0xf0, 0x9f, b'a']), "\\xF0\\x9Fa");
        assert_eq!(display_bytes(b""), "");
    }

    #[test]
    fn damaged_files_are_errors_and_never_panics() {
        let bytes = std::fs::read(
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama/tokenizer.json"),
        )
        .unwrap();
        for cut in (0..bytes.len()).step_by(997) {
            assert!(Tokenizer::from_bytes(&bytes[..cut], "cut").is_err());
        }
        for at in (0..bytes.len()).step_by(211) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 7);
            if let Ok(tokenizer) = Tokenizer::from_bytes(&damaged, "damaged") {
                let _ = tokenizer.encode("Hello world, naïve", true);
                for id in 0..10 {
                    let _ = tokenizer.display(id);
                }
            }
        }
    }

    #[test]
    fn crafted_files_that_panic_the_crate_are_errors() {
        // The continuing prefix is longer than the merge's second part: the crate subtracts with overflow.
        let crafted = br##########"{"version":"1.0","added_tokens":[],"model":{"type":"BPE","continuing_subword_prefix":"########",
            "vocab":{"a":0,"b":1},"merges":[["a","b"]]}}"##########;
        let error = Tokenizer::from_bytes(crafted, "x\u{1b}[2J").unwrap_err();
        assert!(!error.to_string().contains('\u{1b}'));
        assert!(Tokenizer::from_bytes(b"{}", "empty").is_err());
        assert!(Tokenizer::from_bytes(b"[[[[", "brackets").is_err());
    }
}
