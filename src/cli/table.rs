//! The plain-text tables of `run --table`: tokens downward, then layers downward; and what a masked model fills in.

use crate::model::Tokenizer;
use crate::text;
use crate::trace::{self, Record};
use unicode_width::UnicodeWidthStr;

/// The metrics of the token table and the summary, by column name.
pub const SUMMARY: [&str; 4] = ["entropy", "varentropy", "prob_margin", "surprisal"];

/// The metrics of the layer table, by column name.
const PROFILE: [&str; 7] = [
    "entropy",
    "varentropy",
    "prob_margin",
    "surprisal",
    "kl_final",
    "hoyer",
    "effective_rank_sq",
];

/// Widest token text, columns.
const TOKEN_WIDTH: usize = 18;

/// What stands where there is no value.
const NOTHING: &str = "–";

/// For each gap what the last layer would put there, how sure it is, and from which layer on.
pub fn predictions(record: &Record, tokenizer: &Tokenizer) -> String {
    let mut out = String::new();
    let Some((_, grid)) = record.branches.first() else {
        return out;
    };
    let last = grid.states().saturating_sub(1);
    let entropy = record.schema.find("entropy");
    let gaps = grid.masks(&record.model);
    for (i, position) in gaps.iter().enumerate() {
        let entropy = entropy.and_then(|metric| grid.value(last, *position, metric));
        let entropy = entropy.map_or("n/a".to_owned(), |h| format!("{h:.3} nats"));
        let decided = grid.decided_layer(*position);
        let decided = decided.map_or("n/a".to_owned(), |layer| format!("layer {layer} of {last}"));
        if i > 0 {
            out.push('\n');
        }
        out.push_str(&format!(
            "{} {} of {}, position {position}: entropy {entropy}, decided at {decided}\n",
            record.model.mask_text(),
            i + 1,
            gaps.len(),
        ));
        let rows: Vec<Vec<String>> = grid
            .top(last, *position)
            .iter()
            .map(|candidate| {
                let word = text::visible(&tokenizer.display(candidate.id));
                vec![
                    String::new(),
                    text::truncate_width(&word, TOKEN_WIDTH),
                    format!("{:.1} %", 100.0 * candidate.prob),
                ]
            })
            .collect();
        out.push_str(&aligned(&rows, &[1]));
    }
    out
}

/// One line per token: the numbers of the last layer where it was predicted, one position earlier (or at its own, where
/// the model sees both sides).
pub fn tokens(record: &Record) -> String {
    let mut out = String::new();
    for (branch, grid) in &record.branches {
        title(&mut out, record, branch);
        let mut rows = vec![
            ["position", "token", "kind"]
                .into_iter()
                .chain(SUMMARY)
                .chain(["decided_layer"])
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        ];
        for (position, token) in grid.tokens().iter().enumerate() {
            let shown = text::visible_bytes(&token.bytes);
            let mut row = vec![
                position.to_string(),
                text::truncate_width(&shown, TOKEN_WIDTH),
                token.kind.label().to_owned(),
            ];
            row.extend(SUMMARY.iter().map(|name| {
                let metric = record.schema.find(name);
                number(metric.and_then(|metric| grid.predicted_by(position, metric)))
            }));
            row.push(
                grid.decided_layer(position)
                    .map_or_else(|| NOTHING.to_owned(), |layer| layer.to_string()),
            );
            rows.push(row);
        }
        out.push_str(&aligned(&rows, &[1, 2]));
    }
    out
}

/// One line per layer: means over the positions that [`trace::summarised`] chooses.
pub fn layers(record: &Record) -> String {
    let mut out = String::new();
    for (branch, grid) in &record.branches {
        title(&mut out, record, branch);
        let (positions, which) = trace::summarised([grid], &record.model);
        out.push_str(&format!(
            "mean over {} {which} positions; layer 0 is the embedding\n",
            positions.len()
        ));
        let columns: Vec<_> = PROFILE
            .iter()
            .filter_map(|name| {
                let profile =
                    grid.mean_profile(positions.iter().copied(), record.schema.find(name)?);
                Some((*name, profile))
            })
            .collect();
        let mut rows = vec![
            std::iter::once("layer")
                .chain(columns.iter().map(|(name, _)| *name))
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        ];
        for layer in 0..grid.states() {
            let mut row = vec![layer.to_string()];
            row.extend(
                columns
                    .iter()
                    .map(|(_, profile)| number(profile[layer].0.map(|mean| mean as f32))),
            );
            rows.push(row);
        }
        out.push_str(&aligned(&rows, &[]));
    }
    out
}

fn title(out: &mut String, record: &Record, branch: &str) {
    if record.branches.len() > 1 {
        out.push_str(&format!("{}\n", text::one_line(branch)));
    }
}

fn number(value: Option<f32>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), |value| format!("{value:.3}"))
}

/// Columns two spaces apart; `left` names those that are aligned to the left.
pub fn aligned(rows: &[Vec<String>], left: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.width())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[column] - cell.width());
            if column > 0 {
                line.push_str("  ");
            }
            if left.contains(&column) {
                line.push_str(cell);
                line.push_str(&padding);
            } else {
                line.push_str(&padding);
                line.push_str(cell);
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_their_width() {
        let rows = [
            vec!["layer".to_owned(), "token".to_owned()],
            vec!["12".to_owned(), "日本".to_owned()],
            vec!["3".to_owned(), "e\u{301}".to_owned()],
        ];
        assert_eq!(
            aligned(&rows, &[1]),
            "layer  token\n   12  日本\n    3  e\u{301}\n"
        );
        assert_eq!(aligned(&[], &[]), "");
    }
}
