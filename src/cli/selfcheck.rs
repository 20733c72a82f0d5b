//! What must hold for every model, tried on a short run: the lens row of the last layer is what the sampler draws from,
//! reading with a cache equals reading anew, attention rows sum to one.

use super::doctor::Check;
use crate::error::Result;
use crate::lens::check::SUM_TOLERANCE;
use crate::lens::{Lens, LensSettings, reference};
use crate::model::decoder::{Row, Taps};
use crate::model::{Model, ModelCard};
use crate::session::{self, Job, Prompt, Recorder};
use crate::trace::{Grid, Record};
use std::ops::ControlFlow;
use std::sync::Arc;

/// What is read; any text would do.
const PROMPT: &str = "One day, a girl named Lily went to the park.";

/// Tokens drawn after it.
const DRAWN: usize = 8;

/// Largest difference of entropies in nats on a device that sums few rows in another order than many. Where the order of
/// every sum is fixed there is none.
const CACHE_TOLERANCE: f32 = 1e-3;

/// Positions at which the lens is compared with its definition.
const COMPARED: usize = 4;

/// Largest difference that float32 explains, in the units that [`lens_is_exact`] scales by.
const LENS_TOLERANCE: f64 = 1e-4;

/// Run the checks; what fails to run is broken too.
pub fn run(model: &Model) -> Vec<Check> {
    match tried(model) {
        Ok(checks) => checks,
        Err(error) => vec![Check::broken(
            "self-check",
            crate::text::one_line(&error.to_string()),
            BUG,
        )],
    }
}

const BUG: &str =
    "The numbers of this model cannot be trusted; please report it with the model's name.";

fn tried(model: &Model) -> Result<Vec<Check>> {
    let drawn = if model.card().causal { DRAWN } else { 0 };
    let first = record(model, Prompt::Text(PROMPT.into()), drawn)?;
    let Some((_, grid)) = first.branches.first() else {
        return Ok(Vec::new());
    };
    let mut checks = Vec::new();
    checks.extend(attention_sums(model.card(), grid));
    checks.push(lens_is_exact(model, grid)?);
    if model.card().causal {
        checks.push(lens_is_the_head(&first, grid));
        let ids = grid.tokens().iter().map(|token| token.id).collect();
        let again = record(model, Prompt::Ids(ids), 0)?;
        if let Some((_, anew)) = again.branches.first() {
            checks.push(cached_is_recomputed(model, &first, grid, anew));
        }
    }
    Ok(checks)
}

fn record(model: &Model, prompt: Prompt, drawn: usize) -> Result<Record> {
    let job = Job {
        ignore_eos: true,
        attention: true,
        attention_rows: true,
        ..Job::new(prompt, drawn)
    };
    let mut recorder = Recorder::new(Arc::clone(model.card()), &job);
    session::run(model, &job, &mut |event| {
        recorder.apply(&event);
        ControlFlow::Continue(())
    })?;
    Ok(recorder.into_record())
}

/// A greedy token is the best candidate of the last layer, and its surprisal is that candidate's.
fn lens_is_the_head(record: &Record, grid: &Grid) -> Check {
    const NAME: &str = "last lens row is the model's own output";
    let last = grid.states().saturating_sub(1);
    let surprisal = record.schema.find("surprisal");
    let mut compared = 0;
    for position in grid.predicting_positions() {
        let token = &grid.tokens()[position + 1];
        let Some(best) = grid.top(last, position).first() else {
            return Check::broken(
                NAME,
                format!("nothing was read at position {position}"),
                BUG,
            );
        };
        let told = surprisal.and_then(|metric| grid.value(last, position, metric));
        let agrees = told.is_some_and(|told| (told + best.prob.ln()).abs() < 1e-3);
        if best.id != token.id || !agrees {
            return Check::broken(NAME, format!("they differ at position {position}"), BUG);
        }
        compared += 1;
    }
    Check::ok(NAME, format!("at {compared} positions"))
}

/// Every layer's distribution columns against their float64 definitions, at the last few positions that were read.
fn lens_is_exact(model: &Model, grid: &Grid) -> Result<Check> {
    const NAME: &str = "lens equals its float64 definition";
    let decoder = model.decoder();
    let tokens: Vec<u32> = grid.tokens().iter().map(|token| token.id).collect();
    let taps = Taps {
        states: true,
        attention: false,
    };
    let traced = decoder.forward(&mut [Row::new(&tokens, None)], taps)?;
    let lens = Lens::new(LensSettings::default());
    let from = tokens.len().saturating_sub(COMPARED);
    let opened = lens.open(decoder, &traced, from..tokens.len())?;
    let cells = lens.read(&opened, &vec![None; tokens.len() - from])?;
    let columns = lens.schema().len();
    let mut logits = Vec::with_capacity(traced.states.len());
    for state in &traced.states {
        let rows = state.narrow(0, from, tokens.len() - from)?;
        let z: Vec<Vec<f32>> = decoder.head(&decoder.final_norm(&rows)?)?.to_vec2()?;
        let wide = |z: &Vec<f32>| z.iter().map(|z| f64::from(*z)).collect::<Vec<f64>>();
        logits.push(z.iter().map(wide).collect::<Vec<_>>());
    }
    let mut worst = (0.0f64, String::new());
    for (token, cells) in cells.iter().enumerate() {
        let Some(last) = logits.last().map(|layer| &layer[token]) else {
            break;
        };
        for (layer, z) in logits.iter().enumerate() {
            for (name, value) in reference::distribution(&z[token], last, None, lens.settings()) {
                let Some(metric) = lens.schema().find(&name) else {
                    continue;
                };
                let found = f64::from(cells.values[layer * columns + metric.0]);
                let scale = match name.as_str() {
                    // These grow with what they measure.
                    "perplexity" => 2.0 * value.abs().max(1.0),
                    "varentropy" => 10.0,
                    "logit_margin" => 4.0,
                    _ => 1.0,
                };
                let off = match (found - value).abs() / scale {
                    // No number where there should be one is as wrong as can be.
                    off if off.is_nan() => f64::INFINITY,
                    off => off,
                };
                if value.is_finite() && off >= worst.0 {
                    worst = (off, format!("{name} of layer {layer}"));
                }
            }
        }
    }
    let found = format!(
        "{} cells, largest error {:.1e} ({})",
        cells.len() * logits.len(),
        worst.0,
        worst.1
    );
    Ok(if worst.0 <= LENS_TOLERANCE {
        Check::ok(NAME, found)
    } else {
        Check::broken(NAME, found, BUG)
    })
}

fn cached_is_recomputed(model: &Model, record: &Record, grid: &Grid, anew: &Grid) -> Check {
    const NAME: &str = "reading token by token equals reading at once";
    let Some(metric) = record.schema.find("entropy") else {
        return Check::ok(NAME, "not compared");
    };
    let (mut worst, mut compared) = (0f32, 0);
    for position in 0..grid.len() {
        for layer in 0..grid.states() {
            let read = |grid: &Grid| grid.value(layer, position, metric);
            match (read(grid), read(anew)) {
                (Some(a), Some(b)) => {
                    worst = worst.max((a - b).abs());
                    compared += 1;
                }
                // The last token drawn was not read.
                (None, _) if position + 1 == grid.len() => {}
                _ => worst = f32::INFINITY,
            }
        }
    }
    let found = format!("largest difference of {compared} entropies {worst:.1e} nats");
    let tolerance = match model.decoder().placement().is_exact() {
        true => 0.0,
        false => CACHE_TOLERANCE,
    };
    if compared > 0 && worst <= tolerance {
        Check::ok(NAME, found)
    } else {
        Check::broken(NAME, found, BUG)
    }
}

/// `None` for a model without attention.
fn attention_sums(card: &ModelCard, grid: &Grid) -> Option<Check> {
    const NAME: &str = "attention rows sum to one";
    let (mut worst, mut rows) = (0f32, 0);
    for position in 0..grid.len() {
        let attention = grid.cells(position).and_then(|c| c.attention.as_ref());
        let Some(all) = attention.and_then(|a| a.rows.as_ref()) else {
            continue;
        };
        let heads = attention.map_or(1, |a| a.heads.max(1));
        let keys = all.len() / (card.layers.len() * heads).max(1);
        for (row, p) in all.chunks_exact(keys.max(1)).enumerate() {
            // Blocks without attention hold no numbers; others must.
            if card.layers.get(row / heads).is_some_and(|l| l.attends()) {
                let off = (p.iter().sum::<f32>() - 1.0).abs();
                worst = worst.max(if off.is_nan() { f32::INFINITY } else { off });
                rows += 1;
            }
        }
    }
    let found = format!("{rows} rows, largest error {worst:.1e}");
    match rows {
        0 => None,
        _ if worst <= SUM_TOLERANCE => Some(Check::ok(NAME, found)),
        _ => Some(Check::broken(NAME, found, BUG)),
    }
}
