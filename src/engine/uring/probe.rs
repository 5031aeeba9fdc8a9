//! What this kernel's io_uring can do, found out by trying.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use io_uring::types::Fixed;
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};

use super::receive::bounded_recv;
use super::setup::{BUFFER_GROUP, Options, build, register_buffers};

/// A peer that has not seen the end after so long has not been sent it. Where closes are in time, the end is there before
/// the call that closes returns.
const LATE_AFTER: Duration = Duration::from_millis(100);
/// Entries of a ring that only tries something.
const SMALL: u32 = 8;
/// Memory that such a ring shares with the kernel: a page for its entries, one for its completions, and one for its buffers.
pub const SMALL_RING_BYTES: u64 = 3 * 4096;

/// Slots of a ring that tries something: a socket that stays silent, one that is closed, one that receives, and none.
const SILENT: u32 = 0;
const CLOSED: u32 = 1;
const TALKING: u32 = 2;
const EMPTY: u32 = 3;

/// What came of trying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Operations that are needed and that this kernel lacks.
    pub lacks: Vec<&'static str>,
    /// See [`closes_late`].
    pub closes_late: bool,
    /// Whether submissions need no array beside them (`NO_SQARRAY`).
    pub needs_no_array: bool,
    /// Whether buffers are filled piece by piece: see [`Buffers`](crate::engine::buffers::Buffers).
    pub fills_buffers: bool,
    /// Whether a receive can be told to end after so many bytes: see
    /// [`Ring::recv_at_most`](crate::engine::Ring::recv_at_most).
    pub bounds_receives: bool,
}

impl Default for Abilities {
    /// Those of a kernel that can all.
    fn default() -> Abilities {
        Abilities {
            lacks: Vec::new(),
            closes_late: false,
            needs_no_array: true,
            fills_buffers: true,
            bounds_receives: true,
        }
    }
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
    let (mut ring, _) = build(&Options::small())?;
    let mut peers = Peers::of(&ring)?;
    let late = try_close(&mut ring, &mut peers)?;
    *known = Some(late);
    Ok(late)
}

impl Options {
    /// Those of a ring that only tries something.
    pub fn small() -> Options {
        Options { sq_entries: SMALL, cq_entries: 2 * SMALL, buffers: 2, ..Options::default() }
    }
}

/// From here on the process takes its kernel for one that closes late, whatever it is: for tests.
pub fn assume_closes_late() {
    *CLOSES_LATE.lock().unwrap_or_else(PoisonError::into_inner) = Some(true);
}

/// Makes a ring as [`Uring`](super::Uring) does, but for its slots, asks what it can do, tries what no probe tells, and drops
/// it. The kernel takes a moment to give up its memory. What it finds is known from then on, as by [`closes_late`].
///
/// # Errors
/// What the kernel says: EPERM, EACCES or ENOSYS where io_uring is forbidden or missing, be it one of its calls alone;
/// ENOMEM, EMFILE, EINVAL.
pub fn probe(options: &Options) -> io::Result<Abilities> {
    let (mut ring, needs_no_array) = build(options)?;
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
        ("SENDMSG", opcode::SendMsg::CODE),
    ];
    let lacks = needed.iter().filter(|(_, code)| !probe.is_supported(*code)).map(|(name, _)| *name);
    let mut lacks: Vec<&'static str> = lacks.collect();
    let mut peers = Peers::of(&ring)?;
    // It is tried even where it is known.
    let late = try_close(&mut ring, &mut peers)?;
    let closes_late = *CLOSES_LATE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(late);
    let bounds_receives = try_bound(&mut ring)?;
    let (receives, fills_buffers) = try_receive(&mut ring, options, peers.talking)?;
    if !receives {
        lacks.push("multishot RECV into provided buffers");
    }
    Ok(Abilities { lacks, closes_late, needs_no_array, fills_buffers, bounds_receives })
}

/// Makes so many rings at once, with their buffers, and drops them: whether they fit into what this process may have.
///
/// # Errors
/// As [`probe`]; ENOMEM above all.
pub fn try_rings(options: &Options, count: usize) -> io::Result<()> {
    let mut rings = Vec::new();
    for _ in 0..count {
        let (ring, _) = build(options)?;
        // Nothing receives on these rings, so that nothing is written to their buffers.
        let buffers = register_buffers(&ring, options)?;
        rings.push((ring, buffers));
    }
    Ok(())
}

/// The other ends of the sockets in a ring's slots.
struct Peers {
    _silent: UnixStream,
    closed: UnixStream,
    talking: UnixStream,
}

impl Peers {
    fn of(ring: &IoUring) -> io::Result<Peers> {
        let ((silent, silent_peer), (closed, closed_peer), (talking, talking_peer)) =
            (UnixStream::pair()?, UnixStream::pair()?, UnixStream::pair()?);
        let mut slots = [-1; 4];
        for (slot, socket) in [(SILENT, &silent), (CLOSED, &closed), (TALKING, &talking)] {
            slots[slot as usize] = socket.as_raw_fd();
        }
        // From then on the table alone has them.
        ring.submitter().register_files(&slots)?;
        Ok(Peers { _silent: silent_peer, closed: closed_peer, talking: talking_peer })
    }
}

/// Closes one direct descriptor while an operation on another is in flight; whether its peer had to wait.
fn try_close(ring: &mut IoUring, peers: &mut Peers) -> io::Result<bool> {
    // As good as a receive, and it has no memory that would have to outlive it.
    run(ring, &opcode::PollAdd::new(Fixed(SILENT), libc::POLLIN as u32).build(), 0)?;
    run(ring, &opcode::Close::new(Fixed(CLOSED)).build(), 1)?;
    let entry = completion(ring)?;
    if entry.result() < 0 {
        return Err(io::Error::from_raw_os_error(-entry.result()));
    }
    peers.closed.set_read_timeout(Some(LATE_AFTER))?;
    loop {
        return match peers.closed.read(&mut [0]) {
            Ok(_) => Ok(false),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(true),
            // The end of a ring that this thread had interrupts what it does next, on Linux 6.1.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
    }
}

/// Whether the kernel knows a bound on multishot receives: one that does not refuses the entry (EINVAL) before it finds that
/// the slot is empty (EBADF).
fn try_bound(ring: &mut IoUring) -> io::Result<bool> {
    run(ring, &bounded_recv(EMPTY, 1), 1)?;
    Ok(completion(ring)?.result() == -libc::EBADF)
}

/// Receives as connections do; whether that works, and whether it fills buffers piece by piece.
fn try_receive(ring: &mut IoUring, options: &Options, mut peer: UnixStream) -> io::Result<(bool, bool)> {
    let buffers = register_buffers(ring, options)?;
    let (receives, is_over) = receive_once(ring, &mut peer).unwrap_or((false, false));
    drop(peer);
    // The end of the peer ends the receive.
    let is_over = is_over || matches!(run_on(ring), Ok(last) if !cqueue::more(last.flags()));
    let fills_buffers = buffers.are_incremental();
    if !is_over || ring.submitter().unregister_buf_ring(BUFFER_GROUP).is_err() {
        // The kernel may still write to them.
        std::mem::forget(buffers);
    }
    Ok((receives, fills_buffers))
}

/// Arms a receive and has it bring a byte: whether it did, as it should, and whether it has ended thereby.
fn receive_once(ring: &mut IoUring, peer: &mut UnixStream) -> io::Result<(bool, bool)> {
    peer.write_all(b"x")?;
    run(ring, &bounded_recv(TALKING, 0), 1)?;
    let entry = completion(ring)?;
    let more = cqueue::more(entry.flags());
    Ok((entry.result() == 1 && cqueue::buffer_select(entry.flags()).is_some() && more, !more))
}

/// The next completion of something that is under way.
fn run_on(ring: &mut IoUring) -> io::Result<cqueue::Entry> {
    wait(ring, 1)?;
    completion(ring)
}

fn completion(ring: &mut IoUring) -> io::Result<cqueue::Entry> {
    let none = "io_uring_enter returned without the completion that it was to wait for";
    ring.completion().next().ok_or_else(|| io::Error::other(none))
}

fn run(ring: &mut IoUring, entry: &squeue::Entry, wanted: usize) -> io::Result<()> {
    // SAFETY: of the kinds of entries that come here none points to memory; receives write to provided buffers, which stay
    // registered memory until `try_receive` has seen their end.
    let pushed = unsafe { ring.submission().push(entry) };
    pushed.map_err(|_| io::Error::other("an empty submission queue has no room"))?;
    wait(ring, wanted)
}

fn wait(ring: &mut IoUring, wanted: usize) -> io::Result<()> {
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
    fn abilities_are_those_of_the_kernel_s_version() {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap());
        let version = (numbers.next().unwrap(), numbers.next().unwrap());
        let (mut ring, needs_no_array) = build(&Options::small()).unwrap();
        let mut peers = Peers::of(&ring).unwrap();
        assert_eq!(try_close(&mut ring, &mut peers).unwrap(), version < (6, 13), "{release}");
        assert_eq!(needs_no_array, version >= (6, 6), "{release}");
        for options in [Options::small(), Options::default()] {
            let abilities = probe(&options).unwrap();
            assert_eq!(abilities.lacks, [""; 0]);
            assert_eq!(abilities.needs_no_array, version >= (6, 6), "{release}");
            assert_eq!(abilities.fills_buffers, version >= (6, 12), "{release}");
            assert_eq!(abilities.bounds_receives, version >= (6, 17), "{release}");
        }
    }

    #[test]
    fn what_does_not_fill_buffers_receives_all_the_same() {
        let options = Options { incremental_bytes: 0, ..Options::small() };
        let abilities = probe(&options).unwrap();
        assert_eq!((abilities.lacks.len(), abilities.fills_buffers), (0, false));
        try_rings(&Options::small(), 3).unwrap();
    }
}
