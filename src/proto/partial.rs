//! What a connection holds while a frame or a message is incomplete: nothing of it exists otherwise.

use super::assembly::{Assembly, Frame};
use super::deflate::History;
use super::frame::{CONTROL_BYTES_MAX, HEADER_BYTES_MAX};
use super::mask;
use super::pool::Pool;

/// Everything incomplete on one connection. Boxed, and used again by the next that needs one.
///
/// Invariant: a header is being collected (`head_len > 0`) only between frames (`frame` is `None`).
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) frame: Option<Frame>,
    pub(super) message: Option<Assembly>,
    head: [u8; HEADER_BYTES_MAX],
    pub(super) head_len: u8,
    control: [u8; CONTROL_BYTES_MAX],
    control_len: u8,
    /// Capacity of the message's buffer while it is lent.
    pub(super) lent: Option<usize>,
    /// What the peer's next compressed message may refer to, where the peer takes that over: it is never incomplete, and keeps
    /// the record.
    pub(super) context: Option<Box<History>>,
}

impl Default for Partial {
    fn default() -> Self {
        Self {
            frame: None,
            message: None,
            head: [0; HEADER_BYTES_MAX],
            head_len: 0,
            control: [0; CONTROL_BYTES_MAX],
            control_len: 0,
            lent: None,
            context: None,
        }
    }
}

impl Partial {
    /// Nothing is incomplete.
    pub(super) fn is_idle(&self) -> bool {
        self.frame.is_none() && self.message.is_none() && self.head_len == 0
    }

    /// The header bytes collected so far, with the first of `rest` behind them: the array and how many count.
    pub(super) fn head_with(&self, rest: &[u8]) -> ([u8; HEADER_BYTES_MAX], usize) {
        let mut head = self.head;
        let stored = usize::from(self.head_len);
        let more = rest.len().min(HEADER_BYTES_MAX - stored);
        head[stored..stored + more].copy_from_slice(&rest[..more]);
        (head, stored + more)
    }

    /// Keeps an incomplete header.
    pub(super) fn keep_head(&mut self, head: &[u8]) {
        debug_assert!(self.frame.is_none() && head.len() < HEADER_BYTES_MAX);
        self.head[..head.len()].copy_from_slice(head);
        self.head_len = head.len() as u8;
    }

    /// Takes bytes of a control frame's payload. They fit: the header was refused otherwise.
    pub(super) fn push_control(&mut self, frame: &Frame, piece: &[u8]) {
        let start = if frame.begun { usize::from(self.control_len) } else { 0 };
        let place = &mut self.control[start..start + piece.len()];
        place.copy_from_slice(piece);
        if let Some(key) = frame.key {
            mask::apply(key, 0, place);
        }
        self.control_len = (start + piece.len()) as u8;
    }

    /// The control payload collected.
    pub(super) fn control(&self) -> &[u8] {
        &self.control[..usize::from(self.control_len)]
    }

    /// Drops all, there will be no more messages; the storage of the one under way goes to the pool.
    pub(super) fn clear(&mut self, pool: &mut Pool) {
        self.context = None;
        self.frame = None;
        self.head_len = 0;
        self.drop_message(pool);
    }

    /// Drops the message under way; its storage goes to the pool.
    pub(super) fn drop_message(&mut self, pool: &mut Pool) {
        if let Some(message) = self.message.take() {
            pool.give(message.buffer);
        }
    }

    /// Bytes of heap held, this record included.
    pub(super) fn memory_bytes(&self) -> usize {
        let message = self.message.as_ref().map_or(0, |message| message.buffer.capacity());
        let context = self.context.as_ref().map_or(0, |context| size_of::<History>() + context.memory_bytes());
        size_of::<Self>() + context + message + self.lent.unwrap_or(0)
    }
}
