//! The letters of plots: outlines and widths from a part of DejaVu Sans that lies in the program.

use ttf_parser::{Face, OutlineBuilder};

/// Latin, Greek, Cyrillic and what formulas need; its licence lies beside it.
static BYTES: &[u8] = include_bytes!("DejaVuSans-subset.ttf");

/// The families that an SVG asks for; the first has the widths that were reckoned with.
pub const FAMILIES: &str = "DejaVu Sans, Verdana, sans-serif";

/// The font, opened.
#[derive(Clone, Debug)]
pub struct Font {
    face: Option<Face<'static>>,
}

impl Font {
    /// Open it.
    #[must_use]
    pub fn open() -> Self {
        Self {
            face: Face::parse(BYTES, 0).ok(),
        }
    }

    /// How much room a line of text takes at a size.
    #[must_use]
    pub fn width(&self, text: &str, size: f32) -> f32 {
        text.chars().map(|c| self.advance(c, size)).sum()
    }

    /// How far a letter moves the next one.
    #[must_use]
    pub fn advance(&self, letter: char, size: f32) -> f32 {
        let of_face = self.face.as_ref().and_then(|face| {
            let units = face.glyph_hor_advance(self.glyph(letter)?)?;
            Some(f32::from(units) * size / f32::from(face.units_per_em()))
        });
        of_face.unwrap_or(0.6 * size)
    }

    /// The text, cut with an ellipsis where it is wider than `room`.
    #[must_use]
    pub fn fitted(&self, text: &str, size: f32, room: f32) -> String {
        if self.width(text, size) <= room {
            return text.to_owned();
        }
        let mut left = room - self.advance('…', size);
        let fits = |letter: &char| {
            left -= self.advance(*letter, size);
            left >= 0.0
        };
        text.chars().take_while(fits).chain(['…']).collect()
    }

    /// Units of its outlines to a size of 1.
    #[must_use]
    pub fn units(&self) -> Option<f32> {
        Some(f32::from(self.face.as_ref()?.units_per_em()))
    }

    /// Hand the outline of a letter to `path`, in units of the font, upward. Letters that are not in the font are empty
    /// boxes.
    pub fn outline(&self, letter: char, path: &mut impl OutlineBuilder) {
        if let (Some(face), Some(glyph)) = (&self.face, self.glyph(letter)) {
            face.outline_glyph(glyph, path);
        }
    }

    fn glyph(&self, letter: char) -> Option<ttf_parser::GlyphId> {
        let face = self.face.as_ref()?;
        Some(face.glyph_index(letter).unwrap_or(ttf_parser::GlyphId(0)))
    }
}
