//! How fast a model runs here, plain and with the lens, and how far that is from what the machine can do.

use super::{Generation, Job, Prompt};
use crate::error::{Error, Result};
use crate::lens::Lens;
use crate::model::crew;
use crate::model::decoder::{Row, Taps};
use crate::model::{Model, peak};
use serde::Serialize;
use std::time::{Duration, Instant};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Read before decoding is timed.
    pub prompt: Vec<u32>,
    /// Tokens timed.
    pub new_tokens: usize,
    /// Tokens of the prompt whose reading is timed.
    pub prefill: Vec<u32>,
}

impl Plan {
    /// So many tokens of nothing in particular, spread over the vocabulary of `model` and the same every time.
    #[must_use]
    pub fn tokens(model: &Model, count: usize) -> Vec<u32> {
        let vocab = model.card().vocab.max(1) as u64;
        (0..count as u64)
            .map(|i| (i.wrapping_mul(2_654_435_761) % vocab) as u32)
            .collect()
    }
}

/// What was measured. Times are medians over steps.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The model's name.
    pub model: String,
    /// What its weights are held as.
    pub dtype: String,
    /// Where it ran.
    pub device: String,
    /// Tokens read before decoding.
    pub prompt_tokens: usize,
    /// Tokens decoded.
    pub new_tokens: usize,
    /// Tokens of the prefill cases.
    pub prefill_tokens: usize,
    /// Plain decoding, tokens a second.
    pub decode_tok_s: f64,
    /// Decoding with every layer's cell, tokens a second.
    pub lens_decode_tok_s: f64,
    /// Reading the prompt, seconds.
    pub prefill_s: f64,
    /// Reading the prompt with every layer's cell of every token, seconds.
    pub lens_prefill_s: f64,
    /// Peak memory of that over reading alone, bytes; none where the system does not tell.
    pub lens_prefill_extra_bytes: Option<u64>,
    /// Time of a step of two branches over that of one.
    pub two_branch_ratio: f64,
    /// The same with the lens.
    pub two_branch_lens_ratio: f64,
    /// Bytes of weights that a plain step reads.
    pub step_bytes: u64,
    /// Multiplications and additions of a plain step.
    pub step_flop: u64,
    /// What the lens adds to them.
    pub lens_flop: u64,
    /// What main memory gives, GB/s.
    pub bandwidth_gb_s: f64,
    /// What the cores do, GFLOP/s.
    pub peak_gflop_s: f64,
}

/// Measure. `progress` hears what is being timed and may end it by returning false.
///
/// # Errors
/// If the model does not generate, the texts do not fit it, or it was ended ([`Error::Interrupted`]).
pub fn measure(
    model: &Model,
    plan: &Plan,
    progress: &mut dyn FnMut(&str) -> bool,
) -> Result<Report> {
    let (card, decoder) = (model.card(), model.decoder());
    if !card.causal {
        return Err(Error::Usage(format!(
            "{} does not generate, so there is no decoding to time",
            card.name
        )));
    }
    let longest = (plan.prompt.len() + plan.new_tokens + 1).max(plan.prefill.len());
    if plan.prompt.is_empty() || plan.prefill.is_empty() || plan.new_tokens == 0 {
        return Err(Error::Usage(
            "there must be at least one token to read and one to time".into(),
        ));
    }
    if longest > card.context {
        return Err(Error::Usage(format!(
            "{longest} tokens are more than the {} that {} reads",
            card.context, card.name
        )));
    }
    let mut say = |what: &str| match progress(what) {
        true => Ok(()),
        false => Err(Error::Interrupted),
    };
    say("memory and arithmetic")?;
    let (bandwidth_gb_s, peak_gflop_s) = (peak::bandwidth(), peak::arithmetic());
    say("plain decoding")?;
    let one = median(steps(model, plan, 1, false)?);
    say("decoding with the lens")?;
    let one_lens = median(steps(model, plan, 1, true)?);
    say("two branches")?;
    let two = median(steps(model, plan, 2, false)?);
    say("two branches with the lens")?;
    let two_lens = median(steps(model, plan, 2, true)?);
    say("reading a prompt")?;
    let (prefill_s, plain_peak) = best_of(3, || prefill(model, plan))?;
    say("reading a prompt with the lens")?;
    let (lens_prefill_s, lens_peak) = best_of(3, || lens_prefill(model, plan))?;
    let c = decoder.config();
    let head = (c.d_model * c.vocab) as u64;
    // Of an embedding that is not the head too, a step reads one row.
    let (parameters, bytes) = decoder.size();
    let (read, bytes_read) = match c.tied {
        true => (parameters, bytes),
        false => {
            let table = (c.embedded * c.embedding_width.unwrap_or(c.d_model)) as u64;
            (parameters - table, bytes - decoder.embedding_bytes())
        }
    };
    Ok(Report {
        model: card.name.clone(),
        dtype: card.dtype.clone(),
        device: card.device.clone(),
        prompt_tokens: plan.prompt.len(),
        new_tokens: plan.new_tokens,
        prefill_tokens: plan.prefill.len(),
        decode_tok_s: 1.0 / one,
        lens_decode_tok_s: 1.0 / one_lens,
        prefill_s,
        lens_prefill_s,
        lens_prefill_extra_bytes: plain_peak.zip(lens_peak).map(|(a, b)| b.saturating_sub(a)),
        two_branch_ratio: two / one,
        two_branch_lens_ratio: two_lens / one_lens,
        step_bytes: bytes_read,
        step_flop: 2 * read,
        lens_flop: 2 * head * c.blocks() as u64,
        bandwidth_gb_s,
        peak_gflop_s,
    })
}

/// The middle one of some times, in seconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times
        .get(times.len() / 2)
        .map_or(f64::NAN, Duration::as_secs_f64)
}

/// The time of each step of `plan` that reads one token of each of `branches` and finds the next, greedily; with every
/// layer's cell, or without.
///
/// # Errors
/// If a tensor operation fails.
pub fn steps(
    model: &Model,
    plan: &Plan,
    branches: usize,
    with_lens: bool,
) -> Result<Vec<Duration>> {
    let decoder = model.decoder();
    let lens = Lens::new(Job::new(Prompt::Ids(vec![0]), 0).lens);
    let taps = Taps {
        states: with_lens,
        attention: false,
    };
    let mut states: Vec<_> = (0..branches).map(|_| decoder.state()).collect();
    for state in &mut states {
        decoder.forward(&mut [Row::new(&plan.prompt, Some(state))], Taps::default())?;
    }
    let vocab = model.card().vocab as u32;
    let mut last: Vec<u32> = (0..branches as u32).map(|i| (5 + 4 * i) % vocab).collect();
    let mut times = Vec::with_capacity(plan.new_tokens);
    for _ in 0..plan.new_tokens {
        let began = Instant::now();
        let next = crew::with(|| -> Result<Vec<u32>> {
            let mut rows: Vec<Row<'_>> = states
                .iter_mut()
                .zip(&last)
                .map(|(state, token)| Row::new(std::slice::from_ref(token), Some(state)))
                .collect();
            let traced = decoder.forward(&mut rows, taps)?;
            drop(rows);
            let next: Vec<u32> = if with_lens {
                let opened = lens.open(decoder, &traced, 0..branches)?;
                let next: Vec<u32> = (0..branches)
                    .map(|b| best(opened.final_logits(b)))
                    .collect();
                let targets: Vec<Option<u32>> = next.iter().copied().map(Some).collect();
                std::hint::black_box(lens.read(&opened, &targets)?);
                lens.close(opened);
                next
            } else {
                let logits: Vec<Vec<f32>> = decoder
                    .head(&decoder.final_norm(&traced.last)?)?
                    .to_vec2()?;
                logits.iter().map(|z| best(z)).collect()
            };
            Ok(next)
        })?;
        times.push(began.elapsed());
        last = next;
    }
    Ok(times)
}

fn best(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, z) in (0..).zip(logits) {
        if *z > best.1 {
            best = (id, *z);
        }
    }
    best.0
}

/// Seconds and peak memory of the quickest of several runs.
fn best_of(runs: usize, mut run: impl FnMut() -> Result<()>) -> Result<(f64, Option<u64>)> {
    let (mut seconds, mut highest) = (f64::INFINITY, None);
    for _ in 0..runs {
        reset_peak();
        let began = Instant::now();
        run()?;
        seconds = seconds.min(began.elapsed().as_secs_f64());
        highest = highest.max(peak_memory());
    }
    Ok((seconds, highest))
}

/// Read the tokens of `plan` that are to be read, and find the next.
///
/// # Errors
/// If a tensor operation fails.
pub fn prefill(model: &Model, plan: &Plan) -> Result<()> {
    let decoder = model.decoder();
    let mut state = decoder.state();
    let mut rows = [Row::new(&plan.prefill, Some(&mut state))];
    let traced = decoder.forward(&mut rows, Taps::default())?;
    let last = traced.last.narrow(0, plan.prefill.len() - 1, 1)?;
    // Reading the logits waits for the device.
    let logits = decoder.head(&decoder.final_norm(&last)?)?.flatten_all()?;
    std::hint::black_box(logits.to_vec1::<f32>()?);
    Ok(())
}

/// The same with every layer's cell of every token.
///
/// # Errors
/// If a tensor operation fails.
pub fn lens_prefill(model: &Model, plan: &Plan) -> Result<()> {
    let job = Job::new(Prompt::Ids(plan.prefill.clone()), 0);
    let mut sink = |event| drop(std::hint::black_box(event));
    let mut run = Generation::start(model, job, &mut sink)?;
    while run.advance(model, &mut sink)?.is_none() {}
    Ok(())
}

/// Forget the highest memory use so far, where the system allows.
fn reset_peak() {
    // Where it does not, the difference of two peaks is 0 at worst, and `peak_memory` tells the truth about the process.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The highest resident memory since the last reset, in bytes.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
