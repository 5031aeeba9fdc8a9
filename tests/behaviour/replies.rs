//! Replies: what a handler returns, now, later or as a stream, and in which order it arrives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use ringwire::{App, BoxError, Connection, Json, OwnedMessage, sleep, ws};
use serde_json::json;
use tungstenite::Message;

use crate::common::{config, eventually};
use crate::examples::{revali, spry};
use crate::rig::{close_frame, raw, say, serve, serve_with, text};

#[test]
fn r01_the_return_value_is_the_reply() {
    let served = revali();
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
fn r04_replies_now_later_or_many_and_in_order() {
    let served = serve(|| {
        let in_order = async |_: Connection, message: OwnedMessage| {
            if message.as_text() == Some("slow") {
                sleep(Duration::from_millis(50)).await;
            }
            message
        };
        let many = async |connection: Connection, message: OwnedMessage| {
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
fn s02_await_or_listen_and_send_or_stream() {
    let served = spry();
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

/// Kills: a stream that is emptied into the queue of a peer that reads nothing.
#[test]
fn a_stream_is_taken_no_faster_than_the_peer_reads() {
    const COUNT: u32 = 4096;
    const BYTES: usize = 16 << 10;
    let taken = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&taken);
    // The queue has room for all of it.
    let config = config().max_outbox(256 << 20);
    let served = serve_with(config, move || {
        let counter = Arc::clone(&counter);
        let task = async move |connection: Connection| {
            let numbered = (0..COUNT).map(|number| {
                counter.fetch_add(1, Ordering::Relaxed);
                let mut message = vec![0; BYTES];
                message[..4].copy_from_slice(&number.to_be_bytes());
                message
            });
            let _ = connection.send_stream(stream::iter(numbered)).await;
            "end"
        };
        App::new().ws("/", ws().task(task))
    });
    let mut client = served.client("/");
    eventually(|| taken.load(Ordering::Relaxed) > 0, || "the stream to begin".to_owned());
    std::thread::sleep(Duration::from_millis(300));
    // What the kernel holds, and a little.
    assert!(taken.load(Ordering::Relaxed) < COUNT / 2, "{} of {COUNT}", taken.load(Ordering::Relaxed));
    for number in 0..COUNT {
        let message = client.read().expect("a message").into_data();
        assert_eq!((&message[..4], message.len()), (&number.to_be_bytes()[..], BYTES));
    }
    assert_eq!(text(&mut client), "end");
}
