//! What holds for every family: memories that fork and rewind, memory known beforehand, damage that is named.

use super::oracle;
use candle_core::{Device, Tensor};
use entroscope::model::config::DecoderConfig;
use entroscope::model::decoder::{Row, Taps};
use entroscope::model::families::Family;
use entroscope::model::memory::MemoryPlan;
use entroscope::model::safetensors::Safetensors;
use entroscope::model::weights::Precision;
use entroscope::model::{Change, Decoder, Intervention, LoadOptions, Model};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(family)
}

fn config(family: &str) -> Value {
    let text = std::fs::read_to_string(folder(family).join("config.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn tensors(family: &str) -> HashMap<String, Tensor> {
    let file = folder(family).join("model.safetensors");
    candle_core::safetensors::load(file, &Device::Cpu).unwrap()
}

/// Build a decoder of spoiled parts and return the complaint.
fn refused(config: &Value, tensors: &HashMap<String, Tensor>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    candle_core::safetensors::save(tensors, &file).unwrap();
    let source = Safetensors::open_file(&file).unwrap();
    let built = DecoderConfig::from_json(config)
        .and_then(|config| Decoder::load(config, &source, &Device::Cpu));
    built.map(|_| ()).unwrap_err().to_string()
}

fn model(family: &str) -> Model {
    let reference = folder(family).display().to_string();
    Model::load(&reference, &LoadOptions::default(), &mut |_, _, _| {}).unwrap()
}

/// What can happen to a branch.
#[derive(Clone, Debug)]
enum Step {
    /// Read some tokens under one of [`plans`].
    Read(usize, Vec<u32>, usize),
    /// Begin another branch here.
    Fork(usize),
    /// Forget all but this share of the text, in hundredths.
    Rewind(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let read = (0usize..4, prop::collection::vec(3u32..390, 1..7), 0..PLANS);
    let step = prop_oneof![
        4 => read.prop_map(|(branch, tokens, plan)| Step::Read(branch, tokens, plan)),
        1 => (0usize..4).prop_map(Step::Fork),
        2 => (0usize..4, 0usize..100).prop_map(|(branch, share)| Step::Rewind(branch, share)),
    ];
    prop::collection::vec(step, 1..10)
}

const PLANS: usize = 5;

/// Nothing, and each kind of change, at the given positions.
fn plans(d_model: usize, positions: std::ops::Range<usize>) -> [Vec<Intervention>; PLANS] {
    let wave =
        |rate: f32| -> Arc<[f32]> { (0..d_model).map(|i| (rate * i as f32).sin()).collect() };
    let of = |layer, change| Intervention {
        layer,
        positions: positions.clone(),
        change,
    };
    let add = |vector, weights: &[f32], keep_norm| Change::Add {
        vector,
        weights: weights.into(),
        keep_norm,
    };
    [
        Vec::new(),
        vec![of(1, add(wave(1.0), &[], false))],
        vec![of(2, add(wave(0.7), &[0.5, 0.0, -1.0, 2.0], true))],
        vec![of(2, Change::ScaleBlock(0.5))],
        vec![
            of(0, add(wave(0.3), &[], true)),
            of(2, add(wave(0.9), &[1.0, 0.5], true)),
            of(2, Change::ScaleBlock(0.0)),
            of(2, add(wave(1.3), &[], false)),
        ],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn forks_never_disturb_each_other_and_rewound_branches_go_on_like_fresh_ones(steps in steps()) {
        for family in oracle::causal() {
            let model = model(family);
            let decoder = model.decoder();
            let last = |decoder: &Decoder, mut row: Row<'_>| -> Vec<f32> {
                let tokens = row.tokens.len();
                let traced = decoder.forward(std::slice::from_mut(&mut row), Taps::default()).unwrap();
                traced.last.narrow(0, tokens - 1, 1).unwrap().flatten_all().unwrap().to_vec1().unwrap()
            };
            let d_model = decoder.config().d_model;
            // What was read, and under which plan.
            let mut branches = vec![(decoder.state(), Vec::<(u32, usize)>::new())];
            for step in &steps {
                match step {
                    Step::Read(branch, tokens, plan) => {
                        let at = branch % branches.len();
                        let (state, text) = &mut branches[at];
                        let always = &plans(d_model, 0..usize::MAX)[*plan];
                        last(decoder, Row::new(tokens, Some(state)).steered(always));
                        text.extend(tokens.iter().map(|id| (*id, *plan)));
                    }
                    Step::Fork(branch) => {
                        let at = branch % branches.len();
                        let fork = branches[at].0.fork().unwrap();
                        let text = branches[at].1.clone();
                        branches.push((fork, text));
                    }
                    Step::Rewind(branch, share) => {
                        let at = branch % branches.len();
                        let (state, text) = &mut branches[at];
                        text.truncate(text.len() * share / 100);
                        state.truncate(text.len());
                    }
                }
            }
            for (state, text) in &mut branches {
                prop_assert_eq!(state.len(), text.len());
                text.push((77, 0));
                let went_on = last(decoder, Row::new(&[77], Some(state)));
                let ids: Vec<u32> = text.iter().map(|(id, _)| *id).collect();
                let each = text.iter().enumerate();
                let plan: Vec<Intervention> = each
                    .flat_map(|(i, (_, plan))| plans(d_model, i..i + 1)[*plan].clone())
                    .collect();
                let fresh = last(decoder, Row::new(&ids, None).steered(&plan));
                prop_assert_eq!(went_on, fresh, "{} after {:?}", family, steps);
            }
        }
    }
}

#[test]
fn memory_is_known_before_it_is_taken() {
    for entry in std::fs::read_dir(folder("")).unwrap() {
        let family = entry.unwrap().file_name().into_string().unwrap();
        let model = model(&family);
        let (_, taken) = model.decoder().size();
        let expected = model.plan().weights;
        let error = (expected as f64 - taken as f64).abs() / taken as f64;
        assert!(error <= 0.1, "{family}: {expected} expected, {taken} taken");
        let mut state = model.decoder().state();
        if model.card().causal {
            let text = [5u32; 90];
            let mut rows = [Row::new(&text, Some(&mut state))];
            model.decoder().forward(&mut rows, Taps::default()).unwrap();
            let plan = model.plan();
            assert!(
                state.bytes() <= plan.per_branch + 90 * plan.per_token,
                "{family}"
            );
            assert!(
                2 * state.bytes() >= plan.per_branch + 90 * plan.per_token,
                "{family}"
            );
        }
    }
}

#[test]
fn a_model_larger_than_memory_is_refused_kindly() {
    let options = LoadOptions {
        memory: Some(1 << 20),
        ..LoadOptions::default()
    };
    let reference = folder("llama").display().to_string();
    let error = Model::load(&reference, &options, &mut |_, _, _| {}).map(|_| ());
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("needs") && error.contains("1 MiB are free"),
        "{error}"
    );
}

#[test]
fn loading_can_be_given_up() {
    let options = LoadOptions::default();
    options
        .cancel
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let reference = folder("llama").display().to_string();
    let error = Model::load(&reference, &options, &mut |_, _, _| {}).map(|_| ());
    assert!(matches!(error, Err(entroscope::Error::Interrupted)));
}

#[test]
fn every_tensor_that_is_missing_is_named() {
    for entry in std::fs::read_dir(folder("")).unwrap() {
        let family = entry.unwrap().file_name().into_string().unwrap();
        if family.ends_with("sharded") {
            continue;
        }
        let (config, tensors) = (config(&family), tensors(&family));
        let source = Safetensors::open_folder(&folder(&family)).unwrap();
        let parsed = DecoderConfig::from_json(&config).unwrap();
        let decoder = Decoder::load(parsed, &source, &Device::Cpu).unwrap();
        for name in tensors.keys() {
            let unneeded = decoder.unread().contains(name)
                || name.contains("cross_attn")
                || name.ends_with(".attn.bias")
                || name.contains("layers.2.") && family.starts_with("mllama");
            if unneeded {
                continue;
            }
            let mut spoiled = tensors.clone();
            spoiled.remove(name);
            let error = refused(&config, &spoiled);
            assert!(
                error.contains(&format!("{name} ")),
                "{family} without {name}: {error}"
            );
            assert!(
                error.contains("is missing"),
                "{family} without {name}: {error}"
            );
        }
    }
}

#[test]
fn what_does_not_fit_is_named_with_both_shapes() {
    let (good, tensors) = (config("llama"), tensors("llama"));
    let down = "model.layers.1.mlp.down_proj.weight";
    for (field, value, says) in [
        (
            "vocab_size",
            json!(500),
            "embed_tokens.weight has shape [400, 16], but config.json asks for [500, 16]",
        ),
        (
            "intermediate_size",
            json!(1 << 23),
            "shape [32, 16], but config.json asks for [8388608, 16]",
        ),
        ("num_hidden_layers", json!(2), "model.layers.2."),
        (
            "num_hidden_layers",
            json!(4),
            "model.layers.3.input_layernorm.weight [16] is missing",
        ),
        (
            "num_hidden_layers",
            json!(0),
            "num_hidden_layers must be a whole number",
        ),
        (
            "num_hidden_layers",
            json!(1 << 20),
            "num_hidden_layers is more than",
        ),
        (
            "hidden_size",
            json!(1u64 << 40),
            "hidden_size must be a whole number",
        ),
        (
            "hidden_size",
            json!(1 << 22),
            "embed_tokens.weight has shape [400, 16]",
        ),
        (
            "attention_bias",
            json!(true),
            "model.layers.0.self_attn.q_proj.bias [16] is missing",
        ),
        (
            "tie_word_embeddings",
            json!("yes"),
            "tie_word_embeddings must be true or false",
        ),
        ("hidden_act", json!(7), "hidden_act must be a text"),
        (
            "rope_scaling",
            json!("linear"),
            "rope_scaling must be an object",
        ),
    ] {
        let mut config = good.clone();
        config[field] = value;
        let error = refused(&config, &tensors);
        assert!(error.contains(says), "{field}: {error}");
    }
    let spoil = |name: &str, tensor: Tensor| {
        let mut tensors = tensors.clone();
        tensors.insert(name.into(), tensor);
        refused(&good, &tensors)
    };
    let nan = tensors[down].affine(f64::NAN, 0.0).unwrap();
    let error = spoil(down, nan);
    assert!(
        error.contains(down) && error.contains("not finite"),
        "{error}"
    );
    let error = spoil(down, tensors[down].t().unwrap().contiguous().unwrap());
    assert!(
        error.contains("[32, 16]") && error.contains("[16, 32]"),
        "{error}"
    );
    // A bias that this configuration has no use for would silently be left out.
    let bias = Tensor::zeros(16, candle_core::DType::F32, &Device::Cpu).unwrap();
    let name = "model.layers.0.self_attn.o_proj.bias";
    let error = spoil(name, bias);
    assert!(
        error.contains(name) && error.contains("has no place"),
        "{error}"
    );
}

#[test]
fn an_unknown_architecture_names_the_nearest_and_the_files_to_edit() {
    let mut unknown = config("llama");
    unknown["model_type"] = json!("gemma4_text");
    let error = refused(&unknown, &tensors("llama"));
    assert!(error.contains("nearest: gemma"), "{error}");
    for file in [
        "src/model/families/transformer.rs",
        "src/model/families/names.rs",
    ] {
        assert!(error.contains(file), "{error}");
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(file).is_file());
    }
}

/// The text part of published multimodal files leaves out what its class has by default.
#[test]
fn sparse_configurations_mean_what_their_class_does() {
    let read = |config: Value| DecoderConfig::from_json(&config).unwrap();
    let third = read(json!({
        "model_type": "gemma3",
        "text_config": {
            "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
            "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024
        }
    }));
    assert_eq!((third.heads, third.kv_heads, third.head_dim), (8, 4, 256));
    assert_eq!(
        (third.vocab, third.context, third.blocks()),
        (262_208, 131_072, 34)
    );
    assert!(third.tied && third.layers[5].window().is_none());
    assert_eq!(third.layers[0].window(), Some(1024));
    let vision = read(json!({
        "model_type": "mllama",
        "text_config": {"model_type": "mllama_text_model", "num_hidden_layers": 40}
    }));
    assert_eq!((vision.vocab, vision.embedded), (128_256, 128_264));
    assert_eq!(
        (vision.heads, vision.kv_heads, vision.d_mlp),
        (32, 8, 14_336)
    );
    let neox = read(json!({
        "model_type": "gpt_neox", "vocab_size": 50432, "hidden_size": 512, "num_attention_heads": 8,
        "num_hidden_layers": 6, "intermediate_size": 2048
    }));
    assert_eq!(neox.rotaries()[0].frequencies.len(), 8);
    let qwen = json!({
        "model_type": "qwen2", "vocab_size": 100, "hidden_size": 64, "num_attention_heads": 4,
        "num_hidden_layers": 2, "intermediate_size": 128, "use_sliding_window": true,
        "sliding_window": null, "max_window_layers": 0
    });
    assert!(read(qwen).layers.iter().all(|l| l.window().is_none()));
}

#[test]
fn numbers_that_no_machine_could_hold_are_an_error_and_not_a_crash() {
    for (family, fields) in [
        (
            "mamba",
            vec![
                "hidden_size",
                "expand",
                "intermediate_size",
                "state_size",
                "conv_kernel",
            ],
        ),
        (
            "mamba2",
            vec![
                "hidden_size",
                "expand",
                "num_heads",
                "head_dim",
                "state_size",
                "n_groups",
            ],
        ),
        (
            "llama",
            vec![
                "num_attention_heads",
                "num_key_value_heads",
                "head_dim",
                "hidden_size",
            ],
        ),
        (
            "zamba2",
            vec![
                "hidden_size",
                "mamba_d_state",
                "mamba_d_conv",
                "adapter_rank",
            ],
        ),
        (
            "lfm2",
            vec!["hidden_size", "conv_L_cache", "block_multiple_of"],
        ),
    ] {
        let mut huge = config(family);
        for field in fields {
            huge[field] = json!(1 << 24);
        }
        let source = Safetensors::open_folder(&folder(family)).unwrap();
        let read = DecoderConfig::from_json(&huge).and_then(|c| {
            let plan = MemoryPlan::new(&c, &source, Precision::Stored);
            assert!(plan.total(1 << 24) > 0);
            Decoder::load(c, &source, &Device::Cpu)
        });
        assert!(read.is_err(), "{family}");
    }
}

/// The README's table of families has a row for each, and every test that it names exists.
#[test]
fn the_table_of_families_is_true() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let rows: Vec<Vec<&str>> = readme
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    for family in Family::ALL {
        let cell = format!("`{}`", family.name());
        assert!(
            rows.iter()
                .any(|row| row[0].split(' ').next() == Some(&cell)),
            "no row for {cell}"
        );
    }
    let sources: String = ["oracle", "families", "gguf"]
        .into_iter()
        .filter_map(|file| {
            std::fs::read_to_string(root.join(format!("tests/suite/{file}.rs"))).ok()
        })
        .collect();
    let from = readme.find("Each column is a test").unwrap();
    let to = from + readme[from..].find("\n\n").unwrap();
    let named: Vec<&str> = readme[from..to].split('`').skip(1).step_by(2).collect();
    assert!(named.len() >= 4);
    for test in named {
        assert!(
            sources.contains(&format!("fn {test}(")),
            "there is no test {test}"
        );
    }
}

#[test]
fn weights_are_held_as_asked() {
    let reference = folder("qwen2_bf16_sharded").display().to_string();
    let held = |precision: &str| {
        let options = LoadOptions {
            precision: precision.parse().unwrap(),
            ..LoadOptions::default()
        };
        let model = Model::load(&reference, &options, &mut |_, _, _| {}).unwrap();
        let mut rows = [Row::new(&[7, 100, 31], None)];
        let traced = model.decoder().forward(&mut rows, Taps::default()).unwrap();
        let last: Vec<f32> = traced.last.flatten_all().unwrap().to_vec1().unwrap();
        // What takes fewer bytes for the very same numbers is known only when they are seen.
        let (planned, taken) = (model.plan().weights, model.decoder().size().1);
        assert!(planned == taken || precision == "f32" && planned > taken);
        (model.card().dtype.clone(), model.card().bytes, last)
    };
    let (stored, wide) = (held("auto"), held("f32"));
    assert_eq!(stored.0, "bf16");
    assert_eq!(wide.0, "bf16→f32");
    assert_eq!(wide.1, stored.1);
    // Widening is exact, so nothing changes to the last bit.
    assert_eq!(stored.2, wide.2);
    assert_eq!(held("bf16"), stored);
    assert_eq!(held("f16").0, "bf16→f16");
    assert!(
        "int8"
            .parse::<entroscope::model::weights::Precision>()
            .is_err()
    );
}
