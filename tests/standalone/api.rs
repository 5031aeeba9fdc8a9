//! `/api`: messages and connections.

use std::collections::BTreeSet;
use std::time::Duration;

use ringwire::config::CoreSet;
use serde_json::{Value, json};

use crate::common::{TestServer, close_code, config};
use crate::metrics::{scrape, sum};
use crate::{User, ask, ask_with, json_of, request};

#[test]
fn a_broadcast_reaches_every_event_socket_and_no_other() {
    let server = TestServer::new();
    let mut users = User::on_both_cores(&server);
    server.await_connections(2);
    let mut echo = server.client("/echo");
    let answer = ask(&server, "POST", "/api/broadcast", r#"{"event":"news","data":{"x":[1,2]}}"#);
    assert_eq!(answer, (200, json!({ "sent": true, "recipients": 2 })));
    let answer = ask(&server, "POST", "/api/broadcast", r#"{"event":"bare"}"#);
    assert_eq!(answer, (200, json!({ "sent": true, "recipients": 2 })));
    let answer = ask(&server, "POST", "/api/broadcast", r#"{"message":"hello"}"#);
    assert_eq!(answer, (200, json!({ "sent": true, "recipients": 2 })));
    for user in &mut users {
        assert_eq!(user.expect("news"), json!({ "x": [1, 2] }));
        assert_eq!(user.expect("bare"), json!(null));
        let data = user.expect("broadcast");
        assert_eq!(data["message"], "hello");
        assert!(data["timestamp"].as_str().is_some_and(|time| humantime::parse_rfc3339(time).is_ok()), "{data}");
    }
    echo.send(tungstenite::Message::text("mine")).expect("sent");
    assert_eq!(crate::text(&mut echo), "mine");
}

#[test]
fn a_broadcast_to_nobody_is_sent() {
    let server = TestServer::new();
    let answer = ask(&server, "POST", "/api/broadcast", r#"{"message":1}"#);
    assert_eq!(answer, (200, json!({ "sent": true, "recipients": 0 })));
}

#[test]
fn a_private_message_reaches_one_on_whichever_core() {
    let server = TestServer::new();
    let mut users = User::on_both_cores(&server);
    // Several, so that the requests arrive on both cores as well.
    for round in 0..8 {
        for user in &mut users {
            let path = format!("/api/message/{}", user.id);
            assert_eq!(ask(&server, "POST", &path, &format!(r#"{{"n":{round}}}"#)), (200, json!({ "sent": true })));
            assert_eq!(user.expect("private-message"), json!({ "n": round }));
        }
    }
    users.iter_mut().for_each(User::has_nothing_more);
}

/// Kills: a tick, and a send, for each of the requests of a pipeline.
#[test]
fn a_pipeline_of_messages_is_answered_in_few_ticks() {
    let server = TestServer::with(config().cores(CoreSet::Count(1)));
    let mut user = User::new(&server);
    let mut client = server.raw();
    let requests = |user: &User| {
        let path = format!("/api/message/{}", user.id);
        (0..200).flat_map(|number| request("POST", &path, &[], &number.to_string())).collect::<Vec<u8>>()
    };
    let ticks = || sum(&scrape(&server), "ringwire_ticks_total", &[]);
    let before = ticks();
    client.send(&requests(&user));
    for number in 0..200 {
        let response = client.response(false);
        assert_eq!((response.status, json_of(&response)), (200, json!({ "sent": true })), "{number}");
    }
    let taken = ticks() - before;
    for number in 0..200 {
        assert_eq!(user.expect("private-message"), number);
    }
    assert!(taken < 100.0, "{taken} ticks");
    // Whoever asks for the end of the connection has it behind that answer.
    let [open, close] = [("connection", "keep-alive"), ("connection", "close")].map(|header| {
        let path = format!("/api/message/{}", user.id);
        request("POST", &path, &[header], "1")
    });
    client.send(&[open.clone(), close, open].concat());
    for connection in ["keep-alive", "close"] {
        let response = client.response(false);
        assert_eq!((response.status, response.header("connection")), (200, Some(connection)));
    }
    assert!(client.frames().0.is_empty(), "nothing behind it is answered");
}

/// Kills: asking the connection's core first whether it takes events, which wakes both cores twice.
#[test]
fn a_message_to_one_is_one_letter() {
    let server = TestServer::new();
    let mut users = User::on_both_cores(&server);
    let letters = || sum(&scrape(&server), "ringwire_letters_total", &[]);
    let before = letters();
    for number in 0..20 {
        for user in &mut users {
            ask(&server, "POST", &format!("/api/message/{}", user.id), "1");
            assert_eq!(user.expect("private-message"), 1, "{number}");
        }
    }
    // And those of the look at the counters.
    let taken = letters() - before;
    assert!((40.0..60.0).contains(&taken), "{taken} letters for 40 messages");
}

#[test]
fn a_message_to_nobody_is_404() {
    let server = TestServer::new();
    let gone = User::new(&server);
    let id = gone.id.clone();
    drop(gone);
    server.await_connections(0);
    // Gone, forged, of a core that there is not, and no id at all.
    let forged: String = id.chars().rev().collect();
    for id in [&id, &forged, "_____wAAAAAAAAAAAAAAAA", "AAEAAAAqAAAAB3ZjO0ExAA", "somebody"] {
        let answer = ask(&server, "POST", &format!("/api/message/{id}"), "1");
        assert_eq!(answer, (404, json!({ "error": "User not connected" })), "{id}");
        for (method, path) in [("GET", "/data"), ("PUT", "/data"), ("DELETE", "")] {
            let (status, body) = ask(&server, method, &format!("/api/ws/connections/{id}{path}"), "1");
            assert_eq!((status, body), (404, json!({ "error": "Connection not found" })), "{method} {id}");
        }
    }
}

/// Kills: events as plain messages to clients that know nothing of events.
#[test]
fn only_event_sockets_get_events() {
    let server = TestServer::new();
    let mut user = User::new(&server);
    user.join("den");
    for path in ["/echo", "/broadcast", "/rooms/den"] {
        let mut other = server.client(path);
        server.await_connections(2);
        let (_, listing) = ask(&server, "GET", "/api/ws/connections", "");
        let entries = listing["connections"].as_array().expect("a list");
        let id = entries.iter().find(|entry| entry["id"] != user.id.as_str()).expect("it")["id"].clone();
        let id = id.as_str().expect("an id");

        let (status, body) = ask(&server, "POST", &format!("/api/message/{id}"), "1");
        assert_eq!(status, 409, "{path}: {body}");
        assert!(body["error"].as_str().is_some_and(|error| error.contains("/ws")), "{body}");
        for path in ["/api/broadcast", "/api/rooms/den"] {
            let answer = ask(&server, "POST", path, r#"{"event":"news"}"#);
            assert_eq!(answer, (200, json!({ "sent": true, "recipients": 1 })));
            user.expect("news");
        }
        other.send(tungstenite::Message::text("mine")).expect("sent");
        assert_eq!(crate::text(&mut other), "mine", "{path}: nothing else came before");

        let path = format!("/api/ws/connections/{id}");
        assert_eq!(ask(&server, "DELETE", &path, ""), (200, json!({ "disconnected": true })));
        match other.read().expect("a message") {
            tungstenite::Message::Close(Some(frame)) => {
                assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1008, "Admin action"));
            }
            message => panic!("{message:?}"),
        }
        drop(other);
        server.await_connections(1);
    }
    user.has_nothing_more();
}

#[test]
fn a_room_is_reached_over_all_cores() {
    let server = TestServer::new();
    let mut users = User::on_both_cores(&server);
    let mut outsider = User::new(&server);
    users[0].join("the den");
    users[1].join("the den");
    users[0].expect("user-joined");
    let answer = ask(&server, "POST", "/api/rooms/the%20den", r#"{"event":"news","data":"x"}"#);
    assert_eq!(answer, (200, json!({ "sent": true, "recipients": 2 })));
    for user in &mut users {
        assert_eq!(user.expect("news"), "x");
    }
    outsider.has_nothing_more();
    let answer = ask(&server, "POST", "/api/rooms/nobody", r#"{"event":"news"}"#);
    assert_eq!(answer, (200, json!({ "sent": true, "recipients": 0 })));
}

/// Kills: a list of rooms that leaves one out between its parts, tells of the load routes' or of empty ones, or of a part of
/// the cores' members.
#[test]
fn rooms_are_listed_in_parts() {
    let server = TestServer::new();
    let mut users = User::on_both_cores(&server);
    let _load = server.client("/rooms/load");
    let names = ["", "b", "a b&c", "ü/x", "a", "c"].map(|name| format!("r{name}"));
    for name in &names {
        users[0].join(name);
    }
    users[0].emit("leave", &json!({ "room": "rc" }));
    users[0].expect("left");
    users[1].join("rb");
    let mut want: Vec<(&str, u64)> = names
        .iter()
        .filter(|name| *name != "rc")
        .map(|name| (name.as_str(), if name == "rb" { 2 } else { 1 }))
        .collect();
    want.sort_unstable();
    for limit in [1, 2, 5, 1_000_000] {
        let (mut listed, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!(
                "/api/rooms?limit={limit}&after={}",
                after.replace('&', "%26").replace('ü', "%C3%BC").replace(' ', "+")
            );
            let (status, page) = ask(&server, "GET", &path, "");
            assert_eq!(status, 200, "{page}");
            let rooms = page["rooms"].as_array().expect("a list");
            assert!(rooms.len() <= limit);
            listed.extend(rooms.iter().map(|it| {
                (it["room"].as_str().expect("a name").to_owned(), it["members"].as_u64().expect("a number"))
            }));
            let Some(next) = page["next"].as_str() else { break };
            assert!(!rooms.is_empty(), "{page}");
            after = next.to_owned();
        }
        let listed: Vec<(&str, u64)> = listed.iter().map(|(name, members)| (name.as_str(), *members)).collect();
        assert_eq!(listed, want, "{limit} at a time");
    }
    assert_eq!(ask(&server, "GET", "/api/rooms?limit=0", ""), (200, json!({ "rooms": [] })));
    assert_eq!(ask(&server, "GET", "/api/rooms?limit=x", "").0, 400);
}

/// Kills: members of one core alone that are sent away, or without a word.
#[test]
fn a_room_is_sent_away_over_all_cores() {
    let server = TestServer::new();
    let mut users = User::on_both_cores(&server);
    let mut outsider = User::new(&server);
    for user in &mut users {
        user.join("den");
    }
    users[0].expect("user-joined");
    assert_eq!(ask(&server, "DELETE", "/api/rooms/den", ""), (200, json!({ "disconnected": 2 })));
    for user in &mut users {
        // The one that closes first may be told of to the other.
        let said = loop {
            let (event, data) = user.next();
            if event != "user-left" {
                break (event, data);
            }
        };
        assert_eq!(said, ("disconnect".to_owned(), json!({ "reason": "Admin action" })));
    }
    crate::common::eventually(|| server.members("ws/den").is_empty(), || "members that stay".into());
    outsider.has_nothing_more();
    assert_eq!(ask(&server, "DELETE", "/api/rooms/den", ""), (200, json!({ "disconnected": 0 })));
}

#[test]
fn connections_are_listed() {
    let server = TestServer::new();
    let users = User::on_both_cores(&server);
    server.await_connections(2);
    let _echo = server.client("/echo");
    let _room = server.client("/rooms/den");
    let (status, listing) = ask(&server, "GET", "/api/ws/connections", "");
    assert_eq!((status, &listing["count"]), (200, &json!(4)));
    let entries = listing["connections"].as_array().expect("a list");
    assert_eq!(entries.len(), 4);
    for user in &users {
        let entry = entries.iter().find(|entry| entry["id"] == user.id.as_str()).expect("listed");
        assert_eq!((&entry["route"], &entry["core"]), (&json!("/ws"), &json!(user.core())));
        assert_eq!(entry["data"], json!(null));
        assert!(entry["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{entry}");
        assert!(entry["connected_ms"].as_u64().is_some_and(|age| age < 60_000), "{entry}");
        assert_eq!(entry.as_object().map(serde_json::Map::len), Some(6));
    }
    let routes: BTreeSet<&str> = entries.iter().filter_map(|entry| entry["route"].as_str()).collect();
    assert_eq!(routes, BTreeSet::from(["/echo", "/rooms/{room}", "/ws"]));
}

#[test]
fn a_listing_has_pages() {
    let server = TestServer::new();
    let users: Vec<User> = (0..20).map(|_| User::new(&server)).collect();
    let page = |query: &str| {
        let (status, listing) = ask(&server, "GET", &format!("/api/ws/connections?{query}"), "");
        assert_eq!((status, &listing["count"]), (200, &json!(20)), "{query}");
        let entries = listing["connections"].as_array().expect("a list").clone();
        entries.into_iter().map(|entry| entry["id"].as_str().expect("an id").to_owned()).collect::<Vec<String>>()
    };
    let all = page("");
    assert_eq!(BTreeSet::from_iter(&all), users.iter().map(|user| &user.id).collect());
    for step in [1, 3, 7, 20, 50] {
        let paged: Vec<String> =
            (0..20).step_by(step).flat_map(|at| page(&format!("limit={step}&offset={at}"))).collect();
        assert_eq!(paged, all, "pages of {step}");
    }
    assert!(page("limit=0").is_empty() && page("offset=20").is_empty());
    for query in ["limit=-1", "offset=x", "limit="] {
        let (status, body) = ask(&server, "GET", &format!("/api/ws/connections?{query}"), "");
        assert_eq!(status, 400, "{query}: {body}");
    }
}

/// Kills: answers as large as all the data that clients' programs have put there.
#[test]
fn a_listing_is_bounded_in_bytes() {
    let server = TestServer::with(config().max_body(8 << 20));
    let users: Vec<User> = (0..6).map(|_| User::new(&server)).collect();
    let put = |user: &User, bytes: usize| {
        let path = format!("/api/ws/connections/{}/data", user.id);
        assert_eq!(ask(&server, "PUT", &path, &json!("x".repeat(bytes)).to_string()).0, 200);
    };
    users.iter().for_each(|user| put(user, 1_500_000));
    put(&users[3], 5 << 20);
    let (mut seen, mut at) = (BTreeSet::new(), Some(0));
    while let Some(offset) = at {
        let response = ask_with(&server, "GET", &format!("/api/ws/connections?offset={offset}"), &[], "");
        let listing = json_of(&response);
        assert_eq!(listing["count"], 6);
        let entries = listing["connections"].as_array().expect("a list");
        let is_alone = entries.len() == 1;
        assert!(response.body.len() < if is_alone { 6 << 20 } else { 5 << 20 }, "{}", response.body.len());
        assert!(!entries.is_empty() && entries.len() <= 2, "{}", entries.len());
        for entry in entries {
            assert!(seen.insert(entry["id"].as_str().expect("an id").to_owned()), "listed twice");
        }
        at = listing["next"].as_u64();
        assert!(at.is_none_or(|next| next == seen.len() as u64), "{at:?}");
    }
    assert_eq!(seen, users.iter().map(|user| user.id.clone()).collect());
}

#[test]
fn data_is_kept_with_the_connection() {
    let server = TestServer::new();
    for user in User::on_both_cores(&server) {
        let path = format!("/api/ws/connections/{}/data", user.id);
        assert_eq!(ask(&server, "GET", &path, ""), (200, json!(null)));
        let data = json!({ "name": "Ada", "tags": ["x"] });
        assert_eq!(ask(&server, "PUT", &path, &data.to_string()), (200, data.clone()));
        for _ in 0..8 {
            assert_eq!(ask(&server, "GET", &path, ""), (200, data.clone()));
        }
        let (_, listing) = ask(&server, "GET", "/api/ws/connections", "");
        let entries = listing["connections"].as_array().expect("a list");
        assert!(entries.iter().any(|entry| entry["id"] == user.id.as_str() && entry["data"] == data));
    }
}

#[test]
fn delete_says_why_and_closes() {
    let server = TestServer::new();
    for mut user in User::on_both_cores(&server) {
        let path = format!("/api/ws/connections/{}", user.id);
        assert_eq!(ask(&server, "DELETE", &path, ""), (200, json!({ "disconnected": true })));
        assert_eq!(user.expect("disconnect"), json!({ "reason": "Admin action" }));
        assert_eq!(close_code(&mut user.client), Some(1008));
        assert_eq!(ask(&server, "DELETE", &path, "").0, 404);
    }
    server.await_connections(0);
}

/// Kills: connections that are listed, and that nobody can ask for.
#[test]
fn a_connection_that_is_closing_is_there_until_it_has_gone() {
    let server = TestServer::with(config().close_timeout(Duration::from_secs(60)));
    // It does not answer the Close frame.
    let _user = server.open("/ws");
    server.await_connections(1);
    let (_, listing) = ask(&server, "GET", "/api/ws/connections", "");
    let path = format!("/api/ws/connections/{}", listing["connections"][0]["id"].as_str().expect("an id"));
    for _ in 0..2 {
        assert_eq!(ask(&server, "DELETE", &path, ""), (200, json!({ "disconnected": true })));
        assert_eq!(ask(&server, "GET", &format!("{path}/data"), ""), (200, json!(null)));
        assert_eq!(ask(&server, "GET", "/api/ws/connections", "").1["count"], 1);
    }
}

#[test]
fn bodies_that_are_not_as_they_should_be_are_400() {
    let server = TestServer::new();
    let user = User::new(&server);
    let message = format!("/api/message/{}", user.id);
    let data = format!("/api/ws/connections/{}/data", user.id);
    let cases = [
        ("POST", "/api/broadcast", ""),
        ("POST", "/api/broadcast", "{"),
        ("POST", "/api/broadcast", "[]"),
        ("POST", "/api/broadcast", "{}"),
        ("POST", "/api/broadcast", r#"["evt",{"a":1},null]"#),
        ("POST", "/api/rooms/x", r#"["evt",{"a":1},null]"#),
        ("POST", "/api/broadcast", r#"{"event":5}"#),
        ("POST", "/api/broadcast", "{\"event\":\"\u{0}\"}"),
        ("POST", "/api/rooms/x", "no"),
        ("POST", "/api/rooms/x", r#"{"data":1}"#),
        ("POST", message.as_str(), ""),
        ("POST", message.as_str(), "{]"),
        ("PUT", data.as_str(), "{} {}"),
    ];
    for (method, path, body) in cases {
        let (status, answer) = ask(&server, method, path, body);
        assert_eq!(status, 400, "{method} {path} {body:?}: {answer}");
        assert!(answer["error"].is_string(), "{answer}");
    }
}

#[test]
fn other_methods_and_paths_are_told_so() {
    let server = TestServer::new();
    let cases = [
        ("GET", "/api/broadcast", "POST"),
        ("DELETE", "/api/message/x", "POST"),
        ("POST", "/api/rooms", "GET, HEAD"),
        ("PUT", "/api/rooms/x", "POST, DELETE"),
        ("POST", "/api/ws/connections", "GET, HEAD"),
        ("GET", "/api/ws/connections/x", "DELETE"),
        ("POST", "/api/ws/connections/x/data", "GET, PUT, HEAD"),
        ("POST", "/", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
    ];
    for (method, path, allowed) in cases {
        let response = ask_with(&server, method, path, &[], "");
        assert_eq!((response.status, response.header("allow")), (405, Some(allowed)), "{method} {path}");
        assert!(json_of(&response)["error"].is_string());
    }
    for path in ["/api", "/api/", "/api/x", "/api/ws", "/api/broadcast/", "/ws/x"] {
        let (status, body): (u16, Value) = ask(&server, "GET", path, "");
        assert_eq!(status, 404, "{path}");
        assert!(body["error"].is_string());
    }
}

#[test]
fn a_body_that_is_too_large_is_413() {
    let server = TestServer::with(config().max_body(1000));
    let body = format!(r#"{{"message":"{}"}}"#, "x".repeat(1000));
    let (status, answer) = ask(&server, "POST", "/api/broadcast", &body);
    assert_eq!(status, 413, "{answer}");
    assert!(answer["error"].is_string());
}
