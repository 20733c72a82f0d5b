//! The names GGUF gives to tensors, and the Hugging Face names of the same: one table per architecture.

/// An architecture that is read from, and written to, GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arch {
    Llama,
    Gpt2,
}

/// How the converter changed a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Not at all.
    None,
    /// Rows of query heads, from half-split to interleaved rotary order.
    PermuteQueries,
    /// Rows of key heads, likewise.
    PermuteKeys,
    /// GPT-2's `[inputs, outputs]` matrices turned to `[outputs, inputs]`.
    Transpose,
}

/// `(GGUF, Hugging Face)` outside the blocks, without `.weight` and `.bias`.
type Table = &'static [(&'static str, &'static str)];
/// The same inside a block, with what was changed.
type BlockTable = &'static [(&'static str, &'static str, Change)];

impl Arch {
    /// By `general.architecture` or `model_type`.
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "llama" => Some(Self::Llama),
            "gpt2" => Some(Self::Gpt2),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Gpt2 => "gpt2",
        }
    }

    fn outside(self) -> Table {
        match self {
            Self::Llama => &[
                ("token_embd", "model.embed_tokens"),
                ("output_norm", "model.norm"),
                ("output", "lm_head"),
                ("rope_freqs", "rope_freqs"),
            ],
            Self::Gpt2 => &[
                ("token_embd", "transformer.wte"),
                ("position_embd", "transformer.wpe"),
                ("output_norm", "transformer.ln_f"),
                ("output", "lm_head"),
            ],
        }
    }

    fn block(self) -> (&'static str, BlockTable) {
        match self {
            Self::Llama => (
                "model.layers.",
                &[
                    ("attn_norm", "input_layernorm", Change::None),
                    ("attn_q", "self_attn.q_proj", Change::PermuteQueries),
                    ("attn_k", "self_attn.k_proj", Change::PermuteKeys),
                    ("attn_v", "self_attn.v_proj", Change::None),
                    ("attn_output", "self_attn.o_proj", Change::None),
                    ("ffn_norm", "post_attention_layernorm", Change::None),
                    ("ffn_gate", "mlp.gate_proj", Change::None),
                    ("ffn_up", "mlp.up_proj", Change::None),
                    ("ffn_down", "mlp.down_proj", Change::None),
                ],
            ),
            Self::Gpt2 => (
                "transformer.h.",
                &[
                    ("attn_norm", "ln_1", Change::None),
                    ("attn_qkv", "attn.c_attn", Change::Transpose),
                    ("attn_output", "attn.c_proj", Change::Transpose),
                    ("ffn_norm", "ln_2", Change::None),
                    ("ffn_up", "mlp.c_fc", Change::Transpose),
                    ("ffn_down", "mlp.c_proj", Change::Transpose),
                ],
            ),
        }
    }

    /// GGUF → Hugging Face; `None` for tensors the architecture does not have.
    pub(super) fn to_hf(self, gguf: &str) -> Option<(String, Change)> {
        let (stem, kind) = split(gguf)?;
        if let Some((n, stem)) = stem.strip_prefix("blk.").and_then(|s| s.split_once('.')) {
            let (prefix, table) = self.block();
            let &(_, hf, change) = table.iter().find(|(g, _, _)| *g == stem)?;
            let n: u32 = n.parse().ok()?;
            return Some((format!("{prefix}{n}.{hf}.{kind}"), change));
        }
        let &(_, hf) = self.outside().iter().find(|(g, _)| *g == stem)?;
        Some((format!("{hf}.{kind}"), Change::None))
    }

    /// Hugging Face → GGUF; `None` for tensors that GGUF has no name for.
    pub(super) fn to_gguf(self, hf: &str) -> Option<(String, Change)> {
        let (stem, kind) = split(hf)?;
        // The hub's gpt2 files leave the prefix out.
        let stem = match self {
            Self::Gpt2 if stem != "lm_head" && !stem.starts_with("transformer.") => {
                format!("transformer.{stem}")
            }
            _ => stem.to_owned(),
        };
        let (prefix, table) = self.block();
        if let Some((n, stem)) = stem.strip_prefix(prefix).and_then(|s| s.split_once('.')) {
            let &(gguf, _, change) = table.iter().find(|(_, h, _)| *h == stem)?;
            let n: u32 = n.parse().ok()?;
            return Some((format!("blk.{n}.{gguf}.{kind}"), change));
        }
        let (gguf, _) = self.outside().iter().find(|(_, h)| *h == stem)?;
        Some((format!("{gguf}.{kind}"), Change::None))
    }

    /// Whether a tensor carries nothing that the architecture's numbers do not say already: rotary tables, causal masks.
    pub(super) fn is_buffer(self, name: &str) -> bool {
        match self {
            Self::Llama => {
                name.ends_with("rotary_emb.inv_freq")
                    || name.ends_with("attn_rot_embd.weight")
                    || name.ends_with("attn_rot_embd")
            }
            Self::Gpt2 => name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"),
        }
    }
}

fn split(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('.')
        .filter(|(_, kind)| matches!(*kind, "weight" | "bias"))
}

/// Where row `row` of the half-split order lies in the interleaved order, for heads of `head_dim` rows: the converter
/// put the two halves of a rotary pair side by side.
pub(super) fn interleaved(row: usize, head_dim: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    let half = head_dim / 2;
    head * head_dim + 2 * (within % half) + within / half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for (arch, gguf, hf) in [
            (
                Arch::Llama,
                "token_embd.weight",
                "model.embed_tokens.weight",
            ),
            (
                Arch::Llama,
                "blk.11.attn_q.weight",
                "model.layers.11.self_attn.q_proj.weight",
            ),
            (
                Arch::Llama,
                "blk.0.attn_q.bias",
                "model.layers.0.self_attn.q_proj.bias",
            ),
            (Arch::Llama, "output.weight", "lm_head.weight"),
            (Arch::Gpt2, "position_embd.weight", "transformer.wpe.weight"),
            (
                Arch::Gpt2,
                "blk.2.ffn_norm.bias",
                "transformer.h.2.ln_2.bias",
            ),
        ] {
            assert_eq!(arch.to_hf(gguf).unwrap().0, hf);
            assert_eq!(arch.to_gguf(hf).unwrap().0, gguf);
        }
        assert_eq!(
            Arch::Gpt2.to_gguf("h.0.attn.c_attn.weight").unwrap(),
            ("blk.0.attn_qkv.weight".into(), Change::Transpose)
        );
        for wrong in [
            "blk.x.attn_q.weight",
            "blk.0.attn_q",
            "blk.0.attn_z.weight",
            "blk.0.ffn_gate_exps.weight",
            "",
        ] {
            assert_eq!(Arch::Llama.to_hf(wrong), None);
        }
        assert!(Arch::Gpt2.is_buffer("h.0.attn.bias"));
        assert!(!Arch::Gpt2.is_buffer("h.0.attn.c_attn.bias"));
    }

    #[test]
    fn interleaving_pairs_the_halves() {
        // Two heads of four rows: 0 1 | 2 3 becomes 0 2 1 3.
        let order: Vec<usize> = (0..8).map(|row| interleaved(row, 4)).collect();
        assert_eq!(order, [0, 2, 1, 3, 4, 6, 5, 7]);
    }
}
