//! Modes of a route: which way messages go, and what runs when a connection opens.

use std::time::Duration;

use ringwire::remote::AskAll as _;
use ringwire::{App, BoxError, Connection, Mode, OwnedMessage, sleep, ws};
use serde_json::Value;

use crate::examples::revali;
use crate::rig::{close_frame, log, raw, say, serve, text};

#[test]
fn r02_modes() {
    let served = revali();
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
fn r08_trigger_on_connect() {
    let served = revali();
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

/// Kills: a reply that only the handlers that answer at once keep to themselves.
#[test]
fn receive_only_sends_no_reply_however_it_is_made() {
    let (tell, told) = log();
    let served = serve(move || {
        let line = || tell.clone();
        let (now, json, later, slowly, task) = (line(), line(), line(), line(), line());
        let only = || ws().mode(Mode::ReceiveOnly);
        App::new()
            .ws(
                "/now",
                only().on_message(move |_, _| {
                    now("done");
                    "a reply"
                }),
            )
            .ws(
                "/json",
                only().on_json(move |_, _: Value| {
                    json("done");
                    "a reply"
                }),
            )
            .ws(
                "/later",
                only().on_message_async(async move |_: Connection, _: OwnedMessage| {
                    later("done");
                    "a reply"
                }),
            )
            .ws(
                "/slowly",
                only().on_message_async(async move |_: Connection, _: OwnedMessage| {
                    sleep(Duration::from_millis(5)).await;
                    slowly("done");
                    Ok::<_, BoxError>(Some("a reply"))
                }),
            )
            .ws(
                "/task",
                only().task(async move |mut connection: Connection| {
                    connection.recv().await;
                    task("done");
                    "a reply"
                }),
            )
    });
    for path in ["/now", "/json", "/later", "/slowly", "/task"] {
        let mut client = served.client(path);
        say(&mut client, "1");
        assert_eq!(told.next(), "done", "{path}");
        // Whatever was told of was also replied to by now: both are in one turn of the core.
        assert_eq!(served.hub().send_to_all("the end").expect("text").wait().queued, 1);
        assert_eq!(text(&mut client), "the end", "{path}");
        drop(client);
        served.await_count(0);
    }
}
