//! What is in flight: operations that the fake kernel has taken and not completed.

use bytes::Bytes;

use crate::engine::{Nanos, Token};

use super::faults::Fault;
use super::net::Net;

/// Keeps back something that is ready, where chance wants it so. Chance is asked once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hold {
    pub(super) asked: bool,
    pub(super) until: Nanos,
}

impl Hold {
    pub(super) fn passes(&mut self, net: &mut Net) -> bool {
        if !self.asked {
            self.asked = true;
            if net.hit(Fault::Postponed) {
                self.until = net.later();
            }
        }
        self.until <= net.now
    }
}

/// A connection being made.
pub(super) struct ConnectOp {
    pub(super) token: Token,
    /// Its place among all operations of the ring.
    pub(super) number: u64,
    pub(super) hold: Hold,
    pub(super) cancelled: Option<Cancelled>,
}

/// An armed multishot receive.
pub(super) struct RecvOp {
    pub(super) token: Token,
    /// Its place among all operations of the ring.
    pub(super) number: u64,
    /// Bytes that it may still bring.
    pub(super) left: usize,
    pub(super) hold: Hold,
    pub(super) cancelled: Option<Cancelled>,
}

/// A single-shot receive.
pub(super) struct RecvIntoOp {
    pub(super) token: Token,
    /// Its place among all operations of the ring.
    pub(super) number: u64,
    pub(super) buffer: Vec<u8>,
    pub(super) len_max: usize,
    pub(super) waits: bool,
    pub(super) hold: Hold,
    pub(super) cancelled: Option<Cancelled>,
}

/// An asynchronous send.
pub(super) struct SendOp {
    pub(super) token: Token,
    /// Its place among all operations of the ring.
    pub(super) number: u64,
    pub(super) data: Bytes,
    pub(super) sent: usize,
    pub(super) hold: Hold,
    pub(super) cancelled: Option<Cancelled>,
}

/// A socket whose descriptor was closed, on its way to its end.
pub(super) struct Closed {
    pub(super) socket: usize,
    /// The close's place among all operations of the ring.
    pub(super) number: u64,
    pub(super) at: Nanos,
    /// Turns since it should have ended.
    pub(super) late_turns: u32,
}

impl Closed {
    /// Whether it was closed ten times as long ago as anything is delayed.
    pub(super) fn is_overdue(&self, net: &Net) -> bool {
        self.at + 10 * net.faults.delay_ns_max < net.now
    }
}

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Closed { socket, number, at, .. } = self;
        write!(f, "socket {socket}, closed by operation {number} at {at} ns, has not ended for its peer")
    }
}

/// When a cancelled operation ends, and whether it does some work before.
#[derive(Clone, Copy)]
pub(super) struct Cancelled {
    pub(super) at: Nanos,
    pub(super) works: bool,
}

/// When an operation has something to do: `ready` says whether its socket lets it.
pub(super) fn due(hold: Hold, cancelled: Option<Cancelled>, ready: bool) -> Option<Nanos> {
    match cancelled {
        Some(cancelled) => Some(cancelled.at),
        None => ready.then_some(hold.until),
    }
}
