//! Files of control vectors.
//!
//! | ending | what is in it |
//! |---|---|
//! | `.gguf` | llama.cpp's and repeng's: tensors `direction.N`, N the block from 0 whose output is pushed |
//! | `.safetensors` | `direction.N`, or one `direction` for all |
//! | `.pt`, `.pth` | PyTorch's: a tensor, a list or a dictionary of them (see `torch`); read only |
//! | `.json` | see `text` |
//! | `.yaml`, `.yml` | the same; read only |
//!
//! Sizes are checked before memory is taken, shapes and finiteness before anybody gets the numbers.

use super::vector::{ControlVector, MAX_LAYERS};
use super::{text, torch};
use crate::error::{Error, Result};
use crate::model::gguf::Plain;
use crate::model::safetensors::Safetensors;
use crate::model::weights::{Stored, TensorSource};
use crate::text::one_line;
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Largest file that is read; the largest vectors in use take about 8 MB.
pub(super) const MAX_BYTES: usize = 256 << 20;

const ARCHITECTURE: &str = "controlvector";
const HINT: &str = "controlvector.model_hint";
const COUNT: &str = "controlvector.layer_count";
const ONE: &str = "direction";

/// Vectors that come with the program, for the model inside; their names stand where a file's would.
pub const BUILT_IN: [(&str, &[u8]); 1] = [(
    "mood",
    include_bytes!("../../sample_prompts/contrast/mood.gguf"),
)];

/// A format, by the ending of a file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// llama.cpp's control vectors.
    Gguf,
    /// Hugging Face's tensors.
    Safetensors,
    /// PyTorch's pickles in a zip, read as data.
    Torch,
    /// Lists of numbers.
    Json,
    /// Lists of numbers, such as llm_entropy's settings.
    Yaml,
}

impl Format {
    /// The format of a file by its name.
    ///
    /// # Errors
    /// If it has another ending than those of the table above.
    pub fn of(path: &Path) -> Result<Self> {
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        Ok(match ending.to_lowercase().as_str() {
            "gguf" => Self::Gguf,
            "safetensors" => Self::Safetensors,
            "pt" | "pth" => Self::Torch,
            "json" => Self::Json,
            "yaml" | "yml" => Self::Yaml,
            _ => {
                return Err(Error::file(
                    path,
                    "has no ending that names a format of control vectors",
                    "Known are .gguf, .safetensors, .pt, .json and .yaml.",
                ));
            }
        })
    }
}

/// A control vector as its file has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    /// The directions.
    pub vector: ControlVector,
    /// Weights of the layers from layer 1 on, where the file has some (llm_entropy's settings).
    pub layer_weights: Vec<f64>,
    /// Weights along the prompt, likewise.
    pub token_weights: Vec<f64>,
    /// What the user should know, a clause each.
    pub warnings: Vec<String>,
}

impl Opened {
    pub(super) fn plain(vector: ControlVector) -> Self {
        Self {
            vector,
            layer_weights: Vec::new(),
            token_weights: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// Read a control vector.
///
/// # Errors
/// If the file cannot be read, is damaged or too large, or is no control vector; the sentence says why.
pub fn open(path: &Path) -> Result<Opened> {
    if let Some((name, bytes)) = built_in(path) {
        let file = Plain::parse(bytes, name, ARCHITECTURE, MAX_LAYERS, &[HINT])?;
        return gguf(path, file);
    }
    match Format::of(path)? {
        Format::Gguf => {
            let file = Plain::read(path, ARCHITECTURE, MAX_BYTES, MAX_LAYERS, &[HINT])?;
            gguf(path, file)
        }
        Format::Safetensors => safetensors(path),
        Format::Torch => torch::open(path),
        Format::Json => text::open(path, text::json),
        Format::Yaml => text::open(path, text::yaml),
    }
}

/// What is wrong with `path`, which should hold a control vector.
pub(super) fn refuse(path: &Path, problem: impl Into<String>) -> Error {
    Error::file(
        path,
        problem,
        "Give a control vector as llama.cpp, repeng or `entroscope steer train` write it.",
    )
}

/// The vector of this name that comes with the program. (No file of such a name would be read: it has no ending.)
fn built_in(path: &Path) -> Option<(&'static str, &'static [u8])> {
    let named = |(name, _): &(&str, &[u8])| path.as_os_str() == *name;
    BUILT_IN.into_iter().find(named)
}

fn gguf(path: &Path, file: Plain) -> Result<Opened> {
    let tensors = file.tensors.into_iter();
    let named = tensors.map(|(name, shape, numbers)| (name, (shape, numbers)));
    let mut opened = assemble(path, named.collect())?;
    opened.vector.model_hint = file.texts.into_iter().next().map(|(_, hint)| hint);
    Ok(opened)
}

fn safetensors(path: &Path) -> Result<Opened> {
    let size = std::fs::metadata(path).map_err(|e| Error::read(path, &e))?;
    if size.len() > MAX_BYTES as u64 {
        return Err(refuse(
            path,
            format!("is larger than {} MB", MAX_BYTES >> 20),
        ));
    }
    let source = Safetensors::open_file(path)?;
    let names = source.names();
    if names.len() > MAX_LAYERS {
        return Err(refuse(path, format!("has {} tensors", names.len())));
    }
    let mut named = Vec::new();
    for name in names {
        if let Stored::Float(tensor) = source.load(&name)? {
            let numbers: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            named.push((name, (tensor.dims().to_vec(), numbers)));
        }
    }
    assemble(path, named)
}

/// A tensor's shape and numbers.
pub(super) type Numbers = (Vec<usize>, Vec<f32>);

/// Directions from tensors that are called `direction.N` (block N from 0), or `direction`.
pub(super) fn assemble(path: &Path, named: Vec<(String, Numbers)>) -> Result<Opened> {
    let mut each = BTreeMap::new();
    let mut one = None;
    let mut warnings = Vec::new();
    for (name, (shape, numbers)) in named {
        if shape.iter().filter(|d| **d != 1).count() > 1 {
            return Err(refuse(
                path,
                format!(
                    "its tensor {} has the shape {shape:?}, a direction is one row",
                    one_line(&name)
                ),
            ));
        }
        let block = name.strip_prefix("direction.").map(str::parse::<usize>);
        match block {
            None if name == ONE => one = Some(numbers),
            Some(Ok(block)) if block < MAX_LAYERS => {
                if block == 0 {
                    warnings.push(
                        "it has a direction.0, which llama.cpp ignores; here it pushes layer 1"
                            .to_owned(),
                    );
                }
                if each.insert(block + 1, numbers).is_some() {
                    return Err(refuse(
                        path,
                        format!("has two directions for block {block}"),
                    ));
                }
            }
            _ => {
                return Err(refuse(
                    path,
                    format!(
                        "has a tensor {}, but a control vector has only direction.0, direction.1 and so on, or one \
                         direction",
                        one_line(&name)
                    ),
                ));
            }
        }
    }
    let vector = match one {
        Some(_) if !each.is_empty() => {
            return Err(refuse(
                path,
                "has one direction for all layers and others for some",
            ));
        }
        Some(one) => ControlVector::for_all_layers(one),
        None => ControlVector::new(each),
    };
    let vector = vector.map_err(|problem| refuse(path, problem))?;
    Ok(Opened {
        warnings,
        ..Opened::plain(vector)
    })
}

impl ControlVector {
    /// The bytes of a file of this format, and what of the vector has no place in it.
    ///
    /// # Errors
    /// If the format is only read, or has no place for such a vector.
    pub fn to_bytes(&self, format: Format) -> Result<(Vec<u8>, Vec<String>)> {
        let mut bytes = Vec::new();
        let mut dropped = Vec::new();
        let failed = |e: io::Error| {
            Error::failed(format!("cannot be written: {e}"), "Report this as a bug.")
        };
        match format {
            Format::Gguf => {
                let layers = self.layers().ok_or_else(|| {
                    Error::Usage(
                        "a GGUF file has a direction for each layer, and this vector one for all: say which with \
                         --layers A..B"
                            .into(),
                    )
                })?;
                if layers.iter().any(|layer| *layer < 2) {
                    dropped.push(
                        "layers 0 and 1 are left out: llama.cpp takes no direction before its block 1".to_owned(),
                    );
                }
                let kept = layers.into_iter().filter(|layer| *layer >= 2);
                let tensors: Vec<_> = kept
                    .filter_map(|layer| Some((layer, self.direction(layer)?)))
                    .map(|(layer, v)| {
                        (
                            format!("direction.{}", layer - 1),
                            vec![v.len()],
                            v.to_vec(),
                        )
                    })
                    .collect();
                if tensors.is_empty() {
                    return Err(Error::Usage(
                        "no direction is left: a GGUF file begins with layer 2, the output of block 1".into(),
                    ));
                }
                let hint = self.model_hint.clone().unwrap_or_default();
                let file = Plain {
                    architecture: ARCHITECTURE.to_owned(),
                    texts: vec![(HINT.to_owned(), hint)],
                    numbers: vec![(COUNT.to_owned(), tensors.len() as u32)],
                    tensors,
                };
                file.write(&mut bytes).map_err(failed)?;
            }
            Format::Safetensors => {
                let tensor = |v: &[f32]| Tensor::from_slice(v, v.len(), &candle_core::Device::Cpu);
                let named: Vec<(String, Tensor)> = self
                    .named()?
                    .into_iter()
                    .map(|(name, v)| Ok((name, tensor(v)?)))
                    .collect::<candle_core::Result<_>>()?;
                bytes =
                    safetensors::serialize(named, None).map_err(|e| failed(io::Error::other(e)))?;
            }
            Format::Json => {
                let named: BTreeMap<String, &[f32]> = self.named()?.into_iter().collect();
                serde_json::to_writer_pretty(&mut bytes, &named).map_err(|e| failed(e.into()))?;
                bytes.push(b'\n');
            }
            Format::Torch | Format::Yaml => {
                return Err(Error::Usage(
                    "control vectors are written as .gguf, .safetensors or .json only".into(),
                ));
            }
        }
        Ok((bytes, dropped))
    }

    /// Directions by their names in a file.
    fn named(&self) -> Result<Vec<(String, &[f32])>> {
        let Some(layers) = self.layers() else {
            return Ok(self
                .direction(1)
                .map(|v| (ONE.to_owned(), v))
                .into_iter()
                .collect());
        };
        layers
            .into_iter()
            .filter_map(|layer| Some((layer, self.direction(layer)?)))
            .map(|(layer, v)| match layer.checked_sub(1) {
                Some(block) => Ok((format!("direction.{block}"), v)),
                None => Err(Error::Usage(
                    "a direction for the embedding, layer 0, has no name in this format".into(),
                )),
            })
            .collect()
    }
}
