//! What the program writes to its log: who came and went, what was asked, which limits were reached.

#![cfg(feature = "cli")]
#![forbid(unsafe_code)]

mod common;

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::common::program::command;
use crate::common::raw::{self, Raw};

/// The program, whose log is read when it has ended.
struct Logged {
    child: Child,
    address: SocketAddr,
    log: Option<std::thread::JoinHandle<String>>,
}

impl Logged {
    fn start(arguments: &[&str]) -> Logged {
        let all = [&["--addr=127.0.0.1:0", "--cores=2", "--recv-buffers=64"], arguments].concat();
        let mut child =
            command("", &all).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut first_line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut first_line).expect("a line");
        let mut errors = child.stderr.take().expect("a pipe");
        // All along, so that the program never waits for it.
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            errors.read_to_string(&mut text).expect("UTF-8");
            text
        });
        let address = first_line
            .strip_prefix("ringwire listening on ws://")
            .and_then(|rest| rest.split(' ').next()?.parse().ok());
        Logged { child, address: address.unwrap_or_else(|| panic!("{first_line:?}")), log: Some(log) }
    }

    fn raw(&self) -> Raw {
        Raw::connect(self.address)
    }

    /// Asks for something, and waits for the answer.
    fn ask(&self, request: &str) -> u16 {
        let mut client = self.raw();
        client.send(request.as_bytes());
        client.response(false).status
    }

    /// Ends it as an operator does; its log.
    fn ended(mut self) -> String {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).expect("it runs");
        let log = self.log.take().expect("once").join().expect("the log");
        assert!(self.child.wait().expect("it ended").success(), "{log}");
        log
    }

    fn events(self) -> Events {
        let log = self.ended();
        let event = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        Events(log.lines().map(event).collect())
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Events(Vec<Value>);

impl Events {
    /// The fields of all events of that name and target, in order.
    fn of(&self, target: &str, message: &str) -> Vec<&Value> {
        let is_it = |event: &&Value| event["target"] == target && event["fields"]["message"] == message;
        self.0.iter().filter(is_it).map(|event| &event["fields"]).collect()
    }
}

const ACCESS: &str = "ringwire::access";
const CONNECTION: &str = "ringwire::connection";
const LIMITS: &str = "ringwire::limits";
const SERVER: &str = "ringwire::server";

#[test]
fn connections_and_requests_have_fields() {
    let server =
        Logged::start(&["--log=info,ringwire=debug", "--log-format=json", "--api-token=hush-hush", "--max-rooms=9"]);
    let mut client = server.raw();
    client.upgrade("/echo?token=hush-hush");
    let own = client.stream.local_addr().expect("an address").to_string();
    for message in ["one", "two", "three"] {
        client.send(&raw::text(message));
        assert_eq!(client.frame().payload, message.as_bytes());
    }
    client.send(&raw::close(4000, "bye\nforged".as_bytes()));
    assert_eq!(client.frames().0.len(), 1);
    assert_eq!(server.ask("GET /healthz?x=hush-hush HTTP/1.1\r\nHost: x\r\n\r\n"), 200);
    assert_eq!(server.ask("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"), 404);
    assert_eq!(server.ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), 401);
    assert_eq!(server.ask("GET /ws HTTP/1.1\r\nHost: x\r\n\r\n"), 426);
    assert_eq!(server.ask("POST /api/broadcast HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"), 401);
    assert_eq!(server.ask("NONSENSE\r\n\r\n"), 400);
    let long = format!("/{}", "long".repeat(1000));
    assert_eq!(server.ask(&format!("GET {long} HTTP/1.1\r\nHost: x\r\n\r\n")), 404);
    drop(client);
    let events = server.events();

    let opened = events.of(CONNECTION, "opened");
    let closed = events.of(CONNECTION, "closed");
    assert_eq!((opened.len(), closed.len()), (1, 1));
    assert_eq!((&opened[0]["route"], &opened[0]["peer"]), (&Value::from("/echo"), &Value::from(own.clone())));
    let closed = closed[0];
    assert_eq!(closed["id"], opened[0]["id"]);
    for (field, want) in [
        ("peer", Value::from(own.clone())),
        ("code", 4000.into()),
        ("by", "peer".into()),
        ("clean", true.into()),
        ("reason", r#""bye\nforged""#.into()),
        ("messages_in", 3.into()),
        ("messages_out", 3.into()),
    ] {
        assert_eq!(closed[field], want, "{field}");
    }
    // Three frames of 2 bytes and their payloads, and the answer to the handshake before.
    let (bytes_in, bytes_out) =
        (closed["bytes_in"].as_u64().expect("bytes"), closed["bytes_out"].as_u64().expect("bytes"));
    assert!(bytes_in > 100 + 11 + 18 && (100 + 11 + 6..1000).contains(&bytes_out), "{closed}");
    assert!(closed["duration_ms"].is_u64());

    let requests: Vec<(&str, &str, u64, &str)> = events
        .of(ACCESS, "request")
        .iter()
        .map(|fields| {
            assert!(
                fields["duration_us"].is_u64() && fields["peer"].as_str().expect("a peer").starts_with("127.0.0.1:")
            );
            let text = |name: &str| fields[name].as_str().unwrap_or_default();
            (text("method"), text("path"), fields["status"].as_u64().expect("a status"), text("refused"))
        })
        .collect();
    let cut = long[..1024].to_owned() + "…";
    assert_eq!(
        requests,
        [
            ("GET", "/echo", 101, ""),
            ("GET", "/healthz", 200, ""),
            ("GET", "/nothing", 404, "app"),
            ("GET", "/metrics", 401, "app"),
            ("GET", "/ws", 426, "handshake"),
            ("POST", "/api/broadcast", 401, "app"),
            ("GET", cut.as_str(), 404, "app"),
        ]
    );
    let refused = events.of(ACCESS, "refused");
    assert_eq!(refused.len(), 1);
    assert_eq!((&refused[0]["reason"], &refused[0]["status"]), (&"request".into(), &400.into()));

    let started = events.of(SERVER, "started");
    assert_eq!((started.len(), &started[0]["cores"]), (1, &2.into()));
    assert!(started[0]["addresses"].as_str().expect("a list").starts_with("ws://127.0.0.1:"));
    assert_eq!(events.of(SERVER, "stopped").len(), 1);
    let settings: Vec<(&str, &str)> = events
        .of(SERVER, "setting")
        .iter()
        .map(|fields| (fields["name"].as_str().expect("a name"), fields["value"].as_str().expect("a value")))
        .collect();
    assert_eq!(
        settings,
        [
            ("RINGWIRE_ADDR", "127.0.0.1:0"),
            ("RINGWIRE_CORES", "2"),
            ("RINGWIRE_RECV_BUFFERS", "64"),
            ("RINGWIRE_MAX_ROOMS", "9"),
            ("RINGWIRE_API_TOKEN", "(set)"),
            ("RINGWIRE_LOG", "info,ringwire=debug"),
            ("RINGWIRE_LOG_FORMAT", "json"),
        ]
    );
    let all = events.0.iter().map(Value::to_string).collect::<String>();
    assert!(!all.contains("hush"), "a secret is in the log");
}

/// Kills: a line for each of those that are turned away, of whom there may be as many as packets fit on the wire.
#[test]
fn a_flood_is_counted_and_not_recited() {
    const REFUSED: u64 = 200;
    let server = Logged::start(&["--log-format=json", "--max-connections-per-ip=1", "--ping-interval=0"]);
    let mut first = server.raw();
    first.upgrade("/echo");
    for number in 0..REFUSED {
        let mut client = server.raw();
        client.send(&raw::upgrade_request("/echo"));
        assert_eq!(client.response(false).status, 429, "{number}");
    }
    let mut broken = server.raw();
    broken.send(b"NONSENSE\r\n\r\n");
    assert_eq!(broken.response(false).status, 400);
    let events = server.events();
    let count = |which: &str| {
        let told = events.of(LIMITS, "limit");
        let counts = told.iter().filter(|fields| fields["what"] == "refused" && fields["which"] == which);
        counts.map(|fields| fields["count"].as_u64().expect("a count")).sum::<u64>()
    };
    assert_eq!((count("address"), count("request")), (REFUSED, 1));
    assert!(events.of(LIMITS, "limit").len() < 30, "{} lines", events.of(LIMITS, "limit").len());
    assert!(events.of(ACCESS, "request").is_empty() && events.of(CONNECTION, "closed").is_empty());
    // Nobody is named.
    let all = events.0.iter().map(Value::to_string).collect::<String>();
    assert!(!all.contains("peer"), "{all}");
}

/// A limit that is reached while the server is asleep afterwards is told all the same.
#[test]
fn a_flood_is_told_while_it_runs() {
    let all = ["--addr=127.0.0.1:0", "--cores=1", "--recv-buffers=64", "--max-head=256", "--log=ringwire::limits=info"];
    let mut child = command("", &all).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut first_line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut first_line).expect("a line");
    let address =
        first_line.split(' ').nth(3).and_then(|url| url.strip_prefix("ws://")?.parse().ok()).expect("an address");
    let mut client = Raw::connect(address);
    client.send(&[b"GET / HTTP/1.1\r\nHost: x\r\nX: ", &[b'x'; 300][..], b"\r\n\r\n"].concat());
    assert_eq!(client.response(false).status, 431);
    let mut line = String::new();
    BufReader::new(child.stderr.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let _ = child.kill();
    let _ = child.wait();
    assert!(line.contains("ringwire::limits") && line.contains(r#"which="request" count=1"#), "{line}");
}

#[test]
fn heads_of_frames_are_told_at_trace() {
    let server = Logged::start(&["--log=ringwire::frames=trace,ringwire::connection=debug", "--log-format=json"]);
    let mut client = server.raw();
    client.upgrade("/echo");
    client.send(&raw::text("hello"));
    client.send(&[raw::frame(0x01, b"in "), raw::frame(0x89, b""), raw::frame(0x80, b"two")].concat());
    client.send(&raw::close(1000, b""));
    client.frames();
    drop(client);
    let events = server.events();
    let frames = events.of("ringwire::frames", "frame");
    let heads: Vec<(u64, bool, u64)> = frames
        .iter()
        .map(|fields| {
            let number = |name: &str| fields[name].as_u64().expect("a number");
            (number("opcode"), fields["fin"].as_bool().expect("a flag"), number("len"))
        })
        .collect();
    assert_eq!(heads, [(1, true, 5), (1, false, 3), (9, true, 0), (0, true, 3), (8, true, 2)]);
    let id = &events.of(CONNECTION, "opened")[0]["id"];
    let spans = events.0.iter().filter(|event| event["target"] == "ringwire::frames");
    assert!(spans.clone().count() == 5 && spans.into_iter().all(|event| event["span"]["id"] == *id));
}

/// As text, one event is one line, whatever peers write.
#[test]
fn nobody_can_forge_a_line() {
    let server = Logged::start(&["--log=debug"]);
    let mut client = server.raw();
    client.upgrade("/echo");
    client.send(&raw::close(4000, "x\n2026-01-01T00:00:00Z  INFO forged".as_bytes()));
    client.frames();
    assert_eq!(server.ask("GET /a%0aINFO%20forged HTTP/1.1\r\nHost: x\r\n\r\n"), 404);
    drop(client);
    let log = server.ended();
    assert!(log.contains("forged") && log.lines().all(|line| line.starts_with("20")), "{log}");
    assert!(
        log.lines()
            .any(|line| line.contains("DEBUG") && line.contains("ringwire::access") && line.contains("status=404"))
    );
}
