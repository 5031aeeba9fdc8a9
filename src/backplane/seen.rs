//! Which of a node's numbered messages have come: none is taken twice, in whatever order they come.

/// Numbers that are told apart behind the highest one; what comes later than that is not taken, for it may have come before.
const WINDOW: u64 = 1 << 16;

/// A window over the numbers of one sender.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// One past the highest.
    end: u64,
    /// A ring of bits; made when it is needed.
    bits: Box<[u64]>,
}

impl Seen {
    /// Notes a number; false if it has come before, or may have.
    pub(super) fn take(&mut self, number: u64) -> bool {
        if self.bits.is_empty() {
            self.bits = vec![0; (WINDOW / 64) as usize].into();
            self.end = number;
        }
        if number == u64::MAX || number.saturating_add(WINDOW) < self.end {
            return false;
        }
        if number >= self.end {
            if number - self.end >= WINDOW {
                self.bits.fill(0);
            } else {
                for skipped in self.end..=number {
                    *self.word(skipped) &= !(1 << (skipped % 64));
                }
            }
            self.end = number + 1;
        }
        let bit = 1 << (number % 64);
        let word = self.word(number);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    fn word(&mut self, number: u64) -> &mut u64 {
        &mut self.bits[(number % WINDOW / 64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_taken_once_in_any_order() {
        let mut seen = Seen::default();
        for number in [100, 102, 101, 90, 500_000, 499_999] {
            assert!(seen.take(number), "{number}");
            assert!(!seen.take(number), "{number} again");
        }
        assert!(!seen.take(102), "it is too long ago to tell");
        assert!(seen.take(500_000 - WINDOW + 1));
        assert!(!seen.take(u64::MAX));
    }
}
