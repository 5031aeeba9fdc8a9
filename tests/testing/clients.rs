//! What clients of the kit can do, and what an app sees of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringwire::config::Config;
use ringwire::testing::TestServer;
use ringwire::{App, Closed, Envelope, Events, Json, Message, SlowConsumer, Socket, ws};
use serde_json::{Value, json};

/// What `on_close` of an app has seen.
#[derive(Clone, Default)]
struct Ends(Arc<Mutex<Vec<Closed>>>);

impl Ends {
    fn codes(&self) -> Vec<(u16, bool)> {
        self.0.lock().expect("no panic").iter().map(|closed| (closed.code, closed.clean)).collect()
    }
}

fn echo(ends: &Ends) -> App {
    let ends = ends.clone();
    let echo = ws().on_message(|socket: &mut Socket<'_>, message: Message<'_>| socket.send(message));
    App::new().ws("/", echo.on_close(move |_, closed| ends.0.lock().expect("no panic").push(closed.clone())))
}

#[test]
fn messages_of_every_kind_come_back() {
    let server = TestServer::new(|| echo(&Ends::default()));
    let client = server.connect("/");
    client.send("text");
    client.expect_text("text");
    client.send(vec![0, 1, 255]);
    client.expect_binary([0, 1, 255]);
    client.send_json(&json!({"a": [1, 2]}));
    client.expect_json(json!({"a": [1, 2]}));
    client.send_fragments(&["in ", "", "parts"]);
    assert_eq!(client.next_text(), "in parts");
    client.ping("are you there?");
    client.expect_pong("are you there?");
    client.send(Json(7));
    assert_eq!(client.next_json::<u8>(), 7);
    for len in [125, 126, 65_535, 65_536, 3_000_000] {
        client.send(vec![7; len]);
        assert_eq!(client.next_binary().len(), len);
    }
    server.together(|| (0..100).for_each(|number| client.send(number.to_string())));
    let unread: Vec<String> =
        client.unread().iter().filter_map(|message| message.as_text().map(str::to_owned)).collect();
    assert_eq!(unread, Vec::from_iter((0..100).map(|number| number.to_string())));
    client.expect_nothing();
}

#[test]
fn events_are_in_the_envelope_of_the_app() {
    for envelope in [Envelope::Event, Envelope::Path] {
        let server = TestServer::new(|| {
            let events = Events::new().on("say", |socket, data: Value| socket.emit("said", &data));
            App::new().envelope(envelope).ws("/", events)
        });
        let client = server.connect("/");
        client.emit("say", &json!({"x": 1}));
        assert_eq!(client.next_event(), ("said".to_owned(), json!({"x": 1})));
        client.emit("say", "again");
        assert_eq!(client.expect_event("said"), "again");
        let text = crate::failure(|| {
            client.emit("say", "again");
            client.expect_event("other");
        });
        assert!(text.contains(r#"event "other" was due, but event "said" came"#), "{text}");
    }
}

#[test]
fn ends_are_what_the_app_sees_of_them() {
    type Act = fn(&ringwire::testing::TestClient);
    let table: [(Act, (u16, bool)); 6] = [
        (|client| client.close(1000, "bye"), (1000, true)),
        (|client| client.close(4321, ""), (4321, true)),
        (|client| client.leave(), (1006, false)),
        (|client| client.reset(), (1006, false)),
        (|client| client.send_bytes(&[0xff; 8]), (1002, false)),
        (|client| client.send_bytes(&[0x81, 0x81, 0, 0, 0, 0, 0xff]), (1007, false)),
    ];
    for (act, end) in table {
        let ends = Ends::default();
        let server = TestServer::new(|| echo(&ends));
        let client = server.connect("/");
        act(&client);
        assert!(!client.is_open());
        server.advance(Duration::from_secs(10));
        assert_eq!(ends.codes(), [end]);
        assert_eq!(server.hub().websockets(), 0);
    }
    let ends = Ends::default();
    let server = TestServer::new(|| echo(&ends));
    drop(server.connect("/"));
    assert_eq!(ends.codes(), [(1006, false)], "a client that is dropped has left");
}

#[test]
fn what_is_sent_after_the_end_is_lost_without_a_word() {
    let server = TestServer::new(|| echo(&Ends::default()));
    let client = server.connect("/");
    client.close(1000, "bye");
    client.send("too late");
    assert_eq!(client.expect_close(1000), "");
    assert!(client.next().is_none() && client.next().is_none());
    client.leave();
    client.send("much too late");
    client.close(1000, "again");
}

#[test]
fn who_does_not_read_is_a_slow_consumer() {
    let config = Config::default().max_outbox(4096);
    let app = |policy: SlowConsumer| move || App::new().ws("/", ws().slow_consumer(policy));
    let flood = |server: &TestServer| {
        for number in 0..10 {
            server.block_on(server.hub().send_to_all(format!("{number} {}", "x".repeat(998))).expect("text"));
        }
    };
    let numbers = |messages: Vec<ringwire::OwnedMessage>| -> Vec<u8> {
        messages.iter().map(|message| message.as_bytes()[0] - b'0').collect()
    };
    let server = TestServer::builder().config(config.clone()).start(app(SlowConsumer::DropOld));
    let slow = server.connect("/");
    slow.set_window(2000);
    slow.pause();
    flood(&server);
    slow.resume();
    server.advance(Duration::from_secs(1));
    let heard = numbers(slow.unread());
    assert!(heard.len() < 10 && heard.ends_with(&[8, 9]), "{heard:?}");
    assert!(slow.is_open());

    let server = TestServer::builder().config(config).start(app(SlowConsumer::Close));
    let slow = server.connect("/");
    slow.set_window(2000);
    slow.pause();
    flood(&server);
    slow.resume();
    let mut heard = Vec::new();
    while let Some(message) = slow.next() {
        heard.push(message);
    }
    let heard = numbers(heard);
    assert_eq!(heard, Vec::from_iter(0..heard.len() as u8));
    assert!(heard.len() < 10);
    slow.expect_close(1013);
}

#[test]
fn a_slow_line_takes_its_time() {
    let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|_| vec![7_u8; 40_000])));
    let handshake = server.handshake("/");
    let client = handshake.open();
    assert_eq!(client.next_binary().len(), 40_000);
    let client = server.connect("/");
    client.unread();
    client.set_window(1000);
    client.read_slowly(10_000);
    let started = server.now();
    server.block_on(server.hub().send_to_all(vec![1_u8; 20_000]).expect("bytes"));
    assert_eq!(client.next_binary().len(), 20_000);
    let took = server.now() - started;
    assert!((1900..2200).contains(&took.as_millis()), "20 kB at 10 kB/s took {took:?}");
}

#[test]
fn a_handshake_has_all_that_a_browser_sends() {
    let server = TestServer::new(|| {
        App::new().ws(
            "/who",
            ws().subprotocols(["v2", "v1"]).on_connect(|socket| {
                let request = socket.request();
                let field = |name| request.header(name).unwrap_or("-").to_owned();
                let fields = ["authorization", "cookie", "origin", "host", "x-mine"].map(field);
                let peer = request.peer().map(|peer| peer.to_string());
                Json(json!([fields, request.query("q"), peer]))
            }),
        )
    });
    let client = server
        .handshake("/who?q=a%20b")
        .token("t")
        .cookie("user", "ann")
        .origin("https://example.org")
        .header("host", "chat.example")
        .header("x-mine", "1")
        .protocols(["v0", "v1"])
        .from("192.0.2.7:1234".parse().expect("an address"))
        .open();
    client.expect_json(json!([
        ["Bearer t", "user=ann", "https://example.org", "chat.example", "1"],
        "a b",
        "192.0.2.7:1234"
    ]));
    assert_eq!(client.protocol().as_deref(), Some("v1"));
    assert_eq!(client.header("upgrade").as_deref(), Some("websocket"));
    assert_eq!(client.header("x-none"), None);
}
