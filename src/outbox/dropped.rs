//! What a connection has lost.

/// Messages that a connection will not get because it does not keep up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dropped {
    /// Those whose place a newer one with the same key took.
    pub replaced: u64,
    /// Those that were forgotten to make room for newer ones.
    pub oldest: u64,
    /// Those that were not queued, because there was no room.
    pub newest: u64,
    /// The bytes of all these on the wire.
    pub bytes: u64,
}

impl Dropped {
    /// How many in all.
    pub fn messages(&self) -> u64 {
        self.replaced + self.oldest + self.newest
    }

    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        self.messages() == 0
    }

    /// One that was not queued.
    pub(crate) fn one_newest(bytes: usize) -> Dropped {
        Dropped { newest: 1, bytes: bytes as u64, ..Dropped::default() }
    }

    /// Counts these, too.
    pub(crate) fn add(&mut self, more: Dropped) {
        self.replaced += more.replaced;
        self.oldest += more.oldest;
        self.newest += more.newest;
        self.bytes += more.bytes;
    }

    pub(super) fn add_replaced(&mut self, bytes: usize) {
        self.replaced += 1;
        self.bytes += bytes as u64;
    }
}
