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
    unsafe fn mul(mut self, other: Self) -> Self {
        for i in 0..4 {
            // SAFETY: as above.
            self.0[i] = unsafe { vmulq_f32(self.0[i], other.0[i]) };
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
