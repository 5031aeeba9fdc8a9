//! Compression of what a client sends (RFC 7692 6.1).

use std::cell::RefCell;

use super::error::ClientError;
use super::keys::{self, no_random};
use crate::proto::Role;
use crate::proto::deflate::{Deflater, History, LEVEL, WINDOW_BITS, WINDOW_BITS_MAX, WINDOW_BITS_MIN};
use crate::proto::extensions::Agreed;
use crate::proto::frame::{Opcode, mark_compressed, put_masked_frame};

/// Messages of fewer bytes are sent as they are, unless a client says otherwise.
pub(super) const BYTES_MIN: usize = 256;

/// How a connection compresses. Whoever has it decides the order of the messages.
#[derive(Debug)]
pub(super) struct Compressing {
    bytes_min: usize,
    /// How far the server can look back, in bytes.
    window_bytes: usize,
    context: Option<History>,
}

thread_local! {
    /// One for all connections that a thread sends on, and what it has given last.
    static DEFLATER: RefCell<(Deflater, Vec<u8>)> = RefCell::new((Deflater::new(LEVEL), Vec::new()));
}

/// What is kept of a buffer between two messages.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

impl Compressing {
    pub(super) fn new(agreed: Agreed, bytes_min: usize) -> Compressing {
        let bits = agreed.sent_window_bits(Role::Client);
        let has_context = agreed.sends_context(Role::Client) && bits >= WINDOW_BITS_MIN;
        Compressing {
            bytes_min,
            // What is without a context refers to itself alone, and the largest window is what there is.
            window_bytes: if bits == WINDOW_BITS_MAX { usize::MAX } else { 1 << bits },
            context: has_context.then(|| History::new(bits.min(WINDOW_BITS))),
        }
    }

    /// Whether a message of so many bytes is worth it, and can be read.
    pub(super) fn takes(&self, len: usize) -> bool {
        len >= self.bytes_min && (self.context.is_some() || len <= self.window_bytes)
    }

    /// A frame with the message, compressed; `None` where that is not shorter. With a context, it must be sent now.
    pub(super) fn frame(&mut self, opcode: Opcode, payload: &[u8]) -> Result<Option<Vec<u8>>, ClientError> {
        let key = keys::random().map_err(no_random)?;
        DEFLATER.with_borrow_mut(|(deflater, compressed)| {
            compressed.clear();
            if !deflater.compress(payload, self.context.as_mut(), compressed) {
                return Ok(None);
            }
            let mut frame = Vec::new();
            put_masked_frame(&mut frame, opcode, compressed, key);
            mark_compressed(&mut frame);
            compressed.shrink_to(SCRATCH_BYTES_MAX);
            Ok(Some(frame))
        })
    }
}
