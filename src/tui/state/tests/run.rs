//! Prompts, runs, failures, leaving.

use super::*;

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
fn the_clock_moves_nothing_but_itself() {
    let mut state = running();
    let before = format!("{:?}", state.cursor);
    let clock = Clock {
        elapsed: Duration::from_secs(9),
        ..Clock::default()
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
