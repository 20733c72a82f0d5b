//! Small bars: shares, rows of values, a strip of columns, and the scale of a colour ramp.

use crate::tui::colour::{Depth, STEPS};
use crate::tui::theme::Theme;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::text::Span;

const LEFT: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
const LOWER: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A horizontal bar of `share` (0 to 1) in `width` columns, exact to an eighth of a column.
#[must_use]
pub fn bar(share: f32, width: usize) -> String {
    if share.is_nan() {
        return String::new();
    }
    let eighths = (share.clamp(0.0, 1.0) * (8 * width) as f32).round() as usize;
    let mut out: String = std::iter::repeat_n('█', eighths / 8).collect();
    if !eighths.is_multiple_of(8) {
        out.push(LEFT[eighths % 8]);
    }
    out
}

/// Values as at most `width` bins, each the largest of its values (NaN where none is known).
#[must_use]
pub fn bins(values: &[f32], width: usize) -> Vec<f32> {
    let count = values.len().min(width);
    (0..count)
        .map(|i| {
            let bin = &values[i * values.len() / count..(i + 1) * values.len() / count];
            bin.iter().copied().fold(f32::NAN, f32::max)
        })
        .collect()
}

/// One column of up to `area.height` rows at `x`: a value between 0 and 1 drawn upward.
pub fn columns_strip(buf: &mut Buffer, area: Rect, x: u16, width: u16, share: f32, style: Style) {
    let eighths = (share.clamp(0.0, 1.0) * f32::from(8 * area.height)).round() as usize;
    for row in 0..area.height {
        let below = 8 * usize::from(area.height - 1 - row);
        let level = eighths.saturating_sub(below).min(8);
        // A known value always leaves a trace on the ground line.
        let level = if below == 0 { level.max(1) } else { level };
        for x in x..x.saturating_add(width).min(area.right()) {
            let Some(cell) = buf.cell_mut((x, area.y + row)) else {
                continue;
            };
            match style.fg {
                // Nothing to draw leaves the cell as it is, a full one is its background: both save bytes.
                _ if level == 0 => {}
                Some(colour) if level == 8 && colour != Color::Reset => {
                    cell.set_char(' ').set_fg(Color::Reset).set_bg(colour);
                }
                _ => {
                    cell.set_char(LOWER[level]).set_style(style);
                }
            }
        }
    }
}

/// The ramp itself, `columns` a step, as spans.
#[must_use]
pub fn colour_bar(theme: &Theme, columns: usize) -> Vec<Span<'static>> {
    (0..STEPS as u8)
        .map(|step| {
            let shade = theme.ramp.shade(step);
            let text: String = std::iter::repeat_n(shade.glyph, columns).collect();
            let style = Style::new().bg(shade.bg).fg(shade.glyph_ink);
            match theme.depth {
                Depth::Mono => Span::styled(text, theme.base),
                _ => Span::styled(text, style),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_exact_to_an_eighth() {
        assert_eq!(bar(1.0, 4), "████");
        assert_eq!(bar(0.5, 4), "██");
        assert_eq!(bar(0.03, 4), "▏");
        assert_eq!(bar(0.0, 4), "");
        assert_eq!(bar(f32::NAN, 4), "");
        assert_eq!(bar(7.0, 2), "██");
    }

    #[test]
    fn bins_keep_peaks_and_unknown_values() {
        assert_eq!(bins(&[0.0, 0.0, 1.0, 0.0], 2), [0.0, 1.0]);
        assert!(bins(&[f32::NAN], 3)[0].is_nan());
        assert_eq!(bins(&[0.5], 3), [0.5]);
        assert!(bins(&[], 3).is_empty() && bins(&[1.0], 0).is_empty());
    }

    #[test]
    fn columns_grow_upward_by_eighths_and_zero_leaves_a_trace() {
        let area = Rect::new(0, 0, 3, 2);
        let mut buf = Buffer::empty(area);
        for (x, share) in [(0, 0.0), (1, 0.5), (2, 0.75)] {
            columns_strip(&mut buf, area, x, 1, share, Style::new());
        }
        let row = |y| (0..3).map(|x| buf[(x, y)].symbol()).collect::<String>();
        assert_eq!([row(0), row(1)], ["  ▄", "▁██"]);
    }
}
