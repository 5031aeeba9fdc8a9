//! What is measured in time, and in what.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Nanoseconds; a latency above is recorded as this.
pub(crate) const LATENCY_MAX: u64 = 600_000_000_000;

/// An empty latency histogram in nanoseconds, exact to three digits.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX, 3).expect("valid bounds")
}

/// What is measured in time besides the main latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Timed {
    /// From when a message really was sent; the main latency counts from when it should have been.
    Uncorrected,
    /// From the first delivery of a broadcast to its last.
    Spread,
    /// From connecting to the end of the opening handshake.
    Handshake,
    /// From the connection to the end of the handshake of TLS.
    Tls,
    /// From a ping to its pong.
    Ping,
    /// From an HTTP request to its response.
    Http,
    /// Deliveries to readers before others stalled.
    BeforeStall,
    /// Deliveries to readers while others stalled.
    WhileStalled,
    /// How late this program looked at its own schedule: from when a message was due to when it came to it.
    Lag,
}

impl Timed {
    pub(crate) const ALL: [Timed; 9] = [
        Timed::Uncorrected,
        Timed::Spread,
        Timed::Handshake,
        Timed::Tls,
        Timed::Ping,
        Timed::Http,
        Timed::BeforeStall,
        Timed::WhileStalled,
        Timed::Lag,
    ];

    /// Its key in the figures.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Timed::Uncorrected => "uncorrected",
            Timed::Spread => "spread",
            Timed::Handshake => "handshake",
            Timed::Tls => "tls_handshake",
            Timed::Ping => "ping",
            Timed::Http => "http",
            Timed::BeforeStall => "before_stall",
            Timed::WhileStalled => "while_stalled",
            Timed::Lag => "lag",
        }
    }
}
