//! Where, when and how strongly a run is pushed: what a user asks for, held against a model, becomes interventions.
//!
//! h(l, t) ← h(l, t) + strength · layer weight(l) · token weight(t) · v(l), inside the forward pass, so that all that comes
//! after sees it.

use super::strengths::{pushes, scaled};
use super::vector::ControlVector;
use crate::error::{Error, Result};
use crate::model::{Change, Intervention, ModelCard};
use crate::text::{nearest, one_line};
use serde_json::{Value, json};
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// Longest list of weights.
const MAX_WEIGHTS: usize = 4096;

/// What is done to the states.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Push along the control vector of this file.
    Vector(PathBuf),
    /// What the blocks add is multiplied by this (Entropy-Lens' residual scaling).
    Scale(f64),
}

/// The positions that are changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tokens {
    /// All.
    #[default]
    All,
    /// Those of the prompt.
    Prompt,
    /// Those after the prompt.
    Generated,
    /// From this position on.
    From(usize),
}

impl Tokens {
    fn positions(self, prompt: usize) -> Range<usize> {
        match self {
            Self::All => 0..usize::MAX,
            Self::Prompt => 0..prompt,
            Self::Generated => prompt..usize::MAX,
            Self::From(first) => first..usize::MAX,
        }
    }

    /// As it is written after `tokens=`.
    #[must_use]
    pub fn label(self) -> String {
        match self {
            Self::All => "all".into(),
            Self::Prompt => "prompt".into(),
            Self::Generated => "generated".into(),
            Self::From(first) => format!("from:{first}"),
        }
    }
}

/// One `--steer`: `path=V.gguf,strength=1.8,layers=4..9,tokens=all|prompt|generated|from:N,keep-norm` and more, in any order,
/// of which only the path is needed and may stand bare. With `scale=F` in place of a path blocks are scaled.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// What to do.
    pub effect: Effect,
    /// Factor on the vector; 0 changes nothing.
    pub strength: f64,
    /// Layers (state indices, inclusive); all that have a direction if not given.
    pub layers: Option<RangeInclusive<usize>>,
    /// A factor for each of `layers` (or of all the model's); none is 1.
    pub layer_weights: Vec<f64>,
    /// Where in the text.
    pub tokens: Tokens,
    /// Factors along the prompt, stretched over it; the last holds after it. None is 1.
    pub token_weights: Vec<f64>,
    /// Give the states their old norm afterwards.
    pub keep_norm: bool,
    /// Repeat a vector that is too short until it is as wide as the model.
    pub tile: bool,
}

impl Spec {
    /// This effect with strength 1 on all layers and tokens.
    #[must_use]
    pub fn new(effect: Effect) -> Self {
        Self {
            effect,
            strength: 1.0,
            layers: None,
            layer_weights: Vec::new(),
            tokens: Tokens::All,
            token_weights: Vec::new(),
            keep_norm: false,
            tile: false,
        }
    }
}

const KEYS: [&str; 9] = [
    "path",
    "scale",
    "strength",
    "layers",
    "layer-weights",
    "tokens",
    "token-weights",
    "keep-norm",
    "tile",
];

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut spec = Self::new(Effect::Vector(PathBuf::new()));
        let mut effect = None;
        let mut seen: Vec<&str> = Vec::new();
        for (key, value) in pieces(text)? {
            if seen.contains(&key) || (matches!(key, "path" | "scale") && effect.is_some()) {
                return Err(format!(
                    "{key} stands beside another one that says the same"
                ));
            }
            seen.push(key);
            let value = value.as_deref();
            let needed = || {
                value
                    .filter(|v| !v.is_empty())
                    .ok_or(format!("{key} needs a value: {key}=…"))
            };
            match key {
                "path" => effect = Some(Effect::Vector(needed()?.into())),
                "scale" => effect = Some(Effect::Scale(real(needed()?)?)),
                "strength" => spec.strength = real(needed()?)?,
                "layers" => spec.layers = Some(parse_layers(needed()?)?),
                "layer-weights" => spec.layer_weights = reals(needed()?)?,
                "tokens" => spec.tokens = needed()?.parse()?,
                "token-weights" => spec.token_weights = reals(needed()?)?,
                flag if value.is_some() => return Err(format!("{flag} takes no value")),
                "keep-norm" => spec.keep_norm = true,
                _ => spec.tile = true,
            }
        }
        spec.effect = effect.ok_or("names no file: path=V.gguf")?;
        if matches!(spec.effect, Effect::Scale(_)) {
            let foreign = [
                "strength",
                "layer-weights",
                "token-weights",
                "keep-norm",
                "tile",
            ];
            if let Some(key) = seen.iter().find(|key| foreign.contains(key)) {
                return Err(format!("scale goes with layers and tokens, not with {key}"));
            }
        }
        Ok(spec)
    }
}

/// Keys and values. A comma divides only before a key, so that a path may hold one.
fn pieces(text: &str) -> Result<Vec<(&str, Option<String>)>, String> {
    let mut pieces: Vec<(&str, Option<String>)> = Vec::new();
    for (i, piece) in text.split(',').enumerate() {
        let (key, value) = match piece.split_once('=') {
            Some((key, value)) => (key.trim(), Some(value.to_owned())),
            None => (piece.trim(), None),
        };
        if let Some(known) = KEYS.into_iter().find(|known| *known == key) {
            pieces.push((known, value));
        } else if i == 0 {
            pieces.push(("path", Some(piece.to_owned())));
        } else if let Some(("path", Some(path))) = pieces.last_mut()
            && nearest(key, KEYS).is_none()
        {
            path.push(',');
            path.push_str(piece);
        } else {
            let near =
                nearest(key, KEYS).map_or(String::new(), |near| format!(", did you mean {near}?"));
            return Err(format!(
                "{} is no part of it{near} (known are {})",
                one_line(key),
                KEYS.join(", ")
            ));
        }
    }
    Ok(pieces)
}

fn real(text: &str) -> Result<f64, String> {
    let number = text.trim().parse::<f64>().ok().filter(|x| x.is_finite());
    number.ok_or_else(|| format!("{} is no finite number", one_line(text)))
}

/// Numbers divided by `/`: commas divide the parts.
fn reals(text: &str) -> Result<Vec<f64>, String> {
    let numbers: Vec<f64> = text.split('/').map(real).collect::<Result<_, _>>()?;
    match numbers.len() > MAX_WEIGHTS {
        true => Err(format!("more than {MAX_WEIGHTS} weights")),
        false => Ok(numbers),
    }
}

/// `A..B`, inclusive, or one layer.
///
/// # Errors
/// In words, if it is neither.
pub fn parse_layers(text: &str) -> Result<RangeInclusive<usize>, String> {
    let wrong = || format!("{} is no range of layers such as 4..9", one_line(text));
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let number = |text: &str| {
        text.trim()
            .trim_start_matches('=')
            .parse::<usize>()
            .map_err(|_| wrong())
    };
    let (first, last) = (number(first)?, number(last)?);
    match first <= last {
        true => Ok(first..=last),
        false => Err(format!("the layers {first}..{last} run backwards")),
    }
}

impl FromStr for Tokens {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "all" => Ok(Self::All),
            None if text == "prompt" => Ok(Self::Prompt),
            None if text == "generated" => Ok(Self::Generated),
            Some(("from", first)) if first.parse::<usize>().is_ok() => {
                Ok(Self::From(first.parse().unwrap_or_default()))
            }
            _ => Err(format!(
                "tokens={} is none of all, prompt, generated, from:N",
                one_line(text)
            )),
        }
    }
}

/// What is done to one model's states in one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub(super) parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    /// What was asked for, weights of the file included.
    pub(super) spec: Spec,
    /// Of a vector: layer, layer weight and direction.
    pub(super) directions: Vec<(usize, f64, Arc<[f32]>)>,
    /// Layer and what is done there, but for the token weights.
    pub(super) pushes: Vec<(usize, Push)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Push {
    Add(Arc<[f32]>),
    Scale(f32),
}

impl Plan {
    /// Whether nothing is asked for: the plain model.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Read the files that `specs` name and hold them against the model. Also returned are remarks for the user.
    ///
    /// # Errors
    /// If a file is no control vector, or one that does not fit the model or the layers asked for.
    pub fn load(specs: &[Spec], card: &ModelCard) -> Result<(Self, Vec<String>)> {
        let mut plan = Self::default();
        let mut remarks = Vec::new();
        for spec in specs {
            match &spec.effect {
                Effect::Scale(factor) => plan.scale(spec, *factor, card)?,
                Effect::Vector(path) => {
                    let opened = super::file::open(path)?;
                    let shown = crate::text::path(path);
                    let notes = opened
                        .warnings
                        .iter()
                        .map(|note| format!("{shown}: {note}"));
                    remarks.extend(notes);
                    if let Some(hint) = &opened.vector.model_hint
                        && !hint.is_empty()
                        && *hint != card.family
                    {
                        remarks.push(format!(
                            "{shown} was made for a model of the kind {}, and this is a {}",
                            one_line(hint),
                            card.family
                        ));
                    }
                    let or = |given: &Vec<f64>, file: &Vec<f64>| match given.is_empty() {
                        true => file.clone(),
                        false => given.clone(),
                    };
                    let spec = Spec {
                        layer_weights: or(&spec.layer_weights, &opened.layer_weights),
                        token_weights: or(&spec.token_weights, &opened.token_weights),
                        ..spec.clone()
                    };
                    plan.push(&spec, &opened.vector, card)?;
                }
            }
        }
        Ok((plan, remarks))
    }

    /// Add a vector, as `spec` says but for its path.
    ///
    /// # Errors
    /// If it does not fit the model or the layers asked for.
    pub fn push(&mut self, spec: &Spec, vector: &ControlVector, card: &ModelCard) -> Result<()> {
        let tiled;
        let vector = match spec.tile && vector.width() < card.d_model {
            true => {
                tiled = vector.tiled(card.d_model)?;
                &tiled
            }
            false => vector,
        };
        vector.fits(card)?;
        let range = within(spec, card, 0)?;
        let asked = spec.layers.is_some();
        let mut directions = Vec::new();
        for layer in range.clone() {
            if let Some(direction) = vector.direction(layer) {
                let weight = layer_weight(spec, layer, &range, card)?;
                directions.push((layer, weight, direction.into()));
            }
        }
        let pushes = pushes(&directions, spec.strength)?;
        if asked && range.clone().all(|layer| vector.direction(layer).is_none()) {
            return Err(Error::Usage(format!(
                "the control vector has no direction for the layers {}..{}, only for {}",
                range.start(),
                range.end(),
                listed(&vector.layers().unwrap_or_default())
            )));
        }
        self.parts.push(Part {
            spec: spec.clone(),
            directions,
            pushes,
        });
        Ok(())
    }

    fn scale(&mut self, spec: &Spec, factor: f64, card: &ModelCard) -> Result<()> {
        let range = within(spec, card, 1)?;
        let pushes = scaled(range, factor);
        self.parts.push(Part {
            spec: spec.clone(),
            directions: Vec::new(),
            pushes,
        });
        Ok(())
    }

    /// What the forward pass is told, for a prompt of this many tokens. Nothing where nothing changes.
    #[must_use]
    pub fn interventions(&self, prompt: usize) -> Vec<Intervention> {
        let mut all = Vec::new();
        for part in &self.parts {
            let weights: Arc<[f32]> = stretched(&part.spec.token_weights, prompt).into();
            for (layer, push) in &part.pushes {
                let change = match push {
                    Push::Scale(factor) => Change::ScaleBlock(*factor),
                    Push::Add(vector) => Change::Add {
                        vector: Arc::clone(vector),
                        weights: Arc::clone(&weights),
                        keep_norm: part.spec.keep_norm,
                    },
                };
                all.push(Intervention {
                    layer: *layer,
                    positions: part.spec.tokens.positions(prompt),
                    change,
                });
            }
        }
        all
    }

    /// What the manifest says of it; `None` where there is no plan.
    #[must_use]
    pub fn description(&self) -> Option<Value> {
        let part = |part: &Part| {
            let spec = &part.spec;
            let layers: Vec<usize> = part.pushes.iter().map(|(layer, _)| *layer).collect();
            match &spec.effect {
                Effect::Scale(factor) => json!({
                    "scale": factor, "layers": layers, "tokens": spec.tokens.label(),
                }),
                Effect::Vector(path) => json!({
                    "path": crate::text::path(path), "strength": spec.strength, "layers": layers,
                    "layer_weights": spec.layer_weights, "tokens": spec.tokens.label(),
                    "token_weights": spec.token_weights, "keep_norm": spec.keep_norm,
                }),
            }
        };
        (!self.parts.is_empty()).then(|| self.parts.iter().map(part).collect())
    }
}

/// The layers asked for, or all from `first` on; for a vector without a range, from 1: the embedding only on demand.
fn within(spec: &Spec, card: &ModelCard, first: usize) -> Result<RangeInclusive<usize>> {
    let range = spec.layers.clone().unwrap_or(1..=card.blocks);
    if *range.start() < first || *range.end() > card.blocks {
        return Err(Error::Usage(format!(
            "the layers {}..{} are not all there: {} has {first}..{}",
            range.start(),
            range.end(),
            card.name,
            card.blocks
        )));
    }
    Ok(range)
}

/// The weight of one layer: there is one for each of the range, or for each of the model from layer 1 on.
fn layer_weight(
    spec: &Spec,
    layer: usize,
    range: &RangeInclusive<usize>,
    card: &ModelCard,
) -> Result<f64> {
    let weights = &spec.layer_weights;
    let chosen = range.end() + 1 - range.start();
    let at = match weights.len() {
        0 => return Ok(1.0),
        n if n == chosen => layer - range.start(),
        // The embedding has no weight of its own and keeps 1, as in llm_entropy.
        n if n == card.blocks && layer == 0 => return Ok(1.0),
        n if n == card.blocks => layer - 1,
        n => {
            return Err(Error::Usage(format!(
                "{n} layer weights were given for {chosen} layers of {}",
                card.blocks
            )));
        }
    };
    Ok(weights[at])
}

/// Weights stretched over `length` tokens by linear interpolation between the centres of equal parts (PyTorch's `interpolate`
/// with `align_corners=False`, as in llm_entropy).
fn stretched(weights: &[f64], length: usize) -> Vec<f32> {
    let Some(last) = weights.len().checked_sub(1) else {
        return Vec::new();
    };
    let ratio = weights.len() as f64 / length.max(1) as f64;
    let at = |token: usize| {
        let source = ((token as f64 + 0.5) * ratio - 0.5).max(0.0);
        let below = (source as usize).min(last);
        let above = (below + 1).min(last);
        let share = source - below as f64;
        (weights[below] + share * (weights[above] - weights[below])) as f32
    };
    (0..length).map(at).chain([weights[last] as f32]).collect()
}

fn listed(layers: &[usize]) -> String {
    match layers {
        [] => "none".into(),
        [one] => one.to_string(),
        [first, .., last] if last - first + 1 == layers.len() => format!("{first}..{last}"),
        many => many
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    }
}
