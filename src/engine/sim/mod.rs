//! A seeded fake of the kernel: [`Ring`] implements the engine's trait over simulated sockets, so that whole cores run
//! in one thread, under faults, against a virtual clock.
//!
//! **The same seed gives the same run.** All chance comes from one generator, drawn from in the order of calls; all time
//! is [`World::now`], which moves only when the driver says so; nothing depends on addresses, hash order, threads or the
//! machine. A run is a function of the seed, the [`Faults`] and the calls made, and [`World::fingerprint`] is a digest of
//! everything that the cores were told: two runs with different digests took different ways. A driver that wants chance
//! of its own takes [`World::fork_rng`] at the start. A failing seed thus reproduces exactly, as long as neither the
//! driver nor the code under test asks anything but the world for time and chance.
//!
//! **The kernel's rules are asserted.** What would corrupt a stream or leak a buffer on the real ring panics here, where
//! the core makes the wrong call: two sends in flight for a slot, a receive armed twice, an operation on a closed slot, a
//! slot reused while something of it is in flight, a generation used again, a close over operations that were not
//! cancelled, a buffer recycled twice or never, and so on. A panic is a bug of the caller, never of
//! the peer. Bytes of a recycled buffer are overwritten.
//!
//! **A driver** calls each core's tick in turn. [`Ring::turn`](super::Ring::turn) never blocks: where the real one would
//! sleep it returns with nothing and [`World::parked_until`] says until when. The driver must then leave that core alone
//! until [`World::runnable`], which is the moment at which the real call would return; so a core that tells others that it
//! sleeps must not take that back between the return of `turn` and its next look at completions, clock and mail. When
//! no core is runnable, [`World::next_wakeup`] says where to move the clock, or that all sleep for good.

mod buffers;
mod client;
mod faults;
mod kernel;
mod listeners;
mod net;
mod ops;
mod options;
mod ring;
mod rng;
mod rules;
mod socket;
mod world;

#[cfg(test)]
mod connect_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod listener_tests;
#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod tests;

pub use client::{Client, Dial};
pub use faults::{Fault, FaultCounts, Faults};
pub use options::{Mutant, RingOptions};
pub use ring::Ring;
pub use rng::Rng;
pub use world::World;
