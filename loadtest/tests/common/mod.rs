//! What all the suites need: servers on threads, and the program run against them.
#![allow(dead_code, reason = "each suite uses its part")]

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Output},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use ringwire::config::{Config, CoreSet, ListenAddress};
use serde_json::{Value, json};
use tungstenite::{
    Message,
    handshake::server::{Request, Response},
};

/// Serves every connection on a thread of its own for the rest of the test.
pub(crate) fn serve(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let handle = Arc::new(handle);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, handle) = (stream.expect("accepted"), handle.clone());
            thread::spawn(move || handle(stream));
        }
    });
    addr
}

pub(crate) fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ringwire-loadtest"))
}

/// A file of this test's own.
pub(crate) fn scratch(name: &str) -> std::path::PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("loadtest-{}-{number}-{name}", std::process::id()))
}

pub(crate) fn run_on(scenario: &str, url: &str, options: &str) -> Output {
    program().args([scenario, "-q", "--url", url]).args(options.split_whitespace()).output().expect("it starts")
}

/// Runs, expects this exit code, and returns the figures.
pub(crate) fn run(code: i32, scenario: &str, url: &str, options: &str) -> Value {
    let json = scratch("figures.json");
    let output = run_on(scenario, url, &format!("{options} --json {}", json.display()));
    let text = [output.stdout, output.stderr].concat();
    assert_eq!(output.status.code(), Some(code), "{scenario} {options}\n{}", String::from_utf8_lossy(&text));
    let figures = serde_json::from_slice(&std::fs::read(&json).expect("written")).expect("JSON");
    std::fs::remove_file(json).expect("ours");
    assert_accounted(&figures);
    figures
}

/// A file that is removed with it.
pub(crate) struct File(pub(crate) PathBuf);

impl File {
    pub(crate) fn new(name: &str, text: &str) -> File {
        let path = scratch(name);
        std::fs::write(&path, text).expect("written");
        File(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).expect("ours");
    }
}

pub(crate) fn output(command: &str, file: &File, options: &str) -> Output {
    program().args([command, "-q"]).arg(&file.0).args(options.split_whitespace()).output().expect("it starts")
}

/// Plays a file, expects this exit code, and returns the figures.
pub(crate) fn play(code: i32, command: &str, file: &File, options: &str) -> Value {
    let json = scratch("figures.json");
    let output = output(command, file, &format!("{options} --json {}", json.display()));
    let text = [output.stdout, output.stderr].concat();
    assert_eq!(output.status.code(), Some(code), "{options}\n{}", String::from_utf8_lossy(&text));
    let figures = serde_json::from_slice(&std::fs::read(&json).expect("written")).expect("JSON");
    std::fs::remove_file(json).expect("ours");
    assert_accounted(&figures);
    figures
}

/// Every problem that is counted is in a line, and in one only.
pub(crate) fn assert_accounted(figures: &Value) {
    let lines: Vec<&str> = figures["problems"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let number = |text: &str| text.split(' ').next().and_then(|word| word.replace(',', "").parse::<u64>().ok());
    let heads = lines.iter().filter(|line| !line.starts_with(' '));
    let in_lines: u64 = heads.map(|line| number(line).unwrap_or_else(|| panic!("{line}"))).sum();
    assert_eq!(figures["problem_count"], in_lines, "{lines:?}");
    for (kind, noted) in figures["problem_kinds"].as_object().expect("a table") {
        let told = noted["told"].as_array().expect("a list");
        let told: u64 = told.iter().filter_map(|told| told["count"].as_u64()).sum();
        assert!(told > 0 && noted["count"].as_u64() >= Some(told), "{kind}: {noted}");
    }
    let checks = figures["checks"].as_object().expect("a table").values();
    let checks: u64 = checks.filter_map(Value::as_u64).sum();
    let others = ["failed", "silent", "agent_lost", "round_missing"]
        .map(|kind| figures["problem_kinds"][kind]["count"].as_u64());
    let others: u64 = others.into_iter().flatten().sum();
    assert_eq!(figures["problem_count"], checks + others, "{figures}");
}

/// Only this check has failed, so often.
pub(crate) fn assert_only(figures: &Value, check: &str, count: u64) {
    let mut expected = json!({"lost": 0, "duplicated": 0, "reordered": 0, "corrupted": 0, "unexpected": 0});
    expected[check] = count.into();
    assert_eq!(figures["checks"], expected, "{}", figures["problems"]);
    assert_eq!(figures["problem_count"], count);
}

pub(crate) fn says(figures: &Value, text: &str) {
    let problems = figures["problems"].to_string();
    assert!(problems.contains(text), "{text:?} is not in {problems}");
}

/// An echo server whose answer to message `n` of a connection is what `answer` makes of it.
pub(crate) fn serve_echo(answer: impl Fn(u64, Message) -> Vec<Message> + Send + Sync + 'static) -> SocketAddr {
    serve(move |stream| {
        stream.set_nodelay(true).expect("a TCP socket");
        let Ok(mut socket) = tungstenite::accept(stream) else {
            return;
        };
        let mut number = 0;
        while let Ok(message) = socket.read() {
            if !message.is_text() && !message.is_binary() {
                continue;
            }
            for message in answer(number, message) {
                if socket.send(message).is_err() {
                    return;
                }
            }
            number += 1;
        }
    })
}

/// ringwire with the routes of its program, in this process; ends when it is dropped.
pub(crate) struct Ringwire {
    handle: Option<ringwire::Handle>,
    pub(crate) address: SocketAddr,
}

impl Ringwire {
    pub(crate) fn start(with: impl FnOnce(Config) -> Config) -> Ringwire {
        let config = Config::default()
            .addresses(vec![ListenAddress::Inet { host: "127.0.0.1".into(), port: 0 }])
            .cores(CoreSet::Count(2))
            .recv_buffers(64)
            .max_connections(2000)
            .drain_spread(Duration::ZERO);
        let handle = ringwire::standalone::start(with(config)).expect("it starts");
        let address = handle.addresses()[0].inet().expect("a TCP address");
        Ringwire { handle: Some(handle), address }
    }

    /// Its open WebSockets.
    pub(crate) fn connections(&self) -> u32 {
        self.handle.as_ref().map_or(0, ringwire::Handle::connections)
    }
}

impl Drop for Ringwire {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.shutdown();
            let _ = handle.join();
        }
    }
}

/// The paths and tokens of handshakes.
pub(crate) type Noted = Arc<Mutex<Vec<(String, String)>>>;

/// What handshakes said, and an echo behind each.
pub(crate) fn serve_noting() -> (SocketAddr, Noted) {
    let noted = Noted::default();
    let notes = noted.clone();
    let addr = serve(move |stream: TcpStream| {
        #[allow(clippy::result_large_err)]
        let accepted = tungstenite::accept_hdr(stream, |request: &Request, response: Response| {
            let token =
                request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
            notes.lock().expect("held briefly").push((request.uri().to_string(), token.to_owned()));
            Ok(response)
        });
        let Ok(mut socket) = accepted else { return };
        while let Ok(message) = socket.read() {
            if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
                return;
            }
        }
    });
    (addr, noted)
}
