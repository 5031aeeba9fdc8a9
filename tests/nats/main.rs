//! Machines joined by NATS: real processes, and a real nats-server that each test starts for itself. Without one installed they
//! are skipped, and say so.

#![cfg(all(feature = "cli", feature = "nats"))]

#[path = "../common/mod.rs"]
mod common;

#[path = "../common/nats.rs"]
mod common_nats;

mod apart;
mod credentials;
mod history;
mod processes;
mod resuming;
mod rig;
mod secrets;
