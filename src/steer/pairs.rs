//! Contrast pairs: two texts that differ in what a control vector shall stand for.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Most pairs.
const MAX_PAIRS: usize = 1 << 16;

/// Two texts; the vector points from the negative to the positive one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// What there shall be more of.
    pub positive: String,
    /// Its opposite.
    pub negative: String,
}

/// One pair a line: `{"positive": "…", "negative": "…"}`. Empty lines, and lines that begin with `#`, are passed over.
/// `path` stands for the text in messages.
///
/// # Errors
/// If a line is something else, or there is none.
pub fn parse_jsonl(text: &str, path: &Path) -> Result<Vec<Pair>> {
    let lines = text.lines().enumerate();
    let meant = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let pairs = meant.map(|(i, line)| {
        serde_json::from_str(line).map_err(|e| {
            let problem = crate::text::one_line(&e.to_string());
            Error::file(
                path,
                format!("line {} is no contrast pair: {problem}", i + 1),
                "Write {\"positive\": \"…\", \"negative\": \"…\"} on each line.",
            )
        })
    });
    checked(pairs.take(MAX_PAIRS + 1).collect::<Result<_>>()?)
}

/// The lines of two texts, first with first, as llama.cpp's cvector-generator has them; `\n` in a line is a line break.
///
/// # Errors
/// If they have different numbers of lines, or none.
pub fn from_lines(positive: &str, negative: &str) -> Result<Vec<Pair>> {
    let lines = |text: &str| -> Vec<String> {
        let full = text.lines().filter(|line| !line.is_empty());
        full.map(unescaped).collect()
    };
    let (positive, negative) = (lines(positive), lines(negative));
    if positive.len() != negative.len() {
        return Err(Error::Usage(format!(
            "{} positive lines and {} negative ones make no pairs: each line needs its opposite",
            positive.len(),
            negative.len()
        )));
    }
    let pairs = positive.into_iter().zip(negative);
    checked(
        pairs
            .map(|(positive, negative)| Pair { positive, negative })
            .collect(),
    )
}

/// repeng's way: every suffix after the template with a word of each side in place of `{}` (`{persona}` is read too). The
/// words go in pairs, first with first. Without suffixes the template alone is the text.
///
/// # Errors
/// If the template has no place for the word, or the sides differ in number.
pub fn from_template(
    template: &str,
    positive: &[String],
    negative: &[String],
    suffixes: &[String],
) -> Result<Vec<Pair>> {
    let template = template.replace("{persona}", "{}");
    if !template.contains("{}") {
        return Err(Error::Usage(
            "the template has no {} where the word goes".into(),
        ));
    }
    if positive.len() != negative.len() {
        return Err(Error::Usage(format!(
            "{} positive words and {} negative ones make no pairs",
            positive.len(),
            negative.len()
        )));
    }
    let alone = [String::new()];
    let suffixes = if suffixes.is_empty() {
        &alone
    } else {
        suffixes
    };
    let fill = |word: &str, suffix: &str| {
        let text = template.replace("{}", word);
        match suffix.is_empty() {
            true => text,
            false => format!("{text} {suffix}"),
        }
    };
    let words = || positive.iter().zip(negative);
    let pairs = suffixes.iter().flat_map(|suffix| {
        words().map(|(positive, negative)| Pair {
            positive: fill(positive, suffix),
            negative: fill(negative, suffix),
        })
    });
    checked(pairs.take(MAX_PAIRS + 1).collect())
}

fn checked(pairs: Vec<Pair>) -> Result<Vec<Pair>> {
    match pairs.len() {
        0 => Err(Error::Usage("there are no contrast pairs".into())),
        n if n > MAX_PAIRS => Err(Error::Usage(format!(
            "there are more than {MAX_PAIRS} contrast pairs: take a part of them"
        ))),
        _ => Ok(pairs),
    }
}

fn unescaped(line: &str) -> String {
    line.replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(positive: &str, negative: &str) -> Pair {
        Pair {
            positive: positive.into(),
            negative: negative.into(),
        }
    }

    #[test]
    fn the_three_ways_to_write_pairs() {
        let text = "# comment\n{\"positive\":\"a\",\"negative\":\"b\"}\n\n";
        assert_eq!(parse_jsonl(text, Path::new("x")).unwrap(), [pair("a", "b")]);
        let problem = parse_jsonl("{\"positive\":\"a\"}", Path::new("x")).unwrap_err();
        assert!(problem.to_string().contains("line 1"), "{problem}");
        assert!(parse_jsonl("#\n", Path::new("x")).is_err());

        assert_eq!(
            from_lines("a\\nb\nc\n", "d\n\ne\n").unwrap(),
            [pair("a\nb", "d"), pair("c", "e")]
        );
        assert!(from_lines("a\n", "b\nc").is_err());

        let words = |of: &[&str]| of.iter().map(ToString::to_string).collect::<Vec<_>>();
        let pairs = from_template(
            "Be {persona}.",
            &words(&["happy", "glad"]),
            &words(&["sad", "low"]),
            &words(&["I", "You see"]),
        );
        assert_eq!(
            pairs.unwrap(),
            [
                pair("Be happy. I", "Be sad. I"),
                pair("Be glad. I", "Be low. I"),
                pair("Be happy. You see", "Be sad. You see"),
                pair("Be glad. You see", "Be low. You see"),
            ]
        );
        let alone = from_template("He is {}", &words(&["glad"]), &words(&["sad"]), &[]);
        assert_eq!(alone.unwrap(), [pair("He is glad", "He is sad")]);
        assert!(from_template("none", &words(&["a"]), &words(&["b"]), &[]).is_err());
        assert!(from_template("{}", &words(&["a"]), &[], &[]).is_err());
    }
}
