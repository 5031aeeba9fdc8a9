//! Where a run that is one of several waits for the others: its connections are open, and messages are to begin at the same
//! time everywhere.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use crate::outcome::Counts;

/// What a run tells of its way.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reached {
    /// Its connections are open, or will not be: it waits.
    Ready(Counts),
    /// Messages begin to flow.
    Flowing(Instant),
    /// The measured window is over.
    Measured,
}

/// See the module.
pub(crate) struct Gate {
    tell: Box<dyn Fn(Reached) + Send + Sync>,
    opens_at: Mutex<Option<Instant>>,
    is_abandoned: AtomicBool,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("opens_at", &self.opens_at()).finish_non_exhaustive()
    }
}

impl Gate {
    pub(crate) fn new(tell: impl Fn(Reached) + Send + Sync + 'static) -> Gate {
        Gate { tell: Box::new(tell), opens_at: Mutex::default(), is_abandoned: AtomicBool::new(false) }
    }

    pub(crate) fn reached(&self, what: Reached) {
        (self.tell)(what);
    }

    /// Says when.
    pub(crate) fn open_at(&self, at: Instant) {
        *self.opens_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    /// When it opens, once that is known.
    pub(crate) fn opens_at(&self) -> Option<Instant> {
        *self.opens_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody wants to know any more: the run need not wait for what is still due.
    pub(crate) fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::Release);
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Acquire)
    }
}
