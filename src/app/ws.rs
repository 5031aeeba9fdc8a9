//! A WebSocket route: its handlers, its mode, its limits.

use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::app::before::Before;
use crate::app::connection::Connection;
use crate::app::error_http::HttpError;
use crate::app::handlers::{Handler, Handlers, OnControl, control, later, later_or_at_open, now, now_or_at_open};
use crate::app::reply::{BoxError, FailurePolicy, HandlerReply, IntoReply};
use crate::app::request::Request;
use crate::app::rules::Rules;
use crate::app::socket::Socket;
use crate::app::stream::Greeting;
use crate::closed::Closed;
use crate::config::{Deflate, History, SlowConsumer};
use crate::guard::Guarded;
use crate::hub::RouteLimits;
use crate::message::json::{decode, is_struct};
use crate::message::{DecodeError, Message, OwnedMessage};
use crate::outbox::Dropped;

/// Which way messages go.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, Mode, ws};
///
/// let readings = || ws().mode(Mode::ReceiveOnly).on_message(|_, _| "nobody hears this");
/// let server = TestServer::new(move || App::new().ws("/readings", readings()));
/// let client = server.connect("/readings");
/// client.send("21.5");
/// client.expect_nothing();
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Both ways.
    #[default]
    TwoWay,
    /// To the server: what handlers, hooks and tasks return is not sent.
    ReceiveOnly,
    /// To the client: the message handler runs once, when the connection opens, and the connection is closed with 1000
    /// when it is done and nobody holds a [`crate::Sender`] of it. What the client sends is discarded and counted.
    SendOnly,
}

type OnConnect = Rc<dyn Fn(&mut Socket<'_>) -> Result<(), BoxError>>;
pub(crate) type OnClose = Rc<dyn Fn(&mut Socket<'_>, &Closed)>;
type OnDrop = Rc<dyn Fn(&mut Socket<'_>, &Dropped)>;
type OnDrain = Rc<dyn Fn(&mut Socket<'_>)>;
#[derive(Clone)]
pub(crate) struct Route {
    handlers: Handlers,
    /// What they come to.
    pub(crate) handler: Handler,
    pub(crate) before: Vec<Before>,
    pub(crate) after: Vec<OnClose>,
    pub(crate) on_ping: Option<OnControl>,
    pub(crate) on_pong: Option<OnControl>,
    pub(crate) on_connect: Option<OnConnect>,
    pub(crate) on_close: Option<OnClose>,
    pub(crate) on_drop: Option<OnDrop>,
    pub(crate) on_drain: Option<OnDrain>,
    /// Shared with the tasks of its connections.
    pub(crate) rules: Rc<Rules>,
    pub(crate) mode: Mode,
    pub(crate) trigger_on_connect: bool,
    pub(crate) protocols: Vec<String>,
    pub(crate) protocol_required: bool,
    pub(crate) inbox_depth: usize,
    pub(crate) forget_request: bool,
    /// The call of [`ws()`] that made it.
    pub(crate) made_at: &'static Location<'static>,
    pub(crate) limits: RouteLimits,
}

/// A WebSocket route, made by [`ws()`].
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, ws};
///
/// // Clones are the same route: what they share is made once.
/// let echo = || ws().max_message(64 << 10).on_message(|_, message| message.into_owned());
/// let server = TestServer::new(move || {
///     let echo = echo();
///     App::new().ws("/v1/echo", echo.clone()).ws("/v2/echo", echo)
/// });
/// let client = server.connect("/v2/echo");
/// client.send("hello");
/// client.expect_text("hello");
/// ```
#[derive(Clone)]
pub struct Ws(pub(crate) Rc<Route>);

/// A WebSocket route that does nothing yet.
///
/// ```
/// use ringwire::{App, ws};
///
/// App::new().ws(
///     "/chat/{room}",
///     ws().on_connect(|socket| socket.join(socket.param("room")))
///         .on_message(|socket, message| socket.to(socket.param("room")).except_self().send(message)),
/// );
/// ```
#[track_caller]
pub fn ws() -> Ws {
    Ws(Rc::new(Route {
        handlers: Handlers::default(),
        handler: Handler::None,
        before: Vec::new(),
        after: Vec::new(),
        on_ping: None,
        on_pong: None,
        on_connect: None,
        on_close: None,
        on_drop: None,
        on_drain: None,
        rules: Rc::default(),
        mode: Mode::default(),
        trigger_on_connect: false,
        protocols: Vec::new(),
        protocol_required: false,
        inbox_depth: 16,
        forget_request: false,
        made_at: Location::caller(),
        limits: RouteLimits::default(),
    }))
}

/// A message's value, and `null` for the empty one.
fn decoded<T: DeserializeOwned>(json: &[u8], is_struct: bool) -> Result<T, DecodeError> {
    Ok(decode(if json.is_empty() { b"null" } else { json }, is_struct)?)
}

impl Ws {
    fn with(mut self, change: impl FnOnce(&mut Route)) -> Ws {
        change(Rc::make_mut(&mut self.0));
        self
    }

    fn handle(self, change: impl FnOnce(&mut Handlers)) -> Ws {
        self.with(|route| {
            change(&mut route.handlers);
            route.handler = route.handlers.joined();
        })
    }

    fn with_rules(self, change: impl FnOnce(&mut Rules)) -> Ws {
        self.with(|route| change(Rc::make_mut(&mut route.rules)))
    }

    // ---- handlers -------------------------------------------------------------------------------------------------

    /// Runs when a connection opens, before its first message is handled. The connection is registered by then: messages
    /// to everybody reach it.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || ws().on_connect(|socket| format!("welcome to {}", socket.param("room")));
    /// let server = TestServer::new(move || App::new().ws("/rooms/{room}", route()));
    /// server.connect("/rooms/lobby").expect_text("welcome to lobby");
    /// ```
    #[must_use]
    pub fn on_connect<R: HandlerReply>(self, handler: impl Fn(&mut Socket<'_>) -> R + 'static) -> Ws {
        let handler = Guarded::new(handler);
        self.with(|route| {
            route.on_connect = Some(Rc::new(move |socket| {
                let reply = handler(socket);
                reply.into_reply().reply(&mut Greeting(socket))
            }));
        })
    }

    /// Runs for each message; what it returns is the reply. An error, or a panic, does what [`Ws::on_failure`] says.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || ws().on_message(|_, message| format!("{} bytes", message.as_bytes().len()));
    /// let server = TestServer::new(move || App::new().ws("/length", route()));
    /// let client = server.connect("/length");
    /// client.send("hello");
    /// client.expect_text("5 bytes");
    /// ```
    #[must_use]
    pub fn on_message<R: HandlerReply>(self, handler: impl Fn(&mut Socket<'_>, Message<'_>) -> R + 'static) -> Ws {
        self.handle(|handlers| handlers.other = now(handler))
    }

    /// Runs for each text message, with its text; those that are binary go to [`Ws::on_binary`], or else to the handler of
    /// all messages, or are discarded and counted.
    ///
    /// ```
    /// use ringwire::ws;
    ///
    /// ws().on_text(|_, text| text.to_uppercase()).on_binary(|_, bytes| bytes.len().to_string());
    /// ```
    #[must_use]
    pub fn on_text<R: HandlerReply>(self, handler: impl Fn(&mut Socket<'_>, &str) -> R + 'static) -> Ws {
        let handler = Guarded::new(handler);
        self.handle(|handlers| {
            handlers.text = now(move |socket, message| handler(socket, message.as_text().unwrap_or_default()));
        })
    }

    /// As [`Ws::on_text`], with a handler that may wait, as that of [`Ws::on_message_async`].
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Connection, sleep, ws};
    /// use std::time::Duration;
    ///
    /// let shout = async |_: Connection, text: String| {
    ///     sleep(Duration::from_millis(10)).await;
    ///     text.to_uppercase()
    /// };
    /// let server = TestServer::new(move || App::new().ws("/shout", ws().on_text_async(shout)));
    /// let client = server.connect("/shout");
    /// client.send("hello");
    /// client.expect_text("HELLO");
    /// ```
    #[must_use]
    pub fn on_text_async<F, R>(self, handler: F) -> Ws
    where
        F: AsyncFn(Connection, String) -> R + 'static,
        R: HandlerReply,
    {
        let handler = Guarded::new(handler);
        self.handle(|handlers| {
            handlers.text = later(async move |connection: Connection, message: OwnedMessage| {
                handler(connection, message.as_text().unwrap_or_default().to_owned()).await
            });
        })
    }

    /// Runs for each binary message, with its bytes; text goes to [`Ws::on_text`], or else to the handler of all messages, or
    /// is discarded and counted.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let reversed = || ws().on_binary(|_, bytes| bytes.iter().rev().copied().collect::<Vec<u8>>());
    /// let server = TestServer::new(move || App::new().ws("/reversed", reversed()));
    /// let client = server.connect("/reversed");
    /// client.send(vec![1, 2, 3]);
    /// client.expect_binary([3, 2, 1]);
    /// ```
    #[must_use]
    pub fn on_binary<R: HandlerReply>(self, handler: impl Fn(&mut Socket<'_>, &[u8]) -> R + 'static) -> Ws {
        let handler = Guarded::new(handler);
        self.handle(|handlers| handlers.binary = now(move |socket, message| handler(socket, message.as_bytes())))
    }

    /// As [`Ws::on_binary`], with a handler that may wait, as that of [`Ws::on_message_async`].
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Connection, sleep, ws};
    /// use std::time::Duration;
    ///
    /// let store = async |_: Connection, bytes: bytes::Bytes| {
    ///     sleep(Duration::from_millis(10)).await;
    ///     format!("stored {} bytes", bytes.len())
    /// };
    /// let server = TestServer::new(move || App::new().ws("/store", ws().on_binary_async(store)));
    /// let client = server.connect("/store");
    /// client.send(vec![1, 2, 3]);
    /// client.expect_text("stored 3 bytes");
    /// ```
    #[must_use]
    pub fn on_binary_async<F, R>(self, handler: F) -> Ws
    where
        F: AsyncFn(Connection, Bytes) -> R + 'static,
        R: HandlerReply,
    {
        let handler = Guarded::new(handler);
        self.handle(|handlers| {
            handlers.binary = later(async move |connection: Connection, message: OwnedMessage| {
                handler(connection, message.into_bytes()).await
            });
        })
    }

    /// As [`Ws::on_message`], and also when the connection opens, without a message: it can tell that from an empty one, as a
    /// handler with [`Ws::trigger_on_connect`] cannot.
    ///
    /// ```
    /// use ringwire::ws;
    ///
    /// ws().on_open_or_message(|_, message| match message {
    ///     None => "welcome".to_owned(),
    ///     Some(message) => format!("{} bytes", message.as_bytes().len()),
    /// });
    /// ```
    #[must_use]
    pub fn on_open_or_message<R: HandlerReply>(
        self,
        handler: impl Fn(&mut Socket<'_>, Option<Message<'_>>) -> R + 'static,
    ) -> Ws {
        self.handle(|handlers| handlers.other = now_or_at_open(handler)).trigger_on_connect()
    }

    /// As [`Ws::on_message`], with the message decoded from JSON. One that cannot be decoded closes the connection with
    /// 1007; `Option<T>` takes `null` and the empty message too. A struct is decoded from an object alone, and not from an
    /// array of its fields.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Json, ws};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Sum {
    ///     a: i64,
    ///     b: i64,
    /// }
    ///
    /// let server = TestServer::new(|| App::new().ws("/add", ws().on_json(|_, sum: Sum| Json(sum.a + sum.b))));
    /// let client = server.connect("/add");
    /// client.send(r#"{"a": 1, "b": 2}"#);
    /// client.expect_json(3);
    /// client.send("[1, 2]");
    /// client.expect_close(1007);
    /// ```
    #[must_use]
    pub fn on_json<T: DeserializeOwned, R: HandlerReply>(self, handler: impl Fn(&mut Socket<'_>, T) -> R + 'static) -> Ws {
        let is_struct = is_struct::<T>();
        self.on_message(move |socket, message| {
            let value: T = decoded(message.as_bytes(), is_struct)?;
            Ok::<R, BoxError>(handler(socket, value))
        })
    }

    /// As [`Ws::on_json`], with a handler that may wait, as that of [`Ws::on_message_async`].
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Connection, Json, sleep, ws};
    /// use std::time::Duration;
    ///
    /// let double = async |_: Connection, number: i64| {
    ///     sleep(Duration::from_millis(10)).await;
    ///     Json(2 * number)
    /// };
    /// let server = TestServer::new(move || App::new().ws("/double", ws().on_json_async(double)));
    /// let client = server.connect("/double");
    /// client.send("21");
    /// client.expect_json(42);
    /// ```
    #[must_use]
    pub fn on_json_async<T, F, R>(self, handler: F) -> Ws
    where
        T: DeserializeOwned,
        F: AsyncFn(Connection, T) -> R + 'static,
        R: HandlerReply,
    {
        let is_struct = is_struct::<T>();
        self.on_message_async(async move |connection: Connection, message: OwnedMessage| {
            let value: T = decoded(message.as_bytes(), is_struct)?;
            Ok::<R, BoxError>(handler(connection, value).await)
        })
    }

    /// As [`Ws::on_json`], and also when the connection opens, with `None`; a message's `null` is never that.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let answer = |number: Option<i64>| number.map_or("a number, please".to_owned(), |number| format!("{} it is", number));
    /// let route = move || ws().on_open_or_json(move |_, number| answer(number));
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let client = server.connect("/");
    /// client.expect_text("a number, please");
    /// client.send("7");
    /// client.expect_text("7 it is");
    /// ```
    #[must_use]
    pub fn on_open_or_json<T: DeserializeOwned, R: HandlerReply>(
        self,
        handler: impl Fn(&mut Socket<'_>, Option<T>) -> R + 'static,
    ) -> Ws {
        let is_struct = is_struct::<T>();
        self.on_open_or_message(move |socket, message| {
            let value: Option<T> = message.map(|message| decoded(message.as_bytes(), is_struct)).transpose()?;
            Ok::<R, BoxError>(handler(socket, value))
        })
    }

    /// Gives each connection a task of its own, which awaits its messages. The connection stays open when the task ends,
    /// until it is closed; what comes then goes to the clones of its [`Connection`], and is discarded if there is none.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Connection, ws};
    ///
    /// let counting = async |mut connection: Connection| {
    ///     let mut count = 0;
    ///     while let Some(_message) = connection.recv().await {
    ///         count += 1;
    ///         let _ = connection.send(count.to_string());
    ///     }
    /// };
    /// let server = TestServer::new(move || App::new().ws("/count", ws().task(counting)));
    /// let client = server.connect("/count");
    /// client.send("a");
    /// client.send("b");
    /// client.expect_text("1");
    /// client.expect_text("2");
    /// ```
    #[must_use]
    pub fn task<F, R>(self, task: F) -> Ws
    where
        F: AsyncFn(Connection) -> R + 'static,
        R: HandlerReply,
    {
        let task = Rc::new(Guarded::new(task));
        self.with(|route| {
            route.handlers = Handlers::default();
            route.handler = Handler::Task(Rc::new(move |connection: Connection| {
                let task = Rc::clone(&task);
                let mut replies = connection.clone();
                Box::pin(async move { replies.deliver(task(connection).await).await })
            }));
        })
    }

    /// As [`Ws::on_message`], with a handler that may wait. Messages of one connection are handled one after the other,
    /// so replies keep their order; while one is being handled the peer's next messages wait, at last in its own socket.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Connection, OwnedMessage, sleep, ws};
    /// use std::time::Duration;
    ///
    /// let slow_echo = async |_: Connection, message: OwnedMessage| {
    ///     sleep(Duration::from_millis(10)).await;
    ///     message
    /// };
    /// let server = TestServer::new(move || App::new().ws("/echo", ws().on_message_async(slow_echo)));
    /// let client = server.connect("/echo");
    /// client.send("hello");
    /// client.expect_text("hello");
    /// ```
    #[must_use]
    pub fn on_message_async<F, R>(self, handler: F) -> Ws
    where
        F: AsyncFn(Connection, OwnedMessage) -> R + 'static,
        R: HandlerReply,
    {
        self.handle(|handlers| handlers.other = later(handler))
    }

    /// As [`Ws::on_open_or_message`], with a handler that may wait.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Connection, OwnedMessage, ws};
    ///
    /// let greet_and_echo = async |_: Connection, message: Option<OwnedMessage>| {
    ///     message.unwrap_or_else(|| OwnedMessage::text("welcome"))
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", ws().on_open_or_message_async(greet_and_echo)));
    /// let client = server.connect("/");
    /// client.expect_text("welcome");
    /// client.send("hello");
    /// client.expect_text("hello");
    /// ```
    #[must_use]
    pub fn on_open_or_message_async<F, R>(self, handler: F) -> Ws
    where
        F: AsyncFn(Connection, Option<OwnedMessage>) -> R + 'static,
        R: HandlerReply,
    {
        self.handle(|handlers| handlers.other = later_or_at_open(handler)).trigger_on_connect()
    }

    /// Runs before the connection opens, inside the hooks of its groups: see [`Group::before`](crate::Group::before). Where
    /// an HTTP handler upgrades to this route ([`crate::Request::upgrade`]), behind that handler.
    ///
    /// ```
    /// use ringwire::{HttpError, ws};
    ///
    /// ws().before(|request| match request.query("token").as_deref() {
    ///     Some("secret") => Ok(()),
    ///     _ => Err(HttpError::unauthorized("a token, please")),
    /// });
    /// ```
    #[must_use]
    pub fn before(self, check: impl Fn(&mut Request) -> Result<(), HttpError> + 'static) -> Ws {
        self.with(|route| route.before.push(Before::now(check)))
    }

    /// As [`Ws::before`], with a hook that may wait.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, HttpError, Request, sleep, ws};
    /// use std::time::Duration;
    ///
    /// let look_up = async |request: &mut Request| {
    ///     sleep(Duration::from_millis(10)).await; // … in which a database answers
    ///     if request.cookie("user") == Some("ann") { Ok(()) } else { Err(HttpError::unauthorized("log in first")) }
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", ws().before_async(look_up)));
    /// assert_eq!(server.handshake("/").refusal().status(), 401);
    /// assert!(server.handshake("/").cookie("user", "ann").open().is_open());
    /// ```
    #[must_use]
    pub fn before_async<F>(self, check: F) -> Ws
    where
        F: AsyncFn(&mut Request) -> Result<(), HttpError> + 'static,
    {
        self.with(|route| route.before.push(Before::later(check)))
    }

    /// Runs once when a connection of this route has ended, after [`Ws::on_close`] and before the hooks of its groups: see
    /// [`Group::after`](crate::Group::after). Any number of them may be added.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    /// use std::{cell::RefCell, rc::Rc};
    ///
    /// let codes = Rc::new(RefCell::new(Vec::new()));
    /// let server = TestServer::new(|| {
    ///     let codes = Rc::clone(&codes);
    ///     App::new().ws("/", ws().after(move |_, closed| codes.borrow_mut().push(closed.code)))
    /// });
    /// let client = server.connect("/");
    /// client.close(4001, "bye");
    /// client.expect_close(4001);
    /// assert_eq!(*codes.borrow(), [4001]);
    /// ```
    #[must_use]
    pub fn after(self, hook: impl Fn(&mut Socket<'_>, &Closed) + 'static) -> Ws {
        let hook = Guarded::new(hook);
        self.with(|route| route.after.insert(0, Rc::new(move |socket, closed| hook(socket, closed))))
    }

    /// Runs for each ping of the peer, with its payload; the server answers it by itself. Not told as long as the connection
    /// does not read what is queued to it. What it returns is the reply, as that of a message's handler.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || ws().on_ping(|_, payload| format!("pinged with {} bytes", payload.len()));
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let client = server.connect("/");
    /// client.ping("hello");
    /// client.expect_text("pinged with 5 bytes");
    /// client.expect_pong("hello");
    /// ```
    #[must_use]
    pub fn on_ping<R: HandlerReply>(self, handler: impl Fn(&mut Socket<'_>, &[u8]) -> R + 'static) -> Ws {
        let heard = control(handler);
        self.with(|route| {
            route.limits.reports_pings = true;
            route.on_ping = Some(heard);
        })
    }

    /// Runs for each pong of the peer, with its payload: it answers [`Socket::ping`], or a ping that the server sent by
    /// itself, which has none (RFC 6455 5.5.3: or nothing). Told as pings are.
    ///
    /// ```
    /// use ringwire::ws;
    ///
    /// ws().on_message(|socket, message| socket.ping(message.as_bytes())).on_pong(|_, payload| payload.to_vec());
    /// ```
    #[must_use]
    pub fn on_pong<R: HandlerReply>(self, handler: impl Fn(&mut Socket<'_>, &[u8]) -> R + 'static) -> Ws {
        let heard = control(handler);
        self.with(|route| {
            route.limits.reports_pings = true;
            route.on_pong = Some(heard);
        })
    }

    /// Runs when a handler, an interceptor or a task has failed, before the failure policy: with its error, or with
    /// [`Panicked`](crate::Panicked) if it has panicked. Not for what fails when the connection has ended.
    ///
    /// ```
    /// use ringwire::{Panicked, ws};
    ///
    /// ws().on_error(|socket, error| match error.downcast_ref::<Panicked>() {
    ///     Some(panic) => eprintln!("{} is a defect: {}", socket.id(), panic.text()),
    ///     None => eprintln!("{} failed: {error}", socket.id()),
    /// });
    /// ```
    #[must_use]
    pub fn on_error(
        self,
        handler: impl Fn(&mut Socket<'_>, &(dyn std::error::Error + Send + Sync + 'static)) + 'static,
    ) -> Ws {
        let handler = Guarded::new(handler);
        self.with_rules(|rules| rules.on_error = Some(Rc::new(move |socket, error| handler(socket, error))))
    }

    /// Runs exactly once for each connection that opened, when it has ended, however it did. The connection is still
    /// counted, and its rooms and data are still there; nothing more can be sent to it.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || {
    ///     ws().on_connect(|socket| socket.join("lobby")).on_close(|socket, closed| {
    ///         let _ = socket.to("lobby").emit("left", &closed.reason);
    ///     })
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let (ann, ben) = (server.connect("/"), server.connect("/"));
    /// ann.close(1000, "bye");
    /// assert_eq!(ben.expect_event("left"), "bye");
    /// ```
    #[must_use]
    pub fn on_close(self, handler: impl Fn(&mut Socket<'_>, &Closed) + 'static) -> Ws {
        let handler = Guarded::new(handler);
        self.with(|route| route.on_close = Some(Rc::new(move |socket, closed| handler(socket, closed))))
    }

    /// Runs when messages to a connection were dropped because it does not keep up, whoever sent them: once in a tick for
    /// all of the tick, after its handlers. Where the connection is closed for it, before [`Ws::on_close`]. A panic does
    /// what [`Ws::on_failure`] says.
    ///
    /// ```
    /// use ringwire::{SlowConsumer, ws};
    ///
    /// ws().slow_consumer(SlowConsumer::DropOld).on_drop(|socket, dropped| {
    ///     eprintln!("{} missed {} messages, {} bytes", socket.id(), dropped.messages(), dropped.bytes);
    /// });
    /// ```
    #[must_use]
    pub fn on_drop(self, handler: impl Fn(&mut Socket<'_>, &Dropped) + 'static) -> Ws {
        let handler = Guarded::new(handler);
        self.with(|route| {
            route.limits.reports_drops = true;
            route.on_drop = Some(Rc::new(move |socket, dropped| handler(socket, dropped)));
        })
    }

    /// Runs when no more than `below_bytes` are queued to a connection after it had been more, at the end of a tick or
    /// while its socket was full: the time to go on for a handler that has stopped sending at a higher
    /// [`Socket::outbox_bytes`]. Once in a tick at most, after its handlers. A panic does what [`Ws::on_failure`] says.
    ///
    /// ```
    /// use ringwire::ws;
    ///
    /// ws().on_drain(16 << 10, |socket| {
    ///     let _ = socket.send("ready for more");
    /// });
    /// ```
    #[must_use]
    pub fn on_drain(self, below_bytes: usize, handler: impl Fn(&mut Socket<'_>) + 'static) -> Ws {
        let handler = Guarded::new(handler);
        self.with(|route| {
            route.limits.drain_below_bytes = Some(below_bytes);
            route.on_drain = Some(Rc::new(move |socket| handler(socket)));
        })
    }

    /// Runs before each message's handler; an error keeps the message from it. Around a handler that waits it runs when the
    /// messages before this one have been handled, and for a task when it takes the message.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, FailurePolicy, ws};
    ///
    /// let not_empty = || {
    ///     ws().before_message(|_, message| if message.as_bytes().is_empty() { Err("an empty message") } else { Ok(()) })
    ///         .on_failure(FailurePolicy::Keep)
    ///         .on_message(|_, message| message.into_owned())
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", not_empty()));
    /// let client = server.connect("/");
    /// client.send("");
    /// client.send("hello");
    /// client.expect_text("hello");
    /// ```
    #[must_use]
    pub fn before_message<R: HandlerReply>(self, intercept: impl Fn(&mut Socket<'_>, &Message<'_>) -> R + 'static) -> Ws {
        let intercept = Guarded::new(intercept);
        self.with_rules(|rules| {
            rules.before_message.push(Rc::new(move |socket, message| {
                let reply = intercept(socket, message);
                reply.into_reply().reply(socket)
            }));
        })
    }

    /// Runs after each message's handler, when its reply has been queued; for a task when it asks for the next message, or is
    /// done. Not if the connection has gone meanwhile.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || {
    ///     ws().on_message(|_, message| message.into_owned()).after_message(|socket| {
    ///         let _ = socket.send("next, please");
    ///     })
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let client = server.connect("/");
    /// client.send("hello");
    /// client.expect_text("hello");
    /// client.expect_text("next, please");
    /// ```
    #[must_use]
    pub fn after_message(self, intercept: impl Fn(&mut Socket<'_>) + 'static) -> Ws {
        let intercept = Guarded::new(intercept);
        self.with_rules(|rules| rules.after_message.push(Rc::new(move |socket| intercept(socket))))
    }

    /// Also runs the message handler when the connection opens, with an empty text message. One that must tell this from a
    /// client's is set by [`Ws::on_open_or_message`] or its like, which need this not.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || ws().on_message(|_, message| format!("{} bytes", message.as_bytes().len())).trigger_on_connect();
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// server.connect("/").expect_text("0 bytes");
    /// ```
    #[must_use]
    pub fn trigger_on_connect(self) -> Ws {
        self.with(|route| route.trigger_on_connect = true)
    }

    // ---- behaviour ------------------------------------------------------------------------------------------------

    /// Which way messages go.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Mode, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/time", ws().mode(Mode::SendOnly).on_message(|_, _| "noon")));
    /// let client = server.connect("/time");
    /// client.expect_text("noon");
    /// client.expect_close(1000);
    /// ```
    #[must_use]
    pub fn mode(self, mode: Mode) -> Ws {
        self.with(|route| route.mode = mode)
    }

    /// What a failed handler does to its connection.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, FailurePolicy, ws};
    ///
    /// let next = || {
    ///     ws().on_failure(FailurePolicy::Keep).on_text(|_, text| text.parse::<i64>().map(|number| (number + 1).to_string()))
    /// };
    /// let server = TestServer::new(move || App::new().ws("/next", next()));
    /// let client = server.connect("/next");
    /// client.send("not a number");
    /// client.send("41");
    /// client.expect_text("42");
    /// ```
    #[must_use]
    pub fn on_failure(self, policy: FailurePolicy) -> Ws {
        self.with_rules(|rules| rules.failure = policy)
    }

    /// The subprotocols spoken here. A client that offers none of them gets 400; otherwise the first of its own that is
    /// among them is chosen.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().subprotocols(["chat-v2", "chat-v1"])));
    /// let client = server.handshake("/").protocols(["chat-v0", "chat-v1"]).open();
    /// assert_eq!(client.protocol().as_deref(), Some("chat-v1"));
    /// assert_eq!(server.handshake("/").refusal().status(), 400);
    /// ```
    #[must_use]
    pub fn subprotocols<P: Into<String>>(self, protocols: impl IntoIterator<Item = P>) -> Ws {
        self.with(|route| {
            route.protocols = protocols.into_iter().map(Into::into).collect();
            route.protocol_required = true;
        })
    }

    /// As [`Ws::subprotocols`], but a client that offers none of them is welcome without one.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().optional_subprotocols(["chat-v2", "chat-v1"])));
    /// assert_eq!(server.connect("/").protocol(), None);
    /// assert_eq!(server.handshake("/").protocols(["chat-v2"]).open().protocol().as_deref(), Some("chat-v2"));
    /// ```
    #[must_use]
    pub fn optional_subprotocols<P: Into<String>>(self, protocols: impl IntoIterator<Item = P>) -> Ws {
        self.subprotocols(protocols).with(|route| route.protocol_required = false)
    }

    /// Drops the request once the connection is open, which saves its memory: no parameters, headers or query then.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// // What is needed later is attached, and the rest goes.
    /// let route = || {
    ///     ws().before(|request| {
    ///         let room = request.param("room").to_owned();
    ///         request.extensions_mut().insert(room);
    ///         Ok(())
    ///     })
    ///     .forget_request()
    ///     .on_message(|socket, _| socket.extension::<String>())
    /// };
    /// let server = TestServer::new(move || App::new().ws("/{room}", route()));
    /// let client = server.connect("/lobby");
    /// client.send("where am I?");
    /// client.expect_text("lobby");
    /// ```
    #[must_use]
    pub fn forget_request(self) -> Ws {
        self.with(|route| route.forget_request = true)
    }

    // ---- limits ---------------------------------------------------------------------------------------------------

    /// Bytes of a message; 1009 past it.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().max_message(1024)));
    /// let client = server.connect("/");
    /// client.send("x".repeat(1025));
    /// client.expect_close(1009);
    /// ```
    #[must_use]
    pub fn max_message(self, bytes: usize) -> Ws {
        self.with(|route| route.limits.message_bytes_max = Some(bytes))
    }

    /// Messages a second and connection, with a burst of one second's worth; 1008 past it. 0 = no limit.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let echo = || ws().message_rate(2).on_message(|_, message| message.into_owned());
    /// let server = TestServer::new(move || App::new().ws("/echo", echo()));
    /// let client = server.connect("/echo");
    /// server.together(|| ["a", "b", "c"].map(|text| client.send(text)));
    /// client.expect_text("a");
    /// client.expect_text("b");
    /// client.expect_close(1008);
    /// ```
    #[must_use]
    pub fn message_rate(self, per_second: u32) -> Ws {
        self.with(|route| route.limits.message_rate_per_second = Some(per_second))
    }

    /// What happens to a connection that does not keep up with what is sent to it.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Config, SlowConsumer, ws};
    ///
    /// let feed = || App::new().ws("/feed", ws().slow_consumer(SlowConsumer::DropOld));
    /// let server = TestServer::builder().config(Config::default().max_outbox(4096)).start(feed);
    /// let slow = server.connect("/feed");
    /// slow.set_window(1024);
    /// slow.pause();
    /// for number in 0..100 {
    ///     server.block_on(server.hub().send_to_all(format!("{number:1000}")).unwrap());
    /// }
    /// slow.resume();
    /// let last = slow.unread().pop().unwrap();
    /// assert_eq!(last.as_text().unwrap().trim(), "99");
    /// assert!(slow.is_open());
    /// ```
    #[must_use]
    pub fn slow_consumer(self, policy: SlowConsumer) -> Ws {
        self.with(|route| route.limits.slow_consumer = Some(policy))
    }

    /// How messages are compressed (permessage-deflate, RFC 7692) where a client offers it; without this as
    /// [`Config::deflate`](crate::Config::deflate) says. [`Request::refuse_deflate`] says no to one client.
    ///
    /// Do not compress what has secrets in it beside text that others choose: its length tells of them (SECURITY.md, BREACH).
    ///
    /// ```
    /// use ringwire::{App, Deflate, Message, Socket, ws};
    ///
    /// let echo = |socket: &mut Socket, message: Message| socket.send(message);
    /// App::new().ws("/quotes", ws().deflate(Deflate::Dedicated).on_message(echo)).ws("/login", ws().deflate(Deflate::Off));
    /// ```
    #[must_use]
    pub fn deflate(self, mode: Deflate) -> Ws {
        self.with(|route| route.limits.deflate = Some(mode))
    }

    /// Rooms that a connection may be in; a join past it fails.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || ws().max_rooms(1).on_text(|socket, room| socket.join(room).map_or_else(|no| no.to_string(), |()| "welcome".to_owned()));
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let client = server.connect("/");
    /// client.send("lobby");
    /// client.expect_text("welcome");
    /// client.send("attic");
    /// client.expect_text("the connection is in 1 rooms already, and may be in no more");
    /// ```
    #[must_use]
    pub fn max_rooms(self, rooms: u32) -> Ws {
        self.with(|route| route.limits.rooms_max = Some(rooms))
    }

    /// Bytes of the name of a room that a connection joins, where 256 are not right: a join with a longer one fails.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, JoinError, ws};
    ///
    /// let route = || {
    ///     ws().max_room_name(8).on_text(|socket, room| match socket.join(room) {
    ///         Err(JoinError::NameTooLong { max }) => format!("{max} bytes at most"),
    ///         _ => "welcome".to_owned(),
    ///     })
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let client = server.connect("/");
    /// client.send("the lobby");
    /// client.expect_text("8 bytes at most");
    /// ```
    #[must_use]
    pub fn max_room_name(self, bytes: usize) -> Ws {
        self.with(|route| route.limits.room_name_bytes_max = Some(bytes))
    }

    /// Has rooms keep some of their messages, for those who come later or come back: all rooms of the server, or those whose
    /// names begin as [`History::of_rooms`] says, whatever route their members have come by; see
    /// [`Socket::join_since`](crate::Socket::join_since). Called again, it says so of others. What routes say counts more than
    /// [`Config::history`](crate::Config::history), on routes that the app has when it is made.
    ///
    /// A room with a history is passed on by one core, its owner: its messages are in one order for all, whoever publishes
    /// them, and may come behind what their publisher sends to a connection by other ways later. See the guide's page on rooms.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, History, ws};
    ///
    /// let route = || {
    ///     ws().history(History::last(2).of_rooms("chat/"))
    ///         .on_connect(|socket| socket.join_with_history("chat/lobby", 100))
    ///         .on_message(|socket, message| socket.to_own_room(message))
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let ann = server.connect("/");
    /// ["a", "b", "c"].map(|text| ann.send(text));
    /// let ben = server.connect("/");
    /// ["b", "c"].map(|text| ben.expect_text(text));
    /// ```
    #[must_use]
    pub fn history(self, history: History) -> Ws {
        self.with(|route| route.limits.histories.push(history))
    }

    /// Sends a ping after so much inbound silence, and at the latest after half of the idle timeout; zero = never.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// use std::time::Duration;
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().ping_interval(Duration::from_secs(5))));
    /// let client = server.connect("/");
    /// client.expect_ping();
    /// assert_eq!(server.now().as_secs(), 5);
    /// ```
    #[must_use]
    pub fn ping_interval(self, interval: Duration) -> Ws {
        self.with(|route| route.limits.ping_interval = Some(interval))
    }

    /// Drops a connection after so much inbound silence; zero = never. Answers to pings count as life.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    /// use std::time::Duration;
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().idle_timeout(Duration::from_secs(20))));
    /// let client = server.connect("/");
    /// server.advance(Duration::from_secs(60));
    /// assert!(client.is_open(), "it answers pings");
    /// client.pause();
    /// server.advance(Duration::from_secs(21));
    /// client.resume();
    /// assert!(!client.is_open());
    /// ```
    #[must_use]
    pub fn idle_timeout(self, timeout: Duration) -> Ws {
        self.with(|route| route.limits.idle_timeout = Some(timeout))
    }

    /// Drops a connection when none of the sends that wait for its socket is done for so long; zero = never. Each of them
    /// is a message, several up to 64 KiB, or 256 KiB of a longer one.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    /// use std::time::Duration;
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().write_timeout(Duration::from_secs(5))));
    /// let client = server.connect("/");
    /// client.pause();
    /// server.block_on(server.hub().send_to_all("x".repeat(1_000_000)).unwrap());
    /// server.advance(Duration::from_secs(6));
    /// client.resume();
    /// client.expect_end();
    /// ```
    #[must_use]
    pub fn write_timeout(self, timeout: Duration) -> Ws {
        self.with(|route| route.limits.write_timeout = Some(timeout))
    }

    /// Messages that may wait for a task before the core stops receiving from the peer.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Connection, ws};
    ///
    /// let echo = async |mut connection: Connection| {
    ///     while let Some(message) = connection.recv().await {
    ///         let _ = connection.send(message);
    ///     }
    /// };
    /// let server = TestServer::new(move || App::new().ws("/echo", ws().inbox_depth(1).task(echo)));
    /// let client = server.connect("/echo");
    /// server.together(|| ["a", "b", "c"].map(|text| client.send(text)));
    /// ["a", "b", "c"].map(|text| client.expect_text(text));
    /// ```
    ///
    /// # Panics
    /// If it is 0.
    #[must_use]
    pub fn inbox_depth(self, messages: usize) -> Ws {
        assert!(messages > 0, "an inbox holds at least one message");
        self.with(|route| route.inbox_depth = messages)
    }
}

impl Route {
    /// Whether the message handler also runs when the connection opens.
    pub(crate) fn triggers(&self) -> bool {
        self.trigger_on_connect || self.mode == Mode::SendOnly
    }
}

#[diagnostic::on_unimplemented(
    message = "`{Self}` is no WebSocket route",
    label = "give a route here, or the handler of its messages",
    note = "a handler alone is `|socket: &mut Socket, message: Message| …`, with both types written out, and returns a reply",
    note = "everything else begins with `ringwire::ws()`: `ws().on_message(|socket, message| …)`, `ws().task(async |socket| …)`",
    note = "named events are `Events::new().on(\"name\", |socket, data: T| …)`"
)]
/// What can be given to `App::ws`: a [`Ws`], or just the message handler.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, IntoWs, Message, Socket};
///
/// fn in_both_versions<M>(app: App, route: impl IntoWs<M>) -> App {
///     let route = route.into_ws();
///     app.ws("/v1", route.clone()).ws("/v2", route)
/// }
///
/// let echo = |socket: &mut Socket, message: Message| socket.send(message);
/// let server = TestServer::new(move || in_both_versions(App::new(), echo));
/// let client = server.connect("/v2");
/// client.send("hello");
/// client.expect_text("hello");
/// ```
pub trait IntoWs<Marker> {
    /// The route.
    fn into_ws(self) -> Ws;
}

impl IntoWs<()> for Ws {
    fn into_ws(self) -> Ws {
        self
    }
}

impl<F, R> IntoWs<(R,)> for F
where
    F: Fn(&mut Socket<'_>, Message<'_>) -> R + 'static,
    R: HandlerReply,
{
    fn into_ws(self) -> Ws {
        ws().on_message(self)
    }
}
