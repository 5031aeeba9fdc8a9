//! Hubs of several cores whose mail comes whenever a test likes.

use super::tests::{bytes_of, payloads};
use super::*;
use crate::admission::Admission;
use crate::mail::{Mailbox, PostOffice, Wake};
use crate::remote::Hub;

struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

/// Cores of so many connections each, the mailboxes of those that have not ended, and what other threads have of all.
pub(super) struct Mailed {
    pub(super) hubs: Vec<CoreHub>,
    pub(super) mailboxes: Vec<Option<Mailbox<Letter>>>,
    pub(super) handle: Hub,
}

/// `prepare` is called before a core has connections, and may give it other queues.
pub(super) fn mailed(cores: usize, slots: u32, depth: usize, prepare: impl Fn(&mut CoreHub)) -> Mailed {
    let mut office = PostOffice::new(cores, depth);
    let courier = office.courier((0..cores).map(|_| Arc::new(NoWake) as Arc<dyn Wake>).collect());
    let handle = Hub::new(courier, Arc::new(Admission::new(1000, 0, 0)));
    let ids = IdKey::default();
    let (hubs, mailboxes) = (0..cores)
        .map(|core| {
            let (post, mailbox) = office.take(core);
            let (outbox, spares) = (Outbox::new(1 << 20), Spares::new(1 << 20));
            let mut hub = CoreHub::new(ids.clone(), post, outbox, spares, SlowConsumer::Close);
            prepare(&mut hub);
            for slot in 0..slots {
                hub.outbox.open(slot, 1);
                hub.enter(slot, 1, 0);
            }
            (hub, Some(mailbox))
        })
        .unzip();
    Mailed { hubs, mailboxes, handle }
}

/// The letters that a core reads in a tick, in the order in which a shard reads them.
pub(super) fn letters(mailbox: &mut Mailbox<Letter>) -> Vec<Letter> {
    let ordinary = mailbox.len();
    let mut letters: Vec<Letter> = std::iter::from_fn(|| mailbox.next_urgent()).collect();
    letters.extend(std::iter::from_fn(|| mailbox.next()).take(ordinary));
    letters
}

/// The texts that a core's connections are sent, each connection's in order.
pub(super) fn sent(hub: &mut CoreHub) -> Vec<(u32, Vec<String>)> {
    let sent = hub.outbox.batch().map(|send| (send.slot, payloads(&bytes_of(send.bytes)))).collect();
    hub.outbox.settle(|_| {});
    sent
}
