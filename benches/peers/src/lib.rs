//! What the comparison programs share: one io_uring loop, one epoll loop, and the sockets and process limits both need.
//!
//! The loops know no protocol. They move bytes at the lowest cost found on this kernel, which makes the programs built
//! on them the physical limit that a WebSocket server is measured against. The load generator drives its connections
//! with the same io_uring loop.

pub mod epoll;
pub mod process;
pub mod uring;
