//! Rooms with a history, and the page to use them: `cargo run --example chat`, then open http://127.0.0.1:8080/ in two
//! windows.
//!
//! It listens on port 8080, or on that of the variable `PORT`.

use std::net::SocketAddr;
use std::time::SystemTime;

use ringwire::config::{Config, ListenAddress};
use ringwire::{App, BoxError, Events, History, Request, Response, Server, Undecodable};
use serde::{Deserialize, Serialize};
use serde_json::json;

const HISTORY_MAX: u32 = 50;

#[derive(Deserialize)]
struct Say {
    name: String,
    text: String,
}

#[derive(Clone, Serialize)]
struct Said {
    name: String,
    text: String,
    at: String,
}

fn main() -> ringwire::Result<()> {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let address = ListenAddress::from(SocketAddr::from(([127, 0, 0, 1], port)));
    let config = Config::from_env()?.addresses(vec![address]);
    let announce = |handle: &ringwire::Handle| {
        let address = handle.addresses()[0].to_string();
        println!("listening on {address}");
        println!("open {}/ in two windows", address.replacen("ws:", "http:", 1));
    };
    Server::new(config).on_start(announce).run(app)
}

fn app() -> App {
    let chat = chat().into_ws().history(History::last(HISTORY_MAX)).max_message(4096).message_rate(20);
    App::new().get("/", async |_: Request| Response::html(include_str!("chat.html"))).ws("/rooms/{room}", chat)
}

fn chat() -> Events {
    Events::new()
        .undecodable(Undecodable::Tell)
        .on_connect(|socket| {
            let room = socket.param("room");
            socket.join_with_history(room, HISTORY_MAX as usize)?;
            socket.to(room).ephemeral().except_self().emit("joined", &json!({}))?;
            Ok::<_, BoxError>(())
        })
        .on("say", |socket, say: Say| {
            let at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
            let said = Said { name: say.name, text: say.text, at };
            socket.to(socket.param("room")).emit("said", &said)
        })
        .on_disconnect(|socket, _| {
            let room = socket.param("room");
            let _ = socket.to(room).ephemeral().except_self().emit("left", &json!({}));
        })
}
