//! Named tensors from wherever they are kept, under their Hugging Face names.

use crate::error::Result;
use candle_core::Tensor;
use candle_core::quantized::QTensor;
use std::sync::Arc;

/// One stored tensor.
#[derive(Clone, Debug)]
pub enum Stored {
    /// Real numbers in f32 (stored bf16 and f16 are widened while loading).
    Float(Tensor),
    /// Quantised blocks, row by row; kept as they are in memory.
    Quantised(Arc<QTensor>),
}

/// A checkpoint: tensors by their Hugging Face name, whatever the file calls them.
///
/// Implementations check sizes against the file before they take memory.
pub trait TensorSource: Send + Sync {
    /// All tensor names, sorted.
    fn names(&self) -> Vec<String>;

    /// The shape of a tensor, `None` if there is none of this name.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// Read a tensor.
    ///
    /// # Errors
    /// If it is missing or damaged; the sentence names the file and the tensor.
    fn load(&self, name: &str) -> Result<Stored>;

    /// Where the tensors are, for messages.
    fn origin(&self) -> String;
}
