//! Runs cores and clients in one thread against the virtual clock, then lets everything come to rest and judges it.
//!
//! Every run has two cores at least, with one clock, and two clients that talk from one to the other ([`Chatter`]) beside
//! those that the route is about.
//!
//! Order of a run: clients connect in the course of it and act in random order; cores that are awake tick in random
//! order; when all sleep, the clock moves on. Once all clients are through, faults are switched off, the cores are
//! drained (if that has not happened before), and each must come to rest with nothing in flight and nobody on its books.

use std::rc::Rc;
use std::time::Duration;

use ringwire::config::{Deflate, SlowConsumer};
use ringwire::engine::Nanos;
use ringwire::engine::sim::{Client, Fault, Faults, Mutant, RingOptions, Rng, World};
use ringwire::shard::Entrance;
use ringwire::shard::service::Serves;
use ringwire::{App, marks, standalone};

use crate::apps;
use crate::chatter::Chatter;
use crate::endpoint::{Endpoint, Plan};
use crate::ends::{self, Told};
use crate::host::{Cores, Setup};
use crate::oracle::{self, End, Log, Route};
use crate::secure::{self, Socket};
use crate::table::Table;
use crate::wire::compression::OFFERS;

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
    /// Whether time limits are short enough to be reached, so that the server may end a healthy connection without a
    /// Close; and clients may go without anybody noticing.
    pub drops: bool,
    /// Whether clients of the echo route wait for all their answers before they say goodbye: a handler that waits cannot
    /// answer after that.
    pub patient: bool,
    /// What the cores serve.
    pub app: fn() -> App,
    /// Whether the app writes down what its `on_close` is told: see [`apps::told`].
    pub tells: bool,
    /// Whether every client stays until all are through and nothing is under way.
    pub stay: bool,
    /// Whether the server is drained while clients are at work.
    pub drains: bool,
    /// Letters that a core's mailbox holds.
    pub mail_depth: usize,
    /// Bytes that are queued for one connection at most.
    pub outbox_bytes_max: usize,
    /// For [`oracle::judge`].
    pub grace_ns: Nanos,
    /// Whether messages may be dropped.
    pub lossy: Option<Lossy>,
    /// Whether its clients speak TLS.
    pub tls: bool,
    /// Whether all cores accept from one listener.
    pub shared: bool,
    /// How messages are compressed.
    pub deflate: Deflate,
    /// Whether operators have a listener of their own, and ask all the time.
    pub operators: bool,
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
            cores: 2 + (seed % 2) as usize,
            clients: 4 + (seed % 7) as usize,
            messages_max: 12,
            payload_bytes_max: if seed.is_multiple_of(4) { 70_000 } else { 2_000 },
            leavers: 0.2,
            drops: false,
            patient: false,
            app: || standalone::app(&ringwire::Config::default()),
            tells: false,
            stay: seed.is_multiple_of(2),
            drains: seed % 5 == 4,
            mail_depth: if seed % 3 == 2 { 2 } else { 1024 },
            outbox_bytes_max: 1 << 20,
            grace_ns: 0,
            lossy: None,
            tls: false,
            shared: false,
            deflate: Deflate::Off,
            operators: seed % 3 == 1,
        }
    }

    /// The same without faults, and with nobody who does anything unusual.
    pub fn calm(self) -> Scenario {
        Scenario { faults: Faults::none(), leavers: 0.0, drains: false, operators: false, ..self }
    }

    /// Whether what is sent to a connection may be more than its queue holds: answers to its own messages never are.
    fn fills_queues(&self) -> bool {
        let most = self.clients * self.messages_max * (self.payload_bytes_max + 100);
        let bytes_max = self.lossy.map_or(self.outbox_bytes_max, |lossy| lossy.outbox_bytes_max);
        self.route != Route::Echo && most > bytes_max
    }

    /// The first is for the clients that the route is about, the second for those who talk beside them.
    fn has_two_listeners(&self) -> bool {
        self.tls || self.shared
    }

    fn listeners(&self) -> u32 {
        1 + u32::from(self.has_two_listeners()) + u32::from(self.operators)
    }

    /// Codes with which the server may begin to close a connection.
    fn earned(&self) -> &'static [u16] {
        match (self.drains, self.fills_queues() && self.lossy.is_none()) {
            (false, false) => &[],
            (true, false) => &[1001],
            (false, true) => &[1013],
            (true, true) => &[1001, 1013],
        }
    }

    /// The same with time limits that are reached.
    pub fn dropping(self) -> Scenario {
        let mut faults = self.faults.with(Fault::ClockJump, 0.02);
        faults.clock_jump_ns_max = 20_000_000_000;
        Scenario { faults, drops: true, stay: false, ..self }
    }
}

/// What a run without a finding tells.
#[derive(Clone, Debug)]
pub struct Report {
    /// Messages that the cores dropped.
    pub dropped: u64,
    pub fingerprint: u64,
    /// Clients whose connection ended cleanly.
    pub clean: usize,
    /// Messages received by clients.
    pub messages: usize,
    /// Letters between cores.
    pub letters: u64,
    /// What happened, by kind.
    pub table: Table,
}

/// Most rounds of a run: past them something is stuck.
const ROUNDS_MAX: usize = 200_000;
/// How far the clock moves at most while all cores sleep: clients act between two moves.
const STEP_NS: Nanos = 50_000;

/// A ring of any shape.
pub fn ring(rng: &mut Rng) -> RingOptions {
    RingOptions {
        slots: 40,
        buffers: rng.between(4, 32) as u16,
        buffer_bytes: rng.between(16, 2_048) as u32,
        incremental: rng.chance(0.5),
        bounds_receives: rng.chance(0.5),
        closes_late: rng.chance(0.5),
        sq_entries: rng.between(2, 64) as u32,
        cq_entries: rng.between(8, 256) as u32,
        listeners: 1,
        shared_listeners: 0,
        mutant: None,
    }
}

/// Runs `scenario`. `Err` says what was wrong.
pub fn run(scenario: &Scenario) -> Result<Report, String> {
    let _blame = Blame(scenario);
    apps::take_told();
    marks::take();
    let world = World::new(scenario.seed, scenario.faults.clone());
    let mut rng = world.fork_rng();
    let options = RingOptions {
        // Few enough that they are used again, unless all clients are to be there at once.
        slots: if scenario.stay || scenario.listeners() > 1 { 16 } else { rng.pick(&[3, 5, 16]) },
        mutant: scenario.mutant,
        listeners: scenario.listeners(),
        shared_listeners: u32::from(scenario.shared),
        ..ring(&mut rng)
    };
    let mut setup = Setup {
        cores: scenario.cores,
        ring: options,
        mail_depth: scenario.mail_depth,
        outbox_bytes_max: scenario.outbox_bytes_max,
        slow_consumer: scenario.lossy.map_or(SlowConsumer::Close, |lossy| lossy.policy),
        app: Rc::new(scenario.app),
        ..Setup::default()
    };
    setup.settings.listeners = scenario.listeners() as u8;
    if scenario.operators {
        setup.settings.entrances = vec![Entrance::default(); scenario.listeners() as usize];
        setup.settings.entrances[scenario.listeners() as usize - 1].serves = Serves::Admin;
        setup.settings.admin_stays = true;
    }
    if scenario.tls {
        setup.settings.acceptors = vec![Some(secure::acceptor()), None];
    }
    setup.deflate.mode = scenario.deflate;
    if scenario.deflate != Deflate::Off {
        setup.deflate.bytes_min = 20;
        // A microsecond each: see the host's clock.
        setup.settings.inflate_ns_per_tick = rng.pick(&[0, 2_500, u64::MAX]);
        setup.settings.inflate_bytes_min = rng.pick(&[1, 40]);
        setup.deflate.window_bits = rng.between(10, 13) as u8;
    }
    if let Some(lossy) = scenario.lossy {
        setup.outbox_bytes_max = lossy.outbox_bytes_max;
    }
    setup.settings.recv_bytes_max = rng.pick(&[30, 3_000, 256 << 10]);
    setup.settings.direct_bytes_min = rng.pick(&[64, 16 << 10]);
    setup.settings.tick_bytes_max = rng.pick(&[1, 300, 256 << 10]);
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
    } else {
        let settings = &mut setup.settings;
        settings.handshake_timeout = Duration::from_secs(2);
        settings.ping_interval = Duration::from_secs(3);
        settings.idle_timeout = Duration::from_secs(10);
        settings.close_timeout = Duration::from_secs(1);
    }
    // Nobody is to be left behind.
    setup.settings.drain_timeout = Duration::from_secs(36_000);
    setup.settings.drain_spread = Duration::from_millis(rng.below(3));
    let cores = Cores::new(&world, &setup);
    // One on each of two cores, and without TLS.
    let own = u32::from(scenario.has_two_listeners());
    let chatters = [0, 1].map(|core| Chatter::new(world.connect(core, own), rng.fork()));
    let mut run = Run {
        world,
        scenario: scenario.clone(),
        endpoints: Vec::new(),
        chatters,
        operators: Vec::new(),
        cores,
        drains: false,
        table: Table::default(),
    };
    let mut to_drain: Vec<usize> = (0..scenario.cores).collect();

    let mut rounds = 0;
    while run.endpoints.len() < scenario.clients || !run.endpoints.iter().all(Endpoint::is_over) {
        rounds += 1;
        if rounds > ROUNDS_MAX {
            return Err(format!("stuck: {}; {}", run.cores.state(), run.states()));
        }
        if run.endpoints.len() < scenario.clients && rng.chance(0.2) {
            let endpoint = run.endpoint(&mut rng);
            run.endpoints.push(endpoint);
        }
        if scenario.drains && run.endpoints.len() > scenario.clients / 2 && rng.chance(0.02) {
            to_drain.retain(|&core| !run.cores.drain(core));
        }
        run.step_endpoints(&mut rng)?;
        run.tick(&mut rng, STEP_NS)?;
    }

    run.world.set_faults(Faults::none());
    run.part_chatters(&mut rng)?;
    run.drains = true;
    for round in 0.. {
        to_drain.retain(|&core| !run.cores.drain(core));
        run.tick(&mut rng, 100 * STEP_NS)?;
        if run.cores.is_drained() {
            break;
        }
        if round == ROUNDS_MAX {
            return Err(format!("the drain does not end: {}; {}", run.cores.state(), run.states()));
        }
    }
    run.scenario.operators = false;
    run.operators.iter().for_each(|operator| operator.client.close());
    for _ in 0..50 {
        // What is under way between the cores.
        run.tick(&mut rng, 100 * STEP_NS)?;
    }
    run.cores.all.iter_mut().try_for_each(|core| core.check_over())?;
    let accepted: u64 = run.cores.all.iter_mut().map(|core| core.shard.hub().counters.accepted).sum();
    let came = run.endpoints.iter().filter(|endpoint| endpoint.was_accepted()).count()
        + run.chatters.iter().filter(|chatter| chatter.was_accepted()).count()
        + run.operators.iter().filter(|operator| operator.client.is_accepted()).count();
    if accepted != came as u64 {
        return Err(format!("{came} connections were accepted, and the cores know of {accepted}"));
    }
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
    chatters: [Chatter; 2],
    operators: Vec<Operator>,
    /// The end has come: cores are told to drain.
    drains: bool,
    table: Table,
}

/// Asks whether the server is ready, and goes.
struct Operator {
    client: Client,
    answer: Vec<u8>,
    is_over: bool,
}

impl Run {
    fn step_operators(&mut self, rng: &mut Rng) -> Result<(), String> {
        if !self.scenario.operators {
            return Ok(());
        }
        if rng.chance(0.05) && self.operators.iter().filter(|operator| !operator.is_over).count() < 4 {
            let core = rng.between(0, self.scenario.cores - 1);
            let client = self.world.connect(core, self.scenario.listeners() - 1);
            client.send(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n");
            self.operators.push(Operator { client, answer: Vec::new(), is_over: false });
        }
        for operator in self.operators.iter_mut().filter(|operator| !operator.is_over) {
            operator.answer.extend(operator.client.received());
            let answer = &operator.answer;
            if !b"HTTP/1.1 ".starts_with(&answer[..answer.len().min(9)]) {
                return Err(format!("an operator was answered {:?}", String::from_utf8_lossy(answer)));
            }
            let is_answered = answer.windows(4).any(|end| end == b"\r\n\r\n");
            if is_answered || operator.client.saw_fin() || operator.client.saw_reset() || operator.client.was_broken() {
                operator.is_over = true;
                operator.client.close();
                self.table.add(if is_answered { "operator answered" } else { "operator turned away" }, 1);
            }
        }
        Ok(())
    }

    fn endpoint(&self, rng: &mut Rng) -> Endpoint {
        let id = self.endpoints.len();
        let room = if self.scenario.route == Route::Rooms { id % 3 } else { 0 };
        let plan = Plan {
            id,
            path: format!("{}?n={id}", self.scenario.route.path(room)),
            room,
            messages: rng.between(0, self.scenario.messages_max),
            payload_bytes_max: self.scenario.payload_bytes_max,
            frames_max: rng.pick(&[1, 1, 4]),
            patient: self.scenario.patient,
            leaves: rng.chance(self.scenario.leavers),
            vanishes: self.scenario.drops,
            may_be_dropped: self.scenario.drops || self.scenario.drains,
            earned: self.scenario.earned(),
            owed_pongs: !self.scenario.fills_queues(),
            window: rng.pick(&[50, 1_000, 64 * 1024]),
            reads: rng.pick(&[0.1, 0.5, 1.0]),
            offer: match self.scenario.deflate {
                Deflate::Off => None,
                // Many alike, so that they can read the same, and some who cannot or have not asked.
                _ if rng.chance(0.6) => Some(OFFERS[0]),
                _ => rng.chance(0.8).then(|| rng.pick(&OFFERS)),
            },
        };
        let core = rng.between(0, self.scenario.cores - 1);
        let client = if self.scenario.shared { self.world.connect_shared(0) } else { self.world.connect(core, 0) };
        let socket = if self.scenario.tls { Socket::secure(client) } else { Socket::plain(client) };
        let mut endpoint = Endpoint::new(plan, socket, self.world.now(), rng.fork());
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

    fn step_chatters(&mut self) -> Result<(), String> {
        // A drain closes who has not been read from yet.
        let may_be_dropped = self.scenario.drops || self.scenario.drains || self.drains;
        let ids = self.chatters.each_ref().map(|chatter| chatter.id.clone());
        let [one, other] = &mut self.chatters;
        one.step(ids[1].as_deref(), may_be_dropped)?;
        other.step(ids[0].as_deref(), may_be_dropped)
    }

    /// Has the chatters say what they have to say, and go.
    fn part_chatters(&mut self, rng: &mut Rng) -> Result<(), String> {
        let is_calm = self.scenario.faults == Faults::none() && !self.scenario.drops && !self.scenario.drains;
        for round in 0.. {
            let [one, other] = &self.chatters;
            let are_through = one.is_through(other) && other.is_through(one);
            if are_through || (round > 2_000 && !is_calm) {
                break;
            }
            if round == ROUNDS_MAX {
                return Err(format!("heard {:?} and {:?}, which is not all", one.heard, other.heard));
            }
            self.tick(rng, STEP_NS)?;
        }
        self.chatters.iter_mut().for_each(|chatter| chatter.say_goodbye(1000));
        Ok(())
    }

    /// Ticks the cores that are awake; moves the clock on, by up to `step_ns`, if none is.
    fn tick(&mut self, rng: &mut Rng, step_ns: Nanos) -> Result<(), String> {
        self.step_chatters()?;
        self.step_operators(rng)?;
        let mut order: Vec<usize> = (0..self.cores.all.len()).collect();
        rng.shuffle(&mut order);
        let mut ticked = false;
        for core in order {
            // Sometimes a core is slow, as when another process has its processor.
            if !self.cores.all[core].is_runnable() {
                continue;
            }
            if rng.chance(0.1) {
                self.table.add("core held up", 1);
                continue;
            }
            self.cores.all[core].tick();
            ticked = true;
        }
        self.table.add("round with mail that found no room", u64::from(self.cores.is_congested()));
        let now = self.world.now();
        if ticked {
            self.world.advance(rng.below(5_000));
        } else {
            let step = self.world.next_wakeup().map_or(step_ns, |at| (at - now).min(step_ns));
            // A core whose thread has ended may leave completions behind; they must not stop the clock.
            self.world.advance(step.max(1_000));
        }
        self.world.unended().map_or(Ok(()), Err)
    }

    fn states(&self) -> String {
        let stuck = self.endpoints.iter().filter(|endpoint| !endpoint.is_over()).map(Endpoint::state);
        let chatters = self.chatters.iter().filter(|chatter| !chatter.is_over).map(Chatter::state);
        stuck.chain(chatters).collect::<Vec<_>>().join("; ")
    }

    fn judge(mut self, dropped: u64) -> Result<Report, String> {
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
        let ends = self.cores.all.iter_mut().flat_map(|core| std::mem::take(&mut core.shard.service().ends));
        let told = ends.map(|(client, id, ended, ns)| Told { client, id, ended, duration: Duration::from_nanos(ns) });
        let told: Vec<Told> = told.collect();
        ends::judge(&logs, &told, self.scenario.earned(), self.scenario.drops)?;
        if self.scenario.tells {
            ends::judge_heard(&told, &apps::take_told())?;
        }
        let letters = self.cores.letters();
        if letters == 0 && self.chatters.iter().all(|chatter| chatter.said > 0) {
            return Err("the cores did not talk to each other".to_owned());
        }
        self.count(&logs, letters);
        let clean = logs.iter().filter(|log| log.end == Some(End::Clean)).count();
        Ok(Report {
            dropped,
            fingerprint: self.world.fingerprint(),
            clean,
            messages: logs.iter().map(|log| log.received.len()).sum(),
            letters,
            table: self.table,
        })
    }

    /// Fills the table.
    fn count(&mut self, logs: &[Log], letters: u64) {
        let faults = self.world.fault_counts();
        for &fault in Fault::ALL {
            self.table.add(format!("fault {fault:?}"), faults.of(fault));
        }
        for (mark, count) in marks::take().unwrap_or_default() {
            self.table.add(format!("mark {mark:?}"), count);
        }
        self.table.add("letter between cores", letters);
        self.table.add("run with letters between cores", u64::from(letters > 0));
        self.table.add("run", 1);
        self.table.add("slot reused", self.world.slots_reused());
        self.table.add("message received", logs.iter().map(|log| log.received.len() as u64).sum());
        for endpoint in &self.endpoints {
            if let Some((what, phase)) = endpoint.fate {
                self.table.add(format!("connection {what}, {phase:?}"), 1);
            }
        }
        let compressed = self.endpoints.iter().map(Endpoint::compressed).sum();
        self.table.add("message received compressed", compressed);
        for log in logs {
            let end = log.end.expect("everybody's connection has ended");
            self.table.add(format!("end {end:?}"), 1);
        }
        for core in &mut self.cores.all {
            let counters = core.shard.hub().metrics().counters;
            self.table.add("connection dropped by a time limit", counters.timeouts.total());
            self.table.add("receive that found no buffer", counters.buffers_missing);
            self.table.add("stream begun anew", counters.stream_resets);
            self.table.add("message inflated", counters.inflated.messages);
            for (_, ended) in &core.shard.service().ended {
                self.table.add(format!("closed with {}{}", ended.code, if ended.clean { ", clean" } else { "" }), 1);
            }
        }
    }
}
