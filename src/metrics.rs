//! What happened on one core, counted without sharing a cache line with any other.

mod kinds;

pub use kinds::{CloseCode, Closes, Counts, DropReason, Kind, RefusalReason, ShedReason, Side, TimeoutKind};

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
    /// The same, by close code and by who began.
    pub closes: Closes,
    /// Upgrades and requests that were answered with an error status.
    pub refused: Counts<RefusalReason>,
    /// Messages received.
    pub messages_in: u64,
    /// Messages queued to be sent, once per receiver.
    pub messages_out: u64,
    /// Bytes received, framing included.
    pub bytes_in: u64,
    /// Messages not sent because a receiver's queue was full.
    pub drops: Counts<DropReason>,
    /// Messages received on routes that do nothing with them.
    pub messages_discarded: u64,
    /// Connections that the server closed because they held too much.
    pub shed: Counts<ShedReason>,
    /// Connections that broke the protocol.
    pub protocol_errors: u64,
    /// Connections dropped because a time limit was reached.
    pub timeouts: Counts<TimeoutKind>,
    /// Letters from other cores and threads.
    pub letters: u64,
    /// Times that the kernel found no provided buffer.
    pub buffers_missing: u64,
    /// Ticks.
    pub ticks: u64,
}
