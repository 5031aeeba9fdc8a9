//! What happened on one core, counted without sharing a cache line with any other.

/// Counters of one core, since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Connections accepted.
    pub accepted: u64,
    /// Accepts that failed.
    pub accept_errors: u64,
    /// Connections that became WebSockets.
    pub opened: u64,
    /// WebSockets that ended.
    pub closed: u64,
    /// Upgrades and requests that were answered with an error status.
    pub refused: u64,
    /// Messages received.
    pub messages_in: u64,
    /// Messages queued to be sent, once per receiver.
    pub messages_out: u64,
    /// Bytes received, framing included.
    pub bytes_in: u64,
    /// Messages not sent because a receiver's queue was full.
    pub messages_dropped: u64,
    /// Messages received on routes that do nothing with them.
    pub messages_discarded: u64,
    /// Connections closed because their queue was full.
    pub slow_consumers_closed: u64,
    /// Connections that broke the protocol.
    pub protocol_errors: u64,
    /// Connections dropped because a time limit was reached.
    pub timeouts: u64,
    /// Of these, those whose socket took nothing of what waited for it.
    pub write_timeouts: u64,
    /// Letters from other cores and threads.
    pub letters: u64,
    /// Times that the kernel found no provided buffer.
    pub buffers_missing: u64,
    /// Ticks.
    pub ticks: u64,
}
