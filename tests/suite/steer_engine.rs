//! Pushing a run on its way through the engine, replaying it, and comparisons that live there.

use entroscope::model::{LoadOptions, Model};
use entroscope::session::{
    Comparison, Engine, Event, Finish, Generation, Job, Prompt, Request, Sweep, Turn,
};
use entroscope::steer::{Plan, Spec, Strengths};
use entroscope::trace::{Cells, Pairing, Side, Token};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

const PUSH: &str = "mood,strength=-0.3,layers=4..12";
const OTHER: &str = "mood,strength=-0.5,layers=4..12,keep-norm";

/// What a branch has left so far.
#[derive(Clone, Default)]
struct Seen {
    tokens: Vec<Token>,
    cells: BTreeMap<usize, Arc<Cells>>,
}

impl Seen {
    fn take(&mut self, event: &Event) {
        match event {
            Event::Started { .. } => *self = Self::default(),
            Event::Token(token) => self.tokens.push(token.clone()),
            Event::Cells { position, cells } => {
                self.cells.insert(*position, cells.clone());
            }
            _ => {}
        }
    }

    fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }

    fn bits(&self, position: usize) -> Vec<u32> {
        let values = self.cells[&position].values.iter();
        values.map(|value| value.to_bits()).collect()
    }
}

struct Driver {
    engine: Engine,
    events: UnboundedReceiver<Event>,
    /// The run, or the baseline of a comparison; and its other side.
    seen: [Seen; 2],
}

impl Driver {
    async fn start() -> Self {
        Self::open("demo").await
    }

    async fn open(model: &str) -> Self {
        let (engine, events) = Engine::start(model.into(), LoadOptions::default()).unwrap();
        let mut driver = Self {
            engine,
            events,
            seen: [Seen::default(), Seen::default()],
        };
        driver.until(|e| matches!(e, Event::Loaded { .. })).await;
        driver
    }

    async fn until(&mut self, stop: impl Fn(&Event) -> bool) -> Event {
        loop {
            // Only a hang reaches the deadline.
            let next = timeout(Duration::from_secs(60), self.events.recv()).await;
            let event = next.expect("the engine answers").expect("the engine lives");
            match &event {
                Event::Side(side, event) => self.seen[*side as usize].take(event),
                event => self.seen[0].take(event),
            }
            if stop(&event) {
                return event;
            }
        }
    }

    async fn finished(&mut self) -> Finish {
        let end = |e: &Event| matches!(e, Event::Finished(_) | Event::Failed(_));
        match self.until(end).await {
            Event::Finished(why) => why,
            other => panic!("{other:?}"),
        }
    }

    fn ask(&self, request: Request) {
        assert!(self.engine.send(request));
    }

    async fn steer(&mut self, specs: &[&str]) -> Option<Turn> {
        self.ask(Request::Steer(specs_of(specs)));
        match self.until(|e| matches!(e, Event::Steered { .. })).await {
            Event::Steered { turn, .. } => turn,
            other => panic!("{other:?}"),
        }
    }

    /// Hold the run that was just asked for after this many tokens.
    async fn hold_after(&mut self, tokens: usize) {
        let paused = |e: &Event| matches!(e, Event::Paused);
        self.ask(Request::Pause);
        self.until(paused).await;
        for _ in 0..tokens {
            self.ask(Request::Step);
            self.until(paused).await;
        }
    }

    /// Wait until every position that was read has been read again.
    async fn replayed(&mut self) {
        let read = self.seen.each_ref().map(|seen| seen.cells.len());
        self.ask(Request::Replay);
        self.until(|e| matches!(e, Event::Replaying)).await;
        self.seen.iter_mut().for_each(|seen| seen.cells.clear());
        for (side, read) in read.into_iter().enumerate() {
            while self.seen[side].cells.len() < read {
                self.until(|_| true).await;
            }
        }
    }
}

fn specs_of(specs: &[&str]) -> Vec<Spec> {
    specs.iter().map(|spec| spec.parse().unwrap()).collect()
}

fn job(new: usize) -> Job {
    Job {
        ignore_eos: true,
        ..Job::new(
            Prompt::Text("Jack went to the river with his dog.".into()),
            new,
        )
    }
}

fn model() -> Model {
    Model::load("demo", &LoadOptions::default(), &mut |_, _, _| {}).unwrap()
}

/// A run of these ids under a plan, alone and at once.
fn alone(model: &Model, ids: &[u32], specs: &[&str], new: usize) -> Seen {
    let job = Job {
        steering: Plan::load(&specs_of(specs), model.card()).unwrap().0,
        prompt: Prompt::Ids(ids.to_vec()),
        ..job(new)
    };
    let mut seen = Seen::default();
    entroscope::session::run(model, &job, &mut |event| {
        seen.take(&event);
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    seen
}

#[tokio::test]
async fn a_push_on_the_way_reaches_the_tokens_to_come_and_a_replay_all_of_them() {
    let model = model();
    let mut driver = Driver::start().await;
    driver.ask(Request::Generate(Box::new(job(24))));
    driver.hold_after(5).await;
    let turn = driver.steer(&[PUSH]).await.unwrap();
    assert_eq!(turn.number, 1);
    driver.ask(Request::Resume);
    assert_eq!(driver.finished().await, Finish::Length);
    let pushed = driver.seen[0].clone();
    let ids = pushed.ids();
    let plain = alone(&model, &ids[..turn.from], &[], 0);
    for (position, cells) in &pushed.cells {
        assert_eq!(cells.plan, u32::from(*position >= turn.from), "{position}");
        // The last of them knows here what comes next.
        if position + 1 < turn.from {
            assert_eq!(pushed.bits(*position), plain.bits(*position), "{position}");
        }
    }
    let whole = alone(&model, &ids, &[], 0);
    let differ = (turn.from..ids.len() - 1).filter(|at| pushed.bits(*at) != whole.bits(*at));
    assert_eq!(
        differ.count(),
        ids.len() - 1 - turn.from,
        "all of them are pushed"
    );

    driver.replayed().await;
    let clean = alone(&model, &ids, &[PUSH], 0);
    for (position, cells) in &driver.seen[0].cells {
        assert_eq!(cells.plan, 1);
        if position + 1 < ids.len() {
            assert_eq!(
                driver.seen[0].bits(*position),
                clean.bits(*position),
                "{position}"
            );
        }
    }
    assert_eq!(driver.seen[0].ids(), ids, "the text stays");
    let read = driver.seen[0].cells.len();
    assert_eq!(read, pushed.cells.len(), "no position more than was read");
    // Asked for twice in a row, it is still about all of the text.
    driver.steer(&[OTHER]).await;
    driver.ask(Request::Replay);
    driver.steer(&[PUSH]).await;
    driver.replayed().await;
    for position in 0..ids.len() - 1 {
        assert_eq!(
            driver.seen[0].bits(position),
            clean.bits(position),
            "{position}"
        );
    }
    // It goes on from there as that run would.
    driver.ask(Request::Continue(3));
    assert_eq!(driver.finished().await, Finish::Length);
    let further = alone(&model, &ids, &[PUSH], 3);
    assert_eq!(driver.seen[0].ids(), further.ids());
    // Steered back, the plain model goes on, over what the pushed one remembers.
    assert_eq!(driver.steer(&[]).await.unwrap().number, 0);
    let turn = driver.steer(&[OTHER]).await.unwrap();
    assert_eq!(turn.number, 4, "every plan has its own");
}

#[tokio::test]
async fn a_plan_holds_for_the_runs_to_come_and_one_that_does_not_fit_changes_nothing() {
    let model = model();
    let mut driver = Driver::start().await;
    assert_eq!(driver.steer(&[PUSH]).await, None);
    driver.ask(Request::Steer(specs_of(&["mood,layers=4..99"])));
    let refused = driver.until(|e| matches!(e, Event::NotSteered(_))).await;
    assert!(
        matches!(&refused, Event::NotSteered(e) if e.to_string().contains("4..99")),
        "{refused:?}"
    );
    driver.ask(Request::Generate(Box::new(job(8))));
    assert_eq!(driver.finished().await, Finish::Length);
    let prompt = &driver.seen[0].ids()[..driver.seen[0].tokens.len() - 8];
    let steered = alone(&model, prompt, &[PUSH], 8);
    assert_eq!(driver.seen[0].ids(), steered.ids());
    assert_ne!(steered.ids(), alone(&model, prompt, &[], 8).ids());
}

#[tokio::test]
async fn a_comparison_is_steered_held_replayed_and_goes_on() {
    let model = model();
    for pairing in [Pairing::Free, Pairing::Locked] {
        let mut driver = Driver::start().await;
        driver.steer(&[PUSH]).await;
        driver.ask(Request::Compare(Box::new(job(30)), pairing));
        driver.hold_after(7).await;
        let turn = driver.steer(&[OTHER]).await.unwrap();
        assert_eq!(turn.number, 2);
        driver.ask(Request::Resume);
        assert_eq!(driver.finished().await, Finish::Length);
        let [baseline, steered] = driver.seen.clone();
        let prompt = baseline.tokens.len() - 30;
        let ids = baseline.ids();
        // The baseline knows nothing of it.
        let plain = alone(&model, &ids[..prompt], &[], 30);
        assert_eq!(ids, plain.ids());
        for position in baseline.cells.keys() {
            assert_eq!(
                baseline.bits(*position),
                plain.bits(*position),
                "{position}"
            );
        }
        for (position, cells) in &steered.cells {
            let expected = if *position < turn.from { 1 } else { 2 };
            assert_eq!(cells.plan, expected, "{position}");
        }
        assert_eq!(pairing == Pairing::Locked, steered.ids() == ids);

        driver.replayed().await;
        let [again, replayed] = &driver.seen;
        let clean = alone(&model, &steered.ids(), &[OTHER], 0);
        let parts = steered.ids().iter().zip(&ids).position(|(a, b)| a != b);
        for position in 0..prompt + 29 {
            assert_eq!(again.bits(position), baseline.bits(position), "{position}");
            assert_eq!(replayed.bits(position), clean.bits(position), "{position}");
            let together = replayed.cells[&position].divergence.is_some();
            assert_eq!(
                together,
                parts.is_none_or(|parts| position < parts),
                "{position}"
            );
        }
        driver.ask(Request::Continue(4));
        assert_eq!(driver.finished().await, Finish::Length);
        let further = alone(&model, &ids, &[], 4);
        assert_eq!(driver.seen[0].ids(), further.ids());
        let of_other = match pairing {
            Pairing::Locked => further,
            _ => alone(&model, &steered.ids(), &[OTHER], 4),
        };
        assert_eq!(driver.seen[1].ids(), of_other.ids());
    }
}

#[tokio::test]
async fn the_engine_and_the_calling_thread_compare_alike() {
    let model = model();
    let mut driver = Driver::start().await;
    let job = Job {
        steering: Plan::load(&specs_of(&[PUSH]), model.card()).unwrap().0,
        attention: true,
        ..job(12)
    };
    driver.ask(Request::Compare(Box::new(job.clone()), Pairing::Free));
    assert_eq!(driver.finished().await, Finish::Length);
    let mut seen = [Seen::default(), Seen::default()];
    let mut take = |side: Side, event: Event| seen[side as usize].take(&event);
    let mut comparison = Comparison::start(&model, job, Pairing::Free, &mut take).unwrap();
    while comparison.advance(&model, &mut take).unwrap().is_none() {}
    for (here, there) in seen.iter().zip(&driver.seen) {
        assert_eq!(here.ids(), there.ids());
        assert_eq!(here.cells.len(), there.cells.len());
        for (position, cells) in &here.cells {
            assert_eq!(here.bits(*position), there.bits(*position), "{position}");
            assert_eq!(cells.divergence, there.cells[position].divergence);
            let entropies = |cells: &Cells| cells.attention.as_ref().unwrap().entropy.clone();
            assert_eq!(entropies(cells), entropies(&there.cells[position]));
        }
    }
}

#[test]
fn replaying_what_is_owed_and_what_is_half_read_ends_like_a_fresh_run() {
    let model = model();
    let prompt: Vec<u32> = (1..=220).map(|i| 20 + i % 500).collect();
    let whole = alone(&model, &prompt, &[PUSH], 4);
    // Stopped after so many steps, steered, replayed: with owed cells, in the middle of the prompt, after some tokens.
    for steps in [1, 2, 3, 5] {
        let job = Job {
            prompt: Prompt::Ids(prompt.clone()),
            fill: entroscope::session::Fill::Between,
            ..job(4)
        };
        let mut seen = Seen::default();
        let mut emit = |event: Event| seen.take(&event);
        let mut run = Generation::start(&model, job, &mut emit).unwrap();
        for _ in 0..steps {
            run.advance(&model, &mut emit).unwrap();
        }
        let drawn = run.drawn();
        run.steer(&Plan::load(&specs_of(&[PUSH]), model.card()).unwrap().0);
        run.replay(&model);
        while run.advance(&model, &mut emit).unwrap().is_none() {}
        assert_eq!(seen.tokens.len(), 224, "{steps}");
        let clean = match drawn {
            0 => whole.clone(),
            // What was drawn before stays: the plain model drew it.
            _ => alone(&model, &seen.ids()[..220 + drawn], &[PUSH], 4 - drawn),
        };
        assert_eq!(seen.ids(), clean.ids(), "{steps}");
        for position in 0..223 {
            assert_eq!(
                seen.bits(position),
                clean.bits(position),
                "{steps}: {position}"
            );
        }
    }
}

#[tokio::test]
async fn strengths_are_tried_while_no_run_is_under_way() {
    let model = model();
    let mut driver = Driver::start().await;
    let (specs, strengths) = (
        specs_of(&["mood,layers=4..12"]),
        Strengths::new(-0.4, 0.4, 5).unwrap(),
    );
    let sweep = || Request::Sweep(Box::new(job(10)), specs.clone(), strengths.clone());
    // A run that begins after it goes first, and is what it is alone.
    driver.ask(sweep());
    driver.ask(Request::Generate(Box::new(job(8))));
    assert_eq!(driver.finished().await, Finish::Length);
    let ids = driver.seen[0].ids();
    assert_eq!(ids, alone(&model, &ids[..ids.len() - 8], &[], 8).ids());
    let mut points = BTreeMap::new();
    let record = loop {
        match driver
            .until(|e| matches!(e, Event::Swept { .. } | Event::SweepEnded(_)))
            .await
        {
            Event::Swept { strength, point } => points.insert(strength, point),
            Event::SweepEnded(record) => break record,
            other => panic!("{other:?}"),
        };
    };
    let plan = Plan::load(&specs, model.card()).unwrap().0;
    let steered = Job {
        steering: plan,
        ..job(10)
    };
    let mut direct = Sweep::start(&model, steered, &strengths, &mut |_| {}).unwrap();
    while direct.advance(&model, &mut |_| {}).unwrap().is_none() {}
    let (curve, _) = direct.finish();
    assert_eq!(points.len(), 6);
    assert_eq!(Some(&points[&None]), curve.baseline());
    for index in 0..5 {
        assert_eq!(Some(&points[&Some(index)]), curve.point(index), "{index}");
    }
    assert_eq!(record.branches[0].1.len(), ids.len() + 2);
    // Stopped, it gives what has come.
    driver.ask(sweep());
    driver.ask(Request::StopSweep);
    driver.until(|e| matches!(e, Event::SweepEnded(_))).await;
}

/// Of different lengths, one of them over several chunks; each is what it is alone, pushed or not.
#[test]
fn two_prompts_are_rows_of_one_forward_and_neither_sees_the_other() {
    let model = model();
    let long: Vec<u32> = (1..=150).map(|i| 20 + i % 400).collect();
    let short: Vec<u32> = (1..=9).map(|i| 40 + i).collect();
    for specs in [&[][..], &[PUSH]] {
        let job = Job {
            steering: Plan::load(&specs_of(specs), model.card()).unwrap().0,
            prompt: Prompt::Ids(short.clone()),
            beside: Some(Prompt::Ids(long.clone())),
            ..job(7)
        };
        let mut seen = [Seen::default(), Seen::default()];
        let mut take = |side: Side, event: Event| seen[side as usize].take(&event);
        let mut both = Comparison::start(&model, job.clone(), Pairing::Free, &mut take).unwrap();
        while both.advance(&model, &mut take).unwrap().is_none() {}
        for (branch, prompt) in seen.iter().zip([&short, &long]) {
            let single = alone(&model, prompt, specs, 7);
            assert_eq!(branch.ids(), single.ids());
            assert_eq!(branch.cells.len(), single.cells.len());
            for (position, cells) in &branch.cells {
                assert_eq!(branch.bits(*position), single.bits(*position), "{position}");
                assert_eq!(cells.plan, u32::from(!specs.is_empty()));
                assert!(cells.divergence.is_none(), "two texts however they begin");
            }
        }
        let locked = Comparison::start(&model, job, Pairing::Locked, &mut |_, _| {});
        assert!(locked.is_err_and(|e| e.to_string().contains("two prompts")));
    }
}

#[tokio::test]
async fn what_is_read_at_once_is_pushed_by_a_replay_only() {
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bert");
    let reference = fixtures.display().to_string();
    let mut driver = Driver::open(&reference).await;
    let job = Job::new(Prompt::Ids((10..30).collect()), 0);
    driver.ask(Request::Generate(Box::new(job)));
    assert_eq!(driver.finished().await, Finish::Read);
    let plain = driver.seen[0].clone();
    assert_eq!(driver.steer(&["scale=0.5,layers=2"]).await, None);
    driver.replayed().await;
    let moved = (0..20).filter(|at| driver.seen[0].bits(*at) != plain.bits(*at));
    assert_eq!(moved.count(), 20);
    assert!(driver.seen[0].cells.values().all(|cells| cells.plan > 0));
}
