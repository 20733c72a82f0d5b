//! A model ready to read: decoder, tokenizer, chat template, and what it is.

use super::card::{self, Mask};
use super::chat::{ChatTemplate, Message};
use super::config::DecoderConfig;
use super::source::{Checkpoint, Progress, Source};
use super::{Decoder, ModelCard, Tokenizer, demo, digest};
use crate::error::{Error, Result};
use candle_core::Device;
use std::path::PathBuf;
use std::sync::Arc;

/// How to load a model.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Where hashes of weight files are remembered; none are without it.
    pub cache: Option<PathBuf>,
}

/// A model in memory.
pub struct Model {
    card: Arc<ModelCard>,
    tokenizer: Arc<Tokenizer>,
    decoder: Decoder,
    chat: Option<ChatTemplate>,
    eos: Vec<u32>,
}

impl Model {
    /// Load what `reference` names: a folder, a `.gguf` file, a hub id `org/name[@revision]`, or `demo`. `progress`
    /// hears what is being done, how far it is and how much there is.
    ///
    /// # Errors
    /// If anything is missing, damaged or not supported; the sentence says what and where.
    pub fn load(
        reference: &str,
        options: &LoadOptions,
        progress: &mut Progress<'_>,
    ) -> Result<Self> {
        let checkpoint = Source::parse(reference)?.open(progress)?;
        progress("reading the weights", 0, Some(checkpoint.bytes));
        let sha256 = match checkpoint.files.as_slice() {
            [] => demo::sha256(),
            files => Some(digest::weights_sha256(
                files,
                options.cache.as_deref(),
                &|| false,
            )?),
        };
        let mut model = Self::from_checkpoint(checkpoint)?;
        if let (Some(sha256), Some(card)) = (sha256, Arc::get_mut(&mut model.card)) {
            card.sha256 = Some(sha256);
        }
        Ok(model)
    }

    /// Build the model of an opened checkpoint.
    ///
    /// # Errors
    /// If the configuration is not supported or the weights do not fit it.
    pub fn from_checkpoint(checkpoint: Checkpoint) -> Result<Self> {
        let device = Device::Cpu;
        let config = DecoderConfig::from_json(&checkpoint.config)?;
        let decoder = Decoder::load(config, checkpoint.tensors.as_ref(), &device)?;
        let c = decoder.config();
        let (parameters, bytes) = decoder.size();
        let attending = c.layers.iter().filter(|kind| kind.attends()).count();
        let mask = match c.causal {
            true => None,
            false => Mask::find(&checkpoint.tokenizer),
        };
        let card = ModelCard {
            name: checkpoint.name,
            source: checkpoint.source,
            family: c.family.name().to_owned(),
            blocks: c.blocks(),
            d_model: c.d_model,
            heads: c.heads,
            kv_heads: c.kv_heads,
            d_mlp: c.d_mlp,
            vocab: c.vocab,
            context: c.context,
            // f16 and bf16 files are widened while loading.
            dtype: match checkpoint.dtype.as_str() {
                "f16" | "bf16" => format!("{}→f32", checkpoint.dtype),
                other => other.to_owned(),
            },
            device: format!("cpu×{}", rayon::current_num_threads()),
            parameters,
            bytes,
            causal: c.causal,
            tied_head: c.tied,
            chat_template: checkpoint.chat.is_some(),
            layers: c.layers.clone(),
            logit_cap: c.logit_cap,
            mask,
            file_bytes: checkpoint.bytes,
            // Keys and values in f32; a model that sees both sides remembers nothing.
            token_bytes: match c.causal {
                true => 8 * (attending * c.kv_heads * c.head_dim) as u64,
                false => 0,
            },
            unread: card::parts(decoder.unread()),
            sha256: None,
        };
        Ok(Self {
            card: Arc::new(card),
            tokenizer: Arc::new(checkpoint.tokenizer),
            decoder,
            chat: checkpoint.chat,
            eos: checkpoint.eos,
        })
    }

    /// What it is.
    #[must_use]
    pub fn card(&self) -> &Arc<ModelCard> {
        &self.card
    }

    /// Its tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Its forward pass.
    #[must_use]
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Tokens that end a text.
    #[must_use]
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// The tokens of `text` as the user's turn of the model's own chat template.
    ///
    /// # Errors
    /// If the model has no chat template, or it fails.
    pub fn chat_prompt(&self, text: &str) -> Result<Vec<u32>> {
        let Some(chat) = &self.chat else {
            return Err(Error::Usage(format!(
                "{} has no chat template. Leave --chat out",
                self.card.name
            )));
        };
        let prompt = chat.render(&[Message::user(text)], true)?;
        // The template writes the special tokens itself.
        self.tokenizer.encode(&prompt, false)
    }
}
