//! The lines of a core: what each connection that speaks TLS has beside the others. What is done with them: `wire.rs`.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::engine::{BatchSend, Key, Op, Pieces, Token};
use crate::outbox::{Stretch, ToSend};
use crate::tls::{RECORD_BYTES_MAX, RECORD_OVERHEAD_MAX, Session, TlsInfo};

/// When so many bytes have been sealed for a batch, each further connection is sealed one record.
const ARENA_BYTES_USUAL: usize = 4 << 20;
/// A larger arena is given up behind its batch, a smaller one when it has not been used for a while. To allocate one anew for
/// each batch costs more than to copy what goes into it: every page of it is a fault.
const ARENA_BYTES_KEPT: usize = 8 << 20;
/// What an arena may keep for as long as the core lives.
const ARENA_BYTES_AT_REST: usize = 64 << 10;

/// A connection that speaks TLS.
pub(super) struct Line {
    /// Absent only while its records are being opened.
    pub(super) session: Option<Box<Session>>,
    pub(super) info: Option<Arc<TlsInfo>>,
    /// Input of the handshake that waits its turn.
    pub(super) pending: Vec<u8>,
    /// In [`Wires::queue`].
    pub(super) is_queued: bool,
    /// In [`Wires::urgent`].
    pub(super) is_urgent: bool,
    /// Counted among the process's handshakes.
    pub(super) has_place: bool,
    /// close_notify is to be said behind what is queued.
    pub(super) ends: bool,
}

/// A line's part of a batch.
pub(super) struct Sealed {
    pub(super) key: Key,
    pub(super) start: usize,
    pub(super) end: usize,
    /// Plain bytes of the queue that are in it.
    pub(super) plain: usize,
    /// The queue has more.
    pub(super) has_more: bool,
    /// It was reported as not sent whole.
    pub(super) is_short: bool,
}

/// The lines of a core.
#[derive(Default)]
pub(super) struct Wires {
    /// By slot. Empty where nobody speaks TLS.
    pub(super) lines: Vec<Option<Box<Line>>>,
    /// Those whose sessions have something to say by themselves. Any of them may have gone.
    pub(super) urgent: Vec<Key>,
    /// Those whose handshakes have input, in turn. Any of them may have gone.
    pub(super) queue: VecDeque<Key>,
    pub(super) arena: Vec<u8>,
    /// The most that was in it since [`Wires::trim_unused`] was called last.
    arena_used_bytes: usize,
    pub(super) sealed: Vec<Sealed>,
    /// The handshakes have let others' messages leave first.
    pub(super) has_yielded: bool,
    /// There is no place for the first of the queue before that.
    pub(super) again_ms: u64,
    pub(super) hurry_again_ms: u64,
}

impl Wires {
    #[inline]
    pub(super) fn has_line(&self, slot: u32) -> bool {
        self.line(slot).is_some()
    }

    #[inline]
    pub(super) fn line(&self, slot: u32) -> Option<&Line> {
        self.lines.get(slot as usize)?.as_deref()
    }

    #[inline]
    pub(super) fn line_mut(&mut self, slot: u32) -> Option<&mut Line> {
        self.lines.get_mut(slot as usize)?.as_deref_mut()
    }

    pub(super) fn begin(&mut self, slot: u32, session: Session) {
        let index = slot as usize;
        if self.lines.len() <= index {
            self.lines.resize_with(index + 1, || None);
        }
        debug_assert!(self.lines[index].is_none());
        self.lines[index] = Some(Box::new(Line {
            session: Some(Box::new(session)),
            info: None,
            pending: Vec::new(),
            is_queued: false,
            is_urgent: false,
            has_place: false,
            ends: false,
        }));
    }

    pub(super) fn set_info(&mut self, slot: u32, info: Option<Arc<TlsInfo>>) {
        if let Some(line) = self.line_mut(slot) {
            line.info = info;
        }
    }

    /// What the connection's handshake has agreed on.
    pub(super) fn info(&self, slot: u32) -> Option<&Arc<TlsInfo>> {
        self.line(slot)?.info.as_ref()
    }

    /// Whether the connection has still to make its handshake.
    pub(super) fn is_handshaking(&self, slot: u32) -> bool {
        self.session(slot).is_some_and(Session::is_handshaking)
    }

    pub(super) fn session(&self, slot: u32) -> Option<&Session> {
        self.line(slot)?.session.as_deref()
    }

    /// Whether nothing waits to be sent that is not in the connection's queue.
    pub(super) fn is_quiet(&self, slot: u32) -> bool {
        self.line(slot).is_none_or(Line::is_quiet)
    }

    /// Whether the end of the connection's input is not what its peer has meant by it.
    pub(super) fn is_cut_off(&self, slot: u32) -> bool {
        self.session(slot).is_some_and(|session| session.end_of_file().is_err())
    }

    /// Whether input waits for its turn.
    pub(super) fn has_pending(&self, slot: u32) -> bool {
        self.line(slot).is_some_and(|line| !line.pending.is_empty())
    }

    /// Whether the next turn must not sleep.
    pub(super) fn must_go_on(&self) -> bool {
        (!self.queue.is_empty() && self.again_ms == 0) || self.sealed.iter().any(|sealed| sealed.has_more)
    }

    /// When to ask again for a place.
    pub(super) fn next_place_ms(&self) -> Option<u64> {
        (!self.queue.is_empty() && self.again_ms > 0).then_some(self.again_ms)
    }

    /// Bytes that a connection holds here.
    pub(super) fn memory_bytes(&self, slot: u32) -> usize {
        let session = self.session(slot).map_or(0, Session::memory_bytes);
        self.line(slot).map_or(0, |line| line.pending.capacity() + session)
    }

    /// The batch is over.
    pub(super) fn clear_arena(&mut self) {
        self.arena_used_bytes = self.arena_used_bytes.max(self.arena.len());
        self.arena.clear();
        if self.arena.capacity() > ARENA_BYTES_KEPT {
            self.arena = Vec::new();
        }
    }

    /// Whether there is memory that is kept to be used again, and worth having back.
    #[inline]
    pub(super) fn has_spares(&self) -> bool {
        self.arena.capacity() > ARENA_BYTES_AT_REST
    }

    /// Frees what was not used since this was called last. Between two batches.
    pub(super) fn trim_unused(&mut self) {
        let used_bytes = std::mem::take(&mut self.arena_used_bytes);
        if self.arena.is_empty() && self.has_spares() && used_bytes < self.arena.capacity() / 4 {
            self.arena = Vec::new();
        }
    }

    /// The connections that take a place among the process's handshakes.
    pub(super) fn places(&self) -> usize {
        self.lines.iter().flatten().filter(|line| line.has_place).count()
    }

    /// Has the session's own words sent with the next batch.
    pub(super) fn mark_urgent(&mut self, key: Key) {
        if let Some(line) = self.line_mut(key.slot())
            && !line.is_urgent
            && !line.is_quiet()
        {
            line.is_urgent = true;
            self.urgent.push(key);
        }
    }

    /// The batch's sends of sealed bytes.
    #[inline]
    pub(super) fn sends(&self) -> impl Iterator<Item = BatchSend<'_>> {
        self.sealed.iter().map(|sealed| {
            let token = Token::new(Op::SendNow, sealed.key.generation(), sealed.key.slot());
            BatchSend { token, pieces: Pieces::One(&self.arena[sealed.start..sealed.end]) }
        })
    }

    /// Seals what one connection has to send, up to a bound.
    pub(super) fn seal(&mut self, to_send: &ToSend<'_>, bytes_max: usize) -> Option<usize> {
        let Wires { lines, arena, sealed, .. } = self;
        let line = lines.get_mut(to_send.slot as usize)?.as_deref_mut()?;
        let session = line.session.as_deref_mut()?;
        debug_assert!(!session.is_handshaking(), "nothing is queued before there is a key");
        let bytes_max = if arena.len() > ARENA_BYTES_USUAL { RECORD_BYTES_MAX } else { bytes_max };
        let (start, len) = (arena.len(), to_send.bytes_len());
        let plain = len.min(bytes_max);
        arena.reserve(plain + (plain / RECORD_BYTES_MAX + 2) * RECORD_OVERHEAD_MAX);
        let sealing = match to_send.bytes {
            Stretch::One(bytes) => session.seal([&bytes[..plain]], arena),
            Stretch::Many(pieces) => {
                let mut left = plain;
                let pieces = pieces.iter().map(|piece| {
                    let part = &piece[..piece.len().min(left)];
                    left -= part.len();
                    part
                });
                session.seal(pieces, arena)
            }
        };
        // A session that cannot seal any more has failed, and takes what follows without a word.
        let has_more = plain < len && sealing.is_ok();
        if line.ends && !has_more {
            session.seal_close(arena);
        }
        let plain = if has_more { plain } else { len };
        let (end, is_short) = (arena.len(), false);
        let key = Key::new(to_send.slot, to_send.generation);
        if start < end {
            sealed.push(Sealed { key, start, end, plain, has_more, is_short });
        }
        Some((end - start).saturating_sub(plain))
    }

    pub(super) fn sealed_mut(&mut self, key: Key) -> Option<&mut Sealed> {
        self.sealed.iter_mut().find(|sealed| sealed.key == key)
    }
}

impl Line {
    /// Appends what the session has to say by itself, and the end if nothing is queued before it.
    pub(super) fn speak(&mut self, is_last: bool, into: &mut Vec<u8>) {
        let Some(session) = self.session.as_deref_mut() else { return };
        match self.ends && is_last {
            true if !session.has_closed() => session.seal_close(into),
            _ => session.take_output(into),
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        let Some(session) = self.session.as_deref() else { return true };
        !session.has_output() && (!self.ends || session.has_closed())
    }
}

/// What queued bytes are in the batch that leave as they are.
#[inline]
pub(super) fn plain(to_send: ToSend<'_>) -> BatchSend<'_> {
    let token = Token::new(Op::SendNow, to_send.generation, to_send.slot);
    let pieces = match to_send.bytes {
        Stretch::One(bytes) => Pieces::One(bytes),
        Stretch::Many(pieces) => Pieces::Many(pieces),
    };
    BatchSend { token, pieces }
}

#[cfg(all(test, feature = "tls"))]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::tls::test_kit::{Pair, With};

    /// Kills: a bound of sealing that is ignored, so that nothing of a long queue can be dropped any more.
    #[test]
    fn of_a_long_queue_only_a_part_is_sealed() {
        let bytes = vec![5; 100_000];
        let pieces = [Bytes::from(vec![5; 30_000]), Bytes::from(vec![5; 70_000])];
        for (bytes_max, expected) in [(40_000, 40_000), (100_000, 100_000), (1 << 20, 100_000)] {
            for stretch in [Stretch::One(&bytes), Stretch::Many(&pieces)] {
                let mut pair = Pair::with(&With::TLS13, true);
                pair.settle(usize::MAX).unwrap();
                let session = std::mem::replace(&mut pair.session, Pair::with(&With::TLS13, true).session);
                let mut wires = Wires::default();
                wires.begin(3, session);
                let added = wires.seal(&ToSend { slot: 3, generation: 1, bytes: stretch }, bytes_max);
                let sealed = &wires.sealed[0];
                assert_eq!((sealed.plain, sealed.has_more), (expected, expected < bytes.len()));
                assert_eq!(added, Some(sealed.end - sealed.start - expected));
                pair.tell_peer(&wires.arena[sealed.start..sealed.end]).unwrap();
                assert_eq!(pair.read_by_peer(), bytes[..expected]);
            }
        }
    }
}
