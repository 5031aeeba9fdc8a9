//! What a start takes of memory, added up.

use crate::config::Config;
use crate::engine::uring::SMALL_RING_BYTES;

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

/// A process before its first core: its own pages of the program and of libraries, the main thread, the allocator. Measured:
/// 4.7 MiB.
const PROCESS_BYTES: u64 = 5 * MIB;
/// A core without its ring and its table: the thread, its heap, in which the pages of buffers and tables are that it touches at
/// once. Measured: 10.2 MiB, of which the allocator's granularity is most.
const CORE_BYTES: u64 = 10 * MIB;
/// A slot in the table of direct descriptors, in the kernel, and what the kernel has beside it. Measured: 12.6 bytes.
const SLOT_BYTES: u64 = 13;

fn pages(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE)
}

/// Memory that one ring shares with the kernel where that counts: submission entries of 64 bytes, completion entries of 16 and
/// a few counters, and 16 for each of its buffers, of which each has 64 KiB at least.
fn ring_bytes(config: &Config) -> u64 {
    let sq = u64::from(config.ring_entries.next_power_of_two());
    let cq = u64::from(config.cq_entries.next_power_of_two());
    let buffers = u64::from(config.recv_buffers) * u64::from(config.recv_buffer_bytes) / (64 << 10);
    pages(sq * 64) + pages(cq * 16 + 64) + pages(buffers.max(2) * 16)
}

/// What the rings of so many cores count for RLIMIT_MEMLOCK, where they do, and one that has tried something before, whose memory
/// the kernel may not have given up yet.
pub(super) fn locked_bytes(config: &Config, cores: u64) -> u64 {
    cores * ring_bytes(config) + SMALL_RING_BYTES
}

/// Memory that a start with so many cores takes, whose tables have so many slots each, before anybody has connected.
pub(super) fn start_bytes(config: &Config, cores: u64, slots: u64) -> u64 {
    PROCESS_BYTES + cores * (CORE_BYTES + ring_bytes(config) + slots * SLOT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_ring_is_some_200_kib() {
        let config = Config::default();
        assert_eq!(ring_bytes(&config) >> 10, 64 + 132 + 4);
        let small = Config::default().ring_entries(8).cq_entries(16).recv_buffers(1);
        assert_eq!(ring_bytes(&small), 3 * PAGE);
        assert_eq!(locked_bytes(&small, 2), 6 * PAGE + SMALL_RING_BYTES);
    }

    /// As measured in a control group: what a start with so many cores and slots needs to live, in MiB.
    #[test]
    fn a_start_takes_what_was_measured() {
        for (cores, slots, measured) in [(1, 1_000_000, 27), (2, 1_000_000, 49), (1, 10_000, 15), (2, 10_000, 25)] {
            let sum = start_bytes(&Config::default(), cores, slots) / MIB;
            assert!(sum.abs_diff(measured) <= 1, "{cores} cores, {slots} slots: {sum} MiB for {measured}");
        }
    }
}
