//! Machines joined by NATS: real processes, and a real nats-server that each test starts for itself. Without one installed they
//! are skipped, and say so.

#![cfg(all(feature = "cli", feature = "nats"))]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::program::{Program, command};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tungstenite::Message;

/// Several processes on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

fn nats_server() -> Option<PathBuf> {
    let places = std::env::var_os("PATH").unwrap_or_default();
    let more = [PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")];
    let found = std::env::split_paths(&places).chain(more).map(|place| place.join("nats-server"));
    let found = found.into_iter().find(|path| path.is_file());
    if found.is_none() {
        eprintln!("nats-server is not installed: machines are not joined, and this is not tested");
    }
    found
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

struct Nats {
    child: Child,
    port: u16,
}

impl Nats {
    fn start() -> Option<Nats> {
        let program = nats_server()?;
        // The port was free a moment before: another one is tried if it has been taken meanwhile.
        (0..5).find_map(|_| Nats::on(&program, free_port(), &[])).or_else(|| panic!("nats-server does not start"))
    }

    fn on(program: &PathBuf, port: u16, arguments: &[&str]) -> Option<Nats> {
        let child = Command::new(program)
            .args(["-a", "127.0.0.1", "-p", &port.to_string()])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut nats = Nats { child, port };
        let start = Instant::now();
        while start.elapsed() < PATIENCE && nats.child.try_wait().expect("it can be asked").is_none() {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(nats);
            }
            thread::sleep(Duration::from_millis(10));
        }
        None
    }

    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it runs");
    }

    /// Ends it and starts another in its place.
    fn restart(&mut self, pause: Duration) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        thread::sleep(pause);
        let program = nats_server().expect("it was there");
        let start = Instant::now();
        let again = loop {
            if let Some(again) = Nats::on(&program, self.port, &[]) {
                break again;
            }
            assert!(start.elapsed() < PATIENCE, "nats-server does not start again");
        };
        *self = again;
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that speaks NATS, in the few words that it takes.
struct Outsider {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Outsider {
    fn connect(nats: &Nats) -> Outsider {
        let stream = TcpStream::connect(("127.0.0.1", nats.port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let lines = BufReader::new(stream.try_clone().expect("a clone"));
        let mut outsider = Outsider { stream, lines };
        outsider.say("CONNECT {\"verbose\":false}\r\nPING\r\n");
        while outsider.line() != "PONG" {}
        outsider
    }

    fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).expect("it listens");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    fn publish(&mut self, subject: &str, payload: &[u8]) {
        self.say(&format!("PUB {subject} {}\r\n", payload.len()));
        self.stream.write_all(payload).and_then(|()| self.stream.write_all(b"\r\n")).expect("it listens");
    }

    fn ask(&mut self, subject: &str, payload: &str) -> String {
        self.say("SUB _INBOX.test 1\r\nUNSUB 1 1\r\n");
        self.say(&format!("PUB {subject} _INBOX.test {}\r\n{payload}\r\n", payload.len()));
        loop {
            let line = self.line();
            if line.starts_with("MSG ") {
                return self.line();
            }
        }
    }
}

struct Machine {
    program: Program,
    name: String,
}

impl Machine {
    fn start(nats: &str, name: &str) -> Machine {
        Machine::with(nats, name, &[])
    }

    fn with(nats: &str, name: &str, more: &[&str]) -> Machine {
        let (url, node) = (format!("--nats-url={nats}"), format!("--node={name}"));
        let arguments = [
            &["--addr=127.0.0.1:0", "--cores=2", "--log=error", "--recv-buffers=64", "--max-connections=4000"][..],
            &[&url, &node, "--api-token=dG9rZW4="],
            &["--node-timeout=2s", "--drain-spread=0"],
            more,
        ]
        .concat();
        let program = Program::run(command("", &arguments));
        assert!(program.first_line.trim_end().ends_with(&format!(", node {name}")), "{}", program.first_line);
        Machine { program, name: name.to_owned() }
    }

    fn address(&self) -> SocketAddr {
        self.program.address
    }

    fn open(&self, path: &str) -> Socket {
        Socket { client: common::client(self.address(), path), id: String::new() }
    }

    /// An event socket, and its id.
    fn events(&self) -> Socket {
        let mut socket = self.open("/ws");
        socket.id = socket.expect("connected")["id"].as_str().expect("an id").to_owned();
        socket
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.address()).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}", body.len());
        stream
            .write_all(format!("{head}\r\nAuthorization: Bearer dG9rZW4=\r\n\r\n{body}").as_bytes())
            .expect("it listens");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("text");
        let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {response}"));
        let body = serde_json::from_str(body).unwrap_or_else(|_| json!(body));
        (head[9..12].parse().expect("a status"), body)
    }

    /// The rooms of event sockets, over all machines, as this one knows them.
    fn rooms(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        let mut after = String::new();
        loop {
            let (status, page) = self.ask("GET", &format!("/api/rooms?limit=1000&after={after}"), "");
            assert_eq!(status, 200, "{page}");
            for room in page["rooms"].as_array().expect("rooms") {
                all.insert(
                    room["room"].as_str().expect("a name").to_owned(),
                    room["members"].as_u64().expect("members"),
                );
            }
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => return all,
            }
        }
    }

    fn members(&self, room: &str) -> u64 {
        self.rooms().remove(room).unwrap_or(0)
    }

    fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.ask("GET", "/metrics", "");
        let text = text.as_str().expect("text").to_owned();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
    }

    /// Waits until it knows of so many others.
    fn await_nodes(&self, count: usize) {
        let nodes = || self.metric("ringwire_nodes") as usize;
        eventually(|| nodes() == count, || format!("{} to know of {count} others, not {}", self.name, nodes()));
    }

    fn kill(&self) {
        self.program.signal(Signal::SIGKILL);
    }
}

struct Socket {
    client: common::Client,
    id: String,
}

impl Socket {
    fn say(&mut self, event: &str, data: &Value) {
        let text = json!({ "event": event, "data": data }).to_string();
        self.client.send(Message::text(text)).expect("it listens");
    }

    fn read(&mut self) -> (String, Value) {
        self.client.get_ref().set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let text = common::text(&mut self.client);
        let mut event: Value = serde_json::from_str(&text).expect("JSON");
        (event["event"].as_str().expect("an event").to_owned(), event["data"].take())
    }

    /// The data of the next event, which is this one.
    #[track_caller]
    fn expect(&mut self, event: &str) -> Value {
        let (got, data) = self.read();
        assert_eq!(got, event, "{data}");
        data
    }

    #[track_caller]
    fn join(&mut self, room: &str) -> u64 {
        self.say("join", &json!({ "room": room }));
        loop {
            let (event, data) = self.read();
            if event == "joined" && data["room"] == room {
                return data["members"].as_u64().expect("members");
            }
        }
    }

    /// Whatever has come up to what is said to oneself now.
    fn take(&mut self) -> Vec<(String, Value)> {
        self.say("ping", &json!("mark"));
        let mut taken = Vec::new();
        loop {
            match self.read() {
                (event, data) if event == "pong" && data == "mark" => return taken,
                other => taken.push(other),
            }
        }
    }

    /// Waits until this event has come, whatever comes before it.
    #[track_caller]
    fn until(&mut self, event: &str) -> Value {
        loop {
            let (got, data) = self.read();
            if got == event {
                return data;
            }
        }
    }
}

#[track_caller]
fn eventually(mut condition: impl FnMut() -> bool, what: impl Fn() -> String) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {}", what());
        thread::sleep(Duration::from_millis(10));
    }
}

/// So many machines that know each other.
fn machines(nats: &Nats, count: usize) -> Vec<Machine> {
    let all: Vec<Machine> = (0..count).map(|number| Machine::start(&nats.url(), &format!("m{number}"))).collect();
    all.iter().for_each(|machine| machine.await_nodes(count - 1));
    all
}

/// Kills: a room, a route or a broadcast that ends at the machine; what comes back to its sender; a count of one machine.
#[test]
fn rooms_broadcasts_and_counts_mean_all_machines() {
    let Some(nats) = Nats::start() else { return };
    let all = machines(&nats, 2);
    let mut sockets: Vec<Socket> = (0..6).map(|number| all[number % 2].events()).collect();
    for (number, socket) in sockets.iter_mut().enumerate() {
        socket.join("lobby");
        let known = number as u64 + 1;
        all.iter().for_each(|machine| {
            eventually(|| machine.members("lobby") == known, || format!("{known} members at {}", machine.name));
        });
    }
    // Each has heard of all that came after it, wherever they are.
    for number in 0..6 {
        let expected: BTreeSet<String> = sockets[number + 1..].iter().map(|socket| socket.id.clone()).collect();
        let heard = sockets[number].take();
        let heard: BTreeSet<String> = heard
            .into_iter()
            .map(|(event, data)| {
                assert_eq!(event, "user-joined");
                data["userId"].as_str().expect("an id").to_owned()
            })
            .collect();
        assert_eq!(heard, expected, "socket {number}");
    }
    for number in 0..6 {
        sockets[number].say("message", &json!({ "room": "lobby", "message": number }));
        for socket in &mut sockets {
            assert_eq!(socket.expect("message")["message"], number);
        }
        sockets[number].say("typing", &json!({ "room": "lobby" }));
        let id = sockets[number].id.clone();
        for (other, socket) in sockets.iter_mut().enumerate() {
            if other != number {
                assert_eq!(socket.expect("user-typing")["userId"], *id);
            }
        }
    }
    for machine in &all {
        let event = r#"{"event":"news","data":1}"#;
        assert_eq!(machine.ask("POST", "/api/broadcast", event), (200, json!({ "sent": true, "recipients": 3 })));
        assert_eq!(machine.ask("POST", "/api/rooms/lobby", event), (200, json!({ "sent": true, "recipients": 6 })));
        for socket in &mut sockets {
            assert_eq!((socket.expect("news"), socket.expect("news")), (json!(1), json!(1)));
        }
    }
    assert!(sockets.iter_mut().all(|socket| socket.take().is_empty()), "nothing came twice");
    // Raw rooms, binary, and a message that NATS takes in parts alone.
    let mut raw: Vec<Socket> = (0..2).map(|number| all[number].open("/rooms/bits")).collect();
    let metric = |machine: &Machine| machine.metric("ringwire_nodes_rooms") as u64;
    eventually(|| all.iter().all(|machine| metric(machine) >= 2), || "both know of the other's room".into());
    let large = common::pattern(3 << 20);
    raw[0].client.send(Message::binary(large.clone())).expect("it listens");
    for socket in &mut raw {
        assert_eq!(socket.client.read().expect("a message"), Message::binary(large.clone()));
    }
    let (_, listing) = all[0].ask("GET", "/api/ws/connections", "");
    assert_eq!((&listing["count"], listing["connections"].as_array().map(Vec::len)), (&json!(8), Some(8)));
    let pages: Vec<Value> = (0..8)
        .map(|offset| all[1].ask("GET", &format!("/api/ws/connections?limit=1&offset={offset}"), "").1)
        .map(|page| page["connections"][0]["id"].clone())
        .collect();
    assert_eq!(pages.iter().map(Value::to_string).collect::<BTreeSet<_>>().len(), 8, "{pages:?}");
    // Who leaves.
    let mut last = sockets.pop().expect("a socket");
    last.client.close(None).expect("it listens");
    drop(last);
    for socket in &mut sockets {
        socket.expect("user-left");
    }
    all.iter().for_each(|machine| eventually(|| machine.members("lobby") == 5, || "it has left".into()));
}

/// Kills: an id that only its own machine understands; one whose slot or key another machine has, too.
#[test]
fn an_id_is_reached_from_any_machine() {
    let Some(nats) = Nats::start() else { return };
    let all = machines(&nats, 2);
    let (mut here, mut there) = (all[0].events(), all[1].events());
    let asker = &all[0];
    let path = |what: &str, id: &str| format!("{what}/{id}");
    let (mine, theirs) = (here.id.clone(), there.id.clone());
    assert_ne!(mine, theirs);
    let sent = (200, json!({ "sent": true }));
    assert_eq!(asker.ask("POST", &path("/api/message", &theirs), "[1.50]"), sent);
    assert_eq!(there.expect("private-message"), json!([1.5]));
    assert_eq!(asker.ask("POST", &path("/api/message", &mine), "2"), sent);
    assert_eq!(here.expect("private-message"), json!(2));
    let data = format!("/api/ws/connections/{theirs}/data");
    assert_eq!(asker.ask("GET", &data, ""), (200, Value::Null));
    assert_eq!(asker.ask("PUT", &data, r#"{"n":1}"#), (200, json!({ "n": 1 })));
    assert_eq!(asker.ask("GET", &data, ""), (200, json!({ "n": 1 })));
    let batch = json!({ "messages": [{ "event": "many", "data": 3, "ids": [mine, theirs] }] }).to_string();
    let (status, published) = asker.ask("POST", "/api/publish", &batch);
    assert_eq!((status, &published["sent"]), (200, &json!(true)), "{published}");
    assert_eq!((here.expect("many"), there.expect("many")), (json!(3), json!(3)));
    // In the order in which they were sent.
    for number in 0..50 {
        assert_eq!(asker.ask("POST", &path("/api/message", &theirs), &number.to_string()), sent);
    }
    for number in 0..50 {
        assert_eq!(there.expect("private-message"), json!(number));
    }
    let connection = path("/api/ws/connections", &theirs);
    assert_eq!(asker.ask("DELETE", &connection, ""), (200, json!({ "disconnected": true })));
    assert_eq!(there.expect("disconnect"), json!({ "reason": "Admin action" }));
    assert_eq!(common::close_code(&mut there.client), Some(1008));
    drop(there);
    eventually(|| asker.ask("DELETE", &connection, "").0 == 404, || "it has gone".into());
    assert_eq!(asker.ask("POST", &path("/api/message", &theirs), "1").0, 404);
    assert_eq!(asker.ask("GET", &data, "").0, 404);
    // A room is closed on all machines.
    let mut members: Vec<Socket> = all.iter().map(Machine::events).collect();
    for socket in &mut members {
        socket.join("closing");
    }
    eventually(|| asker.members("closing") == 2, || "both are members".into());
    assert_eq!(asker.ask("DELETE", "/api/rooms/closing", ""), (200, json!({ "disconnected": 2 })));
    for socket in &mut members {
        socket.until("disconnect");
        assert_eq!(common::close_code(&mut socket.client), Some(1008));
    }
}

/// Kills: counts that stay with the dead; members that nobody, or everybody twice, is told of; a wrong yes.
#[test]
fn a_machine_that_is_killed_counts_no_more_and_its_members_are_told_of_once() {
    let Some(nats) = Nats::start() else { return };
    let mut all = machines(&nats, 3);
    let mut sockets: Vec<Socket> = (0..6).map(|number| all[number % 3].events()).collect();
    for socket in &mut sockets {
        socket.join("lobby");
    }
    all.iter().for_each(|machine| eventually(|| machine.members("lobby") == 6, || "all are in".into()));
    sockets.iter_mut().for_each(|socket| drop(socket.take()));
    let dead = all.remove(2);
    dead.kill();
    let began = Instant::now();
    // The others lose nothing of each other meanwhile.
    let mut number = 0;
    let (mut left, mut said): (Vec<Vec<String>>, Vec<Vec<u64>>) = (vec![Vec::new(); 6], vec![Vec::new(); 6]);
    while began.elapsed() < Duration::from_secs(4) {
        for sender in [0, 1] {
            sockets[sender].say("message", &json!({ "room": "lobby", "message": number }));
            number += 1;
            thread::sleep(Duration::from_millis(20));
        }
    }
    thread::sleep(Duration::from_millis(500));
    for index in [0, 1, 3, 4] {
        for (event, data) in sockets[index].take() {
            match event.as_str() {
                "user-left" => left[index].push(data["userId"].as_str().expect("an id").to_owned()),
                "message" => said[index].push(data["message"].as_u64().expect("a number")),
                other => panic!("{other}"),
            }
        }
        let mut expected = vec![sockets[2].id.clone(), sockets[5].id.clone()];
        expected.sort();
        left[index].sort();
        assert_eq!(left[index], expected, "socket {index} is told once of each");
        said[index].sort_unstable();
        assert_eq!(said[index], (0..number).collect::<Vec<_>>(), "socket {index}");
    }
    all.iter().for_each(|machine| assert_eq!(machine.members("lobby"), 4, "{}", machine.name));
    all.iter().for_each(|machine| machine.await_nodes(1));
    let (status, answer) = all[0].ask("POST", &format!("/api/message/{}", sockets[2].id), "1");
    assert_eq!((status, answer), (504, json!({ "error": "node unreachable" })));
    // It starts again: its former ids are gone for good.
    let again = Machine::start(&nats.url(), "m2");
    again.await_nodes(2);
    all.iter().for_each(|machine| machine.await_nodes(2));
    assert_eq!(all[0].ask("POST", &format!("/api/message/{}", sockets[2].id), "1").0, 404);
    let mut socket = again.events();
    socket.join("lobby");
    assert_eq!(sockets[0].expect("user-joined")["userId"], *socket.id);
}

/// Kills: a machine that goes on believing in others which are silent, or is believed in; counts that are wrong afterwards.
#[test]
fn a_machine_that_stands_still_is_lost_and_comes_back() {
    let Some(nats) = Nats::start() else { return };
    let all = machines(&nats, 2);
    let (mut here, mut there) = (all[0].events(), all[1].events());
    here.join("lobby");
    there.join("lobby");
    all.iter().for_each(|machine| eventually(|| machine.members("lobby") == 2, || "both are in".into()));
    here.take();
    all[1].program.signal(Signal::SIGSTOP);
    let (status, answer) = all[0].ask("POST", &format!("/api/message/{}", there.id), "1");
    assert_eq!((status, answer), (504, json!({ "error": "node unreachable" })), "while it is still believed in");
    assert_eq!(here.expect("user-left")["userId"], *there.id);
    assert_eq!(all[0].members("lobby"), 1);
    all[1].program.signal(Signal::SIGCONT);
    assert_eq!(here.expect("user-joined")["userId"], *there.id, "it is there again");
    all.iter().for_each(|machine| eventually(|| machine.members("lobby") == 2, || "both are in".into()));
    here.say("message", &json!({ "room": "lobby", "message": "again" }));
    assert_eq!(there.until("message")["message"], "again");
}

/// Kills: local delivery that waits for NATS; a readiness that does not tell; subscriptions or counts that need a restart.
#[test]
fn without_nats_a_machine_is_alone_and_afterwards_it_is_not() {
    let Some(mut nats) = Nats::start() else { return };
    let required = Machine::with(&nats.url(), "m0", &["--nats-required=true"]);
    let other = Machine::start(&nats.url(), "m1");
    let all = [&required, &other];
    all.iter().for_each(|machine| machine.await_nodes(1));
    let mut sockets: Vec<Socket> = [&required, &required, &other].iter().map(|machine| machine.events()).collect();
    for socket in &mut sockets {
        socket.join("lobby");
    }
    all.iter().for_each(|machine| eventually(|| machine.members("lobby") == 3, || "all are in".into()));
    sockets.iter_mut().for_each(|socket| drop(socket.take()));
    let alone = |nats: &mut Nats, how: &str, away: &mut dyn FnMut(&mut Nats), back: &mut dyn FnMut(&mut Nats)| {
        let mut sockets: Vec<&mut Socket> = sockets.iter_mut().collect();
        assert_eq!(required.ask("GET", "/readyz", "").0, 200, "{how}");
        away(nats);
        // At once, and as long as it lasts.
        let began = Instant::now();
        let mut number = 0;
        while required.ask("GET", "/readyz", "").0 == 200 || required.members("lobby") != 2 {
            assert!(began.elapsed() < PATIENCE, "{how}: it is not noticed");
            sockets[0].say("message", &json!({ "room": "lobby", "message": number }));
            let (first, second) = (sockets[0].until("message"), sockets[1].until("message"));
            assert_eq!((&first["message"], &second["message"]), (&json!(number), &json!(number)), "{how}");
            number += 1;
        }
        assert_eq!(required.ask("GET", "/readyz", ""), (503, json!({ "status": "NATS is away" })));
        assert_eq!(other.ask("GET", "/readyz", "").0, 200, "who does not require it is ready");
        back(nats);
        eventually(|| required.ask("GET", "/readyz", "").0 == 200, || format!("{how}: it is ready again"));
        all.iter().for_each(|machine| eventually(|| machine.members("lobby") == 3, || format!("{how}: all are in")));
        sockets[0].say("message", &json!({ "room": "lobby", "message": how }));
        for socket in &mut sockets {
            while socket.until("message")["message"] != how {}
        }
    };
    let mut alone = alone;
    alone(&mut nats, "restarted", &mut |nats| nats.signal(Signal::SIGKILL), &mut |nats| nats.restart(Duration::ZERO));
    alone(&mut nats, "stopped", &mut |nats| nats.signal(Signal::SIGSTOP), &mut |nats| nats.signal(Signal::SIGCONT));
    assert!(required.metric("ringwire_nats_reconnects_total") >= 1.0);
}

/// Passes bytes on until it is stopped.
struct Proxy {
    port: u16,
    is_stopped: Arc<AtomicBool>,
}

impl Proxy {
    fn before(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let own = listener.local_addr().expect("an address").port();
        let is_stopped = Arc::<AtomicBool>::default();
        let flag = Arc::clone(&is_stopped);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                for (mut from, mut to) in
                    [(client.try_clone().expect("a clone"), server.try_clone().expect("a clone")), (server, client)]
                {
                    let flag = Arc::clone(&flag);
                    thread::spawn(move || {
                        let mut buffer = [0; 4096];
                        while let Ok(len @ 1..) = from.read(&mut buffer) {
                            while flag.load(Ordering::SeqCst) {
                                thread::sleep(Duration::from_millis(5));
                            }
                            if to.write_all(&buffer[..len]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        Proxy { port: own, is_stopped }
    }
}

/// Kills: a machine that is cut off and still counted, or still counts the others.
#[test]
fn a_machine_that_is_cut_off_is_lost_to_the_others_and_they_to_it() {
    let Some(nats) = Nats::start() else { return };
    let proxy = Proxy::before(nats.port);
    let all = [
        Machine::start(&nats.url(), "m0"),
        Machine::start(&format!("nats://127.0.0.1:{}", proxy.port), "m1"),
        Machine::start(&nats.url(), "m2"),
    ];
    all.iter().for_each(|machine| machine.await_nodes(2));
    let mut sockets: Vec<Socket> = all.iter().map(Machine::events).collect();
    for socket in &mut sockets {
        socket.join("lobby");
    }
    all.iter().for_each(|machine| eventually(|| machine.members("lobby") == 3, || "all are in".into()));
    proxy.is_stopped.store(true, Ordering::SeqCst);
    for (machine, members) in all.iter().zip([2, 1, 2]) {
        eventually(|| machine.members("lobby") == members, || format!("{} at {}", members, machine.name));
    }
    proxy.is_stopped.store(false, Ordering::SeqCst);
    all.iter().for_each(|machine| eventually(|| machine.members("lobby") == 3, || "all are in again".into()));
    sockets[1].say("message", &json!({ "room": "lobby", "message": "back" }));
    for socket in &mut sockets {
        assert_eq!(socket.until("message")["message"], "back");
    }
}

/// Kills: a second machine of a name that starts.
#[test]
fn a_name_that_is_taken_is_refused_at_the_start() {
    let Some(nats) = Nats::start() else { return };
    let _first = Machine::start(&nats.url(), "same");
    let mut second = command("", &["--addr=127.0.0.1:0", "--cores=1", "--node=same", "--log=error"]);
    let output = second.arg(format!("--nats-url={}", nats.url())).output().expect("it starts");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{error}");
    assert!(error.contains("another machine is called same: RINGWIRE_NODE"), "{error}");
}

/// Kills: secrets in what is shown.
#[test]
fn who_shows_the_wrong_password_is_alone_and_the_right_one_is_never_shown() {
    let Some(program) = nats_server() else { return };
    let started = (0..5).find_map(|_| Nats::on(&program, free_port(), &["--user", "me", "--pass", "hush hush"]));
    let nats = started.expect("nats-server starts");
    let url = |password: &str| format!("nats://me:{password}@127.0.0.1:{}", nats.port);
    let right = [Machine::start(&url("hush%20hush"), "m0"), Machine::start(&url("hush%20hush"), "m1")];
    right.iter().for_each(|machine| machine.await_nodes(1));
    let wrong = Machine::with(&url("guess"), "m2", &["--nats-required=true"]);
    assert_eq!(wrong.ask("GET", "/readyz", "").0, 503);
    assert_eq!(wrong.metric("ringwire_nodes"), 0.0);
    let shown = command("", &["config", &format!("--nats-url={}", url("hush%20hush"))]).output().expect("it runs");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("RINGWIRE_NATS_URL='(set)'") && !shown.contains("hush"), "{shown}");
}

/// Kills: a `tls://` that speaks in the clear, or believes whatever certificate it is shown.
#[test]
fn nats_is_spoken_to_by_tls_where_that_is_asked_for() {
    let Some(program) = nats_server() else { return };
    let directory = std::env::temp_dir().join(format!("ringwire-nats-tls-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("UTF-8").to_owned()
    };
    let mut authority = CertificateParams::new(Vec::<String>::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".into()]).expect("parameters");
    let certificate = params.signed_by(&key, &authority).expect("a certificate");
    let (certificate, key) = (file("cert.pem", &certificate.pem()), file("key.pem", &key.serialize_pem()));
    let ca = file("ca.pem", &authority.pem());
    let arguments = ["--tls", "--tlscert", &certificate, "--tlskey", &key];
    let nats = (0..5).find_map(|_| Nats::on(&program, free_port(), &arguments)).expect("nats-server starts");
    let url = format!("tls://localhost:{}", nats.port);
    let all = ["m0", "m1"].map(|name| Machine::start(&format!("{url}?ca={ca}"), name));
    all.iter().for_each(|machine| machine.await_nodes(1));
    let stranger = Machine::with(&url, "m2", &["--nats-required=true"]);
    assert_eq!(stranger.ask("GET", "/readyz", "").0, 503, "nobody has signed it");
    let _ = std::fs::remove_dir_all(directory);
}

/// Kills: a way in that only one machine knows, or that delivers twice.
#[test]
fn any_program_publishes_to_sockets() {
    let Some(nats) = Nats::start() else { return };
    let all = machines(&nats, 2);
    let mut sockets: Vec<Socket> = all.iter().map(Machine::events).collect();
    for socket in &mut sockets {
        socket.join("my room.1");
    }
    all.iter().for_each(|machine| eventually(|| machine.members("my room.1") == 2, || "both are in".into()));
    sockets.iter_mut().for_each(|socket| drop(socket.take()));
    let mut outsider = Outsider::connect(&nats);
    let event = |number: u64| json!({ "event": "said", "data": number }).to_string();
    outsider.publish("ringwire.in.room.ws/my%20room.1", event(1).as_bytes());
    outsider.publish("ringwire.in.all", event(2).as_bytes());
    for socket in &mut sockets {
        assert_eq!(socket.expect("said"), 1);
        assert_eq!(socket.expect("said"), 2);
    }
    for (number, socket) in sockets.iter_mut().enumerate() {
        let number = number as u64 + 3;
        let answer = outsider.ask(&format!("ringwire.in.id.{}", socket.id), &event(number));
        assert_eq!(answer, r#"{"sent":true}"#);
        assert_eq!(socket.expect("said"), number);
    }
    assert!(sockets.iter_mut().all(|socket| socket.take().is_empty()));
}

/// Kills: a position of one machine that means something on another; what came from elsewhere without a number, or with two.
#[test]
fn each_machine_has_a_history_of_what_its_members_have_got() {
    let Some(nats) = Nats::start() else { return };
    let start = |name: &str| Machine::with(&nats.url(), name, &["--history=100"]);
    let all = [start("one"), start("two")];
    all.iter().for_each(|machine| machine.await_nodes(1));
    let mut sockets = all.each_ref().map(Machine::events);
    let join = |socket: &mut Socket, since: &Value| {
        socket.say("join", &json!({ "room": "den", "since": since }));
        socket.until("joined")
    };
    let mut positions = Vec::new();
    for socket in &mut sockets {
        let joined = join(socket, &Value::Null);
        positions.push(json!({ "epoch": joined["epoch"], "offset": joined["offset"] }));
    }
    assert_ne!(positions[0]["epoch"], positions[1]["epoch"]);
    all.iter().for_each(|machine| eventually(|| machine.members("den") == 2, || "both are in".into()));
    sockets.iter_mut().for_each(|socket| drop(socket.take()));
    for number in 0..20 {
        let by = number % 2;
        sockets[by].say("message", &json!({ "room": "den", "message": number }));
        for socket in &mut sockets {
            assert_eq!(socket.until("message")["message"], number);
        }
    }
    for (here, machine) in all.iter().enumerate() {
        for (of, position) in positions.iter().enumerate() {
            let mut late = machine.events();
            let joined = join(&mut late, position);
            assert_eq!(joined["recovered"], here == of, "{joined}");
            let history = joined["history"].as_array().expect("a history");
            let said: Vec<u64> = history.iter().filter_map(|event| event["data"]["message"].as_u64()).collect();
            let offsets: Vec<u64> = history.iter().filter_map(|event| event["offset"].as_u64()).collect();
            assert_eq!(said, (0..20).collect::<Vec<u64>>());
            assert_eq!(offsets, (1..=20).collect::<Vec<u64>>());
            late.say("leave", &json!({ "room": "den" }));
            late.until("left");
        }
    }
    // Nobody of a machine listens any more: what others say meanwhile it has not got.
    sockets[0].say("leave", &json!({ "room": "den" }));
    sockets[0].until("left");
    eventually(|| all[1].members("den") == 1, || "one is left".into());
    sockets[1].say("message", &json!({ "room": "den", "message": 20 }));
    sockets[1].until("message");
    let joined = join(&mut sockets[0], &json!({ "epoch": positions[0]["epoch"], "offset": 20 }));
    assert_eq!(joined["recovered"], false, "{joined}");
}

/// Kills: changes that are lost where there are many.
#[test]
fn after_much_coming_and_going_all_counts_are_exact() {
    const ROOMS: usize = 1_000;
    let Some(nats) = Nats::start() else { return };
    let all = machines(&nats, 3);
    let workers: Vec<_> = all
        .iter()
        .enumerate()
        .map(|(index, machine)| {
            let mut sockets: Vec<Socket> = (0..8).map(|_| machine.events()).collect();
            thread::spawn(move || {
                let mut chance = index as u64 * 7919 + 1;
                let mut rooms = vec![BTreeSet::new(); sockets.len()];
                for round in 0..ROOMS {
                    for (number, socket) in sockets.iter_mut().enumerate() {
                        chance = chance.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                        let room = format!("r{}", (chance >> 33) as usize % ROOMS);
                        socket.say("join", &json!({ "room": room }));
                        rooms[number].insert(room.clone());
                        // Most of what is joined is left, at once or by and by.
                        let any = rooms[number].iter().nth((chance >> 40) as usize % rooms[number].len()).cloned();
                        let left = if round % 3 == 0 { any } else { Some(room) };
                        if let Some(room) = left.filter(|_| rooms[number].len() > 20) {
                            socket.say("leave", &json!({ "room": room }));
                            rooms[number].remove(&room);
                        }
                    }
                    if round % 50 == 0 {
                        sockets.iter_mut().for_each(|socket| drop(socket.take()));
                    }
                }
                sockets.iter_mut().for_each(|socket| drop(socket.take()));
                (sockets, rooms)
            })
        })
        .collect();
    let mut sockets = Vec::new();
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for worker in workers {
        let (its, rooms) = worker.join().expect("it ends well");
        sockets.extend(its);
        rooms.into_iter().flatten().for_each(|room| *expected.entry(room).or_default() += 1);
    }
    assert!(expected.len() > 50, "some have stayed: {}", expected.len());
    for machine in &all {
        eventually(|| machine.rooms() == expected, || format!("{} to count all and no more", machine.name));
    }
    // Whoever ends leaves all.
    drop(sockets);
    for machine in &all {
        eventually(|| machine.rooms().is_empty(), || format!("{} to know of no room", machine.name));
    }
}
