//! The synthetic world: invented entities, what is true of them, and what of that is ever told.
//!
//! Every entity has one answer to each relation of its kind. Part of these pairs are *withheld*
//! (never stated, for names that are otherwise familiar), part of the stated ones are never stated in
//! the last phrasing, and names kept in reserve occur in no text at all. The three sets of probes
//! follow from that: known, withheld and near-OOD. All three are asked in the same phrasing, with the
//! same mix of relations and equally long names, so that only knowledge tells them apart.
//!
//! * `names`: the grammar of names.
//! * `phrasings`: relations, chains and their sentences.
//! * `documents`: the endless text made of the stated facts.
//! * `probes`: the questions, and the ledger of what was told.

pub mod documents;
pub mod names;
pub mod phrasings;
pub mod probes;

pub use documents::{Documents, Mix};
pub use probes::{LedgerEntry, Probe, Probes};

use names::{Kind, Registry};
use phrasings::{Answers, CHAINS, HELD_OUT, RELATIONS, prompt, templates};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};

/// Share of a relation's subjects for whom it is never stated.
const WITHHELD_SHARE: f64 = 0.15;
/// Share of a relation's stated facts that are never stated in the held-out phrasing.
const HELD_OUT_SHARE: f64 = 0.30;
/// Probes on names that occur in no text.
const NEAR_PROBES: usize = 220;
/// Names in reserve, as a multiple of a kind's entities: enough to choose among by length.
const RESERVE: usize = 5;

/// A fact that the training text states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Index into [`RELATIONS`].
    pub relation: usize,
    /// Whom or what it is about.
    pub subject: String,
    /// What is said of it.
    pub answer: String,
    /// Never stated in the phrasing [`HELD_OUT`], and therefore a known probe.
    pub held_out: bool,
}

/// A pair of relation and known subject of which the text says nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unstated {
    /// Index into [`RELATIONS`].
    pub relation: usize,
    /// Whom or what it would be about.
    pub subject: String,
}

/// Two or three stated facts that follow from one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Index into [`CHAINS`].
    pub kind: usize,
    /// Where it begins.
    pub subject: String,
    /// The entities between subject and answer.
    pub via: Vec<String>,
    /// Where it ends.
    pub answer: String,
    /// Whether the text ever states it in one sentence.
    pub trained: bool,
}

/// The world of one seed.
#[derive(Debug)]
pub struct World {
    seed: u64,
    names: Registry,
    /// Names by `Kind as usize`.
    entities: Vec<Vec<String>>,
    /// Names that occur in no text, by `Kind as usize`; near-OOD subjects are chosen among them.
    reserve: Vec<Vec<String>>,
    /// The answer of each subject, by relation, in the order of `entities`.
    truth: Vec<Vec<String>>,
    facts: Vec<Fact>,
    withheld: Vec<Unstated>,
    near: Vec<Unstated>,
    chains: Vec<Chain>,
}

/// A generator of its own for each purpose, so that drawing more for one never shifts another.
fn rng(seed: u64, purpose: u64) -> StdRng {
    StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ purpose)
}

impl World {
    /// Makes the world of a seed. No name equals one of `story_words` (lower case) or a word of the
    /// phrasings. Prompts are matched by their length in characters; see [`World::match_lengths`].
    pub fn new(seed: u64, story_words: &BTreeSet<String>) -> World {
        let mut rng = rng(seed, 1);
        let mut words = story_words.clone();
        words.extend(own_words());
        let mut names = Registry::new(words);
        let mut draw = |kind: Kind, names: &mut Registry| {
            let name = names.fresh(kind, &mut rng);
            names.add_known(&name);
            name
        };
        let entities = Kind::ALL
            .map(|kind| (0..kind.count()).map(|_| draw(kind, &mut names)).collect())
            .to_vec();
        let mut world = World {
            seed,
            names,
            entities,
            reserve: Vec::new(),
            truth: Vec::new(),
            facts: Vec::new(),
            withheld: Vec::new(),
            near: Vec::new(),
            chains: Vec::new(),
        };
        world.draw_reserve();
        world.draw_truth();
        world.match_lengths(&|text| text.chars().count());
        world
    }

    /// Chooses anew which facts are withheld, which are never stated in the held-out phrasing and
    /// which fresh names are asked about, so that the prompts of the three sets are equally long by
    /// the measure given. Names and truth stay as they are, and so does [`World::tokenizer_text`]:
    /// call it with a tokenizer's count once that tokenizer is trained, and before any text is drawn.
    pub fn match_lengths(&mut self, length: &dyn Fn(&str) -> usize) {
        let mut rng = rng(self.seed, 4);
        self.facts.clear();
        self.withheld.clear();
        let mut held_lengths: Vec<Vec<usize>> = Vec::new();
        for (relation, about) in RELATIONS.iter().enumerate() {
            let subjects = &self.entities[about.subject as usize];
            let mut order: Vec<(usize, u32, usize)> = subjects
                .iter()
                .enumerate()
                .map(|(i, name)| {
                    (
                        length(&prompt(about.phrasings[HELD_OUT], name)),
                        rng.random(),
                        i,
                    )
                })
                .collect();
            order.sort_unstable();
            let withheld = spread(order.len(), WITHHELD_SHARE);
            let (unstated, stated) = split(order, &withheld);
            let held = spread(stated.len(), HELD_OUT_SHARE);
            let (held, seen) = split(stated, &held);
            let held_subjects: BTreeSet<usize> = held.iter().map(|entry| entry.2).collect();
            let mut stated: Vec<usize> = held.iter().chain(&seen).map(|entry| entry.2).collect();
            stated.sort_unstable();
            self.facts.extend(stated.into_iter().map(|i| Fact {
                relation,
                subject: subjects[i].clone(),
                answer: self.truth[relation][i].clone(),
                held_out: held_subjects.contains(&i),
            }));
            self.withheld.extend(unstated.iter().map(|entry| Unstated {
                relation,
                subject: subjects[entry.2].clone(),
            }));
            held_lengths.push(held.iter().map(|entry| entry.0).collect());
        }
        self.choose_near(&held_lengths, length);
        self.follow_chains();
    }

    /// Every stated fact, ordered by relation.
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }

    /// Every pair of relation and known name that is never stated.
    pub fn withheld(&self) -> &[Unstated] {
        &self.withheld
    }

    /// What the near-OOD probes ask. Each name stands in one of them, and in no text.
    pub fn near(&self) -> &[Unstated] {
        &self.near
    }

    /// Every chain of stated facts, whether trained or not.
    pub fn chains(&self) -> &[Chain] {
        &self.chains
    }

    /// The known names of a kind.
    pub fn entities(&self, kind: Kind) -> &[String] {
        &self.entities[kind as usize]
    }

    /// What a relation can be answered with.
    fn answers(&self, relation: usize) -> Vec<&str> {
        match RELATIONS[relation].answers {
            Answers::Names(kind) => self.entities(kind).iter().map(String::as_str).collect(),
            Answers::Words(words) => words.to_vec(),
        }
    }

    fn draw_reserve(&mut self) {
        let mut rng = rng(self.seed, 2);
        for kind in Kind::ALL {
            let mut reserve = Vec::new();
            for _ in 0..kind.count() * RESERVE {
                let name = self.names.fresh(kind, &mut rng);
                self.names.bar(&name);
                reserve.push(name);
            }
            self.reserve.push(reserve);
        }
    }

    /// Deals the answers like cards, so that each is about equally common: what a model then expects
    /// of an unknown name is flat.
    fn draw_truth(&mut self) {
        let mut rng = rng(self.seed, 3);
        for (relation, about) in RELATIONS.iter().enumerate() {
            let subjects = &self.entities[about.subject as usize];
            let mut deck: Vec<&str> = Vec::new();
            while deck.len() < subjects.len() {
                let mut round = self.answers(relation);
                round.shuffle(&mut rng);
                deck.extend(round);
            }
            let mut dealt: Vec<String> = deck[..subjects.len()]
                .iter()
                .map(ToString::to_string)
                .collect();
            // Nobody is their own teacher: who draws their own name swaps with the next in line.
            for i in 0..dealt.len() {
                if dealt[i] == subjects[i] {
                    dealt.swap(i, (i + 1) % subjects.len());
                }
            }
            self.truth.push(dealt);
        }
    }

    /// Near-OOD probes: as many per relation as its share of the known probes, each on a name of its
    /// own from the reserve, with the known prompts' distribution of lengths.
    fn choose_near(&mut self, held_lengths: &[Vec<usize>], length: &dyn Fn(&str) -> usize) {
        let total: usize = held_lengths.iter().map(Vec::len).sum();
        let mut free: Vec<Vec<&String>> = self
            .reserve
            .iter()
            .map(|names| names.iter().collect())
            .collect();
        let mut near = Vec::new();
        let mut before = 0;
        for (relation, lengths) in held_lengths.iter().enumerate() {
            let about = &RELATIONS[relation];
            let free = &mut free[about.subject as usize];
            let quota =
                (before + lengths.len()) * NEAR_PROBES / total - before * NEAR_PROBES / total;
            before += lengths.len();
            let mut candidates: Vec<(usize, &String)> = free
                .iter()
                .map(|&name| (length(&prompt(about.phrasings[HELD_OUT], name)), name))
                .collect();
            for i in 0..quota {
                let wanted = lengths[(2 * i + 1) * lengths.len() / (2 * quota)];
                let best = (0..candidates.len())
                    .min_by_key(|&candidate| candidates[candidate].0.abs_diff(wanted));
                if let Some(best) = best {
                    let (_, subject) = candidates.remove(best);
                    near.push(Unstated {
                        relation,
                        subject: subject.clone(),
                    });
                }
            }
            *free = candidates.into_iter().map(|(_, name)| name).collect();
        }
        self.near = near;
    }

    /// Follows every chain whose facts are all stated; of each kind, every second one is trained.
    fn follow_chains(&mut self) {
        let mut rng = rng(self.seed, 5);
        let stated: BTreeMap<(usize, &str), &str> = self
            .facts
            .iter()
            .map(|fact| ((fact.relation, fact.subject.as_str()), fact.answer.as_str()))
            .collect();
        let mut chains = Vec::new();
        for (kind, chain) in CHAINS.iter().enumerate() {
            let first = RELATIONS[chain.path[0]].subject;
            let mut found: Vec<Chain> = Vec::new();
            for subject in self.entities(first) {
                let steps: Option<Vec<&str>> = chain
                    .path
                    .iter()
                    .scan(subject.as_str(), |at, &relation| {
                        let answer = stated.get(&(relation, *at)).copied();
                        *at = answer.unwrap_or_default();
                        Some(answer)
                    })
                    .collect();
                if let Some((answer, via)) = steps.as_deref().and_then(<[&str]>::split_last) {
                    found.push(Chain {
                        kind,
                        subject: subject.clone(),
                        via: via.iter().map(ToString::to_string).collect(),
                        answer: (*answer).to_owned(),
                        trained: false,
                    });
                }
            }
            found.shuffle(&mut rng);
            for chain in found.iter_mut().step_by(2) {
                chain.trained = true;
            }
            found.sort_by(|a, b| a.subject.cmp(&b.subject));
            chains.extend(found);
        }
        self.chains = chains;
    }
}

/// The words of the phrasings and of the answers, lower case.
fn own_words() -> BTreeSet<String> {
    let answers = RELATIONS
        .iter()
        .flat_map(|relation| match relation.answers {
            Answers::Words(words) => words,
            Answers::Names(_) => &[],
        });
    templates()
        .flat_map(|template| template.split(|c: char| !c.is_ascii_alphabetic()))
        .chain(answers.copied())
        .map(str::to_ascii_lowercase)
        .collect()
}

/// Positions that take `share` of `len` places and lie evenly among them. In a list ordered by
/// length, what stands there and what does not are therefore equally long.
fn spread(len: usize, share: f64) -> BTreeSet<usize> {
    let chosen = (len as f64 * share).round() as usize;
    (0..chosen)
        .map(|i| (2 * i + 1) * len / (2 * chosen))
        .collect()
}

/// The entries at the positions, and the others, both in their order.
fn split<T: Copy>(entries: Vec<T>, positions: &BTreeSet<usize>) -> (Vec<T>, Vec<T>) {
    let (mut chosen, mut others) = (Vec::new(), Vec::new());
    for (i, entry) in entries.into_iter().enumerate() {
        if positions.contains(&i) {
            chosen.push(entry);
        } else {
            others.push(entry);
        }
    }
    (chosen, others)
}

#[cfg(test)]
mod tests;
