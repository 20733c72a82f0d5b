//! Behaviour, driven by messages alone: keys, clicks, engine events, the clock.

mod compare;
mod masked;
mod models;
mod overlays;
mod run;
mod sets;
mod sweep;
mod travel;

use super::{
    Clock, Field, Level, Message, Overlay, PageLine, Phase, RangeMode, State, page_lines, update,
};
use crate::error::Error;
use crate::session::{Event, Finish, Prompt, Request};
use crate::tui::action::Action;
use crate::tui::colour::Depth;
use crate::tui::effect::{Effect, Export};
use crate::tui::fixture;
use crate::tui::keymap::Context;
use crate::tui::layout::Room;
use crate::tui::widgets::Zoom;
use ratatui::crossterm::event::{
    KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use ratatui::layout::Rect;
use std::time::Duration;

/// Press keys written as the key map writes them; the effects of all of them.
fn press(state: &mut State, keys: &str) -> Vec<Effect> {
    keys.split_whitespace()
        .flat_map(|word| {
            let (modifiers, name) = match word.split_once('-') {
                Some(("ctrl", rest)) => (KeyModifiers::CONTROL, rest),
                Some(("alt", rest)) => (KeyModifiers::ALT, rest),
                _ => (KeyModifiers::NONE, word),
            };
            let code = match name {
                "enter" => KeyCode::Enter,
                "esc" => KeyCode::Esc,
                "tab" => KeyCode::Tab,
                "shifttab" => KeyCode::BackTab,
                "space" => KeyCode::Char(' '),
                "backspace" => KeyCode::Backspace,
                "up" => KeyCode::Up,
                "down" => KeyCode::Down,
                "left" => KeyCode::Left,
                "right" => KeyCode::Right,
                "pgup" => KeyCode::PageUp,
                "pgdn" => KeyCode::PageDown,
                "home" => KeyCode::Home,
                "end" => KeyCode::End,
                "f2" => KeyCode::F(2),
                "f3" => KeyCode::F(3),
                one => KeyCode::Char(one.chars().next().unwrap()),
            };
            update(state, Message::Key(KeyEvent::new(code, modifiers)))
        })
        .collect()
}

fn type_text(state: &mut State, text: &str) {
    for c in text.chars() {
        let key = KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE);
        assert!(update(state, Message::Key(key)).is_empty());
    }
}

fn click(state: &mut State, x: u16, y: u16) {
    mouse(state, MouseEventKind::Down(MouseButton::Left), x, y);
}

fn mouse(state: &mut State, kind: MouseEventKind, column: u16, row: u16) {
    let event = MouseEvent {
        kind,
        column,
        row,
        modifiers: KeyModifiers::NONE,
    };
    update(state, Message::Mouse(event));
}

fn running() -> State {
    fixture::state(120, 36, Depth::True, 48).unwrap()
}

fn ready() -> State {
    let area = Rect::new(0, 0, 120, 36);
    let mut state = State::new(&fixture::options(), Depth::True, area).unwrap();
    update(&mut state, fixture::loaded().unwrap());
    state.settle();
    state
}

fn requests(effects: &[Effect]) -> Vec<String> {
    effects
        .iter()
        .map(|e| match e {
            Effect::Engine(request) => {
                let name = format!("{request:?}");
                name.split(['(', ' ', '{']).next().unwrap().to_owned()
            }
            other => format!("{other:?}"),
        })
        .collect()
}
