//! The embedded model's tokenizer: byte-level BPE, trained on stories and on sentences of the world
//! in which every name is a one-off.

use super::DataError;
use super::world::World;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer};

/// The mark that opens every document and every prompt; its id is [`MARK_ID`].
pub const MARK: &str = "<|endoftext|>";
/// Id of [`MARK`].
pub const MARK_ID: u32 = 0;

/// Stories read; more change the merges of a small vocabulary little.
const STORIES: usize = 6_000;
/// Sentences of the world read.
const SENTENCES: usize = 25_000;
/// One seed for the sentences: worlds of different seeds get the tokenizer of one grammar.
const SEED: u64 = 11;
/// Every byte has a token.
const BYTES: usize = 256;

/// Trains a byte-level BPE tokenizer of at most `vocab` tokens (fewer where the text offers no more
/// merges). It prepends [`MARK`] to what it encodes with special tokens, and decodes to exact bytes.
///
/// # Errors
/// When `vocab` cannot hold the bytes and the mark, or training fails.
pub fn train(stories: &[String], world: &World, vocab: usize) -> Result<Tokenizer, DataError> {
    if vocab <= BYTES {
        return Err(DataError::Vocabulary(vocab, BYTES + 1));
    }
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(false)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .vocab_size(vocab)
        .special_tokens(vec![AddedToken::from(MARK, true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .show_progress(false)
        .build()
        .into();
    let sentences = world.tokenizer_text(SEED, SENTENCES);
    let text = stories.iter().take(STORIES).chain(&sentences);
    tokenizer.train(&mut trainer, text.map(String::as_str))?;
    let marked = TemplateProcessing::builder()
        .try_single(format!("{MARK} $A"))
        .and_then(|builder| builder.try_pair(format!("{MARK} $A {MARK} $B:1")))
        .map_err(tokenizers::Error::from)?
        .special_tokens(vec![(MARK, MARK_ID)])
        .build()
        .map_err(tokenizers::Error::from)?;
    tokenizer.with_post_processor(Some(marked));
    Ok(tokenizer)
}

/// Tokens of a text, without the mark; 0 for a text that cannot be encoded.
pub fn length(tokenizer: &Tokenizer, text: &str) -> usize {
    tokenizer
        .encode(text, false)
        .map_or(0, |encoding| encoding.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::auroc;
    use crate::train::prepare;
    use crate::train::world::Probe;

    #[test]
    fn marks_the_start_and_gives_back_the_bytes() {
        let (world, tokenizer) = prepare(7, &[], 1_024).unwrap();
        assert_eq!(tokenizer.token_to_id(MARK), Some(MARK_ID));
        let prompt = &world.probes().known[0].prompt;
        for text in [
            prompt.as_str(),
            "\"Oh!\" said the cat.\nIt ran.",
            "caf\u{e9} \u{2603}",
            "",
        ] {
            let encoding = tokenizer.encode(text, true).unwrap();
            assert_eq!(encoding.get_ids().first(), Some(&MARK_ID));
            assert_eq!(encoding.len(), length(&tokenizer, text) + 1);
            assert_eq!(tokenizer.decode(encoding.get_ids(), true).unwrap(), text);
        }
    }

    #[test]
    fn the_answer_continues_the_prompt_token_by_token() {
        let (world, tokenizer) = prepare(7, &[], 1_024).unwrap();
        for probe in world.probes().known {
            let ids = |text: &str| tokenizer.encode(text, false).unwrap().get_ids().to_vec();
            let apart = [ids(&probe.prompt), ids(&probe.answer)].concat();
            assert_eq!(ids(&format!("{}{}", probe.prompt, probe.answer)), apart);
        }
    }

    #[test]
    fn the_number_of_tokens_does_not_tell_the_sets_apart() {
        for seed in [1, 7] {
            let (world, tokenizer) = prepare(seed, &[], 2_048).unwrap();
            let probes = world.probes();
            let lengths = |set: &[Probe]| -> Vec<f64> {
                set.iter()
                    .map(|probe| length(&tokenizer, &probe.prompt) as f64)
                    .collect()
            };
            let known = lengths(&probes.known);
            for (name, set) in [("near", &probes.near_ood), ("withheld", &probes.withheld)] {
                let auroc = auroc(&known, &lengths(set)).unwrap();
                assert!(
                    (0.45..=0.55).contains(&auroc),
                    "known against {name}: {auroc}"
                );
            }
        }
    }

    #[test]
    fn training_twice_gives_the_same_tokenizer() {
        let world = World::new(3, &std::collections::BTreeSet::new());
        let json = || train(&[], &world, 1_024).unwrap().to_string(false).unwrap();
        assert_eq!(json(), json());
        assert!(matches!(
            train(&[], &world, 256),
            Err(DataError::Vocabulary(256, 257))
        ));
    }
}
