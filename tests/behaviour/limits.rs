//! Limits of a route, heartbeats, and bounded buffers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ringwire::config::SlowConsumer;
use ringwire::{App, Connection, Request, Socket, sleep, ws};
use tungstenite::Message;

use crate::common::{PATIENCE, config, eventually};
use crate::examples::dart;
use crate::rig::{close_code, log, raw, serve, serve_with, text};

#[test]
fn a14_limits_heartbeat_rate_and_clean_up() {
    let cleaned = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&cleaned);
    let served = serve(move || {
        let counter = Arc::clone(&counter);
        let guarded = ws().on_connect(move |socket| {
            let counter = Arc::clone(&counter);
            socket.on_cleanup(move || {
                counter.fetch_add(1, Ordering::Relaxed);
            });
        });
        App::new()
            .ws("/size", guarded.clone().max_message(1000).on_message(|_, _| "fits"))
            .ws("/rate", guarded.clone().message_rate(10))
            .ws("/alive", guarded.ping_interval(Duration::from_millis(30)).idle_timeout(Duration::from_millis(600)))
    });
    let mut client = served.client("/size");
    client.send(Message::binary(vec![0; 1000])).expect("sent");
    assert_eq!(text(&mut client), "fits");
    client.send(Message::binary(vec![0; 1001])).expect("sent");
    assert_eq!(close_code(&mut client), Some(1009));

    let mut client = served.client("/rate");
    for _ in 0..50 {
        // It may have been closed already.
        let _ = client.send(Message::text("x"));
    }
    assert_eq!(close_code(&mut client), Some(1008));

    // One that does not answer pings is stale.
    let mut client = served.raw();
    client.upgrade("/alive");
    let (frames, _) = client.frames();
    assert!(!frames.is_empty() && frames.iter().all(|frame| frame.first == raw::FIN | raw::PING), "{frames:?}");
    served.await_count(0);
    assert_eq!(cleaned.load(Ordering::Relaxed), 3);
}

#[test]
fn r07_ping_interval_and_idle_timeout_of_a_route() {
    let served = serve(|| {
        let noisy = |socket: &mut Socket<'_>| {
            let sender = socket.sender();
            socket
                .spawn(async move {
                    while !sender.is_gone() {
                        sleep(Duration::from_millis(20)).await;
                        let _ = sender.send("noise");
                    }
                })
                .detach();
        };
        let ping = Duration::from_millis(50);
        App::new()
            .ws("/ping", ws().ping_interval(ping).idle_timeout(Duration::from_secs(1)))
            .ws("/idle", ws().ping_interval(Duration::ZERO).idle_timeout(Duration::from_millis(400)).on_connect(noisy))
    });
    // Who answers pings stays, beyond the idle timeout.
    let mut alive = served.raw();
    alive.upgrade("/ping");
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1800) {
        assert_eq!(alive.frame().first, raw::FIN | raw::PING);
        alive.send(&raw::frame(raw::FIN | raw::PONG, b""));
    }
    // What the server sends is no life of the client's.
    let mut idle = served.raw();
    idle.upgrade("/idle");
    let start = Instant::now();
    let (frames, _) = idle.frames();
    assert!(start.elapsed() >= Duration::from_millis(390) && start.elapsed() < PATIENCE);
    assert!(!frames.is_empty() && frames.iter().all(|frame| frame.payload == b"noise"));
}

#[test]
fn d04_keep_alive_and_bounded_buffers() {
    // A ping of the client's is answered with its payload.
    let served = dart();
    let mut client = served.raw();
    client.upgrade("/");
    client.send(&raw::frame(raw::FIN | raw::PING, b"are you there"));
    let pong = client.frame();
    assert_eq!((pong.first, pong.payload.as_slice()), (raw::FIN | raw::PONG, &b"are you there"[..]));

    // Who does not read is treated as its route says, and never holds more than the outbox may.
    let (tell, told) = log();
    let config = config().max_outbox(256 << 10);
    let served = serve_with(config, move || {
        let tell = tell.clone();
        // Tick by tick, so that each time the socket takes what it can.
        let flood = async move |mut connection: Connection| {
            connection.recv().await;
            let mut dropped = false;
            for number in 0..20_000 {
                dropped |= !connection.send([0; 1000]).is_queued();
                assert!(connection.outbox_bytes() <= 256 << 10);
                if number % 100 == 0 {
                    sleep(Duration::from_millis(1)).await;
                }
            }
            tell(if dropped { "dropped" } else { "queued" });
        };
        App::new()
            .ws("/close", ws().slow_consumer(SlowConsumer::Close).task(flood.clone()))
            .ws("/drop-new", ws().slow_consumer(SlowConsumer::DropNew).task(flood.clone()))
            .ws("/drop-old", ws().slow_consumer(SlowConsumer::DropOld).task(flood))
    });
    for (path, outcome) in [("/close", "dropped"), ("/drop-new", "dropped"), ("/drop-old", "queued")] {
        let mut client = served.raw();
        client.upgrade(path);
        client.send(&raw::text("flood"));
        assert_eq!(told.next(), outcome, "{path}");
        // What was queued arrives, whole, and then the connection is closed or goes on.
        if path == "/close" {
            let (frames, _) = client.frames();
            assert_eq!(frames.last().and_then(raw::Frame::code), Some(1013));
        } else {
            client.send(&raw::frame(raw::FIN | raw::PING, b"still there?"));
            let mut frame = client.frame();
            while frame.first != raw::FIN | raw::PONG {
                assert_eq!((frame.first, frame.payload.len()), (raw::FIN | raw::BINARY, 1000), "{path}");
                frame = client.frame();
            }
        }
    }
    eventually(|| served.hub().websockets() == 0, || "all to go".to_owned());
}

/// Kills: limits of a route that are not used, or that an upgrade by an HTTP handler loses.
#[test]
fn a_route_has_its_own_limits_however_it_is_reached() {
    let config = config().ping_interval(Duration::ZERO).idle_timeout(Duration::ZERO);
    let served = serve_with(config, || {
        let route = || {
            let limited = ws().max_message(10).message_rate(5).ping_interval(Duration::from_millis(50));
            limited.on_message(|_, _| "fits")
        };
        let upgraded = route();
        App::new().ws("/ws", route()).get("/upgraded", async move |request: Request| request.upgrade(&upgraded))
    });
    for path in ["/ws", "/upgraded"] {
        let mut client = served.raw();
        client.upgrade(path);
        assert_eq!(client.frame().first, raw::FIN | raw::PING, "{path}: the server itself never pings");
        client.send(&raw::text("x").repeat(50));
        let (frames, _) = client.frames();
        assert_eq!(frames.last().and_then(raw::Frame::code), Some(1008), "{path}");

        let mut client = served.client(path);
        client.send(Message::binary(vec![0; 10])).expect("sent");
        assert_eq!(text(&mut client), "fits");
        client.send(Message::binary(vec![0; 11])).expect("sent");
        assert_eq!(close_code(&mut client), Some(1009), "{path}");
    }
}

/// Kills: a policy that drops at the wrong end, which messages that are all alike do not show.
#[test]
fn a_slow_consumer_keeps_the_first_or_the_last() {
    const SENT: u32 = 500;
    let config = config().max_outbox(64 << 10);
    let served = serve_with(config, || {
        // All in one call, so that none of it has been sent when the queue is full.
        let flood = |policy| {
            ws().slow_consumer(policy).on_message(|socket: &mut ringwire::Socket<'_>, _| {
                for number in 0..SENT {
                    let _ = socket.send(format!("{number:01000}"));
                }
            })
        };
        App::new()
            .ws("/drop-new", flood(SlowConsumer::DropNew))
            .ws("/drop-old", flood(SlowConsumer::DropOld))
            .ws("/keep-latest", flood(SlowConsumer::KeepLatest))
    });
    for (path, keeps_first) in [("/drop-new", true), ("/drop-old", false), ("/keep-latest", false)] {
        let mut client = served.raw();
        client.upgrade(path);
        client.send(&[raw::text("flood"), raw::frame(raw::FIN | raw::PING, b"")].concat());
        let mut got: Vec<u32> = Vec::new();
        loop {
            let frame = client.frame();
            if frame.first == raw::FIN | raw::PONG {
                break;
            }
            got.push(std::str::from_utf8(&frame.payload).expect("text").parse().expect("a number"));
        }
        let count = got.len() as u32;
        assert!((50..100).contains(&count), "{path}: {count}");
        let first = if keeps_first { 0 } else { SENT - count };
        assert_eq!(got, (first..first + count).collect::<Vec<u32>>(), "{path}");
    }
}
