//! The load generator over TLS, against rustls' own server with tungstenite's framing, and against ringwire.

mod common;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    NamedGroup, RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion,
    crypto::aws_lc_rs::{default_provider, kx_group},
    pki_types::PrivateKeyDer,
    server::{Acceptor, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};
use tungstenite::Message;

use common::{run, run_on, says, scratch, serve, serve_echo};

/// An authority, and a certificate for 127.0.0.1 that it has signed: for a server, or for a client.
struct Pki {
    authority: CertifiedIssuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
    key: KeyPair,
    files: Vec<PathBuf>,
}

impl Drop for Pki {
    fn drop(&mut self) {
        self.files.iter().for_each(|file| std::fs::remove_file(file).expect("ours"));
    }
}

impl Pki {
    fn new(name: &str) -> Pki {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed");
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &authority).expect("signed");
        Pki { authority, certificate, key, files: Vec::new() }
    }

    fn file(&mut self, name: &str, pem: String) -> String {
        let path = scratch(name);
        std::fs::write(&path, pem).expect("written");
        self.files.push(path.clone());
        path.display().to_string()
    }

    fn ca_file(&mut self) -> String {
        let pem = self.authority.pem();
        self.file("ca.pem", pem)
    }

    fn config(&self, version: &'static SupportedProtocolVersion, asks: bool) -> ServerConfig {
        let builder = ServerConfig::builder_with_protocol_versions(&[version]);
        let builder = if asks {
            let mut roots = RootCertStore::empty();
            roots.add(self.authority.der().clone()).expect("an authority");
            builder.with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("roots"))
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).expect("a key");
        builder.with_single_cert(vec![self.certificate.der().clone()], key).expect("a pair")
    }

    /// An echo server by rustls and tungstenite.
    fn serve(&self, version: &'static SupportedProtocolVersion, asks: bool) -> SocketAddr {
        let config = Arc::new(self.config(version, asks));
        serve(move |stream| {
            stream.set_nodelay(true).expect("a TCP socket");
            let session = ServerConnection::new(config.clone()).expect("a configuration");
            let Ok(mut socket) = tungstenite::accept(StreamOwned::new(session, stream)) else { return };
            while let Ok(message) = socket.read() {
                if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
                    return;
                }
            }
        })
    }
}

const SHORT: &str = "--connections 3 --pipeline 4 --warmup 0 --count 300";

/// Kills: a record that is split between two receives and lost; a stretch of several pieces that is sealed in part; a rest of
/// sealed bytes that is sealed again.
#[test]
fn echoes_come_back_over_both_versions_in_every_size() {
    let mut pki = Pki::new("127.0.0.1");
    let ca = pki.ca_file();
    for version in [&TLS12, &TLS13] {
        let url = format!("wss://{}/echo", pki.serve(version, false));
        for size in ["0", "64", "4KiB", "16000..17000", "100000"] {
            let figures = run(0, "echo", &url, &format!("{SHORT} --size {size} --ca {ca}"));
            assert_eq!(figures["tls"]["failures"], serde_json::json!({}), "{figures}");
            let tls = &figures["tls"];
            assert_eq!(tls["full"].as_u64().zip(tls["resumed"].as_u64()).map(|(a, b)| a + b), Some(3), "{tls}");
            assert_eq!(figures["tls_handshake_us"]["count"], 3);
        }
        // More than sockets hold, both ways.
        run(0, "echo", &url, &format!("--connections 2 --pipeline 40 --size 100KiB --warmup 0 --count 120 --ca {ca}"));
        run(0, "echo", &url, &format!("--connections 2 --threads 2 --rate 500 --warmup 0 --duration 0.4 --ca {ca}"));
        run(0, "echo", &url, &format!("{SHORT} --insecure"));
    }
}

/// Kills: a rest of sealed bytes that begins somewhere else than where the socket was full.
#[test]
fn what_a_full_socket_refuses_is_sent_later() {
    let mut pki = Pki::new("127.0.0.1");
    let ca = pki.ca_file();
    for version in [&TLS12, &TLS13] {
        let config = Arc::new(pki.config(version, false));
        let addr = serve(move |stream| {
            let session = ServerConnection::new(config.clone()).expect("a configuration");
            let Ok(mut socket) = tungstenite::accept(StreamOwned::new(session, stream)) else { return };
            // Meanwhile more comes than both sockets hold.
            std::thread::sleep(std::time::Duration::from_millis(500));
            while let Ok(message) = socket.read() {
                if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
                    return;
                }
            }
        });
        for (pipeline, size) in [(150, "100KiB"), (20, "1000000"), (3, "5000000")] {
            let options = format!("--connections 2 --pipeline {pipeline} --size {size} --warmup 0 --patience 30");
            run(0, "echo", &format!("wss://{addr}/"), &format!("{options} --count {} --ca {ca}", 3 * pipeline));
        }
    }
}

#[test]
fn sessions_are_resumed_unless_they_are_not_to_be() {
    let mut pki = Pki::new("127.0.0.1");
    let ca = pki.ca_file();
    for version in [&TLS12, &TLS13] {
        let url = format!("wss://{}/echo", pki.serve(version, false));
        let options = format!("--users 1 --warmup 0 --count 20 --ca {ca}");
        let tls = run(0, "churn", &url, &options)["tls"].clone();
        assert_eq!((&tls["full"], &tls["resumed"]), (&1.into(), &19.into()), "{tls}");
        // Each of many at once has a ticket of its own.
        let many = format!("--users 30 --warmup 0 --count 300 --ca {ca}");
        let tls = run(0, "churn", &url, &many)["tls"].clone();
        assert!(tls["resumed"].as_u64() >= Some(240), "{tls}");
        let tls = run(0, "churn", &url, &format!("{options} --no-resumption"))["tls"].clone();
        assert_eq!((&tls["full"], &tls["resumed"]), (&20.into(), &0.into()), "{tls}");
    }
}

#[test]
fn every_scenario_speaks_tls_to_ringwire() {
    let mut pki = Pki::new("127.0.0.1");
    let ca = pki.ca_file();
    let server = common::Ringwire::start(|config| config.tls(pki.config(&TLS13, false)));
    let url = |path: &str| format!("wss://{}{path}", server.address);
    for (scenario, path, options) in [
        ("echo", "/echo", SHORT),
        ("echo", "/echo", "--connections 2 --size 70000 --warmup 0 --count 20 --deflate --content json"),
        ("broadcast", "/broadcast", "--subscribers 5 --burst 4 --warmup 0 --count 80"),
        ("rooms", "/rooms/{room}", "--rooms 3 --members 3 --rate 300 --warmup 0 --duration 0.4"),
        ("slow", "/broadcast", "--subscribers 5 --stalled 2 --size 4KiB --rate 200 --warmup 0 --duration 0.6"),
        ("emit", "/ws", "--connections 5 --posters 2 --warmup 0 --count 60"),
        ("connect", "/echo", "--connections 50 --echo --ping --hold 0.1"),
        ("churn", "/echo", "--users 4 --words 2 --warmup 0 --count 40"),
    ] {
        let figures = run(0, scenario, &url(path), &format!("{options} --ca {ca}"));
        assert!(figures["tls"]["full"].as_u64() > Some(0), "{scenario}: {figures}");
    }
}

/// What a client has offered, and what came of it.
type Agreed = (Vec<NamedGroup>, Option<NamedGroup>);

impl Pki {
    /// An echo server of one version that knows no key exchange but these, and notes what each connection agreed on.
    fn serve_noting(
        &self,
        version: &'static SupportedProtocolVersion,
        known: &[&'static dyn rustls::crypto::SupportedKxGroup],
    ) -> (SocketAddr, Arc<Mutex<Vec<Agreed>>>) {
        let mut provider = default_provider();
        provider.kx_groups = known.to_vec();
        let builder = ServerConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[version]);
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).expect("a key");
        let chain = vec![self.certificate.der().clone()];
        let config = builder.expect("suites").with_no_client_auth().with_single_cert(chain, key).expect("a pair");
        let (config, noted) = (Arc::new(config), Arc::<Mutex<Vec<Agreed>>>::default());
        let notes = noted.clone();
        let addr = serve(move |mut stream| {
            stream.set_nodelay(true).expect("a TCP socket");
            let mut hello = Acceptor::default();
            let accepted = loop {
                let Ok(1..) = hello.read_tls(&mut stream) else { return };
                match hello.accept() {
                    Ok(Some(accepted)) => break accepted,
                    Ok(None) => {}
                    Err(_) => return,
                }
            };
            let offered = accepted.client_hello().named_groups().unwrap_or_default().to_vec();
            let mut session = match accepted.into_connection(config.clone()) {
                Ok(session) => session,
                Err((_, mut alert)) => return drop(alert.write_all(&mut stream)),
            };
            while session.is_handshaking() {
                if session.complete_io(&mut stream).is_err() {
                    return;
                }
            }
            let agreed = session.negotiated_key_exchange_group().map(|group| group.name());
            notes.lock().expect("held briefly").push((offered, agreed));
            let Ok(mut socket) = tungstenite::accept(StreamOwned::new(session, stream)) else { return };
            while let Ok(message) = socket.read() {
                if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
                    return;
                }
            }
        });
        (addr, noted)
    }
}

/// Kills: an offer of others beside those that are named, or in another order; one that the report makes up.
#[test]
fn the_key_exchanges_that_are_named_are_offered_and_no_others() {
    use NamedGroup::{X25519, X25519MLKEM768, secp256r1, secp384r1};
    let mut pki = Pki::new("127.0.0.1");
    let ca = pki.ca_file();
    let all = [kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    let nist = [kx_group::SECP256R1];
    let default = [X25519MLKEM768, X25519, secp256r1, secp384r1];
    // What is said, what the server knows, what it was offered, and what both agreed on.
    let rows: [(_, &str, &[_], &[_], _); 10] = [
        (&TLS13, "", &all, &default, X25519MLKEM768),
        (&TLS13, "x25519mlkem768", &all, &[X25519MLKEM768], X25519MLKEM768),
        (&TLS13, "x25519", &all, &[X25519], X25519),
        (&TLS13, "secp256r1", &all, &[secp256r1], secp256r1),
        (&TLS13, "SECP384R1", &all, &[secp384r1], secp384r1),
        (&TLS13, "secp256r1,x25519mlkem768", &all, &[secp256r1, X25519MLKEM768], secp256r1),
        // RFC 8446 4.1.4: it is asked again for what the server does know.
        (&TLS13, "x25519,secp256r1", &nist, &[X25519, secp256r1], secp256r1),
        // The key exchanges of old have no place for the new one.
        (&TLS12, "", &all, &default, X25519),
        (&TLS12, "x25519", &all, &[X25519], X25519),
        (&TLS12, "secp256r1", &all, &[secp256r1], secp256r1),
    ];
    for (version, names, known, offered, agreed) in rows {
        let (addr, noted) = pki.serve_noting(version, known);
        let option = if names.is_empty() { String::new() } else { format!("--key-exchange {names}") };
        let options = format!("{SHORT} --no-resumption --ca {ca} {option}");
        let figures = run(0, "echo", &format!("wss://{addr}/"), &options);
        assert_eq!(*noted.lock().expect("held briefly"), vec![(offered.to_vec(), Some(agreed)); 3], "{names}");
        let told: Vec<_> = figures["tls"]["agreed"].as_object().expect("a table").iter().collect();
        let [(words, count)] = told[..] else { panic!("{names}: {told:?}") };
        let version = if version.version == TLS13.version { "TLSv1.3" } else { "TLSv1.2" };
        let start = format!("{version}, {}, TLS_", agreed.as_str().expect("a name"));
        assert!(words.starts_with(&start) && count == 3, "{names}: {told:?}");
    }
    // Nothing in common is told by its reason.
    for (version, names, known) in [(&TLS13, "x25519", &nist[..]), (&TLS12, "x25519mlkem768", &all[..])] {
        let (addr, _) = pki.serve_noting(version, known);
        let options = format!("--users 1 --warmup 0 --duration 0.2 --ca {ca} --key-exchange {names}");
        let figures = run(1, "churn", &format!("wss://{addr}/"), &options);
        assert!(figures["tls"]["failures"]["alert"].as_u64() > Some(0), "{names}: {}", figures["tls"]);
        assert_eq!(figures["tls"]["agreed"], serde_json::json!({}), "{names}");
    }
    // As text, from ringwire's own server; and what cannot be.
    let server = common::Ringwire::start(|config| config.tls(pki.config(&TLS13, false)));
    let url = format!("wss://{}/echo", server.address);
    let output = run_on("echo", &url, &format!("{SHORT} --ca {ca} --key-exchange secp256r1"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("3 connections: TLSv1.3, secp256r1, TLS_AES_128_GCM_SHA256"), "{text}");
    for (url, names, why) in [
        (url.as_str(), "x25519,x448", "there are x25519mlkem768, x25519, secp256r1, secp384r1"),
        ("ws://127.0.0.1:1/", "x25519", "there is none"),
    ] {
        let output = run_on("echo", url, &format!("--key-exchange {names}"));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && text.contains(why), "{text}");
    }
}

#[test]
fn what_is_wrong_with_a_server_is_told_by_its_reason() {
    let (mut pki, mut other) = (Pki::new("127.0.0.1"), Pki::new("somebody.else"));
    let (ca, other_ca) = (pki.ca_file(), other.ca_file());
    let plain = serve(|mut stream| {
        let _ = stream.read(&mut [0; 1000]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    });
    let silent = serve(|mut stream| drop(stream.read(&mut [0; 100_000])));
    let rows = [
        (pki.serve(&TLS13, false), &other_ca, "peer_certificate", "TLS: "),
        (other.serve(&TLS13, false), &other_ca, "peer_certificate", "TLS: "),
        (pki.serve(&TLS13, true), &ca, "alert", "CertificateRequired"),
        (plain, &ca, "plain_http", "plain HTTP"),
        (silent, &ca, "truncated", "closed by the server"),
    ];
    for (server, ca, reason, text) in rows {
        let url = format!("wss://{server}/");
        let options = format!("--connections 2 --warmup 0 --count 10 --ca {ca}");
        let output = run_on("echo", &url, &options);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{reason}: {said}");
        assert!(said.contains(text), "{reason}: {said}");
        // Where nothing else is asked for than that they come, the reasons are counted.
        let figures = run(1, "churn", &url, &format!("--users 2 --warmup 0 --duration 0.2 --ca {ca}"));
        let failures = figures["tls"]["failures"].as_object().expect("a table");
        assert!(failures[reason].as_u64() > Some(0), "{reason}: {failures:?}");
        assert_eq!(figures["messages"], 0);
    }
    let output = run_on("echo", &format!("wss://{plain}/"), "--ca /nowhere/ca.pem");
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/ca.pem"));
    let output = run_on("echo", &format!("ws://{plain}/"), "--insecure");
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is none"));
}

#[test]
fn a_client_certificate_is_shown() {
    let mut pki = Pki::new("127.0.0.1");
    let (certificate, key) = (pki.certificate.pem(), pki.key.serialize_pem());
    let (ca, certificate, key) = (pki.ca_file(), pki.file("client.pem", certificate), pki.file("client.key", key));
    for version in [&TLS12, &TLS13] {
        let url = format!("wss://{}/echo", pki.serve(version, true));
        run(0, "echo", &url, &format!("{SHORT} --ca {ca} --client-cert {certificate} --client-key {key}"));
    }
}

/// A stream that spoils one byte of what the server sends, beyond the handshake.
struct Spoiling {
    inner: TcpStream,
    left: usize,
}

impl Read for Spoiling {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.inner.read(buffer)
    }
}

impl Write for Spoiling {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut bytes = bytes.to_vec();
        if let Some(byte) = bytes.get_mut(self.left) {
            *byte ^= 1;
        }
        let written = self.inner.write(&bytes)?;
        self.left = self.left.checked_sub(written).unwrap_or(usize::MAX);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[test]
fn a_record_that_was_changed_on_its_way_fails_the_connection() {
    let mut pki = Pki::new("127.0.0.1");
    let ca = pki.ca_file();
    let config = Arc::new(pki.config(&TLS13, false));
    let addr = serve(move |inner| {
        let session = ServerConnection::new(config.clone()).expect("a configuration");
        let stream = StreamOwned::new(session, Spoiling { inner, left: 20_000 });
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        while let Ok(message) = socket.read() {
            if socket.send(Message::text(message.into_text().unwrap_or_default())).is_err() {
                return;
            }
        }
    });
    let options = format!("--connections 1 --size 1000 --warmup 0 --count 100 --patience 2 --ca {ca}");
    let figures = run(1, "echo", &format!("wss://{addr}/"), &options);
    assert_eq!(figures["tls"]["failures"]["bad_record_mac"], 1, "{figures}");
    assert_eq!(figures["connections"]["failed"], 1);
    says(&figures, "TLS: ");
}

/// Kills: a connection that ends without close_notify, which is what an attacker's cut looks like (RFC 8446 6.1).
#[test]
fn close_notify_follows_the_closing_handshake() {
    let mut pki = Pki::new("127.0.0.1");
    let ca = pki.ca_file();
    let config = Arc::new(pki.config(&TLS13, false));
    let (told, ends) = std::sync::mpsc::channel();
    let addr = serve(move |stream| {
        let session = ServerConnection::new(config.clone()).expect("a configuration");
        let Ok(mut socket) = tungstenite::accept(StreamOwned::new(session, stream)) else { return };
        while socket.read().is_ok() {}
        // rustls tells an end without it as an error.
        let _ = told.send(socket.get_mut().read(&mut [0; 10]).map_err(|error| error.kind()));
    });
    run(0, "connect", &format!("wss://{addr}/"), &format!("--connections 3 --ca {ca}"));
    let ends: Vec<_> = (0..3).map(|_| ends.recv_timeout(std::time::Duration::from_secs(20))).collect();
    assert_eq!(ends, vec![Ok(Ok(0)); 3]);
}

/// Kills: connections that all go to the first target.
#[test]
fn several_targets_share_the_connections() {
    let mut pki = Pki::new("127.0.0.1");
    let ca = pki.ca_file();
    let (secure, plain) = (pki.serve(&TLS13, false), serve_echo(|_, message| vec![message]));
    let first = format!("wss://{secure}/echo");
    let figures = run(
        0,
        "echo",
        &first,
        &format!("--url ws://{plain}/echo --ca {ca} --connections 7 --pipeline 4 --warmup 0 --count 300"),
    );
    let targets = figures["targets"].as_array().expect("a list");
    let of = |key: &str| targets.iter().map(|target| target[key].as_u64().expect("a number")).collect::<Vec<_>>();
    assert_eq!((of("ready"), of("failed")), (vec![3, 4], vec![0, 0]));
    assert!(of("messages").iter().sum::<u64>() == 300 && of("messages").iter().all(|count| *count > 0), "{targets:?}");
    assert_eq!(targets[1]["url"], format!("ws://{plain}/echo"));
    // One of them is not there.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    let figures =
        run(1, "echo", &first, &format!("--url ws://{gone}/ --ca {ca} --connections 4 --warmup 0 --count 300"));
    let targets = figures["targets"].as_array().expect("a list");
    assert_eq!((&targets[0]["failed"], &targets[1]["failed"]), (&0.into(), &2.into()));
}
