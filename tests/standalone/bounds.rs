//! Every limit of number and size that is told holds exactly: so much is taken, and not one more.

use serde_json::json;
use tungstenite::Message;

use crate::common::raw::{self, BINARY, CLOSE, FIN, PING, PONG, TEXT, binary, frame};
use crate::common::{TestServer, client, config, try_client};
use crate::{User, ask, ask_with, request};

const HEAD_BYTES: usize = 2000;
const BODY_BYTES: usize = 1000;
const MESSAGE_BYTES: usize = 5000;
const FRAGMENTS: usize = 10;
const ROOMS: usize = 5;

struct Bound {
    what: &'static str,
    most: usize,
    /// What is refused beyond it: a status, a close code, or an event.
    refusal: &'static str,
    /// Does something with so many, and says `fine`, or how it was refused.
    with: fn(&TestServer, usize) -> String,
}

const BOUNDS: &[Bound] = &[
    Bound { what: "RINGWIRE_MAX_HEAD", most: HEAD_BYTES, refusal: "431", with: head },
    Bound { what: "RINGWIRE_MAX_BODY", most: BODY_BYTES, refusal: "413", with: body },
    Bound { what: "RINGWIRE_MAX_BODY, in chunks", most: BODY_BYTES, refusal: "413", with: chunked_body },
    Bound { what: "RINGWIRE_MAX_MESSAGE", most: MESSAGE_BYTES, refusal: "1009", with: message },
    Bound { what: "RINGWIRE_MAX_MESSAGE, in fragments", most: MESSAGE_BYTES, refusal: "1009", with: fragmented },
    Bound { what: "RINGWIRE_MAX_FRAGMENTS", most: FRAGMENTS, refusal: "1008", with: fragments },
    Bound { what: "a control frame", most: 125, refusal: "1002", with: ping },
    Bound { what: "a close reason", most: 123, refusal: "1002", with: close_reason },
    Bound { what: "RINGWIRE_MAX_ROOMS", most: ROOMS, refusal: "in 5 rooms already", with: rooms },
    Bound { what: "a room's name: join", most: 256, refusal: "at most 256 bytes", with: name_in_join },
    Bound { what: "a room's name: /rooms", most: 256, refusal: "400", with: name_in_path },
    Bound { what: "a room's name: /api/rooms", most: 256, refusal: "400", with: name_in_api },
    Bound { what: "nesting: ping", most: 100, refusal: "deeper than 100", with: nesting_of_ping },
    Bound { what: "nesting: /api/broadcast", most: 100, refusal: "400", with: nesting_in_api },
    Bound { what: "nesting: data", most: 100, refusal: "400", with: nesting_of_data },
];

fn status(status: u16) -> String {
    if status == 200 { String::from("fine") } else { status.to_string() }
}

fn head(server: &TestServer, bytes: usize) -> String {
    let bare = request("GET", "/healthz", &[("x-pad", "")], "").len();
    let pad = "x".repeat(bytes - bare);
    status(ask_with(server, "GET", "/healthz", &[("x-pad", &pad)], "").status)
}

fn broadcast(bytes: usize) -> String {
    let bare = r#"{"message":""}"#.len();
    format!(r#"{{"message":"{}"}}"#, "x".repeat(bytes - bare))
}

fn body(server: &TestServer, bytes: usize) -> String {
    status(ask(server, "POST", "/api/broadcast", &broadcast(bytes)).0)
}

fn chunked_body(server: &TestServer, bytes: usize) -> String {
    let body = broadcast(bytes);
    let (one, other) = body.split_at(bytes / 2);
    let mut client = server.raw();
    client.send(b"POST /api/broadcast HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send_if_open(format!("{:x}\r\n{one}\r\n{:x}\r\n{other}\r\n0\r\n\r\n", one.len(), other.len()).as_bytes());
    status(client.response(false).status)
}

/// What comes back for these frames on `/echo`: a message of this length, or the close code.
fn echoed(server: &TestServer, frames: &[Vec<u8>], len: usize) -> String {
    let mut client = server.open("/echo");
    frames.iter().for_each(|frame| client.send_if_open(frame));
    let answer = client.frame();
    match answer.code() {
        Some(code) => code.to_string(),
        None if answer.payload.len() == len => String::from("fine"),
        None => format!("{} bytes", answer.payload.len()),
    }
}

fn message(server: &TestServer, bytes: usize) -> String {
    echoed(server, &[binary(&vec![7; bytes])], bytes)
}

fn fragmented(server: &TestServer, bytes: usize) -> String {
    let (one, other) = (vec![7; bytes / 2], vec![7; bytes - bytes / 2]);
    echoed(server, &[frame(BINARY, &one), frame(FIN, &other)], bytes)
}

fn fragments(server: &TestServer, count: usize) -> String {
    let mut frames = vec![frame(TEXT, b"x")];
    frames.extend((2..count).map(|_| frame(0, b"x")));
    frames.push(frame(FIN, b"x"));
    echoed(server, &frames, count)
}

fn ping(server: &TestServer, bytes: usize) -> String {
    let mut client = server.open("/echo");
    client.send(&frame(FIN | PING, &vec![b'x'; bytes]));
    let answer = client.frame();
    match answer.code() {
        Some(code) => code.to_string(),
        None if answer.first == FIN | PONG && answer.payload.len() == bytes => String::from("fine"),
        None => format!("{answer:?}"),
    }
}

fn close_reason(server: &TestServer, bytes: usize) -> String {
    let mut client = server.open("/echo");
    client.send(&raw::close(1000, &vec![b'x'; bytes]));
    let answer = client.frame();
    match (answer.first == FIN | CLOSE, answer.code()) {
        (true, Some(1000)) => String::from("fine"),
        (true, Some(code)) => code.to_string(),
        _ => format!("{answer:?}"),
    }
}

/// `fine` for an event of this name, otherwise what the error says.
fn event(user: &mut User, name: &str) -> String {
    let (event, data) = user.next();
    if event == name { String::from("fine") } else { data["message"].as_str().unwrap_or(&event).to_owned() }
}

fn rooms(server: &TestServer, count: usize) -> String {
    let mut user = User::new(server);
    let mut last = String::new();
    for room in 0..count {
        user.emit("join", &json!({ "room": room.to_string() }));
        last = event(&mut user, "joined");
    }
    last
}

/// A name of so many bytes, some characters of which have two.
fn name(bytes: usize) -> String {
    "é".repeat(10) + &"x".repeat(bytes - 20)
}

fn name_in_join(server: &TestServer, bytes: usize) -> String {
    let mut user = User::new(server);
    user.emit("join", &json!({ "room": name(bytes) }));
    event(&mut user, "joined")
}

fn name_in_path(server: &TestServer, bytes: usize) -> String {
    let path = format!("/rooms/{}", name(bytes).replace('é', "%C3%A9"));
    match try_client(server.address, &path) {
        Ok(mut client) => {
            client.send(Message::text("x")).expect("sent");
            assert_eq!(crate::text(&mut client), "x", "it is in the room");
            String::from("fine")
        }
        Err(error) => String::from(if error.contains("400") { "400" } else { "another error" }),
    }
}

fn name_in_api(server: &TestServer, bytes: usize) -> String {
    let path = format!("/api/rooms/{}", name(bytes).replace('é', "%C3%A9"));
    status(ask(server, "POST", &path, r#"{"event":"x"}"#).0)
}

fn nested(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

fn nesting_of_ping(server: &TestServer, depth: usize) -> String {
    let mut user = User::new(server);
    user.send(&format!(r#"{{"event":"ping","data":{}}}"#, nested(depth)));
    event(&mut user, "pong")
}

fn nesting_in_api(server: &TestServer, depth: usize) -> String {
    status(ask(server, "POST", "/api/broadcast", &format!(r#"{{"message":{}}}"#, nested(depth))).0)
}

fn nesting_of_data(server: &TestServer, depth: usize) -> String {
    let user = User::new(server);
    status(ask(server, "PUT", &format!("/api/ws/connections/{}/data", user.id), &nested(depth)).0)
}

#[test]
fn limits_that_are_told_are_those_that_hold() {
    let server = TestServer::with(
        config()
            .max_head(HEAD_BYTES)
            .max_body(BODY_BYTES)
            .max_message(MESSAGE_BYTES)
            .max_fragments(FRAGMENTS as u32)
            .max_rooms(ROOMS as u32),
    );
    let mut wrong = Vec::new();
    for Bound { what, most, refusal, with } in BOUNDS {
        let (at, beyond) = (with(&server, *most), with(&server, most + 1));
        if at != "fine" || !beyond.contains(refusal) {
            wrong.push(format!("{what}: {most} is {at}, one more is {beyond}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn so_many_connections_are_let_in() {
    for (config, refusal) in [(config().max_connections(7), "503"), (config().max_connections_per_ip(7), "429")] {
        let server = TestServer::with(config);
        let clients: Vec<_> = (0..7).map(|_| client(server.address, "/echo")).collect();
        server.await_connections(7);
        let error = try_client(server.address, "/echo").expect_err("one too many");
        assert!(error.contains(refusal), "{error}");
        drop(clients);
    }
}
