//! One table for each architecture: the names of its tensors in GGUF and in Hugging Face's files, and what llama.cpp's
//! converter changes on the way.
//!
//! A new architecture is one more table here, a variant of [`super::names::Arch`], and its numbers in `config.rs` and
//! `numbers.rs`.

use super::names::Change::{
    self, Convolution, Flat, Negative, NegativeFlat, None, PermuteKeys, PermuteQueries, PlusOne,
    QkvOfHeads, Transpose,
};

/// The tensors of an architecture.
pub(super) struct Names {
    /// `general.architecture`.
    pub gguf: &'static str,
    /// Values of `model_type` in `config.json`; the first is the one given back.
    pub model_types: &'static [&'static str],
    /// What stands before the body's names, where some files on the hub leave it out.
    pub prefix: &'static str,
    /// Outside the blocks, without `.weight` and `.bias`.
    pub outside: &'static [(&'static str, &'static str, Change)],
    /// Before the number of a block, in Hugging Face's names.
    pub blocks: &'static str,
    /// Inside a block, without `.weight` and `.bias`.
    pub inside: &'static [(&'static str, &'static str, Change)],
    /// Inside a block, the whole names: those that do not end in `.weight` or `.bias` on both sides.
    pub whole: &'static [(&'static str, &'static str, Change)],
    /// Ends of names that say nothing the numbers do not: rotary tables, causal masks.
    pub buffers: &'static [&'static str],
}

const ROTARY_BUFFERS: &[&str] = &[
    "rotary_emb.inv_freq",
    "attn_rot_embd.weight",
    "attn_rot_embd",
];

const MODEL_OUTSIDE: &[(&str, &str, Change)] = &[
    ("token_embd", "model.embed_tokens", None),
    ("output_norm", "model.norm", None),
    ("output", "lm_head", None),
    ("rope_freqs", "rope_freqs", None),
];

const GEMMA_OUTSIDE: &[(&str, &str, Change)] = &[
    ("token_embd", "model.embed_tokens", None),
    ("output_norm", "model.norm", PlusOne),
    ("output", "lm_head", None),
];

const MAMBA_OUTSIDE: &[(&str, &str, Change)] = &[
    ("token_embd", "backbone.embeddings", None),
    // Some files on the hub have this name.
    ("token_embd", "backbone.embedding", None),
    ("output_norm", "backbone.norm_f", None),
    ("output", "lm_head", None),
];

/// Llama and what is rotated pairwise in llama.cpp.
const LLAMA_INSIDE: &[(&str, &str, Change)] = &[
    ("attn_norm", "input_layernorm", None),
    ("attn_q", "self_attn.q_proj", PermuteQueries),
    ("attn_k", "self_attn.k_proj", PermuteKeys),
    ("attn_v", "self_attn.v_proj", None),
    ("attn_output", "self_attn.o_proj", None),
    ("ffn_norm", "post_attention_layernorm", None),
    ("ffn_gate", "mlp.gate_proj", None),
    ("ffn_up", "mlp.up_proj", None),
    ("ffn_down", "mlp.down_proj", None),
];

pub(super) static LLAMA: Names = Names {
    gguf: "llama",
    model_types: &["llama", "mistral"],
    prefix: "",
    outside: MODEL_OUTSIDE,
    blocks: "model.layers.",
    inside: LLAMA_INSIDE,
    whole: &[],
    buffers: ROTARY_BUFFERS,
};

pub(super) static SMOLLM3: Names = Names {
    gguf: "smollm3",
    model_types: &["smollm3"],
    prefix: "",
    outside: MODEL_OUTSIDE,
    blocks: "model.layers.",
    inside: LLAMA_INSIDE,
    whole: &[],
    buffers: ROTARY_BUFFERS,
};

pub(super) static GPT2: Names = Names {
    gguf: "gpt2",
    model_types: &["gpt2"],
    prefix: "transformer.",
    outside: &[
        ("token_embd", "transformer.wte", None),
        ("position_embd", "transformer.wpe", None),
        ("output_norm", "transformer.ln_f", None),
        ("output", "lm_head", None),
    ],
    blocks: "transformer.h.",
    inside: &[
        ("attn_norm", "ln_1", None),
        ("attn_qkv", "attn.c_attn", Transpose),
        ("attn_output", "attn.c_proj", Transpose),
        ("ffn_norm", "ln_2", None),
        ("ffn_up", "mlp.c_fc", Transpose),
        ("ffn_down", "mlp.c_proj", Transpose),
    ],
    whole: &[],
    buffers: &[".attn.bias", ".attn.masked_bias"],
};

pub(super) static QWEN2: Names = Names {
    gguf: "qwen2",
    model_types: &["qwen2"],
    prefix: "",
    outside: MODEL_OUTSIDE,
    blocks: "model.layers.",
    inside: &[
        ("attn_norm", "input_layernorm", None),
        ("attn_q", "self_attn.q_proj", None),
        ("attn_k", "self_attn.k_proj", None),
        ("attn_v", "self_attn.v_proj", None),
        ("attn_output", "self_attn.o_proj", None),
        ("ffn_norm", "post_attention_layernorm", None),
        ("ffn_gate", "mlp.gate_proj", None),
        ("ffn_up", "mlp.up_proj", None),
        ("ffn_down", "mlp.down_proj", None),
    ],
    whole: &[],
    buffers: ROTARY_BUFFERS,
};

pub(super) static QWEN3: Names = Names {
    gguf: "qwen3",
    model_types: &["qwen3"],
    prefix: "",
    outside: MODEL_OUTSIDE,
    blocks: "model.layers.",
    inside: &[
        ("attn_norm", "input_layernorm", None),
        ("attn_q", "self_attn.q_proj", None),
        ("attn_q_norm", "self_attn.q_norm", None),
        ("attn_k", "self_attn.k_proj", None),
        ("attn_k_norm", "self_attn.k_norm", None),
        ("attn_v", "self_attn.v_proj", None),
        ("attn_output", "self_attn.o_proj", None),
        ("ffn_norm", "post_attention_layernorm", None),
        ("ffn_gate", "mlp.gate_proj", None),
        ("ffn_up", "mlp.up_proj", None),
        ("ffn_down", "mlp.down_proj", None),
    ],
    whole: &[],
    buffers: ROTARY_BUFFERS,
};

pub(super) static GEMMA: Names = Names {
    gguf: "gemma",
    model_types: &["gemma"],
    prefix: "",
    outside: GEMMA_OUTSIDE,
    blocks: "model.layers.",
    inside: &[
        ("attn_norm", "input_layernorm", PlusOne),
        ("attn_q", "self_attn.q_proj", None),
        ("attn_k", "self_attn.k_proj", None),
        ("attn_v", "self_attn.v_proj", None),
        ("attn_output", "self_attn.o_proj", None),
        ("ffn_norm", "post_attention_layernorm", PlusOne),
        ("ffn_gate", "mlp.gate_proj", None),
        ("ffn_up", "mlp.up_proj", None),
        ("ffn_down", "mlp.down_proj", None),
    ],
    whole: &[],
    buffers: ROTARY_BUFFERS,
};

pub(super) static GEMMA2: Names = Names {
    gguf: "gemma2",
    model_types: &["gemma2"],
    prefix: "",
    outside: GEMMA_OUTSIDE,
    blocks: "model.layers.",
    inside: &[
        ("attn_norm", "input_layernorm", PlusOne),
        ("attn_q", "self_attn.q_proj", None),
        ("attn_k", "self_attn.k_proj", None),
        ("attn_v", "self_attn.v_proj", None),
        ("attn_output", "self_attn.o_proj", None),
        ("post_attention_norm", "post_attention_layernorm", PlusOne),
        ("ffn_norm", "pre_feedforward_layernorm", PlusOne),
        ("ffn_gate", "mlp.gate_proj", None),
        ("ffn_up", "mlp.up_proj", None),
        ("ffn_down", "mlp.down_proj", None),
        ("post_ffw_norm", "post_feedforward_layernorm", PlusOne),
    ],
    whole: &[],
    buffers: ROTARY_BUFFERS,
};

pub(super) static GEMMA3: Names = Names {
    gguf: "gemma3",
    model_types: &["gemma3_text"],
    prefix: "",
    outside: GEMMA_OUTSIDE,
    blocks: "model.layers.",
    inside: &[
        ("attn_norm", "input_layernorm", PlusOne),
        ("attn_q", "self_attn.q_proj", None),
        ("attn_q_norm", "self_attn.q_norm", PlusOne),
        ("attn_k", "self_attn.k_proj", None),
        ("attn_k_norm", "self_attn.k_norm", PlusOne),
        ("attn_v", "self_attn.v_proj", None),
        ("attn_output", "self_attn.o_proj", None),
        ("post_attention_norm", "post_attention_layernorm", PlusOne),
        ("ffn_norm", "pre_feedforward_layernorm", PlusOne),
        ("ffn_gate", "mlp.gate_proj", None),
        ("ffn_up", "mlp.up_proj", None),
        ("ffn_down", "mlp.down_proj", None),
        ("post_ffw_norm", "post_feedforward_layernorm", PlusOne),
    ],
    whole: &[],
    buffers: ROTARY_BUFFERS,
};

pub(super) static PHI2: Names = Names {
    gguf: "phi2",
    model_types: &["phi"],
    prefix: "",
    outside: &[
        ("token_embd", "model.embed_tokens", None),
        ("output_norm", "model.final_layernorm", None),
        ("output", "lm_head", None),
    ],
    blocks: "model.layers.",
    inside: &[
        ("attn_norm", "input_layernorm", None),
        // Older files keep the three together.
        ("attn_qkv", "self_attn.qkv_proj", None),
        ("attn_q", "self_attn.q_proj", None),
        ("attn_k", "self_attn.k_proj", None),
        ("attn_v", "self_attn.v_proj", None),
        ("attn_output", "self_attn.dense", None),
        ("ffn_up", "mlp.fc1", None),
        ("ffn_down", "mlp.fc2", None),
    ],
    whole: &[],
    buffers: ROTARY_BUFFERS,
};

pub(super) static PHI3: Names = Names {
    gguf: "phi3",
    model_types: &["phi3"],
    prefix: "",
    outside: &[
        ("token_embd", "model.embed_tokens", None),
        ("output_norm", "model.norm", None),
        ("output", "lm_head", None),
        ("rope_factors_long", "rope_factors_long", None),
        ("rope_factors_short", "rope_factors_short", None),
    ],
    blocks: "model.layers.",
    inside: &[
        ("attn_norm", "input_layernorm", None),
        ("attn_qkv", "self_attn.qkv_proj", None),
        ("attn_output", "self_attn.o_proj", None),
        ("ffn_norm", "post_attention_layernorm", None),
        ("ffn_up", "mlp.gate_up_proj", None),
        ("ffn_down", "mlp.down_proj", None),
    ],
    whole: &[],
    buffers: ROTARY_BUFFERS,
};

pub(super) static GPT_NEOX: Names = Names {
    gguf: "gptneox",
    model_types: &["gpt_neox"],
    prefix: "",
    outside: &[
        ("token_embd", "gpt_neox.embed_in", None),
        ("output_norm", "gpt_neox.final_layer_norm", None),
        ("output", "embed_out", None),
    ],
    blocks: "gpt_neox.layers.",
    inside: &[
        ("attn_norm", "input_layernorm", None),
        ("attn_qkv", "attention.query_key_value", QkvOfHeads),
        ("attn_output", "attention.dense", None),
        ("ffn_norm", "post_attention_layernorm", None),
        ("ffn_up", "mlp.dense_h_to_4h", None),
        ("ffn_down", "mlp.dense_4h_to_h", None),
    ],
    whole: &[],
    buffers: &[
        ".attention.bias",
        ".attention.masked_bias",
        "rotary_emb.inv_freq",
    ],
};

pub(super) static BLOOM: Names = Names {
    gguf: "bloom",
    model_types: &["bloom"],
    prefix: "transformer.",
    outside: &[
        ("token_embd", "transformer.word_embeddings", None),
        (
            "token_embd_norm",
            "transformer.word_embeddings_layernorm",
            None,
        ),
        ("output_norm", "transformer.ln_f", None),
        ("output", "lm_head", None),
    ],
    blocks: "transformer.h.",
    inside: &[
        ("attn_norm", "input_layernorm", None),
        ("attn_qkv", "self_attention.query_key_value", QkvOfHeads),
        ("attn_output", "self_attention.dense", None),
        ("ffn_norm", "post_attention_layernorm", None),
        ("ffn_up", "mlp.dense_h_to_4h", None),
        ("ffn_down", "mlp.dense_4h_to_h", None),
    ],
    whole: &[],
    buffers: &[],
};

pub(super) static OLMO2: Names = Names {
    gguf: "olmo2",
    model_types: &["olmo2"],
    prefix: "",
    outside: MODEL_OUTSIDE,
    blocks: "model.layers.",
    inside: &[
        ("attn_q", "self_attn.q_proj", None),
        ("attn_q_norm", "self_attn.q_norm", None),
        ("attn_k", "self_attn.k_proj", None),
        ("attn_k_norm", "self_attn.k_norm", None),
        ("attn_v", "self_attn.v_proj", None),
        ("attn_output", "self_attn.o_proj", None),
        ("post_attention_norm", "post_attention_layernorm", None),
        ("ffn_gate", "mlp.gate_proj", None),
        ("ffn_up", "mlp.up_proj", None),
        ("ffn_down", "mlp.down_proj", None),
        ("post_ffw_norm", "post_feedforward_layernorm", None),
    ],
    whole: &[],
    buffers: ROTARY_BUFFERS,
};

pub(super) static MAMBA: Names = Names {
    gguf: "mamba",
    model_types: &["mamba"],
    prefix: "",
    outside: MAMBA_OUTSIDE,
    blocks: "backbone.layers.",
    inside: &[
        ("attn_norm", "norm", None),
        ("ssm_in", "mixer.in_proj", None),
        ("ssm_conv1d", "mixer.conv1d", Convolution),
        ("ssm_x", "mixer.x_proj", None),
        ("ssm_dt", "mixer.dt_proj", None),
        ("ssm_out", "mixer.out_proj", None),
    ],
    whole: &[
        ("ssm_a", "mixer.A_log", Negative),
        ("ssm_d", "mixer.D", None),
    ],
    buffers: &[],
};

pub(super) static MAMBA2: Names = Names {
    gguf: "mamba2",
    model_types: &["mamba2"],
    prefix: "",
    outside: MAMBA_OUTSIDE,
    blocks: "backbone.layers.",
    inside: &[
        ("attn_norm", "norm", None),
        ("ssm_in", "mixer.in_proj", None),
        ("ssm_conv1d", "mixer.conv1d", Convolution),
        ("ssm_norm", "mixer.norm", Flat),
        ("ssm_out", "mixer.out_proj", None),
    ],
    whole: &[
        ("ssm_a", "mixer.A_log", NegativeFlat),
        ("ssm_d", "mixer.D", Flat),
        ("ssm_dt.bias", "mixer.dt_bias", None),
    ],
    buffers: &[],
};

pub(super) static LFM2: Names = Names {
    gguf: "lfm2",
    model_types: &["lfm2"],
    prefix: "",
    outside: &[
        ("token_embd", "model.embed_tokens", None),
        ("token_embd_norm", "model.embedding_norm", None),
        ("output", "lm_head", None),
    ],
    blocks: "model.layers.",
    inside: &[
        ("attn_norm", "operator_norm", None),
        ("attn_q", "self_attn.q_proj", None),
        ("attn_q_norm", "self_attn.q_layernorm", None),
        ("attn_k", "self_attn.k_proj", None),
        ("attn_k_norm", "self_attn.k_layernorm", None),
        ("attn_v", "self_attn.v_proj", None),
        ("attn_output", "self_attn.out_proj", None),
        ("shortconv.in_proj", "conv.in_proj", None),
        ("shortconv.conv", "conv.conv", Convolution),
        ("shortconv.out_proj", "conv.out_proj", None),
        ("ffn_norm", "ffn_norm", None),
        ("ffn_gate", "feed_forward.w1", None),
        ("ffn_down", "feed_forward.w2", None),
        ("ffn_up", "feed_forward.w3", None),
    ],
    whole: &[],
    buffers: ROTARY_BUFFERS,
};
