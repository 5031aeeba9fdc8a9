//! How connections come and go: accepts, time limits, closing.

use std::collections::VecDeque;
use std::time::Duration;

use http::StatusCode;

use super::clock::Times;
use super::conn::{Conn, Phase, Receiving};
use super::drain::Leaving;
use super::log;
use super::timers::after;
use super::{ACCEPT_BACKOFF_MS, LINGER_MS, Shard};
use crate::admission::most_beside;
use crate::engine::{Completion, Key, Op, Peer, Ring, Token};
use crate::marks::{Mark, reach};
use crate::metrics::{RefusalReason, Side, TimeoutKind};
use crate::outbox::OutboxReplies;
use crate::proto::Replies;
use crate::proto::frame::Opcode;
use crate::shard::service::{Ended, Reply, Serves, Service};

/// Most accepts in flight per listener.
const ACCEPTS_IN_FLIGHT_MAX: usize = 32;
/// How long a core that has more connections than another leaves new ones to that, if it takes none.
const LEAVE_TO_OTHERS_MS: u64 = 50;
/// How long it is not told again that accepting fails.
const TELL_AGAIN_MS: u64 = 10_000;
/// The time for a request when places are few, or the core is about to end.
const HURRIED_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a connection is looked at whose time is up but for what it still reads.
const LOOK_AT_READER_MS: u64 = 500;

/// Accepts in flight and to come. Each has a place.
pub(super) struct Accepting {
    /// Listeners of which one more may be accepted, in turn.
    pub(super) wanted: VecDeque<u8>,
    pub(super) in_flight: u32,
    /// Of each listener.
    in_flight_of: Vec<usize>,
    /// Something has changed since accepts were last armed.
    is_due: bool,
    /// There was no slot for another one: once there is, they are due.
    lacks_slots: bool,
    /// The connections that the other cores know of, and whether they know that this one waits for more.
    published: (Option<u32>, bool),
    /// Too far ahead of a core that has so many connections, it leaves new ones to that until then.
    leaves: Option<(u32, u64)>,
    /// That core took none all that time.
    left_in_vain_to: Option<u32>,
    /// Nobody is accepted before that; 0 = at once.
    pub(super) again_ms: u64,
    /// When it is told again that accepting fails.
    tell_again_ms: u64,
    /// When it is looked again for who takes up one of few places.
    make_room_again_ms: u64,
}

impl Accepting {
    /// As many accepts as a table of so many places has room for: with few of them, they are for connections.
    pub(super) fn new(slots: usize, listeners: u8) -> Accepting {
        let per_listener = (slots / 8 / usize::from(listeners).max(1)).clamp(1, ACCEPTS_IN_FLIGHT_MAX);
        let wanted = (0..per_listener).flat_map(|_| 0..listeners).collect();
        Accepting {
            wanted,
            in_flight: 0,
            in_flight_of: vec![0; usize::from(listeners)],
            is_due: true,
            lacks_slots: false,
            published: (Some(0), false),
            leaves: None,
            left_in_vain_to: None,
            again_ms: 0,
            tell_again_ms: 0,
            make_room_again_ms: 0,
        }
    }

    /// When accepts are to be armed if nothing else happens.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        let again_ms = (self.again_ms > 0).then_some(self.again_ms);
        let due_ms = again_ms.or(self.leaves.map(|(_, until_ms)| until_ms));
        due_ms.filter(|_| !self.wanted.is_empty())
    }

    /// Whether the queue of every listener is being emptied.
    fn is_at_all(&self) -> bool {
        self.is_at(|_| true)
    }

    /// Whether the queue of each of those listeners is being emptied.
    pub(super) fn is_at(&self, is_meant: impl Fn(u8) -> bool) -> bool {
        self.in_flight_of.iter().zip(0..).all(|(in_flight, listener)| *in_flight > 0 || !is_meant(listener))
    }

    /// Nobody is accepted from that listener any more.
    pub(super) fn end(&mut self, listener: u8) {
        self.wanted.retain(|wanted| *wanted != listener);
    }
}

impl<R: Ring, S: Service> Shard<R, S> {
    // ---- coming ---------------------------------------------------------------------------------------------------

    /// Keeps accepts in flight as long as there are slots to accept into. Where it stops waiting for connections, full, ending or
    /// out of descriptors, those that sleep and leave theirs to it are told.
    pub(super) fn arm_accepts(&mut self) {
        let (_, waited) = self.accepting.published;
        self.arm_wanted_accepts();
        if waited && !self.accepting.published.1 {
            for other in self.admission.balance().those_that_do_not_wait(self.hub.core()) {
                self.hub.wake(other, |core| self.ring.ring_doorbell(core));
            }
        }
    }

    fn arm_wanted_accepts(&mut self) {
        self.tell_of_connections();
        let Accepting { again_ms, is_due, lacks_slots, leaves, .. } = self.accepting;
        if self.accepting.wanted.is_empty() || !self.accepts_anybody() || again_ms > self.now_ms() {
            return;
        }
        // Who leaves connections to others may have been told that it is its turn.
        let has_slots_again = lacks_slots && self.conns.next_vacant() < self.ring.slots();
        if !is_due && !has_slots_again && again_ms == 0 && leaves.is_none() {
            return;
        }
        self.accepting.again_ms = 0;
        self.accepting.is_due = false;
        self.accepting.lacks_slots = false;
        let most = self.accepts_in_flight_max();
        self.arm_up_to(most);
        self.tell_of_connections();
        if most == 0 && self.accepts_in_flight_max() > 0 {
            self.arm_up_to(1);
            self.tell_of_connections();
        }
    }

    /// Arms accepts until so many are in flight for each listener.
    fn arm_up_to(&mut self, most: usize) {
        // In turn, so that no listener goes without where there are few slots.
        for _ in 0..self.accepting.wanted.len() {
            let Some(listener) = self.accepting.wanted.pop_front() else { break };
            if self.accepting.in_flight_of[usize::from(listener)] >= most {
                self.accepting.wanted.push_back(listener);
                continue;
            }
            if self.conns.next_vacant() >= self.ring.slots() {
                // All taken: the backlog waits until a connection goes.
                self.accepting.wanted.push_front(listener);
                self.accepting.lacks_slots = true;
                return;
            }
            let slot = self.conns.insert(Conn::accepting(listener)).slot();
            self.accepting.in_flight += 1;
            self.accepting.in_flight_of[usize::from(listener)] += 1;
            let token = self.conns.launch(Op::Accept, slot);
            self.ring.accept(u32::from(listener), token);
        }
    }

    /// Tells the other cores how many connections this one has, or that it takes no more, and whether it waits for some.
    fn tell_of_connections(&mut self) {
        let is_full = self.accepting.in_flight == 0 && self.conns.next_vacant() >= self.ring.slots();
        let connections = (self.accepts_everybody() && !is_full).then_some(self.connections() as u32);
        let (waits, (told, told_waits)) = (self.accepting.is_at_all(), self.accepting.published);
        self.accepting.published = (connections, waits);
        if told != connections {
            self.accepting.is_due = true;
            self.admission.balance().publish(self.hub.core(), connections);
        }
        if told_waits != waits {
            self.admission.balance().set_waits(self.hub.core(), waits);
        }
    }

    /// Accepts that may be in flight for each listener now: all together as many as this core may have more, for they may all
    /// be taken before it is asked again. None while this core is too far ahead of one that waits for
    /// connections, which is sooner done then; but not for long, for that one may be busy: if it has taken none meanwhile, what
    /// comes is taken one by one.
    fn accepts_in_flight_max(&mut self) -> usize {
        let leaves = self.accepting.leaves.take();
        let least = self.admission.balance().least(self.hub.core()).filter(|_| self.drain().is_none());
        let Some((other, least)) = least else { return usize::MAX };
        let room = most_beside(least).saturating_sub(self.connections() as u32);
        let leaves = leaves.filter(|(left_to, _)| *left_to == least);
        if room > 0 {
            self.accepting.left_in_vain_to = None;
            return (room as usize / self.accepting.in_flight_of.len()).max(1);
        }
        if !self.admission.balance().waits(other) {
            self.hub.wake(other, |core| self.ring.ring_doorbell(core));
            return 1;
        }
        let until_ms = leaves.map_or_else(|| self.now_ms() + LEAVE_TO_OTHERS_MS, |(_, until_ms)| until_ms);
        if until_ms <= self.now_ms() {
            self.accepting.left_in_vain_to = Some(least);
        }
        if self.accepting.left_in_vain_to == Some(least) {
            return 1;
        }
        reach(Mark::LeavesToOthers);
        self.accepting.leaves = Some((least, until_ms));
        0
    }

    pub(super) fn accepted(&mut self, completion: &Completion) {
        let Some(key) = self.conns.owner(completion.token) else { return };
        let slot = key.slot();
        let listener = self.conns[slot].listener;
        self.accepting.in_flight -= 1;
        self.accepting.in_flight_of[usize::from(listener)] -= 1;
        self.accepting.is_due = true;
        self.conns.land(slot);
        if self.accepts(listener) {
            self.accepting.wanted.push_back(listener);
        }
        if let Err(errno) = completion.result {
            self.conns.free_if_done(slot);
            if errno != libc::ECANCELED {
                self.hub.counters.accept_errors += 1;
            }
            // Out of descriptors or memory: the connection stays in the backlog, and asking again at once would spin.
            if !matches!(errno, libc::ECANCELED | libc::ECONNABORTED | libc::EINTR | libc::EAGAIN) {
                reach(Mark::AcceptBacksOff);
                let now_ms = self.now_ms();
                if self.accepting.tell_again_ms <= now_ms {
                    self.accepting.tell_again_ms = now_ms + TELL_AGAIN_MS;
                    let failed = self.hub.counters.accept_errors;
                    tracing::warn!(errno, failed, "accepting fails; it is tried again each {ACCEPT_BACKOFF_MS} ms");
                }
                self.accepting.again_ms = now_ms + ACCEPT_BACKOFF_MS;
            }
            return;
        }
        self.hub.counters.accepted += 1;
        let now_ms = self.now_ms();
        let conn = &mut self.conns[slot];
        conn.peer = match self.ring.peer(slot) {
            Peer::Inet(address) => Some(address).into(),
            Peer::Unix => None.into(),
        };
        conn.last_inbound_ms = now_ms;
        self.begin_line(slot);
        let conn = &mut self.conns[slot];
        let entrance = self.settings.entrance(conn.listener);
        let is_admins = entrance.serves == Serves::Admin;
        conn.awaits_proxy = entrance.proxy_protocol;
        let is_proxy = self.settings.trusted_proxies.trust(conn.peer.ip());
        // A proxy's connections are those of its clients, who are not known yet.
        conn.counted = !(entrance.proxy_protocol || is_proxy || is_admins);
        let is_welcome = !conn.counted || self.admission.arrive(conn.peer.ip());
        let due_ns = match &mut self.leaving {
            Leaving::Draining(drain) => {
                drain.quiet_ticks = 0;
                Some(self.clock.now_ns)
            }
            // Who is refused for other reasons takes no turn from anybody.
            _ if !is_welcome => None,
            _ if is_admins => Some(self.clock.now_ns),
            _ => self.admission.accept_due_ns(self.clock.now_ns),
        };
        self.hub.outbox.open(slot, key.generation());
        self.hub.traffic.open(slot);
        if entrance.proxy_protocol && !is_proxy && !self.settings.trusted_proxies.is_empty() {
            self.hub.counters.refused.add(RefusalReason::Proxy, 1);
            log::refused(&self.hub, self.conns[slot].peer.into(), RefusalReason::Proxy, None);
            return self.start_flush(slot);
        }
        match due_ns {
            _ if !is_welcome => {
                let message = "too many connections from this address";
                self.turn_away(slot, RefusalReason::Address, StatusCode::TOO_MANY_REQUESTS, message);
            }
            None => {
                let message = "too many new connections";
                self.turn_away(slot, RefusalReason::Rate, StatusCode::SERVICE_UNAVAILABLE, message);
            }
            Some(due_ns) if due_ns > self.clock.now_ns => {
                conn.turn_to(Phase::Delayed);
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
        // Before the handshake there is no way to say why, and to make it for that is what a flood would want.
        if self.wires.is_handshaking(slot) {
            log::refused(&self.hub, self.conns[slot].peer.into(), reason, None);
            return self.start_flush(slot);
        }
        log::refused(&self.hub, self.conns[slot].peer.into(), reason, Some(status.as_u16()));
        self.refuse_late(slot, &Reply::error(status, message).with_retry_after());
    }

    pub(super) fn start_http(&mut self, slot: u32) {
        self.conns[slot].turn_to(Phase::Http);
        self.give_time(slot);
        self.start_receiving(slot);
    }

    /// Gives a connection time for what it is about to do: for a request, or for none.
    pub(super) fn give_time(&mut self, slot: u32) {
        let is_between = self.conns[slot].is_between_requests();
        let times = self.times();
        let limit = if is_between { times.between } else { times.request };
        self.conns[slot].deadline_ms = after(self.now_ms(), limit);
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
        if self.is_crowded() && self.accepting.make_room_again_ms <= now_ms {
            self.accepting.make_room_again_ms = now_ms + HURRIED_TIMEOUT.as_millis() as u64;
            self.hurry(|_| true);
        }
    }

    /// Gives connections that are to ask for something, and are meant, no more time than this.
    pub(super) fn hurry(&mut self, is_meant: impl Fn(&Conn) -> bool) {
        let until_ms = after(self.now_ms(), HURRIED_TIMEOUT);
        let is_late =
            |conn: &Conn| conn.phase == Phase::Http && conn.waits_for.is_none() && conn.deadline_ms > until_ms;
        for key in self.conns.keys_where(|conn| is_late(conn) && is_meant(conn)) {
            self.conns[key.slot()].deadline_ms = until_ms;
            self.look_at_deadline(key.slot());
        }
    }

    /// The same for one connection.
    pub(super) fn hurry_one(&mut self, slot: u32) {
        let until_ms = after(self.now_ms(), HURRIED_TIMEOUT);
        if self.conns.is_taken(slot) && self.conns[slot].phase == Phase::Http && self.conns[slot].deadline_ms > until_ms
        {
            self.conns[slot].deadline_ms = until_ms;
            self.look_at_deadline(slot);
        }
    }

    // ---- time limits ----------------------------------------------------------------------------------------------

    /// Has timers look at a connection at `at_ms` at the latest.
    pub(super) fn look_at(&mut self, slot: u32, at_ms: u64) {
        let conn = &mut self.conns[slot];
        if at_ms < conn.look_at_ms {
            conn.look_at_ms = at_ms;
            self.timers.insert(at_ms, self.conns.key(slot));
        }
    }

    /// Has timers look at a connection when the deadline of its phase has passed.
    pub(super) fn look_at_deadline(&mut self, slot: u32) {
        let deadline_ms = self.conns[slot].deadline_ms;
        if deadline_ms != u64::MAX {
            self.look_at(slot, deadline_ms);
        }
    }

    pub(super) fn fire_timers(&mut self) {
        while let Some(due) = self.timers.take_due(self.now_ms()) {
            for &key in &due {
                // An entry that was overtaken by an earlier one has been replaced by what that one found.
                if let Some(conn) = self.conns.get_mut(key)
                    && conn.look_at_ms <= self.clock.now_ns / 1_000_000
                {
                    conn.look_at_ms = u64::MAX;
                    if let Some(at_ms) = self.look(key.slot()) {
                        self.look_at(key.slot(), at_ms);
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
        next_ms.filter(|at_ms| *at_ms != u64::MAX && self.conns[slot].phase != Phase::Dead)
    }

    fn look_by_phase(&mut self, slot: u32) -> Option<u64> {
        let now_ms = self.now_ms();
        let conn = &self.conns[slot];
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
        self.conns[slot].last_inbound_ms = last_inbound_ms;
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
            if self.is_entered(slot) {
                self.service.dropped(&mut self.hub, slot, &dropped);
            }
        }
        for (slot, from_bytes) in self.hub.take_falls() {
            if self.is_entered(slot) {
                self.service.drained(&mut self.hub, slot, from_bytes);
            }
        }
    }

    fn is_entered(&self, slot: u32) -> bool {
        self.conns.is_taken(slot) && self.conns[slot].entered
    }

    // ---- going ----------------------------------------------------------------------------------------------------

    /// Closes what handlers, limits and other cores have asked to close, until nobody asks any more.
    pub(super) fn close_doomed(&mut self) {
        while self.hub.has_dooms() {
            for doom in self.hub.take_dooms() {
                if self.conns.contains(Key::new(doom.slot, doom.generation)) {
                    self.start_close(doom.slot, doom.code, &doom.reason);
                }
            }
        }
    }

    /// Says Close to a WebSocket and waits for the peer's.
    fn start_close(&mut self, slot: u32, code: Option<u16>, reason: &str) {
        let conn = &mut self.conns[slot];
        if conn.phase != Phase::Open {
            return;
        }
        // Nobody takes its messages any more: what is still read is read for the peer's Close.
        self.hub.outbox.set_held(slot, false);
        let mut replies = OutboxReplies { outbox: &mut self.hub.outbox, slot };
        conn.machine.close(code, reason, &mut replies);
        conn.end(code.unwrap_or(1005), reason, Side::Local);
        conn.turn_to(Phase::Closing);
        if conn.peer_finished {
            self.start_flush(slot);
        } else {
            // Input that was held back may contain the peer's Close.
            if self.conns[slot].waits_for.is_some() {
                self.waiting.resumable.push(self.conns.key(slot));
            }
            self.await_close(slot);
        }
    }

    /// From now on the peer has so long to answer Close.
    pub(super) fn await_close(&mut self, slot: u32) {
        let now_ms = self.now_ms();
        let conn = &mut self.conns[slot];
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
        let conn = &mut self.conns[slot];
        conn.turn_to(Phase::Flushing);
        conn.deadline_ms = deadline_ms;
        conn.stash = None;
        conn.waits_for = None;
        self.account(slot);
        self.hub.outbox.seal(slot);
        self.end_of_output(slot);
        if self.is_all_sent(slot) {
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
        self.conns[slot].end(code, reason, Side::Nobody);
        self.teardown(slot);
    }

    /// Ends a connection: its last handler runs, its operations are cancelled, its descriptor is closed. The slot is free
    /// when the last of them has completed.
    pub(super) fn teardown(&mut self, slot: u32) {
        let conn = &mut self.conns[slot];
        if matches!(conn.phase, Phase::Dead | Phase::Accepting) {
            return;
        }
        conn.turn_to(Phase::Dead);
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
            log::closed(&mut self.hub, slot, &ended);
            self.service.close(&mut self.hub, slot, &ended);
            self.hub.leave_all(slot);
            self.hub.counters.closed += 1;
            self.hub.counters.closes.add(ended.code, ended.by);
            self.admission.leave(ip);
        } else if conn.counted {
            self.admission.depart(conn.peer.ip());
        }
        self.hub.outbox.close(slot);
        self.end_line(slot);
        match (self.conns.in_flight(slot), self.conns[slot].receiving) {
            (0, _) | (1, Receiving::Stopping) => {}
            // By its own name: to find whatever is in flight on a slot the kernel would search all of the ring, which made
            // the end of ten thousand connections cost more than their life.
            (1, Receiving::Multi) => self.ring.cancel_recv(self.conns.token(Op::Recv, slot)),
            _ => self.ring.cancel(self.conns.token(Op::Cancel, slot)),
        }
        let token = self.conns.launch(Op::Close, slot);
        self.ring.close(token);
    }

    pub(super) fn descriptor_closed(&mut self, token: Token) {
        if let Some(key) = self.conns.owner(token) {
            debug_assert_eq!(self.conns[key.slot()].phase, Phase::Dead);
            self.conns.land(key.slot());
            self.free_if_done(key.slot());
        }
    }

    /// Frees a dead connection's slot when nothing of it is in flight.
    pub(super) fn free_if_done(&mut self, slot: u32) {
        if self.conns[slot].phase == Phase::Dead {
            debug_assert!(self.conns.in_flight(slot) > 0 || self.conns[slot].receiving == Receiving::Idle);
            self.conns.free_if_done(slot);
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
