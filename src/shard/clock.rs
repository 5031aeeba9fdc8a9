//! What time it is: read once a tick, and the same for all that happens in it.

use std::time::Duration;

use crate::engine::Ring;
use crate::proto::http::HttpDate;

const SECOND_NS: u64 = 1_000_000_000;

/// A core's time, as of this tick.
pub(super) struct Clock {
    /// By the ring's clock.
    pub(super) now_ns: u64,
    /// What responses say of the time.
    pub(super) date: HttpDate,
    /// When the next second begins.
    next_date_ns: u64,
    /// What [`Shard::times`](super::Shard::times) was at the start of the tick.
    pub(super) times: Times,
}

/// How long a connection may take for what.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    /// For a request's head, and for a body that does not go on.
    pub(super) request: Duration,
    /// For the silence between two requests.
    pub(super) between: Duration,
}

impl Clock {
    /// Before the first tick.
    pub(super) fn new(now_ns: u64) -> Clock {
        Clock { now_ns, date: HttpDate::from_unix(0), next_date_ns: 0, times: Times::default() }
    }

    #[inline]
    pub(super) fn now_ms(&self) -> u64 {
        self.now_ns / 1_000_000
    }

    /// A tick begins.
    #[inline]
    pub(super) fn read(&mut self, ring: &impl Ring) {
        self.now_ns = ring.now();
        if self.now_ns >= self.next_date_ns {
            self.renew_date(ring.unix_ns());
        }
    }

    /// Once a second, and only where there is something to do.
    #[cold]
    fn renew_date(&mut self, unix_ns: u64) {
        self.date = HttpDate::from_unix(unix_ns / SECOND_NS);
        self.next_date_ns = self.now_ns + SECOND_NS - unix_ns % SECOND_NS;
    }
}
