//! What a connection receives: from the ring's buffers through parser and handlers.

use std::time::Duration;

use super::conn::{Conn, Phase, Receiving, Stash};
use super::life::after;
use super::{STASH_BYTES_MAX, Settings, Shard};
use crate::admission::Admission;
use crate::engine::{Completion, Filled, RecvEnd, Ring};
use crate::hub::CoreHub;
use crate::metrics::Side;
use crate::outbox::OutboxReplies;
use crate::proto::http::HttpDate;
use crate::proto::{Event, HEADROOM, Incoming, Limits, OwnedPayload, Payload, ProtocolError};
use crate::shard::service::{Ended, Service};

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
    /// The rest is held back until what is queued to this connection has been sent.
    PauseForOutbox,
    /// The rest is held back until the request before it has been answered.
    AwaitAnswer,
    /// The rest is held back until letters to other cores have been delivered.
    PauseForMail,
}

impl<R: Ring, S: Service> Shard<R, S> {
    /// A multishot receive brought data, or ended, or both.
    pub(super) fn received(&mut self, completion: Completion) {
        let slot = completion.token.index();
        let current = self.is_current(completion.token);
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
        let conn = &mut self.conns[slot as usize];
        conn.in_flight -= 1;
        conn.receiving = Receiving::Idle;
        if conn.phase == Phase::Dead {
            return self.free_if_done(slot);
        }
        match end {
            RecvEnd::Interrupted => self.start_receiving(slot),
            RecvEnd::NoBuffers => {
                self.hub.counters.buffers_missing += 1;
                self.starved.push((slot, self.generations.of(slot)));
            }
            RecvEnd::EndOfFile => {
                conn.peer_finished = true;
                if !conn.paused {
                    self.end_of_input(slot);
                }
            }
            RecvEnd::Failed(_) => self.finish(slot, 1006, "the connection broke"),
        }
    }

    /// The peer will send nothing more, and everything it sent has been handled.
    fn end_of_input(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        match conn.phase {
            // It is to be closed at the end of this tick, and told so before.
            Phase::Open if !self.hub.is_open(slot) => {}
            Phase::Open => {
                conn.end(1006, "the peer closed without a Close frame", Side::Nobody);
                self.hub.mark_closing(slot);
                self.start_flush(slot);
            }
            Phase::Http | Phase::Closing => self.start_flush(slot),
            Phase::Flushing if self.hub.outbox.is_empty(slot) => self.teardown(slot),
            Phase::Flushing | Phase::Accepting | Phase::Delayed | Phase::Dead => {}
        }
    }

    #[inline]
    fn feed(&mut self, slot: u32, filled: &Filled) {
        let conn = &mut self.conns[slot as usize];
        conn.last_inbound_ms = self.now_ns / 1_000_000;
        self.hub.counters.bytes_in += u64::from(filled.byte_count());
        if !matches!(conn.phase, Phase::Open | Phase::Http | Phase::Closing) {
            return;
        }
        if conn.paused {
            return self.hold_back(slot, filled);
        }
        let was = conn.phase;
        let (mut worker, ring) = self.worker(slot);
        let next = worker.input(ring.buffer(filled));
        let to_come = worker.conn.machine.payload_to_come();
        let holds = worker.conn.holds();
        if was == Phase::Http || next != Next::Go {
            self.after_input(slot, was, next);
        } else if self.settings.direct_interrupts && to_come >= self.settings.direct_bytes_min as u64 {
            self.stop_receiving(slot);
        }
        if holds {
            self.account(slot);
        }
    }

    /// What handles a connection's input, and the ring that its bytes are in.
    #[inline]
    pub(super) fn worker(&mut self, slot: u32) -> (Worker<'_, S>, &mut R) {
        let cx = Context {
            slot,
            generation: self.generations.of(slot),
            hub: &mut self.hub,
            service: &mut self.service,
            admission: &self.admission,
            settings: &self.settings,
            now_ns: self.now_ns,
            date: &self.date,
            request_timeout: self.request_timeout,
        };
        (Worker { conn: &mut self.conns[slot as usize], cx }, &mut self.ring)
    }

    /// Input of a paused connection waits in its stash; if there is much of it, no more is received.
    #[cold]
    fn hold_back(&mut self, slot: u32, filled: &Filled) {
        let stash = self.conns[slot as usize].stash.get_or_insert_default();
        stash.bytes.extend_from_slice(self.ring.buffer(filled));
        if stash.bytes.len() > STASH_BYTES_MAX {
            self.stop_receiving(slot);
        }
        self.account(slot);
    }

    pub(super) fn after_input(&mut self, slot: u32, was: Phase, next: Next) {
        let now_ms = self.now_ms();
        let conn = &mut self.conns[slot as usize];
        if was == Phase::Http && conn.phase != Phase::Http {
            self.watch_over(slot);
        } else if was == Phase::Http && conn.stash.is_none() {
            // Between requests: the next head has as long as the first one had.
            self.give_time(slot);
        }
        match next {
            Next::Go => {}
            Next::Flush => self.start_flush(slot),
            Next::Refuse => {
                self.conns[slot as usize].lingers = true;
                self.start_flush(slot);
            }
            Next::Failed => {
                self.conns[slot as usize].phase = Phase::Closing;
                self.await_close(slot);
            }
            Next::PauseForOutbox => {
                self.conns[slot as usize].paused = true;
                self.watch(slot);
            }
            Next::AwaitAnswer => {
                let conn = &mut self.conns[slot as usize];
                conn.paused = true;
                conn.awaits_answer = true;
                conn.deadline_ms = after(now_ms, self.settings.answer_timeout);
                let deadline_ms = conn.deadline_ms;
                if deadline_ms != u64::MAX {
                    self.look_at(slot, deadline_ms);
                }
            }
            Next::PauseForMail => {
                self.conns[slot as usize].paused = true;
                self.congested.push((slot, self.generations.of(slot)));
            }
        }
    }

    /// Handles the input that was held back from connections that may go on.
    pub(super) fn resume(&mut self) {
        for (slot, generation) in std::mem::take(&mut self.resumable) {
            if self.generations.of(slot) != generation {
                continue;
            }
            let wants = |conn: &&mut Conn| conn.paused && !conn.awaits_answer;
            let Some(conn) = self.conns.get_mut(slot as usize).filter(wants) else { continue };
            conn.paused = false;
            let was = conn.phase;
            let stash = conn.stash.take();
            if let (Some(mut stash), Phase::Http | Phase::Open | Phase::Closing) = (stash, was) {
                let (mut worker, _) = self.worker(slot);
                let next = worker.stashed(&mut stash);
                self.after_input(slot, was, next);
            }
            self.account(slot);
            let conn = &self.conns[slot as usize];
            if conn.phase != Phase::Dead && !conn.paused {
                if conn.peer_finished {
                    self.end_of_input(slot);
                } else {
                    self.start_receiving(slot);
                }
            }
        }
    }
}

/// Handles one connection's input. Two parts, so that a message may be borrowed from the connection's machine while the
/// rest of the core handles it.
pub(super) struct Worker<'w, S> {
    pub(super) conn: &'w mut Conn,
    pub(super) cx: Context<'w, S>,
}

pub(super) struct Context<'w, S> {
    pub(super) slot: u32,
    pub(super) generation: u32,
    pub(super) hub: &'w mut CoreHub,
    pub(super) service: &'w mut S,
    pub(super) admission: &'w Admission,
    pub(super) settings: &'w Settings,
    pub(super) now_ns: u64,
    pub(super) date: &'w HttpDate,
    pub(super) request_timeout: Duration,
}

impl<S: Service> Context<'_, S> {
    /// Why the next message must wait: what the last ones led to has to leave first.
    #[inline]
    pub(super) fn must_pause(&self) -> Option<Next> {
        if self.hub.outbox.must_wait(self.slot, self.settings.pause_bytes) {
            Some(Next::PauseForOutbox)
        } else if self.hub.is_congested() {
            Some(Next::PauseForMail)
        } else {
            None
        }
    }

    /// The limits of the connection's messages.
    #[inline]
    pub(super) fn limits(&self) -> Limits {
        let mut limits = self.settings.limits;
        if let Some(bytes) = self.hub.limits(self.slot).message_bytes_max {
            limits.message_bytes_max = bytes;
        }
        limits
    }

    #[inline]
    pub(super) fn deliver(&mut self, rate_due_ns: &mut u64, message: Incoming<'_>) {
        // After a handler has closed the connection, what still arrives is read only for the peer's Close.
        if !self.hub.outbox.is_open(self.slot) {
            return;
        }
        self.hub.counters.messages_in += 1;
        let rate = self.hub.limits(self.slot).message_rate_per_second;
        let rate = rate.unwrap_or(self.settings.message_rate_per_second);
        if rate > 0 && is_too_fast(rate_due_ns, self.now_ns, rate) {
            return self.hub.close(self.slot, Some(1008), "message rate exceeded");
        }
        self.service.message(self.hub, self.slot, message);
    }
}

impl<S: Service> Worker<'_, S> {
    /// Handles what was held back.
    fn stashed(&mut self, stash: &mut Stash) -> Next {
        if let Some((kind, payload)) = stash.message.take() {
            if let Some(why) = self.cx.must_pause() {
                // Something else that it waited for is over.
                self.conn.stash = Some(Box::new(Stash { message: Some((kind, payload)), ..std::mem::take(stash) }));
                return why;
            }
            self.cx.deliver(&mut self.conn.rate_due_ns, Incoming { kind, payload: Payload::Owned(payload) });
        }
        self.input(&mut stash.bytes)
    }

    #[inline]
    fn input(&mut self, data: &mut [u8]) -> Next {
        if self.conn.phase == Phase::Http { self.requests(data) } else { self.frames(data) }
    }

    // ---- WebSocket ------------------------------------------------------------------------------------------------

    pub(super) fn frames(&mut self, data: &mut [u8]) -> Next {
        let mut consumed = 0;
        let mut failed = false;
        let limits = self.cx.limits();
        loop {
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
                    let Some(why) = self.cx.must_pause() else {
                        self.cx.deliver(&mut self.conn.rate_due_ns, message);
                        continue;
                    };
                    // Held back whole, so that the next message can be assembled while this one waits.
                    let payload = match message.payload {
                        Payload::Owned(payload) => payload,
                        Payload::Borrowed(payload) => {
                            OwnedPayload::copy_of(payload, self.cx.hub.spares.take(payload.len() + HEADROOM))
                        }
                    };
                    let held = (message.kind, payload);
                    self.conn.stash.get_or_insert_default().message = Some(held);
                    return self.pause(&data[consumed..], why);
                }
                Event::Ping(_) | Event::Pong(_) => {}
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

    pub(super) fn failed(&mut self, error: ProtocolError) {
        self.cx.hub.counters.protocol_errors += 1;
        self.conn.end(error.close_code(), error.reason(), Side::Local);
        self.cx.hub.mark_closing(self.cx.slot);
    }

    pub(super) fn pause(&mut self, rest: &[u8], why: Next) -> Next {
        if !rest.is_empty() {
            self.conn.stash.get_or_insert_default().bytes.extend_from_slice(rest);
        }
        why
    }
}

/// Counts a message against the rate, by the generic cell rate algorithm with a burst of one second's worth.
fn is_too_fast(due_ns: &mut u64, now_ns: u64, rate_per_second: u32) -> bool {
    const BURST_NS: u64 = 1_000_000_000;
    let interval_ns = BURST_NS / u64::from(rate_per_second);
    let due = (*due_ns).max(now_ns) + interval_ns;
    if due > now_ns + BURST_NS {
        return true;
    }
    *due_ns = due;
    false
}
