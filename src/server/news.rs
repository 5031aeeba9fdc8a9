//! What cores tell whoever starts them, and what they are told at their end.

use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::board::Board;
use crate::engine::Descriptors;
use crate::engine::bell::Doorbell;
use crate::error::{Error, Result};
use crate::hub::{Letter, Shutdown};
use crate::remote::Hub;

/// What a core tells of itself, in this order.
pub(super) enum News {
    /// It has a ring: how to wake it, how many slots there are, and where their sockets are.
    Ring { bell: Arc<Doorbell>, slots: u32, descriptors: Descriptors },
    /// It has its app.
    Made,
    /// It has ended, well or not.
    Ended(Result<()>),
}

/// Ends a server from any thread, whatever its cores do, and waits for none of them.
#[derive(Clone)]
pub(super) struct Ending {
    pub(super) hub: Hub,
}

impl Ending {
    pub(super) fn new(hub: Hub, board: &Arc<Board>) -> Ending {
        let board = Arc::clone(board);
        hub.tell_of_shutdown(move |within| board.draining(within));
        Ending { hub }
    }

    pub(super) fn drain(&self) {
        self.hub.shutdown();
    }

    pub(super) fn stop(&self) {
        self.tell_all(|| Shutdown::Stop.into());
    }

    fn tell_all(&self, letter: impl Fn() -> Letter) {
        for core in 0..self.hub.cores() {
            // One that has ended needs no telling.
            let _ = self.hub.courier().send_urgent(core, letter());
        }
    }
}

/// What the next core has done on its way to a start; an error if it has ended instead.
pub(super) fn next_step(news: &Receiver<(usize, News)>) -> Result<(usize, News)> {
    let early = || Error::Internal("a core ended while starting".into());
    match news.recv() {
        Ok((_, News::Ended(ended))) => Err(ended.err().unwrap_or_else(early)),
        Ok(step) => Ok(step),
        Err(_) => Err(early()),
    }
}
