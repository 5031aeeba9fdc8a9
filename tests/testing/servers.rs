//! Servers of the kit: settings, HTTP, cores, the hub, the end.

use std::thread;
use std::time::Duration;

use http::StatusCode;
use ringwire::config::{Config, Origins};
use ringwire::testing::{TestServer, request};
use ringwire::{App, Connection, Files, HttpError, Request, Response, sleep, standalone, ws};
use serde_json::{Value, json};

use crate::failure;

#[test]
fn files_of_a_directory_are_served() {
    let dir = std::env::temp_dir().join(format!("ringwire-kit-files-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("index.html"), "<h1>Hello</h1>").unwrap();
    std::fs::write(dir.join("large.bin"), vec![7; 300_000]).unwrap();
    let server = TestServer::new({
        let dir = dir.clone();
        move || App::new().files("/", Files::dir(&dir))
    });
    let index = server.get("/").send().expect_status(200);
    assert_eq!((index.text(), index.header("content-type")), ("<h1>Hello</h1>", Some("text/html; charset=utf-8")));
    assert_eq!(server.get("/large.bin").send().body().len(), 300_000);
    let part = server.get("/large.bin").header("range", "bytes=10-19").send().expect_status(206);
    assert_eq!(part.body().len(), 10);
    server.get("/missing").send().expect_status(404);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn responses_come_whole() {
    let server = TestServer::new(|| {
        App::new()
            .get("/text", async |_: Request| "hello")
            .get("/large", async |_: Request| "x".repeat(1_000_000))
            .any("/echo", async |request: Request| {
                Response::bytes("application/octet-stream", request.body().clone()).with_status(StatusCode::CREATED)
            })
            .get("/fails", async |_: Request| Err::<(), _>(HttpError::unavailable("not now")))
            .get("/panics", async |_: Request| -> &'static str { panic!("as it should") })
            .delete("/", async |_: Request| ())
    });
    assert_eq!(server.get("/text").send().text(), "hello");
    assert_eq!(server.get("/large").send().body().len(), 1_000_000);
    let echoed = server.put("/echo").header("x-a", "b").body(vec![1_u8; 100_000]).send().expect_status(201);
    assert_eq!((echoed.body().len(), echoed.header("content-type")), (100_000, Some("application/octet-stream")));
    assert_eq!(server.request("HEAD", "/text").send().expect_status(200).text(), "");
    assert_eq!(server.get("/fails").send().expect_status(503).json::<Value>(), json!({"error": "not now"}));
    assert_eq!(server.get("/panics").send().status(), 500);
    assert_eq!(server.delete("/").send().status(), 204);
    assert_eq!(server.get("/nowhere").send().status(), 404);
    assert_eq!(server.post("/text").send().expect_status(405).header("allow"), Some("GET, HEAD"));
    let text = failure(|| drop(server.get("/nowhere").send().expect_status(200)));
    assert!(text.contains("404") && text.contains("not found"), "{text}");
}

#[test]
fn settings_hold() {
    let config = Config::default()
        .origins("https://example.org".parse::<Origins>().expect("an origin"))
        .max_body(10)
        .max_connections(2)
        .max_message(200);
    let app = || App::new().ws("/", ws().on_message(|_, _| "yes")).post("/", async |_: Request| "taken");
    let server = TestServer::builder().config(config).start(app);
    assert_eq!(server.handshake("/").origin("https://evil.example").refusal().status(), 403);
    assert_eq!(server.post("/").body("x".repeat(11)).send().status(), 413);
    let (one, _two) = (server.handshake("/").origin("https://example.org").open(), server.connect("/"));
    assert_eq!(server.handshake("/").refusal().status(), 503);
    one.send("x".repeat(201));
    one.expect_close(1009);
    let text = failure(|| {
        let config = Config::default().max_message(1);
        TestServer::builder().config(config).start(App::new);
    });
    assert!(text.contains("RINGWIRE_MAX_MESSAGE"), "{text}");
}

#[test]
fn connections_go_to_all_cores_and_apps_are_made_on_each() {
    let made = std::cell::Cell::new(0);
    let server = TestServer::builder().cores(3).start(|| {
        made.set(made.get() + 1);
        App::new().ws("/", ws())
    });
    assert_eq!(made.get(), 3);
    let _clients: Vec<_> = (0..6).map(|_| server.connect("/")).collect();
    let _second = server.handshake("/").on_core(1).open();
    let known = server.block_on(server.hub().connections()).expect("the cores answer");
    let on = |core: usize| known.iter().filter(|known| known.core == core).count();
    assert_eq!([on(0), on(1), on(2)], [2, 3, 2]);
}

#[test]
fn many_connections_fit_where_they_are_asked_for() {
    let server = TestServer::builder().slots(700).start(|| App::new().ws("/", ws()));
    let clients: Vec<_> = (0..600).map(|_| server.connect("/")).collect();
    let told = server.block_on(server.hub().send_to_all("all").expect("text"));
    assert_eq!(told.queued, 600);
    clients.iter().for_each(|client| client.expect_text("all"));
}

#[test]
fn the_stand_alone_program_runs_in_it_too() {
    let config = Config::default();
    let server = TestServer::builder().cores(2).start(|| standalone::app(&config));
    let echo = server.connect("/echo");
    echo.send("hello");
    echo.expect_text("hello");
    let (one, two) = (server.connect("/ws"), server.connect("/ws"));
    let id = one.expect_event("connected")["id"].clone();
    two.expect_event("connected");
    two.emit("join", &json!({"room": "lobby"}));
    assert_eq!(two.expect_event("joined")["members"], 1);
    one.emit("join", &json!({"room": "lobby"}));
    one.expect_event("joined");
    assert_eq!(two.expect_event("user-joined")["userId"], id);
    assert_eq!(server.get("/healthz").send().json::<Value>(), json!({"status": "ok"}));
    server.shutdown();
    for client in [one, two, echo] {
        while client.next().is_some() {}
        client.expect_close(1001);
    }
    server.join();
}

/// An answer of the hub's is awaited; whoever blocks for it is told, for the cores run on his thread.
#[test]
fn the_hub_is_asked_from_outside_and_nobody_hangs() {
    let other = TestServer::new(|| App::new().ws("/", ws()));
    let server = TestServer::builder().cores(3).start(|| App::new().ws("/", ws()));
    let clients: Vec<_> = (0..4).map(|_| server.connect("/")).collect();
    drop(other);
    let text = failure(|| assert_eq!(server.hub().send_to_all("x").expect("text").wait().queued, 0));
    assert!(text.contains("TestServer::block_on"), "{text}");
    clients.iter().for_each(|client| client.expect_text("x"));
    let told = server.block_on(server.hub().send_to_all("y").expect("text"));
    assert_eq!(told.queued, 4);
    clients.iter().for_each(|client| client.expect_text("y"));
    let of_hand = request("GET", "/").hub(server.hub()).build();
    assert_eq!(of_hand.hub().websockets(), 4);
    assert_eq!(request("GET", "/").build().hub().websockets(), 0);
    let nobody = request("GET", "/").build();
    assert_eq!(server.block_on(nobody.hub().send_to_all("x").expect("text")).queued, 0);
}

#[test]
fn other_threads_may_have_part_in_what_is_awaited() {
    let server = TestServer::builder().cores(2).start(|| App::new().ws("/", ws()));
    let client = server.connect("/");
    let hub = server.hub().clone();
    let (tell, told) = oneshot::async_channel();
    let thread = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        let delivered = hub.send_to_all("from afar").expect("text").wait();
        let _ = tell.send(delivered.queued);
    });
    assert_eq!(server.block_on(told), Ok(1));
    client.expect_text("from afar");
    thread.join().expect("no panic");
}

#[test]
fn a_response_may_come_later() {
    let server = TestServer::new(|| {
        App::new().ws("/", ws()).get("/when-somebody-is-there", async |request: Request| {
            while request.hub().websockets() == 0 {
                sleep(Duration::from_millis(100)).await;
            }
            "now"
        })
    });
    let pending = server.get("/when-somebody-is-there").start();
    server.advance(Duration::from_secs(5));
    assert!(!pending.is_ready());
    let _client = server.connect("/");
    assert_eq!(pending.response().text(), "now");
    let text = failure(|| drop(server.get("/when-somebody-is-there").send().expect_status(500)));
    assert!(text.contains("200"), "{text}");
}

#[test]
fn a_drain_ends_tasks_and_a_server_that_was_not_told_does_not_end() {
    let forever = async |mut socket: Connection| while socket.recv().await.is_some() {};
    let server = TestServer::builder().cores(2).start(|| App::new().ws("/", ws().task(forever)));
    let (one, two) = (server.connect("/"), server.connect("/"));
    two.pause();
    server.shutdown();
    one.expect_close(1001);
    server.join();
}

/// Kills: a loop without an end that is no reply, whose type is `!`.
#[test]
fn an_endless_task_is_one() {
    let ticks = async |socket: Connection| loop {
        let _ = socket.send("tick");
        sleep(Duration::from_secs(1)).await;
    };
    let never = async |_: Request| loop {
        sleep(Duration::from_secs(3600)).await;
    };
    let server = TestServer::new(|| App::new().ws("/", ws().task(ticks)).get("/never", never));
    let client = server.connect("/");
    for _ in 0..3 {
        client.expect_text("tick");
        server.advance(Duration::from_secs(1));
    }
}

/// Kills: a time of its own that is added to that of the settings, a notice that takes all of it, a spread that goes on
/// beyond it, and later calls that make it longer.
#[test]
fn a_drain_ends_at_the_earliest_time_that_it_was_given() {
    let seconds = Duration::from_secs;
    let settings = |notice_s, timeout_s, spread_s| {
        Config::default()
            .drain_notice(seconds(notice_s))
            .drain_timeout(seconds(timeout_s))
            .drain_spread(seconds(spread_s))
            .close_timeout(seconds(3000))
            .ping_interval(Duration::ZERO)
            .idle_timeout(Duration::ZERO)
    };
    // Settings; calls, each at its second with its time (0: that of the settings); when all is over, and by when
    // everybody has been told to go.
    type Row = ((u64, u64, u64), &'static [(u64, u64)], u64, u64);
    let rows: [Row; 10] = [
        ((0, 40, 0), &[(0, 0)], 40, 0),
        ((10, 40, 20), &[(0, 0)], 50, 30),
        ((0, 40, 0), &[(0, 8)], 8, 0),
        ((0, 40, 0), &[(0, 100)], 100, 0),
        ((30, 40, 40), &[(0, 16)], 16, 12),
        ((0, 40, 0), &[(0, 0), (10, 5), (12, 60)], 15, 0),
        ((0, 40, 0), &[(0, 5), (1, 0)], 5, 0),
        ((0, 40, 0), &[(0, 100), (10, 0)], 50, 0),
        ((30, 40, 0), &[(0, 0), (10, 8)], 18, 14),
        ((0, 400, 300), &[(0, 0), (10, 40)], 50, 30),
    ];
    for ((notice_s, timeout_s, spread_s), calls, over_s, told_s) in rows {
        let row = format!("{:?}", ((notice_s, timeout_s, spread_s), calls));
        let server = TestServer::builder()
            .cores(2)
            .config(settings(notice_s, timeout_s, spread_s))
            .start(|| App::new().ws("/", ws()));
        // They read nothing, and so they answer no Close frame.
        let clients: Vec<_> = (0..8).map(|_| server.connect("/")).collect();
        clients.iter().for_each(|client| client.pause());
        let since = server.now();
        let pass_to = |second: u64, less: Duration| server.advance(since + seconds(second) - less - server.now());
        for (at, within) in calls {
            pass_to(*at, Duration::ZERO);
            match within {
                0 => server.hub().shutdown(),
                within => server.hub().shutdown_within(seconds(*within)),
            }
        }
        // A few milliseconds for ticks and timers.
        let slack = Duration::from_millis(200);
        if told_s > 0 {
            pass_to(told_s + 1, slack);
        }
        pass_to(over_s, slack);
        assert_eq!(server.hub().websockets(), 8, "too soon: {row}");
        server.advance(2 * slack);
        assert_eq!(server.hub().websockets(), 0, "too late: {row}");
        for client in clients {
            client.resume();
            client.expect_close(1001);
        }
        server.join();
    }
}

/// A test that panics ends, with clients, tasks and letters under way; and another server is not disturbed.
#[test]
fn panics_of_a_test_do_not_hang() {
    let bystander = TestServer::new(|| App::new().ws("/", ws().on_message(|_, _| "yes")));
    let client = bystander.connect("/");
    let text = failure(|| {
        let forever = async |socket: Connection| {
            while socket.send("tick").is_queued() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let server = TestServer::builder().cores(3).start(|| App::new().ws("/", ws().task(forever)));
        let clients: Vec<_> = (0..3).map(|_| server.connect("/")).collect();
        server.advance(Duration::from_millis(10));
        let _pending = server.get("/").start();
        clients[0].expect_text("tock");
    });
    assert!(text.contains("tock"), "{text}");
    client.send("are you there?");
    client.expect_text("yes");
}

/// A handler that fails is the connection's end, and not the test's.
#[test]
fn panics_of_handlers_are_the_apps() {
    let server =
        TestServer::new(|| App::new().ws("/", ws().on_message(|_, _| -> &'static str { panic!("as it should") })));
    let client = server.connect("/");
    client.send("x");
    client.expect_close(1011);
}

#[test]
fn who_never_rests_is_found() {
    let server = TestServer::new(|| {
        App::new().ws(
            "/",
            ws().task(async |_: Connection| {
                std::future::poll_fn(|cx| {
                    cx.waker().wake_by_ref();
                    std::task::Poll::<()>::Pending
                })
                .await
            }),
        )
    });
    let text = failure(|| drop(server.connect("/")));
    assert!(text.contains("never rests"), "{text}");
}
