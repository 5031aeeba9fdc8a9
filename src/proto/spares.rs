//! What a core's connections use one after the other: buffers for messages, and records of what is incomplete.

use super::partial::Partial;
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
}

impl Spares {
    /// Keeps at most `bytes_max` bytes of buffers.
    pub fn new(bytes_max: usize) -> Self {
        Self { pool: Pool::new(bytes_max), records: Vec::new() }
    }

    /// An empty buffer with at least `min_capacity` bytes of capacity, as [`Pool::take`] finds it.
    pub fn take(&mut self, min_capacity: usize) -> Vec<u8> {
        self.pool.take(min_capacity)
    }

    /// Takes a buffer that is not needed any more; its content is dropped.
    pub fn give(&mut self, buffer: Vec<u8>) {
        self.pool.give(buffer);
    }

    /// Frees everything kept.
    pub fn trim(&mut self) {
        self.pool.trim();
        self.records = Vec::new();
    }

    /// Frees what nobody has used since this was called last.
    pub fn trim_unused(&mut self) {
        self.pool.trim_unused();
        if self.pool.is_empty() {
            self.records = Vec::new();
        }
    }

    /// Bytes of the buffers kept.
    pub fn bytes(&self) -> usize {
        self.pool.bytes()
    }

    pub(super) fn take_record(&mut self) -> Box<Partial> {
        self.records.pop().unwrap_or_default()
    }

    pub(super) fn give_record(&mut self, record: Box<Partial>) {
        debug_assert!(record.is_idle(), "a record with content");
        if self.records.len() < RECORDS_MAX {
            self.records.push(record);
        }
    }
}
