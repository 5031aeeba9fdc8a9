//! Named events: JSON text messages that carry a name and data, each given to the handler of its name.

use std::borrow::Cow;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::app::before::LocalBoxFuture;
use crate::app::connection::Connection;
use crate::app::event::{Client, Event, HANDLER_FAILED, NO_SUCH_EVENT, ReplyTo, UNDECODABLE, Unanswered, Unhandled};
use crate::app::handlers::{Handler, no_message};
use crate::app::reply::{BoxError, HandlerReply};
use crate::app::socket::Socket;
use crate::app::ws::{IntoWs, Ws, ws};
use crate::closed::Closed;
use crate::guard::Guarded;
use crate::hub::ConnectionId;
use crate::message::json::{decode, is_struct};
use crate::message::{DecodeError, Message, OwnedMessage};
use crate::quote::quoted;

/// A handler that answers at once, or one that may wait.
enum Form<N, L> {
    Now(N),
    Later(L),
}

impl<N, L> Form<N, L> {
    fn is_later(&self) -> bool {
        matches!(self, Form::Later(_))
    }
}

type OnEvent = Form<
    Box<dyn Fn(&mut Socket<'_>, &RawValue, ReplyTo) -> Result<(), Fault>>,
    Box<dyn for<'m> Fn(Connection, &'m RawValue, ReplyTo) -> LocalBoxFuture<'m, Result<(), Fault>>>,
>;
type OnUnhandled = Form<
    Box<dyn Fn(&mut Socket<'_>, &Unhandled<'_>, ReplyTo) -> Result<(), BoxError>>,
    Box<dyn for<'m> Fn(Connection, &'m Unhandled<'m>, ReplyTo) -> LocalBoxFuture<'m, Result<(), BoxError>>>,
>;
type OnOther = Form<
    Box<dyn Fn(&mut Socket<'_>, Message<'_>, ReplyTo) -> Result<(), BoxError>>,
    Box<dyn Fn(Connection, OwnedMessage, ReplyTo) -> LocalBoxFuture<'static, Result<(), BoxError>>>,
>;

enum Fault {
    Undecodable(DecodeError),
    Failed(BoxError),
}

/// What happens when the data of an event is not of the type that its handler takes.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, Events, Undecodable};
///
/// let events = || Events::new().undecodable(Undecodable::Tell).on("add", |_, (a, b): (i64, i64)| (a + b).to_string());
/// let server = TestServer::new(move || App::new().ws("/ws", events()));
/// let client = server.connect("/ws");
/// client.emit("add", "no numbers");
/// assert_eq!(client.expect_event("error")["event"], "add");
/// client.emit("add", &(1, 2));
/// client.expect_text("3");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Undecodable {
    /// The handler has failed: [`Ws::on_error`] runs, and by the route's failure policy the connection is closed with
    /// 1007.
    #[default]
    Fail,
    /// The client gets the event `error` with `{"event":NAME,"message":TEXT}`, and the connection stays open. What
    /// exactly is wrong goes to the log.
    Tell,
}

/// A WebSocket route of named events.
///
/// A client sends `{"event":NAME,"data":DATA}`, or `{"path":NAME,"data":DATA}` where the app says
/// [`Envelope::Path`](crate::Envelope::Path), and the handler of that name gets the data, decoded to the type that it takes; data that is
/// missing is `null`. Whatever is not for a named handler goes to [`Events::on_message`] as it came: unknown names, text
/// that is no such object, binary messages.
///
/// What a handler returns is sent as a plain message, as everywhere; to answer with an event it calls
/// [`Socket::emit`], and [`Socket::to_all`] or [`Socket::to`] to reach others. `socket.hub().websockets()` counts the
/// connections of the whole process.
///
/// A handler may wait ([`Events::on_async`] and its like); it gets a [`Connection`] then. Events of one connection are
/// handled one after the other, whichever form their handlers have. A [`Ws::task`] that reads events itself does so with
/// [`Connection::recv_event`].
///
/// # Acknowledgements
///
/// A client that sends `{"event":NAME,"data":DATA,"ack":NUMBER}` is answered exactly once, as long as the connection is
/// open: with `{"ack":NUMBER,"data":REPLY}`, where the reply is what the handler returns, [`Json`](crate::Json) as it is,
/// other text as a string, nothing as `null`; or with `{"ack":NUMBER,"error":TEXT}` where the handler has failed, the data
/// cannot be decoded, or nobody handles events of this name. [`Events::ignore_acks`] has none of this. A server asks its
/// clients with [`Socket::emit_with_ack`].
///
/// ```
/// use ringwire::{App, Envelope, Events, Message, Socket};
/// use serde_json::{Value, json};
///
/// #[derive(serde::Deserialize)]
/// struct Said {
///     text: String,
/// }
///
/// let events = Events::new()
///     .on_connect(|socket| {
///         let count = socket.hub().websockets();
///         socket.to_all().emit("output", &format!("A user connected. Total: {count}"))?;
///         socket.emit("connected", &json!({"message": "Successfully connected to socket!"}))
///     })
///     .on("say", |socket, said: Said| socket.to_all().except_self().emit("said", &said.text))
///     .on("time", |socket, _: Value| socket.emit("output", "noon"))
///     .on_message(|socket: &mut Socket<'_>, _: Message<'_>| socket.emit("error", "no such event"));
///
/// App::new().envelope(Envelope::Path).ws("/ws", events);
/// ```
pub struct Events {
    ws: Ws,
    handlers: Handlers,
}

struct Handlers {
    /// `None` for the names that are known and have no handler.
    named: HashMap<String, Option<OnEvent>>,
    other: Option<OnOther>,
    unhandled: Option<OnUnhandled>,
    undecodable: Undecodable,
    acks: bool,
}

impl Default for Events {
    #[track_caller]
    fn default() -> Events {
        Events::new()
    }
}

impl Events {
    /// No handlers: every message is discarded.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Events};
    ///
    /// let server = TestServer::new(|| App::new().ws("/ws", Events::new().on("ping", |socket, ()| socket.emit("pong", &()))));
    /// let client = server.connect("/ws");
    /// client.emit("ping", &());
    /// client.expect_event("pong");
    /// ```
    #[track_caller]
    pub fn new() -> Events {
        let undecodable = Undecodable::default();
        let handlers = Handlers { named: HashMap::new(), other: None, unhandled: None, undecodable, acks: true };
        Events { ws: ws(), handlers }
    }

    fn add(mut self, name: String, handler: Option<OnEvent>) -> Events {
        assert!(!self.handlers.named.contains_key(&name), "two handlers of the event {}", quoted(&name));
        self.handlers.named.insert(name, handler);
        self
    }

    /// Handles the events of this name, with their data decoded from JSON; `serde_json::Value` takes any. A struct is decoded
    /// from an object alone, and not from an array of its fields.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Events};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Said {
    ///     text: String,
    /// }
    ///
    /// let events = || Events::new().on("say", |socket, said: Said| socket.to_all().emit("said", &said.text));
    /// let server = TestServer::new(move || App::new().ws("/ws", events()));
    /// let client = server.connect("/ws");
    /// client.emit("say", &serde_json::json!({"text": "hello"}));
    /// assert_eq!(client.expect_event("said"), "hello");
    /// ```
    ///
    /// # Panics
    /// If the name has a handler.
    #[must_use]
    pub fn on<T, R>(self, name: impl Into<String>, handler: impl Fn(&mut Socket<'_>, T) -> R + 'static) -> Events
    where
        T: DeserializeOwned,
        R: HandlerReply,
    {
        let handler = Guarded::new(handler);
        let is_struct = is_struct::<T>();
        let run = move |socket: &mut Socket<'_>, data: &RawValue, to: ReplyTo| {
            let data: T = read(data, is_struct)?;
            to.reply(handler(socket, data), socket).map_err(Fault::Failed)
        };
        self.add(name.into(), Some(Form::Now(Box::new(run))))
    }

    /// As [`Events::on`], with a handler that may wait.
    ///
    /// ```
    /// use ringwire::{Connection, Events, Json, sleep};
    /// use std::time::Duration;
    ///
    /// Events::new().on_async("add", async |_: Connection, (a, b): (i64, i64)| {
    ///     sleep(Duration::from_millis(10)).await;
    ///     Json(a + b)
    /// });
    /// ```
    ///
    /// # Panics
    /// If the name has a handler.
    #[must_use]
    pub fn on_async<T, F, R>(self, name: impl Into<String>, handler: F) -> Events
    where
        T: DeserializeOwned,
        F: AsyncFn(Connection, T) -> R + 'static,
        R: HandlerReply,
    {
        let handler = Rc::new(Guarded::new(handler));
        let is_struct = is_struct::<T>();
        self.add(
            name.into(),
            Some(Form::Later(Box::new(move |connection, data, to| {
                let handler = Rc::clone(&handler);
                Box::pin(async move {
                    let data: T = read(data, is_struct)?;
                    let reply = handler(connection.clone(), data).await;
                    to.deliver(reply, &mut { connection }).await.map_err(Fault::Failed)
                })
            }))),
        )
    }

    /// Handles the events of this name, with their data as it was written: to pass it on, or to decode it into a type that
    /// borrows from it.
    ///
    /// ```
    /// use ringwire::Events;
    ///
    /// Events::new().on_raw("say", |socket, data| socket.to_all().emit("said", data));
    /// ```
    ///
    /// # Panics
    /// If the name has a handler.
    #[must_use]
    pub fn on_raw<R: HandlerReply>(
        self,
        name: impl Into<String>,
        handler: impl Fn(&mut Socket<'_>, &RawValue) -> R + 'static,
    ) -> Events {
        let handler = Guarded::new(handler);
        let run = move |socket: &mut Socket<'_>, data: &RawValue, to: ReplyTo| {
            to.reply(handler(socket, data), socket).map_err(Fault::Failed)
        };
        self.add(name.into(), Some(Form::Now(Box::new(run))))
    }

    /// As [`Events::on_raw`], with a handler that may wait.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Connection, Events, sleep};
    /// use serde_json::value::RawValue;
    /// use std::time::Duration;
    ///
    /// let later = async |connection: Connection, data: &RawValue| {
    ///     sleep(Duration::from_secs(1)).await;
    ///     connection.emit("reminder", data)
    /// };
    /// let server = TestServer::new(move || App::new().ws("/ws", Events::new().on_raw_async("remind", later)));
    /// let client = server.connect("/ws");
    /// client.send(r#"{"event":"remind","data":{"tea":1.50}}"#);
    /// client.expect_text(r#"{"event":"reminder","data":{"tea":1.50}}"#);
    /// ```
    ///
    /// # Panics
    /// If the name has a handler.
    #[must_use]
    pub fn on_raw_async<F, R>(self, name: impl Into<String>, handler: F) -> Events
    where
        F: AsyncFn(Connection, &RawValue) -> R + 'static,
        R: HandlerReply,
    {
        let handler = Rc::new(Guarded::new(handler));
        self.add(
            name.into(),
            Some(Form::Later(Box::new(move |connection, data, to| {
                let handler = Rc::clone(&handler);
                Box::pin(async move {
                    let reply = handler(connection.clone(), data).await;
                    to.deliver(reply, &mut { connection }).await.map_err(Fault::Failed)
                })
            }))),
        )
    }

    /// Discards the events of this name, which would go to [`Events::on_message`] otherwise.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Events};
    ///
    /// let events = || Events::new().ignore("typing").on_message(|_, _| "what do you mean?");
    /// let server = TestServer::new(move || App::new().ws("/ws", events()));
    /// let client = server.connect("/ws");
    /// client.emit("typing", &());
    /// client.emit("tpying", &());
    /// client.expect_text("what do you mean?");
    /// client.expect_nothing();
    /// ```
    ///
    /// # Panics
    /// If the name has a handler.
    #[must_use]
    pub fn ignore(self, name: impl Into<String>) -> Events {
        self.add(name.into(), None)
    }

    /// Runs when a connection opens; see [`Ws::on_connect`].
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Events};
    ///
    /// let events = || Events::new().on_connect(|socket| {
    ///     let count = socket.hub().websockets();
    ///     socket.emit("welcome", &count)
    /// });
    /// let server = TestServer::new(move || App::new().ws("/ws", events()));
    /// assert_eq!(server.connect("/ws").expect_event("welcome"), 1);
    /// ```
    #[must_use]
    pub fn on_connect<R: HandlerReply>(mut self, handler: impl Fn(&mut Socket<'_>) -> R + 'static) -> Events {
        self.ws = self.ws.on_connect(handler);
        self
    }

    /// Handles every message that is not for a named handler, as it came.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Events};
    ///
    /// let events = || Events::new().on_message(|socket, message| socket.emit("error", &message.as_text()));
    /// let server = TestServer::new(move || App::new().ws("/ws", events()));
    /// let client = server.connect("/ws");
    /// client.send("no event at all");
    /// assert_eq!(client.expect_event("error"), "no event at all");
    /// ```
    #[must_use]
    pub fn on_message<R: HandlerReply>(mut self, handler: impl Fn(&mut Socket<'_>, Message<'_>) -> R + 'static) -> Events {
        let handler = Guarded::new(handler);
        self.handlers.other =
            Some(Form::Now(Box::new(move |socket, message, to| to.reply(handler(socket, message), socket))));
        self
    }

    /// As [`Events::on_message`], with a handler that may wait.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Connection, Events, OwnedMessage, sleep};
    /// use std::time::Duration;
    ///
    /// let store = async |_: Connection, file: OwnedMessage| {
    ///     sleep(Duration::from_millis(10)).await;
    ///     format!("stored {} bytes", file.as_bytes().len())
    /// };
    /// let server = TestServer::new(move || App::new().ws("/ws", Events::new().on_message_async(store)));
    /// let client = server.connect("/ws");
    /// client.send(vec![1, 2, 3]);
    /// client.expect_text("stored 3 bytes");
    /// ```
    #[must_use]
    pub fn on_message_async<F, R>(mut self, handler: F) -> Events
    where
        F: AsyncFn(Connection, OwnedMessage) -> R + 'static,
        R: HandlerReply,
    {
        let handler = Rc::new(Guarded::new(handler));
        self.handlers.other = Some(Form::Later(Box::new(move |connection, message, to| {
            let handler = Rc::clone(&handler);
            Box::pin(async move {
                let reply = handler(connection.clone(), message).await;
                to.deliver(reply, &mut { connection }).await
            })
        })));
        self
    }

    /// Handles every message that is not for a named handler, by what it is; [`Events::on_message`] does not get it then.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Events, Unhandled};
    ///
    /// let events = || {
    ///     Events::new().on_unhandled(|socket, what| match what {
    ///         Unhandled::Event { name, .. } => socket.emit("error", &format!("nothing is done with {name}")),
    ///         _ => socket.emit("error", "events, please"),
    ///     })
    /// };
    /// let server = TestServer::new(move || App::new().ws("/ws", events()));
    /// let client = server.connect("/ws");
    /// client.emit("dance", &());
    /// assert_eq!(client.expect_event("error"), "nothing is done with dance");
    /// client.send(vec![1]);
    /// assert_eq!(client.expect_event("error"), "events, please");
    /// ```
    #[must_use]
    pub fn on_unhandled<R: HandlerReply>(
        mut self,
        handler: impl Fn(&mut Socket<'_>, &Unhandled<'_>) -> R + 'static,
    ) -> Events {
        let handler = Guarded::new(handler);
        self.handlers.unhandled =
            Some(Form::Now(Box::new(move |socket, what, to| to.reply(handler(socket, what), socket))));
        self
    }

    /// As [`Events::on_unhandled`], with a handler that may wait.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Connection, Events, Unhandled, sleep};
    /// use std::time::Duration;
    ///
    /// let slow_down = async |connection: Connection, _: &Unhandled<'_>| {
    ///     sleep(Duration::from_secs(1)).await;
    ///     connection.emit("error", "no such event")
    /// };
    /// let server = TestServer::new(move || App::new().ws("/ws", Events::new().on_unhandled_async(slow_down)));
    /// let client = server.connect("/ws");
    /// client.emit("dance", &());
    /// assert_eq!(client.expect_event("error"), "no such event");
    /// ```
    #[must_use]
    pub fn on_unhandled_async<F, R>(mut self, handler: F) -> Events
    where
        F: AsyncFn(Connection, &Unhandled<'_>) -> R + 'static,
        R: HandlerReply,
    {
        let handler = Rc::new(Guarded::new(handler));
        self.handlers.unhandled = Some(Form::Later(Box::new(move |connection, what, to| {
            let handler = Rc::clone(&handler);
            Box::pin(async move {
                let reply = handler(connection.clone(), what).await;
                to.deliver(reply, &mut { connection }).await
            })
        })));
        self
    }

    /// Runs once when a connection has ended; it is still counted then. See [`Ws::on_close`].
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Events};
    ///
    /// let events = || {
    ///     Events::new().on_disconnect(|socket, closed| {
    ///         let _ = socket.to_all().emit("left", &closed.reason);
    ///     })
    /// };
    /// let server = TestServer::new(move || App::new().ws("/ws", events()));
    /// let (ann, ben) = (server.connect("/ws"), server.connect("/ws"));
    /// ann.close(1000, "bye");
    /// assert_eq!(ben.expect_event("left"), "bye");
    /// ```
    #[must_use]
    pub fn on_disconnect(mut self, handler: impl Fn(&mut Socket<'_>, &Closed) + 'static) -> Events {
        self.ws = self.ws.on_close(handler);
        self
    }

    /// What happens when the data of an event is not of the type that its handler takes.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Events, Undecodable};
    ///
    /// let events = |policy| Events::new().undecodable(policy).on("add", |_, (a, b): (i64, i64)| (a + b).to_string());
    /// let server = TestServer::new(move || App::new().ws("/strict", events(Undecodable::Fail)).ws("/ws", events(Undecodable::Tell)));
    /// let (strict, client) = (server.connect("/strict"), server.connect("/ws"));
    /// strict.emit("add", "no numbers");
    /// strict.expect_close(1007);
    /// client.emit("add", "no numbers");
    /// client.expect_event("error");
    /// ```
    #[must_use]
    pub fn undecodable(mut self, policy: Undecodable) -> Events {
        self.handlers.undecodable = policy;
        self
    }

    /// Acknowledges nothing: a field `ack` of an event is one like any other that nobody looks at.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Events};
    ///
    /// let server = TestServer::new(|| App::new().ws("/ws", Events::new().ignore_acks().on("add", |_, (a, b): (i64, i64)| (a + b).to_string())));
    /// let client = server.connect("/ws");
    /// client.send(r#"{"event":"add","data":[1,2],"ack":7}"#);
    /// client.expect_text("3");
    /// ```
    #[must_use]
    pub fn ignore_acks(mut self) -> Events {
        self.handlers.acks = false;
        self
    }

    /// The route, for its settings, or for [`crate::Request::upgrade`].
    ///
    /// ```
    /// use ringwire::{App, Events, Request};
    ///
    /// let socket = Events::new().into_ws().max_message(4096);
    /// App::new().get("/ws", async move |request: Request| request.upgrade(&socket));
    /// ```
    pub fn into_ws(self) -> Ws {
        let Events { mut ws, handlers } = self;
        let handlers = Rc::new(handlers);
        Rc::make_mut(&mut ws.0).handler = if handlers.may_wait() {
            Handler::MessageAsync(Rc::new(move |connection, message| {
                let handlers = Rc::clone(&handlers);
                let message = message.unwrap_or_else(|| OwnedMessage::text(""));
                Box::pin(async move { handlers.handle(connection, message).await })
            }))
        } else {
            Handler::Message(Rc::new(move |socket, message| {
                handlers.handle_now(socket, message.unwrap_or_else(no_message))
            }))
        };
        ws
    }
}

/// Decodes the data of events.
fn read<T: DeserializeOwned>(data: &RawValue, is_struct: bool) -> Result<T, Fault> {
    decode(data.get().as_bytes(), is_struct).map_err(|error| Fault::Undecodable(error.into()))
}

/// Who handles a message.
enum Chosen<'h> {
    Named(&'h OnEvent),
    Ignored,
    Unhandled(&'h OnUnhandled),
    Other(&'h OnOther),
    Nobody,
}

impl Chosen<'_> {
    fn is_later(&self) -> bool {
        match self {
            Chosen::Named(handler) => handler.is_later(),
            Chosen::Unhandled(handler) => handler.is_later(),
            Chosen::Other(handler) => handler.is_later(),
            Chosen::Ignored | Chosen::Nobody => false,
        }
    }
}

impl Handlers {
    fn may_wait(&self) -> bool {
        self.named.values().flatten().any(Form::is_later)
            || self.other.as_ref().is_some_and(Form::is_later)
            || self.unhandled.as_ref().is_some_and(Form::is_later)
    }

    fn choose(&self, event: &Result<Event<'_>, Unhandled<'_>>) -> Chosen<'_> {
        let named = event.as_ref().ok().and_then(|event| self.named.get(event.name.as_ref()));
        match (named, &self.unhandled, &self.other) {
            (Some(Some(handler)), ..) => Chosen::Named(handler),
            (Some(None), ..) => Chosen::Ignored,
            (None, Some(unhandled), _) => Chosen::Unhandled(unhandled),
            (None, None, Some(other)) => Chosen::Other(other),
            (None, None, None) => Chosen::Nobody,
        }
    }

    /// Handles a message whose handler does not wait.
    fn handle_now(&self, socket: &mut Socket<'_>, message: Message<'_>) -> Result<(), BoxError> {
        let discards = socket.discards_replies;
        let event = Event::read(&message, socket.core().envelope(), self.acks);
        let to = ReplyTo { discards, ack: ack(&event) };
        let chosen = self.choose(&event);
        if let Chosen::Other(Form::Now(handler)) = chosen {
            drop(event);
            let result = run_now(to, socket, |socket| handler(socket, message, to).map_err(Fault::Failed));
            let id = socket.id();
            return self.settle(result, to, socket, id, "");
        }
        let name = name(&event);
        let result = run_now(to, socket, |socket| match (chosen, event) {
            (Chosen::Named(Form::Now(handler)), Ok(event)) => handler(socket, event.data, to),
            (Chosen::Unhandled(Form::Now(handler)), event) => {
                handler(socket, &unhandled(event), to).map_err(Fault::Failed)
            }
            (Chosen::Nobody, _) => {
                to.refuse(NO_SUCH_EVENT, socket);
                Ok(())
            }
            _ => to.reply((), socket).map_err(Fault::Failed),
        });
        let id = socket.id();
        self.settle(result, to, socket, id, &name)
    }

    /// Handles a message in the connection's task, one after the other.
    async fn handle(self: Rc<Handlers>, mut connection: Connection, message: OwnedMessage) -> Result<(), BoxError> {
        let discards = connection.discards_replies();
        let borrowed = message.as_message();
        let event = Event::read(&borrowed, connection.core().envelope(), self.acks);
        let chosen = self.choose(&event);
        if !chosen.is_later() {
            // Where the connection has ended meanwhile, there is nothing to be handled.
            let handled = connection.lend(|socket| self.handle_now(socket, message.as_message()));
            return handled.unwrap_or(Ok(()));
        }
        let to = ReplyTo { discards, ack: ack(&event) };
        let name = name(&event);
        let unanswered = Unanswered::new(&connection, to.ack);
        let result = match (chosen, event) {
            (Chosen::Named(Form::Later(handler)), Ok(event)) => handler(connection.clone(), event.data, to).await,
            (Chosen::Unhandled(Form::Later(handler)), event) => {
                handler(connection.clone(), &unhandled(event), to).await.map_err(Fault::Failed)
            }
            (Chosen::Other(Form::Later(handler)), _) => {
                handler(connection.clone(), message.clone(), to).await.map_err(Fault::Failed)
            }
            _ => Ok(()),
        };
        unanswered.answered();
        let id = connection.id();
        self.settle(result, to, &mut connection, id, &name)
    }

    /// What becomes of a handler's failure.
    fn settle(
        &self,
        result: Result<(), Fault>,
        to: ReplyTo,
        client: &mut impl Client,
        id: ConnectionId,
        name: &str,
    ) -> Result<(), BoxError> {
        match result {
            Ok(()) => Ok(()),
            Err(Fault::Failed(error)) => {
                to.refuse(HANDLER_FAILED, client);
                Err(error)
            }
            Err(Fault::Undecodable(error)) => {
                to.refuse(UNDECODABLE, client);
                if self.undecodable == Undecodable::Fail {
                    return Err(error.into());
                }
                tracing::debug!(%id, event = %quoted(name), %error, "undecodable data");
                if to.ack.is_none() {
                    let what = serde_json::json!({"event": name, "message": UNDECODABLE});
                    client.emit_error(&what)?;
                }
                Ok(())
            }
        }
    }
}

/// Runs a handler: whoever wants its event acknowledged is told, however the handler fails.
fn run_now(
    to: ReplyTo,
    socket: &mut Socket<'_>,
    run: impl FnOnce(&mut Socket<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    if to.ack.is_none() {
        return run(socket);
    }
    catch_unwind(AssertUnwindSafe(|| run(socket))).unwrap_or_else(|panic| {
        to.refuse(HANDLER_FAILED, socket);
        resume_unwind(panic)
    })
}

fn ack(event: &Result<Event<'_>, Unhandled<'_>>) -> Option<u64> {
    event.as_ref().ok().and_then(|event| event.ack)
}

fn name<'m>(event: &Result<Event<'m>, Unhandled<'m>>) -> Cow<'m, str> {
    event.as_ref().map_or_else(|_| Cow::default(), |event| event.name.clone())
}

fn unhandled<'m>(event: Result<Event<'m>, Unhandled<'m>>) -> Unhandled<'m> {
    event.map_or_else(|what| what, |Event { name, data, .. }| Unhandled::Event { name, data })
}

impl From<Events> for Ws {
    fn from(events: Events) -> Ws {
        events.into_ws()
    }
}

impl IntoWs<()> for Events {
    fn into_ws(self) -> Ws {
        self.into()
    }
}
