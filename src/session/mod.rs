//! The engine thread that owns a model; requests in, events out.

mod against;
pub mod bench;
mod compare;
mod engine;
mod generation;
mod pace;
mod protocol;
mod recorder;
pub mod sentences;
mod sets;
mod sweep;
mod work;

use crate::error::Result;
use crate::lens::check;
use crate::model::source::Progress;
use crate::model::{LoadOptions, Model};
pub use against::{Against, branch_names, open_beside};
pub use compare::{Comparison, compare};
pub use engine::{Engine, run};
pub use generation::Generation;
pub use protocol::{Event, Fill, Finish, Job, Prompt, Request, Speed};
pub use recorder::Recorder;
pub use sets::{SetJob, Sets};
pub use sweep::{Sweep, Swept};
pub use work::Turn;

/// Load a model and see that it computes.
///
/// # Errors
/// As [`Model::load`], or if a short check finds numbers that cannot be right.
pub fn open(reference: &str, options: &LoadOptions, progress: &mut Progress<'_>) -> Result<Model> {
    let model = Model::load(reference, options, progress)?;
    check::quick(&model)?;
    Ok(model)
}
