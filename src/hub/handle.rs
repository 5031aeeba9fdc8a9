//! The hub as seen by threads that are no core.

use std::sync::Arc;

use super::{CoreHub, Delivery, Letter, Tally};
use crate::frame_buf::FrameBuf;
use crate::id::ConnectionId;
use crate::mail::{Courier, MailError};
use crate::outbox::Queued;
use crate::proto::Kind;

/// The way to every connection of a running server from any thread.
#[derive(Clone)]
pub struct Hub {
    courier: Courier<Letter>,
}

impl Hub {
    pub(crate) fn new(courier: Courier<Letter>) -> Hub {
        Hub { courier }
    }

    /// Sends a text message to one connection, by its id. The answer arrives when the owning core has looked; dropping
    /// the receiver makes it fire-and-forget.
    ///
    /// # Errors
    /// If the core's mailbox is full or the server has ended.
    pub fn emit_to(
        &self,
        id: ConnectionId,
        kind: Kind,
        payload: &[u8],
    ) -> Result<oneshot::Receiver<Delivery>, MailError> {
        let (tally, answer) = Tally::new();
        let frame = FrameBuf::new(kind.into(), payload);
        if id.core() >= self.courier.cores() {
            tally.add(Queued::Gone.into());
        } else {
            self.courier.send(id.core(), Letter::EmitTo { id, frame, tally: Some(tally) })?;
        }
        Ok(answer)
    }

    /// Sends a message to all members of a room, on every core.
    ///
    /// # Errors
    /// If a core's mailbox is full or the server has ended; cores before it have been asked.
    pub fn publish(&self, room: &str, kind: Kind, payload: &[u8]) -> Result<oneshot::Receiver<Delivery>, MailError> {
        let (tally, answer) = Tally::new();
        let frame = FrameBuf::new(kind.into(), payload);
        let room: Arc<str> = room.into();
        for core in 0..self.courier.cores() {
            let letter = Letter::Publish {
                room: Arc::clone(&room),
                frame: frame.clone(),
                except: None,
                tally: Some(Arc::clone(&tally)),
            };
            self.courier.send(core, letter)?;
        }
        Ok(answer)
    }

    /// Runs `ask` on every core and collects what it returns, in the order of cores.
    ///
    /// # Errors
    /// If a core's mailbox is full or the server has ended.
    pub fn ask_all<A: Send + 'static>(
        &self,
        ask: impl Fn(&mut CoreHub) -> A + Clone + Send + 'static,
    ) -> Result<Vec<A>, MailError> {
        let mut answers = Vec::new();
        for core in 0..self.courier.cores() {
            let (sender, receiver) = oneshot::channel();
            let ask = ask.clone();
            let run = move |hub: &mut CoreHub| {
                // The asker may have gone: then nobody misses the answer.
                let _ = sender.send(ask(hub));
            };
            self.courier.send(core, Letter::Run(Box::new(run)))?;
            answers.push(receiver);
        }
        answers.into_iter().map(|answer| answer.recv().map_err(|_| MailError::Ended)).collect()
    }

    pub(crate) fn letter(&self, core: usize, letter: Letter) -> Result<(), MailError> {
        self.courier.send(core, letter)
    }

    /// The number of cores.
    pub fn cores(&self) -> usize {
        self.courier.cores()
    }
}
