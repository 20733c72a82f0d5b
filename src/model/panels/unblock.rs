//! The columns of panels of GGUF blocks.
#![allow(unsafe_code)]

use super::super::blocks::{BlockFormat, six_bits};
use super::super::lanes::{Codes, Lanes};
use super::WIDTH;
use super::blocks::{CODES, FIFTHS, HALF, Parts};
use super::sums::{Columns, FAR, LANES, LINE, NEAR};
use half::f16;

/// The columns of panels of format number `F` of [`BlockFormat::ALL`], from a place in a block on.
#[derive(Clone, Copy)]
pub(super) struct Blocked<const F: usize> {
    block: *const u8,
    column: usize,
    /// 1 for the second half of each column.
    half: usize,
}

/// Two columns' fifth and sixth bits in a code: the first's below the second's.
static PAIRS: [Codes; 2] = {
    let mut pairs = [[0; 16]; 2];
    let mut code = 0;
    while code < 16 {
        pairs[0][code] = 16 * (code as i8 & 3);
        pairs[1][code] = 16 * (code as i8 >> 2);
        code += 1;
    }
    [Codes::new(pairs[0]), Codes::new(pairs[1])]
};

impl<const F: usize> Blocked<F> {
    const FORMAT: BlockFormat = BlockFormat::ALL[F];
    const PARTS: Parts = Parts::of(Self::FORMAT);
    /// Groups of a block, and bytes of one.
    const GROUPS: usize = Self::FORMAT.numbers() / Self::FORMAT.group();
    const BYTES: usize = Self::PARTS.bytes / Self::GROUPS;
    /// The four bits of a code, less the centre.
    const LOW: &Codes = &{
        let mut low = [0; 16];
        let mut code = 0;
        while code < 16 {
            low[code] = code as i8 - Self::FORMAT.centre();
            code += 1;
        }
        Codes::new(low)
    };

    /// From the block at `block` on.
    pub(super) fn at(block: *const u8, half: usize) -> Self {
        Self {
            block,
            column: 0,
            half,
        }
    }

    /// Scales of a group and what is added to its numbers, of sixteen rows.
    ///
    /// # Safety
    /// The processor must have the instructions of `L`, and there must be such a group.
    #[inline(always)]
    unsafe fn scales<L: Lanes>(self, group: usize, half: usize) -> (L, L) {
        // SAFETY: the caller's; the parts of a block are there.
        unsafe {
            let at = self.block.add(half * LANES * HALF).cast::<f16>();
            let factors = self.block.add(Self::PARTS.factors + half * LANES);
            match Self::FORMAT {
                BlockFormat::Q4_0 | BlockFormat::Q5_0 | BlockFormat::Q8_0 => {
                    (L::load_f16(at), L::zero())
                }
                BlockFormat::Q4_1 | BlockFormat::Q5_1 => {
                    (L::load_f16(at), L::load_f16(at.add(WIDTH)))
                }
                BlockFormat::Q4_K | BlockFormat::Q5_K => {
                    let (mut scales, mut least) = ([0; LANES], [0; LANES]);
                    for row in 0..LANES {
                        let byte = |i: usize| factors.add(i * WIDTH + row).read();
                        (scales[row], least[row]) = six_bits(byte, group);
                    }
                    let (scales, least) = (scales.as_ptr().cast(), least.as_ptr().cast());
                    let minimum = L::load_f16(at.add(WIDTH)).mul(L::load_i8(least));
                    let scale = L::load_f16(at).mul(L::load_i8(scales));
                    (scale, minimum.mul(L::splat(&-1.0)))
                }
                BlockFormat::Q6_K => {
                    let factor = L::load_i8(factors.add(group * WIDTH).cast());
                    (L::load_f16(at).mul(factor), L::zero())
                }
            }
        }
    }
}

/// What all columns of a group have in common, of `P` times sixteen rows.
#[derive(Clone, Copy)]
pub(super) struct Scales<L, const P: usize>([(L, L); P]);

// SAFETY: `begin` reads the scales of its group's block and `next` its own column's numbers.
unsafe impl<const F: usize> Columns for Blocked<F> {
    const RUN: usize = Self::FORMAT.group();
    const APART: bool = Self::FORMAT.bits() < 6;
    const WIDE: bool = false;
    type Begun<L: Lanes, const P: usize> = Scales<L, P>;

    #[inline(always)]
    unsafe fn begin<L: Lanes, const P: usize, const AHEAD: bool>(&mut self) -> Scales<L, P> {
        // SAFETY: the caller's.
        unsafe {
            if self.column >= Self::FORMAT.numbers() {
                self.block = self.block.add(Self::PARTS.bytes);
                self.column -= Self::FORMAT.numbers();
            }
            let group = self.column / Self::FORMAT.group();
            let at = self.block.wrapping_add(group * Self::BYTES);
            for line in 0..Self::BYTES.div_ceil(LINE) {
                if AHEAD {
                    L::prefetch_far(at.wrapping_add(FAR + line * LINE));
                }
                L::prefetch_near(at.wrapping_add(NEAR + line * LINE));
            }
            let mut out = [(L::zero(), L::zero()); P];
            for (p, out) in out.iter_mut().enumerate() {
                *out = self.scales(group, if P == 1 { self.half } else { p });
            }
            Scales(out)
        }
    }

    #[inline(always)]
    unsafe fn next<L: Lanes, const P: usize, const AHEAD: bool>(
        &mut self,
        scales: &Scales<L, P>,
    ) -> [L; P] {
        // SAFETY: the caller's.
        unsafe {
            let (codes, more) = (
                self.block.add(Self::PARTS.codes),
                self.block.add(Self::PARTS.more),
            );
            let mut out = [L::zero(); P];
            for (p, out) in out.iter_mut().enumerate() {
                let half = if P == 1 { self.half } else { p };
                let low = codes.add(self.column * CODES);
                let q = match Self::FORMAT.bits() {
                    4 => L::load_codes(low, half, Self::LOW),
                    5 => {
                        let fifths = more.add(self.column * FIFTHS + half * FIFTHS / 2);
                        L::load_codes(low, half, Self::LOW).add_where(fifths, 16.0)
                    }
                    6 => {
                        let pairs = more.add(self.column / 2 * CODES);
                        let high = L::load_codes(pairs, half, &PAIRS[self.column % 2]);
                        L::load_codes(low, half, Self::LOW).add(high)
                    }
                    _ => L::load_i8(codes.add(self.column * WIDTH + half * LANES).cast()),
                };
                let (scale, minimum) = scales.0[p];
                // The product is exact: adding to it rounds once, as the reference does.
                *out = match Self::FORMAT {
                    BlockFormat::Q4_1
                    | BlockFormat::Q5_1
                    | BlockFormat::Q4_K
                    | BlockFormat::Q5_K => minimum.add_product(q, scale),
                    BlockFormat::Q4_0
                    | BlockFormat::Q5_0
                    | BlockFormat::Q8_0
                    | BlockFormat::Q6_K => q.mul(scale),
                };
            }
            self.column += 1;
            out
        }
    }

    #[inline(always)]
    fn after(self, columns: usize) -> Self {
        let column = self.column + columns;
        let blocks = match Self::FORMAT.numbers() {
            // The last block's end is the next one's beginning.
            numbers if column > numbers => (column - 1) / numbers,
            _ => 0,
        };
        Self {
            block: self.block.wrapping_add(blocks * Self::PARTS.bytes),
            column: column - blocks * Self::FORMAT.numbers(),
            ..self
        }
    }
}
