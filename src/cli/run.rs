//! `entroscope run`: read a prompt, go on from it, and print or write what was read on the way.

use super::args::{PromptArgs, ReadingArgs};
use super::json::JsonLines;
use super::output::Output;
use super::{Context, progress, table};
use crate::error::{Error, Result};
use crate::export;
use crate::model::tokenizer::TokenStream;
use crate::model::{LoadOptions, Model, ModelCard, Tokenizer};
use crate::session::{self, Event, Finish, Prompt, Recorder};
use crate::steer::{Plan, Spec};
use crate::text::{self, Scrubber};
use crate::trace::{self, Aim, Kind, Record, Unit};
use clap::Args as ClapArgs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Tokens drawn unless something else is asked for.
pub const MAX_NEW_TOKENS: usize = 48;

/// Arguments of `run`.
#[derive(ClapArgs, Clone, Debug, Default)]
pub struct Args {
    /// Where the prompt comes from.
    #[command(flatten)]
    pub prompt: PromptArgs,
    /// How it is read and gone on from.
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// Print a table of tokens and one of layers instead of the text
    #[arg(long, conflicts_with = "json")]
    pub table: bool,
    /// Print one JSON record per token instead of the text
    #[arg(long)]
    pub json: bool,
    /// Write the tables and manifest.json into this folder
    #[arg(long, short, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Replace the tables of an earlier run in --out
    #[arg(long, requires = "out")]
    pub force: bool,
    /// Push the states: V.gguf[,strength=F][,layers=A..B][,tokens=all|prompt|generated|from:N][,keep-norm] and more, see the
    /// README; repeated ones add up
    #[arg(long, value_name = "S", help_heading = "Steering")]
    pub steer: Vec<Spec>,
}

/// Do it.
///
/// # Errors
/// If the prompt, the model or the folder are not usable, the run fails, or the user interrupts it.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    // Everything that can be refused is refused before a model is loaded.
    if let Some(dir) = &args.out {
        export::check_target(dir, args.force)?;
    }
    let prompt = args.prompt.read(args.reading.chat)?;
    let model = load_model(&context.settings.model, context)?;
    let reading = &args.reading;
    let mut job = reading.job(prompt, &context.settings, MAX_NEW_TOKENS);
    job.steering = load_plan(&args.steer, &model, context)?;
    check_job(reading, &job.prompt, &model)?;
    if !model.card().causal {
        job.max_new_tokens = 0;
    }

    let mut printer = Printer::new(args, &model);
    let mut recorder = Recorder::new(Arc::clone(model.card()), &job);
    let mut failed = None;
    // Until the end: files that are being written are finished.
    let _heed = context.interrupt.heed();
    let finish = session::run(&model, &job, &mut |event| {
        recorder.apply(&event);
        if let Err(error) = printer.event(&event, recorder.record()) {
            failed = Some(error);
        }
        let nobody_listens = printer.output.is_closed() && args.out.is_none();
        if failed.is_some() || nobody_listens || context.interrupt.raised() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    let record = recorder.into_record();
    let interrupted = context.interrupt.raised();
    printer.finish(&record, interrupted)?;
    if interrupted {
        if let Some(dir) = &args.out {
            context
                .notes
                .say(&format!("nothing was written to {}", text::path(dir)));
        }
        return Err(Error::Interrupted);
    }

    if printer.output.is_closed() && args.out.is_none() {
        // Whoever listened has heard enough.
        return Ok(());
    }
    context.notes.say(&summary(&record, finish));
    for remark in remarks(args, &record) {
        context.notes.say(&remark);
    }
    if let Some(dir) = &args.out {
        let written = export::write_record(dir, &record, model.tokenizer(), args.force)?;
        say_written(&written, dir, context);
    }
    Ok(())
}

/// Say which files lie in a folder now.
pub fn say_written(written: &[PathBuf], dir: &Path, context: &Context) {
    let names: Vec<String> = written
        .iter()
        .filter_map(|path| Some(text::scrub(&path.file_name()?.to_string_lossy())))
        .collect();
    context.notes.say(&format!(
        "wrote {} to {}",
        names.join(", "),
        text::path(dir)
    ));
}

/// Load a model with progress on standard error.
///
/// # Errors
/// If there is no such model or it cannot be read.
pub fn load_model(reference: &str, context: &Context) -> Result<Model> {
    let mut progress = progress::Progress::new(&context.notes, progress::Counted::Bytes);
    let mut heard = |what: &str, done, total| progress.update(what, done, total);
    session::open(reference, &load_options(context), &mut heard)
}

/// Read control vectors and hold them against the model.
///
/// # Errors
/// If one cannot be read or does not fit.
pub fn load_plan(specs: &[Spec], model: &Model, context: &Context) -> Result<Plan> {
    let (plan, remarks) = Plan::load(specs, model.card())?;
    for remark in remarks {
        context.notes.warn(&remark);
    }
    Ok(plan)
}

/// How models are loaded.
pub fn load_options(context: &Context) -> LoadOptions {
    LoadOptions {
        cache: context.folders.cache.clone(),
        precision: context.settings.precision,
        device: context.settings.device.clone(),
        ..LoadOptions::default()
    }
}

/// What the session would refuse too, said in terms of the flags.
///
/// # Errors
/// If the model has no place for one of them.
pub fn check_job(args: &ReadingArgs, prompt: &Prompt, model: &Model) -> Result<()> {
    let card: &ModelCard = model.card();
    if let (false, Some(asked @ 1..)) = (card.causal, args.max_new_tokens) {
        return Err(Error::Usage(format!(
            "--max-new-tokens {asked}: {} fills in {} and generates nothing; leave the flag out",
            card.name,
            card.mask_text()
        )));
    }
    if matches!(prompt, Prompt::Chat(_)) && !card.chat_template {
        return Err(Error::Usage(format!(
            "{} brings no chat template; leave out --chat",
            card.name
        )));
    }
    if let Prompt::Ids(ids) = prompt
        && let Some(id) = ids.iter().find(|id| **id as usize >= card.vocab)
    {
        return Err(Error::Usage(format!(
            "--prompt-ids: {} has no token {id}; its ids run from 0 to {}",
            card.name,
            card.vocab.saturating_sub(1)
        )));
    }
    Ok(())
}

/// The forms in which a run is printed while it goes on.
#[derive(Debug)]
enum Form {
    /// The drawn text as it comes.
    Text {
        stream: TokenStream,
        scrubber: Scrubber,
        at_line_start: bool,
    },
    /// The whole text and what belongs into its gaps, at the end.
    Filled,
    /// Nothing until the end.
    Table,
    /// A record per token as it comes.
    Json(JsonLines),
}

#[derive(Debug)]
struct Printer {
    output: Output,
    tokenizer: Arc<Tokenizer>,
    form: Form,
}

impl Printer {
    fn new(args: &Args, model: &Model) -> Self {
        let output = Output::new();
        let form = if args.json {
            Form::Json(JsonLines::new(
                Arc::clone(model.tokenizer()),
                output.is_terminal(),
            ))
        } else if args.table {
            Form::Table
        } else if !model.card().causal {
            Form::Filled
        } else {
            Form::Text {
                stream: TokenStream::new(Arc::clone(model.tokenizer()), true),
                scrubber: Scrubber::keeping_lines(),
                at_line_start: true,
            }
        };
        Self {
            output,
            tokenizer: Arc::clone(model.tokenizer()),
            form,
        }
    }

    fn event(&mut self, event: &Event, record: &Record) -> Result<()> {
        match &mut self.form {
            Form::Text { stream, .. } => {
                if let Event::Token(token) = event {
                    // The prompt goes through the stream too: it decides whether a word begins with a space.
                    let piece = stream.push(token.id);
                    if token.kind == Kind::Generated && !piece.is_empty() {
                        self.print_text(&piece)?;
                        self.output.flush()?;
                    }
                }
            }
            Form::Filled | Form::Table => {}
            Form::Json(lines) => lines.print_ready(record, &mut self.output)?,
        }
        Ok(())
    }

    fn print_text(&mut self, piece: &str) -> Result<()> {
        let Form::Text {
            scrubber,
            at_line_start,
            ..
        } = &mut self.form
        else {
            return Ok(());
        };
        *at_line_start = piece.ends_with('\n');
        if self.output.is_terminal() {
            let mut safe = String::new();
            scrubber.push(piece, &mut safe);
            self.output.write(&safe)
        } else {
            self.output.write(piece)
        }
    }

    /// What belongs into the gaps, after a free line; nothing where there are none.
    fn fill(&mut self, record: &Record) -> Result<()> {
        let filled = table::predictions(record, &self.tokenizer);
        if !filled.is_empty() {
            self.output.write("\n")?;
            self.output.write(&filled)?;
        }
        Ok(())
    }

    fn finish(&mut self, record: &Record, interrupted: bool) -> Result<()> {
        match &mut self.form {
            Form::Text { stream, .. } => {
                let rest = stream.finish();
                if !rest.is_empty() {
                    self.print_text(&rest)?;
                }
                if let Form::Text {
                    at_line_start: false,
                    ..
                } = self.form
                {
                    self.output.write("\n")?;
                }
            }
            Form::Filled | Form::Table if interrupted => {}
            Form::Filled => {
                let text = read_text(record, &self.tokenizer);
                let text = match self.output.is_terminal() {
                    true => text::scrub_lines(&text),
                    false => text,
                };
                self.output.line(&text)?;
                self.fill(record)?;
            }
            Form::Table => {
                self.output.write(&table::tokens(record))?;
                self.output.write("\n")?;
                self.output.write(&table::layers(record))?;
                self.fill(record)?;
            }
            Form::Json(lines) => {
                if !interrupted {
                    lines.print_rest(record, &mut self.output)?;
                }
            }
        }
        self.output.flush()
    }
}

/// The text as a masked model read it, without what frames it for the model.
fn read_text(record: &Record, tokenizer: &Arc<Tokenizer>) -> String {
    let frame = ["[CLS]", "[SEP]", "<s>", "</s>"].map(|token| tokenizer.id(token));
    let mut stream = TokenStream::new(Arc::clone(tokenizer), false);
    let mut text = String::new();
    for (_, grid) in record.branches.iter().take(1) {
        for token in grid
            .tokens()
            .iter()
            .filter(|t| !frame.contains(&Some(t.id)))
        {
            text.push_str(&stream.push(token.id));
        }
    }
    text.push_str(&stream.finish());
    text
}

/// What the user may not expect of this model, one line each.
fn remarks(args: &Args, record: &Record) -> Vec<String> {
    let card = &record.model;
    let mut remarks = Vec::new();
    if !card.causal {
        let (name, mask) = (&card.name, card.mask_text());
        if args.reading.max_new_tokens.is_none() {
            remarks.push(format!("{name} fills in {mask} and generates nothing"));
        }
        let gaps = record.branches.first().map(|(_, grid)| grid.masks(card));
        if card.mask.is_some() && gaps.is_none_or(|gaps| gaps.is_empty()) {
            remarks.push(format!(
                "the text has no {mask}: write {mask} where a word is missing, and what belongs there is printed"
            ));
        }
    }
    if args.reading.attention && !card.attends() {
        remarks.push(format!(
            "{} has no attention: attention.csv and attention_layers.csv are left out",
            card.name
        ));
    }
    remarks
}

/// What came out, in two or three lines.
fn summary(record: &Record, finish: Finish) -> String {
    let Some((_, grid)) = record.branches.first() else {
        return String::new();
    };
    let (prompt, all) = (grid.prompt_len(), grid.tokens());
    let drawn = &all[prompt..];
    let mut lines = match (drawn.first(), drawn.last()) {
        (Some(first), Some(last)) => {
            let seconds = last.seconds - first.seconds;
            let rate = if drawn.len() > 1 && seconds > 0.0 {
                format!(" ({:.1} tokens/s)", (drawn.len() - 1) as f64 / seconds)
            } else {
                String::new()
            };
            format!(
                "{} prompt tokens, {} drawn in {:.2} s{rate}, first after {:.2} s: {}",
                prompt,
                drawn.len(),
                last.seconds,
                first.seconds,
                finish.label()
            )
        }
        _ if grid.aim() == Aim::Itself => format!(
            "{prompt} tokens read, {} of them {}",
            grid.masks(&record.model).len(),
            record.model.mask_text()
        ),
        _ => format!("{prompt} prompt tokens read, none drawn"),
    };
    let (positions, which) = trace::summarised([grid], &record.model);
    let n = positions.len();
    let means: Vec<String> = table::SUMMARY
        .iter()
        .filter_map(|name| {
            let metric = record.schema.find(name)?;
            let (mean, _) = *grid
                .mean_profile(positions.iter().copied(), metric)
                .last()?;
            let spec = record.schema.spec(metric);
            let label = spec.label.to_lowercase();
            let unit = match spec.unit {
                Unit::Share => "",
                unit => unit.label(),
            };
            Some(format!("{label} {:.3} {unit}", mean?).trim_end().to_owned())
        })
        .collect();
    if !means.is_empty() {
        lines.push_str(&format!(
            "\nlast layer, mean over {n} {which} positions: {}",
            means.join(", ")
        ));
    }
    lines
}
