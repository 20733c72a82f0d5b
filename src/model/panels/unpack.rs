//! The sums of panels that are packed.
#![allow(unsafe_code)]

use super::super::input::Input;
use super::super::lanes::Lanes;
use super::WIDTH;
use super::packed::{CODES, GROUP, HEADER, Packed, group, piece};
use super::sums::{Columns, Company, FAR, Floats, Keep, LANES, LINE, NEAR, Narrow, Pieces, memory};
use super::widen;
use half::bf16;

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
    const APART: bool = false;
    const WIDE: bool = false;
    /// The table.
    type Begun<L: Lanes, const P: usize> = L;

    #[inline(always)]
    unsafe fn begin<L: Lanes, const P: usize, const AHEAD: bool>(&mut self) -> L {
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
            L::load(self.table)
        }
    }

    #[inline(always)]
    unsafe fn next<L: Lanes, const P: usize, const AHEAD: bool>(&mut self, table: &L) -> [L; P] {
        // SAFETY: the caller's.
        unsafe {
            let mut out = [*table; P];
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

    fn after(self, columns: usize) -> Self {
        Self {
            at: self.at.wrapping_add(columns / GROUP * group(LOW)),
            ..self
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
}

// SAFETY: a piece reads its own bytes.
unsafe impl<const LOW: usize> Pieces for Panel<LOW> {
    const COMPANY: Company = Company::Few;
    const APART: bool = false;

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

// SAFETY: as above, and writes them where they are to go.
unsafe impl<const LOW: usize> Narrow for Panel<LOW> {
    #[inline(always)]
    unsafe fn keeping<L: Lanes, const P: usize, const C: usize, const AHEAD: bool>(
        &mut self,
        x: &mut *const f32,
        columns: usize,
        keep: &mut Keep,
    ) -> [[L; P]; C] {
        // SAFETY: the caller's.
        unsafe {
            match self.next::<L, AHEAD>(columns) {
                Next::Coded(mut w) => w.keeping::<L, P, C, AHEAD>(x, columns, keep),
                Next::Single(mut w) => w.keeping::<L, P, C, AHEAD>(x, columns, keep),
                Next::Half(mut w) => w.keeping::<L, P, C, AHEAD>(x, columns, keep),
            }
        }
    }
}

/// [`sums::products`](super::sums::products) of packed panels.
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
    assert!(packed.low() == LOW);
    // SAFETY: the processor is the caller's; packed panels have the columns of their matrix.
    unsafe {
        widen::products::<L, _>(
            input,
            first,
            out,
            |some| memory(packed.bytes(some)),
            |panel, half| Panel::<LOW> {
                at: packed.bytes(panel..panel + 1).as_ptr(),
                half,
            },
        );
    }
}
