//! Control vectors, comparisons, replays.

use super::*;
use crate::session::Turn;
use crate::steer::{Effect as Push, Spec};
use crate::trace::{Pairing, Side};
use crate::tui::state::{Gap, Lower, Row};

/// What the engine was asked to steer by.
fn asked(effects: &[Effect]) -> Option<Vec<Spec>> {
    effects.iter().find_map(|effect| match effect {
        Effect::Engine(Request::Steer(specs)) => Some(specs.clone()),
        _ => None,
    })
}

#[test]
fn the_model_inside_brings_a_vector_that_is_off_until_it_is_chosen() {
    let mut state = ready();
    press(&mut state, "esc");
    assert!(state.steering.asked().is_empty());
    press(&mut state, "s");
    assert_eq!(state.context(), Context::Panel);
    let specs = asked(&press(&mut state, "enter")).unwrap();
    assert_eq!(specs[0].effect, Push::Vector("mood".into()));
    assert_eq!(
        (specs[0].strength, specs[0].layers.clone()),
        (-0.3, Some(4..=12))
    );
    let off = asked(&press(&mut state, "enter")).unwrap();
    assert!(off.is_empty(), "switched off again");
}

#[test]
fn the_slider_moves_by_tenths_and_asks_at_once() {
    let mut state = fixture::state(120, 36, Depth::True, 20).unwrap();
    assert!(press(&mut state, "}").is_empty());
    assert_eq!(
        state.notice.as_ref().unwrap().level,
        Level::Warn,
        "nothing is in force"
    );
    press(&mut state, "s");
    press(&mut state, "enter esc");
    let strengths: Vec<f64> = (0..4)
        .map(|_| asked(&press(&mut state, "}")).unwrap()[0].strength)
        .collect();
    assert_eq!(strengths, [-0.2, -0.1, 0.0, 0.1]);
    assert_eq!(asked(&press(&mut state, "{")).unwrap()[0].strength, 0.0);
}

#[test]
fn values_are_typed_as_on_the_command_line_and_mistakes_change_nothing() {
    let mut state = ready();
    press(&mut state, "esc s");
    let go_to = |state: &mut State, row: Row| {
        for _ in 0..12 {
            let rows = state.steering.rows();
            let Some(Overlay::Steering(panel)) = &state.overlay else {
                panic!("the panel is open");
            };
            if rows[panel.row] == row {
                return;
            }
            press(state, "down");
        }
        panic!("{row:?} never came");
    };
    let typed = |state: &mut State, row: Row, text: &str| {
        go_to(state, row);
        press(state, "enter");
        assert_eq!(state.context(), Context::Field, "letters are typed now");
        for _ in 0..20 {
            press(state, "backspace");
        }
        type_text(state, text);
        press(state, "enter")
    };
    typed(&mut state, Row::Layers, "5..7");
    typed(&mut state, Row::LayerWeights, "1/2/3");
    typed(&mut state, Row::TokenWeights, "0.5/1");
    typed(&mut state, Row::Amount, "1.75");
    typed(&mut state, Row::Tokens, "from:3");
    let spec = state.steering.parts[0].spec.clone();
    let same =
        "mood,strength=1.75,layers=5..7,layer-weights=1/2/3,token-weights=0.5/1,tokens=from:3";
    assert_eq!(spec, same.parse::<Spec>().unwrap());
    for (row, wrong) in [
        (Row::Amount, "much"),
        (Row::Layers, "7..5"),
        (Row::Tokens, "some"),
        (Row::TokenWeights, "1/x"),
        (Row::Add, "v.gguf,strenght=2"),
    ] {
        assert!(asked(&typed(&mut state, row, wrong)).is_none(), "{row:?}");
        assert_eq!(state.notice.as_ref().unwrap().level, Level::Warn, "{row:?}");
    }
    assert_eq!(state.steering.parts[0].spec, spec);
    let both = typed(&mut state, Row::Add, "scale=0.5,layers=3");
    assert!(asked(&both).is_some());
    assert_eq!(state.steering.parts.len(), 2);
    assert_eq!(state.steering.parts[1].spec.effect, Push::Scale(0.5));
    press(&mut state, "backspace");
    assert_eq!(state.steering.parts.len(), 1);
}

#[test]
fn a_comparison_fills_two_grids_and_is_exported_as_one() {
    let mut state = fixture::compared(120, 36, Depth::True, 40).unwrap();
    assert_eq!(state.compare, Some(Pairing::Free));
    let beside = state.beside.as_ref().unwrap();
    assert_eq!((state.tokens(), beside.run.grid.read()), (40, 39));
    assert_eq!(beside.run.plan_at(3), Some("mood ×−0.30 layers 4–12"));
    let record = state.record().unwrap();
    assert_eq!(record.branches[1].0, Side::B.label());
    assert_eq!(record.comparison, Some(Pairing::Free));
    assert!(record.steering.is_some());
    assert!(record.difference().is_some());
    // What is drawn is what a table of the record would say.
    let (layers, n, which) = state.summaries();
    let metric = state.metric;
    let positions = record.branches[0].1.predicting_positions();
    let difference = record.difference().unwrap();
    assert_eq!((n, which.as_str()), (positions.len(), "predicting"));
    for (layer, summary) in layers.iter().enumerate() {
        let [a, b, d] = difference.spread(layer, metric, positions.clone());
        assert_eq!(
            [summary.baseline, summary.steered, summary.difference],
            [a, b, d]
        );
    }
    // A run alone takes the screen back.
    press(&mut state, "A");
    update(&mut state, fixture::started(8));
    assert!(state.beside.is_none() && state.compare.is_none());
    assert_eq!(state.record().unwrap().branches.len(), 1);
}

#[test]
fn free_and_locked_are_asked_for_with_the_prompt_at_hand() {
    let mut state = fixture::compared(120, 36, Depth::True, 40).unwrap();
    let pairing = |effects: &[Effect]| match effects.last() {
        Some(Effect::Engine(Request::Compare(job, pairing))) => {
            assert!(matches!(&job.prompt, Prompt::Text(text) if text.starts_with("The capital")));
            *pairing
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(pairing(&press(&mut state, "F")), Pairing::Locked);
    assert_eq!(pairing(&press(&mut state, "F")), Pairing::Free);
    assert_eq!(
        pairing(&press(&mut state, "r")),
        Pairing::Free,
        "again is a comparison too"
    );
    assert_eq!(requests(&press(&mut state, "A")), ["Generate"]);
}

#[test]
fn a_push_on_the_way_labels_what_comes_after_it_until_a_replay() {
    let mut state = fixture::state(120, 36, Depth::True, 20).unwrap();
    press(&mut state, "s");
    press(&mut state, "enter esc");
    let turn = Turn {
        number: 1,
        from: 19,
    };
    update(&mut state, fixture::steered(-0.3, Some(turn)).unwrap());
    for position in 20..24 {
        for mut event in fixture::drawn(position) {
            if let Event::Cells { cells, .. } = &mut event {
                std::sync::Arc::make_mut(cells).plan = 1;
            }
            update(&mut state, event);
        }
    }
    let run = state.run.as_ref().unwrap();
    assert_eq!(
        (run.plan_at(18), run.plan_at(19)),
        (Some("plain"), Some("mood ×−0.30 layers 4–12"))
    );
    assert!(run.turns_at(19) && !run.turns_at(20) && run.mixed());
    let record = state.record().unwrap();
    assert!(record.steering.is_none());
    assert_eq!(record.steering_changes.len(), 1);
    assert_eq!(record.steering_changes[0].0, 19);
    assert_eq!(requests(&press(&mut state, "a")), ["Replay"]);
    update(&mut state, Event::Replaying);
    let record = state.record().unwrap();
    assert!(record.steering.is_some() && record.steering_changes.is_empty());
}

#[test]
fn numbers_by_layer_follow_cells_that_a_replay_replaces() {
    let mut state = fixture::compared(120, 36, Depth::True, 20).unwrap();
    let before = state.derived.summaries.clone();
    // The steered branch is read again as the plain one was.
    for event in fixture::comparison(20) {
        if let Event::Side(Side::A, event) = event
            && matches!(*event, Event::Cells { .. })
        {
            update(&mut state, Event::Side(Side::B, event));
        }
    }
    state.settle();
    assert_ne!(state.derived.summaries, before);
    assert_eq!(state.derived.summaries, state.summaries());
    let difference = state.derived.summaries.0[12].difference.unwrap();
    assert_eq!((difference.mean, difference.std), (0.0, 0.0));
}

#[test]
fn titles_say_what_the_cells_were_read_under_not_what_was_chosen_since() {
    let mut state = fixture::compared(120, 36, Depth::True, 20).unwrap();
    update(&mut state, Event::Finished(Finish::Length));
    for _ in 0..2 {
        press(&mut state, "}");
        let turn = Some(Turn {
            number: 2,
            from: 19,
        });
        update(&mut state, fixture::steered(-0.1, turn).unwrap());
    }
    let beside = state.beside.as_ref().unwrap();
    assert_eq!(state.steering.label, "mood ×−0.10 layers 4–12");
    assert_eq!(
        beside.run.plan_last(&state.steering.label),
        "mood ×−0.30 layers 4–12"
    );
    let record = state.record().unwrap();
    assert!(
        record.steering_changes.is_empty(),
        "nothing has been read under it"
    );
}

#[test]
fn a_vector_that_does_not_fit_is_told_and_the_run_goes_on() {
    let mut state = fixture::state(120, 36, Depth::True, 20).unwrap();
    press(&mut state, "s");
    press(&mut state, "enter esc");
    let error = Error::Usage("the control vector is 5 wide".into());
    update(&mut state, Event::NotSteered(error));
    assert_eq!(state.phase, Phase::Streaming);
    assert!(
        state.steering.asked().is_empty(),
        "back to what is in force"
    );
    assert!(state.notice.as_ref().unwrap().text.contains("5 wide"));
}

#[test]
fn rooms_of_a_comparison_turn() {
    let mut state = fixture::compared(80, 24, Depth::True, 40).unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        press(&mut state, "v");
        seen.push(state.lower);
    }
    assert_eq!(seen, [Lower::Cell, Lower::Difference, Lower::Layers]);
    press(&mut state, "%");
    assert_eq!(state.gap, Gap::Percent);
    let mut alone = fixture::state(80, 24, Depth::True, 9).unwrap();
    press(&mut alone, "v %");
    assert_eq!(alone.gap, Gap::Difference);
    assert_eq!(alone.notice.as_ref().unwrap().level, Level::Warn);
}

#[test]
fn pairs_of_prompts_come_one_after_the_other() {
    let mut state = ready();
    press(&mut state, "esc");
    let asked = |effects: &[Effect]| match effects {
        [Effect::Engine(Request::Compare(job, Pairing::Prompts))] => {
            (job.prompt.clone(), job.beside.clone().unwrap())
        }
        other => panic!("{other:?}"),
    };
    let text = |text: &str| Prompt::Text(text.to_owned());
    let first = (
        text("The capital of Velmora is"),
        text("The capital of Velmira is"),
    );
    let second = (
        text("The river of Tarsin is the"),
        text("The river of Tarsen is the"),
    );
    assert_eq!(asked(&press(&mut state, "T")), first);
    for event in fixture::comparison(12) {
        update(&mut state, event);
    }
    assert_eq!(state.model_names().unwrap()[0], "known");
    assert!(state.difference().is_none(), "each has a prompt of its own");
    assert_eq!(asked(&press(&mut state, "r")), first, "the same pair again");
    assert_eq!(asked(&press(&mut state, "T")), second);
    assert_eq!(asked(&press(&mut state, "T")), first, "from the beginning");
    // Its own prompt may be changed: the other stays.
    state.prompt.set("Once");
    assert_eq!(asked(&press(&mut state, "r")), (text("Once"), first.1));
    let effects = press(&mut state, "V");
    let Some(Effect::Engine(Request::Compare(job, Pairing::Free))) = effects.last() else {
        panic!("{effects:?}");
    };
    assert!(job.beside.is_none());
}
