//! What can be done with a connection, for its handlers ([`Socket`]) and for its tasks ([`Connection`]) alike.
//!
//! Each verb stands here once, for both. They differ in how they come by what the core knows, and only in this: a socket has
//! the hub and the states in its hands, and a connection is lent them for the time of a verb, as the tasks of the core are.
//! So each of the two says for itself
//! * `core`: what the core's handlers and tasks share;
//! * `look`: lends the hub to be read, with the connection's slot if it has not gone;
//! * `lend`: lends a [`Socket`], if the connection has not gone;
//! * `queue`, `close_with`, `attached`, `opening`, `route_name` and `own_…`: what a connection does, or knows of itself, even
//!   where nothing can be lent.
//!
//! `join` and `leave` alone are not here: a handler cannot wait until all cores know, and a task can.

use std::cell::RefMut;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::app::connection::Connection;
use crate::app::queue::{queue_message, sent};
use crate::app::reply::Sent;
use crate::app::request::Request;
use crate::app::socket::{Notice, Socket};
use crate::app::to::To;
use crate::guard::guarded;
use crate::hub::{ConnectionId, Delivery, JoinError, Scope};
use crate::message::{EncodeError, IntoMessage, RawJson, borrowed};
use crate::tls::TlsInfo;
use crate::outbox::{FrameBuf, Key};
use crate::proto::Kind;
use crate::proto::close::{self, IllegalCloseCode, PingTooLong};
use crate::remote::{Hub, Sender};
use crate::runtime::Task;

/// `$self` is how a verb takes what it is a verb of: handlers have their socket for themselves, and the clones of a connection
/// are the same one.
macro_rules! verbs {
    (impl[$($lifetime:lifetime)?] $type:ty, $self:ident: [$($receiver:tt)+]) => {
        impl $(<$lifetime>)? $type {
            // ---- who it is ------------------------------------------------------------------------------------------

            /// The connection's address in the whole process.
            pub fn id(&$self) -> ConnectionId {
                $self.own_id()
            }

            /// The peer's address; `None` on a Unix socket.
            pub fn peer(&$self) -> Option<SocketAddr> {
                $self.own_peer()
            }

            /// How long it has been open, or was when it ended.
            pub fn duration(&$self) -> Duration {
                Duration::from_nanos($self.own_age_ns())
            }

            /// Whether compression (permessage-deflate) is agreed on with the peer.
            pub fn is_deflated(&$self) -> bool {
                $self.look(|hub, slot| slot.is_some_and(|slot| hub.agreed(slot).is_some())).unwrap_or(false)
            }

            /// Whether messages can still be queued.
            pub fn is_open(&$self) -> bool {
                $self.look(|hub, slot| slot.is_some_and(|slot| hub.is_open(slot))).unwrap_or(false)
            }

            /// The request that opened it, without a body.
            ///
            /// # Panics
            /// On a route that does not keep it ([`Ws::forget_request`](crate::Ws::forget_request)).
            pub fn request(&$self) -> &$($lifetime)? Request {
                $self.opening().expect("the route forgets its requests")
            }

            /// What its TLS has agreed on, and the certificate that its client has shown: see
            /// [`Request::tls`](crate::Request::tls). `None` without TLS, and on a route that does not keep its requests.
            pub fn tls(&$self) -> Option<&$($lifetime)? TlsInfo> {
                $self.opening().and_then(Request::tls)
            }

            /// A parameter of the route's path; empty if there is none of that name.
            pub fn param(&$self, name: &str) -> &$($lifetime)? str {
                $self.opening().map_or("", |request| request.param(name))
            }

            // ---- sending --------------------------------------------------------------------------------------------

            /// Queues a message to this connection. What one tick queues leaves in one piece.
            #[inline]
            pub fn send($($receiver)+, message: impl IntoMessage) -> Sent {
                queue_message(message, |message| $self.queue(message, None))
            }

            /// Queues a named event to this connection, in the app's envelope.
            ///
            /// # Errors
            /// If the data cannot be written as JSON.
            pub fn emit($($receiver)+, event: &str, data: &(impl Serialize + ?Sized)) -> Result<Sent, EncodeError> {
                let text = $self.core().envelope().encode(event, data)?;
                Ok($self.queue(borrowed(Kind::Text, &text), None))
            }

            /// As [`Socket::send`](crate::Socket::send), with a key: while this connection is behind, on a route with
            /// [`SlowConsumer::KeepLatest`](crate::SlowConsumer::KeepLatest), the message replaces an older one with the same
            /// key.
            pub fn send_keyed($($receiver)+, key: impl AsRef<[u8]>, message: impl IntoMessage) -> Sent {
                let key = Key::of(key.as_ref());
                queue_message(message, |message| $self.queue(message, Some(key)))
            }

            /// As [`Socket::emit`](crate::Socket::emit), with a key: see [`Socket::send_keyed`](crate::Socket::send_keyed).
            ///
            /// # Errors
            /// If the data cannot be written as JSON.
            pub fn emit_keyed(
                $($receiver)+,
                key: impl AsRef<[u8]>,
                event: &str,
                data: &(impl Serialize + ?Sized),
            ) -> Result<Sent, EncodeError> {
                let text = $self.core().envelope().encode(event, data)?;
                Ok($self.queue(borrowed(Kind::Text, &text), Some(Key::of(key.as_ref()))))
            }

            /// Bytes queued to this connection and not yet taken by its socket.
            pub fn outbox_bytes(&$self) -> usize {
                $self.look(|hub, slot| slot.map_or(0, |slot| hub.outbox.queued_bytes(slot))).unwrap_or(0)
            }

            /// The members of a room, on all cores, this connection included where it is one.
            pub fn to($($receiver)+, room: &str) -> To<'_> {
                To::new($self, Scope::Room(room.into()))
            }

            /// Sends a message to all members of the room that this connection joined first of those it is still in, itself
            /// included: the fast way for connections that live in one room. A large received message is not copied.
            ///
            /// # Errors
            /// If a value cannot be written as JSON.
            #[inline]
            pub fn to_own_room($($receiver)+, message: impl IntoMessage) -> Result<Delivery, EncodeError> {
                message.with_message(|message| {
                    let publish = |socket: &mut Socket<'_>| {
                        let slot = socket.slot;
                        let hub = socket.hub_now();
                        match hub.first_room(slot) {
                            Some(room) => hub.publish_incoming(room, message.0, None),
                            None => Delivery::default(),
                        }
                    };
                    $self.lend(publish).unwrap_or_default()
                })
            }

            /// All connections of the server, this one included.
            pub fn to_all($($receiver)+) -> To<'_> {
                To::new($self, Scope::Everyone)
            }

            /// All connections of this connection's route, on all cores, this one included.
            ///
            /// Those that an HTTP handler has upgraded are of one route where they came by the same path and were upgraded to
            /// what the same call of [`ws()`](crate::ws()) in the source has made, be it once on each core or anew for each of
            /// them.
            pub fn to_route($($receiver)+) -> To<'_> {
                let scope = Scope::Route($self.route_name());
                To::new($self, scope)
            }

            /// Closes the connection, after what has been queued to it: no more messages are taken from now on, and `on_close`
            /// runs when the peer has answered, or its time is up. The first close counts. The reason is cut to 123 bytes.
            ///
            /// # Errors
            /// If the code is not one that may be sent: 1000-1003, 1007-1014 and 3000-4999 may.
            pub fn close($($receiver)+, code: u16, reason: &str) -> Result<(), IllegalCloseCode> {
                let code = close::legal(code)?;
                $self.close_with(Some(code), reason.to_owned());
                Ok(())
            }

            /// As [`Socket::close`](crate::Socket::close), with a Close frame that says nothing (RFC 6455 5.5.1): the peer
            /// is told 1005, "no status code".
            pub fn close_without_code($($receiver)+) {
                $self.close_with(None, String::new());
            }

            /// Queues a ping with this payload, besides those that the server sends by itself; what the peer answers,
            /// [`Ws::on_pong`](crate::Ws::on_pong) hears.
            ///
            /// # Errors
            /// If the payload has more than 125 bytes (RFC 6455 5.5).
            pub fn ping($($receiver)+, payload: impl AsRef<[u8]>) -> Result<Sent, PingTooLong> {
                let payload = close::ping(payload.as_ref())?;
                let ping = |socket: &mut Socket<'_>| {
                    let slot = socket.slot;
                    sent(socket.hub_now().outbox.ping(slot, payload))
                };
                Ok($self.lend(ping).unwrap_or(Sent::Gone))
            }

            // ---- rooms ----------------------------------------------------------------------------------------------

            /// Joins a room, and calls `then` with the number of its members once every core knows of it. It gets what is
            /// published from then on, and none of its own messages is handled before that, so that answers stay in order.
            ///
            /// Joins that are answered by `then` are in an order, whichever cores they are on: of two, the one that is
            /// answered later counts the other, and the last of any number counts all of them. What is published after an
            /// answer, by whomever, reaches the member. `notice` goes to the connections that are in the room, unless this one
            /// is in it already, by this method or another: whoever came by this method too either counts this join in its own
            /// answer or gets the notice after that, never both, so count and notices always add up.
            ///
            /// With one core, `then` is called before this returns; otherwise in a later tick, as soon as all others have read
            /// their mail: one that is busy holds it up. It is not called if the connection closes, or leaves the room, before
            /// that.
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
                $($receiver)+,
                room: impl AsRef<str>,
                notice: Option<Notice>,
                then: impl FnOnce(&mut Socket<'_>, usize) + 'static,
            ) -> Result<(), JoinError> {
                let room = room.as_ref();
                $self.lend(|socket| socket.change_by_join(room, notice, then)).unwrap_or(Err(JoinError::Gone))
            }

            /// Leaves a room at once, and calls `then` with the number of its members once every core knows of it, as
            /// [`Socket::join_then`](crate::Socket::join_then) does; false if it was not in it. `notice` goes to the
            /// connections that are in the room.
            ///
            /// In `on_close` it leaves with the notice, and `then` is not called.
            pub fn leave_then(
                $($receiver)+,
                room: impl AsRef<str>,
                notice: Option<Notice>,
                then: impl FnOnce(&mut Socket<'_>, usize) + 'static,
            ) -> bool {
                let room = room.as_ref();
                $self.lend(|socket| socket.change_by_leave(room, notice, then)).unwrap_or(false)
            }

            /// An event in the app's envelope, for who is in a room that is joined or left.
            ///
            /// # Errors
            /// If the data cannot be written as JSON.
            pub fn notice(&$self, event: &str, data: &(impl Serialize + ?Sized)) -> Result<Notice, EncodeError> {
                let text = $self.core().envelope().encode(event, data)?;
                Ok(Notice(FrameBuf::new(Kind::Text.into(), &text)))
            }

            /// Whether it is in a room.
            pub fn is_in(&$self, room: impl AsRef<str>) -> bool {
                let room = room.as_ref();
                $self.look(|hub, slot| slot.is_some_and(|slot| hub.is_in(slot, room))).unwrap_or(false)
            }

            /// The rooms it is in.
            pub fn rooms(&$self) -> Vec<String> {
                $self.look(|hub, slot| slot.map(|slot| hub.rooms_of(slot))).flatten().unwrap_or_default()
            }

            /// How many members a room has, over all cores, as far as this core has heard: a join or leave that was answered
            /// once every core knew of it is counted.
            pub fn member_count(&$self, room: impl AsRef<str>) -> usize {
                let room = room.as_ref();
                $self.look(|hub, _| hub.member_count(room)).unwrap_or(0)
            }

            // ---- state ----------------------------------------------------------------------------------------------

            /// The connection's JSON data, which every core and thread can read; `null` at first, and when it has gone.
            pub fn data(&$self) -> Value {
                $self.raw_data().to_value()
            }

            /// The connection's JSON data as it was written, with all digits of its numbers.
            pub fn raw_data(&$self) -> RawJson {
                $self.look(|hub, slot| slot.map(|slot| hub.data(slot))).flatten().unwrap_or_default()
            }

            /// Sets the connection's JSON data: a [`Value`], or a [`RawJson`], which stays as it is written. One that has gone
            /// has none.
            pub fn set_data($($receiver)+, data: impl Into<RawJson>) {
                let data = data.into();
                let _gone = $self.lend(|socket| {
                    let slot = socket.slot;
                    socket.hub_now().set_data(slot, data);
                });
            }

            /// Typed values attached to the connection, those that hooks attached to its request among them. Its handlers and
            /// its tasks have the same ones.
            ///
            /// # Panics
            /// While somebody holds what this has returned, as a task does that keeps it over an `await`:
            /// [`Socket::extension`](crate::Socket::extension) gives a copy of one of them.
            pub fn extensions($($receiver)+) -> RefMut<'_, http::Extensions> {
                let extensions = $self.attached().try_borrow_mut().expect("somebody holds the connection's extensions");
                RefMut::map(extensions, |extensions| &mut **extensions)
            }

            /// A copy of the attached value of this type, as a `before` hook may have inserted it.
            ///
            /// # Panics
            /// As [`Socket::extensions`](crate::Socket::extensions).
            pub fn extension<T: Clone + Send + Sync + 'static>($($receiver)+) -> Option<T> {
                $self.extensions().get::<T>().cloned()
            }

            /// Runs `clean` exactly once when the connection ends, after `on_close`, last added first; at once if it has gone.
            pub fn on_cleanup($($receiver)+, clean: impl FnOnce() + 'static) {
                let mut clean = Some(clean);
                let added = $self.lend(|socket| {
                    if let Some(clean) = clean.take() {
                        socket.conn_state().cleanups.push(Box::new(clean));
                    }
                });
                if added.is_none()
                    && let Some(clean) = clean
                {
                    guarded("a clean-up", clean);
                }
            }

            // ---- what outlives it -----------------------------------------------------------------------------------

            /// The way to this connection from any thread. A send-only connection stays open as long as one lives.
            pub fn sender($($receiver)+) -> Sender {
                $self.own_sender()
            }

            /// The way to all connections from any thread.
            pub fn hub(&$self) -> &Hub {
                &$self.core().hub
            }

            /// Runs a future on this core.
            pub fn spawn<T: 'static>(&$self, future: impl Future<Output = T> + 'static) -> Task<T> {
                $self.core().runtime.spawn(future)
            }
        }
    };
}

verbs!(impl['a] Socket<'a>, self: [&mut self]);
verbs!(impl[] Connection, self: [&self]);
