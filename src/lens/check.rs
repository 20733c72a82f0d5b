//! What must hold for any model, cheap enough to be tried whenever one is loaded.

use super::{Lens, LensSettings};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::decoder::{Row, Taps, Traced};
use crate::model::ops::with_slice;

/// Largest difference of an attention row's sum from one.
pub const SUM_TOLERANCE: f32 = 1e-4;

/// Largest difference of logits, relative to their size, where a device sums few rows in another order than many.
const ORDER_TOLERANCE: f32 = 1e-3;

/// Tokens that are read.
const READ: usize = 4;

/// Read a few tokens and look at the numbers: states and logits are finite, attention rows sum to one, the last lens row
/// is what the head says.
///
/// # Errors
/// If one of these does not hold; the sentence says which and where.
pub fn quick(model: &Model) -> Result<()> {
    let decoder = model.decoder();
    let vocab = decoder.config().vocab as u32;
    // The beginning of a vocabulary is where special tokens are; its middle has words.
    let tokens: Vec<u32> = (0..READ as u32).map(|i| (vocab / 2 + i) % vocab).collect();
    let taps = Taps {
        states: true,
        attention: true,
    };
    let traced = decoder.forward(&mut [Row::new(&tokens, None)], taps)?;
    finite(model, &traced)?;
    sums(model, &traced)?;
    let lens = Lens::new(LensSettings::default());
    let opened = lens.open(decoder, &traced, 0..tokens.len())?;
    let plain = decoder.head(&decoder.final_norm(&traced.last)?)?;
    let plain: Vec<Vec<f32>> = plain.to_vec2()?;
    for (token, plain) in plain.iter().enumerate() {
        if plain.iter().any(|z| z.is_nan()) {
            return Err(broken(model, "its logits are no numbers"));
        }
        let found = opened.final_logits(token);
        let same = match decoder.placement().is_exact() {
            true => found == plain.as_slice(),
            false => found.iter().zip(plain).all(|(a, b)| {
                // Not a number is not near anything; infinities are themselves.
                a == b || (a - b).abs() <= ORDER_TOLERANCE * b.abs().max(1.0)
            }),
        };
        if !same {
            return Err(broken(
                model,
                "the last lens row differs from the model's own logits",
            ));
        }
    }
    Ok(())
}

fn finite(model: &Model, traced: &Traced) -> Result<()> {
    for (layer, h) in traced.states.iter().enumerate() {
        if !with_slice(h, |h| h.iter().all(|v| v.is_finite()))? {
            let what = match layer {
                0 => "its embedding gives numbers that are not finite".to_owned(),
                _ => format!("layer {layer} gives numbers that are not finite"),
            };
            return Err(broken(model, &what));
        }
    }
    Ok(())
}

fn sums(model: &Model, traced: &Traced) -> Result<()> {
    for (block, attention) in traced.attention.iter().enumerate() {
        for rows in attention.iter().flat_map(|a| &a.rows) {
            let keys = rows.dim(2)?;
            let worst = with_slice(rows, |p| {
                p.chunks_exact(keys)
                    .map(|row| (row.iter().sum::<f32>() - 1.0).abs())
                    // Not a number is not within any tolerance.
                    .map(|off| if off.is_nan() { f32::INFINITY } else { off })
                    .fold(0.0f32, f32::max)
            })?;
            if worst > SUM_TOLERANCE {
                return Err(broken(
                    model,
                    &format!("attention rows of layer {} do not sum to one", block + 1),
                ));
            }
        }
    }
    Ok(())
}

fn broken(model: &Model, what: &str) -> Error {
    Error::failed(
        format!("{} does not compute: {what}", model.card().name),
        "Its weights are damaged or do not belong to its config.json: fetch the model again.",
    )
}
