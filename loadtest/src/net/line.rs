//! The state of one connection.

use ringwire::proto::{Machine, Role};

use crate::{
    net::app::{Nanos, Open, Speaks},
    wire::Name,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Connecting,
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
    pub(super) tag: u32,
    pub(super) room: Option<u32>,
    pub(super) since: Nanos,
    pub(super) machine: Machine,
    /// The message that is coming, and how many bytes of it have come.
    pub(super) coming: Option<(Name, usize)>,
    /// Random bytes of the handshake's key.
    pub(super) key: u64,
    /// Part of a response head.
    pub(super) head: Vec<u8>,
}

impl Line {
    pub(super) fn new(open: &Open, now: Nanos, key: u64) -> Line {
        Line {
            state: State::Connecting,
            speaks: open.speaks,
            paused: false,
            told: false,
            tag: open.tag,
            room: open.room,
            since: now,
            machine: Machine::new(Role::Client),
            coming: None,
            key,
            head: Vec::new(),
        }
    }

    /// Whether the connection still does anything.
    pub(super) fn is_live(&self) -> bool {
        self.state != State::Dead
    }
}
