//! What the world promises, checked on the text it makes.

use super::phrasings::{PHRASINGS, sentence};
use super::*;
use crate::stats::auroc;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// About 300,000 tokens of documents, as sentences.
const DOCUMENTS: usize = 9_000;

fn world(seed: u64) -> World {
    World::new(seed, &BTreeSet::new())
}

fn documents(world: &World) -> Vec<String> {
    world.documents(5, Mix::default()).take(DOCUMENTS).collect()
}

fn sentences(documents: &[String]) -> Vec<String> {
    let closed = |s: &str| {
        if s.ends_with('.') {
            s.to_owned()
        } else {
            format!("{s}.")
        }
    };
    documents
        .iter()
        .flat_map(|d| d.split(". ").map(closed))
        .collect()
}

fn words(documents: &[String]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for word in documents
        .iter()
        .flat_map(|d| d.split(|c: char| !c.is_ascii_alphabetic()))
    {
        *counts.entry(word.to_owned()).or_insert(0) += 1;
    }
    counts
}

/// Edit distance of lower-case names by the textbook table, independent of `within_one_edit`.
fn edits(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for j in 0..b.len() {
            let change = diagonal + usize::from(x != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[test]
fn sizes_are_those_of_the_recipe() {
    for seed in [1, 7] {
        let world = world(seed);
        let probes = world.probes();
        let entities: usize = Kind::ALL
            .iter()
            .map(|&kind| world.entities(kind).len())
            .sum();
        assert_eq!(entities, 198);
        assert_eq!((world.facts().len(), world.withheld().len()), (466, 86));
        assert_eq!((probes.known.len(), probes.near_ood.len()), (140, 220));
        assert_eq!(probes.withheld.len(), world.withheld().len());
        assert!(
            (380..500).contains(&probes.hops.len()),
            "{}",
            probes.hops.len()
        );
        assert!(probes.stories.len() >= 12);
        for kind in 0..CHAINS.len() {
            let of_kind: Vec<_> = world.chains().iter().filter(|c| c.kind == kind).collect();
            let trained = of_kind.iter().filter(|c| c.trained).count();
            assert_eq!(trained, of_kind.len().div_ceil(2));
        }
    }
}

#[test]
fn equal_seeds_give_equal_worlds_and_text() {
    let run = |seed: u64, text: u64| {
        let world = world(seed);
        let documents: Vec<String> = world.documents(text, Mix::default()).take(300).collect();
        (
            world.ledger(),
            world.probes(),
            world.tokenizer_text(text, 300),
            documents,
        )
    };
    assert_eq!(run(7, 1), run(7, 1));
    assert_ne!(run(7, 1).0, run(8, 1).0);
    assert_ne!(run(7, 1).3, run(7, 2).3);
}

#[test]
fn names_keep_two_edits_apart_and_are_no_words() {
    let world = world(7);
    let known: Vec<&String> = Kind::ALL
        .iter()
        .flat_map(|&kind| world.entities(kind))
        .collect();
    let own = own_words();
    for (i, name) in known.iter().enumerate() {
        assert!(!own.contains(&name.to_ascii_lowercase()), "{name}");
        for other in &known[i + 1..] {
            assert!(edits(name, other) >= 2, "{name} {other}");
            assert!(
                !name.starts_with(*other) && !other.starts_with(*name),
                "{name} {other}"
            );
        }
    }
    let mut seen = HashSet::new();
    for near in world.near() {
        assert!(
            seen.insert(&near.subject),
            "{} is asked about twice",
            near.subject
        );
        for name in &known {
            assert!(edits(&near.subject, name) >= 2, "{} {name}", near.subject);
        }
    }
}

#[test]
fn no_name_is_a_word_of_the_stories() {
    let free = world(7);
    let taken: BTreeSet<String> = free
        .entities(Kind::Person)
        .iter()
        .map(|name| name.to_ascii_lowercase())
        .collect();
    let bound = World::new(7, &taken);
    for kind in Kind::ALL {
        for name in bound.entities(kind) {
            assert!(!taken.contains(&name.to_ascii_lowercase()), "{name}");
        }
    }
}

#[test]
fn the_text_keeps_to_itself_what_the_probes_ask() {
    let world = world(7);
    let documents = documents(&world);
    let text = documents.join("\n");
    let words = words(&documents);
    let said: HashSet<String> = sentences(&documents).into_iter().collect();
    for near in world.near() {
        assert!(!words.contains_key(&near.subject), "{}", near.subject);
    }
    for pair in world.withheld() {
        for phrasing in RELATIONS[pair.relation].phrasings {
            assert!(!text.contains(&prompt(phrasing, &pair.subject)), "{pair:?}");
        }
    }
    let mut shown = 0;
    for fact in world.facts() {
        let phrasings = RELATIONS[fact.relation].phrasings;
        let stated = |i: usize| said.contains(&sentence(phrasings[i], &fact.subject, &fact.answer));
        assert!((0..HELD_OUT).any(stated), "{fact:?}");
        let asked = prompt(phrasings[HELD_OUT], &fact.subject);
        shown += usize::from(text.contains(&asked));
        assert!(!fact.held_out || !text.contains(&asked), "{fact:?}");
    }
    // The others are stated in the held-out phrasing too (a few not yet, after so short a text), so
    // that what is new in a known probe is the pairing of fact and phrasing, not the phrasing.
    assert!(shown > 310, "{shown} of 326");
    for chain in world.chains() {
        let phrasings = CHAINS[chain.kind].phrasings;
        let stated = phrasings.map(|p| text.contains(&prompt(p, &chain.subject)));
        assert_eq!(stated, [chain.trained; 2], "{chain:?}");
    }
    let probes = world.probes();
    for probe in probes
        .known
        .iter()
        .chain(&probes.near_ood)
        .chain(&probes.withheld)
    {
        assert!(!text.contains(&probe.prompt), "{}", probe.prompt);
    }
}

#[test]
fn exposures_are_even() {
    let world = world(7);
    let mut counts: HashMap<String, usize> = HashMap::new();
    for sentence in sentences(&documents(&world)) {
        *counts.entry(sentence).or_insert(0) += 1;
    }
    let count = |s: String| counts.get(&s).copied().unwrap_or(0);
    let range = |all: Vec<usize>| (*all.iter().min().unwrap(), *all.iter().max().unwrap());
    let facts = world.facts().iter().map(|fact| {
        let phrasings = RELATIONS[fact.relation].phrasings;
        phrasings
            .iter()
            .map(|p| count(sentence(p, &fact.subject, &fact.answer)))
            .sum()
    });
    let (least, most) = range(facts.collect());
    assert!(least >= 30 && most - least <= 1, "facts {least}..{most}");
    let chains = world
        .chains()
        .iter()
        .filter(|chain| chain.trained)
        .map(|chain| {
            let phrasings = CHAINS[chain.kind].phrasings;
            phrasings
                .iter()
                .map(|p| count(sentence(p, &chain.subject, &chain.answer)))
                .sum()
        });
    let (least, most) = range(chains.collect());
    assert!(least >= 5 && most - least <= 1, "chains {least}..{most}");
}

#[test]
fn strangers_and_chains_take_their_share() {
    let world = world(7);
    let known: HashSet<&String> = Kind::ALL
        .iter()
        .flat_map(|&kind| world.entities(kind))
        .collect();
    let strangers = |mix: Mix| {
        let said = sentences(&world.documents(5, mix).take(4_000).collect::<Vec<_>>());
        let about = |s: &&String| {
            !s.split(|c: char| !c.is_ascii_alphabetic())
                .any(|word| known.contains(&word.to_owned()) && !s.ends_with(&format!(" {word}.")))
        };
        said.iter().filter(about).count() as f64 / said.len() as f64
    };
    // A third of the strangers bring a second sentence.
    let share = strangers(Mix::default());
    assert!((0.10..0.16).contains(&share), "{share}");
    assert_eq!(
        strangers(Mix {
            stranger_share: 0.0,
            hop_share: 0.2
        }),
        0.0
    );
}

#[test]
fn strangers_are_met_once() {
    let world = world(7);
    let mix = Mix {
        stranger_share: 1.0,
        hop_share: 0.0,
    };
    let known: HashSet<&String> = Kind::ALL
        .iter()
        .flat_map(|&kind| world.entities(kind))
        .collect();
    let near: HashSet<&String> = world.near().iter().map(|pair| &pair.subject).collect();
    let templates: HashSet<&str> = templates().flat_map(|t| t.split([' ', '.'])).collect();
    let mut documents_of: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for (i, document) in world.documents(5, mix).take(2_000).enumerate() {
        for word in document.split(|c: char| !c.is_ascii_alphabetic()) {
            let is_name = word.starts_with(|c: char| c.is_ascii_uppercase())
                && !known.contains(&word.to_owned())
                && !templates.contains(word)
                && !world.answers(phrasings::MONTH).contains(&word);
            if is_name {
                documents_of.entry(word.to_owned()).or_default().insert(i);
            }
        }
    }
    assert!(documents_of.len() > 2_000);
    for (name, documents) in documents_of {
        assert_eq!(documents.len(), 1, "{name}");
        assert!(!near.contains(&name), "{name}");
    }
}

#[test]
fn the_probe_sets_differ_in_knowledge_only() {
    let world = world(7);
    let probes = world.probes();
    let sets = [&probes.known, &probes.near_ood, &probes.withheld];
    for set in sets {
        for probe in set {
            let about = RELATIONS.iter().find(|r| r.name == probe.relation).unwrap();
            assert_eq!(
                probe.prompt,
                prompt(about.phrasings[HELD_OUT], &probe.subject)
            );
        }
    }
    for relation in &RELATIONS {
        let share = |set: &Vec<Probe>| {
            set.iter().filter(|p| p.relation == relation.name).count() as f64 / set.len() as f64
        };
        for set in sets {
            assert!(
                (share(set) - share(&probes.known)).abs() < 0.02,
                "{}",
                relation.name
            );
        }
    }
    assert!(
        probes
            .known
            .iter()
            .all(|p| p.answer.starts_with(' ') && p.answer.len() > 1)
    );
    assert!(
        probes
            .near_ood
            .iter()
            .chain(&probes.withheld)
            .all(|p| p.answer.is_empty())
    );
}

#[test]
fn lengths_are_matched_by_whatever_measures_them() {
    // A stand-in for a tokenizer: vowels count double, so it differs from the number of characters.
    let measure = |text: &str| text.len() + text.matches(['a', 'e', 'o']).count();
    for seed in 1..6 {
        let mut world = world(seed);
        let before = world.tokenizer_text(1, 50);
        world.match_lengths(&measure);
        assert_eq!(
            before,
            world.tokenizer_text(1, 50),
            "the tokenizer must not depend on the choice"
        );
        let probes = world.probes();
        let lengths =
            |set: &[Probe]| -> Vec<f64> { set.iter().map(|p| measure(&p.prompt) as f64).collect() };
        let known = lengths(&probes.known);
        for (name, set) in [("near", &probes.near_ood), ("withheld", &probes.withheld)] {
            let auroc = auroc(&known, &lengths(set)).unwrap();
            assert!(
                (0.45..=0.55).contains(&auroc),
                "seed {seed}: known against {name} {auroc}"
            );
        }
    }
}

#[test]
fn answers_are_about_equally_common_and_never_the_subject() {
    let world = world(7);
    for (relation, about) in RELATIONS.iter().enumerate() {
        let mut counts: BTreeMap<&str, usize> = world
            .answers(relation)
            .into_iter()
            .map(|answer| (answer, 0))
            .collect();
        for (answer, subject) in world.truth[relation]
            .iter()
            .zip(world.entities(about.subject))
        {
            assert_ne!(answer, subject);
            *counts.get_mut(answer.as_str()).unwrap() += 1;
        }
        let (least, most) = (
            counts.values().min().unwrap(),
            counts.values().max().unwrap(),
        );
        assert!(most - least <= 1, "{}: {least}..{most}", about.name);
    }
}

#[test]
fn the_ledger_holds_every_fact_pair_and_chain_and_survives_json() {
    let world = world(7);
    let ledger = world.ledger();
    let lines = crate::train::to_jsonl(&ledger).unwrap();
    let back: Vec<LedgerEntry> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(back, ledger);
    let sizes = [
        world.facts().len(),
        world.withheld().len(),
        220,
        world.chains().len(),
    ];
    assert_eq!(ledger.len(), sizes.iter().sum::<usize>());
    let held = ledger.iter().filter(
        |e| matches!(e, LedgerEntry::Fact { held_out_phrasing: Some(p), .. } if *p == PHRASINGS - 1),
    );
    assert_eq!(held.count(), world.probes().known.len());
}

#[test]
fn the_tokenizers_text_names_nobody_who_is_known_or_asked_about() {
    let world = world(7);
    let words = words(&world.tokenizer_text(3, 5_000));
    for name in Kind::ALL.iter().flat_map(|&kind| world.entities(kind)) {
        assert!(!words.contains_key(name), "{name}");
    }
    for near in world.near() {
        assert!(!words.contains_key(&near.subject), "{}", near.subject);
    }
}

#[test]
fn probes_are_serialised_prompt_and_answer_first() {
    let line = serde_json::to_string(&world(7).probes().known[0]).unwrap();
    assert!(line.starts_with(r#"{"prompt":"The place "#), "{line}");
    assert!(line.contains(r#" calls home is","answer":" "#), "{line}");
}
