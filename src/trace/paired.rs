//! Many prompts, each read by the plain and by the steered model at one position: a profile by layer for each, and what
//! the steering changes on the average.

use super::{Aim, Cells, Compared, Grid, Metric, Record, Schema, Spread};
use std::sync::Arc;

/// A number that each layer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// A metric of the cell.
    Cell(Metric),
    /// `attn_entropy_mean`, nats: of block l at layer l. Layer 0, and a block without attention, have none.
    AttentionEntropy,
}

/// One prompt at the position that answers: its last token, whose cells say what comes next; of a masked model its first
/// gap.
#[derive(Clone, Debug)]
pub struct PairedSample {
    /// The prompt.
    pub text: String,
    /// Its tokens.
    pub prompt_tokens: usize,
    /// The position that was read.
    pub position: usize,
    /// What the plain model says there, and the steered one; both have read the same text.
    pub cells: [Arc<Cells>; 2],
    /// What each drew there, if it drew.
    pub drawn: [Option<u32>; 2],
}

impl PairedSample {
    /// The answering position of a comparison of `text`; `None` where the text has none, or it was not read.
    #[must_use]
    pub fn of(record: &Record, text: impl Into<String>) -> Option<Self> {
        let [(_, a), (_, b)] = record.branches.as_slice() else {
            return None;
        };
        let position = match a.aim() {
            Aim::Next => a.prompt_len().checked_sub(1)?,
            Aim::Itself => a.tokens().iter().position(|t| record.model.is_mask(t.id))?,
        };
        let cells = |grid: &Grid| grid.cells(position).cloned();
        let drawn = |grid: &Grid| match grid.aim() {
            Aim::Next => grid.tokens().get(position + 1).map(|token| token.id),
            Aim::Itself => None,
        };
        Some(Self {
            text: text.into(),
            prompt_tokens: a.prompt_len(),
            position,
            cells: [cells(a)?, cells(b)?],
            drawn: [drawn(a), drawn(b)],
        })
    }
}

/// The samples of one model.
#[derive(Clone, Debug)]
pub struct Paired {
    schema: Arc<Schema>,
    states: usize,
    samples: Vec<PairedSample>,
}

impl Paired {
    /// None yet, of a model with `states` states (L + 1).
    #[must_use]
    pub fn new(schema: Arc<Schema>, states: usize) -> Self {
        Self {
            schema,
            states,
            samples: Vec::new(),
        }
    }

    /// Take in one more.
    pub fn push(&mut self, sample: PairedSample) {
        self.samples.push(sample);
    }

    /// All of them, in the order of the prompts.
    #[must_use]
    pub fn samples(&self) -> &[PairedSample] {
        &self.samples
    }

    /// Number of states, L + 1.
    #[must_use]
    pub fn states(&self) -> usize {
        self.states
    }

    /// What the cells hold.
    #[must_use]
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// A measure by its column name.
    #[must_use]
    pub fn measure(&self, name: &str) -> Option<Measure> {
        match name {
            "attn_entropy_mean" => Some(Measure::AttentionEntropy),
            _ => self.schema.find(name).map(Measure::Cell),
        }
    }

    /// One number of both models in one sample.
    #[must_use]
    pub fn cell(&self, sample: &PairedSample, layer: usize, measure: Measure) -> Compared {
        let [a, b] = sample.cells.each_ref().map(|cells| match measure {
            Measure::Cell(metric) => {
                let at = layer * self.schema.len() + metric.0;
                cells.values.get(at).copied()
            }
            Measure::AttentionEntropy => {
                let means = cells.attention.as_ref().map(|attention| &attention.mean);
                means.and_then(|means| means.get(layer.checked_sub(1)?).copied())
            }
        });
        Compared::new(a, b)
    }

    /// The profile of one sample: an entry for each layer from 0 on.
    #[must_use]
    pub fn profile(&self, sample: &PairedSample, measure: Measure) -> Vec<Compared> {
        let layers = 0..self.states;
        layers.map(|l| self.cell(sample, l, measure)).collect()
    }

    /// One layer over all samples: of the plain model, of the steered one, and of the difference where both are defined.
    /// Mean, population standard deviation and n of each.
    #[must_use]
    pub fn spread(&self, layer: usize, measure: Measure) -> [Option<Spread>; 3] {
        let of = |value: fn(Compared) -> Option<f32>| {
            let samples = self.samples.iter();
            let values = samples.filter_map(|s| value(self.cell(s, layer, measure)));
            Spread::of(values.map(f64::from))
        };
        [of(|c| c.a), of(|c| c.b), of(|c| c.difference)]
    }

    /// Whether any sample has a number of this kind at all.
    #[must_use]
    pub fn has(&self, measure: Measure) -> bool {
        let mut layers = 0..self.states;
        layers.any(|layer| self.spread(layer, measure).iter().any(Option::is_some))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lens::LensSettings;
    use crate::trace::Attention;

    fn cells(schema: &Schema, entropy: [f32; 2], attention: Option<f32>) -> Arc<Cells> {
        let mut values = vec![f32::NAN; 2 * schema.len()];
        (values[0], values[schema.len()]) = (entropy[0], entropy[1]);
        let of_block = |mean: f32| Attention {
            heads: 1,
            entropy: Box::new([mean]),
            varentropy: Box::new([0.0]),
            entropy_norm: Box::new([0.0]),
            mean: Box::new([mean]),
            head_var: Box::new([0.0]),
            disagreement: Box::new([0.0]),
            rows: None,
        };
        Arc::new(Cells {
            values: values.into(),
            top: Box::new([]),
            decided_layer: None,
            attention: attention.map(of_block),
            divergence: None,
            plan: 0,
        })
    }

    #[test]
    fn profiles_are_means_over_samples_with_population_deviations() {
        let schema = Arc::new(Schema::new(&LensSettings::default()));
        let mut paired = Paired::new(Arc::clone(&schema), 2);
        let each = [
            ([4.0, 1.0], [5.0, 3.0], Some(0.5)),
            ([6.0, f32::NAN], [9.0, 5.0], None),
        ];
        for (a, b, attention) in each {
            paired.push(PairedSample {
                text: "x".into(),
                prompt_tokens: 1,
                position: 0,
                cells: [
                    cells(&schema, a, attention),
                    cells(&schema, b, attention.map(|v| 3.0 * v)),
                ],
                drawn: [None, None],
            });
        }
        let entropy = paired.measure("entropy").unwrap();
        let spread = |mean, std, n| Some(Spread { mean, std, n });
        assert_eq!(
            paired.spread(0, entropy),
            [
                spread(5.0, 1.0, 2),
                spread(7.0, 2.0, 2),
                spread(2.0, 1.0, 2)
            ]
        );
        // The second sample's baseline is undefined here: its steered number counts, its difference does not.
        assert_eq!(
            paired.spread(1, entropy),
            [
                spread(1.0, 0.0, 1),
                spread(4.0, 1.0, 2),
                spread(2.0, 0.0, 1)
            ]
        );
        let attention = paired.measure("attn_entropy_mean").unwrap();
        let of_first = paired.profile(&paired.samples()[0], attention);
        assert_eq!(
            of_first[0],
            Compared::default(),
            "the embedding attends to nothing"
        );
        assert_eq!((of_first[1].a, of_first[1].b), (Some(0.5), Some(1.5)));
        assert_eq!(of_first[1].percent_change, Some(200.0));
        assert!(paired.has(attention) && !paired.has(paired.measure("varentropy").unwrap()));
        assert!(paired.measure("nothing").is_none());
    }
}
