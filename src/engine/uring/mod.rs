//! The kernel's io_uring as a [`Ring`].
//!
//! Owns the ring, its table of direct descriptors, the provided buffers and the memory of every operation in flight, so
//! that its interface is safe: whatever the kernel may read or write is either owned here until its completion has been
//! seen, or borrowed by [`Ring::turn`] for sends that cannot outlive the call.

mod address;
mod batch;
mod ending;
mod probe;
mod receive;
mod setup;
mod sockets;
#[cfg(test)]
mod tests;
mod turn_away;
#[cfg(test)]
mod wake_tests;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use socket2::SockAddr;
use tracing::debug;

use self::address::AcceptAddress;
use self::batch::Vectors;
pub use self::probe::{Abilities, SMALL_RING_BYTES, assume_closes_late, closes_late, probe, try_rings};
use self::setup::{BUFFER_GROUP, build, register_buffers, register_slots};
use self::receive::bounded_recv;
pub use self::setup::{Options, plain_slots};
use self::sockets::Sockets;
use super::bell::{Bell, Doorbell};
use super::buffers::Buffers;
use super::{
    BatchSend, Completion, Descriptors, Filled, Nanos, Op, Peer, Ring, RingStats, SEND_BYTES_MAX, Token, Wait,
};

/// `IORING_ENTER_GETEVENTS`: run deferred task work and flush overflown completions.
const ENTER_GETEVENTS: u32 = 1;
/// `IORING_ENTER_EXT_ARG`: the argument is a timeout.
const ENTER_EXT_ARG: u32 = 8;
/// Sends submitted at once: more would keep the loop in the kernel for over half a millisecond.
const SENDS_PER_ENTER: usize = 256;
/// Generations of internal tokens with [`Op::Doorbell`]: the armed read of the eventfd, and a `MSG_RING` that failed.
const BELL_READ: u32 = 1;
const BELL_SENT: u32 = 2;

/// The kernel's ring. Made on the thread that drives it, and never moved off it.
pub struct Uring {
    submitter: ManuallyDrop<io_uring::Submitter<'static>>,
    sq: ManuallyDrop<squeue::SubmissionQueue<'static>>,
    cq: ManuallyDrop<cqueue::CompletionQueue<'static>>,
    /// What the three above borrow from; freed after them.
    ring: NonNull<IoUring>,
    epoch: Instant,
    slots: u32,
    sockets: Sockets,
    spin: Duration,
    buffers: ManuallyDrop<Buffers>,
    /// By their numbers; `None` once accepting has ended.
    listeners: Vec<Option<OwnedFd>>,
    doorbell: Arc<Doorbell>,
    bell_count: Box<u64>,
    doorbells: Vec<Arc<Doorbell>>,
    accepts: HashMap<u32, Box<AcceptAddress>>,
    #[expect(clippy::vec_box, reason = "the kernel has pointers into them: they move between the two, not in memory")]
    accept_addresses_free: Vec<Box<AcceptAddress>>,
    peers: Vec<(u32, Peer)>,
    /// Addresses of connects in flight, boxed: the kernel reads them.
    connecting: HashMap<u32, Box<SockAddr>>,
    receiving: HashMap<u32, (Vec<u8>, usize)>,
    /// Receives to submit behind the batch's sends: what is received next would push their bytes out of the cache.
    after_sends: Vec<squeue::Entry>,
    bounds_receives: bool,
    received: HashMap<u32, Vec<u8>>,
    sending: HashMap<u32, Bytes>,
    vectors: ManuallyDrop<Vectors>,
    /// Completions taken off the kernel's queue early, to make room in it.
    held: VecDeque<cqueue::Entry>,
    stats: RingStats,
    /// Set when an enter failed for good: the kernel is never entered again.
    broken: bool,
    /// Submissions that one enter takes, as if the kernel were short of memory.
    #[cfg(test)]
    submits_max: u32,
}

impl Uring {
    /// Sets a ring up on this thread. `listeners` must be in blocking mode: the ring waits where a non-blocking one would
    /// return EAGAIN.
    ///
    /// # Errors
    /// What the kernel says: EPERM or ENOSYS where io_uring is forbidden or missing, ENOMEM, EMFILE.
    pub fn new(options: &Options, listeners: Vec<OwnedFd>) -> io::Result<Uring> {
        let descriptors = match options.descriptors {
            Some(descriptors) => descriptors,
            None => Descriptors::suiting(closes_late()?),
        };
        let (ring, _) = build(options)?;
        let slots = match descriptors {
            Descriptors::Direct => register_slots(&ring, options.slots)?,
            Descriptors::Plain => options.slots.min(options.plain_slots()),
        };
        let buffers = register_buffers(&ring, options)?;
        // SAFETY: IoUring's descriptor stays open while `ring` lives, which is longer than this borrow.
        let doorbell = Arc::new(Doorbell::new(unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) })?);

        let ring = NonNull::from(Box::leak(Box::new(ring)));
        // SAFETY: the box was just leaked, so the reference is unique and lives until `drop` takes the box back, after
        // the three parts that borrow it are gone.
        let (mut submitter, sq, cq) = unsafe { &mut *ring.as_ptr() }.split();
        if let Err(error) = submitter.register_ring_fd() {
            debug!(%error, "the ring's descriptor could not be registered");
        }
        let mut uring = Uring {
            submitter: ManuallyDrop::new(submitter),
            sq: ManuallyDrop::new(sq),
            cq: ManuallyDrop::new(cq),
            ring,
            epoch: options.epoch,
            slots,
            sockets: Sockets::new(descriptors),
            spin: options.spin,
            buffers: ManuallyDrop::new(buffers),
            listeners: listeners.into_iter().map(Some).collect(),
            doorbell,
            bell_count: Box::new(0),
            doorbells: Vec::new(),
            accepts: HashMap::new(),
            accept_addresses_free: Vec::new(),
            peers: Vec::new(),
            connecting: HashMap::new(),
            receiving: HashMap::new(),
            after_sends: Vec::new(),
            bounds_receives: false,
            received: HashMap::new(),
            sending: HashMap::new(),
            vectors: ManuallyDrop::new(Vectors::new()),
            held: VecDeque::new(),
            stats: RingStats::default(),
            broken: false,
            #[cfg(test)]
            submits_max: u32::MAX,
        };
        uring.bounds_receives = uring.probe_bound()?;
        uring.arm_bell();
        Ok(uring)
    }

    /// Bytes of each provided buffer: more than asked for where buffers are consumed incrementally.
    pub fn buffer_bytes(&self) -> u32 {
        self.buffers.buffer_bytes()
    }

    /// Where its sockets are.
    pub fn descriptors(&self) -> Descriptors {
        self.sockets.descriptors()
    }

    /// This core's bell, for any thread to ring.
    pub fn bell(&self) -> Arc<Bell> {
        Arc::clone(self.doorbell.bell())
    }

    /// This core's bell, for other cores to ring.
    pub fn doorbell(&self) -> Arc<Doorbell> {
        Arc::clone(&self.doorbell)
    }

    /// The bells that [`Ring::ring_doorbell`] rings, by core number.
    pub fn set_doorbells(&mut self, doorbells: Vec<Arc<Doorbell>>) {
        self.doorbells = doorbells;
    }

    /// Whether the kernel knows a bound on multishot receives: one that does not refuses the entry (EINVAL) before it
    /// finds that the slot is empty (EBADF).
    fn probe_bound(&mut self) -> io::Result<bool> {
        let token = Token::new(Op::Recv, 0, 0);
        self.push(&bounded_recv(0, 1).user_data(token.user_data()));
        self.enter(Wait::Until(self.now() + 1_000_000_000))?;
        self.cq.sync();
        Ok(self.cq.next().is_some_and(|entry| entry.result() == -libc::EBADF))
    }

    /// Keeps a receive's buffer until its completion, and makes the entry.
    fn single_receive(&mut self, token: Token, mut buffer: Vec<u8>, len_max: usize, flags: i32) -> squeue::Entry {
        let spare = buffer.spare_capacity_mut();
        let len_max = len_max.min(spare.len()).min(1 << 30);
        assert!(len_max > 0, "a receive needs room");
        let start = spare.as_mut_ptr().cast::<u8>();
        let entry = opcode::Recv::new(Fixed(token.index()), start, len_max as u32).flags(flags).build();
        // The heap block that `start` points into does not move with the Vec, and stays in the map until completion.
        let former = self.receiving.insert(token.index(), (buffer, len_max));
        assert!(former.is_none(), "one receive per slot");
        entry.user_data(token.user_data())
    }

    fn arm_bell(&mut self) {
        let count: *mut u64 = &mut *self.bell_count;
        let token = Token::new(Op::Doorbell, BELL_READ, 0);
        let entry = opcode::Read::new(Fd(self.doorbell.bell().eventfd()), count.cast(), 8).build();
        self.push(&entry.user_data(token.user_data()));
    }

    /// Queues one entry, entering the kernel first if the queue is full. Every submission goes through here.
    #[inline]
    fn push(&mut self, entry: &squeue::Entry) {
        match &mut self.sockets {
            Sockets::Direct => self.queue(entry),
            Sockets::Plain(plain) => {
                let aimed = plain.aimed(entry, self.sq.len());
                self.queue(&aimed);
            }
        }
    }

    #[inline]
    fn queue(&mut self, entry: &squeue::Entry) {
        // SAFETY: every caller's entry points only to memory that this value owns until the operation's completion
        // (addresses of accepts, buffers of receives and sends in their maps, the bell's counter), or that `turn` borrows
        // for sends which complete inside the enter that submits them.
        if unsafe { self.sq.push(entry) }.is_err() {
            // An error marks the ring broken; `turn` reports it.
            let _ = self.enter(Wait::No);
            // SAFETY: as above.
            let pushed = unsafe { self.sq.push(entry) }.is_ok();
            assert!(pushed || self.broken, "a submission queue that was just emptied has room");
        }
    }

    /// Submits everything queued; waits as told. On success nothing is left in the submission queue.
    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        /// Fruitless tries in a row before the ring is given up.
        const TRIES_MAX: u32 = 10_000;
        if self.broken {
            return Err(io::Error::other("the ring failed before"));
        }
        self.buffers.publish();
        self.cq.sync();
        self.sq.sync();
        let timespec;
        let timeout;
        let (min_complete, timeout) = match wait {
            Wait::No => (0, None),
            Wait::Forever => (1, None),
            Wait::Until(deadline) => {
                let left_ns = deadline.saturating_sub(self.now());
                timespec = Timespec::new().sec(left_ns / 1_000_000_000).nsec((left_ns % 1_000_000_000) as u32);
                timeout = SubmitArgs::new().timespec(&timespec);
                (u32::from(left_ns > 0), Some(&timeout))
            }
        };
        let mut tries = 0;
        loop {
            let queued = self.sq.len() as u32;
            #[cfg(test)]
            let queued = queued.min(self.submits_max);
            // What is held is at hand: the kernel, which does not count it, must not wait for more.
            let min_complete = if self.held.is_empty() { min_complete } else { 0 };
            self.stats.enters += 1;
            // SAFETY: the flags match the argument (EXT_ARG exactly when a SubmitArgs is passed), and the memory behind
            // the queued entries is valid, see `push`.
            let entered = unsafe {
                match timeout {
                    Some(args) => {
                        self.submitter.enter(queued, min_complete, ENTER_GETEVENTS | ENTER_EXT_ARG, Some(args))
                    }
                    None => self.submitter.enter::<libc::sigset_t>(queued, min_complete, ENTER_GETEVENTS, None),
                }
            };
            self.sq.sync();
            let left = self.sq.len() as u32;
            match entered {
                Err(error) if !is_passing(&error) => {
                    self.broken = true;
                    return Err(error);
                }
                _ if left == 0 => return Ok(()),
                _ => {}
            }
            // Partly submitted: the kernel was short of memory, or wants completions taken first.
            tries = if left < queued { 0 } else { tries + 1 };
            if tries == TRIES_MAX {
                self.broken = true;
                return Err(io::Error::other("the kernel takes no more submissions"));
            }
            self.cq.sync();
            self.held.extend(&mut *self.cq);
            self.cq.sync();
            if tries > 16 {
                std::thread::yield_now();
            }
        }
    }

    /// Takes all completions off the kernel's queue, those that overflew it included.
    fn hold_completions(&mut self) -> io::Result<()> {
        loop {
            self.cq.sync();
            self.held.extend(&mut *self.cq);
            self.cq.sync();
            if !self.sq.cq_overflow() {
                return Ok(());
            }
            // Makes the kernel move what overflew into the room just made.
            self.enter(Wait::No)?;
        }
    }

    /// Busy-polls for the configured time; true if something came.
    fn spin(&mut self, wait: Wait) -> bool {
        let now = self.now();
        let spin_end = now + self.spin.as_nanos() as u64;
        let end = match wait {
            Wait::No => return true,
            Wait::Forever => spin_end,
            Wait::Until(deadline) => deadline.min(spin_end),
        };
        while self.now() < end {
            self.cq.sync();
            if !self.cq.is_empty() || self.sq.taskrun() {
                return true;
            }
            for _ in 0..32 {
                std::hint::spin_loop();
            }
        }
        false
    }

    /// What an entry of the kernel's queue means to the core; `None` for what concerns only the ring itself.
    #[inline]
    fn translate(&mut self, entry: &cqueue::Entry) -> Option<Completion> {
        let token = Token::from_user_data(entry.user_data())?;
        let flags = entry.flags();
        let result = match entry.result() {
            code if code >= 0 => Ok(code as u32),
            code => Err(-code),
        };
        let mut completion = Completion { token, result, filled: None, more: cqueue::more(flags) };
        match token.op() {
            Op::Recv => {
                if let (Some(buffer), Ok(len)) = (cqueue::buffer_select(flags), result) {
                    let filled = self.buffers.filled(buffer, len, cqueue::buffer_more(flags));
                    if len > 0 {
                        completion.filled = Some(filled);
                    } else {
                        // End of file normally selects no buffer; if it did, the buffer is simply given back.
                        self.buffers.recycle(filled);
                    }
                } else if result == Err(libc::ENOBUFS) {
                    self.buffers.grow();
                }
            }
            Op::SendNow => {}
            Op::Accept => {
                if let Ok(brought) = result {
                    self.sockets.accepted(token.index(), brought);
                    completion.result = Ok(0);
                }
                if let Some(address) = self.accepts.remove(&token.index()) {
                    if result.is_ok() {
                        self.peers.push((token.index(), address.peer()));
                    }
                    self.accept_addresses_free.push(address);
                }
            }
            Op::RecvInto => {
                if let Some((mut buffer, len_max)) = self.receiving.remove(&token.index()) {
                    let fresh = result.map_or(0, |len| (len as usize).min(len_max));
                    // SAFETY: `recv_into` checked that `len_max` bytes of spare capacity lie behind `len`, the kernel
                    // wrote `fresh <= len_max` of them, and the operation is over.
                    unsafe { buffer.set_len(buffer.len() + fresh) };
                    self.received.insert(token.index(), buffer);
                }
            }
            Op::Send => {
                self.sending.remove(&token.index());
            }
            Op::Doorbell => {
                if token.is_of_generation(BELL_READ) {
                    self.arm_bell();
                } else if token.is_of_generation(BELL_SENT) {
                    // The other ring could not take the message: use the way of threads that have no ring.
                    if let Some(doorbell) = self.doorbells.get(token.index() as usize) {
                        doorbell.bell().ring();
                    }
                    return None;
                }
            }
            // Nothing was left to cancel.
            Op::Cancel => return None,
            Op::Connect => {
                self.connecting.remove(&token.index());
            }
            Op::Close => {}
        }
        Some(completion)
    }
}

impl Ring for Uring {
    #[inline]
    fn now(&self) -> Nanos {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn unix_ns(&self) -> u64 {
        // A clock before 1970 was never set.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_nanos() as u64
    }

    fn stats(&self) -> RingStats {
        self.stats
    }

    fn slots(&self) -> u32 {
        self.slots
    }

    fn accept(&mut self, listener: u32, token: Token) {
        let Some(Some(fd)) = self.listeners.get(listener as usize).map(|it| it.as_ref().map(AsRawFd::as_raw_fd)) else {
            unreachable!("listener {listener} of {}, or after its end", self.listeners.len());
        };
        let mut address = self.accept_addresses_free.pop().unwrap_or_else(|| Box::new(AcceptAddress::new()));
        address.reset();
        let storage: *mut libc::sockaddr_storage = &mut address.storage;
        let len: *mut libc::socklen_t = &mut address.len;
        let accept = opcode::Accept::new(Fd(fd), storage.cast(), len);
        let entry = self.sockets.accepting(accept, token.index()).build();
        let former = self.accepts.insert(token.index(), address);
        assert!(former.is_none(), "one accept per slot");
        self.push(&entry.user_data(token.user_data()));
    }

    fn turn_away(&mut self) {
        self.listeners.iter().flatten().for_each(turn_away::turn_away);
    }

    fn stop_accepting(&mut self, listener: u32) {
        let Some(listener) = self.listeners.get_mut(listener as usize).and_then(Option::take) else { return };
        let fd = Fd(listener.as_raw_fd());
        let entry = opcode::AsyncCancel2::new(CancelBuilder::fd(fd).all()).build();
        let token = Token::new(Op::Cancel, 0, 0);
        self.push(&entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(token.user_data()));
        // The cancellation has to see the descriptor: submit before it is closed. An error marks the ring broken.
        let _ = self.enter(Wait::No);
    }

    fn peer(&self, slot: u32) -> Peer {
        self.peers.iter().rev().find(|(of, _)| *of == slot).map_or(Peer::Unix, |(_, peer)| *peer)
    }

    fn connect(&mut self, token: Token, socket: OwnedFd, address: SockAddr) -> io::Result<()> {
        match &mut self.sockets {
            Sockets::Direct => {
                self.submitter.register_files_update(token.index(), &[socket.as_raw_fd()])?;
            }
            Sockets::Plain(plain) => plain.install(token.index(), socket),
        }
        let address = Box::new(address);
        let entry = opcode::Connect::new(Fixed(token.index()), address.as_ptr().cast(), address.len()).build();
        let former = self.connecting.insert(token.index(), address);
        assert!(former.is_none(), "one connect per slot");
        self.push(&entry.user_data(token.user_data()));
        Ok(())
    }

    #[inline]
    fn recv_at_most(&mut self, token: Token, bytes_max: u32) {
        let bytes_max = if self.bounds_receives { bytes_max } else { 0 };
        self.push(&bounded_recv(token.index(), bytes_max).user_data(token.user_data()));
    }

    fn bounds_receives(&self) -> bool {
        self.bounds_receives
    }

    fn recv_into(&mut self, token: Token, buffer: Vec<u8>, len_max: usize) {
        let entry = self.single_receive(token, buffer, len_max, 0);
        self.push(&entry);
    }

    fn recv_into_now(&mut self, token: Token, buffer: Vec<u8>, len_max: usize) {
        let entry = self.single_receive(token, buffer, len_max, libc::MSG_DONTWAIT);
        self.after_sends.push(entry);
    }

    fn take_received(&mut self, token: Token) -> Vec<u8> {
        self.received.remove(&token.index()).unwrap_or_default()
    }

    fn send(&mut self, token: Token, data: Bytes) {
        assert!(!data.is_empty(), "a send needs bytes");
        assert!(data.len() <= SEND_BYTES_MAX, "a send of {} bytes, more than {SEND_BYTES_MAX}", data.len());
        let entry = opcode::Send::new(Fixed(token.index()), data.as_ptr(), data.len() as u32)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build();
        // The bytes stay in the map, and so alive and in place, until completion.
        let former = self.sending.insert(token.index(), data);
        assert!(former.is_none(), "one send per slot");
        self.push(&entry.user_data(token.user_data()));
    }

    fn cancel_recv(&mut self, token: Token) {
        let entry = opcode::AsyncCancel::new(token.user_data()).build();
        let token = Token::new(Op::Cancel, 0, token.index());
        self.push(&entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(token.user_data()));
    }

    fn cancel(&mut self, token: Token) {
        let builder = self.sockets.cancellation(token.index());
        let token = Token::new(Op::Cancel, 0, token.index());
        let entry = opcode::AsyncCancel2::new(builder).build();
        self.push(&entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(token.user_data()));
    }

    fn close(&mut self, token: Token) {
        let entry = self.sockets.close(token.index());
        self.push(&entry.user_data(token.user_data()));
    }

    fn ring_doorbell(&mut self, core: usize) {
        let Some(doorbell) = self.doorbells.get(core) else { return };
        let arrives_as = Token::new(Op::Doorbell, 0, 0).user_data();
        let entry = opcode::MsgRingData::new(Fd(doorbell.ring_fd()), 0, arrives_as, None).build();
        let token = Token::new(Op::Doorbell, BELL_SENT, core as u32);
        self.push(&entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(token.user_data()));
    }

    fn turn<'a>(&mut self, batch: impl Iterator<Item = BatchSend<'a>>, wait: Wait) -> io::Result<()> {
        self.peers.clear();
        let chunk = SENDS_PER_ENTER.min(self.sq.capacity());
        let mut sends = 0;
        for send in batch {
            if sends == chunk || self.vectors.are_used_up() {
                self.enter(Wait::No)?;
                // Room in the completion queue for the next chunk's failures.
                self.hold_completions()?;
                self.vectors.reuse();
                sends = 0;
            }
            // The caller keeps its bytes borrowed until the next enter has returned.
            let entry = self.vectors.entry(&send);
            self.push(&entry);
            sends += 1;
        }
        let mut after_sends = std::mem::take(&mut self.after_sends);
        after_sends.drain(..).for_each(|entry| self.push(&entry));
        self.after_sends = after_sends;
        // With completions at hand there is nothing to wait for.
        self.cq.sync();
        let wait = if self.cq.is_empty() && self.held.is_empty() { wait } else { Wait::No };
        let nothing_to_submit = sends == 0 && self.sq.is_empty();
        if wait == Wait::No && nothing_to_submit && !self.sq.taskrun() && !self.sq.cq_overflow() {
            self.buffers.publish();
            return Ok(());
        }
        let entered = if self.spin.is_zero() || wait == Wait::No {
            self.enter(wait)
        } else {
            self.enter(Wait::No).and_then(|()| {
                let wait = if self.spin(wait) { Wait::No } else { wait };
                self.enter(wait)
            })
        };
        self.vectors.reuse();
        if entered.is_ok() && self.sq.cq_overflow() {
            self.stats.overflows += 1;
            self.hold_completions()?;
        }
        // Here every send of the batch has been consumed by an enter (or the ring is broken and will never consume
        // it). MSG_DONTWAIT makes such a send complete while it is submitted, so the borrow of `batch` may end.
        self.cq.sync();
        entered
    }

    #[inline]
    fn completion(&mut self) -> Option<Completion> {
        loop {
            let entry = match self.held.pop_front() {
                Some(entry) => entry,
                None => self.cq.next()?,
            };
            self.stats.completions += 1;
            if let Some(completion) = self.translate(&entry) {
                return Some(completion);
            }
        }
    }

    #[inline]
    fn buffer(&mut self, filled: &Filled) -> &mut [u8] {
        self.buffers.slice(filled)
    }

    #[inline]
    fn recycle(&mut self, filled: Filled) {
        self.buffers.recycle(filled);
    }

    fn release_memory(&mut self) {
        self.cq.sync();
        let unseen = !self.cq.is_empty() || !self.held.is_empty() || self.sq.cq_overflow();
        self.buffers.release(unseen);
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // Whatever is in flight may still write to memory owned here: cancel it and wait for the cancellation.
        let deadline = Some(Timespec::new().sec(5));
        let idle = match self.submitter.register_sync_cancel(deadline, CancelBuilder::any().all()) {
            Ok(()) => true,
            Err(error) => error.raw_os_error() == Some(libc::ENOENT),
        };
        // What was cancelled completes in task work, which runs here, while its memory is valid. Nothing is submitted.
        // SAFETY: no argument is passed, as the flags say.
        let _ = unsafe { self.submitter.enter::<libc::sigset_t>(0, 0, ENTER_GETEVENTS, None) };
        self.end_sockets(idle);
        // No buffer can be picked any more, and the kernel forgets where they are.
        let has_no_buffers = self.submitter.unregister_buf_ring(BUFFER_GROUP).is_ok();
        // A registered descriptor keeps the ring until the thread ends.
        let _ = self.submitter.unregister_ring_fd();
        // SAFETY: the three parts are dropped once, here, and before the ring that they borrow from; the box is the one
        // that `new` leaked.
        unsafe {
            ManuallyDrop::drop(&mut self.cq);
            ManuallyDrop::drop(&mut self.sq);
            ManuallyDrop::drop(&mut self.submitter);
            drop(Box::from_raw(self.ring.as_ptr()));
        }
        if idle && has_no_buffers {
            // SAFETY: dropped once, here. Nothing is in flight any more that could write to a buffer or read a header, and
            // nothing can be submitted: the queues are gone with `ring`. The buffer ring was taken from the kernel, so that
            // it knows neither mapping, even where another core's `Doorbell` keeps the ring itself open.
            unsafe {
                ManuallyDrop::drop(&mut self.buffers);
                ManuallyDrop::drop(&mut self.vectors);
            }
        } else {
            // The kernel would not say that it is done: leak what it may still touch, which is sound.
            std::mem::forget(std::mem::take(&mut self.accepts));
            std::mem::forget(std::mem::take(&mut self.connecting));
            std::mem::forget(std::mem::take(&mut self.receiving));
            std::mem::forget(std::mem::take(&mut self.sending));
            std::mem::forget(std::mem::take(&mut self.bell_count));
        }
    }
}

/// Whether an enter's error means "try again".
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN))
}
