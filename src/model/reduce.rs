//! The sums over a block of logits that the lens is made of, in one go while they lie in the nearest cache.
//!
//! A block's sums depend on its own logits alone: which rows, threads or tiles it was computed with makes no difference to
//! a single bit.
use super::vectors::{EXP, LN2_HI, LN2_LO, ROUNDED, compiled, exp};

/// Logits of a block.
pub(crate) const BLOCK: usize = 512;
/// Lanes of a running sum.
const LANES: usize = 16;

type Chunks = [[f32; LANES]; BLOCK / LANES];

/// A term Σe^(αx) for one Rényi order α, where x ≤ 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Power {
    /// Any order.
    Real(f32),
    /// A small whole order: products of eˣ.
    Whole(u32),
    /// An order near 1, less 1: Σeˣ(e^((α−1)x) − 1), which keeps every digit of what is divided by 1 − α later.
    Near(f64),
}

/// One row's logits of a block relative to their largest, for comparison with other rows; room to work in.
#[derive(Clone, Debug)]
pub(crate) struct Shifted {
    /// (z − max)/T, −∞ beyond the end.
    x: Chunks,
    /// eˣ, 0 beyond the end.
    e: Chunks,
    /// Whether all x are finite.
    whole: bool,
}

impl Shifted {
    /// Room for one block.
    pub(crate) fn new() -> Self {
        Self {
            x: [[f32::NEG_INFINITY; LANES]; BLOCK / LANES],
            e: [[0.0; LANES]; BLOCK / LANES],
            whole: false,
        }
    }
}

/// What is known of a block of a row. With m the block's largest logit and x = (z − m)/T:
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sums {
    /// m; −∞ where no logit is finite, and NaN if one is NaN or +∞.
    pub(crate) max: f32,
    /// Σeˣ.
    pub(crate) sum: f64,
    /// Σeˣx.
    pub(crate) weighted: f64,
    /// Σeˣ(x − mean)².
    pub(crate) spread: f64,
    /// Σeˣx′, where x′ is the other row's.
    pub(crate) cross: f64,
    /// Σe^x′ x.
    pub(crate) back: f64,
    /// How many logits are larger than the target's.
    pub(crate) above: u32,
}

compiled! {
    /// Reduce a block of at most [`BLOCK`] logits. `other` is the block of the row to compare with; `target` is the logit
    /// to be ranked; `powers` are written to `raised`. `own` is left with this row's block.
    pub(crate) fn reduce(
        z: &[f32],
        inverse: f32,
        other: Option<&Shifted>,
        target: Option<f32>,
        powers: &[Power],
        raised: &mut [f64],
        own: &mut Shifted,
    ) -> Sums = reduced::<_>;
}

/// Few loops over what lies in the nearest cache, each of which the compiler can make vectors of. With `FUSED` products and
/// sums are rounded once.
#[inline(always)]
fn reduced<const FUSED: bool>(
    z: &[f32],
    inverse: f32,
    other: Option<&Shifted>,
    target: Option<f32>,
    powers: &[Power],
    raised: &mut [f64],
    own: &mut Shifted,
) -> Sums {
    let z = &z[..z.len().min(BLOCK)];
    let chunks = z.len().div_ceil(LANES);
    // Nothing is above NaN.
    let extremes = Extremes::of(z, target.unwrap_or(f32::NAN));
    let (max, above) = (extremes.max, extremes.above);
    let (x, e) = (&mut own.x[..chunks], &mut own.e[..chunks]);
    let least = (extremes.min - max) * inverse;
    own.whole = chunks * LANES == z.len() && max.is_finite() && least.is_finite();
    if max.is_infinite() {
        x.fill([f32::NEG_INFINITY; LANES]);
        e.fill([0.0; LANES]);
        raised.fill(0.0);
        let invalid = max > 0.0 || z.iter().any(|z| z.is_nan());
        return Sums {
            max: if invalid { f32::NAN } else { max },
            above,
            ..Sums::default()
        };
    }
    shift(z, max, inverse, x);
    let whole = own.whole && other.is_none_or(|other| other.whole);
    let totals = match (other, whole) {
        (Some(other), true) => with_other::<FUSED, true>(x, e, other),
        (Some(other), false) => with_other::<FUSED, false>(x, e, other),
        (None, true) => alone::<FUSED, true>(x, e),
        (None, false) => alone::<FUSED, false>(x, e),
    };
    // A logit that is not a number is none of the extremes, but of every sum.
    if totals.sum.is_nan() {
        x.fill([f32::NEG_INFINITY; LANES]);
        e.fill([0.0; LANES]);
        own.whole = false;
        raised.fill(0.0);
        return Sums {
            max: f32::NAN,
            above,
            ..Sums::default()
        };
    }
    let (x, e) = (&*x, &*e);
    let mean = if totals.sum > 0.0 {
        totals.weighted / totals.sum
    } else {
        0.0
    } as f32;
    let spread = match whole {
        true => total(e, x, |e, x| e * (x - mean) * (x - mean)),
        false => total(e, x, |e, x| {
            let off = x - mean;
            if e > 0.0 { e * off * off } else { 0.0 }
        }),
    };
    for (power, raised) in powers.iter().zip(raised) {
        *raised = match *power {
            Power::Real(0.5) => totals.half,
            Power::Real(a) => total(x, x, |x, _| exp(x * a)),
            Power::Whole(a) => match a {
                2 => whole_power(e, 2, |e| e * e),
                3 => whole_power(e, 3, |e| e * e * e),
                4 => whole_power(e, 4, |e| square(e * e)),
                5 => whole_power(e, 5, |e| square(e * e) * e),
                6 => whole_power(e, 6, |e| square(e * e) * (e * e)),
                7 => whole_power(e, 7, |e| square(e * e) * (e * e) * e),
                _ => whole_power(e, 8, |e| square(square(e * e))),
            },
            Power::Near(off) => {
                let e = e.iter().flatten().zip(x.iter().flatten());
                e.filter(|(e, _)| **e > 0.0)
                    .map(|(e, x)| f64::from(*e) * (off * f64::from(*x)).exp_m1())
                    .sum()
            }
        };
    }
    Sums {
        max,
        sum: totals.sum,
        weighted: totals.weighted,
        spread,
        cross: totals.cross,
        back: totals.back,
        above,
    }
}

/// What a first look at a block finds; numbers that are none do not count.
struct Extremes {
    max: f32,
    min: f32,
    /// How many are larger than the target.
    above: u32,
}

impl Extremes {
    #[inline(always)]
    fn of(z: &[f32], target: f32) -> Self {
        let mut max = [[f32::NEG_INFINITY; LANES]; 2];
        let mut min = [[f32::INFINITY; LANES]; 2];
        let mut above = [[0u32; LANES]; 2];
        let (pairs, rest) = z.as_chunks::<{ 2 * LANES }>();
        for pair in pairs {
            let (pair, _) = pair.as_chunks::<LANES>();
            for (((z, max), min), above) in pair.iter().zip(&mut max).zip(&mut min).zip(&mut above)
            {
                for i in 0..LANES {
                    max[i] = if z[i] > max[i] { z[i] } else { max[i] };
                    min[i] = if z[i] < min[i] { z[i] } else { min[i] };
                    above[i] += u32::from(z[i] > target);
                }
            }
        }
        let mut half = LANES;
        while half > 0 {
            let (low, high) = max.as_flattened_mut().split_at_mut(half);
            for (low, high) in low.iter_mut().zip(high) {
                *low = if *high > *low { *high } else { *low };
            }
            let (low, high) = min.as_flattened_mut().split_at_mut(half);
            for (low, high) in low.iter_mut().zip(high) {
                *low = if *high < *low { *high } else { *low };
            }
            half /= 2;
        }
        let mut all = Self {
            max: max[0][0],
            min: min[0][0],
            above: above.as_flattened().iter().sum(),
        };
        for z in rest {
            all.max = all.max.max(*z);
            all.min = all.min.min(*z);
            all.above += u32::from(*z > target);
        }
        all
    }
}

/// (z − max) · inverse, −∞ beyond the end.
#[inline(always)]
fn shift(z: &[f32], max: f32, inverse: f32, x: &mut [[f32; LANES]]) {
    let (x, beyond) = x.as_flattened_mut().split_at_mut(z.len());
    for (x, z) in x.iter_mut().zip(z) {
        *x = (z - max) * inverse;
    }
    beyond.fill(f32::NEG_INFINITY);
}

/// a · b + c.
#[inline(always)]
fn plus<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    match FUSED {
        true => a.mul_add(b, c),
        false => a * b + c,
    }
}

/// eˣ for x ≤ 0 and its root, by which it is computed ([`exp`] of x/2). Of what would leave the normal numbers, which is slow,
/// nothing is left: 0 below −87.
#[inline(always)]
fn exp_and_root<const FUSED: bool>(x: f32) -> (f32, f32) {
    // Without the bounds of `exp`: where they would matter, 0 is taken instead.
    let shifted = plus::<FUSED>(x, 0.5 * std::f32::consts::LOG2_E, ROUNDED);
    let n = shifted - ROUNDED;
    let r = plus::<FUSED>(n, -LN2_HI, 0.5 * x);
    let r = plus::<FUSED>(n, -LN2_LO, r);
    let mut p = EXP[0];
    for c in &EXP[1..] {
        p = plus::<FUSED>(p, r, *c);
    }
    let p = plus::<FUSED>(p * r, r, r) + 1.0;
    let root = p * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    // NaN fails the comparison and stays NaN.
    let root = if x < -87.0 { 0.0 } else { root };
    (root * root, root)
}

/// Sums of a block's terms.
#[derive(Clone, Copy, Default)]
struct Totals {
    sum: f64,
    weighted: f64,
    cross: f64,
    back: f64,
    /// Σe^(x/2).
    half: f64,
}

/// eˣ to `e`, and the sums of a row by itself. With `WHOLE` no logit is −∞, so that nothing is 0 · ∞.
#[inline(always)]
fn alone<const FUSED: bool, const WHOLE: bool>(
    x: &[[f32; LANES]],
    e: &mut [[f32; LANES]],
) -> Totals {
    let mut sums = [[0.0f32; LANES]; 3];
    for (x, e) in x.iter().zip(e) {
        for i in 0..LANES {
            let (power, root) = exp_and_root::<FUSED>(x[i]);
            e[i] = power;
            sums[0][i] += power;
            sums[1][i] = weighed::<FUSED, WHOLE>(power, x[i], sums[1][i]);
            sums[2][i] += root;
        }
    }
    let [sum, weighted, half] = sums.map(|lanes| across(&lanes));
    Totals {
        sum,
        weighted,
        half,
        ..Totals::default()
    }
}

/// The same with the sums that compare it with another.
#[inline(always)]
fn with_other<const FUSED: bool, const WHOLE: bool>(
    x: &[[f32; LANES]],
    e: &mut [[f32; LANES]],
    other: &Shifted,
) -> Totals {
    let mut sums = [[0.0f32; LANES]; 5];
    for (((x, e), x_other), e_other) in x.iter().zip(e).zip(&other.x).zip(&other.e) {
        for i in 0..LANES {
            let (power, root) = exp_and_root::<FUSED>(x[i]);
            e[i] = power;
            sums[0][i] += power;
            sums[1][i] = weighed::<FUSED, WHOLE>(power, x[i], sums[1][i]);
            sums[2][i] += root;
            sums[3][i] = weighed::<FUSED, WHOLE>(power, x_other[i], sums[3][i]);
            sums[4][i] = weighed::<FUSED, WHOLE>(e_other[i], x[i], sums[4][i]);
        }
    }
    let [sum, weighted, half, cross, back] = sums.map(|lanes| across(&lanes));
    Totals {
        sum,
        weighted,
        cross,
        back,
        half,
    }
}

/// sum + e · x.
#[inline(always)]
fn weighed<const FUSED: bool, const WHOLE: bool>(e: f32, x: f32, sum: f32) -> f32 {
    if WHOLE || e > 0.0 {
        plus::<FUSED>(e, x, sum)
    } else {
        sum
    }
}

/// Σ power(e).
#[inline(always)]
fn whole_power(e: &[[f32; LANES]], order: u32, power: impl Fn(f32) -> f32) -> f64 {
    // Smaller ones would leave the normal numbers, which is slow, and count for nothing.
    let least = exp(-87.0 / order as f32);
    total(e, e, |e, _| power(if e > least { e } else { 0.0 }))
}

#[inline(always)]
fn square(x: f32) -> f32 {
    x * x
}

/// Σ f(a, b): lane by lane in f32 (a block is short), then in f64. In a few sums, none of which waits for the others.
#[inline(always)]
fn total(a: &[[f32; LANES]], b: &[[f32; LANES]], f: impl Fn(f32, f32) -> f32) -> f64 {
    let mut sums = [[0.0f32; LANES]; 4];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    for (a, b) in a.iter().zip(b) {
        for ((a, b), sums) in a.iter().zip(b).zip(&mut sums) {
            for i in 0..LANES {
                sums[i] += f(a[i], b[i]);
            }
        }
    }
    for ((a, b), sums) in a_rest.iter().zip(b_rest).zip(&mut sums) {
        for i in 0..LANES {
            sums[i] += f(a[i], b[i]);
        }
    }
    let mut lanes = [0.0; LANES];
    for i in 0..LANES {
        lanes[i] = (sums[0][i] + sums[1][i]) + (sums[2][i] + sums[3][i]);
    }
    across(&lanes)
}

/// The sum of the lanes, by halves.
#[inline(always)]
fn across(lanes: &[f32; LANES]) -> f64 {
    let mut wide = lanes.map(f64::from);
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            wide[i] += wide[i + half];
        }
        half /= 2;
    }
    wide[0]
}

compiled! {
    /// Put the logits of a block that beat the worst of the `k` best so far, and are not below `floor`, in their place;
    /// `first` is the id of the first. Best first, ties to the lower id, none that are not finite.
    pub(crate) fn rank(
        z: &[f32],
        first: u32,
        k: usize,
        floor: f32,
        best: &mut Vec<(u32, f32)>,
    ) = ranked;
}

/// The largest of each lane; numbers that are none do not count.
#[inline(always)]
fn largest(z: &[f32]) -> [f32; LANES] {
    let mut max = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = z.as_chunks::<LANES>();
    for z in chunks {
        for i in 0..LANES {
            max[i] = if z[i] > max[i] { z[i] } else { max[i] };
        }
    }
    for (max, z) in max.iter_mut().zip(rest) {
        *max = max.max(*z);
    }
    max
}

#[inline(always)]
fn ranked(z: &[f32], first: u32, k: usize, floor: f32, best: &mut Vec<(u32, f32)>) {
    let floor = floor.next_down();
    let bar = |best: &Vec<(u32, f32)>| match best.get(k.wrapping_sub(1)) {
        Some((_, z)) => *z,
        None => f32::NEG_INFINITY,
    };
    let mut least = bar(best).max(floor);
    if least == f32::NEG_INFINITY && (1..=LANES).contains(&k) {
        // Of as many lanes the largest are at least so large: none below the least of them is among the best.
        let mut lanes = largest(z);
        lanes.sort_unstable_by(|a, b| b.total_cmp(a));
        let kth = lanes[k - 1];
        if kth.is_finite() {
            least = kth.next_down();
        }
    }
    let mut take = |least: f32, at: usize, z: f32| {
        if z > least && z < f32::INFINITY {
            let place = best.partition_point(|b| b.1 >= z);
            best.insert(place, (first + at as u32, z));
            best.truncate(k);
        }
        bar(best).max(least)
    };
    let (chunks, rest) = z.as_chunks::<LANES>();
    for (i, chunk) in chunks.iter().enumerate() {
        if !chunk.iter().fold(false, |any, z| any | (*z > least)) {
            continue;
        }
        for (j, z) in chunk.iter().enumerate() {
            least = take(least, i * LANES + j, *z);
        }
    }
    for (j, z) in rest.iter().enumerate() {
        least = take(least, chunks.len() * LANES + j, *z);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same in f64, term by term.
    fn slow(z: &[f32], inverse: f64, other: Option<&[f32]>, powers: &[Power]) -> (Vec<f64>, f32) {
        let shift = |z: &[f32]| -> Vec<f64> {
            let max = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            z.iter().map(|z| f64::from(z - max) * inverse).collect()
        };
        let weigh = |a: &[f64], b: &[f64]| -> f64 {
            let pairs = a.iter().zip(b).filter(|(a, _)| **a > -87.0);
            pairs.map(|(a, b)| a.exp() * b).sum()
        };
        let x = shift(z);
        let sum: f64 = x.iter().map(|x| x.exp()).sum();
        let weighted = weigh(&x, &x);
        let off: Vec<f64> = x.iter().map(|x| (x - weighted / sum).powi(2)).collect();
        let mut out = vec![sum, weighted, weigh(&x, &off)];
        if let Some(other) = other {
            let other = shift(other);
            out.extend([weigh(&x, &other), weigh(&other, &x)]);
        }
        out.extend(powers.iter().map(|power| match *power {
            Power::Real(a) => x.iter().map(|x| (x * f64::from(a)).exp()).sum::<f64>(),
            Power::Whole(a) => x.iter().map(|x| (x * f64::from(a)).exp()).sum(),
            Power::Near(off) => x.iter().map(|x| x.exp() * (off * x).exp_m1()).sum(),
        }));
        (out, z.iter().copied().fold(f32::NEG_INFINITY, f32::max))
    }

    const POWERS: [Power; 5] = [
        Power::Real(0.5),
        Power::Whole(2),
        Power::Whole(5),
        Power::Near(1e-4),
        Power::Whole(8),
    ];

    proptest! {
        #[test]
        fn a_block_agrees_with_float64_and_with_other_instruction_sets(
            z in prop::collection::vec(-30.0f32..30.0, 1..=BLOCK),
            inverse in 0.3f32..3.0,
            seed in any::<u64>(),
        ) {
            let other: Vec<f32> = (0..z.len() as u64)
                .map(|i| (seed.wrapping_mul(i + 1) % 997) as f32 / 50.0)
                .collect();
            let (mut theirs, mut own) = (Shifted::new(), Shifted::new());
            reduce(&other, inverse, None, None, &[], &mut [], &mut theirs);
            let mut raised = [0.0; 5];
            let target = z[seed as usize % z.len()];
            let found = reduce(&z, inverse, Some(&theirs), Some(target), &POWERS, &mut raised, &mut own);
            let (expected, max) = slow(&z, f64::from(inverse), Some(&other), &POWERS);
            prop_assert_eq!(found.max, max);
            prop_assert_eq!(found.above as usize, z.iter().filter(|z| **z > target).count());
            let mut all = vec![found.sum, found.weighted, found.spread, found.cross, found.back];
            all.extend(raised);
            for (i, (found, expected)) in all.iter().zip(&expected).enumerate() {
                prop_assert!((found - expected).abs() <= 1e-5 * expected.abs() + 1e-6, "{i}: {found} {expected}");
            }
            let mut again = [0.0; 5];
            let plain = reduced::<true>(&z, inverse, Some(&theirs), Some(target), &POWERS, &mut again, &mut own);
            prop_assert_eq!(found, plain);
            prop_assert_eq!(raised, again);
        }

        #[test]
        fn the_best_are_those_of_a_sort(
            z in prop::collection::vec(-4i8..4, 1..900),
            k in 1usize..12,
        ) {
            let z: Vec<f32> = z.into_iter().map(f32::from).collect();
            let mut best = Vec::new();
            for (i, block) in z.chunks(BLOCK).enumerate() {
                rank(block, (i * BLOCK) as u32, k, f32::NEG_INFINITY, &mut best);
            }
            let mut order: Vec<(u32, f32)> = z.iter().enumerate().map(|(i, z)| (i as u32, *z)).collect();
            order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            order.truncate(k);
            prop_assert_eq!(&best, &order);
            // What is known of others leaves those out that are none of the best of all, and no more.
            let floor = order[k.min(z.len()) / 2].1;
            let mut above = Vec::new();
            rank(&z[..z.len().min(BLOCK)], 0, k, floor, &mut above);
            order.retain(|(id, z)| *z >= floor && (*id as usize) < BLOCK);
            prop_assert_eq!(&above[..order.len()], &order);
            prop_assert!(above.iter().all(|(_, z)| *z >= floor));
        }
    }

    #[test]
    fn what_is_not_finite_is_told_apart() {
        let mut own = Shifted::new();
        let mut run = |z: &[f32]| reduce(z, 1.0, None, None, &[], &mut [], &mut own);
        for bad in [f32::NAN, f32::INFINITY] {
            for length in [1, 16, 40, BLOCK] {
                let mut z = vec![0.5; length];
                z[length - 1] = bad;
                assert!(run(&z).max.is_nan(), "{bad}");
                z.fill(bad);
                assert!(run(&z).max.is_nan(), "{bad}");
            }
        }
        let nothing = run(&[f32::NEG_INFINITY; 3]);
        assert_eq!((nothing.max, nothing.sum), (f32::NEG_INFINITY, 0.0));
        let one = run(&[f32::NEG_INFINITY, 2.0]);
        assert_eq!(
            (one.max, one.sum, one.weighted, one.spread),
            (2.0, 1.0, 0.0, 0.0)
        );
        let mut best = Vec::new();
        let z = [f32::NEG_INFINITY, f32::NAN, 1.0];
        rank(&z, 7, 3, f32::NEG_INFINITY, &mut best);
        assert_eq!(best, [(9, 1.0)]);
    }
}
