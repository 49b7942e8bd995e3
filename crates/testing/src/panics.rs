//! Panics as verdicts: caught, and not printed where thousands of attempts are made.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Whether a panic of this thread will be caught and told in another way.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; a panic is an error that says where and why, and is not printed.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if CAUGHT.get() {
                PLACE.set(panic.location().map(ToString::to_string));
            } else {
                print(panic);
            }
        }));
    });
    let before = CAUGHT.replace(true);
    let ended = catch_unwind(AssertUnwindSafe(work));
    CAUGHT.set(before);
    ended.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
        let place = PLACE.take().unwrap_or_else(|| "?".into());
        Err(format!("panicked at {place}: {text}"))
    })
}

thread_local! {
    /// Where the last panic of this thread that is caught came from.
    static PLACE: Cell<Option<String>> = const { Cell::new(None) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_that_names_its_place() {
        let failed = caught::<()>(|| panic!("it is {}", 7)).unwrap_err();
        assert!(failed.starts_with("panicked at "), "{failed}");
        assert!(failed.contains("panics.rs:") && failed.ends_with(": it is 7"), "{failed}");
        assert_eq!(caught(|| Ok(1)), Ok(1));
        assert_eq!(caught::<()>(|| Err("no".into())), Err("no".into()));
    }
}
