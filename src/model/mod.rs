//! Models: traced forward passes, loading, tokenizer, chat template, caches, sampling.

pub mod cache;
mod card;
pub mod config;
pub mod decoder;
pub mod guard;
pub mod kernel;
pub mod linear;
pub mod ops;
pub mod sampling;
pub mod tokenizer;
pub mod weights;

pub use card::ModelCard;
pub use decoder::Decoder;
pub use sampling::{Sampler, Sampling};
pub use tokenizer::{TokenStream, Tokenizer};
