//! What to change in the residual stream while it is computed. `steer/` decides, the forward pass obeys.

use super::decoder::Row;
use super::layers::Span;
use candle_core::{Result, Tensor, bail};
use std::ops::Range;
use std::sync::Arc;

/// A change of one state at some positions; everything after it sees the change.
#[derive(Clone, Debug, PartialEq)]
pub struct Intervention {
    /// The state's index: 0 is the embedding, l what block l wrote.
    pub layer: usize,
    /// Positions of the text at which to change it.
    pub positions: Range<usize>,
    /// What to do there.
    pub change: Change,
}

/// What is done to a state h of layer l. Of several changes of one state, blocks are scaled first; the norm that is kept
/// is the one before all additions.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// h ← h + w(t) · v (control vectors, repeng).
    Add {
        /// v, `[d_model]`, the strength included.
        vector: Arc<[f32]>,
        /// w by position of the text; the last one holds for all later positions, and none at all is 1 everywhere.
        weights: Arc<[f32]>,
        /// Afterwards give h its old L2 norm (repeng's `normalize`).
        keep_norm: bool,
    },
    /// What block l added to its input, h(l) − h(l − 1), times this factor (Entropy-Lens' residual scaling); 0 leaves the
    /// block out.
    ScaleBlock(f32),
}

impl Intervention {
    /// Add `vector` to state `layer` at `positions`.
    #[must_use]
    pub fn add(layer: usize, positions: Range<usize>, vector: Arc<[f32]>) -> Self {
        let change = Change::Add {
            vector,
            weights: Arc::default(),
            keep_norm: false,
        };
        Self {
            layer,
            positions,
            change,
        }
    }

    /// Whether no bit of any state changes. (Adding zeros would: it turns −0 into 0.)
    fn is_nothing(&self) -> bool {
        match &self.change {
            Change::Add { vector, .. } => vector.iter().all(|v| *v == 0.0),
            Change::ScaleBlock(factor) => *factor == 1.0,
        }
    }

    /// Refuse what a model of `blocks` blocks and width `d` has no place for.
    pub(super) fn check(&self, blocks: usize, d: usize) -> Result<()> {
        if self.layer > blocks {
            bail!(
                "an intervention names layer {}, but there are {blocks}",
                self.layer
            );
        }
        match &self.change {
            Change::Add { vector, .. } if vector.len() != d => bail!(
                "a vector of {} numbers cannot be added to states of {d}",
                vector.len()
            ),
            Change::ScaleBlock(_) if self.layer == 0 => {
                bail!("layer 0 is the embedding: no block adds to it")
            }
            _ => Ok(()),
        }
    }
}

/// Do what the rows' interventions ask for at state `layer`, `[tokens of all rows, d_model]`; `before` is the state that
/// the block read. Tokens they do not name keep their every bit.
pub(super) fn apply(
    h: Tensor,
    before: Option<&Tensor>,
    layer: usize,
    rows: &[Row<'_>],
    spans: &[Span],
) -> Result<Tensor> {
    let d = h.dim(1)?;
    let mut changed: Option<Vec<f32>> = None;
    let mut input: Option<Vec<f32>> = None;
    for (row, span) in rows.iter().zip(spans) {
        let here = row.interventions.iter().filter(|one| one.layer == layer);
        let active: Vec<&Intervention> = here.filter(|one| !one.is_nothing()).collect();
        for position in span.past..span.past + span.len {
            let due = active
                .iter()
                .filter(|one| one.positions.contains(&position));
            let due: Vec<&Change> = due.map(|one| &one.change).collect();
            if due.is_empty() {
                continue;
            }
            let numbers = match &mut changed {
                Some(numbers) => numbers,
                None => changed.insert(h.flatten_all()?.to_vec1()?),
            };
            if let (None, Some(before)) = (&input, before)
                && due.iter().any(|one| matches!(one, Change::ScaleBlock(_)))
            {
                input = Some(before.flatten_all()?.to_vec1()?);
            }
            let at = (span.first + position - span.past) * d;
            let input = input.as_ref().map_or(&[][..], |input| &input[at..at + d]);
            change(&mut numbers[at..at + d], input, position, &due);
        }
    }
    match changed {
        Some(numbers) => Tensor::from_vec(numbers, h.shape(), h.device()),
        None => Ok(h),
    }
}

/// All changes of the state of one token.
fn change(h: &mut [f32], input: &[f32], position: usize, changes: &[&Change]) {
    for change in changes {
        if let Change::ScaleBlock(factor) = change {
            for (h, x) in h.iter_mut().zip(input) {
                *h = x + factor * (*h - x);
            }
        }
    }
    let additions = changes.iter().filter_map(|change| match change {
        Change::Add {
            vector,
            weights,
            keep_norm,
        } => {
            let weight = *weights.get(position).or(weights.last()).unwrap_or(&1.0);
            (weight != 0.0).then_some((vector, weight, *keep_norm))
        }
        Change::ScaleBlock(_) => None,
    });
    let norm = additions.clone().any(|(_, _, keep)| keep).then(|| l2(h));
    for (vector, weight, _) in additions {
        for (h, v) in h.iter_mut().zip(vector.iter()) {
            *h += weight * v;
        }
    }
    if let Some(old) = norm {
        let new = l2(h);
        // A state that was pushed to zero has no direction to keep.
        if new > 0.0 {
            let factor = (old / new) as f32;
            h.iter_mut().for_each(|h| *h *= factor);
        }
    }
}

fn l2(h: &[f32]) -> f64 {
    h.iter()
        .map(|h| f64::from(*h) * f64::from(*h))
        .sum::<f64>()
        .sqrt()
}
