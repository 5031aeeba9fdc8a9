//! What this kernel's io_uring can do, found out by trying.

use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use io_uring::types::Fixed;
use io_uring::{IoUring, Probe, opcode, squeue};

use super::setup::{Options, build};

/// A peer that has not seen the end after so long has not been sent it. Where closes are in time, the end is there before
/// the call that closes returns.
const LATE_AFTER: Duration = Duration::from_millis(100);
/// Entries of a ring that only tries something.
const SMALL: u32 = 8;
/// Memory that such a ring shares with the kernel: a page for its entries, and one for its completions.
pub const SMALL_RING_BYTES: u64 = 2 * 4096;

/// What came of trying.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Operations that are needed and that this kernel lacks.
    pub lacks: Vec<&'static str>,
    /// See [`closes_late`].
    pub closes_late: bool,
}

/// What is known of [`closes_late`].
static CLOSES_LATE: Mutex<Option<bool>> = Mutex::new(None);

/// Whether this kernel keeps the file behind a closed direct descriptor until all older operations on any direct
/// descriptor of the ring have ended (Linux before 6.13). A connection whose peer is silent has one in flight for as long
/// as it lasts, so that nobody would see the end of what is closed. Tried once, and then known.
///
/// # Errors
/// What the kernel says to a small ring, as [`probe`].
pub fn closes_late() -> io::Result<bool> {
    let mut known = CLOSES_LATE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(late) = *known {
        return Ok(late);
    }
    let late = try_close(&mut build(&Options::small())?)?;
    *known = Some(late);
    Ok(late)
}

impl Options {
    /// Those of a ring that only tries something.
    pub fn small() -> Options {
        Options { sq_entries: SMALL, cq_entries: 2 * SMALL, ..Options::default() }
    }
}

/// From here on the process takes its kernel for one that closes late, whatever it is: for tests.
pub fn assume_closes_late() {
    *CLOSES_LATE.lock().unwrap_or_else(PoisonError::into_inner) = Some(true);
}

/// Makes a ring as [`Uring`](super::Uring) does, but for its slots and buffers, asks what it can do, enters it, and drops
/// it. The kernel takes a moment to give up its memory. What it finds is known from then on, as by [`closes_late`].
///
/// # Errors
/// What the kernel says: EPERM, EACCES or ENOSYS where io_uring is forbidden or missing, be it one of its calls alone;
/// ENOMEM, EMFILE, EINVAL.
pub fn probe(options: &Options) -> io::Result<Abilities> {
    let mut ring = build(options)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [
        ("ACCEPT", opcode::Accept::CODE),
        ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
        ("CLOSE", opcode::Close::CODE),
        ("CONNECT", opcode::Connect::CODE),
        ("FILES_UPDATE", opcode::FilesUpdate::CODE),
        ("MSG_RING", opcode::MsgRingData::CODE),
        ("RECV", opcode::Recv::CODE),
        ("SEND", opcode::Send::CODE),
        // The newest of them, and new in 6.1: stands for vectored SEND and multishot RECV, which no probe tells.
        ("SENDMSG_ZC", opcode::SendMsgZc::CODE),
    ];
    let lacks = needed.iter().filter(|(_, code)| !probe.is_supported(*code)).map(|(name, _)| *name);
    let lacks = lacks.collect();
    // It is tried even where it is known: nothing else here enters the ring.
    let late = try_close(&mut ring)?;
    let closes_late = *CLOSES_LATE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(late);
    Ok(Abilities { lacks, closes_late })
}

/// Closes one direct descriptor while an operation on another is in flight; whether its peer had to wait.
fn try_close(ring: &mut IoUring) -> io::Result<bool> {
    let (silent, _silent_peer) = UnixStream::pair()?;
    let (closed, mut peer) = UnixStream::pair()?;
    ring.submitter().register_files(&[silent.as_raw_fd(), closed.as_raw_fd()])?;
    // From now on the table alone has them.
    drop((silent, closed));
    // As good as a receive, and it has no memory that would have to outlive it.
    run(ring, &opcode::PollAdd::new(Fixed(0), libc::POLLIN as u32).build(), 0)?;
    run(ring, &opcode::Close::new(Fixed(1)).build(), 1)?;
    let Some(entry) = ring.completion().next() else {
        return Err(io::Error::other("io_uring_enter returned without the completion that it was to wait for"));
    };
    if entry.result() < 0 {
        return Err(io::Error::from_raw_os_error(-entry.result()));
    }
    peer.set_read_timeout(Some(LATE_AFTER))?;
    match peer.read(&mut [0]) {
        Ok(_) => Ok(false),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(true),
        Err(error) => Err(error),
    }
}

fn run(ring: &mut IoUring, entry: &squeue::Entry, wanted: usize) -> io::Result<()> {
    // SAFETY: neither of the two kinds of entries that come here points to memory.
    let pushed = unsafe { ring.submission().push(entry) };
    pushed.map_err(|_| io::Error::other("an empty submission queue has no room"))?;
    loop {
        match ring.submit_and_wait(wanted) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the version where it can be told by that. The code never asks it: distributions change kernels.
    #[test]
    fn kernels_of_6_13_and_later_close_in_time() {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap());
        let version = (numbers.next().unwrap(), numbers.next().unwrap());
        let mut ring = build(&Options::small()).unwrap();
        assert_eq!(try_close(&mut ring).unwrap(), version < (6, 13), "{release}");
    }

    #[test]
    fn this_kernel_has_what_is_needed() {
        assert_eq!(probe(&Options::default()).unwrap().lacks, [""; 0]);
    }
}
