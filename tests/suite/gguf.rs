//! GGUF files of the reference checkpoints, and wider ones in every quantisation.

use super::devices;
use super::oracle::{self, Expected, folder};
use candle_core::{DType, Device, Tensor};
use entroscope::model::config::DecoderConfig;
use entroscope::model::decoder::{Row, Taps};
use entroscope::model::gguf::{Gguf, GgufType, write_gguf};
use entroscope::model::safetensors::Safetensors;
use entroscope::model::weights::{Loading, Stored, TensorSource};
use entroscope::model::{Decoder, LoadOptions, Model};
use serde_json::{Value, json};
use std::path::Path;

/// Every fixture whose architecture GGUF has a name for.
const FAMILIES: [&str; 21] = [
    "bloom",
    "gemma",
    "gemma2",
    "gemma3",
    "gpt2",
    "gpt2_hub",
    "gpt_neox",
    "lfm2",
    "llama",
    "llama_tied",
    "mamba",
    "mamba2",
    "mistral",
    "olmo2",
    "phi",
    "phi3",
    "phi3_longrope",
    "qwen2",
    "qwen2_bf16_sharded",
    "qwen3",
    "smollm3",
];

fn config(family: &str) -> Value {
    let text = std::fs::read_to_string(folder(family).join("config.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// All tensors of a fixture, in f32.
fn tensors(family: &str) -> Vec<(String, Tensor)> {
    let source = Safetensors::open_folder(&folder(family)).unwrap();
    let wide = |name: &String| match source.load(name).unwrap() {
        Stored::Float(t) => t.to_dtype(DType::F32).unwrap(),
        Stored::Quantised(_) => unreachable!("safetensors hold no blocks"),
    };
    source
        .names()
        .iter()
        .map(|n| (n.clone(), wide(n)))
        .collect()
}

fn written(path: &Path, family: &str, kind: GgufType) {
    let tokenizer = std::fs::read_to_string(folder(family).join("tokenizer.json")).unwrap();
    let (mut config, tensors) = (config(family), tensors(family));
    if family == "bloom" {
        // ALiBi has no end: the converter writes this, or the width where it is missing.
        config["seq_length"] = json!(2048);
    }
    write_gguf(path, &config, &tensors, kind, Some(&tokenizer), &[]).unwrap();
}

#[test]
fn gguf_files_of_every_family_equal_the_float64_reference() {
    let place = tempfile::tempdir().unwrap();
    for family in FAMILIES {
        let path = place.path().join(format!("{family}.gguf"));
        written(&path, family, GgufType::F32);
        let reference = path.display().to_string();
        let model = Model::load(&reference, &LoadOptions::default(), &mut |_, _, _| {}).unwrap();
        let expected = Expected::load(family);
        oracle::metrics(family, &model, &expected);
        oracle::greedy(family, &model, &expected);
    }
}

/// A checkpoint sixteen times as wide as the fixture, of random numbers: wide enough for blocks of 256.
fn wider(family: &str) -> (Value, Vec<(String, Tensor)>) {
    let mut config = config(family);
    let fields = [
        "hidden_size",
        "n_embd",
        "intermediate_size",
        "n_inner",
        "head_dim",
        "query_pre_attn_scalar",
        "block_ff_dim",
    ];
    for field in fields {
        if let Some(n) = config[field].as_u64() {
            config[field] = json!(16 * n);
        }
    }
    if family == "lfm2" {
        config["block_auto_adjust_ff_dim"] = json!(false);
        config["block_ff_dim"] = json!(48 * 16);
    }
    let kept = ["vocab_size", "n_positions", "conv_L_cache"];
    let kept: Vec<u64> = kept.iter().filter_map(|f| config[*f].as_u64()).collect();
    let tensors = tensors(family)
        .into_iter()
        .map(|(name, t)| {
            let grown = |d: &usize| match *d == 1 || kept.contains(&(*d as u64)) {
                true => *d,
                false => 16 * d,
            };
            let shape: Vec<usize> = t.dims().iter().map(grown).collect();
            let (mean, spread) = match shape.len() {
                1 => (1.0, 0.1),
                _ => (0.0, 0.06),
            };
            let t = Tensor::randn(mean as f32, spread as f32, shape, &Device::Cpu).unwrap();
            (name, t)
        })
        .collect();
    (config, tensors)
}

/// The same weights, every block widened.
fn widened(gguf: &Gguf, place: &Path) -> Safetensors {
    let names = gguf.names();
    let wide = names.iter().map(|name| {
        let t = match gguf.load(name).unwrap() {
            Stored::Float(t) => t.to_dtype(DType::F32).unwrap(),
            Stored::Quantised(q) => q.dequantize(&Device::Cpu).unwrap(),
        };
        (name.clone(), t.contiguous().unwrap())
    });
    let file = place.join("widened.safetensors");
    candle_core::safetensors::save(&wide.collect(), &file).unwrap();
    Safetensors::open_file(&file).unwrap()
}

#[test]
fn quantised_weights_compute_what_they_stand_for_and_stay_quantised() {
    let families = [
        "llama", "gpt2", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "lfm2",
    ];
    let kinds = [
        (GgufType::F16, 2.0),
        (GgufType::BF16, 2.0),
        (GgufType::Q8_0, 34.0 / 32.0),
        (GgufType::Q4_0, 18.0 / 32.0),
        (GgufType::Q4_K, 144.0 / 256.0),
        (GgufType::Q5_K, 176.0 / 256.0),
        (GgufType::Q6_K, 210.0 / 256.0),
    ];
    let place = tempfile::tempdir().unwrap();
    for (i, family) in families.into_iter().enumerate() {
        let (config, tensors) = wider(family);
        // All formats for two families, two formats for each of the others.
        let some = if i < 2 {
            0..kinds.len()
        } else {
            i % 5..i % 5 + 2
        };
        for (kind, bytes) in &kinds[some] {
            let path = place.path().join("x.gguf");
            write_gguf(&path, &config, &tensors, *kind, None, &[]).unwrap();
            let gguf = Gguf::open(&path).unwrap();
            let parsed = || DecoderConfig::from_json(&gguf.config().unwrap()).unwrap();
            let kept = Decoder::load(parsed(), &gguf, &Device::Cpu).unwrap();
            let wide = widened(&gguf, place.path());
            let wide = Decoder::load(parsed(), &wide, &Device::Cpu).unwrap();
            let logits = |decoder: &Decoder| -> Vec<f32> {
                let tokens = [5, 17, 99, 4, 250];
                let mut rows = [Row::new(&tokens, None)];
                let traced = decoder.forward(&mut rows, Taps::default()).unwrap();
                let normed = decoder.final_norm(&traced.last).unwrap();
                decoder
                    .head(&normed)
                    .unwrap()
                    .flatten_all()
                    .unwrap()
                    .to_vec1()
                    .unwrap()
            };
            let (a, b) = (logits(&kept), logits(&wide));
            assert_eq!(a, b, "{family} in {kind:?}");
            assert!(a.iter().all(|z| z.is_finite()));
            let elsewhere = devices::elsewhere();
            let there = Decoder::load_as(parsed(), &gguf, &elsewhere, &Loading::default()).unwrap();
            for (found, expected) in logits(&there).iter().zip(&a) {
                let off = (found - expected).abs();
                assert!(
                    off <= 1e-4 * expected.abs().max(1.0),
                    "{family} in {kind:?} on other devices: {found} {expected}"
                );
            }
            // Vectors, and GPT-2's positions, stay f32.
            let (parameters, held) = kept.size();
            let each = held as f64 / parameters as f64;
            assert!(
                each >= *bytes && each < bytes * 1.25 + 0.1,
                "{family} in {kind:?}: {each}"
            );
        }
    }
}

#[test]
fn a_shared_embedding_is_counted_once() {
    let place = tempfile::tempdir().unwrap();
    let (config, tensors) = wider("gpt2");
    let path = place.path().join("x.gguf");
    write_gguf(&path, &config, &tensors, GgufType::Q8_0, None, &[]).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    let parsed = DecoderConfig::from_json(&gguf.config().unwrap()).unwrap();
    let (_, held) = Decoder::load(parsed, &gguf, &Device::Cpu).unwrap().size();
    let stored: u64 = gguf.names().iter().filter_map(|n| gguf.bytes_of(n)).sum();
    assert_eq!(held, stored);
}

/// Published files of phi-2 keep queries, keys and values in one tensor.
#[test]
fn queries_keys_and_values_may_lie_in_one_tensor() {
    let place = tempfile::tempdir().unwrap();
    let mut fused = Vec::new();
    let mut parts = std::collections::BTreeMap::<String, Vec<(usize, Tensor)>>::new();
    for (name, tensor) in tensors("phi") {
        let of = ["q_proj", "k_proj", "v_proj"]
            .iter()
            .position(|p| name.contains(p));
        match of {
            Some(of) => {
                let name = name.replace(["q_proj", "k_proj", "v_proj"][of], "qkv_proj");
                parts.entry(name).or_default().push((of, tensor));
            }
            None => fused.push((name, tensor)),
        }
    }
    for (name, mut parts) in parts {
        parts.sort_by_key(|(of, _)| *of);
        let parts: Vec<Tensor> = parts.into_iter().map(|(_, t)| t).collect();
        fused.push((name, Tensor::cat(&parts, 0).unwrap()));
    }
    let path = place.path().join("phi.gguf");
    let tokenizer = std::fs::read_to_string(folder("phi").join("tokenizer.json")).unwrap();
    write_gguf(
        &path,
        &config("phi"),
        &fused,
        GgufType::F32,
        Some(&tokenizer),
        &[],
    )
    .unwrap();
    let reference = path.display().to_string();
    let model = Model::load(&reference, &LoadOptions::default(), &mut |_, _, _| {}).unwrap();
    oracle::metrics("phi", &model, &Expected::load("phi"));
}
