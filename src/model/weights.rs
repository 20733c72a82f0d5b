//! Named tensors from wherever they are kept, under their Hugging Face names.

use super::blocks::BlockFormat;
use super::config::{DecoderConfig, LayerKind};
use super::device::{Place, Placement};
use super::families::names::Names;
use super::linear::{Linear, select_rows, transposed};
use crate::error::{Error, Result};
use candle_core::quantized::{QStorage, QTensor};
use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use rayon::prelude::*;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

/// One stored tensor.
#[derive(Clone, Debug)]
pub enum Stored {
    /// Real numbers in f32, f16 or bf16, as they are kept in memory.
    Float(Tensor),
    /// Quantised blocks, row by row, as a file has them.
    Quantised(Arc<QTensor>),
}

impl Stored {
    /// Bytes it takes in memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Float(t) => (t.elem_count() * t.dtype().size_in_bytes()) as u64,
            Self::Quantised(q) => q.storage_size_in_bytes() as u64,
        }
    }

    /// Where it lies.
    pub(crate) fn device(&self) -> Device {
        match self {
            Self::Float(t) => t.device().clone(),
            Self::Quantised(q) => q.device(),
        }
    }

    /// The same on `place`; nothing is copied where it is there already.
    pub(crate) fn on(self, place: &Place) -> candle_core::Result<Self> {
        Ok(match self {
            Self::Float(t) => Self::Float(place.bring(&t)?),
            Self::Quantised(q) if q.device().same_device(&place.device) => Self::Quantised(q),
            Self::Quantised(q) => {
                let blocks = QStorage::from_data(q.data()?, &place.device, q.dtype())?;
                Self::Quantised(Arc::new(QTensor::new(blocks, q.shape())?))
            }
        })
    }
}

/// A checkpoint: tensors by their Hugging Face name, whatever the file calls them.
///
/// Implementations check sizes against the file before they take memory.
pub trait TensorSource: Send + Sync {
    /// All tensor names, sorted.
    fn names(&self) -> Vec<String>;

    /// The shape of a tensor, `None` if there is none of this name.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// Bytes a tensor will take in memory, `None` if there is none of this name.
    fn bytes_of(&self, name: &str) -> Option<u64> {
        let shape = self.shape(name)?;
        let numbers = shape
            .iter()
            .try_fold(1u64, |n, d| n.checked_mul(*d as u64))?;
        numbers.checked_mul(4)
    }

    /// Read a tensor.
    ///
    /// # Errors
    /// If it is missing or damaged; the sentence names the file and the tensor.
    fn load(&self, name: &str) -> Result<Stored>;

    /// Read a matrix that is kept as `[inputs, outputs]` under this name (GPT-2's Conv1D) as `[outputs, inputs]`.
    ///
    /// # Errors
    /// As [`TensorSource::load`].
    fn load_transposed(&self, name: &str) -> Result<Stored> {
        Ok(transposed(&self.load(name)?)?)
    }

    /// Where the tensors are, for messages.
    fn origin(&self) -> String;
}

/// What numbers are held as in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As the file has them: nothing is lost, and less is read for each token than after widening.
    #[default]
    Stored,
    /// 32-bit floats; quantised blocks are widened too.
    F32,
    /// 16-bit brain floats: rounds what had more bits.
    Bf16,
    /// 16-bit floats: rounds what had more bits, and what is beyond 65504 becomes infinite, which is refused.
    F16,
}

impl std::str::FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Stored),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            _ => Err("must be auto, f32, bf16 or f16".into()),
        }
    }
}

impl Precision {
    /// The name of the type, where it is not left to the file.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Stored => None,
            Self::F32 => Some("f32"),
            Self::Bf16 => Some("bf16"),
            Self::F16 => Some("f16"),
        }
    }

    fn dtype(self) -> Option<DType> {
        match self {
            Self::Stored => None,
            Self::F32 => Some(DType::F32),
            Self::Bf16 => Some(DType::BF16),
            Self::F16 => Some(DType::F16),
        }
    }

    /// Bytes of so many numbers that take `stored` bytes as they are in the file.
    pub(crate) fn bytes(self, numbers: u64, stored: u64) -> u64 {
        match self.dtype() {
            Some(dtype) => numbers.saturating_mul(dtype.size_in_bytes() as u64),
            None => stored,
        }
    }

    fn hold(self, stored: Stored) -> candle_core::Result<Stored> {
        match (self.dtype(), &stored) {
            (None, _) => Ok(stored),
            (Some(dtype), Stored::Float(t)) if t.dtype() == dtype => Ok(stored),
            (Some(dtype), _) => Ok(Stored::Float(Linear::table(&stored)?.to_dtype(dtype)?)),
        }
    }
}

/// How to load: what to hold weights as, who hears how far it is and may end it.
#[derive(Default)]
pub struct Loading<'a> {
    precision: Precision,
    /// Bytes that will be held in all.
    total: u64,
    cancelled: Option<&'a dyn Fn() -> bool>,
    read: Option<&'a dyn Fn(u64, u64)>,
}

impl<'a> Loading<'a> {
    /// `cancelled` is asked before every tensor; `read` hears bytes so far and in all after it.
    pub fn new(
        precision: Precision,
        total: u64,
        cancelled: &'a dyn Fn() -> bool,
        read: &'a dyn Fn(u64, u64),
    ) -> Self {
        Self {
            precision,
            total,
            cancelled: Some(cancelled),
            read: Some(read),
        }
    }

    /// What to hold weights as.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }
}

/// Takes tensors out of a source, checking their shapes against the configuration, puts them where they belong, and keeps
/// account of what it took.
#[derive(Clone)]
pub(crate) struct Loader<'a> {
    source: &'a dyn TensorSource,
    placement: &'a Placement,
    /// Where tensors go: index of a place.
    here: usize,
    names: &'a Names,
    prefix: &'a str,
    loading: &'a Loading<'a>,
    /// Bytes that will be held in all.
    total: u64,
    taken: Rc<RefCell<Taken>>,
}

#[derive(Default)]
struct Taken {
    names: HashSet<String>,
    ignored: Vec<String>,
    parameters: u64,
    bytes: u64,
    /// Bytes that matrices take less in their place than as they came, by name.
    saved: HashMap<String, u64>,
}

const DAMAGED: &str = "Fetch the model again, or correct its config.json.";

impl<'a> Loader<'a> {
    /// A loader for the family that `names` belongs to, of what lies where text enters.
    ///
    /// # Errors
    /// If the embedding is nowhere to be found.
    pub(crate) fn new(
        source: &'a dyn TensorSource,
        placement: &'a Placement,
        names: &'a Names,
        loading: &'a Loading<'a>,
    ) -> Result<Self> {
        let embedding = |prefix: &str| format!("{prefix}{}.weight", names.embedding);
        let found = |prefix: &&&str| source.shape(&embedding(prefix)).is_some();
        let Some(prefix) = names.prefixes.iter().find(found) else {
            // Called as its neighbours are.
            let blocks = |prefix: &&&str| {
                let start = format!("{prefix}{}.", names.block);
                source
                    .names()
                    .iter()
                    .filter(|n| n.starts_with(&start))
                    .count()
            };
            let first = names.prefixes.iter().max_by_key(blocks);
            let first = first.copied().unwrap_or_default();
            return Err(Error::failed(
                format!(
                    "{}: tensor {} is missing",
                    source.origin(),
                    embedding(first)
                ),
                DAMAGED,
            ));
        };
        Ok(Self {
            source,
            placement,
            here: 0,
            names,
            prefix,
            loading,
            total: loading.total,
            taken: Rc::default(),
        })
    }

    /// The loader of block `index` of `blocks`.
    pub(crate) fn of_block(&self, index: usize, blocks: usize) -> Self {
        Self {
            here: self.placement.of_block(index, blocks),
            ..self.clone()
        }
    }

    /// The loader of what lies where logits come out.
    pub(crate) fn of_end(&self) -> Self {
        Self {
            here: self.placement.count() - 1,
            ..self.clone()
        }
    }

    /// Index of the place that tensors go to.
    pub(crate) fn here(&self) -> usize {
        self.here
    }

    /// The place that tensors go to.
    pub(crate) fn place(&self) -> &Place {
        self.placement.place(self.here)
    }

    /// What stands before the names of the body's tensors in this checkpoint.
    pub(crate) fn prefix(&self) -> &str {
        self.prefix
    }

    /// What stands before the names of block `index`.
    pub(crate) fn block(&self, names: &Names, index: usize) -> String {
        format!("{}{}.{index}", self.prefix, names.block)
    }

    /// Whether the checkpoint has a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.source.shape(name).is_some()
    }

    /// The complaint that a part of the model is not there.
    pub(crate) fn nothing(&self, name: &str) -> Error {
        Error::failed(
            format!("{}: tensor {name} is missing", self.source.origin()),
            DAMAGED,
        )
    }

    fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        match self.source.shape(name) {
            Some(found) if found == shape => Ok(()),
            Some(found) => Err(Error::failed(
                format!(
                    "{}: tensor {name} has shape {found:?}, but config.json asks for {shape:?}",
                    self.source.origin()
                ),
                DAMAGED,
            )),
            None => Err(Error::failed(
                format!(
                    "{}: tensor {name} {shape:?} is missing",
                    self.source.origin()
                ),
                DAMAGED,
            )),
        }
    }

    /// A tensor of exactly this shape, as it is stored, in main memory.
    pub(crate) fn stored(&self, name: &str, shape: &[usize]) -> Result<Stored> {
        self.take(name, shape, |source| source.load(name))
    }

    /// A matrix that goes by this name as `[inputs, outputs]` (GPT-2's Conv1D), as `[outputs, inputs]`.
    fn transposed(&self, name: &str, outputs: usize, inputs: usize) -> Result<Stored> {
        self.take(name, &[inputs, outputs], |source| {
            source.load_transposed(name)
        })
    }

    fn take(
        &self,
        name: &str,
        shape: &[usize],
        load: impl FnOnce(&dyn TensorSource) -> Result<Stored>,
    ) -> Result<Stored> {
        if self.loading.cancelled.is_some_and(|cancelled| cancelled()) {
            return Err(Error::Interrupted);
        }
        self.check(name, shape)?;
        let stored = load(self.source)?;
        // Vectors are few and stay what they are.
        let stored = match shape.len() {
            0 | 1 => stored,
            _ => self.loading.precision.hold(stored)?,
        };
        if let Stored::Float(t) = &stored
            && !finite(t)?
        {
            return Err(Error::failed(
                format!(
                    "{}: tensor {name} holds numbers that are not finite (NaN or infinity)",
                    self.source.origin()
                ),
                "The weights are damaged: fetch the model again.",
            ));
        }
        let mut taken = self.taken.borrow_mut();
        if taken.names.insert(name.to_owned()) {
            taken.parameters += shape.iter().product::<usize>() as u64;
            // Blocks that no kernel reads are widened.
            taken.bytes += match &stored {
                Stored::Quantised(q) if BlockFormat::of(q.dtype()).is_none() => {
                    4 * shape.iter().product::<usize>() as u64
                }
                _ => stored.bytes(),
            };
            if let Some(read) = self.loading.read {
                read(taken.bytes, self.total);
            }
        }
        Ok(stored)
    }

    /// A tensor of exactly this shape as f32, in its place.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let table = Linear::table(&self.stored(name, shape)?)?;
        Ok(self.place().bring(&table)?)
    }

    /// A vector, always as f32.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Tensor> {
        self.tensor(name, &[len])
    }

    /// A table `[rows, width]` of any number of rows.
    pub(crate) fn table(&self, name: &str, width: usize) -> Result<Tensor> {
        match self.source.shape(name).as_deref() {
            Some([rows, found]) if *found == width => self.tensor(name, &[*rows, width]),
            _ => self.tensor(name, &[1, width]),
        }
    }

    /// `name.weight` `[outputs, inputs]`, with `name.bias`.
    pub(crate) fn linear(
        &self,
        name: &str,
        outputs: usize,
        inputs: usize,
        bias: bool,
    ) -> Result<Linear> {
        self.put(name, self.matrix(name, outputs, inputs, bias)?)
    }

    /// The matrix under this name in its place.
    pub(crate) fn put(&self, name: &str, linear: Linear) -> Result<Linear> {
        let before = linear.bytes();
        let linear = linear.on(self.place())?;
        self.holds(name, before, linear.bytes());
        Ok(linear)
    }

    /// Note that what lies under this name takes so many bytes in its place, and not as many as before.
    pub(crate) fn holds(&self, name: &str, before: u64, bytes: u64) {
        if bytes < before {
            let saved = &mut self.taken.borrow_mut().saved;
            saved.insert(name.to_owned(), before - bytes);
        }
    }

    /// The same with the weights still in main memory.
    pub(crate) fn matrix(
        &self,
        name: &str,
        outputs: usize,
        inputs: usize,
        bias: bool,
    ) -> Result<Linear> {
        let weight = self.stored(&format!("{name}.weight"), &[outputs, inputs])?;
        Ok(Linear::new(weight, self.bias(name, outputs, bias)?)?)
    }

    fn bias(&self, name: &str, outputs: usize, bias: bool) -> Result<Option<Tensor>> {
        match bias {
            true => Ok(Some(self.vector(&format!("{name}.bias"), outputs)?)),
            false => Ok(None),
        }
    }

    /// Several linear layers stored above one another in `name.weight`.
    pub(crate) fn linears(
        &self,
        name: &str,
        sizes: &[usize],
        inputs: usize,
        bias: bool,
    ) -> Result<Vec<Linear>> {
        let outputs = sizes.iter().sum();
        let weight = self.stored(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = self.bias(name, outputs, bias)?;
        self.placed(name, Linear::new(weight, bias)?.split(sizes)?)
    }

    /// The same of GPT-2's Conv1D, `[inputs, outputs]` with a bias.
    pub(crate) fn conv1d(&self, name: &str, sizes: &[usize], inputs: usize) -> Result<Vec<Linear>> {
        let outputs = sizes.iter().sum();
        let weight = self.transposed(&format!("{name}.weight"), outputs, inputs)?;
        let bias = self.bias(name, outputs, true)?;
        self.placed(name, Linear::new(weight, bias)?.split(sizes)?)
    }

    /// The parts of the matrix under this name in their place.
    fn placed(&self, name: &str, parts: Vec<Linear>) -> Result<Vec<Linear>> {
        let bytes = |parts: &[Linear]| parts.iter().map(Linear::bytes).sum();
        let before = bytes(&parts);
        let parts = parts.into_iter().map(|part| part.on(self.place()));
        let parts: Vec<Linear> = parts.collect::<candle_core::Result<_>>()?;
        self.holds(name, before, bytes(&parts));
        Ok(parts)
    }

    /// Queries, keys and values stored head by head, `[heads, 3, head_dim]` rows.
    pub(crate) fn interleaved(
        &self,
        name: &str,
        heads: usize,
        head_dim: usize,
        inputs: usize,
        bias: bool,
    ) -> Result<Vec<Linear>> {
        let outputs = 3 * heads * head_dim;
        let weight = self.stored(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = self.bias(name, outputs, bias)?;
        let parts = (0..3).map(|part| {
            let rows: Vec<u32> = (0..heads * head_dim)
                .map(|i| ((i / head_dim * 3 + part) * head_dim + i % head_dim) as u32)
                .collect();
            let bias = match &bias {
                Some(bias) => Some(bias.index_select(&Tensor::new(&rows[..], bias.device())?, 0)?),
                None => None,
            };
            Ok(Linear::new(select_rows(&weight, &rows)?, bias)?)
        });
        self.placed(name, parts.collect::<Result<_>>()?)
    }

    /// Leave alone what lies under this name: it repeats something that was taken elsewhere.
    pub(crate) fn ignore(&self, name: String) {
        self.taken.borrow_mut().ignored.push(name + ".");
    }

    /// Number of weights taken and their bytes in memory.
    pub(crate) fn size(&self) -> (u64, u64) {
        let taken = self.taken.borrow();
        let saved: u64 = taken.saved.values().sum();
        (taken.parameters, taken.bytes.saturating_sub(saved))
    }

    /// Look at what was left: tensors that belong to the text model's blocks and that the configuration has no place
    /// for are an error, for the numbers would be wrong without them. Others (image towers, poolers) are returned.
    pub(crate) fn finish(&self, c: &DecoderConfig) -> Result<Vec<String>> {
        let taken = self.taken.borrow();
        let blocks = format!("{}{}.", self.prefix, self.names.block);
        let mut others = Vec::new();
        for name in self.source.names() {
            // A tied head is the embedding once more.
            let repeated = c.tied
                && self.names.heads.iter().any(|head| {
                    let rest = name.strip_prefix(head);
                    rest.is_some_and(|rest| rest == ".weight" || rest == ".bias" && !c.head_bias)
                });
            let known = repeated
                || taken.names.contains(&name)
                || self.names.ignored.iter().any(|end| name.ends_with(end))
                || taken.ignored.iter().any(|start| name.starts_with(start));
            if known {
                continue;
            }
            let block = name
                .strip_prefix(&blocks)
                .and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
            let skipped = |block: usize| c.layers.get(block) == Some(&LayerKind::Skipped);
            match block {
                Some(block) if block >= c.blocks() => {
                    return Err(Error::failed(
                        format!(
                            "{}: tensor {name} belongs to a layer that config.json does not have \
                             (it counts {})",
                            self.source.origin(),
                            c.blocks()
                        ),
                        DAMAGED,
                    ));
                }
                Some(block) if !skipped(block) => {
                    return Err(Error::failed(
                        format!(
                            "{}: tensor {name} {:?} has no place in a model of type {} as config.json describes it",
                            self.source.origin(),
                            self.source.shape(&name).unwrap_or_default(),
                            c.family.name()
                        ),
                        DAMAGED,
                    ));
                }
                _ => others.push(name),
            }
        }
        Ok(others)
    }
}

/// Whether all numbers are finite. Weights that are being trained are trusted.
fn finite(t: &Tensor) -> candle_core::Result<bool> {
    if t.is_variable() || t.track_op() || !t.device().is_cpu() {
        return Ok(true);
    }
    // The exponent of NaN and infinities is all ones.
    let t = t.contiguous()?;
    let (storage, layout) = t.storage_and_layout();
    let (Storage::Cpu(storage), Some((from, to))) = (&*storage, layout.contiguous_offsets()) else {
        return Ok(true);
    };
    Ok(match storage {
        CpuStorage::F32(v) => every(&v[from..to], |v| v.to_bits() & 0x7f80_0000 != 0x7f80_0000),
        CpuStorage::F16(v) => every(&v[from..to], |v| v.to_bits() & 0x7c00 != 0x7c00),
        CpuStorage::BF16(v) => every(&v[from..to], |v| v.to_bits() & 0x7f80 != 0x7f80),
        _ => true,
    })
}

fn every<T: Sync>(numbers: &[T], holds: impl Fn(&T) -> bool + Sync) -> bool {
    numbers
        .par_chunks(1 << 16)
        .all(|part| part.iter().all(&holds))
}
