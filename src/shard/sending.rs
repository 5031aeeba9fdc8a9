//! What leaves: the batch of a tick, what sockets did not take of it, and how long they may take nothing.
//!
//! Order of a tick: the batch goes into the ring's turn (see `wire.rs`); what it reports as not sent whole goes on as a waiting send
//! ([`Shard::take_completions`]); then the batch is settled, and whoever waited for his queue to be empty goes on
//! ([`Shard::settle`]); a waiting send that is done is followed by the next one ([`Shard::sent`]).
//!
//! Never knows what the bytes mean.

use bytes::Bytes;

use super::conn::{Phase, WaitsFor};
use super::timers::after;
use super::{LINGER_MS, Shard};
use crate::engine::{BATCH_PIECES_MAX, Completion, Key, Op, Ring};
use crate::outbox::PIECES_MAX;
use crate::shard::service::Service;

/// Connections whose sends somebody has to look after. Any of them may have gone.
#[derive(Default)]
pub(super) struct Sending {
    /// Those to look at once what is queued to them has been sent.
    pub(super) watched: Vec<Key>,
    /// Those whose send failed.
    pub(super) broken: Vec<Key>,
}

impl<R: Ring, S: Service> Shard<R, S> {
    /// Takes all completions off the ring, and handles at once what the batch's failures say: their bytes are in the arena
    /// only until it is settled, so none of them may stay behind.
    pub(super) fn take_completions(&mut self) {
        while let Some(completion) = self.ring.failed_send(&mut self.intake.completions) {
            self.sent_short(&completion);
        }
    }

    fn sent_short(&mut self, completion: &Completion) {
        let Some(key) = self.conns.owner(completion.token) else { return };
        let slot = key.slot();
        if self.sealed_short(key, completion) {
            return;
        }
        if let Some(tallied) = self.hub.traffic.of(slot) {
            tallied.took_only(completion.sent().unwrap_or(0));
        }
        let Ok(sent) = completion.sent() else {
            self.hub.outbox.send_failed(slot);
            return self.sending.broken.push(key);
        };
        if let Some(rest) = self.hub.outbox.sent_short(slot, sent) {
            self.send_rest(slot, rest);
            self.watch_write(slot);
        }
    }

    /// Sends what a socket has no room for as soon as it has; sealed, where that is due.
    pub(super) fn send_rest(&mut self, slot: u32, bytes: Bytes) {
        let bytes = if self.wires.has_line(slot) { self.sealed_rest(slot, bytes) } else { bytes };
        let token = self.conns.launch(Op::Send, slot);
        self.ring.send(token, bytes);
    }

    /// The batch is over: what it has sent is forgotten, and whoever waited for that goes on.
    pub(super) fn settle(&mut self) {
        self.settle_sealed();
        let spares = &mut self.hub.spares;
        self.hub.outbox.settle(|buffer| spares.give(buffer));
        for key in std::mem::take(&mut self.sending.broken) {
            if self.conns.contains(key) {
                self.finish(key.slot(), 1006, "the connection broke");
            }
        }
        let mut watched = std::mem::take(&mut self.sending.watched);
        for key in watched.drain(..) {
            if let Some(conn) = self.conns.get_mut(key) {
                conn.watched = false;
                if self.is_all_sent(key.slot()) {
                    self.flushed(key.slot());
                }
            }
        }
        if self.sending.watched.is_empty() {
            self.sending.watched = watched;
        }
    }

    /// Everything queued to a connection has been sent.
    fn flushed(&mut self, slot: u32) {
        let conn = &self.conns[slot];
        match conn.phase {
            Phase::Flushing if conn.lingers && !conn.peer_finished => {
                let deadline_ms = self.now_ms() + LINGER_MS;
                self.conns[slot].deadline_ms = deadline_ms;
                self.look_at(slot, deadline_ms);
            }
            Phase::Flushing => self.teardown(slot),
            Phase::Http | Phase::Open | Phase::Closing => {
                // Input that a task does not take yet waits for the task, not for the socket.
                if conn.waits_for == Some(WaitsFor::Outbox) && !self.hub.outbox.is_held(slot) {
                    self.waiting.resumable.push(self.conns.key(slot));
                }
                // The time that the peer took to read is not the time that it has to say something.
                match conn.phase {
                    Phase::Http if conn.waits_for.is_none() => self.give_time(slot),
                    Phase::Closing if !conn.hurried => self.await_close(slot),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// Looks at a connection again when its outbox is empty, which it may be after the next turn.
    pub(super) fn watch(&mut self, slot: u32) {
        let conn = &mut self.conns[slot];
        if !conn.watched {
            conn.watched = true;
            let key = self.conns.key(slot);
            self.sending.watched.push(key);
        }
    }

    /// A waiting send is done.
    pub(super) fn sent(&mut self, completion: &Completion) {
        let Some(key) = self.conns.owner(completion.token) else { return };
        let slot = key.slot();
        self.conns.land(slot);
        if let (Some(tallied), Ok(sent)) = (self.hub.traffic.of(slot), completion.result) {
            tallied.bytes_out += u64::from(sent);
        }
        if self.conns[slot].phase == Phase::Dead {
            return self.free_if_done(slot);
        }
        let whole = completion.result.is_ok_and(|sent| sent as usize == self.hub.outbox.in_flight_bytes(slot));
        if !whole {
            return self.finish(slot, 1006, "the connection broke");
        }
        let spares = &mut self.hub.spares;
        match self.hub.outbox.sent_async(slot, |buffer| spares.give(buffer)) {
            Some(next) => {
                self.send_rest(slot, next);
            }
            None => {
                self.speak_behind(slot);
                if self.is_all_sent(slot) {
                    self.flushed(slot);
                }
            }
        }
    }

    // ---- how long sockets may take nothing ------------------------------------------------------------------------------

    /// Whether a connection whose time is up still has something queued that its peer is reading. The time begins anew when
    /// all has gone: see [`Shard::flushed`].
    pub(super) fn is_read(&self, slot: u32) -> bool {
        let conn = &self.conns[slot];
        let is_exempt = conn.phase == Phase::Delayed || conn.waits_for == Some(WaitsFor::Answer) || conn.hurried;
        if is_exempt || self.is_all_sent(slot) {
            return false;
        }
        let Some(since_ms) = self.hub.outbox.waiting_since_ms(slot) else { return true };
        // For a response the limit of writing holds, if there is one. A WebSocket that is to close has less patience: it
        // may be closed because its peer does not read.
        let is_watched = !conn.entered && self.write_due_ms(slot) != u64::MAX;
        is_watched || after(since_ms, self.settings.close_timeout) > self.now_ms()
    }

    /// When a socket that is full has been so for too long.
    pub(super) fn write_due_ms(&self, slot: u32) -> u64 {
        let conn = &self.conns[slot];
        if matches!(conn.phase, Phase::Accepting | Phase::Delayed | Phase::Dead) {
            return u64::MAX;
        }
        let Some(since_ms) = self.hub.outbox.waiting_since_ms(slot) else { return u64::MAX };
        let own = if conn.entered { self.hub.limits(slot).write_timeout } else { None };
        after(since_ms, own.unwrap_or(self.settings.write_timeout))
    }

    /// Has timers look at a connection whose socket has just refused bytes. As long as it goes on taking some, they find
    /// out when to look next.
    pub(super) fn watch_write(&mut self, slot: u32) {
        let due_ms = self.write_due_ms(slot);
        if due_ms != u64::MAX {
            self.look_at(slot, due_ms);
        }
    }
}

const _: () = assert!(PIECES_MAX <= BATCH_PIECES_MAX);
