//! `compare --layout llm-entropy` and `--config FILE.yaml` as a user meets them.

use super::binary::{fails, works};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const MODEL: &str = "demo";
const METRICS: [(&str, &str); 5] = [
    ("layer_entropies", "entropy"),
    ("layer_perplexities", "perplexity"),
    ("layer_margins", "logit_margin"),
    ("layer_kl_divs", "kl_uniform"),
    ("layer_surprisals", "surprisal"),
];

const CONFIG: &str = "
analysis:
  num_sentences: 3
  temperature: 1.0
  use_sampling: false
  seed: 5
  compare_control: true
  control:
    enabled: true
    strength: 0.05
    layer_weights: [1, 1.2, 1.4, 1.6, 1.8, 2, 2, 1.8, 1.6, 1.4, 1.2, 1]
    token_weights: [1.0, 1.5, 2.0]
    control_vectors:
      positive: [1.0, -0.5, 0.25]
      negative: [-1.0, 0.5, -0.25]
  favourite_colour: red
models:
  tiny:
    name: demo
output:
  plots_dir: plots
";

type Row = Vec<String>;

fn table(path: &Path) -> (Row, Vec<Row>) {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let row = |record: &csv::StringRecord| record.iter().map(str::to_owned).collect::<Row>();
    let header = row(reader.headers().unwrap());
    let rows = reader.records().map(|r| row(&r.unwrap())).collect();
    (header, rows)
}

fn values(cell: &str) -> Vec<Option<f32>> {
    serde_json::from_str(cell).unwrap()
}

/// The only run folder in `dir`.
fn run_folder(dir: &Path) -> PathBuf {
    let entries: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(entries.len(), 1, "{entries:?}");
    let name = entries[0].file_name().unwrap().to_str().unwrap().to_owned();
    let parts: Vec<&str> = name.split('_').collect();
    let [run, day, time, id] = parts[..] else {
        panic!("{name}");
    };
    assert_eq!(
        (run, day.len(), time.len(), id.len()),
        ("run", 8, 6, 8),
        "{name}"
    );
    assert!(id.chars().all(|c| c.is_ascii_hexdigit()));
    entries[0].clone()
}

fn files(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => {
                    let name = path.strip_prefix(dir).unwrap();
                    found.insert(name.to_str().unwrap().replace('\\', "/"));
                }
            }
        }
    }
    found
}

/// What a run of a causal model with attention leaves.
fn expected(label: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::from(["manifest.json".to_owned()]);
    let names = METRICS.iter().map(|(file, _)| *file);
    let names: Vec<&str> = names.chain(["layer_attn_entropies"]).collect();
    for part in ["standard", "control"] {
        all.insert(format!("{part}/predictions/{label}_predictions.csv"));
        for name in &names {
            all.insert(format!("{part}/data/{label}_{name}.csv"));
            for ending in ["png", "svg"] {
                all.insert(format!("{part}/plots/{label}_{name}.{ending}"));
            }
        }
    }
    let part = "comparative";
    all.insert(format!(
        "{part}/predictions/{label}_comparative_predictions.csv"
    ));
    all.insert(format!("{part}/data/{label}_summary.csv"));
    for name in &names {
        all.insert(format!("{part}/data/{label}_{name}_comparative.csv"));
        for what in ["comparison", "differences"] {
            for ending in ["png", "svg"] {
                all.insert(format!("{part}/plots/{label}_{name}_{what}.{ending}"));
            }
        }
    }
    for ending in ["png", "svg"] {
        all.insert(format!("{part}/plots/{label}_layer_entropies_map.{ending}"));
    }
    all
}

#[test]
fn a_configuration_is_run_and_its_numbers_are_those_of_the_plain_files() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let path = |name: &str| home.join(name).display().to_string();
    let (config, out) = (path("comparative.yaml"), path("outputs"));
    std::fs::write(&config, CONFIG).unwrap();
    let line = ["compare", "--config", &config, "--out", &out];
    let report: serde_json::Value =
        serde_json::from_str(&works(home, &[&line[..], &["--json"]].concat())).unwrap();
    assert_eq!(report[0]["n"], 3);
    let run = run_folder(&home.join("outputs"));
    assert_eq!(files(&run), expected("tiny"));

    let (header, rows) = table(&run.join("standard/data/tiny_layer_entropies.csv"));
    assert_eq!(header, ["sentence", "values"]);
    let sentences: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(sentences.len(), 3);

    // The same by flags, for each sentence, in the plain layout.
    let steer = format!("{config},strength=0.05,layers=0..12,tile");
    for (at, sentence) in sentences.iter().enumerate() {
        let plain = path(&format!("plain{at}"));
        let line = [
            "compare",
            sentence,
            "--steer",
            &steer,
            "-n",
            "1",
            "--attention",
        ];
        works(home, &[&line[..], &["--out", &plain]].concat());
        let plain = Path::new(&plain);
        let (_, compared) = table(&plain.join("compare.csv"));
        let last = compared
            .iter()
            .map(|row| row[2].parse::<usize>().unwrap())
            .max();
        let last = last.unwrap().to_string();
        let mut changed = false;
        for (file, metric) in METRICS {
            let of = |column: usize| -> Vec<Option<f32>> {
                let rows = compared
                    .iter()
                    .filter(|row| row[0] == metric && row[2] == last);
                rows.map(|row| row[column].parse().ok()).collect()
            };
            let (a, b, difference, percent) = (of(3), of(4), of(5), of(6));
            assert_eq!(a.len(), 13, "{metric}");
            assert!(a.iter().all(Option::is_some), "{metric}");
            changed |= difference.iter().flatten().any(|d| *d != 0.0);
            let one = |part: &str| {
                let (_, rows) = table(&run.join(format!("{part}/data/tiny_{file}.csv")));
                assert_eq!(rows[at][0], *sentence);
                values(&rows[at][1])
            };
            assert_eq!(
                (one("standard"), one("control")),
                (a.clone(), b.clone()),
                "{metric}"
            );
            let name = format!("comparative/data/tiny_{file}_comparative.csv");
            let (header, rows) = table(&run.join(name));
            assert_eq!(header, ["sentence", "values"]);
            let zero = |(a, p): (&Option<f32>, &Option<f32>)| match a {
                Some(a) if *a == 0.0 => Some(0.0),
                _ => *p,
            };
            let percent: Vec<Option<f32>> = a.iter().zip(&percent).map(zero).collect();
            let parts = [
                ("standard", a),
                ("control", b),
                ("difference", difference),
                ("percent_change", percent),
            ];
            for (row, (what, expected)) in rows[4 * at..].iter().zip(parts) {
                assert_eq!(row[0], format!("{sentence} ({what})"));
                assert_eq!(values(&row[1]), expected, "{metric} {what}");
            }
        }
        assert!(changed, "nothing was steered");
        let (_, attention) = table(&plain.join("attention_layers.csv"));
        for (part, branch) in [("standard", "baseline"), ("control", "steered")] {
            let (_, rows) = table(&run.join(format!("{part}/data/tiny_layer_attn_entropies.csv")));
            let rows_of = attention
                .iter()
                .filter(|row| row[0] == branch && row[1] == last);
            let expected = rows_of.map(|row| row[3].parse().ok());
            let expected: Vec<Option<f32>> = std::iter::once(None).chain(expected).collect();
            assert_eq!(expected.len(), 13);
            assert_eq!(values(&rows[at][1]), expected);
        }
        let (_, cells) = table(&plain.join("cells.csv"));
        let (header, rows) =
            table(&run.join("comparative/predictions/tiny_comparative_predictions.csv"));
        assert_eq!(header, ["Sentence", "Token", "Probability", "Analysis"]);
        assert_eq!(rows.len(), 3 * 2 * 5);
        for (i, (branch, part)) in [("baseline", "standard"), ("steered", "control")]
            .into_iter()
            .enumerate()
        {
            let cell = cells
                .iter()
                .find(|row| row[0] == branch && row[1] == last && row[2] == "12")
                .unwrap();
            // The last columns: an id, a text and a probability for each of five.
            let best = &cell[cell.len() - 15..];
            for k in 0..5 {
                let row = &rows[10 * at + 5 * i + k];
                let expected = [*sentence, &best[3 * k + 1], &best[3 * k + 2], part];
                assert_eq!(row[..], expected);
            }
        }
    }

    let manifest = std::fs::read_to_string(run.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(
        (&manifest["layout"], &manifest["preset"]),
        (&"llm-entropy".into(), &"standard".into())
    );
    assert_eq!(manifest["n"], 3);
    let notes = manifest["notes"].to_string();
    assert!(
        notes.contains("the numbers are not") && notes.contains("inside the forward pass"),
        "{notes}"
    );
    let one = &manifest["models"][0]["run"];
    assert_eq!(one["steering"][0]["layers"][0], 0);
    assert_eq!(one["sampling"]["seed"], 5);
    let listed: BTreeSet<String> = one["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f.as_str().unwrap().to_owned())
        .collect();
    let mut others = expected("tiny");
    others.remove("manifest.json");
    assert_eq!(listed, others);

    // Means over the sentences, by hand from the lists.
    let (_, rows) = table(&run.join("standard/data/tiny_layer_entropies.csv"));
    let at_last: Vec<f64> = rows
        .iter()
        .map(|r| f64::from(values(&r[1])[12].unwrap()))
        .collect();
    let mean = at_last.iter().sum::<f64>() / 3.0;
    let std = (at_last.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 3.0).sqrt();
    let (header, rows) = table(&run.join("comparative/data/tiny_summary.csv"));
    assert_eq!(
        header[..5],
        [
            "metric",
            "layer",
            "standard_mean",
            "standard_std",
            "standard_n"
        ]
    );
    let row = rows
        .iter()
        .find(|r| r[0] == "layer_entropies" && r[1] == "12")
        .unwrap();
    let found = |column: usize| row[column].parse::<f64>().unwrap();
    assert!((found(2) - mean).abs() < 1e-5 && (found(3) - std).abs() < 1e-5);
    assert_eq!(row[4], "3");
    let of_report = report[0]["layers"].as_array().unwrap().iter();
    let mut of_report = of_report.filter(|l| l["metric"] == "entropy" && l["layer"] == 12);
    let printed = of_report.next().unwrap()["baseline"]["mean"]
        .as_f64()
        .unwrap();
    assert!((printed - mean).abs() < 1e-6);

    let picture =
        std::fs::read(run.join("comparative/plots/tiny_layer_entropies_comparison.png")).unwrap();
    assert_eq!(picture[..8], *b"\x89PNG\r\n\x1a\n");
    let text = std::fs::read_to_string(run.join("comparative/plots/tiny_layer_entropies_map.svg"))
        .unwrap();
    assert!(text.starts_with("<svg ") && text.trim_end().ends_with("</svg>"));
}

#[test]
fn flags_beside_a_configuration_win() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let path = |name: &str| home.join(name).display().to_string();
    let config = path("c.yml");
    std::fs::write(&config, CONFIG).unwrap();
    let json = |more: &[&str]| -> serde_json::Value {
        let line = ["compare", "--config", &config, "--json"];
        serde_json::from_str(&works(home, &[&line[..], more].concat())).unwrap()
    };
    let told = json(&[]);
    assert_eq!(told[0]["prompts"].as_array().unwrap().len(), 3);
    let fewer = json(&["--sentences", "2"]);
    assert_eq!(
        fewer[0]["prompts"][1], told[0]["prompts"][1],
        "the same seed"
    );
    assert_eq!(fewer[0]["n"], 2);
    let seeded = json(&["--seed", "6"]);
    assert_ne!(seeded[0]["prompts"], told[0]["prompts"]);
    let one = json(&[
        "Tim was very happy.",
        "--steer",
        "scale=0.5",
        "--model",
        MODEL,
    ]);
    assert_eq!(
        one[0]["prompts"],
        serde_json::json!(["Tim was very happy."])
    );
    assert_eq!(one[0]["steering"][0]["scale"], 0.5);
    let warm = json(&["--lens-temperature", "2", "--sentences", "1"]);
    let entropy = |report: &serde_json::Value| {
        let layers = report[0]["layers"].as_array().unwrap();
        layers[12]["baseline"]["mean"].as_f64().unwrap()
    };
    assert!(entropy(&warm) > entropy(&json(&["--sentences", "1"])));
}

#[test]
fn runs_gather_in_a_folder_and_equal_runs_are_equal() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let out = home.join("runs").display().to_string();
    let line = [
        "compare",
        "--sentences",
        "2",
        "--seed",
        "3",
        "--temperature",
        "1",
        "--steer",
        "scale=0.8",
        "--layout",
        "llm-entropy",
        "--out",
        &out,
    ];
    works(home, &line);
    works(home, &line);
    let folders: Vec<PathBuf> = std::fs::read_dir(home.join("runs"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(folders.len(), 2, "{folders:?}");
    assert_eq!(files(&folders[0]), expected("demo"));
    for name in files(&folders[0])
        .iter()
        .filter(|name| *name != "manifest.json")
    {
        let [a, b] = [0, 1].map(|i| std::fs::read(folders[i].join(name)).unwrap());
        assert!(a == b, "{name} differs");
    }
    // Sampled: the one token that was drawn, of each.
    let (_, rows) = table(&folders[0].join("standard/predictions/demo_predictions.csv"));
    assert_eq!(rows.len(), 2);
    let surprisals = table(&folders[0].join("standard/data/demo_layer_surprisals.csv")).1;
    for (row, surprisal) in rows.iter().zip(surprisals) {
        assert_eq!(row[3], "standard");
        let probability: f32 = row[2].parse().unwrap();
        let expected = (-values(&surprisal[1])[12].unwrap()).exp();
        assert!((probability - expected).abs() < 1e-6);
    }
}

#[test]
fn masked_models_are_read_at_their_gap() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let model = format!("{}/tests/fixtures/bert", env!("CARGO_MANIFEST_DIR"));
    let out = home.join("runs").display().to_string();
    let line = [
        "compare",
        "--sentences",
        "2",
        "--model",
        &model,
        "--steer",
        "scale=0.5",
        "--layout",
        "llm-entropy",
        "--out",
        &out,
    ];
    works(home, &line);
    let run = run_folder(&home.join("runs"));
    let (_, rows) = table(&run.join("control/data/bert_layer_surprisals.csv"));
    assert!(rows.iter().all(|row| row[0].contains("[MASK]")), "{rows:?}");
    assert!(values(&rows[0][1]).iter().all(Option::is_none));
    let (_, rows) = table(&run.join("control/data/bert_layer_entropies.csv"));
    assert!(values(&rows[0][1]).iter().all(Option::is_some));
    let all = files(&run);
    assert!(all.contains("standard/plots/bert_layer_entropies.svg"));
    assert!(
        !all.iter()
            .any(|name| name.contains("plots/bert_layer_surprisals")),
        "{all:?}"
    );
    let line = [
        "compare",
        "no gap",
        "--model",
        &model,
        "--steer",
        "scale=0.5",
        "--layout",
        "llm-entropy",
    ];
    fails(
        home,
        &[&line[..], &["--out", &out]].concat(),
        2,
        &["has no [MASK]"],
    );
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_written() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let path = |name: &str| home.join(name).display().to_string();
    let write = |name: &str, text: &str| {
        std::fs::write(home.join(name), text).unwrap();
        path(name)
    };
    let off = write(
        "off.yaml",
        "analysis: {num_sentences: 2, control: {enabled: false}}",
    );
    fails(
        home,
        &["compare", "--config", &off],
        1,
        &["off.yaml", "not enabled", "--steer"],
    );
    let bad = write("bad.yaml", "analysis: {temperature: hot}");
    fails(
        home,
        &["compare", "--config", &bad],
        1,
        &["bad.yaml", "analysis.temperature", "hot"],
    );
    let short = write(
        "short.yaml",
        "analysis: {control: {enabled: true, layer_weights: [1, 2, 3], control_vectors: {positive: [1]}}}",
    );
    fails(
        home,
        &["compare", "--config", &short],
        2,
        &["3 layer weights"],
    );
    let steer = ["compare", "--steer", "scale=0.5"];
    let with = |more: &[&'static str]| [&steer[..], more].concat();
    fails(
        home,
        &with(&["Hi", "--layout", "llm-entropy"]),
        2,
        &["--out"],
    );
    fails(
        home,
        &with(&["--sentences", "3", "--layout", "standard"]),
        2,
        &["one prompt"],
    );
    fails(home, &with(&["--sentences", "0"]), 2, &["1 to 2000"]);
    fails(
        home,
        &with(&["Hi", "--sentences", "3"]),
        2,
        &["cannot be used"],
    );
    fails(home, &steer, 2, &["a prompt is required"]);
    let file = write("file", "");
    let line = with(&["Hi", "--layout", "llm-entropy"]);
    fails(
        home,
        &[&line[..], &["--out", &file]].concat(),
        1,
        &["is a file"],
    );
    let left: Vec<_> = std::fs::read_dir(home)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(
        left.iter()
            .all(|name| !name.to_string_lossy().starts_with("run_")),
        "{left:?}"
    );
}
