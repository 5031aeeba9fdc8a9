//! What an embedder writes against, and the [`Service`](crate::shard::service::Service) that it becomes on a core.
//!
//! In come requests, messages and ends, from the shard by way of `serve`; out go calls of the user's handlers, and what
//! these queue by way of the hub that they are lent. It never knows a ring or a socket's descriptor, never blocks, and
//! calls nothing of the user's but through [`guard`](crate::guard).
//!
//! Knows of this crate: `closed`, `config`, `guard`, `hub`, `mail`, `message`, `outbox`, `proto`, `quote`, `remote`,
//! `runtime`, `shard`, `tls`, `wakers`.

pub(crate) mod acks;
pub(crate) mod answered;
pub(crate) mod before;
pub(crate) mod calls;
pub(crate) mod connection;
pub(crate) mod context;
pub(crate) mod cors;
pub(crate) mod definition;
pub(crate) mod error_http;
pub(crate) mod event;
pub(crate) mod events;
#[cfg(feature = "files")]
pub(crate) mod files;
pub(crate) mod group;
pub(crate) mod handlers;
pub(crate) mod inbox;
pub(crate) mod layers;
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
pub(crate) mod state;
pub(crate) mod stream;
mod to;
pub(crate) mod values;
mod verbs;
pub(crate) mod ws;

pub use acks::{AckError, Acknowledgement};
pub use answered::Answered;
pub use connection::Connection;
pub use cors::Cors;
pub use error_http::HttpError;
pub use event::{OwnedEvent, Unhandled};
pub use events::{Events, Undecodable};
#[cfg(feature = "files")]
pub use files::Files;
pub use group::{App, Group, LostMember};
pub use reply::{BoxError, FailurePolicy, HandlerReply, IntoReply, Panicked, ReplySink, ReplyStream, Sent, Streamed};
pub use request::Request;
pub use response::{HandlerResponse, IntoResponse, Response};
pub use serve::service;
pub use socket::{Notice, Socket};
pub use state::Core;
pub use to::To;
pub use ws::{IntoWs, Mode, Ws, ws};
