//! What becomes of messages that are due at a rate: those that cannot be sent in time are not sent, which the report says with the
//! reason, and are not lost.

mod common;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use common::{Ringwire, program, run, serve, serve_echo};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

const TOO_FAST: &str = "the rate is more than was possible";
const NOBODY: &str = "there was no connection for them";

fn warns(figures: &Value, text: &str) -> bool {
    figures["warnings"].to_string().contains(text)
}

/// Kills: what is sent when the measured time is over because it was due in it, and is cut; what is late and not told at all.
#[test]
fn a_rate_that_is_not_possible_loses_nothing() {
    let server = Ringwire::start(|config| config);
    const FLOW: &str = "--rate 1000000 --duration 300ms --warmup 0 --patience 3";
    for (scenario, path, options) in [
        ("echo", "/echo", format!("--connections 4 --pipeline 4 {FLOW}")),
        ("echo", "/echo", format!("--connections 5 --threads 2 {FLOW}")),
        ("emit", "/ws", format!("--connections 3 {FLOW}")),
        ("emit", "/ws", format!("--connections 3 --pipeline 4 --threads 2 {FLOW}")),
        ("broadcast", "/broadcast", format!("--subscribers 3 {FLOW}")),
        ("rooms", "/rooms/{room}", format!("--rooms 3 --members 2 --burst 2 --threads 2 {FLOW}")),
        ("churn", "/echo", format!("--users 4 --words 3 {FLOW}")),
        ("echo", "/echo", "--stages 0s:4@100000,300ms:4@100000 --patience 3".to_owned()),
        ("churn", "/echo", "--stages 0s:4@100000,300ms:4@100000 --words 100 --patience 3".to_owned()),
    ] {
        let figures = run(0, scenario, &format!("ws://{}{path}", server.address), &options);
        assert!(warns(&figures, TOO_FAST) && !warns(&figures, NOBODY), "{scenario} {options}: {figures:#}");
        let unsent = figures["unsent"].as_u64().expect("a count");
        assert!(unsent > 1000 && figures["unsent_unconnected"] == 0, "{scenario} {options}: {unsent}");
        assert!(figures["messages"].as_u64() > Some(0), "{scenario} {options}");
    }
}

/// Kills: a count that is not kept because its messages are late.
#[test]
fn a_count_is_sent_however_late() {
    let server = Ringwire::start(|config| config);
    for (scenario, path, options) in [
        ("echo", "/echo", "--connections 3"),
        ("emit", "/ws", "--connections 3"),
        ("broadcast", "/broadcast", "--subscribers 3"),
    ] {
        let url = format!("ws://{}{path}", server.address);
        let figures = run(0, scenario, &url, &format!("{options} --rate 1000000 --count 600 --warmup 0"));
        let sent = if scenario == "echo" { &figures["messages"] } else { &figures["published"] };
        assert_eq!((sent, &figures["unsent"]), (&600.into(), &0.into()), "{scenario}: {figures:#}");
    }
}

/// Closes its first connection, or all others, when that has sent 20 messages; echoes.
fn serve_closing(first: bool) -> SocketAddr {
    let number = AtomicU64::new(0);
    serve(move |stream| {
        let is_first = number.fetch_add(1, Ordering::Relaxed) == 0;
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        let mut messages = 0;
        while let Ok(message) = socket.read() {
            messages += 1;
            if message.is_close() {
                break;
            }
            if messages == 20 && is_first == first {
                return;
            }
            let _ = socket.send(message);
        }
        let _ = socket.close(None);
        while socket.read().is_ok() {}
    })
}

/// Kills: a connection that is gone, which is said to be too slow.
#[test]
fn whose_connection_is_gone_is_not_said_to_be_too_slow() {
    const FLOW: &str = "--rate 200 --duration 800ms --warmup 0 --patience 300ms --concurrency 1";
    for (scenario, options, first) in [
        ("echo", "--connections 3", false),
        ("echo", "--connections 3", true),
        // Whoever publishes is the first.
        ("broadcast", "--subscribers 2", true),
    ] {
        let addr = serve_closing(first);
        let figures = run(1, scenario, &format!("ws://{addr}/"), &format!("{options} {FLOW}"));
        assert!(warns(&figures, NOBODY) && !warns(&figures, TOO_FAST), "{scenario}: {figures:#}");
        assert!(figures["unsent"].as_u64() > Some(10), "{scenario}: {figures:#}");
        assert_eq!(figures["unsent"], figures["unsent_unconnected"], "{scenario}");
    }
    // Nobody listens, or nobody lets them in.
    let nowhere = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    let refusing = serve(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    });
    let silent = serve(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        thread::sleep(Duration::from_secs(30));
    });
    for (addr, code) in [(nowhere, 1), (refusing, 1), (silent, 1)] {
        for scenario in ["echo", "churn"] {
            let options = "--stages 0s:3@200,600ms:3@200 --patience 300ms";
            let figures = run(code, scenario, &format!("ws://{addr}/"), options);
            assert!(warns(&figures, NOBODY) && !warns(&figures, TOO_FAST), "{scenario}: {figures:#}");
        }
        let options = "--users 3 --rate 200 --duration 600ms --warmup 0 --patience 300ms";
        let figures = run(code, "churn", &format!("ws://{addr}/"), options);
        assert!(!warns(&figures, TOO_FAST), "{figures:#}");
        // Who is not let in waits before it comes again.
        assert!(warns(&figures, NOBODY), "{figures:#}");
    }
}

/// Kills: what a session said after the measured time, which is lost before its time is over.
#[test]
fn what_is_said_last_has_its_time_too() {
    let addr = serve(|stream| {
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        while let Ok(message) = socket.read() {
            if message.is_close() {
                break;
            }
            thread::sleep(Duration::from_millis(60));
            let _ = socket.send(message);
        }
        let _ = socket.close(None);
        while socket.read().is_ok() {}
    });
    // A session has no end: it is always cut between a question and its answer.
    let options = "--users 5 --words 1000000 --warmup 0 --duration 200ms --patience 500ms";
    let figures = run(0, "churn", &format!("ws://{addr}/"), options);
    assert_eq!(figures["problem_count"], 0, "{figures:#}");
    // Who follows a script says nothing more then.
    let figures = run(0, "echo", &format!("ws://{addr}/"), "--stages 0s:5,200ms:5 --patience 500ms");
    assert_eq!(figures["problem_count"], 0, "{figures:#}");
}

/// Kills: pings that begin when the run has been ended.
#[test]
fn an_interrupt_begins_nothing_new() {
    // No ping is answered: there is something to wait for.
    let pinged = Arc::new(AtomicU64::new(0));
    let count = pinged.clone();
    let addr = serve(move |stream| {
        let mut writer = stream.try_clone().expect("a socket");
        let mut stream = stream;
        if tungstenite::accept(stream.try_clone().expect("a socket")).is_err() {
            return;
        }
        let mut head = [0; 6];
        while stream.read_exact(&mut head).is_ok() {
            let mut payload = vec![0; usize::from(head[1] & 0x7f)];
            stream.read_exact(&mut payload).expect("the rest");
            match head[0] & 0xf {
                9 => drop(count.fetch_add(1, Ordering::Relaxed)),
                8 => {
                    let _ = writer.write_all(&[0x88, 2, 3, 0xe8]);
                    return;
                }
                _ => {}
            }
        }
    });
    let child = program()
        .args([
            "connect",
            "-q",
            &format!("ws://{addr}/"),
            "--connections",
            "3",
            "--ping",
            "--ping-rate",
            "1",
            "--patience",
            "2",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    thread::sleep(Duration::from_millis(1500));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("it is ours");
    let output = child.wait_with_output().expect("ours");
    let text = String::from_utf8_lossy(&output.stdout);
    // One at the beginning and one a second later; the third is not due when the interrupt comes.
    let pinged = pinged.load(Ordering::Relaxed);
    assert!((1..=2).contains(&pinged) && output.status.code() == Some(1), "{pinged}: {text}");
    assert!(text.contains("was interrupted") && text.contains(&format!("checks         {pinged} lost")), "{text}");
}

/// Kills: a frame of which a part was compared when the run ended, and whose rest is read as one of its own.
#[test]
fn a_message_that_is_half_there_at_the_end_is_no_fault() {
    // It takes no more than it must to be half way through a message when all has its end, and sends the rest behind the Close.
    let addr = serve(|stream| {
        let mut writer = stream.try_clone().expect("a socket");
        let mut socket = tungstenite::accept(stream).expect("a handshake");
        let mut rest = Vec::new();
        while let Ok(message) = socket.read() {
            if message.is_close() {
                let _ = writer.write_all(&rest);
                let _ = writer.write_all(&[0x88, 2, 3, 0xe8]);
                return;
            }
            let bytes = message.into_data();
            let mut frame = vec![0x81, bytes.len() as u8];
            frame.extend_from_slice(&bytes);
            rest = frame.split_off(20);
            let _ = writer.write_all(&frame);
        }
    });
    let figures =
        run(1, "echo", &format!("ws://{addr}/"), "--connections 2 --warmup 0 --duration 200ms --patience 300ms");
    let kinds = figures["problem_kinds"].as_object().expect("a table");
    assert_eq!(kinds.keys().collect::<Vec<_>>(), ["lost"], "{figures:#}");
    assert_eq!(figures["ends"]["closed"], 2, "{figures:#}");
}

/// Kills: late answers that are called out of order; young ones that are given up with an old one.
#[test]
fn late_answers_are_lost_and_only_those() {
    // One answer takes so long, and holds those behind it up: of these the first are late, too.
    let url = format!(
        "ws://{}/",
        serve_echo(|number, message| {
            thread::sleep(Duration::from_millis(if number == 5 { 1_300 } else { 0 }));
            vec![message]
        })
    );
    for (options, lost) in [
        ("--pipeline 64 --rate 20 --duration 3 --patience 1", 1..=12),
        ("--pipeline 1 --duration 3 --patience 1", 1..=1),
        ("--pipeline 64 --rate 20 --duration 3 --patience 3", 0..=0),
    ] {
        let options = format!("--connections 1 --warmup 0 {options}");
        let code = i32::from(*lost.start() > 0);
        let figures = run(code, "echo", &url, &options);
        let count = figures["checks"]["lost"].as_u64().expect("a count");
        assert!(lost.contains(&count), "{options}: {figures:#}");
        common::assert_only(&figures, "lost", count);
        if count > 0 {
            common::says(&figures, "did not come in time");
        }
    }
}
