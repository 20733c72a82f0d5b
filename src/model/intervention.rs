//! What to change in the residual stream while it is computed. `steer/` decides, the forward pass obeys.

use std::ops::Range;
use std::sync::Arc;

/// Add a vector to one state at some positions, so that everything after it sees the change.
#[derive(Clone, Debug, PartialEq)]
pub struct Intervention {
    /// The state's index: 0 is the embedding, l what block l wrote.
    pub layer: usize,
    /// Positions of the text at which to add.
    pub positions: Range<usize>,
    /// `[d_model]`, the strength included.
    pub vector: Arc<[f32]>,
}
