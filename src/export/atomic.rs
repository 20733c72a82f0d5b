//! Files that appear whole or not at all: written beside their place, flushed to the disk, renamed.

use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// How the folders begin that hold unfinished files; left-overs of a killed process are recognised by it.
const STAGING_PREFIX: &str = ".entroscope-partial-";

/// Whether `dir` exists and holds anything but the left-overs of a killed process.
///
/// # Errors
/// If it exists and is not a folder, or cannot be listed.
pub fn occupied(dir: &Path) -> Result<bool> {
    match fs::read_dir(dir) {
        Ok(entries) => {
            for entry in entries {
                let entry = entry.map_err(|e| Error::read(dir, &e))?;
                if !entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with(STAGING_PREFIX)
                {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => Err(Error::file(
            dir,
            "is a file, not a folder",
            "Choose another folder.",
        )),
        Err(e) => Err(Error::read(dir, &e)),
    }
}

/// Try whether files can be made in `dir`, or, where it does not exist yet, in the folder that would hold it. Leaves
/// nothing behind.
///
/// # Errors
/// If they cannot.
pub fn writable(dir: &Path) -> Result<()> {
    let place = dir
        .ancestors()
        .find(|place| place.is_dir())
        .unwrap_or_else(|| Path::new("."));
    staging_dir(place)
        .map(drop)
        .map_err(|e| Error::write(dir, &e))
}

/// A set of files on its way into a folder.
///
/// A folder that does not exist yet is built under another name and renamed as a whole; into one that exists, the
/// files are moved one by one, the last of `known` last.
#[derive(Debug)]
pub struct Folder<'a> {
    target: PathBuf,
    /// The names that may be replaced or removed in the target.
    known: &'a [&'a str],
    staging: TempDir,
    exists: bool,
}

impl<'a> Folder<'a> {
    /// Begin. `known` are all names that files of this kind can have.
    ///
    /// # Errors
    /// If the target is in use and `force` is not given, or no folder can be made there.
    pub fn stage(target: &Path, known: &'a [&'a str], force: bool) -> Result<Self> {
        super::refuse_occupied(target, force)?;
        let exists = target.is_dir();
        let place = if exists {
            target.to_path_buf()
        } else {
            let parent = match target.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
                _ => PathBuf::from("."),
            };
            fs::create_dir_all(&parent).map_err(|e| Error::write(&parent, &e))?;
            parent
        };
        let staging = staging_dir(&place).map_err(|e| Error::write(target, &e))?;
        Ok(Self {
            target: target.to_path_buf(),
            known,
            staging,
            exists,
        })
    }

    /// Write one file; `name` may hold folders.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn write(
        &self,
        name: &str,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<()> {
        write_synced(&self.staging.path().join(name), fill)
            .map_err(|e| Error::write(self.target.join(name), &e))
    }

    /// Let `files` appear in the target; of `known`, those that are not among them disappear.
    ///
    /// # Errors
    /// If the disk refuses, or another process made the folder meanwhile.
    pub fn commit(self, files: &[&str]) -> Result<Vec<PathBuf>> {
        let paths: Vec<PathBuf> = files.iter().map(|name| self.target.join(name)).collect();
        if self.exists {
            // Without its manifest the folder is visibly unfinished while tables of two runs are mixed.
            let last_first = self.known.iter().rev();
            for name in last_first.filter(|n| !files.contains(n) || self.known.last() == Some(*n)) {
                let path = self.target.join(name);
                match fs::remove_file(&path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => {
                        return Err(Error::write(&path, &e));
                    }
                    _ => {}
                }
            }
            for (name, path) in files.iter().zip(&paths) {
                fs::rename(self.staging.path().join(name), path)
                    .map_err(|e| Error::write(path, &e))?;
            }
        } else {
            let staged = self.staging.keep();
            if let Err(e) = fs::rename(&staged, &self.target) {
                // The error that matters is the rename's.
                let _ = fs::remove_dir_all(&staged);
                return Err(Error::write(&self.target, &e));
            }
            if let Some(parent) = self.target.parent() {
                sync_folder(parent);
            }
            let folders: BTreeSet<&Path> = paths.iter().filter_map(|p| p.parent()).collect();
            folders.into_iter().for_each(sync_folder);
        }
        sync_folder(&self.target);
        Ok(paths)
    }
}

/// Refuse early what [`write_file`] would refuse at the end of long work.
///
/// # Errors
/// If the file exists and `force` is not given, or none can be made there.
pub fn check_file(path: &Path, force: bool) -> Result<()> {
    refuse_existing(path, force)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => writable(parent),
        _ => writable(Path::new(".")),
    }
}

fn refuse_existing(path: &Path, force: bool) -> Result<()> {
    match path.symlink_metadata() {
        Ok(_) if !force => Err(Error::file(
            path,
            "already exists",
            "Choose another name or add --force.",
        )),
        _ => Ok(()),
    }
}

/// Write one file whole or not at all. An existing one is refused unless `force`.
///
/// # Errors
/// If the file exists and `force` is not given, or the disk refuses.
pub fn write_file(
    path: &Path,
    force: bool,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    refuse_existing(path, force)?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    fs::create_dir_all(&parent).map_err(|e| Error::write(&parent, &e))?;
    let staging = staging_dir(&parent).map_err(|e| Error::write(path, &e))?;
    let staged = staging.path().join("file");
    write_synced(&staged, fill).map_err(|e| Error::write(path, &e))?;
    fs::rename(&staged, path).map_err(|e| Error::write(path, &e))?;
    sync_folder(&parent);
    Ok(())
}

fn staging_dir(place: &Path) -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(STAGING_PREFIX);
    #[cfg(unix)]
    {
        // The folder may become the user's: give it what their umask allows, not the private mode of temporary ones.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o777));
    }
    // Its own message names a folder that nobody asked for.
    builder
        .tempdir_in(place)
        .map_err(|e| io::Error::from(e.kind()))
}

fn write_synced(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let file = fs::File::create_new(path)?;
    let mut out = BufWriter::with_capacity(1 << 16, file);
    fill(&mut out)?;
    out.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_all()
}

/// Make a rename durable. Not every file system can; the files themselves are safe already.
fn sync_folder(path: &Path) {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    if let Ok(folder) = fs::File::open(path) {
        let _ = folder.sync_all();
    }
}
