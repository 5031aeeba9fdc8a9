//! A connection as its handlers see it, for the time of one call.

use std::net::SocketAddr;
use std::rc::Rc;

use crate::app::context::{ConnState, CoreContext, Extensions, Requests, States};
use crate::app::queue::send_message;
use crate::app::reply::Sent;
use crate::app::request::Request;
use crate::hub::{ConnectionId, CoreHub, Done, JoinError, Recovered, RouteName, Since};
use crate::message::Message;
use crate::outbox::{FrameBuf, Key};
use crate::remote::Sender;

/// A WebSocket, for the time of one handler call. [`Socket::sender`] gives what outlives it.
///
/// A [`Connection`](crate::Connection) has the same methods in tasks and in handlers that wait.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, BoxError, Message, Socket};
///
/// fn on_message(socket: &mut Socket, message: Message) -> Result<(), BoxError> {
///     let name = socket.param("name").to_owned();
///     socket.to_all().except_self().emit("said", &(name, message.as_text()))?;
///     Ok(())
/// }
///
/// let server = TestServer::new(|| App::new().ws("/{name}", on_message));
/// let (ann, ben) = (server.connect("/ann"), server.connect("/ben"));
/// ann.send("hello");
/// assert_eq!(ben.expect_event("said"), serde_json::json!(["ann", "hello"]));
/// ```
pub struct Socket<'a> {
    pub(crate) hub: &'a mut CoreHub,
    pub(crate) core: &'a Rc<CoreContext>,
    pub(crate) states: &'a mut States,
    pub(crate) requests: &'a Requests,
    pub(crate) slot: u32,
    /// Its route only receives: what handlers return is not sent.
    pub(crate) discards_replies: bool,
}

impl Socket<'_> {
    /// Joins a room; nothing happens if it is in it. Rooms are left by themselves when the connection ends.
    ///
    /// A name has at most 256 bytes ([`Ws::max_room_name`](crate::Ws::max_room_name)), and a connection is in at most
    /// [`Config::max_rooms`](crate::Config::max_rooms) rooms, 256 by default ([`Ws::max_rooms`](crate::Ws::max_rooms)).
    ///
    /// It is in it when this returns: what is published on this core from now on reaches it. The other cores are told in the
    /// same moment and take notice before they handle anything that arrives later than that, but nobody waits for them: of
    /// two connections that join at once on different cores, neither may find the other in [`Socket::member_count`] yet.
    /// Where a join is answered to somebody who relies on it, use [`Socket::join_then`].
    ///
    /// ```
    /// use ringwire::ws;
    ///
    /// ws().on_connect(|socket| socket.join(socket.param("room")));
    /// ```
    ///
    /// # Errors
    /// If the connection is closing, or a limit is reached.
    pub fn join(&mut self, room: impl AsRef<str>) -> Result<(), JoinError> {
        let slot = self.slot;
        self.hub_now().join(slot, room.as_ref()).map(|_| ())
    }

    /// Leaves a room; false if it was not in it.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || {
    ///     ws().on_connect(|socket| socket.join("news")).on_message(|socket, _| socket.leave("news").to_string())
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let client = server.connect("/");
    /// client.send("unsubscribe");
    /// client.expect_text("true");
    /// client.send("unsubscribe");
    /// client.expect_text("false");
    /// ```
    pub fn leave(&mut self, room: impl AsRef<str>) -> bool {
        let slot = self.slot;
        self.hub_now().leave(slot, room.as_ref())
    }

    /// The hub, after what was asked of it by other ways in this call.
    #[inline]
    pub(super) fn hub_now(&mut self) -> &mut CoreHub {
        self.core.runtime.catch_up(self.hub);
        self.hub
    }

    pub(super) fn conn_state(&mut self) -> &mut ConnState {
        self.states.get_or_insert(self.slot)
    }

    // ---- changes that are answered --------------------------------------------------------------------------------

    pub(super) fn change_by_join(
        &mut self,
        room: &str,
        notice: Option<Notice>,
        then: impl FnOnce(&mut Socket<'_>, usize) + 'static,
    ) -> Result<(), JoinError> {
        let slot = self.slot;
        let done = self.hub_now().join_then(slot, room, notice.as_ref().map(|notice| &notice.0))?;
        self.when_done(done, then);
        Ok(())
    }

    pub(super) fn change_by_join_since(
        &mut self,
        room: &str,
        since: Since,
        notice: Option<Notice>,
        then: impl FnOnce(&mut Socket<'_>, Recovered) + 'static,
    ) -> Result<(), JoinError> {
        let slot = self.slot;
        let done = self.hub_now().join_since(slot, room, notice.as_ref().map(|notice| &notice.0), since)?;
        self.when_done(done, move |socket, members| {
            let recovered = socket.hub.take_recovered(members);
            then(socket, recovered);
        });
        Ok(())
    }

    pub(super) fn change_by_leave(
        &mut self,
        room: &str,
        notice: Option<Notice>,
        then: impl FnOnce(&mut Socket<'_>, usize) + 'static,
    ) -> bool {
        let slot = self.slot;
        let done = self.hub_now().leave_then(slot, room, notice.as_ref().map(|notice| &notice.0));
        let was_in = done.is_some();
        self.when_done(done.unwrap_or(Done::Untold), then);
        was_in
    }

    fn when_done(&mut self, done: Done, then: impl FnOnce(&mut Socket<'_>, usize) + 'static) {
        match done {
            Done::Now(members) => then(self, members),
            Done::Untold => {}
            Done::Later(number) => self.conn_state().await_change(number, Box::new(OnKnown(Box::new(then)))),
        }
    }
}

/// What its verbs build upon: see [`super::verbs`].
impl<'a> Socket<'a> {
    #[inline]
    pub(super) fn core(&self) -> &Rc<CoreContext> {
        self.core
    }

    #[inline]
    pub(super) fn look<R>(&self, look: impl FnOnce(&CoreHub, Option<u32>) -> R) -> Option<R> {
        Some(look(self.hub, Some(self.slot)))
    }

    #[inline]
    pub(super) fn lend<R>(&mut self, call: impl FnOnce(&mut Socket<'_>) -> R) -> Option<R> {
        Some(call(self))
    }

    #[inline]
    pub(super) fn queue(&mut self, message: Message<'_>, key: Option<Key>) -> Sent {
        let slot = self.slot;
        send_message(self.hub_now(), slot, message, key)
    }

    pub(super) fn close_with(&mut self, code: Option<u16>, reason: String) {
        let slot = self.slot;
        self.hub_now().close(slot, code, reason);
    }

    pub(super) fn attached(&mut self) -> &Extensions {
        self.conn_state().extensions.get_or_insert_default()
    }

    pub(super) fn opening(&self) -> Option<&'a Request> {
        self.requests.get(self.slot).map(|request| &**request)
    }

    pub(super) fn route_name(&self) -> RouteName {
        self.hub.route_name(self.slot)
    }

    pub(super) fn own_id(&self) -> ConnectionId {
        self.hub.id(self.slot)
    }

    pub(super) fn own_peer(&self) -> Option<SocketAddr> {
        self.hub.peer(self.slot)
    }

    pub(super) fn own_age_ns(&self) -> u64 {
        self.hub.now_ns.saturating_sub(self.hub.opened_ns(self.slot))
    }

    pub(super) fn own_sender(&mut self) -> Sender {
        let id = self.own_id();
        let (hub, core_hub, slot) = (self.core.hub.clone(), &mut *self.hub, self.slot);
        self.states.get_or_insert(slot).sender(id, hub, || core_hub.begin_senders(slot))
    }
}

/// What [`Socket::join_then`] and [`Socket::leave_then`] call.
pub(crate) struct OnKnown(pub(crate) KnownHandler);

/// Called with how many members the room has.
type KnownHandler = Box<dyn FnOnce(&mut Socket<'_>, usize)>;

/// What the members of a room are told of a connection that joins or leaves it: from [`Socket::notice`].
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, BoxError, ws};
///
/// let route = || {
///     ws().on_connect(|socket| {
///         let notice = socket.notice("came", &socket.param("name"))?;
///         // Made once, it may go to several rooms.
///         for room in ["lobby", "garden"] {
///             socket.join_then(room, Some(notice.clone()), |_, _| ())?;
///         }
///         Ok::<_, BoxError>(())
///     })
/// };
/// let server = TestServer::new(move || App::new().ws("/{name}", route()));
/// let (ann, _ben) = (server.connect("/ann"), server.connect("/ben"));
/// assert_eq!((ann.expect_event("came"), ann.expect_event("came")), ("ben".into(), "ben".into()));
/// ```
#[derive(Clone, Debug)]
pub struct Notice(pub(super) FrameBuf);

impl Notice {
    /// Has it sent as it is, whatever compression was agreed: see [`IntoMessage::uncompressed`](crate::IntoMessage::uncompressed).
    ///
    /// ```
    /// use ringwire::{BoxError, Deflate, ws};
    ///
    /// let route = || {
    ///     ws().deflate(Deflate::Shared).on_connect(|socket| {
    ///         let notice = socket.notice("came", &socket.param("name"))?.uncompressed();
    ///         socket.join_then("lobby", Some(notice), |_, _| ())?;
    ///         Ok::<_, BoxError>(())
    ///     })
    /// };
    /// ```
    #[must_use]
    pub fn uncompressed(self) -> Notice {
        Notice(self.0.uncompressed(true))
    }
}
