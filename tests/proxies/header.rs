//! The PROXY protocol on a listener that wants it.

use std::time::{Duration, Instant};

use ringwire::Config;
use ringwire::config::ProxyProtocol;
use ringwire::metrics::RefusalReason;
use ringwire::remote::AskAll as _;

use crate::common::raw::{End, Raw};
use crate::common::{TestServer, config, eventually};
use crate::{ask, connect_from, get, peers_by, trusting, upgrade, with_token};

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";
const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    [b"\r\n\r\n\0\r\nQUIT\n", &[0x20 | command, family][..], &(rest.len() as u16).to_be_bytes(), rest].concat()
}

fn v1(client: &str) -> Vec<u8> {
    let family = if client.contains(':') { "TCP6" } else { "TCP4" };
    let server = if client.contains(':') { "::1" } else { "127.0.0.1" };
    format!("PROXY {family} {client} {server} 4711 443\r\n").into_bytes()
}

fn wanting(config: Config) -> Config {
    config.proxy_protocol(ProxyProtocol::Always)
}

fn refused(server: &TestServer) -> u64 {
    let counts = server.handle().hub().ask_all(|hub| hub.counters.refused.of(RefusalReason::Proxy));
    counts.expect("the cores answer").iter().sum()
}

/// Nothing is answered, and the connection ends.
#[track_caller]
fn is_dropped(mut client: Raw) {
    let (bytes, end) = client.rest();
    assert!(bytes.is_empty() && matches!(end, End::Finished | End::Reset), "{} {end:?}", bytes.escape_ascii());
}

#[test]
fn the_header_names_the_client() {
    let server = TestServer::with(wanting(with_token(config())));
    let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 4, 1, 187];
    let mut v6 = vec![0x20, 1, 0xd, 0xb8];
    v6.extend([0; 28]);
    v6.extend([0, 80, 1, 187]);
    for (header, want) in [
        (V1.to_vec(), "192.0.2.7:56324"),
        (v1("2001:db8::7"), "[2001:db8::7]:4711"),
        (v2(1, 0x11, &v4), "192.0.2.7:56324"),
        (v2(1, 0x11, &[&v4[..], &[3, 0, 4, 1, 2, 3, 4]].concat()), "192.0.2.7:56324"),
        (v2(1, 0x21, &v6), "[2001:db8::]:80"),
    ] {
        let request = upgrade("/ws", &[]);
        let whole = [&header[..], &request].concat();
        // At once, in two pieces, and byte by byte.
        let pieces: [Vec<&[u8]>; 3] = [vec![&whole], vec![&header, &request], whole.chunks(1).collect()];
        for pieces in pieces {
            let mut client = server.raw();
            for piece in pieces {
                client.send(piece);
            }
            assert_eq!(client.response(false).status, 101, "{}", header.escape_ascii());
            server.await_connections(1);
            assert_eq!(peers_by(server.raw(), UNKNOWN), [want]);
            drop(client);
            server.await_connections(0);
        }
    }
    // Of whom nothing is said, the connection's own is known.
    for header in [UNKNOWN.to_vec(), v2(0, 0, b""), v2(1, 0, b""), v2(1, 0x31, &[0; 216]), v2(0, 0x11, &v4)] {
        let mut client = server.raw();
        client.send(&[&header[..], &upgrade("/ws", &[])].concat());
        assert_eq!(client.response(false).status, 101, "{}", header.escape_ascii());
        let peers = peers_by(server.raw(), UNKNOWN);
        assert!(peers.len() == 1 && peers[0].starts_with("127.0.0.1:"), "{peers:?}");
        drop(client);
        server.await_connections(0);
    }
    assert_eq!(refused(&server), 0);
}

/// Kills: serving whoever comes without a header.
#[test]
fn without_a_header_there_is_no_answer() {
    let server = TestServer::with(wanting(config()));
    let junk: Vec<Vec<u8>> = vec![
        get("/healthz", &[]),
        b"\r\n\r\nGET / HTTP/1.1\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00".to_vec(),
        b"PROXY TCP4 192.0.2.7\r\nGET / HTTP/1.1\r\n\r\n".to_vec(),
        [b"PROXY UNKNOWN ", &[b'x'; 120][..], b"\r\n"].concat(),
        v2(2, 0x11, &[0; 12]),
        v2(1, 0x11, &[0; 11]),
        v2(1, 0x00, &[0; 5000]),
    ];
    let count = junk.len() as u64;
    for bytes in junk {
        let mut client = server.raw();
        client.send_if_open(&bytes);
        is_dropped(client);
    }
    eventually(|| refused(&server) == count, || format!("{count} refusals, there are {}", refused(&server)));
    // And one header is enough.
    let twice = [V1, V1, &get("/healthz", &[])].concat();
    assert_eq!(ask(server.raw(), &twice).status, 400);
    assert_eq!(ask(server.raw(), &[V1, &get("/healthz", &[])].concat()).status, 200);
}

#[test]
fn the_header_has_as_long_as_a_request() {
    const SHORT: Duration = Duration::from_millis(300);
    let server = TestServer::with(wanting(config()).handshake_timeout(SHORT));
    for bytes in [&V1[..20], &v2(1, 0x11, &[])[..14]] {
        let start = Instant::now();
        let mut client = server.raw();
        client.send(bytes);
        is_dropped(client);
        assert!(start.elapsed() >= SHORT - Duration::from_millis(20));
    }
    // With a header and a part of a request it is a request that is late.
    let mut client = server.raw();
    client.send(&[V1, b"GET / HTTP/1.1\r\n"].concat());
    assert_eq!(client.response(false).status, 408);
}

#[test]
fn limits_are_those_of_the_clients() {
    let server = TestServer::with(wanting(config()).max_connections_per_ip(2));
    let mut open = Vec::new();
    let mut status = |client: &str, request: &[u8]| {
        let mut raw = server.raw();
        raw.send(&[&v1(client), request].concat());
        let status = raw.response(false).status;
        open.push(raw);
        status
    };
    let websocket = upgrade("/echo", &[]);
    for number in 0..30 {
        assert_eq!(status(&format!("192.0.2.{number}"), &websocket), 101, "{number}");
    }
    assert_eq!([0; 3].map(|_| status("203.0.113.1", &websocket)), [101, 101, 429]);
    assert_eq!(["::1", "::2", "::3"].map(|end| status(&format!("2001:db8{end}"), &websocket)), [101, 101, 429]);
    // Of connections that are no WebSockets it may have 16 more than that, and those that stay count.
    let plain = get("/healthz", &[]);
    let statuses: Vec<u16> = (0..20).map(|_| status("203.0.113.9", &plain)).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 18, "{statuses:?}");
    assert_eq!(statuses[18..], [429, 429]);
    drop(open);
    server.await_connections(0);
    let again = || ask(server.raw(), &[&v1("203.0.113.9")[..], &plain].concat()).status;
    eventually(|| again() == 200, || "a place".to_owned());
}

/// Kills: the rights of a local peer for whoever a header says is one, or for a proxy on this machine.
#[test]
fn nobody_becomes_local_by_a_header() {
    let server = TestServer::with(wanting(config()));
    for header in [v1("127.0.0.1"), v1("::1"), v1("192.0.2.1"), UNKNOWN.to_vec(), v2(0, 0, b"")] {
        let response = ask(server.raw(), &[&header[..], &get("/metrics", &[])].concat());
        assert_eq!(response.status, 403, "{}", header.escape_ascii());
    }
}

#[test]
fn where_proxies_are_trusted_nobody_else_may_speak() {
    let server = TestServer::with(wanting(trusting("127.0.0.1,10.0.0.0/8")));
    let mut stranger = connect_from("127.0.0.2", server.address);
    stranger.send_if_open(&[V1, &get("/healthz", &[])].concat());
    is_dropped(stranger);
    eventually(|| refused(&server) == 1, || "a refusal".to_owned());
    assert_eq!(ask(server.raw(), &[V1, &get("/healthz", &[])].concat()).status, 200);
    // A proxy behind it is believed in its turn, and a client is not.
    let via = |client: &str| {
        let mut raw = server.raw();
        raw.send(&[v1(client), upgrade("/ws", &[("X-Forwarded-For", "203.0.113.5")])].concat());
        assert_eq!(raw.response(false).status, 101);
        let peers = peers_by(server.raw(), UNKNOWN);
        drop(raw);
        server.await_connections(0);
        peers
    };
    assert_eq!(via("10.0.0.9"), ["203.0.113.5:0"]);
    assert_eq!(via("192.0.2.9"), ["192.0.2.9:4711"]);
}

#[test]
fn some_addresses_may_want_it_and_others_not() {
    let address = |text: &str| text.parse().expect("an address");
    let config = config()
        .addresses(vec![address("127.0.0.1:0"), address("127.0.0.2:0")])
        .proxy_protocol("127.0.0.2:0".parse().expect("an address"));
    let server = TestServer::with(config);
    let of = |number: usize| Raw::connect(server.handle().addresses()[number].inet().expect("an address"));
    let (plain, proxied) = (get("/healthz", &[]), [V1, &get("/healthz", &[])].concat());
    assert_eq!(ask(of(0), &plain).status, 200);
    assert_eq!(ask(of(0), &proxied).status, 400);
    assert_eq!(ask(of(1), &proxied).status, 200);
    let mut without = of(1);
    without.send_if_open(&plain);
    is_dropped(without);
}
