//! `entroscope models`: what can be opened without a download, or what one model is.

use super::output::Output;
use super::run::load_model;
use super::{Context, table};
use crate::error::{Error, Result};
use crate::model::ModelCard;
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
                output.line(&json(&card_json(card))?)?;
            } else {
                output.write(&describe(card))?;
            }
        }
        None => {
            let found = list(args.dir.as_deref())?;
            if args.json {
                output.line(&json(&serde_json::to_value(&found).unwrap_or_default())?)?;
            } else {
                output.write(&listing(&found))?;
            }
        }
    }
    output.flush()
}

fn json(value: &Value) -> Result<String> {
    serde_json::to_string_pretty(value)
        .map_err(|e| Error::failed(format!("the list is no JSON: {e}"), "This is a bug."))
}

fn list(dir: Option<&Path>) -> Result<Vec<Found>> {
    let mut found = vec![Found {
        reference: "demo".into(),
        family: Some("llama".into()),
        bytes: None,
        place: "embedded".into(),
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
    let yes = |holds: bool| if holds { "yes" } else { "no" };
    let attention = if card.kv_heads == card.heads {
        format!("{} heads", card.heads)
    } else {
        format!(
            "{} heads, {} for keys and values",
            card.heads, card.kv_heads
        )
    };
    let facts = [
        ("name", card.name.clone()),
        ("source", card.source.clone()),
        ("family", card.family.clone()),
        (
            "blocks",
            format!("{} (states 0 to {})", card.blocks, card.blocks),
        ),
        ("width", card.d_model.to_string()),
        ("attention", attention),
        ("MLP width", card.d_mlp.to_string()),
        ("vocabulary", format!("{} logits", card.vocab)),
        (
            "head",
            if card.tied_head {
                "shares the embedding's weights".into()
            } else {
                "has weights of its own".into()
            },
        ),
        ("context", format!("{} tokens", card.context)),
        ("parameters", grouped(card.parameters)),
        ("weights", card.dtype.clone()),
        ("memory", BinaryBytes(card.bytes).to_string()),
        ("device", card.device.clone()),
        ("generates", yes(card.causal).into()),
        ("chat template", yes(card.chat_template).into()),
        (
            "sha256",
            card.sha256.clone().unwrap_or_else(|| "not computed".into()),
        ),
    ];
    let rows: Vec<Vec<String>> = facts
        .into_iter()
        .map(|(name, fact)| vec![name.to_owned(), text::one_line(&fact)])
        .collect();
    table::aligned(&rows, &[0, 1])
}

fn card_json(card: &ModelCard) -> Value {
    serde_json::json!({
        "name": card.name, "source": card.source, "family": card.family, "blocks": card.blocks,
        "d_model": card.d_model, "heads": card.heads, "kv_heads": card.kv_heads, "d_mlp": card.d_mlp,
        "vocab": card.vocab, "context": card.context, "dtype": card.dtype, "device": card.device,
        "parameters": card.parameters, "bytes": card.bytes, "causal": card.causal, "tied_head": card.tied_head,
        "chat_template": card.chat_template, "sha256": card.sha256,
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

    #[test]
    fn digits_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(5_460_000), "5,460,000");
    }
}
