//! Calls into crates that may panic on crafted input, turned into plain errors.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic on this thread will be caught and become an error. A panic hook that restores the terminal or prints
/// a report should do nothing then.
#[must_use]
pub fn panic_is_contained() -> bool {
    CONTAINED.get()
}

/// Run `work`; a panic inside becomes `Err` with its message, and no panic hook sees it.
///
/// What `work` touches must be thrown away or be unharmed by an early end; the callers here only read.
pub(crate) fn contained<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static QUIET: Once = Once::new();
    if !std::thread::panicking() {
        QUIET.call_once(|| {
            let previous = take_hook();
            set_hook(Box::new(move |info| {
                if !panic_is_contained() {
                    previous(info);
                }
            }));
        });
    }
    let before = CONTAINED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(before);
    outcome.map_err(|payload| message(payload.as_ref()))
}

fn message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("it panicked")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(contained(|| 3), Ok(3));
        assert_eq!(
            contained(|| -> u8 { panic!("no {}", 1) }),
            Err("no 1".into())
        );
        assert_eq!(contained(|| -> u8 { panic!("no") }), Err("no".into()));
        assert!(!panic_is_contained());
        assert_eq!(contained(panic_is_contained), Ok(true));
    }
}
