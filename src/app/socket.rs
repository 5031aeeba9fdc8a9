//! A connection as its handlers see it, for the time of one call.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::app::context::{ConnState, CoreContext, States};
use crate::app::queue::{Queue, send_message};
use crate::app::reply::{ReplySink, Sent};
use crate::app::request::Request;
use crate::hub::ConnectionId;
use crate::hub::{CoreHub, Delivery, Done, JoinError, Scope};
use crate::message::RawJson;
use crate::message::{EncodeError, Envelope, IntoMessage, Message, borrowed};
use crate::outbox::{FrameBuf, Key};
use crate::proto::Kind;
use crate::proto::close::{self, IllegalCloseCode};
use crate::remote::Hub;
use crate::remote::Sender;
use crate::runtime::Task;

/// A WebSocket, for the time of one handler call. [`Socket::sender`] gives what outlives it.
pub struct Socket<'a> {
    pub(crate) hub: &'a mut CoreHub,
    pub(crate) core: &'a Rc<CoreContext>,
    pub(crate) states: &'a mut States,
    pub(crate) slot: u32,
}

impl Socket<'_> {
    /// The connection's address in the whole process.
    pub fn id(&self) -> ConnectionId {
        self.hub.id(self.slot)
    }

    /// The hub, after what was asked of it by other ways in this call.
    #[inline]
    fn hub_now(&mut self) -> &mut CoreHub {
        self.core.runtime.catch_up(self.hub);
        self.hub
    }

    // ---- sending --------------------------------------------------------------------------------------------------

    /// Queues a message to this connection. What one tick queues leaves in one piece.
    pub fn send(&mut self, message: impl IntoMessage) -> Sent {
        self.queue_message(message, None)
    }

    /// Queues a named event to this connection, in the app's envelope.
    ///
    /// # Errors
    /// If the data cannot be written as JSON.
    pub fn emit(&mut self, event: &str, data: &(impl Serialize + ?Sized)) -> Result<Sent, EncodeError> {
        self.queue_event(event, data, None)
    }

    /// As [`Socket::send`], with a key: while this connection is behind, on a route with
    /// [`SlowConsumer::KeepLatest`](crate::SlowConsumer::KeepLatest), the message replaces an older one with the same key.
    pub fn send_keyed(&mut self, key: impl AsRef<[u8]>, message: impl IntoMessage) -> Sent {
        self.queue_message(message, Some(Key::of(key.as_ref())))
    }

    /// As [`Socket::emit`], with a key: see [`Socket::send_keyed`].
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

    /// The members of a room, on all cores, this connection included where it is one.
    pub fn to(&mut self, room: &str) -> To<'_> {
        let scope = Scope::Room(room.into());
        To { hub: self.hub, core: self.core, slot: self.slot, scope, key: None, except_self: false }
    }

    /// Sends a message to all members of the room that this connection joined first of those it is still in, itself
    /// included: the fast way for connections that live in one room. A large received message is not copied.
    pub fn to_own_room(&mut self, message: Message<'_>) -> Delivery {
        let slot = self.slot;
        let hub = self.hub_now();
        match hub.first_room(slot) {
            Some(room) => hub.publish_incoming(room, message.0, None),
            None => Delivery::default(),
        }
    }

    /// All connections of the server, this one included.
    pub fn to_all(&mut self) -> To<'_> {
        To { hub: self.hub, core: self.core, slot: self.slot, scope: Scope::Everyone, key: None, except_self: false }
    }

    /// All connections of this connection's route, on all cores, this one included.
    ///
    /// Those that an HTTP handler has upgraded are of one route where they came by the same path and were upgraded to what
    /// the same call of [`ws()`](crate::ws()) in the source has made, be it once on each core or anew for each of them.
    pub fn to_route(&mut self) -> To<'_> {
        let scope = Scope::Route(self.hub.route_name(self.slot));
        To { hub: self.hub, core: self.core, slot: self.slot, scope, key: None, except_self: false }
    }

    /// Closes the connection, after what has been queued to it: no more messages are taken from now on, and `on_close`
    /// runs when the peer has answered, or its time is up. The first close counts. The reason is cut to 123 bytes.
    ///
    /// # Errors
    /// If the code is not one that may be sent: 1000-1003, 1007-1014 and 3000-4999 may.
    pub fn close(&mut self, code: u16, reason: &str) -> Result<(), IllegalCloseCode> {
        let code = close::legal(code)?;
        let slot = self.slot;
        self.hub_now().close(slot, Some(code), reason.to_owned());
        Ok(())
    }

    /// Whether messages can still be queued.
    pub fn is_open(&self) -> bool {
        self.hub.is_open(self.slot)
    }

    /// Bytes queued to this connection and not yet taken by its socket.
    pub fn outbox_bytes(&self) -> usize {
        self.hub.outbox.queued_bytes(self.slot)
    }

    // ---- rooms ----------------------------------------------------------------------------------------------------

    /// Joins a room; nothing happens if it is in it. Rooms are left by themselves when the connection ends.
    ///
    /// A name has at most 256 bytes ([`Ws::max_room_name`](crate::Ws::max_room_name)), and a connection is in at most
    /// [`Config::rooms_max`](crate::Config::rooms_max) rooms, 256 by default ([`Ws::max_rooms`](crate::Ws::max_rooms)).
    ///
    /// It is in it when this returns: what is published on this core from now on reaches it. The other cores are told in the
    /// same moment and take notice before they handle anything that arrives later than that, but nobody waits for them: of
    /// two connections that join at once on different cores, neither may find the other in [`Socket::member_count`] yet.
    /// Where a join is answered to somebody who relies on it, use [`Socket::join_then`].
    ///
    /// # Errors
    /// If the connection is closing, or a limit is reached.
    pub fn join(&mut self, room: impl AsRef<str>) -> Result<(), JoinError> {
        let slot = self.slot;
        self.hub_now().join(slot, room.as_ref()).map(|_| ())
    }

    /// Joins a room, and calls `then` with the number of its members once every core knows of it. It gets what is published
    /// from then on, and none of its own messages is handled before that, so that answers stay in order.
    ///
    /// Joins that are answered by `then` are in an order, whichever cores they are on: of two, the one that is answered
    /// later counts the other, and the last of any number counts all of them. What is published after an answer, by whomever,
    /// reaches the member. `notice` goes to the connections that are in the room, unless this one is in it already, by this
    /// method or another: whoever came by this method too either counts this join in its own answer or gets the
    /// notice after that, never both, so count and notices always add up.
    ///
    /// With one core, `then` is called before this returns; otherwise in a later tick, as soon as all others have read their
    /// mail: one that is busy holds it up. It is not called if the connection closes, or leaves the room, before that.
    ///
    /// ```no_run
    /// # use ringwire::{Socket, BoxError};
    /// fn on_connect(socket: &mut Socket<'_>) -> Result<(), BoxError> {
    ///     let notice = socket.notice("came", &socket.id().to_string())?;
    ///     socket.join_then("lobby", Some(notice), |socket, members| {
    ///         let _ = socket.emit("welcome", &members);
    ///     })?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// If the connection is closing, or a limit is reached.
    pub fn join_then(
        &mut self,
        room: impl AsRef<str>,
        notice: Option<Notice>,
        then: impl FnOnce(&mut Socket<'_>, usize) + 'static,
    ) -> Result<(), JoinError> {
        let slot = self.slot;
        let done = self.hub_now().join_then(slot, room.as_ref(), notice.as_ref().map(|notice| &notice.0))?;
        self.when_done(done, then);
        Ok(())
    }

    /// Leaves a room at once, and calls `then` with the number of its members once every core knows of it, as
    /// [`Socket::join_then`] does; false if it was not in it. `notice` goes to the connections that are in the room.
    ///
    /// In `on_close` it leaves with the notice, and `then` is not called.
    pub fn leave_then(
        &mut self,
        room: impl AsRef<str>,
        notice: Option<Notice>,
        then: impl FnOnce(&mut Socket<'_>, usize) + 'static,
    ) -> bool {
        let slot = self.slot;
        let done = self.hub_now().leave_then(slot, room.as_ref(), notice.as_ref().map(|notice| &notice.0));
        let was_in = done.is_some();
        self.when_done(done.unwrap_or(Done::Untold), then);
        was_in
    }

    fn when_done(&mut self, done: Done, then: impl FnOnce(&mut Socket<'_>, usize) + 'static) {
        match done {
            Done::Now(members) => then(self, members),
            Done::Untold => {}
            Done::Later(number) => self.state().await_change(number, Box::new(OnKnown(Box::new(then)))),
        }
    }

    /// An event in the app's envelope, for [`Socket::join_then`] and [`Socket::leave_then`].
    ///
    /// # Errors
    /// If the data cannot be written as JSON.
    pub fn notice(&self, event: &str, data: &(impl Serialize + ?Sized)) -> Result<Notice, EncodeError> {
        let text = self.core.envelope().encode(event, data)?;
        Ok(Notice(FrameBuf::new(Kind::Text.into(), &text)))
    }

    /// Leaves a room; false if it was not in it.
    pub fn leave(&mut self, room: impl AsRef<str>) -> bool {
        let slot = self.slot;
        self.hub_now().leave(slot, room.as_ref())
    }

    /// Whether it is in a room.
    pub fn is_in(&self, room: impl AsRef<str>) -> bool {
        self.hub.is_in(self.slot, room.as_ref())
    }

    /// How many members a room has, over all cores, as far as this core has heard: a join or leave that has been answered by
    /// [`Socket::join_then`] or [`Socket::leave_then`] is counted.
    pub fn member_count(&self, room: impl AsRef<str>) -> usize {
        self.hub.member_count(room.as_ref())
    }

    /// The rooms it is in.
    pub fn rooms(&self) -> Vec<String> {
        self.hub.rooms_of(self.slot)
    }

    // ---- the request ----------------------------------------------------------------------------------------------

    /// The request that opened it, without a body.
    ///
    /// # Panics
    /// On a route that does not keep it ([`crate::Ws::forget_request`]).
    pub fn request(&self) -> &Request {
        self.states.get(self.slot).and_then(|state| state.request.as_deref()).expect("the route forgets its requests")
    }

    /// A parameter of the route's path; empty if there is none of that name.
    pub fn param(&self, name: &str) -> &str {
        let request = self.states.get(self.slot).and_then(|state| state.request.as_deref());
        request.map_or("", |request| request.param(name))
    }

    /// The peer's address; `None` on a Unix socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.hub.peer(self.slot)
    }

    /// How long it has been open.
    pub fn duration(&self) -> Duration {
        let opened_ns = self.hub.opened_ns(self.slot);
        Duration::from_nanos(self.hub.now_ns.saturating_sub(opened_ns))
    }

    // ---- state ----------------------------------------------------------------------------------------------------

    /// The connection's JSON data, which every core and thread can read; `null` at first.
    pub fn data(&self) -> Value {
        self.raw_data().to_value()
    }

    /// The connection's JSON data as it was written, with all digits of its numbers.
    pub fn raw_data(&self) -> RawJson {
        self.hub.data(self.slot)
    }

    /// Sets the connection's JSON data: a [`Value`], or a [`RawJson`], which stays as it is written.
    pub fn set_data(&mut self, data: impl Into<RawJson>) {
        let slot = self.slot;
        self.hub_now().set_data(slot, data.into());
    }

    /// Typed values attached to the connection, those that hooks attached to its request among them.
    pub fn extensions(&mut self) -> &mut http::Extensions {
        &mut self.state().extensions
    }

    /// Runs `clean` exactly once when the connection ends, after `on_close`, last added first.
    pub fn on_cleanup(&mut self, clean: impl FnOnce() + 'static) {
        self.state().cleanups.push(Box::new(clean));
    }

    fn state(&mut self) -> &mut ConnState {
        self.states.get_or_insert(self.slot)
    }

    // ---- what outlives the call -----------------------------------------------------------------------------------

    /// The way to this connection from any thread. A send-only connection stays open as long as one lives.
    pub fn sender(&mut self) -> Sender {
        let id = self.id();
        let (hub, core_hub, slot) = (self.core.hub.clone(), &mut *self.hub, self.slot);
        self.states.get_or_insert(slot).sender(id, hub, || core_hub.begin_senders(slot))
    }

    /// The way to all connections from any thread.
    pub fn hub(&self) -> &Hub {
        &self.core.hub
    }

    /// Runs a future on this core.
    pub fn spawn<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Task<T> {
        self.core.runtime.spawn(future)
    }
}

/// What [`Socket::join_then`] and [`Socket::leave_then`] call.
pub(crate) struct OnKnown(pub(crate) KnownHandler);

/// Called with how many members the room has.
type KnownHandler = Box<dyn FnOnce(&mut Socket<'_>, usize)>;

/// What the members of a room are told of a connection that joins or leaves it: from [`Socket::notice`].
#[derive(Clone, Debug)]
pub struct Notice(FrameBuf);

impl Queue for Socket<'_> {
    fn envelope(&self) -> Envelope {
        self.core.envelope()
    }

    #[inline]
    fn queue(&mut self, message: Message<'_>, key: Option<Key>) -> Sent {
        let slot = self.slot;
        send_message(self.hub_now(), slot, message, key)
    }
}

impl ReplySink for Socket<'_> {
    fn send_reply(&mut self, message: Message<'_>) -> Sent {
        let slot = self.slot;
        send_message(self.hub_now(), slot, message, None)
    }
}

/// A set of receivers, from [`Socket::to`] and its like. The counts it returns are of this core; other cores deliver in
/// their own next tick. [`Hub`] has the same with the sum of all cores.
pub struct To<'s> {
    hub: &'s mut CoreHub,
    core: &'s Rc<CoreContext>,
    slot: u32,
    scope: Scope,
    key: Option<Key>,
    except_self: bool,
}

impl To<'_> {
    /// Not to the connection that sends.
    #[must_use]
    pub fn except_self(mut self) -> Self {
        self.except_self = true;
        self
    }

    /// Gives the message a key: to a connection that is behind, on a route with
    /// [`SlowConsumer::KeepLatest`](crate::SlowConsumer::KeepLatest), it replaces an older one with the same key. Elsewhere
    /// a key changes nothing.
    #[must_use]
    pub fn keyed(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(Key::of(key.as_ref()));
        self
    }

    /// Sends a message.
    ///
    /// # Errors
    /// If a value cannot be written as JSON.
    pub fn send(self, message: impl IntoMessage) -> Result<Delivery, EncodeError> {
        let except = self.except_self.then_some(self.slot);
        let (hub, scope, key) = (self.hub, self.scope, self.key);
        message.with_message(|message| {
            self.core.runtime.catch_up(hub);
            hub.send_to_scope(&scope, message.0, key, except)
        })
    }

    /// Sends a named event, in the app's envelope.
    ///
    /// # Errors
    /// If the data cannot be written as JSON.
    pub fn emit(self, event: &str, data: &(impl Serialize + ?Sized)) -> Result<Delivery, EncodeError> {
        let text = self.core.envelope().encode(event, data)?;
        let except = self.except_self.then_some(self.slot);
        self.core.runtime.catch_up(self.hub);
        Ok(self.hub.send_to_scope(&self.scope, borrowed(Kind::Text, &text).0, self.key, except))
    }
}
