//! The block formats of GGUF: a few numbers share a scale (and a minimum), and each is stored in four to eight bits.
//!
//! Layouts: <https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h>. Every format is widened in the order of
//! operations of its reference implementation, so that the numbers are the reference's to the last bit.

use candle_core::quantized::GgmlDType;
use half::f16;

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
    /// All formats, for tests and messages.
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
    pub fn numbers(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
        }
    }

    /// Bytes of a block.
    #[must_use]
    pub fn bytes(self) -> usize {
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

    /// Widen whole blocks to f32: as many as both `blocks` and `out` hold; what is left of either is not touched.
    #[inline(always)]
    pub fn widen(self, blocks: &[u8], out: &mut [f32]) {
        match self {
            Self::Q4_0 => each(blocks, out, q4_0),
            Self::Q4_1 => each(blocks, out, q4_1),
            Self::Q5_0 => each(blocks, out, q5_0),
            Self::Q5_1 => each(blocks, out, q5_1),
            Self::Q8_0 => each(blocks, out, q8_0),
            Self::Q4_K => each(blocks, out, q4_k),
            Self::Q5_K => each(blocks, out, q5_k),
            Self::Q6_K => each(blocks, out, q6_k),
        }
    }
}

#[inline(always)]
fn each<const BYTES: usize, const NUMBERS: usize>(
    blocks: &[u8],
    out: &mut [f32],
    widen: impl Fn(&[u8; BYTES], &mut [f32; NUMBERS]),
) {
    let (blocks, _) = blocks.as_chunks::<BYTES>();
    let (outs, _) = out.as_chunks_mut::<NUMBERS>();
    for (block, out) in blocks.iter().zip(outs) {
        widen(block, out);
    }
}

/// The f16 at byte `at`.
#[inline(always)]
fn half<const BYTES: usize>(block: &[u8; BYTES], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Numbers of four bits: that of byte `j`'s low bits lies in the first half, that of its high bits in the second.
#[inline(always)]
fn nibbles<const BYTES: usize>(block: &[u8; BYTES], at: usize) -> ([u8; 16], [u8; 16]) {
    let mut pairs = [0; 16];
    pairs.copy_from_slice(&block[at..at + 16]);
    (pairs.map(|pair| pair & 15), pairs.map(|pair| pair >> 4))
}

/// The scale of a block of Q4_0 and its numbers as signed bytes, which is how Q8_0 has them.
#[inline(always)]
pub(super) fn q4_0_as_bytes(block: &[u8; 18]) -> (f32, [u8; 32]) {
    let (low, high) = nibbles(block, 2);
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&low.map(|q| q.wrapping_sub(8)));
    bytes[16..].copy_from_slice(&high.map(|q| q.wrapping_sub(8)));
    (half(block, 0), bytes)
}

#[inline(always)]
fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let (scale, bytes) = q4_0_as_bytes(block);
    for (out, q) in out.iter_mut().zip(bytes) {
        *out = f32::from(q as i8) * scale;
    }
}

#[inline(always)]
fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (scale, least, (low, high)) = (half(block, 0), half(block, 2), nibbles(block, 4));
    let (lows, highs) = out.split_at_mut(16);
    for (out, q) in lows.iter_mut().zip(low) {
        *out = f32::from(q) * scale + least;
    }
    for (out, q) in highs.iter_mut().zip(high) {
        *out = f32::from(q) * scale + least;
    }
}

/// The fifth bits, one for each number, as a word.
#[inline(always)]
fn fifths<const BYTES: usize>(block: &[u8; BYTES], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

#[inline(always)]
fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let (scale, high) = (half(block, 0), fifths(block, 2));
    for j in 0..16 {
        let pair = u32::from(block[6 + j]);
        let low = (pair & 15) | ((high >> j & 1) << 4);
        let high = (pair >> 4) | ((high >> (j + 16) & 1) << 4);
        out[j] = (low as i32 - 16) as f32 * scale;
        out[j + 16] = (high as i32 - 16) as f32 * scale;
    }
}

#[inline(always)]
fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (scale, least, high) = (half(block, 0), half(block, 2), fifths(block, 4));
    for j in 0..16 {
        let pair = u32::from(block[8 + j]);
        let low = (pair & 15) | ((high >> j & 1) << 4);
        let high = (pair >> 4) | ((high >> (j + 16) & 1) << 4);
        out[j] = low as i32 as f32 * scale + least;
        out[j + 16] = high as i32 as f32 * scale + least;
    }
}

#[inline(always)]
fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    for (out, q) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(*q as i8) * scale;
    }
}

/// Scale and minimum of group `j` of eight: six bits each in twelve bytes, those of the last four groups in pieces.
#[inline(always)]
fn group(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, least) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (
            (packed[j + 4] & 15) | ((packed[j - 4] >> 6) << 4),
            (packed[j + 4] >> 4) | ((packed[j] >> 6) << 4),
        )
    };
    (f32::from(scale), f32::from(least))
}

#[inline(always)]
fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (scale, least) = (half(block, 0), half(block, 2));
    let packed = &block[4..16];
    let (pairs, _) = block[16..].as_chunks::<32>();
    let (outs, _) = out.as_chunks_mut::<64>();
    for (i, (pairs, out)) in pairs.iter().zip(outs).enumerate() {
        let ((s1, m1), (s2, m2)) = (group(packed, 2 * i), group(packed, 2 * i + 1));
        let (s1, m1, s2, m2) = (scale * s1, least * m1, scale * s2, least * m2);
        let (low, high) = out.split_at_mut(32);
        for j in 0..32 {
            let pair = i32::from(pairs[j]);
            low[j] = s1 * (pair & 15) as f32 - m1;
            high[j] = s2 * (pair >> 4) as f32 - m2;
        }
    }
}

#[inline(always)]
fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (scale, least) = (half(block, 0), half(block, 2));
    let packed = &block[4..16];
    let fifths = &block[16..48];
    let (pairs, _) = block[48..].as_chunks::<32>();
    let (outs, _) = out.as_chunks_mut::<64>();
    for (i, (pairs, out)) in pairs.iter().zip(outs).enumerate() {
        let ((s1, m1), (s2, m2)) = (group(packed, 2 * i), group(packed, 2 * i + 1));
        let (s1, m1, s2, m2) = (scale * s1, least * m1, scale * s2, least * m2);
        let (low, high) = out.split_at_mut(32);
        for j in 0..32 {
            let (pair, fifth) = (i32::from(pairs[j]), i32::from(fifths[j]) >> (2 * i));
            low[j] = s1 * ((pair & 15) | ((fifth & 1) << 4)) as f32 - m1;
            high[j] = s2 * ((pair >> 4) | ((fifth & 2) << 3)) as f32 - m2;
        }
    }
}

/// Two halves of 128 numbers: 64 bytes of low four bits, 32 bytes of high two bits, 8 scales.
#[inline(always)]
fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let scale = half(block, 208);
    let (outs, _) = out.as_chunks_mut::<128>();
    for (i, out) in outs.iter_mut().enumerate() {
        let low = &block[64 * i..64 * i + 64];
        let high = &block[128 + 32 * i..128 + 32 * i + 32];
        let scales = &block[192 + 8 * i..192 + 8 * i + 8];
        for quarter in 0..4 {
            let low = &low[32 * (quarter % 2)..][..32];
            let out = &mut out[32 * quarter..][..32];
            let mut numbers = [0u8; 32];
            let mut factors = [0.0; 32];
            for j in 0..32 {
                numbers[j] =
                    low[j] >> (4 * (quarter / 2)) & 15 | (high[j] >> (2 * quarter) & 3) << 4;
            }
            for part in 0..2 {
                factors[16 * part..16 * part + 16]
                    .fill(scale * f32::from(scales[2 * quarter + part] as i8));
            }
            for j in 0..32 {
                out[j] = factors[j] * (i32::from(numbers[j]) - 32) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::{QStorage, QTensor};
    use candle_core::{Device, Tensor};
    use rand::{Rng, SeedableRng};
    use std::borrow::Cow;

    #[test]
    fn every_format_is_candles_to_the_last_bit() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(7);
        for format in BlockFormat::ALL {
            let dtype = format.dtype();
            assert_eq!(BlockFormat::of(dtype), Some(format));
            assert_eq!(format.numbers(), dtype.block_size(), "{format:?}");
            assert_eq!(format.bytes(), dtype.type_size(), "{format:?}");
            // Quantised numbers, and any bytes whose halves are finite.
            let real: Vec<f32> = (0..2560).map(|_| rng.random_range(-3.0..3.0)).collect();
            let real = Tensor::from_vec(real, (10, 256), &Device::Cpu).unwrap();
            let quantised = QTensor::quantize(&real, dtype).unwrap();
            let mut bytes = quantised.data().unwrap().into_owned();
            let halves: Vec<[u8; 2]> = match format {
                BlockFormat::Q6_K => vec![[0x12, 0x29]],
                _ => vec![[0x12, 0x29], [0x73, 0xa5]],
            };
            let blocks = 10;
            for _ in 0..blocks {
                let mut block: Vec<u8> = (0..format.bytes()).map(|_| rng.random()).collect();
                let at = if format == BlockFormat::Q6_K { 208 } else { 0 };
                let few = matches!(
                    format,
                    BlockFormat::Q4_0 | BlockFormat::Q5_0 | BlockFormat::Q8_0
                );
                let take = if few { 1 } else { halves.len() };
                for (i, half) in halves.iter().take(take).enumerate() {
                    block[at + 2 * i..at + 2 * i + 2].copy_from_slice(half);
                }
                bytes.extend(block);
            }
            let numbers = bytes.len() / format.bytes() * format.numbers();
            let storage = QStorage::from_data(Cow::Borrowed(&bytes), &Device::Cpu, dtype).unwrap();
            let reference = QTensor::new(storage, numbers).unwrap();
            let reference: Vec<f32> = reference
                .dequantize(&Device::Cpu)
                .unwrap()
                .to_vec1()
                .unwrap();
            let mut out = vec![f32::NAN; numbers];
            format.widen(&bytes, &mut out);
            for (i, (a, b)) in out.iter().zip(&reference).enumerate() {
                assert_eq!(a.to_bits(), b.to_bits(), "{format:?} number {i}: {a} {b}");
            }
            assert!(out.iter().any(|v| *v != 0.0));
        }
    }

    #[test]
    fn what_is_no_whole_block_is_left_alone() {
        let mut out = [5.0; 40];
        BlockFormat::Q8_0.widen(&[0; 60], &mut out);
        assert_eq!(out[..32], [0.0; 32]);
        assert_eq!(out[32..], [5.0; 8]);
        BlockFormat::Q6_K.widen(&[0; 209], &mut out);
        assert_eq!(out[32..], [5.0; 8]);
        assert_eq!(BlockFormat::of(GgmlDType::F16), None);
        assert_eq!(BlockFormat::of(GgmlDType::Q2K), None);
    }
}
