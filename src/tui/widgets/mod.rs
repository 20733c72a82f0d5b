//! Widgets that know nothing of the program: plain data in, cells of a [`Buffer`](ratatui::buffer::Buffer) out.

mod bars;
mod curve;
mod flow;
mod heatmap;

pub use bars::{bar, bins, colour_bar, columns_strip};
pub use curve::{Curve, Series};
pub use flow::{Flow, Piece};
pub use heatmap::{Datum, Geometry, HeatMap, Zoom};
