//! A WebSocket route: its handlers, its mode, its limits.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::app::connection::Connection;
use crate::app::reply::{BoxError, FailurePolicy, IntoReply};
use crate::app::rules::Rules;
use crate::app::socket::Socket;
use crate::closed::Closed;
use crate::config::SlowConsumer;
use crate::guard::Guarded;
use crate::hub::RouteLimits;
use crate::message::{DecodeError, Message, OwnedMessage, borrowed};
use crate::outbox::Dropped;
use crate::proto::Kind;

/// Which way messages go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

pub(crate) type LocalBoxFuture<'f, T> = Pin<Box<dyn Future<Output = T> + 'f>>;
type OnConnect = Rc<dyn Fn(&mut Socket<'_>) -> Result<(), BoxError>>;
/// Without a message when it runs because the connection has opened.
type OnMessage = Rc<dyn Fn(&mut Socket<'_>, Option<Message<'_>>) -> Result<(), BoxError>>;
pub(crate) type OnClose = Rc<dyn Fn(&mut Socket<'_>, &Closed)>;
type OnDrop = Rc<dyn Fn(&mut Socket<'_>, &Dropped)>;
type OnDrain = Rc<dyn Fn(&mut Socket<'_>)>;
type OnMessageAsync = Rc<dyn Fn(Connection, Option<OwnedMessage>) -> LocalBoxFuture<'static, Result<(), BoxError>>>;
type OnTask = Rc<dyn Fn(Connection) -> LocalBoxFuture<'static, Result<(), BoxError>>>;

#[derive(Clone)]
pub(crate) enum Handler {
    None,
    Message(OnMessage),
    MessageAsync(OnMessageAsync),
    Task(OnTask),
}

#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) handler: Handler,
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
        handler: Handler::None,
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
fn decoded<T: DeserializeOwned>(message: &Message<'_>) -> Result<T, DecodeError> {
    if message.as_bytes().is_empty() { Ok(serde_json::from_slice(b"null")?) } else { message.json() }
}

impl Ws {
    fn with(mut self, change: impl FnOnce(&mut Route)) -> Ws {
        change(Rc::make_mut(&mut self.0));
        self
    }

    fn with_rules(self, change: impl FnOnce(&mut Rules)) -> Ws {
        self.with(|route| change(Rc::make_mut(&mut route.rules)))
    }

    // ---- handlers -------------------------------------------------------------------------------------------------

    /// Runs when a connection opens, before its first message is handled. The connection is registered by then: messages
    /// to everybody reach it.
    #[must_use]
    pub fn on_connect<R: IntoReply>(self, handler: impl Fn(&mut Socket<'_>) -> R + 'static) -> Ws {
        let handler = Guarded::new(handler);
        self.with(|route| {
            route.on_connect = Some(Rc::new(move |socket| {
                let reply = handler(socket);
                reply.reply(socket)
            }));
        })
    }

    /// Runs for each message; what it returns is the reply. An error, or a panic, does what [`Ws::on_failure`] says.
    #[must_use]
    pub fn on_message<R: IntoReply>(self, handler: impl Fn(&mut Socket<'_>, Message<'_>) -> R + 'static) -> Ws {
        let handler = Guarded::new(handler);
        self.with(|route| {
            route.handler = Handler::Message(Rc::new(move |socket, message| {
                let reply = handler(socket, message.unwrap_or_else(Route::no_message));
                reply.reply(socket)
            }));
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
    pub fn on_open_or_message<R: IntoReply>(
        self,
        handler: impl Fn(&mut Socket<'_>, Option<Message<'_>>) -> R + 'static,
    ) -> Ws {
        let handler = Guarded::new(handler);
        self.with(|route| {
            route.trigger_on_connect = true;
            route.handler = Handler::Message(Rc::new(move |socket, message| {
                let reply = handler(socket, message);
                reply.reply(socket)
            }));
        })
    }

    /// As [`Ws::on_message`], with the message decoded from JSON. One that cannot be decoded closes the connection with
    /// 1007; `Option<T>` takes `null` and the empty message too.
    #[must_use]
    pub fn on_json<T: DeserializeOwned, R: IntoReply>(self, handler: impl Fn(&mut Socket<'_>, T) -> R + 'static) -> Ws {
        self.on_message(move |socket, message| {
            let value: T = decoded(&message)?;
            Ok::<R, BoxError>(handler(socket, value))
        })
    }

    /// As [`Ws::on_json`], and also when the connection opens, with `None`; a message's `null` is never that.
    #[must_use]
    pub fn on_open_or_json<T: DeserializeOwned, R: IntoReply>(
        self,
        handler: impl Fn(&mut Socket<'_>, Option<T>) -> R + 'static,
    ) -> Ws {
        self.on_open_or_message(move |socket, message| {
            let value: Option<T> = message.map(|message| decoded(&message)).transpose()?;
            Ok::<R, BoxError>(handler(socket, value))
        })
    }

    /// Gives each connection a task of its own, which awaits its messages. The connection stays open when the task ends,
    /// until it is closed; what comes then goes to the clones of its [`Connection`], and is discarded if there is none.
    #[must_use]
    pub fn task<F, R>(self, task: F) -> Ws
    where
        F: AsyncFn(Connection) -> R + 'static,
        R: IntoReply,
    {
        let task = Rc::new(Guarded::new(task));
        self.with(|route| {
            route.handler = Handler::Task(Rc::new(move |connection: Connection| {
                let task = Rc::clone(&task);
                let mut replies = connection.clone();
                Box::pin(async move { task(connection).await.reply(&mut replies) })
            }));
        })
    }

    /// As [`Ws::on_message`], with a handler that may wait. Messages of one connection are handled one after the other,
    /// so replies keep their order; while one is being handled the peer's next messages wait, at last in its own socket.
    #[must_use]
    pub fn on_message_async<F, R>(self, handler: F) -> Ws
    where
        F: AsyncFn(Connection, OwnedMessage) -> R + 'static,
        R: IntoReply,
    {
        let handler = Rc::new(Guarded::new(handler));
        self.with(|route| {
            route.handler = Handler::MessageAsync(Rc::new(move |connection: Connection, message| {
                let handler = Rc::clone(&handler);
                let mut replies = connection.clone();
                let message = message.unwrap_or_else(|| OwnedMessage::text(""));
                Box::pin(async move { handler(connection, message).await.reply(&mut replies) })
            }));
        })
    }

    /// As [`Ws::on_open_or_message`], with a handler that may wait.
    #[must_use]
    pub fn on_open_or_message_async<F, R>(self, handler: F) -> Ws
    where
        F: AsyncFn(Connection, Option<OwnedMessage>) -> R + 'static,
        R: IntoReply,
    {
        let handler = Rc::new(Guarded::new(handler));
        self.with(|route| {
            route.trigger_on_connect = true;
            route.handler = Handler::MessageAsync(Rc::new(move |connection: Connection, message| {
                let handler = Rc::clone(&handler);
                let mut replies = connection.clone();
                Box::pin(async move { handler(connection, message).await.reply(&mut replies) })
            }));
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
    #[must_use]
    pub fn before_message<R: IntoReply>(self, intercept: impl Fn(&mut Socket<'_>, &Message<'_>) -> R + 'static) -> Ws {
        let intercept = Guarded::new(intercept);
        self.with_rules(|rules| {
            rules.before_message.push(Rc::new(move |socket, message| {
                let reply = intercept(socket, message);
                reply.reply(socket)
            }));
        })
    }

    /// Runs after each message's handler, when its reply has been queued; for a task when it asks for the next message, or is
    /// done. Not if the connection has gone meanwhile.
    #[must_use]
    pub fn after_message(self, intercept: impl Fn(&mut Socket<'_>) + 'static) -> Ws {
        let intercept = Guarded::new(intercept);
        self.with_rules(|rules| rules.after_message.push(Rc::new(move |socket| intercept(socket))))
    }

    /// Also runs the message handler when the connection opens, with an empty text message. One that must tell this from a
    /// client's is set by [`Ws::on_open_or_message`] or its like, which need this not.
    #[must_use]
    pub fn trigger_on_connect(self) -> Ws {
        self.with(|route| route.trigger_on_connect = true)
    }

    // ---- behaviour ------------------------------------------------------------------------------------------------

    /// Which way messages go.
    #[must_use]
    pub fn mode(self, mode: Mode) -> Ws {
        self.with(|route| route.mode = mode)
    }

    /// What a failed handler does to its connection.
    #[must_use]
    pub fn on_failure(self, policy: FailurePolicy) -> Ws {
        self.with_rules(|rules| rules.failure = policy)
    }

    /// The subprotocols spoken here. A client that offers none of them gets 400; otherwise the first of its own that is
    /// among them is chosen.
    #[must_use]
    pub fn subprotocols<P: Into<String>>(self, protocols: impl IntoIterator<Item = P>) -> Ws {
        self.with(|route| {
            route.protocols = protocols.into_iter().map(Into::into).collect();
            route.protocol_required = true;
        })
    }

    /// As [`Ws::subprotocols`], but a client that offers none of them is welcome without one.
    #[must_use]
    pub fn optional_subprotocols<P: Into<String>>(self, protocols: impl IntoIterator<Item = P>) -> Ws {
        self.subprotocols(protocols).with(|route| route.protocol_required = false)
    }

    /// Drops the request once the connection is open, which saves its memory: no parameters, headers or query then.
    #[must_use]
    pub fn forget_request(self) -> Ws {
        self.with(|route| route.forget_request = true)
    }

    // ---- limits ---------------------------------------------------------------------------------------------------

    /// Bytes of a message; 1009 past it.
    #[must_use]
    pub fn max_message(self, bytes: usize) -> Ws {
        self.with(|route| route.limits.message_bytes_max = Some(bytes))
    }

    /// Messages a second and connection, with a burst of one second's worth; 1008 past it. 0 = no limit.
    #[must_use]
    pub fn message_rate(self, per_second: u32) -> Ws {
        self.with(|route| route.limits.message_rate_per_second = Some(per_second))
    }

    /// What happens to a connection that does not keep up with what is sent to it.
    #[must_use]
    pub fn slow_consumer(self, policy: SlowConsumer) -> Ws {
        self.with(|route| route.limits.slow_consumer = Some(policy))
    }

    /// Rooms that a connection may be in; a join past it fails.
    #[must_use]
    pub fn max_rooms(self, rooms: u32) -> Ws {
        self.with(|route| route.limits.rooms_max = Some(rooms))
    }

    /// Bytes of the name of a room that a connection joins, where 256 are not right: a join with a longer one fails.
    #[must_use]
    pub fn max_room_name(self, bytes: usize) -> Ws {
        self.with(|route| route.limits.room_name_bytes_max = Some(bytes))
    }

    /// Sends a ping after so much inbound silence, and at the latest after half of the idle timeout; zero = never.
    #[must_use]
    pub fn ping_interval(self, interval: Duration) -> Ws {
        self.with(|route| route.limits.ping_interval = Some(interval))
    }

    /// Drops a connection after so much inbound silence; zero = never. Answers to pings count as life.
    #[must_use]
    pub fn idle_timeout(self, timeout: Duration) -> Ws {
        self.with(|route| route.limits.idle_timeout = Some(timeout))
    }

    /// Drops a connection when none of the sends that wait for its socket is done for so long; zero = never. Each of them
    /// is a message, several up to 64 KiB, or 256 KiB of a longer one.
    #[must_use]
    pub fn write_timeout(self, timeout: Duration) -> Ws {
        self.with(|route| route.limits.write_timeout = Some(timeout))
    }

    /// Messages that may wait for a task before the core stops receiving from the peer.
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

    /// What the message handler gets when it runs without a message.
    pub(crate) fn no_message<'m>() -> Message<'m> {
        borrowed(Kind::Text, b"")
    }
}

/// What can be given to `App::ws`: a [`Ws`], or just the message handler.
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
    R: IntoReply,
{
    fn into_ws(self) -> Ws {
        ws().on_message(self)
    }
}
