//! What became of a message, and how the answers of several cores become one.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::mail::MailError;
use crate::outbox::Queued;

/// What became of a message, summed over those it was meant for.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, ws};
///
/// let route = || ws().on_connect(|socket| socket.join("lobby"));
/// let server = TestServer::builder().cores(2).start(move || App::new().ws("/", route()));
/// let _clients = [server.connect("/"), server.connect("/")];
/// let told = server.block_on(server.hub().send_to_room("lobby", "hello").unwrap());
/// assert_eq!((told.queued, told.dropped, told.gone, told.refused), (2, 0, 0, 0));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// Connections to which it was queued.
    pub queued: u32,
    /// Connections that did not get it because their queue was full.
    pub dropped: u32,
    /// Connections that had gone, or never existed.
    pub gone: u32,
    /// Cores that could not be told of it because their mailboxes were full, and the way to the other machines where that was:
    /// none of their connections has got it.
    pub refused: u32,
    /// Connections of other machines to which it is on its way, as many as this machine knows of; what becomes of it there is
    /// not told.
    pub elsewhere: u32,
    /// Connections of machines that do not answer: whether they have got it is not known.
    pub unreachable: u32,
}

impl Delivery {
    pub(super) fn add(&mut self, queued: Queued) {
        match queued {
            Queued::Yes => self.queued += 1,
            Queued::Full => self.dropped += 1,
            Queued::Gone => self.gone += 1,
        }
    }

    pub(super) fn merge(&mut self, more: Delivery) {
        self.queued += more.queued;
        self.dropped += more.dropped;
        self.gone += more.gone;
        self.refused += more.refused;
        self.elsewhere += more.elsewhere;
        self.unreachable += more.unreachable;
    }

    /// Nobody has got it, for it could not be told to whoever was to deliver it.
    pub(super) fn not_made(error: MailError) -> Delivery {
        match error {
            MailError::Full => Delivery { refused: 1, ..Delivery::default() },
            MailError::Ended => Queued::Gone.into(),
            MailError::Unreachable => Delivery { unreachable: 1, ..Delivery::default() },
        }
    }
}

impl From<Queued> for Delivery {
    fn from(queued: Queued) -> Delivery {
        let mut delivery = Delivery::default();
        delivery.add(queued);
        delivery
    }
}

/// Collects the answers of several cores, and hands out the sum when the last one has answered.
///
/// Letters share it, and that the last of them is gone is how it is known that everybody has answered: so a core that ended
/// and a mailbox that was thrown away with its letters have answered too, and nobody waits for them. It stays in this process:
/// what goes to another machine has a number in its stead, beside which the bridge keeps this until the answer, or none, has
/// come.
#[derive(Debug)]
pub struct Tally {
    queued: AtomicU32,
    dropped: AtomicU32,
    gone: AtomicU32,
    refused: AtomicU32,
    elsewhere: AtomicU32,
    unreachable: AtomicU32,
    answer: Mutex<Option<oneshot::Sender<Delivery>>>,
}

impl Tally {
    /// A tally and where its sum will arrive. It is complete when every clone of the `Arc` is gone.
    pub fn new() -> (Arc<Tally>, oneshot::Receiver<Delivery>) {
        let (sender, receiver) = oneshot::channel();
        let zero = || AtomicU32::new(0);
        let answer = Mutex::new(Some(sender));
        let (queued, dropped, gone, refused) = (zero(), zero(), zero(), zero());
        let (elsewhere, unreachable) = (zero(), zero());
        (Arc::new(Tally { queued, dropped, gone, refused, elsewhere, unreachable, answer }), receiver)
    }

    /// Adds one core's answer.
    pub fn add(&self, delivery: Delivery) {
        self.queued.fetch_add(delivery.queued, Ordering::Relaxed);
        self.dropped.fetch_add(delivery.dropped, Ordering::Relaxed);
        self.gone.fetch_add(delivery.gone, Ordering::Relaxed);
        self.refused.fetch_add(delivery.refused, Ordering::Relaxed);
        self.elsewhere.fetch_add(delivery.elsewhere, Ordering::Relaxed);
        self.unreachable.fetch_add(delivery.unreachable, Ordering::Relaxed);
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let sum = Delivery {
            queued: *self.queued.get_mut(),
            dropped: *self.dropped.get_mut(),
            gone: *self.gone.get_mut(),
            refused: *self.refused.get_mut(),
            elsewhere: *self.elsewhere.get_mut(),
            unreachable: *self.unreachable.get_mut(),
        };
        if let Some(answer) = self.answer.get_mut().ok().and_then(Option::take) {
            // Nobody waits any more: fire and forget.
            let _ = answer.send(sum);
        }
    }
}
