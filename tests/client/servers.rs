//! Servers that are a closure over a socket, plain or with TLS, which is rustls' here; and what clients need to reach them.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ringwire::client::Connect;
use ringwire::client::tls::Connector;
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use tungstenite::handshake::derive_accept_key;

use crate::common::pki::{Authority, Issued};
use crate::common::{PATIENCE, TestServer, config};

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Plain,
    Tls12,
    Tls13,
}

impl Speaks {
    pub(crate) const ALL: [Speaks; 3] = [Speaks::Plain, Speaks::Tls12, Speaks::Tls13];
    pub(crate) const SECURE: [Speaks; 2] = [Speaks::Tls12, Speaks::Tls13];

    pub(crate) fn scheme(self) -> &'static str {
        if self == Speaks::Plain { "ws" } else { "wss" }
    }

    fn version(self) -> Option<&'static SupportedProtocolVersion> {
        match self {
            Speaks::Plain => None,
            Speaks::Tls12 => Some(&rustls::version::TLS12),
            Speaks::Tls13 => Some(&rustls::version::TLS13),
        }
    }

    /// What a server with this certificate goes by.
    pub(crate) fn config(self, issued: &Issued) -> Option<ServerConfig> {
        let (chain, key) = issued.pair();
        let builder = ServerConfig::builder_with_protocol_versions(&[self.version()?]).with_no_client_auth();
        Some(builder.with_single_cert(chain, key).expect("a pair"))
    }
}

/// Who has signed the certificate of this machine, and that.
pub(crate) fn pki() -> &'static (Authority, Issued) {
    static PKI: OnceLock<(Authority, Issued)> = OnceLock::new();
    PKI.get_or_init(|| {
        let authority = Authority::new();
        let issued = authority.sign(&["localhost", "127.0.0.1"]);
        (authority, issued)
    })
}

/// What trusts it, for all clients.
pub(crate) fn connector() -> Connector {
    static CONNECTOR: OnceLock<Connector> = OnceLock::new();
    let make = || Connector::builder().ca_pem(pki().0.pem()).build().expect("a connector");
    CONNECTOR.get_or_init(make).clone()
}

/// As the client's own, with trust in the servers here.
pub(crate) fn connect(url: impl Into<String>) -> Connect {
    ringwire::client::connect(url).tls(connector())
}

/// This project's server.
pub(crate) fn own(speaks: Speaks) -> TestServer {
    match speaks.config(&pki().1) {
        Some(tls) => TestServer::with(config().handshake_timeout(Duration::from_secs(60)).tls(tls)),
        None => TestServer::new(),
    }
}

/// The URL of its path.
pub(crate) fn url(server: &TestServer, speaks: Speaks, path: &str) -> String {
    format!("{}://{}{path}", speaks.scheme(), server.address)
}

/// A server's end of a connection.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Stream {
    fn new(speaks: Speaks, socket: TcpStream) -> Stream {
        match speaks.config(&pki().1) {
            None => Stream::Plain(socket),
            Some(config) => {
                let session = ServerConnection::new(Arc::new(config)).expect("a session");
                Stream::Tls(Box::new(StreamOwned::new(session, socket)))
            }
        }
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => &stream.sock,
        }
    }

    pub(crate) fn session(&mut self) -> &mut ServerConnection {
        match self {
            Stream::Plain(_) => panic!("it speaks no TLS"),
            Stream::Tls(stream) => &mut stream.conn,
        }
    }

    /// Says that nothing more comes, as it is said.
    pub(crate) fn shut(&mut self) {
        if let Stream::Tls(stream) = self {
            stream.conn.send_close_notify();
            stream.flush().expect("it is sent");
        }
        self.tcp().shutdown(std::net::Shutdown::Write).expect("shut");
    }

    /// Ends the connection without saying so.
    pub(crate) fn shut_without_a_word(&mut self) {
        self.tcp().shutdown(std::net::Shutdown::Both).expect("shut");
    }
}

impl io::Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(into),
            Stream::Tls(stream) => stream.read(into),
        }
    }
}

impl io::Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}

pub(crate) type Tungstenite = tungstenite::WebSocket<Stream>;

/// Serves one connection after the other, so many, each with `serve`.
pub(crate) fn serve<T: Send + 'static>(
    speaks: Speaks,
    connections: usize,
    serve: impl Fn(Stream) -> T + Send + 'static,
) -> (String, JoinHandle<Vec<T>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address: SocketAddr = listener.local_addr().expect("an address");
    let thread = thread::spawn(move || {
        let accept = |_| {
            let (stream, _) = listener.accept().expect("a connection");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            serve(Stream::new(speaks, stream))
        };
        (0..connections).map(accept).collect()
    });
    (format!("{}://{address}/", speaks.scheme()), thread)
}

/// Serves one connection with tungstenite.
pub(crate) fn tungstenite<T: Send + 'static>(
    speaks: Speaks,
    talk: impl Fn(&mut Tungstenite) -> T + Send + 'static,
) -> (String, JoinHandle<Vec<T>>) {
    serve(speaks, 1, move |stream| talk(&mut tungstenite::accept(stream).expect("a handshake")))
}

/// Serves one connection with bytes, after a good handshake.
pub(crate) fn raw<T: Send + 'static>(
    speaks: Speaks,
    talk: impl Fn(&mut Stream) -> T + Send + 'static,
) -> (String, JoinHandle<Vec<T>>) {
    serve(speaks, 1, move |mut stream| {
        let key = read_request(&mut stream);
        stream.write_all(switching(&key).as_bytes()).expect("it can be sent");
        talk(&mut stream)
    })
}

/// Reads a request's head; its key.
pub(crate) fn read_request(stream: &mut Stream) -> String {
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
pub(crate) fn read_frame(stream: &mut Stream) -> Option<Masked> {
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
