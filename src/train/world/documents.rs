//! The world as text: an endless run of short documents for training, and sentences on one-off names
//! for the tokenizer.

use super::names::{self, Kind};
use super::phrasings::{Answers, CHAINS, HELD_OUT, PHRASINGS, RELATIONS, sentence};
use super::{World, rng};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use std::collections::BTreeSet;

/// How many one-off names are remembered, so that they stay one-off without growing for ever.
const REMEMBERED: usize = 200_000;
/// One sentence in so many of the tokenizer's text is a chain.
const CHAIN_EVERY: usize = 10;

/// What goes between the facts, as shares of the sentences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix {
    /// Facts about one-off names with drawn answers. They teach a model to expect, of a name it does
    /// not know, any answer rather than that of the most similar name.
    pub stranger_share: f64,
    /// Trained chains.
    pub hop_share: f64,
}

impl Default for Mix {
    fn default() -> Mix {
        Mix {
            stranger_share: 0.10,
            hop_share: 0.10,
        }
    }
}

/// Endless documents of one to five sentences (a stranger may bring one more). Each pass over the
/// facts states every fact once, in a phrasing drawn from those it is ever stated in; the trained
/// chains go round in the same way.
#[derive(Debug)]
pub struct Documents<'w> {
    world: &'w World,
    mix: Mix,
    rng: StdRng,
    /// Indices of the facts this pass has not stated yet.
    facts: Vec<usize>,
    /// Indices of the trained chains this round has not stated yet.
    chains: Vec<usize>,
    /// One-off names already used.
    met: BTreeSet<String>,
}

impl World {
    /// The training text of this world; equal seeds give equal documents.
    pub fn documents(&self, seed: u64, mix: Mix) -> Documents<'_> {
        Documents {
            world: self,
            mix,
            rng: rng(seed, 6),
            facts: Vec::new(),
            chains: Vec::new(),
            met: BTreeSet::new(),
        }
    }

    /// Sentences for training a tokenizer, in which every name is drawn for the occasion and none is
    /// known or asked about. A tokenizer that has met no known name cuts known and unknown ones
    /// alike, so that the number of tokens does not give the known ones away.
    pub fn tokenizer_text(&self, seed: u64, sentences: usize) -> Vec<String> {
        let mut rng = rng(seed, 7);
        let name = |kind: Kind, rng: &mut StdRng| loop {
            let name = names::draw(kind, rng);
            if !self.names.is_barred(&name) {
                break name;
            }
        };
        let answer = |relation: usize, rng: &mut StdRng| match RELATIONS[relation].answers {
            Answers::Names(kind) => name(kind, rng),
            Answers::Words(words) => words.choose(rng).copied().unwrap_or_default().to_owned(),
        };
        (0..sentences)
            .map(|i| {
                let (first, last, phrasings): (usize, usize, &[&str]) = if i % CHAIN_EVERY == 0 {
                    let chain = &CHAINS[rng.random_range(0..CHAINS.len())];
                    (
                        chain.path[0],
                        chain.path[chain.path.len() - 1],
                        &chain.phrasings,
                    )
                } else {
                    let relation = rng.random_range(0..RELATIONS.len());
                    (relation, relation, &RELATIONS[relation].phrasings)
                };
                let template = phrasings.choose(&mut rng).copied().unwrap_or_default();
                let subject = name(RELATIONS[first].subject, &mut rng);
                sentence(template, &subject, &answer(last, &mut rng))
            })
            .collect()
    }
}

impl Documents<'_> {
    /// The next fact of the pass, if one is left.
    fn fact(&mut self) -> Option<String> {
        let fact = &self.world.facts[self.facts.pop()?];
        let phrasings = if fact.held_out { HELD_OUT } else { PHRASINGS };
        let template = RELATIONS[fact.relation].phrasings[self.rng.random_range(0..phrasings)];
        Some(sentence(template, &fact.subject, &fact.answer))
    }

    /// The next trained chain, round after round.
    fn chain(&mut self) -> Option<String> {
        let chains = &self.world.chains;
        if self.chains.is_empty() {
            self.chains = (0..chains.len()).filter(|&i| chains[i].trained).collect();
            self.chains.shuffle(&mut self.rng);
        }
        let chain = &chains[self.chains.pop()?];
        let template = CHAINS[chain.kind].phrasings.choose(&mut self.rng)?;
        Some(sentence(template, &chain.subject, &chain.answer))
    }

    /// One fact, at times two, about somebody or something never mentioned again.
    fn stranger(&mut self) -> Vec<String> {
        let kind = RELATIONS[self.rng.random_range(0..RELATIONS.len())].subject;
        let name = self.one_off(kind);
        let mut relations: Vec<usize> = (0..RELATIONS.len())
            .filter(|&i| RELATIONS[i].subject == kind)
            .collect();
        relations.shuffle(&mut self.rng);
        relations.truncate(if self.rng.random_ratio(1, 3) { 2 } else { 1 });
        let mut said = Vec::new();
        for relation in relations {
            let template = RELATIONS[relation].phrasings[self.rng.random_range(0..PHRASINGS)];
            if let Some(answer) = self.world.answers(relation).choose(&mut self.rng) {
                said.push(sentence(template, &name, answer));
            }
        }
        said
    }

    fn one_off(&mut self, kind: Kind) -> String {
        if self.met.len() >= REMEMBERED {
            self.met.clear();
        }
        loop {
            let name = self.world.names.fresh(kind, &mut self.rng);
            if self.met.insert(name.clone()) {
                return name;
            }
        }
    }
}

impl Iterator for Documents<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        loop {
            if self.facts.is_empty() {
                self.facts = (0..self.world.facts.len()).collect();
                self.facts.shuffle(&mut self.rng);
            }
            let sentences = [1, 1, 2, 3, 4, 5]
                .choose(&mut self.rng)
                .copied()
                .unwrap_or(1);
            let mut said: Vec<String> = Vec::new();
            for _ in 0..sentences {
                let draw: f64 = self.rng.random();
                if draw < self.mix.stranger_share {
                    said.extend(self.stranger());
                } else if draw < self.mix.stranger_share + self.mix.hop_share {
                    said.extend(self.chain());
                } else if let Some(fact) = self.fact() {
                    said.push(fact);
                } else {
                    break;
                }
            }
            if !said.is_empty() {
                return Some(said.join(" "));
            }
        }
    }
}
