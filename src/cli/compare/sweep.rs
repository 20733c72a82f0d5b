//! `compare --steer --sweep`: the plain model's text read under a range of strengths.

use super::super::output::Output;
use super::super::progress::{Counted, Progress};
use super::super::run::{MAX_NEW_TOKENS, check_job, load_model, load_plan, say_written};
use super::super::{Context, table};
use super::{Args, COMPARED, drawn, interrupted};
use crate::error::{Error, Result};
use crate::export;
use crate::lens::LensSettings;
use crate::model::Model;
use crate::session::{Event, Finish, Sweep, Swept};
use crate::steer::Strengths;
use crate::text::{self, nearest, one_line};
use crate::trace::{Curve, Metric, Point, Record, Schema, Spread, summarised};
use clap::Args as ClapArgs;
use serde::Serialize;
use std::fmt::Write as _;

/// The divergence stands beside the metrics under this name.
const DIVERGENCE: &str = "kl_ab";

/// A range of strengths, and what is shown of it.
#[derive(ClapArgs, Clone, Debug, Default)]
pub struct SweepArgs {
    /// Read the plain model's text under N strengths from A to B, each of which multiplies what --steer says
    #[arg(
        long,
        value_name = "A..B/N",
        help_heading = "Steering",
        allow_hyphen_values = true,
        requires = "steer",
        conflicts_with_all = ["free", "attention", "read_last"]
    )]
    pub sweep: Option<Strengths>,
    /// The layer of --sweep's table [default: the last]
    #[arg(long, value_name = "L", help_heading = "Steering", requires = "sweep")]
    pub layer: Option<usize>,
    /// The metrics of --sweep's table, by column name [default: entropy,surprisal,kl_ab]
    #[arg(
        long,
        value_name = "M,N",
        help_heading = "Steering",
        requires = "sweep",
        value_delimiter = ','
    )]
    pub metric: Vec<String>,
}

/// Do it.
pub(super) fn run(args: &Args, strengths: &Strengths, context: &Context) -> Result<()> {
    let reading = &args.reading;
    let prompt = args.prompt.read(reading.chat)?;
    let mut job = reading.job(prompt, &context.settings, MAX_NEW_TOKENS);
    let columns = columns(args, &job.lens)?;
    let model = load_model(&context.settings.model, context)?;
    let layer = layer(args.sweep.layer, &model)?;
    job.steering = load_plan(&args.steer, &model, context)?;
    check_job(reading, &job.prompt, &model)?;
    let _heed = context.interrupt.heed();
    let (mut drawn, mut read) = (0, 0);
    let most = job.max_new_tokens as u64;
    let mut sweep = Sweep::start(&model, job, strengths, &mut |_| {})?;
    let finish = {
        let mut progress = Progress::new(&context.notes, Counted::Items);
        loop {
            let count = &mut |swept: Swept| match swept {
                Swept::Baseline(Event::Cells { .. }) => drawn += 1,
                Swept::Cells { .. } => read += 1,
                Swept::Baseline(_) | Swept::Point { .. } => {}
            };
            if let Some(finish) = sweep.advance(&model, count)? {
                break finish;
            }
            if context.interrupt.raised() {
                return Err(interrupted(args, context));
            }
            match sweep.positions().len() as u64 {
                0 => progress.update("the plain model's text", drawn, Some(most.max(drawn))),
                positions => {
                    let total = positions * strengths.all().len() as u64;
                    progress.update("reading it under all strengths", read, Some(total));
                }
            }
        }
    };
    let (curve, record) = sweep.finish();
    let mut output = Output::new();
    if args.json {
        output.json(&swept(&curve, &record, finish, &model))?;
    } else {
        output.write(&describe(&curve, &record, finish, layer, &columns, &output))?;
    }
    output.flush()?;
    if let Some(dir) = &args.out {
        let written = export::write_sweep(dir, &record, &curve, args.force)?;
        say_written(&written, dir, context);
    }
    Ok(())
}

/// The columns of the table by name; `None` is the divergence.
type Columns = Vec<(String, Option<Metric>)>;

/// The metrics that were asked for.
///
/// # Errors
/// If there is no such metric.
fn columns(args: &Args, lens: &LensSettings) -> Result<Columns> {
    let schema = Schema::new(lens);
    let asked = &args.sweep.metric;
    if asked.is_empty() {
        let metrics = COMPARED.map(|name| (name.to_owned(), schema.find(name)));
        let divergence = (DIVERGENCE.to_owned(), None);
        return Ok(metrics.into_iter().chain([divergence]).collect());
    }
    let column = |name: &String| match schema.find(name) {
        None if name != DIVERGENCE => {
            let known = schema.metrics().iter().map(|metric| metric.name.as_str());
            let near = nearest(name, known.chain([DIVERGENCE]));
            let near = near.map_or(String::new(), |near| format!(", did you mean {near}?"));
            let name = one_line(name);
            Err(Error::Usage(format!(
                "--metric {name}: there is no such column{near}"
            )))
        }
        metric => Ok((name.clone(), metric)),
    };
    asked.iter().map(column).collect()
}

fn layer(asked: Option<usize>, model: &Model) -> Result<usize> {
    let card = model.card();
    match asked {
        Some(layer) if layer > card.blocks => Err(Error::Usage(format!(
            "--layer {layer}: {} has the layers 0 to {}",
            card.name, card.blocks
        ))),
        asked => Ok(asked.unwrap_or(card.blocks)),
    }
}

/// A sweep for people: the text, and strengths downward.
fn describe(
    curve: &Curve,
    record: &Record,
    finish: Finish,
    layer: usize,
    columns: &Columns,
    output: &Output,
) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    if let Some((name, grid)) = record.branches.first() {
        let text = drawn(grid);
        let text = match output.is_terminal() {
            true => text::scrub_lines(&text),
            false => text,
        };
        let _ = writeln!(out, "{name} ({}):{text}\n", finish.label());
        let (positions, which) = summarised([grid], &record.model);
        let _ = writeln!(
            out,
            "layer {layer} of {}: mean ± standard deviation over {} {which} positions of this text, read under every \
             strength;\ndifference from the plain model; kl_ab is KL(baseline‖steered)\n",
            curve.states().saturating_sub(1),
            positions.len()
        );
    }
    let mut header = vec!["strength".to_owned()];
    for (name, metric) in columns {
        header.push(name.clone());
        header.extend(metric.map(|_| "difference".to_owned()));
    }
    let mut rows = vec![header];
    let shown = |spread: Option<Spread>, digits: usize| match spread {
        Some(s) => format!("{:.digits$} ± {:.digits$}", s.mean, s.std),
        None => "–".into(),
    };
    let mut row = |name: String, point: Option<&Point>, index: Option<usize>| {
        let mut row = vec![name];
        for (_, metric) in columns {
            let Some(metric) = *metric else {
                row.push(shown(point.and_then(|p| p.divergence(layer)), 4));
                continue;
            };
            row.push(shown(point.and_then(|p| p.spread(layer, metric)), 3));
            let difference = index.and_then(|i| curve.difference(i, layer, metric));
            row.push(difference.map_or("–".into(), |d| format!("{d:+.3}")));
        }
        rows.push(row);
    };
    row("plain".into(), curve.baseline().map(AsRef::as_ref), None);
    for (i, strength) in curve.strengths().iter().enumerate() {
        row(short(*strength), curve.point(i).map(AsRef::as_ref), Some(i));
    }
    out.push_str(&table::aligned(&rows, &[]));
    out
}

/// A strength in as many digits as tell it from its neighbours in most ranges.
fn short(strength: f64) -> String {
    let exact = strength.to_string();
    match exact.len() {
        0..=7 => exact,
        _ if strength.abs() < 0.01 => format!("{strength:.3e}"),
        _ => format!("{strength:.4}"),
    }
}

/// What `compare --sweep --json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: &'a str,
    steering: &'a Option<serde_json::Value>,
    strengths: &'a [f64],
    prompt_tokens: usize,
    /// What the plain model drew, and all token ids, which every strength has read.
    text: String,
    token_ids: Vec<u32>,
    finish: &'static str,
    /// The positions behind the numbers.
    positions: Vec<usize>,
    baseline: Vec<Row<'a>>,
    points: Vec<Row<'a>>,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    strength: Option<f64>,
    layer: usize,
    metric: &'a str,
    unit: &'static str,
    #[serde(flatten)]
    spread: Option<Spread>,
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<f64>,
}

fn swept<'a>(curve: &'a Curve, record: &'a Record, finish: Finish, model: &'a Model) -> Report<'a> {
    let grid = record.branches.first().map(|(_, grid)| grid);
    let rows = |index: Option<usize>| {
        let point = match index {
            Some(index) => curve.point(index),
            None => curve.baseline(),
        };
        let strength = index.map(|index| curve.strengths()[index]);
        let mut rows = Vec::new();
        for layer in 0..curve.states() {
            for (i, spec) in curve.schema().metrics().iter().enumerate() {
                rows.push(Row {
                    strength,
                    layer,
                    metric: &spec.name,
                    unit: spec.unit.label(),
                    spread: point.and_then(|p| p.spread(layer, Metric(i))),
                    difference: index.and_then(|at| curve.difference(at, layer, Metric(i))),
                });
            }
            if index.is_some() {
                rows.push(Row {
                    strength,
                    layer,
                    metric: DIVERGENCE,
                    unit: "nats",
                    spread: point.and_then(|p| p.divergence(layer)),
                    difference: None,
                });
            }
        }
        rows
    };
    Report {
        model: &model.card().name,
        steering: &record.steering,
        strengths: curve.strengths(),
        prompt_tokens: grid.map_or(0, |grid| grid.prompt_len()),
        text: grid.map_or(String::new(), |grid| text::scrub_lines(&drawn(grid))),
        token_ids: grid.map_or(Vec::new(), |grid| {
            grid.tokens().iter().map(|t| t.id).collect()
        }),
        finish: finish.label(),
        positions: grid.map_or(Vec::new(), |grid| summarised([grid], model.card()).0),
        baseline: rows(None),
        points: (0..curve.strengths().len())
            .flat_map(|i| rows(Some(i)))
            .collect(),
    }
}
