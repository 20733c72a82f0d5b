//! `config.json` of a model → the metadata that llama.cpp's converter writes for it.
//!
//! Older and newer field names are understood. Where a number has no place in llama.cpp's own keys because its readers
//! take a fixed one, it is written only if it differs: `attention.scale` of Gemma, `no_rope_layer_interval` of SmolLM 3,
//! the sliding windows of Qwen and Mistral. This program reads them back; llama.cpp does not heed them.

use super::names::Arch;
use super::write::Entries;
use crate::error::{Error, Result};
use crate::text::scrub;
use serde_json::Value;

/// Most layers that are listed one by one.
const MAX_LAYERS: usize = 1 << 16;
/// The context that the converter states for models without positions.
const UNLIMITED: u32 = 1 << 20;

/// All numbers of the architecture.
pub(super) fn write(arch: Arch, config: &Value, entries: &mut Entries) -> Result<()> {
    let to = &mut Numbers {
        arch,
        config,
        entries,
    };
    to.size("vocab_size", &["vocab_size"])?;
    to.size("block_count", &["num_hidden_layers", "n_layer"])?;
    to.size("embedding_length", &["hidden_size", "n_embd", "n_embed"])?;
    match arch {
        Arch::Mamba | Arch::Mamba2 => return state_space(to),
        Arch::Gpt2 | Arch::Phi2 | Arch::GptNeox | Arch::Bloom => return layer_normed(to),
        _ => {}
    }
    to.size("context_length", &["max_position_embeddings"])?;
    to.size("attention.head_count", &["num_attention_heads"])?;
    to.real(
        "attention.layer_norm_rms_epsilon",
        &["rms_norm_eps", "norm_eps"],
        1e-6,
    );
    let head_dim = head_dim(config)?;
    to.put("attention.key_length", head_dim);
    to.put("attention.value_length", head_dim);
    let rotated = rotated(config, head_dim)?;
    if arch != Arch::Phi3 && rotated != head_dim {
        return Err(unusable(
            "its heads are rotated in part, which this architecture's are not",
        ));
    }
    to.put("rope.dimension_count", rotated);
    to.rotary()?;
    if arch == Arch::Lfm2 {
        return lfm2(to);
    }
    to.size("feed_forward_length", &["intermediate_size"])?;
    to.key_value_heads()?;
    match arch {
        Arch::Llama => to.window("sliding_window"),
        Arch::Qwen2 | Arch::Qwen3 if config["use_sliding_window"] == true => {
            to.window("sliding_window")?;
            let first = optional_size(config, "max_window_layers")?.unwrap_or(0) as usize;
            let layers = sliding(config, |i| i >= first)?;
            to.flags("attention.sliding_window_pattern", &layers);
            Ok(())
        }
        Arch::Gemma2 => {
            to.cap("attn_logit_softcapping");
            to.cap("final_logit_softcapping");
            to.window("sliding_window")?;
            to.pattern(2)?;
            to.attention_scale(46)
        }
        Arch::Gemma3 => {
            to.cap("final_logit_softcapping");
            let local = &config["rope_parameters"]["sliding_attention"]["rope_theta"];
            let local = local
                .as_f64()
                .or_else(|| config["rope_local_base_freq"].as_f64());
            to.put_real("rope.freq_base_swa", local.unwrap_or(10_000.0));
            to.window("sliding_window")?;
            to.pattern(6)?;
            to.attention_scale(62)
        }
        Arch::Phi3 => {
            let original = optional_size(config, "original_max_position_embeddings")?;
            let original = match original {
                Some(original) => original,
                None => size(config, "max_position_embeddings")?,
            };
            to.put("rope.scaling.original_context_length", original);
            // Zero says that there is none.
            let window = optional_size(config, "sliding_window")?.unwrap_or(0);
            to.put("attention.sliding_window", window);
            Ok(())
        }
        Arch::Smollm3 => smollm3(to),
        _ => Ok(()),
    }
}

/// The architectures with mean-and-variance norms.
fn layer_normed(to: &mut Numbers<'_>) -> Result<()> {
    let config = to.config;
    let width = first_size(config, &["hidden_size", "n_embd", "n_embed"])?;
    to.size("attention.head_count", &["num_attention_heads", "n_head"])?;
    to.real(
        "attention.layer_norm_epsilon",
        &["layer_norm_epsilon", "layer_norm_eps"],
        1e-5,
    );
    let context = ["max_position_embeddings", "n_positions", "seq_length"];
    match first_size(config, &context) {
        Ok(context) => to.put("context_length", context),
        // Positions that are not learned have no end; the converter states the width.
        Err(_) if to.arch == Arch::Bloom => to.put("context_length", width),
        Err(e) => return Err(e),
    }
    let inner = first_size(config, &["intermediate_size", "n_inner"]);
    to.put(
        "feed_forward_length",
        inner.unwrap_or(width.saturating_mul(4)),
    );
    match to.arch {
        Arch::Phi2 => {
            if config["qk_layernorm"] == true {
                return Err(unusable("its queries and keys are normed"));
            }
            to.key_value_heads()?;
        }
        Arch::GptNeox => {
            let parallel = config["use_parallel_residual"].as_bool().unwrap_or(true);
            to.flag("use_parallel_residual", parallel);
        }
        Arch::Bloom => {
            if config["apply_residual_connection_post_layernorm"] == true {
                return Err(unusable("its residual is taken after the norm"));
            }
            to.size(
                "attention.head_count_kv",
                &["num_attention_heads", "n_head"],
            )?;
        }
        _ => {}
    }
    if matches!(to.arch, Arch::Phi2 | Arch::GptNeox) {
        let rotated = rotated(config, head_dim(config)?)?;
        to.put("rope.dimension_count", rotated);
        to.rotary()?;
    }
    Ok(())
}

fn state_space(to: &mut Numbers<'_>) -> Result<()> {
    let config = to.config;
    to.put("context_length", UNLIMITED);
    // llama.cpp asks for these, and does not use them.
    to.put("feed_forward_length", 0);
    to.put("attention.head_count", 0);
    to.real(
        "attention.layer_norm_rms_epsilon",
        &["layer_norm_epsilon", "rms_norm_eps"],
        1e-5,
    );
    let width = size(config, "hidden_size")?;
    let expand = optional_size(config, "expand")?.unwrap_or(2);
    let inner = optional_size(config, "intermediate_size")?;
    to.put(
        "ssm.inner_size",
        inner.unwrap_or(width.saturating_mul(expand)),
    );
    to.size("ssm.conv_kernel", &["conv_kernel"])?;
    to.size("ssm.state_size", &["state_size"])?;
    if to.arch == Arch::Mamba2 {
        to.size("ssm.time_step_rank", &["num_heads"])?;
        to.size("ssm.group_count", &["n_groups"])
    } else {
        to.flag("ssm.dt_b_c_rms", false);
        let rank = match &config["time_step_rank"] {
            Value::String(auto) if auto == "auto" => width.div_ceil(16),
            _ => size(config, "time_step_rank")?,
        };
        to.put("ssm.time_step_rank", rank);
        Ok(())
    }
}

fn smollm3(to: &mut Numbers<'_>) -> Result<()> {
    let interval = optional_size(to.config, "no_rope_layer_interval")?.unwrap_or(4);
    let rotated = |i: usize| !(i + 1).is_multiple_of(interval.max(1) as usize);
    let listed = to.config["no_rope_layers"].as_array();
    let fits = |(i, flag): (usize, &Value)| *flag == u64::from(rotated(i));
    if !listed.into_iter().flatten().enumerate().all(fits) {
        return Err(unusable(
            "its layers without rotation do not lie at equal intervals",
        ));
    }
    if interval != 4 {
        to.put("no_rope_layer_interval", interval);
    }
    Ok(())
}

fn lfm2(to: &mut Numbers<'_>) -> Result<()> {
    let config = to.config;
    let heads = first_size(config, &["num_key_value_heads", "num_attention_heads"])?;
    let heads =
        i32::try_from(heads).map_err(|_| unusable("its config asks for too many heads of keys"))?;
    let blocks = size(config, "num_hidden_layers")? as usize;
    let attends: Vec<bool> = match (&config["layer_types"], &config["full_attn_idxs"]) {
        (Value::Array(types), _) => types.iter().map(|t| t == "full_attention").collect(),
        (_, Value::Array(indices)) if blocks <= MAX_LAYERS => {
            (0..blocks).map(|i| indices.contains(&i.into())).collect()
        }
        _ => {
            return Err(unusable(
                "its config does not say which layers have attention",
            ));
        }
    };
    if attends.len() != blocks {
        return Err(unusable("its config does not list each layer's type once"));
    }
    let key_heads: Vec<i32> = attends.iter().map(|a| heads * i32::from(*a)).collect();
    to.entries
        .i32s(&to.key("attention.head_count_kv"), &key_heads);
    to.size("shortconv.l_cache", &["conv_L_cache"])?;
    let mut inner = u64::from(first_size(config, &["block_ff_dim", "intermediate_size"])?);
    if config["block_auto_adjust_ff_dim"] != false {
        inner = 2 * inner / 3;
        if let Some(factor) = config["block_ffn_dim_multiplier"].as_f64() {
            inner = (factor * inner as f64) as u64;
        }
        let unit = u64::from(
            optional_size(config, "block_multiple_of")?
                .unwrap_or(256)
                .max(1),
        );
        inner = inner.div_ceil(unit).saturating_mul(unit);
    }
    let inner = u32::try_from(inner)
        .map_err(|_| unusable("its config asks for an impossible width of its MLP"))?;
    to.put("feed_forward_length", inner);
    Ok(())
}

/// The entries of one architecture, whose keys begin with its name.
struct Numbers<'a> {
    arch: Arch,
    config: &'a Value,
    entries: &'a mut Entries,
}

impl Numbers<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.arch.name())
    }

    fn put(&mut self, name: &str, value: u32) {
        self.entries.u32(&self.key(name), value);
    }

    fn put_real(&mut self, name: &str, value: f64) {
        self.entries.f32(&self.key(name), value);
    }

    fn flag(&mut self, name: &str, value: bool) {
        self.entries.flag(&self.key(name), value);
    }

    fn flags(&mut self, name: &str, values: &[bool]) {
        self.entries.flags(&self.key(name), values);
    }

    /// The first field of the config that is there.
    fn size(&mut self, name: &str, fields: &[&str]) -> Result<()> {
        let value = first_size(self.config, fields)?;
        self.put(name, value);
        Ok(())
    }

    fn real(&mut self, name: &str, fields: &[&str], default: f64) {
        let found = fields.iter().find_map(|field| self.config[*field].as_f64());
        self.put_real(name, found.unwrap_or(default));
    }

    /// A soft cap on logits, where there is one.
    fn cap(&mut self, name: &str) {
        if let Some(cap) = self.config[name].as_f64() {
            self.put_real(name, cap);
        }
    }

    fn window(&mut self, field: &str) -> Result<()> {
        if let Some(window) = optional_size(self.config, field)? {
            self.put("attention.sliding_window", window);
        }
        Ok(())
    }

    fn key_value_heads(&mut self) -> Result<()> {
        self.size(
            "attention.head_count_kv",
            &["num_key_value_heads", "num_attention_heads"],
        )
    }

    /// Which layers have a window, unless all but every `usual`-th do, as llama.cpp takes it.
    fn pattern(&mut self, usual: usize) -> Result<()> {
        let stated = ["sliding_window_pattern", "_sliding_window_pattern"];
        let stated = stated.iter().find_map(|name| self.config[*name].as_u64());
        let interval = stated.and_then(|n| usize::try_from(n).ok());
        let interval = interval.unwrap_or(usual).max(1);
        let layers = sliding(self.config, |i| !(i + 1).is_multiple_of(interval))?;
        let usual = |(i, s): (usize, &bool)| *s != (i + 1).is_multiple_of(usual);
        if !layers.iter().enumerate().all(usual) {
            self.flags("attention.sliding_window_pattern", &layers);
        }
        Ok(())
    }

    /// Gemma's scale of attention scores, unless it is the one llama.cpp takes (see `config.rs`).
    fn attention_scale(&mut self, largest: u32) -> Result<()> {
        let usual = if size(self.config, "num_hidden_layers")? == largest {
            let heads = size(self.config, "num_attention_heads")?;
            let width = size(self.config, "hidden_size")?;
            width.checked_div(heads).unwrap_or(0)
        } else {
            head_dim(self.config)?
        };
        match self.config["query_pre_attn_scalar"].as_f64() {
            Some(scalar) if scalar > 0.0 && scalar != f64::from(usual) => {
                self.put_real("attention.scale", scalar.powf(-0.5));
            }
            _ => {}
        }
        Ok(())
    }

    /// Base and rescaling of the rotary frequencies; factors a pair are tensors.
    fn rotary(&mut self) -> Result<()> {
        self.put_real("rope.freq_base", theta(self.config));
        let scaling = scaling(self.config);
        match rope_type(scaling) {
            None | Some("default") => {}
            Some("llama3") if matches!(self.arch, Arch::Llama | Arch::Smollm3) => {}
            Some("linear") => {
                let factor = scaling["factor"].as_f64().unwrap_or(1.0);
                self.entries.text(&self.key("rope.scaling.type"), "linear");
                self.put_real("rope.scaling.factor", factor);
            }
            Some("yarn") => {
                let Some(factor) = scaling["factor"].as_f64() else {
                    return Err(unusable("its yarn scaling has no factor"));
                };
                self.entries.text(&self.key("rope.scaling.type"), "yarn");
                self.put_real("rope.scaling.factor", factor);
                let original = "original_max_position_embeddings";
                if let Some(original) = optional_size(scaling, original)? {
                    self.put("rope.scaling.original_context_length", original);
                }
                for (name, field) in [
                    ("rope.scaling.attn_factor", "attention_factor"),
                    ("rope.scaling.yarn_beta_fast", "beta_fast"),
                    ("rope.scaling.yarn_beta_slow", "beta_slow"),
                ] {
                    if let Some(value) = scaling[field].as_f64() {
                        self.put_real(name, value);
                    }
                }
            }
            Some("longrope" | "su") if self.arch == Arch::Phi3 => {
                let context = f64::from(size(self.config, "max_position_embeddings")?);
                let original = original_context(self.config)?;
                let ratio = context / original;
                let factor = if ratio > 1.0 && original > 1.0 {
                    (1.0 + ratio.ln() / original.ln()).sqrt()
                } else {
                    1.0
                };
                self.put_real("rope.scaling.attn_factor", factor);
            }
            Some(other) => {
                return Err(unusable(&format!(
                    "its rotary scaling \"{}\" has no place in GGUF for this architecture",
                    scrub(other)
                )));
            }
        }
        Ok(())
    }
}

/// Whether each layer has a window: as listed, or else by `rule`.
fn sliding(config: &Value, rule: impl Fn(usize) -> bool) -> Result<Vec<bool>> {
    let blocks = size(config, "num_hidden_layers")? as usize;
    let listed = config["layer_types"].as_array();
    let layers: Vec<bool> = match listed {
        Some(types) => types.iter().map(|t| t == "sliding_attention").collect(),
        None if blocks <= MAX_LAYERS => (0..blocks).map(rule).collect(),
        None => Vec::new(),
    };
    if layers.len() == blocks {
        Ok(layers)
    } else {
        Err(unusable("its config does not list each layer's type once"))
    }
}

/// The context that Phi was trained with before it was stretched.
pub(super) fn original_context(config: &Value) -> Result<f64> {
    let name = "original_max_position_embeddings";
    let original = match optional_size(scaling(config), name)? {
        Some(original) => Some(original),
        None => optional_size(config, name)?,
    };
    match original {
        Some(original) => Ok(f64::from(original)),
        None => Ok(f64::from(size(config, "max_position_embeddings")?)),
    }
}

/// Parameters of the rotary positions; of layers with full attention, where others have their own.
pub(super) fn scaling(config: &Value) -> &Value {
    match config.get("rope_parameters").filter(|v| v.is_object()) {
        Some(parameters) => match parameters.get("full_attention") {
            Some(full) => full,
            None => parameters,
        },
        None => &config["rope_scaling"],
    }
}

pub(super) fn rope_type(scaling: &Value) -> Option<&str> {
    scaling["rope_type"]
        .as_str()
        .or_else(|| scaling["type"].as_str())
}

pub(super) fn theta(config: &Value) -> f64 {
    let theta = scaling(config)["rope_theta"].as_f64();
    theta
        .or_else(|| config["rope_theta"].as_f64())
        .or_else(|| config["rotary_emb_base"].as_f64())
        .unwrap_or(10_000.0)
}

/// Numbers of a head that are rotated.
pub(super) fn rotated(config: &Value, head_dim: u32) -> Result<u32> {
    let parameters = scaling(config);
    let share = [
        &parameters["partial_rotary_factor"],
        &config["partial_rotary_factor"],
        &config["rotary_pct"],
    ];
    match share.into_iter().find_map(Value::as_f64) {
        None => Ok(head_dim),
        Some(share) if (0.0..=1.0).contains(&share) => Ok((f64::from(head_dim) * share) as u32),
        Some(_) => Err(unusable(
            "its config rotates an impossible share of each head",
        )),
    }
}

pub(super) fn head_dim(config: &Value) -> Result<u32> {
    match optional_size(config, "head_dim")? {
        Some(head_dim) => Ok(head_dim),
        None => first_size(config, &["hidden_size", "n_embd", "n_embed"])?
            .checked_div(heads(config)?)
            .ok_or_else(|| unusable("it has no attention heads")),
    }
}

/// Number of query heads.
pub(super) fn heads(config: &Value) -> Result<u32> {
    first_size(config, &["num_attention_heads", "n_head"])
}

fn first_size(config: &Value, fields: &[&str]) -> Result<u32> {
    for field in fields {
        if let Some(size) = optional_size(config, field)? {
            return Ok(size);
        }
    }
    Err(unusable(&format!(
        "its config lacks {}",
        fields.join(" or ")
    )))
}

pub(super) fn size(config: &Value, key: &str) -> Result<u32> {
    first_size(config, &[key])
}

pub(super) fn optional_size(config: &Value, key: &str) -> Result<Option<u32>> {
    match &config[key] {
        Value::Null => Ok(None),
        value => value
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
            .map(Some)
            .ok_or_else(|| unusable(&format!("{key} of its config is no whole number"))),
    }
}

pub(super) fn unusable(problem: &str) -> Error {
    Error::failed(
        format!("the model cannot be written as GGUF: {problem}"),
        "Write it as safetensors instead.",
    )
}
