//! Curves by layer: means with a band of a standard deviation, over fainter curves of single samples.

use super::axis::{Axis, every};
use super::{Anchor, Colour, Drawing, Font, Point};

const WIDTH: f32 = 880.0;
const HEIGHT: f32 = 540.0;
const RIGHT: f32 = 28.0;
const BOTTOM: f32 = 66.0;
/// Size of the numbers on the axes.
const TICK: f32 = 13.0;
/// Size of what the axes are called.
const LABEL: f32 = 14.5;
/// Most faint curves; more would be one dark cloud.
const MOST_FAINT: usize = 200;

/// A mean and its spread at each layer, from 0 on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// The means; `None` where there is no value: the curve has a gap there.
    pub mean: Vec<Option<f64>>,
    /// Half the height of the band at each; empty for no band.
    pub std: Vec<Option<f64>>,
}

/// One curve with its band.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What the legend calls it.
    pub name: String,
    /// Its colour; that of the band is fainter.
    pub colour: Colour,
    /// Whether its line is broken, so that it is told apart without colours too.
    pub dashed: bool,
    /// How many samples are behind it.
    pub n: usize,
    /// Its values.
    pub profile: Profile,
    /// The values of single samples, drawn faintly below it.
    pub samples: Vec<Vec<Option<f64>>>,
}

/// A plot of curves by layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Lines {
    /// What it shows.
    pub title: String,
    /// Of what, in smaller letters.
    pub subtitle: String,
    /// What runs upward, with its unit.
    pub label: String,
    /// The curves.
    pub series: Vec<Series>,
    /// Draw a line at 0 and keep it in sight, as differences want it.
    pub zero: bool,
}

/// Where values lie on the paper.
struct Frame {
    left: f32,
    top: f32,
    layers: usize,
    axis: Axis,
}

impl Frame {
    fn x(&self, layer: usize) -> f32 {
        let room = WIDTH - RIGHT - self.left;
        // A single layer stands in the middle.
        match self.layers {
            0 | 1 => self.left + room / 2.0,
            many => self.left + 12.0 + (room - 24.0) * layer as f32 / (many - 1) as f32,
        }
    }

    fn y(&self, value: f64) -> f32 {
        let bottom = HEIGHT - BOTTOM;
        bottom - (bottom - self.top) * self.axis.share(value)
    }

    /// The curve in pieces, one for each run of layers that have a value.
    fn pieces(&self, values: &[Option<f64>]) -> Vec<Vec<Point>> {
        let point = |(layer, value): (usize, &Option<f64>)| {
            let value = value.filter(|v| v.is_finite())?;
            Some((self.x(layer), self.y(value)))
        };
        let points: Vec<Option<Point>> = values.iter().enumerate().map(point).collect();
        let runs = points.split(Option::is_none).filter(|run| !run.is_empty());
        runs.map(|run| run.iter().copied().flatten().collect())
            .collect()
    }
}

/// Draw it.
#[must_use]
pub fn draw(plot: &Lines) -> Drawing {
    let font = Font::open();
    let mut drawing = Drawing::new(WIDTH, HEIGHT, crate::text::visible(&plot.title));
    let axis = Axis::holding(
        plot.series
            .iter()
            .flat_map(values)
            .chain(plot.zero.then_some(0.0)),
        7,
    );
    let widest = axis.ticks.iter().map(|t| font.width(&axis.label(*t), TICK));
    let left = 46.0 + widest.fold(24.0, f32::max);
    let below_heading = drawing.heading(&font, left, &plot.title, &plot.subtitle);
    let top = legend(&mut drawing, &font, plot, left, below_heading + 12.0) + 18.0;
    let layers = plot.series.iter().map(|s| s.profile.mean.len()).max();
    let frame = Frame {
        left,
        top,
        layers: layers.unwrap_or_default(),
        axis,
    };
    axes(&mut drawing, &frame, &plot.label);
    if plot.zero {
        let y = frame.y(0.0);
        drawing.line(vec![(left, y), (WIDTH - RIGHT, y)], Colour::GREY, 1.2);
    }
    for series in &plot.series {
        let of_each = series.samples.iter().take(MOST_FAINT);
        let faint = series.colour.faded(0.28);
        for piece in of_each.flat_map(|values| frame.pieces(values)) {
            drawing.line(piece, faint, 1.0);
        }
    }
    for series in &plot.series {
        band(&mut drawing, &frame, series);
    }
    for series in &plot.series {
        for piece in frame.pieces(&series.profile.mean) {
            let dots = piece.clone();
            drawing.shapes.push(super::Shape::Line {
                points: piece,
                colour: series.colour,
                width: 2.4,
                dashed: series.dashed,
            });
            for at in dots {
                drawing.shapes.push(super::Shape::Dot {
                    at,
                    radius: 3.2,
                    fill: series.colour,
                });
            }
        }
    }
    drawing
}

/// All numbers of a series that the axis must hold.
fn values(series: &Series) -> impl Iterator<Item = f64> + '_ {
    let Profile { mean, std } = &series.profile;
    let edges = mean.iter().enumerate().flat_map(move |(layer, mean)| {
        let std = std.get(layer).copied().flatten().unwrap_or_default();
        mean.iter().flat_map(move |m| [m - std, m + std])
    });
    let samples = series.samples.iter().take(MOST_FAINT).flatten().flatten();
    edges.chain(samples.copied())
}

/// The band of a series: up along the upper edge, back along the lower one.
fn band(drawing: &mut Drawing, frame: &Frame, series: &Series) {
    let Profile { mean, std } = &series.profile;
    let edge = |sign: f64| -> Vec<Option<f64>> {
        let both = mean.iter().zip(std);
        both.map(|(mean, std)| Some((*mean)? + sign * (*std)?))
            .collect()
    };
    let upper = frame.pieces(&edge(1.0));
    let lower = frame.pieces(&edge(-1.0));
    for (mut points, below) in upper.into_iter().zip(lower) {
        points.extend(below.into_iter().rev());
        drawing.shapes.push(super::Shape::Area {
            points,
            fill: series.colour.faded(0.16),
        });
    }
}

/// What is what, in a row; where the next thing may begin.
fn legend(drawing: &mut Drawing, font: &Font, plot: &Lines, left: f32, top: f32) -> f32 {
    let (mut x, mut y) = (left, top + 10.0);
    for series in &plot.series {
        let says = crate::text::visible(&format!("{} (n = {})", series.name, series.n));
        let width = 44.0 + font.width(&says, TICK) + 26.0;
        if x > left && x + width > WIDTH - RIGHT {
            (x, y) = (left, y + 20.0);
        }
        let middle = y - 4.5;
        if !series.profile.std.is_empty() {
            drawing.rect((x, middle - 7.0), (34.0, 14.0), series.colour.faded(0.16));
        }
        drawing.shapes.push(super::Shape::Line {
            points: vec![(x, middle), (x + 34.0, middle)],
            colour: series.colour,
            width: 2.4,
            dashed: series.dashed,
        });
        drawing.text((x + 42.0, y), &says, TICK, Anchor::Start, Colour::INK);
        x += width;
    }
    y
}

fn axes(drawing: &mut Drawing, frame: &Frame, label: &str) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for tick in &frame.axis.ticks {
        let y = frame.y(*tick);
        drawing.line(vec![(frame.left, y), (right, y)], Colour::FAINT, 1.0);
        let says = frame.axis.label(*tick);
        let at = (frame.left - 9.0, y + 4.5);
        drawing.text(at, &says, TICK, Anchor::End, Colour::INK);
    }
    let corner = (frame.left, bottom);
    let ends = vec![(frame.left, frame.top), corner, (right, bottom)];
    drawing.line(ends, Colour::INK, 1.2);
    for layer in (0..frame.layers).step_by(every(frame.layers, 26)) {
        let x = frame.x(layer);
        drawing.line(vec![(x, bottom), (x, bottom + 5.0)], Colour::INK, 1.2);
        let at = (x, bottom + 20.0);
        drawing.text(at, &layer.to_string(), TICK, Anchor::Middle, Colour::INK);
    }
    let middle = (frame.left + right) / 2.0;
    drawing.text(
        (middle, HEIGHT - 18.0),
        "layer (0 = embedding)",
        LABEL,
        Anchor::Middle,
        Colour::INK,
    );
    let at = (24.0, (frame.top + bottom) / 2.0);
    drawing.upward(at, label, LABEL, Anchor::Middle, Colour::INK);
}
