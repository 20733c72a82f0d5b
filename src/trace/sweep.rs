//! Strength × metric: what a model says of one and the same text under one steering plan of several strengths.

use super::{Cells, Metric, Schema, Spread};
use std::sync::Arc;

/// What was read under one strength: over the summarised positions, every layer and metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    metrics: usize,
    /// `[L + 1][metrics]`; `None` where a metric is defined at no position.
    spreads: Box<[Option<Spread>]>,
    /// `[L + 1]`: KL(baseline‖this), nats.
    divergence: Box<[Option<Spread>]>,
}

impl Point {
    /// Of the cells of the summarised positions, in order. A cell of another shape than `states` × `metrics` is left out.
    #[must_use]
    pub fn of(cells: &[Arc<Cells>], states: usize, metrics: usize) -> Self {
        let size = states * metrics;
        let cells = || cells.iter().filter(|cells| cells.values.len() == size);
        let spread = |at: usize| {
            let values = cells().map(|cells| f64::from(cells.values[at]));
            Spread::of(values)
        };
        let divergence = |layer: usize| {
            let of_cells = cells().filter_map(|cells| cells.divergence.as_ref()?.get(layer));
            Spread::of(of_cells.map(|kl| f64::from(*kl)))
        };
        Self {
            metrics,
            spreads: (0..size).map(spread).collect(),
            divergence: (0..states).map(divergence).collect(),
        }
    }

    /// Mean ± standard deviation of a metric at a layer.
    #[must_use]
    pub fn spread(&self, layer: usize, metric: Metric) -> Option<Spread> {
        if metric.0 >= self.metrics {
            return None;
        }
        let at = layer.checked_mul(self.metrics)?.checked_add(metric.0)?;
        self.spreads.get(at).copied().flatten()
    }

    /// The same of KL(baseline‖this) in nats; none of the baseline itself.
    #[must_use]
    pub fn divergence(&self, layer: usize) -> Option<Spread> {
        self.divergence.get(layer).copied().flatten()
    }
}

/// A curve of every layer and metric over strength, as far as the strengths have come. A copy costs some pointers.
#[derive(Clone, Debug)]
pub struct Curve {
    schema: Arc<Schema>,
    states: usize,
    strengths: Arc<[f64]>,
    baseline: Option<Arc<Point>>,
    points: Vec<Option<Arc<Point>>>,
}

impl Curve {
    /// Nothing yet of a model with `states` states (L + 1).
    #[must_use]
    pub fn new(schema: Arc<Schema>, states: usize, strengths: Arc<[f64]>) -> Self {
        Self {
            schema,
            states,
            baseline: None,
            points: vec![None; strengths.len()],
            strengths,
        }
    }

    /// Take in the plain model's point.
    pub fn set_baseline(&mut self, point: Arc<Point>) {
        self.baseline = Some(point);
    }

    /// Take in the point of the strength at `index`.
    pub fn set(&mut self, index: usize, point: Arc<Point>) {
        if let Some(slot) = self.points.get_mut(index) {
            *slot = Some(point);
        }
    }

    /// The columns of its points.
    #[must_use]
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Number of states, L + 1.
    #[must_use]
    pub fn states(&self) -> usize {
        self.states
    }

    /// All strengths, in rising order.
    #[must_use]
    pub fn strengths(&self) -> &[f64] {
        &self.strengths
    }

    /// How many of them have come.
    #[must_use]
    pub fn done(&self) -> usize {
        self.points.iter().flatten().count()
    }

    /// The plain model.
    #[must_use]
    pub fn baseline(&self) -> Option<&Arc<Point>> {
        self.baseline.as_ref()
    }

    /// The strength at `index`, if it has come.
    #[must_use]
    pub fn point(&self, index: usize) -> Option<&Arc<Point>> {
        self.points.get(index)?.as_ref()
    }

    /// Mean of a metric under the strength at `index` less that of the plain model.
    #[must_use]
    pub fn difference(&self, index: usize, layer: usize, metric: Metric) -> Option<f64> {
        let plain = self.baseline()?.spread(layer, metric)?;
        Some(self.point(index)?.spread(layer, metric)?.mean - plain.mean)
    }

    /// A metric of one layer, strength by strength; `None` where one has not come or the metric is not defined.
    pub fn along(
        &self,
        layer: usize,
        metric: Metric,
    ) -> impl Iterator<Item = (f64, Option<Spread>)> {
        let points = self.strengths.iter().zip(&self.points);
        points.map(move |(strength, point)| {
            let spread = point.as_ref().and_then(|p| p.spread(layer, metric));
            (*strength, spread)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lens::LensSettings;

    fn cells(values: [f32; 4], divergence: Option<[f32; 2]>) -> Arc<Cells> {
        Arc::new(Cells {
            values: values.into(),
            top: [].into(),
            decided_layer: None,
            attention: None,
            divergence: divergence.map(Into::into),
            plan: 0,
        })
    }

    fn spread(mean: f64, std: f64, n: usize) -> Option<Spread> {
        Some(Spread { mean, std, n })
    }

    /// Two states of two metrics at three positions, by hand.
    #[test]
    fn points_are_means_over_what_is_there() {
        let nan = f32::NAN;
        let point = Point::of(
            &[
                cells([1.0, nan, 2.0, nan], Some([0.0, 1.0])),
                cells([2.0, 4.0, 2.0, nan], Some([0.5, f32::INFINITY])),
                cells([3.0, 8.0, 2.0, nan], None),
            ],
            2,
            2,
        );
        let third = (2.0f64 / 3.0).sqrt();
        assert_eq!(point.spread(0, Metric(0)), spread(2.0, third, 3));
        assert_eq!(point.spread(0, Metric(1)), spread(6.0, 2.0, 2));
        assert_eq!(point.spread(1, Metric(0)), spread(2.0, 0.0, 3));
        assert_eq!(point.spread(1, Metric(1)), None);
        assert_eq!(point.divergence(0), spread(0.25, 0.25, 2));
        assert_eq!(point.divergence(1), spread(1.0, 0.0, 1));
        for (layer, metric) in [(0, 2), (2, 0), (usize::MAX, 1)] {
            assert_eq!(point.spread(layer, Metric(metric)), None);
        }
    }

    #[test]
    fn a_curve_grows_strength_by_strength() {
        let schema = Arc::new(Schema::new(&LensSettings::default()));
        let mut curve = Curve::new(schema, 2, [-1.0, 0.5, 2.0].into());
        let point = |x: f32| Arc::new(Point::of(&[cells([x, 0.0, 0.0, 0.0], None)], 2, 2));
        curve.set(2, point(7.0));
        assert_eq!(curve.difference(2, 0, Metric(0)), None);
        curve.set_baseline(point(3.0));
        curve.set(0, point(1.0));
        curve.set(3, point(9.0));
        assert_eq!((curve.done(), curve.strengths().len()), (2, 3));
        let along: Vec<_> = curve.along(0, Metric(0)).collect();
        let expected = [
            (-1.0, spread(1.0, 0.0, 1)),
            (0.5, None),
            (2.0, spread(7.0, 0.0, 1)),
        ];
        assert_eq!(along, expected);
        assert_eq!(curve.difference(0, 0, Metric(0)), Some(-2.0));
        assert_eq!(curve.difference(1, 0, Metric(0)), None);
    }
}
