//! The ring of provided buffers that a core's multishot receives fill.
//!
//! One anonymous mapping holds the buffers, another the entries that the kernel reads. The kernel takes buffers from the
//! head, the core gives them back at the tail; nothing is copied and no idle connection holds a buffer.
//!
//! Two kernels, two ways. With incremental consumption (Linux 6.12) a buffer is large and the kernel fills it from front
//! to back, one receive behind the other: small messages of many sockets lie side by side in the cache, and a large one
//! comes in one piece. Without it every receive takes a whole buffer, however little it brings.
//!
//! Invariant: each buffer is either lent to the kernel or ours, and only ours is ever turned into a slice:
//! `lent + filled + spare == count`.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::{Extent, Filled};

/// Bytes of buffers that are likely to stay in a core's second-level cache.
const CACHED_BYTES: u32 = 1 << 20;
/// How often buffers must be missing before there are more of them than stay in the cache.
const MISSES_PER_GROWTH: u32 = 4096;

/// Page-aligned anonymous memory.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Mapping> {
        // SAFETY: a fresh private anonymous mapping at an address of the kernel's choice aliases nothing.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mmap returned the null page"))?;
        Ok(Mapping { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `len` are exactly what mmap returned, and nobody borrows from a value being dropped.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Provided buffers of one core. See the module.
pub struct Buffers {
    // Field order is drop order: the entries go before the memory they point to.
    entries: Mapping,
    memory: Mapping,
    count: u16,
    buffer_bytes: u32,
    incremental: bool,
    /// Where the kernel fills next in each buffer; only used when `incremental`.
    filled_to: Vec<u32>,
    /// Our copy of the ring's tail; published by [`Buffers::publish`].
    tail: u16,
    /// Buffers `spare_from..count` were never lent: the working set grows only under want, so that it stays in the cache.
    spare_from: u16,
    /// Times that no buffer was found although there were as many as stay in the cache.
    missed: u32,
    /// Stretches that were filled and have not come back.
    out: u32,
}

impl Buffers {
    /// Maps `count` buffers of `buffer_bytes` each and lends the first `lent_at_first` of them.
    ///
    /// # Errors
    /// `mmap`'s.
    ///
    /// # Panics
    /// If `count` is not a power of two up to 32,768.
    pub fn new(count: u16, buffer_bytes: u32, incremental: bool, lent_at_first: u16) -> io::Result<Buffers> {
        assert!(count.is_power_of_two() && count <= 1 << 15, "a buffer ring has 2^0 to 2^15 entries");
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(count) * buffer_bytes as usize)?;
        let filled_to = if incremental { vec![0; usize::from(count)] } else { Vec::new() };
        let (tail, spare_from, missed, out) = (0, 0, 0, 0);
        let mut buffers =
            Buffers { entries, memory, count, buffer_bytes, incremental, filled_to, tail, spare_from, missed, out };
        buffers.lend_spare(lent_at_first);
        Ok(buffers)
    }

    /// Address of the entries, for registration.
    pub fn entries_address(&self) -> u64 {
        self.entries.start.as_ptr() as u64
    }

    /// Bytes of each buffer.
    pub fn buffer_bytes(&self) -> u32 {
        self.buffer_bytes
    }

    /// Whether the kernel fills them piece by piece.
    pub fn are_incremental(&self) -> bool {
        self.incremental
    }

    /// How many buffers there are.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// The kernel found no buffer. Doubles the number in circulation, up to what stays in the cache; beyond that only now
    /// and then, since arming a receive again costs less than memory that is not in the cache. False if none was added.
    pub fn grow(&mut self) -> bool {
        if u32::from(self.spare_from) * self.buffer_bytes >= CACHED_BYTES {
            self.missed += 1;
            if !self.missed.is_multiple_of(MISSES_PER_GROWTH) {
                return false;
            }
        }
        self.lend_spare(self.spare_from.max(1)) != 0
    }

    fn lend_spare(&mut self, wanted: u16) -> u16 {
        let more = wanted.min(self.count - self.spare_from);
        for buffer in self.spare_from..self.spare_from + more {
            self.lend(buffer);
        }
        self.spare_from += more;
        self.publish();
        more
    }

    /// Finds the stretch that a completion with these facts filled. To be called in the order of completions.
    #[inline]
    pub fn filled(&mut self, buffer: u16, len: u32, buffer_more: bool) -> Filled {
        debug_assert!(buffer < self.spare_from && len <= self.buffer_bytes);
        self.out += 1;
        if !self.incremental {
            return Filled(Extent { buffer, offset: 0, len, last: true });
        }
        let offset = self.filled_to[usize::from(buffer)];
        self.filled_to[usize::from(buffer)] = if buffer_more { offset + len } else { 0 };
        Filled(Extent { buffer, offset, len, last: !buffer_more })
    }

    /// The bytes of a stretch.
    ///
    /// # Panics
    /// If the stretch does not lie within its buffer.
    #[inline]
    pub fn slice(&mut self, filled: &Filled) -> &mut [u8] {
        let Filled(filled) = filled;
        let end = filled.offset as usize + filled.len as usize;
        assert!(filled.buffer < self.count && end <= self.buffer_bytes as usize);
        let start = usize::from(filled.buffer) * self.buffer_bytes as usize + filled.offset as usize;
        // SAFETY: by the assertion `start + len <= count * buffer_bytes`, the mapping's length. The mapping is
        // initialised (anonymous memory is zero) and lives as long as `self`. The kernel writes to a buffer only while it
        // is lent; a filled stretch is not written again before its buffer has been consumed and lent anew, which
        // `recycle` alone does, and only with the last stretch of the buffer in its hands: each `Filled` is made once, by
        // `filled`, cannot be copied or made up, and is borrowed here. Incremental consumption only writes behind the
        // stretches it has already reported.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start.as_ptr().add(start), filled.len as usize) }
    }

    /// Gives a stretch back; the buffer is lent again once its last stretch is.
    #[inline]
    pub fn recycle(&mut self, filled: Filled) {
        self.out -= 1;
        if filled.0.last {
            self.lend(filled.0.buffer);
        }
    }

    #[inline]
    fn lend(&mut self, buffer: u16) {
        let place = usize::from(self.tail & (self.count - 1));
        // SAFETY: `place < count` by the mask, so the entry lies within the mapping of `count` entries, and both are
        // page-aligned. The kernel reads entries only below the published tail, and this one is above it. The fields are
        // written one by one because the first entry's last field is the tail itself.
        unsafe {
            let entry = &mut *self.entries.start.as_ptr().cast::<BufRingEntry>().add(place);
            let start = usize::from(buffer) * self.buffer_bytes as usize;
            entry.set_addr(self.memory.start.as_ptr().add(start) as u64);
            entry.set_len(self.buffer_bytes);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Gives the pages of all buffers back to the system, unless some are held. `unseen`: whether there are completions that
    /// [`Buffers::filled`] has not been told of.
    pub fn release(&mut self, unseen: bool) {
        if self.out > 0 || unseen {
            return;
        }
        // SAFETY: the range is the whole mapping, private and anonymous, which reads as zeros afterwards: still initialised. No
        // slice of it exists (`slice` borrows `self`, as this does), and none will be made of what was filled before: that was
        // seen, and has come back. The kernel fills buffers only while this thread is in `io_uring_enter`, in its deferred task
        // work, so nothing can be lost of what it has filled and not reported.
        unsafe { libc::madvise(self.memory.start.as_ptr().cast(), self.memory.len, libc::MADV_DONTNEED) };
    }

    /// Makes the returned buffers visible to the kernel. Once per tick, before it is entered.
    #[inline]
    pub fn publish(&self) {
        // SAFETY: the mapping starts with an entry, initialised (zero or written), and the tail is that entry's
        // naturally aligned 16-bit field, which user space alone writes; the kernel reads it with acquire.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.start.as_ptr().cast()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_buffers_start_at_their_front() {
        let mut buffers = Buffers::new(4, 64, false, 4).unwrap();
        let filled = buffers.filled(2, 10, false);
        assert_eq!(filled, Filled(Extent { buffer: 2, offset: 0, len: 10, last: true }));
        buffers.slice(&filled).fill(7);
        assert_eq!(buffers.slice(&filled), &[7; 10]);
        buffers.recycle(filled);
        assert_eq!(buffers.tail, 5);
    }

    #[test]
    fn incremental_stretches_follow_each_other_and_come_back_once() {
        let mut buffers = Buffers::new(2, 64, true, 2).unwrap();
        let first = buffers.filled(0, 20, true);
        let second = buffers.filled(0, 30, true);
        let third = buffers.filled(0, 14, false);
        assert_eq!([first.0.offset, second.0.offset, third.0.offset], [0, 20, 50]);
        for filled in [first, second, third] {
            buffers.recycle(filled);
        }
        assert_eq!(buffers.tail, 3, "one buffer came back once");
        assert_eq!(buffers.filled(0, 5, true).0.offset, 0, "and starts at its front again");
    }

    #[test]
    fn the_working_set_doubles_under_want_and_then_no_more() {
        let mut buffers = Buffers::new(8, 64, false, 2).unwrap();
        assert!(buffers.grow());
        assert_eq!(buffers.tail, 4);
        assert!(buffers.grow());
        assert_eq!(buffers.tail, 8);
        assert!(!buffers.grow());
    }

    #[test]
    fn what_does_not_stay_in_the_cache_grows_only_under_lasting_want() {
        let mut buffers = Buffers::new(8, CACHED_BYTES / 2, false, 2).unwrap();
        assert!((1..MISSES_PER_GROWTH).all(|_| !buffers.grow()));
        assert!(buffers.grow());
        assert_eq!(buffers.tail, 4);
    }

    #[test]
    #[should_panic(expected = "filled.buffer < self.count")]
    fn a_stretch_beyond_its_buffer_is_refused() {
        let mut buffers = Buffers::new(2, 64, false, 2).unwrap();
        buffers.slice(&Filled(Extent { buffer: 1, offset: 60, len: 5, last: true }));
    }
    /// Kills: pages that stay; pages given up under a stretch that somebody holds, or has not seen.
    #[test]
    fn pages_are_given_back_unless_something_is_in_them() {
        let resident = |buffers: &Buffers| {
            let pages = buffers.memory.len / 4096;
            let mut seen = vec![0_u8; pages];
            // SAFETY: the range is a whole mapping, and there is a byte of `seen` for each of its pages.
            let asked =
                unsafe { libc::mincore(buffers.memory.start.as_ptr().cast(), buffers.memory.len, seen.as_mut_ptr()) };
            assert_eq!(asked, 0);
            seen.iter().filter(|page| **page & 1 == 1).count()
        };
        let mut buffers = Buffers::new(4, 16384, false, 4).unwrap();
        let filled = buffers.filled(1, 16384, false);
        buffers.slice(&filled).fill(7);
        buffers.release(false);
        assert_eq!(buffers.slice(&filled), &[7; 16384], "it is held");
        buffers.recycle(filled);
        buffers.release(true);
        assert!(resident(&buffers) > 0, "something may be in it");
        buffers.release(false);
        assert_eq!(resident(&buffers), 0);
        let again = buffers.filled(1, 16384, false);
        assert_eq!(buffers.slice(&again), &[0; 16384]);
        buffers.recycle(again);
    }
}
