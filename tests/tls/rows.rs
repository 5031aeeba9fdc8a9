//! What holds without TLS holds with it: each row of a table for plain connections and for both versions.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use ringwire::client::tls::Connector;
use ringwire::config::ProxyProtocol;
use ringwire::metrics::TlsResult;
use ringwire::remote::AskAll as _;
use ringwire::{App, Config, Deflate, Handle, Message as Received, Server, SlowConsumer, Socket, ws};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, StreamOwned, SupportedProtocolVersion};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, WebSocket};

use crate::common::{PATIENCE, config, eventually, pattern};
use crate::{BOTH, Pki};

type Version = &'static SupportedProtocolVersion;

const ALL: [Option<Version>; 3] = [None, Some(BOTH[0]), Some(BOTH[1])];

/// A server, and what its clients need.
struct Row {
    handle: Handle,
    address: SocketAddr,
    pki: Pki,
    client: Option<Arc<ClientConfig>>,
}

impl Row {
    fn start(version: Option<Version>, config: Config, app: impl Fn() -> App + Send + Sync + 'static) -> Row {
        let pki = Pki::new();
        let config = match version {
            None => config,
            Some(version) => {
                let (chain, key) = pki.issued.pair();
                let builder = ServerConfig::builder_with_protocol_versions(&[version]).with_no_client_auth();
                config.tls(builder.with_single_cert(chain, key).expect("a pair"))
            }
        };
        let handle = Server::new(config).start(app).expect("it starts");
        let address = handle.addresses()[0].inet().expect("TCP");
        let client = version.map(|version| pki.client(version, false));
        Row { handle, address, pki, client }
    }

    fn line(&self, cut: Cut) -> Line {
        let socket = TcpStream::connect(self.address).expect("a connection");
        socket.set_nodelay(true).and_then(|()| socket.set_read_timeout(Some(PATIENCE))).expect("options");
        let wire = Wire { socket, cut };
        match &self.client {
            None => Line::Plain(wire),
            Some(client) => {
                let name = ServerName::try_from("localhost").expect("a name");
                let session = ClientConnection::new(Arc::clone(client), name).expect("a session");
                Line::Tls(Box::new(StreamOwned::new(session, wire)))
            }
        }
    }

    fn open(&self, cut: Cut) -> WebSocket<Line> {
        let limits = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
        let opened = tungstenite::client::client_with_config("ws://localhost/", self.line(cut), Some(limits));
        opened.map_err(|error| error.to_string()).expect("a WebSocket").0
    }

    fn end(self) {
        self.handle.shutdown();
        self.handle.join().expect("every core ends well");
    }
}

/// How bytes are cut on their way out, and what stands before them.
#[derive(Default)]
struct Cut {
    /// At most so many at a time, if not zero.
    at_once: usize,
    /// Not sealed, in one piece with what comes first.
    before: Vec<u8>,
}

impl Cut {
    fn to(at_once: usize) -> Cut {
        Cut { at_once, ..Cut::default() }
    }
}

struct Wire {
    socket: TcpStream,
    cut: Cut,
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.socket.read(into)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let at_once = if self.cut.at_once == 0 { usize::MAX } else { self.cut.at_once };
        if !self.cut.before.is_empty() {
            let whole = [&std::mem::take(&mut self.cut.before), bytes].concat();
            whole.chunks(at_once).try_for_each(|part| self.socket.write_all(part))?;
            return Ok(bytes.len());
        }
        self.socket.write(&bytes[..bytes.len().min(at_once)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

enum Line {
    Plain(Wire),
    Tls(Box<StreamOwned<ClientConnection, Wire>>),
}

impl Read for Line {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Line::Plain(wire) => wire.read(into),
            Line::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Line::Plain(wire) => wire.write(bytes),
            Line::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Line::Plain(wire) => wire.flush(),
            Line::Tls(stream) => stream.flush(),
        }
    }
}

fn echo() -> App {
    App::new().ws("/", |socket: &mut Socket, message: Received| socket.send(message))
}

/// Reads to the end; the close code, if there was one.
fn code_of(socket: &mut WebSocket<Line>) -> Option<u16> {
    let mut code = None;
    loop {
        match socket.read() {
            Ok(Message::Close(frame)) => code = frame.map(|frame| frame.code.into()),
            Ok(_) => {}
            Err(_) => return code,
        }
    }
}

#[test]
fn bytes_may_be_cut_anywhere() {
    for version in ALL {
        let row = Row::start(version, config(), echo);
        for at_once in [1, 2, 7, 100, 1460] {
            let mut socket = row.open(Cut::to(at_once));
            for len in [0, 1, 300, 20_000] {
                socket.send(Message::binary(pattern(len))).expect("sent");
                assert!(socket.read().expect("an answer").into_data() == pattern(len), "{version:?} {at_once} {len}");
            }
        }
        row.end();
    }
}

/// Messages of a flood, of which an outbox holds seventeen or so.
const SENT: u32 = 300;
const FLOOD_BYTES: usize = 60_000;

fn numbered(number: u32) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(FLOOD_BYTES, number as u8);
    bytes
}

/// Kills: sealed bytes that a policy drops or cuts, so that what follows cannot be opened.
#[test]
fn slow_consumers_fare_as_their_policy_says() {
    for version in ALL {
        for policy in [SlowConsumer::Close, SlowConsumer::DropNew, SlowConsumer::DropOld, SlowConsumer::KeepLatest] {
            let app = move || {
                let flood = |socket: &mut Socket, message: Received| {
                    if message.is_text() {
                        let _ = socket.send(message);
                        return;
                    }
                    for number in 0..SENT {
                        let _ = socket.send_keyed([(number % 3) as u8], numbered(number));
                    }
                };
                App::new().ws("/", ws().slow_consumer(policy).on_message(flood))
            };
            let row = Row::start(version, config(), app);
            let mut socket = row.open(Cut::default());
            for round in 0..3 {
                socket.send(Message::binary("flood")).expect("sent");
                std::thread::sleep(Duration::from_millis(50));
                let mut got = Vec::new();
                if policy == SlowConsumer::Close {
                    assert_eq!(code_of(&mut socket), Some(1013), "{version:?}");
                    break;
                }
                socket.send(Message::text("again")).expect("sent");
                loop {
                    let message = socket.read().expect("a message");
                    if message.is_text() {
                        break;
                    }
                    let bytes = message.into_data();
                    let number = u32::from_be_bytes(bytes[..4].try_into().expect("four"));
                    assert!(bytes == numbered(number), "{version:?} {policy}: {number}");
                    got.push(number);
                }
                let what = format!("{version:?} {policy} {round}: {got:?}");
                assert!((3..100).contains(&got.len()), "{what}");
                match policy {
                    SlowConsumer::DropNew => assert!(got.iter().copied().eq(0..got.len() as u32), "{what}"),
                    SlowConsumer::DropOld => {
                        assert!(got.iter().rev().copied().eq((0..SENT).rev().take(got.len())), "{what}")
                    }
                    _ => assert_eq!(got[got.len() - 3..], [SENT - 3, SENT - 2, SENT - 1], "{what}"),
                }
            }
            row.end();
        }
    }
}

#[test]
fn limits_hold() {
    type Does = fn(&Row) -> String;
    fn code(row: &Row, messages: &[Message]) -> String {
        let mut socket = row.open(Cut::default());
        for message in messages {
            // It may be closed meanwhile.
            let _ = socket.send(message.clone());
        }
        code_of(&mut socket).map_or("no code".into(), |code| code.to_string())
    }
    fn status(row: &Row, request: &str) -> String {
        let mut line = row.line(Cut::default());
        line.write_all(request.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        // The end need not be in order: what was not read of the request breaks the connection.
        let _ = line.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap_or("nothing").to_owned()
    }
    const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                           Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let short = Duration::from_millis(500);
    let rows: [(&str, Config, Does, &str); 6] = [
        ("a long message", config().max_message(1000), |row| code(row, &[Message::binary(vec![0; 1001])]), "1009"),
        ("too many messages", config().message_rate(5), |row| code(row, &vec![Message::text("x"); 40]), "1008"),
        (
            "a long head",
            config().max_head(1024),
            |row| status(row, &format!("GET / HTTP/1.1\r\nHost: x\r\nx: {}\r\n\r\n", "x".repeat(2000))),
            "431",
        ),
        ("a slow head", config().handshake_timeout(short), |row| status(row, "GET / HTTP/1.1\r\n"), "408"),
        (
            "one too many",
            config().max_connections(1),
            |row| {
                let _first = row.open(Cut::default());
                status(row, UPGRADE)
            },
            "503",
        ),
        ("silence", config().idle_timeout(short).ping_interval(Duration::ZERO), |row| code(row, &[]), "no code"),
    ];
    for (what, config, does, want) in rows {
        for version in ALL {
            let row = Row::start(version, config.clone(), echo);
            assert_eq!(does(&row), want, "{what} {version:?}");
            row.end();
        }
    }
}

/// Kills: handshakes without a time limit, and memory of theirs that stays.
#[test]
fn handshakes_that_stop_half_way_end_in_time() {
    let row = Row::start(Some(BOTH[1]), config().handshake_timeout(Duration::from_millis(700)), echo);
    let client = row.client.clone().expect("TLS");
    let mut hello = Vec::new();
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(client, name).expect("a session").write_tls(&mut hello).expect("a buffer");
    let cuts = [1, 5, 6, 100, hello.len() - 1, hello.len()];
    let sockets: Vec<TcpStream> = cuts
        .iter()
        .map(|&len| {
            let mut socket = TcpStream::connect(row.address).expect("a connection");
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            socket.write_all(&hello[..len]).expect("sent");
            socket
        })
        .collect();
    for (mut socket, len) in sockets.into_iter().zip(cuts) {
        let mut said = Vec::new();
        let _ = socket.read_to_end(&mut said);
        assert_eq!(said.is_empty(), len < hello.len(), "{len}");
    }
    let abandoned = || {
        let counts = row.handle.hub().ask_all(|hub| hub.counters.tls_handshakes.of(TlsResult::Abandoned));
        counts.expect("the cores answer").iter().sum::<u64>()
    };
    eventually(|| abandoned() == cuts.len() as u64, || format!("{} abandoned", abandoned()));
    let mut socket = row.open(Cut::default());
    socket.send(Message::text("still there")).expect("sent");
    assert!(socket.read().is_ok());
    row.end();
}

#[test]
fn what_is_compressed_is_sealed() {
    for version in ALL {
        for mode in [Deflate::Stateless, Deflate::Shared, Deflate::Dedicated] {
            let app = || {
                App::new().ws(
                    "/",
                    ws().on_connect(|socket: &mut Socket| socket.join("room")).on_message(
                        |socket: &mut Socket, message| {
                            let _ = socket.to("room").send(message);
                        },
                    ),
                )
            };
            let row = Row::start(version, config().cores("1".parse().expect("one")).deflate(mode), app);
            let scheme = if version.is_some() { "wss" } else { "ws" };
            let connector = Connector::builder().ca_pem(row.pki.authority.pem()).build().expect("a connector");
            let url = format!("{scheme}://{}/", row.address);
            let open = || {
                let client = ringwire::client::connect(url.as_str()).tls(connector.clone()).deflate().deflate_min(1);
                client.wait().expect("it opens")
            };
            let mut clients = [open(), open()];
            assert!(clients.iter().all(|client| client.headers().contains_key("sec-websocket-extensions")));
            for number in 0..60 {
                let text = format!("{{\"number\":{number},\"text\":\"{}\"}}", "again and again ".repeat(number * 20));
                clients[number % 2].send(text.as_str()).expect("sent");
                for client in &mut clients {
                    let message = client.recv_timeout(PATIENCE).expect("a message").expect("no error");
                    assert!(message.as_text() == Some(&text), "{version:?} {mode} {number}");
                }
            }
            let deflated = row.handle.hub().ask_all(|hub| hub.counters.deflated.messages).expect("an answer");
            assert!(deflated.iter().sum::<u64>() > 30, "{version:?} {mode}: {deflated:?}");
            row.end();
        }
    }
}

/// The header of the PROXY protocol stands before TLS, in the clear, in one piece with it or in many.
#[test]
fn the_proxy_protocol_stands_before_tls() {
    let app = || App::new().ws("/", ws().on_connect(|socket: &mut Socket| socket.send(format!("{:?}", socket.peer()))));
    for version in ALL {
        let row = Row::start(version, config().proxy_protocol(ProxyProtocol::Always), app);
        for at_once in [1, 7, 45, 0] {
            let before = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n".to_vec();
            let mut socket = row.open(Cut { at_once, before });
            let told = socket.read().expect("a message").into_text().expect("text");
            assert!(told.contains("192.0.2.7:56324"), "{version:?} {at_once}: {told}");
        }
        // Without one nobody is let in.
        let mut line = row.line(Cut::default());
        let _ = line.write_all(b"GET / HTTP/1.1\r\n\r\n");
        assert!(line.read_to_end(&mut Vec::new()).map_or(true, |len| len == 0));
        row.end();
    }
}
