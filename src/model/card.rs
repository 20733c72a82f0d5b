//! What a loaded model is, in words and numbers, for the title bar, `entroscope models` and the manifest.

use super::Tokenizer;
use super::config::LayerKind;
use crate::text;

/// From here on a context is no limit: state-space models have none, memory has.
const NO_LIMIT: usize = 1 << 24;

/// Layers of one kind that are listed by number.
const LISTED: usize = 6;

/// Groups of unread tensors that are named.
const PARTS: usize = 6;

/// A description of a loaded model. Every string is safe to display.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// Attention (query) heads; 0 where no block attends.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Inner width of the MLP; 0 where there is none.
    pub d_mlp: usize,
    /// Number of logits; may exceed the tokenizer's size.
    pub vocab: usize,
    /// Longest context in tokens, or a stand-in where there is no limit: ask [`ModelCard::limit`].
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
    /// What each block is, from the first to block L.
    pub layers: Vec<LayerKind>,
    /// Its logits are squeezed into ± this.
    pub logit_cap: Option<f64>,
    /// The token that stands for a gap, where the model fills gaps.
    pub mask: Option<Mask>,
    /// Bytes of the weights as stored.
    pub file_bytes: u64,
    /// Bytes of memory a token of text adds at most; 0 where a text of any length takes the same.
    pub token_bytes: u64,
    /// Parts of the files that are not read, with their number of tensors.
    pub unread: Vec<(String, usize)>,
    /// SHA-256 of the weights, hex, once computed.
    pub sha256: Option<String>,
}

impl ModelCard {
    /// Longest text in tokens; `None` where only memory limits it.
    #[must_use]
    pub fn limit(&self) -> Option<usize> {
        (self.context < NO_LIMIT).then_some(self.context)
    }

    /// Whether any block has attention to look at.
    #[must_use]
    pub fn attends(&self) -> bool {
        self.layers.iter().any(|kind| kind.attends())
    }

    /// What a masked model fills, as it is written in a prompt.
    #[must_use]
    pub fn mask_text(&self) -> &str {
        self.mask.as_ref().map_or("gaps", |mask| &mask.text)
    }

    /// Whether this token is a gap to fill.
    #[must_use]
    pub fn is_mask(&self, id: u32) -> bool {
        self.mask.as_ref().is_some_and(|mask| mask.id == id)
    }

    /// The blocks in words: how many of which kind, and for all but the commonest which ones (1 is the first).
    #[must_use]
    pub fn layer_words(&self) -> String {
        let mut kinds: Vec<(LayerKind, Vec<usize>)> = Vec::new();
        for (block, kind) in self.layers.iter().enumerate() {
            match kinds.iter_mut().find(|(k, _)| k == kind) {
                Some((_, blocks)) => blocks.push(block + 1),
                None => kinds.push((*kind, vec![block + 1])),
            }
        }
        let all = self.layers.len();
        let noun = if all == 1 { "layer" } else { "layers" };
        if let [(only, _)] = kinds.as_slice() {
            return format!("{all} {noun}: {}", kind(*only));
        }
        // The sort is stable: of equally common kinds the earlier one leads.
        kinds.sort_by_key(|(_, blocks)| std::cmp::Reverse(blocks.len()));
        let parts: Vec<String> = kinds
            .iter()
            .enumerate()
            .map(|(i, (which, blocks))| {
                let what = format!("{} {}", blocks.len(), kind(*which));
                if i == 0 {
                    return what;
                }
                let mut list: Vec<String> = blocks
                    .iter()
                    .take(LISTED)
                    .map(ToString::to_string)
                    .collect();
                if blocks.len() > LISTED {
                    list.push("…".to_owned());
                }
                format!("{what} ({})", list.join(", "))
            })
            .collect();
        format!("{all} {noun}: {}", parts.join(", "))
    }

    /// Why the attention of block `index` (0 is the first) cannot be shown; `None` where it can.
    #[must_use]
    pub fn no_attention(&self, index: usize) -> Option<String> {
        if !self.attends() {
            return Some("this model has no attention".to_owned());
        }
        let what = match self.layers.get(index)? {
            LayerKind::Attention | LayerKind::Window(_) | LayerKind::Hybrid => return None,
            LayerKind::Skipped => "a skipped cross-attention",
            LayerKind::Convolution => "a convolution",
            LayerKind::StateSpace => "a state space",
        };
        Some(format!("layer {} is {what}", index + 1))
    }
}

/// The token that stands for a gap to fill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Vocabulary index.
    pub id: u32,
    /// As it is written in a prompt, such as `[MASK]`; safe to display.
    pub text: String,
}

impl Mask {
    /// The mask of a tokenizer, by the names that are in use.
    pub(crate) fn find(tokenizer: &Tokenizer) -> Option<Self> {
        ["[MASK]", "<mask>"].into_iter().find_map(|text| {
            Some(Self {
                id: tokenizer.id(text)?,
                text: text.to_owned(),
            })
        })
    }
}

/// What a block is, in words, with the width of its window.
#[must_use]
pub fn kind(kind: LayerKind) -> String {
    match kind {
        LayerKind::Window(width) => format!("{} {width}", kind.name()),
        _ => kind.name().to_owned(),
    }
}

/// Tensors that were left unread, as the parts of a model that people know, the largest first.
pub(crate) fn parts(names: &[String]) -> Vec<(String, usize)> {
    let mut parts: Vec<(String, usize)> = Vec::new();
    for name in names {
        let part = part(name);
        match parts.iter_mut().find(|(known, _)| *known == part) {
            Some((_, count)) => *count += 1,
            None => parts.push((part, 1)),
        }
    }
    parts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    if parts.len() > PARTS {
        let rest = parts.split_off(PARTS - 1);
        let count = rest.iter().map(|(_, count)| count).sum();
        parts.push(("others".to_owned(), count));
    }
    parts
}

fn part(name: &str) -> String {
    let has = |word: &str| name.split(['.', '_']).any(|part| part == word);
    if has("projector") {
        "image projector".to_owned()
    } else if has("vision") || has("visual") {
        "image tower".to_owned()
    } else if has("audio") {
        "audio tower".to_owned()
    } else if has("cross") || name.contains(".layers.") {
        "cross-attention layers".to_owned()
    } else if has("pooler") {
        "pooler".to_owned()
    } else if name.starts_with("cls.seq_relationship") {
        "next-sentence head".to_owned()
    } else {
        let start: Vec<&str> = name.split('.').take(2).collect();
        text::truncate_width(&text::one_line(&start.join(".")), 40)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(layers: Vec<LayerKind>) -> ModelCard {
        ModelCard {
            layers,
            ..ModelCard::default()
        }
    }

    #[test]
    fn kinds_of_layers_are_told_compactly() {
        use LayerKind::{Attention, Convolution, Hybrid, StateSpace, Window};
        assert_eq!(
            card(vec![Attention; 12]).layer_words(),
            "12 layers: attention"
        );
        assert_eq!(card(vec![StateSpace]).layer_words(), "1 layer: state space");
        let zamba = [StateSpace, Hybrid, Hybrid, StateSpace, StateSpace].to_vec();
        assert_eq!(
            card(zamba).layer_words(),
            "5 layers: 3 state space, 2 state space + attention (2, 3)"
        );
        let gemma = [Window(4096), Attention].repeat(13);
        assert_eq!(
            card(gemma).layer_words(),
            "26 layers: 13 sliding attention 4096, 13 attention (2, 4, 6, 8, 10, 12, …)"
        );
        let two = vec![Window(8), Convolution, Window(16), Convolution];
        assert_eq!(
            card(two).layer_words(),
            "4 layers: 2 convolution, 1 sliding attention 8 (1), 1 sliding attention 16 (3)"
        );
    }

    #[test]
    fn missing_attention_has_a_reason() {
        use LayerKind::{Attention, Convolution, Hybrid, Skipped, StateSpace};
        let mixed = card(vec![Attention, Convolution, Skipped, StateSpace, Hybrid]);
        let why = |index| mixed.no_attention(index);
        assert_eq!(why(0), None);
        assert_eq!(why(1).as_deref(), Some("layer 2 is a convolution"));
        let skipped = "layer 3 is a skipped cross-attention";
        assert_eq!(why(2).as_deref(), Some(skipped));
        assert_eq!(why(3).as_deref(), Some("layer 4 is a state space"));
        assert_eq!((why(4), why(9)), (None, None));
        let none = card(vec![StateSpace; 2]);
        let text = "this model has no attention";
        assert_eq!(none.no_attention(0).as_deref(), Some(text));
    }

    #[test]
    fn unread_tensors_are_told_by_the_part_they_belong_to() {
        let names = [
            "vision_tower.encoder.0.q",
            "vision_tower.encoder.0.k",
            "model.multi_modal_projector.linear",
            "bert.pooler.dense.weight",
            "cls.seq_relationship.bias",
            "something.of\x1b[2J.its.own",
        ]
        .map(str::to_owned);
        let expected = [
            ("image tower", 2),
            ("image projector", 1),
            ("pooler", 1),
            ("next-sentence head", 1),
            ("something.of\\x1B[2J", 1),
        ]
        .map(|(name, count)| (name.to_owned(), count));
        assert_eq!(parts(&names), expected);
        let many: Vec<String> = (0..50).map(|i| format!("a{i}.b")).collect();
        let parts = parts(&many);
        assert_eq!(parts.len(), PARTS);
        assert_eq!(parts[PARTS - 1], ("others".to_owned(), 45));
    }

    #[test]
    fn a_stand_in_for_no_limit_is_no_number() {
        let mut card = card(Vec::new());
        card.context = 1024;
        assert_eq!(card.limit(), Some(1024));
        card.context = 1 << 24;
        assert_eq!(card.limit(), None);
    }
}
