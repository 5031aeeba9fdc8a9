//! One echo in every style: awaited in a task, called back, answered by a stream: `cargo run --example echo_styles`.
//!
//! It listens on port 8080, or on that of the variable `PORT`.

use std::net::SocketAddr;

use futures_util::stream;
use ringwire::config::{Config, ListenAddress};
use ringwire::{App, BoxError, Connection, HttpError, Json, Message, Request, Server, Socket, ws};
use serde_json::json;

fn main() -> ringwire::Result<()> {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let address = ListenAddress::from(SocketAddr::from(([127, 0, 0, 1], port)));
    let config = Config::from_env()?.addresses(vec![address]);
    Server::new(config).on_start(|handle| println!("listening on {}", handle.addresses()[0])).run(app)
}

pub(crate) fn app() -> App {
    App::new()
        .ws("/echo", ws().task(echo))
        .ws("/listen", |socket: &mut Socket, message: Message| socket.send(message))
        .ws(
            "/once",
            ws().on_message(|socket, message| {
                let _ = socket.send(message);
                socket.close(1000, "")
            }),
        )
        .ws("/count", ws().task(count))
        .ws("/who", ws().on_connect(who))
        .ws("/throws", ws().on_message(|_, _| Err::<(), BoxError>("a secret of the server".into())))
        // Groups and what runs before their routes are the same for sockets as for other routes.
        .group("/inner", |inner| {
            inner.before(needs_key).group("/most", |most| most.ws("/echo", ws().task(echo)).get("/plain", plain))
        })
}

async fn plain(_: Request) -> &'static str {
    "an ordinary response"
}

fn needs_key(request: &mut Request) -> Result<(), HttpError> {
    request.header("x-key").map(|_| ()).ok_or_else(|| HttpError::forbidden("a key is needed"))
}

async fn echo(mut socket: Connection) {
    while let Some(message) = socket.recv().await {
        let _ = socket.send(message);
    }
}

/// Counts to the number that it gets, and closes.
async fn count(mut socket: Connection) -> Result<(), BoxError> {
    if let Some(message) = socket.recv().await {
        let last: u32 = message.json()?;
        let _ = socket.send_stream(stream::iter((1..=last).map(|number| number.to_string()))).await;
        socket.close(1000, "counted")?;
    }
    Ok(())
}

/// The request is there as long as the socket is; only its body is empty.
fn who(socket: &mut Socket<'_>) -> Json<serde_json::Value> {
    let request = socket.request();
    Json(json!({
        "method": request.method().as_str(),
        "path": request.path(),
        "name": request.query("name"),
        "agent": request.header("user-agent"),
        "peer": request.peer().map(|peer| peer.ip().to_string()),
        "body": request.body().len(),
    }))
}
