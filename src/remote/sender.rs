//! The way to one connection from any thread.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use std::task::Poll;

use futures_core::Stream;
use serde::Serialize;

use crate::hub::{ConnectionId, CoreHub, Delivery, Order};
use crate::message::{EncodeError, IntoMessage};
use crate::outbox::Key;
use crate::proto::close::{IllegalCloseCode, PingTooLong};
use crate::remote::Hub;
use crate::remote::{Asking, Delivering};

/// Sends to one connection from any thread and any runtime, without its having asked for anything. Clones are the same
/// sender; a send-only connection stays open until the last of them is dropped.
#[derive(Clone)]
pub struct Sender {
    id: ConnectionId,
    hub: Hub,
    gone: Arc<AtomicBool>,
    _alive: Option<Arc<Alive>>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("id", &self.id()).finish_non_exhaustive()
    }
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

    /// Sends all messages of a stream, no faster than the peer reads: the next one is taken when most of what is queued has
    /// been sent. Ends early when the connection does, or when a message is not queued. Says what became of them.
    ///
    /// # Errors
    /// If a value cannot be written as JSON; nothing is sent of the stream behind it.
    pub async fn send_stream<M: IntoMessage>(&self, stream: impl Stream<Item = M>) -> Result<Delivery, EncodeError> {
        let mut stream = pin!(stream);
        let mut ended = pin!(self.when(CoreHub::tell_when_ended));
        let mut sum = Delivery::default();
        loop {
            self.when(CoreHub::tell_when_ready).await;
            let next = poll_fn(|cx| match ended.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => stream.as_mut().poll_next(cx),
            });
            let Some(message) = next.await else { return Ok(sum) };
            let delivery = self.send(message)?.await;
            sum.queued += delivery.queued;
            sum.dropped += delivery.dropped;
            sum.gone += delivery.gone;
            sum.refused += delivery.refused;
            if delivery.queued == 0 {
                return Ok(sum);
            }
        }
    }

    /// Waits until the connection's core tells.
    async fn when(&self, tell: fn(&mut CoreHub, ConnectionId, oneshot::Sender<()>)) {
        let (id, (told, word)) = (self.id, oneshot::channel());
        // Where the core cannot be asked, the next message is refused too.
        drop(self.hub.ask(id.core(), move |hub| tell(hub, id, told)));
        let _ = word.await;
    }

    /// Closes the connection, after what has been queued to it: see [`Hub::disconnect`].
    ///
    /// # Errors
    /// If the code is not one that may be sent: 1000-1003, 1007-1014 and 3000-4999 may. Nothing happens then.
    pub fn close(&self, code: u16, reason: impl Into<String>) -> Result<Asking<bool>, IllegalCloseCode> {
        self.hub.disconnect(self.id, code, reason)
    }

    /// As [`Sender::close`], with a Close frame that has neither a code nor a reason.
    pub fn close_without_code(&self) -> Asking<bool> {
        self.hub.disconnect_without_code(self.id)
    }

    /// Sends a ping: see [`Hub::ping`].
    ///
    /// # Errors
    /// If the payload has more than 125 bytes (RFC 6455 5.5).
    pub fn ping(&self, payload: impl AsRef<[u8]>) -> Result<Asking<Delivery>, PingTooLong> {
        self.hub.ping(self.id, payload)
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
