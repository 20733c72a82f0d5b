//! Sixteen running sums in the registers of whatever the processor has.
//!
//! Every set adds the same numbers in the same order. In panels ([`super::panels`]) each lane is an output of its own. In a
//! dot product ([`super::tiles`]) lane i takes the columns i, i + 16, i + 32, …, and the lanes are added by halves (i + 8,
//! then i + 4, i + 2, i + 1). The sets with a fused multiply-add round alike, so AVX2 and AVX-512 agree to the last bit;
//! without one the products are rounded too.
#![allow(unsafe_code)]

use super::panels::sums::{self, Pieces, Soon};
use super::tiles;
use half::{bf16, f16};

#[cfg(target_arch = "aarch64")]
pub(super) mod arm;
#[cfg(target_arch = "x86_64")]
pub(super) mod x86;

/// Ask for the memory at an address, which may lie anywhere, for a little later.
pub(super) fn prefetch(address: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every such processor has the instruction, which reads nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(std::ptr::without_provenance(address));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// What each of sixteen codes stands for.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Codes {
    numbers: [f32; 16],
    /// The same.
    bytes: [i8; 16],
}

impl Codes {
    /// These whole numbers.
    pub(super) const fn new(bytes: [i8; 16]) -> Self {
        let mut numbers = [0.0; 16];
        let mut code = 0;
        while code < 16 {
            numbers[code] = bytes[code] as f32;
            code += 1;
        }
        Self { numbers, bytes }
    }
}

/// Sixteen lanes of f32.
///
/// # Safety
/// The methods may only run on a processor that has the instructions of the type, and read what they say: `load` 16 numbers.
pub(super) unsafe trait Lanes: Copy {
    /// Weight rows of a register tile: 3 or 4.
    const ROWS: usize;
    /// Most input rows of a register tile, at most 6.
    const COLUMNS: usize;
    /// Lanes of a panel's column that are summed at once: 1 or 2.
    const PANEL: usize;
    /// Most input rows that are multiplied with a panel at once, at most 12. If a few more are all there are, one group is
    /// as good: see [`Self::MOST`].
    const MANY: usize;
    /// Most input rows of a single group, at most 14.
    const MOST: usize = Self::MANY;
    /// For so many input rows at most, panels of other numbers than f32 have loops that do not keep those.
    const FEW: usize = Self::MOST;

    /// All zero.
    unsafe fn zero() -> Self;

    /// The 16 numbers at `from`, which need no alignment.
    unsafe fn load(from: *const f32) -> Self;

    /// Sixteen times the number at `from`.
    unsafe fn splat(from: *const f32) -> Self;

    /// The 16 numbers at `from`, which need no alignment.
    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: the caller gives 16 numbers.
        let halves = unsafe { from.cast::<[f16; 16]>().read_unaligned() };
        let numbers = halves.map(f16::to_f32);
        // SAFETY: the caller's.
        unsafe { Self::load(numbers.as_ptr()) }
    }

    /// The 16 numbers at `from`, which need no alignment.
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: the caller gives 16 numbers.
        let halves = unsafe { from.cast::<[bf16; 16]>().read_unaligned() };
        // A bf16 is the upper half of its f32.
        let numbers = halves.map(|v| f32::from_bits(u32::from(v.to_bits()) << 16));
        // SAFETY: the caller's.
        unsafe { Self::load(numbers.as_ptr()) }
    }

    /// The 16 whole numbers at `from`.
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // SAFETY: the caller gives 16 numbers.
        let numbers = unsafe { from.cast::<[i8; 16]>().read() }.map(f32::from);
        // SAFETY: the caller's.
        unsafe { Self::load(numbers.as_ptr()) }
    }

    /// Sixteen numbers of a packed column: below the highest, the `LOW` bytes of each from `low` on, 3 of an f32 or 1 of a
    /// bf16; the highest that number of `table` which the lower or upper `half` of each of the 16 `codes` names. What
    /// lies in the sixteen bytes after the former may be read too.
    #[inline(always)]
    unsafe fn load_packed<const LOW: usize>(
        low: *const u8,
        codes: *const u8,
        half: usize,
        table: Self,
    ) -> Self {
        let mut numbers = [0.0; 16];
        // SAFETY: the caller gives 16 times `LOW` bytes and 16 codes.
        unsafe {
            let mut highs = [0.0f32; 16];
            table.store(highs.as_mut_ptr());
            for (i, out) in numbers.iter_mut().enumerate() {
                let mut bytes = [0; 4];
                for (b, byte) in bytes[3 - LOW..3].iter_mut().enumerate() {
                    *byte = low.add(LOW * i + b).read();
                }
                let code = codes.add(i).read() >> (4 * half) & 15;
                let high = highs[usize::from(code)].to_bits();
                *out = f32::from_bits(u32::from_le_bytes(bytes) | high);
            }
            Self::load(numbers.as_ptr())
        }
    }

    /// What the lower or upper `half` of each of the 16 bytes from `codes` on stands for.
    #[inline(always)]
    unsafe fn load_codes(codes: *const u8, half: usize, meaning: &Codes) -> Self {
        // SAFETY: the caller gives 16 bytes.
        let codes = unsafe { codes.cast::<[u8; 16]>().read() };
        let numbers = codes.map(|code| meaning.numbers[usize::from(code >> (4 * half) & 15)]);
        // SAFETY: the caller's.
        unsafe { Self::load(numbers.as_ptr()) }
    }

    /// `self`, and `more` in those lanes whose bits of the two bytes from `bits` on are set.
    #[inline(always)]
    unsafe fn add_where(self, bits: *const u8, more: f32) -> Self {
        // SAFETY: the caller gives two bytes.
        let bits = u16::from_le_bytes(unsafe { bits.cast::<[u8; 2]>().read() });
        let mut numbers = [0.0; 16];
        for (i, number) in numbers.iter_mut().enumerate() {
            *number = if bits >> i & 1 == 1 { more } else { 0.0 };
        }
        // SAFETY: the caller's.
        unsafe { self.add(Self::load(numbers.as_ptr())) }
    }

    /// Write the 16 numbers to `to`, which needs no alignment.
    unsafe fn store(self, to: *mut f32);

    /// `self + other`.
    unsafe fn add(self, other: Self) -> Self;

    /// `self · other`.
    unsafe fn mul(self, other: Self) -> Self;

    /// `self + a · b`.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;

    /// The sums of the lanes of four.
    unsafe fn sums(four: [Self; 4]) -> [f32; 4];

    /// The sums of the lanes of sixteen, `[row][column]`, as `[column][row]`.
    #[inline(always)]
    unsafe fn transposed_sums(all: [[Self; 4]; 4]) -> [[f32; 4]; 4] {
        let mut out = [[0.0; 4]; 4];
        for (column, out) in out.iter_mut().enumerate() {
            // SAFETY: the caller's.
            *out = unsafe {
                Self::sums([
                    all[0][column],
                    all[1][column],
                    all[2][column],
                    all[3][column],
                ])
            };
        }
        out
    }

    /// Ask for the memory at `at`, which may lie anywhere, for a little later.
    #[inline(always)]
    unsafe fn prefetch_far(at: *const u8) {
        let _ = at;
    }

    /// The same for very soon.
    #[inline(always)]
    unsafe fn prefetch_near(at: *const u8) {
        let _ = at;
    }

    /// [`tiles::sums`] in a function of its own: among others, the registers do not suffice for the sums.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn tile<const R: usize, const C: usize>(
        w: [*const f32; R],
        x: [*const f32; C],
        columns: usize,
    ) -> [[f32; R]; C] {
        // SAFETY: the caller's.
        unsafe { tiles::sums::<Self, R, C>(w, x, columns) }
    }

    /// [`sums::sums`] in a function of its own, for the same reason.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn panel<W: Pieces, const P: usize, const C: usize, const AHEAD: bool>(
        w: W,
        x: *const f32,
        columns: usize,
        soon: Soon,
    ) -> [[Self; P]; C] {
        // SAFETY: the caller's.
        unsafe { sums::sums::<Self, W, P, C, AHEAD>(w, x, columns, soon) }
    }
}

/// Plain numbers, for processors without anything better known.
#[derive(Clone, Copy)]
#[cfg_attr(target_arch = "aarch64", allow(dead_code))]
pub(super) struct Plain([f32; 16]);

// SAFETY: needs no instructions of its own.
unsafe impl Lanes for Plain {
    const ROWS: usize = 3;
    const COLUMNS: usize = 2;
    const PANEL: usize = 1;
    const MANY: usize = 2;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 16])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's; an array of f32 has the alignment of f32.
        Self(unsafe { from.cast::<[f32; 16]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: the caller's.
        Self([unsafe { *from }; 16])
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { to.cast::<[f32; 16]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn add(mut self, other: Self) -> Self {
        for i in 0..16 {
            self.0[i] += other.0[i];
        }
        self
    }

    #[inline(always)]
    unsafe fn mul(mut self, other: Self) -> Self {
        for i in 0..16 {
            self.0[i] *= other.0[i];
        }
        self
    }

    #[inline(always)]
    unsafe fn add_product(mut self, a: Self, b: Self) -> Self {
        for i in 0..16 {
            self.0[i] += a.0[i] * b.0[i];
        }
        self
    }

    #[inline(always)]
    unsafe fn sums(four: [Self; 4]) -> [f32; 4] {
        four.map(|lanes| {
            let mut v = lanes.0;
            let mut half = 8;
            while half > 0 {
                for i in 0..half {
                    v[i] += v[i + half];
                }
                half /= 2;
            }
            v[0]
        })
    }
}
