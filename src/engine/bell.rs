//! How others wake a core that sleeps in its ring.
//!
//! A core rings another core's bell with one `MSG_RING` operation of its own ring, submitted with the rest of its tick. A
//! thread without a ring writes to the core's eventfd, on which the core keeps one read armed.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// What it takes to wake one core from any thread. It holds an eventfd and nothing of the ring, so that whoever keeps a
/// bell for long keeps no socket open.
#[derive(Debug)]
pub struct Bell {
    eventfd: File,
}

/// What it takes to wake one core from the ring of another. It keeps the ring open, and so it is for cores alone, which
/// end together.
#[derive(Debug)]
pub struct Doorbell {
    bell: Arc<Bell>,
    ring: OwnedFd,
}

impl Doorbell {
    /// A bell for the ring behind `ring`.
    ///
    /// # Errors
    /// Those of `eventfd(2)` and `dup(2)`.
    pub(super) fn new(ring: impl AsFd) -> io::Result<Doorbell> {
        Ok(Doorbell { bell: Arc::new(Bell::new()?), ring: ring.as_fd().try_clone_to_owned()? })
    }

    /// The same core's bell for threads without a ring.
    pub fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    pub(super) fn ring_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

impl Bell {
    fn new() -> io::Result<Bell> {
        // SAFETY: eventfd takes no pointer; the result is checked before use.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and belongs to nobody else.
        let eventfd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Bell { eventfd: File::from(eventfd) })
    }

    /// Wakes the core, from any thread.
    pub fn ring(&self) {
        // The only error an 8-byte write to a blocking eventfd can have is a signal; the counter saturates far later.
        while let Err(error) = (&self.eventfd).write(&1u64.to_ne_bytes()) {
            if error.kind() != io::ErrorKind::Interrupted {
                break;
            }
        }
    }

    pub(super) fn eventfd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }
}
