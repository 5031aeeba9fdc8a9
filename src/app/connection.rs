//! A connection as its own task sees it: messages are awaited, and the core stops receiving from a peer whose messages
//! are not taken.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::thread;

use futures_core::Stream;

use crate::app::context::{CoreContext, Extensions};
use crate::app::inbox::Inbox;
use crate::app::queue::send_message;
use crate::app::reply::{ReplySink, Sent};
use crate::app::request::Request;
use crate::app::rules::Rules;
use crate::app::socket::{Notice, Socket};
use crate::hub::{ConnectionId, CoreHub, JoinError, READY_BYTES_MAX, RouteName};
use crate::message::{IntoMessage, Message, OwnedMessage};
use crate::outbox::Key;
use crate::remote::Sender;

/// A WebSocket in the hands of a task of its core. Dropping it does not close the connection.
///
/// Clones are the same connection, and may outlive the route's task. Messages go to whichever clone asks first, and as long
/// as there is a clone they wait for it: where the inbox is full, nothing more is read from the peer. Whoever only sends
/// keeps a [`Connection::sender`] instead. When the last clone has gone, messages that wait and those that still come are
/// thrown away, and counted in the metrics (`ringwire_messages_discarded_total`).
///
/// It has all that a [`Socket`] has, for tasks of its core, which are lent what the core knows. After its end it is in no room,
/// has no data and can send nothing, and its request, its extensions, [`Connection::to`] and the like work on. What sends or
/// closes also works in a handler that has a [`Socket`] of another connection in its hands; everything else that asks the core
/// panics there: [`Connection::hub`] has that too.
///
/// ```
/// use ringwire::{App, BoxError, Connection, ws};
///
/// async fn chat(mut connection: Connection) -> Result<(), BoxError> {
///     let room = connection.param("room").to_owned();
///     let members = connection.join(&room).await?;
///     let _ = connection.emit("joined", &members)?;
///     while let Some(message) = connection.recv().await {
///         connection.to(&room).except_self().send(message)?;
///     }
///     Ok(())
/// }
///
/// App::new().ws("/chat/{room}", ws().task(chat));
/// ```
#[derive(Clone)]
pub struct Connection(Rc<Shared>);

/// What the clones of a connection have in common.
pub(crate) struct Shared {
    pub(crate) core: Rc<CoreContext>,
    pub(crate) inbox: Rc<Inbox>,
    pub(crate) rules: Rc<Rules>,
    /// As [`Socket`] has it.
    pub(crate) discards_replies: bool,
    pub(crate) route_name: RouteName,
    pub(crate) request: Option<Rc<Request>>,
    pub(crate) extensions: Extensions,
    pub(crate) sender: Sender,
    pub(crate) id: ConnectionId,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) opened_ns: u64,
    /// A message was taken, and whoever has it has not asked for the next one.
    pub(crate) is_handling: Cell<bool>,
    /// Whether messages are put into the inbox for it.
    pub(crate) reads: bool,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.reads {
            self.abandon_inbox();
        }
    }
}

impl Shared {
    /// Nobody reads the messages that wait, or any that still come.
    fn abandon_inbox(&self) {
        if !self.reads {
            return;
        }
        let (unread, id) = (self.inbox.abandon() as u64, self.id);
        self.core.runtime.with_hub(move |hub| {
            hub.counters.messages_discarded += unread;
            hub.release(id);
        });
    }
}

impl Connection {
    pub(super) fn new(shared: Shared) -> Connection {
        Connection(Rc::new(shared))
    }

    // ---- receiving ------------------------------------------------------------------------------------------------

    /// The next message; `None` when the connection has ended and all its messages have been taken.
    ///
    /// A message counts as handled when the next one is asked for, or the route's task or handler is done:
    /// [`Ws::before_message`](crate::Ws::before_message) runs before it is returned, and
    /// [`Ws::after_message`](crate::Ws::after_message) then. On a route with the former, messages that have not been taken
    /// when the connection has gone are discarded.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Connection, ws};
    ///
    /// let pairs = async |mut connection: Connection| {
    ///     while let (Some(first), Some(second)) = (connection.recv().await, connection.recv().await) {
    ///         let _ = connection.send([first.as_bytes(), second.as_bytes()].concat());
    ///     }
    /// };
    /// let server = TestServer::new(move || App::new().ws("/pairs", ws().task(pairs)));
    /// let client = server.connect("/pairs");
    /// client.send(vec![1]);
    /// client.send(vec![2]);
    /// client.expect_binary([1, 2]);
    /// ```
    pub async fn recv(&mut self) -> Option<OwnedMessage> {
        self.end_message();
        let mut waiter = self.0.inbox.receiver();
        poll_fn(|cx| {
            while let Some((message, wants_more)) = self.0.inbox.pop() {
                if wants_more {
                    let id = self.0.id;
                    self.0.core.runtime.with_hub(move |hub| hub.release(id));
                }
                if self.begin_message(&message) {
                    return Poll::Ready(Some(message));
                }
            }
            if self.0.inbox.is_closed() {
                return Poll::Ready(None);
            }
            waiter.wait(cx.waker());
            Poll::Pending
        })
        .await
    }

    /// Whether a message is to be handled.
    fn begin_message(&self, message: &OwnedMessage) -> bool {
        self.0.is_handling.set(true);
        let rules = &*self.0.rules;
        if rules.before_message.is_empty() {
            return true;
        }
        let intercepted = self.lend(|socket| {
            let was_open = socket.hub.is_open(socket.slot);
            let handles = socket.before_message(rules, &message.as_message());
            (handles, was_open && !socket.hub.is_open(socket.slot))
        });
        let Some((handles, is_over)) = intercepted else {
            self.0.is_handling.set(false);
            self.0.core.runtime.with_hub(|hub| hub.counters.messages_discarded += 1);
            return false;
        };
        if !handles {
            self.0.is_handling.set(false);
        }
        if is_over {
            self.0.abandon_inbox();
        }
        handles
    }

    /// The message that was taken last has been handled.
    pub(super) fn end_message(&self) {
        if self.0.is_handling.replace(false) && !self.0.rules.after_message.is_empty() {
            let _gone = self.lend(|socket| socket.after_message(&self.0.rules));
        }
    }

    // ---- sending no faster than the peer reads --------------------------------------------------------------------

    /// Sends all messages of a stream, no faster than the peer reads: the next one is taken when most of what is queued has
    /// been sent, so none is lost if the future is dropped. Ends early when the connection does, with [`Sent::Gone`], or when
    /// a message is not queued.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use futures_util::stream;
    /// use ringwire::{App, Connection, ws};
    ///
    /// let count_down = async |connection: Connection| {
    ///     let numbers = stream::iter((0..3).rev().map(|number| number.to_string()));
    ///     connection.send_stream(numbers).await
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", ws().task(count_down)));
    /// let client = server.connect("/");
    /// ["2", "1", "0"].map(|number| client.expect_text(number));
    /// ```
    pub async fn send_stream<M: IntoMessage>(&self, stream: impl Stream<Item = M>) -> Sent {
        let mut stream = pin!(stream);
        loop {
            self.ready().await;
            let next = {
                let mut waiter = self.0.inbox.sender();
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
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Connection, ws};
    ///
    /// // As much as it takes, and no more of it in memory than the peer has not read.
    /// let download = async |connection: Connection| {
    ///     for number in 0..100_u8 {
    ///         connection.ready().await;
    ///         let _ = connection.send(vec![number; 64 << 10]);
    ///     }
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", ws().task(download)));
    /// let client = server.connect("/");
    /// (0..100).for_each(|number| assert_eq!(client.next_binary()[0], number));
    /// ```
    pub async fn ready(&self) {
        let mut waiter = self.0.inbox.sender();
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
        let id = self.0.id;
        let is_behind = |hub: &mut CoreHub| {
            let is_behind = hub.resolve(id).is_some_and(|slot| hub.outbox.queued_bytes(slot) > READY_BYTES_MAX);
            if is_behind {
                hub.outbox.note_falls_from(READY_BYTES_MAX);
            }
            is_behind
        };
        self.0.core.runtime.try_with_hub(is_behind).unwrap_or(false)
    }

    /// Whether the connection has ended.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Connection, sleep, ws};
    /// use std::time::Duration;
    ///
    /// let ticking = async |connection: Connection| {
    ///     while !connection.is_closed() {
    ///         let _ = connection.send("tick");
    ///         sleep(Duration::from_secs(1)).await;
    ///     }
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", ws().task(ticking)));
    /// let client = server.connect("/");
    /// client.expect_text("tick");
    /// client.expect_text("tick");
    /// ```
    pub fn is_closed(&self) -> bool {
        self.0.inbox.is_closed()
    }

    // ---- rooms ----------------------------------------------------------------------------------------------------

    /// Joins a room, and waits until every core knows of it: the number of its members then, and what is promised of it, are
    /// as with [`Connection::join_then`], whose `then` runs before anything that is published later arrives; a task runs a
    /// little after that. Whoever does not wait for the end of this has joined all the same.
    ///
    /// ```
    /// use ringwire::{BoxError, Connection};
    ///
    /// async fn enter(connection: &Connection) -> Result<String, BoxError> {
    ///     let members = connection.join(connection.param("room")).await?;
    ///     Ok(format!("{members} are here"))
    /// }
    /// ```
    ///
    /// # Errors
    /// If the connection is closing, or leaves the room before that, or a limit is reached.
    pub async fn join(&self, room: impl AsRef<str>) -> Result<usize, JoinError> {
        self.join_with(room, None).await
    }

    /// As [`Connection::join`], with a notice for those who are in the room.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, BoxError, Connection, ws};
    ///
    /// let enter = async |connection: Connection| {
    ///     let notice = connection.notice("came", &connection.param("name"))?;
    ///     let members = connection.join_with("lobby", Some(notice)).await?;
    ///     Ok::<_, BoxError>(members.to_string())
    /// };
    /// let server = TestServer::builder().cores(2).start(move || App::new().ws("/{name}", ws().task(enter)));
    /// let (ann, ben) = (server.connect("/ann"), server.connect("/ben"));
    /// ann.expect_text("1");
    /// assert_eq!(ann.expect_event("came"), "ben");
    /// ben.expect_text("2");
    /// ```
    ///
    /// # Errors
    /// As [`Connection::join`].
    pub async fn join_with(&self, room: impl AsRef<str>, notice: Option<Notice>) -> Result<usize, JoinError> {
        let (tell, told) = oneshot::channel();
        self.join_then(room, notice, move |_, members| {
            let _nobody_waits = tell.send(members);
        })?;
        told.await.map_err(|_| JoinError::Gone)
    }

    /// Leaves a room at once, and waits until every core knows of it; false if it was not in it.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, BoxError, Connection, ws};
    ///
    /// let in_and_out = async |connection: Connection| {
    ///     connection.join("lobby").await?;
    ///     assert!(connection.leave("lobby").await);
    ///     Ok::<_, BoxError>(connection.member_count("lobby").to_string())
    /// };
    /// let server = TestServer::builder().cores(2).start(move || App::new().ws("/", ws().task(in_and_out)));
    /// server.connect("/").expect_text("0");
    /// ```
    pub async fn leave(&self, room: impl AsRef<str>) -> bool {
        self.leave_with(room, None).await
    }

    /// As [`Connection::leave`], with a notice for those who are in the room.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, BoxError, Connection, ws};
    ///
    /// let until_a_message = async |mut connection: Connection| {
    ///     connection.join("lobby").await?;
    ///     connection.recv().await;
    ///     let notice = connection.notice("left", &connection.param("name"))?;
    ///     connection.leave_with("lobby", Some(notice)).await;
    ///     Ok::<_, BoxError>(())
    /// };
    /// let server = TestServer::new(move || App::new().ws("/{name}", ws().task(until_a_message)));
    /// let (ann, ben) = (server.connect("/ann"), server.connect("/ben"));
    /// ann.send("bye");
    /// assert_eq!(ben.expect_event("left"), "ann");
    /// ```
    pub async fn leave_with(&self, room: impl AsRef<str>, notice: Option<Notice>) -> bool {
        let (tell, told) = oneshot::channel();
        let was_in = self.leave_then(room, notice, move |_, members| {
            let _nobody_waits = tell.send(members);
        });
        if was_in {
            // It has left, even if the connection closes meanwhile.
            let _members = told.await;
        }
        was_in
    }
}

/// What its verbs build upon: see [`super::verbs`].
impl Connection {
    pub(super) fn core(&self) -> &Rc<CoreContext> {
        &self.0.core
    }

    /// Lends the hub; `None` where it is not lent and a panic unwinds already.
    ///
    /// # Panics
    /// Where a handler has it.
    pub(super) fn on_hub<R>(&self, call: impl FnOnce(&mut CoreHub) -> R) -> Option<R> {
        let lent = self.0.core.runtime.try_with_hub(call);
        assert!(
            lent.is_some() || thread::panicking(),
            "a Connection was asked for something in a handler that has a Socket in its hands, or at the end of its core: \
             use it in tasks, and the Hub elsewhere"
        );
        lent
    }

    pub(super) fn look<R>(&self, look: impl FnOnce(&CoreHub, Option<u32>) -> R) -> Option<R> {
        self.on_hub(|hub| look(hub, hub.find(self.0.id)))
    }

    pub(super) fn lend<R>(&self, call: impl FnOnce(&mut Socket<'_>) -> R) -> Option<R> {
        let on_hub = |hub: &mut CoreHub| {
            let slot = hub.find(self.0.id)?;
            let core = &self.0.core;
            let kept = &mut *core.lent.borrow_mut();
            let (states, requests) = (&mut kept.states, &kept.requests);
            Some(call(&mut Socket { hub, core, states, requests, slot, discards_replies: self.0.discards_replies }))
        };
        self.on_hub(on_hub).flatten()
    }

    pub(super) fn queue(&self, message: Message<'_>, key: Option<Key>) -> Sent {
        let id = self.0.id;
        let mut message = Some(message);
        let sent = self.0.core.runtime.try_with_hub(|hub| match (hub.resolve(id), message.take()) {
            (Some(slot), Some(message)) => send_message(hub, slot, message, key),
            _ => Sent::Gone,
        });
        // Between tasks' phases: the message goes the way of other threads.
        sent.unwrap_or_else(|| match message.take().map(|message| self.0.sender.send_as(message, key)) {
            Some(Ok(_)) => Sent::Queued,
            _ => Sent::Dropped,
        })
    }

    pub(super) fn close_with(&self, code: Option<u16>, reason: String) {
        let id = self.0.id;
        self.0.core.runtime.with_hub(move |hub| {
            if let Some(slot) = hub.resolve(id) {
                hub.close(slot, code, reason);
            }
        });
    }

    pub(super) fn discards_replies(&self) -> bool {
        self.0.discards_replies
    }

    pub(super) fn attached(&self) -> &Extensions {
        &self.0.extensions
    }

    pub(super) fn opening(&self) -> Option<&Request> {
        self.0.request.as_deref()
    }

    pub(super) fn route_name(&self) -> RouteName {
        self.0.route_name.clone()
    }

    pub(super) fn own_id(&self) -> ConnectionId {
        self.0.id
    }

    pub(super) fn own_peer(&self) -> Option<SocketAddr> {
        self.0.peer
    }

    pub(super) fn own_age_ns(&self) -> u64 {
        let until_ns = self.0.inbox.ended_ns().unwrap_or_else(|| self.0.core.runtime.now_ns());
        until_ns.saturating_sub(self.0.opened_ns)
    }

    pub(super) fn own_sender(&self) -> Sender {
        self.0.sender.clone()
    }
}

impl ReplySink for Connection {
    fn send_reply(&mut self, message: Message<'_>) -> Sent {
        if self.0.discards_replies { Sent::Dropped } else { self.queue(message, None) }
    }
}
