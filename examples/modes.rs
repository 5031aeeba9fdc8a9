//! Routes that talk both ways, only receive, or only send: `cargo run --example modes`.
//!
//! It listens on port 8080, or on that of the variable `PORT`.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use ringwire::config::{Config, ListenAddress};
use ringwire::{App, BoxError, Connection, Group, Mode, OwnedMessage, Sender, Server, Socket, sleep, ws};
use serde::Deserialize;
use serde_json::{Map, Value};

fn main() -> ringwire::Result<()> {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let address = ListenAddress::from(SocketAddr::from(([127, 0, 0, 1], port)));
    let config = Config::from_env()?.addresses(vec![address]);
    Server::new(config).on_start(|handle| println!("listening on {}", handle.addresses()[0])).run(app)
}

pub(crate) fn app() -> App {
    App::new().group("/chat", chat).group("/notifications", notifications).group("/upload", upload)
}

#[derive(Deserialize)]
struct ChatMessage {
    user: String,
    text: String,
}

fn chat(group: Group) -> Group {
    group
        .ws("/messages", ws().on_message(|_, message| message.as_text().map(|text| format!("Echo: {text}"))))
        .ws(
            "/log",
            ws().mode(Mode::ReceiveOnly).on_message(|_, message| {
                println!("Received: {:?}", message.as_text());
                "nobody gets this"
            }),
        )
        .ws("/typed", ws().on_json(|_, message: ChatMessage| format!("{}: {}", message.user, message.text)))
        .ws("/async", ws().on_message_async(processed))
        .ws(
            "/persistent",
            ws().on_message(|socket, message| {
                if message.as_text() == Some("quit") {
                    socket.close(1000, "Normal closure")?;
                    return Ok::<_, BoxError>("");
                }
                Ok("Message processed")
            }),
        )
        .ws("/heartbeat", ws().ping_interval(Duration::from_secs(30)).on_message(|_, _| "Pong"))
        .ws(
            "/connection",
            ws().trigger_on_connect().on_message(|_, message| match message.as_text() {
                Some("") | None => "Connected to WebSocket".to_owned(),
                Some(text) => format!("Message: {text}"),
            }),
        )
}

async fn processed(_: Connection, message: OwnedMessage) -> String {
    sleep(Duration::from_millis(100)).await;
    format!("Processed: {}", message.as_text().unwrap_or_default())
}

fn notifications(group: Group) -> Group {
    group
        // One message, and the connection is closed.
        .ws("/once", ws().mode(Mode::SendOnly).on_message(|_, _| "Server notification"))
        // The connection stays open until the last sender is dropped.
        .ws(
            "/stream",
            ws().mode(Mode::SendOnly).on_message(|socket, _| {
                let sender = socket.sender();
                thread::spawn(move || notify(&sender, 3));
                "Notification stream started"
            }),
        )
        // Both ways, and pushed to at the same time.
        .ws(
            "/timer",
            ws().on_connect(|socket: &mut Socket<'_>| {
                let sender = socket.sender();
                let timer = thread::spawn(move || notify(&sender, u32::MAX));
                socket.on_cleanup(move || println!("the timer runs: {}", !timer.is_finished()));
                "Notifications started"
            }),
        )
}

/// Any thread may do this.
fn notify(sender: &Sender, count: u32) {
    for number in 1..=count {
        thread::sleep(Duration::from_millis(50));
        if sender.is_gone() || sender.send(format!("Notification {number}")).is_err() {
            return;
        }
    }
}

fn upload(group: Group) -> Group {
    let progress = |_: &mut Socket<'_>, data: Map<String, Value>| {
        let (Some(progress), Some(name)) =
            (data.get("progress").and_then(Value::as_u64), data.get("filename").and_then(Value::as_str))
        else {
            return Err("progress and filename are needed");
        };
        Ok(if progress == 100 { format!("Upload complete: {name}") } else { format!("Upload progress: {progress}%") })
    };
    group.ws("/progress", ws().on_json(progress))
}
