//! The thread that owns the model: requests in, events out.

use super::against::{Beside, open_beside};
use super::compare::Comparison;
use super::generation::Generation;
use super::protocol::{Event, Finish, Job, Request};
use super::sets::{SetJob, Sets};
use super::sweep::{Sweep, Swept};
use super::work::Work;
use crate::error::{Error, Result};
use crate::model::{LoadOptions, Model, crew};
use crate::steer::{Plan, Spec, Strengths};
use crate::trace::Pairing;
use std::ops::{ControlFlow, Range};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A handle to the engine thread. Dropping it ends the thread after the step at hand.
#[derive(Debug)]
pub struct Engine {
    requests: Sender<Request>,
    cancel: Arc<AtomicBool>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A load in progress is of no use to anybody.
        self.cancel.store(true, Ordering::Relaxed);
    }
}

impl Engine {
    /// Start the thread and load `model`. Events come in order; dropping the receiver ends the thread too.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub fn start(model: String, options: LoadOptions) -> Result<(Self, UnboundedReceiver<Event>)> {
        let cancel = options.cancel.clone();
        let (requests, inbox) = channel();
        let (outbox, events) = unbounded_channel();
        std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || {
                let mut worker = Worker {
                    options,
                    outbox,
                    model: None,
                    other: None,
                    run: None,
                    plan: Plan::default(),
                    sweep: None,
                    look: 0..0,
                };
                worker.load(&model);
                worker.serve(&inbox);
            })
            .map_err(|e| {
                Error::failed(
                    format!("no thread for the model: {e}"),
                    "Close other programs.",
                )
            })?;
        Ok((Self { requests, cancel }, events))
    }

    /// Ask for something. `false` if the thread has ended.
    pub fn send(&self, request: Request) -> bool {
        self.requests.send(request).is_ok()
    }
}

struct Worker {
    options: LoadOptions,
    outbox: UnboundedSender<Event>,
    model: Option<Model>,
    /// A second model to hold against it, and what it was asked for as.
    other: Option<(String, Rc<Model>)>,
    run: Option<Run>,
    /// What runs are steered by that bring no plan of their own.
    plan: Plan,
    /// What is done while no run is under way.
    sweep: Option<Sweep>,
    /// The positions on the screen, which the next run is told too.
    look: Range<usize>,
}

struct Run {
    work: Box<dyn Work>,
    mode: Mode,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Running,
    Paused,
    /// One token, then paused.
    Stepping,
    /// Stopped or ended; nothing is drawn, but the cells that are owed are read.
    Settling,
    Ended,
}

impl Worker {
    fn serve(&mut self, inbox: &Receiver<Request>) {
        loop {
            let busy = self.run.as_ref().is_some_and(|run| match run.mode {
                Mode::Running | Mode::Stepping => true,
                // Nothing is drawn, but what is on the screen is completed.
                Mode::Paused | Mode::Settling => run.work.owes(),
                Mode::Ended => false,
            });
            let request = if busy || self.sweep.is_some() {
                match inbox.try_recv() {
                    Ok(request) => Some(request),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Disconnected) => return,
                }
            } else {
                match inbox.recv() {
                    Ok(request) => Some(request),
                    Err(_) => return,
                }
            };
            // A panic below must not take the face down with it: it becomes an error like any other.
            let done = catch_unwind(AssertUnwindSafe(|| match request {
                Some(request) => self.handle(request),
                None => {
                    match busy {
                        true => self.step(),
                        false => self.sweep_on(),
                    }
                    ControlFlow::Continue(())
                }
            }));
            match done {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return,
                Err(_) => {
                    self.run = None;
                    self.end_sweep();
                    self.send(Event::Failed(Error::failed(
                        "the engine hit a bug and stopped this run",
                        "The log file has the details; please report it.",
                    )));
                }
            }
            if self.outbox.is_closed() {
                return;
            }
        }
    }

    fn send(&self, event: Event) {
        // A closed outbox is noticed in `serve`.
        let _ = self.outbox.send(event);
    }

    fn load(&mut self, reference: &str) {
        self.run = None;
        self.plan = Plan::default();
        self.sweep = None;
        self.other = None;
        let loaded = survived(reference, || {
            super::open(reference, &self.options, &mut |what, done, total| {
                self.send(Event::Loading {
                    what: what.to_owned(),
                    done,
                    total,
                });
            })
        });
        match loaded {
            Ok(model) => {
                self.send(Event::Loaded {
                    card: model.card().clone(),
                    tokenizer: model.tokenizer().clone(),
                });
                self.model = Some(model);
            }
            Err(e) => self.send(Event::Failed(e)),
        }
    }

    fn handle(&mut self, request: Request) -> ControlFlow<()> {
        match request {
            Request::Load(reference) => self.load(&reference),
            Request::Generate(job) => self.generate(*job),
            Request::Compare(job, pairing) => self.compare(*job, pairing),
            Request::Against(job, reference, pairing) => self.against(*job, &reference, pairing),
            Request::Separate(job) => self.separate(*job),
            Request::Steer(specs) => self.steer(&specs),
            Request::Sweep(job, specs, strengths) => self.sweep(*job, &specs, &strengths),
            Request::StopSweep => {
                self.end_sweep();
            }
            Request::Replay => {
                if let (Some(model), Some(run)) = (&self.model, &mut self.run)
                    && run.work.replay(model)
                {
                    if run.mode == Mode::Ended {
                        run.mode = Mode::Settling;
                    }
                    self.send(Event::Replaying);
                }
            }
            Request::Pause => self.set_mode(
                |m| matches!(m, Mode::Running | Mode::Stepping),
                Mode::Paused,
            ),
            Request::Resume => {
                self.set_mode(
                    |m| matches!(m, Mode::Paused | Mode::Stepping),
                    Mode::Running,
                );
            }
            Request::Step => self.set_mode(|m| m == Mode::Paused, Mode::Stepping),
            Request::Stop => {
                if let Some(run) = &mut self.run
                    && !matches!(run.mode, Mode::Ended | Mode::Settling)
                {
                    run.mode = Mode::Settling;
                    self.send(Event::Finished(Finish::Stopped));
                }
            }
            Request::Continue(more) => {
                if let Some(run) = &mut self.run
                    && matches!(run.mode, Mode::Ended | Mode::Settling)
                {
                    run.work.extend(more);
                    run.work.restart_clock();
                    run.mode = Mode::Running;
                    self.send(Event::Resumed);
                }
            }
            Request::Look(positions) => {
                self.look = positions;
                if let Some(run) = &mut self.run {
                    run.work.look(self.look.clone());
                }
            }
            Request::SetSampling(sampling) => match (sampling.validate(), &mut self.run) {
                (Ok(()), Some(run)) => run.work.set_sampling(sampling),
                (Ok(()), None) => {}
                (Err(e), _) => self.send(Event::Failed(e)),
            },
            Request::Shutdown => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    /// Start what `start` makes of the model, or say why not. Plans that jobs bring go before the engine's.
    fn begin<W: Work + 'static>(
        &mut self,
        start: impl FnOnce(&Model, &Plan, &mut dyn FnMut(Event)) -> Result<W>,
    ) {
        let Some(model) = &self.model else {
            return self.send(Event::Failed(no_model()));
        };
        let outbox = &self.outbox;
        let started = start(model, &self.plan, &mut |event| {
            let _ = outbox.send(event);
        });
        match started {
            Ok(mut work) => {
                work.look(self.look.clone());
                self.run = Some(Run {
                    work: Box::new(work),
                    mode: Mode::Running,
                });
            }
            Err(e) => self.send(Event::Failed(e)),
        }
    }

    fn generate(&mut self, job: Job) {
        self.begin(|model, plan, emit| Generation::start(model, job.under(plan), emit));
    }

    fn compare(&mut self, job: Job, pairing: Pairing) {
        self.begin(|model, plan, emit| {
            Comparison::start(model, job.under(plan), pairing, &mut |side, event| {
                emit(Event::Side(side, Box::new(event)));
            })
        });
    }

    fn against(&mut self, job: Job, reference: &str, pairing: Pairing) {
        let other = match self.second(reference) {
            Ok(other) => other,
            Err(e) => return self.send(Event::Failed(e)),
        };
        self.send(Event::OtherLoaded {
            card: other.card().clone(),
            tokenizer: other.tokenizer().clone(),
        });
        // A vector fits one model: what is in force is not for two.
        self.begin(|model, _, emit| Beside::start(model, other, job, pairing, emit));
    }

    /// The second model: the one that is there, if it was asked for in these words, or a new one in its place.
    fn second(&mut self, reference: &str) -> Result<Rc<Model>> {
        if let Some((_, other)) = self.other.as_ref().filter(|(named, _)| named == reference) {
            return Ok(Rc::clone(other));
        }
        // Its memory may be what the new one needs, and so may that of the run which holds it.
        if self.other.take().is_some() {
            self.run = None;
        }
        let first = self.model.as_ref().ok_or_else(no_model)?;
        let loaded = survived(reference, || {
            open_beside(reference, &self.options, first, &mut |what, done, total| {
                self.send(Event::LoadingOther {
                    what: what.to_owned(),
                    done,
                    total,
                });
            })
        })?;
        let other = Rc::new(loaded);
        self.other = Some((reference.to_owned(), Rc::clone(&other)));
        Ok(other)
    }

    fn separate(&mut self, job: SetJob) {
        self.begin(|model, plan, emit| {
            let each = job.each.under(plan);
            let sets = Sets::start(model, SetJob { each, ..job })?;
            emit(Event::Separating {
                schema: Arc::clone(sets.samples().schema()),
                states: sets.samples().states(),
                total: sets.total(),
            });
            Ok(sets)
        });
    }

    fn steer(&mut self, specs: &[Spec]) {
        let Some(model) = &self.model else {
            return;
        };
        match Plan::load(specs, model.card()) {
            Ok((plan, remarks)) => {
                let run = self.run.as_mut();
                let turn = run.and_then(|run| run.work.steer(&plan));
                self.plan = plan.clone();
                self.send(Event::Steered {
                    plan,
                    turn,
                    remarks,
                });
            }
            Err(e) => self.send(Event::NotSteered(e)),
        }
    }

    fn sweep(&mut self, job: Job, specs: &[Spec], strengths: &Strengths) {
        let Some(model) = &self.model else {
            return;
        };
        let begun = Plan::load(specs, model.card()).and_then(|(steering, _)| {
            let job = Job { steering, ..job };
            Sweep::start(model, job, strengths, &mut |_| {})
        });
        match begun {
            Ok(sweep) => {
                self.send(Event::Sweeping(sweep.curve().clone()));
                self.sweep = Some(sweep);
            }
            Err(e) => self.send(Event::NotSteered(e)),
        }
    }

    /// One step of the sweep.
    fn sweep_on(&mut self) {
        let (Some(model), Some(sweep)) = (&self.model, &mut self.sweep) else {
            return;
        };
        let outbox = &self.outbox;
        let plain_before = sweep.curve().baseline().is_some();
        let done = sweep.advance(model, &mut |swept| {
            if let Swept::Point { strength, point } = swept {
                let strength = Some(strength);
                let _ = outbox.send(Event::Swept { strength, point });
            }
        });
        if let (false, Some(point)) = (plain_before, sweep.curve().baseline()) {
            let point = Arc::clone(point);
            let strength = None;
            let _ = outbox.send(Event::Swept { strength, point });
        }
        match done {
            Ok(None) => {}
            Ok(Some(_)) => {
                if let Some(sweep) = self.sweep.take() {
                    self.send(Event::SweepEnded(Box::new(sweep.finish().1)));
                }
            }
            Err(e) => {
                self.end_sweep();
                self.send(Event::NotSteered(e));
            }
        }
    }

    /// End the sweep where it is; what has come is told.
    fn end_sweep(&mut self) {
        if let Some(mut sweep) = self.sweep.take() {
            sweep.stop(&mut |_| {});
            self.send(Event::SweepEnded(Box::new(sweep.finish().1)));
        }
    }

    fn set_mode(&mut self, from: impl Fn(Mode) -> bool, to: Mode) {
        if let Some(run) = &mut self.run
            && from(run.mode)
        {
            run.work.restart_clock();
            run.mode = to;
            match to {
                Mode::Paused => self.send(Event::Paused),
                Mode::Running => self.send(Event::Resumed),
                Mode::Stepping | Mode::Settling | Mode::Ended => {}
            }
        }
    }

    fn step(&mut self) {
        let (Some(model), Some(run)) = (&self.model, &mut self.run) else {
            return;
        };
        let before = run.work.drawn();
        let outbox = &self.outbox;
        let mut emit = |event| {
            let _ = outbox.send(event);
        };
        let ended = match run.mode {
            Mode::Paused | Mode::Settling => run.work.fill(model, &mut emit).map(|()| None),
            _ => crew::with(|| run.work.advance(model, &mut emit)),
        };
        match ended {
            Ok(Some(why)) => {
                run.mode = Mode::Ended;
                self.send(Event::Finished(why));
            }
            Ok(None) if run.mode == Mode::Stepping && run.work.drawn() > before => {
                run.mode = Mode::Paused;
                self.send(Event::Paused);
            }
            Ok(None) => {}
            Err(e) => {
                run.mode = Mode::Ended;
                self.send(Event::Failed(e));
            }
        }
    }
}

fn no_model() -> Error {
    Error::failed("no model is loaded", "Load one first.")
}

/// Load a model; a panic on the way is an error like any other.
fn survived(reference: &str, load: impl FnOnce() -> Result<Model>) -> Result<Model> {
    catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|_| {
        Err(Error::failed(
            format!("loading {} hit a bug", crate::text::scrub(reference)),
            "The log file has the details; please report it.",
        ))
    })
}

/// Run a job to its end on the calling thread. `on_event` may break it off after any event.
///
/// # Errors
/// As [`Generation::start`] and [`Generation::advance`]; [`Finish::Stopped`] when broken off.
pub fn run(
    model: &Model,
    job: &Job,
    on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<Finish> {
    let mut stop = false;
    let mut emit = |event: Event| stop |= on_event(event).is_break();
    let mut generation = Generation::start(model, job.clone(), &mut emit)?;
    loop {
        let ended = if stop {
            Some(Finish::Stopped)
        } else {
            let mut emit = |event| stop |= on_event(event).is_break();
            crew::with(|| generation.advance(model, &mut emit))?
        };
        if let Some(why) = ended {
            // Nothing is left to break off.
            let _ = on_event(Event::Finished(why));
            return Ok(why);
        }
    }
}
