//! Two grids of one prompt, cell by cell: a comparison of the plain model (A, the baseline) with another run of it, or with
//! another model that reads the same text (B).

use super::{Grid, Metric};
use crate::stats::mean_and_deviation;

/// What each of two compared branches reads after the prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pairing {
    /// Its own text.
    #[default]
    Free,
    /// The text of the baseline, so that all cells compare one to one.
    Locked,
    /// A prompt of its own, and then its own text; what steers holds for both.
    Prompts,
}

impl Pairing {
    /// The word used in files.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Locked => "locked",
            Self::Prompts => "prompts",
        }
    }
}

/// A branch of a comparison, in the order of a record's branches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The baseline: the plain model, or the first of two.
    A,
    /// What is held against it: the same under a steering plan, or the second.
    B,
}

impl Side {
    /// Both, in order.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The branch's name where one model is held against itself under steering; two models give theirs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::A => "baseline",
            Self::B => "steered",
        }
    }

    /// The one beside it.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// One metric of two cells; what is undefined, infinite or not read is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Compared {
    /// Of the baseline.
    pub a: Option<f32>,
    /// Of the other.
    pub b: Option<f32>,
    /// b − a.
    pub difference: Option<f32>,
    /// 100 · (b − a)/a; none where a is 0.
    pub percent_change: Option<f32>,
}

impl Compared {
    /// Hold the number `b` against `a`.
    #[must_use]
    pub fn new(a: Option<f32>, b: Option<f32>) -> Self {
        let finite = |v: &f32| v.is_finite();
        let (a, b) = (a.filter(finite), b.filter(finite));
        let both = a.zip(b).map(|(a, b)| (f64::from(a), f64::from(b)));
        let percent = |(a, b): (f64, f64)| (100.0 * (b - a) / a) as f32;
        Self {
            a,
            b,
            difference: both.map(|(a, b)| (b - a) as f32),
            percent_change: both.filter(|(a, _)| *a != 0.0).map(percent).filter(finite),
        }
    }
}

/// Mean and population standard deviation (ddof = 0) of some numbers.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Spread {
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation.
    pub std: f64,
    /// How many they are.
    pub n: usize,
}

impl Spread {
    /// Of the finite ones among `values`; `None` where there is none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let finite: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        mean_and_deviation(&finite).map(|(mean, std, n)| Self { mean, std, n })
    }
}

/// Two grids of the same prompt and of equally many layers. Cells are paired by position, which is also the step after the
/// prompt.
#[derive(Clone, Copy, Debug)]
pub struct Difference<'a> {
    a: &'a Grid,
    b: &'a Grid,
    diverged: Option<usize>,
}

impl<'a> Difference<'a> {
    /// Compare `b` with the baseline `a`.
    #[must_use]
    pub fn new(a: &'a Grid, b: &'a Grid) -> Self {
        let mut pairs = a.tokens().iter().zip(b.tokens());
        Self {
            a,
            b,
            diverged: pairs.position(|(a, b)| a.id != b.id),
        }
    }

    /// The first position whose tokens differ; `None` where they agree as far as both texts go.
    #[must_use]
    pub fn diverged(&self) -> Option<usize> {
        self.diverged
    }

    /// Whether the cells of a position come after different texts, the token at that position included.
    #[must_use]
    pub fn is_diverged(&self, position: usize) -> bool {
        self.diverged.is_some_and(|first| position >= first)
    }

    /// Number of states, L + 1.
    #[must_use]
    pub fn states(&self) -> usize {
        self.a.states().min(self.b.states())
    }

    /// The positions that both sides have read.
    pub fn positions(&self) -> impl Iterator<Item = usize> + Clone {
        let (a, b) = (self.a, self.b);
        (0..a.len().min(b.len())).filter(|p| a.cells(*p).is_some() && b.cells(*p).is_some())
    }

    /// One metric of both cells.
    #[must_use]
    pub fn cell(&self, layer: usize, position: usize, metric: Metric) -> Compared {
        Compared::new(
            self.a.value(layer, position, metric),
            self.b.value(layer, position, metric),
        )
    }

    /// KL(baseline‖other) of both cells, nats; `None` where they come after different texts.
    #[must_use]
    pub fn divergence(&self, layer: usize, position: usize) -> Option<f32> {
        let of_layer = self.b.cells(position)?.divergence.as_ref()?.get(layer);
        of_layer.copied().filter(|v| v.is_finite())
    }

    /// A metric of one layer over `positions`: of the baseline, of the other, and of the difference where both are defined.
    #[must_use]
    pub fn spread(
        &self,
        layer: usize,
        metric: Metric,
        positions: impl Iterator<Item = usize> + Clone,
    ) -> [Option<Spread>; 3] {
        let of = |value: fn(Compared) -> Option<f32>| {
            let cells = positions.clone().map(|p| self.cell(layer, p, metric));
            Spread::of(cells.filter_map(value).map(f64::from))
        };
        [of(|c| c.a), of(|c| c.b), of(|c| c.difference)]
    }

    /// The same of the divergence.
    #[must_use]
    pub fn divergence_spread(
        &self,
        layer: usize,
        positions: impl Iterator<Item = usize>,
    ) -> Option<Spread> {
        let cells = positions.filter_map(|p| self.divergence(layer, p));
        Spread::of(cells.map(f64::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_or_divides_by_nothing_is_left_out() {
        let both = Compared::new(Some(2.0), Some(1.0));
        assert_eq!(both.difference, Some(-1.0));
        assert_eq!(both.percent_change, Some(-50.0));
        let zero = Compared::new(Some(0.0), Some(1.0));
        assert_eq!((zero.difference, zero.percent_change), (Some(1.0), None));
        let endless = Compared::new(Some(f32::INFINITY), Some(1.0));
        assert_eq!((endless.a, endless.difference), (None, None));
        assert_eq!(Compared::new(Some(1.0), None).difference, None);
    }
}
