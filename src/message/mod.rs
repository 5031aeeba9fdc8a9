//! Messages as handlers see them, what may be sent as one, and JSON that stays as it was written.
//!
//! Knows of this crate: `proto`, `quote`.

mod error;
pub(crate) mod json;

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::proto::{Incoming, Kind, Payload};
use crate::quote::quoted;

pub use error::{DecodeError, EncodeError};
pub use json::RawJson;

/// A received message, borrowed from the receive buffer where it came in one piece: reading it copies nothing, and
/// sending it on does not copy a large one either. `Debug` shows its beginning.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, Message, Socket};
///
/// fn describe(_: &mut Socket, message: Message) -> String {
///     match message.as_text() {
///         Some(text) => format!("text of {} letters", text.chars().count()),
///         None => format!("{} bytes", message.as_bytes().len()),
///     }
/// }
///
/// let server = TestServer::new(|| App::new().ws("/", describe));
/// let client = server.connect("/");
/// client.send("größer");
/// client.expect_text("text of 6 letters");
/// ```
pub struct Message<'a>(pub(crate) Incoming<'a>);

impl Message<'_> {
    /// Whether it is a text message; otherwise it is binary.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || ws().on_message(|_, message| if message.is_text() { "text" } else { "bytes" });
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let client = server.connect("/");
    /// client.send("hello");
    /// client.expect_text("text");
    /// ```
    pub fn is_text(&self) -> bool {
        self.0.kind == Kind::Text
    }

    /// Whether it is a binary message.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || ws().on_message(|socket, message| if message.is_binary() { socket.close(1003, "text, please") } else { Ok(()) });
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let client = server.connect("/");
    /// client.send(vec![1, 2, 3]);
    /// assert_eq!(client.expect_close(1003), "text, please");
    /// ```
    pub fn is_binary(&self) -> bool {
        self.0.kind == Kind::Binary
    }

    /// The payload.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || ws().on_message(|_, message| message.as_bytes().iter().map(|byte| u32::from(*byte)).sum::<u32>().to_string());
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let client = server.connect("/");
    /// client.send(vec![1, 2, 3]);
    /// client.expect_text("6");
    /// ```
    pub fn as_bytes(&self) -> &[u8] {
        self.0.payload.as_slice()
    }

    /// The text; `None` for a binary message.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || ws().on_message(|_, message| message.as_text().map(str::to_uppercase));
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let client = server.connect("/");
    /// client.send("hello");
    /// client.expect_text("HELLO");
    /// ```
    pub fn as_text(&self) -> Option<&str> {
        // A text message was validated when it was received (RFC 6455 8.1); this cannot fail, and costs a scan.
        self.is_text().then(|| simdutf8::basic::from_utf8(self.as_bytes()).ok()).flatten()
    }

    /// The payload, decoded from JSON, be it text or binary.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let add = || {
    ///     ws().on_message(|_, message| {
    ///         let (a, b): (i64, i64) = message.json()?;
    ///         Ok::<_, ringwire::DecodeError>((a + b).to_string())
    ///     })
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", add()));
    /// let client = server.connect("/");
    /// client.send("[1, 2]");
    /// client.expect_text("3");
    /// client.send("no numbers");
    /// client.expect_close(1007);
    /// ```
    ///
    /// # Errors
    /// If it is not JSON, or not of that type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        Ok(serde_json::from_slice(self.as_bytes())?)
    }

    /// A copy that outlives the handler.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, OwnedMessage, ws};
    /// use std::cell::RefCell;
    ///
    /// // Each gets what the one before has sent.
    /// let swap = || {
    ///     ws().on_message(|socket, message| {
    ///         let last: &RefCell<Option<OwnedMessage>> = socket.core_state();
    ///         last.replace(Some(message.to_owned()))
    ///     })
    /// };
    /// let app = move || App::new().with_core_state(RefCell::new(None::<OwnedMessage>)).ws("/", swap());
    /// let server = TestServer::new(app);
    /// let client = server.connect("/");
    /// client.send("first");
    /// client.send("second");
    /// client.expect_text("first");
    /// ```
    pub fn to_owned(&self) -> OwnedMessage {
        OwnedMessage {
            kind: self.0.kind,
            bytes: Bytes::copy_from_slice(self.as_bytes()),
            uncompressed: self.0.uncompressed,
        }
    }

    /// Turns it into one that outlives the handler; a large message is not copied.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, sleep, ws};
    /// use std::time::Duration;
    ///
    /// let later = || {
    ///     ws().on_message(|socket, message| {
    ///         let (sender, message) = (socket.sender(), message.into_owned());
    ///         let echo = async move {
    ///             sleep(Duration::from_secs(1)).await;
    ///             sender.send(message).map(drop)
    ///         };
    ///         socket.spawn(echo).detach();
    ///     })
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", later()));
    /// let client = server.connect("/");
    /// client.send("hello");
    /// client.expect_text("hello");
    /// ```
    pub fn into_owned(self) -> OwnedMessage {
        let (kind, uncompressed) = (self.0.kind, self.0.uncompressed);
        let bytes = match self.0.payload {
            Payload::Owned(payload) => {
                let (mut buffer, start) = payload.into_parts();
                // It is counted by its length from now on, and may be kept for long: a buffer that was made for a larger
                // message must not be kept with it.
                if buffer.capacity() - buffer.len() > buffer.len() / 4 {
                    buffer.shrink_to_fit();
                }
                Bytes::from(buffer).slice(start..)
            }
            Payload::Borrowed(payload) => Bytes::copy_from_slice(payload),
        };
        OwnedMessage { kind, bytes, uncompressed }
    }

    /// Whether it is to be sent as it is.
    pub(crate) fn is_uncompressed(&self) -> bool {
        self.0.uncompressed
    }

    /// To be sent as it is, if this or a mark of its own says so.
    #[inline]
    pub(crate) fn marked(mut self, uncompressed: bool) -> Self {
        self.0.uncompressed |= uncompressed;
        self
    }
}

/// A message that owns its payload; cloning it copies nothing. `Debug` shows its beginning.
///
/// ```
/// use ringwire::OwnedMessage;
///
/// let message = OwnedMessage::text("hello");
/// let copies = vec![message.clone(); 1000]; // of one and the same text
/// assert_eq!(copies[999].as_text(), Some("hello"));
/// assert_eq!(format!("{message:?}"), "OwnedMessage(text of 5 bytes: \"hello\")");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct OwnedMessage {
    kind: Kind,
    bytes: Bytes,
    uncompressed: bool,
}

impl OwnedMessage {
    /// A text message.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, OwnedMessage, ws};
    ///
    /// let route = || ws().on_connect(|socket| OwnedMessage::text(format!("you are {}", socket.id())));
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// assert!(server.connect("/").next_text().starts_with("you are "));
    /// ```
    pub fn text(text: impl Into<String>) -> OwnedMessage {
        OwnedMessage { kind: Kind::Text, bytes: Bytes::from(text.into()), uncompressed: false }
    }

    /// A binary message.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, OwnedMessage, ws};
    ///
    /// let route = || ws().on_text(|_, text| OwnedMessage::binary(text.to_owned()));
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let client = server.connect("/");
    /// client.send("abc");
    /// client.expect_binary("abc");
    /// ```
    pub fn binary(bytes: impl Into<Bytes>) -> OwnedMessage {
        OwnedMessage { kind: Kind::Binary, bytes: bytes.into(), uncompressed: false }
    }

    /// Whether it is a text message; otherwise it is binary.
    ///
    /// ```
    /// use ringwire::OwnedMessage;
    ///
    /// assert!(OwnedMessage::text("hello").is_text());
    /// assert!(!OwnedMessage::binary(vec![1, 2, 3]).is_text());
    /// ```
    pub fn is_text(&self) -> bool {
        self.kind == Kind::Text
    }

    /// The payload.
    ///
    /// ```
    /// use ringwire::OwnedMessage;
    ///
    /// assert_eq!(OwnedMessage::text("abc").as_bytes(), b"abc");
    /// assert_eq!(OwnedMessage::binary(vec![1, 2, 3]).as_bytes(), [1, 2, 3]);
    /// ```
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The payload, shared.
    ///
    /// ```
    /// use ringwire::OwnedMessage;
    ///
    /// let bytes = OwnedMessage::binary(vec![1, 2, 3]).into_bytes();
    /// assert_eq!(bytes.slice(1..), [2, 3][..]);
    /// ```
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The text; `None` for a binary message.
    ///
    /// ```
    /// use ringwire::OwnedMessage;
    ///
    /// assert_eq!(OwnedMessage::text("hello").as_text(), Some("hello"));
    /// assert_eq!(OwnedMessage::binary("hello").as_text(), None);
    /// ```
    pub fn as_text(&self) -> Option<&str> {
        self.is_text().then(|| simdutf8::basic::from_utf8(&self.bytes).ok()).flatten()
    }

    /// The payload, decoded from JSON.
    ///
    /// ```
    /// use ringwire::OwnedMessage;
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Point {
    ///     x: i32,
    ///     y: i32,
    /// }
    ///
    /// let point: Point = OwnedMessage::text(r#"{"x": 1, "y": 2}"#).json().unwrap();
    /// assert_eq!((point.x, point.y), (1, 2));
    /// assert!(OwnedMessage::text("[1").json::<Point>().is_err());
    /// ```
    ///
    /// # Errors
    /// If it is not JSON, or not of that type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        Ok(serde_json::from_slice(&self.bytes)?)
    }

    /// As [`Message::marked`].
    pub(crate) fn marked(mut self, uncompressed: bool) -> OwnedMessage {
        self.uncompressed |= uncompressed;
        self
    }

    /// As a handler would get it.
    pub(crate) fn as_message(&self) -> Message<'_> {
        Message(Incoming { kind: self.kind, payload: Payload::Borrowed(&self.bytes), uncompressed: self.uncompressed })
    }
}

fn show(f: &mut fmt::Formatter<'_>, name: &str, kind: Kind, bytes: &[u8]) -> fmt::Result {
    let kind = if kind == Kind::Text { "text" } else { "binary" };
    write!(f, "{name}({kind} of {} bytes: {})", bytes.len(), quoted(bytes))
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, "Message", self.0.kind, self.as_bytes())
    }
}

impl fmt::Debug for OwnedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, "OwnedMessage", self.kind, &self.bytes)
    }
}

/// A value that is sent, or was received, as JSON text.
///
/// ```
/// use ringwire::{IntoMessage, Json};
///
/// let length = Json(["a", "b"]).with_message(|message| message.as_bytes().len());
/// assert_eq!(length.unwrap(), r#"["a","b"]"#.len());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<T>(pub T);

#[diagnostic::on_unimplemented(
    message = "`{Self}` is no message",
    label = "this cannot be sent",
    note = "text (`&str`, `String`) is sent as text and bytes (`&[u8]`, `Vec<u8>`, `Bytes`) as binary",
    note = "a value that is `Serialize` is sent as JSON in `ringwire::Json(value)`"
)]
/// What can be sent as a message: text as text, bytes as binary, [`Json`] as text.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, EncodeError, IntoMessage, Message, ws};
///
/// struct Temperature(f32);
///
/// impl IntoMessage for Temperature {
///     fn with_message<R>(self, send: impl FnOnce(Message<'_>) -> R) -> Result<R, EncodeError> {
///         format!("{:.1} °C", self.0).with_message(send)
///     }
/// }
///
/// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.send(Temperature(21.46)))));
/// server.connect("/").expect_text("21.5 °C");
/// ```
pub trait IntoMessage {
    /// Lends the message to `send`; nothing is copied for it.
    ///
    /// # Errors
    /// If a value cannot be written as JSON.
    fn with_message<R>(self, send: impl FnOnce(Message<'_>) -> R) -> Result<R, EncodeError>;

    /// Has it sent as it is, whatever compression was agreed (RFC 7692 6): for secrets that stand beside what others can
    /// choose. Who sees how long a compressed message is, and has some of it say what they like, can find out the rest.
    ///
    /// ```
    /// use ringwire::{IntoMessage as _, ws};
    ///
    /// let route = ws().on_message(|socket, _| socket.send("token: 4711".uncompressed()));
    /// let same = ws().on_message(|_, message| message.into_owned().uncompressed());
    /// # let _ = (route, same);
    /// ```
    fn uncompressed(self) -> Uncompressed<Self>
    where
        Self: Sized,
    {
        Uncompressed(self)
    }
}

/// A message that is sent as it is: see [`IntoMessage::uncompressed`].
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, Deflate, Uncompressed, ws};
///
/// let route = || ws().deflate(Deflate::Stateless).on_connect(|_| Uncompressed("token: ".repeat(100)));
/// let server = TestServer::new(move || App::new().ws("/", route()));
/// let client = server.handshake("/").deflate().open();
/// client.expect_text(&"token: ".repeat(100));
/// assert_eq!(client.inflated_messages(), 0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uncompressed<M>(pub M);

impl<M: IntoMessage> IntoMessage for Uncompressed<M> {
    fn with_message<R>(self, send: impl FnOnce(Message<'_>) -> R) -> Result<R, EncodeError> {
        self.0.with_message(|message| send(message.marked(true)))
    }
}

pub(crate) fn borrowed(kind: Kind, payload: &[u8]) -> Message<'_> {
    Message(Incoming { kind, payload: Payload::Borrowed(payload), uncompressed: false })
}

impl IntoMessage for Message<'_> {
    fn with_message<R>(self, send: impl FnOnce(Message<'_>) -> R) -> Result<R, EncodeError> {
        Ok(send(self))
    }
}

impl IntoMessage for OwnedMessage {
    fn with_message<R>(self, send: impl FnOnce(Message<'_>) -> R) -> Result<R, EncodeError> {
        Ok(send(self.as_message()))
    }
}

impl IntoMessage for &OwnedMessage {
    fn with_message<R>(self, send: impl FnOnce(Message<'_>) -> R) -> Result<R, EncodeError> {
        Ok(send(self.as_message()))
    }
}

impl<T: Serialize> IntoMessage for Json<T> {
    fn with_message<R>(self, send: impl FnOnce(Message<'_>) -> R) -> Result<R, EncodeError> {
        let text = serde_json::to_vec(&self.0)?;
        Ok(send(borrowed(Kind::Text, &text)))
    }
}

macro_rules! payloads {
    ($($kind:ident: $($type:ty),+;)+) => {$($(
        impl IntoMessage for $type {
            fn with_message<R>(self, send: impl FnOnce(Message<'_>) -> R) -> Result<R, EncodeError> {
                Ok(send(borrowed(Kind::$kind, AsRef::<[u8]>::as_ref(&*self))))
            }
        }
    )+)+};
}

payloads! {
    Text: &str, String, &String, std::borrow::Cow<'_, str>;
    Binary: &[u8], Vec<u8>, &Vec<u8>, Bytes, &Bytes;
}

impl<const N: usize> IntoMessage for [u8; N] {
    fn with_message<R>(self, send: impl FnOnce(Message<'_>) -> R) -> Result<R, EncodeError> {
        Ok(send(borrowed(Kind::Binary, &self)))
    }
}

/// How named events are written as messages: one JSON text message each.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, Envelope, Events};
///
/// let echo = || Events::new().on_raw("say", |socket, data| socket.emit("said", data));
/// let server = TestServer::new(move || App::new().envelope(Envelope::Path).ws("/", echo()));
/// let client = server.connect("/");
/// client.send(r#"{"path":"say","data":"hello"}"#);
/// client.expect_text(r#"{"path":"said","data":"hello"}"#);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Envelope {
    /// `{"event":E,"data":D}`
    #[default]
    Event,
    /// `{"path":P,"data":D}`
    Path,
}

impl Envelope {
    /// The key of the event's name.
    ///
    /// ```
    /// use ringwire::Envelope;
    ///
    /// assert_eq!((Envelope::Event.key(), Envelope::Path.key()), ("event", "path"));
    /// ```
    pub fn key(self) -> &'static str {
        match self {
            Envelope::Event => "event",
            Envelope::Path => "path",
        }
    }

    /// Writes an event.
    ///
    /// ```
    /// use ringwire::Envelope;
    ///
    /// let text = Envelope::Event.encode("said", &1).unwrap();
    /// assert_eq!(text, br#"{"event":"said","data":1}"#);
    /// ```
    ///
    /// # Errors
    /// If the data cannot be written as JSON.
    pub fn encode(self, event: &str, data: &(impl Serialize + ?Sized)) -> Result<Vec<u8>, EncodeError> {
        let mut text = Vec::with_capacity(64);
        text.extend_from_slice(if self == Envelope::Event { br#"{"event":"# } else { br#"{"path":"# });
        serde_json::to_writer(&mut text, event)?;
        text.extend_from_slice(br#","data":"#);
        serde_json::to_writer(&mut text, data)?;
        text.push(b'}');
        Ok(text)
    }

    /// Writes an event that is to be acknowledged by this number.
    pub(crate) fn encode_with_ack(
        self,
        event: &str,
        data: &(impl Serialize + ?Sized),
        number: u64,
    ) -> Result<Vec<u8>, EncodeError> {
        let mut text = self.encode(event, data)?;
        text.pop();
        text.extend_from_slice(format!(r#","ack":{number}}}"#).as_bytes());
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::OwnedPayload;

    /// Kills: small messages that keep the large buffers they came in, and are counted by their lengths.
    #[test]
    fn an_owned_message_holds_little_more_than_its_length() {
        for (len, capacity) in [(600, 8 << 10), (100_000, 800_000), (100_000, 110_000)] {
            let payload = OwnedPayload::copy_of(&vec![7; len], Vec::with_capacity(capacity));
            let incoming = Incoming { kind: Kind::Binary, payload: Payload::Owned(payload), uncompressed: false };
            let message = Message(incoming).into_owned();
            assert_eq!(message.as_bytes(), vec![7; len]);
            let held = message.into_bytes().try_into_mut().expect("nobody shares it").capacity();
            assert!(held >= len && held <= len + len / 4 + 64, "{held} bytes for {len} of {capacity}");
        }
    }
}
