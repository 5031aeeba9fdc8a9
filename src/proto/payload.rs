//! What a message is made of: its kind, and its bytes where they are a buffer of their own.

use std::ops::Deref;

use super::frame::{Opcode, encode_header};

/// Bytes free before the payload of an assembled message: at least a server's frame header, 10.
pub const HEADROOM: usize = 16;

/// What a data message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// Any bytes.
    Binary,
}

impl From<Kind> for Opcode {
    #[inline]
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text,
            Kind::Binary => Self::Binary,
        }
    }
}

/// A message that was put together from several inputs, in a buffer of its own with at least [`HEADROOM`] bytes before it.
///
/// Give its buffer back to the [`Pool`](super::Pool) when done, for the next message to reuse.
#[derive(Debug, PartialEq, Eq)]
pub struct OwnedPayload {
    buffer: Vec<u8>,
    /// Where the payload begins in it.
    start: usize,
}

impl OwnedPayload {
    /// The payload that begins at `start` in `buffer`, and ends where it ends.
    pub(super) fn assembled(buffer: Vec<u8>, start: usize) -> Self {
        debug_assert!(HEADROOM <= start && start <= buffer.len(), "no room for a header");
        Self { buffer, start }
    }

    /// A copy of a payload, in `buffer`, whose content is dropped.
    pub fn copy_of(payload: &[u8], mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.reserve(HEADROOM + payload.len());
        buffer.resize(HEADROOM, 0);
        buffer.extend_from_slice(payload);
        Self { buffer, start: HEADROOM }
    }

    /// The payload.
    pub fn as_slice(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// The buffer and the index of the payload's first byte in it; the payload ends where the buffer ends.
    pub fn into_parts(self) -> (Vec<u8>, usize) {
        (self.buffer, self.start)
    }

    /// Makes a server's frame of it (FIN, not masked) without moving the payload: the header is written right before it.
    /// The buffer and the index of the frame's first byte in it; the frame ends where the buffer ends.
    pub fn into_frame(mut self, opcode: Opcode) -> (Vec<u8>, usize) {
        let len = self.as_slice().len() as u64;
        let (header, header_len) = encode_header(opcode, true, false, len, None);
        let start = self.start - header_len;
        self.buffer[start..self.start].copy_from_slice(&header[..header_len]);
        (self.buffer, start)
    }
}

impl Deref for OwnedPayload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}
