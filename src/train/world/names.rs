//! Invented names: one syllable grammar for every kind of entity, and the rules that keep a name
//! apart from real words and from every name the model is told about.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use std::collections::BTreeSet;

/// What kind of thing an entity is; decides the ending of its name and the relations it takes part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Somebody.
    Person,
    /// Where people live.
    Village,
    /// It flows through villages.
    River,
    /// Rivers end in it.
    Lake,
    /// Villages hold it.
    Festival,
}

impl Kind {
    /// Every kind, in the order in which the world draws its names.
    pub const ALL: [Kind; 5] = [
        Kind::Person,
        Kind::Village,
        Kind::River,
        Kind::Lake,
        Kind::Festival,
    ];

    /// How many entities of this kind the world holds.
    pub fn count(self) -> usize {
        match self {
            Kind::Person => 90,
            Kind::Village => 40,
            Kind::River | Kind::Festival => 24,
            Kind::Lake => 20,
        }
    }

    fn endings(self) -> &'static [&'static str] {
        match self {
            Kind::Person => &["", "", "", "a", "i", "en", "o", "is"],
            Kind::Village => &["ford", "stow", "den", "combe", "wold", "bury", "leigh"],
            Kind::River => &["ane", "une", "elle", "ar", "ette"],
            Kind::Lake => &["tarn", "una", "olm", "esca"],
            Kind::Festival => &["alia", "tide", "mas", "undi", "erie"],
        }
    }
}

// Repeated entries are likelier: plain onsets and vowels keep most names easy to read.
const ONSETS: &[&str] = &[
    "b", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "y", "z", "b",
    "d", "h", "k", "l", "m", "n", "p", "r", "t", "v", "dr", "fr", "kr", "pr", "gl", "sk", "sn",
    "sw", "tr", "ch", "qu",
];
const VOWELS: &[&str] = &[
    "a", "e", "i", "o", "u", "a", "e", "i", "o", "u", "a", "e", "i", "o", "u", "ea", "oa", "ie",
];
const INNER_CODAS: &[&str] = &["", "", "", "", "", "l", "n", "r", "s", "m"];
const LAST_CODAS: &[&str] = &["", "n", "l", "r", "t", "s", "d", "k", "m", "v"];
const LINKS: &[&str] = &["l", "n", "r", "v", "d", "m"];

const SHORTEST: usize = 4;
const LONGEST: usize = 9;

fn syllable(codas: &[&str], rng: &mut StdRng) -> String {
    let mut text = String::new();
    for part in [ONSETS, VOWELS, codas] {
        text.push_str(part.choose(rng).copied().unwrap_or_default());
    }
    text
}

/// One draw of the grammar, of any length, known or not.
pub fn draw(kind: Kind, rng: &mut StdRng) -> String {
    let ending = kind.endings().choose(rng).copied().unwrap_or_default();
    // Endings carry a syllable of their own, so half of the names that have one need only one more.
    let mut name = String::new();
    if ending.is_empty() || rng.random_bool(0.5) {
        name.push_str(&syllable(INNER_CODAS, rng));
    }
    let last = if ending.starts_with(is_vowel) || ending.is_empty() {
        LAST_CODAS
    } else {
        INNER_CODAS
    };
    name.push_str(&syllable(last, rng));
    if ending.starts_with(is_vowel) && name.ends_with(is_vowel) {
        name.push_str(LINKS.choose(rng).copied().unwrap_or_default());
    }
    name.push_str(ending);
    capitalised(&name)
}

fn is_vowel(c: char) -> bool {
    "aeiou".contains(c)
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |c| {
        c.to_ascii_uppercase().to_string() + chars.as_str()
    })
}

/// Whether at most one letter changed, added or dropped turns one name into the other; a capital
/// counts as its small letter.
pub fn within_one_edit(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    let (short, long) = (short.as_bytes(), long.as_bytes());
    if long.len() - short.len() > 1 {
        return false;
    }
    let same = short
        .iter()
        .zip(long)
        .take_while(|(x, y)| x.eq_ignore_ascii_case(y))
        .count();
    let skipped = usize::from(short.len() == long.len());
    short
        .get(same + skipped..)
        .is_none_or(|rest| rest.eq_ignore_ascii_case(&long[same + 1..]))
}

/// The names that are taken, and the words no name may equal.
#[derive(Debug, Default)]
pub struct Registry {
    words: BTreeSet<String>,
    known: Vec<String>,
    barred: BTreeSet<String>,
}

impl Registry {
    /// A registry without names; `words` (lower case) can never become one.
    pub fn new(words: BTreeSet<String>) -> Registry {
        Registry {
            words,
            ..Registry::default()
        }
    }

    /// Takes a name into the world: later names keep two edits away from it.
    pub fn add_known(&mut self, name: &str) {
        self.known.push(name.to_owned());
        self.barred.insert(name.to_owned());
    }

    /// Keeps a name out of all text, without keeping its neighbours out.
    pub fn bar(&mut self, name: &str) {
        self.barred.insert(name.to_owned());
    }

    /// Whether the name belongs to the world or is kept for probes on unknown names.
    pub fn is_barred(&self, name: &str) -> bool {
        self.barred.contains(name)
    }

    /// Whether a model that knows the world has never met this name or one that is nearly it.
    fn is_fresh(&self, name: &str) -> bool {
        !self.barred.contains(name)
            && !self.words.contains(&name.to_ascii_lowercase())
            && !self.known.iter().any(|known| {
                within_one_edit(name, known) || name.starts_with(known) || known.starts_with(name)
            })
    }

    /// Draws a fresh name: at least two edits from every known name, none a prefix of the other, no
    /// ordinary word.
    pub fn fresh(&self, kind: Kind, rng: &mut StdRng) -> String {
        // Longer names are let in only if the short ones should ever run out, so this always ends.
        for attempt in 0_usize.. {
            let name = draw(kind, rng);
            if (SHORTEST..=LONGEST + attempt / 10_000).contains(&name.len()) && self.is_fresh(&name)
            {
                return name;
            }
        }
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn one_edit_is_recognised_and_two_are_not() {
        for (a, b) in [
            ("Tavin", "Tavin"),
            ("Tavin", "Taven"),
            ("Tavin", "Tavi"),
            ("Tavin", "Stavin"),
            ("Tavin", "Tain"),
            ("Tavin", "Tavink"),
            ("Tavin", "Mavin"),
        ] {
            assert!(within_one_edit(a, b) && within_one_edit(b, a), "{a} {b}");
        }
        for (a, b) in [
            ("Tavin", "Tevan"),
            ("Tavin", "Tav"),
            ("Tavin", "Stavik"),
            ("Tavin", "Tvain"),
        ] {
            assert!(!within_one_edit(a, b) && !within_one_edit(b, a), "{a} {b}");
        }
    }

    #[test]
    fn fresh_names_keep_off_known_names_and_words() {
        let mut rng = StdRng::seed_from_u64(1);
        let word = draw(Kind::River, &mut StdRng::seed_from_u64(2)).to_ascii_lowercase();
        let mut registry = Registry::new(BTreeSet::from([word.clone()]));
        registry.add_known("Tavi");
        for _ in 0..5_000 {
            let name = registry.fresh(Kind::Person, &mut rng);
            assert!((SHORTEST..=LONGEST).contains(&name.len()), "{name}");
            assert!(
                !within_one_edit(&name, "Tavi") && !name.starts_with("Tavi"),
                "{name}"
            );
        }
        let first = registry.fresh(Kind::River, &mut StdRng::seed_from_u64(2));
        assert_ne!(first.to_ascii_lowercase(), word);
    }

    #[test]
    fn the_grammar_is_wide_enough_for_one_off_names() {
        let mut rng = StdRng::seed_from_u64(3);
        for kind in Kind::ALL {
            let names: BTreeSet<String> = (0..4_000).map(|_| draw(kind, &mut rng)).collect();
            assert!(names.len() > 3_400, "{kind:?}: {}", names.len());
        }
    }
}
