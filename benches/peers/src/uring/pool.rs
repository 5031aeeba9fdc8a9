//! The provided buffers, and the received bytes inside them.

use std::{
    io, ptr, slice,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{Submitter, types::BufRingEntry};

use super::options::Options;

pub(super) const BUFFER_GROUP: u16 = 0;
/// `IOU_PBUF_RING_INC`: the kernel consumes a buffer piece by piece (6.12).
const RING_INCREMENTAL: u16 = 2;

/// Received bytes inside a provided buffer. Not `Clone`: it stands for the right to read them.
#[derive(Debug)]
pub struct Chunk {
    pub(super) start: *const u8,
    pub(super) len: usize,
    pub(super) buffer: u16,
}

impl Chunk {
    /// What was received.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `start..start+len` lies in the pool, was written by the kernel before the completion was posted, and
        // the buffer is not given back while this chunk exists.
        unsafe { slice::from_raw_parts(self.start, self.len) }
    }

    pub(super) fn drop_front(&mut self, count: usize) {
        assert!(count <= self.len);
        // SAFETY: `count <= len`, so the result is inside the chunk or one past its end.
        self.start = unsafe { self.start.add(count) };
        self.len -= count;
    }
}

#[derive(Clone, Copy, Default)]
struct BufferState {
    consumed: u32,
    chunks: u16,
    /// The kernel will put nothing more into it.
    done: bool,
    /// Where it stands in the ring, to find its successor in a bundle.
    position: u16,
}

/// The provided buffers: one mapping for the ring, one for the bytes.
pub(super) struct Pool {
    ring: *mut BufRingEntry,
    memory: *mut u8,
    mask: u16,
    buffer_size: u32,
    tail: u16,
    published: u16,
    /// Buffer at each ring position, as the kernel sees it.
    order: Vec<u16>,
    states: Vec<BufferState>,
    free: usize,
}

fn map_anonymous(bytes: usize) -> io::Result<*mut u8> {
    // SAFETY: an anonymous private mapping at an address the kernel chooses touches no existing memory.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_POPULATE,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(address.cast()) }
}

impl Pool {
    pub(super) fn new(submitter: &Submitter<'_>, options: &Options) -> io::Result<Self> {
        let entries = options.buffers;
        assert!(entries.is_power_of_two() && entries <= 32_768, "buffers must be a power of two up to 32768");
        let ring: *mut BufRingEntry =
            map_anonymous(usize::from(entries) * size_of::<BufRingEntry>())?.cast::<BufRingEntry>();
        let memory = map_anonymous(usize::from(entries) * options.buffer_size as usize)?;
        let flags = if options.incremental { RING_INCREMENTAL } else { 0 };
        // SAFETY: the ring is a page-aligned mapping of `entries` entries that is never unmapped.
        unsafe { submitter.register_buf_ring_with_flags(ring as u64, entries, BUFFER_GROUP, flags)? };
        let mut pool = Self {
            ring,
            memory,
            mask: entries - 1,
            buffer_size: options.buffer_size,
            tail: 0,
            published: 0,
            order: vec![0; entries.into()],
            states: vec![BufferState::default(); entries.into()],
            free: 0,
        };
        for buffer in 0..entries {
            pool.offer(buffer);
        }
        pool.publish();
        Ok(pool)
    }

    fn address(&self, buffer: u16) -> *mut u8 {
        debug_assert!(buffer <= self.mask);
        // SAFETY: `buffer <= mask`, so the offset is inside the mapping of `(mask + 1) * buffer_size` bytes.
        unsafe { self.memory.add(usize::from(buffer) * self.buffer_size as usize) }
    }

    fn offer(&mut self, buffer: u16) {
        let position = self.tail & self.mask;
        // SAFETY: `position <= mask`; the kernel reads this entry only after the tail is published.
        let entry = unsafe { &mut *self.ring.add(position.into()) };
        entry.set_addr(self.address(buffer) as u64);
        entry.set_len(self.buffer_size);
        entry.set_bid(buffer);
        self.order[usize::from(position)] = buffer;
        self.states[usize::from(buffer)] = BufferState { position, ..BufferState::default() };
        self.tail = self.tail.wrapping_add(1);
        self.free += 1;
    }

    pub(super) fn publish(&mut self) {
        if self.published == self.tail {
            return;
        }
        self.published = self.tail;
        // SAFETY: the tail overlays the first entry's reserved field, is 2-aligned, and only this thread writes it.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.ring).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// The next `len` received bytes in `buffer`.
    pub(super) fn take(&mut self, buffer: u16, len: usize, done: bool) -> Chunk {
        let start = self.address(buffer);
        let state = &mut self.states[usize::from(buffer)];
        assert!(state.consumed as usize + len <= self.buffer_size as usize && !state.done);
        // SAFETY: `consumed + len <= buffer_size`, checked above.
        let start = unsafe { start.add(state.consumed as usize) };
        state.consumed += len as u32;
        state.chunks += 1;
        if done {
            state.done = true;
            self.free -= 1;
        }
        Chunk { start, len, buffer }
    }

    pub(super) fn following(&self, buffer: u16) -> u16 {
        let position = self.states[usize::from(buffer)].position.wrapping_add(1) & self.mask;
        self.order[usize::from(position)]
    }

    pub(super) fn release(&mut self, buffer: u16) {
        let state = &mut self.states[usize::from(buffer)];
        state.chunks -= 1;
        if state.chunks == 0 && state.done {
            self.offer(buffer);
        }
    }

    pub(super) fn is_low(&self) -> bool {
        self.free * 4 < self.order.len()
    }
}
