//! Large messages: once a frame's header says that much is to come, the rest is received straight into the message's own
//! buffer, which saves a copy. The buffer grows with what has been received, never with what was declared.
//!
//! What is received together must stay in the cache until it has been unmasked and sent on, so connections that have much
//! at hand take turns: in each tick one of them receives what is there, in one piece, behind the sends of the tick before.
//! One that has nothing at hand waits outside of that queue, so that nobody waits for its peer.

use std::collections::VecDeque;

use super::conn::{Phase, Receiving};
use super::gate::Worker;
use super::input::Next;
use super::{Shard, conn::Conn};
use crate::engine::{Completion, Key, Op, Ring};
use crate::marks::{Mark, reach};
use crate::outbox::OutboxReplies;
use crate::proto::{Event, Lent, Spares};
use crate::shard::service::Service;

/// Most bytes received at once of what is at hand.
const BULK_BYTES_MAX: usize = 1 << 20;
/// Most bytes of a receive that waits: several may complete in one tick.
const DIRECT_BYTES_MAX: usize = 128 << 10;

/// Connections with more of a large message at hand.
#[derive(Default)]
pub(super) struct Bulk {
    queue: VecDeque<Key>,
    /// Most bytes that the receive in flight may bring.
    asked: usize,
}

impl<R: Ring, S: Service> Shard<R, S> {
    /// Ends the multishot receive of a connection, if it has one.
    #[cold]
    pub(super) fn stop_receiving(&mut self, slot: u32) {
        let token = self.conns.token(Op::Recv, slot);
        let conn = &mut self.conns[slot];
        if conn.receiving == Receiving::Multi {
            conn.receiving = Receiving::Stopping;
            self.ring.cancel_recv(token);
        }
    }

    /// Queues a connection to receive the rest of a large message into its own buffer; false where there is no such
    /// message.
    pub(super) fn start_direct(&mut self, slot: u32) -> bool {
        let conn = &mut self.conns[slot];
        // What arrives sealed is no part of a message.
        if self.wires.has_line(slot) || !wants_direct(conn, self.settings.direct_bytes_min) {
            return false;
        }
        conn.had_bulk = true;
        conn.receiving = Receiving::Queued;
        self.intake.bulk.queue.push_back(self.conns.key(slot));
        true
    }

    /// Lets the connection whose turn it is receive what is there.
    #[inline]
    pub(super) fn receive_bulk(&mut self) {
        while let Some(key) = self.intake.bulk.queue.pop_front() {
            let Some(conn) = self.conns.get_mut(key) else { continue };
            let slot = key.slot();
            debug_assert!(conn.receiving == Receiving::Queued || conn.phase == Phase::Dead);
            if conn.receiving != Receiving::Queued {
                continue;
            }
            conn.receiving = Receiving::Idle;
            if conn.waits_for.is_some() {
                // It starts anew when it goes on.
                continue;
            }
            let Some(lent) = lend(conn, self.settings.direct_bytes_min, &mut self.hub.spares) else {
                self.start_receiving(slot);
                continue;
            };
            conn.receiving = Receiving::Bulk;
            let room = lent.buffer.capacity() - lent.buffer.len();
            self.intake.bulk.asked = lent.len_max.min(room).min(BULK_BYTES_MAX);
            let token = self.conns.launch(Op::RecvInto, slot);
            self.ring.recv_into_now(token, lent.buffer, self.intake.bulk.asked);
            // A loan may have made room.
            return self.account(slot);
        }
    }

    /// Waits for more of a large message.
    fn await_direct(&mut self, slot: u32) {
        let conn = &mut self.conns[slot];
        debug_assert_eq!(conn.receiving, Receiving::Idle);
        if conn.waits_for.is_some() {
            return;
        }
        let Some(lent) = lend(conn, self.settings.direct_bytes_min, &mut self.hub.spares) else {
            return self.start_receiving(slot);
        };
        conn.receiving = Receiving::Direct;
        let token = self.conns.launch(Op::RecvInto, slot);
        self.ring.recv_into(token, lent.buffer, lent.len_max.min(DIRECT_BYTES_MAX));
        // A loan may have made room.
        self.account(slot);
    }

    /// A part of a large message has been received.
    pub(super) fn received_direct(&mut self, completion: &Completion) {
        let slot = completion.token.index();
        let buffer = self.ring.take_received(completion.token);
        if self.conns.owner(completion.token).is_none() {
            return;
        }
        let conn = &mut self.conns[slot];
        if conn.phase == Phase::Dead {
            self.hub.spares.give(buffer);
            return self.receive_ended(slot, completion.recv_end());
        }
        let fresh = completion.result.unwrap_or(0);
        if fresh > 0 {
            conn.last_inbound_ms = self.clock.now_ns / 1_000_000;
            self.hub.counters.bytes_in += u64::from(fresh);
            if let Some(tallied) = self.hub.traffic.of(slot) {
                tallied.bytes_in += u64::from(fresh);
            }
        }
        // Less than was asked for is all there was.
        let drained = conn.receiving == Receiving::Bulk && (fresh as usize) < self.intake.bulk.asked;
        let was = conn.phase;
        let next = self.worker(slot).0.given_back(buffer, fresh as usize);
        if next != Next::Go {
            self.after_input(slot, was, next);
        }
        self.account(slot);
        let nothing_there = drained && completion.result == Err(libc::EAGAIN);
        if fresh == 0 && !nothing_there {
            reach(Mark::DirectReceiveCut);
            return self.receive_ended(slot, completion.recv_end());
        }
        self.conns.land(slot);
        let conn = &mut self.conns[slot];
        conn.receiving = Receiving::Idle;
        if conn.phase == Phase::Dead {
            self.free_if_done(slot);
        } else if drained {
            self.await_direct(slot);
        } else {
            self.start_receiving(slot);
        }
    }
}

/// Whether much of a message is to come.
fn wants_direct(conn: &Conn, direct_bytes_min: usize) -> bool {
    // Once begun it goes on for less than what it takes to begin it.
    let bytes_min = if conn.had_bulk { direct_bytes_min / 8 } else { direct_bytes_min };
    conn.phase == Phase::Open && conn.machine.payload_to_come() >= bytes_min as u64
}

fn lend(conn: &mut Conn, direct_bytes_min: usize, spares: &mut Spares) -> Option<Lent> {
    if !wants_direct(conn, direct_bytes_min) {
        return None;
    }
    conn.machine.lend(1, spares)
}

impl<S: Service> Worker<'_, S> {
    /// Gives the machine its buffer back, with `fresh` more bytes in it.
    fn given_back(&mut self, buffer: Vec<u8>, fresh: usize) -> Next {
        let limits = self.cx.limits();
        let mut replies = OutboxReplies { outbox: &mut self.cx.hub.outbox, slot: self.cx.slot };
        let machine = &mut self.conn.machine;
        let message = match machine.give_back(buffer, fresh, &limits, &mut self.cx.hub.spares, &mut replies) {
            Some(Event::Message(message)) => message,
            Some(Event::Failed(error)) => {
                self.failed(error);
                return Next::Failed;
            }
            _ => return Next::Go,
        };
        let handled = self.cx.message(&mut self.conn.rate_due_ns, &mut self.conn.stash, message);
        handled.map_or_else(Next::Wait, |()| Next::Go)
    }
}
