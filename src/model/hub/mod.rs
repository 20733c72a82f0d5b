//! Models from a Hugging Face hub, kept in the cache folder that Python's `huggingface_hub` uses too.
//!
//! ```text
//! models--org--name/refs/main                  the commit a branch or tag last stood for
//!                  /blobs/<sha256 or git oid>  the files
//!                  /snapshots/<commit>/<file>  links to them, one folder a commit
//! ```
//! Listing and streaming are the `hf-hub` crate's. The cache is filled here: a file is checked for its announced length
//! and, where the hub tells it, its SHA-256, before it gets its name; what a server says never becomes a path unchecked.
//! With `HF_HUB_OFFLINE=1`, without network and in builds without the feature `hub`, only the cache is used.

#[cfg(feature = "hub")]
mod fetch;

use super::safetensors::{is_plain_name, read_capped};
use crate::error::{Error, Result};
use crate::text::scrub;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub(super) const INDEX: &str = "model.safetensors.index.json";
pub(super) const SINGLE: &str = "model.safetensors";
/// Largest shard index that is read.
const MAX_INDEX: u64 = 64 << 20;

/// A hub and a cache folder.
#[derive(Clone, Debug)]
pub struct Hub {
    /// Such as `https://huggingface.co`; `None` for `HF_ENDPOINT` or the default.
    pub endpoint: Option<String>,
    /// An access token; `None` for `HF_TOKEN`, `HF_TOKEN_PATH` or the file that `hf auth login` wrote.
    pub token: Option<String>,
    /// The cache folder.
    pub cache: PathBuf,
    /// Whether only the cache may be used.
    pub offline: bool,
    /// How often a request is repeated when the hub cannot be reached.
    pub retries: usize,
}

impl Hub {
    /// As the environment says: `HF_HUB_CACHE`, `HF_HOME`, `HF_HUB_OFFLINE`, and what the fields of [`Hub`] name.
    ///
    /// # Errors
    /// If there is no home folder to keep a cache in.
    pub fn from_env() -> Result<Self> {
        Self::from_vars(|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
    }

    fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let home = || {
            var("HF_HOME").map(PathBuf::from).or_else(|| {
                let cache = var("XDG_CACHE_HOME").map(PathBuf::from);
                let cache = cache.or_else(|| {
                    Some(PathBuf::from(var("HOME").or_else(|| var("USERPROFILE"))?).join(".cache"))
                });
                Some(cache?.join("huggingface"))
            })
        };
        let cache = var("HF_HUB_CACHE")
            .or_else(|| var("HUGGINGFACE_HUB_CACHE"))
            .map(PathBuf::from)
            .or_else(|| Some(home()?.join("hub")))
            .ok_or_else(|| {
                Error::failed(
                    "there is no folder to keep downloaded models in",
                    "Set HF_HOME to a folder.",
                )
            })?;
        let yes = |name: &str| {
            var(name)
                .is_some_and(|v| matches!(v.to_lowercase().as_str(), "1" | "on" | "yes" | "true"))
        };
        Ok(Self {
            endpoint: None,
            token: None,
            cache,
            offline: yes("HF_HUB_OFFLINE") || yes("TRANSFORMERS_OFFLINE"),
            retries: 3,
        })
    }

    /// Fetch a model and return its folder in the cache: configuration, tokenizer and safetensors, or just the GGUF file
    /// called `file`. What is in the cache already is not fetched again.
    ///
    /// `progress` hears the file, its bytes so far and in all; a download ends soon after `cancelled` says so.
    ///
    /// # Errors
    /// If the id makes no sense, the hub has no such model or gives no access to it, it cannot be reached and the cache
    /// has no copy, or what came is damaged; [`Error::Interrupted`] if cancelled.
    pub fn fetch(
        &self,
        repo: &str,
        revision: Option<&str>,
        file: Option<&str>,
        progress: &mut dyn FnMut(&str, u64, Option<u64>),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<PathBuf> {
        check_id(repo, revision)?;
        if file.is_some_and(|file| !is_plain_name(file)) {
            return Err(Error::Usage(
                "the file of a hub model must be a plain file name".into(),
            ));
        }
        let revision = revision.unwrap_or("main");
        if self.offline {
            return self.cached(repo, revision, file).ok_or_else(|| {
                Error::failed(
                    format!("{repo}@{revision} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it"),
                    format!(
                        "Fetch it once without HF_HUB_OFFLINE, or copy it into {}.",
                        crate::text::path(&self.cache)
                    ),
                )
            });
        }
        self.online(repo, revision, file, progress, cancelled)
    }

    #[cfg(feature = "hub")]
    fn online(
        &self,
        repo: &str,
        revision: &str,
        file: Option<&str>,
        progress: &mut dyn FnMut(&str, u64, Option<u64>),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<PathBuf> {
        match fetch::fetch(self, repo, revision, file, progress, cancelled) {
            Err(fetch::Trouble::Unreachable(error)) => match self.cached(repo, revision, file) {
                Some(folder) => {
                    tracing::warn!("{error}; using the copy in {}", folder.display());
                    Ok(folder)
                }
                None => Err(error),
            },
            Err(fetch::Trouble::Other(error)) => Err(error),
            Ok(folder) => Ok(folder),
        }
    }

    #[cfg(not(feature = "hub"))]
    fn online(
        &self,
        repo: &str,
        revision: &str,
        file: Option<&str>,
        _progress: &mut dyn FnMut(&str, u64, Option<u64>),
        _cancelled: &dyn Fn() -> bool,
    ) -> Result<PathBuf> {
        self.cached(repo, revision, file).ok_or_else(|| {
            Error::failed(
                format!("{repo} would have to be fetched, and this build has no hub support"),
                "Fetch it with `hf download`, or build with `--features hub`.",
            )
        })
    }

    /// The folder of a repository in the cache.
    fn repo_folder(&self, repo: &str) -> PathBuf {
        self.cache
            .join(format!("models--{}", repo.replace('/', "--")))
    }

    /// A complete copy in the cache.
    fn cached(&self, repo: &str, revision: &str, file: Option<&str>) -> Option<PathBuf> {
        let folder = self.repo_folder(repo);
        let commit = if is_commit(revision) {
            revision.to_owned()
        } else {
            let named = read_capped(&folder.join("refs").join(revision), 1 << 10).ok()?;
            String::from_utf8(named).ok()?.trim().to_owned()
        };
        let snapshot = folder.join("snapshots").join(&commit);
        (is_commit(&commit) && is_complete(&snapshot, file)).then_some(snapshot)
    }
}

/// Check the form of a hub id and revision.
///
/// # Errors
/// [`Error::Usage`] saying what they look like.
pub fn check_id(repo: &str, revision: Option<&str>) -> Result<()> {
    let part = |part: &str| {
        !part.is_empty()
            && part.len() <= 96
            && part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !part.contains("..")
            && !part.contains("--")
            && !part.ends_with(['.', '-'])
    };
    let valid = repo
        .split_once('/')
        .is_some_and(|(org, name)| part(org) && part(name));
    if !valid {
        return Err(Error::Usage(format!(
            "{} is no hub id: it has the form org/name, of letters, digits, and single - _ . between them",
            scrub(repo)
        )));
    }
    let plain = |revision: &str| {
        revision.len() <= 128
            && revision.split('/').all(|part| {
                !part.is_empty()
                    && !part.starts_with('.')
                    && part
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c))
            })
    };
    match revision {
        Some(revision) if !plain(revision) => Err(Error::Usage(format!(
            "\"{}\" is no revision: after the @ goes a branch, a tag or a commit",
            scrub(revision)
        ))),
        _ => Ok(()),
    }
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether a snapshot has all that a model needs.
fn is_complete(snapshot: &Path, file: Option<&str>) -> bool {
    let has = |name: &str| snapshot.join(name).is_file();
    match file {
        Some(file) => has(file),
        None if !has("config.json") || !has("tokenizer.json") => false,
        None if has(SINGLE) => true,
        None => shards(&snapshot.join(INDEX)).is_ok_and(|shards| shards.iter().all(|s| has(s))),
    }
}

/// The shards that an index names.
fn shards(index: &Path) -> Result<BTreeSet<String>> {
    let wrong = |problem: &str| {
        Error::file(
            index,
            problem,
            "The model is damaged on the hub; use another one.",
        )
    };
    let parsed: Value = serde_json::from_slice(&read_capped(index, MAX_INDEX)?)
        .map_err(|_| wrong("is no shard index"))?;
    let map = parsed["weight_map"]
        .as_object()
        .ok_or_else(|| wrong("is no shard index"))?;
    map.values()
        .map(|name| match name.as_str() {
            Some(name) if is_plain_name(name) => Ok(name.to_owned()),
            _ => Err(wrong("names a shard that is not a plain file name")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_form() {
        for good in ["org/name", "a/b", "Qwen/Qwen2.5-0.5B", "a_b/c.d"] {
            check_id(good, None).unwrap();
        }
        for bad in [
            "", "a", "a/b/c", "a/", "/b", "../b", "a/..", "a/b--c", "a/.b", "a/b.", "a b/c", "ä/b",
            "a/b\n",
        ] {
            assert_eq!(check_id(bad, None).unwrap_err().exit_code(), 2, "{bad}");
        }
        for good in [
            "main",
            "v1.0",
            "refs/pr/3",
            "0123456789abcdef0123456789abcdef01234567",
        ] {
            check_id("a/b", Some(good)).unwrap();
        }
        for bad in [
            "", "/", "a//b", "..", "a/../b", ".a", "a b", "a\\b", "a?b", "a#b", "%2e",
        ] {
            assert!(check_id("a/b", Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_environment_decides_the_folder() {
        let cache = |vars: &[(&str, &str)]| {
            let vars: Vec<(String, String)> = vars
                .iter()
                .map(|(a, b)| ((*a).into(), (*b).into()))
                .collect();
            let hub =
                Hub::from_vars(|name| vars.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()))
                    .unwrap();
            (hub.cache.to_string_lossy().into_owned(), hub.offline)
        };
        assert_eq!(cache(&[("HOME", "/h")]).0, "/h/.cache/huggingface/hub");
        assert_eq!(
            cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]).0,
            "/x/huggingface/hub"
        );
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "/hf")]).0, "/hf/hub");
        assert_eq!(cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")]).0, "/c");
        assert!(cache(&[("HOME", "/h"), ("HF_HUB_OFFLINE", "1")]).1);
        assert!(!cache(&[("HOME", "/h"), ("HF_HUB_OFFLINE", "0")]).1);
        assert!(Hub::from_vars(|_| None).is_err());
    }

    #[test]
    fn a_cache_filled_by_others_is_used_offline() {
        let folder = tempfile::tempdir().unwrap();
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let repo = folder.path().join("models--org--name");
        let snapshot = repo.join("snapshots").join(commit);
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(repo.join("refs")).unwrap();
        std::fs::write(repo.join("refs/main"), commit).unwrap();
        let hub = Hub {
            endpoint: Some("http://127.0.0.1:9".into()),
            token: Some("x".into()),
            cache: folder.path().to_path_buf(),
            offline: true,
            retries: 0,
        };
        let fetch = |revision| hub.fetch("org/name", revision, None, &mut |_, _, _| {}, &|| false);
        for name in ["config.json", "tokenizer.json", SINGLE] {
            let error = fetch(None).unwrap_err().to_string();
            assert!(error.contains("not in the cache"), "{error}");
            std::fs::write(snapshot.join(name), "{}").unwrap();
        }
        assert_eq!(fetch(None).unwrap(), snapshot);
        assert_eq!(fetch(Some(commit)).unwrap(), snapshot);
        assert!(fetch(Some("other")).is_err());
        std::fs::remove_file(snapshot.join(SINGLE)).unwrap();
        let index = |names: &[&str]| {
            let map: serde_json::Map<String, Value> = names
                .iter()
                .map(|n| (format!("t{n}"), Value::from(*n)))
                .collect();
            std::fs::write(
                snapshot.join(INDEX),
                serde_json::json!({ "weight_map": map }).to_string(),
            )
            .unwrap();
        };
        index(&["a.safetensors"]);
        assert!(fetch(None).is_err());
        std::fs::write(snapshot.join("a.safetensors"), "x").unwrap();
        assert_eq!(fetch(None).unwrap(), snapshot);
        index(&["../../a.safetensors"]);
        assert!(fetch(None).is_err());
        std::fs::write(repo.join("refs/main"), "../../..").unwrap();
        assert!(fetch(None).is_err());
    }
}
