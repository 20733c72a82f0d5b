//! Chat templates: a conversation in the words a model was trained on.
//!
//! A model brings its template (Jinja, as Hugging Face's `apply_chat_template` renders it) in `tokenizer_config.json`,
//! `chat_template.jinja` or GGUF metadata. It is a program from outside: it runs on a budget of instructions and of
//! output, cannot read files, and its filters that take a size are gone. (It could still fill memory by doubling a
//! string again and again; nothing in the engine stops that.)

mod python;

use super::guard::contained;
use crate::error::{Error, Result};
use crate::text::scrub;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};
use std::io;
use time::OffsetDateTime;

/// Instructions a template may run; published ones take a few dozen for each message.
const FUEL: u64 = 2_000_000;
/// Bytes a template may write beyond eight times what it was given.
const MAX_OUTPUT: usize = 1 << 20;
/// Longest template that is read; published ones stay below 20 kB.
const MAX_TEMPLATE: usize = 1 << 20;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A message of any role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
        }
    }

    /// The user's turn.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }
}

/// A model's chat template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatTemplate {
    text: String,
    bos: Option<String>,
    eos: Option<String>,
}

impl ChatTemplate {
    /// From the text of a template; `bos` and `eos` are what `bos_token` and `eos_token` stand for in it.
    #[must_use]
    pub fn new(text: &str, bos: Option<String>, eos: Option<String>) -> Self {
        Self {
            text: without_generation_tags(text),
            bos,
            eos,
        }
    }

    /// From a parsed `tokenizer_config.json` and the text of `chat_template.jinja`, which wins if there is one. Of
    /// several named templates the one called `default` is taken, or else the first.
    #[must_use]
    pub fn from_config(config: &serde_json::Value, jinja: Option<&str>) -> Option<Self> {
        let listed = || {
            let templates = config["chat_template"].as_array()?;
            let default = templates.iter().find(|t| t["name"] == "default");
            default.or_else(|| templates.first())?["template"].as_str()
        };
        let text = jinja
            .or_else(|| config["chat_template"].as_str())
            .or_else(listed)?;
        Some(Self::new(
            text,
            token_text(config, "bos_token"),
            token_text(config, "eos_token"),
        ))
    }

    /// The conversation as one prompt. It holds BOS where the model wants it: tokenize it without special tokens.
    ///
    /// `add_generation_prompt` ends it with the opening of the assistant's turn.
    ///
    /// # Errors
    /// If the template is broken, refuses the conversation (roles that do not alternate, say), or does not end.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        contained(|| self.run(messages, add_generation_prompt))
            .unwrap_or_else(|panic| Err(minijinja::Error::new(ErrorKind::InvalidOperation, panic)))
            .map_err(|e| sentence(&e))
    }

    fn run(&self, messages: &[Message], generate: bool) -> Result<String, minijinja::Error> {
        if self.text.len() > MAX_TEMPLATE {
            return Err(minijinja::Error::new(
                ErrorKind::SyntaxError,
                format!("it is longer than {MAX_TEMPLATE} bytes"),
            ));
        }
        let env = environment()?;
        let template = env.template_from_named_str("chat_template", &self.text)?;
        let turns: Vec<Value> = messages
            .iter()
            .map(|m| {
                Value::from_pairs([("role", m.role.as_str()), ("content", m.content.as_str())])
            })
            .collect();
        let token = |token: &Option<String>| token.as_deref().map_or(Value::UNDEFINED, Value::from);
        let context = Value::from_pairs([
            ("messages", Value::from(turns)),
            ("add_generation_prompt", Value::from(generate)),
            ("bos_token", token(&self.bos)),
            ("eos_token", token(&self.eos)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
        ]);
        let given: usize = messages.iter().map(|m| m.content.len()).sum();
        let mut output = Capped {
            bytes: Vec::new(),
            room: given.saturating_mul(8).saturating_add(MAX_OUTPUT),
        };
        template.render_captured_to(context, &mut output)?;
        String::from_utf8(output.bytes)
            .map_err(|e| minijinja::Error::new(ErrorKind::WriteFailure, e.to_string()))
    }
}

/// The text of a token in `tokenizer_config.json`: a string, or an object with its `content`.
pub(super) fn token_text(config: &serde_json::Value, key: &str) -> Option<String> {
    let token = &config[key];
    token
        .as_str()
        .or_else(|| token["content"].as_str())
        .map(str::to_owned)
}

fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut env = Environment::new();
    // As Hugging Face sets Jinja up.
    env.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(100);
    for filter in ["indent", "batch", "slice", "format"] {
        env.remove_filter(filter);
    }
    env.set_unknown_method_callback(|_, value, method, args| python::method(value, method, args));
    env.add_function(
        "raise_exception",
        |what: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, what))
        },
    );
    env.add_function("strftime_now", |format: String| strftime(now(), &format));
    Ok(env)
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_local().unwrap_or_else(|_| OffsetDateTime::now_utc())
}

fn strftime(at: OffsetDateTime, format: &str) -> Result<String, minijinja::Error> {
    let wrong = |e: &dyn std::fmt::Display| {
        minijinja::Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {e}"))
    };
    let items = time::format_description::parse_strftime_borrowed(format).map_err(|e| wrong(&e))?;
    at.format(&items).map_err(|e| wrong(&e))
}

/// `{% generation %} … {% endgeneration %}` only mark the assistant's words for training: make them an `if` that always
/// holds, with the same whitespace control.
fn without_generation_tags(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        // After the opening mark: in `{%}` the two overlap, and nothing is closed.
        let Some(end) = tag[2..].find("%}").map(|at| at + 2) else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end + 2);
        let inner = tag[2..end].trim_matches(['-', '+']).trim();
        match inner {
            "generation" | "endgeneration" => {
                let instead = if inner == "generation" {
                    "if true"
                } else {
                    "endif"
                };
                out.push_str(&tag.replacen(inner, instead, 1));
            }
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn sentence(error: &minijinja::Error) -> Error {
    let place = error
        .line()
        .map(|l| format!(" (line {l})"))
        .unwrap_or_default();
    let what = match error.kind() {
        ErrorKind::OutOfFuel => "runs too long".to_owned(),
        ErrorKind::WriteFailure => "writes too much".to_owned(),
        kind => match error.detail() {
            Some(detail) => format!("fails: {}", scrub(detail)),
            None => format!("fails: {}", scrub(&kind.to_string())),
        },
    };
    Error::failed(
        format!("the model's chat template {what}{place}"),
        "Leave out --chat and write the prompt in the model's own format.",
    )
}

/// A buffer that refuses to grow beyond its room.
struct Capped {
    bytes: Vec<u8>,
    room: usize,
}

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.room {
            return Err(io::Error::other("too much output"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
