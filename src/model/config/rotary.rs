//! Rotary position embedding: the angle that each pair of dimensions turns by per position.

use super::Fields;
use crate::error::Result;
use serde_json::Value;

/// Inverse frequencies of the rotated pairs. Half-split order: pair i is dimensions i and i + pairs of a head.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// `[pairs]` radians a position.
    pub frequencies: Vec<f64>,
    /// What takes the frequencies' place in long texts (Phi-3's longrope).
    pub long: Option<Long>,
    /// Factor on cosines and sines.
    pub magnitude: f64,
}

/// Frequencies for texts longer than the context the model was first trained with.
#[derive(Clone, Debug, PartialEq)]
pub struct Long {
    /// `[pairs]` radians a position.
    pub frequencies: Vec<f64>,
    /// The longest text that does without them, in tokens.
    pub original: usize,
}

impl Rotary {
    /// Every dimension rotated, nothing stretched.
    pub(crate) fn plain(head_dim: usize, theta: f64) -> Self {
        Self {
            frequencies: (0..head_dim / 2)
                .map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64))
                .collect(),
            long: None,
            magnitude: 1.0,
        }
    }

    /// Read from a configuration. Older files say `rope_theta` and `rope_scaling` (with `type` or `rope_type`), newer
    /// ones `rope_parameters`. `theta` and the `share` of rotated dimensions are what the family means where nothing is
    /// said.
    pub(crate) fn read(f: &Fields<'_>, head_dim: usize, theta: f64, share: f64) -> Result<Self> {
        let scaling = match f.object("rope_parameters")? {
            Some(scaling) => Some(scaling),
            None => f.object("rope_scaling")?,
        };
        Self::with(f, scaling, head_dim, theta, share)
    }

    /// Read with the scaling at hand.
    pub(crate) fn with(
        f: &Fields<'_>,
        scaling: Option<Fields<'_>>,
        head_dim: usize,
        theta: f64,
        otherwise: f64,
    ) -> Result<Self> {
        let s = scaling.unwrap_or(Fields(&Value::Null));
        let theta = match s.positive("rope_theta")? {
            Some(theta) => theta,
            None => match f.positive("rope_theta")? {
                Some(theta) => theta,
                None => f.positive("rotary_emb_base")?.unwrap_or(theta),
            },
        };
        let share = match s.positive("partial_rotary_factor")? {
            Some(share) => Some(share),
            None => match f.positive("partial_rotary_factor")? {
                Some(share) => Some(share),
                None => f.positive("rotary_pct")?,
            },
        };
        let share = share.unwrap_or(otherwise);
        if share > 1.0 {
            return Err(f.bad("partial_rotary_factor", "is more than 1"));
        }
        let rotated = (head_dim as f64 * share) as usize;
        if rotated == 0 || !rotated.is_multiple_of(2) {
            return Err(f.bad(
                "head_dim",
                &format!(
                    "rotates {rotated} of {head_dim} dimensions, and rotary positions need pairs"
                ),
            ));
        }
        let mut rotary = Self::plain(rotated, theta);
        rotary.scale(f, &s)?;
        Ok(rotary)
    }

    fn scale(&mut self, f: &Fields<'_>, s: &Fields<'_>) -> Result<()> {
        let pairs = self.frequencies.len();
        let need = |name: &str| {
            s.positive(name)?
                .ok_or_else(|| s.bad(name, "is missing or not a positive number"))
        };
        let divide = |frequencies: &[f64], by: &[f64]| -> Vec<f64> {
            frequencies.iter().zip(by).map(|(v, f)| v / f).collect()
        };
        let kind = match s.text("rope_type")? {
            Some(kind) => Some(kind),
            None => s.text("type")?,
        };
        match kind {
            None | Some("default") => {}
            Some("linear") => {
                let factor = need("factor")?;
                self.frequencies.iter_mut().for_each(|v| *v /= factor);
            }
            Some("llama3") => {
                let factor = need("factor")?;
                let (low, high) = (need("low_freq_factor")?, need("high_freq_factor")?);
                let original = need("original_max_position_embeddings")?;
                for v in &mut self.frequencies {
                    // How often the pair turns within the original context decides: slow pairs are stretched, fast
                    // ones stay, those between are blended.
                    let turns = original * *v / std::f64::consts::TAU;
                    if turns < low {
                        *v /= factor;
                    } else if turns < high {
                        let blend = (turns - low) / (high - low);
                        *v = (1.0 - blend) * *v / factor + blend * *v;
                    }
                }
            }
            Some("longrope" | "su") => {
                // Where the model itself names its first context, its two contexts say how far it was stretched.
                let (original, stretch) =
                    match f.optional_size("original_max_position_embeddings")? {
                        Some(n) => (n, None),
                        None => (
                            s.size("original_max_position_embeddings")?,
                            s.positive("factor")?,
                        ),
                    };
                let stretch = match stretch {
                    Some(factor) => factor,
                    None => f.size("max_position_embeddings")? as f64 / original as f64,
                };
                self.magnitude = match s.positive("attention_factor")? {
                    Some(magnitude) => magnitude,
                    None if stretch <= 1.0 || original == 1 => 1.0,
                    None => (1.0 + stretch.ln() / (original as f64).ln()).sqrt(),
                };
                self.long = Some(Long {
                    frequencies: divide(&self.frequencies, &s.positives("long_factor", pairs)?),
                    original,
                });
                self.frequencies = divide(&self.frequencies, &s.positives("short_factor", pairs)?);
            }
            // One divisor for each pair, as GGUF files state them.
            Some("factors") => {
                self.frequencies = divide(&self.frequencies, &s.positives("factors", pairs)?);
            }
            Some(other) => {
                return Err(s.bad(
                    "rope_type",
                    &format!("\"{}\" is not supported", crate::text::scrub(other)),
                ));
            }
        }
        Ok(())
    }

    /// The frequencies in force in a text of `tokens`.
    #[must_use]
    pub fn frequencies_for(&self, long: bool) -> &[f64] {
        match &self.long {
            Some(rotary) if long => &rotary.frequencies,
            _ => &self.frequencies,
        }
    }
}
