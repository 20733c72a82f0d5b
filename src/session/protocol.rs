//! The two enums between a face and the engine thread.

use super::sets::SetJob;
use super::work::Turn;
use crate::error::Error;
use crate::lens::LensSettings;
use crate::model::{ModelCard, Sampling, Tokenizer};
use crate::steer::{Plan, Spec, Strengths};
use crate::trace::{Cells, Curve, Pairing, Point, Record, Sample, Schema, Set, Side, Token};
use std::ops::Range;
use std::sync::Arc;

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Text to tokenize (with what the tokenizer adds, such as BOS).
    Text(String),
    /// Text as the user's turn of the model's own chat template.
    Chat(String),
    /// Token ids as they are.
    Ids(Vec<u32>),
}

/// When the cells of a long prompt are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fill {
    /// All of them before the first token is drawn.
    #[default]
    Before,
    /// The last chunk's before, so that the first token comes soon; the others between tokens where they are on the screen
    /// ([`Request::Look`]), and the rest after the last token. Models whose memory cannot be rewound read them before.
    Between,
}

/// One generation to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// What to read first.
    pub prompt: Prompt,
    /// Most tokens to draw after the prompt; 0 only reads the prompt, which is all that a masked model does.
    pub max_new_tokens: usize,
    /// Go on past end-of-text tokens.
    pub ignore_eos: bool,
    /// Read (compute cells for) the last drawn token too.
    pub read_last: bool,
    /// When the cells of a long prompt are read.
    pub fill: Fill,
    /// Keep attention statistics.
    pub attention: bool,
    /// Keep the attention probabilities themselves too (memory grows with the square of the length).
    pub attention_rows: bool,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// What the lens computes.
    pub lens: LensSettings,
    /// How the states are pushed.
    pub steering: Plan,
    /// The prompt of a comparison's other branch, where two prompts are held against each other; nothing else looks at it.
    pub beside: Option<Prompt>,
}

impl Job {
    /// A greedy run of `text` with the default lens.
    #[must_use]
    pub fn new(prompt: Prompt, max_new_tokens: usize) -> Self {
        Self {
            prompt,
            max_new_tokens,
            ignore_eos: false,
            read_last: false,
            fill: Fill::default(),
            attention: false,
            attention_rows: false,
            sampling: Sampling::default(),
            lens: LensSettings::default(),
            steering: Plan::default(),
            beside: None,
        }
    }

    /// The same under `plan`, unless it brings its own.
    #[must_use]
    pub(super) fn under(mut self, plan: &Plan) -> Self {
        if self.steering.is_empty() {
            self.steering = plan.clone();
        }
        self
    }
}

/// What a face asks of the engine. Requests are handled between two tokens or prompt chunks.
#[derive(Clone, Debug)]
pub enum Request {
    /// Load a model: a folder, a `.gguf` file, a hub id `org/name[@revision]`, or `demo`. Ends the current run.
    Load(String),
    /// Start a run in place of the one before it. A job that is refused leaves that one as it is.
    Generate(Box<Job>),
    /// Start a comparison of the plain model with the job's plan in place of the run before it.
    Compare(Box<Job>, Pairing),
    /// Start a comparison with a second model, named as in [`Request::Load`], in place of the run before it. It is loaded
    /// where it is not there yet, and stays for the next time. Answered by [`Event::OtherLoaded`], then as
    /// [`Request::Compare`].
    Against(Box<Job>, String, Pairing),
    /// Read two sets of prompts in place of the run before them.
    Separate(Box<SetJob>),
    /// Push the states as these say: from the next token on where a run is under way (the steered side of a comparison), and
    /// in all runs to come whose jobs bring no plan. None is the plain model. Answered by [`Event::Steered`].
    Steer(Vec<Spec>),
    /// While no run is under way: let the plain model go on from the job's prompt and read its text under every strength,
    /// which multiplies what these do. In place of the sweep before it.
    Sweep(Box<Job>, Vec<Spec>, Strengths),
    /// End the sweep; the strengths that have come stay.
    StopSweep,
    /// Read the text of the run at hand once more, all of it under the plan in force.
    Replay,
    /// Hold after the current token.
    Pause,
    /// Go on after a pause.
    Resume,
    /// While paused: draw one token and pause again.
    Step,
    /// End the run; what was read stays, cells still owed are read, and [`Request::Continue`] can go on from there.
    Stop,
    /// Draw up to this many more tokens after a finished or stopped run.
    Continue(usize),
    /// The positions that are on the screen, of this run and those to come: cells still owed there come first.
    Look(Range<usize>),
    /// Use these settings from the next token on.
    SetSampling(Sampling),
    /// End the thread.
    Shutdown,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The asked number of tokens was drawn.
    Length,
    /// The model drew an end-of-text token.
    EndOfText,
    /// The model's context is full.
    ContextFull,
    /// The user stopped it.
    Stopped,
    /// The whole text was read by a model that draws nothing.
    Read,
}

impl Finish {
    /// The reason in words.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Length => "token limit reached",
            Self::EndOfText => "end of text",
            Self::ContextFull => "context full",
            Self::Stopped => "stopped",
            Self::Read => "text read",
        }
    }
}

/// How fast the current run is, measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Speed {
    /// Tokens drawn per second over the last moments; 0 before the first.
    pub tokens_per_second: f64,
    /// Seconds from the request to the first drawn token.
    pub first_token_seconds: f64,
    /// Milliseconds a token that the lens takes beyond plain decoding.
    pub lens_ms: f64,
}

/// What the engine reports. Tokens are never dropped; cells of a position may come after its token.
#[derive(Debug)]
pub enum Event {
    /// Loading goes on: what is being done, how many bytes of how many.
    Loading {
        /// In words.
        what: String,
        /// Bytes done.
        done: u64,
        /// Bytes in all, when known.
        total: Option<u64>,
    },
    /// A model is ready.
    Loaded {
        /// What it is.
        card: Arc<ModelCard>,
        /// Its tokenizer, for showing candidates.
        tokenizer: Arc<Tokenizer>,
    },
    /// Loading a second model goes on; the first stays as it is.
    LoadingOther {
        /// In words.
        what: String,
        /// Bytes done.
        done: u64,
        /// Bytes in all, when known.
        total: Option<u64>,
    },
    /// The second model is there, and what begins next is a comparison with it.
    OtherLoaded {
        /// What it is.
        card: Arc<ModelCard>,
        /// Its tokenizer.
        tokenizer: Arc<Tokenizer>,
    },
    /// A run begins; earlier events belong to an earlier run. The prompt's tokens follow as [`Event::Token`]s.
    Started {
        /// What the cells' values are.
        schema: Arc<Schema>,
        /// Tokens in the prompt.
        prompt_tokens: usize,
        /// Most tokens to be drawn.
        max_new_tokens: usize,
    },
    /// A token was appended to the text.
    Token(Token),
    /// A position was read.
    Cells {
        /// Which position.
        position: usize,
        /// What was read there.
        cells: Arc<Cells>,
    },
    /// New measurements.
    Speed(Speed),
    /// The same of one side of a comparison: [`Event::Started`], [`Event::Token`], [`Event::Cells`], [`Event::Speed`],
    /// [`Event::Finished`]. The end of both is an [`Event::Finished`] of its own.
    Side(Side, Box<Event>),
    /// Two sets of prompts are being read.
    Separating {
        /// What the samples' values are.
        schema: Arc<Schema>,
        /// States of the model, L + 1.
        states: usize,
        /// Prompts in all.
        total: usize,
    },
    /// One of them has been read.
    Sample(Set, Arc<Sample>),
    /// Plans were read and are in force.
    Steered {
        /// What is done.
        plan: Plan,
        /// From where on in the run at hand; `None` where that is too late or there is none.
        turn: Option<Turn>,
        /// Remarks about the files.
        remarks: Vec<String>,
    },
    /// Plans could not be read, or do not fit the model; what was in force stays.
    NotSteered(Error),
    /// The text is read once more; cells that come now replace those before.
    Replaying,
    /// A sweep begins; nothing of its curve is there yet.
    Sweeping(Curve),
    /// What a sweep's strength of this index came to, or the plain model (`None`).
    Swept {
        /// Index among the strengths.
        strength: Option<usize>,
        /// What came out.
        point: Arc<Point>,
    },
    /// The sweep has ended, or was: how it came about.
    SweepEnded(Box<Record>),
    /// The run is held ([`Request::Pause`] or after [`Request::Step`]).
    Paused,
    /// The run goes on.
    Resumed,
    /// The run ended.
    Finished(Finish),
    /// A request failed; the engine is ready for the next one.
    Failed(Error),
}
