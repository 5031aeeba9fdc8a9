//! What a run brings: counters while it goes on, and everything that was measured when it is over.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::tally::{Tally, Timed};

/// Counters summed over all workers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) done: u64,
    pub(crate) published: u64,
    pub(crate) open: u64,
    pub(crate) opened: u64,
    pub(crate) problems: u64,
}

/// A stretch of time.
#[derive(Clone, Debug)]
pub(crate) struct Interval {
    /// Its end, in seconds since the run began.
    pub(crate) at_s: f64,
    pub(crate) seconds: f64,
    pub(crate) measured: bool,
    pub(crate) done: u64,
    pub(crate) open: u64,
    pub(crate) latencies: Option<Histogram<u64>>,
}

/// CPU time of a window.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    pub(crate) server: Option<Duration>,
    pub(crate) client: Duration,
    /// Of the client's busiest thread.
    pub(crate) busiest: Duration,
}

/// What else the machine has done in a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Host {
    pub(crate) processors: usize,
    /// CPU time that a hypervisor gave to others.
    pub(crate) stolen: Duration,
    /// CPU time of other processes, where it can be told from the server's.
    pub(crate) others: Option<Duration>,
}

/// What a run brought.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// From the first connect until all connections were ready.
    pub(crate) ramp: Duration,
    pub(crate) ramp_cpu: Cpu,
    pub(crate) ready: u64,
    pub(crate) rss_before: Option<u64>,
    /// When all were open.
    pub(crate) rss_open: Option<u64>,
    /// At the end of the window.
    pub(crate) rss_after: Option<u64>,
    pub(crate) elapsed: Duration,
    pub(crate) cpu: Cpu,
    pub(crate) host: Option<Host>,
    pub(crate) done: u64,
    pub(crate) published: u64,
    pub(crate) workers: usize,
    pub(crate) latencies: Histogram<u64>,
    pub(crate) intervals: Vec<Interval>,
    /// Everything else, summed over the workers.
    pub(crate) tally: Tally,
    pub(crate) timed: Vec<(Timed, Histogram<u64>)>,
    pub(crate) interrupted: bool,
    /// The server's process ended before the window did.
    pub(crate) server_gone: bool,
}
