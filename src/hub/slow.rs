//! Connections that do not keep up: what happens to messages for which there is no room, and who is told.

use std::cmp::Reverse;

use super::CoreHub;
use crate::config::SlowConsumer;
use crate::metrics::{DropReason, ShedReason};
use crate::outbox::{Dropped, Key, Outgoing, Queued};

impl CoreHub {
    #[inline]
    pub(super) fn deliver(&mut self, slot: u32, message: &mut Outgoing<'_>) -> Queued {
        match self.try_queue(slot, message) {
            Queued::Yes => {
                self.counters.messages_out += 1;
                self.traffic.queued(slot);
                Queued::Yes
            }
            Queued::Full => self.overflow(slot, message),
            Queued::Gone => Queued::Gone,
        }
    }

    #[inline(always)]
    fn try_queue(&mut self, slot: u32, message: &mut Outgoing<'_>) -> Queued {
        if self.streams.has_receivers()
            && let Some(queued) = self.queue_compressed(slot, message)
        {
            return queued;
        }
        match message.key() {
            Some(key) if self.policy(slot) == SlowConsumer::KeepLatest => self.queue_latest(slot, message, key),
            _ => self.outbox.put(slot, message),
        }
    }

    fn queue_latest(&mut self, slot: u32, message: &mut Outgoing<'_>, key: Key) -> Queued {
        if !self.is_open(slot) {
            return Queued::Gone;
        }
        let before = self.outbox.queued_bytes(slot);
        let (queued, dropped) = self.outbox.put_latest(slot, message, key);
        self.lost(slot, dropped, before);
        queued
    }

    pub(super) fn policy(&self, slot: u32) -> SlowConsumer {
        let is_member = (slot as usize) < self.members.len();
        let own = if is_member { self.limits(slot).slow_consumer } else { None };
        own.unwrap_or(self.slow_consumer)
    }

    /// A connection's queue is full: what its route says happens.
    #[cold]
    pub(super) fn overflow(&mut self, slot: u32, message: &mut Outgoing<'_>) -> Queued {
        let policy = self.policy(slot);
        let before = self.outbox.queued_bytes(slot);
        let mut dropped = Dropped::default();
        let mut queued = Queued::Full;
        match policy {
            SlowConsumer::Close => {
                self.counters.shed.add(ShedReason::SlowConsumer, 1);
                self.close(slot, Some(1013), "slow consumer");
            }
            SlowConsumer::DropNew => {}
            SlowConsumer::DropOld | SlowConsumer::KeepLatest => {
                if policy == SlowConsumer::KeepLatest {
                    dropped.add(self.outbox.conflate(slot));
                    if !dropped.is_none() {
                        queued = self.try_queue(slot, message);
                    }
                }
                if queued == Queued::Full {
                    dropped.add(self.outbox.drop_oldest(slot, message.wire_len()));
                    queued = self.try_queue(slot, message);
                }
            }
        }
        match queued {
            Queued::Yes => {
                self.counters.messages_out += 1;
                self.traffic.queued(slot);
            }
            _ => dropped.add(Dropped::one_newest(message.wire_len())),
        }
        if policy == SlowConsumer::Close {
            self.counters.drops.add(DropReason::Close, dropped.newest);
        } else {
            self.counters.drops.add(DropReason::DropNew, dropped.newest);
        }
        self.lost(slot, dropped, before);
        queued
    }

    /// Counts what a connection has lost of a queue of `before` bytes, and has it told.
    pub(super) fn lost(&mut self, slot: u32, dropped: Dropped, before: usize) {
        if dropped.is_none() {
            return;
        }
        self.counters.drops.add(DropReason::DropOld, dropped.oldest);
        self.counters.drops.add(DropReason::Replaced, dropped.replaced);
        self.outbox.note_fall(slot, before);
        if (slot as usize) < self.members.len() && self.limits(slot).reports_drops {
            let generation = self.members[slot as usize].generation;
            self.losses.entry((slot, generation)).or_default().add(dropped);
        }
    }

    /// What connections have lost since the last call, each with its slot; those that have gone meanwhile are left out.
    pub(crate) fn take_losses(&mut self) -> Vec<(u32, Dropped)> {
        let losses = std::mem::take(&mut self.losses);
        let is_it = |slot: u32, generation: u32| {
            let member = &self.members[slot as usize];
            member.open && member.generation == generation
        };
        let of = losses.into_iter().filter(|((slot, generation), _)| is_it(*slot, *generation));
        of.map(|((slot, _), dropped)| (slot, dropped)).collect()
    }

    /// The connections whose queues have become shorter since the last call, each with the most that was in it before.
    pub(crate) fn take_falls(&mut self) -> Vec<(u32, usize)> {
        let mut falls = self.outbox.take_falls();
        falls.sort_unstable_by_key(|(slot, from_bytes)| (*slot, Reverse(*from_bytes)));
        falls.dedup_by_key(|(slot, _)| *slot);
        falls
    }

    /// Whether a queue of `from_bytes` has fallen to `below_bytes`.
    pub(crate) fn has_fallen(&self, slot: u32, from_bytes: usize, below_bytes: usize) -> bool {
        from_bytes > below_bytes && self.outbox.queued_bytes(slot) <= below_bytes
    }
}
