//! ringwire: a thread-per-core WebSocket server and embeddable library on io_uring.

#![deny(clippy::undocumented_unsafe_blocks)]

#[doc(hidden)]
pub mod admission;
mod app;
pub mod check;
pub mod client;
pub mod config;
mod connection;
mod context;
#[doc(hidden)]
pub mod core_app;
mod emit;
#[doc(hidden)]
pub mod engine;
pub mod error;
mod error_http;
mod events;
#[doc(hidden)]
pub mod frame_buf;
#[doc(hidden)]
pub mod hub;
#[doc(hidden)]
pub mod id;
pub mod listen;
#[doc(hidden)]
pub mod mail;
mod message;
pub mod metrics;
#[doc(hidden)]
pub mod outbox;
mod peer;
pub mod proto;
mod reply;
mod request;
mod response;
mod runtime;
mod sender;
mod server;
#[doc(hidden)]
pub mod service;
#[doc(hidden)]
pub mod shard;
mod socket;
pub mod standalone;
mod ws;

pub use app::{App, Group};
pub use config::{Config, SlowConsumer};
pub use connection::Connection;
pub use emit::{Asking, Delivering};
pub use error::{Error, Result};
pub use error_http::HttpError;
pub use events::{Events, Undecodable};
pub use hub::{ConnectionInfo, Delivery, Hub, JoinError};
pub use id::{ConnectionId, ParseIdError};
pub use message::{DecodeError, EncodeError, Envelope, IntoMessage, Json, Message, OwnedMessage};
pub use reply::{BoxError, FailurePolicy, IntoReply, ReplySink, Sent};
pub use request::Request;
pub use response::{IntoResponse, Response};
pub use runtime::{Elapsed, Interval, Sleep, Task, interval, sleep, spawn_local, timeout};
pub use sender::Sender;
pub use server::{Handle, Server};
pub use socket::{IllegalCloseCode, Socket, To};
pub use ws::{Closed, IntoWs, Mode, Ws, ws};
