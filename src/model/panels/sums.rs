//! The sums of a panel with a group of input rows.
#![allow(unsafe_code)]

use super::super::input::Input;
use super::super::lanes::Lanes;
use super::{Numbers, Panels, SCALED, SCALED_BYTES, WIDTH, unpack};
use half::{bf16, f16};
use std::ops::Range;

/// Columns that are summed before they are added to those before. With c of them the rounding errors of n columns grow like
/// √(nc/2) + n/√(2c) instead of n/√2, and adding them takes 1/c of the time.
pub(crate) const TOGETHER: usize = 64;
/// Numbers in a [`Lanes`].
pub(super) const LANES: usize = 16;
/// Bytes of panels that are kept in the second-level cache while all input rows pass by: so few that those to come and the
/// rows find room there too.
const CACHED: usize = 1 << 18;
/// Bytes ahead of which memory is asked for, into the second-level cache and into the first.
pub(super) const FAR: usize = 1 << 15;
pub(super) const NEAR: usize = 1 << 12;
/// From so many input rows on, theirs are asked for too, so many columns ahead.
const FEW: usize = 4;
const SOON: usize = 16;
/// Bytes of a cache line.
pub(super) const LINE: usize = 64;

/// Numbers of a panel, column after column.
///
/// # Safety
/// What is said to be read is all that is read.
pub(in crate::model) unsafe trait Columns: Copy {
    /// Columns between which nothing but [`Self::next`] is needed.
    const RUN: usize;

    /// What comes before the next [`Self::RUN`] columns. `AHEAD` asks for what comes later.
    ///
    /// # Safety
    /// The processor must have the instructions of `L`, and there must be such columns; so below.
    unsafe fn begin<L: Lanes, const P: usize, const AHEAD: bool>(&mut self) -> [L; P];

    /// The next column's `P` times 16 numbers, given what came before it.
    ///
    /// # Safety
    /// As above.
    unsafe fn next<L: Lanes, const P: usize, const AHEAD: bool>(
        &mut self,
        begun: &[L; P],
    ) -> [L; P];
}

/// A panel in pieces of [`TOGETHER`] columns, the last of which may have fewer.
///
/// # Safety
/// As for [`Columns`].
pub(in crate::model) unsafe trait Pieces: Copy {
    /// The sums of the next piece, of so many columns, with a group of `C` input rows; `x` is left after them.
    ///
    /// # Safety
    /// As for [`sums`].
    unsafe fn sums<L: Lanes, const P: usize, const C: usize, const AHEAD: bool>(
        &mut self,
        x: &mut *const f32,
        columns: usize,
    ) -> [[L; P]; C];
}

// SAFETY: reads what it says of the columns.
unsafe impl<W: Columns> Pieces for W {
    #[inline(always)]
    unsafe fn sums<L: Lanes, const P: usize, const C: usize, const AHEAD: bool>(
        &mut self,
        x: &mut *const f32,
        columns: usize,
    ) -> [[L; P]; C] {
        // SAFETY: the caller's.
        unsafe {
            let mut sums = [[L::zero(); P]; C];
            let mut left = columns;
            while left > 0 {
                let run = left.min(W::RUN);
                left -= run;
                let begun = self.begin::<L, P, AHEAD>();
                for _ in 0..run {
                    if C > FEW {
                        L::prefetch_near(x.wrapping_add(SOON * C).cast());
                    }
                    let ws = self.next::<L, P, AHEAD>(&begun);
                    for (c, sums) in sums.iter_mut().enumerate() {
                        let x = L::splat(x.add(c));
                        for (sum, w) in sums.iter_mut().zip(&ws) {
                            *sum = sum.add_product(*w, x);
                        }
                    }
                    *x = x.add(C);
                }
            }
            sums
        }
    }
}

/// A type that panels are made of as it is.
///
/// # Safety
/// `load` reads 16 numbers.
pub(in crate::model) unsafe trait Float: Copy {
    /// The 16 numbers at `from`.
    ///
    /// # Safety
    /// The processor must have the instructions of `L`.
    unsafe fn load<L: Lanes>(from: *const Self) -> L;
}

// SAFETY: as the methods of `L` promise, so below.
unsafe impl Float for f32 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L {
        // SAFETY: the caller's, so below.
        unsafe { L::load(from) }
    }
}

// SAFETY: as above.
unsafe impl Float for f16 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L {
        // SAFETY: as above.
        unsafe { L::load_f16(from) }
    }
}

// SAFETY: as above.
unsafe impl Float for bf16 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L {
        // SAFETY: as above.
        unsafe { L::load_bf16(from) }
    }
}

/// Floats from here on; the first of them may be the second half of a column.
#[derive(Clone, Copy)]
pub(in crate::model) struct Floats<T>(*const T);

impl<T> Floats<T> {
    /// From `at` on.
    pub(super) fn at(at: *const T) -> Self {
        Self(at)
    }
}

// SAFETY: `next` reads the numbers of its column alone.
unsafe impl<T: Float> Columns for Floats<T> {
    const RUN: usize = TOGETHER;

    #[inline(always)]
    unsafe fn begin<L: Lanes, const P: usize, const AHEAD: bool>(&mut self) -> [L; P] {
        // SAFETY: the caller's.
        [unsafe { L::zero() }; P]
    }

    #[inline(always)]
    unsafe fn next<L: Lanes, const P: usize, const AHEAD: bool>(&mut self, _: &[L; P]) -> [L; P] {
        // SAFETY: the caller's.
        unsafe {
            let at: *const u8 = self.0.cast();
            for line in 0..(WIDTH * size_of::<T>() / LINE) {
                if AHEAD {
                    L::prefetch_far(at.wrapping_add(FAR + line * LINE));
                }
                L::prefetch_near(at.wrapping_add(NEAR + line * LINE));
            }
            let mut out = [L::zero(); P];
            for (p, out) in out.iter_mut().enumerate() {
                *out = T::load(self.0.add(p * LANES));
            }
            self.0 = self.0.wrapping_add(WIDTH);
            out
        }
    }
}

/// Whole numbers of eight bits with scales.
#[derive(Clone, Copy)]
pub(in crate::model) struct Scaled {
    scales: *const f16,
    numbers: *const i8,
    /// 1 for the second half of each column.
    half: usize,
}

// SAFETY: `begin` reads the scales of its columns and `next` the numbers of its own.
unsafe impl Columns for Scaled {
    const RUN: usize = SCALED;

    #[inline(always)]
    unsafe fn begin<L: Lanes, const P: usize, const AHEAD: bool>(&mut self) -> [L; P] {
        // SAFETY: the caller's.
        unsafe {
            let at: *const u8 = self.scales.cast();
            for line in 0..SCALED_BYTES.div_ceil(LINE) {
                if AHEAD {
                    L::prefetch_far(at.wrapping_add(FAR + line * LINE));
                }
                L::prefetch_near(at.wrapping_add(NEAR + line * LINE));
            }
            let mut out = [L::zero(); P];
            for (p, out) in out.iter_mut().enumerate() {
                *out = L::load_f16(self.scales.add(p * LANES));
            }
            // Scales are two bytes each, numbers one.
            self.numbers = at.add(2 * WIDTH - self.half * LANES).cast();
            self.scales = at.wrapping_add(SCALED_BYTES).cast();
            out
        }
    }

    #[inline(always)]
    unsafe fn next<L: Lanes, const P: usize, const AHEAD: bool>(
        &mut self,
        scales: &[L; P],
    ) -> [L; P] {
        // SAFETY: the caller's.
        unsafe {
            let mut out = *scales;
            for (p, out) in out.iter_mut().enumerate() {
                *out = out.mul(L::load_i8(self.numbers.add(p * LANES)));
            }
            self.numbers = self.numbers.wrapping_add(WIDTH);
            out
        }
    }
}

/// Memory that is needed after this tile, asked for little by little.
#[derive(Clone, Copy)]
pub(in crate::model) struct Soon {
    at: *const u8,
    end: *const u8,
    /// Lines for each [`TOGETHER`] columns.
    lines: usize,
}

impl Soon {
    /// All of `bytes` from `at` on, in so many turns.
    pub(super) fn new(at: *const u8, bytes: usize, turns: usize) -> Self {
        Self {
            at,
            end: at.wrapping_add(bytes),
            lines: bytes.div_ceil(LINE).div_ceil(turns.max(1)),
        }
    }

    /// Ask for a turn's share.
    #[inline(always)]
    unsafe fn ask<L: Lanes>(&mut self) {
        for _ in 0..self.lines {
            // SAFETY: the caller's processor; any address may be asked for.
            unsafe { L::prefetch_far(self.at) }
            self.at = self.at.wrapping_add(LINE);
        }
    }

    /// What `turns` turns leave.
    fn after(mut self, turns: usize) -> Self {
        self.at = self.at.wrapping_add(turns * self.lines * LINE);
        if self.at >= self.end {
            self.lines = 0;
        }
        self
    }
}

/// The sums of `P` times sixteen rows of a panel of `columns` with a group of `C` input rows `[column][C]`, as
/// `[input row][part of the panel]`.
///
/// # Safety
/// The processor must have the instructions of `L`; `w` and `x` must have so many columns.
#[inline(always)]
pub(in crate::model) unsafe fn sums<
    L: Lanes,
    W: Pieces,
    const P: usize,
    const C: usize,
    const AHEAD: bool,
>(
    mut w: W,
    mut x: *const f32,
    columns: usize,
    mut soon: Soon,
) -> [[L; P]; C] {
    // SAFETY: the caller's.
    unsafe {
        let mut totals = [[L::zero(); P]; C];
        let mut left = columns;
        while left > 0 {
            let together = left.min(TOGETHER);
            left -= together;
            soon.ask::<L>();
            let sums = w.sums::<L, P, C, AHEAD>(&mut x, together);
            for (totals, sums) in totals.iter_mut().zip(sums) {
                for (total, sum) in totals.iter_mut().zip(sums) {
                    *total = total.add(sum);
                }
            }
        }
        totals
    }
}

/// The products of the rows `first..` of `panels` with those of the input, `out[input row][row]`: as many rows as each of
/// `out` is long.
///
/// # Safety
/// The processor must have the instructions of `L`, for which the input was laid out.
#[inline(always)]
pub(in crate::model) unsafe fn products<L: Lanes>(
    panels: &Panels,
    input: &Input<'_>,
    first: usize,
    out: &mut [&mut [f32]],
) {
    let (rows, columns) = panels.shape();
    assert!(input.columns == columns && out.iter().all(|out| first + out.len() <= rows));
    // SAFETY: the processor is the caller's; a panel has its columns, and those of the last row to be read are there.
    unsafe {
        match &panels.numbers {
            Numbers::F32(w) => floats::<L, _>(w, input, first, out),
            Numbers::F16(w) => floats::<L, _>(w, input, first, out),
            Numbers::BF16(w) => floats::<L, _>(w, input, first, out),
            Numbers::Packed(w) => match w.low() {
                3 => unpack::products::<L, 3>(w, input, first, out),
                _ => unpack::products::<L, 1>(w, input, first, out),
            },
            Numbers::Q8(w) => {
                let bytes = columns / SCALED * SCALED_BYTES;
                each::<L, _>(input, first, out, w.as_ptr(), bytes, |panel, half| Scaled {
                    scales: w
                        .as_ptr()
                        .add(panel * bytes)
                        .cast::<f16>()
                        .add(half * LANES),
                    numbers: std::ptr::null(),
                    half,
                });
            }
        }
    }
}

/// [`products`] of panels of floats.
///
/// # Safety
/// As there.
#[inline(always)]
pub(in crate::model) unsafe fn floats<L: Lanes, T: Float>(
    panels: &[T],
    input: &Input<'_>,
    first: usize,
    out: &mut [&mut [f32]],
) {
    let panel = input.columns * WIDTH;
    let last = out.iter().map(|out| first + out.len()).max().unwrap_or(0);
    assert!(panels.len() >= last.div_ceil(WIDTH) * panel);
    // SAFETY: the processor is the caller's; the panels are there, as asserted.
    unsafe {
        let w = panels.as_ptr();
        let bytes = panel * size_of::<T>();
        each::<L, _>(input, first, out, w.cast(), bytes, |at, half| {
            Floats(w.add(at * panel + half * LANES))
        });
    }
}

/// How many of so many panels of `bytes` each are kept in the cache at a time: in tiles of about the same size.
pub(super) fn tile(panels: usize, bytes: usize) -> usize {
    let most = (CACHED / bytes.max(1)).max(1);
    panels.div_ceil(panels.div_ceil(most).max(1)).max(1)
}

/// The products of panels that `at` finds by index and half, `bytes` each from `w` on.
///
/// # Safety
/// The processor must have the instructions of `L`, and the panels that `out` asks for must be there.
#[inline(always)]
pub(super) unsafe fn each<L: Lanes, W: Pieces>(
    input: &Input<'_>,
    first: usize,
    out: &mut [&mut [f32]],
    w: *const u8,
    bytes: usize,
    at: impl Fn(usize, usize) -> W,
) {
    let count = out.first().map_or(0, |out| out.len());
    let (mut from, end) = (first / WIDTH, (first + count).div_ceil(WIDTH));
    let tile = tile(end - from, bytes);
    while from < end {
        let to = end.min(from + tile);
        let soon = |turns| Soon::new(w.wrapping_add(to * bytes), tile * bytes, turns);
        // SAFETY: the caller's.
        unsafe { tiled::<L, W, true>(input, first, out, from..to, soon, &at) }
        from = to;
    }
}

/// The products of some of those panels. `FRESH` ones come from memory with the first group of rows, or did while those
/// before were read, and from the cache with all others, which ask for what `soon` tells in so many turns.
///
/// # Safety
/// As for [`each`].
#[inline(always)]
pub(super) unsafe fn tiled<L: Lanes, W: Pieces, const FRESH: bool>(
    input: &Input<'_>,
    first: usize,
    out: &mut [&mut [f32]],
    panels: Range<usize>,
    soon: impl Fn(usize) -> Soon,
    at: impl Fn(usize, usize) -> W,
) {
    let count = out.first().map_or(0, |out| out.len());
    assert!(out.len() == input.rows && out.iter().all(|out| out.len() == count));
    let turns = input.columns.div_ceil(TOGETHER);
    let jobs = panels.len() * (WIDTH / LANES / L::PANEL) * (input.groups - usize::from(FRESH));
    let mut soon = soon(jobs * turns);
    let none = Soon::new(std::ptr::null(), 0, 1);
    for (i, (x, rows)) in input.groups().enumerate() {
        let fresh = FRESH && i == 0;
        for panel in panels.clone() {
            for half in 0..WIDTH / LANES / L::PANEL {
                if panel * WIDTH + half * LANES >= first + count {
                    continue;
                }
                let mut job = Job {
                    w: at(panel, half),
                    x,
                    columns: input.columns,
                    row: panel * WIDTH + half * LANES,
                    first,
                    soon: none,
                };
                if !fresh {
                    job.soon = soon;
                    soon = soon.after(turns);
                }
                let out = &mut out[rows.clone()];
                // SAFETY: the caller's.
                unsafe {
                    match (L::PANEL, fresh) {
                        (1, true) if half == 0 => job.rows::<L, 1, true>(out),
                        (1, _) => job.rows::<L, 1, false>(out),
                        (_, true) => job.rows::<L, 2, true>(out),
                        (_, false) => job.rows::<L, 2, false>(out),
                    }
                }
            }
        }
    }
}

/// A panel, or half of one, and a group.
#[derive(Clone, Copy)]
struct Job<W> {
    w: W,
    x: *const f32,
    columns: usize,
    /// Its first row, and the first that is asked for.
    row: usize,
    first: usize,
    soon: Soon,
}

impl<W: Pieces> Job<W> {
    #[inline(always)]
    unsafe fn rows<L: Lanes, const P: usize, const AHEAD: bool>(self, out: &mut [&mut [f32]]) {
        // SAFETY: the caller's.
        unsafe {
            match out.len() {
                1 => self.run::<L, P, 1, AHEAD>(out),
                2 => self.run::<L, P, 2, AHEAD>(out),
                3 => self.run::<L, P, 3, AHEAD>(out),
                4 => self.run::<L, P, 4, AHEAD>(out),
                5 => self.run::<L, P, 5, AHEAD>(out),
                6 => self.run::<L, P, 6, AHEAD>(out),
                7 => self.run::<L, P, 7, AHEAD>(out),
                8 => self.run::<L, P, 8, AHEAD>(out),
                9 => self.run::<L, P, 9, AHEAD>(out),
                10 => self.run::<L, P, 10, AHEAD>(out),
                11 => self.run::<L, P, 11, AHEAD>(out),
                12 => self.run::<L, P, 12, AHEAD>(out),
                13 => self.run::<L, P, 13, AHEAD>(out),
                _ => self.run::<L, P, 14, AHEAD>(out),
            }
        }
    }

    #[inline(always)]
    unsafe fn run<L: Lanes, const P: usize, const C: usize, const AHEAD: bool>(
        self,
        out: &mut [&mut [f32]],
    ) {
        // SAFETY: the caller's; sums are written where `out` is as long as asserted, and beyond it to a copy.
        unsafe {
            let sums = L::panel::<W, P, C, AHEAD>(self.w, self.x, self.columns, self.soon);
            for (sums, out) in sums.iter().zip(out) {
                if self.row >= self.first && self.row + P * LANES <= self.first + out.len() {
                    for (p, sum) in sums.iter().enumerate() {
                        sum.store(out[self.row - self.first + p * LANES..].as_mut_ptr());
                    }
                } else {
                    let mut line = [[0.0f32; LANES]; P];
                    for (line, sum) in line.iter_mut().zip(sums) {
                        sum.store(line.as_mut_ptr());
                    }
                    let skipped = self.first.saturating_sub(self.row);
                    let out = &mut out[(self.row + skipped).saturating_sub(self.first)..];
                    let wanted = line.as_flattened().iter().skip(skipped);
                    out.iter_mut().zip(wanted).for_each(|(out, v)| *out = *v);
                }
            }
        }
    }
}
