//! Many machines as one: rooms, emits and counts beyond this process.
//!
//! To the cores the others are one more address of the post office, the *bridge*, whose letters are plain data both ways. What
//! a machine does among others is a state machine without a bus, a clock or a core ([`node`]); a `Desk` makes
//! letters of what it says, and a bus carries its messages. There are two ways to be (`Backplane`): alone (`Local`),
//! which costs nothing, and joined by NATS, by a thread of its own that serves no connection.
//!
//! What is promised: at most once; in the order of the sending core, for each room, set of connections or connection; counts
//! that are right a moment after the last change. Whoever can publish to the subjects is trusted.
//!
//! Knows of this crate: `config`, `engine`, `error`, `hub`, `mail`, `message`, `outbox`, `proto`.

// Without a bus it is only tested.
#![cfg_attr(not(feature = "nats"), allow(dead_code))]

mod asking;
mod beat;
mod board;
mod bytes;
mod desk;
mod line;
#[cfg(feature = "nats")]
mod nats;
pub mod node;
mod parts;
mod peers;
mod seen;
mod subject;
mod way;

pub use asking::{Ask, Reply};
pub(crate) use board::Board;
pub use board::NodeInfo;

pub(crate) use way::{Answering, House, Place};
use way::{Backplane, Local};

use crate::config::Config;
use crate::error::Result;

/// What the settings ask for.
///
/// # Errors
/// If the bridge cannot be made.
pub(crate) fn of(config: &Config) -> Result<Box<dyn Backplane>> {
    #[cfg(feature = "nats")]
    if let Some(urls) = &config.nats_url {
        return Ok(Box::new(nats::Nats::new(config, urls)?));
    }
    let _ = config;
    Ok(Box::new(Local))
}
