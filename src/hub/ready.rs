//! Those elsewhere who wait until a connection has taken what is queued to it, or has ended.

use super::{ConnectionId, CoreHub};

/// Queued bytes from which a stream waits.
pub(crate) const READY_BYTES_MAX: usize = 64 << 10;

/// Somebody who waits for a connection.
pub(super) struct WhoWaits {
    /// For its end alone.
    for_end: bool,
    told: oneshot::Sender<()>,
}

impl CoreHub {
    /// Tells when no more than [`READY_BYTES_MAX`] are queued to a connection; at once if that is so, or it has gone.
    pub(crate) fn tell_when_ready(&mut self, id: ConnectionId, told: oneshot::Sender<()>) {
        match self.resolve(id).filter(|slot| self.outbox.queued_bytes(*slot) > READY_BYTES_MAX) {
            Some(slot) => {
                self.outbox.note_falls_from(READY_BYTES_MAX);
                self.wait_for(slot, WhoWaits { for_end: false, told });
            }
            None => drop(told.send(())),
        }
    }

    /// Tells when a connection has ended.
    pub(crate) fn tell_when_ended(&mut self, id: ConnectionId, told: oneshot::Sender<()>) {
        match self.find(id) {
            Some(slot) => self.wait_for(slot, WhoWaits { for_end: true, told }),
            None => drop(told.send(())),
        }
    }

    fn wait_for(&mut self, slot: u32, waiter: WhoWaits) {
        let waiters = self.waiters.entry(slot).or_default();
        if waiters.len() == waiters.capacity() {
            // Before the list grows: who has given up is not kept.
            waiters.retain(|waiter| !waiter.told.is_closed());
        }
        waiters.push(waiter);
    }

    /// A connection has taken most of what was queued to it.
    pub(crate) fn tell_ready(&mut self, slot: u32) {
        let Some(waiters) = self.waiters.get_mut(&slot) else { return };
        for waiter in waiters.extract_if(.., |waiter| !waiter.for_end) {
            // Who has given up needs no word.
            let _ = waiter.told.send(());
        }
    }

    /// A connection has ended.
    pub(super) fn tell_ended(&mut self, slot: u32) {
        if self.waiters.is_empty() {
            return;
        }
        for waiter in self.waiters.remove(&slot).into_iter().flatten() {
            let _ = waiter.told.send(());
        }
    }
}
