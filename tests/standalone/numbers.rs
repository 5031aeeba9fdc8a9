//! JSON that is kept or passed on stays as it was written.

use serde_json::{Value, json};
use tungstenite::Message;

use crate::common::{TestServer, text};
use crate::{User, ask, ask_with};

/// What readers that make doubles of numbers, or maps of objects, do not give back.
const TEXTS: &[&str] = &[
    "117.63331139400017",
    "0.9215686321258545",
    "9007199254740993",
    "18446744073709551616",
    "-170141183460469231731687303715884105729",
    "123456789012345678901234567890.123456789",
    "1.0",
    "-0.0",
    "1E+2",
    "5e-324",
    "2.2250738585072014e-308",
    r#"{"b":1,  "a":[2,	3],"b":4}"#,
    r#""\u0041\/\ud83e\udd80é\u007f""#,
    "null",
];

/// What is passed on need not be what we could read.
const PASSED_ON: &[&str] = &["1e400"];

/// The data of the next event, as it was written.
fn raw_event(user: &mut User, name: &str) -> String {
    let event = text(&mut user.client);
    let start = format!(r#"{{"event":"{name}","data":"#);
    event.strip_prefix(&start).and_then(|rest| rest.strip_suffix('}')).unwrap_or_else(|| panic!("{event}")).to_owned()
}

#[test]
fn what_is_passed_on_stays_as_it_was_written() {
    let server = TestServer::new();
    let mut users = User::on_both_cores(&server);
    users[0].join("den");
    users[1].join("den");
    users[0].expect("user-joined");
    for json in TEXTS.iter().chain(PASSED_ON) {
        users[0].send(&format!(r#"{{"event":"ping","data":{json}}}"#));
        assert_eq!(raw_event(&mut users[0], "pong"), *json);

        users[1].send(&format!(r#"{{"event":"message","data":{{"room":"den","message":{json}}}}}"#));
        for user in &mut users {
            let said = raw_event(user, "message");
            assert!(said.contains(&format!(r#","message":{json},"timestamp":""#)), "{said}");
        }

        let path = format!("/api/message/{}", users[1].id);
        assert_eq!(ask(&server, "POST", &path, &format!(" {json}\n")).0, 200);
        assert_eq!(raw_event(&mut users[1], "private-message"), *json);

        let body = format!(r#"{{"message":{json}}}"#);
        assert_eq!(ask(&server, "POST", "/api/broadcast", &body), (200, json!({ "sent": true, "recipients": 2 })));
        for user in &mut users {
            let sent = raw_event(user, "broadcast");
            assert!(sent.starts_with(&format!(r#"{{"message":{json},"timestamp":""#)), "{sent}");
        }
    }
}

#[test]
fn news_stay_as_they_were_written() {
    let server = TestServer::new();
    let mut user = User::new(&server);
    user.join("den");
    for json in TEXTS.iter().chain(PASSED_ON) {
        for path in ["/api/broadcast", "/api/rooms/den"] {
            let body = format!(r#"{{"data":{json},"event":"news"}}"#);
            assert_eq!(ask(&server, "POST", path, &body).1["recipients"], 1);
            assert_eq!(raw_event(&mut user, "news"), *json);
        }
    }
}

#[test]
fn data_stays_as_it_was_written() {
    let server = TestServer::new();
    for user in User::on_both_cores(&server) {
        let path = format!("/api/ws/connections/{}/data", user.id);
        for json in TEXTS {
            let put = ask_with(&server, "PUT", &path, &[], &format!("\n{json} "));
            assert_eq!((put.status, put.body.as_str()), (200, *json));
            let got = ask_with(&server, "GET", &path, &[], "");
            assert_eq!((got.status, got.body.as_str()), (200, *json));
            assert_eq!(got.header("content-type"), Some("application/json"));
            let listing = ask_with(&server, "GET", "/api/ws/connections", &[], "").body;
            assert!(listing.contains(&format!(r#""data":{json}}}"#)), "{listing}");
            let hub = server.handle().hub();
            let id = user.id.parse().expect("an id");
            assert_eq!(hub.raw_data(id).wait().flatten().expect("data").as_str(), *json);
            let value: Value = serde_json::from_str(json).expect("JSON");
            assert_eq!(hub.data(id).wait(), Some(Some(value)));
        }
    }
}

// A connection's data is also read by handlers, as values: it must be one.
#[test]
fn data_that_cannot_be_read_is_refused() {
    let server = TestServer::new();
    let user = User::new(&server);
    let path = format!("/api/ws/connections/{}/data", user.id);
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(ask(&server, "PUT", &path, &nested(100)).0, 200);
    for json in PASSED_ON.iter().map(|json| (*json).to_owned()).chain([nested(101), "01".into(), "[1,]".into()]) {
        let (status, body) = ask(&server, "PUT", &path, &json);
        assert_eq!(status, 400, "{json}: {body}");
    }
    assert_eq!(ask_with(&server, "GET", &path, &[], "").body, nested(100));
}

#[test]
fn what_is_passed_on_is_not_nested_deeper_than_it_can_be_read() {
    let server = TestServer::new();
    let mut user = User::new(&server);
    user.join("den");
    let nested = |depth: usize| format!("{}{}", r#"{"a":["#.repeat(depth / 2), "]}".repeat(depth / 2));
    let message = format!("/api/message/{}", user.id);
    for (depth, is_fine) in [(100, true), (102, false)] {
        let json = nested(depth);
        user.send(&format!(r#"{{"event":"ping","data":{json}}}"#));
        assert_eq!(user.next().0, if is_fine { "pong" } else { "error" });
        user.send(&format!(r#"{{"event":"message","data":{{"room":"den","message":{json}}}}}"#));
        assert_eq!(user.next().0, if is_fine { "message" } else { "error" });
        for (path, body) in [
            ("/api/broadcast", format!(r#"{{"event":"news","data":{json}}}"#)),
            ("/api/broadcast", format!(r#"{{"message":{json}}}"#)),
            ("/api/rooms/den", format!(r#"{{"event":"news","data":{json}}}"#)),
            (message.as_str(), json.clone()),
        ] {
            let (status, answer) = ask(&server, "POST", path, &body);
            assert_eq!(status, if is_fine { 200 } else { 400 }, "{path} {depth}: {answer}");
            if is_fine {
                assert!(matches!(user.client.read(), Ok(Message::Text(_))));
            }
        }
    }
    user.has_nothing_more();
}
