//! How connections are spread over the cores.
//!
//! All cores accept from the same sockets, whose waiters the kernel wakes in turn. A core publishes how many connections it
//! has, whether it waits for more, and in the end that it has drained, in a cache line of its own. One that is ahead of the core
//! that has the fewest leaves new ones to that, if it waits for some: so new connections go to whoever has few, and stay where
//! they are.
//!
//! Nobody is left to a core that does not wait: whoever stops waiting says so and then looks once more at the other one, with
//! sequential consistency, so of two that leave new connections to each other at once one sees it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// How many connections a core may be ahead of another before it leaves new ones to that; one in sixteen where that is more.
const AHEAD_MAX: u32 = 2;
/// In place of a core's connections: it takes no part.
const AWAY: u32 = u32::MAX;

/// A core's part, apart from the others' in the cache: processors fetch lines of 64 bytes in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Share {
    connections: AtomicU32,
    waits: AtomicBool,
    has_drained: AtomicBool,
}

/// What each core has. See the module.
#[derive(Debug, Default)]
pub struct Balance {
    shares: Box<[Share]>,
}

impl Balance {
    /// Between so many cores, none of which has any.
    pub fn new(cores: usize) -> Balance {
        Balance { shares: (0..cores).map(|_| Share::default()).collect() }
    }

    /// Says how many connections a core has; `None` if it takes no more for now.
    pub fn publish(&self, core: usize, connections: Option<u32>) {
        if let Some(share) = self.shares.get(core) {
            share.connections.store(connections.map_or(AWAY, |connections| connections.min(AWAY - 1)), Ordering::Relaxed);
        }
    }

    /// Says whether a core waits for connections on every listener.
    pub fn set_waits(&self, core: usize, waits: bool) {
        if let Some(share) = self.shares.get(core) {
            share.waits.store(waits, Ordering::SeqCst);
        }
    }

    /// Whether a core waits for connections.
    pub fn waits(&self, core: usize) -> bool {
        self.shares.get(core).is_some_and(|share| share.waits.load(Ordering::SeqCst))
    }

    /// Says that a core has nothing left to drain, or has ended.
    pub fn set_drained(&self, core: usize) {
        if let Some(share) = self.shares.get(core) {
            share.has_drained.store(true, Ordering::Relaxed);
        }
    }

    /// Whether no core has anything left to drain.
    pub fn have_drained(&self) -> bool {
        self.shares.iter().all(|share| share.has_drained.load(Ordering::Relaxed))
    }

    /// The other cores that do not wait for connections: they may leave theirs to somebody.
    pub fn those_that_do_not_wait(&self, core: usize) -> impl Iterator<Item = usize> {
        (0..self.shares.len()).filter(move |other| *other != core && !self.waits(*other))
    }

    /// Which other core has the fewest connections, and how many; `None` if nobody else takes part.
    pub fn least(&self, core: usize) -> Option<(usize, u32)> {
        let others = self.shares.iter().enumerate().filter(|(other, _)| *other != core);
        let connections = others.map(|(other, share)| (other, share.connections.load(Ordering::Relaxed)));
        connections.min_by_key(|(_, connections)| *connections).filter(|(_, least)| *least != AWAY)
    }
}

/// How many connections a core may have where another one has so many.
pub fn most_beside(least: u32) -> u32 {
    least.saturating_add(AHEAD_MAX.max(least / 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_with_the_fewest_is_known() {
        let balance = Balance::new(3);
        assert_eq!(balance.least(0), Some((1, 0)), "at the start");
        balance.publish(1, Some(10));
        balance.publish(2, Some(40));
        assert_eq!([0, 1, 2].map(|core| balance.least(core)), [Some((1, 10)), Some((0, 0)), Some((0, 0))]);
        balance.publish(0, Some(3200));
        balance.publish(1, None);
        assert_eq!([0, 1, 2].map(|core| balance.least(core)), [Some((2, 40)), Some((2, 40)), Some((0, 3200))]);
        balance.publish(0, None);
        assert_eq!(balance.least(2), None);
        assert_eq!(Balance::default().least(0), None);
    }

    #[test]
    fn cores_may_differ_by_a_few_or_a_sixteenth() {
        assert_eq!([0, 10, 32, 3200, u32::MAX].map(most_beside), [2, 12, 34, 3400, u32::MAX]);
    }
}
