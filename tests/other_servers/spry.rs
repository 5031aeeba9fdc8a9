//! Spry, "Advanced → Websockets".

use ringwire::testing::TestServer;
use ringwire::{App, Connection, ws};

use crate::given::printed;

fn route() -> App {
    App::new().ws("/echo", ws().on_connect(|_| println!("WebSocket connected")))
}

fn awaited_messages() -> App {
    let echo = async |mut socket: Connection| {
        println!("WebSocket connected");
        while let Some(message) = socket.recv().await {
            println!("Received: {}", message.as_text().unwrap_or_default());
        }
    };
    App::new().ws("/echo", ws().task(echo))
}

fn listened_messages() -> App {
    let echo =
        ws().on_connect(|_| println!("WebSocket connected")).on_text(|_, message| println!("Received: {message}"));
    App::new().ws("/echo", echo)
}

fn message_sent_back() -> App {
    let echo = ws().on_connect(|_| println!("WebSocket connected")).on_message(|socket, message| {
        println!("Received: {}", message.as_text().unwrap_or_default());
        socket.send(message)
    });
    App::new().ws("/echo", echo)
}

fn message_sent_back_and_closed() -> App {
    let echo = ws().on_connect(|_| println!("WebSocket connected")).on_message(|socket, message| {
        println!("Received: {}", message.as_text().unwrap_or_default());
        let _ = socket.send(message);
        socket.close(1000, "")
    });
    App::new().ws("/echo", echo)
}

#[test]
fn a_route_is_told_of_connections() {
    let server = TestServer::new(route);
    let client = server.connect("/echo");
    assert_eq!(printed(), ["WebSocket connected"]);
    client.send("hello");
    client.expect_nothing();
    assert!(client.is_open());
}

#[test]
fn messages_are_awaited_or_listened_for() {
    for app in [awaited_messages, listened_messages] {
        let server = TestServer::new(app);
        let client = server.connect("/echo");
        client.send("one");
        client.send("two");
        client.expect_nothing();
        assert_eq!(printed(), ["WebSocket connected", "Received: one", "Received: two"]);
    }
}

#[test]
fn a_message_is_sent_back_and_the_connection_remains_open() {
    let server = TestServer::new(message_sent_back);
    let client = server.connect("/echo");
    client.send("hello");
    client.expect_text("hello");
    client.send([1, 2, 3]);
    client.expect_binary([1, 2, 3]);
    client.expect_nothing();
    assert!(client.is_open());
}

#[test]
fn the_connection_is_closed_when_they_are_finished() {
    let server = TestServer::new(message_sent_back_and_closed);
    let client = server.connect("/echo");
    client.send("hello");
    client.expect_text("hello");
    client.expect_close(1000);
    assert_eq!(printed(), ["WebSocket connected", "Received: hello"]);
}
