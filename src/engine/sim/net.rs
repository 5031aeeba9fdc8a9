//! What all cores of a world share.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::engine::Nanos;

use super::faults::{Fault, FaultCounts, Faults};
use super::rng::Rng;
use super::socket::Socket;

/// What all cores share: the clock, chance, and the connections.
pub(super) struct Net {
    pub(super) now: Nanos,
    pub(super) rng: Rng,
    pub(super) faults: Faults,
    pub(super) counts: FaultCounts,
    pub(super) sockets: Vec<Socket>,
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

    pub(super) fn record(&mut self, what: u64) {
        // FNV-1a, a word at a time.
        self.fingerprint = (self.fingerprint ^ what).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(5);
    }
}
