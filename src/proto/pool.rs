//! A core's cache of byte buffers for messages that do not fit into one receive buffer.
//!
//! Invariant: `bytes` = sum of the capacities kept <= `bytes_max`, and `buffers` is sorted by capacity.
//!
//! [`Pool::trim_unused`], called now and then, frees what nobody has used since it was called last.

/// Most buffers kept.
const COUNT_MAX: usize = 64;

/// The smallest buffer made, in bytes.
const CLASS_MIN: usize = 1024;

/// A buffer is handed out for a need down to this fraction of its capacity: more would let a small message pin a large
/// buffer.
const WASTE_MAX: usize = 8;

/// A cache of buffers, best fit, bounded in bytes and in number. Once warm, taking and giving do not allocate.
#[derive(Debug)]
pub struct Pool {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
    bytes_max: usize,
    /// The fewest bytes that were kept since the pool was trimmed last: so many were not used.
    bytes_low: usize,
}

impl Pool {
    /// A cache that keeps at most `bytes_max` bytes of buffers.
    pub fn new(bytes_max: usize) -> Self {
        Self { buffers: Vec::new(), bytes: 0, bytes_max, bytes_low: 0 }
    }

    /// An empty buffer with at least `min_capacity` bytes of capacity: the best fit of the cache, or a new one of the next
    /// size class, at most a quarter more (and at least 1 KiB).
    pub fn take(&mut self, min_capacity: usize) -> Vec<u8> {
        self.take_cached(min_capacity, min_capacity).unwrap_or_else(|| Vec::with_capacity(size_class(min_capacity)))
    }

    /// As [`Pool::take`], but only from the cache: the best fit for `wanted` bytes, else the largest buffer that has
    /// `min_capacity`.
    pub fn take_cached(&mut self, min_capacity: usize, wanted: usize) -> Option<Vec<u8>> {
        let wanted = wanted.max(min_capacity);
        let fit = self.buffers.partition_point(|buffer| buffer.capacity() < wanted);
        let index = match self.buffers.get(fit) {
            Some(buffer) if buffer.capacity() / WASTE_MAX <= wanted.max(CLASS_MIN) => fit,
            _ => fit.checked_sub(1)?,
        };
        if self.buffers[index].capacity() < min_capacity {
            return None;
        }
        let buffer = self.buffers.remove(index);
        self.bytes -= buffer.capacity();
        self.bytes_low = self.bytes_low.min(self.bytes);
        self.invariants();
        Some(buffer)
    }

    /// Gives a buffer to the cache; its content is dropped. It is freed where the cache is full.
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        let capacity = buffer.capacity();
        if capacity < CLASS_MIN {
            return;
        }
        if self.buffers.len() == COUNT_MAX {
            // The smallest is the cheapest to make again.
            if self.buffers[0].capacity() >= capacity {
                return;
            }
            self.bytes -= self.buffers.remove(0).capacity();
            self.bytes_low = self.bytes_low.min(self.bytes);
        }
        if self.bytes + capacity > self.bytes_max {
            return;
        }
        let index = self.buffers.partition_point(|kept| kept.capacity() < capacity);
        self.buffers.insert(index, buffer);
        self.bytes += capacity;
        self.invariants();
    }

    /// Frees everything kept.
    pub fn trim(&mut self) {
        *self = Self::new(self.bytes_max);
    }

    /// Frees as many bytes, in the largest buffers, as were kept all the time since this was called last. All of them when
    /// none was used; those that are in use all the time are not among them.
    pub fn trim_unused(&mut self) {
        let mut unused = self.bytes_low;
        while let Some(buffer) = self.buffers.pop_if(|largest| largest.capacity() <= unused) {
            unused -= buffer.capacity();
            self.bytes -= buffer.capacity();
        }
        // A large one that is used stands above smaller ones that are not.
        self.buffers.retain(|buffer| {
            let keeps = buffer.capacity() > unused;
            if !keeps {
                unused -= buffer.capacity();
                self.bytes -= buffer.capacity();
            }
            keeps
        });
        if self.buffers.is_empty() {
            self.buffers = Vec::new();
        }
        self.bytes_low = self.bytes;
        self.invariants();
    }

    /// Bytes of the buffers kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many buffers are kept.
    pub fn len(&self) -> usize {
        self.buffers.len()
    }

    /// Whether no buffer is kept.
    pub fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    fn invariants(&self) {
        debug_assert!(self.bytes <= self.bytes_max);
        debug_assert_eq!(self.bytes, self.buffers.iter().map(Vec::capacity).sum::<usize>());
        debug_assert!(self.buffers.is_sorted_by_key(Vec::capacity));
    }
}

/// The capacity of a new buffer for `bytes`: the next of 4 steps between two powers of two.
pub fn size_class(bytes: usize) -> usize {
    if bytes <= CLASS_MIN {
        return CLASS_MIN;
    }
    let step = 1 << ((bytes - 1).ilog2() - 2);
    bytes.div_ceil(step) * step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        assert_eq!(size_class(0), 1024);
        assert_eq!(size_class(1024), 1024);
        assert_eq!(size_class(1025), 1280);
        assert_eq!(size_class(2048), 2048);
        assert_eq!(size_class(2049), 2560);
        for bytes in 1024..20_000 {
            let class = size_class(bytes);
            assert!(class >= bytes && class <= bytes + bytes / 4, "{bytes} {class}");
        }
    }

    #[test]
    fn best_fit_and_reuse() {
        let mut pool = Pool::new(1 << 20);
        let (small, large) = (pool.take(2000), pool.take(8000));
        let (at_small, at_large) = (small.as_ptr(), large.as_ptr());
        assert_eq!((small.capacity(), large.capacity()), (2048, 8192));
        pool.give(large);
        pool.give(small);
        assert_eq!(pool.bytes(), 2048 + 8192);
        let (small, large) = (pool.take(1500), pool.take(1500));
        assert_eq!((small.as_ptr(), large.as_ptr()), (at_small, at_large));
        assert!(pool.is_empty());
    }

    #[test]
    fn a_small_need_does_not_pin_a_large_buffer() {
        let mut pool = Pool::new(1 << 20);
        pool.give(Vec::with_capacity(1 << 19));
        assert_eq!(pool.take(100).capacity(), 1024);
        assert_eq!(pool.take(1 << 16).capacity(), 1 << 19);
    }

    #[test]
    fn cached_takes_the_wanted_size_or_the_largest_that_will_do() {
        let mut pool = Pool::new(1 << 20);
        pool.give(Vec::with_capacity(4096));
        pool.give(Vec::with_capacity(65_536));
        assert!(pool.take_cached(70_000, 80_000).is_none());
        assert_eq!(pool.take_cached(2000, 80_000).unwrap().capacity(), 65_536);
        assert_eq!(pool.take_cached(2000, 80_000).unwrap().capacity(), 4096);
        assert!(pool.take_cached(0, 0).is_none());
    }

    /// Kills: buffers that stay for ever, and those in use that are given up.
    #[test]
    fn what_is_not_used_between_two_looks_is_freed() {
        let mut pool = Pool::new(1 << 20);
        for capacity in [2048, 4096, 300_000] {
            pool.give(Vec::with_capacity(capacity));
        }
        pool.trim_unused();
        assert_eq!(pool.len(), 3, "they have come since");
        for _ in 0..3 {
            let used = pool.take(4096);
            pool.give(used);
            pool.trim_unused();
            assert_eq!(pool.bytes(), 4096, "of the others nobody had need");
        }
        pool.trim_unused();
        assert_eq!((pool.len(), pool.bytes()), (0, 0));
        pool.give(Vec::with_capacity(2048));
        pool.give(Vec::with_capacity(300_000));
        pool.trim_unused();
        let used = pool.take(300_000);
        pool.give(used);
        pool.trim_unused();
        assert_eq!(pool.bytes(), 300_000);
    }

    #[test]
    fn bounded_in_bytes_and_count() {
        let mut pool = Pool::new(10_000);
        pool.give(Vec::with_capacity(8000));
        pool.give(Vec::with_capacity(4000));
        assert_eq!((pool.len(), pool.bytes()), (1, 8000));
        let mut pool = Pool::new(1 << 30);
        for _ in 0..COUNT_MAX + 5 {
            pool.give(Vec::with_capacity(1024));
        }
        assert_eq!(pool.len(), COUNT_MAX);
        pool.give(Vec::with_capacity(4096));
        assert_eq!((pool.len(), pool.buffers.last().unwrap().capacity()), (COUNT_MAX, 4096));
        pool.trim();
        assert_eq!((pool.len(), pool.bytes()), (0, 0));
    }
}
