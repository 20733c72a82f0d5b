//! Flags that several subcommands share, and how they are laid over the settings.

use crate::config::{Settings, states, value};
use crate::error::{Error, Result};
use crate::lens::{LensSettings, StateKind};
use crate::model::weights::Precision;
use crate::model::{DeviceChoice, Sampling};
use crate::session::{Job, Prompt};
use clap::Args;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest prompt file; beyond any context, and a wrong file rather than a prompt.
const PROMPT_CAP: u64 = 16 << 20;

/// Options that stand before or after any subcommand.
#[derive(Args, Clone, Debug, Default)]
pub struct Common {
    /// Model to open [default: demo]
    #[arg(long, short, global = true, value_name = "M", help_heading = "Common")]
    pub model: Option<String>,
    /// Where the model runs: cpu, cuda, cuda:N, cuda:N,M (blocks spread over both), metal [default: cpu]
    #[arg(long, global = true, value_name = "D", help_heading = "Common")]
    pub device: Option<DeviceChoice>,
    /// What the weights are held as: auto (as stored), f32, bf16, f16 [default: auto]
    #[arg(long, global = true, value_name = "D", help_heading = "Common")]
    pub dtype: Option<Precision>,
    /// Settings file to read instead of the usual config.toml; for compare, a .yaml file is llm_entropy's configuration
    #[arg(long, global = true, value_name = "F", help_heading = "Common")]
    pub config: Option<PathBuf>,
    /// Say nothing but errors
    #[arg(long, short, global = true, help_heading = "Common")]
    pub quiet: bool,
    /// Log more, and say where errors come from; twice logs everything
    #[arg(long, short, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet", help_heading = "Common")]
    pub verbose: u8,
}

impl Common {
    /// Lay the given flags over `settings`.
    ///
    /// # Errors
    /// On a device that this build does not have.
    pub fn lay_over(&self, settings: &mut Settings) -> Result<()> {
        if let Some(model) = &self.model {
            settings.model.clone_from(model);
        }
        if let Some(precision) = self.dtype {
            settings.precision = precision;
        }
        if let Some(device) = &self.device {
            settings.device.clone_from(device);
        }
        settings.device.check()
    }
}

/// Where the prompt comes from: exactly one of these.
#[derive(Args, Clone, Debug, Default)]
#[group(required = true, multiple = false)]
pub struct PromptArgs {
    /// The prompt; `-` reads standard input
    #[arg(value_name = "TEXT")]
    pub text: Option<String>,
    /// The prompt, as an option
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Read the prompt from a file (its last line break is not part of it); `-` is standard input
    #[arg(long, value_name = "F")]
    pub prompt_file: Option<PathBuf>,
    /// The prompt as token ids, taken as they are
    #[arg(long, value_name = "1,2,3", value_delimiter = ',', num_args = 1)]
    pub prompt_ids: Option<Vec<u32>>,
}

impl PromptArgs {
    /// Whether any of them is there.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.text.is_some()
            || self.prompt.is_some()
            || self.prompt_file.is_some()
            || self.prompt_ids.is_some()
    }

    /// The prompt; with `chat`, its text as the user's turn.
    ///
    /// # Errors
    /// If it cannot be read, is no UTF-8, or there is nothing in it.
    pub fn read(&self, chat: bool) -> Result<Prompt> {
        if let Some(ids) = &self.prompt_ids {
            if chat {
                return Err(Error::Usage(
                    "--chat needs text: token ids are taken as they are".into(),
                ));
            }
            return Ok(Prompt::Ids(ids.clone()));
        }
        let text = match (
            self.text.as_ref().or(self.prompt.as_ref()),
            &self.prompt_file,
        ) {
            (Some(text), _) if text != "-" => text.clone(),
            (None, Some(file)) => read_prompt(file)?,
            _ => read_prompt(Path::new("-"))?,
        };
        prompt_of(text, chat)
    }
}

/// How a prompt is read and gone on from.
#[derive(Args, Clone, Debug, Default)]
pub struct ReadingArgs {
    /// Treat the prompt as the user's turn of the model's chat template
    #[arg(long)]
    pub chat: bool,
    /// Most tokens to draw; 0 only reads the prompt, as masked models always do [default: 48, or 1 for each of two sets]
    #[arg(long, short = 'n', value_name = "N")]
    pub max_new_tokens: Option<usize>,
    /// Go on past end-of-text tokens
    #[arg(long)]
    pub ignore_eos: bool,
    /// Read the last drawn token too, so that it has cells
    #[arg(long)]
    pub read_last: bool,
    /// Keep attention statistics (attention.csv, attention_layers.csv)
    #[arg(long)]
    pub attention: bool,
    /// How tokens are drawn.
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// What the lens computes.
    #[command(flatten)]
    pub lens: LensArgs,
}

impl ReadingArgs {
    /// The job these arguments ask for, on top of the settings; `max_new_tokens` where neither says how many.
    pub fn job(&self, prompt: Prompt, settings: &Settings, max_new_tokens: usize) -> Job {
        let mut job = Job {
            ignore_eos: self.ignore_eos,
            read_last: self.read_last,
            attention: self.attention,
            sampling: settings.sampling.clone(),
            lens: settings.lens.clone(),
            ..Job::new(
                prompt,
                self.max_new_tokens
                    .or(settings.max_new_tokens)
                    .unwrap_or(max_new_tokens),
            )
        };
        self.sampling.lay_over(&mut job.sampling);
        self.lens.lay_over(&mut job.lens);
        job
    }
}

/// The prompts of a file: JSON lines with a `prompt` each, as the sample prompts are, or one prompt a line. Empty lines are
/// passed over.
///
/// # Errors
/// If it cannot be read, a line is no such object, or there is none.
pub fn read_prompts(file: &Path, chat: bool) -> Result<Vec<Prompt>> {
    #[derive(serde::Deserialize)]
    struct Line {
        prompt: String,
    }
    let text = read_prompt(file)?;
    let lines = text.lines().enumerate();
    let lines: Vec<(usize, &str)> = lines.filter(|(_, line)| !line.trim().is_empty()).collect();
    let json = lines.first().is_some_and(|(_, line)| line.starts_with('{'));
    let prompts = lines.into_iter().map(|(i, line)| {
        if !json {
            return prompt_of(line.to_owned(), chat);
        }
        let line: Line = serde_json::from_str(line).map_err(|e| {
            let problem = crate::text::one_line(&e.to_string());
            Error::file(
                file,
                format!("line {} is no prompt: {problem}", i + 1),
                "Write {\"prompt\": \"…\"} on each line, or one prompt a line.",
            )
        })?;
        prompt_of(line.prompt, chat)
    });
    let prompts: Vec<Prompt> = prompts.collect::<Result<_>>()?;
    match prompts.is_empty() {
        true => Err(Error::file(
            file,
            "holds no prompt",
            "Write one prompt a line.",
        )),
        false => Ok(prompts),
    }
}

/// Check a prompt's text.
///
/// # Errors
/// If there is nothing in it, or only white space.
pub fn prompt_of(text: String, chat: bool) -> Result<Prompt> {
    if text.trim().is_empty() {
        return Err(Error::Usage(
            "the prompt is empty: give some text, or --prompt-ids with the id of the beginning-of-text token to start \
             from nothing"
                .into(),
        ));
    }
    Ok(if chat {
        Prompt::Chat(text)
    } else {
        Prompt::Text(text)
    })
}

/// The text of a prompt file, `-` for standard input, without its last line break: editors add one, and a model would
/// go on after it.
///
/// # Errors
/// If it cannot be read, is too large, or is no UTF-8.
pub fn read_prompt(file: &Path) -> Result<String> {
    let stdin = file == Path::new("-");
    let mut bytes = Vec::new();
    let outcome = if stdin {
        std::io::stdin()
            .lock()
            .take(PROMPT_CAP + 1)
            .read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(PROMPT_CAP + 1).read_to_end(&mut bytes))
    };
    let shown = if stdin {
        Path::new("standard input")
    } else {
        file
    };
    outcome.map_err(|e| Error::read(shown, &e))?;
    if bytes.len() as u64 > PROMPT_CAP {
        return Err(Error::file(
            shown,
            format!("holds more than {} MB", PROMPT_CAP >> 20),
            "Give a prompt, not a data set.",
        ));
    }
    let mut text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::file(
            shown,
            format!("is no UTF-8 text (byte {at})"),
            "Convert it, for example with iconv.",
        )
    })?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

fn real(check: fn(f64) -> Result<f64, String>) -> impl Fn(&str) -> Result<f64, String> + Clone {
    move |word| value::Value::Word(word.to_owned()).real().and_then(check)
}

fn count(
    check: fn(usize) -> Result<usize, String>,
) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |word| value::Value::Word(word.to_owned()).count().and_then(check)
}

/// A list of numbers in one argument.
#[derive(Clone, Debug, PartialEq)]
pub struct Reals(pub Vec<f64>);

fn reals(
    check: fn(Vec<f64>) -> Result<Vec<f64>, String>,
) -> impl Fn(&str) -> Result<Reals, String> + Clone {
    move |word| {
        value::Value::Word(word.to_owned())
            .reals()
            .and_then(check)
            .map(Reals)
    }
}

/// How tokens are drawn.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// Temperature; 0 is greedy [default: 0]
    #[arg(long, value_name = "T", value_parser = real(value::temperature), allow_negative_numbers = true)]
    pub temperature: Option<f64>,
    /// Keep only the K most probable tokens
    #[arg(long, value_name = "K", value_parser = count(value::positive))]
    pub top_k: Option<usize>,
    /// Keep the fewest tokens whose probability reaches P
    #[arg(long, value_name = "P", value_parser = real(value::share), allow_negative_numbers = true)]
    pub top_p: Option<f64>,
    /// Drop tokens less probable than P times the most probable one
    #[arg(long, value_name = "P", value_parser = real(value::min_p), allow_negative_numbers = true)]
    pub min_p: Option<f64>,
    /// Weaken tokens that were there before; 1 is off
    #[arg(long, value_name = "R", value_parser = real(value::above_zero), allow_negative_numbers = true)]
    pub repetition_penalty: Option<f64>,
    /// Seed of the random numbers [default: 0]
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
}

impl SamplingArgs {
    /// Lay the given flags over `sampling`.
    pub fn lay_over(&self, sampling: &mut Sampling) {
        sampling.temperature = self.temperature.unwrap_or(sampling.temperature);
        sampling.top_k = self.top_k.or(sampling.top_k);
        sampling.top_p = self.top_p.or(sampling.top_p);
        sampling.min_p = self.min_p.or(sampling.min_p);
        sampling.repetition_penalty = self
            .repetition_penalty
            .unwrap_or(sampling.repetition_penalty);
        sampling.seed = self.seed.unwrap_or(sampling.seed);
    }
}

/// What the lens computes.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Lens")]
pub struct LensArgs {
    /// Divide lens logits by T before the softmax [default: 1]
    #[arg(long, value_name = "T", value_parser = real(value::above_zero), allow_negative_numbers = true)]
    pub lens_temperature: Option<f64>,
    /// Rényi orders, each a column; inf is min-entropy [default: 0.5,2,5]
    #[arg(long, value_name = "A,B", value_parser = reals(value::orders), allow_negative_numbers = true)]
    pub renyi: Option<Reals>,
    /// Candidates to keep a cell [default: 5]
    #[arg(long, value_name = "K", value_parser = count(value::top))]
    pub top: Option<usize>,
    /// Which vector the sparsity columns read: residual or normed [default: residual]
    #[arg(long, value_name = "KIND", value_parser = states)]
    pub states: Option<StateKind>,
    /// Shares of the dimensions for top-k energy and mass [default: 0.1]
    #[arg(long, value_name = "Q,R", value_parser = reals(value::shares), allow_negative_numbers = true)]
    pub topk_share: Option<Reals>,
}

impl LensArgs {
    /// Lay the given flags over `lens`.
    pub fn lay_over(&self, lens: &mut LensSettings) {
        lens.temperature = self.lens_temperature.unwrap_or(lens.temperature);
        if let Some(Reals(orders)) = &self.renyi {
            lens.renyi.clone_from(orders);
        }
        lens.top = self.top.unwrap_or(lens.top);
        lens.states = self.states.unwrap_or(lens.states);
        if let Some(Reals(shares)) = &self.topk_share {
            lens.topk_shares.clone_from(shares);
        }
    }
}
