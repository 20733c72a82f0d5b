//! Plots for papers: one description of a drawing, two outputs that show the same, SVG text and PNG bytes.
//!
//! [`lines`] makes curves by layer with their spread, [`heat`] a map of layers by tokens; both return a [`Drawing`] of plain
//! shapes, which [`svg`] and [`png`] write. Lengths are in units of the SVG, 96 to the inch; a PNG has [`png::SCALE`]
//! pixels a unit. Outside text may hold anything: it is made visible here, and escaped where it is written.

pub mod axis;
mod font;
pub mod heat;
pub mod lines;
pub mod png;
pub mod svg;

pub use font::Font;

/// A colour with its opacity, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Colour {
    /// Red, green and blue.
    pub rgb: [u8; 3],
    /// 1 hides what lies below.
    pub opacity: f32,
}

impl Colour {
    /// Letters and axes.
    pub const INK: Self = Self::hex(0x22_2a_33);
    /// What is said beside.
    pub const GREY: Self = Self::hex(0x5b_65_70);
    /// Lines of the grid.
    pub const FAINT: Self = Self::hex(0xe3_e6_ea);
    /// Where there is no value.
    pub const ABSENT: Self = Self::hex(0xc9_cd_d2);
    /// The first of two series.
    pub const BLUE: Self = Self::hex(0x1f_5f_a8);
    /// The second.
    pub const RED: Self = Self::hex(0xc0_39_2b);
    /// A single series that is a difference.
    pub const VIOLET: Self = Self::hex(0x6a_3d_9a);

    /// An opaque colour, `0xrrggbb`.
    #[must_use]
    pub const fn hex(rgb: u32) -> Self {
        let [_, r, g, b] = rgb.to_be_bytes();
        Self {
            rgb: [r, g, b],
            opacity: 1.0,
        }
    }

    /// The same, more or less transparent.
    #[must_use]
    pub const fn faded(self, opacity: f32) -> Self {
        Self { opacity, ..self }
    }
}

/// Which part of a text stands at its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Its beginning.
    Start,
    /// Its middle.
    Middle,
    /// Its end.
    End,
}

/// A point, from the upper left corner.
pub type Point = (f32, f32);

/// One thing that is drawn, above what was drawn before.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// A filled rectangle with sharp edges.
    Rect {
        /// Its upper left corner.
        at: Point,
        /// Width and height.
        size: Point,
        /// Its colour.
        fill: Colour,
    },
    /// A filled polygon.
    Area {
        /// Its corners.
        points: Vec<Point>,
        /// Its colour.
        fill: Colour,
    },
    /// A filled circle.
    Dot {
        /// Its centre.
        at: Point,
        /// Its radius.
        radius: f32,
        /// Its colour.
        fill: Colour,
    },
    /// A line through points.
    Line {
        /// Two points or more.
        points: Vec<Point>,
        /// Its colour.
        colour: Colour,
        /// How thick it is.
        width: f32,
        /// Whether it is broken.
        dashed: bool,
    },
    /// One line of text.
    Text {
        /// On the base line.
        at: Point,
        /// What it says.
        text: String,
        /// Size of the letters.
        size: f32,
        /// What stands at the point.
        anchor: Anchor,
        /// Its colour.
        colour: Colour,
        /// Whether it runs upward.
        upward: bool,
    },
}

/// A picture on white.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawing {
    /// Its width.
    pub width: f32,
    /// Its height.
    pub height: f32,
    /// What it shows, for those who cannot see it.
    pub title: String,
    /// Everything in it, from the lowest up.
    pub shapes: Vec<Shape>,
}

impl Drawing {
    /// An empty one.
    #[must_use]
    pub fn new(width: f32, height: f32, title: impl Into<String>) -> Self {
        Self {
            width,
            height,
            title: title.into(),
            shapes: Vec::new(),
        }
    }

    fn rect(&mut self, at: Point, size: Point, fill: Colour) {
        self.shapes.push(Shape::Rect { at, size, fill });
    }

    fn line(&mut self, points: Vec<Point>, colour: Colour, width: f32) {
        self.shapes.push(Shape::Line {
            points,
            colour,
            width,
            dashed: false,
        });
    }

    fn text(&mut self, at: Point, text: &str, size: f32, anchor: Anchor, colour: Colour) {
        self.letters(at, text, size, anchor, colour, false);
    }

    fn upward(&mut self, at: Point, text: &str, size: f32, anchor: Anchor, colour: Colour) {
        self.letters(at, text, size, anchor, colour, true);
    }

    fn letters(
        &mut self,
        at: Point,
        text: &str,
        size: f32,
        anchor: Anchor,
        colour: Colour,
        upward: bool,
    ) {
        self.shapes.push(Shape::Text {
            at,
            text: crate::text::visible(text),
            size,
            anchor,
            colour,
            upward,
        });
    }

    /// A title and a line below it, cut where the page ends; the height they take.
    fn heading(&mut self, font: &Font, left: f32, title: &str, subtitle: &str) -> f32 {
        let room = self.width - left - 16.0;
        let lines = [
            (32.0, title, 19.0, Colour::INK),
            (53.0, subtitle, 12.5, Colour::GREY),
        ];
        for (y, text, size, colour) in lines {
            let text = font.fitted(&crate::text::visible(text), size, room);
            self.text((left, y), &text, size, Anchor::Start, colour);
        }
        62.0
    }
}

#[cfg(test)]
mod tests;
