//! Named tensors from wherever they are kept, under their Hugging Face names.

use super::linear::{Linear, transposed};
use crate::error::{Error, Result};
use candle_core::quantized::QTensor;
use candle_core::{Device, Tensor};
use std::sync::Arc;

/// One stored tensor.
#[derive(Clone, Debug)]
pub enum Stored {
    /// Real numbers in f32, f16 or bf16, as they are kept in memory.
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

    /// Read a matrix that is kept as `[inputs, outputs]` under this name (GPT-2's Conv1D) as `[outputs, inputs]`.
    ///
    /// # Errors
    /// As [`TensorSource::load`].
    fn load_transposed(&self, name: &str) -> Result<Stored> {
        Ok(transposed(&self.load(name)?)?)
    }

    /// Where the tensors are, for messages.
    fn origin(&self) -> String;
}

/// Takes tensors out of a source, checking their shapes against the configuration.
pub(crate) struct Loader<'a> {
    source: &'a dyn TensorSource,
    device: &'a Device,
    prefix: &'a str,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(source: &'a dyn TensorSource, device: &'a Device, prefix: &'a str) -> Self {
        Self {
            source,
            device,
            prefix,
        }
    }

    /// What stands before the names of the body's tensors in this checkpoint.
    pub(crate) fn prefix(&self) -> &str {
        self.prefix
    }

    /// A tensor of exactly this shape, as it is stored.
    pub(crate) fn stored(&self, name: &str, shape: &[usize]) -> Result<Stored> {
        self.check(name, shape)?;
        self.placed(self.source.load(name)?)
    }

    /// A matrix that goes by this name as `[inputs, outputs]` (GPT-2's Conv1D), as `[outputs, inputs]`.
    #[allow(
        dead_code,
        reason = "for families whose GGUF files have it that way round already"
    )]
    pub(crate) fn transposed(&self, name: &str, outputs: usize, inputs: usize) -> Result<Stored> {
        self.check(name, &[inputs, outputs])?;
        self.placed(self.source.load_transposed(name)?)
    }

    fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        let damaged = "Fetch the model again, or correct its config.json.";
        match self.source.shape(name) {
            Some(found) if found == shape => Ok(()),
            Some(found) => Err(Error::failed(
                format!(
                    "{}: tensor {name} has shape {found:?}, but config.json asks for {shape:?}",
                    self.source.origin()
                ),
                damaged,
            )),
            None => Err(Error::failed(
                format!(
                    "{}: tensor {name} {shape:?} is missing",
                    self.source.origin()
                ),
                damaged,
            )),
        }
    }

    /// A tensor on the device: as it is stored in main memory, in f32 elsewhere.
    fn placed(&self, stored: Stored) -> Result<Stored> {
        Ok(if self.device.is_cpu() {
            stored
        } else {
            let wide = Linear::table(&stored)?;
            Stored::Float(wide.to_device(self.device)?)
        })
    }

    /// A vector, always as f32.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Tensor> {
        Ok(Linear::table(&self.stored(name, &[len])?)?)
    }

    /// `name.weight` `[outputs, inputs]` with `name.bias` where the checkpoint has one.
    pub(crate) fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear> {
        let weight = self.stored(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = format!("{name}.bias");
        let bias = match self.source.shape(&bias) {
            Some(_) => Some(self.vector(&bias, outputs)?),
            None => None,
        };
        Ok(Linear::new(weight, bias)?)
    }
}
