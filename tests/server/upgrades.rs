//! Upgrades that are refused: whatever the reason, the connection ends behind the answer, and what was sent behind the
//! request is not served. A proxy that tunnels whatever looks like an upgrade has never looked at it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use ringwire::config::Origins;
use ringwire::{App, HttpError, Request, Response, Server, ws};

use crate::common::config;
use crate::common::raw::{self, End, Raw};

/// Every way to refuse one that an app has, on a path of its own; and a page that must not be reached.
fn app(reached: &Arc<AtomicUsize>) -> App {
    let reached = Arc::clone(reached);
    let unauthorized = || HttpError::unauthorized("who are you?");
    App::new()
        .ws("/ws", ws())
        .ws("/protocol", ws().subprotocols(["v1"]))
        .group("/before", |group| group.before(move |_| Err(unauthorized())).ws("/", ws()))
        .group("/before-async", |group| {
            let before = async move |_: &mut Request| {
                ringwire::sleep(std::time::Duration::from_millis(1)).await;
                Err(unauthorized())
            };
            group.before_async(before).ws("/", ws())
        })
        .group("/before-panics", |group| group.before(|_| panic!("on purpose")).ws("/", ws()))
        .group("/before-async-panics", |group| group.before_async(async |_| panic!("on purpose")).ws("/", ws()))
        .get("/page", async |_| "a page")
        .get("/error", async |_| -> Result<(), HttpError> { Err(HttpError::forbidden("no")) })
        .get("/panics", async |_| -> () { panic!("on purpose") })
        .get("/moved", async |_| StatusCode::PERMANENT_REDIRECT)
        .get("/empty", async |_| ())
        .post("/post", async |_| "posted")
        .group("/handler", |group| {
            group.before(|_| Err(HttpError::forbidden("no"))).get("/", async |request: Request| request.upgrade(&ws()))
        })
        .get("/late", async |request: Request| -> Response { request.upgrade(&ws()) })
        .get("/reached", async move |_| {
            reached.fetch_add(1, Ordering::SeqCst);
            "reached"
        })
}

#[test]
fn a_refused_upgrade_ends_the_connection() {
    let reached = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&reached);
    let limits = config().origins(Origins::List(vec!["https://example.org".into()]));
    let server = Server::new(limits).start(move || app(&counted)).expect("it starts");
    let address = server.addresses()[0].inet().expect("TCP");
    let good = |path: &str| String::from_utf8(raw::upgrade_request(path)).expect("ASCII");
    let with = |field: &str| good("/ws").replace("\r\n\r\n", &format!("\r\n{field}\r\n\r\n"));
    let rows: Vec<(&str, String, u16)> = vec![
        ("no route", good("/nowhere"), 404),
        ("version", good("/ws").replace("Version: 13", "Version: 12"), 426),
        ("no version", good("/ws").replace("Sec-WebSocket-Version: 13\r\n", ""), 426),
        ("key", good("/ws").replace(raw::KEY, "short"), 400),
        ("no key", good("/ws").replace(&format!("Sec-WebSocket-Key: {}\r\n", raw::KEY), ""), 400),
        ("no Connection", good("/ws").replace("Connection: Upgrade\r\n", ""), 400),
        ("no Upgrade", good("/ws").replace("Upgrade: websocket\r\n", ""), 426),
        ("another Upgrade", good("/ws").replace("websocket", "websocket/13"), 426),
        ("another origin", with("Origin: https://evil.test"), 403),
        ("two origins", with("Origin: https://example.org\r\nOrigin: https://evil.test"), 400),
        ("another method", good("/ws").replace("GET", "POST"), 405),
        ("another version of HTTP", good("/ws").replace("HTTP/1.1", "HTTP/1.0"), 400),
        (
            "kept alive in 1.0",
            good("/ws").replace("HTTP/1.1", "HTTP/1.0").replace("Upgrade\r\n", "Upgrade, keep-alive\r\n"),
            400,
        ),
        ("a body", with("Content-Length: 2") + "{}", 400),
        ("a body in chunks", with("Transfer-Encoding: chunked") + "2\r\n{}\r\n0\r\n\r\n", 400),
        ("an expectation", with("Expect: tea"), 417),
        ("no subprotocol", good("/protocol"), 400),
        ("before", good("/before"), 401),
        ("before, async", good("/before-async"), 401),
        ("before panics", good("/before-panics"), 500),
        ("before panics, async", good("/before-async-panics"), 500),
        ("a page", good("/page"), 200),
        ("a head", good("/page").replace("GET", "HEAD"), 200),
        ("no content", good("/empty"), 204),
        ("a redirection", good("/moved"), 308),
        ("an error", good("/error"), 403),
        ("a panic", good("/panics"), 500),
        ("no handler", good("/page").replace("GET", "DELETE"), 405),
        ("another handler", good("/post").replace("GET", "POST"), 200),
        ("a handler's upgrade, before", good("/handler"), 403),
        ("a handler's upgrade", good("/late").replace("Version: 13", "Version: 7"), 426),
        ("the whole server", good("*").replace("GET", "OPTIONS"), 204),
    ];
    for (name, request, status) in &rows {
        let is_head = request.starts_with("HEAD");
        for split in [false, true] {
            let mut client = Raw::connect(address);
            let behind = "GET /reached HTTP/1.1\r\nHost: x\r\n\r\n";
            if split {
                client.send(request.as_bytes());
                client.send_if_open(behind.as_bytes());
            } else {
                client.send(format!("{request}{behind}").as_bytes());
            }
            let response = client.try_response(is_head).unwrap_or_else(|end| panic!("{name}: {end:?}"));
            assert_eq!(response.status, *status, "{name}: {response:?}");
            assert_eq!(response.header("connection"), Some("close"), "{name}: {response:?}");
            client.finish_sending();
            assert_eq!(client.rest(), (Vec::new(), End::Finished), "{name}");
        }
    }
    assert_eq!(reached.load(Ordering::SeqCst), 0, "it was served");
    // What does not ask for a WebSocket is served on.
    let mut client = Raw::connect(address);
    for fields in ["", "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"] {
        client.send(format!("GET /ws HTTP/1.1\r\nHost: x\r\n{fields}\r\n").as_bytes());
        assert_eq!(client.response(false).status, 426, "{fields}");
    }
    client.send(b"GET /reached HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.response(false).body, "reached");
    server.shutdown();
    server.join().expect("it ends well");
}

/// Nor where it is the server that has no room.
#[test]
fn an_upgrade_that_finds_no_room_ends_the_connection() {
    let server = Server::new(config().max_connections(1).cores(ringwire::config::CoreSet::Count(1)));
    let server = server.start(|| App::new().ws("/ws", ws()).get("/page", async |_| "a page")).expect("it starts");
    let address = server.addresses()[0].inet().expect("TCP");
    let mut first = Raw::connect(address);
    first.upgrade("/ws");
    let mut client = Raw::connect(address);
    client.send(&[raw::upgrade_request("/ws"), b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()].concat());
    let response = client.response(false);
    assert_eq!((response.status, response.header("connection")), (503, Some("close")), "{response:?}");
    assert_eq!(client.rest(), (Vec::new(), End::Finished));
    server.shutdown();
    server.join().expect("it ends well");
}
