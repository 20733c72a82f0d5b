//! `entroscope steer` and `run --steer` as a user meets them.

use super::binary::{fails, works};
use std::path::Path;

const PAIRS: &str = r#"# glad against sad
{"positive": "Tim was very happy. Then he", "negative": "Tim was very sad. Then he"}
{"positive": "Lily was very happy. Then she", "negative": "Lily was very sad. Then she"}
{"positive": "The dog was very happy. Then it", "negative": "The dog was very sad. Then it"}
{"positive": "Mom was so happy. Then they", "negative": "Mom was so sad. Then they"}
"#;

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_vector_is_trained_shown_converted_combined_and_used() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let path = |name: &str| home.join(name).display().to_string();
    std::fs::write(home.join("pairs.jsonl"), PAIRS).unwrap();
    let (pairs, gguf) = (path("pairs.jsonl"), path("v.gguf"));

    let train = ["steer", "train", &pairs, "--out", &gguf, "--json"];
    let report = json(&works(home, &train));
    assert_eq!(
        (&report["trained_on"], &report["held_out"]),
        (&3.into(), &1.into())
    );
    let separation = report["separation"].as_array().unwrap();
    assert_eq!(separation.len(), 11);
    assert_eq!(separation[0]["layer"], 2);
    let first = std::fs::read(home.join("v.gguf")).unwrap();
    fails(home, &train, 1, &["already exists", "--force"]);
    let again = [&train[..], &["--force"]].concat();
    works(home, &again);
    assert_eq!(
        std::fs::read(home.join("v.gguf")).unwrap(),
        first,
        "training is repeatable"
    );

    let shown = json(&works(home, &["steer", "show", &gguf, "--json"]));
    assert_eq!(
        (&shown["d_model"], &shown["model_hint"]),
        (&192.into(), &"llama".into())
    );
    assert!(shown["misfit"].is_null());
    assert_eq!(shown["directions"].as_array().unwrap().len(), 11);
    let table = works(home, &["steer", "show", &gguf]);
    assert!(table.contains("fits demo   yes"), "{table}");

    let (part, twice) = (path("part.json"), path("twice.safetensors"));
    works(
        home,
        &[
            "steer", "convert", &gguf, "--layers", "6..8", "--out", &part,
        ],
    );
    let term = format!("2*{part}");
    works(
        home,
        &["steer", "arith", &term, "--minus", &part, "--out", &twice],
    );
    let [a, b] = [&part, &twice].map(|file| {
        let opened = entroscope::steer::open(Path::new(file)).unwrap();
        opened.vector
    });
    assert_eq!(a, b);
    assert_eq!(a.layers(), Some(vec![6, 7, 8]));
    let unit = path("unit.gguf");
    works(
        home,
        &["steer", "arith", &part, "--normalise", "--out", &unit],
    );
    let shown = json(&works(home, &["steer", "show", &unit, "--json"]));
    let norm = shown["directions"][0]["norm"].as_f64().unwrap();
    assert!((norm - 1.0).abs() < 1e-6);

    let prompt = ["run", "The boy went home.", "--max-new-tokens", "8"];
    let plain = works(home, &prompt);
    let spec = |strength: &str| format!("{gguf},strength={strength},layers=4..9");
    let steered = |strength: &str, more: &[&str]| {
        let spec = spec(strength);
        works(home, &[&prompt[..], &["--steer", &spec], more].concat())
    };
    assert_eq!(steered("0", &[]), plain);
    assert_ne!(steered("8", &[]), plain);
    let (once, back) = (spec("3"), spec("-3"));
    let both = [&prompt[..], &["--steer", &once, "--steer", &back]].concat();
    assert_eq!(works(home, &both), plain);
    let out = path("run");
    steered("8", &["--out", &out]);
    let manifest = json(&std::fs::read_to_string(home.join("run/manifest.json")).unwrap());
    let part = &manifest["steering"][0];
    assert_eq!(
        (&part["strength"], &part["tokens"]),
        (&8.0.into(), &"all".into())
    );
    assert_eq!(part["layers"], serde_json::json!([4, 5, 6, 7, 8, 9]));
    assert_eq!(part["path"], gguf.as_str());
}

#[test]
fn pairs_come_from_templates_and_text_files_too() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let path = |name: &str| home.join(name).display().to_string();
    std::fs::write(home.join("suffixes.json"), "[\"He ran\", \"She sat\"]").unwrap();
    std::fs::write(
        home.join("good.txt"),
        "Tim was glad.\\nHe\nSue was glad.\\nShe\n",
    )
    .unwrap();
    std::fs::write(
        home.join("bad.txt"),
        "Tim was sad.\\nHe\nSue was sad.\\nShe\n",
    )
    .unwrap();
    let (suffixes, good, bad) = (path("suffixes.json"), path("good.txt"), path("bad.txt"));
    let (a, b) = (path("a.gguf"), path("b.gguf"));
    let report = json(&works(
        home,
        &[
            "steer",
            "train",
            "--template",
            "Tim was {persona}.",
            "--positive",
            "happy,glad",
            "--negative",
            "sad,cross",
            "--suffixes",
            &suffixes,
            "--method",
            "pca-center",
            "--layers",
            "3..5",
            "--json",
            "--out",
            &a,
        ],
    ));
    assert_eq!(
        (&report["trained_on"], &report["held_out"]),
        (&3.into(), &1.into())
    );
    let layers: Vec<&serde_json::Value> = report["separation"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["layer"])
        .collect();
    assert_eq!(layers, [3, 4, 5]);
    let table = works(
        home,
        &[
            "steer",
            "train",
            "--positive-file",
            &good,
            "--negative-file",
            &bad,
            "--held-out",
            "0",
            "--position",
            "mean",
            "--method",
            "mean",
            "--out",
            &b,
        ],
    );
    assert!(
        table.contains("2 pairs to train on, 0 kept back"),
        "{table}"
    );
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_written() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let path = |name: &str| home.join(name).display().to_string();
    std::fs::write(home.join("pairs.jsonl"), PAIRS).unwrap();
    std::fs::write(
        home.join("same.jsonl"),
        "{\"positive\": \"a\", \"negative\": \"a\"}\n",
    )
    .unwrap();
    std::fs::write(home.join("short.json"), "[1, 2, 3]").unwrap();
    let (pairs, same, short) = (path("pairs.jsonl"), path("same.jsonl"), path("short.json"));
    let (gguf, text) = (path("v.gguf"), path("v.txt"));
    fails(
        home,
        &["steer", "train", &pairs, "--out", &text],
        1,
        &["no ending"],
    );
    fails(home, &["steer", "train", "--out", &gguf], 2, &["PAIRS"]);
    fails(
        home,
        &["steer", "train", &same, "--out", &gguf],
        1,
        &["are the same at layer 2"],
    );
    fails(
        home,
        &["steer", "train", &short, "--out", &gguf],
        1,
        &["line 1 is no contrast pair"],
    );
    fails(
        home,
        &[
            "steer", "train", &pairs, "--layers", "3..40", "--out", &gguf,
        ],
        2,
        &["0..12"],
    );
    fails(
        home,
        &["steer", "convert", &short, "--out", &gguf],
        2,
        &["--layers A..B"],
    );
    fails(
        home,
        &["run", "Hi", "--steer", &short],
        1,
        &["3 numbers a layer", "have 192"],
    );
    fails(
        home,
        &["run", "Hi", "--steer", "v.gguf,layer=3"],
        2,
        &["did you mean layers?"],
    );
    fails(
        home,
        &["run", "Hi", "--steer", &gguf],
        1,
        &["cannot be read"],
    );
    assert!(!home.join("v.gguf").exists());
    // Blocks are scaled without any file.
    let plain = works(home, &["run", "The boy went", "-n", "4"]);
    let scaled = works(
        home,
        &[
            "run",
            "The boy went",
            "-n",
            "4",
            "--steer",
            "scale=0,layers=6..12",
        ],
    );
    assert_ne!(plain, scaled);
}
