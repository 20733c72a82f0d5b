//! Panels that are made f32 once for many input rows.
//!
//! What few rows are multiplied with goes from memory into registers and is gone. For more, the numbers are kept in f32 while
//! the first group of rows is multiplied with them: the other groups find them in the cache.
#![allow(unsafe_code)]

use super::super::input::Input;
use super::super::lanes::Lanes;
use super::WIDTH;
use super::sums::{self, Company, Floats, Keep, LANES, LINE, Narrow, Pieces, Soon};
use std::cell::Cell;
use std::ops::Range;

thread_local! {
    /// Room for a tile of panels in f32: fresh memory would be cleared for each.
    static ROOM: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// [`sums::products`] of panels which `at` finds by index and half; `memory` tells the bytes of some of them, as far as they are
/// there.
///
/// # Safety
/// The processor must have the instructions of `L`, for which the input was laid out, and each panel that `out` asks for must
/// have the input's columns.
#[inline(always)]
pub(super) unsafe fn products<L: Lanes, W: Narrow>(
    input: &Input<'_>,
    first: usize,
    out: &mut [&mut [f32]],
    memory: impl Fn(Range<usize>) -> Range<*const u8>,
    mut at: impl FnMut(usize, usize) -> W,
) {
    let count = out.first().map_or(0, |out| out.len());
    let panels = first / WIDTH..(first + count).div_ceil(WIDTH);
    let nothing = |_| Soon::nothing();
    // SAFETY: the caller's; the room has a panel's numbers for each panel of a tile, or a column's for all.
    unsafe {
        let wide = matches!(W::COMPANY, Company::Any);
        if input.groups < 2 && (wide || input.rows <= L::FEW) {
            sums::tiled::<L, W, true>(input, 0..1, first, out, panels, nothing, at);
            return;
        }
        let all = input.groups > 1;
        let size = input.columns * WIDTH;
        let tile = match all {
            true => sums::tile(panels.len(), size * size_of::<f32>()),
            false => panels.len().max(1),
        };
        let tiles = panels.clone().step_by(tile);
        let tiles = tiles.map(|from| from..panels.end.min(from + tile));
        // The next tile is asked for while those groups that find this one in the cache are multiplied with it.
        let others = 1..input.groups;
        let next = |tile: &Range<usize>| {
            let next = memory(tile.end..tile.end + tile.len());
            move |turns| Soon::new(next.clone(), turns)
        };
        if wide {
            for tile in tiles {
                let soon = next(&tile);
                sums::tiled::<L, W, true>(input, 0..1, first, out, tile.clone(), nothing, &mut at);
                sums::tiled::<L, W, false>(input, others.clone(), first, out, tile, soon, &mut at);
            }
            return;
        }
        // What nobody needs again is left in one place, which costs nothing.
        let size = if all { size } else { 0 };
        let room_of = (tile * size).max(WIDTH) + LANES;
        let mut room = ROOM.take();
        if room.len() < room_of {
            room.resize(room_of, 0.0);
        }
        let aligned = room.as_ptr().align_offset(LINE).min(LANES);
        let wide = room[aligned..].as_mut_ptr();
        for tile in tiles {
            let (from, soon) = (tile.start, next(&tile));
            let slot = |panel: usize, half: usize| wide.add((panel - from) * size + half * LANES);
            sums::tiled::<L, _, true>(
                input,
                0..1,
                first,
                out,
                tile.clone(),
                nothing,
                |panel, half| Kept {
                    pieces: at(panel, half),
                    keep: Keep::new(slot(panel, half), all),
                },
            );
            sums::tiled::<L, _, false>(
                input,
                others.clone(),
                first,
                out,
                tile,
                soon,
                |panel, half| Floats::at(slot(panel, half).cast_const()),
            );
        }
        ROOM.set(room);
    }
}

/// Pieces whose numbers are kept.
#[derive(Clone, Copy)]
struct Kept<W> {
    pieces: W,
    keep: Keep,
}

// SAFETY: reads what the pieces do.
unsafe impl<W: Narrow> Pieces for Kept<W> {
    const COMPANY: Company = Company::Many;
    const APART: bool = false;

    #[inline(always)]
    unsafe fn sums<L: Lanes, const P: usize, const C: usize, const AHEAD: bool>(
        &mut self,
        x: &mut *const f32,
        columns: usize,
    ) -> [[L; P]; C] {
        // SAFETY: the caller's; there is room for a panel, or for a column where all go to one place.
        unsafe {
            self.pieces
                .keeping::<L, P, C, AHEAD>(x, columns, &mut self.keep)
        }
    }
}
