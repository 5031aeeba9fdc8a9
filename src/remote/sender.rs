//! The way to one connection from any thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::hub::ConnectionId;
use crate::hub::Order;
use crate::message::{EncodeError, IntoMessage};
use crate::outbox::Key;
use crate::remote::Delivering;
use crate::remote::Hub;

/// Sends to one connection from any thread and any runtime, without its having asked for anything. Clones are the same
/// sender; a send-only connection stays open until the last of them is dropped.
#[derive(Clone)]
pub struct Sender {
    id: ConnectionId,
    hub: Hub,
    gone: Arc<AtomicBool>,
    _alive: Option<Arc<Alive>>,
}

impl Sender {
    pub(crate) fn new(id: ConnectionId, hub: Hub, alive: Option<Arc<Alive>>, gone: Arc<AtomicBool>) -> Sender {
        Sender { id, hub, gone, _alive: alive }
    }

    /// The connection's address.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Whether the connection has gone: nothing sent from now on will arrive.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Sends a message. Awaiting the result, or [`Delivering::wait`], tells what became of it; dropping it is fine.
    ///
    /// # Errors
    /// If a value cannot be written as JSON.
    pub fn send(&self, message: impl IntoMessage) -> Result<Delivering, EncodeError> {
        self.hub.send_to(self.id, message)
    }

    /// Sends a named event, in the app's envelope.
    ///
    /// # Errors
    /// If the data cannot be written as JSON.
    pub fn emit(&self, event: &str, data: &(impl Serialize + ?Sized)) -> Result<Delivering, EncodeError> {
        self.hub.emit_to(self.id, event, data)
    }

    /// As [`Sender::send`], with a key: see [`Socket::send_keyed`](crate::Socket::send_keyed).
    ///
    /// # Errors
    /// If a value cannot be written as JSON.
    pub fn send_keyed(&self, key: impl AsRef<[u8]>, message: impl IntoMessage) -> Result<Delivering, EncodeError> {
        self.hub.to_connection(self.id).keyed(key).send(message)
    }

    /// As [`Sender::emit`], with a key: see [`Socket::send_keyed`](crate::Socket::send_keyed).
    ///
    /// # Errors
    /// If the data cannot be written as JSON.
    pub fn emit_keyed(
        &self,
        key: impl AsRef<[u8]>,
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> Result<Delivering, EncodeError> {
        self.hub.to_connection(self.id).keyed(key).emit(event, data)
    }

    pub(crate) fn send_as(&self, message: impl IntoMessage, key: Option<Key>) -> Result<Delivering, EncodeError> {
        let receivers = self.hub.to_connection(self.id);
        receivers.with_key(key).send(message)
    }
}

/// Held by every [`Sender`] of a connection; its end tells the connection's core.
pub(crate) struct Alive {
    id: ConnectionId,
    hub: Hub,
    number: u32,
}

impl Alive {
    pub(crate) fn new(id: ConnectionId, hub: Hub, number: u32) -> Arc<Alive> {
        Arc::new(Alive { id, hub, number })
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        // A core that has ended has no connection to close.
        let letter = Order::SendersEnded { id: self.id, number: self.number }.into();
        let _ = self.hub.courier().send_urgent(self.id.core(), letter);
    }
}
