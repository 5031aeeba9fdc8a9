//! One io_uring driving many TCP connections on one thread: bytes in, bytes out, no protocol.
//!
//! Owns the ring, the provided buffers and every connection's queue of unsent bytes. A tick is: settle the sends of the
//! last tick, hand what was received to the [`App`], queue one SEND per connection that has something to say, then
//! submit and wait in one `io_uring_enter`.
//!
//! Invariants: at most one send of a connection is in flight; its `bytes` go before its `held` chunks; a provided buffer
//! returns to the kernel only when the kernel is done with it *and* no [`Chunk`] of it is left.

mod app;
mod conn;
mod driver;
mod io;
mod life;
mod options;
mod pool;
mod receive;
mod send;

pub use self::{app::App, driver::Driver, io::Io, options::Options, pool::Chunk};
