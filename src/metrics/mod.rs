//! What happened on each core, counted without sharing a cache line with any other, and the text that tells it.
//!
//! A core counts in plain integers of its own. Whoever wants to know asks: [`Hub::metrics`](crate::Hub::metrics) writes a
//! letter to every core, and each answers with a copy between two handlers. So nothing is shared while messages flow, and
//! the cores' numbers are not of the very same instant.
//!
//! ```no_run
//! # async fn example(hub: ringwire::Hub) {
//! let metrics = hub.metrics().await;
//! let open: u64 = metrics.cores.iter().map(|core| core.counters.opened - core.counters.closed).sum();
//! println!("{open} WebSockets\n{}", metrics.to_prometheus());
//! # }
//! ```
//!
//! Knows of this crate: nothing.

mod certificates;
mod histogram;
mod kinds;
mod prometheus;
#[cfg(test)]
mod tests;

pub use certificates::{Certificates, Expiry};
pub use histogram::Histogram;
pub use kinds::{
    CloseCode, Closes, Counts, DropReason, Kind, RefusalReason, ReloadResult, ShedReason, Side, TimeoutKind, TlsResult,
};
pub use prometheus::CONTENT_TYPE;

/// Counters of one core, since its start.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, ws};
///
/// let server = TestServer::new(|| App::new().ws("/echo", ws().on_message(|_, message| message.into_owned())));
/// let client = server.connect("/echo");
/// client.send("hello");
/// let counters = server.block_on(server.hub().metrics()).cores[0].counters;
/// assert_eq!((counters.opened, counters.messages_in, counters.messages_out), (1, 1, 1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Connections accepted.
    pub accepted: u64,
    /// Accepts that failed.
    pub accept_errors: u64,
    /// Connections that ended, after they had been accepted.
    pub released: u64,
    /// Connections that became WebSockets.
    pub opened: u64,
    /// WebSockets that ended.
    pub closed: u64,
    /// The same, by close code and by who began.
    pub closes: Closes,
    /// Upgrades and requests that were answered with an error status.
    pub refused: Counts<RefusalReason>,
    /// TLS handshakes that have ended.
    pub tls_handshakes: Counts<TlsResult>,
    /// Messages received.
    pub messages_in: u64,
    /// Messages queued to be sent, once per receiver.
    pub messages_out: u64,
    /// Bytes received, framing included.
    pub bytes_in: u64,
    /// Bytes that sockets have taken, framing included.
    pub bytes_out: u64,
    /// Messages received compressed; known to [`CoreMetrics`] alone.
    pub inflated: Compressed,
    /// Messages compressed, once for all that got the same bytes.
    pub deflated: Compressed,
    /// Deliveries that took what had been compressed for another.
    pub deflate_saved: u64,
    /// Times that a stream of compressed messages was begun anew.
    pub stream_resets: u64,
    /// Messages not sent because a receiver's queue was full.
    pub drops: Counts<DropReason>,
    /// Messages received that nobody takes: on routes that do nothing with them, or whose task has ended.
    pub messages_discarded: u64,
    /// Connections that the server closed because they held too much.
    pub shed: Counts<ShedReason>,
    /// Bytes given up with those that were closed because the memory budget was spent.
    pub shed_bytes: u64,
    /// Connections that broke the protocol.
    pub protocol_errors: u64,
    /// Connections dropped because a time limit was reached.
    pub timeouts: Counts<TimeoutKind>,
    /// Letters from other cores and threads.
    pub letters: u64,
    /// Other cores that slept and were woken, for letters or for what has become ready.
    pub bells: u64,
    /// Messages that were not handed to the bridge to other machines because its mailbox was full.
    pub abroad_refused: u64,
    /// Connections that have asked for what came behind their position in a room's history.
    pub history_recoveries: u64,
    /// Those of them that could not be given all of it.
    pub history_incomplete: u64,
    /// Rooms whose histories were given up, for others' or with the machine's ear for them.
    pub history_forgotten: u64,
    /// Messages of threads and other machines that a room's owner has not taken because it was too far behind.
    pub history_refused: u64,
    /// Times that the kernel found no provided buffer.
    pub buffers_missing: u64,
    /// Ticks.
    pub ticks: u64,
    /// How long each tick took without its wait: mail, parser, handlers, tasks, timers.
    pub handling: Histogram,
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Completions reaped.
    pub completions: u64,
    /// Times that the completion queue overflowed.
    pub overflows: u64,
}

/// What was compressed or decompressed.
///
/// ```
/// use ringwire::metrics::Compressed;
///
/// /// How much of them is left.
/// fn ratio(compressed: &Compressed) -> f64 {
///     compressed.wire_bytes as f64 / compressed.payload_bytes.max(1) as f64
/// }
///
/// assert_eq!(ratio(&Compressed::default()), 0.0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compressed {
    /// Messages.
    pub messages: u64,
    /// Bytes of their payloads as they are on the wire.
    pub wire_bytes: u64,
    /// Bytes of their payloads as handlers see them.
    pub payload_bytes: u64,
    /// The time that it took, in nanoseconds.
    pub took_ns: u64,
}

/// What one core tells of itself.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, ws};
///
/// let server = TestServer::new(|| App::new().ws("/echo", ws().on_message(|_, message| message.into_owned())));
/// let client = server.connect("/echo");
/// client.send("hello");
/// let metrics = server.block_on(server.hub().metrics());
/// let busiest = metrics.cores.iter().max_by_key(|core| core.counters.messages_in).unwrap();
/// assert_eq!((busiest.core, busiest.counters.messages_in), (0, 1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoreMetrics {
    /// The core's number.
    pub core: usize,
    /// What it has counted since its start.
    pub counters: Counters,
    /// Processor time of its thread, in nanoseconds: its own work and the kernel's for it. 0 in the test kit.
    pub cpu_ns: u64,
    /// Connections that get their streams' messages as they are until these are begun anew; as of each one's last message.
    pub out_of_step: u64,
    /// Rooms that it knows of.
    pub rooms: u64,
    /// Rooms whose histories it keeps.
    pub history_rooms: u64,
    /// Their messages.
    pub history_messages: u64,
    /// Bytes that these take.
    pub history_bytes: u64,
    /// Bytes queued or in flight that sockets have not taken. A message that waits for several connections counts for each
    /// of them, although it is there once.
    pub outbox_bytes: u64,
    /// The most such bytes of one connection.
    pub outbox_largest_bytes: u64,
    /// Bytes held of messages and requests that are incomplete or held back.
    pub partial_bytes: u64,
    /// Bytes of messages that tasks have not taken.
    pub inbox_bytes: u64,
    /// Letters waiting in its mailbox.
    pub mail_depth: u64,
    /// Letters of its own that wait for room in other cores' mailboxes.
    pub mail_parked: u64,
    /// Letters that threads outside could not send because its mailbox was full.
    pub mail_refused: u64,
}

/// What a server tells of itself; from [`Hub::metrics`](crate::Hub::metrics).
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, ws};
///
/// let server = TestServer::new(|| App::new().ws("/echo", ws().on_message(|_, message| message.into_owned())));
/// let client = server.connect("/echo");
/// client.send("hello");
/// let metrics = server.block_on(server.hub().metrics());
/// assert_eq!((metrics.cores.len(), metrics.cores_all), (1, 1), "all answer");
/// assert!(!metrics.draining && !metrics.memory_over);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Every core that answered, in order: one that has ended does not.
    pub cores: Vec<CoreMetrics>,
    /// Cores of the server.
    pub cores_all: usize,
    /// Whether the server is shutting down.
    pub draining: bool,
    /// The budget for queued and partial messages, in bytes; 0 = none.
    pub memory_bytes_max: u64,
    /// Whether that budget was spent, and not enough of it is free again.
    pub memory_over: bool,
    /// The certificates that it has read from files.
    pub certificates: Certificates,
    /// The other machines, where this one is to be joined with some.
    pub nodes: Option<NodesMetrics>,
}

/// What a machine knows of the others, and has exchanged with them through NATS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodesMetrics {
    /// This machine's name.
    pub name: String,
    /// And its number, which its ids name.
    pub number: u32,
    /// Whether it is joined with the others now.
    pub is_joined: bool,
    /// Others that have been heard of lately.
    pub others: u64,
    /// Their WebSockets.
    pub connections: u64,
    /// Rooms that each of them has members of, summed.
    pub rooms: u64,
    /// Messages that were sent to them.
    pub sent: u64,
    /// Messages of theirs, and of other programs, that were delivered here.
    pub received: u64,
    /// Messages that were not sent because NATS was away.
    pub dropped_away: u64,
    /// Those that found the queue to NATS full.
    pub dropped_congested: u64,
    /// Those that cores could not hand to the bridge because its mailbox was full.
    pub dropped_mailbox: u64,
    /// Those that came and found a core, or the bridge, too far behind.
    pub dropped_slow: u64,
    /// Messages that came and made no sense.
    pub malformed: u64,
    /// Messages that came twice, and were delivered once.
    pub twice: u64,
    /// Questions to others that were not answered in time.
    pub unreachable: u64,
    /// Times that NATS was there again.
    pub reconnects: u64,
    /// The last time to NATS and back, in nanoseconds.
    pub round_trip_ns: u64,
    /// The others, each by itself, in the order of their names.
    pub each: Vec<NodeMetrics>,
    /// Whether rooms have one history on all machines, and it can be reached.
    pub history_shared: bool,
    /// Messages that were sent to it.
    pub history_sent: u64,
    /// Messages that came of it, with their numbers.
    pub history_received: u64,
    /// Messages that could not be sent to it, and went on without a number.
    pub history_apart: u64,
    /// Messages that were refused, for there were too many on their way.
    pub history_refused: u64,
    /// Times that something had not come, and was fetched.
    pub history_gaps: u64,
    /// Questions for more of it than a core has.
    pub history_asked: u64,
    /// Those that were not answered in time.
    pub history_unanswered: u64,
}

/// Another machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeMetrics {
    /// Its name.
    pub name: String,
    /// Its WebSockets.
    pub connections: u64,
    /// The rooms that it has members of.
    pub rooms: u64,
    /// How long ago it was heard last, in milliseconds.
    pub heard_ms: u64,
}
