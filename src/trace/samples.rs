//! Readings of two sets of prompts, and how well each layer and metric tells them apart.

use super::{Metric, Schema, Spread};
use crate::stats::{auroc, auroc_interval};
use serde::Serialize;
use std::sync::Arc;

/// Draws of the bootstrap.
const DRAWS: usize = 1000;
/// Share of the draws within an interval.
const LEVEL: f64 = 0.95;

/// Which set a prompt belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Set {
    /// What the model should know.
    Known,
    /// What it should not, though it looks alike.
    Unknown,
}

impl Set {
    /// Both, in order.
    pub const BOTH: [Self; 2] = [Self::Known, Self::Unknown];

    /// The word used in files.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Unknown => "unknown",
        }
    }
}

/// One prompt that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// `[L + 1][metrics]`: the mean of each over the positions that were asked for; NaN where it is defined at none.
    pub values: Box<[f64]>,
}

/// How well one number of a sample tells the sets apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Separation {
    /// P(unknown > known) + ½ P(equal); below .5 the sign is reversed.
    pub auroc: f64,
    /// Its 95 % bootstrap interval.
    pub interval: Option<(f64, f64)>,
    /// Known samples that have the number.
    pub n_known: usize,
    /// Unknown ones.
    pub n_unknown: usize,
}

/// The samples of both sets, as far as they have come.
#[derive(Clone, Debug)]
pub struct Samples {
    schema: Arc<Schema>,
    states: usize,
    seed: u64,
    sets: [Vec<Arc<Sample>>; 2],
}

impl Samples {
    /// None yet, of a model with `states` states (L + 1); `seed` is that of the bootstrap.
    #[must_use]
    pub fn new(schema: Arc<Schema>, states: usize, seed: u64) -> Self {
        Self {
            schema,
            states,
            seed,
            sets: [Vec::new(), Vec::new()],
        }
    }

    /// Take in one more.
    pub fn push(&mut self, set: Set, sample: Arc<Sample>) {
        self.sets[set as usize].push(sample);
    }

    /// The columns of the samples.
    #[must_use]
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Number of states, L + 1.
    #[must_use]
    pub fn states(&self) -> usize {
        self.states
    }

    /// The samples of a set.
    #[must_use]
    pub fn of(&self, set: Set) -> &[Arc<Sample>] {
        &self.sets[set as usize]
    }

    /// How many samples both sets have.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sets.iter().map(Vec::len).sum()
    }

    /// Two numbers of every sample of a set that has both.
    #[must_use]
    pub fn pairs(&self, set: Set, layer: usize, metrics: [Metric; 2]) -> Vec<[f64; 2]> {
        let at = metrics.map(|metric| layer * self.schema.len() + metric.0);
        let samples = self.of(set).iter();
        samples
            .filter_map(|s| Some([*s.values.get(at[0])?, *s.values.get(at[1])?]))
            .filter(|pair| pair.iter().all(|v| v.is_finite()))
            .collect()
    }

    /// One number of every sample of a set that has it.
    fn values(&self, set: Set, layer: usize, metric: Metric) -> Vec<f64> {
        let at = layer * self.schema.len() + metric.0;
        let values = self.of(set).iter().filter_map(|s| s.values.get(at));
        values.copied().filter(|v| v.is_finite()).collect()
    }

    /// Mean ± standard deviation over the samples of a set.
    #[must_use]
    pub fn profile(&self, set: Set, layer: usize, metric: Metric) -> Option<Spread> {
        Spread::of(self.values(set, layer, metric))
    }

    /// Mean of the unknown less mean of the known.
    #[must_use]
    pub fn difference(&self, layer: usize, metric: Metric) -> Option<f64> {
        let [known, unknown] = Set::BOTH.map(|set| self.profile(set, layer, metric));
        Some(unknown?.mean - known?.mean)
    }

    /// The AUROC of one layer and metric without its interval, which takes a thousand times as long.
    #[must_use]
    pub fn auroc(&self, layer: usize, metric: Metric) -> Option<f64> {
        let [known, unknown] = Set::BOTH.map(|set| self.values(set, layer, metric));
        auroc(&known, &unknown)
    }

    /// How well one layer and metric tells the sets apart; `None` where one of them has no value.
    #[must_use]
    pub fn separation(&self, layer: usize, metric: Metric) -> Option<Separation> {
        self.separated(Set::BOTH.map(|set| self.values(set, layer, metric)))
    }

    /// How well the number of prompt tokens alone does.
    #[must_use]
    pub fn separation_by_length(&self) -> Option<Separation> {
        let lengths = |set: Set| {
            let samples = self.of(set).iter();
            samples.map(|s| s.prompt_tokens as f64).collect()
        };
        self.separated(Set::BOTH.map(lengths))
    }

    fn separated(&self, [known, unknown]: [Vec<f64>; 2]) -> Option<Separation> {
        Some(Separation {
            auroc: auroc(&known, &unknown)?,
            interval: auroc_interval(&known, &unknown, DRAWS, LEVEL, self.seed),
            n_known: known.len(),
            n_unknown: unknown.len(),
        })
    }

    /// What the final layer's entropy shows and what it does not, in plain sentences.
    #[must_use]
    pub fn statement(&self) -> String {
        let [known, unknown] = Set::BOTH.map(|set| self.of(set).len());
        let mut out = format!("n = {known} known and {unknown} unknown prompts.");
        let last = self.states.saturating_sub(1);
        let entropy = self.schema.find("entropy");
        let entropy = entropy.and_then(|metric| self.separation(last, metric));
        let (Some(entropy), Some(length)) = (entropy, self.separation_by_length()) else {
            out.push_str(" One of the sets has no reading, so nothing can be said.");
            return out;
        };
        let shown = |s: &Separation| {
            let (low, high) = s.interval.unwrap_or((f64::NAN, f64::NAN));
            format!("AUROC {:.3} (95 % interval {low:.3} to {high:.3})", s.auroc)
        };
        out.push_str(&format!(
            " The entropy of the last layer tells them apart with {}; the number of prompt tokens alone with {}.",
            shown(&entropy),
            shown(&length)
        ));
        let overlap = match (entropy.interval, length.interval) {
            (Some(a), Some(b)) => a.0 <= b.1 && b.0 <= a.1,
            _ => true,
        };
        let chance = entropy
            .interval
            .is_none_or(|(low, high)| low <= 0.5 && 0.5 <= high);
        out.push_str(match (chance, overlap) {
            (true, _) => " Its interval holds 0.5: these samples do not show that it tells them apart at all.",
            (false, true) => {
                " The two intervals overlap: these samples do not show that it tells more than prompt length does."
            }
            (false, false) => " The two intervals do not overlap: prompt length alone does not explain it.",
        });
        out.push_str(
            " This says that the readings of these two sets differ, not why: prompts that differ in length, format or topic \
             differ as well. The best of many layers and metrics looks better than it is; choose one on other prompts.",
        );
        out
    }
}
