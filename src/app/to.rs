//! Sets of receivers: the members of a room, the connections of a route, or all.

use std::rc::Rc;

use serde::Serialize;

use crate::app::connection::Connection;
use crate::app::context::CoreContext;
use crate::app::socket::Socket;
use crate::hub::{CoreHub, Delivery, Scope, Sending};
use crate::message::{EncodeError, IntoMessage, Message, borrowed};
use crate::outbox::Key;
use crate::proto::Kind;

/// A set of receivers, from [`Socket::to`] and its like. The counts it returns are of this core; other cores deliver in
/// their own next tick. [`Hub`](crate::Hub) has the same with the sum of all cores. What is for a room with a history is
/// delivered in the order that its owner gives it: where another core is that, nobody is counted here.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, ws};
///
/// let route = || {
///     ws().on_connect(|socket| socket.join("lobby"))
///         .on_message(|socket, message| socket.to("lobby").send(message).map(|told| told.queued.to_string()))
/// };
/// let server = TestServer::new(move || App::new().ws("/", route()));
/// let (ann, ben) = (server.connect("/"), server.connect("/"));
/// ann.send("hello");
/// ben.expect_text("hello");
/// ann.expect_text("hello");
/// ann.expect_text("2");
/// ```
#[must_use = "it sends nothing by itself"]
pub struct To<'s> {
    way: Way<'s>,
    scope: Scope,
    key: Option<Key>,
    uncompressed: bool,
    except_self: bool,
    is_event: bool,
    is_ephemeral: bool,
}

/// How what is sent gets to the core's hub.
pub(super) enum Way<'s> {
    /// A handler has it in its hands.
    Handler { hub: &'s mut CoreHub, core: &'s Rc<CoreContext>, slot: u32 },
    /// It is lent to tasks.
    Task(&'s Connection),
}

impl<'s> From<&'s mut Socket<'_>> for Way<'s> {
    fn from(socket: &'s mut Socket<'_>) -> Way<'s> {
        Way::Handler { hub: socket.hub, core: socket.core, slot: socket.slot }
    }
}

impl<'s> From<&'s Connection> for Way<'s> {
    fn from(connection: &'s Connection) -> Way<'s> {
        Way::Task(connection)
    }
}

impl<'s> To<'s> {
    pub(super) fn new(way: impl Into<Way<'s>>, scope: Scope) -> To<'s> {
        let way = way.into();
        To { way, scope, key: None, uncompressed: false, except_self: false, is_event: false, is_ephemeral: false }
    }
}

impl To<'_> {
    /// Not to the connection that sends.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || ws().on_message(|socket, message| socket.to_all().except_self().send(message));
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let (ann, ben) = (server.connect("/"), server.connect("/"));
    /// ann.send("hello");
    /// ben.expect_text("hello");
    /// ann.expect_nothing();
    /// ```
    pub fn except_self(mut self) -> Self {
        self.except_self = true;
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
    /// let prices = || {
    ///     ws().slow_consumer(SlowConsumer::KeepLatest)
    ///         .on_text(|socket, price| socket.to_route().keyed("EURUSD").emit("price", price))
    /// };
    /// let server = TestServer::new(move || App::new().ws("/prices", prices()));
    /// let (source, slow) = (server.connect("/prices"), server.connect("/prices"));
    /// slow.set_window(1024);
    /// slow.pause();
    /// (0..1000).for_each(|price| source.send(price.to_string()));
    /// slow.resume();
    /// let seen = slow.unread();
    /// assert!(seen.len() < 1000 && seen.last().unwrap().as_text().unwrap().contains("999"));
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
    /// let route = || ws().deflate(Deflate::Stateless).on_message(|socket, message| socket.to_all().uncompressed().send(message));
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let client = server.handshake("/").deflate().open();
    /// client.send("secret ".repeat(100));
    /// client.expect_text(&"secret ".repeat(100));
    /// assert_eq!(client.inflated_messages(), 0);
    /// ```
    pub fn uncompressed(mut self) -> Self {
        self.uncompressed = true;
        self
    }

    /// Has a room with a history not keep it: for what means nothing later, as that somebody types. Elsewhere this changes
    /// nothing.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, History, ws};
    ///
    /// let route = || {
    ///     ws().history(History::last(100))
    ///         .on_connect(|socket| socket.join_with_history("lobby", 100))
    ///         .on_message(|socket, message| socket.to("lobby").ephemeral().send(message))
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let ann = server.connect("/");
    /// ann.send("...");
    /// ann.expect_text("...");
    /// server.connect("/").expect_nothing();
    /// ```
    pub fn ephemeral(mut self) -> Self {
        self.is_ephemeral = true;
        self
    }

    /// Sends a message.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || {
    ///     ws().on_connect(|socket| socket.join("lobby")).on_message(|socket, message| {
    ///         let told = socket.to("lobby").except_self().send(message)?;
    ///         Ok::<_, ringwire::EncodeError>(format!("{} have it", told.queued))
    ///     })
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let (ann, ben) = (server.connect("/"), server.connect("/"));
    /// ann.send("hello");
    /// ann.expect_text("1 have it");
    /// ben.expect_text("hello");
    /// ```
    ///
    /// # Errors
    /// If a value cannot be written as JSON.
    pub fn send(self, message: impl IntoMessage) -> Result<Delivery, EncodeError> {
        message.with_message(|message| self.deliver(message))
    }

    /// Sends a named event, in the app's envelope.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || ws().on_text(|socket, text| socket.to_all().emit("said", text));
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let client = server.connect("/");
    /// client.send("hello");
    /// assert_eq!(client.expect_event("said"), "hello");
    /// ```
    ///
    /// # Errors
    /// If the data cannot be written as JSON.
    pub fn emit(mut self, event: &str, data: &(impl Serialize + ?Sized)) -> Result<Delivery, EncodeError> {
        let envelope = match &self.way {
            Way::Handler { core, .. } => core.envelope(),
            Way::Task(connection) => connection.core().envelope(),
        };
        let text = envelope.encode(event, data)?;
        self.is_event = true;
        Ok(self.deliver(borrowed(Kind::Text, &text)))
    }

    fn deliver(self, message: Message<'_>) -> Delivery {
        let To { way, scope, key, uncompressed, except_self, is_event, is_ephemeral } = self;
        let how = |except| Sending { key, except, is_event, is_ephemeral };
        let message = message.marked(uncompressed);
        match way {
            Way::Handler { hub, core, slot } => {
                core.runtime.catch_up(hub);
                hub.send_to_scope(&scope, message.0, how(except_self.then_some(slot)))
            }
            Way::Task(connection) => {
                let deliver = |hub: &mut CoreHub| {
                    let slot = hub.find(connection.id()).filter(|_| except_self);
                    hub.send_to_scope(&scope, message.0, how(slot))
                };
                connection.on_hub(deliver).unwrap_or_default()
            }
        }
    }
}
