//! Two models side by side on the screen.

use super::tests::{SIZES, draw, snapshot, text};
use crate::tui::action::Action;
use crate::tui::colour::Depth;
use crate::tui::fixture;
use crate::tui::layout::{Mode, Room};
use crate::tui::state::{Lower, update};

#[test]
fn two_models_at_every_size() {
    for (width, height) in SIZES {
        let mut state = fixture::two_models(width, height, Depth::True, [30, 18], false).unwrap();
        state.cursor.follow = false;
        (state.cursor.layer, state.cursor.position) = (7, 12);
        state.settle();
        let mode = state.derived.plan.mode;
        let mut shown = |lower: Lower, room: Room, name: &str| {
            (state.lower, state.room) = (lower, room);
            state.settle();
            snapshot(
                &format!("models_{name}_{width}x{height}"),
                text(&draw(&state)),
            );
        };
        match mode {
            Mode::Tabs => {
                shown(Lower::Layers, Room::Stream, "text");
                shown(Lower::Layers, Room::Map, "map");
                shown(Lower::Layers, Room::Cell, "layers");
                shown(Lower::Cell, Room::Cell, "cell");
            }
            Mode::Folded => {
                shown(Lower::Layers, Room::Map, "layers");
                shown(Lower::Cell, Room::Map, "cell");
            }
            _ => shown(Lower::Layers, Room::Map, "all"),
        }
    }
}

#[test]
fn one_text_and_equal_layers_have_a_map_of_differences() {
    let state = fixture::two_models(120, 36, Depth::True, [30, 30], true).unwrap();
    assert!(!state.derived.plan.difference.is_empty());
    let shown = text(&draw(&state));
    assert!(shown.contains("tuned − demo"), "{shown}");
    snapshot("models_locked", shown);
}

#[test]
fn each_map_marks_the_layer_that_lies_as_deep_and_shows_its_own_words() {
    use crate::tui::widgets::Zoom;
    let mut state = fixture::two_models(120, 36, Depth::True, [30, 18], false).unwrap();
    state.cursor.follow = false;
    (state.cursor.layer, state.cursor.position) = (7, 4);
    state.map.zoom = Zoom::Words;
    state.map.zoom_chosen = true;
    state.settle();
    let buf = draw(&state);
    let derived = &state.derived;
    // 7 of 12 blocks lie nearest to 3 of 5.
    let at = derived.beside_geometry.cell(3, 4).unwrap();
    let word = state.beside.as_ref().unwrap().run.grid.top(3, 4)[0].id;
    let word = state.beside.as_ref().unwrap().run.word(word);
    let row: String = (at.x..at.x + at.width)
        .map(|x| buf[(x, at.y)].symbol())
        .collect();
    assert!(
        fixture::OTHER
            .iter()
            .any(|w| w.trim() == word.trim_start_matches('·')),
        "{word}"
    );
    assert!(
        row.contains(word.trim_start_matches('·')),
        "{word} in {row:?}"
    );
    let accent = state.theme.accent.fg.unwrap();
    for (geometry, layer) in [(&derived.geometry, 7), (&derived.beside_geometry, 3)] {
        let cell = geometry.cell(layer, 4).unwrap();
        let label = &buf[(geometry.area.x - 2, cell.y)];
        assert_eq!(label.symbol(), layer.to_string());
        assert_eq!(label.fg, accent);
    }
}

#[test]
fn the_line_in_which_a_second_model_is_named() {
    let mut state = fixture::finished(80, 24, Depth::True, 20).unwrap();
    update(&mut state, Action::CompareModels);
    for c in "org/name".chars() {
        use ratatui::crossterm::event::{KeyCode, KeyModifiers};
        let key = ratatui::crossterm::event::KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE);
        update(&mut state, crate::tui::state::Message::Key(key));
    }
    state.settle();
    let shown = text(&draw(&state));
    let line = shown.lines().last().unwrap();
    assert!(line.contains("second model org/name▏"), "{line}");
}

#[test]
fn a_second_model_is_loaded_in_words() {
    let mut state = fixture::asked_against(120, 36, Depth::True).unwrap();
    update(&mut state, Action::Run);
    update(
        &mut state,
        crate::session::Event::LoadingOther {
            what: "reading \u{1b}weights".to_owned(),
            done: 1 << 20,
            total: Some(4 << 20),
        },
    );
    state.settle();
    let shown = text(&draw(&state));
    let line = shown.lines().next().unwrap();
    assert!(
        line.contains("second model: reading \\x1Bweights"),
        "{line}"
    );
}
