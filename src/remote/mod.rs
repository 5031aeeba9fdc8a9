//! What any thread may hold: the way to all connections ([`Hub`]), to some of them ([`Receivers`]) and to one ([`Sender`]),
//! and the answers to what went that way.
//!
//! In comes what a user sends, from any thread; out go letters to cores, and answers. Nothing here knows a ring, a
//! connection's state or a handler: what a core does with a letter is `hub`'s.
//!
//! Knows of this crate: `admission`, `backplane`, `hub`, `mail`, `message`, `metrics`, `outbox`, `proto`, `runtime`.

mod abroad;
mod answers;
mod connections;
mod hub;
mod receivers;
mod rooms;
mod sender;

pub use answers::{Answer, Asking, Delivering};
pub use hub::{AskAll, CoreEnd, Hub};
pub use receivers::Receivers;
pub(crate) use sender::Alive;
pub use sender::Sender;

use std::sync::Arc;

use crate::admission::Admission;
use crate::hub::Letter;
use crate::mail::Courier;

/// The way in through `courier`, as a server makes it for its cores.
pub fn hub(courier: Courier<Letter>, admission: Arc<Admission>) -> Hub {
    Hub::new(courier, admission)
}

/// What tells the other cores that one has ended, when it is dropped.
pub fn end_of(hub: &Hub, core: usize) -> CoreEnd {
    hub.end_of(core)
}
