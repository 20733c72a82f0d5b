//! The grid of one branch: tokens along time, states along depth.

use super::{Metric, Spread};
use crate::model::ModelCard;
use std::sync::Arc;

/// Whether a token was given or drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Part of the prompt (whatever the tokenizer or chat template added included).
    Prompt,
    /// Drawn by the sampler.
    Generated,
}

impl Kind {
    /// The word used in files.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Generated => "generated",
        }
    }
}

/// Which token the cells of a position speak about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Aim {
    /// The one after it: the model reads from left to right and says what comes.
    #[default]
    Next,
    /// The one that stands there: the model sees both sides and says what belongs in between.
    Itself,
}

impl Aim {
    /// The aim of a model that is causal, or is not.
    #[must_use]
    pub fn of(causal: bool) -> Self {
        if causal { Self::Next } else { Self::Itself }
    }

    /// The position of the token that the cells at `position` speak about.
    #[must_use]
    pub fn target(self, position: usize) -> usize {
        match self {
            Self::Next => position.saturating_add(1),
            Self::Itself => position,
        }
    }

    /// The position whose cells speak about the token at `position`; `None` for a text's first token, which nothing
    /// has predicted.
    #[must_use]
    pub fn source(self, position: usize) -> Option<usize> {
        match self {
            Self::Next => position.checked_sub(1),
            Self::Itself => Some(position),
        }
    }
}

/// One token of the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Vocabulary index.
    pub id: u32,
    /// The bytes it stands for; may be a part of a character. Untrusted: scrub before display.
    pub bytes: Vec<u8>,
    /// Given or drawn.
    pub kind: Kind,
    /// Seconds from the start of the run until this token was known.
    pub seconds: f64,
}

/// One entry of a cell's top-k list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Vocabulary index.
    pub id: u32,
    /// Its probability under the lens distribution.
    pub prob: f32,
}

/// Attention statistics of one query position. Layers without attention hold NaN.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Attention heads per layer.
    pub heads: usize,
    /// `attn_entropy`, nats, `[L][heads]`; block l (1-based layer l) is row l − 1.
    pub entropy: Box<[f32]>,
    /// `attn_varentropy`, nats², `[L][heads]`.
    pub varentropy: Box<[f32]>,
    /// `attn_entropy_norm`, share, `[L][heads]`.
    pub entropy_norm: Box<[f32]>,
    /// `attn_entropy_mean`, nats, `[L]`.
    pub mean: Box<[f32]>,
    /// `attn_head_var`, nats², `[L]`.
    pub head_var: Box<[f32]>,
    /// `attn_disagreement`, `[L]`.
    pub disagreement: Box<[f32]>,
    /// The probabilities themselves, `[L][heads][keys]` over the keys from position 0 (0 for keys out of a window), when
    /// they are kept. A causal model has position + 1 keys, one that sees both sides all of the text.
    pub rows: Option<Box<[f32]>>,
}

/// Everything the lens read at one position: `L + 1` states by the schema's metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Cells {
    /// `[L + 1][metrics]`; NaN = not applicable or undefined, shown as n/a and empty in files.
    pub values: Box<[f32]>,
    /// `[L + 1][K]` best candidates, fewer than K filled entries are marked by NaN probability.
    pub top: Box<[Candidate]>,
    /// The lowest layer from which on the top-1 is the final layer's top-1; `None` when the final row is invalid.
    pub decided_layer: Option<u32>,
    /// Attention statistics, when they were asked for.
    pub attention: Option<Attention>,
    /// KL(baseline‖this), nats, `[L + 1]`: how far each distribution is from that of the cell it was read beside; none where
    /// there was no such cell, or one of another text.
    pub divergence: Option<Box<[f32]>>,
    /// Identifies the steering plan these cells were computed under; 0 is the plain model.
    pub plan: u32,
}

/// The layer × token grid of one branch.
#[derive(Clone, Debug, Default)]
pub struct Grid {
    layers: usize,
    metrics: usize,
    top: usize,
    aim: Aim,
    tokens: Vec<Token>,
    cells: Vec<Option<Arc<Cells>>>,
}

impl Grid {
    /// An empty grid for a model with `blocks` blocks (so `blocks + 1` states), `metrics` metrics and `top` candidates
    /// a cell.
    #[must_use]
    pub fn new(blocks: usize, metrics: usize, top: usize) -> Self {
        Self {
            layers: blocks + 1,
            metrics,
            top,
            aim: Aim::Next,
            tokens: Vec::new(),
            cells: Vec::new(),
        }
    }

    /// The same grid for cells that speak about another token than the next one.
    #[must_use]
    pub fn aimed(mut self, aim: Aim) -> Self {
        self.aim = aim;
        self
    }

    /// Which token the cells of a position speak about.
    #[must_use]
    pub fn aim(&self) -> Aim {
        self.aim
    }

    /// Number of states, L + 1. Layer indices run from 0 (embedding) to `states() - 1`.
    #[must_use]
    pub fn states(&self) -> usize {
        self.layers
    }

    /// All tokens so far.
    #[must_use]
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is no token yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Number of prompt tokens.
    #[must_use]
    pub fn prompt_len(&self) -> usize {
        self.tokens
            .iter()
            .take_while(|t| t.kind == Kind::Prompt)
            .count()
    }

    /// Append a token.
    pub fn push_token(&mut self, token: Token) {
        self.tokens.push(token);
        self.cells.push(None);
    }

    /// Set the cells of a position. Cells of a wrong shape or outside the text are dropped and reported as `false`.
    pub fn set_cells(&mut self, position: usize, cells: Arc<Cells>) -> bool {
        let fits = cells.values.len() == self.layers * self.metrics
            && cells.top.len() == self.layers * self.top;
        match self.cells.get_mut(position) {
            Some(slot) if fits => {
                *slot = Some(cells);
                true
            }
            _ => false,
        }
    }

    /// Keep only the first `len` tokens and their cells.
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.cells.truncate(len);
    }

    /// The cells of a position, if they have been read.
    #[must_use]
    pub fn cells(&self, position: usize) -> Option<&Arc<Cells>> {
        self.cells.get(position)?.as_ref()
    }

    /// How many positions have been read.
    #[must_use]
    pub fn read(&self) -> usize {
        self.cells.iter().filter(|c| c.is_some()).count()
    }

    /// One metric of one cell; `None` where it is undefined, not applicable or not read.
    #[must_use]
    pub fn value(&self, layer: usize, position: usize, metric: Metric) -> Option<f32> {
        if layer >= self.layers || metric.0 >= self.metrics {
            return None;
        }
        let v = self.cells(position)?.values[layer * self.metrics + metric.0];
        (!v.is_nan()).then_some(v)
    }

    /// The best candidates of one cell, best first.
    #[must_use]
    pub fn top(&self, layer: usize, position: usize) -> &[Candidate] {
        if layer >= self.layers {
            return &[];
        }
        self.cells(position).map_or(&[], |c| {
            let all = &c.top[layer * self.top..(layer + 1) * self.top];
            let filled = all.iter().take_while(|c| !c.prob.is_nan()).count();
            &all[..filled]
        })
    }

    /// A metric of the cell that *predicted* the token at `position`: the final state one position earlier, or at that
    /// very position where the model sees both sides.
    #[must_use]
    pub fn predicted_by(&self, position: usize, metric: Metric) -> Option<f32> {
        self.value(
            self.layers.checked_sub(1)?,
            self.aim.source(position)?,
            metric,
        )
    }

    /// The lowest layer from which on the token at `position` was settled: read where it was predicted, as in
    /// [`Self::predicted_by`].
    #[must_use]
    pub fn decided_layer(&self, position: usize) -> Option<u32> {
        self.cells(self.aim.source(position)?)?.decided_layer
    }

    /// The positions of the tokens with this id, in order.
    pub fn positions_of(&self, id: u32) -> impl Iterator<Item = usize> {
        self.tokens
            .iter()
            .enumerate()
            .filter(move |(_, token)| token.id == id)
            .map(|(position, _)| position)
    }

    /// The layer profile of a position: one entry per state.
    #[must_use]
    pub fn profile(&self, position: usize, metric: Metric) -> Vec<Option<f32>> {
        (0..self.layers)
            .map(|l| self.value(l, position, metric))
            .collect()
    }

    /// Mean over `positions` of every layer's metric, with the number of defined cells behind each mean.
    pub fn mean_profile(
        &self,
        positions: impl Iterator<Item = usize> + Clone,
        metric: Metric,
    ) -> Vec<(Option<f64>, usize)> {
        (0..self.layers)
            .map(|layer| {
                let (mut sum, mut n) = (0.0f64, 0usize);
                for v in positions
                    .clone()
                    .filter_map(|p| self.value(layer, p, metric))
                {
                    sum += f64::from(v);
                    n += 1;
                }
                ((n > 0).then(|| sum / n as f64), n)
            })
            .collect()
    }

    /// The predicting positions of the generated tokens: what the default aggregation runs over. Empty where nothing was
    /// drawn.
    #[must_use]
    pub fn predicting_positions(&self) -> std::ops::Range<usize> {
        let prompt = self.prompt_len();
        prompt.saturating_sub(1)
            ..self
                .tokens
                .len()
                .saturating_sub(1)
                .max(prompt.saturating_sub(1))
    }

    /// The positions of the gaps in a text that a masked model read.
    #[must_use]
    pub fn masks(&self, card: &ModelCard) -> Vec<usize> {
        match &card.mask {
            Some(mask) if self.aim == Aim::Itself => self.positions_of(mask.id).collect(),
            _ => Vec::new(),
        }
    }

    /// A metric of one layer over some positions; `None` where it is defined at none of them.
    #[must_use]
    pub fn spread(&self, layer: usize, metric: Metric, positions: &[usize]) -> Option<Spread> {
        let values = positions
            .iter()
            .filter_map(|at| self.value(layer, *at, metric));
        Spread::of(values.map(f64::from))
    }

    /// The values at quantiles `low` and `high` (0..=1) of all read cells of a metric within `layers` and from
    /// position `first` on: an automatic colour range that one extreme cell cannot flatten.
    #[must_use]
    pub fn quantile_range(
        &self,
        metric: Metric,
        layers: std::ops::Range<usize>,
        first: usize,
        (low, high): (f64, f64),
    ) -> Option<(f32, f32)> {
        let mut values: Vec<f32> = (first..self.tokens.len())
            .flat_map(|p| layers.clone().filter_map(move |l| self.value(l, p, metric)))
            .filter(|v| v.is_finite())
            .collect();
        if values.is_empty() {
            return None;
        }
        let last = values.len() - 1;
        let at = |q: f64| ((last as f64) * q.clamp(0.0, 1.0)).round() as usize;
        let (lo, hi) = (at(low), at(high));
        let low = *values.select_nth_unstable_by(lo, f32::total_cmp).1;
        let high = *values.select_nth_unstable_by(hi, f32::total_cmp).1;
        Some((low, high))
    }
}

/// Which positions of these grids of one prompt are averaged (those of the one that has most), and what they are called: the
/// predicting ones, the gaps of a text that a masked model read, or all of a prompt that was only read.
#[must_use]
pub fn summarised<'a>(
    grids: impl IntoIterator<Item = &'a Grid>,
    card: &ModelCard,
) -> (Vec<usize>, String) {
    let of_each = grids.into_iter().map(|grid| {
        let predicting = grid.predicting_positions();
        let gaps = grid.masks(card);
        if !gaps.is_empty() {
            (gaps, card.mask_text().to_owned())
        } else if !predicting.is_empty() {
            (predicting.collect(), "predicting".to_owned())
        } else if grid.aim() == Aim::Itself {
            ((0..grid.len()).collect(), "text".to_owned())
        } else {
            ((0..grid.len()).collect(), "prompt".to_owned())
        }
    });
    of_each
        .max_by_key(|(positions, _): &(Vec<usize>, String)| positions.len())
        .unwrap_or_default()
}
