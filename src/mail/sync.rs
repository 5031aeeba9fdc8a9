//! The atomics of `parked.rs`, which `tests/mail_model.rs` replaces by those of a model checker.

pub(super) use std::sync::atomic::{AtomicBool, Ordering, fence};
