//! What all cores of a world share.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::engine::{Nanos, Token};

use super::faults::{Fault, FaultCounts, Faults};
use super::rng::Rng;
use super::socket::Socket;

/// A listener from which several cores accept. See `listeners.rs`.
#[derive(Default)]
pub(super) struct Shared {
    /// Cores that have it open.
    pub(super) holders: usize,
    pub(super) turns_away: bool,
    /// Connections to accept, each with the time from which it shows.
    pub(super) pending: VecDeque<(usize, Nanos)>,
    /// How many of them have shown: each has woken an accept, or has found none that waited.
    pub(super) shown: usize,
    /// Accepts that wait to be woken, each with its core, since the longest time first.
    pub(super) waiters: VecDeque<(usize, Token)>,
}

/// What all cores share: the clock, chance, and the connections.
pub(super) struct Net {
    pub(super) now: Nanos,
    pub(super) rng: Rng,
    pub(super) faults: Faults,
    pub(super) counts: FaultCounts,
    pub(super) sockets: Vec<Socket>,
    /// Listeners of several cores, by number.
    pub(super) shared: Vec<Shared>,
    /// Connections that cores have asked for and nobody has looked at yet.
    pub(super) dialled: VecDeque<(usize, Option<SocketAddr>)>,
    pub(super) slots_reused: u64,
    pub(super) fingerprint: u64,
    /// See [`World::unended`](super::World::unended).
    pub(super) unended: Option<String>,
}

impl Net {
    /// Whether `fault` happens now, where it could.
    pub(super) fn hit(&mut self, fault: Fault) -> bool {
        let hit = self.rng.chance(self.faults.chance(fault));
        if hit {
            self.counts.count(fault);
        }
        hit
    }

    /// A time to which something is delayed.
    pub(super) fn later(&mut self) -> Nanos {
        self.now + 1 + self.rng.below(self.faults.delay_ns_max.max(1))
    }

    /// When a shared listener wakes somebody next.
    pub(super) fn next_wake(&self) -> Option<Nanos> {
        let awaited = self.shared.iter().filter(|shared| !shared.waiters.is_empty());
        awaited.filter_map(|shared| shared.pending.get(shared.shown)).map(|&(_, at)| at).min()
    }

    pub(super) fn record(&mut self, what: u64) {
        // FNV-1a, a word at a time.
        self.fingerprint = (self.fingerprint ^ what).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(5);
    }
}
