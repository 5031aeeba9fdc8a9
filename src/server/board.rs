//! Which cores of a server have ended, and how: for all who wait for its end, on threads and in futures.
//!
//! A core writes down its end itself, as the last thing it does, so that nobody needs a handle for that to be known. Those
//! who are told to end have their time and a grace; whoever waits is told when that is over, too.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::guard;
use crate::wakers::Wakers;

/// How long after the time that it has a core that was told to end may take: its last handlers run, and its ring waits for
/// the kernel.
const END_GRACE: Duration = Duration::from_secs(10);

pub(super) struct Board {
    state: Mutex<State>,
    changed: Condvar,
    /// The cores' threads, until somebody has joined them.
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// How long a drain takes by the settings.
    drain_max: Duration,
    started: Instant,
}

struct State {
    /// Cores that have not ended.
    running: Vec<usize>,
    /// How the first one failed that did.
    failure: Option<Error>,
    /// When they must have ended; `None` while nothing tells them to.
    until: Option<Instant>,
    wakers: Wakers,
    /// Whether a thread waits for those who await.
    is_watched: bool,
    /// Whether the log has it.
    is_told: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    pub(super) fn new(cores: usize, drain_max: Duration, started: Instant) -> Board {
        let state = State {
            running: (0..cores).collect(),
            failure: None,
            until: None,
            wakers: Wakers::default(),
            is_watched: false,
            is_told: false,
        };
        Board { state: Mutex::new(state), changed: Condvar::new(), threads: Mutex::default(), drain_max, started }
    }

    /// The cores' threads, for who joins.
    pub(super) fn have_threads(&self, threads: Vec<JoinHandle<()>>) {
        *lock(&self.threads) = threads;
    }

    /// All cores were told to drain now, in so much time or as the settings say.
    pub(super) fn draining(&self, within: Option<Duration>) {
        self.end_by(within.unwrap_or(self.drain_max).saturating_add(END_GRACE));
    }

    /// A core has ended. Where one has failed, the others are stopped.
    pub(super) fn ended(&self, core: usize, failure: Option<&Error>) {
        let mut state = lock(&self.state);
        state.running.retain(|other| *other != core);
        if state.failure.is_none() {
            state.failure = failure.map(Error::again);
        }
        drop(state);
        match failure {
            Some(_) => self.end_by(END_GRACE),
            None => self.changed.notify_all(),
        }
    }

    fn end_by(&self, time: Duration) {
        // One beyond all clocks is none.
        if let Some(by) = Instant::now().checked_add(time) {
            let mut state = lock(&self.state);
            state.until = Some(state.until.map_or(by, |until| until.min(by)));
        }
        self.changed.notify_all();
    }

    /// Waits until all cores have ended, or had their time; how that was.
    pub(super) fn join(&self) -> Result<()> {
        let overdue = self.wait();
        if overdue.is_none() {
            // Under the lock, so that others who join wait for the threads too.
            for thread in lock(&self.threads).drain(..) {
                if let Err(panic) = thread.join() {
                    guard::drop_panic(panic);
                }
            }
        }
        self.outcome(&mut lock(&self.state), overdue)
    }

    /// Waits until all cores have ended, or had their time: a core that has not ended.
    fn wait(&self) -> Option<usize> {
        let mut state = lock(&self.state);
        loop {
            if let Some(overdue) = state.verdict() {
                return overdue;
            }
            state = match state.until {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// As [`Board::join`], for a future of this number; a thread waits for all of them.
    pub(super) fn poll_join(self: &Arc<Board>, number: &mut Option<u64>, cx: &Context<'_>) -> Poll<Result<()>> {
        let mut state = lock(&self.state);
        if let Some(overdue) = state.verdict() {
            return Poll::Ready(self.outcome(&mut state, overdue));
        }
        let number = *number.get_or_insert_with(|| state.wakers.number());
        let former = state.wakers.set(number, cx.waker());
        let is_watched = std::mem::replace(&mut state.is_watched, true);
        drop(state);
        drop(former);
        if !is_watched {
            let board = Arc::clone(self);
            let watch = move || {
                board.wait();
                let wakers = lock(&board.state).wakers.take();
                wakers.for_each(guard::wake);
            };
            if let Err(error) = thread::Builder::new().name("ringwire-drain".into()).spawn(watch) {
                lock(&self.state).is_watched = false;
                return Poll::Ready(Err(Error::io("starting a thread that waits for the cores")(error)));
            }
        }
        Poll::Pending
    }

    /// The future of this number does not wait any more.
    pub(super) fn forget(&self, number: u64) {
        let waker = lock(&self.state).wakers.remove(number);
        // With the lock over: this may be the end of a task.
        drop(waker);
    }

    fn outcome(&self, state: &mut State, overdue: Option<usize>) -> Result<()> {
        let is_told = std::mem::replace(&mut state.is_told, true);
        let failed = state.failure.as_ref().map_or(Ok(()), |failure| Err(failure.again()));
        if let Some(core) = overdue {
            let hangs = format!("core {core} has not ended in its time: a handler of it does not return");
            if !is_told {
                tracing::error!("{hangs}");
            }
            return failed.and(Err(Error::Internal(hangs)));
        }
        if !is_told {
            let uptime_s = self.started.elapsed().as_secs();
            tracing::info!(target: "ringwire::server", uptime_s, failed = failed.is_err(), "stopped");
        }
        failed
    }
}

impl State {
    /// Whether there is nothing more to wait for, and then the core that has not ended, if one has not.
    fn verdict(&self) -> Option<Option<usize>> {
        match (self.running.first(), self.until) {
            (None, _) => Some(None),
            (Some(core), Some(until)) if until <= Instant::now() => Some(Some(*core)),
            (Some(_), _) => None,
        }
    }
}
