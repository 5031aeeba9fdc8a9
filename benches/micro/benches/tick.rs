//! Instructions that whole ticks of a core take, per message, without noise: the real shard and the program's app on the
//! simulated ring, counted by valgrind. What the ring's stand-in does itself is left out.
//!
//!     cargo bench -p micro --bench tick              each row beside what it took before; exits 1 where one takes more
//!     cargo bench -p micro --bench tick -- --write   keeps what they take now, in instructions.txt
//!     cargo bench -p micro --bench tick -- NAME…     rows whose names have this in them
//!
//! Needs valgrind. Times are another matter: a cache that is missed is one instruction, and a long copy by `rep movsb` is one for
//! each byte.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use ringwire::config::{Config, Deflate};
use ringwire::engine::sim::{self, Client, Faults, RingOptions, World};
use ringwire::engine::{BatchSend, Completion, Filled, Nanos, Peer, Ring, RingStats, Token, Wait};
use ringwire::hub::IdKey;
use ringwire::mail::{PostOffice, Wake};
use ringwire::shard::Shard;
use ringwire::shard::service::Service;
use ringwire::{app, remote, server, standalone};
use socket2::SockAddr;

/// What each row took when that was last agreed to.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");
/// By how many per cent a row may take more. Counts are exact, but what the optimiser inlines depends on code elsewhere, too.
const GROWTH_MAX_PERCENT: f64 = 10.0;

/// What happens within a row.
#[derive(Clone, Copy)]
enum Load {
    /// Each client sends so many messages at a time, and each is answered.
    Echo { in_flight: usize },
    /// The first client sends one, which all get.
    FanOut,
    /// Each client connects, upgrades, has one message echoed, and closes.
    Session,
    /// Each client posts a message to a socket.
    Post,
}

struct Row {
    name: &'static str,
    path: &'static str,
    clients: usize,
    len: usize,
    load: Load,
    deflate: Deflate,
}

impl Row {
    const fn plain(name: &'static str, path: &'static str, clients: usize, len: usize, load: Load) -> Row {
        Row { name, path, clients, len, load, deflate: Deflate::Off }
    }

    const fn compressed(self, deflate: Deflate) -> Row {
        Row { deflate, ..self }
    }
}

const ECHO: Load = Load::Echo { in_flight: 1 };
const ROWS: &[Row] = &[
    Row::plain("echo 64 x 64 B", "/echo", 64, 64, ECHO),
    Row::plain("echo 64 x 64 B, 16 in flight", "/echo", 64, 64, Load::Echo { in_flight: 16 }),
    Row::plain("echo 64 x 16 KiB", "/echo", 64, 16 << 10, ECHO),
    Row::plain("fan-out 10,000 x 64 B", "/broadcast", 10_000, 64, Load::FanOut),
    Row::plain("fan-out 10,000 x 4 KiB", "/broadcast", 10_000, 4 << 10, Load::FanOut),
    Row::plain("session", "/echo", 64, 64, Load::Session),
    Row::plain("POST to one socket", "/ws", 64, 64, Load::Post),
    Row::plain("echo 64 x 1 KiB, stateless", "/echo", 64, 1 << 10, ECHO).compressed(Deflate::Stateless),
    Row::plain("fan-out 10,000 x 1 KiB, shared", "/broadcast", 10_000, 1 << 10, Load::FanOut)
        .compressed(Deflate::Shared),
];

/// Whether what happens now is what is to be counted.
static IS_COUNTING: AtomicBool = AtomicBool::new(false);

fn is_counting() -> bool {
    IS_COUNTING.load(Ordering::Relaxed)
}

/// The simulated ring, of which nothing is counted.
struct Uncounted(sim::Ring);

fn left_out<R>(what: impl FnOnce() -> R) -> R {
    if is_counting() { uncounted(what) } else { what() }
}

/// valgrind stops counting when it enters this, and goes on when it leaves it.
#[inline(never)]
fn uncounted<R>(what: impl FnOnce() -> R) -> R {
    std::hint::black_box(what())
}

impl Ring for Uncounted {
    fn now(&self) -> Nanos {
        left_out(|| self.0.now())
    }

    fn unix_ns(&self) -> u64 {
        left_out(|| self.0.unix_ns())
    }

    fn stats(&self) -> RingStats {
        left_out(|| self.0.stats())
    }

    fn slots(&self) -> u32 {
        left_out(|| self.0.slots())
    }

    fn accept(&mut self, listener: u32, token: Token) {
        left_out(|| self.0.accept(listener, token));
    }

    fn turn_away(&mut self) {
        left_out(|| self.0.turn_away());
    }

    fn stop_accepting(&mut self, listener: u32) {
        left_out(|| self.0.stop_accepting(listener));
    }

    fn peer(&self, slot: u32) -> Peer {
        left_out(|| self.0.peer(slot))
    }

    fn connect(&mut self, token: Token, socket: OwnedFd, address: SockAddr) -> io::Result<()> {
        left_out(|| self.0.connect(token, socket, address))
    }

    fn recv_at_most(&mut self, token: Token, bytes_max: u32) {
        left_out(|| self.0.recv_at_most(token, bytes_max));
    }

    fn bounds_receives(&self) -> bool {
        left_out(|| self.0.bounds_receives())
    }

    fn recv_into(&mut self, token: Token, buffer: Vec<u8>, len_max: usize) {
        left_out(|| self.0.recv_into(token, buffer, len_max));
    }

    fn recv_into_now(&mut self, token: Token, buffer: Vec<u8>, len_max: usize) {
        left_out(|| self.0.recv_into_now(token, buffer, len_max));
    }

    fn take_received(&mut self, token: Token) -> Vec<u8> {
        left_out(|| self.0.take_received(token))
    }

    fn send(&mut self, token: Token, data: Bytes) {
        left_out(|| self.0.send(token, data));
    }

    fn cancel_recv(&mut self, token: Token) {
        left_out(|| self.0.cancel_recv(token));
    }

    fn cancel(&mut self, token: Token) {
        left_out(|| self.0.cancel(token));
    }

    fn close(&mut self, token: Token) {
        left_out(|| self.0.close(token));
    }

    fn release_memory(&mut self) {
        left_out(|| self.0.release_memory());
    }

    fn ring_doorbell(&mut self, core: usize) {
        left_out(|| self.0.ring_doorbell(core));
    }

    fn turn<'a>(&mut self, batch: impl Iterator<Item = BatchSend<'a>>, wait: Wait) -> io::Result<()> {
        left_out(|| self.0.turn(Batch(batch), wait))
    }

    fn completion(&mut self) -> Option<Completion> {
        left_out(|| self.0.completion())
    }

    fn failed_send(&mut self, others: &mut Vec<Completion>) -> Option<Completion> {
        left_out(|| self.0.failed_send(others))
    }

    fn buffer(&mut self, filled: &Filled) -> &mut [u8] {
        left_out(|| self.0.buffer(filled))
    }

    fn recycle(&mut self, filled: Filled) {
        left_out(|| self.0.recycle(filled));
    }
}

/// What a core sends, which it puts together while the ring takes it.
struct Batch<B>(B);

impl<'a, B: Iterator<Item = BatchSend<'a>>> Iterator for Batch<B> {
    type Item = BatchSend<'a>;

    fn next(&mut self) -> Option<BatchSend<'a>> {
        if is_counting() { counted_next(&mut self.0) } else { self.0.next() }
    }
}

/// valgrind counts within this and the next ones.
#[inline(never)]
fn counted_next<I: Iterator>(batch: &mut I) -> Option<I::Item> {
    batch.next()
}

#[inline(never)]
fn counted_turn<S: Service>(shard: &mut Shard<Uncounted, S>) {
    shard.turn().expect("a simulated ring works");
}

#[inline(never)]
fn counted_work<S: Service>(shard: &mut Shard<Uncounted, S>) {
    shard.work();
}

/// There is one core, and what it does it does by itself.
struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

/// One core, and its clients.
struct Bench<S: Service> {
    world: World,
    shard: Shard<Uncounted, S>,
    is_asleep: bool,
}

fn bench(row: &Row) -> Bench<impl Service> {
    let config = Config::default().deflate(row.deflate);
    let world = World::new(1, Faults::none());
    let options = RingOptions {
        slots: 2 * row.clients as u32 + 64,
        // What the program has unless it is told otherwise, on Linux 6.12 and later.
        buffers: 128,
        buffer_bytes: 64 << 10,
        incremental: true,
        sq_entries: 1024,
        cq_entries: 8192,
        ..RingOptions::default()
    };
    let mut office = PostOffice::new(1, 1024);
    let admission = Arc::new(server::admission(&config, 1));
    let handle = remote::hub(office.courier(vec![Arc::new(Nobody)]), Arc::clone(&admission));
    let (post, mailbox) = office.take(0);
    let mut hub = server::core_hub(&config, IdKey::default(), post);
    let service = app::service(standalone::app(&config), &mut hub, handle);
    let ring = Uncounted(world.ring(0, options.clone()));
    let settings = server::settings(&config, 1, options.buffer_bytes, true);
    Bench { shard: Shard::new(ring, service, hub, mailbox, admission, settings), world, is_asleep: false }
}

impl<S: Service> Bench<S> {
    /// Until the core sleeps.
    fn settle(&mut self) {
        while self.world.runnable(0) {
            if std::mem::take(&mut self.is_asleep) {
                self.work();
            }
            if is_counting() {
                counted_turn(&mut self.shard);
            } else {
                self.shard.turn().expect("a simulated ring works");
            }
            match self.world.parked_until(0) {
                Some(_) => self.is_asleep = true,
                None => self.work(),
            }
        }
    }

    fn work(&mut self) {
        if is_counting() {
            counted_work(&mut self.shard);
        } else {
            self.shard.work();
        }
    }

    fn connect(&self) -> Client {
        // Programs of this machine may use the API.
        let client = self.world.connect_from(0, 0, Peer::Unix);
        client.set_window(1 << 20);
        client
    }

    fn upgrade(&self, row: &Row) -> Client {
        let client = self.connect();
        let offer = match row.deflate {
            Deflate::Off => "",
            _ => "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
        };
        let head = format!(
            "GET {} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{offer}\r\n",
            row.path,
        );
        client.send(head.as_bytes());
        client
    }

    /// So many clients that have upgraded, and what they were told then.
    fn open(&mut self, row: &Row) -> (Vec<Client>, Vec<Vec<u8>>) {
        let clients: Vec<Client> = (0..row.clients).map(|_| self.upgrade(row)).collect();
        self.settle();
        let told: Vec<Vec<u8>> = clients.iter().map(Client::received).collect();
        assert!(told.iter().all(|told| told.starts_with(b"HTTP/1.1 101 ")));
        (clients, told)
    }

    /// Plays a row so often.
    fn play(&mut self, row: &Row, rounds: usize) {
        let message = frame(0x81, &json(row.len));
        if let Load::Session = row.load {
            return (0..rounds).for_each(|_| self.sessions(row, &message));
        }
        let (clients, told) = self.open(row);
        let posters: Vec<Client> = clients.iter().map(|_| self.connect()).collect();
        // The first ones teach it how much memory it needs.
        for round in 0..2 * rounds {
            IS_COUNTING.store(round >= rounds, Ordering::Relaxed);
            match row.load {
                Load::Echo { in_flight } => self.exchange(&clients, &message.repeat(in_flight), in_flight),
                Load::FanOut => {
                    clients[0].send(&message);
                    self.settle();
                    assert!(clients.iter().all(|client| frames(&client.received()) == 1));
                }
                Load::Post => self.post(&posters, &clients, &told, row.len),
                Load::Session => unreachable!("they have been played"),
            }
        }
    }

    /// Every client sends this, and is sent so many messages.
    fn exchange(&mut self, clients: &[Client], bytes: &[u8], messages: usize) {
        clients.iter().for_each(|client| client.send(bytes));
        self.settle();
        assert!(clients.iter().all(|client| frames(&client.received()) == messages));
    }

    fn sessions(&mut self, row: &Row, message: &[u8]) {
        IS_COUNTING.store(true, Ordering::Relaxed);
        let (clients, _) = self.open(row);
        self.exchange(&clients, message, 1);
        self.exchange(&clients, &frame(0x88, &1000_u16.to_be_bytes()), 1);
        clients.iter().for_each(Client::close);
        self.settle();
    }

    /// A message to each socket, each by a request of a connection of its own.
    fn post(&mut self, posters: &[Client], sockets: &[Client], told: &[Vec<u8>], len: usize) {
        let body = json(len);
        for (poster, told) in posters.iter().zip(told) {
            let told = String::from_utf8_lossy(told);
            let (_, id) = told.split_once(r#""id":""#).expect("it was told its id");
            let id = &id[..id.find('"').expect("the end of it")];
            let head =
                format!("POST /api/message/{id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
            poster.send(&[head.as_bytes(), &body].concat());
        }
        self.settle();
        assert!(posters.iter().all(|poster| poster.received().starts_with(b"HTTP/1.1 200 ")));
        assert!(sockets.iter().all(|socket| frames(&socket.received()) == 1));
    }
}

/// JSON of so many bytes that looks like messages do.
fn json(len: usize) -> Vec<u8> {
    let mut text = String::from("\"");
    for number in 0.. {
        if text.len() >= len {
            break;
        }
        let _ = write!(text, "id:{},name:sensor {},value:{}.5,", number * 7919, number % 17, number * 31);
    }
    text.truncate(len - 1);
    text.push('"');
    text.into_bytes()
}

/// A client's frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => unreachable!("no row has longer ones"),
    }
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// How many frames of a server these are.
fn frames(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while !bytes.is_empty() {
        let (header, len) = match bytes[1] {
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            len => (2, usize::from(len)),
        };
        bytes = &bytes[header + len..];
        count += 1;
    }
    count
}

/// What one of a row is: messages that arrive, or sessions.
fn count(row: &Row) -> usize {
    match row.load {
        Load::Echo { in_flight } => in_flight * row.clients,
        _ => row.clients,
    }
}

/// How often a row is played. What is of many clients needs no more.
fn rounds(row: &Row) -> usize {
    if row.clients > 1_000 { 3 } else { 20 }
}

/// What a row takes, in instructions.
fn instructions(row: &Row) -> Result<f64, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .args(["--toggle-collect=*tick::counted_*", "--toggle-collect=*tick::uncounted*"])
        .arg(this)
        .args(["--row", row.name])
        .output()
        .map_err(|error| format!("valgrind: {error}; it has to be installed"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.parse::<f64>().ok());
    match collected {
        Some(collected) if output.status.success() => Ok(collected / (rounds(row) * count(row)) as f64),
        _ => Err(format!("{}: {said}", row.name)),
    }
}

fn kept() -> BTreeMap<String, f64> {
    let text = std::fs::read_to_string(KEPT).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.rsplit_once(": "));
    lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [first, name] = &arguments[..]
        && first == "--row"
    {
        let row = ROWS.iter().find(|row| row.name == name).expect("a row");
        bench(row).play(row, rounds(row));
        return ExitCode::SUCCESS;
    }
    let writes = arguments.iter().any(|argument| argument == "--write");
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let mut kept = kept();
    let mut has_grown = false;
    println!("{:<34} {:>12} {:>12} {:>9}", "instructions of one", "now", "before", "change");
    for row in ROWS.iter().filter(|row| wanted.is_empty() || wanted.iter().any(|part| row.name.contains(*part))) {
        let now = match instructions(row) {
            Ok(now) => now,
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        };
        let before = kept.insert(row.name.to_owned(), now);
        let change = before.map(|before| (now / before - 1.0) * 100.0);
        let is_worse = change.is_none_or(|change| change > GROWTH_MAX_PERCENT);
        has_grown |= is_worse;
        let shown = |value: Option<f64>, unit: &str| value.map_or("-".to_owned(), |value| format!("{value:.1}{unit}"));
        let verdict = if is_worse && !writes { "  MORE" } else { "" };
        println!("{:<34} {now:>12.1} {:>12} {:>9}{verdict}", row.name, shown(before, ""), shown(change, " %"));
    }
    if writes {
        let text: String = kept.iter().map(|(name, value)| format!("{name}: {value:.1}\n")).collect();
        std::fs::write(KEPT, text).expect("it can be written");
        return ExitCode::SUCCESS;
    }
    if has_grown {
        eprintln!("A row takes over {GROWTH_MAX_PERCENT} % more than before, or is new. Where that is meant: --write");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
