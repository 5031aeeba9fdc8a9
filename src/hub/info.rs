//! What others are told of connections.

use std::net::SocketAddr;
use std::sync::Arc;

use super::id::ConnectionId;
use crate::message::RawJson;

/// What is known of a connection.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Its address.
    pub id: ConnectionId,
    /// The path of its route.
    pub route: Arc<str>,
    /// Its core.
    pub core: usize,
    /// The peer; `None` on a Unix socket.
    pub peer: Option<SocketAddr>,
    /// How long it has been open, in milliseconds.
    pub connected_ms: u64,
    /// Its JSON data.
    pub data: RawJson,
}

/// A part of one core's connections, bounded in number and bytes.
#[derive(Debug, Default)]
pub struct ConnectionPage {
    pub(crate) connections: Vec<ConnectionInfo>,
    /// How many were passed over.
    pub(crate) passed: usize,
    /// What they take, of the bytes that were allowed.
    pub(crate) bytes: usize,
    /// The slot to go on from; `None` if that was all.
    pub(crate) next: Option<u32>,
}
