//! What is asked for: where a connection goes, what its handshake says, and its limits.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::proto::Limits;
use crate::proto::extensions::Offer;
use crate::tls::Session;

/// How a connection is handled once it is asked for.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) bind: Option<IpAddr>,
    pub(super) limits: Limits,
    pub(super) handshake_timeout: Duration,
    pub(super) close_timeout: Duration,
    pub(super) ping_interval: Duration,
    pub(super) pong_timeout: Duration,
    pub(super) outbox_bytes_max: usize,
    pub(super) inbox_bytes_max: usize,
    /// What is offered of compression.
    pub(super) deflate: Option<Offer>,
    pub(super) deflate_bytes_min: usize,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Address(SocketAddr),
    Name(String, u16),
    Unix(PathBuf),
}

/// What the thread needs to make a connection.
pub(super) struct Order {
    pub(super) destination: Destination,
    /// The handshake's request, and its key.
    pub(super) request: Vec<u8>,
    pub(super) key: String,
    pub(super) protocols: Vec<String>,
    /// Of `wss://`: what the handshake of TLS begins with waits in it.
    pub(super) session: Option<Box<Session>>,
    pub(super) settings: Settings,
}
