//! What is known of one connection.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use super::id::ConnectionId;
use super::peer::CompactPeer;
use super::room::{Place, RoomId};
use super::streams::Sends;
use crate::message::RawJson;
use crate::proto::extensions::Agreed;

#[derive(Default)]
pub(super) struct Member {
    pub(super) generation: u32,
    pub(super) route: u16,
    pub(super) open: bool,
    /// What is agreed of compression, if it is.
    pub(super) deflate: Option<Agreed>,
    pub(super) sends: Sends,
    pub(super) doomed: bool,
    /// Its task has not taken what came before: no more of its messages are handled.
    pub(super) task_is_behind: bool,
    /// To be closed when the last sender outside is dropped.
    pub(super) ends_with_senders: bool,
    /// How often somebody outside has got a sender when nobody had one.
    pub(super) senders: u32,
    /// Bytes of what it has the hub keep.
    pub(super) kept_bytes: u32,
    /// Joins and leaves of its that are not known to all cores yet: none of its messages is handled meanwhile.
    pub(super) changes: u32,
    pub(super) peer: CompactPeer,
    pub(super) opened_ns: u64,
    /// Each with this connection's place in the room's list of members.
    pub(super) rooms: SmallVec<[(RoomId, Place); 1]>,
}

/// A connection that is to be closed at the end of the tick.
#[derive(Debug)]
pub struct Doom {
    /// Which.
    pub slot: u32,
    /// Its generation when this was asked for.
    pub generation: u32,
    /// The close code; `None` for a Close frame without one.
    pub code: Option<u16>,
    /// The reason.
    pub reason: Cow<'static, str>,
}

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
