//! What the queues of a core keep to be used again, given back when it was not.

use super::Outbox;

/// What an arena has room for at first. Not a power of two, through which buffers of messages grow: allocators keep blocks of
/// one size side by side, and where this one stood among those, the memory of none of them would go back to the system.
pub(super) const ARENA_BYTES_AT_FIRST: usize = 72 << 10;
/// An arena larger than this is given up when it has been nearly empty for a while.
pub(super) const ARENA_BYTES_KEPT: usize = 1 << 20;
/// Ticks of little use after which a large arena is given up.
pub(super) const SHRINK_AFTER_TICKS: u32 = 1024;

impl Outbox {
    /// Whether there is memory that is kept to be used again, and worth having back.
    #[inline]
    pub fn has_spares(&self) -> bool {
        self.arena.capacity() > ARENA_BYTES_AT_FIRST || !self.backlogs_free.is_empty()
    }

    /// Frees what was not used since this was called last. Between [`Outbox::settle`] and the next message.
    pub fn trim_unused(&mut self) {
        let used_bytes = std::mem::take(&mut self.arena_used_bytes);
        let room = self.arena.capacity();
        if self.arena.is_empty() && used_bytes < room / 4 && room > ARENA_BYTES_AT_FIRST {
            self.arena = Vec::with_capacity(ARENA_BYTES_AT_FIRST.max(used_bytes));
        }
        self.backlogs_free = Vec::new();
    }

    /// Gives up a large arena that has been nearly empty for a while.
    pub(super) fn shrink(&mut self) {
        self.arena_used_bytes = self.arena_used_bytes.max(self.arena.len());
        if self.arena.capacity() <= ARENA_BYTES_KEPT || self.arena.len() > self.arena.capacity() / 4 {
            self.little_used_ticks = 0;
            return;
        }
        self.little_used_ticks += 1;
        if self.little_used_ticks > SHRINK_AFTER_TICKS || self.arena.capacity() > 64 * ARENA_BYTES_KEPT {
            self.arena = Vec::with_capacity(ARENA_BYTES_AT_FIRST);
            self.little_used_ticks = 0;
        }
    }
}
