//! The command line: arguments in, a call into the library, text out. One file per subcommand.
//!
//! Data goes to standard output, everything said about it to standard error. Exit codes: 0 done, 1 failed, 2 wrong
//! usage, 130 interrupted.

pub mod args;
pub mod bench;
pub mod compare;
pub mod completions;
pub mod doctor;
mod interrupt;
mod json;
pub mod models;
mod output;
pub mod pretrain;
mod progress;
pub mod run;
mod selfcheck;
pub mod steer;
mod table;
pub mod tui;

use crate::config::{self, Folders, Loaded, Settings};
use crate::error::{Error, Result};
use crate::logging::{self, Level};
use crate::text;
use args::Common;
use clap::{Parser, Subcommand};
use interrupt::Interrupt;
use output::Notes;
use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

/// A terminal microscope for uncertainty inside language models.
///
/// Without a subcommand the screen opens on the embedded model; no network is needed.
#[derive(Parser, Debug)]
#[command(
    name = "entroscope",
    version,
    args_override_self = true,
    after_help = "M is a folder, a .gguf file, a hub id org/name[@revision], or demo.\n\
                  Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."
)]
pub struct Cli {
    /// Options of every subcommand.
    #[command(flatten)]
    pub common: Common,
    /// Options of the screen, when there is no subcommand.
    #[command(flatten)]
    pub screen: tui::Args,
    /// What to do; nothing opens the screen.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Open the screen (the default).
    Tui(tui::Args),
    /// Read a prompt and go on from it, without the screen.
    Run(Box<run::Args>),
    /// Hold a steered run against the plain one, one model against another, or what is known against what is not.
    Compare(Box<compare::Args>),
    /// Make, show, convert and combine control vectors.
    Steer(Box<steer::Args>),
    /// List models, or describe one.
    Models(models::Args),
    /// Check this machine, this terminal and the model.
    Doctor(doctor::Args),
    /// Time a model on this machine
    Bench(bench::Args),
    /// Train a small model on stories and a synthetic world, or evaluate one.
    Pretrain(pretrain::Args),
    /// Print completions for a shell.
    Completions(completions::Args),
}

impl Command {
    /// The word on the command line.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Tui(_) => "tui",
            Self::Run(_) => "run",
            Self::Compare(_) => "compare",
            Self::Steer(_) => "steer",
            Self::Models(_) => "models",
            Self::Doctor(_) => "doctor",
            Self::Bench(_) => "bench",
            Self::Pretrain(_) => "pretrain",
            Self::Completions(_) => "completions",
        }
    }
}

/// What every subcommand gets.
#[derive(Debug)]
pub struct Context {
    /// Settings with the common flags laid over them.
    pub settings: Settings,
    /// The program's own folders.
    pub folders: Folders,
    /// The log file, when one is kept.
    pub log: Option<std::path::PathBuf>,
    notes: Notes,
    interrupt: Interrupt,
}

/// Parse `arguments` (the program's name first), do what they say, and return the exit code.
pub fn start(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(help_or_error) => {
            // A closed pipe is no reason to fail: `entroscope --help | head`.
            let _ = help_or_error.print();
            return u8::try_from(help_or_error.exit_code()).unwrap_or(2);
        }
    };
    let verbose = cli.common.verbose > 0;
    install_panic_report(verbose);
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            let code = error.exit_code();
            tracing::error!("{error}");
            report(&error, verbose);
            code
        }
    }
}

/// A panic is a bug: its report is for whoever mends it.
fn install_panic_report(verbose: bool) {
    let hook = color_eyre::config::HookBuilder::default()
        .display_env_section(verbose)
        .panic_section("This is a bug in entroscope. Please report it with the lines above.");
    let plain = !std::io::stderr().is_terminal() || std::env::var_os("NO_COLOR").is_some();
    let hook = if plain {
        hook.theme(color_eyre::config::Theme::new())
    } else {
        hook
    };
    // A report that cannot be installed costs nothing but its looks.
    let _ = hook.install();
}

/// Say on standard error what failed: one clear message, with where it came from only on request.
fn report(error: &Error, verbose: bool) {
    let mut stderr = std::io::stderr().lock();
    let message = text::scrub_lines(&error.to_string());
    let _ = match error {
        Error::Interrupted => writeln!(stderr, "{message}"),
        _ => writeln!(stderr, "error: {message}"),
    };
    if verbose {
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            let _ = writeln!(
                stderr,
                "  caused by: {}",
                text::scrub_lines(&error.to_string())
            );
            cause = error.source();
        }
    }
}

fn dispatch(cli: Cli) -> Result<u8> {
    let Cli {
        common,
        screen,
        command,
    } = cli;
    let mut command = match command {
        Some(command) if screen != tui::Args::default() => {
            let name = command.name();
            return Err(Error::Usage(format!(
                "options of the screen stand before `{name}`; put `{name}` first, or leave them out"
            )));
        }
        Some(command) => command,
        None => Command::Tui(screen),
    };
    let folders = Folders::find();
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let (explicit, analysis) = match &command {
        Command::Compare(_) => configuration(common.config.as_deref()),
        _ => (common.config.as_deref(), None),
    };
    let loaded = config::load(explicit, &folders, environment);
    let (mut loaded, broken) = match (loaded, &command) {
        // A broken configuration is something for the doctor to tell, not to die of.
        (Err(error), Command::Doctor(_)) => (Loaded::default(), Some(error)),
        (loaded, _) => (loaded?, None),
    };
    let mut settings = loaded.settings;
    if let (Command::Compare(args), Some(file)) = (&mut command, analysis) {
        let (mut analysis, warnings) = compare::analysis::Analysis::read(file)?;
        analysis.lay_over(&mut settings);
        if common.model.is_some() {
            analysis.models.clear();
        } else if analysis.models.is_empty() {
            let (file, model) = (text::path(file), text::one_line(&settings.model));
            loaded.warnings.push(format!(
                "{file}: names no models, so {model} is read; llm_entropy takes gpt2 and bert-base-uncased then"
            ));
        }
        args.analysis = Some(analysis);
        loaded.warnings.extend(warnings);
    }
    common.lay_over(&mut settings)?;

    let level = match (common.quiet, common.verbose) {
        (true, _) => Level::Quiet,
        (false, 0) => Level::Normal,
        (false, 1) => Level::Verbose,
        (false, _) => Level::Everything,
    };
    let log = logging::start(folders.state.as_deref(), level, settings.log.as_deref());
    let notes = Notes::new(common.quiet);
    for warning in loaded.warnings.iter().chain(&log.warning) {
        notes.warn(warning);
    }
    let context = Context {
        settings,
        folders,
        log: log.file,
        notes,
        interrupt: Interrupt::default(),
    };
    // Not the arguments: a prompt is nobody's business but the user's.
    let (version, name) = (env!("CARGO_PKG_VERSION"), command.name());
    tracing::info!(version, command = name, "started");
    if !matches!(command, Command::Tui(_)) {
        // The screen reads Ctrl-C as a key.
        context.interrupt.listen();
    }
    match command {
        Command::Tui(args) => return tui::run(&args, &context),
        Command::Run(args) => run::run(&args, &context),
        Command::Compare(args) => compare::run(&args, &context),
        Command::Steer(args) => steer::run(&args, &context),
        Command::Models(args) => models::run(&args, &context),
        Command::Doctor(args) => return doctor::run(&args, &context, broken),
        Command::Bench(args) => bench::run(&args, &context),
        Command::Pretrain(args) => pretrain::run(&args, &context),
        Command::Completions(args) => completions::run(&args),
    }
    .map(|()| 0)
}

/// `--config` of a comparison: a settings file, or llm_entropy's configuration.
fn configuration(given: Option<&Path>) -> (Option<&Path>, Option<&Path>) {
    let ending = given.and_then(|file| file.extension());
    let ending = ending.unwrap_or_default().to_string_lossy().to_lowercase();
    match ending.as_str() {
        "yaml" | "yml" => (None, given),
        _ => (given, None),
    }
}

#[cfg(test)]
mod tests;
