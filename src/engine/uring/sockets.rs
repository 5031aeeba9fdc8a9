//! Where the sockets of a ring's slots are: direct descriptors, or descriptors of the process.
//!
//! Everything else in the ring says `Fixed(slot)`, as if all descriptors were direct. [`Sockets::aimed`], through which
//! every submission goes, puts the process's descriptor in its place where that is the way.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed};
use io_uring::{opcode, squeue};

use crate::engine::Descriptors;

/// Where `struct io_uring_sqe` has its flags (one byte), and the descriptor or its index (an `i32`).
const FLAGS_OFFSET: usize = 1;
const FD_OFFSET: usize = 4;

/// The sockets of a ring's slots.
pub(super) enum Sockets {
    /// A slot's number is the index of its direct descriptor, and the kernel has the table.
    Direct,
    /// The slots' descriptors are in the process's table.
    Plain(Plain),
}

/// The descriptors of slots that are the process's.
///
/// Invariant: each is owned here until its close has been taken by the kernel; from then on its number may be anybody's.
#[derive(Default)]
pub(super) struct Plain {
    /// By slot; a slot beyond the end has none.
    open: Vec<Option<OwnedFd>>,
    /// Descriptors whose close is queued, or was a moment ago, and its number among all submissions.
    closing: VecDeque<(u64, RawFd)>,
    /// Submissions queued so far.
    queued: u64,
}

impl Sockets {
    pub(super) fn new(descriptors: Descriptors) -> Sockets {
        match descriptors {
            Descriptors::Direct => Sockets::Direct,
            Descriptors::Plain => Sockets::Plain(Plain::default()),
        }
    }

    pub(super) fn descriptors(&self) -> Descriptors {
        match self {
            Sockets::Direct => Descriptors::Direct,
            Sockets::Plain(_) => Descriptors::Plain,
        }
    }

    /// Has an accept put what it accepts where the slot's descriptor belongs: after it, see [`Sockets::accepted`].
    pub(super) fn accepting(&self, accept: opcode::Accept, slot: u32) -> opcode::Accept {
        match self {
            Sockets::Direct => {
                let slot = DestinationSlot::try_from_slot_target(slot).expect("slots are below the table's size");
                accept.file_index(Some(slot))
            }
            Sockets::Plain(_) => accept.flags(libc::SOCK_CLOEXEC),
        }
    }

    /// An accept into a slot has brought this: 0, or the descriptor.
    pub(super) fn accepted(&mut self, slot: u32, brought: u32) {
        if let Sockets::Plain(plain) = self {
            // SAFETY: the kernel has just opened it for this accept, whose completion is looked at once.
            plain.install(slot, unsafe { OwnedFd::from_raw_fd(brought as RawFd) });
        }
    }

    /// The cancellation of everything on a slot.
    pub(super) fn cancellation(&self, slot: u32) -> CancelBuilder {
        match self {
            Sockets::Direct => CancelBuilder::fd(Fixed(slot)).all(),
            Sockets::Plain(plain) => CancelBuilder::fd(Fd(plain.fd(slot))).all(),
        }
    }

    /// The close of a slot's descriptor, which is to be the next submission.
    pub(super) fn close(&mut self, slot: u32) -> squeue::Entry {
        match self {
            Sockets::Direct => opcode::Close::new(Fixed(slot)).build(),
            Sockets::Plain(plain) => {
                let fd = plain.open.get_mut(slot as usize).and_then(Option::take).map_or(-1, IntoRawFd::into_raw_fd);
                if fd >= 0 {
                    plain.closing.push_back((plain.queued, fd));
                }
                opcode::Close::new(Fd(fd)).build()
            }
        }
    }
}

impl Plain {
    pub(super) fn install(&mut self, slot: u32, fd: OwnedFd) {
        let slot = slot as usize;
        if self.open.len() <= slot {
            self.open.resize_with(slot + 1, || None);
        }
        let former = self.open[slot].replace(fd);
        debug_assert!(former.is_none(), "slot {slot} had a descriptor");
    }

    /// The slot's descriptor, or one that the kernel knows nothing of.
    #[inline]
    fn fd(&self, slot: u32) -> RawFd {
        self.open.get(slot as usize).and_then(Option::as_ref).map_or(-1, AsRawFd::as_raw_fd)
    }

    /// An entry that is aimed at a slot's direct descriptor, aimed at the slot's descriptor instead; any other as it is.
    /// It is the next to be queued, of which `waiting` have not been taken by the kernel.
    #[inline]
    pub(super) fn aimed(&mut self, entry: &squeue::Entry, waiting: usize) -> squeue::Entry {
        let taken = self.queued - waiting as u64;
        while self.closing.front().is_some_and(|(number, _)| *number < taken) {
            self.closing.pop_front();
        }
        self.queued += 1;
        let mut entry = entry.clone();
        const { assert!(size_of::<squeue::Entry>() == 64, "an entry is the kernel's struct of 64 bytes") };
        let start = std::ptr::from_mut(&mut entry).cast::<u8>();
        // SAFETY: `Entry` is `repr(C)` around the kernel's struct alone, 64 bytes (asserted above) aligned for u64, so the
        // byte of flags and the i32 at 4 to 7 are within it and aligned. Both are plain integers of which every value is
        // valid, and initialised as all of an entry is. Nobody else refers to the copy.
        unsafe {
            let flags = start.add(FLAGS_OFFSET);
            if *flags & squeue::Flags::FIXED_FILE.bits() != 0 {
                *flags &= !squeue::Flags::FIXED_FILE.bits();
                let fd = start.add(FD_OFFSET).cast::<i32>();
                *fd = self.fd(*fd as u32);
            }
        }
        entry
    }

    /// Closes what is left when the ring ends, of whose submissions `waiting` will never be taken by the kernel.
    pub(super) fn close_all(&mut self, waiting: usize) {
        self.open.clear();
        let taken = self.queued - waiting as u64;
        for (number, fd) in self.closing.drain(..) {
            if number >= taken {
                // SAFETY: by the type's invariant it is still ours: the kernel has not seen its close, and never will.
                drop(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn is_open(fd: RawFd) -> bool {
        std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok()
    }

    #[test]
    fn entries_for_slots_are_aimed_and_others_are_left_alone() {
        let mut plain = Plain::default();
        let (socket, _peer) = UnixStream::pair().unwrap();
        let fd = socket.as_raw_fd();
        plain.install(3, socket.into());
        // SAFETY: an entry is 64 bytes, all of them initialised, of which any value is a valid byte.
        let shown = |entry: squeue::Entry| unsafe { std::mem::transmute::<squeue::Entry, [u8; 64]>(entry) };
        let recv = |buffer| opcode::Recv::new(Fixed(3), buffer, 1).build().user_data(9);
        let buffer = std::ptr::null_mut();
        let expected = opcode::Recv::new(Fd(fd), buffer, 1).build().user_data(9);
        assert_eq!(shown(plain.aimed(&recv(buffer), 0)), shown(expected.clone()));
        assert_eq!(shown(plain.aimed(&expected, 0)), shown(expected));
        let nowhere = opcode::Recv::new(Fd(-1), buffer, 1).build();
        assert_eq!(shown(plain.aimed(&opcode::Recv::new(Fixed(4), buffer, 1).build(), 0)), shown(nowhere));
    }

    #[test]
    fn a_close_that_the_kernel_never_saw_is_made_up_for_and_no_other() {
        let mut sockets = Sockets::new(Descriptors::Plain);
        let (first, _first_peer) = UnixStream::pair().unwrap();
        let (second, _second_peer) = UnixStream::pair().unwrap();
        let fds = [first.as_raw_fd(), second.as_raw_fd()];
        let Sockets::Plain(plain) = &mut sockets else { unreachable!() };
        plain.install(0, first.into());
        plain.install(1, second.into());
        for slot in [0, 1] {
            let entry = sockets.close(slot);
            let Sockets::Plain(plain) = &mut sockets else { unreachable!() };
            plain.aimed(&entry, slot as usize);
        }
        assert!(fds.map(is_open).iter().all(|open| *open));
        let Sockets::Plain(plain) = &mut sockets else { unreachable!() };
        // As if the kernel had taken the first close alone, which here nobody did.
        plain.close_all(1);
        assert_eq!(fds.map(is_open), [true, false]);
        // SAFETY: nothing has closed it.
        drop(unsafe { OwnedFd::from_raw_fd(fds[0]) });
    }
}
