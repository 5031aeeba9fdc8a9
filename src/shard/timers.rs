//! When to look at a connection again.
//!
//! A connection's deadlines move with every byte it sends, so they are not kept here: an entry only says "look at this
//! connection then", and looking finds out whether a deadline has really passed or when to look next. Traffic costs
//! nothing, an idle connection one entry.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::Key;

/// Milliseconds that one bucket covers, as a power of two: entries are up to one bucket late.
const BUCKET_BITS: u32 = 4;

/// Entries by time. Times are milliseconds on the core's clock.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    buckets: BTreeMap<u64, Vec<Key>>,
    free: Vec<Vec<Key>>,
}

impl Timers {
    /// Looks at this connection, if it is still there, at `at_ms` or up to one bucket later.
    pub(crate) fn insert(&mut self, at_ms: u64, key: Key) {
        let bucket = (at_ms >> BUCKET_BITS) + 1;
        let free = &mut self.free;
        self.buckets.entry(bucket).or_insert_with(|| free.pop().unwrap_or_default()).push(key);
    }

    /// When the next entry is due.
    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.buckets.first_key_value().map(|(bucket, _)| bucket << BUCKET_BITS)
    }

    /// Takes the entries of one bucket that is due; call until `None`, and give each list back to [`Timers::reuse`].
    pub(crate) fn take_due(&mut self, now_ms: u64) -> Option<Vec<Key>> {
        let first = self.buckets.first_entry()?;
        (first.key() << BUCKET_BITS <= now_ms).then(|| first.remove())
    }

    /// Keeps an emptied list's memory.
    pub(crate) fn reuse(&mut self, mut list: Vec<Key>) {
        list.clear();
        if self.free.len() < 4 && list.capacity() <= 4096 {
            self.free.push(list);
        }
    }
}

/// `from` plus a limit that is none when it is 0.
pub(super) fn after(from_ms: u64, limit: Duration) -> u64 {
    if limit.is_zero() { u64::MAX } else { from_ms.saturating_add((limit.as_millis() as u64).max(1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_in_time_never_early_and_at_most_a_bucket_late() {
        let mut timers = Timers::default();
        for at_ms in [1000, 17, 16, 1001, 0] {
            timers.insert(at_ms, Key::new(at_ms as u32, 1));
        }
        let mut seen = Vec::new();
        for now_ms in 0..1100 {
            while let Some(list) = timers.take_due(now_ms) {
                for slot in list.iter().map(|key| key.slot()) {
                    assert!(u64::from(slot) < now_ms && now_ms <= u64::from(slot) + (1 << BUCKET_BITS));
                    seen.push(slot);
                }
                timers.reuse(list);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 16, 17, 1000, 1001]);
        assert_eq!(timers.next_due_ms(), None);
    }
}
