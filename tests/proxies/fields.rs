//! `Forwarded`, `X-Forwarded-For` and `X-Real-IP`: believed from trusted proxies, and what follows from it.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use ringwire::config::ListenAddress;
use ringwire::{App, Request, Server};

use crate::common::TestServer;
use crate::common::config;
use crate::common::raw::Raw;
use crate::{ask, connect_from, get, peer_of, trusting, upgrade};

#[test]
fn trusted_proxies_name_the_client() {
    let server = TestServer::with(trusting("127.0.0.1,10.0.0.0/8"));
    for (fields, want) in [
        (&[("X-Forwarded-For", "192.0.2.1")][..], "192.0.2.1:0"),
        (&[("X-Forwarded-For", "6.6.6.6, 192.0.2.1, 10.0.0.1")], "192.0.2.1:0"),
        (&[("Forwarded", "for=\"[2001:db8::1]:4711\";proto=https")], "[2001:db8::1]:4711"),
        (&[("X-Real-IP", "192.0.2.1")], "192.0.2.1:0"),
        // As Caddy writes them.
        (&[("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "x")], "192.0.2.1:0"),
    ] {
        assert_eq!(peer_of(&server, &upgrade("/ws", fields)), want, "{fields:?}");
    }
    // The proxy itself, where it says nothing that can be believed.
    for fields in
        [&[][..], &[("X-Forwarded-For", "unknown")], &[("X-Real-IP", "6.6.6.6"), ("Forwarded", "for=192.0.2.1")]]
    {
        let peer = peer_of(&server, &upgrade("/ws", fields));
        assert!(peer.starts_with("127.0.0.1:") && !peer.ends_with(":0"), "{fields:?}: {peer}");
    }
}

/// Kills: believing whoever asks.
#[test]
fn nobody_else_is_believed() {
    for proxies in ["(none)", "10.0.0.0/8,unix", "127.0.0.2"] {
        let server = TestServer::with(trusting(proxies));
        for name in ["Forwarded", "X-Forwarded-For", "X-Real-IP"] {
            let value = if name == "Forwarded" { "for=192.0.2.1" } else { "192.0.2.1" };
            let peer = peer_of(&server, &upgrade("/ws", &[(name, value)]));
            assert!(peer.starts_with("127.0.0.1:"), "{proxies} {name}: {peer}");
        }
    }
}

/// A proxy sends the requests of many clients on one connection.
#[test]
fn each_request_has_its_own_client() {
    let config = config().trusted_proxies("127.0.0.1".parse().expect("a list"));
    let told = async |request: Request| {
        let peer = request.peer().map_or_else(String::new, |peer| peer.ip().to_string());
        format!("{peer} {}", request.is_relayed())
    };
    let handle = Server::new(config).start(move || App::new().get("/", told)).expect("a server");
    let mut proxy = Raw::connect(handle.addresses()[0].inet().expect("an address"));
    for (fields, want) in [
        (&[("X-Forwarded-For", "192.0.2.1")][..], "192.0.2.1 true"),
        (&[("X-Forwarded-For", "192.0.2.2")], "192.0.2.2 true"),
        (&[], "127.0.0.1 false"),
        (&[("Forwarded", "for=_hidden")], "127.0.0.1 true"),
    ] {
        proxy.send(&get("/", fields));
        assert_eq!(proxy.response(false).body, want, "{fields:?}");
    }
    drop(proxy);
    handle.shutdown();
    handle.join().expect("it ends");
}

#[test]
fn a_unix_socket_may_be_a_proxys() {
    let path = std::env::temp_dir().join(format!("ringwire-proxied-{}.sock", std::process::id()));
    let tcp = ListenAddress::Inet { host: "127.0.0.1".into(), port: 0 };
    let addresses = vec![tcp, ListenAddress::Unix(path.clone())];
    for (proxies, want) in [("unix", "192.0.2.1:0"), ("127.0.0.1", "none")] {
        let server = TestServer::with(trusting(proxies).addresses(addresses.clone()));
        let mut client = UnixStream::connect(&path).expect("a connection");
        client.write_all(&upgrade("/ws", &[("X-Forwarded-For", "192.0.2.1")])).expect("sent");
        client.read_exact(&mut [0; 12]).expect("an answer");
        server.await_connections(1);
        assert_eq!(crate::peers_by(server.raw(), b""), [want], "{proxies}");
    }
}

/// Kills: counting the proxy instead of its clients, and each address of IPv6 by itself.
#[test]
fn limits_are_those_of_the_clients() {
    let server = TestServer::with(trusting("127.0.0.1").max_connections_per_ip(2));
    let mut open = Vec::new();
    let mut status = |client: &str| {
        let mut proxy = server.raw();
        proxy.send(&upgrade("/echo", &[("X-Forwarded-For", client)]));
        let status = proxy.response(false).status;
        open.push(proxy);
        status
    };
    // More than one address may have, and more than it may have of connections that are none.
    for number in 0..30 {
        assert_eq!(status(&format!("192.0.2.{number}")), 101, "{number}");
    }
    assert_eq!([status("203.0.113.1"), status("203.0.113.1"), status("203.0.113.1")], [101, 101, 429]);
    assert_eq!([status("2001:db8::1"), status("2001:db8::2"), status("2001:db8::3")], [101, 101, 429]);
    assert_eq!(status("2001:db8:0:1::1"), 101);
    // Places are free again.
    drop(open);
    server.await_connections(0);
    // A proxy keeps connections for requests, as many as it likes.
    let kept: Vec<Raw> = (0..30)
        .map(|number| {
            let mut proxy = server.raw();
            proxy.send(&get("/healthz", &[("X-Forwarded-For", "192.0.2.1")]));
            assert_eq!(proxy.response(false).status, 200, "{number}");
            proxy
        })
        .collect();
    drop(kept);
    assert_eq!(ask(server.raw(), &upgrade("/echo", &[("X-Forwarded-For", "203.0.113.1")])).status, 101);
}

/// Kills: a trusted proxy that names this machine as its client.
#[test]
fn nobody_becomes_local_by_a_proxys_word() {
    let server = TestServer::with(config().trusted_proxies("127.0.0.0/8,10.0.0.0/8".parse().expect("a list")));
    assert_eq!(ask(server.raw(), &get("/metrics", &[])).status, 200);
    for (name, value) in [
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Forwarded-For", "unknown"),
        ("X-Real-IP", "::1"),
        ("Forwarded", "for=127.0.0.1"),
        ("Forwarded", "for=\"[::1]\""),
    ] {
        assert_eq!(ask(server.raw(), &get("/metrics", &[(name, value)])).status, 403, "{name}: {value}");
        let other = connect_from("127.0.0.2", server.address);
        assert_eq!(ask(other, &get("/metrics", &[(name, value)])).status, 403, "{name}: {value}");
    }
}
