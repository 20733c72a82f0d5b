//! The element-wise operations of a decoder, each one pass over memory and each with its gradient.
//!
//! candle-nn's fused norm, softmax and rotary kernels have no backward pass and drop gradients silently, so inference
//! and training would need two code paths. These are `CustomOp`s with `bwd`, so one forward serves both. They run in
//! main memory; other devices compute with their [twins](super::backend).

use super::crew;
use super::kernel::{self, Matrix};
use super::vectors::{self, exp, sigmoid};
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, D, DType, Device, Layout, Result, Shape, Storage, Tensor,
};
use std::ops::Range;
use std::sync::Arc;

/// Rows are handed to threads in batches of at least this many numbers; smaller work stays on one core.
const GRAIN: usize = 1 << 14;
/// Numbers that are worked on together where rows mean nothing.
const ROW: usize = 1024;

/// The contiguous f32 numbers behind a CPU storage.
fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let (from, to) = layout.contiguous_offsets().ok_or_else(|| {
        candle_core::Error::Msg("a fused operation needs a contiguous tensor".into())
    })?;
    Ok(&storage.as_slice::<f32>()?[from..to])
}

/// Run `f` on the numbers of an f32 tensor; those of another device are copied to main memory first.
pub(crate) fn with_slice<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let tensor = tensor.to_device(&Device::Cpu)?.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(cpu) => Ok(f(slice(cpu, layout)?)),
        _ => candle_core::bail!("expected a tensor in main memory"),
    }
}

/// `f(row index, out row)` over rows of `width`, in parallel when there is enough of it.
pub(super) fn for_rows(out: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    if width == 0 {
        return;
    }
    if out.len() <= GRAIN {
        out.chunks_mut(width)
            .enumerate()
            .for_each(|(i, row)| f(i, row));
    } else {
        let rows = (GRAIN / width).max(1);
        let mut parts: Vec<&mut [f32]> = out.chunks_mut(rows * width).collect();
        crew::each(&mut parts, |part, out| {
            for (i, row) in out.chunks_mut(width).enumerate() {
                f(part * rows + i, row);
            }
        });
    }
}

/// RMSNorm over the last dimension: `x / sqrt(mean(x²) + eps) · w`. Shapes: x `[…, d]`, w `[d]`.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    x.contiguous()?
        .apply_op2(weight, RmsNorm { eps: eps as f32 })
}

struct RmsNorm {
    eps: f32,
}

impl RmsNorm {
    /// 1 / sqrt(mean(x²) + eps), the sum in f64 so that wide states keep their last digits.
    fn scale(&self, x: &[f32]) -> f32 {
        let square = vectors::squares(x, 0.0);
        (1.0 / (square / x.len() as f64 + f64::from(self.eps)).sqrt()) as f32
    }
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w) = (slice(s1, l1)?, slice(s2, l2)?);
        let d = w.len();
        let mut out = vec![0.0; x.len()];
        for_rows(&mut out, d, |i, row| {
            let x = &x[i * d..(i + 1) * d];
            let r = self.scale(x);
            for ((o, x), w) in row.iter_mut().zip(x).zip(w) {
                *o = x * r * w;
            }
        });
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let d = w.elem_count();
        let (dx, dw) = with_slice(x, |x| {
            with_slice(w, |w| {
                with_slice(grad, |g| {
                    let mut dx = vec![0.0f32; x.len()];
                    let mut dw = vec![0.0f32; d];
                    for ((dx, x), g) in dx.chunks_mut(d).zip(x.chunks(d)).zip(g.chunks(d)) {
                        let r = self.scale(x);
                        let mut dot = 0.0;
                        for i in 0..d {
                            dot += g[i] * w[i] * x[i];
                            dw[i] += g[i] * x[i] * r;
                        }
                        let c = dot * r * r * r / d as f32;
                        for i in 0..d {
                            dx[i] = g[i] * w[i] * r - x[i] * c;
                        }
                    }
                    (dx, dw)
                })
            })
        })???;
        Ok((
            Some(Tensor::from_vec(dx, x.shape(), x.device())?),
            Some(Tensor::from_vec(dw, w.shape(), w.device())?),
        ))
    }
}

/// LayerNorm over the last dimension with weight and bias `[d]`.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    if x.track_op() {
        return candle_nn::ops::layer_norm_slow(x, weight, bias, eps as f32);
    }
    let d = weight.elem_count();
    let out = with_slice(x, |x| {
        with_slice(weight, |weight| {
            with_slice(bias, |bias| {
                let mut out = vec![0.0f32; x.len()];
                for_rows(&mut out, d, |i, out| {
                    let x = &x[i * d..(i + 1) * d];
                    // In two passes and f64: states far from 0 keep the last digits of their spread.
                    let mean = vectors::wide_sum(x) / d as f64;
                    let scale = 1.0 / (vectors::squares(x, mean) / d as f64 + eps).sqrt();
                    for (((o, x), w), b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                        *o = ((f64::from(*x) - mean) * scale) as f32 * w + b;
                    }
                });
                out
            })
        })
    })???;
    Tensor::from_vec(out, x.shape(), x.device())
}

/// What happens to the products of queries and keys before the softmax.
#[derive(Clone, Debug)]
pub struct Scores {
    /// Factor on the products.
    pub scale: f64,
    /// Scores s become `cap · tanh(s / cap)`, before anything is masked (Gemma 2).
    pub cap: Option<f64>,
    /// `[heads]`: what each position of distance takes from a score (ALiBi).
    pub slopes: Option<Vec<f32>>,
    /// Which keys a query sees.
    pub sight: Sight,
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// So many keys, its own included.
    pub window: Option<usize>,
    /// No later ones.
    pub causal: bool,
}

impl Sight {
    /// The keys that the query at `position` sees, of `keys`.
    #[must_use]
    pub fn visible(&self, position: usize, keys: usize) -> Range<usize> {
        let end = if self.causal {
            (position + 1).min(keys)
        } else {
            keys
        };
        let first = self.window.map_or(0, |w| (position + 1).saturating_sub(w));
        first.min(end)..end
    }
}

impl Scores {
    /// Turn a row of products, the first of which belongs to key `first`, into probabilities; those outside `seen`
    /// become exactly 0.
    fn row(&self, row: &mut [f32], head: usize, position: usize, seen: Range<usize>, first: usize) {
        let (start, end) = (seen.start - first, seen.end - first);
        row[..start].fill(0.0);
        row[end..].fill(0.0);
        let seen = &mut row[start..end];
        let mut scale = self.scale as f32;
        if let Some(cap) = self.cap {
            let cap = cap as f32;
            for z in seen.iter_mut() {
                *z = cap * (*z * scale / cap).tanh();
            }
            scale = 1.0;
        }
        if let Some(slope) = self.slopes.as_ref().and_then(|s| s.get(head)) {
            for (i, z) in seen.iter_mut().enumerate() {
                *z = *z * scale - slope * (position as f32 - (first + start + i) as f32);
            }
            scale = 1.0;
        }
        vectors::softmax(seen, scale);
    }
}

/// The slopes of ALiBi for so many heads: a geometric sequence, and for counts that are no power of two every other term
/// of the next one's (Press et al. 2022, as its authors' code has it).
#[must_use]
pub fn alibi_slopes(heads: usize) -> Vec<f32> {
    let powers = |count: usize, step: usize, offset: usize, of: usize| {
        let base = 2f64.powf(-8.0 / of as f64);
        (0..count).map(move |i| base.powi((offset + step * i) as i32) as f32)
    };
    let whole = 1 << heads.max(1).ilog2();
    powers(whole, 1, 1, whole)
        .chain(powers(heads - whole.min(heads), 2, 1, 2 * whole))
        .take(heads)
        .collect()
}

/// Softmax over the visible keys of products `[batch, heads, queries, keys]`; query i stands at position `past + i`. The
/// rest get exactly 0.
pub fn attention_softmax(products: &Tensor, scores: &Scores, past: usize) -> Result<Tensor> {
    products.contiguous()?.apply_op1(Softmax {
        scores: scores.clone(),
        past,
    })
}

struct Softmax {
    scores: Scores,
    past: usize,
}

impl Softmax {
    /// Head, position and visible keys of a row of `[batch, heads, queries, keys]`.
    fn place(&self, row: usize, layout: &[usize]) -> (usize, usize, Range<usize>) {
        let (heads, queries, keys) = (layout[1], layout[2], layout[3]);
        let position = self.past + row % queries;
        let head = row / queries % heads;
        (head, position, self.scores.sight.visible(position, keys))
    }
}

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "attention-softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let z = slice(storage, layout)?;
        let dims = layout.dims();
        let keys = dims[3];
        let mut out = vec![0.0; z.len()];
        for_rows(&mut out, keys, |i, row| {
            row.copy_from_slice(&z[i * keys..(i + 1) * keys]);
            let (head, position, seen) = self.place(i, dims);
            self.scores.row(row, head, position, seen, 0);
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let dims = arg.dims();
        let keys = arg.dim(D::Minus1)?;
        let scale = self.scores.scale as f32;
        let out = with_slice(arg, |z| {
            with_slice(res, |p| {
                with_slice(grad, |g| {
                    let mut out = vec![0.0; p.len()];
                    for_rows(&mut out, keys, |i, row| {
                        let (_, _, seen) = self.place(i, dims);
                        let span = i * keys + seen.start..i * keys + seen.end;
                        let (z, p, g) = (&z[span.clone()], &p[span.clone()], &g[span]);
                        let dot: f32 = p.iter().zip(g).map(|(p, g)| p * g).sum();
                        for (((o, p), g), z) in row[seen].iter_mut().zip(p).zip(g).zip(z) {
                            let bend = match self.scores.cap {
                                Some(cap) => 1.0 - (z * scale / cap as f32).tanh().powi(2),
                                None => 1.0,
                            };
                            *o = scale * bend * p * (g - dot);
                        }
                    });
                    out
                })
            })
        })???;
        Ok(Some(Tensor::from_vec(out, arg.shape(), arg.device())?))
    }
}

/// What [`attention`] gives: mixed values `[queries, heads · head_dim]`, and the probabilities
/// `[heads, queries, keys]` where they were asked for.
pub type Attended = (Tensor, Option<Tensor>);

/// Attention of one branch on the CPU, without gradient. `q` is `[1, heads, queries, head_dim]`, `k` and `v` are
/// views `[1, kv_heads, keys, head_dim]` whose rows are contiguous; query i stands at position `past + i`.
///
/// Every number is summed in an order that depends on its own position alone, so reading in chunks or with a cache
/// gives the same bits as reading at once.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scores: &Scores,
    past: usize,
    keep: bool,
) -> Result<Attended> {
    let (_, heads, queries, head_dim) = q.dims4()?;
    let (_, kv_heads, keys, _) = k.dims4()?;
    let shared = heads / kv_heads;
    let (ks, kl) = k.storage_and_layout();
    let (vs, vl) = v.storage_and_layout();
    let (Storage::Cpu(ks), Storage::Cpu(vs)) = (&*ks, &*vs) else {
        candle_core::bail!("expected keys and values in main memory");
    };
    let (ks, vs) = (ks.as_slice::<f32>()?, vs.as_slice::<f32>()?);
    // The stride of a single row, or of rows of a single number, means nothing.
    let in_rows = |layout: &Layout| {
        (keys == 1 || layout.stride()[2] == head_dim) && (head_dim == 1 || layout.stride()[3] == 1)
    };
    if !in_rows(kl) || !in_rows(vl) {
        candle_core::bail!("rows of keys and values must be contiguous");
    }
    // Keys that no query of this call sees are left alone: a window costs its width, whatever came before.
    let first = scores.sight.visible(past, keys).start;
    let near = keys - first;
    let rows = |all: &'_ [f32], layout: &Layout, head: usize| -> Range<usize> {
        let at = layout.start_offset() + head * layout.stride()[1];
        debug_assert!(at + keys * head_dim <= all.len());
        at + first * head_dim..at + keys * head_dim
    };
    let per_head: Vec<(Vec<f32>, Vec<f32>)> = with_slice(q, |q| {
        // A few heads at a time, where there is little to do for each.
        let some = (GRAIN / (queries * near * head_dim).max(1)).clamp(1, heads);
        let parts = crew::map(heads.div_ceil(some), |part| {
            let heads = part * some..heads.min((part + 1) * some);
            heads
                .map(|head| {
                    let q = &q[head * queries * head_dim..(head + 1) * queries * head_dim];
                    let k = &ks[rows(ks, kl, head / shared)];
                    let v = &vs[rows(vs, vl, head / shared)];
                    let mut p = vec![0.0; queries * near];
                    kernel::product(q, Matrix::Rows(k), queries, head_dim, &mut p);
                    let mut out = vec![0.0f32; queries * head_dim];
                    for (i, (p, out)) in
                        p.chunks_mut(near).zip(out.chunks_mut(head_dim)).enumerate()
                    {
                        let seen = scores.sight.visible(past + i, keys);
                        scores.row(p, head, past + i, seen.clone(), first);
                        let seen = seen.start - first..seen.end - first;
                        let v = &v[seen.start * head_dim..seen.end * head_dim];
                        vectors::mix(&p[seen], v, out);
                    }
                    (p, out)
                })
                .collect::<Vec<_>>()
        });
        parts.into_iter().flatten().collect()
    })?;
    let mut mixed = vec![0.0; queries * heads * head_dim];
    for (head, (_, out)) in per_head.iter().enumerate() {
        for (i, out) in out.chunks_exact(head_dim).enumerate() {
            let at = (i * heads + head) * head_dim;
            mixed[at..at + head_dim].copy_from_slice(out);
        }
    }
    let mixed = Tensor::from_vec(mixed, (queries, heads * head_dim), q.device())?;
    let kept = keep.then(|| {
        let mut kept = vec![0.0; heads * queries * keys];
        let near_rows = per_head.iter().flat_map(|(p, _)| p.chunks_exact(near));
        for (row, near_row) in kept.chunks_exact_mut(keys).zip(near_rows) {
            row[first..].copy_from_slice(near_row);
        }
        Tensor::from_vec(kept, (heads, queries, keys), q.device())
    });
    Ok((mixed, kept.transpose()?))
}

/// The angles of rotary position embedding for a run of positions.
#[derive(Clone, Debug)]
pub struct Angles {
    /// `[positions][pairs]` cosines.
    pub cos: Arc<Vec<f32>>,
    /// `[positions][pairs]` sines.
    pub sin: Arc<Vec<f32>>,
    /// Rotated pairs per head.
    pub pairs: usize,
    /// Both as tensors `[positions, pairs]`, where tensor operations read them.
    pub tensors: Option<(Tensor, Tensor)>,
}

impl Angles {
    /// The same with tensors on `device`.
    ///
    /// # Errors
    /// If the device is out of memory.
    pub fn on(&self, device: &Device) -> Result<Self> {
        if self
            .tensors
            .as_ref()
            .is_some_and(|(cos, _)| cos.device().same_device(device))
        {
            return Ok(self.clone());
        }
        let shape = (self.cos.len() / self.pairs.max(1), self.pairs);
        let on = |numbers: &[f32]| Tensor::from_slice(numbers, shape, device);
        Ok(Self {
            tensors: Some((on(&self.cos)?, on(&self.sin)?)),
            ..self.clone()
        })
    }
}

/// Rotary position embedding, half-split pairs (i, i + pairs) of the first `2 · pairs` dimensions. `x` is
/// `[…, positions, head_dim]`, contiguous.
pub fn rope(x: &Tensor, angles: &Angles) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Rope {
        angles: angles.clone(),
        sign: 1.0,
    })
}

struct Rope {
    angles: Angles,
    sign: f32,
}

impl Rope {
    fn rotate(&self, x: &[f32], head_dim: usize) -> Vec<f32> {
        let Angles {
            cos, sin, pairs, ..
        } = &self.angles;
        let positions = cos.len() / pairs;
        let mut out = x.to_vec();
        for_rows(&mut out, head_dim, |i, row| {
            let at = (i % positions) * pairs;
            let (a, b) = row[..2 * pairs].split_at_mut(*pairs);
            for j in 0..*pairs {
                let (c, s) = (cos[at + j], self.sign * sin[at + j]);
                let (x, y) = (a[j], b[j]);
                a[j] = x * c - y * s;
                b[j] = y * c + x * s;
            }
        });
        out
    }
}

impl CustomOp1 for Rope {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let head_dim = layout.dims()[layout.dims().len() - 1];
        let out = self.rotate(slice(storage, layout)?, head_dim);
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    /// The gradient of a rotation is the rotation back.
    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let back = Rope {
            angles: self.angles.clone(),
            sign: -self.sign,
        };
        let out = with_slice(grad, |g| back.rotate(g, arg.dim(D::Minus1).unwrap_or(1)))?;
        Ok(Some(Tensor::from_vec(out, arg.shape(), arg.device())?))
    }
}

/// `a + b`, of the same shape. In main memory it is worked out by the threads of the step: those that candle wakes for large
/// tensors would wait for them.
pub fn sum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let here = |t: &Tensor| t.device().is_cpu() && t.dtype() == DType::F32 && !t.track_op();
    if !here(a) || !here(b) || a.dims() != b.dims() {
        return a + b;
    }
    let out = with_slice(a, |a| {
        with_slice(b, |b| {
            let mut out = a.to_vec();
            for_rows(&mut out, ROW, |i, row| {
                row.iter_mut().zip(&b[i * ROW..]).for_each(|(a, b)| *a += b);
            });
            out
        })
    })??;
    Tensor::from_vec(out, a.shape(), a.device())
}

/// Gelu with its tanh approximation, `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))`, number by number.
pub fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    if x.track_op() {
        return x.gelu();
    }
    let out = with_slice(x, |x| {
        let mut out = x.to_vec();
        for_rows(&mut out, ROW, |_, row| vectors::gelu_tanh(row));
        out
    })?;
    Tensor::from_vec(out, x.shape(), x.device())
}

/// `silu(gate) · up`, the gated MLP of the llama family.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.contiguous()?.apply_op2(&up.contiguous()?, SwiGlu)
}

struct SwiGlu;

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (gate, up) = (slice(s1, l1)?, slice(s2, l2)?);
        let mut out = vec![0.0; gate.len()];
        for_rows(&mut out, 1024, |i, row| {
            vectors::swiglu(&gate[i * 1024..], &up[i * 1024..], row);
        });
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dgate, dup) = with_slice(gate, |gate| {
            with_slice(up, |up| {
                with_slice(grad, |grad| {
                    let mut dgate = vec![0.0; gate.len()];
                    let mut dup = vec![0.0; gate.len()];
                    for i in 0..gate.len() {
                        let s = sigmoid(gate[i]);
                        dup[i] = grad[i] * gate[i] * s;
                        dgate[i] = grad[i] * up[i] * s * (1.0 + gate[i] * (1.0 - s));
                    }
                    (dgate, dup)
                })
            })
        })???;
        Ok((
            Some(Tensor::from_vec(dgate, gate.shape(), gate.device())?),
            Some(Tensor::from_vec(dup, up.shape(), up.device())?),
        ))
    }
}

/// Mean cross-entropy in nats of `logits` `[rows, V]` against one target id a row.
pub fn cross_entropy(logits: &Tensor, targets: &[u32]) -> Result<Tensor> {
    let (rows, vocab) = logits.dims2()?;
    if rows != targets.len() || targets.iter().any(|t| *t as usize >= vocab) {
        candle_core::bail!(
            "{rows} rows of {vocab} logits do not fit {} targets",
            targets.len()
        );
    }
    logits.contiguous()?.apply_op1(CrossEntropy {
        targets: targets.to_vec(),
    })
}

struct CrossEntropy {
    targets: Vec<u32>,
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let z = slice(storage, layout)?;
        let vocab = z.len() / self.targets.len().max(1);
        let total: f64 = z
            .chunks(vocab)
            .zip(&self.targets)
            .map(|(z, t)| {
                let max = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let sum: f32 = z.iter().map(|z| exp(z - max)).sum();
                f64::from(max + sum.ln() - z[*t as usize])
            })
            .sum();
        let mean = (total / self.targets.len() as f64) as f32;
        Ok((CpuStorage::F32(vec![mean]), Shape::from(())))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let scale = grad.to_scalar::<f32>()? / self.targets.len() as f32;
        let vocab = arg.dim(D::Minus1)?;
        let out = with_slice(arg, |z| {
            let mut out = vec![0.0; z.len()];
            for_rows(&mut out, vocab, |i, row| {
                let z = &z[i * vocab..(i + 1) * vocab];
                let max = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let mut sum = 0.0f32;
                for (o, z) in row.iter_mut().zip(z) {
                    let e = exp(z - max);
                    sum += e;
                    *o = e;
                }
                let c = scale / sum;
                row.iter_mut().for_each(|o| *o *= c);
                row[self.targets[i] as usize] -= scale;
            });
            out
        })?;
        Ok(Some(Tensor::from_vec(out, arg.shape(), arg.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A spread of 1e-3 around 100 is lost in a sum of squares in f32.
    #[test]
    fn norms_of_numbers_far_from_zero_keep_their_digits() {
        let x: Vec<f32> = (0..64).map(|i| 100.0 + 1e-3 * (i % 7) as f32).collect();
        let mean = x.iter().map(|v| f64::from(*v)).sum::<f64>() / 64.0;
        let variance = x
            .iter()
            .map(|v| (f64::from(*v) - mean).powi(2))
            .sum::<f64>()
            / 64.0;
        let one = |v: f32| Tensor::full(v, 64, &Device::Cpu).unwrap();
        let row = Tensor::from_slice(&x, (1, 64), &Device::Cpu).unwrap();
        let found = layer_norm(&row, &one(2.0), &one(0.5), 1e-12).unwrap();
        let found: Vec<f32> = found.flatten_all().unwrap().to_vec1().unwrap();
        for (found, x) in found.iter().zip(&x) {
            let expected = 2.0 * (f64::from(*x) - mean) / (variance + 1e-12).sqrt() + 0.5;
            assert!(
                (f64::from(*found) - expected).abs() < 1e-5,
                "{found} {expected}"
            );
        }
        // A row without any spread is its bias, not NaN.
        let flat = layer_norm(
            &Tensor::full(0.1f32, (1, 64), &Device::Cpu).unwrap(),
            &one(2.0),
            &one(0.5),
            1e-12,
        );
        let flat: Vec<f32> = flat.unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert!(flat.iter().all(|v| (v - 0.5).abs() < 1e-3), "{flat:?}");
    }

    /// The published slopes for eight heads, and for twelve the next power's every other one.
    #[test]
    fn alibi_slopes_are_those_of_the_paper() {
        let halves: Vec<f32> = (1..=8).map(|i| 0.5f32.powi(i)).collect();
        assert_eq!(alibi_slopes(8), halves);
        let twelve = alibi_slopes(12);
        assert_eq!(twelve[..8], halves);
        let expected = [
            0.5f32.powf(0.5),
            0.5f32.powf(1.5),
            0.5f32.powf(2.5),
            0.5f32.powf(3.5),
        ];
        for (found, expected) in twelve[8..].iter().zip(expected) {
            assert!((found - expected).abs() < 1e-7);
        }
        assert_eq!(alibi_slopes(1), [0.5f32.powi(8)]);
    }
}
