//! Models: traced forward passes, loading, tokenizer, chat template, caches, sampling.

pub mod blocks;
pub mod cache;
pub mod card;
pub mod chat;
pub mod config;
pub mod decoder;
pub mod demo;
pub mod digest;
pub mod families;
pub mod gguf;
pub mod guard;
mod head;
pub mod hub;
pub mod intervention;
pub mod kernel;
mod layers;
pub mod linear;
mod loaded;
pub mod memory;
pub mod ops;
pub mod peak;
mod raw;
pub mod safetensors;
pub mod sampling;
pub mod source;
pub mod tokenizer;
pub mod weights;

pub use card::{Mask, ModelCard};
pub use chat::{ChatTemplate, Message};
pub use decoder::Decoder;
pub use families::Family;
pub use intervention::Intervention;
pub use loaded::{LoadOptions, Model};
pub use sampling::{Sampler, Sampling};
pub use source::{Checkpoint, Source};
pub use tokenizer::{TokenStream, Tokenizer};
