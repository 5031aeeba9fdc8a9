//! A server for many clients that echoes text with a prefix, bytes as they are, and answers a JSON greeting, and a client
//! for it: `cargo run --example client_and_server`, and in another terminal
//! `cargo run --example client_and_server client ws://127.0.0.1:8080/`.
//!
//! The server listens on port 8080, or on that of the variable `PORT`.

use std::net::SocketAddr;

use ringwire::client::{ClientError, blocking};
use ringwire::config::{Config, ListenAddress};
use ringwire::{App, BoxError, HttpError, Json, Message, Request, Server, Socket, ws};
use serde_json::{Value, json};

fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("client") {
        return Ok(talk(arguments.next().as_deref().unwrap_or("ws://127.0.0.1:8080/"))?);
    }
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let address = ListenAddress::from(SocketAddr::from(([127, 0, 0, 1], port)));
    let config = Config::from_env()?.addresses(vec![address]);
    Server::new(config).on_start(|handle| println!("listening on {}", handle.addresses()[0])).run(app)?;
    Ok(())
}

/// Every failure is a value: nobody there, refused, a broken connection.
fn talk(url: &str) -> Result<(), ClientError> {
    let mut client = blocking::connect(url)?;
    println!("Connected to WebSocket server");
    client.send("Hello")?;
    client.send([1, 2, 3, 4, 5])?;
    client.send(Json(json!({"type": "greeting", "content": "Hello Server"})))?;
    for _ in 0..3 {
        match client.recv().transpose()? {
            None => break,
            Some(message) => match message.as_text() {
                None => println!("Received binary: {:?}", message.as_bytes()),
                Some(text) => println!("Received: {text}"),
            },
        }
    }
    let closed = client.close(1000, "done")?;
    println!("Connection closed: {}", closed.code);
    Ok(())
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
            Some(json!({"type": "response", "content": "Hello Client"}).to_string())
        }
        _ => Some(format!("Echo: {text}")),
    }
}
