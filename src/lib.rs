//! ringwire: a thread-per-core WebSocket server and embeddable library on io_uring.

pub mod check;
pub mod config;
pub mod engine;
pub mod error;
pub mod listen;
pub mod proto;
