//! Seeded runs of the client's core against a server's cores, all in one world under one clock, with faults on both rings.
//!
//! Users connect, send, receive, ping, go, and come back; some keep a connection up by [`Reconnecting`]. What each was told
//! is held against what the server's handler has seen: every message that was accepted arrives once and in order, and all
//! of them do unless the user was told how the connection ended, and there was a cause for such an end. Every future is
//! answered, woken by nobody but the code under test, and in the end nothing of anybody is left.
//!
//! Masking keys and handshakes are the kernel's random bytes here too, on which no way that a run takes depends; the random
//! delays of those who come back would, so they are zero.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{Either, select};
use ringwire::client::{Client, ClientError, Connect, Event, Reconnecting};
use ringwire::engine::sim::{Fault, Faults, Mutant, RingOptions, Rng, World};
use ringwire::{App, Message, OwnedMessage, Socket, ws};

use crate::client_host::{Cable, ClientCore, GREETING, Manner, Peer, Tasks, connect_to, no_names, yield_now};
use crate::driver::ring;
use crate::host::{Cores, Setup};
use crate::table::Table;

/// Asks the server to close the connection.
const BYE: &str = "bye";
/// The code with which it does.
const BYE_CODE: u16 = 4001;
/// What makes the server send a lot at once.
const FLOOD: &str = "flood";
const FLOOD_MESSAGES: usize = 30;

/// Attempts that a user who keeps a connection up may make.
const ATTEMPTS_MAX: usize = 50;
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
    /// The part of the attempts that end up with somebody who is no server.
    pub strangers: f64,
}

impl Scenario {
    pub fn of(seed: u64) -> Scenario {
        let faults = Faults::harsh().with(Fault::ConnectFailed, 0.05).with(Fault::NoDescriptor, 0.02);
        let drops = seed.is_multiple_of(3);
        Scenario { seed, faults, mutant: None, users: 3 + (seed % 4) as usize, drops, strangers: 0.2 }
    }

    pub fn calm(self) -> Scenario {
        Scenario { faults: Faults::none(), drops: false, strangers: 0.0, ..self }
    }
}

/// One attempt of a user, and what became of it.
#[derive(Default)]
struct Visit {
    accepted: Vec<String>,
    received: Vec<String>,
    end: Option<End>,
    /// It waited for all of its answers before it said goodbye.
    was_patient: bool,
    /// It said goodbye while it was owed answers.
    was_stopped: bool,
}

impl fmt::Debug for Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brief = |texts: &[String]| {
            let mark = |text: &str| if text.ends_with(BYE) { BYE } else { "" };
            texts.iter().map(|text| format!("{}{}", text.len(), mark(text))).collect::<Vec<_>>().join(" ")
        };
        let (accepted, received) = (brief(&self.accepted), brief(&self.received));
        write!(f, "accepted [{accepted}], received [{received}], end {:?}, patient {}", self.end, self.was_patient)
    }
}

#[derive(Debug)]
enum End {
    /// The user gave up before it knew.
    GaveUp,
    NotOpened(ClientError),
    /// The handle was dropped.
    Dropped,
    /// In order: code, and whether both sides said Close.
    Closed(u16, bool),
    Broken(ClientError),
}

/// Everything that one user was told, in order.
type Visits = Rc<RefCell<Vec<Visit>>>;

/// What the server's handler has seen, by user and visit.
type Seen = Rc<RefCell<BTreeMap<(usize, usize), Vec<String>>>>;

/// One message of a flood.
fn flood() -> String {
    FLOOD.repeat(600)
}

fn tag(user: usize, visit: usize, number: usize) -> String {
    format!("{user}.{visit}.{number}:")
}

fn visit_of(text: &str) -> Option<(usize, usize)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Writes down each message, and sends it back.
fn app(seen: &Seen) -> App {
    let seen = Rc::clone(seen);
    let handler = move |socket: &mut Socket, message: Message| {
        let text = message.as_text().expect("users send text").to_owned();
        if let Some(key) = visit_of(&text) {
            seen.borrow_mut().entry(key).or_default().push(text.clone());
        }
        let _ = socket.send(text.as_str());
        if text.ends_with(FLOOD) {
            for _ in 0..FLOOD_MESSAGES {
                let _ = socket.send(flood().as_str());
            }
        }
        if text.ends_with(BYE) {
            let _ = socket.close(BYE_CODE, "as asked");
        }
    };
    App::new().ws("/", ws().on_message(handler))
}

// ---- users --------------------------------------------------------------------------------------------------------

struct User {
    number: usize,
    rng: Rng,
    visits: Visits,
    payload_bytes_max: usize,
    /// Stays until it is told something: it never drops what it waits for.
    is_steady: bool,
}

impl User {
    fn visit<T>(&self, note: impl FnOnce(&mut Visit) -> T) -> T {
        note(self.visits.borrow_mut().last_mut().expect("a visit has begun"))
    }

    fn text(&mut self, number: usize) -> String {
        let visit = self.visits.borrow().len() - 1;
        let most = if self.rng.chance(0.8) { self.payload_bytes_max.min(100) } else { self.payload_bytes_max };
        let filler = "x".repeat(self.rng.between(0, most));
        tag(self.number, visit, number) + &filler
    }

    fn take(&self, message: &OwnedMessage) {
        let text = message.as_text().expect("the server sends text").to_owned();
        if text != flood() {
            self.visit(|visit| visit.received.push(text));
        }
    }

    /// How many answers are owed.
    fn is_owed(&self) -> bool {
        self.visit(|visit| visit.received.len() < visit.accepted.len())
    }

    fn is_flooded(&self) -> bool {
        self.visit(|visit| visit.accepted.iter().any(|text| text.ends_with(FLOOD)))
    }

    /// Receives one message; false at the end.
    async fn receive(&self, client: &mut Client) -> bool {
        match client.recv().await {
            Some(Ok(message)) => {
                self.take(&message);
                return true;
            }
            Some(Err(error)) => {
                assert!(client.recv().await.is_none(), "an error is the last thing");
                self.visit(|visit| visit.end = Some(End::Broken(error)));
            }
            None => {
                let closed = client.closed().expect("how it ended is known at the end");
                self.visit(|visit| visit.end = Some(End::Closed(closed.code, closed.clean)));
            }
        }
        false
    }

    /// Sends one message, and receives while there is no room; false if it could not be sent any more.
    async fn send(&mut self, client: &mut Client, text: String) -> bool {
        if self.rng.chance(0.3) {
            match client.try_send(text.as_str()) {
                Ok(()) => {
                    self.visit(|visit| visit.accepted.push(text));
                    return true;
                }
                Err(ClientError::Full) => {}
                Err(_) => return false,
            }
        }
        let sender = client.sender();
        let gives_up = !self.is_steady && !text.ends_with(BYE) && self.rng.chance(0.05);
        let mut sending = pin!(sender.send(text.as_str()));
        loop {
            match select(sending.as_mut(), pin!(self.receive(client))).await {
                Either::Left((Ok(()), _)) => {
                    self.visit(|visit| visit.accepted.push(text.clone()));
                    return true;
                }
                Either::Left((Err(_), _)) => return false,
                // A future that is dropped has queued nothing.
                Either::Right((true, _)) if gives_up => return true,
                Either::Right((true, _)) => {}
                Either::Right((false, _)) => {
                    assert!(sending.await.is_err(), "nothing can be queued after the end");
                    return false;
                }
            }
        }
    }

    /// Connects, talks, and goes; once.
    async fn call(&mut self, connect: Connect) {
        self.visits.borrow_mut().push(Visit::default());
        let mut connecting = connect.into_future();
        if !self.is_steady && self.rng.chance(0.1) {
            for _ in 0..self.rng.between(0, 20) {
                let done = std::future::poll_fn(|cx| Poll::Ready(pin!(&mut connecting).poll(cx).is_ready())).await;
                if done {
                    break;
                }
                yield_now().await;
            }
            return self.visit(|visit| visit.end = Some(End::GaveUp));
        }
        let mut client = match connecting.await {
            Ok(client) => client,
            Err(error) => return self.visit(|visit| visit.end = Some(End::NotOpened(error))),
        };
        let messages = self.rng.between(0, 12);
        for number in 0..messages {
            let mut text = self.text(number);
            let says_bye = self.rng.chance(0.03);
            if says_bye {
                text.push_str(BYE);
            } else if self.rng.chance(0.05) {
                text.push_str(FLOOD);
            }
            if !self.send(&mut client, text).await || says_bye {
                return self.hear_out(&mut client).await;
            }
            if self.rng.chance(0.2) && self.is_owed() && !self.receive(&mut client).await {
                return;
            }
            // The pong would be behind a flood that does not fit into the inbox.
            let may_ping = !self.is_owed() && !self.is_flooded();
            if self.rng.chance(0.1) && may_ping && client.ping().await.is_err() {
                return self.hear_out(&mut client).await;
            }
            if self.rng.chance(0.1) {
                yield_now().await;
            }
            if !self.is_steady && self.rng.chance(0.03) {
                return self.visit(|visit| visit.end = Some(End::Dropped));
            }
        }
        if self.is_steady || self.rng.chance(0.7) {
            while self.is_owed() {
                if !self.receive(&mut client).await {
                    return;
                }
            }
            self.visit(|visit| visit.was_patient = true);
        }
        let closed = client.close(1000, "done").await.expect("a legal code, and a core that lives");
        self.hear_out(&mut client).await;
        assert_eq!(client.closed().map(|closed| closed.code), Some(closed.code));
        assert!(client.try_send("too late").is_err());
        assert!(client.ping().await.is_err());
    }

    /// Receives what is left.
    async fn hear_out(&self, client: &mut Client) {
        while self.receive(client).await {}
    }

    /// Keeps a connection up for some visits.
    async fn stay(&mut self, connect: Connect, mut visits_left: usize) {
        let mut client = Reconnecting::new(connect).delays(Duration::ZERO, Duration::ZERO);
        self.visits.borrow_mut().push(Visit::default());
        let mut attempts = 0;
        let mut is_open = false;
        let mut to_say: VecDeque<String> = VecDeque::new();
        loop {
            let event = match to_say.front().cloned() {
                None => client.next().await,
                Some(text) => {
                    let sender = client.sender();
                    match select(pin!(sender.send(text.as_str())), pin!(client.next())).await {
                        Either::Right((event, _)) => event,
                        Either::Left((Ok(()), _)) => {
                            let text = to_say.pop_front().expect("it was there");
                            self.visit(|visit| visit.accepted.push(text));
                            continue;
                        }
                        Either::Left((Err(_), _)) => {
                            to_say.clear();
                            continue;
                        }
                    }
                }
            };
            match event.expect("the last event says that it is the last") {
                Event::Opened { .. } => {
                    is_open = true;
                    visits_left = visits_left.saturating_sub(1);
                    let messages = self.rng.between(1, 5);
                    to_say.extend((0..messages).map(|number| self.text(number)));
                    if let Some(last) = to_say.back_mut() {
                        last.push_str(BYE);
                    }
                }
                Event::Message(message) => {
                    self.take(&message);
                    if visits_left == 0 && self.rng.chance(0.2) {
                        client.stop();
                        self.visit(|visit| visit.was_stopped = true);
                    }
                }
                Event::Closed { why, retry_in } => {
                    let end = match why {
                        ClientError::Closed(closed) => End::Closed(closed.code, closed.clean),
                        why if !is_open => End::NotOpened(why),
                        why => End::Broken(why),
                    };
                    is_open = false;
                    to_say.clear();
                    attempts += 1;
                    self.visit(|visit| visit.end = Some(end));
                    if retry_in.is_none() {
                        assert!(client.next().await.is_none());
                        break;
                    }
                    if visits_left == 0 || attempts == ATTEMPTS_MAX {
                        client.stop();
                    }
                    self.visits.borrow_mut().push(Visit::default());
                }
                event => panic!("{event:?}"),
            }
        }
    }
}

// ---- the run ------------------------------------------------------------------------------------------------------

/// Whom an attempt has reached.
enum Met {
    Server(Cable),
    Stranger(Peer, Manner),
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

struct Run {
    scenario: Scenario,
    world: World,
    rng: Rng,
    cores: Cores,
    client: ClientCore,
    tasks: Tasks,
    /// By user, in order, with the port's number among the user's own.
    met: Vec<Vec<(u16, Met)>>,
    visits: Vec<Visits>,
    seen: Seen,
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
    setup.settings.pause_bytes = rng.pick(&[100, 4_000, 256 << 10]);
    setup.settings.handshake_timeout = limit(20);
    setup.settings.idle_timeout = limit(20);
    setup.settings.write_timeout = limit(20);
    setup.settings.close_timeout = limit(5);
    setup.settings.ping_interval = limit(4);
    setup.settings.drain_timeout = Duration::from_secs(36_000);
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
        let (inbox, outbox) = (rng.pick(&[1, 200, 3_000, 1 << 20]), rng.pick(&[0, 1, 150, 3_000, 1 << 20]));
        let (handshake, close, pong) = (limit(10), limit(3), limit(3));
        let ping = if self.scenario.drops { Duration::from_secs(2) } else { Duration::ZERO };
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
                return user.stay(connect(0), count).await;
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
                    manner => Met::Stranger(Peer::new(dial.accept(), manner), manner),
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
        self.client.tick();
        self.client.check_over()?;
        self.cores.all.iter_mut().try_for_each(|core| core.check_over())
    }

    fn judge(self) -> Result<Report, String> {
        let mut table = Table::default();
        let mut clean = 0;
        for (user, visits) in self.visits.iter().enumerate() {
            let mut met: VecDeque<&(u16, Met)> = self.met[user].iter().collect();
            for (number, visit) in visits.borrow().iter().enumerate() {
                let seen = self.seen.borrow().get(&(user, number)).cloned().unwrap_or_default();
                let blame = |why: &str| format!("user {user}, visit {number}: {why}; seen {}: {visit:?}", seen.len());
                let Some(end) = &visit.end else { return Err(blame("no end was told")) };
                let was_tried = match end {
                    End::NotOpened(ClientError::Connect { source, .. }) => source.raw_os_error() != Some(libc::EMFILE),
                    End::NotOpened(ClientError::NotConnected) | End::GaveUp => false,
                    _ => true,
                };
                table.add(row(end), 1);
                if !was_tried {
                    if !visit.received.is_empty() || !seen.is_empty() {
                        return Err(blame("messages of a connection that was not made"));
                    }
                    continue;
                }
                // Who keeps a connection up uses one port, and each of the other calls its own.
                met.retain(|(nth, _)| *nth == 0 || usize::from(*nth) > number);
                let Some((_, met)) = met.pop_front() else { return Err(blame("it did not connect")) };
                self.judge_visit(visit, end, met, &seen).map_err(|why| blame(&why))?;
                clean += u64::from(matches!(end, End::Closed(_, true)));
            }
        }
        let faults = self.world.fault_counts();
        Fault::ALL.iter().for_each(|&fault| table.add(format!("fault {fault:?}"), faults.of(fault)));
        table.add("slot reused", self.world.slots_reused());
        table.add("message accepted", self.seen.borrow().values().map(|seen| seen.len() as u64).sum());
        Ok(Report { fingerprint: self.world.fingerprint(), clean, table })
    }

    fn judge_visit(&self, visit: &Visit, end: &End, met: &Met, seen: &[String]) -> Result<(), String> {
        let cable = match met {
            Met::Server(cable) => cable,
            Met::Stranger(_, manner) => return judge_stranger(visit, end, *manner),
            Met::Nobody if matches!(end, End::NotOpened(_)) && seen.is_empty() => return Ok(()),
            Met::Nobody => return Err("it met nobody".to_owned()),
        };
        if !visit.accepted.starts_with(seen) {
            return Err("the server has seen something else than what was sent".to_owned());
        }
        if !visit.accepted.starts_with(&visit.received) {
            return Err("something else came back than what was sent".to_owned());
        }
        if visit.received.len() > seen.len() {
            return Err("an answer to what the server has not seen".to_owned());
        }
        let is_excused = cable.was_broken() || self.scenario.drops;
        let bye = visit.accepted.iter().any(|text| text.ends_with(BYE));
        let is_whole = match end {
            End::Closed(1000, true) => true,
            End::Closed(BYE_CODE, true) if bye => true,
            End::Dropped => !is_excused,
            _ if is_excused => false,
            end => return Err(format!("a healthy connection ended with {end:?}")),
        };
        if is_whole && seen.len() != visit.accepted.len() {
            return Err("the server has not seen everything".to_owned());
        }
        let all_back = visit.was_patient || (matches!(end, End::Closed(BYE_CODE, true)) && !visit.was_stopped);
        if is_whole && all_back && visit.received.len() != visit.accepted.len() {
            return Err("not everything has come back".to_owned());
        }
        Ok(())
    }
}

fn judge_stranger(visit: &Visit, end: &End, manner: Manner) -> Result<(), String> {
    let greeting = [GREETING.to_owned()];
    match end {
        End::NotOpened(_) if visit.received.is_empty() => Ok(()),
        _ if !manner.opens() => Err(format!("{manner:?} cannot end so")),
        End::Closed(_, true) => Err(format!("{manner:?} does not close in order")),
        _ if greeting.starts_with(&visit.received) => Ok(()),
        _ => Err(format!("{manner:?} did not say that")),
    }
}

fn row(end: &End) -> String {
    match end {
        End::GaveUp => "gave up".to_owned(),
        End::Dropped => "handle dropped".to_owned(),
        End::Closed(code, clean) => format!("closed with {code}{}", if *clean { ", clean" } else { "" }),
        End::NotOpened(error) | End::Broken(error) => {
            let name = format!("{error:?}");
            let name = name.split([' ', '{']).next().unwrap_or_default();
            let name = name.split_once("(Os").map_or(name, |(name, _)| name);
            let opened = if matches!(end, End::Broken(_)) { "broken" } else { "not opened" };
            format!("{opened}: {}", name.split_once('(').map_or(name, |(name, _)| name))
        }
    }
}

// ---- tests --------------------------------------------------------------------------------------------------------

/// As [`run`], with assertions that failed among what was wrong.
fn try_run(scenario: &Scenario) -> Result<Report, String> {
    catch_unwind(AssertUnwindSafe(|| run(scenario))).unwrap_or_else(|_| Err("a panic".to_owned()))
}

fn must(scenario: &Scenario) -> Report {
    run(scenario).unwrap_or_else(|why| panic!("seed {}: {why}", scenario.seed))
}

#[test]
fn without_faults_every_visit_ends_in_order() {
    for seed in crate::seeds(50) {
        let report = must(&Scenario::of(seed).calm());
        let ends = ["not opened: Broken", "not opened: Connect", "broken", "closed with 1006"];
        let rows = report.table.to_string();
        assert!(!ends.iter().any(|end| rows.contains(end)), "seed {seed}:\n{rows}");
    }
}

#[test]
fn a_client_survives_harsh_faults_of_every_kind() {
    let seeds = crate::seeds(200);
    let mut table = Table::default();
    let mut clean = 0;
    let mut failures = Vec::new();
    for &seed in &seeds {
        match try_run(&Scenario::of(seed)) {
            Ok(report) => {
                table.add_all(&report.table);
                clean += report.clean;
            }
            Err(why) => failures.push(format!("seed {seed}: {why}")),
        }
    }
    println!("{table}");
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures[..failures.len().min(5)].join("\n"));
    if seeds.len() < 100 {
        return;
    }
    let faults = Scenario::of(0).faults;
    // The server's cores do not ring for each other here.
    let possible = |fault: &&Fault| faults.chance(**fault) > 0.0 && **fault != Fault::DoorbellLate;
    for fault in Fault::ALL.iter().filter(possible) {
        assert!(table.of(&format!("fault {fault:?}")) > 0, "{fault:?} never happened:\n{table}");
    }
    assert!(clean as usize > seeds.len(), "too few ended in order, the judge saw too little:\n{table}");
    for what in [
        "slot reused",
        "gave up",
        "handle dropped",
        "closed with 4001, clean",
        "not opened: Refused",
        "not opened: Handshake",
        "not opened: Timeout",
        "not opened: Connect",
        "broken: Protocol",
        "broken: Broken",
        "broken: Timeout",
    ] {
        assert!(table.of(what) > 0, "never: {what}\n{table}");
    }
}

#[test]
fn the_same_seed_is_the_same_run_of_a_client() {
    assert_eq!(must(&Scenario::of(5)), must(&Scenario::of(5)));
    assert_ne!(must(&Scenario::of(5)).fingerprint, must(&Scenario::of(6)).fingerprint);
}

/// The canary of the judge: bugs of the client's ring are found.
#[test]
fn planted_bugs_of_a_clients_ring_are_found() {
    for mutant in [Mutant::LoseByte, Mutant::DuplicateByte, Mutant::ReorderSends] {
        let found =
            (0..10).filter(|&seed| try_run(&Scenario { mutant: Some(mutant), ..Scenario::of(seed).calm() }).is_err());
        let found = found.count();
        assert!(found >= 8, "{mutant:?} was found only {found} times in 10");
    }
}
