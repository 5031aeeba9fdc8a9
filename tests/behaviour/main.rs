//! What an app's routes, hooks and handlers do, shown on a real server: a test for each capability that five other
//! frameworks' documents describe, named after its row, and what was added to them. Clients are tungstenite, plain TCP, and
//! plain HTTP; the examples that port those documents are served here as they are.

#![forbid(unsafe_code)]

#[path = "../common/mod.rs"]
mod common;
mod examples;
mod rig;

mod acks;
mod apps;
mod clients;
mod closing;
mod events;
#[cfg(feature = "files")]
mod files;
mod handshake;
mod hooks;
mod http;
mod ids;
mod limits;
mod messages;
mod modes;
mod replies;
mod responses;
mod rooms;
mod routes;
mod sending;
mod streams;
