//! `run --json`: one record per token, printed as soon as everything about its position is known.

use super::output::Output;
use crate::error::{Error, Result};
use crate::model::{ModelCard, Tokenizer};
use crate::text;
use crate::trace::{Aim, Grid, Metric, Record, Schema};
use serde::Serialize;
use serde_json::{Map, Value};
use std::sync::Arc;

/// One line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    branch: &'a str,
    position: usize,
    token_id: u32,
    token: String,
    bytes_hex: String,
    kind: &'static str,
    /// Whether it is a gap that the model fills; left out where the model fills none.
    #[serde(skip_serializing_if = "Option::is_none")]
    mask: Option<bool>,
    /// Of this token, read where it was predicted, as in `tokens.csv`.
    surprisal: Option<f32>,
    decided_layer: Option<u32>,
    /// What the states at this position say, as in `cells.csv`: per metric an array from layer 0 (embedding) to L,
    /// `null` where it does not apply; `null` as a whole where the position was not read.
    layers: Option<Map<String, Value>>,
    /// Per layer the best candidates, best first.
    top: Option<Vec<Vec<Candidate>>>,
}

#[derive(Debug, Serialize)]
struct Candidate {
    id: u32,
    token: String,
    prob: f32,
}

/// Prints the lines of the first branch of a growing record.
#[derive(Debug)]
pub struct JsonLines {
    tokenizer: Arc<Tokenizer>,
    scrubbed: bool,
    next: usize,
}

impl JsonLines {
    /// `scrubbed` for a terminal.
    #[must_use]
    pub fn new(tokenizer: Arc<Tokenizer>, scrubbed: bool) -> Self {
        Self {
            tokenizer,
            scrubbed,
            next: 0,
        }
    }

    /// Print the positions that are complete: their cells are there, and the token they speak about.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn print_ready(&mut self, record: &Record, output: &mut Output) -> Result<()> {
        let Some((branch, grid)) = record.branches.first() else {
            return Ok(());
        };
        let before = self.next;
        while grid.aim().target(self.next) < grid.len() && grid.cells(self.next).is_some() {
            self.print(branch, grid, record, output)?;
        }
        if self.next > before {
            output.flush()?;
        }
        Ok(())
    }

    /// Print what is left at the end of a run.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn print_rest(&mut self, record: &Record, output: &mut Output) -> Result<()> {
        if let Some((branch, grid)) = record.branches.first() {
            while self.next < grid.len() {
                self.print(branch, grid, record, output)?;
            }
        }
        Ok(())
    }

    fn print(
        &mut self,
        branch: &str,
        grid: &Grid,
        record: &Record,
        output: &mut Output,
    ) -> Result<()> {
        let line = self.line(branch, grid, &record.schema, &record.model, self.next);
        self.next += 1;
        let json = serde_json::to_string(&line)
            .map_err(|e| Error::failed(format!("a record is no JSON: {e}"), "This is a bug."))?;
        output.line(&json)
    }

    fn line<'a>(
        &self,
        branch: &'a str,
        grid: &Grid,
        schema: &Schema,
        card: &ModelCard,
        position: usize,
    ) -> Line<'a> {
        let token = &grid.tokens()[position];
        let read = grid.cells(position).is_some();
        let finite = |v: f32| v.is_finite().then_some(v);
        let layers = read.then(|| {
            schema
                .metrics()
                .iter()
                .enumerate()
                .map(|(metric, spec)| {
                    let profile: Vec<Value> = grid
                        .profile(position, Metric(metric))
                        .into_iter()
                        .map(|value| value.and_then(finite).map_or(Value::Null, number))
                        .collect();
                    (spec.name.clone(), Value::Array(profile))
                })
                .collect()
        });
        let top = read.then(|| {
            (0..grid.states())
                .map(|layer| {
                    grid.top(layer, position)
                        .iter()
                        .map(|candidate| Candidate {
                            id: candidate.id,
                            token: self.text(&self.tokenizer.bytes(candidate.id)),
                            prob: candidate.prob,
                        })
                        .collect()
                })
                .collect()
        });
        Line {
            branch,
            position,
            token_id: token.id,
            token: self.text(&token.bytes),
            bytes_hex: text::hex(&token.bytes),
            kind: token.kind.label(),
            mask: (grid.aim() == Aim::Itself).then(|| card.is_mask(token.id)),
            surprisal: schema
                .find("surprisal")
                .and_then(|metric| grid.predicted_by(position, metric))
                .and_then(finite),
            decided_layer: grid.decided_layer(position),
            layers,
            top,
        }
    }

    /// The text as in the tables, and harmless where somebody looks at it.
    fn text(&self, bytes: &[u8]) -> String {
        let token = text::csv_token(bytes);
        if self.scrubbed {
            text::scrub(&token)
        } else {
            token
        }
    }
}

/// A number as short as in the tables: through the digits of the f32, not those of its f64.
fn number(value: f32) -> Value {
    if value == value.trunc() && value.abs() < 1e15 {
        return Value::from(value as i64);
    }
    value
        .to_string()
        .parse::<f64>()
        .ok()
        .and_then(serde_json::Number::from_f64)
        .map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_the_digits_of_the_tables() {
        for (value, shown) in [
            (0.1f32, "0.1"),
            (3.0, "3"),
            (-0.0, "0"),
            (1.5e-7, "1.5e-7"),
            (16_777_216.0, "16777216"),
            (f32::NAN, "null"),
        ] {
            assert_eq!(number(value).to_string(), shown);
        }
    }
}
