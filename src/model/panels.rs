//! Products of many rows, from copies that are laid out for it.
//!
//! A dot product is sixteen running sums, one a lane, which are then added by halves (see [`super::lanes`]). With many rows
//! it pays to turn that round: one lane at a time for sixteen outputs at once, which needs no sums across a register and
//! reads a few numbers for many products. The lanes come in such an order (0, 8, 4, 12, 2, …) that the sums at hand can be
//! added two by two as they appear, so every output is the same to the last bit as row by row.
//!
//! Layouts, with `steps` = ⌈columns / 16⌉ and zeros where there is nothing: a panel of weights is
//! `[lane][step][output of the panel]`, a group of input rows `[lane][step][row of the group]`.
#![allow(unsafe_code)]

use super::lanes::Lanes;
use super::tiles::Ahead;

/// Lanes of a dot product, and numbers in a [`Lanes`].
pub(super) const LANES: usize = 16;
/// The order in which lanes are summed: by bits from the highest down.
const ORDER: [usize; LANES] = [0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15];
/// Bytes of panels that are kept in the second-level cache while all input rows pass by.
const CACHED: usize = 1 << 19;

/// Sixteen numbers of a copy, on a cache line of their own.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line([f32; LANES]);

impl Line {
    pub(super) const ZERO: Self = Self([0.0; LANES]);
}

/// Steps of a row of `columns`.
pub(super) fn steps(columns: usize) -> usize {
    columns.div_ceil(LANES)
}

/// Rows of group `i` of `groups`: all of about the same size, none larger than a register tile.
pub(super) fn group(i: usize, groups: usize, rows: usize) -> (usize, usize) {
    (i * rows / groups, (i + 1) * rows / groups)
}

/// At most `width` rows of `columns` as `[lane][step][width]`. `width` is at most 16, or a multiple of it.
///
/// # Safety
/// The processor must have the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn pack<L: Lanes>(rows: &[f32], columns: usize, width: usize, out: &mut [Line]) {
    let steps = steps(columns);
    let count = rows.len() / columns;
    assert!(count <= width && out.len() >= width * steps);
    assert!(width <= LANES || width.is_multiple_of(LANES));
    for first in (0..count).step_by(LANES) {
        let (have, room) = ((count - first).min(LANES), (width - first).min(LANES));
        let rows = &rows[first * columns..(first + have) * columns];
        for step in 0..steps {
            let at = step * LANES;
            // SAFETY: the processor is the caller's; 16 rows of 16 numbers are read from `rows`, where they are whole, or from
            // a copy, and lines written within `out`.
            unsafe {
                let block = if have == LANES && at + LANES <= columns {
                    block::<L>(rows.as_ptr().add(at), columns)
                } else {
                    let mut copy = [[0.0f32; LANES]; LANES];
                    for (copy, row) in copy.iter_mut().zip(rows.chunks_exact(columns)) {
                        let row = &row[at..columns.min(at + LANES)];
                        copy[..row.len()].copy_from_slice(row);
                    }
                    block::<L>(copy.as_flattened().as_ptr(), LANES)
                };
                let mut to = out.as_mut_ptr().cast::<f32>().add(step * width + first);
                for lane in ORDER {
                    if room == LANES {
                        block[lane].store(to);
                    } else {
                        let mut line = [0.0f32; LANES];
                        block[lane].store(line.as_mut_ptr());
                        to.copy_from_nonoverlapping(line.as_ptr(), room);
                    }
                    to = to.wrapping_add(steps * width);
                }
            }
        }
    }
}

/// The columns of sixteen rows of sixteen numbers from `at` on, which are `stride` apart.
#[inline(always)]
unsafe fn block<L: Lanes>(at: *const f32, stride: usize) -> [L; LANES] {
    // SAFETY: the caller's.
    unsafe {
        let mut rows = [L::zero(); LANES];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = L::load(at.add(r * stride));
        }
        L::transposed(rows)
    }
}

/// All products of the rows of `tile` with the packed input rows, `out[row][weight row]`, with room for panels in `room`.
/// `next` is what will be read from main memory after this tile: it is asked for on the way.
///
/// # Safety
/// The processor must have the instructions of `L`, for which `input` was packed.
#[inline(always)]
pub(super) unsafe fn products<L: Lanes>(
    input: &[Line],
    tile: &[f32],
    columns: usize,
    out: &mut [&mut [f32]],
    room: &mut Vec<Line>,
    next: &[u8],
) {
    let (rows, weights) = (out.len(), tile.len() / columns);
    let (steps, width) = (steps(columns), width::<L>());
    assert!(input.len() == rows * steps && tile.len() == weights * columns);
    assert!(out.iter().all(|out| out.len() >= weights));
    let groups = rows.div_ceil(L::MANY);
    let panel = width * steps;
    let panels = weights.div_ceil(width);
    if room.len() < panels * panel {
        room.resize(panels * panel, Line::ZERO);
    }
    let room = &mut room[..panels * panel];
    let mut ahead = Ahead::over(next, 1);
    // SAFETY: the processor is the caller's; the sizes of what is pointed to were checked above.
    unsafe {
        for (rows, panel) in tile.chunks(width * columns).zip(room.chunks_mut(panel)) {
            if rows.len() < width * columns {
                // What an earlier tile left there.
                panel.fill(Line::ZERO);
            }
            pack::<L>(rows, columns, width, panel);
        }
        for i in 0..groups {
            let (from, to) = group(i, groups, rows);
            let x = input.as_ptr().add(from * steps).cast();
            for (at, panel) in room.chunks(panel).enumerate() {
                let first = at * width;
                let out = &mut out[from..to];
                let (w, count) = (panel.as_ptr().cast(), width.min(weights - first));
                let job = Job {
                    w,
                    x,
                    steps,
                    first,
                    count,
                };
                match L::PANEL {
                    1 => job.rows::<L, 1>(out, &mut ahead),
                    _ => job.rows::<L, 2>(out, &mut ahead),
                }
            }
        }
    }
}

/// Weight rows of a panel.
pub(super) fn width<L: Lanes>() -> usize {
    L::PANEL * LANES
}

/// Weight rows that fit the cache as panels.
pub(super) fn tile<L: Lanes>(columns: usize) -> usize {
    let bytes = width::<L>() * steps(columns) * size_of::<Line>();
    (CACHED / bytes).max(1) * width::<L>()
}

/// A panel and a group.
#[derive(Clone, Copy)]
struct Job {
    w: *const f32,
    x: *const f32,
    steps: usize,
    /// The first output of the panel, and how many there are.
    first: usize,
    count: usize,
}

impl Job {
    #[inline(always)]
    unsafe fn rows<L: Lanes, const P: usize>(self, out: &mut [&mut [f32]], ahead: &mut Ahead) {
        // SAFETY: the caller's.
        unsafe {
            match out.len() {
                1 => self.run::<L, P, 1>(out, ahead),
                2 => self.run::<L, P, 2>(out, ahead),
                3 => self.run::<L, P, 3>(out, ahead),
                4 => self.run::<L, P, 4>(out, ahead),
                5 => self.run::<L, P, 5>(out, ahead),
                6 => self.run::<L, P, 6>(out, ahead),
                7 => self.run::<L, P, 7>(out, ahead),
                8 => self.run::<L, P, 8>(out, ahead),
                9 => self.run::<L, P, 9>(out, ahead),
                10 => self.run::<L, P, 10>(out, ahead),
                11 => self.run::<L, P, 11>(out, ahead),
                _ => self.run::<L, P, 12>(out, ahead),
            }
        }
    }

    #[inline(always)]
    unsafe fn run<L: Lanes, const P: usize, const C: usize>(
        self,
        out: &mut [&mut [f32]],
        ahead: &mut Ahead,
    ) {
        // SAFETY: the caller's; the sums are written where the checked length of `out` allows.
        unsafe {
            let sums = L::panel::<P, C>(self.w, self.x, self.steps, ahead);
            for (sums, out) in sums.iter().zip(out) {
                let out = &mut out[self.first..self.first + self.count];
                if self.count == P * LANES {
                    for (p, sum) in sums.iter().enumerate() {
                        sum.store(out.as_mut_ptr().add(p * LANES));
                    }
                } else {
                    let mut line = [[0.0f32; LANES]; P];
                    for (line, sum) in line.iter_mut().zip(sums) {
                        sum.store(line.as_mut_ptr());
                    }
                    out.copy_from_slice(&line.as_flattened()[..self.count]);
                }
            }
        }
    }
}

/// The products of a panel of `P` times sixteen outputs with a group of `C` rows, `[row][part of the panel]`.
///
/// # Safety
/// The processor must have the instructions of `L`, and both pointers be followed by `16 · steps` lines.
#[inline(always)]
pub(super) unsafe fn sums<L: Lanes, const P: usize, const C: usize>(
    w: *const f32,
    x: *const f32,
    steps: usize,
    ahead: &mut Ahead,
) -> [[L; P]; C] {
    // SAFETY: the caller's.
    unsafe {
        let mut at = At {
            w,
            x,
            steps,
            ahead: *ahead,
        };
        let mut halves = [[[L::zero(); P]; C]; 2];
        for half in &mut halves {
            let [mut four, mut other] = [[[L::zero(); P]; C]; 2];
            for fours in [&mut four, &mut other] {
                let first = at.lane::<L, P, C>();
                let two = plus(&first, at.lane::<L, P, C>());
                let first = at.lane::<L, P, C>();
                *fours = plus(&two, plus(&first, at.lane::<L, P, C>()));
            }
            *half = plus(&four, other);
        }
        *ahead = at.ahead;
        plus(&halves[0], halves[1])
    }
}

/// How far a panel and a group have been read.
#[derive(Clone, Copy)]
struct At {
    w: *const f32,
    x: *const f32,
    steps: usize,
    ahead: Ahead,
}

impl At {
    /// The sums of one lane.
    #[inline(always)]
    unsafe fn lane<L: Lanes, const P: usize, const C: usize>(&mut self) -> [[L; P]; C] {
        // SAFETY: the caller's.
        unsafe {
            match self.ahead.is_over() {
                true => self.read::<L, P, C, false>(),
                false => self.read::<L, P, C, true>(),
            }
        }
    }

    #[inline(always)]
    unsafe fn read<L: Lanes, const P: usize, const C: usize, const AHEAD: bool>(
        &mut self,
    ) -> [[L; P]; C] {
        // SAFETY: the caller's.
        let mut sums = [[unsafe { L::zero() }; P]; C];
        let (mut w, mut x, mut ahead) = (self.w, self.x, self.ahead);
        for _ in 0..self.steps {
            // SAFETY: the caller's.
            unsafe {
                let mut ws = [L::zero(); P];
                for (p, part) in ws.iter_mut().enumerate() {
                    *part = L::load(w.add(p * LANES));
                }
                for (c, sums) in sums.iter_mut().enumerate() {
                    let x = L::splat(x.add(c));
                    for (sum, w) in sums.iter_mut().zip(&ws) {
                        *sum = sum.add_product(*w, x);
                    }
                }
                w = w.add(P * LANES);
                x = x.add(C);
                if AHEAD {
                    ahead.line::<L>();
                }
            }
        }
        (self.w, self.x, self.ahead) = (w, x, ahead);
        sums
    }
}

/// Sums of two lanes, or of two times as many.
#[inline(always)]
unsafe fn plus<L: Lanes, const P: usize, const C: usize>(
    a: &[[L; P]; C],
    mut b: [[L; P]; C],
) -> [[L; P]; C] {
    for c in 0..C {
        for p in 0..P {
            // SAFETY: the caller's.
            b[c][p] = unsafe { a[c][p].add(b[c][p]) };
        }
    }
    b
}
