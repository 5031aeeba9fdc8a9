//! Where user code is called.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls what a user wrote; a panic becomes `None` and is logged.
pub(crate) fn guarded<R>(what: &str, call: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| tracing::error!("{what} panicked")).ok()
}
