//! A masked model: the whole text at once, gaps to walk over, nothing to draw.

use super::*;

fn masked() -> State {
    fixture::masked(120, 36, Depth::True).unwrap()
}

fn masked_ready() -> State {
    let area = Rect::new(0, 0, 120, 36);
    let mut state = State::new(&fixture::options(), Depth::True, area).unwrap();
    update(&mut state, fixture::masked_loaded().unwrap());
    state.settle();
    state
}

#[test]
fn the_cursor_starts_at_the_first_gap_of_the_last_layer() {
    let state = masked();
    assert_eq!(state.phase, Phase::Done(Finish::Read));
    assert_eq!(state.masks(), fixture::GAPS);
    assert_eq!(state.cursor.position, fixture::GAPS[0]);
    assert_eq!(state.cursor.layer, fixture::BLOCKS);
    assert!(!state.cursor.follow);
    assert_eq!(state.grid().unwrap().read(), fixture::MASKED.len());
    // A second run begins at its own first gap, wherever the cursor was.
    let mut state = masked();
    press(&mut state, "g down down");
    for event in fixture::masked_read().unwrap() {
        update(&mut state, event);
    }
    state.settle();
    assert_eq!(state.cursor.position, fixture::GAPS[0]);
    assert_eq!(state.cursor.layer, fixture::BLOCKS);
}

#[test]
fn a_job_for_it_draws_nothing() {
    let mut state = masked_ready();
    type_text(&mut state, "its [MASK] time");
    let effects = press(&mut state, "enter");
    let [Effect::Engine(Request::Generate(job))] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(job.max_new_tokens, 0);
    assert_eq!(job.prompt, Prompt::Text("its [MASK] time".to_owned()));
}

#[test]
fn keys_that_draw_are_answered_in_words() {
    for mut state in [masked_ready(), masked()] {
        press(&mut state, "esc");
        for key in ["space", ".", "C", "p", "f"] {
            state.notice = None;
            assert!(press(&mut state, key).is_empty(), "{key}");
            let notice = state.notice.as_ref().map(|n| n.text.as_str());
            let drawn = |text: &str| text.contains("[MASK]") && text.contains("draws no tokens");
            if state.run.is_some() || key != "f" {
                assert!(notice.is_some_and(drawn), "{key}: {notice:?}");
            }
            assert!(state.overlay.is_none(), "{key}");
        }
        assert!(!state.cursor.follow || state.run.is_none());
    }
}

#[test]
fn gaps_are_walked_over_and_around() {
    let mut state = masked();
    let [first, second] = fixture::GAPS;
    press(&mut state, "down >");
    assert_eq!(state.cursor.position, second);
    assert_eq!(state.cursor.layer, fixture::BLOCKS, "what the model says");
    assert_eq!(state.notice.as_ref().unwrap().text, "[MASK] 2 of 2");
    press(&mut state, ">");
    assert_eq!(state.cursor.position, first);
    press(&mut state, "<");
    assert_eq!(state.cursor.position, second);
    press(&mut state, "< g >");
    assert_eq!(state.cursor.position, first);
    // Without gaps, or with a model that has none, this is said.
    let mut none = masked();
    let schema = none.schema.clone();
    update(
        &mut none,
        Event::Started {
            schema,
            prompt_tokens: 1,
            max_new_tokens: 0,
        },
    );
    update(&mut none, Event::Token(fixture::token(3)));
    press(&mut none, ">");
    assert_eq!(
        none.notice.as_ref().unwrap().text,
        "The text has no [MASK]."
    );
    let mut causal = running();
    press(&mut causal, ">");
    let notice = &causal.notice.as_ref().unwrap().text;
    assert!(notice.contains("fills no gaps"), "{notice}");
}

#[test]
fn words_without_spaces_are_shown_searched_and_copied_with_them() {
    let mut state = masked();
    press(&mut state, "/");
    type_text(&mut state, "keeps its [mask]");
    press(&mut state, "enter");
    assert_eq!(state.derived.matches, [3..=5]);
    let effects = press(&mut state, "y");
    let [Effect::Copy(text)] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert!(
        text.starts_with("[CLS] the river keeps its [MASK]"),
        "{text}"
    );
}

#[test]
fn metrics_of_a_next_token_are_not_offered() {
    let mut state = running();
    press(&mut state, "4");
    assert_eq!(state.columns().spec(state.metric).name, "surprisal");
    update(&mut state, fixture::masked_loaded().unwrap());
    for event in fixture::masked_read().unwrap() {
        update(&mut state, event);
    }
    assert_eq!(state.columns().spec(state.metric).name, "entropy");
    for key in ["4", "6"] {
        press(&mut state, key);
        assert!(state.notice.as_ref().unwrap().text.contains("n/a"), "{key}");
        assert_eq!(state.columns().spec(state.metric).name, "entropy");
    }
    press(&mut state, "m");
    let Some(Overlay::List(list)) = &state.overlay else {
        panic!();
    };
    assert_eq!(list.items.len(), state.columns().len() - 2);
}

#[test]
fn samples_fit_the_model() {
    let mut state = masked_ready();
    assert_eq!(requests(&press(&mut state, "f2")), ["Generate"]);
    assert_eq!(state.prompt.text(), "The river keeps its [MASK] time.");
    assert!(press(&mut state, "f3").is_empty(), "there is one such set");
    update(&mut state, fixture::loaded().unwrap());
    press(&mut state, "f2");
    assert_eq!(state.prompt.text(), "The capital of Velmora is");
    assert!(state.samples.iter().all(|set| !set.masked));
}

#[test]
fn exports_of_it_speak_of_their_own_position() {
    let mut state = masked();
    let effects = press(&mut state, "x");
    let [Effect::Export(Export::Run(record, _))] = &effects[..] else {
        panic!("{effects:?}");
    };
    let (_, grid) = &record.branches[0];
    assert_eq!(grid.aim(), crate::trace::Aim::Itself);
    let gap = fixture::GAPS[0];
    let decided = grid.cells(gap).unwrap().decided_layer;
    assert_eq!(grid.decided_layer(gap), decided);
    assert_eq!(record.max_new_tokens, 0);
}

#[test]
fn a_model_without_attention_or_limit_breaks_no_arithmetic() {
    let mut card = fixture::card();
    card.heads = 0;
    card.kv_heads = 0;
    card.context = 1 << 24;
    card.layers = vec![crate::model::config::LayerKind::StateSpace; card.blocks];
    let mut state = ready();
    update(
        &mut state,
        Event::Loaded {
            card: card.into(),
            tokenizer: fixture::tokenizer().unwrap().into(),
        },
    );
    state.settings.max_new_tokens = usize::MAX;
    type_text(&mut state, "On");
    assert_eq!(requests(&press(&mut state, "enter")), ["Generate"]);
}
