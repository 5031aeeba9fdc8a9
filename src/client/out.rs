//! Bytes on their way out: whole frames, in order.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::engine::{BATCH_PIECES_MAX, Pieces};

/// A frame up to this long is joined with its neighbours; a longer one stays where it was encoded.
pub(super) const JOIN_BYTES_MAX: usize = 16 << 10;
/// Most bytes that leave in one send; the kernel takes no more than 2 GiB.
pub(super) const SEND_BYTES_MAX: usize = 1 << 30;
/// An emptied buffer larger than this is given up: most connections are idle most of the time.
const KEPT_BYTES_MAX: usize = 4096;

/// A queue of frames: the pieces first, then the tail.
#[derive(Debug, Default)]
pub(super) struct Out {
    pieces: VecDeque<Bytes>,
    tail: Vec<u8>,
}

impl Out {
    /// Where small frames are appended.
    pub(super) fn tail(&mut self) -> &mut Vec<u8> {
        if self.tail.len() >= JOIN_BYTES_MAX {
            self.freeze_tail();
        }
        &mut self.tail
    }

    /// Appends a frame that is encoded already.
    pub(super) fn push(&mut self, frame: Vec<u8>) {
        if frame.len() <= JOIN_BYTES_MAX {
            self.tail().extend_from_slice(&frame);
        } else {
            self.freeze_tail();
            self.pieces.push_back(Bytes::from(frame));
        }
    }

    fn freeze_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(Bytes::from(std::mem::take(&mut self.tail)));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.tail.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum::<usize>() + self.tail.len()
    }

    /// Moves what one send can carry, and so many bytes at most, from `from` to the end of this empty queue; true if
    /// something is left there.
    pub(super) fn take_from(&mut self, from: &mut Out, bytes_max: usize) -> bool {
        debug_assert!(self.is_empty() && bytes_max > 0);
        if from.pieces.is_empty() && from.tail.len() <= bytes_max {
            std::mem::swap(&mut self.tail, &mut from.tail);
            return false;
        }
        from.freeze_tail();
        let mut room = bytes_max;
        while self.pieces.len() < BATCH_PIECES_MAX
            && room > 0
            && let Some(mut piece) = from.pieces.pop_front()
        {
            if piece.len() > room {
                from.pieces.push_front(piece.split_off(room));
            }
            room -= piece.len();
            self.pieces.push_back(piece);
        }
        self.pieces.make_contiguous();
        !from.is_empty()
    }

    /// All of it, as [`Out::take_from`] has left it.
    pub(super) fn as_pieces(&self) -> Pieces<'_> {
        if self.pieces.is_empty() { Pieces::One(&self.tail) } else { Pieces::Many(self.pieces.as_slices().0) }
    }

    /// The same, one by one.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| &piece[..]).chain(std::iter::once(&self.tail[..]))
    }

    /// Forgets the first `sent` bytes and returns the next piece to be sent on its own, which stays in the queue.
    pub(super) fn advance(&mut self, mut sent: usize) -> Option<Bytes> {
        self.freeze_tail();
        while let Some(piece) = self.pieces.front_mut() {
            if sent < piece.len() {
                let _ = piece.split_to(sent);
                return Some(piece.clone());
            }
            sent -= piece.len();
            self.pieces.pop_front();
        }
        debug_assert_eq!(sent, 0, "more was sent than there was");
        None
    }

    /// Forgets all of it; how many bytes it was.
    pub(super) fn clear(&mut self) -> usize {
        let bytes = self.len();
        self.pieces.clear();
        self.tail.clear();
        if self.tail.capacity() > KEPT_BYTES_MAX {
            self.tail = Vec::new();
        }
        if self.pieces.capacity() > BATCH_PIECES_MAX {
            self.pieces = VecDeque::new();
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(out: &Out) -> Vec<u8> {
        match out.as_pieces() {
            Pieces::One(bytes) => bytes.to_vec(),
            Pieces::Many(pieces) => pieces.concat(),
        }
    }

    #[test]
    fn frames_leave_in_order_whatever_their_sizes() {
        let mut queue = Out::default();
        let mut want = Vec::new();
        for (nth, len) in [10, 20_000, 5, 5, 40_000, JOIN_BYTES_MAX, 1].into_iter().enumerate() {
            let frame = vec![nth as u8; len];
            want.extend_from_slice(&frame);
            queue.push(frame);
        }
        assert_eq!(queue.len(), want.len());
        let mut out = Out::default();
        assert!(!out.take_from(&mut queue, usize::MAX));
        assert!(bytes(&out) == want && queue.is_empty());
        assert!(out.pieces().collect::<Vec<_>>().concat() == want);
    }

    /// Kills: a bound that ends at whole pieces, and bytes that are lost or come twice where one is cut.
    #[test]
    fn a_send_carries_no_more_than_it_may() {
        for bytes_max in [1_usize, 7, 100, 16_000, 16_384, 50_000] {
            let mut queue = Out::default();
            let mut want = Vec::new();
            for (nth, len) in [30, 20_000, 5, 40_000, 300].into_iter().enumerate() {
                want.extend(vec![nth as u8; len]);
                queue.push(vec![nth as u8; len]);
            }
            let (mut got, mut has_more) = (Vec::new(), true);
            while has_more {
                let mut out = Out::default();
                has_more = out.take_from(&mut queue, bytes_max);
                assert!((1..=bytes_max).contains(&out.len()), "{bytes_max}: {}", out.len());
                assert!(!has_more || out.len() == bytes_max);
                got.extend(bytes(&out));
            }
            assert!(got == want, "{bytes_max}");
        }
    }

    #[test]
    fn no_send_has_too_many_pieces() {
        let mut queue = Out::default();
        for nth in 0..100_u8 {
            queue.push(vec![nth; JOIN_BYTES_MAX + 1]);
        }
        let mut out = Out::default();
        assert!(out.take_from(&mut queue, SEND_BYTES_MAX));
        assert!(matches!(out.as_pieces(), Pieces::Many(pieces) if pieces.len() == BATCH_PIECES_MAX));
        out.clear();
        assert!(!out.take_from(&mut queue, SEND_BYTES_MAX));
        assert_eq!(out.len(), 36 * (JOIN_BYTES_MAX + 1));
    }

    #[test]
    fn the_rest_of_a_short_send_begins_where_it_ended() {
        for sent in [0, 1, 9, 10, 11, 20_009, 20_010, 20_011] {
            let mut queue = Out::default();
            queue.push(vec![1; 10]);
            queue.push(vec![2; 20_000]);
            queue.push(vec![3; 2]);
            let mut out = Out::default();
            out.take_from(&mut queue, SEND_BYTES_MAX);
            let want = bytes(&out)[sent..].to_vec();
            let mut got = Vec::new();
            let mut step = sent;
            while let Some(piece) = out.advance(step) {
                got.extend_from_slice(&piece);
                step = piece.len();
            }
            assert!(got == want, "{sent}");
        }
    }
}
