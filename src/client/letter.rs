//! What users ask of the client thread, and the way to it.
//!
//! A [`Line`] knows no thread: its calls say whether the thread has to look at it, and a [`Handle`] sends the letter.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::delay::{Delay, DelayEnd};
use super::error::ClientError;
use super::line::{Later, Line, LineEnd, Noticed, Queued, Waiter};
use super::order::Order;
use crate::engine::Key;
use crate::mail::{CoreWaker, Parked, Wake};
use crate::message::{IntoMessage, OwnedMessage};

/// What users ask of the thread. Bounded, since there is at most one `Look` per connection under way, and one each of the
/// others per future.
pub(super) enum Letter {
    /// Make this connection.
    Connect(LineEnd, Box<Order>),
    /// The addresses of this connection.
    Resolved(Key, io::Result<Vec<SocketAddr>>),
    /// The user of this connection wants something.
    Look(Arc<Line>),
    /// Drop this later, which wakes somebody.
    Delay(Duration, DelayEnd),
}

/// The way to the client thread, or to a driver that somebody else runs.
pub struct Courier {
    letters: Sender<Letter>,
    waker: CoreWaker,
    has_ended: Arc<AtomicBool>,
}

impl Courier {
    /// The way to a driver that will have these letters, and is woken for them by `wake`.
    pub fn new(wake: Arc<dyn Wake>) -> (Arc<Courier>, Letters) {
        let parked = Arc::new(Parked::default());
        let (letters, queue) = crossbeam_channel::unbounded();
        let waker = CoreWaker::new(Arc::clone(&parked), wake);
        let courier = Arc::new(Courier { letters, waker, has_ended: Arc::default() });
        let ending = Ending(Arc::clone(&courier.has_ended));
        (Arc::clone(&courier), Letters { queue, parked, courier, _ending: ending })
    }

    /// Sends a letter and wakes the thread if it sleeps. If it has ended, whoever waits learns so by the letter's drop.
    pub(super) fn post(&self, letter: Letter) {
        if self.letters.send(letter).is_ok() {
            self.waker.wake();
        }
    }

    /// Done when so much time has passed on the thread's clock, or when the thread has ended.
    pub(super) fn delay(&self, duration: Duration) -> Delay {
        let (delay, end) = Delay::new();
        self.post(Letter::Delay(duration, end));
        delay
    }

    /// Nobody reads letters any more.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Courier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Courier").finish_non_exhaustive()
    }
}

/// What the thread reads its letters from.
pub struct Letters {
    queue: Receiver<Letter>,
    parked: Arc<Parked>,
    courier: Arc<Courier>,
    _ending: Ending,
}

impl Letters {
    /// The next letter.
    pub(super) fn next(&mut self) -> Option<Letter> {
        self.queue.try_recv().ok()
    }

    /// Letters that wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// The thread is about to sleep; false if a letter has come, and it must not.
    pub(super) fn park(&mut self) -> bool {
        self.parked.park(|| self.queue.is_empty())
    }

    /// The thread is awake again, and looks for letters after this.
    pub(super) fn unpark(&mut self) {
        self.parked.unpark();
    }

    /// The way to these letters.
    pub(super) fn courier(&self) -> Arc<Courier> {
        Arc::clone(&self.courier)
    }
}

impl fmt::Debug for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letters").field("waiting", &self.queue.len()).finish_non_exhaustive()
    }
}

/// Says that nobody reads the letters any more, however that came.
struct Ending(Arc<AtomicBool>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A user's hold on a connection: its line, and the way to the thread that drives it.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) line: Arc<Line>,
    courier: Arc<Courier>,
}

impl Handle {
    /// Asks for a connection.
    pub(super) fn order(courier: Arc<Courier>, order: Order) -> Handle {
        let line = Line::new(order.settings.outbox_bytes_max, order.settings.inbox_bytes_max);
        courier.post(Letter::Connect(LineEnd(Arc::clone(&line)), Box::new(order)));
        Handle { line, courier }
    }

    fn tell<T>(&self, (answer, must_look): Noticed<T>) -> T {
        if must_look {
            self.courier.post(Letter::Look(Arc::clone(&self.line)));
        }
        answer
    }

    pub(super) fn poll_recv(&self, cx: &Context<'_>) -> Poll<Option<Result<OwnedMessage, ClientError>>> {
        self.tell(self.line.poll_recv(cx))
    }

    pub(super) fn try_queue(&self, message: impl IntoMessage) -> Result<Queued, ClientError> {
        self.line.try_queue(message).map(|queued| self.tell(queued))
    }

    pub(super) fn poll_queue(
        &self,
        later: &mut Later,
        waiter: &mut Waiter<'_>,
        cx: &Context<'_>,
    ) -> Poll<Result<(), ClientError>> {
        self.tell(self.line.poll_queue(later, waiter, cx))
    }

    pub(super) fn ping(&self) -> Result<u64, ClientError> {
        self.line.ping().map(|number| self.tell(number))
    }

    pub(super) fn close(&self, code: u16, reason: &str) -> Result<(), ClientError> {
        self.line.close(code, reason).map(|closing| self.tell(closing))
    }

    /// The user is gone: nobody will receive any more.
    pub(super) fn abandon(&self) {
        self.tell(self.line.abandon());
    }
}
