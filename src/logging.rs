//! The log file: what happened, for whoever has to find out why. Never on the terminal, which belongs to the screen and
//! to the data; never a reason to fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tracing_subscriber::EnvFilter;

/// Bytes after which a new file is begun; the one before is kept.
const CAP: u64 = 5 << 20;

const FILE: &str = "entroscope.log";
const OLD: &str = "entroscope.log.old";

/// Which messages are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Warnings and errors (`-q`).
    Quiet,
    /// What the program does, step by step.
    #[default]
    Normal,
    /// The details too (`-v`).
    Verbose,
    /// Everything (`-vv`).
    Everything,
}

impl Level {
    fn directives(self) -> &'static str {
        match self {
            Self::Quiet => "warn",
            Self::Normal => "warn,entroscope=info",
            Self::Verbose => "info,entroscope=debug",
            Self::Everything => "debug,entroscope=trace",
        }
    }
}

/// What became of the log.
#[derive(Debug, Default)]
pub struct Log {
    /// The file that is written to.
    pub file: Option<PathBuf>,
    /// What to tell the user, when there is something; safe to display.
    pub warning: Option<String>,
}

/// Write messages to `entroscope.log` in `folder` from now on. `filter` (such as `debug` or `entroscope=trace`) wins
/// over `level`.
pub fn start(folder: Option<&Path>, level: Level, filter: Option<&str>) -> Log {
    let mut log = Log::default();
    let filter = filter
        .and_then(|directives| {
            EnvFilter::try_new(directives)
                .inspect_err(|e| {
                    let e = crate::text::one_line(&e.to_string());
                    log.warning = Some(format!("the log filter is not understood: {e}"));
                })
                .ok()
        })
        .unwrap_or_else(|| EnvFilter::new(level.directives()));
    let Some(folder) = folder else {
        return log;
    };
    let path = folder.join(FILE);
    match CappedLog::open(folder) {
        Ok(file) => {
            let started = tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_ansi(false)
                .with_writer(Mutex::new(file))
                .try_init();
            if started.is_ok() {
                log.file = Some(path);
            }
        }
        Err(e) => {
            let path = crate::text::path(&path);
            log.warning = Some(format!("no log is kept: {path}: {e}"));
        }
    }
    log
}

/// A log file that begins anew when it is full.
struct CappedLog {
    folder: PathBuf,
    file: File,
    written: u64,
}

impl CappedLog {
    fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let open = || {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(folder.join(FILE))
        };
        let mut file = open()?;
        let mut written = file.metadata()?.len();
        if written >= CAP {
            fs::rename(folder.join(FILE), folder.join(OLD))?;
            file = open()?;
            written = 0;
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            file,
            written,
        })
    }
}

impl Write for CappedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written >= CAP {
            *self = Self::open(&self.folder.clone())?;
        }
        // Messages quote the outside world, and somebody will `cat` the log.
        let safe: Vec<u8> = bytes
            .iter()
            .map(|byte| match byte {
                b'\n' | b'\t' | 0x20..=0x7e | 0x80.. => *byte,
                _ => b'?',
            })
            .collect();
        self.file.write_all(&safe)?;
        self.written += safe.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_begins_anew_and_one_old_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(OLD), "older").unwrap();
        let mut log = CappedLog::open(dir.path()).unwrap();
        let line = [b'x'; 1 << 16];
        for _ in 0..(CAP >> 16) {
            log.write_all(&line).unwrap();
        }
        log.write_all(b"fresh \x1b[31m\n").unwrap();
        let path = dir.path().join(FILE);
        assert_eq!(fs::read(&path).unwrap(), b"fresh ?[31m\n");
        assert_eq!(fs::metadata(dir.path().join(OLD)).unwrap().len(), CAP);
    }

    #[test]
    fn an_unwritable_folder_is_only_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let log = start(Some(&file), Level::Normal, None);
        assert!(log.file.is_none());
        assert!(log.warning.unwrap().starts_with("no log is kept"));
    }
}
