//! `wss://`: whom the client believes, what it says of those it does not, and how TLS begins and ends.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ringwire::client::blocking::{self, block_on};
use ringwire::client::tls::{Connector, ConnectorBuilder, Failure};
use ringwire::client::{ClientError, Event, Reconnecting, Waiting};
use ringwire::metrics::{Counters, TlsResult};
use ringwire::remote::AskAll as _;
use ringwire::{App, Handle, Server, Socket, TlsVersion, ws};
use rustls::server::WebPkiClientVerifier;

use crate::common::pki::{Authority, Folder, Issued};
use crate::common::raw::{BINARY, CLOSE, FIN, TEXT};
use crate::common::{PATIENCE, TestServer, config, eventually, pattern};
use crate::servers::{self, Speaks, Stream, connect, frame, read_frame};

fn count(handle: &Handle, of: impl Fn(&Counters) -> u64 + Send + Sync + Clone + 'static) -> u64 {
    handle.hub().ask_all(move |hub| of(&hub.counters)).expect("the cores answer").iter().sum()
}

fn handshakes(server: &TestServer, result: TlsResult) -> u64 {
    count(server.handle(), move |counters| counters.tls_handshakes.of(result))
}

/// Kills: a server that is believed whatever it shows; an error that does not say why; a handshake that ends without an alert.
#[test]
fn whom_it_does_not_believe_it_says_why() {
    let (authority, other) = (Authority::new(), Authority::new());
    let good = authority.sign(&["localhost"]);
    let elsewhere = authority.sign(&["elsewhere.test"]);
    let old = authority.sign_until(&["localhost"], 2021);
    let alone = Issued::self_signed(&["localhost"], |_| ());
    let trusting = || Connector::builder().ca_pem(authority.pem());
    let anybody = || Connector::builder().dangerous_accept_any_certificate();
    let rows: [(&str, ConnectorBuilder, &Issued, Option<&str>); 8] = [
        ("trusted", trusting(), &good, None),
        ("another authority", Connector::builder().ca_pem(other.pem()), &good, Some("nobody that is trusted")),
        ("self-signed", trusting(), &alone, Some("nobody that is trusted")),
        ("another name", trusting(), &elsewhere, Some("not for \"localhost\": it is for \"elsewhere.test\"")),
        ("expired", trusting(), &old, Some("has expired")),
        ("insecure, self-signed", anybody(), &alone, None),
        ("insecure, another name", anybody(), &elsewhere, None),
        ("insecure, expired", anybody(), &old, None),
    ];
    for (what, builder, issued, error) in rows {
        let connector = builder.build().expect("a connector");
        for speaks in Speaks::SECURE {
            let server = TestServer::with(config().tls(speaks.config(issued).expect("TLS")));
            let url = format!("wss://localhost:{}/echo", server.address.port());
            let connected = ringwire::client::connect(url).tls(connector.clone()).wait();
            match (connected, error) {
                (Ok(mut client), None) => {
                    client.send("hello").expect("sent");
                    assert_eq!(client.recv().expect("a message").expect("no error").as_text(), Some("hello"));
                }
                (Err(ClientError::Tls(got)), Some(error)) => {
                    assert_eq!(got.failure(), Failure::PeerCertificate);
                    assert!(got.to_string().contains(error), "{what}: {got}");
                    eventually(|| handshakes(&server, TlsResult::Alert) == 1, || "an alert".into());
                }
                (connected, _) => panic!("{what} {speaks:?}: {connected:?}"),
            }
        }
    }
}

#[test]
fn the_name_may_be_an_address_of_the_certificate() {
    let server = servers::own(Speaks::Tls13);
    let url = |host: &str, server: &TestServer| format!("wss://{host}:{}/echo", server.address.port());
    connect(url("127.0.0.1", &server)).wait().expect("it is in the certificate");
    // Whatever the request's Host says: whom the URL names is asked for.
    connect(url("localhost", &server)).header("Host", "other.test").wait().expect("a connection");
    let elsewhere = servers::pki().0.sign(&["localhost", "127.0.0.2"]);
    let server = TestServer::with(config().tls(Speaks::Tls13.config(&elsewhere).expect("TLS")));
    let error = connect(url("127.0.0.1", &server)).wait().expect_err("it is not in the certificate");
    assert!(error.to_string().contains("not for \"127.0.0.1\": it is for \"localhost\", \"127.0.0.2\""), "{error}");
}

/// Kills: tickets that are dropped, or kept by each connection for itself; a resumption that is told as a full handshake.
#[test]
fn connections_resume_what_earlier_ones_have_agreed_on() {
    for speaks in Speaks::SECURE {
        let server = servers::own(speaks);
        let url = servers::url(&server, speaks, "/echo");
        let connector = || Connector::builder().ca_pem(servers::pki().0.pem()).build().expect("a connector");
        let shared = connector();
        let resumed = |connector: &Connector| {
            let client = ringwire::client::connect(&url).tls(connector.clone());
            let mut client = client.wait().expect("a connection");
            let tls = client.tls().expect("TLS").clone();
            let version = if speaks == Speaks::Tls12 { TlsVersion::Tls12 } else { TlsVersion::Tls13 };
            assert_eq!((tls.version(), tls.alpn()), (version, Some(&b"http/1.1"[..])));
            assert!(tls.cipher_suite().contains("_AES_128_GCM_") && tls.peer_certificate().is_some());
            // Tickets of TLS 1.3 come behind the handshake, and so before this.
            client.send("hello").expect("sent");
            assert!(client.recv().expect("a message").is_ok());
            assert!(client.close(1000, "").expect("closed").clean);
            tls.is_resumed()
        };
        assert_eq!([resumed(&shared), resumed(&shared), resumed(&shared)], [false, true, true], "{speaks:?}");
        assert_eq!([resumed(&connector()), resumed(&connector())], [false, false]);
        let mut client = Reconnecting::new(ringwire::client::connect(&url).tls(shared));
        assert!(matches!(block_on(client.next()), Some(Event::Opened { .. })));
        let counted = [TlsResult::Full, TlsResult::Resumed].map(|result| handshakes(&server, result));
        assert_eq!(counted, [3, 3], "{speaks:?}");
        assert_eq!(handshakes(&server, TlsResult::Abandoned) + handshakes(&server, TlsResult::Alert), 0);
    }
}

#[test]
fn a_plain_connection_has_agreed_on_nothing() {
    let server = servers::own(Speaks::Plain);
    let client = connect(servers::url(&server, Speaks::Plain, "/echo")).wait().expect("a connection");
    assert!(client.tls().is_none());
}

#[test]
fn a_certificate_is_shown_to_a_server_that_asks() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let issued = authority.sign(&["localhost"]);
    let own = authority.sign(&["client.test"]);
    let strange = stranger.sign(&["client.test"]);
    let told = |socket: &mut Socket| {
        let shown = socket.request().tls().and_then(|tls| tls.peer_certificate()).map(<[u8]>::to_vec);
        let _ = socket.send(shown.unwrap_or_default());
    };
    let builder = || Connector::builder().ca_pem(authority.pem());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for is_required in [false, true] {
            let verifier = WebPkiClientVerifier::builder(authority.roots());
            let verifier = if is_required { verifier } else { verifier.allow_unauthenticated() };
            let (chain, key) = issued.pair();
            let tls = rustls::ServerConfig::builder_with_protocol_versions(&[version])
                .with_client_cert_verifier(verifier.build().expect("a verifier"))
                .with_single_cert(chain, key)
                .expect("a pair");
            let app = move || App::new().ws("/who", ws().on_connect(told));
            let server = Server::new(config().tls(tls)).start(app).expect("it starts");
            let url = format!("wss://localhost:{}/who", server.addresses()[0].inet().expect("TCP").port());
            for (what, builder, shown) in [
                ("none", builder(), (!is_required).then(Vec::new)),
                ("good", builder().certificate_pem(own.pem(), own.key_pem()), Some(own.certificate.to_vec())),
                ("strange", builder().certificate_pem(strange.pem(), strange.key_pem()), None),
            ] {
                let connector = builder.build().expect("a connector");
                match (ringwire::client::connect(&url).tls(connector).wait(), shown) {
                    (Ok(mut client), Some(shown)) => {
                        let message = client.recv().expect("a message").expect("no error");
                        assert!(message.as_bytes() == shown, "{what}");
                    }
                    (Err(ClientError::Tls(error)), None) => {
                        assert_eq!(error.failure(), Failure::Alert, "{what} {error}")
                    }
                    (connected, _) => panic!("{version:?} {what} {is_required}: {connected:?}"),
                }
            }
            server.shutdown();
            server.join().expect("it ends well");
        }
    }
}

/// What a client says of a server that answers its first words so, and then closes.
fn error_of(answer: &'static [u8]) -> ClientError {
    let (url, server) = servers::serve(Speaks::Plain, 1, move |mut stream: Stream| {
        let _ = stream.read(&mut [0; 4096]).expect("a ClientHello");
        stream.write_all(answer).expect("sent");
        stream.shut();
        let _ = stream.read(&mut [0; 4096]);
    });
    let error = connect(url.replace("ws:", "wss:")).wait().expect_err("no connection");
    server.join().expect("no panic");
    error
}

#[test]
fn a_server_that_does_not_speak_tls_is_told_apart() {
    for (answer, want) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], Failure::PlainHttp),
        (b"SSH-2.0-OpenSSH_9.9\r\n", Failure::Protocol),
        (b"\x15\x03\x01\x00\x02\x02\x46", Failure::Alert),
    ] {
        let error = error_of(answer);
        assert!(matches!(&error, ClientError::Tls(error) if error.failure() == want), "{error}");
        assert!(!error.is_permanent());
    }
    let error = error_of(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert_eq!(error.to_string(), "TLS failed: the server answered in plain HTTP");
    let error = error_of(b"");
    assert!(matches!(&error, ClientError::Broken(why) if why.kind() == ErrorKind::UnexpectedEof), "{error}");
    assert!(error.to_string().contains("within the TLS handshake"), "{error}");
    // This project's own port for plain words answers with an alert, and its port for TLS with a plain 400.
    let server = TestServer::new();
    let error = connect(format!("wss://{}/echo", server.address)).wait().expect_err("it is plain");
    assert!(matches!(&error, ClientError::Tls(error) if error.failure() == Failure::Alert), "{error}");
    let server = servers::own(Speaks::Tls13);
    let error = connect(format!("ws://{}/echo", server.address)).wait().expect_err("it speaks TLS");
    assert!(
        matches!(&error, ClientError::Refused(refused) if refused.body.windows(3).any(|it| it == b"TLS")),
        "{error}"
    );
}

#[test]
fn a_handshake_of_tls_has_its_time() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let url = format!("wss://{}/", listener.local_addr().expect("an address"));
    let start = Instant::now();
    let error = connect(url).handshake_timeout(Duration::from_millis(150)).wait().expect_err("no answer");
    assert!(matches!(error, ClientError::Timeout(Waiting::Tls)), "{error}");
    assert!((Duration::from_millis(150)..Duration::from_secs(5)).contains(&start.elapsed()));
    // The answer to the request has it as well.
    let (told, done) = mpsc::channel::<()>();
    let (url, server) = servers::serve(Speaks::Tls13, 1, move |mut stream: Stream| {
        servers::read_request(&mut stream);
        let _ = done.recv();
    });
    let error = connect(url).handshake_timeout(Duration::from_secs(2)).wait().expect_err("no answer");
    assert!(matches!(error, ClientError::Timeout(Waiting::Handshake)), "{error}");
    drop(told);
    server.join().expect("no panic");
}

/// Reads to the end; whether that was said (RFC 8446 6.1).
fn is_end_said(stream: &mut Stream) -> bool {
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
                return false;
            }
        }
    }
}

/// Kills: an end that is not said: after a closing handshake, a refusal, a broken protocol, and by who was dropped.
#[test]
fn whichever_way_it_ends_the_client_says_so() {
    const ENDS: [&str; 5] = ["closed", "dropped", "closed by the server", "refused", "protocol"];
    for speaks in Speaks::SECURE {
        for end in ENDS {
            let (url, server) = servers::serve(speaks, 1, move |mut stream: Stream| {
                let key = servers::read_request(&mut stream);
                if end == "refused" {
                    stream.write_all(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n").expect("sent");
                    return is_end_said(&mut stream);
                }
                stream.write_all(servers::switching(&key).as_bytes()).expect("sent");
                match end {
                    "closed by the server" => stream.write_all(&frame(FIN | CLOSE, &[3, 232])).expect("sent"),
                    "protocol" => stream.write_all(&frame(FIN | 3, b"")).expect("sent"),
                    _ => {}
                }
                let close = read_frame(&mut stream).expect("a Close frame");
                assert_eq!(close.first, FIN | CLOSE);
                if matches!(end, "closed" | "dropped") {
                    stream.write_all(&frame(FIN | CLOSE, &close.payload)).expect("sent");
                }
                is_end_said(&mut stream)
            });
            match connect(url).wait() {
                Err(error) => assert_eq!((error.status().map(|it| it.as_u16()), end), (Some(404), "refused")),
                Ok(mut client) => match end {
                    "closed" => assert!(client.close(1000, "").expect("closed").clean),
                    "dropped" => drop(client),
                    _ => {
                        let _ = client.recv();
                    }
                },
            }
            assert_eq!(server.join().expect("no panic"), [true], "{speaks:?} {end}");
        }
    }
}

/// Kills: an end without close_notify that is told as one with it, and one that is said but not heard before the FIN.
#[test]
fn an_end_that_the_server_does_not_say_is_told_as_one() {
    for speaks in Speaks::SECURE {
        for says_so in [false, true] {
            let (told, done) = mpsc::channel::<()>();
            let (url, server) = servers::raw(speaks, move |stream: &mut Stream| {
                stream.write_all(&frame(FIN | TEXT, b"whole")).expect("sent");
                if says_so {
                    // And no FIN: what was said is enough.
                    stream.session().send_close_notify();
                    stream.flush().expect("sent");
                    let is_answered = is_end_said(stream);
                    let _ = done.recv();
                    return is_answered;
                }
                stream.shut_without_a_word();
                true
            });
            let mut client = connect(url).wait().expect("a connection");
            assert_eq!(client.recv().expect("a message").expect("no error").as_text(), Some("whole"));
            let error = client.recv_timeout(PATIENCE).expect("why").expect_err("an error").to_string();
            let want = if says_so { "the server closed the connection" } else { "without close_notify" };
            assert!(error.contains(want), "{speaks:?}: {error}");
            let closed = client.closed().expect("it is closed");
            assert_eq!((closed.code, closed.clean), (1006, false));
            drop(told);
            assert_eq!(server.join().expect("no panic"), [true], "our close_notify answers it");
        }
    }
}

/// Kills: an end that overtakes what is held back before it, and a failure that does.
#[test]
fn what_is_held_back_comes_before_the_end_that_the_server_says() {
    for speaks in Speaks::SECURE {
        for is_broken in [false, true] {
            let (told, done) = mpsc::channel::<()>();
            let (url, server) = servers::raw(speaks, move |stream: &mut Stream| {
                stream.write_all(&frame(FIN | BINARY, &pattern(1000)).repeat(100)).expect("sent");
                match is_broken {
                    // A record that nobody has sealed.
                    true => stream.tcp().write_all(&[23, 3, 3, 0, 40].repeat(9)).expect("sent"),
                    false => {
                        stream.session().send_close_notify();
                        stream.flush().expect("sent");
                    }
                }
                let _ = done.recv();
            });
            let mut client = connect(url).max_inbox(5000).wait().expect("a connection");
            std::thread::sleep(Duration::from_millis(300));
            let mut received = 0;
            let error = loop {
                match client.recv_timeout(PATIENCE).expect("an error comes last") {
                    Ok(message) => assert!(message.as_bytes() == pattern(1000)),
                    Err(error) => break error,
                }
                received += 1;
            };
            assert_eq!(received, 100, "{speaks:?} {error}");
            assert_eq!(matches!(error, ClientError::Tls(_)), is_broken, "{error}");
            assert!(client.recv().is_none());
            drop(told);
            server.join().expect("no panic");
        }
    }
}

#[test]
fn records_may_come_byte_by_byte_and_keys_change() {
    for speaks in Speaks::SECURE {
        let (url, server) = servers::raw(speaks, move |stream: &mut Stream| {
            for number in 0..20_u8 {
                let mut sealed = Vec::new();
                let session = stream.session();
                session.writer().write_all(&frame(FIN | BINARY, &[number; 300])).expect("room");
                while session.wants_write() {
                    session.write_tls(&mut sealed).expect("a buffer");
                }
                for part in sealed.chunks(1 + usize::from(number) * 7) {
                    stream.tcp().write_all(part).expect("sent");
                }
                assert_eq!(read_frame(stream).expect("an answer").payload, [number; 300]);
                if speaks == Speaks::Tls13 {
                    stream.session().refresh_traffic_keys().expect("keys");
                }
            }
        });
        let mut client = connect(url).wait().expect("a connection");
        for _ in 0..20 {
            let message = client.recv().expect("a message").expect("no error");
            client.send(message).expect("sent");
        }
        drop(client);
        server.join().expect("no panic");
    }
}

/// Kills: a part of a long queue that is sealed twice or not at all, and sealed bytes that count as plain ones.
#[test]
fn a_long_queue_leaves_in_parts() {
    for speaks in Speaks::ALL {
        let server = TestServer::with(match speaks.config(&servers::pki().1) {
            Some(tls) => config().max_outbox(64 << 20).tls(tls),
            None => config().max_outbox(64 << 20),
        });
        let client = connect(servers::url(&server, speaks, "/echo")).deflate().max_inbox(1 << 20).max_outbox(32 << 20);
        let client = client.wait().expect("a connection");
        let sizes = [1_usize, 300, 100_000, 262_144, 262_143, 1 << 20, 5, 3 << 20, 70_000, 4 << 20];
        for size in sizes {
            client.sender().try_send(pattern(size)).expect("room");
        }
        let mut client = client;
        for size in sizes {
            assert!(client.recv().expect("a message").expect("no error").as_bytes() == pattern(size), "{size}");
        }
        client.ping().expect("a pong");
        assert!(client.close(1000, "").expect("closed").clean);
    }
}

/// Run by the next test in a process of its own, whose environment says whom the machine trusts.
#[test]
#[ignore = "the next test runs it"]
fn as_the_machine_trusts() {
    let url = std::env::var("TEST_URL").expect("an URL");
    match blocking::connect(url) {
        Ok(_) => println!("it is trusted"),
        Err(error) => println!("{error}"),
    }
}

#[test]
fn without_a_word_whom_the_machine_trusts_is_believed() {
    let folder = Folder::new();
    let trusted = folder.write("trusted.pem", &servers::pki().0.pem());
    let other = folder.write("other.pem", &Authority::new().pem());
    let server = servers::own(Speaks::Tls13);
    for (roots, want) in [
        (trusted, "it is trusted"),
        (other, "signed by nobody that is trusted"),
        (folder.file("none.pem"), "the machine has no certificates of authorities"),
    ] {
        let output = Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", "tls::as_the_machine_trusts", "--ignored", "--nocapture"])
            .env("TEST_URL", servers::url(&server, Speaks::Tls13, "/echo"))
            .env("SSL_CERT_FILE", &roots)
            .env_remove("SSL_CERT_DIR")
            .output()
            .expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(want), "{}: {text}{}", roots.display(), String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn an_attempt_that_is_given_up_within_the_handshake_disturbs_nobody() {
    let server = servers::own(Speaks::Tls13);
    let url = servers::url(&server, Speaks::Tls13, "/echo");
    let mut client = connect(url.as_str()).wait().expect("a connection");
    for _ in 0..20 {
        let mut given_up = std::pin::pin!(connect(url.as_str()).into_future());
        let waker = std::task::Waker::noop();
        assert!(given_up.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
    }
    client.send("x").expect("sent");
    assert!(client.recv_timeout(PATIENCE).expect("a message").is_ok());
    server.await_connections(1);
}
