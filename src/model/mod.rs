//! Models: traced forward passes, loading, tokenizer, chat template, caches, sampling.

mod card;
pub mod guard;
pub mod sampling;
pub mod tokenizer;
pub mod weights;

pub use card::ModelCard;
pub use sampling::{Sampler, Sampling};
pub use tokenizer::{TokenStream, Tokenizer};
