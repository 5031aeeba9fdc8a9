//! The real server on real sockets, with an independent client: what it does when all goes well, and how connections and
//! the server itself end.

#![forbid(unsafe_code)]

#[path = "../common/mod.rs"]
mod common;

mod balance;
mod close;
mod cores;
mod drains;
mod echo;
mod ends;
mod frail;
mod http;
mod hub;
mod operators;
mod panics;
mod rooms;
#[cfg(feature = "cli")]
mod shutdown;
mod sockets;
mod upgrades;
