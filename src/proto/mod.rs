//! Sans-IO WebSocket (RFC 6455) and HTTP/1.1 (RFC 9112): bytes in, events and bytes out.
//!
//! Nothing here knows a descriptor, a clock, a ring or a hub, and a peer's bytes never panic: they give an event or an
//! error. The way through it: [`http::parse_head`] reads the request, [`handshake::check`] decides on the upgrade,
//! [`machine::Machine`] turns everything behind it into events; [`frame::put_frame`] writes what goes back.
//!
//! Knows of this crate: nothing.

mod assembly;
pub mod close;
pub mod deflate;
pub mod error;
pub mod event;
pub mod extensions;
mod flow;
pub mod forwarded;
pub mod frame;
pub mod handshake;
pub mod http;
mod http_body;
mod http_date;
mod http_response;
mod http_target;
pub mod machine;
pub mod mask;
mod partial;
pub mod payload;
pub mod pool;
pub mod proxy;
mod spares;
pub mod utf8;

pub use error::ProtocolError;
pub use event::{Event, Incoming, Lent, Limits, Payload, Replies, Role};
pub use frame::{FrameHeader, Opcode};
pub use machine::Machine;
pub use payload::{HEADROOM, Kind, OwnedPayload};
pub use pool::Pool;
pub use spares::{Inflated, Spares};
