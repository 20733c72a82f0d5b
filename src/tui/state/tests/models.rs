//! Two models on one prompt: asking for the second, what its cells stand beside, leaving.

use super::*;
use crate::trace::{Pairing, Side};
use crate::tui::state::Lower;

/// What the engine was asked to hold against the first model, and how.
fn asked(effects: &[Effect]) -> Option<(String, Pairing)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Engine(Request::Against(_, reference, pairing)) => {
            Some((reference.clone(), *pairing))
        }
        _ => None,
    })
}

fn alone(effects: &[Effect]) -> bool {
    let generate = |effect: &Effect| matches!(effect, Effect::Engine(Request::Generate(_)));
    effects.iter().any(generate)
}

fn both(tokens: [usize; 2]) -> State {
    fixture::two_models(120, 36, Depth::True, tokens, false).unwrap()
}

#[test]
fn a_second_model_is_named_in_a_line_and_compared_at_once() {
    let mut state = fixture::finished(120, 36, Depth::True, 20).unwrap();
    assert!(press(&mut state, "M").is_empty());
    assert_eq!(state.context(), Context::Field);
    type_text(&mut state, "./tuned q");
    update(&mut state, Message::Paste("ux\nmore".into()));
    press(&mut state, "backspace");
    let request = asked(&press(&mut state, "enter"));
    assert_eq!(request, Some(("./tuned qu".to_owned(), Pairing::Free)));
    assert!(state.overlay.is_none());
    update(&mut state, fixture::other_loaded(false).unwrap());
    for event in fixture::against([20, 10], false).unwrap() {
        update(&mut state, event);
    }
    assert_eq!(
        state.model_names(),
        Some(&["demo".to_owned(), "shallow".to_owned()])
    );
    // Another prompt compares again, the other way of reading too.
    let again = asked(&press(&mut state, "r"));
    assert_eq!(again, Some(("./tuned qu".to_owned(), Pairing::Free)));
    let locked = asked(&press(&mut state, "F"));
    assert_eq!(locked, Some(("./tuned qu".to_owned(), Pairing::Locked)));
    assert!(alone(&press(&mut state, "A")), "one run alone again");
    assert!(alone(&press(&mut state, "r")));
    // The model that is known is held against the first without asking.
    assert!(asked(&press(&mut state, "M")).is_some());
    press(&mut state, "M");
    assert!(matches!(&state.overlay, Some(Overlay::OtherModel(name)) if name == "./tuned qu"));
    press(&mut state, "esc");
    assert!(state.overlay.is_none());
}

#[test]
fn what_is_refused_leaves_the_next_run_as_it_was() {
    let failed = || {
        Event::Failed(Error::failed(
            "the second model cannot be loaded: no",
            "Look.",
        ))
    };
    let mut state = fixture::finished(120, 36, Depth::True, 20).unwrap();
    press(&mut state, "M");
    type_text(&mut state, "nothing");
    press(&mut state, "enter");
    update(&mut state, failed());
    assert_eq!(
        state.phase,
        Phase::Done(Finish::Length),
        "the run is still there"
    );
    assert!(alone(&press(&mut state, "r")));
    update(&mut state, fixture::started(10));
    press(&mut state, "M");
    assert!(
        matches!(&state.overlay, Some(Overlay::OtherModel(name)) if name == "nothing"),
        "what was typed can be mended"
    );
    // A lock that is refused leaves both to their own texts.
    let mut state = both([20, 10]);
    press(&mut state, "F");
    update(&mut state, fixture::other_loaded(false).unwrap());
    update(&mut state, failed());
    assert_eq!(state.compare, Some(Pairing::Free));
    assert!(state.second.on && state.model_names().is_some());
    // What was announced then is not taken for the side of a steered comparison.
    update(&mut state, Action::CompareFree);
    for event in fixture::comparison(20) {
        update(&mut state, event);
    }
    assert!(state.beside.is_some() && state.model_names().is_none());
}

#[test]
fn the_first_model_stays_while_the_second_is_loaded() {
    let mut state = fixture::finished(120, 36, Depth::True, 20).unwrap();
    press(&mut state, "M");
    type_text(&mut state, "x");
    press(&mut state, "enter");
    let loading = |done| Event::LoadingOther {
        what: "weights".into(),
        done,
        total: None,
    };
    update(&mut state, loading(1));
    assert_eq!(state.model.as_ref().unwrap().card.name, "demo");
    assert!(state.run.is_some() && state.second.loading.is_some());
    update(&mut state, fixture::other_loaded(false).unwrap());
    assert!(state.second.loading.is_none());
    update(&mut state, loading(2));
    update(&mut state, Event::Failed(Error::failed("no", "Look.")));
    assert!(state.second.loading.is_none());
}

#[test]
fn a_second_model_has_its_own_layers_tokens_and_words() {
    let mut state = both([30, 18]);
    state.cursor.follow = false;
    (state.cursor.layer, state.cursor.position) = (12, 25);
    state.settle();
    let b = state.beside.as_ref().unwrap();
    assert_eq!(b.run.grid.states(), fixture::OTHER_BLOCKS + 1);
    assert_eq!(b.run.prompt_tokens, fixture::OTHER_PROMPT);
    let cursors = Side::BOTH.map(|side| {
        let cursor = state.cursor_of(side);
        (cursor.layer, cursor.position)
    });
    assert_eq!(cursors, [(12, 25), (5, 17)], "the second text ends there");
    assert_eq!(b.run.word(3), "·Velmora");
    assert_eq!(state.run.as_ref().unwrap().word(3), "·of");
    assert_eq!(state.derived.beside_geometry.layers, [5, 4, 3, 2, 1, 0]);
    assert!(state.difference().is_none() && state.derived.diverged.is_none());
    state.cursor.follow = true;
    state.settle();
    let newest = Side::BOTH.map(|side| state.cursor_of(side).position);
    assert_eq!(newest, [28, 16], "each follows its own text");
    // The longer text is the second's: the first's cursor stays on its own last token.
    let mut state = both([10, 18]);
    state.cursor.follow = false;
    state.cursor.position = 16;
    state.settle();
    assert_eq!(state.cursor_of(Side::A).position, 9);
    assert_eq!(state.cursor_of(Side::B).position, 16);
    assert!(state.derived.plan.difference.is_empty());
}

#[test]
fn layers_of_both_are_averaged_over_their_own_positions() {
    let state = both([30, 18]);
    let models = state.derived.models.as_ref().unwrap();
    let entropy = state.metric;
    let (a, b) = (
        state.run.as_ref().unwrap(),
        &state.beside.as_ref().unwrap().run,
    );
    for (run, layers) in [a, b].into_iter().zip(&models.layers) {
        assert_eq!(layers.len(), run.grid.states());
        let from = run.prompt_tokens - 1;
        let read: Vec<f64> = (from..run.grid.len())
            .filter_map(|at| run.grid.value(2, at, entropy))
            .map(f64::from)
            .collect();
        let spread = layers[2].unwrap();
        assert_eq!(spread.n, read.len());
        let mean = read.iter().sum::<f64>() / read.len() as f64;
        assert!((spread.mean - mean).abs() < 1e-9, "{} {mean}", spread.mean);
    }
    assert_ne!(
        models.layers[0][2].unwrap().n,
        models.layers[1][2].unwrap().n
    );
    assert!(models.divergence.is_empty());
    let locked = fixture::two_models(120, 36, Depth::True, [30, 30], true).unwrap();
    let models = locked.derived.models.as_ref().unwrap();
    assert!(models.divergence[12].unwrap().mean > models.divergence[1].unwrap().mean);
}

#[test]
fn differences_are_shown_only_where_cells_compare() {
    let mut state = both([30, 18]);
    press(&mut state, "%");
    let notice = state.notice.clone().unwrap();
    assert!(
        notice.text.contains("reads its own text"),
        "{}",
        notice.text
    );
    state.lower = Lower::Difference;
    state.area = Rect::new(0, 0, 80, 24);
    state.settle();
    assert!(state.derived.plan.difference.is_empty());
    assert!(!state.derived.plan.summary.is_empty());
    for lower in [Lower::Layers, Lower::Cell, Lower::Layers] {
        press(&mut state, "v");
        assert_eq!(state.lower, lower);
    }
    let mut state = fixture::two_models(120, 36, Depth::True, [30, 30], true).unwrap();
    assert!(state.why_no_difference().is_none() && state.difference().is_some());
    let gap = state.gap;
    press(&mut state, "%");
    assert_ne!(state.gap, gap);
}

#[test]
fn a_click_in_the_second_map_goes_to_the_layer_that_lies_as_deep() {
    let mut state = both([20, 18]);
    let cell = state.derived.beside_geometry.cell(3, 6).unwrap();
    update(
        &mut state,
        Message::Mouse(MouseEvent {
            kind: MouseEventKind::Down(MouseButton::Left),
            column: cell.x,
            row: cell.y,
            modifiers: KeyModifiers::NONE,
        }),
    );
    // 3 of 5 blocks: 7.2 of 12.
    assert_eq!((state.cursor.layer, state.cursor.position), (7, 6));
    assert_eq!(state.cursor_of(Side::B).layer, 3);
}

#[test]
fn an_export_has_both_models() {
    let mut state = both([30, 18]);
    let effects = press(&mut state, "x");
    let [Effect::Export(Export::Models(records, _, Pairing::Free))] = &effects[..] else {
        panic!("{effects:?}");
    };
    let names = records
        .each_ref()
        .map(|record| record.branches[0].0.as_str());
    assert_eq!(names, ["demo", "shallow"]);
    let sizes = records.each_ref().map(|record| {
        let grid = &record.branches[0].1;
        (record.model.blocks, grid.states(), grid.len())
    });
    assert_eq!(sizes, [(12, 13, 30), (5, 6, 18)]);
}

#[test]
fn a_model_that_only_reads_beside_one_that_draws_can_be_paused() {
    let mut state = fixture::masked(120, 36, Depth::True).unwrap();
    assert!(state.only_reads());
    press(&mut state, "M");
    type_text(&mut state, "shallow");
    press(&mut state, "enter");
    update(&mut state, fixture::other_loaded(false).unwrap());
    let schema = std::sync::Arc::clone(&state.schema);
    let started = |side| {
        let event = Event::Started {
            schema: std::sync::Arc::clone(&schema),
            prompt_tokens: fixture::OTHER_PROMPT,
            max_new_tokens: 64,
        };
        Event::Side(side, Box::new(event))
    };
    update(&mut state, started(Side::A));
    update(&mut state, started(Side::B));
    for event in fixture::against([0, 9], false).unwrap().into_iter().skip(2) {
        update(&mut state, event);
    }
    assert_eq!(state.phase, Phase::Streaming, "the second draws");
    assert!(!state.only_reads());
    let pause = press(&mut state, "space");
    assert!(
        matches!(pause[..], [Effect::Engine(Request::Pause)]),
        "{pause:?}"
    );
    update(&mut state, Event::Paused);
    update(&mut state, Event::Resumed);
    assert_eq!(state.phase, Phase::Streaming);
    let surprisal = state.columns().find("surprisal").unwrap();
    assert!(state.applies(surprisal), "the second predicts");
}
