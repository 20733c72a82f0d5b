//! The screen at four sizes, in three themes and four colour depths; hostile text; traffic.

mod sets;

use super::paint;
use crate::session::Event;
use crate::trace::{Kind, Token};
use crate::tui::action::Action;
use crate::tui::backend::LeanBackend;
use crate::tui::colour::{Depth, Rgb, sample};
use crate::tui::fixture;
use crate::tui::governor::{BUDGET, Counting, FRAME, Governor, LOW_BUDGET};
use crate::tui::state::{Level, Message, Phase, RangeMode, State, update};
use crate::tui::widgets::Datum;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};
use ratatui::{Terminal, TerminalOptions, Viewport};
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;
use unicode_width::UnicodeWidthStr as _;

pub(super) const SIZES: [(u16, u16); 4] = [(60, 16), (80, 24), (120, 36), (200, 60)];

pub(super) fn draw(state: &State) -> Buffer {
    let mut buf = Buffer::empty(state.area);
    paint(&mut buf, state);
    buf
}

/// The symbols line by line, as a terminal would show them.
pub(super) fn text(buf: &Buffer) -> String {
    let mut out = String::new();
    for y in 0..buf.area.height {
        let mut line = String::new();
        let mut skip = 0;
        for x in 0..buf.area.width {
            if skip > 0 {
                skip -= 1;
                continue;
            }
            let symbol = buf[(x, y)].symbol();
            line.push_str(symbol);
            skip = symbol.width().saturating_sub(1);
        }
        writeln!(out, "{}", line.trim_end()).unwrap();
    }
    out
}

/// Runs of equal style line by line, so that a change of colour shows in a snapshot.
fn styles(buf: &Buffer) -> String {
    let mut out = String::new();
    for y in 0..buf.area.height {
        let mut from = 0;
        for x in 1..=buf.area.width {
            let cell = &buf[(from, y)];
            let same = x < buf.area.width && {
                let next = &buf[(x, y)];
                (next.fg, next.bg, next.modifier) == (cell.fg, cell.bg, cell.modifier)
            };
            if !same {
                write!(out, "{}×{}/{}", x - from, cell.fg, cell.bg).unwrap();
                if !cell.modifier.is_empty() {
                    write!(out, " {:?}", cell.modifier).unwrap();
                }
                out.push_str("  ");
                from = x;
            }
        }
        out.push('\n');
    }
    out
}

fn running(width: u16, height: u16) -> State {
    fixture::state(width, height, Depth::True, 48).unwrap()
}

pub(super) fn snapshot(name: &str, content: String) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, content));
}

#[test]
fn a_run_at_every_size_in_every_theme() {
    for (width, height) in SIZES {
        let mut state = running(width, height);
        let shown = text(&draw(&state));
        for theme in 1..3 {
            state.wear(theme);
            assert_eq!(text(&draw(&state)), shown, "themes change colours only");
        }
        snapshot(&format!("run_{width}x{height}"), shown);
    }
}

#[test]
fn the_colours_of_every_theme() {
    let mut state = running(60, 16);
    for theme in 0..3 {
        state.wear(theme);
        snapshot(
            &format!("colours_{}", state.theme.name),
            styles(&draw(&state)),
        );
    }
}

#[test]
fn before_the_first_run() {
    let area = Rect::new(0, 0, 120, 36);
    let mut state = State::new(&fixture::options(), Depth::True, area).unwrap();
    state.clock.elapsed = Duration::from_secs(2);
    update(
        &mut state,
        Event::Loading {
            what: "fetching weights".to_owned(),
            done: 12_300_000,
            total: Some(45_600_000),
        },
    );
    let loading = text(&draw(&state));
    let title = loading.lines().next().unwrap();
    assert!(
        title.ends_with("◌ fetching weights  12.3 MB of 45.6 MB  6.2 MB/s"),
        "{title}"
    );
    update(&mut state, fixture::loaded().unwrap());
    state.settle();
    snapshot("empty_120x36", text(&draw(&state)));
    update(&mut state, Message::Resize(60, 16));
    snapshot("empty_60x16", text(&draw(&state)));
}

#[test]
fn what_lies_over_the_rooms() {
    let mut state = fixture::finished(100, 30, Depth::True, 60).unwrap();
    for (name, action) in [
        ("palette", Action::Palette),
        ("metrics", Action::Metrics),
        ("samples", Action::Samples),
        ("themes", Action::Themes),
        ("sampling", Action::Sampling),
    ] {
        update(&mut state, action);
        snapshot(name, text(&draw(&state)));
        update(&mut state, Action::Back);
        assert!(state.overlay.is_none());
    }
}

#[test]
fn zoomed_cells_hold_the_layers_word() {
    let mut state = fixture::finished(120, 36, Depth::True, 60).unwrap();
    update(&mut state, Action::ZoomIn);
    update(&mut state, Action::MoveDown);
    snapshot("words", text(&draw(&state)));
    update(&mut state, Action::ZoomOut);
    update(&mut state, Action::ZoomOut);
    snapshot("halves", text(&draw(&state)));
}

#[test]
fn without_colour_nothing_is_lost_and_nothing_is_coloured() {
    let state = fixture::state(120, 36, Depth::Mono, 48).unwrap();
    let buf = draw(&state);
    for cell in &buf.content {
        assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset));
    }
    snapshot("no_colour", text(&buf));
}

#[test]
fn too_small_a_terminal_says_which_size_it_needs() {
    let state = running(59, 16);
    let shown = text(&draw(&state));
    assert_eq!(shown.trim_end(), "entroscope needs 60×16, this is 59×16");
    // Nothing may panic down to a single cell.
    for (width, height) in [(1, 1), (3, 50), (300, 2), (0, 0)] {
        draw(&running(width, height));
    }
}

#[test]
fn a_value_takes_the_colour_of_its_step() {
    for theme in 0..3 {
        let mut state = running(120, 36);
        state.wear(theme);
        let buf = draw(&state);
        let geometry = &state.derived.geometry;
        let mut seen = 0;
        for layer in 0..state.states() {
            for position in geometry.left..46 {
                let rect = geometry.cell(layer, position).unwrap();
                let Datum::Step(step) = state.datum(state.run.as_ref().unwrap(), layer, position)
                else {
                    continue;
                };
                let value = state.grid().unwrap().value(layer, position, state.metric);
                let (low, high) = state.derived.ranges.map;
                let share = (value.unwrap() - low) / (high - low) * 16.0;
                assert_eq!(step, share.clamp(0.0, 15.0) as u8);
                assert_eq!(buf[(rect.x, rect.y)].bg, state.theme.ramp.shade(step).bg);
                seen += 1;
            }
        }
        assert!(seen > 300, "{seen}");
    }
    // The colours themselves, from the published ramps.
    let state = running(120, 36);
    let lowest = sample(crate::tui::colour::RampName::Viridis, 0);
    assert_eq!(lowest, Rgb(0x44, 0x01, 0x54));
    assert_eq!(state.theme.ramp.shade(0).bg, Color::Rgb(0x44, 0x01, 0x54));
}

#[test]
fn text_on_values_can_be_read_in_every_theme() {
    for theme in 0..3 {
        let mut state = running(160, 40);
        state.wear(theme);
        update(&mut state, Action::ZoomIn);
        let buf = draw(&state);
        let mut seen = 0;
        for cell in buf
            .content
            .iter()
            .filter(|c| c.symbol().chars().all(char::is_alphabetic))
        {
            if let (Color::Rgb(r, g, b), Color::Rgb(x, y, z)) = (cell.fg, cell.bg) {
                let contrast = Rgb(r, g, b).contrast(Rgb(x, y, z));
                assert!(
                    contrast >= 4.5,
                    "{}: {:?} {contrast:.2}",
                    state.theme.name,
                    cell
                );
                seen += 1;
            }
        }
        assert!(seen > 500, "{seen}");
    }
}

#[test]
fn the_embedding_row_and_the_first_column_do_not_set_the_range() {
    let state = running(120, 36);
    let (low, _) = state.derived.ranges.map;
    let embedding = state.grid().unwrap().value(0, 5, state.metric).unwrap();
    assert!(embedding < low, "{embedding} {low}");
    assert_eq!(
        state.datum(state.run.as_ref().unwrap(), 0, 5),
        Datum::Step(0)
    );
}

#[test]
fn unread_cells_and_cells_without_a_value_look_different() {
    let mut state = running(120, 36);
    let mut cells = fixture::cells(47);
    let metrics = state.columns().len();
    cells.values[3 * metrics] = f32::NAN;
    update(
        &mut state,
        Event::Cells {
            position: 47,
            cells: cells.into(),
        },
    );
    update(&mut state, Event::Token(fixture::token(48)));
    state.settle();
    assert_eq!(
        state.datum(state.run.as_ref().unwrap(), 3, 47),
        Datum::Absent
    );
    assert_eq!(
        state.datum(state.run.as_ref().unwrap(), 3, 48),
        Datum::Unread
    );
    let buf = draw(&state);
    let symbol = |position| {
        let rect = state.derived.geometry.cell(3, position).unwrap();
        buf[(rect.x, rect.y)].symbol().to_owned()
    };
    assert_eq!((symbol(47).as_str(), symbol(48).as_str()), ("╱", "·"));
}

fn hostile() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 14] = [
        b"\x1b[2J\x1b[31mred\x07",
        b"\0\0",
        "\u{202E}desrever\u{202C}".as_bytes(),
        "\u{2066}isolate\u{2069}".as_bytes(),
        "שלום עולם".as_bytes(),
        "👩\u{200D}👩\u{200D}👧".as_bytes(),
        "🇩🇪👍🏽".as_bytes(),
        "zero\u{200B}\u{FEFF}width".as_bytes(),
        "a\u{300}\u{301}\u{302}\u{303}\u{304}\u{305}".as_bytes(),
        "日本語テキスト".as_bytes(),
        b"\xE2\x82",
        b"\xAC\xFF\xFE",
        "\u{9b}31m\u{85}\u{2028}".as_bytes(),
        b"\r\n\t \x08\x7f",
    ];
    let mut all: Vec<Vec<u8>> = texts.iter().map(|t| t.to_vec()).collect();
    all.push("x".repeat(300_000).into_bytes());
    all.push(vec![0xFF; 5_000]);
    all
}

#[test]
fn hostile_tokens_reach_no_cell_raw_and_keep_the_columns() {
    let clean = text(&draw(&running(120, 36)));
    let edges = |shown: &str| -> Vec<Vec<usize>> {
        shown
            .lines()
            .skip(1)
            .map(|line| {
                let mut column = 0;
                let mut found = Vec::new();
                for c in line.chars() {
                    if c == '│' {
                        found.push(column);
                    }
                    column += unicode_width::UnicodeWidthChar::width(c).unwrap_or(0);
                }
                found
            })
            .collect()
    };
    for bytes in hostile() {
        let mut state = running(120, 36);
        for kind in [Kind::Prompt, Kind::Generated] {
            let token = Token {
                id: 1,
                bytes: bytes.clone(),
                kind,
                seconds: 0.0,
            };
            update(&mut state, Event::Token(token));
        }
        state.search = "x".to_owned();
        for action in [
            Action::Last,
            Action::ZoomIn,
            Action::ZoomOut,
            Action::MoveLeft,
        ] {
            update(&mut state, action);
            let buf = draw(&state);
            for cell in &buf.content {
                let symbol = cell.symbol();
                assert!(!symbol.chars().any(char::is_control), "{symbol:?}");
                let dangerous = [
                    '\u{202E}', '\u{2066}', '\u{200D}', '\u{200B}', '\u{FEFF}', '\u{2028}',
                ];
                assert!(!symbol.contains(dangerous), "{symbol:?}");
                assert!(symbol.width() <= 2, "{symbol:?}");
            }
            assert_eq!(
                edges(&text(&buf)),
                edges(&clean),
                "{:?}",
                &bytes[..bytes.len().min(20)]
            );
        }
    }
}

#[test]
fn hostile_prompts_messages_and_names_are_shown_safely() {
    let mut state = running(100, 30);
    update(
        &mut state,
        Message::Paste("a\x1b]52;c;evil\x07\u{202E}b\r\nc".to_owned()),
    );
    let mut card = fixture::card();
    card.name = "\x1b[31mmodel\u{202E}".to_owned();
    card.family = "\u{200B}fam\nily".to_owned();
    let tokenizer = fixture::tokenizer().unwrap().into();
    update(
        &mut state,
        Event::Loaded {
            card: card.into(),
            tokenizer,
        },
    );
    update(
        &mut state,
        Event::Loading {
            what: "\x07what".to_owned(),
            done: 1,
            total: None,
        },
    );
    update(
        &mut state,
        Message::Note(Level::Error, "bad \x1b[2J thing\nsecond\u{202E}".to_owned()),
    );
    for action in [Action::ShowError, Action::Back, Action::Samples] {
        update(&mut state, action);
        for cell in &draw(&state).content {
            assert!(
                !cell
                    .symbol()
                    .chars()
                    .any(|c| c.is_control() || c == '\u{202E}' || c == '\u{200B}')
            );
        }
    }
}

#[test]
fn messages_show_their_beginning_and_the_key_to_the_rest() {
    let mut state = running(80, 24);
    let long = "The file is damaged at byte 1234 and nothing can be read from it any more. Fetch it again.";
    update(&mut state, Message::Note(Level::Error, long.to_owned()));
    let shown = text(&draw(&state));
    let last = shown.lines().last().unwrap();
    assert!(last.contains("✗ The file is damaged"), "{last}");
    assert!(last.contains("E whole message"), "{last}");
    update(&mut state, Action::ShowError);
    assert!(text(&draw(&state)).contains("Fetch it again."));
}

#[test]
fn the_stream_shades_drawn_tokens_by_the_cell_that_predicted_them() {
    let state = running(120, 36);
    let buf = draw(&state);
    let room = state.derived.plan.inner(state.derived.plan.stream);
    let at = |token: usize| {
        let y = room.y + state.derived.flow.line_of(token) as u16;
        let x = room.x + 1 + state.derived.flow.column_of(token) as u16;
        &buf[(x, y)]
    };
    let token = 10;
    let value = state
        .grid()
        .unwrap()
        .predicted_by(token, state.metric)
        .unwrap();
    let step = state.derived.ranges.step(fixture::BLOCKS, value);
    assert_eq!(at(token).bg, state.theme.ramp.shade(step).bg);
    let prompt = at(2);
    assert_eq!(Some(prompt.bg), state.theme.base.bg);
    assert_eq!(Some(prompt.fg), state.theme.prompt.fg);
    assert_eq!(Some(at(state.cursor.position).bg), state.theme.cursor.bg);
}

#[test]
fn a_masked_model_shows_its_gaps_and_what_belongs_there() {
    for (width, height) in [(80, 24), (120, 36)] {
        let state = fixture::masked(width, height, Depth::True).unwrap();
        snapshot(&format!("masked_{width}x{height}"), text(&draw(&state)));
    }
    let mut state = fixture::masked(120, 36, Depth::True).unwrap();
    update(&mut state, fixture::masked_loaded().unwrap());
    state.prompt.set("");
    state.writing = true;
    state.settle();
    snapshot("masked_empty_120x36", text(&draw(&state)));
}

#[test]
fn a_masked_text_is_shaded_by_its_own_cells_and_its_gaps_stand_out() {
    let mut state = fixture::masked(120, 36, Depth::True).unwrap();
    update(&mut state, Action::First);
    let buf = draw(&state);
    let room = state.derived.plan.inner(state.derived.plan.stream);
    let at = |token: usize| {
        let flow = &state.derived.flow;
        // Past the space before the word, which belongs to it.
        let x = room.x + 2 + flow.column_of(token) as u16;
        &buf[(x, room.y + flow.line_of(token) as u16)]
    };
    let grid = state.grid().unwrap();
    for token in 1..fixture::MASKED.len() {
        let value = grid.value(fixture::BLOCKS, token, state.metric).unwrap();
        let step = state.derived.ranges.step(fixture::BLOCKS, value);
        assert_eq!(at(token).bg, state.theme.ramp.shade(step).bg, "{token}");
        let gap = at(token).modifier.contains(Modifier::REVERSED);
        assert_eq!(gap, fixture::GAPS.contains(&token), "{token}");
    }
    let mono = fixture::masked(120, 36, Depth::Mono).unwrap();
    let mut mono_first = mono.clone();
    update(&mut mono_first, Action::First);
    let buf = draw(&mono_first);
    let flow = &mono_first.derived.flow;
    let gap = fixture::GAPS[1];
    let x = room.x + 2 + flow.column_of(gap) as u16;
    let cell = &buf[(x, room.y + flow.line_of(gap) as u16)];
    assert!(cell.modifier.contains(Modifier::BOLD));
}

#[test]
fn attention_that_there_is_not_is_explained() {
    use crate::model::config::LayerKind::{Attention, Convolution, Hybrid, Skipped, StateSpace};
    let shown = |layers: Vec<crate::model::config::LayerKind>, layer: usize| {
        let mut state = running(120, 36);
        let mut card = fixture::card();
        card.layers = layers;
        if let Some(model) = &mut state.model {
            model.card = card.into();
        }
        state.cursor.layer = layer;
        state.settle();
        text(&draw(&state))
    };
    let none = vec![StateSpace; fixture::BLOCKS];
    for layer in [0, 1, fixture::BLOCKS] {
        let shown = shown(none.clone(), layer);
        assert!(
            shown.contains("n/a: this model has no attention"),
            "{shown}"
        );
    }
    let mut mixed = vec![Attention; fixture::BLOCKS];
    mixed[1] = Convolution;
    mixed[2] = Skipped;
    mixed[3] = StateSpace;
    mixed[4] = Hybrid;
    for (layer, says) in [
        (0, "n/a: layer 0 is the embedding"),
        (2, "n/a: layer 2 is a convolution"),
        (3, "n/a: layer 3 is a skipped cross-attention"),
        (4, "n/a: layer 4 is a state space"),
        (5, "nats · over heads"),
    ] {
        let shown = shown(mixed.clone(), layer);
        assert!(shown.contains(says), "{says}: {shown}");
    }
}

#[test]
fn matches_are_underlined() {
    let mut state = running(120, 36);
    update(&mut state, Action::First);
    state.search = "river".to_owned();
    state.settle();
    let buf = draw(&state);
    let marked: String = buf
        .content
        .iter()
        .filter(|c| c.modifier.contains(Modifier::UNDERLINED))
        .map(|c| c.symbol())
        .collect();
    assert_eq!(marked.trim(), "river");
}

#[test]
fn the_same_picture_comes_through_a_real_terminal() {
    let state = running(120, 36);
    let mut terminal = Terminal::new(TestBackend::new(120, 36)).unwrap();
    terminal.draw(|frame| super::render(frame, &state)).unwrap();
    assert_eq!(text(terminal.backend().buffer()), text(&draw(&state)));
}

/// Bytes and frames a second while `per_second` tokens stream into a 120×36 truecolor terminal under `budget`.
fn traffic(per_second: f64, budget: f64) -> (f64, f64) {
    let area = Rect::new(0, 0, 120, 36);
    let options = TerminalOptions {
        viewport: Viewport::Fixed(area),
    };
    let (out, count) = Counting::new(std::io::sink());
    let mut terminal = Terminal::with_options(LeanBackend::new(out), options).unwrap();
    let mut state = fixture::state(120, 36, Depth::True, fixture::PROMPT).unwrap();
    let mut governor = Governor::new(budget);
    let (mut now, mut tokens, mut bytes, mut frames) = (Duration::ZERO, fixture::PROMPT, 0, 0);
    let span = Duration::from_secs(5);
    while now < span {
        now += governor.wait(now).max(Duration::from_millis(1));
        let due = fixture::PROMPT + (now.as_secs_f64() * per_second) as usize;
        while tokens < due {
            for event in fixture::drawn(tokens) {
                update(&mut state, event);
            }
            tokens += 1;
        }
        state.settle();
        terminal.draw(|frame| super::render(frame, &state)).unwrap();
        let written = count.swap(0, Ordering::Relaxed);
        governor.drew(now, written);
        bytes += written;
        frames += 1;
    }
    let seconds = now.as_secs_f64();
    (bytes as f64 / seconds, f64::from(frames) / seconds)
}

#[test]
fn streaming_stays_within_the_byte_budget() {
    // Tokens a second, and the frames a second that must be left in the two budgets.
    for (per_second, least, least_low) in [(30.0, 28.0, 8.0), (200.0, 14.0, 4.0)] {
        let (rate, fps) = traffic(per_second, BUDGET);
        assert!(rate <= 200_000.0, "{per_second} tok/s: {rate:.0} B/s");
        assert!(
            fps >= least,
            "{per_second} tok/s: {fps:.1} fps at {rate:.0} B/s"
        );
        assert!(fps <= 1.0 / FRAME.as_secs_f64() + 0.5, "{fps:.1}");
        let (rate, fps) = traffic(per_second, LOW_BUDGET);
        assert!(rate <= 60_000.0, "{per_second} tok/s: {rate:.0} B/s");
        assert!(
            fps >= least_low,
            "{per_second} tok/s: {fps:.1} fps at {rate:.0} B/s"
        );
    }
}

#[test]
fn every_metric_range_and_phase_can_be_drawn_at_every_size() {
    for (width, height) in SIZES {
        let mut state = running(width, height);
        for metric in 0..state.columns().len() {
            state.metric = crate::trace::Metric(metric);
            for range in [RangeMode::Map, RangeMode::Row, RangeMode::Fixed] {
                state.map.range = range;
                state.settle();
                draw(&state);
            }
        }
        for phase in [
            Phase::NoModel,
            Phase::Ready,
            Phase::Reading,
            Phase::Paused,
            Phase::Failed,
        ] {
            state.phase = phase;
            state.settle();
            draw(&state);
        }
    }
}
