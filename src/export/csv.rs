//! The tables of a run: RFC 4180, UTF-8, LF, shortest round-trip numbers, empty where a value does not apply.

use crate::text;
use crate::trace::{Attention, Metric, Record};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};

/// Metrics are stored as f32; beyond this, plain decimal notation only adds zeros.
const PLAIN: std::ops::Range<f32> = 1e-5..1e16;

/// Append a number with the fewest digits that read back as the same f32. NaN and infinities are not applicable and
/// append nothing; whole numbers have no decimal point.
pub fn number(value: f32, out: &mut String) {
    if !value.is_finite() {
        return;
    }
    // Writing to a `String` cannot fail. Zero of either sign is `0`.
    let _ = if value == 0.0 {
        write!(out, "0")
    } else if PLAIN.contains(&value.abs()) {
        write!(out, "{value}")
    } else {
        write!(out, "{value:e}")
    };
}

/// A `csv` writer with a scratch buffer for numbers.
pub(super) struct Table<W: Write> {
    writer: csv::Writer<W>,
    scratch: String,
}

impl<W: Write> Table<W> {
    pub(super) fn new(out: W, header: &[&str]) -> io::Result<Self> {
        let mut writer = csv::WriterBuilder::new()
            .terminator(csv::Terminator::Any(b'\n'))
            .from_writer(out);
        writer.write_record(header)?;
        Ok(Self {
            writer,
            scratch: String::new(),
        })
    }

    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        Ok(self.writer.write_field(text)?)
    }

    pub(super) fn shown(&mut self, value: impl std::fmt::Display) -> io::Result<()> {
        self.scratch.clear();
        let _ = write!(self.scratch, "{value}");
        Ok(self.writer.write_field(&self.scratch)?)
    }

    pub(super) fn number(&mut self, value: Option<f32>) -> io::Result<()> {
        self.scratch.clear();
        if let Some(value) = value {
            number(value, &mut self.scratch);
        }
        Ok(self.writer.write_field(&self.scratch)?)
    }

    pub(super) fn end_row(&mut self) -> io::Result<()> {
        Ok(self.writer.write_record(None::<&[u8]>)?)
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// A text cell: control bytes escaped, formulas guarded.
pub(super) fn cell(bytes: &[u8]) -> String {
    text::guard_formula(&text::csv_token(bytes))
}

/// The texts of candidates: few distinct ones fill many cells.
struct Texts<'a> {
    text_of: &'a dyn Fn(u32) -> Vec<u8>,
    seen: HashMap<u32, String>,
}

impl Texts<'_> {
    fn get(&mut self, id: u32) -> &str {
        let text_of = self.text_of;
        self.seen.entry(id).or_insert_with(|| cell(&text_of(id)))
    }
}

/// `cells.csv`: one row per branch, read position and layer (0 = embedding … L). `text_of` gives a token's bytes.
///
/// # Errors
/// Whatever `out` reports.
pub fn cells_csv(
    out: impl Write,
    record: &Record,
    text_of: &dyn Fn(u32) -> Vec<u8>,
) -> io::Result<()> {
    cells_of(out, record, &|_, id| text_of(id))
}

/// The same of branches with tokenizers of their own: `text_of` gives the bytes of a token of the branch of this index.
pub(super) fn cells_of(
    out: impl Write,
    record: &Record,
    text_of: &dyn Fn(usize, u32) -> Vec<u8>,
) -> io::Result<()> {
    let schema = &record.schema;
    let mut header: Vec<String> = ["branch", "position", "layer", "token_id", "token", "kind"]
        .map(str::to_owned)
        .to_vec();
    header.extend(schema.metrics().iter().map(|m| m.name.clone()));
    for k in 1..=schema.top() {
        header.extend([
            format!("top{k}_id"),
            format!("top{k}"),
            format!("top{k}_prob"),
        ]);
    }
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let mut table = Table::new(out, &header)?;

    for (i, (branch, grid)) in record.branches.iter().enumerate() {
        let text_of = |id: u32| text_of(i, id);
        let mut texts = Texts {
            text_of: &text_of,
            seen: HashMap::new(),
        };
        let branch = cell(branch.as_bytes());
        for (position, token) in grid.tokens().iter().enumerate() {
            if grid.cells(position).is_none() {
                continue;
            }
            let token_text = cell(&token.bytes);
            for layer in 0..grid.states() {
                table.text(&branch)?;
                table.shown(position)?;
                table.shown(layer)?;
                table.shown(token.id)?;
                table.text(&token_text)?;
                table.text(token.kind.label())?;
                for metric in 0..schema.len() {
                    table.number(grid.value(layer, position, Metric(metric)))?;
                }
                let top = grid.top(layer, position);
                for k in 0..schema.top() {
                    match top.get(k) {
                        Some(candidate) => {
                            table.shown(candidate.id)?;
                            table.text(texts.get(candidate.id))?;
                            table.number(Some(candidate.prob))?;
                        }
                        None => {
                            for _ in 0..3 {
                                table.text("")?;
                            }
                        }
                    }
                }
                table.end_row()?;
            }
        }
    }
    table.finish()
}

/// `tokens.csv`: one row per branch and token. `surprisal` and `decided_layer` are read where the token was predicted: one
/// position earlier, or at its own position where the model sees both sides.
///
/// # Errors
/// Whatever `out` reports.
pub fn tokens_csv(out: impl Write, record: &Record) -> io::Result<()> {
    let mut table = Table::new(
        out,
        &[
            "branch",
            "position",
            "token_id",
            "token",
            "bytes_hex",
            "kind",
            "surprisal",
            "decided_layer",
            "seconds",
        ],
    )?;
    let surprisal = record.schema.find("surprisal");
    for (branch, grid) in &record.branches {
        let branch = cell(branch.as_bytes());
        for (position, token) in grid.tokens().iter().enumerate() {
            table.text(&branch)?;
            table.shown(position)?;
            table.shown(token.id)?;
            table.text(&cell(&token.bytes))?;
            table.text(&text::hex(&token.bytes))?;
            table.text(token.kind.label())?;
            table.number(surprisal.and_then(|metric| grid.predicted_by(position, metric)))?;
            match grid.decided_layer(position) {
                Some(layer) => table.shown(layer)?,
                None => table.text("")?,
            }
            if token.seconds.is_finite() {
                // Below a microsecond the clock says nothing.
                table.shown((token.seconds * 1e6).round() / 1e6)?;
            } else {
                table.text("")?;
            }
            table.end_row()?;
        }
    }
    table.finish()
}

/// Run `row` for every position that has attention statistics.
fn each_attention(
    record: &Record,
    mut row: impl FnMut(&str, usize, &Attention) -> io::Result<()>,
) -> io::Result<()> {
    for (branch, grid) in &record.branches {
        let branch = cell(branch.as_bytes());
        for position in 0..grid.len() {
            if let Some(attention) = grid.cells(position).and_then(|c| c.attention.as_ref()) {
                row(&branch, position, attention)?;
            }
        }
    }
    Ok(())
}

/// `attention.csv`: one row per branch, position, layer (1 … L) and head; empty for blocks without attention.
///
/// # Errors
/// Whatever `out` reports.
pub fn attention_csv(out: impl Write, record: &Record) -> io::Result<()> {
    let mut table = Table::new(
        out,
        &[
            "branch",
            "position",
            "layer",
            "head",
            "attn_entropy",
            "attn_varentropy",
            "attn_entropy_norm",
        ],
    )?;
    each_attention(record, |branch, position, attention| {
        for block in 0..attention.mean.len() {
            for head in 0..attention.heads {
                let at = block * attention.heads + head;
                table.text(branch)?;
                table.shown(position)?;
                table.shown(block + 1)?;
                table.shown(head)?;
                table.number(attention.entropy.get(at).copied())?;
                table.number(attention.varentropy.get(at).copied())?;
                table.number(attention.entropy_norm.get(at).copied())?;
                table.end_row()?;
            }
        }
        Ok(())
    })?;
    table.finish()
}

/// `attention_layers.csv`: one row per branch, position and layer (1 … L), over the heads of the layer.
///
/// # Errors
/// Whatever `out` reports.
pub fn attention_layers_csv(out: impl Write, record: &Record) -> io::Result<()> {
    let mut table = Table::new(
        out,
        &[
            "branch",
            "position",
            "layer",
            "attn_entropy_mean",
            "attn_head_var",
            "attn_disagreement",
        ],
    )?;
    each_attention(record, |branch, position, attention| {
        for block in 0..attention.mean.len() {
            table.text(branch)?;
            table.shown(position)?;
            table.shown(block + 1)?;
            table.number(attention.mean.get(block).copied())?;
            table.number(attention.head_var.get(block).copied())?;
            table.number(attention.disagreement.get(block).copied())?;
            table.end_row()?;
        }
        Ok(())
    })?;
    table.finish()
}
