//! Rooms with a history, and the page to use them: `cargo run --example chat`, then open http://127.0.0.1:8080/ in two
//! windows.
//!
//! It listens on port 8080, or on that of the variable `PORT`.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use ringwire::config::{Config, ListenAddress};
use ringwire::{App, BoxError, Events, Request, Response, Server, Undecodable};
use serde::{Deserialize, Serialize};
use serde_json::json;

const HISTORY_MAX: usize = 50;
const ROOMS_MAX: usize = 1000;

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

type History = Arc<Mutex<HashMap<String, VecDeque<Said>>>>;

fn main() -> ringwire::Result<()> {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let address = ListenAddress::from(SocketAddr::from(([127, 0, 0, 1], port)));
    let config = Config::from_env()?.addresses(vec![address]);
    let history = History::default();
    let announce = |handle: &ringwire::Handle| {
        let address = handle.addresses()[0].to_string();
        println!("listening on {address}");
        println!("open {}/ in two windows", address.replacen("ws:", "http:", 1));
    };
    Server::new(config).on_start(announce).run(move || app(&history))
}

fn app(history: &History) -> App {
    App::new()
        .get("/", async |_: Request| Response::html(include_str!("chat.html")))
        .ws("/rooms/{room}", chat(history).into_ws().max_message(4096).message_rate(20))
}

fn chat(history: &History) -> Events {
    let (earlier, later) = (Arc::clone(history), Arc::clone(history));
    Events::new()
        .undecodable(Undecodable::Tell)
        .on_connect(move |socket| {
            let room = socket.param("room");
            socket.join(room)?;
            let said = earlier.lock().unwrap_or_else(PoisonError::into_inner).get(room).cloned().unwrap_or_default();
            let _ = socket.emit("history", &said)?;
            socket.to(room).except_self().emit("joined", &json!({}))?;
            Ok::<_, BoxError>(())
        })
        .on("say", move |socket, say: Say| {
            let room = socket.param("room");
            let at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
            let said = Said { name: say.name, text: say.text, at };
            let mut rooms = later.lock().unwrap_or_else(PoisonError::into_inner);
            if rooms.len() < ROOMS_MAX || rooms.contains_key(room) {
                let history = rooms.entry(room.to_owned()).or_default();
                history.push_back(said.clone());
                if history.len() > HISTORY_MAX {
                    history.pop_front();
                }
            }
            drop(rooms);
            socket.to(room).emit("said", &said)
        })
        .on_disconnect(|socket, _| {
            let room = socket.param("room");
            let _ = socket.to(room).except_self().emit("left", &json!({}));
        })
}
