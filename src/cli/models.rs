//! `entroscope models`: what can be opened without a download, or what one model is.

use super::output::Output;
use super::run::load_model;
use super::{Context, table};
use crate::error::{Error, Result};
use crate::model::card::{self, ModelCard};
use crate::model::config::LayerKind;
use crate::model::demo::EMBEDDED;
use crate::model::memory::WORKING;
use crate::text;
use clap::Args as ClapArgs;
use indicatif::BinaryBytes;
use serde::Serialize;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Folders below `--dir` that are looked into.
const DEPTH: usize = 4;

/// Largest `config.json` that is read for the list.
const CONFIG_CAP: u64 = 4 << 20;

/// Arguments of `models`.
#[derive(ClapArgs, Clone, Debug, Default)]
pub struct Args {
    /// Describe this model instead of listing all
    #[arg(value_name = "M")]
    pub reference: Option<String>,
    /// Look for models in this folder too
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// One model that is there.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Found {
    /// What `--model` takes.
    reference: String,
    family: Option<String>,
    /// Of the weight files.
    bytes: Option<u64>,
    place: String,
}

/// Do it.
///
/// # Errors
/// If the model or the folder cannot be read.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let mut output = Output::new();
    match &args.reference {
        Some(reference) => {
            let model = load_model(reference, context)?;
            let card = model.card();
            if args.json {
                output.json(&card_json(card))?;
            } else {
                output.write(&describe(card))?;
            }
        }
        None => {
            let found = list(args.dir.as_deref())?;
            if args.json {
                output.json(&found)?;
            } else {
                output.write(&listing(&found))?;
            }
        }
    }
    output.flush()
}

fn list(dir: Option<&Path>) -> Result<Vec<Found>> {
    let mut found = vec![Found {
        reference: "demo".into(),
        family: Some("llama".into()),
        bytes: None,
        place: EMBEDDED.into(),
    }];
    if let Some(cache) = hub_cache() {
        found.extend(cached(&cache));
    }
    if let Some(dir) = dir {
        fs::read_dir(dir).map_err(|e| Error::read(dir, &e))?;
        let mut here = Vec::new();
        search(dir, DEPTH, &mut here);
        here.sort_by(|a, b| a.reference.cmp(&b.reference));
        found.extend(here);
    }
    Ok(found)
}

/// The folder of downloaded models, by the hub's own conventions.
fn hub_cache() -> Option<PathBuf> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    variable("HF_HUB_CACHE")
        .or_else(|| Some(variable("HF_HOME")?.join("hub")))
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("huggingface/hub")))
        .or_else(|| {
            let home = directories::BaseDirs::new()?.home_dir().to_path_buf();
            Some(home.join(".cache/huggingface/hub"))
        })
}

/// Models in a hub cache: `models--org--name/snapshots/COMMIT/`.
fn cached(cache: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    for entry in entries(cache) {
        let name = entry.file_name().map(OsStr::to_string_lossy);
        let Some(id) = name.as_deref().and_then(|n| n.strip_prefix("models--")) else {
            continue;
        };
        let newest = entries(&entry.join("snapshots"))
            .into_iter()
            .max_by_key(|snapshot| fs::metadata(snapshot).and_then(|m| m.modified()).ok());
        let Some(snapshot) = newest else { continue };
        let (folder, files) = weights(&snapshot);
        if folder == 0 && files.is_empty() {
            continue;
        }
        let gguf: u64 = files.iter().map(|file| size(file)).sum();
        found.push(Found {
            reference: text::scrub(&id.replacen("--", "/", 1)),
            family: family(&snapshot),
            bytes: Some(folder + gguf),
            place: text::path(&snapshot),
        });
    }
    found.sort_by(|a, b| a.reference.cmp(&b.reference));
    found
}

/// Model folders and `.gguf` files below `dir`.
fn search(dir: &Path, depth: usize, found: &mut Vec<Found>) {
    let (bytes, files) = weights(dir);
    if bytes > 0 && dir.join("config.json").is_file() {
        found.push(Found {
            reference: text::path(dir),
            family: family(dir),
            bytes: Some(bytes),
            place: "folder".into(),
        });
    }
    for file in files {
        found.push(Found {
            reference: text::path(&file),
            family: None,
            bytes: Some(size(&file)),
            place: "file".into(),
        });
    }
    if depth > 0 {
        for entry in entries(dir) {
            // A link may lead back up.
            if entry.is_dir() && !entry.is_symlink() {
                search(&entry, depth - 1, found);
            }
        }
    }
}

/// Bytes of the safetensors files in a folder, and its `.gguf` files.
fn weights(dir: &Path) -> (u64, Vec<PathBuf>) {
    let (mut bytes, mut gguf) = (0, Vec::new());
    for file in entries(dir) {
        match file.extension().and_then(OsStr::to_str) {
            Some("safetensors") => bytes += size(&file),
            Some("gguf") => gguf.push(file),
            _ => {}
        }
    }
    gguf.sort();
    (bytes, gguf)
}

fn family(dir: &Path) -> Option<String> {
    let mut source = String::new();
    fs::File::open(dir.join("config.json"))
        .ok()?
        .take(CONFIG_CAP)
        .read_to_string(&mut source)
        .ok()?;
    let config: Value = serde_json::from_str(&source).ok()?;
    Some(text::one_line(config.get("model_type")?.as_str()?))
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

fn size(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |data| data.len())
}

fn listing(found: &[Found]) -> String {
    let mut rows = vec![
        ["model", "family", "size", "where"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(found.iter().map(|model| {
        vec![
            model.reference.clone(),
            model.family.clone().unwrap_or_default(),
            model
                .bytes
                .map(|bytes| BinaryBytes(bytes).to_string())
                .unwrap_or_default(),
            model.place.clone(),
        ]
    }));
    table::aligned(&rows, &[0, 1, 3])
}

/// The card in words.
fn describe(card: &ModelCard) -> String {
    let facts = [
        ("name", card.name.clone()),
        ("source", card.source.clone()),
        ("family", card.family.clone()),
        ("blocks", card.layer_words()),
        ("states", format!("0 (embedding) to {}", card.blocks)),
        ("width", card.d_model.to_string()),
        ("attention", attention(card)),
        (
            "MLP width",
            match card.d_mlp {
                0 => "none".into(),
                width => width.to_string(),
            },
        ),
        ("vocabulary", format!("{} logits", card.vocab)),
        ("head", head(card)),
        (
            "context",
            match card.limit() {
                Some(tokens) => format!("{tokens} tokens"),
                None => "no limit but memory".into(),
            },
        ),
        ("parameters", grouped(card.parameters)),
        (
            "weights",
            format!("{}, {} stored", card.dtype, BinaryBytes(card.file_bytes)),
        ),
        (
            "memory",
            match card.token_bytes {
                0 => format!(
                    "{} of weights and {} to compute",
                    BinaryBytes(card.bytes),
                    BinaryBytes(WORKING)
                ),
                token => format!(
                    "{} of weights and {} to compute, up to {} more for each token of text",
                    BinaryBytes(card.bytes),
                    BinaryBytes(WORKING),
                    BinaryBytes(token)
                ),
            },
        ),
        ("device", card.device.clone()),
        (
            "generates",
            match card.causal {
                true => "yes".into(),
                false => format!("no (fills in {})", card.mask_text()),
            },
        ),
        (
            "chat template",
            if card.chat_template { "yes" } else { "no" }.into(),
        ),
        (
            "sha256",
            card.sha256.clone().unwrap_or_else(|| "not computed".into()),
        ),
    ];
    let lacking = unavailable(card).into_iter().map(|why| ("n/a", why));
    let rows: Vec<Vec<String>> = facts
        .into_iter()
        .chain(unread(card).map(|parts| ("left out", parts)))
        .chain(lacking)
        .map(|(name, fact)| vec![name.to_owned(), text::one_line(&fact)])
        .collect();
    table::aligned(&rows, &[0, 1])
}

fn attention(card: &ModelCard) -> String {
    match (card.heads, card.kv_heads) {
        _ if !card.attends() => "none".into(),
        (heads, shared) if heads == shared => format!("{heads} heads"),
        (heads, shared) => format!("{heads} heads, {shared} for keys and values"),
    }
}

fn head(card: &ModelCard) -> String {
    let mut head = match card.tied_head {
        true => "shares the embedding's weights".to_owned(),
        false => "has weights of its own".to_owned(),
    };
    if let Some(cap) = card.logit_cap {
        head.push_str(&format!(", logits squeezed into ±{cap}"));
    }
    head
}

/// Parts of the files that were not read.
fn unread(card: &ModelCard) -> Option<String> {
    let parts = card.unread.iter().map(|(part, count)| match count {
        1 => format!("{part}: 1 tensor"),
        _ => format!("{part}: {count} tensors"),
    });
    let parts: Vec<String> = parts.collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// What this model does not have, and why.
fn unavailable(card: &ModelCard) -> Vec<String> {
    let mut all = Vec::new();
    if !card.causal {
        all.push(
            "surprisal and rank of the next token: it sees both sides of a token and predicts no next one"
                .to_owned(),
        );
    }
    if !card.attends() {
        all.push("attention: no layer has any".to_owned());
    } else {
        for kind in [LayerKind::StateSpace, LayerKind::Convolution] {
            if card.layers.contains(&kind) {
                all.push(format!(
                    "attention of {} layers: they have none",
                    kind.name()
                ));
            }
        }
    }
    if card.layers.contains(&LayerKind::Skipped) {
        all.push(
            "images: only text is read, and its cross-attention to images passes the state on unchanged"
                .to_owned(),
        );
    }
    all
}

fn card_json(card: &ModelCard) -> Value {
    let layers: Vec<String> = card.layers.iter().map(|k| card::kind(*k)).collect();
    let unread: Vec<Value> = card
        .unread
        .iter()
        .map(|(part, tensors)| serde_json::json!({"part": part, "tensors": tensors}))
        .collect();
    serde_json::json!({
        "name": card.name, "source": card.source, "family": card.family, "blocks": card.blocks,
        "layers": layers, "d_model": card.d_model, "heads": card.heads, "kv_heads": card.kv_heads,
        "d_mlp": card.d_mlp, "vocab": card.vocab, "context": card.limit(), "dtype": card.dtype,
        "device": card.device, "parameters": card.parameters, "file_bytes": card.file_bytes, "bytes": card.bytes,
        "token_bytes": card.token_bytes, "causal": card.causal,
        "mask": card.mask.as_ref().map(|mask| serde_json::json!({"id": mask.id, "text": mask.text})),
        "tied_head": card.tied_head, "logit_cap": card.logit_cap, "chat_template": card.chat_template,
        "unread": unread, "unavailable": unavailable(card), "sha256": card.sha256,
    })
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mask;

    #[test]
    fn models_are_found_where_they_are_kept() {
        let root = tempfile::tempdir().unwrap();
        let snapshot = root.path().join("models--org--some--name/snapshots/abc");
        fs::create_dir_all(&snapshot).unwrap();
        fs::write(
            snapshot.join("config.json"),
            r#"{"model_type": "gpt2\u001b"}"#,
        )
        .unwrap();
        fs::write(snapshot.join("model.safetensors"), [0; 10]).unwrap();
        fs::create_dir_all(root.path().join("models--org--empty/snapshots/abc")).unwrap();
        fs::write(snapshot.join("x.gguf"), [0; 5]).unwrap();
        let found = cached(root.path());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].reference, "org/some--name");
        assert_eq!(found[0].family.as_deref(), Some("gpt2\\x1B"));
        assert_eq!(found[0].bytes, Some(15));

        let mut below = Vec::new();
        search(root.path(), DEPTH, &mut below);
        assert_eq!(below.len(), 2);
        assert_eq!(below[0].place, "folder");
        assert!(below[1].reference.ends_with("x.gguf"));
        assert_eq!(cached(Path::new("/nonexistent")), []);
    }

    fn line<'a>(card: &'a str, name: &str) -> &'a str {
        card.lines()
            .find_map(|line| line.strip_prefix(name))
            .map_or("", str::trim)
    }

    #[test]
    fn what_a_model_lacks_is_said() {
        let mamba = ModelCard {
            blocks: 2,
            layers: vec![LayerKind::StateSpace; 2],
            context: 1 << 24,
            causal: true,
            ..ModelCard::default()
        };
        let text = describe(&mamba);
        assert_eq!(line(&text, "blocks"), "2 layers: state space");
        assert_eq!(line(&text, "attention"), "none");
        assert_eq!(line(&text, "context"), "no limit but memory");
        assert_eq!(line(&text, "MLP width"), "none");
        assert_eq!(line(&text, "generates"), "yes");
        assert_eq!(line(&text, "n/a"), "attention: no layer has any");
        assert!(!text.contains("16777216"), "{text}");
        assert!(card_json(&mamba)["context"].is_null());
    }

    #[test]
    fn a_masked_model_fills_and_an_image_tower_is_left_out() {
        let card = ModelCard {
            layers: vec![LayerKind::Attention, LayerKind::Skipped],
            heads: 8,
            kv_heads: 2,
            context: 512,
            logit_cap: Some(30.0),
            tied_head: true,
            unread: vec![("image tower".into(), 345), ("pooler".into(), 1)],
            token_bytes: 2048,
            mask: Some(Mask {
                id: 103,
                text: "[MASK]".into(),
            }),
            ..ModelCard::default()
        };
        let text = describe(&card);
        assert_eq!(line(&text, "generates"), "no (fills in [MASK])");
        assert_eq!(line(&text, "attention"), "8 heads, 2 for keys and values");
        assert_eq!(line(&text, "context"), "512 tokens");
        assert!(line(&text, "head").ends_with("squeezed into ±30"), "{text}");
        assert!(line(&text, "memory").contains("2.00 KiB more"), "{text}");
        let left = "image tower: 345 tensors; pooler: 1 tensor";
        assert_eq!(line(&text, "left out"), left);
        assert!(
            text.contains("surprisal") && text.contains("images"),
            "{text}"
        );
        assert_eq!(card_json(&card)["unread"][0]["tensors"], 345);
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(5_460_000), "5,460,000");
    }
}
