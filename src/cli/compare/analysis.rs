//! llm_entropy's configuration files, as what the flags of `compare` would say.
//!
//! | key | is |
//! |---|---|
//! | `analysis.num_sentences` | `--sentences` |
//! | `analysis.prompts` (ours) | the prompts themselves, a list |
//! | `analysis.temperature` | `--lens-temperature`, and `--temperature` where `use_sampling` is true |
//! | `analysis.use_sampling` | false: `--temperature 0` |
//! | `analysis.seed` (ours) | `--seed`, which is also that of the sentences |
//! | `analysis.control.enabled` | whether `control_vectors` is `--steer`, on the layers 0 … L, repeated to the model's width |
//! | `analysis.control.layer_weights`, `.token_weights` | `layer-weights=`, `token-weights=` |
//! | `analysis.control.strength`, `.layers` (ours) | `strength=`, `layers=` |
//! | `analysis.compare_control` | nothing: both are always compared |
//! | `models.NAME.name` | `--model`, for each; NAME begins its files |
//! | `output_dir` | `--out` |
//!
//! The file lies between the settings and the flags: a flag beside it wins.

use crate::config::{Settings, value, value::Value};
use crate::error::{Error, Result};
use crate::model::ModelCard;
use crate::steer::{Effect, Spec, parse_layers};
use crate::text::{nearest, one_line};
use serde_json::Value as Yaml;
use std::io::Read as _;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Largest file; a vector of the widest model takes a tenth.
const MAX_BYTES: u64 = 8 << 20;

/// Keys that mean something to that system, not to this one.
const WITHOUT_MEANING: [&str; 8] = [
    "batch_size",
    "max_workers",
    "model_timeout",
    "max_retries",
    "cache_dir",
    "output.plots_dir",
    "output.results_dir",
    "output.control_vectors_dir",
];

/// What a configuration asks for. What it does not say is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Analysis {
    /// The file.
    pub file: PathBuf,
    /// What the files of each model begin with, and where it comes from.
    pub models: Vec<(String, String)>,
    /// The prompts themselves.
    pub prompts: Vec<String>,
    /// How many sentences to make.
    pub sentences: Option<usize>,
    /// Divides the logits.
    pub temperature: Option<f64>,
    /// Whether tokens are sampled at that temperature.
    pub sampling: Option<bool>,
    /// Of all random numbers.
    pub seed: Option<u64>,
    /// The control vector, where it is enabled.
    pub control: Option<Control>,
    /// Where runs are written.
    pub out: Option<PathBuf>,
}

/// How the states are pushed.
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// Factor on the vector.
    strength: f64,
    /// Layers; all, the embedding too, if not given.
    layers: Option<RangeInclusive<usize>>,
}

impl Analysis {
    /// Read a file. Also returned are warnings, a clause each: keys that nobody knows, and what means nothing here.
    ///
    /// # Errors
    /// If it cannot be read or is no YAML, or a value makes no sense; the sentence names the key.
    pub fn read(file: &Path) -> Result<(Self, Vec<String>)> {
        let mut text = String::new();
        let opened = std::fs::File::open(file).map_err(|e| Error::read(file, &e))?;
        opened
            .take(MAX_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(|e| Error::read(file, &e))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(Error::file(
                file,
                format!("is larger than {} MB", MAX_BYTES >> 20),
                "Give a configuration, not data.",
            ));
        }
        let yaml: Yaml = serde_saphyr::from_str(&text).map_err(|e| {
            let problem = one_line(&e.to_string());
            let problem = crate::text::truncate_width(&problem, 160);
            Error::file(
                file,
                format!("is no YAML that can be understood: {problem}"),
                "Correct it; llm_entropy's configuration has `analysis:`, `models:` and `output:`.",
            )
        })?;
        let mut reading = Reading {
            file,
            analysis: Self {
                file: file.to_path_buf(),
                ..Self::default()
            },
            enabled: None,
            vector: false,
            control: Control {
                strength: 1.0,
                layers: None,
            },
            unknown: Vec::new(),
            idle: Vec::new(),
        };
        match &yaml {
            Yaml::Null => {}
            Yaml::Object(_) => reading.table("", &yaml)?,
            _ => return Err(reading.wrong("the file", "must hold keys and values")),
        }
        reading.finish()
    }

    /// Lay it over `settings`. The model of the settings is then the first of its models.
    pub fn lay_over(&self, settings: &mut Settings) {
        if let Some((_, reference)) = self.models.first() {
            settings.model.clone_from(reference);
        }
        if let Some(temperature) = self.temperature {
            settings.lens.temperature = temperature;
        }
        match (self.sampling, self.temperature) {
            (Some(true), temperature) => settings.sampling.temperature = temperature.unwrap_or(1.0),
            (Some(false), _) => settings.sampling.temperature = 0.0,
            (None, _) => {}
        }
        settings.sampling.seed = self.seed.unwrap_or(settings.sampling.seed);
    }

    /// What `--steer` would say for this model.
    #[must_use]
    pub fn steer(&self, card: &ModelCard) -> Option<Spec> {
        let control = self.control.as_ref()?;
        let all = 0..=card.blocks;
        Some(Spec {
            strength: control.strength,
            layers: Some(control.layers.clone().unwrap_or(all)),
            tile: true,
            // The weights lie in the same file and are read with the vector.
            ..Spec::new(Effect::Vector(self.file.clone()))
        })
    }
}

/// A file that is being read.
struct Reading<'a> {
    file: &'a Path,
    analysis: Analysis,
    enabled: Option<bool>,
    vector: bool,
    control: Control,
    unknown: Vec<String>,
    idle: Vec<String>,
}

impl Reading<'_> {
    fn wrong(&self, key: &str, problem: &str) -> Error {
        Error::file(
            self.file,
            format!("{} {problem}", one_line(key)),
            "Correct it, or remove the key to have the default.",
        )
    }

    /// Read a table whose keys begin with `above`.
    fn table(&mut self, above: &str, table: &Yaml) -> Result<()> {
        let Some(entries) = table.as_object() else {
            return match table.is_null() {
                true => Ok(()),
                false => Err(self.wrong(above.trim_end_matches('.'), "must hold keys and values")),
            };
        };
        for (name, value) in entries {
            let key = format!("{above}{name}");
            match key.as_str() {
                "analysis"
                | "analysis.control"
                | "analysis.control.control_vectors"
                | "models"
                | "output" => {
                    self.table(&format!("{key}."), value)?;
                }
                // Null is what stands for a default in these files.
                _ if value.is_null() => self.known(&key),
                _ if above == "models." => self.model(&key, name, value)?,
                _ => match self.entry(&key, value) {
                    Some(Ok(())) => {}
                    Some(Err(problem)) => return Err(self.wrong(&key, &problem)),
                    None => self.unknown.push(key),
                },
            }
        }
        Ok(())
    }

    /// A key without a value: remark only on what nobody knows.
    fn known(&mut self, key: &str) {
        let known = KEYS.contains(&key) || WITHOUT_MEANING.contains(&key);
        if !known && !key.starts_with("models.") {
            self.unknown.push(key.to_owned());
        }
    }

    /// One value; `None` where no such key is known, a problem to follow the key's name.
    fn entry(&mut self, key: &str, yaml: &Yaml) -> Option<Result<(), String>> {
        fn put<T>(place: &mut Option<T>, value: Result<T, String>) -> Result<(), String> {
            *place = Some(value?);
            Ok(())
        }
        let given = setting(yaml);
        let asked = &mut self.analysis;
        Some(match key {
            "analysis.num_sentences" => put(
                &mut asked.sentences,
                given.and_then(|v| v.count()).and_then(value::positive),
            ),
            "analysis.prompts" => given.and_then(|v| v.words()).and_then(|prompts| {
                if prompts.iter().any(|prompt| prompt.trim().is_empty()) {
                    return Err("has an empty prompt".into());
                }
                asked.prompts = prompts;
                Ok(())
            }),
            "analysis.temperature" => put(
                &mut asked.temperature,
                given.and_then(|v| v.real()).and_then(value::above_zero),
            ),
            "analysis.use_sampling" => put(&mut asked.sampling, given.and_then(|v| v.truth())),
            "analysis.seed" => put(&mut asked.seed, given.and_then(|v| v.seed())),
            "analysis.compare_control" => given.and_then(|v| v.truth()).map(|_| ()),
            "analysis.control.enabled" => put(&mut self.enabled, given.and_then(|v| v.truth())),
            "analysis.control.strength" => given
                .and_then(|v| v.real())
                .map(|strength| self.control.strength = strength),
            "analysis.control.layers" => {
                let text = match yaml {
                    Yaml::Number(number) => number.to_string(),
                    Yaml::String(text) => text.clone(),
                    _ => return Some(Err("must be a range of layers such as 4..9".into())),
                };
                put(&mut self.control.layers, parse_layers(&text))
            }
            // Their numbers are read, and checked, with the vector; here only that they are numbers.
            "analysis.control.layer_weights" | "analysis.control.token_weights" => {
                match yaml.is_array() {
                    true => given.and_then(|v| v.reals()).map(|_| ()),
                    false => Err("must be a list of numbers".into()),
                }
            }
            "analysis.control.control_vectors.positive" => {
                given.and_then(|v| v.reals()).and_then(|numbers| {
                    self.vector = !numbers.is_empty();
                    match (yaml.is_array(), self.vector) {
                        (true, true) => Ok(()),
                        _ => Err("must be a list of numbers".into()),
                    }
                })
            }
            // Said to be unused where the vector is read.
            "analysis.control.control_vectors.negative" => Ok(()),
            "output_dir" => put(
                &mut asked.out,
                given.and_then(|v| v.text()).map(PathBuf::from),
            ),
            _ if WITHOUT_MEANING.contains(&key) => {
                self.idle.push(key.to_owned());
                Ok(())
            }
            _ => return None,
        })
    }

    fn model(&mut self, key: &str, label: &str, yaml: &Yaml) -> Result<()> {
        let Some(entries) = yaml.as_object() else {
            return Err(self.wrong(key, "must hold a name"));
        };
        let mut reference = None;
        for (name, value) in entries {
            match name.as_str() {
                "name" => {
                    let name = value.as_str().filter(|name| !name.trim().is_empty());
                    let name = name.ok_or_else(|| {
                        let problem =
                            "must be a folder, a file or a model of the hub, such as \"gpt2\"";
                        self.wrong(&format!("{key}.name"), problem)
                    })?;
                    reference = Some(name.to_owned());
                }
                // All states are always read, and the vector is as wide as the model.
                "output_hidden_states" | "control_dimension" => {}
                _ => self.unknown.push(format!("{key}.{name}")),
            }
        }
        let reference = reference.ok_or_else(|| self.wrong(key, "has no name"))?;
        self.analysis.models.push((label.to_owned(), reference));
        Ok(())
    }

    fn finish(mut self) -> Result<(Analysis, Vec<String>)> {
        match (self.enabled, self.vector) {
            (Some(true), false) => {
                return Err(Error::file(
                    self.file,
                    "analysis.control is enabled and has no control_vectors.positive",
                    "Give the list of numbers, or set enabled to false and give --steer.",
                ));
            }
            (Some(true), true) => self.analysis.control = Some(self.control),
            _ => {}
        }
        let shown = crate::text::path(self.file);
        let mut warnings: Vec<String> = self
            .unknown
            .iter()
            .map(|key| {
                let near = nearest(key, KEYS);
                let near = near.map_or(String::new(), |near| format!(", did you mean {near}?"));
                format!(
                    "{shown}: {} is not known and not looked at{near}",
                    one_line(key)
                )
            })
            .collect();
        if !self.idle.is_empty() {
            let keys = self.idle.join(", ");
            warnings.push(format!("{shown}: {keys}: no meaning here"));
        }
        Ok((self.analysis, warnings))
    }
}

/// The keys that mean something here, for suggestions.
const KEYS: [&str; 15] = [
    "analysis.num_sentences",
    "analysis.prompts",
    "analysis.temperature",
    "analysis.use_sampling",
    "analysis.seed",
    "analysis.compare_control",
    "analysis.control.enabled",
    "analysis.control.strength",
    "analysis.control.layers",
    "analysis.control.layer_weights",
    "analysis.control.token_weights",
    "analysis.control.control_vectors.positive",
    "analysis.control.control_vectors.negative",
    "models",
    "output_dir",
];

/// A value of the file as one of a setting.
fn setting(yaml: &Yaml) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::String(text) => Value::Text(text.clone()),
        Yaml::Bool(truth) => Value::Truth(*truth),
        Yaml::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::Whole(whole),
            (None, Some(real)) => Value::Real(real),
            _ => return Err("is no number that can be used".into()),
        },
        Yaml::Array(items) => Value::List(items.iter().map(setting).collect::<Result<_, _>>()?),
        Yaml::Object(_) | Yaml::Null => return Err("must be a value, not a table".into()),
    })
}

#[cfg(test)]
mod tests;
