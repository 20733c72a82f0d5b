//! The sums of panels that are packed.
#![allow(unsafe_code)]

use super::super::input::Input;
use super::super::lanes::Lanes;
use super::WIDTH;
use super::packed::{CODES, GROUP, HEADER, Packed, group, piece};
use super::sums::{self, Columns, FAR, Floats, LANES, LINE, NEAR, Pieces, Soon, TOGETHER};
use half::bf16;
use std::cell::Cell;

thread_local! {
    /// Room for a tile of panels in f32: fresh memory would be cleared for each.
    static ROOM: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Groups of columns with codes.
#[derive(Clone, Copy)]
struct Coded<const LOW: usize> {
    table: *const f32,
    /// The next group.
    at: *const u8,
    lows: *const u8,
    codes: *const u8,
    /// 1 for the second half of each column.
    half: usize,
}

// SAFETY: `begin` reads the table and `next` its column's numbers and less than the codes behind them.
unsafe impl<const LOW: usize> Columns for Coded<LOW> {
    const RUN: usize = GROUP;

    #[inline(always)]
    unsafe fn begin<L: Lanes, const P: usize, const AHEAD: bool>(&mut self) -> [L; P] {
        // SAFETY: the caller's.
        unsafe {
            for line in 0..group(LOW) / LINE {
                if AHEAD {
                    L::prefetch_far(self.at.wrapping_add(FAR + line * LINE));
                }
                L::prefetch_near(self.at.wrapping_add(NEAR + line * LINE));
            }
            self.lows = self.at;
            self.codes = self.at.add(GROUP * WIDTH * LOW);
            self.at = self.at.wrapping_add(group(LOW));
            [L::load(self.table); P]
        }
    }

    #[inline(always)]
    unsafe fn next<L: Lanes, const P: usize, const AHEAD: bool>(
        &mut self,
        table: &[L; P],
    ) -> [L; P] {
        // SAFETY: the caller's.
        unsafe {
            let mut out = *table;
            for (p, out) in out.iter_mut().enumerate() {
                // Both halves are asked for from the first on.
                let half = if P == 1 { self.half } else { p };
                let lows = self.lows.add(half * LANES * LOW);
                *out = L::load_packed::<LOW>(lows, self.codes, half, *out);
            }
            self.lows = self.lows.wrapping_add(WIDTH * LOW);
            self.codes = self.codes.wrapping_add(CODES);
            out
        }
    }
}

/// The pieces of a panel from here on.
#[derive(Clone, Copy)]
struct Panel<const LOW: usize> {
    at: *const u8,
    /// 1 for the second half of each column.
    half: usize,
}

/// What the next piece is made of.
enum Next<const LOW: usize> {
    Coded(Coded<LOW>),
    Single(Floats<f32>),
    Half(Floats<bf16>),
}

impl<const LOW: usize> Panel<LOW> {
    /// The next piece, of so many columns.
    ///
    /// # Safety
    /// The processor must have the instructions of `L`, and there must be such a piece.
    #[inline(always)]
    unsafe fn next<L: Lanes, const AHEAD: bool>(&mut self, columns: usize) -> Next<LOW> {
        // SAFETY: the caller's.
        unsafe {
            if AHEAD {
                L::prefetch_far(self.at.wrapping_add(FAR));
            }
            L::prefetch_near(self.at.wrapping_add(NEAR));
            let (from, packed) = (self.at, self.at.read() & 1 == 0);
            self.at = from.wrapping_add(piece(columns, LOW, packed));
            let numbers = from.add(HEADER);
            if packed {
                Next::Coded(Coded {
                    table: from.cast(),
                    at: numbers,
                    lows: numbers,
                    codes: numbers,
                    half: self.half,
                })
            } else if LOW == 3 {
                Next::Single(Floats::at(numbers.cast::<f32>().add(self.half * LANES)))
            } else {
                Next::Half(Floats::at(numbers.cast::<bf16>().add(self.half * LANES)))
            }
        }
    }

    /// The panel in f32, `[column][row]`.
    ///
    /// # Safety
    /// The processor must have the instructions of `L`; there must be so many columns, and room for them.
    #[inline(always)]
    unsafe fn widen<L: Lanes, const AHEAD: bool>(mut self, columns: usize, mut out: *mut f32) {
        let mut left = columns;
        while left > 0 {
            let together = left.min(TOGETHER);
            left -= together;
            // SAFETY: the caller's.
            unsafe {
                match self.next::<L, AHEAD>(together) {
                    Next::Coded(w) => widen::<L, _, AHEAD>(w, together, out),
                    Next::Single(w) => widen::<L, _, AHEAD>(w, together, out),
                    Next::Half(w) => widen::<L, _, AHEAD>(w, together, out),
                }
                out = out.add(together * WIDTH);
            }
        }
    }
}

/// Columns in f32.
///
/// # Safety
/// As for [`Panel::widen`].
#[inline(always)]
unsafe fn widen<L: Lanes, W: Columns, const AHEAD: bool>(
    mut w: W,
    columns: usize,
    mut out: *mut f32,
) {
    let mut left = columns;
    while left > 0 {
        let run = left.min(W::RUN);
        left -= run;
        // SAFETY: the caller's.
        unsafe {
            let begun = w.begin::<L, 2, AHEAD>();
            for _ in 0..run {
                for numbers in w.next::<L, 2, AHEAD>(&begun) {
                    numbers.store(out);
                    out = out.add(LANES);
                }
            }
        }
    }
}

// SAFETY: a piece reads its own bytes.
unsafe impl<const LOW: usize> Pieces for Panel<LOW> {
    #[inline(always)]
    unsafe fn sums<L: Lanes, const P: usize, const C: usize, const AHEAD: bool>(
        &mut self,
        x: &mut *const f32,
        columns: usize,
    ) -> [[L; P]; C] {
        // SAFETY: the caller's.
        unsafe {
            match self.next::<L, AHEAD>(columns) {
                Next::Coded(mut w) => w.sums::<L, P, C, AHEAD>(x, columns),
                Next::Single(mut w) => w.sums::<L, P, C, AHEAD>(x, columns),
                Next::Half(mut w) => w.sums::<L, P, C, AHEAD>(x, columns),
            }
        }
    }
}

/// [`sums::products`] of packed panels.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn products<L: Lanes, const LOW: usize>(
    packed: &Packed,
    input: &Input<'_>,
    first: usize,
    out: &mut [&mut [f32]],
) {
    let last = out.iter().map(|out| first + out.len()).max().unwrap_or(0);
    assert!(packed.low() == LOW && packed.panels() >= last.div_ceil(WIDTH));
    let panel = |panel: usize, half| Panel::<LOW> {
        at: packed.bytes(panel..panel + 1).as_ptr(),
        half,
    };
    // SAFETY: the processor is the caller's; the panels are there, as asserted.
    unsafe {
        if input.groups < 2 {
            // Nothing is read twice, so there is nothing to keep or to ask for.
            sums::each::<L, _>(input, first, out, std::ptr::null(), 0, panel);
            return;
        }
        // What many rows are multiplied with is unpacked once for all of them.
        let size = input.columns * WIDTH;
        let panels = first / WIDTH..last.div_ceil(WIDTH);
        let tile = sums::tile(panels.len(), size * size_of::<f32>());
        let mut room = ROOM.take();
        if room.len() < tile * size + LANES {
            room.resize(tile * size + LANES, 0.0);
        }
        let aligned = room.as_ptr().align_offset(LINE).min(LANES);
        let wide = room[aligned..].as_mut_ptr();
        for from in panels.clone().step_by(tile) {
            let tile = from..panels.end.min(from + tile);
            for i in tile.clone() {
                let out = wide.add((i - from) * size);
                // All but the first tile were asked for while rows were multiplied with the one before.
                match from == panels.start {
                    true => panel(i, 0).widen::<L, true>(input.columns, out),
                    false => panel(i, 0).widen::<L, false>(input.columns, out),
                }
            }
            let next = packed.bytes(tile.end..tile.end + tile.len());
            let soon = |turns| Soon::new(next.as_ptr(), next.len(), turns);
            sums::tiled::<L, _, false>(input, first, out, tile, soon, |panel, half| {
                Floats::at(wide.add((panel - from) * size + half * LANES).cast_const())
            });
        }
        ROOM.set(room);
    }
}
