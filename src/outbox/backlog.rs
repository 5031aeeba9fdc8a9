//! What a full socket refused, or what is queued by reference: the part of a connection's queue that is not in the arena.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::PIECES_MAX;

/// Small pieces of a backlog are sent together up to this many bytes.
pub(super) const RESEND_BYTES: usize = 64 << 10;

/// Bytes in pieces, and the waiting send that the first of them went into.
#[derive(Default)]
pub(super) struct Backlog {
    pub(super) queue: VecDeque<Bytes>,
    pub(super) queue_bytes: usize,
    /// Bytes of the waiting send; 0 = none is in flight.
    pub(super) in_flight_bytes: usize,
    /// The same bytes as the ring sends, so that their buffer comes back here.
    pub(super) in_flight: Bytes,
}

impl Backlog {
    /// Makes the queue one slice of at most [`PIECES_MAX`] pieces.
    pub(super) fn prepare(&mut self) {
        if self.queue.len() > PIECES_MAX {
            let mut all = BytesMut::with_capacity(self.queue_bytes);
            for piece in self.queue.drain(..) {
                all.extend_from_slice(&piece);
            }
            self.queue.push_back(all.freeze());
        }
        self.queue.make_contiguous();
    }

    /// Takes the next bytes for a waiting send: one large piece, or several small ones together.
    pub(super) fn next_in_flight(&mut self) -> Option<Bytes> {
        let mut next = self.queue.pop_front()?;
        if next.len() < RESEND_BYTES / 2
            && self.queue.front().is_some_and(|second| next.len() + second.len() <= RESEND_BYTES)
        {
            let mut together = BytesMut::with_capacity(RESEND_BYTES.min(next.len() + self.queue_bytes));
            together.extend_from_slice(&next);
            while self.queue.front().is_some_and(|piece| together.len() + piece.len() <= RESEND_BYTES) {
                together.extend_from_slice(&self.queue.pop_front().expect("there is a front"));
            }
            next = together.freeze();
        }
        self.queue_bytes -= next.len();
        self.in_flight_bytes = next.len();
        self.in_flight = next.clone();
        Some(next)
    }
}
