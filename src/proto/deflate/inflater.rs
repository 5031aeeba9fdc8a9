//! Decompressing: one state for a whole core, and nothing that a peer declares is believed.

use thiserror::Error;
use zlib_rs::{Inflate, InflateFlush, Status};

use super::TAIL;
use super::history::{History, WINDOW_BITS_MAX};
use crate::proto::pool::{Pool, size_class};

/// Most bytes out for one byte in, in messages over [`UNRATED_BYTES`]: text that says anything gives less than half of it,
/// and DEFLATE at most 1,032.
pub const RATIO_MAX: usize = 256;

/// Bytes that a message may have, whatever its ratio.
pub const UNRATED_BYTES: usize = 1 << 20;

/// Most final blocks in a message: each begins the state anew, so each costs as much as a window of data.
const FINAL_BLOCKS_MAX: u32 = 64;

/// Fewest bytes of room by which the output grows.
const STEP_BYTES: usize = 512;

/// Why a message cannot be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InflateError {
    /// It is not DEFLATE data (RFC 1951), or refers to what is not in the window.
    #[error("invalid compressed data")]
    Invalid,
    /// It gives more bytes than allowed, or more than [`RATIO_MAX`] for each of its own.
    #[error("message too big")]
    TooBig,
}

/// A decompressor for all contexts of a core. Its state is made with the first message.
#[derive(Default)]
pub struct Inflater {
    state: Option<Inflate>,
}

impl Inflater {
    /// Without a state.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends what `compressed`, the payload of a message (RFC 7692 7.2.2), gives to `out`, at most `bytes_max` bytes.
    /// `context`: that of the sender, where it keeps one; it then has the message.
    ///
    /// Memory is taken as the data comes: twice as much each time, from `pool` where it has it, and never beyond `bytes_max`
    /// (and a quarter, as buffers have their sizes).
    ///
    /// # Errors
    /// See [`InflateError`]; what is in `out` then says nothing, and the context is of no use any more.
    pub fn inflate(
        &mut self,
        compressed: &[u8],
        mut context: Option<&mut History>,
        bytes_max: usize,
        out: &mut Vec<u8>,
        pool: &mut Pool,
    ) -> Result<(), InflateError> {
        let is_new = self.state.is_none();
        let state = self.state.get_or_insert_with(|| Inflate::new(false, WINDOW_BITS_MAX));
        if !is_new {
            state.reset(false);
        }
        let history = context.as_deref().map_or(&[][..], History::as_slice);
        set_dictionary(state, history)?;

        let start = out.len();
        let bytes_max = bytes_max.min(UNRATED_BYTES.max(compressed.len().saturating_mul(RATIO_MAX)));
        let mut output = Output { out, pool, start, end: start, end_max: start + bytes_max };
        let (mut input, mut in_tail) = (compressed, false);
        let mut final_blocks = 0;
        loop {
            output.make_room(input.len());
            let room = output.out.len() - output.end;
            let (before_in, before_out) = (state.total_in(), state.total_out());
            let status = state.decompress(input, &mut output.out[output.end..], InflateFlush::SyncFlush);
            let (taken, given) = ((state.total_in() - before_in) as usize, (state.total_out() - before_out) as usize);
            input = &input[taken..];
            output.end += given;
            if output.end > output.end_max {
                return Err(InflateError::TooBig);
            }
            match status {
                Err(_) => return Err(InflateError::Invalid),
                // RFC 7692 7.2.3.4: a block with BFINAL set may stand anywhere, and more may come behind it.
                Ok(Status::StreamEnd) => {
                    if in_tail || input.is_empty() {
                        break;
                    }
                    final_blocks += 1;
                    if final_blocks > FINAL_BLOCKS_MAX {
                        return Err(InflateError::Invalid);
                    }
                    state.reset(false);
                    set_dictionary(state, history)?;
                    set_dictionary(state, &output.out[start..output.end])?;
                }
                Ok(_) if given == room => {}
                // It does not go on, though it could.
                Ok(_) if !input.is_empty() => return Err(InflateError::Invalid),
                // RFC 7692 7.2.2: the receiver appends what the sender took away.
                Ok(_) if !in_tail => (input, in_tail) = (&TAIL, true),
                Ok(_) => break,
            }
        }
        let end = output.end;
        out.truncate(end);
        if let Some(history) = &mut context {
            history.push(&out[start..]);
        }
        Ok(())
    }

    /// Frees the state; the next message makes it anew.
    pub fn trim(&mut self) {
        self.state = None;
    }

    /// Bytes of heap that the state has, if there is one: a window and the tables of codes.
    pub fn memory_bytes(&self) -> usize {
        self.state.as_ref().map_or(0, |_| 48 << 10)
    }
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater").finish_non_exhaustive()
    }
}

/// What comes out: `out[..end]`; behind it there is room.
struct Output<'o> {
    out: &'o mut Vec<u8>,
    pool: &'o mut Pool,
    start: usize,
    end: usize,
    /// The most that may be given; there is room for one more byte, to tell who gives it.
    end_max: usize,
}

impl Output<'_> {
    /// Makes room where there is none, by what has come so far and by what is there to be read.
    fn make_room(&mut self, input_len: usize) {
        if self.end < self.out.len() {
            return;
        }
        let so_far = self.end - self.start;
        let step = so_far.max(4 * input_len.min(16 << 10)).max(STEP_BYTES);
        let len = (self.end + step).min(self.end_max + 1);
        if self.out.capacity() < len {
            let mut larger = self.pool.take_cached(len, len).unwrap_or_else(|| Vec::with_capacity(size_class(len)));
            larger.extend_from_slice(&self.out[..self.end]);
            self.pool.give(std::mem::replace(self.out, larger));
        }
        self.out.resize(len, 0);
    }
}

fn set_dictionary(state: &mut Inflate, bytes: &[u8]) -> Result<(), InflateError> {
    let last = &bytes[bytes.len().saturating_sub(1 << WINDOW_BITS_MAX)..];
    if !last.is_empty() && state.set_dictionary(last).is_err() {
        debug_assert!(false, "a raw stream takes a dictionary");
        return Err(InflateError::Invalid);
    }
    Ok(())
}
