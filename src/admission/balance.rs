//! How connections are spread over the cores.
//!
//! All cores accept from the same sockets, whose waiters the kernel wakes in turn. A core publishes how many connections it
//! has, in a cache line of its own, and keeps fewer accepts in flight, or none for a while, when it is ahead of the one that
//! has the fewest: so new connections go to whoever has few, and stay where they are.

use std::sync::atomic::{AtomicU32, Ordering};

/// How many connections a core may be ahead of another before it leaves new ones to that; one in sixteen where that is more.
const AHEAD_MAX: u32 = 2;
/// In place of a core's connections: it takes no part.
const AWAY: u32 = u32::MAX;

/// A core's part, apart from the others' in the cache: processors fetch lines of 64 bytes in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Share(AtomicU32);

/// What each core has. See the module.
#[derive(Debug, Default)]
pub struct Balance {
    shares: Box<[Share]>,
}

impl Balance {
    /// Between so many cores, none of which has any.
    pub fn new(cores: usize) -> Balance {
        Balance { shares: (0..cores).map(|_| Share(AtomicU32::new(0))).collect() }
    }

    /// Says how many connections a core has.
    pub fn publish(&self, core: usize, connections: u32) {
        if let Some(share) = self.shares.get(core) {
            share.0.store(connections.min(AWAY - 1), Ordering::Relaxed);
        }
    }

    /// Says that a core accepts nobody for now: the others do not wait for it.
    pub fn withdraw(&self, core: usize) {
        if let Some(share) = self.shares.get(core) {
            share.0.store(AWAY, Ordering::Relaxed);
        }
    }

    /// The connections of whoever has the fewest, beside this core; `None` if nobody else takes part.
    pub fn least(&self, core: usize) -> Option<u32> {
        let others = self.shares.iter().enumerate().filter(|(other, _)| *other != core);
        others.map(|(_, share)| share.0.load(Ordering::Relaxed)).min().filter(|least| *least != AWAY)
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
        assert_eq!(balance.least(0), Some(0), "at the start");
        balance.publish(1, 10);
        balance.publish(2, 40);
        balance.publish(0, 0);
        assert_eq!([0, 1, 2].map(|core| balance.least(core)), [Some(10), Some(0), Some(0)], "of the others");
        balance.publish(0, 3200);
        balance.withdraw(1);
        assert_eq!([0, 1, 2].map(|core| balance.least(core)), [Some(40), Some(40), Some(3200)]);
        balance.withdraw(0);
        assert_eq!(balance.least(2), None);
        assert_eq!(Balance::default().least(0), None);
    }

    #[test]
    fn cores_may_differ_by_a_few_or_a_sixteenth() {
        assert_eq!([0, 10, 32, 3200, u32::MAX].map(most_beside), [2, 12, 34, 3400, u32::MAX]);
    }
}
