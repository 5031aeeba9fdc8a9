//! Sets a ring up: its flags, its table of direct descriptors, its provided buffers, as this kernel can.

use std::io;
use std::time::{Duration, Instant};

use io_uring::IoUring;
use nix::sys::resource::{Resource, getrlimit};

use crate::engine::Descriptors;
use crate::engine::buffers::Buffers;

/// Group number of the only buffer ring.
pub(super) const BUFFER_GROUP: u16 = 0;
/// `IOU_PBUF_RING_INC`, Linux 6.12: consume buffers incrementally.
const BUFFER_RING_INCREMENTAL: u16 = 2;
/// `IORING_MAX_FIXED_FILES`: the largest table of direct descriptors.
const SLOTS_MAX: u64 = 1 << 20;
/// Buffers in circulation at the start, in bytes: few, so that they stay in the cache; more under want.
pub(super) const BUFFER_BYTES_AT_FIRST: u32 = 512 << 10;

/// How a [`Uring`](super::Uring) is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Submission entries.
    pub sq_entries: u32,
    /// Completion entries.
    pub cq_entries: u32,
    /// Slots wanted. Of direct descriptors the kernel allows at most RLIMIT_NOFILE; for plain ones see [`plain_slots`].
    pub slots: u32,
    /// Where the slots' sockets are; `None`: where this kernel closes them in time.
    pub descriptors: Option<Descriptors>,
    /// Rings of this process that share its descriptors, this one included.
    pub rings: u32,
    /// Provided buffers, a power of two up to 32,768.
    pub buffers: u16,
    /// Bytes in each.
    pub buffer_bytes: u32,
    /// Where the kernel can consume buffers incrementally (6.12), the same memory is used as buffers of this size at
    /// least; 0 = never.
    pub incremental_bytes: u32,
    /// Busy-poll this long before sleeping.
    pub spin: Duration,
    /// What the ring's clock counts from: the same for rings whose times are compared.
    pub epoch: Instant,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            sq_entries: 1024,
            cq_entries: 8192,
            slots: 1024,
            descriptors: None,
            rings: 1,
            buffers: 4096,
            buffer_bytes: 2048,
            incremental_bytes: 64 << 10,
            spin: Duration::ZERO,
            epoch: Instant::now(),
        }
    }
}

impl Options {
    /// [`plain_slots`] under the limit that holds now.
    pub(super) fn plain_slots(&self) -> u32 {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
        plain_slots(limit, self.rings)
    }
}

/// How many sockets each of so many rings may have as descriptors of a process that may have `limit`: what is left of them
/// in equal parts.
pub fn plain_slots(limit: u64, rings: u32) -> u32 {
    /// Those of the process besides its rings': standard streams, libraries, files, a connection or two.
    const OF_PROCESS: u64 = 64;
    /// Those of each ring: its own twice, its bell's, and a few listeners.
    const OF_RING: u64 = 6;
    /// However few there are: accepts and connects then fail for want of them, and are tried again.
    const SLOTS_MIN: u64 = 8;
    let rings = u64::from(rings.max(1));
    let left = limit.saturating_sub(OF_PROCESS + OF_RING * rings) / rings;
    left.clamp(SLOTS_MIN, SLOTS_MAX) as u32
}

/// The best ring that this kernel makes: 6.1 has all flags but `NO_SQARRAY` (6.6), and tells whether it has that.
pub(super) fn build(options: &Options) -> io::Result<(IoUring, bool)> {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_clamp()
        .setup_cqsize(options.cq_entries.max(options.sq_entries))
        .dontfork();
    let plain = builder.clone();
    match builder.setup_no_sqarray().build(options.sq_entries) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok((plain.build(options.sq_entries)?, false)),
        built => Ok((built?, true)),
    }
}

/// Registers a table of so many slots, or of as many as the process may have descriptors, or the kernel gives.
pub(super) fn register_slots(ring: &IoUring, wanted: u32) -> io::Result<u32> {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft).min(SLOTS_MAX);
    let mut slots = u64::from(wanted).min(limit) as u32;
    loop {
        match ring.submitter().register_files_sparse(slots) {
            Ok(()) => return Ok(slots),
            Err(error) if error.raw_os_error() == Some(libc::EMFILE) && slots > 64 => slots -= slots / 8,
            Err(error) => return Err(error),
        }
    }
}

/// Registers the buffer ring, incremental if wanted and possible.
pub(super) fn register_buffers(ring: &IoUring, options: &Options) -> io::Result<Buffers> {
    let large = options.incremental_bytes.max(options.buffer_bytes);
    let plain = (options.buffers, options.buffer_bytes, false);
    let incremental = (incremental_count(options.buffers, options.buffer_bytes, large), large, true);
    let ways = if options.incremental_bytes > 0 { vec![incremental, plain] } else { vec![plain] };
    let mut failure = io::Error::from_raw_os_error(libc::EINVAL);
    for (count, buffer_bytes, incremental) in ways {
        let at_first = (BUFFER_BYTES_AT_FIRST / buffer_bytes).max(4) as u16;
        let buffers = Buffers::new(count, buffer_bytes, incremental, at_first)?;
        let flags = if incremental { BUFFER_RING_INCREMENTAL } else { 0 };
        // SAFETY: the entries are a page-aligned mapping of `count` entries that `Uring` keeps until the ring is closed.
        let registered = unsafe {
            ring.submitter().register_buf_ring_with_flags(
                buffers.entries_address(),
                buffers.count(),
                BUFFER_GROUP,
                flags,
            )
        };
        match registered {
            Ok(()) => return Ok(buffers),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// How many buffers of `large` bytes the memory of so many smaller ones makes: a power of two, and at least two: the kernel
/// must have one to go on with while the other is being read.
fn incremental_count(buffers: u16, buffer_bytes: u32, large: u32) -> u16 {
    let bytes = u64::from(buffers) * u64::from(buffer_bytes);
    // Not more than `buffers`, since `large` is not less than `buffer_bytes`.
    let count = (bytes / u64::from(large.max(1))).max(2);
    1 << count.ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rings_share_the_process_s_descriptors() {
        for (limit, rings, slots) in [
            (1024, 1, 954),
            (1024, 2, 474),
            (1024, 0, 954),
            (200, 2, 62),
            (64, 2, 8),
            (0, 1024, 8),
            (1 << 20, 4, (1 << 18) - 22),
            (u64::MAX, 1, 1 << 20),
        ] {
            assert_eq!(plain_slots(limit, rings), slots, "{limit} for {rings}");
            let all = u64::from(slots) * u64::from(rings);
            assert!(slots == 8 || all < limit, "more than there are");
        }
    }

    /// Kills: a product that does not fit into 32 bits.
    #[test]
    fn the_memory_of_the_buffers_may_be_4_gib_and_more() {
        const KIB: u32 = 1 << 10;
        assert_eq!(incremental_count(4096, 2 * KIB, 64 * KIB), 128);
        assert_eq!(incremental_count(4096, KIB * KIB, KIB * KIB), 4096);
        assert_eq!(incremental_count(32_768, KIB * KIB, KIB * KIB), 32_768);
        assert_eq!(incremental_count(32_768, 300 * KIB, 300 * KIB), 32_768);
        assert_eq!(incremental_count(64, 2 * KIB, 64 * KIB), 2);
        assert_eq!(incremental_count(1, 256, 64 * KIB), 2);
    }
}
