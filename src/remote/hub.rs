//! The hub as seen by threads that are no core.

use std::sync::{Arc, OnceLock};

use crate::admission::Admission;
use crate::hub::{CoreHub, Letter};
use crate::mail::{Courier, MailError};
use crate::message::Envelope;

/// The way to every connection of a running server from any thread; clones are the same. What it can do is in the
/// documentation of its methods: messages, events, rooms, data, counts.
#[derive(Clone)]
pub struct Hub {
    courier: Courier<Letter>,
    envelope: Arc<OnceLock<Envelope>>,
    admission: Arc<Admission>,
}

impl Hub {
    /// The way in through `courier`.
    #[doc(hidden)]
    pub fn new(courier: Courier<Letter>, admission: Arc<Admission>) -> Hub {
        Hub { courier, envelope: Arc::default(), admission }
    }

    /// Whether the server is shutting down, or about to: it is true from the beginning of `RINGWIRE_DRAIN_NOTICE`, in which
    /// everybody is still served and let in.
    pub fn is_draining(&self) -> bool {
        self.admission.is_leaving()
    }

    /// Whether the memory budget was spent, and not enough of it is free again: no WebSocket is let in.
    pub fn is_out_of_memory(&self) -> bool {
        self.admission.memory().is_spent()
    }

    /// The memory budget in bytes; 0 = none.
    pub(crate) fn memory_bytes_max(&self) -> u64 {
        self.admission.memory().bytes_max()
    }

    /// WebSockets now, over all cores.
    pub fn websockets(&self) -> u32 {
        self.admission.connections()
    }

    /// Sets how events are written; the first app that is made says it.
    pub(crate) fn set_envelope(&self, envelope: Envelope) {
        let _ = self.envelope.set(envelope);
    }

    pub(crate) fn envelope(&self) -> Envelope {
        self.envelope.get().copied().unwrap_or_default()
    }

    /// Runs `ask` on every core and collects what it returns, in the order of cores. Blocks, so not on a core's thread.
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

    pub(crate) fn courier(&self) -> &Courier<Letter> {
        &self.courier
    }

    /// The number of cores.
    pub fn cores(&self) -> usize {
        self.courier.cores()
    }
}
