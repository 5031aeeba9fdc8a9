//! Many machines as one: rooms, emits and counts beyond this process.
//!
//! To the cores the others are one more address of the post office, the *bridge*, whose letters are plain data both ways. What
//! a machine does among others is a state machine without a bus, a clock or a core ([`node`]); a [`Desk`](desk::Desk) makes
//! letters of what it says, and a bus carries its messages. There are two ways to be ([`Backplane`]): alone ([`Local`]),
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
#[cfg(feature = "nats")]
mod nats;
pub mod node;
mod parts;
mod peers;
mod seen;
mod subject;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;

pub use asking::{Ask, Reply};
pub(crate) use board::Board;
pub use board::NodeInfo;

use crate::config::Config;
use crate::engine::bell::Doorbell;
use crate::error::Result;
use crate::hub::Letter;
use crate::mail::{Courier, PostOffice, Wake};

/// What a question to this machine will come to.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// How this machine's connections are asked for other machines.
pub(crate) type House = Box<dyn Fn(Ask) -> Answering + Send>;

/// How cores, and threads that are none, wake the bridge.
pub(crate) struct Bells {
    pub(crate) doorbell: Arc<Doorbell>,
    pub(crate) wake: Arc<dyn Wake>,
}

/// What the bridge goes to work with.
pub(crate) struct Place {
    pub(crate) courier: Courier<Letter>,
    pub(crate) house: House,
    /// How many connections this machine has.
    pub(crate) connections: Box<dyn Fn() -> u64 + Send>,
}

/// A way to be among other machines, or alone.
pub(crate) trait Backplane {
    /// What others know of it, and threads know of them; `None`: this machine is alone.
    fn board(&self) -> Option<Arc<Board>>;

    /// Adds the bridge to the post office, before cores are given theirs; how it is woken.
    fn join(&mut self, office: &mut PostOffice<Letter>) -> Option<Bells>;

    /// Starts the bridge, and waits until it is among the others, or a while; what is to be joined when all cores have ended.
    ///
    /// # Errors
    /// If another machine has this one's name.
    fn start(self: Box<Self>, place: Place) -> Result<Option<JoinHandle<()>>>;
}

/// This machine alone.
pub(crate) struct Local;

impl Backplane for Local {
    fn board(&self) -> Option<Arc<Board>> {
        None
    }

    fn join(&mut self, _: &mut PostOffice<Letter>) -> Option<Bells> {
        None
    }

    fn start(self: Box<Self>, _: Place) -> Result<Option<JoinHandle<()>>> {
        Ok(None)
    }
}

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
