//! Large messages: once a frame's header says that much is to come, the rest is received straight into the message's own
//! buffer, which saves a copy. The buffer grows with what has been received, never with what was declared.

use super::Shard;
use super::conn::{Phase, Receiving};
use super::input::{Next, Worker};
use crate::engine::{Completion, Op, Ring};
use crate::outbox::OutboxReplies;
use crate::proto::{Event, Payload};
use crate::service::Service;

impl<R: Ring, S: Service> Shard<R, S> {
    /// Ends the multishot receive of a connection in the middle of a large message.
    #[cold]
    pub(super) fn stop_for_direct(&mut self, slot: u32) {
        let token = self.token(Op::Recv, slot);
        let conn = &mut self.conns[slot as usize];
        if conn.receiving == Receiving::Multi {
            conn.receiving = Receiving::Stopping;
            self.ring.cancel_recv(token);
        }
    }

    /// Receives the rest of a large message into its own buffer; false where there is no such message.
    pub(super) fn start_direct(&mut self, slot: u32) -> bool {
        let token = self.token(Op::RecvInto, slot);
        let conn = &mut self.conns[slot as usize];
        // Once begun it goes on for less than what it takes to begin it.
        let bytes_min = self.settings.direct_bytes_min / 8;
        if conn.phase != Phase::Open || conn.machine.payload_to_come() < bytes_min as u64 {
            return false;
        }
        let Some(lent) = conn.machine.lend(bytes_min, &mut self.hub.pool) else { return false };
        conn.receiving = Receiving::Direct;
        conn.in_flight += 1;
        self.ring.recv_into(token, lent.buffer, lent.len_max);
        // A loan may have made room.
        self.account(slot);
        true
    }

    /// A part of a large message has been received.
    pub(super) fn received_direct(&mut self, completion: &Completion) {
        let slot = completion.token.index();
        let buffer = self.ring.take_received(completion.token);
        if !self.is_current(completion.token) {
            return;
        }
        let conn = &mut self.conns[slot as usize];
        if conn.phase == Phase::Dead {
            self.hub.pool.give(buffer);
            return self.receive_ended(slot, completion);
        }
        let fresh = completion.result.unwrap_or(0);
        if fresh > 0 {
            conn.last_inbound_ms = self.now_ns / 1_000_000;
            self.hub.counters.bytes_in += u64::from(fresh);
        }
        let was = conn.phase;
        let next = self.worker(slot).0.given_back(buffer, fresh as usize);
        if next != Next::Go {
            self.after_input(slot, was, next);
        }
        self.account(slot);
        if fresh == 0 {
            return self.receive_ended(slot, completion);
        }
        let conn = &mut self.conns[slot as usize];
        conn.in_flight -= 1;
        conn.receiving = Receiving::Idle;
        if conn.phase == Phase::Dead { self.free_if_done(slot) } else { self.start_receiving(slot) }
    }
}

impl<S: Service> Worker<'_, S> {
    /// Gives the machine its buffer back, with `fresh` more bytes in it.
    fn given_back(&mut self, buffer: Vec<u8>, fresh: usize) -> Next {
        let limits = self.cx.limits();
        let mut replies = OutboxReplies { outbox: &mut self.cx.hub.outbox, slot: self.cx.slot };
        let machine = &mut self.conn.machine;
        let message = match machine.give_back(buffer, fresh, &limits, &mut self.cx.hub.pool, &mut replies) {
            Some(Event::Message(message)) => message,
            Some(Event::Failed(error)) => {
                self.failed(error);
                return Next::Failed;
            }
            _ => return Next::Go,
        };
        match (self.cx.must_pause(), message.payload) {
            (Some(why), Payload::Owned(payload)) => {
                let held = (message.kind, payload);
                self.conn.stash.get_or_insert_default().message = Some(held);
                why
            }
            (_, payload) => {
                self.cx.deliver(&mut self.conn.rate_due_ns, crate::proto::Incoming { kind: message.kind, payload });
                Next::Go
            }
        }
    }
}
