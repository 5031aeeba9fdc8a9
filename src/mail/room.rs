//! Which cores wait for room in a mailbox, so that its reader knows whom to wake.
//!
//! Nobody sleeps while there is room for what it holds back. The sender says that it waits, then tries once more; the reader
//! takes letters out, then looks who waits. And a sender is about to sleep, then looks whether it was told of room; the reader
//! takes the word back, then looks whether the sender sleeps. A sequentially consistent fence stands between the two steps of
//! each, so at least one of the two sees the other.

use super::sync::{AtomicBool, Ordering, fence};

#[derive(Debug)]
pub(super) struct RoomWanted {
    any: AtomicBool,
    by: Box<[AtomicBool]>,
}

impl RoomWanted {
    pub(super) fn new(cores: usize) -> RoomWanted {
        RoomWanted { any: AtomicBool::default(), by: (0..cores).map(|_| AtomicBool::default()).collect() }
    }

    /// A core waits. It tries once more after this.
    pub(super) fn ask(&self, core: usize) {
        self.by[core].store(true, Ordering::Relaxed);
        self.any.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// Whether a core that has asked was told of room meanwhile.
    pub(super) fn is_told(&self, core: usize) -> bool {
        !self.by[core].load(Ordering::Relaxed)
    }

    /// There is room: tells whoever waits. It is on the caller to wake them if they sleep.
    #[inline]
    pub(super) fn tell(&self, mut wake: impl FnMut(usize)) {
        fence(Ordering::SeqCst);
        if self.any.load(Ordering::Relaxed) && self.any.swap(false, Ordering::AcqRel) {
            for (core, waits) in self.by.iter().enumerate() {
                if waits.swap(false, Ordering::AcqRel) {
                    wake(core);
                }
            }
        }
    }
}
