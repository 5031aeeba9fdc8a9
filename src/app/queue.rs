//! How messages get into a connection's queue, from its handlers and from its tasks alike.

use serde::Serialize;

use crate::app::reply::Sent;
use crate::hub::CoreHub;
use crate::message::{EncodeError, Envelope, IntoMessage, Message, borrowed};
use crate::outbox::{Key, Queued};
use crate::proto::{Kind, Payload};

/// How messages and events get into one connection's queue: what [`Socket`](crate::Socket) and [`Connection`](crate::Connection) share.
pub(crate) trait Queue {
    fn envelope(&self) -> Envelope;

    fn queue(&mut self, message: Message<'_>, key: Option<Key>) -> Sent;

    #[inline]
    fn queue_message(&mut self, message: impl IntoMessage, key: Option<Key>) -> Sent {
        match message.with_message(|message| self.queue(message, key)) {
            Ok(sent) => sent,
            Err(error) => {
                tracing::error!(%error, "a message was not sent");
                Sent::Dropped
            }
        }
    }

    fn queue_event(
        &mut self,
        event: &str,
        data: &(impl Serialize + ?Sized),
        key: Option<Key>,
    ) -> Result<Sent, EncodeError> {
        let text = self.envelope().encode(event, data)?;
        Ok(self.queue(borrowed(Kind::Text, &text), key))
    }
}

/// Inlined, so that where there is no key nothing asks for one.
#[inline]
pub(crate) fn send_message(hub: &mut CoreHub, slot: u32, message: Message<'_>, key: Option<Key>) -> Sent {
    let queued = match (key, &message.0.payload) {
        (Some(key), payload) => hub.send_keyed(slot, message.0.kind.into(), payload, key),
        (None, Payload::Borrowed(payload)) => hub.send(slot, message.0.kind.into(), payload),
        (None, Payload::Owned(_)) => hub.send_incoming(slot, message.0),
    };
    sent(queued)
}

#[inline]
fn sent(queued: Queued) -> Sent {
    match queued {
        Queued::Yes => Sent::Queued,
        Queued::Full => Sent::Dropped,
        Queued::Gone => Sent::Gone,
    }
}
