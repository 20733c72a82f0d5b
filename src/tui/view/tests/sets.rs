//! Two sets of prompts at every size.

use super::*;
use crate::tui::layout::SetPane;

const ALL: usize = fixture::SETS[0] + fixture::SETS[1];

fn sets(width: u16, height: u16, depth: Depth, count: usize) -> State {
    fixture::sets(width, height, depth, count).unwrap()
}

#[test]
fn two_sets_at_every_size_in_every_theme() {
    for (width, height) in SIZES {
        let mut state = sets(width, height, Depth::True, ALL);
        let shown = text(&draw(&state));
        for theme in 1..3 {
            state.wear(theme);
            assert_eq!(text(&draw(&state)), shown, "themes change colours only");
        }
        snapshot(&format!("sets_{width}x{height}"), shown);
    }
    let mut state = sets(80, 24, Depth::True, ALL);
    update(&mut state, Action::TurnLower);
    snapshot("sets_80x24_statement", text(&draw(&state)));
    let mut state = sets(60, 16, Depth::True, ALL);
    for name in ["quadrants", "auroc", "statement"] {
        update(&mut state, Action::TurnLower);
        snapshot(&format!("sets_60x16_{name}"), text(&draw(&state)));
    }
}

#[test]
fn two_sets_while_they_are_read() {
    snapshot("sets_before", text(&draw(&sets(120, 36, Depth::True, 0))));
    let shown = text(&draw(&sets(120, 36, Depth::True, 17)));
    let title = shown.lines().next().unwrap();
    assert!(title.ends_with("▶ reading  17/54"), "{title}");
    assert!(shown.contains("What this shows · so far"), "{shown}");
}

#[test]
fn two_sets_are_told_apart_without_colour() {
    let buf = draw(&sets(120, 36, Depth::Mono, ALL));
    for cell in buf.content() {
        assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset));
    }
    snapshot("sets_mono", text(&buf));
}

#[test]
fn marks_have_the_colours_of_their_sets() {
    let state = sets(120, 36, Depth::True, ALL);
    let buf = draw(&state);
    let room = state.derived.plan.inner(state.derived.plan.sets.quadrant);
    // Between the counts and the axis only marks are letters.
    let marks = (room.y + 1..room.bottom() - 3)
        .flat_map(|y| (room.x + 8..room.right() - 1).map(move |x| (x, y)))
        .filter(|at| ["o", "O", "x", "X", "*"].contains(&buf[*at].symbol()));
    let mut seen = [0; 2];
    for at in marks {
        let (set, role) = match buf[at].symbol() {
            "o" | "O" => (0, state.theme.bar),
            "x" | "X" => (1, state.theme.null),
            _ => continue,
        };
        assert_eq!(Some(buf[at].fg), role.fg);
        seen[set] += 1;
    }
    assert!(seen[0] > 5 && seen[1] > 5, "{seen:?}");
}

#[test]
fn every_metric_layer_and_pane_can_be_drawn_at_every_size() {
    for (width, height) in [
        (60, 16),
        (80, 24),
        (79, 70),
        (104, 28),
        (120, 36),
        (200, 60),
    ] {
        for count in [0, 1, 2, ALL] {
            let mut state = sets(width, height, Depth::True, count);
            for metric in 0..state.columns().len() {
                state.metric = crate::trace::Metric(metric);
                state.pane = SetPane::ALL[metric % 4];
                state.cursor.layer = metric % state.states();
                state.settle();
                draw(&state);
            }
        }
    }
}

#[test]
fn hostile_names_of_files_stay_in_their_line() {
    let mut state = sets(120, 36, Depth::True, ALL);
    let sets = state.sets.as_mut().unwrap();
    sets.label = "x".repeat(300);
    sets.origins[0] = "y".repeat(300);
    let plan = &state.derived.plan;
    let (split, y) = (plan.sets.quadrant.x, plan.sets.profiles.y);
    let buf = draw(&state);
    assert_eq!(buf[(split, y)].symbol(), "┬");
    assert_eq!(buf[(plan.sets.statement.right() - 1, y + 20)].symbol(), "│");
}
