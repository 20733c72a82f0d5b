//! A drawing as PNG bytes.

use super::{Anchor, Colour, Drawing, Font, Point, Shape};
use std::io;
use tiny_skia::{
    FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, Rect, Stroke, StrokeDash,
    Transform,
};

/// Pixels for each unit of a drawing: sharp on paper at 192 to the inch.
pub const SCALE: f32 = 2.0;
/// Most pixels of a side; no plot of ours comes near.
const LARGEST: f32 = 20_000.0;

/// The file's bytes, without transparency; the same drawing gives the same.
///
/// # Errors
/// If the drawing has no size or an absurd one, or memory does not suffice.
pub fn bytes(drawing: &Drawing) -> io::Result<Vec<u8>> {
    let side = |length: f32| (length * SCALE).ceil().clamp(0.0, LARGEST) as u32;
    let (width, height) = (side(drawing.width), side(drawing.height));
    let mut pixels = Pixmap::new(width, height).ok_or_else(|| {
        io::Error::other(format!(
            "a plot of {width} by {height} pixels cannot be made"
        ))
    })?;
    pixels.fill(tiny_skia::Color::WHITE);
    let font = Font::open();
    for shape in &drawing.shapes {
        draw(shape, &font, &mut pixels);
    }
    let data = pixels.data();
    let rgb: Vec<u8> = data
        .chunks_exact(4)
        .flat_map(|p| [p[0], p[1], p[2]])
        .collect();
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let per_metre = (96.0 * SCALE / 0.0254).round() as u32;
    encoder.set_pixel_dims(Some(png::PixelDimensions {
        xppu: per_metre,
        yppu: per_metre,
        unit: png::Unit::Meter,
    }));
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&rgb)?;
    writer.finish()?;
    Ok(out)
}

/// Draw one shape. What has no extent, or lies nowhere, draws nothing.
fn draw(shape: &Shape, font: &Font, pixels: &mut Pixmap) {
    let scale = Transform::from_scale(SCALE, SCALE);
    match shape {
        Shape::Rect { at, size, fill } => {
            // On whole pixels, so that neighbours neither overlap nor leave a seam.
            let edge = |v: f32| (v * SCALE).round();
            let corners = (
                edge(at.0),
                edge(at.1),
                edge(at.0 + size.0),
                edge(at.1 + size.1),
            );
            if let Some(rect) = Rect::from_ltrb(corners.0, corners.1, corners.2, corners.3) {
                let mut paint = paint(*fill);
                paint.anti_alias = false;
                pixels.fill_rect(rect, &paint, Transform::identity(), None);
            }
        }
        Shape::Area { points, fill } => {
            if let Some(path) = through(points, true) {
                pixels.fill_path(&path, &paint(*fill), FillRule::Winding, scale, None);
            }
        }
        Shape::Dot { at, radius, fill } => {
            if let Some(path) = PathBuilder::from_circle(at.0, at.1, *radius) {
                pixels.fill_path(&path, &paint(*fill), FillRule::Winding, scale, None);
            }
        }
        Shape::Line {
            points,
            colour,
            width,
            dashed,
        } => {
            let stroke = Stroke {
                width: *width,
                line_join: LineJoin::Round,
                line_cap: match dashed {
                    true => LineCap::Butt,
                    false => LineCap::Round,
                },
                dash: match dashed {
                    true => StrokeDash::new(vec![6.0, 4.0], 0.0),
                    false => None,
                },
                ..Stroke::default()
            };
            if let Some(path) = through(points, false) {
                pixels.stroke_path(&path, &paint(*colour), &stroke, scale, None);
            }
        }
        Shape::Text {
            at,
            text,
            size,
            anchor,
            colour,
            upward,
        } => {
            let width = font.width(text, *size);
            let start = match anchor {
                Anchor::Start => 0.0,
                Anchor::Middle => -width / 2.0,
                Anchor::End => -width,
            };
            let place = scale.pre_translate(at.0, at.1);
            let place = match upward {
                true => place.pre_rotate(-90.0),
                false => place,
            };
            if let Some(path) = letters(font, text, *size, start) {
                pixels.fill_path(&path, &paint(*colour), FillRule::Winding, place, None);
            }
        }
    }
}

fn paint(colour: Colour) -> Paint<'static> {
    let mut paint = Paint::default();
    let [r, g, b] = colour.rgb;
    let alpha = (colour.opacity * 255.0).round().clamp(0.0, 255.0) as u8;
    paint.set_color_rgba8(r, g, b, alpha);
    paint.anti_alias = true;
    paint
}

fn through(points: &[Point], closed: bool) -> Option<Path> {
    let mut path = PathBuilder::new();
    for (i, (x, y)) in points.iter().enumerate() {
        match i {
            0 => path.move_to(*x, *y),
            _ => path.line_to(*x, *y),
        }
    }
    if closed {
        path.close();
    }
    path.finish()
}

/// A line of text as one path, its base line on 0.
fn letters(font: &Font, text: &str, size: f32, start: f32) -> Option<Path> {
    let mut outline = Outline {
        path: PathBuilder::new(),
        at: start,
        scale: size / font.units()?,
    };
    for letter in text.chars() {
        font.outline(letter, &mut outline);
        outline.at += font.advance(letter, size);
    }
    outline.path.finish()
}

struct Outline {
    path: PathBuilder,
    at: f32,
    scale: f32,
}

impl Outline {
    fn place(&self, x: f32, y: f32) -> Point {
        (self.at + x * self.scale, -y * self.scale)
    }
}

impl ttf_parser::OutlineBuilder for Outline {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.place(x, y);
        self.path.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.place(x, y);
        self.path.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.place(x1, y1), self.place(x, y));
        self.path.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let (first, second, end) = (self.place(x1, y1), self.place(x2, y2), self.place(x, y));
        self.path
            .cubic_to(first.0, first.1, second.0, second.1, end.0, end.1);
    }

    fn close(&mut self) {
        self.path.close();
    }
}
