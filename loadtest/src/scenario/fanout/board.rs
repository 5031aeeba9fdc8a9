//! What the workers of a fan-out share: the messages under way, with their times, and how far each stream is.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use ringwire::engine::bell::Bell;

use super::plan::Plan;

/// Entries of the table of messages under way, over all streams.
const FLIGHTS_MAX: usize = 1 << 18;

/// One message under way.
#[derive(Debug, Default)]
pub(super) struct Flight {
    pub(super) sequence: AtomicU64,
    pub(super) due: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) first: AtomicU64,
    pub(super) last: AtomicU64,
    pub(super) workers: AtomicU32,
}

#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) published: AtomicU64,
    /// How many have reached everybody.
    pub(super) completed: AtomicU64,
    /// When the last of them did, and how long it had taken.
    pub(super) completed_at: AtomicU64,
    pub(super) took: AtomicU64,
}

/// What the workers share.
#[derive(Debug)]
pub(crate) struct Board {
    pub(super) plan: Plan,
    pub(super) workers: usize,
    pub(super) window: usize,
    pub(super) flights: Vec<Flight>,
    pub(super) streams: Vec<Stream>,
    /// The streams' numbers in the whole run.
    pub(super) numbers: Vec<u32>,
    pub(super) bells: Vec<OnceLock<Arc<Bell>>>,
}

impl Board {
    pub(crate) fn new(plan: Plan, workers: usize) -> Self {
        let window = (FLIGHTS_MAX / plan.streams()).clamp(64, 1 << 14).next_power_of_two();
        let window = window.max((plan.burst as usize * 2).next_power_of_two());
        Self {
            workers,
            window,
            flights: (0..plan.streams() * window).map(|_| Flight::default()).collect(),
            streams: (0..plan.streams()).map(|_| Stream::default()).collect(),
            numbers: (0..plan.streams()).map(|stream| plan.stream_number(stream)).collect(),
            bells: (0..workers).map(|_| OnceLock::new()).collect(),
            plan,
        }
    }

    /// Tells how to wake a worker.
    pub(crate) fn set_bell(&self, worker: usize, bell: Arc<Bell>) {
        let _ = self.bells[worker].set(bell);
    }

    pub(super) fn place(&self, stream: usize, sequence: u64) -> usize {
        stream * self.window + (sequence as usize & (self.window - 1))
    }

    pub(super) fn is_complete(&self) -> bool {
        self.streams
            .iter()
            .all(|stream| stream.completed.load(Ordering::Acquire) >= stream.published.load(Ordering::Acquire))
    }
}
