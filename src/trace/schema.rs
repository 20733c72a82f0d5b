//! Which metrics a grid holds, in which order, with their names and units.

use crate::lens::LensSettings;

/// Index of a metric within a [`Schema`] (and within the values of a cell).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Metric(pub usize);

/// What a number is measured in. Everything is stored in these units; bits are a display choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Natural-logarithm information.
    Nats,
    /// Squared nats (varentropy).
    NatsSquared,
    /// Difference of logits.
    Logits,
    /// Probability or share, 0 to 1.
    Share,
    /// A whole number (rank, count).
    Count,
    /// No unit.
    None,
}

impl Unit {
    /// The unit as it is written on the screen and in the manifest.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::NatsSquared => "nats²",
            Self::Logits => "logits",
            Self::Share => "share",
            Self::Count => "count",
            Self::None => "",
        }
    }
}

/// What a metric reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The lens distribution over the vocabulary.
    Distribution,
    /// The residual state vector.
    Sparsity,
}

/// Name, unit and kind of one metric column.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricSpec {
    /// Column name in files and flags, such as `entropy` or `renyi_0.5`.
    pub name: String,
    /// Name on the screen, such as `Entropy` or `Rényi 0.5`.
    pub label: String,
    /// The unit of the stored number.
    pub unit: Unit,
    /// What it reads.
    pub group: Group,
}

/// The ordered metric columns of a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    metrics: Vec<MetricSpec>,
    top: usize,
}

impl Schema {
    /// The columns that `settings` ask for, in the order of the files.
    #[must_use]
    pub fn new(settings: &LensSettings) -> Self {
        use Group::{Distribution, Sparsity};
        let mut metrics = Vec::new();
        let mut push = |name: &str, label: &str, unit, group| {
            metrics.push(MetricSpec {
                name: name.to_owned(),
                label: label.to_owned(),
                unit,
                group,
            });
        };
        push("entropy", "Entropy", Unit::Nats, Distribution);
        push("varentropy", "Varentropy", Unit::NatsSquared, Distribution);
        push("prob_margin", "Margin", Unit::Share, Distribution);
        push("logit_margin", "Logit margin", Unit::Logits, Distribution);
        push("max_prob", "Top probability", Unit::Share, Distribution);
        push("perplexity", "Perplexity", Unit::None, Distribution);
        push("kl_uniform", "KL from uniform", Unit::Nats, Distribution);
        push("kl_final", "KL(final‖layer)", Unit::Nats, Distribution);
        push("kl_from_final", "KL(layer‖final)", Unit::Nats, Distribution);
        push("surprisal", "Surprisal", Unit::Nats, Distribution);
        push("next_rank", "Rank of next", Unit::Count, Distribution);
        for order in &settings.renyi {
            push(
                &format!("renyi_{order}"),
                &format!("Rényi {order}"),
                Unit::Nats,
                Distribution,
            );
        }
        push("l1", "L1 norm", Unit::None, Sparsity);
        push("l2", "L2 norm", Unit::None, Sparsity);
        push("l0", "L0 count", Unit::Count, Sparsity);
        push("l0_outlier", "Outlier share", Unit::Share, Sparsity);
        for share in &settings.topk_shares {
            let percent = percent(*share);
            push(
                &format!("topk_energy_{percent}"),
                &format!("Top {percent} % energy"),
                Unit::Share,
                Sparsity,
            );
        }
        for share in &settings.topk_shares {
            let percent = percent(*share);
            push(
                &format!("topk_mass_{percent}"),
                &format!("Top {percent} % mass"),
                Unit::Share,
                Sparsity,
            );
        }
        push("effective_rank_sq", "Effective rank", Unit::Share, Sparsity);
        push(
            "effective_rank_abs",
            "Effective rank |h|",
            Unit::Share,
            Sparsity,
        );
        push("hoyer", "Hoyer", Unit::Share, Sparsity);
        push("gini", "Gini", Unit::Share, Sparsity);
        push("kurtosis", "Kurtosis", Unit::None, Sparsity);
        push(
            "participation_ratio",
            "Participation",
            Unit::Share,
            Sparsity,
        );
        Self {
            metrics,
            top: settings.top,
        }
    }

    /// All metrics in file order.
    #[must_use]
    pub fn metrics(&self) -> &[MetricSpec] {
        &self.metrics
    }

    /// How many metrics a cell holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.metrics.len()
    }

    /// Whether there is no metric at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.metrics.is_empty()
    }

    /// How many candidates (`top1` … `topK`) a cell holds.
    #[must_use]
    pub fn top(&self) -> usize {
        self.top
    }

    /// The description of one metric. Panics only on an index of another schema.
    #[must_use]
    pub fn spec(&self, metric: Metric) -> &MetricSpec {
        &self.metrics[metric.0]
    }

    /// Find a metric by its column name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Metric> {
        self.metrics.iter().position(|m| m.name == name).map(Metric)
    }
}

/// A share as its percentage without trailing zeros: 0.1 → `10`, 0.025 → `2.5`.
fn percent(share: f64) -> String {
    let hundredths = (share * 10_000.0).round() / 100.0;
    format!("{hundredths}")
}
