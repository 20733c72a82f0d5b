//! One text under a range of strengths.

use super::binary::{fails, works};
use super::compare::{MOOD, compared, header, ids, job, json, push};
use super::steer::load;
use entroscope::export;
use entroscope::model::Model;
use entroscope::session::{Event, Finish, Job, Prompt, Sweep, Swept};
use entroscope::steer::Strengths;
use entroscope::trace::{self, Cells, Curve, Metric, Pairing, Record};
use std::collections::BTreeMap;
use std::sync::Arc;

type All = BTreeMap<(usize, usize), Arc<Cells>>;

/// A sweep to its end, with all that it told of cells.
fn swept(model: &Model, job: &Job, range: &str) -> (Curve, Record, All) {
    let strengths: Strengths = range.parse().unwrap();
    let mut all = BTreeMap::new();
    let mut points = 0;
    let mut sweep = Sweep::start(model, job.clone(), &strengths, &mut |_| {}).unwrap();
    loop {
        let mut heard = |event| match event {
            Swept::Cells {
                strength,
                position,
                cells,
            } => {
                assert!(all.insert((strength, position), cells).is_none());
            }
            Swept::Point { .. } => points += 1,
            Swept::Baseline(_) => {}
        };
        if sweep.advance(model, &mut heard).unwrap().is_some() {
            break;
        }
    }
    assert_eq!(points, strengths.all().len());
    let positions = sweep.positions().len();
    assert_eq!(all.len(), positions * strengths.all().len());
    let (curve, record) = sweep.finish();
    assert_eq!(curve.done(), points);
    (curve, record, all)
}

/// The cells but for attention, bit by bit: values, candidates, divergence, plan.
fn bits(cells: &Cells) -> [Vec<u32>; 4] {
    let numbers = |all: &[f32]| all.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let top = cells.top.iter().flat_map(|c| [c.id, c.prob.to_bits()]);
    [
        numbers(&cells.values),
        top.collect(),
        numbers(cells.divergence.as_ref().unwrap()),
        vec![cells.plan],
    ]
}

#[test]
fn every_strength_is_its_own_locked_comparison() {
    for (family, tokens, new, range, summarised) in [
        ("llama", 100, 8, "-2..2/5", 8),
        // More than are read at once.
        ("gpt2", 9, 5, "-4..4/21", 5),
        ("mamba2", 20, 6, "-1..2/4", 6),
        ("phi3_longrope", 30, 12, "-2..2/3", 12),
        ("qwen3", 70, 0, "-2..2/3", 70),
        // With one gap among them.
        ("bert", 30, 0, "-1..1/3", 1),
    ] {
        let model = load(family);
        let job = job(&model, Prompt::Ids((1..=tokens).collect()), new, 1.0);
        let (curve, record, all) = swept(&model, &job, range);
        let [(name, baseline)] = record.branches.as_slice() else {
            panic!("one branch")
        };
        assert_eq!(name, "baseline");
        let (positions, _) = trace::summarised([baseline], model.card());
        assert_eq!(positions.len(), summarised, "{family}");
        for (i, strength) in curve.strengths().iter().enumerate() {
            let alone = Job {
                steering: push(&model, *strength),
                ..job.clone()
            };
            let (compared, _) = compared(&model, &alone, Pairing::Locked);
            let [(_, plain), (_, steered)] = compared.branches.as_slice() else {
                panic!("two branches")
            };
            assert_eq!(ids(baseline), ids(plain), "{family}");
            for position in &positions {
                let expected = steered.cells(*position).unwrap();
                let found = &all[&(i, *position)];
                assert_eq!(
                    bits(found),
                    bits(expected),
                    "{family} strength {strength} position {position}"
                );
            }
            let difference = compared.difference().unwrap();
            let point = curve.point(i).unwrap();
            let at = || positions.iter().copied();
            for layer in 0..curve.states() {
                for metric in (0..curve.schema().len()).map(Metric) {
                    let [a, b, _] = difference.spread(layer, metric, at());
                    assert_eq!(point.spread(layer, metric), b);
                    assert_eq!(curve.baseline().unwrap().spread(layer, metric), a);
                    if *strength == 0.0 {
                        assert_eq!(a, b);
                        let apart = curve.difference(i, layer, metric);
                        assert_eq!(apart, a.map(|_| 0.0), "{family} layer {layer}");
                    }
                }
                let kl = difference.divergence_spread(layer, at());
                assert_eq!(point.divergence(layer), kl);
                if *strength == 0.0 {
                    let kl = kl.unwrap();
                    assert_eq!((kl.mean, kl.std, kl.n), (0.0, 0.0, positions.len()));
                }
            }
            let last = point.divergence(curve.states() - 1).unwrap().mean;
            assert_eq!(last > 0.0, *strength != 0.0, "{family} {strength}: {last}");
        }
    }
}

#[test]
fn a_sweep_that_is_stopped_keeps_what_is_complete() {
    let model = load("gpt2");
    let job = job(&model, Prompt::Ids((1..=9).collect()), 5, 1.0);
    let strengths = "1..4/21".parse().unwrap();
    let mut sweep = Sweep::start(&model, job.clone(), &strengths, &mut |_| {}).unwrap();
    let mut drawn = 0;
    let mut heard = |event| drawn += usize::from(matches!(event, Swept::Baseline(Event::Token(_))));
    assert!(sweep.advance(&model, &mut heard).unwrap().is_none());
    let mut ended = 0;
    let finish = sweep.stop(&mut |event| {
        assert!(matches!(
            event,
            Swept::Baseline(Event::Finished(Finish::Stopped))
        ));
        ended += 1;
    });
    assert_eq!((finish, ended, drawn), (Finish::Stopped, 1, 1));
    assert_eq!(sweep.curve().done(), 0);

    let mut sweep = Sweep::start(&model, job, &strengths, &mut |_| {}).unwrap();
    while sweep.curve().done() == 0 {
        assert!(sweep.advance(&model, &mut |_| {}).unwrap().is_none());
    }
    assert_eq!(
        sweep.stop(&mut |_| panic!("its text has ended")),
        Finish::Stopped
    );
    let (curve, record) = sweep.finish();
    assert_eq!((curve.done(), curve.strengths().len()), (15, 21));
    assert!(record.ended.is_some());
    // What has not come is empty in files.
    let mut out = Vec::new();
    export::sweep_csv(&mut out, &curve).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.lines().last().unwrap(), "4,3,kl_ab,nats,,,0");
}

#[test]
fn a_sweep_is_printed_and_written() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let mood = format!("{}/{MOOD},layers=4..12", env!("CARGO_MANIFEST_DIR"));
    let out = home.join("out").display().to_string();
    let prompt = "Jack went to the river with his dog.";
    let line = [
        "compare",
        prompt,
        "--steer",
        &mood,
        "--sweep",
        "-0.3..0.3/3",
        "-n",
        "6",
    ];
    let table = works(home, &[&line[..], &["--out", &out]].concat());
    assert!(table.contains("over 6 predicting positions"), "{table}");
    let rows: Vec<&str> = table.lines().rev().take(4).collect();
    let firsts: Vec<&str> = rows
        .iter()
        .filter_map(|row| row.split_whitespace().next())
        .collect();
    assert_eq!(firsts, ["0.3", "0", "-0.3", "plain"], "{table}");
    assert!(rows[1].ends_with("0.0000 ± 0.0000"), "{table}");
    let folder = home.join("out");
    let names = std::fs::read_dir(&folder).unwrap();
    let mut names: Vec<_> = names.map(|f| f.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["manifest.json", "sweep.csv"]);
    assert_eq!(
        header(&folder.join("sweep.csv")),
        "strength,layer,metric,unit,mean,std,n"
    );
    let manifest = json(&std::fs::read_to_string(folder.join("manifest.json")).unwrap());
    assert_eq!(manifest["sweep"], serde_json::json!([-0.3, 0.0, 0.3]));
    assert_eq!(manifest["steering"][0]["strength"], 1.0);
    assert_eq!(manifest["branches"][0]["name"], "baseline");

    let report = json(&works(home, &[&line[..], &["--json"]].concat()));
    assert_eq!(report["strengths"][2], 0.3);
    assert_eq!(report["positions"].as_array().unwrap().len(), 6);
    let run = works(home, &["run", prompt, "-n", "6"]);
    assert_eq!(run.trim_end(), report["text"].as_str().unwrap());
    let csv = std::fs::read_to_string(folder.join("sweep.csv")).unwrap();
    let points = report["points"].as_array().unwrap();
    let plain = csv.lines().filter(|line| line.starts_with(',')).count();
    assert_eq!(3 * plain, points.len(), "the plain model's rows come first");
    assert_eq!(csv.lines().count(), 1 + plain + points.len());
    for (line, point) in csv.lines().skip(1 + plain).zip(points) {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells[0].parse::<f64>().unwrap(), point["strength"]);
        assert_eq!(cells[1], point["layer"].to_string());
        assert_eq!(cells[2], point["metric"]);
        let mean = point["mean"].as_f64().map(|mean| mean as f32);
        assert_eq!(cells[4].parse::<f32>().ok(), mean, "{line}");
        assert_eq!(cells[6], point["n"].as_u64().unwrap_or(0).to_string());
    }
    let chosen = ["--metric", "gini,kl_ab", "--layer", "2"];
    let table = works(home, &[&line[..], &chosen].concat());
    assert!(table.contains("layer 2 of 12"), "{table}");
    assert!(
        table.contains("gini") && !table.contains("surprisal"),
        "{table}"
    );
}

#[test]
fn wrong_sweeps_are_told_what_is_right() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let line = ["compare", "Hi", "--steer", "scale=0.5"];
    let refused = |more: &[&str], says: &[&str]| {
        fails(home, &[&line[..], more].concat(), 2, says);
    };
    refused(&["--sweep", "1..2"], &["from..to/count", "-2..2/9"]);
    refused(&["--sweep=2..1/3"], &["do not rise"]);
    refused(&["--sweep=0..1/1"], &["2 to 1000"]);
    refused(&["--sweep=0..2/3", "--free"], &["cannot be used"]);
    refused(&["--sweep=0..2/3", "--attention"], &["cannot be used"]);
    refused(&["--layer", "3"], &["--sweep"]);
    refused(
        &["--sweep=0..2/3", "--metric", "entropie"],
        &["--metric entropie", "did you mean entropy?"],
    );
    refused(&["--sweep=0..2/3", "--layer", "13"], &["0 to 12"]);
    fails(home, &["compare", "Hi", "--sweep=0..2/3"], 2, &["--steer"]);
}
