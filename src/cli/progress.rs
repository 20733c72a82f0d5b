//! Progress of long work: a bar on a terminal, plain lines in a pipe, nothing when asked to be quiet or when it is over
//! before anybody could have wondered.

use super::output::Notes;
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::{Duration, Instant};

/// What is over within this time needs no mention.
const PATIENCE: Duration = Duration::from_millis(700);

/// How often a line is written into a pipe.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Bytes, shown as MB and the like.
    Bytes,
    /// Anything else.
    Items,
}

/// The progress of one piece of work.
#[derive(Debug)]
pub struct Progress {
    notes: Notes,
    counted: Counted,
    began: Instant,
    bar: Option<ProgressBar>,
    line: Option<(String, Instant)>,
}

impl Progress {
    /// Begin to count.
    #[must_use]
    pub fn new(notes: &Notes, counted: Counted) -> Self {
        Self {
            notes: notes.clone(),
            counted,
            began: Instant::now(),
            bar: None,
            line: None,
        }
    }

    /// `done` of `total`, where known, of `what` (scrubbed here). Numbers within `what` may change at every call.
    pub fn update(&mut self, what: &str, done: u64, total: Option<u64>) {
        if self.notes.is_quiet() || self.began.elapsed() < PATIENCE {
            return;
        }
        let what = crate::text::one_line(what);
        if self.notes.is_terminal() {
            let counted = self.counted;
            let bar = self.bar.get_or_insert_with(|| bar(counted));
            if bar.length() != total {
                match total {
                    Some(total) => bar.set_length(total),
                    None => bar.unset_length(),
                }
                bar.set_style(style(counted, total.is_some()));
            }
            bar.set_message(what);
            bar.set_position(done);
            return;
        }
        let due = match &self.line {
            Some((last, when)) => *last != kind(&what) || when.elapsed() >= LINE_EVERY,
            None => true,
        };
        if due {
            self.notes.say(&self.plain(&what, done, total));
            self.line = Some((kind(&what), Instant::now()));
        }
    }

    fn plain(&self, what: &str, done: u64, total: Option<u64>) -> String {
        let shown = |n: u64| match self.counted {
            Counted::Bytes => HumanBytes(n).to_string(),
            Counted::Items => n.to_string(),
        };
        match total {
            Some(total) if total > 0 => {
                let percent = 100.0 * done as f64 / total as f64;
                format!(
                    "{what}: {} of {} ({percent:.0} %)",
                    shown(done),
                    shown(total)
                )
            }
            _ if done > 0 => format!("{what}: {}", shown(done)),
            _ => what.to_owned(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The work without its numbers: only another kind of work is worth a line before its time.
fn kind(what: &str) -> String {
    what.chars().filter(|c| !c.is_ascii_digit()).collect()
}

fn bar(counted: Counted) -> ProgressBar {
    // A terminal over a slow link is better served by few updates.
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
    bar.set_style(style(counted, false));
    bar
}

fn style(counted: Counted, bounded: bool) -> ProgressStyle {
    let template = match (counted, bounded) {
        (Counted::Bytes, true) => {
            "{msg} [{bar:24}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}"
        }
        (Counted::Bytes, false) => "{spinner} {msg} {bytes}",
        (Counted::Items, true) => "{msg} [{bar:24}] {pos}/{len} {eta}",
        (Counted::Items, false) => "{spinner} {msg} {pos}",
    };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
