//! Control vectors: directions in the residual stream, and what is done with them.
//!
//! * `vector`: a [`ControlVector`] and its algebra.
//! * `file`: the formats it comes in, with `text` (JSON, YAML), `torch` and `pickle` (`.pt`).
//! * `plan`: where, when and how strongly it pushes a run.
//! * `strengths`: a range of strengths, and a plan a number of times as strong.
//! * `pairs` and `train`: making one from pairs of texts.

mod file;
mod pairs;
mod pickle;
mod plan;
mod strengths;
mod text;
mod torch;
mod train;
mod vector;

pub use file::{BUILT_IN, Format, Opened, open};
pub use pairs::{Pair, from_lines, from_template, parse_jsonl};
pub use plan::{Effect, Plan, Spec, Tokens, parse_layers};
pub use strengths::Strengths;
pub use train::{Method, Position, Separation, Settings, Trained, train};
pub use vector::ControlVector;
