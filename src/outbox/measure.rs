//! What the queues hold and have sent, for metrics and for the memory budget.

use super::Outbox;

impl Outbox {
    /// Bytes that sockets have taken so far, over all connections.
    #[inline]
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Bytes waiting or in flight for all connections, and the most for one of them. Looks at all of them.
    pub fn held_bytes(&self) -> (usize, usize) {
        let held = |sum: (usize, usize), bytes: usize| (sum.0 + bytes, sum.1.max(bytes));
        self.slots.iter().map(|slot| slot.queued_bytes()).fold((0, 0), held)
    }

    /// Bytes that sockets have refused: those of all connections, without what the next batch will try to send.
    pub fn refused_bytes(&self) -> usize {
        if self.backlog_bytes == 0 {
            return 0;
        }
        let backlogs = self.dirty.iter().filter_map(|slot| self.slots[*slot as usize].backlog.as_ref());
        let untried: usize = backlogs.filter(|backlog| backlog.in_flight_bytes == 0).map(|it| it.queue_bytes).sum();
        self.backlog_bytes - untried
    }
}
