//! One connection: what it says next, what is under way, how it ended.

use super::pool::Chunk;

#[derive(Default)]
pub(super) struct Conn {
    pub(super) open: bool,
    pub(super) dirty: bool,
    pub(super) closing: bool,
    pub(super) receiving: bool,
    pub(super) sending_all: bool,
    /// The send that waits was handed to the kernel.
    pub(super) flight_queued: bool,
    pub(super) close_queued: bool,
    pub(super) cancel_queued: bool,
    /// The tick's shared bytes are to be sent, or are being sent.
    pub(super) shared: bool,
    pub(super) error: i32,
    /// Set while a send that cannot wait is unsettled: what it was to send.
    pub(super) sent_len: usize,
    pub(super) bytes: Vec<u8>,
    pub(super) held: Vec<Chunk>,
    /// Owned by the send in flight.
    pub(super) flight_bytes: Vec<u8>,
    pub(super) flight_held: Vec<Chunk>,
    pub(super) flight_start: usize,
    pub(super) pieces: Vec<libc::iovec>,
}
