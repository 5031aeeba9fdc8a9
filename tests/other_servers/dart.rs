//! The tutorial of Dart's own `WebSocket`: four clients and a server.

use std::time::Duration;

use ringwire::client::{ClientError, blocking};
use ringwire::http::StatusCode;
use ringwire::testing::TestServer;
use ringwire::{App, Json, ws};
use serde_json::{Value, json};

use crate::given::{nobody, printed, serve};

fn basic_client(url: &str) -> Result<(), ClientError> {
    let mut socket = blocking::connect(url)?;
    println!("Connected to WebSocket server");
    socket.send("Hello from Dart!")?;
    if let Some(message) = socket.recv().transpose()? {
        println!("Received: {}", message.as_text().unwrap_or_default());
        socket.close(1000, "")?;
    }
    Ok(())
}

fn client_with_error_handling(url: &str) {
    let talk = || {
        let mut socket = blocking::connect(url)?;
        for ping in ["Ping", "Ping 2"] {
            socket.send(ping)?;
            match socket.recv_timeout(Duration::from_secs(1)) {
                Some(Ok(data)) => println!("Message: {}", data.as_text().unwrap_or_default()),
                Some(Err(error)) => println!("Error: {error}"),
                None => break,
            }
        }
        socket.close(1000, "")
    };
    match talk() {
        Ok(_) => println!("Connection closed"),
        Err(error) => println!("Connection error: {error}"),
    }
}

fn server() -> App {
    let sockets = ws()
        .on_connect(|socket| println!("Client connected: {}", socket.id()))
        .on_text(|_, message| {
            println!("Received: {message}");
            format!("Echo: {message}")
        })
        .on_error(|_, error| println!("Error: {error}"))
        .on_close(|_, _| println!("Client disconnected"));
    App::new().ws("/", sockets).get("/", async |_| StatusCode::FORBIDDEN)
}

fn binary_client(url: &str) -> Result<(), ClientError> {
    let mut socket = blocking::connect(url)?;
    socket.send([1, 2, 3, 4, 5])?;
    if let Some(message) = socket.recv().transpose()? {
        match message.as_text() {
            None => println!("Received binary: {:?}", message.as_bytes()),
            Some(text) => println!("Received text: {text}"),
        }
    }
    socket.close(1000, "")?;
    Ok(())
}

fn json_client(url: &str) -> Result<(), ClientError> {
    let mut socket = blocking::connect(url)?;
    socket.send(Json(json!({"type": "greeting", "content": "Hello Server"})))?;
    if let Some(data) = socket.recv().transpose()? {
        match data.json::<Value>() {
            Ok(response) => println!("Received JSON: {} - {}", response["type"], response["content"]),
            Err(error) => println!("Error parsing JSON: {error}"),
        }
    }
    socket.close(1000, "")?;
    Ok(())
}

/// `wss://echo.websocket.org`: what comes goes back.
fn echo() -> App {
    App::new().ws("/", ws().on_message(|socket, message| socket.send(message)))
}

#[test]
fn a_client_connects_sends_and_closes_after_the_answer() {
    let echo = serve(echo);
    basic_client(&echo.url("/")).expect("it goes well");
    assert_eq!(printed(), ["Connected to WebSocket server", "Received: Hello from Dart!"]);
    assert!(matches!(basic_client(&nobody()), Err(ClientError::Connect { .. })), "an error, and no panic");
}

#[test]
fn a_client_exchanges_messages_and_tells_of_every_error() {
    let echo = serve(echo);
    client_with_error_handling(&echo.url("/"));
    assert_eq!(printed(), ["Message: Ping", "Message: Ping 2", "Connection closed"]);
    client_with_error_handling(&nobody());
    let printed = printed();
    assert_eq!(printed.len(), 1);
    assert!(printed[0].starts_with("Connection error: "), "{printed:?}");
}

#[test]
fn a_server_of_many_clients_echoes_and_refuses_who_asks_for_no_upgrade() {
    let server = TestServer::new(server);
    let clients = [server.connect("/"), server.connect("/")];
    let connected = printed();
    assert!(connected.len() == 2 && connected.iter().all(|line| line.starts_with("Client connected: ")));
    assert_ne!(connected[0], connected[1]);
    for client in &clients {
        client.send("Hello");
    }
    for client in clients {
        client.expect_text("Echo: Hello");
        client.close(1000, "");
        client.expect_close(1000);
    }
    let lines = ["Received: Hello", "Received: Hello", "Client disconnected", "Client disconnected"];
    assert_eq!(printed(), lines);
    assert_eq!(server.get("/").send().status(), 403);
}

#[test]
fn bytes_come_back_as_bytes() {
    binary_client(&serve(echo).url("/")).expect("it goes well");
    assert_eq!(printed(), ["Received binary: [1, 2, 3, 4, 5]"]);
}

#[test]
fn a_client_sends_and_reads_json() {
    let app = || {
        App::new().ws(
            "/",
            ws().on_json(|_, greeting: Value| match greeting["content"].as_str() {
                Some("Hello Server") => Some(Json(json!({"type": "response", "content": "Hello Client"}))),
                _ => None,
            }),
        )
    };
    json_client(&serve(app).url("/")).expect("it goes well");
    assert_eq!(printed(), [r#"Received JSON: "response" - "Hello Client""#]);
    let app = || App::new().ws("/", ws().on_text(|_, _| "no JSON"));
    json_client(&serve(app).url("/")).expect("it goes well");
    assert!(printed()[0].starts_with("Error parsing JSON: "));
}
