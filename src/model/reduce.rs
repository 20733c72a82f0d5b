//! The sums over a block of logits that the lens is made of, in one go while they lie in the nearest cache.
//!
//! A block's sums depend on its own logits alone: which rows, threads or tiles it was computed with makes no difference to
//! a single bit.
use super::vectors::{compiled, exp};

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
}

impl Shifted {
    /// Room for one block.
    pub(crate) fn new() -> Self {
        Self {
            x: [[f32::NEG_INFINITY; LANES]; BLOCK / LANES],
            e: [[0.0; LANES]; BLOCK / LANES],
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
    ) -> Sums = reduced;
}

/// Loops of few operations each, all over what lies in the nearest cache, so that the compiler finds the vectors.
#[inline(always)]
fn reduced(
    z: &[f32],
    inverse: f32,
    other: Option<&Shifted>,
    target: Option<f32>,
    powers: &[Power],
    raised: &mut [f64],
    own: &mut Shifted,
) -> Sums {
    let chunks = z.len().min(BLOCK).div_ceil(LANES);
    let (x, e) = (&mut own.x[..chunks], &mut own.e[..chunks]);
    for (x, z) in x.iter_mut().zip(z.chunks(LANES)) {
        match z.first_chunk() {
            Some(z) => *x = *z,
            None => {
                *x = [f32::NEG_INFINITY; LANES];
                x[..z.len()].copy_from_slice(z);
            }
        }
    }
    let max = largest(x);
    let above = match target {
        Some(target) => count_above(x, target),
        None => 0,
    };
    if max.is_nan() || max == f32::NEG_INFINITY {
        x.fill([f32::NEG_INFINITY; LANES]);
        e.fill([0.0; LANES]);
    } else {
        for (x, e) in x.iter_mut().zip(e.iter_mut()) {
            for i in 0..LANES {
                x[i] = (x[i] - max) * inverse;
                e[i] = exp(x[i]);
            }
        }
    }
    let (x, e) = (&*x, &*e);
    let weigh = |e: f32, x: f32| if e > 0.0 { e * x } else { 0.0 };
    let ([sum, weighted], [cross, back]) = match other {
        Some(other) => {
            let (x_other, e_other) = (&other.x[..chunks], &other.e[..chunks]);
            let [sum, weighted, cross, back] =
                totals([e, x, e_other, x_other], |e, x, e_other, x_other| {
                    [e, weigh(e, x), weigh(e, x_other), weigh(e_other, x)]
                });
            ([sum, weighted], [cross, back])
        }
        None => (
            totals([e, x, e, x], |e, x, _, _| [e, weigh(e, x)]),
            [0.0; 2],
        ),
    };
    let mean = if sum > 0.0 { weighted / sum } else { 0.0 } as f32;
    let spread = total(e, x, |e, x| {
        let off = x - mean;
        if e > 0.0 { e * off * off } else { 0.0 }
    });
    for (power, raised) in powers.iter().zip(raised) {
        *raised = match *power {
            Power::Real(a) => total(x, x, |x, _| exp(x * a)),
            Power::Whole(a) => {
                // Smaller ones would leave the normal numbers, which is slow, and count for nothing.
                let least = exp(-87.0 / a as f32);
                total(e, e, |e, _| {
                    let e = if e > least { e } else { 0.0 };
                    whole(e, a)
                })
            }
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
        sum,
        weighted,
        spread,
        cross,
        back,
        above,
    }
}

/// The largest; NaN if one is NaN or +∞.
#[inline(always)]
fn largest(x: &[[f32; LANES]]) -> f32 {
    let mut max = [f32::NEG_INFINITY; LANES];
    let mut bad = [0u32; LANES];
    for x in x {
        for i in 0..LANES {
            max[i] = if x[i] > max[i] { x[i] } else { max[i] };
            // NaN and +∞ alone are not less than +∞.
            bad[i] |= u32::from(!matches!(
                x[i].partial_cmp(&f32::INFINITY),
                Some(std::cmp::Ordering::Less)
            ));
        }
    }
    if bad.iter().any(|b| *b > 0) {
        return f32::NAN;
    }
    max.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

#[inline(always)]
fn count_above(x: &[[f32; LANES]], target: f32) -> u32 {
    let mut count = [0u32; LANES];
    for x in x {
        for i in 0..LANES {
            count[i] += u32::from(x[i] > target);
        }
    }
    count.iter().sum()
}

/// Σ f(a, b): lane by lane in f32 (a block is short), then in f64.
#[inline(always)]
fn total(a: &[[f32; LANES]], b: &[[f32; LANES]], f: impl Fn(f32, f32) -> f32) -> f64 {
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            sums[i] += f(a[i], b[i]);
        }
    }
    sums.iter().map(|s| f64::from(*s)).sum()
}

/// Several such sums of the same numbers in one go: each waits for itself alone.
#[inline(always)]
fn totals<const N: usize>(
    [a, b, c, d]: [&[[f32; LANES]]; 4],
    f: impl Fn(f32, f32, f32, f32) -> [f32; N],
) -> [f64; N] {
    let mut sums = [[0.0f32; LANES]; N];
    for (((a, b), c), d) in a.iter().zip(b).zip(c).zip(d) {
        for i in 0..LANES {
            let terms = f(a[i], b[i], c[i], d[i]);
            for n in 0..N {
                sums[n][i] += terms[n];
            }
        }
    }
    sums.map(|sums| sums.iter().map(|s| f64::from(*s)).sum())
}

/// `e` to a small whole power.
#[inline(always)]
fn whole(e: f32, power: u32) -> f32 {
    let square = e * e;
    match power {
        2 => square,
        3 => square * e,
        4 => square * square,
        5 => square * square * e,
        6 => square * square * square,
        7 => square * square * square * e,
        _ => {
            let fourth = square * square;
            fourth * fourth
        }
    }
}

/// Put the logits of a block that beat the worst of the `k` best so far in their place; `first` is the id of the first.
/// Best first, ties to the lower id, none that are not finite.
pub(crate) fn rank(z: &[f32], first: u32, k: usize, best: &mut Vec<(u32, f32)>) {
    let bar = |best: &Vec<(u32, f32)>| match best.get(k.wrapping_sub(1)) {
        Some((_, z)) => *z,
        None => f32::NEG_INFINITY,
    };
    let mut least = bar(best);
    for (i, chunk) in z.chunks(LANES).enumerate() {
        if !chunk.iter().fold(false, |any, z| any | (*z > least)) {
            continue;
        }
        for (j, z) in chunk.iter().enumerate() {
            if *z > least {
                let at = best.partition_point(|b| b.1 >= *z);
                best.insert(at, (first + (i * LANES + j) as u32, *z));
                best.truncate(k);
                least = bar(best);
            }
        }
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
            let plain = reduced(&z, inverse, Some(&theirs), Some(target), &POWERS, &mut again, &mut own);
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
                rank(block, (i * BLOCK) as u32, k, &mut best);
            }
            let mut order: Vec<(u32, f32)> = z.iter().enumerate().map(|(i, z)| (i as u32, *z)).collect();
            order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            order.truncate(k);
            prop_assert_eq!(best, order);
        }
    }

    #[test]
    fn what_is_not_finite_is_told_apart() {
        let mut own = Shifted::new();
        let mut run = |z: &[f32]| reduce(z, 1.0, None, None, &[], &mut [], &mut own);
        for bad in [f32::NAN, f32::INFINITY] {
            let mut z = vec![0.5; 40];
            z[39] = bad;
            assert!(run(&z).max.is_nan(), "{bad}");
        }
        let nothing = run(&[f32::NEG_INFINITY; 3]);
        assert_eq!((nothing.max, nothing.sum), (f32::NEG_INFINITY, 0.0));
        let one = run(&[f32::NEG_INFINITY, 2.0]);
        assert_eq!(
            (one.max, one.sum, one.weighted, one.spread),
            (2.0, 1.0, 0.0, 0.0)
        );
        let mut best = Vec::new();
        rank(&[f32::NEG_INFINITY, f32::NAN, 1.0], 7, 3, &mut best);
        assert_eq!(best, [(9, 1.0)]);
    }
}
