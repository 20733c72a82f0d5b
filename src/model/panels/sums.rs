//! The sums of a panel with a group of input rows.
#![allow(unsafe_code)]

use super::super::blocks::BlockFormat;
use super::super::input::Input;
use super::super::lanes::Lanes;
use super::blocks::Blocks;
use super::unblock::Blocked;
use super::{Numbers, Panels, WIDTH, unpack, widen};
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
/// Input rows at most for which two pieces are summed at once: their sums are few.
const APART: usize = 2;
/// Of more input rows than this, theirs are asked for too, so many columns ahead.
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
    /// Whether the sums of two pieces at once keep the processor busier than those of one: where numbers take so little memory
    /// that every sum would wait for the one before.
    const APART: bool;
    /// Whether they are in f32 already, so that nothing is done again for every group of input rows.
    const WIDE: bool;
    /// What columns of a run have in common.
    type Begun<L: Lanes, const P: usize>: Copy;

    /// What comes before the next [`Self::RUN`] columns. `AHEAD` asks for what comes later.
    ///
    /// # Safety
    /// The processor must have the instructions of `L`, and there must be such columns; so below.
    unsafe fn begin<L: Lanes, const P: usize, const AHEAD: bool>(&mut self) -> Self::Begun<L, P>;

    /// The next column's `P` times 16 numbers, given what came before it.
    ///
    /// # Safety
    /// As above.
    unsafe fn next<L: Lanes, const P: usize, const AHEAD: bool>(
        &mut self,
        begun: &Self::Begun<L, P>,
    ) -> [L; P];

    /// Those after so many columns, whole runs.
    fn after(self, columns: usize) -> Self;
}

/// A panel in pieces of [`TOGETHER`] columns, the last of which may have fewer.
///
/// # Safety
/// As for [`Columns`].
pub(in crate::model) unsafe trait Pieces: Copy {
    /// With how many input rows they are multiplied.
    const COMPANY: Company;
    /// Whether there is any use in [`Self::two`].
    const APART: bool;

    /// The sums of the next piece, of so many columns, with a group of `C` input rows; `x` is left after them.
    ///
    /// # Safety
    /// As for [`sums`].
    unsafe fn sums<L: Lanes, const P: usize, const C: usize, const AHEAD: bool>(
        &mut self,
        x: &mut *const f32,
        columns: usize,
    ) -> [[L; P]; C];

    /// The same of the next two whole pieces.
    ///
    /// # Safety
    /// As above.
    unsafe fn two<L: Lanes, const P: usize, const C: usize, const AHEAD: bool>(
        &mut self,
        x: &mut *const f32,
    ) -> [[[L; P]; C]; 2] {
        // SAFETY: the caller's.
        unsafe {
            let first = self.sums::<L, P, C, AHEAD>(x, TOGETHER);
            [first, self.sums::<L, P, C, AHEAD>(x, TOGETHER)]
        }
    }
}

/// Pieces whose numbers can be kept in f32; those that are f32 need not be.
///
/// # Safety
/// As for [`Columns`].
pub(in crate::model) unsafe trait Narrow: Pieces {
    /// [`Pieces::sums`], which leaves the numbers of the piece behind.
    ///
    /// # Safety
    /// As there, and there must be room for them.
    unsafe fn keeping<L: Lanes, const P: usize, const C: usize, const AHEAD: bool>(
        &mut self,
        x: &mut *const f32,
        columns: usize,
        keep: &mut Keep,
    ) -> [[L; P]; C];
}

/// With how many input rows pieces are multiplied at once.
#[derive(Clone, Copy)]
pub(in crate::model) enum Company {
    /// Any number.
    Any,
    /// At most [`Lanes::FEW`].
    Few,
    /// More than that, or as many as groups have that are not alone.
    Many,
}

impl Company {
    const fn takes<L: Lanes>(self, rows: usize) -> bool {
        match self {
            Self::Any => rows <= L::MOST,
            Self::Few => rows <= L::FEW,
            Self::Many => rows <= L::MOST && (rows > L::FEW || rows >= L::MANY.div_ceil(2)),
        }
    }
}

/// Where the numbers of columns go.
#[derive(Clone, Copy)]
pub(in crate::model) struct Keep {
    to: *mut f32,
    /// How far the next column's are from there.
    step: usize,
}

impl Keep {
    /// To `to`, one column after the other, or all to the same place.
    pub(super) fn new(to: *mut f32, all: bool) -> Self {
        let step = if all { WIDTH } else { 0 };
        Self { to, step }
    }
}

/// The sums of so many columns of `w`, whose numbers are kept with `KEPT`.
///
/// # Safety
/// As for [`Narrow::keeping`].
#[inline(always)]
unsafe fn summed<
    W: Columns,
    L: Lanes,
    const P: usize,
    const C: usize,
    const AHEAD: bool,
    const KEPT: bool,
>(
    w: &mut W,
    x: &mut *const f32,
    columns: usize,
    keep: &mut Keep,
) -> [[L; P]; C] {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[L::zero(); P]; C];
        let mut left = columns;
        while left > 0 {
            let run = left.min(W::RUN);
            left -= run;
            let begun = w.begin::<L, P, AHEAD>();
            for _ in 0..run {
                if C > FEW {
                    L::prefetch_near(x.wrapping_add(SOON * C).cast());
                }
                let numbers = w.next::<L, P, AHEAD>(&begun);
                if KEPT {
                    for (p, numbers) in numbers.iter().enumerate() {
                        numbers.store(keep.to.add(p * LANES));
                    }
                    keep.to = keep.to.wrapping_add(keep.step);
                }
                add::<L, P, C>(&mut sums, &numbers, *x);
                *x = x.add(C);
            }
        }
        sums
    }
}

// SAFETY: reads what it says of the columns.
unsafe impl<W: Columns> Pieces for W {
    const COMPANY: Company = if W::WIDE { Company::Any } else { Company::Few };
    const APART: bool = W::APART;

    #[inline(always)]
    unsafe fn sums<L: Lanes, const P: usize, const C: usize, const AHEAD: bool>(
        &mut self,
        x: &mut *const f32,
        columns: usize,
    ) -> [[L; P]; C] {
        let mut nowhere = Keep::new(std::ptr::null_mut(), false);
        // SAFETY: the caller's.
        unsafe { summed::<W, L, P, C, AHEAD, false>(self, x, columns, &mut nowhere) }
    }

    #[inline(always)]
    unsafe fn two<L: Lanes, const P: usize, const C: usize, const AHEAD: bool>(
        &mut self,
        x: &mut *const f32,
    ) -> [[[L; P]; C]; 2] {
        // SAFETY: the caller's.
        unsafe {
            let mut sums = [[[L::zero(); P]; C]; 2];
            let mut second = self.after(TOGETHER);
            for _ in 0..TOGETHER / W::RUN {
                let begun = self.begin::<L, P, AHEAD>();
                let begun_second = second.begin::<L, P, AHEAD>();
                for _ in 0..W::RUN {
                    let w = self.next::<L, P, AHEAD>(&begun);
                    add::<L, P, C>(&mut sums[0], &w, *x);
                    let w = second.next::<L, P, AHEAD>(&begun_second);
                    add::<L, P, C>(&mut sums[1], &w, x.add(TOGETHER * C));
                    *x = x.add(C);
                }
            }
            *x = x.add(TOGETHER * C);
            *self = second;
            sums
        }
    }
}

// SAFETY: reads what it says of the columns, and writes them where they are to go.
unsafe impl<W: Columns> Narrow for W {
    #[inline(always)]
    unsafe fn keeping<L: Lanes, const P: usize, const C: usize, const AHEAD: bool>(
        &mut self,
        x: &mut *const f32,
        columns: usize,
        keep: &mut Keep,
    ) -> [[L; P]; C] {
        // SAFETY: the caller's.
        unsafe { summed::<W, L, P, C, AHEAD, true>(self, x, columns, keep) }
    }
}

/// Add a column's products with the `C` inputs at `x`.
///
/// # Safety
/// The processor must have the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn add<L: Lanes, const P: usize, const C: usize>(
    sums: &mut [[L; P]; C],
    w: &[L; P],
    x: *const f32,
) {
    for (c, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller's.
        unsafe {
            let x = L::splat(x.add(c));
            for (sum, w) in sums.iter_mut().zip(w) {
                *sum = sum.add_product(*w, x);
            }
        }
    }
}

/// A type that panels are made of as it is.
///
/// # Safety
/// `load` reads 16 numbers.
pub(in crate::model) unsafe trait Float: Copy {
    /// Whether it is f32.
    const WIDE: bool;

    /// The 16 numbers at `from`.
    ///
    /// # Safety
    /// The processor must have the instructions of `L`.
    unsafe fn load<L: Lanes>(from: *const Self) -> L;
}

// SAFETY: as the methods of `L` promise, so below.
unsafe impl Float for f32 {
    const WIDE: bool = true;

    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L {
        // SAFETY: the caller's, so below.
        unsafe { L::load(from) }
    }
}

// SAFETY: as above.
unsafe impl Float for f16 {
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L {
        // SAFETY: as above.
        unsafe { L::load_f16(from) }
    }
}

// SAFETY: as above.
unsafe impl Float for bf16 {
    const WIDE: bool = false;

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
    const APART: bool = false;
    const WIDE: bool = T::WIDE;
    type Begun<L: Lanes, const P: usize> = ();

    #[inline(always)]
    unsafe fn begin<L: Lanes, const P: usize, const AHEAD: bool>(&mut self) {}

    #[inline(always)]
    unsafe fn next<L: Lanes, const P: usize, const AHEAD: bool>(&mut self, (): &()) -> [L; P] {
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

    fn after(self, columns: usize) -> Self {
        Self(self.0.wrapping_add(columns * WIDTH))
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
    /// Nothing.
    pub(super) fn nothing() -> Self {
        Self::new(std::ptr::null()..std::ptr::null(), 1)
    }

    /// All of `memory`, in so many turns.
    pub(super) fn new(memory: Range<*const u8>, turns: usize) -> Self {
        let bytes = memory.end.addr() - memory.start.addr();
        Self {
            at: memory.start,
            end: memory.end,
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
        if W::APART && C <= APART {
            while left >= 2 * TOGETHER {
                left -= 2 * TOGETHER;
                for sums in w.two::<L, P, C, AHEAD>(&mut x) {
                    add_all(&mut totals, &sums);
                }
            }
        }
        while left > 0 {
            let together = left.min(TOGETHER);
            left -= together;
            soon.ask::<L>();
            let sums = w.sums::<L, P, C, AHEAD>(&mut x, together);
            add_all(&mut totals, &sums);
        }
        totals
    }
}

/// Add sums to those before.
///
/// # Safety
/// The processor must have the instructions of `L`.
#[inline(always)]
unsafe fn add_all<L: Lanes, const P: usize, const C: usize>(
    totals: &mut [[L; P]; C],
    sums: &[[L; P]; C],
) {
    for (total, sum) in totals
        .as_flattened_mut()
        .iter_mut()
        .zip(sums.as_flattened())
    {
        // SAFETY: the caller's.
        *total = unsafe { total.add(*sum) };
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
            Numbers::Blocks(w) => match w.format {
                BlockFormat::Q4_0 => blocked::<L, 0>(w, input, first, out),
                BlockFormat::Q4_1 => blocked::<L, 1>(w, input, first, out),
                BlockFormat::Q5_0 => blocked::<L, 2>(w, input, first, out),
                BlockFormat::Q5_1 => blocked::<L, 3>(w, input, first, out),
                BlockFormat::Q8_0 => blocked::<L, 4>(w, input, first, out),
                BlockFormat::Q4_K => blocked::<L, 5>(w, input, first, out),
                BlockFormat::Q5_K => blocked::<L, 6>(w, input, first, out),
                BlockFormat::Q6_K => blocked::<L, 7>(w, input, first, out),
            },
        }
    }
}

/// [`products`] of panels of floats.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn floats<L: Lanes, T: Float>(
    w: &[T],
    input: &Input<'_>,
    first: usize,
    out: &mut [&mut [f32]],
) {
    let panel = input.columns * WIDTH;
    // SAFETY: the processor is the caller's; the panels are as long as those of so many columns.
    unsafe {
        widen::products::<L, _>(
            input,
            first,
            out,
            |some| memory(&w[some.start * panel..w.len().min(some.end * panel)]),
            |at, half| Floats(w[at * panel..][..panel].as_ptr().wrapping_add(half * LANES)),
        );
    }
}

/// [`products`] of panels of GGUF blocks of format number `F`.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn blocked<L: Lanes, const F: usize>(
    w: &Blocks,
    input: &Input<'_>,
    first: usize,
    out: &mut [&mut [f32]],
) {
    let (bytes, format) = (&w.bytes, w.format);
    let panel = input.columns / format.numbers() * format.bytes() * WIDTH;
    assert!(format == BlockFormat::ALL[F]);
    // SAFETY: the processor is the caller's; the panels are as long as those of so many columns.
    unsafe {
        widen::products::<L, _>(
            input,
            first,
            out,
            |some| memory(&bytes[some.start * panel..bytes.len().min(some.end * panel)]),
            |at, half| Blocked::<F>::at(bytes[at * panel..][..panel].as_ptr(), half),
        );
    }
}

/// Where numbers lie.
pub(super) fn memory<T>(numbers: &[T]) -> Range<*const u8> {
    let memory = numbers.as_ptr_range();
    memory.start.cast()..memory.end.cast()
}

/// How many of so many panels of `bytes` each are kept in the cache at a time: in tiles of about the same size.
pub(super) fn tile(panels: usize, bytes: usize) -> usize {
    let most = (CACHED / bytes.max(1)).max(1);
    panels.div_ceil(panels.div_ceil(most).max(1)).max(1)
}

/// The products of some panels, which `at` finds by index and half, with some groups of input rows; those who follow ask for
/// what `soon` tells, in so many turns. `FRESH` ones come from memory, or did while those before were read, and are asked for.
///
/// # Safety
/// The processor must have the instructions of `L`, and the panels that `out` asks for must be there.
#[inline(always)]
pub(super) unsafe fn tiled<L: Lanes, W: Pieces, const FRESH: bool>(
    input: &Input<'_>,
    groups: Range<usize>,
    first: usize,
    out: &mut [&mut [f32]],
    panels: Range<usize>,
    soon: impl Fn(usize) -> Soon,
    mut at: impl FnMut(usize, usize) -> W,
) {
    let count = out.first().map_or(0, |out| out.len());
    assert!(out.len() == input.rows && out.iter().all(|out| out.len() == count));
    assert!(input.groups > 0 || input.rows == 0, "rows are not laid out");
    let turns = input.columns.div_ceil(TOGETHER);
    let jobs = panels.len() * (WIDTH / LANES / L::PANEL) * groups.len();
    let mut soon = soon(jobs * turns);
    for (x, rows) in input.groups().skip(groups.start).take(groups.len()) {
        for panel in panels.clone() {
            for half in 0..WIDTH / LANES / L::PANEL {
                let job = Job {
                    w: at(panel, half),
                    x,
                    columns: input.columns,
                    row: panel * WIDTH + half * LANES,
                    first,
                    soon,
                };
                soon = soon.after(turns);
                if job.row >= first + count {
                    continue;
                }
                let out = &mut out[rows.clone()];
                // SAFETY: the caller's.
                unsafe {
                    match (L::PANEL, FRESH) {
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
        // So that nothing is compiled that is never asked for.
        if const { !W::COMPANY.takes::<L>(C) } {
            unreachable!("{C} rows at once");
        }
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
