//! Which code puts rows through the head and reduces their logits: the seam for passes of other devices.

use super::batched::{self, Batched};
use super::distribution::{Plan, Row};
use super::fused::{self, Source};
use crate::model::head::Head;
use crate::model::ops::with_slice;
use candle_core::{Result, Tensor};

/// One pass over the vocabulary for the rows of some tokens.
///
/// An implementation streams the head's matrix once for all rows at hand and never holds `[rows, V]`. It must deliver for
/// each row what [`super::distribution::merge`] makes of [`crate::model::reduce::Sums`] of successive pieces of the
/// vocabulary: with m the piece's largest logit and x = (z − m)/T, m itself (NaN if a logit is NaN or +∞), Σeˣ, Σeˣx,
/// Σeˣ(x − mean)² around the piece's own mean, Σeˣx′ and Σe^x′x with x′ of the token's final row, the number of logits
/// above the target's, Σe^(αx) for each order of the plan, and the best candidates with ties to the lower id; logits of −∞
/// carry no weight. Logits are the model's own: with bias and soft-cap.
pub(super) trait HeadPass {
    /// The rows of inputs `[tokens · states, width]`, reduced, `[tokens][states]`; and of each the logit of its token's
    /// target, where there is one. The last of each token's rows is its final row. A grouped plan reads tokens
    /// group by group and wants Σe^x′x with x′ of the same row of the group's first token as well, for all its others.
    fn read(
        &self,
        inputs: &Tensor,
        states: usize,
        targets: &[Option<u32>],
        plan: &Plan,
    ) -> Result<Vec<(Row, Option<f32>)>>;
}

/// The pass for inputs of this head; `None` where they leave a trace for gradients, which no pass does.
pub(super) fn of<'a>(head: &'a Head, inputs: &Tensor) -> Option<Box<dyn HeadPass + 'a>> {
    if let Some(tiles) = head.tiles() {
        // A kernel for CUDA goes here, for `inputs.device().is_cuda()`: it would read the tiles' weights as they lie and
        // give a block's sums per row, as `Batched` does with many launches a tile.
        return Some(Box::new(Batched { tiles, last: None }));
    }
    match head.is_plain(inputs) {
        true => Some(Box::new(Fused { head })),
        false => None,
    }
}

/// How many of so many tokens such a pass reads together, at least one group: no more of their states need be gathered at a
/// time.
pub(super) fn at_once(head: &Head, tokens: usize, states: usize, group: usize) -> usize {
    match head.tiles() {
        Some(_) => batched::at_once(states, group),
        None => fused::at_once(tokens, states, group),
    }
}

/// The pass of the processor's kernels.
struct Fused<'a> {
    head: &'a Head,
}

impl HeadPass for Fused<'_> {
    fn read(
        &self,
        inputs: &Tensor,
        states: usize,
        targets: &[Option<u32>],
        plan: &Plan,
    ) -> Result<Vec<(Row, Option<f32>)>> {
        let tokens = inputs.dim(0)? / states;
        self.head.with_last(|last| {
            with_slice(inputs, |x| {
                let source = Source::Head(last, x);
                fused::read(&source, tokens, states, targets, plan, &mut [])
            })
        })?
    }
}
