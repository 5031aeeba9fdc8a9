//! The client's side of the opening handshake, and the address it goes to.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs},
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tungstenite::handshake::derive_accept_key;

const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Any sixteen bytes in base64 will do; one key for all connections keeps the generator cheap.
const KEY: &str = "cmluZ3dpcmUtbG9hZHRlcw==";

/// Where a run goes.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    host: String,
    path: String,
}

impl Target {
    /// Reads `ws://HOST:PORT/PATH`.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("ws://").ok_or("the URL must begin with ws://")?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let addr = host.to_socket_addrs().map_err(|error| format!("{host}: {error}"))?.next();
        let addr = addr.ok_or_else(|| format!("{host} has no address"))?;
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { addr, host: host.to_owned(), path: path.to_owned() })
    }

    /// The request head.
    pub(crate) fn request(&self) -> Vec<u8> {
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n",
            self.path, self.host
        )
        .into_bytes()
    }

    /// Opens a TCP connection, from a given source address if there is one.
    pub(crate) fn connect(&self, source: Option<Ipv4Addr>) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(self.addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = source {
            // The port is chosen at connect, where it only has to be unique for the whole address pair.
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        socket.connect(&self.addr.into())?;
        Ok(socket.into())
    }

    /// Opens a WebSocket connection, waiting for the answer.
    pub(crate) fn upgrade(&self) -> io::Result<TcpStream> {
        let mut stream = self.connect(None)?;
        stream.write_all(&self.request())?;
        let mut head = Vec::new();
        let mut buffer = [0; 1024];
        loop {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            head.extend_from_slice(&buffer[..count]);
            match Response::parse(&head) {
                Some(Ok(len)) if len == head.len() => return Ok(stream),
                Some(Ok(_)) => return Err(io::Error::other("data behind the handshake")),
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => {}
            }
        }
    }
}

/// The answer to the opening handshake.
pub(crate) struct Response;

impl Response {
    /// Length of the response head once it is there and right.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Result<usize, String>> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return (bytes.len() > HEAD_BYTES_MAX).then(|| Err("the response head is too long".to_owned()));
        };
        let head = String::from_utf8_lossy(&bytes[..end]);
        let status = head.lines().next().unwrap_or_default();
        if !status.starts_with("HTTP/1.1 101") {
            return Some(Err(format!("refused: {status}")));
        }
        // RFC 6455 4.1: the client MUST fail the connection if the accept value is not the expected one.
        let accept = head.lines().skip(1).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("Sec-WebSocket-Accept").then(|| value.trim())
        });
        if accept != Some(derive_accept_key(KEY.as_bytes()).as_str()) {
            return Some(Err("wrong Sec-WebSocket-Accept".to_owned()));
        }
        Some(Ok(end + 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_answer_is_accepted() {
        let right = derive_accept_key(KEY.as_bytes());
        let head = format!("HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: {right}\r\n\r\n");
        assert_eq!(Response::parse(head.as_bytes()), Some(Ok(head.len())));
        assert_eq!(Response::parse(&head.as_bytes()[..head.len() - 1]), None);
        assert!(Response::parse(head.replace(&right, "x").as_bytes()).is_some_and(|result| result.is_err()));
        assert!(Response::parse(b"HTTP/1.1 503 Busy\r\n\r\n").is_some_and(|result| result.is_err()));
    }
}
