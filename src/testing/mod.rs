//! Tests of apps without a port, a thread or real time: the cargo feature `testing`.
//!
//! A [`TestServer`] runs an [`App`](crate::App) on the cores that a real server has, parser, outboxes, rooms, timers and all,
//! but on a simulated ring, in the test's own thread and against a virtual clock. A test of seconds takes microseconds,
//! nothing is flaky, and what a test saw once it sees again.
//!
//! ```
//! use ringwire::testing::TestServer;
//! use ringwire::{App, ws};
//!
//! // A chat room.
//! let server = TestServer::new(|| {
//!     App::new().ws(
//!         "/rooms/{room}",
//!         ws().on_connect(|socket| socket.join(socket.param("room")))
//!             .on_message(|socket, message| socket.to_own_room(message)),
//!     )
//! });
//! let (ann, ben) = (server.connect("/rooms/lobby"), server.connect("/rooms/lobby"));
//! let eve = server.connect("/rooms/other");
//! ann.send("hello");
//! ben.expect_text("hello");
//! eve.expect_nothing();
//! ```
//!
//! # Time
//!
//! What a test does has taken effect when the call returns, as far as that takes no time. Time stands still but for
//! [`TestServer::advance`], and where something is expected: then it goes on, from one event to the next, until that is there,
//! at most for the test's [patience](TestServerBuilder::patience). Pings, timeouts, intervals and sleeping tasks fall due as it
//! goes, the server's own timeouts up to 16 ms late, as on a real one. An app that asks [`std::time`] sees real time, and threads of its own are not waited for, except by
//! [`TestServer::block_on`].
//!
//! # Faults and seeds
//!
//! A [client](TestClient) can pause, read slowly, leave or be reset, and [`Faults`] has the network and the kernel do what
//! they may do to any connection: send less than was asked, deliver in pieces, late and in another order. All chance comes from
//! one seed, ids of connections included: the same seed is the same run. A test that fails says its seed and the variable
//! that repeats it, `RINGWIRE_TEST_SEED`, and shows what its clients did and saw last. [`seeds()`] tries many.
//!
//! # Units
//!
//! Hooks and handlers are functions of a [`Request`](crate::Request): [`request`] makes one by hand, [`block_on`] runs what is
//! async, and [`TestResponse::of`] reads what they answer.
//!
//! Knows of this crate: `admission`, `app`, `config`, `engine`, `hub`, `mail`, `message`, `proto`, `quote`, `remote`, `server`,
//! `shard`.

mod calls;
mod client;
mod cores;
mod faults;
mod line;
mod request;
mod response;
mod seeds;
mod server;
mod stage;
mod trace;

pub use calls::{PendingResponse, TestCall, TestHandshake};
pub use client::TestClient;
pub use faults::Faults;
pub use request::{RequestBuilder, request};
pub use response::TestResponse;
pub use seeds::seeds;
pub use server::{TestServer, TestServerBuilder, block_on};

/// The guide: its snippets compile and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/testing.md")]
struct Guide;
