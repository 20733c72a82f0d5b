//! The terminal face: rooms over one run, live while it is generated.
//!
//! ```text
//! key, mouse, paste, resize, clock, engine event
//!        │ Message                              app.rs     waits for all of them
//!        ▼
//! state::update(&mut State, Message) -> Effects            effects go to the engine, the disk, the terminal
//!        │ State::settle                        layout.rs  where rooms lie; widgets/  geometry, wrapped text
//!        ▼
//! view::render(frame, &State)                   theme.rs colour.rs show.rs    looks, colours, safe text
//! ```
//! A key in three steps: `keymap.rs` names its [`Action`](action::Action) for the room that has the keys,
//! `state/update.rs` performs it, `view/` shows the new state. To add an action: a line in `action.rs`, a key in
//! `keymap.rs`, an arm in `state/update.rs`; help and palette follow. To add a room: an area in `layout.rs`, a file in
//! `view/`.

pub mod action;
mod app;
mod backend;
pub mod colour;
pub mod effect;
#[doc(hidden)]
pub mod fixture;
mod governor;
pub mod keymap;
pub mod layout;
pub mod show;
pub mod state;
mod terminal;
pub mod theme;
pub mod view;
pub mod widgets;

pub use app::run;
pub use colour::ColourChoice;
pub use effect::{Export, Exporter};

use crate::error::{Error, Result};
use crate::model::LoadOptions;
use crate::session::{Job, Prompt};
use crate::steer::Spec;
use crate::trace::Set;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// One sample prompt.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Sample {
    /// What to read.
    pub prompt: String,
    /// What a model that knows would say.
    #[serde(default)]
    pub answer: Option<String>,
}

/// Sample prompts of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleSet {
    /// A few words: `a known fact`.
    pub name: String,
    /// The prompts.
    pub samples: Vec<Sample>,
    /// Whether they have gaps for a masked model; the others are for models that go on from a text.
    pub masked: bool,
    /// Which of two sets to hold against each other it is, if one of them.
    pub role: Option<Set>,
}

/// Two sets of prompts to hold against each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptSets {
    /// What the model should know, and what it should not.
    pub prompts: [Vec<Prompt>; 2],
    /// What they are called.
    pub names: [&'static str; 2],
    /// Where each comes from: a file, or a sample set.
    pub origins: [String; 2],
}

impl SampleSet {
    /// Read a set from JSON lines with `prompt` and `answer`.
    ///
    /// # Errors
    /// The first line that is not such an object, by its number.
    pub fn from_jsonl(name: &str, text: &str) -> Result<Self> {
        let samples = text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(i, line)| {
                serde_json::from_str(line).map_err(|e| {
                    Error::failed(
                        format!("sample prompts `{name}`, line {}: {e}", i + 1),
                        "Each line is an object with a prompt.",
                    )
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            name: name.to_owned(),
            samples,
            masked: false,
            role: None,
        })
    }

    /// The same set, as one of two to hold against each other.
    #[must_use]
    pub fn as_set(mut self, role: Set) -> Self {
        self.role = Some(role);
        self
    }

    /// The same set, for masked models.
    #[must_use]
    pub fn with_gaps(mut self) -> Self {
        self.masked = true;
        self
    }
}

/// What the caller decides.
#[derive(Clone, Debug)]
pub struct Options {
    /// A folder, a `.gguf` file, a hub id, or `demo`.
    pub model: String,
    /// How it is loaded.
    pub load: LoadOptions,
    /// A prompt to run as soon as the model is there.
    pub prompt: Option<String>,
    /// Sample prompts; the first three sets of a model's kind have a key each.
    pub samples: Vec<SampleSet>,
    /// Two sets of prompts to hold against each other; otherwise those among the samples.
    pub sets: Option<PromptSets>,
    /// A theme's name; the dark one otherwise.
    pub theme: Option<String>,
    /// How many colours.
    pub colour: ColourChoice,
    /// Keep the terminal's traffic under 60 kB/s instead of 200.
    pub low_bandwidth: bool,
    /// Settings of the runs; its prompt only says whether prompts are chat turns.
    pub job: Job,
    /// Control vectors, all of them in force.
    pub steer: Vec<Spec>,
    /// A second model to hold against the first.
    pub against: Option<String>,
    /// Keys over the program's own: action name → keys, separated by spaces.
    pub keys: BTreeMap<String, String>,
    /// Where exports go, each in a folder of its own.
    pub export_dir: PathBuf,
    /// The user's folder with `themes/`.
    pub config_dir: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        let mut job = Job::new(Prompt::Text(String::new()), 128);
        // The cell's room has space for a longer list than a table has.
        job.lens.top = 10;
        Self {
            model: "demo".to_owned(),
            load: LoadOptions::default(),
            prompt: None,
            samples: Vec::new(),
            sets: None,
            theme: None,
            colour: ColourChoice::Auto,
            low_bandwidth: false,
            job,
            steer: Vec::new(),
            against: None,
            keys: BTreeMap::new(),
            export_dir: PathBuf::from("entroscope-runs"),
            config_dir: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_line_by_line() {
        let text = "{\"prompt\":\"a\",\"answer\":\"b\",\"id\":1}\n\n{\"prompt\":\"c\"}\n";
        let set = SampleSet::from_jsonl("x", text).unwrap();
        assert_eq!(set.samples.len(), 2);
        assert_eq!(set.samples[0].answer.as_deref(), Some("b"));
        let wrong = SampleSet::from_jsonl("x", "{\"prompt\":\"a\"}\n{}").unwrap_err();
        assert!(wrong.to_string().contains("line 2"), "{wrong}");
    }
}
