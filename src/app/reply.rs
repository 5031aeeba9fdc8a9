//! What a handler may return, and what that does to its connection.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use serde::Serialize;

use crate::hub::Delivery;
use crate::message::{DecodeError, EncodeError, IntoMessage, Json, Message, OwnedMessage, Uncompressed};

/// The error type that a handler's `Err` is turned into.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A handler has panicked: what [`Ws::on_error`](crate::Ws::on_error) hears of it.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, Panicked, ws};
/// use std::{cell::RefCell, rc::Rc};
///
/// let defects = Rc::new(RefCell::new(Vec::new()));
/// let server = TestServer::new(|| {
///     let defects = Rc::clone(&defects);
///     App::new().ws("/", ws().on_message(|_, _| panic!("no such case")).on_error(move |_, error| {
///         defects.borrow_mut().extend(error.downcast_ref::<Panicked>().map(|panic| panic.text().to_owned()));
///     }))
/// });
/// let client = server.connect("/");
/// client.send("hello");
/// client.expect_close(1011);
/// assert_eq!(*defects.borrow(), ["no such case"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("panicked: {0}")]
pub struct Panicked(String);

impl Panicked {
    pub(crate) fn boxed(text: String) -> BoxError {
        Box::new(Panicked(text))
    }

    /// What the panic says of itself.
    ///
    /// ```
    /// use ringwire::{Panicked, ws};
    ///
    /// ws().on_error(|_, error| {
    ///     if let Some(panicked) = error.downcast_ref::<Panicked>() {
    ///         eprintln!("a defect of ours: {}", panicked.text());
    ///     }
    /// });
    /// ```
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// What became of a message to one connection.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, Sent, ws};
///
/// let route = || {
///     ws().on_connect(|socket| match socket.send("welcome") {
///         Sent::Queued => {}
///         Sent::Dropped => eprintln!("{} does not keep up", socket.id()),
///         Sent::Gone => eprintln!("{} has gone", socket.id()),
///     })
/// };
/// let server = TestServer::new(move || App::new().ws("/", route()));
/// server.connect("/").expect_text("welcome");
/// ```
#[must_use = "a message may not have been queued"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is queued and will be sent.
    Queued,
    /// The connection does not keep up; what its route says happens to it, and the message is not sent.
    Dropped,
    /// The connection is closing or has gone.
    Gone,
}

impl Sent {
    /// Whether it is queued.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Connection, sleep, ws};
    /// use std::time::Duration;
    ///
    /// let ticking = async |connection: Connection| {
    ///     while connection.send("tick").is_queued() {
    ///         sleep(Duration::from_secs(1)).await;
    ///     }
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", ws().task(ticking)));
    /// let client = server.connect("/");
    /// client.expect_text("tick");
    /// client.expect_text("tick");
    /// ```
    pub fn is_queued(self) -> bool {
        self == Sent::Queued
    }
}

#[diagnostic::on_unimplemented(
    message = "`{Self}` takes no replies",
    note = "a `Socket` and a `Connection` do; `IntoReply::reply` is for those who write their own"
)]
/// Where the messages go that a handler returns.
///
/// ```
/// use ringwire::{IntoReply, Message, ReplySink, Sent};
///
/// /// Notes what would be sent, for a test of a reply.
/// #[derive(Default)]
/// struct Noted(Vec<String>);
///
/// impl ReplySink for Noted {
///     fn send_reply(&mut self, message: Message<'_>) -> Sent {
///         self.0.push(message.as_text().unwrap_or("(binary)").to_owned());
///         Sent::Queued
///     }
/// }
///
/// let mut noted = Noted::default();
/// Some("hello").reply(&mut noted).unwrap();
/// assert_eq!(noted.0, ["hello"]);
/// ```
pub trait ReplySink {
    /// Sends one message.
    fn send_reply(&mut self, message: Message<'_>) -> Sent;

    /// Sends one message that is JSON: to whoever has asked for an acknowledgement it is the data, where other text is a
    /// string.
    fn send_json(&mut self, json: Message<'_>) -> Sent {
        self.send_reply(json)
    }

    /// Sends all that a stream brings.
    ///
    /// # Errors
    /// If there is no place for a stream here.
    fn send_reply_stream(&mut self, stream: ReplyStream) -> Result<(), BoxError> {
        drop(stream);
        Err("a stream is no part of a stream, and no acknowledgement".into())
    }
}

/// A stream of replies, made of a [`Streamed`] one.
pub struct ReplyStream(Pin<Box<dyn Stream<Item = Result<Option<OwnedMessage>, BoxError>>>>);

impl ReplyStream {
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Option<OwnedMessage>, BoxError>>> {
        self.0.as_mut().poll_next(cx)
    }
}

/// A stream as a reply: its items are replies, sent one after the other, and no faster than the peer reads: the next one is
/// taken when most of what is queued has left. It ends early with the connection, with an item that was not queued, or with
/// one that is an error, which does what a handler's error does.
///
/// As long as it lasts, no more messages of the connection are handled; what [`Ws::on_connect`](crate::Ws::on_connect)
/// streams is sent beside them. A send-only connection is closed when its stream has ended.
///
/// ```
/// use futures_util::stream;
/// use ringwire::{Streamed, ws};
///
/// ws().on_message(|_, message| {
///     let count: u32 = message.as_text()?.parse().ok()?;
///     Some(Streamed(stream::iter((0..count).rev().map(|number| number.to_string()))))
/// });
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Streamed<S>(pub S);

impl<S> IntoReply for Streamed<S>
where
    S: Stream + 'static,
    S::Item: IntoReply,
{
    fn reply(self, sink: &mut dyn ReplySink) -> Result<(), BoxError> {
        sink.send_reply_stream(ReplyStream(Box::pin(Items(Box::pin(self.0)))))
    }
}

struct Items<S>(Pin<Box<S>>);

impl<S: Stream> Stream for Items<S>
where
    S::Item: IntoReply,
{
    type Item = Result<Option<OwnedMessage>, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx).map(|item| {
            let mut kept = Kept(None);
            item.map(|reply| reply.reply(&mut kept).map(|()| kept.0))
        })
    }
}

/// Keeps a message.
struct Kept(Option<OwnedMessage>);

impl ReplySink for Kept {
    fn send_reply(&mut self, message: Message<'_>) -> Sent {
        self.0 = Some(message.to_owned());
        Sent::Queued
    }
}

#[diagnostic::on_unimplemented(
    message = "`{Self}` is no reply of a handler",
    label = "this cannot be sent to the client",
    note = "a reply is text, bytes, `Json(value)`, `Streamed(stream)`, nothing (`()`), or an `Option` or `Result` of one",
    note = "a value that is `Serialize` is sent as JSON in `ringwire::Json(value)`; a number as text by `.to_string()`",
    note = "to reply with what was received, return `message.into_owned()`, or `socket.send(message)`"
)]
/// What a handler may return: nothing, a message (text, bytes, [`Json`]), an `Option` of it, or a `Result` whose error
/// closes the connection by the route's failure policy. A type of yours can be one:
///
/// ```
/// use ringwire::{BoxError, IntoReply, Json, ReplySink, ws};
///
/// struct Celsius(f64);
///
/// impl IntoReply for Celsius {
///     fn reply(self, sink: &mut dyn ReplySink) -> Result<(), BoxError> {
///         Json(self.0 * 1.8 + 32.0).reply(sink)
///     }
/// }
///
/// ws().on_json(|_, degrees: f64| Celsius(degrees));
/// ```
///
/// and what a handler returns can be taken in:
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, IntoReply, Ws, ws};
///
/// /// A route that says nothing to empty messages.
/// fn unless_empty<R: IntoReply>(handler: impl Fn(&str) -> R + 'static) -> Ws {
///     ws().on_text(move |_, text| (!text.is_empty()).then(|| handler(text)))
/// }
///
/// let server = TestServer::new(|| App::new().ws("/shout", unless_empty(|text| text.to_uppercase())));
/// let client = server.connect("/shout");
/// client.send("");
/// client.send("hello");
/// client.expect_text("HELLO");
/// ```
pub trait IntoReply {
    /// Sends it.
    ///
    /// # Errors
    /// The handler's own, or a value that cannot be written as JSON.
    fn reply(self, sink: &mut dyn ReplySink) -> Result<(), BoxError>;
}

macro_rules! no_reply {
    ($($type:ty),+) => {$(
        impl IntoReply for $type {
            fn reply(self, _sink: &mut dyn ReplySink) -> Result<(), BoxError> {
                Ok(())
            }
        }
    )+};
}

no_reply!((), Sent, Delivery);

/// What returns.
#[allow(unnameable_types, reason = "only implementations of traits mention it")]
pub trait Returns {
    /// With what.
    type Output;
}

impl<T> Returns for fn() -> T {
    type Output = T;
}

/// The type `!`, whose name stands nowhere else on stable Rust than behind an arrow.
pub(crate) type Never = <fn() -> ! as Returns>::Output;

#[diagnostic::on_unimplemented(
    message = "`{Self}` is no reply of a handler",
    label = "this cannot be sent to the client",
    note = "a reply is text, bytes, `Json(value)`, `Streamed(stream)`, nothing (`()`), or an `Option` or `Result` of one",
    note = "a value that is `Serialize` is sent as JSON in `ringwire::Json(value)`; a number as text by `.to_string()`",
    note = "to reply with what was received, return `message.into_owned()`, or `socket.send(message)`"
)]
/// What a handler or task may come to: a reply, which is whatever implements [`IntoReply`], or never an end, as an endless
/// loop. Nothing else implements it: a type of yours becomes a reply by [`IntoReply`].
// Apart from `IntoReply` because of `!`: beside an implementation for it, other crates could not write one of their own.
pub trait HandlerReply {
    /// The reply.
    #[doc(hidden)]
    type Reply: IntoReply;

    /// The reply.
    #[doc(hidden)]
    fn into_reply(self) -> Self::Reply;
}

impl<R: IntoReply> HandlerReply for R {
    type Reply = R;

    fn into_reply(self) -> R {
        self
    }
}

impl HandlerReply for Never {
    type Reply = ();

    fn into_reply(self) {
        self
    }
}

macro_rules! message_reply {
    ($($type:ty),+) => {$(
        impl IntoReply for $type {
            fn reply(self, sink: &mut dyn ReplySink) -> Result<(), BoxError> {
                send(self, sink)
            }
        }
    )+};
}

message_reply!(&str, String, Vec<u8>, &[u8], Bytes, OwnedMessage);

fn send(message: impl IntoMessage, sink: &mut dyn ReplySink) -> Result<(), BoxError> {
    // A reply to a connection that has gone misses nobody, and one that was dropped is counted.
    let _ = message.with_message(|message| sink.send_reply(message)).map_err(|error: EncodeError| error)?;
    Ok(())
}

impl<R: IntoReply> IntoReply for Uncompressed<R> {
    fn reply(self, sink: &mut dyn ReplySink) -> Result<(), BoxError> {
        self.0.reply(&mut AsItIs(sink))
    }
}

/// Marks what goes through it to be sent as it is.
struct AsItIs<T>(T);

impl ReplySink for AsItIs<&mut dyn ReplySink> {
    fn send_reply(&mut self, message: Message<'_>) -> Sent {
        self.0.send_reply(message.marked(true))
    }

    fn send_json(&mut self, json: Message<'_>) -> Sent {
        self.0.send_json(json.marked(true))
    }

    fn send_reply_stream(&mut self, stream: ReplyStream) -> Result<(), BoxError> {
        self.0.send_reply_stream(ReplyStream(Box::pin(AsItIs(stream))))
    }
}

impl Stream for AsItIs<ReplyStream> {
    type Item = Result<Option<OwnedMessage>, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mark = |item: Self::Item| item.map(|message| message.map(|message| message.marked(true)));
        self.0.poll_next(cx).map(|item| item.map(mark))
    }
}

impl<T: Serialize> IntoReply for Json<T> {
    fn reply(self, sink: &mut dyn ReplySink) -> Result<(), BoxError> {
        let _ = self.with_message(|message| sink.send_json(message)).map_err(|error: EncodeError| error)?;
        Ok(())
    }
}

impl<T: IntoReply> IntoReply for Option<T> {
    fn reply(self, sink: &mut dyn ReplySink) -> Result<(), BoxError> {
        self.map_or(Ok(()), |reply| reply.reply(sink))
    }
}

// A task that ends only with an error comes to `Result<!, E>`.
impl<T: HandlerReply, E: Into<BoxError>> IntoReply for Result<T, E> {
    fn reply(self, sink: &mut dyn ReplySink) -> Result<(), BoxError> {
        self.map_err(Into::into)?.into_reply().reply(sink)
    }
}

/// What a failed handler does to its connection. The error's text goes to the log, never to the peer.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, FailurePolicy, ws};
///
/// let number = |policy| ws().on_failure(policy).on_text(|_, text| text.parse::<i64>().map(|number| number.to_string()));
/// let server = TestServer::new(move || {
///     App::new().ws("/strict", number(FailurePolicy::Close)).ws("/patient", number(FailurePolicy::Keep))
/// });
/// let (strict, patient) = (server.connect("/strict"), server.connect("/patient"));
/// strict.send("seven");
/// strict.expect_close(1011);
/// patient.send("seven");
/// patient.send("7");
/// patient.expect_text("7");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailurePolicy {
    /// Closes it with 1011; with 1007 where the message could not be decoded.
    #[default]
    Close,
    /// Keeps it.
    Keep,
}

impl FailurePolicy {
    /// The close code and reason for a failure, if the connection is to be closed.
    pub(crate) fn close_for(self, error: &BoxError) -> Option<(u16, &'static str)> {
        match self {
            FailurePolicy::Keep => None,
            FailurePolicy::Close if error.is::<DecodeError>() => Some((1007, "the message cannot be decoded")),
            FailurePolicy::Close => Some((1011, "internal error")),
        }
    }
}
