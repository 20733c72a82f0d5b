//! All that the screen shows, and the one function that changes it.
//!
//! [`update`] takes a [`Message`] (a key, a click, an engine event, the clock) and returns [`Effect`](super::effect::Effect)s; it touches
//! nothing else, so every behaviour can be driven from a test. [`State::settle`] then works out what drawing needs
//! (layout, wrapped text, colour ranges) once a frame.

mod beside;
mod control;
mod engine;
mod keep;
mod lists;
mod models;
mod overlay;
mod pages;
mod pair;
mod prompt;
mod run;
mod sampling;
mod search;
mod set_readings;
mod sets;
mod settle;
mod steering;
mod sweep;
#[cfg(test)]
mod tests;
mod travel;
mod update;

pub use beside::{Beside, Gap, Lower, Summary};
pub use models::{ModelLayers, Second};
pub use overlay::{Choice, Item, List, Overlay, Page, SearchLine};
pub use pages::{PageLine, page_lines, wrap};
pub use pair::Pair;
pub use prompt::{Editor, EditorRows};
pub use run::Run;
pub use sampling::{AttentionChoice, Field, Panel, Settings};
pub use set_readings::{SetLayer, SetReadings};
pub use sets::{SetsAside, SetsView};
pub use settle::{Derived, RangeMode, Ranges, Scale};
pub use steering::{Part, Row, SteerPanel, Steering};
pub use sweep::{SweepCell, SweepView};
pub use update::{Message, update};

use crate::model::{ModelCard, Tokenizer};
use crate::session::{Finish, Job};
use crate::trace::{Grid, Group, Metric, Pairing, Record, Schema, Side, Unit};
use crate::tui::Options;
use crate::tui::SampleSet;
use crate::tui::colour::Depth;
use crate::tui::keymap::{Context, Keymap};
use crate::tui::layout::{Room, SetPane};
use crate::tui::show;
use crate::tui::theme::{Theme, ThemeFile};
use crate::tui::widgets::Zoom;
use ratatui::layout::Rect;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The metrics behind the digits 1 to 9.
pub const FAVOURITES: [&str; 9] = [
    "entropy",
    "varentropy",
    "prob_margin",
    "surprisal",
    "kl_final",
    "next_rank",
    "hoyer",
    "effective_rank_sq",
    "topk_energy_10",
];

/// What the engine is doing, as far as it has said.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// A model is being loaded.
    Loading {
        /// In words.
        what: String,
        /// Bytes done.
        done: u64,
        /// Bytes in all, when known.
        total: Option<u64>,
    },
    /// No model could be loaded.
    NoModel,
    /// Waiting for a prompt.
    Ready,
    /// Reading the prompt.
    Reading,
    /// Drawing tokens.
    Streaming,
    /// Held between two tokens.
    Paused,
    /// The last run ended.
    Done(Finish),
    /// The last run failed.
    Failed,
}

impl Phase {
    /// Whether a run is under way, held or not.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Reading | Self::Streaming | Self::Paused)
    }
}

/// The loaded model.
#[derive(Clone, Debug)]
pub struct Model {
    /// What it is.
    pub card: Arc<ModelCard>,
    /// For showing candidates.
    pub tokenizer: Arc<Tokenizer>,
}

/// The cell that is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Layer, 0 is the embedding.
    pub layer: usize,
    /// Position of the token.
    pub position: usize,
    /// Whether the position follows the newest read token.
    pub follow: bool,
}

/// How the map is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapView {
    /// Size of the cells.
    pub zoom: Zoom,
    /// Whether the user chose it; otherwise it fits the model.
    pub zoom_chosen: bool,
    /// What the colours span.
    pub range: RangeMode,
    /// First token shown.
    pub left: usize,
    /// Lowest layer shown.
    pub bottom: usize,
    /// Whether the deciding layers are not marked.
    pub hide_decided: bool,
}

/// How important a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Done as asked.
    Info,
    /// Not possible now.
    Warn,
    /// Failed.
    Error,
}

/// A message in the status line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How important.
    pub level: Level,
    /// The whole text; safe to display, may hold newlines.
    pub text: String,
}

/// What the clock says; the app loop keeps it, so that `update` never asks the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Since the program started.
    pub elapsed: Duration,
    /// Wall clock.
    pub wall: SystemTime,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            elapsed: Duration::ZERO,
            wall: SystemTime::UNIX_EPOCH,
        }
    }
}

/// All that the screen shows.
#[derive(Clone, Debug)]
pub struct State {
    /// The terminal.
    pub area: Rect,
    /// The time.
    pub clock: Clock,
    /// The model as it was asked for; safe to display.
    pub asked: String,
    /// The loaded model.
    pub model: Option<Model>,
    /// What the engine does.
    pub phase: Phase,
    /// When the current load began.
    pub loading_since: Duration,
    /// The run on the screen.
    pub run: Option<Run>,
    /// The other branch of a comparison, whose baseline `run` is.
    pub beside: Option<Beside>,
    /// A second model.
    pub second: Second,
    /// How the branches of the next comparison read; `None` while runs stand alone.
    pub compare: Option<Pairing>,
    /// Two sets of prompts in place of the run.
    pub sets: Option<SetsView>,
    /// What they leave behind.
    pub sets_aside: SetsAside,
    /// The part of them that is shown where there is no room for all.
    pub pane: SetPane,
    /// The pair of prompts that was compared last.
    pub(super) pair: Option<Pair>,
    /// What the room of differences shows.
    pub gap: Gap,
    /// What the lower room of a comparison shows.
    pub lower: Lower,
    /// Control vectors and what is in force of them.
    pub steering: Steering,
    /// The sweep over their strengths.
    pub sweep: Option<SweepView>,
    /// What the one that was asked for is about, and the vector whose own strengths it has.
    pub(super) sweep_asked: (String, Option<crate::steer::Effect>),
    /// How many runs have been started.
    pub runs: usize,
    /// The prompt editor.
    pub prompt: Editor,
    /// Whether the prompt has the keys.
    pub writing: bool,
    /// The room that has them otherwise.
    pub room: Room,
    /// What lies over the rooms.
    pub overlay: Option<Overlay>,
    /// The cell that is looked at.
    pub cursor: Cursor,
    /// How the map is looked at.
    pub map: MapView,
    /// First line of the stream shown.
    pub stream_top: usize,
    /// Whether the stream was scrolled away from the cursor.
    pub stream_loose: bool,
    /// The metric that colours map and stream.
    pub metric: Metric,
    /// Columns before the first run.
    pub schema: Arc<Schema>,
    /// The message in the status line.
    pub notice: Option<Notice>,
    /// The last message, for the whole text.
    pub last_notice: Option<Notice>,
    /// What has been searched for.
    pub search: String,
    /// Settings of the next run.
    pub settings: Settings,
    /// Everything else of the next run.
    pub job: Job,
    /// Run the prompt once the model is there.
    pub run_when_loaded: bool,
    /// All sample prompts.
    pub(super) sample_sets: Vec<SampleSet>,
    /// Sample prompts for the model at hand.
    pub samples: Vec<SampleSet>,
    /// Which sample of each set is next.
    pub next_sample: Vec<usize>,
    /// Themes on offer.
    pub themes: Vec<ThemeFile>,
    /// Index of the theme worn.
    pub theme_index: usize,
    /// The theme fitted to this terminal.
    pub theme: Theme,
    /// What the terminal can show.
    pub depth: Depth,
    /// Keys.
    pub keymap: Keymap,
    /// Where exports go.
    pub export_dir: PathBuf,
    /// What chance would give, by metric; NaN or missing where there is no such line.
    pub null_line: Option<Vec<f32>>,
    /// What was going on when the prompt at hand was submitted, until its run begins.
    pub(super) before_submit: Option<Phase>,
    /// What drawing needs, worked out by [`State::settle`].
    pub derived: Derived,
}

impl State {
    /// The state at the start.
    ///
    /// # Errors
    /// Key bindings that cannot be, or a theme that is not there.
    pub fn new(options: &Options, depth: Depth, area: Rect) -> crate::Result<Self> {
        let keymap = Keymap::new(&options.keys)?;
        let (themes, problems) = ThemeFile::all(options.config_dir.as_deref());
        let theme_index = match &options.theme {
            None => 0,
            Some(name) => themes.iter().position(|t| t.name == *name).ok_or_else(|| {
                let names: Vec<&str> = themes.iter().map(|t| t.name.as_str()).collect();
                let why = problems
                    .first()
                    .map_or(String::new(), |p| format!(" ({p})"));
                crate::Error::Usage(format!(
                    "there is no theme `{}`; there are {}{why}",
                    crate::text::scrub(name),
                    crate::text::scrub(&names.join(", "))
                ))
            })?,
        };
        let theme = themes
            .get(theme_index)
            .ok_or_else(|| crate::Error::failed("no theme can be read", "Reinstall entroscope."))?
            .fit(depth);
        let schema = Arc::new(Schema::new(&options.job.lens));
        let mut state = Self {
            area,
            clock: Clock::default(),
            asked: show::visible(&options.model),
            model: None,
            phase: Phase::Loading {
                what: "loading".to_owned(),
                done: 0,
                total: None,
            },
            loading_since: Duration::ZERO,
            run: None,
            beside: None,
            second: Second::new(options.against.as_deref()),
            compare: options.against.as_ref().map(|_| Pairing::Free),
            sets: None,
            sets_aside: SetsAside::of(options),
            pane: SetPane::default(),
            pair: None,
            gap: Gap::default(),
            lower: Lower::default(),
            steering: Steering::new(&options.steer),
            sweep: None,
            sweep_asked: (String::new(), None),
            runs: 0,
            prompt: Editor::new(options.prompt.as_deref().unwrap_or_default()),
            writing: options.prompt.is_none(),
            room: Room::Map,
            overlay: None,
            cursor: Cursor {
                follow: true,
                ..Cursor::default()
            },
            map: MapView::default(),
            stream_top: 0,
            stream_loose: false,
            metric: schema.find(FAVOURITES[0]).unwrap_or(Metric(0)),
            schema,
            notice: None,
            last_notice: None,
            search: String::new(),
            settings: Settings::of(&options.job),
            job: options.job.clone(),
            run_when_loaded: options.prompt.is_some(),
            next_sample: Vec::new(),
            samples: Vec::new(),
            sample_sets: options.samples.clone(),
            themes,
            theme_index,
            theme,
            depth,
            keymap,
            export_dir: options.export_dir.clone(),
            null_line: None,
            before_submit: None,
            derived: Derived::default(),
        };
        state.offer_samples();
        if let Some(problem) = problems.first() {
            state.note(Level::Warn, problem.to_string());
        }
        state.settle();
        Ok(state)
    }

    /// Whether the model fills gaps instead of going on from a text.
    #[must_use]
    pub fn masked(&self) -> bool {
        self.model.as_ref().is_some_and(|model| !model.card.causal)
    }

    /// How a gap is written in a prompt.
    #[must_use]
    pub fn mask_text(&self) -> &str {
        self.model
            .as_ref()
            .map_or("", |model| model.card.mask_text())
    }

    /// Whether no token is drawn: by the model, nor by a second one on the screen.
    #[must_use]
    pub fn only_reads(&self) -> bool {
        let draws = |beside: &Beside| !beside.run.masked();
        self.masked() && !self.beside.as_ref().is_some_and(draws)
    }

    /// Whether the token at a position is a gap to fill.
    #[must_use]
    pub fn is_mask(&self, position: usize) -> bool {
        self.run.as_ref().is_some_and(|run| run.is_mask(position))
    }

    /// Positions of the gaps, in order.
    #[must_use]
    pub fn masks(&self) -> Vec<usize> {
        self.run.as_ref().map_or(Vec::new(), Run::masks)
    }

    /// Whether a metric means anything for this model: one that sees both sides predicts no next token.
    #[must_use]
    pub fn applies(&self, metric: Metric) -> bool {
        let spec = self.columns().metrics().get(metric.0);
        let about_next = spec.is_some_and(|s| matches!(s.name.as_str(), "surprisal" | "next_rank"));
        !(about_next && self.only_reads())
    }

    /// Offer the samples that fit the model at hand.
    pub(super) fn offer_samples(&mut self) {
        let masked = self.masked();
        let fitting = self.sample_sets.iter().filter(|set| set.masked == masked);
        self.samples = fitting.cloned().collect();
        self.next_sample = vec![0; self.samples.len()];
    }

    /// The columns of what is on the screen, or of the next run.
    #[must_use]
    pub fn columns(&self) -> &Schema {
        match (&self.sets, &self.run) {
            (Some(sets), _) => sets.samples.schema(),
            (None, Some(run)) => &run.schema,
            (None, None) => &self.schema,
        }
    }

    /// The grid, once there is one.
    #[must_use]
    pub fn grid(&self) -> Option<&Grid> {
        self.run.as_ref().map(|run| &run.grid)
    }

    /// Number of states, L + 1: of the run, of the model, or what a model usually has.
    #[must_use]
    pub fn states(&self) -> usize {
        match (&self.run, &self.model) {
            (Some(run), _) => run.grid.states(),
            (None, Some(model)) => model.card.blocks + 1,
            (None, None) => 13,
        }
    }

    /// Which keys hold now.
    #[must_use]
    pub fn context(&self) -> Context {
        match &self.overlay {
            Some(overlay) => overlay.context(),
            None if self.writing => Context::Prompt,
            None => Context::Rooms,
        }
    }

    /// What chance would give for a metric: for ratios of a state alone. Norms and counts grow with the state's size,
    /// which no Gaussian knows.
    #[must_use]
    pub fn null_of(&self, metric: Metric) -> Option<f32> {
        let spec = self.columns().metrics().get(metric.0)?;
        let ratio = spec.unit == Unit::Share || spec.name == "kurtosis";
        if spec.group != Group::Sparsity || !ratio {
            return None;
        }
        self.null_line
            .as_ref()?
            .get(metric.0)
            .copied()
            .filter(|v| v.is_finite())
    }

    /// The run as it is exported; of a comparison both branches.
    #[must_use]
    pub fn record(&self) -> Option<Record> {
        let (run, model) = (self.run.as_ref()?, self.model.as_ref()?);
        // What pushes the states in a comparison pushes its other side.
        let pushed = self.beside.as_ref().map_or(run, |beside| &beside.run);
        let branches = match &self.beside {
            None => vec![("main".to_owned(), run.grid.clone())],
            Some(beside) => Side::BOTH
                .into_iter()
                .zip([&run.grid, &beside.run.grid])
                .map(|(side, grid)| (side.label().to_owned(), grid.clone()))
                .collect(),
        };
        // What was asked for after the last position was read has pushed none.
        let newest = pushed.newest_read();
        let changes = pushed.steering_changes.iter();
        let changes = changes.filter(|(from, _)| newest.is_some_and(|last| *from <= last));
        Some(Record {
            model: Arc::clone(&model.card),
            schema: Arc::clone(&run.schema),
            sampling: run.sampling.clone(),
            sampling_changes: run.sampling_changes.clone(),
            lens: run.lens.clone(),
            steering: pushed.steering.description(),
            steering_changes: changes
                .map(|(position, plan)| (*position, plan.description()))
                .collect(),
            comparison: self.beside.as_ref().map(|beside| beside.pairing),
            max_new_tokens: run.max_new_tokens,
            branches,
            started: run.started,
            ended: run.ended,
        })
    }

    /// Show a message in the status line.
    pub fn note(&mut self, level: Level, text: impl Into<String>) {
        let text: String = text
            .into()
            .split('\n')
            .map(show::visible)
            .collect::<Vec<_>>()
            .join("\n");
        let notice = Notice { level, text };
        self.last_notice = Some(notice.clone());
        self.notice = Some(notice);
    }

    /// Wear a theme.
    pub fn wear(&mut self, index: usize) {
        if let Some(file) = self.themes.get(index) {
            self.theme = file.fit(self.depth);
            self.theme_index = index;
        }
    }
}
