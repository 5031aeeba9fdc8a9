//! One table for the three ways to handle a connection: by a closure, by a handler that waits, and by a task of its own. Each
//! row says once what is done with the connection, and runs in each of the three; its tests are called
//! `GROUP::ROW::closure`, `::waiting` and `::task`:
//!
//! ```sh
//! cargo test --test ways verbs::join_and_leave
//! ```
//!
//! Each runs plain, over TLS, and with compression of one mode at least; over the three ways, in each of its modes.
//!
//! The cores are real ones on the simulated ring, so time is virtual, and what must not happen is seen not to.

#![allow(unreachable_pub, reason = "the modules of a test crate are reachable from nowhere else")]

#[allow(dead_code, reason = "it is the simulation's")]
#[path = "../simulation/host.rs"]
mod host;
#[allow(dead_code, reason = "it is the simulation's")]
#[path = "../simulation/rig.rs"]
mod rig;
#[allow(dead_code, reason = "it is the simulation's")]
#[path = "../simulation/secure.rs"]
mod secure;
#[allow(dead_code, reason = "it is the simulation's")]
#[path = "../simulation/wire.rs"]
mod wire;

#[macro_use]
mod row;
mod failures;
mod hooks;
mod limits;
mod modes;
mod rooms;
mod secrets;
mod slow;
mod verbs;
