//! Messages of the handshake's kind that come after the handshake (RFC 8446 4.6).

use super::{Failure, TlsError};

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
const HEADER_BYTES: usize = 4;
/// A ticket, its nonce and its extensions: what rustls takes.
const TICKET_BYTES_MAX: usize = 0xffff;

/// RFC 8446 4.6.3: a KeyUpdate, which asks the peer for one of its own, or not.
pub(super) const fn key_update(asks: bool) -> [u8; HEADER_BYTES + 1] {
    [KEY_UPDATE, 0, 0, 1, asks as u8]
}

/// A message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    KeyUpdate { asks: bool },
    Ticket(Vec<u8>),
}

/// The beginning of a message that is not complete.
#[derive(Default)]
pub(super) struct Posted {
    bytes: Vec<u8>,
}

impl Posted {
    /// Whether a message has begun: nothing else may come before it is complete (RFC 8446 5.1).
    pub(super) fn has_begun(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Takes the content of a record, and out of it the next message; `&mut &[]` asks for more of them.
    pub(super) fn next(&mut self, content: &mut &[u8], is_client: bool) -> Result<Option<Message>, TlsError> {
        let unexpected = || TlsError::new(Failure::Protocol, "a message that has no place after the handshake");
        self.bytes.extend_from_slice(std::mem::take(content));
        let Some(kind) = self.bytes.first() else { return Ok(None) };
        let (kind, bytes_max) = match *kind {
            KEY_UPDATE => (KEY_UPDATE, 1),
            NEW_SESSION_TICKET if is_client => (NEW_SESSION_TICKET, TICKET_BYTES_MAX),
            _ => return Err(unexpected()),
        };
        let Some(&[_, a, b, c]) = self.bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        if len > bytes_max {
            return Err(unexpected());
        }
        if self.bytes.len() < HEADER_BYTES + len {
            return Ok(None);
        }
        let rest = self.bytes.split_off(HEADER_BYTES + len);
        let message = std::mem::replace(&mut self.bytes, rest);
        match (kind, &message[HEADER_BYTES..]) {
            (NEW_SESSION_TICKET, ticket) => Ok(Some(Message::Ticket(ticket.to_vec()))),
            // RFC 8446 5.1: a message right before a change of keys ends its record.
            (_, [asks @ (0 | 1)]) if self.bytes.is_empty() => Ok(Some(Message::KeyUpdate { asks: *asks == 1 })),
            _ => Err(unexpected()),
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}
