//! How good a model of the synthetic world is: what it knows, and whether its entropy tells what it does not know.

use super::tokenizer::length;
use super::world::{Probe, Probes};
use crate::error::{Error, Result};
use crate::lens::reference::{entropy, softmax};
use crate::model::Decoder;
use crate::model::decoder::{Row, Taps};
use crate::stats::{auroc, mean, median};
use serde::Serialize;
use std::fmt::Write as _;
use tokenizers::Tokenizer;

/// Most tokens drawn for an answer.
const ANSWER: usize = 12;

/// Measured quality of one model on one world.
#[derive(Clone, Debug, Serialize)]
pub struct Quality {
    /// Stated facts in their held-out phrasing.
    pub known: Set,
    /// Names that occur in no text.
    pub near_ood: Set,
    /// Known names of which this was never stated.
    pub withheld: Set,
    /// Two-hop chains stated in one sentence.
    pub two_hop_trained: Set,
    /// Two-hop chains never stated in one sentence.
    pub two_hop_untrained: Set,
    /// Three-hop chains stated in one sentence.
    pub three_hop_trained: Set,
    /// Three-hop chains never stated in one sentence.
    pub three_hop_untrained: Set,
    /// AUROC of last-layer entropy at the predicting position, known against near-OOD.
    pub auroc_near_ood: Option<f64>,
    /// The same against withheld.
    pub auroc_withheld: Option<f64>,
    /// AUROC of the prompt's length in tokens alone, known against near-OOD.
    pub auroc_length_near_ood: Option<f64>,
    /// The same against withheld.
    pub auroc_length_withheld: Option<f64>,
    /// Greedy continuations of the story openings.
    pub stories: Vec<String>,
}

/// One set of probes.
#[derive(Clone, Debug, Serialize)]
pub struct Set {
    /// Probes in the set.
    pub n: usize,
    /// Share completed with exactly the answer; `None` where there is none to know.
    pub exact: Option<f64>,
    /// Mean last-layer entropy where the answer is predicted, nats.
    pub entropy_mean: Option<f64>,
    /// Median of the same.
    pub entropy_median: Option<f64>,
}

struct Measured {
    entropy: f64,
    exact: Option<bool>,
    tokens: f64,
}

/// Measure a model on the probes of its world. `progress` hears how many of how many are done.
///
/// # Errors
/// If a prompt cannot be tokenized or a tensor operation fails.
pub fn quality(
    decoder: &Decoder,
    tokenizer: &Tokenizer,
    probes: &Probes,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Quality> {
    let total = probes.known.len()
        + probes.near_ood.len()
        + probes.withheld.len()
        + probes.hops.len()
        + probes.stories.len();
    let mut done = 0;
    let mut all = |set: &[Probe]| -> Result<Vec<Measured>> {
        set.iter()
            .map(|probe| {
                done += 1;
                progress(done, total);
                measure(decoder, tokenizer, probe)
            })
            .collect()
    };
    let known = all(&probes.known)?;
    let near = all(&probes.near_ood)?;
    let withheld = all(&probes.withheld)?;
    let hops = |n: u8, trained: bool| -> Vec<Probe> {
        let chosen = |p: &&Probe| p.hops == n && p.trained == trained;
        probes.hops.iter().filter(chosen).cloned().collect()
    };
    let chains = [(2, true), (2, false), (3, true), (3, false)]
        .map(|(n, trained)| all(&hops(n, trained)).map(|m| set(&m)));
    let [two_trained, two_untrained, three_trained, three_untrained] = chains;
    let stories = probes
        .stories
        .iter()
        .map(|p| continuation(decoder, tokenizer, &p.prompt, 48).map(|(text, _)| text))
        .collect::<Result<_>>()?;
    let entropies = |m: &[Measured]| m.iter().map(|m| m.entropy).collect::<Vec<_>>();
    let lengths = |m: &[Measured]| m.iter().map(|m| m.tokens).collect::<Vec<_>>();
    Ok(Quality {
        auroc_near_ood: auroc(&entropies(&known), &entropies(&near)),
        auroc_withheld: auroc(&entropies(&known), &entropies(&withheld)),
        auroc_length_near_ood: auroc(&lengths(&known), &lengths(&near)),
        auroc_length_withheld: auroc(&lengths(&known), &lengths(&withheld)),
        known: set(&known),
        near_ood: set(&near),
        withheld: set(&withheld),
        two_hop_trained: two_trained?,
        two_hop_untrained: two_untrained?,
        three_hop_trained: three_trained?,
        three_hop_untrained: three_untrained?,
        stories,
    })
}

fn set(measured: &[Measured]) -> Set {
    let entropies: Vec<f64> = measured.iter().map(|m| m.entropy).collect();
    let right: Vec<f64> = measured
        .iter()
        .filter_map(|m| m.exact)
        .map(|exact| f64::from(u8::from(exact)))
        .collect();
    Set {
        n: measured.len(),
        exact: mean(&right),
        entropy_mean: mean(&entropies),
        entropy_median: median(&entropies),
    }
}

fn measure(decoder: &Decoder, tokenizer: &Tokenizer, probe: &Probe) -> Result<Measured> {
    let (text, entropy) = continuation(decoder, tokenizer, &probe.prompt, ANSWER)?;
    Ok(Measured {
        entropy,
        exact: (!probe.answer.is_empty()).then(|| text.starts_with(&format!("{}.", probe.answer))),
        tokens: length(tokenizer, &probe.prompt) as f64,
    })
}

/// The greedy continuation of a prompt and the entropy (nats) of its first token's distribution.
fn continuation(
    decoder: &Decoder,
    tokenizer: &Tokenizer,
    prompt: &str,
    most: usize,
) -> Result<(String, f64)> {
    let broken = |e: tokenizers::Error| {
        Error::failed(
            format!("the tokenizer failed on a probe: {e}"),
            "Train the tokenizer again.",
        )
    };
    let encoding = tokenizer.encode(prompt, true).map_err(broken)?;
    let mut unread = encoding.get_ids().to_vec();
    let mut state = decoder.state();
    let mut drawn = Vec::new();
    let mut first = f64::NAN;
    while drawn.len() < most && state.len() + unread.len() < decoder.config().context {
        let mut rows = [Row::new(&unread, Some(&mut state))];
        let traced = decoder.forward(&mut rows, Taps::default())?;
        let last = traced.last.narrow(0, unread.len() - 1, 1)?;
        let logits: Vec<f32> = decoder
            .head(&decoder.final_norm(&last)?)?
            .flatten_all()?
            .to_vec1()?;
        if drawn.is_empty() {
            let logits: Vec<f64> = logits.iter().map(|z| f64::from(*z)).collect();
            first = entropy(&softmax(&logits, 1.0));
        }
        let best = logits
            .iter()
            .enumerate()
            .rev()
            .max_by(|a, b| a.1.total_cmp(b.1))
            .map_or(0, |(id, _)| id as u32);
        if best == super::tokenizer::MARK_ID {
            break;
        }
        drawn.push(best);
        unread = vec![best];
    }
    let text = tokenizer.decode(&drawn, false).map_err(broken)?;
    Ok((text, first))
}

impl Quality {
    /// The figures as a Markdown table, for the model card.
    #[must_use]
    pub fn table(&self) -> String {
        let number = |v: Option<f64>| v.map_or_else(|| "n/a".to_owned(), |v| format!("{v:.3}"));
        let mut out = String::from(
            "| set | n | exact answer | entropy, mean (median), nats |\n|---|---|---|---|\n",
        );
        for (name, set) in [
            ("known (held-out phrasing)", &self.known),
            ("near-OOD", &self.near_ood),
            ("withheld", &self.withheld),
            ("2 hops, trained", &self.two_hop_trained),
            ("2 hops, untrained", &self.two_hop_untrained),
            ("3 hops, trained", &self.three_hop_trained),
            ("3 hops, untrained", &self.three_hop_untrained),
        ] {
            // Writing into a String cannot fail.
            let _ = writeln!(
                out,
                "| {name} | {} | {} | {} ({}) |",
                set.n,
                number(set.exact),
                number(set.entropy_mean),
                number(set.entropy_median)
            );
        }
        let _ = writeln!(
            out,
            "\n| AUROC, known against | last-layer entropy | prompt length alone |\n|---|---|---|"
        );
        for (name, by_entropy, by_length) in [
            ("near-OOD", self.auroc_near_ood, self.auroc_length_near_ood),
            ("withheld", self.auroc_withheld, self.auroc_length_withheld),
        ] {
            let _ = writeln!(
                out,
                "| {name} | {} | {} |",
                number(by_entropy),
                number(by_length)
            );
        }
        out
    }
}
