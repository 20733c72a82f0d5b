//! `config.json` of a model family → what the traced forward pass needs to know.

mod fields;
mod rotary;

use super::families::{Body, Family};
use crate::error::{Error, Result};
pub(crate) use fields::Fields;
pub use rotary::{Long, Rotary};
use serde_json::Value;

/// Everything that distinguishes one model from another.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Which family's tensor names and layouts to expect.
    pub family: Family,
    /// Number of logits V.
    pub vocab: usize,
    /// Rows of the embedding table, at least V (mllama has 8 more).
    pub embedded: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads of the attention blocks; 0 where there are none.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Inner width of the MLP; 0 where there is none.
    pub d_mlp: usize,
    /// Longest context.
    pub context: usize,
    /// Whether a token sees only what came before it; false for masked language models.
    pub causal: bool,
    /// What each block is, from the first to block L.
    pub layers: Vec<LayerKind>,
    /// Factor on the embedding.
    pub embedding_scale: Option<f64>,
    /// Width of the embedding's rows where it differs from `d_model` and is projected.
    pub embedding_width: Option<usize>,
    /// Learned vectors added to the embedding.
    pub positions: Option<Learned>,
    /// Norm of the embedding, its result is state 0.
    pub embedding_norm: Option<Norm>,
    /// Norm before the head.
    pub final_norm: Option<Norm>,
    /// Whether the head shares the embedding.
    pub tied: bool,
    /// Whether the head has a bias.
    pub head_bias: bool,
    /// Logits z become `cap · tanh(z / cap)`.
    pub logit_cap: Option<f64>,
    /// The blocks.
    pub body: Body,
}

/// What a block computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerKind {
    /// Attention over everything before.
    Attention,
    /// Attention over the last so many tokens, the querying one included.
    Window(usize),
    /// Cross-attention to images, left out in text: the state passes unchanged.
    Skipped,
    /// A gated short convolution.
    Convolution,
    /// A selective state space (Mamba).
    StateSpace,
    /// A state space with a shared attention block before it.
    Hybrid,
}

impl LayerKind {
    /// Whether there are attention probabilities to look at.
    #[must_use]
    pub fn attends(self) -> bool {
        matches!(self, Self::Attention | Self::Window(_) | Self::Hybrid)
    }

    /// How many keys a token sees, its own included, where that is limited.
    #[must_use]
    pub fn window(self) -> Option<usize> {
        match self {
            Self::Window(width) => Some(width),
            _ => None,
        }
    }

    /// A word for tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::Window(_) => "sliding attention",
            Self::Skipped => "cross-attention (skipped in text)",
            Self::Convolution => "convolution",
            Self::StateSpace => "state space",
            Self::Hybrid => "state space + attention",
        }
    }
}

/// A norm and the number that keeps it from dividing by zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// Root mean square, weight only.
    Rms(f64),
    /// Root mean square, multiplied by 1 + weight (Gemma).
    RmsPlusOne(f64),
    /// Mean and variance, weight and bias.
    Layer(f64),
}

/// A table of learned position vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learned {
    /// Rows of the table.
    pub rows: usize,
    /// Position 0 is this row.
    pub offset: usize,
}

/// The MLP's non-linearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x · sigmoid(x).
    Silu,
    /// The Gaussian error linear unit in its tanh approximation.
    GeluTanh,
    /// The Gaussian error linear unit.
    GeluErf,
    /// max(x, 0).
    Relu,
}

impl Activation {
    /// By the name that configurations give it in `field`.
    pub(crate) fn read(f: &Fields<'_>, field: &str, default: &str) -> Result<Self> {
        match f.text(field)?.unwrap_or(default) {
            "silu" | "swish" => Ok(Self::Silu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Self::GeluTanh),
            "gelu" => Ok(Self::GeluErf),
            "relu" => Ok(Self::Relu),
            _ => Err(f.bad(
                field,
                "is none of silu, gelu, gelu_new, gelu_pytorch_tanh, relu",
            )),
        }
    }
}

impl DecoderConfig {
    /// Read a `config.json`, in the older or the newer field names; of a multimodal wrapper, its text part.
    ///
    /// # Errors
    /// If the family is not supported or a number is missing, absurd or contradictory; the sentence names the field.
    pub fn from_json(config: &Value) -> Result<Self> {
        let outer = Fields(config);
        let f = outer.object("text_config")?.unwrap_or(outer);
        let kind = match f.text("model_type")? {
            Some(kind) => Some(kind),
            None => outer.text("model_type")?,
        };
        let Some(family) = kind.and_then(Family::of) else {
            return Err(unknown_family(kind));
        };
        let mut config = family.config(&f)?;
        // Wrappers say it outside, or inside, or not at all.
        if let Some(tied) = outer.flag("tie_word_embeddings")? {
            config.tied = tied;
        }
        config.check()?;
        Ok(config)
    }

    /// Number of blocks L.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.layers.len()
    }

    /// The rotary embeddings that its blocks refer to by index.
    #[must_use]
    pub fn rotaries(&self) -> &[Rotary] {
        self.body.rotaries()
    }

    /// Whether a text of so many tokens is read with other rotary frequencies than a shorter one.
    #[must_use]
    pub fn is_long(&self, tokens: usize) -> bool {
        self.rotaries()
            .iter()
            .filter_map(|r| r.long.as_ref())
            .any(|long| tokens > long.original)
    }

    fn check(&self) -> Result<()> {
        let wrong = |what: String| {
            Err(Error::failed(
                format!("the model's config.json contradicts itself: {what}"),
                "Fetch the model again, or correct the file.",
            ))
        };
        if self.layers.is_empty() || self.d_model == 0 {
            return wrong("it has no layers or no width".into());
        }
        if self.layers.iter().any(|l| l.attends()) {
            if self.heads == 0 || self.kv_heads == 0 || self.head_dim == 0 {
                return wrong("it has no attention heads".into());
            }
            if !self.heads.is_multiple_of(self.kv_heads) {
                return wrong(format!(
                    "{} attention heads cannot share {} key/value heads",
                    self.heads, self.kv_heads
                ));
            }
        }
        // Widths that products of two fields make; each field alone is bounded.
        let widest = (self.heads as u64).saturating_mul(self.head_dim as u64);
        if widest > 1 << 24 {
            return wrong(format!(
                "{} heads of {} are wider than any model",
                self.heads, self.head_dim
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
    let list = known.join(", ");
    match kind {
        Some(kind) => {
            let near = match nearest(kind, &known).join(", ") {
                near if near.is_empty() => near,
                near => format!(" (nearest: {near})"),
            };
            Error::failed(
                format!(
                    "models of type \"{}\" are not supported{near}",
                    crate::text::scrub(kind)
                ),
                format!(
                    "Supported are {list}. A new family of transformers is one mapping in \
                     src/model/families/transformer.rs and one table in src/model/families/names.rs."
                ),
            )
        }
        None => Error::failed(
            "the model's config.json names no model_type",
            format!("Add one of {list}, or fetch the model again."),
        ),
    }
}

/// The names most like `name`: those at most two letters away, or else those that share most of its beginning.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Vec<&'a str> {
    let best = |score: &dyn Fn(&str) -> usize, most: usize| -> Vec<&'a str> {
        let scores: Vec<usize> = known.iter().map(|other| score(other)).collect();
        let least = scores.iter().copied().min().filter(|least| *least <= most);
        let near = known.iter().zip(scores).filter(|(_, s)| Some(*s) == least);
        near.map(|(other, _)| *other).collect()
    };
    let near = best(&|other| edits(name, other), 2);
    if !near.is_empty() {
        return near;
    }
    let unshared = |other: &str| {
        let pairs = name.bytes().zip(other.bytes());
        64 - pairs.take_while(|(a, b)| a == b).count().min(64)
    };
    best(&unshared, 62)
}

/// Levenshtein distance of two short names, in bytes.
fn edits(a: &str, b: &str) -> usize {
    let (a, b) = (&a.as_bytes()[..a.len().min(64)], b.as_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// `width / heads` where it divides.
pub(crate) fn divide(width: usize, heads: usize) -> Result<usize> {
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
            ("hidden_act", json!("tanh"), "hidden_act"),
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
