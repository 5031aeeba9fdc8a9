//! Runs cores and clients in one thread against the virtual clock, then lets everything come to rest and judges it.
//!
//! Order of a run: clients connect in the course of it and act in random order; cores that are awake tick in random
//! order; when all sleep, the clock moves on. Once all clients are through, faults are switched off, the cores are
//! drained (if that has not happened before), and each must come to rest with nothing in flight and nobody on its books.

use std::rc::Rc;
use std::time::Duration;

use ringwire::config::SlowConsumer;
use ringwire::engine::Nanos;
use ringwire::engine::sim::{FaultCounts, Faults, Mutant, RingOptions, Rng, World};
use ringwire::{App, standalone};

use crate::endpoint::{Endpoint, Plan};
use crate::host::{Cores, Setup};
use crate::oracle::{self, End, Log, Route};

/// A run, but for its cores.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub route: Route,
    pub faults: Faults,
    pub mutant: Option<Mutant>,
    pub cores: usize,
    pub clients: usize,
    pub messages_max: usize,
    pub payload_bytes_max: usize,
    /// The part of the clients that go without a Close.
    pub leavers: f64,
    /// Whether the server may end a healthy connection without a Close, as after a timeout.
    pub drops: bool,
    /// Whether clients of the echo route wait for all their answers before they say goodbye: a handler that waits cannot
    /// answer after that.
    pub patient: bool,
    /// What the cores serve.
    pub app: fn() -> App,
    /// Whether every client stays until all are through and nothing is under way.
    pub stay: bool,
    /// Whether the server is drained while clients are at work.
    pub drains: bool,
    /// Letters that a core's mailbox holds.
    pub mail_depth: usize,
    /// For [`oracle::judge`].
    pub grace_ns: Nanos,
    /// Whether messages may be dropped.
    pub lossy: Option<Lossy>,
}

/// How messages to clients that do not keep up are dropped.
#[derive(Clone, Copy, Debug)]
pub struct Lossy {
    pub policy: SlowConsumer,
    pub outbox_bytes_max: usize,
    /// How many keys each sender's messages have.
    pub keys: usize,
}

impl Scenario {
    /// A harsh run whose sizes follow from the seed.
    pub fn of(seed: u64, route: Route) -> Scenario {
        Scenario {
            seed,
            route,
            faults: Faults::harsh(),
            mutant: None,
            cores: 1 + (seed % 3) as usize,
            clients: 4 + (seed % 7) as usize,
            messages_max: 12,
            payload_bytes_max: if seed.is_multiple_of(4) { 70_000 } else { 2_000 },
            leavers: 0.2,
            drops: false,
            patient: false,
            app: || standalone::app(&ringwire::Config::default()),
            stay: seed.is_multiple_of(2),
            drains: seed % 5 == 4,
            mail_depth: if seed % 3 == 2 { 2 } else { 1024 },
            grace_ns: 0,
            lossy: None,
        }
    }
}

/// What a run without a finding tells.
#[derive(Clone, Debug)]
pub struct Report {
    /// Messages that the cores dropped.
    pub dropped: u64,
    pub faults: FaultCounts,
    pub fingerprint: u64,
    /// Clients whose connection ended cleanly.
    pub clean: usize,
    /// Messages received by clients.
    pub messages: usize,
}

/// Most rounds of a run: past them something is stuck.
const ROUNDS_MAX: usize = 200_000;
/// How far the clock moves at most while all cores sleep: clients act between two moves.
const STEP_NS: Nanos = 50_000;

/// Runs `scenario`. `Err` says what was wrong.
pub fn run(scenario: &Scenario) -> Result<Report, String> {
    let _blame = Blame(scenario);
    let world = World::new(scenario.seed, scenario.faults.clone());
    let mut rng = world.fork_rng();
    let options = RingOptions {
        slots: 16,
        buffers: rng.between(4, 32) as u16,
        buffer_bytes: rng.between(16, 2_048) as u32,
        incremental: rng.chance(0.5),
        bounds_receives: rng.chance(0.5),
        sq_entries: rng.between(2, 64) as u32,
        cq_entries: rng.between(8, 256) as u32,
        listeners: 1,
        mutant: scenario.mutant,
    };
    let mut setup = Setup {
        cores: scenario.cores,
        ring: options,
        mail_depth: scenario.mail_depth,
        slow_consumer: scenario.lossy.map_or(SlowConsumer::Close, |lossy| lossy.policy),
        app: Rc::new(scenario.app),
        ..Setup::default()
    };
    if let Some(lossy) = scenario.lossy {
        setup.outbox_bytes_max = lossy.outbox_bytes_max;
    }
    setup.settings.recv_bytes_max = rng.pick(&[30, 3_000, 256 << 10]);
    setup.settings.direct_bytes_min = rng.pick(&[64, 16 << 10]);
    setup.settings.direct_interrupts = rng.chance(0.5);
    setup.settings.pause_bytes = rng.pick(&[100, 4_000, 256 << 10]);
    if !scenario.drops {
        // The clock may jump, and nobody is to be dropped for it.
        let hour = Duration::from_secs(3600);
        let settings = &mut setup.settings;
        settings.handshake_timeout = hour;
        settings.idle_timeout = hour;
        settings.close_timeout = hour;
        settings.write_timeout = hour;
        settings.drain_timeout = hour;
    }
    setup.settings.drain_spread = Duration::from_millis(rng.below(3));
    let cores = Cores::new(&world, &setup);
    let mut run = Run { world, scenario: scenario.clone(), endpoints: Vec::new(), cores };
    let mut to_drain: Vec<usize> = (0..scenario.cores).collect();

    let mut rounds = 0;
    while run.endpoints.len() < scenario.clients || !run.endpoints.iter().all(Endpoint::is_over) {
        rounds += 1;
        if rounds > ROUNDS_MAX {
            return Err(format!("stuck: {}", run.states()));
        }
        if run.endpoints.len() < scenario.clients && rng.chance(0.2) {
            let endpoint = run.endpoint(&mut rng);
            run.endpoints.push(endpoint);
        }
        if scenario.drains && run.endpoints.len() > scenario.clients / 2 && rng.chance(0.02) {
            to_drain.retain(|&core| !run.cores.drain(core));
        }
        run.step_endpoints(&mut rng)?;
        run.tick(&mut rng, STEP_NS);
    }

    run.world.set_faults(Faults::none());
    for round in 0.. {
        to_drain.retain(|&core| !run.cores.drain(core));
        run.tick(&mut rng, 100 * STEP_NS);
        if run.cores.is_drained() {
            break;
        }
        if round == ROUNDS_MAX {
            return Err(format!("the drain does not end: {}", run.cores.state()));
        }
    }
    for _ in 0..50 {
        // What is under way between the cores.
        run.tick(&mut rng, 100 * STEP_NS);
    }
    run.cores.all.iter_mut().try_for_each(|core| core.check_over())?;
    if run.cores.admission.connections() != 0 {
        return Err(format!("{} connections are counted as admitted", run.cores.admission.connections()));
    }
    let dropped = run.cores.all.iter_mut().map(|core| core.shard.hub().counters.drops.total()).sum();
    run.judge(dropped)
}

/// Says which scenario it was when an assertion ends it.
struct Blame<'a>(&'a Scenario);

impl Drop for Blame<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("RINGWIRE_SIM_SEED={} on {:?}", self.0.seed, self.0.route);
        }
    }
}

struct Run {
    world: World,
    cores: Cores,
    scenario: Scenario,
    endpoints: Vec<Endpoint>,
}

impl Run {
    fn endpoint(&self, rng: &mut Rng) -> Endpoint {
        let id = self.endpoints.len();
        let room = if self.scenario.route == Route::Rooms { id % 3 } else { 0 };
        let plan = Plan {
            id,
            path: self.scenario.route.path(room),
            room,
            messages: rng.between(0, self.scenario.messages_max),
            payload_bytes_max: self.scenario.payload_bytes_max,
            frames_max: rng.pick(&[1, 1, 4]),
            patient: self.scenario.patient,
            leaves: rng.chance(self.scenario.leavers),
            may_be_dropped: self.scenario.drops || self.scenario.drains,
            window: rng.pick(&[50, 1_000, 64 * 1024]),
            reads: rng.pick(&[0.1, 0.5, 1.0]),
        };
        let core = rng.between(0, self.scenario.cores - 1);
        let mut endpoint = Endpoint::new(plan, self.world.connect(core, 0), rng.fork());
        endpoint.may_finish = !self.scenario.stay;
        endpoint
    }

    fn step_endpoints(&mut self, rng: &mut Rng) -> Result<(), String> {
        let now = self.world.now();
        let mut order: Vec<usize> = (0..self.endpoints.len()).collect();
        rng.shuffle(&mut order);
        for i in order {
            self.endpoints[i].step(now).map_err(|why| format!("client {i}: {why}"))?;
        }
        let all_came = self.endpoints.len() == self.scenario.clients;
        let cores_sleep = self.world.next_event().is_none() && self.cores.are_idle();
        if cores_sleep && all_came && self.endpoints.iter().all(Endpoint::is_quiet) {
            self.endpoints.iter_mut().for_each(|endpoint| endpoint.may_finish = true);
        }
        Ok(())
    }

    /// Ticks the cores that are awake; moves the clock on, by up to `step_ns`, if none is.
    fn tick(&mut self, rng: &mut Rng, step_ns: Nanos) {
        let mut order: Vec<usize> = (0..self.cores.all.len()).collect();
        rng.shuffle(&mut order);
        let mut ticked = false;
        for core in order {
            // Sometimes a core is slow, as when another process has its processor.
            if self.cores.all[core].is_runnable() && !rng.chance(0.1) {
                self.cores.all[core].tick();
                ticked = true;
            }
        }
        let now = self.world.now();
        if ticked {
            self.world.advance(rng.below(5_000));
        } else {
            let step = self.world.next_wakeup().map_or(step_ns, |at| (at - now).min(step_ns));
            // A core whose thread has ended counts as awake, and would let the clock creep.
            self.world.advance(step.max(1_000));
        }
    }

    fn states(&self) -> String {
        let stuck = self.endpoints.iter().filter(|endpoint| !endpoint.is_over());
        stuck.map(Endpoint::state).collect::<Vec<_>>().join("; ")
    }

    fn judge(&self, dropped: u64) -> Result<Report, String> {
        let logs: Vec<Log> = self.endpoints.iter().map(|endpoint| endpoint.log.clone()).collect();
        match self.scenario.lossy {
            Some(lossy) => {
                oracle::judge_lossy(&logs, lossy.keys)?;
                if self.scenario.stay && lossy.policy == SlowConsumer::KeepLatest && lossy.outbox_bytes_max >= 1 << 20 {
                    oracle::judge_latest(&logs, lossy.keys)?;
                }
            }
            None => oracle::judge(self.scenario.route, &logs, self.scenario.grace_ns)?,
        }
        if self.scenario.lossy.is_none() && self.scenario.stay && self.scenario.route != Route::Echo {
            oracle::judge_complete(&logs, self.scenario.grace_ns)?;
        }
        let clean = logs.iter().filter(|log| log.end == Some(End::Clean)).count();
        Ok(Report {
            dropped,
            faults: self.world.fault_counts(),
            fingerprint: self.world.fingerprint(),
            clean,
            messages: logs.iter().map(|log| log.received.len()).sum(),
        })
    }
}
