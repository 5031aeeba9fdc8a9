//! What goes wrong is counted once, and every problem that is counted is in a line of the list, in every scenario.

mod common;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use common::{File, play, run, says, serve};
use serde_json::{Value, json};

/// Echoes to whoever is in the same room, its path, and stops in the middle: ends all connections at once after so many messages,
/// or stands still.
fn serve_until(messages: u64, stands_still: bool) -> SocketAddr {
    let members: Arc<Mutex<Vec<(String, TcpStream)>>> = Arc::default();
    let taken = AtomicU64::new(0);
    serve(move |stream| {
        let writer = stream.try_clone().expect("a socket");
        let mut room = String::new();
        #[allow(clippy::result_large_err)]
        let accepted =
            tungstenite::accept_hdr(stream, |request: &tungstenite::handshake::server::Request, response| {
                room = request.uri().path().to_owned();
                Ok(response)
            });
        let Ok(mut socket) = accepted else { return };
        if !room.starts_with("/echo") {
            members.lock().expect("held briefly").push((room.clone(), writer));
        }
        while let Ok(message) = socket.read() {
            if message.is_close() {
                break;
            }
            if taken.fetch_add(1, Ordering::Relaxed) >= messages {
                if stands_still {
                    continue;
                }
                for (_, member) in members.lock().expect("held briefly").iter() {
                    let _ = member.shutdown(std::net::Shutdown::Both);
                }
                return;
            }
            if room.starts_with("/echo") {
                let _ = socket.send(message);
                continue;
            }
            let bytes = message.into_data();
            let mut frame = vec![0x81, bytes.len() as u8];
            frame.extend_from_slice(&bytes);
            for (_, member) in members.lock().expect("held briefly").iter_mut().filter(|member| member.0 == room) {
                let _ = member.write_all(&frame);
            }
        }
        let _ = socket.close(None);
        while socket.read().is_ok() {}
    })
}

fn kind(figures: &Value, kind: &str) -> u64 {
    figures["problem_kinds"][kind]["count"].as_u64().unwrap_or_default()
}

/// Kills: a scenario that counts what it does not tell. That all is in some line is looked at in every run of these suites.
#[test]
fn a_server_that_stops_in_the_middle_leaves_no_problem_untold() {
    const FLOW: &str = "--warmup 0 --duration 600ms --patience 300ms";
    let scenarios = [
        ("echo", "/echo", "--connections 30 --rate 2000"),
        ("broadcast", "/b", "--subscribers 30 --rate 200"),
        ("rooms", "/r/{room}", "--rooms 6 --members 5 --rate 400"),
        ("slow", "/b", "--subscribers 30 --stalled 3 --rate 200"),
        ("churn", "/echo", "--users 8 --words 3"),
    ];
    for (scenario, path, options) in scenarios {
        for stands_still in [false, true] {
            let addr = serve_until(60, stands_still);
            let figures = run(1, scenario, &format!("ws://{addr}{path}"), &format!("{options} {FLOW}"));
            assert!(kind(&figures, "lost") > 0, "{scenario}: {figures}");
            assert_eq!(kind(&figures, "failed") > 0, !stands_still, "{scenario}: {figures}");
        }
    }
    let addr = serve_until(60, true);
    let options = "--stages 0s:20,600ms:20 --patience 300ms";
    let figures = run(1, "echo", &format!("ws://{addr}/echo"), options);
    assert!(kind(&figures, "lost") >= 20, "{figures}");
}

/// Kills: a refusal that is a failed connection and a status besides.
#[test]
fn a_refused_upgrade_is_one_problem() {
    let refusing = || {
        let asked = AtomicU64::new(0);
        serve(move |mut stream| {
            if asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                let mut socket = tungstenite::accept(stream).expect("a handshake");
                while let Ok(message) = socket.read() {
                    if !message.is_close() {
                        let _ = socket.send(message);
                    }
                }
                return;
            }
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
        })
    };
    let assert_once = |what: &str, figures: &Value| {
        let refused = figures["http_statuses"]["503"].as_u64().expect("a count");
        assert!(refused > 0, "{what}");
        assert_eq!(
            (&figures["problem_count"], kind(figures, "failed")),
            (&json!(refused), refused),
            "{what}: {figures}"
        );
        says(figures, "503");
    };
    for (scenario, options) in [
        ("echo", "--connections 6 --concurrency 1 --warmup 0 --count 30"),
        ("connect", "--connections 6 --concurrency 1"),
        ("churn", "--users 10 --warmup 0 --count 20"),
        ("echo", "--stages 0s:4,300ms:4"),
        ("churn", "--stages 0s:4,300ms:4"),
    ] {
        let figures = run(1, scenario, &format!("ws://{}/", refusing()), options);
        assert_once(&format!("{scenario} {options}"), &figures);
    }
    let file = File::new(
        "users.toml",
        "connections = 4\nduration = \"300ms\"\n[[users]]\nsteps = [{ send = \"{message}\", expect = \"sent\", think = \"10ms\" }]\n",
    );
    assert_once("run", &play(1, "run", &file, &format!("--url ws://{}/", refusing())));
}

/// Kills: a connection that does not even come to be connecting, and is no problem.
#[test]
fn what_cannot_be_opened_has_failed() {
    let addr = serve_until(1000, false);
    // No address of this machine (RFC 5737).
    let options = "--users 1 --warmup 0 --count 3 --bind 203.0.113.7";
    let figures = run(1, "churn", &format!("ws://{addr}/echo"), options);
    assert_eq!((kind(&figures, "failed"), &figures["problem_count"]), (3, &json!(3)), "{figures}");
    assert_eq!(figures["ends"], json!({"never_opened": 3}), "{figures}");
    says(&figures, "Cannot assign requested address");
}

/// Kills: an expectation that is cut at the end of the run and not told; one that is given up before its own time, or after it.
#[test]
fn an_expectation_that_is_open_at_the_end_has_its_own_time() {
    // It answers after so long.
    let late = |after: Duration| {
        serve(move |stream| {
            let mut socket = tungstenite::accept(stream).expect("a handshake");
            while let Ok(message) = socket.read() {
                if message.is_close() {
                    break;
                }
                thread::sleep(after);
                let _ = socket.send(message);
            }
            let _ = socket.close(None);
            while socket.read().is_ok() {}
        })
    };
    let never = || {
        serve(|stream| {
            let mut socket = tungstenite::accept(stream).expect("a handshake");
            while socket.read().is_ok() {}
        })
    };
    let file = |within: &str| {
        let step = format!("{{ name = \"ask\", send = \"{{message}}\", expect = \"sent\", within = \"{within}\" }}");
        File::new("late.toml", &format!("connections = 3\nduration = \"200ms\"\n[[users]]\nsteps = [{step}]\n"))
    };
    // Longer than the run and its patience: still in time.
    let url = format!("--url ws://{}/ --patience 300ms", late(Duration::from_millis(1500)));
    let figures = play(0, "run", &file("5s"), &url);
    assert_eq!(figures["problem_count"], 0, "{figures}");
    // Shorter than the patience, and longer: told each, and by its name.
    for (within, patience) in [("400ms", "5s"), ("900ms", "300ms")] {
        let figures = play(1, "run", &file(within), &format!("--url ws://{}/ --patience {patience}", never()));
        assert_eq!((kind(&figures, "lost"), &figures["problem_count"]), (3, &json!(3)), "{within}: {figures}");
        for user in 0..3 {
            says(&figures, &format!("user {user} (users 1): ask: nothing came that is as expected"));
        }
    }
}
