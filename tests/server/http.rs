//! The HTTP side: requests one behind the other, and what comes in the same packet as a handshake.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ringwire::{App, HttpError, Request, Server, ws};

use crate::common::raw::{self, End, FIN, Frame, Raw};
use crate::common::{TestServer, config};

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

/// RFC 9110 9.3.2, also where the answer is given before the request is there, or where it never is.
#[test]
fn no_answer_to_head_has_content() {
    let app = || {
        App::new()
            .get("/page", async |_| "content")
            .get("/panics", async |_| -> () { panic!("on purpose") })
            .get("/slow", async |_| ringwire::sleep(Duration::from_secs(60)).await)
            .ws("/ws", ws())
            .group("/private", |group| {
                group.before(|_| Err(HttpError::unauthorized("who are you?"))).get("/", async |_| "secret")
            })
    };
    let limits = config()
        .max_head(1024)
        .max_body(10)
        .handshake_timeout(Duration::from_millis(300))
        .answer_timeout(Duration::from_millis(300));
    let server = Server::new(limits).start(app).expect("it starts");
    let address = server.addresses()[0].inet().expect("TCP");
    let long = format!("A: {}", "x".repeat(1024));
    let many = "A: b\r\n".repeat(101);
    for (target, fields, status) in [
        ("/page", "", 200),
        ("/nowhere", "", 404),
        ("/panics", "", 500),
        ("/slow", "", 503),
        ("/private", "", 401),
        ("/ws", "", 405),
        ("*", "", 400),
        ("nowhere", "", 400),
        ("/%", "", 400),
        ("/page", "Host: y", 400),
        ("/page", "A : b", 400),
        ("/page", "Content-Length: x", 400),
        ("/page", "Content-Length: 11", 413),
        ("/page", "Content-Length: 5", 408),
        ("/page", "Transfer-Encoding: gzip, chunked", 501),
        ("/page", "Transfer-Encoding: chunked\r\n\r\n5 junk", 400),
        ("/page", "Transfer-Encoding: chunked\r\n\r\nff\r\n", 413),
        ("/page", "Expect: tea", 417),
        ("/nowhere", "Content-Length: 5\r\nExpect: 100-continue", 404),
        ("/page", &long, 431),
        ("/page", &many, 431),
        ("/page", "HALF", 408),
    ] {
        let mut client = Raw::connect(address);
        let end = if fields == "HALF" { "" } else { "\r\n\r\n" };
        client.send(format!("\r\nHEAD {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}{end}").as_bytes());
        let response = client.try_response(true).unwrap_or_else(|end| panic!("{target} {fields}: {end:?}"));
        assert_eq!(response.status, status, "{target} {fields}: {response:?}");
        assert!(response.header("date").is_some(), "{response:?}");
        assert_eq!(client.rest(), (Vec::new(), End::Finished), "{target} {fields}");
    }
    server.shutdown();
    server.join().expect("it ends well");
}

/// RFC 9112 3.2.4
#[test]
fn the_whole_server_has_options() {
    let server = TestServer::new();
    let mut client = server.raw();
    client.send(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n");
    let response = client.response(false);
    assert_eq!((response.status, response.header("content-length")), (204, None));
    assert_eq!(response.header("allow"), Some("OPTIONS, GET, HEAD, POST, DELETE, PUT"));
    client.send(b"POST * HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.response(false).status, 400);
    client.send(b"OPTIONS /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.response(false).status, 405);
}

/// RFC 3986 6.2.2.2
#[test]
fn paths_match_however_they_are_written() {
    let app = || {
        App::new()
            .get("/plain", async |_| "plain")
            .get("/two words/caf\u{e9}", async |_| "words")
            .get("/items/{item}", async |request: Request| request.param("item").to_owned())
            .fallback(async |_| (http::StatusCode::NOT_FOUND, "fallback"))
    };
    let server = Server::new(config()).start(app).expect("it starts");
    let mut client = Raw::connect(server.addresses()[0].inet().expect("TCP"));
    for (path, status, body) in [
        ("/%70lain", 200, "plain"),
        ("/%70%6C%61%69%6e", 200, "plain"),
        ("/plain?%zz", 200, "plain"),
        ("/two%20words/caf%C3%A9", 200, "words"),
        ("/%69tems/%41-%7e", 200, "A-~"),
        ("/items/a%2Fb", 200, "a/b"),
        ("/items/a%2fb%3Fc%23d", 200, "a/b?c#d"),
        ("/items/%2541", 200, "%41"),
        ("/items/100%25", 200, "100%"),
        ("/items/%C3%A9", 200, "\u{e9}"),
        ("/items%2Fa", 404, "fallback"),
        ("/plain%2F", 404, "fallback"),
        ("%2Fplain", 400, ""),
        ("/items/%ff", 400, ""),
        ("/nowhere/%ff", 404, "fallback"),
    ] {
        client.send(&get(path));
        let response = client.response(false);
        assert_eq!(response.status, status, "{path}: {response:?}");
        if status != 400 {
            assert_eq!(response.body, body, "{path}");
        } else if response.header("connection") == Some("close") {
            client = Raw::connect(server.addresses()[0].inet().expect("TCP"));
        }
    }
    server.shutdown();
    server.join().expect("it ends well");
}

/// RFC 9112 3.2.2
#[test]
fn handlers_see_the_host_that_is_asked_for() {
    let host = async |request: Request| format!("{:?} {:?} {}", request.host(), request.header("host"), request.path());
    let server = Server::new(config()).start(move || App::new().get("/a", host).get("/", host)).expect("it starts");
    let mut client = Raw::connect(server.addresses()[0].inet().expect("TCP"));
    for (target, host, want) in [
        ("/a", "x:1", r#"Some("x:1") Some("x:1") /a"#),
        ("/%61", "x", r#"Some("x") Some("x") /a"#),
        ("http://y/a", "x:1", r#"Some("y") Some("y") /a"#),
        ("http://y:2", "x", r#"Some("y:2") Some("y:2") /"#),
        ("http://y?q", "x", r#"Some("y") Some("y") /"#),
        ("/", "", r#"None Some("") /"#),
    ] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        assert_eq!(client.response(false).body, want, "{target}");
    }
    server.shutdown();
    server.join().expect("it ends well");
}

/// RFC 9110 5.5: values are bytes.
#[test]
fn headers_are_written_as_they_are() {
    let value = || HeaderValue::from_bytes(b"caf\xC3\xA9 \xFF\t~").expect("obs-text");
    let app = move || {
        App::new()
            .get("/", async move |_| {
                ringwire::Response::text("").with_header(HeaderName::from_static("x-bytes"), value())
            })
            .group("/", |group| {
                let before = move |request: &mut Request| {
                    request.respond_with_header(HeaderName::from_static("x-bytes"), value());
                    Ok(())
                };
                group.before(before).ws("/ws", ws())
            })
    };
    let server = Server::new(config()).start(app).expect("it starts");
    let address = server.addresses()[0].inet().expect("TCP");
    for request in [get("/"), raw::upgrade_request("/ws")] {
        let mut client = Raw::connect(address);
        client.send(&request);
        client.finish_sending();
        let (bytes, _) = client.rest();
        let line = b"\r\nx-bytes: caf\xC3\xA9 \xFF\t~\r\n";
        assert!(bytes.windows(line.len()).any(|window| window == line), "{}", bytes.escape_ascii());
    }
    // And as they are read.
    let client = ringwire::client::blocking::connect(format!("ws://{address}/ws")).expect("a connection");
    assert_eq!(client.headers().get("x-bytes"), Some(&value()));
    drop(client);
    server.shutdown();
    server.join().expect("it ends well");
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

/// RFC 9110 7.8: 100 before 101; 10.1.1: and where the upgrade is refused, the final status alone.
#[test]
fn an_upgrade_that_expects_100_gets_it_before_101() {
    let server = TestServer::new();
    let ask = |path: &str, fields: &str| {
        let mut client = server.raw();
        let request = String::from_utf8(raw::upgrade_request(path)).expect("ASCII");
        client.send(request.replace("\r\n\r\n", &format!("\r\nExpect: 100-continue{fields}\r\n\r\n")).as_bytes());
        client
    };
    let mut client = ask("/echo", "");
    assert_eq!([client.response(true).status, client.response(true).status], [100, 101]);
    client.send(&raw::text("through"));
    assert_eq!(client.frame().payload, b"through");
    for (path, fields, status) in [
        ("/nowhere", "", 404),
        ("/healthz", "", 200),
        ("/echo", "\r\nSec-WebSocket-Version: 8", 426),
        ("/echo", "\r\nContent-Length: 5", 400),
        ("/echo", "\r\nTransfer-Encoding: chunked", 400),
        ("/echo", "\r\nContent-Length: 5\r\nSec-WebSocket-Version: 8", 426),
        ("/healthz", "\r\nContent-Length: 5", 400),
        ("/nowhere", "\r\nContent-Length: 5", 404),
    ] {
        let mut client = ask(path, fields);
        let response = client.response(false);
        assert_eq!((response.status, response.header("connection")), (status, Some("close")), "{path} {fields}");
        assert_eq!(client.rest(), (Vec::new(), End::Finished), "{path} {fields}");
    }
}
