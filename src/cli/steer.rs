//! `entroscope steer`: make control vectors from contrast pairs, look at them, convert and combine them.

use super::Context;
use super::args::read_prompt;
use super::output::Output;
use super::progress::{Counted, Progress};
use super::run::load_model;
use crate::error::{Error, Result};
use crate::export::atomic;
use crate::steer::{
    self, ControlVector, Format, Method, Opened, Pair, Position, Settings, Trained, parse_layers,
};
use crate::text;
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use serde::Serialize;
use std::fmt::Write as _;
use std::ops::{ControlFlow, RangeInclusive};
use std::path::{Path, PathBuf};

/// Arguments of `steer`.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// What to do with control vectors.
    #[command(subcommand)]
    pub action: Action,
}

/// The subcommands of `steer`.
#[derive(Subcommand, Clone, Debug)]
pub enum Action {
    /// Make a control vector from contrast pairs
    Train(Box<TrainArgs>),
    /// Say what is in a control vector, and whether it fits the model
    Show(ShowArgs),
    /// Write a control vector in another format
    Convert(ConvertArgs),
    /// Add, subtract, scale and normalise control vectors
    Arith(ArithArgs),
}

/// Arguments of `steer train`.
#[derive(ClapArgs, Clone, Debug)]
pub struct TrainArgs {
    /// File of pairs: {"positive": "…", "negative": "…"} on each line
    #[arg(value_name = "PAIRS", required_unless_present_any = ["template", "positive_file"])]
    pub pairs: Option<PathBuf>,
    /// Positive texts, one a line, as llama.cpp has them
    #[arg(
        long,
        value_name = "F",
        requires = "negative_file",
        conflicts_with = "pairs"
    )]
    pub positive_file: Option<PathBuf>,
    /// Negative texts, one a line
    #[arg(long, value_name = "F", requires = "positive_file")]
    pub negative_file: Option<PathBuf>,
    /// Text with {} where the words go, as repeng has it
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["pairs", "positive_file"], requires = "positive")]
    pub template: Option<String>,
    /// Words of the positive side
    #[arg(long, value_name = "A,B", value_delimiter = ',', requires = "template")]
    pub positive: Vec<String>,
    /// Words of the negative side
    #[arg(long, value_name = "A,B", value_delimiter = ',', requires = "template")]
    pub negative: Vec<String>,
    /// What follows the template, one a line or a JSON list
    #[arg(long, value_name = "F", requires = "template")]
    pub suffixes: Option<PathBuf>,
    /// How a direction is found
    #[arg(long, value_name = "M", value_enum, default_value_t = MethodName::Mean)]
    pub method: MethodName,
    /// Tokens that are read: last, mean, from:N
    #[arg(long, value_name = "P", default_value = "last")]
    pub position: Position,
    /// Layers A..B to find directions for [default: 2 to the last]
    #[arg(long, value_name = "A..B", value_parser = parse_layers)]
    pub layers: Option<RangeInclusive<usize>>,
    /// Texts read at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub batch: u16,
    /// Share of the pairs kept back to measure the separation on
    #[arg(long, value_name = "Q", default_value_t = 0.25)]
    pub held_out: f64,
    /// Seed of the choice of those
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// Give every direction length 1
    #[arg(long)]
    pub normalise: bool,
    /// Put each text into the user's turn of the model's chat template
    #[arg(long)]
    pub chat: bool,
    /// Where the vector goes
    #[command(flatten)]
    pub target: Target,
    /// Print the separation of each layer as JSON
    #[arg(long)]
    pub json: bool,
}

/// How a direction is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MethodName {
    /// The mean of positive − negative
    Mean,
    /// The first principal component of the differences (repeng's pca_diff)
    PcaDiff,
    /// The first principal component around the centres of the pairs (repeng's pca_center)
    PcaCenter,
}

impl MethodName {
    fn method(self) -> Method {
        match self {
            Self::Mean => Method::Mean,
            Self::PcaDiff => Method::PcaDiff,
            Self::PcaCenter => Method::PcaCenter,
        }
    }
}

/// Where a vector is written.
#[derive(ClapArgs, Clone, Debug)]
pub struct Target {
    /// File to write: .gguf (llama.cpp, repeng), .safetensors or .json
    #[arg(long, short, value_name = "F")]
    pub out: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `steer show`.
#[derive(ClapArgs, Clone, Debug)]
pub struct ShowArgs {
    /// The control vector
    #[arg(value_name = "V")]
    pub file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `steer convert`.
#[derive(ClapArgs, Clone, Debug)]
pub struct ConvertArgs {
    /// The control vector to read: .gguf, .safetensors, .pt, .json, .yaml
    #[arg(value_name = "V")]
    pub file: PathBuf,
    /// Keep these layers; one direction for all becomes one for each
    #[arg(long, value_name = "A..B", value_parser = parse_layers)]
    pub layers: Option<RangeInclusive<usize>>,
    /// Repeat directions that are too short until they have this many numbers
    #[arg(long, value_name = "D")]
    pub tile: Option<usize>,
    /// Where it goes
    #[command(flatten)]
    pub target: Target,
}

/// Arguments of `steer arith`.
#[derive(ClapArgs, Clone, Debug)]
pub struct ArithArgs {
    /// Control vectors to add up, each with a factor if wanted: 0.5*V.gguf; negative ones after `--`
    #[arg(value_name = "[K*]V", required = true)]
    pub plus: Vec<String>,
    /// Control vectors to subtract
    #[arg(long, value_name = "[K*]V")]
    pub minus: Vec<String>,
    /// Give every direction of the result length 1
    #[arg(long)]
    pub normalise: bool,
    /// Where it goes
    #[command(flatten)]
    pub target: Target,
}

/// Do it.
///
/// # Errors
/// If a file cannot be read or written, vectors do not fit, or the user interrupts.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    match &args.action {
        Action::Train(args) => train(args, context),
        Action::Show(args) => show(args, context),
        Action::Convert(args) => {
            let mut vector = open(&args.file, context)?.vector;
            if let Some(width) = args.tile {
                vector = vector.tiled(width)?;
            }
            if let Some(layers) = &args.layers {
                vector = vector.at(layers.clone())?;
            }
            args.target.write(&vector, context)
        }
        Action::Arith(args) => {
            let plus = args.plus.iter().map(|term| (1.0, term));
            let minus = args.minus.iter().map(|term| (-1.0, term));
            let mut sum: Option<ControlVector> = None;
            for (sign, term) in plus.chain(minus) {
                let (factor, file) = factor(term);
                let vector = open(file, context)?.vector.scaled(sign * factor);
                sum = Some(match sum {
                    Some(sum) => sum.plus(&vector)?,
                    None => vector,
                });
            }
            let Some(sum) = sum else {
                return Err(Error::Usage("there is nothing to add up".into()));
            };
            let sum = sum.finite()?;
            let sum = if args.normalise {
                sum.normalised()
            } else {
                sum
            };
            args.target.write(&sum, context)
        }
    }
}

/// `0.5*V.gguf`: a factor and a file. A name with a star that no number precedes is a name.
fn factor(term: &str) -> (f32, &Path) {
    let parts = term.split_once('*');
    let parsed = parts.and_then(|(factor, file)| Some((factor.trim().parse().ok()?, file)));
    let (factor, file) = parsed.unwrap_or((1.0, term));
    (factor, Path::new(file))
}

fn open(file: &Path, context: &Context) -> Result<Opened> {
    let opened = steer::open(file)?;
    for warning in &opened.warnings {
        context
            .notes
            .warn(&format!("{}: {warning}", text::path(file)));
    }
    Ok(opened)
}

impl Target {
    /// What would be refused at the end.
    fn check(&self) -> Result<Format> {
        let format = Format::of(&self.out)?;
        atomic::check_file(&self.out, self.force)?;
        Ok(format)
    }

    fn write(&self, vector: &ControlVector, context: &Context) -> Result<()> {
        let format = self.check()?;
        let (bytes, dropped) = vector.to_bytes(format)?;
        for remark in dropped {
            context.notes.warn(&remark);
        }
        atomic::write_file(&self.out, self.force, |out| out.write_all(&bytes))?;
        context
            .notes
            .say(&format!("wrote {}", text::path(&self.out)));
        Ok(())
    }
}

/// What `steer train --json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: &'a str,
    trained_on: usize,
    held_out: usize,
    separation: &'a [steer::Separation],
}

fn train(args: &TrainArgs, context: &Context) -> Result<()> {
    args.target.check()?;
    if !(0.0..1.0).contains(&args.held_out) {
        return Err(Error::Usage(
            "--held-out is a share: at least 0 and less than 1".into(),
        ));
    }
    let pairs = pairs(args)?;
    let settings = Settings {
        method: args.method.method(),
        position: args.position,
        layers: args.layers.clone(),
        batch: args.batch.into(),
        held_out: args.held_out,
        seed: args.seed,
        normalise: args.normalise,
        chat: args.chat,
    };
    let model = load_model(&context.settings.model, context)?;
    let trained = {
        let _heed = context.interrupt.heed();
        let mut progress = Progress::new(&context.notes, Counted::Items);
        steer::train(&model, &pairs, &settings, &mut |done, total| {
            progress.update("reading texts", done as u64, Some(total as u64));
            match context.interrupt.raised() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?
    };
    let mut output = Output::new();
    if args.json {
        output.json(&Report {
            model: &model.card().name,
            trained_on: trained.trained_on,
            held_out: trained.held_out,
            separation: &trained.separation,
        })?;
    } else {
        output.write(&separation(&trained))?;
    }
    output.flush()?;
    args.target.write(&trained.vector, context)
}

fn pairs(args: &TrainArgs) -> Result<Vec<Pair>> {
    if let (Some(positive), Some(negative)) = (&args.positive_file, &args.negative_file) {
        return steer::from_lines(&read_prompt(positive)?, &read_prompt(negative)?);
    }
    if let Some(template) = &args.template {
        let suffixes = match &args.suffixes {
            Some(file) => suffixes(&read_prompt(file)?),
            None => Vec::new(),
        };
        return steer::from_template(template, &args.positive, &args.negative, &suffixes);
    }
    match &args.pairs {
        Some(file) => steer::parse_jsonl(&read_prompt(file)?, file),
        None => Err(Error::Usage("there are no contrast pairs".into())),
    }
}

/// A JSON list of texts, or one text a line.
fn suffixes(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|_| text.lines().map(str::to_owned).collect())
}

/// The separation by layer, for people.
fn separation(trained: &Trained) -> String {
    let mut out = format!(
        "{} pairs to train on, {} kept back\n\nlayer  AUROC  95 % interval  length / state\n",
        trained.trained_on, trained.held_out
    );
    for one in &trained.separation {
        let auroc = one.auroc.map_or("  –  ".into(), |v| format!("{v:.3}"));
        let interval = one
            .interval
            .map_or("–".into(), |(low, high)| format!("{low:.3} – {high:.3}"));
        // Writing into a String cannot fail.
        let _ = writeln!(
            out,
            "{:>5}  {auroc}  {interval:<13}  {:>14.3}",
            one.layer, one.share
        );
    }
    out
}

/// What `steer show` says of a vector.
#[derive(Debug, Serialize)]
struct Shown {
    path: String,
    model_hint: Option<String>,
    d_model: usize,
    /// The L2 norm of the direction of each layer; layer `null` stands for all.
    directions: Vec<Direction>,
    layer_weights: Vec<f64>,
    token_weights: Vec<f64>,
    warnings: Vec<String>,
    /// Why it does not fit the model that was named with --model.
    misfit: Option<String>,
}

#[derive(Debug, Serialize)]
struct Direction {
    layer: Option<usize>,
    norm: f64,
    /// With the direction of the layer before.
    cosine: Option<f64>,
}

fn show(args: &ShowArgs, context: &Context) -> Result<()> {
    let opened = steer::open(&args.file)?;
    let vector = &opened.vector;
    let model = load_model(&context.settings.model, context)?;
    let shown = Shown {
        path: text::path(&args.file),
        model_hint: vector.model_hint.as_deref().map(text::one_line),
        d_model: vector.width(),
        directions: directions(vector),
        layer_weights: opened.layer_weights.clone(),
        token_weights: opened.token_weights.clone(),
        warnings: opened.warnings.clone(),
        misfit: vector.fits(model.card()).err().map(|e| e.to_string()),
    };
    let mut output = Output::new();
    if args.json {
        output.json(&shown)?;
    } else {
        output.write(&describe(&shown, &model.card().name))?;
    }
    output.flush()
}

fn directions(vector: &ControlVector) -> Vec<Direction> {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    let of = |layer: Option<usize>| {
        let here = vector.direction(layer.unwrap_or(1))?;
        let before = layer.and_then(|layer| vector.direction(layer.checked_sub(1)?));
        let norm = dot(here, here).sqrt();
        let cosine = before.map(|before| dot(here, before) / (norm * dot(before, before).sqrt()));
        Some(Direction {
            layer,
            norm,
            cosine: cosine.filter(|c| c.is_finite()),
        })
    };
    match vector.layers() {
        Some(layers) => layers.into_iter().filter_map(|l| of(Some(l))).collect(),
        None => of(None).into_iter().collect(),
    }
}

fn describe(shown: &Shown, model: &str) -> String {
    let mut out = format!("{}\n", shown.path);
    // Writing into a String cannot fail.
    if let Some(hint) = &shown.model_hint {
        let _ = writeln!(out, "made for    {hint}");
    }
    let _ = writeln!(out, "width       {}", shown.d_model);
    let fits = shown.misfit.as_deref().unwrap_or("yes");
    let _ = writeln!(out, "fits {model:<6} {fits}");
    for (name, weights) in [
        ("layers", &shown.layer_weights),
        ("tokens", &shown.token_weights),
    ] {
        if !weights.is_empty() {
            let list: Vec<String> = weights.iter().map(ToString::to_string).collect();
            let _ = writeln!(out, "{name:<6} weighted {}", list.join(" "));
        }
    }
    for warning in &shown.warnings {
        let _ = writeln!(out, "note        {warning}");
    }
    out.push_str("\nlayer      norm  cosine with the layer before\n");
    for direction in &shown.directions {
        let layer = direction.layer.map_or("all".into(), |l| l.to_string());
        let cosine = direction.cosine.map_or("–".into(), |c| format!("{c:.3}"));
        let _ = writeln!(out, "{layer:>5} {:>9.4}  {cosine}", direction.norm);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_have_factors_and_files_may_have_stars() {
        assert_eq!(factor("a.gguf"), (1.0, Path::new("a.gguf")));
        assert_eq!(factor("-0.5*a*b.gguf"), (-0.5, Path::new("a*b.gguf")));
        assert_eq!(factor("x*b.gguf"), (1.0, Path::new("x*b.gguf")));
    }

    #[test]
    fn suffixes_are_lines_or_a_list() {
        assert_eq!(suffixes("a\nb c"), ["a", "b c"]);
        assert_eq!(suffixes("[\"a\", \"b\\nc\"]"), ["a", "b\nc"]);
    }
}
