//! What a handler may return, and what that does to its connection.

use bytes::Bytes;
use serde::Serialize;

use crate::hub::Delivery;
use crate::message::{DecodeError, EncodeError, IntoMessage, Json, Message, OwnedMessage};

/// The error type that a handler's `Err` is turned into.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A handler has panicked: what [`Ws::on_error`](crate::Ws::on_error) hears of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("panicked: {0}")]
pub struct Panicked(String);

impl Panicked {
    pub(crate) fn boxed(text: String) -> BoxError {
        Box::new(Panicked(text))
    }

    /// What the panic says of itself.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// What became of a message to one connection.
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
    pub fn is_queued(self) -> bool {
        self == Sent::Queued
    }
}

/// Where the messages go that a handler returns.
pub trait ReplySink {
    /// Sends one message.
    fn send_reply(&mut self, message: Message<'_>) -> Sent;
}

/// What a handler may return: nothing, a message (text, bytes, [`Json`]), an `Option` of it, or a `Result` whose error
/// closes the connection by the route's failure policy.
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

impl<T: Serialize> IntoReply for Json<T> {
    fn reply(self, sink: &mut dyn ReplySink) -> Result<(), BoxError> {
        send(self, sink)
    }
}

impl<T: IntoReply> IntoReply for Option<T> {
    fn reply(self, sink: &mut dyn ReplySink) -> Result<(), BoxError> {
        self.map_or(Ok(()), |reply| reply.reply(sink))
    }
}

impl<T: IntoReply, E: Into<BoxError>> IntoReply for Result<T, E> {
    fn reply(self, sink: &mut dyn ReplySink) -> Result<(), BoxError> {
        self.map_err(Into::into)?.reply(sink)
    }
}

/// What a failed handler does to its connection. The error's text goes to the log, never to the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
