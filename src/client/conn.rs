//! What the client thread knows of one connection.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;

use super::error::ClientError;
use super::line::{Ended, LineEnd};
use super::order::Order;
use super::out::Out;
use super::seal::Seal;
use crate::proto::{Machine, Role};

/// Where a connection is in its life. Transitions only go down the list, except that a failed `Connecting` goes through
/// `Retrying` to the next address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its name is being resolved; it has no descriptor.
    Resolving,
    /// Its descriptor, whose connection failed, is being closed; there are more addresses.
    Retrying,
    /// A connect is in flight.
    Connecting,
    /// The request is sent, the answer incomplete.
    Handshaking,
    /// The answer is no; its body is being read.
    Refused,
    /// A WebSocket.
    Open,
    /// It was sent Close, and waits for the server's.
    Closing,
    /// Everything is said; closes when it is sent and the server has closed (RFC 6455 7.1.1), or shortly after.
    Flushing,
    /// Cancelled and closed; waits for its operations to complete.
    Dead,
}

/// What receives for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    Idle,
    Multi,
    /// Being cancelled, because the input is held back.
    Stopping,
}

pub(super) struct Conn {
    pub(super) line: LineEnd,
    pub(super) order: Box<Order>,
    pub(super) machine: Machine,
    /// Of `wss://`.
    pub(super) tls: Option<Box<Seal>>,
    pub(super) phase: Phase,
    pub(super) receiving: Receiving,
    /// There is a descriptor in its slot.
    pub(super) has_descriptor: bool,
    /// On the list of connections that may have something to send.
    pub(super) dirty: bool,
    /// A waiting send is in flight: nothing else may be sent.
    pub(super) sending: bool,
    /// More is in the line's queue than one send carries.
    pub(super) has_more: bool,
    /// Input is held back in `stash`.
    pub(super) paused: bool,
    /// The server has finished sending: 0, or the errno that it finished with.
    pub(super) finished: Option<i32>,
    /// Users know of the end.
    pub(super) told: bool,
    /// What is being sent.
    pub(super) out: Out,
    /// The part of it that the waiting send has.
    pub(super) piece: Bytes,
    /// The head of the answer while handshaking; later, input that is held back.
    pub(super) stash: Vec<u8>,
    /// Addresses to try, the next one last.
    pub(super) addresses: Vec<SocketAddr>,
    /// Why the last address failed.
    pub(super) failure: Option<ClientError>,
    pub(super) opened_ns: Option<u64>,
    pub(super) last_inbound_ns: u64,
    /// A ping was sent then, and nothing has come since.
    pub(super) pinged_ns: Option<u64>,
    /// The phase's own deadline.
    pub(super) deadline_ns: u64,
    /// The deadline of this attempt to connect.
    pub(super) attempt_ns: u64,
    /// When timers look at it next.
    pub(super) look_at_ns: u64,
    /// How it ended, once that is certain.
    pub(super) ended: Option<Ended>,
}

impl Conn {
    pub(super) fn new(line: LineEnd, mut order: Box<Order>, deadline_ns: u64) -> Conn {
        let tls = order.session.take().map(|session| Box::new(Seal::new(session)));
        Conn {
            line,
            order,
            tls,
            machine: Machine::new(Role::Client),
            phase: Phase::Resolving,
            receiving: Receiving::Idle,
            has_descriptor: false,
            dirty: false,
            sending: false,
            has_more: false,
            paused: false,
            finished: None,
            told: false,
            out: Out::default(),
            piece: Bytes::new(),
            stash: Vec::new(),
            addresses: Vec::new(),
            failure: None,
            opened_ns: None,
            last_inbound_ns: 0,
            pinged_ns: None,
            deadline_ns,
            attempt_ns: u64::MAX,
            look_at_ns: u64::MAX,
            ended: None,
        }
    }

    /// When something has to be done if nothing comes.
    pub(super) fn due_ns(&self) -> u64 {
        let settings = &self.order.settings;
        match self.phase {
            Phase::Connecting => self.deadline_ns.min(self.attempt_ns),
            // Held back, the server's answer may be in the stash.
            Phase::Open if self.paused => u64::MAX,
            Phase::Open => match self.pinged_ns {
                Some(at_ns) => after(at_ns, settings.pong_timeout),
                None => after(self.last_inbound_ns, settings.ping_interval),
            },
            Phase::Dead => u64::MAX,
            _ => self.deadline_ns,
        }
    }

    /// Everything that one send carried has been sent, so many bytes: how many bytes of the line's queue that were.
    pub(super) fn take_sent(&mut self, sent: usize) -> usize {
        self.tls.as_mut().map_or(sent, |tls| tls.take_sent())
    }

    /// Whether everything that there is to say has been sent.
    pub(super) fn is_flushed(&self) -> bool {
        let has_said_all = self.tls.as_ref().is_none_or(|tls| tls.has_said_all() && self.out.is_empty());
        self.line.is_flushed() && has_said_all
    }

    /// Why a connection is broken that has ended where it should not.
    pub(super) fn cut_off(&self) -> io::Error {
        let why = self.tls.as_ref().map_or("the server closed the connection", |tls| tls.cut_off());
        io::Error::new(io::ErrorKind::UnexpectedEof, why)
    }

    pub(super) fn is_tls_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// After our own Close, however the server ends it is no error.
    pub(super) fn set_closed_without_close_frame(&mut self) {
        let reason = "the server closed without a Close frame".into();
        self.ended.get_or_insert(Ended { code: 1006, reason, clean: false, error: None });
    }

    pub(super) fn invariants(&self, in_flight: u8) -> bool {
        let is_idle = self.receiving == Receiving::Idle && !self.sending;
        is_idle || in_flight > 0 && (self.has_descriptor || self.phase == Phase::Dead)
    }
}

/// `from` plus a limit that is none when it is zero.
pub(super) fn after(from_ns: u64, limit: std::time::Duration) -> u64 {
    if limit.is_zero() {
        return u64::MAX;
    }
    from_ns.saturating_add(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX))
}
