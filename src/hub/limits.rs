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
}

static NO_LIMITS: RouteLimits = RouteLimits {
    message_bytes_max: None,
    message_rate_per_second: None,
    slow_consumer: None,
    ping_interval: None,
    idle_timeout: None,
};

impl CoreHub {
    /// The routes' own limits, by number.
    pub(crate) fn set_route_limits(&mut self, limits: Vec<RouteLimits>) {
        self.route_limits = limits;
    }

    /// A route's own limits, where it was added later.
    pub(crate) fn set_limits_of(&mut self, route: u16, limits: RouteLimits) {
        let index = usize::from(route);
        if self.route_limits.len() <= index {
            self.route_limits.resize_with(index + 1, RouteLimits::default);
        }
        self.route_limits[index] = limits;
    }

    /// The limits of a connection's route.
    #[inline]
    pub(crate) fn limits(&self, slot: u32) -> &RouteLimits {
        self.route_limits.get(usize::from(self.members[slot as usize].route)).unwrap_or(&NO_LIMITS)
    }
}
