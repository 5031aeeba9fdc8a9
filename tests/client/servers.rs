//! Servers that are a closure over a socket.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use tungstenite::handshake::derive_accept_key;

use crate::common::PATIENCE;

pub(crate) type Tungstenite = tungstenite::WebSocket<TcpStream>;

/// Serves one connection after the other, so many, each with `serve`.
pub(crate) fn serve<T: Send + 'static>(
    connections: usize,
    serve: impl Fn(TcpStream) -> T + Send + 'static,
) -> (String, JoinHandle<Vec<T>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address: SocketAddr = listener.local_addr().expect("an address");
    let thread = thread::spawn(move || {
        let accept = |_| {
            let (stream, _) = listener.accept().expect("a connection");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            serve(stream)
        };
        (0..connections).map(accept).collect()
    });
    (format!("ws://{address}/"), thread)
}

/// Serves one connection with tungstenite.
pub(crate) fn tungstenite<T: Send + 'static>(
    talk: impl Fn(&mut Tungstenite) -> T + Send + 'static,
) -> (String, JoinHandle<Vec<T>>) {
    serve(1, move |stream| talk(&mut tungstenite::accept(stream).expect("a handshake")))
}

/// Serves one connection with bytes, after a good handshake.
pub(crate) fn raw<T: Send + 'static>(
    talk: impl Fn(&mut TcpStream) -> T + Send + 'static,
) -> (String, JoinHandle<Vec<T>>) {
    serve(1, move |mut stream| {
        let key = read_request(&mut stream);
        stream.write_all(switching(&key).as_bytes()).expect("it can be sent");
        talk(&mut stream)
    })
}

/// Reads a request's head; its key.
pub(crate) fn read_request(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a request");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("ASCII");
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
    key.expect("a key").to_owned()
}

pub(crate) fn switching(key: &str) -> String {
    let accept = derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// A server's frame.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(len as u8),
        len @ 126..=0xFFFF => {
            bytes.push(126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(payload);
    bytes
}

/// A client's frame as it was sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Masked {
    pub(crate) first: u8,
    pub(crate) key: [u8; 4],
    pub(crate) payload: Vec<u8>,
}

/// Reads a client's frame; `None` at the end of the connection.
pub(crate) fn read_frame(stream: &mut TcpStream) -> Option<Masked> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).ok()?;
    assert_ne!(head[1] & 0x80, 0, "a client's frame is masked");
    let len = match head[1] & 0x7F {
        126 => {
            let mut len = [0; 2];
            stream.read_exact(&mut len).ok()?;
            u64::from(u16::from_be_bytes(len))
        }
        127 => {
            let mut len = [0; 8];
            stream.read_exact(&mut len).ok()?;
            u64::from_be_bytes(len)
        }
        len => u64::from(len),
    };
    let mut key = [0; 4];
    stream.read_exact(&mut key).ok()?;
    let mut payload = vec![0; len as usize];
    stream.read_exact(&mut payload).ok()?;
    payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    Some(Masked { first: head[0], key, payload })
}
