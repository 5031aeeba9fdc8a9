//! What a shard goes by.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Origins, TrustedProxies, UserAgents};
use crate::proto::Limits;
use crate::shard::service::Serves;
use crate::tls::Acceptor;

/// What a shard goes by. Durations of 0 mean "never".
#[derive(Clone, Debug)]
pub struct Settings {
    /// Limits of messages.
    pub limits: Limits,
    /// Bytes of a request head.
    pub head_bytes_max: usize,
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// From accept to a complete request head, and from the first byte of each further one.
    pub handshake_timeout: Duration,
    /// Between two requests of a connection.
    pub keep_alive: Duration,
    /// While fewer slots than this are left, a request has no longer than a second.
    pub crowded_slots: u32,
    /// Without any inbound byte.
    pub idle_timeout: Duration,
    /// Inbound silence after which a ping is sent.
    pub ping_interval: Duration,
    /// For which a socket may take nothing of what waits for it.
    pub write_timeout: Duration,
    /// From a request to its answer.
    pub answer_timeout: Duration,
    /// From our Close to the peer's.
    pub close_timeout: Duration,
    /// Messages a second and connection.
    pub message_rate_per_second: u32,
    /// Queued bytes above which no more input of the same connection is handled.
    pub pause_bytes: usize,
    /// Bytes that one arming of a receive brings, where it can be bounded: the rest of a large message is received straight
    /// into its own buffer, and no connection brings more in one tick.
    pub recv_bytes_max: u32,
    /// Received bytes after which a tick handles no further connection's.
    pub tick_bytes_max: usize,
    /// Time that a tick takes to decompress, about; what has come then of `inflate_bytes_min` and more waits for the next.
    pub inflate_ns_per_tick: u64,
    pub inflate_bytes_min: usize,
    /// Payload bytes to come from which a message is received straight into its own buffer; at least 8.
    pub direct_bytes_min: usize,
    /// Whether a multishot receive is cancelled for it: where receives cannot be bounded and bring little at a time.
    pub direct_interrupts: bool,
    /// Clients whose compression is broken.
    pub deflate_skip: UserAgents,
    /// Whose pages may open WebSockets.
    pub origins: Origins,
    /// WebSockets that this core takes, however many the process may have: what its table has room for.
    pub websockets_max: u32,
    /// From the word to drain to the drain.
    pub drain_notice: Duration,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// Over how long a drain spreads its Close frames.
    pub drain_spread: Duration,
    /// Listeners of the ring.
    pub listeners: u8,
    /// What each of them is for; those that are not here are like any.
    pub entrances: Vec<Entrance>,
    /// What makes the sessions of each of them that speaks TLS, by its number.
    pub acceptors: Vec<Option<Arc<Acceptor>>>,
    /// Whose word of a client is believed.
    pub trusted_proxies: TrustedProxies,
    /// What becomes of them in a drain.
    pub handover: Handover,
    /// Whether those of operators accept until all cores have drained: not where another process is to have their address.
    pub admin_stays: bool,
}

impl Settings {
    /// What a listener is for, by its number.
    pub(super) fn entrance(&self, listener: u8) -> Entrance {
        self.entrances.get(usize::from(listener)).copied().unwrap_or_default()
    }

    /// Whether a listener accepts until all cores have drained.
    pub(super) fn stays(&self, listener: u8) -> bool {
        self.admin_stays && self.entrance(listener).serves == Serves::Admin
    }
}

/// What a listener is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entrance {
    /// Its connections begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// They speak TLS.
    pub is_secure: bool,
    /// Which routes it leads to.
    pub serves: Serves,
}

/// What becomes of the listeners when a shard drains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Handover {
    /// They are the shard's own: it answers whoever is in their queues and closes them.
    #[default]
    Close,
    /// Another process listens on the same address by sockets of its own. Closing a listener resets whoever is in its queue
    /// or about to be, so first new connections are turned away, which come again and find the other process.
    Share,
    /// Others have the same sockets, and their queues with them: it stops accepting.
    Leave,
}
