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
use crate::hub::{ConnectionId, Delivery, JoinError, Recovered, Scope, Since};
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
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, ConnectionId, ws};
            ///
            /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
            /// let client = server.connect("/");
            /// let id: ConnectionId = client.next_text().parse().unwrap();
            /// let told = server.block_on(server.hub().send_to(id, "to you alone").unwrap());
            /// assert_eq!(told.queued, 1);
            /// client.expect_text("to you alone");
            /// ```
            pub fn id(&$self) -> ConnectionId {
                $self.own_id()
            }

            /// The peer's address; `None` on a Unix socket.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, ws};
            ///
            /// let route = || ws().on_connect(|socket| socket.peer().map(|peer| peer.ip().to_string()));
            /// let server = TestServer::new(move || App::new().ws("/", route()));
            /// let client = server.handshake("/").from("192.0.2.7:4711".parse().unwrap()).open();
            /// client.expect_text("192.0.2.7");
            /// ```
            pub fn peer(&$self) -> Option<SocketAddr> {
                $self.own_peer()
            }

            /// How long it has been open, or was when it ended.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, ws};
            /// use std::time::Duration;
            ///
            /// let route = || ws().on_message(|socket, _| format!("{} s", socket.duration().as_secs()));
            /// let server = TestServer::new(move || App::new().ws("/", route()));
            /// let client = server.connect("/");
            /// server.advance(Duration::from_secs(90));
            /// client.send("how long?");
            /// client.expect_text("90 s");
            /// ```
            pub fn duration(&$self) -> Duration {
                Duration::from_nanos($self.own_age_ns())
            }

            /// Whether compression (permessage-deflate) is agreed on with the peer.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, Deflate, ws};
            ///
            /// let route = || ws().deflate(Deflate::Stateless).on_connect(|socket| socket.is_deflated().to_string());
            /// let server = TestServer::new(move || App::new().ws("/", route()));
            /// server.handshake("/").deflate().open().expect_text("true");
            /// server.connect("/").expect_text("false");
            /// ```
            pub fn is_deflated(&$self) -> bool {
                $self.look(|hub, slot| slot.is_some_and(|slot| hub.agreed(slot).is_some())).unwrap_or(false)
            }

            /// Whether messages can still be queued.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, IllegalCloseCode, ws};
            ///
            /// let route = || {
            ///     ws().on_message(|socket, _| {
            ///         socket.close(1000, "that was all")?;
            ///         assert!(!socket.is_open());
            ///         Ok::<_, IllegalCloseCode>(())
            ///     })
            /// };
            /// let server = TestServer::new(move || App::new().ws("/", route()));
            /// let client = server.connect("/");
            /// client.send("hello");
            /// client.expect_close(1000);
            /// ```
            pub fn is_open(&$self) -> bool {
                $self.look(|hub, slot| slot.is_some_and(|slot| hub.is_open(slot))).unwrap_or(false)
            }

            /// The request that opened it, without a body.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, ws};
            ///
            /// let greet = || {
            ///     ws().on_connect(|socket| match socket.request().query("lang").as_deref() {
            ///         Some("de") => "Willkommen",
            ///         _ => "Welcome",
            ///     })
            /// };
            /// let server = TestServer::new(move || App::new().ws("/", greet()));
            /// server.connect("/?lang=de").expect_text("Willkommen");
            /// ```
            ///
            /// # Panics
            /// On a route that does not keep it ([`Ws::forget_request`](crate::Ws::forget_request)).
            pub fn request(&$self) -> &$($lifetime)? Request {
                $self.opening().expect("the route forgets its requests")
            }

            /// What its TLS has agreed on, and the certificate that its client has shown: see
            /// [`Request::tls`](crate::Request::tls). `None` without TLS, and on a route that does not keep its requests.
            ///
            /// ```
            /// use ringwire::ws;
            ///
            /// ws().on_connect(|socket| match socket.tls() {
            ///     Some(tls) => println!("{} with {}", socket.id(), tls.version()),
            ///     None => println!("{} in the clear", socket.id()),
            /// });
            /// ```
            pub fn tls(&$self) -> Option<&$($lifetime)? TlsInfo> {
                $self.opening().and_then(Request::tls)
            }

            /// A parameter of the route's path; empty if there is none of that name.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, ws};
            ///
            /// let route = || ws().on_connect(|socket| format!("welcome to {}", socket.param("room")));
            /// let server = TestServer::new(move || App::new().ws("/rooms/{room}", route()));
            /// server.connect("/rooms/the%20lobby").expect_text("welcome to the lobby");
            /// ```
            pub fn param(&$self, name: &str) -> &$($lifetime)? str {
                $self.opening().map_or("", |request| request.param(name))
            }

            // ---- sending --------------------------------------------------------------------------------------------

            /// Queues a message to this connection. What one tick queues leaves in one piece.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, Json, Sent, ws};
            ///
            /// let route = || {
            ///     ws().on_message(|socket, message| {
            ///         assert_eq!(socket.send("text"), Sent::Queued);
            ///         let _ = socket.send(Json(["a", "value"]));
            ///         socket.send(message)
            ///     })
            /// };
            /// let server = TestServer::new(move || App::new().ws("/", route()));
            /// let client = server.connect("/");
            /// client.send(vec![1, 2, 3]);
            /// client.expect_text("text");
            /// client.expect_json(["a", "value"]);
            /// client.expect_binary([1, 2, 3]);
            /// ```
            #[inline]
            pub fn send($($receiver)+, message: impl IntoMessage) -> Sent {
                queue_message(message, |message| $self.queue(message, None))
            }

            /// Queues a named event to this connection, in the app's envelope.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, ws};
            /// use serde_json::json;
            ///
            /// let route = || ws().on_connect(|socket| socket.emit("welcome", &json!({"news": 3})));
            /// let server = TestServer::new(move || App::new().ws("/", route()));
            /// server.connect("/").expect_text(r#"{"event":"welcome","data":{"news":3}}"#);
            /// ```
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
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, SlowConsumer, ws};
            ///
            /// let prices = || {
            ///     ws().slow_consumer(SlowConsumer::KeepLatest).on_message(|socket, message| {
            ///         let price = message.as_text().unwrap_or_default();
            ///         socket.send_keyed("EURUSD", price)
            ///     })
            /// };
            /// let server = TestServer::new(move || App::new().ws("/prices", prices()));
            /// let client = server.connect("/prices");
            /// client.set_window(1024);
            /// client.pause();
            /// (0..1000).for_each(|price| client.send(price.to_string()));
            /// client.resume();
            /// let seen = client.unread();
            /// assert!(seen.len() < 1000 && seen.last().unwrap().as_text() == Some("999"));
            /// ```
            pub fn send_keyed($($receiver)+, key: impl AsRef<[u8]>, message: impl IntoMessage) -> Sent {
                let key = Key::of(key.as_ref());
                queue_message(message, |message| $self.queue(message, Some(key)))
            }

            /// As [`Socket::emit`](crate::Socket::emit), with a key: see [`Socket::send_keyed`](crate::Socket::send_keyed).
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, SlowConsumer, ws};
            ///
            /// let scores = || {
            ///     ws().slow_consumer(SlowConsumer::KeepLatest).on_connect(|socket| socket.emit_keyed("game 7", "score", &[2, 1]))
            /// };
            /// let server = TestServer::new(move || App::new().ws("/scores", scores()));
            /// assert_eq!(server.connect("/scores").expect_event("score"), serde_json::json!([2, 1]));
            /// ```
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

            /// As [`Socket::emit`](crate::Socket::emit), and it is sent as it is, whatever compression was agreed: see
            /// [`IntoMessage::uncompressed`].
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, Deflate, ws};
            ///
            /// let token = "4711 ".repeat(100);
            /// let route = || {
            ///     let token = token.clone();
            ///     ws().deflate(Deflate::Stateless).on_connect(move |socket| socket.emit_uncompressed("token", &token))
            /// };
            /// let server = TestServer::new(|| App::new().ws("/", route()));
            /// let client = server.handshake("/").deflate().open();
            /// assert_eq!(client.expect_event("token"), token);
            /// assert_eq!(client.inflated_messages(), 0);
            /// ```
            ///
            /// # Errors
            /// If the data cannot be written as JSON.
            pub fn emit_uncompressed(
                $($receiver)+,
                event: &str,
                data: &(impl Serialize + ?Sized),
            ) -> Result<Sent, EncodeError> {
                let text = $self.core().envelope().encode(event, data)?;
                Ok($self.queue(borrowed(Kind::Text, &text).marked(true), None))
            }

            /// Bytes queued to this connection and not yet taken by its socket.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, ws};
            ///
            /// // Echoes, and says nothing to who does not keep up.
            /// let route = || ws().on_message(|socket, message| (socket.outbox_bytes() < 64 << 10).then(|| message.into_owned()));
            /// let server = TestServer::new(move || App::new().ws("/", route()));
            /// let client = server.connect("/");
            /// client.send("hello");
            /// client.expect_text("hello");
            /// ```
            pub fn outbox_bytes(&$self) -> usize {
                $self.look(|hub, slot| slot.map_or(0, |slot| hub.outbox.queued_bytes(slot))).unwrap_or(0)
            }

            /// The members of a room, on all cores, this connection included where it is one.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, ws};
            ///
            /// let chat = || {
            ///     ws().on_connect(|socket| socket.join("lobby")).on_message(|socket, message| socket.to("lobby").except_self().send(message))
            /// };
            /// let server = TestServer::new(move || App::new().ws("/chat", chat()));
            /// let (ann, ben) = (server.connect("/chat"), server.connect("/chat"));
            /// ann.send("hello");
            /// ben.expect_text("hello");
            /// ann.expect_nothing();
            /// ```
            pub fn to($($receiver)+, room: &str) -> To<'_> {
                To::new($self, Scope::Room(room.into()))
            }

            /// Sends a message to all members of the room that this connection joined first of those it is still in, itself
            /// included: the fast way for connections that live in one room. A large received message is not copied.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, ws};
            ///
            /// let chat = || {
            ///     ws().on_connect(|socket| socket.join(socket.param("room"))).on_message(|socket, message| socket.to_own_room(message))
            /// };
            /// let server = TestServer::new(move || App::new().ws("/rooms/{room}", chat()));
            /// let (ann, ben) = (server.connect("/rooms/lobby"), server.connect("/rooms/lobby"));
            /// ann.send("hello");
            /// ann.expect_text("hello");
            /// ben.expect_text("hello");
            /// ```
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
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, ws};
            ///
            /// let route = || ws().on_message(|socket, message| socket.to_all().send(message));
            /// let server = TestServer::new(move || App::new().ws("/speak", route()).ws("/listen", ws()));
            /// let (speaker, listener) = (server.connect("/speak"), server.connect("/listen"));
            /// speaker.send("hello");
            /// speaker.expect_text("hello");
            /// listener.expect_text("hello");
            /// ```
            pub fn to_all($($receiver)+) -> To<'_> {
                To::new($self, Scope::Everyone)
            }

            /// All connections of this connection's route, on all cores, this one included.
            ///
            /// Those that an HTTP handler has upgraded are of one route where they came by the same path and were upgraded to
            /// what the same call of [`ws()`](crate::ws()) in the source has made, be it once on each core or anew for each of
            /// them.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, ws};
            ///
            /// let route = || ws().on_message(|socket, message| socket.to_route().send(message));
            /// let server = TestServer::new(move || App::new().ws("/chat", route()).ws("/other", ws()));
            /// let (ann, ben, other) = (server.connect("/chat"), server.connect("/chat"), server.connect("/other"));
            /// ann.send("hello");
            /// ben.expect_text("hello");
            /// other.expect_nothing();
            /// ```
            pub fn to_route($($receiver)+) -> To<'_> {
                let scope = Scope::Route($self.route_name());
                To::new($self, scope)
            }

            /// Closes the connection, after what has been queued to it: no more messages are taken from now on, and `on_close`
            /// runs when the peer has answered, or its time is up. The first close counts. The reason is cut to 123 bytes.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, ws};
            ///
            /// let route = || ws().on_message(|socket, _| socket.close(4000, "that was all"));
            /// let server = TestServer::new(move || App::new().ws("/", route()));
            /// let client = server.connect("/");
            /// client.send("hello");
            /// assert_eq!(client.expect_close(4000), "that was all");
            /// ```
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
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, ws};
            ///
            /// let server = TestServer::new(|| App::new().ws("/", ws().on_message(|socket, _| socket.close_without_code())));
            /// let client = server.connect("/");
            /// client.send("hello");
            /// client.expect_close(1005);
            /// ```
            pub fn close_without_code($($receiver)+) {
                $self.close_with(None, String::new());
            }

            /// Queues a ping with this payload, besides those that the server sends by itself; what the peer answers,
            /// [`Ws::on_pong`](crate::Ws::on_pong) hears.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, ws};
            ///
            /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.ping("there?"))));
            /// assert_eq!(server.connect("/").expect_ping(), "there?");
            /// ```
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

            /// As [`Socket::join_then`](crate::Socket::join_then), of a room with a history
            /// ([`Ws::history`](crate::Ws::history)): `then` gets what `since` asks for of what was published before, and what is
            /// published from then on arrives behind it, so that nothing is missed and nothing comes twice.
            ///
            /// `since` is a [`Position`](crate::Position), as a connection had it when it went away, or how many of the last
            /// messages are wanted, or `None`. Where [`Recovered::is_complete`] is false, some of what was asked for is
            /// forgotten, and [`Recovered::messages`] are those that are left. What this connection has sent itself is among
            /// them.
            ///
            /// The room's messages are numbered one by one: who counts them from [`Recovered::position`] on knows where it is.
            /// Named events (`emit`) say it themselves: beside their data there is `"offset":N`. Where all machines have one
            /// history (`docs/many_machines.md`), the numbers only rise, and nobody can count. Of a room that it is in already
            /// a connection gets what it asks for, whatever it had before.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, History, Position, ws};
            /// use serde_json::json;
            ///
            /// let route = || {
            ///     ws().history(History::last(100))
            ///         .on_connect(|socket| {
            ///             let seen: Option<Position> = socket.request().query("seen").and_then(|text| text.parse().ok());
            ///             socket.join_since("news", seen, None, |socket, recovered| {
            ///                 let at = recovered.position.map(|position| position.to_string());
            ///                 let _ = socket.emit("joined", &(recovered.is_complete, at));
            ///                 let _ = socket.replay(&recovered);
            ///             })
            ///         })
            ///         .on_text(|socket, text| socket.to("news").emit("said", text))
            /// };
            /// let server = TestServer::builder().cores(2).start(move || App::new().ws("/", route()));
            /// let (ann, ben) = (server.connect("/"), server.connect("/"));
            /// let joined = ben.expect_event("joined");
            /// ben.close(1000, "");
            /// ann.expect_event("joined");
            /// ["a", "b"].map(|text| ann.send(text));
            /// ann.expect_text(r#"{"event":"said","data":"a","offset":1}"#);
            /// ann.expect_text(r#"{"event":"said","data":"b","offset":2}"#);
            /// let ben = server.connect(&format!("/?seen={}", joined[1].as_str().unwrap()));
            /// assert_eq!(ben.expect_event("joined")[0], json!(true));
            /// ben.expect_text(r#"{"event":"said","data":"a","offset":1}"#);
            /// ben.expect_text(r#"{"event":"said","data":"b","offset":2}"#);
            /// ```
            ///
            /// # Errors
            /// If the connection is closing, or a limit is reached.
            pub fn join_since(
                $($receiver)+,
                room: impl AsRef<str>,
                since: impl Into<Since>,
                notice: Option<Notice>,
                then: impl FnOnce(&mut Socket<'_>, Recovered) + 'static,
            ) -> Result<(), JoinError> {
                let (room, since) = (room.as_ref(), since.into());
                let join = |socket: &mut Socket<'_>| socket.change_by_join_since(room, since, notice, then);
                $self.lend(join).unwrap_or(Err(JoinError::Gone))
            }

            /// Joins a room with a history and has the connection sent what `since` asks for of it, and then what is published:
            /// [`Socket::join_since`](crate::Socket::join_since) with [`Socket::replay`](crate::Socket::replay).
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, History, ws};
            ///
            /// let route = || {
            ///     ws().history(History::last(100))
            ///         .on_connect(|socket| socket.join_with_history("lobby", 100))
            ///         .on_message(|socket, message| socket.to_own_room(message))
            /// };
            /// let server = TestServer::new(move || App::new().ws("/", route()));
            /// let ann = server.connect("/");
            /// ["hello", "is anybody here?"].map(|text| ann.send(text));
            /// let ben = server.connect("/");
            /// ben.expect_text("hello");
            /// ben.expect_text("is anybody here?");
            /// ```
            ///
            /// # Errors
            /// If the connection is closing, or a limit is reached.
            pub fn join_with_history(
                $($receiver)+,
                room: impl AsRef<str>,
                since: impl Into<Since>,
            ) -> Result<(), JoinError> {
                $self.join_since(room, since, None, |socket, recovered| {
                    // Who has gone misses it.
                    let _ = socket.replay(&recovered);
                })
            }

            /// Queues the messages of a room's history to this connection as they were published, whatever the limit of its
            /// queue: how much a room keeps has a limit of its own ([`History::max_bytes`](crate::History::max_bytes)).
            ///
            /// ```
            /// use ringwire::ws;
            ///
            /// ws().on_connect(|socket| {
            ///     socket.join_since("lobby", 20, None, |socket, recovered| {
            ///         let _ = socket.send(format!("{} messages, and {} are here", recovered.len(), recovered.members));
            ///         let _ = socket.replay(&recovered);
            ///     })
            /// });
            /// ```
            pub fn replay($($receiver)+, recovered: &Recovered) -> Sent {
                let replay = |socket: &mut Socket<'_>| {
                    let slot = socket.slot;
                    sent(socket.hub_now().replay(slot, recovered))
                };
                $self.lend(replay).unwrap_or(Sent::Gone)
            }

            /// Leaves a room at once, and calls `then` with the number of its members once every core knows of it, as
            /// [`Socket::join_then`](crate::Socket::join_then) does; false if it was not in it. `notice` goes to the
            /// connections that are in the room.
            ///
            /// In `on_close` it leaves with the notice, and `then` is not called.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, ws};
            ///
            /// let route = || {
            ///     ws().on_connect(|socket| socket.join("lobby")).on_message(|socket, _| {
            ///         socket.leave_then("lobby", None, |socket, members| {
            ///             let _ = socket.emit("left", &members);
            ///         });
            ///     })
            /// };
            /// let server = TestServer::builder().cores(2).start(move || App::new().ws("/", route()));
            /// let (ann, _ben) = (server.connect("/"), server.connect("/"));
            /// ann.send("bye");
            /// assert_eq!(ann.expect_event("left"), 1);
            /// ```
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
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, BoxError, ws};
            ///
            /// let route = || {
            ///     ws().on_connect(|socket| {
            ///         let notice = socket.notice("came", &socket.param("name"))?;
            ///         socket.join_then("lobby", Some(notice), |_, _| ())?;
            ///         Ok::<_, BoxError>(())
            ///     })
            /// };
            /// let server = TestServer::new(move || App::new().ws("/{name}", route()));
            /// let (ann, _ben) = (server.connect("/ann"), server.connect("/ben"));
            /// assert_eq!(ann.expect_event("came"), "ben");
            /// ```
            ///
            /// # Errors
            /// If the data cannot be written as JSON.
            pub fn notice(&$self, event: &str, data: &(impl Serialize + ?Sized)) -> Result<Notice, EncodeError> {
                let text = $self.core().envelope().encode(event, data)?;
                Ok(Notice(FrameBuf::new(Kind::Text.into(), &text)))
            }

            /// Whether it is in a room.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, ws};
            ///
            /// let route = || {
            ///     ws().on_text(|socket, room| {
            ///         let _ = if socket.is_in(room) { Ok(drop(socket.leave(room))) } else { socket.join(room) };
            ///         socket.is_in(room).to_string()
            ///     })
            /// };
            /// let server = TestServer::new(move || App::new().ws("/toggle", route()));
            /// let client = server.connect("/toggle");
            /// client.send("lobby");
            /// client.expect_text("true");
            /// client.send("lobby");
            /// client.expect_text("false");
            /// ```
            pub fn is_in(&$self, room: impl AsRef<str>) -> bool {
                let room = room.as_ref();
                $self.look(|hub, slot| slot.is_some_and(|slot| hub.is_in(slot, room))).unwrap_or(false)
            }

            /// The rooms it is in.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, Json, ws};
            ///
            /// let route = || {
            ///     ws().on_connect(|socket| ["lobby", "news"].iter().try_for_each(|room| socket.join(room)))
            ///         .on_message(|socket, _| Json(socket.rooms()))
            /// };
            /// let server = TestServer::new(move || App::new().ws("/", route()));
            /// let client = server.connect("/");
            /// client.send("where am I?");
            /// client.expect_json(["lobby", "news"]);
            /// ```
            pub fn rooms(&$self) -> Vec<String> {
                $self.look(|hub, slot| slot.map(|slot| hub.rooms_of(slot))).flatten().unwrap_or_default()
            }

            /// How many members a room has, over all cores, as far as this core has heard: a join or leave that was answered
            /// once every core knew of it is counted.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, ws};
            ///
            /// let route = || {
            ///     ws().on_connect(|socket| socket.join("lobby").map(|()| format!("{} are here", socket.member_count("lobby"))))
            /// };
            /// let server = TestServer::new(move || App::new().ws("/", route()));
            /// let (ann, ben) = (server.connect("/"), server.connect("/"));
            /// ann.expect_text("1 are here");
            /// ben.expect_text("2 are here");
            /// ```
            pub fn member_count(&$self, room: impl AsRef<str>) -> usize {
                let room = room.as_ref();
                $self.look(|hub, _| hub.member_count(room)).unwrap_or(0)
            }

            // ---- state ----------------------------------------------------------------------------------------------

            /// The connection's JSON data, which every core and thread can read; `null` at first, and when it has gone.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, Json, ws};
            /// use serde_json::json;
            ///
            /// let route = || {
            ///     ws().on_connect(|socket| socket.set_data(json!({"name": "ann", "level": 7})))
            ///         .on_message(|socket, _| Json(socket.data()["level"].clone()))
            /// };
            /// let server = TestServer::new(move || App::new().ws("/", route()));
            /// let client = server.connect("/");
            /// client.send("my level?");
            /// client.expect_json(7);
            /// ```
            pub fn data(&$self) -> Value {
                $self.raw_data().to_value()
            }

            /// The connection's JSON data as it was written, with all digits of its numbers.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, RawJson, ws};
            ///
            /// let route = || {
            ///     ws().on_text(|socket, json| {
            ///         socket.set_data(RawJson::parse(json)?);
            ///         Ok::<_, ringwire::DecodeError>(socket.raw_data().to_string())
            ///     })
            /// };
            /// let server = TestServer::new(move || App::new().ws("/", route()));
            /// let client = server.connect("/");
            /// client.send(r#"{"balance": 0.10000000000000000001}"#);
            /// client.expect_text(r#"{"balance": 0.10000000000000000001}"#);
            /// ```
            pub fn raw_data(&$self) -> RawJson {
                $self.look(|hub, slot| slot.map(|slot| hub.data(slot))).flatten().unwrap_or_default()
            }

            /// Sets the connection's JSON data: a [`Value`], or a [`RawJson`], which stays as it is written. One that has gone
            /// has none.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, ws};
            /// use serde_json::json;
            ///
            /// let route = || ws().on_connect(|socket| socket.set_data(json!({"name": socket.param("name")})));
            /// let server = TestServer::new(move || App::new().ws("/{name}", route()));
            /// let _ann = server.connect("/ann");
            /// // Whoever lists the connections sees it.
            /// let connections = server.block_on(server.hub().connections()).unwrap();
            /// assert_eq!(connections[0].data, json!({"name": "ann"}));
            /// ```
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
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, ws};
            ///
            /// let counting = || {
            ///     ws().on_message(|socket, _| {
            ///         let mut extensions = socket.extensions();
            ///         let count: &mut u32 = extensions.get_or_insert_default();
            ///         *count += 1;
            ///         count.to_string()
            ///     })
            /// };
            /// let server = TestServer::new(move || App::new().ws("/", counting()));
            /// let client = server.connect("/");
            /// client.send("a");
            /// client.send("b");
            /// client.expect_text("1");
            /// client.expect_text("2");
            /// ```
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
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, ws};
            ///
            /// #[derive(Clone)]
            /// struct User(String);
            ///
            /// let greet = || {
            ///     ws().before(|request| {
            ///         let user = User(request.cookie("user").unwrap_or("stranger").to_owned());
            ///         request.extensions_mut().insert(user);
            ///         Ok(())
            ///     })
            ///     .on_connect(|socket| socket.extension::<User>().map(|user| format!("Hello, {}!", user.0)))
            /// };
            /// let server = TestServer::new(move || App::new().ws("/", greet()));
            /// server.handshake("/").cookie("user", "ann").open().expect_text("Hello, ann!");
            /// ```
            ///
            /// # Panics
            /// As [`Socket::extensions`](crate::Socket::extensions).
            pub fn extension<T: Clone + Send + Sync + 'static>($($receiver)+) -> Option<T> {
                $self.extensions().get::<T>().cloned()
            }

            /// Runs `clean` exactly once when the connection ends, after `on_close`, last added first; at once if it has gone.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, ws};
            /// use std::{cell::Cell, rc::Rc};
            ///
            /// let seats = Rc::new(Cell::new(10));
            /// let server = TestServer::new(|| {
            ///     let seats = Rc::clone(&seats);
            ///     App::new().ws("/", ws().on_connect(move |socket| {
            ///         seats.set(seats.get() - 1);
            ///         let seats = Rc::clone(&seats);
            ///         socket.on_cleanup(move || seats.set(seats.get() + 1));
            ///     }))
            /// });
            /// let client = server.connect("/");
            /// assert_eq!(seats.get(), 9);
            /// client.reset();
            /// assert_eq!(seats.get(), 10);
            /// ```
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
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, sleep, ws};
            /// use std::time::Duration;
            ///
            /// let remind = || {
            ///     ws().on_message(|socket, message| {
            ///         let (sender, message) = (socket.sender(), message.into_owned());
            ///         // A thread or a task of another runtime could as well have it.
            ///         socket.spawn(async move {
            ///             sleep(Duration::from_secs(5)).await;
            ///             sender.send(message).map(drop)
            ///         }).detach();
            ///     })
            /// };
            /// let server = TestServer::new(move || App::new().ws("/remind", remind()));
            /// let client = server.connect("/remind");
            /// client.send("tea");
            /// client.expect_nothing_for(Duration::from_secs(4));
            /// client.expect_text("tea");
            /// ```
            pub fn sender($($receiver)+) -> Sender {
                $self.own_sender()
            }

            /// The way to all connections from any thread.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, ws};
            ///
            /// let route = || ws().on_connect(|socket| format!("{} of us", socket.hub().websockets()));
            /// let server = TestServer::new(move || App::new().ws("/", route()));
            /// let (ann, ben) = (server.connect("/"), server.connect("/"));
            /// ann.expect_text("1 of us");
            /// ben.expect_text("2 of us");
            /// ```
            pub fn hub(&$self) -> &Hub {
                &$self.core().hub
            }

            /// Runs a future on this core.
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, sleep, ws};
            /// use std::time::Duration;
            ///
            /// let route = || {
            ///     ws().on_connect(|socket| {
            ///         let sender = socket.sender();
            ///         let nudge = async move {
            ///             sleep(Duration::from_secs(3)).await;
            ///             sender.emit("still there?", &()).map(drop)
            ///         };
            ///         socket.spawn(nudge).detach();
            ///     })
            /// };
            /// let server = TestServer::new(move || App::new().ws("/", route()));
            /// server.connect("/").expect_event("still there?");
            /// ```
            pub fn spawn<T: 'static>(&$self, future: impl Future<Output = T> + 'static) -> Task<T> {
                $self.core().runtime.spawn(future)
            }
        }
    };
}

verbs!(impl['a] Socket<'a>, self: [&mut self]);
verbs!(impl[] Connection, self: [&self]);
