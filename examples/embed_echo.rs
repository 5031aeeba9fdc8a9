//! An echo server: `cargo run --example embed_echo`, then talk to ws://127.0.0.1:9001/echo.

use ringwire::{App, Message, Server, Socket};

fn main() -> ringwire::Result<()> {
    let app = || App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message));
    Server::from_env()?.on_start(|handle| println!("listening on {}", handle.addresses()[0])).run(app)
}
