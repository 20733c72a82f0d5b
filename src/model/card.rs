//! What a loaded model is, in words and numbers, for the title bar, `entroscope models` and the manifest.

/// A description of a loaded model. Every string is safe to display.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelCard {
    /// Short name: the folder's or file's name, the hub id, or `demo`.
    pub name: String,
    /// Where it came from: a path, a hub id with revision, or `embedded`.
    pub source: String,
    /// Architecture family, such as `llama` or `gpt2`.
    pub family: String,
    /// Number of blocks L; there are L + 1 states.
    pub blocks: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Attention (query) heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Inner width of the MLP.
    pub d_mlp: usize,
    /// Number of logits; may exceed the tokenizer's size.
    pub vocab: usize,
    /// Longest context in tokens.
    pub context: usize,
    /// How the weights are held: `f32`, `q8_0`, …
    pub dtype: String,
    /// Where it runs, such as `cpu×2`.
    pub device: String,
    /// Number of weights (tied ones counted once).
    pub parameters: u64,
    /// Bytes the weights take in memory.
    pub bytes: u64,
    /// Whether it predicts the next token (and so can generate).
    pub causal: bool,
    /// Whether the head shares the embedding's weights.
    pub tied_head: bool,
    /// Whether it brings a chat template.
    pub chat_template: bool,
    /// SHA-256 of the weights, hex, once computed.
    pub sha256: Option<String>,
}
