//! Named events, in both envelopes.

use ringwire::{App, Events, Undecodable};
use serde::Deserialize;
use serde_json::json;
use tungstenite::Message;

use crate::common::Client;
use crate::examples::{finch, greeted, output, path_event};
use crate::rig::{close_frame, event, log, say, serve, text};

#[derive(Deserialize)]
struct Add {
    a: i32,
    b: i32,
}

#[test]
fn f01_named_routes_and_the_root() {
    let served = finch();
    let mut client = greeted(&served, 1);
    for unmatched in ["hello", r#"{"path":"unknown","data":1}"#, r#"{"event":"time"}"#, "[]", r#"{"path":7}"#] {
        say(&mut client, unmatched);
        assert_eq!(path_event(&mut client), ("unmatched".to_owned(), json!(unmatched)));
    }
    client.send(Message::binary(br#"{"path":"time"}"#.to_vec())).expect("sent");
    assert_eq!(path_event(&mut client), ("unmatched".to_owned(), json!("binary")));
    // Known, and without a handler.
    say(&mut client, r#"{"path":"noop","data":{}}"#);
    say(&mut client, r#"{"path":"time"}"#);
    assert_eq!(path_event(&mut client).0, "output");

    // Typed data, in the other envelope; a route without a root handler discards the rest.
    let (tell, told) = log();
    let served = serve(move || {
        let tell = tell.clone();
        let events = Events::new()
            .on("add", |socket, Add { a, b }: Add| socket.emit("sum", &(a + b)))
            .on("plain", |_, name: Option<String>| name)
            .on_disconnect(move |_, closed| tell(&format!("{}", closed.code)));
        App::new().ws("/fail", events).ws(
            "/tell",
            Events::new()
                .undecodable(Undecodable::Tell)
                .on("add", |socket, Add { a, b }: Add| socket.emit("sum", &(a + b))),
        )
    });
    let mut client = served.client("/fail");
    say(&mut client, r#"{"path":"add","data":{"a":1,"b":2}}"#);
    say(&mut client, r#"{"event":"plain"}"#);
    say(&mut client, r#"{"event":"plain","data":"as it is"}"#);
    assert_eq!(text(&mut client), "as it is");
    say(&mut client, r#"{"data":{"b":4,"a":3},"event":"add"}"#);
    assert_eq!(event(&mut client), ("sum".to_owned(), json!(7)));
    say(&mut client, r#"{"event":"add","data":{"a":3}}"#);
    assert_eq!(close_frame(&mut client).0, 1007);
    drop(client);
    assert_eq!(told.next(), "1007");

    let mut client = served.client("/tell");
    say(&mut client, r#"{"event":"add","data":"x"}"#);
    let error = json!({"event": "add", "message": "the data cannot be decoded"});
    assert_eq!(event(&mut client), ("error".to_owned(), error));
    say(&mut client, r#"{"event":"add","data":{"a":1,"b":1}}"#);
    assert_eq!(event(&mut client), ("sum".to_owned(), json!(2)));
}

#[test]
fn f03_the_leaver_is_still_counted() {
    let served = finch();
    let mut clients: Vec<Client> = Vec::new();
    for number in 1..=5 {
        clients.push(greeted(&served, number));
        for client in &mut clients[..number as usize - 1] {
            assert_eq!(path_event(client), output(format!("A user connected. Total: {number}")));
        }
    }
    assert_eq!(served.hub().websockets(), 5);
    while let Some(leaver) = clients.pop() {
        drop(leaver);
        let left = clients.len();
        for client in &mut clients {
            // One less than the callback counts.
            assert_eq!(path_event(client), output(format!("A user disconnected. Total: {left}")));
        }
    }
    served.await_count(0);
}

#[test]
fn f04_the_newcomer_hears_the_broadcast_and_then_its_greeting() {
    let served = finch();
    // In this order, which is what `greeted` asserts; and only the newcomer is greeted.
    let mut first = greeted(&served, 1);
    let mut others = Vec::new();
    for number in 2..=20 {
        others.push(greeted(&served, number));
        assert_eq!(path_event(&mut first), output(format!("A user connected. Total: {number}")));
    }
    say(&mut first, r#"{"path":"time"}"#);
    let (path, time) = path_event(&mut first);
    assert!(path == "output" && time.as_str().is_some_and(|time| time.ends_with('Z')), "nothing was in between");
}

#[test]
fn f05_test_replies_headers_and_time_replies_on_output() {
    let served = finch();
    let (mut client, _) = served.connect("/ws", &[("X-Seed", "four")]).expect("an upgrade");
    assert_eq!(path_event(&mut client).0, "output");
    assert_eq!(path_event(&mut client).0, "connected");
    say(&mut client, r#"{"path":"test","data":{}}"#);
    let (path, headers) = path_event(&mut client);
    assert_eq!((path.as_str(), headers.as_array().map(Vec::len)), ("test", Some(1)));
    assert_eq!(headers[0]["x-seed"], "four");
    assert_eq!(headers[0]["sec-websocket-version"], "13");
    say(&mut client, r#"{"path":"time","data":{}}"#);
    let (path, time) = path_event(&mut client);
    assert_eq!(path, "output");
    assert!(humantime::parse_rfc3339(time.as_str().expect("text")).is_ok());
}
