//! Panels that are made f32 once for many input rows.
//!
//! What few rows are multiplied with goes from memory into registers and is gone. For more, a panel's numbers are made f32
//! piece by piece while the first group of rows is multiplied with them: where there are other groups, they find them in the
//! cache.
#![allow(unsafe_code)]

use super::super::input::Input;
use super::super::lanes::Lanes;
use super::WIDTH;
use super::sums::{self, Floats, LANES, LINE, Pieces, Soon, TOGETHER};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;

thread_local! {
    /// Room for a tile of panels in f32: fresh memory would be cleared for each.
    static ROOM: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// [`sums::products`] of panels which `at` finds by index and half; `memory` tells the bytes of some of them, as far as they are
/// there.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn products<L: Lanes, W: Pieces>(
    input: &Input<'_>,
    first: usize,
    out: &mut [&mut [f32]],
    memory: impl Fn(Range<usize>) -> Range<*const u8>,
    mut at: impl FnMut(usize, usize) -> W,
) {
    let count = out.first().map_or(0, |out| out.len());
    let panels = first / WIDTH..(first + count).div_ceil(WIDTH);
    let nothing = |_| Soon::nothing();
    // SAFETY: the caller's, in all that follows.
    unsafe {
        if input.groups < 2 && (W::MANY || input.rows <= L::FEW) {
            sums::tiled::<L, W, true>(input, 0..1, first, out, panels, nothing, at);
            return;
        }
        let size = input.columns * WIDTH;
        let tile = sums::tile(panels.len(), size * size_of::<f32>());
        let tiles = panels.clone().step_by(tile);
        let tiles = tiles.map(|from| from..panels.end.min(from + tile));
        // The next tile is asked for while those groups that find this one in the cache are multiplied with it.
        let others = 1..input.groups;
        let next = |tile: &Range<usize>| {
            let next = memory(tile.end..tile.end + tile.len());
            move |turns| Soon::new(next.clone(), turns)
        };
        if W::MANY {
            for tile in tiles {
                let soon = next(&tile);
                sums::tiled::<L, W, true>(input, 0..1, first, out, tile.clone(), nothing, &mut at);
                sums::tiled::<L, W, false>(input, others.clone(), first, out, tile, soon, &mut at);
            }
            return;
        }
        // A panel that is needed once is wide for a piece at a time, in the nearest cache.
        let whole = input.groups > 1 || L::PANEL == 1;
        let (room_of, step) = match whole {
            true => (tile * size, TOGETHER * WIDTH),
            false => (TOGETHER * WIDTH, 0),
        };
        let mut room = ROOM.take();
        if room.len() < room_of + LANES {
            room.resize(room_of + LANES, 0.0);
        }
        let aligned = room.as_ptr().align_offset(LINE).min(LANES);
        let wide = room[aligned..].as_mut_ptr();
        let mut pieces = MaybeUninit::<W>::uninit();
        let pieces = pieces.as_mut_ptr();
        for tile in tiles {
            let (from, soon) = (tile.start, next(&tile));
            let slot = |panel: usize| wide.add(if whole { (panel - from) * size } else { 0 });
            sums::tiled::<L, _, true>(
                input,
                0..1,
                first,
                out,
                tile.clone(),
                nothing,
                |panel, half| {
                    pieces.write(at(panel, 0));
                    Widened {
                        pieces: pieces.cast(),
                        widen: match half {
                            0 => L::widen::<W>,
                            _ => keep,
                        },
                        at: slot(panel),
                        step,
                        half,
                    }
                },
            );
            sums::tiled::<L, _, false>(
                input,
                others.clone(),
                first,
                out,
                tile,
                soon,
                |panel, half| Floats::at(slot(panel).add(half * LANES).cast_const()),
            );
        }
        ROOM.set(room);
    }
}

/// Pieces that are made f32 before they are read. Which ones does not show in the type, so that the loops for all numbers of
/// input rows are compiled once for all.
#[derive(Clone, Copy)]
struct Widened {
    pieces: *mut (),
    widen: unsafe fn(*mut (), usize, *mut f32),
    /// Where the next piece goes, and how far from there the one after it.
    at: *mut f32,
    step: usize,
    /// 1 for the second half of each column.
    half: usize,
}

/// In place of [`Pieces::widen`] where that has been done for the first half.
unsafe fn keep(_: *mut (), _: usize, _: *mut f32) {}

// SAFETY: reads what `widen` has written.
unsafe impl Pieces for Widened {
    const MANY: bool = true;
    const APART: bool = false;

    #[inline(always)]
    unsafe fn sums<L: Lanes, const P: usize, const C: usize, const AHEAD: bool>(
        &mut self,
        x: &mut *const f32,
        columns: usize,
    ) -> [[L; P]; C] {
        // SAFETY: the caller's; there is room for a piece.
        unsafe {
            (self.widen)(self.pieces, columns, self.at);
            let mut wide = Floats::at(self.at.add(self.half * LANES).cast_const());
            self.at = self.at.add(self.step);
            Pieces::sums::<L, P, C, false>(&mut wide, x, columns)
        }
    }

    unsafe fn two<L: Lanes, const P: usize, const C: usize, const AHEAD: bool>(
        &mut self,
        x: &mut *const f32,
    ) -> [[[L; P]; C]; 2] {
        // SAFETY: the caller's.
        unsafe {
            let first = self.sums::<L, P, C, AHEAD>(x, TOGETHER);
            [first, self.sums::<L, P, C, AHEAD>(x, TOGETHER)]
        }
    }

    unsafe fn widen<L: Lanes>(&mut self, columns: usize, out: *mut f32) {
        // SAFETY: the caller's.
        unsafe { (self.widen)(self.pieces, columns, out) }
    }
}
