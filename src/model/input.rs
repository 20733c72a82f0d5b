//! The rows that products are made of, laid out for them.

use super::kernel::Set;
use super::lanes;
use super::panels::{self, Line};
use rayon::prelude::*;
use std::cell::Cell;

/// From so many rows on, a copy of them is worth its while.
const MANY: usize = 12;
/// Copies larger than this many cache lines are made on all cores.
const SERIAL: usize = 1 << 12;

thread_local! {
    /// Room for the next copy: fresh memory would be cleared for each.
    static SPARE: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Rows that are multiplied with matrices.
pub(crate) struct Input<'a> {
    /// `[rows][columns]`.
    pub(super) x: &'a [f32],
    pub(super) columns: usize,
    lines: usize,
    room: Vec<Line>,
}

impl<'a> Input<'a> {
    /// `rows` rows of `columns` numbers.
    pub(crate) fn new(x: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::of(Set::found(), x, rows, columns)
    }

    /// For the instructions of `set`.
    pub(super) fn of(set: Set, x: &'a [f32], rows: usize, columns: usize) -> Self {
        let mut input = Self {
            x,
            columns,
            lines: 0,
            room: Vec::new(),
        };
        if rows < MANY {
            return input;
        }
        input.room = SPARE.take();
        let steps = panels::steps(columns);
        input.lines = rows * steps;
        if input.room.len() < input.lines {
            input.room.resize(input.lines, Line::ZERO);
        }
        let groups = rows.div_ceil(set.many());
        let mut parts = Vec::with_capacity(groups);
        let mut rest = &mut input.room[..input.lines];
        for i in 0..groups {
            let (from, to) = panels::group(i, groups, rows);
            let (part, after) = rest.split_at_mut((to - from) * steps);
            rest = after;
            parts.push((&x[from * columns..to * columns], to - from, part));
        }
        if input.lines < SERIAL {
            for (x, width, out) in parts {
                pack(set, x, columns, width, out);
            }
        } else {
            parts
                .into_par_iter()
                .for_each(|(x, width, out)| pack(set, x, columns, width, out));
        }
        input
    }

    /// The copy in groups, where there is one.
    pub(super) fn packed(&self) -> Option<&[Line]> {
        (self.lines > 0).then(|| &self.room[..self.lines])
    }
}

impl Drop for Input<'_> {
    fn drop(&mut self) {
        if self.lines > 0 {
            SPARE.set(std::mem::take(&mut self.room));
        }
    }
}

fn pack(set: Set, x: &[f32], columns: usize, width: usize, out: &mut [Line]) {
    // SAFETY: a set is only named where its instructions were found.
    #[allow(unsafe_code)]
    unsafe {
        match set {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => pack_avx512(x, columns, width, out),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => pack_avx2(x, columns, width, out),
            #[cfg(target_arch = "aarch64")]
            Set::Neon => panels::pack::<lanes::arm::Neon>(x, columns, width, out),
            #[cfg(not(target_arch = "aarch64"))]
            Set::Plain => panels::pack::<lanes::Plain>(x, columns, width, out),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
fn pack_avx512(x: &[f32], columns: usize, width: usize, out: &mut [Line]) {
    // SAFETY: the features are those of this function.
    #[allow(unsafe_code)]
    unsafe {
        panels::pack::<lanes::x86::Avx512>(x, columns, width, out)
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn pack_avx2(x: &[f32], columns: usize, width: usize, out: &mut [Line]) {
    // SAFETY: the features are those of this function.
    #[allow(unsafe_code)]
    unsafe {
        panels::pack::<lanes::x86::Avx2>(x, columns, width, out)
    }
}
