//! `config.json` of a model family → what the one decoder needs to know.

use crate::error::{Error, Result};
use serde_json::Value;

/// Most of anything that a configuration may ask for; a larger number is damage, not a model.
const CAP: u64 = 1 << 24;

/// Everything that distinguishes one decoder from another.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Which family's tensor names and layouts to expect.
    pub family: Family,
    /// Number of logits.
    pub vocab: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of blocks L.
    pub blocks: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Inner width of the MLP.
    pub d_mlp: usize,
    /// Longest context.
    pub context: usize,
    /// Norm before attention, before the MLP and before the head.
    pub norm: Norm,
    /// How positions enter.
    pub positions: Positions,
    /// Non-linearity of the MLP.
    pub activation: Activation,
    /// Whether the head shares the embedding.
    pub tied: bool,
}

/// A supported architecture family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama 2, 3 and their kin.
    Llama,
    /// GPT-2.
    Gpt2,
}

impl Family {
    /// All families, for messages.
    pub const ALL: [Self; 2] = [Self::Llama, Self::Gpt2];

    /// The name in `model_type` and on the screen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Gpt2 => "gpt2",
        }
    }
}

/// A norm and the number that keeps it from dividing by zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// Root mean square, weight only.
    Rms(f64),
    /// Mean and variance, weight and bias.
    Layer(f64),
}

/// How a token's position reaches the model.
#[derive(Clone, Debug, PartialEq)]
pub enum Positions {
    /// A learned vector per position, added to the embedding.
    Learned,
    /// Rotation of queries and keys.
    Rotary(Rotary),
}

/// Rotary position embedding: inverse frequencies of the rotated pairs.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// `[pairs]` radians a position.
    pub frequencies: Vec<f64>,
}

/// The MLP's shape and non-linearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `down(silu(gate) · up)`.
    SwiGlu,
    /// `down(gelu_tanh(up))`.
    GeluTanh,
}

impl DecoderConfig {
    /// Read a `config.json`, in the older or the newer field names.
    ///
    /// # Errors
    /// If the family is not supported or a number is missing, absurd or contradictory; the sentence names the field.
    pub fn from_json(config: &Value) -> Result<Self> {
        let fields = Fields(config);
        let kind = config.get("model_type").and_then(Value::as_str);
        let config = match kind {
            Some("llama") => llama(&fields)?,
            Some("gpt2") => gpt2(&fields)?,
            other => return Err(unknown_family(other)),
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let wrong = |what: String| {
            Err(Error::failed(
                format!("the model's config.json contradicts itself: {what}"),
                "Fetch the model again, or correct the file.",
            ))
        };
        if self.blocks == 0 || self.heads == 0 || self.kv_heads == 0 || self.d_model == 0 {
            return wrong("it has no layers, no heads or no width".into());
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return wrong(format!(
                "{} attention heads cannot share {} key/value heads",
                self.heads, self.kv_heads
            ));
        }
        if self.vocab < 1 || self.context < 1 {
            return wrong("its vocabulary or context is empty".into());
        }
        Ok(())
    }
}

fn unknown_family(kind: Option<&str>) -> Error {
    let known: Vec<&str> = Family::ALL.iter().map(|f| f.name()).collect();
    let known = known.join(", ");
    match kind {
        Some(kind) => {
            let nearest = Family::ALL
                .iter()
                .map(|f| f.name())
                .max_by_key(|name| {
                    name.bytes()
                        .zip(kind.bytes())
                        .take_while(|(a, b)| a == b)
                        .count()
                })
                .unwrap_or_default();
            Error::failed(
                format!(
                    "models of type \"{}\" are not supported (nearest: {nearest})",
                    crate::text::scrub(kind)
                ),
                format!("Supported are {known}; a new family is mapped in src/model/config.rs."),
            )
        }
        None => Error::failed(
            "the model's config.json names no model_type",
            format!("Add one of {known}, or fetch the model again."),
        ),
    }
}

fn llama(f: &Fields<'_>) -> Result<DecoderConfig> {
    let d_model = f.size("hidden_size")?;
    let heads = f.size("num_attention_heads")?;
    let head_dim = match f.optional_size("head_dim")? {
        Some(d) => d,
        None => divide(d_model, heads)?,
    };
    if !head_dim.is_multiple_of(2) {
        return Err(f.bad("head_dim", "is odd, and rotary positions need pairs"));
    }
    if f.real("partial_rotary_factor")?
        .is_some_and(|share| share != 1.0)
    {
        return Err(f.bad("partial_rotary_factor", "is not supported for this family"));
    }
    let act = f.text("hidden_act").unwrap_or("silu");
    if act != "silu" {
        return Err(f.bad("hidden_act", "is not silu"));
    }
    Ok(DecoderConfig {
        family: Family::Llama,
        vocab: f.size("vocab_size")?,
        d_model,
        blocks: f.size("num_hidden_layers")?,
        heads,
        kv_heads: f.optional_size("num_key_value_heads")?.unwrap_or(heads),
        head_dim,
        d_mlp: f.size("intermediate_size")?,
        context: f.optional_size("max_position_embeddings")?.unwrap_or(2048),
        norm: Norm::Rms(f.real("rms_norm_eps")?.unwrap_or(1e-6)),
        positions: Positions::Rotary(rotary(f, head_dim)?),
        activation: Activation::SwiGlu,
        tied: f.flag("tie_word_embeddings").unwrap_or(false),
    })
}

fn gpt2(f: &Fields<'_>) -> Result<DecoderConfig> {
    let d_model = f.size("n_embd")?;
    let heads = f.size("n_head")?;
    let act = f.text("activation_function").unwrap_or("gelu_new");
    if !matches!(act, "gelu_new" | "gelu_pytorch_tanh") {
        return Err(f.bad("activation_function", "is not gelu_new"));
    }
    if f.flag("scale_attn_weights") == Some(false) {
        return Err(f.bad("scale_attn_weights", "must be true"));
    }
    if f.flag("scale_attn_by_inverse_layer_idx") == Some(true) {
        return Err(f.bad("scale_attn_by_inverse_layer_idx", "is not supported"));
    }
    Ok(DecoderConfig {
        family: Family::Gpt2,
        vocab: f.size("vocab_size")?,
        d_model,
        blocks: f.size("n_layer")?,
        heads,
        kv_heads: heads,
        head_dim: divide(d_model, heads)?,
        d_mlp: f.optional_size("n_inner")?.unwrap_or(4 * d_model),
        context: match f.optional_size("n_positions")? {
            Some(n) => n,
            None => f.optional_size("n_ctx")?.unwrap_or(1024),
        },
        norm: Norm::Layer(f.real("layer_norm_epsilon")?.unwrap_or(1e-5)),
        positions: Positions::Learned,
        activation: Activation::GeluTanh,
        tied: f.flag("tie_word_embeddings").unwrap_or(true),
    })
}

/// Inverse frequencies, with the `llama3` and `linear` rescalings. Older files say `rope_theta` and `rope_scaling` (with
/// `type` or `rope_type`), newer ones `rope_parameters`.
fn rotary(f: &Fields<'_>, head_dim: usize) -> Result<Rotary> {
    let present = |name: &str| f.0.get(name).filter(|v| v.is_object());
    let scaling = present("rope_parameters").or_else(|| present("rope_scaling"));
    let empty = Value::Null;
    let s = Fields(scaling.unwrap_or(&empty));
    let theta = match s.real("rope_theta")? {
        Some(theta) => theta,
        None => f.real("rope_theta")?.unwrap_or(10_000.0),
    };
    if !(theta.is_finite() && theta > 0.0) {
        return Err(f.bad("rope_theta", "is not a positive number"));
    }
    let mut frequencies: Vec<f64> = (0..head_dim / 2)
        .map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64))
        .collect();
    let need = |name: &str| {
        s.real(name)?
            .filter(|v| v.is_finite() && *v > 0.0)
            .ok_or_else(|| s.bad(name, "is missing or not a positive number"))
    };
    match s.text("rope_type").or_else(|| s.text("type")) {
        None | Some("default") => {}
        Some("linear") => {
            let factor = need("factor")?;
            frequencies.iter_mut().for_each(|v| *v /= factor);
        }
        Some("llama3") => {
            let factor = need("factor")?;
            let (low, high) = (need("low_freq_factor")?, need("high_freq_factor")?);
            let original = need("original_max_position_embeddings")?;
            for v in &mut frequencies {
                // How often the pair turns within the original context decides: slow pairs are stretched, fast ones
                // stay, those between are blended.
                let turns = original * *v / std::f64::consts::TAU;
                if turns < low {
                    *v /= factor;
                } else if turns < high {
                    let blend = (turns - low) / (high - low);
                    *v = (1.0 - blend) * *v / factor + blend * *v;
                }
            }
        }
        // One divisor for each pair, as GGUF files state them.
        Some("factors") => {
            let listed = s.0.get("factors").and_then(Value::as_array);
            let factors: Vec<f64> = listed
                .into_iter()
                .flatten()
                .filter_map(Value::as_f64)
                .filter(|f| f.is_finite() && *f > 0.0)
                .collect();
            if factors.len() != frequencies.len() {
                return Err(s.bad(
                    "factors",
                    "does not hold one positive number for each rotary pair",
                ));
            }
            frequencies
                .iter_mut()
                .zip(factors)
                .for_each(|(v, f)| *v /= f);
        }
        Some(other) => {
            return Err(s.bad(
                "rope_type",
                &format!(
                    "\"{}\" is not supported for this family",
                    crate::text::scrub(other)
                ),
            ));
        }
    }
    Ok(Rotary { frequencies })
}

fn divide(width: usize, heads: usize) -> Result<usize> {
    if heads == 0 || !width.is_multiple_of(heads) {
        return Err(Error::failed(
            format!(
                "the model's config.json gives a width of {width} for {heads} heads, which does not divide"
            ),
            "Fetch the model again, or correct the file.",
        ));
    }
    Ok(width / heads)
}

/// Checked access to the fields of one JSON object.
struct Fields<'a>(&'a Value);

impl<'a> Fields<'a> {
    fn size(&self, name: &str) -> Result<usize> {
        self.optional_size(name)?
            .ok_or_else(|| self.bad(name, "is missing"))
    }

    fn optional_size(&self, name: &str) -> Result<Option<usize>> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => match v.as_u64() {
                Some(n) if (1..=CAP).contains(&n) => Ok(Some(n as usize)),
                _ => Err(self.bad(name, &format!("must be a whole number from 1 to {CAP}"))),
            },
        }
    }

    fn real(&self, name: &str) -> Result<Option<f64>> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => match v.as_f64() {
                Some(n) if n.is_finite() => Ok(Some(n)),
                _ => Err(self.bad(name, "must be a number")),
            },
        }
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).and_then(Value::as_str)
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.0.get(name).and_then(Value::as_bool)
    }

    fn bad(&self, name: &str, why: &str) -> Error {
        let found = self
            .0
            .get(name)
            .map(|v| crate::text::scrub(&v.to_string()))
            .map(|v| format!(" (found {})", v.chars().take(60).collect::<String>()))
            .unwrap_or_default();
        Error::failed(
            format!("the model's config.json: {name} {why}{found}"),
            "Fetch the model again, or correct the file.",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn small() -> Value {
        json!({"model_type": "llama", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 2,
               "num_attention_heads": 2, "intermediate_size": 16, "rope_theta": 10000.0})
    }

    #[test]
    fn older_and_newer_rope_fields_mean_the_same() {
        let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                             "original_max_position_embeddings": 32});
        let mut old = small();
        old["rope_scaling"] = scaling.clone();
        let mut new = small();
        new.as_object_mut().unwrap().remove("rope_theta");
        new["rope_parameters"] = scaling;
        new["rope_parameters"]["rope_theta"] = json!(10000.0);
        let (old, new) = (
            DecoderConfig::from_json(&old),
            DecoderConfig::from_json(&new),
        );
        assert_eq!(old.unwrap(), new.unwrap());
    }

    #[test]
    fn damage_is_named() {
        for (field, value, says) in [
            ("vocab_size", json!(null), "vocab_size is missing"),
            (
                "hidden_size",
                json!(0),
                "hidden_size must be a whole number",
            ),
            ("hidden_size", json!(9), "does not divide"),
            ("num_hidden_layers", json!(1u64 << 60), "num_hidden_layers"),
            ("num_key_value_heads", json!(3), "cannot share"),
            ("rope_theta", json!("x"), "rope_theta must be a number"),
            ("hidden_act", json!("relu"), "hidden_act"),
            ("model_type", json!("lama"), "nearest: llama"),
            ("model_type", json!(null), "names no model_type"),
        ] {
            let mut config = small();
            config[field] = value;
            let error = DecoderConfig::from_json(&config).unwrap_err().to_string();
            assert!(error.contains(says), "{field}: {error}");
        }
    }
}
