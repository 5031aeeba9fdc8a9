//! One io_uring driving many TCP connections on one thread: bytes in, bytes out, no protocol.
//!
//! Owns the ring, the provided buffers and every connection's queue of unsent bytes. A tick is: settle the sends of the
//! last tick, hand what was received to the [`App`], queue one SEND per connection that has something to say, then
//! submit and wait in one `io_uring_enter`.
//!
//! Invariants: at most one send of a connection is in flight; its `bytes` go before its `held` chunks; a provided buffer
//! returns to the kernel only when the kernel is done with it *and* no [`Chunk`] of it is left.

mod conn;
mod driver;
mod io;
mod life;
mod pool;
mod receive;
mod send;

pub use self::{driver::Driver, io::Io, pool::Chunk};

/// How a loop receives and sends.
#[derive(Clone, Debug)]
pub struct Options {
    /// Provided buffers; a power of two up to 32,768.
    pub buffers: u16,
    /// Bytes in each.
    pub buffer_size: u32,
    /// Let the kernel fill a buffer piece by piece.
    pub incremental: bool,
    /// Let one completion carry several buffers.
    pub bundle: bool,
    /// Keep one receive armed per connection instead of re-arming after each.
    pub multishot: bool,
    /// Pieces that together are at most this many bytes are copied into one plain send; above, the send is vectored.
    pub copy_bytes_max: usize,
    /// Operations submitted at once; after as many the loop enters the kernel before the tick has ended.
    pub submit_max: usize,
    /// Connections at once.
    pub slots: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            buffers: 128,
            buffer_size: 16 * 1024,
            incremental: false,
            bundle: false,
            multishot: true,
            copy_bytes_max: 16 * 1024,
            submit_max: 1024,
            slots: 16_384,
        }
    }
}

/// What a program does with the bytes.
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
