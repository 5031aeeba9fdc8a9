//! A server for many clients that echoes text with a prefix, bytes as they are, and answers a JSON greeting:
//! `cargo run --example dart_client_server`.
//!
//! It listens on port 8080, or on that of the variable `PORT`.

use std::net::SocketAddr;

use ringwire::config::{Config, ListenAddress};
use ringwire::{App, HttpError, Json, Message, Request, Server, Socket, ws};
use serde_json::{Value, json};

fn main() -> ringwire::Result<()> {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let address = ListenAddress::from(SocketAddr::from(([127, 0, 0, 1], port)));
    let config = Config { addresses: vec![address], ..Config::from_env()? };
    Server::new(config).run_with(app, |handle| println!("listening on {}", handle.addresses()[0]))
}

pub(crate) fn app() -> App {
    let sockets = ws()
        .on_connect(|socket| println!("Client connected: {}", socket.id()))
        .on_message(|socket: &mut Socket<'_>, message: Message<'_>| match answer(&message) {
            Some(answer) => socket.send(answer),
            None => socket.send(message),
        })
        .on_close(|_, closed| println!("Client disconnected: {}", closed.code));
    // The same path without an upgrade is refused.
    App::new()
        .ws("/", sockets)
        .get("/", async |_: Request| Err::<(), HttpError>(HttpError::forbidden("this is a WebSocket server")))
}

/// `None` for binary messages.
fn answer(message: &Message<'_>) -> Option<String> {
    let text = message.as_text()?;
    match message.json::<Value>() {
        Ok(greeting) if greeting["type"] == "greeting" => {
            Some(Json(json!({"type": "response", "content": "Hello Client"})).0.to_string())
        }
        _ => Some(format!("Echo: {text}")),
    }
}
