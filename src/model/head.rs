//! From normed states to logits: what the model, and so the lens, does after the last block.

use super::backend::Backend;
use super::config::DecoderConfig;
use super::families::Family;
use super::families::bert::Transform;
use super::head_tiles::HeadTiles;
use super::input::Input;
use super::kernel::{self, Matrix};
use super::linear::{Embedding, Linear};
use super::ops::with_slice;
use super::vectors::tanh;
use super::weights::Loader;
use crate::error::Result;
use candle_core::Tensor;
use std::sync::Arc;

/// The head of a language model.
#[derive(Debug)]
pub(crate) struct Head {
    /// BERT's dense layer, gelu and norm.
    transform: Option<Transform>,
    /// OPT's way back to the width of the embedding.
    projection: Option<Linear>,
    big: Big,
    cap: Option<f64>,
}

/// The big matrix.
#[derive(Debug)]
enum Big {
    /// In main memory, for kernels that read it piece by piece as it lies.
    Whole(Linear),
    /// In pieces, for tensor operations.
    Tiles(Arc<HeadTiles>),
}

impl Head {
    /// The head of a checkpoint; `embedding` is shared where the model ties the two.
    pub(crate) fn load(
        loader: &Loader<'_>,
        c: &DecoderConfig,
        embedding: &Embedding,
    ) -> Result<Self> {
        let width = c.embedding_width.unwrap_or(c.d_model);
        let masked = c.family == Family::Bert;
        let linear = if c.tied {
            let bias = match (masked, c.head_bias) {
                (true, _) => Some(loader.vector("cls.predictions.bias", c.vocab)?),
                (false, true) => Some(loader.vector("lm_head.bias", c.vocab)?),
                (false, false) => None,
            };
            // Rows beyond the vocabulary are read and never said.
            embedding.shared(c.vocab, bias)?
        } else {
            let names = c.family.names().heads;
            let exists = |name: &&&str| loader.has(&format!("{name}.weight"));
            // One that is missing is called as its neighbours are.
            let wrapped = |name: &str| name.starts_with("language_model.");
            let alike = |name: &&&str| wrapped(name) == wrapped(loader.prefix());
            let name = names.iter().find(exists);
            let name = name.or_else(|| names.iter().find(alike));
            let name = name.copied().unwrap_or("lm_head");
            let linear = loader.matrix(name, c.vocab, width, c.head_bias || masked)?;
            match loader.place().backend {
                // As the kernels read it.
                Backend::Kernels => loader.put(name, linear)?,
                Backend::Tensors => linear,
            }
        };
        let place = loader.place();
        let big = match place.backend {
            Backend::Kernels => Big::Whole(linear.on(place)?),
            // Blocks are cut where they are; floats go there in one piece, which an embedding may share.
            Backend::Tensors if linear.is_blocks() => {
                Big::Tiles(Arc::new(HeadTiles::new(&linear, c.logit_cap, place)?))
            }
            Backend::Tensors => {
                let linear = linear.on(place)?;
                Big::Tiles(Arc::new(HeadTiles::new(&linear, c.logit_cap, place)?))
            }
        };
        let projection = match c.embedding_width {
            Some(width) => {
                let name = format!("{}project_out", loader.prefix());
                Some(loader.linear(&name, width, c.d_model, false)?)
            }
            None => None,
        };
        Ok(Self {
            transform: match masked {
                true => Some(Transform::load(loader, c)?),
                false => None,
            },
            projection,
            big,
            cap: c.logit_cap,
        })
    }

    /// Logits `[rows, V]` of normed states `[rows, d_model]`.
    pub(crate) fn forward(&self, normed: &Tensor) -> candle_core::Result<Tensor> {
        self.rest(&self.prepare(normed)?)
    }

    /// Logits `[rows, V]` of what [`Self::prepare`] gave.
    pub(crate) fn rest(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let linear = match &self.big {
            Big::Tiles(tiles) => return tiles.all(x),
            Big::Whole(linear) => linear,
        };
        if !linear.is_plain(x) {
            let logits = linear.forward(x)?;
            return match self.cap {
                Some(cap) => (logits / cap)?.tanh()? * cap,
                None => Ok(logits),
            };
        }
        let (rows, vocab) = (x.dim(0)?, linear.outputs());
        let mut y = vec![0.0; rows * vocab];
        with_slice(x, |x| linear.product(x, rows, &mut y))??;
        self.with_last(|last| {
            y.chunks_mut(vocab.max(1)).for_each(|y| last.finish(0, y));
        })?;
        Tensor::from_vec(y, (rows, vocab), x.device())
    }

    /// What comes before the big matrix: normed states `[rows, d_model]` to its inputs `[rows, width]`.
    pub(crate) fn prepare(&self, normed: &Tensor) -> candle_core::Result<Tensor> {
        let mut x = normed.clone();
        if let Some(transform) = &self.transform {
            x = transform.forward(&x)?;
        }
        if let Some(projection) = &self.projection {
            x = projection.forward(&x)?;
        }
        Ok(x)
    }

    /// Whether the big matrix can be read here piece by piece.
    pub(crate) fn is_plain(&self, x: &Tensor) -> bool {
        matches!(&self.big, Big::Whole(linear) if linear.is_plain(x))
    }

    /// Number of logits.
    pub(crate) fn vocab(&self) -> usize {
        match &self.big {
            Big::Whole(linear) => linear.outputs(),
            Big::Tiles(tiles) => tiles.vocab,
        }
    }

    /// The big matrix in pieces, where tensor operations read it.
    pub(crate) fn tiles(&self) -> Option<&Arc<HeadTiles>> {
        match &self.big {
            Big::Tiles(tiles) => Some(tiles),
            Big::Whole(_) => None,
        }
    }

    /// Run `f` on the big matrix and what follows it.
    pub(crate) fn with_last<R>(&self, f: impl FnOnce(&Last<'_>) -> R) -> candle_core::Result<R> {
        let Big::Whole(linear) = &self.big else {
            candle_core::bail!("the head is not in main memory");
        };
        let run = |bias: Option<&[f32]>| {
            linear.with_matrix(|matrix| {
                f(&Last {
                    matrix,
                    bias,
                    cap: self.cap.map(|cap| cap as f32),
                    width: linear.inputs(),
                    vocab: linear.outputs(),
                })
            })
        };
        match linear.bias() {
            Some(bias) => with_slice(bias, |bias| run(Some(bias)))?,
            None => run(None),
        }
    }
}

/// The big matrix of a head and what follows it, in main memory.
pub(crate) struct Last<'a> {
    matrix: Matrix<'a>,
    bias: Option<&'a [f32]>,
    cap: Option<f32>,
    width: usize,
    /// Number of logits.
    pub(crate) vocab: usize,
}

impl Last<'_> {
    /// The logits `first..` of the rows of `input`, as many as each of `out` is long, on this thread.
    pub(crate) fn logits(&self, input: &Input<'_>, first: usize, out: &mut [&mut [f32]]) {
        kernel::strip(input, self.matrix, first, out);
        out.iter_mut().for_each(|out| self.finish(first, out));
    }

    /// Say that it is about to be read by all threads.
    pub(crate) fn foresee(&self) {
        kernel::foresee(&[self.matrix]);
    }

    /// So many rows `[rows, width]`, laid out to be read.
    pub(crate) fn input<'a>(&self, x: &'a [f32], rows: usize) -> Input<'a> {
        Input::new(x, rows, self.width)
    }

    /// Numbers a row of inputs has.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// What the model does to the products `first..` of a row.
    fn finish(&self, first: usize, y: &mut [f32]) {
        if let Some(bias) = self.bias {
            for (y, bias) in y.iter_mut().zip(&bias[first..]) {
                *y += bias;
            }
        }
        if let Some(cap) = self.cap {
            for y in y {
                *y = cap * tanh(*y / cap);
            }
        }
    }
}
