//! Keeps the traffic to the terminal under a budget: a link that is full shows old frames late.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Frames are at least this far apart: 30 a second.
pub const FRAME: Duration = Duration::from_millis(33);
/// Bytes a second that a terminal may cost: the promise is 200 kB, and what a frame costs is known only afterwards.
pub const BUDGET: f64 = 180_000.0;
/// The same with `--low-bandwidth`, where the promise is 60 kB.
pub const LOW_BUDGET: f64 = 54_000.0;

/// Decides when the next frame may be drawn. Time is given in, so that tests need not wait.
#[derive(Clone, Copy, Debug)]
pub struct Governor {
    bytes_per_second: f64,
    /// Bytes that may be written at once; negative after a frame that cost more.
    credit: f64,
    last: Duration,
}

impl Governor {
    /// A governor with this budget.
    #[must_use]
    pub fn new(bytes_per_second: f64) -> Self {
        Self {
            bytes_per_second,
            credit: 0.0,
            last: Duration::ZERO,
        }
    }

    /// How long to wait from `now` until the next frame; zero when it may be drawn.
    #[must_use]
    pub fn wait(&self, now: Duration) -> Duration {
        let since = now.saturating_sub(self.last);
        let debt = (-self.credit / self.bytes_per_second).max(0.0);
        FRAME
            .max(Duration::from_secs_f64(debt))
            .saturating_sub(since)
    }

    /// A frame of `bytes` was drawn at `now`.
    pub fn drew(&mut self, now: Duration, bytes: u64) {
        let earned = now.saturating_sub(self.last).as_secs_f64() * self.bytes_per_second;
        // Silence earns no more than a tenth of a second's worth, so a burst stays short.
        self.credit = (self.credit + earned).min(self.bytes_per_second / 10.0) - bytes as f64;
        self.last = now;
    }
}

/// A writer that counts what passes.
#[derive(Debug)]
pub struct Counting<W> {
    inner: W,
    count: Arc<AtomicU64>,
}

impl<W: Write> Counting<W> {
    /// Count what is written to `inner`; the count is shared.
    pub fn new(inner: W) -> (Self, Arc<AtomicU64>) {
        let count = Arc::new(AtomicU64::new(0));
        let writer = Self {
            inner,
            count: Arc::clone(&count),
        };
        (writer, count)
    }
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.count.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes a second over five seconds in which every allowed frame costs `frame` bytes.
    fn traffic(budget: f64, frame: u64) -> (f64, u32) {
        let mut governor = Governor::new(budget);
        let (mut now, mut bytes, mut frames) = (Duration::ZERO, 0, 0);
        while now < Duration::from_secs(5) {
            now += governor.wait(now).max(Duration::from_millis(1));
            governor.drew(now, frame);
            bytes += frame;
            frames += 1;
        }
        (bytes as f64 / now.as_secs_f64(), frames / 5)
    }

    #[test]
    fn small_frames_come_at_thirty_a_second() {
        let (_, fps) = traffic(BUDGET, 2_000);
        assert!((29..=31).contains(&fps), "{fps}");
    }

    #[test]
    fn large_frames_are_spread_to_the_budget() {
        for budget in [BUDGET, LOW_BUDGET] {
            for frame in [7_000, 20_000, 60_000] {
                let (rate, _) = traffic(budget, frame);
                assert!(rate <= budget + frame as f64 / 5.0, "{frame}: {rate}");
                assert!(
                    rate >= (budget * 0.7).min(frame as f64 * 28.0),
                    "{frame}: {rate}"
                );
            }
        }
    }

    #[test]
    fn what_is_written_is_counted() {
        let (mut writer, count) = Counting::new(Vec::new());
        writer.write_all(b"12345").unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 5);
    }
}
