//! A terminal microscope for uncertainty inside language models.
//!
//! ```text
//! cli/  tui/                      faces
//! session/ export/ train/         the engine thread, files, training
//! steer/ trace/ lens/ model/      control vectors, the grid, the readings, the forward passes
//! stats text config error         foundations
//! ```
//! Arrows point down only; nothing below knows what is above it.

pub mod cli;
pub mod config;
pub mod error;
pub mod export;
pub mod lens;
pub mod logging;
pub mod model;
pub mod pages;
pub mod session;
pub mod stats;
pub mod steer;
pub mod text;
pub mod trace;
pub mod train;
pub mod tui;

pub use error::{Error, Result};
