//! Who may ask `/api`.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;

use ringwire::config::ListenAddress;

use crate::common::raw::Raw;
use crate::common::{TestServer, config};
use crate::{ask_with, json_of, request};

const LISTING: &str = "/api/ws/connections";

fn with_token() -> TestServer {
    TestServer::with(config().api_token(Some("c2VjcmV0".parse().expect("a token"))))
}

#[test]
fn a_token_lets_in_whoever_shows_it() {
    let server = with_token();
    for shown in ["Bearer c2VjcmV0", "bearer c2VjcmV0", "BEARER  c2VjcmV0"] {
        let response = ask_with(&server, "GET", LISTING, &[("Authorization", shown)], "");
        assert_eq!(response.status, 200, "{shown}");
    }
    // Nothing else matters then.
    let headers =
        [("Authorization", "Bearer c2VjcmV0"), ("X-Forwarded-For", "192.0.2.1"), ("Origin", "https://a.test")];
    assert_eq!(ask_with(&server, "GET", LISTING, &headers, "").status, 200);
}

#[test]
fn a_token_keeps_out_whoever_does_not() {
    let server = with_token();
    let wrong =
        ["Bearer c2VjcmV1", "Bearer c2VjcmV", "Bearer c2VjcmV0x", "Bearer ", "Bearer", "Basic c2VjcmV0", "c2VjcmV0"];
    for shown in wrong {
        let response = ask_with(&server, "GET", LISTING, &[("Authorization", shown)], "");
        assert_eq!(response.status, 401, "{shown}");
        assert!(response.header("www-authenticate").is_some_and(|it| it.starts_with("Bearer realm=")), "{response:?}");
        assert!(json_of(&response)["error"].is_string());
    }
    for (method, path) in [
        ("GET", LISTING),
        ("POST", "/api/broadcast"),
        ("POST", "/api/message/x"),
        ("GET", "/api/rooms"),
        ("POST", "/api/rooms/x"),
        ("DELETE", "/api/rooms/x"),
        ("GET", "/api/ws/connections/x/data"),
        ("PUT", "/api/ws/connections/x/data"),
        ("DELETE", "/api/ws/connections/x"),
    ] {
        let response = ask_with(&server, method, path, &[], "{}");
        assert_eq!(response.status, 401, "{method} {path}");
        assert_eq!(response.header("www-authenticate"), Some(r#"Bearer realm="ringwire""#));
    }
    // The rest of the server is open.
    for path in ["/", "/healthz", "/readyz"] {
        assert_eq!(ask_with(&server, "GET", path, &[], "").status, 200, "{path}");
    }
}

#[test]
fn without_a_token_only_this_machine_is_let_in() {
    let address = ListenAddress::Inet { host: "0.0.0.0".into(), port: 0 };
    let server = TestServer::with(config().addresses(vec![address]));
    let ask = |to: std::net::IpAddr| {
        let mut client = Raw::over(TcpStream::connect((to, server.address.port())).expect("a connection"));
        client.send(&request("GET", LISTING, &[], ""));
        client.response(false)
    };
    assert_eq!(ask([127, 0, 0, 1].into()).status, 200);
    // A machine's connection to an address of its own comes from that address.
    let probe = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect("192.0.2.1:9").map(|()| socket));
    let own = probe.and_then(|socket| socket.local_addr()).map(|address| address.ip());
    match own.ok().filter(|own| !own.is_loopback() && !own.is_unspecified()) {
        Some(own) => {
            let response = ask(own);
            assert_eq!(response.status, 403);
            assert!(json_of(&response)["error"].as_str().is_some_and(|error| error.contains("RINGWIRE_API_TOKEN")));
        }
        None => eprintln!("this machine has only loopback addresses: part of the test is left out"),
    }
}

#[test]
fn a_unix_socket_is_this_machine() {
    let path = std::env::temp_dir().join(format!("ringwire-api-{}.sock", std::process::id()));
    let server = TestServer::with(config().addresses(vec![ListenAddress::Unix(path.clone())]));
    let mut client = UnixStream::connect(&path).expect("a connection");
    client.write_all(&request("GET", LISTING, &[("Connection", "close")], "")).expect("sent");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with(r#"{"count":0,"connections":[]}"#), "{answer}");
    drop(server);
}

// A browser on this machine shows any site's page, and a proxy on it stands for anybody.
#[test]
fn without_a_token_nobody_is_let_in_by_way_of_this_machine() {
    let server = TestServer::new();
    let status = |headers: &[(&str, &str)]| ask_with(&server, "GET", LISTING, headers, "").status;
    assert_eq!(status(&[("Origin", "http://127.0.0.1")]), 200);
    assert_eq!(status(&[("Origin", "https://127.0.0.1")]), 200);
    for site in ["same-origin", "none"] {
        assert_eq!(status(&[("Sec-Fetch-Site", site)]), 200, "{site}");
    }
    for site in ["cross-site", "same-site", "CROSS-SITE", "new-site", ""] {
        assert_eq!(status(&[("Sec-Fetch-Site", site)]), 403, "{site}");
        assert_eq!(status(&[("Sec-Fetch-Site", "none"), ("sec-fetch-site", site)]), 403, "{site}");
        assert_eq!(status(&[("Sec-Fetch-Site", site), ("Origin", "http://127.0.0.1")]), 403, "{site}");
    }
    for other in ["http://evil.test", "http://127.0.0.1:81", "http://127.0.0.1.evil.test", "null", ""] {
        assert_eq!(status(&[("Origin", other)]), 403, "{other}");
    }
    // Whatever the value, and however the name is written.
    for proxy in [
        "Forwarded",
        "forwarded-for",
        "Via",
        "VIA",
        "X-Forwarded",
        "X-Forwarded-For",
        "x-forwarded-proto",
        "X-FORWARDED-HOST",
        "X-Forwarded-Client-Cert",
        "X-ForwardedFor",
        "X-Real-IP",
        "X-Client-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
        "cf-ray",
        "CF-Visitor",
        "X-Envoy-External-Address",
        "x-envoy-attempt-count",
        "Fly-Client-IP",
        "fly-region",
        "X-Azure-ClientIP",
        "x-azure-ref",
        "Fastly-Client-IP",
        "X-Cluster-Client-IP",
        "X-Amzn-Trace-Id",
        "X-Original-Forwarded-For",
        "CDN-Loop",
    ] {
        for value in ["192.0.2.1", "127.0.0.1", ""] {
            assert_eq!(status(&[(proxy, value)]), 403, "{proxy}: {value}");
        }
    }
    for harmless in ["X-Request-Id", "Traceparent", "User-Agent", "X-Fly", "Accept", "Referer", "Cache-Control"] {
        assert_eq!(status(&[(harmless, "1")]), 200, "{harmless}");
    }
}

/// Kills: a name of another's that points to this machine, whose pages are of the origin that they ask; and a proxy that
/// passes on the name which it was asked for.
#[test]
fn without_a_token_requests_are_for_an_address_or_localhost() {
    let server = TestServer::new();
    let port = server.address.port();
    let status = |host: &str, more: &str| {
        let mut client = server.raw();
        client.send(format!("GET {LISTING} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n").as_bytes());
        client.response(false).status
    };
    for host in ["127.0.0.1", "localhost", "LOCALHOST", "[::1]", "127.0.0.2", "192.0.2.1"] {
        assert_eq!(status(host, ""), 200, "{host}");
        assert_eq!(status(&format!("{host}:{port}"), ""), 200, "{host}");
    }
    for host in ["evil.test", "localhost.evil.test", "127.0.0.1.evil.test", "evil", "[::1", "user@localhost.test", ""] {
        assert_ne!(status(host, ""), 200, "{host}");
    }
    assert_eq!(status(&format!("evil.test:{port}"), &format!("Origin: http://evil.test:{port}\r\n")), 403);
    assert_eq!(status(&format!("127.0.0.1:{port}"), &format!("Origin: http://127.0.0.1:{port}\r\n")), 200);
    // RFC 9112 3.2.2: a target in absolute form overrides the host.
    for (target, host, origin, want) in [
        ("http://evil.test", "127.0.0.1", "", 403),
        ("http://127.0.0.1", "evil.test", "", 200),
        ("HTTP://[::1]:9001", "evil.test", "", 200),
        ("http://localhost.evil.test", "localhost", "", 403),
        ("http://evil.test", "127.0.0.1", "Origin: http://127.0.0.1\r\n", 403),
        ("http://127.0.0.1", "evil.test", "Origin: http://evil.test\r\n", 403),
        ("http://127.0.0.1", "evil.test", "Origin: http://127.0.0.1\r\n", 200),
        ("http://me@127.0.0.1", "127.0.0.1", "", 400),
        ("http://127.0.0.1@evil.test", "127.0.0.1", "", 400),
        ("http://", "127.0.0.1", "", 400),
    ] {
        let mut client = server.raw();
        client.send(format!("GET {target}{LISTING} HTTP/1.1\r\nHost: {host}\r\n{origin}\r\n").as_bytes());
        assert_eq!(client.response(false).status, want, "{target}, Host: {host}, {origin}");
    }
    // With a token the name is of no account.
    let server = with_token();
    let headers = [("Authorization", "Bearer c2VjcmV0")];
    assert_eq!(ask_with(&server, "GET", LISTING, &headers, "").status, 200);
}

const PAGE: (&str, &str) = ("Origin", "https://app.example");

/// Kills: pages of other origins that may use the interface unasked, or may not though they are named.
#[test]
fn pages_of_named_origins_may_use_it() {
    let origins = Some("https://app.example".parse().expect("origins"));
    let server = TestServer::with(config().api_origins(origins.clone()));
    let cross_site = ("Sec-Fetch-Site", "cross-site");
    let allowed = ("access-control-allow-origin", Some(PAGE.1));
    let response = ask_with(&server, "GET", LISTING, &[PAGE, cross_site], "");
    assert_eq!((response.status, response.header(allowed.0)), (200, allowed.1));
    let stranger = ("Origin", "https://evil.example");
    for fields in [&[stranger, cross_site][..], &[cross_site], &[PAGE, ("X-Forwarded-For", "192.0.2.1")]] {
        assert_eq!(ask_with(&server, "GET", LISTING, fields, "").status, 403, "{fields:?}");
    }
    assert_eq!(ask_with(&server, "GET", LISTING, &[stranger], "").header(allowed.0), None);
    assert_eq!(ask_with(&server, "GET", "/metrics", &[PAGE, cross_site], "").status, 403, "the interface alone");
    let question =
        [PAGE, ("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "authorization")];
    let response = ask_with(&server, "OPTIONS", "/api/broadcast", &question, "");
    assert_eq!((response.status, response.header(allowed.0)), (204, allowed.1));
    assert_eq!(response.header("access-control-allow-methods"), Some("POST"));
    assert_eq!(response.header("access-control-allow-headers"), Some("authorization, content-type"));

    // With a token, who has it; and who has not can read why.
    let token = Some("c2VjcmV0".parse().expect("a token"));
    let server = TestServer::with(config().api_origins(origins).api_token(token));
    let response = ask_with(&server, "GET", LISTING, &[PAGE], "");
    assert_eq!((response.status, response.header(allowed.0)), (401, allowed.1));
    assert_eq!(ask_with(&server, "OPTIONS", "/api/broadcast", &question, "").status, 204);
    let response = ask_with(&server, "GET", LISTING, &[PAGE, ("Authorization", "Bearer c2VjcmV0")], "");
    assert_eq!((response.status, response.header(allowed.0)), (200, allowed.1));

    // Unless pages are named, nobody is told anything.
    let server = TestServer::new();
    assert_eq!(ask_with(&server, "GET", LISTING, &[PAGE, cross_site], "").header(allowed.0), None);
    assert_eq!(ask_with(&server, "OPTIONS", "/api/broadcast", &question, "").status, 405);
}
