//! Checked access to the fields of a `config.json`: every number has a range, every complaint names its field.

use crate::error::{Error, Result};
use serde_json::Value;

/// Most of anything that a configuration may ask for; a larger number is damage, not a model.
const CAP: u64 = 1 << 24;
/// Most blocks that a configuration may ask for.
const MOST_BLOCKS: usize = 4096;

/// The fields of one JSON object.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a Value);

impl<'a> Fields<'a> {
    /// A whole number of at least 1 that must be there.
    pub(crate) fn size(&self, name: &str) -> Result<usize> {
        self.optional_size(name)?
            .ok_or_else(|| self.bad(name, "is missing"))
    }

    /// A whole number of at least 1, `None` if absent or null.
    pub(crate) fn optional_size(&self, name: &str) -> Result<Option<usize>> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            // Some files write whole numbers as 2.0.
            Some(v) => match v.as_u64().or_else(|| whole(v.as_f64()?)) {
                Some(n) if (1..=CAP).contains(&n) => Ok(Some(n as usize)),
                _ => Err(self.bad(name, &format!("must be a whole number from 1 to {CAP}"))),
            },
        }
    }

    /// The first of several names that is there.
    pub(crate) fn size_of(&self, names: &[&str]) -> Result<usize> {
        for name in names {
            if let Some(size) = self.optional_size(name)? {
                return Ok(size);
            }
        }
        Err(self.bad(names.first().copied().unwrap_or_default(), "is missing"))
    }

    /// The number of blocks, bounded so that a damaged file cannot ask for a list of millions.
    pub(crate) fn blocks(&self, name: &str) -> Result<usize> {
        match self.size(name)? {
            n if n <= MOST_BLOCKS => Ok(n),
            _ => Err(self.bad(name, &format!("is more than {MOST_BLOCKS}"))),
        }
    }

    /// A finite number, `None` if absent or null.
    pub(crate) fn real(&self, name: &str) -> Result<Option<f64>> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => match v.as_f64() {
                Some(n) if n.is_finite() => Ok(Some(n)),
                _ => Err(self.bad(name, "must be a number")),
            },
        }
    }

    /// A finite number above 0, `None` if absent or null.
    pub(crate) fn positive(&self, name: &str) -> Result<Option<f64>> {
        match self.real(name)? {
            Some(v) if v <= 0.0 => Err(self.bad(name, "is not a positive number")),
            v => Ok(v),
        }
    }

    /// A list of finite numbers above 0.
    pub(crate) fn positives(&self, name: &str, len: usize) -> Result<Vec<f64>> {
        let list = self.0.get(name).and_then(Value::as_array);
        let numbers: Vec<f64> = list
            .into_iter()
            .flatten()
            .filter_map(Value::as_f64)
            .filter(|v| v.is_finite() && *v > 0.0)
            .collect();
        if numbers.len() == len && list.is_some_and(|l| l.len() == len) {
            Ok(numbers)
        } else {
            Err(self.bad(
                name,
                &format!("must list {len} positive numbers, one for each rotary pair"),
            ))
        }
    }

    /// A list of whole numbers, `None` if absent or null.
    pub(crate) fn list(&self, name: &str) -> Result<Option<Vec<u64>>> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => v
                .as_array()
                .and_then(|l| l.iter().map(Value::as_u64).collect())
                .map(Some)
                .ok_or_else(|| self.bad(name, "must be a list of whole numbers")),
        }
    }

    /// A list of words, one for each block, `None` if absent or null.
    pub(crate) fn words(&self, name: &str, blocks: usize) -> Result<Option<Vec<&'a str>>> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => v
                .as_array()
                .and_then(|l| l.iter().map(Value::as_str).collect::<Option<Vec<_>>>())
                .filter(|l| l.len() == blocks)
                .map(Some)
                .ok_or_else(|| {
                    self.bad(
                        name,
                        &format!("must list a word for each of {blocks} layers"),
                    )
                }),
        }
    }

    /// A text, `None` if absent or null.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => v
                .as_str()
                .map(Some)
                .ok_or_else(|| self.bad(name, "must be a text")),
        }
    }

    /// A truth value, `None` if absent or null.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => v
                .as_bool()
                .map(Some)
                .ok_or_else(|| self.bad(name, "must be true or false")),
        }
    }

    /// Whether the field is there, be it null.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some()
    }

    /// The object of this name, `None` if absent or null.
    pub(crate) fn object(&self, name: &str) -> Result<Option<Fields<'a>>> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(v) if v.is_object() => Ok(Some(Fields(v))),
            Some(_) => Err(self.bad(name, "must be an object")),
        }
    }

    /// Refuse a flag that is set: the model does something this program would leave out.
    pub(crate) fn refuse(&self, name: &str) -> Result<()> {
        match self.flag(name)? {
            Some(true) => Err(self.bad(name, "is not supported")),
            _ => Ok(()),
        }
    }

    /// A complaint about a field, with what was found there.
    pub(crate) fn bad(&self, name: &str, why: &str) -> Error {
        let found = self
            .0
            .get(name)
            .map(|v| crate::text::scrub(&v.to_string()))
            .map(|v| format!(" (found {})", v.chars().take(60).collect::<String>()))
            .unwrap_or_default();
        Error::failed(
            format!("the model's config.json: {name} {why}{found}"),
            "Fetch the model again, or correct the file.",
        )
    }
}

fn whole(v: f64) -> Option<u64> {
    (v.fract() == 0.0 && (0.0..=CAP as f64).contains(&v)).then_some(v as u64)
}
