//! GGUF files that hold no model but a few named lists of numbers, such as llama.cpp's control vectors.

use super::header::Header;
use super::tensors::floats;
use super::write::{Entries, Failure, Ready, write};
use super::{Bytes, text};
use crate::error::{Error, Result};
use crate::text::scrub;
use candle_core::quantized::GgmlDType;
use candle_core::{DType, Device, Tensor};
use std::io;
use std::path::Path;

/// What such a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plain {
    /// `general.architecture`: what kind of file it is.
    pub architecture: String,
    /// Text entries, in order, their keys whole.
    pub texts: Vec<(String, String)>,
    /// Entries that are whole numbers; they are written, not read.
    pub numbers: Vec<(String, u32)>,
    /// Named tensors: shape, outermost dimension first, and numbers.
    pub tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
}

impl Plain {
    /// Read a file of this architecture, of at most `most` bytes and `tensors` tensors; of the text entries `texts` those
    /// that it has.
    ///
    /// # Errors
    /// If it cannot be read, is of another kind, larger, damaged, or holds numbers of a type that is not read.
    pub fn read(
        path: &Path,
        architecture: &str,
        most: usize,
        tensors: usize,
        texts: &[&str],
    ) -> Result<Self> {
        Self::of_bytes(Bytes::open(path)?, path, architecture, most, tensors, texts)
    }

    /// The same of bytes inside this program, under a name for messages.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(
        bytes: &'static [u8],
        name: &'static str,
        architecture: &str,
        tensors: usize,
        texts: &[&str],
    ) -> Result<Self> {
        let most = bytes.len();
        let bytes = Bytes::Static { bytes, name };
        Self::of_bytes(bytes, Path::new(name), architecture, most, tensors, texts)
    }

    fn of_bytes(
        bytes: Bytes,
        path: &Path,
        architecture: &str,
        most: usize,
        tensors: usize,
        texts: &[&str],
    ) -> Result<Self> {
        let refuse = |problem: String| {
            Error::file(
                path,
                problem,
                "The file is damaged or of another kind: fetch it again.",
            )
        };
        if bytes.len() > most {
            let problem = format!("is larger than {} MB", most >> 20);
            return Err(refuse(problem));
        }
        let header = Header::read(bytes.all()).map_err(|problem| refuse(scrub(&problem)))?;
        let found = text(&header, "general.architecture").unwrap_or_default();
        if found != architecture {
            let problem = format!(
                "is a GGUF file of the kind \"{}\", not \"{architecture}\"",
                scrub(found)
            );
            return Err(refuse(problem));
        }
        if header.tensors.len() > tensors {
            let problem = format!("has {} tensors, more than {tensors}", header.tensors.len());
            return Err(refuse(problem));
        }
        // Tensors may claim the same bytes.
        let places = header.tensors.values().filter_map(|t| t.data.as_ref());
        if places.map(|(_, range)| range.len()).sum::<usize>() > most {
            return Err(refuse("has tensors that overlap".to_owned()));
        }
        let mut plain = Self {
            architecture: architecture.to_owned(),
            ..Self::default()
        };
        for key in texts {
            if let Some(value) = text(&header, key) {
                plain.texts.push(((*key).to_owned(), value.to_owned()));
            }
        }
        for (name, info) in &header.tensors {
            let kind = || {
                refuse(format!(
                    "tensor {} is of the ggml type {}, not of plain numbers",
                    scrub(name),
                    info.code
                ))
            };
            let (dtype, range) = info.data.clone().ok_or_else(kind)?;
            let numbers = floats(bytes.get(range, name)?, dtype, &info.shape)?.ok_or_else(kind)?;
            let values = numbers.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            plain
                .tensors
                .push((name.clone(), info.shape.clone(), values));
        }
        Ok(plain)
    }

    /// Write it, all numbers as F32.
    ///
    /// # Errors
    /// Whatever `out` reports; or if a shape does not fit its numbers.
    pub fn write(&self, mut out: &mut dyn io::Write) -> io::Result<()> {
        let mut entries = Entries::default();
        entries.text("general.architecture", &self.architecture);
        for (key, value) in &self.texts {
            entries.text(key, value);
        }
        for (key, value) in &self.numbers {
            entries.u32(key, *value);
        }
        let tensors = self.tensors.iter().map(|(name, shape, values)| {
            Ok(Ready {
                name: name.clone(),
                tensor: Tensor::from_vec(values.clone(), shape.as_slice(), &Device::Cpu)?,
                dtype: GgmlDType::F32,
            })
        });
        let tensors: Vec<Ready> = tensors
            .collect::<candle_core::Result<_>>()
            .map_err(io::Error::other)?;
        write(&mut out, &entries, &tensors).map_err(|e| match e {
            Failure::Disk(e) => e,
            Failure::Tensor(e) => io::Error::other(e),
        })
    }
}
