//! Whether a core sleeps, so that whoever writes to it knows whether to wake it, and whether it has ended.
//!
//! Nobody sleeps through a letter. The receiver declares itself parked, then looks for letters once more; the sender puts
//! the letter in, then looks whether the receiver is parked. A sequentially consistent fence stands between the two steps
//! on both sides, so at least one of them sees the other. Whoever clears the flag rings the bell; so it rings once for any
//! number of letters, and costs those who write to a core that is awake one load.
//!
//! Nor does a letter outlive the core that was to read it. The receiver that ends says so, then discards the letters; the
//! sender puts the letter in, then looks whether the receiver has ended, and discards them if so. The same fences stand
//! between the two steps.
//!
//! `tests/mail_model.rs` compiles this very file over a model checker's atomics.

use super::sync::{AtomicBool, Ordering, fence};

#[derive(Debug, Default)]
pub(crate) struct Parked {
    sleeps: AtomicBool,
    ended: AtomicBool,
}

impl Parked {
    /// The receiver is about to sleep; false if a letter has come (`is_empty` is false), and it must not.
    #[inline]
    pub(crate) fn park(&self, is_empty: impl FnOnce() -> bool) -> bool {
        self.sleeps.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if is_empty() {
            return true;
        }
        self.unpark();
        false
    }

    /// The receiver is awake. It looks for letters after this.
    #[inline]
    pub(crate) fn unpark(&self) {
        self.sleeps.store(false, Ordering::Relaxed);
    }

    /// A letter has been put in: true if the receiver was parked and it is now on the caller to wake it.
    #[inline]
    pub(crate) fn take(&self) -> bool {
        fence(Ordering::SeqCst);
        self.sleeps.load(Ordering::Relaxed) && self.sleeps.swap(false, Ordering::AcqRel)
    }
    /// The receiver ends. It discards the letters after this.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Whether the receiver has ended. Who has put a letter in asks after [`Parked::take`], and discards the letters if so.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}
