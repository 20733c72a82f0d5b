//! Every family, written from its reference checkpoint and read back.

use super::tests::{fixture, json_file, numbers, parts, parts_of, wide, written};
use super::*;
use crate::model::linear::Linear;
use candle_core::quantized::QTensor;
use candle_core::{D, Device, Tensor};
use serde_json::{Value as Json, json};

const FAMILIES: [&str; 21] = [
    "llama",
    "llama_tied",
    "mistral",
    "gpt2",
    "gpt2_hub",
    "qwen2",
    "qwen2_bf16_sharded",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "phi",
    "phi3",
    "phi3_longrope",
    "gpt_neox",
    "bloom",
    "olmo2",
    "smollm3",
    "mamba",
    "mamba2",
    "lfm2",
];

/// The fields that a forward pass depends on.
const FIELDS: &[&str] = &[
    "model_type",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "hidden_activation",
    "activation_function",
    "n_embd",
    "n_layer",
    "n_head",
    "n_positions",
    "rms_norm_eps",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "norm_eps",
    "rope_theta",
    "rope_local_base_freq",
    "rotary_emb_base",
    "rotary_pct",
    "partial_rotary_factor",
    "sliding_window",
    "use_sliding_window",
    "sliding_window_pattern",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "query_pre_attn_scalar",
    "tie_word_embeddings",
    "max_position_embeddings",
    "original_max_position_embeddings",
    "no_rope_layer_interval",
    "no_rope_layers",
    "state_size",
    "conv_kernel",
    "n_groups",
    "num_heads",
    "expand",
    "use_bias",
    "use_conv_bias",
    "conv_L_cache",
    "conv_bias",
    "full_attn_idxs",
    "use_parallel_residual",
    "qk_layernorm",
    "attention_bias",
    "mlp_bias",
    "apply_residual_connection_post_layernorm",
    "bos_token_id",
    "eos_token_id",
];

fn write(config: &Json, tensors: &[(String, Tensor)], quant: GgufType) -> Gguf {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    write_gguf(&path, config, tensors, quant, None, &[]).unwrap();
    Gguf::from_bytes(std::fs::read(path).unwrap(), "x").unwrap()
}

/// Equal, where 1 and 1.0 are the same number.
fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Array(a), Json::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| same(v, w)))
        }
        _ => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => a == b,
            _ => a == b,
        },
    }
}

#[test]
fn every_tensor_comes_back_under_its_name() {
    for family in FAMILIES {
        let (config, tensors, _) = parts(family);
        let gguf = Gguf::from_bytes(written(family, GgufType::F32, true), "x").unwrap();
        assert_eq!(gguf.dtype(), "f32");
        let mut compared = 0;
        for (name, tensor) in &tensors {
            if gguf.arch.is_buffer(name) {
                continue;
            }
            let name = match family {
                "gpt2_hub" if name != "lm_head.weight" => format!("transformer.{name}"),
                _ => name.clone(),
            };
            assert_eq!(
                gguf.shape(&name).as_deref(),
                Some(tensor.dims()),
                "{family} {name}"
            );
            let change = gguf.tensors[&name].1;
            let expected = numbers(&Stored::Float(tensor.clone()));
            let found = numbers(&gguf.load(&name).unwrap());
            let near = |(a, b): (&f32, &f32)| match change {
                // One was added and taken away, in f32.
                Change::PlusOne => (a - b).abs() <= f32::EPSILON * b.abs().max(1.0),
                Change::Negative | Change::NegativeFlat => {
                    (a - b).abs() <= f32::EPSILON * b.abs().max(1.0)
                }
                _ => a.to_bits() == b.to_bits(),
            };
            assert!(
                found.len() == expected.len() && found.iter().zip(&expected).all(near),
                "{family} {name}"
            );
            compared += 1;
        }
        // No tensor beside those of the checkpoint, but for factors of the rotary frequencies.
        let others = gguf
            .names()
            .iter()
            .filter(|n| n.starts_with("rope_"))
            .count();
        assert_eq!(gguf.names().len(), compared + others, "{family}");
        assert_eq!((gguf.bos(), gguf.eos()), (Some(0), vec![1]));
        assert_eq!(config["bos_token_id"], 0);
    }
}

#[test]
fn the_config_comes_back_from_either_form() {
    for family in FAMILIES {
        let (classic, tensors, _) = parts(family);
        let newer = json_file(&fixture(family).join("config.v5.json"));
        let back = write(&classic, &tensors, GgufType::F32).config().unwrap();
        assert_eq!(
            back,
            write(&newer, &tensors, GgufType::F32).config().unwrap(),
            "{family}"
        );
        for field in FIELDS {
            let Some(expected) = classic.get(*field) else {
                continue;
            };
            let found = back.get(*field).unwrap_or(&Json::Null);
            assert!(
                same(found, expected),
                "{family} {field}: {found} instead of {expected}"
            );
        }
        let scaling = match family {
            // The fixture was rescaled from a context of 32, which no published model has.
            "llama" | "llama_tied" => continue,
            _ => &classic["rope_scaling"],
        };
        let found = back.get("rope_scaling").unwrap_or(&Json::Null);
        assert!(
            same(found, scaling),
            "{family}: {found} instead of {scaling}"
        );
    }
}

#[test]
fn widths_that_the_config_only_implies_are_stated() {
    let config = |family: &str| {
        let (config, tensors, _) = parts(family);
        write(&config, &tensors, GgufType::F32).config().unwrap()
    };
    let lfm2 = config("lfm2");
    assert_eq!(lfm2["intermediate_size"], 48);
    assert_eq!(lfm2["block_ff_dim"], 48);
    assert_eq!(lfm2["block_auto_adjust_ff_dim"], false);
    assert_eq!(
        lfm2["layer_types"],
        json!(["conv", "full_attention", "conv"])
    );
    assert_eq!(config("gpt2")["n_inner"], 64);
    assert_eq!(config("phi")["intermediate_size"], 32);
    assert_eq!(config("mamba")["intermediate_size"], 32);
    assert_eq!(config("mamba")["time_step_rank"], 4);
    assert_eq!(
        config("gemma3")["layer_types"],
        json!(["sliding_attention", "sliding_attention", "full_attention"])
    );
}

#[test]
fn what_llama_cpp_assumes_is_assumed() {
    // Files of the converter state neither Gemma's scale nor SmolLM 3's interval nor Gemma 3's pattern.
    let without = |family: &str, keys: &[&str]| {
        let mut gguf = Gguf::from_bytes(written(family, GgufType::F32, false), "x").unwrap();
        for key in keys {
            assert!(
                gguf.header.metadata.remove(*key).is_some(),
                "{family} {key}"
            );
        }
        gguf.config().unwrap()
    };
    let gemma2 = without("gemma2", &["gemma2.attention.scale"]);
    assert_eq!(gemma2["query_pre_attn_scalar"], 12);
    let gemma3 = without(
        "gemma3",
        &[
            "gemma3.attention.scale",
            "gemma3.attention.sliding_window_pattern",
            "gemma3.rope.freq_base_swa",
        ],
    );
    assert_eq!(gemma3["query_pre_attn_scalar"], 12);
    assert_eq!(gemma3["sliding_window_pattern"], 6);
    assert_eq!(gemma3["rope_local_base_freq"], 10_000.0);
    let smollm3 = without("smollm3", &["smollm3.no_rope_layer_interval"]);
    assert_eq!(smollm3["no_rope_layer_interval"], 4);
    assert_eq!(smollm3["no_rope_layers"], json!([1, 1, 1]));
    let phi3 = without("phi3", &["phi3.rope.dimension_count"]);
    assert_eq!(phi3["partial_rotary_factor"], 1.0);
}

#[test]
fn the_largest_gemmas_scale_by_the_shared_width() {
    let mut gguf = Gguf::from_bytes(written("gemma2", GgufType::F32, false), "x").unwrap();
    gguf.header.metadata.remove("gemma2.attention.scale");
    gguf.header
        .metadata
        .insert("gemma2.block_count".into(), Value::Int(46));
    assert_eq!(gguf.config().unwrap()["query_pre_attn_scalar"], 4);
}

/// The bytes of a tensor as they are in the file.
fn raw(gguf: &Gguf, name: &str) -> Vec<f32> {
    let (_, range) = gguf.header.tensors[name].data.clone().unwrap();
    let bytes = gguf.bytes.get(range, name).unwrap();
    crate::model::raw::widen(bytes, f32::from_le_bytes)
}

#[test]
fn the_file_holds_what_the_converter_writes() {
    let tensor = |family: &str, name: &str| {
        let (_, tensors, _) = parts(family);
        let found = tensors.into_iter().find(|(n, _)| n == name);
        found.unwrap().1
    };
    let open = |family: &str| Gguf::from_bytes(written(family, GgufType::F32, false), "x").unwrap();
    let flat = |t: Tensor| numbers(&Stored::Float(t.contiguous().unwrap()));
    // reshape(heads, 2, rows / heads / 2, columns).swapaxes(1, 2)
    for (stem, heads, file) in [("q_proj", 4, "attn_q"), ("k_proj", 2, "attn_k")] {
        for family in ["llama", "smollm3"] {
            let hf = tensor(family, &format!("model.layers.1.self_attn.{stem}.weight"));
            let expected = hf
                .reshape((heads, 2, 2, 16))
                .unwrap()
                .transpose(1, 2)
                .unwrap();
            let found = raw(&open(family), &format!("blk.1.{file}.weight"));
            assert_eq!(found, flat(expected), "{family} {stem}");
        }
    }
    // reshape(heads, 3, width, columns), the second axis first
    for (family, name, heads) in [
        (
            "gpt_neox",
            "gpt_neox.layers.1.attention.query_key_value",
            2usize,
        ),
        ("bloom", "transformer.h.1.self_attention.query_key_value", 4),
    ] {
        for (kind, columns) in [("weight", 16), ("bias", 1)] {
            let hf = tensor(family, &format!("{name}.{kind}"));
            let parts = hf.reshape((heads, 3, 16 / heads, columns)).unwrap();
            let expected = flat(parts.transpose(0, 1).unwrap());
            let found = raw(&open(family), &format!("blk.1.attn_qkv.{kind}"));
            assert_eq!(found, expected, "{family} {kind}");
        }
    }
    let hf = tensor("gemma3", "model.layers.1.self_attn.q_norm.weight");
    let expected = flat((hf + 1.0).unwrap());
    assert_eq!(raw(&open("gemma3"), "blk.1.attn_q_norm.weight"), expected);
    let hf = tensor("mamba2", "backbone.layers.1.mixer.A_log");
    let expected = flat(hf.exp().unwrap().neg().unwrap());
    let mamba2 = open("mamba2");
    assert_eq!(raw(&mamba2, "blk.1.ssm_a"), expected);
    for (name, shape) in [
        ("ssm_a", vec![4, 1]),
        ("ssm_d", vec![4, 1]),
        ("ssm_norm.weight", vec![2, 16]),
        ("ssm_conv1d.weight", vec![64, 4]),
        ("ssm_dt.bias", vec![4]),
    ] {
        assert_eq!(mamba2.header.tensors[&format!("blk.1.{name}")].shape, shape);
    }
    let hf = tensor("gpt2", "transformer.h.1.mlp.c_fc.weight");
    let expected = flat(hf.transpose(D::Minus2, D::Minus1).unwrap());
    assert_eq!(raw(&open("gpt2"), "blk.1.ffn_up.weight"), expected);
}

#[test]
fn transposed_matrices_stay_the_blocks_they_are() {
    let random = |rows: usize, columns: usize| {
        Tensor::randn(0f32, 1.0, (rows, columns), &Device::Cpu).unwrap()
    };
    let config = json!({"model_type": "gpt2", "vocab_size": 8, "n_embd": 64, "n_layer": 1, "n_head": 2,
                        "n_positions": 16});
    let name = "transformer.h.0.mlp.c_fc.weight";
    let hf = random(64, 256);
    let tensors = [
        ("transformer.wte.weight".into(), random(8, 64)),
        (name.into(), hf.clone()),
    ];
    let gguf = write(&config, &tensors, GgufType::Q8_0);
    assert_eq!(gguf.shape(name), Some(vec![64, 256]));
    let rows = hf.transpose(0, 1).unwrap().contiguous().unwrap();
    let expected = QTensor::quantize(&rows, GgmlDType::Q8_0).unwrap();
    let Stored::Quantised(found) = gguf.load_transposed(name).unwrap() else {
        panic!("the matrix was widened")
    };
    assert_eq!(found.shape().dims(), [256, 64]);
    assert_eq!(found.data().unwrap(), expected.data().unwrap());
    // Presented as Hugging Face has it, it is widened and turned.
    let back = Linear::table(&gguf.load(name).unwrap()).unwrap();
    let wide = expected.dequantize(&Device::Cpu).unwrap();
    assert_eq!(
        numbers(&Stored::Float(back)),
        numbers(&Stored::Float(
            wide.transpose(0, 1).unwrap().contiguous().unwrap()
        ))
    );
    // Other sources turn what they have.
    let embedding = "transformer.wte.weight";
    let turned = gguf.load_transposed(embedding).unwrap();
    assert_eq!(Linear::table(&turned).unwrap().dims(), [64, 8]);
}

#[test]
fn every_type_is_written_and_kept() {
    let (mut config, tensors) = wide();
    // The same model four times as wide, so that blocks of 256 divide its rows.
    config["hidden_size"] = json!(256);
    config["num_attention_heads"] = json!(16);
    config["num_key_value_heads"] = json!(8);
    let tensors: Vec<(String, Tensor)> = tensors
        .into_iter()
        .map(|(name, t)| {
            let dims: Vec<usize> = t
                .dims()
                .iter()
                .map(|d| if *d == 96 { 96 } else { d * 4 })
                .collect();
            let t = Tensor::randn(0f32, 1.0, dims, &Device::Cpu).unwrap();
            (name, t)
        })
        .collect();
    for (quant, name, dtype, narrow, file_type) in [
        (GgufType::F16, "f16", GgmlDType::F16, GgmlDType::F16, 1),
        (GgufType::BF16, "bf16", GgmlDType::BF16, GgmlDType::BF16, 32),
        (GgufType::Q4_0, "q4_0", GgmlDType::Q4_0, GgmlDType::Q4_0, 2),
        (GgufType::Q8_0, "q8_0", GgmlDType::Q8_0, GgmlDType::Q8_0, 7),
        (GgufType::Q4_K, "q4_k", GgmlDType::Q4K, GgmlDType::Q5_0, 14),
        (GgufType::Q5_K, "q5_k", GgmlDType::Q5K, GgmlDType::Q5_1, 16),
        (GgufType::Q6_K, "q6_k", GgmlDType::Q6K, GgmlDType::Q8_0, 18),
    ] {
        let gguf = write(&config, &tensors, quant);
        assert_eq!(gguf.dtype(), name);
        assert_eq!(gguf.integer("general.file_type"), Some(file_type));
        for (name, tensor) in &tensors {
            let stored = gguf.load(name).unwrap();
            let [_, row] = tensor.dims() else {
                assert_eq!(numbers(&stored), numbers(&Stored::Float(tensor.clone())));
                continue;
            };
            let dtype = if row % dtype.block_size() == 0 {
                dtype
            } else {
                narrow
            };
            let expected = QTensor::quantize(tensor, dtype).unwrap();
            match &stored {
                Stored::Quantised(q) => {
                    assert_eq!(q.data().unwrap(), expected.data().unwrap(), "{name}");
                }
                Stored::Float(t) => assert_eq!(
                    t.dtype().as_str(),
                    format!("{dtype:?}").to_lowercase(),
                    "{name}"
                ),
            }
            let expected = expected.dequantize(&Device::Cpu).unwrap();
            assert_eq!(numbers(&stored), numbers(&Stored::Float(expected)));
        }
    }
}

#[test]
fn factors_that_are_no_divisors_are_refused() {
    let good = written("phi3_longrope", GgufType::F32, false);
    let name = "rope_factors_long.weight";
    let place = Header::read(&good).unwrap().tensors[name].data.clone();
    let start = place.unwrap().1.start;
    for factor in [f32::NAN, f32::INFINITY, 0.0, -1.0] {
        let mut bytes = good.clone();
        bytes[start..start + 4].copy_from_slice(&factor.to_le_bytes());
        let gguf = Gguf::from_bytes(bytes, "x").unwrap();
        let message = gguf.config().unwrap_err().to_string();
        assert!(
            message.contains(name) && message.contains("positive and finite"),
            "{message}"
        );
    }
    let mut gguf = Gguf::from_bytes(good, "x").unwrap();
    gguf.header
        .metadata
        .insert("phi3.rope.dimension_count".into(), Value::Int(8));
    let message = gguf.config().unwrap_err().to_string();
    assert!(message.contains("each rotary pair"), "{message}");
}

#[test]
fn a_that_is_not_negative_is_refused() {
    let good = written("mamba", GgufType::F32, false);
    let place = Header::read(&good).unwrap().tensors["blk.0.ssm_a"]
        .data
        .clone();
    let start = place.unwrap().1.start;
    for a in [f32::NAN, 0.0, 2.0, f32::NEG_INFINITY] {
        let mut bytes = good.clone();
        bytes[start..start + 4].copy_from_slice(&a.to_le_bytes());
        let gguf = Gguf::from_bytes(bytes, "x").unwrap();
        let message = gguf.load("backbone.layers.0.mixer.A_log").unwrap_err();
        let message = message.to_string();
        assert!(message.contains("not all negative"), "{message}");
    }
}

#[test]
fn what_has_no_place_is_refused() {
    let refused = |family: &str, field: &str, value: Json, says: &str| {
        let (mut config, tensors, _) = parts(family);
        config[field] = value;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        let written = write_gguf(&path, &config, &tensors, GgufType::F32, None, &[]);
        let message = written.unwrap_err().to_string();
        assert!(message.contains(says), "{family} {field}: {message}");
        assert!(!path.exists());
    };
    let longrope = json!({"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]});
    refused("llama", "rope_scaling", longrope.clone(), "has no place");
    refused("phi3", "rope_scaling", longrope, "each of 2 pairs");
    refused("llama", "partial_rotary_factor", json!(0.5), "in part");
    refused("phi", "qk_layernorm", json!(true), "normed");
    refused("mamba2", "n_groups", json!(3), "3 groups");
    refused("lfm2", "full_attn_idxs", Json::Null, "which layers");
    refused("smollm3", "no_rope_layers", json!([0, 1, 1]), "intervals");
    refused("bloom", "n_head", json!(5), "5 heads");
    refused(
        "gemma2",
        "layer_types",
        json!(["sliding_attention"]),
        "each layer's type",
    );
}

#[test]
fn sliding_layers_of_qwen_are_kept() {
    let (mut config, tensors, _) = parts("qwen2");
    config["use_sliding_window"] = json!(true);
    config["sliding_window"] = json!(8);
    config["max_window_layers"] = json!(1);
    let back = write(&config, &tensors, GgufType::F32).config().unwrap();
    assert_eq!(back["sliding_window"], 8);
    assert_eq!(
        back["layer_types"],
        json!(["full_attention", "sliding_attention", "sliding_attention"])
    );
    let (mut config, tensors, _) = parts("qwen3");
    config["rope_scaling"] =
        json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768});
    let back = write(&config, &tensors, GgufType::F32).config().unwrap();
    assert_eq!(back["rope_scaling"], config["rope_scaling"]);
}

/// Writes files, with the reference's numbers for each, that `tests/llama_cpp.py` has llama.cpp read.
#[test]
#[ignore = "writes the files that tests/llama_cpp.py reads; see there"]
fn files_for_llama_cpp() {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let out = folder("ENTROSCOPE_LLAMA_CPP_OUT").expect("ENTROSCOPE_LLAMA_CPP_OUT is a folder");
    let from = folder("ENTROSCOPE_LLAMA_CPP_FROM").unwrap_or_else(|| fixture(""));
    let quant = match std::env::var("ENTROSCOPE_LLAMA_CPP_TYPE").as_deref() {
        Err(_) | Ok("f32") => GgufType::F32,
        Ok("f16") => GgufType::F16,
        Ok("bf16") => GgufType::BF16,
        Ok("q8_0") => GgufType::Q8_0,
        Ok("q4_0") => GgufType::Q4_0,
        Ok("q4_k") => GgufType::Q4_K,
        Ok("q5_k") => GgufType::Q5_K,
        Ok("q6_k") => GgufType::Q6_K,
        Ok(other) => panic!("{other} is no type that is written"),
    };
    std::fs::create_dir_all(&out).unwrap();
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(from).unwrap() {
        let family = entry.unwrap().path();
        let config = json_file(&family.join("config.json"));
        let kind = config["model_type"].as_str().unwrap();
        let (Some(_), true) = (
            Arch::of_model_type(kind),
            family.join("tokenizer.json").is_file(),
        ) else {
            continue;
        };
        let (config, tensors, tokenizer) = parts_of(&family);
        let name = family.file_name().unwrap().to_string_lossy().into_owned();
        let file = format!("{name}.gguf");
        let (path, tokenizer) = (out.join(&file), Some(tokenizer.as_str()));
        write_gguf(&path, &config, &tensors, quant, tokenizer, &[]).unwrap();
        let expected = json_file(&family.join("expected.json"));
        let bytes = std::fs::read(family.join("expected.safetensors")).unwrap();
        let numbers = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for (i, prompt) in expected["prompts"].as_array().unwrap().iter().enumerate() {
            // Of the logits at the last positions, those at the very last.
            let logits = numbers.tensor(&format!("p{i}.final_logits")).unwrap();
            let vocab = logits.shape()[1];
            let logits = crate::model::raw::widen(logits.data(), f32::from_le_bytes);
            cases.push(json!({
                "file": file, "prompt": prompt["token_ids"], "greedy": prompt["greedy_ids"],
                "logits": logits[logits.len() - vocab..],
            }));
        }
    }
    assert!(!cases.is_empty());
    let cases = serde_json::to_vec(&cases).unwrap();
    std::fs::write(out.join("cases.json"), cases).unwrap();
}
