//! Sets of receivers: the members of a room, the connections of a route, or all.

use std::rc::Rc;

use serde::Serialize;

use crate::app::connection::Connection;
use crate::app::context::CoreContext;
use crate::app::socket::Socket;
use crate::hub::{CoreHub, Delivery, Scope};
use crate::message::{EncodeError, IntoMessage, Message, borrowed};
use crate::outbox::Key;
use crate::proto::Kind;

/// A set of receivers, from [`Socket::to`] and its like. The counts it returns are of this core; other cores deliver in
/// their own next tick. [`Hub`](crate::Hub) has the same with the sum of all cores.
#[must_use = "it sends nothing by itself"]
pub struct To<'s> {
    way: Way<'s>,
    scope: Scope,
    key: Option<Key>,
    uncompressed: bool,
    except_self: bool,
}

/// How what is sent gets to the core's hub.
pub(super) enum Way<'s> {
    /// A handler has it in its hands.
    Handler { hub: &'s mut CoreHub, core: &'s Rc<CoreContext>, slot: u32 },
    /// It is lent to tasks.
    Task(&'s Connection),
}

impl<'s> From<&'s mut Socket<'_>> for Way<'s> {
    fn from(socket: &'s mut Socket<'_>) -> Way<'s> {
        Way::Handler { hub: socket.hub, core: socket.core, slot: socket.slot }
    }
}

impl<'s> From<&'s Connection> for Way<'s> {
    fn from(connection: &'s Connection) -> Way<'s> {
        Way::Task(connection)
    }
}

impl<'s> To<'s> {
    pub(super) fn new(way: impl Into<Way<'s>>, scope: Scope) -> To<'s> {
        To { way: way.into(), scope, key: None, uncompressed: false, except_self: false }
    }
}

impl To<'_> {
    /// Not to the connection that sends.
    pub fn except_self(mut self) -> Self {
        self.except_self = true;
        self
    }

    /// Gives the message a key: to a connection that is behind, on a route with
    /// [`SlowConsumer::KeepLatest`](crate::SlowConsumer::KeepLatest), it replaces an older one with the same key. Elsewhere
    /// a key changes nothing.
    pub fn keyed(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(Key::of(key.as_ref()));
        self
    }

    /// Has it sent as it is, whatever compression was agreed: see [`IntoMessage::uncompressed`].
    pub fn uncompressed(mut self) -> Self {
        self.uncompressed = true;
        self
    }

    /// Sends a message.
    ///
    /// # Errors
    /// If a value cannot be written as JSON.
    pub fn send(self, message: impl IntoMessage) -> Result<Delivery, EncodeError> {
        message.with_message(|message| self.deliver(message))
    }

    /// Sends a named event, in the app's envelope.
    ///
    /// # Errors
    /// If the data cannot be written as JSON.
    pub fn emit(self, event: &str, data: &(impl Serialize + ?Sized)) -> Result<Delivery, EncodeError> {
        let envelope = match &self.way {
            Way::Handler { core, .. } => core.envelope(),
            Way::Task(connection) => connection.core().envelope(),
        };
        let text = envelope.encode(event, data)?;
        Ok(self.deliver(borrowed(Kind::Text, &text)))
    }

    fn deliver(self, mut message: Message<'_>) -> Delivery {
        let To { way, scope, key, uncompressed, except_self } = self;
        message.0.uncompressed |= uncompressed;
        match way {
            Way::Handler { hub, core, slot } => {
                core.runtime.catch_up(hub);
                hub.send_to_scope(&scope, message.0, key, except_self.then_some(slot))
            }
            Way::Task(connection) => {
                let deliver = |hub: &mut CoreHub| {
                    let slot = hub.find(connection.id()).filter(|_| except_self);
                    hub.send_to_scope(&scope, message.0, key, slot)
                };
                connection.on_hub(deliver).unwrap_or_default()
            }
        }
    }
}
