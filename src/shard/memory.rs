//! The core's part in the process's memory budget: it says what it holds, and sheds what is too much.
//!
//! It looks after the batch has been sent, so what counts is what sockets have refused, not what is just passing through;
//! and it says at both ends of a tick what it holds, because a tick may be the last one for long. While the budget is
//! spent, rooms forget what they keep of their messages, and the connections that hold the most are shed, the largest of all
//! cores first, until an eighth of the budget is free: what is queued to them is forgotten, and they are closed with 1013 behind what is in flight (IANA's registry of
//! close codes: try again later).
//!
//! How far past the budget it may go: by what one tick of each core queues and receives, and by what comes in the time
//! between two looks at all connections, [`LOOK_INTERVAL_NS`] and [`LOOK_NS_PER_SLOT`]. Connections that were shed keep
//! what the kernel is working on, for [`SHED_MS`] at the longest: one waiting send of 64 KiB or of one larger message, and
//! the buffer of one message that is being received, and until they have gone the rooms that they are in. Requests whose
//! handlers are at work, and messages that tasks of ended connections have not taken, count and are never shed; letters between cores do not count, their
//! number has a limit of its own.

use super::Shard;
use super::conn::{Conn, Phase, WaitsFor};
use super::log;
use crate::engine::Ring;
use crate::marks::{Mark, reach};
use crate::metrics::{RefusalReason, ShedReason};
use crate::shard::service::{Reply, Service};

/// Between two looks at all connections of the core, so that the looking does not take its time away.
const LOOK_INTERVAL_NS: u64 = 1_000_000;
/// As long again for each slot in use: a look takes a few nanoseconds for each.
const LOOK_NS_PER_SLOT: u64 = 200;
/// Between two looks when nothing was found that could be shed.
const LOOK_AGAIN_NS: u64 = 100_000_000;
/// How long a connection that was shed has to read what is in flight and its Close frame.
const SHED_MS: u64 = 1_000;

/// What the core has said and found so far.
#[derive(Default)]
pub(super) struct Minding {
    published: u64,
    /// The budget was spent at the last look.
    watchful: bool,
    /// The next look is due then, while watchful.
    look_at_ns: u64,
}

impl<R: Ring, S: Service> Shard<R, S> {
    /// Says what the core holds, and sheds if it is too much. Once a tick, when the batch has been settled.
    #[inline]
    pub(super) fn mind_memory(&mut self) {
        if self.admission.memory().is_limited() {
            self.mind_limit();
        }
    }

    fn mind_limit(&mut self) {
        let held = self.held_bytes();
        let grew = held > self.minding.published;
        self.publish(held);
        let asked = std::mem::take(&mut self.hub.shed_wanted);
        if !grew && !asked && !self.minding.watchful {
            return;
        }
        let memory = self.admission.memory();
        if !memory.is_spent() {
            if std::mem::take(&mut self.minding.watchful) {
                memory.forget(self.hub.core());
            }
        } else if !self.minding.watchful || asked || self.clock.now_ns >= self.minding.look_at_ns {
            self.minding.watchful = true;
            self.shed();
        }
    }

    /// When to look again at what the connections hold, if that must not wait for something else to happen.
    pub(super) fn next_look_ms(&self) -> Option<u64> {
        let is_due = self.minding.watchful && self.minding.published > 0;
        is_due.then(|| self.minding.look_at_ns.div_ceil(1_000_000))
    }

    /// At the end of a tick: what it holds if the batch is sent whole. If it is not, there will be another tick.
    #[inline]
    pub(super) fn say_what_is_held(&mut self) {
        self.hub.inbox_bytes = self.service.inbox_bytes();
        if self.admission.memory().is_limited() {
            let kept = self.hub.kept_bytes();
            let held = (self.hub.outbox.refused_bytes() + self.hub.partial_bytes + self.hub.inbox_bytes + kept) as u64;
            let grew = held > self.minding.published;
            self.publish(held);
            self.hub.shed_wanted |= grew && self.admission.memory().excess() > 0;
        }
    }

    /// Whether it must look in the next tick, and not sleep before.
    pub(super) fn must_look(&self) -> bool {
        self.hub.shed_wanted
    }

    fn held_bytes(&self) -> u64 {
        let hub = &self.hub;
        (hub.outbox.backlog_bytes() + hub.partial_bytes + hub.inbox_bytes + hub.kept_bytes()) as u64
    }

    fn publish(&mut self, held: u64) {
        if held != self.minding.published {
            self.minding.published = held;
            self.admission.memory().publish(self.hub.core(), held);
        }
    }

    /// Looks at all connections, and sheds the largest while they are the largest of all cores and there is too much.
    #[cold]
    fn shed(&mut self) {
        let core = self.hub.core();
        // What rooms keep for those who may come is given up before those who are here.
        let excess = usize::try_from(self.admission.memory().excess()).unwrap_or(usize::MAX);
        if self.hub.forget_histories(excess) > 0 {
            self.publish(self.held_bytes());
        }
        let mut leaving = 0;
        let mut holders: Vec<(u64, u32)> = Vec::new();
        for (slot, conn) in self.conns.iter() {
            let bytes = self.held_by(slot, conn);
            if bytes > 0 && self.can_be_shed(slot, conn) {
                holders.push((bytes, slot));
            } else if matches!(conn.phase, Phase::Closing | Phase::Flushing) {
                leaving += bytes;
            }
        }
        holders.sort_unstable();
        let largest = |holders: &[(u64, u32)]| holders.last().map_or(0, |(bytes, _)| *bytes);
        self.admission.memory().note(core, largest(&holders), leaving);
        let mut excess = self.admission.memory().excess();
        let mut shed_any = false;
        let mut elsewhere = None;
        while excess > 0 {
            elsewhere = self.admission.memory().larger_elsewhere(core, largest(&holders));
            let (None, Some((bytes, slot))) = (elsewhere, holders.pop()) else { break };
            leaving += self.shed_one(slot, bytes);
            excess = excess.saturating_sub(bytes);
            shed_any = true;
        }
        self.admission.memory().note(core, largest(&holders), leaving);
        self.hub.inbox_bytes = self.service.inbox_bytes();
        self.publish(self.held_bytes());
        // It has not looked yet, or it will find that its turn has come.
        if let Some(other) = elsewhere {
            self.hub.ask_to_shed(other);
        }
        let interval_ns = LOOK_INTERVAL_NS + self.conns.len() as u64 * LOOK_NS_PER_SLOT;
        self.minding.look_at_ns =
            self.clock.now_ns + if shed_any { interval_ns } else { interval_ns.max(LOOK_AGAIN_NS) };
    }

    fn held_by(&self, slot: u32, conn: &Conn) -> u64 {
        if matches!(conn.phase, Phase::Accepting | Phase::Dead) {
            return 0;
        }
        let inbox = if conn.entered { self.service.inbox_bytes_of(slot) + self.hub.kept_by(slot) } else { 0 };
        (self.hub.outbox.queued_bytes(slot) + inbox) as u64 + u64::from(conn.held_bytes)
    }

    fn can_be_shed(&self, slot: u32, conn: &Conn) -> bool {
        match conn.phase {
            Phase::Open => self.hub.is_open(slot),
            Phase::Http => conn.waits_for != Some(WaitsFor::Answer),
            _ => false,
        }
    }

    /// Closes a connection that holds so many bytes; returns how many it still holds.
    fn shed_one(&mut self, slot: u32, bytes: u64) -> u64 {
        let now_ms = self.now_ms();
        reach(Mark::ShedForMemory);
        self.hub.counters.shed.add(ShedReason::Memory, 1);
        if self.conns[slot].phase == Phase::Http {
            self.shed_request(slot);
        } else {
            self.hub.close(slot, Some(1013), "out of memory");
            self.hub.outbox.discard(slot);
            self.service.empty_inbox(slot);
            self.close_doomed();
            let conn = &mut self.conns[slot];
            if matches!(conn.phase, Phase::Closing | Phase::Flushing) {
                conn.machine.forget_message(&mut self.hub.spares);
                conn.deadline_ms = conn.deadline_ms.min(now_ms + SHED_MS);
                conn.hurried = true;
                let deadline_ms = conn.deadline_ms;
                self.look_at(slot, deadline_ms);
            }
            self.account(slot);
        }
        let left = self.held_by(slot, &self.conns[slot]);
        self.hub.counters.shed_bytes += bytes.saturating_sub(left);
        left
    }

    /// Answers a request that is not complete, or ends a connection that does not read its responses.
    fn shed_request(&mut self, slot: u32) {
        if !self.is_all_sent(slot) || self.wires.is_handshaking(slot) {
            return self.finish(slot, 1006, "out of memory");
        }
        self.hub.counters.refused.add(RefusalReason::Memory, 1);
        log::refused(&self.hub, self.conns[slot].peer.into(), RefusalReason::Memory, Some(503));
        let reply = Reply::out_of_memory();
        self.refuse_late(slot, &reply);
    }

    /// Counts what a connection holds of messages and requests that are incomplete or held back.
    pub(super) fn account(&mut self, slot: u32) {
        if !self.conns.is_taken(slot) {
            return;
        }
        let line = self.wires.memory_bytes(slot);
        let conn = &mut self.conns[slot];
        let stash = conn.stash.as_ref().map_or(0, |stash| stash.memory_bytes());
        let held_bytes = u32::try_from(conn.machine.memory_bytes() + stash + line).unwrap_or(u32::MAX);
        self.hub.partial_bytes -= conn.held_bytes as usize;
        self.hub.partial_bytes += held_bytes as usize;
        conn.held_bytes = held_bytes;
    }
}
