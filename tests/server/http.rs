//! The HTTP side: requests one behind the other, and what comes in the same packet as a handshake.

use std::time::Duration;

use crate::common::TestServer;
use crate::common::raw::{self, End, FIN, Frame};

const OK: &str = r#"{"status":"ok"}"#;

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()
}

#[test]
fn one_connection_serves_many_requests_and_then_a_websocket() {
    let server = TestServer::new();
    let mut client = server.raw();
    for path in ["/healthz", "/readyz?verbose"] {
        client.send(&get(path));
        let response = client.response(false);
        assert_eq!((response.status, response.body.as_str()), (200, OK));
        assert_eq!(response.header("content-type"), Some("application/json"));
    }
    client.send(&get("/nowhere"));
    let response = client.response(false);
    assert_eq!(response.status, 404);
    assert!(response.body.starts_with(r#"{"error":""#), "{response:?}");
    client.upgrade("/echo");
    client.send(&raw::text("now a socket"));
    assert_eq!(client.frame(), Frame::new(FIN | raw::TEXT, b"now a socket"));
}

/// Kills: names that are made valid, so that rooms of different names are one.
#[test]
fn a_path_that_is_not_utf8_is_400() {
    let server = TestServer::new();
    for path in ["/rooms/%ff", "/rooms/a%fe", "/rooms/%c3", "/rooms/%ED%A0%80"] {
        let mut client = server.raw();
        client.send(&raw::upgrade_request(path));
        let response = client.response(false);
        assert_eq!((response.status, response.body.as_str()), (400, r#"{"error":"the path is not UTF-8"}"#), "{path}");
    }
    let mut client = server.raw();
    client.send(b"POST /api/rooms/%ff HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{\"event\":\"x\"}");
    assert_eq!(client.response(false).status, 400);
    drop(server.open("/rooms/%C3%A9"));
}

#[test]
fn head_has_the_length_and_no_body() {
    let server = TestServer::new();
    let mut client = server.raw();
    client.send(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    let response = client.response(true);
    assert_eq!((response.status, response.header("content-length")), (200, Some("15")));
    client.send(&get("/healthz"));
    assert_eq!(client.response(false).body, OK, "the next response follows at once");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = TestServer::new();
    let mut client = server.raw();
    client.send(&[get("/healthz"), get("/a"), get("/readyz"), get("/b")].concat().repeat(50));
    for _ in 0..50 {
        let statuses = [(); 4].map(|()| client.response(false).status);
        assert_eq!(statuses, [200, 404, 200, 404]);
    }
}

// The window of replies is bounded by holding the input back, as it is for messages.
#[test]
fn a_flood_of_requests_that_reads_late_loses_nothing() {
    let server = TestServer::new();
    let mut client = server.raw();
    let count = 40_000;
    let mut writer = client.stream.try_clone().expect("a second handle");
    let sending = std::thread::spawn(move || {
        std::io::Write::write_all(&mut writer, &get("/healthz").repeat(count)).expect("it can be sent");
    });
    std::thread::sleep(Duration::from_millis(200));
    for number in 0..count {
        assert_eq!(client.response(false).body, OK, "response {number}");
    }
    sending.join().expect("all was sent");
}

#[test]
fn frames_in_the_packet_of_the_handshake_are_handled() {
    let server = TestServer::new();
    let mut client = server.raw();
    client.send(&[get("/healthz"), raw::upgrade_request("/echo"), raw::text("first"), raw::text("second")].concat());
    assert_eq!(client.response(false).status, 200);
    assert_eq!(client.response(false).status, 101);
    assert_eq!(client.frame().payload, b"first");
    assert_eq!(client.frame().payload, b"second");
}

#[test]
fn handshake_frames_and_close_in_one_packet() {
    let server = TestServer::new();
    let mut client = server.raw();
    client.send(&[raw::upgrade_request("/echo"), raw::text("only"), raw::close(1000, b"bye")].concat());
    assert_eq!(client.response(false).status, 101);
    assert_eq!(client.frame().payload, b"only");
    let (frames, end) = client.frames();
    assert_eq!((frames[0].code(), frames.len(), end), (Some(1000), 1, End::Finished));
    server.await_connections(0);
}

#[test]
fn a_handshake_that_arrives_byte_by_byte() {
    let server = TestServer::new();
    let mut client = server.raw();
    let mut bytes = raw::upgrade_request("/echo");
    bytes.extend(raw::text("slowly"));
    for byte in bytes {
        client.send(&[byte]);
    }
    assert_eq!(client.response(false).status, 101);
    assert_eq!(client.frame().payload, b"slowly");
}

#[test]
fn a_client_that_has_no_more_requests_is_answered_and_let_go() {
    let server = TestServer::new();
    for request in [get("/healthz"), b"GET /healthz HTTP/1.0\r\n\r\n".to_vec()] {
        let mut client = server.raw();
        client.send(&request);
        client.finish_sending();
        assert_eq!(client.response(false).status, 200);
        assert_eq!(client.rest(), (Vec::new(), End::Finished));
    }
    let mut client = server.raw();
    client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let response = client.response(false);
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    assert_eq!(client.rest(), (Vec::new(), End::Finished));
}

/// RFC 9110 10.1.1
#[test]
fn a_body_is_asked_for_only_where_there_is_a_handler_for_it() {
    let server = TestServer::new();
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 17\r\nExpect: 100-continue\r\n\r\n")
    };
    for (path, status) in [("/nowhere", 404), ("/healthz", 405)] {
        let mut client = server.raw();
        client.send(head(path).as_bytes());
        let response = client.response(false);
        assert_eq!((response.status, response.header("connection")), (status, Some("close")), "{path}");
        assert_eq!(client.rest(), (Vec::new(), End::Finished));
    }
    let mut client = server.raw();
    client.send(head("/api/broadcast").as_bytes());
    assert_eq!(client.response(true).status, 100);
    client.send(br#"{"event":"howdy"}"#);
    let response = client.response(false);
    assert!(response.status == 200 && response.body.contains(r#""sent":true"#), "{response:?}");
}
