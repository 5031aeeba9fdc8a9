//! How messages get into a connection's queue, from its handlers and from its tasks alike.

use crate::app::reply::Sent;
use crate::hub::CoreHub;
use crate::message::{EncodeError, IntoMessage, Message};
use crate::outbox::{Key, Queued};
use crate::proto::Payload;

/// Has `queue` queue a message; one that cannot be written is dropped, which the log tells.
#[inline]
pub(super) fn queue_message(message: impl IntoMessage, queue: impl FnOnce(Message<'_>) -> Sent) -> Sent {
    message.with_message(queue).unwrap_or_else(unsent)
}

#[cold]
fn unsent(error: EncodeError) -> Sent {
    tracing::error!(%error, "a message was not sent");
    Sent::Dropped
}

/// Inlined, so that where there is no key nothing asks for one.
#[inline]
pub(crate) fn send_message(hub: &mut CoreHub, slot: u32, message: Message<'_>, key: Option<Key>) -> Sent {
    let queued = match (key, &message.0.payload) {
        (key, payload) if message.0.uncompressed => hub.send_uncompressed(slot, message.0.kind.into(), payload, key),
        (Some(key), payload) => hub.send_keyed(slot, message.0.kind.into(), payload, key),
        (None, Payload::Borrowed(payload)) => hub.send(slot, message.0.kind.into(), payload),
        (None, Payload::Owned(_)) => hub.send_incoming(slot, message.0),
    };
    sent(queued)
}

#[inline]
pub(crate) fn sent(queued: Queued) -> Sent {
    match queued {
        Queued::Yes => Sent::Queued,
        Queued::Full => Sent::Dropped,
        Queued::Gone => Sent::Gone,
    }
}
