//! What a branch remembers: keys and values, convolution inputs and scan states per block. It forks, truncates and
//! rewinds.
//!
//! Keys and values of the past can be cut off anywhere. The states of convolutions and scans cannot be run backwards,
//! and Phi-3's long texts change the keys of all that came before: then the memory keeps the tokens alone and the next
//! forward reads them again. A fork taken earlier is a snapshot that costs no such reading.

use super::intervention::Intervention;
use candle_core::{Result, Tensor};

/// The memory of one branch: the tokens read and what each block keeps of them.
#[derive(Debug, Default)]
pub struct State {
    tokens: Vec<u32>,
    /// How many of the tokens the layers hold; the rest must be read again.
    held: usize,
    /// The longest text that was announced.
    announced: usize,
    /// Whether what is held was read with the rotary frequencies of long texts.
    pub(super) long: bool,
    /// What was done to the states from each position on.
    interventions: Vec<(usize, Vec<Intervention>)>,
    layers: Vec<LayerState>,
}

/// What one block remembers.
#[derive(Debug, Default)]
pub(crate) struct LayerState {
    /// Of attention.
    pub(crate) keys_values: KvCache,
    /// Of a convolution: its last inputs, `[width − 1, channels]`.
    pub(crate) convolution: Option<Tensor>,
    /// Of a scan: its state, in the shape its family gives it.
    pub(crate) scan: Option<Tensor>,
}

impl LayerState {
    fn recurrent(&self) -> bool {
        self.convolution.is_some() || self.scan.is_some()
    }

    fn bytes(&self) -> u64 {
        let kv = &self.keys_values;
        [&kv.keys, &kv.values, &self.convolution, &self.scan]
            .into_iter()
            .flatten()
            .map(|t| t.elem_count() as u64 * 4)
            .sum()
    }
}

impl State {
    /// An empty memory for a model of `blocks` blocks.
    #[must_use]
    pub fn new(blocks: usize) -> Self {
        Self {
            layers: (0..blocks).map(|_| LayerState::default()).collect(),
            ..Self::default()
        }
    }

    /// Tokens read so far; the next token's position.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether nothing has been read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Say how long the text will be at least. A model that reads long texts differently from the first token on then
    /// does so at once, and chunks give what reading the whole would.
    pub fn announce(&mut self, tokens: usize) {
        self.announced = self.announced.max(tokens);
    }

    /// An independent copy: what one of the two reads next never reaches the other. (Cloning a candle tensor shares
    /// its memory, and appending keys writes in place, so these are copied. The other states are replaced, never
    /// written to.)
    ///
    /// # Errors
    /// If the device is out of memory.
    pub fn fork(&self) -> Result<Self> {
        let layer = |l: &LayerState| {
            Ok(LayerState {
                keys_values: l.keys_values.fork()?,
                convolution: l.convolution.clone(),
                scan: l.scan.clone(),
            })
        };
        Ok(Self {
            tokens: self.tokens.clone(),
            held: self.held,
            announced: self.announced,
            long: self.long,
            interventions: self.interventions.clone(),
            layers: self.layers.iter().map(layer).collect::<Result<_>>()?,
        })
    }

    /// Forget everything from position `len` on, announcements included.
    pub fn truncate(&mut self, len: usize) {
        self.announced = self.announced.min(len);
        if len >= self.tokens.len() {
            return;
        }
        self.tokens.truncate(len);
        self.interventions.retain(|(from, _)| *from < len);
        if self.layers.iter().any(LayerState::recurrent) {
            self.forget();
        } else {
            self.held = self.held.min(len);
            let held = self.held;
            for layer in &mut self.layers {
                layer.keys_values.len = layer.keys_values.len.min(held);
            }
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(LayerState::bytes).sum()
    }

    /// Drop what the layers hold; the tokens stay, to be read again.
    pub(super) fn forget(&mut self) {
        self.held = 0;
        for layer in &mut self.layers {
            layer.keys_values.len = 0;
            layer.convolution = None;
            layer.scan = None;
        }
    }

    /// How long the text will be with `new` more tokens, as far as is known.
    pub(super) fn horizon(&self, new: usize) -> usize {
        (self.tokens.len() + new).max(self.announced)
    }

    /// The next run of tokens that was read under one set of interventions and must be read again, at most `most` long.
    pub(super) fn owed(&self, most: usize) -> Option<(Vec<u32>, Vec<Intervention>)> {
        if self.held == self.tokens.len() {
            return None;
        }
        let next = self.interventions.iter().map(|(from, _)| *from);
        let until = next
            .filter(|from| *from > self.held)
            .min()
            .unwrap_or(self.tokens.len())
            .min(self.held + most);
        let past = self.interventions.iter().rev();
        let plan = past.clone().find(|(from, _)| *from <= self.held);
        Some((
            self.tokens[self.held..until].to_vec(),
            plan.map(|(_, plan)| plan.clone()).unwrap_or_default(),
        ))
    }

    /// Position of the next token that the layers will read.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    pub(super) fn layer(&mut self, block: usize) -> &mut LayerState {
        &mut self.layers[block]
    }

    /// The layers have read these tokens, new ones or such as were owed.
    pub(super) fn advance(&mut self, tokens: &[u32], interventions: &[Intervention]) {
        if self.held == self.tokens.len() {
            let same = match self.interventions.last() {
                Some((_, last)) => last == interventions,
                None => interventions.is_empty(),
            };
            if !same {
                self.interventions.push((self.held, interventions.to_vec()));
            }
            self.tokens.extend_from_slice(tokens);
        }
        self.held += tokens.len();
    }
}

/// Keys and values of one block, `[1, kv_heads, capacity, head_dim]`, of which the first `len` positions are filled.
#[derive(Debug, Default)]
pub(crate) struct KvCache {
    keys: Option<Tensor>,
    values: Option<Tensor>,
    len: usize,
}

impl KvCache {
    /// Append `[1, kv_heads, new, head_dim]` and return views of everything so far, `[1, kv_heads, len, head_dim]`.
    pub(crate) fn append(&mut self, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)> {
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
