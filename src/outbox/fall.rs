//! How long queues wait for their sockets, and which have become shorter.

use super::{Outbox, State};

/// A queue that has become shorter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fall {
    pub(super) slot: u32,
    pub(super) generation: u32,
    pub(super) bytes_before: usize,
}

impl Outbox {
    /// The time, for [`Outbox::waiting_since_ms`].
    pub fn set_now_ms(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// Since when the socket has taken nothing of what waits for it; `None` if nothing does.
    pub fn waiting_since_ms(&self, slot: u32) -> Option<u64> {
        let backlog = self.slots[slot as usize].backlog.as_ref().filter(|backlog| backlog.in_flight_bytes > 0);
        backlog.map(|backlog| backlog.waiting_since_ms)
    }

    /// From now on it is noted when a queue of more than so many bytes has become shorter.
    pub fn note_falls_from(&mut self, bytes: usize) {
        self.drain_floor = self.drain_floor.min(bytes);
    }

    pub(crate) fn note_fall(&mut self, slot: u32, bytes_before: usize) {
        if bytes_before > self.drain_floor {
            let generation = self.slots[slot as usize].generation;
            self.drained.push(Fall { slot, generation, bytes_before });
        }
    }

    /// The falls since the last call: connection, and what was queued to it before.
    pub fn take_falls(&mut self) -> Vec<(u32, usize)> {
        let drained = std::mem::take(&mut self.drained);
        let is_there = |fall: &Fall| {
            let queue = &self.slots[fall.slot as usize];
            queue.generation == fall.generation && queue.state != State::Vacant
        };
        drained.into_iter().filter(is_there).map(|fall| (fall.slot, fall.bytes_before)).collect()
    }

    /// Whether the next turn may let a queue fall: one that is sent whole wakes nobody.
    pub fn expects_fall(&self) -> bool {
        self.drain_floor < usize::MAX
            && self.dirty.iter().any(|slot| self.slots[*slot as usize].queued_bytes() > self.drain_floor)
    }
}
