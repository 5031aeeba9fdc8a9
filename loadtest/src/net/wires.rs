//! The sealed bytes of a batch, and the connections whose sessions have something to say. See `secure.rs`.

use ringwire::{
    engine::{BatchSend, Key, Op, Pieces},
    tls::TlsError,
};

/// What is kept of the arena between two batches.
const ARENA_BYTES_KEPT: usize = 4 << 20;

/// See the module.
#[derive(Default)]
pub(super) struct Wires {
    pub(super) arena: Vec<u8>,
    pub(super) sealed: Vec<Sealed>,
    /// Connections whose sessions have something to say by themselves.
    pub(super) urgent: Vec<Key>,
    /// Those that could seal no more.
    pub(super) broken: Vec<(Key, TlsError)>,
}

/// What one connection has in the batch.
pub(super) struct Sealed {
    pub(super) key: Key,
    pub(super) start: usize,
    pub(super) end: usize,
    /// Bytes of its queue that this is.
    pub(super) plain: usize,
}

impl Wires {
    /// The batch, as the ring takes it.
    pub(super) fn batch(&self) -> impl Iterator<Item = BatchSend<'_>> {
        self.sealed.iter().map(|sealed| {
            let pieces = Pieces::One(&self.arena[sealed.start..sealed.end]);
            BatchSend { token: sealed.key.token(Op::SendNow), pieces }
        })
    }

    /// The batch has been tried.
    pub(super) fn settle(&mut self) {
        self.sealed.clear();
        self.arena.clear();
        if self.arena.capacity() > ARENA_BYTES_KEPT {
            self.arena = Vec::new();
        }
    }
}
