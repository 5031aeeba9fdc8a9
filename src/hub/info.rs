//! What others are told of connections.

use std::net::SocketAddr;
use std::sync::Arc;

use super::id::ConnectionId;
use crate::message::RawJson;

/// What is known of a connection.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, ConnectionInfo, ws};
///
/// fn line(info: &ConnectionInfo) -> String {
///     format!("{} for {} s: {}", info.route, info.connected_ms / 1000, info.data)
/// }
///
/// let route = || ws().on_connect(|socket| socket.set_data(serde_json::json!("ann")));
/// let server = TestServer::new(move || App::new().ws("/chat", route()));
/// let _client = server.connect("/chat");
/// server.advance(std::time::Duration::from_secs(5));
/// let connections = server.block_on(server.hub().connections()).unwrap();
/// assert_eq!(line(&connections[0]), r#"/chat for 5 s: "ann""#);
/// ```
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
