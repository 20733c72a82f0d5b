//! Walking, looking closer, finding, pointing.

use super::*;

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
fn when_a_run_has_ended_the_whole_page_is_used() {
    let mut state = fixture::state(120, 36, Depth::True, 60).unwrap();
    update(&mut state, Event::Finished(Finish::EndOfText));
    state.settle();
    let g = &state.derived.geometry;
    assert_eq!(g.left + g.columns, 60);
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
