//! Hooks that see responses, and pages of other origins.

use std::time::Duration;

use http::{HeaderValue, StatusCode};
use ringwire::{Answered, App, Cors, HttpError, Request, sleep, ws};

use crate::common::config;
use crate::common::raw::Response;
use crate::rig::{Served, log, serve_with};

fn ask(served: &Served, method: &str, path: &str, fields: &[(&str, &str)]) -> Response {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n");
    for (name, value) in fields {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut client = served.raw();
    client.send(format!("{request}\r\n").as_bytes());
    client.response(method == "HEAD")
}

fn mark(answered: &mut Answered<'_>) {
    answered.set_header(http::header::SERVER, HeaderValue::from_static("marked"));
}

/// Kills: responses that no hook sees, and hooks that see what is none of theirs.
#[test]
fn hooks_see_every_response() {
    let (tell, told) = log();
    let config = config().answer_timeout(Duration::from_millis(200)).max_head(2048).max_body(10);
    let served = serve_with(config, move || {
        let (tell, inner) = (tell.clone(), tell.clone());
        App::new()
            .on_response(move |answered| {
                let (method, path) = (answered.method().unwrap_or("?"), answered.path().unwrap_or("?"));
                let was_slow = answered.latency() >= Duration::from_millis(30);
                let agent = answered.request_header("user-agent").unwrap_or("-");
                tell(&format!("{method} {path} {} {was_slow} {agent}", answered.status().as_u16()));
                mark(answered);
            })
            .on_response(|_| panic!("as told"))
            .get("/ok", async |_: Request| "ok")
            .get("/slow", async |_: Request| {
                sleep(Duration::from_millis(40)).await;
                "slow"
            })
            .get("/never", async |_: Request| std::future::pending::<&str>().await)
            .get("/panics", async |_: Request| -> &str { panic!("as told") })
            .get("/error", async |_: Request| Err::<&str, _>(HttpError::new(StatusCode::IM_A_TEAPOT, "as told")))
            .ws("/ws", ws().on_connect(|_| "open"))
            .group("/in/{x}", move |group| {
                group
                    .on_response(move |answered| {
                        assert_eq!(answered.header(&http::header::SERVER), None, "the inner one is first");
                        inner(&format!("inner {}", answered.status().as_u16()));
                    })
                    .before(
                        |request| if request.query("no").is_some() { Err(HttpError::forbidden("no")) } else { Ok(()) },
                    )
                    .get("/a", async |_: Request| (StatusCode::CREATED, "a"))
            })
    });
    let agent = [("User-Agent", "tests")];
    for (method, path, status, line) in [
        ("GET", "/ok", 200, "GET /ok 200 false tests"),
        ("HEAD", "/ok", 200, "HEAD /ok 200 false tests"),
        ("GET", "/ok?a=b", 200, "GET /ok 200 false tests"),
        ("GET", "/slow", 200, "GET /slow 200 true tests"),
        ("GET", "/nowhere", 404, "GET /nowhere 404 false tests"),
        ("POST", "/ok", 405, "POST /ok 405 false tests"),
        ("GET", "/panics", 500, "GET /panics 500 false tests"),
        ("GET", "/error", 418, "GET /error 418 false tests"),
        ("GET", "/ws", 426, "GET /ws 426 false tests"),
        ("GET", "/never", 503, "GET /never 503 true tests"),
    ] {
        let response = ask(&served, method, path, &agent);
        assert_eq!((response.status, response.header("server")), (status, Some("marked")), "{method} {path}");
        assert_eq!(told.next(), line);
    }
    for (method, path, status) in [
        ("GET", "/in/1/a", 201),
        ("GET", "/in/1/a?no=1", 403),
        ("GET", "/in/1/b", 404),
        ("PUT", "/in/%31/a", 405),
        ("GET", "/in/2", 404),
    ] {
        assert_eq!(ask(&served, method, path, &[]).status, status);
        assert_eq!(told.next(), format!("inner {status}"), "{path}");
        assert_eq!(told.next().split(' ').nth(2), Some(status.to_string().as_str()), "{path}");
    }
    // A WebSocket that opens, and what is refused before any route is asked.
    let (client, response) = served.connect("/ws", &agent).expect("an upgrade");
    assert_eq!(response.headers()["server"], "marked");
    assert_eq!(told.next(), "GET /ws 101 false tests");
    drop(client);
    for (sent, status, line) in [
        (&b"GET /ok HTTP/1.1\r\nbad header\r\n\r\n"[..], 400, "? ? 400 false -"),
        (b"POST /ok HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n", 413, "POST /ok 413 false -"),
        (
            b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            426,
            "GET /ws 426 false -",
        ),
        (
            b"PUT /ok HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
            405,
            "PUT /ok 405 false -",
        ),
    ] {
        let mut client = served.raw();
        client.send(sent);
        let response = client.response(false);
        assert_eq!((response.status, response.header("server")), (status, Some("marked")), "{response:?}");
        assert_eq!(told.next(), line);
    }
    let mut client = served.raw();
    client.send(&[b"GET /ok HTTP/1.1\r\nHost: x\r\nX: ".as_slice(), &[b'x'; 3000]].concat());
    assert_eq!(client.response(false).status, 431);
    assert_eq!(told.next(), "? ? 431 false -");
    assert!(told.is_empty());
}

#[test]
fn a_full_server_refuses_in_the_sight_of_hooks() {
    let (tell, told) = log();
    let served = serve_with(config().max_connections(1), move || {
        let tell = tell.clone();
        App::new().on_response(move |answered| tell(answered.status().as_str())).ws("/", ws().on_connect(|_| "open"))
    });
    let mut client = served.client("/");
    assert_eq!(crate::rig::text(&mut client), "open");
    assert_eq!(told.next(), "101");
    assert_eq!(served.connect("/", &[]).err(), Some(503));
    assert_eq!(told.next(), "503");
}

const PAGE: (&str, &str) = ("Origin", "https://app.example");
const STRANGER: (&str, &str) = ("Origin", "https://evil.example");

fn with_cors() -> Served {
    serve_with(config(), || {
        let api = Cors::new("https://app.example, http://localhost:3000").max_age(Duration::from_secs(60));
        let strict = Cors::new("https://app.example")
            .credentials()
            .methods([http::Method::PUT])
            .headers([http::header::CONTENT_TYPE])
            .expose([http::header::ETAG]);
        App::new()
            .group("/api", move |group| {
                group
                    .cors(api)
                    .before(|request| match request.header("authorization") {
                        Some(_) => Ok(()),
                        None => Err(HttpError::unauthorized("who?")),
                    })
                    .get("/a", async |_: Request| "a")
                    .delete("/a", async |_: Request| "deleted")
                    .method(http::Method::OPTIONS, "/own", async |_: Request| "my own answer")
                    .group("/strict", move |group| group.cors(strict).put("/", async |_: Request| "b"))
            })
            .group("/open", |group| group.cors(Cors::new("*")).get("/", async |_: Request| "anybody"))
            .get("/plain", async |_: Request| "plain")
    })
}

/// Kills: pages that read what they may not, or not what they may: refusals too.
#[test]
fn pages_of_named_origins_read_every_answer() {
    let served = with_cors();
    let allowed = |response: &Response| response.header("access-control-allow-origin").map(str::to_owned);
    for (method, path, status) in
        [("GET", "/api/a", 401), ("GET", "/api/none", 404), ("PATCH", "/api/a", 405), ("GET", "/api", 404)]
    {
        let response = ask(&served, method, path, &[PAGE]);
        assert_eq!((response.status, allowed(&response).as_deref()), (status, Some(PAGE.1)), "{path}");
        assert_eq!(response.header("vary"), Some("origin"));
        for fields in [&[STRANGER][..], &[]] {
            let response = ask(&served, method, path, fields);
            assert_eq!((response.status, allowed(&response)), (status, None), "{path}");
            assert_eq!(response.header("vary"), Some("origin"), "a cache must know");
        }
    }
    let response = ask(&served, "GET", "/api/a", &[PAGE, ("Authorization", "x")]);
    assert_eq!((response.status, allowed(&response).as_deref()), (200, Some(PAGE.1)));
    assert_eq!(response.header("access-control-allow-credentials"), None);
    let response = ask(&served, "GET", "/open", &[STRANGER]);
    assert_eq!((response.status, allowed(&response).as_deref(), response.header("vary")), (200, Some("*"), None));
    for path in ["/plain", "/apis", "/"] {
        assert_eq!(allowed(&ask(&served, "GET", path, &[PAGE])), None, "{path}");
    }
    let response = ask(&served, "PUT", "/api/strict", &[PAGE, ("Authorization", "x"), ("Content-Length", "0")]);
    assert_eq!((response.status, response.header("access-control-allow-credentials")), (200, Some("true")));
    assert_eq!(response.header("access-control-expose-headers"), Some("etag"));
}

/// Kills: a browser's question that a hook refuses, or that is answered for paths and pages that are not let in.
#[test]
fn a_browser_asks_before() {
    let served = with_cors();
    let asks = |path: &str, origin, fields: &[(&str, &str)]| {
        let fields = [&[origin, ("Access-Control-Request-Method", "DELETE")], fields].concat();
        ask(&served, "OPTIONS", path, &fields)
    };
    let response = asks("/api/a", PAGE, &[("Access-Control-Request-Headers", "x-one, authorization")]);
    assert_eq!(response.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", PAGE.1),
        ("access-control-allow-methods", "GET, DELETE, HEAD"),
        ("access-control-allow-headers", "x-one, authorization"),
        ("access-control-max-age", "60"),
    ] {
        assert_eq!(response.header(name), Some(value), "{name}");
    }
    let response = asks("/api/strict", PAGE, &[("Access-Control-Request-Headers", "x-one")]);
    assert_eq!((response.status, response.header("access-control-allow-methods")), (204, Some("PUT")));
    assert_eq!(response.header("access-control-allow-headers"), Some("content-type"));
    let response = asks("/api/a", STRANGER, &[]);
    assert_eq!((response.status, response.header("access-control-allow-origin")), (403, None));
    assert_eq!(asks("/api/none", PAGE, &[]).status, 404);
    assert_eq!(asks("/plain", PAGE, &[]).status, 405);
    // Not a question, or one that a route answers itself, behind its hooks.
    assert_eq!(ask(&served, "OPTIONS", "/api/a", &[PAGE]).status, 405);
    assert_eq!(asks("/api/own", PAGE, &[]).status, 401);
    assert_eq!(asks("/api/own", PAGE, &[("Authorization", "x")]).body, "my own answer");
}

#[test]
#[should_panic(expected = "name the origins")]
fn not_every_page_sends_credentials() {
    drop(Cors::new("*").credentials());
}

#[test]
#[should_panic(expected = "not * or origins")]
fn what_is_no_origin_is_refused() {
    drop(Cors::new("app.example/path"));
}
