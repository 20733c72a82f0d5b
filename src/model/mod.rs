//! Models: traced forward passes, loading, tokenizer, chat template, caches, sampling.

pub mod cache;
mod card;
pub mod chat;
pub mod config;
pub mod decoder;
pub mod demo;
pub mod digest;
pub mod families;
pub mod gguf;
pub mod guard;
pub(crate) mod head;
pub mod hub;
pub mod intervention;
pub mod kernel;
mod lanes;
mod layers;
pub mod linear;
mod loaded;
pub mod ops;
mod raw;
pub(crate) mod reduce;
pub mod safetensors;
pub mod sampling;
pub mod source;
mod tiles;
pub mod tokenizer;
pub mod weights;

pub use card::ModelCard;
pub use chat::{ChatTemplate, Message};
pub use decoder::Decoder;
pub use families::Family;
pub use intervention::Intervention;
pub use loaded::{LoadOptions, Model};
pub use sampling::{Sampler, Sampling};
pub use source::{Checkpoint, Source};
pub use tokenizer::{TokenStream, Tokenizer};
