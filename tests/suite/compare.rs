//! Comparisons: a steered run beside the plain one, and two sets of prompts.

use super::binary::{fails, works};
use super::steer::{load, spec, vector};
use candle_core::Tensor;
use entroscope::export;
use entroscope::lens::LensSettings;
use entroscope::model::decoder::{Row, Taps};
use entroscope::model::{Intervention, Model, Sampling};
use entroscope::session::{self, Finish, Job, Prompt, Recorder, SetJob, Sets};
use entroscope::stats::auroc;
use entroscope::steer::Plan;
use entroscope::trace::{Grid, Metric, Pairing, Record, Sample, Samples, Schema, Set, Side};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// A push that changes what is drawn.
pub(crate) fn push(model: &Model, strength: f64) -> Plan {
    let (blocks, width) = (model.card().blocks, model.card().d_model);
    let direction: Vec<f32> = (0..width).map(|i| (i as f32 * 0.7).sin()).collect();
    let vector = vector(&[(1, direction.clone()), (blocks, direction)]);
    let mut plan = Plan::default();
    let asked = spec(&format!("v.gguf,strength={strength}"));
    plan.push(&asked, &vector, model.card()).unwrap();
    plan
}

pub(crate) fn job(model: &Model, prompt: Prompt, new: usize, strength: f64) -> Job {
    Job {
        ignore_eos: true,
        sampling: Sampling {
            temperature: 1.0,
            seed: 3,
            ..Sampling::default()
        },
        steering: push(model, strength),
        ..Job::new(prompt, new)
    }
}

pub(crate) fn compared(model: &Model, job: &Job, pairing: Pairing) -> (Record, [Finish; 2]) {
    let mut recorder = Recorder::of_comparison(model.card().clone(), job, pairing);
    let finish = session::compare(model, job, pairing, &mut |side, event| {
        recorder.apply_side(side, &event);
        ControlFlow::Continue(())
    });
    (recorder.into_record(), finish.unwrap())
}

pub(crate) fn alone(model: &Model, job: &Job) -> Grid {
    let mut recorder = Recorder::new(model.card().clone(), job);
    session::run(model, job, &mut |event| {
        recorder.apply(&event);
        ControlFlow::Continue(())
    })
    .unwrap();
    recorder.into_record().branches.swap_remove(0).1
}

fn plain(job: &Job) -> Job {
    Job {
        steering: Plan::default(),
        ..job.clone()
    }
}

pub(crate) fn ids(grid: &Grid) -> Vec<u32> {
    grid.tokens().iter().map(|t| t.id).collect()
}

/// Whether the cells of a position are the same to the bit, but for what tells of the other branch.
pub(crate) fn assert_same_cells(found: &Grid, expected: &Grid, positions: std::ops::Range<usize>) {
    for position in positions {
        let (a, b) = (found.cells(position), expected.cells(position));
        let (Some(a), Some(b)) = (a, b) else {
            assert_eq!(a.is_some(), b.is_some(), "position {position}");
            continue;
        };
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&a.values), bits(&b.values), "position {position}");
        let top = |cells: &entroscope::trace::Cells| {
            let top = cells.top.iter();
            top.map(|c| (c.id, c.prob.to_bits())).collect::<Vec<_>>()
        };
        assert_eq!(top(a), top(b));
        assert_eq!((a.decided_layer, a.plan), (b.decided_layer, b.plan));
        let attention =
            |cells: &entroscope::trace::Cells| cells.attention.as_ref().map(|a| bits(&a.entropy));
        assert_eq!(attention(a), attention(b));
    }
}

#[test]
fn each_branch_is_what_a_run_alone_is() {
    for (family, tokens) in [
        ("llama", 100),
        ("gpt2", 9),
        ("mamba2", 20),
        ("qwen3", 70),
        ("bert", 30),
    ] {
        let model = load(family);
        for read_last in [false, true] {
            let job = Job {
                attention: true,
                read_last,
                ..job(&model, Prompt::Ids((1..=tokens).collect()), 8, 3.0)
            };
            let (record, finish) = compared(&model, &job, Pairing::Free);
            let grids: Vec<&Grid> = record.branches.iter().map(|(_, grid)| grid).collect();
            for (grid, job) in grids.iter().zip([plain(&job), job.clone()]) {
                let expected = alone(&model, &job);
                assert_eq!(ids(grid), ids(&expected), "{family}");
                assert_same_cells(grid, &expected, 0..grid.len());
            }
            let causal = model.card().causal;
            let ended = if causal { Finish::Length } else { Finish::Read };
            assert_eq!(finish, [ended; 2]);
            assert!(record.ended.is_some());
            let values = |grid: &Grid| grid.cells(2).unwrap().values.clone();
            assert_ne!(
                values(grids[0]),
                values(grids[1]),
                "{family}: nothing was pushed"
            );
        }
    }
}

#[test]
fn one_branch_goes_on_when_the_other_has_ended() {
    let model = load("demo");
    let mut job = job(
        &model,
        Prompt::Text("Lily went to the park.".into()),
        60,
        0.0,
    );
    job.ignore_eos = false;
    let (blocks, width) = (model.card().blocks, model.card().d_model);
    let mut found = false;
    for seed in 0..12 {
        job.sampling.seed = seed;
        let direction = (0..width).map(|i| (i as f32 * 1.3).cos()).collect();
        let vector = vector(&[(blocks / 2, direction)]);
        job.steering = Plan::default();
        let asked = spec("v.gguf,strength=2");
        job.steering.push(&asked, &vector, model.card()).unwrap();
        let (record, finish) = compared(&model, &job, Pairing::Free);
        for ((_, grid), job) in record.branches.iter().zip([plain(&job), job.clone()]) {
            let expected = alone(&model, &job);
            assert_eq!(ids(grid), ids(&expected));
            assert_same_cells(grid, &expected, 0..grid.len());
        }
        found |= finish[0] != finish[1];
        if found {
            break;
        }
    }
    assert!(found, "no seed ends one branch early");
}

#[test]
fn strength_zero_changes_nothing_in_either_mode() {
    for family in ["demo", "llama", "mamba"] {
        let model = load(family);
        let job = job(&model, Prompt::Ids((5..25).collect()), 6, 0.0);
        for pairing in [Pairing::Free, Pairing::Locked] {
            let (record, _) = compared(&model, &job, pairing);
            let difference = record.difference().unwrap();
            // At temperature 1: both draw the same random numbers.
            assert_eq!(ids(&record.branches[0].1), ids(&record.branches[1].1));
            assert_eq!(difference.diverged(), None);
            assert_eq!(difference.positions().count(), 25);
            for position in difference.positions() {
                for layer in 0..difference.states() {
                    for metric in 0..record.schema.len() {
                        let cell = difference.cell(layer, position, Metric(metric));
                        assert!(matches!(cell.difference, None | Some(0.0)), "{cell:?}");
                        assert_eq!(cell.difference.is_some(), cell.a.is_some());
                    }
                    assert_eq!(difference.divergence(layer, position), Some(0.0));
                }
            }
        }
    }
}

#[test]
fn a_locked_branch_reads_the_text_of_the_baseline() {
    let model = load("llama");
    let job = job(&model, Prompt::Ids((1..=40).collect()), 10, 3.0);
    let (free, _) = compared(&model, &job, Pairing::Free);
    assert!(
        free.difference().unwrap().diverged().is_some(),
        "the push is too weak"
    );
    let (locked, _) = compared(&model, &job, Pairing::Locked);
    let [(_, baseline), (_, steered)] = locked.branches.as_slice() else {
        panic!("two branches")
    };
    let text = ids(&alone(&model, &plain(&job)));
    assert_eq!(ids(baseline), text);
    assert_eq!(ids(steered), text);
    assert_eq!(steered.prompt_len(), 40);
    // What the steered model says of a text that it is given.
    let forced = Job {
        prompt: Prompt::Ids(text.clone()),
        max_new_tokens: 0,
        ..job.clone()
    };
    let forced = alone(&model, &forced);
    assert_same_cells(steered, &forced, 0..text.len() - 1);
    assert!(locked.difference().unwrap().diverged().is_none());
}

/// ln p of every state of a text, `[layer][token][V]`, in float64.
pub(crate) fn log_probs(
    model: &Model,
    text: &[u32],
    interventions: &[Intervention],
) -> Vec<Vec<Vec<f64>>> {
    let taps = Taps {
        states: true,
        attention: false,
    };
    let mut rows = [Row::new(text, None).steered(interventions)];
    let decoder = model.decoder();
    let traced = decoder.forward(&mut rows, taps).unwrap();
    let logits = |state: &Tensor| -> Vec<Vec<f32>> {
        let normed = decoder.final_norm(state).unwrap();
        decoder.head(&normed).unwrap().to_vec2().unwrap()
    };
    let log_softmax = |z: &Vec<f32>| -> Vec<f64> {
        let max = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let x: Vec<f64> = z.iter().map(|z| f64::from(*z) - f64::from(max)).collect();
        let total = x.iter().map(|x| x.exp()).sum::<f64>().ln();
        x.into_iter().map(|x| x - total).collect()
    };
    let rows = |state: &Tensor| logits(state).iter().map(log_softmax).collect();
    traced.states.iter().map(rows).collect()
}

#[test]
fn the_divergence_of_two_cells_is_that_of_their_distributions() {
    for (family, tokens) in [("demo", 30), ("llama", 110), ("gpt2", 12), ("bert", 20)] {
        let model = load(family);
        let job = job(&model, Prompt::Ids((3..3 + tokens).collect()), 5, 0.5);
        let (record, _) = compared(&model, &job, Pairing::Locked);
        let difference = record.difference().unwrap();
        let text = ids(&record.branches[0].1);
        let interventions = job.steering.interventions(tokens as usize);
        let (a, b) = (
            log_probs(&model, &text, &[]),
            log_probs(&model, &text, &interventions),
        );
        let mut largest = 0.0f64;
        for position in difference.positions() {
            for layer in 0..difference.states() {
                let (p, q) = (&a[layer][position], &b[layer][position]);
                let kl: f64 = p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum();
                let found = f64::from(difference.divergence(layer, position).unwrap());
                assert!(
                    (found - kl).abs() <= 1e-4 + 1e-5 * kl,
                    "{family} layer {layer} position {position}: {found} {kl}"
                );
                largest = largest.max(kl);
            }
        }
        assert!(largest > 0.01, "{family}: {largest}");
    }
}

#[test]
fn cells_of_different_texts_have_no_divergence() {
    let model = load("llama");
    let job = job(&model, Prompt::Ids((1..=40).collect()), 10, 3.0);
    let (record, _) = compared(&model, &job, Pairing::Free);
    let difference = record.difference().unwrap();
    let parted = difference.diverged().unwrap();
    assert!(parted >= 40);
    for position in difference.positions() {
        let kl = difference.divergence(1, position);
        assert_eq!(kl.is_some(), position < parted, "position {position}");
        assert_eq!(difference.is_diverged(position), position >= parted);
        assert!(difference.cell(1, position, Metric(0)).difference.is_some());
    }
    let [a, b, apart] = difference.spread(2, Metric(0), 0..40);
    let (a, b, apart) = (a.unwrap(), b.unwrap(), apart.unwrap());
    assert_eq!((a.n, apart.n), (40, 40));
    assert!((b.mean - a.mean - apart.mean).abs() < 1e-6);
}

#[test]
fn a_comparison_is_broken_off_after_a_step() {
    let model = load("llama");
    let job = job(&model, Prompt::Ids((1..=10).collect()), 20, 1.0);
    let mut recorder = Recorder::of_comparison(model.card().clone(), &job, Pairing::Free);
    let mut drawn = 0;
    let finish = session::compare(&model, &job, Pairing::Free, &mut |side, event| {
        recorder.apply_side(side, &event);
        if let session::Event::Token(token) = &event {
            drawn += usize::from(token.seconds > 0.0 && side == Side::B);
        }
        match drawn < 3 {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    });
    assert_eq!(finish.unwrap(), [Finish::Stopped; 2]);
    let record = recorder.into_record();
    let lengths: Vec<usize> = record.branches.iter().map(|(_, g)| g.len()).collect();
    assert_eq!(lengths, [13, 13]);
}

#[test]
fn the_table_of_a_comparison_is_golden() {
    let model = load("llama");
    let job = job(&model, Prompt::Ids(vec![5, 6, 7]), 2, 0.5);
    let (record, _) = compared(&model, &job, Pairing::Locked);
    let mut out = Vec::new();
    export::compare_csv(&mut out, &record.difference().unwrap(), &record.schema).unwrap();
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "metric,layer,position,a,b,difference,percent_change,diverged"
    );
    let states = model.card().blocks + 1;
    // Four positions are read: the last drawn token is not.
    assert_eq!(lines.len(), 1 + (record.schema.len() + 1) * states * 4);
    assert!(lines[1].starts_with("entropy,0,0,"), "{}", lines[1]);
    // The embedding is before every push: equal to the bit.
    assert!(lines[1].ends_with(",0,0,false"), "{}", lines[1]);
    let last = lines.last().unwrap();
    assert!(
        last.starts_with(&format!("kl_ab,{},3,,,0.", states - 1)),
        "{last}"
    );
    assert!(last.ends_with(",,false"), "{last}");
}

fn samples(known: &[(usize, f64)], unknown: &[(usize, f64)]) -> Samples {
    let schema = Arc::new(Schema::new(&LensSettings::default()));
    let metrics = schema.len();
    let mut samples = Samples::new(schema, 2, 0);
    for (set, all) in [(Set::Known, known), (Set::Unknown, unknown)] {
        for (prompt_tokens, value) in all {
            let mut values = vec![f64::NAN; 2 * metrics];
            values[metrics] = *value;
            let sample = Sample {
                prompt_tokens: *prompt_tokens,
                values: values.into(),
            };
            samples.push(set, Arc::new(sample));
        }
    }
    samples
}

#[test]
fn statements_say_what_is_shown_and_what_is_not() {
    let known: Vec<(usize, f64)> = (0..30).map(|i| (5 + i % 3, f64::from(i as u8))).collect();
    let shifted = |by: f64, longer: usize| -> Vec<(usize, f64)> {
        known.iter().map(|(t, v)| (t + longer, v + by)).collect()
    };
    let told = |unknown: &[(usize, f64)]| samples(&known, unknown).statement();
    let apart = told(&shifted(100.0, 0));
    assert!(apart.contains("n = 30 known and 30 unknown"), "{apart}");
    assert!(apart.contains("AUROC 1.000"), "{apart}");
    assert!(apart.contains("do not overlap"), "{apart}");
    assert!(apart.contains("not why"), "{apart}");
    let longer = told(&shifted(100.0, 9));
    assert!(longer.contains("than prompt length does"), "{longer}");
    let same = told(&shifted(0.0, 0));
    assert!(same.contains("holds 0.5"), "{same}");
    assert!(told(&[]).contains("nothing can be said"));
}

#[test]
fn sets_are_what_each_prompt_alone_is_and_their_auroc_is_counted_right() {
    for family in ["llama", "bert", "mamba"] {
        let model = load(family);
        let prompt = |i: u32, n: u32| Prompt::Ids((i..i + n).collect());
        let known: Vec<Prompt> = (0..9).map(|i| prompt(2 + i, 5 + i % 4)).collect();
        let unknown: Vec<Prompt> = (0..12).map(|i| prompt(30 + 2 * i, 6 + i % 5)).collect();
        let each = Job {
            ignore_eos: true,
            ..Job::new(prompt(1, 1), 3)
        };
        let mut sets = Sets::start(
            &model,
            SetJob {
                known: known.clone(),
                unknown: unknown.clone(),
                each: each.clone(),
            },
        )
        .unwrap();
        let mut heard = 0;
        while sets
            .advance(&model, &mut |_, sample| {
                heard += 1;
                assert!(sample.prompt_tokens >= 5);
            })
            .unwrap()
        {}
        assert_eq!((heard, sets.total()), (21, 21));
        let (samples, record) = sets.finish();
        assert!(record.branches.is_empty() && record.ended.is_some());
        let (states, metrics) = (samples.states(), samples.schema().len());
        let mut values = Vec::new();
        for (set, prompts) in [(Set::Known, &known), (Set::Unknown, &unknown)] {
            assert_eq!(samples.of(set).len(), prompts.len());
            for (sample, prompt) in samples.of(set).iter().zip(prompts) {
                let grid = alone(
                    &model,
                    &Job {
                        prompt: prompt.clone(),
                        ..each.clone()
                    },
                );
                let gaps: Vec<usize> = (0..grid.len())
                    .filter(|at| model.card().is_mask(grid.tokens()[*at].id))
                    .collect();
                let positions: Vec<usize> = match model.card().causal {
                    true => grid.predicting_positions().collect(),
                    false if gaps.is_empty() => (0..grid.len()).collect(),
                    false => gaps,
                };
                for metric in 0..metrics {
                    let profile = grid.mean_profile(positions.iter().copied(), Metric(metric));
                    for (layer, (mean, _)) in profile.into_iter().enumerate() {
                        let found = sample.values[layer * metrics + metric];
                        match mean {
                            Some(mean) => assert!((found - mean).abs() <= 1e-9 * mean.abs()),
                            None => assert!(found.is_nan()),
                        }
                    }
                }
                values.push(sample.values[(states - 1) * metrics]);
            }
        }
        let (k, u) = values.split_at(known.len());
        let pairs = k.iter().flat_map(|k| u.iter().map(move |u| (k, u)));
        let wins: f64 = pairs
            .map(|(k, u)| f64::from(u8::from(u > k)) + 0.5 * f64::from(u8::from(u == k)))
            .sum();
        let separation = samples.separation(states - 1, Metric(0)).unwrap();
        let counted = wins / (k.len() * u.len()) as f64;
        assert!((separation.auroc - counted).abs() < 1e-12);
        assert_eq!((separation.n_known, separation.n_unknown), (9, 12));
        let (low, high) = separation.interval.unwrap();
        assert!(low <= counted && counted <= high);
        let lengths = |set| -> Vec<f64> {
            let samples = samples.of(set).iter();
            samples.map(|s| s.prompt_tokens as f64).collect()
        };
        let by_length = auroc(&lengths(Set::Known), &lengths(Set::Unknown));
        assert_eq!(samples.separation_by_length().map(|s| s.auroc), by_length);
    }
}

pub(crate) fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

pub(crate) fn header(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().next().unwrap().to_owned()
}

pub(crate) const MOOD: &str = "sample_prompts/contrast/mood.gguf";

#[test]
fn a_comparison_prints_and_writes_what_two_runs_do() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let mood = format!(
        "{}/{MOOD},strength=-0.3,layers=4..12",
        env!("CARGO_MANIFEST_DIR")
    );
    let out = home.join("out").display().to_string();
    let prompt = "Jack went to the river with his dog.";
    let line = [
        "compare", prompt, "--steer", &mood, "-n", "12", "--out", &out,
    ];
    let report = json(&works(home, &[&line[..], &["--json"]].concat()));
    assert_eq!(report["mode"], "free");
    assert_eq!(report["branches"][1]["name"], "steered");
    let names: Vec<String> = {
        let files = std::fs::read_dir(home.join("out")).unwrap();
        let mut names: Vec<String> = files
            .map(|f| f.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        names,
        ["cells.csv", "compare.csv", "manifest.json", "tokens.csv"]
    );
    let manifest = json(&std::fs::read_to_string(home.join("out/manifest.json")).unwrap());
    assert_eq!(manifest["comparison"], "free");
    assert_eq!(manifest["branches"][0]["name"], "baseline");
    assert_eq!(manifest["steering"][0]["strength"], -0.3);
    let run = works(home, &["run", prompt, "-n", "12"]);
    let text = report["branches"][0]["text"].as_str().unwrap();
    assert_eq!(run.trim_end(), text);
    fails(home, &line, 1, &["already holds files", "--force"]);
    let locked = works(home, &[&line[..], &["--locked", "--force"]].concat());
    assert!(locked.contains("the texts agree"), "{locked}");
    assert!(locked.contains("kl_ab"), "{locked}");
    // A run takes the place of a comparison, of which nothing is left.
    works(home, &["run", prompt, "-n", "2", "--out", &out, "--force"]);
    assert!(!home.join("out/compare.csv").exists());
}

#[test]
fn two_sets_are_read_from_lines_and_json_lines() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let path = |name: &str| home.join(name).display().to_string();
    std::fs::write(
        home.join("known.jsonl"),
        "{\"prompt\":\"Once upon a time\",\"answer\":\"x\"}\n\n{\"prompt\":\"Tim was very\"}\n",
    )
    .unwrap();
    std::fs::write(
        home.join("unknown.txt"),
        "Zork blips the\nQuux\nA frobnicator\n",
    )
    .unwrap();
    std::fs::write(
        home.join("broken.jsonl"),
        "{\"prompt\":\"a\"}\n{\"text\":1}\n",
    )
    .unwrap();
    let (known, unknown, out) = (path("known.jsonl"), path("unknown.txt"), path("out"));
    let line = ["compare", "--known", &known, "--unknown", &unknown];
    let report = json(&works(
        home,
        &[&line[..], &["--json", "--out", &out]].concat(),
    ));
    assert_eq!(
        (&report["n_known"], &report["n_unknown"]),
        (&2.into(), &3.into())
    );
    let first = &report["layers"][0];
    assert_eq!(
        (&first["metric"], &first["layer"]),
        (&"entropy".into(), &0.into())
    );
    assert!(report["prompt_tokens"]["auroc"].is_number());
    let table = works(home, &line);
    assert!(table.contains("n = 2 known and 3 unknown"), "{table}");
    assert!(
        table.contains("number of prompt tokens alone: AUROC"),
        "{table}"
    );
    let out = home.join("out");
    assert_eq!(
        header(&out.join("profiles.csv")),
        "set,metric,layer,mean,std,n"
    );
    assert_eq!(
        header(&out.join("separation.csv")),
        "metric,layer,auroc,low,high,n_known,n_unknown"
    );
    let manifest = json(&std::fs::read_to_string(out.join("manifest.json")).unwrap());
    assert_eq!(manifest["sets"][1]["n"], 3);
    let broken = path("broken.jsonl");
    let line = ["compare", "--known", &broken, "--unknown", &unknown];
    fails(home, &line, 1, &["line 2 is no prompt"]);
}

#[test]
fn half_a_comparison_is_wrong_use() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    fails(home, &["compare"], 2, &["required"]);
    fails(home, &["compare", "Hi"], 2, &["--steer"]);
    fails(home, &["compare", "--known", "a"], 2, &["--unknown"]);
    fails(
        home,
        &["compare", "Hi", "--known", "a", "--unknown", "b"],
        2,
        &["cannot be used"],
    );
    let both = [
        "compare",
        "Hi",
        "--steer",
        "scale=0.5",
        "--locked",
        "--free",
    ];
    fails(home, &both, 2, &["cannot be used"]);
    let missing = home.join("none").display().to_string();
    let line = ["compare", "--known", &missing, "--unknown", &missing];
    fails(home, &line, 1, &["cannot be read"]);
}
