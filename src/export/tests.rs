//! A small record made by hand, with everything in it that a table can trip over.

use super::*;
use crate::lens::LensSettings;
use crate::model::config::LayerKind;
use crate::model::{ModelCard, Sampling};
use crate::trace::{Aim, Attention, Candidate, Cells, Grid, Kind, Schema, Token};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const BLOCKS: usize = 2;

fn card() -> ModelCard {
    ModelCard {
        name: "tiny".into(),
        source: "embedded".into(),
        family: "llama".into(),
        blocks: BLOCKS,
        d_model: 8,
        heads: 2,
        kv_heads: 1,
        d_mlp: 16,
        vocab: 6,
        context: 32,
        dtype: "f32".into(),
        device: "cpu×2".into(),
        parameters: 1234,
        bytes: 4936,
        causal: true,
        tied_head: true,
        chat_template: false,
        layers: vec![LayerKind::StateSpace, LayerKind::Attention],
        file_bytes: 4936,
        sha256: Some("ab".repeat(32)),
        ..ModelCard::default()
    }
}

/// What the made-up vocabulary stands for: commas, quotes, line breaks, a formula, a NUL and half a character.
fn text_of(id: u32) -> Vec<u8> {
    match id {
        0 => b"=cmd()".to_vec(),
        1 => b"\"q\",".to_vec(),
        2 => b"\n\0".to_vec(),
        3 => b"\xf0\x9f".to_vec(),
        4 => " thé".into(),
        _ => Vec::new(),
    }
}

fn record(attention: bool) -> Record {
    let lens = LensSettings {
        renyi: vec![0.5, f64::INFINITY],
        top: 2,
        ..LensSettings::default()
    };
    let schema = Arc::new(Schema::new(&lens));
    let mut grid = Grid::new(BLOCKS, schema.len(), schema.top());
    for (i, id) in [4u32, 0, 1, 2, 3].into_iter().enumerate() {
        grid.push_token(Token {
            id,
            bytes: text_of(id),
            kind: if i < 2 { Kind::Prompt } else { Kind::Generated },
            seconds: 0.25 * i as f64,
        });
    }
    for position in 0..4 {
        let mut values: Vec<f32> = (0..(BLOCKS + 1) * schema.len())
            .map(|i| (i as f32 + 1.0) / 3.0 + position as f32)
            .collect();
        values[0] = f32::NAN;
        values[1] = f32::INFINITY;
        values[2] = 1.5e-7;
        values[3] = -0.0;
        values[4] = 0.1;
        values[10] = 7.0;
        let mut top = vec![
            Candidate {
                id: position,
                prob: 0.75,
            };
            2 * (BLOCKS + 1)
        ];
        top[1] = Candidate {
            id: 0,
            prob: f32::NAN,
        };
        let cells = Cells {
            values: values.into(),
            top: top.into(),
            decided_layer: (position != 2).then_some(position),
            attention: attention.then(|| Attention {
                heads: 2,
                entropy: vec![f32::NAN, f32::NAN, 0.5, 0.25].into(),
                varentropy: vec![f32::NAN, f32::NAN, 0.125, 0.0].into(),
                entropy_norm: vec![f32::NAN; 4].into(),
                mean: vec![f32::NAN, 0.375].into(),
                head_var: vec![f32::NAN, 0.015_625].into(),
                disagreement: vec![f32::NAN, 0.1].into(),
                rows: None,
            }),
            divergence: None,
            plan: 0,
        };
        assert!(grid.set_cells(position as usize, Arc::new(cells)));
    }
    Record {
        model: Arc::new(card()),
        schema,
        lens,
        sampling: Sampling::default(),
        sampling_changes: Vec::new(),
        steering: None,
        steering_changes: Vec::new(),
        comparison: None,
        max_new_tokens: 3,
        branches: vec![("main".into(), grid)],
        started: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250),
        ended: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_002)),
    }
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn tokenizer() -> Tokenizer {
    let json = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
        "pre_tokenizer":null,"post_processor":null,"decoder":null,
        "model":{"type":"WordLevel","vocab":{"a":0,"b":1,"c":2,"d":3,"e":4},"unk_token":"a"}}"#;
    Tokenizer::from_bytes(json.as_bytes(), "test").unwrap()
}

#[test]
fn tokens_table_is_golden() {
    assert_eq!(
        written(|out| tokens_csv(out, &record(false))),
        include_str!("golden/tokens.csv")
    );
}

#[test]
fn cells_table_is_golden() {
    assert_eq!(
        written(|out| cells_csv(out, &record(false), &text_of)),
        include_str!("golden/cells.csv")
    );
}

#[test]
fn attention_tables_are_golden() {
    let record = record(true);
    let attention = written(|out| attention_csv(out, &record));
    let head: Vec<&str> = attention.lines().take(5).collect();
    assert_eq!(
        head,
        [
            "branch,position,layer,head,attn_entropy,attn_varentropy,attn_entropy_norm",
            "main,0,1,0,,,",
            "main,0,1,1,,,",
            "main,0,2,0,0.5,0.125,",
            "main,0,2,1,0.25,0,",
        ]
    );
    assert_eq!(attention.lines().count(), 1 + 4 * BLOCKS * 2);
    let layers = written(|out| attention_layers_csv(out, &record));
    let head: Vec<&str> = layers.lines().take(3).collect();
    assert_eq!(
        head,
        [
            "branch,position,layer,attn_entropy_mean,attn_head_var,attn_disagreement",
            "main,0,1,,,",
            "main,0,2,0.375,0.015625,0.1",
        ]
    );
}

#[test]
fn tables_read_back() {
    let record = record(false);
    let text = written(|out| cells_csv(out, &record, &text_of));
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().unwrap().clone();
    assert_eq!(header.len(), 6 + record.schema.len() + 3 * 2);
    assert_eq!(&header[6 + 11], "renyi_0.5");
    assert_eq!(&header[6 + 12], "renyi_inf");
    let (_, grid) = &record.branches[0];
    let mut rows = 0;
    for row in reader.records() {
        let row = row.unwrap();
        let (position, layer): (usize, usize) = (row[1].parse().unwrap(), row[2].parse().unwrap());
        for metric in 0..record.schema.len() {
            let stored = grid
                .value(layer, position, crate::trace::Metric(metric))
                .filter(|v| v.is_finite());
            let read = (!row[6 + metric].is_empty()).then(|| row[6 + metric].parse().unwrap());
            assert_eq!(read, stored, "row {row:?}");
        }
        rows += 1;
    }
    assert_eq!(rows, 4 * (BLOCKS + 1));
}

#[test]
fn numbers_are_shortest_and_round_trip() {
    for (value, shown) in [
        (0.1f32, "0.1"),
        (-0.0, "0"),
        (3.0, "3"),
        (16_777_216.0, "16777216"),
        (1e-5, "0.00001"),
        (1.5e-7, "1.5e-7"),
        (-2.5e-38, "-2.5e-38"),
        (1e20, "1e20"),
        (f32::NAN, ""),
        (f32::INFINITY, ""),
        (f32::NEG_INFINITY, ""),
    ] {
        let mut out = String::new();
        number(value, &mut out);
        assert_eq!(out, shown);
    }
    proptest::proptest!(|(bits in proptest::prelude::any::<u32>())| {
        let value = f32::from_bits(bits);
        let mut out = String::new();
        number(value, &mut out);
        if value.is_finite() {
            proptest::prop_assert_eq!(out.parse::<f32>().unwrap(), value);
        }
    });
}

#[test]
fn manifest_says_what_was_done() {
    let manifest = serde_json::to_value(manifest(&record(false), &["cells.csv"])).unwrap();
    assert_eq!(manifest["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(manifest["model"]["sha256"], "ab".repeat(32));
    assert_eq!(manifest["lens"]["renyi"], serde_json::json!([0.5, "inf"]));
    assert_eq!(manifest["metrics"][1]["name"], "varentropy");
    assert_eq!(manifest["metrics"][1]["unit"], "nats²");
    assert_eq!(manifest["prompt_tokens"], 2);
    assert_eq!(manifest["preset"], "standard");
    assert_eq!(manifest["model"]["context"], 32);
    assert_eq!(
        manifest["model"]["layers"],
        serde_json::json!(["state space", "attention"])
    );
    assert!(manifest["steering"].is_null());
    assert_eq!(manifest["started"], "2023-11-14T22:13:20.25Z");
    assert_eq!(manifest["ended"], "2023-11-14T22:13:22Z");
}

#[test]
fn a_model_without_a_limit_has_no_context() {
    let mut record = record(false);
    record.model = Arc::new(ModelCard {
        context: 1 << 24,
        ..card()
    });
    let manifest = serde_json::to_value(manifest(&record, &[])).unwrap();
    assert!(manifest["model"]["context"].is_null());
}

#[test]
fn where_a_model_sees_both_sides_a_token_has_the_readings_of_its_own_position() {
    let mut record = record(false);
    let (_, grid) = &mut record.branches[0];
    let decided = |grid: &Grid| (0..5).map(|p| grid.decided_layer(p)).collect::<Vec<_>>();
    assert_eq!(decided(grid), [None, Some(0), Some(1), None, Some(3)]);
    *grid = grid.clone().aimed(Aim::Itself);
    assert_eq!(decided(grid), [Some(0), Some(1), None, Some(3), None]);
    let text = written(|out| tokens_csv(out, &record));
    let column: Vec<&str> = text
        .lines()
        .skip(1)
        .filter_map(|line| line.rsplit(',').nth(1))
        .collect();
    assert_eq!(column, ["0", "1", "", "3", ""]);
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_folder_appears_whole_and_equal_runs_are_equal() {
    let root = tempfile::tempdir().unwrap();
    let (a, b) = (root.path().join("deep/a"), root.path().join("b"));
    let paths = write_record(&a, &record(true), &tokenizer(), false).unwrap();
    assert_eq!(paths.len(), 5);
    std::fs::create_dir(&b).unwrap();
    write_record(&b, &record(true), &tokenizer(), false).unwrap();
    let expected = [
        "attention.csv",
        "attention_layers.csv",
        "cells.csv",
        "manifest.json",
        "tokens.csv",
    ];
    assert_eq!(names(&a), expected);
    assert_eq!(names(&b), expected);
    assert_eq!(names(root.path()), ["b", "deep"]);
    assert_eq!(names(&root.path().join("deep")), ["a"]);
    for name in expected {
        assert_eq!(
            std::fs::read(a.join(name)).unwrap(),
            std::fs::read(b.join(name)).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn a_used_folder_is_refused_and_force_replaces_only_our_files() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("run");
    write_record(&dir, &record(true), &tokenizer(), false).unwrap();
    std::fs::write(dir.join("notes.txt"), "mine").unwrap();
    let error = write_record(&dir, &record(false), &tokenizer(), false).unwrap_err();
    assert!(error.to_string().contains("--force"), "{error}");
    assert_eq!(error.exit_code(), 1);
    write_record(&dir, &record(false), &tokenizer(), true).unwrap();
    assert_eq!(
        names(&dir),
        ["cells.csv", "manifest.json", "notes.txt", "tokens.csv"]
    );
    assert_eq!(std::fs::read(dir.join("notes.txt")).unwrap(), b"mine");
}

#[test]
fn a_file_in_the_way_is_named() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("taken");
    std::fs::write(&file, "x").unwrap();
    let error = write_record(&file, &record(false), &tokenizer(), true).unwrap_err();
    assert!(error.to_string().contains("not a folder"), "{error}");
    assert!(atomic::write_file(&file, false, |_| Ok(())).is_err());
    atomic::write_file(&file, true, |out| out.write_all(b"y")).unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), b"y");
    let failed = atomic::write_file(&file, true, |_| Err(io::Error::other("full")));
    assert!(failed.is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"y");
    assert_eq!(names(root.path()), ["taken"]);
}
