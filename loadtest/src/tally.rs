//! What one worker counts.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// Nanoseconds; a latency above is recorded as this.
const LATENCY_MAX: u64 = 600_000_000_000;
/// Problems that are told in words; the rest is only counted.
pub(crate) const PROBLEMS_LISTED_MAX: usize = 20;

/// An empty latency histogram in nanoseconds, exact to three digits.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX, 3).expect("valid bounds")
}

/// What is measured in time besides the main latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timed {
    /// From when a message really was sent; the main latency counts from when it should have been.
    Uncorrected,
    /// From the first delivery of a broadcast to its last.
    Spread,
    /// From connecting to the end of the opening handshake.
    Handshake,
    /// From a ping to its pong.
    Ping,
    /// From an HTTP request to its response.
    Http,
    /// Deliveries to readers before others stalled.
    BeforeStall,
    /// Deliveries to readers while others stalled.
    WhileStalled,
}

impl Timed {
    pub(crate) const ALL: [Timed; 7] = [
        Timed::Uncorrected,
        Timed::Spread,
        Timed::Handshake,
        Timed::Ping,
        Timed::Http,
        Timed::BeforeStall,
        Timed::WhileStalled,
    ];

    /// Its key in the figures.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Timed::Uncorrected => "uncorrected",
            Timed::Spread => "spread",
            Timed::Handshake => "handshake",
            Timed::Ping => "ping",
            Timed::Http => "http",
            Timed::BeforeStall => "before_stall",
            Timed::WhileStalled => "while_stalled",
        }
    }
}

/// Messages that were not as they should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checks {
    /// Never came.
    pub(crate) lost: u64,
    /// Came again.
    pub(crate) duplicated: u64,
    /// Came behind a later one.
    pub(crate) reordered: u64,
    /// Came with another opcode, length or content.
    pub(crate) corrupted: u64,
    /// Came although nobody sent them.
    pub(crate) unexpected: u64,
}

impl Checks {
    pub(crate) fn add(&mut self, other: &Checks) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupted += other.corrupted;
        self.unexpected += other.unexpected;
    }

    pub(crate) fn total(&self) -> u64 {
        self.lost + self.duplicated + self.reordered + self.corrupted + self.unexpected
    }

    /// Names and counts.
    pub(crate) fn entries(&self) -> [(&'static str, u64); 5] {
        [
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("reordered", self.reordered),
            ("corrupted", self.corrupted),
            ("unexpected", self.unexpected),
        ]
    }
}

/// One worker's counts.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Messages completed: replies, deliveries, sessions, handshakes.
    pub(crate) done: u64,
    /// Messages published, where each has many deliveries.
    pub(crate) published: u64,
    /// Scheduled messages that were never sent.
    pub(crate) unsent: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Connections open now.
    pub(crate) open: u64,
    /// Connections opened in all.
    pub(crate) opened: u64,
    pub(crate) checks: Checks,
    /// Connections that failed or ended on their own.
    pub(crate) failed: u64,
    /// Close codes that the server sent.
    pub(crate) closes: BTreeMap<u16, u64>,
    /// System errors.
    pub(crate) errnos: BTreeMap<i32, u64>,
    /// HTTP statuses other than the wanted.
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) problems: Vec<String>,
    /// The main latency of the current interval.
    pub(crate) interval: Histogram<u64>,
    timed: [Option<Histogram<u64>>; Timed::ALL.len()],
    /// Whether latencies are recorded now.
    pub(crate) recording: bool,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            done: 0,
            published: 0,
            unsent: 0,
            bytes_in: 0,
            bytes_out: 0,
            open: 0,
            opened: 0,
            checks: Checks::default(),
            failed: 0,
            closes: BTreeMap::new(),
            errnos: BTreeMap::new(),
            statuses: BTreeMap::new(),
            problems: Vec::new(),
            interval: latencies(),
            timed: Default::default(),
            recording: false,
        }
    }

    /// Records the main latency.
    #[inline]
    pub(crate) fn latency(&mut self, nanoseconds: u64) {
        if self.recording {
            self.interval.saturating_record(nanoseconds.max(1));
        }
    }

    /// Records another one, whether the window is measured or not.
    pub(crate) fn time(&mut self, what: Timed, nanoseconds: u64) {
        self.timed[what as usize].get_or_insert_with(latencies).saturating_record(nanoseconds.max(1));
    }

    /// Records another one if the window is measured.
    #[inline]
    pub(crate) fn time_recorded(&mut self, what: Timed, nanoseconds: u64) {
        if self.recording {
            self.time(what, nanoseconds);
        }
    }

    pub(crate) fn timed(&self, what: Timed) -> Option<&Histogram<u64>> {
        self.timed[what as usize].as_ref()
    }

    /// Lists a problem in words while the list is short. The caller counts it.
    pub(crate) fn say(&mut self, text: impl FnOnce() -> String) {
        if self.problems.len() < PROBLEMS_LISTED_MAX {
            self.problems.push(text());
        }
    }
}
