//! What a program does with the bytes.

use super::{io::Io, pool::Chunk};

/// See the module.
pub trait App {
    /// A connection was accepted.
    fn opened(&mut self, _io: &mut Io, _conn: u32) {}
    /// Bytes arrived. The chunk must go to [`Io::recycle`] or [`Io::send_chunk`].
    fn received(&mut self, io: &mut Io, conn: u32, chunk: Chunk);
    /// The connection is gone and its number may be given out again. `error` is 0 for an orderly end.
    fn closed(&mut self, _io: &mut Io, _conn: u32, _error: i32) {}
    /// Everything that arrived was handed over; what is queued now leaves with this tick. `false` ends the loop.
    fn tick(&mut self, _io: &mut Io) -> bool {
        true
    }
}
