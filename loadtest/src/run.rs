//! One run: worker threads, the measured window, and what is read at its ends.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::{Pid, gettid},
};

use ringwire::engine::bell::Bell;

use crate::{
    deal::Deal,
    gate::{Gate, Reached},
    net::{Nanos, Net},
    outcome::{Counts, Cpu, Host, Interval, Outcome, add_timed, nothing_opened},
    part::Part,
    problems::Problems,
    progress::{Doing, Progress},
    scenario::{Phase, Scenario, Share},
    tally::{Tally, Timed, latencies},
    target::Target,
    usage,
    wire::Messages,
};

/// How often the measuring thread looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often it wakes the workers, which set no timers of their own for what is rare.
const RING_EVERY: Duration = Duration::from_millis(60);
/// Lets a server finish what the last handshake began, before its memory is read.
const SETTLE: Duration = Duration::from_millis(300);
/// Scenarios look for what has come too late before the run ends for them.
const LAST_LOOK: Duration = Duration::from_millis(150);
/// Descriptors that are not connections, on every ring and in the process.
const SPARE_DESCRIPTORS: usize = 512;

/// How long, and against what, a run goes.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) targets: Arc<[Target]>,
    /// Messages of fewer bytes are not compressed.
    pub(crate) deflate_bytes_min: usize,
    /// Kept for good: every thread looks at them all the time.
    pub(crate) messages: &'static Messages,
    /// Connections that are opened first, and must be: of all agents together.
    pub(crate) connections: usize,
    /// Connections at once, where they are not these.
    pub(crate) slots: usize,
    /// What of it is here.
    pub(crate) part: Part,
    /// Where it waits for the others.
    pub(crate) gate: Option<Arc<Gate>>,
    pub(crate) workers: usize,
    /// CPUs to pin the workers to, in turn; none: not at all.
    pub(crate) pin: Vec<usize>,
    pub(crate) warmup: Duration,
    /// Without it the run ends when the workers do.
    pub(crate) duration: Option<Duration>,
    /// How long what is under way at the end may take.
    pub(crate) patience: Duration,
    /// How long a handshake may take.
    pub(crate) handshake_patience: Duration,
    pub(crate) server_pid: Option<u32>,
    pub(crate) interval: Duration,
}

/// What one worker tells the others while it runs.
#[derive(Debug, Default)]
struct Told {
    done: AtomicU64,
    published: AtomicU64,
    open: AtomicU64,
    opened: AtomicU64,
    asked: AtomicU64,
    problems: AtomicU64,
    ready: AtomicBool,
    finished: AtomicBool,
    /// It has ended by an error or a panic: there is nothing to measure.
    failed: AtomicBool,
    thread: AtomicI32,
    bell: OnceLock<Arc<Bell>>,
}

/// What the workers and the measuring thread share.
#[derive(Debug)]
struct Shared {
    phase: AtomicU8,
    workers: Vec<Told>,
    /// Latencies by interval, until the measuring thread takes them.
    intervals: Mutex<BTreeMap<u64, Histogram<u64>>>,
    interval_ns: Nanos,
}

/// However a worker ends, nobody waits for it; by a panic it has failed.
struct Ended<'a>(&'a Told);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.failed.store(true, Ordering::Release);
        }
        self.0.ready.store(true, Ordering::Release);
        self.0.finished.store(true, Ordering::Release);
    }
}

/// Ends the run for the workers, which go on until they are told, whatever becomes of the measuring thread.
struct StopAtEnd<'a>(&'a Shared);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.enter(Phase::Stop);
    }
}

impl Shared {
    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for told in &self.workers {
            counts.done += told.done.load(Ordering::Relaxed);
            counts.published += told.published.load(Ordering::Relaxed);
            counts.open += told.open.load(Ordering::Relaxed);
            counts.opened += told.opened.load(Ordering::Relaxed);
            counts.asked += told.asked.load(Ordering::Relaxed);
            counts.problems += told.problems.load(Ordering::Relaxed);
        }
        counts
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
        self.ring_bells();
    }

    fn ring_bells(&self) {
        self.workers.iter().filter_map(|told| told.bell.get()).for_each(|bell| bell.ring());
    }

    fn has_failed(&self) -> bool {
        self.workers.iter().any(|told| told.failed.load(Ordering::Acquire))
    }

    fn all(&self, flag: impl Fn(&Told) -> &AtomicBool) -> bool {
        self.workers.iter().all(|told| flag(told).load(Ordering::Acquire))
    }
}

#[derive(Clone, Debug)]
struct Snapshot {
    at: Instant,
    counts: Counts,
    /// None where there is no process to look at, or no more.
    server: Option<usage::Threads>,
    client: Duration,
    host: Option<usage::Host>,
    threads: Vec<Duration>,
}

/// Raises the soft limit on open files to the hard limit and returns it.
pub(crate) fn raise_nofile() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// The fewest rings that hold so many connections: each has as many direct descriptors as a process may have.
pub(crate) fn workers_needed(connections: usize, descriptors: u64) -> usize {
    let each =
        usize::try_from(descriptors).unwrap_or(usize::MAX).min(1 << 20).saturating_sub(SPARE_DESCRIPTORS).max(64);
    connections.div_ceil(each).max(1)
}

fn pin(cpu: usize) -> io::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cpus)?)
}

/// What a worker has brought; an error if it failed.
fn joined<T>(ended: thread::Result<io::Result<T>>) -> io::Result<T> {
    ended.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Err(io::Error::other(format!("a worker panicked: {}", text.unwrap_or("it does not say why"))))
    })
}

impl Plan {
    /// How connections are dealt out to the targets.
    pub(crate) fn deal(&self) -> Deal {
        Deal::new(self.targets.len(), self.part.agents)
    }

    fn snapshot(&self, shared: &Shared) -> io::Result<Snapshot> {
        let threads = shared.workers.iter().map(|told| usage::thread_cpu(told.thread.load(Ordering::Relaxed)));
        Ok(Snapshot {
            at: Instant::now(),
            counts: shared.counts(),
            server: self.server_pid.and_then(|pid| usage::Threads::read(pid).ok()),
            client: usage::cpu(std::process::id())?,
            host: usage::host(),
            threads: threads.collect(),
        })
    }

    fn cpu(&self, begin: &Snapshot, end: &Snapshot) -> Cpu {
        let threads = begin.threads.iter().zip(&end.threads).map(|(begin, end)| end.saturating_sub(*begin));
        let server = begin.server.as_ref().zip(end.server.as_ref()).map(|(begin, end)| end.since(begin));
        Cpu {
            server: server.map(|(all, _)| all),
            server_busiest: server.map(|(_, busiest)| busiest),
            client: end.client.saturating_sub(begin.client),
            busiest: threads.max().unwrap_or_default(),
        }
    }

    fn host(&self, begin: &Snapshot, end: &Snapshot) -> Option<Host> {
        let (before, after) = begin.host.zip(end.host)?;
        let cpu = self.cpu(begin, end);
        // A server on this machine that nobody has named cannot be told from others.
        let is_here = |target: &Target| target.addr.ip().is_loopback() || self.server_pid.is_some();
        let named = cpu.server.or_else(|| (!self.targets.iter().any(is_here)).then_some(Duration::ZERO));
        let used = after.used.saturating_sub(before.used);
        Some(Host {
            processors: usage::machine().2.max(1),
            stolen: after.stolen.saturating_sub(before.stolen),
            others: named.map(|server| used.saturating_sub(server + cpu.client)),
        })
    }

    /// Runs one scenario per worker and measures. `stop` ends the run early.
    ///
    /// # Errors
    /// If nothing could be measured: no ring, no connection.
    pub(crate) fn run<S: Scenario>(
        &self,
        make: impl Fn(Share, &Net) -> S + Sync,
        progress: &mut Progress,
        stop: &AtomicBool,
    ) -> io::Result<Outcome> {
        let shared = Shared {
            phase: AtomicU8::new(Phase::Open as u8),
            workers: (0..self.workers).map(|_| Told::default()).collect(),
            intervals: Mutex::default(),
            interval_ns: self.interval.as_nanos() as Nanos,
        };
        let origin = Instant::now();
        // The server may end while it is measured: that is for the report to say.
        let rss = || self.server_pid.and_then(|pid| usage::resident_bytes(pid).ok());
        let rss_before = rss();
        thread::scope(|scope| {
            let _stop = StopAtEnd(&shared);
            let before = self.snapshot(&shared)?;
            let workers: Vec<_> = (0..self.workers)
                .map(|worker| {
                    let (shared, make) = (&shared, &make);
                    scope.spawn(move || {
                        let told = &shared.workers[worker];
                        let ended = Ended(told);
                        let result = self.work(worker, shared, make, origin);
                        told.failed.store(result.is_err(), Ordering::Release);
                        drop(ended);
                        result
                    })
                })
                .collect();
            let enter = |phase: Phase| shared.enter(phase);
            let mut watch = Watch::new(&shared, origin, progress);

            watch.until("connecting", false, || shared.all(|told| &told.ready) || stop.load(Ordering::Relaxed));
            let opened = self.snapshot(&shared)?;
            enter(Phase::Settle);
            thread::sleep(if self.server_pid.is_some() { SETTLE } else { SETTLE / 6 });
            let rss_open = rss();
            let nothing = self.connections > 0 && opened.counts.open == 0;
            if nothing {
                enter(Phase::Stop);
                let mut problems = Problems::default();
                for worker in workers {
                    let (tally, _) = joined(worker.join())?;
                    problems.add(&tally.problems);
                }
                return Err(io::Error::other(nothing_opened(&problems)));
            }
            self.wait_for_others(&mut watch, opened.counts, stop);
            let flows_after = origin.elapsed();
            if !self.warmup.is_zero() {
                enter(Phase::Warmup);
                let warm = Instant::now() + self.warmup;
                watch.until("warming up", false, || Instant::now() >= warm || stop.load(Ordering::Relaxed));
            }

            let begin = self.snapshot(&shared)?;
            enter(Phase::Measure);
            let deadline = self.duration.map(|duration| begin.at + duration);
            let over = || {
                deadline.is_some_and(|deadline| Instant::now() >= deadline)
                    || shared.all(|told| &told.finished)
                    || stop.load(Ordering::Relaxed)
            };
            watch.until("measuring", true, over);
            let end = self.snapshot(&shared)?;
            let rss_after = rss();
            if let Some(gate) = &self.gate {
                gate.reached(Reached::Measured);
            }
            enter(Phase::Drain);
            let give_up = Instant::now() + self.patience + Duration::from_secs(1);
            watch.until("draining", false, || {
                let is_abandoned = self.gate.as_ref().is_some_and(|gate| gate.is_abandoned());
                shared.all(|told| &told.finished) || Instant::now() > give_up || is_abandoned
            });
            enter(Phase::Stop);
            let mut tally = Tally::new();
            let mut timed: Vec<(Timed, Histogram<u64>)> = Vec::new();
            for worker in workers {
                let (theirs, late) = joined(worker.join())?;
                watch.keep_late(late);
                merge(&mut tally, &mut timed, &theirs);
            }
            let (latencies, intervals) = watch.finish();
            Ok(Outcome {
                ramp: opened.at - origin,
                ramp_cpu: self.cpu(&before, &opened),
                flows_after,
                ready: opened.counts.opened,
                rss_before,
                rss_open,
                rss_after,
                elapsed: end.at - begin.at,
                cpu: self.cpu(&begin, &end),
                host: self.host(&begin, &end),
                done: end.counts.done - begin.counts.done,
                published: end.counts.published - begin.counts.published,
                workers: self.workers,
                latencies,
                intervals,
                tally,
                timed,
                interrupted: stop.load(Ordering::Relaxed),
                server_cores: self.server_pid.and_then(usage::cores),
                server_gone: self.server_pid.is_some() && rss_after.is_none(),
                interval: self.interval,
                agents: Vec::new(),
                lost_agents: 0,
            })
        })
    }

    /// Waits until messages are to flow everywhere.
    fn wait_for_others(&self, watch: &mut Watch<'_>, counts: Counts, stop: &AtomicBool) {
        let Some(gate) = &self.gate else { return };
        gate.reached(Reached::Ready(counts));
        let is_over = || stop.load(Ordering::Relaxed);
        watch.until("waiting", false, || gate.opens_at().is_some() || is_over());
        let left = || gate.opens_at().and_then(|at| at.checked_duration_since(Instant::now()));
        while let Some(left) = left().filter(|left| !left.is_zero() && !is_over()) {
            thread::sleep(left.min(LOOK_EVERY));
        }
        gate.reached(Reached::Flowing(Instant::now()));
    }

    /// A worker thread: its counts, and the latencies of its last interval.
    fn work<S: Scenario>(
        &self,
        worker: usize,
        shared: &Shared,
        make: &impl Fn(Share, &Net) -> S,
        origin: Instant,
    ) -> io::Result<(Tally, Histogram<u64>)> {
        let told = &shared.workers[worker];
        told.thread.store(gettid().as_raw(), Ordering::Relaxed);
        if !self.pin.is_empty() {
            pin(self.pin[worker % self.pin.len()])?;
        }
        let share = Share { worker, workers: self.workers, part: self.part };
        // Places for connections that close while others take their turn.
        let own = share.of(self.connections.max(self.slots));
        let slots = (own + own / 4 + 64).min(own + SPARE_DESCRIPTORS - 64) as u32;
        let seed = u64::from(std::process::id()) << 32 ^ share.place() as u64;
        let mut net = Net::new(
            (self.targets.clone(), self.deal()),
            self.messages,
            (slots, self.workers as u32),
            self.handshake_patience.as_nanos() as Nanos,
            origin,
            seed,
            self.deflate_bytes_min,
        )?;
        let mut scenario = make(share, &net);
        let _ = told.bell.set(net.bell());
        let mut phase = Phase::Open;
        let mut interval = 0;
        let mut waiting_since = None;
        loop {
            let now = net.io.now;
            let current = Phase::from_number(shared.phase.load(Ordering::Acquire));
            if current != phase {
                phase = current;
                net.io.tally.recording = matches!(phase, Phase::Measure | Phase::Drain);
                scenario.enter(&mut net.io, phase);
            }
            if phase == Phase::Stop {
                break;
            }
            if now / shared.interval_ns != interval {
                if !net.io.tally.interval.is_empty() {
                    let mut intervals = shared.intervals.lock().unwrap_or_else(PoisonError::into_inner);
                    let kept = intervals.entry(interval).or_insert_with(latencies);
                    kept.add(&net.io.tally.interval).map_err(io::Error::other)?;
                    drop(intervals);
                    net.io.tally.interval.reset();
                }
                interval = now / shared.interval_ns;
            }
            net.tick(&mut scenario)?;
            let tally = &net.io.tally;
            told.done.store(tally.done, Ordering::Relaxed);
            told.published.store(tally.published, Ordering::Relaxed);
            told.open.store(tally.open, Ordering::Relaxed);
            told.opened.store(tally.opened, Ordering::Relaxed);
            told.asked.store(tally.asked, Ordering::Relaxed);
            told.problems.store(tally.problems.total(), Ordering::Relaxed);
            match phase {
                Phase::Open if scenario.is_ready(&net.io) => told.ready.store(true, Ordering::Release),
                Phase::Measure | Phase::Drain if !told.finished.load(Ordering::Relaxed) => {
                    let since = *waiting_since.get_or_insert(net.io.now);
                    if phase == Phase::Measure {
                        waiting_since = None;
                    }
                    // Nothing is sent any more: what is under way then has had all its time.
                    let time = (self.patience + LAST_LOOK).as_nanos() as Nanos;
                    let given_up = phase == Phase::Drain && net.io.now > since + time;
                    if given_up || scenario.is_idle(&net.io) {
                        told.finished.store(true, Ordering::Release);
                    }
                }
                _ => {}
            }
        }
        scenario.conclude(&mut net.io);
        net.finish(&mut scenario)?;
        let mut tally = std::mem::replace(&mut net.io.tally, Tally::new());
        let late = std::mem::replace(&mut tally.interval, latencies());
        Ok((tally, late))
    }
}

fn merge(into: &mut Tally, timed: &mut Vec<(Timed, Histogram<u64>)>, from: &Tally) {
    into.add(from);
    for what in Timed::ALL {
        if let Some(theirs) = from.timed(what) {
            add_timed(timed, what, theirs);
        }
    }
}

/// The measuring thread's eyes: samples the counters once per interval and shows how the run goes.
struct Watch<'a> {
    shared: &'a Shared,
    origin: Instant,
    progress: &'a mut Progress,
    interval: u64,
    sampled_at: Instant,
    ring_again: Instant,
    last: Counts,
    samples: BTreeMap<u64, Interval>,
    total: Histogram<u64>,
}

impl<'a> Watch<'a> {
    fn new(shared: &'a Shared, origin: Instant, progress: &'a mut Progress) -> Self {
        Self {
            shared,
            origin,
            progress,
            interval: 0,
            sampled_at: origin,
            ring_again: origin,
            last: Counts::default(),
            samples: BTreeMap::new(),
            total: latencies(),
        }
    }

    fn until(&mut self, what: &str, measured: bool, over: impl Fn() -> bool) {
        while !over() && !self.shared.has_failed() {
            thread::sleep(LOOK_EVERY);
            let now = Instant::now();
            if now >= self.ring_again {
                self.ring_again = now + RING_EVERY;
                self.shared.ring_bells();
            }
            let interval = (now - self.origin).as_nanos() as u64 / self.shared.interval_ns;
            if interval != self.interval {
                self.sample(now, measured);
                self.interval = interval;
                let newest = self.samples.iter().rev().find_map(|(_, sample)| sample.latencies.as_ref());
                let seconds = (now - self.origin).as_secs_f64();
                let rate = self
                    .samples
                    .values()
                    .next_back()
                    .map_or(0.0, |sample| sample.done as f64 / sample.seconds.max(1e-9));
                self.progress.show(seconds, Doing { what, counts: &self.last, rate, latencies: newest });
            }
        }
        // What is left of the interval belongs to this phase.
        self.sample(Instant::now(), measured);
    }

    fn sample(&mut self, now: Instant, measured: bool) {
        let counts = self.shared.counts();
        let seconds = (now - self.sampled_at).as_secs_f64();
        let at_s = (now - self.origin).as_secs_f64();
        if seconds > 0.0 {
            let number = self.interval;
            let sample = self.samples.entry(number).or_insert_with(|| Interval {
                number,
                at_s,
                seconds: 0.0,
                measured,
                done: 0,
                open: 0,
                latencies: None,
            });
            sample.at_s = at_s;
            sample.seconds += seconds;
            sample.measured |= measured;
            sample.done += counts.done - self.last.done;
            sample.open = counts.open;
        }
        self.sampled_at = now;
        self.last = counts;
        let intervals = std::mem::take(&mut *self.shared.intervals.lock().unwrap_or_else(PoisonError::into_inner));
        for (interval, histogram) in intervals {
            self.keep(interval, &histogram);
        }
    }

    fn keep(&mut self, interval: u64, histogram: &Histogram<u64>) {
        self.total.add(histogram).expect("the same bounds");
        if let Some(sample) = self.samples.get_mut(&interval) {
            sample.keep(histogram);
        }
    }

    /// What a worker had not handed over yet.
    fn keep_late(&mut self, histogram: Histogram<u64>) {
        if !histogram.is_empty() {
            let newest = self.samples.keys().next_back().copied().unwrap_or_default();
            self.keep(newest, &histogram);
        }
    }

    fn finish(self) -> (Histogram<u64>, Vec<Interval>) {
        self.progress.clear();
        (self.total, self.samples.into_values().collect())
    }
}
