//! The vocabulary in GGUF metadata → a tokenizer of the `tokenizers` crate, by way of its `tokenizer.json` form.
//!
//! Two kinds are read: `gpt2` (byte-level BPE with its merges) and `llama` (SentencePiece: pieces with scores, from
//! which the merges follow).

use super::{Gguf, Value};
use crate::error::{Error, Result};
use crate::model::Tokenizer;
use crate::text::scrub;
use serde_json::{Map, Value as Json, json};
use std::collections::{HashMap, HashSet};

/// Longest piece whose merges are worked out; published vocabularies stay below 200 bytes.
const MAX_PIECE: usize = 256;
/// Most merges that are worked out; Gemma's 256,000 pieces have some 600,000.
const MAX_MERGES: usize = 1 << 22;

/// Kinds of tokens (`llama_token_type`).
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const BYTE: i64 = 6;

/// GPT-2's own splitting, as in the `tokenizers` crate's `ByteLevel`.
const GPT2_SPLIT: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Llama 3's splitting.
pub(super) const LLAMA3_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Mistral's splitting since Nemo: words by case, digits one by one.
const TEKKEN_SPLIT: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Phi 4's splitting: words by case with what is contracted, three digits at most.
const GPT4O_SPLIT: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// BLOOM's splitting: at white space and punctuation of several scripts.
const BLOOM_SPLIT: &str = " ?[^(\\s|.,!?\u{2026}\u{3002}\u{ff0c}\u{3001}\u{964}\u{6d4}\u{60c})]+";
/// Qwen 2's splitting: Llama 3's, with digits one by one.
pub(super) const QWEN2_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

pub(super) fn tokenizer(gguf: &Gguf, origin: &str) -> Result<Tokenizer> {
    let vocabulary = Vocabulary::read(gguf)?;
    let json = match gguf.text("tokenizer.ggml.model") {
        Some("gpt2") => byte_level(gguf, &vocabulary)?,
        Some("llama") => sentencepiece(gguf, &vocabulary)?,
        other => {
            return Err(refuse(
                gguf,
                format!(
                    "its tokenizer is of the kind \"{}\", which is not read",
                    scrub(other.unwrap_or("none"))
                ),
            ));
        }
    };
    Tokenizer::from_bytes(json.to_string().as_bytes(), origin)
}

/// Tokens by id, and what each is.
struct Vocabulary<'a> {
    tokens: &'a [String],
    kinds: Vec<i64>,
}

impl<'a> Vocabulary<'a> {
    fn read(gguf: &'a Gguf) -> Result<Self> {
        let Some(tokens) = gguf
            .texts("tokenizer.ggml.tokens")
            .filter(|t| !t.is_empty())
        else {
            return Err(refuse(gguf, "has no vocabulary".into()));
        };
        let mut kinds = match gguf.header.metadata.get("tokenizer.ggml.token_type") {
            Some(Value::Ints(kinds)) => kinds.clone(),
            _ => Vec::new(),
        };
        kinds.resize(tokens.len(), 1);
        Ok(Self { tokens, kinds })
    }

    /// Token → id; the first of equals.
    fn ids(&self) -> HashMap<&'a str, u32> {
        let mut ids = HashMap::new();
        for (id, token) in (0u32..).zip(self.tokens) {
            ids.entry(token.as_str()).or_insert(id);
        }
        ids
    }

    /// The same as JSON, in order of id.
    fn json(&self) -> Map<String, Json> {
        let mut map = Map::new();
        for (id, token) in (0u32..).zip(self.tokens) {
            map.entry(token.clone()).or_insert_with(|| id.into());
        }
        map
    }

    /// Control tokens and those a user defined, which are matched as a whole before anything else.
    fn added(&self) -> Vec<Json> {
        let mut seen = HashSet::new();
        (0u32..)
            .zip(self.tokens.iter().zip(&self.kinds))
            .filter(|(_, (token, kind))| {
                matches!(**kind, UNKNOWN | CONTROL | USER_DEFINED)
                    && !token.is_empty()
                    && seen.insert(token.as_str())
            })
            .map(|(id, (token, kind))| {
                json!({
                    "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": *kind != USER_DEFINED,
                })
            })
            .collect()
    }
}

/// Byte-level BPE: the tokens are spelled in GPT-2's alphabet and the merges are listed.
fn byte_level(gguf: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<Json> {
    let pre = gguf.text("tokenizer.ggml.pre").unwrap_or("default");
    let Some(split) = splitting(pre) else {
        return Err(refuse(
            gguf,
            format!("its pre-tokenizer \"{}\" is not known", scrub(pre)),
        ));
    };
    // Whole words of the vocabulary win over merges, and BOS comes first.
    let whole_words = is_llama3(pre) || pre == "tekken";
    let ids = vocabulary.ids();
    let merges: Vec<[&str; 2]> = gguf
        .texts("tokenizer.ggml.merges")
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .filter_map(|merge| {
            // A token may begin with a space, but never holds one later.
            let cut = merge.char_indices().skip(1).find(|(_, c)| *c == ' ')?.0;
            let (a, b) = (&merge[..cut], &merge[cut + 1..]);
            let known = ids.contains_key(a) && ids.contains_key(b);
            let joined = format!("{a}{b}");
            (known && ids.contains_key(joined.as_str())).then_some([a, b])
        })
        .collect();
    let mut steps: Vec<Json> = split
        .iter()
        .map(|regex| {
            json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
        })
        .collect();
    let whole = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    steps.push(whole.clone());
    Ok(json!({
        "version": "1.0",
        "added_tokens": vocabulary.added(),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": post_processor(gguf, vocabulary, whole_words, false),
        "decoder": whole,
        "model": {
            "type": "BPE", "fuse_unk": false, "byte_fallback": false, "ignore_merges": whole_words,
            "vocab": vocabulary.json(), "merges": merges,
        },
    }))
}

/// Llama 3 and what is tokenized like it.
fn is_llama3(pre: &str) -> bool {
    matches!(
        pre,
        "llama3"
            | "llama-v3"
            | "llama-bpe"
            | "falcon3"
            | "falcon-h1"
            | "pixtral"
            | "midm-2.0"
            | "lfm2"
    )
}

/// The regular expressions that cut a text before the merges, one after the other (`llama_vocab_pre_type`).
fn splitting(pre: &str) -> Option<Vec<&'static str>> {
    Some(match pre {
        pre if is_llama3(pre) => vec![LLAMA3_SPLIT],
        "dbrx" | "smaug-bpe" => vec![LLAMA3_SPLIT],
        "gpt-2" | "phi-2" | "mpt" | "olmo" | "jais" | "trillion" | "jina-es" | "jina-de"
        | "jina-v2-es" | "jina-v2-de" | "gigachat" | "a.x-4.0" | "mellum" | "exaone4" => {
            vec![GPT2_SPLIT]
        }
        "qwen2" | "stablelm2" | "deepseek-r1-qwen" | "megrez" => vec![QWEN2_SPLIT],
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b" => {
            vec![r"\p{N}", GPT2_SPLIT]
        }
        "tekken" => vec![TEKKEN_SPLIT],
        "gpt-4o" | "llama4" => vec![GPT4O_SPLIT],
        "bloom" => vec![BLOOM_SPLIT],
        "default" => vec![
            r"[\p{P}\$\+<=>\^~\|]+",
            GPT2_SPLIT,
            r"\p{N}+",
            "[0-9][0-9][0-9]",
        ],
        _ => return None,
    })
}

/// SentencePiece: merging by falling score, bytes where no piece fits.
fn sentencepiece(gguf: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<Json> {
    let scores = match gguf.header.metadata.get("tokenizer.ggml.scores") {
        Some(Value::Reals(scores)) if scores.len() == vocabulary.tokens.len() => scores,
        _ => {
            return Err(refuse(gguf, "has no score for each of its tokens".into()));
        }
    };
    let space = gguf.flag("tokenizer.ggml.add_space_prefix").unwrap_or(true);
    let unknown = gguf
        .token_id("unknown")
        .and_then(|id| vocabulary.tokens.get(id as usize));
    let mut normalizers = Vec::new();
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if space {
        normalizers.push(json!({"type": "Prepend", "prepend": "▁"}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    normalizers.push(json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}));
    Ok(json!({
        "version": "1.0",
        "added_tokens": vocabulary.added(),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "post_processor": post_processor(gguf, vocabulary, true, false),
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "unk_token": unknown, "fuse_unk": true, "byte_fallback": true,
            "vocab": vocabulary.json(), "merges": merges_by_score(vocabulary, scores),
        },
    }))
}

/// Every way to put a piece together from two others, the best-scored piece first: applying these merges in order is
/// what SentencePiece does when it joins the neighbours whose union scores highest.
fn merges_by_score<'a>(vocabulary: &Vocabulary<'a>, scores: &[f32]) -> Vec<[&'a str; 2]> {
    let ids = vocabulary.ids();
    let usable = |piece: &str| {
        ids.get(piece)
            .is_some_and(|&id| !matches!(vocabulary.kinds[id as usize], UNKNOWN | CONTROL | BYTE))
    };
    let mut merges = Vec::new();
    for (piece, &score) in vocabulary.tokens.iter().zip(scores) {
        if piece.len() > MAX_PIECE || !usable(piece) {
            continue;
        }
        for (cut, _) in piece.char_indices().skip(1) {
            let (a, b) = piece.split_at(cut);
            if usable(a) && usable(b) && merges.len() < MAX_MERGES {
                merges.push((score, ids[a], ids[b], [a, b]));
            }
        }
    }
    merges.sort_by(|x, y| y.0.total_cmp(&x.0).then((x.1, x.2).cmp(&(y.1, y.2))));
    merges.into_iter().map(|(.., pair)| pair).collect()
}

/// BOS before and EOS after a text, if the file (or else the kind's custom) says so.
fn post_processor(gguf: &Gguf, vocabulary: &Vocabulary<'_>, bos: bool, eos: bool) -> Json {
    let token = |name: &str, default: bool| {
        let wanted = gguf
            .flag(&format!("tokenizer.ggml.add_{name}_token"))
            .unwrap_or(default);
        let id = gguf.token_id(name).filter(|_| wanted)?;
        Some((id, vocabulary.tokens.get(id as usize)?))
    };
    let (before, after) = (token("bos", bos), token("eos", eos));
    if before.is_none() && after.is_none() {
        return Json::Null;
    }
    let special =
        |(_, token): &(u32, &String)| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let around = |ids: &[&str]| -> Vec<Json> {
        ids.iter()
            .flat_map(|id| {
                let parts = [
                    before.as_ref().map(special),
                    Some(sequence(id)),
                    after.as_ref().map(special),
                ];
                parts.into_iter().flatten()
            })
            .collect()
    };
    let specials: Map<String, Json> = before
        .iter()
        .chain(&after)
        .map(|(id, token)| {
            let about = json!({"id": token, "ids": [id], "tokens": [token]});
            ((*token).clone(), about)
        })
        .collect();
    json!({"type": "TemplateProcessing", "single": around(&["A"]), "pair": around(&["A", "B"]),
           "special_tokens": specials})
}

fn refuse(gguf: &Gguf, problem: String) -> Error {
    Error::file(
        gguf.path(),
        problem,
        "Use a file whose tokenizer is byte-level BPE or SentencePiece, or the safetensors of the model.",
    )
}
