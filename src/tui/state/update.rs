//! The one function that changes the state.

use super::overlay::{Choice, List, Overlay, Page, SearchLine};
use super::{AttentionChoice, Clock, Field, Level, Panel, Phase, State};
use crate::error::Error;
use crate::session::{Event, Job, Prompt, Request};
use crate::tui::action::Action;
use crate::tui::effect::Effect;
use crate::tui::keymap::{Context, Key};
use crate::tui::layout::Room;
use crate::tui::show;
use crate::tui::widgets::Zoom;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseEvent};
use ratatui::layout::Rect;
use std::path::PathBuf;

/// Attention rows are kept on their own accord while they stay under this many bytes.
const ATTENTION_ROWS_BYTES: u64 = 256 << 20;

/// Everything that can happen to the screen.
#[derive(Debug)]
pub enum Message {
    /// An action, from wherever.
    Do(Action),
    /// A key.
    Key(KeyEvent),
    /// Text that was pasted.
    Paste(String),
    /// The mouse.
    Mouse(MouseEvent),
    /// The terminal's new size.
    Resize(u16, u16),
    /// The engine reports.
    Engine(Event),
    /// The engine thread has ended, with its panic if it had one.
    EngineGone(Option<String>),
    /// The clock.
    Tick(Clock),
    /// An export ended.
    Exported(Result<Vec<PathBuf>, Error>),
    /// Something to say.
    Note(Level, String),
}

impl From<Action> for Message {
    fn from(action: Action) -> Self {
        Self::Do(action)
    }
}

impl From<Event> for Message {
    fn from(event: Event) -> Self {
        Self::Engine(event)
    }
}

/// Change the state and say what has to be done about it.
pub fn update(state: &mut State, message: impl Into<Message>) -> Vec<Effect> {
    match message.into() {
        Message::Engine(event) => state.hear(event),
        Message::Tick(clock) => {
            state.clock = clock;
            Vec::new()
        }
        message => {
            let effects = state.take(message);
            // What the next click or page key means depends on where things are now.
            state.settle();
            effects
        }
    }
}

impl State {
    fn take(&mut self, message: Message) -> Vec<Effect> {
        match message {
            Message::Do(action) => self.act(action),
            Message::Key(key) if key.kind != KeyEventKind::Release => self.key(key),
            Message::Paste(text) => {
                self.paste(&text);
                Vec::new()
            }
            Message::Mouse(event) => self.mouse(event),
            Message::Resize(width, height) => {
                self.area = Rect::new(0, 0, width, height);
                Vec::new()
            }
            Message::EngineGone(why) => {
                self.engine_gone(why.as_deref());
                Vec::new()
            }
            Message::Exported(result) => {
                self.exported(result);
                Vec::new()
            }
            Message::Note(level, text) => {
                self.note(level, text);
                Vec::new()
            }
            Message::Key(_) | Message::Engine(_) | Message::Tick(_) => Vec::new(),
        }
    }

    fn key(&mut self, event: KeyEvent) -> Vec<Effect> {
        let context = self.context();
        // What was said has been seen by the next key; an error stays until it is put away.
        if self
            .notice
            .as_ref()
            .is_some_and(|n| n.level != Level::Error)
        {
            self.notice = None;
        }
        if matches!(self.overlay, Some(Overlay::ConfirmQuit)) {
            self.overlay = None;
            let bound = self.keymap.action(context, Key::from(event));
            return match event.code {
                _ if bound == Some(Action::Interrupt) => self.act(Action::Interrupt),
                KeyCode::Enter | KeyCode::Char('y' | 'q') => vec![Effect::Quit],
                _ => Vec::new(),
            };
        }
        if let Some(action) = self.keymap.action(context, Key::from(event)) {
            return self.act(action);
        }
        let plain = (event.modifiers - KeyModifiers::SHIFT).is_empty();
        let typed = match event.code {
            KeyCode::Char(c) if plain => Some(Some(c)),
            KeyCode::Backspace => Some(None),
            _ => None,
        };
        match (&mut self.overlay, typed) {
            (Some(Overlay::List(list)), Some(c)) => {
                list.type_char(c);
                self.preview();
            }
            (Some(Overlay::Search(_)), Some(c)) => self.type_search(c),
            (Some(Overlay::Sampling(panel)), Some(c)) => type_number(panel, c),
            (None, _) if self.writing => {
                self.prompt.key(event);
                self.notice = None;
            }
            _ => {}
        }
        Vec::new()
    }

    fn paste(&mut self, text: &str) {
        match &mut self.overlay {
            Some(Overlay::List(list)) => {
                let line = text.lines().next().unwrap_or_default();
                list.query
                    .extend(line.chars().filter(|c| !c.is_control()).take(200));
                list.selected = 0;
            }
            Some(Overlay::Search(_)) => {
                let line = text.lines().next().unwrap_or_default().to_owned();
                for c in line.chars().filter(|c| !c.is_control()).take(200) {
                    self.type_search(Some(c));
                }
            }
            Some(_) => {}
            // A paste always means the prompt, wherever the keys are.
            None => {
                self.writing = true;
                if !self.prompt.paste(text) {
                    self.note(Level::Warn, "The paste was cut after 1 MB.");
                }
            }
        }
    }

    /// Perform an action.
    pub(super) fn act(&mut self, action: Action) -> Vec<Effect> {
        if self.overlay.is_some()
            && let Some(effects) = self.act_in_overlay(action)
        {
            return effects;
        }
        match action {
            Action::Run => return self.submit(),
            Action::PauseResume
            | Action::Step
            | Action::Stop
            | Action::Continue
            | Action::Interrupt => return self.control(action),
            Action::SampleFirst => return self.run_next_sample(0),
            Action::SampleSecond => return self.run_next_sample(1),
            Action::SampleThird => return self.run_next_sample(2),
            Action::Samples => self.open_samples(),
            Action::Sampling => self.overlay = Some(Overlay::Sampling(Panel::default())),
            Action::EditPrompt => self.writing = true,
            Action::LeavePrompt => self.writing = false,
            Action::NewLine => self.prompt.new_line(),
            Action::HistoryPrevious => self.prompt.previous(),
            Action::HistoryNext => self.prompt.next(),
            Action::ClearPrompt => self.prompt.clear(),
            Action::NextRoom => self.turn_room(true),
            Action::PreviousRoom => self.turn_room(false),
            Action::Inspect => self.room = Room::Cell,
            Action::Back => self.back(),
            Action::Search => {
                self.overlay = Some(Overlay::Search(SearchLine {
                    query: String::new(),
                    from: self.cursor.position,
                    followed: self.cursor.follow,
                }));
            }
            Action::ZoomIn => self.zoom(true),
            Action::ZoomOut => self.zoom(false),
            Action::RangeNext => self.map.range = self.map.range.turned(true),
            Action::RangePrevious => self.map.range = self.map.range.turned(false),
            Action::DecidedLine => self.map.hide_decided = !self.map.hide_decided,
            Action::Themes => self.open_themes(),
            Action::Metrics => self.open_metrics(),
            Action::Metric1 => self.favourite(0),
            Action::Metric2 => self.favourite(1),
            Action::Metric3 => self.favourite(2),
            Action::Metric4 => self.favourite(3),
            Action::Metric5 => self.favourite(4),
            Action::Metric6 => self.favourite(5),
            Action::Metric7 => self.favourite(6),
            Action::Metric8 => self.favourite(7),
            Action::Metric9 => self.favourite(8),
            Action::Export => return self.export(),
            Action::CopyText => return self.copy_text(),
            Action::CopyCell => return self.copy_cell(),
            Action::Palette => self.open_palette(),
            Action::Help => {
                self.overlay = Some(Overlay::Page(Page {
                    title: "Keys".to_owned(),
                    ..Page::default()
                }));
            }
            Action::ShowError => self.show_message(),
            Action::Redraw => return vec![Effect::Redraw],
            Action::Suspend => return vec![Effect::Suspend],
            Action::Quit => return self.quit(),
            Action::ListUp
            | Action::ListDown
            | Action::ListPageUp
            | Action::ListPageDown
            | Action::Less
            | Action::More
            | Action::Accept => {}
            _ => self.travel(action),
        }
        Vec::new()
    }

    /// Actions that mean something else while an overlay is open; `None` when this one does not.
    fn act_in_overlay(&mut self, action: Action) -> Option<Vec<Effect>> {
        let page = usize::from(self.area.height / 2).max(1) as isize;
        let by = match action {
            Action::ListUp => -1,
            Action::ListDown => 1,
            Action::ListPageUp => -page,
            Action::ListPageDown => page,
            _ => 0,
        };
        match (&mut self.overlay, action) {
            (_, Action::Back) => self.close_overlay(),
            (Some(Overlay::List(list)), _) if by != 0 => {
                list.step(by);
                self.preview();
            }
            (Some(Overlay::List(list)), Action::Accept) => {
                let choice = list.chosen().map(|item| item.choice);
                self.overlay = None;
                return Some(choice.map_or(Vec::new(), |c| self.choose(c)));
            }
            (Some(Overlay::Sampling(panel)), _) if by != 0 => {
                let last = Field::ALL.len() as isize;
                let (row, typed) = (panel.row as isize, panel.typed.is_some());
                panel.row = (row + by).rem_euclid(last) as usize;
                if typed {
                    panel.row = row as usize;
                    return Some(self.commit_panel());
                }
            }
            (Some(Overlay::Sampling(panel)), Action::Less | Action::More) => {
                let field = panel.field();
                panel.typed = None;
                self.settings.nudge(field, action == Action::More);
                return Some(self.sampling_changed());
            }
            (Some(Overlay::Sampling(panel)), Action::Accept) => {
                if panel.typed.is_some() {
                    return Some(self.commit_panel());
                }
                self.overlay = None;
            }
            (Some(Overlay::Page(page)), _) if by != 0 => {
                page.top = page.top.saturating_add_signed(by);
            }
            (Some(Overlay::Page(_)), Action::Accept | Action::Help | Action::ShowError) => {
                self.overlay = None;
            }
            (Some(Overlay::Search(line)), Action::Accept) => {
                let empty = line.query.is_empty();
                self.overlay = None;
                if !empty && self.matches().is_empty() {
                    let text = format!("`{}` is not in the text.", self.search);
                    self.note(Level::Warn, text);
                }
            }
            _ => return None,
        }
        Some(Vec::new())
    }

    fn close_overlay(&mut self) {
        match self.overlay.take() {
            Some(Overlay::Sampling(panel)) if panel.typed.is_some() => {
                self.overlay = Some(Overlay::Sampling(Panel {
                    typed: None,
                    ..panel
                }));
            }
            Some(Overlay::List(list)) => {
                if let Some(before) = list.theme_before {
                    self.wear(before);
                }
            }
            Some(Overlay::Search(line)) => {
                self.search.clear();
                self.cursor.position = line.from;
                self.cursor.follow = line.followed;
            }
            _ => {}
        }
    }

    /// Esc in the rooms: message, search, then back to the map. Never out of the program.
    fn back(&mut self) {
        if self.notice.take().is_some() {
            return;
        }
        if !self.search.is_empty() {
            self.search.clear();
        } else {
            self.room = Room::Map;
        }
    }

    fn quit(&mut self) -> Vec<Effect> {
        if self.phase.is_running() {
            self.overlay = Some(Overlay::ConfirmQuit);
            return Vec::new();
        }
        vec![Effect::Quit]
    }

    fn zoom(&mut self, larger: bool) {
        self.map.zoom_chosen = true;
        self.map.zoom = match (self.map.zoom, larger) {
            (Zoom::Halves, true) | (Zoom::Words, false) => Zoom::Cells,
            (_, true) => Zoom::Words,
            (_, false) => Zoom::Halves,
        };
    }

    fn favourite(&mut self, index: usize) {
        let name = super::FAVOURITES[index];
        match self.columns().find(name) {
            Some(metric) => self.metric = metric,
            None => self.note(
                Level::Warn,
                format!("`{name}` is not computed in this run."),
            ),
        }
    }

    fn type_search(&mut self, c: Option<char>) {
        let Some(Overlay::Search(line)) = &mut self.overlay else {
            return;
        };
        match c {
            Some(c) => line.query.push(c),
            None => {
                line.query.pop();
            }
        }
        self.search = line.query.clone();
        let (from, followed) = (line.from, line.followed);
        let matches = self.matches();
        let hit = matches
            .iter()
            .find(|m| *m.start() >= from)
            .or(matches.first());
        match hit {
            Some(hit) => self.go_to(*hit.start()),
            None => {
                self.cursor.position = from;
                self.cursor.follow = followed;
            }
        }
    }

    fn show_message(&mut self) {
        match self.last_notice.clone() {
            Some(notice) => {
                self.overlay = Some(Overlay::Page(Page {
                    title: "Message".to_owned(),
                    text: Some(notice.text),
                    top: 0,
                }));
            }
            None => self.note(Level::Info, "There has been no message."),
        }
    }

    fn exported(&mut self, result: Result<Vec<PathBuf>, Error>) {
        match result {
            Ok(files) => {
                let folder = files.first().and_then(|f| f.parent());
                let folder =
                    folder.map_or(String::new(), |f| format!(" to {}", crate::text::path(f)));
                let list: Vec<String> = files.iter().map(|f| crate::text::path(f)).collect();
                self.note(
                    Level::Info,
                    format!("Wrote {} files{folder}\n{}", files.len(), list.join("\n")),
                );
            }
            Err(error) => self.note(Level::Error, error.to_string()),
        }
    }

    fn export(&mut self) -> Vec<Effect> {
        match (self.record(), &self.model) {
            (Some(record), Some(model)) if !record.branches[0].1.is_empty() => {
                let tokenizer = std::sync::Arc::clone(&model.tokenizer);
                self.note(Level::Info, "Writing …");
                vec![Effect::Export(Box::new(record), tokenizer)]
            }
            _ => {
                self.note(Level::Warn, "There is nothing to export yet: run a prompt.");
                Vec::new()
            }
        }
    }

    fn copy_text(&mut self) -> Vec<Effect> {
        let Some(grid) = self.grid().filter(|g| !g.is_empty()) else {
            self.note(Level::Warn, "There is no text yet: run a prompt.");
            return Vec::new();
        };
        let bytes: Vec<u8> = grid
            .tokens()
            .iter()
            .flat_map(|t| t.bytes.iter().copied())
            .collect();
        // What another program pastes must not carry control sequences either.
        let text: String = String::from_utf8_lossy(&bytes)
            .chars()
            .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
            .collect();
        let count = text.chars().count();
        self.note(Level::Info, format!("Copied the text, {count} characters."));
        vec![Effect::Copy(text)]
    }

    fn copy_cell(&mut self) -> Vec<Effect> {
        let (layer, position) = (self.cursor.layer, self.cursor.position);
        let Some(grid) = self.grid().filter(|g| g.cells(position).is_some()) else {
            self.note(Level::Warn, "This cell has not been read.");
            return Vec::new();
        };
        let token = grid.tokens().get(position);
        let token = token.map_or(String::new(), |t| show::label(&t.bytes));
        let mut text = format!("layer {layer}\ntoken {position} {token}\n");
        for (i, spec) in self.columns().metrics().iter().enumerate() {
            let value = grid.value(layer, position, crate::trace::Metric(i));
            let value = value.map_or("n/a".to_owned(), |v| v.to_string());
            text.push_str(&format!("{} {value} {}\n", spec.name, spec.unit.label()));
        }
        self.note(
            Level::Info,
            format!("Copied the readings of layer {layer}, token {position}."),
        );
        vec![Effect::Copy(text)]
    }

    /// Pause, resume, step, stop, continue and Ctrl-C, as the phase allows.
    fn control(&mut self, action: Action) -> Vec<Effect> {
        let request = match (action, &self.phase) {
            (Action::PauseResume, Phase::Reading | Phase::Streaming) => Request::Pause,
            (Action::PauseResume, Phase::Paused) => Request::Resume,
            (Action::Step, Phase::Paused) => Request::Step,
            (Action::Step, Phase::Reading | Phase::Streaming) => Request::Pause,
            (Action::Stop | Action::Interrupt, phase) if phase.is_running() => Request::Stop,
            (Action::Interrupt, _) => return vec![Effect::Quit],
            (Action::Continue, Phase::Paused) => Request::Resume,
            (Action::Step, Phase::Done(_)) => return self.go_on(1),
            (Action::Continue, Phase::Done(_)) => return self.go_on(self.settings.max_new_tokens),
            _ => {
                self.note(Level::Warn, "Nothing is running: write a prompt first.");
                return Vec::new();
            }
        };
        vec![Effect::Engine(request)]
    }

    fn go_on(&mut self, tokens: usize) -> Vec<Effect> {
        if let Some(run) = &mut self.run {
            run.max_new_tokens = run.drawn() + tokens;
            run.ended = None;
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
        let Some(model) = &self.model else {
            match self.phase {
                Phase::Loading { .. } => {
                    self.run_when_loaded = true;
                    self.writing = false;
                    self.note(Level::Info, "Runs as soon as the model is loaded.");
                }
                _ => self.note(Level::Warn, "There is no model to run."),
            }
            return Vec::new();
        };
        let settings = &self.settings;
        let chat = settings.chat && model.card.chat_template;
        // A prompt has about a token a character at most; rows cost 4 bytes a head, layer and pair of positions.
        let longest = (text.len() + settings.max_new_tokens).min(model.card.context.max(1)) as u64;
        let heads = (model.card.heads * model.card.blocks) as u64;
        let rows = longest.saturating_mul(longest).saturating_mul(2 * heads);
        let (attention, attention_rows) = match settings.attention {
            AttentionChoice::Auto => (true, rows <= ATTENTION_ROWS_BYTES),
            AttentionChoice::Off => (false, false),
            AttentionChoice::Statistics => (true, false),
            AttentionChoice::Rows => (true, true),
        };
        let job = Job {
            prompt: if chat {
                Prompt::Chat(text)
            } else {
                Prompt::Text(text)
            },
            max_new_tokens: settings.max_new_tokens,
            ignore_eos: settings.ignore_eos,
            attention,
            attention_rows,
            sampling: settings.sampling.clone(),
            ..self.job.clone()
        };
        self.writing = false;
        self.overlay = None;
        self.before_submit = Some(std::mem::replace(&mut self.phase, Phase::Reading));
        vec![Effect::Engine(Request::Generate(Box::new(job)))]
    }

    /// Fill the prompt with the next sample of a set and run it.
    fn run_next_sample(&mut self, set: usize) -> Vec<Effect> {
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
        self.prompt.set(&sample.prompt);
        self.overlay = None;
        self.submit()
    }

    fn commit_panel(&mut self) -> Vec<Effect> {
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
    fn sampling_changed(&mut self) -> Vec<Effect> {
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

    fn choose(&mut self, choice: Choice) -> Vec<Effect> {
        match choice {
            Choice::Do(action) => return self.act(action),
            Choice::Metric(metric) => self.metric = metric,
            Choice::Sample(set, index) => return self.run_sample(set, index),
            Choice::Theme(index) => self.wear(index),
        }
        Vec::new()
    }

    /// Show a theme while it is only pointed at.
    fn preview(&mut self) {
        if let Some(Overlay::List(list)) = &self.overlay
            && let Some(Choice::Theme(index)) = list.chosen().map(|item| item.choice)
        {
            self.wear(index);
        }
    }

    fn open_list(&mut self, list: List) {
        self.overlay = Some(Overlay::List(list));
    }

    fn open_palette(&mut self) {
        let context = if self.writing {
            Context::Prompt
        } else {
            Context::Rooms
        };
        self.close_overlay();
        let items = super::lists::palette(self, context);
        self.open_list(List::new("Actions", items, |_| false));
    }

    fn open_metrics(&mut self) {
        let metric = self.metric;
        let items = super::lists::metrics(self);
        self.open_list(List::new("Metrics", items, |c| c == Choice::Metric(metric)));
    }

    fn open_samples(&mut self) {
        let items = super::lists::samples(self);
        if items.is_empty() {
            return self.note(Level::Warn, "There are no sample prompts.");
        }
        self.open_list(List::new("Sample prompts", items, |_| false));
    }

    fn open_themes(&mut self) {
        let worn = self.theme_index;
        let items = super::lists::themes(self);
        let mut list = List::new("Themes", items, |c| c == Choice::Theme(worn));
        list.theme_before = Some(worn);
        self.open_list(list);
    }
}

fn type_number(panel: &mut Panel, c: Option<char>) {
    if !panel.field().is_number() {
        return;
    }
    match c {
        Some(c) if c.is_ascii_digit() || c == '.' => {
            let typed = panel.typed.get_or_insert_default();
            if typed.len() < 20 {
                typed.push(c);
            }
        }
        Some(_) => {}
        None => {
            if let Some(typed) = &mut panel.typed {
                typed.pop();
            }
        }
    }
}
