//! Ctrl-C and SIGTERM: a first one asks work that listens to stop after the current token; a second one, or one during
//! work that does not listen, ends the program at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The exit code of an interrupted program.
const CODE: i32 = 130;

/// Whether the user wants to stop.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    raised: Arc<AtomicBool>,
    heeded: Arc<AtomicBool>,
}

impl Interrupt {
    /// Take over the signals. Where that is not possible, they keep ending the program.
    pub fn listen(&self) {
        let me = self.clone();
        let listener = move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()
            else {
                return;
            };
            runtime.block_on(async {
                let Ok(mut signals) = Signals::new() else {
                    return;
                };
                while signals.next().await {
                    let again = me.raised.swap(true, Ordering::SeqCst);
                    if again || !me.heeded.load(Ordering::SeqCst) {
                        std::process::exit(CODE);
                    }
                }
            });
        };
        let started = std::thread::Builder::new()
            .name("signals".into())
            .spawn(listener);
        if let Err(e) = started {
            tracing::warn!("signals cannot be waited for: {e}");
        }
    }

    /// From now on the caller looks at [`Interrupt::raised`] often and stops cleanly, until the guard is dropped.
    #[must_use]
    pub fn heed(&self) -> Heed<'_> {
        self.heeded.store(true, Ordering::SeqCst);
        Heed(self)
    }

    /// Whether the user wants to stop.
    pub fn raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }
}

/// While this lives, somebody heeds the interrupt.
#[derive(Debug)]
pub struct Heed<'a>(&'a Interrupt);

impl Drop for Heed<'_> {
    fn drop(&mut self) {
        self.0.heeded.store(false, Ordering::SeqCst);
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> bool {
        tokio::select! {
            got = self.interrupt.recv() => got.is_some(),
            got = self.terminate.recv() => got.is_some(),
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> bool {
        tokio::signal::ctrl_c().await.is_ok()
    }
}
