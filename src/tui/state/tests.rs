//! Behaviour, driven by messages alone: keys, clicks, engine events, the clock.

use super::{Field, Level, Message, Overlay, Phase, RangeMode, State, update};
use crate::error::Error;
use crate::session::{Event, Finish, Prompt, Request};
use crate::tui::action::Action;
use crate::tui::colour::Depth;
use crate::tui::effect::Effect;
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

#[test]
fn a_prompt_is_written_and_run() {
    let mut state = ready();
    assert_eq!(state.context(), Context::Prompt);
    type_text(&mut state, "q? The capital");
    assert_eq!(state.prompt.text(), "q? The capital");
    press(&mut state, "alt-enter");
    type_text(&mut state, "of");
    let effects = press(&mut state, "enter");
    let [Effect::Engine(Request::Generate(job))] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(job.prompt, Prompt::Text("q? The capital\nof".to_owned()));
    assert_eq!(job.max_new_tokens, 128);
    assert!(job.attention && job.attention_rows, "small enough to keep");
    assert_eq!(state.phase, Phase::Reading);
    assert_eq!(state.context(), Context::Rooms, "single keys act now");
}

#[test]
fn a_prompt_given_at_the_start_runs_once_the_model_is_there() {
    let mut options = fixture::options();
    options.prompt = Some("Once".to_owned());
    let mut state = State::new(&options, Depth::True, Rect::new(0, 0, 80, 24)).unwrap();
    let effects = update(&mut state, fixture::loaded().unwrap());
    assert_eq!(requests(&effects), ["Generate"]);
    assert!(update(&mut state, fixture::loaded().unwrap()).is_empty());
}

#[test]
fn enter_while_loading_waits_for_the_model() {
    let area = Rect::new(0, 0, 120, 36);
    let mut state = State::new(&fixture::options(), Depth::True, area).unwrap();
    type_text(&mut state, "x");
    assert!(press(&mut state, "enter").is_empty());
    let effects = update(&mut state, fixture::loaded().unwrap());
    assert_eq!(requests(&effects), ["Generate"]);
}

#[test]
fn an_empty_prompt_teaches_instead_of_running() {
    let mut state = ready();
    assert!(press(&mut state, "enter").is_empty());
    assert_eq!(state.notice.as_ref().unwrap().level, Level::Warn);
    assert_eq!(state.phase, Phase::Ready);
}

#[test]
fn samples_are_one_key_away_and_take_turns() {
    let mut state = ready();
    assert_eq!(requests(&press(&mut state, "f2")), ["Generate"]);
    assert_eq!(state.prompt.text(), "The capital of Velmora is");
    press(&mut state, "f2");
    assert_eq!(state.prompt.text(), "The river of Tarsin is the");
    press(&mut state, "f2");
    assert_eq!(state.prompt.text(), "The capital of Velmora is");
    press(&mut state, "o");
    type_text(&mut state, "ilo");
    assert_eq!(requests(&press(&mut state, "enter")), ["Generate"]);
    assert_eq!(state.prompt.text(), "A child named Ilo");
}

#[test]
fn a_chat_model_gets_a_chat_turn_when_asked() {
    let mut state = ready();
    state.settings.chat = true;
    type_text(&mut state, "Hi");
    let effects = press(&mut state, "enter");
    let [Effect::Engine(Request::Generate(job))] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(job.prompt, Prompt::Chat("Hi".to_owned()));
}

#[test]
fn pause_step_go_on_stop_continue() {
    let mut state = running();
    assert_eq!(state.phase, Phase::Streaming);
    assert_eq!(requests(&press(&mut state, "space")), ["Pause"]);
    update(&mut state, Event::Paused);
    assert_eq!(requests(&press(&mut state, ".")), ["Step"]);
    assert_eq!(requests(&press(&mut state, "space")), ["Resume"]);
    update(&mut state, Event::Resumed);
    assert_eq!(state.phase, Phase::Streaming);
    assert_eq!(requests(&press(&mut state, "S")), ["Stop"]);
    update(&mut state, Event::Finished(Finish::Stopped));
    assert_eq!(requests(&press(&mut state, "C")), ["Continue"]);
    let run = state.run.as_ref().unwrap();
    assert_eq!(run.max_new_tokens, 41 + 128);
    update(&mut state, Event::Finished(Finish::Length));
    let effects = press(&mut state, ".");
    assert!(matches!(
        effects[..],
        [Effect::Engine(Request::Continue(1))]
    ));
}

#[test]
fn controls_without_a_run_say_so() {
    let mut state = ready();
    press(&mut state, "esc");
    for key in ["space", ".", "S", "C"] {
        state.notice = None;
        assert!(press(&mut state, key).is_empty());
        assert!(state.notice.is_some(), "{key}");
    }
}

#[test]
fn ctrl_c_stops_first_and_quits_then() {
    let mut state = running();
    assert_eq!(requests(&press(&mut state, "ctrl-c")), ["Stop"]);
    update(&mut state, Event::Finished(Finish::Stopped));
    assert_eq!(requests(&press(&mut state, "ctrl-c")), ["Quit"]);
    let mut state = ready();
    assert_eq!(
        requests(&press(&mut state, "ctrl-c")),
        ["Quit"],
        "in the prompt too"
    );
}

#[test]
fn quitting_asks_only_while_a_run_would_be_lost() {
    let mut state = running();
    assert!(press(&mut state, "q").is_empty());
    assert!(matches!(state.overlay, Some(Overlay::ConfirmQuit)));
    assert!(press(&mut state, "esc").is_empty());
    assert!(state.overlay.is_none());
    assert_eq!(requests(&press(&mut state, "q enter")), ["Quit"]);
    let mut state = fixture::finished(120, 36, Depth::True, 48).unwrap();
    assert_eq!(requests(&press(&mut state, "q")), ["Quit"]);
}

#[test]
fn esc_backs_out_and_never_quits() {
    let mut state = running();
    press(&mut state, "tab tab i");
    for _ in 0..8 {
        assert!(press(&mut state, "esc").is_empty());
    }
    assert_eq!((state.writing, state.room), (false, Room::Map));
}

#[test]
fn the_cursor_follows_until_it_is_moved() {
    let mut state = running();
    assert!(state.cursor.follow);
    assert_eq!(
        state.cursor.position, 46,
        "the newest token is not read yet"
    );
    for event in fixture::drawn(48) {
        update(&mut state, event);
    }
    state.settle();
    assert_eq!(state.cursor.position, 47);
    press(&mut state, "left h");
    assert_eq!((state.cursor.position, state.cursor.follow), (45, false));
    for event in fixture::drawn(49) {
        update(&mut state, event);
    }
    state.settle();
    assert_eq!(state.cursor.position, 45);
    press(&mut state, "f");
    assert_eq!((state.cursor.position, state.cursor.follow), (48, true));
}

#[test]
fn keys_walk_over_tokens_and_layers() {
    let mut state = running();
    press(&mut state, "g");
    assert_eq!(state.cursor.position, 0);
    press(&mut state, "right l l j down k");
    assert_eq!((state.cursor.position, state.cursor.layer), (3, 11));
    press(&mut state, "end");
    assert_eq!(state.cursor.position, 47);
    press(&mut state, "pgup");
    let page = state.derived.geometry.columns / 2;
    assert_eq!(state.cursor.position, 47 - page);
    press(&mut state, "pgdn pgdn pgdn");
    assert_eq!(state.cursor.position, 47, "no further than the text");
    for _ in 0..20 {
        press(&mut state, "down");
    }
    assert_eq!(state.cursor.layer, 0);
    press(&mut state, "L");
    assert_eq!(state.cursor.layer, fixture::BLOCKS);
    press(&mut state, "d");
    let decided = state.grid().unwrap().cells(46).unwrap().decided_layer;
    press(&mut state, "left d");
    assert_eq!(Some(state.cursor.layer as u32), decided);
}

#[test]
fn in_the_stream_up_and_down_are_lines() {
    let mut state = running();
    press(&mut state, "g shifttab");
    assert_eq!(state.room, Room::Stream);
    let layer = state.cursor.layer;
    press(&mut state, "down");
    let flow = &state.derived.flow;
    assert_eq!(flow.line_of(state.cursor.position), 1);
    assert_eq!(flow.column_of(state.cursor.position), 0);
    press(&mut state, "up");
    assert_eq!((state.cursor.position, state.cursor.layer), (0, layer));
}

#[test]
fn tab_walks_through_the_rooms_and_the_prompt() {
    let mut state = running();
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push((state.writing, state.room));
        press(&mut state, "tab");
    }
    assert_eq!(seen[0], (false, Room::Map));
    assert_eq!(seen[1], (false, Room::Cell));
    assert!(seen[2].0, "the prompt");
    assert_eq!(seen[3], (false, Room::Stream));
    assert_eq!((state.writing, state.room), (false, Room::Map));
    press(&mut state, "enter");
    assert_eq!(state.room, Room::Cell);
}

#[test]
fn the_map_moves_by_half_a_page_and_only_then() {
    let mut state = fixture::state(120, 36, Depth::True, 8).unwrap();
    let mut lefts = Vec::new();
    for position in 8..120 {
        for event in fixture::drawn(position) {
            update(&mut state, event);
        }
        state.settle();
        let g = &state.derived.geometry;
        assert!(g.cell(fixture::BLOCKS, position).is_some(), "{position}");
        if lefts.last() != Some(&g.left) {
            lefts.push(g.left);
        }
    }
    let half = state.derived.geometry.columns / 2;
    let steps: Vec<usize> = lefts.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(
        steps.len() >= 4 && steps.iter().all(|s| *s == half),
        "{lefts:?}"
    );
    press(&mut state, "g");
    assert!(state.derived.geometry.cell(0, 0).is_some());
}

#[test]
fn the_last_layer_stays_in_view_in_deep_models() {
    let mut state = running();
    let mut card = fixture::card();
    card.blocks = 79;
    let tokenizer = fixture::tokenizer().unwrap().into();
    update(
        &mut state,
        Event::Loaded {
            card: card.into(),
            tokenizer,
        },
    );
    update(&mut state, fixture::started(16));
    for position in 0..9 {
        update(&mut state, Event::Token(fixture::token(position)));
    }
    state.settle();
    assert_eq!(state.map.zoom, Zoom::Halves, "chosen because it shows more");
    press(&mut state, "+");
    for layer in (0..80).rev().step_by(7) {
        state.cursor.layer = layer;
        state.settle();
        let layers = &state.derived.geometry.layers;
        assert_eq!(layers[0], 79);
        assert!(layers.contains(&layer), "{layer}: {layers:?}");
        assert!(layers.windows(2).all(|w| w[0] > w[1]));
    }
}

#[test]
fn metrics_by_digit_and_by_list() {
    let mut state = running();
    let name = |state: &State| state.columns().spec(state.metric).name.clone();
    press(&mut state, "7");
    assert_eq!(name(&state), "hoyer");
    press(&mut state, "m");
    type_text(&mut state, "varent");
    press(&mut state, "enter");
    assert_eq!(name(&state), "varentropy");
    press(&mut state, "m");
    press(&mut state, "down esc");
    assert_eq!(
        name(&state),
        "varentropy",
        "leaving the list changes nothing"
    );
    let cursor = state.cursor;
    press(&mut state, "1 + - t esc");
    assert_eq!(
        state.cursor, cursor,
        "the cursor survives metric, zoom and theme"
    );
    update(&mut state, fixture::started(9));
    assert_eq!(name(&state), "entropy");
}

#[test]
fn digits_of_metrics_that_are_not_computed_say_so() {
    let mut state = running();
    let mut lens = fixture::lens();
    lens.topk_shares.clear();
    let schema = crate::trace::Schema::new(&lens).into();
    update(
        &mut state,
        Event::Started {
            schema,
            prompt_tokens: 1,
            max_new_tokens: 1,
        },
    );
    press(&mut state, "9");
    assert!(
        state
            .notice
            .as_ref()
            .unwrap()
            .text
            .contains("topk_energy_10")
    );
}

#[test]
fn ranges_turn_and_stay_while_little_is_read() {
    let mut state = running();
    press(&mut state, "]");
    assert_eq!(state.map.range, RangeMode::Row);
    assert_eq!(state.derived.ranges.rows.len(), fixture::BLOCKS + 1);
    press(&mut state, "]");
    assert_eq!(state.map.range, RangeMode::Fixed);
    assert_eq!(state.derived.ranges.map, (0.0, 4096f32.ln()));
    press(&mut state, "] [ [");
    assert_eq!(state.map.range, RangeMode::Row);
    press(&mut state, "[");
    let before = state.derived.ranges.clone();
    for event in fixture::drawn(48) {
        update(&mut state, event);
    }
    state.settle();
    assert_eq!(state.derived.ranges, before, "one token repaints nothing");
    for position in 49..90 {
        for event in fixture::drawn(position) {
            update(&mut state, event);
        }
    }
    state.settle();
    assert_ne!(state.derived.ranges, before);
}

#[test]
fn zoom_goes_from_halves_to_words() {
    let mut state = running();
    assert_eq!(state.map.zoom, Zoom::Cells);
    press(&mut state, "-");
    assert!(state.derived.geometry.halves);
    press(&mut state, "- + +");
    assert_eq!(state.map.zoom, Zoom::Words);
    assert!(state.derived.geometry.width >= 8);
    let mut mono = fixture::state(120, 36, Depth::Mono, 20).unwrap();
    press(&mut mono, "-");
    assert!(!mono.derived.geometry.halves, "half blocks need colour");
}

#[test]
fn search_finds_across_tokens_and_walks_around() {
    let mut state = running();
    press(&mut state, "g /");
    type_text(&mut state, "VELMORA");
    assert_eq!(
        state.cursor.position, 4,
        "found while typing, over two tokens"
    );
    press(&mut state, "enter");
    assert!(state.overlay.is_none());
    press(&mut state, "/");
    type_text(&mut state, "the");
    press(&mut state, "enter");
    let found: Vec<usize> = state.derived.matches.iter().map(|m| *m.start()).collect();
    assert!(found.len() >= 4, "{found:?}");
    let here = state.cursor.position;
    press(&mut state, "n");
    assert!(state.cursor.position > here);
    for _ in 0..found.len() {
        press(&mut state, "n");
    }
    assert!(found.contains(&state.cursor.position), "around the end");
    press(&mut state, "N /");
    type_text(&mut state, "zebra");
    press(&mut state, "enter");
    assert!(state.notice.as_ref().unwrap().text.contains("zebra"));
}

#[test]
fn leaving_a_search_goes_back() {
    let mut state = running();
    press(&mut state, "/");
    type_text(&mut state, "river");
    assert_ne!(state.cursor.position, 46);
    press(&mut state, "esc");
    assert_eq!((state.cursor.position, state.cursor.follow), (46, true));
    assert!(state.search.is_empty());
}

#[test]
fn the_most_uncertain_positions_come_in_order() {
    let mut state = running();
    let entropy = state.columns().find("entropy").unwrap();
    let mut values = Vec::new();
    for _ in 0..5 {
        press(&mut state, "w");
        let grid = state.grid().unwrap();
        values.push(
            grid.value(fixture::BLOCKS, state.cursor.position, entropy)
                .unwrap(),
        );
        assert_eq!(state.cursor.layer, fixture::BLOCKS);
    }
    assert!(values.windows(2).all(|w| w[0] >= w[1]), "{values:?}");
    press(&mut state, "W");
    let grid = state.grid().unwrap();
    let back = grid
        .value(fixture::BLOCKS, state.cursor.position, entropy)
        .unwrap();
    assert_eq!(back, values[3]);
}

#[test]
fn sampling_changes_reach_a_run_under_way() {
    let mut state = running();
    press(&mut state, "p");
    let effects = press(&mut state, "right right right");
    assert_eq!(requests(&effects), ["SetSampling"; 3]);
    let Some(Effect::Engine(Request::SetSampling(sampling))) = effects.last() else {
        panic!();
    };
    assert_eq!(sampling.temperature, 0.3);
    press(&mut state, "down");
    type_text(&mut state, "40");
    let effects = press(&mut state, "enter");
    assert_eq!(requests(&effects), ["SetSampling"]);
    assert_eq!(state.settings.sampling.top_k, Some(40));
    for _ in 0..5 {
        press(&mut state, "down");
    }
    let Some(Overlay::Sampling(panel)) = &state.overlay else {
        panic!();
    };
    assert_eq!(panel.field(), Field::MaxNew);
    assert!(
        press(&mut state, "right").is_empty(),
        "holds for the next run"
    );
    assert_eq!(state.settings.max_new_tokens, 144);
    press(&mut state, "esc");
    assert!(state.overlay.is_none());
}

#[test]
fn wrong_numbers_change_nothing_and_are_named() {
    let mut state = ready();
    press(&mut state, "esc p down down");
    type_text(&mut state, "7.5");
    press(&mut state, "enter");
    assert_eq!(state.settings.sampling.top_p, None);
    assert!(state.notice.as_ref().unwrap().text.starts_with("top-p"));
}

#[test]
fn themes_are_tried_on_and_taken_off() {
    let mut state = running();
    press(&mut state, "t down");
    assert_eq!(state.theme.name, "light", "seen at once");
    press(&mut state, "esc");
    assert_eq!(state.theme.name, "dark");
    press(&mut state, "t down down enter");
    assert_eq!(state.theme.name, "colourblind");
}

#[test]
fn the_palette_does_everything_that_has_a_name() {
    let mut state = running();
    press(&mut state, "ctrl-p");
    let Some(Overlay::List(list)) = &state.overlay else {
        panic!();
    };
    let own = crate::tui::action::Group::Lists;
    for action in Action::ALL
        .iter()
        .filter(|a| a.group() != own && **a != Action::Palette)
    {
        let item = list
            .items
            .iter()
            .find(|i| i.detail == action.name())
            .unwrap();
        assert!(!item.mark.is_empty(), "{action:?} shows its key");
    }
    type_text(&mut state, "zoom-out");
    press(&mut state, "enter");
    assert_eq!(state.map.zoom, Zoom::Halves);
}

#[test]
fn help_lists_every_action() {
    let mut state = running();
    press(&mut state, "?");
    let Some(Overlay::Page(page)) = &state.overlay else {
        panic!();
    };
    let lines = super::page_lines(&state, page, 80);
    for action in Action::ALL {
        let entry = lines.iter().find(|l| match l {
            super::PageLine::Entry(_, what) => what == action.help(),
            _ => false,
        });
        assert!(entry.is_some(), "{action:?}");
    }
    for _ in 0..40 {
        press(&mut state, "pgdn");
    }
    let Some(Overlay::Page(page)) = &state.overlay else {
        panic!();
    };
    assert!(page.top > 0 && page.top < lines.len(), "stops at the end");
    press(&mut state, "esc");
    assert!(state.overlay.is_none());
}

#[test]
fn exports_and_copies_are_effects() {
    let mut state = ready();
    press(&mut state, "esc");
    assert!(press(&mut state, "x y Y").is_empty());
    let mut state = running();
    let effects = press(&mut state, "x");
    let [Effect::Export(record, _)] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(record.branches[0].0, "main");
    assert_eq!(record.branches[0].1.len(), 48);
    assert_eq!(record.lens, fixture::lens());
    let effects = press(&mut state, "y");
    let [Effect::Copy(text)] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert!(text.starts_with("The capital of Velmora is Tarsin. It lies"));
    let effects = press(&mut state, "Y");
    let [Effect::Copy(text)] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert!(
        text.contains("\nentropy ") && text.contains("layer 12\n"),
        "{text}"
    );
    let files = vec![
        "out/run-001/cells.csv".into(),
        "out/run-001/tokens.csv".into(),
    ];
    update(&mut state, Message::Exported(Ok(files)));
    assert!(
        state
            .notice
            .as_ref()
            .unwrap()
            .text
            .starts_with("Wrote 2 files to out/run-001")
    );
    let error = Error::failed("the disk is full", "Make room.");
    update(&mut state, Message::Exported(Err(error)));
    assert_eq!(state.notice.as_ref().unwrap().level, Level::Error);
}

#[test]
fn copied_text_carries_no_control_sequences() {
    let mut state = running();
    let mut token = fixture::token(48);
    token.bytes = b"\x1b[31m\x07\n\tend".to_vec();
    update(&mut state, Event::Token(token));
    let effects = press(&mut state, "y");
    let [Effect::Copy(text)] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert!(
        text.ends_with("[31m\n\tend") && !text.contains('\x1b'),
        "{text:?}"
    );
}

#[test]
fn failures_are_words_and_the_next_run_is_possible() {
    let area = Rect::new(0, 0, 120, 36);
    let mut state = State::new(&fixture::options(), Depth::True, area).unwrap();
    let gone = || Event::Failed(Error::failed("no such model", "Check its name."));
    update(&mut state, gone());
    assert_eq!(state.phase, Phase::NoModel);
    let mut state = running();
    update(&mut state, gone());
    assert_eq!(state.phase, Phase::Failed);
    assert!(
        state
            .notice
            .as_ref()
            .unwrap()
            .text
            .contains("no such model")
    );
    assert_eq!(requests(&press(&mut state, "r")), ["Generate"]);
    update(
        &mut state,
        Message::EngineGone(Some("index out of bounds".to_owned())),
    );
    assert_eq!(state.phase, Phase::Failed);
    assert!(
        state
            .notice
            .as_ref()
            .unwrap()
            .text
            .contains("index out of bounds")
    );
    assert!(
        matches!(press(&mut state, "x")[..], [Effect::Export(..)]),
        "still there"
    );
}

#[test]
fn the_mouse_points_at_cells_tokens_and_rooms() {
    let mut state = running();
    let rect = state.derived.geometry.cell(5, 30).unwrap();
    click(&mut state, rect.x, rect.y);
    assert_eq!((state.cursor.layer, state.cursor.position), (5, 30));
    let stream = state.derived.plan.inner(state.derived.plan.stream);
    click(&mut state, stream.x + 6, stream.y);
    assert_eq!((state.cursor.position, state.room), (1, Room::Stream));
    let prompt = state.derived.plan.prompt;
    click(&mut state, prompt.x + 5, prompt.y + 1);
    assert!(state.writing);
    click(&mut state, rect.x, rect.y);
    let before = state.cursor.position;
    mouse(&mut state, MouseEventKind::ScrollDown, rect.x, rect.y);
    assert_eq!(state.cursor.position, before + 3);
    press(&mut state, "m");
    let lines = {
        let Some(Overlay::List(list)) = &state.overlay else {
            panic!();
        };
        crate::tui::layout::popup_lines(crate::tui::layout::popup_list(state.area, list.size()))
    };
    click(&mut state, lines.x + 2, lines.y + 1);
    assert_eq!(state.columns().spec(state.metric).name, "varentropy");
    press(&mut state, "m");
    click(&mut state, 0, 0);
    assert!(state.overlay.is_none(), "a click beside a list leaves it");
}

#[test]
fn the_wheel_scrolls_the_stream_without_moving_the_cursor() {
    let mut state = fixture::state(80, 24, Depth::True, 400).unwrap();
    let top = state.stream_top;
    assert!(top > 0);
    let stream = state.derived.plan.stream;
    mouse(
        &mut state,
        MouseEventKind::ScrollUp,
        stream.x + 3,
        stream.y + 1,
    );
    assert_eq!(state.stream_top, top - 3);
    assert!(state.cursor.follow);
    press(&mut state, "left");
    assert_eq!(
        state.stream_top, top,
        "moving brings the cursor back into view"
    );
}

#[test]
fn pastes_always_mean_the_prompt() {
    let mut state = running();
    state.prompt.set("");
    update(&mut state, Message::Paste("two\r\nlines\x1b".to_owned()));
    assert!(state.writing);
    assert_eq!(state.prompt.text(), "two\nlines");
}

#[test]
fn history_walks_in_the_prompt() {
    let mut state = ready();
    type_text(&mut state, "first");
    press(&mut state, "enter i ctrl-l");
    type_text(&mut state, "second");
    press(&mut state, "enter i up up");
    assert_eq!(state.prompt.text(), "first");
    press(&mut state, "down");
    assert_eq!(state.prompt.text(), "second");
}

#[test]
fn resizing_keeps_everything_and_redraws_it_elsewhere() {
    let mut state = running();
    press(&mut state, "left left down");
    let cursor = state.cursor;
    for (width, height) in [(60, 16), (30, 5), (200, 60), (80, 24)] {
        update(&mut state, Message::Resize(width, height));
        assert_eq!(state.cursor, cursor);
        assert_eq!(state.area, Rect::new(0, 0, width, height));
    }
}

#[test]
fn the_clock_moves_nothing_but_itself() {
    let mut state = running();
    let before = format!("{:?}", state.cursor);
    let clock = super::Clock {
        elapsed: Duration::from_secs(9),
        ..super::Clock::default()
    };
    assert!(update(&mut state, Message::Tick(clock)).is_empty());
    assert_eq!(state.clock, clock);
    assert_eq!(format!("{:?}", state.cursor), before);
}

#[test]
fn wrong_options_are_refused_before_anything_is_drawn() {
    let mut options = fixture::options();
    options.theme = Some("neon".to_owned());
    let error = State::new(&options, Depth::True, Rect::ZERO).unwrap_err();
    assert!(
        error.to_string().contains("dark, light, colourblind"),
        "{error}"
    );
    assert_eq!(error.exit_code(), 2);
}
