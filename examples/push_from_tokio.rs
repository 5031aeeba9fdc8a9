//! A library that needs tokio, on a runtime of its own beside the server's cores: `cargo run --example push_from_tokio`.
//!
//! `/query` awaits the library's answer in a handler; to `/ticks` a tokio task pushes. Handlers and tasks of a core may
//! await anything that wakes them, from whichever thread.
//!
//! It listens on port 8080, or on that of the variable `PORT`.

use std::net::SocketAddr;
use std::time::Duration;

use ringwire::config::{Config, ListenAddress};
use ringwire::{App, BoxError, Connection, OwnedMessage, Sender, Server, Socket, ws};
use tokio::runtime::{Builder, Handle};

fn main() -> Result<(), BoxError> {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let address = ListenAddress::from(SocketAddr::from(([127, 0, 0, 1], port)));
    let config = Config::from_env()?.addresses(vec![address]);
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build()?;
    let tokio = runtime.handle().clone();
    let announce = |handle: &ringwire::Handle| println!("listening on {}", handle.addresses()[0]);
    Server::new(config).on_start(announce).run(move || app(&tokio))?;
    Ok(())
}

fn app(tokio: &Handle) -> App {
    let (query, push) = (tokio.clone(), tokio.clone());
    App::new()
        .ws(
            "/query",
            ws().on_message_async(async move |_: Connection, question: OwnedMessage| {
                let key = question.as_text().unwrap_or_default().to_owned();
                // The core serves its other connections until the answer is there.
                let row = query.spawn(async move { look_up(&key).await }).await?;
                Ok::<_, BoxError>(row)
            }),
        )
        .ws(
            "/ticks",
            ws().on_connect(move |socket: &mut Socket<'_>| {
                push.spawn(tick(socket.sender()));
            }),
        )
}

/// Stands for a client library of a data base.
async fn look_up(key: &str) -> String {
    tokio::time::sleep(Duration::from_millis(20)).await;
    format!("{key} = {}", key.len())
}

async fn tick(sender: Sender) {
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    for number in 0_u64.. {
        ticks.tick().await;
        let Ok(delivering) = sender.send(format!("tick {number}")) else { return };
        // Futures of the server's need no particular runtime either.
        if delivering.await.gone > 0 {
            return;
        }
    }
}
