//! Named messages of the form `{"path":NAME,"data":DATA}`, and an HTTP handler that hands its request over to them:
//! `cargo run --example named_events`.
//!
//! It listens on port 8080, or on that of the variable `PORT`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use ringwire::config::{Config, ListenAddress};
use ringwire::{App, Envelope, Events, HttpError, Request, Server};
use serde_json::{Value, json};

fn main() -> ringwire::Result<()> {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let address = ListenAddress::from(SocketAddr::from(([127, 0, 0, 1], port)));
    let config = Config::from_env()?.addresses(vec![address]);
    Server::new(config).on_start(|handle| println!("listening on {}", handle.addresses()[0])).run(app)
}

pub(crate) fn app() -> App {
    // Made once: all upgrades are to the same route.
    let socket = socket_manager().into_ws();
    App::new()
        .envelope(Envelope::Path)
        .any("/ws", async move |request: Request| {
            if request.query("banned").is_some() {
                return Err(HttpError::forbidden("you are banned"));
            }
            Ok(request.upgrade(&socket))
        })
        .post("/announce", async |request: Request| {
            let text: Value = request.json()?;
            let told = request.hub().emit_to_all("output", &text)?.await;
            Ok::<_, HttpError>(json!({"recipients": told.queued}))
        })
}

fn socket_manager() -> Events {
    Events::new()
        .on_connect(|socket| {
            let count = socket.hub().websockets();
            socket.to_all().emit("output", &format!("A user connected. Total: {count}"))?;
            socket.emit("connected", &json!({"message": "Successfully connected to socket!"}))
        })
        .on("test", |socket, _: Value| {
            let headers: BTreeMap<String, String> = socket
                .request()
                .headers()
                .iter()
                .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
                .collect();
            socket.emit("test", &[headers])
        })
        .on("time", |socket, _: Value| {
            socket.emit("output", &humantime::format_rfc3339_millis(SystemTime::now()).to_string())
        })
        .on("others", |socket, data: Value| socket.to_all().except_self().emit("output", &data))
        .ignore("noop")
        .on_message(|socket, message| {
            let text = message.as_text().map_or_else(|| "binary".to_owned(), str::to_owned);
            socket.emit("unmatched", &text)
        })
        .on_disconnect(|socket, _| {
            // The one who leaves is still counted.
            let left = socket.hub().websockets() - 1;
            let _ = socket.to_all().emit("output", &format!("A user disconnected. Total: {left}"));
        })
}
