//! The little arithmetic and the names of the layout; whole folders are held against plain ones by the suite.

use super::tables::{list, percent_change};
use super::*;
use crate::trace::Compared;
use std::time::{Duration, UNIX_EPOCH};

#[test]
fn a_change_from_nothing_is_none_in_percent() {
    let percent = |a, b| percent_change(Compared::new(a, b));
    assert_eq!(percent(Some(4.0), Some(5.0)), Some(25.0));
    assert_eq!(percent(Some(-4.0), Some(-5.0)), Some(25.0));
    assert_eq!(percent(Some(0.0), Some(5.0)), Some(0.0));
    assert_eq!(percent(Some(-0.0), Some(5.0)), Some(0.0));
    assert_eq!(percent(Some(0.0), None), None);
    assert_eq!(percent(None, Some(1.0)), None);
    assert_eq!(percent(Some(f32::NAN), Some(1.0)), None);
}

#[test]
fn lists_are_json() {
    let values = [
        Some(1.5),
        None,
        Some(f32::NAN),
        Some(-2.0),
        Some(1e-9),
        Some(0.1),
    ];
    let text = list(values.into_iter());
    assert_eq!(text, "[1.5,null,null,-2,1e-9,0.1]");
    let back: Vec<Option<f32>> = serde_json::from_str(&text).unwrap();
    assert_eq!(
        back,
        [Some(1.5), None, None, Some(-2.0), Some(1e-9), Some(0.1)]
    );
    assert_eq!(list(std::iter::empty()), "[]");
}

#[test]
fn names_of_files_are_harmless() {
    assert_eq!(file_label("gpt2"), "gpt2");
    assert_eq!(file_label("google-bert/bert-base"), "google-bert_bert-base");
    assert_eq!(file_label("../../etc/passwd"), "_.._etc_passwd");
    assert_eq!(file_label("a b\u{1b}\n:*"), "a_b____");
    assert_eq!(file_label("..."), "model");
    assert_eq!(file_label(""), "model");
    assert_eq!(file_label(&"x".repeat(500)).len(), 64);
}

#[test]
fn folders_are_named_by_their_moment() {
    // 2001-09-09 01:46:40 UTC.
    let moment = UNIX_EPOCH + Duration::from_millis(1_000_000_000_999);
    assert_eq!(stamp(moment), "20010909_014640");
}
