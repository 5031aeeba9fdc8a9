//! A queue whose socket does not keep up: what is dropped of it, and what is replaced.
//!
//! Nothing that has been begun is touched: neither what a waiting send owns nor the rest of a frame of which a part was
//! sent, and no control frame. Everything else of a queue can be dropped, whether it is the arena's stretch of this very
//! tick or a backlog. So the oldest messages always make room for a new one that fits beside what has been begun, which is
//! at most a quarter of the limit, or one message.

use bytes::Bytes;

use super::backlog::{Lost, is_control, is_raw};
use super::dropped::Dropped;
use super::outgoing::Form;
use super::{ArenaFrame, Key, Outbox, Queued, State};
use crate::marks::{Mark, reach};
use crate::proto::frame::{CONTROL_BYTES_MAX, Opcode, frame_len, put_frame};

impl Outbox {
    // ---- keys -----------------------------------------------------------------------------------------------------

    /// Gives a frame of the arena its key, right after it was encoded there.
    pub(super) fn mark(&mut self, frame: ArenaFrame, key: Key) {
        while self.marks.last().is_some_and(|(start, _)| *start >= frame.start) {
            // Of a frame that nobody took.
            self.marks.pop();
        }
        self.marks.push((frame.start, key));
    }

    fn key_at(&self, start: u32) -> Option<Key> {
        let index = self.marks.binary_search_by_key(&start, |(start, _)| *start).ok()?;
        Some(self.marks[index].1)
    }

    pub(super) fn key_of(&self, frame: ArenaFrame) -> Option<Key> {
        if self.marks.is_empty() { None } else { self.key_at(frame.start) }
    }

    fn marks_within(&self, stretch: ArenaFrame) -> &[(u32, Key)] {
        let place = |at: u32| self.marks.partition_point(|(start, _)| *start < at);
        if self.marks.is_empty() { &[] } else { &self.marks[place(stretch.start)..place(stretch.end)] }
    }

    /// A stretch of the arena was copied to `start`, behind everything else.
    pub(super) fn copy_marks(&mut self, of: ArenaFrame, start: u32) {
        let marks: Vec<(u32, Key)> =
            self.marks_within(of).iter().map(|(at, key)| (at - of.start + start, *key)).collect();
        self.marks.extend(marks);
    }

    /// Queues a message of which only the latest matters: where one with the same key waits, it takes that one's place,
    /// which is counted in the result. As long as nothing waits, nothing is replaced.
    pub(super) fn queue_latest(&mut self, slot: u32, frame: Form<'_>, key: Key) -> (Queued, Dropped) {
        let mut dropped = Dropped::default();
        let Some(queue) = self.slots.get(slot as usize) else { return (Queued::Gone, dropped) };
        if let (None, Form::Arena(frame)) = (&queue.backlog, frame) {
            return (self.queue(slot, frame), dropped);
        }
        let old_bytes = queue.backlog.as_ref().and_then(|backlog| backlog.replaceable_bytes(key)).unwrap_or(0);
        let is_room =
            queue.queued_bytes() == 0 || queue.queued_bytes() - old_bytes + frame.wire_len() <= self.bytes_max;
        if !self.is_open(slot) {
            return (Queued::Gone, dropped);
        }
        if !is_room {
            return (Queued::Full, dropped);
        }
        self.spill(slot);
        let bytes = self.bytes_of(frame);
        self.replace(slot, bytes, key, &mut dropped);
        (Queued::Yes, dropped)
    }

    fn bytes_of(&mut self, frame: Form<'_>) -> Bytes {
        match frame {
            Form::Arena(frame) => self.copy_out(frame),
            Form::Shared(frame) => frame.bytes().clone(),
        }
    }

    fn replace(&mut self, slot: u32, bytes: Bytes, key: Key, dropped: &mut Dropped) {
        let Some(backlog) = &mut self.slots[slot as usize].backlog else {
            return self.push_back(slot, bytes, Some(key));
        };
        self.backlog_bytes += bytes.len();
        if let Some(old) = backlog.replace(bytes, key) {
            reach(Mark::Replaced);
            self.backlog_bytes -= old.len();
            dropped.add_replaced(old.len());
        }
        if backlog.in_flight_bytes == 0 {
            self.mark_dirty(slot);
        }
    }

    /// RFC 6455 5.5.3: of pings that pile up only the most recent one need be answered. So there is at most one pong in
    /// the queue of a peer that does not read, however many pings it sends.
    pub(super) fn queue_late_pong(&mut self, slot: u32, payload: &[u8]) {
        if matches!(self.slots[slot as usize].state, State::Open | State::Sealed) {
            let mut frame = Vec::with_capacity(2 + CONTROL_BYTES_MAX);
            put_frame(&mut frame, Opcode::Pong, payload);
            self.replace(slot, frame.into(), Key::PONG, &mut Dropped::default());
        }
    }

    // ---- making room ----------------------------------------------------------------------------------------------

    /// Makes room for a message of `len` bytes by forgetting a connection's oldest messages, and says which; none where
    /// it could not fit even so.
    pub fn drop_oldest(&mut self, slot: u32, len: usize) -> Dropped {
        let queue = &self.slots[slot as usize];
        let fixed_bytes = queue.backlog.as_ref().map_or(0, |backlog| backlog.fixed_bytes());
        let wanted = (queue.queued_bytes() + len).saturating_sub(self.bytes_max);
        if wanted == 0 || fixed_bytes + len > self.bytes_max {
            return Dropped::default();
        }
        let mut dropped = self.drop_of_stretch(slot, wanted);
        if (dropped.bytes as usize) < wanted {
            self.spill(slot);
            let is_bound = self.has_context(slot);
            if let Some(backlog) = &mut self.slots[slot as usize].backlog {
                let (more, lost) = backlog.drop_oldest(wanted - dropped.bytes as usize, is_bound);
                self.backlog_bytes -= more.bytes as usize;
                dropped.add(more);
                if lost == Lost::Context {
                    self.fall_behind(slot);
                }
            }
        }
        dropped
    }

    /// Takes messages off the front of a stretch, up to something that must stay.
    fn drop_of_stretch(&mut self, slot: u32, bytes_min: usize) -> Dropped {
        let mut dropped = Dropped::default();
        loop {
            let queue = &self.slots[slot as usize];
            if queue.start == queue.end || (dropped.bytes as usize) >= bytes_min {
                break;
            }
            let frame = &self.arena[queue.start as usize..queue.end as usize];
            if is_raw(frame) || is_control(frame) || self.is_bound(slot, frame) {
                break;
            }
            let len = frame_len(frame);
            self.slots[slot as usize].start += len as u32;
            dropped.oldest += 1;
            dropped.bytes += len as u64;
        }
        dropped
    }

    /// Forgets of what this tick has queued to a connection the messages that have a newer version in it.
    pub fn conflate(&mut self, slot: u32) -> Dropped {
        let queue = &self.slots[slot as usize];
        let stretch = ArenaFrame { start: queue.start, end: queue.end };
        if self.marks_within(stretch).is_empty() { Dropped::default() } else { self.spill_as(slot, true) }
    }

    /// Moves a connection's stretch of the arena, if it has one, into its backlog.
    pub(super) fn spill(&mut self, slot: u32) {
        let queue = &self.slots[slot as usize];
        if queue.start < queue.end {
            self.spill_as(slot, false);
        }
    }

    /// What is no frame, and messages with keys, become pieces of their own; of messages with the same key the last one
    /// alone, in the first one's place, if they are to be conflated. A stretch of which a part was sent must not be.
    fn spill_as(&mut self, slot: u32, conflates: bool) -> Dropped {
        let mut dropped = Dropped::default();
        let Some((stretch, raw_len)) = self.take_stretch(slot) else { return dropped };
        let has_marks = !self.marks_within(stretch).is_empty();
        let mut bytes = self.copy_out(stretch);
        if raw_len > 0 {
            let raw = bytes.split_to(raw_len);
            self.push_back(slot, raw, None);
        }
        let mut at = stretch.start + raw_len as u32;
        while !bytes.is_empty() {
            let frame = if has_marks { bytes.split_to(frame_len(&bytes)) } else { std::mem::take(&mut bytes) };
            let key = self.key_at(at);
            at += frame.len() as u32;
            match key {
                Some(key) if conflates => self.replace(slot, frame, key, &mut dropped),
                key => self.push_back(slot, frame, key),
            }
        }
        dropped
    }

    /// Takes a connection's stretch of the arena, to be put into its backlog, and how many of its bytes are no frames.
    fn take_stretch(&mut self, slot: u32) -> Option<(ArenaFrame, usize)> {
        let queue = &mut self.slots[slot as usize];
        if queue.start == queue.end {
            return None;
        }
        let stretch = ArenaFrame { start: queue.start, end: queue.end };
        queue.start = 0;
        queue.end = 0;
        if !is_raw(&self.arena[stretch.start as usize..]) {
            return Some((stretch, 0));
        }
        let raw = self.raw.iter().rev().find(|(of, _)| *of == slot);
        Some((stretch, raw.map_or(stretch.wire_len(), |(_, len)| *len as usize)))
    }

    /// Forgets what is queued to a connection and has not been begun; returns how many bytes that was. What has been
    /// begun ends with a whole frame, so the connection can still be told something.
    pub fn discard(&mut self, slot: u32) -> usize {
        self.fall_behind(slot);
        let queue = &mut self.slots[slot as usize];
        let mut discarded = (queue.end - queue.start) as usize;
        queue.start = 0;
        queue.end = 0;
        if let Some(backlog) = &mut queue.backlog {
            let bytes = backlog.discard();
            discarded += bytes;
            self.backlog_bytes -= bytes;
        }
        if let Some(backlog) = queue.backlog.take_if(|backlog| backlog.in_flight_bytes == 0) {
            self.keep_backlog(backlog);
        }
        discarded
    }
}
