//! The sends of a tick's batch, as submissions.

use io_uring::types::Fixed;
use io_uring::{opcode, squeue};

use crate::engine::{BATCH_PIECES_MAX, BatchSend, Pieces, SEND_BYTES_MAX};

/// Vectored sends between two enters, each with up to [`BATCH_PIECES_MAX`] pieces.
const VECTORED_PER_ENTER: usize = 64;

/// Memory of vectored sends between two enters: fixed arrays, since the kernel holds pointers into them.
pub(super) struct Vectors {
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::msghdr]>,
    used: usize,
}

impl Vectors {
    pub(super) fn new() -> Vectors {
        let empty_iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Vectors {
            iovecs: vec![empty_iovec; VECTORED_PER_ENTER * BATCH_PIECES_MAX].into_boxed_slice(),
            // SAFETY: msghdr is a C struct for which all zeroes is the documented empty value.
            headers: vec![unsafe { std::mem::zeroed() }; VECTORED_PER_ENTER].into_boxed_slice(),
            used: 0,
        }
    }

    /// Whether the kernel must be entered before another vectored send.
    #[inline]
    pub(super) fn are_used_up(&self) -> bool {
        self.used == VECTORED_PER_ENTER
    }

    /// The kernel has taken all sends.
    #[inline]
    pub(super) fn reuse(&mut self) {
        self.used = 0;
    }

    /// The submission of one send. It points to the send's bytes, and into these arrays.
    #[inline]
    pub(super) fn entry(&mut self, send: &BatchSend<'_>) -> squeue::Entry {
        let fd = Fixed(send.token.index());
        let flags = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let (entry, is_whole) = match send.pieces {
            Pieces::One(bytes) => {
                debug_assert!(!bytes.is_empty());
                let len = bytes.len().min(SEND_BYTES_MAX);
                let entry = opcode::Send::new(fd, bytes.as_ptr(), len as u32).flags(flags).build();
                (entry, len == bytes.len())
            }
            Pieces::Many(pieces) => {
                assert!(pieces.len() <= BATCH_PIECES_MAX && !self.are_used_up());
                let first = self.used * BATCH_PIECES_MAX;
                let mut room = SEND_BYTES_MAX;
                let mut is_whole = true;
                for (iovec, piece) in self.iovecs[first..].iter_mut().zip(pieces) {
                    let len = piece.len().min(room);
                    room -= len;
                    is_whole &= len == piece.len();
                    *iovec = libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: len };
                }
                let header = &mut self.headers[self.used];
                header.msg_iov = self.iovecs[first..].as_mut_ptr();
                header.msg_iovlen = pieces.len() as _;
                let header: *const libc::msghdr = header;
                self.used += 1;
                (opcode::SendMsg::new(fd, header).flags(flags as u32).build(), is_whole)
            }
        };
        // Where there is more than one operation moves, even its success is a short send, of which the core must hear.
        let flags = if is_whole { squeue::Flags::SKIP_SUCCESS } else { squeue::Flags::empty() };
        entry.flags(flags).user_data(send.token.user_data())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::engine::{Op, Token};

    /// So many bytes, for good. Only their number matters here: none is ever touched, and they take no memory.
    fn zeroes(len: usize) -> &'static [u8] {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice aliases nothing.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED, "addresses for {len} bytes");
        // SAFETY: it is `len` bytes long, zero, readable, and neither written to nor unmapped as long as the process lives.
        unsafe { std::slice::from_raw_parts(start.cast::<u8>(), len) }
    }

    fn entry(vectors: &mut Vectors, pieces: Pieces<'_>) -> String {
        format!("{:?}", vectors.entry(&BatchSend { token: Token::new(Op::SendNow, 1, 0), pieces }))
    }

    fn skips_success(entry: &str) -> bool {
        let flags: String = entry.split_once("flags: ").unwrap().1.chars().take_while(char::is_ascii_digit).collect();
        flags.parse::<u8>().unwrap() & squeue::Flags::SKIP_SUCCESS.bits() != 0
    }

    /// Kills: a send of 2 GiB and more of which the kernel moves a part and says nothing, since that was a success.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn more_than_one_operation_moves_is_a_short_send_that_tells_so() {
        let mut vectors = Vectors::new();
        let long = zeroes(SEND_BYTES_MAX + 1);
        assert!(skips_success(&entry(&mut vectors, Pieces::One(&long[..SEND_BYTES_MAX]))));
        assert!(!skips_success(&entry(&mut vectors, Pieces::One(long))));
        let long = Bytes::from_static(long);
        let half = long.slice(..SEND_BYTES_MAX / 2);
        assert!(skips_success(&entry(&mut vectors, Pieces::Many(&[half.clone(), half.clone()]))));
        let lens = |vectors: &Vectors, nth: usize| {
            vectors.iovecs[nth * BATCH_PIECES_MAX..][..3].iter().map(|iovec| iovec.iov_len).collect::<Vec<_>>()
        };
        assert_eq!(lens(&vectors, 0)[..2], [SEND_BYTES_MAX / 2; 2]);
        assert!(!skips_success(&entry(&mut vectors, Pieces::Many(&[half, long.clone(), long]))));
        assert_eq!(lens(&vectors, 1), [SEND_BYTES_MAX / 2, SEND_BYTES_MAX - SEND_BYTES_MAX / 2, 0]);
    }
}
