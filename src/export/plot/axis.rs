//! Axes: round numbers along a range, and how they are written.

/// Room beyond the outermost values, as a share of their range.
const ROOM: f64 = 0.03;

/// A range of values.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Its ends.
    pub ends: (f64, f64),
    /// The ticks between them, from the lowest up.
    pub ticks: Vec<f64>,
    /// Digits after the point that tell the ticks apart.
    digits: usize,
}

impl Axis {
    /// An axis of about `count` ticks at multiples of 1, 2 or 5 times a power of ten, which holds all finite `values` and a
    /// little more, but nothing below 0 for their sake where none is. Where there are no values it runs from 0 to 1; where
    /// all are equal, about them.
    #[must_use]
    pub fn holding(values: impl IntoIterator<Item = f64>, count: usize) -> Self {
        let finite = values.into_iter().filter(|v| v.is_finite());
        let (mut low, mut high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| {
            (l.min(v), h.max(v))
        });
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        // Differences that only rounding makes are none.
        let about = low.abs().max(high.abs());
        if high - low <= about * 1e-9 {
            let room = if about > 0.0 { about * 0.1 } else { 1.0 };
            (low, high) = (low - room, high + room);
        }
        let room = ROOM * (high - low);
        let floor = if low >= 0.0 { 0.0 } else { f64::MIN };
        let ends = ((low - room).max(floor), high + room);
        let step = round_step((ends.1 - ends.0) / count.max(2) as f64);
        let (first, last) = ((ends.0 / step).ceil(), (ends.1 / step).floor());
        // Multiples, not sums, so that rounding does not add up.
        let steps = (last - first).clamp(0.0, 100.0) as usize;
        Self {
            ends,
            ticks: (0..=steps).map(|i| (first + i as f64) * step).collect(),
            digits: (-step.log10().floor()).clamp(0.0, 12.0) as usize,
        }
    }

    /// Where a value lies between the ends, 0 to 1.
    #[must_use]
    pub fn share(&self, value: f64) -> f32 {
        let (low, high) = self.ends;
        ((value - low) / (high - low)) as f32
    }

    /// A tick in words; a true minus sign, powers of ten for what is very large or small.
    #[must_use]
    pub fn label(&self, tick: f64) -> String {
        let (low, high) = self.ends;
        let about = low.abs().max(high.abs());
        let text = if tick == 0.0 {
            "0".to_owned()
        } else if !(1e-4..1e6).contains(&about) {
            format!("{tick:.1e}").replace(".0e", "e")
        } else {
            format!("{tick:.*}", self.digits)
        };
        text.replace('-', "\u{2212}")
    }
}

/// The next larger of 1, 2, 5 · 10ⁿ.
fn round_step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.log10().floor());
    let times = rough / power;
    // Rounding may leave a share just above a round one.
    let round = [1.0, 2.0, 5.0].into_iter().find(|r| times <= r * 1.000_001);
    round.unwrap_or(10.0) * power
}

/// Which of `count` whole numbers get a label, so that about `most` do: every one, every second, every fifth, …
#[must_use]
pub fn every(count: usize, most: usize) -> usize {
    let most = most.max(1);
    let steps = (0..).flat_map(|p| [1, 2, 5].map(|s| s * 10usize.saturating_pow(p)));
    let mut steps = steps.take(60);
    steps
        .find(|step| count.div_ceil(*step) <= most)
        .unwrap_or(usize::MAX)
}
