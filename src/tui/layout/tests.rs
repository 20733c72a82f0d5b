//! Sizes choose the rooms, and no two lie over each other.

use super::*;

fn wants() -> Wants {
    Wants {
        states: 13,
        cell_height: 1,
        prompt_lines: 1,
        candidates: 5,
        room: Room::Map,
        comparing: None,
        one_to_one: true,
        sets: None,
    }
}

#[test]
fn sizes_choose_the_mode() {
    let mode = |w, h| Plan::new(Rect::new(0, 0, w, h), wants()).mode;
    assert_eq!(mode(59, 40), Mode::TooSmall);
    assert_eq!(mode(80, 15), Mode::TooSmall);
    assert_eq!(mode(60, 16), Mode::Tabs);
    assert_eq!(mode(80, 24), Mode::Folded);
    assert_eq!(mode(120, 36), Mode::Full);
    assert_eq!(mode(200, 60), Mode::Full);
}

#[test]
fn rooms_stay_inside_and_share_only_borders_at_every_size() {
    for w in (60..=220).step_by(7) {
        for h in 16..=70 {
            for (states, comparing) in [2, 13, 29, 81].into_iter().flat_map(|states| {
                let lower = [Lower::Layers, Lower::Cell, Lower::Difference].map(Some);
                lower
                    .into_iter()
                    .chain([None])
                    .map(move |lower| (states, lower))
            }) {
                let alike = |cells| [(cells, true), (cells, false)];
                for (cell_height, one_to_one) in (0..3).flat_map(alike) {
                    let area = Rect::new(0, 0, w, h);
                    let wants = Wants {
                        states,
                        cell_height,
                        comparing,
                        one_to_one,
                        prompt_lines: 1 + h % 6,
                        ..wants()
                    };
                    let plan = Plan::new(area, wants);
                    let rooms = [
                        plan.stream,
                        plan.map,
                        plan.cell,
                        plan.profile,
                        plan.attention,
                        plan.beside_stream,
                        plan.beside_map,
                        plan.difference,
                        plan.summary,
                        plan.prompt,
                    ];
                    for (i, a) in rooms.iter().enumerate() {
                        assert_eq!(a.intersection(area), *a, "{w}x{h}");
                        for b in &rooms[i + 1..] {
                            let shared = plan.inner(*a).intersection(plan.inner(*b));
                            assert!(shared.is_empty(), "{w}x{h}: {a:?} {b:?}");
                        }
                    }
                    assert!(one_to_one || plan.difference.is_empty());
                    if plan.mode != Mode::Tabs {
                        let map = [plan.map, plan.difference];
                        let map = map.into_iter().find(|map| !map.is_empty()).unwrap();
                        assert!(plan.inner(map).height >= 4, "{w}x{h} {plan:?}");
                        assert_eq!(comparing.is_some(), !plan.beside_stream.is_empty());
                        assert!(plan.inner(plan.stream).height >= 2, "{w}x{h} {plan:?}");
                    }
                }
            }
        }
    }
}
#[test]
fn what_has_no_map_of_differences_gives_its_place_to_the_other_rooms() {
    let plan = |one_to_one| {
        let wants = Wants {
            comparing: Some(Lower::Layers),
            one_to_one,
            ..wants()
        };
        Plan::new(Rect::new(0, 0, 120, 36), wants)
    };
    let (alike, other) = (plan(true), plan(false));
    assert!(!alike.difference.is_empty() && other.difference.is_empty());
    assert!(other.map.height > alike.map.height);
    assert!(other.summary.height > alike.summary.height);
}
