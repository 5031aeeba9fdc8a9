//! Connections are spread over the cores, however they come, and new ones go to the cores that have few.

use std::thread;
use std::time::{Duration, Instant};

use ringwire::config::CoreSet;
use ringwire::remote::AskAll as _;
use ringwire::{App, ConnectionId, Handle, Server, ws};

use crate::common::{Client, client, config, text};

/// Tells each client its id; who says something has its core do nothing else for so many milliseconds.
fn app() -> App {
    App::new().ws(
        "/",
        ws().on_connect(|socket| socket.id().to_string()).on_text(|_, milliseconds| {
            thread::sleep(Duration::from_millis(milliseconds.parse().expect("a number")));
        }),
    )
}

fn start(cores: usize) -> (Handle, std::net::SocketAddr) {
    let handle = Server::new(config().cores(CoreSet::Count(cores))).start(app).expect("it starts");
    let address = handle.addresses()[0].inet().expect("TCP");
    (handle, address)
}

fn open(address: std::net::SocketAddr) -> (Client, usize) {
    let mut client = client(address, "/");
    let id: ConnectionId = text(&mut client).parse().expect("an id");
    (client, id.core())
}

fn stop(handle: Handle) {
    handle.shutdown();
    handle.join().expect("it ends well");
}

fn counts(cores: usize, of: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let mut counts = vec![0; cores];
    of.into_iter().for_each(|core| counts[core] += 1);
    counts
}

/// How many of 64 connections each core gets, of which so many come at once.
fn spread(cores: usize, at_once: usize) -> Vec<usize> {
    let (handle, address) = start(cores);
    let some = move || (0..64 / at_once).map(|_| open(address)).collect::<Vec<_>>();
    let threads: Vec<_> = (0..at_once).map(|_| thread::spawn(some)).collect();
    let clients: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().expect("clients")).collect();
    stop(handle);
    counts(cores, clients.iter().map(|(_, core)| *core))
}

/// Kills: accepts that wait by the dozen on an idle core, of which the kernel wakes all before another's.
#[test]
fn few_connections_are_spread_evenly() {
    for (cores, at_once) in [(2, 1), (2, 8), (4, 1), (4, 16)] {
        // On a machine that has better things to do a core may be late: who waits for it is taken by others.
        let is_even = |counts: &[usize]| counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 5;
        let mut tries = Vec::new();
        while tries.last().is_none_or(|counts: &Vec<usize>| !is_even(counts)) {
            assert!(tries.len() < 40, "{at_once} at once: {tries:?}");
            tries.push(spread(cores, at_once));
        }
    }
}

/// Kills: connections that go to the cores in turn, whatever those have.
#[test]
fn new_connections_go_to_the_core_that_has_few() {
    let (handle, address) = start(2);
    let mut clients: Vec<_> = (0..300).map(|_| open(address)).collect();
    clients.retain(|(_, core)| *core != 0);
    let ended = || handle.hub().ask_all(|hub| hub.counters.opened - hub.counters.closed).expect("the cores answer")[0];
    crate::common::eventually(|| ended() == 0, || "an empty core".into());
    let counts =
        counts(2, (0..100).map(|_| open(address)).map(|(client, core)| (clients.push((client, core)), core).1));
    assert!(counts[0] > 75, "{counts:?}");
    stop(handle);
}

/// Kills: a core that leaves new connections to one that has few because it is busy, for as long as it is.
#[test]
fn a_busy_core_keeps_few_waiting() {
    let (handle, address) = start(2);
    let (mut first, busy) = open(address);
    let blocked = Duration::from_secs(2);
    first.send(tungstenite::Message::text(blocked.as_millis().to_string())).expect("sent");
    thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    // What the busy core has been woken for waits for it, and only that.
    let threads: Vec<_> = (0..60).map(|_| thread::spawn(move || (open(address), start.elapsed()))).collect();
    let opened: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("a client")).collect();
    let late = opened.iter().filter(|(_, elapsed)| *elapsed > blocked / 2).count();
    assert!(late <= 8, "{late} of 60 had to wait for core {busy}");
    stop(handle);
}
