//! Spry: sockets awaited in a task, and what surrounds them.

use std::time::Duration;

use ringwire::{App, Request, ws};
use serde_json::Value;
use tungstenite::Message;

use super::rig::{Served, close_frame, json, log, raw, request, say, serve, text};

#[allow(dead_code)]
#[path = "../../examples/spry_echo.rs"]
mod spry_echo;

fn example() -> Served {
    serve(spry_echo::app)
}

#[test]
fn s01_groups_and_middleware_apply_to_sockets() {
    let served = example();
    let path = "/inner/most/echo";
    assert_eq!(served.connect(path, &[]).err(), Some(403));
    assert_eq!(served.http("GET", "/inner/most/plain", "").0, 403);
    let (mut client, _) = served.connect(path, &[("X-Key", "1")]).expect("an upgrade");
    say(&mut client, "in");
    assert_eq!(text(&mut client), "in");
}

#[test]
fn s02_await_or_listen_and_send_or_stream() {
    let served = example();
    for path in ["/echo", "/listen"] {
        let mut client = served.client(path);
        // More than a task's inbox and the socket's buffers hold.
        for number in 0..200 {
            client.send(Message::binary(vec![number; 10_000])).expect("sent");
        }
        for number in 0..200 {
            assert_eq!(client.read().expect("a message"), Message::binary(vec![number; 10_000]), "{path}");
        }
    }
    let mut client = served.client("/count");
    say(&mut client, "500");
    for number in 1..=500 {
        assert_eq!(text(&mut client), number.to_string());
    }
    assert_eq!(close_frame(&mut client), (1000, "counted".to_owned()));
}

#[test]
fn s03_open_until_closed_and_what_was_sent_before_arrives() {
    let (tell, told) = log();
    let served = serve(move || {
        let tell = tell.clone();
        let done = ws().task(async move |_| tell("returned"));
        let last = "x".repeat(300_000);
        let send_and_close = ws().on_connect(move |socket| {
            let _ = socket.send(&last);
            socket.close(1000, "")
        });
        App::new().ws("/done", done).ws("/last", send_and_close)
    });
    let mut client = served.raw();
    client.upgrade("/done");
    assert_eq!(told.next(), "returned");
    // Messages that nobody awaits any more are discarded; the connection lives.
    client.send(&raw::text("x").repeat(100));
    assert!(client.is_silent(Duration::from_millis(100)));
    client.send(&raw::frame(raw::FIN | raw::PING, b"there?"));
    assert_eq!(client.frame().payload, b"there?");

    let mut client = served.client("/last");
    assert_eq!(text(&mut client).len(), 300_000);
    assert_eq!(close_frame(&mut client).0, 1000);

    let served = example();
    let mut client = served.client("/once");
    say(&mut client, "bye");
    assert_eq!(text(&mut client), "bye");
    assert_eq!(close_frame(&mut client).0, 1000);
}

#[test]
fn s04_a_throwing_handler_closes_and_answers_no_http() {
    let served = example();
    let mut client = served.raw();
    client.upgrade("/throws");
    client.send(&raw::text("x"));
    let (frames, _) = client.frames();
    assert_eq!((frames.len(), frames[0].code()), (1, Some(1011)), "one Close frame and nothing else");
    assert!(!String::from_utf8_lossy(&frames[0].payload).contains("secret"));
}

#[test]
fn s05_the_request_is_there_after_the_upgrade() {
    let served = example();
    let (mut client, _) = served.connect("/who?name=a%20b+c&x=1", &[("User-Agent", "seed")]).expect("an upgrade");
    let who: Value = json(&mut client);
    assert_eq!(who["method"], "GET");
    assert_eq!(who["path"], "/who");
    assert_eq!(who["name"], "a b c");
    assert_eq!(who["agent"], "seed");
    assert_eq!(who["peer"], "127.0.0.1");
    assert_eq!(who["body"], 0);
}

#[test]
fn s06_a_request_that_is_no_handshake() {
    let served = serve(|| {
        App::new()
            .ws("/only", ws())
            .ws("/both", ws().on_connect(|_| "a socket"))
            .get("/both", async |_: Request| "a page")
    });
    let mut client = served.raw();
    client.send(&request("GET", "/only", ""));
    let refused = client.response(false);
    assert_eq!((refused.status, refused.header("upgrade")), (426, Some("websocket")));
    assert_eq!(served.http("GET", "/both", ""), (200, "a page".to_owned()));
    assert_eq!(text(&mut served.client("/both")), "a socket");
}
