//! The client against this project's server, against tungstenite as an independent one, and against servers that do what
//! no server should.

#![forbid(unsafe_code)]

#[path = "../common/mod.rs"]
mod common;

mod close;
mod echo;
mod handshake;
mod load;
mod reconnect;
mod runtimes;
mod servers;
mod tls;
