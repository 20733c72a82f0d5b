//! The block formats of GGUF: a few numbers share a scale (and a minimum), and each is stored in four to eight bits.
//!
//! Layouts: <https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h>. A number q of a group stands for
//! scale · (q − centre) + minimum, of which a format has what its description says. In the K formats the former is scale ·
//! factor and the latter −minimum · factor, each group of the block with factors of its own.

use candle_core::quantized::GgmlDType;
use std::ops::Range;

/// A block format that the kernels read as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    non_camel_case_types,
    reason = "the names of the formats, as everyone writes them"
)]
pub enum BlockFormat {
    /// 32 numbers: scale, 4 bits each, centred.
    Q4_0,
    /// 32 numbers: scale, minimum, 4 bits each.
    Q4_1,
    /// 32 numbers: scale, 5 bits each, centred.
    Q5_0,
    /// 32 numbers: scale, minimum, 5 bits each.
    Q5_1,
    /// 32 numbers: scale, 8 signed bits each.
    Q8_0,
    /// 256 numbers in 8 groups with 6-bit scales and minima, 4 bits each.
    Q4_K,
    /// 256 numbers in 8 groups with 6-bit scales and minima, 5 bits each.
    Q5_K,
    /// 256 numbers in 16 groups with 8-bit scales, 6 bits each, centred.
    Q6_K,
}

impl BlockFormat {
    /// All formats, each at the place that its number names.
    pub const ALL: [Self; 8] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
    ];

    /// The format of a type of candle's; `None` for plain floats and for formats without a kernel.
    #[must_use]
    pub fn of(dtype: GgmlDType) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.dtype() == dtype)
    }

    /// Candle's name of the format.
    #[must_use]
    pub fn dtype(self) -> GgmlDType {
        match self {
            Self::Q4_0 => GgmlDType::Q4_0,
            Self::Q4_1 => GgmlDType::Q4_1,
            Self::Q5_0 => GgmlDType::Q5_0,
            Self::Q5_1 => GgmlDType::Q5_1,
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q4_K => GgmlDType::Q4K,
            Self::Q5_K => GgmlDType::Q5K,
            Self::Q6_K => GgmlDType::Q6K,
        }
    }

    /// Numbers in a block.
    #[must_use]
    pub const fn numbers(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
        }
    }

    /// Bytes of a block.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }

    /// Bits of a number.
    pub(super) const fn bits(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q4_K => 4,
            Self::Q5_0 | Self::Q5_1 | Self::Q5_K => 5,
            Self::Q6_K => 6,
            Self::Q8_0 => 8,
        }
    }

    /// What its numbers are less than they are stored as.
    pub(super) const fn centre(self) -> i8 {
        match self {
            Self::Q4_0 => 8,
            Self::Q5_0 => 16,
            Self::Q6_K => 32,
            Self::Q4_1 | Self::Q5_1 | Self::Q8_0 | Self::Q4_K | Self::Q5_K => 0,
        }
    }

    /// Numbers that share a scale.
    pub(super) const fn group(self) -> usize {
        match self {
            Self::Q6_K => 16,
            _ => 32,
        }
    }

    /// Where the scale of a block lies and, if it has one, its minimum, each an f16.
    pub(super) const fn halves(self) -> Range<usize> {
        match self {
            Self::Q4_0 | Self::Q5_0 | Self::Q8_0 => 0..2,
            Self::Q4_1 | Self::Q5_1 | Self::Q4_K | Self::Q5_K => 0..4,
            Self::Q6_K => 208..210,
        }
    }

    /// Where the factors of groups lie by which these are multiplied, if it has any.
    pub(super) const fn factors(self) -> Range<usize> {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 0..0,
            Self::Q4_K | Self::Q5_K => 4..16,
            Self::Q6_K => 192..208,
        }
    }

    /// The numbers of a block as they are stored, in the order of the row; those of eight bits have a sign.
    ///
    /// # Panics
    /// If `block` or `out` is shorter than a block.
    pub(super) fn stored(self, block: &[u8], out: &mut [u8]) {
        let out = &mut out[..self.numbers()];
        let block = &block[..self.bytes()];
        match self {
            Self::Q4_0 => nibbles(&block[2..], out),
            Self::Q4_1 => nibbles(&block[4..], out),
            Self::Q5_0 => {
                nibbles(&block[6..], out);
                fifths(&block[2..], out);
            }
            Self::Q5_1 => {
                nibbles(&block[8..], out);
                fifths(&block[4..], out);
            }
            Self::Q8_0 => out.copy_from_slice(&block[2..]),
            Self::Q4_K => out
                .chunks_exact_mut(64)
                .zip(block[16..].chunks_exact(32))
                .for_each(|(out, pairs)| nibbles(pairs, out)),
            Self::Q5_K => {
                let pairs = block[48..].chunks_exact(32);
                for (i, (out, pairs)) in out.chunks_exact_mut(64).zip(pairs).enumerate() {
                    nibbles(pairs, out);
                    let (low, high) = out.split_at_mut(32);
                    for ((low, high), bits) in low.iter_mut().zip(high).zip(&block[16..48]) {
                        *low |= (bits >> (2 * i) & 1) << 4;
                        *high |= (bits >> (2 * i + 1) & 1) << 4;
                    }
                }
            }
            // Two halves of 128 numbers: 64 bytes of low four bits, 32 bytes of high two bits.
            Self::Q6_K => {
                for (i, out) in out.chunks_exact_mut(128).enumerate() {
                    nibbles(&block[64 * i..64 * i + 64], out);
                    let high = &block[128 + 32 * i..128 + 32 * i + 32];
                    for (quarter, out) in out.chunks_exact_mut(32).enumerate() {
                        for (out, high) in out.iter_mut().zip(high) {
                            *out |= (high >> (2 * quarter) & 3) << 4;
                        }
                    }
                }
            }
        }
    }
}

/// Numbers of four bits: those of the bytes' low bits are the first half, those of their high bits the second.
fn nibbles(pairs: &[u8], out: &mut [u8]) {
    let (low, high) = out.split_at_mut(out.len() / 2);
    for ((low, high), pair) in low.iter_mut().zip(high).zip(pairs) {
        (*low, *high) = (pair & 15, pair >> 4);
    }
}

/// The fifth bits of 32 numbers, one after the other.
fn fifths(bits: &[u8], out: &mut [u8]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out |= (bits[i / 8] >> (i % 8) & 1) << 4;
    }
}

/// Factor and factor of the minimum of group `j` of eight: six bits each in twelve bytes, those of the last four groups in
/// pieces. `byte` tells the twelve.
#[inline(always)]
pub(super) fn six_bits(byte: impl Fn(usize) -> u8, j: usize) -> (u8, u8) {
    if j < 4 {
        (byte(j) & 63, byte(j + 4) & 63)
    } else {
        (
            (byte(j + 4) & 15) | ((byte(j - 4) >> 6) << 4),
            (byte(j + 4) >> 4) | ((byte(j) >> 6) << 4),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_found_by_their_names() {
        for (i, format) in BlockFormat::ALL.into_iter().enumerate() {
            let dtype = format.dtype();
            assert_eq!(BlockFormat::of(dtype), Some(format));
            assert_eq!(format as usize, i);
            assert_eq!(format.numbers(), dtype.block_size(), "{format:?}");
            assert_eq!(format.bytes(), dtype.type_size(), "{format:?}");
        }
        assert_eq!(BlockFormat::of(GgmlDType::F16), None);
        assert_eq!(BlockFormat::of(GgmlDType::Q2K), None);
    }
}
