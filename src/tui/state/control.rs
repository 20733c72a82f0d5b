//! Starting, holding and ending generations, and how they are drawn.

use super::{AttentionChoice, Level, Overlay, Phase, State};
use crate::session::{Fill, Job, Prompt, Request};
use crate::trace::Pairing;
use crate::tui::action::Action;
use crate::tui::effect::Effect;

/// Attention rows are kept on their own accord while they stay under this many bytes.
const ATTENTION_ROWS_BYTES: u64 = 256 << 20;

impl State {
    /// Pause, resume, step, stop, continue and Ctrl-C, as the phase allows.
    pub(super) fn control(&mut self, action: Action) -> Vec<Effect> {
        if self.draws_nothing(action) {
            return Vec::new();
        }
        let request = match (action, &self.phase) {
            (Action::PauseResume, Phase::Reading | Phase::Streaming) => Request::Pause,
            (Action::PauseResume, Phase::Paused) => Request::Resume,
            (Action::Step, Phase::Paused) => Request::Step,
            (Action::Step, Phase::Reading | Phase::Streaming) => Request::Pause,
            (Action::Stop | Action::Interrupt, phase) if phase.is_running() => Request::Stop,
            (Action::Interrupt, _) if self.sweeps() => Request::StopSweep,
            (Action::Interrupt, _) => return vec![Effect::Quit],
            (Action::Continue, Phase::Paused) => Request::Resume,
            (Action::Step | Action::Continue, Phase::Done(_)) if self.sets_aside.run_is_past => {
                self.run_is_past();
                return Vec::new();
            }
            (Action::Step, Phase::Done(_)) => return self.go_on(1),
            (Action::Continue, Phase::Done(_)) => return self.go_on(self.settings.max_new_tokens),
            _ => {
                let text = match self.run {
                    Some(_) => "The run has ended: go on with it, or write another prompt.",
                    None => "Nothing is running: write a prompt first.",
                };
                self.note(Level::Warn, text);
                return Vec::new();
            }
        };
        vec![Effect::Engine(request)]
    }

    /// Say so when an action is about drawing tokens and the model draws none.
    pub(super) fn draws_nothing(&mut self, action: Action) -> bool {
        let about_drawing = matches!(
            action,
            Action::PauseResume
                | Action::Step
                | Action::Continue
                | Action::Sampling
                | Action::Follow
        );
        if !about_drawing || !self.only_reads() {
            return false;
        }
        let gap = self.mask_text().to_owned();
        self.note(
            Level::Info,
            format!("This model fills in {gap} and draws no tokens."),
        );
        true
    }

    pub(super) fn go_on(&mut self, tokens: usize) -> Vec<Effect> {
        if let Some(run) = &mut self.run {
            run.max_new_tokens = run.drawn().saturating_add(tokens);
            run.ended = None;
        }
        if let Some(beside) = &mut self.beside {
            let run = &mut beside.run;
            run.max_new_tokens = run.drawn().saturating_add(tokens);
        }
        self.phase = Phase::Streaming;
        let mut effects = self.sampling_changed();
        effects.push(Effect::Engine(Request::Continue(tokens)));
        effects
    }

    /// Start a run of what the prompt holds.
    pub(super) fn submit(&mut self) -> Vec<Effect> {
        let text = self.prompt.text();
        if text.trim().is_empty() {
            self.writing = true;
            self.note(Level::Warn, "Write a prompt first, or choose a sample.");
            return Vec::new();
        }
        self.prompt.remember();
        self.notice = None;
        if self.model.is_none() {
            match self.phase {
                Phase::Loading { .. } => {
                    self.run_when_loaded = true;
                    self.writing = false;
                    self.note(Level::Info, "Runs as soon as the model is loaded.");
                }
                _ => self.note(Level::Warn, "There is no model to run."),
            }
            return Vec::new();
        }
        let Some(job) = self.job_of(text) else {
            return Vec::new();
        };
        self.writing = false;
        self.overlay = None;
        let before = std::mem::replace(&mut self.phase, Phase::Reading);
        self.before_submit.get_or_insert(before);
        let mut job = job;
        // Both prompts in the same form.
        job.beside = self.pair().map(|pair| match (&pair.beside, &job.prompt) {
            (Prompt::Text(text) | Prompt::Chat(text), Prompt::Chat(_)) => {
                Prompt::Chat(text.clone())
            }
            (Prompt::Text(text) | Prompt::Chat(text), _) => Prompt::Text(text.clone()),
            (ids, _) => ids.clone(),
        });
        let request = match self.compare {
            Some(pairing) if self.second.on => {
                let reference = self.second.reference.clone().unwrap_or_default();
                Request::Against(Box::new(job), reference, pairing)
            }
            Some(pairing) => Request::Compare(Box::new(job), pairing),
            None => Request::Generate(Box::new(job)),
        };
        vec![Effect::Engine(request)]
    }

    /// The job of a prompt under the settings at hand; `None` without a model.
    pub(super) fn job_of(&self, text: String) -> Option<Job> {
        let model = self.model.as_ref()?;
        let settings = &self.settings;
        let chat = settings.chat && model.card.chat_template;
        let card = &model.card;
        // A second model may draw though this one does not; one that only reads takes no notice.
        let max_new_tokens = if card.causal || self.second.on {
            settings.max_new_tokens
        } else {
            0
        };
        // A prompt has about a token a character at most; rows cost 4 bytes a head, layer and pair of positions, of
        // which a causal model has half.
        let longest = text.len().saturating_add(max_new_tokens);
        let longest = card.limit().map_or(longest, |limit| longest.min(limit)) as u64;
        let heads = card.heads.saturating_mul(card.blocks) as u64;
        let pair = if card.causal { 2 } else { 4 };
        let rows = longest
            .saturating_mul(longest)
            .saturating_mul(heads.saturating_mul(pair));
        let (attention, attention_rows) = match settings.attention {
            // The second model is not known yet, and may have many more heads.
            AttentionChoice::Auto if self.second.on => (true, false),
            AttentionChoice::Auto => (true, rows <= ATTENTION_ROWS_BYTES),
            AttentionChoice::Off => (false, false),
            AttentionChoice::Statistics => (true, false),
            AttentionChoice::Rows => (true, true),
        };
        Some(Job {
            prompt: if chat {
                Prompt::Chat(text)
            } else {
                Prompt::Text(text)
            },
            max_new_tokens,
            ignore_eos: settings.ignore_eos,
            attention,
            attention_rows,
            fill: Fill::Between,
            sampling: settings.sampling.clone(),
            ..self.job.clone()
        })
    }

    /// Fill the prompt with the next sample of a set and run it.
    pub(super) fn run_next_sample(&mut self, set: usize) -> Vec<Effect> {
        let count = self.samples.get(set).map_or(0, |s| s.samples.len());
        if count == 0 {
            self.note(Level::Warn, "There is no such sample set.");
            return Vec::new();
        }
        let index = self.next_sample[set] % count;
        self.run_sample(set, index)
    }

    /// Fill the prompt with a sample and run it.
    pub(super) fn run_sample(&mut self, set: usize, index: usize) -> Vec<Effect> {
        let sample = self.samples.get(set).and_then(|s| s.samples.get(index));
        let Some(sample) = sample.cloned() else {
            return Vec::new();
        };
        self.next_sample[set] = index + 1;
        if self.compare == Some(Pairing::Prompts) {
            // Another prompt is no part of that pair.
            self.compare = None;
        }
        self.prompt.set(&sample.prompt);
        self.overlay = None;
        self.submit()
    }

    pub(super) fn commit_panel(&mut self) -> Vec<Effect> {
        let Some(Overlay::Sampling(panel)) = &mut self.overlay else {
            return Vec::new();
        };
        let (field, typed) = (panel.field(), panel.typed.take().unwrap_or_default());
        match self.settings.set(field, &typed) {
            Ok(()) => self.sampling_changed(),
            Err(problem) => {
                self.note(Level::Warn, problem);
                Vec::new()
            }
        }
    }

    /// A run under way takes new settings from its next token on.
    pub(super) fn sampling_changed(&mut self) -> Vec<Effect> {
        if !self.phase.is_running() {
            return Vec::new();
        }
        let sampling = self.settings.sampling.clone();
        match &mut self.run {
            Some(run) if *run.sampling_now() != sampling => {
                run.sampling_changes
                    .push((run.grid.len(), sampling.clone()));
                vec![Effect::Engine(Request::SetSampling(sampling))]
            }
            _ => Vec::new(),
        }
    }
}
