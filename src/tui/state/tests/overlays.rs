//! Lists, panels, pages, messages, exports.

use super::*;

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
fn what_was_said_goes_with_the_next_key_but_errors_stay() {
    let mut state = running();
    update(&mut state, Message::Note(Level::Info, "done".to_owned()));
    press(&mut state, "left");
    assert!(state.notice.is_none());
    update(&mut state, Message::Note(Level::Error, "broken".to_owned()));
    press(&mut state, "left right");
    assert!(state.notice.is_some());
    press(&mut state, "esc");
    assert!(state.notice.is_none());
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
    let lines = page_lines(&state, page, 80);
    for action in Action::ALL {
        let entry = lines.iter().find(|l| match l {
            PageLine::Entry(_, what) => what == action.help(),
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
    let [Effect::Export(Export::Run(record, _))] = &effects[..] else {
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
