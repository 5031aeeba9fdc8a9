//! The client thread: one for the whole process, started by the first connection, asleep when there is nothing to do.

use std::cmp::Ordering;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering as Atomic};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::SigSet;

use super::connect::Order;
use super::core::Core;
use super::delay::DelayEnd;
use super::error::ClientError;
use super::line::{Line, LineEnd};
use super::resolve::resolve;
use crate::engine::bell::Bell;
use crate::engine::uring::{Options, Uring};
use crate::mail::{CoreWaker, Mailbox, PostOffice, Wake};

/// Most connections of the thread; RLIMIT_NOFILE may allow fewer.
const SLOTS_MAX: u32 = 1 << 16;

/// What users ask of the thread. Bounded, since there is at most one `Look` per connection under way, and one each of the
/// others per future.
pub(super) enum Letter {
    /// Make this connection.
    Connect(LineEnd, Box<Order>),
    /// The addresses of the connection in this slot, of this generation.
    Resolved(u32, u32, io::Result<Vec<SocketAddr>>),
    /// The user of this connection wants something.
    Look(Arc<Line>),
    /// Drop this later, which wakes somebody.
    Delay(Duration, DelayEnd),
}

/// The way to the client thread, or to a core that somebody else drives.
pub struct Driver {
    letters: Sender<Letter>,
    waker: CoreWaker,
    has_ended: Arc<AtomicBool>,
}

/// What the thread reads its letters from.
pub struct Letters {
    pub(super) queue: Receiver<Letter>,
    mailbox: Mailbox<Infallible>,
    _ending: Ending,
}

impl Letters {
    /// The thread is about to sleep; false if a letter has come, and it must not.
    pub(super) fn park(&mut self) -> bool {
        // The mailbox, always empty, contributes the flag and the fence: the queue is looked at behind them.
        let parked = self.mailbox.park();
        if parked && self.queue.is_empty() {
            return true;
        }
        self.mailbox.unpark();
        false
    }

    /// The thread is awake again, and looks for letters after this.
    pub(super) fn unpark(&mut self) {
        self.mailbox.unpark();
    }
}

static DRIVER: Mutex<Option<Arc<Driver>>> = Mutex::new(None);

struct BellWake(Arc<Bell>);

impl Wake for BellWake {
    fn wake(&self) {
        self.0.ring();
    }
}

/// Says that nobody reads the letters any more, however that came.
struct Ending(Arc<AtomicBool>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.store(true, Atomic::Release);
    }
}

impl Driver {
    /// The process's client thread, started if there is none.
    pub(super) fn get() -> Result<Arc<Driver>, ClientError> {
        let mut driver = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(driver) = driver.as_ref().filter(|driver| !driver.has_ended.load(Atomic::Acquire)) {
            return Ok(Arc::clone(driver));
        }
        let started = Arc::new(Driver::start()?);
        *driver = Some(Arc::clone(&started));
        Ok(started)
    }

    /// The way to a core that will have these letters, and is woken for them by `wake`.
    pub fn new(wake: Arc<dyn Wake>) -> (Driver, Letters) {
        let mut office = PostOffice::new(1, 1);
        let (_, mailbox) = office.take(0);
        let waker = office.courier(vec![wake]).waker(0).expect("it is the only core's");
        let (letters, queue) = crossbeam_channel::unbounded();
        let has_ended = Arc::new(AtomicBool::new(false));
        let ending = Ending(Arc::clone(&has_ended));
        (Driver { letters, waker, has_ended }, Letters { queue, mailbox, _ending: ending })
    }

    fn start() -> Result<Driver, ClientError> {
        let (ready, readiness) = mpsc::channel();
        let run = move || {
            // Signals are for the program's own threads.
            let _ = SigSet::all().thread_block();
            let ring = match Uring::new(&options(), Vec::new()) {
                Ok(ring) => ring,
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let (driver, letters) = Driver::new(Arc::new(BellWake(ring.bell())));
            let _ = ready.send(Ok(driver));
            if let Err(error) = Core::new(ring, letters, resolve).run() {
                tracing::error!(%error, "the client thread's ring failed");
            }
        };
        let unavailable = |why: &str| ClientError::Unavailable(format!("the client thread cannot run: {why}"));
        thread::Builder::new()
            .name("ringwire-client".into())
            .spawn(run)
            .map_err(|error| unavailable(&error.to_string()))?;
        match readiness.recv() {
            Ok(Ok(driver)) => Ok(driver),
            Ok(Err(error)) => Err(unavailable(&format!("io_uring cannot be used: {error}"))),
            Err(_) => Err(unavailable("it ended while starting")),
        }
    }

    /// Sends a letter and wakes the thread if it sleeps. If it has ended, whoever waits learns so by the letter's drop.
    pub(super) fn post(&self, letter: Letter) {
        if self.letters.send(letter).is_ok() {
            self.waker.wake();
        }
    }
}

fn options() -> Options {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    Options {
        sq_entries: 256,
        cq_entries: 4096,
        slots: u32::try_from(files).unwrap_or(u32::MAX).min(SLOTS_MAX),
        buffers: 1024,
        buffer_bytes: 4096,
        incremental_bytes: 64 << 10,
        spin: Duration::ZERO,
    }
}

/// Something due at a time; the earliest is the greatest, as a heap wants it.
pub(super) struct Due<T> {
    pub(super) at_ns: u64,
    pub(super) what: T,
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Due<T>) -> bool {
        self.at_ns == other.at_ns
    }
}

impl<T> Eq for Due<T> {}

impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Due<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Due<T>) -> Ordering {
        other.at_ns.cmp(&self.at_ns)
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl fmt::Debug for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letters").field("waiting", &self.queue.len()).finish_non_exhaustive()
    }
}
