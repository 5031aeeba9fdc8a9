//! One closed-loop run: worker threads, the measured window, and what is read at its two ends.

use std::{
    io,
    net::TcpStream,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use peers::uring::{App, Driver, Io, Options};

use crate::{handshake::Target, report::Report, usage, wire::Messages};

const PROBLEMS_LISTED_MAX: usize = 20;
/// Nanoseconds; a latency above is recorded as this.
const LATENCY_MAX: u64 = 60_000_000_000;
const WAKE_EVERY: Duration = Duration::from_millis(10);

/// Where a run stands. Workers read it once per tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    Warmup,
    Measure,
    Stop,
}

/// What the workers and the measuring thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    phase: AtomicU8,
    done: Vec<AtomicU64>,
    finished: Vec<AtomicBool>,
    problem_count: AtomicU64,
    problems: Mutex<Vec<String>>,
}

impl Shared {
    fn new(threads: usize) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Warmup as u8),
            done: (0..threads).map(|_| AtomicU64::new(0)).collect(),
            finished: (0..threads).map(|_| AtomicBool::new(false)).collect(),
            problem_count: AtomicU64::new(0),
            problems: Mutex::default(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Warmup,
            1 => Phase::Measure,
            _ => Phase::Stop,
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Tells how many messages a worker has completed since it began.
    pub(crate) fn progress(&self, worker: usize, done: u64) {
        self.done[worker].store(done, Ordering::Relaxed);
    }

    fn done(&self) -> u64 {
        self.done.iter().map(|done| done.load(Ordering::Relaxed)).sum()
    }

    /// Tells that a worker will complete nothing more. Its connections stay open until [`Phase::Stop`], so that the end
    /// of the measured window still finds the threads that serve them.
    pub(crate) fn finish(&self, worker: usize) {
        self.finished[worker].store(true, Ordering::Relaxed);
    }

    fn is_finished(&self) -> bool {
        self.finished.iter().all(|finished| finished.load(Ordering::Relaxed))
    }

    /// Counts `count` things that must not happen, and lists them while the list is short.
    pub(crate) fn problem(&self, count: u64, text: impl FnOnce() -> String) {
        self.problem_count.fetch_add(count, Ordering::Relaxed);
        let mut problems = self.problems.lock().expect("no holder panics");
        if problems.len() < PROBLEMS_LISTED_MAX {
            problems.push(text());
        }
    }
}

/// The clock of a worker, read at most once per tick.
#[derive(Debug)]
pub(crate) struct TickClock {
    origin: Instant,
    now: Option<u64>,
}

impl TickClock {
    pub(crate) fn new() -> Self {
        Self { origin: Instant::now(), now: None }
    }

    /// Nanoseconds since the worker began.
    pub(crate) fn now(&mut self) -> u64 {
        *self.now.get_or_insert_with(|| self.origin.elapsed().as_nanos() as u64)
    }

    pub(crate) fn end_tick(&mut self) {
        self.now = None;
    }
}

/// An empty latency histogram in nanoseconds.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX, 3).expect("valid bounds")
}

/// Keeps the calling thread on one CPU.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cpus)?)
}

/// A scenario's part on one worker thread.
pub(crate) trait Scenario: App {
    /// Takes the connections of this worker, already open.
    fn adopt(&mut self, io: &mut Io, sockets: Vec<TcpStream>) -> io::Result<()>;
    /// Latencies of the measured window.
    fn into_latencies(self) -> Histogram<u64>;
}

/// What a scenario sends and how long it waits for the answer.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) messages: Arc<Messages>,
    /// Speak WebSocket; else bytes of the same number.
    pub(crate) websocket: bool,
    /// A reply that takes longer counts as lost.
    pub(crate) patience: Duration,
}

/// How long, and against what, a run goes.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) target: Target,
    pub(crate) raw: bool,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) pin: Option<usize>,
    pub(crate) warmup: Duration,
    /// Without it the run ends when the workers do.
    pub(crate) duration: Option<Duration>,
    pub(crate) server_pid: Option<u32>,
    /// Largest message on the wire; decides how much one receive may take.
    pub(crate) wire_bytes: usize,
}

struct Snapshot {
    at: Instant,
    done: u64,
    server: Duration,
    client: Duration,
}

impl Plan {
    fn snapshot(&self, shared: &Shared) -> io::Result<Snapshot> {
        Ok(Snapshot {
            at: Instant::now(),
            done: shared.done(),
            server: self.server_pid.map_or(Ok(Duration::ZERO), usage::cpu)?,
            client: usage::cpu(std::process::id())?,
        })
    }

    fn options(&self) -> Options {
        let buffer_size: u32 = if self.wire_bytes > 64 * 1024 {
            256 * 1024
        } else if self.wire_bytes > 4096 {
            64 * 1024
        } else {
            16 * 1024
        };
        Options {
            buffers: 64,
            buffer_size,
            slots: (self.connections as u32 + 64).next_multiple_of(64),
            timer: Some(WAKE_EVERY),
            ..Options::default()
        }
    }

    fn connect(&self, worker: usize) -> io::Result<Vec<TcpStream>> {
        let share = self.connections / self.threads + usize::from(worker < self.connections % self.threads);
        let open = || {
            if self.raw { self.target.connect(None) } else { self.target.upgrade() }
        };
        (0..share).map(|_| open()).collect()
    }

    /// Runs one scenario per worker and measures.
    pub(crate) fn run<S: Scenario>(&self, make: impl Fn(Arc<Shared>, usize) -> S + Sync) -> io::Result<Report> {
        let shared = Arc::new(Shared::new(self.threads));
        let ready = Barrier::new(self.threads + 1);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads)
                .map(|worker| {
                    let (shared, ready, make) = (shared.clone(), &ready, &make);
                    scope.spawn(move || {
                        let prepared = self.prepare(worker, || make(shared.clone(), worker));
                        ready.wait();
                        let finished = prepared.and_then(|(mut driver, mut scenario)| {
                            driver.run(&mut scenario)?;
                            Ok(scenario.into_latencies())
                        });
                        shared.finish(worker);
                        finished
                    })
                })
                .collect();
            ready.wait();
            thread::sleep(self.warmup);
            let begin = self.snapshot(&shared)?;
            shared.enter(Phase::Measure);
            let deadline = self.duration.map(|duration| begin.at + duration);
            while !shared.is_finished() && deadline.is_none_or(|deadline| Instant::now() < deadline) {
                let left = deadline.map_or(WAKE_EVERY, |deadline| deadline - Instant::now());
                thread::sleep(left.min(WAKE_EVERY));
            }
            let end = self.snapshot(&shared)?;
            let server_rss = self.server_pid.map(usage::resident_bytes).transpose()?;
            shared.enter(Phase::Stop);
            let mut latencies = latencies();
            for worker in workers {
                let worker = worker.join().map_err(|_| io::Error::other("a worker panicked"))?;
                latencies.add(worker?).map_err(io::Error::other)?;
            }
            let problems = shared.problems.lock().expect("no holder panics").clone();
            Ok(Report {
                messages: end.done - begin.done,
                elapsed: end.at - begin.at,
                server_cpu: self.server_pid.map(|_| end.server.saturating_sub(begin.server)),
                client_cpu: end.client.saturating_sub(begin.client),
                server_rss,
                latencies,
                problem_count: shared.problem_count.load(Ordering::Relaxed),
                problems,
            })
        })
    }

    fn prepare<S: Scenario>(&self, worker: usize, make: impl FnOnce() -> S) -> io::Result<(Driver, S)> {
        if let Some(first) = self.pin {
            pin(first + worker)?;
        }
        let mut driver = Driver::new(self.options(), None)?;
        let mut scenario = make();
        scenario.adopt(driver.io(), self.connect(worker)?)?;
        Ok((driver, scenario))
    }
}
