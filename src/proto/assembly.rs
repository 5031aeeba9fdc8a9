//! One message from its frames: the frame under way, and the message that it belongs to.

use super::frame::{FrameHeader, Opcode};
use super::payload::{HEADROOM, Kind, OwnedPayload};
use super::pool::{Pool, size_class};
use super::utf8::Utf8;
use super::{ProtocolError, mask};

/// Bytes free before the payload of a message from a frame of [`LARGE_BYTES`] or more. The kernel copies such a payload from its own pages and
/// later into others, and where source and destination lie at nearly the same place of their pages, processors take loads
/// for loads of what was just stored (4 KiB aliasing): 1 MiB cost 310 us to echo, and 225 us from here. Kernel pages are
/// filled from their start, so a quarter of a page is far from all that is likely.
const HEADROOM_LARGE: usize = 1024 + HEADROOM;

/// Payload bytes from which a frame's message gets [`HEADROOM_LARGE`].
const LARGE_BYTES: u64 = 64 << 10;

/// A frame whose header is complete and whose payload is not all there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) opcode: Opcode,
    pub(super) fin: bool,
    /// It begins a compressed message (RFC 7692 6).
    pub(super) rsv1: bool,
    /// The key, turned so that its first byte is for the next payload byte.
    pub(super) key: Option<[u8; 4]>,
    /// Payload bytes to come.
    pub(super) remaining: u64,
    /// Whether payload bytes have been taken already.
    pub(super) begun: bool,
}

impl Frame {
    pub(super) fn new(header: FrameHeader) -> Self {
        Self {
            opcode: header.opcode,
            fin: header.fin,
            rsv1: header.rsv1,
            key: header.mask,
            remaining: header.payload_len,
            begun: false,
        }
    }

    /// Of `available` bytes, how many belong to this frame.
    pub(super) fn share(&self, available: usize) -> usize {
        usize::try_from(self.remaining).map_or(available, |remaining| remaining.min(available))
    }

    /// `n` more payload bytes were taken.
    pub(super) fn advance(&mut self, n: usize) {
        debug_assert!(n as u64 <= self.remaining);
        self.remaining -= n as u64;
        self.begun |= n > 0;
        if let Some(key) = &mut self.key {
            key.rotate_left(n % 4);
        }
    }
}

/// A data message under way.
#[derive(Debug)]
pub(super) struct Assembly {
    pub(super) kind: Kind,
    /// What it says is to be decompressed first.
    pub(super) compressed: bool,
    /// `start` bytes, then the payload so far. Empty while lent.
    pub(super) buffer: Vec<u8>,
    /// [`HEADROOM`] or [`HEADROOM_LARGE`], as the first frame is. Never changes once there is a payload.
    start: usize,
    /// Frames begun.
    pub(super) fragments: u32,
    utf8: Utf8,
}

impl Assembly {
    pub(super) fn new(kind: Kind, compressed: bool) -> Self {
        Self { kind, compressed, buffer: Vec::new(), start: HEADROOM, fragments: 0, utf8: Utf8::new() }
    }

    /// Payload bytes so far.
    pub(super) fn len(&self) -> usize {
        self.buffer.len().saturating_sub(self.start)
    }

    /// Takes `piece`, the next bytes of `frame`, which is not advanced.
    pub(super) fn append(&mut self, frame: &Frame, piece: &[u8], pool: &mut Pool) -> Result<(), ProtocolError> {
        self.make_room(piece.len(), frame, pool);
        let is_ascii = mask::copy_into(frame.key.unwrap_or_default(), 0, piece, &mut self.buffer);
        self.validate(piece.len(), is_ascii)
    }

    /// Takes the buffer back from a loan, with the `fresh` bytes at its end still masked.
    pub(super) fn restore(&mut self, frame: &Frame, buffer: Vec<u8>, fresh: usize) -> Result<(), ProtocolError> {
        self.buffer = buffer;
        let start = self.buffer.len() - fresh;
        let is_ascii = frame.key.is_some_and(|key| mask::apply(key, 0, &mut self.buffer[start..]));
        self.validate(fresh, is_ascii)
    }

    /// The message is complete.
    pub(super) fn finish(self) -> Result<OwnedPayload, ProtocolError> {
        if self.kind == Kind::Text && !self.compressed {
            // RFC 6455 8.1: text must be UTF-8 as a whole, whatever the fragments.
            self.utf8.finish()?;
        }
        let mut buffer = self.buffer;
        if buffer.is_empty() {
            buffer.resize(self.start, 0);
        }
        Ok(OwnedPayload::assembled(buffer, self.start))
    }

    /// Makes spare capacity for `additional` bytes. What is allocated follows from the bytes received (double), never
    /// from the length that `frame` declares; a buffer of the cache may already have that.
    pub(super) fn make_room(&mut self, additional: usize, frame: &Frame, pool: &mut Pool) {
        if self.buffer.is_empty() && frame.remaining >= LARGE_BYTES {
            self.start = HEADROOM_LARGE;
        }
        let len = self.buffer.len().max(self.start);
        let needed = len + additional;
        if self.buffer.capacity() >= needed {
            return;
        }
        let remaining = usize::try_from(frame.remaining).unwrap_or(usize::MAX);
        let wanted = len.saturating_add(remaining).max(needed);
        let doubled = needed.max(2 * len);
        let target = if frame.fin { doubled.min(wanted) } else { doubled };
        if self.buffer.capacity() == 0 || self.buffer.len() <= self.start {
            let fresh = pool.take_cached(needed, wanted).unwrap_or_else(|| pool.take(target));
            pool.give(std::mem::replace(&mut self.buffer, fresh));
            self.set_headroom();
        } else if let Some(mut larger) = pool.take_cached(needed, wanted) {
            larger.extend_from_slice(&self.buffer);
            pool.give(std::mem::replace(&mut self.buffer, larger));
        } else {
            self.buffer.reserve_exact(size_class(target) - self.buffer.len());
        }
    }

    /// Leaves room for a header in a buffer that is still empty.
    pub(super) fn set_headroom(&mut self) {
        debug_assert!(self.buffer.is_empty());
        self.buffer.resize(self.start, 0);
    }

    /// The `fresh` bytes at the end are the next of the message. Where they are not known to be ASCII they may be so all the same.
    fn validate(&mut self, fresh: usize, is_ascii: bool) -> Result<(), ProtocolError> {
        match self.kind {
            Kind::Text if !self.compressed && is_ascii => self.utf8.push_ascii(fresh),
            Kind::Text if !self.compressed => {
                let start = self.buffer.len() - fresh;
                self.utf8.push(&self.buffer[start..])
            }
            // Text that is compressed is none yet.
            Kind::Text | Kind::Binary => Ok(()),
        }
    }
}
