//! The state of one connection.

use ringwire::proto::{Machine, Role};

use crate::{
    net::{Nanos, Open, Speaks},
    wire::Name,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Vacant,
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
    pub(super) generation: u32,
    pub(super) state: State,
    pub(super) speaks: Speaks,
    /// Operations whose completion is still to come.
    pub(super) in_flight: u8,
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
    /// A slot that was never given out.
    pub(super) fn vacant() -> Line {
        Line {
            generation: 0,
            state: State::Vacant,
            speaks: Speaks::WebSocket,
            in_flight: 0,
            paused: false,
            told: false,
            tag: 0,
            room: None,
            since: 0,
            machine: Machine::new(Role::Client),
            coming: None,
            key: 0,
            head: Vec::new(),
        }
    }

    /// Takes the slot for a connection.
    pub(super) fn begin(&mut self, open: &Open, now: Nanos, key: u64) {
        debug_assert!(self.state == State::Vacant && self.in_flight == 0);
        *self = Line {
            generation: self.generation,
            state: State::Connecting,
            speaks: open.speaks,
            tag: open.tag,
            room: open.room,
            since: now,
            key,
            ..Line::vacant()
        };
    }

    /// Whether the connection still does anything.
    pub(super) fn is_live(&self) -> bool {
        !matches!(self.state, State::Vacant | State::Dead)
    }
}
