//! ringwire: a thread-per-core WebSocket server and embeddable library on io_uring.

pub mod engine;
pub mod proto;
