//! The model families: which fields of a configuration mean what, and what the weights are called.
//!
//! The pre- and post-norm transformers differ in numbers and names alone: a mapping in [`transformer`] and a table in
//! [`names`] make a family. What computes something else has a file of its own.

pub(crate) mod bert;
pub(crate) mod lfm2;
pub(crate) mod mamba;
pub(crate) mod mamba2;
pub(crate) mod names;
pub(crate) mod transformer;
pub(crate) mod zamba2;

use super::config::{DecoderConfig, Fields, Rotary};
use super::layers::{Block, BlockConfig};
use super::weights::Loader;
use crate::error::Result;

/// A supported architecture family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// BERT, a masked language model.
    Bert,
    /// BLOOM, with ALiBi.
    Bloom,
    /// Gemma 1.
    Gemma,
    /// Gemma 2.
    Gemma2,
    /// Gemma 3, the text part.
    Gemma3,
    /// GPT-2.
    Gpt2,
    /// GPT-NeoX and Pythia.
    GptNeox,
    /// LFM2: short convolutions and attention.
    Lfm2,
    /// Llama 2, 3 and their kin.
    Llama,
    /// Mamba 1.
    Mamba,
    /// Mamba 2.
    Mamba2,
    /// Mistral.
    Mistral,
    /// Llama 3.2 with vision, the text part.
    Mllama,
    /// OLMo 2.
    Olmo2,
    /// OPT.
    Opt,
    /// Phi 1 and 2.
    Phi,
    /// Phi 3 and 4.
    Phi3,
    /// Qwen 2 and 2.5.
    Qwen2,
    /// Qwen 3.
    Qwen3,
    /// SmolLM 3.
    SmolLm3,
    /// Zamba 2: Mamba 2 with shared attention.
    Zamba2,
}

impl Family {
    /// All families, in alphabetical order.
    pub const ALL: [Self; 21] = [
        Self::Bert,
        Self::Bloom,
        Self::Gemma,
        Self::Gemma2,
        Self::Gemma3,
        Self::Gpt2,
        Self::GptNeox,
        Self::Lfm2,
        Self::Llama,
        Self::Mamba,
        Self::Mamba2,
        Self::Mistral,
        Self::Mllama,
        Self::Olmo2,
        Self::Opt,
        Self::Phi,
        Self::Phi3,
        Self::Qwen2,
        Self::Qwen3,
        Self::SmolLm3,
        Self::Zamba2,
    ];

    /// The name in `model_type` and on the screen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::Bloom => "bloom",
            Self::Gemma => "gemma",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3",
            Self::Gpt2 => "gpt2",
            Self::GptNeox => "gpt_neox",
            Self::Lfm2 => "lfm2",
            Self::Llama => "llama",
            Self::Mamba => "mamba",
            Self::Mamba2 => "mamba2",
            Self::Mistral => "mistral",
            Self::Mllama => "mllama",
            Self::Olmo2 => "olmo2",
            Self::Opt => "opt",
            Self::Phi => "phi",
            Self::Phi3 => "phi3",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::SmolLm3 => "smollm3",
            Self::Zamba2 => "zamba2",
        }
    }

    /// The family of a `model_type`.
    #[must_use]
    pub fn of(model_type: &str) -> Option<Self> {
        let name = match model_type {
            "gemma3_text" => "gemma3",
            "mllama_text_model" => "mllama",
            other => other,
        };
        Self::ALL.into_iter().find(|f| f.name() == name)
    }

    /// Map a configuration.
    pub(crate) fn config(self, f: &Fields<'_>) -> Result<DecoderConfig> {
        match self {
            Self::Bert => bert::config(f),
            Self::Bloom => transformer::bloom(f),
            Self::Gemma => transformer::gemma(f),
            Self::Gemma2 => transformer::gemma2(f),
            Self::Gemma3 => transformer::gemma3(f),
            Self::Gpt2 => transformer::gpt2(f),
            Self::GptNeox => transformer::gpt_neox(f),
            Self::Lfm2 => lfm2::config(f),
            Self::Llama => transformer::llama(f),
            Self::Mamba => mamba::config(f),
            Self::Mamba2 => mamba2::config(f),
            Self::Mistral => transformer::mistral(f),
            Self::Mllama => transformer::mllama(f),
            Self::Olmo2 => transformer::olmo2(f),
            Self::Opt => transformer::opt(f),
            Self::Phi => transformer::phi(f),
            Self::Phi3 => transformer::phi3(f),
            Self::Qwen2 => transformer::qwen2(f),
            Self::Qwen3 => transformer::qwen3(f),
            Self::SmolLm3 => transformer::smollm3(f),
            Self::Zamba2 => zamba2::config(f),
        }
    }
}

/// What the blocks are made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Attention and MLP, alike but for window and rotary embedding.
    Transformer(BlockConfig),
    /// Mamba 1.
    Mamba(mamba::Config),
    /// Mamba 2.
    Mamba2(mamba2::Config),
    /// Zamba 2.
    Zamba2(Box<zamba2::Config>),
    /// LFM2.
    Lfm2(lfm2::Config),
}

impl Body {
    /// The rotary embeddings that the blocks refer to by index.
    pub(crate) fn rotaries(&self) -> &[Rotary] {
        match self {
            Self::Transformer(c) => &c.rotaries,
            Self::Zamba2(c) => &c.rotaries,
            Self::Lfm2(c) => &c.block.rotaries,
            Self::Mamba(_) | Self::Mamba2(_) => &[],
        }
    }

    /// Bytes of convolution and scan states that a block remembers.
    pub(crate) fn recurrent_bytes(&self, d_model: usize) -> u64 {
        let numbers = match self {
            Self::Transformer(_) => 0u64,
            Self::Mamba(c) => c.remembered(),
            Self::Mamba2(c) => c.remembered(),
            Self::Zamba2(c) => c.mamba.remembered(),
            Self::Lfm2(c) => c.remembered(d_model),
        };
        numbers.saturating_mul(4)
    }

    /// Load all blocks of a model.
    pub(crate) fn load(
        &self,
        c: &DecoderConfig,
        loader: &Loader<'_>,
    ) -> Result<Vec<Box<dyn Block>>> {
        match self {
            Self::Transformer(body) => transformer::load(c, body, loader),
            Self::Mamba(body) => mamba::load(c, body, loader),
            Self::Mamba2(body) => mamba2::load(c, body, loader),
            Self::Zamba2(body) => zamba2::load(c, body, loader),
            Self::Lfm2(body) => lfm2::load(c, body, loader),
        }
    }
}
