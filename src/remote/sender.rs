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
///
/// ```no_run
/// use ringwire::{App, Config, Server, ws};
///
/// fn main() -> ringwire::Result<()> {
///     let (tell, told) = std::sync::mpsc::channel();
///     let app = move || {
///         let tell = tell.clone();
///         App::new().ws("/", ws().on_connect(move |socket| drop(tell.send(socket.sender()))))
///     };
///     let handle = Server::new(Config::default()).start(app)?;
///     for sender in told {
///         let delivery = sender.send("welcome, says another thread").map(|sent| sent.wait());
///         println!("{:?}: {delivery:?}", sender.id());
///     }
///     handle.join()
/// }
/// ```
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
    ///
    /// ```
    /// # use ringwire::testing::TestServer;
    /// # use ringwire::{App, Sender, ws};
    /// # use std::{cell::RefCell, rc::Rc};
    /// # let kept: Rc<RefCell<Option<Sender>>> = Rc::default();
    /// # let server = TestServer::new(|| {
    /// #     let kept = Rc::clone(&kept);
    /// #     App::new().ws("/", ws().on_connect(move |socket| drop(kept.replace(Some(socket.sender())))))
    /// # });
    /// # let client = server.connect("/");
    /// # let sender = kept.borrow().clone().unwrap();
    /// // `sender` is that of `client`.
    /// let told = server.block_on(server.hub().send_to(sender.id(), "hello").unwrap());
    /// assert_eq!(told.queued, 1);
    /// client.expect_text("hello");
    /// ```
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Whether the connection has gone: nothing sent from now on will arrive.
    ///
    /// ```
    /// # use ringwire::testing::TestServer;
    /// # use ringwire::{App, Sender, ws};
    /// # use std::{cell::RefCell, rc::Rc};
    /// # let kept: Rc<RefCell<Option<Sender>>> = Rc::default();
    /// # let server = TestServer::new(|| {
    /// #     let kept = Rc::clone(&kept);
    /// #     App::new().ws("/", ws().on_connect(move |socket| drop(kept.replace(Some(socket.sender())))))
    /// # });
    /// # let client = server.connect("/");
    /// # let sender = kept.borrow().clone().unwrap();
    /// // `sender` is that of `client`.
    /// assert!(!sender.is_gone());
    /// client.reset();
    /// assert!(sender.is_gone());
    /// ```
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Sends a message. Awaiting the result, or [`Delivering::wait`], tells what became of it; dropping it is fine.
    ///
    /// ```
    /// # use ringwire::testing::TestServer;
    /// # use ringwire::{App, Sender, ws};
    /// # use std::{cell::RefCell, rc::Rc};
    /// # let kept: Rc<RefCell<Option<Sender>>> = Rc::default();
    /// # let server = TestServer::new(|| {
    /// #     let kept = Rc::clone(&kept);
    /// #     App::new().ws("/", ws().on_connect(move |socket| drop(kept.replace(Some(socket.sender())))))
    /// # });
    /// # let client = server.connect("/");
    /// # let sender = kept.borrow().clone().unwrap();
    /// // `sender` is that of `client`.
    /// let told = server.block_on(sender.send("hello").unwrap());
    /// assert_eq!((told.queued, told.gone), (1, 0));
    /// client.expect_text("hello");
    /// ```
    ///
    /// # Errors
    /// If a value cannot be written as JSON.
    pub fn send(&self, message: impl IntoMessage) -> Result<Delivering, EncodeError> {
        self.hub.send_to(self.id, message)
    }

    /// Sends a named event, in the app's envelope.
    ///
    /// ```
    /// # use ringwire::testing::TestServer;
    /// # use ringwire::{App, Sender, ws};
    /// # use std::{cell::RefCell, rc::Rc};
    /// # let kept: Rc<RefCell<Option<Sender>>> = Rc::default();
    /// # let server = TestServer::new(|| {
    /// #     let kept = Rc::clone(&kept);
    /// #     App::new().ws("/", ws().on_connect(move |socket| drop(kept.replace(Some(socket.sender())))))
    /// # });
    /// # let client = server.connect("/");
    /// # let sender = kept.borrow().clone().unwrap();
    /// // `sender` is that of `client`.
    /// let _ = sender.emit("news", "it rains").unwrap();
    /// assert_eq!(client.expect_event("news"), "it rains");
    /// ```
    ///
    /// # Errors
    /// If the data cannot be written as JSON.
    pub fn emit(&self, event: &str, data: &(impl Serialize + ?Sized)) -> Result<Delivering, EncodeError> {
        self.hub.emit_to(self.id, event, data)
    }

    /// As [`Sender::send`], with a key: see [`Socket::send_keyed`](crate::Socket::send_keyed).
    ///
    /// ```
    /// # use ringwire::testing::TestServer;
    /// # use ringwire::{App, Sender, ws};
    /// # use std::{cell::RefCell, rc::Rc};
    /// # let kept: Rc<RefCell<Option<Sender>>> = Rc::default();
    /// # let server = TestServer::new(|| {
    /// #     let kept = Rc::clone(&kept);
    /// #     App::new().ws("/", ws().on_connect(move |socket| drop(kept.replace(Some(socket.sender())))))
    /// # });
    /// # let client = server.connect("/");
    /// # let sender = kept.borrow().clone().unwrap();
    /// // `sender` is that of `client`.
    /// for price in ["1.0844", "1.0845"] {
    ///     // To who is behind, on a route with `SlowConsumer::KeepLatest`, only the latest is sent.
    ///     let _ = sender.send_keyed("EURUSD", price).unwrap();
    /// }
    /// client.expect_text("1.0844");
    /// client.expect_text("1.0845");
    /// ```
    ///
    /// # Errors
    /// If a value cannot be written as JSON.
    pub fn send_keyed(&self, key: impl AsRef<[u8]>, message: impl IntoMessage) -> Result<Delivering, EncodeError> {
        self.hub.to_connection(self.id).keyed(key).send(message)
    }

    /// As [`Sender::emit`], with a key: see [`Socket::send_keyed`](crate::Socket::send_keyed).
    ///
    /// ```
    /// # use ringwire::testing::TestServer;
    /// # use ringwire::{App, Sender, ws};
    /// # use std::{cell::RefCell, rc::Rc};
    /// # let kept: Rc<RefCell<Option<Sender>>> = Rc::default();
    /// # let server = TestServer::new(|| {
    /// #     let kept = Rc::clone(&kept);
    /// #     App::new().ws("/", ws().on_connect(move |socket| drop(kept.replace(Some(socket.sender())))))
    /// # });
    /// # let client = server.connect("/");
    /// # let sender = kept.borrow().clone().unwrap();
    /// // `sender` is that of `client`.
    /// let _ = sender.emit_keyed("EURUSD", "price", &1.0845).unwrap();
    /// assert_eq!(client.expect_event("price"), 1.0845);
    /// ```
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

    /// As [`Sender::emit`], and it is sent as it is, whatever compression was agreed: see [`IntoMessage::uncompressed`].
    ///
    /// ```
    /// # use ringwire::testing::TestServer;
    /// # use ringwire::{App, Deflate, Sender, ws};
    /// # use std::{cell::RefCell, rc::Rc};
    /// # let kept: Rc<RefCell<Option<Sender>>> = Rc::default();
    /// # let server = TestServer::new(|| {
    /// #     let kept = Rc::clone(&kept);
    /// #     let route = ws().deflate(Deflate::Stateless);
    /// #     App::new().ws("/", route.on_connect(move |socket| drop(kept.replace(Some(socket.sender())))))
    /// # });
    /// # let client = server.handshake("/").deflate().open();
    /// # let sender = kept.borrow().clone().unwrap();
    /// // `sender` is that of `client`.
    /// let token = "4711 ".repeat(100);
    /// let _ = sender.emit_uncompressed("token", &token).unwrap();
    /// assert_eq!(client.expect_event("token"), token);
    /// assert_eq!(client.inflated_messages(), 0);
    /// ```
    ///
    /// # Errors
    /// If the data cannot be written as JSON.
    pub fn emit_uncompressed(
        &self,
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> Result<Delivering, EncodeError> {
        self.hub.to_connection(self.id).uncompressed().emit(event, data)
    }

    /// Sends all messages of a stream, no faster than the peer reads: the next one is taken when most of what is queued has
    /// been sent. Ends early when the connection does, or when a message is not queued. Says what became of them.
    ///
    /// ```
    /// # use ringwire::testing::TestServer;
    /// # use ringwire::{App, Sender, ws};
    /// # use std::{cell::RefCell, rc::Rc};
    /// # let kept: Rc<RefCell<Option<Sender>>> = Rc::default();
    /// # let server = TestServer::new(|| {
    /// #     let kept = Rc::clone(&kept);
    /// #     App::new().ws("/", ws().on_connect(move |socket| drop(kept.replace(Some(socket.sender())))))
    /// # });
    /// # let client = server.connect("/");
    /// # let sender = kept.borrow().clone().unwrap();
    /// use futures_util::stream;
    ///
    /// // `sender` is that of `client`.
    /// let numbers = stream::iter((0..3).map(|number| number.to_string()));
    /// let told = server.block_on(sender.send_stream(numbers)).unwrap();
    /// assert_eq!(told.queued, 3);
    /// ["0", "1", "2"].map(|number| client.expect_text(number));
    /// ```
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
    /// ```
    /// # use ringwire::testing::TestServer;
    /// # use ringwire::{App, Sender, ws};
    /// # use std::{cell::RefCell, rc::Rc};
    /// # let kept: Rc<RefCell<Option<Sender>>> = Rc::default();
    /// # let server = TestServer::new(|| {
    /// #     let kept = Rc::clone(&kept);
    /// #     App::new().ws("/", ws().on_connect(move |socket| drop(kept.replace(Some(socket.sender())))))
    /// # });
    /// # let client = server.connect("/");
    /// # let sender = kept.borrow().clone().unwrap();
    /// // `sender` is that of `client`.
    /// assert!(sender.close(1006, "not a code that is sent").is_err());
    /// assert_eq!(server.block_on(sender.close(4000, "your time is up").unwrap()), Some(true));
    /// assert_eq!(client.expect_close(4000), "your time is up");
    /// ```
    ///
    /// # Errors
    /// If the code is not one that may be sent: 1000-1003, 1007-1014 and 3000-4999 may. Nothing happens then.
    pub fn close(&self, code: u16, reason: impl Into<String>) -> Result<Asking<bool>, IllegalCloseCode> {
        self.hub.disconnect(self.id, code, reason)
    }

    /// As [`Sender::close`], with a Close frame that has neither a code nor a reason.
    ///
    /// ```
    /// # use ringwire::testing::TestServer;
    /// # use ringwire::{App, Sender, ws};
    /// # use std::{cell::RefCell, rc::Rc};
    /// # let kept: Rc<RefCell<Option<Sender>>> = Rc::default();
    /// # let server = TestServer::new(|| {
    /// #     let kept = Rc::clone(&kept);
    /// #     App::new().ws("/", ws().on_connect(move |socket| drop(kept.replace(Some(socket.sender())))))
    /// # });
    /// # let client = server.connect("/");
    /// # let sender = kept.borrow().clone().unwrap();
    /// // `sender` is that of `client`.
    /// assert_eq!(server.block_on(sender.close_without_code()), Some(true));
    /// client.expect_close(1005);
    /// ```
    pub fn close_without_code(&self) -> Asking<bool> {
        self.hub.disconnect_without_code(self.id)
    }

    /// Sends a ping: see [`Hub::ping`].
    ///
    /// ```
    /// # use ringwire::testing::TestServer;
    /// # use ringwire::{App, Sender, ws};
    /// # use std::{cell::RefCell, rc::Rc};
    /// # let kept: Rc<RefCell<Option<Sender>>> = Rc::default();
    /// # let server = TestServer::new(|| {
    /// #     let kept = Rc::clone(&kept);
    /// #     App::new().ws("/", ws().on_connect(move |socket| drop(kept.replace(Some(socket.sender())))))
    /// # });
    /// # let client = server.connect("/");
    /// # let sender = kept.borrow().clone().unwrap();
    /// // `sender` is that of `client`.
    /// let told = server.block_on(sender.ping("there?").unwrap());
    /// assert_eq!(told.map(|told| told.queued), Some(1));
    /// assert_eq!(client.expect_ping(), "there?");
    /// ```
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
