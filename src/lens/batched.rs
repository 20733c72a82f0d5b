//! The head pass in batched tensor operations, for any candle device: tile by tile of the vocabulary, some numbers a row
//! and tile to main memory, merged there by the code that merges the processor's blocks.
//!
//! No array is `[rows, V]`, but for the final rows of the tokens at hand, which are what the sampler draws from: the pass
//! reads their logits instead of computing them again, so that both are the same numbers.

use super::distribution::{self, Part, Plan, Row};
use super::pass::HeadPass;
use crate::model::head_tiles::HeadTiles;
use crate::model::reduce::{Power, Sums};
use candle_core::{D, DType, Result, Tensor};

/// Rows that are read together at most.
const ROWS: usize = 512;
/// Tokens whose final logits are held together at most.
const TOKENS: usize = 64;
/// Numbers of a row and tile before its powers.
const SUMS: usize = 7;

/// The pass over a head in tiles.
pub(super) struct Batched<'a> {
    pub(super) tiles: &'a HeadTiles,
    /// The final rows' logits `[tokens, V]`, where they are known.
    pub(super) last: Option<&'a Tensor>,
}

impl HeadPass for Batched<'_> {
    fn read(
        &self,
        inputs: &Tensor,
        states: usize,
        targets: &[Option<u32>],
        plan: &Plan,
    ) -> Result<Vec<(Row, Option<f32>)>> {
        let tokens = inputs.dim(0)? / states;
        let at_once = at_once(states, plan.group());
        let mut rows = Vec::with_capacity(tokens * states);
        for first in (0..tokens).step_by(at_once) {
            let count = at_once.min(tokens - first);
            let inputs = inputs.narrow(0, first * states, count * states)?;
            let last = match self.last {
                Some(last) => last.narrow(0, first, count)?,
                None => self.tiles.all(&final_rows(&inputs, states)?)?,
            };
            let targets: Vec<Option<u32>> = (first..first + count)
                .map(|i| targets.get(i).copied().flatten())
                .collect();
            rows.extend(self.group(&inputs, &last, states, &targets, plan)?);
        }
        Ok(rows)
    }
}

/// How many tokens are read together; what belongs together stays so.
pub(super) fn at_once(states: usize, group: usize) -> usize {
    let groups = (ROWS / states).min(TOKENS) / group;
    groups.max(1) * group
}

/// Of inputs `[tokens · states, width]` those of the final rows, `[tokens, width]`.
pub(super) fn final_rows(inputs: &Tensor, states: usize) -> Result<Tensor> {
    let (rows, width) = inputs.dims2()?;
    inputs
        .reshape((rows / states, states, width))?
        .narrow(1, states - 1, 1)?
        .contiguous()?
        .reshape((rows / states, width))
}

impl Batched<'_> {
    /// The pass over tokens that are read together. `last` is `[tokens, V]`.
    fn group(
        &self,
        inputs: &Tensor,
        last: &Tensor,
        states: usize,
        targets: &[Option<u32>],
        plan: &Plan,
    ) -> Result<Vec<(Row, Option<f32>)>> {
        let (rows, width) = inputs.dims2()?;
        let tokens = rows / states;
        let lower = inputs.reshape((tokens, states, width))?;
        let lower = lower.narrow(1, 0, states - 1)?.contiguous()?;
        let vocab = self.tiles.vocab;
        let targets: Vec<Option<u32>> = targets
            .iter()
            .map(|target| target.filter(|id| (*id as usize) < vocab))
            .collect();
        let wanted = self.wanted(&lower, last, &targets)?;
        let lower = lower.reshape((tokens * (states - 1), width))?;
        let mut tiles = Vec::new();
        for (i, range) in self.tiles.ranges().enumerate() {
            let of_last = last.narrow(1, range.start, range.len())?.unsqueeze(1)?;
            let z = match states {
                1 => of_last.contiguous()?,
                _ => {
                    let z = self.tiles.logits(i, &lower)?;
                    let z = z.reshape((tokens, states - 1, range.len()))?;
                    Tensor::cat(&[z, of_last], 1)?
                }
            };
            tiles.push(reduce(&z, range.start, wanted.as_ref(), plan)?);
        }
        let numbers = Tensor::stack(&tiles, 0)?.flatten_all()?.to_vec1()?;
        let part = part(&numbers, tiles.len(), rows, plan);
        let logits: Vec<f32> = match &wanted {
            Some(wanted) => wanted.logits.flatten_all()?.to_vec1()?,
            None => Vec::new(),
        };
        Ok((0..rows)
            .map(|row| {
                let merged = distribution::merge(std::slice::from_ref(&part), row, states, plan);
                let wanted = targets[row / states].and_then(|_| logits.get(row).copied());
                (merged, wanted)
            })
            .collect())
    }

    /// The targets' logits; `None` where no token has a target.
    fn wanted(
        &self,
        lower: &Tensor,
        last: &Tensor,
        targets: &[Option<u32>],
    ) -> Result<Option<Wanted>> {
        if targets.iter().all(Option::is_none) {
            return Ok(None);
        }
        let (device, tokens) = (last.device(), targets.len());
        let ids: Vec<u32> = targets.iter().map(|id| id.unwrap_or(0)).collect();
        let at = Tensor::from_slice(&ids, (tokens, 1), device)?;
        let of_last = last.contiguous()?.gather(&at, 1)?;
        let logits = match lower.dim(1)? {
            0 => of_last,
            _ => Tensor::cat(&[self.tiles.of_ids(&ids, lower)?, of_last], 1)?,
        };
        // Nothing is above what is no number.
        let nothing = targets.iter().map(|id| match id {
            Some(_) => 0.0,
            None => f32::NAN,
        });
        let nothing = Tensor::from_iter(nothing, device)?.reshape((tokens, 1))?;
        Ok(Some(Wanted {
            ids: at.to_dtype(DType::F32)?.unsqueeze(2)?,
            logits: logits.broadcast_add(&nothing)?.unsqueeze(2)?,
        }))
    }
}

/// Logits to be ranked.
struct Wanted {
    /// `[tokens, 1, 1]`; exact in f32, as vocabularies are far smaller than 2²⁴.
    ids: Tensor,
    /// `[tokens, states, 1]`, NaN for tokens without a target.
    logits: Tensor,
}

/// The sums and the best of a tile of logits `[tokens, states, n]` whose first id is `first`: `[numbers, tokens, states]` in
/// the order that [`part`] reads.
fn reduce(z: &Tensor, first: usize, wanted: Option<&Wanted>, plan: &Plan) -> Result<Tensor> {
    let (tokens, states, n) = z.dims3()?;
    let device = z.device();
    let sum = |t: &Tensor| t.sum(D::Minus1);
    let max = z.max_keepdim(D::Minus1)?;
    // A tile of nothing but −∞ is left at −∞ instead of becoming −∞ − −∞.
    let least = max.eq(f32::NEG_INFINITY)?;
    let base = least.where_cond(&max.zeros_like()?, &max)?;
    let x = (z.broadcast_sub(&base)? * f64::from(plan.inverse()))?;
    let e = x.exp()?;
    let zero = e.zeros_like()?;
    let some = e.gt(0f32)?;
    // 0 · ∞ is 0 here.
    let weigh = |weighed: &Tensor| some.where_cond(weighed, &zero)?.sum(D::Minus1);
    let total = sum(&e)?;
    let weighted = weigh(&(&e * &x)?)?;
    let mean = (&weighted / &total)?.unsqueeze(2)?;
    let spread = weigh(&(&e * x.broadcast_sub(&mean)?.sqr()?)?)?;
    let of_last = |t: &Tensor| {
        t.narrow(1, states - 1, 1)?
            .broadcast_as(z.shape())?
            .contiguous()
    };
    let (x_last, e_last) = (of_last(&x)?, of_last(&e)?);
    let cross = weigh(&(&e * x_last)?)?;
    let weighed_by = |other: &Tensor| {
        let weighed = other.gt(0f32)?.where_cond(&(other * &x)?, &zero)?;
        sum(&weighed)
    };
    let back = weighed_by(&e_last)?;
    let ids = Tensor::arange(first as f32, (first + n) as f32, device)?.reshape((1, 1, n))?;
    let above = match wanted {
        Some(wanted) => {
            // The target's own logit was computed another way and may differ in its last bit.
            let others = ids.broadcast_ne(&wanted.ids)?.to_dtype(DType::F32)?;
            let larger = z.broadcast_gt(&wanted.logits)?.to_dtype(DType::F32)?;
            sum(&larger.broadcast_mul(&others)?)?
        }
        None => total.zeros_like()?,
    };
    let mut numbers = vec![max.squeeze(2)?, total, weighted, spread, cross, back, above];
    debug_assert_eq!(numbers.len(), SUMS);
    for (power, order) in plan.powers() {
        numbers.push(match power {
            Power::Real(_) | Power::Whole(_) => sum(&(&x * order)?.exp()?)?,
            // e^u − 1 = 2 tanh(u/2) / (1 − tanh(u/2)), without the difference.
            Power::Near(above) => {
                let t = (&x * (above / 2.0))?.tanh()?;
                let grown = ((&t * 2.0)? / (1.0 - t)?)?;
                weigh(&(&e * grown)?)?
            }
        });
    }
    if plan.group() > 1 {
        let grouped = (tokens / plan.group(), plan.group(), states, n);
        let first = e.reshape(grouped)?.narrow(1, 0, 1)?;
        let twins = first.broadcast_as(grouped)?.contiguous()?;
        numbers.push(weighed_by(&twins.reshape(z.shape())?)?);
    }
    // One after the other, each time the lowest id of the largest: a sort would not keep ties in order.
    let ids = ids.broadcast_as(z.shape())?.contiguous()?;
    let beyond = Tensor::full(f32::INFINITY, z.shape(), device)?;
    let nothing = Tensor::full(f32::NEG_INFINITY, z.shape(), device)?;
    let mut left = z.clone();
    for _ in 0..plan.best().min(n) {
        let largest = left.max_keepdim(D::Minus1)?;
        let id = left
            .broadcast_eq(&largest)?
            .where_cond(&ids, &beyond)?
            .min_keepdim(D::Minus1)?;
        left = ids.broadcast_eq(&id)?.where_cond(&nothing, &left)?;
        numbers.extend([largest.squeeze(2)?, id.squeeze(2)?]);
    }
    // Tiles are stacked, so a short one has as many numbers.
    while numbers.len() < before_best(plan) + 2 * plan.best() {
        numbers.push(Tensor::full(f32::NEG_INFINITY, (tokens, states), device)?);
    }
    Tensor::stack(&numbers, 0)
}

/// Numbers of a row and tile before its best.
fn before_best(plan: &Plan) -> usize {
    SUMS + plan.powers().count() + usize::from(plan.group() > 1)
}

/// What [`reduce`] gave of each tile, `[tiles][numbers][rows]`, as the blocks that are merged.
fn part(numbers: &[f32], tiles: usize, rows: usize, plan: &Plan) -> Part {
    let powers = plan.powers().count();
    let columns = before_best(plan) + 2 * plan.best();
    let mut sums = Vec::with_capacity(tiles * rows);
    let mut raised = Vec::with_capacity(tiles * rows * powers);
    let mut apart = Vec::new();
    let mut best = vec![Vec::new(); rows];
    for tile in numbers.chunks_exact((columns * rows).max(1)) {
        for (row, best) in best.iter_mut().enumerate() {
            let at = |column: usize| tile[column * rows + row];
            let wide = |column: usize| f64::from(at(column));
            // A sum that is no number tells of a logit that is none; a largest may have passed over it.
            sums.push(match at(1).is_nan() || at(0) == f32::INFINITY {
                true => Sums {
                    max: f32::NAN,
                    ..Sums::default()
                },
                false => Sums {
                    max: at(0),
                    sum: wide(1),
                    weighted: wide(2),
                    spread: if at(1) > 0.0 { wide(3) } else { 0.0 },
                    cross: wide(4),
                    back: wide(5),
                    above: at(6) as u32,
                },
            });
            raised.extend((0..powers).map(|i| wide(SUMS + i)));
            if plan.group() > 1 {
                apart.push(wide(SUMS + powers));
            }
            let candidates = (0..plan.best()).map(|i| {
                let at_best = before_best(plan) + 2 * i;
                (at(at_best + 1), at(at_best))
            });
            best.extend(
                candidates
                    .filter(|(id, z)| z.is_finite() && id.is_finite())
                    .map(|(id, z)| (id as u32, z)),
            );
        }
    }
    Part::of_blocks(rows, sums, raised, apart, best)
}

#[cfg(test)]
mod tests {
    use super::super::LensSettings;
    use super::super::fused::{self, Source};
    use super::*;
    use crate::model::backend::Backend;
    use crate::model::device::Place;
    use crate::model::linear::Linear;
    use crate::model::weights::Stored;
    use crate::trace::Candidate;
    use candle_core::Device;
    use rand::{Rng, SeedableRng};

    const VOCAB: usize = 1300;
    const STATES: usize = 3;
    /// Column of the target's rank.
    const RANK: usize = distribution::COLUMNS - 1;

    fn columns(
        rows: &[(Row, Option<f32>)],
        settings: &LensSettings,
    ) -> Vec<(Vec<f32>, Vec<Candidate>)> {
        (0..rows.len())
            .map(|row| {
                let last = row / STATES * STATES + STATES - 1;
                let target = rows[row].1.map(|z| (z, None));
                let mut out = Vec::new();
                let top = distribution::columns(
                    &rows[row].0,
                    &rows[last].0,
                    row == last,
                    VOCAB,
                    target,
                    settings,
                    &mut out,
                );
                (out, top)
            })
            .collect()
    }

    /// Ties, −∞ in places, in a whole tile and in a whole row, NaN, +∞, peaked rows, orders near 1, a temperature, and a
    /// last tile of fewer logits than candidates: all columns are those of the processor's pass.
    #[test]
    fn tiles_give_what_the_blocks_of_the_processor_give() {
        let settings = LensSettings {
            temperature: 0.7,
            renyi: vec![0.5, 1.0, 1.0001, 2.0, 5.0, f64::INFINITY],
            ..LensSettings::default()
        };
        let plan = Plan::new(&settings);
        let mut rng = rand::rngs::StdRng::seed_from_u64(5);
        let tokens = 4;
        let mut z: Vec<f32> = (0..tokens * STATES * VOCAB)
            .map(|_| f32::from(rng.random_range(-40i8..40)) / 8.0)
            .collect();
        let nothing = f32::NEG_INFINITY;
        z[..600].fill(nothing);
        z[2 * VOCAB + 700] = 90.0;
        for i in (0..VOCAB).step_by(7) {
            z[5 * VOCAB + i] = nothing;
        }
        z[6 * VOCAB + 9] = f32::NAN;
        z[7 * VOCAB..8 * VOCAB].fill(nothing);
        z[9 * VOCAB + 1299] = f32::INFINITY;
        let targets = [Some(1000), None, Some(3), Some(1299)];
        let source = Source::Logits(&z, VOCAB);
        let expected = fused::read(&source, tokens, STATES, &targets, &plan, &mut []);
        for size in [96, 433, 5000] {
            let all = Tensor::from_slice(&z, (tokens, STATES, VOCAB), &Device::Cpu).unwrap();
            let wanted = |row: usize, id: u32| z[row * VOCAB + id as usize];
            let logits: Vec<f32> = (0..tokens * STATES)
                .map(|row| targets[row / STATES].map_or(f32::NAN, |id| wanted(row, id)))
                .collect();
            let ids: Vec<f32> = targets.iter().map(|id| id.unwrap_or(0) as f32).collect();
            let known = Wanted {
                ids: Tensor::from_vec(ids, (tokens, 1, 1), &Device::Cpu).unwrap(),
                logits: Tensor::from_slice(&logits, (tokens, STATES, 1), &Device::Cpu).unwrap(),
            };
            let tiles: Vec<Tensor> = (0..VOCAB)
                .step_by(size)
                .map(|from| {
                    let z = all.narrow(2, from, size.min(VOCAB - from)).unwrap();
                    let z = z.contiguous().unwrap();
                    reduce(&z, from, Some(&known), &plan).unwrap()
                })
                .collect();
            let numbers = Tensor::stack(&tiles, 0).unwrap();
            let numbers: Vec<f32> = numbers.flatten_all().unwrap().to_vec1().unwrap();
            let part = part(&numbers, tiles.len(), tokens * STATES, &plan);
            let parts = std::slice::from_ref(&part);
            let found: Vec<(Row, Option<f32>)> = (0..tokens * STATES)
                .map(|row| {
                    let wanted = targets[row / STATES].map(|_| logits[row]);
                    (distribution::merge(parts, row, STATES, &plan), wanted)
                })
                .collect();
            let (found, expected) = (columns(&found, &settings), columns(&expected, &settings));
            for (row, ((a, best), (b, of_kernel))) in found.iter().zip(&expected).enumerate() {
                for (i, (a, b)) in a.iter().zip(b).enumerate() {
                    let near = (a - b).abs() <= 1e-5 + 1e-5 * b.abs();
                    let same = a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                    assert!(near || same, "{size} row {row} column {i}: {a} {b}");
                }
                let ids = |best: &[Candidate]| best.iter().map(|c| c.id).collect::<Vec<_>>();
                assert_eq!(ids(best), ids(of_kernel), "{size} row {row}");
            }
        }
    }

    /// From inputs on, with bias and cap, in groups of tokens; final rows given or computed.
    #[test]
    fn the_pass_over_a_head_is_the_processors() {
        let (tokens, states, width) = (150, 4, 16);
        let mut rng = rand::rngs::StdRng::seed_from_u64(6);
        let mut random = |dims: &[usize]| {
            let numbers: Vec<f32> = (0..dims.iter().product())
                .map(|_| rng.random_range(-1.7..1.7))
                .collect();
            Tensor::from_vec(numbers, dims, &Device::Cpu).unwrap()
        };
        let (weight, bias) = (random(&[VOCAB, width]), random(&[VOCAB]));
        let linear = Linear::new(Stored::Float(weight), Some(bias)).unwrap();
        let place = Place {
            backend: Backend::Tensors,
            tile: 500,
            ..Place::cpu()
        };
        let tiles = HeadTiles::new(&linear, Some(6.0), &place).unwrap();
        let inputs = random(&[tokens * states, width]);
        let logits = linear.forward(&inputs).unwrap();
        let logits = ((logits / 6.0).unwrap().tanh().unwrap() * 6.0).unwrap();
        let logits: Vec<f32> = logits.flatten_all().unwrap().to_vec1().unwrap();
        let settings = LensSettings::default();
        let plan = Plan::new(&settings);
        let targets: Vec<Option<u32>> = (0..tokens as u32).map(|i| Some(i * 8)).collect();
        let source = Source::Logits(&logits, VOCAB);
        let expected = fused::read(&source, tokens, states, &targets, &plan, &mut []);
        let last = tiles.all(&final_rows(&inputs, states).unwrap()).unwrap();
        for last in [None, Some(&last)] {
            let pass = Batched {
                tiles: &tiles,
                last,
            };
            let found = pass.read(&inputs, states, &targets, &plan).unwrap();
            assert_eq!(found.len(), expected.len());
            for (row, ((a, z), (b, of_kernel))) in found.iter().zip(&expected).enumerate() {
                let (z, of_kernel) = (z.unwrap(), of_kernel.unwrap());
                assert!((z - of_kernel).abs() < 1e-5, "row {row}: {z} {of_kernel}");
                let at = row / states * states + states - 1;
                let read = |row: &Row, last: &Row, z: f32| {
                    let mut out = Vec::new();
                    let target = Some((z, None));
                    distribution::columns(row, last, false, VOCAB, target, &settings, &mut out);
                    out
                };
                let found = read(a, &found[at].0, z);
                // Logits that differ from the target's by a rounding may stand on either side of it.
                let own = &logits[row * VOCAB..(row + 1) * VOCAB];
                let near = own
                    .iter()
                    .filter(|o| (**o - of_kernel).abs() < 1e-5)
                    .count();
                let expected = read(b, &expected[at].0, of_kernel);
                for (i, (a, b)) in found.iter().zip(expected).enumerate() {
                    let slack = if i == RANK { near as f32 - 1.0 } else { 0.0 };
                    let off = (a - b).abs();
                    assert!(off <= slack + 2e-5 + 2e-5 * b.abs(), "row {row}: {a} {b}");
                }
            }
        }
        // A target that is no token has no surprisal, and is no error.
        let pass = Batched {
            tiles: &tiles,
            last: None,
        };
        let inputs = inputs.narrow(0, 0, states).unwrap();
        let rows = pass.read(&inputs, states, &[Some(VOCAB as u32)], &plan);
        assert!(rows.unwrap().iter().all(|(_, wanted)| wanted.is_none()));
    }
}
