//! What the queues hold and have sent, for metrics and for the memory budget.

use super::Outbox;

impl Outbox {
    /// Bytes that sockets have taken so far, over all connections.
    #[inline]
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// The batch send of this connection has failed: nothing of it was sent. Before [`Outbox::settle`], which takes what
    /// is not reported short as sent.
    pub fn send_failed(&mut self, slot: u32) {
        self.failed_bytes += self.queued_bytes(slot) as u64;
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

    /// Forgets what is queued to a connection and not in flight; returns how many bytes that was. What is in flight ends
    /// with a whole frame, so the connection can still be told something.
    pub fn discard(&mut self, slot: u32) -> usize {
        let queue = &mut self.slots[slot as usize];
        let mut discarded = (queue.end - queue.start) as usize;
        queue.start = 0;
        queue.end = 0;
        if let Some(backlog) = &mut queue.backlog {
            discarded += backlog.queue_bytes;
            self.backlog_bytes -= backlog.queue_bytes;
            backlog.queue_bytes = 0;
            backlog.queue.clear();
        }
        if let Some(backlog) = queue.backlog.take_if(|backlog| backlog.in_flight_bytes == 0) {
            self.keep_backlog(backlog);
        }
        discarded
    }
}
