//! What a full socket refused, or what is queued by reference: the part of a connection's queue that is not in the arena.
//!
//! A piece of it is one message's frame, or several frames that were queued together, or bytes that are no frames: the
//! responses of HTTP, which come before all frames. Only the first piece may be less than that: the rest of a frame of
//! which the beginning is in flight or has been sent (`begun`). It is never dropped nor replaced, and neither is what is
//! in flight.
//!
//! Frames are masked or not, as their sender's role has it (RFC 6455 5.1): nothing here asks for the role.
//!
//! Invariant: a message that has a key is a piece of its own; `keyed.keys` says so, in step with `queue`.

use std::collections::{HashMap, VecDeque};

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::dropped::Dropped;
use super::key::Key;
use super::stretch::{PIECES_MAX, Stretch};
use crate::proto::frame::frame_len;

/// Small messages of a backlog are sent together up to this many bytes.
pub(super) const RESEND_BYTES: usize = 64 << 10;
/// Most bytes of one waiting send: of a larger message so much at a time, so that its completions tell that the peer reads.
pub(super) const PART_BYTES_MAX: usize = 256 << 10;

/// Bytes in pieces, and the waiting send that the first of them went into.
#[derive(Default)]
pub(super) struct Backlog {
    queue: VecDeque<Bytes>,
    pub(super) queue_bytes: usize,
    /// The first piece is the rest of a frame that has been begun.
    begun: bool,
    /// The queue in one piece, for a turn in which it has too many.
    merged: Bytes,
    keyed: Option<Box<Keyed>>,
    /// Bytes of the waiting send; 0 = none is in flight.
    pub(super) in_flight_bytes: usize,
    /// The same bytes as the ring sends, so that their buffer comes back here.
    pub(super) in_flight: Bytes,
    /// When the waiting send was begun.
    pub(super) waiting_since_ms: u64,
}

/// What dropping has done to the frames that need those before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// None is gone.
    Nothing,
    /// All that had not been begun are.
    Context,
}

/// The keys of a backlog that has some.
#[derive(Default)]
struct Keyed {
    /// Of each piece.
    keys: VecDeque<Option<Key>>,
    /// The place of the first piece in the order of all that were ever pushed behind.
    first: u64,
    /// The place of the last piece with each key. Pieces that have gone may still be in it: `keys` has the last word.
    places: HashMap<Key, u64>,
}

impl Keyed {
    /// Where in the queue the last piece with this key is.
    fn find(&self, key: Key) -> Option<usize> {
        let index = self.places.get(&key)?.checked_sub(self.first)? as usize;
        (self.keys.get(index) == Some(&Some(key))).then_some(index)
    }

    fn push_back(&mut self, key: Option<Key>) {
        if let Some(key) = key {
            // Forgotten from time to time, so that there are never many more places than pieces.
            if self.places.len() > 2 * self.keys.len() + 64 {
                let first = self.first;
                self.places.retain(|_, place| *place >= first);
            }
            self.places.insert(key, self.first + self.keys.len() as u64);
        }
        self.keys.push_back(key);
    }
}

/// Whether bytes at the start of a piece are no frame. Whoever queues sends every message as one frame, so each frame has
/// the bit FIN (RFC 6455 5.2), which no character of HTTP has.
pub(super) fn is_raw(bytes: &[u8]) -> bool {
    bytes[0] & 0x80 == 0
}

/// RFC 7692 6: the frame of a compressed message has the bit RSV1.
pub(super) fn is_compressed(frame: &[u8]) -> bool {
    frame[0] & 0x40 != 0
}

/// RFC 6455 5.5: control frames have the most significant bit of their opcode set.
pub(super) fn is_control(frame: &[u8]) -> bool {
    frame[0] & 0x08 != 0
}

/// Where in a piece the frame ends that byte number `at` belongs to.
fn end_of_frame(piece: &[u8], at: usize) -> usize {
    if is_raw(piece) {
        return piece.len();
    }
    let mut end = frame_len(piece);
    while end <= at {
        end += frame_len(&piece[end..]);
    }
    end
}

impl Backlog {
    /// Bytes that stay whatever is dropped: those in flight, and the rest of a frame that has been begun.
    pub(super) fn fixed_bytes(&self) -> usize {
        let begun = self.queue.front().filter(|_| self.begun).map_or(0, Bytes::len);
        self.in_flight_bytes + begun
    }

    pub(super) fn push_back(&mut self, bytes: Bytes, key: Option<Key>) {
        if key.is_some() && self.keyed.is_none() {
            // Far from 0, since pieces are also pushed before the first.
            let keys = self.queue.iter().map(|_| None).collect();
            self.keyed = Some(Box::new(Keyed { keys, first: 1 << 40, places: HashMap::new() }));
        }
        if let Some(keyed) = &mut self.keyed {
            keyed.push_back(key);
        }
        self.queue_bytes += bytes.len();
        self.queue.push_back(bytes);
    }

    fn push_front(&mut self, bytes: Bytes) {
        if let Some(keyed) = &mut self.keyed {
            keyed.keys.push_front(None);
            keyed.first -= 1;
        }
        self.queue_bytes += bytes.len();
        self.queue.push_front(bytes);
    }

    fn pop_front(&mut self) -> Option<Bytes> {
        let bytes = self.queue.pop_front()?;
        if let Some(keyed) = &mut self.keyed {
            keyed.keys.pop_front();
            keyed.first += 1;
        }
        self.queue_bytes -= bytes.len();
        Some(bytes)
    }

    /// Bytes of the last message with this key that can still be replaced.
    pub(super) fn replaceable_bytes(&self, key: Key) -> Option<usize> {
        let index = self.keyed.as_ref()?.find(key)?;
        Some(self.queue[index].len())
    }

    /// Puts a message in the place of the one with the same key, and returns that; without one it comes last.
    pub(super) fn replace(&mut self, bytes: Bytes, key: Key) -> Option<Bytes> {
        match self.keyed.as_ref().and_then(|keyed| keyed.find(key)) {
            Some(index) => {
                self.queue_bytes += bytes.len();
                let old = std::mem::replace(&mut self.queue[index], bytes);
                self.queue_bytes -= old.len();
                Some(old)
            }
            None => {
                self.push_back(bytes, Some(key));
                None
            }
        }
    }

    /// Forgets the oldest messages, `bytes_min` bytes at least if there are so many. Control frames, bytes that are no
    /// frames and what has been begun keep their places. Where compressed frames need those before them (`is_bound`), all go
    /// with the first.
    pub(super) fn drop_oldest(&mut self, bytes_min: usize, is_bound: bool) -> (Dropped, Lost) {
        let mut dropped = Dropped::default();
        let mut lost = Lost::Nothing;
        let mut kept: SmallVec<[Bytes; 4]> = SmallVec::new();
        if self.begun {
            kept.extend(self.pop_front());
        }
        while (dropped.bytes as usize) < bytes_min {
            let Some(mut piece) = self.pop_front() else { break };
            let rest = piece.split_off(end_of_frame(&piece, 0));
            if !rest.is_empty() {
                self.push_front(rest);
            }
            if is_raw(&piece) || is_control(&piece) {
                kept.push(piece);
            } else if is_bound && is_compressed(&piece) {
                lost = Lost::Context;
                self.push_front(piece);
                dropped.add(self.drop_compressed());
            } else {
                dropped.oldest += 1;
                dropped.bytes += piece.len() as u64;
            }
        }
        kept.into_iter().rev().for_each(|piece| self.push_front(piece));
        (dropped, lost)
    }

    /// Forgets all compressed frames of a queue that begins with a whole frame; the others keep their places and keys.
    fn drop_compressed(&mut self) -> Dropped {
        let mut dropped = Dropped::default();
        let pieces = std::mem::take(&mut self.queue);
        let keys = self.keyed.take().map(|keyed| keyed.keys).unwrap_or_default();
        let mut keys = keys.into_iter().chain(std::iter::repeat(None));
        self.queue_bytes = 0;
        for mut piece in pieces {
            let key = keys.next().flatten();
            let mut len_kept = 0;
            while len_kept < piece.len() {
                let frame = &piece[len_kept..];
                let len = end_of_frame(frame, 0);
                if is_raw(frame) || !is_compressed(frame) {
                    len_kept += len;
                    continue;
                }
                dropped.oldest += 1;
                dropped.bytes += len as u64;
                let rest = piece.split_off(len_kept + len);
                piece.truncate(len_kept);
                if !piece.is_empty() {
                    self.push_back(piece, key);
                }
                (piece, len_kept) = (rest, 0);
            }
            if !piece.is_empty() {
                self.push_back(piece, key);
            }
        }
        dropped
    }

    /// Forgets everything that has not been begun; returns how many bytes that was.
    pub(super) fn discard(&mut self) -> usize {
        let before = self.queue_bytes;
        let begun = if self.begun { self.pop_front() } else { None };
        self.queue.clear();
        self.queue_bytes = 0;
        self.keyed = None;
        begun.into_iter().for_each(|rest| self.push_front(rest));
        before - self.queue_bytes
    }

    /// Makes the queue one slice of at most [`PIECES_MAX`] pieces, or one piece.
    pub(super) fn prepare(&mut self) {
        self.queue.make_contiguous();
        if self.queue.len() > PIECES_MAX && self.merged.is_empty() {
            let mut all = BytesMut::with_capacity(self.queue_bytes);
            self.queue.iter().for_each(|piece| all.extend_from_slice(piece));
            self.merged = all.freeze();
        }
    }

    /// What a prepared queue has for the batch.
    pub(super) fn stretch(&self) -> Option<Stretch<'_>> {
        if !self.merged.is_empty() {
            return Some(Stretch::One(&self.merged));
        }
        match self.queue.as_slices().0 {
            [] => None,
            [one] => Some(Stretch::One(one)),
            many => Some(Stretch::Many(many)),
        }
    }

    /// Of the batch's send only `sent` bytes went out.
    pub(super) fn sent(&mut self, sent: usize) {
        self.merged = Bytes::new();
        let mut rest = sent;
        while rest > 0
            && let Some(mut piece) = self.pop_front()
        {
            if rest < piece.len() {
                // From the start of the frame that was sent last, be it in part.
                let end = end_of_frame(&piece, rest - 1);
                let after = piece.split_off(end);
                if !after.is_empty() {
                    self.push_front(after);
                }
                if rest < end {
                    self.push_front(piece.split_off(rest));
                    self.begun = true;
                }
                break;
            }
            rest -= piece.len();
        }
    }

    /// Takes the next bytes for a waiting send: a whole message however long, but of a very long one a part, or as many
    /// short ones together as `bytes_max` allows.
    pub(super) fn next_in_flight(&mut self, bytes_max: usize) -> Option<Bytes> {
        let was_begun = std::mem::take(&mut self.begun);
        let mut next = self.pop_front()?;
        if next.len() > bytes_max && !was_begun {
            // As many of the piece's frames as fit, and one at least.
            let mut end = end_of_frame(&next, 0);
            while end < next.len() && !is_raw(&next) {
                let more = end + frame_len(&next[end..]);
                if more > bytes_max {
                    break;
                }
                end = more;
            }
            let rest = next.split_off(end);
            if !rest.is_empty() {
                self.push_front(rest);
            }
        }
        if next.len() > PART_BYTES_MAX {
            let rest = next.split_off(PART_BYTES_MAX);
            self.push_front(rest);
            self.begun = true;
        } else if next.len() < bytes_max / 2 && self.fits_behind(next.len(), bytes_max) {
            let mut together = BytesMut::with_capacity(bytes_max.min(next.len() + self.queue_bytes));
            together.extend_from_slice(&next);
            while self.fits_behind(together.len(), bytes_max) {
                together.extend_from_slice(&self.pop_front().expect("there is a front"));
            }
            next = together.freeze();
        }
        self.in_flight_bytes = next.len();
        self.in_flight = next.clone();
        Some(next)
    }

    fn fits_behind(&self, len: usize, bytes_max: usize) -> bool {
        self.queue.front().is_some_and(|piece| len + piece.len() <= bytes_max)
    }

    /// Gives up everything; `each` gets the pieces.
    pub(super) fn clear(&mut self, mut each: impl FnMut(Bytes)) {
        self.queue.drain(..).for_each(&mut each);
        self.queue_bytes = 0;
        self.in_flight_bytes = 0;
        self.in_flight = Bytes::new();
        self.merged = Bytes::new();
        self.begun = false;
        self.keyed = None;
    }

    /// Pieces for which there is room without asking for memory.
    pub(super) fn capacity(&self) -> usize {
        self.queue.capacity()
    }

    /// Keys that are remembered.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.keyed.as_ref().map_or(0, |keyed| keyed.places.len())
    }

    /// Checks what the module promises; for `debug_assert`.
    pub(super) fn invariants(&self) {
        assert_eq!(self.queue.iter().map(Bytes::len).sum::<usize>(), self.queue_bytes);
        assert!(!self.begun || (self.in_flight_bytes > 0 && !self.queue.is_empty()), "begun and in flight");
        if let Some(keyed) = &self.keyed {
            assert_eq!(keyed.keys.len(), self.queue.len());
            for (piece, _) in self.queue.iter().zip(&keyed.keys).filter(|(_, key)| key.is_some()) {
                assert_eq!(frame_len(piece), piece.len(), "a keyed message is a piece");
            }
        }
        for piece in self.queue.iter().skip(usize::from(self.begun)).filter(|piece| !is_raw(piece)) {
            let mut at = 0;
            while at < piece.len() {
                at += frame_len(&piece[at..]);
            }
            assert_eq!(at, piece.len(), "whole frames");
        }
    }
}
