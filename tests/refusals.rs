//! Every refusal as bytes: what is sent, and the HTTP status or close code that answers it. Each row has a socket of its
//! own, and all are under way at once.
//!
//! An answer counts only if it arrives: the connection must end in order behind it, since a reset could have destroyed
//! it on the way. The client ends its own side only after that.

#![forbid(unsafe_code)]

mod common;

use std::thread;
use std::time::Duration;

use common::raw::{self, BINARY, CLOSE, End, FIN, PING, PONG, Raw, TEXT, frame};
use common::{TestServer, config};
use ringwire::Config;
use ringwire::config::Origins;

fn limits() -> Config {
    config()
        .max_head(1024)
        .max_message(1000)
        .max_fragments(4)
        .message_rate(50)
        .origins(Origins::List(vec!["https://example.org".into()]))
        .handshake_timeout(Duration::from_millis(300))
        .close_timeout(Duration::from_millis(400))
}

/// Checks all rows at once, and names each that is wrong.
fn check_all<R: Sync>(rows: &[R], check: impl Fn(&R) -> Result<(), String> + Sync) {
    let wrong: Vec<String> = thread::scope(|scope| {
        let check = &check;
        let running: Vec<_> = rows.iter().map(|row| scope.spawn(move || check(row))).collect();
        running.into_iter().filter_map(|row| row.join().unwrap_or_else(|_| Err("panicked".into())).err()).collect()
    });
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

// ---- HTTP -----------------------------------------------------------------------------------------------------------

/// What becomes of the connection behind the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// It takes another request.
    Stays,
    /// It ends.
    Ends,
}
use After::{Ends, Stays};

/// A good handshake's head with `from` replaced.
fn upgrade_with(from: &str, to: &str) -> Vec<u8> {
    let request = String::from_utf8(raw::upgrade_request("/echo")).expect("UTF-8");
    assert!(request.contains(from), "{from}");
    request.replace(from, to).into_bytes()
}

fn request(head: &str) -> Vec<u8> {
    head.replace('\n', "\r\n").into_bytes()
}

/// What it is, the request, the status, headers of the response, and what becomes of the connection.
type Row = (&'static str, Vec<u8>, u16, &'static [(&'static str, &'static str)], After);

#[test]
fn refused_requests() {
    let server = TestServer::with(limits());
    let key = raw::KEY;
    let field = |field: &str| upgrade_with("\r\n\r\n", &format!("\r\n{field}\r\n\r\n"));
    let long = "x".repeat(2000);
    let many: String = (0..101).map(|_| "a:b\r\n").collect();
    let rows: Vec<Row> = vec![
        // 400: the request itself.
        ("noise", b"\x80\x03\x01\x02\x00".to_vec(), 400, &[], Ends),
        ("no request", request("hello\n\n"), 400, &[], Ends),
        ("bare line feeds", b"GET /echo HTTP/1.1\nHost: x\n\n".to_vec(), 400, &[], Ends),
        ("no Host", request("GET /healthz HTTP/1.1\n\n"), 400, &[], Ends),
        ("two Hosts", request("GET /healthz HTTP/1.1\nHost: x\nHost: x\n\n"), 400, &[], Ends),
        ("a space before the colon", request("GET /healthz HTTP/1.1\nHost : x\n\n"), 400, &[], Ends),
        ("a folded field", request("GET /healthz HTTP/1.1\nHost: x\nA: b\n c\n\n"), 400, &[], Ends),
        ("a NUL", request("GET /healthz HTTP/1.1\nHost: x\nA: \0\n\n"), 400, &[], Ends),
        ("two lengths", request("GET / HTTP/1.1\nHost: x\nContent-Length: 1\nContent-Length: 2\n\n"), 400, &[], Ends),
        ("a negative length", request("GET / HTTP/1.1\nHost: x\nContent-Length: -1\n\n"), 400, &[], Ends),
        (
            "smuggling",
            request("GET / HTTP/1.1\nHost: x\nContent-Length: 4\nTransfer-Encoding: chunked\n\n0\n\n"),
            400,
            &[],
            Ends,
        ),
        ("another version", request("GET /healthz HTTP/2.0\nHost: x\n\n"), 505, &[], Ends),
        ("a target without a form", request("GET healthz HTTP/1.1\nHost: x\n\n"), 400, &[], Ends),
        ("a target with a user", request("GET http://me@x/healthz HTTP/1.1\nHost: x\n\n"), 400, &[], Ends),
        ("half an escape", request("GET /%6 HTTP/1.1\nHost: x\n\n"), 400, &[], Ends),
        ("no escape", request("GET /%xy/healthz HTTP/1.1\nHost: x\n\n"), 400, &[], Ends),
        ("the whole server", request("GET * HTTP/1.1\nHost: x\n\n"), 400, &[], Stays),
        ("two origins", field("Origin: https://example.org\r\nOrigin: https://evil.test"), 400, &[], Ends),
        ("two tokens", request("GET / HTTP/1.1\nHost: x\nAuthorization: a\nAuthorization: b\n\n"), 400, &[], Ends),
        ("chunks in 1.0", request("POST /healthz HTTP/1.0\nTransfer-Encoding: chunked\n\n0\n\n"), 400, &[], Ends),
        (
            "chunks and more",
            request("POST /healthz HTTP/1.1\nHost: x\nTransfer-Encoding: gzip, chunked\n\n"),
            501,
            &[],
            Ends,
        ),
        ("a tunnel", request("CONNECT x:80 HTTP/1.1\nHost: x:80\n\n"), 501, &[], Ends),
        ("a long method", [&[b'M'; 65][..], &request(" /healthz HTTP/1.1\nHost: x\n\n")].concat(), 501, &[], Ends),
        ("a long token", vec![b'M'; 65], 501, &[], Ends),
        (
            "a method of 30 letters",
            [&[b'M'; 30][..], &request(" /healthz HTTP/1.1\nHost: x\n\n")].concat(),
            405,
            &[],
            Stays,
        ),
        ("another expectation", request("GET /healthz HTTP/1.1\nHost: x\nExpect: tea\n\n"), 417, &[], Ends),
        (
            "junk behind a chunk's size",
            request("POST /healthz HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n1 junk\nx\n0\n\n"),
            400,
            &[],
            Ends,
        ),
        // 400: the handshake.
        ("no key", upgrade_with(&format!("Sec-WebSocket-Key: {key}\r\n"), ""), 400, &[], Ends),
        ("a short key", upgrade_with(key, "dGhlIHNhbXBsZQ=="), 400, &[], Ends),
        ("no base64", upgrade_with(key, "dGhlIHNhbXBsZSBub25j!Q=="), 400, &[], Ends),
        ("two keys", field(&format!("Sec-WebSocket-Key: {key}")), 400, &[], Ends),
        ("Connection without Upgrade", upgrade_with("Connection: Upgrade", "Connection: keep-alive"), 400, &[], Ends),
        ("HTTP/1.0", upgrade_with("HTTP/1.1", "HTTP/1.0"), 400, &[], Ends),
        ("a body", [field("Content-Length: 3"), b"abc".to_vec()].concat(), 400, &[], Ends),
        ("a body that never comes", field("Content-Length: 3"), 408, &[], Ends),
        // The others.
        ("another origin", field("Origin: https://example.com"), 403, &[], Ends),
        ("origin null", field("Origin: null"), 403, &[], Ends),
        ("no such route", raw::upgrade_request("/nowhere"), 404, &[], Ends),
        ("no such page", request("GET /nowhere HTTP/1.1\nHost: x\n\n"), 404, &[], Stays),
        ("a POST handshake", upgrade_with("GET", "POST"), 405, &[("allow", "GET")], Ends),
        ("POST", request("POST /healthz HTTP/1.1\nHost: x\n\n"), 405, &[("allow", "GET, HEAD")], Stays),
        (
            "POST with a body",
            request("POST /healthz HTTP/1.1\nHost: x\nContent-Length: 5\n\nhello"),
            405,
            &[("allow", "GET, HEAD")],
            Stays,
        ),
        ("half a head", request("GET /echo HTTP/1.1\nHost:"), 408, &[], Ends),
        (
            "no Upgrade",
            request("GET /echo HTTP/1.1\nHost: x\n\n"),
            426,
            &[("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-version", "13")],
            Stays,
        ),
        (
            "version 8",
            upgrade_with("Version: 13", "Version: 8"),
            426,
            &[("sec-websocket-version", "13"), ("upgrade", "websocket")],
            Ends,
        ),
        (
            "no version",
            upgrade_with("Sec-WebSocket-Version: 13\r\n", ""),
            426,
            &[("sec-websocket-version", "13")],
            Ends,
        ),
        ("a large head", field(&format!("A: {long}")), 431, &[], Ends),
        ("a large head without an end", format!("GET /{long}").into_bytes(), 431, &[], Ends),
        ("many fields", field(&many), 431, &[], Ends),
    ];
    check_all(&rows, |(name, bytes, status, fields, after)| {
        let mut client = server.raw();
        client.send(bytes);
        let response = client.try_response(false).map_err(|end| format!("{name}: no response, {end:?}"))?;
        if response.status != *status {
            return Err(format!("{name}: {response:?}"));
        }
        let body: serde_json::Value = serde_json::from_str(&response.body).unwrap_or_default();
        let message = body["error"].as_str();
        if message.is_none_or(str::is_empty) || response.header("content-type") != Some("application/json") {
            return Err(format!("{name}: no JSON error in {response:?}"));
        }
        if response.header("date").is_none_or(|date| date.len() != 29 || !date.ends_with(" GMT")) {
            return Err(format!("{name}: no Date in {response:?}"));
        }
        if (response.header("connection") == Some("close")) != (*after == Ends) {
            return Err(format!("{name}: {after:?} and yet {response:?}"));
        }
        for (field, value) in *fields {
            // A field may have members that others added.
            let found = response.head.lines().filter_map(|line| line.split_once(": ")).any(|(of, found)| {
                of.eq_ignore_ascii_case(field) && (found == *value || found.split(", ").any(|member| member == *value))
            });
            if !found {
                return Err(format!("{name}: no {field}: {value} in {response:?}"));
            }
        }
        match after {
            Stays => {
                client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
                match client.try_response(false) {
                    Ok(next) if next.status == 200 => Ok(()),
                    next => Err(format!("{name}: then {next:?}")),
                }
            }
            Ends => match client.rest() {
                (rest, End::Finished) if rest.is_empty() => Ok(()),
                rest => Err(format!("{name}: then {rest:?}")),
            },
        }
    });
}

#[test]
fn good_handshakes_in_unusual_form() {
    let server = TestServer::with(limits());
    let field = |field: &str| upgrade_with("\r\n\r\n", &format!("\r\n{field}\r\n\r\n"));
    let rows: Vec<(&str, Vec<u8>)> = vec![
        (
            "cases",
            upgrade_with("Upgrade: websocket\r\nConnection: Upgrade", "UPGRADE: WebSocket\r\ncOnnection: uPGRADE"),
        ),
        ("a list", upgrade_with("Connection: Upgrade", "Connection: keep-alive, Upgrade")),
        ("two fields", upgrade_with("Connection: Upgrade", "Connection: keep-alive\r\nConnection: Upgrade")),
        ("the allowed origin", field("Origin: https://EXAMPLE.org")),
        ("unknown extensions", field("Sec-WebSocket-Extensions: foo; bar=1, x-baz")),
        ("subprotocols that are offered", field("Sec-WebSocket-Protocol: chat, superchat")),
        ("a query", upgrade_with("/echo", "/echo?token=1")),
        ("an empty line first", [b"\r\n", raw::upgrade_request("/echo").as_slice()].concat()),
        ("empty lines first", [b"\r\n\r\n\r\n", raw::upgrade_request("/echo").as_slice()].concat()),
        ("the absolute form", upgrade_with("/echo", "http://x/echo")),
        ("the absolute form of another host", upgrade_with("/echo", "WS://y:99/echo?z")),
        ("an escaped path", upgrade_with("/echo", "/%65c%68o")),
        ("the allowed origin with its port", field("Origin: https://example.org:443")),
        ("a length of 0", field("Content-Length: 0")),
    ];
    check_all(&rows, |(name, bytes)| {
        let mut client = server.raw();
        client.send(&[bytes.clone(), raw::text("?")].concat());
        let response = client.try_response(false).map_err(|end| format!("{name}: no response, {end:?}"))?;
        if response.status != 101 || response.header("sec-websocket-accept") != Some(raw::ACCEPT) {
            return Err(format!("{name}: {response:?}"));
        }
        // RFC 6455 4.2.2: what was not offered is not answered; the program takes the first subprotocol that is.
        let taken = (*name == "subprotocols that are offered").then_some("chat");
        if response.header("sec-websocket-protocol") != taken || response.header("sec-websocket-extensions").is_some() {
            return Err(format!("{name}: {response:?}"));
        }
        let reply = client.try_frame().map(|frame| frame.payload);
        if reply == Ok(b"?".to_vec()) { Ok(()) } else { Err(format!("{name}: {reply:?}")) }
    });
}

// ---- WebSocket ------------------------------------------------------------------------------------------------------

/// A client's frame whose length is written in this many bytes (1, 3 or 9), whatever it is.
fn with_length(first: u8, form: u8, len: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match form {
        1 => bytes.push(0x80 | len as u8),
        3 => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(len.to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, payload.len() as u8], payload].concat()
}

fn broken_frames() -> Vec<(String, Vec<u8>, u16)> {
    let mut rows: Vec<(String, Vec<u8>, u16)> = Vec::new();
    let mut row = |name: &str, bytes: Vec<u8>, code: u16| rows.push((name.into(), bytes, code));
    // RFC 6455 5.1, 5.2
    row("unmasked text", unmasked(FIN | TEXT, b"hello"), 1002);
    row("unmasked ping", unmasked(FIN | PING, b""), 1002);
    row("unmasked close", unmasked(FIN | CLOSE, &[3, 232]), 1002);
    row("an unmasked frame behind a good one", [raw::text("a"), unmasked(FIN | TEXT, b"b")].concat(), 1002);
    for bit in [0x40, 0x20, 0x10] {
        row(&format!("reserved bit {bit:#x}"), frame(FIN | bit | TEXT, b"x"), 1002);
        row(&format!("reserved bit {bit:#x} of a ping"), frame(FIN | bit | PING, b""), 1002);
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        row(&format!("opcode {opcode}"), frame(FIN | opcode, b""), 1002);
        row(&format!("opcode {opcode}, a fragment"), frame(opcode, b"x"), 1002);
    }
    row("16 bits for 125", with_length(FIN | BINARY, 3, 125, &[0; 125]), 1002);
    row("64 bits for 65535", with_length(FIN | BINARY, 9, 65_535, &[]), 1002);
    row("64 bits with the top one", with_length(FIN | BINARY, 9, 1 << 63, &[]), 1002);
    // 5.4
    row("nothing to continue", frame(FIN, b"x"), 1002);
    row("nothing to continue, a fragment", frame(0, b"x"), 1002);
    row("a message inside of a message", [frame(TEXT, b"a"), raw::text("b")].concat(), 1002);
    row("a fragment of another message", [frame(TEXT, b"a"), frame(BINARY, b"b")].concat(), 1002);
    // 5.5
    for (name, opcode) in [("ping", PING), ("pong", PONG), ("close", CLOSE)] {
        row(&format!("a fragmented {name}"), frame(opcode, b""), 1002);
        row(&format!("a {name} of 126 bytes"), frame(FIN | opcode, &[b'x'; 126]), 1002);
        row(&format!("a {name} of 64-bit length"), with_length(FIN | opcode, 9, 1 << 40, &[]), 1002);
    }
    // 5.5.1, 7.4
    row("close with 1 byte", frame(FIN | CLOSE, &[3]), 1002);
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        row(&format!("close {code}"), raw::close(code, b""), 1002);
    }
    row("a bad reason", raw::close(1000, b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xED\xA0\x80"), 1007);
    row("half a character as a reason", raw::close(1000, b"\xE2\x82"), 1007);
    // 8.1
    for (name, bytes) in [
        ("a surrogate", &b"\xED\xA0\x80"[..]),
        ("beyond U+10FFFF", b"\xF4\x90\x80\x80"),
        ("an overlong slash", b"\xC0\xAF"),
        ("a lone continuation", b"ok\x80"),
        ("a byte that is never legal", b"ok\xFF"),
        ("half a character", b"\xE2\x82"),
    ] {
        row(&format!("text with {name}"), frame(FIN | TEXT, bytes), 1007);
        row(&format!("fragments with {name}"), [frame(TEXT, b"ok"), frame(FIN, bytes)].concat(), 1007);
    }
    let parts = [frame(TEXT, b"\xE2\x82"), frame(0, b"\x41"), frame(FIN, b"")].concat();
    row("a character cut by fragments, wrong", parts, 1007);
    row("bad text of which the end never comes", frame(TEXT, b"\xF4\x90"), 1007);
    row("a bad beginning of a frame under way", with_length(FIN | TEXT, 3, 900, b"abc\xC1"), 1007);
    // 10.4
    row("1001 bytes", frame(FIN | BINARY, &[0; 1001]), 1009);
    row("a head that announces an exabyte", with_length(FIN | BINARY, 9, 1 << 60, &[]), 1009);
    row("1001 bytes in fragments", [frame(BINARY, &[0; 600]), frame(FIN, &[0; 401])].concat(), 1009);
    let five = [frame(BINARY, b"1"), frame(0, b"2").repeat(3), frame(FIN, b"5")].concat();
    row("5 fragments", five, 1008);
    row("empty fragments for ever", [frame(TEXT, b""), frame(0, b"").repeat(50)].concat(), 1008);
    row("51 messages at once", raw::text("m").repeat(60), 1008);
    rows
}

/// Reads up to the end: the Close frame must come, be the last, and the end be in order.
fn check_close(name: &str, client: &mut Raw, code: u16) -> Result<(), String> {
    let (frames, end) = client.frames();
    match frames.split_last() {
        Some((last, before)) if last.code() == Some(code) && !before.iter().any(raw::Frame::is_close) => {}
        _ => return Err(format!("{name}: {frames:?}, {end:?}")),
    }
    if end == End::Finished { Ok(()) } else { Err(format!("{name}: {end:?} behind the Close frame")) }
}

// Whoever waits for the server to end the connection sees it end within the close timeout.
#[test]
fn broken_frames_are_told_and_the_socket_closes() {
    let server = TestServer::with(limits());
    check_all(&broken_frames(), |(name, bytes, code)| {
        let mut client = server.open("/echo");
        client.send(bytes);
        check_close(name, &mut client, *code)
    });
    server.await_connections(0);
}

// One that goes on sending as if nothing were wrong gets the same answer: unread bytes must not turn it into a reset.
#[test]
fn broken_frames_in_the_middle_of_a_flood() {
    let server = TestServer::with(limits());
    check_all(&broken_frames(), |(name, bytes, code)| {
        let mut client = server.open("/echo");
        client.send(&[bytes.clone(), frame(FIN | PING, &[1; 100]).repeat(300)].concat());
        // The frame of an exabyte, and others that never end, swallow what follows; the code is the same.
        let (frames, end) = client.frames();
        let closes: Vec<_> = frames.iter().filter(|frame| frame.is_close()).collect();
        match closes.as_slice() {
            // What follows a bad beginning can be wrong earlier than what it is a row for.
            [close] if close.code() == Some(*code) && end == End::Finished => Ok(()),
            _ => Err(format!("{name}: {closes:?}, {end:?}")),
        }
    });
}

// RFC 6455 7.1.1: the server closes first, and a client that answers its Close does not wait for it.
#[test]
fn an_answered_close_ends_at_once() {
    let server = TestServer::with(limits().close_timeout(Duration::from_secs(60)));
    let mut client = server.open("/echo");
    client.send(&frame(FIN | TEXT, b"\xFF"));
    assert_eq!(client.frame().code(), Some(1007));
    client.send(&raw::close(1007, b""));
    assert_eq!(client.rest(), (Vec::new(), End::Finished));
}

#[test]
fn bad_text_is_refused_before_its_frame_ends() {
    let server = TestServer::with(limits());
    let mut client = server.open("/echo");
    client.send(&with_length(FIN | TEXT, 3, 900, b"good so far"));
    assert!(client.is_silent(Duration::from_millis(100)));
    client.send(b"\xF8");
    assert_eq!(client.frame().code(), Some(1007));
}

#[test]
fn what_is_just_legal_passes() {
    let server = TestServer::with(limits());
    let rows: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
        ("1000 bytes", frame(FIN | BINARY, &[7; 1000]), vec![7; 1000]),
        ("4 fragments", [frame(BINARY, b"1"), frame(0, b"2").repeat(2), frame(FIN, b"3")].concat(), b"1223".to_vec()),
        ("a cut character", [frame(TEXT, b"\xE2\x82"), frame(FIN, b"\xAC")].concat(), b"\xE2\x82\xAC".to_vec()),
        ("the last character", frame(FIN | TEXT, b"\xF4\x8F\xBF\xBF"), b"\xF4\x8F\xBF\xBF".to_vec()),
        ("not UTF-8, but binary", frame(FIN | BINARY, b"\xFF\xFE"), b"\xFF\xFE".to_vec()),
        ("a ping of 125 bytes", frame(FIN | PING, &[1; 125]), vec![1; 125]),
        ("a pong nobody asked for", [frame(FIN | PONG, b"x"), raw::text("y")].concat(), b"y".to_vec()),
    ];
    check_all(&rows, |(name, bytes, want)| {
        let mut client = server.open("/echo");
        client.send(bytes);
        match client.try_frame() {
            Ok(got) if got.payload == *want => Ok(()),
            got => Err(format!("{name}: {got:?}")),
        }
    });
    let codes = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999];
    check_all(&codes, |code| {
        let mut client = server.open("/echo");
        client.send(&raw::close(*code, "tschüß".as_bytes()));
        check_close(&format!("close {code}"), &mut client, *code)
    });
}

// RFC 6455 7.1.1: the server ends the connection first. Where frames cannot be told apart any more it does not see the
// client's Close either, so it waits for a while that clients wait longer than.
#[test]
fn the_server_ends_the_connection_before_a_waiting_client_does() {
    let server = TestServer::with(limits().close_timeout(Duration::from_secs(60)));
    check_all(&[unmasked(FIN | TEXT, b"x"), frame(FIN | 0x40 | TEXT, b"x"), frame(FIN | 3, b"")], |bytes| {
        let mut client = server.open("/echo");
        client.send(bytes);
        let answer = client.frame().code();
        client.send(&raw::close(1002, b""));
        let start = std::time::Instant::now();
        let (rest, end) = client.rest();
        let took = start.elapsed();
        let is_good = answer == Some(1002) && rest.is_empty() && end == End::Finished;
        if is_good && took < Duration::from_millis(900) {
            Ok(())
        } else {
            Err(format!("{answer:?}, {end:?}, {took:?}"))
        }
    });
}

/// RFC 6455 4.4: refused before anything is opened.
#[test]
fn a_room_whose_name_is_too_long_is_refused_at_the_handshake() {
    let server = TestServer::new();
    let _open = server.open(&format!("/rooms/{}", "r".repeat(256)));
    for len in [257, 2000] {
        let mut client = server.raw();
        client.send(&raw::upgrade_request(&format!("/rooms/{}", "r".repeat(len))));
        let response = client.response(false);
        assert_eq!(response.status, 400);
        assert!(response.body.starts_with("{\"error\":"), "{response:?}");
    }
    assert_eq!(server.handle().connections(), 1);
}
