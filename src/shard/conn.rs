//! What a core knows of one connection. Small, because a server holds mostly idle ones: whatever only some connections
//! need is behind a pointer.

use crate::hub::CompactPeer;
use crate::metrics::Side;
use crate::proto::OwnedPayload;
use crate::proto::http::BodyDecoder;
use crate::proto::{Kind, Machine, Role};
use crate::shard::service::Ended;

/// Where a connection is in its life. Transitions only go down the list, except that `Http` may become `Flushing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// An accept into this slot is in flight.
    Accepting,
    /// Accepted, and waits its turn by the accept rate.
    Delayed,
    /// Reading request heads.
    Http,
    /// A WebSocket.
    Open,
    /// A WebSocket that was sent Close, and waits for the peer's.
    Closing,
    /// Closes once everything queued is sent. Input is ignored.
    Flushing,
    /// Cancelled and closed; waits for its operations to complete.
    Dead,
}

/// What receives for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    /// Nothing.
    Idle,
    /// A multishot receive.
    Multi,
    /// A multishot receive that is being cancelled: because the input is held back, or because much of one message is
    /// to come.
    Stopping,
    /// Nothing, until it is its turn to receive what is there of a large message.
    Queued,
    /// A single receive of what is there, straight into the buffer of the message that is coming.
    Bulk,
    /// The same, which waits for something to be there.
    Direct,
}

pub(super) struct Conn {
    pub(super) machine: Machine,
    pub(super) phase: Phase,
    pub(super) receiving: Receiving,
    /// Operations whose completion is still to come.
    pub(super) in_flight: u8,
    /// Input is held back: see `stash`.
    pub(super) paused: bool,
    /// Its last message was received straight into its buffer: so will the next one be, perhaps.
    pub(super) had_bulk: bool,
    /// On the list of connections to look at when their outbox is empty.
    pub(super) watched: bool,
    /// Its request is being answered: nothing else of it is handled.
    pub(super) awaits_answer: bool,
    /// Entered into hub and admission.
    pub(super) entered: bool,
    /// The peer has finished sending.
    pub(super) peer_finished: bool,
    /// At least one request has been answered on it.
    pub(super) answered: bool,
    /// While flushing: the peer may still be sending what we refused. Closing at once would reset the connection, and the
    /// reset could overtake our answer.
    pub(super) lingers: bool,
    /// Its deadline holds even while it reads what is queued.
    pub(super) hurried: bool,
    /// What it holds of messages and requests that are incomplete or held back, as last counted.
    pub(super) held_bytes: u32,
    /// The listener it came from.
    pub(super) listener: u8,
    pub(super) peer: CompactPeer,
    /// Milliseconds on the core's clock.
    pub(super) last_inbound_ms: u64,
    /// The phase's own deadline.
    pub(super) deadline_ms: u64,
    /// When timers look at it next.
    pub(super) look_at_ms: u64,
    /// Earliest time at which the message rate allows the next message (GCRA's theoretical arrival time).
    pub(super) rate_due_ns: u64,
    /// Received and not consumed: a partial request head, or input that is held back.
    pub(super) stash: Option<Box<Stash>>,
    /// How it ended, once that is certain.
    pub(super) ended: Option<Box<Ended>>,
}

#[derive(Default)]
pub(super) struct Stash {
    /// A complete message that is held back, before the bytes.
    pub(super) message: Option<(Kind, OwnedPayload)>,
    pub(super) bytes: Vec<u8>,
    /// How far the bytes have been searched for the end of a head.
    pub(super) searched: usize,
    /// A request that is not complete, or not answered.
    pub(super) request: Option<Box<Unanswered>>,
}

/// A request on its way to its answer.
pub(super) struct Unanswered {
    /// Its head, as it was sent.
    pub(super) head: Vec<u8>,
    /// Reads the rest of its body; `None` when it is complete and the answer is awaited.
    pub(super) body: Option<BodyDecoder>,
    pub(super) received: Vec<u8>,
    /// When its time was last looked at, in nanoseconds, and how many bytes of the body were there.
    pub(super) seen: (u64, usize),
    /// Bytes of the body that the handler has now.
    pub(super) handled_bytes: usize,
}

impl Stash {
    /// Bytes of heap that it holds.
    pub(super) fn memory_bytes(&self) -> usize {
        let message = self.message.as_ref().map_or(0, |(_, payload)| payload.len());
        let request = self
            .request
            .as_ref()
            .map_or(0, |request| request.head.capacity() + request.received.capacity() + request.handled_bytes);
        size_of::<Stash>() + message + self.bytes.capacity() + request
    }
}

impl Conn {
    pub(super) fn accepting(listener: u8) -> Conn {
        Conn {
            machine: Machine::new(Role::Server),
            phase: Phase::Accepting,
            receiving: Receiving::Idle,
            in_flight: 1,
            paused: false,
            had_bulk: false,
            watched: false,
            awaits_answer: false,
            entered: false,
            peer_finished: false,
            answered: false,
            lingers: false,
            hurried: false,
            held_bytes: 0,
            listener,
            peer: CompactPeer::default(),
            last_inbound_ms: 0,
            deadline_ms: u64::MAX,
            look_at_ms: u64::MAX,
            rate_due_ns: 0,
            stash: None,
            ended: None,
        }
    }

    /// Whether it holds anything that counts, or did when that was last counted.
    #[inline]
    pub(super) fn holds(&self) -> bool {
        self.held_bytes != 0 || self.stash.is_some() || self.machine.memory_bytes() != 0
    }

    /// Notes how it ends, unless that is certain already.
    pub(super) fn end(&mut self, code: u16, reason: &str, by: Side) {
        self.ended.get_or_insert_with(|| Box::new(Ended { code, reason: reason.to_owned(), clean: false, by }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Conn>() <= 144, "{}", size_of::<Conn>());
    }
}
