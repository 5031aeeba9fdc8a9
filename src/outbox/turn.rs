//! What queues hand to the ring, and what they are told came of it.

use bytes::Bytes;

use super::backlog::RESEND_BYTES;
use super::fall::Fall;
use super::{Outbox, State, Stretch, ToSend};
use crate::marks::{Mark, reach};

impl Outbox {
    /// The sends of this tick: one for each connection that has something to send.
    pub fn batch(&mut self) -> impl Iterator<Item = ToSend<'_>> {
        for &slot in &self.dirty {
            if let Some(backlog) = &mut self.slots[slot as usize].backlog {
                backlog.prepare();
            }
        }
        let Outbox { arena, slots, dirty, .. } = self;
        dirty.iter().filter_map(|&index| {
            let slot = &slots[index as usize];
            let bytes = match &slot.backlog {
                None if slot.start == slot.end => return None,
                None => Stretch::One(&arena[slot.start as usize..slot.end as usize]),
                Some(backlog) => backlog.stretch()?,
            };
            Some(ToSend { slot: index, generation: slot.generation, bytes })
        })
    }

    /// Of this connection's batch send only `sent` bytes went out. Returns the bytes to send by a waiting send, which
    /// the caller must start; [`Outbox::sent_async`] goes on from there. `None` if the connection has been closed since.
    pub fn sent_short(&mut self, slot: u32, sent: usize) -> Option<Bytes> {
        let queue = &self.slots[slot as usize];
        if queue.state == State::Vacant || !queue.dirty {
            return None;
        }
        reach(Mark::SentShort);
        let before = queue.queued_bytes();
        debug_assert!(!queue.is_parked() && sent < before);
        self.sent_bytes += sent as u64;
        self.spill(slot);
        self.note_fall(slot, before);
        let (bytes_max, now_ms) = (self.waiting_bytes_max(), self.now_ms);
        let backlog = self.slots[slot as usize].backlog.as_mut()?;
        backlog.sent(sent);
        self.backlog_bytes -= sent;
        backlog.waiting_since_ms = now_ms;
        backlog.next_in_flight(bytes_max)
    }

    /// The waiting send of this connection is done. Returns the bytes for the next one, if there is more. `reuse` gets the
    /// buffer that is free now.
    pub fn sent_async(&mut self, slot: u32, reuse: impl FnOnce(Vec<u8>)) -> Option<Bytes> {
        let (bytes_max, now_ms) = (self.waiting_bytes_max(), self.now_ms);
        let queue = &mut self.slots[slot as usize];
        let before = queue.queued_bytes();
        let backlog = queue.backlog.as_mut()?;
        self.backlog_bytes -= backlog.in_flight_bytes;
        self.sent_bytes += backlog.in_flight_bytes as u64;
        backlog.in_flight_bytes = 0;
        if let Some(vec) = reclaim(std::mem::take(&mut backlog.in_flight)) {
            reuse(vec);
        }
        backlog.waiting_since_ms = now_ms;
        let next = backlog.next_in_flight(bytes_max);
        if next.is_none()
            && let Some(backlog) = queue.backlog.take()
        {
            self.keep_backlog(backlog);
        }
        self.note_fall(slot, before);
        next
    }

    /// Bytes that a waiting send owns, if they are several messages: these can be dropped or replaced no more, so most of
    /// a queue is not in it.
    fn waiting_bytes_max(&self) -> usize {
        RESEND_BYTES.min(self.bytes_max / 4)
    }

    /// After the turn: whatever of the batch was not reported by [`Outbox::sent_short`] has been sent and is forgotten.
    /// `reuse` gets the large buffers that are free now.
    pub fn settle(&mut self, mut reuse: impl FnMut(Vec<u8>)) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            let slot = &mut self.slots[index as usize];
            slot.dirty = false;
            let in_arena = (slot.end - slot.start) as usize;
            self.sent_bytes += in_arena as u64;
            slot.start = 0;
            slot.end = 0;
            if in_arena > self.drain_floor {
                self.drained.push(Fall { slot: index, generation: slot.generation, bytes_before: in_arena });
            }
            if let Some(mut backlog) = slot.backlog.take_if(|backlog| backlog.in_flight_bytes == 0) {
                if backlog.queue_bytes > self.drain_floor {
                    let bytes_before = backlog.queue_bytes;
                    self.drained.push(Fall { slot: index, generation: slot.generation, bytes_before });
                }
                self.backlog_bytes -= backlog.queue_bytes;
                self.sent_bytes += backlog.queue_bytes as u64;
                backlog.clear(|bytes| {
                    if let Some(vec) = reclaim(bytes) {
                        reuse(vec);
                    }
                });
                self.keep_backlog(backlog);
            }
        }
        self.dirty = dirty;
        self.sent_bytes -= std::mem::take(&mut self.failed_bytes);
        self.joined = None;
        self.copied = None;
        self.imported.drain(..).filter_map(|(_, bytes)| reclaim(bytes)).for_each(&mut reuse);
        self.marks.clear();
        self.raw.clear();
        self.shrink();
        self.arena.clear();
        debug_assert!(self.slots.len() > 4096 || self.invariants());
    }

    /// The batch send of this connection has failed: nothing of it was sent. Before [`Outbox::settle`], which takes what
    /// is not reported short as sent.
    pub fn send_failed(&mut self, slot: u32) {
        self.failed_bytes += self.queued_bytes(slot) as u64;
    }
}

/// The buffer behind sent bytes, if nobody else refers to it.
fn reclaim(bytes: Bytes) -> Option<Vec<u8>> {
    let mut bytes = bytes.try_into_mut().ok()?;
    bytes.clear();
    Some(bytes.into())
}
