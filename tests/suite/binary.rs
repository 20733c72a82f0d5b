//! The real binary, headless: what it prints, writes and says when something is wrong.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Run `entroscope` with settings and caches of its own.
fn entroscope(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_entroscope"))
        .args(arguments)
        .env("ENTROSCOPE_CONFIG_DIR", home.join("config"))
        .env("XDG_CACHE_HOME", home.join("cache"))
        .env("XDG_STATE_HOME", home.join("state"))
        .env("HF_HOME", home.join("hf"))
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Run, expect success, return what it printed.
pub(crate) fn works(home: &Path, arguments: &[&str]) -> String {
    let output = entroscope(home, arguments);
    assert!(
        output.status.success(),
        "{arguments:?} failed: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Run, expect this exit code and one clear message that says each of `says`.
pub(crate) fn fails(home: &Path, arguments: &[&str], code: i32, says: &[&str]) {
    let output = entroscope(home, arguments);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    for part in says {
        assert!(
            message.contains(part),
            "{arguments:?} should say {part:?}: {message}"
        );
    }
    assert!(!message.contains("panicked"), "{arguments:?}: {message}");
}

fn rows(path: &Path) -> (Vec<String>, Vec<Vec<String>>) {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let header = reader
        .headers()
        .unwrap()
        .iter()
        .map(str::to_owned)
        .collect();
    let rows = reader
        .records()
        .map(|r| r.unwrap().iter().map(str::to_owned).collect())
        .collect();
    (header, rows)
}

#[test]
fn a_run_writes_its_tables_and_equal_runs_are_equal() {
    let home = tempfile::tempdir().unwrap();
    let (a, b) = (home.path().join("a"), home.path().join("b"));
    for dir in [&a, &b] {
        let dir = dir.display().to_string();
        works(
            home.path(),
            &[
                "run",
                "Once upon a time",
                "--max-new-tokens",
                "6",
                "--ignore-eos",
                "--attention",
                "--temperature",
                "0.8",
                "--seed",
                "3",
                "--out",
                &dir,
            ],
        );
    }
    let (header, cells) = rows(&a.join("cells.csv"));
    assert_eq!(
        header[..8],
        [
            "branch",
            "position",
            "layer",
            "token_id",
            "token",
            "kind",
            "entropy",
            "varentropy"
        ]
    );
    for column in [
        "renyi_0.5",
        "topk_energy_10",
        "topk_mass_10",
        "participation_ratio",
        "top5_prob",
    ] {
        assert!(
            header.iter().any(|h| h == column),
            "{column} is missing from {header:?}"
        );
    }
    let (tokens_header, tokens) = rows(&a.join("tokens.csv"));
    assert_eq!(
        tokens_header,
        [
            "branch",
            "position",
            "token_id",
            "token",
            "bytes_hex",
            "kind",
            "surprisal",
            "decided_layer",
            "seconds"
        ]
    );
    assert_eq!(tokens.iter().filter(|t| t[5] == "generated").count(), 6);
    // Every read position (all but the last drawn token) has a cell for each state.
    let states = cells.iter().filter(|c| c[1] == "0").count();
    assert!(states > 12, "{states} states");
    assert_eq!(cells.len(), states * (tokens.len() - 1));
    // The surprisal of a token is that of the final state one position earlier.
    let surprisal = header.iter().position(|h| h == "surprisal").unwrap();
    for token in &tokens[1..] {
        let before = (token[1].parse::<usize>().unwrap() - 1).to_string();
        let layer = (states - 1).to_string();
        let cell = cells
            .iter()
            .find(|c| c[1] == before && c[2] == layer)
            .unwrap();
        assert_eq!(cell[surprisal], token[6]);
        assert!(token[6].parse::<f64>().unwrap() >= 0.0);
    }
    for file in ["cells.csv", "attention.csv", "attention_layers.csv"] {
        let read = |dir: &Path| std::fs::read(dir.join(file)).unwrap();
        assert_eq!(read(&a), read(&b), "{file} of equal runs");
    }
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(a.join("manifest.json")).unwrap()).unwrap();
    assert!(manifest.to_string().contains("\"seed\":3"), "{manifest}");
    assert!(manifest["ended"].is_string(), "{manifest}");
    let without_times = |dir: &Path| {
        let bytes = std::fs::read(dir.join("manifest.json")).unwrap();
        let mut manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        manifest["started"] = serde_json::Value::Null;
        manifest["ended"] = serde_json::Value::Null;
        manifest
    };
    assert_eq!(without_times(&a), without_times(&b));
    let without_seconds = |dir: &Path| {
        let (_, mut tokens) = rows(&dir.join("tokens.csv"));
        tokens.iter_mut().for_each(|t| t.truncate(8));
        tokens
    };
    assert_eq!(without_seconds(&a), without_seconds(&b));
}

#[test]
fn json_is_one_record_a_token() {
    let home = tempfile::tempdir().unwrap();
    let out = works(
        home.path(),
        &[
            "run",
            "Once upon a time",
            "--max-new-tokens",
            "4",
            "--ignore-eos",
            "--json",
        ],
    );
    let records: Vec<serde_json::Value> = out
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let generated = records.iter().filter(|r| r["kind"] == "generated").count();
    assert_eq!(generated, 4);
    for (i, record) in records.iter().enumerate() {
        assert_eq!(record["position"], i);
        assert!(record["bytes_hex"].is_string());
    }
}

fn fixture(name: &str) -> String {
    fixtures().join(name).display().to_string()
}

#[test]
fn a_masked_model_fills_in_gaps() {
    let home = tempfile::tempdir().unwrap();
    let model = fixture("bert");
    let dir = home.path().join("out");
    let out = dir.display().to_string();
    let prompt = "The [MASK] says what one layer [MASK] about the time.";
    let run = [
        "run",
        "--model",
        &model,
        prompt,
        "--attention",
        "--out",
        &out,
    ];
    let output = entroscope(home.path(), &run);
    let (shown, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("fills in [MASK] and generates nothing"),
        "{said}"
    );
    assert!(
        shown.starts_with("the [MASK] says what one layer [MASK] about the time.\n\n"),
        "{shown}"
    );

    let (header, cells) = rows(&dir.join("cells.csv"));
    let (_, tokens) = rows(&dir.join("tokens.csv"));
    let column = |name: &str| header.iter().position(|h| h == name).unwrap();
    assert_eq!(cells.len(), 4 * tokens.len(), "cells at every position");
    let gaps: Vec<&Vec<String>> = tokens.iter().filter(|t| t[3] == "[MASK]").collect();
    assert_eq!(gaps.len(), 2);
    let blocks: Vec<&str> = shown.split("\n\n").skip(1).collect();
    assert_eq!(blocks.len(), 2, "{shown}");
    for (i, (gap, block)) in gaps.iter().zip(&blocks).enumerate() {
        // What is printed is what the last layer says at that very position.
        let cell = cells
            .iter()
            .find(|c| c[1] == gap[1] && c[2] == "3")
            .unwrap();
        let entropy: f64 = cell[column("entropy")].parse().unwrap();
        let heading = format!(
            "[MASK] {} of 2, position {}: entropy {entropy:.3} nats, decided at layer {} of 3",
            i + 1,
            gap[1],
            gap[7],
        );
        let mut lines = block.lines();
        assert_eq!(lines.next().unwrap(), heading);
        assert_eq!(lines.clone().count(), 5, "{block}");
        let best = lines.next().unwrap();
        let share: f64 = cell[column("top1_prob")].parse().unwrap();
        assert!(best.contains(&format!("{:.1} %", 100.0 * share)), "{best}");
    }
    let best = column("top1_id");
    for token in &tokens {
        assert_eq!(token[5], "prompt");
        assert_eq!(token[6], "", "no surprisal");
        // The layer from which on the best candidate at the token's own position stays.
        let profile: Vec<&str> = cells
            .iter()
            .filter(|c| c[1] == token[1])
            .map(|c| c[best].as_str())
            .collect();
        let settled = (0..4).find(|l| profile[*l..].iter().all(|id| *id == profile[3]));
        assert_eq!(token[7], settled.unwrap().to_string(), "{profile:?}");
    }
    for column in ["surprisal", "next_rank"].map(column) {
        assert!(cells.iter().all(|c| c[column].is_empty()));
    }
    let (_, attention) = rows(&dir.join("attention.csv"));
    assert_eq!(attention.len(), tokens.len() * 3 * 4);
    assert!(
        attention
            .iter()
            .all(|a| !a[4].is_empty() && !a[6].is_empty())
    );

    let json = works(home.path(), &["run", "--model", &model, prompt, "--json"]);
    let records: Vec<serde_json::Value> = json
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(records.len(), tokens.len());
    for (record, token) in records.iter().zip(&tokens) {
        assert_eq!(record["mask"], token[3] == "[MASK]");
        assert_eq!(record["decided_layer"].to_string(), token[7]);
        assert!(record["surprisal"].is_null());
        assert_eq!(record["top"].as_array().unwrap().len(), 4);
    }
    let table = works(home.path(), &["run", "--model", &model, prompt, "--table"]);
    assert!(table.contains("mean over 2 [MASK] positions"), "{table}");
    assert!(table.contains(blocks[1]), "{table}");
}

#[test]
fn a_masked_model_says_what_it_cannot_do() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path();
    let model = fixture("bert");
    fails(
        path,
        &[
            "run",
            "--model",
            &model,
            "one [MASK]",
            "--max-new-tokens",
            "5",
        ],
        2,
        &["--max-new-tokens 5", "fills in [MASK]", "generates nothing"],
    );
    let long = "the time ".repeat(100);
    fails(
        path,
        &["run", "--model", &model, &long],
        2,
        &["at most 128", "Shorten"],
    );
    let plain = entroscope(path, &["run", "--model", &model, "the time", "-n", "0"]);
    let said = text(&plain.stderr);
    assert!(plain.status.success(), "{said}");
    assert_eq!(text(&plain.stdout), "the time\n");
    assert!(
        said.contains("write [MASK] where a word is missing"),
        "{said}"
    );
    assert!(
        !said.contains("generates nothing"),
        "0 was asked for: {said}"
    );
    assert!(said.contains("4 tokens read"), "{said}");
    let card = works(path, &["models", &model]);
    assert!(card.contains("no (fills in [MASK])"), "{card}");
}

#[test]
fn models_without_attention_everywhere_run_and_are_described() {
    let home = tempfile::tempdir().unwrap();
    let run = |name: &str| {
        let dir = home.path().join(name);
        let output = entroscope(
            home.path(),
            &[
                "run",
                "--model",
                &fixture(name),
                "One layer says",
                "-n",
                "3",
                "--ignore-eos",
                "--attention",
                "--out",
                &dir.display().to_string(),
            ],
        );
        let said = text(&output.stderr);
        assert!(output.status.success(), "{name}: {said}");
        (dir, said)
    };
    for name in ["mamba", "mamba2"] {
        let (dir, said) = run(name);
        assert!(said.contains("has no attention"), "{said}");
        assert!(!dir.join("attention.csv").exists());
        let card = works(home.path(), &["models", &fixture(name)]);
        for says in [
            "3 layers: state space",
            "no limit but memory",
            "attention: no layer has any",
        ] {
            assert!(card.contains(says), "{says}: {card}");
        }
        let json = works(home.path(), &["models", &fixture(name), "--json"]);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert!(json["context"].is_null(), "{json}");
        assert_eq!(json["layers"][2], "state space");
    }
    for (name, empty, kinds, lacks) in [
        (
            "zamba2",
            &[1, 4][..],
            "5 layers: 3 state space + attention, 2 state space (1, 4)",
            "attention of state space layers",
        ),
        (
            "lfm2",
            &[1, 3],
            "3 layers: 2 convolution, 1 attention (2)",
            "attention of convolution layers",
        ),
        (
            "mllama",
            &[3],
            "3 layers: 2 attention, 1 cross-attention (skipped in text) (3)",
            "images: only text is read",
        ),
    ] {
        let (dir, _) = run(name);
        let (_, layers) = rows(&dir.join("attention_layers.csv"));
        for row in &layers {
            let layer: usize = row[2].parse().unwrap();
            assert_eq!(row[3].is_empty(), empty.contains(&layer), "{name} {row:?}");
        }
        let card = works(home.path(), &["models", &fixture(name)]);
        assert!(card.contains(kinds), "{name}: {card}");
        assert!(card.contains(lacks), "{name}: {card}");
    }
    let card = works(home.path(), &["models", &fixture("mllama_vl")]);
    assert!(card.contains("image tower: "), "{card}");
}

#[test]
fn the_model_is_described() {
    let home = tempfile::tempdir().unwrap();
    let card = works(home.path(), &["models", "demo"]);
    assert!(card.contains("llama"), "{card}");
    assert!(card.to_lowercase().contains("q8_0"), "{card}");
    assert!(works(home.path(), &["models"]).contains("demo"));
    assert!(works(home.path(), &["completions", "bash"]).contains("entroscope"));
    let doctor = entroscope(home.path(), &["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    assert!(doctor.status.success(), "{report}");
    assert!(!report.to_string().contains("broken"), "{report}");
}

#[test]
fn wrong_use_is_told_apart_from_failure() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path();
    fails(path, &["run", ""], 2, &["empty"]);
    fails(path, &["run", "   \n"], 2, &["empty"]);
    fails(
        path,
        &["run", "x", "--prompt-ids", "1,2"],
        2,
        &["--prompt-ids"],
    );
    fails(
        path,
        &["run", "--prompt-ids", "999999"],
        2,
        &["999999", "3071"],
    );
    fails(path, &["run", "x", "--temperature=-1"], 2, &["temperature"]);
    fails(path, &["run", "x", "--top-p", "1.5"], 2, &["top"]);
    fails(
        path,
        &["run", "x", "--model", "no-such-thing"],
        2,
        &["no-such-thing"],
    );
    fails(
        path,
        &["run", "x", "--model", "nobody/nothing"],
        1,
        &["nobody/nothing"],
    );
    fails(
        path,
        &["run", "--prompt-file", "/no/such/file"],
        1,
        &["/no/such/file"],
    );
    let long = "word ".repeat(5000);
    fails(path, &["run", &long], 2, &["tokens", "Shorten"]);
}

#[test]
fn a_target_is_neither_overwritten_nor_left_half_written() {
    let home = tempfile::tempdir().unwrap();
    let target = home.path().join("taken");
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("cells.csv"), "mine").unwrap();
    let dir = target.display().to_string();
    let run = ["run", "Once", "--max-new-tokens", "1", "--out", &dir];
    let refused = entroscope(home.path(), &run);
    assert!(!refused.status.success());
    assert!(
        text(&refused.stderr).contains("--force"),
        "{}",
        text(&refused.stderr)
    );
    assert_eq!(
        std::fs::read_to_string(target.join("cells.csv")).unwrap(),
        "mine"
    );
    works(home.path(), &[&run[..], &["--force"]].concat());
    assert_ne!(
        std::fs::read_to_string(target.join("cells.csv")).unwrap(),
        "mine"
    );
    let file = home.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let below = file.join("below").display().to_string();
    fails(
        home.path(),
        &["run", "Once", "--max-new-tokens", "1", "--out", &below],
        1,
        &["file"],
    );
}

/// A copy of a fixture with one file changed.
fn damaged(home: &Path, file: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) -> String {
    let copy = home.join("damaged");
    let _ = std::fs::remove_dir_all(&copy);
    std::fs::create_dir(&copy).unwrap();
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        std::fs::copy(fixtures().join("llama").join(name), copy.join(name)).unwrap();
    }
    let bytes = std::fs::read(copy.join(file)).unwrap();
    std::fs::write(copy.join(file), change(bytes)).unwrap();
    copy.display().to_string()
}

#[test]
fn damaged_models_get_one_clear_sentence() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path();
    let run = |model: &str, says: &[&str]| fails(path, &["run", "x", "--model", model], 1, says);
    run(
        &damaged(path, "model.safetensors", |b| b[..b.len() / 2].to_vec()),
        &["model.safetensors"],
    );
    run(
        &damaged(path, "model.safetensors", |_| vec![255; 64]),
        &["model.safetensors"],
    );
    run(
        &damaged(path, "tokenizer.json", |_| b"{}".to_vec()),
        &["tokenizer"],
    );
    run(
        &damaged(path, "config.json", |_| b"not json".to_vec()),
        &["config.json"],
    );
    let config = |from: &'static str, to: &'static str| {
        move |b: Vec<u8>| text(&b).replace(from, to).into_bytes()
    };
    let wrong = damaged(
        path,
        "config.json",
        config("\"hidden_size\": 16", "\"hidden_size\": 32"),
    );
    run(&wrong, &["model.", "shape"]);
    let unknown = damaged(path, "config.json", config("\"llama\"", "\"lllama\""));
    run(&unknown, &["lllama", "llama"]);
    let layers = damaged(
        path,
        "config.json",
        config("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4"),
    );
    run(&layers, &["model.layers.3", "missing"]);
    std::fs::remove_file(Path::new(&layers).join("tokenizer.json")).unwrap();
    run(&layers, &["tokenizer.json"]);
}

#[test]
fn a_small_trained_model_tells_its_story() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/models/stories260K");
    if !model.is_dir() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let out = works(
        home.path(),
        &[
            "run",
            "Once upon a time",
            "--model",
            &model.display().to_string(),
            "--max-new-tokens",
            "60",
        ],
    );
    assert!(
        out.contains(
            ", there was a little girl named Lily. She loved to play outside in the park."
        ),
        "{out}"
    );
}
