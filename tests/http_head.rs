//! Request heads and handshakes that are refused, each with the status it gets, and those that are not.

use ringwire::proto::handshake::{self, Refusal};
use ringwire::proto::http::{Body, HeadError, HeadLimits, RequestHead, head_end, looks_like_http, parse_head};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn parse(text: &str) -> Result<RequestHead<'_>, HeadError> {
    let bytes = text.as_bytes();
    let end = head_end(bytes, 0).unwrap_or_else(|| panic!("no end in {text:?}"));
    assert_eq!(end, bytes.len(), "{text:?}");
    parse_head(bytes, &HeadLimits::default())
}

/// RFC 9112 2 to 5
#[test]
fn heads() {
    let table: &[(&str, Result<(), HeadError>)] = &[
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", Ok(())),
        ("\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", Ok(())),
        ("GET / HTTP/1.0\r\n\r\n", Ok(())),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Ok(())),
        ("M-SEARCH * HTTP/1.1\r\nHost: x\r\n\r\n", Ok(())),
        // 2.2: empty lines before the request line
        ("\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", Ok(())),
        ("\r\n\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", Err(HeadError::Malformed)),
        ("\r\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", Err(HeadError::Malformed)),
        // 3: a method of any sensible length
        ("MMMMMMMMMMMMMMMMMMMMMMMMMMMMMM / HTTP/1.1\r\nHost: x\r\n\r\n", Ok(())),
        ("CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n", Err(HeadError::Method)),
        // 3.2: targets
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", Ok(())),
        ("GET http://x HTTP/1.1\r\nHost: y\r\n\r\n", Ok(())),
        ("GET HTTPS://x:443/a?b HTTP/1.1\r\nHost: y\r\n\r\n", Ok(())),
        ("GET http://x/ HTTP/1.0\r\n\r\n", Ok(())),
        ("GET http://x/ HTTP/1.1\r\n\r\n", Err(HeadError::Host)),
        ("GET http://x/ HTTP/1.1\r\nHost: a/\r\n\r\n", Err(HeadError::Host)),
        ("GET http:///a HTTP/1.1\r\nHost: x\r\n\r\n", Err(HeadError::Target)),
        ("GET http://me@x/ HTTP/1.1\r\nHost: x\r\n\r\n", Err(HeadError::Target)),
        ("GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n", Err(HeadError::Target)),
        ("GET x/y HTTP/1.1\r\nHost: x\r\n\r\n", Err(HeadError::Target)),
        ("GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", Err(HeadError::Target)),
        ("GET /%4 HTTP/1.1\r\nHost: x\r\n\r\n", Err(HeadError::Target)),
        ("GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", Err(HeadError::Target)),
        ("GET /% HTTP/1.1\r\nHost: x\r\n\r\n", Err(HeadError::Target)),
        ("CONNECT /a HTTP/1.1\r\nHost: x\r\n\r\n", Err(HeadError::Target)),
        // RFC 9110 5.3: what decides who may do what is there once
        ("GET / HTTP/1.1\r\nHost: x\r\nOrigin: http://a\r\nORIGIN: http://b\r\n\r\n", Err(HeadError::Repeated)),
        ("GET / HTTP/1.1\r\nHost: x\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n", Err(HeadError::Repeated)),
        ("GET / HTTP/1.1\r\nHost: x\r\nCookie: a=b\r\nCookie: c=d\r\n\r\n", Ok(())),
        // RFC 9110 10.1.1: expectations
        ("GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\n\r\n", Ok(())),
        ("GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue, 100-continue\r\n\r\n", Ok(())),
        ("GET / HTTP/1.1\r\nHost: x\r\nExpect: 200-ok\r\n\r\n", Err(HeadError::Expectation)),
        ("GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue, x\r\n\r\n", Err(HeadError::Expectation)),
        ("GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nExpect: x=y\r\n\r\n", Err(HeadError::Expectation)),
        ("GET / HTTP/1.0\r\nExpect: x\r\n\r\n", Ok(())),
        // 3.2: Host
        ("GET / HTTP/1.1\r\n\r\n", Err(HeadError::Host)),
        ("GET / HTTP/1.1\r\nHost: x\r\nhost: x\r\n\r\n", Err(HeadError::Host)),
        ("GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", Err(HeadError::Host)),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Err(HeadError::Host)),
        ("GET / HTTP/1.1\r\nHost: a b/\r\n\r\n", Err(HeadError::Host)),
        ("GET / HTTP/1.0\r\nHost: a/\r\n\r\n", Err(HeadError::Host)),
        ("GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", Err(HeadError::Host)),
        ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", Err(HeadError::Host)),
        ("GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", Err(HeadError::Host)),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Err(HeadError::Host)),
        ("GET / HTTP/1.1\r\nHost: [::1]9001\r\n\r\n", Err(HeadError::Host)),
        ("GET / HTTP/1.1\r\nHost: []\r\n\r\n", Err(HeadError::Host)),
        ("GET / HTTP/1.1\r\nHost: \u{e9}.test\r\n\r\n", Err(HeadError::Host)),
        ("GET / HTTP/1.1\r\nHost: my_host-1.test.:\r\n\r\n", Ok(())),
        ("GET / HTTP/1.1\r\nHost: [::1]:9001\r\n\r\n", Ok(())),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1:9001\r\n\r\n", Ok(())),
        // 2.3: versions
        ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", Err(HeadError::Version)),
        ("GET / HTTP/1.2\r\nHost: x\r\n\r\n", Err(HeadError::Version)),
        ("PRI * HTTP/2.0\r\n\r\n", Err(HeadError::Version)),
        ("GET / HTTX/1.1\r\nHost: x\r\n\r\n", Err(HeadError::Malformed)),
        ("GET / http/1.1\r\nHost: x\r\n\r\n", Err(HeadError::Malformed)),
        ("GET /\r\n\r\n", Err(HeadError::Malformed)),
        // 2.2: line ends
        ("GET / HTTP/1.1\nHost: x\n\n", Err(HeadError::Malformed)),
        ("GET / HTTP/1.1\r\nHost: x\n\r\n", Err(HeadError::Malformed)),
        ("GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", Err(HeadError::Malformed)),
        // 3: the request line
        ("GET  / HTTP/1.1\r\nHost: x\r\n\r\n", Err(HeadError::Malformed)),
        ("GET / x HTTP/1.1\r\nHost: x\r\n\r\n", Err(HeadError::Malformed)),
        ("G(T / HTTP/1.1\r\nHost: x\r\n\r\n", Err(HeadError::Malformed)),
        // 5.1, 5.2: fields
        ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", Err(HeadError::Malformed)),
        ("GET / HTTP/1.1\r\n Host: x\r\n\r\n", Err(HeadError::Malformed)),
        ("GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", Err(HeadError::Malformed)),
        ("GET / HTTP/1.1\r\nHost: x\r\n: x\r\n\r\n", Err(HeadError::Malformed)),
        ("GET / HTTP/1.1\r\nHost: x\r\nA\r\n\r\n", Err(HeadError::Malformed)),
        ("GET / HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n", Err(HeadError::Malformed)),
    ];
    for (text, want) in table {
        assert_eq!(parse(text).map(|_| ()), *want, "{text:?}");
        assert!(looks_like_http(text.as_bytes()) || want.is_err(), "{text:?}");
    }
    let statuses = [
        (HeadError::Malformed, 400),
        (HeadError::Host, 400),
        (HeadError::ContentLength, 400),
        (HeadError::TransferEncoding, 400),
        (HeadError::Target, 400),
        (HeadError::Repeated, 400),
        (HeadError::Expectation, 417),
        (HeadError::Method, 501),
        (HeadError::TransferCoding, 501),
        (HeadError::Version, 505),
        (HeadError::TooLarge, 431),
        (HeadError::TooManyHeaders, 431),
    ];
    assert!(statuses.iter().all(|(error, status)| error.status() == *status));
}

#[test]
fn limits() {
    let with = |count: usize| {
        let fields: String = (0..count).map(|i| format!("X-{i}: y\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n")
    };
    let limits = HeadLimits { bytes_max: 500, headers_max: 10 };
    assert!(parse_head(with(9).as_bytes(), &limits).is_ok());
    assert_eq!(parse_head(with(10).as_bytes(), &limits).err(), Some(HeadError::TooManyHeaders));
    assert_eq!(parse_head(with(90).as_bytes(), &limits).err(), Some(HeadError::TooLarge));
    let any = HeadLimits { bytes_max: usize::MAX, headers_max: usize::MAX };
    assert!(parse_head(with(127).as_bytes(), &any).is_ok());
    assert_eq!(parse_head(with(128).as_bytes(), &any).err(), Some(HeadError::TooManyHeaders));
}

/// RFC 9112 6.1, 6.3: where two readings of the length are possible, there is none.
#[test]
fn body_lengths() {
    let table: &[(&str, &str, Result<Body, HeadError>)] = &[
        ("1.1", "", Ok(Body::None)),
        ("1.1", "Content-Length: 0\r\n", Ok(Body::None)),
        ("1.1", "Content-Length: 10\r\n", Ok(Body::Length(10))),
        ("1.0", "Content-Length: 10\r\n", Ok(Body::Length(10))),
        ("1.1", "Content-Length: 10\r\ncontent-length: 10\r\n", Ok(Body::Length(10))),
        ("1.1", "Content-Length: 10, 10\r\n", Ok(Body::Length(10))),
        ("1.1", "Content-Length: 18446744073709551615\r\n", Ok(Body::Length(u64::MAX))),
        ("1.1", "Content-Length: 10\r\nContent-Length: 11\r\n", Err(HeadError::ContentLength)),
        ("1.1", "Content-Length: 10, 11\r\n", Err(HeadError::ContentLength)),
        ("1.1", "Content-Length: 10,\r\n", Err(HeadError::ContentLength)),
        ("1.1", "Content-Length: +10\r\n", Err(HeadError::ContentLength)),
        ("1.1", "Content-Length: -1\r\n", Err(HeadError::ContentLength)),
        ("1.1", "Content-Length: 0x10\r\n", Err(HeadError::ContentLength)),
        ("1.1", "Content-Length: 1 0\r\n", Err(HeadError::ContentLength)),
        ("1.1", "Content-Length:\r\n", Err(HeadError::ContentLength)),
        ("1.1", "Content-Length: 18446744073709551616\r\n", Err(HeadError::ContentLength)),
        ("1.1", "Transfer-Encoding: chunked\r\n", Ok(Body::Chunked)),
        ("1.1", "Transfer-Encoding: , ChunKed ,\r\n", Ok(Body::Chunked)),
        ("1.1", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", Err(HeadError::ContentLength)),
        ("1.1", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", Err(HeadError::ContentLength)),
        ("1.0", "Transfer-Encoding: chunked\r\n", Err(HeadError::TransferEncoding)),
        ("1.1", "Transfer-Encoding: gzip\r\n", Err(HeadError::TransferEncoding)),
        ("1.1", "Transfer-Encoding: identity\r\n", Err(HeadError::TransferEncoding)),
        ("1.1", "Transfer-Encoding:\r\n", Err(HeadError::TransferEncoding)),
        ("1.1", "Transfer-Encoding: chunked, gzip\r\n", Err(HeadError::TransferEncoding)),
        ("1.1", "Transfer-Encoding: chunked, chunked\r\n", Err(HeadError::TransferEncoding)),
        ("1.1", "Transfer-Encoding: \"chunked\"\r\n", Err(HeadError::TransferEncoding)),
        ("1.1", "Transfer-Encoding: chunked;x\r\n", Err(HeadError::TransferEncoding)),
        ("1.1", "Transfer-Encoding: \u{B}chunked\r\n", Err(HeadError::Malformed)),
        ("1.1", "Transfer-Encoding: chunked\u{A0}\r\n", Err(HeadError::TransferEncoding)),
        ("1.1", "Transfer-Encoding: gzip, chunked\r\n", Err(HeadError::TransferCoding)),
        ("1.1", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", Err(HeadError::TransferCoding)),
    ];
    for (version, fields, want) in table {
        let text = format!("POST / HTTP/{version}\r\nHost: x\r\n{fields}\r\n");
        assert_eq!(parse(&text).and_then(|head| head.body()), *want, "{text:?}");
    }
}

/// A valid handshake with some fields replaced (empty: left out) and some added.
fn request(line: &str, replaced: &[(&str, &str)], added: &str) -> String {
    let mut text = format!("{line}\r\n");
    for (name, value) in [
        ("Host", "x"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
    ] {
        let value = replaced.iter().find(|entry| entry.0 == name).map_or(value, |entry| entry.1);
        if !value.is_empty() {
            text += &format!("{name}: {value}\r\n");
        }
    }
    text + added + "\r\n"
}

fn refusal(text: &str) -> Option<Refusal> {
    let head = parse(text).unwrap_or_else(|error| panic!("{error} in {text:?}"));
    let result = handshake::check(&head).map(|upgrade| upgrade.key().to_owned());
    if result.is_ok() {
        assert_eq!(result.as_deref(), Ok(KEY));
    }
    result.err()
}

const GET: &str = "GET /chat?x HTTP/1.1";

/// RFC 6455 4.2.1
#[test]
fn handshakes_accepted() {
    for text in [
        request(GET, &[], ""),
        request(GET, &[("Upgrade", "WebSocket")], ""),
        request(GET, &[("Upgrade", "h2c, websocket")], ""),
        request(GET, &[("Connection", "keep-alive, upgrade")], ""),
        request(GET, &[("Connection", "keep-alive")], "connection: UPGRADE\r\n"),
        request(GET, &[], "Origin: null\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"),
    ] {
        assert_eq!(refusal(&text), None, "{text}");
    }
    let added = "Sec-WebSocket-Protocol: a ,b\r\nSec-WebSocket-Protocol:c,\r\nOrigin: http://y\r\n\
                 Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x\r\n";
    let text = request(GET, &[], added);
    let head = parse(&text).unwrap();
    let upgrade = handshake::check(&head).unwrap();
    assert_eq!(upgrade.protocols().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(upgrade.origin(), Some("http://y"));
    assert_eq!(upgrade.extensions().collect::<Vec<_>>(), ["permessage-deflate; client_max_window_bits, x"]);
}

/// RFC 6455 4.2.1, 4.2.2, 4.4
#[test]
fn handshakes_refused() {
    let version = ("sec-websocket-version", "13");
    let upgrade = ("upgrade", "websocket");
    let key = "Sec-WebSocket-Key";
    type Field = Option<(&'static str, &'static str)>;
    let table: &[(String, u16, Field)] = &[
        (request("POST / HTTP/1.1", &[], ""), 405, Some(("allow", "GET"))),
        (request("get / HTTP/1.1", &[], ""), 405, Some(("allow", "GET"))),
        (request("GET / HTTP/1.0", &[], ""), 400, None),
        (request(GET, &[("Upgrade", "")], ""), 426, Some(upgrade)),
        (request(GET, &[("Upgrade", "h2c")], ""), 426, Some(upgrade)),
        (request(GET, &[("Upgrade", "websockets")], ""), 426, Some(upgrade)),
        (request(GET, &[("Connection", "")], ""), 400, None),
        (request(GET, &[("Connection", "keep-alive")], ""), 400, None),
        (request(GET, &[("Connection", "not-upgrade")], ""), 400, None),
        (request(GET, &[("Sec-WebSocket-Version", "")], ""), 426, Some(version)),
        (request(GET, &[("Sec-WebSocket-Version", "8")], ""), 426, Some(version)),
        (request(GET, &[("Sec-WebSocket-Version", "13, 8")], ""), 426, Some(version)),
        (request(GET, &[], "Sec-WebSocket-Version: 8\r\n"), 426, Some(version)),
        (request(GET, &[(key, "")], ""), 400, None),
        (request(GET, &[(key, "short")], ""), 400, None),
        (request(GET, &[(key, "dGhlIHNhbXBsZSBub25jZQ")], ""), 400, None),
        (request(GET, &[(key, "dGhlIHNhbXBsZSBub25jZXo=")], ""), 400, None),
        (request(GET, &[(key, "dGhlIHNhbXBsZSBub25j!Q==")], ""), 400, None),
        (request(GET, &[], &format!("{key}: {KEY}\r\n")), 400, None),
    ];
    for (text, status, header) in table {
        let refusal = refusal(text).unwrap_or_else(|| panic!("accepted {text}"));
        assert_eq!(refusal.status, *status, "{text}");
        if let Some(header) = header {
            assert!(refusal.headers.contains(header), "{text}");
        }
        assert!(!refusal.message.is_empty());
    }
}

/// What a proxy may take for an upgrade, it will not look behind.
#[test]
fn attempts_are_told_apart() {
    let is_attempt = |text: &str| handshake::is_attempt(&parse(text).unwrap());
    for text in [
        request(GET, &[], ""),
        request("POST / HTTP/1.0", &[], ""),
        request(GET, &[("Sec-WebSocket-Key", ""), ("Sec-WebSocket-Version", "")], ""),
        request(GET, &[("Upgrade", "")], ""),
        request(GET, &[("Upgrade", "h2c"), ("Sec-WebSocket-Key", "")], ""),
        "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c, WebSocket/13\r\n\r\n".into(),
        "GET / HTTP/1.1\r\nHost: x\r\nupgrade: \"websocket\"\r\n\r\n".into(),
    ] {
        assert!(is_attempt(&text), "{text}");
    }
    for fields in ["", "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n", "Sec-WebSocket-Protocol: x\r\n"] {
        assert!(!is_attempt(&format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n")), "{fields}");
    }
}

#[test]
fn ordinary_requests_are_told_apart() {
    let is_upgrade = |text: &str| handshake::is_upgrade_request(&parse(text).unwrap());
    assert!(is_upgrade(&request(GET, &[], "")));
    assert!(is_upgrade(&request(GET, &[("Sec-WebSocket-Key", "")], "")));
    assert!(!is_upgrade(&request(GET, &[("Upgrade", "")], "")));
    assert!(!is_upgrade(&request(GET, &[("Upgrade", "h2c")], "")));
}
