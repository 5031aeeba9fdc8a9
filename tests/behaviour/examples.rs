//! The examples that port other frameworks' documents, served as they are, and how their clients begin.

use ringwire::ConnectionId;
use serde_json::{Value, json};

use crate::common::Client;
use crate::rig::{Served, block_on, json, serve, text};

#[allow(dead_code)]
#[path = "../../examples/chat_with_http_api.rs"]
mod chat_with_http_api;

#[allow(dead_code)]
#[path = "../../examples/client_and_server.rs"]
mod client_and_server;

#[allow(dead_code)]
#[path = "../../examples/named_events.rs"]
mod named_events;

#[allow(dead_code)]
#[path = "../../examples/modes.rs"]
mod modes;

#[allow(dead_code)]
#[path = "../../examples/echo_styles.rs"]
mod echo_styles;

pub(crate) fn arcade() -> Served {
    let rooms = chat_with_http_api::Rooms::default();
    rooms.create("room123", "Lobby");
    serve(move || chat_with_http_api::app(&rooms))
}

pub(crate) fn dart() -> Served {
    serve(client_and_server::app)
}

pub(crate) fn finch() -> Served {
    serve(named_events::app)
}

pub(crate) fn revali() -> Served {
    serve(modes::app)
}

pub(crate) fn spry() -> Served {
    serve(echo_styles::app)
}

/// The id in the first message of the route `/ws`.
pub(crate) fn welcomed(client: &mut Client) -> ConnectionId {
    let welcome = text(client);
    let id = welcome.strip_prefix("Welcome! Your ID is ").unwrap_or_else(|| panic!("{welcome}"));
    let parsed: ConnectionId = id.parse().expect("an id");
    assert_eq!(parsed.to_string(), id);
    parsed
}

/// The next event of the form `{"path","data"}`.
pub(crate) fn path_event(client: &mut Client) -> (String, Value) {
    let mut value = json(client);
    let path = value["path"].as_str().unwrap_or_else(|| panic!("no path: {value}")).to_owned();
    (path, value["data"].take())
}

pub(crate) fn output(text: impl Into<String>) -> (String, Value) {
    ("output".to_owned(), Value::String(text.into()))
}

/// A client that has been greeted, as the number `number`.
pub(crate) fn greeted(served: &Served, number: u32) -> Client {
    let mut client = served.client("/ws");
    assert_eq!(path_event(&mut client), output(format!("A user connected. Total: {number}")));
    let greeting = json!({"message": "Successfully connected to socket!"});
    assert_eq!(path_event(&mut client), ("connected".to_owned(), greeting));
    client
}

pub(crate) fn ringwire_ids(served: &Served) -> Vec<ringwire::ConnectionId> {
    block_on(served.hub().ids()).expect("the cores answer")
}
