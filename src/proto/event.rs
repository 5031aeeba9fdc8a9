//! What goes into the machine and what comes out of it: roles, limits, messages, events.

use std::ops::Deref;

use super::ProtocolError;
use super::frame::Opcode;
use super::payload::{Kind, OwnedPayload};

/// Which end of the connection the machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Requires masked frames (RFC 6455 5.1).
    Server,
    /// Refuses masked frames (RFC 6455 5.1).
    Client,
}

/// Bounds on what a peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most payload bytes of one message; more closes 1009.
    pub message_bytes_max: usize,
    /// Most frames of one message; more closes 1008.
    pub fragments_max: u32,
}

/// A message's bytes, unmasked.
#[derive(Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// It lies in the input.
    Borrowed(&'a [u8]),
    /// It was assembled.
    Owned(OwnedPayload),
}

impl Payload<'_> {
    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(payload) => payload.as_slice(),
        }
    }
}

impl Deref for Payload<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

/// A complete data message. Text is valid UTF-8.
#[derive(Debug, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// Text or binary.
    pub kind: Kind,
    /// Its bytes.
    pub payload: Payload<'a>,
    /// Not to be compressed when it is sent on, whatever was agreed.
    pub uncompressed: bool,
}

/// What the peer's bytes meant.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A complete message.
    Message(Incoming<'a>),
    /// A ping; its pong is queued already.
    Ping(&'a [u8]),
    /// A pong.
    Pong(&'a [u8]),
    /// The peer's Close frame; it is answered already. Nothing follows.
    Close {
        /// Its code, if it had one.
        code: Option<u16>,
        /// Its reason, maybe empty.
        reason: &'a str,
    },
    /// The peer broke the protocol; the Close frame that says so is queued already. Nothing follows.
    Failed(ProtocolError),
}

/// Where the frames go that the machine answers with: pongs and Close frames, to be sent as frames of the machine's role.
pub trait Replies {
    /// Queues a frame (FIN set) with at most 125 bytes of payload.
    fn reply(&mut self, opcode: Opcode, payload: &[u8]);
}

impl<F: FnMut(Opcode, &[u8])> Replies for F {
    fn reply(&mut self, opcode: Opcode, payload: &[u8]) {
        self(opcode, payload);
    }
}

/// The buffer of a message under way, lent to receive into.
#[derive(Debug)]
pub struct Lent {
    /// Append to it, within its spare capacity, which is at least 1 byte.
    pub buffer: Vec<u8>,
    /// Most bytes to append: what the frame still has to come.
    pub len_max: usize,
}
