//! The lens: what every residual state would say next.

/// What the lens computes for each cell.
#[derive(Clone, Debug, PartialEq)]
pub struct LensSettings {
    /// Logits are divided by this before the softmax; 1 leaves them alone.
    pub temperature: f64,
    /// Rényi orders, each a column. 1 is Shannon, infinity is min-entropy.
    pub renyi: Vec<f64>,
    /// Shares q of the dimensions for `topk_energy` and `topk_mass`, each two columns.
    pub topk_shares: Vec<f64>,
    /// |h| above this counts in `l0`.
    pub l0_threshold: f64,
    /// How many candidates to keep a cell.
    pub top: usize,
    /// Which vector the sparsity columns read.
    pub states: StateKind,
}

impl Default for LensSettings {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            renyi: vec![0.5, 2.0, 5.0],
            topk_shares: vec![0.1],
            l0_threshold: 1e-3,
            top: 5,
            states: StateKind::Residual,
        }
    }
}

/// Which vector the sparsity columns read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StateKind {
    /// The residual stream as the block left it.
    #[default]
    Residual,
    /// The same after the final norm.
    Normed,
}
