//! What a core knows of one connection. Small, because a server holds mostly idle ones: whatever only some connections
//! need is behind a pointer.

use bytes::Bytes;

use crate::hub::CompactPeer;
use crate::metrics::Side;
use crate::proto::OwnedPayload;
use crate::proto::handshake;
use crate::proto::http::{BodyDecoder, RequestHead};
use crate::proto::{Kind, Machine, Role};
use crate::shard::service::{Answer, Ended};

/// Where a connection is in its life. [`Conn::turn_to`] is the only way from one to the next.
///
/// ```text
///              turn has come            upgrade          we say Close, or the
///  Accepting ----> Delayed ----> Http ----------> Open ---- peer has failed ---> Closing
///      |  |                     ^  |               |                                |
///      |  '-- accepted at once -'  | last answer,  | the peer has said Close,       | so it has
///      |                           | end of file   | or sends no more               |
///      |  turned away              v               v                                v
///      '------------------------> Flushing <----------------------------------------'
///                                    | all is sent, or time is up
///                                    v
///  from Delayed, Http,  ---------> Dead ---- nothing is in flight any more ----> (the place is free)
///  Open, Closing: the connection
///  broke, or its time is up
/// ```
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

impl Phase {
    /// The arrows of the picture; a connection that closes may do so for one more reason.
    fn may_become(self, next: Phase) -> bool {
        match self {
            Phase::Accepting => matches!(next, Phase::Delayed | Phase::Http | Phase::Flushing),
            Phase::Delayed => matches!(next, Phase::Http | Phase::Dead),
            Phase::Http => matches!(next, Phase::Open | Phase::Flushing | Phase::Dead),
            Phase::Open => matches!(next, Phase::Closing | Phase::Flushing | Phase::Dead),
            Phase::Closing => matches!(next, Phase::Closing | Phase::Flushing | Phase::Dead),
            Phase::Flushing => matches!(next, Phase::Flushing | Phase::Dead),
            Phase::Dead => false,
        }
    }
}

/// What a connection's input waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// What is queued to this connection has to be sent, or its task to take the messages that it has.
    Outbox,
    /// Letters to other cores have to be delivered.
    Mail,
    /// The request before it has to be answered.
    Answer,
    /// Other connections' input has to be handled: it may be much once it is decompressed.
    Inflating,
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
    /// Why its input is held back, if it is: see `stash`.
    pub(super) waits_for: Option<WaitsFor>,
    /// Its last message was received straight into its buffer: so will the next one be, perhaps.
    pub(super) had_bulk: bool,
    /// On the list of connections to look at when their outbox is empty.
    pub(super) watched: bool,
    /// Entered into hub and admission.
    pub(super) entered: bool,
    /// Counted by its address as a connection that is no WebSocket yet.
    pub(super) counted: bool,
    /// It is to begin with a header of the PROXY protocol, and has not yet.
    pub(super) awaits_proxy: bool,
    /// What has come behind that header, in the stash, is TLS.
    pub(super) begins_tls: bool,
    /// It has begun with one.
    pub(super) relayed: bool,
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

/// What of a connection's input waits, in this order: a message or a request, and the bytes behind it.
#[derive(Default)]
pub(super) struct Stash {
    /// A complete message that is held back.
    pub(super) message: Option<(Kind, OwnedPayload)>,
    /// A request that is not complete, or not answered.
    pub(super) request: Option<Box<Unanswered>>,
    pub(super) bytes: Vec<u8>,
    /// How many of the bytes have been handled: what is behind them stays where it is as long as nothing comes behind it.
    pub(super) handled: usize,
    /// How far the bytes have been searched for the end of a head.
    pub(super) searched: usize,
}

/// A request on its way to its answer.
pub(super) struct Unanswered {
    /// Its head, as it was sent.
    pub(super) head: Vec<u8>,
    pub(super) manner: Manner,
    /// When its head was complete.
    pub(super) since_ns: u64,
    pub(super) stage: Stage,
}

/// What of a request's head its response depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manner {
    /// Another request may follow on the connection.
    pub(super) keeps_alive: bool,
    /// It asks for an upgrade to WebSocket, rightly or not.
    pub(super) is_upgrade: bool,
    /// It is answered without content.
    pub(super) head_only: bool,
}

impl Manner {
    pub(super) fn of(head: &RequestHead<'_>) -> Manner {
        Manner {
            keeps_alive: head.keep_alive(),
            is_upgrade: handshake::is_attempt(head),
            head_only: head.method() == "HEAD",
        }
    }
}

/// How far a request has come.
pub(super) enum Stage {
    /// More of its body is to come.
    Body {
        decoder: BodyDecoder,
        received: Vec<u8>,
        /// When its time was last looked at, in nanoseconds, and how many bytes of the body were there.
        seen: (u64, usize),
    },
    /// It is complete, with this body, and waits to be handled.
    Complete(Bytes),
    /// Its handler is at work, with so many bytes of the body.
    Handled(usize),
    /// Its handler has decided, and what it has decided waits to be done.
    Answered(Answer),
}

impl Stash {
    /// Bytes of heap that it holds.
    pub(super) fn memory_bytes(&self) -> usize {
        let message = self.message.as_ref().map_or(0, |(_, payload)| payload.len());
        let request = self.request.as_ref().map_or(0, |request| {
            let body = match &request.stage {
                Stage::Body { received, .. } => received.capacity(),
                Stage::Complete(body) => body.len(),
                Stage::Handled(bytes) => *bytes,
                Stage::Answered(_) => 0,
            };
            size_of::<Unanswered>() + request.head.capacity() + body
        });
        size_of::<Stash>() + message + self.bytes.capacity() + request
    }

    /// Puts more behind the bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.handled));
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether any of a request is there: an empty line before it is nothing (RFC 9112 2.2).
    pub(super) fn has_request(&self) -> bool {
        self.request.is_some() || has_begun(&self.bytes[self.handled..])
    }
}

/// Whether a head has begun within these bytes.
pub(super) fn has_begun(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
}

impl Conn {
    pub(super) fn accepting(listener: u8) -> Conn {
        Conn {
            machine: Machine::new(Role::Server),
            phase: Phase::Accepting,
            receiving: Receiving::Idle,
            waits_for: None,
            had_bulk: false,
            watched: false,
            entered: false,
            counted: false,
            awaits_proxy: false,
            begins_tls: false,
            relayed: false,
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

    /// Goes on to another phase.
    #[inline]
    pub(super) fn turn_to(&mut self, next: Phase) {
        debug_assert!(self.phase.may_become(next), "{:?} -> {next:?}", self.phase);
        self.phase = next;
    }

    /// Whether it has been answered and has not begun to ask again.
    pub(super) fn is_between_requests(&self) -> bool {
        self.answered && self.waits_for.is_none() && !self.has_request()
    }

    /// Whether any of a request is there that has not been answered.
    pub(super) fn has_request(&self) -> bool {
        self.stash.as_ref().is_some_and(|stash| stash.has_request())
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
