//! What an embedder writes against, and the [`Service`](crate::shard::service::Service) that it becomes on a core.
//!
//! In come requests, messages and ends, from the shard by way of `serve`; out go calls of the user's handlers, and what
//! these queue by way of the hub that they are lent. It never knows a ring or a socket's descriptor, never blocks, and
//! calls nothing of the user's but through [`guard`](crate::guard).
//!
//! Knows of this crate: `closed`, `config`, `guard`, `hub`, `mail`, `message`, `outbox`, `proto`, `quote`, `remote`,
//! `runtime`, `shard`, `wakers`.

pub(crate) mod connection;
pub(crate) mod context;
pub(crate) mod definition;
pub(crate) mod error_http;
pub(crate) mod events;
pub(crate) mod group;
pub(crate) mod inbox;
pub(crate) mod path;
pub(crate) mod queue;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod router;
pub(crate) mod routes;
mod rules;
pub(crate) mod serve;
pub(crate) mod socket;
mod to;
mod verbs;
pub(crate) mod ws;

pub use connection::Connection;
pub use error_http::HttpError;
pub use events::{Events, Undecodable, Unhandled};
pub use group::{App, Group};
pub use reply::{BoxError, FailurePolicy, IntoReply, Panicked, ReplySink, Sent};
pub use request::Request;
pub use response::{IntoResponse, Response};
pub use serve::service;
pub use socket::{Notice, Socket};
pub use to::To;
pub use ws::{IntoWs, Mode, Ws, ws};
