//! The engine thread that owns a model; requests in, events out.

mod engine;
mod generation;
mod protocol;
mod recorder;

pub use engine::{Engine, run};
pub use generation::Generation;
pub use protocol::{Event, Finish, Job, Prompt, Request, Speed};
pub use recorder::Recorder;
