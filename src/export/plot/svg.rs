//! A drawing as SVG text.

use super::font::FAMILIES;
use super::{Anchor, Colour, Drawing, Point, Shape};
use std::fmt::Write as _;

/// The file's text; the same drawing gives the same bytes.
#[must_use]
pub fn text(drawing: &Drawing) -> String {
    let mut out = String::new();
    let (width, height) = (Length(drawing.width), Length(drawing.height));
    // Writing into a String cannot fail.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\" font-family=\"{FAMILIES}\">\n<title>{}</title>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>",
        escaped(&drawing.title)
    );
    for shape in &drawing.shapes {
        write(shape, &mut out);
    }
    out.push_str("</svg>\n");
    out
}

fn write(shape: &Shape, out: &mut String) {
    let _ = match shape {
        Shape::Rect { at, size, fill } => writeln!(
            out,
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" shape-rendering=\"crispEdges\"{}/>",
            Length(at.0),
            Length(at.1),
            Length(size.0),
            Length(size.1),
            paint("fill", *fill)
        ),
        Shape::Area { points, fill } => writeln!(
            out,
            "<polygon points=\"{}\"{}/>",
            listed(points),
            paint("fill", *fill)
        ),
        Shape::Dot { at, radius, fill } => writeln!(
            out,
            "<circle cx=\"{}\" cy=\"{}\" r=\"{}\"{}/>",
            Length(at.0),
            Length(at.1),
            Length(*radius),
            paint("fill", *fill)
        ),
        Shape::Line {
            points,
            colour,
            width,
            dashed,
        } => writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\"{} stroke-width=\"{}\" stroke-linejoin=\"round\"{}/>",
            listed(points),
            paint("stroke", *colour),
            Length(*width),
            match dashed {
                true => " stroke-dasharray=\"6 4\"",
                false => " stroke-linecap=\"round\"",
            }
        ),
        Shape::Text {
            at,
            text,
            size,
            anchor,
            colour,
            upward,
        } => {
            let (x, y) = (Length(at.0), Length(at.1));
            let turn = match upward {
                true => format!(" transform=\"rotate(-90 {x} {y})\""),
                false => String::new(),
            };
            let anchor = match anchor {
                Anchor::Start => "start",
                Anchor::Middle => "middle",
                Anchor::End => "end",
            };
            writeln!(
                out,
                "<text x=\"{x}\" y=\"{y}\" font-size=\"{}\" text-anchor=\"{anchor}\" xml:space=\"preserve\"{}{turn}>{}</text>",
                Length(*size),
                paint("fill", *colour),
                escaped(text)
            )
        }
    };
}

fn paint(what: &str, colour: Colour) -> String {
    let [r, g, b] = colour.rgb;
    let mut out = format!(" {what}=\"#{r:02x}{g:02x}{b:02x}\"");
    if colour.opacity < 1.0 {
        let _ = write!(out, " {what}-opacity=\"{}\"", Length(colour.opacity));
    }
    out
}

fn listed(points: &[Point]) -> String {
    let each = points.iter();
    let each = each.map(|(x, y)| format!("{},{}", Length(*x), Length(*y)));
    each.collect::<Vec<_>>().join(" ")
}

/// A length with two digits at most; what is no number is 0.
struct Length(f32);

impl std::fmt::Display for Length {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hundredths = (self.0 * 100.0).round();
        match hundredths.is_finite() {
            // Adding 0 turns −0 into 0.
            true => write!(f, "{}", hundredths / 100.0 + 0.0),
            false => write!(f, "0"),
        }
    }
}

/// Text that means nothing to an XML reader; characters that XML forbids are replaced.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
