//! Servers behind proxies: who is taken for the client, and who for an operator.

#![forbid(unsafe_code)]

#[path = "../common/mod.rs"]
mod common;

mod admin;
mod fields;
mod header;
mod installed;

use std::net::{IpAddr, SocketAddr, TcpStream};

use ringwire::Config;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::common::raw::{Raw, Response};
use crate::common::{TestServer, config};

const TOKEN: &str = "c2VjcmV0";

/// Whose API answers whoever shows the token.
fn with_token(config: Config) -> Config {
    config.api_token(Some(TOKEN.parse().expect("a token")))
}

fn trusting(proxies: &str) -> Config {
    with_token(config()).trusted_proxies(proxies.parse().expect("a list"))
}

/// A connection from an address of this machine's loopback network.
fn connect_from(ip: &str, to: SocketAddr) -> Raw {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let ip: IpAddr = ip.parse().expect("an address");
    socket.bind(&SocketAddr::new(ip, 0).into()).expect("an address of this machine");
    socket.connect(&to.into()).expect("a connection");
    Raw::over(TcpStream::from(socket))
}

fn get(path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n").into_bytes()
}

fn upgrade(path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    all.extend(fields);
    get(path, &all)
}

/// The peers of all WebSockets as the API tells them.
fn peers_by(mut client: Raw, prelude: &[u8]) -> Vec<String> {
    let bearer = format!("Bearer {TOKEN}");
    client.send(&[prelude, &get("/api/ws/connections", &[("Authorization", &bearer)])].concat());
    let response = client.response(false);
    assert_eq!(response.status, 200, "{response:?}");
    let listing: Value = serde_json::from_str(&response.body).expect("JSON");
    let connections = listing["connections"].as_array().expect("a list");
    connections.iter().map(|entry| entry["peer"].as_str().unwrap_or("none").to_owned()).collect()
}

/// What a client that sends these bytes is answered.
fn ask(mut client: Raw, bytes: &[u8]) -> Response {
    client.send(bytes);
    client.response(false)
}

/// The peer of the one WebSocket that is opened so.
fn peer_of(server: &TestServer, request: &[u8]) -> String {
    let mut client = server.raw();
    client.send(request);
    assert_eq!(client.response(false).status, 101);
    server.await_connections(1);
    let peers = peers_by(server.raw(), b"");
    drop(client);
    server.await_connections(0);
    assert_eq!(peers.len(), 1);
    peers.into_iter().next().expect("one")
}
