//! The architectures that are read and written, and how llama.cpp's converter changes their tensors.

use super::tables::{self, Names};

/// An architecture that is read from, and written to, GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arch {
    Llama,
    Gpt2,
    Qwen2,
    Qwen3,
    Gemma,
    Gemma2,
    Gemma3,
    Phi2,
    Phi3,
    GptNeox,
    Bloom,
    Olmo2,
    Smollm3,
    Mamba,
    Mamba2,
    Lfm2,
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
    /// Rows `[heads, 3, width]` of queries, keys and values of each head to `[3, heads, width]`.
    QkvOfHeads,
    /// GPT-2's `[inputs, outputs]` matrices turned to `[outputs, inputs]`.
    Transpose,
    /// One added to a norm's weights, for Gemma's norms multiply by one more than they store.
    PlusOne,
    /// `A_log` stored as A = −e^A_log.
    Negative,
    /// The same, `[heads]` stored as `[heads, 1]`.
    NegativeFlat,
    /// A vector stored with two dimensions.
    Flat,
    /// A convolution's `[channels, 1, kernel]` stored as `[channels, kernel]`.
    Convolution,
}

impl Change {
    /// Whether rows were moved.
    pub(super) fn moves_rows(self) -> bool {
        matches!(
            self,
            Self::PermuteQueries | Self::PermuteKeys | Self::QkvOfHeads
        )
    }

    /// The row of the file that Hugging Face has as `row`, of `rows` in `heads` heads.
    ///
    /// `rows` must be a multiple of 2 · `heads`, or of 3 · `heads` for [`Change::QkvOfHeads`].
    pub(super) fn stored_row(self, row: usize, rows: usize, heads: usize) -> usize {
        match self {
            Self::PermuteQueries | Self::PermuteKeys => interleaved(row, rows / heads),
            Self::QkvOfHeads => {
                let width = rows / (3 * heads);
                let (head, part) = (row / (3 * width), row / width % 3);
                (part * heads + head) * width + row % width
            }
            _ => row,
        }
    }

    /// Hugging Face's shape of a tensor stored with the shape `stored` (outermost dimension first).
    pub(super) fn shape(self, stored: &[usize]) -> Vec<usize> {
        match (self, stored) {
            (Self::Transpose, [a, b]) => vec![*b, *a],
            (Self::Convolution, [channels, kernel]) => vec![*channels, 1, *kernel],
            (Self::Flat | Self::NegativeFlat, shape) => {
                // The shape of a tensor that is not read is not checked.
                vec![shape.iter().fold(1, |n: usize, d| n.saturating_mul(*d))]
            }
            (_, shape) => shape.to_vec(),
        }
    }
}

impl Arch {
    pub(super) const ALL: [Self; 16] = [
        Self::Llama,
        Self::Gpt2,
        Self::Qwen2,
        Self::Qwen3,
        Self::Gemma,
        Self::Gemma2,
        Self::Gemma3,
        Self::Phi2,
        Self::Phi3,
        Self::GptNeox,
        Self::Bloom,
        Self::Olmo2,
        Self::Smollm3,
        Self::Mamba,
        Self::Mamba2,
        Self::Lfm2,
    ];

    pub(super) fn names(self) -> &'static Names {
        match self {
            Self::Llama => &tables::LLAMA,
            Self::Gpt2 => &tables::GPT2,
            Self::Qwen2 => &tables::QWEN2,
            Self::Qwen3 => &tables::QWEN3,
            Self::Gemma => &tables::GEMMA,
            Self::Gemma2 => &tables::GEMMA2,
            Self::Gemma3 => &tables::GEMMA3,
            Self::Phi2 => &tables::PHI2,
            Self::Phi3 => &tables::PHI3,
            Self::GptNeox => &tables::GPT_NEOX,
            Self::Bloom => &tables::BLOOM,
            Self::Olmo2 => &tables::OLMO2,
            Self::Smollm3 => &tables::SMOLLM3,
            Self::Mamba => &tables::MAMBA,
            Self::Mamba2 => &tables::MAMBA2,
            Self::Lfm2 => &tables::LFM2,
        }
    }

    /// By `general.architecture`.
    pub(super) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|arch| arch.name() == name)
    }

    /// By `model_type` of a `config.json`.
    pub(super) fn of_model_type(name: &str) -> Option<Self> {
        let has = |arch: &Self| arch.names().model_types.contains(&name);
        Self::ALL.into_iter().find(has)
    }

    /// `general.architecture`.
    pub(super) fn name(self) -> &'static str {
        self.names().gguf
    }

    /// GGUF → Hugging Face; `None` for tensors the architecture does not have.
    pub(super) fn to_hf(self, gguf: &str) -> Option<(String, Change)> {
        let names = self.names();
        let Some((n, rest)) = block(gguf, "blk.") else {
            let (stem, kind) = split(gguf)?;
            let &(_, hf, change) = names.outside.iter().find(|(g, _, _)| *g == stem)?;
            return Some((format!("{hf}.{kind}"), change.of(kind)));
        };
        let before = names.blocks;
        if let Some(&(_, hf, change)) = names.whole.iter().find(|(g, _, _)| *g == rest) {
            return Some((format!("{before}{n}.{hf}"), change));
        }
        let (stem, kind) = split(rest)?;
        let &(_, hf, change) = names.inside.iter().find(|(g, _, _)| *g == stem)?;
        Some((format!("{before}{n}.{hf}.{kind}"), change.of(kind)))
    }

    /// Hugging Face → GGUF; `None` for tensors that GGUF has no name for.
    pub(super) fn to_gguf(self, hf: &str) -> Option<(String, Change)> {
        let names = self.names();
        // Some files on the hub leave the prefix out.
        let prefixed = if hf.starts_with(names.prefix) || hf.starts_with("lm_head.") {
            hf.to_owned()
        } else {
            format!("{}{hf}", names.prefix)
        };
        let Some((n, rest)) = block(&prefixed, names.blocks) else {
            let (stem, kind) = split(&prefixed)?;
            let &(gguf, _, change) = names.outside.iter().find(|(_, h, _)| *h == stem)?;
            return Some((format!("{gguf}.{kind}"), change.of(kind)));
        };
        if let Some(&(gguf, _, change)) = names.whole.iter().find(|(_, h, _)| *h == rest) {
            return Some((format!("blk.{n}.{gguf}"), change));
        }
        let (stem, kind) = split(rest)?;
        let &(gguf, _, change) = names.inside.iter().find(|(_, h, _)| *h == stem)?;
        Some((format!("blk.{n}.{gguf}.{kind}"), change.of(kind)))
    }

    /// Whether a tensor carries nothing that the architecture's numbers do not say already: rotary tables, causal masks.
    pub(super) fn is_buffer(self, name: &str) -> bool {
        let buffers = self.names().buffers;
        buffers.iter().any(|end| name.ends_with(end))
    }
}

impl Change {
    /// The change as it is for `kind`: only weights are shifted, biases are not.
    fn of(self, kind: &str) -> Self {
        match self {
            Self::PlusOne if kind != "weight" => Self::None,
            change => change,
        }
    }
}

/// The names nearest to an unknown one, for messages.
pub(super) fn nearest(name: &str) -> String {
    let all: Vec<&str> = Arch::ALL.iter().map(|arch| arch.name()).collect();
    crate::model::config::nearest(name, &all).join(", ")
}

/// All names, for messages.
pub(super) fn known() -> String {
    let all: Vec<&str> = Arch::ALL.iter().map(|arch| arch.name()).collect();
    all.join(", ")
}

/// The number of the block that a GGUF tensor belongs to.
pub(super) fn block_of(gguf: &str) -> Option<u32> {
    block(gguf, "blk.").map(|(n, _)| n)
}

/// Number of the block and what follows it.
fn block<'a>(name: &'a str, before: &str) -> Option<(u32, &'a str)> {
    let (n, rest) = name.strip_prefix(before)?.split_once('.')?;
    // Only one way to write a number, so that no two names mean the same tensor.
    let n: u32 = n.parse().ok().filter(|v: &u32| v.to_string() == n)?;
    Some((n, rest))
}

fn split(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('.')
        .filter(|(_, kind)| matches!(*kind, "weight" | "bias"))
}

/// Where row `row` of the half-split order lies in the interleaved order, for heads of `head_dim` rows: the converter
/// put the two halves of a rotary pair side by side.
fn interleaved(row: usize, head_dim: usize) -> usize {
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
            (Arch::GptNeox, "output.weight", "embed_out.weight"),
            (
                Arch::Mamba2,
                "blk.3.ssm_dt.bias",
                "backbone.layers.3.mixer.dt_bias",
            ),
            (Arch::Mamba, "blk.3.ssm_a", "backbone.layers.3.mixer.A_log"),
            (
                Arch::Mamba,
                "blk.3.ssm_dt.bias",
                "backbone.layers.3.mixer.dt_proj.bias",
            ),
            (
                Arch::Lfm2,
                "blk.0.shortconv.conv.weight",
                "model.layers.0.conv.conv.weight",
            ),
            (
                Arch::Gemma2,
                "blk.0.ffn_norm.weight",
                "model.layers.0.pre_feedforward_layernorm.weight",
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
            "blk.+0.attn_q.weight",
            "blk.00.attn_q.weight",
            "blk.0.attn_z.weight",
            "blk.0.ffn_gate_exps.weight",
            "blk.0.ssm_a",
            "",
        ] {
            assert_eq!(Arch::Llama.to_hf(wrong), None);
        }
        assert!(Arch::Gpt2.is_buffer("h.0.attn.bias"));
        assert!(!Arch::Gpt2.is_buffer("h.0.attn.c_attn.bias"));
    }

    #[test]
    fn every_name_of_every_table_goes_there_and_back() {
        for arch in Arch::ALL {
            let names = arch.names();
            assert_eq!(Arch::of(names.gguf), Some(arch));
            for model_type in names.model_types {
                assert_eq!(Arch::of_model_type(model_type), Some(arch));
            }
            for (gguf, _, change) in names.inside {
                let gguf = format!("blk.7.{gguf}.weight");
                let (hf, found) = arch.to_hf(&gguf).unwrap();
                assert_eq!(found, *change);
                assert_eq!(arch.to_gguf(&hf), Some((gguf, *change)));
            }
            for (gguf, _, change) in names.whole {
                let gguf = format!("blk.7.{gguf}");
                let (hf, found) = arch.to_hf(&gguf).unwrap();
                assert_eq!(found, *change);
                assert_eq!(arch.to_gguf(&hf), Some((gguf, *change)));
            }
            for (gguf, _, change) in names.outside {
                let gguf = format!("{gguf}.weight");
                let (hf, _) = arch.to_hf(&gguf).unwrap();
                assert_eq!(arch.to_gguf(&hf), Some((gguf, *change)));
            }
        }
    }

    #[test]
    fn rows_are_paired_and_gathered() {
        // Two heads of four rows: 0 1 | 2 3 becomes 0 2 1 3.
        let order = |change: Change, rows, heads| -> Vec<usize> {
            let at = |row| change.stored_row(row, rows, heads);
            (0..rows).map(at).collect()
        };
        assert_eq!(
            order(Change::PermuteQueries, 8, 2),
            [0, 2, 1, 3, 4, 6, 5, 7]
        );
        // Two heads of q k v, two rows each: the queries of both heads come first.
        assert_eq!(
            order(Change::QkvOfHeads, 12, 2),
            [0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11]
        );
        assert_eq!(order(Change::None, 3, 1), [0, 1, 2]);
    }

    #[test]
    fn the_nearest_names_are_found() {
        assert_eq!(nearest("qwen3moe"), "qwen3");
        assert_eq!(nearest("gemma3n"), "gemma3");
        assert_eq!(nearest("zzz"), "");
        assert!(known().contains("lfm2"));
    }
}
