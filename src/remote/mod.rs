//! What any thread may hold: the way to all connections ([`Hub`]), to some of them ([`Receivers`]) and to one ([`Sender`]),
//! and the answers to what went that way.
//!
//! In comes what a user sends, from any thread; out go letters to cores, and answers. Nothing here knows a ring, a
//! connection's state or a handler: what a core does with a letter is `hub`'s.
//!
//! Knows of this crate: `admission`, `hub`, `mail`, `message`, `metrics`, `outbox`, `proto`, `runtime`.

mod hub;
mod receivers;
mod rooms;
mod sender;

pub use hub::{AskAll, CoreEnd, Hub};
pub use receivers::{Asking, Delivering, Receivers};
pub(crate) use sender::Alive;
pub use sender::Sender;
