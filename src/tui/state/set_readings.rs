//! What drawing two sets needs, worked out once before a frame and only where something has changed: everything of a
//! layer but its interval at every sample, intervals (a thousand times the work) when a share more has come.

use super::{Phase, State};
use crate::stats::median;
use crate::trace::{Metric, Samples, Separation, Set, Spread};

/// Layers × samples from which on intervals wait until twice as many samples have come.
const HEAVY: usize = 20_000;

/// One layer of both sets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SetLayer {
    /// Mean ± standard deviation of each set.
    pub profiles: [Option<Spread>; 2],
    /// Mean of the unknown less mean of the known.
    pub difference: Option<f64>,
    /// How well the layer tells them apart.
    pub auroc: Option<f64>,
    /// Its 95 % bootstrap interval, of the samples of a moment ago while more come.
    pub interval: Option<(f64, f64)>,
}

/// What drawing two sets needs.
#[derive(Clone, Debug, Default)]
pub struct SetReadings {
    /// Layer by layer, of the chosen metric.
    pub layers: Vec<SetLayer>,
    /// Entropy and varentropy of every sample at the cursor's layer, set by set.
    pub points: [Vec<[f64; 2]>; 2],
    /// The medians of both over all samples.
    pub medians: Option<[f64; 2]>,
    /// What the number of prompt tokens alone tells.
    pub length: Option<Separation>,
    /// What the samples show and what they do not.
    pub statement: String,
    layers_of: Basis,
    intervals_of: Basis,
    points_of: Basis,
    said_of: Basis,
}

/// What something was worked out from: the sets' number, a metric or layer, how many samples.
type Basis = (usize, usize, usize);

impl State {
    pub(super) fn settle_sets(&mut self) {
        let Some(sets) = &self.sets else {
            // Numbers start at 1: nothing old is taken for new.
            self.derived.sets = SetReadings::default();
            return;
        };
        let samples = &sets.samples;
        let (number, count) = (sets.number, samples.count());
        let (layer, metric) = (
            self.cursor.layer.min(samples.states().saturating_sub(1)),
            self.metric,
        );
        self.cursor.layer = layer;
        let ended = !matches!(self.phase, Phase::Reading | Phase::Streaming);
        let heavy = samples.states() * count > HEAVY;
        let due = |then: Basis, what: usize| {
            let more = if heavy { then.2 } else { then.2 / 8 };
            (then.0, then.1) != (number, what)
                || (ended && then.2 != count)
                || count > then.2 + more
        };
        let derived = &mut self.derived.sets;
        let now = (number, metric.0, count);
        if derived.layers_of != now {
            let same = (derived.layers_of.0, derived.layers_of.1) == (number, metric.0);
            let old: Vec<_> = match same {
                true => derived.layers.iter().map(|layer| layer.interval).collect(),
                false => Vec::new(),
            };
            let layers = 0..samples.states();
            let layers = layers.map(|l| read(samples, l, metric, old.get(l).copied().flatten()));
            derived.layers = layers.collect();
            derived.layers_of = now;
        }
        if due(derived.intervals_of, metric.0) {
            for (l, layer) in derived.layers.iter_mut().enumerate() {
                layer.interval = samples.separation(l, metric).and_then(|s| s.interval);
            }
            derived.intervals_of = now;
        }
        if derived.points_of != (number, layer, count) {
            derived.points = points(samples, layer);
            derived.medians = medians(&derived.points);
            derived.points_of = (number, layer, count);
        }
        if due(derived.said_of, 0) {
            derived.length = samples.separation_by_length();
            derived.statement = samples.statement();
            derived.said_of = (number, 0, count);
        }
    }
}

fn read(samples: &Samples, layer: usize, metric: Metric, interval: Option<(f64, f64)>) -> SetLayer {
    SetLayer {
        profiles: Set::BOTH.map(|set| samples.profile(set, layer, metric)),
        difference: samples.difference(layer, metric),
        auroc: samples.auroc(layer, metric),
        interval,
    }
}

/// Entropy and varentropy of every sample.
fn points(samples: &Samples, layer: usize) -> [Vec<[f64; 2]>; 2] {
    let find = |name| samples.schema().find(name);
    match (find("entropy"), find("varentropy")) {
        (Some(x), Some(y)) => Set::BOTH.map(|set| samples.pairs(set, layer, [x, y])),
        _ => Default::default(),
    }
}

fn medians(points: &[Vec<[f64; 2]>; 2]) -> Option<[f64; 2]> {
    let of = |axis: usize| {
        let values: Vec<f64> = points.iter().flatten().map(|p| p[axis]).collect();
        median(&values)
    };
    Some([of(0)?, of(1)?])
}
