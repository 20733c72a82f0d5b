//! Logits → the distribution columns of a cell, in the order of [`crate::trace::Schema`], without holding all logits.
//!
//! The vocabulary is read in blocks. Of each block and row a handful of sums is kept ([`reduce`]); those of a row's blocks
//! are merged here. With m the largest logit, x = (z − m)/T and S = Σeˣ: ln p = x − ln S, H = ln S − Σxeˣ/S; the variance
//! is taken around the mean (Chan's merge), since E\[x²\] − E\[x\]² cancels on peaked rows. Logits of −∞ carry no weight
//! and never meet 0 · ∞. A row with NaN or without a finite logit is invalid: all its columns are NaN.
//!
//! A block's sums depend on its own logits alone and are merged in the order of the blocks, so nothing depends on how the
//! work was divided.

use super::LensSettings;
use crate::model::reduce::{self, BLOCK, Power, Shifted, Sums};
use crate::trace::Candidate;
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Distribution columns before the Rényi ones.
pub(super) const COLUMNS: usize = 11;

/// What the settings ask of each block.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    inverse: f32,
    /// How many of the best to keep.
    best: usize,
    powers: Vec<Power>,
    orders: Vec<f64>,
    /// So many tokens at a time belong together, and the rows of all but the first are compared with the first's.
    group: usize,
}

impl Plan {
    pub(super) fn new(settings: &LensSettings) -> Self {
        // 1 is Shannon's entropy and ∞ is −ln p₁: these need no sum.
        let orders = settings.renyi.iter().copied();
        let orders: Vec<f64> = orders.filter(|a| a.is_finite() && *a != 1.0).collect();
        let power = |order: &f64| {
            if (order - 1.0).abs() < 0.05 {
                Power::Near(order - 1.0)
            } else if order.fract() == 0.0 && (2.0..=8.0).contains(order) {
                Power::Whole(*order as u32)
            } else {
                Power::Real(*order as f32)
            }
        };
        Self {
            inverse: (1.0 / settings.temperature) as f32,
            best: settings.top.max(2),
            powers: orders.iter().map(power).collect(),
            orders,
            group: 1,
        }
    }
}

impl Plan {
    /// The same for tokens that come `group` by `group`.
    pub(super) fn grouped(self, group: usize) -> Self {
        Self { group, ..self }
    }

    /// How many tokens at a time belong together.
    pub(super) fn group(&self) -> usize {
        self.group
    }

    /// The row that `row` is compared with beside its token's final one.
    fn twin(&self, row: usize, states: usize) -> Option<usize> {
        twin(row, states, self.group)
    }

    /// One over the lens temperature.
    pub(super) fn inverse(&self) -> f32 {
        self.inverse
    }

    /// How many of the best to keep.
    pub(super) fn best(&self) -> usize {
        self.best
    }

    /// What is raised to which order.
    pub(super) fn powers(&self) -> impl Iterator<Item = (Power, f64)> {
        self.powers.iter().copied().zip(self.orders.iter().copied())
    }
}

/// Of tokens that come `group` by `group` the same state of the first of a row's group; `None` for that one's own rows.
pub(super) fn twin(row: usize, states: usize, group: usize) -> Option<usize> {
    let behind = row / states % group;
    (behind > 0).then(|| row - behind * states)
}

/// The sums of some successive blocks of some rows.
#[derive(Debug)]
pub(super) struct Part {
    blocks: Range<usize>,
    rows: usize,
    /// `[block][row]`.
    sums: Vec<Sums>,
    /// `[block][row][power]`.
    raised: Vec<f64>,
    /// `[block][row]`, Σe^x′ x with x′ of the twin; empty where rows have none.
    apart: Vec<f64>,
    /// The best of each row.
    best: Vec<Vec<(u32, f32)>>,
}

/// Of some rows what is certainly no larger than the worst of their best, whoever found them.
#[derive(Debug)]
pub(super) struct Floors(Vec<AtomicU32>);

impl Floors {
    /// Nothing known of so many rows.
    pub(super) fn new(rows: usize) -> Self {
        let least = || AtomicU32::new(Self::key(f32::NEG_INFINITY));
        Self((0..rows).map(|_| least()).collect())
    }

    fn of(&self, row: usize) -> f32 {
        let key = self.0[row].load(Relaxed);
        f32::from_bits(match key >> 31 {
            1 => key ^ 1 << 31,
            _ => !key,
        })
    }

    /// So many as are asked for are at least as large.
    fn raise(&self, row: usize, z: f32) {
        self.0[row].fetch_max(Self::key(z), Relaxed);
    }

    /// In the order of the numbers.
    fn key(z: f32) -> u32 {
        match z.to_bits() {
            bits if bits >> 31 == 0 => bits | 1 << 31,
            bits => !bits,
        }
    }
}

/// Room to work on a block.
#[derive(Debug)]
pub(super) struct Room {
    last: Shifted,
    own: Shifted,
}

impl Room {
    pub(super) fn new() -> Self {
        Self {
            last: Shifted::new(),
            own: Shifted::new(),
        }
    }
}

impl Part {
    /// Nothing yet of `rows` rows, from block `first` on.
    pub(super) fn new(first: usize, rows: usize) -> Self {
        Self {
            blocks: first..first,
            rows,
            sums: Vec::new(),
            raised: Vec::new(),
            apart: Vec::new(),
            best: vec![Vec::new(); rows],
        }
    }

    /// All blocks of `rows` rows at once, of any one size: `sums` `[block][row]`, `raised` `[block][row][power]`, `apart`
    /// `[block][row]` or empty, and of each row the best of every block, block after block.
    pub(super) fn of_blocks(
        rows: usize,
        sums: Vec<Sums>,
        raised: Vec<f64>,
        apart: Vec<f64>,
        best: Vec<Vec<(u32, f32)>>,
    ) -> Self {
        Self {
            blocks: 0..sums.len() / rows.max(1),
            rows,
            sums,
            raised,
            apart,
            best,
        }
    }

    /// Take in the next block `z` of all rows. Every `states` rows are one token's, the last of them its final row;
    /// `targets` has for each row the logit to be ranked, if it is known; `floors` is what all parts know.
    pub(super) fn take(
        &mut self,
        z: &[&mut [f32]],
        states: usize,
        targets: &[Option<f32>],
        plan: &Plan,
        floors: &Floors,
        room: &mut Room,
    ) {
        let first = (self.blocks.end * BLOCK) as u32;
        let powers = plan.powers.len();
        let at = self.sums.len();
        self.sums.resize(at + self.rows, Sums::default());
        self.raised.resize((at + self.rows) * powers, 0.0);
        for token in (0..self.rows).step_by(states) {
            // The final row comes first: the others are compared with it.
            let last = token + states - 1;
            for row in std::iter::once(last).chain(token..last) {
                let (other, own) = match row == last {
                    true => (None, &mut room.last),
                    false => (Some(&room.last), &mut room.own),
                };
                let sums = reduce::reduce(
                    z[row],
                    plan.inverse,
                    other,
                    targets[row],
                    &plan.powers,
                    &mut self.raised[(at + row) * powers..][..powers],
                    own,
                );
                self.sums[at + row] = sums;
                let best = &mut self.best[row];
                let floor = floors.of(row);
                let worst = best.get(plan.best - 1);
                if sums.max >= floor && worst.is_none_or(|(_, worst)| sums.max > *worst) {
                    reduce::rank(z[row], first, plan.best, floor, best);
                    if let Some((_, worst)) = best.get(plan.best - 1) {
                        floors.raise(row, *worst);
                    }
                }
            }
        }
        if plan.group > 1 {
            self.apart.resize(at + self.rows, 0.0);
            // Only the sums of the comparison are of use, the others are there.
            let again = |row: usize, other: Option<&Shifted>, own: &mut Shifted| {
                reduce::reduce(z[row], plan.inverse, other, None, &[], &mut [], own)
            };
            let firsts = (0..self.rows).filter(|row| plan.twin(*row, states).is_none());
            for first in firsts {
                again(first, None, &mut room.last);
                for behind in 1..plan.group {
                    let row = first + behind * states;
                    self.apart[at + row] = again(row, Some(&room.last), &mut room.own).back;
                }
            }
        }
        self.blocks.end += 1;
    }
}

/// One row, all blocks merged.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The largest logit, NaN for an invalid row.
    max: f32,
    /// S.
    sum: f64,
    /// Σeˣx/S.
    mean: f64,
    varentropy: f64,
    /// Σeˣx′ and Σe^x′ x, with x′ of the final row.
    cross: f64,
    back: f64,
    /// Σe^x′ x, with x′ of the twin; none where there is none.
    apart: Option<f64>,
    /// Logits above the target's.
    above: u32,
    /// For each power, ln Σp^α.
    raised: Vec<f64>,
    best: Vec<(u32, f32)>,
}

/// Merge the parts of all rows, in the order of the blocks. They must cover the vocabulary once.
pub(super) fn merge(parts: &[Part], row: usize, states: usize, plan: &Plan) -> Row {
    let last = row / states * states + states - 1;
    let blocks = || {
        parts.iter().flat_map(move |part| {
            (0..part.blocks.len()).map(move |block| (part, block * part.rows))
        })
    };
    let largest = |row: usize| {
        blocks().fold(f32::NEG_INFINITY, |max, (part, at)| {
            let block = part.sums[at + row].max;
            match max.is_nan() || block.is_nan() {
                true => f32::NAN,
                false => max.max(block),
            }
        })
    };
    let twin = plan.twin(row, states).map(|twin| (twin, largest(twin)));
    let (max, last_max) = (largest(row), largest(last));
    let mut best: Vec<(u32, f32)> = parts.iter().flat_map(|p| &p.best[row]).copied().collect();
    // Stable, and the parts come in the order of the ids: ties go to the lower one.
    best.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal));
    best.truncate(plan.best);
    let mut merged = Row {
        max: if max.is_finite() { max } else { f32::NAN },
        sum: 0.0,
        mean: 0.0,
        varentropy: 0.0,
        cross: 0.0,
        back: 0.0,
        apart: twin.map(|_| 0.0),
        above: 0,
        raised: vec![0.0; plan.powers.len()],
        best,
    };
    if merged.max.is_nan() {
        return merged;
    }
    let inverse = f64::from(plan.inverse);
    // (block's m − row's m)/T, and e of it.
    let lower = |block: f32, row: f32| f64::from((block - row) * plan.inverse);
    let mut weighted = 0.0;
    for (part, at) in blocks() {
        let (own, of_last) = (&part.sums[at + row], &part.sums[at + last]);
        merged.above += own.above;
        let off = lower(own.max, max);
        let weight = off.exp();
        if own.sum > 0.0 && weight > 0.0 {
            merged.sum += weight * own.sum;
            weighted += weight * (own.weighted + own.sum * off);
            let theirs = f64::from(of_last.max - last_max) * inverse;
            merged.cross += weight * (own.cross + own.sum * theirs);
        }
        let theirs = lower(of_last.max, last_max).exp();
        if of_last.sum > 0.0 && theirs > 0.0 {
            merged.back += theirs * (own.back + of_last.sum * off);
        }
        if let (Some((twin, twin_max)), Some(apart)) = (twin, &mut merged.apart) {
            let of_twin = &part.sums[at + twin];
            let theirs = lower(of_twin.max, twin_max).exp();
            if of_twin.sum > 0.0 && theirs > 0.0 {
                *apart += theirs * (part.apart[at + row] + of_twin.sum * off);
            }
        }
    }
    merged.mean = weighted / merged.sum;
    let mut spread = 0.0;
    for (part, at) in blocks() {
        let own = &part.sums[at + row];
        let off = lower(own.max, max);
        let weight = off.exp();
        if own.sum > 0.0 && weight > 0.0 {
            let apart = own.weighted / own.sum + off - merged.mean;
            spread += weight * (own.spread + own.sum * apart * apart);
        }
        let raised = &part.raised[(at + row) * plan.powers.len()..];
        let orders = plan.powers.iter().zip(&plan.orders).zip(raised);
        for (((power, order), raised), total) in orders.zip(&mut merged.raised) {
            if own.sum > 0.0 {
                *total += match power {
                    // Σe^(αx) − Σeˣ.
                    Power::Near(above) => {
                        weight * (raised + (above * off).exp_m1() * (own.sum + raised))
                    }
                    _ => (order * off).exp() * raised,
                };
            }
        }
    }
    merged.varentropy = spread / merged.sum;
    let log_sum = merged.sum.ln();
    let orders = plan.powers.iter().zip(&plan.orders);
    for ((power, order), total) in orders.zip(&mut merged.raised) {
        *total = match power {
            Power::Near(above) => (*total / merged.sum).ln_1p() - above * log_sum,
            _ => total.ln() - order * log_sum,
        };
    }
    merged
}

/// KL(twin‖row) in nats, exactly 0 where the two are equal to the bit, infinite where the row rules out what its twin
/// allows; `None` where it has no twin, NaN where one of the two is invalid.
pub(super) fn divergence(row: &Row, twin: Option<&Row>) -> Option<f32> {
    let (apart, twin) = (row.apart?, twin?);
    if row.max.is_nan() || twin.max.is_nan() {
        return Some(f32::NAN);
    }
    // Like is taken from like, so that what is equal leaves nothing.
    let divergence = (twin.mean - apart / twin.sum) + (row.sum.ln() - twin.sum.ln());
    Some(divergence.max(0.0) as f32)
}

/// Append the distribution columns of `row` to `out` and return its `top` best candidates (filled up with NaN). `last` is
/// its token's final row, `target` the logit of the token that came next and how many are larger, where they were not
/// counted on the way.
pub(super) fn columns(
    row: &Row,
    last: &Row,
    is_last: bool,
    vocab: usize,
    target: Option<(f32, Option<u32>)>,
    settings: &LensSettings,
    out: &mut Vec<f32>,
) -> Vec<Candidate> {
    let nothing = Candidate {
        id: 0,
        prob: f32::NAN,
    };
    if row.max.is_nan() {
        out.extend(std::iter::repeat_n(
            f32::NAN,
            COLUMNS + settings.renyi.len(),
        ));
        return vec![nothing; settings.top];
    }
    let inverse = (1.0 / settings.temperature) as f32;
    let log_sum = row.sum.ln();
    let entropy = (log_sum - row.mean).max(0.0);
    let prob = |z: f32| f64::from((z - row.max) * inverse).exp() / row.sum;
    let second = row.best.get(1).map(|c| c.1);
    out.push(entropy as f32);
    out.push(row.varentropy as f32);
    out.push(second.map_or(f32::NAN, |s| (1.0 / row.sum - prob(s)) as f32));
    out.push(second.map_or(f32::NAN, |s| (row.max - s) * inverse));
    out.push((1.0 / row.sum) as f32);
    out.push(entropy.exp() as f32);
    out.push(((vocab as f64).ln() - entropy).max(0.0) as f32);
    if is_last {
        out.extend([0.0, 0.0]);
    } else if last.max.is_nan() {
        out.extend([f32::NAN, f32::NAN]);
    } else {
        // KL(final‖layer) and KL(layer‖final); infinite where one side rules out what the other allows.
        let last_entropy = last.sum.ln() - last.mean;
        let kl_final = -last_entropy - row.back / last.sum + log_sum;
        let kl_from_final = -entropy - row.cross / row.sum + last.sum.ln();
        out.extend([kl_final.max(0.0) as f32, kl_from_final.max(0.0) as f32]);
    }
    out.push(target.map_or(f32::NAN, |(t, _)| {
        (log_sum - f64::from((t - row.max) * inverse)) as f32
    }));
    out.push(target.map_or(f32::NAN, |(_, above)| {
        (1 + above.unwrap_or(row.above)) as f32
    }));
    let mut raised = row.raised.iter();
    for order in &settings.renyi {
        out.push(if *order == 1.0 {
            entropy as f32
        } else if order.is_infinite() {
            log_sum as f32
        } else {
            let total = raised.next().copied().unwrap_or(f64::NAN);
            (total / (1.0 - order)).max(0.0) as f32
        });
    }
    let best = row.best.iter().take(settings.top);
    let mut top: Vec<Candidate> = best
        .map(|(id, z)| Candidate {
            id: *id,
            prob: prob(*z) as f32,
        })
        .collect();
    top.resize(settings.top, nothing);
    top
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_rise_in_the_order_of_the_numbers() {
        let floors = Floors::new(2);
        assert_eq!(floors.of(0), f32::NEG_INFINITY);
        let numbers = [-1e30, -2.0, -2.5, -1e-40, 0.0, -3.0, 1e-40, 7.0, 6.0];
        let mut highest = f32::NEG_INFINITY;
        for z in numbers {
            floors.raise(0, z);
            highest = highest.max(z);
            assert_eq!(floors.of(0), highest, "{z}");
        }
        assert_eq!(floors.of(1), f32::NEG_INFINITY);
    }
}
