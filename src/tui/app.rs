//! The loop: waits for keys, engine, clock and signals, changes the state, draws when something changed.

use super::effect::{Effect, Exporter, fresh_folder};
use super::governor::{BUDGET, Governor, LOW_BUDGET};
use super::state::{Clock, Level, Message, State, update};
use super::terminal::{Screen, stray_panic};
use super::{Options, view};
use crate::error::{Error, Result};
use crate::session::{Engine, Event, Request};
use futures::StreamExt as _;
use ratatui::crossterm::event::{Event as Input, EventStream};
use ratatui::layout::Rect;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc::UnboundedReceiver;

/// How often the terminal is asked whether it is still there.
const PULSE: Duration = Duration::from_millis(500);

/// Show the screen until the user leaves. The exit code: 0, or 128 + the signal that ended it. `export` writes a run's
/// files. Wants a current-thread runtime with time and signals; the model runs on the engine's own thread.
///
/// # Errors
/// No terminal, wrong options, or the terminal was lost.
pub async fn run(options: Options, export: Exporter) -> Result<u8> {
    let depth = options.colour.resolve(|name| std::env::var(name).ok());
    // Wrong options are reported on the plain terminal, before anything is entered.
    let mut state = State::new(&options, depth, Rect::new(0, 0, 80, 24))?;
    let mut signals = Signals::new()?;
    let screen = Screen::enter()?;
    let area = screen.area().map_err(|e| lost(&e))?;
    update(&mut state, Message::Resize(area.width, area.height));
    let budget = if options.low_bandwidth {
        LOW_BUDGET
    } else {
        BUDGET
    };
    let (engine, events) = Engine::start(options.model.clone(), options.load.clone())?;
    let (exported, exports) = tokio::sync::mpsc::unbounded_channel();
    let mut app = App {
        state,
        screen,
        engine,
        export: Some(export),
        exported,
        exports,
        governor: Governor::new(budget),
        started: Instant::now(),
        dirty: true,
        seen: 0..0,
    };
    let code = app.main_loop(events, &mut signals).await?;
    app.finish_export(code).await;
    Ok(code)
}

type Export = (Exporter, Result<Vec<PathBuf>>);

struct App {
    state: State,
    screen: Screen,
    engine: Engine,
    /// Taken while an export is under way.
    export: Option<Exporter>,
    exported: tokio::sync::mpsc::UnboundedSender<Export>,
    exports: UnboundedReceiver<Export>,
    governor: Governor,
    started: Instant,
    dirty: bool,
    /// The positions that the engine knows to be on the screen.
    seen: Range<usize>,
}

impl App {
    /// Tables that are being written are finished before the program ends; after a signal there is little time left.
    async fn finish_export(&mut self, code: u8) {
        if self.export.is_none() {
            let patience = if code == 0 { 60_000 } else { 1_000 };
            let written = self.exports.recv();
            let _ = tokio::time::timeout(Duration::from_millis(patience), written).await;
        }
    }

    async fn main_loop(
        &mut self,
        mut events: UnboundedReceiver<Event>,
        signals: &mut Signals,
    ) -> Result<u8> {
        let mut input = EventStream::new();
        let mut pulse = tokio::time::interval(PULSE);
        pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut engine_lives = true;
        loop {
            let wait = self.governor.wait(self.started.elapsed());
            let message = tokio::select! {
                // Signals and keys first: a flood of events must not keep the user from stopping it.
                biased;
                signal = signals.next() => match signal {
                    Signal::Continue => {
                        self.screen.resume().map_err(|e| lost(&e))?;
                        self.dirty = true;
                        None
                    }
                    Signal::Exit(code) => return Ok(code),
                },
                event = input.next() => match event {
                    Some(Ok(event)) => read(event),
                    // The terminal's input has ended or broken: without keys there is nothing left to do.
                    Some(Err(e)) => return Err(lost(&e)),
                    None => return Err(lost(&io::ErrorKind::UnexpectedEof.into())),
                },
                () = tokio::time::sleep(wait), if self.dirty => {
                    self.draw()?;
                    None
                }
                Some((exporter, result)) = self.exports.recv() => {
                    self.export = Some(exporter);
                    Some(Message::Exported(result))
                }
                event = events.recv(), if engine_lives => {
                    self.tick();
                    match event {
                        Some(event) => {
                            // All that is pending goes into one frame.
                            let mut next = Some(event);
                            while let Some(event) = next {
                                if self.apply(Message::Engine(event))? {
                                    return Ok(0);
                                }
                                next = events.try_recv().ok();
                            }
                            None
                        }
                        None => {
                            engine_lives = false;
                            Some(Message::EngineGone(stray_panic()))
                        }
                    }
                }
                _ = pulse.tick() => {
                    // A dead pty reads as an endless stream of nothing; asking its size tells.
                    Screen::check().map_err(|e| lost(&e))?;
                    // Whoever runs that thread says what it means; here it must only not be lost.
                    if let Some(panic) = stray_panic() {
                        tracing::error!("{panic}");
                    }
                    None
                }
            };
            if let Some(message) = message {
                self.tick();
                if self.apply(message)? {
                    return Ok(0);
                }
            }
        }
    }

    fn tick(&mut self) {
        let clock = Clock {
            elapsed: self.started.elapsed(),
            wall: SystemTime::now(),
        };
        update(&mut self.state, Message::Tick(clock));
    }

    /// Change the state and carry out what follows; true when the program shall end.
    fn apply(&mut self, message: Message) -> Result<bool> {
        let mut leave = false;
        for effect in update(&mut self.state, message) {
            leave |= self.carry_out(effect).map_err(|e| lost(&e))?;
        }
        self.dirty = true;
        Ok(leave)
    }

    fn carry_out(&mut self, effect: Effect) -> io::Result<bool> {
        match effect {
            Effect::Engine(request) => {
                // An engine that is gone closes its events too, which is said in the status line.
                self.engine.send(request);
            }
            Effect::Export(export) => match self.export.take() {
                Some(mut exporter) => {
                    let folder = fresh_folder(&self.state.export_dir);
                    let done = self.exported.clone();
                    // Large tables take seconds; the screen stays alive meanwhile.
                    std::thread::spawn(move || {
                        let result = exporter(&folder, &export);
                        let _ = done.send((exporter, result));
                    });
                }
                None => {
                    let text = "An export is still being written.".to_owned();
                    update(&mut self.state, Message::Note(Level::Warn, text));
                }
            },
            Effect::Copy(text) => self.screen.copy(&text)?,
            Effect::Redraw => self.screen.forget()?,
            Effect::Suspend => self.screen.suspend()?,
            Effect::Quit => return Ok(true),
        }
        Ok(false)
    }

    fn draw(&mut self) -> Result<()> {
        // The terminal may have changed before its message about it arrives.
        let area = self.screen.area().map_err(|e| lost(&e))?;
        if area != self.state.area {
            update(&mut self.state, Message::Resize(area.width, area.height));
        }
        self.state.settle();
        let seen = self.state.on_screen();
        if seen != self.seen {
            self.engine.send(Request::Look(seen.clone()));
            self.seen = seen;
        }
        let state = &self.state;
        let bytes = self
            .screen
            .draw(|frame| {
                if frame.area() == state.area {
                    view::render(frame, state);
                }
            })
            .map_err(|e| lost(&e))?;
        self.governor.drew(self.started.elapsed(), bytes);
        self.dirty = false;
        Ok(())
    }
}

/// Terminal input as a message; what means nothing is dropped without a redraw.
fn read(event: Input) -> Option<Message> {
    use ratatui::crossterm::event::MouseEventKind;
    match event {
        Input::Key(key) => Some(Message::Key(key)),
        Input::Mouse(mouse) if !matches!(mouse.kind, MouseEventKind::Moved) => {
            Some(Message::Mouse(mouse))
        }
        Input::Paste(text) => Some(Message::Paste(text)),
        Input::Resize(width, height) => Some(Message::Resize(width, height)),
        Input::Mouse(_) | Input::FocusGained | Input::FocusLost => None,
    }
}

fn lost(e: &io::Error) -> Error {
    Error::failed(
        format!("the terminal was lost: {e}"),
        "Start again in a terminal.",
    )
}

enum Signal {
    /// The process was stopped and goes on.
    Continue,
    /// End with this code.
    Exit(u8),
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    go_on: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| {
            signal(kind).map_err(|e| {
                Error::failed(format!("signals cannot be received: {e}"), "Start again.")
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            go_on: listen(SignalKind::from_raw(libc::SIGCONT))?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Exit(130),
            _ = self.terminate.recv() => Signal::Exit(143),
            _ = self.hangup.recv() => Signal::Exit(129),
            _ = self.go_on.recv() => Signal::Continue,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Signal::Exit(130),
            // Without the signal Ctrl-C still arrives as a key.
            Err(_) => std::future::pending().await,
        }
    }
}
