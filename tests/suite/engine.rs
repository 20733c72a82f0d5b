//! The engine thread: pausing, stepping, stopping and going on change nothing about what is read.

use entroscope::model::{LoadOptions, Sampling};
use entroscope::session::{
    Engine, Event, Fill, Finish, Generation, Job, Prompt, Request, SetJob, Sets,
};
use entroscope::trace::{Cells, Kind, Sample, Set, Token};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

/// What a run has left so far.
#[derive(Default)]
struct Seen {
    tokens: Vec<Token>,
    cells: BTreeMap<usize, Arc<Cells>>,
}

struct Driver {
    engine: Engine,
    events: UnboundedReceiver<Event>,
    seen: Seen,
}

impl Driver {
    async fn start() -> Self {
        Self::open("llama").await
    }

    async fn open(fixture: &str) -> Self {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        Self::load(fixtures.join(fixture).display().to_string()).await
    }

    async fn load(model: String) -> Self {
        let (engine, events) = Engine::start(model, LoadOptions::default()).unwrap();
        let mut driver = Self {
            engine,
            events,
            seen: Seen::default(),
        };
        driver.until(|e| matches!(e, Event::Loaded { .. })).await;
        driver
    }

    /// Take events until one satisfies `stop`, and return it.
    async fn until(&mut self, stop: impl Fn(&Event) -> bool) -> Event {
        loop {
            // Only a hang reaches the deadline.
            let next = timeout(Duration::from_secs(60), self.events.recv()).await;
            let event = next.expect("the engine answers").expect("the engine lives");
            match &event {
                Event::Started { .. } => self.seen = Seen::default(),
                Event::Token(token) => self.seen.tokens.push(token.clone()),
                Event::Cells { position, cells } => {
                    self.seen.cells.insert(*position, cells.clone());
                }
                _ => {}
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

    /// Ids, and the bits of every cell by position.
    fn result(&self) -> (Vec<u32>, Vec<Vec<u32>>) {
        let ids = self.seen.tokens.iter().map(|t| t.id).collect();
        let cells = self.seen.cells.values();
        let bits = cells.map(|c| c.values.iter().map(|v| v.to_bits()).collect());
        (ids, bits.collect())
    }
}

fn job(new: usize) -> Job {
    let mut job = Job::new(Prompt::Ids((1..=100).collect()), new);
    job.ignore_eos = true;
    job
}

async fn unbroken(new: usize) -> (Vec<u32>, Vec<Vec<u32>>) {
    let mut driver = Driver::start().await;
    driver.ask(Request::Generate(Box::new(job(new))));
    assert_eq!(driver.finished().await, Finish::Length);
    driver.result()
}

#[tokio::test]
async fn a_run_that_was_stopped_in_its_prompt_ends_like_an_unbroken_one() {
    let whole = unbroken(6).await;
    for wait in [false, true] {
        let mut driver = Driver::start().await;
        driver.ask(Request::Generate(Box::new(job(6))));
        if wait {
            driver.until(|e| matches!(e, Event::Cells { .. })).await;
        }
        driver.ask(Request::Stop);
        // Once cells are here, all the rest may be too.
        if driver.finished().await == Finish::Stopped {
            let drawn = driver.seen.tokens.len() - 100;
            driver.ask(Request::Continue(6 - drawn));
            assert_eq!(driver.finished().await, Finish::Length);
        } else {
            assert!(wait, "nothing was read before the request");
        }
        assert_eq!(driver.result(), whole);
    }
}

#[tokio::test]
async fn reading_only_then_going_on_equals_one_run() {
    let whole = unbroken(5).await;
    for read_last in [false, true] {
        let mut driver = Driver::start().await;
        let first = Job {
            read_last,
            ..job(0)
        };
        driver.ask(Request::Generate(Box::new(first)));
        assert_eq!(driver.finished().await, Finish::Length);
        assert_eq!(driver.seen.cells.len(), 100);
        driver.ask(Request::Continue(5));
        assert_eq!(driver.finished().await, Finish::Length);
        let (ids, cells) = driver.result();
        assert_eq!(ids, whole.0);
        assert_eq!(cells[..104], whole.1[..104]);
    }
}

#[tokio::test]
async fn pausing_and_stepping_draw_one_token_each() {
    let whole = unbroken(4).await;
    let mut driver = Driver::start().await;
    driver.ask(Request::Generate(Box::new(job(4))));
    driver.ask(Request::Pause);
    driver.until(|e| matches!(e, Event::Paused)).await;
    let mut held = driver.seen.tokens.len();
    while held < 103 {
        driver.ask(Request::Step);
        driver.until(|e| matches!(e, Event::Paused)).await;
        assert_eq!(driver.seen.tokens.len(), held.max(100) + 1);
        held = driver.seen.tokens.len();
    }
    driver.ask(Request::Resume);
    assert_eq!(driver.finished().await, Finish::Length);
    assert_eq!(driver.result(), whole);
}

#[tokio::test]
async fn a_full_context_ends_the_run_again_and_again() {
    let mut driver = Driver::start().await;
    driver.ask(Request::Generate(Box::new(job(1000))));
    assert_eq!(driver.finished().await, Finish::ContextFull);
    let tokens = driver.seen.tokens.len();
    driver.ask(Request::Continue(3));
    assert_eq!(driver.finished().await, Finish::ContextFull);
    assert_eq!(driver.seen.tokens.len(), tokens);
}

#[tokio::test]
async fn a_masked_model_reads_and_never_draws() {
    let mut driver = Driver::open("bert").await;
    driver.ask(Request::Generate(Box::new(job(7))));
    assert_eq!(driver.finished().await, Finish::Read);
    let first = driver.result();
    assert_eq!((first.0.len(), first.1.len()), (100, 100));
    for request in [Request::Continue(3), Request::Step, Request::Continue(1)] {
        let goes_on = matches!(request, Request::Continue(_));
        driver.ask(request);
        if goes_on {
            assert_eq!(driver.finished().await, Finish::Read);
        }
        assert_eq!(driver.result(), first);
    }
}

#[tokio::test]
async fn a_model_without_a_limit_reads_on() {
    let mut driver = Driver::open("mamba").await;
    let mut job = job(2);
    job.prompt = Prompt::Ids((1..=100).cycle().take(700).collect());
    job.attention = true;
    driver.ask(Request::Generate(Box::new(job)));
    assert_eq!(driver.finished().await, Finish::Length);
    assert_eq!(driver.seen.tokens.len(), 702);
    assert!(driver.seen.cells.values().all(|c| c.attention.is_none()));
}

#[tokio::test]
async fn a_refused_job_leaves_the_run_before_it_alone() {
    let mut driver = Driver::start().await;
    driver.ask(Request::Generate(Box::new(job(2))));
    driver.finished().await;
    for refused in [
        Job::new(Prompt::Text(" ".into()), 3),
        Job::new(Prompt::Ids(vec![1; 5000]), 3),
        Job::new(Prompt::Chat("hello".into()), 3),
        Job {
            sampling: Sampling {
                temperature: -1.0,
                ..Sampling::default()
            },
            ..job(1)
        },
    ] {
        driver.ask(Request::Generate(Box::new(refused)));
        driver.until(|e| matches!(e, Event::Failed(_))).await;
    }
    driver.ask(Request::Continue(2));
    assert_eq!(driver.finished().await, Finish::Length);
    assert_eq!(driver.seen.tokens.len(), 104);
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_leaves_the_engine_ready() {
    let mut driver = Driver::start().await;
    driver.ask(Request::Load("/no/such/model.gguf".into()));
    driver.until(|e| matches!(e, Event::Failed(_))).await;
    driver.ask(Request::Generate(Box::new(job(1))));
    assert_eq!(driver.finished().await, Finish::Length);
    driver.ask(Request::Shutdown);
    while let Some(event) = driver.events.recv().await {
        assert!(!matches!(event, Event::Failed(_)), "{event:?}");
    }
}

/// Cells of a position, or a token.
type Step = (Option<usize>, u32, Option<Arc<Cells>>);

/// The first token of a long prompt comes before the cells of its earlier chunks, which come where the eye is first, and in
/// the end every cell is what it is when all are read before.
#[test]
fn owed_cells_come_where_the_eye_is_and_are_the_same() {
    let model = entroscope::model::Model::load("demo", &LoadOptions::default(), &mut |_, _, _| {});
    let model = model.unwrap();
    let ids: Vec<u32> = (0..200).map(|i| 5 + i * 7 % 900).collect();
    let run = |fill: Fill, look: Option<std::ops::Range<usize>>| {
        let mut job = Job::new(Prompt::Ids(ids.clone()), 20);
        (job.ignore_eos, job.attention, job.fill) = (true, true, fill);
        let mut events = Vec::new();
        let mut generation = Generation::start(&model, job, &mut |_| {}).unwrap();
        if let Some(look) = look {
            generation.look(look);
        }
        let finish = loop {
            let ended = generation.advance(&model, &mut |event| match event {
                Event::Token(token) => events.push((None, token.id, None)),
                Event::Cells { position, cells } => events.push((Some(position), 0, Some(cells))),
                _ => {}
            });
            if let Some(why) = ended.unwrap() {
                break why;
            }
        };
        assert_eq!(finish, Finish::Length);
        assert!(!generation.owes());
        events
    };
    let drawn_before = |events: &[Step]| {
        let first = events.iter().position(|e| e.0 == Some(0)).unwrap();
        events[..first].iter().filter(|e| e.0.is_none()).count()
    };
    let before = run(Fill::Before, None);
    let unseen = run(Fill::Between, None);
    let seen = run(Fill::Between, Some(10..30));
    assert_eq!(drawn_before(&before), 0);
    assert_eq!(drawn_before(&unseen), 20);
    assert_eq!(drawn_before(&seen), 4);
    let sorted = |events: &[Step]| {
        let cells = events.iter().filter_map(|e| Some((e.0?, e.2.clone()?)));
        let tokens: Vec<u32> = events
            .iter()
            .filter(|e| e.0.is_none())
            .map(|e| e.1)
            .collect();
        (cells.collect::<BTreeMap<usize, Arc<Cells>>>(), tokens)
    };
    let (cells, tokens) = sorted(&before);
    assert_eq!((cells.len(), tokens.len()), (219, 20));
    for other in [&unseen, &seen] {
        let (others, other_tokens) = sorted(other);
        assert_eq!(tokens, other_tokens);
        assert_eq!(others.len(), cells.len());
        for (position, cells) in &cells {
            let same =
                |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
            let other = &others[position];
            assert!(same(&cells.values, &other.values), "{position}");
            let entropy = |cells: &Cells| cells.attention.as_ref().unwrap().entropy.clone();
            assert!(same(&entropy(cells), &entropy(other)), "{position}");
        }
    }
}

/// The engine knows what is on the screen before a run begins, and a stopped run still completes what it owes.
#[tokio::test]
async fn a_stopped_run_completes_the_cells_that_it_owes() {
    let mut driver = Driver::load("demo".into()).await;
    let job = |count: u32| {
        let ids = (0..count).map(|i| 5 + i * 7 % 900).collect();
        let mut job = Job::new(Prompt::Ids(ids), 40);
        (job.ignore_eos, job.fill) = (true, Fill::Between);
        Request::Generate(Box::new(job))
    };
    driver.engine.send(Request::Look(0..50));
    driver.engine.send(job(200));
    driver
        .until(|e| matches!(e, Event::Cells { position: 0, .. }))
        .await;
    let drawn = driver.seen.tokens.len() - 200;
    assert!(
        (4..40).contains(&drawn),
        "{drawn} tokens before what the eye is on"
    );
    // Out of sight, and stopped after the first token.
    driver.engine.send(Request::Look(190..200));
    driver.engine.send(job(200));
    // What comes before this belongs to the run before.
    driver.until(|e| matches!(e, Event::Started { .. })).await;
    driver
        .until(|e| matches!(e, Event::Token(t) if t.kind == Kind::Generated))
        .await;
    driver.engine.send(Request::Stop);
    driver
        .until(|e| matches!(e, Event::Finished(Finish::Stopped)))
        .await;
    driver
        .until(|e| matches!(e, Event::Cells { position: 127, .. }))
        .await;
    let missing = (0..200).filter(|i| !driver.seen.cells.contains_key(i));
    assert_eq!(missing.count(), 0);
}

/// Two sets through the thread, held and stopped on the way, are what they are on the calling thread.
#[tokio::test]
async fn two_sets_of_prompts_are_read_as_they_are_without_the_thread() {
    // More than are read at once, so that there is a moment to stop at.
    let many = |texts: [&str; 3]| -> Vec<Prompt> {
        let texts = texts.iter().cycle().take(24);
        texts.map(|text| Prompt::Text((*text).to_owned())).collect()
    };
    let job = SetJob {
        known: many([
            "The place Prilus calls home is",
            "The place Tamel calls home is",
            "The place Nerluk calls home is",
        ]),
        unknown: many([
            "The place Tado calls home is",
            "The place Troden calls home is",
            "Krulok",
        ]),
        each: Job::new(Prompt::Text(String::new()), 1),
    };
    let model =
        entroscope::model::Model::load("demo", &LoadOptions::default(), &mut |_, _, _| {}).unwrap();
    let mut direct = Sets::start(&model, job.clone()).unwrap();
    let mut expected = Vec::new();
    while direct
        .advance(&model, &mut |set, sample| {
            expected.push((set, sample.clone()))
        })
        .unwrap()
    {}
    let mut driver = Driver::load("demo".into()).await;
    driver.ask(Request::Separate(Box::new(job)));
    // Held before anything is read, and stopped there.
    driver.ask(Request::Pause);
    driver.ask(Request::Stop);
    let total = loop {
        if let Some(Event::Separating { total, states, .. }) = driver.events.recv().await {
            assert_eq!(states, model.card().blocks + 1);
            break total;
        }
    };
    assert_eq!((total, expected.len()), (48, 48));
    let mut heard: Vec<(Set, Arc<Sample>)> = Vec::new();
    let mut stops = 0;
    loop {
        let event = timeout(Duration::from_secs(60), driver.events.recv()).await;
        match event.expect("the engine answers").expect("it lives") {
            Event::Sample(set, sample) => heard.push((set, sample)),
            Event::Finished(Finish::Stopped) => {
                stops += 1;
                driver.ask(Request::Continue(0));
            }
            Event::Finished(finish) => {
                assert_eq!(finish, Finish::Read);
                break;
            }
            Event::Paused | Event::Resumed => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(stops, 1);
    let bits = |samples: &[(Set, Arc<Sample>)]| -> Vec<(Set, usize, Vec<u64>)> {
        let one = |(set, s): &(Set, Arc<Sample>)| {
            let values = s.values.iter().map(|v| v.to_bits()).collect();
            (*set, s.prompt_tokens, values)
        };
        samples.iter().map(one).collect()
    };
    assert_eq!(bits(&heard), bits(&expected));
}
