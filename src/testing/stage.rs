//! The whole of a test: its world, the cores of its server, its clients, and the clock.
//!
//! Nothing happens but within a call of the test's. Each call ends with everybody at rest, at one moment of virtual time; only
//! [`Stage::pass`] and [`Stage::wait`] move it, from one event to the next.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::cores::Cores;
use super::line::{Line, Phase};
use super::trace::Trace;
use crate::engine::sim::{Rng, World};
use crate::engine::{Nanos, Peer};

/// Rounds of everybody at one moment of time; more is somebody who never rests.
const ROUNDS_MAX: usize = 10_000;
/// Lines of the trace that a failure shows.
const LINES_SHOWN: usize = 20;
/// Least time that passes with cores that have something to do and do not do it, as one whose thread has ended.
const STEP_NS: Nanos = 10_000;

pub(super) struct Stage {
    pub(super) world: World,
    pub(super) cores: Cores,
    pub(super) patience: Duration,
    pub(super) trace: Trace,
    lines: BTreeMap<usize, Line>,
    next_line: usize,
    next_core: usize,
    rng: Rng,
    /// Nobody runs until what a test does together is done.
    pub(super) is_held: bool,
}

impl Stage {
    pub(super) fn new(world: World, cores: Cores, patience: Duration) -> Stage {
        let rng = world.fork_rng();
        let (trace, lines) = (Trace::default(), BTreeMap::new());
        Stage { world, cores, patience, trace, lines, next_line: 0, next_core: 0, rng, is_held: false }
    }

    /// Opens a connection: to this core, or to the next in turn, from this address, or from one of its own.
    pub(super) fn open(
        &mut self,
        what: &str,
        core: Option<usize>,
        peer: Option<Peer>,
        phase: impl FnOnce(&mut Rng) -> Phase,
    ) -> usize {
        let cores = self.cores.len();
        let core = core.unwrap_or(self.next_core);
        assert!(core < cores, "there is no core {core} of {cores}");
        self.next_core = (core + 1) % cores;
        let socket = match peer {
            Some(peer) => self.world.connect_from(core, 0, peer),
            None => self.world.connect(core, 0),
        };
        let number = self.next_line;
        self.next_line += 1;
        let mut rng = self.rng.fork();
        let phase = phase(&mut rng);
        let line = Line::new(format!("client {number} ({what})"), socket, phase, rng);
        self.trace.note(self.world.now(), &line, format_args!("connects to core {core}"), &[]);
        self.lines.insert(number, line);
        number
    }

    pub(super) fn line(&mut self, number: usize) -> &mut Line {
        self.lines.get_mut(&number).expect("a client that was not dropped")
    }

    /// Notes what a client does.
    pub(super) fn note(&mut self, number: usize, what: fmt::Arguments<'_>, payload: &[u8]) {
        if let Some(line) = self.lines.get(&number) {
            self.trace.note(self.world.now(), line, what, payload);
        }
    }

    /// Closes a client's socket, if it is open, and forgets the client.
    pub(super) fn forget(&mut self, number: usize) {
        if let Some(mut line) = self.lines.remove(&number) {
            line.leave();
        }
    }

    /// Lets everybody act until nobody has anything to do at this moment.
    pub(super) fn settle(&mut self) {
        if self.is_held {
            return;
        }
        for _ in 0..ROUNDS_MAX {
            let now = self.world.now();
            let mut is_busy = false;
            for line in self.lines.values_mut() {
                is_busy |= line.pump(now, &mut self.trace);
            }
            is_busy |= self.cores.run(&mut self.rng);
            if !is_busy {
                return;
            }
        }
        panic!("{}", self.told("the server never rests: some task or handler is always ready again"));
    }

    /// When somebody has something to do next.
    fn next_wakeup(&self) -> Option<Nanos> {
        let lines = self.lines.values().filter_map(Line::next_due).min();
        [self.world.next_wakeup(), lines].into_iter().flatten().min()
    }

    /// Moves the clock to the next event, or to `end` if that is sooner.
    pub(super) fn step(&mut self, end: Nanos) {
        let now = self.world.now();
        let next = self.next_wakeup().map_or(end, |at| at.max(now + STEP_NS).min(end));
        self.world.advance(next.saturating_sub(now));
    }

    pub(super) fn end_of(&self, time: Duration) -> Nanos {
        self.world.now().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Lets time pass, with everything that falls due in it.
    pub(super) fn pass(&mut self, time: Duration) {
        assert!(!self.is_held, "no time passes within TestServer::together");
        let end = self.end_of(time);
        self.settle();
        while self.world.now() < end {
            self.step(end);
            self.settle();
        }
    }

    /// Lets time pass until `look` finds something, at most for the test's patience.
    pub(super) fn wait<T>(&mut self, mut look: impl FnMut(&mut Stage) -> Option<T>) -> Option<T> {
        assert!(!self.is_held, "nothing arrives within TestServer::together");
        let end = self.end_of(self.patience);
        loop {
            self.settle();
            let found = look(self);
            if found.is_some() || self.world.now() >= end {
                return found;
            }
            self.step(end);
        }
    }

    /// A failure's text, with how to repeat it.
    pub(super) fn told(&self, what: &str) -> String {
        format!("{what} ({})", self.how_to_repeat())
    }

    fn how_to_repeat(&self) -> String {
        let seed = self.world.seed();
        format!("seed {seed}: {}={seed} repeats this run", super::seeds::SEED_VARIABLE)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("ringwire::testing: {}; it ended so:\n{}", self.how_to_repeat(), self.trace.last(LINES_SHOWN));
        }
    }
}
