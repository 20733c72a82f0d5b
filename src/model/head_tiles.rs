//! The head's matrix in tiles of the vocabulary, for devices whose logits are reduced tile by tile.

use super::device::Place;
use super::linear::Linear;
use candle_core::{Result, Tensor};
use std::ops::Range;

/// A head's big matrix `[V, width]` cut along the vocabulary, and what follows it.
#[derive(Debug)]
pub(crate) struct HeadTiles {
    tiles: Vec<Linear>,
    /// Rows of all tiles but the last, which may have fewer.
    size: usize,
    /// Number of logits.
    pub(crate) vocab: usize,
    cap: Option<f64>,
}

impl HeadTiles {
    /// Cut `matrix` and put the tiles on `place`. Floats that lie there already are not copied.
    pub(crate) fn new(matrix: &Linear, cap: Option<f64>, place: &Place) -> Result<Self> {
        let (vocab, size) = (matrix.outputs(), place.tile);
        let sizes: Vec<usize> = (0..vocab)
            .step_by(size)
            .map(|from| size.min(vocab - from))
            .collect();
        let tiles = matrix.split(&sizes)?.into_iter();
        Ok(Self {
            tiles: tiles.map(|tile| tile.on(place)).collect::<Result<_>>()?,
            size,
            vocab,
            cap,
        })
    }

    /// Each tile's range of the vocabulary.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let (size, vocab) = (self.size, self.vocab);
        (0..self.tiles.len()).map(move |i| i * size..vocab.min((i + 1) * size))
    }

    /// The logits of tile `i` of inputs `[rows, width]`, `[rows, of the tile]`.
    pub(crate) fn logits(&self, i: usize, inputs: &Tensor) -> Result<Tensor> {
        self.finish(self.tiles[i].forward(inputs)?)
    }

    /// All logits of inputs `[rows, width]`, `[rows, V]`: for few rows.
    pub(crate) fn all(&self, inputs: &Tensor) -> Result<Tensor> {
        let tiles: Vec<Tensor> = (0..self.tiles.len())
            .map(|i| self.logits(i, inputs))
            .collect::<Result<_>>()?;
        Tensor::cat(&tiles, 1)
    }

    /// Of each row of inputs `[groups, rows, width]` the logit of its group's id, `[groups, rows]`.
    pub(crate) fn of_ids(&self, ids: &[u32], inputs: &Tensor) -> Result<Tensor> {
        let logits = ids.iter().enumerate().map(|(i, id)| {
            let (tile, row) = (*id as usize / self.size, *id as usize % self.size);
            let Some(tile) = self.tiles.get(tile) else {
                candle_core::bail!("{id} is outside a vocabulary of {}", self.vocab);
            };
            let (weight, bias) = tile.row(row)?;
            let products = inputs.get(i)?.broadcast_mul(&weight)?.sum(1)?;
            match bias {
                Some(bias) => products.broadcast_add(&bias),
                None => Ok(products),
            }
        });
        self.finish(Tensor::stack(&logits.collect::<Result<Vec<_>>>()?, 0)?)
    }

    /// What the model does to its products.
    fn finish(&self, logits: Tensor) -> Result<Tensor> {
        match self.cap {
            Some(cap) => (logits / cap)?.tanh()? * cap,
            None => Ok(logits),
        }
    }
}
