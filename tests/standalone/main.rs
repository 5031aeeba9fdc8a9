//! The stand-alone program's event sockets, its `/api` and `/metrics`, over two cores.

#![forbid(unsafe_code)]

#[path = "../common/mod.rs"]
mod common;

mod access;
mod api;
mod bounds;
mod documented;
mod events;
mod history;
mod metrics;
mod numbers;
mod page;
mod peer_text;
mod publish;
mod secrets;

use std::fmt::Write as _;

use ringwire::ConnectionId;
use serde_json::{Value, json};
use tungstenite::Message;

use crate::common::raw::Response;
use crate::common::{Client, TestServer, UntilAllCoresHaveSome, text};

/// A client of `/ws` that has been told its id.
struct User {
    client: Client,
    id: String,
}

impl User {
    fn new(server: &TestServer) -> User {
        let mut user = User { client: server.client("/ws"), id: String::new() };
        let connected = user.expect("connected");
        user.id = connected["id"].as_str().expect("an id").to_owned();
        user
    }

    /// One on each of two cores.
    fn on_both_cores(server: &TestServer) -> [User; 2] {
        let mut found: [Option<User>; 2] = [None, None];
        let mut pace = UntilAllCoresHaveSome::new();
        while found.iter().any(Option::is_none) {
            pace.one_more();
            let user = User::new(server);
            let core = user.core();
            found[core].get_or_insert(user);
        }
        found.map(|user| user.expect("one of this core"))
    }

    fn core(&self) -> usize {
        self.id.parse::<ConnectionId>().expect("an id").core()
    }

    fn send(&mut self, text: &str) {
        self.client.send(Message::text(text)).expect("sent");
    }

    fn emit(&mut self, event: &str, data: &Value) {
        self.send(&json!({ "event": event, "data": data }).to_string());
    }

    fn next(&mut self) -> (String, Value) {
        let mut event: Value = serde_json::from_str(&text(&mut self.client)).expect("JSON");
        assert_eq!(event.as_object().map(serde_json::Map::len), Some(2), "{event}");
        (event["event"].as_str().expect("a name").to_owned(), event["data"].take())
    }

    /// The next event, which is of this name.
    #[track_caller]
    fn expect(&mut self, name: &str) -> Value {
        let (event, data) = self.next();
        assert_eq!(event, name, "{data}");
        data
    }

    /// Nothing else has come: the answer to a ping is the next event.
    #[track_caller]
    fn has_nothing_more(&mut self) {
        self.emit("ping", &json!("nothing more"));
        assert_eq!(self.expect("pong"), "nothing more");
    }

    fn join(&mut self, room: &str) -> Value {
        self.emit("join", &json!({ "room": room }));
        self.expect("joined")
    }
}

/// Sends a request with these header lines.
fn ask_with(server: &TestServer, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
    let mut client = server.raw();
    client.send(&request(method, path, headers, body));
    client.response(method == "HEAD")
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        let _ = write!(request, "{name}: {value}\r\n");
    }
    [request.as_bytes(), b"\r\n", body.as_bytes()].concat()
}

/// Sends a request; the status and the JSON that came back.
fn ask(server: &TestServer, method: &str, path: &str, body: &str) -> (u16, Value) {
    let response = ask_with(server, method, path, &[], body);
    (response.status, json_of(&response))
}

#[track_caller]
fn json_of(response: &Response) -> Value {
    assert_eq!(response.header("content-type"), Some("application/json"), "{response:?}");
    serde_json::from_str(&response.body).unwrap_or_else(|error| panic!("{error}: {response:?}"))
}
