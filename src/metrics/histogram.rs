//! How long something took, in log-spaced buckets: to count one costs a few instructions, whatever the time.

/// The first bucket's upper bound, as a power of two of nanoseconds: 1.024 µs.
const FIRST_BITS: u32 = 10;
/// Buckets with an upper bound, each twice the one before: the last is for up to 1.07 s.
const BOUNDED: usize = 21;

/// Times by how long they were.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, ws};
///
/// let server = TestServer::new(|| App::new().ws("/echo", ws().on_message(|_, message| message.into_owned())));
/// let client = server.connect("/echo");
/// client.send("hello");
/// let handling = server.block_on(server.hub().metrics()).cores[0].counters.handling;
/// println!("{} ticks, the longest of {} ns", handling.count(), handling.max_ns());
/// # assert!(handling.count() > 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Not cumulative; the last is for what is longer than the last bound.
    buckets: [u64; BOUNDED + 1],
    sum_ns: u64,
    max_ns: u64,
}

impl Histogram {
    /// Counts a time.
    ///
    /// ```
    /// use ringwire::metrics::Histogram;
    ///
    /// let mut times = Histogram::default();
    /// [900, 1500, 2500].map(|ns| times.add(ns));
    /// assert_eq!(times.count(), 3);
    /// ```
    #[inline]
    pub fn add(&mut self, ns: u64) {
        // A bound belongs to its own bucket, as Prometheus has it.
        let above = ns.saturating_sub(1) >> FIRST_BITS;
        let bucket = (u64::BITS - above.leading_zeros()) as usize;
        self.buckets[bucket.min(BOUNDED)] += 1;
        self.sum_ns += ns;
        self.max_ns = self.max_ns.max(ns);
    }

    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Their sum in nanoseconds.
    ///
    /// ```
    /// use ringwire::metrics::Histogram;
    ///
    /// let mut times = Histogram::default();
    /// [900, 1500, 2500].map(|ns| times.add(ns));
    /// assert_eq!(times.sum_ns() / times.count(), 1633, "on average");
    /// ```
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// The longest in nanoseconds; 0 if there was none.
    ///
    /// ```
    /// use ringwire::metrics::Histogram;
    ///
    /// let mut times = Histogram::default();
    /// [900, 1500, 2500].map(|ns| times.add(ns));
    /// assert_eq!(times.max_ns(), 2500);
    /// ```
    pub fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// The upper bounds in nanoseconds, each with how many times were at most that long.
    ///
    /// ```
    /// use ringwire::metrics::Histogram;
    ///
    /// let mut times = Histogram::default();
    /// [900, 1500, 2500].map(|ns| times.add(ns));
    /// let first: Vec<_> = times.cumulative().take(3).collect();
    /// assert_eq!(first, [(1024, 1), (2048, 2), (4096, 3)]);
    /// ```
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut count = 0;
        self.buckets[..BOUNDED].iter().enumerate().map(move |(index, in_bucket)| {
            count += in_bucket;
            (1 << (FIRST_BITS + index as u32), count)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_in_its_bucket_and_one_more_is_not() {
        for (index, (bound_ns, _)) in Histogram::default().cumulative().enumerate() {
            let mut histogram = Histogram::default();
            histogram.add(bound_ns);
            histogram.add(bound_ns + 1);
            let counts: Vec<u64> = histogram.cumulative().map(|(_, count)| count).collect();
            let expected = |at: usize| (at >= index) as u64 + (at > index) as u64;
            assert_eq!(counts, (0..BOUNDED).map(expected).collect::<Vec<u64>>(), "{bound_ns}");
            assert_eq!(
                (histogram.count(), histogram.sum_ns(), histogram.max_ns()),
                (2, 2 * bound_ns + 1, bound_ns + 1)
            );
        }
    }

    #[test]
    fn extremes_are_counted() {
        let mut histogram = Histogram::default();
        histogram.add(0);
        histogram.add(u64::MAX / 2);
        let counts: Vec<u64> = histogram.cumulative().map(|(_, count)| count).collect();
        assert_eq!((counts[0], counts[BOUNDED - 1], histogram.count()), (1, 1, 2));
    }
}
