//! What a connection receives: from the ring's buffers through parser and handlers.

use super::Shard;
use super::conn::{Phase, Receiving, Stash, WaitsFor};
use super::gate::Worker;
use super::log;
use crate::engine::{Completion, Filled, Op, RecvEnd, Ring};
use crate::marks::{Mark, reach};
use crate::metrics::Side;
use crate::outbox::OutboxReplies;
use crate::proto::{Event, Incoming, Payload, ProtocolError};
use crate::shard::service::{Ended, Service};

/// After a large message the next receive brings so much less: only the start of the next one.
const RECV_SHARE_AFTER_BULK: u32 = 16;

/// What a connection's input leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// More input.
    Go,
    /// Close when everything queued is sent.
    Flush,
    /// Likewise, but the peer may still be sending.
    Refuse,
    /// The peer broke the protocol and has been told so.
    Failed,
    /// Something has to wait, and the rest behind it.
    Wait(WaitsFor),
}

impl<R: Ring, S: Service> Shard<R, S> {
    /// A multishot receive brought data, or ended, or both.
    pub(super) fn received(&mut self, completion: Completion) {
        let slot = completion.token.index();
        let current = self.conns.owner(completion.token).is_some();
        let end = completion.recv_end();
        if let Some(filled) = completion.filled {
            if current {
                self.feed(slot, &filled);
            }
            self.ring.recycle(filled);
        }
        if current && !completion.more {
            self.receive_ended(slot, end);
        }
    }

    pub(super) fn receive_ended(&mut self, slot: u32, end: RecvEnd) {
        self.conns.land(slot);
        let conn = &mut self.conns[slot];
        conn.receiving = Receiving::Idle;
        if conn.phase == Phase::Dead {
            return self.free_if_done(slot);
        }
        match end {
            RecvEnd::Interrupted => {
                reach(Mark::ReceiveInterrupted);
                self.start_receiving(slot);
            }
            RecvEnd::NoBuffers => {
                reach(Mark::ReceiveStarves);
                self.hub.counters.buffers_missing += 1;
                self.intake.starved.push(self.conns.key(slot));
            }
            RecvEnd::EndOfFile => {
                conn.peer_finished = true;
                // What has come before the end and waits for its turn comes before the end.
                if conn.waits_for.is_none() && !self.wires.has_pending(slot) {
                    self.end_of_input(slot);
                }
            }
            RecvEnd::Failed(_) => self.finish(slot, 1006, "the connection broke"),
        }
    }

    /// The peer will send nothing more, and everything it sent has been handled.
    pub(super) fn end_of_input(&mut self, slot: u32) {
        match self.conns[slot].phase {
            // RFC 8446 6.1: without close_notify what came last may be missing.
            Phase::Open | Phase::Http | Phase::Closing if self.wires.is_cut_off(slot) => {
                self.finish(slot, 1006, "the connection ended without close_notify");
            }
            // It is to be closed at the end of this tick, and told so before.
            Phase::Open if !self.hub.is_open(slot) => {}
            Phase::Open => {
                self.conns[slot].end(1006, "the peer closed without a Close frame", Side::Nobody);
                self.hub.mark_closing(slot);
                self.start_flush(slot);
            }
            Phase::Http | Phase::Closing => self.start_flush(slot),
            Phase::Flushing if self.is_all_sent(slot) => self.teardown(slot),
            Phase::Flushing | Phase::Accepting | Phase::Delayed | Phase::Dead => {}
        }
    }

    #[inline]
    fn feed(&mut self, slot: u32, filled: &Filled) {
        let conn = &mut self.conns[slot];
        conn.last_inbound_ms = self.clock.now_ns / 1_000_000;
        self.hub.counters.bytes_in += u64::from(filled.byte_count());
        if let Some(tallied) = self.hub.traffic.of(slot) {
            tallied.bytes_in += u64::from(filled.byte_count());
        }
        if !matches!(conn.phase, Phase::Open | Phase::Http | Phase::Closing) {
            return;
        }
        if self.wires.has_line(slot) && !conn.awaits_proxy {
            return self.feed_line(slot, filled);
        }
        if conn.waits_for.is_some() {
            return self.hold_back(slot, filled);
        }
        let was = conn.phase;
        let (mut worker, ring) = self.worker(slot);
        let next = worker.input(ring.buffer(filled));
        let to_come = worker.conn.machine.payload_to_come();
        let holds = worker.conn.holds();
        let awaited_proxy = std::mem::take(&mut worker.conn.begins_tls);
        if was == Phase::Http || next != Next::Go {
            self.after_input(slot, was, next);
        } else if self.settings.direct_interrupts && to_come >= self.settings.direct_bytes_min as u64 {
            self.stop_receiving(slot);
        }
        if awaited_proxy && let Some(stash) = self.conns[slot].stash.take() {
            self.feed_handshake(slot, &stash.bytes);
        }
        if holds {
            self.account(slot);
        }
    }

    /// Arms a multishot receive where one is wanted and none is.
    pub(super) fn start_receiving(&mut self, slot: u32) {
        let conn = &self.conns[slot];
        if conn.receiving != Receiving::Idle || conn.waits_for.is_some() || conn.peer_finished {
            return;
        }
        if self.start_direct(slot) {
            return;
        }
        let conn = &mut self.conns[slot];
        if let Phase::Http | Phase::Open | Phase::Closing | Phase::Flushing = conn.phase {
            conn.receiving = Receiving::Multi;
            let had_bulk = std::mem::take(&mut conn.had_bulk);
            let share = if had_bulk { RECV_SHARE_AFTER_BULK } else { 1 };
            let bytes_max = (self.settings.recv_bytes_max / share).max(1);
            let token = self.conns.launch(Op::Recv, slot);
            self.ring.recv_at_most(token, bytes_max);
        }
    }

    pub(super) fn after_input(&mut self, slot: u32, was: Phase, next: Next) {
        if was == Phase::Http {
            if self.conns[slot].phase == Phase::Http {
                self.look_at_deadline(slot);
            } else {
                self.watch_over(slot);
            }
        }
        match next {
            Next::Go => {}
            Next::Flush => self.start_flush(slot),
            Next::Refuse => {
                self.conns[slot].lingers = true;
                self.start_flush(slot);
            }
            Next::Failed => {
                self.conns[slot].turn_to(Phase::Closing);
                self.await_close(slot);
            }
            Next::Wait(wait) => self.start_waiting(slot, wait),
        }
    }
}

impl<S: Service> Worker<'_, S> {
    /// Handles what was held back: first what has waited for its turn, then the bytes behind it.
    pub(super) fn stashed(&mut self, mut stash: Stash) -> Next {
        let next = match (stash.message.take(), stash.request.take()) {
            (Some((kind, payload)), _) => {
                let message = Incoming { kind, payload: Payload::Owned(payload), uncompressed: false };
                let handled = self.cx.message(&mut self.conn.rate_due_ns, &mut self.conn.stash, message);
                handled.map_or_else(Next::Wait, |()| Next::Go)
            }
            (None, Some(request)) => self.held_request(request),
            (None, None) => Next::Go,
        };
        match next {
            Next::Go if stash.handled < stash.bytes.len() => {
                self.left = Some(0);
                let next = self.input(&mut stash.bytes[stash.handled..]);
                if let (Some(left @ 1..), Next::Wait(_)) = (self.left.take(), next) {
                    stash.handled = stash.bytes.len() - left;
                    self.keep(stash);
                }
                next
            }
            Next::Wait(_) => {
                self.keep(stash);
                next
            }
            _ => next,
        }
    }

    /// Leaves what is there of a stash's bytes where it is.
    fn keep(&mut self, of: Stash) {
        let stash = self.conn.stash.get_or_insert_default();
        (stash.bytes, stash.handled) = (of.bytes, of.handled);
    }

    #[inline]
    pub(super) fn input(&mut self, data: &mut [u8]) -> Next {
        if self.conn.phase == Phase::Http { self.requests(data) } else { self.frames(data) }
    }

    // ---- WebSocket ------------------------------------------------------------------------------------------------

    pub(super) fn frames(&mut self, data: &mut [u8]) -> Next {
        let mut consumed = 0;
        let mut failed = false;
        let limits = self.cx.limits();
        let _connection = log::frames_of(self.cx.hub, self.cx.slot).entered();
        loop {
            if self.waits_to_inflate(data.len() - consumed) {
                reach(Mark::InflatingWaits);
                return self.pause(&data[consumed..], WaitsFor::Inflating);
            }
            let mut replies = OutboxReplies { outbox: &mut self.cx.hub.outbox, slot: self.cx.slot };
            let machine = &mut self.conn.machine;
            let Some(event) = machine.next(data, &mut consumed, &limits, &mut self.cx.hub.spares, &mut replies) else {
                // Of a peer's Close after a failure there is no event.
                return match (failed || self.conn.phase == Phase::Closing, self.conn.machine.close_received()) {
                    (true, true) => Next::Flush,
                    _ if failed => Next::Failed,
                    _ => Next::Go,
                };
            };
            match event {
                Event::Message(message) => {
                    let handled = self.cx.message(&mut self.conn.rate_due_ns, &mut self.conn.stash, message);
                    if let Err(wait) = handled {
                        return self.pause(&data[consumed..], wait);
                    }
                }
                Event::Ping(payload) => self.cx.control(payload, S::ping),
                Event::Pong(payload) => self.cx.control(payload, S::pong),
                Event::Close { code, reason } => {
                    let (code, reason) = (code.unwrap_or(1005), reason.to_owned());
                    let ended = || Box::new(Ended { code, reason, clean: true, by: Side::Peer });
                    self.conn.ended.get_or_insert_with(ended).clean = true;
                    self.cx.hub.mark_closing(self.cx.slot);
                    return Next::Flush;
                }
                Event::Failed(error) => {
                    self.failed(error);
                    failed = true;
                }
            }
        }
    }

    /// Whether so many bytes may be much when they are decompressed, and this tick has no more time for that.
    #[inline]
    fn waits_to_inflate(&self, bytes: usize) -> bool {
        self.cx.hub.spares.is_inflating_spent()
            && bytes >= self.cx.settings.inflate_bytes_min
            && self.conn.machine.is_compressed()
            && self.conn.phase == Phase::Open
            && self.cx.hub.outbox.is_open(self.cx.slot)
    }

    pub(super) fn failed(&mut self, error: ProtocolError) {
        self.cx.hub.counters.protocol_errors += 1;
        self.conn.end(error.close_code(), error.reason(), Side::Local);
        self.cx.hub.mark_closing(self.cx.slot);
    }

    /// Something waits, and with it whatever came behind it.
    pub(super) fn pause(&mut self, rest: &[u8], wait: WaitsFor) -> Next {
        if let Some(left) = &mut self.left {
            *left = rest.len();
        } else if !rest.is_empty() {
            self.conn.stash.get_or_insert_default().push(rest);
        }
        Next::Wait(wait)
    }
}
