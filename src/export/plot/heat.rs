//! A map of layers by tokens in diverging colours: blue below zero, red above, white where nothing changes.

use super::axis::{Axis, every};
use super::{Anchor, Colour, Drawing, Font, Shape};

/// Room that the cells take together, as far as their own bounds allow.
const ROOM: f32 = 760.0;
/// Widest and narrowest cell, and the widest map: beyond it cells get narrower still.
const WIDEST: f32 = 44.0;
const NARROWEST: f32 = 15.0;
const MOST: f32 = 3000.0;
/// The narrowest page, which leaves room for what stands above the map.
const SMALLEST: f32 = 560.0;
const TICK: f32 = 12.0;
const LABEL: f32 = 14.5;
/// Columns of a token's text that are shown.
const TOKEN: usize = 14;

/// A map of layers by tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Heat {
    /// What it shows.
    pub title: String,
    /// Of what, in smaller letters.
    pub subtitle: String,
    /// What the colours mean, with the unit.
    pub label: String,
    /// The text of each token, rightward.
    pub tokens: Vec<String>,
    /// `[layers][tokens]`, layer 0 first; `None` where there is no value.
    pub rows: Vec<Vec<Option<f64>>>,
}

/// Draw it.
#[must_use]
pub fn draw(plot: &Heat) -> Drawing {
    let font = Font::open();
    let (columns, layers) = (plot.tokens.len(), plot.rows.len());
    let narrowest = NARROWEST.min(MOST / columns.max(1) as f32);
    let width = (ROOM / columns.max(1) as f32).clamp(narrowest, WIDEST.max(narrowest));
    let height = (420.0 / layers.max(1) as f32).clamp(9.0, 30.0);
    let (map_width, map_height) = (width * columns as f32, height * layers as f32);
    let left = 76.0;
    let tokens: Vec<String> = plot
        .tokens
        .iter()
        .map(|t| crate::text::truncate_width(&crate::text::visible(t), TOKEN))
        .collect();
    let step = every(columns, (map_width / NARROWEST) as usize);
    let longest = tokens.iter().map(|t| font.width(t, TICK));
    let token_room = longest.fold(0.0, f32::max);

    // Ink does not depend on which way a number points.
    let finite = plot.rows.iter().flatten().flatten().copied();
    let largest = finite
        .filter(|v| v.is_finite())
        .fold(0.0, |m, v| v.abs().max(m));
    let mut axis = Axis::holding([-largest, largest], 4);
    axis.ticks.retain(|tick| tick.abs() <= largest);
    let widest = axis.ticks.iter().map(|t| font.width(&axis.label(*t), TICK));
    let bar = left + map_width + 26.0;
    let right = bar + 18.0 + 10.0 + widest.fold(0.0, f32::max) + 34.0;
    let top = 82.0;
    let bottom = top + map_height;
    let page = bottom + token_room + 58.0;
    let title = crate::text::visible(&plot.title);
    let mut drawing = Drawing::new(right.max(SMALLEST), page, title);
    drawing.heading(&font, left, &plot.title, &plot.subtitle);

    for (layer, row) in plot.rows.iter().enumerate() {
        for column in 0..columns {
            let value = row.get(column).copied().flatten();
            let at = (
                left + width * column as f32,
                bottom - height * (layer + 1) as f32,
            );
            let fill = value.map_or(Colour::ABSENT, |v| diverging(v, largest));
            drawing.rect(at, (width, height), fill);
        }
    }
    outline(&mut drawing, (left, top), (map_width, map_height));
    for layer in (0..layers).step_by(every(layers, (map_height / 16.0) as usize)) {
        let at = (left - 8.0, bottom - height * (layer as f32 + 0.5) + 4.2);
        drawing.text(at, &layer.to_string(), TICK, Anchor::End, Colour::INK);
    }
    for column in (0..columns).step_by(step) {
        let at = (left + width * (column as f32 + 0.5) + 4.2, bottom + 8.0);
        drawing.upward(at, &tokens[column], TICK, Anchor::End, Colour::INK);
    }
    let middle = left + map_width / 2.0;
    let says = match plot.rows.iter().flatten().any(Option::is_none) {
        true => "token (grey: no value)",
        false => "token",
    };
    let at = (middle, page - 18.0);
    drawing.text(at, says, LABEL, Anchor::Middle, Colour::INK);
    let at = (24.0, top + map_height / 2.0);
    let says = "layer (0 = embedding)";
    drawing.upward(at, says, LABEL, Anchor::Middle, Colour::INK);
    colour_bar(
        &mut drawing,
        &axis,
        largest,
        &plot.label,
        [(bar, top), (18.0, map_height)],
        right - 12.0,
    );
    drawing
}

/// From the lowest to the highest value; the one in the middle is that of no change.
const COLOURS: [u32; 7] = [
    0x21_66_ac, 0x67_a9_cf, 0xd1_e5_f0, 0xf7_f7_f7, 0xfd_db_c7, 0xef_8a_62, 0xb2_18_2b,
];

/// The colour of a value where `largest` is the largest magnitude.
fn diverging(value: f64, largest: f64) -> Colour {
    let share = match largest > 0.0 {
        true => (value / largest).clamp(-1.0, 1.0),
        false => 0.0,
    };
    let place = (share + 1.0) / 2.0 * (COLOURS.len() - 1) as f64;
    let below = (place as usize).min(COLOURS.len() - 2);
    let [from, to] = [below, below + 1].map(|i| Colour::hex(COLOURS[i]).rgb);
    let mix = |i: usize| {
        let (from, to) = (f64::from(from[i]), f64::from(to[i]));
        (from + (to - from) * (place - below as f64)).round() as u8
    };
    Colour {
        rgb: [mix(0), mix(1), mix(2)],
        opacity: 1.0,
    }
}

fn colour_bar(
    drawing: &mut Drawing,
    axis: &Axis,
    largest: f64,
    label: &str,
    [at, size]: [super::Point; 2],
    right: f32,
) {
    let ((x, top), height) = (at, size.1);
    let steps: i16 = 128;
    for i in 0..steps {
        let share = (f64::from(i) + 0.5) / f64::from(steps);
        let each = height / f32::from(steps);
        let corner = (x, top + height - each * f32::from(i + 1));
        // A little more than its share: the sharp edges of both outputs then leave no seam.
        let fill = diverging(2.0 * share - 1.0, 1.0);
        drawing.rect(corner, (size.0, each + 0.5), fill);
    }
    outline(drawing, at, size);
    for tick in &axis.ticks {
        let share = match largest > 0.0 {
            true => (*tick / largest + 1.0) / 2.0,
            false => 0.5,
        };
        let y = top + height * (1.0 - share as f32);
        drawing.line(vec![(x + 18.0, y), (x + 22.0, y)], Colour::INK, 1.0);
        let says = axis.label(*tick);
        let at = (x + 27.0, y + 4.2);
        drawing.text(at, &says, TICK, Anchor::Start, Colour::INK);
    }
    let at = (right, top + height / 2.0);
    drawing.upward(at, label, LABEL, Anchor::Middle, Colour::INK);
}

fn outline(drawing: &mut Drawing, at: super::Point, size: super::Point) {
    let ((x, y), (w, h)) = (at, size);
    let points = vec![(x, y), (x + w, y), (x + w, y + h), (x, y + h), (x, y)];
    drawing.shapes.push(Shape::Line {
        points,
        colour: Colour::GREY,
        width: 1.0,
        dashed: false,
    });
}
