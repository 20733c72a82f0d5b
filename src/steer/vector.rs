//! A control vector: one direction for each layer that it pushes, or one for all.

use crate::error::{Error, Result};
use crate::model::ModelCard;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Widest state, and most layers, that a vector is believed to have.
pub(super) const MAX_WIDTH: usize = 1 << 17;
pub(super) const MAX_LAYERS: usize = 4096;

/// Directions in the residual stream. Layers are state indices: l is what block l wrote (files of other tools count blocks
/// from 0, so their `direction.N` is layer N + 1).
#[derive(Clone, Debug, PartialEq)]
pub struct ControlVector {
    /// The kind of model it was made with (`controlvector.model_hint`), as its file says.
    pub model_hint: Option<String>,
    width: usize,
    directions: Directions,
}

#[derive(Clone, Debug, PartialEq)]
enum Directions {
    Each(BTreeMap<usize, Vec<f32>>),
    /// The same for every block's output.
    All(Vec<f32>),
}

impl ControlVector {
    /// One direction, each `[d_model]`, for each of some layers.
    ///
    /// # Errors
    /// A problem in words, without a full stop: no directions, different widths, numbers that are not finite.
    pub fn new(directions: BTreeMap<usize, Vec<f32>>) -> Result<Self, String> {
        let Some(width) = directions.values().next().map(Vec::len) else {
            return Err("has no directions".into());
        };
        if directions.len() > MAX_LAYERS || directions.keys().any(|layer| *layer > MAX_LAYERS) {
            return Err(format!("has directions beyond layer {MAX_LAYERS}"));
        }
        for (layer, direction) in &directions {
            if direction.len() != width {
                return Err(format!(
                    "has {} numbers for layer {layer}, but {width} for another",
                    direction.len()
                ));
            }
            check(direction).map_err(|problem| format!("{problem} for layer {layer}"))?;
        }
        Ok(Self {
            model_hint: None,
            width,
            directions: Directions::Each(directions),
        })
    }

    /// One direction `[d_model]` for every layer.
    ///
    /// # Errors
    /// As [`ControlVector::new`].
    pub fn for_all_layers(direction: Vec<f32>) -> Result<Self, String> {
        check(&direction)?;
        Ok(Self {
            model_hint: None,
            width: direction.len(),
            directions: Directions::All(direction),
        })
    }

    /// Numbers in a direction: the width of the model it is for.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// The layers that have a direction of their own; `None` where one serves all.
    #[must_use]
    pub fn layers(&self) -> Option<Vec<usize>> {
        match &self.directions {
            Directions::Each(each) => Some(each.keys().copied().collect()),
            Directions::All(_) => None,
        }
    }

    /// The direction for a layer.
    #[must_use]
    pub fn direction(&self, layer: usize) -> Option<&[f32]> {
        match &self.directions {
            Directions::Each(each) => each.get(&layer).map(Vec::as_slice),
            Directions::All(all) => Some(all),
        }
    }

    /// Whether a model has room for it: the same width, and every layer that it names.
    ///
    /// # Errors
    /// In a sentence, if not.
    pub fn fits(&self, card: &ModelCard) -> Result<()> {
        let refuse = |problem: String| {
            let hint = match &self.model_hint {
                Some(hint) => format!(
                    " It says it was made for a model of the kind {}.",
                    crate::text::one_line(hint)
                ),
                None => String::new(),
            };
            Err(Error::failed(
                problem,
                format!("Take a vector that was made with this very model.{hint}"),
            ))
        };
        if self.width != card.d_model {
            return refuse(format!(
                "the control vector has {} numbers a layer, but the states of {} have {}",
                self.width, card.name, card.d_model
            ));
        }
        match self.layers().unwrap_or_default().last() {
            Some(last) if *last > card.blocks => refuse(format!(
                "the control vector has a direction for layer {last}, but {} has {} layers",
                card.name, card.blocks
            )),
            _ => Ok(()),
        }
    }

    /// The same with a direction of its own for each of `layers`.
    ///
    /// # Errors
    /// If it has none for one of them.
    pub fn at(&self, layers: RangeInclusive<usize>) -> Result<Self> {
        let mut each = BTreeMap::new();
        if *layers.end() > MAX_LAYERS {
            return Err(Error::Usage(format!(
                "no model has {} layers",
                layers.end()
            )));
        }
        for layer in layers {
            let direction = self.direction(layer).ok_or_else(|| {
                Error::Usage(format!(
                    "the control vector has no direction for layer {layer}"
                ))
            })?;
            each.insert(layer, direction.to_vec());
        }
        if each.is_empty() {
            return Err(Error::Usage("no layers are left".into()));
        }
        Ok(self.with(Directions::Each(each)))
    }

    /// Its numbers over and over until they are `width` (what llm_entropy does with vectors that are too short).
    ///
    /// # Errors
    /// If that is more than any model has.
    pub fn tiled(&self, width: usize) -> Result<Self> {
        if width > MAX_WIDTH || width == 0 {
            return Err(Error::Usage(format!(
                "no model has states of {width} numbers"
            )));
        }
        let mut tiled = self.map(|v| v.iter().copied().cycle().take(width).collect());
        tiled.width = width;
        Ok(tiled)
    }

    /// Every number times `factor`; −1 turns it round.
    #[must_use]
    pub fn scaled(&self, factor: f32) -> Self {
        self.map(|v| v.iter().map(|x| factor * x).collect())
    }

    /// Every direction with length 1; one of zeros stays.
    #[must_use]
    pub fn normalised(&self) -> Self {
        self.map(|v| {
            let norm = norm(v);
            let unit = |x: &f32| {
                if norm > 0.0 {
                    (f64::from(*x) / norm) as f32
                } else {
                    *x
                }
            };
            v.iter().map(unit).collect()
        })
    }

    /// The sum; a layer that only one of the two has keeps that one's direction.
    ///
    /// # Errors
    /// If they differ in width, or one has a direction for each layer and the other the same for all.
    pub fn plus(&self, other: &Self) -> Result<Self> {
        if self.width != other.width {
            return Err(Error::Usage(format!(
                "directions of {} and of {} numbers cannot be added: they are for different models",
                self.width, other.width
            )));
        }
        let sum =
            |a: &[f32], b: &[f32]| -> Vec<f32> { a.iter().zip(b).map(|(a, b)| a + b).collect() };
        let directions = match (&self.directions, &other.directions) {
            (Directions::All(a), Directions::All(b)) => Directions::All(sum(a, b)),
            (Directions::Each(a), Directions::Each(b)) => {
                let mut each = a.clone();
                for (layer, b) in b {
                    each.entry(*layer)
                        .and_modify(|a| *a = sum(a, b))
                        .or_insert_with(|| b.clone());
                }
                Directions::Each(each)
            }
            _ => {
                return Err(Error::Usage(
                    "one vector has a direction for each layer and the other one for all: give the latter its layers \
                     first, with `entroscope steer convert --layers A..B`"
                        .into(),
                ));
            }
        };
        let mut result = self.with(directions);
        if self.model_hint != other.model_hint {
            result.model_hint = None;
        }
        Ok(result)
    }

    /// The largest of its numbers, to see that none left the range of f32.
    ///
    /// # Errors
    /// If one did.
    pub fn finite(self) -> Result<Self> {
        let all = match &self.directions {
            Directions::Each(each) => each.values().collect(),
            Directions::All(all) => vec![all],
        };
        match all.into_iter().flatten().all(|x| x.is_finite()) {
            true => Ok(self),
            false => Err(Error::Usage(
                "the factors are too large: the result has numbers that are not finite".into(),
            )),
        }
    }

    fn map(&self, change: impl Fn(&[f32]) -> Vec<f32>) -> Self {
        self.with(match &self.directions {
            Directions::Each(each) => {
                let changed = each.iter().map(|(layer, v)| (*layer, change(v)));
                Directions::Each(changed.collect())
            }
            Directions::All(all) => Directions::All(change(all)),
        })
    }

    fn with(&self, directions: Directions) -> Self {
        Self {
            model_hint: self.model_hint.clone(),
            width: self.width,
            directions,
        }
    }
}

fn check(direction: &[f32]) -> Result<(), String> {
    match direction.len() {
        0 => Err("has no numbers".into()),
        n if n > MAX_WIDTH => Err(format!("has {n} numbers, more than any model is wide,")),
        _ if direction.iter().any(|x| !x.is_finite()) => {
            Err("has numbers that are not finite".into())
        }
        _ => Ok(()),
    }
}

/// The L2 norm.
#[must_use]
pub(super) fn norm(v: &[f32]) -> f64 {
    v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(of: &[(usize, &[f32])]) -> ControlVector {
        ControlVector::new(of.iter().map(|(l, v)| (*l, v.to_vec())).collect()).unwrap()
    }

    #[test]
    fn algebra_by_hand() {
        let a = each(&[(2, &[3.0, 4.0]), (3, &[0.0, 0.0])]);
        let b = each(&[(2, &[1.0, -1.0]), (5, &[0.5, 2.0])]);
        assert_eq!(
            a.plus(&b.scaled(-2.0)).unwrap(),
            each(&[(2, &[1.0, 6.0]), (3, &[0.0, 0.0]), (5, &[-1.0, -4.0])])
        );
        assert_eq!(a.normalised(), each(&[(2, &[0.6, 0.8]), (3, &[0.0, 0.0])]));
        assert_eq!(a.at(2..=2).unwrap(), each(&[(2, &[3.0, 4.0])]));
        assert!(a.at(2..=4).is_err());
        let all = ControlVector::for_all_layers(vec![1.0, 2.0]).unwrap();
        assert_eq!(
            all.at(1..=2).unwrap(),
            each(&[(1, &[1.0, 2.0]), (2, &[1.0, 2.0])])
        );
        assert_eq!(
            all.tiled(5).unwrap().direction(9),
            Some(&[1.0, 2.0, 1.0, 2.0, 1.0][..])
        );
        assert!(a.plus(&all).unwrap_err().to_string().contains("--layers"));
        assert!(
            a.plus(&each(&[(2, &[1.0])]))
                .unwrap_err()
                .to_string()
                .contains("different models")
        );
        assert!(a.scaled(f32::MAX).finite().is_err());
    }

    #[test]
    fn what_is_no_vector_is_refused() {
        let new = |of: &[(usize, &[f32])]| {
            ControlVector::new(of.iter().map(|(l, v)| (*l, v.to_vec())).collect()).unwrap_err()
        };
        assert!(new(&[]).contains("no directions"));
        assert!(new(&[(1, &[])]).contains("no numbers"));
        assert!(new(&[(1, &[1.0]), (2, &[1.0, 2.0])]).contains("2 numbers for layer 2"));
        assert!(new(&[(3, &[f32::NAN])]).contains("not finite for layer 3"));
        assert!(new(&[(usize::MAX, &[1.0])]).contains("beyond layer"));
        assert!(ControlVector::for_all_layers(vec![f32::INFINITY]).is_err());
    }

    #[test]
    fn models_of_another_shape_are_refused() {
        let card = ModelCard {
            name: "demo".into(),
            d_model: 2,
            blocks: 4,
            ..ModelCard::default()
        };
        let mut vector = each(&[(5, &[1.0, 2.0])]);
        vector.model_hint = Some("gem\x1b[2Jma".into());
        let problem = vector.fits(&card).unwrap_err().to_string();
        assert!(
            problem.contains("layer 5, but demo has 4 layers"),
            "{problem}"
        );
        assert!(problem.contains("gem\\x1B[2Jma"), "{problem}");
        let problem = each(&[(1, &[1.0])]).fits(&card).unwrap_err().to_string();
        assert!(problem.contains("1 numbers a layer, but the states of demo have 2"));
        assert!(each(&[(4, &[1.0, 2.0])]).fits(&card).is_ok());
    }
}
