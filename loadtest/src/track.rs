//! One receiver's view of one stream: which message is due, and which are missing.
//!
//! Invariant: `gaps` are disjoint, ascending, not empty, and all below `next`.

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tracker {
    /// The message that is due.
    pub(crate) next: u64,
    gaps: Vec<(u64, u64)>,
}

/// What an arrival means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It was due.
    InOrder,
    /// These many before it are missing so far.
    After(u64),
    /// It was missing: others came before it.
    Late,
    /// It had come already.
    Duplicate,
}

impl Tracker {
    /// Notes that message `sequence` came.
    pub(crate) fn arrive(&mut self, sequence: u64) -> Arrival {
        if sequence >= self.next {
            let skipped = sequence - self.next;
            if skipped > 0 {
                self.gaps.push((self.next, sequence));
            }
            self.next = sequence + 1;
            return if skipped == 0 { Arrival::InOrder } else { Arrival::After(skipped) };
        }
        let Some(index) = self.gaps.iter().position(|gap| (gap.0..gap.1).contains(&sequence)) else {
            return Arrival::Duplicate;
        };
        let (start, end) = self.gaps.remove(index);
        if sequence + 1 < end {
            self.gaps.insert(index, (sequence + 1, end));
        }
        if start < sequence {
            self.gaps.insert(index, (start, sequence));
        }
        Arrival::Late
    }

    /// Gives the messages up to `end` up: what comes of them is late.
    pub(crate) fn skip_to(&mut self, end: u64) {
        if end > self.next {
            self.gaps.push((self.next, end));
            self.next = end;
        }
    }

    /// Whether message `sequence` has not come.
    pub(crate) fn is_missing(&self, sequence: u64) -> bool {
        sequence >= self.next || self.gaps.iter().any(|gap| (gap.0..gap.1).contains(&sequence))
    }

    /// How many of the `sent` messages have not come.
    pub(crate) fn missing(&self, sent: u64) -> u64 {
        sent.saturating_sub(self.next) + self.gaps.iter().map(|gap| gap.1 - gap.0).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_arrival_is_told_apart() {
        let mut tracker = Tracker::default();
        assert_eq!(tracker.arrive(0), Arrival::InOrder);
        assert_eq!(tracker.arrive(4), Arrival::After(3));
        assert_eq!(tracker.missing(6), 4);
        assert_eq!(tracker.arrive(2), Arrival::Late);
        assert_eq!(tracker.arrive(2), Arrival::Duplicate);
        assert_eq!(tracker.arrive(3), Arrival::Late);
        assert_eq!(tracker.arrive(4), Arrival::Duplicate);
        assert_eq!(tracker.arrive(5), Arrival::InOrder);
        assert_eq!(tracker.missing(6), 1);
        assert_eq!([0, 1, 2, 5, 6].map(|sequence| tracker.is_missing(sequence)), [false, true, false, false, true]);
        tracker.skip_to(9);
        assert_eq!((tracker.next, tracker.missing(9)), (9, 4));
        assert_eq!(tracker.arrive(1), Arrival::Late);
    }
}
