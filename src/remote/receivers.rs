//! Sending from any thread: what [`Hub`] and [`crate::Sender`] offer.

use std::future::Future;

use serde::Serialize;

use crate::hub::{ConnectionId, CoreHub, Delivery, Letter, Order, Publication, Scope, Tally};
use crate::mail::MailError;
use crate::message::{EncodeError, IntoMessage};
use crate::outbox::{FrameBuf, Key, Queued};
use crate::proto::Kind;
use crate::remote::Hub;
use crate::remote::answers::Delivering;
use crate::runtime::Runtime;

impl Hub {
    // ---- messages -------------------------------------------------------------------------------------------------

    /// The members of a room, on all cores.
    ///
    /// ```no_run
    /// # fn tick(hub: &ringwire::Hub) -> Result<(), ringwire::EncodeError> {
    /// // Whoever is behind on a route with `SlowConsumer::KeepLatest` gets the latest price alone.
    /// let _ = hub.to("prices").keyed("price:EURUSD").emit("price", &1.0845)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn to(&self, room: &str) -> Receivers<'_> {
        self.receivers(Target::Scope(Scope::Room(room.into())))
    }

    /// All connections.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::builder().cores(2).start(|| App::new().ws("/news", ws()).ws("/chat", ws()));
    /// let (reader, chatter) = (server.connect("/news"), server.connect("/chat"));
    /// let told = server.block_on(server.hub().to_all().emit("headline", "it rains").unwrap());
    /// assert_eq!(told.queued, 2);
    /// reader.expect_event("headline");
    /// chatter.expect_event("headline");
    /// ```
    pub fn to_all(&self) -> Receivers<'_> {
        self.receivers(Target::Scope(Scope::Everyone))
    }

    /// The connections of a route, by its path as it was given to `App::ws`, and those that an HTTP handler of this path
    /// has upgraded.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::builder().cores(2).start(|| App::new().ws("/news", ws()).ws("/chat", ws()));
    /// let (reader, chatter) = (server.connect("/news"), server.connect("/chat"));
    /// let told = server.block_on(server.hub().to_route("/news").emit("headline", "it rains").unwrap());
    /// assert_eq!(told.queued, 1);
    /// reader.expect_event("headline");
    /// chatter.expect_nothing();
    /// ```
    pub fn to_route(&self, path: &str) -> Receivers<'_> {
        self.receivers(Target::Scope(Scope::Path(path.into())))
    }

    /// One connection, on whichever core it is. The answer says `gone` for an id that is stale or was never one; a stale
    /// id never reaches a later connection.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// let to_it = server.hub().to_connection(id);
    /// assert_eq!(server.block_on(to_it.clone().send("hello").unwrap()).queued, 1);
    /// client.expect_text("hello");
    /// client.reset();
    /// assert_eq!(server.block_on(to_it.send("hello").unwrap()).gone, 1);
    /// ```
    pub fn to_connection(&self, id: ConnectionId) -> Receivers<'_> {
        self.receivers(Target::One(id))
    }

    fn receivers(&self, target: Target) -> Receivers<'_> {
        Receivers { hub: self, target, key: None, uncompressed: false, except: None, is_ephemeral: false }
    }

    /// Sends a message to one connection. See [`Hub::to_connection`].
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// let _ = server.hub().send_to(id, "hello").unwrap();
    /// client.expect_text("hello");
    /// ```
    ///
    /// # Errors
    /// If a value cannot be written as JSON.
    pub fn send_to(&self, id: ConnectionId, message: impl IntoMessage) -> Result<Delivering, EncodeError> {
        self.to_connection(id).send(message)
    }

    /// Sends a named event to one connection.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// let told = server.block_on(server.hub().emit_to(id, "private", "psst").unwrap());
    /// assert_eq!(told.queued, 1);
    /// assert_eq!(client.expect_event("private"), "psst");
    /// ```
    ///
    /// # Errors
    /// If the data cannot be written as JSON.
    pub fn emit_to(
        &self,
        id: ConnectionId,
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> Result<Delivering, EncodeError> {
        self.to_connection(id).emit(event, data)
    }

    /// Sends a named event to one connection, if it is on a route of this path; `None` if it is on another. Whoever has the
    /// connection on this machine is asked both at once: each question wakes two cores.
    pub(crate) fn emit_on_route(
        &self,
        id: ConnectionId,
        path: &'static str,
        event: &str,
        data: &(impl Serialize + ?Sized),
        is_uncompressed: bool,
    ) -> Result<impl Future<Output = Result<Option<Delivery>, MailError>>, EncodeError> {
        let frame = self.event_frame(event, data, is_uncompressed)?;
        Ok(async move {
            if let Some(core) = self.way_to(id).filter(|core| *core < self.cores()) {
                let ask = move |hub: &mut CoreHub| hub.send_on_route(id, path, frame).map(Delivery::from);
                return self.ask(core, ask).outcome().await;
            }
            match self.connection(id).outcome().await? {
                Some(connection) if *connection.route != *path => Ok(None),
                Some(_) => Ok(Some(self.to_connection(id).send_frame(frame).await)),
                None => Ok(Some(Queued::Gone.into())),
            }
        })
    }

    fn event_frame(
        &self,
        event: &str,
        data: &(impl Serialize + ?Sized),
        uncompressed: bool,
    ) -> Result<FrameBuf, EncodeError> {
        let text = self.envelope().encode(event, data)?;
        Ok(FrameBuf::new(Kind::Text.into(), &text).uncompressed(uncompressed).event(true))
    }

    /// Sends a message to all connections.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::builder().cores(2).start(|| App::new().ws("/news", ws()).ws("/chat", ws()));
    /// let (reader, chatter) = (server.connect("/news"), server.connect("/chat"));
    /// let _ = server.hub().send_to_all("hello").unwrap();
    /// reader.expect_text("hello");
    /// chatter.expect_text("hello");
    /// ```
    ///
    /// # Errors
    /// If a value cannot be written as JSON.
    pub fn send_to_all(&self, message: impl IntoMessage) -> Result<Delivering, EncodeError> {
        self.to_all().send(message)
    }

    /// Sends a named event to all connections.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::builder().cores(2).start(|| App::new().ws("/news", ws()).ws("/chat", ws()));
    /// let (reader, chatter) = (server.connect("/news"), server.connect("/chat"));
    /// let _ = server.hub().emit_to_all("headline", "it rains").unwrap();
    /// assert_eq!(reader.expect_event("headline"), "it rains");
    /// assert_eq!(chatter.expect_event("headline"), "it rains");
    /// ```
    ///
    /// # Errors
    /// If the data cannot be written as JSON.
    pub fn emit_to_all(&self, event: &str, data: &(impl Serialize + ?Sized)) -> Result<Delivering, EncodeError> {
        self.to_all().emit(event, data)
    }

    /// Sends a named event to all connections but one.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// let other = server.connect("/");
    /// other.next_text();
    /// let _ = server.hub().emit_to_all_except(id, "joined", &id).unwrap();
    /// assert_eq!(other.expect_event("joined"), id.to_string());
    /// client.expect_nothing();
    /// ```
    ///
    /// # Errors
    /// If the data cannot be written as JSON.
    pub fn emit_to_all_except(
        &self,
        id: ConnectionId,
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> Result<Delivering, EncodeError> {
        self.to_all().except(id).emit(event, data)
    }

    /// Sends a message to all connections but one.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// let other = server.connect("/");
    /// other.next_text();
    /// let _ = server.hub().send_to_all_except(id, "hello").unwrap();
    /// other.expect_text("hello");
    /// client.expect_nothing();
    /// ```
    ///
    /// # Errors
    /// If a value cannot be written as JSON.
    pub fn send_to_all_except(
        &self,
        id: ConnectionId,
        message: impl IntoMessage,
    ) -> Result<Delivering, EncodeError> {
        self.to_all().except(id).send(message)
    }

    /// Sends a message to the members of a room.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || ws().on_connect(|socket| socket.join(socket.param("room")));
    /// let server = TestServer::builder().cores(2).start(move || App::new().ws("/{room}", route()));
    /// let (lobby, attic) = (server.connect("/lobby"), server.connect("/attic"));
    /// let _ = server.hub().send_to_room("lobby", "hello").unwrap();
    /// lobby.expect_text("hello");
    /// attic.expect_nothing();
    /// ```
    ///
    /// # Errors
    /// If a value cannot be written as JSON.
    pub fn send_to_room(&self, room: &str, message: impl IntoMessage) -> Result<Delivering, EncodeError> {
        self.to(room).send(message)
    }

    /// Sends a named event to the members of a room.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || ws().on_connect(|socket| socket.join(socket.param("room")));
    /// let server = TestServer::builder().cores(2).start(move || App::new().ws("/{room}", route()));
    /// let (lobby, attic) = (server.connect("/lobby"), server.connect("/attic"));
    /// let _ = server.hub().emit_to_room("lobby", "bell", &2).unwrap();
    /// assert_eq!(lobby.expect_event("bell"), 2);
    /// attic.expect_nothing();
    /// ```
    ///
    /// # Errors
    /// If the data cannot be written as JSON.
    pub fn emit_to_room(
        &self,
        room: &str,
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> Result<Delivering, EncodeError> {
        self.to(room).emit(event, data)
    }

    /// Sends a message to the connections of a route, by its path as it was given to `App::ws`.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::builder().cores(2).start(|| App::new().ws("/news", ws()).ws("/chat", ws()));
    /// let (reader, chatter) = (server.connect("/news"), server.connect("/chat"));
    /// let _ = server.hub().send_to_route("/news", "it rains").unwrap();
    /// reader.expect_text("it rains");
    /// chatter.expect_nothing();
    /// ```
    ///
    /// # Errors
    /// If a value cannot be written as JSON.
    pub fn send_to_route(&self, path: &str, message: impl IntoMessage) -> Result<Delivering, EncodeError> {
        self.to_route(path).send(message)
    }

    /// Sends a named event to the connections of a route, by its path as it was given to `App::ws`.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::builder().cores(2).start(|| App::new().ws("/news", ws()).ws("/chat", ws()));
    /// let (reader, chatter) = (server.connect("/news"), server.connect("/chat"));
    /// let _ = server.hub().emit_to_route("/news", "headline", "it rains").unwrap();
    /// assert_eq!(reader.expect_event("headline"), "it rains");
    /// chatter.expect_nothing();
    /// ```
    ///
    /// # Errors
    /// If the data cannot be written as JSON.
    pub fn emit_to_route(
        &self,
        path: &str,
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> Result<Delivering, EncodeError> {
        self.to_route(path).emit(event, data)
    }

    /// Gives the core of a connection an order, or the machine that has it; whoever waits is told that it has gone where neither
    /// can be.
    pub(super) fn give_to(&self, id: ConnectionId, order: Order) {
        match self.way_to(id) {
            Some(number) => self.give(number, order.into()),
            None => order.answer_gone(),
        }
    }

    /// Gives a core a letter. On a core's thread that goes the way of whatever else the core sends, so that messages arrive in
    /// the order in which they were sent: through its hub, at once in a task, and in a handler before whatever the handler
    /// does next.
    pub(super) fn give(&self, core: usize, letter: Letter) {
        match Runtime::of(self.courier()) {
            Some(runtime) => runtime.with_hub(move |hub| hub.forward(core, letter)),
            None => {
                if let Err((error, letter)) = self.courier().offer(core, letter) {
                    letter.refuse(error);
                }
            }
        }
    }
}

/// Who is to get a message: made by [`Hub::to`] and its like.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, ws};
///
/// let route = || ws().on_connect(|socket| socket.join(socket.param("room")));
/// let server = TestServer::builder().cores(2).start(move || App::new().ws("/{room}", route()));
/// let (lobby, attic) = (server.connect("/lobby"), server.connect("/attic"));
/// let receivers = server.hub().to("lobby"); // to be used as often as one likes
/// for hour in [1, 2] {
///     let _ = receivers.clone().emit("bell", &hour).unwrap();
/// }
/// assert_eq!((lobby.expect_event("bell"), lobby.expect_event("bell")), (1.into(), 2.into()));
/// # drop(attic);
/// ```
#[derive(Clone)]
#[must_use = "it sends nothing by itself"]
pub struct Receivers<'h> {
    hub: &'h Hub,
    target: Target,
    key: Option<Key>,
    uncompressed: bool,
    except: Option<ConnectionId>,
    is_ephemeral: bool,
}

#[derive(Clone, Debug)]
enum Target {
    One(ConnectionId),
    Scope(Scope),
}

impl Receivers<'_> {
    /// Not this connection.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// let other = server.connect("/");
    /// other.next_text();
    /// let _ = server.hub().to_all().except(id).send("behind your back").unwrap();
    /// other.expect_text("behind your back");
    /// client.expect_nothing();
    /// ```
    pub fn except(mut self, id: ConnectionId) -> Self {
        self.except = Some(id);
        self
    }

    /// Gives the message a key: to a connection that is behind, on a route with
    /// [`SlowConsumer::KeepLatest`](crate::SlowConsumer::KeepLatest), it replaces an older one with the same key. Elsewhere
    /// a key changes nothing.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, SlowConsumer, ws};
    ///
    /// let prices = || ws().slow_consumer(SlowConsumer::KeepLatest);
    /// let server = TestServer::new(move || App::new().ws("/prices", prices()));
    /// let slow = server.connect("/prices");
    /// slow.set_window(1024);
    /// slow.pause();
    /// for price in 0..1000 {
    ///     let to_it = server.hub().to_route("/prices").keyed("EURUSD");
    ///     server.block_on(to_it.send(price.to_string()).unwrap());
    /// }
    /// slow.resume();
    /// let seen = slow.unread();
    /// assert!(seen.len() < 1000 && seen.last().unwrap().as_text() == Some("999"));
    /// ```
    pub fn keyed(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(Key::of(key.as_ref()));
        self
    }

    /// Has it sent as it is, whatever compression was agreed: see [`IntoMessage::uncompressed`].
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Deflate, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().deflate(Deflate::Stateless)));
    /// let client = server.handshake("/").deflate().open();
    /// let token = "4711 ".repeat(100);
    /// let _ = server.hub().to_all().uncompressed().emit("token", &token).unwrap();
    /// assert_eq!(client.expect_event("token"), token);
    /// assert_eq!(client.inflated_messages(), 0);
    /// ```
    pub fn uncompressed(self) -> Self {
        self.marked(true)
    }

    /// As [`Receivers::uncompressed`], if this says so.
    pub(crate) fn marked(mut self, uncompressed: bool) -> Self {
        self.uncompressed |= uncompressed;
        self
    }

    /// Has a room with a history not keep it: see [`To::ephemeral`](crate::To::ephemeral).
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, History, ws};
    ///
    /// let route = || {
    ///     ws().history(History::last(100)).on_connect(|socket| socket.join_with_history("lobby", 100))
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// server.block_on(server.hub().to("lobby").ephemeral().send("now or never").unwrap());
    /// server.connect("/").expect_nothing();
    /// ```
    pub fn ephemeral(mut self) -> Self {
        self.is_ephemeral = true;
        self
    }

    pub(crate) fn with_key(mut self, key: Option<Key>) -> Self {
        self.key = key;
        self
    }

    /// Sends a message. Awaiting the result, or [`Delivering::wait`], tells what became of it; dropping it is fine.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || ws().on_connect(|socket| socket.join(socket.param("room")));
    /// let server = TestServer::builder().cores(2).start(move || App::new().ws("/{room}", route()));
    /// let (lobby, attic) = (server.connect("/lobby"), server.connect("/attic"));
    /// let told = server.block_on(server.hub().to("lobby").send("hello").unwrap());
    /// assert_eq!(told.queued, 1);
    /// lobby.expect_text("hello");
    /// attic.expect_nothing();
    /// ```
    ///
    /// # Errors
    /// If a value cannot be written as JSON.
    pub fn send(self, message: impl IntoMessage) -> Result<Delivering, EncodeError> {
        let frame = encode(message, self.uncompressed)?;
        Ok(self.send_frame(frame))
    }

    fn send_frame(self, frame: FrameBuf) -> Delivering {
        let Receivers { hub, target, key, except, is_ephemeral, .. } = self;
        let frame = frame.ephemeral(is_ephemeral);
        let (tally, answer) = Tally::new();
        match target {
            // Its owner numbers it, and passes it on.
            Target::Scope(Scope::Room(room)) if !is_ephemeral && hub.has_history(&room) => {
                let publication = Publication { frame, key, except, tally: Some(tally) };
                let owner = hub.owner(&room);
                hub.give(owner, Order::Record { room, publication, goes_abroad: true, from: None }.into());
            }
            Target::One(id) if except == Some(id) => {}
            Target::One(id) => hub.give_to(id, Order::EmitTo { id, frame, key, tally: Some(tally) }),
            Target::Scope(scope) => {
                let publication = Publication { frame, key, except, tally: Some(tally) };
                for core in (0..hub.cores()).chain(hub.bridge_if_wanted()) {
                    let (scope, publication) = (scope.clone(), publication.clone());
                    hub.give(core, Order::Publish { scope, publication }.into());
                }
            }
        }
        Delivering(answer)
    }

    /// Sends a named event, in the app's envelope.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || ws().on_connect(|socket| socket.join(socket.param("room")));
    /// let server = TestServer::builder().cores(2).start(move || App::new().ws("/{room}", route()));
    /// let (lobby, attic) = (server.connect("/lobby"), server.connect("/attic"));
    /// let told = server.block_on(server.hub().to("attic").emit("dust", &[3, 4]).unwrap());
    /// assert_eq!(told.queued, 1);
    /// assert_eq!(attic.expect_event("dust"), serde_json::json!([3, 4]));
    /// lobby.expect_nothing();
    /// ```
    ///
    /// # Errors
    /// If the data cannot be written as JSON.
    pub fn emit(self, event: &str, data: &(impl Serialize + ?Sized)) -> Result<Delivering, EncodeError> {
        let frame = self.hub.event_frame(event, data, self.uncompressed)?;
        Ok(self.send_frame(frame))
    }
}

fn encode(message: impl IntoMessage, uncompressed: bool) -> Result<FrameBuf, EncodeError> {
    message.with_message(|message| {
        let message = message.marked(uncompressed);
        FrameBuf::new(message.0.kind.into(), message.as_bytes()).uncompressed(message.0.uncompressed)
    })
}
