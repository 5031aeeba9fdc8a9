//! Runs users of the client's driver against a server's cores, all in one world under one clock, with faults on both rings.
//!
//! Some attempts reach somebody who is no server. Every future is answered, woken by nobody but the code under test, and in
//! the end nothing of anybody is left.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringwire::engine::sim::{Fault, Faults, Mutant, RingOptions, Rng, World};

use crate::client_host::{Cable, ClientCore, Manner, Peer, Tasks, connect_securely_to, connect_to, no_names};
use crate::client_users::{Seen, User, Visits, app};
use crate::driver::ring;
use crate::host::{Cores, Setup};
use crate::secure::{self, Socket};
use crate::table::Table;

/// Ports of one user: one for each time that it calls.
const PORTS: u16 = 100;
const ROUNDS_MAX: usize = 200_000;

#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub faults: Faults,
    /// The bug that the client's ring has.
    pub mutant: Option<Mutant>,
    pub users: usize,
    /// Whether time limits are short enough to be reached; then peers may be silent and cables cut.
    pub drops: bool,
    /// Whether everybody speaks TLS.
    pub is_secure: bool,
    /// The part of the attempts that end up with somebody who is no server.
    pub strangers: f64,
}

impl Scenario {
    pub fn of(seed: u64) -> Scenario {
        let faults = Faults::harsh().with(Fault::ConnectFailed, 0.05).with(Fault::NoDescriptor, 0.02);
        let drops = seed.is_multiple_of(3);
        let is_secure = matches!(seed % 5, 1 | 3);
        Scenario { seed, faults, mutant: None, users: 3 + (seed % 4) as usize, drops, is_secure, strangers: 0.2 }
    }

    pub fn calm(self) -> Scenario {
        Scenario { faults: Faults::none(), drops: false, strangers: 0.0, ..self }
    }
}

/// Whom an attempt has reached.
pub enum Met {
    Server(Cable),
    Stranger(Box<Peer>, Manner),
    /// Refused, or never answered.
    Nobody,
}

/// What happened, and a digest of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    pub fingerprint: u64,
    pub clean: u64,
    pub table: Table,
}

pub struct Run {
    pub scenario: Scenario,
    pub world: World,
    rng: Rng,
    cores: Cores,
    client: ClientCore,
    tasks: Tasks,
    /// By user, in order, with the port's number among the user's own.
    pub met: Vec<Vec<(u16, Met)>>,
    pub visits: Vec<Visits>,
    pub seen: Seen,
}

/// Runs `scenario`. `Err` says what was wrong.
pub fn run(scenario: &Scenario) -> Result<Report, String> {
    let _blame = Blame(scenario.seed);
    let world = World::new(scenario.seed, scenario.faults.clone());
    let mut rng = world.fork_rng();
    let seen = Seen::default();
    let of_app = Rc::clone(&seen);
    let hour = Duration::from_secs(3600);
    let limit = |seconds| if scenario.drops { Duration::from_secs(seconds) } else { hour };
    let mut setup = Setup { cores: 2, ring: ring(&mut rng), app: Rc::new(move || app(&of_app)), ..Setup::default() };
    setup.settings.recv_bytes_max = rng.pick(&[30, 3_000, 256 << 10]);
    setup.settings.direct_bytes_min = rng.pick(&[64, 16 << 10]);
    setup.settings.tick_bytes_max = rng.pick(&[1, 300, 256 << 10]);
    setup.settings.pause_bytes = rng.pick(&[100, 4_000, 256 << 10]);
    setup.settings.handshake_timeout = limit(20);
    setup.settings.idle_timeout = limit(20);
    setup.settings.write_timeout = limit(20);
    setup.settings.close_timeout = limit(5);
    setup.settings.ping_interval = limit(4);
    setup.settings.drain_timeout = Duration::from_secs(36_000);
    if scenario.is_secure {
        setup.settings.acceptors = vec![Some(secure::acceptor())];
    }
    let cores = Cores::new(&world, &setup);
    let options = RingOptions { mutant: scenario.mutant, ..ring(&mut rng) };
    let client = ClientCore::new(&world, setup.cores, options, no_names);
    let mut run = Run {
        scenario: scenario.clone(),
        world,
        rng,
        cores,
        client,
        tasks: Tasks::default(),
        met: (0..scenario.users).map(|_| Vec::new()).collect(),
        visits: (0..scenario.users).map(|_| Visits::default()).collect(),
        seen,
    };
    (0..scenario.users).for_each(|user| run.start_user(user, limit));
    for round in 0.. {
        let left = run.tasks.left();
        if left.is_empty() {
            break;
        }
        let acted = run.round(0.5);
        // Where no limit is shorter than an hour, nobody waits for one.
        let is_late = !scenario.drops && run.world.now() > 30 * 60 * 1_000_000_000;
        if round == ROUNDS_MAX || is_late || (!acted && run.world.next_wakeup().is_none()) {
            let visits: Vec<_> = left.iter().map(|&user| format!("{:?}", run.visits[user].borrow().last())).collect();
            return Err(format!("users {left:?} are stuck in round {round}: {}", visits.join("; ")));
        }
        run.world.unended().map_or(Ok(()), Err)?;
    }
    run.end()?;
    run.judge()
}

/// Says which seed it was when an assertion ends it.
struct Blame(u64);

impl Drop for Blame {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("RINGWIRE_SIM_SEED={} of the client", self.0);
        }
    }
}

impl Run {
    fn start_user(&mut self, number: usize, limit: impl Fn(u64) -> Duration) {
        let rng = &mut self.rng;
        let is_steady = number.is_multiple_of(2) || rng.chance(0.3);
        let driver = Arc::clone(&self.client.courier);
        let courier = Arc::clone(&driver);
        let (inbox, outbox) = (rng.pick(&[1, 200, 3_000, 1 << 20]), rng.pick(&[0, 1, 150, 3_000, 1 << 20]));
        let (handshake, close, pong) = (limit(10), limit(3), limit(3));
        let ping = if self.scenario.drops { Duration::from_secs(2) } else { Duration::ZERO };
        let connect_to = if self.scenario.is_secure { connect_securely_to } else { connect_to };
        let connect = move |nth: u16| {
            let connect = connect_to(&driver, (number as u16 + 1) * PORTS + nth, "/");
            let connect = connect.handshake_timeout(handshake).close_timeout(close);
            connect.ping_interval(ping).pong_timeout(pong).max_inbox(inbox).max_outbox(outbox)
        };
        let payload_bytes_max = rng.pick(&[100, 2_000, 40_000]);
        let visits = Rc::clone(&self.visits[number]);
        let mut user = User { number, rng: rng.fork(), visits, payload_bytes_max, is_steady };
        let count = rng.between(1, 4);
        let reconnects = rng.chance(0.4);
        self.tasks.spawn(async move {
            if reconnects {
                return user.stay(&courier, connect(0), count).await;
            }
            for nth in 1..=count {
                user.call(connect(nth as u16)).await;
            }
        });
    }

    /// Lets everybody act a little; whether anybody had anything to do. If not, time passes until somebody has.
    fn round(&mut self, chance: f64) -> bool {
        let mut acted = self.answer();
        acted |= self.tasks.poll(chance, &mut self.rng);
        for (_, met) in self.met.iter_mut().flatten() {
            if !self.rng.chance(chance) {
                // It may have had something to do.
                acted |= !matches!(met, Met::Nobody) && chance < 1.0 && self.rng.chance(0.2);
                continue;
            }
            let bytes_max = self.rng.pick(&[1, 40, 1_000, usize::MAX]);
            acted |= match met {
                Met::Server(cable) => {
                    if self.scenario.drops && self.rng.chance(0.000_3) {
                        cable.is_cut = true;
                    }
                    cable.step(bytes_max)
                }
                Met::Stranger(peer, _) => peer.step(),
                Met::Nobody => false,
            };
        }
        let mut order: Vec<usize> = (0..=self.cores.all.len()).collect();
        self.rng.shuffle(&mut order);
        for core in order {
            let is_runnable = match self.cores.all.get(core) {
                Some(core) => core.is_runnable(),
                None => self.client.is_runnable(),
            };
            acted |= is_runnable;
            if is_runnable && self.rng.chance(0.9) {
                match self.cores.all.get_mut(core) {
                    Some(core) => core.tick(),
                    None => self.client.tick(),
                }
            }
        }
        let now = self.world.now();
        let step = match self.world.next_wakeup() {
            _ if acted => self.rng.below(5_000),
            Some(at) => at.saturating_sub(now).clamp(1_000, 100_000_000),
            None => 1_000,
        };
        self.world.advance(step);
        acted
    }

    /// Answers who wants to connect.
    fn answer(&mut self) -> bool {
        let mut answered = false;
        while let Some(dial) = self.world.next_dial() {
            answered = true;
            let port = dial.address().map_or(0, |address| address.port());
            let user = usize::from(port / PORTS) - 1;
            let met = if !self.rng.chance(self.scenario.strangers) {
                let near = dial.accept();
                near.set_window(self.rng.pick(&[50, 1_000, 64 << 10]));
                near.set_send_window(self.rng.pick(&[50, 1_000, 64 << 10]));
                let core = self.rng.between(0, self.cores.all.len() - 1);
                Met::Server(Cable::new(near, self.world.connect(core, 0)))
            } else if self.rng.chance(0.2) {
                dial.refuse(self.rng.pick(&[libc::ECONNREFUSED, libc::ENETUNREACH]));
                Met::Nobody
            } else {
                // Who is silent is waited for as long as the limits say.
                match self.rng.pick(&Manner::ALL) {
                    Manner::Silent if !self.scenario.drops => {
                        dial.accept().close();
                        Met::Nobody
                    }
                    Manner::Silent if self.rng.chance(0.5) => Met::Nobody,
                    manner => {
                        let client = dial.accept();
                        let is_secure = self.scenario.is_secure;
                        let socket = if is_secure { Socket::serving(client) } else { Socket::plain(client) };
                        Met::Stranger(Box::new(Peer::new(socket, manner)), manner)
                    }
                }
            };
            self.met[user].push((port % PORTS, met));
        }
        answered
    }

    /// Switches the faults off and has everything come to rest.
    fn end(&mut self) -> Result<(), String> {
        self.world.set_faults(Faults::none());
        let mut to_drain: Vec<usize> = (0..self.cores.all.len()).collect();
        for round in 0.. {
            // What a dropped handle has left is sent before the server goes.
            if self.client.driver.slots_in_use() == 0 {
                to_drain.retain(|&core| !self.cores.drain(core));
            }
            self.round(1.0);
            if self.cores.is_drained() && self.client.driver.slots_in_use() == 0 {
                break;
            }
            if round == ROUNDS_MAX {
                let slots = self.client.driver.slots_in_use();
                return Err(format!("no rest: {}; the client keeps {slots} slots", self.cores.state()));
            }
        }
        for _ in 0..50 {
            self.round(1.0);
        }
        self.world.unended().map_or(Ok(()), Err)?;
        self.client.tick();
        self.client.check_over()?;
        self.cores.all.iter_mut().try_for_each(|core| core.check_over())
    }
}
