//! The one function that changes the state.

use super::overlay::{Overlay, Page, SearchLine};
use super::{Clock, Field, Level, Panel, State};
use crate::error::Error;
use crate::session::Event;
use crate::trace::Pairing;
use crate::tui::action::{Action, Group};
use crate::tui::effect::Effect;
use crate::tui::keymap::{Context, Key};
use crate::tui::layout::Room;
use crate::tui::widgets::Zoom;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseEvent};
use ratatui::layout::Rect;
use std::path::PathBuf;

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
        // Some keys of the rooms mean in a sweep what they mean there.
        if matches!(self.overlay, Some(Overlay::Sweep))
            && let Some(action) = self.keymap.action(Context::Rooms, Key::from(event))
            && (action.group() == Group::Metric
                || matches!(action, Action::Export | Action::Sweep | Action::Stop))
            && action != Action::Metrics
        {
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
            (Some(Overlay::OtherModel(typed)), Some(c)) => match c {
                Some(c) => typed.push(c),
                None => {
                    typed.pop();
                }
            },
            (Some(Overlay::Steering(panel)), Some(c)) => {
                if let Some(typed) = &mut panel.typed {
                    match c {
                        Some(c) => typed.push(c),
                        None => {
                            typed.pop();
                        }
                    }
                }
            }
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
            Some(Overlay::Steering(panel)) => {
                if let Some(typed) = &mut panel.typed {
                    let line = text.lines().next().unwrap_or_default();
                    typed.extend(line.chars().filter(|c| !c.is_control()).take(1000));
                }
            }
            Some(Overlay::OtherModel(typed)) => {
                let line = text.lines().next().unwrap_or_default();
                typed.extend(line.chars().filter(|c| !c.is_control()).take(1000));
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
        if let Some(effects) = self.act_on_sets(action) {
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
            Action::Sampling if self.draws_nothing(action) => {}
            Action::Sampling => self.overlay = Some(Overlay::Sampling(Panel::default())),
            Action::Steer => self.open_steering(),
            Action::Weaker | Action::Stronger => return self.slide(action == Action::Stronger),
            Action::Sweep => return self.open_sweep(false),
            Action::Replay => return self.replay(),
            Action::Compare => self.open_compare(),
            Action::CompareFree => return self.compare(Pairing::Free),
            Action::CompareLocked => return self.compare(Pairing::Locked),
            Action::CompareModels => return self.compare_models(),
            Action::CompareSets => return self.compare_sets(),
            Action::ComparePrompts => return self.compare_prompts(),
            Action::CompareOff => return self.stop_comparing(),
            Action::TurnPairing => return self.turn_pairing(),
            Action::TurnLower => self.turn_lower(),
            Action::TurnGap => self.turn_gap(),
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
            | Action::Remove
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
        if let Some(effects) = self.act_in_sweep(action) {
            return Some(effects);
        }
        if let Some(effects) = self.act_in_steering(action, by) {
            return Some(effects);
        }
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
            (Some(Overlay::OtherModel(typed)), Action::Accept) => {
                let typed = std::mem::take(typed);
                return Some(self.take_other(&typed));
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

    pub(super) fn close_overlay(&mut self) {
        match self.overlay.take() {
            Some(Overlay::Sampling(panel)) if panel.typed.is_some() => {
                self.overlay = Some(Overlay::Sampling(Panel {
                    typed: None,
                    ..panel
                }));
            }
            Some(Overlay::Steering(panel)) if panel.typed.is_some() => {
                self.overlay = Some(Overlay::Steering(super::SteerPanel {
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
        if self.phase.is_running() || self.sweeps() {
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
            Some(metric) if !self.applies(metric) => self.note(
                Level::Warn,
                format!("`{name}` is n/a: this model sees both sides and predicts no next token."),
            ),
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
