//! The scans of state-space models and their short convolutions in batched tensor operations.

use candle_core::{D, DType, Result, Tensor};

/// Numbers that a selective scan holds at once for the tokens of a stretch.
const HELD: usize = 1 << 24;
/// Tokens of a stretch at most.
const STRETCH: usize = 64;

/// A causal depthwise convolution of `x` `[tokens, channels]` with `taps` `[width, channels]`, of the text that follows
/// what `memory` holds, `[width − 1, channels]`; leaves the new memory there.
pub(crate) fn convolve(
    x: &Tensor,
    taps: &Tensor,
    bias: Option<&Tensor>,
    memory: &mut Option<Tensor>,
) -> Result<Tensor> {
    let (tokens, channels) = x.dims2()?;
    let width = taps.dim(0)?;
    let seen = match (memory.as_ref(), width) {
        (_, 1) => x.clone(),
        (Some(memory), _) => Tensor::cat(&[memory, x], 0)?,
        (None, _) => x.pad_with_zeros(0, width - 1, 0)?,
    };
    let mut out = match bias {
        Some(bias) => bias
            .reshape((1, channels))?
            .broadcast_as((tokens, channels))?,
        None => x.zeros_like()?,
    };
    for k in 0..width {
        let tap = taps.narrow(0, k, 1)?;
        out = (out + seen.narrow(0, k, tokens)?.broadcast_mul(&tap)?)?;
    }
    *memory = Some(seen.narrow(0, tokens, width - 1)?.copy()?);
    Ok(out)
}

/// ln(1 + eˣ), with every digit of small ones.
pub(crate) fn softplus(x: &Tensor) -> Result<Tensor> {
    let e = x.abs()?.neg()?.exp()?;
    let u = (&e + 1.0)?;
    // ln u · e / (u − 1) undoes the rounding of 1 + e.
    let off = (&u - 1.0)?;
    let lost = off.eq(0f32)?;
    let safe = lost.where_cond(&u, &off)?;
    let log = lost.where_cond(&e, &((u.log()? * &e)? / safe)?)?;
    x.relu()? + log
}

/// Mamba 1's scan over a text: `x` and `step` `[tokens, inner]`, `b` and `c` `[tokens, n]`, `a` `[inner, n]`, `d` `[inner]`.
/// Gives `[tokens, inner]` and leaves the new state `[inner, n]`.
pub(crate) fn selective(
    x: &Tensor,
    step: &Tensor,
    (b, c): (&Tensor, &Tensor),
    (a, d): (&Tensor, &Tensor),
    state: &mut Option<Tensor>,
) -> Result<Tensor> {
    let (tokens, inner) = x.dims2()?;
    let n = a.dim(1)?;
    let stretch = (HELD / (inner * n)).clamp(1, STRETCH);
    let mut now = match state.take() {
        Some(state) => state,
        None => a.zeros_like()?,
    };
    let mut out = Vec::with_capacity(tokens.div_ceil(stretch));
    for from in (0..tokens).step_by(stretch) {
        let count = stretch.min(tokens - from);
        let part = |t: &Tensor| t.narrow(0, from, count);
        let (x, step, b, c) = (part(x)?, part(step)?, part(b)?, part(c)?);
        let decay = step.unsqueeze(2)?.broadcast_mul(&a.unsqueeze(0)?)?.exp()?;
        let enters = (&step * &x)?
            .unsqueeze(2)?
            .broadcast_mul(&b.unsqueeze(1)?)?;
        let mut states = Vec::with_capacity(count);
        for t in 0..count {
            now = ((now * decay.get(t)?)? + enters.get(t)?)?;
            states.push(now.clone());
        }
        let y = Tensor::stack(&states, 0)?
            .broadcast_mul(&c.unsqueeze(1)?)?
            .sum(D::Minus1)?;
        out.push((y + x.broadcast_mul(d)?)?);
    }
    *state = Some(now);
    Tensor::cat(&out, 0)
}

/// What Mamba 2's scan knows beside the text.
#[derive(Debug)]
pub(crate) struct Dual {
    /// `[heads]`, −exp(A_log).
    pub(crate) a: Tensor,
    /// `[heads]`.
    pub(crate) d: Tensor,
}

impl Dual {
    /// Mamba 2's scan over a text: `x` `[tokens, heads, head_dim]`, `step` `[tokens, heads]`, `b` and `c`
    /// `[tokens, groups, n]`. Gives `[tokens, heads, head_dim]` and leaves the new state `[heads, head_dim, n]`.
    ///
    /// Stretch by stretch as attention whose weights decay with distance (Dao & Gu 2024, "state-space duality"), and from
    /// stretch to stretch by the state.
    pub(crate) fn scan(
        &self,
        x: &Tensor,
        step: &Tensor,
        b: &Tensor,
        c: &Tensor,
        state: &mut Option<Tensor>,
    ) -> Result<Tensor> {
        let (tokens, heads, head_dim) = x.dims3()?;
        let n = b.dim(2)?;
        let mut now = match state.take() {
            Some(state) => state,
            None => Tensor::zeros((heads, head_dim, n), DType::F32, x.device())?,
        };
        let mut out = Vec::with_capacity(tokens.div_ceil(STRETCH));
        for from in (0..tokens).step_by(STRETCH) {
            let count = STRETCH.min(tokens - from);
            let part = |t: &Tensor| t.narrow(0, from, count);
            let (y, after) = self.stretch(&part(x)?, &part(step)?, &part(b)?, &part(c)?, &now)?;
            now = after;
            out.push(y);
        }
        *state = Some(now);
        Tensor::cat(&out, 0)
    }

    fn stretch(
        &self,
        x: &Tensor,
        step: &Tensor,
        b: &Tensor,
        c: &Tensor,
        state: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let (tokens, heads, _) = x.dims3()?;
        let (_, groups, n) = b.dims3()?;
        let device = x.device();
        let upto = Tensor::tril2(tokens, DType::F32, device)?;
        let after = (&upto - Tensor::eye(tokens, DType::F32, device)?)?;
        // [heads, tokens, 1]: the logarithm of each token's decay.
        let log = step
            .broadcast_mul(&self.a)?
            .t()?
            .contiguous()?
            .unsqueeze(2)?;
        // between[i][j] is the sum over j < k ≤ i, summed and not subtracted: differences of long sums lose digits.
        let all = upto.unsqueeze(0)?.broadcast_as((heads, tokens, tokens))?;
        let all = all.contiguous()?;
        let between = all.matmul(&log.broadcast_mul(&after.unsqueeze(0)?)?)?;
        let decay = between.exp()?.broadcast_mul(&upto.unsqueeze(0)?)?;
        let since = all.matmul(&log)?.exp()?;
        let rest = between.narrow(1, tokens - 1, 1)?.exp()?;
        // [groups, tokens, n], and for each head its group's.
        let grouped = |t: &Tensor| t.transpose(0, 1)?.contiguous();
        let of_heads = |t: &Tensor| {
            let (_, rows, columns) = t.dims3()?;
            t.unsqueeze(1)?
                .broadcast_as((groups, heads / groups, rows, columns))?
                .contiguous()?
                .reshape((heads, rows, columns))
        };
        let (b, c) = (grouped(b)?, grouped(c)?);
        let alike = of_heads(&c.matmul(&b.t()?)?)?;
        let heads_first = |t: &Tensor| t.transpose(0, 1)?.contiguous();
        let enters = heads_first(&x.broadcast_mul(&step.unsqueeze(2)?)?)?;
        let within = (alike * decay)?.matmul(&enters)?;
        let (b, c) = (of_heads(&b)?, of_heads(&c)?);
        let before = c.matmul(&state.t()?)?.broadcast_mul(&since)?;
        let y = (within + before)?.transpose(0, 1)?;
        let own = x.broadcast_mul(&self.d.reshape((1, heads, 1))?)?;
        // [heads, head_dim, tokens] · [heads, tokens, n]
        let added = enters.t()?.broadcast_mul(&rest)?.matmul(&b)?;
        let kept = since.narrow(1, tokens - 1, 1)?;
        debug_assert_eq!(b.dims(), [heads, tokens, n]);
        Ok(((y + own)?, (state.broadcast_mul(&kept)? + added)?))
    }
}

/// RMSNorm of `y · silu(gate)` over each of `groups` parts of the last dimension, times `weight`; `[tokens, inner]`.
pub(crate) fn gated_norm(
    y: &Tensor,
    gate: &Tensor,
    weight: &Tensor,
    groups: usize,
    eps: f64,
) -> Result<Tensor> {
    let (tokens, inner) = y.dims2()?;
    let y = (y * gate.silu()?)?.reshape((tokens, groups, inner / groups))?;
    super::rms_norm(&y, &weight.reshape((groups, inner / groups))?, eps)?.reshape((tokens, inner))
}

#[cfg(test)]
mod tests {
    use super::super::tests::random;
    use super::*;
    use candle_core::Device;

    fn numbers(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn same(a: &[f32], b: &[f32]) {
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() < 2e-5 * b.abs().max(1.0), "{a} {b}");
        }
    }

    #[test]
    fn softplus_keeps_the_digits_of_small_steps() {
        let x = [-40.0f32, -12.0, -7.3, -0.1, 0.0, 3.0, 30.0];
        let found = softplus(&Tensor::new(&x, &Device::Cpu).unwrap()).unwrap();
        for (found, x) in numbers(&found).iter().zip(x) {
            let expected = f64::from(x).exp().ln_1p();
            let off = (f64::from(*found) / expected - 1.0).abs();
            assert!(off < 1e-6, "{x}: {found} {expected}");
        }
    }

    /// Written out token by token, across stretches, in two pieces.
    #[test]
    fn scans_are_their_recurrences() {
        let (tokens, heads, p, groups, n) = (150, 4, 3, 2, 5);
        let x = random(1, &[tokens, heads, p]);
        let step = softplus(&random(2, &[tokens, heads])).unwrap();
        let (b, c) = (
            random(3, &[tokens, groups, n]),
            random(4, &[tokens, groups, n]),
        );
        let dual = Dual {
            a: random(5, &[heads]).abs().unwrap().neg().unwrap(),
            d: random(6, &[heads]),
        };
        let mut state = None;
        let mut found = Vec::new();
        for (from, count) in [(0, 70), (70, 80)] {
            let part = |t: &Tensor| t.narrow(0, from, count).unwrap();
            let y = dual.scan(&part(&x), &part(&step), &part(&b), &part(&c), &mut state);
            found.extend(numbers(&y.unwrap()));
        }
        let (xs, steps) = (numbers(&x), numbers(&step));
        let (bs, cs) = (numbers(&b), numbers(&c));
        let (a, d) = (numbers(&dual.a), numbers(&dual.d));
        let mut s = vec![0.0f32; heads * p * n];
        let mut expected = Vec::new();
        for t in 0..tokens {
            for h in 0..heads {
                let g = (t * groups + h / (heads / groups)) * n;
                let dt = steps[t * heads + h];
                for i in 0..p {
                    let x = xs[(t * heads + h) * p + i];
                    let mut y = d[h] * x;
                    for j in 0..n {
                        let s = &mut s[(h * p + i) * n + j];
                        *s = *s * (dt * a[h]).exp() + dt * x * bs[g + j];
                        y += *s * cs[g + j];
                    }
                    expected.push(y);
                }
            }
        }
        same(&found, &expected);
        same(&numbers(&state.unwrap()), &s);
    }
}
