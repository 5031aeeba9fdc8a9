//! The only io_uring code. It moves bytes between slots and the kernel; it knows no WebSocket.
//!
//! [`Ring`] is what a core asks of its ring; [`uring::Uring`] is the kernel's, `sim` a seeded fake with faults and a
//! virtual clock, which only tests and the feature `testing` have. A slot is a connection's place in its core: its index in every table of the core and its index in the
//! ring's table of direct descriptors are the same number, chosen by the core.
//!
//! Order of calls in one tick: any number of `accept`, `recv`, `send`, `close` … queue operations; one [`Ring::turn`]
//! submits them together with the tick's batch of sends and waits; [`Ring::completion`] until `None` takes the results;
//! each received buffer is read by [`Ring::buffer`] and given back by [`Ring::recycle`], in the order in which they came: in the
//! same tick or a little later.
//!
//! Knows of this crate: `tables`.

pub mod bell;
pub mod buffers;
#[cfg(feature = "nats")]
pub mod chime;
pub mod listener;
#[cfg(any(test, feature = "testing"))]
pub mod sim;
pub mod slots;
pub mod token;
pub mod uring;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use socket2::SockAddr;

pub use slots::{Key, Slots};
pub use token::{Generations, Op, Token};

/// Nanoseconds on the ring's monotonic clock; its zero is the ring's own start.
pub type Nanos = u64;

/// Who is at the other end of an accepted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP peer.
    Inet(SocketAddr),
    /// A peer on a Unix socket: it has no address.
    Unix,
}

/// Where the sockets of a ring's slots are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptors {
    /// In the ring's own table, at the slot's number: the process has no descriptors of them.
    Direct,
    /// Among the process's descriptors, with a table from slot to descriptor in the ring.
    Plain,
}

impl Descriptors {
    /// The way that serves on a kernel that [closes late](uring::closes_late), or not: a socket that is closed must end for
    /// its peer, whatever other connections do.
    pub fn suiting(closes_late: bool) -> Descriptors {
        if closes_late { Descriptors::Plain } else { Descriptors::Direct }
    }
}

/// How [`Ring::turn`] waits once everything is submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: reap what is there.
    No,
    /// Until a completion arrives.
    Forever,
    /// Until a completion arrives or the clock shows this time.
    Until(Nanos),
}

/// A stretch of a provided buffer that a receive filled: the right to its bytes, until [`Ring::recycle`] takes it back.
///
/// Only a ring makes one, once for each stretch, and it is no copy of another: so no stretch is given back twice, and none is
/// looked at after it was. Dropped instead, its buffer is lost to the ring.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "its buffer is lost unless it is recycled"]
pub struct Filled(Extent);

impl Filled {
    /// Bytes in the stretch; never 0.
    #[inline]
    pub fn byte_count(&self) -> u32 {
        self.0.len
    }
}

/// Where a stretch is: what rings, which lend and take back, know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    /// The buffer's number in its ring.
    buffer: u16,
    /// First byte of the stretch in that buffer.
    offset: u32,
    len: u32,
    /// Whether the kernel is done with the buffer: giving this stretch back gives the whole buffer back.
    last: bool,
}

/// One result from the ring.
#[derive(Debug)]
pub struct Completion {
    /// The operation it answers.
    pub token: Token,
    /// What the operation returned: a count (bytes, or what the operation says), or the positive errno.
    pub result: Result<u32, i32>,
    /// Data of a [`Op::Recv`]. Present data must be recycled whatever the result and the generation say.
    pub filled: Option<Filled>,
    /// Whether the operation is still armed. False ends a multishot receive, with or without data.
    pub more: bool,
}

/// Why a receive is not armed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvEnd {
    /// For no reason of the connection's: it is to be armed again, if more is wanted.
    Interrupted,
    /// There was no buffer.
    NoBuffers,
    /// The peer has finished sending.
    EndOfFile,
    /// The connection broke, with this errno.
    Failed(i32),
}

impl Completion {
    /// Why the receive has ended whose last completion this is.
    #[inline]
    pub fn recv_end(&self) -> RecvEnd {
        match self.result {
            // Data without F_MORE: the kernel ended the multishot for its own reasons.
            Ok(_) if self.filled.is_some() => RecvEnd::Interrupted,
            Ok(_) => RecvEnd::EndOfFile,
            Err(libc::ENOBUFS) => RecvEnd::NoBuffers,
            Err(libc::ECANCELED | libc::EINTR | libc::EAGAIN) => RecvEnd::Interrupted,
            Err(errno) => RecvEnd::Failed(errno),
        }
    }

    /// How much a send of the batch has sent that was not sent whole; or the connection's error.
    #[inline]
    pub fn sent(&self) -> Result<usize, i32> {
        match self.result {
            Ok(sent) => Ok(sent as usize),
            Err(libc::EAGAIN) => Ok(0),
            Err(errno) => Err(errno),
        }
    }
}

/// A send of the tick's batch: bytes lent for the duration of [`Ring::turn`].
#[derive(Clone, Copy, Debug)]
pub struct BatchSend<'a> {
    /// Names slot and generation; its op is [`Op::SendNow`].
    pub token: Token,
    /// The pieces to send, in order, as one message of bytes. At most [`BATCH_PIECES_MAX`]; of more than
    /// [`SEND_BYTES_MAX`] bytes only those are sent, which is a short send.
    pub pieces: Pieces<'a>,
}

/// Bytes of a [`BatchSend`].
#[derive(Clone, Copy, Debug)]
pub enum Pieces<'a> {
    /// One stretch of bytes.
    One(&'a [u8]),
    /// Several, sent by one vectored operation.
    Many(&'a [Bytes]),
}

/// What a ring has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingStats {
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Completions taken, those that concern only the ring itself included.
    pub completions: u64,
    /// Times that the completion queue overflowed.
    pub overflows: u64,
}

/// Most pieces that one [`BatchSend`] may have.
pub const BATCH_PIECES_MAX: usize = 64;
/// Most bytes that one operation moves. The kernel cuts what is longer at `INT_MAX`, rounded down to whole pages, of which
/// the largest that Linux knows have 64 KiB.
pub const SEND_BYTES_MAX: usize = 0x7fff_0000;

/// What a core asks of its ring. Queued operations take effect at the next [`Ring::turn`] at the latest.
///
/// A slot must be free of operations before it is reused; the ring does not check it.
pub trait Ring {
    /// The clock.
    fn now(&self) -> Nanos;

    /// The time of day, in nanoseconds since the beginning of 1970. It may jump.
    fn unix_ns(&self) -> u64;

    /// What it has done so far.
    fn stats(&self) -> RingStats;

    /// How many slots the table of direct descriptors has.
    fn slots(&self) -> u32;

    /// Accepts one connection from listener number `listener` into the slot that `token` names.
    /// Completes with `Ok(_)`; [`Ring::peer`] then tells who it is.
    fn accept(&mut self, listener: u32, token: Token);

    /// From now on TCP listeners take no new connection: a client that asks for one is not answered and asks again, of
    /// whoever listens then. What is in their queues, and whose handshake has begun, is still accepted.
    fn turn_away(&mut self);

    /// Ends accepting from listener number `listener` for good: cancels its accepts in flight (each completes with `ECANCELED`,
    /// or with a connection that came first) and closes it. Once more is nothing.
    fn stop_accepting(&mut self, listener: u32);

    /// The peer of the connection last accepted into `slot`. Valid from the accept's completion until the next
    /// [`Ring::turn`].
    fn peer(&self, slot: u32) -> Peer;

    /// Connects `socket`, which is in blocking mode, to `address`, as the descriptor of the token's slot. Completes with
    /// `Ok(0)` or the connection's error; in both cases the slot then has a descriptor to close.
    ///
    /// # Errors
    /// If the socket could not be made the slot's descriptor: nothing is in flight then.
    fn connect(&mut self, token: Token, socket: OwnedFd, address: SockAddr) -> io::Result<()>;

    /// Arms a multishot receive on the token's slot. Each completion carries data in provided buffers, until one says
    /// that no `more` follow: at end of file (`Ok(0)`), on an error, or because the kernel ended it with data.
    fn recv(&mut self, token: Token) {
        self.recv_at_most(token, 0);
    }

    /// As [`Ring::recv`], but where the ring [can](Ring::bounds_receives) it ends, with data, once it has brought
    /// `bytes_max` bytes, or up to a buffer more; 0 = no bound.
    fn recv_at_most(&mut self, token: Token, bytes_max: u32);

    /// Whether [`Ring::recv_at_most`] knows a bound (Linux 6.17).
    fn bounds_receives(&self) -> bool;

    /// Receives once, at most `len_max` bytes, appended to `buffer` (within its spare capacity, which must not be 0).
    /// The completion's count was appended; [`Ring::take_received`] gives the buffer back.
    fn recv_into(&mut self, token: Token, buffer: Vec<u8>, len_max: usize);

    /// As [`Ring::recv_into`], but receives what is there when the next turn has made its sends, and completes within that
    /// turn: with EAGAIN if nothing was there.
    fn recv_into_now(&mut self, token: Token, buffer: Vec<u8>, len_max: usize);

    /// The buffer of a completed [`Ring::recv_into`]; must be taken once, when its completion is seen.
    fn take_received(&mut self, token: Token) -> Vec<u8>;

    /// Sends all of `data`, waiting for room as long as it takes: for what a batch send could not. At most one per slot, and
    /// at most [`SEND_BYTES_MAX`].
    /// Completes with the count sent, short only if the connection failed or the operation was cancelled.
    fn send(&mut self, token: Token, data: Bytes);

    /// Cancels the multishot receive that `token` names and nothing else of its slot; it still completes.
    fn cancel_recv(&mut self, token: Token);

    /// Cancels every operation in flight on the token's slot; each of them still completes.
    fn cancel(&mut self, token: Token);

    /// Closes the slot's descriptor. Operations in flight hold the socket open: cancel them first.
    fn close(&mut self, token: Token);

    /// Gives memory that was touched once and holds nothing now back to the system: that of receive buffers. Whoever asks
    /// expects little to come soon.
    fn release_memory(&mut self) {}

    /// Wakes core number `core`, if it sleeps.
    fn ring_doorbell(&mut self, core: usize);

    /// Submits everything queued, then the batch, then waits as `wait` says. When it returns, every send of the batch
    /// has been tried exactly once, and has a completion waiting if it was not sent whole: `Ok(n)` for a short one,
    /// `Err(EAGAIN)` where the socket had no room at all, or the connection's error. No send of the batch is in flight.
    ///
    /// # Errors
    /// Only when the ring itself is beyond use; the core cannot go on.
    fn turn<'a>(&mut self, batch: impl Iterator<Item = BatchSend<'a>>, wait: Wait) -> io::Result<()>;

    /// The next completion, in the kernel's order.
    fn completion(&mut self) -> Option<Completion>;

    /// The next completion of a send of the batch; those before it, or all if there is none, go to `others`. Together they
    /// are all that [`Ring::completion`] has.
    #[inline]
    fn failed_send(&mut self, others: &mut Vec<Completion>) -> Option<Completion> {
        while let Some(completion) = self.completion() {
            if completion.token.op() == Op::SendNow {
                return Some(completion);
            }
            others.push(completion);
        }
        None
    }

    /// The bytes of a received stretch, to read or to unmask in place.
    fn buffer(&mut self, filled: &Filled) -> &mut [u8];

    /// Gives a received stretch back, to the ring that it came from.
    fn recycle(&mut self, filled: Filled);
}
