//! TLS over real sockets: with rustls' own client, and with others where they are there.
#![cfg(feature = "tls")]

#[path = "../common/browser.rs"]
mod browser;
#[path = "../common/mod.rs"]
mod common;
mod programs;
mod rows;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringwire::{App, Closed, Handle, Request, Server, Socket, TlsInfo, ws};
use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, ServerConfig, StreamOwned, SupportedProtocolVersion};
use tungstenite::{Message, WebSocket};

use common::pki::{Authority, Issued};
use common::{PATIENCE, config, eventually, raw};
use ringwire::remote::AskAll as _;

const BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// An authority and a certificate for this machine.
struct Pki {
    authority: Authority,
    issued: Issued,
}

impl Pki {
    fn new() -> Pki {
        let authority = Authority::new();
        let issued = authority.sign(&["localhost", "127.0.0.1"]);
        Pki { authority, issued }
    }

    fn server(&self) -> ServerConfig {
        let (chain, key) = self.issued.pair();
        let clients = WebPkiClientVerifier::builder(self.authority.roots()).allow_unauthenticated().build().unwrap();
        ServerConfig::builder().with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap()
    }

    fn client(&self, version: &'static SupportedProtocolVersion, shows_certificate: bool) -> Arc<ClientConfig> {
        let (chain, key) = self.issued.pair();
        let roots = self.authority.roots();
        let builder = ClientConfig::builder_with_protocol_versions(&[version]).with_root_certificates(roots);
        Arc::new(match shows_certificate {
            true => builder.with_client_auth_cert(chain, key).unwrap(),
            false => builder.with_no_client_auth(),
        })
    }
}

struct Served {
    handle: Option<Handle>,
    address: SocketAddr,
    pki: Pki,
    /// The ends of its WebSockets.
    ends: Receiver<Closed>,
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.shutdown();
            handle.join().expect("every core ends");
        }
    }
}

/// Tells what is known of a request's TLS.
fn told(request: &Request) -> String {
    of_tls(request.tls())
}

fn of_tls(tls: Option<&TlsInfo>) -> String {
    let Some(tls) = tls else { return "plain".into() };
    let (name, resumed, shown) = (tls.server_name().unwrap_or("-"), tls.is_resumed(), tls.peer_certificate().is_some());
    let alpn = String::from_utf8_lossy(tls.alpn().unwrap_or(b"-"));
    format!("{} {} {name} {alpn} resumed={resumed} certificate={shown}", tls.version(), tls.cipher_suite())
}

fn serve() -> Served {
    let (ended, ends) = channel();
    let ended = Arc::new(Mutex::new(ended));
    let pki = Pki::new();
    let app = move || {
        let ended = ended.lock().unwrap().clone();
        App::new()
            .ws(
                "/echo",
                ws().on_message(|socket: &mut Socket, message| socket.send(message)).on_close(move |_, closed| {
                    let _ = ended.send(closed.clone());
                }),
            )
            .ws(
                "/room",
                ws().on_connect(|socket: &mut Socket| socket.join("room")).on_message(
                    |socket: &mut Socket, message| {
                        let _ = socket.to("room").send(message);
                    },
                ),
            )
            .ws(
                "/flood",
                ws().on_message(|socket: &mut Socket, _| {
                    for number in 0..20_u8 {
                        let _ = socket.send(vec![number; 600_000]);
                    }
                }),
            )
            .ws(
                "/task",
                ws().task(async |connection| {
                    let told = told(connection.request());
                    let _ = connection.send(told);
                    Ok::<(), ringwire::BoxError>(())
                }),
            )
            .ws(
                "/socket",
                ws().on_message(|socket: &mut Socket, _| {
                    let told = of_tls(socket.tls());
                    socket.send(told)
                }),
            )
            .ws(
                "/waiting",
                ws().on_message_async(async |connection, _| {
                    let _ = connection.send(of_tls(connection.tls()));
                }),
            )
            .get("/told", async |request: Request| told(&request))
    };
    let server = Server::new(config().max_outbox(64 << 20).tls(pki.server()));
    let handle = server.start(app).expect("the server starts");
    let address = handle.addresses()[0].inet().expect("a TCP address");
    Served { handle: Some(handle), address, pki, ends }
}

impl Served {
    fn stream(&self, client: &Arc<ClientConfig>) -> Stream {
        let socket = TcpStream::connect(self.address).expect("a connection");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        let session = ClientConnection::new(client.clone(), ServerName::try_from("localhost").unwrap()).unwrap();
        StreamOwned::new(session, socket)
    }

    fn open(&self, client: &Arc<ClientConfig>, path: &str) -> WebSocket<Stream> {
        tungstenite::client(format!("ws://localhost{path}"), self.stream(client)).expect("a WebSocket").0
    }

    fn get(&self, client: &Arc<ClientConfig>, path: &str) -> String {
        let mut stream = self.stream(client);
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an end with close_notify");
        answer.split_once("\r\n\r\n").expect("a response").1.to_owned()
    }
}

#[test]
fn messages_of_any_size_come_back_whole() {
    let served = serve();
    for version in BOTH {
        let mut socket = served.open(&served.pki.client(version, false), "/echo");
        for len in [0, 1, 125, 126, 16_000, 16_384, 70_000, 3 << 20] {
            let payload: Vec<u8> = (0..len).map(|byte: u32| (byte * 31) as u8).collect();
            socket.send(Message::binary(payload.clone())).unwrap();
            assert!(socket.read().unwrap().into_data() == payload, "{len}");
        }
        for number in 0..1000 {
            socket.write(Message::text(format!("message {number}"))).unwrap();
        }
        socket.flush().unwrap();
        for number in 0..1000 {
            assert_eq!(socket.read().unwrap().into_text().unwrap().as_str(), format!("message {number}"));
        }
        socket.close(None).unwrap();
        assert!(socket.read().unwrap().is_close());
        let closed = served.ends.recv_timeout(PATIENCE).unwrap();
        assert!(closed.clean, "{closed:?}");
    }
}

#[test]
fn a_broadcast_reaches_everybody_sealed_for_each() {
    let served = serve();
    let clients: Vec<_> = BOTH.iter().map(|version| served.pki.client(version, false)).collect();
    let mut members: Vec<_> = (0..20).map(|number| served.open(&clients[number % 2], "/room")).collect();
    let hub = served.handle.as_ref().unwrap().hub().clone();
    let room = || {
        let members = hub.ask_all(|hub| hub.local_members("room").len());
        members.expect("the cores answer").iter().sum::<usize>()
    };
    eventually(|| room() == 20, || format!("{} members", room()));
    for round in 0..10 {
        members[round].send(Message::text(format!("round {round}"))).unwrap();
        for member in &mut members {
            assert_eq!(member.read().unwrap().into_text().unwrap().as_str(), format!("round {round}"));
        }
    }
}

#[test]
fn hooks_and_tasks_see_what_was_agreed_on() {
    let served = serve();
    for version in BOTH {
        for shows in [false, true] {
            let client = served.pki.client(version, shows);
            let first = served.get(&client, "/told");
            let (name, suite) = match version.version {
                rustls::ProtocolVersion::TLSv1_3 => ("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
                _ => ("TLSv1.2", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
            };
            assert_eq!(first, format!("{name} {suite} localhost - resumed=false certificate={shows}"));
            assert_eq!(served.get(&client, "/told"), first.replace("resumed=false", "resumed=true"));
            for path in ["/task", "/socket", "/waiting"] {
                let mut socket = served.open(&client, path);
                if path != "/task" {
                    socket.send(Message::text("?")).unwrap();
                }
                let told = socket.read().unwrap().into_text().unwrap();
                assert_eq!(told.as_str(), first.replace("resumed=false", "resumed=true"), "{path}");
            }
        }
    }
}

/// Kills: an end without close_notify that counts as one with it.
#[test]
fn an_end_without_close_notify_is_a_broken_connection() {
    let served = serve();
    let client = served.pki.client(&rustls::version::TLS13, false);
    for says_so in [false, true] {
        let mut socket = served.open(&client, "/echo");
        socket.send(Message::text("x")).unwrap();
        socket.read().unwrap();
        if says_so {
            let stream = socket.get_mut();
            stream.conn.send_close_notify();
            stream.flush().unwrap();
        }
        socket.get_ref().sock.shutdown(std::net::Shutdown::Write).unwrap();
        let closed = served.ends.recv_timeout(PATIENCE).unwrap();
        assert_eq!((closed.code, closed.clean), (1006, false));
        let why = if says_so { "without a Close frame" } else { "without close_notify" };
        assert!(closed.reason.contains(why), "{closed:?}");
    }
}

#[test]
fn who_speaks_plain_http_to_a_port_of_tls_is_told_so() {
    let served = serve();
    let mut raw = raw::Raw::connect(served.address);
    raw.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let response = raw.response(false);
    assert_eq!(response.status, 400);
    assert!(response.body.contains("TLS"), "{}", response.body);
    let (rest, _) = raw.rest();
    assert_eq!(rest, b"");
    let mut raw = raw::Raw::connect(served.address);
    raw.send(b"\0\0\0\0nonsense");
    let (rest, _) = raw.rest();
    assert_eq!(rest, b"");
}

#[test]
fn who_speaks_tls_to_a_plain_port_hears_an_alert() {
    let server = common::TestServer::new();
    let pki = Pki::new();
    let socket = TcpStream::connect(server.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let client = pki.client(&rustls::version::TLS13, false);
    let session = ClientConnection::new(client, ServerName::try_from("localhost").unwrap()).unwrap();
    let error = StreamOwned::new(session, socket).write_all(b"x").unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
}

/// Sealed bytes that stay in the queue are found by the simulation, not by this.
#[test]
fn a_slow_reader_gets_everything_in_order() {
    let served = serve();
    for version in BOTH {
        let mut socket = served.open(&served.pki.client(version, false), "/flood");
        // Far more than sockets hold.
        socket.send(Message::text("20 of 600,000 bytes")).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        for number in 0..20 {
            let data = socket.read().unwrap().into_data();
            assert!(data.len() == 600_000 && data.iter().all(|byte| *byte == number), "message {number}");
        }
        socket.send(Message::text("again")).unwrap();
        socket.close(None).unwrap();
        let mut messages = 0;
        while let Ok(message) = socket.read() {
            messages += usize::from(message.is_binary());
        }
        assert_eq!(messages, 20, "Close comes last");
    }
}
