//! A compression context, as plain bytes.

/// The largest window of DEFLATE, in bits (RFC 7692 7.1.2).
pub const WINDOW_BITS_MAX: u8 = 15;

/// The smallest window that is used for what goes out, in bits: 9 loses all that a context gives, and zlib cannot make 8.
pub const WINDOW_BITS_MIN: u8 = 10;

/// The window where none is set, in bits: see the figures in the module's head.
pub const WINDOW_BITS: u8 = 12;

/// The last bytes of the messages that went through a context, at most one window of them: all that the next message can
/// refer to. It grows with what goes through, so that a context that is not used costs nothing.
///
/// Invariant: `bytes.len() <= 1 << window_bits`.
#[derive(Debug)]
pub struct History {
    bytes: Vec<u8>,
    window_bits: u8,
    /// Which state of which [`Deflater`](super::Deflater) has these very bytes in its window; 0: none.
    pub(super) stamp: u64,
}

impl History {
    /// An empty context with a window of `2^window_bits` bytes.
    ///
    /// # Panics
    /// Where `window_bits` is not 8 to 15.
    pub fn new(window_bits: u8) -> Self {
        assert!((8..=WINDOW_BITS_MAX).contains(&window_bits), "no window of DEFLATE");
        Self { bytes: Vec::new(), window_bits, stamp: 0 }
    }

    /// Forgets everything, and frees it: the next message depends on nothing before it.
    pub fn reset(&mut self) {
        self.bytes = Vec::new();
        self.stamp = 0;
    }

    /// The window's size, in bits.
    pub fn window_bits(&self) -> u8 {
        self.window_bits
    }

    /// What the next message can refer to.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Nothing went through since it was made or reset.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes of heap that it holds; never more than the window has.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// A message went through.
    pub(super) fn push(&mut self, message: &[u8]) {
        let window = 1 << self.window_bits;
        let message = &message[message.len().saturating_sub(window)..];
        let kept = self.bytes.len().min(window - message.len());
        self.bytes.drain(..self.bytes.len() - kept);
        let len = kept + message.len();
        if self.bytes.capacity() < len {
            // Double, but never more than the window.
            let capacity = len.next_power_of_two().min(window);
            self.bytes.reserve_exact(capacity - kept);
        }
        self.bytes.extend_from_slice(message);
        self.stamp = 0;
        debug_assert!(self.bytes.len() <= window, "more than a window");
    }
}
