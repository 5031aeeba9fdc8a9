//! What a core does with requests and messages: the seam between the shard and what is built on it.

use http::StatusCode;

use crate::engine::Peer;
use crate::hub::CoreHub;
use crate::proto::Incoming;
use crate::proto::http::RequestHead;

/// A request head, before anything was answered.
#[derive(Debug)]
pub struct Request<'r, 'b> {
    /// Method, target, headers.
    pub head: &'r RequestHead<'b>,
    /// Who asks.
    pub peer: Peer,
}

/// What is to be done with a request.
#[derive(Debug)]
pub enum Answer {
    /// It is for a WebSocket route: check the handshake and open it.
    WebSocket {
        /// The route's number, for [`CoreHub::route`].
        route: u16,
    },
    /// It is an HTTP request; this is the response.
    Response(Response),
}

/// An HTTP response with its whole body.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// Headers besides Content-Length and Connection, which the server sets.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// A JSON response.
    pub fn json(status: StatusCode, body: impl Into<Vec<u8>>) -> Response {
        Response { status, headers: vec![("content-type", "application/json".into())], body: body.into() }
    }

    /// An error as the HTTP side tells it: `{"error":"…"}`.
    pub fn error(status: StatusCode, message: &str) -> Response {
        let body = serde_json::json!({ "error": message });
        Response::json(status, body.to_string())
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Response {
        self.headers.push((name, value.into()));
        self
    }
}

/// How a WebSocket ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The close code: the peer's, or ours if we closed first; 1005 if there was none, 1006 if the connection broke.
    pub code: u16,
    /// The reason that came with it.
    pub reason: String,
    /// Whether both sides said Close.
    pub clean: bool,
}

impl Ended {
    pub(super) fn broken() -> Ended {
        Ended { code: 1006, reason: String::new(), clean: false }
    }
}

/// Runs on one core, made there, and need not be `Send`. Handlers may queue to any outbox through the hub and ask it to
/// close connections, their own included: that happens at the end of the tick, so no handler is ever called from within
/// another.
pub trait Service {
    /// Decides about a request.
    fn request(&mut self, hub: &mut CoreHub, request: &Request<'_, '_>) -> Answer;

    /// A WebSocket was opened; nothing has been received on it yet, and messages can be queued to it.
    fn open(&mut self, hub: &mut CoreHub, slot: u32);

    /// A message arrived. The payload is borrowed from the receive buffer where it came in one piece.
    fn message(&mut self, hub: &mut CoreHub, slot: u32, message: Incoming<'_>);

    /// A WebSocket has ended: exactly once for each [`Service::open`]. The hub still counts it.
    fn close(&mut self, hub: &mut CoreHub, slot: u32, ended: &Ended);
}
