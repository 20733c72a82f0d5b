//! Control vectors as lists of numbers in JSON or YAML.
//!
//! * a list of numbers: one direction for all layers; a list of such lists: layer 1, 2, …;
//! * an object with `direction`, or with `direction.N` (block N from 0), as the tensors of the other formats are called;
//! * llm_entropy's settings: `control_vectors: {positive: […]}` with `layer_weights` and `token_weights`, on their own or
//!   under `analysis: {control: …}`. Its `negative` is not read there either.

use super::file::{Numbers, Opened, assemble, refuse};
use super::vector::{ControlVector, MAX_LAYERS, MAX_WIDTH};
use crate::error::{Error, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

/// Largest file: as values its numbers take sixteen times the room, at worst.
const MAX_BYTES: usize = 32 << 20;

/// Read a file whose text `parse` turns into a value.
pub(super) fn open(path: &Path, parse: fn(&str) -> Result<Value, String>) -> Result<Opened> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|e| Error::read(path, &e))?;
    file.take(MAX_BYTES as u64 + 1)
        .read_to_string(&mut text)
        .map_err(|e| Error::read(path, &e))?;
    if text.len() > MAX_BYTES {
        return Err(refuse(
            path,
            format!("is larger than {} MB", MAX_BYTES >> 20),
        ));
    }
    let value = parse(&text).map_err(|problem| {
        let problem = crate::text::truncate_width(&crate::text::one_line(&problem), 160);
        refuse(path, format!("cannot be understood: {problem}"))
    })?;
    from_value(path, &value)
}

pub(super) fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

pub(super) fn yaml(text: &str) -> Result<Value, String> {
    serde_saphyr::from_str(text).map_err(|e| e.to_string())
}

fn from_value(path: &Path, value: &Value) -> Result<Opened> {
    if let Value::Array(items) = value {
        return rows(path, items).map(Opened::plain);
    }
    let control = &value["analysis"]["control"];
    let control = if control.is_object() { control } else { value };
    let settings = &control["control_vectors"];
    if settings.is_object() {
        let positive = numbers(path, "control_vectors.positive", &settings["positive"])?;
        let vector = ControlVector::for_all_layers(positive).map_err(|p| refuse(path, p))?;
        let mut opened = Opened::plain(vector);
        for (name, weights) in [
            ("layer_weights", &mut opened.layer_weights),
            ("token_weights", &mut opened.token_weights),
        ] {
            if !control[name].is_null() {
                *weights = reals(path, name, &control[name])?;
            }
        }
        if settings["negative"].is_array() {
            opened
                .warnings
                .push("its negative vector is not read, as in llm_entropy; turn the positive one round with a negative strength".into());
        }
        return Ok(opened);
    }
    let Some(entries) = value.as_object() else {
        return Err(refuse(
            path,
            "holds neither a list of numbers nor directions by name",
        ));
    };
    if entries.len() > MAX_LAYERS {
        return Err(refuse(path, format!("has {} entries", entries.len())));
    }
    let named: Vec<(String, Numbers)> = entries
        .iter()
        .map(|(name, list)| {
            let numbers = numbers(path, name, list)?;
            Ok((name.clone(), (vec![numbers.len()], numbers)))
        })
        .collect::<Result<_>>()?;
    assemble(path, named)
}

/// A row of numbers, or one row for each block.
fn rows(path: &Path, items: &[Value]) -> Result<ControlVector> {
    let vector = if items.first().is_some_and(Value::is_array) {
        if items.len() > MAX_LAYERS {
            return Err(refuse(path, format!("has {} rows", items.len())));
        }
        let each: BTreeMap<usize, Vec<f32>> = items
            .iter()
            .enumerate()
            .map(|(block, row)| {
                Ok((
                    block + 1,
                    numbers(path, &format!("row {}", block + 1), row)?,
                ))
            })
            .collect::<Result<_>>()?;
        ControlVector::new(each)
    } else {
        let all = numbers(path, "the list", &Value::Array(items.to_vec()))?;
        ControlVector::for_all_layers(all)
    };
    vector.map_err(|problem| refuse(path, problem))
}

fn numbers(path: &Path, what: &str, list: &Value) -> Result<Vec<f32>> {
    let numbers = reals(path, what, list)?;
    Ok(numbers.into_iter().map(|x| x as f32).collect())
}

fn reals(path: &Path, what: &str, list: &Value) -> Result<Vec<f64>> {
    let what = || crate::text::truncate_width(&crate::text::one_line(what), 40);
    let list = list
        .as_array()
        .ok_or_else(|| refuse(path, format!("{} is no list of numbers", what())))?;
    if list.len() > MAX_WIDTH {
        return Err(refuse(
            path,
            format!("{} has {} numbers", what(), list.len()),
        ));
    }
    let number = |(i, value): (usize, &Value)| {
        let number = value.as_f64().filter(|x| (*x as f32).is_finite());
        number.ok_or_else(|| {
            refuse(
                path,
                format!("{}: entry {} is no finite number", what(), i + 1),
            )
        })
    };
    list.iter().enumerate().map(number).collect()
}
