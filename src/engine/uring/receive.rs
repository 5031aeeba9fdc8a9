//! Receives into provided buffers, as submissions.

use io_uring::types::Fixed;
use io_uring::{opcode, squeue};

use super::setup::BUFFER_GROUP;

/// `IORING_RECV_MULTISHOT`.
const RECV_MULTISHOT: u16 = 2;

/// A multishot receive that ends after `bytes_max` bytes, or never with 0.
pub(super) fn bounded_recv(slot: u32, bytes_max: u32) -> squeue::Entry {
    /// Where `struct io_uring_sqe` has `optlen`, which io_uring(7) calls the total length of a multishot receive.
    const OPTLEN_OFFSET: usize = 44;
    // `RecvMulti` leaves no room for a length. Nor may one completion bring more than all of them.
    let mut entry = opcode::Recv::new(Fixed(slot), std::ptr::null_mut(), bytes_max)
        .ioprio(RECV_MULTISHOT)
        .buf_group(BUFFER_GROUP)
        .build()
        .flags(squeue::Flags::BUFFER_SELECT);
    const { assert!(size_of::<squeue::Entry>() == 64, "an entry is the kernel's struct of 64 bytes") };
    // SAFETY: `Entry` is `repr(C)` around the kernel's struct alone, 64 bytes that are aligned for u64 (asserted above;
    // alignment by its u64 fields), so bytes 44 to 47 are within it and aligned for u32. They are the union of
    // `splice_fd_in`, `file_index` and `optlen`, plain integers for which every value is valid, and zero in this entry.
    unsafe { std::ptr::from_mut(&mut entry).cast::<u8>().add(OPTLEN_OFFSET).cast::<u32>().write(bytes_max) };
    entry
}
