//! Sixteen running sums of a dot product, in the registers of whatever the processor has.
//!
//! Every set adds the same numbers in the same order: lane i takes the columns i, i + 16, i + 32, …, and the lanes are
//! added by halves (i + 8, then i + 4, i + 2, i + 1). The sets with a fused multiply-add round alike, so AVX2 and AVX-512
//! agree to the last bit; without one the products are rounded too.
#![allow(unsafe_code)]

use super::panels;
use super::q8;
use super::tiles::{self, Ahead};

/// Sixteen lanes of f32.
///
/// # Safety
/// The methods may only run on a processor that has the instructions of the type, and `load` reads 16 numbers.
pub(super) unsafe trait Lanes: Copy {
    /// Weight rows of a register tile: 3 or 4.
    const ROWS: usize;
    /// Most input rows of a register tile, at most 6.
    const COLUMNS: usize;
    /// Lanes side by side in a panel of weights: 1 or 2.
    const PANEL: usize;
    /// Most input rows that are multiplied with a panel at once, at most 12.
    const MANY: usize;

    /// All zero.
    unsafe fn zero() -> Self;

    /// The 16 numbers at `from`, which need no alignment.
    unsafe fn load(from: *const f32) -> Self;

    /// Sixteen times the number at `from`.
    unsafe fn splat(from: *const f32) -> Self;

    /// `scale` times the 16 whole numbers at `from`.
    #[inline(always)]
    unsafe fn scaled(from: *const i8, scale: f32) -> Self {
        let mut numbers = [0.0f32; 16];
        // SAFETY: the caller gives 16 numbers.
        unsafe {
            for (i, number) in numbers.iter_mut().enumerate() {
                *number = scale * f32::from(*from.add(i));
            }
            Self::load(numbers.as_ptr())
        }
    }

    /// Write the 16 numbers to `to`, which needs no alignment.
    unsafe fn store(self, to: *mut f32);

    /// `self + other`.
    unsafe fn add(self, other: Self) -> Self;

    /// `self + a · b`.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;

    /// Sixteen rows as sixteen columns.
    #[inline(always)]
    unsafe fn transposed(rows: [Self; 16]) -> [Self; 16] {
        let mut numbers = [[0.0f32; 16]; 16];
        let mut out = rows;
        // SAFETY: the caller's; every array has 16 numbers.
        unsafe {
            for (row, numbers) in rows.iter().zip(&mut numbers) {
                row.store(numbers.as_mut_ptr());
            }
            for (column, out) in out.iter_mut().enumerate() {
                let mut line = [0.0f32; 16];
                for (line, numbers) in line.iter_mut().zip(&numbers) {
                    *line = numbers[column];
                }
                *out = Self::load(line.as_ptr());
            }
        }
        out
    }

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

    /// Ask for the memory at `at`, which may lie anywhere.
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
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
        ahead: &mut Ahead,
    ) -> [[f32; R]; C] {
        // SAFETY: the caller's.
        unsafe { tiles::sums::<Self, R, C>(w, x, columns, ahead) }
    }

    /// [`q8::sums`] in a function of its own.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn q8_tile<const R: usize, const C: usize>(
        w: [*const u8; R],
        x: [*const f32; C],
        blocks: usize,
        ahead: &mut Ahead,
    ) -> [[f32; R]; C] {
        // SAFETY: the caller's.
        unsafe { q8::sums::<Self, R, C>(w, x, blocks, ahead) }
    }

    /// [`panels::sums`] in a function of its own, for the same reason.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn panel<const P: usize, const C: usize>(
        w: *const f32,
        x: *const f32,
        steps: usize,
        ahead: &mut Ahead,
    ) -> [[Self; P]; C] {
        // SAFETY: the caller's.
        unsafe { panels::sums::<Self, P, C>(w, x, steps, ahead) }
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

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    //! AVX2 with fused multiply-add, and AVX-512.

    use super::{Ahead, Lanes, panels, q8, tiles};
    use std::arch::x86_64::*;

    /// Twice eight lanes.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2([__m256; 2]);

    // No closures below: these functions only become instructions where they are inlined into a function that has the
    // features, and that is only certain for functions marked so.

    /// Lanes i + lanes i + 4 of eight.
    #[inline(always)]
    unsafe fn by_four(v: __m256) -> __m128 {
        // SAFETY: AVX2 is there, as the caller promises; so below.
        unsafe { _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v)) }
    }

    /// The sums of four times eight lanes.
    #[inline(always)]
    unsafe fn eights(a: __m256, b: __m256, c: __m256, d: __m256) -> [f32; 4] {
        // SAFETY: the caller's.
        unsafe {
            let (a, b, c, d) = (by_four(a), by_four(b), by_four(c), by_four(d));
            let ab = _mm_add_ps(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a));
            let cd = _mm_add_ps(_mm_movelh_ps(c, d), _mm_movehl_ps(d, c));
            let sums = _mm_add_ps(
                _mm_shuffle_ps::<0x88>(ab, cd),
                _mm_shuffle_ps::<0xdd>(ab, cd),
            );
            let mut out = [0.0; 4];
            _mm_storeu_ps(out.as_mut_ptr(), sums);
            out
        }
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline(never)]
    unsafe fn tile_avx2<const R: usize, const C: usize>(
        w: [*const f32; R],
        x: [*const f32; C],
        columns: usize,
        ahead: &mut Ahead,
    ) -> [[f32; R]; C] {
        // SAFETY: the caller's; the processor has the features of this function.
        unsafe { tiles::sums::<Avx2, R, C>(w, x, columns, ahead) }
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline(never)]
    unsafe fn q8_avx2<const R: usize, const C: usize>(
        w: [*const u8; R],
        x: [*const f32; C],
        blocks: usize,
        ahead: &mut Ahead,
    ) -> [[f32; R]; C] {
        // SAFETY: the caller's; the processor has the features of this function.
        unsafe { q8::sums::<Avx2, R, C>(w, x, blocks, ahead) }
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline(never)]
    unsafe fn panel_avx2<const P: usize, const C: usize>(
        w: *const f32,
        x: *const f32,
        steps: usize,
        ahead: &mut Ahead,
    ) -> [[Avx2; P]; C] {
        // SAFETY: the caller's; the processor has the features of this function.
        unsafe { panels::sums::<Avx2, P, C>(w, x, steps, ahead) }
    }

    /// Eight rows of eight as columns.
    #[inline(always)]
    unsafe fn eight_by_eight(r: [__m256; 8]) -> [__m256; 8] {
        // SAFETY: the caller's.
        unsafe {
            // Numbers of neighbouring rows side by side, then pairs, then halves.
            let mut pairs = r;
            for i in (0..8).step_by(2) {
                pairs[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
                pairs[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
            }
            let mut fours = r;
            for i in (0..8).step_by(4) {
                for j in 0..2 {
                    let (a, b) = (pairs[i + j], pairs[i + j + 2]);
                    fours[i + 2 * j] = _mm256_shuffle_ps::<0x44>(a, b);
                    fours[i + 2 * j + 1] = _mm256_shuffle_ps::<0xee>(a, b);
                }
            }
            let mut out = r;
            for i in 0..4 {
                out[i] = _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]);
                out[i + 4] = _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]);
            }
            out
        }
    }

    // SAFETY: the methods use AVX2 and FMA alone.
    unsafe impl Lanes for Avx2 {
        #[inline(always)]
        unsafe fn tile<const R: usize, const C: usize>(
            w: [*const f32; R],
            x: [*const f32; C],
            columns: usize,
            ahead: &mut Ahead,
        ) -> [[f32; R]; C] {
            // SAFETY: the caller's.
            unsafe { tile_avx2::<R, C>(w, x, columns, ahead) }
        }

        const ROWS: usize = 3;
        const COLUMNS: usize = 2;
        const PANEL: usize = 1;
        const MANY: usize = 6;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the caller's, as below.
            Self(unsafe { [_mm256_setzero_ps(); 2] })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller gives 16 numbers.
            Self(unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] })
        }

        #[inline(always)]
        unsafe fn splat(from: *const f32) -> Self {
            // SAFETY: the caller gives a number.
            Self(unsafe { [_mm256_broadcast_ss(&*from); 2] })
        }

        #[inline(always)]
        unsafe fn scaled(from: *const i8, scale: f32) -> Self {
            // SAFETY: the caller gives 16 numbers.
            unsafe {
                let scale = _mm256_set1_ps(scale);
                let low = _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()));
                let high = _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.add(8).cast()));
                Self([
                    _mm256_mul_ps(scale, _mm256_cvtepi32_ps(low)),
                    _mm256_mul_ps(scale, _mm256_cvtepi32_ps(high)),
                ])
            }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller has room for 16 numbers.
            unsafe {
                _mm256_storeu_ps(to, self.0[0]);
                _mm256_storeu_ps(to.add(8), self.0[1]);
            }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: the caller's.
            Self(unsafe {
                [
                    _mm256_add_ps(self.0[0], other.0[0]),
                    _mm256_add_ps(self.0[1], other.0[1]),
                ]
            })
        }

        #[inline(always)]
        unsafe fn transposed(rows: [Self; 16]) -> [Self; 16] {
            let mut out = rows;
            // Quarters of eight by eight.
            for down in 0..2 {
                for across in 0..2 {
                    // SAFETY: the caller's.
                    unsafe {
                        let mut quarter = [_mm256_setzero_ps(); 8];
                        for i in 0..8 {
                            quarter[i] = rows[8 * down + i].0[across];
                        }
                        let quarter = eight_by_eight(quarter);
                        for i in 0..8 {
                            out[8 * across + i].0[down] = quarter[i];
                        }
                    }
                }
            }
            out
        }

        #[inline(always)]
        unsafe fn panel<const P: usize, const C: usize>(
            w: *const f32,
            x: *const f32,
            steps: usize,
            ahead: &mut Ahead,
        ) -> [[Self; P]; C] {
            // SAFETY: the caller's.
            unsafe { panel_avx2::<P, C>(w, x, steps, ahead) }
        }

        #[inline(always)]
        unsafe fn q8_tile<const R: usize, const C: usize>(
            w: [*const u8; R],
            x: [*const f32; C],
            blocks: usize,
            ahead: &mut Ahead,
        ) -> [[f32; R]; C] {
            // SAFETY: the caller's.
            unsafe { q8_avx2::<R, C>(w, x, blocks, ahead) }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller's.
            Self(unsafe {
                [
                    _mm256_fmadd_ps(a.0[0], b.0[0], self.0[0]),
                    _mm256_fmadd_ps(a.0[1], b.0[1], self.0[1]),
                ]
            })
        }

        #[inline(always)]
        unsafe fn sums(four: [Self; 4]) -> [f32; 4] {
            // SAFETY: the caller's.
            unsafe {
                let [a, b, c, d] = four;
                eights(
                    _mm256_add_ps(a.0[0], a.0[1]),
                    _mm256_add_ps(b.0[0], b.0[1]),
                    _mm256_add_ps(c.0[0], c.0[1]),
                    _mm256_add_ps(d.0[0], d.0[1]),
                )
            }
        }

        #[inline(always)]
        unsafe fn prefetch(at: *const u8) {
            // SAFETY: a prefetch of any address is allowed.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
        }
    }

    /// Sixteen lanes in one register.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

    /// Lanes i + lanes i + 8 of sixteen.
    #[inline(always)]
    unsafe fn half(v: Avx512) -> __m256 {
        // SAFETY: the caller's.
        unsafe {
            _mm256_add_ps(
                _mm512_castps512_ps256(v.0),
                _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(v.0))),
            )
        }
    }

    /// Four times sixteen lanes, each added down to a quarter.
    #[inline(always)]
    unsafe fn quarters(row: [Avx512; 4]) -> __m512 {
        // SAFETY: the caller's.
        unsafe {
            let [a, b, c, d] = row;
            let ab = _mm512_add_ps(
                _mm512_shuffle_f32x4::<0x44>(a.0, b.0),
                _mm512_shuffle_f32x4::<0xee>(a.0, b.0),
            );
            let cd = _mm512_add_ps(
                _mm512_shuffle_f32x4::<0x44>(c.0, d.0),
                _mm512_shuffle_f32x4::<0xee>(c.0, d.0),
            );
            _mm512_add_ps(
                _mm512_shuffle_f32x4::<0x88>(ab, cd),
                _mm512_shuffle_f32x4::<0xdd>(ab, cd),
            )
        }
    }

    /// Of each quarter of two, the lower two lanes + the upper two.
    #[inline(always)]
    unsafe fn by_two(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller's.
        unsafe {
            let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
            _mm512_add_ps(
                _mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)),
            )
        }
    }

    #[target_feature(enable = "avx512f,avx2,fma")]
    #[inline(never)]
    unsafe fn tile_avx512<const R: usize, const C: usize>(
        w: [*const f32; R],
        x: [*const f32; C],
        columns: usize,
        ahead: &mut Ahead,
    ) -> [[f32; R]; C] {
        // SAFETY: the caller's; the processor has the features of this function.
        unsafe { tiles::sums::<Avx512, R, C>(w, x, columns, ahead) }
    }

    #[target_feature(enable = "avx512f,avx2,fma")]
    #[inline(never)]
    unsafe fn q8_avx512<const R: usize, const C: usize>(
        w: [*const u8; R],
        x: [*const f32; C],
        blocks: usize,
        ahead: &mut Ahead,
    ) -> [[f32; R]; C] {
        // SAFETY: the caller's; the processor has the features of this function.
        unsafe { q8::sums::<Avx512, R, C>(w, x, blocks, ahead) }
    }

    #[target_feature(enable = "avx512f,avx2,fma")]
    #[inline(never)]
    unsafe fn panel_avx512<const P: usize, const C: usize>(
        w: *const f32,
        x: *const f32,
        steps: usize,
        ahead: &mut Ahead,
    ) -> [[Avx512; P]; C] {
        // SAFETY: the caller's; the processor has the features of this function.
        unsafe { panels::sums::<Avx512, P, C>(w, x, steps, ahead) }
    }

    /// Sixteen rows of sixteen as columns.
    #[inline(always)]
    unsafe fn sixteen_by_sixteen(r: [Avx512; 16]) -> [Avx512; 16] {
        // SAFETY: the caller's.
        unsafe {
            // Numbers of neighbouring rows side by side, then pairs, then quarters, then halves.
            let mut pairs = r;
            for i in (0..16).step_by(2) {
                pairs[i].0 = _mm512_unpacklo_ps(r[i].0, r[i + 1].0);
                pairs[i + 1].0 = _mm512_unpackhi_ps(r[i].0, r[i + 1].0);
            }
            let mut fours = r;
            for i in (0..16).step_by(4) {
                for j in 0..2 {
                    let (a, b) = (pairs[i + j].0, pairs[i + j + 2].0);
                    fours[i + 2 * j].0 = _mm512_shuffle_ps::<0x44>(a, b);
                    fours[i + 2 * j + 1].0 = _mm512_shuffle_ps::<0xee>(a, b);
                }
            }
            // Quarter q of `fours[i + j]` holds column 4q + j of rows i..i + 4.
            let mut out = r;
            for j in 0..4 {
                let [a, b, c, d] = [fours[j].0, fours[4 + j].0, fours[8 + j].0, fours[12 + j].0];
                let ab_even = _mm512_shuffle_f32x4::<0x88>(a, b);
                let ab_odd = _mm512_shuffle_f32x4::<0xdd>(a, b);
                let cd_even = _mm512_shuffle_f32x4::<0x88>(c, d);
                let cd_odd = _mm512_shuffle_f32x4::<0xdd>(c, d);
                out[j].0 = _mm512_shuffle_f32x4::<0x88>(ab_even, cd_even);
                out[4 + j].0 = _mm512_shuffle_f32x4::<0x88>(ab_odd, cd_odd);
                out[8 + j].0 = _mm512_shuffle_f32x4::<0xdd>(ab_even, cd_even);
                out[12 + j].0 = _mm512_shuffle_f32x4::<0xdd>(ab_odd, cd_odd);
            }
            out
        }
    }

    // SAFETY: the methods use AVX-512F (and AVX2) alone.
    unsafe impl Lanes for Avx512 {
        #[inline(always)]
        unsafe fn tile<const R: usize, const C: usize>(
            w: [*const f32; R],
            x: [*const f32; C],
            columns: usize,
            ahead: &mut Ahead,
        ) -> [[f32; R]; C] {
            // SAFETY: the caller's.
            unsafe { tile_avx512::<R, C>(w, x, columns, ahead) }
        }

        const ROWS: usize = 4;
        const COLUMNS: usize = 6;
        const PANEL: usize = 2;
        const MANY: usize = 12;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the caller's, as below.
            Self(unsafe { _mm512_setzero_ps() })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller gives 16 numbers.
            Self(unsafe { _mm512_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn splat(from: *const f32) -> Self {
            // SAFETY: the caller gives a number.
            Self(unsafe { _mm512_set1_ps(*from) })
        }

        #[inline(always)]
        unsafe fn scaled(from: *const i8, scale: f32) -> Self {
            // SAFETY: the caller gives 16 numbers.
            Self(unsafe {
                let whole = _mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()));
                _mm512_mul_ps(_mm512_set1_ps(scale), _mm512_cvtepi32_ps(whole))
            })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller has room for 16 numbers.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: the caller's.
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn transposed(rows: [Self; 16]) -> [Self; 16] {
            // SAFETY: the caller's.
            unsafe { sixteen_by_sixteen(rows) }
        }

        #[inline(always)]
        unsafe fn panel<const P: usize, const C: usize>(
            w: *const f32,
            x: *const f32,
            steps: usize,
            ahead: &mut Ahead,
        ) -> [[Self; P]; C] {
            // SAFETY: the caller's.
            unsafe { panel_avx512::<P, C>(w, x, steps, ahead) }
        }

        #[inline(always)]
        unsafe fn q8_tile<const R: usize, const C: usize>(
            w: [*const u8; R],
            x: [*const f32; C],
            blocks: usize,
            ahead: &mut Ahead,
        ) -> [[f32; R]; C] {
            // SAFETY: the caller's.
            unsafe { q8_avx512::<R, C>(w, x, blocks, ahead) }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller's.
            Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
        }

        #[inline(always)]
        unsafe fn sums(four: [Self; 4]) -> [f32; 4] {
            // SAFETY: the caller's.
            unsafe {
                let [a, b, c, d] = four;
                eights(half(a), half(b), half(c), half(d))
            }
        }

        #[inline(always)]
        unsafe fn transposed_sums(all: [[Self; 4]; 4]) -> [[f32; 4]; 4] {
            // SAFETY: the caller's.
            unsafe {
                let [a, b, c, d] = all;
                let ab = by_two(quarters(a), quarters(b));
                let cd = by_two(quarters(c), quarters(d));
                let sums = _mm512_add_ps(
                    _mm512_shuffle_ps::<0x88>(ab, cd),
                    _mm512_shuffle_ps::<0xdd>(ab, cd),
                );
                let mut out = [[0.0; 4]; 4];
                _mm512_storeu_ps(out.as_mut_ptr().cast(), sums);
                out
            }
        }

        #[inline(always)]
        unsafe fn prefetch(at: *const u8) {
            // SAFETY: a prefetch of any address is allowed.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub(super) mod arm {
    //! NEON, which every 64-bit ARM processor has.

    use super::Lanes;
    use std::arch::aarch64::*;

    /// Four times four lanes.
    #[derive(Clone, Copy)]
    pub(crate) struct Neon([float32x4_t; 4]);

    // SAFETY: NEON is part of the architecture.
    unsafe impl Lanes for Neon {
        const ROWS: usize = 3;
        const COLUMNS: usize = 2;
        const PANEL: usize = 1;
        const MANY: usize = 6;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: as above, and below.
            Self(unsafe { [vdupq_n_f32(0.0); 4] })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller gives 16 numbers.
            Self(unsafe {
                [
                    vld1q_f32(from),
                    vld1q_f32(from.add(4)),
                    vld1q_f32(from.add(8)),
                    vld1q_f32(from.add(12)),
                ]
            })
        }

        #[inline(always)]
        unsafe fn splat(from: *const f32) -> Self {
            // SAFETY: the caller gives a number.
            Self(unsafe { [vdupq_n_f32(*from); 4] })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            for (i, part) in self.0.into_iter().enumerate() {
                // SAFETY: the caller has room for 16 numbers.
                unsafe { vst1q_f32(to.add(4 * i), part) }
            }
        }

        #[inline(always)]
        unsafe fn add(mut self, other: Self) -> Self {
            for i in 0..4 {
                // SAFETY: as above.
                self.0[i] = unsafe { vaddq_f32(self.0[i], other.0[i]) };
            }
            self
        }

        #[inline(always)]
        unsafe fn add_product(mut self, a: Self, b: Self) -> Self {
            for i in 0..4 {
                // SAFETY: as above.
                self.0[i] = unsafe { vfmaq_f32(self.0[i], a.0[i], b.0[i]) };
            }
            self
        }

        #[inline(always)]
        unsafe fn sums(four: [Self; 4]) -> [f32; 4] {
            let mut out = [0.0; 4];
            for (out, v) in out.iter_mut().zip(four) {
                // SAFETY: as above.
                *out = unsafe {
                    let low = vaddq_f32(v.0[0], v.0[2]);
                    let four = vaddq_f32(low, vaddq_f32(v.0[1], v.0[3]));
                    let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
                    vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
                };
            }
            out
        }
    }
}
