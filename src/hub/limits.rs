//! Limits of routes, where they differ from the server's settings.

use std::time::Duration;

use super::{CoreHub, ROOM_NAME_BYTES_MAX};
use crate::config::{Deflate, History, SlowConsumer};

/// Limits of a route, where they differ from the server's settings.
#[derive(Clone, Debug, Default)]
pub struct RouteLimits {
    /// Bytes of a message.
    pub message_bytes_max: Option<usize>,
    /// Messages a second and connection; 0 = no limit.
    pub message_rate_per_second: Option<u32>,
    /// What happens to a connection that does not keep up.
    pub slow_consumer: Option<SlowConsumer>,
    /// How messages are compressed.
    pub deflate: Option<Deflate>,
    /// Inbound silence after which a ping is sent; zero = never.
    pub ping_interval: Option<Duration>,
    /// Inbound silence after which the connection is dropped; zero = never.
    pub idle_timeout: Option<Duration>,
    /// How long the socket may take none of what waits for it; zero = for ever.
    pub write_timeout: Option<Duration>,
    /// Rooms of a connection.
    pub rooms_max: Option<u32>,
    /// Bytes of the name of a room that a connection joins.
    pub room_name_bytes_max: Option<usize>,
    /// What rooms keep of their messages, by their names.
    pub histories: Vec<History>,
    /// Whether somebody wants to know of messages that are dropped.
    pub reports_drops: bool,
    /// Whether somebody wants to know of the peers' pings and pongs.
    pub reports_pings: bool,
    /// Somebody wants to know when no more than so many bytes are queued any more.
    pub drain_below_bytes: Option<usize>,
}

static NO_LIMITS: RouteLimits = RouteLimits {
    message_bytes_max: None,
    message_rate_per_second: None,
    slow_consumer: None,
    deflate: None,
    ping_interval: None,
    idle_timeout: None,
    write_timeout: None,
    rooms_max: None,
    room_name_bytes_max: None,
    histories: Vec::new(),
    reports_drops: false,
    reports_pings: false,
    drain_below_bytes: None,
};

impl CoreHub {
    /// The routes' own limits, by number.
    pub(crate) fn set_route_limits(&mut self, limits: Vec<RouteLimits>) {
        limits.iter().for_each(|limits| self.note_falls(limits));
        self.route_limits = limits;
    }

    /// A route's own limits, where it was added later.
    pub(crate) fn set_limits_of(&mut self, route: u16, limits: RouteLimits) {
        let index = usize::from(route);
        if self.route_limits.len() <= index {
            self.route_limits.resize_with(index + 1, RouteLimits::default);
        }
        self.note_falls(&limits);
        self.route_limits[index] = limits;
    }

    fn note_falls(&mut self, limits: &RouteLimits) {
        if let Some(bytes) = limits.drain_below_bytes {
            self.outbox.note_falls_from(bytes);
        }
    }

    /// Sets how many rooms a connection may be in, unless its route says otherwise.
    pub(crate) fn set_rooms_max(&mut self, rooms: u32) {
        self.rooms_max = rooms;
    }

    /// How many rooms a connection may be in.
    pub(super) fn rooms_max(&self, slot: u32) -> usize {
        self.limits(slot).rooms_max.unwrap_or(self.rooms_max) as usize
    }

    /// Bytes of the name of a room that a connection may join.
    pub(super) fn room_name_bytes_max(&self, slot: u32) -> usize {
        self.limits(slot).room_name_bytes_max.unwrap_or(ROOM_NAME_BYTES_MAX)
    }

    /// The limits of a connection's route.
    #[inline]
    pub(crate) fn limits(&self, slot: u32) -> &RouteLimits {
        self.route_limits.get(usize::from(self.members[slot as usize].route)).unwrap_or(&NO_LIMITS)
    }
}
