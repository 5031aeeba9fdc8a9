//! Connections that are not to be had: handshakes without an answer, nobody who listens.

mod common;

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    process::Output,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use common::{File, output, play, run, run_on, says, serve};
use serde_json::json;

const PATIENCE: &str = "--patience 300ms";

/// The kernel takes connections, and nobody answers on them.
fn serve_nobody() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    (listener, addr)
}

fn scenario_file() -> File {
    File::new(
        "users.toml",
        "connections = 4\nduration = \"600ms\"\n[[users]]\nsteps = [{ send = \"{message}\", expect = \"sent\", think = \"10ms\" }]\n",
    )
}

/// All scenarios that open connections, against such a server.
fn outputs(addr: SocketAddr) -> Vec<(String, Output)> {
    let of = |scenario: &str, path: &str, options: &str| {
        let output = run_on(scenario, &format!("ws://{addr}{path}"), &format!("{options} {PATIENCE}"));
        (format!("{scenario} {options}"), output)
    };
    vec![
        of("echo", "/", "--connections 4 --warmup 0 --duration 600ms"),
        of("echo", "/", "--stages 0s:4,600ms:4"),
        of("churn", "/", "--users 4 --warmup 0 --duration 600ms"),
        of("churn", "/", "--users 4 --warmup 0 --duration 600ms --rate 20"),
        of("churn", "/", "--stages 0s:4,600ms:4"),
        of("broadcast", "/", "--subscribers 4 --warmup 0 --duration 600ms"),
        of("connect", "/", "--connections 4 --hold 600ms"),
        ("run".to_owned(), output("run", &scenario_file(), &format!("--url ws://{addr}/ {PATIENCE}"))),
    ]
}

/// Where users come again and again, there is a report of those that failed; where all are to be there first, there is none.
fn assert_nothing_opened(outputs: Vec<(String, Output)>, why: &str) {
    for (what, output) in outputs {
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(text.contains(why), "{what}: {text}");
        match output.status.code() {
            Some(2) => assert!(text.contains("no connection could be opened: "), "{what}: {text}"),
            code => assert_eq!(code, Some(1), "{what}: {text}"),
        }
    }
}

/// Kills: handshakes that are under way when the run ends, longer than they may be, and are no problem; a run in which nothing was
/// opened and that went well.
#[test]
fn a_server_that_answers_no_handshake_is_not_measured() {
    let (_listener, addr) = serve_nobody();
    assert_nothing_opened(outputs(addr), "no answer to the handshake within 300ms");
}

#[test]
fn a_server_that_is_not_there_is_not_measured() {
    let (listener, addr) = serve_nobody();
    drop(listener);
    assert_nothing_opened(outputs(addr), "refused");
}

/// Kills: a handshake without an answer that is told of as something else, twice, or not at all, where others are answered.
#[test]
fn handshakes_without_an_answer_are_failed_connections() {
    let every_second = || {
        let asked = AtomicU64::new(0);
        serve(move |stream: TcpStream| {
            if asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                thread::sleep(Duration::from_secs(10));
                return;
            }
            let mut socket = tungstenite::accept(stream).expect("a handshake");
            while let Ok(message) = socket.read() {
                if !message.is_close() {
                    let _ = socket.send(message);
                }
            }
        })
    };
    for (scenario, options) in [
        ("echo", "--connections 6 --warmup 0 --duration 600ms"),
        ("echo", "--stages 0s:6,600ms:6"),
        ("churn", "--users 6 --warmup 0 --duration 600ms"),
        ("connect", "--connections 6"),
    ] {
        let figures = run(1, scenario, &format!("ws://{}/", every_second()), &format!("{options} {PATIENCE}"));
        let failed = &figures["problem_kinds"]["failed"]["count"];
        assert!(failed.as_u64() >= Some(3) && *failed == figures["problem_count"], "{scenario}: {figures}");
        assert_eq!((&figures["ends"]["never_opened"], &figures["errnos"]), (failed, &json!({})), "{scenario}");
        says(&figures, "no answer to the handshake within 300ms");
    }
    let figures = play(1, "run", &scenario_file(), &format!("--url ws://{}/ {PATIENCE}", every_second()));
    says(&figures, "no answer to the handshake within 300ms");
}

/// Kills: a user whose connection failed and who asks again without a pause.
#[test]
fn whoever_is_refused_waits() {
    for options in ["--users 5 --warmup 0 --duration 1500ms", "--stages 0s:5,1500ms:5"] {
        let accepted = AtomicU64::new(0);
        let addr = serve(move |stream: TcpStream| {
            if accepted.fetch_add(1, Ordering::Relaxed) > 0 {
                return;
            }
            let mut socket = tungstenite::accept(stream).expect("a handshake");
            while let Ok(message) = socket.read() {
                if !message.is_close() {
                    let _ = socket.send(message);
                }
            }
        });
        let figures = run(1, "churn", &format!("ws://{addr}/"), options);
        // At the beginning, and once more.
        let failed = figures["problem_kinds"]["failed"]["count"].as_u64().expect("a count");
        assert!((5..=10).contains(&failed), "{options}: {figures}");
    }
}
