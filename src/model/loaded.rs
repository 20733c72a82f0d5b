//! A model ready to read: decoder, tokenizer, chat template, and what it is.

use super::card::{self, Mask};
use super::chat::{ChatTemplate, Message};
use super::config::DecoderConfig;
use super::device::{DeviceChoice, Placement};
use super::memory::{self, MemoryPlan};
use super::source::{Checkpoint, Progress, Source};
use super::weights::{Loading, Precision};
use super::{Decoder, ModelCard, Tokenizer, demo, digest};
use crate::error::{Error, Result};
use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How to load a model.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Where hashes of weight files are remembered; none are without it.
    pub cache: Option<PathBuf>,
    /// What to hold the weights as.
    pub precision: Precision,
    /// What to run it on.
    pub device: DeviceChoice,
    /// Where its parts go, instead of what `device` opens.
    #[doc(hidden)]
    pub placement: Option<Placement>,
    /// Memory that it may take, in bytes; what the system has free without it.
    pub memory: Option<u64>,
    /// Set from another thread to give up loading.
    pub cancel: Arc<AtomicBool>,
}

/// A model in memory.
pub struct Model {
    card: Arc<ModelCard>,
    tokenizer: Arc<Tokenizer>,
    decoder: Decoder,
    plan: MemoryPlan,
    chat: Option<ChatTemplate>,
    eos: Vec<u32>,
}

impl Model {
    /// Load what `reference` names: a folder, a `.gguf` file, a hub id `org/name[@revision]`, or `demo`. `progress`
    /// hears what is being done, how far it is and how much there is.
    ///
    /// # Errors
    /// If anything is missing, damaged or not supported, or there is not enough memory; the sentence says what and
    /// where. [`Error::Interrupted`] soon after the options' `cancel` is set.
    pub fn load(
        reference: &str,
        options: &LoadOptions,
        progress: &mut Progress<'_>,
    ) -> Result<Self> {
        let cancelled = || options.cancel.load(Ordering::Relaxed);
        let checkpoint = Source::parse(reference)?.open_or_cancel(progress, &cancelled)?;
        let config = DecoderConfig::from_json(&checkpoint.config)?;
        let placement = match &options.placement {
            Some(placement) => placement.clone(),
            None => options.device.open()?,
        };
        let plan = MemoryPlan::new(&config, checkpoint.tensors.as_ref(), options.precision);
        // What other devices have free they say when it is taken.
        let free = memory::available().filter(|_| placement.in_main_memory());
        plan.check(options.memory.or(free))?;
        progress("reading the weights", 0, Some(checkpoint.bytes));
        let sha256 = match checkpoint.files.as_slice() {
            [] => demo::sha256(),
            files => Some(digest::weights_sha256(
                files,
                options.cache.as_deref(),
                &cancelled,
            )?),
        };
        let progress = RefCell::new(progress);
        let read = |bytes, total| {
            (progress.borrow_mut())("reading the weights", bytes, Some(total));
        };
        let loading = Loading::new(options.precision, plan.weights, &cancelled, &read);
        let mut model = Self::build(checkpoint, config, &placement, &loading)?;
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
        let config = DecoderConfig::from_json(&checkpoint.config)?;
        let placement = Placement::default();
        Self::build(checkpoint, config, &placement, &Loading::default())
    }

    fn build(
        checkpoint: Checkpoint,
        config: DecoderConfig,
        placement: &Placement,
        loading: &Loading<'_>,
    ) -> Result<Self> {
        let precision = loading.precision();
        let plan = MemoryPlan::new(&config, checkpoint.tensors.as_ref(), precision);
        let source = checkpoint.tensors.as_ref();
        let decoder = Decoder::load_as(config, source, placement, loading)?;
        let c = decoder.config();
        let (parameters, bytes) = decoder.size();
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
            dtype: match precision.name() {
                Some(held) if held != checkpoint.dtype => format!("{}→{held}", checkpoint.dtype),
                _ => checkpoint.dtype,
            },
            device: placement.name().to_owned(),
            parameters,
            bytes,
            causal: c.causal,
            tied_head: c.tied,
            chat_template: checkpoint.chat.is_some(),
            layers: c.layers.clone(),
            logit_cap: c.logit_cap,
            mask,
            file_bytes: checkpoint.bytes,
            token_bytes: plan.per_token,
            unread: card::parts(decoder.unread()),
            sha256: None,
        };
        Ok(Self {
            plan,
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

    /// The memory it was expected to take.
    #[must_use]
    pub fn plan(&self) -> &MemoryPlan {
        &self.plan
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
