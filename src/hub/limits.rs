//! Limits of routes, where they differ from the server's settings.

use std::time::Duration;

use super::CoreHub;
use crate::config::SlowConsumer;

/// Limits of a route, where they differ from the server's settings.
#[derive(Clone, Debug, Default)]
pub struct RouteLimits {
    /// Bytes of a message.
    pub message_bytes_max: Option<usize>,
    /// Messages a second and connection; 0 = no limit.
    pub message_rate_per_second: Option<u32>,
    /// What happens to a connection that does not keep up.
    pub slow_consumer: Option<SlowConsumer>,
    /// Inbound silence after which a ping is sent; zero = never.
    pub ping_interval: Option<Duration>,
    /// Inbound silence after which the connection is dropped; zero = never.
    pub idle_timeout: Option<Duration>,
    /// How long the socket may take none of what waits for it; zero = for ever.
    pub write_timeout: Option<Duration>,
    /// Whether somebody wants to know of messages that are dropped.
    pub reports_drops: bool,
    /// Somebody wants to know when no more than so many bytes are queued any more.
    pub drain_below_bytes: Option<usize>,
}

static NO_LIMITS: RouteLimits = RouteLimits {
    message_bytes_max: None,
    message_rate_per_second: None,
    slow_consumer: None,
    ping_interval: None,
    idle_timeout: None,
    write_timeout: None,
    reports_drops: false,
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

    /// The limits of a connection's route.
    #[inline]
    pub(crate) fn limits(&self, slot: u32) -> &RouteLimits {
        self.route_limits.get(usize::from(self.members[slot as usize].route)).unwrap_or(&NO_LIMITS)
    }
}
