//! The state of one connection.

use ringwire::{
    proto::{Machine, Role},
    tls::Session,
};

use crate::{
    net::app::{Nanos, Open, Speaks},
    wire::Name,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Connecting,
    /// The handshake of TLS; since when.
    Securing(Nanos),
    /// The opening handshake.
    Handshake,
    Open,
    /// Our Close frame is on its way; since when.
    Leaving(Nanos),
    /// Its descriptor is being closed.
    Dead,
}

/// One connection. Small: there may be a hundred thousand.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) state: State,
    pub(super) speaks: Speaks,
    pub(super) paused: bool,
    /// The app knows that it is over.
    pub(super) told: bool,
    /// Why it fails, in words.
    pub(super) why: Option<Box<str>>,
    /// It took too long for what it is doing.
    pub(super) is_late: bool,
    /// It is on the list of those whose session has something to say.
    pub(super) is_urgent: bool,
    /// Which of the targets it goes to.
    pub(super) target: u16,
    pub(super) tag: u32,
    pub(super) room: Option<u32>,
    pub(super) since: Nanos,
    pub(super) machine: Machine,
    /// Where the target is spoken to by TLS, from the connection on.
    pub(super) session: Option<Box<Session>>,
    /// The message that is coming, and how many bytes of it have come.
    pub(super) coming: Option<(Name, usize)>,
    /// Random bytes of the handshake's key.
    pub(super) key: u64,
    /// Part of a response head.
    pub(super) head: Vec<u8>,
}

impl Line {
    pub(super) fn new(open: &Open, target: u16, now: Nanos, key: u64) -> Line {
        Line {
            state: State::Connecting,
            speaks: open.speaks,
            paused: false,
            told: false,
            why: None,
            is_late: false,
            is_urgent: false,
            target,
            tag: open.tag,
            room: open.room,
            since: now,
            machine: Machine::new(Role::Client),
            session: None,
            coming: None,
            key,
            head: Vec::new(),
        }
    }

    /// Says why it fails: the first reason is the one.
    pub(super) fn fails(&mut self, why: impl FnOnce() -> String) {
        self.why.get_or_insert_with(|| why().into());
    }

    /// Whether it should have been open by now: from the first packet on, TLS included, a handshake has so much time.
    pub(super) fn is_unanswered(&self, now: Nanos, patience: Nanos) -> bool {
        matches!(self.state, State::Connecting | State::Securing(_) | State::Handshake) && now > self.since + patience
    }

    /// Whether the connection still does anything.
    pub(super) fn is_live(&self) -> bool {
        self.state != State::Dead
    }
}
