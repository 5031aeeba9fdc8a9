//! Revali: modes, replies, senders, close codes.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use ringwire::{App, BoxError, Connection, Json, OwnedMessage, Sender, Socket, interval, sleep, ws};
use serde_json::{Value, json};
use tungstenite::Message;

use super::rig::{Served, close_code, close_frame, log, raw, say, serve, text};
use crate::common::{PATIENCE, eventually};

#[allow(dead_code)]
#[path = "../../examples/revali_modes.rs"]
mod revali_modes;

fn example() -> Served {
    serve(revali_modes::app)
}

#[test]
fn r01_the_return_value_is_the_reply() {
    let served = example();
    let mut client = served.client("/chat/messages");
    say(&mut client, "hello");
    assert_eq!(text(&mut client), "Echo: hello");

    let served = serve(|| {
        App::new().group("/r", |group| {
            group
                .ws("/str", ws().on_message(|_, _| "a str"))
                .ws("/string", ws().on_message(|_, _| String::from("a string")))
                .ws("/vec", ws().on_message(|_, _| vec![1_u8, 2]))
                .ws("/bytes", ws().on_message(|_, _| Bytes::from_static(&[3])))
                .ws("/json", ws().on_message(|_, _| Json(json!({"a": [1]}))))
                .ws("/some", ws().on_message(|_, _| Some("some")))
                .ws("/ok", ws().on_message(|_, _| Ok::<_, BoxError>(Some("ok"))))
                .ws("/none", ws().on_message(|_, _| None::<&str>))
                .ws("/unit", ws().on_message(|_, _| ()))
        })
    });
    let replies = [
        ("str", Message::text("a str")),
        ("string", Message::text("a string")),
        ("vec", Message::binary(vec![1, 2])),
        ("bytes", Message::binary(vec![3])),
        ("json", Message::text(r#"{"a":[1]}"#)),
        ("some", Message::text("some")),
        ("ok", Message::text("ok")),
    ];
    for (path, reply) in replies {
        let mut client = served.client(&format!("/r/{path}"));
        say(&mut client, "x");
        assert_eq!(client.read().expect("a message"), reply, "{path}");
    }
    for path in ["none", "unit"] {
        let mut client = served.raw();
        client.upgrade(&format!("/r/{path}"));
        client.send(&raw::text("x"));
        assert!(client.is_silent(Duration::from_millis(100)), "{path}");
    }
}

#[test]
fn r02_modes() {
    let served = example();
    // Receive-only: the handler's reply is not sent.
    let mut client = served.raw();
    client.upgrade("/chat/log");
    client.send(&raw::text("x"));
    assert!(client.is_silent(Duration::from_millis(100)));

    // Send-only: runs when the connection opens, and closes it when done.
    let mut client = served.client("/notifications/once");
    assert_eq!(text(&mut client), "Server notification");
    assert_eq!(close_frame(&mut client).0, 1000);

    // It stays open while a sender lives; what its client sends is discarded and counted.
    let mut client = served.client("/notifications/stream");
    assert_eq!(text(&mut client), "Notification stream started");
    say(&mut client, "nobody listens");
    for number in 1..=3 {
        assert_eq!(text(&mut client), format!("Notification {number}"));
    }
    assert_eq!(close_frame(&mut client).0, 1000);
    let discarded =
        || served.hub().ask_all(|hub| hub.counters.messages_discarded).expect("answers").iter().sum::<u64>();
    assert_eq!(discarded(), 1);
}

#[test]
fn r03_bodies_text_json_map_nullable_and_undecodable() {
    let served = example();
    let mut client = served.client("/chat/typed");
    say(&mut client, r#"{"user":"ann","text":"hi"}"#);
    assert_eq!(text(&mut client), "ann: hi");
    let mut client = served.client("/upload/progress");
    say(&mut client, r#"{"progress":50,"filename":"a.txt"}"#);
    assert_eq!(text(&mut client), "Upload progress: 50%");
    say(&mut client, r#"{"progress":100,"filename":"a.txt"}"#);
    assert_eq!(text(&mut client), "Upload complete: a.txt");

    for bad in ["", "hello", r#"{"user":"ann"}"#, "[]", "null"] {
        let mut client = served.client("/chat/typed");
        say(&mut client, bad);
        assert_eq!(close_frame(&mut client).0, 1007, "{bad:?}");
    }
    let nullable = serve(|| App::new().ws("/", ws().on_json(|_, number: Option<u8>| format!("{number:?}"))));
    let mut client = nullable.client("/");
    for (sent, got) in [("7", "Some(7)"), ("null", "None"), ("", "None")] {
        say(&mut client, sent);
        assert_eq!(text(&mut client), got);
    }
    say(&mut client, "256");
    assert_eq!(close_code(&mut client), Some(1007));
}

#[test]
fn r04_replies_now_later_or_many_and_in_order() {
    let served = serve(|| {
        let in_order = async |_: Connection, message: OwnedMessage| {
            if message.as_text() == Some("slow") {
                sleep(Duration::from_millis(50)).await;
            }
            message
        };
        let many = async |mut connection: Connection, message: OwnedMessage| {
            let count: u32 = message.json()?;
            let _ = connection.send_stream(stream::iter((0..count).map(|number| number.to_string()))).await;
            Ok::<_, BoxError>("end")
        };
        App::new().ws("/later", ws().on_message_async(in_order)).ws("/many", ws().on_message_async(many))
    });
    let mut client = served.client("/later");
    for text in ["slow", "fast", "slow", "fast"] {
        say(&mut client, text);
    }
    for expected in ["slow", "fast", "slow", "fast"] {
        assert_eq!(text(&mut client), expected);
    }
    let mut client = served.client("/many");
    say(&mut client, "20000");
    say(&mut client, "1");
    let counted = (0..20_000).map(|number: u32| number.to_string());
    for expected in counted.chain(["end", "0", "end"].map(str::to_owned)) {
        assert_eq!(text(&mut client), expected);
    }
}

#[test]
fn r05_a_sender_works_from_any_thread_and_knows_when_it_is_over() {
    let (give, given) = channel::<Sender>();
    let give = Arc::new(Mutex::new(give));
    let served = serve(move || {
        let give = Arc::clone(&give);
        let route = ws().on_connect(move |socket| give.lock().expect("no panic").send(socket.sender()));
        // A timer of the core's own does it too.
        let timer = ws().on_connect(|socket| {
            let sender = socket.sender();
            socket
                .spawn(async move {
                    let mut ticks = interval(Duration::from_millis(5));
                    for number in 0.. {
                        ticks.tick().await;
                        if sender.is_gone() || sender.send(format!("tick {number}")).is_err() {
                            return;
                        }
                    }
                })
                .detach();
        });
        App::new().ws("/", route).ws("/timer", timer)
    });
    let mut client = served.client("/");
    let sender = given.recv_timeout(PATIENCE).expect("a sender");
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let sender = sender.clone();
            thread::spawn(move || {
                for number in 0..100 {
                    assert_eq!(sender.send(format!("{thread} {number}")).expect("text").wait().queued, 1);
                }
            })
        })
        .collect();
    let mut next = [0; 4];
    for _ in 0..400 {
        let got = text(&mut client);
        let (thread, number) = got.split_once(' ').expect("two numbers");
        let next = &mut next[thread.parse::<usize>().expect("a number")];
        assert_eq!(number, next.to_string(), "each thread's messages keep their order");
        *next += 1;
    }
    for thread in threads {
        thread.join().expect("no panic");
    }
    assert!(!sender.is_gone());
    drop(client);
    eventually(|| sender.is_gone(), || "the sender to know".to_owned());
    assert_eq!(sender.send("too late").expect("text").wait().gone, 1);

    let mut client = served.client("/timer");
    for number in 0..3 {
        assert_eq!(text(&mut client), format!("tick {number}"));
    }
}

#[test]
fn r06_close_codes_and_reasons() {
    let served = serve(|| {
        let route = ws().on_json(|socket, (code, reason): (u16, String)| {
            socket.close(code, &reason).map_err(|error| error.to_string()).err()
        });
        App::new().ws("/", route)
    });
    let mut client = served.client("/");
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        say(&mut client, json!([code, ""]).to_string());
        assert_eq!(text(&mut client), format!("{code} is not a close code that may be sent"));
    }
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        let mut client = served.raw();
        client.upgrade("/");
        client.send(&raw::text(&json!([code, "why"]).to_string()));
        let frame = client.frame();
        assert_eq!((frame.code(), &frame.payload[2..]), (Some(code), &b"why"[..]));
    }
    // Two bytes hold the code, so 123 are left (RFC 6455 5.5); no character is cut in two.
    for (reason, len) in [("x".repeat(123), 123), ("x".repeat(124), 123), ("é".repeat(62), 122), ("𝄞".repeat(40), 120)]
    {
        let mut client = served.raw();
        client.upgrade("/");
        client.send(&raw::text(&json!([4000, reason]).to_string()));
        let frame = client.frame();
        assert_eq!(std::str::from_utf8(&frame.payload[2..]).expect("UTF-8"), &reason[..len]);
    }
    let served = example();
    let mut client = served.client("/chat/persistent");
    say(&mut client, "stay");
    assert_eq!(text(&mut client), "Message processed");
    say(&mut client, "quit");
    assert_eq!(close_frame(&mut client), (1000, "Normal closure".to_owned()));
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
            .ws("/ping", ws().ping_interval(ping).idle_timeout(Duration::from_millis(500)))
            .ws("/idle", ws().ping_interval(Duration::ZERO).idle_timeout(Duration::from_millis(200)).on_connect(noisy))
    });
    // Who answers pings stays, beyond the idle timeout.
    let mut alive = served.raw();
    alive.upgrade("/ping");
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(900) {
        assert_eq!(alive.frame().first, raw::FIN | raw::PING);
        alive.send(&raw::frame(raw::FIN | raw::PONG, b""));
    }
    // What the server sends is no life of the client's.
    let mut idle = served.raw();
    idle.upgrade("/idle");
    let start = Instant::now();
    let (frames, _) = idle.frames();
    assert!(start.elapsed() >= Duration::from_millis(190) && start.elapsed() < PATIENCE);
    assert!(frames.len() > 2 && frames.iter().all(|frame| frame.payload == b"noise"));
}

#[test]
fn r08_trigger_on_connect() {
    let served = example();
    let mut client = served.client("/chat/connection");
    assert_eq!(text(&mut client), "Connected to WebSocket");
    say(&mut client, "hello");
    assert_eq!(text(&mut client), "Message: hello");

    let (tell, told) = log();
    let served = serve(move || {
        let tell = tell.clone();
        let later = ws().trigger_on_connect().on_message_async(async move |_: Connection, message: OwnedMessage| {
            tell(&format!("{:?}", message.as_text()));
        });
        let json = ws().trigger_on_connect().on_json(|_, body: Option<Value>| format!("{body:?}"));
        App::new().ws("/later", later).ws("/json", json)
    });
    let mut client = served.client("/later");
    say(&mut client, "x");
    assert_eq!(told.take(2), [r#"Some("")"#, r#"Some("x")"#]);
    assert_eq!(text(&mut served.client("/json")), "None");
}
