//! All integration tests, in one binary so that they link once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod binary;
mod compare;
mod demo;
mod devices;
mod engine;
mod families;
mod gguf;
mod lens;
mod oracle;
mod steer;
mod steer_binary;
mod steer_engine;
mod steer_files;
mod steer_mood;
mod terminal;
