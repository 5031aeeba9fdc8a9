//! What a core's connections use one after the other: buffers for messages, and records of what is incomplete.

use super::ProtocolError;
use super::deflate::{History, InflateError, Inflater};
use super::partial::Partial;
use super::payload::{HEADROOM, OwnedPayload};
use super::pool::Pool;

/// Most records kept.
const RECORDS_MAX: usize = 64;

/// A core's buffers and records that nobody uses at present. Once warm, taking and giving do not allocate.
#[derive(Debug)]
pub struct Spares {
    pub(super) pool: Pool,
    // Boxed because a connection holds its record by one pointer, and it must move between the two without a copy.
    #[allow(clippy::vec_box)]
    records: Vec<Box<Partial>>,
    inflater: Inflater,
    /// Messages that had been decompressed when it was looked at last.
    inflated_before: u64,
    inflated: Inflated,
    /// Decompression has had its time when it has taken more than this.
    inflate_until_ns: u64,
    clock_ns: fn() -> u64,
}

/// What was decompressed, in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inflated {
    /// Messages.
    pub messages: u64,
    /// Bytes of theirs as they came.
    pub bytes_before: u64,
    /// Bytes of theirs then.
    pub bytes_after: u64,
    /// The time that it took, where the clock is known, failures included.
    pub took_ns: u64,
}

impl Spares {
    /// Keeps at most `bytes_max` bytes of buffers.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            pool: Pool::new(bytes_max),
            records: Vec::new(),
            inflater: Inflater::new(),
            inflated_before: 0,
            inflated: Inflated::default(),
            inflate_until_ns: u64::MAX,
            clock_ns: || 0,
        }
    }

    /// An empty buffer with at least `min_capacity` bytes of capacity, as [`Pool::take`] finds it.
    pub fn take(&mut self, min_capacity: usize) -> Vec<u8> {
        self.pool.take(min_capacity)
    }

    /// Has the time that decompressing takes be told by a clock.
    pub fn set_clock(&mut self, clock_ns: fn() -> u64) {
        self.clock_ns = clock_ns;
    }

    /// From now on decompression has had its time when it has taken more than this.
    pub fn grant_inflating(&mut self, for_ns: u64) {
        self.inflate_until_ns = self.inflated.took_ns.saturating_add(for_ns);
    }

    /// Whether decompression has had its time. Nothing is refused for it: who asks may have other things done first.
    #[inline]
    pub fn is_inflating_spent(&self) -> bool {
        self.inflated.took_ns > self.inflate_until_ns
    }

    /// What was decompressed so far.
    pub fn inflated(&self) -> Inflated {
        self.inflated
    }

    /// A compressed message's payload.
    pub(super) fn inflate(
        &mut self,
        compressed: &[u8],
        context: Option<&mut History>,
        bytes_max: usize,
    ) -> Result<OwnedPayload, ProtocolError> {
        let began_ns = (self.clock_ns)();
        // As much as text usually gives, of what has come.
        let mut out = self.pool.take(HEADROOM + 4 * compressed.len().clamp(128, 16 << 10));
        out.resize(HEADROOM, 0);
        let read = self.inflater.inflate(compressed, context, bytes_max, &mut out, &mut self.pool);
        self.inflated.took_ns += (self.clock_ns)().saturating_sub(began_ns);
        if let Err(error) = read {
            self.pool.give(out);
            return Err(match error {
                InflateError::Invalid => ProtocolError::BadCompression,
                InflateError::TooBig => ProtocolError::MessageTooBig,
            });
        }
        self.inflated.messages += 1;
        self.inflated.bytes_before += compressed.len() as u64;
        self.inflated.bytes_after += (out.len() - HEADROOM) as u64;
        Ok(OwnedPayload::assembled(out, HEADROOM))
    }

    /// Takes a buffer that is not needed any more; its content is dropped.
    pub fn give(&mut self, buffer: Vec<u8>) {
        self.pool.give(buffer);
    }

    /// Frees everything kept.
    pub fn trim(&mut self) {
        self.pool.trim();
        self.records = Vec::new();
        self.inflater.trim();
    }

    /// Frees what nobody has used since this was called last.
    pub fn trim_unused(&mut self) {
        self.pool.trim_unused();
        if std::mem::replace(&mut self.inflated_before, self.inflated.messages) == self.inflated.messages {
            self.inflater.trim();
        }
        if self.pool.is_empty() {
            self.records = Vec::new();
        }
    }

    /// Bytes of the buffers kept, and of what decompresses.
    pub fn bytes(&self) -> usize {
        self.pool.bytes() + self.inflater.memory_bytes()
    }

    pub(super) fn take_record(&mut self) -> Box<Partial> {
        self.records.pop().unwrap_or_default()
    }

    pub(super) fn give_record(&mut self, record: Box<Partial>) {
        debug_assert!(record.is_idle() && record.context.is_none(), "a record with content");
        if self.records.len() < RECORDS_MAX {
            self.records.push(record);
        }
    }
}
