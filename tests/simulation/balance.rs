//! Cores that accept from the same listeners: whoever comes is accepted, once and in time, whatever the cores do meanwhile; and
//! the cores come to have about as many connections as each other.

use std::time::Duration;

use ringwire::admission::most_beside;
use ringwire::engine::Nanos;
use ringwire::engine::sim::{Client, Fault, Faults, RingOptions, Rng, World};
use ringwire::marks::{self, Mark};

use crate::host::{Core, Cores, Setup};
use crate::rig::Rig;
use crate::seeds;

const MS: Nanos = 1_000_000;
/// How long who comes waits at most where no core is busy and some core has a place.
const PROMPT_NS: Nanos = MS;
/// How soon cores rest when nothing happens.
const REST_NS: Nanos = 10 * MS;
/// The longest time for which a core is busy.
const BUSY_MS: u64 = 30;
/// How long who comes waits at most where cores are busy and descriptors are lacking: each time that one is, it is tried again
/// after 100 ms.
const LATE_NS: Nanos = 1_000 * MS;

/// Somebody who has connected and says nothing.
struct Visitor {
    client: Client,
    /// How long it has waited to be accepted, but for when no core had a place.
    waited_ns: Nanos,
    core: Option<usize>,
}

/// A server whose cores share their listeners, and whoever comes to it.
struct Crowd {
    world: World,
    cores: Cores,
    rng: Rng,
    listeners: u32,
    slots: usize,
    /// Until when each core does something else.
    busy_until: Vec<Nanos>,
    /// The core that was told to end.
    ends: Option<usize>,
    visitors: Vec<Visitor>,
    accepted: u64,
    /// How long anybody has waited.
    longest_ns: Nanos,
    /// Steps of the clock in which no core had a place.
    full_steps: u64,
}

impl Crowd {
    /// With one listener or two, by the seed.
    fn new(seed: u64, cores: usize, slots: u32, faults: Faults) -> Crowd {
        Crowd::with(1 + (seed % 2) as u32, seed, cores, slots, faults)
    }

    fn with(listeners: u32, seed: u64, cores: usize, slots: u32, faults: Faults) -> Crowd {
        let world = World::new(seed, faults);
        let rng = world.fork_rng();
        let ring = RingOptions { slots, listeners, shared_listeners: listeners, ..RingOptions::default() };
        let mut setup = Setup { cores, ring, ..Setup::default() };
        setup.settings.listeners = listeners as u8;
        // Nobody says anything, and nobody has to go for that.
        setup.settings.handshake_timeout = Duration::from_secs(36_000);
        setup.settings.keep_alive = Duration::from_secs(36_000);
        let mut crowd = Crowd {
            cores: Cores::new(&world, &setup),
            world,
            rng,
            listeners,
            slots: slots as usize,
            busy_until: vec![0; cores],
            ends: None,
            visitors: Vec::new(),
            accepted: 0,
            longest_ns: 0,
            full_steps: 0,
        };
        crowd.pass(MS);
        crowd
    }

    /// Somebody comes, to one of the listeners.
    fn come(&mut self) {
        let client = self.world.connect_shared(self.rng.below(u64::from(self.listeners)) as u32);
        self.visitors.push(Visitor { client, waited_ns: 0, core: None });
    }

    /// So many come, each so long after the one before.
    fn come_each(&mut self, count: usize, apart_ns: Nanos) {
        for _ in 0..count {
            self.come();
            self.pass(apart_ns);
        }
    }

    /// Those of the accepted go who are meant.
    fn go(&mut self, mut is_meant: impl FnMut(&Visitor) -> bool) {
        self.visitors.retain(|visitor| {
            let goes = visitor.core.is_some() && is_meant(visitor);
            if goes {
                visitor.client.close();
            }
            !goes
        });
    }

    /// Some of the accepted go.
    fn go_by_chance(&mut self, chance: f64) {
        let mut rng = self.rng.fork();
        self.go(|_| rng.chance(chance));
    }

    fn end(&mut self, core: usize) {
        assert!(self.cores.drain(core), "room for the letter");
        self.ends = Some(core);
    }

    /// Connections of each core that stays.
    fn counts(&self) -> Vec<usize> {
        let cores = self.cores.all.iter().enumerate().filter(|(number, _)| self.ends != Some(*number));
        cores.map(|(_, core)| core.shard.connections()).collect()
    }

    fn waiting(&self) -> usize {
        self.visitors.iter().filter(|visitor| visitor.core.is_none()).count()
    }

    /// Lets time pass, and then all that are not busy come to rest.
    fn pass(&mut self, ns: Nanos) {
        let end = self.world.now() + ns;
        loop {
            let ticked = self.tick();
            self.look();
            let now = self.world.now();
            if now >= end && !ticked {
                return;
            }
            assert!(now < end + REST_NS, "seed {}: a core does not rest: {}", self.world.seed(), self.cores.state());
            let step = if ticked {
                self.rng.below(5_000)
            } else {
                let free = self.busy_until.iter().copied().filter(|&until| until > now);
                // What a core that is busy or has ended might do must not stop the clock.
                let next = free.chain(self.world.next_wakeup()).map(|at| at.max(now + 10_000)).min();
                next.map_or(end, |at| at.min(end)) - now
            };
            let had_room = self.counts().iter().any(|connections| *connections < self.slots);
            self.full_steps += u64::from(!had_room);
            self.world.advance(step);
            let passed_ns = self.world.now() - now;
            for visitor in self.visitors.iter_mut().filter(|visitor| had_room && visitor.core.is_none()) {
                visitor.waited_ns += passed_ns;
                self.longest_ns = self.longest_ns.max(visitor.waited_ns);
            }
        }
    }

    fn tick(&mut self) -> bool {
        let mut order: Vec<usize> = (0..self.cores.all.len()).collect();
        self.rng.shuffle(&mut order);
        order.retain(|&core| self.busy_until[core] <= self.world.now() && self.cores.all[core].is_runnable());
        order.iter().for_each(|&core| self.cores.all[core].tick());
        !order.is_empty()
    }

    /// Sees who has been accepted, and who has been lost or sent away.
    fn look(&mut self) {
        let accepted = &mut self.accepted;
        self.visitors.retain_mut(|visitor| {
            if visitor.core.is_none() && visitor.client.is_accepted() {
                visitor.core = visitor.client.accepted_by();
                *accepted += 1;
            }
            let has_ended = visitor.client.is_closed();
            if has_ended {
                visitor.client.close();
            }
            !has_ended
        });
    }

    /// Checks that nobody has waited for longer than that.
    fn judge(&self, longest_ns: Nanos) {
        let (seed, waited_ns, counts) = (self.world.seed(), self.longest_ns, self.counts());
        assert!(waited_ns <= longest_ns, "seed {seed}: somebody has waited for {waited_ns} ns; {counts:?}");
    }

    /// Checks that no core has more connections than it may have beside the one with the fewest, or one for each listener;
    /// and some more, that came before whoever had been left out has woken up.
    fn judge_counts(&self) {
        let counts = self.counts();
        let [least, most] = [counts.iter().min(), counts.iter().max()].map(|count| *count.expect("a core") as u32);
        let ahead = (most_beside(least) - least).max(self.listeners) + 3;
        assert!(most <= least + ahead, "seed {}, {} listeners: {counts:?}", self.world.seed(), self.listeners);
    }

    /// Everybody goes. Each was accepted once, and nothing is left of anybody.
    fn finish(mut self) {
        self.busy_until.fill(0);
        self.world.set_faults(Faults::none());
        for _ in 0..20 {
            self.pass(100 * MS);
            self.go(|_| true);
        }
        assert_eq!(self.waiting(), 0, "seed {}: {:?}", self.world.seed(), self.counts());
        self.pass(MS);
        let accepted: u64 = self.cores.all.iter_mut().map(|core| core.shard.hub().counters.accepted).sum();
        assert_eq!(accepted, self.accepted, "seed {}", self.world.seed());
        assert_eq!(self.counts().iter().sum::<usize>(), 0, "seed {}", self.world.seed());
        Rig::of(self.world, self.cores).finish();
    }
}

/// Kills: accepts that wait by the dozen on an idle core, of which the kernel wakes all before another's.
#[test]
fn few_connections_are_spread_evenly() {
    for seed in seeds(10) {
        for cores in [2, 3, 4] {
            let mut crowd = Crowd::new(seed, cores, 256, Faults::none());
            for apart_ns in [0, 20_000, MS] {
                crowd.come_each(16, apart_ns);
                crowd.pass(MS);
                crowd.judge_counts();
            }
            crowd.judge(PROMPT_NS);
            crowd.finish();
        }
    }
}

/// Kills: accepts of a core with many that wait by the dozen.
#[test]
fn new_connections_go_to_the_core_that_has_few() {
    for seed in seeds(10) {
        for apart_ns in [0, 20_000, MS] {
            let mut crowd = Crowd::new(seed, 3, 256, Faults::none());
            crowd.come_each(150, 20_000);
            let before = crowd.counts();
            crowd.go(|visitor| visitor.core == Some(0));
            crowd.pass(MS);
            crowd.come_each(60, apart_ns);
            crowd.pass(MS);
            let counts = crowd.counts();
            // The others take whom the accepts take that they had before.
            let elsewhere: usize = (1..3).map(|core| counts[core] - before[core]).sum();
            assert!(elsewhere <= 20, "seed {seed}, {apart_ns} ns apart: {before:?}, then {counts:?}");
            crowd.judge(PROMPT_NS);
            crowd.finish();
        }
    }
}

/// Kills: a core that leaves new connections to one that has few because it is busy, for as long as it is.
#[test]
fn a_busy_core_keeps_few_waiting() {
    for seed in seeds(10) {
        let mut crowd = Crowd::new(seed, 3, 256, Faults::none());
        crowd.come_each(10, 20_000);
        crowd.pass(100 * MS);
        crowd.busy_until[0] = Nanos::MAX;
        crowd.come_each(60, 20_000);
        crowd.pass(100 * MS);
        assert!(crowd.waiting() <= 2 * crowd.listeners as usize, "seed {seed}: {} wait", crowd.waiting());
        crowd.busy_until[0] = 0;
        crowd.pass(MS);
        assert_eq!(crowd.waiting(), 0, "seed {seed}");
        crowd.finish();
    }
}

/// Kills: a core that leaves new connections to one that has few because it cannot accept any.
#[test]
fn nobody_is_left_to_a_core_that_cannot_accept() {
    for seed in seeds(10) {
        let mut crowd = Crowd::with(1, seed, 2, 12, Faults::none());
        crowd.come_each(6, 20_000);
        crowd.world.set_faults(Faults::none().with(Fault::AcceptError, 1.0));
        crowd.come();
        crowd.pass(100_000);
        crowd.world.set_faults(Faults::none());
        let errors = |core: &mut Core| core.shard.hub().counters.accept_errors;
        let failed = crowd.cores.all.iter_mut().position(|core| errors(core) > 0).expect("one has failed");
        crowd.go(|visitor| visitor.core == Some(failed));
        crowd.pass(100_000);
        crowd.come_each(3, 20_000);
        crowd.pass(MS);
        assert_eq!(crowd.waiting(), 0, "seed {seed}: {:?}", crowd.counts());
        crowd.finish();
    }
}

/// Kills: cores that leave new connections to each other; one that leaves them to a core that has become full meanwhile.
#[test]
fn nobody_waits_while_a_core_is_idle_and_has_a_place() {
    marks::take();
    let mut full_steps = 0;
    for seed in seeds(150) {
        let mut crowd = Crowd::new(seed, 2 + (seed % 3) as usize, [16, 64][(seed % 2) as usize], Faults::none());
        for _ in 0..60 {
            let (count, apart_ns) = (crowd.rng.between(0, 12), crowd.rng.pick(&[0, 0, 20_000, MS]));
            crowd.come_each(count, apart_ns);
            match crowd.rng.below(4) {
                0 => {
                    let core = crowd.rng.between(0, crowd.cores.all.len() - 1);
                    crowd.go(|visitor| visitor.core == Some(core));
                }
                _ => crowd.go_by_chance(0.25),
            }
            let quiet_ns = crowd.rng.pick(&[0, 100_000, 3 * MS, 60 * MS]);
            crowd.pass(quiet_ns);
        }
        crowd.judge(PROMPT_NS);
        full_steps += crowd.full_steps;
        crowd.finish();
    }
    assert!(full_steps > 0, "the cores were never full");
    let left = |marks: Vec<(Mark, u64)>| marks.iter().any(|(mark, count)| *mark == Mark::LeavesToOthers && *count > 0);
    assert!(marks::take().is_none_or(left), "nobody was left to others");
}

/// Cores that are busy, that are full, that have no descriptors, and one that ends: who comes is accepted all the same, by those
/// that are left; and when that is over, new connections make up for what has become uneven.
///
/// Kills: connections that go to the cores in turn, whatever those have; and a core that leaves connections to nobody and never
/// sleeps.
#[test]
fn everybody_is_accepted_in_time_whatever_the_cores_do() {
    for seed in seeds(24) {
        // Whoever comes shows at once, or there would be no time from which on they wait.
        let faults = Faults::harsh().with(Fault::Postponed, 0.0).with(Fault::ClockJump, 0.0);
        let cores = 2 + (seed % 3) as usize;
        let mut crowd = Crowd::new(seed, cores, [12, 40, 200][(seed / 3 % 3) as usize], faults);
        let ends_at = crowd.rng.below(120);
        for round in 0..60 {
            if round == ends_at {
                crowd.end(0);
            }
            let (count, apart_ns) = (crowd.rng.between(0, 10), crowd.rng.pick(&[0, 20_000, MS]));
            crowd.come_each(count, apart_ns);
            if crowd.rng.chance(0.3) {
                let core = crowd.rng.between(0, cores - 1);
                crowd.busy_until[core] = crowd.world.now() + crowd.rng.below(BUSY_MS * MS);
            }
            crowd.go_by_chance(0.15);
            let quiet_ns = crowd.rng.pick(&[0, 100_000, 3 * MS, 60 * MS]);
            crowd.pass(quiet_ns);
        }
        crowd.judge(LATE_NS);
        crowd.world.set_faults(Faults::none());
        crowd.busy_until.fill(0);
        crowd.pass(1_000 * MS);
        // As many as the fewest lack, and some more.
        let counts = crowd.counts();
        let most = counts.iter().max().expect("a core");
        let lacking: usize = counts.iter().map(|count| most + 8 - count).sum();
        if most + 40 < crowd.slots {
            crowd.come_each(lacking, 20_000);
            crowd.pass(MS);
            assert_eq!(crowd.waiting(), 0, "seed {seed}");
            crowd.judge_counts();
        }
        crowd.finish();
    }
}
