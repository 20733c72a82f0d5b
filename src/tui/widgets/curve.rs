//! Curves in braille dots: eight dots a cell, several series over one another.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::Widget;

/// Bits of the braille block by `[column][row]` within a cell.
const DOTS: [[u32; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];

/// One line of a [`Curve`]: values at equal distances from left to right.
#[derive(Clone, Debug)]
pub struct Series<'a> {
    /// Values; a gap where one is unknown.
    pub values: &'a [Option<f32>],
    /// How its dots look.
    pub style: Style,
    /// Leave out every other pair of dots, so that it stays apart without colour.
    pub dotted: bool,
}

/// Series over the same axes; later ones lie on top.
#[derive(Clone, Debug)]
pub struct Curve<'a> {
    /// What to draw.
    pub series: Vec<Series<'a>>,
    /// Values at the bottom and at the top.
    pub range: (f32, f32),
    /// A vertical line at this index of the series.
    pub mark: Option<(usize, Style)>,
}

impl Curve<'_> {
    /// The dot column of index `i` out of `n`.
    fn column(i: usize, n: usize, dots: usize) -> usize {
        if n < 2 {
            return dots / 2;
        }
        (i * (dots - 1) + (n - 1) / 2) / (n - 1)
    }
}

impl Widget for Curve<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let area = area.intersection(buf.area);
        let (columns, rows) = (2 * usize::from(area.width), 4 * usize::from(area.height));
        if columns == 0 || rows == 0 {
            return;
        }
        let mut canvas = Canvas {
            bits: vec![0; usize::from(area.width) * usize::from(area.height)],
            styles: vec![Style::new(); usize::from(area.width) * usize::from(area.height)],
            width: usize::from(area.width),
        };
        let count = self
            .series
            .iter()
            .map(|s| s.values.len())
            .max()
            .unwrap_or(0);
        if let Some((index, style)) = self.mark.filter(|(i, _)| *i < count) {
            let x = Self::column(index, count, columns);
            for y in (0..rows).step_by(2) {
                canvas.dot(x, y, style);
            }
        }
        let (low, high) = self.range;
        let span = (high - low).max(f32::MIN_POSITIVE);
        for series in &self.series {
            let n = series.values.len();
            let point = |i: usize| -> Option<(usize, usize)> {
                let value = series.values[i].filter(|v| v.is_finite())?;
                let t = ((value - low) / span).clamp(0.0, 1.0);
                let y = ((1.0 - t) * (rows - 1) as f32).round() as usize;
                Some((Self::column(i, n, columns), y))
            };
            let mut previous: Option<(usize, usize)> = None;
            for here in (0..n).map(point) {
                match (previous, here) {
                    (Some(from), Some(to)) => canvas.line(from, to, series),
                    (None, Some((x, y))) => canvas.dot(x, y, series.style),
                    _ => {}
                }
                previous = here;
            }
        }
        for (i, bits) in canvas.bits.iter().enumerate().filter(|(_, b)| **b != 0) {
            let (x, y) = (i % canvas.width, i / canvas.width);
            let symbol = char::from_u32(0x2800 + bits).unwrap_or('·');
            if let Some(cell) = buf.cell_mut((area.x + x as u16, area.y + y as u16)) {
                cell.set_char(symbol).set_style(canvas.styles[i]);
            }
        }
    }
}

struct Canvas {
    bits: Vec<u32>,
    styles: Vec<Style>,
    width: usize,
}

impl Canvas {
    fn dot(&mut self, x: usize, y: usize, style: Style) {
        let cell = y / 4 * self.width + x / 2;
        if let (Some(bits), Some(slot)) = (self.bits.get_mut(cell), self.styles.get_mut(cell)) {
            *bits |= DOTS[x % 2][y % 4];
            *slot = style;
        }
    }

    fn line(&mut self, from: (usize, usize), to: (usize, usize), series: &Series<'_>) {
        let (dx, dy) = (to.0 as f32 - from.0 as f32, to.1 as f32 - from.1 as f32);
        let steps = dx.abs().max(dy.abs()).max(1.0) as usize;
        for i in 0..=steps {
            let t = i as f32 / steps as f32;
            let x = (from.0 as f32 + t * dx).round() as usize;
            let y = (from.1 as f32 + t * dy).round() as usize;
            if !series.dotted || x % 4 < 2 {
                self.dot(x, y, series.style);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(values: &[Option<f32>], dotted: bool) -> Vec<String> {
        let area = Rect::new(0, 0, 4, 2);
        let mut buf = Buffer::empty(area);
        Curve {
            series: vec![Series {
                values,
                style: Style::new(),
                dotted,
            }],
            range: (0.0, 1.0),
            mark: None,
        }
        .render(area, &mut buf);
        (0..2)
            .map(|y| (0..4).map(|x| buf[(x, y)].symbol().to_owned()).collect())
            .collect()
    }

    #[test]
    fn a_rising_line_goes_from_the_lower_left_to_the_upper_right() {
        assert_eq!(draw(&[Some(0.0), Some(1.0)], false), ["  ⡠⠊", "⡠⠊  "]);
        assert_eq!(draw(&[Some(1.0), Some(1.0)], false), ["⠉⠉⠉⠉", "    "]);
        assert_eq!(draw(&[Some(1.0), Some(1.0)], true), ["⠉ ⠉ ", "    "]);
    }

    #[test]
    fn gaps_and_infinities_leave_no_dots() {
        let gap = draw(&[Some(0.0), None, Some(0.0)], false);
        assert_eq!(gap, ["    ", "⡀  ⢀"]);
        let infinite = draw(&[Some(f32::INFINITY), Some(f32::NAN)], false);
        assert_eq!(infinite, ["    ", "    "]);
    }
}
