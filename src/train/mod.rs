//! Training: the synthetic world, its tokenizer, and pretraining of the embedded model.
//!
//! The embedded model is trained on two kinds of text: simple stories, which teach it language, and
//! a [`World`] of invented people and places, of which it is recorded fact by fact what the model
//! was told and what it never saw. That record makes uncertainty measurable against the truth.
//!
//! [`prepare`] is the way in: it makes the world and the tokenizer that fit one another.

pub mod corpus;
pub mod evaluate;
pub mod optimiser;
pub mod pretrain;
pub mod tokenizer;
pub mod world;

use serde::Serialize;
use tokenizers::Tokenizer;
use world::World;

/// What can go wrong while training data are made.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The `tokenizers` crate refused to train or to encode.
    #[error("the tokenizer failed: {0}")]
    Tokenizer(#[from] tokenizers::Error),
    /// A vocabulary too small for the byte alphabet and the document mark.
    #[error("a vocabulary of {0} tokens is too small: bytes and the document mark need {1}")]
    Vocabulary(usize, usize),
    /// A probe or ledger entry could not be written as JSON.
    #[error("cannot write a record as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Makes the world of `seed`, trains a tokenizer of at most `vocab` tokens on it and `stories`, and
/// then chooses the world's probe sets so that their prompts are equally long in that tokenizer's
/// tokens (see [`World::match_lengths`]).
///
/// # Errors
/// When the tokenizer cannot be trained.
pub fn prepare(
    seed: u64,
    stories: &[String],
    vocab: usize,
) -> Result<(World, Tokenizer), DataError> {
    let mut world = World::new(seed, &corpus::story_words(stories));
    let tokenizer = tokenizer::train(stories, &world, vocab)?;
    world.match_lengths(&|text| tokenizer::length(&tokenizer, text));
    Ok((world, tokenizer))
}

/// One JSON object a line, each line closed: the format of the probe files and the ledger.
///
/// # Errors
/// When a record cannot be serialised.
pub fn to_jsonl<T: Serialize>(records: &[T]) -> Result<String, DataError> {
    let mut text = String::new();
    for record in records {
        text.push_str(&serde_json::to_string(record)?);
        text.push('\n');
    }
    Ok(text)
}
