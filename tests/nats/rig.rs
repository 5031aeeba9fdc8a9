//! A real nats-server, and machines that it joins.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tungstenite::Message;

use crate::common;
use crate::common::program::{Program, command};
pub(crate) use crate::common_nats::{Nats, free_port, fresh_directory, nats_server};

/// Several processes on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A program that speaks NATS, in the few words that it takes.
pub(crate) struct Outsider {
    pub(crate) stream: TcpStream,
    pub(crate) lines: BufReader<TcpStream>,
}

impl Outsider {
    pub(crate) fn connect(nats: &Nats) -> Outsider {
        let stream = TcpStream::connect(("127.0.0.1", nats.port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let lines = BufReader::new(stream.try_clone().expect("a clone"));
        let mut outsider = Outsider { stream, lines };
        outsider.say("CONNECT {\"verbose\":false,\"headers\":true}\r\nPING\r\n");
        while outsider.line() != "PONG" {}
        outsider
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).expect("it listens");
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    pub(crate) fn publish(&mut self, subject: &str, payload: &[u8]) {
        self.say(&format!("PUB {subject} {}\r\n", payload.len()));
        self.stream.write_all(payload).and_then(|()| self.stream.write_all(b"\r\n")).expect("it listens");
    }

    /// With a header, if there is one.
    pub(crate) fn publish_with(&mut self, header: Option<&str>, subject: &str, payload: &str) {
        let Some(header) = header else { return self.publish(subject, payload.as_bytes()) };
        let head = format!("NATS/1.0\r\n{header}\r\n\r\n");
        let (head_len, len) = (head.len(), head.len() + payload.len());
        self.say(&format!("HPUB {subject} {head_len} {len}\r\n{head}{payload}\r\n"));
    }

    pub(crate) fn ask(&mut self, subject: &str, payload: &str) -> String {
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

pub(crate) struct Machine {
    pub(crate) program: Program,
    pub(crate) name: String,
}

impl Machine {
    pub(crate) fn start(nats: &str, name: &str) -> Machine {
        Machine::with(nats, name, &[])
    }

    pub(crate) fn with(nats: &str, name: &str, more: &[&str]) -> Machine {
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

    pub(crate) fn address(&self) -> SocketAddr {
        self.program.address
    }

    pub(crate) fn open(&self, path: &str) -> Socket {
        Socket { client: common::client(self.address(), path), id: String::new() }
    }

    /// An event socket, and its id.
    pub(crate) fn events(&self) -> Socket {
        let mut socket = self.open("/ws");
        socket.id = socket.expect("connected")["id"].as_str().expect("an id").to_owned();
        socket
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
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
    pub(crate) fn rooms(&self) -> BTreeMap<String, u64> {
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

    pub(crate) fn members(&self, room: &str) -> u64 {
        self.rooms().remove(room).unwrap_or(0)
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.ask("GET", "/metrics", "");
        let text = text.as_str().expect("text").to_owned();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
    }

    /// Waits until it knows of so many others.
    pub(crate) fn await_nodes(&self, count: usize) {
        let nodes = || self.metric("ringwire_nodes") as usize;
        eventually(|| nodes() == count, || format!("{} to know of {count} others, not {}", self.name, nodes()));
    }

    pub(crate) fn kill(&self) {
        self.program.signal(Signal::SIGKILL);
    }
}

pub(crate) struct Socket {
    pub(crate) client: common::Client,
    pub(crate) id: String,
}

impl Socket {
    pub(crate) fn say(&mut self, event: &str, data: &Value) {
        let text = json!({ "event": event, "data": data }).to_string();
        self.client.send(Message::text(text)).expect("it listens");
    }

    /// The next event, with whatever it says beside its data.
    pub(crate) fn read_whole(&mut self) -> Value {
        self.client.get_ref().set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let text = common::text(&mut self.client);
        serde_json::from_str(&text).expect("JSON")
    }

    pub(crate) fn read(&mut self) -> (String, Value) {
        let mut event = self.read_whole();
        (event["event"].as_str().expect("an event").to_owned(), event["data"].take())
    }

    /// The data of the next event, which is this one.
    #[track_caller]
    pub(crate) fn expect(&mut self, event: &str) -> Value {
        let (got, data) = self.read();
        assert_eq!(got, event, "{data}");
        data
    }

    #[track_caller]
    pub(crate) fn join(&mut self, room: &str) -> u64 {
        self.say("join", &json!({ "room": room }));
        loop {
            let (event, data) = self.read();
            if event == "joined" && data["room"] == room {
                return data["members"].as_u64().expect("members");
            }
        }
    }

    /// Whatever has come up to what is said to oneself now.
    pub(crate) fn take(&mut self) -> Vec<(String, Value)> {
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
    pub(crate) fn until(&mut self, event: &str) -> Value {
        loop {
            let (got, data) = self.read();
            if got == event {
                return data;
            }
        }
    }
}

#[track_caller]
pub(crate) fn eventually(mut condition: impl FnMut() -> bool, what: impl Fn() -> String) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {}", what());
        thread::sleep(Duration::from_millis(10));
    }
}

/// So many machines that know each other.
pub(crate) fn machines(nats: &Nats, count: usize) -> Vec<Machine> {
    let all: Vec<Machine> = (0..count).map(|number| Machine::start(&nats.url(), &format!("m{number}"))).collect();
    all.iter().for_each(|machine| machine.await_nodes(count - 1));
    all
}

/// Passes bytes on until it is stopped.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    pub(crate) is_stopped: Arc<AtomicBool>,
}

impl Proxy {
    pub(crate) fn before(port: u16) -> Proxy {
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
