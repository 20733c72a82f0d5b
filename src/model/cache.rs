//! What a branch remembers: keys and values per layer, which fork, truncate and rewind.

use candle_core::{Result, Tensor};

/// The memory of one branch: how many tokens were read and what each block keeps of them.
#[derive(Debug, Default)]
pub struct State {
    len: usize,
    layers: Vec<KvCache>,
}

impl State {
    /// An empty memory for a model of `blocks` blocks.
    #[must_use]
    pub fn new(blocks: usize) -> Self {
        Self {
            len: 0,
            layers: (0..blocks).map(|_| KvCache::default()).collect(),
        }
    }

    /// Tokens read so far; the next token's position.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// An independent copy: what one of the two reads next never reaches the other. (Cloning a candle tensor shares
    /// its memory, and appending writes in place, so this copies the numbers.)
    ///
    /// # Errors
    /// If the device is out of memory.
    pub fn fork(&self) -> Result<Self> {
        Ok(Self {
            len: self.len,
            layers: self
                .layers
                .iter()
                .map(KvCache::fork)
                .collect::<Result<_>>()?,
        })
    }

    /// Forget everything from position `len` on.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.len = len;
            self.layers.iter_mut().for_each(|l| l.len = l.len.min(len));
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let held = |t: &Option<Tensor>| t.as_ref().map_or(0, |t| t.elem_count() * 4);
        self.layers
            .iter()
            .map(|l| (held(&l.keys) + held(&l.values)) as u64)
            .sum()
    }

    pub(super) fn layer(&mut self, block: usize) -> &mut KvCache {
        &mut self.layers[block]
    }

    pub(super) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

/// Keys and values of one block, `[1, kv_heads, capacity, head_dim]`, of which the first `len` positions are filled.
#[derive(Debug, Default)]
pub(super) struct KvCache {
    keys: Option<Tensor>,
    values: Option<Tensor>,
    len: usize,
}

impl KvCache {
    /// Append `[1, kv_heads, new, head_dim]` and return views of everything so far, `[1, kv_heads, len, head_dim]`.
    pub(super) fn append(&mut self, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)> {
        let new = keys.dim(2)?;
        let keys = put(&mut self.keys, keys, self.len)?;
        let values = put(&mut self.values, values, self.len)?;
        self.len += new;
        Ok((keys, values))
    }

    fn fork(&self) -> Result<Self> {
        let copy = |t: &Option<Tensor>| t.as_ref().map(Tensor::copy).transpose();
        Ok(Self {
            keys: copy(&self.keys)?,
            values: copy(&self.values)?,
            len: self.len,
        })
    }
}

/// Write `new` behind the first `len` positions of `buffer`, which doubles when it is full.
fn put(buffer: &mut Option<Tensor>, new: &Tensor, len: usize) -> Result<Tensor> {
    let (b, heads, count, head_dim) = new.dims4()?;
    let needed = len + count;
    let full = match buffer {
        Some(t) => t.dim(2)? < needed,
        None => true,
    };
    if full {
        let capacity = needed.next_power_of_two().max(64);
        let grown = Tensor::zeros((b, heads, capacity, head_dim), new.dtype(), new.device())?;
        if let Some(old) = buffer.as_ref().filter(|_| len > 0) {
            grown.slice_set(&old.narrow(2, 0, len)?.contiguous()?, 2, 0)?;
        }
        *buffer = Some(grown);
    }
    match buffer {
        Some(t) => {
            t.slice_set(&new.contiguous()?, 2, len)?;
            t.narrow(2, 0, needed)
        }
        None => Ok(new.clone()),
    }
}
