//! `entroscope doctor`: is this terminal, this machine and this model fit for work, and what to do if not.

use super::output::Output;
use super::run::load_model;
use super::{Context, selfcheck};
use crate::error::{Error, Result};
use crate::export::atomic;
use crate::model::DeviceChoice;
use crate::text;
use clap::Args as ClapArgs;
use serde::Serialize;
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Instant;

/// The least terminal, columns × rows.
const LEAST: (u16, u16) = (60, 16);

/// A comfortable terminal.
const COMFORTABLE: (u16, u16) = (80, 24);

/// Arguments of `doctor`.
#[derive(ClapArgs, Clone, Debug, Default)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Works, could be better.
    Note,
    /// Does not work.
    Broken,
}

/// One line of the report. Every string is safe to display.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Check {
    /// A check that came out well.
    pub fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            outcome: Outcome::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    /// Something that could be better.
    pub fn note(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Note,
            remedy: Some(remedy.into()),
            ..Self::ok(name, found)
        }
    }

    /// Something that does not work.
    pub fn broken(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Broken,
            ..Self::note(name, found, remedy)
        }
    }
}

/// Do it; the exit code is 1 if something is broken. `settings` is what is wrong with the configuration, if anything.
///
/// # Errors
/// If standard output cannot be written.
pub fn run(args: &Args, context: &Context, settings: Option<Error>) -> Result<u8> {
    let mut checks = vec![terminal(), colours(), unicode()];
    checks.push(match settings {
        Some(error) => Check::broken(
            "settings",
            text::one_line(&error.to_string()),
            "The defaults are used until then.",
        ),
        None => Check::ok("settings", "read"),
    });
    let folders = &context.folders;
    checks.extend([
        folder("settings folder", folders.config.as_deref(), "CONFIG"),
        folder("state folder", folders.state.as_deref(), "STATE"),
        folder("cache folder", folders.cache.as_deref(), "CACHE"),
        match &context.log {
            Some(file) => Check::ok("log", text::path(file)),
            None => Check::note(
                "log",
                "none is kept",
                "Make the state folder writable, or set ENTROSCOPE_STATE_DIR.",
            ),
        },
        processor(),
        Check::ok(
            "devices",
            format!("{} built in", DeviceChoice::built().join(", ")),
        ),
    ]);
    checks.extend(model(context));

    let broken = checks.iter().any(|c| c.outcome == Outcome::Broken);
    let mut output = Output::new();
    if args.json {
        let report = serde_json::to_string_pretty(&checks)
            .map_err(|e| Error::failed(format!("the report is no JSON: {e}"), "This is a bug."))?;
        output.line(&report)?;
    } else {
        let marks = if says_utf8() {
            ["✓", "!", "✗"]
        } else {
            ["ok", "note", "BROKEN"]
        };
        for check in &checks {
            let mark = match check.outcome {
                Outcome::Ok => marks[0],
                Outcome::Note => marks[1],
                Outcome::Broken => marks[2],
            };
            output.line(&format!("{mark} {}: {}", check.name, check.found))?;
            if let Some(remedy) = &check.remedy {
                output.line(&format!("    {remedy}"))?;
            }
        }
    }
    output.flush()?;
    Ok(u8::from(broken))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn terminal() -> Check {
    const NAME: &str = "terminal";
    if !std::io::stdout().is_terminal() {
        return Check::note(
            NAME,
            "standard output is none",
            "The screen needs a terminal; the subcommands do not.",
        );
    }
    match ratatui::crossterm::terminal::size() {
        Ok((columns, rows)) if columns > 0 && rows > 0 => {
            let found = format!("{columns}×{rows}");
            let (least, good) = (LEAST, COMFORTABLE);
            if columns < least.0 || rows < least.1 {
                let remedy = format!("Make it at least {}×{}.", least.0, least.1);
                Check::broken(NAME, found, remedy)
            } else if columns < good.0 || rows < good.1 {
                let remedy = format!("{}×{} is comfortable.", good.0, good.1);
                Check::note(NAME, found, remedy)
            } else {
                Check::ok(NAME, found)
            }
        }
        _ => Check::note(
            NAME,
            "does not tell its size",
            "Use another terminal for the screen if it comes out wrong.",
        ),
    }
}

fn colours() -> Check {
    const NAME: &str = "colours";
    let term = variable("TERM").unwrap_or_default();
    let depth = variable("COLORTERM").unwrap_or_default();
    if variable("NO_COLOR").is_some() {
        Check::note(NAME, "none, by NO_COLOR", "Glyph ramps are used.")
    } else if matches!(depth.as_str(), "truecolor" | "24bit") || term.contains("direct") {
        Check::ok(NAME, "24 bits")
    } else if term.contains("256color") {
        Check::note(
            NAME,
            "256",
            "If the terminal can do more, set COLORTERM=truecolor.",
        )
    } else {
        Check::note(
            NAME,
            format!("16 (TERM is \"{}\")", text::one_line(&term)),
            "Set TERM to what the terminal is, such as xterm-256color.",
        )
    }
}

/// Whether the locale asks for UTF-8.
fn says_utf8() -> bool {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(variable)
        .is_some_and(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        })
}

fn unicode() -> Check {
    if says_utf8() || cfg!(windows) {
        Check::ok("unicode", "the locale is UTF-8")
    } else {
        Check::note(
            "unicode",
            "the locale does not say UTF-8",
            "Set LANG to a UTF-8 locale such as C.UTF-8 if lines and blocks come out as garbage.",
        )
    }
}

fn folder(name: &'static str, dir: Option<&Path>, which: &str) -> Check {
    match dir.map(|dir| (dir, atomic::writable(dir))) {
        Some((dir, Ok(()))) => Check::ok(name, text::path(dir)),
        Some((_, Err(error))) => Check::broken(
            name,
            text::one_line(&error.to_string()),
            format!("Or name another one in ENTROSCOPE_{which}_DIR."),
        ),
        None => Check::broken(
            name,
            "the system names no home folder",
            format!("Set HOME or ENTROSCOPE_{which}_DIR."),
        ),
    }
}

fn processor() -> Check {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    #[cfg(target_arch = "x86_64")]
    {
        let features = [
            ("avx2", is_x86_feature_detected!("avx2")),
            ("fma", is_x86_feature_detected!("fma")),
            ("avx512f", is_x86_feature_detected!("avx512f")),
            ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        ];
        let names: Vec<&str> = features.iter().filter(|f| f.1).map(|f| f.0).collect();
        let found = format!("{cores} cores, {}", names.join(" "));
        if features[0].1 && features[1].1 {
            Check::ok("processor", found)
        } else {
            Check::note(
                "processor",
                format!("{cores} cores without AVX2 and FMA"),
                "Models run, slowly.",
            )
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        Check::ok(
            "processor",
            format!("{cores} cores, {}", std::env::consts::ARCH),
        )
    }
}

/// Load the model and let it prove itself.
fn model(context: &Context) -> Vec<Check> {
    let began = Instant::now();
    let loaded = load_model(&context.settings.model, context);
    match loaded {
        Ok(model) => {
            let card = model.card();
            let found = format!(
                "{}: {}, {}, {}, {}, {}, loaded in {:.2} s",
                text::one_line(&card.name),
                text::one_line(&card.family),
                card.layer_words(),
                match card.causal {
                    true => "generates".to_owned(),
                    false => format!("fills in {}", card.mask_text()),
                },
                text::one_line(&card.dtype),
                text::one_line(&card.device),
                began.elapsed().as_secs_f64()
            );
            let mut checks = vec![Check::ok("model", found)];
            checks.extend(selfcheck::run(&model));
            checks
        }
        Err(error) => vec![Check::broken(
            "model",
            text::one_line(&error.to_string()),
            "Try --model demo; if that fails too, install the program again.",
        )],
    }
}
