//! Two models beside each other: which of their layers lie equally deep, and what each says there.

use super::{Metric, Record, Spread, summarised};

/// The layers of two models by relative depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depths {
    a: usize,
    b: usize,
}

impl Depths {
    /// Of models of `a` and of `b` blocks.
    #[must_use]
    pub fn new(a: usize, b: usize) -> Self {
        Self { a, b }
    }

    /// The layer of B beside layer l of A: the nearest to l · `L_B/L_A`, the deeper one of two that are equally near.
    /// Embedding lies beside embedding and the last layer beside the last; of equally many each beside its own.
    #[must_use]
    pub fn of_b(&self, layer: usize) -> usize {
        match self.a {
            0 => 0,
            blocks => (2 * layer.min(blocks) * self.b + blocks) / (2 * blocks),
        }
    }

    /// How deep layer l of A lies, l / `L_A`: 0 is the embedding, 1 the last layer.
    #[must_use]
    pub fn depth(&self, layer: usize) -> f64 {
        match self.a {
            0 => 0.0,
            blocks => layer as f64 / blocks as f64,
        }
    }

    /// All layers of A with those of B beside them.
    pub fn layers(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let depths = *self;
        (0..=depths.a).map(move |layer| (layer, depths.of_b(layer)))
    }
}

/// One metric of two layers that lie equally deep, each over the summarised positions of its own text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Abreast {
    /// Of A; `None` where it is defined at no position.
    pub a: Option<Spread>,
    /// Of B.
    pub b: Option<Spread>,
    /// Mean of B less mean of A.
    pub difference: Option<f64>,
}

/// The runs of two models on one prompt, each a record with one branch.
#[derive(Clone, Debug)]
pub struct TwoModels<'a> {
    records: [&'a Record; 2],
    positions: [Vec<usize>; 2],
    depths: Depths,
}

impl<'a> TwoModels<'a> {
    /// Of A and of B, whose lenses had the same settings.
    #[must_use]
    pub fn new(a: &'a Record, b: &'a Record) -> Self {
        let positions = [a, b].map(|record| match record.branches.first() {
            Some((_, grid)) => summarised([grid], &record.model).0,
            None => Vec::new(),
        });
        Self {
            depths: Depths::new(a.model.blocks, b.model.blocks),
            records: [a, b],
            positions,
        }
    }

    /// Which layers lie beside each other.
    #[must_use]
    pub fn depths(&self) -> Depths {
        self.depths
    }

    /// Both records, A first.
    #[must_use]
    pub fn records(&self) -> [&'a Record; 2] {
        self.records
    }

    /// The summarised positions of each.
    #[must_use]
    pub fn positions(&self) -> &[Vec<usize>; 2] {
        &self.positions
    }

    /// A metric at a layer of A and the one of B beside it.
    #[must_use]
    pub fn at(&self, layer: usize, metric: Metric) -> Abreast {
        let spread = |side: usize, layer: usize| {
            let (_, grid) = self.records[side].branches.first()?;
            grid.spread(layer, metric, &self.positions[side])
        };
        let (a, b) = (spread(0, layer), spread(1, self.depths.of_b(layer)));
        let difference = a.zip(b).map(|(a, b)| b.mean - a.mean);
        Abreast { a, b, difference }
    }

    /// KL(A‖B) of a layer in nats over the summarised positions; `None` where the cells of B know none.
    #[must_use]
    pub fn divergence(&self, layer: usize) -> Option<Spread> {
        let (_, grid) = self.records[1].branches.first()?;
        let of_cells = self.positions[1].iter().filter_map(|at| {
            let divergence = grid.cells(*at)?.divergence.as_ref()?;
            divergence.get(layer).copied()
        });
        Spread::of(of_cells.map(f64::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(a: usize, b: usize) -> Vec<usize> {
        Depths::new(a, b).layers().map(|(_, b)| b).collect()
    }

    #[test]
    fn layers_lie_beside_those_equally_deep() {
        assert_eq!(matched(4, 4), [0, 1, 2, 3, 4]);
        assert_eq!(matched(3, 6), [0, 2, 4, 6]);
        // 0, 1.5, 3: a half goes deeper.
        assert_eq!(matched(2, 3), [0, 2, 3]);
        // 0, .75, 1.5, 2.25, 3.
        assert_eq!(matched(4, 3), [0, 1, 2, 2, 3]);
        // 0, .6, 1.2, 1.8, 2.4, 3.
        assert_eq!(matched(5, 3), [0, 1, 1, 2, 2, 3]);
        assert_eq!(matched(0, 7), [0]);
        assert_eq!(matched(3, 0), [0; 4]);
    }

    #[test]
    fn depth_is_the_share_of_the_way() {
        let depths = Depths::new(4, 9);
        let all: Vec<f64> = depths.layers().map(|(a, _)| depths.depth(a)).collect();
        assert_eq!(all, [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(Depths::new(0, 3).depth(0), 0.0);
    }

    #[test]
    fn rounding_is_that_of_the_real_numbers() {
        for a in 1..40 {
            for b in 0..60 {
                for (layer, found) in Depths::new(a, b).layers() {
                    let exact = (layer * b) as f64 / a as f64;
                    assert_eq!(found, exact.round() as usize, "{layer} of {a}, {b}");
                }
            }
        }
    }
}
