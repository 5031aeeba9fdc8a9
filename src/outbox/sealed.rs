//! Queues whose bytes are sealed on their way to the socket: what has been sealed is not plain any more, and can be neither
//! dropped nor replaced nor sealed again.

use bytes::Bytes;

use super::Outbox;
use crate::marks::{Mark, reach};

impl Outbox {
    /// Most bytes of one connection that are sealed for the batch: so much of a queue, or of one message, is beyond dropping
    /// then.
    pub fn sealed_bytes_max(&self) -> usize {
        self.bytes_max / 4
    }

    /// Whether nothing of this connection waits behind what is in flight.
    pub fn is_last_in_flight(&self, slot: u32) -> bool {
        let queue = &self.slots[slot as usize];
        queue.start == queue.end && queue.backlog.as_ref().is_none_or(|backlog| backlog.queue_bytes == 0)
    }

    /// Sealing has added so many bytes to what is sent.
    pub fn add_sealing(&mut self, bytes: usize) {
        self.sent_bytes += bytes as u64;
    }

    /// The first `plain` bytes of what this connection had in the batch were sealed, and of that `rest` was not sent: the
    /// caller must start a waiting send of it; [`Outbox::sent_async`] goes on from there. `false` if the connection has been
    /// closed since.
    pub fn sent_sealed(&mut self, slot: u32, plain: usize, rest: Bytes) -> bool {
        let queue = &self.slots[slot as usize];
        if queue.state == super::State::Vacant {
            return false;
        }
        reach(Mark::SentShort);
        let before = queue.queued_bytes();
        debug_assert!(!queue.is_parked() && plain <= before && !rest.is_empty());
        // What is in flight counts when it is done.
        self.sent_bytes = (self.sent_bytes + plain as u64).saturating_sub(rest.len() as u64);
        self.spill(slot);
        self.note_fall(slot, before);
        self.backlog_bytes = self.backlog_bytes - plain + rest.len();
        let now_ms = self.now_ms;
        let queue = &mut self.slots[slot as usize];
        let backlog = queue.backlog.get_or_insert_with(|| self.backlogs_free.pop().unwrap_or_default());
        backlog.sent(plain);
        backlog.waiting_since_ms = now_ms;
        backlog.in_flight_bytes = rest.len();
        backlog.in_flight = rest;
        true
    }

    /// What is about to be in flight for this connection was sealed, as this.
    pub fn seal_in_flight(&mut self, slot: u32, sealed: Bytes) {
        let Some(backlog) = self.slots[slot as usize].backlog.as_mut() else { return };
        debug_assert!(backlog.in_flight_bytes > 0);
        self.backlog_bytes = self.backlog_bytes - backlog.in_flight_bytes + sealed.len();
        backlog.in_flight_bytes = sealed.len();
        backlog.in_flight = sealed;
    }
}
