//! Compressed streams in whole cores: clients that join rooms, leave them and move between them, say something to a room, a
//! route, all or themselves, with keys and as secrets, read nothing for a while, break and come back. Each inflates what it is
//! sent by an inflater of its own, whose window is no larger than was agreed, and any byte that differs fails the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ringwire::config::{Deflate, SlowConsumer};
use ringwire::engine::sim::{Fault, Faults, RingOptions, Rng};
use ringwire::metrics::DropReason;
use ringwire::{App, BoxError, IntoMessage as _, Message, Socket as Ws, ws};

use crate::host::Setup;
use crate::rig::{Rig, Socket, Transport};
use crate::secure;
use crate::table::Table;
use crate::wire::Event;
use crate::wire::compression::OFFERS;

const MODES: [Deflate; 4] = [Deflate::Shared, Deflate::Stateless, Deflate::Dedicated, Deflate::Off];
const POLICIES: [SlowConsumer; 4] =
    [SlowConsumer::DropOld, SlowConsumer::KeepLatest, SlowConsumer::DropNew, SlowConsumer::Close];
const ROOMS: [&str; 3] = ["a", "b", "c"];
/// Less than two of the longest messages.
const OUTBOX_BYTES_MAX: usize = 7_000;
const ROUNDS: usize = 350;

/// What message number so much says; those that are to go as they are, say so.
fn text(number: u64, is_marked: bool) -> String {
    let mut rng = Rng::new(number);
    let mut text = format!("{number} {} ", u8::from(is_marked));
    // Some as long as what is passed on to other cores without being copied.
    let words = if number % 30 == 7 { 600 } else { rng.below(50) };
    for _ in 0..words {
        text += rng.pick(&["bid ", "ask ", "price:", "EUR/USD ", "17 ", "0.0", "🦀 "]);
        text += &rng.below(1000).to_string();
    }
    text
}

/// A route for each mode and policy, in this order.
fn app() -> App {
    let routes = MODES.iter().enumerate().flat_map(|(n, mode)| POLICIES.map(|policy| (n, *mode, policy)));
    routes.fold(App::new(), |app, (n, mode, policy)| {
        let route = ws().deflate(mode).slow_consumer(policy).on_message(obey);
        app.ws(&format!("/{n}/{policy}"), route)
    })
}

/// Does what a client asks for: a verb, its object, a key or `-`; behind the line's end is what is to be said.
fn obey(socket: &mut Ws<'_>, message: Message<'_>) -> Result<(), BoxError> {
    let asked = message.as_text().expect("text").to_owned();
    let (order, said) = asked.split_once('\n').expect("an order");
    let words: Vec<&str> = order.split(' ').collect();
    let [verb, object, key] = words[..] else { panic!("{order}") };
    let is_marked = said.split(' ').nth(1) == Some("1");
    match verb {
        // A connection that is about to be closed may not.
        "join" => _ = socket.join(object),
        "leave" => _ = socket.leave(object),
        "room" | "route" | "all" => {
            let mut to = match verb {
                "room" => socket.to(object),
                "route" => socket.to_route(),
                _ => socket.to_all(),
            };
            to = if key == "-" { to } else { to.keyed(key) };
            to = if is_marked { to.uncompressed() } else { to };
            let _ = to.send(said)?;
        }
        "self" => {
            _ = match (key, is_marked) {
                ("-", false) => socket.send(said),
                ("-", true) => socket.send(said.uncompressed()),
                (_, false) => socket.send_keyed(key, said),
                (_, true) => socket.send_keyed(key, said.uncompressed()),
            };
        }
        "echo" => _ = socket.send(message),
        other => panic!("{other}"),
    }
    Ok(())
}

/// A client; its inflater lives as long as its connection.
struct Peer {
    number: usize,
    socket: Socket,
    policy: SlowConsumer,
    /// Nothing is read for the time being.
    stalls: bool,
    is_over: bool,
    seen: BTreeSet<u64>,
    /// The last number of each sender; where nothing is ever put before another.
    last: BTreeMap<usize, u64>,
}

struct Run {
    rig: Rig,
    rng: Rng,
    is_secure: bool,
    peers: Vec<Peer>,
    peers_ever: usize,
    /// By number of a message: who has said it, and whether it is a secret.
    said: Vec<(usize, bool)>,
    table: Table,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut rng = Rng::new(seed + 1);
        let cores = 1 + (seed % 3) as usize;
        let is_secure = seed % 4 == 3;
        let ring = RingOptions { slots: 200, ..RingOptions::default() };
        let mail_depth = if seed % 5 == 4 { 2 } else { 64 };
        let outbox_bytes_max = OUTBOX_BYTES_MAX;
        let mut setup = Setup { cores, ring, mail_depth, outbox_bytes_max, app: Rc::new(app), ..Setup::default() };
        setup.deflate.bytes_min = 30;
        setup.deflate.window_bits = rng.between(10, 12) as u8;
        setup.settings.direct_bytes_min = 64;
        if is_secure {
            setup.settings.acceptors = vec![Some(secure::acceptor())];
        }
        let faults = Faults::harsh().with(Fault::ClockJump, 0.0).with(Fault::AcceptError, 0.0);
        let rig = Rig::faulty(&setup, seed, faults);
        let mut run =
            Run { rig, rng, is_secure, peers: Vec::new(), peers_ever: 0, said: Vec::new(), table: Table::default() };
        run.peers = (0..4 + 3 * cores).map(|_| run.connect()).collect();
        run
    }

    fn connect(&mut self) -> Peer {
        // Most have a context: in a stream of one's own nobody else's messages hide that one was lost.
        let mode = self.rng.pick(&[0, 0, 0, 0, 1, 2, 2, 2, 2, 3]);
        let policy = self.rng.pick(&[POLICIES[0], POLICIES[0], POLICIES[1], POLICIES[1], POLICIES[2], POLICIES[3]]);
        let offer = if self.rng.chance(0.7) { OFFERS[0] } else { self.rng.pick(&OFFERS) };
        let offer = Some(offer).filter(|_| self.rng.chance(0.95));
        let secure = self.is_secure.then_some(secure::layer as fn(_) -> _);
        self.rig.transport = Transport { secure, offer };
        let core = self.rng.between(0, self.rig.cores.all.len() - 1);
        let mut socket = self.rig.open_early(core, &format!("/{mode}/{policy}"));
        if self.rng.chance(0.8) {
            socket.text("join a -\n");
        }
        self.peers_ever += 1;
        Peer {
            number: self.peers_ever,
            socket,
            policy,
            stalls: false,
            is_over: false,
            seen: BTreeSet::new(),
            last: BTreeMap::new(),
        }
    }

    /// Has a client say something.
    fn say(&mut self, n: usize, verb: &str, room: &str) {
        let is_marked = self.rng.chance(0.1);
        let key = self.rng.pick(&["-", "x", "y"]);
        let number = self.said.len() as u64;
        self.said.push((self.peers[n].number, is_marked && verb != "echo"));
        let words = text(number, is_marked && verb != "echo");
        self.peers[n].socket.text(&format!("{verb} {room} {key}\n{words}"));
    }

    /// Reads what has come to a client.
    fn read(&mut self, n: usize) -> Result<(), String> {
        let peer = &mut self.peers[n];
        while !peer.is_over
            && let Some(event) = peer.socket.next_event()?
        {
            match event {
                Event::Close(Some(1013)) if peer.policy == SlowConsumer::Close => {
                    self.table.add("closed because it was slow", 1);
                    peer.is_over = true;
                }
                Event::Message(message) => {
                    let is_compressed = peer.socket.was_compressed();
                    let said = String::from_utf8_lossy(&message.payload).into_owned();
                    // An echo has its order in front.
                    let said = said.split_once('\n').map_or(&*said, |(_, said)| said);
                    let number: u64 = said.split(' ').next().and_then(|word| word.parse().ok()).ok_or("no number")?;
                    let (by, is_secret) = *self.said.get(number as usize).ok_or("a number that nobody has said")?;
                    if said != text(number, is_secret) {
                        return Err(format!("other text as number {number}: {said}"));
                    }
                    if is_secret && is_compressed {
                        return Err(format!("the secret {number} was compressed"));
                    }
                    if !peer.seen.insert(number) {
                        return Err(format!("number {number} came twice"));
                    }
                    let before = peer.last.insert(by, number);
                    if peer.policy != SlowConsumer::KeepLatest && before.is_some_and(|before| before > number) {
                        return Err(format!("number {number} of {by} came behind {before:?}"));
                    }
                    self.table.add(if is_compressed { "compressed" } else { "as it is" }, 1);
                    self.table.add("secret", u64::from(is_secret));
                    self.table.add("large and compressed", u64::from(is_compressed && said.len() > 4_096));
                }
                other => return Err(format!("{other:?}")),
            }
        }
        let client = &peer.socket.client;
        peer.is_over |= client.saw_fin() || client.saw_reset() || client.was_broken();
        Ok(())
    }

    fn act(&mut self, n: usize) {
        let room = self.rng.pick(&[ROOMS[0], ROOMS[0], ROOMS[1], ROOMS[2]]);
        match self.rng.below(300) {
            // In one piece, so that a tick has several for a connection.
            0..10 => (0..self.rng.pick(&[1, 2, 6])).for_each(|_| self.say(n, "room", room)),
            10..13 => self.say(n, "all", "-"),
            13..20 => self.say(n, "route", "-"),
            20..22 => self.say(n, "self", "-"),
            22 => self.say(n, "echo", "-"),
            23..27 => self.peers[n].socket.text(&format!("join {room} -\n")),
            27..30 => self.peers[n].socket.text(&format!("leave {room} -\n")),
            // From one room to another.
            30..32 => {
                let other = self.rng.pick(&ROOMS);
                self.peers[n].socket.text(&format!("join {other} -\n"));
                self.peers[n].socket.text(&format!("leave {room} -\n"));
            }
            32..35 => {
                let window = self.rng.pick(&[0, 0, 100, 1_000]);
                self.peers[n].stalls = true;
                self.peers[n].socket.client.set_window(window);
                self.table.add("stalls", 1);
            }
            35 => {
                self.peers[n].socket.client.reset();
                self.peers[n].is_over = true;
            }
            _ => {}
        }
    }

    fn step(&mut self) -> Result<(), String> {
        for n in 0..self.peers.len() {
            if self.peers[n].stalls && self.rng.chance(0.012) {
                self.peers[n].stalls = false;
                self.peers[n].socket.client.set_window(1 << 16);
            }
            if !self.peers[n].stalls {
                self.read(n).map_err(|why| format!("{}: {why}", self.peers[n].number))?;
            }
            if self.peers[n].is_over {
                self.peers[n].socket.client.reset();
                self.peers[n] = self.connect();
                self.table.add("came back", 1);
            }
            self.act(n);
        }
        self.tick();
        Ok(())
    }

    fn tick(&mut self) {
        for core in 0..self.rig.cores.all.len() {
            if self.rng.chance(0.6) && self.rig.cores.all[core].is_runnable() {
                self.rig.cores.all[core].tick();
            }
        }
        self.rig.world.advance(self.rng.below(100_000));
    }

    fn run(mut self) -> Result<Table, String> {
        for _ in 0..ROUNDS {
            self.step()?;
        }
        // Who is there at the end hears everybody who is.
        self.rig.world.set_faults(Faults::none());
        for _ in 0..3 {
            for n in 0..self.peers.len() {
                self.peers[n].socket.client.set_window(1 << 20);
                self.read(n)?;
            }
            self.rig.pass_ms(200);
        }
        let mut last = Vec::new();
        for n in (0..self.peers.len()).filter(|n| !self.peers[*n].is_over).collect::<Vec<_>>() {
            last.push(self.said.len() as u64);
            self.say(n, "all", "-");
            for _ in 0..2 {
                self.rig.pass_ms(50);
                (0..self.peers.len()).try_for_each(|n| self.read(n))?;
            }
        }
        for peer in self.peers.iter().filter(|peer| !peer.is_over) {
            if let Some(missing) = last.iter().find(|number| !peer.seen.contains(number)) {
                return Err(format!("{} misses number {missing} at the end", peer.number));
            }
        }
        for core in &mut self.rig.cores.all {
            let counters = core.shard.hub().metrics().counters;
            self.table.add("inflated", counters.inflated.messages);
            self.table.add("deflated", counters.deflated.messages);
            self.table.add("begun anew", counters.stream_resets);
            for reason in [DropReason::DropOld, DropReason::DropNew, DropReason::Replaced] {
                self.table.add(format!("dropped, {reason:?}"), counters.drops.of(reason));
            }
        }
        self.rig.finish();
        Ok(self.table)
    }
}

/// Kills: a drop that leaves its connection in step, a message with a context behind a backlog, a joiner that is not waited
/// for, a window that outlives a reset, a secret that gets into a window.
#[test]
fn each_receiver_reads_what_it_is_sent() {
    let seeds = crate::seeds(6);
    let (next, all) = (AtomicUsize::new(0), Mutex::new(Table::default()));
    let work = || {
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            let table = Run::new(*seed).run().unwrap_or_else(|why| panic!("RINGWIRE_SIM_SEED={seed}: {why}"));
            all.lock().expect("no panic").add_all(&table);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let all = all.into_inner().expect("no panic");
    println!("{all}");
    if seeds.len() < 6 {
        return;
    }
    for what in [
        "as it is",
        "came back",
        "closed because it was slow",
        "compressed",
        "deflated",
        "dropped, DropNew",
        "dropped, DropOld",
        "dropped, Replaced",
        "inflated",
        "large and compressed",
        "begun anew",
        "secret",
        "stalls",
    ] {
        assert!(all.of(what) > 0, "never: {what}\n{all}");
    }
}
