//! Strengths tried in the background.

use super::*;
use crate::steer::{Effect as Push, Spec, Strengths};
use crate::tui::effect::Export;

/// What the engine was asked to try.
fn asked(effects: &[Effect]) -> Option<(Vec<Spec>, Strengths)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Engine(Request::Sweep(_, specs, strengths)) => {
            Some((specs.clone(), strengths.clone()))
        }
        _ => None,
    })
}

#[test]
fn a_sweep_reaches_as_far_again_as_the_strength_at_hand_on_both_sides() {
    let mut state = fixture::compared(120, 36, Depth::True, 20).unwrap();
    let (specs, strengths) = asked(&press(&mut state, "z")).unwrap();
    assert_eq!(specs[0].effect, Push::Vector("mood".into()));
    assert_eq!(specs[0].strength, 1.0, "the strengths are its own");
    let all = strengths.all();
    assert_eq!((all[0], all[4], all[8], all.len()), (-0.6, 0.0, 0.6, 9));
    // Several at once are multiplied as a whole.
    press(&mut state, "esc");
    state.steering.parts.push(crate::tui::state::Part {
        spec: "scale=0.5,layers=3".parse().unwrap(),
        on: true,
    });
    let (specs, strengths) = asked(&press(&mut state, "z")).unwrap();
    assert_eq!((specs.len(), specs[0].strength), (2, -0.3));
    assert_eq!(strengths.all()[8], 2.0);
}

#[test]
fn without_a_vector_or_a_prompt_it_says_what_is_missing() {
    let mut state = ready();
    press(&mut state, "esc");
    assert!(press(&mut state, "z").is_empty());
    assert!(matches!(state.overlay, Some(Overlay::Steering(_))));
    press(&mut state, "enter esc");
    assert!(asked(&press(&mut state, "z")).is_none());
    assert!(state.writing, "the prompt is what is missing");
}

#[test]
fn points_are_shown_as_they_come_and_the_chosen_one_steers() {
    let mut state = fixture::swept(120, 36, Depth::True, 6).unwrap();
    let sweep = state.sweep.as_ref().unwrap();
    assert_eq!(sweep.progress(), (6, 9));
    assert!(sweep.record.is_none());
    let metric = state.metric;
    let cell = sweep.cell(8, metric, 2);
    let (plain, pushed) = (cell.plain.unwrap(), cell.pushed.unwrap());
    assert_eq!(cell.difference(), Some(pushed.mean - plain.mean));
    assert_eq!(sweep.cell(8, metric, 7).pushed, None, "not read yet");
    // It has not ended: there is nothing whole to write.
    assert!(press(&mut state, "x").is_empty());
    update(&mut state, fixture::sweep_ended().unwrap());
    let effects = press(&mut state, "x");
    let [Effect::Export(Export::Sweep(record, curve))] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!((record.branches.len(), curve.done()), (1, 6));
    press(&mut state, "left left");
    let chosen = state.sweep.as_ref().unwrap().chosen;
    assert_eq!(chosen, 2);
    let effects = press(&mut state, "enter");
    let [Effect::Engine(Request::Steer(specs))] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(specs[0].strength, -0.3);
    assert!(state.overlay.is_none());
    // It can be looked at again, and be begun anew.
    assert!(press(&mut state, "z").is_empty());
    assert!(matches!(state.overlay, Some(Overlay::Sweep)));
    assert!(asked(&press(&mut state, "z")).is_some());
}

#[test]
fn the_runs_on_the_screen_go_on_while_strengths_are_tried() {
    let before = fixture::compared(120, 36, Depth::True, 20).unwrap();
    let mut state = fixture::swept(120, 36, Depth::True, 2).unwrap();
    press(&mut state, "esc");
    assert!(state.overlay.is_none());
    assert_eq!(state.phase, before.phase);
    assert_eq!(state.derived.summaries, before.derived.summaries);
    let texts = |state: &State| {
        state
            .branches()
            .map(|run| run.grid.len())
            .collect::<Vec<_>>()
    };
    assert_eq!(texts(&state), texts(&before), "the run is what it was");
    update(&mut state, fixture::sweep_ended().unwrap());
    assert!(state.notice.as_ref().unwrap().text.contains("2 of 9"));
    update(&mut state, fixture::loaded().unwrap());
    assert!(state.sweep.is_none(), "another model knows nothing of it");
}
