//! The memory budget and `/metrics` of the real program: clients that do not read, a small budget, and everybody else is
//! served.

#![cfg(feature = "cli")]
#![forbid(unsafe_code)]

mod common;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::program::Program;
use common::raw::{self, Raw, Response};
use common::{PATIENCE, eventually};
use prometheus_parse::{Scrape, Value};

fn get(program: &Program, path: &str) -> Response {
    let mut client = Raw::connect(program.address);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes());
    client.response(false)
}

/// The values of counters and gauges, summed over cores, by name and other labels.
fn metrics(program: &Program) -> BTreeMap<String, f64> {
    let response = get(program, "/metrics");
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some(ringwire::metrics::CONTENT_TYPE));
    let scrape = Scrape::parse(response.body.lines().map(|line| Ok(line.to_owned()))).expect("the format");
    let mut sums = BTreeMap::new();
    for sample in scrape.samples {
        let labels: BTreeMap<&str, &str> = sample.labels.iter().map(|(name, value)| (&**name, &**value)).collect();
        let labels = labels.into_iter().filter(|(name, _)| *name != "core").map(|(_, value)| value);
        let name = [sample.metric.as_str()].into_iter().chain(labels).collect::<Vec<_>>().join(" ");
        if let Value::Counter(value) | Value::Gauge(value) = sample.value {
            *sums.entry(name).or_default() += value;
        }
    }
    sums
}

/// A client that takes next to nothing from its socket; `None` if it is not let in.
fn try_stalled(program: &Program, path: &str) -> Option<Raw> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    // Before it connects, so that the window is as small.
    socket.set_recv_buffer_size(4 << 10).expect("an option");
    socket.connect(&program.address.into()).expect("a connection");
    let mut client = Raw::over(TcpStream::from(socket));
    client.send(&raw::upgrade_request(path));
    (client.response(false).status == 101).then_some(client)
}

#[test]
fn a_spent_budget_sheds_who_does_not_read_and_serves_the_others() {
    const BUDGET: f64 = (2 << 20) as f64;
    let program = Program::start(&["--max-memory=2MiB", "--max-outbox=64MiB", "--close-timeout=2s"]);
    let mut reader = Raw::connect(program.address);
    reader.upgrade("/rooms/x");
    let mut echo = Raw::connect(program.address);
    echo.upgrade("/echo");
    let stalled: Vec<Raw> = (0..10).map(|_| try_stalled(&program, "/rooms/x").expect("it is let in")).collect();
    assert_eq!(metrics(&program)["ringwire_websockets"], 12.0);

    // Until the kernel's buffers are full and the budget is spent, and well past that.
    let shed = "ringwire_shed_total memory";
    let message = raw::binary(&vec![7; 32 << 10]);
    let mut held_max = 0.0_f64;
    let mut sent = 0;
    for round in 0.. {
        for _ in 0..16 {
            reader.send(&message);
            assert_eq!(reader.frame().payload.len(), 32 << 10, "whoever reads gets everything");
            sent += 1;
        }
        echo.send(&raw::text("still here"));
        assert_eq!(echo.frame().payload, b"still here");
        sent += 1;
        let now = metrics(&program);
        held_max = held_max.max(now["ringwire_outbox_bytes"]);
        if now[shed] >= 10.0 && round >= 20 {
            break;
        }
        assert!(round < 2_000, "{now:?}");
    }
    // Ten sockets that refuse one send each, and what a few ticks queue.
    assert!(held_max < BUDGET + 10.0 * (64 << 10) as f64 + 4e6, "{held_max} bytes were held");

    // Nothing is held any more once they have had their time, and everybody is let in again.
    let left = || {
        let now = metrics(&program);
        // The request for the metrics is itself one that is at work.
        let partial = (now["ringwire_partial_bytes"] - 1_000.0).max(0.0);
        let held = now["ringwire_outbox_bytes"] + now["ringwire_inbox_bytes"] + partial;
        (now["ringwire_websockets"], held, get(&program, "/readyz").status)
    };
    eventually(|| left() == (2.0, 0.0, 200), || format!("nothing held: {:?}", left()));
    let now = metrics(&program);
    assert_eq!((now[shed], now["ringwire_websockets_closed_total local 1013"]), (10.0, 10.0), "{now:?}");
    assert_eq!(now["ringwire_memory_limit_bytes"], BUDGET);
    assert_eq!(now["ringwire_messages_received_total"], f64::from(sent));
    let mut late = Raw::connect(program.address);
    late.upgrade("/echo");
    late.send(&raw::text("back"));
    assert_eq!(late.frame().payload, b"back");
    drop(stalled);
}

/// Messages that are in flight whole are held until their connections have had their time to read.
#[test]
fn while_the_budget_is_spent_upgrades_are_refused() {
    let program = Program::start(&["--max-memory=1MiB", "--max-outbox=64MiB", "--log=off"]);
    let path = "/rooms/x";
    let mut members = Vec::new();
    let message = vec![7; 700 << 10];
    let refused = || {
        if get(&program, "/readyz").status != 503 {
            return None;
        }
        let mut late = Raw::connect(program.address);
        late.send(&raw::upgrade_request("/echo"));
        let response = late.response(false);
        (response.status == 503).then_some(response)
    };
    let start = Instant::now();
    let response = loop {
        assert!(start.elapsed() < 3 * PATIENCE, "never refused");
        // Some of those before may have been shed by now; and an upgrade may come in between.
        members.extend((0..4).filter_map(|_| try_stalled(&program, path)));
        let mut sender = Raw::connect(program.address);
        sender.send(&raw::upgrade_request(path));
        if sender.response(false).status == 101 {
            for _ in 0..8 {
                sender.send(&raw::binary(&message));
                let frame = sender.frame();
                if frame.is_close() {
                    // Its own copy made it the largest holder when the budget was next looked at.
                    assert_eq!((frame.code(), &frame.payload[2..]), (Some(1013), &b"out of memory"[..]));
                    break;
                }
                assert_eq!(frame.payload.len(), message.len());
            }
        }
        if let Some(response) = refused() {
            break response;
        }
    };
    assert_eq!(response.header("retry-after"), Some("1"));
    assert_eq!(response.body, r#"{"error":"the server is out of memory"}"#);
    assert_eq!(get(&program, "/healthz").status, 200);
    assert!(metrics(&program)["ringwire_refused_total memory"] >= 1.0);
    eventually(|| get(&program, "/readyz").status == 200, || "memory to be free again".to_owned());
    Raw::connect(program.address).upgrade("/echo");
}

/// Kills: a heap that has huge pages where the system gives them to everybody.
#[test]
fn there_are_no_huge_pages() {
    let program = Program::start(&[]);
    // Linux 5.0.
    assert_eq!(program.status("THP_enabled:"), "0");
}

/// Kills: buffers, and pages of the ring, that are kept for good; an allocator that is not told.
#[test]
fn the_memory_of_large_messages_goes_back_when_they_have_gone() {
    const CLIENTS: usize = 16;
    let program = Program::start(&["--cores=2", "--max-message=16MiB"]);
    let echo = |len: usize| {
        let message = raw::binary(&vec![7; len]);
        let mut clients: Vec<Raw> = (0..CLIENTS).map(|_| Raw::connect(program.address)).collect();
        clients.iter_mut().for_each(|client| client.upgrade("/echo"));
        std::thread::scope(|scope| {
            for client in &mut clients {
                // Nothing comes back before all of a message is there, and of everybody's that is much for an emulated machine.
                client.stream.set_read_timeout(Some(20 * PATIENCE)).expect("a timeout");
                let mut sending = client.stream.try_clone().expect("a clone");
                let message = &message;
                scope.spawn(move || sending.write_all(message).expect("sent"));
                scope.spawn(move || assert_eq!(client.frame().payload.len(), len));
            }
        });
    };
    echo(1 << 10);
    let (before, parts) = (program.rss(), program.memory_parts());
    let mut most = before;
    std::thread::scope(|scope| {
        let burst = scope.spawn(|| echo(16 << 20));
        while !burst.is_finished() {
            most = most.max(program.rss());
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    assert!(most > before + (32 << 20), "{most} where {before} was before: nothing was to be given back");
    eventually(|| program.rss() <= before + before / 10, || format!("{parts}; now {}", program.memory_parts()));
}
