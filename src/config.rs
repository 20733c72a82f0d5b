//! Settings in layers: defaults < `config.toml` < `ENTROSCOPE_*` variables < flags.
//!
//! Every setting has one dotted key, such as `sampling.top_k`: a table and a key in the file, and the variable
//! `ENTROSCOPE_SAMPLING_TOP_K` in the environment. Flags are laid over the result by the command line. Unknown keys are
//! warnings, so that an old program reads a newer file; values that make no sense are errors that name file and line.

pub mod folders;
pub mod value;

pub use folders::Folders;

use crate::error::{Error, Result};
use crate::lens::{LensSettings, StateKind};
use crate::model::weights::Precision;
use crate::model::{DeviceChoice, Sampling};
use crate::text;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};
use value::Value;

/// Every settable key; `keys.ACTION` comes on top.
pub const KEYS: [&str; 23] = [
    "model",
    "device",
    "dtype",
    "theme",
    "colour",
    "low_bandwidth",
    "max_new_tokens",
    "export_dir",
    "log",
    "sampling.temperature",
    "sampling.top_k",
    "sampling.top_p",
    "sampling.min_p",
    "sampling.repetition_penalty",
    "sampling.seed",
    "lens.temperature",
    "lens.renyi",
    "lens.topk_shares",
    "lens.l0_threshold",
    "lens.top",
    "lens.states",
    "keys",
    "color",
];

const PREFIX: &str = "ENTROSCOPE_";

/// How many colours the screen may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Colour {
    /// What the terminal says it can do.
    #[default]
    Auto,
    /// 24 bits.
    TrueColor,
    /// The palette of 256.
    Ansi256,
    /// The sixteen.
    Ansi16,
    /// None: glyph ramps.
    Never,
}

impl std::str::FromStr for Colour {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "auto" => Ok(Self::Auto),
            "truecolor" => Ok(Self::TrueColor),
            "256" => Ok(Self::Ansi256),
            "16" => Ok(Self::Ansi16),
            "never" => Ok(Self::Never),
            _ => Err("must be auto, truecolor, 256, 16 or never".into()),
        }
    }
}

/// Everything that can be set, with the layers already laid over each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The model to open: a folder, a `.gguf` file, a hub id `org/name[@revision]`, or `demo`.
    pub model: String,
    /// Where it runs.
    pub device: DeviceChoice,
    /// What the weights are held as.
    pub precision: Precision,
    /// Theme name; `None` is the program's choice.
    pub theme: Option<String>,
    /// Colour depth of the screen.
    pub colour: Colour,
    /// Draw less for slow links.
    pub low_bandwidth: bool,
    /// Most tokens to draw after a prompt; `None` is the face's own default.
    pub max_new_tokens: Option<usize>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// What the lens computes.
    pub lens: LensSettings,
    /// Key bindings: action → keys. The names belong to the screen, which checks them.
    pub keys: BTreeMap<String, Vec<String>>,
    /// Where exports go unless a folder is named; `None` is the working directory.
    pub export_dir: Option<PathBuf>,
    /// Log filter such as `debug` or `entroscope=trace`; `None` follows `-v` and `-q`.
    pub log: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model: "demo".into(),
            device: DeviceChoice::Cpu,
            precision: Precision::Stored,
            theme: None,
            colour: Colour::Auto,
            low_bandwidth: false,
            max_new_tokens: None,
            sampling: Sampling::default(),
            lens: LensSettings::default(),
            keys: BTreeMap::new(),
            export_dir: None,
            log: None,
        }
    }
}

/// Settings as found, with what the user should hear about them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// The layers below the flags.
    pub settings: Settings,
    /// One sentence each, safe to display.
    pub warnings: Vec<String>,
    /// The file that was read, if there is one.
    pub file: Option<PathBuf>,
}

/// Why a key was not set.
enum Refusal {
    Unknown,
    Invalid(String),
}

/// Read the layers below the flags. `explicit` is a file that must exist; otherwise `config.toml` in the configuration
/// folder is read if it is there. `environment` are the process's variables.
///
/// # Errors
/// If the file cannot be read, is no TOML, or a value in it or in a variable makes no sense.
pub fn load(
    explicit: Option<&Path>,
    folders: &Folders,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded> {
    let mut loaded = Loaded::default();
    let default = folders.config.as_ref().map(|dir| dir.join("config.toml"));
    if let Some(file) = explicit.map(Path::to_path_buf).or(default) {
        match std::fs::read_to_string(&file) {
            Ok(source) => {
                loaded.read_toml(&source, &file)?;
                loaded.file = Some(file);
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && explicit.is_none() => {}
            Err(e) => return Err(Error::read(&file, &e)),
        }
    }
    loaded.read_environment(environment)?;
    Ok(loaded)
}

impl Loaded {
    fn read_toml(&mut self, source: &str, file: &Path) -> Result<()> {
        let line_of = |at: usize| 1 + source[..at.min(source.len())].matches('\n').count();
        let document = DeTable::parse(source).map_err(|e| {
            let line = e.span().map_or(1, |span| line_of(span.start));
            Error::file(
                file,
                format!("line {line}: {}", text::one_line(e.message())),
                "Correct the line, or move the file away to start from the defaults.",
            )
        })?;
        self.read_table(document.get_ref(), "", file, &line_of)
    }

    fn read_table(
        &mut self,
        table: &DeTable<'_>,
        above: &str,
        file: &Path,
        line_of: &dyn Fn(usize) -> usize,
    ) -> Result<()> {
        for (name, entry) in table {
            let key = format!("{above}{}", name.get_ref());
            let nested = matches!(key.as_str(), "sampling" | "lens" | "keys");
            if let (true, DeValue::Table(inner)) = (nested, entry.get_ref()) {
                self.read_table(inner, &format!("{key}."), file, line_of)?;
                continue;
            }
            let line = line_of(entry.span().start);
            let refusal = match value::from_toml(entry.get_ref()) {
                Some(value) => self.settings.set(&key, &value).err(),
                None if KEYS.contains(&key.as_str()) => {
                    let found = entry.get_ref().type_str();
                    Some(Refusal::Invalid(format!("cannot be a {found}")))
                }
                None => Some(Refusal::Unknown),
            };
            match refusal {
                None => {}
                Some(Refusal::Unknown) => {
                    let place = format!("{}, line {line}", text::path(file));
                    let hint = suggestion(&key);
                    self.warnings.push(format!(
                        "{place}: there is no setting `{}`{hint}; it is ignored",
                        text::one_line(&key)
                    ));
                }
                Some(Refusal::Invalid(problem)) => {
                    return Err(Error::file(
                        file,
                        format!("line {line}: `{}` {problem}", text::one_line(&key)),
                        "Correct the line.",
                    ));
                }
            }
        }
        Ok(())
    }

    fn read_environment(
        &mut self,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<()> {
        let mut found: Vec<(String, String)> = environment
            .into_iter()
            .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
            .collect();
        // The environment has no order; two spellings of one key should.
        found.sort();
        for (name, value) in found {
            let Some(key) = KEYS.iter().find(|key| variable(key) == name) else {
                if folders::VARIABLES.contains(&name.as_str()) {
                    continue;
                }
                // Other programs around this one may use the prefix; speak up only about what looks like a slip.
                let known = KEYS.map(|key| variable(key)[PREFIX.len()..].to_owned());
                let typed = &name[PREFIX.len()..];
                if let Some(meant) = text::nearest(typed, known.iter().map(String::as_str)) {
                    self.warnings.push(format!(
                        "the environment variable {} means nothing (did you mean {PREFIX}{meant}?)",
                        text::one_line(&name)
                    ));
                }
                continue;
            };
            match self.settings.set(key, &Value::Word(value)) {
                Err(Refusal::Invalid(problem)) => {
                    return Err(Error::Usage(format!(
                        "the environment variable {name} {problem}"
                    )));
                }
                Ok(()) | Err(Refusal::Unknown) => {}
            }
        }
        Ok(())
    }
}

/// The environment variable of a key.
#[must_use]
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

fn suggestion(key: &str) -> String {
    // The bare name in the wrong table is as likely a slip as a typo.
    let bare = key.rsplit('.').next().unwrap_or(key);
    KEYS.into_iter()
        .find(|known| known.rsplit('.').next() == Some(bare))
        .or_else(|| text::nearest(key, KEYS))
        .map(|known| format!(" (did you mean `{known}`?)"))
        .unwrap_or_default()
}

impl Settings {
    fn set(&mut self, key: &str, value: &Value) -> Result<(), Refusal> {
        self.try_set(key, value)
            .ok_or(Refusal::Unknown)?
            .map_err(Refusal::Invalid)
    }

    /// `None` if there is no such key, otherwise whether the value makes sense.
    fn try_set(&mut self, key: &str, value: &Value) -> Option<Result<(), String>> {
        fn put<T>(slot: &mut T, value: Result<T, String>) -> Result<(), String> {
            *slot = value?;
            Ok(())
        }
        let (sampling, lens) = (&mut self.sampling, &mut self.lens);
        Some(match key {
            "model" => put(&mut self.model, value.text()),
            "device" => put(&mut self.device, value.text().and_then(|w| w.parse())),
            "dtype" => put(&mut self.precision, value.text().and_then(|w| w.parse())),
            "theme" => put(&mut self.theme, value.text().map(Some)),
            "colour" | "color" => put(&mut self.colour, value.text().and_then(|w| w.parse())),
            "low_bandwidth" => put(&mut self.low_bandwidth, value.truth()),
            "max_new_tokens" => put(&mut self.max_new_tokens, value.count().map(Some)),
            "export_dir" => put(
                &mut self.export_dir,
                value.text().map(|dir| Some(dir.into())),
            ),
            "log" => put(&mut self.log, value.text().map(Some)),
            "sampling.temperature" => put(
                &mut sampling.temperature,
                value.real().and_then(value::temperature),
            ),
            "sampling.top_k" => put(
                &mut sampling.top_k,
                value.count().and_then(value::positive).map(Some),
            ),
            "sampling.top_p" => put(
                &mut sampling.top_p,
                value.real().and_then(value::share).map(Some),
            ),
            "sampling.min_p" => put(
                &mut sampling.min_p,
                value.real().and_then(value::min_p).map(Some),
            ),
            "sampling.repetition_penalty" => put(
                &mut sampling.repetition_penalty,
                value.real().and_then(value::above_zero),
            ),
            "sampling.seed" => put(&mut sampling.seed, value.seed()),
            "lens.temperature" => put(
                &mut lens.temperature,
                value.real().and_then(value::above_zero),
            ),
            "lens.renyi" => put(&mut lens.renyi, value.reals().and_then(value::orders)),
            "lens.topk_shares" => put(&mut lens.topk_shares, value.reals().and_then(value::shares)),
            "lens.l0_threshold" => put(
                &mut lens.l0_threshold,
                value.real().and_then(value::temperature),
            ),
            "lens.top" => put(&mut lens.top, value.count().and_then(value::top)),
            "lens.states" => put(&mut lens.states, value.text().and_then(|w| states(&w))),
            "keys" => Err("is a table of actions, [keys]".into()),
            _ => {
                let action = key.strip_prefix("keys.")?;
                value.words().map(|keys| {
                    self.keys.insert(action.to_owned(), keys);
                })
            }
        })
    }
}

/// Parse `residual` or `normed`.
///
/// # Errors
/// On any other word, with the words that there are.
pub fn states(word: &str) -> Result<StateKind, String> {
    match word {
        "residual" => Ok(StateKind::Residual),
        "normed" => Ok(StateKind::Normed),
        _ => Err("must be residual or normed".into()),
    }
}

#[cfg(test)]
mod tests;
