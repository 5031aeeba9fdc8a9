//! The examples as programs: each is started as a user starts it, and does what its first lines say.

#[path = "common/browser.rs"]
mod browser;
mod common;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tungstenite::Message;

use browser::{Browser, Page};
use common::raw::Raw;
use common::{Client, client, close_code, text};

/// The class printed in Arcade's guide, as it is.
const ARCADE_CLIENT: &str = include_str!("examples/arcade_client.js");

/// What uses it: says hello when it has joined, and prints what the page's author would see.
const ARCADE_USER: &str = r#"
class Hello extends ArcadeWebSocket {
  handleMessage(data) {
    super.handleMessage(data);
    if (data.type === 'room-info') {
      this.send('typing', {});
      this.send('message', { message: 'Hello, Arcade!' });
    }
    if (data.event === 'message') {
      console.log('SAID', JSON.stringify(data.data));
      process.exit(0);
    }
  }
}
const ws = new Hello(process.argv[2]);
ws.connect();
ws.send('message', { message: 'too early: it is not open yet' });
setTimeout(() => process.exit(1), 10000);
"#;

/// A running example; ends when it is dropped.
struct Example {
    child: Child,
    address: SocketAddr,
}

fn program(name: &str) -> PathBuf {
    // Cargo builds examples for tests, and puts them beside the directory of the test programs.
    let tests = std::env::current_exe().expect("a path");
    let target = tests.parent().and_then(|deps| deps.parent()).expect("a target directory");
    target.join("examples").join(name)
}

fn start(name: &str) -> Example {
    start_on(name, 0)
}

fn start_on(name: &str, port: u16) -> Example {
    let program = program(name);
    let mut child = Command::new(&program)
        .env("PORT", port.to_string())
        .env("RINGWIRE_ADDR", "127.0.0.1:0")
        .env("RINGWIRE_CORES", "2")
        .env("RINGWIRE_RECV_BUFFERS", "64")
        .env("RINGWIRE_MAX_CONNECTIONS", "1000")
        .env("RINGWIRE_DRAIN_SPREAD", "0")
        .env("RINGWIRE_CLOSE_TIMEOUT", "500ms")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error} (`cargo build --examples` makes it)", program.display()));
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let first = lines.next().and_then(Result::ok).expect("a first line");
    let address = first.strip_prefix("listening on ws://").and_then(|address| address.parse().ok());
    let address = address.unwrap_or_else(|| panic!("{name}: {first}"));
    // What it prints later must not block it.
    thread::spawn(move || lines.for_each(drop));
    Example { child, address }
}

impl Example {
    fn client(&self, path: &str) -> Client {
        client(self.address, path)
    }

    fn get(&self, path: &str) -> String {
        let mut client = Raw::connect(self.address);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        let response = client.response(false);
        assert_eq!(response.status, 200);
        response.body
    }

    /// Ends it as a user does.
    fn interrupt(mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).expect("a signal");
        assert!(self.child.wait().expect("its end").success());
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(client: &mut Client, text: impl Into<String>) {
    client.send(Message::text(text.into())).expect("sent");
}

fn json(client: &mut Client) -> Value {
    serde_json::from_str(&text(client)).expect("JSON")
}

#[test]
fn embed_echo() {
    let example = start("embed_echo");
    let mut client = example.client("/echo");
    say(&mut client, "hello");
    assert_eq!(text(&mut client), "hello");
    example.interrupt();
    assert_eq!(close_code(&mut client), Some(1001));
}

#[test]
fn chat_with_http_api() {
    let example = start("chat_with_http_api");
    let mut member = example.client("/ws/chat/room123");
    assert_eq!(json(&mut member)["room"]["name"], "Lobby");
    let mut client = example.client("/ws/monitored");
    say(&mut client, "counted");
    drop(client);
    let mut client = example.client("/ws/chat");
    assert_eq!(json(&mut client)["event"], "user-joined");
    let list = json(&mut client);
    assert_eq!((&list["type"], list["users"].as_array().map(Vec::len) >= Some(2)), (&json!("users-list"), true));
    example.interrupt();
}

#[test]
fn the_javascript_client_of_the_arcade_guide() {
    let version = Command::new("node").arg("--version").output();
    let Ok(version) = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()) else {
        eprintln!("skipped: there is no node here");
        return;
    };
    let major: u32 =
        version.trim_start_matches('v').split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    if major < 20 {
        eprintln!("skipped: node {version} has no WebSocket; 20 has one behind a flag");
        return;
    }
    let example = start("chat_with_http_api");
    let mut other = example.client("/ws/chat/room123");
    assert_eq!(json(&mut other)["type"], "room-info");
    let mut node = Command::new("node");
    if major < 22 {
        node.arg("--experimental-websocket");
    }
    let url = format!("ws://{}/ws/chat/room123", example.address);
    let run = node.arg("--eval").arg(format!("{ARCADE_CLIENT}{ARCADE_USER}")).arg("arcade").arg(&url);
    let output = run.output().expect("node runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}\n{errors}");
    assert!(printed.starts_with("Connected to Arcade WebSocket\nMessage: {"), "{printed}");
    let said = printed.lines().find_map(|line| line.strip_prefix("SAID ")).expect("what was said");
    let said: Value = serde_json::from_str(said).expect("JSON");
    assert_eq!(said["message"], "Hello, Arcade!");
    assert!(["id", "userId", "timestamp"].iter().all(|key| said[key].is_string()), "{said}");
    // And everybody else in the room saw it come, type, speak and go.
    let events: Vec<Value> = (0..4).map(|_| json(&mut other)).collect();
    let names: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    assert_eq!(names, ["user-joined", "user-typing", "message", "user-left"]);
    assert_eq!(events[2]["data"], said);
}

#[test]
fn modes() {
    let example = start("modes");
    let mut client = example.client("/chat/async");
    say(&mut client, "x");
    assert_eq!(text(&mut client), "Processed: x");
    let mut client = example.client("/notifications/timer");
    assert_eq!(text(&mut client), "Notifications started");
    assert_eq!(text(&mut client), "Notification 1");
    let mut client = example.client("/notifications/once");
    assert_eq!(text(&mut client), "Server notification");
    assert_eq!(close_code(&mut client), Some(1000));
    let mut client = example.client("/chat/heartbeat");
    say(&mut client, "x");
    assert_eq!(text(&mut client), "Pong");
    example.interrupt();
}

#[test]
fn echo_styles() {
    let example = start("echo_styles");
    let mut client = example.client("/echo");
    say(&mut client, "hello");
    assert_eq!(text(&mut client), "hello");
    example.interrupt();
}

#[test]
fn client_and_server() {
    let example = start("client_and_server");
    let mut client = example.client("/");
    say(&mut client, "Hello");
    assert_eq!(text(&mut client), "Echo: Hello");
    let url = format!("ws://{}/", example.address);
    let talk = || Command::new(program("client_and_server")).args(["client", &url]).output().expect("it runs");
    let printed = String::from_utf8(talk().stdout).expect("text");
    let lines: Vec<&str> = printed.lines().collect();
    let expected = ["Connected to WebSocket server", "Received: Echo: Hello", "Received binary: [1, 2, 3, 4, 5]"];
    assert_eq!(lines[..3], expected);
    let answer: Value = serde_json::from_str(lines[3].trim_start_matches("Received: ")).expect("JSON");
    assert_eq!(answer, json!({"type": "response", "content": "Hello Client"}));
    assert_eq!(lines[4..], ["Connection closed: 1000"]);
    example.interrupt();
    let failed = talk();
    assert!(!failed.status.success());
    assert!(String::from_utf8_lossy(&failed.stderr).starts_with("Error: Connect"), "a value, not a panic");
}

#[test]
fn named_events() {
    let example = start("named_events");
    let mut client = example.client("/ws");
    assert_eq!(json(&mut client)["data"], "A user connected. Total: 1");
    assert_eq!(json(&mut client)["path"], "connected");
    say(&mut client, r#"{"path":"time","data":{}}"#);
    assert_eq!(json(&mut client)["path"], "output");
    example.interrupt();
}

#[test]
fn chat() {
    let example = start("chat");
    let page = example.get("/");
    assert!(page.starts_with("<!doctype html>") && !page.contains("http://") && !page.contains("https://"));
    let mut first = example.client("/rooms/lobby");
    say(&mut first, r#"{"event":"say","data":{"name":"ann","text":"hi"}}"#);
    let said = json(&mut first);
    assert_eq!((&said["event"], &said["data"]["text"]), (&json!("said"), &json!("hi")));
    let mut second = example.client("/rooms/lobby");
    assert_eq!(json(&mut second), said);
    assert_eq!(json(&mut first)["event"], "joined");
    say(&mut second, r#"{"event":"say","data":{"name":"bob"}}"#);
    assert_eq!(json(&mut second)["event"], "error");
    say(&mut second, r#"{"event":"say","data":{"name":"bob","text":"hello"}}"#);
    for client in [&mut first, &mut second] {
        assert_eq!(json(client)["data"]["name"], "bob");
    }
    drop(second);
    assert_eq!(json(&mut first)["event"], "left");
    example.interrupt();
}

#[test]
fn chat_in_two_windows() {
    let Some(browser) = Browser::start() else { return };
    let example = start("chat");
    let address = example.address;
    let open = |room: &str| {
        let mut page = browser.open(&format!("http://{address}/#{room}"));
        page.until("document.querySelector('#state')?.textContent === 'connected'");
        page
    };
    let says = |page: &mut Page, name: &str, text: &str| {
        page.fill("#name", name);
        page.fill("#text", text);
        page.press("Enter");
        page.until("document.querySelector('#text').value === ''");
    };
    let sees = |page: &mut Page, text: &str| {
        page.until(&format!("document.querySelector('#lines').innerText.includes({})", json!(text)));
    };

    let (mut ann, mut bob) = (open("den"), open("den"));
    sees(&mut ann, "somebody came in");
    says(&mut ann, "ann", "hello, <b>bob</b>");
    sees(&mut bob, "ann hello, <b>bob</b>");
    says(&mut bob, "bob", "hello, ann");
    for page in [&mut ann, &mut bob] {
        sees(page, "bob hello, ann");
    }
    // Whoever comes later reads what was said before, and another room has its own.
    sees(&mut open("den"), "ann hello, <b>bob</b>");
    bob.fill("#room", "attic");
    bob.press("Enter");
    sees(&mut ann, "somebody left");
    bob.until("document.querySelectorAll('#lines li').length === 0");
    ann.has_no_complaints();
    bob.has_no_complaints();

    // The server goes and comes back, and the page with it.
    example.interrupt();
    ann.until("document.querySelector('#state').textContent === 'reconnecting'");
    let example = start_on("chat", address.port());
    ann.until("document.querySelector('#state').textContent === 'connected'");
    says(&mut ann, "ann", "are you there?");
    sees(&mut ann, "ann are you there?");
    drop((ann, bob, browser));
    example.interrupt();
}

#[test]
fn push_from_tokio() {
    let example = start("push_from_tokio");
    let mut query = example.client("/query");
    say(&mut query, "key");
    say(&mut query, "longer");
    assert_eq!(text(&mut query), "key = 3");
    assert_eq!(text(&mut query), "longer = 6");
    let mut ticks = example.client("/ticks");
    for number in 0..3 {
        assert_eq!(text(&mut ticks), format!("tick {number}"));
    }
    example.interrupt();
}
