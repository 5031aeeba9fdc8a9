//! A connection as its own task sees it: messages are awaited, and the core stops receiving from a peer whose messages
//! are not taken.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::ops::Deref;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use futures_core::Stream;
use serde::Serialize;

use crate::app::context::CoreContext;
use crate::app::inbox::Inbox;
use crate::app::queue::{Queue, send_message};
use crate::app::reply::{ReplySink, Sent};
use crate::app::request::Request;
use crate::hub::{ConnectionId, CoreHub};
use crate::message::{EncodeError, Envelope, IntoMessage, Message, OwnedMessage};
use crate::outbox::Key;
use crate::proto::close::{self, IllegalCloseCode};
use crate::remote::Hub;
use crate::remote::Sender;

/// Queued bytes from which [`Connection::ready`] waits.
pub(crate) const READY_BYTES_MAX: usize = 64 << 10;

/// A WebSocket in the hands of a task of its core. Dropping it does not close the connection.
///
/// Clones are the same connection, and may outlive the route's task. Messages go to whichever clone asks first, and as long
/// as there is a clone they wait for it: where the inbox is full, nothing more is read from the peer. Whoever only sends
/// keeps a [`Connection::sender`] instead. When the last clone has gone, messages that wait and those that still come are
/// thrown away, and counted in the metrics (`ringwire_messages_discarded_total`).
#[derive(Clone)]
pub struct Connection {
    pub(crate) core: Rc<CoreContext>,
    pub(crate) inbox: Rc<Reader>,
    pub(crate) request: Option<Rc<Request>>,
    pub(crate) sender: Sender,
    pub(crate) id: ConnectionId,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) discard_replies: bool,
}

impl Connection {
    /// The connection's address in the whole process.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The next message; `None` when the connection has ended and all its messages have been taken.
    pub async fn recv(&mut self) -> Option<OwnedMessage> {
        let mut waiter = self.inbox.receiver();
        poll_fn(|cx| {
            if let Some((message, wants_more)) = self.inbox.pop() {
                if wants_more {
                    let id = self.id;
                    self.core.runtime.with_hub(move |hub| hub.release(id));
                }
                return Poll::Ready(Some(message));
            }
            if self.inbox.is_closed() {
                return Poll::Ready(None);
            }
            waiter.wait(cx.waker());
            Poll::Pending
        })
        .await
    }

    /// Queues a message.
    pub fn send(&mut self, message: impl IntoMessage) -> Sent {
        self.queue_message(message, None)
    }

    /// Queues a named event, in the app's envelope.
    ///
    /// # Errors
    /// If the data cannot be written as JSON.
    pub fn emit(&mut self, event: &str, data: &(impl Serialize + ?Sized)) -> Result<Sent, EncodeError> {
        self.queue_event(event, data, None)
    }

    /// As [`Connection::send`], with a key: see [`Socket::send_keyed`](crate::Socket::send_keyed).
    pub fn send_keyed(&mut self, key: impl AsRef<[u8]>, message: impl IntoMessage) -> Sent {
        self.queue_message(message, Some(Key::of(key.as_ref())))
    }

    /// As [`Connection::emit`], with a key: see [`Socket::send_keyed`](crate::Socket::send_keyed).
    ///
    /// # Errors
    /// If the data cannot be written as JSON.
    pub fn emit_keyed(
        &mut self,
        key: impl AsRef<[u8]>,
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> Result<Sent, EncodeError> {
        self.queue_event(event, data, Some(Key::of(key.as_ref())))
    }

    /// Sends all messages of a stream, no faster than the peer reads: the next one is taken when most of what is queued has
    /// been sent, so none is lost if the future is dropped. Ends early when the connection does, with [`Sent::Gone`], or when
    /// a message is not queued.
    pub async fn send_stream<M: IntoMessage>(&mut self, stream: impl Stream<Item = M>) -> Sent {
        let mut stream = pin!(stream);
        loop {
            self.ready().await;
            let next = {
                let mut waiter = self.inbox.sender();
                poll_fn(|cx| {
                    if self.is_closed() {
                        return Poll::Ready(Err(Sent::Gone));
                    }
                    let next = stream.as_mut().poll_next(cx);
                    if next.is_pending() {
                        waiter.wait(cx.waker());
                    }
                    next.map(Ok)
                })
                .await
            };
            let sent = match next {
                Ok(Some(message)) => self.send(message),
                Ok(None) => return Sent::Queued,
                Err(gone) => gone,
            };
            if sent != Sent::Queued {
                return sent;
            }
        }
    }

    /// Waits until most of what is queued has been taken by the socket, or the connection has ended.
    pub async fn ready(&mut self) {
        let mut waiter = self.inbox.sender();
        poll_fn(|cx| {
            if self.is_closed() || !self.is_behind() {
                return Poll::Ready(());
            }
            waiter.wait(cx.waker());
            Poll::Pending
        })
        .await;
    }

    /// Whether much is queued; if so, those who wait are woken when it is not any more.
    fn is_behind(&self) -> bool {
        let id = self.id;
        let is_behind = |hub: &mut CoreHub| {
            let is_behind = hub.resolve(id).is_some_and(|slot| hub.outbox.queued_bytes(slot) > READY_BYTES_MAX);
            if is_behind {
                hub.outbox.note_falls_from(READY_BYTES_MAX);
            }
            is_behind
        };
        self.core.runtime.try_with_hub(is_behind).unwrap_or(false)
    }

    /// Bytes queued and not yet taken by the socket.
    pub fn outbox_bytes(&self) -> usize {
        let id = self.id;
        let queued = |hub: &mut CoreHub| hub.resolve(id).map_or(0, |slot| hub.outbox.queued_bytes(slot));
        self.core.runtime.try_with_hub(queued).unwrap_or(0)
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.inbox.is_closed()
    }

    /// Closes the connection after what has been queued to it. The reason is cut to 123 bytes.
    ///
    /// # Errors
    /// If the code is not one that may be sent.
    pub fn close(&mut self, code: u16, reason: &str) -> Result<(), IllegalCloseCode> {
        let code = close::legal(code)?;
        let (id, reason) = (self.id, reason.to_owned());
        self.core.runtime.with_hub(move |hub| {
            if let Some(slot) = hub.resolve(id) {
                hub.close(slot, Some(code), reason);
            }
        });
        Ok(())
    }

    /// The request that opened it, without a body.
    ///
    /// # Panics
    /// On a route that does not keep it.
    pub fn request(&self) -> &Request {
        self.request.as_deref().expect("the route forgets its requests")
    }

    /// A parameter of the route's path; empty if there is none of that name.
    pub fn param(&self, name: &str) -> &str {
        self.request.as_deref().map_or("", |request| request.param(name))
    }

    /// The peer's address; `None` on a Unix socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The way to this connection from any thread.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// The way to all connections from any thread.
    pub fn hub(&self) -> &Hub {
        &self.core.hub
    }
}

/// What the clones of a connection have in common: the hold on its inbox, which nobody reads any more when this is dropped.
pub(crate) struct Reader {
    inbox: Rc<Inbox>,
    core: Rc<CoreContext>,
    id: ConnectionId,
}

impl Reader {
    pub(crate) fn new(inbox: Rc<Inbox>, core: Rc<CoreContext>, id: ConnectionId) -> Rc<Reader> {
        Rc::new(Reader { inbox, core, id })
    }
}

impl Deref for Reader {
    type Target = Inbox;

    fn deref(&self) -> &Inbox {
        &self.inbox
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let (unread, id) = (self.inbox.abandon() as u64, self.id);
        self.core.runtime.with_hub(move |hub| {
            hub.counters.messages_discarded += unread;
            hub.release(id);
        });
    }
}

impl Queue for Connection {
    fn envelope(&self) -> Envelope {
        self.core.envelope()
    }

    fn queue(&mut self, message: Message<'_>, key: Option<Key>) -> Sent {
        let id = self.id;
        let mut message = Some(message);
        let sent = self.core.runtime.try_with_hub(|hub| match (hub.resolve(id), message.take()) {
            (Some(slot), Some(message)) => send_message(hub, slot, message, key),
            _ => Sent::Gone,
        });
        // Between tasks' phases: the message goes the way of other threads.
        sent.unwrap_or_else(|| match message.take().map(|message| self.sender.send_as(message, key)) {
            Some(Ok(_)) => Sent::Queued,
            _ => Sent::Dropped,
        })
    }
}

impl ReplySink for Connection {
    fn send_reply(&mut self, message: Message<'_>) -> Sent {
        if self.discard_replies { Sent::Dropped } else { self.queue(message, None) }
    }
}
