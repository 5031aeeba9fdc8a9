//! What the comparison programs share: one io_uring loop, one epoll loop, the bare limits built on them, and how to start
//! servers and measure them in turn.
//!
//! The loops know no protocol. They move bytes at the lowest cost found on this kernel, which makes the programs built
//! on them the physical limit that a WebSocket server is measured against.

mod bare;
pub mod epoll;
pub mod process;
pub mod raw_echo;
pub mod raw_fanout;
pub mod raw_session;
pub mod runner;
pub mod uring;
