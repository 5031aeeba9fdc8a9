//! An encoded frame, shared: encoded once, queued to many connections and sent to other cores by reference.
//!
//! Frames from a server are not masked (RFC 6455 5.1), so every receiver of a message gets the same bytes.

use bytes::Bytes;

use crate::proto::frame::{Opcode, frame_len, put_frame};
use crate::proto::{Kind, OwnedPayload};

/// One complete unmasked frame, header and payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameBuf {
    bytes: Bytes,
    /// It is to be sent as it is.
    uncompressed: bool,
    /// It is text, a JSON object of the app's envelope.
    is_event: bool,
    /// It means nothing later: rooms with a history do not keep it.
    is_ephemeral: bool,
}

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
        FrameBuf::from_encoded(bytes.into())
    }

    /// Turns an assembled message into the frame that says the same, without copying its payload.
    pub fn from_owned(kind: Kind, payload: OwnedPayload) -> FrameBuf {
        let (bytes, start) = payload.into_frame(kind.into());
        FrameBuf::from_encoded(Bytes::from(bytes).slice(start..))
    }

    /// Takes bytes that are already a frame, or whatever else is to be sent as it is.
    pub(crate) fn from_encoded(bytes: Bytes) -> FrameBuf {
        FrameBuf { bytes, uncompressed: false, is_event: false, is_ephemeral: false }
    }

    /// As this says, whoever gets it: compressed where that is agreed, or as it is.
    #[must_use]
    pub fn uncompressed(self, uncompressed: bool) -> FrameBuf {
        FrameBuf { uncompressed, ..self }
    }

    /// As [`FrameBuf::uncompressed`], in place.
    pub(super) fn set_uncompressed(&mut self, uncompressed: bool) {
        self.uncompressed = uncompressed;
    }

    /// Says that it is an event in an envelope, or that it is not.
    #[must_use]
    pub(crate) fn event(self, is_event: bool) -> FrameBuf {
        FrameBuf { is_event, ..self }
    }

    pub(crate) fn is_event(&self) -> bool {
        self.is_event
    }

    /// Says that rooms do not keep it, or that they do.
    #[must_use]
    pub(crate) fn ephemeral(self, is_ephemeral: bool) -> FrameBuf {
        FrameBuf { is_ephemeral, ..self }
    }

    pub(crate) fn is_ephemeral(&self) -> bool {
        self.is_ephemeral
    }

    /// As a room keeps it under this offset, in memory of its own: an event says the offset, behind its data.
    pub(crate) fn numbered(&self, offset: u64) -> FrameBuf {
        if self.is_event
            && let Some((Opcode::Text, payload)) = self.parts()
            && let Some(rest) = payload.strip_suffix(b"}")
        {
            let payload = [rest, format!(r#","offset":{offset}}}"#).as_bytes()].concat();
            return FrameBuf::new(Opcode::Text, &payload).uncompressed(self.uncompressed);
        }
        // What was received may lie in a buffer that is larger.
        FrameBuf::from_encoded(Bytes::copy_from_slice(&self.bytes)).uncompressed(self.uncompressed)
    }

    pub(crate) fn is_uncompressed(&self) -> bool {
        self.uncompressed
    }

    /// Whether it is one message, and nothing else.
    pub(crate) fn is_message(&self) -> bool {
        self.parts().is_some()
    }

    /// What it is, and its payload; `None` if it is no message of one frame.
    pub(crate) fn parts(&self) -> Option<(Opcode, &[u8])> {
        let opcode = match self.bytes.first()? {
            0x81 => Opcode::Text,
            0x82 => Opcode::Binary,
            _ => return None,
        };
        let start = match self.bytes.get(1)? {
            ..126 => 2,
            126 => 4,
            127 => 10,
            _ => return None,
        };
        let is_whole = start <= self.bytes.len() && frame_len(&self.bytes) == self.bytes.len();
        is_whole.then(|| (opcode, &self.bytes[start..]))
    }

    /// The encoded bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Bytes on the wire.
    #[allow(clippy::len_without_is_empty, reason = "a frame has at least its header")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}
