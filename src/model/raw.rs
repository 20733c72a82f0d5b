//! The bytes of weight files: memory-mapped or in memory, numbers read from them, and files written in one piece.

use crate::error::{Error, Result};
use crate::text::scrub;
use memmap2::Mmap;
use rayon::prelude::*;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The bytes of one file.
pub(super) enum Bytes {
    /// A file on disk, mapped; kept open to notice that it shrinks.
    Mapped {
        map: Mmap,
        file: File,
        path: PathBuf,
    },
    /// Bytes that were never a file, under a name for messages.
    Owned { bytes: Vec<u8>, name: PathBuf },
    /// Bytes inside this program.
    Static {
        bytes: &'static [u8],
        name: &'static str,
    },
}

impl Bytes {
    /// Map a file.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::read(path, &e))?;
        let about = file.metadata().map_err(|e| Error::read(path, &e))?;
        if !about.is_file() {
            return Err(Error::file(path, "is not a file", "Check the path."));
        }
        if about.len() == 0 {
            return Err(Error::file(path, "is empty", "Fetch it again."));
        }
        // SAFETY: the map is read-only and private to this process's view. Another process that shrinks the file while
        // it is read could still end this one; `get` checks the size before every tensor, so that only a race of that
        // very moment is left, and a file that is overwritten in place merely gives wrong numbers.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::read(path, &e))?;
        Ok(Self::Mapped {
            map,
            file,
            path: path.to_path_buf(),
        })
    }

    /// The file, or a name in its place.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Mapped { path, .. } => path,
            Self::Owned { name, .. } => name,
            Self::Static { name, .. } => Path::new(name),
        }
    }

    /// Everything. Meant for headers; tensors go through [`Bytes::get`].
    pub(super) fn all(&self) -> &[u8] {
        match self {
            Self::Mapped { map, .. } => map,
            Self::Owned { bytes, .. } => bytes,
            Self::Static { bytes, .. } => bytes,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all().len()
    }

    /// The bytes of tensor `name`.
    pub(super) fn get(&self, range: Range<usize>, name: &str) -> Result<&[u8]> {
        if let Self::Mapped { map, file, path } = self {
            let now = file.metadata().map_err(|e| Error::read(path, &e))?.len();
            if now < map.len() as u64 {
                return Err(Error::file(
                    path,
                    format!(
                        "has shrunk from {} to {now} bytes while it was read",
                        map.len()
                    ),
                    "Wait until it is written, then load the model again.",
                ));
            }
        }
        self.all().get(range.clone()).ok_or_else(|| {
            Error::file(
                self.path(),
                format!(
                    "tensor {} ends at byte {}, but the file has {}",
                    scrub(name),
                    range.end,
                    self.len()
                ),
                "The file is truncated or damaged: fetch it again.",
            )
        })
    }
}

/// Read little-endian numbers of `N` bytes each as f32.
pub(super) fn widen<const N: usize, T: Clone + Default + Send>(
    bytes: &[u8],
    read: fn([u8; N]) -> T,
) -> Vec<T> {
    const CHUNK: usize = 1 << 16;
    let mut out = vec![T::default(); bytes.len() / N];
    out.par_chunks_mut(CHUNK)
        .zip(bytes.par_chunks(CHUNK * N))
        .for_each(|(out, bytes)| {
            let (numbers, _) = bytes.as_chunks::<N>();
            for (out, &number) in out.iter_mut().zip(numbers) {
                *out = read(number);
            }
        });
    out
}

/// The error for a tensor that a checkpoint lacks, with the names most like it.
pub(super) fn missing<'a>(
    path: &Path,
    wanted: &str,
    names: impl Iterator<Item = &'a str>,
) -> Error {
    let near = nearest(wanted, names);
    let remedy = if near.is_empty() {
        "The file holds no tensors at all: fetch it again.".to_owned()
    } else {
        format!(
            "The nearest names are {}: the file is incomplete, or its config.json belongs to another model.",
            scrub(&near.join(", "))
        )
    };
    Error::file(path, format!("has no tensor {}", scrub(wanted)), remedy)
}

/// The three names that share the longest beginning and end with `wanted`.
fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let likeness = |name: &str| {
        let same = |a: &mut dyn Iterator<Item = u8>, b: &mut dyn Iterator<Item = u8>| {
            a.zip(b).take_while(|(a, b)| a == b).count()
        };
        same(&mut name.bytes(), &mut wanted.bytes())
            + same(&mut name.bytes().rev(), &mut wanted.bytes().rev())
    };
    let mut names: Vec<&str> = names.filter(|name| name.len() <= 256).collect();
    names.sort_by_cached_key(|name| (std::cmp::Reverse(likeness(name)), *name));
    names.truncate(3);
    names
}

/// Write a file beside `path` and rename it when it is complete: readers see the old file or the new one, whole.
pub(super) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> Result<()>,
) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let failed = |e: std::io::Error| Error::write(path, &e);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".unfinished-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let temporary = builder.tempfile_in(folder).map_err(failed)?;
    let mut writer = BufWriter::new(temporary.as_file());
    write(&mut writer)?;
    writer.flush().map_err(failed)?;
    drop(writer);
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_shrinks_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, [7u8; 8192]).unwrap();
        let bytes = Bytes::open(&path).unwrap();
        assert_eq!(bytes.get(0..4, "t").unwrap(), [7; 4]);
        assert!(
            bytes
                .get(8190..8194, "t")
                .unwrap_err()
                .to_string()
                .contains("8194")
        );
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(10)
            .unwrap();
        assert!(
            bytes
                .get(0..4, "t")
                .unwrap_err()
                .to_string()
                .contains("shrunk")
        );
    }

    #[test]
    fn empty_files_and_folders_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        assert!(Bytes::open(&path).is_err());
        std::fs::write(&path, []).unwrap();
        assert!(Bytes::open(&path).is_err());
        assert!(Bytes::open(folder.path()).is_err());
    }

    #[test]
    fn nearest_names_share_both_ends() {
        let names = [
            "model.layers.1.mlp.up.weight",
            "lm_head.weight",
            "model.layers.10.mlp.down.weight",
            "x",
        ];
        assert_eq!(
            nearest("model.layers.1.mlp.down.weight", names.into_iter()),
            [names[2], names[0], names[1]]
        );
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_litter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        write_whole(&path, |w| {
            w.write_all(b"old").map_err(|e| Error::write("x", &e))
        })
        .unwrap();
        let fails = write_whole(&path, |w| {
            w.write_all(b"new").map_err(|e| Error::write("x", &e))?;
            Err(Error::Interrupted)
        });
        assert!(fails.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn numbers_widen() {
        let bytes: Vec<u8> = [1.5f32, -2.0]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        assert_eq!(widen(&bytes, f32::from_le_bytes), [1.5, -2.0]);
    }
}
