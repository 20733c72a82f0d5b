//! `entroscope pretrain`: make a small model whose knowledge is known fact by fact.

use super::Context;
use super::output::{Notes, Output};
use super::progress::{Counted, Progress};
use super::run::load_model;
use crate::error::{Error, Result};
use crate::export::atomic;
use crate::model::{Decoder, gguf};
use crate::text;
use crate::train::evaluate::{self, Quality};
use crate::train::pretrain::{Plan, Trainer};
use crate::train::world::{Probe, Probes};
use crate::train::{self, corpus};
use clap::{Args as ClapArgs, ValueEnum};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where a run that is not finished keeps its state.
const CHECKPOINT: &str = "checkpoint.safetensors";

/// The measured quality of a model.
const QUALITY: &str = "quality.json";

/// How often the state is saved.
const SAVE_EVERY: Duration = Duration::from_secs(120);

/// Arguments of `pretrain`.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// What to train
    #[arg(long, value_name = "P", value_enum, default_value_t = Preset::Demo)]
    pub preset: Preset,
    /// Folder for the model, its tokenizer, its probes and the state of an unfinished run
    #[arg(long, short, value_name = "DIR", required_unless_present = "evaluate")]
    pub out: Option<PathBuf>,
    /// Stories to train on, divided by <|endoftext|>; without them the world is all there is
    #[arg(long, value_name = "F")]
    pub stories: Option<PathBuf>,
    /// Optimiser steps instead of the preset's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: Option<u64>,
    /// Go on with the unfinished run in --out
    #[arg(long)]
    pub resume: bool,
    /// Replace what an earlier run left in --out
    #[arg(long, conflicts_with = "resume")]
    pub force: bool,
    /// Seed of the world, the weights and the order of the text
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Worker threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub threads: Option<u64>,
    /// Instead of training, ask a trained model what it knows; prints the figures, and writes them into --out if given
    #[arg(long, value_name = "M", conflicts_with_all = ["resume", "steps", "stories", "seed", "threads"])]
    pub evaluate: Option<String>,
    /// Folder with the probes to evaluate on [default: the model's folder]
    #[arg(long, value_name = "DIR", requires = "evaluate")]
    pub probes: Option<PathBuf>,
}

/// What to train.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// The embedded model: 12 blocks, width 192.
    Demo,
}

impl Args {
    fn plan(&self) -> Plan {
        let mut plan = match self.preset {
            Preset::Demo => Plan::demo(),
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        plan.threads = self.threads.map_or(cores, |n| n as usize);
        plan.steps = self.steps.map_or(plan.steps, |n| n as usize);
        plan.seed = self.seed.unwrap_or(plan.seed);
        plan
    }
}

/// Do it.
///
/// # Errors
/// If the stories or the folder are not usable, training fails, or the user interrupts it (the state is saved then).
pub fn run(args: &Args, context: &Context) -> Result<()> {
    match (&args.evaluate, &args.out) {
        (Some(reference), out) => evaluate_model(reference, args, out.as_deref(), context),
        (None, Some(dir)) => train_model(args, dir, context),
        (None, None) => Err(Error::Usage("--out is missing".into())),
    }
}

/// Measure a model on the probes of its world.
fn evaluate_model(
    reference: &str,
    args: &Args,
    out: Option<&Path>,
    context: &Context,
) -> Result<()> {
    let folder = args.probes.as_deref().unwrap_or(Path::new(reference));
    if !folder.is_dir() {
        return Err(Error::Usage(format!(
            "name the folder with the probes of {} in --probes",
            text::one_line(reference)
        )));
    }
    if let Some(dir) = out {
        atomic::writable(dir)?;
    }
    let probes = Probes {
        known: read_probes(folder, "known")?,
        near_ood: read_probes(folder, "near_ood")?,
        withheld: read_probes(folder, "withheld")?,
        hops: read_probes(folder, "hops")?,
        stories: read_probes(folder, "stories")?,
    };
    let model = load_model(reference, context)?;
    let tokenizer: tokenizers::Tokenizer = model.tokenizer().to_json()?.parse().map_err(|e| {
        Error::failed(
            format!("the tokenizer cannot be read: {e}"),
            "Fetch it again.",
        )
    })?;
    let quality = measure(model.decoder(), &tokenizer, &probes, &context.notes)?;
    let mut output = Output::new();
    output.write(&text::scrub_lines(&quality.table()))?;
    output.flush()?;
    if let Some(dir) = out {
        write_quality(dir, &quality, args.force)?;
        context
            .notes
            .say(&format!("wrote {QUALITY} to {}", text::path(dir)));
    }
    Ok(())
}

fn measure(
    decoder: &Decoder,
    tokenizer: &tokenizers::Tokenizer,
    probes: &Probes,
    notes: &Notes,
) -> Result<Quality> {
    let mut progress = Progress::new(notes, Counted::Items);
    evaluate::quality(decoder, tokenizer, probes, &mut |done, total| {
        progress.update("asking probes", done as u64, Some(total as u64));
    })
}

fn write_quality(dir: &Path, quality: &Quality, force: bool) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(quality)
        .map_err(|e| Error::failed(format!("the figures are no JSON: {e}"), "This is a bug."))?;
    json.push(b'\n');
    atomic::write_file(&dir.join(QUALITY), force, |out| out.write_all(&json))
}

fn read_probes(folder: &Path, name: &str) -> Result<Vec<Probe>> {
    let file = folder.join(format!("{name}.jsonl"));
    let source = std::fs::read_to_string(&file).map_err(|e| Error::read(&file, &e))?;
    source
        .lines()
        .enumerate()
        .map(|(i, line)| {
            serde_json::from_str(line).map_err(|e| {
                Error::file(
                    &file,
                    format!("line {} is no probe: {e}", i + 1),
                    "Train the model again, or fetch its folder again.",
                )
            })
        })
        .collect()
}

/// Start the program over with an environment in which workers do not get into each other's way: candle would split every
/// operation over all cores, and glibc would return each large block to the system at once. Both read their settings
/// only once, when a process starts. Training works without this, at about half the speed.
#[cfg(unix)]
fn start_over_for_workers() {
    use std::os::unix::process::CommandExt;
    const THREADS: &str = "RAYON_NUM_THREADS";
    if std::env::var_os(THREADS).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let error = std::process::Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(THREADS, "1")
        .env("MALLOC_MMAP_THRESHOLD_", "4294967296")
        .env("MALLOC_TRIM_THRESHOLD_", "8589934592")
        .env("MALLOC_TOP_PAD_", "268435456")
        .exec();
    tracing::warn!("training goes on at a lower speed: {error}");
}

fn train_model(args: &Args, dir: &Path, context: &Context) -> Result<()> {
    #[cfg(unix)]
    start_over_for_workers();
    let plan = args.plan();
    let checkpoint = dir.join(CHECKPOINT);
    if !args.resume {
        crate::export::check_target(dir, args.force)?;
    } else if !checkpoint.is_file() {
        return Err(Error::file(
            &checkpoint,
            "is not there, so there is nothing to go on with",
            "Leave out --resume to begin.",
        ));
    }
    std::fs::create_dir_all(dir).map_err(|e| Error::write(dir, &e))?;
    let raw = match &args.stories {
        Some(file) => std::fs::read_to_string(file).map_err(|e| Error::read(file, &e))?,
        None => String::new(),
    };
    let stories = corpus::clean_stories(&raw);
    if args.stories.is_some() && stories.is_empty() {
        return Err(Error::Usage(
            "--stories holds no story: plain English ones are expected, divided by <|endoftext|>"
                .into(),
        ));
    }
    let data = |e: train::DataError| Error::failed(text::one_line(&e.to_string()), "");
    let notes = &context.notes;
    notes.say("making the world and the tokenizer");
    let (world, tokenizer) = train::prepare(plan.seed, &stories, plan.vocab).map_err(data)?;
    let stream = {
        let total = (plan.steps * plan.batch * plan.context + 1) as u64;
        let mut progress = Progress::new(notes, Counted::Items);
        Trainer::pack(&plan, &world, &stories, &tokenizer, &mut |done| {
            progress.update("packing tokens", done as u64, Some(total));
        })?
    };
    let mut trainer = Trainer::new(plan.clone(), stream)?;
    if args.resume {
        trainer.resume(&checkpoint)?;
        notes.say(&format!("going on after step {}", trainer.step()));
    }

    let heed = context.interrupt.heed();
    let mut progress = Progress::new(notes, Counted::Items);
    let mut saved = Instant::now();
    let outcome = trainer.run(&mut |trainer, at| {
        let what = format!("loss {:.3}, {:.0} tokens/s", at.loss, at.tokens_per_second);
        progress.update(&what, at.step as u64, Some(at.steps as u64));
        let stop = context.interrupt.raised();
        if stop || saved.elapsed() > SAVE_EVERY {
            trainer.save(&checkpoint)?;
            saved = Instant::now();
        }
        Ok(if stop {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    });
    drop(progress);
    drop(heed);
    if matches!(outcome, Err(Error::Interrupted)) {
        notes.say(&format!(
            "stopped after step {}; go on with --resume",
            trainer.step()
        ));
    }
    outcome?;

    write(
        dir,
        "config.json",
        format!("{:#}\n", plan.config()).as_bytes(),
    )?;
    let original = tokenizer;
    let tokenizer = original
        .to_string(false)
        .map_err(|e| Error::failed(format!("the tokenizer cannot be written: {e}"), ""))?;
    write(dir, "tokenizer.json", tokenizer.as_bytes())?;
    let weights = safetensors::serialize(trainer.variables().tensors(), None)
        .map_err(|e| Error::failed(format!("the weights cannot be written: {e}"), ""))?;
    write(dir, "model.safetensors", &weights)?;
    // What is embedded: about a quarter of the bytes, tokenizer included, in one file.
    let tensors: Vec<_> = trainer
        .variables()
        .tensors()
        .map(|(name, tensor)| (name.to_owned(), tensor.clone()))
        .collect();
    gguf::write_gguf(
        &dir.join("model.gguf"),
        &plan.config(),
        &tensors,
        gguf::GgufType::Q8_0,
        Some(&tokenizer),
        &[],
    )?;
    let probes = world.probes();
    for (name, set) in [
        ("known.jsonl", &probes.known),
        ("near_ood.jsonl", &probes.near_ood),
        ("withheld.jsonl", &probes.withheld),
        ("hops.jsonl", &probes.hops),
        ("stories.jsonl", &probes.stories),
    ] {
        write(dir, name, train::to_jsonl(set).map_err(data)?.as_bytes())?;
    }
    let ledger = train::to_jsonl(&world.ledger()).map_err(data)?;
    write(dir, "ledger.jsonl", ledger.as_bytes())?;
    let quality = measure(trainer.decoder(), &original, &probes, notes)?;
    write_quality(dir, &quality, true)?;
    notes.say(&quality.table());
    // The state is of no more use, and twice the size of the model.
    if let Err(e) = std::fs::remove_file(&checkpoint)
        && e.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("{}: {e}", checkpoint.display());
    }
    notes.say(&format!("wrote the model to {}", text::path(dir)));
    Ok(())
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    atomic::write_file(&dir.join(name), true, |out| out.write_all(bytes))
}
