//! ringwire: a thread-per-core WebSocket server and embeddable library on io_uring.

#![deny(clippy::undocumented_unsafe_blocks)]

pub mod admission;
pub mod check;
pub mod config;
pub mod engine;
pub mod error;
pub mod frame_buf;
pub mod hub;
pub mod id;
pub mod listen;
pub mod mail;
pub mod metrics;
pub mod outbox;
pub mod proto;
pub mod server;
pub mod shard;
pub mod standalone;

pub use config::Config;
pub use error::{Error, Result};
pub use hub::{Delivery, Hub};
pub use id::ConnectionId;
pub use server::{Handle, Server};
