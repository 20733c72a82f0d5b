//! What a strength makes of a direction, a range of strengths, and a plan that is a number of times as strong.

use super::plan::{Effect, Part, Plan, Push};
use crate::error::{Error, Result};
use crate::text::one_line;
use std::str::FromStr;
use std::sync::Arc;

/// Most strengths of a range.
const MOST: usize = 1000;

/// Strengths in rising order, evenly spaced: `from..to/count`, such as `-2..2/9`. Those between the ends are rounded to a
/// millionth of a millionth of the range, so that they are the decimals one would write down, and 0 is exactly 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Strengths(Arc<[f64]>);

impl Strengths {
    /// `count` strengths from `from` to `to`, both included.
    ///
    /// # Errors
    /// In words, if these are no finite numbers in rising order, or less than two or too many are asked for.
    pub fn new(from: f64, to: f64, count: usize) -> Result<Self, String> {
        if !(from.is_finite() && to.is_finite() && (to - from).is_finite()) {
            return Err("the ends of a range of strengths are finite numbers".into());
        }
        if from >= to {
            return Err(format!(
                "the strengths {from}..{to} do not rise: the smaller one stands first"
            ));
        }
        if !(2..=MOST).contains(&count) {
            return Err(format!(
                "{count} strengths: a range has 2 to {MOST}, its ends included"
            ));
        }
        let last = count - 1;
        let at = |i: usize| match i {
            0 => from,
            i if i == last => to,
            i => {
                let share = |n: usize| n as f64 / last as f64;
                decimal(from * share(last - i) + to * share(i), to - from)
            }
        };
        Ok(Self((0..count).map(at).collect()))
    }

    /// These, from the first on.
    #[must_use]
    pub fn all(&self) -> &Arc<[f64]> {
        &self.0
    }
}

/// The decimal nearest to `x` with twelve digits below the first one of `span`.
fn decimal(x: f64, span: f64) -> f64 {
    let exponent = span.log10().floor() as i32 - 12;
    let units = (x / 10f64.powi(exponent)).round();
    match format!("{units:.0}e{exponent}").parse::<f64>() {
        // Minus nothing is nothing.
        Ok(rounded) if rounded.is_finite() => rounded + 0.0,
        _ => x,
    }
}

impl FromStr for Strengths {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let text = one_line(text);
            format!("{text} is no range of strengths: write from..to/count, such as -2..2/9")
        };
        let (ends, count) = text.split_once('/').ok_or_else(wrong)?;
        let (from, to) = ends.split_once("..").ok_or_else(wrong)?;
        let real = |text: &str| text.trim().parse::<f64>().map_err(|_| wrong());
        let count = count.trim().parse::<usize>().map_err(|_| wrong())?;
        Self::new(real(from)?, real(to)?, count)
    }
}

/// The directions of a vector with their weights, `strength` times. Not even a zero is added where there is nothing to add.
///
/// # Errors
/// If a number gets too large.
pub(super) fn pushes(
    directions: &[(usize, f64, Arc<[f32]>)],
    strength: f64,
) -> Result<Vec<(usize, Push)>> {
    let mut pushes = Vec::with_capacity(directions.len());
    for (layer, weight, direction) in directions {
        let strength = strength * weight;
        let push: Vec<f32> = direction
            .iter()
            .map(|x| (strength * f64::from(*x)) as f32)
            .collect();
        if push.iter().any(|x| !x.is_finite()) {
            return Err(Error::Usage(format!(
                "the strength {strength} is too large"
            )));
        }
        if push.iter().any(|x| *x != 0.0) {
            pushes.push((*layer, Push::Add(push.into())));
        }
    }
    Ok(pushes)
}

/// What scales these blocks; nothing where the factor changes nothing.
pub(super) fn scaled(layers: impl Iterator<Item = usize>, factor: f64) -> Vec<(usize, Push)> {
    match factor == 1.0 {
        true => Vec::new(),
        false => layers
            .map(|layer| (layer, Push::Scale(factor as f32)))
            .collect(),
    }
}

impl Plan {
    /// The plan `factor` times as strong: every vector's own strength is multiplied by it, so that a plan of several is
    /// scaled as a whole, and the residual scaling F becomes 1 + factor · (F − 1), the same way from leaving the blocks
    /// alone. 1 is this plan to the bit, and 0 none.
    ///
    /// # Errors
    /// If a number gets too large.
    pub fn scaled(&self, factor: f64) -> Result<Self> {
        let part = |part: &Part| {
            let mut spec = part.spec.clone();
            let pushes = match &mut spec.effect {
                Effect::Vector(_) => {
                    spec.strength *= factor;
                    pushes(&part.directions, spec.strength)?
                }
                Effect::Scale(of_blocks) => {
                    // The same as 1 + factor · (F − 1), but exact at 0 and at 1.
                    *of_blocks = factor * *of_blocks + (1.0 - factor);
                    let layers = part.pushes.iter().map(|(layer, _)| *layer);
                    scaled(layers, *of_blocks)
                }
            };
            Ok(Part {
                spec,
                directions: part.directions.clone(),
                pushes,
            })
        };
        Ok(Self {
            parts: self.parts.iter().map(part).collect::<Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Change, ModelCard};
    use crate::steer::{ControlVector, Spec};
    use std::collections::BTreeMap;

    fn strengths(text: &str) -> Vec<f64> {
        text.parse::<Strengths>().unwrap().all().to_vec()
    }

    #[test]
    fn a_range_has_its_ends_and_its_middle() {
        assert_eq!(strengths("-2..2/5"), [-2.0, -1.0, 0.0, 1.0, 2.0]);
        assert_eq!(strengths(" 0.1 .. 0.3 / 2 "), [0.1, 0.3]);
        let tenths = [-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3];
        assert_eq!(strengths("-0.3..0.3/7"), tenths);
        assert_eq!(strengths("-0.1..0.3/5"), [-0.1, 0.0, 0.1, 0.2, 0.3]);
        let thirds = strengths("1e6..1000001/4");
        assert!(
            (thirds[1] - 1_000_000.333_333_333).abs() < 1e-8,
            "{thirds:?}"
        );
        assert_eq!(strengths("1e-300..3e-300/3")[1], 2e-300);
        for ends in ["-0.3..0.3", "-0.1..0.1", "-1e-3..1e-3", "-3.7..3.7"] {
            for count in [3, 7, 21, 99] {
                let all = strengths(&format!("{ends}/{count}"));
                assert_eq!(all.len(), count);
                assert_eq!(all[count / 2].to_bits(), 0.0f64.to_bits(), "{ends} {count}");
                assert!(all.is_sorted());
            }
        }
    }

    #[test]
    fn what_is_no_range_is_told_what_one_is() {
        for text in [
            "", "2", "-2..2", "-2/9", "a..b/3", "1..2/x", "1..2/-3", "0..1/2.5",
        ] {
            let error = text.parse::<Strengths>().unwrap_err();
            assert!(error.contains("from..to/count"), "{text}: {error}");
        }
        for (text, says) in [
            ("2..-2/9", "do not rise"),
            ("1..1/3", "do not rise"),
            ("0..1/1", "2 to 1000"),
            ("0..1/1001", "2 to 1000"),
            ("0..inf/3", "finite"),
            ("-1.7e308..1.7e308/3", "finite"),
            ("nan..1/3", "finite"),
        ] {
            let error = text.parse::<Strengths>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    fn card() -> ModelCard {
        ModelCard {
            blocks: 3,
            d_model: 2,
            ..ModelCard::default()
        }
    }

    fn plan(texts: &[&str]) -> Plan {
        let directions = [(1, vec![0.1f32, -3.0]), (3, vec![0.7, 0.0])];
        let vector = ControlVector::new(BTreeMap::from(directions)).unwrap();
        let mut plan = Plan::default();
        for text in texts {
            let spec: Spec = text.parse().unwrap();
            match spec.effect {
                Effect::Vector(_) => plan.push(&spec, &vector, &card()).unwrap(),
                Effect::Scale(_) => {
                    let (scale, _) = Plan::load(&[spec], &card()).unwrap();
                    plan.parts.extend(scale.parts);
                }
            }
        }
        plan
    }

    #[test]
    fn a_scaled_plan_is_one_of_that_strength() {
        for factor in [-1.3, 0.5, 1.0, 2.0] {
            let found = plan(&["v.gguf,strength=0.3", "v.gguf,strength=-2"]).scaled(factor);
            let (first, second) = (0.3 * factor, -2.0 * factor);
            let first = format!("v.gguf,strength={first}");
            let second = format!("v.gguf,strength={second}");
            assert_eq!(found.unwrap(), plan(&[&first, &second]));
        }
        let weighted = |strength: f64| {
            plan(&[&format!(
                "v.gguf,strength={strength},layer-weights=0.1/2/0.7"
            )])
        };
        assert_eq!(weighted(1.0).scaled(0.7).unwrap(), weighted(0.7));
        let error = weighted(1e30).scaled(1e30).unwrap_err().to_string();
        assert!(error.contains("too large"), "{error}");
    }

    #[test]
    fn blocks_are_scaled_from_leaving_them_alone() {
        let all = plan(&["scale=0.1,layers=2..3", "v.gguf"]);
        assert_eq!(all.scaled(1.0).unwrap(), all);
        assert_eq!(all.scaled(0.0).unwrap().interventions(5), []);
        let factors = |factor: f64| -> Vec<(usize, Change)> {
            let scaled = plan(&["scale=0.5,layers=2..3"]).scaled(factor).unwrap();
            let changes = scaled.interventions(5).into_iter();
            changes.map(|one| (one.layer, one.change)).collect()
        };
        let both = |factor: f32| [2, 3].map(|layer| (layer, Change::ScaleBlock(factor)));
        assert_eq!(factors(2.0), both(0.0));
        assert_eq!(factors(-1.0), both(1.5));
        assert_eq!(factors(0.5), both(0.75));
    }
}
