//! Named events: JSON text messages that carry a name and data, each given to the handler of its name.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::app::reply::{BoxError, IntoReply};
use crate::app::socket::Socket;
use crate::app::ws::{Handler, IntoWs, Route, Ws, ws};
use crate::closed::Closed;
use crate::guard::Guarded;
use crate::message::json::object;
use crate::message::{DecodeError, Envelope, Message};
use crate::quote::quoted;

/// The last argument tells whether replies are discarded.
type OnEvent = Box<dyn Fn(&mut Socket<'_>, &RawValue, bool) -> Result<(), Fault>>;
type OnUnhandled = Box<dyn Fn(&mut Socket<'_>, &Unhandled<'_>, bool) -> Result<(), BoxError>>;
type OnOther = Box<dyn Fn(&mut Socket<'_>, Message<'_>, bool) -> Result<(), BoxError>>;

enum Fault {
    Undecodable(DecodeError),
    Failed(BoxError),
}

/// What happens when the data of an event is not of the type that its handler takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Undecodable {
    /// The handler has failed: [`Ws::on_error`] runs, and by the route's failure policy the connection is closed with
    /// 1007.
    #[default]
    Fail,
    /// The client gets the event `error` with `{"event":NAME,"message":TEXT}`, and the connection stays open. What
    /// exactly is wrong goes to the log.
    Tell,
}

/// A message that no handler of [`Events`] is for.
#[derive(Debug)]
#[non_exhaustive]
pub enum Unhandled<'m> {
    /// An event of another name.
    Event {
        /// Its name.
        name: Cow<'m, str>,
        /// Its data, as it was written.
        data: &'m RawValue,
    },
    /// A text message that is no event.
    Text(DecodeError),
    /// A binary message.
    Binary,
}

/// A WebSocket route of named events.
///
/// A client sends `{"event":NAME,"data":DATA}`, or `{"path":NAME,"data":DATA}` where the app says
/// [`Envelope::Path`], and the handler of that name gets the data, decoded to the type that it takes; data that is
/// missing is `null`. Whatever is not for a named handler goes to [`Events::on_message`] as it came: unknown names, text
/// that is no such object, binary messages.
///
/// What a handler returns is sent as a plain message, as everywhere; to answer with an event it calls
/// [`Socket::emit`], and [`Socket::to_all`] or [`Socket::to`] to reach others. `socket.hub().websockets()` counts the
/// connections of the whole process.
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
    /// `None` for the names that are known and have no handler.
    named: HashMap<String, Option<OnEvent>>,
    other: Option<OnOther>,
    unhandled: Option<OnUnhandled>,
    undecodable: Undecodable,
}

impl Default for Events {
    #[track_caller]
    fn default() -> Events {
        Events::new()
    }
}

impl Events {
    /// No handlers: every message is discarded.
    #[track_caller]
    pub fn new() -> Events {
        Events { ws: ws(), named: HashMap::new(), other: None, unhandled: None, undecodable: Undecodable::default() }
    }

    fn add(mut self, name: String, handler: Option<OnEvent>) -> Events {
        assert!(!self.named.contains_key(&name), "two handlers of the event {}", quoted(&name));
        self.named.insert(name, handler);
        self
    }

    /// Handles the events of this name, with their data decoded from JSON; `serde_json::Value` takes any.
    ///
    /// # Panics
    /// If the name has a handler.
    #[must_use]
    pub fn on<T, R>(self, name: impl Into<String>, handler: impl Fn(&mut Socket<'_>, T) -> R + 'static) -> Events
    where
        T: DeserializeOwned,
        R: IntoReply,
    {
        let handler = Guarded::new(handler);
        let run = move |socket: &mut Socket<'_>, data: &RawValue, discards: bool| {
            let data: T = serde_json::from_str(data.get()).map_err(|error| Fault::Undecodable(error.into()))?;
            reply(handler(socket, data), socket, discards).map_err(Fault::Failed)
        };
        self.add(name.into(), Some(Box::new(run)))
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
    pub fn on_raw<R: IntoReply>(
        self,
        name: impl Into<String>,
        handler: impl Fn(&mut Socket<'_>, &RawValue) -> R + 'static,
    ) -> Events {
        let handler = Guarded::new(handler);
        let run = move |socket: &mut Socket<'_>, data: &RawValue, discards: bool| {
            reply(handler(socket, data), socket, discards).map_err(Fault::Failed)
        };
        self.add(name.into(), Some(Box::new(run)))
    }

    /// Discards the events of this name, which would go to [`Events::on_message`] otherwise.
    ///
    /// # Panics
    /// If the name has a handler.
    #[must_use]
    pub fn ignore(self, name: impl Into<String>) -> Events {
        self.add(name.into(), None)
    }

    /// Runs when a connection opens; see [`Ws::on_connect`].
    #[must_use]
    pub fn on_connect<R: IntoReply>(mut self, handler: impl Fn(&mut Socket<'_>) -> R + 'static) -> Events {
        self.ws = self.ws.on_connect(handler);
        self
    }

    /// Handles every message that is not for a named handler, as it came.
    #[must_use]
    pub fn on_message<R: IntoReply>(mut self, handler: impl Fn(&mut Socket<'_>, Message<'_>) -> R + 'static) -> Events {
        let handler = Guarded::new(handler);
        self.other = Some(Box::new(move |socket, message, discards| reply(handler(socket, message), socket, discards)));
        self
    }

    /// Handles every message that is not for a named handler, by what it is; [`Events::on_message`] does not get it then.
    #[must_use]
    pub fn on_unhandled<R: IntoReply>(
        mut self,
        handler: impl Fn(&mut Socket<'_>, &Unhandled<'_>) -> R + 'static,
    ) -> Events {
        let handler = Guarded::new(handler);
        self.unhandled = Some(Box::new(move |socket, what, discards| reply(handler(socket, what), socket, discards)));
        self
    }

    /// Runs once when a connection has ended; it is still counted then. See [`Ws::on_close`].
    #[must_use]
    pub fn on_disconnect(mut self, handler: impl Fn(&mut Socket<'_>, &Closed) + 'static) -> Events {
        self.ws = self.ws.on_close(handler);
        self
    }

    /// What happens when the data of an event is not of the type that its handler takes.
    #[must_use]
    pub fn undecodable(mut self, policy: Undecodable) -> Events {
        self.undecodable = policy;
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
        let Events { mut ws, named, other, unhandled, undecodable } = self;
        let handler = move |socket: &mut Socket<'_>, message: Option<Message<'_>>| {
            let (message, discards) = (message.unwrap_or_else(Route::no_message), socket.discards_replies);
            let event = Event::read(&message, socket.core.envelope());
            let Some(handler) = event.as_ref().ok().and_then(|event| named.get(event.name.as_ref())) else {
                if let Some(unhandled) = &unhandled {
                    let what = event.map_or_else(|what| what, |Event { name, data }| Unhandled::Event { name, data });
                    return unhandled(socket, &what, discards);
                }
                drop(event);
                return other.as_ref().map_or(Ok(()), |other| other(socket, message, discards));
            };
            let (Some(handler), Ok(event)) = (handler, event) else { return Ok(()) };
            match handler(socket, event.data, discards) {
                Ok(()) => Ok(()),
                Err(Fault::Failed(error)) => Err(error),
                Err(Fault::Undecodable(error)) if undecodable == Undecodable::Fail => Err(error.into()),
                Err(Fault::Undecodable(error)) => {
                    tracing::debug!(id = %socket.id(), event = %quoted(&*event.name), %error, "undecodable data");
                    let what = serde_json::json!({"event": event.name, "message": "the data cannot be decoded"});
                    let _ = socket.emit("error", &what)?;
                    Ok(())
                }
            }
        };
        Rc::make_mut(&mut ws.0).handler = Handler::Message(Rc::new(handler));
        ws
    }
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

fn reply(reply: impl IntoReply, socket: &mut Socket<'_>, discards: bool) -> Result<(), BoxError> {
    debug_assert_eq!(discards, socket.discards_replies);
    reply.reply(socket)
}

/// A message that has an event's form.
struct Event<'m> {
    name: Cow<'m, str>,
    data: &'m RawValue,
}

#[derive(Deserialize)]
struct ByEvent<'m> {
    #[serde(borrow)]
    event: Cow<'m, str>,
    #[serde(borrow)]
    data: Option<&'m RawValue>,
}

#[derive(Deserialize)]
struct ByPath<'m> {
    #[serde(borrow)]
    path: Cow<'m, str>,
    #[serde(borrow)]
    data: Option<&'m RawValue>,
}

impl<'m> Event<'m> {
    fn read(message: &'m Message<'_>, envelope: Envelope) -> Result<Event<'m>, Unhandled<'m>> {
        if !message.is_text() {
            return Err(Unhandled::Binary);
        }
        let event = match envelope {
            Envelope::Event => object(message.as_bytes()).map(|ByEvent { event, data }| (event, data)),
            Envelope::Path => object(message.as_bytes()).map(|ByPath { path, data }| (path, data)),
        };
        let (name, data) = event.map_err(|error| Unhandled::Text(error.into()))?;
        Ok(Event { name, data: data.unwrap_or(RawValue::NULL) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::borrowed;
    use crate::proto::Kind;

    #[test]
    fn only_text_objects_with_a_name_are_events() {
        let read = |text: &str, envelope| {
            let message = borrowed(Kind::Text, text.as_bytes());
            Event::read(&message, envelope).ok().map(|event| (event.name.into_owned(), event.data.get().to_owned()))
        };
        let is = |name: &str, data: &str| Some((name.to_owned(), data.to_owned()));
        assert_eq!(read(r#"{"event":"a","data":[1, 2]}"#, Envelope::Event), is("a", "[1, 2]"));
        assert_eq!(
            read(r#"{"data":{"x":"y"},"more":1,"event":"\u0061\n"}"#, Envelope::Event),
            is("a\n", r#"{"x":"y"}"#)
        );
        assert_eq!(read(r#"{"event":"a"}"#, Envelope::Event), is("a", "null"));
        assert_eq!(read(r#"{"event":"a","data":null}"#, Envelope::Event), is("a", "null"));
        assert_eq!(read(r#"{"path":"a","data":1,"event":5}"#, Envelope::Path), is("a", "1"));
        for other in
            ["", "hello", "{}", "[]", r#"["a",1]"#, "null", r#"{"event":1}"#, r#"{"event":"a""#, r#"{"path":"a"}"#]
        {
            assert_eq!(read(other, Envelope::Event), None, "{other}");
        }
        let binary = borrowed(Kind::Binary, br#"{"event":"a"}"#);
        assert!(matches!(Event::read(&binary, Envelope::Event), Err(Unhandled::Binary)));
    }
}
