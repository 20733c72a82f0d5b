//! AVX2 with fused multiply-add, and AVX-512.

use super::super::panels::sums::{self, Pieces, Soon};
use super::super::tiles;
use super::{Codes, Lanes};
use half::{bf16, f16};
use std::arch::x86_64::*;

/// The loops of a set, each in a function of its own that is compiled for the features: inlined into one, the registers would
/// not suffice for the sums.
macro_rules! own_functions {
    ($set:ident, $features:literal) => {
        #[inline(always)]
        unsafe fn tile<const R: usize, const C: usize>(
            w: [*const f32; R],
            x: [*const f32; C],
            columns: usize,
        ) -> [[f32; R]; C] {
            #[target_feature(enable = $features)]
            #[inline(never)]
            unsafe fn own<const R: usize, const C: usize>(
                w: [*const f32; R],
                x: [*const f32; C],
                columns: usize,
            ) -> [[f32; R]; C] {
                // SAFETY: the caller's; the processor has the features of this function.
                unsafe { tiles::sums::<$set, R, C>(w, x, columns) }
            }
            // SAFETY: the caller's.
            unsafe { own::<R, C>(w, x, columns) }
        }

        #[inline(always)]
        unsafe fn panel<W: Pieces, const P: usize, const C: usize, const AHEAD: bool>(
            w: W,
            x: *const f32,
            columns: usize,
            soon: Soon,
        ) -> [[Self; P]; C] {
            #[target_feature(enable = $features)]
            #[inline(never)]
            unsafe fn own<W: Pieces, const P: usize, const C: usize, const AHEAD: bool>(
                w: W,
                x: *const f32,
                columns: usize,
                soon: Soon,
            ) -> [[$set; P]; C] {
                // SAFETY: the caller's; the processor has the features of this function.
                unsafe { sums::sums::<$set, W, P, C, AHEAD>(w, x, columns, soon) }
            }
            // SAFETY: the caller's.
            unsafe { own::<W, P, C, AHEAD>(w, x, columns, soon) }
        }
    };
}

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

// SAFETY: the methods use AVX2, FMA and F16C alone.
unsafe impl Lanes for Avx2 {
    own_functions!(Avx2, "avx2,fma,f16c");

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
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: the caller gives 16 numbers.
        Self(unsafe {
            [
                _mm256_cvtph_ps(_mm_loadu_si128(from.cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast())),
            ]
        })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: the caller gives 16 numbers.
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(8).cast()));
            Self([
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            ])
        }
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // SAFETY: the caller gives 16 numbers.
        Self(unsafe {
            [
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.add(8).cast()))),
            ]
        })
    }

    #[inline(always)]
    unsafe fn load_codes(codes: *const u8, half: usize, meaning: &Codes) -> Self {
        // SAFETY: the caller gives 16 bytes.
        unsafe {
            let codes = _mm_loadu_si128(codes.cast());
            let codes = _mm_srl_epi16(codes, _mm_cvtsi32_si128(4 * half as i32));
            let codes = _mm_and_si128(codes, _mm_set1_epi8(15));
            let numbers = _mm_shuffle_epi8(_mm_loadu_si128(meaning.bytes.as_ptr().cast()), codes);
            let (low, high) = (numbers, _mm_srli_si128::<8>(numbers));
            Self([
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(low)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(high)),
            ])
        }
    }

    #[inline(always)]
    unsafe fn add_where(self, bits: *const u8, more: f32) -> Self {
        // SAFETY: the caller gives two bytes.
        unsafe {
            let bits = i32::from(bits.cast::<u16>().read_unaligned());
            let more = _mm256_set1_ps(more);
            let each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let low = _mm256_and_si256(_mm256_set1_epi32(bits), each);
            let high = _mm256_and_si256(_mm256_set1_epi32(bits >> 8), each);
            let (low, high) = (
                _mm256_castsi256_ps(_mm256_cmpeq_epi32(low, each)),
                _mm256_castsi256_ps(_mm256_cmpeq_epi32(high, each)),
            );
            Self([
                _mm256_add_ps(self.0[0], _mm256_and_ps(low, more)),
                _mm256_add_ps(self.0[1], _mm256_and_ps(high, more)),
            ])
        }
    }

    #[inline(always)]
    unsafe fn load_packed<const LOW: usize>(
        low: *const u8,
        codes: *const u8,
        half: usize,
        table: Self,
    ) -> Self {
        // SAFETY: the caller gives 16 times `LOW` bytes, some more, and 16 codes.
        unsafe {
            // The highest bytes of the table one after the other.
            let a = _mm256_srli_epi32::<24>(_mm256_castps_si256(table.0[0]));
            let b = _mm256_srli_epi32::<24>(_mm256_castps_si256(table.0[1]));
            let mixed = _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_setzero_si256());
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 3, 6, 7);
            let table = _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(mixed, order));
            let codes = _mm_loadu_si128(codes.cast());
            let codes = _mm_srl_epi16(codes, _mm_cvtsi32_si128(4 * half as i32));
            let high = _mm_shuffle_epi8(table, _mm_and_si128(codes, _mm_set1_epi8(15)));
            let highs = [high, _mm_srli_si128::<8>(high)];
            let mut out = [_mm256_setzero_ps(); 2];
            let mut i = 0;
            while i < 2 {
                let high = _mm256_slli_epi32::<24>(_mm256_cvtepu8_epi32(highs[i]));
                let low = low.add(8 * LOW * i);
                let low = if LOW == 3 {
                    let (a, b) = (low.cast(), low.add(12).cast());
                    let both = _mm256_set_m128i(_mm_loadu_si128(b), _mm_loadu_si128(a));
                    let spread =
                        _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
                    _mm256_shuffle_epi8(both, _mm256_broadcastsi128_si256(spread))
                } else {
                    _mm256_slli_epi32::<16>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(low.cast())))
                };
                out[i] = _mm256_castsi256_ps(_mm256_or_si256(low, high));
                i += 1;
            }
            Self(out)
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
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller's.
        Self(unsafe {
            [
                _mm256_mul_ps(self.0[0], other.0[0]),
                _mm256_mul_ps(self.0[1], other.0[1]),
            ]
        })
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
    unsafe fn prefetch_far(at: *const u8) {
        // SAFETY: a prefetch of any address is allowed, so below.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }

    #[inline(always)]
    unsafe fn prefetch_near(at: *const u8) {
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
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

// SAFETY: the methods use AVX-512F, AVX-512BW and AVX2 alone.
unsafe impl Lanes for Avx512 {
    own_functions!(Avx512, "avx512f,avx512bw,avx2,fma,f16c");

    const ROWS: usize = 4;
    const COLUMNS: usize = 6;
    const PANEL: usize = 2;
    const MANY: usize = 12;
    const MOST: usize = 14;
    const FEW: usize = 4;

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
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: the caller gives 16 numbers.
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: the caller gives 16 numbers.
        Self(unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        })
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // SAFETY: the caller gives 16 numbers.
        Self(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) })
    }

    #[inline(always)]
    unsafe fn load_codes(codes: *const u8, half: usize, meaning: &Codes) -> Self {
        // SAFETY: the caller gives 16 bytes.
        unsafe {
            let codes = _mm512_cvtepu8_epi32(_mm_loadu_si128(codes.cast()));
            // Four bits of each are looked at.
            let codes = match half {
                0 => codes,
                _ => _mm512_srli_epi32::<4>(codes),
            };
            Self(_mm512_permutexvar_ps(
                codes,
                _mm512_loadu_ps(meaning.numbers.as_ptr()),
            ))
        }
    }

    #[inline(always)]
    unsafe fn add_where(self, bits: *const u8, more: f32) -> Self {
        // SAFETY: the caller gives two bytes.
        unsafe {
            let bits = bits.cast::<u16>().read_unaligned();
            Self(_mm512_mask_add_ps(
                self.0,
                bits,
                self.0,
                _mm512_set1_ps(more),
            ))
        }
    }

    #[inline(always)]
    unsafe fn load_packed<const LOW: usize>(
        low: *const u8,
        codes: *const u8,
        half: usize,
        table: Self,
    ) -> Self {
        // SAFETY: the caller gives 16 times `LOW` bytes, some more, and 16 codes.
        unsafe {
            let low = if LOW == 3 {
                // Twelve bytes to each quarter, then three to each number.
                let quarters = _mm512_setr_epi32(0, 1, 2, 0, 3, 4, 5, 0, 6, 7, 8, 0, 9, 10, 11, 0);
                let bytes = _mm512_permutexvar_epi32(quarters, _mm512_loadu_si512(low.cast()));
                let spread = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
                _mm512_shuffle_epi8(bytes, _mm512_broadcast_i32x4(spread))
            } else {
                _mm512_slli_epi32::<16>(_mm512_cvtepu8_epi32(_mm_loadu_si128(low.cast())))
            };
            let codes = _mm512_cvtepu8_epi32(_mm_loadu_si128(codes.cast()));
            // Four bits of each are looked at.
            let codes = match half {
                0 => codes,
                _ => _mm512_srli_epi32::<4>(codes),
            };
            let high = _mm512_permutexvar_epi32(codes, _mm512_castps_si512(table.0));
            Self(_mm512_castsi512_ps(_mm512_or_si512(low, high)))
        }
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
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
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
    unsafe fn prefetch_far(at: *const u8) {
        // SAFETY: a prefetch of any address is allowed, so below.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }

    #[inline(always)]
    unsafe fn prefetch_near(at: *const u8) {
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
}
