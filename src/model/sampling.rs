//! Drawing the next token from the model's own logits.
//!
//! The order is the usual one of llama.cpp and Hugging Face: repetition penalty → temperature → top-k → top-p → min-p,
//! each on what the one before it left, renormalised. Ties go to the lower id everywhere. The kept tokens are walked in
//! the order of their ids with **one** uniform number per draw, so that two branches which share a random stream and
//! have nearly the same distribution draw the same token.

use crate::error::{Error, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::cmp::Ordering;

/// How the next token is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f64,
    /// Keep only the k most probable tokens.
    pub top_k: Option<usize>,
    /// Keep the smallest set of tokens whose probability reaches p.
    pub top_p: Option<f64>,
    /// Drop tokens less probable than this share of the most probable one.
    pub min_p: Option<f64>,
    /// Divide (or multiply, when negative) the logits of tokens seen before by this; 1 is off.
    pub repetition_penalty: f64,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: None,
            top_p: None,
            min_p: None,
            repetition_penalty: 1.0,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Check every setting.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the first setting that is out of range, and its range.
    pub fn validate(&self) -> Result<()> {
        let wrong = |what: &str, value: f64, range: &str| {
            Err(Error::Usage(format!(
                "{what} is {value}, but it must be {range}"
            )))
        };
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return wrong(
                "the temperature",
                self.temperature,
                "0 (greedy) or a positive number",
            );
        }
        if self.top_k == Some(0) {
            return wrong("top-k", 0.0, "at least 1");
        }
        if let Some(p) = self.top_p
            && !(p > 0.0 && p <= 1.0)
        {
            return wrong("top-p", p, "above 0 and at most 1");
        }
        if let Some(p) = self.min_p
            && !(0.0..=1.0).contains(&p)
        {
            return wrong("min-p", p, "between 0 and 1");
        }
        if !(self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0) {
            return wrong(
                "the repetition penalty",
                self.repetition_penalty,
                "a positive number (1 is off)",
            );
        }
        Ok(())
    }
}

/// A stream of random numbers and the settings that use it. A clone continues the same stream: fork and rewind a branch
/// by cloning its sampler.
#[derive(Clone, Debug)]
pub struct Sampler {
    settings: Sampling,
    rng: StdRng,
}

impl Sampler {
    /// A sampler at the start of the random stream of `settings.seed`.
    #[must_use]
    pub fn new(settings: Sampling) -> Self {
        let rng = StdRng::seed_from_u64(settings.seed);
        Self { settings, rng }
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> &Sampling {
        &self.settings
    }

    /// Draw by other settings from now on; the random stream starts anew only if the seed changed.
    pub fn set(&mut self, settings: Sampling) {
        if settings.seed != self.settings.seed {
            self.rng = StdRng::seed_from_u64(settings.seed);
        }
        self.settings = settings;
    }

    /// Draw a token id from `logits` (`[vocab]`); `seen` are the ids the repetition penalty applies to, each counted
    /// once. `None` if no logit is finite: only finite logits can be drawn, so NaN and the infinities never win.
    ///
    /// Exactly one random number is used up by every call, greedy or not.
    pub fn draw(&mut self, logits: &[f32], seen: &[u32]) -> Option<u32> {
        let uniform: f64 = self.rng.random();
        let logits = penalised(logits, seen, self.settings.repetition_penalty);
        let best = argmax(&logits)?;
        if self.settings.temperature <= 0.0 {
            return u32::try_from(best).ok();
        }
        let mut kept = weights(&logits, logits[best], self.settings.temperature);
        if let Some(k) = self.settings.top_k {
            keep_top_k(&mut kept, k.max(1));
        }
        if let Some(p) = self.settings.top_p {
            keep_top_p(&mut kept, p);
        }
        if let Some(p) = self.settings.min_p {
            // The most probable token has weight e^0 = 1 before normalising.
            kept.retain(|&(_, weight)| weight >= p);
        }
        kept.sort_unstable_by_key(|&(id, _)| id);
        pick(&kept, uniform)
    }
}

/// Logits in f64 after the repetition penalty of CTRL (Keskar et al. 2019): positive ones divided, negative multiplied.
fn penalised(logits: &[f32], seen: &[u32], penalty: f64) -> Vec<f64> {
    let mut out: Vec<f64> = logits.iter().map(|&z| f64::from(z)).collect();
    if penalty != 1.0 {
        let mut ids = seen.to_vec();
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            if let Some(z) = out.get_mut(id as usize) {
                *z = if *z > 0.0 { *z / penalty } else { *z * penalty };
            }
        }
    }
    out
}

/// Index of the largest finite value, the first of equals.
fn argmax(values: &[f64]) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (i, &v) in values.iter().enumerate() {
        if v.is_finite() && best.is_none_or(|(_, top)| v > top) {
            best = Some((i, v));
        }
    }
    best.map(|(i, _)| i)
}

/// `(id, e^((z − max)/T))` of every finite logit, in order of id; the largest weight is exactly 1.
fn weights(logits: &[f64], max: f64, temperature: f64) -> Vec<(u32, f64)> {
    (0u32..)
        .zip(logits)
        .filter(|(_, z)| z.is_finite())
        .map(|(id, z)| (id, ((z - max) / temperature).exp()))
        .collect()
}

/// More probable first, the lower id first among equals.
fn by_weight(a: &(u32, f64), b: &(u32, f64)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

fn keep_top_k(kept: &mut Vec<(u32, f64)>, k: usize) {
    if k < kept.len() {
        kept.select_nth_unstable_by(k - 1, by_weight);
        kept.truncate(k);
    }
}

/// Keep the shortest prefix, by falling weight, whose share of the sum reaches `p` (at least one token).
fn keep_top_p(kept: &mut Vec<(u32, f64)>, p: f64) {
    if p >= 1.0 || kept.len() < 2 {
        return;
    }
    let target = p * kept.iter().map(|&(_, weight)| weight).sum::<f64>();
    // A full sort of a large vocabulary costs more than the rest of the draw: sort a growing head of it only.
    let mut head = 64;
    loop {
        head = head.min(kept.len());
        if head < kept.len() {
            kept.select_nth_unstable_by(head - 1, by_weight);
        }
        kept[..head].sort_unstable_by(by_weight);
        let mut sum = 0.0;
        for i in 0..head {
            sum += kept[i].1;
            if sum >= target {
                kept.truncate(i + 1);
                return;
            }
        }
        if head == kept.len() {
            return;
        }
        head *= 8;
    }
}

/// The entry at which the running sum passes `uniform` (in `[0, 1)`) of the total.
fn pick(kept: &[(u32, f64)], uniform: f64) -> Option<u32> {
    let target = uniform * kept.iter().map(|&(_, weight)| weight).sum::<f64>();
    let mut sum = 0.0;
    let mut last = None;
    for &(id, weight) in kept {
        if weight > 0.0 {
            last = Some(id);
            sum += weight;
            if sum > target {
                break;
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn warm(temperature: f64) -> Sampling {
        Sampling {
            temperature,
            ..Sampling::default()
        }
    }

    fn frequencies(settings: Sampling, logits: &[f32], seen: &[u32], n: usize) -> Vec<f64> {
        let mut sampler = Sampler::new(settings);
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..n {
            counts[sampler.draw(logits, seen).unwrap() as usize] += 1.0 / n as f64;
        }
        counts
    }

    /// The definition, written the slow way: probabilities after every filter.
    fn reference(settings: &Sampling, logits: &[f32], seen: &[u32]) -> Vec<f64> {
        let mut z: Vec<f64> = logits
            .iter()
            .map(|&z| {
                if z.is_finite() {
                    f64::from(z)
                } else {
                    f64::NEG_INFINITY
                }
            })
            .collect();
        for (id, z) in z.iter_mut().enumerate() {
            if seen.contains(&(id as u32)) && z.is_finite() {
                let r = settings.repetition_penalty;
                *z = if *z > 0.0 { *z / r } else { *z * r };
            }
            *z /= settings.temperature;
        }
        let normalise = |p: &mut Vec<f64>| {
            let sum: f64 = p.iter().sum();
            p.iter_mut().for_each(|p| *p /= sum);
        };
        let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut p: Vec<f64> = z.iter().map(|z| (z - max).exp()).collect();
        normalise(&mut p);
        let mut order: Vec<usize> = (0..p.len()).collect();
        order.sort_by(|&a, &b| p[b].total_cmp(&p[a]).then(a.cmp(&b)));
        if let Some(k) = settings.top_k {
            order.iter().skip(k).for_each(|&i| p[i] = 0.0);
            normalise(&mut p);
        }
        if let Some(limit) = settings.top_p {
            let mut sum = 0.0;
            for &i in &order {
                if sum >= limit - 1e-12 {
                    p[i] = 0.0;
                }
                sum += p[i];
            }
            normalise(&mut p);
        }
        if let Some(share) = settings.min_p {
            let top = p[order[0]];
            p.iter_mut()
                .filter(|p| **p < share * top - 1e-15)
                .for_each(|p| *p = 0.0);
            normalise(&mut p);
        }
        p
    }

    #[test]
    fn greedy_takes_the_lowest_of_equals_and_skips_what_is_not_finite() {
        let mut sampler = Sampler::new(Sampling::default());
        assert_eq!(sampler.draw(&[1.0, 3.0, 3.0], &[]), Some(1));
        assert_eq!(
            sampler.draw(&[f32::NAN, f32::NEG_INFINITY, -7.0, f32::INFINITY], &[]),
            Some(2)
        );
        assert_eq!(sampler.draw(&[5.0], &[]), Some(0));
        assert_eq!(sampler.draw(&[], &[]), None);
        assert_eq!(sampler.draw(&[f32::NAN, f32::NEG_INFINITY], &[]), None);
    }

    #[test]
    fn sampling_skips_what_is_not_finite() {
        let mut sampler = Sampler::new(warm(1.0));
        for _ in 0..200 {
            let id = sampler.draw(&[f32::NAN, 0.0, f32::NEG_INFINITY, 0.0, f32::INFINITY], &[]);
            assert!(matches!(id, Some(1 | 3)));
        }
        assert_eq!(sampler.draw(&[f32::NAN], &[]), None);
        assert_eq!(sampler.draw(&[-3.0], &[]), Some(0));
    }

    #[test]
    fn penalty_counts_each_seen_token_once_and_ignores_unknown_ids() {
        let mut sampler = Sampler::new(Sampling {
            repetition_penalty: 2.0,
            ..Sampling::default()
        });
        assert_eq!(sampler.draw(&[3.0, 2.0], &[0, 0, 99]), Some(1));
        assert_eq!(sampler.draw(&[4.5, 2.0], &[0, 0]), Some(0));
        assert_eq!(sampler.draw(&[-1.0, -1.5], &[0]), Some(1));
    }

    #[test]
    fn frequencies_follow_the_softmax_at_its_temperature() {
        let logits = [0.0, 1.0, 2.0, -1.0];
        let settings = warm(0.7);
        let expected = reference(&settings, &logits, &[]);
        let found = frequencies(settings, &logits, &[], 40_000);
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 0.01, "{found} {expected}");
        }
    }

    #[test]
    fn frequencies_follow_the_filters_together() {
        let logits = [1.0, 0.5, 2.0, -1.0, 1.5, 0.0];
        let settings = Sampling {
            temperature: 1.3,
            top_k: Some(5),
            top_p: Some(0.9),
            min_p: Some(0.2),
            repetition_penalty: 1.4,
            seed: 3,
        };
        let expected = reference(&settings, &logits, &[2, 3]);
        let found = frequencies(settings, &logits, &[2, 3], 40_000);
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 0.01, "{found} {expected}");
        }
    }

    #[test]
    fn a_clone_continues_the_stream_and_set_reseeds_only_on_a_new_seed() {
        let logits = vec![0.0; 1000];
        let draw = |sampler: &mut Sampler| -> Vec<u32> {
            (0..8).filter_map(|_| sampler.draw(&logits, &[])).collect()
        };
        let mut a = Sampler::new(warm(1.0));
        let start = draw(&mut a);
        let mut b = a.clone();
        b.set(Sampling {
            top_p: Some(1.0),
            ..warm(1.0)
        });
        assert_eq!(draw(&mut a), draw(&mut b));
        b.set(Sampling {
            seed: 9,
            ..warm(1.0)
        });
        assert_ne!(draw(&mut a), draw(&mut b));
        b.set(warm(1.0));
        assert_eq!(draw(&mut b), start);
    }

    #[test]
    fn greedy_steps_use_up_random_numbers_too() {
        let logits = vec![0.0; 1000];
        let mut a = Sampler::new(warm(1.0));
        let mut b = Sampler::new(warm(0.0));
        a.draw(&logits, &[]);
        b.draw(&logits, &[]);
        b.set(warm(1.0));
        assert_eq!(a.draw(&logits, &[]), b.draw(&logits, &[]));
    }

    #[test]
    fn extreme_temperatures_stay_finite() {
        let logits = [f32::MAX, f32::MIN, 0.0];
        for t in [1e-300, 1e-6, 1e6, 1e300] {
            assert!(Sampler::new(warm(t)).draw(&logits, &[]).is_some());
        }
        assert_eq!(Sampler::new(warm(1e-300)).draw(&[0.0, 0.1], &[]), Some(1));
    }

    #[test]
    fn validate_names_the_setting() {
        let cases = [
            (warm(-1.0), "temperature"),
            (warm(f64::NAN), "temperature"),
            (
                Sampling {
                    top_k: Some(0),
                    ..warm(1.0)
                },
                "top-k",
            ),
            (
                Sampling {
                    top_p: Some(0.0),
                    ..warm(1.0)
                },
                "top-p",
            ),
            (
                Sampling {
                    top_p: Some(1.1),
                    ..warm(1.0)
                },
                "top-p",
            ),
            (
                Sampling {
                    min_p: Some(-0.1),
                    ..warm(1.0)
                },
                "min-p",
            ),
            (
                Sampling {
                    repetition_penalty: 0.0,
                    ..warm(1.0)
                },
                "penalty",
            ),
        ];
        for (settings, word) in cases {
            let error = settings.validate().unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(word), "{error}");
        }
        Sampling::default().validate().unwrap();
    }

    proptest! {
        #[test]
        fn only_what_the_filters_keep_is_drawn(
            logits in prop::collection::vec(prop_oneof![8 => -6.0f32..6.0, 1 => Just(f32::NEG_INFINITY)], 1..300),
            k in prop::option::of(1usize..40),
            top_p in prop::option::of(0.05f64..1.0),
            min_p in prop::option::of(0.0f64..0.9),
            penalty in 0.5f64..2.0,
            seed: u64,
        ) {
            prop_assume!(logits.iter().any(|z| z.is_finite()));
            let settings = Sampling {
                temperature: 0.9,
                top_k: k,
                top_p,
                min_p,
                repetition_penalty: penalty,
                seed,
            };
            settings.validate().unwrap();
            let p = reference(&settings, &logits, &[0, 2]);
            let mut sampler = Sampler::new(settings.clone());
            let mut again = Sampler::new(settings);
            for _ in 0..20 {
                let id = sampler.draw(&logits, &[0, 2]).unwrap();
                prop_assert!(p[id as usize] > 0.0);
                prop_assert_eq!(Some(id), again.draw(&logits, &[0, 2]));
            }
        }
    }
}
