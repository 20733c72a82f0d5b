//! Standard output for data, standard error for remarks.

use crate::error::{Error, Result};
use crate::text;
use serde::Serialize;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

/// Standard output. When its reader goes away, what is written goes nowhere and nothing fails: `| head` is fine.
#[derive(Debug)]
pub struct Output {
    out: BufWriter<StdoutLock<'static>>,
    terminal: bool,
    closed: bool,
}

impl Output {
    /// Lock standard output.
    #[must_use]
    pub fn new() -> Self {
        let stdout = io::stdout();
        Self {
            terminal: stdout.is_terminal(),
            out: BufWriter::new(stdout.lock()),
            closed: false,
        }
    }

    /// Whether somebody looks at it on a terminal.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether the reader has gone away.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Write text; it may wait for [`Output::flush`].
    ///
    /// # Errors
    /// If the disk behind a redirection is full and the like.
    pub fn write(&mut self, text: &str) -> Result<()> {
        if self.closed {
            return Ok(());
        }
        let outcome = self.out.write_all(text.as_bytes());
        self.judge(outcome)
    }

    /// Write a line.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn line(&mut self, line: &str) -> Result<()> {
        self.write(line)?;
        self.write("\n")
    }

    /// Write a value as indented JSON.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn json(&mut self, value: &impl Serialize) -> Result<()> {
        let json = serde_json::to_string_pretty(value).map_err(|e| {
            Error::failed(format!("the figures are no JSON: {e}"), "This is a bug.")
        })?;
        self.line(&json)
    }

    /// Let the reader see everything written so far.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn flush(&mut self) -> Result<()> {
        if self.closed {
            return Ok(());
        }
        let outcome = self.out.flush();
        self.judge(outcome)
    }

    fn judge(&mut self, outcome: io::Result<()>) -> Result<()> {
        match outcome {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            Err(e) => {
                self.closed = true;
                Err(Error::failed(
                    format!("standard output cannot be written: {e}"),
                    "Make room, or send it elsewhere.",
                ))
            }
            Ok(()) => Ok(()),
        }
    }
}

/// Remarks on standard error; nobody fails because nobody listens.
#[derive(Clone, Debug)]
pub struct Notes {
    quiet: bool,
    terminal: bool,
}

impl Notes {
    /// `quiet` keeps everything back.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        Self {
            quiet,
            terminal: io::stderr().is_terminal(),
        }
    }

    /// Whether nothing is said.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether somebody looks at it on a terminal.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// A remark of one or more lines.
    pub fn say(&self, line: &str) {
        if !self.quiet {
            let _ = writeln!(io::stderr().lock(), "{}", text::scrub_lines(line));
        }
    }

    /// Something the user should look at.
    pub fn warn(&self, line: &str) {
        tracing::warn!("{line}");
        self.say(&format!("warning: {line}"));
    }
}
