//! The rows that products are made of, laid out for them.

use super::crew;
use super::kernel::Set;
use super::panels;
use std::cell::Cell;
use std::ops::Range;

/// Copies of more numbers than this are made on all cores.
const SERIAL: usize = 1 << 16;

thread_local! {
    /// Room for the next copy: fresh memory would be cleared for each.
    static SPARE: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Rows that are multiplied with matrices.
pub(crate) struct Input<'a> {
    /// `[rows][columns]`.
    pub(super) x: &'a [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// How many groups of rows there are.
    pub(super) groups: usize,
    /// The groups one after the other, each `[column][row of the group]`; nothing where there is but one row.
    room: Vec<f32>,
}

impl<'a> Input<'a> {
    /// `rows` rows of `columns` numbers.
    pub(crate) fn new(x: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::of(Set::found(), x, rows, columns)
    }

    /// For the instructions of `set`.
    pub(super) fn of(set: Set, x: &'a [f32], rows: usize, columns: usize) -> Self {
        let mut input = Self::as_is(x, rows, columns);
        input.groups = set.groups(rows);
        let x = input.x;
        if rows < 2 || columns == 0 {
            return input;
        }
        let mut room = SPARE.take();
        if room.len() < x.len() {
            room.resize(x.len(), 0.0);
        }
        let mut parts = Vec::with_capacity(input.groups);
        let mut rest = room.as_mut_slice();
        for i in 0..input.groups {
            let rows = input.group(i);
            let (part, after) = rest.split_at_mut(rows.len() * columns);
            rest = after;
            parts.push((rows, part));
        }
        let lay = |(rows, out): &mut (Range<usize>, &mut [f32])| {
            let (from, to) = (rows.start * columns, rows.end * columns);
            panels::turn(&x[from..to], columns, rows.len(), out);
        };
        match x.len() < SERIAL {
            true => parts.iter_mut().for_each(lay),
            false => crew::each(&mut parts, |_, part| lay(part)),
        }
        input.room = room;
        input
    }

    /// As it lies, for matrices that are read row by row.
    pub(super) fn as_is(x: &'a [f32], rows: usize, columns: usize) -> Self {
        Self {
            x: &x[..rows * columns],
            rows,
            columns,
            groups: 0,
            room: Vec::new(),
        }
    }

    /// Rows of group `i`: all of about the same size, none larger than what is multiplied at once.
    fn group(&self, i: usize) -> Range<usize> {
        i * self.rows / self.groups..(i + 1) * self.rows / self.groups
    }

    /// The groups, `[column][row of the group]`, with the rows they are of.
    pub(super) fn groups(&self) -> impl Iterator<Item = (*const f32, Range<usize>)> {
        let laid_out: &[f32] = match self.room.is_empty() {
            true => self.x,
            false => &self.room,
        };
        (0..self.groups).map(move |i| {
            let rows = self.group(i);
            (laid_out[rows.start * self.columns..].as_ptr(), rows)
        })
    }
}

impl Drop for Input<'_> {
    fn drop(&mut self) {
        if !self.room.is_empty() {
            SPARE.set(std::mem::take(&mut self.room));
        }
    }
}
