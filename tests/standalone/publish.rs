//! `POST /api/publish`, the subprotocols of the program's routes, and JSON that nobody could read.

use serde_json::json;

use crate::common::TestServer;
use crate::common::raw;
use crate::{User, ask};

#[test]
fn many_messages_go_to_many_in_their_order() {
    let server = TestServer::new();
    let [mut ann, mut bob] = User::on_both_cores(&server);
    ann.join("a");
    bob.join("b");
    let batch = json!({"messages": [
        {"event": "one", "data": 1, "rooms": ["a"]},
        {"event": "two", "data": {"x": [1]}, "rooms": ["a", "b"]},
        {"event": "three", "ids": [bob.id, "0123456789abcdef0123456789abcdef", "nobody"]},
        {"event": "four", "data": null, "all": true},
        {"event": "five", "rooms": ["a", "empty"], "ids": [ann.id], "all": true},
    ]});
    let (status, answer) = ask(&server, "POST", "/api/publish", &batch.to_string());
    assert_eq!(status, 200, "{answer}");
    let recipients: Vec<_> =
        answer["results"].as_array().expect("results").iter().map(|it| it["recipients"].clone()).collect();
    assert_eq!(recipients, [1, 2, 1, 2, 4]);
    assert_eq!(answer["results"][2]["gone"], json!(["0123456789abcdef0123456789abcdef", "nobody"]));
    assert_eq!((&answer["sent"], &answer["results"][0]), (&json!(false), &json!({"recipients": 1})));
    assert_eq!(ann.expect("one"), 1);
    for user in [&mut ann, &mut bob] {
        assert_eq!(user.expect("two"), json!({"x": [1]}));
    }
    assert_eq!(bob.expect("three"), json!(null));
    for user in [&mut ann, &mut bob] {
        assert_eq!(user.expect("four"), json!(null));
    }
    for _ in 0..3 {
        ann.expect("five");
    }
    bob.expect("five");
    ann.has_nothing_more();
    bob.has_nothing_more();
    assert_eq!(ask(&server, "POST", "/api/publish", r#"{"messages":[]}"#).1, json!({"sent": true, "results": []}));
}

/// Kills: sending what stands before the mistake.
#[test]
fn nothing_is_sent_unless_all_can_be() {
    let server = TestServer::new();
    let mut user = User::new(&server);
    let good = json!({"event": "good", "all": true}).to_string();
    let many: Vec<String> = (0..1000).map(|number| format!("room{number}")).collect();
    for bad in [
        json!({"event": "untargeted"}).to_string(),
        json!({"event": "nowhere", "rooms": [], "ids": [], "all": false}).to_string(),
        json!({"all": true}).to_string(),
        json!({"event": 1, "all": true}).to_string(),
        json!({"event": "x", "room": "a", "all": true}).to_string(),
        json!({"event": "x", "rooms": [""]}).to_string(),
        json!({"event": "x", "rooms": ["r".repeat(257)]}).to_string(),
        json!({"event": "x", "rooms": many}).to_string(),
        r#"{"event":"x","all":true,"data":"\ud800"}"#.to_owned(),
        format!(r#"{{"event":"x","all":true,"data":{}{}}}"#, "[".repeat(101), "]".repeat(101)),
    ] {
        let (status, answer) = ask(&server, "POST", "/api/publish", &format!(r#"{{"messages":[{good},{bad}]}}"#));
        assert_eq!(status, 400, "{bad}: {answer}");
    }
    for bad in ["", "[]", "{}", r#"{"messages":{}}"#, &good] {
        assert_eq!(ask(&server, "POST", "/api/publish", bad).0, 400, "{bad}");
    }
    user.has_nothing_more();
    assert_eq!(ask(&server, "POST", "/api/publish", &format!(r#"{{"messages":[{good}]}}"#)).0, 200);
    user.expect("good");
}

/// Another route's connection takes no events.
#[test]
fn only_event_sockets_get_events() {
    let server = TestServer::new();
    let _other = server.open("/echo");
    server.await_connections(1);
    let (_, listing) = ask(&server, "GET", "/api/ws/connections", "");
    let id = &listing["connections"][0]["id"];
    let batch = json!({"messages": [{"event": "x", "ids": [id], "all": true}]});
    let (status, answer) = ask(&server, "POST", "/api/publish", &batch.to_string());
    assert_eq!((status, &answer["results"][0]), (200, &json!({"recipients": 0, "gone": [id]})));
}

/// RFC 6455 4.1: a client fails if it is given none of those that it offers, and some do if they are given none.
#[test]
fn the_first_subprotocol_that_is_offered_is_taken() {
    let server = TestServer::new();
    for path in ["/echo", "/broadcast", "/rooms/x", "/ws"] {
        for (offered, want) in [
            ("chat", Some("chat")),
            ("graphql-ws, chat", Some("graphql-ws")),
            ("a\r\nSec-WebSocket-Protocol: b", Some("a")),
            ("", None),
            ("two words, chat", None),
            ("\"quoted\"", None),
        ] {
            let mut client = server.raw();
            let request = String::from_utf8(raw::upgrade_request(path)).expect("text");
            let field = format!("Sec-WebSocket-Protocol: {offered}\r\n\r\n");
            client.send((request.trim_end().to_owned() + "\r\n" + &field).as_bytes());
            let response = client.response(false);
            assert_eq!((response.status, response.header("sec-websocket-protocol")), (101, want), "{path} {offered}");
        }
    }
}

/// Kills: relaying what a strict reader fails at (RFC 8259 8.2).
#[test]
fn half_a_character_is_refused_and_not_relayed() {
    let server = TestServer::new();
    let mut user = User::new(&server);
    user.join("r");
    let half = r#""\ud800""#;
    for event in [
        format!(r#"{{"event":"ping","data":{half}}}"#),
        format!(r#"{{"event":"message","data":{{"room":"r","message":{half}}}}}"#),
        format!(r#"{{"event":"message","data":{{"room":"r","message":{{{half}:1}}}}}}"#),
    ] {
        user.send(&event);
        user.expect("error");
    }
    let id = user.id.clone();
    for (path, body) in [
        ("/api/broadcast", format!(r#"{{"event":"x","data":{half}}}"#)),
        ("/api/broadcast", format!(r#"{{"message":{half}}}"#)),
        ("/api/rooms/r", format!(r#"{{"event":"x","data":[{half}]}}"#)),
        (&format!("/api/message/{id}"), half.to_owned()),
    ] {
        assert_eq!(ask(&server, "POST", path, &body).0, 400, "{path} {body}");
    }
    user.has_nothing_more();
    user.send(r#"{"event":"ping","data":"\ud83e\udd80"}"#);
    assert_eq!(user.expect("pong"), "🦀");
}
