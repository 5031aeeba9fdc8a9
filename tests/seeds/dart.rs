//! The Dart tutorial: a client and a server for it.

use std::time::Duration;

use ringwire::client::{ClientError, blocking, connect};
use ringwire::config::{Config, SlowConsumer};
use ringwire::{App, Connection, sleep, ws};
use serde_json::json;
use tungstenite::Message;

use super::rig::{Served, block_on, json, log, raw, request, say, serve, serve_with, text};
use crate::common::{config, eventually};

#[allow(dead_code)]
#[path = "../../examples/dart_client_server.rs"]
mod dart_client_server;

fn example() -> Served {
    serve(dart_client_server::app)
}

#[test]
fn d01_a_client_connects_sends_listens_closes_or_fails() {
    let served = example();
    let url = format!("ws://{}/", served.address);
    let mut client = blocking::connect(&url).expect("a connection");
    client.send("Hello from Dart!").expect("sent");
    client.send([1, 2, 3]).expect("sent");
    let mut next = || client.recv().expect("a message").expect("no error");
    assert_eq!(next().as_text(), Some("Echo: Hello from Dart!"));
    assert_eq!(next().as_bytes(), [1, 2, 3]);
    let closed = client.close(1000, "bye").expect("closed");
    assert_eq!((closed.code, closed.clean), (1000, true));
    assert!(client.recv().is_none(), "done");

    // Awaited, it ends when the server says so.
    let mut client = block_on(connect(&url)).expect("a connection");
    let hub = served.hub();
    let id = block_on(hub.ids()).expect("the cores answer")[0];
    assert_eq!(hub.disconnect(id, 4001, "go").expect("a legal code").wait(), Some(true));
    assert!(matches!(block_on(client.recv()), None | Some(Err(_))));
    assert_eq!(client.closed().map(|closed| (closed.code, closed.reason)), Some((4001, "go".to_owned())));

    // Failures are values.
    let nowhere = blocking::connect(format!("{url}nowhere")).expect_err("no such route");
    assert!(nowhere.to_string().contains("404"), "{nowhere}");
    served.shutdown();
    assert!(matches!(blocking::connect(&url), Err(ClientError::Connect { .. })), "nobody listens there any more");
    assert!(matches!(blocking::connect("http://x"), Err(ClientError::Url { .. })));
}

#[test]
fn d02_many_clients_and_a_refusal_of_others() {
    let served = example();
    let mut clients = served.clients_on_both_cores("/", 50);
    for (number, client) in clients.iter_mut().enumerate() {
        say(client, format!("from {number}"));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(text(client), format!("Echo: from {number}"));
    }
    let mut other = served.raw();
    other.send(&request("GET", "/", ""));
    assert_eq!(other.response(false).status, 403);
}

#[test]
fn d03_binary_and_json() {
    let served = example();
    let mut client = served.client("/");
    client.send(Message::binary(vec![1, 2, 3, 4, 5])).expect("sent");
    assert_eq!(client.read().expect("a message"), Message::binary(vec![1, 2, 3, 4, 5]));
    say(&mut client, r#"{"type":"greeting","content":"Hello Server"}"#);
    assert_eq!(json(&mut client), json!({"type": "response", "content": "Hello Client"}));
    say(&mut client, r#"{"type":"other"}"#);
    assert_eq!(text(&mut client), r#"Echo: {"type":"other"}"#);
}

#[test]
fn d04_keep_alive_and_bounded_buffers() {
    // A ping of the client's is answered with its payload.
    let served = example();
    let mut client = served.raw();
    client.upgrade("/");
    client.send(&raw::frame(raw::FIN | raw::PING, b"are you there"));
    let pong = client.frame();
    assert_eq!((pong.first, pong.payload.as_slice()), (raw::FIN | raw::PONG, &b"are you there"[..]));

    // Who does not read is treated as its route says, and never holds more than the outbox may.
    let (tell, told) = log();
    let config = Config { outbox_bytes_max: 256 << 10, ..config() };
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
