//! What the tensors of each transformer family are called in files of the Hugging Face layout.

use super::Family;

/// Names of one family. In names inside a block, what stands before them is [`Names::block`] and the block's number.
#[derive(Debug, PartialEq)]
pub(crate) struct Names {
    /// What may stand before the body's names; the first under which the embedding is found counts.
    pub(crate) prefixes: &'static [&'static str],
    /// The embedding table.
    pub(crate) embedding: &'static str,
    /// The table of learned positions.
    pub(crate) positions: &'static str,
    /// The norm of the embedding.
    pub(crate) embedding_norm: &'static str,
    /// The blocks.
    pub(crate) block: &'static str,
    /// The norm before the head.
    pub(crate) final_norm: &'static str,
    /// The head, where it is not the embedding; without the body's prefix.
    pub(crate) heads: &'static [&'static str],
    /// Norms around attention.
    pub(crate) attention: Norms,
    /// Norms around the MLP.
    pub(crate) mlp: Norms,
    /// Queries, keys and values.
    pub(crate) qkv: Qkv,
    /// What mixes the heads.
    pub(crate) output: &'static str,
    /// Norms of queries and keys.
    pub(crate) qk_norm: (&'static str, &'static str),
    /// The MLP's matrices.
    pub(crate) up: Up,
    /// The last of them.
    pub(crate) down: &'static str,
    /// Endings of tensors that are no weights of the text model, or say nothing new.
    pub(crate) ignored: &'static [&'static str],
}

/// Norms around one half of a block; `None` where the family has none there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Norms {
    /// Of what goes in.
    pub(crate) before: Option<&'static str>,
    /// Of what comes out, before it is added to the residual stream.
    pub(crate) after: Option<&'static str>,
    /// Of the residual stream once it was added.
    pub(crate) sum: Option<&'static str>,
}

impl Norms {
    const fn before(name: &'static str) -> Self {
        Self {
            before: Some(name),
            after: None,
            sum: None,
        }
    }
}

/// How queries, keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Qkv {
    /// Three matrices.
    Split([&'static str; 3]),
    /// One, queries before keys before values.
    Fused(&'static str),
    /// One `[inputs, outputs]` (GPT-2's Conv1D), in the same order.
    Transposed(&'static str),
    /// One, head by head: a head's query, key and value rows follow each other.
    Interleaved(&'static str),
}

/// How the first matrices of the MLP are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Up {
    /// One matrix, no gate.
    Plain(&'static str),
    /// One matrix `[inputs, outputs]` (GPT-2's Conv1D); the one after it is stored so too.
    Transposed(&'static str),
    /// Gate and up.
    Gated(&'static str, &'static str),
    /// Gate over up in one matrix.
    FusedGate(&'static str),
}

/// What llama and most after it have.
const LLAMA: Names = Names {
    prefixes: &[
        "model.",
        "language_model.model.",
        "model.language_model.",
        "",
    ],
    embedding: "embed_tokens",
    positions: "",
    embedding_norm: "",
    block: "layers",
    final_norm: "norm",
    heads: &["lm_head", "language_model.lm_head"],
    attention: Norms::before("input_layernorm"),
    mlp: Norms::before("post_attention_layernorm"),
    qkv: Qkv::Split(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    output: "self_attn.o_proj",
    qk_norm: ("self_attn.q_norm", "self_attn.k_norm"),
    up: Up::Gated("mlp.gate_proj", "mlp.up_proj"),
    down: "mlp.down_proj",
    // The last three are rotary tables of GGUF files, which the configuration repeats.
    ignored: &[
        "rotary_emb.inv_freq",
        "rope_freqs.weight",
        "rope_factors_long.weight",
        "rope_factors_short.weight",
    ],
};

const GEMMA2: Names = Names {
    attention: Norms {
        before: Some("input_layernorm"),
        after: Some("post_attention_layernorm"),
        sum: None,
    },
    mlp: Norms {
        before: Some("pre_feedforward_layernorm"),
        after: Some("post_feedforward_layernorm"),
        sum: None,
    },
    ..LLAMA
};

const OLMO2: Names = Names {
    attention: Norms {
        before: None,
        after: Some("post_attention_layernorm"),
        sum: None,
    },
    mlp: Norms {
        before: None,
        after: Some("post_feedforward_layernorm"),
        sum: None,
    },
    ..LLAMA
};

const PHI3: Names = Names {
    qkv: Qkv::Fused("self_attn.qkv_proj"),
    up: Up::FusedGate("mlp.gate_up_proj"),
    ..LLAMA
};

/// Attention and MLP read the same norm.
const PHI: Names = Names {
    final_norm: "final_layernorm",
    mlp: Norms {
        before: None,
        after: None,
        sum: None,
    },
    output: "self_attn.dense",
    up: Up::Plain("mlp.fc1"),
    down: "mlp.fc2",
    ..LLAMA
};

const GPT_NEOX: Names = Names {
    prefixes: &["gpt_neox.", ""],
    embedding: "embed_in",
    final_norm: "final_layer_norm",
    heads: &["embed_out", "lm_head"],
    qkv: Qkv::Interleaved("attention.query_key_value"),
    output: "attention.dense",
    up: Up::Plain("mlp.dense_h_to_4h"),
    down: "mlp.dense_4h_to_h",
    ignored: &[
        "rotary_emb.inv_freq",
        ".attention.bias",
        ".attention.masked_bias",
    ],
    ..LLAMA
};

const BLOOM: Names = Names {
    prefixes: &["transformer.", ""],
    embedding: "word_embeddings",
    embedding_norm: "word_embeddings_layernorm",
    block: "h",
    final_norm: "ln_f",
    qkv: Qkv::Interleaved("self_attention.query_key_value"),
    output: "self_attention.dense",
    up: Up::Plain("mlp.dense_h_to_4h"),
    down: "mlp.dense_4h_to_h",
    ..LLAMA
};

const GPT2: Names = Names {
    prefixes: &["transformer.", ""],
    embedding: "wte",
    positions: "wpe",
    block: "h",
    final_norm: "ln_f",
    attention: Norms::before("ln_1"),
    mlp: Norms::before("ln_2"),
    qkv: Qkv::Transposed("attn.c_attn"),
    output: "attn.c_proj",
    up: Up::Transposed("mlp.c_fc"),
    down: "mlp.c_proj",
    // Causal masks that old files carry along.
    ignored: &[".attn.bias", ".attn.masked_bias"],
    ..LLAMA
};

const OPT: Names = Names {
    prefixes: &["model.decoder.", "decoder.", ""],
    positions: "embed_positions",
    final_norm: "final_layer_norm",
    attention: Norms::before("self_attn_layer_norm"),
    mlp: Norms::before("final_layer_norm"),
    output: "self_attn.out_proj",
    up: Up::Plain("fc1"),
    down: "fc2",
    ..LLAMA
};

/// OPT-350M: the norms come after the sum, and none before the head.
pub(crate) const OPT_POST: Names = Names {
    attention: Norms {
        before: None,
        after: None,
        sum: Some("self_attn_layer_norm"),
    },
    mlp: Norms {
        before: None,
        after: None,
        sum: Some("final_layer_norm"),
    },
    ..OPT
};

const BERT: Names = Names {
    prefixes: &["bert.", ""],
    embedding: "embeddings.word_embeddings",
    positions: "embeddings.position_embeddings",
    embedding_norm: "embeddings.LayerNorm",
    block: "encoder.layer",
    heads: &["cls.predictions.decoder"],
    attention: Norms {
        before: None,
        after: None,
        sum: Some("attention.output.LayerNorm"),
    },
    mlp: Norms {
        before: None,
        after: None,
        sum: Some("output.LayerNorm"),
    },
    qkv: Qkv::Split([
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
    ]),
    output: "attention.output.dense",
    up: Up::Plain("intermediate.dense"),
    down: "output.dense",
    ignored: &["position_ids"],
    ..LLAMA
};

impl Family {
    /// The tensor names of a family of transformers, and the outer ones of the others.
    pub(crate) fn names(self) -> &'static Names {
        match self {
            Self::Gemma2 | Self::Gemma3 => &GEMMA2,
            Self::Olmo2 => &OLMO2,
            Self::Phi3 => &PHI3,
            Self::Phi => &PHI,
            Self::GptNeox => &GPT_NEOX,
            Self::Bloom => &BLOOM,
            Self::Gpt2 => &GPT2,
            Self::Opt => &OPT,
            Self::Bert => &BERT,
            Self::Mamba | Self::Mamba2 => &MAMBA,
            Self::Zamba2 => &ZAMBA2,
            Self::Lfm2 => &LFM2,
            Self::Gemma
            | Self::Llama
            | Self::Mistral
            | Self::Mllama
            | Self::Qwen2
            | Self::Qwen3
            | Self::SmolLm3 => &LLAMA,
        }
    }
}

const MAMBA: Names = Names {
    prefixes: &["backbone.", ""],
    embedding: "embeddings",
    final_norm: "norm_f",
    ..LLAMA
};

const ZAMBA2: Names = Names {
    final_norm: "final_layernorm",
    ..LLAMA
};

const LFM2: Names = Names {
    final_norm: "embedding_norm",
    attention: Norms::before("operator_norm"),
    mlp: Norms::before("ffn_norm"),
    output: "self_attn.out_proj",
    qk_norm: ("self_attn.q_layernorm", "self_attn.k_layernorm"),
    up: Up::Gated("feed_forward.w1", "feed_forward.w3"),
    down: "feed_forward.w2",
    ..LLAMA
};
