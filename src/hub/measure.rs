//! What a core tells of itself.

use super::{CoreHub, Letter};
use crate::metrics::{Compressed, CoreMetrics, Counters};

impl CoreHub {
    /// The core's metrics, as of now. Looks at all queues of the core.
    pub fn metrics(&self) -> CoreMetrics {
        let (outbox_bytes, outbox_largest_bytes) = self.outbox.held_bytes();
        let (history_rooms, history_messages) = self.history_counts();
        CoreMetrics {
            core: self.core,
            counters: Counters { inflated: self.inflated(), ..self.counters },
            cpu_ns: (self.cpu_ns)(),
            out_of_step: self.streams.waiting(),
            rooms: self.rooms.len() as u64,
            history_rooms: history_rooms as u64,
            history_messages: history_messages as u64,
            history_bytes: self.history_bytes() as u64,
            outbox_bytes: outbox_bytes as u64,
            outbox_largest_bytes: outbox_largest_bytes as u64,
            partial_bytes: self.partial_bytes as u64,
            inbox_bytes: self.inbox_bytes as u64,
            mail_depth: self.post.own_depth() as u64,
            mail_parked: self.post.waiting() as u64,
            mail_refused: self.post.own_refused(),
        }
    }

    /// Has the processor time of the core be told by a clock of the thread that it runs on.
    pub(crate) fn set_cpu_clock(&mut self, cpu_ns: fn() -> u64) {
        self.cpu_ns = cpu_ns;
    }

    fn inflated(&self) -> Compressed {
        let inflated = self.spares.inflated();
        Compressed {
            messages: inflated.messages,
            wire_bytes: inflated.bytes_before,
            payload_bytes: inflated.bytes_after,
            took_ns: inflated.took_ns,
        }
    }

    /// Has another core look at what its connections hold, in its next tick.
    pub(crate) fn ask_to_shed(&mut self, core: usize) {
        self.post.send_urgent(core, Letter::run(|hub: &mut CoreHub| hub.shed_wanted = true));
    }
}
