//! Control vectors from contrast pairs: read both texts, take the states where they differ in meaning, and find per layer
//! the direction that tells them apart.
//!
//! Methods: the mean difference (Rimsky et al. 2024, *Steering Llama 2 via Contrastive Activation Addition*); the first
//! principal component of the differences and of both sides around the centre of their pair (repeng's `pca_diff` and
//! `pca_center`, after Zou et al. 2023, *Representation Engineering*).

use super::pairs::Pair;
use super::vector::ControlVector;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::decoder::{Row, Taps};
use crate::stats::{auroc, auroc_interval, dot, first_component};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::{ControlFlow, RangeInclusive};
use std::str::FromStr;

/// Most bytes that the states of all pairs may take.
const MAX_BYTES: usize = 4 << 30;
/// Draws of the bootstrap.
const DRAWS: usize = 1000;

/// How a direction is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// The mean of positive − negative, with its own length: strength 1 goes as far as the two sides lie apart.
    #[default]
    Mean,
    /// The first principal component of positive − negative, the mean taken away, of length 1 (repeng's `pca_diff`). It
    /// finds along what the pairs differ *differently*; where all differ alike prefer the others.
    PcaDiff,
    /// The first principal component of both sides around the centre of their pair, of length 1 (repeng's `pca_center`; the
    /// same direction as that of the differences without taking their mean away, which llama.cpp computes).
    PcaCenter,
}

/// Which tokens of a text are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Position {
    /// The last.
    #[default]
    Last,
    /// The mean over all but the first, which is the beginning-of-text token of most models, and stands out in all.
    Mean,
    /// The mean from this position on.
    From(usize),
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let from = text.strip_prefix("from:").map(str::parse);
        match (text, from) {
            ("last", _) => Ok(Self::Last),
            ("mean", _) => Ok(Self::Mean),
            (_, Some(Ok(first))) => Ok(Self::From(first)),
            _ => Err("is none of last, mean, from:N".into()),
        }
    }
}

/// How to train.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How a direction is found.
    pub method: Method,
    /// Which tokens are read.
    pub position: Position,
    /// Layers to find directions for; from 2 on if not given, as repeng and llama.cpp do.
    pub layers: Option<RangeInclusive<usize>>,
    /// Texts read at once.
    pub batch: usize,
    /// Share of the pairs that is kept back to measure on.
    pub held_out: f64,
    /// Seed of the choice of those.
    pub seed: u64,
    /// Give every direction length 1.
    pub normalise: bool,
    /// Put each text into the user's turn of the model's chat template.
    pub chat: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            method: Method::default(),
            position: Position::default(),
            layers: None,
            batch: 16,
            held_out: 0.25,
            seed: 0,
            normalise: false,
            chat: false,
        }
    }
}

/// How well a layer's direction tells the two sides apart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Separation {
    /// State index.
    pub layer: usize,
    /// AUROC of the projections of pairs that were kept back: P(positive > negative) + ½ P(equal). `None` without such.
    pub auroc: Option<f64>,
    /// Its 95 % bootstrap interval.
    pub interval: Option<(f64, f64)>,
    /// Length of the direction over the mean length of the states there.
    pub share: f64,
}

/// A trained vector and what is known of it.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The directions.
    pub vector: ControlVector,
    /// By layer.
    pub separation: Vec<Separation>,
    /// Pairs it was trained on.
    pub trained_on: usize,
    /// Pairs kept back.
    pub held_out: usize,
}

/// Train a control vector. `progress` hears how many texts of how many are read, and may break off.
///
/// # Errors
/// If there are too few pairs, a text is empty or too long, the layers are not there, both sides are the same, or a tensor
/// operation fails; [`Error::Interrupted`] when broken off.
pub fn train(
    model: &Model,
    pairs: &[Pair],
    settings: &Settings,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Trained> {
    let card = model.card();
    let layers = settings
        .layers
        .clone()
        .unwrap_or(2.min(card.blocks)..=card.blocks);
    if *layers.end() > card.blocks {
        return Err(Error::Usage(format!(
            "{} has the layers 0..{}, not {}..{}",
            card.name,
            card.blocks,
            layers.start(),
            layers.end()
        )));
    }
    let layers: Vec<usize> = layers.collect();
    let bytes = 2 * pairs.len() * layers.len() * card.d_model * 4;
    if bytes > MAX_BYTES {
        return Err(Error::Usage(format!(
            "the states of {} pairs take {} MB: take fewer pairs or fewer --layers",
            pairs.len(),
            bytes >> 20
        )));
    }
    let texts: Vec<Vec<u32>> = pairs
        .iter()
        .flat_map(|pair| [&pair.positive, &pair.negative])
        .enumerate()
        .map(|(i, text)| tokens(model, text, i / 2 + 1, settings))
        .collect::<Result<_>>()?;
    let states = read(model, &texts, &layers, settings, progress)?;

    // Positive texts have the even places.
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    order.shuffle(&mut StdRng::seed_from_u64(settings.seed));
    let kept_back = (settings.held_out.clamp(0.0, 1.0) * pairs.len() as f64) as usize;
    let (held_out, used) = order.split_at(kept_back);
    if used.is_empty() {
        return Err(Error::Usage("no pairs are left to train on".into()));
    }
    let found: Vec<Option<(Vec<f64>, Separation)>> = layers
        .par_iter()
        .enumerate()
        .map(|(at, layer)| {
            let state = |text: usize| states[text][at].iter().map(|x| f64::from(*x)).collect();
            let both =
                |pair: &usize| -> (Vec<f64>, Vec<f64>) { (state(2 * pair), state(2 * pair + 1)) };
            let used: Vec<(Vec<f64>, Vec<f64>)> = used.iter().map(both).collect();
            let direction = direction(&used, settings)?;
            let held_out: Vec<(Vec<f64>, Vec<f64>)> = held_out.iter().map(both).collect();
            let separation = separation(*layer, &direction, &used, &held_out, settings.seed);
            Some((direction, separation))
        })
        .collect();
    let mut directions = BTreeMap::new();
    let mut measured = Vec::new();
    for (layer, found) in layers.into_iter().zip(found) {
        let Some((direction, separation)) = found else {
            return Err(Error::failed(
                format!("both sides of the pairs are the same at layer {layer}"),
                "Write pairs that differ, read more than the last token with --position mean, or leave that layer out.",
            ));
        };
        directions.insert(layer, direction.into_iter().map(|x| x as f32).collect());
        measured.push(separation);
    }
    let vector = ControlVector::new(directions);
    let mut vector = vector.map_err(|problem| {
        Error::failed(
            format!("the trained vector {problem}"),
            "Report this as a bug.",
        )
    })?;
    vector.model_hint = Some(card.family.clone());
    Ok(Trained {
        vector,
        separation: measured,
        trained_on: used.len(),
        held_out: kept_back,
    })
}

/// The tokens of a text; those that are not read follow the positions of [`Position`].
fn tokens(model: &Model, text: &str, pair: usize, settings: &Settings) -> Result<Vec<u32>> {
    let tokens = match settings.chat {
        true => model.chat_prompt(text)?,
        false => model.tokenizer().encode(text, true)?,
    };
    if let Some(limit) = model.card().limit()
        && tokens.len() > limit
    {
        return Err(Error::Usage(format!(
            "pair {pair} has a text of {} tokens, but {} reads at most {limit}",
            tokens.len(),
            model.card().name
        )));
    }
    if tokens.len() <= first(settings.position) {
        return Err(Error::Usage(format!(
            "pair {pair} has a text of {} tokens, too few to read from position {} on",
            tokens.len(),
            first(settings.position)
        )));
    }
    Ok(tokens)
}

/// The first position that may be read.
fn first(position: Position) -> usize {
    match position {
        Position::Last => 0,
        Position::Mean => 1,
        Position::From(first) => first,
    }
}

/// For each text and layer the state at the asked position, `[d_model]`.
fn read(
    model: &Model,
    texts: &[Vec<u32>],
    layers: &[usize],
    settings: &Settings,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Vec<Vec<Vec<f32>>>> {
    let taps = Taps {
        states: true,
        attention: false,
    };
    let mut states = Vec::with_capacity(texts.len());
    for batch in texts.chunks(settings.batch.max(1)) {
        if progress(states.len(), texts.len()).is_break() {
            return Err(Error::Interrupted);
        }
        let mut rows: Vec<Row<'_>> = batch.iter().map(|text| Row::new(text, None)).collect();
        let traced = model.decoder().forward(&mut rows, taps)?;
        let mut at = 0;
        for text in batch {
            let (from, until) = match settings.position {
                Position::Last => (at + text.len() - 1, at + text.len()),
                other => (at + first(other), at + text.len()),
            };
            at += text.len();
            let of_layer = |layer: &usize| -> Result<Vec<f32>> {
                let span = traced.states[*layer].narrow(0, from, until - from)?;
                Ok(span.mean(0)?.to_vec1()?)
            };
            states.push(layers.iter().map(of_layer).collect::<Result<_>>()?);
        }
    }
    let _ = progress(texts.len(), texts.len());
    Ok(states)
}

/// The direction that tells the first of each pair from the second, pointing to the first. `None` where they are the same.
fn direction(pairs: &[(Vec<f64>, Vec<f64>)], settings: &Settings) -> Option<Vec<f64>> {
    let minus =
        |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a - b).collect() };
    let differences: Vec<Vec<f64>> = pairs.iter().map(|(p, n)| minus(p, n)).collect();
    let mean = mean_row(&differences)?;
    let direction = match settings.method {
        Method::Mean => (dot(&mean, &mean) > 0.0).then_some(mean)?,
        Method::PcaDiff => {
            let centred: Vec<Vec<f64>> = differences.iter().map(|row| minus(row, &mean)).collect();
            first_component(&centred)?
        }
        // Around its centre a pair is ± half its difference, and half of all changes no direction.
        Method::PcaCenter => first_component(&differences)?,
    };
    // An axis has no sign: most pairs decide.
    let along = differences.iter().map(|row| dot(row, &direction));
    let votes: i64 = along
        .map(|along| i64::from(along > 0.0) - i64::from(along < 0.0))
        .sum();
    let turned = settings.method != Method::Mean && votes < 0;
    let factor = if turned { -1.0 } else { 1.0 };
    let length = match settings.normalise {
        true => dot(&direction, &direction).sqrt(),
        false => 1.0,
    };
    Some(direction.into_iter().map(|x| factor * x / length).collect())
}

fn mean_row(rows: &[Vec<f64>]) -> Option<Vec<f64>> {
    let mut sum = rows.first()?.clone();
    for row in &rows[1..] {
        sum.iter_mut().zip(row).for_each(|(s, x)| *s += x);
    }
    sum.iter_mut().for_each(|s| *s /= rows.len() as f64);
    Some(sum)
}

fn separation(
    layer: usize,
    direction: &[f64],
    used: &[(Vec<f64>, Vec<f64>)],
    held_out: &[(Vec<f64>, Vec<f64>)],
    seed: u64,
) -> Separation {
    let positive: Vec<f64> = held_out.iter().map(|(p, _)| dot(p, direction)).collect();
    let negative: Vec<f64> = held_out.iter().map(|(_, n)| dot(n, direction)).collect();
    let length = |v: &[f64]| dot(v, v).sqrt();
    let lengths: f64 = used.iter().map(|(p, n)| length(p) + length(n)).sum();
    Separation {
        layer,
        auroc: auroc(&negative, &positive),
        interval: auroc_interval(&negative, &positive, DRAWS, 0.95, seed),
        share: length(direction) / (lengths / (2 * used.len()) as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs that differ by ±(3, 0, 0) on average, and by more along y, differently each time.
    fn pairs() -> Vec<(Vec<f64>, Vec<f64>)> {
        let spread = [-8.0, -4.0, 0.0, 4.0, 8.0];
        spread
            .iter()
            .map(|y| (vec![4.0, *y, 1.0], vec![1.0, 0.0, 1.0]))
            .collect()
    }

    fn by(method: Method, normalise: bool) -> Vec<f64> {
        let settings = Settings {
            method,
            normalise,
            ..Settings::default()
        };
        direction(&pairs(), &settings).unwrap()
    }

    fn close(a: &[f64], b: &[f64]) {
        let near = a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(near && a.len() == b.len(), "{a:?} {b:?}");
    }

    #[test]
    fn each_method_by_hand() {
        close(&by(Method::Mean, false), &[3.0, 0.0, 0.0]);
        close(&by(Method::Mean, true), &[1.0, 0.0, 0.0]);
        // Without their mean (3, 0, 0) the differences spread along y alone; the votes are even, so the sign is free.
        let found = by(Method::PcaDiff, false);
        close(&[found[0], found[1].abs(), found[2]], &[0.0, 1.0, 0.0]);
        // With it Σ d dᵀ = diag(45, 160, 0).
        let found = by(Method::PcaCenter, false);
        close(&[found[0], found[1].abs(), found[2]], &[0.0, 1.0, 0.0]);
        let narrow: Vec<_> = pairs()
            .into_iter()
            .map(|(p, n)| (vec![p[0], p[1] / 4.0, p[2]], n))
            .collect();
        let settings = Settings {
            method: Method::PcaCenter,
            ..Settings::default()
        };
        close(&direction(&narrow, &settings).unwrap(), &[1.0, 0.0, 0.0]);
        // Turned round, the sign follows.
        let turned: Vec<_> = narrow.into_iter().map(|(p, n)| (n, p)).collect();
        close(&direction(&turned, &settings).unwrap(), &[-1.0, 0.0, 0.0]);
        assert_eq!(direction(&[(vec![1.0], vec![1.0])], &settings), None);
        assert_eq!(direction(&[], &settings), None);
    }

    #[test]
    fn separation_is_measured_on_the_pairs_kept_back() {
        let held_out = [(vec![2.0], vec![1.0]), (vec![0.5], vec![0.0])];
        let found = separation(3, &[2.0], &[(vec![4.0], vec![-8.0])], &held_out, 0);
        // 2 > 1, 2 > 0, 0.5 < 1, 0.5 > 0.
        assert_eq!((found.layer, found.auroc), (3, Some(0.75)));
        assert!((found.share - 2.0 / 6.0).abs() < 1e-12);
        assert_eq!(separation(3, &[2.0], &held_out, &[], 0).auroc, None);
    }

    #[test]
    fn positions_are_parsed() {
        assert_eq!("last".parse(), Ok(Position::Last));
        assert_eq!("from:3".parse(), Ok(Position::From(3)));
        assert!("from:x".parse::<Position>().is_err());
        assert!("first".parse::<Position>().is_err());
    }
}
