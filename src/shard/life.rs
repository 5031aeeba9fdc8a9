//! How connections come and go: accepts, time limits, closing.

use std::time::Duration;

use http::StatusCode;

use super::conn::{Conn, Phase, Receiving, WaitsFor};
use super::drain::Leaving;
use super::gate::Times;
use super::timers::after;
use super::{ACCEPT_BACKOFF_MS, LINGER_MS, Shard};
use crate::engine::{Completion, Op, Peer, Ring, Token};
use crate::marks::{Mark, reach};
use crate::metrics::{RefusalReason, Side, TimeoutKind};
use crate::outbox::OutboxReplies;
use crate::proto::Replies;
use crate::proto::frame::Opcode;
use crate::shard::service::{Ended, Reply, Service};

/// The time for a request when places are few, or the core is about to end.
const HURRIED_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a connection is looked at whose time is up but for what it still reads.
const LOOK_AT_READER_MS: u64 = 500;

impl<R: Ring, S: Service> Shard<R, S> {
    // ---- coming ---------------------------------------------------------------------------------------------------

    /// Keeps accepts in flight as long as there are slots to accept into.
    pub(super) fn arm_accepts(&mut self) {
        if self.accepts_wanted.is_empty() || !self.accepts() {
            return;
        }
        if self.accept_again_ms > self.now_ms() {
            return;
        }
        self.accept_again_ms = 0;
        // In turn, so that no listener goes without where there are few slots.
        while let Some(listener) = self.accepts_wanted.pop_front() {
            let vacant = self.conns.vacant_entry();
            let slot = vacant.key() as u32;
            if slot >= self.ring.slots() {
                // All taken: the backlog waits until a connection goes.
                self.accepts_wanted.push_front(listener);
                return;
            }
            vacant.insert(Conn::accepting(listener));
            self.generations.begin(slot);
            self.accepts_in_flight += 1;
            self.ring.accept(u32::from(listener), self.token(Op::Accept, slot));
        }
    }

    pub(super) fn accepted(&mut self, completion: &Completion) {
        let slot = completion.token.index();
        if !self.is_current(completion.token) {
            return;
        }
        self.accepts_in_flight -= 1;
        let conn = &mut self.conns[slot as usize];
        conn.in_flight -= 1;
        self.accepts_wanted.push_back(conn.listener);
        if let Err(errno) = completion.result {
            self.conns.remove(slot as usize);
            self.generations.end(slot);
            if errno != libc::ECANCELED {
                self.hub.counters.accept_errors += 1;
            }
            // Out of descriptors or memory: the connection stays in the backlog, and asking again at once would spin.
            if !matches!(errno, libc::ECANCELED | libc::ECONNABORTED | libc::EINTR | libc::EAGAIN) {
                reach(Mark::AcceptBacksOff);
                tracing::warn!(errno, "accepting failed; trying again in {ACCEPT_BACKOFF_MS} ms");
                self.accept_again_ms = self.now_ms() + ACCEPT_BACKOFF_MS;
            }
            return;
        }
        self.hub.counters.accepted += 1;
        let now_ms = self.now_ms();
        let conn = &mut self.conns[slot as usize];
        conn.peer = match self.ring.peer(slot) {
            Peer::Inet(address) => Some(address).into(),
            Peer::Unix => None.into(),
        };
        conn.last_inbound_ms = now_ms;
        let is_welcome = self.admission.arrive(conn.peer.ip());
        let due_ns = match &mut self.leaving {
            Leaving::Draining(drain) => {
                drain.quiet_ticks = 0;
                Some(self.now_ns)
            }
            // Who is refused for other reasons takes no turn from anybody.
            _ if !is_welcome => None,
            _ => self.admission.accept_due_ns(self.now_ns),
        };
        self.hub.outbox.open(slot, self.generations.of(slot));
        match due_ns {
            _ if !is_welcome => {
                let message = "too many connections from this address";
                self.turn_away(slot, RefusalReason::Address, StatusCode::TOO_MANY_REQUESTS, message);
            }
            None => {
                let message = "too many new connections";
                self.turn_away(slot, RefusalReason::Rate, StatusCode::SERVICE_UNAVAILABLE, message);
            }
            Some(due_ns) if due_ns > self.now_ns => {
                conn.phase = Phase::Delayed;
                conn.deadline_ms = due_ns.div_ceil(1_000_000);
                let deadline_ms = conn.deadline_ms;
                self.look_at(slot, deadline_ms);
            }
            Some(_) => self.start_http(slot),
        }
    }

    /// Answers a connection that is not welcome before it has asked.
    fn turn_away(&mut self, slot: u32, reason: RefusalReason, status: StatusCode, message: &str) {
        self.hub.counters.refused.add(reason, 1);
        self.refuse_late(slot, &Reply::error(status, message).with_retry_after());
    }

    pub(super) fn start_http(&mut self, slot: u32) {
        self.conns[slot as usize].phase = Phase::Http;
        self.give_time(slot);
        self.start_receiving(slot);
    }

    /// Gives a connection time for what it is about to do: for a request, or for none.
    pub(super) fn give_time(&mut self, slot: u32) {
        let is_between = self.conns[slot as usize].is_between_requests();
        let times = self.times();
        let limit = if is_between { times.between } else { times.request };
        self.conns[slot as usize].deadline_ms = after(self.now_ms(), limit);
        self.look_at_deadline(slot);
    }

    /// The times for requests now. Less where places have become few, so that those who only take one up do not keep out
    /// the others for long; and in a drain, which ends when all have gone.
    pub(super) fn times(&self) -> Times {
        let is_crowded = self.is_crowded();
        let in_time = |limit: Duration, is_short| if is_short { limit.min(HURRIED_TIMEOUT) } else { limit };
        Times {
            request: in_time(self.settings.handshake_timeout, is_crowded || self.drain().is_some()),
            between: in_time(self.settings.keep_alive, is_crowded),
        }
    }

    fn is_crowded(&self) -> bool {
        let vacant = (self.ring.slots() as usize).saturating_sub(self.conns.len());
        vacant < self.settings.crowded_slots as usize
    }

    /// Where places have become few, those who were given more time have no more than the others, either.
    pub(super) fn make_room(&mut self) {
        let now_ms = self.now_ms();
        if self.is_crowded() && self.make_room_again_ms <= now_ms {
            self.make_room_again_ms = now_ms + HURRIED_TIMEOUT.as_millis() as u64;
            self.hurry(|_| true);
        }
    }

    /// Gives connections that are to ask for something, and are meant, no more time than this.
    pub(super) fn hurry(&mut self, is_meant: impl Fn(&Conn) -> bool) {
        let until_ms = after(self.now_ms(), HURRIED_TIMEOUT);
        let is_late =
            |conn: &Conn| conn.phase == Phase::Http && conn.waits_for.is_none() && conn.deadline_ms > until_ms;
        let late = self.conns.iter().filter(|(_, conn)| is_late(conn) && is_meant(conn));
        for slot in late.map(|(slot, _)| slot as u32).collect::<Vec<u32>>() {
            self.conns[slot as usize].deadline_ms = until_ms;
            self.look_at_deadline(slot);
        }
    }

    // ---- time limits ----------------------------------------------------------------------------------------------

    /// Has timers look at a connection at `at_ms` at the latest.
    pub(super) fn look_at(&mut self, slot: u32, at_ms: u64) {
        let conn = &mut self.conns[slot as usize];
        if at_ms < conn.look_at_ms {
            conn.look_at_ms = at_ms;
            self.timers.insert(at_ms, slot, self.generations.of(slot));
        }
    }

    /// Has timers look at a connection when the deadline of its phase has passed.
    pub(super) fn look_at_deadline(&mut self, slot: u32) {
        let deadline_ms = self.conns[slot as usize].deadline_ms;
        if deadline_ms != u64::MAX {
            self.look_at(slot, deadline_ms);
        }
    }

    pub(super) fn fire_timers(&mut self) {
        while let Some(due) = self.timers.take_due(self.now_ms()) {
            for &(slot, generation) in &due {
                let is_it = self.generations.of(slot) == generation;
                if let Some(conn) = self.conns.get_mut(slot as usize)
                    && is_it
                    // An entry that was overtaken by an earlier one has been replaced by what that one found.
                    && conn.look_at_ms <= self.now_ns / 1_000_000
                {
                    conn.look_at_ms = u64::MAX;
                    if let Some(at_ms) = self.look(slot) {
                        self.look_at(slot, at_ms);
                    }
                }
            }
            self.timers.reuse(due);
        }
    }

    /// Does what is due for a connection; returns when to look again.
    fn look(&mut self, slot: u32) -> Option<u64> {
        let now_ms = self.now_ms();
        let write_due_ms = self.write_due_ms(slot);
        if write_due_ms <= now_ms {
            self.hub.counters.timeouts.add(TimeoutKind::Write, 1);
            self.finish(slot, 1006, "write timeout");
            return None;
        }
        let next_ms = self.look_by_phase(slot).into_iter().chain([write_due_ms]).min();
        next_ms.filter(|at_ms| *at_ms != u64::MAX && self.conns[slot as usize].phase != Phase::Dead)
    }

    fn look_by_phase(&mut self, slot: u32) -> Option<u64> {
        let now_ms = self.now_ms();
        let conn = &self.conns[slot as usize];
        let (phase, deadline_ms, lingers) = (conn.phase, conn.deadline_ms, conn.lingers);
        match phase {
            Phase::Accepting | Phase::Dead => None,
            Phase::Open => self.look_at_open(slot),
            _ if deadline_ms > now_ms => Some(deadline_ms),
            _ if self.is_read(slot) => Some(now_ms + LOOK_AT_READER_MS),
            Phase::Delayed => {
                self.start_http(slot);
                None
            }
            Phase::Http => {
                self.request_timed_out(slot);
                None
            }
            Phase::Closing | Phase::Flushing => {
                // One that lingers has been answered, and counted if it was late.
                self.hub.counters.timeouts.add(TimeoutKind::Close, u64::from(!lingers));
                self.teardown(slot);
                None
            }
        }
    }

    fn look_at_open(&mut self, slot: u32) -> Option<u64> {
        let now_ms = self.now_ms();
        let last_inbound_ms = self.quiet_since_ms(slot);
        self.conns[slot as usize].last_inbound_ms = last_inbound_ms;
        let limits = self.hub.limits(slot);
        let idle_timeout = limits.idle_timeout.unwrap_or(self.settings.idle_timeout);
        let ping_interval = in_time(limits.ping_interval.unwrap_or(self.settings.ping_interval), idle_timeout);
        let idle_at_ms = after(last_inbound_ms, idle_timeout);
        if idle_at_ms <= now_ms {
            // Half-open, or stalled: a Close frame would only wait behind whatever the peer does not read.
            self.hub.counters.timeouts.add(TimeoutKind::Idle, 1);
            self.finish(slot, 1006, "idle timeout");
            return None;
        }
        let mut ping_at_ms = after(last_inbound_ms, ping_interval);
        if ping_at_ms <= now_ms {
            OutboxReplies { outbox: &mut self.hub.outbox, slot }.reply(Opcode::Ping, b"");
            ping_at_ms = after(now_ms, ping_interval);
        }
        Some(ping_at_ms.min(idle_at_ms)).filter(|at_ms| *at_ms != u64::MAX)
    }

    /// Whether a connection whose time is up still has something queued that its peer is reading. The time begins anew when
    /// all has gone: see [`Shard::flushed`].
    fn is_read(&self, slot: u32) -> bool {
        let conn = &self.conns[slot as usize];
        let is_exempt = conn.phase == Phase::Delayed || conn.waits_for == Some(WaitsFor::Answer) || conn.hurried;
        if is_exempt || self.hub.outbox.is_empty(slot) {
            return false;
        }
        let Some(since_ms) = self.hub.outbox.waiting_since_ms(slot) else { return true };
        // For a response the limit of writing holds, if there is one. A WebSocket that is to close has less patience: it
        // may be closed because its peer does not read.
        let is_watched = !conn.entered && self.write_due_ms(slot) != u64::MAX;
        is_watched || after(since_ms, self.settings.close_timeout) > self.now_ms()
    }

    /// When a socket that is full has been so for too long.
    fn write_due_ms(&self, slot: u32) -> u64 {
        let conn = &self.conns[slot as usize];
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

    /// When timers must first look at a WebSocket.
    pub(super) fn watch_over(&mut self, slot: u32) {
        if let Some(at_ms) = self.look_at_open(slot) {
            self.look_at(slot, at_ms);
        }
    }

    // ---- not keeping up -------------------------------------------------------------------------------------------

    /// Tells handlers of messages that were dropped and of queues that have fallen. What a handler drops in doing so is
    /// told in a later tick, and does not make one.
    pub(super) fn tell_of_slowness(&mut self) {
        for (slot, dropped) in self.hub.take_losses() {
            if self.conns.get(slot as usize).is_some_and(|conn| conn.entered) {
                self.service.dropped(&mut self.hub, slot, &dropped);
            }
        }
        for (slot, from_bytes) in self.hub.take_falls() {
            if self.conns.get(slot as usize).is_some_and(|conn| conn.entered) {
                self.service.drained(&mut self.hub, slot, from_bytes);
            }
        }
    }

    // ---- going ----------------------------------------------------------------------------------------------------

    /// Closes what handlers, limits and other cores have asked to close, until nobody asks any more.
    pub(super) fn close_doomed(&mut self) {
        while self.hub.has_dooms() {
            for doom in self.hub.take_dooms() {
                if self.generations.of(doom.slot) == doom.generation && self.conns.contains(doom.slot as usize) {
                    self.start_close(doom.slot, doom.code, &doom.reason);
                }
            }
        }
    }

    /// Says Close to a WebSocket and waits for the peer's.
    fn start_close(&mut self, slot: u32, code: Option<u16>, reason: &str) {
        let conn = &mut self.conns[slot as usize];
        if conn.phase != Phase::Open {
            return;
        }
        // Nobody takes its messages any more: what is still read is read for the peer's Close.
        self.hub.outbox.set_held(slot, false);
        let mut replies = OutboxReplies { outbox: &mut self.hub.outbox, slot };
        conn.machine.close(code, reason, &mut replies);
        conn.end(code.unwrap_or(1005), reason, Side::Local);
        conn.phase = Phase::Closing;
        if conn.peer_finished {
            self.start_flush(slot);
        } else {
            // Input that was held back may contain the peer's Close.
            if self.conns[slot as usize].waits_for.is_some() {
                self.resumable.push((slot, self.generations.of(slot)));
            }
            self.await_close(slot);
        }
    }

    /// From now on the peer has so long to answer Close.
    pub(super) fn await_close(&mut self, slot: u32) {
        let now_ms = self.now_ms();
        let conn = &mut self.conns[slot as usize];
        // Where frames cannot be told apart any more, the peer's Close will not be recognised.
        let timeout_ms = after(0, self.settings.close_timeout);
        let limit_ms = if conn.machine.is_done() { LINGER_MS.min(timeout_ms) } else { timeout_ms };
        conn.deadline_ms = now_ms.saturating_add(limit_ms);
        let deadline_ms = conn.deadline_ms;
        self.look_at(slot, deadline_ms);
    }

    /// Closes the socket once what is queued has been sent, or time is up.
    pub(super) fn start_flush(&mut self, slot: u32) {
        let deadline_ms = after(self.now_ms(), self.settings.close_timeout);
        let conn = &mut self.conns[slot as usize];
        conn.phase = Phase::Flushing;
        conn.deadline_ms = deadline_ms;
        conn.stash = None;
        conn.waits_for = None;
        self.account(slot);
        self.hub.outbox.seal(slot);
        if self.hub.outbox.is_empty(slot) {
            self.teardown(slot);
        } else {
            self.look_at(slot, deadline_ms);
            self.watch(slot);
            // Closing over unread input would be a reset, which can destroy what is being flushed.
            self.start_receiving(slot);
        }
    }

    /// Ends a connection whose peer cannot be reached any more, or is not waited for.
    pub(super) fn finish(&mut self, slot: u32, code: u16, reason: &str) {
        self.conns[slot as usize].end(code, reason, Side::Nobody);
        self.teardown(slot);
    }

    /// Ends a connection: its last handler runs, its operations are cancelled, its descriptor is closed. The slot is free
    /// when the last of them has completed.
    pub(super) fn teardown(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        if matches!(conn.phase, Phase::Dead | Phase::Accepting) {
            return;
        }
        conn.phase = Phase::Dead;
        if conn.receiving == Receiving::Queued {
            conn.receiving = Receiving::Idle;
        }
        conn.stash = None;
        conn.waits_for = None;
        conn.machine.take_buffers(&mut self.hub.spares);
        self.hub.partial_bytes -= std::mem::take(&mut conn.held_bytes) as usize;
        self.hub.counters.released += 1;
        let ended = conn.ended.take();
        if std::mem::take(&mut conn.entered) {
            let ip = conn.peer.ip();
            let ended = ended.map_or_else(Ended::broken, |ended| *ended);
            self.hub.outbox.shut(slot);
            self.service.close(&mut self.hub, slot, &ended);
            self.hub.leave_all(slot);
            self.hub.counters.closed += 1;
            self.hub.counters.closes.add(ended.code, ended.by);
            self.admission.leave(ip);
        } else {
            self.admission.depart(conn.peer.ip());
        }
        self.hub.outbox.close(slot);
        let conn = &self.conns[slot as usize];
        match (conn.in_flight, conn.receiving) {
            (0, _) | (1, Receiving::Stopping) => {}
            // By its own name: to find whatever is in flight on a slot the kernel would search all of the ring, which made
            // the end of ten thousand connections cost more than their life.
            (1, Receiving::Multi) => self.ring.cancel_recv(self.token(Op::Recv, slot)),
            _ => self.ring.cancel(self.token(Op::Cancel, slot)),
        }
        self.conns[slot as usize].in_flight += 1;
        self.ring.close(self.token(Op::Close, slot));
    }

    pub(super) fn descriptor_closed(&mut self, token: Token) {
        if self.is_current(token) {
            let slot = token.index();
            debug_assert_eq!(self.conns[slot as usize].phase, Phase::Dead);
            self.conns[slot as usize].in_flight -= 1;
            self.free_if_done(slot);
        }
    }

    /// Frees a dead connection's slot when nothing of it is in flight.
    pub(super) fn free_if_done(&mut self, slot: u32) {
        let conn = &self.conns[slot as usize];
        if conn.phase == Phase::Dead && conn.in_flight == 0 {
            debug_assert_eq!(conn.receiving, Receiving::Idle);
            self.conns.remove(slot as usize);
            self.generations.end(slot);
        }
    }
}

/// The ping interval, but short enough for an answer to come before the idle timeout: a client that is only quiet is not to
/// be dropped because one of the two was set and the other was not thought of. Zero = never, for both.
fn in_time(ping_interval: std::time::Duration, idle_timeout: std::time::Duration) -> std::time::Duration {
    if idle_timeout.is_zero() { ping_interval } else { ping_interval.min(idle_timeout / 2) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::in_time;

    #[test]
    fn pings_come_before_the_idle_timeout() {
        for (ping, idle, expected) in
            [(30, 120, 30), (30, 20, 10), (30, 30, 15), (60, 120, 60), (0, 20, 0), (30, 0, 30)]
        {
            let seconds = Duration::from_secs;
            assert_eq!(in_time(seconds(ping), seconds(idle)), seconds(expected), "{ping} {idle}");
        }
    }
}
