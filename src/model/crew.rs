//! The threads of a step.
//!
//! A step of decoding is some dozens of products with a little work of one thread between them. A thread that goes to sleep
//! in between has to be woken by the kernel for the next product, which takes about as long as a small one. So for the
//! length of a step the pool's other threads watch a board for what there is to do, and nobody sleeps.
#![allow(unsafe_code)]

use super::lanes;
use rayon::prelude::*;
use std::any::Any;
use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Whether some step has a crew: one at a time.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// How long a step waits for its crew to gather. Those who come later join it then.
const GATHER: Duration = Duration::from_micros(100);
/// So many pieces of work are done alone before the crew is called again.
const ALONE: usize = 32;
/// How long the crew watches an empty board before it goes.
const PATIENCE: Duration = Duration::from_millis(10);
/// A thread takes one part in so many of what it has left where it may take a share.
const PIECES: usize = 4;
/// Bytes of what comes next that a thread asks for while it waits: they find room in its second-level cache.
const AHEAD: usize = 1 << 20;
/// Bytes of a cache line, and lines asked for between two looks at the board.
const LINE: usize = 64;
const LINES: usize = 8;
/// Looks at the board between looks elsewhere, and before the system may let somebody else run.
const LOOKS: u32 = 16;
const BRIEF: u32 = 1 << 9;

thread_local! {
    /// The step that this thread leads.
    static LED: Cell<Option<Arc<Step>>> = const { Cell::new(None) };
    /// Whether this thread does what was shared out.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Run `f` on this thread with a crew for what it shares out, if there is none at work elsewhere.
///
/// A thread of the pool may join while it waits for other work of the pool, which then waits for the crew. That never is work
/// that this step waits for: what is shared out hands nothing to the pool. If `f` itself does, the crew's patience ends it.
pub(crate) fn with<R>(f: impl FnOnce() -> R) -> R {
    if led().is_some() || rayon::current_num_threads() < 2 || TAKEN.swap(true, Ordering::SeqCst) {
        return f();
    }
    let step = Arc::new(Step::default());
    let _end = End(step.clone());
    step.gather();
    LED.set(Some(step));
    f()
}

fn led() -> Option<Arc<Step>> {
    let step = LED.take();
    LED.set(step.clone());
    step
}

/// How much a thread takes at once of what it begins with.
#[derive(Clone, Copy)]
enum Take {
    /// One thing: they may differ.
    One,
    /// A share of what is left, so that most of it is one piece and its end a small one.
    Share,
}

/// Do `work` for all of `0..count`, each once, on all threads. Work that shares out work in turn does that by itself.
///
/// # Panics
/// If there are more than 2³² of them, or one of them panics.
fn share(count: usize, take: Take, work: impl Fn(Range<usize>) + Sync) {
    if count < 2 || INSIDE.get() {
        return work(0..count);
    }
    let Some(step) = led() else {
        let most = match take {
            Take::One => 1,
            Take::Share => count.div_ceil(PIECES * rayon::current_num_threads()),
        };
        let pieces = (0..count.div_ceil(most)).into_par_iter().with_max_len(1);
        return pieces.for_each(|i| work(i * most..count.min((i + 1) * most)));
    };
    assert!(u32::try_from(count).is_ok(), "too much work at once");
    step.gather_again();
    let work: &(dyn Fn(Range<usize>) + Sync) = &work;
    // SAFETY: only the lifetime changes. The crew reaches `work` through the board alone, and this function does not
    // return before the board is empty and nobody is at it.
    let work: &'static (dyn Fn(Range<usize>) + Sync) = unsafe { std::mem::transmute(work) };
    let threads = step.come.load(Ordering::Relaxed) + 1;
    let mut task = Task {
        work,
        take,
        spans: (0..threads)
            .map(|i| Span::new(i * count / threads, (i + 1) * count / threads))
            .collect(),
    };
    let posted = Posted(&step);
    step.board.store(&raw mut task, Ordering::SeqCst);
    step.turn.fetch_add(1, Ordering::Release);
    task.help(0);
    drop(posted);
    let panic = match step.panic.lock() {
        Ok(mut panic) => panic.take(),
        Err(_) => None,
    };
    if let Some(panic) = panic {
        resume_unwind(panic);
    }
}

/// While the crew waits for the work that follows the next one, it may ask for this memory, the pieces one after the other:
/// each thread for what it will begin with.
pub(crate) fn foresee(memory: Arc<[Range<usize>]>) {
    if let Some(step) = led()
        && let Ok(mut next) = step.next.lock()
    {
        *next = memory;
    }
}

/// Do `work` for all of `items`, on all threads.
pub(crate) fn each<T: Send>(items: &mut [T], work: impl Fn(usize, &mut T) + Sync) {
    /// Where the items are.
    struct At<T>(*mut T);
    // SAFETY: every item is reached by one thread alone, and may be sent to it.
    unsafe impl<T: Send> Sync for At<T> {}
    impl<T> At<T> {
        fn item(&self, i: usize) -> *mut T {
            self.0.wrapping_add(i)
        }
    }
    let at = At(items.as_mut_ptr());
    share(items.len(), Take::One, |range| {
        for i in range {
            // SAFETY: `share` gives each index below the length once.
            work(i, unsafe { &mut *at.item(i) });
        }
    });
}

/// Do `work` for all of `0..count`, neighbours together, on all threads.
pub(crate) fn ranges(count: usize, work: impl Fn(Range<usize>) + Sync) {
    share(count, Take::Share, work);
}

/// Do `work` for all columns of the matrices `all`, each `[rows][columns]`, on all threads: `work(matrix, first, out)` with a
/// piece of every row, as wide as some times `width` but for the last of a matrix.
pub(crate) fn strips(
    all: &mut [&mut [f32]],
    rows: usize,
    width: usize,
    work: impl Fn(usize, usize, &mut [&mut [f32]]) + Sync,
) {
    /// A matrix of which each thread has columns of its own.
    struct Sheet {
        start: *mut f32,
        columns: usize,
        /// How many pieces came before its own.
        before: usize,
        pieces: usize,
    }
    // SAFETY: no number is reached by two threads.
    unsafe impl Sync for Sheet {}
    let mut count = 0;
    let mut sheets = Vec::with_capacity(all.len());
    for matrix in all {
        let columns = matrix.len() / rows.max(1);
        let pieces = columns.div_ceil(width.max(1));
        sheets.push(Sheet {
            start: matrix.as_mut_ptr(),
            columns,
            before: count,
            pieces,
        });
        count += pieces;
    }
    share(count, Take::Share, |range| {
        for (i, sheet) in sheets.iter().enumerate() {
            let from = range.start.max(sheet.before) - sheet.before;
            let to = range.end.min(sheet.before + sheet.pieces);
            let to = to.saturating_sub(sheet.before);
            if from >= to {
                continue;
            }
            let (first, last) = (from * width, sheet.columns.min(to * width));
            let piece = |row: usize| {
                // SAFETY: the matrix has this row and these columns of it, and `share` gives its pieces to one thread each.
                unsafe {
                    let start = sheet.start.add(row * sheet.columns + first);
                    std::slice::from_raw_parts_mut(start, last - first)
                }
            };
            match rows {
                1 => work(i, first, &mut [piece(0)]),
                _ => work(i, first, &mut (0..rows).map(piece).collect::<Vec<_>>()),
            }
        }
    });
}

/// What `work` gives for each of `0..count`, worked out on all threads.
pub(crate) fn map<R: Send>(count: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let mut all: Vec<Option<R>> = (0..count).map(|_| None).collect();
    each(&mut all, |i, out| *out = Some(work(i)));
    all.into_iter().flatten().collect()
}

/// Work that is shared out.
struct Task {
    work: &'static (dyn Fn(Range<usize>) + Sync),
    take: Take,
    /// What each thread begins with: neighbours are one stream through memory.
    spans: Vec<Span>,
}

impl Task {
    /// Do what nobody has begun, as thread number `own`.
    fn help(&self, own: usize) {
        let _inside = Inside::enter();
        let (before, from) = self.spans.split_at(own.min(self.spans.len()));
        if let Some(own) = from.first() {
            while let Some(some) = own.first(self.take) {
                (self.work)(some);
            }
        }
        for other in from.iter().chain(before) {
            while let Some(last) = other.last() {
                (self.work)(last..last + 1);
            }
        }
    }
}

/// Marks a thread while it does what was shared out.
struct Inside;

impl Inside {
    fn enter() -> Self {
        INSIDE.set(true);
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}

/// Numbers that are left, from the one in the lower half up to the one in the upper.
struct Span(AtomicU64);

impl Span {
    fn new(from: usize, to: usize) -> Self {
        Self(AtomicU64::new(from as u64 | (to as u64) << 32))
    }

    /// Take the first, or the first ones.
    fn first(&self, take: Take) -> Option<Range<usize>> {
        self.take(|from, to| {
            let most = match take {
                Take::One => 1,
                Take::Share => (to - from).div_ceil(PIECES as u64),
            };
            (from..from + most, (from + most, to))
        })
    }

    /// Take the last.
    fn last(&self) -> Option<usize> {
        let last = self.take(|from, to| (to - 1..to, (from, to - 1)));
        last.map(|last| last.start)
    }

    fn take(&self, take: impl Fn(u64, u64) -> (Range<u64>, (u64, u64))) -> Option<Range<usize>> {
        let mut taken = None;
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                let (from, to) = (left & u64::from(u32::MAX), left >> 32);
                if from >= to {
                    taken = None;
                    return None;
                }
                let (some, (from, to)) = take(from, to);
                taken = Some(some.start as usize..some.end as usize);
                Some(from | to << 32)
            });
        taken
    }
}

/// What a step and its crew share.
#[derive(Default)]
struct Step {
    /// How many have joined since the crew was last called, and how many are there.
    come: AtomicUsize,
    present: AtomicUsize,
    /// How often nobody was there.
    alone: AtomicUsize,
    over: AtomicBool,
    board: AtomicPtr<Task>,
    /// How much has been put there so far.
    turn: AtomicUsize,
    /// How many look at what is on the board.
    busy: AtomicUsize,
    /// What will be read after that.
    next: Mutex<Arc<[Range<usize>]>>,
    /// What ended somebody's part of it.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Step {
    /// Call the other threads of the pool.
    fn gather(self: &Arc<Self>) {
        let others = rayon::current_num_threads() - 1;
        self.come.store(0, Ordering::SeqCst);
        for _ in 0..others {
            let step = self.clone();
            rayon::spawn(move || step.join());
        }
        let began = Instant::now();
        while self.come.load(Ordering::SeqCst) < others && began.elapsed() < GATHER {
            std::hint::spin_loop();
        }
    }

    /// Call them again if all have gone; not every time, where nobody comes.
    fn gather_again(self: &Arc<Self>) {
        if self.present.load(Ordering::Relaxed) > 0 {
            self.alone.store(0, Ordering::Relaxed);
            return;
        }
        let alone = self.alone.fetch_add(1, Ordering::Relaxed);
        if alone.is_multiple_of(ALONE) {
            self.gather();
        }
    }

    fn join(&self) {
        // Whoever leads a step and waits for the pool comes by here too.
        if led().is_some() {
            return;
        }
        let number = self.come.fetch_add(1, Ordering::SeqCst) + 1;
        self.present.fetch_add(1, Ordering::SeqCst);
        self.stay(number);
        self.present.fetch_sub(1, Ordering::SeqCst);
    }

    /// Help with what is on the board until the step is over, or for so long that there is nothing.
    fn stay(&self, number: usize) {
        let (mut seen, mut idle) = (0, 0u32);
        let mut since = Instant::now();
        let mut ahead = Ahead::default();
        while !self.over.load(Ordering::Acquire) {
            let turn = self.turn.load(Ordering::Acquire);
            if turn == seen {
                if ahead.ask() {
                    continue;
                }
                idle += 1;
                std::hint::spin_loop();
                // Others may have something for the pool.
                if idle.is_multiple_of(LOOKS) {
                    if rayon::yield_now() == Some(rayon::Yield::Executed) {
                        since = Instant::now();
                    }
                    if since.elapsed() > PATIENCE {
                        return;
                    }
                    // And others may need the processor.
                    if idle > BRIEF {
                        std::thread::yield_now();
                    }
                }
                continue;
            }
            (seen, idle) = (turn, 0);
            let busy = Busy::new(&self.busy);
            let task = self.board.load(Ordering::SeqCst);
            // SAFETY: whoever takes a task from the board waits until nobody is busy before it goes.
            if let Some(task) = unsafe { task.as_ref() }
                && let Err(panic) = catch_unwind(AssertUnwindSafe(|| task.help(number)))
                && let Ok(mut first) = self.panic.lock()
            {
                first.get_or_insert(panic);
            }
            drop(busy);
            if let Ok(next) = self.next.lock()
                && !Arc::ptr_eq(&next, &ahead.memory)
            {
                let threads = self.come.load(Ordering::Relaxed) + 1;
                ahead = Ahead::new(next.clone(), number, threads);
            }
            since = Instant::now();
        }
    }
}

/// What a thread asks for while it waits.
#[derive(Default)]
struct Ahead {
    memory: Arc<[Range<usize>]>,
    /// Bytes of it that come before what is asked for next, and where that ends.
    from: usize,
    to: usize,
}

impl Ahead {
    /// What thread `number` of so many will begin with.
    fn new(memory: Arc<[Range<usize>]>, number: usize, threads: usize) -> Self {
        let bytes: usize = memory.iter().map(Range::len).sum();
        let at = |thread: usize| (bytes as u128 * thread as u128 / threads as u128) as usize;
        let from = at(number.min(threads));
        Self {
            memory,
            from,
            to: at((number + 1).min(threads)).min(from + AHEAD),
        }
    }

    /// Ask for a little more, if there is more.
    fn ask(&mut self) -> bool {
        if self.from >= self.to {
            return false;
        }
        let mut skip = self.from;
        for piece in self.memory.iter() {
            if skip >= piece.len() {
                skip -= piece.len();
                continue;
            }
            let lines = (piece.start + skip..piece.end).step_by(LINE).take(LINES);
            lines.for_each(lanes::prefetch);
            // Not beyond a piece: the next one begins with a line of its own.
            self.from += (LINES * LINE).min(piece.len() - skip);
            return true;
        }
        self.from = self.to;
        false
    }
}

/// Counts a thread while it lives.
struct Busy<'a>(&'a AtomicUsize);

impl<'a> Busy<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Takes down what is on the board and waits for those who help with it, also when the work panics.
struct Posted<'a>(&'a Step);

impl Drop for Posted<'_> {
    fn drop(&mut self) {
        self.0.board.store(std::ptr::null_mut(), Ordering::SeqCst);
        while self.0.busy.load(Ordering::SeqCst) > 0 {
            std::hint::spin_loop();
        }
    }
}

/// Ends a step, also one that panics.
struct End(Arc<Step>);

impl Drop for End {
    fn drop(&mut self) {
        LED.set(None);
        self.0.over.store(true, Ordering::Release);
        TAKEN.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(count: usize) -> usize {
        let all = AtomicUsize::new(0);
        for take in [Take::One, Take::Share] {
            share(count, take, |range| {
                for i in range {
                    all.fetch_add(i + 1, Ordering::Relaxed);
                }
            });
        }
        all.into_inner() / 2
    }

    #[test]
    fn everything_is_done_once_with_a_crew_and_without() {
        for count in [0, 1, 2, 3, 1000] {
            let expected = count * (count + 1) / 2;
            assert_eq!(sum(count), expected);
            with(|| {
                for _ in 0..50 {
                    assert_eq!(sum(count), expected);
                }
            });
        }
        assert_eq!(
            with(|| map(9, |i| i * i)),
            (0..9).map(|i| i * i).collect::<Vec<_>>()
        );
    }

    #[test]
    fn every_column_of_every_matrix_is_in_one_strip() {
        let (rows, sizes) = (3, [70, 0, 1, 32, 400]);
        let mut all = sizes.map(|columns| vec![0.0; rows * columns]);
        let mut fill = || {
            let mut parts = all.each_mut().map(Vec::as_mut_slice);
            strips(&mut parts, rows, 32, |matrix, first, out| {
                assert!(first.is_multiple_of(32) && out.len() == rows);
                for (row, out) in out.iter_mut().enumerate() {
                    for (column, out) in out.iter_mut().enumerate() {
                        *out += (1 + 1000 * matrix + 10_000 * row + first + column) as f32;
                    }
                }
            });
        };
        fill();
        with(fill);
        for (matrix, (columns, all)) in sizes.iter().zip(&all).enumerate() {
            for (i, v) in all.iter().enumerate() {
                let (row, column) = (i / columns, i % columns);
                let once = 1 + 1000 * matrix + 10_000 * row + column;
                assert_eq!(*v, 2.0 * once as f32);
            }
        }
    }

    #[test]
    fn what_comes_next_is_asked_for_up_to_a_threads_end_and_no_further() {
        let memory: Arc<[Range<usize>]> = [4096..4196, 9000..9000, 20_000..60_000].into();
        for (threads, bytes) in [(1, 40_100), (2, 20_050)] {
            let mut first = Ahead::new(memory.clone(), 0, threads);
            let mut turns = 0;
            while first.ask() {
                turns += 1;
            }
            assert!((bytes / (LINES * LINE)..bytes / (LINES * LINE) + 3).contains(&turns));
            assert!(first.from >= bytes && first.from < bytes + LINES * LINE);
            assert!(!first.ask());
        }
        let big: Arc<[Range<usize>]> = [0..50 * AHEAD, 0..50 * AHEAD].into();
        let last = Ahead::new(big.clone(), 3, 4);
        assert_eq!((last.from, last.to), (75 * AHEAD, 76 * AHEAD));
        assert!(!Ahead::new(big, 9, 4).ask() && !Ahead::default().ask());
    }

    #[test]
    fn shared_work_may_share_and_steps_may_nest() {
        let inner = with(|| with(|| map(20, sum)));
        assert_eq!(inner, (0..20).map(|n| n * (n + 1) / 2).collect::<Vec<_>>());
    }

    #[test]
    fn many_steps_at_once_do_not_wait_for_each_other() {
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let sums = with(|| (sum(40), (0..40usize).into_par_iter().sum::<usize>()));
                        assert_eq!(sums, (820, 780));
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_ends_the_step_and_no_other() {
        for at in [0, 99] {
            let ended = std::panic::catch_unwind(|| {
                with(|| {
                    share(100, Take::One, |range| {
                        assert!(!range.contains(&at), "as it should");
                    });
                });
            });
            assert!(ended.is_err());
            assert_eq!(with(|| sum(10)), 55);
        }
    }
}
