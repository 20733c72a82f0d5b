//! The engine thread that owns a model; requests in, events out.

mod protocol;

pub use protocol::{Event, Finish, Job, Prompt, Request, Speed};
