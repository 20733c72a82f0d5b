//! The plots of the layout, each as PNG and SVG.

use super::{Column, ModelRun, Part};
use crate::error::{Error, Result};
use crate::export::plot::heat::{self, Heat};
use crate::export::plot::lines::{self, Lines, Profile, Series};
use crate::export::plot::{Colour, Drawing, png, svg};
use crate::trace::{Aim, Compared, Measure, Spread};
use rayon::prelude::*;

/// Most tokens of a map.
const MOST_TOKENS: usize = 300;

/// Which of the three numbers of a comparison a curve shows.
#[derive(Clone, Copy)]
enum Curve {
    Standard,
    Control,
    Difference,
}

impl Curve {
    fn of(self, cell: &Compared) -> Option<f64> {
        let value = match self {
            Self::Standard => cell.a,
            Self::Control => cell.b,
            Self::Difference => cell.difference,
        };
        value.map(f64::from)
    }
}

/// Name and bytes of every plot of a model. A metric that it does not have is not drawn.
///
/// # Errors
/// If a picture cannot be made.
pub(super) fn all(run: &ModelRun) -> Result<Vec<(String, Vec<u8>)>> {
    let label = &run.label;
    let mut drawings: Vec<(String, Drawing)> = Vec::new();
    for (column, measure) in run.columns() {
        let Some(measure) = measure.filter(|measure| run.paired.has(*measure)) else {
            continue;
        };
        let Column { file, .. } = column;
        for part in Part::BOTH {
            let name = format!("{}/plots/{label}_{file}", part.label());
            drawings.push((name, lines::draw(&one(run, column, measure, part))));
        }
        let name = format!("comparative/plots/{label}_{file}");
        let both = lines::draw(&comparison(run, column, measure));
        drawings.push((format!("{name}_comparison"), both));
        let apart = lines::draw(&differences(run, column, measure));
        drawings.push((format!("{name}_differences"), apart));
    }
    if let Some(map) = map(run) {
        let name = format!("comparative/plots/{label}_layer_entropies_map");
        drawings.push((name, heat::draw(&map)));
    }
    let rendered: Vec<[(String, Vec<u8>); 2]> = drawings
        .par_iter()
        .map(|(name, drawing)| {
            let pixels = png::bytes(drawing).map_err(|e| {
                let problem = format!("the plot {name} could not be drawn: {e}");
                Error::failed(problem, "Give fewer or shorter prompts.")
            })?;
            let text = svg::text(drawing).into_bytes();
            Ok([
                (format!("{name}.png"), pixels),
                (format!("{name}.svg"), text),
            ])
        })
        .collect::<Result<_>>()?;
    Ok(rendered.into_iter().flatten().collect())
}

/// One model alone: every sentence faintly, the mean over them.
fn one(run: &ModelRun, column: Column, measure: Measure, part: Part) -> Lines {
    let curve = match part {
        Part::Standard => Curve::Standard,
        Part::Control => Curve::Control,
    };
    let mean = series(run, measure, curve, "mean", Colour::INK, true);
    plot(run, column, measure, part.label(), vec![mean], false)
}

/// Both, by their means.
fn comparison(run: &ModelRun, column: Column, measure: Measure) -> Lines {
    let mut control = series(run, measure, Curve::Control, "control", Colour::RED, false);
    control.dashed = true;
    let standard = series(
        run,
        measure,
        Curve::Standard,
        "standard",
        Colour::BLUE,
        false,
    );
    let both = vec![standard, control];
    plot(run, column, measure, "standard and control", both, false)
}

/// What steering changes: every sentence faintly, the mean over them.
fn differences(run: &ModelRun, column: Column, measure: Measure) -> Lines {
    let colour = Colour::VIOLET;
    let name = "mean difference";
    let apart = series(run, measure, Curve::Difference, name, colour, true);
    let mut plot = plot(
        run,
        column,
        measure,
        "control \u{2212} standard",
        vec![apart],
        true,
    );
    plot.label = format!("difference of {}", plot.label);
    plot
}

fn plot(
    run: &ModelRun,
    column: Column,
    measure: Measure,
    what: &str,
    series: Vec<Series>,
    zero: bool,
) -> Lines {
    let unit = run.unit(Some(measure));
    let name = column.title;
    // A name that begins with an abbreviation keeps it.
    let label = match name.starts_with("KL") {
        true => name.to_owned(),
        false => name.to_lowercase(),
    };
    let band = match series.iter().any(|s| !s.profile.std.is_empty()) {
        true => "; band: \u{b1} 1 standard deviation over sentences",
        false => "",
    };
    Lines {
        title: format!("{name} by layer: {what}"),
        subtitle: format!("{}, {}{band}", model(run), place(run)),
        label: match unit {
            "" => label,
            unit => format!("{label} ({unit})"),
        },
        series,
        zero,
    }
}

fn series(
    run: &ModelRun,
    measure: Measure,
    curve: Curve,
    name: &str,
    colour: Colour,
    each: bool,
) -> Series {
    let spreads: Vec<Option<Spread>> = (0..run.paired.states())
        .map(|layer| run.paired.spread(layer, measure)[curve as usize])
        .collect();
    let n = spreads.iter().flatten().map(|s| s.n).max().unwrap_or(0);
    let samples = run.paired.samples().iter().map(|sample| {
        let profile = run.paired.profile(sample, measure);
        profile.iter().map(|cell| curve.of(cell)).collect()
    });
    Series {
        name: name.to_owned(),
        colour,
        dashed: false,
        n,
        profile: Profile {
            mean: spreads.iter().map(|s| s.map(|s| s.mean)).collect(),
            // A single sentence has no spread to show.
            std: match n > 1 {
                true => spreads.iter().map(|s| s.map(|s| s.std)).collect(),
                false => Vec::new(),
            },
        },
        samples: match each && n > 1 {
            true => samples.collect(),
            false => Vec::new(),
        },
    }
}

fn model(run: &ModelRun) -> &str {
    &run.first.model.name
}

fn place(run: &ModelRun) -> String {
    let place = match Aim::of(run.first.model.causal) {
        Aim::Next => "last token",
        Aim::Itself => "gap",
    };
    let of = match run.paired.samples().len() {
        1 => "the",
        _ => "each",
    };
    format!("at the {place} of {of} sentence")
}

/// How the first sentence's entropy changes, layer by token, as far as both read the same text.
fn map(run: &ModelRun) -> Option<Heat> {
    let record = &run.first;
    let entropy = record.schema.find("entropy")?;
    let difference = record.difference()?;
    let (_, grid) = record.branches.first()?;
    let same = difference
        .positions()
        .filter(|p| !difference.is_diverged(*p));
    let positions: Vec<usize> = same.take(MOST_TOKENS).collect();
    let text = |position: &usize| {
        let token = grid.tokens().get(*position);
        token.map_or(String::new(), |token| {
            crate::text::visible_bytes(&token.bytes)
        })
    };
    let value = |layer, position: &usize| {
        let cell = difference.cell(layer, *position, entropy);
        cell.difference.map(f64::from)
    };
    (!positions.is_empty()).then(|| Heat {
        title: "Entropy: control \u{2212} standard".into(),
        subtitle: match run.paired.samples().len() {
            1 => format!("{}, at each token read", model(run)),
            n => format!("{}, at each token read of sentence 1 of {n}", model(run)),
        },
        label: "difference of entropy (nats)".into(),
        tokens: positions.iter().map(text).collect(),
        rows: (0..difference.states())
            .map(|layer| positions.iter().map(|p| value(layer, p)).collect())
            .collect(),
    })
}
