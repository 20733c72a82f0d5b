//! SHA-256 of weight files, for the manifest; remembered by path, size and time, for hashing gigabytes takes a while.

use super::raw::write_whole;
use super::safetensors::read_capped;
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

const CACHE: &str = "weights-sha256.json";
/// How many models are remembered.
const REMEMBERED: usize = 256;

/// SHA-256 (hex) of the files' bytes, one file after the other: for a single file what `sha256sum` prints.
///
/// With a `cache` folder the result is kept there and found again while path, size and time of every file are the same.
/// `cancelled` is asked between chunks.
///
/// # Errors
/// If a file cannot be read, or [`Error::Interrupted`]. A cache that cannot be read or written is no error.
pub fn weights_sha256(
    files: &[PathBuf],
    cache: Option<&Path>,
    cancelled: &dyn Fn() -> bool,
) -> Result<String> {
    let cache = cache.map(|folder| folder.join(CACHE));
    let key = key(files)?;
    let mut known = cache.as_deref().map(remembered).unwrap_or_default();
    if let Some(hash) = known.get(&key).and_then(Value::as_str)
        && hash.len() == 64
        && hash.bytes().all(|b| b.is_ascii_hexdigit())
    {
        return Ok(hash.to_owned());
    }
    let hash = hash_files(files, cancelled)?;
    if let Some(cache) = cache {
        known.insert(key, hash.clone().into());
        // The map keeps the order of insertion: forget the oldest.
        while known.len() > REMEMBERED
            && let Some(oldest) = known.keys().next().cloned()
        {
            known.shift_remove(&oldest);
        }
        let text = Value::Object(known).to_string();
        // Only time is lost if this fails.
        let _ = cache.parent().map(std::fs::create_dir_all);
        let _ = write_whole(&cache, |file| {
            file.write_all(text.as_bytes())
                .map_err(|e| Error::write(&cache, &e))
        });
    }
    Ok(hash)
}

/// SHA-256 (hex) of bytes in memory.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hash_files(files: &[PathBuf], cancelled: &dyn Fn() -> bool) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    for path in files {
        let mut file = File::open(path).map_err(|e| Error::read(path, &e))?;
        loop {
            if cancelled() {
                return Err(Error::Interrupted);
            }
            let n = file.read(&mut chunk).map_err(|e| Error::read(path, &e))?;
            if n == 0 {
                break;
            }
            hasher.update(&chunk[..n]);
        }
    }
    Ok(hex(&hasher.finalize()))
}

/// Path, size and time of every file.
fn key(files: &[PathBuf]) -> Result<String> {
    let mut key = String::new();
    for path in files {
        let failed = |e| Error::read(path, &e);
        let about = path.metadata().map_err(failed)?;
        let time = about
            .modified()
            .ok()
            .and_then(|t| t.duration_since(UNIX_EPOCH).ok())
            .map_or(0, |t| t.as_nanos());
        let path = path.canonicalize().map_err(failed)?;
        let _ = write!(key, "{}|{}|{time};", path.display(), about.len());
    }
    Ok(key)
}

fn remembered(cache: &Path) -> Map<String, Value> {
    let read = || match serde_json::from_slice(&read_capped(cache, 1 << 20).ok()?).ok()? {
        Value::Object(map) => Some(map),
        _ => None,
    };
    read().unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn the_hash_is_that_of_the_files_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let files = [folder.path().join("a"), folder.path().join("b")];
        std::fs::write(&files[0], "ab").unwrap();
        std::fs::write(&files[1], "c").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(weights_sha256(&files, None, &|| false).unwrap(), abc);
        assert_eq!(sha256_hex(b"abc"), abc);
    }

    #[test]
    fn a_known_file_is_not_read_again_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let files = [folder.path().join("a")];
        std::fs::write(&files[0], "a").unwrap();
        let reads = Cell::new(0);
        let hash = || {
            weights_sha256(&files, Some(&cache), &|| {
                reads.set(reads.get() + 1);
                false
            })
            .unwrap()
        };
        let first = hash();
        let after = reads.get();
        assert_eq!(hash(), first);
        assert_eq!(reads.get(), after);
        std::fs::write(&files[0], "longer").unwrap();
        assert_ne!(hash(), first);
        std::fs::write(cache.join(CACHE), "{damaged").unwrap();
        assert_ne!(hash(), first);
    }

    #[test]
    fn it_can_be_interrupted() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        std::fs::write(&file, "a").unwrap();
        assert!(matches!(
            weights_sha256(&[file], None, &|| true),
            Err(Error::Interrupted)
        ));
        assert!(weights_sha256(&[folder.path().join("b")], None, &|| false).is_err());
    }
}
