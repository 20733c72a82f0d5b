//! What can be said about the world, and how: ten relations in six phrasings each, and eight kinds
//! of chains that put two or three relations into one sentence.
//!
//! The answer is always the last thing a sentence says, so that a prompt is the sentence without it.
//! No prompt may occur inside a sentence that says something else; the tests hold every pair of
//! templates against one another.

use super::names::Kind;

/// Phrasings of a relation.
pub const PHRASINGS: usize = 6;
/// The phrasing that some facts are never stated in; every probe set but the chains is asked in it.
pub const HELD_OUT: usize = 5;

/// What the answers of a relation are.
#[derive(Clone, Copy, Debug)]
pub enum Answers {
    /// Entities of the world.
    Names(Kind),
    /// Ordinary words.
    Words(&'static [&'static str]),
}

/// Something said of every entity of one kind.
#[derive(Debug)]
pub struct Relation {
    /// Its name in probes and ledger.
    pub name: &'static str,
    /// What it is said of.
    pub subject: Kind,
    /// What its answers are.
    pub answers: Answers,
    /// Templates with `{x}` for the subject, ending in ` {y}.` for the answer.
    pub phrasings: [&'static str; PHRASINGS],
}

/// Relations followed one after the other, said in one sentence.
#[derive(Debug)]
pub struct ChainKind {
    /// The names of its relations, joined by `+`.
    pub name: &'static str,
    /// Indices into [`RELATIONS`], in the order in which they are followed.
    pub path: &'static [usize],
    /// Templates as in [`Relation::phrasings`]; the first one is the probe's.
    pub phrasings: [&'static str; 2],
}

/// Index of `home` in [`RELATIONS`].
pub const HOME: usize = 0;
/// Index of `trade` in [`RELATIONS`].
pub const TRADE: usize = 1;
/// Index of `treasure` in [`RELATIONS`].
pub const TREASURE: usize = 2;
/// Index of `teacher` in [`RELATIONS`].
pub const TEACHER: usize = 3;
/// Index of `river` in [`RELATIONS`].
pub const RIVER: usize = 4;
/// Index of `craft` in [`RELATIONS`].
pub const CRAFT: usize = 5;
/// Index of `festival` in [`RELATIONS`].
pub const FESTIVAL: usize = 6;
/// Index of `lake` in [`RELATIONS`].
pub const LAKE: usize = 7;
/// Index of `month` in [`RELATIONS`].
pub const MONTH: usize = 8;
/// Index of `dish` in [`RELATIONS`].
pub const DISH: usize = 9;

// Words that follow "a" begin with a consonant.
const TRADES: &[&str] = &[
    "barber",
    "blacksmith",
    "butcher",
    "clockmaker",
    "cook",
    "dancer",
    "ferryman",
    "florist",
    "gardener",
    "goldsmith",
    "judge",
    "librarian",
    "mason",
    "nurse",
    "plumber",
    "postman",
    "roofer",
    "saddler",
    "tailor",
    "watchman",
];
const TREASURES: &[&str] = &[
    "bell", "blanket", "candle", "compass", "drum", "fiddle", "hammer", "kite", "ladder",
    "lantern", "mirror", "necklace", "pencil", "pillow", "puzzle", "ribbon", "spoon", "teapot",
    "trumpet", "whistle",
];
const CRAFTS: &[&str] = &[
    "barrels", "baskets", "boots", "bricks", "brooms", "buttons", "carpets", "clocks", "flutes",
    "gloves", "hats", "knives", "nets", "quilts", "ropes", "saddles", "sails", "vases",
];
const DISHES: &[&str] = &[
    "biscuits",
    "carrots",
    "cherries",
    "chestnuts",
    "custard",
    "dumplings",
    "lentils",
    "noodles",
    "pancakes",
    "peaches",
    "pickles",
    "porridge",
    "pudding",
    "pumpkin",
    "raisins",
    "waffles",
];
const MONTHS: &[&str] = &[
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Every relation, at the index of its constant.
pub static RELATIONS: [Relation; 10] = [
    Relation {
        name: "home",
        subject: Kind::Person,
        answers: Answers::Names(Kind::Village),
        phrasings: [
            "{x} has a home in {y}.",
            "You will find the house of {x} in {y}.",
            "After a long day {x} walks back to {y}.",
            "{x} was born and still lives in {y}.",
            "Letters for {x} are sent to {y}.",
            "The place {x} calls home is {y}.",
        ],
    },
    Relation {
        name: "trade",
        subject: Kind::Person,
        answers: Answers::Words(TRADES),
        phrasings: [
            "{x} earns a living as a {y}.",
            "Most days {x} is busy being a {y}.",
            "Even as a child {x} hoped to be a {y}.",
            "Everyone is glad that {x} is a skilled {y}.",
            "People pay {x} for the work of a {y}.",
            "The trade of {x} is that of a {y}.",
        ],
    },
    Relation {
        name: "treasure",
        subject: Kind::Person,
        answers: Answers::Words(TREASURES),
        phrasings: [
            "{x} owns a little {y}.",
            "On the shelf of {x} there is a {y}.",
            "{x} would never give away the old {y}.",
            "For a birthday {x} was given a {y}.",
            "Nobody but {x} may touch the {y}.",
            "The dearest thing {x} has is a {y}.",
        ],
    },
    Relation {
        name: "teacher",
        subject: Kind::Person,
        answers: Answers::Names(Kind::Person),
        phrasings: [
            "{x} was taught by {y}.",
            "The teacher of {x} was {y}.",
            "All that {x} knows comes from {y}.",
            "When {x} was small, lessons were given by {y}.",
            "If a task is hard, {x} asks {y}.",
            "The one who taught {x} to read is {y}.",
        ],
    },
    Relation {
        name: "river",
        subject: Kind::Village,
        answers: Answers::Names(Kind::River),
        phrasings: [
            "{x} stands beside the river {y}.",
            "The mill at {x} is turned by the {y}.",
            "Children from {x} catch fish in the {y}.",
            "The gardens of {x} drink from the {y}.",
            "A stone bridge leads out of {x} over the {y}.",
            "The stream that passes {x} is the {y}.",
        ],
    },
    Relation {
        name: "craft",
        subject: Kind::Village,
        answers: Answers::Words(CRAFTS),
        phrasings: [
            "{x} is famous for making {y}.",
            "The workshops of {x} turn out fine {y}.",
            "Traders ride to {x} to buy {y}.",
            "The pride of {x} has always been its {y}.",
            "Grandparents in {x} show the young how to make {y}.",
            "The craft of {x} is the making of {y}.",
        ],
    },
    Relation {
        name: "festival",
        subject: Kind::Village,
        answers: Answers::Names(Kind::Festival),
        phrasings: [
            "{x} holds a festival named {y}.",
            "The streets of {x} are crowded at {y}.",
            "Bells ring all over {x} for {y}.",
            "The big day of the year in {x} is {y}.",
            "Nobody wants to leave {x} before {y}.",
            "The festival that {x} keeps is {y}.",
        ],
    },
    Relation {
        name: "lake",
        subject: Kind::River,
        answers: Answers::Names(Kind::Lake),
        phrasings: [
            "The {x} empties into lake {y}.",
            "Rafts drift down the {x} to lake {y}.",
            "Where the {x} stops, there is lake {y}.",
            "Salmon leave the {x} for lake {y}.",
            "The mud of the {x} settles in lake {y}.",
            "The waters of the {x} come to rest in lake {y}.",
        ],
    },
    Relation {
        name: "month",
        subject: Kind::Festival,
        answers: Answers::Words(MONTHS),
        phrasings: [
            "{x} falls in {y}.",
            "The drums of {x} are heard in {y}.",
            "The time for {x} is {y}.",
            "Guests arrive for {x} at the start of {y}.",
            "Every calendar shows {x} in {y}.",
            "The month that brings {x} is {y}.",
        ],
    },
    Relation {
        name: "dish",
        subject: Kind::Festival,
        answers: Answers::Words(DISHES),
        phrasings: [
            "At {x} everyone eats {y}.",
            "No {x} goes by without {y}.",
            "The cooks of {x} prepare {y}.",
            "The smell of {x} is the smell of {y}.",
            "During {x} the tables are laid with {y}.",
            "The dish that belongs to {x} is {y}.",
        ],
    },
];

/// Every kind of chain: six of two hops, two of three.
pub static CHAINS: [ChainKind; 8] = [
    ChainKind {
        name: "home+river",
        path: &[HOME, RIVER],
        phrasings: [
            "The river in the home village of {x} is the {y}.",
            "{x} comes from a village on the {y}.",
        ],
    },
    ChainKind {
        name: "home+craft",
        path: &[HOME, CRAFT],
        phrasings: [
            "In the home village of {x} people make {y}.",
            "{x} grew up among makers of {y}.",
        ],
    },
    ChainKind {
        name: "home+festival",
        path: &[HOME, FESTIVAL],
        phrasings: [
            "The festival in the home village of {x} is called {y}.",
            "The neighbours of {x} all dance at {y}.",
        ],
    },
    ChainKind {
        name: "river+lake",
        path: &[RIVER, LAKE],
        phrasings: [
            "The river of {x} feeds lake {y}.",
            "Water from {x} ends up in lake {y}.",
        ],
    },
    ChainKind {
        name: "festival+month",
        path: &[FESTIVAL, MONTH],
        phrasings: [
            "The festival of {x} is kept in {y}.",
            "{x} puts on its festival clothes in {y}.",
        ],
    },
    ChainKind {
        name: "teacher+trade",
        path: &[TEACHER, TRADE],
        phrasings: [
            "The teacher of {x} works as a {y}.",
            "{x} had lessons from a {y}.",
        ],
    },
    ChainKind {
        name: "home+river+lake",
        path: &[HOME, RIVER, LAKE],
        phrasings: [
            "The river in the home village of {x} feeds lake {y}.",
            "From the home of {x} the water runs on to lake {y}.",
        ],
    },
    ChainKind {
        name: "home+festival+dish",
        path: &[HOME, FESTIVAL, DISH],
        phrasings: [
            "The festival food in the home village of {x} is {y}.",
            "On the great day of the village {x} eats {y}.",
        ],
    },
];

/// The sentence a template makes of a subject and an answer.
pub fn sentence(template: &str, subject: &str, answer: &str) -> String {
    template.replace("{x}", subject).replace("{y}", answer)
}

/// The sentence up to its answer, without the space before it.
pub fn prompt(template: &str, subject: &str) -> String {
    template
        .strip_suffix(" {y}.")
        .unwrap_or(template)
        .replace("{x}", subject)
}

/// Every template there is, of relations and of chains.
pub fn templates() -> impl Iterator<Item = &'static str> {
    let relations = RELATIONS.iter().flat_map(|relation| relation.phrasings);
    relations.chain(CHAINS.iter().flat_map(|chain| chain.phrasings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_name_their_relations() {
        let names: Vec<&str> = RELATIONS.iter().map(|relation| relation.name).collect();
        for chain in &CHAINS {
            let path: Vec<&str> = chain.path.iter().map(|&step| names[step]).collect();
            assert_eq!(chain.name, path.join("+"));
            for pair in chain.path.windows(2) {
                let Answers::Names(kind) = RELATIONS[pair[0]].answers else {
                    panic!("{}: a word cannot be followed further", chain.name)
                };
                assert_eq!(kind, RELATIONS[pair[1]].subject, "{}", chain.name);
            }
        }
        let hops: Vec<usize> = CHAINS.iter().map(|chain| chain.path.len()).collect();
        assert_eq!(hops, [2, 2, 2, 2, 2, 2, 3, 3]);
    }

    #[test]
    fn every_template_is_one_sentence_about_x_that_ends_in_its_answer() {
        for template in templates() {
            assert_eq!(template.matches("{x}").count(), 1, "{template}");
            assert_eq!(template.matches("{y}").count(), 1, "{template}");
            assert_eq!(template.matches('.').count(), 1, "{template}");
            assert!(template.ends_with(" {y}."), "{template}");
            assert_eq!(
                prompt(template, "Xan") + " Yor.",
                sentence(template, "Xan", "Yor")
            );
        }
    }

    #[test]
    fn no_prompt_occurs_in_a_sentence_of_another_template() {
        // Case is ignored, which is stricter than the text is; a name can stand at either end.
        for asked in templates() {
            let asked_prompt = prompt(asked, "Xan").to_lowercase();
            for said in templates().filter(|&said| said != asked) {
                for (subject, answer) in [("Xan", "Yor"), ("Yor", "Xan")] {
                    let said = sentence(said, subject, answer).to_lowercase();
                    assert!(!said.contains(&asked_prompt), "{asked:?} in {said:?}");
                }
            }
        }
    }

    #[test]
    fn templates_and_answer_words_are_all_different() {
        let mut all: Vec<&str> = templates().collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), RELATIONS.len() * PHRASINGS + CHAINS.len() * 2);
        for relation in &RELATIONS {
            if let Answers::Words(words) = relation.answers {
                let mut sorted = words.to_vec();
                sorted.sort_unstable();
                sorted.dedup();
                assert_eq!(sorted.len(), words.len(), "{}", relation.name);
                if relation.phrasings.iter().any(|p| p.ends_with(" a {y}.")) {
                    assert!(
                        words
                            .iter()
                            .all(|w| !w.starts_with(['a', 'e', 'i', 'o', 'u']))
                    );
                }
            }
        }
    }
}
