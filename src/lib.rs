//! A thread-per-core WebSocket server and embeddable library on io_uring.
//!
//! Every core of the machine has its own ring, listener, connections and part of every room; cores share nothing but
//! bounded channels. A message goes from the receive buffer through the parser to its handler without being copied, and what
//! one tick queues to a connection leaves in one send.
//!
//! ```no_run
//! use ringwire::{App, Message, Server, Socket};
//!
//! fn main() -> ringwire::Result<()> {
//!     let app = || App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message));
//!     Server::from_env()?.run(app)
//! }
//! ```
//!
//! # The way of a message
//!
//! ```text
//! completion -> connection -> frames -> handler -> hub -> outboxes -> one send per connection -> submission
//!                                          |         ^ \-> mail to other cores -> their outboxes
//!                                          v         |
//!                                    inbox -> task --+    senders and hubs of other threads: mail
//! ```
//!
//! All of this is one tick of one core, in one direction. Handlers never run inside one another: [`Socket::close`] marks,
//! `on_close` runs at the end of the tick, and what is emitted is queued.
//!
//! # Routes
//!
//! An [`App`] is made once on each core, so its handlers may capture an `Rc`, which is then the core's own; what cores share
//! is an `Arc` captured outside. Paths have parameters, groups have prefixes and hooks, and HTTP routes are on the same port.
//!
//! ```
//! use ringwire::{App, HttpError, Request, ws};
//! use serde_json::json;
//!
//! App::new()
//!     .ws("/greet/{name}", ws().on_connect(|socket| format!("Hello, {}!", socket.param("name"))))
//!     .get("/count", async |request: Request| json!({"count": request.hub().websockets()}))
//!     .post("/say/{id}", async |request: Request| {
//!         let id = request.param("id").parse()?;
//!         let told = request.hub().emit_to(id, "said", &request.json::<serde_json::Value>()?)?.await;
//!         if told.queued == 0 { Err(HttpError::not_found("no such connection")) } else { Ok(json!({"sent": true})) }
//!     });
//! ```
//!
//! # Hooks
//!
//! In the order of a connection's life: [`Group::observe`], [`Group::before`] and [`Ws::before`] (may refuse with a status,
//! attach typed values, add headers, choose a subprotocol), [`Group::on_response`], [`Ws::on_connect`]; for each message
//! [`Ws::before_message`], the handler, [`Ws::after_message`], which comes after the reply; at the end
//! [`Group::observe_close`], [`Ws::on_close`], [`Ws::after`], [`Group::after`] and [`Socket::on_cleanup`], each exactly once
//! however the connection ended.
//!
//! ```
//! use ringwire::{App, HttpError, Request, ws};
//!
//! #[derive(Clone)]
//! struct User(String);
//!
//! fn authenticate(request: &mut Request) -> Result<(), HttpError> {
//!     let name = request.cookie("user").ok_or_else(|| HttpError::unauthorized("log in first"))?;
//!     let user = User(name.to_owned());
//!     request.extensions_mut().insert(user);
//!     Ok(())
//! }
//!
//! App::new().group("/private", |group| {
//!     group
//!         .before(authenticate)
//!         .ws("/", ws().on_connect(|socket| socket.extensions().get::<User>().map(|user| user.0.clone())))
//!         .after(|socket, closed| println!("{} closed with {}", socket.id(), closed.code))
//! });
//! ```
//!
//! [`Group::on_response`] sees every answer, 404, 405, 500 and what the server refuses by itself among them; [`Group::cors`]
//! lets pages of other origins read them.
//!
//! # State
//!
//! [`Server::run_with`] takes a state that all cores share, and `make` gets it with each [`Core`]; handlers, hooks and tasks
//! find it by its type: [`Socket::state`], [`Connection::state`], [`Request::state`]. What belongs to one core and need not be
//! `Send` is given to the app there, [`App::with_core_state`], and found by `core_state`. [`App::nest`] takes in a whole app
//! below a prefix.
//!
//! # Replies and failures
//!
//! What a handler returns is its reply: text, bytes, [`Json`], a stream of them ([`Streamed`]) that goes no faster than the
//! peer reads, an `Option` or a `Result` of them, or nothing. An error or a
//! panic closes the connection with 1011, or 1007 where the message could not be decoded; [`Ws::on_failure`] says
//! otherwise, [`Ws::on_error`] hears of it (of a panic as [`Panicked`]), and the detail goes to the log, never to the peer.
//!
//! # Rooms
//!
//! A connection joins and leaves rooms by name, and leaves them all when it ends. Messages from one core to one connection
//! arrive in order, whatever they are sent with, in handlers and tasks: sockets, rooms, [`Hub`] or [`Sender`]; nothing is
//! promised between messages that start on different cores. [`Socket::join_then`], [`Connection::join`] in tasks, and
//! [`Hub::join`] from any thread answer a join once every core knows of it.
//!
//! ```
//! use ringwire::{App, ws};
//!
//! App::new().ws(
//!     "/rooms/{room}",
//!     ws().on_connect(|socket| socket.join(socket.param("room")))
//!         .on_message(|socket, message| socket.to_own_room(message)),
//! );
//! ```
//!
//! A room keeps its last messages where a route says so ([`Ws::history`]): [`Socket::join_with_history`] has who comes sent
//! them, and [`Socket::join_since`] who comes back what it has missed, without a gap and without a double.
//!
//! # Events
//!
//! [`Events`] is a route of named JSON messages, `{"event":E,"data":D}` or `{"path":P,"data":D}` by the app's [`Envelope`],
//! with data decoded to the type that each handler takes. `emit` on sockets, rooms, [`Hub`] and [`Sender`] writes them.
//! Handlers may wait ([`Events::on_async`]). A client that sends `"ack":N` with an event is answered `{"ack":N,"data":REPLY}`;
//! a server asks with [`Socket::emit_with_ack`] and [`Connection::emit_with_ack`].
//!
//! # Tasks
//!
//! A handler may be a future ([`Ws::on_message_async`]), or a connection may have a task of its own ([`Ws::task`]). Both run
//! on the connection's core, beside its other connections; while a task does not take messages, the core stops receiving
//! from that peer. [`sleep`], [`interval`], [`timeout`] and [`spawn_local`] work there, and so does awaiting anything of
//! another runtime or thread. A [`Connection`] has the methods of a [`Socket`], and all hooks are around it: a message is
//! handled from when a task takes it until it asks for the next.
//!
//! ```
//! use ringwire::{App, Connection, sleep, ws};
//! use std::time::Duration;
//!
//! let task = async |mut socket: Connection| {
//!     while let Some(message) = socket.recv().await {
//!         sleep(Duration::from_millis(10)).await;
//!         let _ = socket.send(message);
//!     }
//! };
//! App::new().ws("/slow-echo", ws().task(task));
//! ```
//!
//! # Hub and senders
//!
//! [`Hub`] reaches all connections and [`Sender`] one, from any thread and any runtime: messages, rooms, ids, JSON data,
//! closing. A [`ConnectionId`] names its core, so no table is asked; one that is stale is "gone", and never another
//! connection. Results say what was queued, dropped, or gone; who does not care drops them.
//!
//! ```no_run
//! use ringwire::{App, Config, Server, ws};
//!
//! fn main() -> ringwire::Result<()> {
//!     let handle = Server::new(Config::default()).start(|| App::new().ws("/", ws()))?;
//!     let hub = handle.hub().clone();
//!     let ticking = std::thread::spawn(move || {
//!         for number in 0..10 {
//!             let told = hub.emit_to_all("tick", &number).map(|told| told.wait().queued);
//!             println!("{told:?} connections were told");
//!         }
//!     });
//!     ticking.join().expect("no panic");
//!     handle.shutdown();
//!     handle.join()
//! }
//! ```
//!
//! # Modes
//!
//! [`Mode::ReceiveOnly`] sends no replies. [`Mode::SendOnly`] runs its handler when the connection opens, and closes it with
//! 1000 when the handler is done and no [`Sender`] of it lives.
//!
//! # Limits
//!
//! Everything has a bound: message bytes, fragments, messages a second, request heads and bodies, queued bytes of a
//! connection, mail between cores, connections, the time for a handshake, silence, closing. [`Config`] has the server's, read
//! from `RINGWIRE_*` variables; a route's own are methods of [`Ws`]. Who does not keep up is closed with 1013, or loses the
//! newest or the oldest messages, or gets the latest of each key alone ([`SlowConsumer`]); nobody else waits for it.
//! [`Ws::on_drop`] and [`Ws::on_drain`] tell a handler so.
//!
//! While [`Config::max_memory`] is set, what is queued and what is incomplete counts against one budget of the whole
//! process. When it is spent no WebSocket is let in (503), and the connections that hold the most are closed with 1013, until
//! an eighth of it is free.
//!
//! # Metrics
//!
//! Every core counts for itself; [`Hub::metrics`] asks all of them, and [`metrics::Metrics::to_prometheus`] writes the text
//! that the stand-alone program serves at `/metrics`.
//!
//! ```
//! use ringwire::{App, Request, Response, metrics};
//!
//! App::new().get("/metrics", async |request: Request| {
//!     let metrics = request.hub().metrics().await;
//!     Response::bytes(metrics::CONTENT_TYPE, metrics.to_prometheus())
//! });
//! ```
//!
//! # Behind proxies, and for operators
//!
//! [`Config::trusted_proxies`] are believed when they name the client in a request's fields, and [`Config::proxy_protocol`]
//! has connections begin with a header that does: [`Request::peer`] and [`Socket::peer`] are the client then, and limits of
//! addresses count it. [`Request::is_relayed`] tells that a proxy's word it is, which makes nobody a program of this machine.
//! Routes of an [admin group](Group::admin) are on [`Config::admin_address`] alone, where that is set.
//!
//! ```
//! use ringwire::{App, Config, HttpError, Request};
//!
//! let config = Config::default()
//!     .trusted_proxies("10.0.0.0/8".parse().unwrap())
//!     .admin_address(Some("127.0.0.1:9002".parse().unwrap()));
//! let only_local = |request: &mut Request| match request.peer() {
//!     Some(peer) if peer.ip().is_loopback() && !request.is_relayed() => Ok(()),
//!     _ => Err(HttpError::forbidden("not from here")),
//! };
//! App::new().group("/internal", |group| group.admin().before(only_local).get("/version", async |_| "1"));
//! # assert!(config.validate().is_ok());
//! ```
//!
//! # Log
//!
//! Events go to `tracing`, in fields, with targets of their own: `ringwire::server` and `ringwire::limits` at info,
//! `ringwire::connection` and `ringwire::access` at debug, `ringwire::frames` at trace. No event of a peer's has a line of its
//! own at info. A subscriber that is installed before the server starts decides what is counted for them.
//!
//! # Tests
//!
//! With the feature `testing` there is `ringwire::testing`: an app runs within a test, without port, thread or real time, on
//! the cores that a server has.
//!
//! ```
//! use ringwire::testing::TestServer;
//! use ringwire::{App, Message, Socket};
//!
//! let server = TestServer::new(|| App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message)));
//! let client = server.connect("/echo");
//! client.send("hello");
//! client.expect_text("hello");
//! ```
//!
//! # What it is not
//!
//! It needs Linux with io_uring and has no fallback to epoll. It serves HTTP/1.1 for what belongs to WebSockets, not web
//! sites. It promises no order between cores but in rooms with a history, stores nothing but that, in memory, and delivers
//! at most once.

#![deny(clippy::undocumented_unsafe_blocks)]
// What is public is what follows; whoever builds on the rest of it, as the load generator and the simulation do, asks for it by
// a feature, and has no promise.
#![cfg_attr(not(feature = "unstable"), allow(unreachable_pub, dead_code, unused_imports))]

/// Modules that are no part of the interface.
macro_rules! inner {
    ($(mod $name:ident;)*) => {
        $(
            #[cfg(feature = "unstable")]
            #[doc(hidden)]
            pub mod $name;
            #[cfg(not(feature = "unstable"))]
            mod $name;
        )*
    };
}

inner! {
    mod admission;
    mod app;
    mod backplane;
    mod engine;
    mod guard;
    mod hub;
    mod mail;
    mod marks;
    mod outbox;
    mod proto;
    mod quote;
    mod remote;
    mod server;
    mod shard;
    mod tls;
}

/// As [`inner`]; the stand-alone program, a crate of its own, is made of them.
macro_rules! inner_of_program {
    ($(mod $name:ident;)*) => {
        $(
            #[cfg(any(feature = "unstable", feature = "cli"))]
            #[doc(hidden)]
            pub mod $name;
            #[cfg(not(any(feature = "unstable", feature = "cli")))]
            mod $name;
        )*
    };
}

inner_of_program! {
    mod check;
    mod standalone;
}

#[cfg(test)]
mod chance;
pub mod client;
mod closed;
pub mod config;
pub mod error;
mod machine;
mod message;
pub mod metrics;
mod runtime;
mod tables;
#[cfg(feature = "testing")]
pub mod testing;
mod wakers;

/// What the stand-alone program is made of.
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod program {
    pub use crate::check;
    pub use crate::standalone;
}

#[cfg(feature = "files")]
pub use app::Files;
pub use app::{AckError, Acknowledgement, OwnedEvent, ReplyStream, Streamed};
pub use app::{Answered, Core, Cors, LostMember};
pub use backplane::NodeInfo;
/// The types of requests and responses that are part of this interface: methods, status codes, header fields.
pub use http;

pub use app::{
    App, Connection, Events, Group, HandlerReply, HandlerResponse, HttpError, IntoResponse, IntoWs, Mode, Request,
    Response, Socket, To,
};
pub use app::{BoxError, FailurePolicy, IntoReply, Notice, Panicked, ReplySink, Sent, Undecodable, Unhandled, Ws, ws};
pub use closed::Closed;
pub use config::{Config, Deflate, History, SlowConsumer};
pub use error::{Error, Result};
pub use hub::{ConnectionId, ConnectionInfo, Delivery, JoinError, ParseIdError, RoomInfo};
pub use hub::{ParsePositionError, Position, Recovered, Since};

pub use mail::MailError;
pub use message::{
    DecodeError, EncodeError, Envelope, IntoMessage, Json, Message, OwnedMessage, RawJson, Uncompressed,
};
pub use outbox::Dropped;
pub use proto::close::{IllegalCloseCode, PingTooLong};
pub use remote::{Answer, Asking, Delivering, Hub, Receivers, Sender};
pub use runtime::{Elapsed, Interval, Sleep, Task, interval, sleep, spawn_local, timeout};
pub use server::{BoundAddress, Draining, Handle, Server};
pub use tls::{TlsInfo, TlsVersion};

/// The guide's code is compiled and run.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../docs/getting_started.md")]
    struct GettingStarted;
    #[doc = include_str!("../docs/rooms.md")]
    struct Rooms;
    #[doc = include_str!("../docs/slow_consumers.md")]
    struct SlowConsumers;
    #[cfg(feature = "tls")]
    #[doc = include_str!("../docs/tls.md")]
    struct Tls;
    #[doc = include_str!("../docs/tuning.md")]
    struct Tuning;
}
