//! An encoded frame, shared: encoded once, queued to many connections and sent to other cores by reference.
//!
//! Frames from a server are not masked (RFC 6455 5.1), so every receiver of a message gets the same bytes.

use bytes::Bytes;

use crate::proto::frame::{Opcode, put_frame};
use crate::proto::{Kind, OwnedPayload};

/// One complete unmasked frame, header and payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameBuf(Bytes);

impl FrameBuf {
    /// Encodes a message of one frame.
    ///
    /// ```
    /// use ringwire::outbox::FrameBuf;
    /// use ringwire::proto::frame::Opcode;
    ///
    /// let frame = FrameBuf::new(Opcode::Text, b"hi");
    /// assert_eq!(&frame.bytes()[..], b"\x81\x02hi");
    /// ```
    pub fn new(opcode: Opcode, payload: &[u8]) -> FrameBuf {
        let mut bytes = Vec::with_capacity(payload.len() + 10);
        put_frame(&mut bytes, opcode, payload);
        FrameBuf(bytes.into())
    }

    /// Turns an assembled message into the frame that says the same, without copying its payload.
    pub fn from_owned(kind: Kind, payload: OwnedPayload) -> FrameBuf {
        let (bytes, start) = payload.into_frame(kind.into());
        FrameBuf(Bytes::from(bytes).slice(start..))
    }

    /// Takes bytes that are already a frame, or whatever else is to be sent as it is.
    pub(crate) fn from_encoded(bytes: Bytes) -> FrameBuf {
        FrameBuf(bytes)
    }

    /// The encoded bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Bytes on the wire.
    #[expect(clippy::len_without_is_empty, reason = "a frame has at least its header")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
