//! GGUF metadata → the `config.json` that Hugging Face would have.

use super::names::Arch;
use super::{Gguf, Stored, TensorSource};
use crate::error::{Error, Result};
use crate::text::scrub;
use serde_json::{Map, Value, json};

pub(super) fn from_metadata(gguf: &Gguf) -> Result<Value> {
    let mut config = match gguf.arch {
        Arch::Llama => llama(gguf)?,
        Arch::Gpt2 => gpt2(gguf)?,
    };
    if let Some(bos) = gguf.bos() {
        config.insert("bos_token_id".into(), bos.into());
    }
    match gguf.eos().as_slice() {
        [] => {}
        [one] => {
            config.insert("eos_token_id".into(), (*one).into());
        }
        several => {
            config.insert("eos_token_id".into(), several.into());
        }
    }
    Ok(Value::Object(config))
}

fn llama(gguf: &Gguf) -> Result<Map<String, Value>> {
    let heads = need(gguf, "attention.head_count")?;
    let width = need(gguf, "embedding_length")?;
    let rotated = integer(gguf, "rope.dimension_count");
    let head_dim = integer(gguf, "attention.key_length")
        .or(rotated)
        .or_else(|| width.checked_div(heads))
        .unwrap_or(0);
    if rotated.is_some_and(|n| n != head_dim) {
        return Err(bad(
            gguf,
            "rope.dimension_count",
            "differs from the width of a head, and partly rotated heads are not supported",
        ));
    }
    let mut config = object(json!({
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocabulary(gguf, "model.embed_tokens.weight")?,
        "hidden_size": width,
        "num_hidden_layers": need(gguf, "block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": integer(gguf, "attention.head_count_kv").unwrap_or(heads),
        "head_dim": head_dim,
        "intermediate_size": need(gguf, "feed_forward_length")?,
        "hidden_act": "silu",
        "rms_norm_eps": real(gguf, "attention.layer_norm_rms_epsilon").unwrap_or(1e-5),
        "rope_theta": real(gguf, "rope.freq_base").unwrap_or(10_000.0),
        "max_position_embeddings": need(gguf, "context_length")?,
        "tie_word_embeddings": !gguf.tensors.contains_key("lm_head.weight"),
        "attention_bias": gguf.tensors.keys().any(|name| name.ends_with("q_proj.bias")),
        "mlp_bias": gguf.tensors.keys().any(|name| name.ends_with("down_proj.bias")),
    }));
    if let Some(scaling) = rope_scaling(gguf)? {
        config.insert("rope_scaling".into(), scaling);
    }
    Ok(config)
}

fn gpt2(gguf: &Gguf) -> Result<Map<String, Value>> {
    Ok(object(json!({
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": vocabulary(gguf, "transformer.wte.weight")?,
        "n_embd": need(gguf, "embedding_length")?,
        "n_layer": need(gguf, "block_count")?,
        "n_head": need(gguf, "attention.head_count")?,
        "n_inner": integer(gguf, "feed_forward_length"),
        "n_positions": need(gguf, "context_length")?,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": real(gguf, "attention.layer_norm_epsilon").unwrap_or(1e-5),
        "tie_word_embeddings": !gguf.tensors.contains_key("lm_head.weight"),
    })))
}

/// Rows of the embedding: the vocabulary's list can be shorter.
fn vocabulary(gguf: &Gguf, embedding: &str) -> Result<usize> {
    match gguf.shape(embedding).as_deref() {
        Some([rows, _]) => Ok(*rows),
        _ => Err(Error::file(
            gguf.path(),
            "has no token embedding: it holds a vocabulary but no model",
            "Use a file with weights.",
        )),
    }
}

/// What was done to the rotary frequencies. The converter writes llama3's rescaling as one divisor a pair: it is turned
/// back into the parameters of the published models, or given as it is (`rope_type` `factors`).
fn rope_scaling(gguf: &Gguf) -> Result<Option<Value>> {
    let factor = real(gguf, "rope.scaling.factor");
    match gguf.text("llama.rope.scaling.type") {
        None | Some("none") => {}
        Some("linear") => {
            return Ok(Some(
                json!({"rope_type": "linear", "factor": factor.unwrap_or(1.0)}),
            ));
        }
        Some(other) => {
            return Ok(Some(json!({"rope_type": scrub(other), "factor": factor})));
        }
    }
    if gguf.shape("rope_freqs.weight").is_none() {
        return Ok(None);
    }
    let Stored::Float(factors) = gguf.load("rope_freqs.weight")? else {
        return Err(bad(gguf, "rope_freqs", "is quantised"));
    };
    let factors: Vec<f32> = factors.flatten_all()?.to_vec1()?;
    let theta = real(gguf, "rope.freq_base").unwrap_or(10_000.0);
    let published = json!({
        "rope_type": "llama3",
        "factor": factors.iter().copied().fold(1.0, f32::max),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    let expected = llama3_factors(&published, theta, 2 * factors.len()).unwrap_or_default();
    let same = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * b.abs();
    let close = factors.len() == expected.len() && factors.iter().zip(&expected).all(same);
    Ok(Some(if close {
        published
    } else {
        json!({"rope_type": "factors", "factors": factors})
    }))
}

/// The divisor of each rotary frequency under llama3's rescaling (`[head_dim / 2]`): 1 for fast pairs, `factor` for slow
/// ones, blended between. `None` if the parameters are not all there.
pub(super) fn llama3_factors(scaling: &Value, theta: f64, head_dim: usize) -> Option<Vec<f32>> {
    let factor = scaling["factor"].as_f64()?;
    let low = scaling["low_freq_factor"].as_f64()?;
    let high = scaling["high_freq_factor"].as_f64()?;
    let original = scaling["original_max_position_embeddings"].as_f64()?;
    Some(
        (0..head_dim / 2)
            .map(|pair| {
                let frequency = theta.powf(-2.0 * pair as f64 / head_dim as f64);
                let turns = original * frequency / std::f64::consts::TAU;
                let divisor = if turns < low {
                    factor
                } else if turns > high {
                    1.0
                } else {
                    let blend = (turns - low) / (high - low);
                    1.0 / ((1.0 - blend) / factor + blend)
                };
                divisor as f32
            })
            .collect(),
    )
}

fn integer(gguf: &Gguf, key: &str) -> Option<u64> {
    gguf.integer(&format!("{}.{key}", gguf.arch.name()))
}

fn real(gguf: &Gguf, key: &str) -> Option<f64> {
    gguf.real(&format!("{}.{key}", gguf.arch.name()))
        .filter(|v| v.is_finite())
}

fn need(gguf: &Gguf, key: &str) -> Result<u64> {
    integer(gguf, key).ok_or_else(|| bad(gguf, key, "is missing or no number"))
}

fn bad(gguf: &Gguf, key: &str, problem: &str) -> Error {
    Error::file(
        gguf.path(),
        format!("its metadata {}.{key} {problem}", gguf.arch.name()),
        "Fetch the file again, or use the safetensors of the model.",
    )
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
