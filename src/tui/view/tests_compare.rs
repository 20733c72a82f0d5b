//! Comparisons and control vectors on the screen.

use super::tests::{SIZES, draw, snapshot, text};
use crate::tui::action::Action;
use crate::tui::colour::{Depth, gap_step};
use crate::tui::fixture;
use crate::tui::layout::{Mode, Room};
use crate::tui::state::{Gap, Lower, update};
use crate::tui::widgets::Zoom;

#[test]
fn a_comparison_at_every_size() {
    for (width, height) in SIZES {
        let mut state = fixture::compared(width, height, Depth::True, 40).unwrap();
        for (lower, name) in [
            (Lower::Layers, "layers"),
            (Lower::Cell, "cell"),
            (Lower::Difference, "difference"),
        ] {
            state.lower = lower;
            state.settle();
            let shown = text(&draw(&state));
            // At the largest sizes all of it is there at once; with tabs each room shows one of them.
            match (state.derived.plan.mode, lower) {
                (Mode::Full, Lower::Layers) => {
                    snapshot(&format!("compare_{width}x{height}"), shown);
                }
                (Mode::Full, _) => {}
                (Mode::Folded, _) => {
                    snapshot(&format!("compare_{name}_{width}x{height}"), shown);
                }
                (_, _) => {
                    for (room, of) in [
                        (Room::Stream, "text"),
                        (Room::Map, "map"),
                        (Room::Cell, "cell"),
                    ] {
                        state.room = room;
                        state.settle();
                        let shown = text(&draw(&state));
                        snapshot(&format!("compare_{of}_{name}_{width}x{height}"), shown);
                    }
                    state.room = Room::Map;
                }
            }
        }
    }
}

#[test]
fn differences_have_their_own_colours_and_unread_cells_none() {
    let mut state = fixture::compared(120, 36, Depth::True, 40).unwrap();
    state.map.zoom_chosen = true;
    state.map.zoom = Zoom::Cells;
    state.cursor.follow = false;
    state.settle();
    let (gaps, difference) = (state.theme.gaps.clone(), state.difference().unwrap());
    let most = state.derived.gap_most;
    let buf = draw(&state);
    let geometry = &state.derived.gap_geometry;
    let mut seen = [0; 3];
    for layer in &geometry.layers {
        for position in geometry.left..39 {
            let rect = geometry.cell(*layer, position).unwrap();
            let value = difference
                .cell(*layer, position, state.metric)
                .difference
                .unwrap();
            let step = gap_step(value, most);
            seen[match step {
                ..7 => 0,
                7 => 1,
                _ => 2,
            }] += 1;
            assert_eq!(
                buf[(rect.x + 1, rect.y)].bg,
                gaps.shade(step).bg,
                "{layer} {position}"
            );
        }
        let last = geometry.cell(*layer, 39).unwrap();
        assert_eq!(buf[(last.x + 1, last.y)].symbol(), "·");
    }
    assert!(
        seen.iter().all(|n| *n > 10),
        "below, at and above zero: {seen:?}"
    );
}

#[test]
fn the_panel_of_control_vectors() {
    let mut state = fixture::compared(80, 24, Depth::True, 40).unwrap();
    update(&mut state, Action::Steer);
    update(&mut state, Action::ListDown);
    state.settle();
    snapshot("steering", text(&draw(&state)));
}

#[test]
fn a_map_of_divergence_stops_where_the_texts_part() {
    let mut state = fixture::compared(120, 36, Depth::True, 40).unwrap();
    assert_eq!(state.derived.diverged, Some(fixture::PARTS));
    state.gap = Gap::Divergence;
    state.settle();
    let difference = state.difference().unwrap();
    for position in 0..39 {
        let known = difference.divergence(8, position).is_some();
        assert_eq!(known, position < fixture::PARTS, "{position}");
        let datum = state.gap_datum(&difference, 8, position);
        let absent = datum == crate::tui::widgets::Datum::Absent;
        assert_eq!(absent, !known);
    }
    let shown = text(&draw(&state));
    assert!(shown.contains("KL(baseline‖steered)"), "{shown}");
    assert!(shown.contains("texts part at token 16"), "{shown}");
    assert!(shown.contains('≠'), "{shown}");
}

#[test]
fn nothing_of_a_comparison_is_coloured_without_colour() {
    let state = fixture::compared(120, 36, Depth::Mono, 40).unwrap();
    let buf = draw(&state);
    let plain = ratatui::style::Color::Reset;
    assert!(buf.content.iter().all(|c| c.fg == plain && c.bg == plain));
    snapshot("compare_no_colour", text(&buf));
}

#[test]
fn a_sweep_over_the_rooms() {
    for (width, height) in SIZES {
        let state = fixture::swept(width, height, Depth::True, 6).unwrap();
        let shown = text(&draw(&state));
        snapshot(&format!("sweep_{width}x{height}"), shown);
    }
}

#[test]
fn a_pair_of_prompts_at_every_size() {
    for (width, height) in SIZES {
        let state = fixture::paired(width, height, Depth::True, 24).unwrap();
        let shown = text(&draw(&state));
        snapshot(&format!("pair_{width}x{height}"), shown);
    }
}
