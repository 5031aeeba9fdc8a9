//! Secrets by the program's API: what is marked goes out as it is, whichever way it goes, and also later, out of a history.

use ringwire::Deflate;
use ringwire::config::CoreSet;
use serde_json::{Value, json};

use crate::ask;
use crate::common::raw::{self, FIN, RSV1, Raw, TEXT};
use crate::common::{TestServer, config};

/// An event socket that has agreed on compression, and its id.
fn open(server: &TestServer) -> (Raw, String) {
    let mut socket = server.raw();
    socket.upgrade_compressed("/ws");
    let connected: Value = serde_json::from_slice(&socket.frame().payload).expect("JSON");
    (socket, connected["data"]["id"].as_str().expect("an id").to_owned())
}

/// Joins a room; the answer's first byte.
fn join(socket: &mut Raw, data: &Value) -> u8 {
    socket.send(&raw::text(&json!({ "event": "join", "data": data }).to_string()));
    socket.frame().first
}

/// Kills: a way of the API that forgets the mark, or has it where there is none; a history that is told compressed.
#[test]
fn what_is_marked_goes_out_as_it_is_by_every_way_of_the_api() {
    let text = "the word is 4711, ".repeat(40);
    for mode in [Deflate::Stateless, Deflate::Dedicated] {
        let server =
            TestServer::with(config().cores(CoreSet::Count(2)).deflate(mode).history("10".parse().expect("a history")));
        let (mut socket, id) = open(&server);
        assert_eq!(join(&mut socket, &json!({ "room": "den" })), FIN | TEXT);
        let event = json!({ "event": "secret", "data": text });
        let marked = json!({ "event": "secret", "data": text, "uncompressed": true });
        let with = |event: &Value, target: &str, value: Value| {
            let mut event = event.clone();
            event[target] = value;
            json!({ "messages": [event] })
        };
        let to_one = format!("/api/message/{id}");
        let plain = [
            ("/api/broadcast", event.clone()),
            ("/api/broadcast", json!({ "message": text })),
            ("/api/rooms/den", event.clone()),
            (to_one.as_str(), json!(text)),
            ("/api/publish", with(&event, "ids", json!([id]))),
            ("/api/publish", with(&event, "rooms", json!(["den"]))),
            ("/api/publish", with(&event, "all", json!(true))),
        ];
        let fields = [("ids", json!([id])), ("rooms", json!(["den"])), ("all", json!(true))];
        let rows = plain.iter().flat_map(|(path, body)| {
            [("", true), ("?uncompressed=false", true), ("?uncompressed=true", false)]
                .map(|(query, is_compressed)| (format!("{path}{query}"), body.clone(), is_compressed))
        });
        let rows = rows.chain(
            fields.into_iter().map(|(target, value)| ("/api/publish".to_owned(), with(&marked, target, value), false)),
        );
        for (path, body, is_compressed) in rows {
            let (status, answer) = ask(&server, "POST", &path, &body.to_string());
            assert_eq!(status, 200, "{path}: {answer}");
            let frame = socket.frame();
            let due = if is_compressed { FIN | RSV1 | TEXT } else { FIN | TEXT };
            assert_eq!(frame.first, due, "{mode} {path} {body}");
            assert_eq!(String::from_utf8_lossy(&frame.payload).contains(&text), !is_compressed, "{mode} {path}");
        }
        // The last ones of the room were marked, and one that is not comes behind them.
        ask(&server, "POST", "/api/rooms/den", &event.to_string());
        assert_eq!(join(&mut open(&server).0, &json!({ "room": "den", "last": 1 })), FIN | RSV1 | TEXT, "{mode}");
        assert_eq!(join(&mut open(&server).0, &json!({ "room": "den", "last": 10 })), FIN | TEXT, "{mode}");
    }
}

#[test]
fn a_mark_that_is_none_is_400() {
    let server = TestServer::new();
    for path in ["/api/broadcast", "/api/rooms/den", "/api/message/0", "/api/publish"] {
        for value in ["", "1", "yes", "TRUE"] {
            let path = format!("{path}?uncompressed={value}");
            let (status, answer) = ask(&server, "POST", &path, r#"{"event":"x","messages":[]}"#);
            let why = answer["error"].as_str().unwrap_or_default();
            assert!(status == 400 && why.contains("uncompressed"), "{path}: {status} {answer}");
        }
    }
}
