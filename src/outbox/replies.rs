//! The outbox as the protocol machine sees it.

use super::{Outbox, Queued};
use crate::proto::{Opcode, Replies};

impl Outbox {
    /// Queues a ping of at most 125 bytes, within the limit of the queue.
    pub(crate) fn ping(&mut self, slot: u32, payload: &[u8]) -> Queued {
        let queued = self.admit(slot, payload.len());
        if queued == Queued::Yes {
            self.queue_control(slot, Opcode::Ping, payload);
        }
        queued
    }
}

/// Where the protocol machine's answers of one connection go.
pub struct OutboxReplies<'a> {
    /// The core's queues.
    pub outbox: &'a mut Outbox,
    /// The connection.
    pub slot: u32,
}

impl Replies for OutboxReplies<'_> {
    fn reply(&mut self, opcode: Opcode, payload: &[u8]) {
        self.outbox.queue_control(self.slot, opcode, payload);
        if opcode == Opcode::Close {
            // RFC 6455 5.5.1: no data frames follow a Close frame.
            self.outbox.shut(self.slot);
        }
    }
}
