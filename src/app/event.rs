//! One named event: its form on the wire, the acknowledgement that its sender may ask for, and events as tasks receive and
//! send them.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::app::acks::{AckError, Acknowledgement};
use crate::app::connection::Connection;
use crate::app::context::CoreContext;
use crate::app::queue::send_message;
use crate::app::reply::{BoxError, HandlerReply, IntoReply, ReplySink, Sent};
use crate::app::socket::Socket;
use crate::hub::ConnectionId;
use crate::message::json::{decode, is_struct, object};
use crate::message::{DecodeError, EncodeError, Envelope, Message, OwnedMessage, borrowed};
use crate::proto::Kind;

/// A message that no handler of [`Events`](crate::Events) is for.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, Events, Unhandled};
///
/// let events = || {
///     Events::new().on_unhandled(|_, what| match what {
///         Unhandled::Event { name, .. } => format!("an event {name}"),
///         Unhandled::Text(_) => "text that is no event".to_owned(),
///         _ => "something else".to_owned(),
///     })
/// };
/// let server = TestServer::new(move || App::new().ws("/ws", events()));
/// let client = server.connect("/ws");
/// client.emit("dance", &());
/// client.expect_text("an event dance");
/// client.send("hello");
/// client.expect_text("text that is no event");
/// ```
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

/// A message that has an event's form.
pub(crate) struct Event<'m> {
    pub(crate) name: Cow<'m, str>,
    pub(crate) data: &'m RawValue,
    /// The number by which its sender wants it acknowledged.
    pub(crate) ack: Option<u64>,
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

#[derive(Deserialize)]
struct Asking {
    ack: Option<u64>,
    #[serde(rename = "event")]
    _event: Option<IgnoredAny>,
}

impl<'m> Event<'m> {
    /// Reads an event; `acks`: with what asks for an acknowledgement, which is otherwise a field like any other.
    pub(crate) fn read(message: &'m Message<'_>, envelope: Envelope, acks: bool) -> Result<Event<'m>, Unhandled<'m>> {
        if !message.is_text() {
            return Err(Unhandled::Binary);
        }
        let event = match envelope {
            Envelope::Event => object(message.as_bytes()).map(|ByEvent { event, data }| (event, data)),
            Envelope::Path => object(message.as_bytes()).map(|ByPath { path, data }| (path, data)),
        };
        let (name, data) = event.map_err(|error| Unhandled::Text(error.into()))?;
        let ack = if acks && may_ask(message.as_bytes()) {
            object(message.as_bytes()).map_err(|error| Unhandled::Text(error.into())).map(|Asking { ack, .. }| ack)?
        } else {
            None
        };
        Ok(Event { name, data: data.unwrap_or(RawValue::NULL), ack })
    }
}

/// Whether a message may have a field `ack`: most have none, and are read once.
fn may_ask(json: &[u8]) -> bool {
    // In a field's name a character may be escaped, if nobody writes it so.
    memchr::memmem::find(json, b"\"ack\"").is_some() || memchr::memmem::find(json, b"\\u00").is_some()
}

/// Where what a handler of an event returns goes: to the client as a message, or into the acknowledgement that it wants.
#[derive(Clone, Copy)]
pub(crate) struct ReplyTo {
    pub(crate) discards: bool,
    pub(crate) ack: Option<u64>,
}

/// Why an event is not acknowledged as its sender hopes; what exactly is wrong goes to the log.
pub(crate) const HANDLER_FAILED: &str = "the handler failed";
pub(crate) const UNDECODABLE: &str = "the data cannot be decoded";
pub(crate) const NO_SUCH_EVENT: &str = "no such event";

impl ReplyTo {
    pub(crate) fn reply(self, reply: impl HandlerReply, to: &mut impl Client) -> Result<(), BoxError> {
        let mut data = AckData::default();
        let reply = reply.into_reply();
        let Some(number) = self.ack else { return reply.reply(to) };
        reply.reply(&mut data)?;
        let uncompressed = data.uncompressed;
        let data = data.data?.filter(|_| !self.discards);
        to.say(&acked(number, "data", data.as_deref().unwrap_or(RawValue::NULL)), uncompressed);
        Ok(())
    }

    /// Tells who wants it acknowledged that there is nothing to acknowledge.
    pub(crate) fn refuse(self, why: &str, to: &mut impl Client) {
        if let Some(number) = self.ack {
            to.say(&refused(number, why), false);
        }
    }
}

/// Who has sent an event, in the hands of a handler or of a task.
pub(crate) trait Client: ReplySink {
    /// Queues a text, whatever becomes of replies.
    fn say(&mut self, text: &str, uncompressed: bool);

    /// Sends the event `error`.
    fn emit_error(&mut self, what: &serde_json::Value) -> Result<(), EncodeError>;
}

impl Client for Socket<'_> {
    fn say(&mut self, text: &str, uncompressed: bool) {
        // Who has gone, or does not keep up, misses it.
        let _ = self.queue(borrowed(Kind::Text, text.as_bytes()).marked(uncompressed), None);
    }

    fn emit_error(&mut self, what: &serde_json::Value) -> Result<(), EncodeError> {
        self.emit("error", what).map(drop)
    }
}

impl Client for Connection {
    fn say(&mut self, text: &str, uncompressed: bool) {
        let _ = self.queue(borrowed(Kind::Text, text.as_bytes()).marked(uncompressed), None);
    }

    fn emit_error(&mut self, what: &serde_json::Value) -> Result<(), EncodeError> {
        self.emit("error", what).map(drop)
    }
}

fn acked(number: u64, key: &str, value: &RawValue) -> String {
    format!(r#"{{"ack":{number},"{key}":{value}}}"#)
}

fn refused(number: u64, why: &str) -> String {
    format!(r#"{{"ack":{number},"error":"{why}"}}"#)
}

/// Keeps a reply as the data of an acknowledgement: JSON as it is, other text as a string.
struct AckData {
    data: Result<Option<Box<RawValue>>, BoxError>,
    /// The acknowledgement is to be sent as it is.
    uncompressed: bool,
}

impl Default for AckData {
    fn default() -> AckData {
        AckData { data: Ok(None), uncompressed: false }
    }
}

impl AckData {
    fn keep(&mut self, message: &Message<'_>, is_json: bool) -> Sent {
        self.uncompressed |= message.0.uncompressed;
        self.data = match message.as_text() {
            Some(json) if is_json => serde_json::from_str(json).map(Some).map_err(BoxError::from),
            Some(text) => serde_json::value::to_raw_value(text).map(Some).map_err(BoxError::from),
            None => Err("bytes are no JSON, as which an event is acknowledged".into()),
        };
        Sent::Queued
    }
}

impl ReplySink for AckData {
    fn send_reply(&mut self, message: Message<'_>) -> Sent {
        self.keep(&message, false)
    }

    fn send_json(&mut self, json: Message<'_>) -> Sent {
        self.keep(&json, true)
    }
}

/// Tells who wants an event acknowledged that its handler has failed, unless it is answered before: whatever becomes of the
/// future that has this.
pub(crate) struct Unanswered {
    core: Rc<CoreContext>,
    id: ConnectionId,
    number: Option<u64>,
}

impl Unanswered {
    pub(crate) fn new(connection: &Connection, number: Option<u64>) -> Unanswered {
        Unanswered { core: Rc::clone(connection.core()), id: connection.own_id(), number }
    }

    /// It has been answered, or is about to be.
    pub(crate) fn answered(mut self) {
        self.number = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let id = self.id;
        self.core.runtime.with_hub(move |hub| {
            if let Some(slot) = hub.resolve(id) {
                let text = refused(number, HANDLER_FAILED);
                let _ = send_message(hub, slot, borrowed(Kind::Text, text.as_bytes()), None);
            }
        });
    }
}

/// A named event as a task receives it: see [`Connection::recv_event`].
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, Connection, OwnedEvent, OwnedMessage, ws};
///
/// fn told(received: Result<OwnedEvent, OwnedMessage>) -> String {
///     match received {
///         Ok(event) => format!("{} with {}", event.name(), event.raw()),
///         Err(message) => format!("{} bytes", message.as_bytes().len()),
///     }
/// }
///
/// let task = async |mut connection: Connection| {
///     while let Some(received) = connection.recv_event().await {
///         let _ = connection.send(told(received));
///     }
/// };
/// let server = TestServer::new(move || App::new().ws("/ws", ws().task(task)));
/// let client = server.connect("/ws");
/// client.emit("say", "hello");
/// client.expect_text(r#"say with "hello""#);
/// client.send("hello");
/// client.expect_text("5 bytes");
/// ```
#[must_use = "whoever wants it acknowledged is told that it was not handled"]
pub struct OwnedEvent {
    name: String,
    data: Box<RawValue>,
    to: ReplyTo,
    unanswered: Unanswered,
}

impl OwnedEvent {
    /// Its name.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, BoxError, Connection, ws};
    ///
    /// let task = async |mut connection: Connection| {
    ///     while let Some(Ok(event)) = connection.recv_event().await {
    ///         match event.name() {
    ///             "hello" => connection.emit("welcome", &())?,
    ///             other => connection.emit("error", &format!("no event {other}"))?,
    ///         };
    ///     }
    ///     Ok::<_, BoxError>(())
    /// };
    /// let server = TestServer::new(move || App::new().ws("/ws", ws().task(task)));
    /// let client = server.connect("/ws");
    /// client.emit("hello", &());
    /// client.expect_event("welcome");
    /// ```
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its data, as it was written.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, BoxError, Connection, ws};
    ///
    /// let task = async |mut connection: Connection| {
    ///     while let Some(Ok(event)) = connection.recv_event().await {
    ///         let _ = connection.to_all().emit(event.name(), event.raw())?; // as it was written
    ///     }
    ///     Ok::<_, BoxError>(())
    /// };
    /// let server = TestServer::new(move || App::new().ws("/ws", ws().task(task)));
    /// let client = server.connect("/ws");
    /// client.send(r#"{"event":"price","data":1.50}"#);
    /// client.expect_text(r#"{"event":"price","data":1.50}"#);
    /// ```
    pub fn raw(&self) -> &RawValue {
        &self.data
    }

    /// Its data, decoded from JSON.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, BoxError, Connection, ws};
    ///
    /// let task = async |mut connection: Connection| {
    ///     while let Some(Ok(event)) = connection.recv_event().await {
    ///         let (a, b): (i64, i64) = event.json()?;
    ///         let _ = connection.emit("sum", &(a + b))?;
    ///     }
    ///     Ok::<_, BoxError>(())
    /// };
    /// let server = TestServer::new(move || App::new().ws("/ws", ws().task(task)));
    /// let client = server.connect("/ws");
    /// client.emit("add", &(1, 2));
    /// assert_eq!(client.expect_event("sum"), 3);
    /// ```
    ///
    /// # Errors
    /// If it is not of that type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        Ok(decode(self.data.get().as_bytes(), is_struct::<T>())?)
    }

    /// Does with a reply what [`Events`](crate::Events) do with what a handler returns: if the client wants the event
    /// acknowledged, it is the data of that, and otherwise a message.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, BoxError, Connection, ws};
    ///
    /// let task = async |mut connection: Connection| {
    ///     while let Some(Ok(event)) = connection.recv_event().await {
    ///         let name = event.name().to_owned();
    ///         event.reply(&mut connection, format!("done: {name}")).await?;
    ///     }
    ///     Ok::<_, BoxError>(())
    /// };
    /// let server = TestServer::new(move || App::new().ws("/ws", ws().task(task)));
    /// let client = server.connect("/ws");
    /// client.send(r#"{"event":"save","ack":7}"#);
    /// client.expect_text(r#"{"ack":7,"data":"done: save"}"#);
    /// client.send(r#"{"event":"save"}"#);
    /// client.expect_text("done: save");
    /// ```
    ///
    /// # Errors
    /// The reply's own, or a value that cannot be written as JSON; the client is told that the handler failed.
    pub async fn reply(self, connection: &mut Connection, reply: impl IntoReply) -> Result<(), BoxError> {
        self.to.deliver(reply, connection).await?;
        self.unanswered.answered();
        Ok(())
    }
}

impl ReplyTo {
    /// As [`ReplyTo::reply`], in a task.
    pub(crate) async fn deliver(self, reply: impl HandlerReply, to: &mut Connection) -> Result<(), BoxError> {
        match self.ack {
            None if !self.discards => to.deliver(reply).await,
            _ => self.reply(reply, to),
        }
    }
}

impl Connection {
    /// The next message as a named event; one that is none comes as it is. `None` when the connection has ended and all its
    /// messages have been taken.
    ///
    /// ```
    /// use ringwire::{BoxError, Connection, ws};
    ///
    /// let task = async |mut socket: Connection| {
    ///     while let Some(received) = socket.recv_event().await {
    ///         match received {
    ///             Ok(event) if event.name() == "double" => {
    ///                 let number: i64 = event.json()?;
    ///                 event.reply(&mut socket, ringwire::Json(number * 2)).await?;
    ///             }
    ///             _ => socket.emit("error", "no such event").map(drop)?,
    ///         }
    ///     }
    ///     Ok::<_, BoxError>(())
    /// };
    /// ws().task(task);
    /// ```
    pub async fn recv_event(&mut self) -> Option<Result<OwnedEvent, OwnedMessage>> {
        let message = self.recv().await?;
        let borrowed = message.as_message();
        let Ok(Event { name, data, ack }) = Event::read(&borrowed, self.core().envelope(), true) else {
            return Some(Err(message));
        };
        let to = ReplyTo { discards: self.discards_replies(), ack };
        let unanswered = Unanswered::new(self, ack);
        Some(Ok(OwnedEvent { name: name.into_owned(), data: data.to_owned(), to, unanswered }))
    }

    /// Queues a named event that the client is to acknowledge within `timeout`: `{"event":E,"data":D,"ack":N}`, which it
    /// answers with `{"ack":N,"data":…}`, or `{"ack":N,"error":…}`. Awaiting the result gives the answer's data.
    ///
    /// The answer comes to no handler, and while one waits for it. It comes behind whatever the client has sent before:
    /// where the inbox is full of that ([`Ws::inbox_depth`](crate::Ws::inbox_depth)) and nobody takes it, not in time.
    /// 64 events of one connection may wait to be acknowledged.
    ///
    /// ```
    /// use ringwire::{AckError, App, Connection, Events};
    /// use std::time::Duration;
    ///
    /// let ask = async |socket: Connection, _: ()| match socket.emit_with_ack("sure?", &(), Duration::from_secs(30)).await {
    ///     Ok(answer) if answer.as_str() == "true" => "deleted",
    ///     Ok(_) | Err(AckError::TimedOut) => "kept",
    ///     Err(_) => "kept, and nobody hears it",
    /// };
    /// App::new().ws("/files", Events::new().on_async("delete", ask));
    /// ```
    pub fn emit_with_ack(&self, event: &str, data: &(impl Serialize + ?Sized), timeout: Duration) -> Acknowledgement {
        if self.is_closed() {
            return Acknowledgement::refused(AckError::Gone);
        }
        let (core, slot) = (Rc::clone(self.core()), self.own_id().slot());
        ask(core, slot, |message| self.queue(message, None), event, data, timeout)
    }

    /// As [`Connection::emit_with_ack`], and the event is sent as it is, whatever compression was agreed: see
    /// [`IntoMessage::uncompressed`](crate::IntoMessage::uncompressed).
    ///
    /// ```
    /// use ringwire::{App, Connection, Deflate, ws};
    /// use std::time::Duration;
    ///
    /// let task = async |socket: Connection| {
    ///     let token = "4711 ".repeat(100);
    ///     socket.emit_with_ack_uncompressed("keep this", &token, Duration::from_secs(5)).await.is_ok().then_some("welcome")
    /// };
    /// App::new().ws("/", ws().deflate(Deflate::Stateless).task(task));
    /// ```
    pub fn emit_with_ack_uncompressed(
        &self,
        event: &str,
        data: &(impl Serialize + ?Sized),
        timeout: Duration,
    ) -> Acknowledgement {
        if self.is_closed() {
            return Acknowledgement::refused(AckError::Gone);
        }
        let (core, slot) = (Rc::clone(self.core()), self.own_id().slot());
        ask(core, slot, |message| self.queue(message.marked(true), None), event, data, timeout)
    }
}

impl Socket<'_> {
    /// As [`Connection::emit_with_ack`]. A handler does not wait: it gives the result to a task.
    ///
    /// ```
    /// use ringwire::ws;
    /// use std::time::Duration;
    ///
    /// ws().on_connect(|socket| {
    ///     let (answer, sender) = (socket.emit_with_ack("who?", &(), Duration::from_secs(5)), socket.sender());
    ///     socket.spawn(async move { answer.await.map(|name| sender.emit("welcome", &name)) }).detach();
    /// });
    /// ```
    pub fn emit_with_ack(
        &mut self,
        event: &str,
        data: &(impl Serialize + ?Sized),
        timeout: Duration,
    ) -> Acknowledgement {
        let (core, slot) = (Rc::clone(self.core()), self.slot);
        ask(core, slot, |message| self.queue(message, None), event, data, timeout)
    }

    /// As [`Socket::emit_with_ack`], and the event is sent as it is, whatever compression was agreed: see
    /// [`IntoMessage::uncompressed`](crate::IntoMessage::uncompressed).
    ///
    /// ```
    /// use ringwire::{App, Deflate, ws};
    /// use std::time::Duration;
    ///
    /// let route = ws().deflate(Deflate::Stateless).on_connect(|socket| {
    ///     let kept = socket.emit_with_ack_uncompressed("keep this", &"4711 ".repeat(100), Duration::from_secs(5));
    ///     let sender = socket.sender();
    ///     socket.spawn(async move { kept.await.map(|_| sender.send("welcome")) }).detach();
    /// });
    /// App::new().ws("/", route);
    /// ```
    pub fn emit_with_ack_uncompressed(
        &mut self,
        event: &str,
        data: &(impl Serialize + ?Sized),
        timeout: Duration,
    ) -> Acknowledgement {
        let (core, slot) = (Rc::clone(self.core()), self.slot);
        ask(core, slot, |message| self.queue(message.marked(true), None), event, data, timeout)
    }
}

fn ask(
    core: Rc<CoreContext>,
    slot: u32,
    queue: impl FnOnce(Message<'_>) -> Sent,
    event: &str,
    data: &(impl Serialize + ?Sized),
    timeout: Duration,
) -> Acknowledgement {
    let number = match core.questions.begin(slot) {
        Ok(number) => number,
        Err(error) => return Acknowledgement::refused(error),
    };
    let envelope = core.envelope();
    let acknowledgement = Acknowledgement::new(core, slot, number, timeout);
    match envelope.encode_with_ack(event, data, number) {
        Err(error) => acknowledgement.unsent(AckError::Unwritten(error)),
        Ok(text) => match queue(borrowed(Kind::Text, &text)) {
            Sent::Queued => acknowledgement,
            Sent::Dropped => acknowledgement.unsent(AckError::Dropped),
            Sent::Gone => acknowledgement.unsent(AckError::Gone),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, envelope: Envelope, acks: bool) -> Option<(String, String, Option<u64>)> {
        let message = borrowed(Kind::Text, text.as_bytes());
        let event = Event::read(&message, envelope, acks).ok()?;
        Some((event.name.into_owned(), event.data.get().to_owned(), event.ack))
    }

    fn is(name: &str, data: &str, ack: Option<u64>) -> Option<(String, String, Option<u64>)> {
        Some((name.to_owned(), data.to_owned(), ack))
    }

    #[test]
    fn only_text_objects_with_a_name_are_events() {
        let read = |text: &str, envelope| read(text, envelope, true);
        let is = |name: &str, data: &str| is(name, data, None);
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
        assert!(matches!(Event::read(&binary, Envelope::Event, true), Err(Unhandled::Binary)));
    }

    #[test]
    fn an_acknowledgement_is_asked_for_by_a_number() {
        for text in
            [r#"{"event":"a","ack":7}"#, r#"{"ack":7,"event":"a","data":null}"#, r#"{"event":"a","\u0061ck":7}"#]
        {
            assert_eq!(read(text, Envelope::Event, true), is("a", "null", Some(7)), "{text}");
            assert_eq!(read(text, Envelope::Event, false), is("a", "null", None), "{text}");
        }
        assert_eq!(read(r#"{"path":"a","ack":0}"#, Envelope::Path, true), is("a", "null", Some(0)));
        assert_eq!(read(r#"{"event":"a","data":{"ack":1}}"#, Envelope::Event, true), is("a", r#"{"ack":1}"#, None));
        assert_eq!(read(r#"{"event":"a","ack":null}"#, Envelope::Event, true), is("a", "null", None));
        for wrong in [r#""1""#, "-1", "1.5", "[1]", "18446744073709551616"] {
            let text = format!(r#"{{"event":"a","ack":{wrong}}}"#);
            assert_eq!(read(&text, Envelope::Event, true), None, "{text}");
            assert!(read(&text, Envelope::Event, false).is_some(), "{text}");
        }
    }
}
