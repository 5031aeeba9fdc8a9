//! One receiver's view of one stream: which message is due, and which are missing.
//!
//! Invariant: `gaps` and `given_up` are disjoint, ascending, not empty, and all below `next`.

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tracker {
    /// The message that is due.
    pub(crate) next: u64,
    gaps: Vec<(u64, u64)>,
    /// Not waited for any more: lost, whether they come or not.
    given_up: Vec<(u64, u64)>,
    /// How many of those came.
    came_too_late: u64,
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
    /// It was given up before.
    TooLate,
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
        let Some(index) = place_in(&self.gaps, sequence) else {
            if place_in(&self.given_up, sequence).is_none() {
                return Arrival::Duplicate;
            }
            self.came_too_late += 1;
            return Arrival::TooLate;
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

    /// Gives the messages up to `end` up.
    pub(crate) fn give_up(&mut self, end: u64) {
        if end <= self.next {
            return;
        }
        match self.given_up.last_mut() {
            Some(last) if last.1 == self.next => last.1 = end,
            _ => self.given_up.push((self.next, end)),
        }
        self.next = end;
    }

    /// How many came after they had been given up.
    pub(crate) fn came_too_late(&self) -> u64 {
        self.came_too_late
    }

    /// Whether message `sequence` has not come.
    pub(crate) fn is_missing(&self, sequence: u64) -> bool {
        sequence >= self.next || [&self.gaps, &self.given_up].iter().any(|ranges| place_in(ranges, sequence).is_some())
    }

    /// How many of the `sent` messages have not come, or not before they were given up.
    pub(crate) fn missing(&self, sent: u64) -> u64 {
        let ranges = self.gaps.iter().chain(&self.given_up);
        sent.saturating_sub(self.next) + ranges.map(|range| range.1 - range.0).sum::<u64>()
    }
}

fn place_in(ranges: &[(u64, u64)], sequence: u64) -> Option<usize> {
    ranges.iter().position(|range| (range.0..range.1).contains(&sequence))
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
        assert_eq!(tracker.arrive(1), Arrival::Late);
    }

    /// Kills: what was given up called out of order, or no longer lost, when it comes; a list that grows with each look.
    #[test]
    fn what_was_given_up_stays_lost() {
        let mut tracker = Tracker::default();
        assert_eq!(tracker.arrive(2), Arrival::After(2));
        tracker.give_up(3);
        (4..1_000).for_each(|end| tracker.give_up(end));
        assert_eq!((tracker.next, tracker.missing(1_000), tracker.given_up.len()), (999, 999, 1));
        assert_eq!([3, 998, 0, 2].map(|sequence| tracker.arrive(sequence)), {
            [Arrival::TooLate, Arrival::TooLate, Arrival::Late, Arrival::Duplicate]
        });
        assert_eq!((tracker.missing(1_000), tracker.came_too_late()), (998, 2));
        assert!(tracker.is_missing(3) && tracker.is_missing(1) && !tracker.is_missing(0));
        assert_eq!(tracker.arrive(999), Arrival::InOrder);
    }
}
