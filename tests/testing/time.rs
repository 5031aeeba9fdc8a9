//! The virtual clock: what falls due, and what does not.

use std::time::Duration;

use futures_util::StreamExt as _;
use ringwire::config::Config;
use ringwire::testing::TestServer;
use ringwire::{App, Connection, OwnedMessage, Request, Streamed, interval, sleep, timeout, ws};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_clock_moves_only_when_something_waits_for_it() {
    let server = TestServer::new(|| App::new().ws("/", ws().on_message(|_, _| "yes")));
    let client = server.connect("/");
    for _ in 0..10 {
        client.send("x");
        client.expect_text("yes");
    }
    assert_eq!(server.now(), Duration::ZERO);
    server.advance(7 * SECOND);
    assert_eq!(server.now(), 7 * SECOND);
    client.expect_nothing_for(SECOND);
    assert_eq!(server.now(), 8 * SECOND);
}

/// Kills: a step that jumps over what falls due; timers that fire early.
#[test]
fn everything_falls_due_in_its_time() {
    let server = TestServer::new(|| {
        App::new()
            .ws(
                "/sleep",
                ws().on_message_async(async |_: Connection, message: OwnedMessage| {
                    let ms = message.as_text().and_then(|text| text.parse().ok()).unwrap_or(0);
                    sleep(Duration::from_millis(ms)).await;
                    "slept"
                }),
            )
            .ws(
                "/ticks",
                ws().task(async |socket: Connection| {
                    let mut ticks = interval(10 * SECOND);
                    ticks.tick().await;
                    while socket.send("tick").is_queued() {
                        ticks.tick().await;
                    }
                }),
            )
            .ws("/stream", ws().on_connect(|_| Streamed(interval(10 * SECOND).into_stream().map(|()| "tick"))))
            .ws(
                "/timeout",
                ws().task(async |mut socket: Connection| {
                    let late = timeout(5 * SECOND, socket.recv()).await.is_err();
                    let _ = socket.send(if late { "late" } else { "in time" });
                }),
            )
            .get("/slow", async |_: Request| {
                sleep(100 * SECOND).await;
                "done"
            })
    });
    let client = server.connect("/sleep");
    client.send("2500");
    client.expect_nothing_for(Duration::from_millis(2499));
    server.advance(Duration::from_millis(1));
    client.expect_text("slept");
    assert_eq!(server.now(), Duration::from_millis(2500));

    for path in ["/ticks", "/stream"] {
        let client = server.connect(path);
        client.expect_nothing_for(Duration::from_millis(9999));
        client.expect_text("tick");
        server.advance(60 * SECOND);
        assert_eq!(client.unread().len(), 6);
    }

    let (late, early) = (server.connect("/timeout"), server.connect("/timeout"));
    early.send("x");
    early.expect_text("in time");
    late.expect_text("late");

    let pending = server.get("/slow").start();
    server.advance(61 * SECOND);
    assert_eq!(pending.response().status(), 503, "RINGWIRE_ANSWER_TIMEOUT");
}

#[test]
fn who_answers_pings_stays_and_who_does_not_goes() {
    let server = TestServer::builder().cores(2).start(|| App::new().ws("/", ws()));
    let (lively, dead) = (server.connect("/"), server.connect("/"));
    dead.pause();
    server.advance(Duration::from_secs(3600));
    assert!(lively.is_open());
    for _ in 0..100 {
        lively.expect_ping();
    }
    dead.resume();
    assert!(!dead.is_open());
    assert_eq!(server.hub().websockets(), 1);

    let config = Config::default().ping_interval(Duration::ZERO).idle_timeout(10 * SECOND);
    let server = TestServer::builder().config(config).start(|| App::new().ws("/", ws()));
    let silent = server.connect("/");
    silent.expect_nothing_for(9 * SECOND);
    server.advance(SECOND + Duration::from_millis(16));
    assert!(!silent.is_open());
}

#[test]
fn patience_is_as_long_as_is_asked_for() {
    let app = || {
        App::new().get("/", async |_: Request| {
            sleep(30 * SECOND).await;
            "done"
        })
    };
    let text = crate::failure(|| drop(TestServer::new(app).get("/").send()));
    assert!(text.contains("GET /: there is no answer"), "{text}");
    let server = TestServer::builder().patience(31 * SECOND).start(app);
    assert_eq!(server.get("/").send().text(), "done");
    assert_eq!(server.now(), 30 * SECOND);
}
