//! Sending from any thread: what [`Hub`] and [`crate::Sender`] offer, and the answers to it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use crate::hub::ConnectionId;
use crate::hub::{ConnectionInfo, ConnectionPage, CoreHub, DataAnswer, Delivery, Letter, Order, Publication, Scope, Tally};
use crate::mail::MailError;
use crate::message::RawJson;
use crate::message::{EncodeError, IntoMessage};
use crate::metrics::{CoreMetrics, Metrics};
use crate::outbox::{FrameBuf, Key, Queued};
use crate::proto::Kind;
use crate::proto::close::{self, IllegalCloseCode, PingTooLong};
use crate::remote::Hub;
use crate::runtime::Runtime;

/// Bytes of connections in one page, unless it is one connection's.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// An answer on its way: what became of a message, once every core concerned has looked. Await it, or
/// [`Delivering::wait`] on a thread of your own; dropping it changes nothing.
///
/// ```no_run
/// # fn main() -> ringwire::Result<()> {
/// # let handle = ringwire::Server::new(ringwire::Config::default()).start(ringwire::App::new)?;
/// let hub = handle.hub().clone();
/// std::thread::spawn(move || {
///     let told = hub.emit_to_all("tick", &1).map(|delivering| delivering.wait());
///     println!("{told:?}");
/// });
/// # handle.join()
/// # }
/// ```
#[derive(Debug)]
pub struct Delivering(pub(super) oneshot::Receiver<Delivery>);

impl Delivering {
    /// Blocks until the answer is there.
    ///
    /// ```no_run
    /// # fn example(hub: ringwire::Hub) -> Result<(), ringwire::EncodeError> {
    /// // On a thread of its own; tasks and handlers await it.
    /// let told = hub.send_to_room("lobby", "hello")?.wait();
    /// println!("{} have it, {} do not keep up", told.queued, told.dropped);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// On a core: in a handler, a hook or a task, which would wait for itself. Await it there.
    pub fn wait(self) -> Delivery {
        Runtime::refuse_to_block("Delivering::wait");
        self.0.recv().unwrap_or_default()
    }
}

impl IntoFuture for Delivering {
    type Output = Delivery;
    type IntoFuture = Answer<Delivery>;

    fn into_future(self) -> Answer<Delivery> {
        Answer(self.0.into_future(), Result::unwrap_or_default)
    }
}

/// The future of an answer.
#[derive(Debug)]
pub struct Answer<A, O = A>(oneshot::AsyncReceiver<A>, fn(Result<A, oneshot::RecvError>) -> O);

impl<A, O> Future for Answer<A, O> {
    type Output = O;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<O> {
        let finish = self.1;
        Pin::new(&mut self.0).poll(cx).map(finish)
    }
}

/// A question to a connection's core on its way.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, ConnectionId, ws};
///
/// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
/// let client = server.connect("/");
/// let id: ConnectionId = client.next_text().parse().unwrap();
/// match server.block_on(server.hub().connection(id)) {
///     Some(Some(info)) => assert_eq!(info.id, id),
///     Some(None) => println!("it has gone"),
///     None => println!("its core does not answer"),
/// }
/// ```
#[derive(Debug)]
pub struct Asking<A>(pub(super) oneshot::Receiver<Result<A, MailError>>);

impl<A> Asking<A> {
    /// Blocks until the answer is there; `None` if there will be none: the server has ended, or the core's mailbox is full.
    ///
    /// ```no_run
    /// # fn example(hub: ringwire::Hub, id: ringwire::ConnectionId) {
    /// // On a thread of its own; tasks and handlers await it.
    /// if let Some(Some(data)) = hub.data(id).wait() {
    ///     println!("{}", data["name"]);
    /// }
    /// # }
    /// ```
    ///
    /// # Panics
    /// On a core: in a handler, a hook or a task, which would wait for itself. Await it there.
    pub fn wait(self) -> Option<A> {
        Runtime::refuse_to_block("Asking::wait");
        self.0.recv().ok()?.ok()
    }
}

impl<A> Asking<A> {
    /// The answer, or why there will be none: the core's mailbox is full, the server has ended, or the machine that has the
    /// connection does not answer, and then it is not known whether what was asked was done.
    pub fn outcome(self) -> Answer<Result<A, MailError>> {
        Answer(self.0.into_future(), |answer| answer.unwrap_or(Err(MailError::Ended)))
    }
}

impl<A> IntoFuture for Asking<A> {
    type Output = Option<A>;
    type IntoFuture = Answer<Result<A, MailError>, Option<A>>;

    fn into_future(self) -> Self::IntoFuture {
        Answer(self.0.into_future(), |answer| answer.ok()?.ok())
    }
}

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

    // ---- connections ----------------------------------------------------------------------------------------------

    /// Closes a connection with this code and reason. The answer is false if it had gone; one that is
    /// closing already goes by what it was closed with first.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// assert!(server.hub().disconnect(id, 1005, "not a code that is sent").is_err());
    /// assert_eq!(server.block_on(server.hub().disconnect(id, 1008, "no gossip").unwrap()), Some(true));
    /// assert_eq!(client.expect_close(1008), "no gossip");
    /// ```
    ///
    /// # Errors
    /// If the code is not one that may be sent: 1000-1003, 1007-1014 and 3000-4999 may. Nothing happens then.
    pub fn disconnect(
        &self,
        id: ConnectionId,
        code: u16,
        reason: impl Into<String>,
    ) -> Result<Asking<bool>, IllegalCloseCode> {
        let code = close::legal(code)?;
        let reason = reason.into();
        let (answer, asking) = oneshot::channel();
        self.give_to(id, Order::Close { id, code: Some(code), reason, answer });
        Ok(Asking(asking))
    }

    /// As [`Hub::disconnect`], with a Close frame that has neither a code nor a reason (RFC 6455 5.5.1).
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// assert_eq!(server.block_on(server.hub().disconnect_without_code(id)), Some(true));
    /// client.expect_close(1005);
    /// ```
    pub fn disconnect_without_code(&self, id: ConnectionId) -> Asking<bool> {
        let (answer, asking) = oneshot::channel();
        self.give_to(id, Order::Close { id, code: None, reason: String::new(), answer });
        Asking(asking)
    }

    /// Sends a ping with this payload to a connection; the answer says `dropped` where its outbox has no room.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// let told = server.block_on(server.hub().ping(id, "there?").unwrap());
    /// assert_eq!(told.map(|told| told.queued), Some(1));
    /// assert_eq!(client.expect_ping(), "there?");
    /// ```
    ///
    /// # Errors
    /// If the payload has more than 125 bytes (RFC 6455 5.5).
    pub fn ping(&self, id: ConnectionId, payload: impl AsRef<[u8]>) -> Result<Asking<Delivery>, PingTooLong> {
        let payload = Bytes::copy_from_slice(close::ping(payload.as_ref())?);
        let (answer, asking) = oneshot::channel();
        self.give_to(id, Order::Ping { id, payload, answer });
        Ok(Asking(asking))
    }

    /// A connection's JSON data; `None` inside if it has gone.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// let hub = server.hub();
    /// server.block_on(hub.set_data(id, serde_json::json!({"name": "ann"})));
    /// assert_eq!(server.block_on(hub.data(id)).flatten().unwrap()["name"], "ann");
    /// ```
    pub fn data(&self, id: ConnectionId) -> Asking<Option<Value>> {
        let (answer, asking) = oneshot::channel();
        self.give_to(id, Order::Data { id, answer: DataAnswer::Value(answer) });
        Asking(asking)
    }

    /// A connection's JSON data as it was written, with all digits of its numbers; `None` inside if it has gone.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// let hub = server.hub();
    /// server.block_on(hub.set_data(id, ringwire::RawJson::parse("0.10000000000000000001").unwrap()));
    /// let data = server.block_on(hub.raw_data(id)).flatten().unwrap();
    /// assert_eq!(data.as_str(), "0.10000000000000000001");
    /// ```
    pub fn raw_data(&self, id: ConnectionId) -> Asking<Option<RawJson>> {
        let (answer, asking) = oneshot::channel();
        self.give_to(id, Order::Data { id, answer: DataAnswer::Raw(answer) });
        Asking(asking)
    }

    /// Sets a connection's JSON data: a [`Value`], or a [`RawJson`], which stays as it is written. The answer is false if
    /// the connection had gone.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// assert_eq!(server.block_on(server.hub().set_data(id, serde_json::json!({"level": 7}))), Some(true));
    /// client.reset();
    /// assert_eq!(server.block_on(server.hub().set_data(id, serde_json::json!(null))), Some(false));
    /// ```
    pub fn set_data(&self, id: ConnectionId, data: impl Into<RawJson>) -> Asking<bool> {
        let (answer, asking) = oneshot::channel();
        self.give_to(id, Order::SetData { id, data: data.into(), answer });
        Asking(asking)
    }

    /// What is known of one connection; `None` inside if it has gone.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// let info = server.block_on(server.hub().connection(id)).flatten().unwrap();
    /// assert_eq!((&*info.route, info.core), ("/", 0));
    /// client.reset();
    /// assert_eq!(server.block_on(server.hub().connection(id)), Some(None));
    /// ```
    pub fn connection(&self, id: ConnectionId) -> Asking<Option<ConnectionInfo>> {
        let (answer, asking) = oneshot::channel();
        self.give_to(id, Order::Info { id, answer });
        Asking(asking)
    }

    /// All connections, core by core, which are asked for a part at a time: whoever is there all the while is in it, once.
    /// Their data is shared with the hub, and not copied.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::builder().cores(2).start(|| App::new().ws("/news", ws()).ws("/chat", ws()));
    /// let (reader, chatter) = (server.connect("/news"), server.connect("/chat"));
    /// let connections = server.block_on(server.hub().connections()).unwrap();
    /// let mut routes: Vec<&str> = connections.iter().map(|connection| &*connection.route).collect();
    /// routes.sort();
    /// assert_eq!(routes, ["/chat", "/news"]);
    /// # drop((reader, chatter));
    /// ```
    ///
    /// # Errors
    /// If a core's mailbox is full: nothing is known of its connections.
    pub async fn connections(&self) -> Result<Vec<ConnectionInfo>, MailError> {
        const PART_LEN: usize = 1024;
        let mut all = Vec::new();
        for core in 0..self.cores() {
            let mut from = Some(0);
            while let Some(slot) = from {
                let question = self.question(core, move |hub| hub.connections_page(slot, 0, PART_LEN, usize::MAX));
                let Some(page) = answered(question).await? else { break };
                all.extend(page.connections);
                from = page.next;
            }
        }
        all.extend(self.connections_elsewhere(None).await?);
        Ok(all)
    }

    /// A part of all connections, core by core: at most `limit` of them after the first `offset`, and no more than 4 MiB,
    /// where each counts 256 bytes and its data, but at least one if there is one. The next part begins as many further on
    /// as there are in this one.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::builder().cores(2).start(|| App::new().ws("/", ws()));
    /// let _clients: Vec<_> = (0..25).map(|_| server.connect("/")).collect();
    /// let (mut seen, mut pages) = (0, 0);
    /// loop {
    ///     let page = server.block_on(server.hub().connections_page(seen, 10)).unwrap();
    ///     if page.is_empty() {
    ///         break;
    ///     }
    ///     seen += page.len();
    ///     pages += 1;
    /// }
    /// assert_eq!((seen, pages), (25, 3));
    /// ```
    ///
    /// # Errors
    /// If a core's mailbox is full.
    pub async fn connections_page(&self, offset: usize, limit: usize) -> Result<Vec<ConnectionInfo>, MailError> {
        let part = CoreHub::connections_page;
        self.page_of_all(None, offset, limit, part).await
    }

    /// A page of what `part` tells of, on this machine: from this slot, after so many, at most so many, and no more than so many
    /// bytes. And how many there are still to be passed over, if that was all.
    pub(super) async fn page(
        &self,
        offset: usize,
        limit: usize,
        part: impl Fn(&CoreHub, u32, usize, usize, usize) -> ConnectionPage + Clone + Send + 'static,
    ) -> Result<(Vec<ConnectionInfo>, Option<usize>), MailError> {
        let (mut skip, mut bytes_left) = (offset, PAGE_BYTES_MAX);
        let mut all: Vec<ConnectionInfo> = Vec::new();
        for core in 0..self.cores() {
            let (part, wanted) = (part.clone(), limit - all.len());
            let question = self.question(core, move |hub| part(hub, 0, skip, wanted, bytes_left));
            let Some(mut page) = answered(question).await? else { continue };
            // A core gives one however many bytes it has, and this may be in the place of one that is not the first.
            if !all.is_empty() && page.bytes > bytes_left {
                return Ok((all, None));
            }
            skip -= page.passed;
            bytes_left = bytes_left.saturating_sub(page.bytes);
            all.append(&mut page.connections);
            if page.next.is_some() {
                return Ok((all, None));
            }
        }
        Ok((all, Some(skip)))
    }

    /// The ids of all connections.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// assert_eq!(server.block_on(server.hub().ids()).unwrap(), [id]);
    /// ```
    ///
    /// # Errors
    /// If a core's mailbox is full.
    pub async fn ids(&self) -> Result<Vec<ConnectionId>, MailError> {
        Ok(self.connections().await?.into_iter().map(|connection| connection.id).collect())
    }

    /// How many connections there are; of other machines, as many as they have told of last.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::builder().cores(2).start(|| App::new().ws("/news", ws()).ws("/chat", ws()));
    /// let (reader, chatter) = (server.connect("/news"), server.connect("/chat"));
    /// assert_eq!(server.block_on(server.hub().count()).unwrap(), 2);
    /// drop(reader);
    /// assert_eq!(server.block_on(server.hub().count()).unwrap(), 1);
    /// # drop(chatter);
    /// ```
    ///
    /// # Errors
    /// If a core's mailbox is full.
    pub async fn count(&self) -> Result<usize, MailError> {
        let here: usize = self.gather(|hub| hub.count()).await?.into_iter().sum();
        Ok(here + self.others().map_or(0, |others| others.connections() as usize))
    }

    /// How many connections there are on each route that has any, by the routes' paths. Those that an HTTP handler has
    /// upgraded count by the handler's path.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::builder().cores(2).start(|| App::new().ws("/news", ws()).ws("/chat", ws()));
    /// let (reader, chatter) = (server.connect("/news"), server.connect("/chat"));
    /// let counts = server.block_on(server.hub().counts_by_route()).unwrap();
    /// assert_eq!((counts["/chat"], counts["/news"]), (1, 1));
    /// # drop((reader, chatter));
    /// ```
    ///
    /// # Errors
    /// If a core's mailbox is full.
    pub async fn counts_by_route(&self) -> Result<BTreeMap<String, usize>, MailError> {
        let mut counts = self.counts_by_route_here().await?;
        for (path, count) in self.routes_elsewhere().await? {
            *counts.entry(path).or_default() += count;
        }
        Ok(counts)
    }

    pub(super) async fn counts_by_route_here(&self) -> Result<BTreeMap<String, usize>, MailError> {
        let mut counts = BTreeMap::new();
        for (path, count) in self.gather(|hub| hub.counts_by_path()).await?.into_iter().flatten() {
            *counts.entry(path.to_string()).or_default() += count;
        }
        Ok(counts)
    }

    /// How many connections there are on a route, by its path as it was given to `App::ws`.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::builder().cores(2).start(|| App::new().ws("/news", ws()).ws("/chat", ws()));
    /// let (reader, chatter) = (server.connect("/news"), server.connect("/chat"));
    /// assert_eq!(server.block_on(server.hub().count_on_route("/news")).unwrap(), 1);
    /// assert_eq!(server.block_on(server.hub().count_on_route("/attic")).unwrap(), 0);
    /// # drop((reader, chatter));
    /// ```
    ///
    /// # Errors
    /// If a core's mailbox is full.
    pub async fn count_on_route(&self, path: &str) -> Result<usize, MailError> {
        Ok(self.counts_by_route().await?.remove(path).unwrap_or(0))
    }

    /// What every core tells of itself, for metrics; a core that has ended is left out. Works however full the mailboxes
    /// are.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::builder().cores(2).start(|| App::new().ws("/", ws()));
    /// let _client = server.connect("/");
    /// let metrics = server.block_on(server.hub().metrics());
    /// assert_eq!(metrics.cores.iter().map(|core| core.counters.opened).sum::<u64>(), 1);
    /// assert!(metrics.to_prometheus().contains("ringwire_messages_received_total"));
    /// ```
    pub async fn metrics(&self) -> Metrics {
        let ask = |core| {
            let (letter, answer) = Letter::ask(|hub| hub.metrics());
            // Where the core has ended, there is no answer.
            let _ = self.courier().send_urgent(core, letter);
            Asking(answer)
        };
        let questions: Vec<Asking<CoreMetrics>> = (0..self.cores()).map(ask).collect();
        let mut cores = Vec::with_capacity(questions.len());
        for question in questions {
            cores.extend(question.await);
        }
        let refused = cores.iter().map(|core| core.counters.abroad_refused).sum();
        Metrics {
            nodes: self.nodes_metrics(refused),
            cores,
            cores_all: self.cores(),
            draining: self.is_draining(),
            memory_bytes_max: self.memory_bytes_max(),
            memory_over: self.is_out_of_memory(),
            certificates: self.certificates(),
        }
    }

    /// Asks one core; the answer is `None` if there is no such core, it has ended, or its mailbox is full.
    pub(crate) fn ask<A: Send + 'static>(
        &self,
        core: usize,
        ask: impl FnOnce(&mut CoreHub) -> A + Send + 'static,
    ) -> Asking<A> {
        Asking(self.question(core, ask))
    }

    pub(super) fn question<A: Send + 'static>(
        &self,
        core: usize,
        ask: impl FnOnce(&mut CoreHub) -> A + Send + 'static,
    ) -> oneshot::Receiver<Result<A, MailError>> {
        let (letter, answer) = Letter::ask(ask);
        self.give(core, letter);
        answer
    }

    /// Asks every core and waits for all of them; a core that has ended is left out.
    pub(super) async fn gather<A: Send + 'static>(
        &self,
        ask: impl Fn(&mut CoreHub) -> A + Clone + Send + 'static,
    ) -> Result<Vec<A>, MailError> {
        let questions: Vec<_> = (0..self.cores()).map(|core| self.question(core, ask.clone())).collect();
        let mut answers = Vec::with_capacity(questions.len());
        for question in questions {
            answers.extend(answered(question).await?);
        }
        Ok(answers)
    }
}

/// The answer; `None` if the core has ended.
pub(super) async fn answered<A>(question: oneshot::Receiver<Result<A, MailError>>) -> Result<Option<A>, MailError> {
    match question.await {
        Ok(Ok(answer)) => Ok(Some(answer)),
        Ok(Err(MailError::Ended)) | Err(_) => Ok(None),
        Ok(Err(error)) => Err(error),
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
