//! The head of many states and the reduction of their logits in one pass over the vocabulary.
//!
//! A thread takes successive blocks of the vocabulary one after the other: it multiplies a block of the head with all rows at
//! hand and reduces the logits while they lie in the cache. The weights are read once, and no row of logits is ever whole,
//! but for those that are asked to be kept.

use super::distribution::{self, Floors, Part, Plan, Room, Row};
use crate::model::crew;
use crate::model::head::Last;
use crate::model::input::Input;
use crate::model::reduce::BLOCK;
use std::ops::Range;
use std::sync::Mutex;

/// Rows that are read together at most: enough that reading the head from memory takes little beside the products, and so
/// few that they and a block of their logits nearly stay in the second-level cache.
const ROWS: usize = 480;

/// Where logits come from.
pub(super) enum Source<'a> {
    /// The head's big matrix and its inputs `[rows][width]`.
    Head(&'a Last<'a>, &'a [f32]),
    /// Logits that are there, `[rows][vocab]`.
    Logits(&'a [f32], usize),
}

impl Source<'_> {
    pub(super) fn vocab(&self) -> usize {
        match self {
            Self::Head(last, _) => last.vocab,
            Self::Logits(_, vocab) => *vocab,
        }
    }

    /// `count` rows from `first` on.
    fn rows(&self, first: usize, count: usize) -> Rows<'_> {
        match self {
            Self::Head(last, x) => Rows::Head(last, last.input(&x[first * last.width()..], count)),
            Self::Logits(z, vocab) => Rows::Logits(&z[first * vocab..], *vocab),
        }
    }
}

/// Some rows of a source, as they are read.
enum Rows<'a> {
    Head(&'a Last<'a>, Input<'a>),
    Logits(&'a [f32], usize),
}

impl Rows<'_> {
    /// Say that they are about to be read.
    fn foresee(&self) {
        if let Self::Head(last, _) = self {
            last.foresee();
        }
    }

    /// The logits `first..` of the rows, as many as each of `out` is long.
    fn read(&self, first: usize, out: &mut [&mut [f32]]) {
        match self {
            Self::Head(last, x) => last.logits(x, first, out),
            Self::Logits(z, vocab) => {
                for (z, out) in z.chunks(*vocab).zip(out) {
                    out.copy_from_slice(&z[first..first + out.len()]);
                }
            }
        }
    }
}

/// The rows of `source`, reduced, `[tokens][states]`; and of each the logit of its token's target, where there is one.
///
/// `keep` is `[rows][vocab]` and receives all logits, or is empty.
pub(super) fn read(
    source: &Source<'_>,
    tokens: usize,
    states: usize,
    targets: &[Option<u32>],
    plan: &Plan,
    keep: &mut [f32],
) -> Vec<(Row, Option<f32>)> {
    let at_once = at_once(tokens, states, plan.group());
    let mut keep = keep.chunks_mut((at_once * states * source.vocab()).max(1));
    let mut rows = Vec::with_capacity(tokens * states);
    for first in (0..tokens).step_by(at_once) {
        let count = at_once.min(tokens - first);
        let keep = keep.next().unwrap_or_default();
        let targets: Vec<Option<u32>> = (0..count)
            .flat_map(|i| {
                let target = targets.get(first + i).copied().flatten();
                std::iter::repeat_n(target, states)
            })
            .collect();
        rows.extend(group(source, first * states, states, &targets, plan, keep));
    }
    rows
}

/// How many tokens are read together: all times about as many, so that none are too few to be worth reading the head; what
/// belongs together stays so.
pub(super) fn at_once(tokens: usize, states: usize, group: usize) -> usize {
    let groups = tokens.div_ceil(group).max(1);
    let most = (ROWS / (states * group).max(1)).max(1);
    groups.div_ceil(groups.div_ceil(most)) * group
}

/// The same for rows that are read together.
fn group(
    source: &Source<'_>,
    first: usize,
    states: usize,
    targets: &[Option<u32>],
    plan: &Plan,
    keep: &mut [f32],
) -> Vec<(Row, Option<f32>)> {
    let (rows, vocab) = (targets.len(), source.vocab());
    // All rows of a token want the same one.
    let wanted: Vec<Vec<Option<f32>>> = crew::map(rows / states, |token| {
        let Some(id) = targets[token * states].filter(|id| (*id as usize) < vocab) else {
            return vec![None; states];
        };
        let mut z = vec![0.0; states];
        let mut out: Vec<&mut [f32]> = z.chunks_mut(1).collect();
        source
            .rows(first + token * states, states)
            .read(id as usize, &mut out);
        z.into_iter().map(Some).collect()
    });
    let wanted = wanted.concat();
    let input = source.rows(first, rows);
    input.foresee();
    let blocks = vocab.div_ceil(BLOCK);
    let floors = Floors::new(rows);
    let parts = Mutex::new(Vec::new());
    let read = |of: Range<usize>, kept: &mut [&mut [f32]]| {
        let mut part = Part::new(of.start, rows);
        let mut room = Room::new();
        let mut tile = match kept.is_empty() {
            true => vec![0.0; rows * BLOCK],
            false => Vec::new(),
        };
        for block in of.clone() {
            let (from, to) = (block * BLOCK, vocab.min((block + 1) * BLOCK));
            let within = from - of.start * BLOCK;
            let mut z: Vec<&mut [f32]> = match kept.is_empty() {
                true => tile
                    .chunks_mut(BLOCK)
                    .map(|row| &mut row[..to - from])
                    .collect(),
                false => kept
                    .iter_mut()
                    .map(|row| &mut row[within..within + to - from])
                    .collect(),
            };
            input.read(from, &mut z);
            part.take(&z, states, &wanted, plan, &floors, &mut room);
        }
        if let Ok(mut parts) = parts.lock() {
            parts.push((of.start, part));
        }
    };
    match keep.is_empty() {
        true => crew::ranges(blocks, |of| read(of, &mut [])),
        false => crew::strips(&mut [keep], rows, BLOCK, |_, first, kept| {
            let to = kept.first().map_or(first, |row| first + row.len());
            read(first / BLOCK..to.div_ceil(BLOCK), kept);
        }),
    }
    let mut parts = parts.into_inner().unwrap_or_default();
    parts.sort_unstable_by_key(|(first, _)| *first);
    let parts: Vec<Part> = parts.into_iter().map(|(_, part)| part).collect();
    crew::map(rows, |row| {
        (distribution::merge(&parts, row, states, plan), wanted[row])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_are_read_together_are_not_parted_again() {
        for tokens in [1usize, 2, 7, 80, 200, 1000] {
            for states in [1, 13, 33, 500] {
                for group in [1, 2, 5, 25]
                    .into_iter()
                    .filter(|g: &usize| tokens.is_multiple_of(*g))
                {
                    let some = at_once(tokens, states, group);
                    assert!(some > 0 && some.is_multiple_of(group));
                    assert!(some * states <= ROWS || some == group);
                    let rest = tokens % some;
                    for part in [some, rest]
                        .into_iter()
                        .filter(|n| (1..=tokens).contains(n))
                    {
                        assert_eq!(at_once(part, states, group), part);
                    }
                }
            }
        }
    }
}
