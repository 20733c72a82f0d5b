//! How fast tokens come.

use std::collections::VecDeque;
use std::time::Instant;

/// Tokens over which the rate is measured.
const WINDOW: usize = 32;

/// The moments at which tokens were drawn.
pub(super) struct Pace {
    started: Instant,
    drawn: VecDeque<Instant>,
    first: Option<f64>,
}

impl Pace {
    /// The clock starts.
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            drawn: VecDeque::new(),
            first: None,
        }
    }

    /// Seconds since then.
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// A token was drawn: tokens per second over the last moments (0 before the second), seconds from the start to the first.
    pub fn drew(&mut self) -> (f64, f64) {
        let now = Instant::now();
        let first = *self.first.get_or_insert((now - self.started).as_secs_f64());
        self.drawn.push_back(now);
        if self.drawn.len() > WINDOW {
            self.drawn.pop_front();
        }
        let rate = match self.drawn.front() {
            Some(oldest) if self.drawn.len() > 1 => {
                let seconds = (now - *oldest).as_secs_f64().max(1e-9);
                (self.drawn.len() - 1) as f64 / seconds
            }
            _ => 0.0,
        };
        (rate, first)
    }

    /// Forget how long ago the last token was drawn (after a pause, which is not slowness).
    pub fn restart(&mut self) {
        self.drawn.clear();
    }
}
