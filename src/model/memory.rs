//! How much memory a model will take, known before any of it is taken.

use super::config::{DecoderConfig, LayerKind};
use super::families::Body;
use super::weights::{Precision, TensorSource};
use crate::error::{Error, Result};

/// What a forward pass and the lens hold at once beside weights and memories, in bytes, as measured on models of 124 and
/// 250 million weights. Attention rows of long prompts come on top while a chunk is read.
pub const WORKING: u64 = 32 << 20;

/// The memory that a model will take, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The weights.
    pub weights: u64,
    /// What a branch remembers, for every token read.
    pub per_token: u64,
    /// What a branch remembers, however long its text.
    pub per_branch: u64,
    /// While it computes.
    pub working: u64,
}

impl MemoryPlan {
    /// For a model of this configuration with the weights of `source`, held in `precision`.
    #[must_use]
    pub fn new(c: &DecoderConfig, source: &dyn TensorSource, precision: Precision) -> Self {
        let names = c.family.names();
        let embedding = |prefix: &&&str| {
            let name = format!("{prefix}{}.weight", names.embedding);
            source.shape(&name).is_some()
        };
        let prefix = names.prefixes.iter().find(embedding).copied();
        let heads = names.heads.iter().filter(|_| !c.tied);
        let heads: Vec<String> = heads.map(|name| format!("{name}.")).collect();
        let skipped: Vec<String> = (0..c.blocks())
            .filter(|block| c.layers[*block] == LayerKind::Skipped)
            .map(|block| format!("{}{}.{block}.", prefix.unwrap_or_default(), names.block))
            .collect();
        let weights = source
            .names()
            .iter()
            .filter(|name| {
                let body = prefix.is_some_and(|prefix| name.starts_with(prefix))
                    || heads.iter().any(|head| name.starts_with(head))
                    || name.starts_with("cls.predictions.transform.");
                let ignored = names.ignored.iter().any(|end| name.ends_with(end))
                    || skipped.iter().any(|start| name.starts_with(start));
                body && !ignored && !(c.tied && names.heads.iter().any(|h| name.starts_with(h)))
            })
            .filter_map(|name| {
                let stored = source.bytes_of(name)?;
                match source.shape(name)?.as_slice() {
                    [] | [_] => Some(stored),
                    shape => {
                        let numbers = shape.iter().map(|d| *d as u64).product();
                        Some(precision.bytes(numbers, stored))
                    }
                }
            })
            .sum();
        let kv = [8, c.kv_heads as u64, c.head_dim as u64]
            .into_iter()
            .fold(1, u64::saturating_mul);
        let attending = c.layers.iter().filter(|l| l.attends()).count() as u64;
        let per_branch = c
            .body
            .recurrent_bytes(c.d_model)
            .saturating_mul(c.layers.len() as u64);
        Self {
            weights,
            // Caches double when they are full, so up to twice what is filled; who sees both sides remembers nothing.
            per_token: match c.causal {
                true => kv.saturating_mul(2 * attending),
                false => 0,
            },
            per_branch: if matches!(c.body, Body::Transformer(_)) {
                0
            } else {
                per_branch
            },
            working: WORKING,
        }
    }

    /// Everything for one branch that has read so many tokens.
    #[must_use]
    pub fn total(&self, tokens: usize) -> u64 {
        self.weights
            .saturating_add(self.per_token.saturating_mul(tokens as u64))
            .saturating_add(self.per_branch)
            .saturating_add(self.working)
    }

    /// Refuse a model that will not fit into `available` bytes.
    ///
    /// # Errors
    /// If there is not enough memory for the weights and a short text; the sentence has both numbers.
    pub fn check(&self, available: Option<u64>) -> Result<()> {
        let needed = self.total(1024);
        match available {
            Some(available) if needed > available => Err(Error::failed(
                format!(
                    "the model needs {} of memory ({} of weights), but only {} are free",
                    size(needed),
                    size(self.weights),
                    size(available)
                ),
                "Close other programs, use a smaller or a quantised version of the model (a GGUF file such as Q4_K_M), \
                 or a machine with more memory.",
            )),
            _ => Ok(()),
        }
    }
}

/// Memory that this process may still take, in bytes: what the system has free, within the limit of its control group.
/// `None` where the system does not say.
#[must_use]
pub fn available() -> Option<u64> {
    let system = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| meminfo(&text, "MemAvailable:"));
    let number =
        |path: &str| -> Option<u64> { std::fs::read_to_string(path).ok()?.trim().parse().ok() };
    let group = number("/sys/fs/cgroup/memory.max").and_then(|limit| {
        let used = number("/sys/fs/cgroup/memory.current")?;
        // Cached files give way.
        let stat = std::fs::read_to_string("/sys/fs/cgroup/memory.stat").ok()?;
        let cached = stat
            .lines()
            .find_map(|line| line.strip_prefix("file ")?.trim().parse::<u64>().ok())
            .unwrap_or(0);
        Some(limit.saturating_sub(used.saturating_sub(cached)))
    });
    match (system, group) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// A line of `/proc/meminfo`, in bytes.
fn meminfo(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Bytes in words.
fn size(bytes: u64) -> String {
    let gib = bytes as f64 / (1u64 << 30) as f64;
    if gib >= 1.0 {
        format!("{gib:.1} GiB")
    } else {
        format!("{:.0} MiB", bytes as f64 / (1u64 << 20) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_does_not_fit_is_refused_with_both_numbers() {
        let plan = MemoryPlan {
            weights: 14 << 30,
            per_token: 1 << 20,
            per_branch: 0,
            working: 0,
        };
        assert_eq!(plan.total(1024), 15 << 30);
        let error = plan.check(Some(8 << 30)).unwrap_err().to_string();
        assert!(
            error.contains("15.0 GiB") && error.contains("14.0 GiB"),
            "{error}"
        );
        assert!(error.contains("8.0 GiB"), "{error}");
        plan.check(Some(16 << 30)).unwrap();
        plan.check(None).unwrap();
        assert_eq!(plan.total(usize::MAX), u64::MAX);
    }

    #[test]
    fn the_systems_own_words_are_understood() {
        let text = "MemTotal:  24000000 kB\nMemAvailable:   20000 kB\n";
        assert_eq!(meminfo(text, "MemAvailable:"), Some(20_480_000));
        assert_eq!(meminfo("MemAvailable: many kB", "MemAvailable:"), None);
        assert_eq!(meminfo("", "MemAvailable:"), None);
    }
}
