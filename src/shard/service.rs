//! What a core does with requests and messages: the seam between the shard below and what is built on it.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::guard::Guarded;
use crate::hub::{CoreHub, Known};
use crate::metrics::Side;
use crate::outbox::Dropped;
use crate::proto::Incoming;
use crate::proto::handshake::Refusal;
use crate::proto::http::RequestHead;
use crate::tls::TlsInfo;

/// A request with its whole body, before anything was answered.
#[derive(Debug)]
pub struct Inbound<'r, 'b> {
    /// Method, target, headers.
    pub head: &'r RequestHead<'b>,
    /// The body; empty if there is none.
    pub body: Bytes,
    /// Who asks; `None` on a Unix socket.
    pub peer: Option<SocketAddr>,
    /// Whether a proxy has said who that is, or that it does not say.
    pub is_relayed: bool,
    /// What the connection's TLS has agreed on, if it is one with TLS.
    pub tls: Option<Arc<TlsInfo>>,
    /// Which routes there are where it came in.
    pub serves: Serves,
}

/// Which routes a listener leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serves {
    /// All: there is no other listener for some of them.
    #[default]
    All,
    /// Those that are for everybody.
    Public,
    /// Those that are for operators.
    Admin,
}

/// What is to be done with a request.
#[derive(Debug)]
pub enum Answer {
    /// It is for a WebSocket route: check the handshake and open it.
    WebSocket(Accept),
    /// This is the response.
    Response(Reply),
    /// [`Service::take_answers`] will say, later. Nothing else that the connection sends is handled until then.
    Later,
}

/// How a WebSocket is to be opened.
#[derive(Debug, Default)]
pub struct Accept {
    /// The route's number, for [`CoreHub::route`].
    pub route: u16,
    /// The subprotocol chosen out of the offered ones.
    pub protocol: Option<String>,
    /// Compression is not agreed to, whatever the route says.
    pub refuses_deflate: bool,
    /// Headers to add to the response.
    pub headers: Guarded<Headers>,
    /// What the service wants back in [`Service::open`]. It is dropped if the WebSocket is refused after all, or its
    /// connection has ended meanwhile.
    pub context: Option<Box<dyn Any>>,
}

/// An HTTP response with its whole body.
#[derive(Clone, Debug)]
#[allow(unnameable_types, reason = "only implementations of traits mention it")]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// Headers besides Content-Length and Connection, which the server sets; `Connection: close` ends the connection. Date
    /// is set where there is none.
    pub headers: Guarded<Headers>,
    /// The body.
    pub body: Guarded<Bytes>,
}

/// Header fields. Their values may share a user's bytes, and bodies too, with a destructor of the user's.
pub type Headers = Vec<(HeaderName, HeaderValue)>;

impl Reply {
    /// A JSON response.
    pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Reply {
        let content_type = (http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Reply { status, headers: vec![content_type].into(), body: Guarded::new(body.into()) }
    }

    /// An error as the HTTP side tells it: `{"error":"…"}`.
    pub fn error(status: StatusCode, message: &str) -> Reply {
        Reply::json(status, serde_json::json!({ "error": message }).to_string())
    }

    /// 503: the memory budget is spent.
    pub(crate) fn out_of_memory() -> Reply {
        Reply::error(StatusCode::SERVICE_UNAVAILABLE, "the server is out of memory").with_retry_after()
    }

    /// Says when to try again: in a second.
    #[must_use]
    pub(crate) fn with_retry_after(self) -> Reply {
        self.with_header(http::header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Reply {
        self.headers.push((name, value));
        self
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Reply {
        let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
        refusal.headers.iter().fold(Reply::error(status, refusal.message), |reply, (name, value)| {
            reply.with_header(HeaderName::from_static(name), HeaderValue::from_static(value))
        })
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
    /// Who began.
    pub by: Side,
}

impl Ended {
    /// The end of a connection that broke without a word.
    pub fn broken() -> Ended {
        Ended { code: 1006, reason: String::new(), clean: false, by: Side::Nobody }
    }
}

#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be served",
    note = "`Server::run` and `Server::start` take a function that makes an `App`: `|| App::new().ws(\"/\", …)`"
)]
/// Runs on one core, made there, and need not be `Send`. Handlers may queue to any outbox through the hub and ask it to
/// close connections, their own included: that happens at the end of the tick, so no handler is ever called from within
/// another.
pub trait Service {
    /// A tick begins. One thread may drive several cores, one tick at a time.
    fn begin_tick(&mut self, now_ns: u64) {
        let _ = now_ns;
    }

    /// The tick that began last is over.
    fn end_tick(&mut self) {}

    /// Tells of the other cores for which something has become ready in this tick: they may sleep. Asked behind
    /// [`Service::end_tick`].
    fn take_wakes(&mut self, wake: &mut dyn FnMut(usize)) {
        let _ = wake;
    }

    /// Decides about a request.
    fn request(&mut self, hub: &mut CoreHub, slot: u32, generation: u32, request: &Inbound<'_, '_>) -> Answer;

    /// A response is about to be written to a request of which this much of the head has come, whoever has made it; or, with
    /// the status 101, that of a WebSocket that is about to open. Fields may be added to it.
    fn answering(&mut self, slot: u32, generation: u32, asked: &[u8], reply: &mut Reply) {
        let _ = (slot, generation, asked, reply);
    }

    /// What a request is refused with for its head alone, if it is: asked before the client is told to send the body that it
    /// holds back.
    fn refusal_of_head(&self, head: &RequestHead<'_>, serves: Serves) -> Option<Reply> {
        let _ = (head, serves);
        None
    }

    /// A WebSocket was opened; nothing has been received on it yet, and messages can be queued to it. `context` is what
    /// came with its [`Accept`].
    fn open(&mut self, hub: &mut CoreHub, slot: u32, context: Option<Box<dyn Any>>);

    /// A message arrived. The payload is borrowed from the receive buffer where it came in one piece.
    fn message(&mut self, hub: &mut CoreHub, slot: u32, message: Incoming<'_>);

    /// A join or leave that a WebSocket has made with [`CoreHub::join_then`] or [`CoreHub::leave_then`] is known to all
    /// cores, or was overtaken.
    fn known(&mut self, hub: &mut CoreHub, known: &Known) {
        let _ = (hub, known);
    }

    /// A ping arrived, and its pong is queued; of routes whose limits say `reports_pings`.
    fn ping(&mut self, hub: &mut CoreHub, slot: u32, payload: &[u8]) {
        let _ = (hub, slot, payload);
    }

    /// A pong arrived; of routes whose limits say `reports_pings`.
    fn pong(&mut self, hub: &mut CoreHub, slot: u32, payload: &[u8]) {
        let _ = (hub, slot, payload);
    }

    /// Messages to a WebSocket were dropped in this tick; of routes whose limits say `reports_drops`. It may be closing.
    fn dropped(&mut self, hub: &mut CoreHub, slot: u32, dropped: &Dropped) {
        let _ = (hub, slot, dropped);
    }

    /// Of what was queued to a WebSocket, `from_bytes` at most, sockets have taken something in this tick: told where that
    /// was more than somebody asked to be told of. It may be closing.
    fn drained(&mut self, hub: &mut CoreHub, slot: u32, from_bytes: usize) {
        let _ = (hub, slot, from_bytes);
    }

    /// The core has been told to end: once, at the beginning of its notice.
    fn shutting_down(&mut self) {}

    /// A WebSocket has ended: exactly once for each [`Service::open`]. The hub still counts it.
    fn close(&mut self, hub: &mut CoreHub, slot: u32, ended: &Ended);

    /// Bytes of messages that wait for tasks, of all connections.
    fn inbox_bytes(&self) -> usize {
        0
    }

    /// Bytes of messages that wait for a connection's task.
    fn inbox_bytes_of(&self, slot: u32) -> usize {
        let _ = slot;
        0
    }

    /// Forgets the messages that wait for a connection's task: it is about to be closed.
    fn empty_inbox(&mut self, slot: u32) {
        let _ = slot;
    }

    /// Runs what is ready to run beside handlers, once a tick; the hub is lent for that long.
    fn run_tasks(&mut self, hub: &mut Option<Box<CoreHub>>) {
        let _ = hub;
    }

    /// Moves the answers that have been found since into `answers`, each with the slot and generation of its request.
    fn take_answers(&mut self, answers: &mut Vec<(u32, u32, Answer)>) {
        let _ = answers;
    }

    /// Whether [`Service::run_tasks`] has something to run now.
    fn is_ready(&self) -> bool {
        false
    }

    /// When [`Service::run_tasks`] has something to run next.
    fn next_due_ns(&self) -> Option<u64> {
        None
    }
}
