//! Configurations of the pre- and post-norm transformers, one function each, and the loading of their blocks.
//!
//! Defaults are those that transformers' configuration classes have: published files leave such fields out.

use super::{Body, Family};
use crate::error::Result;
use crate::model::config::{
    Activation, DecoderConfig, Fields, LayerKind, Learned, Norm, Rotary, divide,
};
use crate::model::layers::{Block, BlockConfig, QkNorm, Skip, TransformerBlock};
use crate::model::weights::Loader;

/// Load the blocks.
pub(super) fn load(
    c: &DecoderConfig,
    body: &BlockConfig,
    loader: &Loader<'_>,
) -> Result<Vec<Box<dyn Block>>> {
    c.layers
        .iter()
        .enumerate()
        .map(|(i, kind)| {
            Ok(match kind {
                LayerKind::Skipped => Box::new(Skip) as Box<dyn Block>,
                _ => {
                    let loader = loader.of_block(i, c.blocks());
                    Box::new(TransformerBlock::load(&loader, i, c, body)?)
                }
            })
        })
        .collect()
}

/// A configuration in the making: what the model is, and what its blocks are.
pub(super) struct Draft {
    pub(super) model: DecoderConfig,
    pub(super) block: BlockConfig,
}

impl Draft {
    pub(super) fn finish(mut self) -> DecoderConfig {
        self.model.body = Body::Transformer(self.block);
        self.model
    }

    /// Give every block the rotary embedding `rotary`.
    fn rotate(&mut self, rotary: Rotary) {
        self.block.rotaries = vec![rotary];
        self.block.rotary = vec![Some(0); self.model.layers.len()];
    }

    /// Give blocks a window of `width` tokens where `windowed` says so.
    fn window(&mut self, width: usize, windowed: impl Fn(usize) -> bool) {
        for (i, kind) in self.model.layers.iter_mut().enumerate() {
            if windowed(i) {
                *kind = LayerKind::Window(width);
            }
        }
    }
}

/// What the families of llama's kin leave out of their files.
struct Defaults {
    eps: f64,
    theta: f64,
    context: usize,
    tied: bool,
    /// Width of a head; `d_model / heads` where there is none.
    head_dim: Option<usize>,
    /// What the text parts of multimodal files leave out.
    sizes: Option<Sizes>,
}

/// Sizes of a configuration class's own model.
struct Sizes {
    vocab: usize,
    d_model: usize,
    d_mlp: usize,
    blocks: usize,
    heads: usize,
    kv_heads: usize,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            eps: 1e-6,
            theta: 10_000.0,
            context: 2048,
            tied: false,
            head_dim: None,
            sizes: None,
        }
    }
}

/// Llama's own layout: RMS norms before attention and gated MLP, rotary positions, grouped queries.
fn llama_like(f: &Fields<'_>, family: Family, defaults: Defaults) -> Result<Draft> {
    let sizes = defaults.sizes.as_ref();
    let size = |name: &str, of: fn(&Sizes) -> usize| match (f.optional_size(name)?, sizes) {
        (None, Some(sizes)) => Ok(of(sizes)),
        (Some(n), _) => Ok(n),
        (None, None) => f.size(name),
    };
    let d_model = size("hidden_size", |s| s.d_model)?;
    let heads = size("num_attention_heads", |s| s.heads)?;
    let head_dim = match f.optional_size("head_dim")?.or(defaults.head_dim) {
        Some(d) => d,
        None => divide(d_model, heads)?,
    };
    let blocks = match sizes {
        Some(sizes) if !f.has("num_hidden_layers") => sizes.blocks,
        _ => f.blocks("num_hidden_layers")?,
    };
    let vocab = size("vocab_size", |s| s.vocab)?;
    let kv_heads = match (f.optional_size("num_key_value_heads")?, sizes) {
        (Some(n), _) => n,
        (None, Some(sizes)) => sizes.kv_heads,
        (None, None) => heads,
    };
    let eps = f.real("rms_norm_eps")?.unwrap_or(defaults.eps);
    let attention_bias = f.flag("attention_bias")?.unwrap_or(false);
    let mut draft = Draft {
        model: DecoderConfig {
            family,
            vocab,
            embedded: vocab,
            d_model,
            heads,
            kv_heads,
            head_dim,
            d_mlp: size("intermediate_size", |s| s.d_mlp)?,
            context: f
                .optional_size("max_position_embeddings")?
                .unwrap_or(defaults.context),
            causal: true,
            layers: vec![LayerKind::Attention; blocks],
            embedding_scale: None,
            embedding_width: None,
            positions: None,
            embedding_norm: None,
            final_norm: Some(Norm::Rms(eps)),
            tied: f.flag("tie_word_embeddings")?.unwrap_or(defaults.tied),
            head_bias: false,
            logit_cap: None,
            body: Body::Transformer(BlockConfig::default()),
        },
        block: BlockConfig {
            norm: Norm::Rms(eps),
            scale: (head_dim as f64).powf(-0.5),
            qkv_bias: attention_bias,
            output_bias: attention_bias,
            mlp_bias: f.flag("mlp_bias")?.unwrap_or(false),
            activation: Activation::read(f, "hidden_act", "silu")?,
            ..BlockConfig::default()
        },
    };
    draft.rotate(Rotary::read(f, head_dim, defaults.theta, 1.0)?);
    Ok(draft)
}

/// Which blocks have a window: `layer_types` where it is given, `rule` otherwise.
fn windowed(f: &Fields<'_>, blocks: usize, rule: impl Fn(usize) -> bool) -> Result<Vec<bool>> {
    match f.words("layer_types", blocks)? {
        None => Ok((0..blocks).map(rule).collect()),
        Some(words) => words
            .iter()
            .map(|word| match *word {
                "sliding_attention" => Ok(true),
                "full_attention" => Ok(false),
                _ => Err(f.bad(
                    "layer_types",
                    "names a kind of layer that this family does not have",
                )),
            })
            .collect(),
    }
}

pub(super) fn llama(f: &Fields<'_>) -> Result<DecoderConfig> {
    Ok(llama_like(f, Family::Llama, Defaults::default())?.finish())
}

pub(super) fn mistral(f: &Fields<'_>) -> Result<DecoderConfig> {
    let defaults = Defaults {
        context: 131_072,
        ..Defaults::default()
    };
    let mut draft = llama_like(f, Family::Mistral, defaults)?;
    let window = match f.optional_size("sliding_window")? {
        None if !f.has("sliding_window") => Some(4096),
        window => window,
    };
    if let Some(width) = window {
        draft.window(width, |_| true);
    }
    Ok(draft.finish())
}

pub(super) fn mllama(f: &Fields<'_>) -> Result<DecoderConfig> {
    let defaults = Defaults {
        theta: 500_000.0,
        eps: 1e-5,
        context: 131_072,
        sizes: Some(Sizes {
            vocab: 128_256,
            d_model: 4096,
            d_mlp: 14_336,
            blocks: 40,
            heads: 32,
            kv_heads: 8,
        }),
        ..Defaults::default()
    };
    let mut draft = llama_like(f, Family::Mllama, defaults)?;
    // Eight more rows for the image token and its kin, which are never predicted.
    draft.model.embedded = draft.model.vocab + 8;
    let cross = f
        .list("cross_attention_layers")?
        .unwrap_or_else(|| vec![3, 8, 13, 18, 23, 28, 33, 38]);
    for block in cross {
        match draft.model.layers.get_mut(block as usize) {
            Some(kind) => *kind = LayerKind::Skipped,
            None => return Err(f.bad("cross_attention_layers", "names a layer that there is not")),
        }
    }
    Ok(draft.finish())
}

/// The window of Qwen 2 and 3: off unless asked for, then in the blocks from `max_window_layers` on.
fn qwen_window(f: &Fields<'_>, draft: &mut Draft) -> Result<()> {
    if f.flag("use_sliding_window")? != Some(true) {
        return Ok(());
    }
    let width = match f.optional_size("sliding_window")? {
        Some(width) => width,
        None if f.has("sliding_window") => return Ok(()),
        None => 4096,
    };
    // A count that may be 0.
    let first = f.real("max_window_layers")?.unwrap_or(28.0);
    let windowed = windowed(f, draft.model.layers.len(), |i| i as f64 >= first)?;
    draft.window(width, |i| windowed[i]);
    Ok(())
}

pub(super) fn qwen2(f: &Fields<'_>) -> Result<DecoderConfig> {
    let defaults = Defaults {
        context: 32_768,
        ..Defaults::default()
    };
    let mut draft = llama_like(f, Family::Qwen2, defaults)?;
    draft.block.qkv_bias = true;
    draft.block.output_bias = false;
    qwen_window(f, &mut draft)?;
    Ok(draft.finish())
}

pub(super) fn qwen3(f: &Fields<'_>) -> Result<DecoderConfig> {
    let defaults = Defaults {
        context: 32_768,
        head_dim: Some(128),
        ..Defaults::default()
    };
    let mut draft = llama_like(f, Family::Qwen3, defaults)?;
    draft.block.qk_norm = Some(QkNorm::Head);
    qwen_window(f, &mut draft)?;
    Ok(draft.finish())
}

pub(super) fn smollm3(f: &Fields<'_>) -> Result<DecoderConfig> {
    let defaults = Defaults {
        theta: 2_000_000.0,
        context: 32_768,
        tied: true,
        ..Defaults::default()
    };
    let mut draft = llama_like(f, Family::SmolLm3, defaults)?;
    let blocks = draft.model.layers.len();
    // The list says 1 where there is rotation, whatever its name.
    let rotated: Vec<bool> = match f.list("no_rope_layers")? {
        Some(list) if list.len() == blocks => list.iter().map(|v| *v != 0).collect(),
        Some(_) => return Err(f.bad("no_rope_layers", "must have an entry for every layer")),
        None => {
            let interval = f.optional_size("no_rope_layer_interval")?.unwrap_or(4);
            (0..blocks)
                .map(|i| !(i + 1).is_multiple_of(interval))
                .collect()
        }
    };
    draft.block.rotary = rotated.iter().map(|r| r.then_some(0)).collect();
    if let (Some(true), Some(width)) = (
        f.flag("use_sliding_window")?,
        f.optional_size("sliding_window")?,
    ) {
        // Blocks that do not rotate look back only so far.
        let windowed = windowed(f, blocks, |i| !rotated[i])?;
        draft.window(width, |i| windowed[i]);
    }
    Ok(draft.finish())
}

pub(super) fn olmo2(f: &Fields<'_>) -> Result<DecoderConfig> {
    let defaults = Defaults {
        eps: 1e-5,
        ..Defaults::default()
    };
    let mut draft = llama_like(f, Family::Olmo2, defaults)?;
    draft.block.qk_norm = Some(QkNorm::Whole);
    Ok(draft.finish())
}

pub(super) fn phi3(f: &Fields<'_>) -> Result<DecoderConfig> {
    let defaults = Defaults {
        eps: 1e-5,
        context: 4096,
        ..Defaults::default()
    };
    let mut draft = llama_like(f, Family::Phi3, defaults)?;
    if let Some(width) = f.optional_size("sliding_window")? {
        draft.window(width, |_| true);
    }
    Ok(draft.finish())
}

/// What all Gemmas share: 1 + weight in norms, a scaled embedding, a tanh gelu behind the gate.
fn gemma_like(f: &Fields<'_>, family: Family, theta: f64) -> Result<Draft> {
    let third = family == Family::Gemma3;
    let defaults = Defaults {
        theta,
        context: if third { 131_072 } else { 8192 },
        tied: true,
        head_dim: Some(256),
        sizes: third.then_some(Sizes {
            vocab: 262_208,
            d_model: 2304,
            d_mlp: 9216,
            blocks: 26,
            heads: 8,
            kv_heads: 4,
        }),
        ..Defaults::default()
    };
    let mut draft = llama_like(f, family, defaults)?;
    let eps = f.real("rms_norm_eps")?.unwrap_or(1e-6);
    draft.block.norm = Norm::RmsPlusOne(eps);
    draft.model.final_norm = Some(Norm::RmsPlusOne(eps));
    draft.model.embedding_scale = Some((draft.model.d_model as f64).sqrt());
    f.refuse("use_bidirectional_attention")?;
    // Early files of the first Gemma say gelu and mean the tanh form.
    draft.block.activation = match family {
        Family::Gemma => Activation::GeluTanh,
        _ => Activation::read(f, "hidden_activation", "gelu_pytorch_tanh")?,
    };
    Ok(draft)
}

pub(super) fn gemma(f: &Fields<'_>) -> Result<DecoderConfig> {
    Ok(gemma_like(f, Family::Gemma, 10_000.0)?.finish())
}

/// A cap that null switches off and that a file may leave to the family's default.
fn cap(f: &Fields<'_>, name: &str, default: Option<f64>) -> Result<Option<f64>> {
    match f.positive(name)? {
        None if !f.has(name) => Ok(default),
        cap => Ok(cap),
    }
}

pub(super) fn gemma2(f: &Fields<'_>) -> Result<DecoderConfig> {
    let mut draft = gemma_like(f, Family::Gemma2, 10_000.0)?;
    let scalar = f.positive("query_pre_attn_scalar")?.unwrap_or(256.0);
    draft.block.scale = scalar.powf(-0.5);
    draft.block.cap = cap(f, "attn_logit_softcapping", Some(50.0))?;
    draft.model.logit_cap = cap(f, "final_logit_softcapping", Some(30.0))?;
    let width = f.optional_size("sliding_window")?.unwrap_or(4096);
    let windowed = windowed(f, draft.model.layers.len(), |i| i.is_multiple_of(2))?;
    draft.window(width, |i| windowed[i]);
    Ok(draft.finish())
}

pub(super) fn gemma3(f: &Fields<'_>) -> Result<DecoderConfig> {
    let mut draft = gemma_like(f, Family::Gemma3, 1_000_000.0)?;
    let scalar = f.positive("query_pre_attn_scalar")?.unwrap_or(256.0);
    draft.block.scale = scalar.powf(-0.5);
    draft.block.cap = cap(f, "attn_logit_softcapping", None)?;
    draft.model.logit_cap = cap(f, "final_logit_softcapping", None)?;
    draft.block.qk_norm = Some(QkNorm::Head);
    let width = f.optional_size("sliding_window")?.unwrap_or(4096);
    let pattern = match f.optional_size("sliding_window_pattern")? {
        Some(n) => n,
        None => f.optional_size("_sliding_window_pattern")?.unwrap_or(6),
    };
    let windowed = windowed(f, draft.model.layers.len(), |i| {
        !(i + 1).is_multiple_of(pattern)
    })?;
    draft.window(width, |i| windowed[i]);
    // Two embeddings: a slow one, perhaps stretched, where attention is full, a fast one in the windows.
    let head_dim = draft.model.head_dim;
    let (full, local) = match f.object("rope_parameters")? {
        Some(newer) => (
            newer.object("full_attention")?,
            newer.object("sliding_attention")?,
        ),
        None => (None, None),
    };
    let (full, local) = match (full, local) {
        (Some(full), local) => (
            Rotary::with(f, Some(full), head_dim, 1_000_000.0, 1.0)?,
            match local {
                Some(local) => Rotary::with(f, Some(local), head_dim, 10_000.0, 1.0)?,
                None => Rotary::plain(head_dim, 10_000.0),
            },
        ),
        (None, _) => (
            Rotary::read(f, head_dim, 1_000_000.0, 1.0)?,
            Rotary::plain(
                head_dim,
                f.positive("rope_local_base_freq")?.unwrap_or(10_000.0),
            ),
        ),
    };
    draft.block.rotaries = vec![full, local];
    draft.block.rotary = windowed.iter().map(|w| Some(usize::from(*w))).collect();
    Ok(draft.finish())
}

/// What the families with LayerNorm and plain MLPs share: biases everywhere, no rotation unless they say so.
pub(super) struct Plain<'a> {
    pub(super) family: Family,
    pub(super) d_model: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) blocks: usize,
    pub(super) d_mlp: usize,
    pub(super) context: usize,
    pub(super) eps: f64,
    pub(super) activation: Activation,
    pub(super) tied: bool,
    pub(super) f: &'a Fields<'a>,
}

impl Plain<'_> {
    pub(super) fn draft(self) -> Result<Draft> {
        let head_dim = divide(self.d_model, self.heads)?;
        let vocab = self.f.size("vocab_size")?;
        Ok(Draft {
            model: DecoderConfig {
                family: self.family,
                vocab,
                embedded: vocab,
                d_model: self.d_model,
                heads: self.heads,
                kv_heads: self.kv_heads,
                head_dim,
                d_mlp: self.d_mlp,
                context: self.context,
                causal: true,
                layers: vec![LayerKind::Attention; self.blocks],
                embedding_scale: None,
                embedding_width: None,
                positions: None,
                embedding_norm: None,
                final_norm: Some(Norm::Layer(self.eps)),
                tied: self.f.flag("tie_word_embeddings")?.unwrap_or(self.tied),
                head_bias: false,
                logit_cap: None,
                body: Body::Transformer(BlockConfig::default()),
            },
            block: BlockConfig {
                norm: Norm::Layer(self.eps),
                scale: (head_dim as f64).powf(-0.5),
                qkv_bias: true,
                output_bias: true,
                mlp_bias: true,
                activation: self.activation,
                rotary: vec![None; self.blocks],
                ..BlockConfig::default()
            },
        })
    }
}

pub(super) fn gpt2(f: &Fields<'_>) -> Result<DecoderConfig> {
    if f.flag("scale_attn_weights")? == Some(false) {
        return Err(f.bad("scale_attn_weights", "must be true"));
    }
    f.refuse("scale_attn_by_inverse_layer_idx")?;
    let d_model = f.size_of(&["n_embd", "hidden_size"])?;
    let heads = f.size_of(&["n_head", "num_attention_heads"])?;
    let context = match f.optional_size("n_positions")? {
        Some(n) => n,
        None => f.optional_size("n_ctx")?.unwrap_or(1024),
    };
    let mut draft = Plain {
        family: Family::Gpt2,
        d_model,
        heads,
        kv_heads: heads,
        blocks: f.blocks(if f.has("n_layer") {
            "n_layer"
        } else {
            "num_hidden_layers"
        })?,
        d_mlp: f.optional_size("n_inner")?.unwrap_or(4 * d_model),
        context,
        eps: f.real("layer_norm_epsilon")?.unwrap_or(1e-5),
        activation: Activation::read(f, "activation_function", "gelu_new")?,
        tied: true,
        f,
    }
    .draft()?;
    draft.model.positions = Some(Learned {
        rows: context,
        offset: 0,
    });
    Ok(draft.finish())
}

pub(super) fn gpt_neox(f: &Fields<'_>) -> Result<DecoderConfig> {
    let heads = f.size("num_attention_heads")?;
    let mut draft = Plain {
        family: Family::GptNeox,
        d_model: f.size("hidden_size")?,
        heads,
        kv_heads: heads,
        blocks: f.blocks("num_hidden_layers")?,
        d_mlp: f.size("intermediate_size")?,
        context: f.optional_size("max_position_embeddings")?.unwrap_or(2048),
        eps: f.real("layer_norm_eps")?.unwrap_or(1e-5),
        activation: Activation::read(f, "hidden_act", "gelu")?,
        tied: false,
        f,
    }
    .draft()?;
    draft.block.parallel = f.flag("use_parallel_residual")?.unwrap_or(true);
    let bias = f.flag("attention_bias")?.unwrap_or(true);
    draft.block.qkv_bias = bias;
    draft.block.output_bias = bias;
    let head_dim = draft.model.head_dim;
    // The family rotates a quarter of each head where its file does not say.
    let rotary = Rotary::read(f, head_dim, 10_000.0, 0.25)?;
    draft.rotate(rotary);
    Ok(draft.finish())
}

pub(super) fn phi(f: &Fields<'_>) -> Result<DecoderConfig> {
    f.refuse("qk_layernorm")?;
    let heads = f.size("num_attention_heads")?;
    let mut draft = Plain {
        family: Family::Phi,
        d_model: f.size("hidden_size")?,
        heads,
        kv_heads: f.optional_size("num_key_value_heads")?.unwrap_or(heads),
        blocks: f.blocks("num_hidden_layers")?,
        d_mlp: f.size("intermediate_size")?,
        context: f.optional_size("max_position_embeddings")?.unwrap_or(2048),
        eps: f.real("layer_norm_eps")?.unwrap_or(1e-5),
        activation: Activation::read(f, "hidden_act", "gelu_new")?,
        tied: false,
        f,
    }
    .draft()?;
    draft.block.parallel = true;
    draft.model.head_bias = true;
    let head_dim = draft.model.head_dim;
    draft.rotate(Rotary::read(f, head_dim, 10_000.0, 0.5)?);
    Ok(draft.finish())
}

pub(super) fn opt(f: &Fields<'_>) -> Result<DecoderConfig> {
    let heads = f.size("num_attention_heads")?;
    let context = f.optional_size("max_position_embeddings")?.unwrap_or(2048);
    if f.flag("layer_norm_elementwise_affine")? == Some(false) {
        return Err(f.bad("layer_norm_elementwise_affine", "must be true"));
    }
    let mut draft = Plain {
        family: Family::Opt,
        d_model: f.size("hidden_size")?,
        heads,
        kv_heads: heads,
        blocks: f.blocks("num_hidden_layers")?,
        d_mlp: f.size("ffn_dim")?,
        context,
        // The class has no field for it.
        eps: 1e-5,
        activation: Activation::read(f, "activation_function", "relu")?,
        tied: true,
        f,
    }
    .draft()?;
    let bias = f.flag("enable_bias")?.unwrap_or(true);
    draft.block.qkv_bias = bias;
    draft.block.output_bias = bias;
    draft.block.mlp_bias = bias;
    draft.model.positions = Some(Learned {
        rows: context + 2,
        offset: 2,
    });
    draft.block.sums = f.flag("do_layer_norm_before")? == Some(false);
    if draft.block.sums || f.flag("_remove_final_layer_norm")? == Some(true) {
        draft.model.final_norm = None;
    }
    draft.model.embedding_width = f
        .optional_size("word_embed_proj_dim")?
        .filter(|width| *width != draft.model.d_model);
    Ok(draft.finish())
}

pub(super) fn bloom(f: &Fields<'_>) -> Result<DecoderConfig> {
    f.refuse("apply_residual_connection_post_layernorm")?;
    let d_model = f.size_of(&["hidden_size", "n_embed"])?;
    let heads = f.size_of(&["n_head", "num_attention_heads"])?;
    let eps = f.real("layer_norm_epsilon")?.unwrap_or(1e-5);
    let mut draft = Plain {
        family: Family::Bloom,
        d_model,
        heads,
        kv_heads: heads,
        blocks: f.blocks(if f.has("n_layer") {
            "n_layer"
        } else {
            "num_hidden_layers"
        })?,
        d_mlp: 4 * d_model,
        // ALiBi has no end; this is what the family was trained with.
        context: f.optional_size("seq_length")?.unwrap_or(2048),
        eps,
        activation: Activation::GeluTanh,
        tied: true,
        f,
    }
    .draft()?;
    draft.block.alibi = true;
    draft.model.embedding_norm = Some(Norm::Layer(eps));
    Ok(draft.finish())
}
