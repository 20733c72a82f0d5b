//! Two models on one prompt.

use super::binary::{fails, works};
use super::compare::{alone, assert_same_cells, header, ids, job, json, log_probs};
use super::devices::elsewhere;
use super::oracle::{close, folder, load_as};
use super::steer::load;
use entroscope::model::{LoadOptions, Model};
use entroscope::session::{
    Against, Event, Finish, Job, Prompt, Recorder, branch_names, open_beside,
};
use entroscope::steer::Plan;
use entroscope::trace::{Grid, Metric, Pairing, Record, Side, TwoModels};

const TEXT: &str = "The quick brown fox is over the lazy dog";

fn plain(model: &Model, prompt: Prompt, new: usize) -> Job {
    Job {
        steering: Plan::default(),
        ..job(model, prompt, new, 0.0)
    }
}

/// Both models to their ends.
fn both(a: &Model, b: &Model, job: &Job, pairing: Pairing) -> ([Record; 2], [Finish; 2]) {
    let names = branch_names(a.card(), b.card());
    let recorder = |model: &Model, name| Recorder::of_branch(model.card().clone(), job, name);
    let mut recorders = [recorder(a, &names[0]), recorder(b, &names[1])];
    let mut finished = 0;
    let mut heard = |side: Side, event: Event| {
        finished += usize::from(matches!(event, Event::Finished(_)));
        recorders[side as usize].apply(&event);
    };
    let mut against = Against::start(a, b, job.clone(), pairing, &mut heard).unwrap();
    let finish = loop {
        if let Some(finish) = against.advance(a, b, &mut heard).unwrap() {
            break finish;
        }
    };
    assert_eq!(finished, 2);
    (recorders.map(Recorder::into_record), finish)
}

fn grid(record: &Record) -> &Grid {
    &record.branches[0].1
}

#[test]
fn each_of_two_models_is_what_it_is_alone() {
    for (a, b) in [("gpt2", "llama"), ("gpt2", "bert"), ("bert", "mamba2")] {
        let (a, b) = (load(a), load(b));
        for read_last in [false, true] {
            let job = Job {
                attention: true,
                read_last,
                ..plain(&a, Prompt::Text(TEXT.into()), 7)
            };
            let (records, finish) = both(&a, &b, &job, Pairing::Free);
            for ((model, record), finish) in [&a, &b].into_iter().zip(&records).zip(finish) {
                let expected = alone(model, &job);
                assert_eq!(ids(grid(record)), ids(&expected));
                assert_same_cells(grid(record), &expected, 0..expected.len());
                let ended = match model.card().causal {
                    true => Finish::Length,
                    false => Finish::Read,
                };
                assert_eq!(finish, ended);
                assert_eq!(record.branches[0].0, model.card().name);
            }
            let [one, other] = &records;
            assert_ne!(ids(grid(one)), ids(grid(other)));
        }
    }
}

/// KL of two distributions that are given as ln p.
fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum()
}

#[test]
fn a_locked_model_reads_the_text_of_the_other() {
    for (a, b, tokens) in [
        ("gpt2", "bloom", 40),
        ("mamba2", "gpt_neox", 20),
        ("gpt2", "zamba2", 20),
        ("bert", "bert_hub", 20),
    ] {
        let what = format!("{a} {b}");
        let (a, b) = (load(a), load(b));
        let job = Job {
            attention: true,
            ..plain(&a, Prompt::Ids((5..5 + tokens).collect()), 6)
        };
        let (records, finish) = both(&a, &b, &job, Pairing::Locked);
        let [of_a, of_b] = [0, 1].map(|i| grid(&records[i]));
        let expected = alone(&a, &job);
        let text = ids(&expected);
        assert_eq!(
            (ids(of_a), ids(of_b)),
            (text.clone(), text.clone()),
            "{what}"
        );
        assert_same_cells(of_a, &expected, 0..text.len());
        let causal = a.card().causal;
        let ended = if causal { Finish::Length } else { Finish::Read };
        assert_eq!(finish, [ended; 2]);
        // What B says of a text that it is given.
        let given = Job {
            prompt: Prompt::Ids(text.clone()),
            max_new_tokens: 0,
            ..job.clone()
        };
        let read = text.len() - usize::from(causal);
        assert_same_cells(of_b, &alone(&b, &given), 0..read);
        assert!((0..read).all(|at| of_a.cells(at).unwrap().divergence.is_none()));
        if a.card().blocks != b.card().blocks {
            assert!((0..read).all(|at| of_b.cells(at).unwrap().divergence.is_none()));
            continue;
        }
        let [p, q] = [&a, &b].map(|model| log_probs(model, &text, &[]));
        let mut largest = 0.0f64;
        for position in 0..read {
            let found = of_b.cells(position).unwrap().divergence.as_ref().unwrap();
            for (layer, found) in found.iter().enumerate() {
                let kl = kl(&p[layer][position], &q[layer][position]);
                close(
                    &format!("{what} {layer} {position}"),
                    *found,
                    kl as f32,
                    1e-4,
                    1e-5,
                );
                largest = largest.max(kl);
            }
        }
        // The two BERTs are one under different names.
        assert_eq!(largest > 0.01, causal, "{what}: {largest}");
    }
}

#[test]
fn a_model_is_at_no_distance_from_itself() {
    let (a, b) = (load("demo"), load("demo"));
    // More than are opened at once.
    let job = plain(&a, Prompt::Ids((5..105).collect()), 3);
    let (records, _) = both(&a, &b, &job, Pairing::Locked);
    assert_eq!(
        [0, 1].map(|i| records[i].branches[0].0.as_str()),
        ["demo (A)", "demo (B)"]
    );
    let expected = alone(&a, &job);
    for record in &records {
        assert_same_cells(grid(record), &expected, 0..expected.len());
    }
    let models = TwoModels::new(&records[0], &records[1]);
    for layer in 0..=a.card().blocks {
        let kl = models.divergence(layer).unwrap();
        assert_eq!((kl.mean, kl.std, kl.n), (0.0, 0.0, 3), "{layer}");
    }
}

#[test]
fn divergences_of_two_heads_on_another_device_are_the_processors() {
    let there = |family| {
        let options = LoadOptions {
            placement: Some(elsewhere()),
            ..LoadOptions::default()
        };
        load_as(family, &options)
    };
    let prompt = Prompt::Ids((5..35).collect());
    let [found, expected] = [
        [there("gpt2"), there("bloom")],
        [load("gpt2"), load("bloom")],
    ]
    .map(|[a, b]| {
        let job = plain(&a, prompt.clone(), 0);
        let (records, _) = both(&a, &b, &job, Pairing::Locked);
        (0..30)
            .flat_map(|at| {
                let cells = grid(&records[1]).cells(at).unwrap();
                cells.divergence.as_ref().unwrap().to_vec()
            })
            .collect::<Vec<f32>>()
    });
    assert_eq!(found.len(), 30 * 4);
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        close(&format!("cell {i}"), *found, *expected, 1e-4, 1e-4);
    }
    assert!(expected.iter().any(|kl| *kl > 0.01));
}

#[test]
fn layers_are_matched_by_depth_and_each_has_its_own_positions() {
    let (a, b) = (load("gpt2"), load("zamba2"));
    let job = plain(&a, Prompt::Text(TEXT.into()), 5);
    let (records, _) = both(&a, &b, &job, Pairing::Free);
    let models = TwoModels::new(&records[0], &records[1]);
    let (blocks_a, blocks_b) = (a.card().blocks, b.card().blocks);
    let matched: Vec<(usize, usize)> = models.depths().layers().collect();
    assert_eq!(
        (matched[0], matched[blocks_a]),
        ((0, 0), (blocks_a, blocks_b))
    );
    assert_ne!(blocks_a, blocks_b);
    for metric in (0..records[0].schema.len()).map(Metric) {
        let [of_a, of_b] = [0, 1].map(|i| {
            let grid = grid(&records[i]);
            grid.mean_profile(grid.predicting_positions(), metric)
        });
        for (layer_a, layer_b) in &matched {
            let both = models.at(*layer_a, metric);
            let (a, b) = (both.a.unwrap(), both.b.unwrap());
            for (found, (mean, n)) in [(a, of_a[*layer_a]), (b, of_b[*layer_b])] {
                let mean = mean.unwrap();
                assert!((found.mean - mean).abs() <= 1e-9 * mean.abs());
                assert_eq!((found.n, n), (5, 5));
            }
            assert_eq!(both.difference, Some(b.mean - a.mean));
        }
    }
    assert!((0..=blocks_a).all(|layer| models.divergence(layer).is_none()));
}

#[test]
fn what_cannot_be_locked_says_why() {
    let refused = |a: &Model, b: &Model, prompt: Prompt, pairing, says: &[&str]| {
        let job = plain(a, prompt, 3);
        let refused = Against::start(a, b, job, pairing, &mut |_, _| panic!("it begins"));
        let error = refused.err().unwrap();
        assert_eq!(error.exit_code(), 2);
        let message = error.to_string();
        for part in says {
            assert!(message.contains(part), "{message:?} should say {part:?}");
        }
    };
    let text = || Prompt::Text(TEXT.into());
    let ids = || Prompt::Ids(vec![5, 6]);
    let (gpt2, llama, bert) = (load("gpt2"), load("llama"), load("bert"));
    let locked = Pairing::Locked;
    refused(&gpt2, &bert, text(), locked, &["both sides", "own text"]);
    refused(
        &gpt2,
        &llama,
        text(),
        locked,
        &["gpt2", "llama", "position 0"],
    );
    refused(
        &gpt2,
        &load("qwen2"),
        text(),
        locked,
        &["400 logits", "416"],
    );
    // Two words that change places.
    let home = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(folder("gpt2")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), home.path().join(file.file_name())).unwrap();
    }
    let path = home.path().join("tokenizer.json");
    let mut tokenizer = json(&std::fs::read_to_string(&path).unwrap());
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    for id in vocabulary.values_mut() {
        *id = match id.as_u64() {
            Some(300) => 301.into(),
            Some(301) => 300.into(),
            other => other.into(),
        };
    }
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    let reference = home.path().display().to_string();
    let options = LoadOptions::default();
    let changed = Model::load(&reference, &options, &mut |_, _, _| {}).unwrap();
    refused(&gpt2, &changed, text(), locked, &["token 300 is"]);
    refused(
        &gpt2,
        &changed,
        ids(),
        Pairing::Free,
        &["token 300 is", "as text"],
    );
    refused(
        &gpt2,
        &llama,
        Prompt::Text(" ".into()),
        Pairing::Free,
        &["gpt2: ", "empty"],
    );
    let mut steered = job(&gpt2, text(), 3, 1.0);
    let bloom = load("bloom");
    let refuse = |job: Job| Against::start(&gpt2, &bloom, job, locked, &mut |_, _| {}).err();
    let message = refuse(steered.clone()).unwrap().to_string();
    assert!(message.contains("control vector"), "{message}");
    steered.steering = Plan::default();
    assert!(refuse(steered).is_none());
}

#[test]
fn two_models_are_stopped_after_a_step() {
    let (a, b) = (load("gpt2"), load("bloom"));
    for pairing in [Pairing::Free, Pairing::Locked] {
        let job = plain(&a, Prompt::Text(TEXT.into()), 20);
        let mut against = Against::start(&a, &b, job, pairing, &mut |_, _| {}).unwrap();
        let mut drawn = [0, 0];
        let mut stopped = 0;
        while drawn[1] < 3 {
            let mut heard = |side: Side, event| {
                drawn[side as usize] += usize::from(matches!(event, Event::Token(_)));
            };
            assert!(against.advance(&a, &b, &mut heard).unwrap().is_none());
        }
        let finish = against.stop(&mut |_, event| {
            assert!(matches!(event, Event::Finished(Finish::Stopped)));
            stopped += 1;
        });
        assert_eq!((finish, stopped), ([Finish::Stopped; 2], 2));
        assert_eq!(drawn, [3, 3]);
        assert_eq!(against.stop(&mut |_, _| panic!("it has ended")), finish);
    }
}

#[test]
fn a_second_model_must_fit_beside_the_first() {
    let a = load("gpt2");
    let load = |memory| {
        let options = LoadOptions {
            memory: Some(memory),
            ..LoadOptions::default()
        };
        let reference = folder("bloom").display().to_string();
        open_beside(&reference, &options, &a, &mut |_, _, _| {})
    };
    let owed = a.plan().total(1024) - a.plan().weights;
    let b = load(u64::MAX).unwrap();
    let needed = b.plan().total(1024);
    load(owed + needed).unwrap();
    // Enough alone, but not beside the first.
    let error = load(owed + needed - 1).err().unwrap().to_string();
    assert!(
        error.contains("second model cannot be loaded: the model needs"),
        "{error}"
    );
}

#[test]
fn two_models_are_printed_and_written() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let path = |family| folder(family).display().to_string();
    let (gpt2, zamba2, bloom, bert) = (path("gpt2"), path("zamba2"), path("bloom"), path("bert"));
    let out = home.join("out");
    let into = out.display().to_string();
    let line = ["compare", TEXT, "-n", "5", "--ignore-eos", "--model", &gpt2];
    let compare = |more: &[&str]| works(home, &[&line[..], more].concat());
    let table = compare(&["--against", &zamba2, "--out", &into]);
    for says in [
        "A = gpt2, gpt2 of 3 blocks",
        "B = zamba2, zamba2 of 5 blocks",
        "5 predicting positions",
        "no KL(A‖B), as each model reads its own text",
    ] {
        assert!(table.contains(says), "{table}");
    }
    let last = table.trim_end().lines().last().unwrap().split_whitespace();
    assert_eq!(last.take(2).collect::<Vec<_>>(), ["3", "5"], "{table}");
    assert!(
        table.contains("prob_margin") && !table.contains("kl_ab"),
        "{table}"
    );
    let files = || {
        let names = std::fs::read_dir(&out).unwrap();
        let mut names: Vec<String> = names
            .map(|f| f.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        files(),
        ["cells.csv", "manifest.json", "models.csv", "tokens.csv"]
    );
    assert_eq!(
        header(&out.join("models.csv")),
        "layer_a,layer_b,depth,metric,unit,mean_a,std_a,n_a,mean_b,std_b,n_b,difference"
    );
    let cells = std::fs::read_to_string(out.join("cells.csv")).unwrap();
    let of = |branch: &str| cells.lines().filter(|l| l.starts_with(branch)).count();
    assert_eq!(of("gpt2,") % 4, 0);
    assert_eq!(of("zamba2,") % 6, 0);
    assert_eq!(1 + of("gpt2,") + of("zamba2,"), cells.lines().count());
    let manifest = || json(&std::fs::read_to_string(out.join("manifest.json")).unwrap());
    let written = manifest();
    assert_eq!(written["comparison"], "free");
    assert_eq!(written["model"]["name"], "gpt2");
    assert_eq!(written["against"]["name"], "zamba2");
    for model in ["model", "against"] {
        assert_eq!(written[model]["sha256"].as_str().unwrap().len(), 64);
    }
    assert_eq!(written["branches"][1]["name"], "zamba2");

    let locked = ["--against", &bloom, "--locked", "--out", &into, "--force"];
    let report = json(&compare(
        &[&locked[..], &["--json", "--attention"]].concat(),
    ));
    assert_eq!(report["mode"], "locked");
    assert_eq!(
        report["models"][0]["token_ids"],
        report["models"][1]["token_ids"]
    );
    assert!(report.get("no_kl_ab").is_none());
    let rows = report["layers"].as_array().unwrap();
    let kl = rows.iter().filter(|row| row["metric"] == "kl_ab");
    assert_eq!(kl.filter(|row| row["kl_ab"]["n"] == 5).count(), 4);
    let all = [
        "attention.csv",
        "attention_layers.csv",
        "cells.csv",
        "compare.csv",
        "manifest.json",
        "models.csv",
        "tokens.csv",
    ];
    assert_eq!(files(), all);
    let table = compare(&["--against", &bloom, "--locked"]);
    assert!(table.contains("layer        KL(A‖B)  n"), "{table}");
    assert_eq!(manifest()["comparison"], "locked");
    // The table of layers says the same.
    let csv = std::fs::read_to_string(out.join("models.csv")).unwrap();
    let rows = rows.iter().filter(|row| row["metric"] != "kl_ab");
    for (line, row) in csv.lines().skip(1).zip(rows.clone()) {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells[3], row["metric"]);
        let mean = |side: &str| row[side]["mean"].as_f64().map(|mean| mean as f32);
        assert_eq!(cells[5].parse::<f32>().ok(), mean("a"), "{line}");
        assert_eq!(cells[8].parse::<f32>().ok(), mean("b"), "{line}");
    }
    assert_eq!(csv.lines().count(), 1 + rows.count());

    // One that fills gaps beside one that generates.
    let table = compare(&["--against", &bert]);
    assert!(
        table.contains("B = bert, bert of 3 blocks (text read)"),
        "{table}"
    );
    assert!(table.contains("text positions"), "{table}");
    fails(
        home,
        &[&line[..], &["--against", &bert, "--locked"]].concat(),
        2,
        &["bert cannot be locked to the text of gpt2", "both sides"],
    );
    let masked = [
        "compare",
        TEXT,
        "-n",
        "5",
        "--model",
        &bert,
        "--against",
        &bert,
    ];
    fails(home, &masked, 2, &["generates nothing"]);
    let steered = ["--against", &bloom, "--steer", "scale=0.5"];
    fails(
        home,
        &[&line[..], &steered].concat(),
        2,
        &["cannot be used"],
    );
}

#[test]
fn two_prompts_are_printed_and_written() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("out");
    let into = out.display().to_string();
    let known = ["compare", "The place Prilus calls home is", "-n", "3"];
    let both = [
        &known[..],
        &["--beside", "Once upon a time", "--out", &into],
    ]
    .concat();
    let table = works(home.path(), &both);
    for says in [
        "A = A, llama",
        "B = B, llama",
        "as each has a prompt of its own",
    ] {
        assert!(table.contains(says), "{table}");
    }
    let manifest = json(&std::fs::read_to_string(out.join("manifest.json")).unwrap());
    assert_eq!(manifest["comparison"], "prompts");
    let models = std::fs::read_to_string(out.join("models.csv")).unwrap();
    // Each is what a run of it alone says.
    let alone = works(
        home.path(),
        &["run", "Once upon a time", "-n", "3", "--json"],
    );
    let alone: Vec<serde_json::Value> = alone
        .lines()
        .map(|line| json(line)["token_id"].clone())
        .collect();
    let cells = std::fs::read_to_string(out.join("tokens.csv")).unwrap();
    let drawn = cells
        .lines()
        .filter(|l| l.starts_with("B,") && l.contains("generated"));
    assert_eq!(drawn.count(), 3);
    let report = json(&works(
        home.path(),
        &[&known[..], &["--beside", "Once upon a time", "--json"]].concat(),
    ));
    let ids = report["models"][1]["token_ids"].as_array().unwrap();
    assert_eq!(ids[..alone.len()], alone[..]);
    assert!(
        ids.len() <= alone.len() + 1,
        "the last drawn one is not read"
    );
    assert!(models.lines().count() > 13 * 20);
}

/// The engine thread against the same comparison run directly.
mod on_the_engine {
    use super::*;
    use entroscope::session::{Engine, Request};
    use std::time::Duration;
    use tokio::sync::mpsc::UnboundedReceiver;
    use tokio::time::timeout;

    struct Driver {
        engine: Engine,
        events: UnboundedReceiver<Event>,
        recorders: Option<[Recorder; 2]>,
        finished: [usize; 2],
    }

    impl Driver {
        async fn next(&mut self) -> Event {
            // Only a hang reaches the deadline.
            let next = timeout(Duration::from_secs(60), self.events.recv()).await;
            let event = next.expect("the engine answers").expect("the engine lives");
            if let (Event::Side(side, event), Some(recorders)) = (&event, &mut self.recorders) {
                recorders[*side as usize].apply(event);
                let finished = matches!(**event, Event::Finished(_));
                self.finished[*side as usize] += usize::from(finished);
            }
            event
        }

        async fn until(&mut self, stop: impl Fn(&Event) -> bool) -> Event {
            loop {
                let event = self.next().await;
                if stop(&event) {
                    return event;
                }
            }
        }

        fn record_anew(&mut self, a: &Model, b: &Model, job: &Job) {
            let of = |model: &Model| Recorder::of_branch(model.card().clone(), job, "x");
            (self.recorders, self.finished) = (Some([of(a), of(b)]), [0; 2]);
        }

        fn drawn(&self) -> [usize; 2] {
            let recorders = self.recorders.as_ref().unwrap();
            recorders.each_ref().map(|recorder| {
                let grid = recorder.grid().unwrap();
                grid.len() - grid.prompt_len()
            })
        }

        fn assert_equals(&self, direct: &[Record; 2]) {
            for (recorder, direct) in self.recorders.as_ref().unwrap().iter().zip(direct) {
                let heard = recorder.grid().unwrap();
                assert_eq!(ids(heard), ids(grid(direct)));
                assert_same_cells(heard, grid(direct), 0..heard.len());
            }
        }
    }

    async fn start(fixture: &str) -> Driver {
        let reference = folder(fixture).display().to_string();
        let (engine, events) = Engine::start(reference, LoadOptions::default()).unwrap();
        let mut driver = Driver {
            engine,
            events,
            recorders: None,
            finished: [0; 2],
        };
        let loaded = |event: &Event| matches!(event, Event::Loaded { .. });
        driver.until(loaded).await;
        driver
    }

    fn finished(event: &Event) -> bool {
        matches!(event, Event::Finished(_))
    }

    #[tokio::test]
    async fn the_engine_compares_two_models_as_they_are_compared_directly() {
        for (first, second, pairing) in [
            ("gpt2", "llama", Pairing::Free),
            ("gpt2", "bert", Pairing::Free),
            ("bert", "gpt2", Pairing::Free),
            ("gpt2", "gpt2", Pairing::Locked),
        ] {
            let (a, b) = (load(first), load(second));
            let job = plain(&a, Prompt::Text(TEXT.into()), 6);
            let (direct, _) = both(&a, &b, &job, pairing);
            let mut driver = start(first).await;
            let reference = folder(second).display().to_string();
            let against = Request::Against(Box::new(job.clone()), reference, pairing);
            for loads in [true, false] {
                driver.record_anew(&a, &b, &job);
                driver.engine.send(against.clone());
                let mut loading = false;
                loop {
                    match driver.next().await {
                        Event::LoadingOther { .. } => loading = true,
                        Event::OtherLoaded { card, .. } => {
                            assert_eq!(card.name, b.card().name);
                            break;
                        }
                        event => panic!("{event:?}"),
                    }
                }
                assert_eq!(loading, loads, "it stays for the next time");
                driver.until(finished).await;
                assert_eq!(driver.finished, [1; 2]);
                driver.assert_equals(&direct);
            }
        }
    }

    #[tokio::test]
    async fn a_step_draws_a_token_of_each_and_what_ended_goes_on() {
        for pairing in [Pairing::Free, Pairing::Locked] {
            let model = load("gpt2");
            let prompt = Prompt::Text(TEXT.into());
            let (direct, _) = both(&model, &model, &plain(&model, prompt.clone(), 9), pairing);
            let mut driver = start("gpt2").await;
            let job = plain(&model, prompt, 5);
            driver.record_anew(&model, &model, &job);
            let reference = folder("gpt2").display().to_string();
            let request = Request::Against(Box::new(job), reference, pairing);
            driver.engine.send(request);
            driver.engine.send(Request::Pause);
            let paused = |event: &Event| matches!(event, Event::Paused);
            driver.until(paused).await;
            for _ in 0..3 {
                let before = driver.drawn();
                driver.engine.send(Request::Step);
                driver.until(paused).await;
                assert_eq!(driver.drawn(), before.map(|drawn| drawn + 1), "{pairing:?}");
            }
            driver.engine.send(Request::Resume);
            driver.until(finished).await;
            assert_eq!(driver.drawn(), [5; 2]);
            driver.engine.send(Request::Continue(4));
            driver.until(finished).await;
            driver.assert_equals(&direct);
        }
    }

    #[tokio::test]
    async fn what_is_refused_leaves_the_first_model_to_work_with() {
        let model = load("gpt2");
        let mut driver = start("gpt2").await;
        let job = plain(&model, Prompt::Text(TEXT.into()), 3);
        let failed = |event: &Event| matches!(event, Event::Failed(_));
        for (reference, pairing, said) in [
            (
                folder("nothing").display().to_string(),
                Pairing::Free,
                "there is no file or folder",
            ),
            (
                folder("bert").display().to_string(),
                Pairing::Locked,
                "cannot be locked to the text of",
            ),
        ] {
            let request = Request::Against(Box::new(job.clone()), reference, pairing);
            driver.engine.send(request);
            let Event::Failed(error) = driver.until(failed).await else {
                unreachable!();
            };
            let error = error.to_string();
            assert!(error.contains(said), "{error}");
        }
        driver.engine.send(Request::Generate(Box::new(job)));
        let end = driver.until(finished).await;
        assert!(matches!(end, Event::Finished(Finish::Length)));
    }
}
