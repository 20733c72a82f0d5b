//! Which key does what: the one table behind key handling, hints, palette and help, with the user's changes over it.

use super::action::Action;
use crate::error::{Error, Result};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::collections::BTreeMap;

/// Where a binding holds. `Everywhere` is asked after the context in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Context {
    /// Any room but the prompt.
    Rooms,
    /// The prompt editor; what is not bound is typed.
    Prompt,
    /// A list with a filter line; what is not bound is typed.
    List,
    /// The sampling panel.
    Panel,
    /// A value being typed in a panel; what is not bound is typed.
    Field,
    /// A page of text: help, a message.
    Page,
    /// The search line; what is not bound is typed.
    SearchLine,
    /// All of these.
    Everywhere,
}

/// Whether one of these keys, separated by spaces, writes a character where text is written.
fn types(keys: &str) -> bool {
    keys.split_whitespace()
        .filter_map(Key::parse)
        .any(|key| matches!(key.code, KeyCode::Char(_)) && key.modifiers.is_empty())
}

impl Context {
    /// Whether unbound keys are typed here (or in one of the contexts meant).
    fn writes(self) -> bool {
        matches!(
            self,
            Self::Prompt | Self::List | Self::Field | Self::SearchLine | Self::Everywhere
        )
    }

    /// All contexts.
    pub const ALL: [Self; 8] = [
        Self::Rooms,
        Self::Prompt,
        Self::List,
        Self::Panel,
        Self::Field,
        Self::Page,
        Self::SearchLine,
        Self::Everywhere,
    ];
}

/// One key with its modifiers; shift is part of the character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    code: KeyCode,
    modifiers: KeyModifiers,
}

impl From<KeyEvent> for Key {
    fn from(event: KeyEvent) -> Self {
        Self::new(event.code, event.modifiers)
    }
}

impl Key {
    fn new(code: KeyCode, modifiers: KeyModifiers) -> Self {
        let mut modifiers =
            modifiers & (KeyModifiers::CONTROL | KeyModifiers::ALT | KeyModifiers::SHIFT);
        if matches!(code, KeyCode::Char(_) | KeyCode::BackTab) {
            modifiers -= KeyModifiers::SHIFT;
        }
        let code = match code {
            // Terminals send Ctrl-letters in either case.
            KeyCode::Char(c) if modifiers.contains(KeyModifiers::CONTROL) => {
                KeyCode::Char(c.to_ascii_lowercase())
            }
            code => code,
        };
        Self { code, modifiers }
    }

    /// `ctrl-p`, `alt-enter`, `space`, `?`, `f2`, `pgup`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut modifiers = KeyModifiers::NONE;
        let mut rest = text;
        loop {
            let lower = rest.to_ascii_lowercase();
            let (modifier, length) = if lower.starts_with("ctrl-") {
                (KeyModifiers::CONTROL, 5)
            } else if lower.starts_with("alt-") {
                (KeyModifiers::ALT, 4)
            } else if lower.starts_with("shift-") && lower != "shift-tab" {
                (KeyModifiers::SHIFT, 6)
            } else {
                break;
            };
            modifiers |= modifier;
            rest = rest.get(length..)?;
        }
        let code = match rest.to_ascii_lowercase().as_str() {
            "enter" => KeyCode::Enter,
            "esc" => KeyCode::Esc,
            "tab" => KeyCode::Tab,
            "shift-tab" => KeyCode::BackTab,
            "space" => KeyCode::Char(' '),
            "up" => KeyCode::Up,
            "down" => KeyCode::Down,
            "left" => KeyCode::Left,
            "right" => KeyCode::Right,
            "pgup" => KeyCode::PageUp,
            "pgdn" => KeyCode::PageDown,
            "home" => KeyCode::Home,
            "end" => KeyCode::End,
            "backspace" => KeyCode::Backspace,
            "delete" => KeyCode::Delete,
            "insert" => KeyCode::Insert,
            function
                if function.len() > 1
                    && function.starts_with('f')
                    && function[1..].bytes().all(|b| b.is_ascii_digit()) =>
            {
                KeyCode::F(
                    function[1..]
                        .parse()
                        .ok()
                        .filter(|n| (1..=24).contains(n))?,
                )
            }
            _ => {
                let mut chars = rest.chars();
                let c = chars.next().filter(|c| !c.is_control())?;
                if chars.next().is_some() {
                    return None;
                }
                KeyCode::Char(c)
            }
        };
        Some(Self::new(code, modifiers))
    }

    /// The key as it is written on the screen.
    #[must_use]
    pub fn label(self) -> String {
        let mut out = String::new();
        for (modifier, word) in [
            (KeyModifiers::CONTROL, "Ctrl-"),
            (KeyModifiers::ALT, "Alt-"),
            (KeyModifiers::SHIFT, "Shift-"),
        ] {
            if self.modifiers.contains(modifier) {
                out.push_str(word);
            }
        }
        match self.code {
            KeyCode::Char(' ') => out.push_str("Space"),
            KeyCode::Char(c) if self.modifiers.contains(KeyModifiers::CONTROL) => {
                out.extend(c.to_uppercase());
            }
            KeyCode::Char(c) => out.push(c),
            KeyCode::F(n) => out.push_str(&format!("F{n}")),
            KeyCode::Up => out.push('↑'),
            KeyCode::Down => out.push('↓'),
            KeyCode::Left => out.push('←'),
            KeyCode::Right => out.push('→'),
            KeyCode::PageUp => out.push_str("PgUp"),
            KeyCode::PageDown => out.push_str("PgDn"),
            KeyCode::BackTab => out.push_str("Shift-Tab"),
            code => out.push_str(&format!("{code:?}")),
        }
        out
    }
}

/// Keys that come with the program, the one shown in hints first.
const DEFAULTS: &[(Context, &str, Action)] = {
    use Action as A;
    use Context::{Everywhere, Field, List, Page, Panel, Prompt, Rooms, SearchLine};
    &[
        (Prompt, "enter", A::Run),
        (Rooms, "r", A::Run),
        (Rooms, "space", A::PauseResume),
        (Rooms, ".", A::Step),
        (Rooms, "S", A::Stop),
        (Rooms, "C", A::Continue),
        (Everywhere, "f2", A::SampleFirst),
        (Everywhere, "f3", A::SampleSecond),
        (Everywhere, "f4", A::SampleThird),
        (Rooms, "o", A::Samples),
        (Prompt, "ctrl-o", A::Samples),
        (Rooms, "p", A::Sampling),
        (Rooms, "s", A::Steer),
        (Rooms, "{", A::Weaker),
        (Rooms, "}", A::Stronger),
        (Rooms, "a", A::Replay),
        (Rooms, "z", A::Sweep),
        (Rooms, "c", A::Compare),
        (Rooms, "V", A::CompareFree),
        (Rooms, "K", A::CompareLocked),
        (Rooms, "T", A::ComparePrompts),
        (Rooms, "M", A::CompareModels),
        (Rooms, "U", A::CompareSets),
        (Rooms, "A", A::CompareOff),
        (Rooms, "F", A::TurnPairing),
        (Rooms, "v", A::TurnLower),
        (Rooms, "%", A::TurnGap),
        (Rooms, "i", A::EditPrompt),
        (Prompt, "esc tab", A::LeavePrompt),
        (Prompt, "alt-enter ctrl-j", A::NewLine),
        (Prompt, "up", A::HistoryPrevious),
        (Prompt, "down", A::HistoryNext),
        (Prompt, "ctrl-l", A::ClearPrompt),
        (Rooms, "left h", A::MoveLeft),
        (Rooms, "right l", A::MoveRight),
        (Rooms, "up k", A::MoveUp),
        (Rooms, "down j", A::MoveDown),
        (Rooms, "pgup", A::PageBack),
        (Rooms, "pgdn", A::PageOn),
        (Rooms, "g home", A::First),
        (Rooms, "G end", A::Last),
        (Rooms, "L", A::TopLayer),
        (Rooms, "tab", A::NextRoom),
        (Rooms, "shift-tab", A::PreviousRoom),
        (Rooms, "enter", A::Inspect),
        (Rooms, "esc", A::Back),
        (List, "esc", A::Back),
        (Panel, "esc q p s", A::Back),
        (Field, "esc", A::Back),
        (Field, "enter", A::Accept),
        (Page, "esc q", A::Back),
        (SearchLine, "esc", A::Back),
        (Rooms, "f", A::Follow),
        (Rooms, "/", A::Search),
        (Rooms, "n", A::SearchNext),
        (Rooms, "N", A::SearchPrevious),
        (Rooms, "w", A::NextUncertain),
        (Rooms, "W", A::PreviousUncertain),
        (Rooms, ">", A::NextMask),
        (Rooms, "<", A::PreviousMask),
        (Rooms, "d", A::Decided),
        (Rooms, "+ =", A::ZoomIn),
        (Rooms, "- _", A::ZoomOut),
        (Rooms, "]", A::RangeNext),
        (Rooms, "[", A::RangePrevious),
        (Rooms, "D", A::DecidedLine),
        (Rooms, "t", A::Themes),
        (Rooms, "m", A::Metrics),
        (Rooms, "1", A::Metric1),
        (Rooms, "2", A::Metric2),
        (Rooms, "3", A::Metric3),
        (Rooms, "4", A::Metric4),
        (Rooms, "5", A::Metric5),
        (Rooms, "6", A::Metric6),
        (Rooms, "7", A::Metric7),
        (Rooms, "8", A::Metric8),
        (Rooms, "9", A::Metric9),
        (Rooms, "x", A::Export),
        (Rooms, "y", A::CopyText),
        (Rooms, "Y", A::CopyCell),
        (Rooms, ":", A::Palette),
        (Everywhere, "ctrl-p", A::Palette),
        (Rooms, "?", A::Help),
        (Everywhere, "f1", A::Help),
        (Rooms, "E", A::ShowError),
        (Everywhere, "F9", A::ShowError),
        (Rooms, "ctrl-l", A::Redraw),
        (Everywhere, "ctrl-z", A::Suspend),
        (Everywhere, "ctrl-c", A::Interrupt),
        (Rooms, "q", A::Quit),
        (List, "up ctrl-k", A::ListUp),
        (List, "down ctrl-j", A::ListDown),
        (List, "pgup", A::ListPageUp),
        (List, "pgdn", A::ListPageDown),
        (List, "enter", A::Accept),
        (Panel, "up k", A::ListUp),
        (Panel, "down j tab", A::ListDown),
        (Panel, "left h", A::Less),
        (Panel, "right l", A::More),
        (Panel, "enter", A::Accept),
        (Panel, "delete backspace", A::Remove),
        (Page, "up k", A::ListUp),
        (Page, "down j", A::ListDown),
        (Page, "pgup", A::ListPageUp),
        (Page, "pgdn space", A::ListPageDown),
        (Page, "enter", A::Accept),
        (SearchLine, "enter", A::Accept),
        (SearchLine, "down", A::SearchNext),
        (SearchLine, "up", A::SearchPrevious),
    ]
};

/// The bindings in force.
#[derive(Clone, Debug)]
pub struct Keymap {
    bindings: Vec<(Context, Key, Action)>,
}

impl Keymap {
    /// The program's keys with the user's over them: action name → keys, separated by spaces. An action's own keys
    /// are replaced in every context that binds it; an empty text unbinds it. Keys that type replace them only where
    /// nothing is typed: in the rooms, panels and pages.
    ///
    /// # Errors
    /// Unknown actions, unknown keys, and a key that would mean two things.
    pub fn new(user: &BTreeMap<String, String>) -> Result<Self> {
        let wrong = |problem: String| {
            Error::Usage(format!(
                "[keys] in the config file: {problem}; `?` in the program lists all keys"
            ))
        };
        let mut bindings = Vec::new();
        for &(context, keys, action) in DEFAULTS {
            let keys = match user.get(action.name()) {
                Some(own) if !(context.writes() && types(own)) => own,
                _ => keys,
            };
            for word in keys.split_whitespace() {
                let key = Key::parse(word)
                    .ok_or_else(|| wrong(format!("`{}` is not a key", crate::text::scrub(word))))?;
                bindings.push((context, key, action));
            }
        }
        for (name, own) in user {
            let Some(action) = Action::by_name(name) else {
                return Err(wrong(format!(
                    "`{}` is not an action",
                    crate::text::scrub(name)
                )));
            };
            let placed = DEFAULTS
                .iter()
                .any(|(context, _, a)| *a == action && !context.writes());
            if types(own) && !placed {
                let own = own.split_whitespace().filter_map(Key::parse);
                bindings.extend(own.map(|key| (Context::Rooms, key, action)));
            }
        }
        bindings.dedup();
        for (i, (context, key, action)) in bindings.iter().enumerate() {
            let clash = bindings[..i]
                .iter()
                .find(|(c, k, a)| c == context && k == key && a != action);
            if let Some((_, _, other)) = clash {
                return Err(wrong(format!(
                    "`{}` would mean both {} and {}",
                    key.label(),
                    other.name(),
                    action.name()
                )));
            }
        }
        Ok(Self { bindings })
    }

    /// What `key` does in `context`.
    #[must_use]
    pub fn action(&self, context: Context, key: Key) -> Option<Action> {
        let find = |wanted: Context| {
            self.bindings
                .iter()
                .find(|(c, k, _)| *c == wanted && *k == key)
                .map(|(_, _, a)| *a)
        };
        find(context).or_else(|| find(Context::Everywhere))
    }

    /// The keys of an action as they are written, those of `context` first; empty when it has none.
    #[must_use]
    pub fn keys(&self, action: Action, context: Context) -> Vec<String> {
        let mut keys: Vec<_> = self
            .bindings
            .iter()
            .filter(|(_, _, a)| *a == action)
            .collect();
        keys.sort_by_key(|(c, _, _)| (*c != context, *c != Context::Everywhere));
        let mut labels: Vec<String> = keys.into_iter().map(|(_, k, _)| k.label()).collect();
        let mut seen = Vec::new();
        labels.retain(|l| !seen.contains(l) && (seen.push(l.clone()), true).1);
        labels
    }

    /// The first key of an action that works in `context`, for hints.
    #[must_use]
    pub fn hint(&self, action: Action, context: Context) -> Option<String> {
        [context, Context::Everywhere].iter().find_map(|wanted| {
            self.bindings
                .iter()
                .find(|(c, _, a)| c == wanted && *a == action)
                .map(|(_, k, _)| k.label())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Keymap {
        Keymap::new(&BTreeMap::new()).unwrap()
    }

    #[test]
    fn no_key_means_two_things_and_every_action_has_one() {
        let keymap = plain();
        for (i, (context, key, action)) in keymap.bindings.iter().enumerate() {
            for (c, k, a) in &keymap.bindings[i + 1..] {
                assert!(
                    c != context || k != key,
                    "{key:?} in {context:?}: {action:?}, {a:?}"
                );
            }
        }
        for action in Action::ALL {
            assert!(
                !keymap.keys(*action, Context::Rooms).is_empty(),
                "{action:?}"
            );
        }
    }

    #[test]
    fn nothing_that_types_is_bound_where_text_is_written() {
        let user = ["help", "run", "back", "palette", "suspend"]
            .into_iter()
            .zip(["H", "R", "B", "P", "Z"])
            .map(|(action, key)| (action.to_owned(), key.to_owned()))
            .collect();
        let own = Keymap::new(&user).unwrap();
        for (context, key, action) in plain().bindings.iter().chain(&own.bindings) {
            let types = matches!(key.code, KeyCode::Char(_)) && key.modifiers.is_empty();
            assert!(!(types && context.writes()), "{action:?} in {context:?}");
        }
        // They work where nothing is typed, and Enter still runs.
        for (name, key) in &user {
            let key = Key::parse(key).unwrap();
            let found = own.action(Context::Rooms, key);
            assert_eq!(found, Action::by_name(name), "{name}");
        }
        let enter = Key::parse("Enter").unwrap();
        assert_eq!(own.action(Context::Prompt, enter), Some(Action::Run));
    }

    #[test]
    fn keys_are_written_as_they_are_read() {
        for text in [
            "Ctrl-P",
            "Alt-Enter",
            "Space",
            "?",
            "F2",
            "PgUp",
            "Shift-Tab",
            "G",
            "Esc",
        ] {
            assert_eq!(Key::parse(text).unwrap().label(), text);
        }
        for text in ["", "hyper-x", "f99", "ab", "f1x"] {
            assert!(Key::parse(text).is_none(), "{text}");
        }
        let shifted = KeyEvent::new(KeyCode::Char('G'), KeyModifiers::SHIFT);
        assert_eq!(Key::from(shifted), Key::parse("G").unwrap());
    }

    #[test]
    fn users_rebind_and_mistakes_are_named() {
        let user = |pairs: &[(&str, &str)]| {
            Keymap::new(
                &pairs
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect(),
            )
        };
        let keymap = user(&[("export", "X ctrl-e")]).unwrap();
        let does = |key: &str| keymap.action(Context::Rooms, Key::parse(key).unwrap());
        assert_eq!(does("X"), Some(Action::Export));
        assert_eq!(does("ctrl-e"), Some(Action::Export));
        assert_eq!(does("x"), None);
        assert!(
            user(&[("quit", "")])
                .unwrap()
                .keys(Action::Quit, Context::Rooms)
                .is_empty()
        );
        let clash = user(&[("export", "q")]).unwrap_err().to_string();
        assert!(
            clash.contains("export") && clash.contains("quit"),
            "{clash}"
        );
        let unknown = user(&[("fly", "z")]).unwrap_err().to_string();
        assert!(unknown.contains("`fly` is not an action"), "{unknown}");
        let key = user(&[("quit", "hyper-z")]).unwrap_err().to_string();
        assert!(key.contains("`hyper-z` is not a key"), "{key}");
    }
}
