//! The ways to be among other machines, or alone.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::asking::{Ask, Reply};
use super::board::Board;
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
