//! A ring that only listens: how a thread that sleeps in something else than a ring is woken by cores, which ring it as they
//! ring each other, within their own `io_uring_enter`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use io_uring::IoUring;

use super::bell::Doorbell;

/// Completions that it has room for: the doorbell rings once until the thread has looked.
const ENTRIES: u32 = 64;

/// See the module. Its descriptor is readable when it was rung.
pub struct Chime {
    ring: IoUring,
    doorbell: Arc<Doorbell>,
}

impl Chime {
    /// A chime that nobody has rung.
    ///
    /// # Errors
    /// Those of `io_uring_setup(2)`, `eventfd(2)` and `dup(2)`.
    pub fn new() -> io::Result<Chime> {
        let ring: IoUring = IoUring::builder().setup_cqsize(ENTRIES).build(1)?;
        // SAFETY: the descriptor is the ring's, which lives as long as this call.
        let doorbell = Doorbell::new(unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) })?;
        Ok(Chime { ring, doorbell: Arc::new(doorbell) })
    }

    /// What cores ring it by.
    pub fn doorbell(&self) -> Arc<Doorbell> {
        Arc::clone(&self.doorbell)
    }

    /// Forgets that it was rung; true if it was.
    pub fn hush(&mut self) -> bool {
        let mut rung = self.ring.completion().count();
        // What found no room comes with the next call into the kernel, and until then the descriptor stays readable.
        while self.ring.submission().cq_overflow() && self.ring.submit().is_ok() {
            rung += self.ring.completion().count();
        }
        rung > 0
    }
}

impl AsRawFd for Chime {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

impl AsFd for Chime {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring keeps it open for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Ring as _;
    use crate::engine::uring::{Options, Uring};
    use crate::engine::{BatchSend, Wait};

    /// Kills: a chime whose descriptor does not tell that it was rung.
    #[test]
    fn a_core_rings_it() {
        let mut chime = Chime::new().expect("a ring");
        let options = Options { sq_entries: 8, cq_entries: 16, slots: 4, buffers: 2, ..Options::default() };
        let mut ring = Uring::new(&options, Vec::new()).expect("a ring");
        ring.set_doorbells(vec![ring.doorbell(), chime.doorbell()]);
        let is_readable = |chime: &Chime, ms: i32| {
            let mut fd = libc::pollfd { fd: chime.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: it is one `pollfd`, which lives through the call.
            unsafe { libc::poll(&mut fd, 1, ms) == 1 }
        };
        for _ in 0..3 {
            assert!(!is_readable(&chime, 0));
            for _ in 0..2 * ENTRIES {
                ring.ring_doorbell(1);
                ring.turn(std::iter::empty::<BatchSend<'_>>(), Wait::No).expect("a turn");
            }
            assert!(is_readable(&chime, 10_000));
            assert!(chime.hush() && !chime.hush());
        }
    }
}
