//! A budget of memory for the whole process: what all cores hold for others, queued to be sent or not yet complete.
//!
//! Each core publishes its sum, in a cache line of its own, when it has changed in the course of a tick; nobody reads the
//! others' while nothing grows. So the sum is as of every core's last tick.
//!
//! The budget is *spent* when the sum is above it, and stays so until an eighth of it is free: meanwhile no WebSocket is
//! let in, and the cores shed the connections that hold the most, the largest of all cores first. For that, a core that
//! looks at its connections notes how much the largest of them holds, and how much is held by connections that are
//! leaving already. What a core has not noted is no more than its sum.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A core's part, apart from the others' in the cache: processors fetch lines of 64 bytes in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Share {
    held: AtomicU64,
    /// Of that, by connections that are on their way out.
    leaving: AtomicU64,
    /// What the largest connection holds that is not; [`UNKNOWN`] if the core has not looked.
    largest: AtomicU64,
}

const UNKNOWN: u64 = u64::MAX;

/// The budget. See the module.
#[derive(Debug, Default)]
pub struct Memory {
    bytes_max: u64,
    shares: Box<[Share]>,
    spent: AtomicBool,
}

impl Memory {
    /// A budget for so many cores; 0 bytes = no limit.
    pub fn new(bytes_max: u64, cores: usize) -> Memory {
        let share = || Share { held: AtomicU64::new(0), leaving: AtomicU64::new(0), largest: AtomicU64::new(UNKNOWN) };
        Memory { bytes_max, shares: (0..cores).map(|_| share()).collect(), spent: AtomicBool::new(false) }
    }

    /// Whether there is a limit.
    #[inline]
    pub fn is_limited(&self) -> bool {
        self.bytes_max > 0
    }

    /// The limit in bytes; 0 = none.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Says what a core holds.
    pub fn publish(&self, core: usize, held: u64) {
        self.shares[core].held.store(held, Ordering::Relaxed);
    }

    /// What all cores hold.
    pub fn held(&self) -> u64 {
        self.shares.iter().map(|share| share.held.load(Ordering::Relaxed)).sum()
    }

    /// Whether the budget was spent, and not enough of it is free again.
    pub fn is_spent(&self) -> bool {
        if !self.is_limited() {
            return false;
        }
        let held = self.held();
        let was = self.spent.load(Ordering::Relaxed);
        let is = held > if was { self.low() } else { self.bytes_max };
        if is != was {
            self.spent.store(is, Ordering::Relaxed);
        }
        is
    }

    /// The sum at which enough is free again.
    fn low(&self) -> u64 {
        self.bytes_max - self.bytes_max / 8
    }

    /// Bytes to shed, besides what is leaving already.
    pub fn excess(&self) -> u64 {
        if !self.is_spent() {
            return 0;
        }
        // What a core has noted may have gone since.
        let leaving = |share: &Share| {
            let held = share.held.load(Ordering::Relaxed);
            share.leaving.load(Ordering::Relaxed).min(held)
        };
        let leaving: u64 = self.shares.iter().map(leaving).sum();
        self.held().saturating_sub(leaving).saturating_sub(self.low())
    }

    /// Notes what a core has found among its connections.
    pub fn note(&self, core: usize, largest: u64, leaving: u64) {
        self.shares[core].largest.store(largest, Ordering::Relaxed);
        self.shares[core].leaving.store(leaving, Ordering::Relaxed);
    }

    /// Forgets what a core has noted.
    pub fn forget(&self, core: usize) {
        self.note(core, UNKNOWN, 0);
    }

    /// Whether a connection of `core` that holds `bytes` is the largest of all cores; if another core has a larger one, or
    /// has not looked and may have one, that core. Of equals the lowest core's is the largest.
    pub fn larger_elsewhere(&self, core: usize, bytes: u64) -> Option<usize> {
        let bound = |share: &Share| {
            let held = share.held.load(Ordering::Relaxed);
            share.largest.load(Ordering::Relaxed).min(held)
        };
        let others = self.shares.iter().enumerate().filter(|(other, _)| *other != core);
        let (rival_bytes, Reverse(rival)) = others.map(|(other, share)| (bound(share), Reverse(other))).max()?;
        (rival_bytes > 0 && (rival_bytes, Reverse(rival)) > (bytes, Reverse(core))).then_some(rival)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_limit_it_is_never_spent() {
        let memory = Memory::default();
        assert!(!memory.is_limited() && !memory.is_spent());
        assert_eq!((memory.excess(), memory.held()), (0, 0));
    }

    #[test]
    fn it_is_spent_until_an_eighth_is_free() {
        let memory = Memory::new(800, 2);
        let held = |first, second| {
            memory.publish(0, first);
            memory.publish(1, second);
            (memory.is_spent(), memory.excess())
        };
        assert_eq!(held(400, 400), (false, 0));
        assert_eq!(held(400, 401), (true, 101));
        assert_eq!(held(400, 301), (true, 1));
        assert_eq!(held(400, 300), (false, 0));
        assert_eq!(held(400, 400), (false, 0), "and up to the limit again");
    }

    #[test]
    fn what_is_leaving_is_not_shed_twice() {
        let memory = Memory::new(800, 2);
        memory.publish(0, 1000);
        memory.note(0, 100, 250);
        assert_eq!((memory.is_spent(), memory.excess()), (true, 50));
        memory.note(0, 100, 900);
        assert_eq!((memory.is_spent(), memory.excess()), (true, 0));
        memory.publish(0, 10);
        memory.publish(1, 1000);
        assert_eq!(memory.excess(), 300, "it has gone");
    }

    #[test]
    fn the_largest_of_all_cores_goes_first() {
        let memory = Memory::new(800, 3);
        memory.publish(0, 500);
        memory.publish(2, 600);
        assert_eq!(memory.larger_elsewhere(0, 500), Some(2), "it may be one connection's");
        assert_eq!(memory.larger_elsewhere(2, 600), None);
        memory.note(2, 499, 0);
        assert_eq!(memory.larger_elsewhere(0, 500), None);
        assert_eq!(memory.larger_elsewhere(0, 499), None, "of equals the lowest core's");
        assert_eq!(memory.larger_elsewhere(2, 499), Some(0));
        assert_eq!(memory.larger_elsewhere(0, 498), Some(2));
        memory.forget(2);
        assert_eq!(memory.larger_elsewhere(0, 500), Some(2));
        memory.publish(2, 0);
        assert_eq!(memory.larger_elsewhere(0, 0), None, "who holds nothing has nothing to shed");
    }
}
