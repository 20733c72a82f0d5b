//! The layer × token map, painted cell by cell straight into the buffer.
//!
//! ```text
//! 12 ██████▐▌██      layers upward, the last one always on top; `▐▌` frames the cursor
//! 11 ████████▁▁      `▁` from this cell upward the top word is the final one
//! ⋮                  layers left out, when there are more than rows
//!  1 ████████··      `··` not read yet
//!  0 ╱╱██████··      `╱╱` not applicable
//! ```

use crate::tui::colour::{Depth, Ramp, Shade};
use crate::tui::show;
use crate::tui::theme::Theme;
use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::widgets::Widget;

/// How large a cell is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zoom {
    /// One column a token and two layers a row.
    Halves,
    /// Two columns and a row, more where there is room.
    #[default]
    Cells,
    /// Wide enough for the layer's top word.
    Words,
}

/// What is known of one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datum {
    /// The position has not been read yet.
    Unread,
    /// Not applicable or undefined.
    Absent,
    /// A value, as a step of the ramp.
    Step(u8),
}

/// Where cells lie on the screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Geometry {
    /// The cells alone, without layer numbers.
    pub area: Rect,
    /// Columns of a cell.
    pub width: u16,
    /// Rows of a cell; 1 where two layers share a row.
    pub height: u16,
    /// Whether two layers share a row.
    pub halves: bool,
    /// The first token shown.
    pub left: usize,
    /// How many tokens fit.
    pub columns: usize,
    /// The layers shown, from top to bottom.
    pub layers: Vec<usize>,
}

impl Geometry {
    /// The area of a cell; with halves the whole row that it shares.
    #[must_use]
    pub fn cell(&self, layer: usize, position: usize) -> Option<Rect> {
        let column = position
            .checked_sub(self.left)
            .filter(|c| *c < self.columns)?;
        let index = self.layers.iter().position(|l| *l == layer)?;
        let row = if self.halves { index / 2 } else { index };
        Some(Rect::new(
            self.area.x + column as u16 * self.width,
            self.area.y + row as u16 * self.height,
            self.width,
            self.height,
        ))
    }

    /// The layer and position under a point of the screen.
    #[must_use]
    pub fn at(&self, x: u16, y: u16) -> Option<(usize, usize)> {
        if !self.area.contains((x, y).into()) || self.width == 0 || self.height == 0 {
            return None;
        }
        let column = usize::from((x - self.area.x) / self.width);
        let row = usize::from((y - self.area.y) / self.height);
        let index = if self.halves { 2 * row } else { row };
        let layer = *self.layers.get(index)?;
        (column < self.columns).then_some((layer, self.left + column))
    }
}

/// The map of one metric.
#[derive(Debug)]
pub struct HeatMap<'a> {
    /// Where the cells are.
    pub geometry: &'a Geometry,
    /// Row by row for `geometry.layers`, each with `tokens` entries from `geometry.left` on.
    pub data: &'a [Datum],
    /// How many tokens there are data for.
    pub tokens: usize,
    /// Words in the cells, in the order of `data`, with a second line for cells of two rows; empty for none.
    pub words: &'a [(String, String)],
    /// The layer that decides each token; empty for none.
    pub decided: &'a [Option<usize>],
    /// Layer and position of the cursor.
    pub cursor: Option<(usize, usize)>,
    /// Colours of the values.
    pub ramp: &'a Ramp,
    /// All other colours.
    pub theme: &'a Theme,
}

impl HeatMap<'_> {
    fn datum(&self, row: usize, column: usize) -> Datum {
        self.data
            .get(row * self.tokens + column)
            .copied()
            .unwrap_or(Datum::Absent)
    }

    fn paint_cell(&self, buf: &mut Buffer, row: usize, column: usize) {
        let g = self.geometry;
        let (layer, position) = (g.layers[row], g.left + column);
        let Some(rect) = g.cell(layer, position) else {
            return;
        };
        let datum = self.datum(row, column);
        let style = self.style(datum);
        for y in rect.top()..rect.bottom() {
            for x in rect.left()..rect.right() {
                if let Some(cell) = buf.cell_mut((x, y)) {
                    cell.set_char(self.fill(datum)).set_style(style);
                }
            }
        }
        let decided = self.decided.get(column).copied().flatten() == Some(layer);
        let word = self.words.get(row * self.tokens + column);
        let mono = self.theme.depth == Depth::Mono;
        if let (Some((word, note)), Datum::Step(step)) = (word, datum) {
            let shade = self.ramp.shade(step);
            let mut style = Style::new().bg(shade.bg).fg(shade.ink);
            if decided {
                style = style.add_modifier(Modifier::UNDERLINED);
            }
            // Without colour the value is the glyph that stays visible behind the word.
            let room = usize::from(rect.width).saturating_sub(if mono { 3 } else { 2 });
            for (text, y) in [word, note].into_iter().zip(rect.top()..rect.bottom()) {
                // The line under the deciding cell belongs to its last row.
                let style = if y + 1 == rect.bottom() {
                    style
                } else {
                    style.remove_modifier(Modifier::UNDERLINED)
                };
                for x in rect.left()..rect.right() {
                    if let Some(cell) = buf.cell_mut((x, y)).filter(|_| !mono) {
                        cell.set_char(' ').set_style(style);
                    }
                }
                let text = if mono {
                    show::pad(text, room)
                } else {
                    show::cut(text, room)
                };
                buf.set_stringn(rect.x + 1, y, text, room, style);
            }
        } else if decided && matches!(datum, Datum::Step(_)) {
            for x in rect.left()..rect.right() {
                if let Some(cell) = buf.cell_mut((x, rect.bottom().saturating_sub(1))) {
                    if mono {
                        cell.set_style(Style::new().add_modifier(Modifier::UNDERLINED));
                    } else {
                        cell.set_char('▁').set_fg(self.ink(datum));
                    }
                }
            }
        }
        if self.cursor == Some((layer, position)) {
            self.frame(buf, rect);
        }
    }

    /// Thin bars at both sides: the cell's own colour stays visible between them.
    fn frame(&self, buf: &mut Buffer, rect: Rect) {
        let (left, right) = match self.theme.depth {
            Depth::Mono => ('[', ']'),
            _ => ('▌', '▐'),
        };
        for y in rect.top()..rect.bottom() {
            for (x, symbol) in [(rect.left(), left), (rect.right().saturating_sub(1), right)] {
                if let Some(cell) = buf.cell_mut((x, y)) {
                    cell.set_char(symbol).set_style(self.theme.frame);
                }
            }
        }
    }

    fn paint_halves(&self, buf: &mut Buffer, row: usize, column: usize) {
        let g = self.geometry;
        let (upper, position) = (g.layers[row], g.left + column);
        let lower = g.layers.get(row + 1).copied();
        let Some(rect) = g.cell(upper, position) else {
            return;
        };
        let colour = |layer: usize, row: usize| {
            let marked = self.cursor == Some((layer, position));
            match self.datum(row, column) {
                _ if marked => self.theme.frame.fg,
                Datum::Step(step) => Some(self.ramp.shade(step).bg),
                Datum::Absent => self.theme.faint.fg,
                Datum::Unread => None,
            }
        };
        let top = colour(upper, row);
        let bottom = lower.and_then(|layer| colour(layer, row + 1));
        for x in rect.left()..rect.right() {
            if let Some(cell) = buf.cell_mut((x, rect.y)) {
                paint_two(cell, top, bottom, self.theme);
            }
        }
    }

    fn style(&self, datum: Datum) -> Style {
        match datum {
            Datum::Step(step) => {
                let Shade {
                    bg,
                    glyph_ink,
                    glyph,
                    ..
                } = self.ramp.shade(step);
                // A colour that nothing shows would still be sent: half the bytes of a map.
                let fg = if glyph == ' ' {
                    Color::Reset
                } else {
                    glyph_ink
                };
                Style::new().bg(bg).fg(fg)
            }
            Datum::Unread | Datum::Absent => self.theme.faint,
        }
    }

    fn ink(&self, datum: Datum) -> Color {
        match datum {
            Datum::Step(step) => self.ramp.shade(step).ink,
            Datum::Unread | Datum::Absent => Color::Reset,
        }
    }

    fn fill(&self, datum: Datum) -> char {
        match (datum, self.theme.depth) {
            (Datum::Step(step), _) => self.ramp.shade(step).glyph,
            (Datum::Unread, Depth::Mono) => '_',
            (Datum::Unread, _) => '·',
            (Datum::Absent, Depth::Mono) => '/',
            (Datum::Absent, _) => '╱',
        }
    }
}

/// Two half cells in one: `▀` with the upper colour on the lower one.
fn paint_two(cell: &mut Cell, top: Option<Color>, bottom: Option<Color>, theme: &Theme) {
    match (top, bottom) {
        (Some(top), Some(bottom)) => cell.set_char('▀').set_fg(top).set_bg(bottom),
        (Some(top), None) => cell.set_char('▀').set_fg(top),
        (None, Some(bottom)) => cell.set_char('▄').set_fg(bottom),
        (None, None) => cell.set_char('·').set_style(theme.faint),
    };
}

impl Widget for HeatMap<'_> {
    fn render(self, _area: Rect, buf: &mut Buffer) {
        let columns = self.tokens.min(self.geometry.columns);
        let rows = self.geometry.layers.len();
        if self.geometry.halves {
            for row in (0..rows).step_by(2) {
                for column in 0..columns {
                    self.paint_halves(buf, row, column);
                }
            }
        } else {
            for row in 0..rows {
                for column in 0..columns {
                    self.paint_cell(buf, row, column);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::theme::ThemeFile;

    fn theme(depth: Depth) -> Theme {
        ThemeFile::all(None).0[0].fit(depth)
    }

    fn geometry(halves: bool) -> Geometry {
        Geometry {
            area: Rect::new(3, 0, 8, 2),
            width: if halves { 1 } else { 2 },
            height: 1,
            halves,
            left: 5,
            columns: 4,
            layers: if halves { vec![3, 2, 1, 0] } else { vec![1, 0] },
        }
    }

    fn draw(halves: bool, theme: &Theme, data: &[Datum], cursor: Option<(usize, usize)>) -> Buffer {
        let geometry = geometry(halves);
        let mut buf = Buffer::empty(Rect::new(0, 0, 12, 2));
        HeatMap {
            geometry: &geometry,
            data,
            tokens: 2,
            words: &[],
            decided: &[Some(1), None],
            cursor,
            ramp: &theme.ramp,
            theme,
        }
        .render(buf.area, &mut buf);
        buf
    }

    #[test]
    fn values_take_their_step_and_unknown_cells_look_like_none_of_them() {
        let theme = theme(Depth::True);
        let data = [
            Datum::Step(15),
            Datum::Step(0),
            Datum::Absent,
            Datum::Unread,
        ];
        let buf = draw(false, &theme, &data, None);
        assert_eq!(buf[(3, 0)].bg, Color::Rgb(0xfe, 0xe8, 0x25));
        assert_eq!(buf[(4, 0)].symbol(), "▁", "decided here");
        assert_eq!(buf[(5, 0)].bg, Color::Rgb(0x44, 0x01, 0x54));
        assert_eq!(buf[(3, 1)].symbol(), "╱");
        assert_eq!(buf[(5, 1)].symbol(), "·");
        assert_eq!(buf[(3, 1)].bg, Color::Reset);
    }

    #[test]
    fn the_cursor_frames_a_cell_and_leaves_its_colour() {
        let theme = theme(Depth::True);
        let buf = draw(false, &theme, &[Datum::Step(7); 4], Some((0, 6)));
        assert_eq!((buf[(5, 1)].symbol(), buf[(6, 1)].symbol()), ("▌", "▐"));
        assert_eq!(buf[(5, 1)].bg, theme.ramp.shade(7).bg);
        assert_eq!(Some(buf[(5, 1)].fg), theme.frame.fg);
    }

    #[test]
    fn halves_put_two_layers_into_a_row() {
        let theme = theme(Depth::True);
        let data: Vec<Datum> = (0..8).map(Datum::Step).collect();
        let buf = draw(true, &theme, &data, None);
        assert_eq!(buf[(3, 0)].symbol(), "▀");
        assert_eq!(buf[(3, 0)].fg, theme.ramp.shade(0).bg);
        assert_eq!(buf[(3, 0)].bg, theme.ramp.shade(2).bg);
        assert_eq!(buf[(4, 1)].bg, theme.ramp.shade(7).bg);
    }

    #[test]
    fn without_colour_glyphs_carry_the_values() {
        let theme = theme(Depth::Mono);
        let data = [
            Datum::Step(15),
            Datum::Step(7),
            Datum::Absent,
            Datum::Unread,
        ];
        let buf = draw(false, &theme, &data, Some((0, 6)));
        let row = |y| {
            (3..7)
                .map(|x| buf[(x, y)].symbol().to_owned())
                .collect::<String>()
        };
        assert_eq!(row(0), "@@==");
        assert!(buf[(3, 0)].modifier.contains(Modifier::UNDERLINED));
        assert_eq!(row(1), "//[]");
    }

    #[test]
    fn points_and_cells_are_inverse() {
        let g = geometry(false);
        let rect = g.cell(0, 7).unwrap();
        assert_eq!(g.at(rect.x + 1, rect.y), Some((0, 7)));
        assert_eq!(g.at(0, 0), None);
        assert_eq!(g.cell(0, 9), None);
        let h = geometry(true);
        assert_eq!(h.at(3, 1), Some((1, 5)));
    }
}
