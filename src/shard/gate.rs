//! Whether a connection's next input may be handled now: decided here and nowhere else.
//!
//! What is handed in is a message, a complete request, or the opening of a WebSocket whose handshake has been answered.
//! Whether it has just arrived or was held back, whether it came through the core's buffers or into its own: each time
//! [`Context::turn`] is asked, because any number of reasons to wait can have come since the last one went. Only what was
//! let through reaches a handler: the service can be called by [`Context`] alone.
//!
//! What must wait is held in the connection's stash, and nothing behind it is looked at; [`Shard::resume`] asks again when
//! what it waits for may be over. So of one connection there is never more than one input, [`STASH_BYTES_MAX`] and what
//! one receive brings; and what is queued to it is bounded by `pause_bytes` and what one input leads to.
//!
//! Compressed input has one more reason to wait: a tick takes only so much time to decompress. Who has much of it when that
//! is spent waits for a turn ([`Shard::resume_inflating`]), and others' input is handled before.
//!
//! As long as it is we who keep the input back, the connection's time does not run: see [`Shard::quiet_since_ms`]. Memory
//! holds nothing back: when the budget is spent, who holds the most is shed (see `memory.rs`), so that nobody waits for
//! somebody else's hoard.

use std::collections::VecDeque;

use super::clock::Clock;
use super::conn::{Conn, Phase, Stash, WaitsFor};
use super::lines::Wires;
use super::timers::after;
use super::{STASH_BYTES_MAX, Settings, Shard};
use crate::admission::Admission;
use crate::engine::{Filled, Key, Ring};
use crate::hub::CoreHub;
use crate::marks::{Mark, reach};
use crate::proto::http::RequestHead;
use crate::proto::{HEADROOM, Incoming, Limits, OwnedPayload, Payload};
use crate::shard::service::{Answer, Inbound, Reply, Serves, Service};

/// That one input may be handled now.
#[must_use]
pub(super) struct Turn(());

/// Handles one connection's input. Two parts, so that a message may be borrowed from the connection's machine while the
/// rest of the core handles it.
pub(super) struct Worker<'w, S> {
    pub(super) conn: &'w mut Conn,
    pub(super) cx: Context<'w, S>,
    /// While it handles what a stash holds, how much of that it has left because something waits; it stays in the stash.
    pub(super) left: Option<usize>,
}

/// What a connection's input is handled with: everything of the core but the connection itself.
pub(super) struct Context<'w, S> {
    pub(super) slot: u32,
    pub(super) generation: u32,
    pub(super) hub: &'w mut CoreHub,
    /// Private to this file: handlers are called with a [`Turn`] only.
    service: &'w mut S,
    pub(super) admission: &'w Admission,
    pub(super) settings: &'w Settings,
    pub(super) clock: &'w Clock,
    pub(super) wires: &'w mut Wires,
}

impl<S: Service> Context<'_, S> {
    /// Asks for a turn. What the last inputs led to has to leave first.
    #[inline]
    pub(super) fn turn(&self) -> Result<Turn, WaitsFor> {
        if self.hub.outbox.must_wait(self.slot, self.settings.pause_bytes) {
            self.turn_to_discard(WaitsFor::Outbox)
        } else if self.hub.is_congested() {
            self.turn_to_discard(WaitsFor::Mail)
        } else {
            Ok(Turn(()))
        }
    }

    /// A connection that takes no more messages is only read for its peer's Close: nothing of it leads to anything.
    #[cold]
    fn turn_to_discard(&self, wait: WaitsFor) -> Result<Turn, WaitsFor> {
        if self.hub.outbox.is_open(self.slot) { Err(wait) } else { Ok(Turn(())) }
    }

    /// Has a message handled, or holds it back in the connection's stash.
    #[inline]
    pub(super) fn message(
        &mut self,
        rate_due_ns: &mut u64,
        stash: &mut Option<Box<Stash>>,
        message: Incoming<'_>,
    ) -> Result<(), WaitsFor> {
        match self.turn() {
            Ok(Turn(())) => {
                self.deliver(rate_due_ns, message);
                Ok(())
            }
            Err(wait) => {
                self.hold(stash, message);
                Err(wait)
            }
        }
    }

    #[inline]
    fn deliver(&mut self, rate_due_ns: &mut u64, message: Incoming<'_>) {
        // After a handler has closed the connection, what still arrives is read only for the peer's Close.
        if !self.hub.outbox.is_open(self.slot) {
            return;
        }
        self.hub.counters.messages_in += 1;
        if let Some(tallied) = self.hub.traffic.of(self.slot) {
            tallied.messages_in += 1;
        }
        let rate = self.hub.limits(self.slot).message_rate_per_second;
        let rate = rate.unwrap_or(self.settings.message_rate_per_second);
        if rate > 0 && is_too_fast(rate_due_ns, self.clock.now_ns, rate) {
            return self.hub.close(self.slot, Some(1008), "message rate exceeded");
        }
        self.service.message(self.hub, self.slot, message);
    }

    /// Tells of a ping or pong, where somebody wants to know. It waits for no turn: while the connection has none, nobody is
    /// told.
    #[inline]
    pub(super) fn control(&mut self, payload: &[u8], tell: fn(&mut S, &mut CoreHub, u32, &[u8])) {
        if self.hub.limits(self.slot).reports_pings
            && self.hub.outbox.is_open(self.slot)
            && let Ok(Turn(())) = self.turn()
        {
            tell(self.service, self.hub, self.slot, payload);
        }
    }

    /// Whole, so that the next message can be assembled while this one waits.
    #[cold]
    fn hold(&mut self, stash: &mut Option<Box<Stash>>, message: Incoming<'_>) {
        let payload = match message.payload {
            Payload::Owned(payload) => payload,
            Payload::Borrowed(payload) => {
                OwnedPayload::copy_of(payload, self.hub.spares.take(payload.len() + HEADROOM))
            }
        };
        stash.get_or_insert_default().message = Some((message.kind, payload));
    }

    /// Has a complete request handled.
    pub(super) fn request(&mut self, turn: Turn, request: &Inbound<'_, '_>) -> Answer {
        let Turn(()) = turn;
        self.service.request(self.hub, self.slot, self.generation, request)
    }

    /// Has a WebSocket opened that has been entered into the hub.
    pub(super) fn open(&mut self, turn: Turn, context: Option<Box<dyn std::any::Any>>) {
        let Turn(()) = turn;
        self.service.open(self.hub, self.slot, context);
    }

    /// See [`Service::answering`].
    pub(super) fn answering(&mut self, asked: &[u8], reply: &mut Reply) {
        self.service.answering(self.slot, self.generation, asked, reply);
    }

    /// See [`Service::refusal_of_head`]. It is no handler's doing.
    pub(super) fn refusal_of_head(&self, head: &RequestHead<'_>, serves: Serves) -> Option<Reply> {
        self.service.refusal_of_head(head, serves)
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
}

/// Connections whose input is held back, as far as somebody has to look after that. Any of them may have gone.
#[derive(Default)]
pub(super) struct Waiting {
    /// Those that wait until letters to other cores have been delivered.
    pub(super) congested: Vec<Key>,
    /// Those that may go on now.
    pub(super) resumable: Vec<Key>,
    /// Those that have much to be decompressed, in turn.
    pub(super) inflating: VecDeque<Key>,
}

impl<R: Ring, S: Service> Shard<R, S> {
    /// What handles a connection's input, and the ring that its bytes are in.
    #[inline]
    pub(super) fn worker(&mut self, slot: u32) -> (Worker<'_, S>, &mut R) {
        let cx = Context {
            slot,
            generation: self.conns.key(slot).generation(),
            hub: &mut self.hub,
            service: &mut self.service,
            admission: &self.admission,
            settings: &self.settings,
            clock: &self.clock,
            wires: &mut self.wires,
        };
        (Worker { conn: &mut self.conns[slot], cx, left: None }, &mut self.ring)
    }

    /// Handles no more of a connection's input until this is over. What could not be handled is in its stash.
    pub(super) fn start_waiting(&mut self, slot: u32, wait: WaitsFor) {
        let now_ms = self.now_ms();
        let conn = &mut self.conns[slot];
        conn.waits_for = Some(wait);
        if conn.phase == Phase::Http {
            conn.deadline_ms = match wait {
                WaitsFor::Answer => after(now_ms, self.settings.answer_timeout),
                // It is the peer who has to read, and whoever reads has the time that it takes: see `is_read`.
                WaitsFor::Outbox => after(now_ms, self.clock.times.request),
                WaitsFor::Mail | WaitsFor::Inflating => u64::MAX,
            };
            self.look_at_deadline(slot);
        }
        match wait {
            WaitsFor::Outbox => self.watch(slot),
            WaitsFor::Mail => self.waiting.congested.push(self.conns.key(slot)),
            WaitsFor::Inflating => self.waiting.inflating.push_back(self.conns.key(slot)),
            WaitsFor::Answer => {}
        }
    }

    /// Input of a connection that waits goes into its stash; if there is much of it, no more is received.
    #[cold]
    pub(super) fn hold_back(&mut self, slot: u32, filled: &Filled) {
        reach(Mark::InputHeldBack);
        let stash = self.conns[slot].stash.get_or_insert_default();
        stash.push(self.ring.buffer(filled));
        if stash.bytes.len() > STASH_BYTES_MAX {
            self.stop_receiving(slot);
        }
        self.account(slot);
    }

    /// Handles the input that was held back from connections that may go on.
    pub(super) fn resume(&mut self) {
        for key in std::mem::take(&mut self.waiting.resumable) {
            let waits = |conn: &Conn| conn.waits_for.is_some_and(|wait| wait != WaitsFor::Answer);
            if self.conns.get(key).is_some_and(waits) {
                self.go_on(key.slot());
            }
        }
    }

    /// Handles the input of those that have much to be decompressed, one at least, as long as this tick has time for it.
    pub(super) fn resume_inflating(&mut self) {
        self.hub.spares.grant_inflating(self.settings.inflate_ns_per_tick);
        for _ in 0..self.waiting.inflating.len() {
            if self.hub.spares.is_inflating_spent() {
                return;
            }
            let Some(key) = self.waiting.inflating.pop_front() else { return };
            if self.conns.get(key).is_some_and(|conn| conn.waits_for == Some(WaitsFor::Inflating)) {
                self.go_on(key.slot());
            }
        }
    }

    /// Handles what a connection holds, in the order in which it came, as far as each of it may be handled.
    pub(super) fn go_on(&mut self, slot: u32) {
        let now_ms = self.now_ms();
        let conn = &mut self.conns[slot];
        conn.waits_for = None;
        // The silence was ours.
        conn.last_inbound_ms = now_ms;
        let was = conn.phase;
        let stash = conn.stash.take();
        conn.deadline_ms = if was == Phase::Http { after(now_ms, self.clock.times.request) } else { conn.deadline_ms };
        if let (Some(stash), Phase::Http | Phase::Open | Phase::Closing) = (stash, was) {
            reach(Mark::InputResumed);
            let next = self.worker(slot).0.stashed(*stash);
            self.after_input(slot, was, next);
        }
        self.account(slot);
        let conn = &self.conns[slot];
        if conn.phase != Phase::Dead && conn.waits_for.is_none() {
            if conn.peer_finished {
                self.end_of_input(slot);
            } else {
                self.start_receiving(slot);
            }
        }
    }

    /// Since when a WebSocket's silence is its own: not as long as it is we who do not read. One that we do not read from
    /// because it does not read is quiet since it last took something.
    pub(super) fn quiet_since_ms(&self, slot: u32) -> u64 {
        let conn = &self.conns[slot];
        let outbox = &self.hub.outbox;
        match conn.waits_for {
            _ if outbox.is_held(slot) => self.now_ms(),
            None => conn.last_inbound_ms,
            Some(WaitsFor::Outbox) => match outbox.waiting_since_ms(slot) {
                Some(since_ms) => since_ms.max(conn.last_inbound_ms),
                None => self.now_ms(),
            },
            Some(WaitsFor::Mail | WaitsFor::Answer | WaitsFor::Inflating) => self.now_ms(),
        }
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
