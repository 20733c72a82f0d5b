//! Prompts made from templates: for measurements over many texts of a kind, where no set of prompts is at hand.
//!
//! Templates and words lie in `sample_prompts/sentences.yaml`, which is part of the program. The same seed gives the same
//! sentences, and the first of many are those of few.

use crate::error::{Error, Result};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};

/// Templates and words.
const SOURCE: &str = include_str!("../../sample_prompts/sentences.yaml");
/// Most sentences that are made; there are more different ones of each kind.
pub const MOST: usize = 2000;
/// The slot that stays open for a masked model.
const GAP: &str = "gap";

/// What the sentences are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A model that goes on with a text: they end open.
    Open,
    /// A masked model: this stands in each of them where a word is missing.
    Masked(&'a str),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Templates {
    open: Vec<String>,
    masked: Vec<String>,
    fill: BTreeMap<String, Vec<String>>,
}

/// `count` different sentences.
///
/// # Errors
/// If none or more than [`MOST`] are asked for, or the templates cannot be filled.
pub fn sentences(count: usize, seed: u64, kind: Kind<'_>) -> Result<Vec<String>> {
    make(&templates()?, count, seed, kind)
}

fn templates() -> Result<Templates> {
    serde_saphyr::from_str(SOURCE).map_err(|e| broken(&crate::text::one_line(&e.to_string())))
}

fn broken(problem: &str) -> Error {
    Error::failed(
        format!("the templates of sentences cannot be used: {problem}"),
        "Give prompts of your own instead.",
    )
}

fn make(templates: &Templates, count: usize, seed: u64, kind: Kind<'_>) -> Result<Vec<String>> {
    if count == 0 || count > MOST {
        return Err(Error::Usage(format!(
            "{count} sentences cannot be made: ask for 1 to {MOST}"
        )));
    }
    let (shapes, mask) = match kind {
        Kind::Open => (&templates.open, None),
        Kind::Masked(mask) => (&templates.masked, Some(mask)),
    };
    let mut rng = StdRng::seed_from_u64(seed);
    let mut order: Vec<&String> = Vec::new();
    let (mut made, mut seen) = (Vec::new(), HashSet::new());
    // Far more than it takes where there are enough; an end where there are not.
    for _ in 0..100 * MOST {
        // Every template once before any comes again, in a new order each time.
        let shape = match order.pop() {
            Some(shape) => shape,
            None => {
                order.extend(shapes);
                order.shuffle(&mut rng);
                let Some(shape) = order.pop() else { break };
                shape
            }
        };
        let sentence = filled(shape, &templates.fill, mask, &mut rng)?;
        if seen.insert(sentence.clone()) {
            made.push(sentence);
        }
        if made.len() == count {
            return Ok(made);
        }
    }
    Err(broken("there are not enough of them"))
}

/// A template with a word in each slot.
fn filled(
    shape: &str,
    words: &BTreeMap<String, Vec<String>>,
    mask: Option<&str>,
    rng: &mut StdRng,
) -> Result<String> {
    let mut out = String::new();
    let mut used: Vec<&str> = Vec::new();
    let mut rest = shape;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let (slot, after) = after
            .split_once('}')
            .ok_or_else(|| broken("a slot is not closed"))?;
        rest = after;
        if let (GAP, Some(mask)) = (slot, mask) {
            out.push_str(mask);
            continue;
        }
        let words = words.get(slot);
        let free: Vec<&str> = words
            .into_iter()
            .flatten()
            .map(String::as_str)
            .filter(|word| !used.contains(word))
            .collect();
        if free.is_empty() {
            return Err(broken(&format!("there is no word for {slot}")));
        }
        let word = free[rng.random_range(0..free.len())];
        used.push(word);
        out.push_str(word);
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_sentences() {
        let many = sentences(200, 7, Kind::Open).unwrap();
        assert_eq!(sentences(200, 7, Kind::Open).unwrap(), many);
        assert_eq!(sentences(5, 7, Kind::Open).unwrap(), many[..5]);
        assert_ne!(sentences(5, 8, Kind::Open).unwrap(), many[..5]);
        let different: HashSet<&String> = many.iter().collect();
        assert_eq!(different.len(), 200);
        assert!(many.iter().all(|s| !s.contains(['{', '}'])));
    }

    #[test]
    fn every_template_comes_once_before_any_comes_again() {
        let all = templates().unwrap();
        for (shapes, kind) in [
            (&all.open, Kind::Open),
            (&all.masked, Kind::Masked("[MASK]")),
        ] {
            let made = sentences(shapes.len(), 1, kind).unwrap();
            for shape in shapes {
                // What stands before the first slot, or between the first two.
                let fixed = shape.split(['{', '}']).filter(|part| part.contains(' '));
                let longest = fixed.max_by_key(|part| part.len()).unwrap();
                assert!(made.iter().any(|s| s.contains(longest)), "{shape}");
            }
        }
    }

    #[test]
    fn masked_sentences_have_one_gap() {
        for sentence in sentences(100, 3, Kind::Masked("<mask>")).unwrap() {
            assert_eq!(sentence.matches("<mask>").count(), 1, "{sentence}");
        }
    }

    #[test]
    fn the_most_that_may_be_asked_for_is_there() {
        assert_eq!(sentences(MOST, 0, Kind::Open).unwrap().len(), MOST);
        let masked = Kind::Masked("[MASK]");
        assert_eq!(sentences(MOST, 0, masked).unwrap().len(), MOST);
        for count in [0, MOST + 1] {
            let error = sentences(count, 0, Kind::Open).unwrap_err();
            assert!(error.to_string().contains("1 to 2000"), "{error}");
        }
    }

    #[test]
    fn templates_that_cannot_be_filled_are_an_error() {
        let with = |open: &str, words: &[&str]| Templates {
            open: vec![open.into()],
            masked: Vec::new(),
            fill: [(
                "a".to_owned(),
                words.iter().map(|w| (*w).to_owned()).collect(),
            )]
            .into(),
        };
        let two = with("{a} and {a}", &["x", "y"]);
        let made = make(&two, 2, 0, Kind::Open).unwrap();
        assert!(made.contains(&"x and y".to_owned()) && made.contains(&"y and x".to_owned()));
        let refused = |templates: &Templates, count, what: &str| {
            let error = make(templates, count, 0, Kind::Open).unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        };
        refused(&two, 3, "not enough");
        refused(&with("{a} {a} {a}", &["x", "y"]), 1, "no word for a");
        refused(&with("{b}", &["x"]), 1, "no word for b");
        refused(&with("{gap}", &["x"]), 1, "no word for gap");
        refused(&with("{a", &["x"]), 1, "not closed");
    }
}
