//! Huge pages under everything big.
//!
//! Decoding reads every weight once a token. With pages of 4 KiB the processor looks up an address and its prefetching
//! starts over every 64 cache lines. A matrix that fits the last-level cache was read about twice as fast from pages of
//! 2 MiB; where the memory itself is the limit they make no difference. The weights lie in buffers of other crates, so the
//! allocator is the one place that reaches them all.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};

/// Size and alignment of a huge page.
const HUGE: usize = 2 << 20;
/// From this size on an allocation begins where a huge page can: what it lacks of a whole one is little.
const BIG: usize = HUGE - HUGE / 16;

/// The system's allocator, which asks for huge pages where an allocation can hold one. On systems other than Linux it is
/// the system's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct HugePages;

/// The layout that is asked of the system: big ones start where a huge page can, and end where one does if that takes little
/// more.
fn placed(layout: Layout) -> Layout {
    if cfg!(target_os = "linux") && layout.size() >= BIG {
        let size = match layout.size().checked_next_multiple_of(HUGE) {
            Some(whole) if whole - layout.size() <= layout.size().max(HUGE) / 16 => whole,
            _ => layout.size(),
        };
        Layout::from_size_align(size, layout.align().max(HUGE)).unwrap_or(layout)
    } else {
        layout
    }
}

/// Have glibc keep what big temporaries give back, up to its largest threshold. By itself it hands every block with an
/// alignment like ours back to the kernel, which clears its pages anew for the next product.
fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::sync::atomic::{AtomicBool, Ordering};
        static DONE: AtomicBool = AtomicBool::new(false);
        if !DONE.swap(true, Ordering::Relaxed) {
            // SAFETY: these set numbers of the allocator and may be called at any time.
            unsafe {
                libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
                libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 20);
            }
        }
    }
}

/// Hand back what was freed between what is kept: after weights were read, as much as their largest copies.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: may be called at any time; what is in use stays where it is.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Ask for huge pages. Refusal changes nothing but the speed.
fn advise(start: *mut u8, layout: Layout) {
    #[cfg(target_os = "linux")]
    if layout.size() >= BIG && !start.is_null() {
        // SAFETY: the pages from `start`, where a huge page begins, lie within the allocation: the length is rounded
        // down. The advice changes no contents.
        unsafe {
            libc::madvise(start.cast(), layout.size() & !4095, libc::MADV_HUGEPAGE);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, layout);
}

// SAFETY: every call is passed on to the system's allocator, with the same layout for the same block.
unsafe impl GlobalAlloc for HugePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() >= BIG {
            keep_freed();
        }
        let layout = placed(layout);
        // SAFETY: the caller's; the layout has at least the caller's size and alignment.
        let start = unsafe { System.alloc(layout) };
        advise(start, layout);
        start
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() < BIG {
            // SAFETY: the caller's.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: the caller's; what was allocated is as long as the layout says.
        unsafe {
            let start = self.alloc(layout);
            if !start.is_null() {
                start.write_bytes(0, layout.size());
            }
            start
        }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: `alloc` asked for the same layout.
        unsafe { System.dealloc(start, placed(layout)) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.size() < BIG && size < BIG {
            // SAFETY: the caller's; the block came from the system with this layout.
            return unsafe { System.realloc(start, layout, size) };
        }
        // SAFETY: the caller promises a size that fits; both blocks are as long as what is copied.
        unsafe {
            let new = Layout::from_size_align_unchecked(size, layout.align());
            let moved = self.alloc(new);
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(start, layout.size().min(size));
                self.dealloc(start, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks keep their contents when they grow and shrink across the size of a page, and big ones start at one.
    #[test]
    fn blocks_are_placed_and_keep_their_contents() {
        let sizes = [100, BIG - 1, 3 * HUGE + 5, BIG, 4 * HUGE - 5, HUGE, 64];
        let mut layout = Layout::from_size_align(16, 16).unwrap();
        // SAFETY: every block is used within its size and freed with its layout.
        unsafe {
            let mut start = HugePages.alloc(layout);
            start.write_bytes(7, 16);
            for size in sizes {
                start = HugePages.realloc(start, layout, size);
                layout = Layout::from_size_align(size, 16).unwrap();
                assert!((0..16).all(|i| *start.add(i) == 7), "{size}");
                if size >= BIG && cfg!(target_os = "linux") {
                    assert_eq!(start.align_offset(HUGE), 0);
                }
                start.add(size - 1).write(9);
            }
            HugePages.dealloc(start, layout);
            let zeroed = HugePages.alloc_zeroed(Layout::from_size_align(HUGE + 3, 8).unwrap());
            assert!((0..HUGE + 3).all(|i| *zeroed.add(i) == 0));
            HugePages.dealloc(zeroed, Layout::from_size_align(HUGE + 3, 8).unwrap());
        }
    }
}
