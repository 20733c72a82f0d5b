//! Questions to a trained model, and the ledger of what it was told.

use super::World;
use super::phrasings::{CHAINS, HELD_OUT, RELATIONS, prompt};
use serde::{Deserialize, Serialize};

/// Openings of stories, for a model to go on with. Nothing in them is a fact of the world.
const OPENINGS: [&str; 12] = [
    "Once upon a time, there was a little bear who lived under a big tree. He",
    "One sunny morning, Mia found a shiny red button in the grass. She",
    "Tom had a toy boat. He wanted to take it to the pond, but",
    "The small grey cat was hungry. She looked in the kitchen and saw",
    "It was raining, so Anna and her brother stayed inside. They",
    "\"Can I play with you?\" asked the little duck. The frog",
    "Grandma gave Ben a big box. When he opened it, he",
    "There was once a tiny star who could not shine. Every night, she",
    "Sam heard a strange noise behind the door. He was scared, but",
    "Lucy wanted to bake a cake for her mom. First, she",
    "The old dog and the young rabbit were good friends. One day,",
    "At the park, Max saw a girl who was crying. He",
];

/// A prompt, and what is known about its right answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The sentence up to its answer, without the space before it.
    pub prompt: String,
    /// The answer with the space before it; empty where there is none to know.
    pub answer: String,
    /// The relation, the relations of a chain joined by `+`, or `story`.
    pub relation: String,
    /// Whom or what the prompt asks about; empty for a story.
    pub subject: String,
    /// Facts to be followed: 1, of a chain 2 or 3, of a story 0.
    pub hops: u8,
    /// Whether the text states what is asked: for a chain, in one sentence of its own.
    pub trained: bool,
}

/// The sets of probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probes {
    /// Stated facts, in the one phrasing in which each was never stated.
    pub known: Vec<Probe>,
    /// The same questions about names that occur in no text.
    pub near_ood: Vec<Probe>,
    /// The same questions about known names of which the answer was never stated.
    pub withheld: Vec<Probe>,
    /// Chains, trained and untrained.
    pub hops: Vec<Probe>,
    /// Story openings.
    pub stories: Vec<Probe>,
}

/// One line of the knowledge ledger: what the training text says, and what it keeps to itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LedgerEntry {
    /// Stated, in every phrasing but the held-out one if there is one (0 is the first).
    Fact {
        /// Its relation, or the relations of a chain joined by `+`.
        relation: String,
        /// Whom or what it is about.
        subject: String,
        /// What the text says of it.
        answer: String,
        /// The phrasing it is never stated in.
        held_out_phrasing: Option<usize>,
    },
    /// A known name of which this is never stated.
    Withheld {
        /// Its relation, or the relations of a chain joined by `+`.
        relation: String,
        /// Whom or what it is about.
        subject: String,
    },
    /// A name that occurs in no text and is asked about.
    Unseen {
        /// Its relation, or the relations of a chain joined by `+`.
        relation: String,
        /// Whom or what it is about.
        subject: String,
    },
    /// Stated facts that follow from one another; stated in one sentence only if `trained`.
    Chain {
        /// Its relation, or the relations of a chain joined by `+`.
        relation: String,
        /// Whom or what it is about.
        subject: String,
        /// The entities in between.
        via: Vec<String>,
        /// What the text says of it.
        answer: String,
        /// Whether the text states it in one sentence.
        trained: bool,
    },
}

impl World {
    /// The probes of this world.
    pub fn probes(&self) -> Probes {
        let ask = |relation: usize, subject: &str, answer: Option<&str>| Probe {
            prompt: prompt(RELATIONS[relation].phrasings[HELD_OUT], subject),
            answer: answer
                .map(|answer| format!(" {answer}"))
                .unwrap_or_default(),
            relation: RELATIONS[relation].name.to_owned(),
            subject: subject.to_owned(),
            hops: 1,
            trained: answer.is_some(),
        };
        let held_out = self.facts.iter().filter(|fact| fact.held_out);
        let chains = self.chains.iter().map(|chain| Probe {
            prompt: prompt(CHAINS[chain.kind].phrasings[0], &chain.subject),
            answer: format!(" {}", chain.answer),
            relation: CHAINS[chain.kind].name.to_owned(),
            subject: chain.subject.clone(),
            hops: chain.via.len() as u8 + 1,
            trained: chain.trained,
        });
        let stories = OPENINGS.iter().map(|opening| Probe {
            prompt: (*opening).to_owned(),
            answer: String::new(),
            relation: "story".to_owned(),
            subject: String::new(),
            hops: 0,
            trained: false,
        });
        Probes {
            known: held_out
                .map(|fact| ask(fact.relation, &fact.subject, Some(&fact.answer)))
                .collect(),
            near_ood: self
                .near
                .iter()
                .map(|ask_of| ask(ask_of.relation, &ask_of.subject, None))
                .collect(),
            withheld: self
                .withheld
                .iter()
                .map(|ask_of| ask(ask_of.relation, &ask_of.subject, None))
                .collect(),
            hops: chains.collect(),
            stories: stories.collect(),
        }
    }

    /// The knowledge ledger: facts, withheld pairs, unseen names and chains, in this order.
    pub fn ledger(&self) -> Vec<LedgerEntry> {
        let relation = |index: usize| RELATIONS[index].name.to_owned();
        let facts = self.facts.iter().map(|fact| LedgerEntry::Fact {
            relation: relation(fact.relation),
            subject: fact.subject.clone(),
            answer: fact.answer.clone(),
            held_out_phrasing: fact.held_out.then_some(HELD_OUT),
        });
        let withheld = self.withheld.iter().map(|pair| LedgerEntry::Withheld {
            relation: relation(pair.relation),
            subject: pair.subject.clone(),
        });
        let unseen = self.near.iter().map(|pair| LedgerEntry::Unseen {
            relation: relation(pair.relation),
            subject: pair.subject.clone(),
        });
        let chains = self.chains.iter().map(|chain| LedgerEntry::Chain {
            relation: CHAINS[chain.kind].name.to_owned(),
            subject: chain.subject.clone(),
            via: chain.via.clone(),
            answer: chain.answer.clone(),
            trained: chain.trained,
        });
        facts.chain(withheld).chain(unseen).chain(chains).collect()
    }
}
