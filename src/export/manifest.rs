//! `manifest.json`: which model, which settings, which columns. Equal runs differ in the two times only.

use crate::lens::StateKind;
use crate::model::{ModelCard, card};
use crate::trace::{Curve, Group, Paired, Pairing, Record, Samples, Set};
use serde::Serialize;
use serde_json::Value;
use std::time::SystemTime;
use time::format_description::well_known::Rfc3339;

/// What `manifest.json` says, in its order.
#[derive(Clone, Debug, Serialize)]
pub struct Manifest {
    program: &'static str,
    version: &'static str,
    model: Model,
    /// B, where two models were compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<Model>,
    prompt_tokens: usize,
    max_new_tokens: usize,
    sampling: Sampling,
    /// Changes of the sampling during the run, if there were any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sampling_changes: Vec<Change>,
    /// The control vectors in force; `null` for the plain model.
    steering: Option<Value>,
    /// Changes of these during the run, if there were any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    steering_changes: Vec<SteeringChange>,
    /// What the branches of a comparison read: `free` or `locked`.
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<&'static str>,
    /// Two sets of prompts, where these were read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sets: Vec<SetSize>,
    /// What multiplied the steering, where several strengths were read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sweep: Vec<f64>,
    preset: &'static str,
    lens: Lens,
    metrics: Vec<Column>,
    branches: Vec<Branch>,
    files: Vec<String>,
    started: String,
    ended: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct SteeringChange {
    /// The first position that was read under it.
    position: usize,
    steering: Option<Value>,
}

#[derive(Clone, Debug, Serialize)]
struct SetSize {
    set: &'static str,
    n: usize,
    prompt_tokens: usize,
}

#[derive(Clone, Debug, Serialize)]
struct Model {
    name: String,
    source: String,
    sha256: Option<String>,
    family: String,
    blocks: usize,
    d_model: usize,
    heads: usize,
    kv_heads: usize,
    vocab: usize,
    /// `null` where only memory limits it.
    context: Option<usize>,
    /// Whether the cell at a position speaks about the next token; otherwise about the token that stands there.
    causal: bool,
    /// What each block is, from the first on.
    layers: Vec<String>,
    parameters: u64,
    dtype: String,
    device: String,
}

impl From<&ModelCard> for Model {
    fn from(card: &ModelCard) -> Self {
        Self {
            name: card.name.clone(),
            source: card.source.clone(),
            sha256: card.sha256.clone(),
            family: card.family.clone(),
            blocks: card.blocks,
            d_model: card.d_model,
            heads: card.heads,
            kv_heads: card.kv_heads,
            vocab: card.vocab,
            context: card.limit(),
            causal: card.causal,
            layers: card.layers.iter().map(|kind| card::kind(*kind)).collect(),
            parameters: card.parameters,
            dtype: card.dtype.clone(),
            device: card.device.clone(),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
struct Sampling {
    temperature: f64,
    top_k: Option<usize>,
    top_p: Option<f64>,
    min_p: Option<f64>,
    repetition_penalty: f64,
    seed: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Change {
    /// Position of the first token drawn by these settings.
    position: usize,
    sampling: Sampling,
}

impl From<&crate::model::Sampling> for Sampling {
    fn from(sampling: &crate::model::Sampling) -> Self {
        Self {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repetition_penalty: sampling.repetition_penalty,
            seed: sampling.seed,
        }
    }
}

#[derive(Clone, Debug, Serialize)]
struct Lens {
    temperature: f64,
    /// Orders; infinity, which JSON lacks, is the string `inf`.
    renyi: Vec<Value>,
    topk_shares: Vec<f64>,
    l0_threshold: f64,
    top: usize,
    states: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct Column {
    name: String,
    unit: &'static str,
    group: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct Branch {
    name: String,
    tokens: usize,
    prompt_tokens: usize,
    positions_read: usize,
}

/// Describe `record`, of which `files` are written.
#[must_use]
pub fn manifest(record: &Record, files: &[&str]) -> Manifest {
    let card = &record.model;
    let lens = &record.lens;
    Manifest {
        program: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        model: Model::from(card.as_ref()),
        against: None,
        prompt_tokens: record
            .branches
            .first()
            .map_or(0, |(_, grid)| grid.prompt_len()),
        max_new_tokens: record.max_new_tokens,
        sampling: Sampling::from(&record.sampling),
        sampling_changes: record
            .sampling_changes
            .iter()
            .map(|(position, sampling)| Change {
                position: *position,
                sampling: Sampling::from(sampling),
            })
            .collect(),
        steering: record.steering.clone(),
        steering_changes: record
            .steering_changes
            .iter()
            .map(|(position, steering)| SteeringChange {
                position: *position,
                steering: steering.clone(),
            })
            .collect(),
        comparison: record.comparison.map(Pairing::label),
        sets: Vec::new(),
        sweep: Vec::new(),
        preset: "standard",
        lens: Lens {
            temperature: lens.temperature,
            renyi: lens.renyi.iter().map(|order| real(*order)).collect(),
            topk_shares: lens.topk_shares.clone(),
            l0_threshold: lens.l0_threshold,
            top: lens.top,
            states: match lens.states {
                StateKind::Residual => "residual",
                StateKind::Normed => "normed",
            },
        },
        metrics: record
            .schema
            .metrics()
            .iter()
            .map(|metric| Column {
                name: metric.name.clone(),
                unit: metric.unit.label(),
                group: match metric.group {
                    Group::Distribution => "distribution",
                    Group::Sparsity => "sparsity",
                },
            })
            .collect(),
        branches: record
            .branches
            .iter()
            .map(|(name, grid)| Branch {
                name: name.clone(),
                tokens: grid.len(),
                prompt_tokens: grid.prompt_len(),
                positions_read: grid.read(),
            })
            .collect(),
        files: files.iter().map(|name| (*name).to_owned()).collect(),
        started: rfc3339(record.started),
        ended: record.ended.map(rfc3339),
    }
}

impl Manifest {
    /// The same, with the second of two models.
    #[must_use]
    pub fn against(mut self, card: &ModelCard) -> Self {
        self.against = Some(Model::from(card));
        self
    }

    /// The same, with the strengths of a sweep.
    #[must_use]
    pub fn of_sweep(mut self, curve: &Curve) -> Self {
        self.sweep = curve.strengths().to_vec();
        self
    }

    /// The same, with the sizes of two sets of prompts.
    #[must_use]
    pub fn of_samples(mut self, samples: &Samples) -> Self {
        let size = |set: Set| SetSize {
            set: set.label(),
            n: samples.of(set).len(),
            prompt_tokens: samples.of(set).iter().map(|s| s.prompt_tokens).sum(),
        };
        self.sets = Set::BOTH.map(size).to_vec();
        self.prompt_tokens = self.sets.iter().map(|set| set.prompt_tokens).sum();
        self
    }

    /// The same for many prompts, of which the record is the first one's: with all their tokens, and these metrics only.
    #[must_use]
    pub fn of_paired(mut self, paired: &Paired, metrics: &[&str]) -> Self {
        self.prompt_tokens = paired.samples().iter().map(|s| s.prompt_tokens).sum();
        self.metrics.retain(|m| metrics.contains(&m.name.as_str()));
        self.branches.clear();
        self
    }
}

fn real(value: f64) -> Value {
    serde_json::Number::from_f64(value)
        .map_or_else(|| Value::String(value.to_string()), Value::Number)
}

/// A moment as RFC 3339 in UTC, to the millisecond.
#[must_use]
pub fn rfc3339(moment: SystemTime) -> String {
    let moment = time::OffsetDateTime::from(moment);
    let milliseconds = moment.nanosecond() / 1_000_000 * 1_000_000;
    moment
        .replace_nanosecond(milliseconds)
        .unwrap_or(moment)
        .format(&Rfc3339)
        .unwrap_or_default()
}
