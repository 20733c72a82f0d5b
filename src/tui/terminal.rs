//! The terminal itself: entered, left, and left again whatever happens.
//!
//! A guard leaves it when the program ends or unwinds; a panic hook leaves it before the message of a panic on the
//! screen's own thread. A panic on another thread (the engine, a worker) does not tear the screen down: its message is
//! kept for the log, because that thread's owner decides what it means.

use super::backend::LeanBackend;
use super::governor::Counting;
use crate::error::{Error, Result};
use ratatui::Terminal;
use ratatui::crossterm::clipboard::CopyToClipboard;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste};
use ratatui::crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
    disable_raw_mode, enable_raw_mode, window_size,
};
use ratatui::crossterm::{execute, queue};
use ratatui::layout::{Position, Rect};
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread::ThreadId;

/// Clicks, drags and the wheel, but not every motion: over a slow link that would flood the input.
const MOUSE_ON: &[u8] = b"\x1b[?1000h\x1b[?1002h\x1b[?1006h";

/// Whether the terminal is ours right now.
static ENTERED: AtomicBool = AtomicBool::new(false);
/// The thread that draws.
static SCREEN_THREAD: Mutex<Option<ThreadId>> = Mutex::new(None);
/// The last panic of another thread, until the app takes it.
static STRAY_PANIC: Mutex<Option<String>> = Mutex::new(None);

type Out = BufWriter<Counting<io::Stdout>>;

/// The entered terminal; leaves it when dropped.
pub struct Screen {
    terminal: Terminal<LeanBackend<Out>>,
    written: Arc<AtomicU64>,
}

impl Screen {
    /// Take the terminal.
    ///
    /// # Errors
    /// Standard output is not a terminal, or it cannot be set up.
    pub fn enter() -> Result<Self> {
        if !io::stdout().is_terminal() {
            return Err(Error::Usage(
                "the screen needs a terminal; use `entroscope run` in pipes and scripts".to_owned(),
            ));
        }
        hook_panics();
        *SCREEN_THREAD.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(std::thread::current().id());
        take().map_err(|e| broken(&e))?;
        let (counting, written) = Counting::new(io::stdout());
        let backend = LeanBackend::new(BufWriter::with_capacity(1 << 16, counting));
        match Terminal::new(backend) {
            Ok(terminal) => Ok(Self { terminal, written }),
            Err(e) => {
                leave();
                Err(broken(&e))
            }
        }
    }

    /// Draw one frame inside a synchronized update; the bytes it took.
    pub fn draw(&mut self, render: impl FnOnce(&mut ratatui::Frame<'_>)) -> io::Result<u64> {
        let before = self.written.load(Ordering::Relaxed);
        queue!(self.terminal.backend_mut(), BeginSynchronizedUpdate)?;
        self.terminal.draw(render)?;
        execute!(self.terminal.backend_mut(), EndSynchronizedUpdate)?;
        Ok(self.written.load(Ordering::Relaxed) - before)
    }

    /// Forget what the terminal shows, so that the next frame paints everything.
    pub fn forget(&mut self) -> io::Result<()> {
        // Not `Terminal::clear`: it asks the terminal for its cursor, and the answer would land in the key reader.
        let area = self.area()?;
        self.terminal.resize(area)
    }

    /// The terminal as the next frame will find it.
    pub fn area(&self) -> io::Result<Rect> {
        Ok(Rect::from((Position::ORIGIN, self.terminal.size()?)))
    }

    /// Put text into the clipboard of the terminal (OSC 52), which works through SSH.
    pub fn copy(&mut self, text: &str) -> io::Result<()> {
        execute!(
            self.terminal.backend_mut(),
            CopyToClipboard::to_clipboard_from(text)
        )
    }

    /// The error of a terminal that is gone.
    pub fn check() -> io::Result<()> {
        window_size().map(drop)
    }

    /// Hand the terminal to the shell, stop, and take it back when the shell lets us go on.
    pub fn suspend(&mut self) -> io::Result<()> {
        leave();
        stop_self();
        self.resume()
    }

    /// Take the terminal back after the process was stopped.
    pub fn resume(&mut self) -> io::Result<()> {
        // Whoever stopped us without asking may have left raw mode on or off: start from a known state.
        leave();
        take()?;
        self.forget()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

/// The panic of another thread since the last call.
pub fn stray_panic() -> Option<String> {
    STRAY_PANIC
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    ENTERED.store(true, Ordering::SeqCst);
    let mut out = io::stdout();
    let entered = execute!(out, EnterAlternateScreen, EnableBracketedPaste)
        .and_then(|()| out.write_all(MOUSE_ON))
        .and_then(|()| out.flush());
    if entered.is_err() {
        leave();
    }
    entered
}

/// Give the terminal back. Every step is tried: a dead terminal must not keep the rest from being undone.
fn leave() {
    if !ENTERED.swap(false, Ordering::SeqCst) {
        return;
    }
    let mut out = io::stdout();
    let _ = execute!(
        out,
        EndSynchronizedUpdate,
        DisableMouseCapture,
        DisableBracketedPaste,
        LeaveAlternateScreen,
        Show
    );
    let _ = disable_raw_mode();
}

fn hook_panics() {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let screen = *SCREEN_THREAD.lock().unwrap_or_else(PoisonError::into_inner);
            let entered = ENTERED.load(Ordering::SeqCst);
            if entered && screen != Some(std::thread::current().id()) {
                *STRAY_PANIC.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(info.to_string());
                return;
            }
            leave();
            before(info);
        }));
    });
}

/// Stop this process as Ctrl-Z in a cooked terminal would.
fn stop_self() {
    #[cfg(unix)]
    {
        // SAFETY: raise takes a valid signal number and touches no memory of ours; the default action of SIGTSTP,
        // which nobody here replaces, stops the whole process until SIGCONT.
        #[allow(unsafe_code)]
        unsafe {
            libc::raise(libc::SIGTSTP);
        }
    }
}

fn broken(e: &io::Error) -> Error {
    Error::failed(
        format!("the terminal cannot be set up: {e}"),
        "Try another terminal, or use `entroscope run`.",
    )
}
