//! Finch: named events, in both envelopes.

use ringwire::{App, Events, Undecodable};
use serde::Deserialize;
use serde_json::{Value, json};
use tungstenite::Message;

use super::rig::{Served, close_frame, event, json, log, request, say, serve, text};
use crate::common::Client;

#[allow(dead_code)]
#[path = "../../examples/finch_events.rs"]
mod finch_events;

fn example() -> Served {
    serve(finch_events::app)
}

/// The next event of the form `{"path","data"}`.
fn path_event(client: &mut Client) -> (String, Value) {
    let mut value = json(client);
    let path = value["path"].as_str().unwrap_or_else(|| panic!("no path: {value}")).to_owned();
    (path, value["data"].take())
}

fn output(text: impl Into<String>) -> (String, Value) {
    ("output".to_owned(), Value::String(text.into()))
}

/// A client that has been greeted, as the number `number`.
fn greeted(served: &Served, number: u32) -> Client {
    let mut client = served.client("/ws");
    assert_eq!(path_event(&mut client), output(format!("A user connected. Total: {number}")));
    let greeting = json!({"message": "Successfully connected to socket!"});
    assert_eq!(path_event(&mut client), ("connected".to_owned(), greeting));
    client
}

#[derive(Deserialize)]
struct Add {
    a: i32,
    b: i32,
}

#[test]
fn f01_named_routes_and_the_root() {
    let served = example();
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
fn f02_send_to_one_to_all_and_to_all_but_one() {
    let served = example();
    let mut first = greeted(&served, 1);
    let mut second = greeted(&served, 2);
    assert_eq!(path_event(&mut first), output("A user connected. Total: 2"));

    say(&mut first, r#"{"path":"others","data":"not to me"}"#);
    assert_eq!(path_event(&mut second), output("not to me"));
    assert_eq!(served.http_json("POST", "/announce", r#""to all""#), (200, json!({"recipients": 2})));
    for client in [&mut first, &mut second] {
        assert_eq!(path_event(client), output("to all"));
    }
    say(&mut first, r#"{"path":"test","data":null}"#);
    assert_eq!(path_event(&mut first).0, "test");

    // The same from outside.
    let ids = ringwire_ids(&served);
    let told = served.hub().emit_to_all_except(ids[0], "output", "but one").expect("text").wait();
    assert_eq!(told.queued, 1);
    assert_eq!(served.hub().emit_to(ids[0], "output", "but one").expect("text").wait().queued, 1);
    for client in [&mut first, &mut second] {
        assert_eq!(path_event(client), output("but one"));
    }
}

fn ringwire_ids(served: &Served) -> Vec<ringwire::ConnectionId> {
    super::rig::block_on(served.hub().ids()).expect("the cores answer")
}

#[test]
fn f03_the_leaver_is_still_counted() {
    let served = example();
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
    let served = example();
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
    let served = example();
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

#[test]
fn f06_an_http_handler_decides_about_the_upgrade() {
    let served = example();
    greeted(&served, 1);
    assert_eq!(served.connect("/ws?banned=1", &[]).err(), Some(403));
    // The handler takes all methods; the handshake is a GET (RFC 6455 4.1).
    for method in ["POST", "PUT", "DELETE"] {
        let mut client = served.raw();
        client.send(&request(method, "/ws", ""));
        let refused = client.response(false);
        assert_eq!((refused.status, refused.header("allow").is_some()), (405, true), "{method}");
    }
    let mut client = served.raw();
    client.send(&request("GET", "/ws", ""));
    let refused = client.response(false);
    assert_eq!((refused.status, refused.header("upgrade")), (426, Some("websocket")));
}
