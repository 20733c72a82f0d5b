//! The layer × token grid: what every face and file reads.
//!
//! A [`Grid`] is columnar and append-only. Tokens are appended as they are known; the [`Cells`] of a position arrive
//! when the lens has read it, in any order. Cells sit behind an [`Arc`], so a snapshot or a message to another thread
//! costs a pointer. Nothing above this module computes a metric of its own.

mod depth;
mod difference;
mod grid;
mod paired;
mod samples;
mod schema;
mod sweep;

pub use depth::{Abreast, Depths, TwoModels};
pub use difference::{Compared, Difference, Pairing, Side, Spread};
pub use grid::{Aim, Attention, Candidate, Cells, Grid, Kind, Token, summarised};
pub use paired::{Measure, Paired, PairedSample};
pub use samples::{Sample, Samples, Separation, Set};
pub use schema::{Group, Metric, MetricSpec, Schema, Unit};
pub use sweep::{Curve, Point};

use crate::lens::LensSettings;
use crate::model::{ModelCard, Sampling};
use std::sync::Arc;

/// One run (prompt and what came after it) as it is shown, exported, saved and replayed.
#[derive(Clone, Debug)]
pub struct Record {
    /// The model that was read.
    pub model: Arc<ModelCard>,
    /// What the columns of every grid in this record are.
    pub schema: Arc<Schema>,
    /// What the lens was asked to compute.
    pub lens: LensSettings,
    /// How tokens were drawn, from the first on.
    pub sampling: Sampling,
    /// Changes on the way: the position of the first token drawn by each, and the settings.
    pub sampling_changes: Vec<(usize, Sampling)>,
    /// The control vectors in force, as the manifest tells them; `None` for the plain model.
    pub steering: Option<serde_json::Value>,
    /// Changes on the way: the first position read under each, and what was in force from there on.
    pub steering_changes: Vec<(usize, Option<serde_json::Value>)>,
    /// How the two branches of a comparison read; `None` for any other record.
    pub comparison: Option<Pairing>,
    /// Most new tokens that were asked for.
    pub max_new_tokens: usize,
    /// The named grids: `main`, or `baseline` and `steered`, or the name of one of two models, …
    pub branches: Vec<(String, Grid)>,
    /// Wall-clock start.
    pub started: std::time::SystemTime,
    /// Wall-clock end, when it has ended.
    pub ended: Option<std::time::SystemTime>,
}

impl Record {
    /// The two branches of a comparison, cell by cell; `None` for any other record.
    #[must_use]
    pub fn difference(&self) -> Option<Difference<'_>> {
        self.comparison?;
        match self.branches.as_slice() {
            [(_, baseline), (_, steered)] => Some(Difference::new(baseline, steered)),
            _ => None,
        }
    }
}
