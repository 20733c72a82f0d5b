//! GGUF metadata → the `config.json` that Hugging Face would have, in its classic field names.

use super::names::Arch;
use super::{Gguf, TensorSource};
use crate::error::{Error, Result};
use crate::model::linear::Linear;
use crate::text::scrub;
use serde_json::{Map, Value, json};

/// Gemma 3's layers with full attention, where the file does not say: every sixth.
const GEMMA3_PATTERN: u64 = 6;
/// SmolLM 3's layers without rotation, where the file does not say: every fourth.
const SMOLLM3_INTERVAL: u64 = 4;

pub(super) fn from_metadata(gguf: &Gguf) -> Result<Value> {
    let mut config = match gguf.arch {
        Arch::Llama => llama(gguf)?,
        Arch::Gpt2 => gpt2(gguf)?,
        Arch::Qwen2 => qwen(gguf, "Qwen2ForCausalLM")?,
        Arch::Qwen3 => qwen(gguf, "Qwen3ForCausalLM")?,
        Arch::Gemma => gemma(gguf)?,
        Arch::Gemma2 => gemma2(gguf)?,
        Arch::Gemma3 => gemma3(gguf)?,
        Arch::Phi2 => phi(gguf)?,
        Arch::Phi3 => phi3(gguf)?,
        Arch::GptNeox => gpt_neox(gguf)?,
        Arch::Bloom => bloom(gguf)?,
        Arch::Olmo2 => olmo2(gguf)?,
        Arch::Smollm3 => smollm3(gguf)?,
        Arch::Mamba => mamba(gguf)?,
        Arch::Mamba2 => mamba2(gguf)?,
        Arch::Lfm2 => lfm2(gguf)?,
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

type Object = Map<String, Value>;

/// What every architecture has: its type, the size of its vocabulary, and whether the head is the embedding's.
fn begin(gguf: &Gguf, class: &str) -> Result<Object> {
    let names = gguf.arch.names();
    let outside = |wanted: &str| {
        let row = names.outside.iter().find(|(name, _, _)| *name == wanted);
        row.map_or_else(String::new, |(_, hf, _)| format!("{hf}.weight"))
    };
    // Rows of the embedding: the vocabulary's list can be shorter.
    let vocab = match gguf.shape(&outside("token_embd")).as_deref() {
        Some([rows, _]) => *rows,
        _ => {
            return Err(Error::file(
                gguf.path(),
                "has no token embedding: it holds a vocabulary but no model",
                "Use a file with weights.",
            ));
        }
    };
    Ok(object(json!({
        "model_type": names.model_types.first(),
        "architectures": [class],
        "vocab_size": vocab,
        "tie_word_embeddings": gguf.shape(&outside("output")).is_none(),
    })))
}

/// The numbers of a decoder with rotary positions and RMS norms, without the width of its heads' rotation.
fn rotary_decoder(gguf: &Gguf, class: &str) -> Result<Object> {
    let mut config = begin(gguf, class)?;
    let heads = need(gguf, "attention.head_count")?;
    config.extend(object(json!({
        "hidden_size": need(gguf, "embedding_length")?,
        "num_hidden_layers": need(gguf, "block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": integer(gguf, "attention.head_count_kv").unwrap_or(heads),
        "head_dim": head_dim(gguf)?,
        "intermediate_size": need(gguf, "feed_forward_length")?,
        "hidden_act": "silu",
        "rms_norm_eps": real(gguf, "attention.layer_norm_rms_epsilon").unwrap_or(1e-5),
        "rope_theta": real(gguf, "rope.freq_base").unwrap_or(10_000.0),
        "max_position_embeddings": need(gguf, "context_length")?,
        "attention_bias": has_bias(gguf, "attn_q") || has_bias(gguf, "attn_qkv"),
        "mlp_bias": has_bias(gguf, "ffn_down"),
    })));
    if let Some(scaling) = rope_scaling(gguf)? {
        config.insert("rope_scaling".into(), scaling);
    }
    Ok(config)
}

/// As [`rotary_decoder`], whose heads are rotated over their whole width.
fn whole_rotary_decoder(gguf: &Gguf, class: &str) -> Result<Object> {
    if rotated(gguf).is_some_and(|n| Some(n) != head_dim(gguf).ok()) {
        return Err(bad(
            gguf,
            "rope.dimension_count",
            "differs from the width of a head, and partly rotated heads are not supported for this architecture",
        ));
    }
    rotary_decoder(gguf, class)
}

fn llama(gguf: &Gguf) -> Result<Object> {
    let mut config = whole_rotary_decoder(gguf, "LlamaForCausalLM")?;
    if let Some(window) = integer(gguf, "attention.sliding_window").filter(|w| *w > 0) {
        config.insert("model_type".into(), "mistral".into());
        config.insert("architectures".into(), json!(["MistralForCausalLM"]));
        config.insert("sliding_window".into(), window.into());
    }
    Ok(config)
}

fn gpt2(gguf: &Gguf) -> Result<Object> {
    let mut config = begin(gguf, "GPT2LMHeadModel")?;
    config.extend(object(json!({
        "n_embd": need(gguf, "embedding_length")?,
        "n_layer": need(gguf, "block_count")?,
        "n_head": need(gguf, "attention.head_count")?,
        "n_inner": integer(gguf, "feed_forward_length"),
        "n_positions": need(gguf, "context_length")?,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": real(gguf, "attention.layer_norm_epsilon").unwrap_or(1e-5),
    })));
    Ok(config)
}

fn qwen(gguf: &Gguf, class: &str) -> Result<Object> {
    let mut config = whole_rotary_decoder(gguf, class)?;
    let window = integer(gguf, "attention.sliding_window").filter(|w| *w > 0);
    let window = window.filter(|_| flags(gguf, "attention.sliding_window_pattern").is_some());
    config.insert("use_sliding_window".into(), window.is_some().into());
    if let Some(window) = window {
        config.insert("sliding_window".into(), window.into());
        sliding_layers(gguf, &mut config)?;
    }
    Ok(config)
}

fn gemma(gguf: &Gguf) -> Result<Object> {
    let mut config = whole_rotary_decoder(gguf, "GemmaForCausalLM")?;
    config.insert("hidden_act".into(), "gelu_pytorch_tanh".into());
    Ok(config)
}

/// What Gemma 2 and 3 share.
fn gemma_later(gguf: &Gguf, class: &str, largest: u64) -> Result<Object> {
    let mut config = whole_rotary_decoder(gguf, class)?;
    config.remove("hidden_act");
    config.insert("hidden_activation".into(), "gelu_pytorch_tanh".into());
    // The scale is stored only where it is not the one llama.cpp takes: that of a head, or in the largest model of the
    // generation that of the width shared among the heads.
    let scale = real(gguf, "attention.scale");
    let scalar = match scale {
        Some(scale) if scale > 0.0 => scale.powi(-2),
        Some(_) => return Err(bad(gguf, "attention.scale", "is not positive")),
        None if integer(gguf, "block_count") == Some(largest) => {
            let heads = need(gguf, "attention.head_count")?;
            let width = need(gguf, "embedding_length")?;
            width.checked_div(heads).unwrap_or(0) as f64
        }
        None => head_dim(gguf)? as f64,
    };
    // Published ones are whole numbers, which a scale in f32 hides.
    let whole = scalar.round();
    let scalar = if (scalar - whole).abs() < 1e-4 * whole {
        json!(whole as u64)
    } else {
        json!(scalar)
    };
    config.insert("query_pre_attn_scalar".into(), scalar);
    Ok(config)
}

fn gemma2(gguf: &Gguf) -> Result<Object> {
    let mut config = gemma_later(gguf, "Gemma2ForCausalLM", 46)?;
    config.extend(object(json!({
        "sliding_window": integer(gguf, "attention.sliding_window").unwrap_or(4096),
        "attn_logit_softcapping": real(gguf, "attn_logit_softcapping").unwrap_or(50.0),
        "final_logit_softcapping": real(gguf, "final_logit_softcapping").unwrap_or(30.0),
    })));
    if flags(gguf, "attention.sliding_window_pattern").is_some() {
        sliding_layers(gguf, &mut config)?;
    }
    Ok(config)
}

fn gemma3(gguf: &Gguf) -> Result<Object> {
    let mut config = gemma_later(gguf, "Gemma3ForCausalLM", 62)?;
    config.extend(object(json!({
        "rope_theta": real(gguf, "rope.freq_base").unwrap_or(1_000_000.0),
        "rope_local_base_freq": real(gguf, "rope.freq_base_swa").unwrap_or(10_000.0),
        "attn_logit_softcapping": null,
        "final_logit_softcapping": real(gguf, "final_logit_softcapping").filter(|cap| *cap > 0.0),
    })));
    let window = integer(gguf, "attention.sliding_window").filter(|w| *w > 0);
    // Without a window every layer sees everything.
    let (window, pattern) = match window {
        Some(window) => {
            let stated = integer(gguf, "attention.sliding_window_pattern");
            (window, stated.unwrap_or(GEMMA3_PATTERN))
        }
        None => (need(gguf, "context_length")?, 1),
    };
    config.insert("sliding_window".into(), window.into());
    match flags(gguf, "attention.sliding_window_pattern") {
        Some(_) => sliding_layers(gguf, &mut config)?,
        None => {
            config.insert("sliding_window_pattern".into(), pattern.into());
        }
    }
    Ok(config)
}

fn phi(gguf: &Gguf) -> Result<Object> {
    let mut config = begin(gguf, "PhiForCausalLM")?;
    let heads = need(gguf, "attention.head_count")?;
    config.extend(object(json!({
        "hidden_size": need(gguf, "embedding_length")?,
        "num_hidden_layers": need(gguf, "block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": integer(gguf, "attention.head_count_kv").unwrap_or(heads),
        "intermediate_size": need(gguf, "feed_forward_length")?,
        "hidden_act": "gelu_new",
        "layer_norm_eps": real(gguf, "attention.layer_norm_epsilon").unwrap_or(1e-5),
        "max_position_embeddings": need(gguf, "context_length")?,
        "rope_theta": real(gguf, "rope.freq_base").unwrap_or(10_000.0),
        "partial_rotary_factor": rotated_share(gguf)?,
        "qk_layernorm": false,
    })));
    Ok(config)
}

fn phi3(gguf: &Gguf) -> Result<Object> {
    let mut config = rotary_decoder(gguf, "Phi3ForCausalLM")?;
    // Zero says that there is none.
    let window = integer(gguf, "attention.sliding_window").filter(|w| *w > 0);
    let context = need(gguf, "context_length")?;
    let original = integer(gguf, "rope.scaling.original_context_length");
    config.extend(object(json!({
        "partial_rotary_factor": rotated_share(gguf)?,
        "sliding_window": window,
        "original_max_position_embeddings": original.unwrap_or(context),
    })));
    let (long, short) = ("rope_factors_long.weight", "rope_factors_short.weight");
    if gguf.shape(long).is_some() || gguf.shape(short).is_some() {
        let pairs = rotated(gguf).map_or_else(|| head_dim(gguf), Ok)? / 2;
        let decimal = |name: &str| -> Result<Vec<f64>> {
            let factors = factors(gguf, name, pairs)?;
            Ok(factors.into_iter().map(super::header::widen).collect())
        };
        config.insert(
            "rope_scaling".into(),
            json!({
                "type": "longrope",
                "long_factor": decimal(long)?,
                "short_factor": decimal(short)?,
            }),
        );
    }
    Ok(config)
}

fn gpt_neox(gguf: &Gguf) -> Result<Object> {
    let mut config = begin(gguf, "GPTNeoXForCausalLM")?;
    config.extend(object(json!({
        "hidden_size": need(gguf, "embedding_length")?,
        "num_hidden_layers": need(gguf, "block_count")?,
        "num_attention_heads": need(gguf, "attention.head_count")?,
        "intermediate_size": need(gguf, "feed_forward_length")?,
        "hidden_act": "gelu",
        "layer_norm_eps": real(gguf, "attention.layer_norm_epsilon").unwrap_or(1e-5),
        "max_position_embeddings": need(gguf, "context_length")?,
        "rotary_emb_base": real(gguf, "rope.freq_base").unwrap_or(10_000.0),
        "rotary_pct": rotated_share(gguf)?,
        "use_parallel_residual": flag(gguf, "use_parallel_residual").unwrap_or(true),
        "attention_bias": has_bias(gguf, "attn_qkv"),
    })));
    if let Some(scaling) = rope_scaling(gguf)? {
        config.insert("rope_scaling".into(), scaling);
    }
    Ok(config)
}

fn bloom(gguf: &Gguf) -> Result<Object> {
    let mut config = begin(gguf, "BloomForCausalLM")?;
    config.extend(object(json!({
        "hidden_size": need(gguf, "embedding_length")?,
        "n_layer": need(gguf, "block_count")?,
        "n_head": need(gguf, "attention.head_count")?,
        "seq_length": need(gguf, "context_length")?,
        "layer_norm_epsilon": real(gguf, "attention.layer_norm_epsilon").unwrap_or(1e-5),
        "apply_residual_connection_post_layernorm": false,
    })));
    Ok(config)
}

fn olmo2(gguf: &Gguf) -> Result<Object> {
    let config = whole_rotary_decoder(gguf, "Olmo2ForCausalLM")?;
    if integer(gguf, "attention.sliding_window").is_some_and(|w| w > 0) {
        return Err(Error::file(
            gguf.path(),
            "holds an OLMo 3, whose sliding windows are not supported",
            "Use an OLMo 2.",
        ));
    }
    Ok(config)
}

fn smollm3(gguf: &Gguf) -> Result<Object> {
    let mut config = whole_rotary_decoder(gguf, "SmolLM3ForCausalLM")?;
    let interval = integer(gguf, "no_rope_layer_interval").unwrap_or(SMOLLM3_INTERVAL);
    config.insert("no_rope_layer_interval".into(), interval.into());
    let blocks = need(gguf, "block_count")?.min(MAX_LAYERS);
    let rotated = |i: u64| u8::from(interval == 0 || !(i + 1).is_multiple_of(interval));
    let layers: Vec<u8> = (0..blocks).map(rotated).collect();
    config.insert("no_rope_layers".into(), json!(layers));
    config.insert("use_sliding_window".into(), false.into());
    Ok(config)
}

/// Layers that are listed one by one; the decoder refuses more by itself.
const MAX_LAYERS: u64 = 1 << 16;

fn mamba(gguf: &Gguf) -> Result<Object> {
    if flag(gguf, "ssm.dt_b_c_rms") == Some(true) {
        return Err(Error::file(
            gguf.path(),
            "holds a Falcon Mamba, whose additional norms are not supported",
            "Use a Mamba without them.",
        ));
    }
    let mut config = begin(gguf, "MambaForCausalLM")?;
    let (width, inner) = (
        need(gguf, "embedding_length")?,
        need(gguf, "ssm.inner_size")?,
    );
    config.extend(object(json!({
        "hidden_size": width,
        "num_hidden_layers": need(gguf, "block_count")?,
        "intermediate_size": inner,
        "expand": inner.checked_div(width),
        "state_size": need(gguf, "ssm.state_size")?,
        "conv_kernel": need(gguf, "ssm.conv_kernel")?,
        "time_step_rank": need(gguf, "ssm.time_step_rank")?,
        "hidden_act": "silu",
        "layer_norm_epsilon": real(gguf, "attention.layer_norm_rms_epsilon").unwrap_or(1e-5),
        "use_bias": has_bias(gguf, "ssm_in"),
        "use_conv_bias": has_bias(gguf, "ssm_conv1d"),
    })));
    Ok(config)
}

fn mamba2(gguf: &Gguf) -> Result<Object> {
    let mut config = begin(gguf, "Mamba2ForCausalLM")?;
    let (width, inner) = (
        need(gguf, "embedding_length")?,
        need(gguf, "ssm.inner_size")?,
    );
    let heads = need(gguf, "ssm.time_step_rank")?;
    if heads == 0 || !inner.is_multiple_of(heads) {
        return Err(bad(
            gguf,
            "ssm.time_step_rank",
            "does not divide ssm.inner_size",
        ));
    }
    config.extend(object(json!({
        "hidden_size": width,
        "num_hidden_layers": need(gguf, "block_count")?,
        "expand": inner.checked_div(width),
        "num_heads": heads,
        "head_dim": inner / heads,
        "n_groups": need(gguf, "ssm.group_count")?,
        "state_size": need(gguf, "ssm.state_size")?,
        "conv_kernel": need(gguf, "ssm.conv_kernel")?,
        "hidden_act": "silu",
        "layer_norm_epsilon": real(gguf, "attention.layer_norm_rms_epsilon").unwrap_or(1e-5),
        "use_bias": has_bias(gguf, "ssm_in"),
        "use_conv_bias": has_bias(gguf, "ssm_conv1d"),
    })));
    Ok(config)
}

fn lfm2(gguf: &Gguf) -> Result<Object> {
    let mut config = whole_rotary_decoder(gguf, "Lfm2ForCausalLM")?;
    // Layers without heads of keys are convolutions.
    let key = format!("{}.attention.head_count_kv", gguf.arch.name());
    let Some(heads) = gguf.integers(&key) else {
        return Err(bad(
            gguf,
            "attention.head_count_kv",
            "does not list the layers",
        ));
    };
    if need(gguf, "block_count")? != heads.len() as u64 {
        return Err(bad(
            gguf,
            "attention.head_count_kv",
            "is not one number for each layer",
        ));
    }
    let most = heads.iter().copied().max().unwrap_or(0);
    if heads.iter().any(|n| *n != 0 && *n != most) || most <= 0 {
        return Err(bad(
            gguf,
            "attention.head_count_kv",
            "is not the same for all layers with attention",
        ));
    }
    let attention: Vec<usize> = (0..heads.len()).filter(|i| heads[*i] != 0).collect();
    let types: Vec<&str> = heads
        .iter()
        .map(|n| if *n == 0 { "conv" } else { "full_attention" })
        .collect();
    let inner = need(gguf, "feed_forward_length")?;
    let eps = config.remove("rms_norm_eps");
    config.extend(object(json!({
        "num_key_value_heads": most,
        "layer_types": types,
        "full_attn_idxs": attention,
        "conv_L_cache": need(gguf, "shortconv.l_cache")?,
        "conv_bias": has_bias(gguf, "shortconv.conv"),
        "norm_eps": eps,
        // The file states the width as it is.
        "intermediate_size": inner,
        "block_ff_dim": inner,
        "block_auto_adjust_ff_dim": false,
    })));
    Ok(config)
}

/// Which layers have a window, one by one, and every how many one has not, if that is how they lie.
fn sliding_layers(gguf: &Gguf, config: &mut Object) -> Result<()> {
    let Some(sliding) = flags(gguf, "attention.sliding_window_pattern") else {
        return Ok(());
    };
    if need(gguf, "block_count")? != sliding.len() as u64 {
        return Err(bad(
            gguf,
            "attention.sliding_window_pattern",
            "is not one flag for each layer",
        ));
    }
    let types: Vec<&str> = sliding
        .iter()
        .map(|s| {
            if *s {
                "sliding_attention"
            } else {
                "full_attention"
            }
        })
        .collect();
    config.insert("layer_types".into(), json!(types));
    let interval = sliding.iter().position(|s| !s).unwrap_or(sliding.len()) + 1;
    let regular = |(i, s): (usize, &bool)| *s != (i + 1).is_multiple_of(interval);
    if sliding.iter().enumerate().all(regular) {
        config.insert("sliding_window_pattern".into(), interval.into());
    }
    Ok(())
}

/// What was done to the rotary frequencies. The converter writes llama3's rescaling as one divisor a pair: it is turned
/// back into the parameters of the published models, or given as it is (`rope_type` `factors`).
fn rope_scaling(gguf: &Gguf) -> Result<Option<Value>> {
    let factor = real(gguf, "rope.scaling.factor");
    match text(gguf, "rope.scaling.type") {
        // Phi's factors are tensors.
        None | Some("none" | "longrope") => {}
        Some("linear") => {
            return Ok(Some(
                json!({"rope_type": "linear", "factor": factor.unwrap_or(1.0)}),
            ));
        }
        Some("yarn") => {
            let mut yarn = object(json!({"rope_type": "yarn", "factor": factor}));
            let mut put = |name: &str, value: Option<f64>| {
                if let Some(value) = value {
                    yarn.insert(name.into(), value.into());
                }
            };
            put("attention_factor", real(gguf, "rope.scaling.attn_factor"));
            put("beta_fast", real(gguf, "rope.scaling.yarn_beta_fast"));
            put("beta_slow", real(gguf, "rope.scaling.yarn_beta_slow"));
            if let Some(original) = integer(gguf, "rope.scaling.original_context_length") {
                yarn.insert("original_max_position_embeddings".into(), original.into());
            }
            return Ok(Some(Value::Object(yarn)));
        }
        Some(other) => {
            return Ok(Some(json!({"rope_type": scrub(other), "factor": factor})));
        }
    }
    if gguf.shape("rope_freqs.weight").is_none() {
        return Ok(None);
    }
    let factors = factors(gguf, "rope_freqs.weight", head_dim(gguf)? / 2)?;
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

/// Divisors of the rotary frequencies, one a pair.
fn factors(gguf: &Gguf, name: &str, pairs: u64) -> Result<Vec<f32>> {
    let damaged = |problem: &str| {
        Error::file(
            gguf.path(),
            format!("its tensor {name} {problem}"),
            "Fetch the file again, or use the safetensors of the model.",
        )
    };
    match gguf.shape(name).as_deref() {
        Some([len]) if *len as u64 == pairs => {}
        Some(_) => return Err(damaged("is not one number for each rotary pair")),
        None => return Err(damaged("is missing")),
    }
    let factors: Vec<f32> = Linear::table(&gguf.load(name)?)?.to_vec1()?;
    if factors.iter().all(|f| f.is_finite() && *f > 0.0) {
        Ok(factors)
    } else {
        Err(damaged("holds numbers that are not positive and finite"))
    }
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

/// Width of a head of queries.
fn head_dim(gguf: &Gguf) -> Result<u64> {
    let stated = integer(gguf, "attention.key_length");
    let heads = need(gguf, "attention.head_count")?;
    let width = need(gguf, "embedding_length")?;
    let head_dim = stated.or_else(|| width.checked_div(heads)).unwrap_or(0);
    if (1..=1 << 24).contains(&head_dim) {
        Ok(head_dim)
    } else {
        Err(bad(
            gguf,
            "attention.key_length",
            "makes heads of an impossible width",
        ))
    }
}

/// How much of a head is rotated.
fn rotated(gguf: &Gguf) -> Option<u64> {
    integer(gguf, "rope.dimension_count")
}

/// The share of a head that is rotated, such that the width of a head times the share, cut off, is what is rotated.
fn rotated_share(gguf: &Gguf) -> Result<f64> {
    let head_dim = head_dim(gguf)?;
    let Some(rotated) = rotated(gguf) else {
        return Ok(1.0);
    };
    if rotated > head_dim {
        return Err(bad(
            gguf,
            "rope.dimension_count",
            "is more than the width of a head",
        ));
    }
    let share = rotated as f64 / head_dim as f64;
    let cut = (share * head_dim as f64) as u64;
    Ok(if cut < rotated {
        share.next_up()
    } else {
        share
    })
}

/// Whether any block has a bias of this name.
fn has_bias(gguf: &Gguf, stem: &str) -> bool {
    let end = format!(".{stem}.bias");
    gguf.header.tensors.keys().any(|name| name.ends_with(&end))
}

fn integer(gguf: &Gguf, key: &str) -> Option<u64> {
    gguf.integer(&format!("{}.{key}", gguf.arch.name()))
}

fn real(gguf: &Gguf, key: &str) -> Option<f64> {
    gguf.real(&format!("{}.{key}", gguf.arch.name()))
        .filter(|v| v.is_finite())
}

fn text<'a>(gguf: &'a Gguf, key: &str) -> Option<&'a str> {
    gguf.text(&format!("{}.{key}", gguf.arch.name()))
}

fn flag(gguf: &Gguf, key: &str) -> Option<bool> {
    gguf.flag(&format!("{}.{key}", gguf.arch.name()))
}

fn flags<'a>(gguf: &'a Gguf, key: &str) -> Option<&'a Vec<bool>> {
    gguf.flags(&format!("{}.{key}", gguf.arch.name()))
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

fn object(value: Value) -> Object {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
