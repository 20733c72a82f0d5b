//! Two sets of prompts: what they replace, what ends them, what is worked out of them.

use super::*;
use crate::model::ModelCard;
use crate::trace::Set;
use crate::tui::PromptSets;
use crate::tui::layout::SetPane;
use crate::tui::state::Choice;
use std::sync::Arc;

const ALL: usize = fixture::SETS[0] + fixture::SETS[1];

fn sets(count: usize) -> State {
    fixture::sets(120, 36, Depth::True, count).unwrap()
}

/// Take events as the engine would send them, and settle as a frame would.
fn hear(state: &mut State, events: impl IntoIterator<Item = Event>) {
    for event in events {
        assert!(update(state, event).is_empty());
    }
    state.settle();
}

fn note(state: &State) -> &str {
    state.notice.as_ref().map_or("", |notice| &notice.text)
}

#[test]
fn all_prompts_of_both_sets_are_asked_for() {
    let mut state = ready();
    let effects = press(&mut state, "esc U");
    let [Effect::Engine(Request::Separate(job))] = &effects[..] else {
        panic!("{effects:?}");
    };
    let texts = |prompts: &[Prompt]| -> Vec<String> {
        let text = |prompt: &Prompt| match prompt {
            Prompt::Text(text) => text.clone(),
            other => panic!("{other:?}"),
        };
        prompts.iter().map(text).collect()
    };
    let known = ["The capital of Velmora is", "The river of Tarsin is the"];
    let unknown = ["The capital of Velmira is", "The river of Tarsen is the"];
    assert_eq!(texts(&job.known), known);
    assert_eq!(texts(&job.unknown), unknown);
    assert_eq!(
        (job.each.max_new_tokens, job.each.lens.clone()),
        (1, fixture::lens())
    );
}

#[test]
fn samples_fill_the_panes_in_any_order_and_the_end_is_noted() {
    let mut early = ready();
    hear(&mut early, fixture::sampled());
    assert!(early.sets.is_none(), "nothing has begun");
    let whole = sets(ALL);
    assert_eq!(whole.phase, Phase::Done(Finish::Read));
    let mut turned = sets(0);
    assert_eq!(turned.phase, Phase::Reading);
    hear(&mut turned, fixture::sampled().into_iter().rev());
    hear(&mut turned, [Event::Finished(Finish::Read)]);
    for (a, b) in whole
        .derived
        .sets
        .layers
        .iter()
        .zip(&turned.derived.sets.layers)
    {
        assert_eq!(a.auroc, b.auroc);
        let [a, b] = [a, b].map(|layer| layer.profiles[1].unwrap());
        assert_eq!(a.n, fixture::SETS[1]);
        assert!((a.mean - b.mean).abs() < 1e-12);
    }
    assert_eq!(whole.derived.sets.layers.len(), fixture::BLOCKS + 1);
}

#[test]
fn what_is_drawn_is_what_the_files_say() {
    let mut state = sets(ALL);
    for name in ["entropy", "hoyer", "kl_final"] {
        state.metric = state.columns().find(name).unwrap();
        state.settle();
        let samples = &state.sets.as_ref().unwrap().samples;
        for (l, layer) in state.derived.sets.layers.iter().enumerate() {
            let separation = samples.separation(l, state.metric);
            assert_eq!(layer.auroc, separation.map(|s| s.auroc), "{name} {l}");
            assert_eq!(layer.interval, separation.and_then(|s| s.interval));
            assert_eq!(layer.difference, samples.difference(l, state.metric));
            let profiles = Set::BOTH.map(|set| samples.profile(set, l, state.metric));
            assert_eq!(layer.profiles, profiles);
        }
        assert_eq!(state.derived.sets.length, samples.separation_by_length());
        assert_eq!(state.derived.sets.statement, samples.statement());
    }
    // Undefined at the embedding: n/a, not 0.
    let embedding = state.derived.sets.layers[0];
    assert_eq!((embedding.auroc, embedding.profiles), (None, [None, None]));
}

#[test]
fn intervals_wait_for_an_eighth_more_and_for_the_end() {
    let mut state = sets(40);
    let last = fixture::BLOCKS;
    let interval = |state: &State| state.derived.sets.layers[last].interval;
    let fresh = |state: &State| {
        let samples = &state.sets.as_ref().unwrap().samples;
        samples.separation(last, state.metric).unwrap()
    };
    assert_eq!(interval(&state), fresh(&state).interval);
    let before = interval(&state);
    let mut rest = fixture::sampled().into_iter().skip(40);
    hear(&mut state, rest.by_ref().take(3));
    assert_ne!(
        fresh(&state).interval,
        before,
        "these prompts would move it"
    );
    assert_eq!(interval(&state), before);
    assert_eq!(
        state.derived.sets.layers[last].auroc,
        Some(fresh(&state).auroc)
    );
    hear(&mut state, rest.by_ref().take(4));
    assert_eq!(interval(&state), fresh(&state).interval);
    hear(&mut state, rest.by_ref().take(1));
    assert_ne!(interval(&state), fresh(&state).interval);
    hear(&mut state, [Event::Finished(Finish::Stopped)]);
    assert_eq!(interval(&state), fresh(&state).interval);
}

#[test]
fn the_quadrants_hold_every_prompt_of_the_layer_under_the_cursor() {
    let mut state = sets(ALL);
    let points = |state: &State| state.derived.sets.points.clone();
    let last = points(&state);
    assert_eq!([last[0].len(), last[1].len()], fixture::SETS);
    press(&mut state, "down");
    assert_eq!(state.cursor.layer, fixture::BLOCKS - 1);
    assert_ne!(points(&state), last);
    press(&mut state, "g");
    assert_eq!(state.cursor.layer, 0);
    press(&mut state, "down G up");
    assert_eq!(state.cursor.layer, fixture::BLOCKS);
    let quadrant = state.derived.plan.sets.quadrant;
    mouse(
        &mut state,
        MouseEventKind::ScrollDown,
        quadrant.x + 2,
        quadrant.y + 2,
    );
    assert_eq!(state.cursor.layer, fixture::BLOCKS - 1);
}

#[test]
fn digits_and_the_list_choose_the_metric() {
    let mut state = sets(ALL);
    let entropy = state.derived.sets.layers.clone();
    press(&mut state, "7");
    assert_eq!(state.columns().spec(state.metric).name, "hoyer");
    assert_ne!(state.derived.sets.layers, entropy);
    press(&mut state, "m");
    assert!(matches!(&state.overlay, Some(Overlay::List(list)) if list.title == "Metrics"));
    press(&mut state, "esc 1");
    assert_eq!(state.derived.sets.layers, entropy);
}

#[test]
fn stopping_keeps_what_came_and_going_on_reads_the_rest() {
    let mut state = sets(20);
    assert_eq!(requests(&press(&mut state, "space")), ["Pause"]);
    hear(&mut state, [Event::Paused]);
    assert!(press(&mut state, ".").is_empty(), "there are no steps");
    assert_eq!(requests(&press(&mut state, "space")), ["Resume"]);
    hear(&mut state, [Event::Resumed]);
    assert_eq!(
        state.phase,
        Phase::Reading,
        "not streaming, whatever the run before drew"
    );
    assert_eq!(requests(&press(&mut state, "S")), ["Stop"]);
    hear(&mut state, [Event::Finished(Finish::Stopped)]);
    assert_eq!(state.sets.as_ref().unwrap().samples.count(), 20);
    let effects = press(&mut state, "C");
    assert!(matches!(
        effects[..],
        [Effect::Engine(Request::Continue(0))]
    ));
    hear(&mut state, [Event::Resumed]);
    hear(&mut state, fixture::sampled().into_iter().skip(20));
    assert_eq!(requests(&press(&mut state, "ctrl-c")), ["Stop"]);
    hear(&mut state, [Event::Finished(Finish::Read)]);
    assert!(press(&mut state, "C").is_empty());
    assert!(
        note(&state).contains("U reads both sets again"),
        "{}",
        note(&state)
    );
    assert!(matches!(press(&mut state, "ctrl-c")[..], [Effect::Quit]));
}

#[test]
fn reading_them_again_begins_anew() {
    let mut state = sets(30);
    assert_eq!(requests(&press(&mut state, "U")), ["Separate"]);
    // What was under way is heard until the new begins.
    let mut late = fixture::sampled().into_iter().skip(30);
    hear(&mut state, late.by_ref().take(2));
    hear(&mut state, [fixture::separating()]);
    assert_eq!(state.sets.as_ref().unwrap().samples.count(), 0);
    assert!(
        state
            .derived
            .sets
            .layers
            .iter()
            .all(|layer| layer.auroc.is_none())
    );
    press(&mut state, "esc");
    assert_eq!(
        state.phase,
        Phase::Done(Finish::Length),
        "not the reading before"
    );
}

#[test]
fn leaving_goes_back_to_the_run_and_late_events_do_not_touch_it() {
    for key in ["esc", "A"] {
        let mut state = sets(30);
        let ended = state.run.as_ref().unwrap().ended;
        state.clock.wall += Duration::from_secs(100);
        assert_eq!(requests(&press(&mut state, key)), ["Stop"]);
        assert!(state.sets.is_none());
        assert_eq!(state.phase, Phase::Done(Finish::Length));
        hear(&mut state, fixture::sampled().into_iter().skip(30).take(2));
        hear(&mut state, [Event::Finished(Finish::Stopped)]);
        assert_eq!(state.phase, Phase::Done(Finish::Length));
        assert_eq!(state.run.as_ref().unwrap().ended, ended);
        // The engine holds that run no more.
        assert!(press(&mut state, "C . a").is_empty());
        assert!(
            note(&state).contains("r runs this one again"),
            "{}",
            note(&state)
        );
        assert_eq!(requests(&press(&mut state, "r")), ["Generate"]);
        hear(
            &mut state,
            [fixture::started(8), Event::Finished(Finish::Length)],
        );
        assert_eq!(
            state.phase,
            Phase::Done(Finish::Length),
            "this end is the run's own"
        );
        assert_eq!(requests(&press(&mut state, "C")), ["Continue"]);
    }
    // Nothing is under way: nothing to stop.
    let mut state = sets(ALL);
    assert!(press(&mut state, "A").is_empty());
    assert_eq!(state.phase, Phase::Done(Finish::Length));
}

#[test]
fn a_run_that_sets_broke_off_is_a_stopped_one_and_without_a_run_all_is_as_before() {
    let mut state = running();
    press(&mut state, "U");
    hear(&mut state, fixture::drawn(48));
    hear(&mut state, [fixture::separating()]);
    assert!(state.run.as_ref().unwrap().ended.is_some());
    press(&mut state, "esc");
    assert_eq!(state.phase, Phase::Done(Finish::Stopped));
    assert_eq!(state.grid().unwrap().len(), 49);
    let mut state = ready();
    press(&mut state, "esc U");
    hear(
        &mut state,
        [fixture::separating(), Event::Finished(Finish::Read)],
    );
    press(&mut state, "esc");
    assert_eq!((&state.phase, state.run.is_none()), (&Phase::Ready, true));
}

#[test]
fn a_run_takes_the_place_of_sets_and_a_refused_one_does_not() {
    let refuse = || Event::Failed(Error::failed("the prompt is too long", "Shorten it."));
    let mut state = sets(30);
    assert_eq!(requests(&press(&mut state, "r")), ["Generate"]);
    hear(&mut state, fixture::sampled().into_iter().skip(30).take(1));
    hear(&mut state, [refuse()]);
    assert_eq!(state.phase, Phase::Reading);
    assert_eq!(state.sets.as_ref().unwrap().samples.count(), 31);
    press(&mut state, "r");
    hear(&mut state, [Event::Finished(Finish::Read), refuse()]);
    assert_eq!(
        state.phase,
        Phase::Done(Finish::Read),
        "they ended meanwhile"
    );
    press(&mut state, "r");
    hear(&mut state, [fixture::started(8)]);
    assert!(state.sets.is_none());
    assert!(!state.derived.plan.map.is_empty());
    // Sets that are refused leave what was there.
    let mut state = running();
    press(&mut state, "U");
    hear(&mut state, [refuse()]);
    assert_eq!(
        (&state.phase, state.sets.is_none()),
        (&Phase::Streaming, true)
    );
}

#[test]
fn a_run_that_was_submitted_is_not_stopped_by_leaving() {
    let mut state = sets(30);
    press(&mut state, "r");
    assert!(press(&mut state, "esc").is_empty());
    hear(&mut state, [fixture::started(8)]);
    hear(&mut state, [Event::Finished(Finish::Length)]);
    assert_eq!(state.phase, Phase::Done(Finish::Length));
}

#[test]
fn a_failure_of_sets_that_were_left_leaves_the_next_end_alone() {
    let mut state = sets(30);
    press(&mut state, "esc");
    hear(
        &mut state,
        [Event::Failed(Error::failed(
            "a tensor failed",
            "Try again.",
        ))],
    );
    assert_eq!(state.phase, Phase::Done(Finish::Length));
    press(&mut state, "esc r");
    hear(
        &mut state,
        [fixture::started(8), Event::Finished(Finish::Length)],
    );
    assert_eq!(state.phase, Phase::Done(Finish::Length));
}

#[test]
fn exports_and_copies_are_of_the_sets() {
    let mut state = sets(0);
    assert!(press(&mut state, "x").is_empty());
    let mut state = sets(ALL);
    let effects = press(&mut state, "x");
    let [Effect::Export(Export::Sets(record, samples))] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(samples.count(), ALL);
    assert!(record.branches.is_empty() && record.ended.is_some());
    assert_eq!((record.max_new_tokens, &record.lens), (1, &fixture::lens()));
    let [Effect::Copy(text)] = &press(&mut state, "y")[..] else {
        panic!();
    };
    assert_eq!(*text, samples.statement());
    let [Effect::Copy(text)] = &press(&mut state, "Y")[..] else {
        panic!();
    };
    assert!(
        text.starts_with("layer 12\n") && text.contains("\nhoyer "),
        "{text}"
    );
    press(&mut state, "esc esc");
    let effects = press(&mut state, "x");
    assert!(
        matches!(effects[..], [Effect::Export(Export::Run(..))]),
        "the run again"
    );
}

#[test]
fn the_sets_inside_are_for_the_model_inside() {
    let other = ModelCard {
        source: "some/folder".to_owned(),
        ..fixture::card()
    };
    let load = |options: &crate::tui::Options| {
        let area = Rect::new(0, 0, 120, 36);
        let mut state = State::new(options, Depth::True, area).unwrap();
        let loaded = Event::Loaded {
            card: Arc::new(other.clone()),
            tokenizer: Arc::new(fixture::tokenizer().unwrap()),
        };
        update(&mut state, loaded);
        state
    };
    let mut options = fixture::options();
    let mut state = load(&options);
    assert!(press(&mut state, "esc U").is_empty());
    assert!(
        note(&state).contains("--known F --unknown F"),
        "{}",
        note(&state)
    );
    options.sets = Some(PromptSets {
        prompts: ["a", "b"].map(|text| vec![Prompt::Text(text.to_owned())]),
        names: ["known", "unknown"],
        origins: ["a.txt", "b\u{202E}.txt"].map(str::to_owned),
    });
    let mut state = load(&options);
    assert_eq!(requests(&press(&mut state, "esc U")), ["Separate"]);
    hear(&mut state, [fixture::separating()]);
    let sets = state.sets.as_ref().unwrap();
    assert_eq!(sets.names, ["known", "unknown"]);
    assert_eq!(sets.origins[1], "b\\u{202E}.txt");
}

#[test]
fn the_list_of_comparisons_offers_them() {
    let mut state = ready();
    press(&mut state, "esc c");
    let Some(Overlay::List(list)) = &state.overlay else {
        panic!("{:?}", state.overlay);
    };
    let offered = |action| list.items.iter().any(|i| i.choice == Choice::Do(action));
    assert!(offered(Action::CompareSets));
    type_text(&mut state, "two sets of");
    assert_eq!(requests(&press(&mut state, "enter")), ["Separate"]);
}

#[test]
fn what_is_about_tokens_says_so() {
    let mut state = sets(ALL);
    for key in ["w", "/", "+", "]", "left", "a", "enter"] {
        assert!(press(&mut state, key).is_empty());
        assert!(
            note(&state).contains("tokens of one run"),
            "{key}: {}",
            note(&state)
        );
        assert!(state.overlay.is_none());
    }
    assert_eq!(press(&mut state, "esc esc").len(), 0);
    assert!(state.sets.is_none(), "the first puts the message away");
}

#[test]
fn panes_take_turns_where_there_is_no_room_for_all() {
    use SetPane::{Profiles, Quadrant, Separation, Statement};
    let shown = |state: &State| {
        let panes = SetPane::ALL.into_iter();
        let panes = panes.filter(|pane| !state.derived.plan.sets.of(*pane).is_empty());
        panes.collect::<Vec<_>>()
    };
    let mut state = sets(ALL);
    assert_eq!(shown(&state), SetPane::ALL);
    press(&mut state, "v");
    assert!(matches!(&state.overlay, Some(Overlay::Page(page)) if page.text.is_some()));
    press(&mut state, "esc tab");
    assert!(state.writing);
    press(&mut state, "esc");
    update(&mut state, Message::Resize(80, 24));
    assert_eq!(shown(&state), [Profiles, Quadrant, Separation]);
    press(&mut state, "v");
    assert_eq!(shown(&state), [Profiles, Quadrant, Statement]);
    press(&mut state, "v");
    update(&mut state, Message::Resize(60, 16));
    let mut turns = Vec::new();
    for _ in 0..4 {
        turns.extend(shown(&state));
        press(&mut state, "v");
    }
    assert_eq!(turns, [Separation, Statement, Profiles, Quadrant]);
    press(&mut state, "tab");
    assert_eq!(shown(&state), [Statement]);
    press(&mut state, "tab");
    assert!(state.writing, "the prompt comes after the last");
    click(&mut state, 20, 1);
    assert_eq!((shown(&state), state.writing), (vec![Quadrant], false));
}

#[test]
fn what_both_were_read_under_stays_with_them() {
    let mut state = sets(ALL);
    assert!(state.sets.as_ref().unwrap().label.is_empty());
    let spec = "mood.gguf,strength=1.5"
        .parse::<crate::steer::Spec>()
        .unwrap();
    let effect = crate::steer::Effect::Scale(0.5);
    let spec = crate::steer::Spec { effect, ..spec };
    let card = fixture::card();
    let (plan, _) = crate::steer::Plan::load(&[spec], &card).unwrap();
    let steered = Event::Steered {
        plan,
        turn: None,
        remarks: Vec::new(),
    };
    hear(&mut state, [steered]);
    assert!(
        note(&state).contains("U reads both sets again"),
        "{}",
        note(&state)
    );
    assert!(state.sets.as_ref().unwrap().label.is_empty());
    press(&mut state, "U");
    hear(&mut state, [fixture::separating()]);
    hear(&mut state, fixture::sampled());
    let effects = press(&mut state, "x");
    let [Effect::Export(Export::Sets(record, _))] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert!(record.steering.is_some(), "the manifest says so");
}
