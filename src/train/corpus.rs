//! Text to tokens: cleans a story corpus, and packs documents of both kinds into one flat stream.

use super::DataError;
use super::tokenizer::MARK;
use super::world::{Mix, World};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use std::collections::BTreeSet;
use tokenizers::Tokenizer;

/// Documents encoded at a time.
const BATCH: usize = 512;
/// Tokens after which a document is cut.
const LONGEST: usize = 4_096;
/// A story is at least this long, in bytes.
const SHORTEST_STORY: usize = 150;
/// Characters that a children's story has no use for.
const ODD: &str = "<>{}[]|\\@#_";
/// How typographic characters are written in ASCII.
const FOLDED: [(char, &str); 10] = [
    ('\u{2019}', "'"),
    ('\u{2018}', "'"),
    ('\u{201c}', "\""),
    ('\u{201d}', "\""),
    ('\u{2013}', "-"),
    ('\u{2014}', "-"),
    ('\u{2026}', "..."),
    ('\u{a0}', " "),
    ('\u{e9}', "e"),
    ('\u{feff}', ""),
];

/// What a token stream is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamPlan {
    /// Length of the stream.
    pub tokens: usize,
    /// Share of the tokens that is about the world; the stories get the rest.
    pub world_share: f64,
    /// What goes between the facts of the world.
    pub mix: Mix,
    /// Seed of the documents and of the order of the stories.
    pub seed: u64,
}

/// The stories of a raw corpus: split at the document mark, quotes and dashes folded to ASCII, white
/// space made plain (a line break between paragraphs is kept). Stories that are very short, not
/// ASCII, or hold odd characters are dropped.
pub fn clean_stories(raw: &str) -> Vec<String> {
    raw.split(MARK)
        .map(plain)
        .filter(|story| is_usable(story))
        .collect()
}

fn plain(story: &str) -> String {
    let mut folded = String::with_capacity(story.len());
    for c in story.chars() {
        match FOLDED.iter().find(|(from, _)| *from == c) {
            Some((_, to)) => folded.push_str(to),
            None => folded.push(c),
        }
    }
    let mut text = String::with_capacity(folded.len());
    for line in folded.lines() {
        for (i, word) in line.split_whitespace().enumerate() {
            if !text.is_empty() {
                text.push(if i == 0 { '\n' } else { ' ' });
            }
            text.push_str(word);
        }
    }
    text
}

fn is_usable(story: &str) -> bool {
    story.len() > SHORTEST_STORY
        && story
            .chars()
            .all(|c| c == '\n' || (' '..='~').contains(&c) && !ODD.contains(c))
}

/// Every word of the stories, lower case. No entity of the world may be named like one.
pub fn story_words(stories: &[String]) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for word in stories
        .iter()
        .flat_map(|s| s.split(|c: char| !c.is_ascii_alphabetic()))
    {
        let word = word.to_ascii_lowercase();
        if !word.is_empty() && !words.contains(&word) {
            words.insert(word);
        }
    }
    words
}

/// Packs documents end to end into exactly `plan.tokens` tokens. Every document starts with the
/// mark, and the next one is always of the kind that is behind its share. Stories come in an order of
/// their own in every round; without stories, the whole stream is about the world.
///
/// `progress` is told the tokens packed so far, after every batch of documents.
///
/// # Errors
/// When a document cannot be encoded.
pub fn pack(
    world: &World,
    stories: &[String],
    tok: &Tokenizer,
    plan: &StreamPlan,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<u32>, DataError> {
    let mut world_documents = Encoded::new(world.documents(plan.seed, plan.mix), tok);
    let mut story_documents = Encoded::new(Rounds::new(stories, plan.seed), tok);
    let mut stream = Vec::with_capacity(plan.tokens + LONGEST);
    let mut about_world = 0_usize;
    while stream.len() < plan.tokens {
        let world_is_behind = about_world as f64 <= plan.world_share * stream.len() as f64;
        let take_world = stories.is_empty() || (plan.world_share > 0.0 && world_is_behind);
        let (ids, fetched) = if take_world {
            world_documents.next()?
        } else {
            story_documents.next()?
        };
        stream.extend_from_slice(&ids);
        if take_world {
            about_world += ids.len();
        }
        if fetched {
            progress(stream.len().min(plan.tokens));
        }
    }
    stream.truncate(plan.tokens);
    progress(stream.len());
    Ok(stream)
}

/// Stories in a new random order every round, without end (unless there are none).
struct Rounds<'s> {
    stories: &'s [String],
    order: Vec<usize>,
    rng: StdRng,
}

impl<'s> Rounds<'s> {
    fn new(stories: &'s [String], seed: u64) -> Rounds<'s> {
        Rounds {
            stories,
            order: Vec::new(),
            rng: StdRng::seed_from_u64(seed),
        }
    }
}

impl Iterator for Rounds<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        if self.order.is_empty() {
            self.order = (0..self.stories.len()).collect();
            self.order.shuffle(&mut self.rng);
        }
        self.order.pop().map(|i| self.stories[i].clone())
    }
}

/// Documents as token ids, encoded in batches.
struct Encoded<'t, I> {
    documents: I,
    tokenizer: &'t Tokenizer,
    /// Encoded documents, the next one last.
    ready: Vec<Vec<u32>>,
}

impl<'t, I: Iterator<Item = String>> Encoded<'t, I> {
    fn new(documents: I, tokenizer: &'t Tokenizer) -> Encoded<'t, I> {
        Encoded {
            documents,
            tokenizer,
            ready: Vec::new(),
        }
    }

    /// The next document, and whether a batch had to be encoded for it. Empty once the documents are
    /// at their end.
    fn next(&mut self) -> Result<(Vec<u32>, bool), DataError> {
        let fetch = self.ready.is_empty();
        if fetch {
            let batch: Vec<String> = self.documents.by_ref().take(BATCH).collect();
            for encoding in self
                .tokenizer
                .encode_batch_fast(batch, true)?
                .into_iter()
                .rev()
            {
                let ids = encoding.get_ids();
                self.ready.push(ids[..ids.len().min(LONGEST)].to_vec());
            }
        }
        Ok((self.ready.pop().unwrap_or_default(), fetch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::tokenizer::{MARK_ID, train};

    fn story(i: usize) -> String {
        format!("The {i}th cat sat. ") + &"The cat and the dog ran to the park to play. ".repeat(5)
    }

    fn plan(tokens: usize, world_share: f64) -> StreamPlan {
        StreamPlan {
            tokens,
            world_share,
            mix: Mix::default(),
            seed: 5,
        }
    }

    fn world_and_tokenizer() -> (World, Tokenizer) {
        let world = World::new(7, &BTreeSet::new());
        let tokenizer = train(&[story(0)], &world, 1_024).unwrap();
        (world, tokenizer)
    }

    #[test]
    fn stories_are_cleaned_and_odd_ones_dropped() {
        let good = "Tim \u{201c}ran\u{201d}  to\tMia\u{2019}s house \u{2014} fast\u{2026} "
            .to_owned()
            + &"He was happy. ".repeat(12);
        let raw = format!(
            "\n{good} \n\n  The end.\r\n{MARK}too short{MARK}{good}\u{4f60}{MARK}{good}<br>{MARK}"
        );
        let stories = clean_stories(&raw);
        assert_eq!(stories.len(), 1);
        assert!(stories[0].starts_with("Tim \"ran\" to Mia's house - fast... He was"));
        assert!(stories[0].ends_with("He was happy.\nThe end."));
        let words = story_words(&stories);
        assert!(words.contains("tim") && words.contains("s") && !words.contains("Tim"));
        assert!(!words.contains(""));
    }

    #[test]
    fn both_kinds_get_their_share_and_every_document_its_mark() {
        let (world, tokenizer) = world_and_tokenizer();
        let stories: Vec<String> = (0..20).map(story).collect();
        let mut last = 0;
        let mut watch = |tokens: usize| {
            assert!(tokens >= last);
            last = tokens;
        };
        let stream = pack(&world, &stories, &tokenizer, &plan(40_000, 0.3), &mut watch).unwrap();
        assert_eq!((stream.len(), stream[0], last), (40_000, MARK_ID, 40_000));
        let documents: Vec<&[u32]> = stream.split(|&id| id == MARK_ID).skip(1).collect();
        let mut about_world = 0;
        for ids in &documents[..documents.len() - 1] {
            let text = tokenizer.decode(ids, true).unwrap();
            if stories.contains(&text) {
                continue;
            }
            assert!(text.ends_with('.') && !text.contains("The cat"), "{text}");
            about_world += ids.len() + 1;
        }
        let share = about_world as f64 / stream.len() as f64;
        assert!((share - 0.3).abs() < 0.01, "{share}");
    }

    #[test]
    fn a_stream_is_the_same_every_time_and_begins_a_longer_one() {
        let (world, tokenizer) = world_and_tokenizer();
        let stories: Vec<String> = (0..20).map(story).collect();
        let run = |plan| pack(&world, &stories, &tokenizer, &plan, &mut |_| ()).unwrap();
        let long = run(plan(20_000, 0.5));
        assert_eq!(run(plan(20_000, 0.5)), long);
        assert_eq!(run(plan(9_999, 0.5)), long[..9_999]);
        assert_ne!(
            run(StreamPlan {
                seed: 6,
                ..plan(20_000, 0.5)
            }),
            long
        );
    }

    #[test]
    fn one_kind_alone_is_enough() {
        let (world, tokenizer) = world_and_tokenizer();
        let text = |stories: &[String], share| {
            let ids = pack(
                &world,
                stories,
                &tokenizer,
                &plan(5_000, share),
                &mut |_| (),
            )
            .unwrap();
            assert_eq!(ids.len(), 5_000);
            tokenizer.decode(&ids, true).unwrap()
        };
        assert!(!text(&[], 0.5).contains("The cat and the dog"));
        assert!(!text(&[story(1)], 1.0).contains("The cat and the dog"));
        let only_stories = text(&[story(1)], 0.0);
        let name = &world.facts()[0].subject;
        assert!(only_stories.contains("The cat and the dog") && !only_stories.contains(name));
    }
}
