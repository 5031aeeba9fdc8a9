//! Compressing: one state for a whole core.

use std::sync::atomic::{AtomicU64, Ordering};

use zlib_rs::{Deflate, DeflateFlush};

use super::TAIL;
use super::history::{History, WINDOW_BITS_MAX, WINDOW_BITS_MIN};

/// The level where none is set: higher ones cost three times as much for a fifth less.
pub const LEVEL: u8 = 1;

/// Fewest bytes of room by which the output grows.
const STEP_BYTES: usize = 1024;

/// How many windows there are.
const WINDOWS: usize = (WINDOW_BITS_MAX - WINDOW_BITS_MIN + 1) as usize;

/// A compressor for all contexts of a core. It has a state for each size of window that is used, made with the first message
/// of that; messages without a context have the largest.
///
/// Where the last message was of the same context, the state goes on where it is: a stream that has a core for itself is not
/// begun anew for each message.
pub struct Deflater {
    level: u8,
    states: [Option<State>; WINDOWS],
}

struct State {
    deflate: Deflate,
    /// The stamp that the history has whose bytes are in the window; 0: none has.
    loaded: u64,
}

impl Deflater {
    /// A compressor of that level, 1 (fast) to 9.
    ///
    /// # Panics
    /// Where it is not.
    pub fn new(level: u8) -> Self {
        assert!((1..=9).contains(&level), "no level of DEFLATE");
        Self { level, states: [const { None }; WINDOWS] }
    }

    /// Appends `payload`, compressed (RFC 7692 7.2.1), to `out`, if that is shorter than it is; with a context, which
    /// then has the message, and whose window is not exceeded. Where it is not shorter, false: `out` and the context are as they
    /// were, and the message is to be sent as it is.
    ///
    /// Without a context it can be read by whoever has a window as large as the payload.
    ///
    /// # Panics
    /// Where the context's window has less than 10 bits.
    pub fn compress(&mut self, payload: &[u8], context: Option<&mut History>, out: &mut Vec<u8>) -> bool {
        if payload.is_empty() {
            return false;
        }
        let window_bits = context.as_deref().map_or(WINDOW_BITS_MAX, History::window_bits);
        assert!(window_bits >= WINDOW_BITS_MIN, "no window that is used");
        let place = &mut self.states[usize::from(window_bits - WINDOW_BITS_MIN)];
        let is_new = place.is_none();
        let state = place.get_or_insert_with(|| State {
            deflate: Deflate::new(i32::from(self.level), false, window_bits),
            loaded: 0,
        });
        let loaded = std::mem::take(&mut state.loaded);
        let goes_on = context.as_ref().is_some_and(|history| history.stamp != 0 && history.stamp == loaded);
        if !goes_on {
            if !is_new {
                state.deflate.reset();
            }
            let dictionary = context.as_deref().map_or(&[][..], History::as_slice);
            if !dictionary.is_empty() && state.deflate.set_dictionary(dictionary).is_err() {
                debug_assert!(false, "a raw stream takes a dictionary");
                *place = None;
                return false;
            }
        }
        let start = out.len();
        let compressed = compress_into(&mut state.deflate, payload, out);
        if compressed.is_none() {
            // A state with output that nobody took must not be reset: it would begin in the middle of its buffer.
            debug_assert!(false, "more than the bound");
            *place = None;
            out.truncate(start);
            return false;
        }
        if out.len() - start >= payload.len() {
            out.truncate(start);
            return false;
        }
        if let Some(history) = context {
            history.push(payload);
            history.stamp = next_stamp();
            state.loaded = history.stamp;
        }
        true
    }

    /// Frees the states; the next message makes its own anew.
    pub fn trim(&mut self) {
        self.states = [const { None }; WINDOWS];
    }

    /// Bytes of heap that the states have: each the window twice, its chains, a hash table of 2^16 entries, symbols.
    pub fn memory_bytes(&self) -> usize {
        let of = |(bits, _): (u8, _)| (4usize << bits) + (128 << 10) + (64 << 10) + (48 << 10);
        (WINDOW_BITS_MIN..).zip(&self.states).filter(|(_, state)| state.is_some()).map(of).sum()
    }
}

impl std::fmt::Debug for Deflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deflater").field("level", &self.level).finish_non_exhaustive()
    }
}

/// A number that no other state of any compressor of the process has had: a history may change its core.
fn next_stamp() -> u64 {
    thread_local! {
        /// The next, and where this thread's share of the numbers ends.
        static SHARE: std::cell::Cell<(u64, u64)> = const { std::cell::Cell::new((0, 0)) };
    }
    static SHARES: AtomicU64 = AtomicU64::new(1);
    const SHARE_LEN: u64 = 1 << 32;
    SHARE.with(|share| {
        let (mut next, mut end) = share.get();
        if next == end {
            next = SHARES.fetch_add(1, Ordering::Relaxed) * SHARE_LEN;
            end = next + SHARE_LEN;
        }
        share.set((next + 1, end));
        next
    })
}

/// Appends what the payload gives, up to where the flush ends, without [`TAIL`]. `None`: it has not come to its end, and the
/// state must not be used again.
fn compress_into(state: &mut Deflate, payload: &[u8], out: &mut Vec<u8>) -> Option<()> {
    // A literal has at most 9 bits, and a block of its own for what is worse than that some bytes of header.
    let end_max = out.len() + payload.len() + payload.len() / 8 + 64;
    let (mut taken, mut end) = (0, out.len());
    loop {
        if end == out.len() {
            let step = (payload.len() / 2).max(STEP_BYTES);
            out.resize((end + step).min(end_max), 0);
        }
        let (before_in, before_out) = (state.total_in(), state.total_out());
        let status = state.compress(&payload[taken..], &mut out[end..], DeflateFlush::SyncFlush);
        taken += (state.total_in() - before_in) as usize;
        end += (state.total_out() - before_out) as usize;
        if status.is_err() {
            return None;
        }
        // A flush that fills its room may have more to come.
        if end < out.len() {
            let is_done = taken == payload.len() && out[..end].ends_with(&TAIL);
            out.truncate(end.saturating_sub(TAIL.len()));
            return is_done.then_some(());
        }
        if end == end_max {
            return None;
        }
    }
}
