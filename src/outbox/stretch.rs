//! Bytes that leave in one send.

use bytes::Bytes;

/// Most pieces of one send.
pub const PIECES_MAX: usize = 64;

/// What one connection has to send in this tick.
#[derive(Clone, Copy, Debug)]
pub struct ToSend<'a> {
    /// The connection.
    pub slot: u32,
    /// Its generation.
    pub generation: u32,
    /// The bytes, in order.
    pub bytes: Stretch<'a>,
}

impl ToSend<'_> {
    /// How many bytes they are.
    pub fn bytes_len(&self) -> usize {
        match self.bytes {
            Stretch::One(bytes) => bytes.len(),
            Stretch::Many(pieces) => pieces.iter().map(Bytes::len).sum(),
        }
    }
}

/// Bytes that leave in one send.
#[derive(Clone, Copy, Debug)]
pub enum Stretch<'a> {
    /// In one piece.
    One(&'a [u8]),
    /// In at most [`PIECES_MAX`].
    Many(&'a [Bytes]),
}
